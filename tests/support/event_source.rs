//! Lambda's event source mapping: what lies between a queue and a function.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{
    fifo::Message,
    lambda::{Invocation, Lambda},
    sqs::{REGION, TestSqs},
};

const PAUSE: Duration = Duration::from_millis(5);

impl TestSqs {
    /// What Lambda invokes a function with for these messages.
    ///
    /// Source: <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>
    pub fn event(&self, messages: &[Message]) -> Value {
        let records = messages.iter().map(|message| {
            json!({
                "messageId": message.id,
                "receiptHandle": message.receipt,
                "body": message.body,
                "attributes": message.attributes,
                "messageAttributes": {},
                "md5OfBody": message.md5,
                "eventSource": "aws:sqs",
                "eventSourceARN": self.arn(),
                "awsRegion": REGION,
            })
        });
        json!({ "Records": records.collect::<Vec<_>>() })
    }

    /// Plays the event source mapping until no message is left or time is up: receives up to `batch` messages, invokes
    /// the function, and deletes what it does not report as failed. An invocation that has begun is waited for.
    pub async fn drain(&self, lambda: &Lambda, batch: usize, within: Duration) -> Vec<Invocation> {
        let end = Instant::now() + within;
        let mut invocations = Vec::new();
        while Instant::now() < end {
            let messages = self.receive(batch);
            if messages.is_empty() {
                if self.depth() == (0, 0) {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let invocation = lambda.invoke(&self.event(&messages)).await;
            for message in succeeded(&messages, &invocation.result) {
                self.delete(message);
            }
            invocations.push(invocation);
        }
        invocations
    }
}

/// The messages that Lambda deletes: none if the function failed or what it reports makes no sense, otherwise those it
/// does not name. A report that is missing or empty is a success.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>
fn succeeded<'a>(messages: &'a [Message], result: &Result<Value, Value>) -> Vec<&'a Message> {
    let failed = match result {
        Ok(Value::Null) => Some(Vec::new()),
        Ok(Value::Object(report)) => failures(messages, report),
        _ => None,
    };
    let Some(failed) = failed else {
        return Vec::new();
    };
    let messages = messages.iter();
    messages
        .filter(|message| !failed.contains(&message.id.as_str()))
        .collect()
}

fn failures<'a>(messages: &[Message], report: &'a Map<String, Value>) -> Option<Vec<&'a str>> {
    match report.get("batchItemFailures") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => {
            let ids = items.iter().map(|item| item["itemIdentifier"].as_str());
            let known = |id: &&str| messages.iter().any(|message| message.id == *id);
            ids.map(|id| id.filter(known)).collect()
        }
        Some(_) => None,
    }
}
