//! Backlog's Git hosting on this machine: the real git behind HTTPS, with a log, and with faults where a test wants them.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

pub use super::fault::{Fault, Op};
use super::{
    cgi::{Backend, CHUNK, Call, Stream},
    tls::Ca,
};

/// How much of a request's body the log keeps.
const LOGGED: usize = 64 * 1024;
/// How much of a request's body tells what it asks for.
const PEEKED: usize = 32;

/// One request that came in.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub op: Option<Op>,
    pub method: String,
    /// As it was sent, escapes included.
    pub path: String,
    pub query: String,
    /// The header `Git-Protocol`.
    pub protocol: Option<String>,
    /// Connections count from 1.
    pub connection: usize,
    /// Whether it carried `Authorization`, right or wrong.
    pub authorized: bool,
    /// Its first 64 KiB, as they were sent.
    pub body: Vec<u8>,
    pub body_bytes: usize,
    /// `None` as long as there is no answer.
    pub status: Option<u16>,
    /// What was given to the connection up to now.
    pub response_bytes: usize,
}

impl Request {
    /// What it asks for.
    pub fn op(&self) -> Op {
        self.op.unwrap_or(Op::Other)
    }
}

/// HTTPS on loopback; stops when it is dropped.
pub struct GitServer {
    state: Arc<State>,
    address: SocketAddr,
    ca: Ca,
    runtime: Option<Runtime>,
}

impl GitServer {
    /// Serves the repositories below a folder, to whoever knows user and password if there are any.
    ///
    /// The server has threads of its own, so that tests that block can talk to it.
    pub fn start(root: &Path, login: Option<(&str, &str)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("git-server")
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let ca = Ca::new();
        let state = Arc::new(State {
            backend: Backend::new(root),
            login: login.map(|(user, password)| Login {
                user: user.to_owned(),
                header: format!(
                    "Basic {}",
                    BASE64_STANDARD.encode(format!("{user}:{password}"))
                ),
            }),
            log: Mutex::default(),
            faults: Mutex::default(),
            hooks: Mutex::default(),
            packs: Mutex::default(),
            cache_packs: AtomicBool::new(false),
            v0_only: AtomicBool::new(false),
        });
        let tls = TlsAcceptor::from(ca.server_config());
        runtime.spawn(accept(listener, tls, Arc::clone(&state)));
        Self {
            state,
            address,
            ca,
            runtime: Some(runtime),
        }
    }

    /// `https://localhost:{port}`.
    pub fn base(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// What a space's URL is on Backlog: `https://localhost:{port}/git`.
    pub fn space_url(&self) -> String {
        self.base() + "/git"
    }

    /// The URL of a repository such as `APP/web`; a name with other characters comes percent-encoded.
    pub fn url(&self, repository: &str) -> String {
        format!("{}/{repository}.git", self.space_url())
    }

    /// What clients must trust, as a PEM file.
    pub fn ca_file(&self) -> PathBuf {
        self.ca.file()
    }

    /// Every request since the start, or since [`clear_requests`](Self::clear_requests), in order.
    pub fn requests(&self) -> Vec<Request> {
        let log = lock(&self.state.log);
        log.iter().map(|entry| lock(entry).clone()).collect()
    }

    /// What the requests asked for, in order.
    pub fn ops(&self) -> Vec<Op> {
        self.requests().iter().map(Request::op).collect()
    }

    /// Forgets the requests up to now.
    pub fn clear_requests(&self) {
        lock(&self.state.log).clear();
    }

    /// Lets every request of a kind go wrong from now on. Requests without the right login get their 401 before that.
    /// Of several faults for a kind, the first counts.
    pub fn fault(&self, op: Op, fault: Fault) {
        self.push_fault(op, fault, false);
    }

    /// Lets the next request of a kind go wrong.
    pub fn fault_once(&self, op: Op, fault: Fault) {
        self.push_fault(op, fault, true);
    }

    fn push_fault(&self, op: Op, fault: Fault, once: bool) {
        lock(&self.state.faults).push(Planned { op, fault, once });
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        lock(&self.state.faults).clear();
    }

    /// Runs something before the n-th request of a kind from now on is answered, the first being 1.
    pub fn before(&self, op: Op, nth: usize, run: impl FnOnce() + Send + 'static) {
        assert!(nth > 0, "the first request is number 1");
        let run = Box::new(run);
        lock(&self.state.hooks).push(Hook { op, left: nth, run });
    }

    /// Lets the n-th request of a kind from now on go wrong, the first being 1, unless `is_wanted` says no when it comes.
    pub fn fault_at(
        &self,
        op: Op,
        nth: usize,
        fault: Fault,
        is_wanted: impl FnOnce() -> bool + Send + 'static,
    ) {
        let state = Arc::clone(&self.state);
        self.before(op, nth, move || {
            if is_wanted() {
                let once = true;
                lock(&state.faults).insert(0, Planned { op, fault, once });
            }
        });
    }

    /// Ignores that a client asks for protocol v2.
    pub fn speak_v0_only(&self, yes: bool) {
        self.state.v0_only.store(yes, Ordering::Relaxed);
    }

    /// Remembers packs: a fetch that is sent a second time gets the first one's answer, at no cost to the server. So a
    /// benchmark measures the client.
    pub fn cache_packs(&self, yes: bool) {
        self.state.cache_packs.store(yes, Ordering::Relaxed);
        lock(&self.state.packs).clear();
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.state.backend.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct State {
    backend: Backend,
    login: Option<Login>,
    log: Mutex<Vec<Entry>>,
    faults: Mutex<Vec<Planned>>,
    hooks: Mutex<Vec<Hook>>,
    packs: Mutex<HashMap<PackKey, Bytes>>,
    cache_packs: AtomicBool,
    v0_only: AtomicBool,
}

type Entry = Arc<Mutex<Request>>;
/// Path, protocol and request body.
type PackKey = (String, Option<String>, Bytes);

struct Login {
    user: String,
    header: String,
}

struct Planned {
    op: Op,
    fault: Fault,
    once: bool,
}

struct Hook {
    op: Op,
    left: usize,
    run: Box<dyn FnOnce() + Send>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

async fn accept(listener: std::net::TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connection = 0;
    while let Ok((stream, _)) = listener.accept().await {
        connection += 1;
        tokio::spawn(serve(stream, tls.clone(), Arc::clone(&state), connection));
    }
}

/// A client that goes away in the middle is no concern of the server's.
async fn serve(stream: TcpStream, tls: TlsAcceptor, state: Arc<State>, connection: usize) {
    stream.set_nodelay(true).ok();
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(state.answer(request, connection).await) }
    });
    let http = http1::Builder::new();
    http.serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

type Answer = Response<Either<Full<Bytes>, Streamed>>;

impl State {
    async fn answer(&self, request: hyper::Request<Incoming>, connection: usize) -> Answer {
        let (head, body) = request.into_parts();
        let entry = self.enter(&head, connection);
        let mut upload = Upload {
            peeked: Vec::new(),
            rest: body,
            entry: Arc::clone(&entry),
        };
        let op = op_of(&head, &mut upload).await;
        lock(&entry).op = Some(op);

        let answer = if self.admits(&head.headers) {
            let answer = match self.run_hooks(op).await {
                Ok(()) => self.answer_admitted(op, &head, upload, &entry).await,
                Err(error) => Err(error),
            };
            answer.unwrap_or_else(|error| plain(500, &error.to_string()))
        } else {
            let mut answer = plain(401, "a login is needed");
            let challenge = HeaderValue::from_static("Basic realm=\"Git\"");
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
            answer
        };
        let mut entry = lock(&entry);
        entry.status = Some(answer.status().as_u16());
        if let Either::Left(body) = answer.body() {
            let length = body.size_hint().exact().unwrap_or_default();
            entry.response_bytes = usize::try_from(length).unwrap();
        }
        drop(entry);
        answer
    }

    fn enter(&self, head: &Parts, connection: usize) -> Entry {
        let entry = Arc::new(Mutex::new(Request {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            protocol: text(&head.headers, "git-protocol"),
            connection,
            authorized: head.headers.contains_key(header::AUTHORIZATION),
            ..Request::default()
        }));
        lock(&self.log).push(Arc::clone(&entry));
        entry
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let sent = text(headers, "authorization");
        self.login
            .as_ref()
            .is_none_or(|login| sent.is_some_and(|sent| sent == login.header))
    }

    /// A hook that panics is a 500, so that the test notices.
    async fn run_hooks(&self, op: Op) -> io::Result<()> {
        let mut due = Vec::new();
        {
            let mut hooks = lock(&self.hooks);
            let mut index = 0;
            while index < hooks.len() {
                let hook = &mut hooks[index];
                if hook.op == op {
                    hook.left -= 1;
                }
                if hook.left == 0 {
                    due.push(hooks.remove(index).run);
                } else {
                    index += 1;
                }
            }
        }
        for run in due {
            tokio::task::spawn_blocking(run).await?;
        }
        Ok(())
    }

    fn take_fault(&self, op: Op) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let index = faults.iter().position(|planned| planned.op == op)?;
        if faults[index].once {
            Some(faults.remove(index).fault)
        } else {
            Some(faults[index].fault.clone())
        }
    }

    async fn answer_admitted(
        &self,
        op: Op,
        head: &Parts,
        upload: Upload,
        entry: &Entry,
    ) -> io::Result<Answer> {
        let fault = self.take_fault(op);
        match &fault {
            Some(Fault::Status(status)) => return Ok(plain(*status, "a fault of the test")),
            Some(Fault::Redirect(base)) => {
                let mut answer = plain(302, "elsewhere");
                let to = HeaderValue::try_from(format!("{base}{}", head.uri)).unwrap();
                answer.headers_mut().insert(header::LOCATION, to);
                return Ok(answer);
            }
            Some(Fault::Hang) => pending().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        let path = percent_decoded(head.uri.path());
        let below = |path: &&str| path.starts_with('/') && path.split('/').all(|part| part != "..");
        let Some(path_info) = path.strip_prefix("/git").filter(below) else {
            return Ok(plain(404, "no such repository"));
        };
        let (status, mut headers, mut body) = self.call(op, head, path_info, upload).await?;
        if let Some(fault) = fault {
            body = altered(body, fault);
        }
        let body = Streamed {
            body,
            entry: Arc::clone(entry),
        };
        let mut answer = Response::new(Either::Right(body));
        *answer.status_mut() = status;
        // A fault may change the length.
        headers.remove(header::CONTENT_LENGTH);
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    async fn call(
        &self,
        op: Op,
        head: &Parts,
        path_info: &str,
        upload: Upload,
    ) -> io::Result<(StatusCode, HeaderMap, Stream)> {
        let mut protocol = text(&head.headers, "git-protocol");
        if self.v0_only.load(Ordering::Relaxed) {
            protocol = None;
        }
        let cached = op == Op::Fetch && self.cache_packs.load(Ordering::Relaxed);
        let (key, body) = if cached {
            let body = upload.collect().await?;
            let key = (path_info.to_owned(), protocol.clone(), body.clone());
            let pack = lock(&self.packs).get(&key).cloned();
            if let Some(pack) = pack {
                let kind = HeaderValue::from_static("application/x-git-upload-pack-result");
                let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
                return Ok((StatusCode::OK, headers, in_chunks(pack)));
            }
            (Some(key), in_chunks(body))
        } else {
            (None, upload.stream())
        };
        let call = Call {
            method: head.method.to_string(),
            path_info: path_info.to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            content_type: text(&head.headers, "content-type"),
            content_length: text(&head.headers, "content-length"),
            content_encoding: text(&head.headers, "content-encoding"),
            protocol,
            user: self.login.as_ref().map(|login| login.user.clone()),
        };
        let reply = self.backend.call(call, body).await?;
        let status = StatusCode::from_u16(reply.status).map_err(io::Error::other)?;
        let headers = reply.headers.into_iter().filter_map(|(name, value)| {
            Some((
                HeaderName::try_from(name).ok()?,
                HeaderValue::try_from(value).ok()?,
            ))
        });
        let mut body = reply.body;
        if let Some(key) = key.filter(|_| status == StatusCode::OK) {
            let pack = collect(body).await?;
            lock(&self.packs).insert(key, pack.clone());
            body = in_chunks(pack);
        }
        Ok((status, headers.collect(), body))
    }
}

fn plain(status: u16, text: &str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(format!("{text}\n"))));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// What a request asks for; reads the start of its body if need be.
async fn op_of(head: &Parts, upload: &mut Upload) -> Op {
    let path = head.uri.path();
    match head.method {
        Method::GET if path.ends_with("/info/refs") => Op::Handshake,
        Method::POST if path.ends_with("/git-receive-pack") => Op::Push,
        Method::POST if path.ends_with("/git-upload-pack") => {
            let mut start = upload.peek().await;
            if text(&head.headers, "content-encoding").as_deref() == Some("gzip") {
                let mut plain = Vec::new();
                let start_only = flate2::read::GzDecoder::new(&start[..]);
                // The stream is cut, which is an error, after everything that is there.
                start_only.take(PEEKED as u64).read_to_end(&mut plain).ok();
                start = plain;
            }
            match start.get(4..) {
                Some(line) if line.starts_with(b"command=ls-refs") => Op::LsRefs,
                Some(line) if line.starts_with(b"command=fetch") => Op::Fetch,
                Some(line) if line.starts_with(b"want ") => Op::Fetch,
                _ => Op::Other,
            }
        }
        _ => Op::Other,
    }
}

/// A request's body: what was read of it to see what it is, and the rest.
struct Upload {
    peeked: Vec<Bytes>,
    rest: Incoming,
    entry: Entry,
}

impl Upload {
    async fn peek(&mut self) -> Vec<u8> {
        let mut start = Vec::new();
        while start.len() < PEEKED {
            let Some(Ok(bytes)) = self.next().await else {
                break;
            };
            start.extend_from_slice(&bytes);
            self.peeked.push(bytes);
        }
        start
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let frame = self.rest.frame().await?.map_err(io::Error::other);
            let bytes = match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(_trailers)) => continue,
                Err(error) => return Some(Err(error)),
            };
            let mut entry = lock(&self.entry);
            let room = LOGGED.saturating_sub(entry.body.len());
            entry
                .body
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
            entry.body_bytes += bytes.len();
            return Some(Ok(bytes));
        }
    }

    fn stream(mut self) -> Stream {
        let (sender, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            for bytes in std::mem::take(&mut self.peeked) {
                sender.send(Ok(bytes)).await.ok();
            }
            // To the end, even if nobody listens any more: the connection is used again.
            while let Some(bytes) = self.next().await {
                sender.send(bytes).await.ok();
            }
        });
        stream
    }

    async fn collect(self) -> io::Result<Bytes> {
        collect(self.stream()).await
    }
}

async fn collect(mut stream: Stream) -> io::Result<Bytes> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.recv().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all.into())
}

fn in_chunks(mut bytes: Bytes) -> Stream {
    let (sender, stream) = mpsc::channel(bytes.len() / CHUNK + 1);
    while !bytes.is_empty() {
        let chunk = bytes.split_to(bytes.len().min(CHUNK));
        sender.try_send(Ok(chunk)).expect("there is room for all");
    }
    stream
}

/// The body that a fault makes of the right one.
fn altered(body: Stream, fault: Fault) -> Stream {
    let (sender, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        // An error means that the client is gone.
        match fault {
            Fault::Drip(pause) => drip(body, pause, sender).await.ok(),
            Fault::CutAfter(bytes) => cut(body, bytes, sender).await.ok(),
            Fault::Endless(start, again) => endless(start, &again, sender).await.ok(),
            Fault::Response(alter) => {
                let all = collect(body).await.map(|all| alter(all.into()).into());
                sender.send(all).await.ok()
            }
            _ => pass(body, sender).await.ok(),
        }
    });
    stream
}

type Sender = mpsc::Sender<io::Result<Bytes>>;
type Sent = Result<(), mpsc::error::SendError<io::Result<Bytes>>>;

async fn drip(mut body: Stream, pause: Duration, sender: Sender) -> Sent {
    while let Some(Ok(mut bytes)) = body.recv().await {
        while !bytes.is_empty() {
            sender.send(Ok(bytes.split_to(1))).await?;
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

async fn cut(mut body: Stream, mut left: usize, sender: Sender) -> Sent {
    while let Some(Ok(mut bytes)) = body.recv().await {
        bytes.truncate(left);
        left -= bytes.len();
        sender.send(Ok(bytes)).await?;
        if left == 0 {
            // So that what was sent is on its way before the connection goes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            break;
        }
    }
    sender
        .send(Err(io::ErrorKind::ConnectionReset.into()))
        .await
}

async fn endless(start: Vec<u8>, again: &[u8], sender: Sender) -> Sent {
    let again = Bytes::from(again.repeat(CHUNK / again.len()));
    sender.send(Ok(start.into())).await?;
    loop {
        sender.send(Ok(again.clone())).await?;
    }
}

async fn pass(mut body: Stream, sender: Sender) -> Sent {
    while let Some(bytes) = body.recv().await {
        sender.send(bytes).await?;
    }
    Ok(())
}

/// A response's body as it comes; what was given to the connection is logged.
struct Streamed {
    body: Stream,
    entry: Entry,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = ready!(self.body.poll_recv(context));
        if let Some(Ok(bytes)) = &next {
            lock(&self.entry).response_bytes += bytes.len();
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }
}

fn percent_decoded(path: &str) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = escape.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte {
            Some(byte) if first == b'%' => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
