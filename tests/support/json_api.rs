//! What the JSON protocols of AWS have in common: the operation in a header, an object in, an object out.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending},
    sync::{Arc, Mutex, MutexGuard},
};

use hyper::{
    Request,
    body::Bytes,
    header::{self, HeaderValue},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    http::{self, Answer, Server},
    s3::ACCESS_KEY,
};

/// What one service says differently from another.
#[derive(Clone, Copy)]
pub struct Dialect {
    /// As in the scope of a signature, such as `sqs`.
    pub name: &'static str,
    /// What precedes the operation in `X-Amz-Target`, such as `AmazonSQS`.
    pub target: &'static str,
    /// What precedes the code of an error; empty if nothing does.
    pub errors: &'static str,
    pub content_type: &'static str,
}

/// Why an operation is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// The code that the query protocol had for it, for services that still say so.
    pub query_code: Option<&'static str>,
}

impl Refusal {
    /// The caller's fault.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code: code.to_owned(),
            message: message.into(),
            query_code: None,
        }
    }

    fn fault(status: u16) -> Self {
        let code = match status {
            400 => "ThrottlingException",
            403 => "AccessDeniedException",
            429 => "RequestThrottled",
            503 => "ServiceUnavailable",
            _ => "InternalFailure",
        };
        let message = "as the test has it";
        Self {
            status,
            ..Self::new(code, message)
        }
    }
}

/// What happens to a request in place of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done; this status says so.
    Status(u16),
    /// It is done, and this status says that it failed: the client must not trust an error.
    ApplyThenStatus(u16),
    /// It is not done, and no answer ever comes.
    Hang,
}

/// What is asked for, and what goes wrong.
#[derive(Default)]
struct Plan {
    once: VecDeque<(String, Fault)>,
    always: HashMap<String, Fault>,
    calls: Vec<(String, Value)>,
}

/// The endpoint of one service; stops when it is dropped.
pub struct JsonApi {
    server: Server,
    plan: Arc<Mutex<Plan>>,
}

impl JsonApi {
    /// Calls `answer` with every operation and its input, except where a fault is planned.
    pub fn start<S, F>(dialect: Dialect, answer: S) -> Self
    where
        S: Fn(String, Value) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Value, Refusal>> + Send + 'static,
    {
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        let server = Server::start(dialect.name, move |request| {
            let (answer, plan) = (answer.clone(), Arc::clone(&shared));
            async move {
                let result = match admit(&dialect, &request, &plan) {
                    Ok((_, _, Some(Fault::Hang))) => pending().await,
                    Ok((_, _, Some(Fault::Status(status)))) => Err(Refusal::fault(status)),
                    Ok((operation, input, Some(Fault::ApplyThenStatus(status)))) => {
                        let done = answer(operation, input).await;
                        done.and(Err(Refusal::fault(status)))
                    }
                    Ok((operation, input, None)) => answer(operation, input).await,
                    Err(refusal) => Err(refusal),
                };
                respond(&dialect, result)
            }
        });
        Self { server, plan }
    }

    /// Such as `http://127.0.0.1:49152`.
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// The inputs of an operation's requests, in order, the failed ones too.
    pub fn calls(&self, operation: &str) -> Vec<Value> {
        let plan = lock(&self.plan);
        let calls = plan.calls.iter().filter(|(name, _)| name == operation);
        calls.map(|(_, input)| input.clone()).collect()
    }

    /// Lets the next request of this operation go wrong. Called again, the one after that too.
    pub fn fault_once(&self, operation: &str, fault: Fault) {
        let planned = (operation.to_owned(), fault);
        lock(&self.plan).once.push_back(planned);
    }

    /// Lets every request of this operation go wrong from now on.
    pub fn fault_always(&self, operation: &str, fault: Fault) {
        lock(&self.plan).always.insert(operation.to_owned(), fault);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        let mut plan = lock(&self.plan);
        plan.once.clear();
        plan.always.clear();
    }
}

/// The operation that is asked for and what is to go wrong with it, unless the request is none that the service takes.
fn admit(
    dialect: &Dialect,
    request: &Request<Bytes>,
    plan: &Mutex<Plan>,
) -> Result<(String, Value, Option<Fault>), Refusal> {
    let text = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    let unknown = || Refusal::new("UnknownOperationException", "no such operation");
    let (target, operation) = text("x-amz-target").split_once('.').ok_or_else(unknown)?;
    if target != dialect.target || text("content-type") != dialect.content_type {
        return Err(unknown());
    }
    // Not the signature itself: that it is there, by the right key and for the right service.
    let scope = text(header::AUTHORIZATION.as_str());
    let signed = scope.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/"))
        && scope.contains(&format!("/{}/aws4_request", dialect.name));
    if !signed {
        let refusal = Refusal::new(
            "UnrecognizedClientException",
            "not signed by the test's key",
        );
        return Err(Refusal {
            status: 403,
            ..refusal
        });
    }
    let input: Value = serde_json::from_slice(request.body())
        .map_err(|error| Refusal::new("SerializationException", error.to_string()))?;

    let mut plan = lock(plan);
    plan.calls.push((operation.to_owned(), input.clone()));
    let once = plan.once.iter().position(|(name, _)| name == operation);
    let fault = match once {
        Some(index) => plan.once.remove(index).map(|(_, fault)| fault),
        None => plan.always.get(operation).copied(),
    };
    Ok((operation.to_owned(), input, fault))
}

fn respond(dialect: &Dialect, result: Result<Value, Refusal>) -> Answer {
    let (mut answer, query_code) = match result {
        Ok(output) => (http::json(200, &output), None),
        Err(refusal) => {
            let code = [dialect.errors, &refusal.code].concat();
            let body = json!({ "__type": code, "message": refusal.message });
            (http::json(refusal.status, &body), refusal.query_code)
        }
    };
    let headers = answer.headers_mut();
    let content_type = HeaderValue::from_static(dialect.content_type);
    headers.insert(header::CONTENT_TYPE, content_type);
    let id = HeaderValue::try_from(Uuid::new_v4().to_string()).expect("hex and hyphens");
    headers.insert("x-amzn-requestid", id);
    if let Some(code) = query_code {
        headers.insert("x-amzn-query-error", HeaderValue::from_static(code));
    }
    answer
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().expect("no test panics while it plans")
}
