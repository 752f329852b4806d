//! The versions of an object, and the objects of a bucket: what there is, page by page.

use aws_sdk_s3::{
    config::ResponseChecksumValidation, operation::head_object::HeadObjectOutput,
    primitives::DateTime, types::ChecksumMode,
};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Address, Holding, S3, error, save};
use crate::{aws::status, error::Error, plain};

/// A version of an object, as a list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its version id.
    pub id: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, in seconds of Unix time, if S3 says so.
    pub written: Option<i64>,
}

/// A version of an object, as its head has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What a list says of it.
    pub version: Version,
    /// What it holds; `None` if we did not write it.
    pub holds: Option<Holding>,
    /// The SHA-256 of its bytes in hexadecimal digits, if S3 keeps one of the whole.
    pub sha256: Option<String>,
}

impl S3 {
    /// The newest versions of the object, the newest first, and no more than `most`. Delete markers are none.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn versions(&self, at: Address<'_>, most: usize) -> Result<Vec<Version>, Error> {
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let answer = self
                .client
                .list_object_versions()
                .bucket(at.bucket)
                .prefix(at.key)
                .set_key_marker(key_marker)
                .set_version_id_marker(id_marker)
                .send()
                .await;
            let page = answer.map_err(|err| error("list the versions of", at, &err))?;
            // Other keys begin with this one. By the order of S3, they come behind it.
            let is_own = |key: Option<&str>| key == Some(at.key);
            let own = page.versions().iter().filter(|one| is_own(one.key()));
            found.extend(own.filter_map(|version| {
                Some(Version {
                    id: version.version_id()?.to_owned(),
                    bytes: size(version.size()),
                    written: version.last_modified().map(DateTime::secs),
                })
            }));
            let is_over = !page.is_truncated().unwrap_or_default()
                // A page that does not say where the next one begins is the last, too.
                || page.next_key_marker().is_none_or(|key| key > at.key);
            if is_over || found.len() >= most {
                found.truncate(most);
                return Ok(found);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    /// What a version says of itself: the current one, or the one of this id. `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn describe(
        &self,
        at: Address<'_>,
        id: Option<&str>,
    ) -> Result<Option<Described>, Error> {
        let answer = self
            .client
            .head_object()
            .bucket(at.bucket)
            .key(at.key)
            .set_version_id(id.map(Into::into))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        match answer {
            Ok(head) => Ok(Some(Described::from(head))),
            // A text that is no version id, and a delete marker, are no version.
            Err(err) if matches!(status(&err), Some(404)) => Ok(None),
            Err(err) if id.is_some() && matches!(status(&err), Some(400 | 405)) => Ok(None),
            Err(err) => Err(error("read a version of", at, &err)),
        }
    }

    /// Writes a version to `file`, at most `bytes` of it, whether its checksum is right or not: whoever asks looks at every
    /// byte, and says more of it.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked or the file cannot be written.
    pub async fn get_version(
        &self,
        at: Address<'_>,
        version: &Version,
        file: std::fs::File,
    ) -> Result<(), Error> {
        let unchecked = aws_sdk_s3::config::Builder::new()
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let request = self
            .client
            .get_object()
            .bucket(at.bucket)
            .key(at.key)
            .version_id(&version.id);
        let answer = request.customize().config_override(unchecked).send().await;
        let body = answer
            .map_err(|err| error("read a version of", at, &err))?
            .body;
        save(body, at, version.bytes, file).await
    }

    /// The keys of a bucket's objects that begin with `prefix`, in the order of S3.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, Error> {
        let at = Address {
            bucket,
            key: prefix,
        };
        let mut keys = Vec::new();
        let mut next = None;
        loop {
            let answer = self
                .client
                .list_objects_v2()
                .bucket(bucket)
                .prefix(prefix)
                .set_continuation_token(next)
                .send()
                .await;
            let page = answer.map_err(|err| error("list what begins with", at, &err))?;
            let found = page.contents().iter().filter_map(|object| object.key());
            keys.extend(found.map(str::to_owned));
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(keys);
            }
        }
    }
}

impl From<HeadObjectOutput> for Described {
    fn from(head: HeadObjectOutput) -> Self {
        // That of an upload in parts is one of the parts' checksums, and has their number behind it.
        let sha256 = head.checksum_sha256();
        let sha256 = sha256.and_then(|text| BASE64_STANDARD.decode(text).ok());
        Self {
            version: Version {
                id: head.version_id().unwrap_or("null").to_owned(),
                bytes: size(head.content_length()),
                written: head.last_modified().map(DateTime::secs),
            },
            holds: head.metadata().and_then(Holding::from_metadata),
            sha256: sha256.map(|bytes| plain::hex(&bytes)),
        }
    }
}

fn size(bytes: Option<i64>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_default()
}
