//! How messages are sent, kept waiting and given up. The home of `aws-sdk-sqs`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry},
};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::{Job, redrive};
use crate::{
    aws::{self, CallError, Failure, Service},
    error::Error,
};

/// How many messages SQS takes in one request.
const BATCH: usize = 10;

/// How large they may be together, in bytes: less than SQS ever took.
const BATCH_BYTES: usize = 200_000;

/// An SQS FIFO queue.
#[derive(Debug)]
pub struct Sqs {
    client: Client,
    url: String,
    /// Where the dead-letter queue is, once that was asked; `None` if there is none.
    dead_letters: OnceCell<Option<String>>,
}

/// A message that was received, and is hidden from others for a while.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) body: String,
    pub(super) receipt: String,
    /// When it came into this queue; or into the one before, if SQS moved it.
    pub(super) sent: SystemTime,
}

/// How many messages a queue has, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Those that wait.
    pub waiting: u64,
    /// Those that somebody works on.
    pub in_flight: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
}

impl Sqs {
    /// The queue at `url`, with region and credentials as the SDK finds them.
    pub async fn from_environment(url: String) -> Self {
        let config = aws_sdk_sqs::config::Builder::from(aws::sdk_config().await);
        Self {
            client: Client::from_conf(config.timeout_config(aws::small_answers()).build()),
            url,
            dead_letters: OnceCell::new(),
        }
    }

    /// Sends a job. When this returns, the queue has it.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then the queue may have it nevertheless.
    pub async fn send(&self, job: &Job) -> Result<(), Error> {
        let id = job.deduplication_id(SystemTime::now());
        self.send_to(&self.url, &job.body(), &job.group(), id).await
    }

    /// Sends jobs, as many at a time as SQS takes. When this returns, the queue has all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then the queue may have some of them nevertheless.
    pub async fn send_all(&self, jobs: &[Job]) -> Result<(), Error> {
        // Of one push, all are of the same size, about.
        let largest = jobs.iter().map(|job| job.body().len()).max();
        let fit = largest.map_or(1, |largest| BATCH_BYTES / largest.max(1));
        for some in jobs.chunks(fit.clamp(1, BATCH)) {
            match some {
                [job] => self.send(job).await?,
                _ => self.send_batch(some).await?,
            }
        }
        Ok(())
    }

    async fn send_batch(&self, jobs: &[Job]) -> Result<(), Error> {
        let action = || format!("send messages to {}", self.url);
        let now = SystemTime::now();
        let entries = jobs.iter().enumerate().map(|(nth, job)| {
            SendMessageBatchRequestEntry::builder()
                .id(nth.to_string())
                .message_body(job.body())
                .message_group_id(job.group())
                .message_deduplication_id(job.deduplication_id(now))
                .build()
                .expect("it has an id and a body")
        });
        let request = self.client.send_message_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries.collect()));
        let sent = request.send().await;
        let sent = sent.map_err(|err| failed(action(), &err))?;
        let Some(refused) = sent.failed().first() else {
            return Ok(());
        };
        let message = refused.message().unwrap_or_default();
        Err(Error::Queue {
            action: action(),
            advice: "".into(),
            transient: !refused.sender_fault(),
            source: format!("{}: {message}", refused.code()).into(),
        })
    }

    /// Sends a message of any text, which is never taken for one that was sent before.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then the queue may have it nevertheless.
    pub async fn send_text(&self, body: &str, group: &str) -> Result<(), Error> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.send_to(&self.url, body, group, id).await
    }

    async fn send_to(&self, url: &str, body: &str, group: &str, id: String) -> Result<(), Error> {
        let request = self
            .client
            .send_message()
            .queue_url(url)
            .message_body(body)
            .message_group_id(group)
            .message_deduplication_id(id);
        let sent = request.send().await;
        sent.map_err(|err| failed(format!("send a message to {url}"), &err))?;
        Ok(())
    }

    /// Sends a message that cannot be handled to the dead-letter queue, from where people can send it back (and have to say
    /// where to: SQS knows that only of messages that it moved itself). Says whether
    /// there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then the message must not be acknowledged.
    pub async fn bury(&self, body: &str, group: &str) -> Result<bool, Error> {
        let url = self
            .dead_letters
            .get_or_try_init(|| self.dead_letter_url())
            .await?;
        match url {
            Some(url) => {
                let id = uuid::Uuid::new_v4().simple().to_string();
                self.send_to(url, body, group, id).await.map(|()| true)
            }
            None => Ok(false),
        }
    }

    async fn dead_letter_url(&self) -> Result<Option<String>, Error> {
        let attributes = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::RedrivePolicy)
            .send()
            .await
            .map_err(|err| failed(format!("read the redrive policy of {}", self.url), &err))?;
        let policy = attributes
            .attributes()
            .and_then(|attributes| attributes.get(&QueueAttributeName::RedrivePolicy));
        let policy = policy.and_then(|text| serde_json::from_str(text).ok());
        let Some(RedrivePolicy {
            dead_letter_target_arn: arn,
        }) = policy
        else {
            return Ok(None);
        };
        // arn:aws:sqs:region:account:name
        let mut parts = arn.split(':').skip(4);
        let (account, name) = (parts.next(), parts.next());
        let answer = self
            .client
            .get_queue_url()
            .set_queue_name(name.map(Into::into))
            .set_queue_owner_aws_account_id(account.map(Into::into))
            .send()
            .await
            .map_err(|err| failed(format!("find the dead-letter queue {arn}"), &err))?;
        Ok(answer.queue_url)
    }

    /// Up to ten messages, which nobody else sees for so long.
    pub(super) async fn receive(&self, hidden: Duration) -> Result<Vec<Letter>, Error> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(1)
            .visibility_timeout(i32::try_from(hidden.as_secs()).unwrap_or(i32::MAX))
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(|err| failed(format!("receive messages of {}", self.url), &err))?;
        let letters = received.messages.unwrap_or_default().into_iter();
        let letters = letters.map(|message| {
            let attributes = message.attributes.unwrap_or_default();
            let sent = attributes.get(&MessageSystemAttributeName::SentTimestamp);
            Letter {
                id: message.message_id.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
                receipt: message.receipt_handle.unwrap_or_default(),
                sent: redrive::instant(sent.map_or("", String::as_str)),
            }
        });
        Ok(letters.collect())
    }

    /// Some of the messages that wait, as one look shows them: 10 at most. They stay where they are.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`].
    pub async fn peek(&self) -> Result<Vec<String>, Error> {
        let letters = self.receive(Duration::ZERO).await?.into_iter();
        Ok(letters.map(|letter| letter.body).collect())
    }

    /// Deletes a message for good.
    pub(super) async fn delete(&self, letter: &Letter) -> Result<(), Error> {
        let request = self
            .client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(&letter.receipt);
        let deleted = request.send().await;
        deleted.map_err(|err| failed(format!("delete a message of {}", self.url), &err))?;
        Ok(())
    }

    /// How many messages there are, about.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`].
    pub async fn depth(&self) -> Result<Depth, Error> {
        let (waiting, in_flight) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        );
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(waiting.clone())
            .attribute_names(in_flight.clone())
            .send()
            .await
            .map_err(|err| failed(format!("count the messages of {}", self.url), &err))?;
        let count = |name| {
            let count = answer.attributes().and_then(|all| all.get(name));
            count
                .and_then(|count| count.parse().ok())
                .unwrap_or_default()
        };
        Ok(Depth {
            waiting: count(&waiting),
            in_flight: count(&in_flight),
        })
    }

    /// Whether there is such a queue.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn is_there(&self) -> Result<bool, CallError> {
        match self.attributes().await {
            Err(err) if err.is_missing() => Ok(false),
            attributes => attributes.map(|_| true),
        }
    }

    /// What SQS says of the queue: the names of its attributes, and their values.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn attributes(&self) -> Result<BTreeMap<String, String>, CallError> {
        let asked = self.client.get_queue_attributes().queue_url(&self.url);
        let asked = asked.attribute_names(QueueAttributeName::All).send();
        let failed = |err| CallError::of("sqs:GetQueueAttributes", Service::Sqs, &err);
        let answer = asked.await.map_err(failed)?.attributes;
        let attributes = answer.unwrap_or_default().into_iter();
        Ok(attributes
            .map(|(name, value)| (name.as_str().to_owned(), value))
            .collect())
    }

    /// Has a message come again after `delay`, and not only when its visibility timeout is over.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`]; then it comes later.
    pub async fn postpone(&self, receipt_handle: &str, delay: Duration) -> Result<(), Error> {
        // Never sooner.
        let seconds = delay.as_millis().div_ceil(1000);
        let request = self
            .client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(receipt_handle)
            .visibility_timeout(i32::try_from(seconds).unwrap_or(i32::MAX));
        let changed = request.send().await;
        changed.map_err(|err| failed(format!("postpone a message of {}", self.url), &err))?;
        Ok(())
    }
}

fn failed<E>(action: String, err: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Failure {
        transient,
        advice,
        words,
        ..
    } = Failure::of(Service::Sqs, err);
    Error::Queue {
        action,
        advice,
        transient,
        source: words.into(),
    }
}
