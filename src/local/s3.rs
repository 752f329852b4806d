//! The operations of S3 over the [`Store`]: what the protocol says, and what it calls each error.
//!
//! A bucket need not be created: one that nothing was written to answers as an empty one. Every bucket is versioned.
//! Access control, encryption, tags and storage classes are accepted and mean nothing here.

use std::{collections::BTreeMap, sync::Arc};

use hyper::{HeaderMap, StatusCode, header::HeaderValue};
use s3s::{
    S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, BucketVersioningStatus,
        ChecksumMode, ChecksumType, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
        CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
        CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition,
        GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput,
        GetBucketVersioningOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListObjectVersionsInput, ListObjectVersionsOutput, ListObjectsV2Input, ListObjectsV2Output,
        ListPartsInput, ListPartsOutput, PutObjectInput, PutObjectOutput, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};

use super::{
    body::{self, SavedBody},
    error::StoreError,
    store::{Precondition, Store},
    uploads::{Uploads, hex},
    version::{Content, Version},
};

/// The most user metadata an object may have, names and values together, in bytes.
const MAX_METADATA_BYTES: usize = 2048;

/// What an object is if its sender does not say.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// S3 over a store.
pub(super) struct Operations {
    pub(super) store: Arc<Store>,
    pub(super) uploads: Arc<Uploads>,
}

impl Operations {
    /// Does what blocks where it may block.
    pub(super) async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(S3Error::internal_error)??)
    }

    /// The version that a GET or HEAD is about, if it may have it.
    async fn select(
        &self,
        bucket: String,
        key: String,
        version_id: Option<String>,
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> S3Result<(Version, Content)> {
        let named = version_id.is_some();
        let found = self
            .store(move |store| store.version(&bucket, &key, version_id.as_deref()))
            .await?;
        let Some(version) = found else {
            let missing = if named {
                S3ErrorCode::NoSuchVersion
            } else {
                S3ErrorCode::NoSuchKey
            };
            return Err(missing.into());
        };
        let Some(content) = version.content.clone() else {
            return Err(deleted(&version, named));
        };
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == content.etag,
        };
        if !if_match.as_ref().is_none_or(is) {
            return Err(S3ErrorCode::PreconditionFailed.into());
        }
        if if_none_match.as_ref().is_some_and(is) {
            return Err(S3ErrorCode::NotModified.into());
        }
        Ok((version, content))
    }
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn put_object(
        &self,
        mut request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let body = request.input.body.take();
        let condition = condition(
            request.input.if_match.as_ref(),
            request.input.if_none_match.as_ref(),
        )?;
        let received = body::receive(&self.store, &mut request, body).await?;
        let input = request.input;
        let SavedBody {
            bytes,
            size,
            md5,
            checksums,
        } = received;
        let content = Content {
            etag: hex(&md5),
            size,
            content_type: content_type(input.content_type),
            metadata: metadata(input.metadata)?,
            checksums: checksums.clone(),
        };
        let (bucket, key) = (input.bucket, input.key);
        let stored = self
            .store(move |store| store.put(&bucket, &key, bytes, content, &condition))
            .await?;
        let sum = |algorithm| checksums.get(algorithm).cloned();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(hex(&md5))),
            version_id: Some(stored.version_id),
            checksum_crc32: sum("CRC32"),
            checksum_crc32c: sum("CRC32C"),
            checksum_crc64nvme: sum("CRC64NVME"),
            checksum_sha1: sum("SHA1"),
            checksum_sha256: sum("SHA256"),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let (version, content) = self
            .select(
                input.bucket,
                input.key,
                input.version_id,
                input.if_match,
                input.if_none_match,
            )
            .await?;
        let range = match input.range {
            Some(range) => range.check(content.size)?,
            None => 0..content.size,
        };
        let whole = range == (0..content.size);
        let (opened, span) = (version.clone(), range.clone());
        let body = self
            .store(move |_| {
                body::send(opened.open()?, &span)
                    .map_err(|error| StoreError::io("read", &opened.path(), error))
            })
            .await?;
        // A checksum of the whole would be a false one of a part.
        let asked = whole && is_enabled(input.checksum_mode.as_ref());
        let sum = |algorithm| content.checksums.get(algorithm).filter(|_| asked).cloned();
        let output = GetObjectOutput {
            body: Some(body),
            accept_ranges: Some("bytes".into()),
            content_length: Some(length(range.end - range.start)),
            content_range: input
                .range
                .map(|_| format!("bytes {}-{}/{}", range.start, range.end - 1, content.size)),
            checksum_crc32: sum("CRC32"),
            checksum_crc32c: sum("CRC32C"),
            checksum_crc64nvme: sum("CRC64NVME"),
            checksum_sha1: sum("SHA1"),
            checksum_sha256: sum("SHA256"),
            content_type: Some(content.content_type),
            metadata: Some(content.metadata.into_iter().collect()),
            e_tag: Some(ETag::Strong(content.etag)),
            last_modified: Some(version.modified.into()),
            version_id: Some(version.version_id),
            ..GetObjectOutput::default()
        };
        let status = input.range.map(|_| StatusCode::PARTIAL_CONTENT);
        Ok(S3Response {
            status,
            ..S3Response::new(output)
        })
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let (version, content) = self
            .select(
                input.bucket,
                input.key,
                input.version_id,
                input.if_match,
                input.if_none_match,
            )
            .await?;
        let asked = is_enabled(input.checksum_mode.as_ref());
        let sum = |algorithm| content.checksums.get(algorithm).filter(|_| asked).cloned();
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(length(content.size)),
            checksum_crc32: sum("CRC32"),
            checksum_crc32c: sum("CRC32C"),
            checksum_crc64nvme: sum("CRC64NVME"),
            checksum_sha1: sum("SHA1"),
            checksum_sha256: sum("SHA256"),
            content_type: Some(content.content_type),
            metadata: Some(content.metadata.into_iter().collect()),
            e_tag: Some(ETag::Strong(content.etag)),
            last_modified: Some(version.modified.into()),
            version_id: Some(version.version_id),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let condition = condition(input.if_match.as_ref(), None)?;
        let (bucket, key) = (input.bucket, input.key);
        let Some(version_id) = input.version_id else {
            let marker = self
                .store(move |store| store.delete(&bucket, &key, &condition))
                .await?;
            return Ok(S3Response::new(DeleteObjectOutput {
                delete_marker: Some(true),
                version_id: Some(marker.version_id),
                ..DeleteObjectOutput::default()
            }));
        };
        if condition != Precondition::None {
            return Err(s3_error!(
                NotImplemented,
                "a version is deleted by its id alone"
            ));
        }
        let id = version_id.clone();
        let removed = self
            .store(move |store| store.remove(&bucket, &key, &id))
            .await?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: removed
                .filter(|removed| removed.content.is_none())
                .map(|_| true),
            version_id: Some(version_id),
            ..DeleteObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.objects_page(request.input).await.map(S3Response::new)
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        self.versions_page(request.input).await.map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.begin_upload(request.input).map(S3Response::new)
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.receive_part(request).await.map(S3Response::new)
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        self.parts_page(request.input).map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete_upload(request.input)
            .await
            .map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.abort_upload(&request.input).map(S3Response::new)
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = request.input.bucket;
        let location = format!("/{bucket}");
        self.store(move |store| store.create_bucket(&bucket))
            .await?;
        Ok(S3Response::new(CreateBucketOutput {
            location: Some(location),
        }))
    }

    async fn head_bucket(
        &self,
        _request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        _request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        _request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let enabled = BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
        Ok(S3Response::new(GetBucketVersioningOutput {
            status: Some(enabled),
            ..GetBucketVersioningOutput::default()
        }))
    }

    async fn list_buckets(
        &self,
        _request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let names = self.store(Store::buckets).await?;
        let buckets = names.into_iter().map(|name| Bucket {
            name: Some(name),
            ..Bucket::default()
        });
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            ..ListBucketsOutput::default()
        }))
    }
}

/// What a write depends on. Conditions that S3 does not know for writes are refused, never ignored.
pub(super) fn condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<Precondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (Some(ETagCondition::ETag(etag)), None) => {
            Ok(Precondition::Matches(etag.value().to_owned()))
        }
        _ => Err(s3_error!(
            NotImplemented,
            "a write takes If-Match with an ETag, or If-None-Match with *"
        )),
    }
}

pub(super) fn metadata(sent: Option<s3s::dto::Metadata>) -> S3Result<BTreeMap<String, String>> {
    let metadata: BTreeMap<_, _> = sent.unwrap_or_default().into_iter().collect();
    let size: usize = metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if size > MAX_METADATA_BYTES {
        return Err(s3_error!(
            MetadataTooLarge,
            "user metadata has {size} bytes and may have {MAX_METADATA_BYTES}"
        ));
    }
    Ok(metadata)
}

pub(super) fn content_type(sent: Option<String>) -> String {
    sent.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())
}

fn is_enabled(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

/// A length as the protocol has it.
pub(super) fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What S3 answers about a delete marker: it is there, and has nothing to show.
fn deleted(marker: &Version, named: bool) -> S3Error {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    if let Ok(id) = HeaderValue::from_str(&marker.version_id) {
        headers.insert("x-amz-version-id", id);
    }
    let mut error = S3Error::new(if named {
        S3ErrorCode::MethodNotAllowed
    } else {
        S3ErrorCode::NoSuchKey
    });
    error.set_headers(headers);
    error
}
