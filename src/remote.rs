//! A repository on a Git server: where a ref points, and one commit's pack. The home of `gix`'s network side; blocking.
//!
//! One connection serves a whole delivery: the handshake, `ls-refs`, `fetch`, and `ls-refs` again after the upload.

mod capped;
mod connection;
mod connections;
mod front;
mod greet;
mod http;
mod wanted;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gix::{
    ObjectId,
    progress::Discard,
    protocol::transport::{
        Protocol, Service,
        client::{
            Account,
            blocking_io::{Transport, connect, http::Transport as OverHttp},
        },
    },
};

use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use self::{
    capped::{About, Allowance},
    http::{Conversation, TimeLimit},
};
pub use self::{
    connection::Connection, connections::Connections, greet::LfsAnswer, wanted::Wanted,
};
use crate::{
    error::{CHECK_NETWORK, Error, Refused, Silent, Source, chain, host},
    network::{self, AGENT, Distrust},
    plain,
    push::{CommitId, RepositoryName},
    secrets::Login,
};

/// How long the server may take to say hello and to list refs, as a whole. Without this, one that sends a byte now and then
/// would hold us for ever: the HTTP client limits each read, not their sum.
const REFS_WITHIN: Duration = Duration::from_mins(2);

/// How long after the deadline a request ends at the latest. Whoever waits for it has gone by then; this is so that its
/// thread goes too.
const GRACE: Duration = Duration::from_secs(1);

/// A repository on a Git server.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The address, from the routing table only. Holds no credentials.
    pub url: String,
    /// The repository's name, for messages.
    pub repository: RepositoryName,
    /// Who we are; `None` for nobody.
    pub login: Option<Login>,
    /// When a request must be over, if ever.
    pub deadline: Option<Instant>,
    /// How many bytes of answers came.
    pub heard: Heard,
    /// Connections to the host, which others may share.
    pub connections: Connections,
}

/// How many bytes came of a server's answers, for whoever waits for one.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<AtomicU64>);

/// How often somebody who waits for an answer looks whether it comes.
const LISTEN_EVERY: Duration = Duration::from_millis(250);

impl Heard {
    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// Waits until no byte has come for `patience`.
    pub(crate) async fn nothing_for(&self, patience: Duration) {
        let mut heard = (self.0.load(Relaxed), Instant::now());
        while heard.1.elapsed() < patience {
            tokio::time::sleep(LISTEN_EVERY.min(patience)).await;
            let now = self.0.load(Relaxed);
            if now != heard.0 {
                heard = (now, Instant::now());
            }
        }
    }
}

/// Where a ref points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// What the ref names itself: a commit, or an annotated tag. This is what a server gives without being asked twice.
    pub object: ObjectId,
    /// The commit, with tags peeled.
    pub commit: CommitId,
}

impl Remote {
    /// Connects and says hello.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::AuthFailed`], [`Error::RepositoryNotFound`], [`Error::Fetch`].
    pub fn connect(&self) -> Result<Connection, Error> {
        self.connect_for(&Wanted::default())
    }

    /// The same, where the refs will be asked for that are wanted: before protocol v2, the server shows all refs at once.
    pub(crate) fn connect_for(&self, wanted: &Wanted) -> Result<Connection, Error> {
        let fail = |err: gix::Error| self.error(&err);
        if let Some(path) = self.url.strip_prefix("file://") {
            // The process that would read it only says that it ended.
            std::fs::metadata(path).map_err(|err| Error::RepositoryNotFound {
                url: self.url.clone(),
                source: err.into(),
            })?;
        }
        let (allowance, time_limit) = (Allowance::new(self.heard.clone()), TimeLimit::default());
        let mut transport = self.transport(&time_limit, &allowance).map_err(fail)?;
        if let Some(login) = &self.login {
            // At once, not after a refusal: a request saved, and nobody is asked for a password.
            let account = Account {
                username: login.username.clone(),
                password: login.password.reveal().to_owned(),
                oauth_refresh_token: None,
            };
            transport
                .set_identity(account)
                .map_err(|err| self.error(&gix::Error::from_error(err)))?;
        }
        time_limit.set(Some(self.time_for_refs()));
        allowance.renew_for(wanted, true);
        let handshake = gix::protocol::handshake(
            &mut transport,
            Service::UploadPack,
            |_| Err(gix::error::unauthenticated("the login was refused").into()),
            Vec::new(),
            &mut Discard,
        )
        .map_err(|err| {
            if allowance.has_long_ids() {
                return self.unsupported("sha256");
            }
            if allowance.said().is_some() {
                return self.error_of_refs(&err, &allowance);
            }
            // A web page or a redirect: most likely the address of something else.
            if err.is_unsupported() && status_of(&err).is_none() {
                let url = self.url.clone();
                let source = self
                    .no_refs(&allowance.about())
                    .map_or_else(|| words(&err), Into::into);
                Error::RepositoryNotFound { url, source }
            } else {
                self.error_of_refs(&err, &allowance)
            }
        })?;
        // Without this, what people read is that some id is too long.
        let format = handshake.capabilities.capability("object-format");
        if let Some(format) = format.and_then(|capability| capability.value())
            && format != "sha1"
        {
            return Err(self.unsupported(&plain::foreign(&format.to_string())));
        }
        Ok(Connection {
            remote: self.clone(),
            transport,
            handshake,
            time_limit,
            allowance,
            shown: Some(wanted.clone()),
        })
    }

    fn transport(
        &self,
        time_limit: &TimeLimit,
        allowance: &Allowance,
    ) -> Result<Box<dyn Transport + Send>, gix::Error> {
        let version = Protocol::V2;
        if self.url.starts_with("http") {
            let url = gix::url::parse(self.url.as_str())?;
            let (time_limit, allowance) = (time_limit.clone(), allowance.clone());
            let http = Conversation::over(self.connections.clone(), time_limit, allowance);
            return Ok(Box::new(OverHttp::new_http(http, url, version, false)));
        }
        let options = connect::Options {
            version,
            ..connect::Options::default()
        };
        connect::connect(self.url.as_str(), options)
    }

    /// What is left until the deadline, if there is one.
    fn time_left(&self) -> Option<Duration> {
        let left = |at: Instant| at.saturating_duration_since(Instant::now()) + GRACE;
        self.deadline.map(left)
    }

    fn time_for_refs(&self) -> Duration {
        let left = self.time_left();
        left.map_or(REFS_WITHIN, |left| left.min(REFS_WITHIN))
    }

    /// Why no refs could be had. Somebody may have made very many of them, and they may go again.
    fn error_of_refs(&self, source: &gix::Error, allowance: &Allowance) -> Error {
        if let Some(said) = allowance.said() {
            return Error::Fetch {
                repository: self.repository.clone(),
                transient: false,
                source: said.into(),
            };
        }
        match self.error_after_hello(source) {
            Error::Fetch {
                repository, source, ..
            } if allowance.is_spent() => Error::Fetch {
                repository,
                transient: true,
                source,
            },
            Error::Fetch {
                repository,
                source: words,
                ..
            } if has_too_much_to_do(source) => Error::Busy {
                repository,
                wait: allowance.about().retry_after.and_then(|after| wait(&after)),
                source: words,
            },
            err => err,
        }
    }

    /// An answer to a fetch that is no pack. The server has shown the commit a moment ago: one that says now that it does not
    /// have it, and is not cut off, may have asked another machine, which is behind.
    fn refusal(&self, source: &gix::Error, allowance: &Allowance) -> Error {
        if let Some(said) = allowance.said() {
            let (repository, source) = (self.repository.clone(), said.into());
            return Error::NotGiven { repository, source };
        }
        let is_said = source.downcast_any_ref::<std::io::Error>().is_none();
        match self.error_after_hello(source) {
            Error::Fetch {
                repository, source, ..
            } if is_said => Error::NotGiven { repository, source },
            err => err,
        }
    }

    /// A web page in the middle of a conversation: the server has said hello, and is being looked after now.
    fn error_after_hello(&self, source: &gix::Error) -> Error {
        let is_page = source.is_unsupported() && status_of(source).is_none();
        match self.error(source) {
            Error::Fetch {
                repository,
                transient,
                source,
            } => Error::Fetch {
                repository,
                transient: transient || is_page,
                source,
            },
            err => err,
        }
    }

    /// A repository whose object ids are of another kind.
    fn unsupported(&self, format: &str) -> Error {
        Error::Fetch {
            repository: self.repository.clone(),
            transient: false,
            source: format!("its object ids are {format}; only sha1 is supported").into(),
        }
    }

    /// What came instead of refs, as its headers say; `None` if they say that it is refs.
    fn no_refs(&self, about: &About) -> Option<String> {
        if let Some(to) = &about.redirect {
            return Some(self.redirected(to));
        }
        match about.content_type.as_deref() {
            Some(kind) if kind.contains("git") => None,
            Some(kind) if kind.contains("html") => {
                Some("it shows a web page, as a login page or a proxy does".into())
            }
            Some(kind) => Some(format!(
                "it answers with {}, which is none of Git's",
                plain::foreign(kind)
            )),
            None => Some("its answer is empty, or does not say what it is".into()),
        }
    }

    /// What is said of a redirect: whoever follows one would carry the password to whoever the server names.
    fn redirected(&self, to: &str) -> String {
        let shown = plain::foreign(to);
        // What follows the space's URL.
        let mut parts = self.url.rsplitn(3, '/');
        let [repository, project] = [parts.next(), parts.next()].map(Option::unwrap_or_default);
        let below = format!("/{project}/{repository}");
        match to.split_once(&below) {
            Some((space, _)) if space.starts_with("https://") => format!(
                "it redirects to {shown}, and no redirect is followed; if the space has moved there, write url = \"{}\"",
                plain::foreign(space)
            ),
            _ => format!("it redirects to {shown}, and no redirect is followed"),
        }
    }

    fn error(&self, source: &gix::Error) -> Error {
        let http = source.downcast_any_ref::<reqwest::Error>();
        let status = http.and_then(reqwest::Error::status);
        let (url, repository) = (self.url.clone(), self.repository.clone());
        if source.is_unauthenticated() || source.is_permission_denied() {
            let refused = if source.is_permission_denied() {
                Refused::Access
            } else {
                Refused::Login
            };
            let advice = match self.login {
                Some(_) => {
                    "check the user name and password of the space's credentials (on Backlog the user name is the account's \
                     e-mail address; with two-factor authentication the password is the one that Backlog generates for Git)"
                }
                None => "it wants a login, so give the space credentials, such as \"env:BACKLOG\"",
            };
            return Error::AuthFailed {
                repository,
                advice,
                refused,
                source: words(source),
            };
        }
        match status.map(|status| status.as_u16()) {
            Some(404 | 410 | 451) => {
                return Error::RepositoryNotFound {
                    url,
                    source: words(source),
                };
            }
            // Of a proxy that opens TLS, and of a network that lets nobody out before a login.
            Some(407 | 511) => return self.shut_out(words(source)),
            _ => {}
        }
        if let Some(unreachable) = http.and_then(|http| self.unreachable(http)) {
            return unreachable;
        }
        Error::Fetch {
            repository,
            transient: source.can_retry_lenient() || http.is_some_and(may_pass),
            source: words(source),
        }
    }

    /// Why nobody answered, if that is what happened.
    fn unreachable(&self, http: &reqwest::Error) -> Option<Error> {
        let url = self.url.clone();
        if let Some(Distrust { why, advice }) = Distrust::of(http, "SSL_CERT_FILE") {
            return Some(Error::Unreachable {
                url,
                advice: advice.into(),
                silent: Silent::Host,
                source: why.into(),
            });
        }
        let silent = silent(http)?;
        let source = said(http);
        let (silent, advice) = match network::proxy_of(&self.url) {
            Some(_) if network::is_proxy_login(&source) => {
                return Some(self.shut_out(source.into()));
            }
            Some(proxy) => (silent, network::through(&proxy, &source).into()),
            None => (silent, CHECK_NETWORK),
        };
        Some(Error::Unreachable {
            url,
            advice,
            silent,
            source: source.into(),
        })
    }

    /// Somebody on the way wants a login.
    fn shut_out(&self, source: Source) -> Error {
        let advice = match network::proxy_of(&self.url) {
            Some(proxy) => network::through(&proxy, network::PROXY_LOGIN),
            None => "the network wants a login first: log in with a web browser".into(),
        };
        Error::Unreachable {
            url: self.url.clone(),
            advice: advice.into(),
            silent: Silent::Proxy,
            source,
        }
    }
}

/// How long a host may take to let itself be connected to.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Whether a host lets itself be connected to, of which a repository gives no answer.
pub(crate) async fn answers(url: &str) -> bool {
    let client = network::http_client(url)
        .connect_timeout(CONNECT_WITHIN)
        .timeout(2 * CONNECT_WITHIN);
    let Ok(client) = client.build() else {
        return true;
    };
    let asked = client.head(host(url)).send().await;
    !asked.is_err_and(|err| err.is_connect())
}

/// Whether the server asks for patience, whoever asks.
fn has_too_much_to_do(source: &gix::Error) -> bool {
    use reqwest::StatusCode as Of;
    matches!(
        status_of(source),
        Some(Of::TOO_MANY_REQUESTS | Of::SERVICE_UNAVAILABLE)
    )
}

/// How long a `Retry-After` asks to wait: seconds, or until an instant.
fn wait(after: &str) -> Option<Duration> {
    if let Ok(seconds) = after.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = OffsetDateTime::parse(after.trim(), &Rfc2822).ok()?;
    Some(
        (until - OffsetDateTime::now_utc())
            .try_into()
            .unwrap_or_default(),
    )
}

/// The status of the answer, where that was an error.
fn status_of(err: &gix::Error) -> Option<reqwest::StatusCode> {
    err.downcast_any_ref::<reqwest::Error>()?.status()
}

/// What `gix` says, and through it the server, without the address: the message holds that already.
fn words(source: &gix::Error) -> Source {
    if let Some(http) = source.downcast_any_ref::<reqwest::Error>() {
        return said(http).into();
    }
    // The first says only what was being done.
    let cause = std::error::Error::source(source);
    plain::foreign(&cause.map_or_else(|| source.to_string(), chain)).into()
}

/// What the HTTP client says.
fn said(http: &reqwest::Error) -> String {
    let Some(status) = http.status() else {
        let said = network::last_cause(http).unwrap_or_else(|| "no answer came in time".into());
        return plain::foreign(&said);
    };
    let later =
        if may_pass(http) || (status.is_server_error() && !matches!(status.as_u16(), 501 | 511)) {
            ", try again later"
        } else {
            ""
        };
    format!("the server answers {status}{later}")
}

/// Who did not answer, if that is what happened.
fn silent(err: &reqwest::Error) -> Option<Silent> {
    let timeout = || err.is_timeout().then_some(Silent::Repository);
    err.is_connect().then_some(Silent::Host).or_else(timeout)
}

/// What `gix` takes for permanent and is not: a connection that was closed instead of an answer, as servers do with idle
/// ones; and answers that ask for patience.
fn may_pass(err: &reqwest::Error) -> bool {
    match err.status() {
        Some(status) => matches!(
            status,
            reqwest::StatusCode::REQUEST_TIMEOUT
                | reqwest::StatusCode::TOO_EARLY
                | reqwest::StatusCode::TOO_MANY_REQUESTS
        ),
        None => err.is_request() || err.is_body(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_to_wait_in_seconds_or_until_when() {
        let seconds = |after: &str| wait(after).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(
            seconds("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(0),
            "it is over"
        );
        let in_a_minute = OffsetDateTime::now_utc() + Duration::from_secs(61);
        let until = in_a_minute.format(&Rfc2822).unwrap();
        assert!(
            seconds(&until.replace("+0000", "GMT")).is_some_and(|wait| (50..=61).contains(&wait))
        );
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(nonsense), None, "{nonsense:?}");
        }
    }
}
