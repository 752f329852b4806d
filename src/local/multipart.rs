//! The operations of S3 on uploads in parts.

use std::{collections::BTreeMap, sync::Arc};

use s3s::{
    S3Request, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        ETag, ListPartsInput, ListPartsOutput, Part, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use super::{
    body,
    s3::{Operations, condition, content_type, length, metadata},
    uploads::{self, Upload, hex},
};

impl Operations {
    /// Begins an upload.
    pub(super) fn begin_upload(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        let algorithm = input
            .checksum_algorithm
            .map(|name| name.as_str().to_owned());
        let id = self.uploads.begin(Upload {
            bucket: input.bucket.clone(),
            key: input.key.clone(),
            content_type: content_type(input.content_type),
            metadata: metadata(input.metadata)?,
            algorithm,
            parts: BTreeMap::new(),
        });
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    /// Adds a part.
    pub(super) async fn receive_part(
        &self,
        mut request: S3Request<UploadPartInput>,
    ) -> S3Result<UploadPartOutput> {
        let body = request.input.body.take();
        let received = body::receive(&self.store, &mut request, body).await?;
        let input = request.input;
        let part = uploads::Part {
            bytes: received.bytes.into_temp_path(),
            size: received.size,
            md5: received.md5,
            checksums: received.checksums.clone(),
        };
        let upload = (&*input.bucket, &*input.key, &*input.upload_id);
        self.uploads.put_part(upload, input.part_number, part)?;
        let sum = |algorithm| received.checksums.get(algorithm).cloned();
        Ok(UploadPartOutput {
            e_tag: Some(ETag::Strong(hex(&received.md5))),
            checksum_crc32: sum("CRC32"),
            checksum_crc32c: sum("CRC32C"),
            checksum_crc64nvme: sum("CRC64NVME"),
            checksum_sha1: sum("SHA1"),
            checksum_sha256: sum("SHA256"),
            ..UploadPartOutput::default()
        })
    }

    /// All parts that are there; there is never a second page.
    pub(super) fn parts_page(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let upload = (&*input.bucket, &*input.key, &*input.upload_id);
        let parts = self.uploads.with(upload, |upload| {
            let parts = upload.parts.iter().map(|(&number, part)| Part {
                part_number: Some(number),
                e_tag: Some(ETag::Strong(part.etag())),
                size: Some(length(part.size)),
                ..Part::default()
            });
            parts.collect()
        })?;
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            parts: Some(parts),
            is_truncated: Some(false),
            ..ListPartsOutput::default()
        })
    }

    /// Makes the named parts a version.
    pub(super) async fn complete_upload(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let named = input.multipart_upload.and_then(|upload| upload.parts);
        let parts = named.unwrap_or_default().into_iter().map(|part| {
            let checksums = [
                ("CRC32", part.checksum_crc32),
                ("CRC32C", part.checksum_crc32c),
                ("CRC64NVME", part.checksum_crc64nvme),
                ("SHA1", part.checksum_sha1),
                ("SHA256", part.checksum_sha256),
            ]
            .into_iter();
            uploads::Named {
                number: part.part_number.unwrap_or_default(),
                etag: part.e_tag.map(ETag::into_value).unwrap_or_default(),
                checksums: checksums
                    .filter_map(|(algorithm, sum)| Some((algorithm.to_owned(), sum?)))
                    .collect(),
            }
        });
        let parts: Vec<_> = parts.collect();
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML, "an upload has at least one part"));
        }
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let uploads = Arc::clone(&self.uploads);
        let version = self
            .store(move |store| {
                let upload = (&*bucket, &*key, &*input.upload_id);
                uploads.complete(store, upload, &parts, &condition)
            })
            .await?;
        Ok(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: version.content.map(|content| ETag::Strong(content.etag)),
            version_id: Some(version.version_id),
            ..CompleteMultipartUploadOutput::default()
        })
    }

    /// Ends an upload without a trace.
    pub(super) fn abort_upload(
        &self,
        input: &AbortMultipartUploadInput,
    ) -> S3Result<AbortMultipartUploadOutput> {
        self.uploads
            .abort((&input.bucket, &input.key, &input.upload_id))?;
        Ok(AbortMultipartUploadOutput::default())
    }
}
