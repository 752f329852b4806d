//! An object of a versioned bucket: what it holds, and a new version under a condition. The home of `aws-sdk-s3`.

mod clock;
mod label;
mod settings;
mod text;
mod upload;
mod versions;

use std::{
    collections::BTreeMap,
    io::{Seek, SeekFrom},
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    error::{ProvideErrorMetadata, SdkError},
    operation::head_object::HeadObjectOutput,
    primitives::{ByteStream, DateTime},
    types::BucketVersioningStatus,
};
use tokio::io::AsyncWriteExt;

use self::clock::Clock;
pub use self::{
    label::{Holding, Label},
    text::{Found, MAX_TEXT_BYTES},
    upload::{PART_BYTES, PARTS_FROM_BYTES},
    versions::{Described, Version},
};
use crate::{
    aws::{self, Failure, Service, status},
    error::Error,
    route::Destination,
};

/// S3 as it is configured: by the environment, or a server on this machine.
#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
}

/// An object of a bucket.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object key.
    pub key: &'a str,
}

impl<'a> From<&'a Destination> for Address<'a> {
    fn from(to: &'a Destination) -> Self {
        Self {
            bucket: &to.bucket,
            key: to.key.as_str(),
        }
    }
}

/// What S3 says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The current version; `None` if there is no object.
    pub current: Option<Current>,
    /// When S3 said so, by its own clock, in seconds of Unix time; by this machine's if the answer has no time.
    pub time: i64,
}

/// The current version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Its entity tag, for the condition of the next write.
    pub etag: String,
    /// Its version id; `None` if it was written while versioning was off or suspended.
    pub version_id: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, in seconds of Unix time, if S3 says so.
    pub written: Option<i64>,
    /// What it holds; `None` if we did not write it.
    pub holds: Option<Holding>,
}

/// What must be true of the object for a write to take place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// There is no object.
    Absent,
    /// The current version has this entity tag.
    Unchanged(String),
}

/// What became of a write.
#[derive(Debug)]
pub enum Put {
    /// A new version was stored.
    Stored {
        /// Its version id.
        version_id: String,
    },
    /// The condition did not hold: somebody else was faster. Nothing was stored.
    Refused,
    /// Nobody knows: the answer got lost, or S3 had a fault.
    Unknown(Error),
}

impl S3 {
    /// S3 as the SDK finds it: environment, profile, instance role; honours `AWS_ENDPOINT_URL_S3`.
    pub async fn from_environment() -> Self {
        let config = aws::sdk_config().await;
        // Servers that stand in for S3 on one address have no host name for each bucket.
        let path_style =
            config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        let config = aws_sdk_s3::config::Builder::from(config)
            .force_path_style(path_style)
            .build();
        Self {
            client: Client::from_conf(config),
        }
    }

    /// A server at `endpoint` on this machine, such as the embedded one: `http`, whatever proxy is set.
    #[must_use]
    pub fn at(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new(
                access_key, secret_key, None, None, "embedded",
            ))
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            // It has this machine's clock, whatever it says in an answer.
            .disable_clock_skew_correction(true)
            // Without TLS, and past any proxy: it is on this machine.
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self {
            client: Client::from_conf(config),
        }
    }

    /// What the object holds now.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked; [`Error::NotVersioned`] or [`Error::MaybeNotVersioned`] if the next write
    /// would, or might, destroy the current version. A refusal is never "none".
    pub async fn head(&self, at: Address<'_>) -> Result<Head, Error> {
        let clock = Clock::new();
        let answer = self
            .client
            .head_object()
            .bucket(at.bucket)
            .key(at.key)
            .customize()
            .interceptor(clock.clone())
            .send()
            .await;
        let time = clock.time();
        let current = match answer {
            Ok(head) => Some(Current::from(head)),
            Err(err) if status(&err) == Some(404) => None,
            Err(err) => return Err(error("read", at, &err)),
        };
        // It may be older than the bucket's versioning, and is kept like any other then.
        if current
            .as_ref()
            .is_some_and(|current| current.version_id.is_none())
        {
            self.keeps_versions(at).await?;
        }
        Ok(Head { current, time })
    }

    /// Asks whether the next write leaves the current version in place.
    async fn keeps_versions(&self, at: Address<'_>) -> Result<(), Error> {
        let answer = self.client.get_bucket_versioning().bucket(at.bucket).send();
        match answer.await {
            Ok(answer) if answer.status == Some(BucketVersioningStatus::Enabled) => Ok(()),
            Ok(_) => Err(not_versioned(at)),
            Err(err) => {
                let failure = Failure::of(Service::S3, &err);
                if failure.transient {
                    return Err(error("find out whether there are versions of", at, &err));
                }
                Err(Error::MaybeNotVersioned {
                    bucket: at.bucket.into(),
                    key: at.key.into(),
                    source: failure.words.into(),
                })
            }
        }
    }

    /// The user metadata of the current version, by name; empty if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn metadata(&self, at: Address<'_>) -> Result<BTreeMap<String, String>, Error> {
        let answer = self
            .client
            .head_object()
            .bucket(at.bucket)
            .key(at.key)
            .send()
            .await;
        let head = answer.map_err(|err| error("read", at, &err))?;
        Ok(head.metadata.unwrap_or_default().into_iter().collect())
    }

    /// What a version holds, and when it was written, in seconds of Unix time; `None` if there is no such version any more, or we
    /// did not write it.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn version(
        &self,
        at: Address<'_>,
        version_id: &str,
    ) -> Result<Option<(Holding, i64)>, Error> {
        let request = self.client.head_object().bucket(at.bucket).key(at.key);
        match request.version_id(version_id).send().await {
            Ok(head) => {
                let holds = head.metadata().and_then(Holding::from_metadata);
                let written = head
                    .last_modified()
                    .map_or(0, aws_sdk_s3::primitives::DateTime::secs);
                Ok(holds.map(|holds| (holds, written)))
            }
            // S3 says 400 of what is no version's id.
            Err(err) if matches!(status(&err), Some(404 | 405 | 400)) => Ok(None),
            Err(err) => Err(error("read a version of", at, &err)),
        }
    }

    /// Writes the object's current version to `file`.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked or the file cannot be written.
    pub async fn get(&self, at: Address<'_>, file: std::fs::File) -> Result<(), Error> {
        let request = self.client.get_object().bucket(at.bucket).key(at.key);
        let answer = request.send().await;
        let body = answer.map_err(|err| error("read", at, &err))?.body;
        save(body, at, u64::MAX, file).await
    }

    /// Writes the version that was found to be the current one to `file`.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked, the version is gone or has another size, or the file cannot be written.
    pub async fn get_found(
        &self,
        at: Address<'_>,
        found: &Current,
        file: std::fs::File,
    ) -> Result<(), Error> {
        let request = self.client.get_object().bucket(at.bucket).key(at.key);
        let request = match &found.version_id {
            Some(id) => request.version_id(id),
            None => request.if_match(&found.etag),
        };
        let body = request
            .send()
            .await
            .map_err(|err| error("read the current version of", at, &err))?
            .body;
        save(body, at, found.bytes, file).await
    }

    /// Writes the last `most` bytes of the version that was found to `file`, where they are in the object: before them is a
    /// hole.
    ///
    /// # Errors
    ///
    /// As [`S3::get_found`].
    pub async fn get_end(
        &self,
        at: Address<'_>,
        found: &Current,
        most: u64,
        mut file: std::fs::File,
    ) -> Result<(), Error> {
        let begin = found.bytes.saturating_sub(most);
        file.seek(SeekFrom::Start(begin))
            .map_err(|err| broken(at, err.into()))?;
        let request = self.client.get_object().bucket(at.bucket).key(at.key);
        let request = match &found.version_id {
            Some(id) => request.version_id(id),
            None => request.if_match(&found.etag),
        };
        let answer = request.range(format!("bytes={begin}-")).send().await;
        let body = answer
            .map_err(|err| error("read the end of", at, &err))?
            .body;
        save(body, at, found.bytes - begin, file).await
    }
}

impl Condition {
    fn if_match(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Unchanged(etag) => Some(etag.clone()),
        }
    }

    fn if_none_match(&self) -> Option<String> {
        matches!(self, Self::Absent).then(|| "*".into())
    }
}

/// Whether a write's condition did not hold.
fn is_refusal<E: ProvideErrorMetadata>(err: &SdkError<E>) -> bool {
    matches!(status(err), Some(409 | 412))
        || matches!(
            err.code(),
            // The first: the version that the condition names is gone. The others may also come behind a status of 200.
            Some("NoSuchKey" | "PreconditionFailed" | "ConditionalRequestConflict")
        )
}

/// Writes at most `most` bytes of an answer to `file`.
async fn save(
    mut body: ByteStream,
    at: Address<'_>,
    most: u64,
    file: std::fs::File,
) -> Result<(), Error> {
    let broken = |source| broken(at, source);
    let mut file = tokio::fs::File::from_std(file);
    let mut left = most;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|err| broken(err.into()))?;
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| broken("there is more than its head says".into()))?;
        file.write_all(&bytes)
            .await
            .map_err(|err| broken(err.into()))?;
    }
    file.flush().await.map_err(|err| broken(err.into()))
}

impl From<HeadObjectOutput> for Current {
    fn from(head: HeadObjectOutput) -> Self {
        Self {
            version_id: own_id(head.version_id()),
            bytes: head
                .content_length()
                .and_then(|length| length.try_into().ok())
                .unwrap_or_default(),
            written: head.last_modified().map(DateTime::secs),
            holds: head.metadata().and_then(Holding::from_metadata),
            etag: head.e_tag.unwrap_or_default(),
        }
    }
}

/// A version's id, if it has one of its own: `null` is what all are called that are written while versioning is off or
/// suspended, and each of them takes the place of the last.
fn own_id(id: Option<&str>) -> Option<String> {
    id.filter(|id| *id != "null").map(Into::into)
}

fn not_versioned(at: Address<'_>) -> Error {
    Error::NotVersioned {
        bucket: at.bucket.into(),
    }
}

/// An answer that could not be read to its end.
fn broken(at: Address<'_>, source: crate::error::Source) -> Error {
    Error::Bucket {
        action: "read",
        bucket: at.bucket.into(),
        key: at.key.into(),
        advice: "".into(),
        transient: true,
        source,
    }
}

fn error<E>(action: &'static str, at: Address<'_>, err: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = Failure::of(Service::S3, err);
    let (bucket, key) = (at.bucket.into(), at.key.into());
    let source = failure.words.into();
    if failure.no_room {
        return Error::NoRoom {
            action,
            bucket,
            key,
            source,
        };
    }
    Error::Bucket {
        action,
        bucket,
        key,
        advice: failure.advice,
        transient: failure.transient,
        source,
    }
}
