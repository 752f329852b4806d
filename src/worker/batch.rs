//! A batch of messages that SQS hands to `deliver`, of any size: each is handled in turn, and those that have to come again
//! are named.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Serialize;

use super::{
    Attempt, End, Parked, Worker, backoff,
    look::{Sight, overdue},
    sweep::REPOSITORIES_A_PART,
};
use crate::{
    deadline::within,
    error::{Error, chain},
    outcome::{Fault, Report, Subject},
    progress::Stage,
    queue::{Job, Message, Part, Recheck, Sqs, next_look},
};

/// How long a request to the queue may take once a message is handled. Two of them fit into the margin before the end.
const QUEUE_WITHIN: Duration = Duration::from_secs(2);

/// How long a part of a sweep may wait for its turn.
const PART_WITHIN: Duration = Duration::from_mins(12);

/// The part of a message that this needs; what is not there is empty.
struct Record<'a> {
    id: &'a str,
    receipt_handle: &'a str,
    group: &'a str,
    body: &'a str,
    attempt: Attempt,
}

/// What a line in the log says besides the outcome.
#[derive(Serialize)]
struct Context<'a> {
    /// The request of the webhook, or of the invocation that swept.
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    invocation_id: &'a str,
    message_id: &'a str,
    tries: u32,
    /// Where the job is now, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Kept>,
    /// Why the message could not be put where it belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_error: Option<Fault>,
}

/// Where a message is after it was handled.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Acknowledged,
    BackInQueue,
    InDeadLetterQueue,
    /// It should be in the dead-letter queue, but there is none.
    Nowhere,
}

impl<'a> From<&'a SqsMessage> for Record<'a> {
    fn from(message: &'a SqsMessage) -> Self {
        let attribute = |name| message.attributes.get(name).map_or("", String::as_str);
        Self {
            id: message.message_id.as_deref().unwrap_or_default(),
            receipt_handle: message.receipt_handle.as_deref().unwrap_or_default(),
            group: attribute("MessageGroupId"),
            body: message.body.as_deref().unwrap_or_default(),
            attempt: Attempt {
                tries: attribute("ApproximateReceiveCount").parse().unwrap_or(1),
                // How often it is tried is the queue's, which does not tell.
                is_last: false,
                age: since(attribute("SentTimestamp")).unwrap_or_default(),
            },
        }
    }
}

/// The time since an instant in milliseconds of Unix time.
fn since(millis: &str) -> Option<Duration> {
    let sent = UNIX_EPOCH + Duration::from_millis(millis.parse().ok()?);
    SystemTime::now().duration_since(sent).ok()
}

impl Worker {
    /// Handles a batch until `deadline`, logs what became of each message, and names those that have to come again. A group
    /// stops at its first one: what follows would overtake it.
    ///
    /// With batches of more than one, a message counts as received each time that one before it fails, so the queue's
    /// `maxReceiveCount` must be higher.
    pub async fn batch(
        &self,
        event: &SqsEvent,
        queue: &Sqs,
        invocation_id: &str,
        deadline: Instant,
    ) -> SqsBatchResponse {
        let mut stopped = HashSet::new();
        let mut response = SqsBatchResponse::default();
        for record in event.records.iter().map(Record::from) {
            let is_late = Instant::now() >= deadline;
            let kept = if is_late || stopped.contains(record.group) {
                let why = if is_late {
                    "the time was over"
                } else {
                    "the one before it failed"
                };
                tracing::warn!(message_id = record.id, "a message was not tried: {why}");
                if !is_late {
                    // Its turn comes with the one before it.
                    postpone(queue, &record, backoff(1)).await;
                }
                Kept::BackInQueue
            } else {
                Box::pin(self.message(&record, queue, invocation_id, deadline)).await
            };
            if kept == Kept::BackInQueue {
                stopped.insert(record.group);
                let mut failure = BatchItemFailure::default();
                failure.item_identifier = record.id.into();
                response.batch_item_failures.push(failure);
            }
        }
        response
    }

    async fn message(
        &self,
        record: &Record<'_>,
        queue: &Sqs,
        invocation_id: &str,
        deadline: Instant,
    ) -> Kept {
        let mut context = Context {
            request_id: "",
            invocation_id,
            message_id: record.id,
            tries: record.attempt.tries,
            job: None,
            queue_error: None,
        };
        let job: Job;
        let (report, mut end, more) = match Message::parse(record.body) {
            Ok(Message::Sweep(part)) => {
                let kept = self.sweep_or_cut(part, queue, record, &context, deadline);
                return Box::pin(kept).await;
            }
            Ok(Message::Deliver(parsed)) => {
                job = *parsed;
                if let Some(parked) = Parked::of(&job, record.attempt.age) {
                    return wait(parked, queue, record).await;
                }
                context.request_id = &job.request_id;
                if let Some(Recheck::Ref { after }) = job.recheck {
                    let looked = self.look_for(&job, after, queue, record, deadline);
                    match Box::pin(looked).await {
                        Ok((report, end)) => (report, end, Vec::new()),
                        Err(kept) => return kept,
                    }
                } else {
                    let progress = Arc::new(job.progress(deadline));
                    let handled = self.deliver(&job, record.attempt, &progress).await;
                    (handled.report, handled.end, handled.more)
                }
            }
            Err(err) => {
                let report = Report::failed(Subject::default(), &err);
                (report, End::DeadLetter, Vec::new())
            }
        };
        let sent = Box::pin(send(&more, queue)).await;
        if sent.is_err() {
            // Acknowledged, they would be lost.
            end = End::Again;
        }
        let (kept, queue_error) = keep(end, queue, record).await;
        let queue_error = queue_error.or(sent.err());
        // As another message, if it rests until the Git server may answer.
        let is_back = kept == Kept::Acknowledged && report.again;
        context.job = Some(if is_back { Kept::BackInQueue } else { kept });
        context.queue_error = queue_error.as_ref().map(Into::into);
        report.log(&context);
        kept
    }
}

impl Worker {
    /// Sweeps, or cuts a sweep into parts that is too large for one message.
    async fn sweep_or_cut(
        &self,
        part: Option<Part>,
        queue: &Sqs,
        record: &Record<'_>,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Kept {
        if part.is_none() {
            let parts = self.parts(deadline).await;
            if parts > 1 {
                return cut(parts, queue, record).await;
            }
        } else if record.attempt.age >= PART_WITHIN {
            // Otherwise, they would become more with each sweep.
            tracing::warn!("a part of a sweep waited too long, and is left to the next one");
            return Kept::Acknowledged;
        }
        let enqueue = async |job: Job| queue.send(&job).await;
        let swept = self.sweep(context.invocation_id, part, Some(deadline), enqueue);
        Box::pin(swept).await.log(context);
        Kept::Acknowledged
    }

    /// Looks for a ref that is awaited. What becomes of its job; or where that is by now, if nothing is to be said of it.
    async fn look_for(
        &self,
        job: &Job,
        after: Duration,
        queue: &Sqs,
        record: &Record<'_>,
        deadline: Instant,
    ) -> Result<(Report, End), Kept> {
        let age = record.attempt.age;
        let early = after.saturating_sub(age);
        if !early.is_zero() {
            return Err(wait(Parked::Rests(early), queue, record).await);
        }
        let now = Instant::now();
        let due = now.checked_sub(overdue(age)).unwrap_or(now);
        let sight = self.look(&[job], due, deadline).await.pop();
        match (sight, next_look(age)) {
            (Some(Sight::There), _) => {
                let found = Parked::Due(job.found().into());
                Err(wait(found, queue, record).await)
            }
            (_, Some(next)) => {
                let rest = next.saturating_sub(age);
                Err(wait(Parked::Rests(rest), queue, record).await)
            }
            (Some(Sight::Unknown(report)), None) => {
                let transient = report.error.as_ref().is_some_and(|fault| fault.transient);
                let end = if transient {
                    End::Again
                } else {
                    End::DeadLetter
                };
                Ok((*report, end))
            }
            (Some(Sight::Missing) | None, None) => {
                let gone = Report::gone(job);
                Ok((gone, End::Done))
            }
        }
    }
}

/// Sends the parts of a sweep. Which come first is another matter each time, should the last have to wait too long.
async fn cut(parts: u32, queue: &Sqs, record: &Record<'_>) -> Kept {
    let mut all: Vec<_> = Part::all(parts).collect();
    fastrand::shuffle(&mut all);
    for part in all {
        let (body, group) = (part.body(), part.group());
        let sent = queue.send_text(&body, &group);
        if let Err(err) = in_margin(Box::pin(sent)).await {
            // Some are asked twice then, which does no harm.
            tracing::warn!(message_id = record.id, "{}", chain(&err));
            postpone(queue, record, backoff(record.attempt.tries)).await;
            return Kept::BackInQueue;
        }
    }
    tracing::info!("a sweep of more than {REPOSITORIES_A_PART} repositories: {parts} parts");
    Kept::Acknowledged
}

/// Has a parked job wait on, or its second look be taken.
async fn wait(parked: Parked, queue: &Sqs, record: &Record<'_>) -> Kept {
    let rest = match parked {
        Parked::Rests(rest) => Some(rest),
        Parked::Due(job) => match in_margin(Box::pin(queue.send(&job))).await {
            Ok(()) => return Kept::Acknowledged,
            Err(err) => {
                tracing::warn!(message_id = record.id, "{}", chain(&err));
                backoff(record.attempt.tries)
            }
        },
    };
    postpone(queue, record, rest).await;
    Kept::BackInQueue
}

/// Puts further jobs on the queue.
async fn send(jobs: &[Job], queue: &Sqs) -> Result<(), Error> {
    in_margin(Box::pin(queue.send_all(jobs))).await
}

/// Puts a message where it belongs.
async fn keep(end: End, queue: &Sqs, record: &Record<'_>) -> (Kept, Option<Error>) {
    if end == End::Done {
        return (Kept::Acknowledged, None);
    }
    let mut queue_error = None;
    if end == End::DeadLetter {
        match in_margin(Box::pin(queue.bury(record.body, record.group))).await {
            Ok(true) => return (Kept::InDeadLetterQueue, None),
            Ok(false) => return (Kept::Nowhere, None),
            // It must not be lost, so it is tried once more in all its length.
            Err(err) => queue_error = Some(err),
        }
    }
    postpone(queue, record, backoff(record.attempt.tries)).await;
    (Kept::BackInQueue, queue_error)
}

/// Has a message come again soon. Should that fail, it comes when its visibility timeout is over.
async fn postpone(queue: &Sqs, record: &Record<'_>, delay: Option<Duration>) {
    let Some(delay) = delay else { return };
    if let Err(err) = in_margin(queue.postpone(record.receipt_handle, delay)).await {
        tracing::warn!(message_id = record.id, "{}", chain(&err));
    }
}

/// The result of a request to the queue, which may come after the work's deadline and so has little time.
async fn in_margin<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(Some(Instant::now() + QUEUE_WITHIN), Stage::Queue, request).await
}

/// An event that is not one of SQS.
///
/// # Errors
///
/// [`Error::Job`] says what was expected.
pub fn parse(event: serde_json::Value) -> Result<SqsEvent, Error> {
    serde_json::from_value(event).map_err(|err| Error::Job {
        reason: format!("expected an event of SQS: {err}"),
    })
}
