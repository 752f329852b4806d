//! A small object that people write, such as the routing table: read when it has changed, written under a condition.

use aws_sdk_s3::error::ProvideErrorMetadata;

use super::{Address, Condition, S3, error, is_refusal};
use crate::{
    aws::status,
    error::{Error, Source},
};

/// The size of the largest object that is read as a text, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// What a look at a small object found.
#[derive(Debug)]
pub enum Found {
    /// It is still the one with this entity tag.
    Same,
    /// There is none.
    Missing,
    /// Another one.
    Text {
        /// What it holds.
        text: String,
        /// Its entity tag.
        etag: String,
    },
}

impl S3 {
    /// Reads an object of at most [`MAX_TEXT_BYTES`], unless it is still the one with the entity tag `known`.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] if S3 cannot be asked, or the object is larger or no UTF-8.
    pub async fn text(&self, at: Address<'_>, known: Option<&str>) -> Result<Found, Error> {
        let request = self.client.get_object().bucket(at.bucket).key(at.key);
        let answer = request.set_if_none_match(known.map(Into::into)).send();
        let mut object = match answer.await {
            Ok(object) => object,
            Err(err) if status(&err) == Some(304) => return Ok(Found::Same),
            Err(err) if err.code() == Some("NoSuchKey") => return Ok(Found::Missing),
            Err(err) => return Err(error("read", at, &err)),
        };
        let broken = |transient, source: Source| Error::Bucket {
            action: "read",
            bucket: at.bucket.into(),
            key: at.key.into(),
            advice: "",
            transient,
            source,
        };
        let mut bytes = Vec::new();
        while let Some(more) = object.body.next().await {
            let more = more.map_err(|err| broken(true, err.into()))?;
            if bytes.len() + more.len() > MAX_TEXT_BYTES {
                let why = format!("it has more than the {MAX_TEXT_BYTES} bytes that are read");
                return Err(broken(false, why.into()));
            }
            bytes.extend_from_slice(&more);
        }
        let text = String::from_utf8(bytes).map_err(|err| broken(false, err.into()))?;
        let etag = object.e_tag.unwrap_or_default();
        Ok(Found::Text { text, etag })
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
