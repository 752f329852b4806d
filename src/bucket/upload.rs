//! An archive becomes a new version: a small one by one request, a large one by an upload in parts.
//!
//! S3 gives one connection 85 to 90 MB/s, so a large archive goes out over several. And a connection that breaks costs a part,
//! which the SDK sends again by itself, and not the whole. One request is two round trips less, so it is the faster one for
//! what is small. Either way the condition is checked where the version comes into being: at the put, or at the completion.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html>

use std::{
    collections::HashMap,
    io::{self, Read},
    ops::Range,
    panic,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::RequestChecksumCalculation,
    error::{ProvideErrorMetadata, SdkError},
    operation::upload_part::UploadPartError,
    primitives::{ByteStream, SdkBody},
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::timeout,
};

use super::{Address, Condition, Label, Put, S3, error, is_refusal, not_versioned, own_id};
use crate::{
    archive::{Archive, Reader},
    error::Error,
    progress::Progress,
};

/// The size in bytes from which on [`S3::put`] uploads an archive in parts.
///
/// Measured with 20 ms a round trip (docs/performance.md): where each connection has 85 MB/s, parts
/// take 1.3 times as long as one request at 16 MB, 0.7 times at 32 MB and half as long from 64 MB on. Where all connections
/// together have 75 MB/s, which is what a Lambda function has for long, they cost a tenth and only save what a broken
/// connection costs. From here on they win far more in the first case than they lose in the second.
pub const PARTS_FROM_BYTES: u64 = 64 * 1024 * 1024;

/// The size of every part but the last, in bytes. S3 takes 10,000 parts: 156 GiB.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
pub const PART_BYTES: u64 = 16 * 1024 * 1024;

/// How many parts are under way at once. Together they are faster than the network of a Lambda function.
const PARTS_AT_A_TIME: usize = 4;

/// Bytes that are read from the archive at a time: all that each part under way has in memory.
const CHUNK: usize = 128 * 1024;

/// How long S3 may take to throw away the parts of an upload that failed. The bucket's lifecycle does it too, a day later.
const ABORT_WITHIN: Duration = Duration::from_secs(3);

const CONTENT_TYPE: &str = "application/zip";

impl S3 {
    /// Stores `archive` as a new version, if `condition` still holds: in parts from [`PARTS_FROM_BYTES`] on.
    ///
    /// Whoever drops the future ends the work: nothing more is asked of S3, not even to abort. Parts that were sent are no
    /// version, and stay until the bucket's lifecycle removes them. A put or a completion that was under way may still become
    /// a version.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 refuses for good, [`Error::NotVersioned`].
    pub async fn put(
        &self,
        at: Address<'_>,
        archive: &Archive,
        label: &Label<'_>,
        condition: &Condition,
        progress: &Arc<Progress>,
    ) -> Result<Put, Error> {
        if archive.bytes() < PARTS_FROM_BYTES {
            self.put_whole(at, archive, label, condition, progress)
                .await
        } else {
            self.put_in_parts(at, archive, label, condition, progress)
                .await
        }
    }

    /// As [`S3::put`], with one request, for which S3 takes 5 GB at most.
    ///
    /// # Errors
    ///
    /// As [`S3::put`].
    pub async fn put_whole(
        &self,
        at: Address<'_>,
        archive: &Archive,
        label: &Label<'_>,
        condition: &Condition,
        progress: &Arc<Progress>,
    ) -> Result<Put, Error> {
        // A body that the SDK cannot make again: the delivery tries again itself, and looks at the object before.
        let contents = Contents::of(archive, progress);
        let body = SdkBody::from_body_1_x(Stretch::of(&contents, 0..archive.bytes()));
        let request = self
            .client
            .put_object()
            .bucket(at.bucket)
            .key(at.key)
            .content_type(CONTENT_TYPE)
            .content_length(length(archive.bytes()))
            .set_metadata(Some(metadata(label, at)?))
            .set_if_match(condition.if_match())
            .set_if_none_match(condition.if_none_match())
            // The bytes as they were made. S3 refuses others, and says this of the version from then on.
            .set_checksum_algorithm(self.sends_checksums().then_some(ChecksumAlgorithm::Sha256))
            .set_checksum_sha256(
                self.sends_checksums()
                    .then(|| BASE64_STANDARD.encode(archive.sha256)),
            )
            .body(ByteStream::new(body));
        match request.send().await {
            Ok(answer) => stored(answer.version_id(), at),
            Err(err) => Failure::of(at, &err).into_put(),
        }
    }

    /// As [`S3::put`], with an upload in parts, whatever the size. What fails is aborted.
    ///
    /// # Errors
    ///
    /// As [`S3::put`].
    pub async fn put_in_parts(
        &self,
        at: Address<'_>,
        archive: &Archive,
        label: &Label<'_>,
        condition: &Condition,
        progress: &Arc<Progress>,
    ) -> Result<Put, Error> {
        let contents = Contents::of(archive, progress);
        // S3 takes a checksum of a part only if the upload was begun with its algorithm. The SDK computes it while it sends.
        let checksums = self.sends_checksums().then_some(ChecksumAlgorithm::Crc32);
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(at.bucket)
            .key(at.key)
            .content_type(CONTENT_TYPE)
            .set_metadata(Some(metadata(label, at)?))
            .set_checksum_algorithm(checksums.clone())
            .send();
        let id = match begun.await {
            Ok(begun) => begun.upload_id.unwrap_or_default(),
            Err(err) => return Failure::of(at, &err).into_put(),
        };
        let upload = Upload {
            client: &self.client,
            at,
            id,
            checksums,
        };
        let completed = match upload.send(&contents, archive.bytes()).await {
            Ok(parts) => upload.complete(parts, condition).await,
            Err(failure) => Err(failure),
        };
        match completed {
            Ok(version_id) => stored(version_id.as_deref(), at),
            Err(failure) => {
                upload.abort().await;
                failure.into_put()
            }
        }
    }
}

impl S3 {
    /// Whether S3 may be sent checksums that it need not have. Others than Amazon's may refuse them, so that people switch
    /// them off.
    fn sends_checksums(&self) -> bool {
        let calculation = self.client.config().request_checksum_calculation();
        calculation != Some(&RequestChecksumCalculation::WhenRequired)
    }
}

/// An upload in parts that has begun.
struct Upload<'a> {
    client: &'a Client,
    at: Address<'a>,
    id: String,
    checksums: Option<ChecksumAlgorithm>,
}

impl Upload<'_> {
    /// Sends all parts, some at a time. The first that fails ends the others.
    async fn send(
        &self,
        contents: &Arc<Contents>,
        bytes: u64,
    ) -> Result<Vec<CompletedPart>, Failure> {
        let (mut number, mut start) = (1, 0);
        let mut under_way = JoinSet::new();
        let mut parts = Vec::new();
        loop {
            while under_way.len() < PARTS_AT_A_TIME && start < bytes {
                let end = bytes.min(start + PART_BYTES);
                under_way.spawn(self.part(contents, number, start..end));
                (number, start) = (number + 1, end);
            }
            match under_way.join_next().await {
                None => break,
                Some(Ok(Ok(part))) => parts.push(part),
                Some(Ok(Err(err))) => {
                    under_way.shutdown().await;
                    return Err(Failure::of(self.at, &err));
                }
                Some(Err(err)) => panic::resume_unwind(err.into_panic()),
            }
        }
        parts.sort_unstable_by_key(CompletedPart::part_number);
        Ok(parts)
    }
    /// Sends one part. The SDK tries three times, since it can have the body again.
    fn part(
        &self,
        contents: &Arc<Contents>,
        number: i32,
        stretch: Range<u64>,
    ) -> impl Future<Output = Result<CompletedPart, SdkError<UploadPartError>>> + 'static {
        let bytes = stretch.end - stretch.start;
        let contents = Arc::clone(contents);
        let body = SdkBody::retryable(move || {
            SdkBody::from_body_1_x(Stretch::of(&contents, stretch.clone()))
        });
        let request = self
            .client
            .upload_part()
            .bucket(self.at.bucket)
            .key(self.at.key)
            .upload_id(&self.id)
            .part_number(number)
            .content_length(length(bytes))
            .set_checksum_algorithm(self.checksums.clone())
            .body(ByteStream::new(body));
        async move {
            let answer = request.send().await?;
            Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(answer.e_tag)
                .set_checksum_crc32(answer.checksum_crc32)
                .build())
        }
    }

    /// Makes the parts a version, if `condition` holds, and returns its id.
    ///
    /// Should the SDK ask again because the first answer got lost, S3 may refuse what it has just done: then the object holds
    /// this delivery, which whoever looks at it next recognizes.
    async fn complete(
        &self,
        parts: Vec<CompletedPart>,
        condition: &Condition,
    ) -> Result<Option<String>, Failure> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(self.at.bucket)
            .key(self.at.key)
            .upload_id(&self.id)
            .multipart_upload(parts.build())
            .set_if_match(condition.if_match())
            .set_if_none_match(condition.if_none_match())
            .send();
        match answer.await {
            Ok(answer) => Ok(answer.version_id),
            Err(err) => Err(Failure::of(self.at, &err)),
        }
    }

    /// Throws the parts away. That a version may have been made of them does no harm: it stays.
    async fn abort(&self) {
        let abort = self
            .client
            .abort_multipart_upload()
            .bucket(self.at.bucket)
            .key(self.at.key)
            .upload_id(&self.id)
            .send();
        // Whatever comes of it, why the upload failed is what people need to know.
        let _ = timeout(ABORT_WITHIN, abort).await;
    }
}

/// Why no version was made, as far as anybody knows.
enum Failure {
    Refused,
    Other(Error),
}

impl Failure {
    fn of<E>(at: Address<'_>, err: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if is_refusal(err) {
            Self::Refused
        } else {
            Self::Other(error("write", at, err))
        }
    }

    fn into_put(self) -> Result<Put, Error> {
        match self {
            Self::Refused => Ok(Put::Refused),
            Self::Other(err) if err.is_transient() && !err.is_no_room() => Ok(Put::Unknown(err)),
            Self::Other(err) => Err(err),
        }
    }
}

fn stored(id: Option<&str>, at: Address<'_>) -> Result<Put, Error> {
    Ok(Put::Stored {
        version_id: own_id(id).ok_or_else(|| not_versioned(at))?,
    })
}

fn metadata(label: &Label<'_>, at: Address<'_>) -> Result<HashMap<String, String>, Error> {
    label.metadata().map_err(|source| Error::Bucket {
        action: "write",
        bucket: at.bucket.into(),
        key: at.key.into(),
        advice: "; use shorter names".into(),
        transient: false,
        source: source.into(),
    })
}

/// A length as the SDK has it.
fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The bytes of an archive, and who wants to know how many of them were sent.
struct Contents {
    reader: Reader,
    progress: Arc<Progress>,
}

impl Contents {
    fn of(archive: &Archive, progress: &Arc<Progress>) -> Arc<Self> {
        progress.expect(archive.bytes(), 0);
        Arc::new(Self {
            reader: archive.reader(),
            progress: Arc::clone(progress),
        })
    }
}

/// A stretch of an archive as a request's body.
struct Stretch {
    contents: Arc<Contents>,
    /// What was not read yet.
    rest: Range<u64>,
    /// At the rest; `None` before the first read, and while it reads.
    reader: Option<Reader>,
    reading: Option<JoinHandle<(Reader, io::Result<Vec<u8>>)>>,
}

impl Stretch {
    fn of(contents: &Arc<Contents>, rest: Range<u64>) -> Self {
        Self {
            contents: Arc::clone(contents),
            rest,
            reader: None,
            reading: None,
        }
    }
}

impl Body for Stretch {
    type Data = <SdkBody as Body>::Data;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Self::Data>>>> {
        let Range { start, end } = self.rest;
        if start == end {
            return Poll::Ready(None);
        }
        let size = usize::try_from(end - start).map_or(CHUNK, |left| left.min(CHUNK));
        let Self {
            contents,
            reader,
            reading,
            ..
        } = &mut *self;
        let reading = reading.get_or_insert_with(|| {
            let reader = reader.take();
            let mut reader = reader.unwrap_or_else(|| contents.reader.another(start));
            spawn_blocking(move || {
                let mut chunk = vec![0; size];
                let read = reader.read_exact(&mut chunk);
                (reader, read.map(|()| chunk))
            })
        });
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let (reader, chunk) = read.map_err(io::Error::other)?;
        self.reader = Some(reader);
        let chunk = chunk?;
        self.rest.start += chunk.len() as u64;
        self.contents.progress.add_bytes(chunk.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.end - self.rest.start)
    }
}
