//! What SQS has beside the rules of a FIFO queue: what it refuses, deduplication, and receipts as texts. Pure over the time
//! that it is told.
//!
//! Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html>

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    time::{Duration, Instant, SystemTime},
};

use backlog_bridge::local::{Expired, Fifo, Lease, Receipt};
use s3s::crypto::{Checksum, Md5};
use uuid::Uuid;

use super::json_api::Refusal;

/// How long a queue remembers a deduplication id.
pub const DEDUPLICATION: Duration = Duration::from_mins(5);
const MAX_BODY: usize = 1024 * 1024;
const MAX_VISIBILITY: Duration = Duration::from_hours(12);

/// What is sent to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub body: String,
    pub group: String,
    pub deduplication: String,
}

/// What a queue says of a message that it took, and again of the same one sent twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub id: String,
    pub sequence: String,
    pub md5: String,
}

/// A message as a consumer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub receipt: String,
    pub body: String,
    pub md5: String,
    /// `ApproximateReceiveCount`, `MessageGroupId` and so on.
    pub attributes: BTreeMap<String, String>,
}

/// A message beside its rules.
#[derive(Clone)]
pub struct Stored {
    accepted: Accepted,
    sent: Sent,
    sent_at: SystemTime,
}

impl Stored {
    fn message(received: &Lease<Self>, queue: &str, now: Instant) -> Message {
        let Self {
            accepted,
            sent,
            sent_at,
        } = &received.body;
        let first_received = SystemTime::now() - (now - received.first_received);
        let attributes = [
            ("ApproximateReceiveCount", received.receives.to_string()),
            ("SentTimestamp", millis(*sent_at)),
            ("SequenceNumber", accepted.sequence.clone()),
            ("MessageGroupId", sent.group.clone()),
            ("SenderId", "AROAEXAMPLEEXAMPLEEX1:test".to_owned()),
            ("MessageDeduplicationId", sent.deduplication.clone()),
            ("ApproximateFirstReceiveTimestamp", millis(first_received)),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
        let Receipt { message, receives } = received.receipt;
        Message {
            id: accepted.id.clone(),
            receipt: format!("{queue}/{message}/{receives}"),
            body: sent.body.clone(),
            md5: accepted.md5.clone(),
            attributes: attributes.into(),
        }
    }
}

/// A queue of SQS: the product's rules for what waits, and what SQS has besides.
pub struct SqsQueue {
    name: &'static str,
    messages: Fifo<Stored>,
    remembered: HashMap<String, (Accepted, Instant)>,
    accepted: u64,
}

impl SqsQueue {
    pub fn new(name: &'static str, visibility: Duration, max_receives: Option<u32>) -> Self {
        Self {
            name,
            messages: Fifo::new(visibility, max_receives),
            remembered: HashMap::new(),
            accepted: 0,
        }
    }

    /// Takes a message, unless one with its deduplication id came less than five minutes ago.
    ///
    /// # Errors
    ///
    /// What SQS says if the message cannot be taken.
    pub fn send(&mut self, sent: Sent, now: Instant) -> Result<Accepted, Refusal> {
        check_body(&sent.body)?;
        check_id("MessageGroupId", &sent.group)?;
        check_id("MessageDeduplicationId", &sent.deduplication)?;
        if let Some((accepted, at)) = self.remembered.get(&sent.deduplication)
            && now < *at + DEDUPLICATION
        {
            return Ok(accepted.clone());
        }
        self.accepted += 1;
        let accepted = Accepted {
            id: Uuid::new_v4().to_string(),
            sequence: format!("188{:017}", self.accepted),
            md5: md5_hex(sent.body.as_bytes()),
        };
        let remembered = (accepted.clone(), now);
        self.remembered
            .insert(sent.deduplication.clone(), remembered);
        let stored = Stored {
            accepted: accepted.clone(),
            sent,
            sent_at: SystemTime::now(),
        };
        self.take_over(stored, now);
        Ok(accepted)
    }

    /// Takes a message that another queue gave up.
    pub fn take_over(&mut self, stored: Stored, now: Instant) {
        let group = stored.sent.group.clone();
        self.messages.send(stored, group, now);
    }

    /// Hands out messages, and what was given up.
    pub fn receive(
        &mut self,
        max: usize,
        visibility: Option<Duration>,
        now: Instant,
    ) -> (Vec<Message>, Vec<Stored>) {
        let (received, given_up) = self.messages.receive(max, visibility, now);
        let received = received.iter();
        let messages = received.map(|message| Stored::message(message, self.name, now));
        (messages.collect(), given_up)
    }

    /// Forgets a message. One that is gone already is gone.
    ///
    /// # Errors
    ///
    /// What SQS says if the receipt is none, or somebody else's turn has begun.
    pub fn delete(&mut self, receipt: &str, now: Instant) -> Result<(), Refusal> {
        let deleted = self.messages.delete(self.parse(receipt)?, now);
        deleted.map_err(|Expired| expired(receipt))
    }

    /// Lets a message in flight stay there for so long from now, or come back at once.
    ///
    /// # Errors
    ///
    /// What SQS says if it is not in flight, or for more than twelve hours.
    pub fn change_visibility(
        &mut self,
        receipt: &str,
        visibility: Duration,
        now: Instant,
    ) -> Result<(), Refusal> {
        if visibility > MAX_VISIBILITY {
            let message = "VisibilityTimeout must be between 0 and 43200";
            return Err(Refusal::new("InvalidParameterValue", message));
        }
        let receipt = self.parse(receipt)?;
        let changed = self.messages.change_visibility(receipt, visibility, now);
        changed.map_err(|Expired| Refusal::new("MessageNotInflight", "not in flight"))
    }

    /// What could be handed out, groups aside, and what is with a consumer.
    pub fn depth(&self, now: Instant) -> (usize, usize) {
        let in_flight = self.messages.in_flight(now);
        (self.messages.len() - in_flight, in_flight)
    }

    /// All that is in it, the oldest first.
    pub fn bodies(&self) -> Vec<String> {
        let bodies = self.messages.bodies();
        bodies.map(|stored| stored.sent.body.clone()).collect()
    }

    /// As if the time was up for which messages are with a consumer.
    pub fn let_all_return(&mut self, visibility: Duration, now: Instant) {
        let all: Vec<_> = self.messages.bodies().cloned().collect();
        self.messages = Fifo::new(visibility, None);
        for stored in all {
            self.take_over(stored, now);
        }
    }

    fn parse(&self, receipt: &str) -> Result<Receipt, Refusal> {
        let parse = || {
            let rest = receipt.strip_prefix(self.name)?.strip_prefix('/')?;
            let (message, receives) = rest.split_once('/')?;
            Some(Receipt {
                message: message.parse().ok()?,
                receives: receives.parse().ok()?,
            })
        };
        parse().ok_or_else(|| {
            let message = format!("The input receipt handle \"{receipt}\" is not valid.");
            Refusal::new("ReceiptHandleIsInvalid", message)
        })
    }
}

/// A queue that is FIFO does not let go of a message on an old receipt; a standard one would.
fn expired(receipt: &str) -> Refusal {
    let message = format!(
        "Value {receipt} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."
    );
    Refusal::new("InvalidParameterValue", message)
}

fn check_body(body: &str) -> Result<(), Refusal> {
    let reason = if body.is_empty() {
        return Err(missing("MessageBody"));
    } else if body.len() > MAX_BODY {
        "Message must be shorter than 1048576 bytes."
    } else if body.chars().any(|c| c < ' ' && !"\t\n\r".contains(c)) {
        return Err(Refusal::new("InvalidMessageContents", "not a character"));
    } else {
        return Ok(());
    };
    let message = format!("One or more parameters are invalid. Reason: {reason}");
    Err(Refusal::new("InvalidParameterValue", message))
}

/// Group and deduplication ids: 1 to 128 visible ASCII characters.
fn check_id(parameter: &str, id: &str) -> Result<(), Refusal> {
    if id.is_empty() {
        return Err(missing(parameter));
    }
    if id.len() > 128 || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!(
            "Value {id} for parameter {parameter} is invalid. Reason: {parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length."
        );
        return Err(Refusal::new("InvalidParameterValue", message));
    }
    Ok(())
}

fn missing(parameter: &str) -> Refusal {
    let message = format!("The request must contain the parameter {parameter}.");
    Refusal::new("MissingParameter", message)
}

/// As SQS writes it.
pub fn md5_hex(bytes: &[u8]) -> String {
    let mut md5 = Md5::new();
    md5.update(bytes);
    let mut text = String::new();
    for byte in md5.finalize() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

fn millis(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis().to_string()
}
