//! How a bucket is set up, and what lies in it, for who looks and delivers nothing: each answer with what IAM calls the question.

use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    types::BucketLocationConstraint,
};

use super::{Address, Current, Found, S3, text::Unfound};
use crate::aws::{CallError, Service, status};

/// Where buckets are whose region S3 does not name.
const FIRST_REGION: &str = "us-east-1";

impl S3 {
    /// What the versioning of a bucket is: `Enabled`, `Suspended`, or `None` if it never was on.
    ///
    /// # Errors
    ///
    /// [`CallError`], as of every method here.
    pub async fn versioning(&self, bucket: &str) -> Result<Option<String>, CallError> {
        let asked = self.client.get_bucket_versioning().bucket(bucket).send();
        let answer = asked.await.map_err(failed("s3:GetBucketVersioning"))?;
        Ok(answer.status.map(|status| status.as_str().to_owned()))
    }

    /// Whether a bucket tells EventBridge of what happens in it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn sends_events(&self, bucket: &str) -> Result<bool, CallError> {
        let asked = self.client.get_bucket_notification_configuration();
        let answer = asked.bucket(bucket).send().await;
        let answer = answer.map_err(failed("s3:GetBucketNotification"))?;
        Ok(answer.event_bridge_configuration.is_some())
    }

    /// The region that a bucket is in.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn region_of(&self, bucket: &str) -> Result<String, CallError> {
        let asked = self.client.get_bucket_location().bucket(bucket).send();
        let answer = asked.await.map_err(failed("s3:GetBucketLocation"))?;
        let place = answer.location_constraint;
        // What S3 called regions before they had names.
        Ok(match place.as_ref().map(BucketLocationConstraint::as_str) {
            None | Some("") => FIRST_REGION.into(),
            Some("EU") => "eu-west-1".into(),
            Some(region) => region.to_owned(),
        })
    }

    /// The KMS key of one's own that a bucket is encrypted with; `None` if S3 keeps the key.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn key_of(&self, bucket: &str) -> Result<Option<String>, CallError> {
        let asked = self.client.get_bucket_encryption().bucket(bucket).send();
        let answer = match asked.await {
            Ok(answer) => answer.server_side_encryption_configuration,
            Err(err) if err.code() == Some("ServerSideEncryptionConfigurationNotFoundError") => {
                None
            }
            Err(err) => return Err(failed("s3:GetEncryptionConfiguration")(err)),
        };
        let rules = answer.map(|answer| answer.rules).unwrap_or_default();
        let mut keys = rules.into_iter().filter_map(|rule| {
            let rule = rule.apply_server_side_encryption_by_default?;
            rule.kms_master_key_id
        });
        // AWS's own key for S3 needs no permission.
        Ok(keys.find(|key| !key.ends_with("alias/aws/s3")))
    }

    /// An object's current version, if there is one, whatever the versioning of its bucket.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn current(&self, at: Address<'_>) -> Result<Option<Current>, CallError> {
        let asked = self.client.head_object().bucket(at.bucket).key(at.key);
        match asked.send().await {
            Ok(head) => Ok(Some(head.into())),
            Err(err) if status(&err) == Some(404) => Ok(None),
            Err(err) => Err(failed("s3:GetObject")(err)),
        }
    }

    /// A small object, such as the routing table.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn small(&self, at: Address<'_>) -> Result<Found, CallError> {
        match self.find_text(at, None).await {
            Ok(found) => Ok(found),
            Err(Unfound::Refused(err)) => Err(failed("s3:GetObject")(*err)),
            Err(Unfound::Broken(err)) => Ok(Found::NoText {
                why: crate::error::chain(&err),
                etag: String::new(),
            }),
        }
    }
}

fn failed<E>(action: &'static str) -> impl Fn(SdkError<E>) -> CallError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    move |err| CallError::of(action, Service::S3, &err)
}
