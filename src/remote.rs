//! A repository on a Git server: where a ref points, and one commit's pack. The home of `gix`'s network side; blocking.
//!
//! One connection serves a whole delivery: the handshake, `ls-refs`, `fetch`, and `ls-refs` again after the upload.

mod capped;

use std::{
    io::{self, Read},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gix::{
    ObjectId,
    progress::Discard,
    protocol::{
        Command, Handshake, LsRefsCommand,
        command::Feature,
        fetch::{Arguments, Response},
        handshake::Ref,
        ls_refs::RefPrefixes,
        transport::{
            Protocol, Service,
            client::{
                Account, TransportWithoutIO,
                blocking_io::{ExtendedBufRead, Transport, connect, http},
            },
            packetline::read::ProgressAction,
        },
    },
};

use self::capped::{Allowance, Capped, Pack};
use crate::{
    error::Error,
    push::{CommitId, RefName, RepositoryName},
    secrets::Login,
};

/// How we call ourselves in the protocol.
const AGENT: &str = concat!("backlog-bridge/", env!("CARGO_PKG_VERSION"));

/// What may follow a pack, in bytes: the end of the answer.
const DRAINED_BYTES: u64 = 64 * 1024;

/// How long the server may take for the answer to a small question, as a whole. Without this, one that sends a byte now and
/// then would hold us for ever: the HTTP client limits each read, not their sum.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

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
}

/// Where a ref points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// What the ref names itself: a commit, or an annotated tag. This is what a server gives without being asked twice.
    pub object: ObjectId,
    /// The commit, with tags peeled.
    pub commit: CommitId,
}

/// A connection to a repository, after the handshake.
pub struct Connection {
    remote: Remote,
    transport: Box<dyn Transport + Send>,
    handshake: Handshake,
    time_limit: TimeLimit,
    allowance: Allowance,
    /// Whether it was asked for refs before.
    is_used: bool,
}

impl Remote {
    /// Connects and says hello.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::AuthFailed`], [`Error::RepositoryNotFound`], [`Error::Fetch`].
    pub fn connect(&self) -> Result<Connection, Error> {
        let fail = |err: gix::Error| self.error(err);
        if let Some(path) = self.url.strip_prefix("file://") {
            // The process that would read it only says that it ended.
            std::fs::metadata(path).map_err(|err| Error::RepositoryNotFound {
                url: self.url.clone(),
                source: err.into(),
            })?;
        }
        let allowance = Allowance::default();
        let mut transport = self.transport(&allowance).map_err(fail)?;
        if let Some(login) = &self.login {
            // At once, not after a refusal: a request saved, and nobody is asked for a password.
            let account = Account {
                username: login.username.clone(),
                password: login.password.reveal().to_owned(),
                oauth_refresh_token: None,
            };
            transport
                .set_identity(account)
                .map_err(|err| self.error(gix::Error::from_error(err)))?;
        }
        let time_limit = TimeLimit::default();
        let options = http::Options {
            // A redirect would carry the password to whoever the server names.
            follow_redirects: http::options::FollowRedirects::None,
            backend: Some(time_limit.backend()),
            ..http::Options::default()
        };
        transport.configure(&options).map_err(fail)?;
        time_limit.set(Some(self.time_for_an_answer()));
        allowance.renew();
        let handshake = gix::protocol::handshake(
            &mut transport,
            Service::UploadPack,
            |_| Err(gix::error::unauthenticated("the login was refused").into()),
            Vec::new(),
            &mut Discard,
        )
        .map_err(|err| {
            // A web page or a redirect: most likely the address of something else.
            if err.is_unsupported() {
                let url = self.url.clone();
                Error::RepositoryNotFound {
                    url,
                    source: err.into(),
                }
            } else {
                fail(err)
            }
        })?;
        // Without this, what people read is that some id is too long.
        let format = handshake.capabilities.capability("object-format");
        if let Some(format) = format.and_then(|capability| capability.value())
            && format != "sha1"
        {
            let why = gix::error::message!("its object ids are {format}; only sha1 is supported");
            return Err(fail(why.into()));
        }
        Ok(Connection {
            remote: self.clone(),
            transport,
            handshake,
            time_limit,
            allowance,
            is_used: false,
        })
    }

    fn transport(&self, allowance: &Allowance) -> Result<Box<dyn Transport + Send>, gix::Error> {
        let version = Protocol::V2;
        if self.url.starts_with("http") {
            let url = gix::url::parse(self.url.as_str())?;
            let http = Capped::new(allowance.clone());
            let transport = http::Transport::new_http(http, url, version, false);
            return Ok(Box::new(transport));
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

    fn time_for_an_answer(&self) -> Duration {
        self.time_left()
            .map_or(ANSWER_WITHIN, |left| left.min(ANSWER_WITHIN))
    }

    fn error(&self, source: gix::Error) -> Error {
        let http = source.downcast_any_ref::<reqwest::Error>();
        let status = http.and_then(reqwest::Error::status);
        let (url, repository) = (self.url.clone(), self.repository.clone());
        if source.is_unauthenticated() || source.is_permission_denied() {
            let advice = match self.login {
                Some(_) => {
                    "check the user name and password of the space's credentials (an account with two-factor \
                     authentication needs the password that Backlog generates for Git)"
                }
                None => "it wants a login, so give the space credentials, such as \"env:BACKLOG\"",
            };
            Error::AuthFailed {
                repository,
                advice,
                source: source.into(),
            }
        } else if status == Some(reqwest::StatusCode::NOT_FOUND) {
            Error::RepositoryNotFound {
                url,
                source: source.into(),
            }
        } else if http.is_some_and(is_unreachable) {
            Error::Unreachable {
                url,
                source: source.into(),
            }
        } else {
            Error::Fetch {
                repository,
                transient: source.can_retry_lenient() || http.is_some_and(may_pass),
                source: source.into(),
            }
        }
    }
}

/// How long the next request may take as a whole, told to the HTTP client as each request begins.
#[derive(Clone, Default)]
struct TimeLimit(Arc<AtomicU64>);

impl TimeLimit {
    /// `None`: as long as it likes, while no single read takes longer than the client's 30 seconds.
    fn set(&self, limit: Option<Duration>) {
        let millis = limit.map_or(0, |limit| {
            u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)
        });
        self.0.store(millis, Relaxed);
    }

    fn backend(&self) -> Arc<Mutex<http::reqwest::Options>> {
        let limit = self.clone();
        Arc::new(Mutex::new(http::reqwest::Options {
            configure_request: Some(Box::new(move |request| {
                let millis = limit.0.load(Relaxed);
                *request.timeout_mut() = (millis > 0).then(|| Duration::from_millis(millis));
                Ok(())
            })),
            ..http::reqwest::Options::default()
        }))
    }
}

fn is_unreachable(err: &reqwest::Error) -> bool {
    err.is_connect() || err.is_timeout()
}

/// What `gix` takes for permanent and is not: a connection that was closed instead of an answer, as servers do with idle
/// ones; and answers that ask for patience.
fn may_pass(err: &reqwest::Error) -> bool {
    match err.status() {
        Some(status) => matches!(
            status,
            reqwest::StatusCode::REQUEST_TIMEOUT | reqwest::StatusCode::TOO_MANY_REQUESTS
        ),
        None => err.is_request() || err.is_body(),
    }
}

impl Connection {
    /// Where this connection leads.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Where `name` points now; `None` if there is no such ref.
    ///
    /// # Errors
    ///
    /// [`Error`] if the server cannot be asked, or the ref leads to no commit.
    pub fn tip(&mut self, name: &RefName) -> Result<Option<Tip>, Error> {
        let refs = self.refs(&[name.as_str().to_owned()])?;
        Ok(refs
            .into_iter()
            .find(|(found, _)| found == name.as_str())
            .map(|(_, tip)| tip))
    }

    /// All refs whose full names begin with one of `wanted`. Names that are not UTF-8 cannot be routed and are left out.
    ///
    /// # Errors
    ///
    /// [`Error`] if the server cannot be asked.
    pub fn refs(&mut self, wanted: &[String]) -> Result<Vec<(String, Tip)>, Error> {
        // A process at the other end of a pipe goes on seeing the refs as it saw them first.
        let is_stale = self
            .transport
            .connection_persists_across_multiple_requests()
            || self.handshake.server_protocol_version != Protocol::V2;
        if self.is_used && is_stale {
            *self = self.remote.connect()?;
        }
        self.is_used = true;
        self.time_limit.set(Some(self.remote.time_for_an_answer()));
        self.allowance.renew();
        let refs = if self.handshake.server_protocol_version == Protocol::V2 {
            let mut prefixes = RefPrefixes::new();
            prefixes.extend(wanted.iter().map(|prefix| prefix.as_str().into()));
            let agent = ("agent", Some(AGENT.into()));
            LsRefsCommand::new(Some(prefixes), &self.handshake.capabilities, agent)
                .invoke_blocking(&mut self.transport, &mut Discard, false)
                .map_err(|err| self.remote.error(err))?
        } else {
            self.handshake.refs.take().unwrap_or_default()
        };
        let tip = |r: Ref| {
            let (name, object, peeled) = match r {
                Ref::Direct {
                    full_ref_name,
                    object,
                } => (full_ref_name, object, object),
                Ref::Peeled {
                    full_ref_name,
                    tag,
                    object,
                } => (full_ref_name, tag, object),
                Ref::Symbolic {
                    full_ref_name,
                    tag,
                    object,
                    ..
                } => (full_ref_name, tag.unwrap_or(object), object),
                Ref::Unborn { .. } => return None,
            };
            let name = String::from_utf8(name.into())
                .ok()
                .filter(|name| wanted.iter().any(|prefix| name.starts_with(prefix)))?;
            Some((
                name,
                Tip {
                    object,
                    commit: peeled.into(),
                },
            ))
        };
        Ok(refs.into_iter().filter_map(tip).collect())
    }

    /// Whether the server can leave out of a pack what is in a commit that we have without its history.
    #[must_use]
    pub fn can_fetch_changes(&self) -> bool {
        let features = self.features();
        let has = |name: &str| features.iter().any(|(feature, _)| *feature == name);
        // Protocol v2 has thin packs always.
        let is_v2 = self.handshake.server_protocol_version == Protocol::V2;
        has("shallow") && (is_v2 || has("thin-pack"))
    }

    fn features(&self) -> Vec<Feature> {
        let version = self.handshake.server_protocol_version;
        let mut features = Command::Fetch.default_features(version, &self.handshake.capabilities);
        // The fetch needs no filter; and what is not asked for cannot surprise.
        features.retain(|(name, _)| *name != "filter");
        features.push(("agent", Some(AGENT.into())));
        features
    }

    /// Fetches `tip` without its history, and hands the pack to `receive` as it comes.
    ///
    /// With `have`, a commit that we have without its history, the pack leaves out what is in that one, and its deltas may
    /// stand on it. A server that does not know the commit sends everything. Only where
    /// [`can_fetch_changes`](Self::can_fetch_changes).
    ///
    /// # Errors
    ///
    /// The outer [`Error`] if the server does not send a pack; the inner result is what `receive` returned.
    pub fn fetch<T>(
        &mut self,
        tip: &Tip,
        have: Option<CommitId>,
        receive: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, Error> {
        let remote = self.remote.clone();
        let version = self.handshake.server_protocol_version;
        let features = self.features();
        let fail = |err: gix::Error| remote.error(err);
        Response::check_required_features(version, &features).map_err(fail)?;
        let mut arguments = Arguments::new(version, features, false);
        arguments.want(tip.object);
        if let Some(have) = have {
            arguments.have(have.object_id());
            // Without this the server believes that we have all of its history too.
            arguments.shallow(have.object_id());
        }
        if arguments.can_use_deepen() {
            // With a commit to start from too: otherwise the server sends the history in between.
            arguments.deepen(1);
        }
        self.time_limit.set(remote.time_left());
        self.allowance.renew();
        let mut reader = arguments
            .send(&mut self.transport, true)
            .map_err(|err| fail(gix::Error::from_error(err)))?;
        let response =
            Response::from_line_reader(version, &mut reader, true, false).map_err(fail)?;
        if !response.has_pack() {
            return Err(fail(gix::error::message("the server sent no pack").into()));
        }
        // With a handler set, what the reader yields is the bare pack.
        reader.set_progress_handler(Some(Box::new(|_, _| ProgressAction::Continue(()))));
        let allowance = &self.allowance;
        let mut pack = Pack {
            wire: &mut reader,
            allowance,
        };
        let received = receive(&mut pack);
        // The connection serves another request only once this answer is read to its end, which is a few bytes away. If it
        // is not, the connection is of no more use, and the next request says so.
        io::copy(&mut reader.take(DRAINED_BYTES), &mut io::sink()).ok();
        Ok(received)
    }
}
