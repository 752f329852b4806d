//! A small object that people write, such as the routing table: read when it has changed, written under a condition.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectError,
    primitives::ByteStream,
};

use super::{Address, Condition, S3, broken, error, is_refusal};
use crate::{aws::status, error::Error, plain, route::MAX_TABLE_BYTES};

/// The size of the largest object that is read as a text, in bytes.
pub const MAX_TEXT_BYTES: usize = MAX_TABLE_BYTES;

/// What a look at a small object found.
#[derive(Debug)]
pub enum Found {
    /// It is still the one with this entity tag.
    Same,
    /// There is none. S3 says so of what never was, and of what was deleted with all its versions.
    Missing,
    /// It was deleted; its versions are still there.
    Deleted,
    /// Another one.
    Text {
        /// What it holds.
        text: String,
        /// Its entity tag.
        etag: String,
    },
    /// Another one that is no text, or too large for one.
    NoText {
        /// What it is instead.
        why: String,
        /// Its entity tag.
        etag: String,
    },
}

/// Why nobody knows whether there is an object.
pub(super) enum Unfound {
    /// S3 does not say.
    Refused(Box<SdkError<GetObjectError>>),
    /// Not all of the answer came.
    Broken(Error),
}

impl S3 {
    /// Reads an object of at most [`MAX_TEXT_BYTES`], unless it is still the one with the entity tag `known`.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked.
    pub async fn text(&self, at: Address<'_>, known: Option<&str>) -> Result<Found, Error> {
        self.find_text(at, known).await.map_err(|err| match err {
            Unfound::Refused(err) => error("read", at, &*err),
            Unfound::Broken(err) => err,
        })
    }

    pub(super) async fn find_text(
        &self,
        at: Address<'_>,
        known: Option<&str>,
    ) -> Result<Found, Unfound> {
        let request = self.client.get_object().bucket(at.bucket).key(at.key);
        let answer = request.set_if_none_match(known.map(Into::into)).send();
        let object = match answer.await {
            Ok(object) => object,
            Err(err) if status(&err) == Some(304) => return Ok(Found::Same),
            Err(err) if err.code() == Some("NoSuchKey") => {
                let answer = err.raw_response();
                let marker = answer.and_then(|answer| answer.headers().get("x-amz-delete-marker"));
                return Ok(match marker {
                    Some("true") => Found::Deleted,
                    _ => Found::Missing,
                });
            }
            Err(err) => return Err(Unfound::Refused(err.into())),
        };
        let etag = object.e_tag.unwrap_or_default();
        let text = whole(object.body, at).await.map_err(Unfound::Broken)?;
        Ok(match text {
            Ok(text) => Found::Text { text, etag },
            Err(why) => Found::NoText { why, etag },
        })
    }

    /// Reads one version of such an object, or says why it is no text.
    ///
    /// # Errors
    ///
    /// As [`S3::text`].
    pub async fn text_version(
        &self,
        at: Address<'_>,
        version_id: &str,
    ) -> Result<Result<String, String>, Error> {
        let request = self.client.get_object().bucket(at.bucket).key(at.key);
        let answer = request.version_id(version_id).send().await;
        let object = answer.map_err(|err| error("read a version of", at, &err))?;
        whole(object.body, at).await
    }

    /// Stores a text, if `condition` still holds. Says whether it did.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 refuses, or nobody knows whether it stored the text.
    pub async fn put_text(
        &self,
        at: Address<'_>,
        text: &str,
        condition: &Condition,
    ) -> Result<bool, Error> {
        let request = self.client.put_object().bucket(at.bucket).key(at.key);
        let request = request
            .content_type("application/toml")
            .set_if_match(condition.if_match())
            .set_if_none_match(condition.if_none_match())
            .body(text.as_bytes().to_vec().into());
        match request.send().await {
            Ok(_) => Ok(true),
            Err(err) if is_refusal(&err) => Ok(false),
            Err(err) => Err(error("write", at, &err)),
        }
    }
}

/// A body as text, or why it is none of at most [`MAX_TEXT_BYTES`].
async fn whole(mut body: ByteStream, at: Address<'_>) -> Result<Result<String, String>, Error> {
    let mut bytes = Vec::new();
    while let Some(more) = body.next().await {
        let more = more.map_err(|err| broken(at, err.into()))?;
        if bytes.len() + more.len() > MAX_TEXT_BYTES {
            return Ok(Err(format!(
                "it has more than the {MAX_TEXT_BYTES} bytes that are read"
            )));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(plain::utf8(bytes))
}
