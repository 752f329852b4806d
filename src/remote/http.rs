//! HTTP as `gix` wants it spoken, one request after the other, by the thread that reads the answer.
//!
//! The client inside `gix` begins a thread and connections of its own for each repository, hands every 8 KiB from thread to
//! thread, and drops the headers of a refusal. Here, repositories of a host may share connections, and what a server asks
//! for that has too much to do is known.

use std::{
    any::Any,
    io::{self, BufRead, BufReader, Cursor, Read, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use gix::{
    error::{Class, ClassificationMarker, ErrorExt, message},
    protocol::transport::client::{
        AuthenticationRequired,
        blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse},
    },
};
use reqwest::{
    StatusCode,
    blocking::{Client, RequestBuilder, Response},
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};

use super::capped::{About, Allowance, Body};
use crate::network;

/// How long a host may take to let itself be connected to.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// How much of an answer is read at once, in bytes.
const READ_AHEAD: usize = 64 << 10;

/// Connections to a host, made when they are needed and kept for the next request. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<OnceLock<Kept>>);

/// A client. Its end waits for its thread, and that for a name server which may never answer; so nobody waits for its end.
#[derive(Debug)]
struct Kept(Option<Client>);

impl Drop for Kept {
    fn drop(&mut self) {
        let client = self.0.take();
        thread::Builder::new().spawn(|| drop(client)).ok();
    }
}

impl Connections {
    /// Whether there may be some already.
    pub(crate) fn are_kept(&self) -> bool {
        self.0.get().is_some()
    }

    /// Those to the host of `url`. Blocking.
    fn to(&self, url: &str) -> Result<&Client, reqwest::Error> {
        let kept = if let Some(kept) = self.0.get() {
            kept
        } else {
            let made = Kept(Some(client(url)?));
            self.0.get_or_init(|| made)
        };
        Ok(kept.0.as_ref().expect("until it is dropped"))
    }
}

fn client(url: &str) -> Result<Client, reqwest::Error> {
    let client = Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .http1_title_case_headers()
        // A redirect would carry the password to whoever the server names.
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge(network::authorities_for_git(url));
    let client = if network::is_proxy_off() {
        client.no_proxy()
    } else {
        client
    };
    client.build()
}

/// How long the next request may take as a whole, told to the HTTP client as each request begins.
#[derive(Clone, Default)]
pub(super) struct TimeLimit(Arc<AtomicU64>);

impl TimeLimit {
    /// `None`: as long as it likes, while no single read takes longer than the client's 30 seconds.
    pub(super) fn set(&self, limit: Option<Duration>) {
        let millis = limit.map_or(0, |limit| {
            u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)
        });
        self.0.store(millis, Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        let millis = self.0.load(Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }
}

/// The HTTP client of one conversation.
pub(super) struct Conversation {
    connections: Connections,
    time_limit: TimeLimit,
    allowance: Allowance,
}

impl Conversation {
    pub(super) fn over(
        connections: Connections,
        time_limit: TimeLimit,
        allowance: Allowance,
    ) -> Self {
        Self {
            connections,
            time_limit,
            allowance,
        }
    }

    fn client(&self, url: &str) -> Result<&Client, gix::Error> {
        self.connections.to(url).map_err(gix::Error::from_error)
    }

    fn begin(
        &self,
        request: RequestBuilder,
        posted: Option<Vec<u8>>,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Exchange {
        let pairs = headers.into_iter().filter_map(|header| {
            let (name, value) = header.as_ref().split_once(':')?;
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::try_from(value.trim()).ok()?))
        });
        let request = Box::new(Request {
            builder: request.headers(pairs.collect()),
            posted,
            time_limit: self.time_limit.clone(),
            allowance: self.allowance.clone(),
        });
        Exchange(Arc::new(Mutex::new(State::New(request))))
    }

    fn body(&self, exchange: Exchange) -> Body {
        Body::new(
            Answer {
                exchange,
                body: None,
                _connections: self.connections.clone(),
            },
            &self.allowance,
        )
    }
}

impl Http for Conversation {
    type Headers = Headers;
    type ResponseBody = Body;
    type PostBody = Exchange;

    fn get(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<GetResponse<Headers, Body>, gix::Error> {
        let exchange = self.begin(self.client(url)?.get(url), None, headers);
        Ok(GetResponse {
            headers: Headers::of(exchange.clone()),
            body: self.body(exchange),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        // Whatever we say is short.
        _kind: PostBodyDataKind,
    ) -> Result<PostResponse<Headers, Body, Exchange>, gix::Error> {
        let exchange = self.begin(self.client(url)?.post(url), Some(Vec::new()), headers);
        Ok(PostResponse {
            post_body: exchange.clone(),
            headers: Headers::of(exchange.clone()),
            body: self.body(exchange),
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> Result<(), gix::Error> {
        Ok(())
    }
}

/// A request and its answer. What is written is the request's body; it is sent when somebody reads.
#[derive(Clone)]
pub(super) struct Exchange(Arc<Mutex<State>>);

enum State {
    /// It is not sent yet.
    New(Box<Request>),
    /// The headers are read before the body.
    Answered(Response),
    /// The answer is somebody's, or there is none.
    Over,
}

/// A request as it will be sent.
struct Request {
    builder: RequestBuilder,
    /// Its body, if it has one.
    posted: Option<Vec<u8>>,
    time_limit: TimeLimit,
    allowance: Allowance,
}

impl Request {
    fn send(self) -> io::Result<Response> {
        let request = match self.posted {
            Some(body) => self.builder.body(body),
            None => self.builder,
        };
        let request = match self.time_limit.get() {
            Some(limit) => request.timeout(limit),
            None => request,
        };
        let answer = request.send().map_err(|err| failed(err, Vec::new()))?;
        self.allowance.is_about(about(&answer));
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenges = challenges.iter().map(|value| value.as_bytes().into());
        let challenges = challenges.collect();
        let answer = answer.error_for_status();
        answer.map_err(|err| failed(err, challenges))
    }
}

impl State {
    /// Sends the request, unless that was done.
    fn answered(&mut self) -> io::Result<&Response> {
        if let Self::New(_) = self
            && let Self::New(request) = std::mem::replace(self, Self::Over)
        {
            *self = Self::Answered(request.send()?);
        }
        match self {
            Self::Answered(answer) => Ok(answer),
            _ => Err(io::Error::other("the answer is read already")),
        }
    }

    fn body(&mut self) -> io::Result<Response> {
        self.answered()?;
        match std::mem::replace(self, Self::Over) {
            Self::Answered(answer) => Ok(answer),
            _ => Err(io::Error::other("the answer is read already")),
        }
    }
}

impl Exchange {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        let posted = match &mut *state {
            State::New(request) => request.posted.as_mut(),
            _ => None,
        };
        let posted = posted.ok_or_else(|| io::Error::other("the request is sent already"))?;
        posted.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn about(answer: &Response) -> About {
    let text = |name| {
        let value = answer.headers().get(name)?.as_bytes();
        Some(String::from_utf8_lossy(value).into_owned())
    };
    About {
        redirect: text(LOCATION),
        content_type: text(CONTENT_TYPE),
        encoding: text(CONTENT_ENCODING),
        retry_after: text(RETRY_AFTER),
    }
}

/// A failure as `gix` knows it.
fn failed(err: reqwest::Error, www_authenticate: Vec<gix::bstr::BString>) -> io::Error {
    let class = match err.status() {
        Some(StatusCode::UNAUTHORIZED) => {
            let wanted = AuthenticationRequired { www_authenticate };
            return io::Error::new(io::ErrorKind::PermissionDenied, wanted);
        }
        Some(StatusCode::FORBIDDEN) => Some(Class::PermissionDenied),
        Some(StatusCode::CONFLICT) => Some(Class::Conflict),
        Some(StatusCode::NOT_IMPLEMENTED) => Some(Class::Unsupported),
        Some(status) => status.is_server_error().then_some(Class::Retryable),
        None => (err.is_timeout() || err.is_connect()).then_some(Class::Retryable),
    };
    let status = err.status();
    let err = match class {
        Some(class) => gix::Error::from_error(ClassificationMarker::with_source(class, err)),
        None => gix::Error::from_error(err),
    };
    let Some(status) = status else {
        return io::Error::other(err);
    };
    let kind = if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        io::ErrorKind::ConnectionAborted
    } else {
        io::ErrorKind::Other
    };
    let received = message!("Received HTTP status {}", status.as_str());
    io::Error::new(kind, err.and_raise(received))
}

/// An answer's headers, a line each.
pub(super) struct Headers {
    exchange: Exchange,
    lines: Option<Cursor<Vec<u8>>>,
}

impl Headers {
    fn of(exchange: Exchange) -> Self {
        Self {
            exchange,
            lines: None,
        }
    }
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Headers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let lines = if let Some(lines) = self.lines.take() {
            lines
        } else {
            let mut lines = Vec::new();
            for (name, value) in self.exchange.state().answered()?.headers() {
                lines.extend([name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"].concat());
            }
            Cursor::new(lines)
        };
        self.lines.insert(lines).fill_buf()
    }

    fn consume(&mut self, n: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(n);
        }
    }
}

/// An answer's body as it comes.
pub(super) struct Answer {
    exchange: Exchange,
    body: Option<BufReader<Response>>,
    /// It has them, too, so these are the last to go.
    _connections: Connections,
}

impl Answer {
    fn body(&mut self) -> io::Result<&mut BufReader<Response>> {
        let body = match self.body.take() {
            Some(body) => body,
            None => BufReader::with_capacity(READ_AHEAD, self.exchange.state().body()?),
        };
        Ok(self.body.insert(body))
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body()?.read(buffer)
    }
}

impl BufRead for Answer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.body()?.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        if let Some(body) = &mut self.body {
            body.consume(n);
        }
    }
}
