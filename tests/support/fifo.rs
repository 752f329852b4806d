//! A FIFO queue of SQS without its wire. Pure over the time that it is told.
//!
//! Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html>

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write,
    time::{Duration, Instant, SystemTime},
};

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

/// A message as a queue has it.
pub struct Stored {
    accepted: Accepted,
    sent: Sent,
    sent_at: SystemTime,
    first_received: Option<SystemTime>,
    receives: u32,
    /// The receipt of whoever has it, and until when.
    held: Option<(String, Instant)>,
}

impl Stored {
    /// What was sent.
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    fn in_flight(&self, now: Instant) -> bool {
        self.held.as_ref().is_some_and(|(_, until)| now < *until)
    }

    fn message(&self, receipt: String) -> Message {
        let attributes = [
            ("ApproximateReceiveCount", self.receives.to_string()),
            ("SentTimestamp", millis(self.sent_at)),
            ("SequenceNumber", self.accepted.sequence.clone()),
            ("MessageGroupId", self.sent.group.clone()),
            ("SenderId", "AROAEXAMPLEEXAMPLEEX1:test".to_owned()),
            ("MessageDeduplicationId", self.sent.deduplication.clone()),
            (
                "ApproximateFirstReceiveTimestamp",
                self.first_received.map(millis).unwrap_or_default(),
            ),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
        Message {
            id: self.accepted.id.clone(),
            receipt,
            body: self.sent.body.clone(),
            md5: self.accepted.md5.clone(),
            attributes: attributes.into(),
        }
    }
}

/// The queue. Its messages stay in the order in which they came until they are deleted.
pub struct Fifo {
    visibility: Duration,
    messages: Vec<Stored>,
    remembered: HashMap<String, (Accepted, Instant)>,
    accepted: u64,
}

impl Fifo {
    pub fn new(visibility: Duration) -> Self {
        Self {
            visibility,
            messages: Vec::new(),
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
        self.take_over(Stored {
            accepted: accepted.clone(),
            sent,
            sent_at: SystemTime::now(),
            first_received: None,
            receives: 0,
            held: None,
        });
        Ok(accepted)
    }

    /// Takes a message that another queue gave up.
    pub fn take_over(&mut self, stored: Stored) {
        let held = None;
        self.messages.push(Stored { held, ..stored });
    }

    /// Hands out up to `max` messages, the oldest first, none of a group that has one in flight. With them come those
    /// that have been received `max_receives` times already: the queue gave them up.
    pub fn receive(
        &mut self,
        max: usize,
        visibility: Option<Duration>,
        max_receives: Option<u32>,
        now: Instant,
    ) -> (Vec<Message>, Vec<Stored>) {
        let until = now + visibility.unwrap_or(self.visibility);
        let locked: HashSet<String> = self
            .messages
            .iter()
            .filter(|stored| stored.in_flight(now))
            .map(|stored| stored.sent.group.clone())
            .collect();
        let (mut received, mut dead, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for mut stored in self.messages.drain(..) {
            if received.len() < max && !locked.contains(&stored.sent.group) {
                if max_receives.is_some_and(|max| stored.receives >= max) {
                    dead.push(stored);
                    continue;
                }
                stored.receives += 1;
                stored.first_received.get_or_insert_with(SystemTime::now);
                let receipt = format!("{}/{}", stored.accepted.id, Uuid::new_v4());
                stored.held = Some((receipt.clone(), until));
                received.push(stored.message(receipt));
            }
            kept.push(stored);
        }
        self.messages = kept;
        (received, dead)
    }

    /// Forgets a message. One that is gone already is gone.
    ///
    /// # Errors
    ///
    /// What SQS says if the receipt is none, or somebody else's turn has begun.
    pub fn delete(&mut self, receipt: &str, now: Instant) -> Result<(), Refusal> {
        let Some(index) = self.find(receipt)? else {
            return Ok(());
        };
        if !self.is_held(index, receipt, now) {
            return Err(expired(receipt));
        }
        self.messages.remove(index);
        Ok(())
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
        match self.find(receipt)? {
            Some(index) if self.is_held(index, receipt, now) => {
                self.messages[index].held = Some((receipt.to_owned(), now + visibility));
                Ok(())
            }
            _ => Err(Refusal::new("MessageNotInflight", "not in flight")),
        }
    }

    /// What could be handed out, groups aside, and what is with a consumer.
    pub fn depth(&self, now: Instant) -> (usize, usize) {
        let in_flight = self.messages.iter().filter(|stored| stored.in_flight(now));
        let in_flight = in_flight.count();
        (self.messages.len() - in_flight, in_flight)
    }

    /// All that is in it, the oldest first.
    pub fn bodies(&self) -> Vec<String> {
        let bodies = self.messages.iter().map(|stored| stored.sent.body.clone());
        bodies.collect()
    }

    fn find(&self, receipt: &str) -> Result<Option<usize>, Refusal> {
        let id = receipt.split_once('/').map(|(id, _)| id);
        let id = id.filter(|id| Uuid::try_parse(id).is_ok());
        let id = id.ok_or_else(|| {
            let message = format!("The input receipt handle \"{receipt}\" is not valid.");
            Refusal::new("ReceiptHandleIsInvalid", message)
        })?;
        let mut messages = self.messages.iter();
        Ok(messages.position(|stored| stored.accepted.id == id))
    }

    fn is_held(&self, index: usize, receipt: &str, now: Instant) -> bool {
        let held = self.messages[index].held.as_ref();
        held.is_some_and(|(held, until)| held == receipt && now < *until)
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
