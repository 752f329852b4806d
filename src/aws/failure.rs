//! What a failed request to AWS means, and what to do.

use std::{borrow::Cow, error::Error};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::login::{self, Trouble};
use crate::{
    chain::chain,
    network::{self, Distrust},
    plain,
};

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    S3,
    Sqs,
    SecretsManager,
    CloudFormation,
    CloudWatch,
    CodeBuild,
    CodePipeline,
    EventBridge,
    Lambda,
    Logs,
    Scheduler,
    Sns,
}

/// Where a server that stands in for S3 says what is wrong, also where an answer has no body.
pub(crate) const ERROR_MESSAGE: &str = "x-amz-error-message";

/// What a failed request to AWS means.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whether the same request may succeed later without anybody changing anything.
    pub(crate) transient: bool,
    /// Whether there is no room for what was sent.
    pub(crate) no_room: bool,
    /// Whether this login may not do it.
    pub(crate) is_denied: bool,
    /// Whether there is no login, or one that is over: every other request fails in the same way.
    pub(crate) is_login: bool,
    /// What to do, after a semicolon; may be empty.
    pub(crate) advice: Cow<'static, str>,
    /// What the service says, or the SDK where the service says nothing. Never a structure: one would show an answer that
    /// could not be read, with all that is in it.
    pub(crate) words: String,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It passes by itself.
    Passing,
    /// The service cannot be asked.
    Unreachable,
    /// The SDK does not know how to ask it.
    Configuration,
    /// There is no login to ask it with.
    NoLogin,
    /// The same, and whoever gives logins may do so later.
    NoLoginNow,
    /// What was asked for is not there: the bucket, the queue, the secret.
    Missing,
    /// It is not allowed.
    Denied,
    /// The key that encrypts it may not be used.
    KeyDenied,
    /// The bucket is elsewhere.
    OtherRegion,
    /// The login is over, or none that AWS knows.
    Expired,
    /// This machine's clock is wrong.
    Skewed,
    /// S3 says no word, as it does to a question whose answer has no body.
    Wordless,
    /// A server that stands in for S3 cannot do it.
    Lacking,
    /// A server that stands in for S3 has no room.
    DiskFull,
    /// Anything else that the service refuses.
    Refused,
}

impl Failure {
    pub(crate) fn of<E>(service: Service, err: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let class = Class::of(err);
        if err.raw_response().is_none() {
            return Self::unasked(service, class, err);
        }
        let answer = err.raw_response();
        let said = answer.and_then(|answer| answer.headers().get(ERROR_MESSAGE));
        let region = answer.and_then(|answer| answer.headers().get("x-amz-bucket-region"));
        let words = match (err.code(), err.message(), said, region) {
            (_, _, _, Some(region)) if class == Class::OtherRegion => {
                format!("the bucket is in {region}: AWS_REGION={region}")
            }
            (Some(code), Some(message), ..) => format!("{code}: {message}"),
            (_, _, Some(said), _) => said.to_owned(),
            (Some(code), None, ..) => code.to_owned(),
            // What the SDK makes of an answer without words is none either.
            _ => match (err, status(err)) {
                (SdkError::ServiceError(_), Some(status)) => {
                    format!("the answer has the status {status} and says no more")
                }
                _ => plain::foreign(&chain(err)),
            },
        };
        Self {
            transient: class == Class::Passing,
            no_room: class == Class::DiskFull,
            is_denied: matches!(class, Class::Denied | Class::KeyDenied),
            is_login: class.is_login(),
            advice: class.advice(service),
            words,
        }
    }

    /// The service gave no answer, or was not asked.
    fn unasked(service: Service, class: Class, err: &(dyn Error + 'static)) -> Self {
        let said = match cause::<CredentialsError>(err) {
            // The SDK names all places where it looked, a line each.
            Some(CredentialsError::CredentialsNotLoaded(_)) => {
                Some("no credentials were found".into())
            }
            _ => network::last_cause(err),
        };
        let said = said.unwrap_or_else(|| err.to_string());
        let mut failure = Self {
            transient: matches!(class, Class::Unreachable | Class::NoLoginNow),
            no_room: false,
            is_denied: false,
            is_login: class.is_login(),
            advice: class.advice(service),
            words: plain::foreign(said.lines().next().unwrap_or_default().trim()),
        };
        let distrust = Distrust::of(err, "AWS_CA_BUNDLE or SSL_CERT_FILE");
        if let Some(Distrust { why, advice }) = distrust {
            failure.advice = format!("; {advice}").into();
            failure.words = why;
            return failure;
        }
        // Without it, this is a server on this machine.
        let Some(login) = login::found() else {
            return failure;
        };
        let url = login.endpoint.as_deref();
        let proxy = network::proxy_of(url.unwrap_or("https://s3.amazonaws.com"));
        let advice = match (class, &login.trouble, proxy) {
            (Class::Unreachable, _, Some(proxy)) => {
                failure.transient = !network::is_proxy_login(&failure.words);
                network::through(&proxy, &failure.words)
            }
            // A host may not be there for want of a region.
            (
                Class::Unreachable | Class::Configuration | Class::NoLogin | Class::NoLoginNow,
                Some(Trouble { why, advice }),
                _,
            ) => {
                failure.transient = false;
                failure.words = plain::foreign(why);
                advice.clone()
            }
            (Class::NoLogin | Class::NoLoginNow, None, _) => login.advice.clone(),
            (Class::Unreachable, None, None) => match (&login.region, url) {
                (Some(region), None) => format!(
                    "{} cannot be asked, check the network and the region ({})",
                    service.name(),
                    plain::foreign(region)
                ),
                _ => return failure,
            },
            _ => return failure,
        };
        failure.advice = format!("; {advice}").into();
        failure
    }
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::S3 => "S3",
            Self::Sqs => "SQS",
            Self::SecretsManager => "Secrets Manager",
            Self::CloudFormation => "CloudFormation",
            Self::CloudWatch => "CloudWatch",
            Self::CodeBuild => "CodeBuild",
            Self::CodePipeline => "CodePipeline",
            Self::EventBridge => "EventBridge",
            Self::Lambda => "Lambda",
            Self::Logs => "CloudWatch Logs",
            Self::Scheduler => "EventBridge Scheduler",
            Self::Sns => "SNS",
        }
    }
}

/// The first of the causes that is of this kind.
fn cause<'a, C: Error + 'static>(err: &'a (dyn Error + 'static)) -> Option<&'a C> {
    let mut cause = Some(err);
    while let Some(err) = cause {
        if let Some(found) = err.downcast_ref() {
            return Some(found);
        }
        cause = err.source();
    }
    None
}

/// What the service calls a failure; empty if it said nothing.
pub(crate) fn code<E: ProvideErrorMetadata>(err: &SdkError<E>) -> &str {
    err.code().unwrap_or_default()
}

/// The status of the answer, if there was one.
pub(crate) fn status<E>(err: &SdkError<E>) -> Option<u16> {
    err.raw_response()
        .map(|response| response.status().as_u16())
}

/// How far this machine's clock may be from the service's, in seconds. AWS takes 15 minutes.
const CLOCK_SECONDS: u64 = 14 * 60;

/// Whether the service's clock says another time than this machine's.
fn is_skewed<E>(err: &SdkError<E>) -> bool {
    let date = err
        .raw_response()
        .and_then(|answer| answer.headers().get("date"));
    let theirs = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    theirs.is_some_and(|theirs| {
        let apart = (OffsetDateTime::now_utc() - theirs).whole_seconds();
        apart.unsigned_abs() > CLOCK_SECONDS
    })
}

impl Class {
    fn of<E: ProvideErrorMetadata + Error + 'static>(err: &SdkError<E>) -> Self {
        match cause::<CredentialsError>(err) {
            Some(CredentialsError::ProviderTimedOut(_)) => return Self::NoLoginNow,
            Some(_) => return Self::NoLogin,
            None => {}
        }
        let code = err.code().unwrap_or_default();
        match code {
            "RequestTimeout" | "SlowDown" | "OverLimit"
            // What was sent to S3 is not what arrived: by its checksum, or by its length or signature.
            | "BadDigest" | "IncompleteBody"
            // An upload in parts that somebody ended, or a part that came twice and late: another upload has neither.
            | "NoSuchUpload" | "InvalidPart" => return Self::Passing,
            _ if code.contains("Throttl") => return Self::Passing,
            "NoSuchBucket" | "ResourceNotFoundException" => return Self::Missing,
            _ if code.ends_with("QueueDoesNotExist") || code.ends_with("NonExistentQueue") => {
                return Self::Missing;
            }
            "DecryptionFailure" => return Self::KeyDenied,
            "RequestTimeTooSkewed" => return Self::Skewed,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken"
            | "InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId" => {
                return Self::Expired;
            }
            "NotImplemented" => return Self::Lacking,
            _ if code.contains("AccessDenied") => return Self::Denied,
            _ => {}
        }
        match (err, status(err)) {
            // An upload in parts may fail after its answer has begun: S3 says so in the body. Other answers with this
            // status could not be read.
            (_, Some(200)) => Self::Passing,
            (SdkError::ConstructionFailure(_), _) => Self::Configuration,
            // Whatever was sent or heard, a connection was there, which broke.
            (SdkError::DispatchFailure(failure), _)
                if !failure.is_io()
                    && !failure.is_timeout()
                    && cause::<hyper::Error>(err).is_none()
                    && Distrust::of(err, "").is_none() =>
            {
                Self::Configuration
            }
            (_, Some(400 | 403)) if is_skewed(err) => Self::Skewed,
            (_, Some(403)) => Self::Denied,
            (_, Some(301)) => Self::OtherRegion,
            (_, Some(400)) if code.is_empty() => Self::Wordless,
            (_, Some(501)) => Self::Lacking,
            (_, Some(507)) => Self::DiskFull,
            (_, Some(500.. | 408 | 429)) => Self::Passing,
            (_, Some(_)) => Self::Refused,
            (_, None) => Self::Unreachable,
        }
    }

    fn is_login(self) -> bool {
        matches!(
            self,
            Self::Configuration | Self::NoLogin | Self::NoLoginNow | Self::Expired | Self::Skewed
        )
    }

    fn advice(self, service: Service) -> Cow<'static, str> {
        match (self, service) {
            (Self::Unreachable, _) => {
                return format!(
                    "; {} cannot be asked, check the network, the region and the credentials",
                    service.name()
                )
                .into();
            }
            (Self::Configuration | Self::NoLogin | Self::NoLoginNow, _) => {
                "; check the AWS configuration, such as region and credentials: aws configure list"
            }
            (Self::Missing, Service::S3) => {
                "; there is no such bucket, check SOURCE_BUCKET or the route's bucket"
            }
            (Self::Missing, Service::Sqs) => "; there is no such queue, check QUEUE_URL",
            (Self::Missing, Service::SecretsManager) => {
                "; there is no such secret in this account and region, or it has no value yet: aws secretsmanager list-secrets"
            }
            (Self::Passing | Self::Refused | Self::DiskFull | Self::Missing, _) => "",
            (Self::Denied, Service::S3) => {
                "; access was denied, check the bucket's policy and whose credentials these are: aws sts get-caller-identity"
            }
            (Self::Denied, _) => {
                "; access was denied, check the role's policy and whose credentials these are: aws sts get-caller-identity"
            }
            (Self::KeyDenied, _) => "; the role may not use the key that encrypts it",
            (Self::OtherRegion, _) => {
                "; the bucket is in another region, name that with AWS_REGION, or use a bucket of this one"
            }
            (Self::Expired, _) => {
                "; the login has expired or is not known, log in again: aws sso login, aws login, or new access keys"
            }
            (Self::Skewed, _) => {
                "; this machine's clock is wrong, and AWS takes no request that seems older than 15 minutes: set the clock"
            }
            (Self::Wordless, _) => {
                "; S3 answers so when a login has expired (aws sso login, aws login, or new access keys) or the region is \
                 another (AWS_REGION); aws s3api head-bucket says more"
            }
            (Self::Lacking, Service::S3) => {
                "; this S3 cannot do what is needed, such as writes under a condition (If-None-Match, If-Match)"
            }
            (Self::Lacking, _) => "; it cannot do what is needed",
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::{
        config::http::HttpResponse,
        error::{ConnectorError, ErrorMetadata},
        primitives::SdkBody,
    };

    use super::*;

    type Failed = SdkError<ErrorMetadata>;

    /// The service answered.
    fn answer(status: u16, code: &str) -> Failed {
        let said = ErrorMetadata::builder().code(code).message("said so");
        let said = if code.is_empty() {
            ErrorMetadata::builder()
        } else {
            said
        };
        Failed::service_error(said.build(), response(status))
    }

    fn response(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().unwrap(), SdkBody::empty())
    }

    #[test]
    fn an_answer_has_one_class_whichever_service_it_is_of() {
        for (case, status, code, expected) in [
            ("busy", 503, "SlowDown", Class::Passing),
            ("S3's throttle", 503, "Throttling", Class::Passing),
            (
                "another's throttle",
                400,
                "ThrottlingException",
                Class::Passing,
            ),
            (
                "SQS's throttle",
                403,
                "AWS.SimpleQueueService.RequestThrottled",
                Class::Passing,
            ),
            ("too much in flight", 403, "OverLimit", Class::Passing),
            ("a broken body", 400, "IncompleteBody", Class::Passing),
            ("an upload that ended", 404, "NoSuchUpload", Class::Passing),
            ("a fault", 500, "InternalError", Class::Passing),
            ("a fault without words", 502, "", Class::Passing),
            ("too many", 429, "", Class::Passing),
            ("failed in the body", 200, "InternalError", Class::Passing),
            ("no bucket", 404, "NoSuchBucket", Class::Missing),
            (
                "no queue",
                400,
                "AWS.SimpleQueueService.NonExistentQueue",
                Class::Missing,
            ),
            (
                "no queue, as JSON has it",
                400,
                "com.amazonaws.sqs#QueueDoesNotExist",
                Class::Missing,
            ),
            (
                "no secret",
                400,
                "ResourceNotFoundException",
                Class::Missing,
            ),
            ("S3 denies", 403, "AccessDenied", Class::Denied),
            ("denied without words", 403, "", Class::Denied),
            (
                "another denies",
                400,
                "AccessDeniedException",
                Class::Denied,
            ),
            (
                "the key is denied",
                400,
                "DecryptionFailure",
                Class::KeyDenied,
            ),
            ("elsewhere", 301, "", Class::OtherRegion),
            ("expired", 400, "ExpiredToken", Class::Expired),
            (
                "a key that is gone",
                403,
                "InvalidAccessKeyId",
                Class::Expired,
            ),
            ("expired, of a HEAD", 400, "", Class::Wordless),
            ("a wrong clock", 403, "RequestTimeTooSkewed", Class::Skewed),
            ("no conditions", 501, "NotImplemented", Class::Lacking),
            ("not there, without words", 501, "", Class::Lacking),
            ("no room", 507, "", Class::DiskFull),
            ("a wrong request", 400, "InvalidArgument", Class::Refused),
        ] {
            assert_eq!(Class::of(&answer(status, code)), expected, "{case}");
        }
    }

    #[test]
    fn a_request_without_an_answer_has_a_class_too() {
        let user = ConnectorError::user("a wrong endpoint".into());
        let refused = ConnectorError::io("connection refused".into());
        let unread = Failed::response_error("no JSON", response(200));
        for (err, expected) in [
            (
                Failed::construction_failure("no region"),
                Class::Configuration,
            ),
            (Failed::dispatch_failure(user), Class::Configuration),
            (Failed::dispatch_failure(refused), Class::Unreachable),
            (Failed::timeout_error("too slow"), Class::Unreachable),
            (unread, Class::Passing),
        ] {
            assert_eq!(Class::of(&err), expected, "{}", chain(&err));
        }
    }

    /// An answer without a body.
    fn head(status: u16, headers: &[(&'static str, String)]) -> Failure {
        let mut response = response(status);
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.clone());
        }
        let said = ErrorMetadata::builder().build();
        Failure::of(Service::S3, &Failed::service_error(said, response))
    }

    #[test]
    fn an_answer_without_words_says_what_its_headers_tell() {
        let region = [("x-amz-bucket-region", "ap-northeast-1".to_owned())];
        let failure = head(301, &region);
        assert_eq!(
            failure.words,
            "the bucket is in ap-northeast-1: AWS_REGION=ap-northeast-1"
        );
        let expired = head(400, &[]);
        assert_eq!(
            expired.words,
            "the answer has the status 400 and says no more"
        );
        assert!(expired.advice.contains("aws sso login") && !expired.transient);
        let now = OffsetDateTime::now_utc();
        for (hours, is_skewed) in [(0, false), (-1, true), (1, true)] {
            let date = now + time::Duration::hours(hours);
            let date = date.format(&Rfc2822).unwrap().replace("+0000", "GMT");
            let failure = head(403, &[("date", date)]);
            assert_eq!(
                failure.advice.contains("clock is wrong"),
                is_skewed,
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_failure_says_what_the_service_said_and_what_to_do() {
        let failure = Failure::of(Service::Sqs, &answer(403, "AccessDenied"));
        assert_eq!(failure.words, "AccessDenied: said so");
        assert!(failure.advice.ends_with("aws sts get-caller-identity"));
        assert!(!failure.transient);
        let failure = Failure::of(Service::S3, &Failed::timeout_error("too slow"));
        assert!(failure.words.contains("too slow"), "{failure:?}");
        assert!(failure.transient);
    }
}
