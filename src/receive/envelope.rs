//! What API Gateway makes of a request: the payload of an HTTP API (version 2.0) or of a REST API (version 1.0).

use std::{borrow::Cow, collections::HashMap};

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

use super::Request;

/// An event of API Gateway. It cannot be printed: it may hold the token.
///
/// Sources: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>,
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html>
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Envelope {
    /// Version 2.0; begins with the stage's name, unless that is `$default`.
    raw_path: Option<String>,
    /// Version 1.0.
    path: Option<String>,
    /// Version 1.0.
    http_method: Option<String>,
    headers: Option<HashMap<String, Value>>,
    request_context: Context,
    body: Option<String>,
    is_base64_encoded: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    stage: Option<String>,
    /// Version 2.0.
    http: Option<Caller>,
    /// Version 1.0.
    identity: Option<Caller>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Caller {
    method: Option<String>,
    source_ip: Option<String>,
}

impl From<Value> for Envelope {
    /// What is no event of API Gateway has no path, and so is answered like any path that there is not.
    fn from(event: Value) -> Self {
        serde_json::from_value(event).unwrap_or_default()
    }
}

impl Envelope {
    /// Whether `event` looks like one of API Gateway.
    #[must_use]
    pub fn is_in(event: &Value) -> bool {
        event.get("requestContext").is_some()
            && (event.get("rawPath").is_some() || event.get("httpMethod").is_some())
    }

    /// The request inside.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        let context = &self.request_context;
        let caller = context.http.as_ref().or(context.identity.as_ref());
        let method = caller.and_then(|caller| caller.method.as_deref());
        let authorization = self.headers.iter().flatten().find_map(|(name, value)| {
            name.eq_ignore_ascii_case("authorization")
                .then(|| value.as_str())?
        });
        Request {
            method: method.or(self.http_method.as_deref()).unwrap_or_default(),
            path: self.request_path(),
            authorization,
            source_ip: caller.and_then(|caller| caller.source_ip.as_deref()?.parse().ok()),
        }
    }

    fn request_path(&self) -> &str {
        let Some(path) = self.raw_path.as_deref() else {
            return self.path.as_deref().unwrap_or_default();
        };
        let stage = self.request_context.stage.as_deref();
        stage
            .and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage))
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path)
    }

    /// The body; `None` if it should be base64 and is not.
    #[must_use]
    pub fn body(&self) -> Option<Cow<'_, [u8]>> {
        let text = self.body.as_deref().unwrap_or_default();
        if !self.is_base64_encoded {
            return Some(text.as_bytes().into());
        }
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(text).ok().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_versions_hold_the_same_request() {
        let headers = json!({"Authorization": "Basic x", "X-Forwarded-For": "198.51.100.9"});
        for (case, event, path) in [
            (
                "HTTP API",
                json!({"version": "2.0", "rawPath": "/hooks/t", "headers": headers, "body": "aGk=", "isBase64Encoded": true,
                    "requestContext": {"stage": "$default", "http": {"method": "POST", "path": "/hooks/t", "sourceIp": "192.0.2.1"}}}),
                "/hooks/t",
            ),
            (
                "HTTP API with a stage",
                json!({"version": "2.0", "rawPath": "/prod/hooks/t", "headers": headers, "body": "hi",
                    "requestContext": {"stage": "prod", "http": {"method": "POST", "sourceIp": "192.0.2.1"}}}),
                "/hooks/t",
            ),
            (
                "a stage that only begins like the path",
                json!({"version": "2.0", "rawPath": "/hooks/t", "headers": headers, "body": "hi",
                    "requestContext": {"stage": "hook", "http": {"method": "POST", "sourceIp": "192.0.2.1"}}}),
                "/hooks/t",
            ),
            (
                "REST API",
                json!({"path": "/hooks/t", "httpMethod": "POST", "headers": headers, "body": "hi", "isBase64Encoded": false,
                    "requestContext": {"stage": "prod", "identity": {"sourceIp": "192.0.2.1"}}}),
                "/hooks/t",
            ),
        ] {
            let envelope = Envelope::from(event);
            let request = envelope.request();
            assert_eq!((request.method, request.path), ("POST", path), "{case}");
            assert_eq!(request.authorization, Some("Basic x"), "{case}");
            let ip = request.source_ip.map(|ip| ip.to_string());
            assert_eq!(ip.as_deref(), Some("192.0.2.1"), "{case}");
            assert_eq!(envelope.body().as_deref(), Some(&b"hi"[..]), "{case}");
        }
    }

    #[test]
    fn what_is_no_request_has_no_path() {
        for event in [
            json!(null),
            json!([]),
            json!({"body": 1}),
            json!({"headers": null}),
        ] {
            assert_eq!(Envelope::from(event.clone()).request().path, "", "{event}");
        }
        let event = json!({"rawPath": "/hooks/t", "body": "%%%", "isBase64Encoded": true});
        assert_eq!(Envelope::from(event).body(), None);
    }
}
