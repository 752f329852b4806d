//! A webhook's request becomes jobs: admitted, parsed, matched with the routing table, put on the queue; and only then
//! answered with a yes.
//!
//! ```text
//! request ─▶ path and method ─▶ address ─▶ token ─▶ body ─▶ push ─▶ routes ─jobs─▶ queue ─▶ 202
//!            404               404         404      413,400  200     200           503
//! ```

mod envelope;

use std::{
    borrow::Cow,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::Engine;
use futures_util::future::{Either, maybe_done, select};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use tracing::Level;

pub use self::envelope::Envelope;
use crate::{
    deadline::within,
    error::{Error, chain},
    outcome::{Fault, failures},
    plan::{Ignored, NoJobs, plan, telling, wanted},
    progress::Stage,
    push::{PushEvent, RepositoryName},
    queue::{Job, Sqs},
    results::{self, Message},
    secrets::Tokens,
    table::{LiveTable, Reading},
    telemetry::{self, Counted, Metric},
    webhook::{ParseError, Webhook},
};

/// Where webhooks are posted to: `/hooks/{token}`, or `/hooks` with the token as the password of HTTP Basic.
const HOOKS: &str = "/hooks";

/// What takes webhooks.
#[derive(Debug)]
pub struct Receiver {
    /// The tokens that are valid.
    pub tokens: Arc<Tokens>,
    /// The networks that may post; empty for all.
    pub allowed_ips: Vec<IpNet>,
    /// What is delivered where.
    pub table: Arc<LiveTable>,
    /// The queue of results; `None` where nobody tells them.
    pub results: Option<Sqs>,
}

/// An HTTP request, as much of it as matters. It cannot be printed: path and header may hold the token.
#[derive(Default)]
pub struct Request<'a> {
    /// The method, such as `POST`.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// Who is at the other end of the connection, as far as it is known. Never taken from a header.
    pub source_ip: Option<IpAddr>,
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, which is JSON.
    pub body: String,
}

/// What became of a request.
#[derive(Debug)]
pub enum Received {
    /// The queue has a job for each of these routes.
    Accepted {
        /// The push.
        push: PushEvent,
        /// The routes' names.
        routes: Vec<String>,
    },
    /// The queue of results has a look for a pull request that was opened.
    Opened {
        /// The repository.
        repository: RepositoryName,
        /// The routes' names.
        routes: Vec<String>,
    },
    /// There is nothing to do.
    Ignored {
        /// Why.
        why: Ignored,
        /// The push, if it was one.
        push: Option<PushEvent>,
    },
    /// Whoever asked is not told more than that there is nothing here.
    NotFound {
        /// What is not told.
        why: &'static str,
    },
    /// The body is no webhook, or too long.
    Malformed(ParseError),
    /// It cannot be handled now. The sender should try again.
    Failed {
        /// What is in the way.
        err: Error,
        /// The push, if it came so far.
        push: Option<PushEvent>,
    },
}

impl Receiver {
    /// Handles a request by `deadline`. `body` is waited for only once the sender is admitted, and is `None` if it cannot be
    /// read. `enqueue` puts the jobs on the queue, all of them or an error.
    ///
    /// # Panics
    ///
    /// Never.
    pub async fn receive<'a>(
        &self,
        request: Request<'_>,
        body: impl Future<Output = Option<Cow<'a, [u8]>>>,
        request_id: &str,
        deadline: Option<Instant>,
        enqueue: impl AsyncFnOnce(Vec<Job>) -> Result<(), Error>,
    ) -> Received {
        // The first request of a process waits for the tokens; the table comes meanwhile.
        let mut table = pin!(maybe_done(self.table.read()));
        let admitted = within(deadline, Stage::Token, self.admit(&request));
        let admitted = if self.tokens.are_known() {
            admitted.await
        } else {
            match select(pin!(admitted), table.as_mut()).await {
                Either::Left((admitted, _)) => admitted,
                Either::Right(((), admitted)) => admitted.await,
            }
        };
        let table = async move {
            table.as_mut().await;
            Ok(table.take_output().expect("it was waited for"))
        };
        match admitted {
            Ok(None) => {}
            Ok(Some(why)) => return Received::NotFound { why },
            Err(err) => return Received::Failed { err, push: None },
        }
        let Some(body) = body.await else {
            return Received::Malformed(ParseError::Unreadable);
        };
        let webhook = match Webhook::from_body(&body) {
            Ok(webhook) => webhook,
            Err(err) => return Received::Malformed(err),
        };
        if let (Webhook::PullRequest { repository, number }, Some(queue)) =
            (&webhook, &self.results)
        {
            let opened = self.opened(repository, *number, queue, request_id, deadline, table);
            return Box::pin(opened).await;
        }
        let push = match wanted(&webhook) {
            Ok(push) => push.clone(),
            Err(why) => {
                let push = webhook.push().cloned();
                return Received::Ignored { why, push };
            }
        };
        let reading = within(deadline, Stage::Routes, table).await;
        let jobs = reading
            .map_err(NoJobs::Unknown)
            .and_then(|reading| plan(&webhook, &reading, request_id));
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(NoJobs::Ignored(why)) => {
                let push = Some(push);
                return Received::Ignored { why, push };
            }
            Err(NoJobs::Unknown(err)) => {
                let push = Some(push);
                return Received::Failed { err, push };
            }
        };
        let routes = jobs.iter().map(|job| job.route.clone()).collect();
        match within(deadline, Stage::Queue, enqueue(jobs)).await {
            Ok(()) => Received::Accepted { push, routes },
            Err(err) => {
                let push = Some(push);
                Received::Failed { err, push }
            }
        }
    }

    /// Has somebody look at a pull request that was opened.
    async fn opened(
        &self,
        repository: &RepositoryName,
        number: i64,
        queue: &Sqs,
        request_id: &str,
        deadline: Option<Instant>,
        table: impl Future<Output = Result<Reading, Error>>,
    ) -> Received {
        let reading = within(deadline, Stage::Routes, table).await;
        let routes = reading
            .map_err(NoJobs::Unknown)
            .and_then(|reading| telling(repository, &reading));
        let routes = match routes {
            Ok(routes) => routes,
            Err(NoJobs::Ignored(why)) => return Received::Ignored { why, push: None },
            Err(NoJobs::Unknown(err)) => return Received::Failed { err, push: None },
        };
        let message = Message::Opened {
            repository: repository.clone(),
            number,
            request_id: request_id.to_owned(),
        };
        let body = message.body();
        let sent = queue.send_text(&body, results::GROUP);
        match within(deadline, Stage::Queue, sent).await {
            Ok(()) => Received::Opened {
                repository: repository.clone(),
                routes,
            },
            Err(err) => Received::Failed { err, push: None },
        }
    }

    /// Why the request is refused, if it is.
    async fn admit(&self, request: &Request<'_>) -> Result<Option<&'static str>, Error> {
        match self.candidate(request) {
            Ok(candidate) => {
                let admitted = self.tokens.admit(&candidate).await?;
                Ok((!admitted).then_some("a wrong token"))
            }
            Err(why) => {
                // While nobody's token can be told from a wrong one, the answer is the same everywhere, so that none shows
                // where the hook is.
                self.tokens.know().await?;
                Ok(Some(why))
            }
        }
    }

    /// What may be the token; or why there is none.
    fn candidate<'a>(&self, request: &Request<'a>) -> Result<Cow<'a, str>, &'static str> {
        if request.method != "POST" {
            return Err("no POST");
        }
        let path = request.path;
        let path = path.strip_suffix('/').unwrap_or(path);
        // A domain of the API's own may put a path in front.
        let (_, rest) = path.rsplit_once(HOOKS).ok_or("another path")?;
        let candidate = match rest.strip_prefix('/') {
            Some(token) => Some(Cow::Borrowed(token)),
            None if rest.is_empty() => {
                let password = request.authorization.and_then(basic_password);
                password.map(Cow::Owned)
            }
            None => return Err("another path"),
        };
        let candidate = candidate.ok_or("no token")?;
        if self.may_post(request.source_ip) {
            Ok(candidate)
        } else {
            Err("the address is not in ALLOWED_IPS")
        }
    }

    fn may_post(&self, ip: Option<IpAddr>) -> bool {
        let listed = |ip: IpAddr| self.allowed_ips.iter().any(|net| net.contains(&ip));
        // `::ffff:192.0.2.1` is how a socket for both families names an IPv4 address.
        self.allowed_ips.is_empty() || ip.is_some_and(|ip| listed(ip.to_canonical()))
    }
}

fn basic_password(authorization: &str) -> Option<String> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim());
    let decoded = String::from_utf8(decoded.ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

impl Received {
    /// What the sender is told.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let (status, body) = match self {
            Self::Accepted { routes, .. } | Self::Opened { routes, .. } => {
                (202, json!({ "accepted": routes }))
            }
            Self::Ignored { why, .. } => (200, json!({ "ignored": why.to_string() })),
            Self::NotFound { .. } => (404, json!({ "error": "not found" })),
            Self::Malformed(err @ ParseError::TooLarge { .. }) => {
                let error = json!({ "error": err.to_string() });
                (413, error)
            }
            Self::Malformed(err) => (400, json!({ "error": err.to_string() })),
            // What exactly is wrong is for the log.
            Self::Failed { .. } => (
                503,
                json!({ "error": "the bridge cannot take this now, send it again later" }),
            ),
        };
        let body = body.to_string();
        Answer { status, body }
    }

    /// Writes it into the log, and counts it. Nothing of the body and no part of the path: those hold names, addresses and
    /// tokens.
    pub fn log(&self, request_id: &str, took: Duration) {
        let line = RequestLine::new(self, request_id, took);
        let mut metrics = vec![Metric {
            name: Counted::Requests,
            count: 1,
            by: &[&["outcome"]],
        }];
        metrics.extend(line.error.as_ref().map(|fault| failures(fault.transient)));
        let level = if line.error.is_some() {
            Level::ERROR
        } else {
            Level::INFO
        };
        telemetry::record(level, &self.to_string(), &line, &metrics);
    }

    fn push(&self) -> Option<&PushEvent> {
        match self {
            Self::Accepted { push, .. } => Some(push),
            Self::Ignored { push, .. } | Self::Failed { push, .. } => push.as_ref(),
            Self::Opened { .. } | Self::NotFound { .. } | Self::Malformed(_) => None,
        }
    }
}

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.push() {
            Some(push) => write!(f, "webhook: {} {}: ", push.repository, push.ref_name)?,
            None => f.write_str("webhook: ")?,
        }
        match self {
            Self::Accepted { routes, .. } => write!(f, "accepted for {}", routes.join(", ")),
            Self::Opened { repository, routes } => {
                write!(
                    f,
                    "a pull request of {repository} was opened, for {}",
                    routes.join(", ")
                )
            }
            Self::Ignored { why, .. } => write!(f, "ignored: {why}"),
            Self::NotFound { why } => write!(f, "refused: {why}"),
            Self::Malformed(err) => write!(f, "malformed: {err}"),
            Self::Failed { err, .. } => write!(f, "failed: {}", chain(err)),
        }
    }
}

/// What became of a request, in a word.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answered {
    Accepted,
    Ignored,
    NotFound,
    Malformed,
    Failed,
}

/// A request's line in the log.
#[derive(Serialize)]
struct RequestLine<'a> {
    outcome: Answered,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    ref_name: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    routes: &'a [String],
    request_id: &'a str,
    duration_ms: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Fault>,
}

impl<'a> RequestLine<'a> {
    fn new(received: &'a Received, request_id: &'a str, took: Duration) -> Self {
        let (outcome, reason, error) = match received {
            Received::Accepted { .. } | Received::Opened { .. } => (Answered::Accepted, None, None),
            Received::Ignored { why, .. } => (Answered::Ignored, Some(why.to_string()), None),
            Received::NotFound { why } => (Answered::NotFound, Some((*why).to_owned()), None),
            Received::Malformed(err) => (Answered::Malformed, Some(err.to_string()), None),
            Received::Failed { err, .. } => (Answered::Failed, None, Some(err.into())),
        };
        Self {
            outcome,
            reason,
            status: received.answer().status,
            repository: match received {
                Received::Opened { repository, .. } => Some(repository.as_str()),
                received => received.push().map(|push| push.repository.as_str()),
            },
            ref_name: received.push().map(|push| push.ref_name.as_str()),
            routes: match received {
                Received::Accepted { routes, .. } | Received::Opened { routes, .. } => routes,
                _ => &[],
            },
            request_id,
            duration_ms: took.as_millis(),
            error,
        }
    }
}

/// Handles an event of API Gateway by `deadline`, logs what became of it, and makes its answer.
pub async fn handle(
    receiver: &Receiver,
    event: serde_json::Value,
    request_id: &str,
    deadline: Instant,
    enqueue: impl AsyncFnOnce(Vec<Job>) -> Result<(), Error>,
) -> serde_json::Value {
    let started = Instant::now();
    let envelope = Envelope::from(event);
    let request = envelope.request();
    let body = async { envelope.body() };
    // Boxed, or the compiler gives up on how deeply the futures of the SDK are nested.
    let outcome = Box::pin(receiver.receive(request, body, request_id, Some(deadline), enqueue));
    let outcome = outcome.await;
    outcome.log(request_id, started.elapsed());
    let Answer { status, body } = outcome.answer();
    json!({
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": body,
        "isBase64Encoded": false,
    })
}
