//! HTTP as `gix` wants it spoken, one request after the other, by the thread that reads the answer.
//!
//! The client inside `gix` begins a thread and connections of its own for each repository, hands every 8 KiB from thread to
//! thread, and drops the headers of a refusal. Here, repositories of a host may share connections, what a server asks for that
//! has too much to do is known, and what has come is handed over together: a pack of 60 MB has 3,500 TLS records, and to wake
//! a thread for each would cost an eighth of a delivery.

use std::{
    any::Any,
    collections::VecDeque,
    io::{self, BufRead, Cursor, Read, Write},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gix::{
    error::{Class, ClassificationMarker, ErrorExt, message},
    protocol::transport::client::{
        AuthenticationRequired,
        blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse},
    },
};
use hyper::body::{Buf, Bytes};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

use super::{
    capped::{About, Allowance, Body},
    connections::Connections,
};

/// How much of an answer is handed over at once, in bytes; less where no more has come.
const BATCH_BYTES: usize = 128 << 10;

/// In how many pieces, however small a server makes them: each takes memory of its own.
const BATCH_PIECES: usize = 256;

/// How many such batches may wait for their reader.
const WAITING: usize = 2;

/// How long the next request may take as a whole, told to the HTTP client as each request begins.
#[derive(Clone, Default)]
pub(super) struct TimeLimit(Arc<AtomicU64>);

impl TimeLimit {
    /// `None`: as long as it likes, while no single read takes longer than [`READ_WITHIN`](super::connections::READ_WITHIN).
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

    fn begin(
        &self,
        url: &str,
        posted: Option<Vec<u8>>,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Exchange, gix::Error> {
        let pairs = headers.into_iter().filter_map(|header| {
            let (name, value) = header.as_ref().split_once(':')?;
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::try_from(value.trim()).ok()?))
        });
        let kept = self.connections.to(url).map_err(gix::Error::from_error)?;
        let builder = match posted {
            Some(_) => kept.client.post(url),
            None => kept.client.get(url),
        };
        let request = Box::new(Request {
            builder: builder.headers(pairs.collect()),
            posted,
            connections: self.connections.clone(),
            time_limit: self.time_limit.clone(),
            allowance: self.allowance.clone(),
        });
        Ok(Exchange(Arc::new(Mutex::new(State::New(request)))))
    }

    fn body(&self, exchange: Exchange) -> Body {
        Body::new(
            Answer {
                exchange,
                body: None,
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
        let exchange = self.begin(url, None, headers)?;
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
        let exchange = self.begin(url, Some(Vec::new()), headers)?;
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
    Answered(HeaderMap, Incoming),
    /// The answer is somebody's, or there is none.
    Over,
}

/// A request as it will be sent.
struct Request {
    builder: RequestBuilder,
    /// Its body, if it has one.
    posted: Option<Vec<u8>>,
    connections: Connections,
    time_limit: TimeLimit,
    allowance: Allowance,
}

impl Request {
    fn send(self) -> io::Result<(HeaderMap, Incoming)> {
        let request = match self.posted {
            Some(body) => self.builder.body(body),
            None => self.builder,
        };
        let request = match self.time_limit.get() {
            Some(limit) => request.timeout(limit),
            None => request,
        };
        let (begun, head) = oneshot::channel();
        let (batches, incoming) = mpsc::channel(WAITING);
        self.connections.spawn(async move {
            match request.send().await {
                Ok(answer) => {
                    let refused = answer.error_for_status_ref().err();
                    let is_wanted = begun.send(Ok((answer.headers().clone(), refused))).is_ok();
                    if is_wanted {
                        hand_over(answer, &batches).await;
                    }
                }
                Err(err) => drop(begun.send(Err(err))),
            }
        });
        let head = head.blocking_recv().expect("the request ends");
        let (headers, refused) = head.map_err(|err| failed(err, Vec::new()))?;
        self.allowance.is_about(about(&headers));
        if let Some(refused) = refused {
            let challenges = headers.get_all(WWW_AUTHENTICATE).into_iter();
            let challenges = challenges.map(|value| value.as_bytes().into());
            return Err(failed(refused, challenges.collect()));
        }
        let incoming = Incoming {
            batches: incoming,
            pieces: VecDeque::new(),
            _connections: self.connections,
        };
        Ok((headers, incoming))
    }
}

/// What came of an answer, in as many pieces as it came in, or why it broke off.
type Batch = Result<VecDeque<Bytes>, reqwest::Error>;

/// Hands an answer to its reader: together what comes together, and nothing later than when there is no more for now.
async fn hand_over(mut answer: Response, batches: &mpsc::Sender<Batch>) {
    loop {
        let (mut batch, mut bytes) = (VecDeque::new(), 0);
        let end = loop {
            let chunk = tokio::select! {
                biased;
                chunk = answer.chunk() => chunk,
                // The connection has had its turn meanwhile.
                () = yield_now(), if bytes > 0 => break None,
                // Whoever gave up reading wants no more.
                () = batches.closed() => return,
            };
            match chunk {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    bytes += chunk.len();
                    batch.push_back(chunk);
                }
                Ok(None) => break Some(Ok(())),
                Err(err) => break Some(Err(err)),
            }
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_PIECES {
                break None;
            }
        };
        if bytes > 0 && batches.send(Ok(batch)).await.is_err() {
            return;
        }
        match end {
            None => {}
            Some(Ok(())) => return,
            Some(Err(err)) => {
                batches.send(Err(err)).await.ok();
                return;
            }
        }
    }
}

impl State {
    /// Sends the request, unless that was done.
    fn answered(&mut self) -> io::Result<&HeaderMap> {
        if let Self::New(_) = self
            && let Self::New(request) = std::mem::replace(self, Self::Over)
        {
            let (headers, incoming) = request.send()?;
            *self = Self::Answered(headers, incoming);
        }
        match self {
            Self::Answered(headers, _) => Ok(headers),
            _ => Err(io::Error::other("the answer is read already")),
        }
    }

    fn body(&mut self) -> io::Result<Incoming> {
        self.answered()?;
        match std::mem::replace(self, Self::Over) {
            Self::Answered(_, incoming) => Ok(incoming),
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

fn about(headers: &HeaderMap) -> About {
    let text = |name| {
        let value = headers.get(name)?.as_bytes();
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
            for (name, value) in self.exchange.state().answered()? {
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
struct Incoming {
    batches: mpsc::Receiver<Batch>,
    /// What came and was not read yet; none is empty.
    pieces: VecDeque<Bytes>,
    /// What it comes over.
    _connections: Connections,
}

/// The same, sent for when somebody reads.
pub(super) struct Answer {
    exchange: Exchange,
    body: Option<Incoming>,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Answer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let body = match self.body.take() {
            Some(body) => body,
            None => self.exchange.state().body()?,
        };
        let body = self.body.insert(body);
        if body.pieces.is_empty()
            && let Some(batch) = body.batches.blocking_recv()
        {
            body.pieces = batch.map_err(io::Error::other)?;
        }
        Ok(body.pieces.front().map_or(&[], |piece| piece))
    }

    fn consume(&mut self, n: usize) {
        let Some(body) = &mut self.body else { return };
        if let Some(piece) = body.pieces.front_mut() {
            piece.advance(n);
            if piece.is_empty() {
                body.pieces.pop_front();
            }
        }
    }
}
