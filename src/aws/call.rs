//! Calls of services that are too small a part of us for a crate each: signed, sent and tried again as the SDK does it, with the
//! answer as it is. Eight of the SDK's crates would be more code to compile than all else together.

use std::{error::Error, fmt};

use aws_config::SdkConfig;
use aws_runtime::{
    auth::{
        SigV4OperationSigningConfig,
        sigv4::{SCHEME_ID, SigV4AuthScheme},
    },
    retries::classifiers::AwsErrorCodeClassifier,
};
use aws_sdk_s3::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime::client::{
    identity::IdentityCache, orchestrator::operation::Operation,
    retries::classifiers::HttpStatusCodeClassifier,
};
use aws_smithy_runtime_api::client::{
    auth::{
        AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
        static_resolver::StaticAuthSchemeOptionResolver,
    },
    identity::SharedIdentityResolver,
    orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
    runtime_components::RuntimeComponentsBuilder,
    runtime_plugin::StaticRuntimePlugin,
};
use aws_smithy_types::{body::SdkBody, config_bag::Layer, retry::RetryConfig};
use aws_types::{SigningName, region::SigningRegion, service_config::ServiceConfigKey};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, Service, failure::code, sdk_config, small_answers};

/// Why a call did not succeed.
#[derive(Debug)]
pub struct CallError {
    /// What IAM calls it, such as `lambda:GetFunctionConfiguration`.
    pub action: String,
    /// What the service calls the failure; empty if it said nothing.
    pub code: String,
    /// Whether this login may not do it.
    pub is_denied: bool,
    /// Whether there is no login, or one that is over: every other call fails in the same way.
    pub is_login: bool,
    /// Whether the same call may succeed later without anybody changing anything.
    pub transient: bool,
    advice: String,
    words: String,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            advice,
            words,
            ..
        } = self;
        write!(f, "{action} failed{advice}: {words}")
    }
}

impl Error for CallError {}

impl CallError {
    /// What the service said.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.words
    }

    /// Whether what was asked for is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        const CODES: [&str; 3] = [
            "ResourceNotFoundException",
            "QueueDoesNotExist",
            "NonExistentQueue",
        ];
        CODES.iter().any(|code| self.code.ends_with(code))
    }

    /// A failed call of one of the SDK's own clients. `action` is what IAM calls it.
    pub(crate) fn of<E>(action: &str, service: Service, err: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = Failure::of(service, err);
        Self {
            action: action.to_owned(),
            code: code(err).to_owned(),
            is_denied: failure.is_denied,
            is_login: failure.is_login,
            transient: failure.transient,
            advice: failure.advice.into_owned(),
            words: failure.words,
        }
    }

    /// The service said something that is no answer.
    fn unread(action: String, why: &dyn fmt::Display) -> Self {
        Self {
            action,
            code: String::new(),
            is_denied: false,
            is_login: false,
            transient: false,
            advice: String::new(),
            words: format!("the answer cannot be read: {why}"),
        }
    }
}

/// How a service is called.
struct Dialect {
    /// The beginning of its host, which its signatures and IAM's actions name, too.
    host: &'static str,
    /// What `AWS_ENDPOINT_URL_…` and a profile call it.
    id: &'static str,
    /// What stands before an operation's name in `X-Amz-Target`, or the version of the query protocol.
    protocol: &'static str,
}

impl Dialect {
    fn of(service: Service) -> Self {
        let (host, id, protocol) = match service {
            Service::CloudFormation => ("cloudformation", "CloudFormation", "2010-05-15"),
            Service::CloudWatch => ("monitoring", "CloudWatch", "2010-08-01"),
            Service::CodeBuild => ("codebuild", "CodeBuild", "CodeBuild_20161006"),
            Service::CodePipeline => ("codepipeline", "CodePipeline", "CodePipeline_20150709"),
            Service::EventBridge => ("events", "EventBridge", "AWSEvents"),
            Service::Lambda => ("lambda", "Lambda", ""),
            Service::Logs => ("logs", "CloudWatch Logs", "Logs_20140328"),
            Service::Scheduler => ("scheduler", "Scheduler", ""),
            Service::Sns => ("sns", "SNS", "2010-03-31"),
            Service::S3 => ("s3", "S3", ""),
            Service::Sqs => ("sqs", "SQS", "AmazonSQS"),
            Service::SecretsManager => ("secretsmanager", "Secrets Manager", "secretsmanager"),
        };
        Self { host, id, protocol }
    }

    /// What IAM calls an operation.
    fn action(&self, operation: &str) -> String {
        let service = match self.host {
            "monitoring" => "cloudwatch",
            host => host,
        };
        format!("{service}:{operation}")
    }

    /// Where it is asked: where the environment or the profile say so, else in the region.
    fn endpoint(&self, config: &SdkConfig, region: &str) -> String {
        let key = ServiceConfigKey::builder()
            .service_id(self.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let services = config.service_config();
        let of_service = services
            .zip(key.ok())
            .and_then(|(all, key)| all.load_config(key));
        let named = of_service.or_else(|| config.endpoint_url().map(str::to_owned));
        named.unwrap_or_else(|| {
            let ending = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://{}.{region}.amazonaws.com{ending}", self.host)
        })
    }
}

/// Calls an operation of a service that takes and gives JSON.
///
/// # Errors
///
/// [`CallError`].
pub(crate) async fn json(
    service: Service,
    operation: &str,
    input: &Value,
) -> Result<Value, CallError> {
    let dialect = Dialect::of(service);
    let request = hyper::Request::post("/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("{}.{operation}", dialect.protocol))
        .body(input.to_string());
    let text = send(service, operation, request).await?;
    read_json(&dialect, operation, &text)
}

/// Reads something of a service that has paths: `path` is everything behind the host.
///
/// # Errors
///
/// [`CallError`].
pub(crate) async fn get(service: Service, operation: &str, path: &str) -> Result<Value, CallError> {
    let request = hyper::Request::get(path).body(String::new());
    let text = send(service, operation, request).await?;
    read_json(&Dialect::of(service), operation, &text)
}

/// Calls an operation of a service that takes a form and gives XML.
///
/// # Errors
///
/// [`CallError`].
pub(crate) async fn query<T: DeserializeOwned>(
    service: Service,
    operation: &str,
    input: &[(&str, &str)],
) -> Result<T, CallError> {
    let dialect = Dialect::of(service);
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", operation)
        .append_pair("Version", dialect.protocol)
        .extend_pairs(input)
        .finish();
    let request = hyper::Request::post("/")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    let text = send(service, operation, request).await?;
    let unread = |err| CallError::unread(dialect.action(operation), &err);
    quick_xml::de::from_str(&text).map_err(unread)
}

fn read_json(dialect: &Dialect, operation: &str, text: &str) -> Result<Value, CallError> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let unread = |err| CallError::unread(dialect.action(operation), &err);
    serde_json::from_str(text).map_err(unread)
}

async fn send(
    service: Service,
    operation: &str,
    request: Result<hyper::Request<String>, hyper::http::Error>,
) -> Result<String, CallError> {
    let dialect = Dialect::of(service);
    let failed = |err| CallError::of(&dialect.action(operation), service, &err);
    let config = sdk_config().await;
    let (request, region, credentials) = match (request, config.region()) {
        (Ok(request), Some(region)) => (request, region, config.credentials_provider()),
        (Err(err), _) => return Err(failed(SdkError::construction_failure(err))),
        (_, None) => return Err(failed(SdkError::construction_failure("no region is set"))),
    };
    let Some(credentials) = credentials else {
        let err = SdkError::construction_failure("there are no credentials");
        return Err(failed(err));
    };
    let signing = SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(region.clone())),
        name: Some(SigningName::from_static(dialect.host)),
        ..SigV4OperationSigningConfig::default()
    };
    let mut layer = Layer::new("signature");
    layer.store_put(signing);
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    let schemes = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
    let signed = RuntimeComponentsBuilder::new("signature")
        .with_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()))
        .with_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(schemes)))
        .with_identity_cache(Some(IdentityCache::no_cache()))
        .with_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(credentials));
    let mut call = Operation::builder()
        .service_name(dialect.id)
        .operation_name(operation.to_owned())
        .endpoint_url(&dialect.endpoint(config, region.as_ref()))
        .standard_retry(&RetryConfig::standard())
        .retry_classifier(HttpStatusCodeClassifier::default())
        .retry_classifier(AwsErrorCodeClassifier::<ErrorMetadata>::new())
        .timeout_config(small_answers())
        .runtime_plugin(
            StaticRuntimePlugin::new()
                .with_config(layer.freeze())
                .with_runtime_components(signed),
        );
    if let Some(client) = config.http_client() {
        call = call.http_client(client);
    }
    if let Some(sleep) = config.sleep_impl() {
        call = call.sleep_impl(sleep);
    }
    if let Some(time) = config.time_source() {
        call = call.time_source(time);
    }
    let call = call
        .serializer(|request: hyper::Request<String>| {
            Ok(HttpRequest::try_from(request.map(SdkBody::from))?)
        })
        .deserializer(read)
        .build();
    Box::pin(call.invoke(request)).await.map_err(failed)
}

/// The text of an answer, or what it says went wrong.
fn read(answer: &HttpResponse) -> Result<String, OrchestratorError<ErrorMetadata>> {
    let bytes = answer.body().bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    if answer.status().is_success() {
        return Ok(text.into_owned());
    }
    let header = answer.headers().get("x-amzn-errortype");
    let (code, message) = said(&text);
    let code = header.map(str::to_owned).or(code);
    let mut metadata = ErrorMetadata::builder();
    if let Some(code) = code {
        // In front of it may stand a namespace, and behind it an address.
        let code = code.split(':').next().unwrap_or_default();
        metadata = metadata.code(code.rsplit('#').next().unwrap_or_default());
    }
    if let Some(message) = message {
        metadata = metadata.message(message);
    }
    Err(OrchestratorError::operation(metadata.build()))
}

/// The code and the message of an error, as JSON or as XML.
fn said(text: &str) -> (Option<String>, Option<String>) {
    #[derive(serde::Deserialize)]
    struct Refused {
        #[serde(rename = "Error")]
        error: Words,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Words {
        code: Option<String>,
        message: Option<String>,
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let of = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| value[*name].as_str());
            value.map(str::to_owned)
        };
        return (of(["__type", "code"]), of(["message", "Message"]));
    }
    match quick_xml::de::from_str::<Refused>(text) {
        Ok(Refused { error }) => (error.code, error.message),
        Err(_) => (None, None),
    }
}
