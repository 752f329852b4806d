//! A batch of messages that SQS hands to `results`: each is handled in turn, and those that have to come again are named.

use std::time::{Duration, Instant};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Serialize;
use tracing::Level;

use super::{Looked, Message, Place, TRIES, Teller, Told};
use crate::{
    error::{Error, chain},
    outcome::{Fault, failures},
    queue::Sqs,
    telemetry::{self, Counted, Metric},
};

/// How long a message rests before it comes again, for each time that it came. Meanwhile its group, which is all of the queue,
/// waits; and whatever list lags has caught up.
const REST: Duration = Duration::from_secs(10);

/// How long a request to the queue may take once a message is handled.
const QUEUE_WITHIN: Duration = Duration::from_secs(2);

/// A look's line in the log.
#[derive(Serialize)]
struct Line<'a> {
    pipeline: &'a str,
    result: Told,
    comments: usize,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    invocation_id: &'a str,
    message_id: &'a str,
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Fault>,
}

/// The line that all looks of a message are over.
#[derive(Serialize)]
struct Over<'a> {
    looked: usize,
    request_id: &'a str,
    invocation_id: &'a str,
}

/// Whether a look for a later message of the batch sees all that one for this message would, and nothing else is to be done.
fn is_covered(message: &Message, later: &[SqsMessage]) -> bool {
    let Message::Pipeline {
        name,
        builds,
        run,
        request_id,
    } = message
    else {
        return false;
    };
    // Of a failed run there is a mail.
    if run.as_ref().is_some_and(|run| run.is_red) || !request_id.is_empty() {
        return false;
    }
    let mut later = later
        .iter()
        .filter_map(|record| Message::parse(record.body.as_deref()?).ok());
    later.any(|later| {
        matches!(&later, Message::Pipeline { name: own, builds: same, .. } if own == name && same == builds)
    })
}

/// Handles a batch until `deadline`, logs what became of each look, and names the messages that have to come again.
pub async fn batch(
    teller: &Teller,
    event: &SqsEvent,
    queue: &Sqs,
    place: &Place,
    invocation_id: &str,
    began: Instant,
    deadline: Instant,
) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for (at, record) in event.records.iter().enumerate() {
        let body = record.body.as_deref().unwrap_or_default();
        let id = record.message_id.as_deref().unwrap_or_default();
        let tries = record.attributes.get("ApproximateReceiveCount");
        let tries: u32 = tries.and_then(|tries| tries.parse().ok()).unwrap_or(1);
        let message = match Message::parse(body) {
            Ok(message) => message,
            Err(err) => {
                let unread = Looked::of("", Err(err), true);
                log(&unread, "", invocation_id, id, tries);
                continue;
            }
        };
        if is_covered(&message, &event.records[at + 1..]) {
            continue;
        }
        // It was not begun, so this was no try of it: it comes again.
        if Instant::now() >= deadline {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id.into();
            response.batch_item_failures.push(failure);
            continue;
        }
        let told = teller.tell(&message, place, tries, began);
        let looked = tokio::time::timeout_at(deadline.into(), told).await;
        let looked = looked.unwrap_or_else(|_| vec![late(&message, tries)]);
        let comes_again = looked.iter().any(|looked| looked.told == Told::Again);
        for looked in &looked {
            log(looked, message.request_id(), invocation_id, id, tries);
        }
        if looked.iter().any(|looked| looked.told == Told::Failed) {
            // A key that was refused may be another one by now.
            teller.forget_keys().await;
        }
        if comes_again {
            let rest = REST * tries.min(6);
            let receipt = record.receipt_handle.as_deref().unwrap_or_default();
            let postponed = queue.postpone(receipt, rest);
            if let Ok(Err(err)) = tokio::time::timeout(QUEUE_WITHIN, postponed).await {
                tracing::warn!("it comes later than it should: {}", chain(&err));
            }
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id.into();
            response.batch_item_failures.push(failure);
        } else if !message.request_id().is_empty() {
            let over = Over {
                looked: looked.len(),
                request_id: message.request_id(),
                invocation_id,
            };
            telemetry::record(Level::INFO, "looked", &over, &[]);
        }
    }
    response
}

/// The time was over. What was written until then is found by the next look.
fn late(message: &Message, tries: u32) -> Looked {
    let err = Error::Results {
        reason: "the time was over".into(),
        transient: true,
    };
    let pipeline = match message {
        Message::Pipeline { name, .. } => name,
        Message::Opened { .. } | Message::All { .. } => "",
    };
    // The schedule's own look is repeated by the schedule.
    let is_repeated = matches!(message, Message::All { .. }) && message.request_id().is_empty();
    Looked::of(pipeline, Err(err), is_repeated || tries >= TRIES)
}

fn log(looked: &Looked, request_id: &str, invocation_id: &str, message_id: &str, tries: u32) {
    let line = Line {
        pipeline: &looked.pipeline,
        result: looked.told,
        comments: looked.comments,
        warnings: &looked.warnings,
        request_id,
        invocation_id,
        message_id,
        tries,
        error: looked.error.as_ref().map(Into::into),
    };
    let mut metrics = vec![Metric {
        name: Counted::Results,
        count: 1,
        by: &[&["result"]],
    }];
    // What comes again is no failure yet; what does not is one, whatever it was: the schedule may still mend it.
    match (&looked.error, looked.told) {
        (Some(_), Told::Again) => metrics.push(failures(true)),
        (Some(err), _) => metrics.push(failures(err.is_transient())),
        (None, _) => {}
    }
    let level = match (&looked.error, looked.warnings.is_empty()) {
        (Some(_), _) => Level::ERROR,
        (None, false) => Level::WARN,
        (None, true) => Level::INFO,
    };
    let said = match &looked.error {
        Some(err) => format!("results of {}: {}", looked.pipeline, chain(err)),
        None => format!("results of {}: {}", looked.pipeline, looked.told),
    };
    telemetry::record(level, &said, &line, &metrics);
}
