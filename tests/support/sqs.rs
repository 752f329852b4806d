//! A FIFO queue with its dead-letter queue, as the real SQS client sees them.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    fifo::{Accepted, SqsQueue},
    json_api::{Dialect, JsonApi, Refusal},
};
pub use super::{
    fifo::{Message, Sent},
    json_api::Fault,
};

const DIALECT: Dialect = Dialect {
    name: "sqs",
    target: "AmazonSQS",
    errors: "com.amazonaws.sqs#",
    content_type: "application/x-amz-json-1.0",
};
const QUEUE: &str = "bridge.fifo";
const DEAD: &str = "bridge-dead.fifo";
const RESULTS: &str = "bridge-results.fifo";
const RESULTS_DEAD: &str = "bridge-results-dead.fifo";
const ACCOUNT: &str = "123456789012";
pub const REGION: &str = "ap-northeast-1";
const PAUSE: Duration = Duration::from_millis(5);

/// An operation that the endpoint knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    SendMessage,
    SendMessageBatch,
    ReceiveMessage,
    DeleteMessage,
    ChangeMessageVisibility,
    GetQueueAttributes,
    GetQueueUrl,
}

impl Op {
    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What stands behind the wire.
struct Queues {
    queue: SqsQueue,
    dead: SqsQueue,
    results: SqsQueue,
    results_dead: SqsQueue,
    visibility: Duration,
    /// `None` if there is no redrive policy.
    max_receives: Option<u32>,
    sent: Vec<Sent>,
}

/// An SQS of its own for one test: one queue, and where it gives its messages up to.
pub struct TestSqs {
    api: JsonApi,
    queues: Arc<Mutex<Queues>>,
    url: String,
    dead_letter_url: String,
    arn: String,
}

impl TestSqs {
    /// With a redrive policy: what was received `max_receives` times goes to the dead-letter queue.
    pub fn start(visibility: Duration, max_receives: u32) -> Self {
        let queues = Arc::new(Mutex::new(Queues {
            queue: SqsQueue::new(QUEUE, visibility, Some(max_receives)),
            dead: SqsQueue::new(DEAD, visibility, None),
            results: SqsQueue::new(RESULTS, visibility, None),
            results_dead: SqsQueue::new(RESULTS_DEAD, visibility, None),
            visibility,
            max_receives: Some(max_receives),
            sent: Vec::new(),
        }));
        let shared = Arc::clone(&queues);
        let api = JsonApi::start(DIALECT, move |operation, input| {
            let queues = Arc::clone(&shared);
            async move { answer(&queues, &operation, &input).await }
        });
        Self {
            api,
            queues,
            url: url_of(QUEUE),
            dead_letter_url: url_of(DEAD),
            arn: arn_of(QUEUE),
        }
    }

    /// Takes the redrive policy away: messages come back without end.
    #[must_use]
    pub fn without_redrive(self) -> Self {
        let mut queues = self.queues();
        queues.max_receives = None;
        queues.queue = SqsQueue::new(QUEUE, queues.visibility, None);
        drop(queues);
        self
    }

    /// For `AWS_ENDPOINT_URL_SQS`.
    pub fn endpoint(&self) -> String {
        self.api.endpoint()
    }

    /// The URL of the queue, which names AWS and not this endpoint, as a stack's output does.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The URL of the dead-letter queue.
    pub fn dead_letter_url(&self) -> String {
        self.dead_letter_url.clone()
    }

    /// The URL of the queue of results.
    pub fn results_url() -> String {
        url_of(RESULTS)
    }

    /// The bodies on the queue of results, and among its dead letters.
    pub fn results(&self) -> (Vec<String>, Vec<String>) {
        let queues = self.queues();
        (queues.results.bodies(), queues.results_dead.bodies())
    }

    /// Puts a message of results among their dead letters.
    pub fn put_dead_result(&self, body: &str) -> &Self {
        let sent = Sent {
            body: body.to_owned(),
            group: "results".to_owned(),
            deduplication: Uuid::new_v4().to_string(),
        };
        let accepted = self.queues().results_dead.send(sent, Instant::now());
        accepted.expect("a message that SQS takes");
        self
    }

    /// The ARN of the queue.
    pub fn arn(&self) -> String {
        self.arn.clone()
    }

    /// What clients sent to the queue and it accepted, in order; what it then dropped as a duplicate too.
    pub fn sent(&self) -> Vec<Sent> {
        self.queues().sent.clone()
    }

    /// How many messages could be received, were their groups not locked.
    pub fn waiting(&self) -> usize {
        self.depth().0
    }

    /// How many messages are with a consumer whose time is not up.
    pub fn in_flight(&self) -> usize {
        self.depth().1
    }

    /// The bodies in the dead-letter queue, the oldest first; a string if it is no JSON.
    pub fn dead_letters(&self) -> Vec<Value> {
        let bodies = self.queues().dead.bodies().into_iter();
        let value = |body: String| serde_json::from_str(&body).unwrap_or(Value::String(body));
        bodies.map(value).collect()
    }

    /// Puts a message among the dead letters.
    pub fn put_dead(&self, body: &str, group: &str) -> &Self {
        let sent = Sent {
            body: body.to_owned(),
            group: group.to_owned(),
            deduplication: Uuid::new_v4().to_string(),
        };
        let accepted = self.queues().dead.send(sent, Instant::now());
        accepted.expect("a message that SQS takes");
        self
    }

    /// As if the time was up for which dead letters are held.
    pub fn let_dead_letters_return(&self) {
        let mut queues = self.queues();
        let visibility = queues.visibility;
        queues.dead.let_all_return(visibility, Instant::now());
    }

    /// The inputs of an operation's requests, in order, the failed ones too.
    pub fn calls(&self, op: Op) -> Vec<Value> {
        self.api.calls(&op.name())
    }

    /// How many requests of this operation have arrived, the failed ones too.
    pub fn count(&self, op: Op) -> usize {
        self.calls(op).len()
    }

    /// Lets the next request of this operation fail. Called again, the one after that too.
    pub fn fail_once(&self, op: Op, status: u16) -> &Self {
        self.fault_once(op, Fault::Status(status))
    }

    /// The same with another fault.
    pub fn fault_once(&self, op: Op, fault: Fault) -> &Self {
        self.api.fault_once(&op.name(), fault);
        self
    }

    /// Lets every request of this operation fail from now on.
    pub fn fail_always(&self, op: Op, status: u16) -> &Self {
        self.api.fault_always(&op.name(), Fault::Status(status));
        self
    }

    /// Nothing fails any more.
    pub fn heal(&self) -> &Self {
        self.api.heal();
        self
    }

    /// Sends a message from within AWS, as the scheduler does: with a deduplication id of its own, and not in
    /// [`sent`](Self::sent).
    pub fn put(&self, body: &str, group: &str) -> &Self {
        let sent = Sent {
            body: body.to_owned(),
            group: group.to_owned(),
            deduplication: Uuid::new_v4().to_string(),
        };
        let accepted = self.queues().queue.send(sent, Instant::now());
        accepted.expect("a message that SQS takes");
        self
    }

    /// Gives a message up.
    pub fn bury(&self, body: &str) {
        let sent = Sent {
            body: body.to_owned(),
            group: "g".to_owned(),
            deduplication: Uuid::new_v4().to_string(),
        };
        let accepted = self.queues().dead.send(sent, Instant::now());
        accepted.expect("a message that SQS takes");
    }

    /// Receives from the queue as Lambda does: no client's request, no fault.
    pub fn receive(&self, max: usize) -> Vec<Message> {
        self.queues().receive(QUEUE, max, None)
    }

    /// Deletes a message as Lambda does; one whose time was up comes again.
    pub fn delete(&self, message: &Message) {
        let mut queues = self.queues();
        queues.queue.delete(&message.receipt, Instant::now()).ok();
    }

    /// How many messages are waiting, and how many in flight: asked in one go, as one becomes the other with time.
    pub fn depth(&self) -> (usize, usize) {
        self.queues().queue.depth(Instant::now())
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        lock(&self.queues)
    }
}

impl Queues {
    fn receive(&mut self, name: &str, max: usize, visibility: Option<Duration>) -> Vec<Message> {
        let now = Instant::now();
        if name != QUEUE {
            return self.named(name).receive(max, visibility, now).0;
        }
        let (received, given_up) = self.queue.receive(max, visibility, now);
        for stored in given_up {
            self.dead.take_over(stored, now);
        }
        received
    }

    fn named(&mut self, name: &str) -> &mut SqsQueue {
        match name {
            DEAD => &mut self.dead,
            RESULTS => &mut self.results,
            RESULTS_DEAD => &mut self.results_dead,
            _ => &mut self.queue,
        }
    }

    fn send(&mut self, name: &str, input: &Value) -> Result<Accepted, Refusal> {
        if input["DelaySeconds"].as_u64().is_some() {
            let message = "Value for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.";
            return Err(Refusal::new("InvalidParameterValue", message));
        }
        let text = |parameter| input[parameter].as_str().unwrap_or_default().to_owned();
        let sent = Sent {
            body: text("MessageBody"),
            group: text("MessageGroupId"),
            deduplication: text("MessageDeduplicationId"),
        };
        let accepted = self.named(name).send(sent.clone(), Instant::now())?;
        if name == QUEUE {
            self.sent.push(sent);
        }
        Ok(accepted)
    }

    fn send_batch(&mut self, name: &str, input: &Value) -> Result<Value, Refusal> {
        let entries = input["Entries"].as_array().map_or(&[][..], Vec::as_slice);
        let code = match entries.len() {
            0 => Some("EmptyBatchRequest"),
            1..=10 => None,
            _ => Some("TooManyEntriesInBatchRequest"),
        };
        if let Some(code) = code {
            return Err(Refusal::new(code, "1 to 10 entries"));
        }
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            if entries[..index]
                .iter()
                .any(|other| other["Id"] == entry["Id"])
            {
                return Err(Refusal::new("BatchEntryIdsNotDistinct", "an id twice"));
            }
        }
        for entry in entries {
            match self.send(name, entry) {
                Ok(accepted) => {
                    let mut output = sent_output(&accepted);
                    output["Id"] = entry["Id"].clone();
                    successful.push(output);
                }
                Err(refusal) => failed.push(json!({
                    "Id": entry["Id"],
                    "SenderFault": true,
                    "Code": refusal.code,
                    "Message": refusal.message,
                })),
            }
        }
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }

    fn attributes(&mut self, name: &str, asked: &Value) -> Value {
        let (waiting, in_flight) = self.named(name).depth(Instant::now());
        let mut all = vec![
            ("QueueArn", arn_of(name)),
            ("ApproximateNumberOfMessages", waiting.to_string()),
            (
                "ApproximateNumberOfMessagesNotVisible",
                in_flight.to_string(),
            ),
            ("ApproximateNumberOfMessagesDelayed", "0".to_owned()),
            ("VisibilityTimeout", self.visibility.as_secs().to_string()),
            ("FifoQueue", "true".to_owned()),
            ("ContentBasedDeduplication", "false".to_owned()),
        ];
        if let Some(max) = self.max_receives.filter(|_| name == QUEUE) {
            let policy = json!({ "deadLetterTargetArn": arn_of(DEAD), "maxReceiveCount": max });
            all.push(("RedrivePolicy", policy.to_string()));
        }
        let chosen = all.into_iter().filter(|(name, _)| is_asked(asked, name));
        let chosen = chosen.map(|(name, value)| (name.to_owned(), value.into()));
        Value::Object(chosen.collect())
    }
}

async fn answer(queues: &Mutex<Queues>, operation: &str, input: &Value) -> Result<Value, Refusal> {
    if operation == "GetQueueUrl" {
        let name = input["QueueName"].as_str().unwrap_or_default();
        return Ok(json!({ "QueueUrl": url_of(known(name)?) }));
    }
    let url = input["QueueUrl"].as_str().unwrap_or_default();
    let name = url.strip_prefix(&url_of("")).unwrap_or_default();
    let name = known(name)?;
    let now = Instant::now();
    let receipt = input["ReceiptHandle"].as_str().unwrap_or_default();
    let visibility = input["VisibilityTimeout"].as_u64().map(Duration::from_secs);
    match operation {
        "SendMessage" => Ok(sent_output(&lock(queues).send(name, input)?)),
        "SendMessageBatch" => lock(queues).send_batch(name, input),
        "ReceiveMessage" => receive(queues, name, input, visibility).await,
        "DeleteMessage" => {
            lock(queues).named(name).delete(receipt, now)?;
            Ok(json!({}))
        }
        "ChangeMessageVisibility" => {
            let visibility = visibility.ok_or_else(|| {
                let message = "The request must contain the parameter VisibilityTimeout.";
                Refusal::new("MissingParameter", message)
            })?;
            let mut queues = lock(queues);
            let queue = queues.named(name);
            queue.change_visibility(receipt, visibility, now)?;
            Ok(json!({}))
        }
        "GetQueueAttributes" => {
            let attributes = lock(queues).attributes(name, &input["AttributeNames"]);
            Ok(json!({ "Attributes": attributes }))
        }
        _ => {
            let message = format!("the test has no {operation}");
            Err(Refusal::new("UnsupportedOperation", message))
        }
    }
}

/// Waits for a message as long as the client wants to.
async fn receive(
    queues: &Mutex<Queues>,
    name: &str,
    input: &Value,
    visibility: Option<Duration>,
) -> Result<Value, Refusal> {
    let max = input["MaxNumberOfMessages"].as_u64().unwrap_or(1);
    let wait = input["WaitTimeSeconds"].as_u64().unwrap_or(0);
    if !(1..=10).contains(&max) || wait > 20 {
        let message = "MaxNumberOfMessages is 1 to 10, WaitTimeSeconds 0 to 20";
        return Err(Refusal::new("InvalidParameterValue", message));
    }
    let end = Instant::now() + Duration::from_secs(wait);
    let max = usize::try_from(max).expect("at most 10");
    let messages = loop {
        let messages = lock(queues).receive(name, max, visibility);
        if !messages.is_empty() || Instant::now() >= end {
            break messages;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let messages = messages.iter().map(|message| {
        let attributes = message.attributes.iter().filter(|(name, _)| {
            is_asked(&input["MessageSystemAttributeNames"], name)
                || is_asked(&input["AttributeNames"], name)
        });
        json!({
            "MessageId": message.id,
            "ReceiptHandle": message.receipt,
            "Body": message.body,
            "MD5OfBody": message.md5,
            "Attributes": attributes.collect::<std::collections::BTreeMap<_, _>>(),
        })
    });
    Ok(json!({ "Messages": messages.collect::<Vec<_>>() }))
}

fn is_asked(asked: &Value, name: &str) -> bool {
    let asked = asked.as_array().map_or(&[][..], Vec::as_slice);
    asked.iter().any(|one| *one == "All" || *one == name)
}

fn sent_output(accepted: &Accepted) -> Value {
    json!({
        "MessageId": accepted.id,
        "MD5OfMessageBody": accepted.md5,
        "SequenceNumber": accepted.sequence,
    })
}

fn known(name: &str) -> Result<&'static str, Refusal> {
    let all = [QUEUE, DEAD, RESULTS, RESULTS_DEAD];
    let known = all.into_iter().find(|known| *known == name);
    known.ok_or_else(|| Refusal {
        query_code: Some("AWS.SimpleQueueService.NonExistentQueue;Sender"),
        ..Refusal::new(
            "QueueDoesNotExist",
            "The specified queue does not exist for this wsdl version.",
        )
    })
}

fn url_of(name: &str) -> String {
    format!("https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}")
}

fn arn_of(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}

fn lock(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
    queues.lock().expect("no test panics inside the queue")
}
