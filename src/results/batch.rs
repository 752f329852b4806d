//! A batch of messages that SQS hands to `results`: each is handled in turn, and those that have to come again are named.

use std::time::{Duration, Instant};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Serialize;
use tracing::Level;

use super::{
    Looked, Message, Place, Teller, Told,
    message::{GROUP, Rest},
    visit::Times,
};
use crate::{
    error::chain,
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

/// Handles a batch in its time, logs what became of each look, and names the messages that have to come again.
pub async fn batch(
    teller: &Teller,
    event: &SqsEvent,
    queue: &Sqs,
    place: &Place,
    invocation_id: &str,
    times: Times,
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
        let receipt = record.receipt_handle.as_deref().unwrap_or_default();
        // It was not begun, so this was no try of it: it comes again.
        if Instant::now() >= times.until {
            comes_again(queue, receipt, Duration::ZERO).await;
            response.batch_item_failures.push(failure(id));
            continue;
        }
        let told = teller.tell(&message, Rest::of(body), place, tries, times);
        let (looked, rest) = Box::pin(told).await;
        for looked in &looked {
            log(looked, message.request_id(), invocation_id, id, tries);
        }
        if looked.iter().any(|looked| looked.told == Told::Failed) {
            // A key that was refused may be another one by now.
            teller.forget_keys().await;
        }
        let (goes_on, is_left) = match rest {
            Some(rest) => (true, !sent(queue, &message, rest).await),
            None => (false, false),
        };
        if is_left || looked.iter().any(|looked| looked.told == Told::Again) {
            comes_again(queue, receipt, REST * tries.min(6)).await;
            response.batch_item_failures.push(failure(id));
        } else if !goes_on && !message.request_id().is_empty() {
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

fn failure(id: &str) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    failure.item_identifier = id.into();
    failure
}

/// Has a message come again then, and not only when the queue's own time is over.
async fn comes_again(queue: &Sqs, receipt: &str, rest: Duration) {
    let postponed = queue.postpone(receipt, rest);
    if let Ok(Err(err)) = tokio::time::timeout(QUEUE_WITHIN, postponed).await {
        tracing::warn!("it comes later than it should: {}", chain(&err));
    }
}

/// Has the look go on with a message of its own, behind those that wait. Says whether that was sent.
async fn sent(queue: &Sqs, message: &Message, rest: Rest) -> bool {
    let body = message.body_of_rest(rest);
    let sent = tokio::time::timeout(QUEUE_WITHIN, queue.send_text(&body, GROUP)).await;
    match sent {
        Ok(Ok(())) => true,
        Ok(Err(err)) => {
            tracing::warn!("the look does not go on, and is repeated: {}", chain(&err));
            false
        }
        Err(_) => false,
    }
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
