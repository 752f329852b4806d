//! Why Backlog's API did not do what it was asked, and what to do about it.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::{
    error::{CHECK_NETWORK, Source},
    network::{self, Distrust},
    plain,
};

/// How long Backlog's limits count, if an answer does not say when they end.
const LIMIT_LASTS: Duration = Duration::from_mins(1);

/// A request to Backlog's API failed. Neither the text nor its causes hold a key, a token or a URL that may hold one.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} in {host}; {advice}")]
pub struct ApiError {
    /// What is wrong.
    pub fault: Fault,
    /// What was asked for, such as "list the webhooks of APP".
    pub(super) doing: String,
    /// The space's host.
    pub(super) host: String,
    advice: String,
    source: Source,
}

/// What is wrong with a request, or with who answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The key is wrong, or of another space (code 11).
    WrongKey,
    /// The space demands two-factor authentication of the key's owner (code 12).
    TwoFactor,
    /// The space does not let this machine's address in (code 4).
    Address,
    /// The key's owner has not the role for it (code 5).
    Role,
    /// It is not there, or the key's owner is no member (code 6).
    NotThere,
    /// Too many requests in this minute (code 13): how long to wait.
    Wait(Duration),
    /// Backlog refuses it for another reason.
    Refused,
    /// Whoever answered is not Backlog's API: a web page, a redirect, an answer that is too long or no JSON.
    NoApi,
    /// Backlog has a fault of its own (a status of 500 and more).
    Server,
    /// There was no connection: name, network, proxy, certificate.
    Unreachable,
    /// There was a connection, and no answer, or not all of one in time.
    NoAnswer,
}

/// What Backlog says of an error.
#[derive(Deserialize)]
struct Said {
    errors: Vec<SaidOne>,
}

#[derive(Deserialize)]
struct SaidOne {
    message: Option<String>,
    code: Option<i64>,
}

impl Fault {
    /// A word for programs.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::WrongKey => "wrong_key",
            Self::TwoFactor => "two_factor",
            Self::Address => "address",
            Self::Role => "role",
            Self::NotThere => "not_there",
            Self::Wait(_) => "wait",
            Self::Refused => "refused",
            Self::NoApi => "no_api",
            Self::Server => "server",
            Self::Unreachable => "unreachable",
            Self::NoAnswer => "no_answer",
        }
    }
}

impl ApiError {
    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.fault,
            Fault::Wait(_) | Fault::Server | Fault::Unreachable | Fault::NoAnswer
        )
    }

    /// Whether every other request to the space fails in the same way.
    #[must_use]
    pub fn is_of_the_space(&self) -> bool {
        matches!(
            self.fault,
            Fault::WrongKey
                | Fault::TwoFactor
                | Fault::Address
                | Fault::Wait(_)
                | Fault::Unreachable
        )
    }

    /// Whether a change that was asked for may have been made all the same.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        matches!(self.fault, Fault::NoApi | Fault::Server | Fault::NoAnswer)
    }
}

/// What was asked of whom, for the errors of one request.
pub(super) struct Asked<'a> {
    pub(super) doing: &'a str,
    pub(super) host: &'a str,
    /// The URL of the API, without a query.
    pub(super) base: &'a str,
    /// What an answer may repeat, and no message.
    pub(super) secrets: &'a [&'a str],
}

impl Asked<'_> {
    pub(super) fn error(
        &self,
        fault: Fault,
        advice: impl Into<String>,
        source: impl Into<Source>,
    ) -> ApiError {
        ApiError {
            fault,
            doing: self.doing.to_owned(),
            host: self.host.to_owned(),
            advice: advice.into(),
            source: source.into(),
        }
    }

    /// There was no answer, or not all of one.
    pub(super) fn unanswered(&self, err: &reqwest::Error) -> ApiError {
        if let Some(Distrust { why, advice }) = Distrust::of(err, "SSL_CERT_FILE") {
            return self.error(Fault::Unreachable, advice, why);
        }
        let said = network::last_cause(err).map(|said| plain::foreign(&said));
        let said = said.unwrap_or_else(|| "no answer came in time".into());
        let fault = if err.is_connect() {
            Fault::Unreachable
        } else {
            Fault::NoAnswer
        };
        let advice = match network::proxy_of(self.base) {
            Some(proxy) => network::through(&proxy, &said),
            None if fault == Fault::Unreachable => CHECK_NETWORK.to_string(),
            None => "try again later".into(),
        };
        self.error(fault, advice, said)
    }

    /// There was an answer, and it is no success.
    pub(super) fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiError {
        if status.is_redirection() {
            let to = headers.get(header::LOCATION);
            let to = to.and_then(|to| to.to_str().ok()).map_or_else(
                || "elsewhere".to_owned(),
                |to| self.hide(to.split(['?', '#']).next().unwrap_or_default()),
            );
            let said = format!("it redirects to {to}, and no redirect is followed");
            return self.error(Fault::NoApi, CHECK_URL, said);
        }
        let said = serde_json::from_slice::<Said>(body).ok();
        let said = said.and_then(|said| said.errors.into_iter().next());
        let code = said.as_ref().and_then(|said| said.code);
        let words = match &said {
            Some(said) => {
                let message = said.message.as_deref().unwrap_or_default();
                let code = code.map(|code| format!(" (code {code})"));
                format!("{}{}", self.hide(message), code.unwrap_or_default())
            }
            None => format!("the answer has the status {status} and is none of the API"),
        };
        let (fault, advice) = match (code, status.as_u16()) {
            (Some(11), _) | (None, 401) => (
                Fault::WrongKey,
                "the API key is wrong, or of another space: keys are made in that space's Personal settings, under API".into(),
            ),
            (Some(12), _) => (
                Fault::TwoFactor,
                "the space demands two-factor authentication, so the owner of the API key has to turn it on".into(),
            ),
            (Some(4), _) => (
                Fault::Address,
                "the space lets in only some addresses, and this machine's is none of them: an administrator adds it in the space's \
                 settings. A Lambda function has no fixed address, so it needs a VPC with a NAT gateway, whose address is added"
                    .into(),
            ),
            (Some(5), _) => (
                Fault::Role,
                "the owner of the API key may not do that: ask an administrator of the project".into(),
            ),
            (Some(6), _) => (
                Fault::NotThere,
                "it is not there, or the owner of the API key is no member of the project".into(),
            ),
            (Some(13), _) | (None, 429) => {
                let wait = wait(headers);
                let advice = format!("too many requests in one minute: wait for {} s and try again", wait.as_secs());
                (Fault::Wait(wait), advice)
            }
            (Some(2 | 3), _) => (
                Fault::Refused,
                "the space's licence does not allow it, or has expired: ask an administrator of the space".into(),
            ),
            // Of a proxy that opens TLS, and of a network that lets nobody out before a login.
            (None, 407 | 511) => {
                let advice = match network::proxy_of(self.base) {
                    Some(proxy) => network::through(&proxy, network::PROXY_LOGIN),
                    None => "the network wants a login first: log in with a web browser".into(),
                };
                (Fault::Unreachable, advice)
            }
            (_, 500..) => (Fault::Server, "try again later".into()),
            (Some(_), _) => (Fault::Refused, "read what Backlog says".into()),
            (None, _) => (Fault::NoApi, CHECK_URL.into()),
        };
        self.error(fault, advice, words)
    }

    /// There was a success whose answer is of no use.
    pub(super) fn no_api(&self, why: &str) -> ApiError {
        self.error(Fault::NoApi, CHECK_URL, why.to_owned())
    }

    /// A text of somebody else without what may not be shown.
    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "[hidden]");
        }
        plain::foreign(&text)
    }
}

const CHECK_URL: &str =
    "whoever answers there is not Backlog's API: check the space's `url`, and what is in between";

/// How long to wait before the limits count anew. Headers say when, in seconds of Unix time.
fn wait(headers: &HeaderMap) -> Duration {
    let reset = headers.get("x-ratelimit-reset");
    let reset = reset.and_then(|reset| reset.to_str().ok()?.trim().parse::<i64>().ok());
    let left = reset.map(|reset| reset - OffsetDateTime::now_utc().unix_timestamp());
    let left = left.and_then(|left| u64::try_from(left.max(1)).ok());
    left.map_or(LIMIT_LASTS, |left| {
        Duration::from_secs(left).min(LIMIT_LASTS)
    })
}
