//! Backlog's Git hosting on this machine: the real git behind HTTPS, with a log, and with faults where a test wants them.

use std::{
    collections::HashMap,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body, Bytes, Incoming},
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

mod faults;
mod log;

use faults::{Plans, altered};
pub use log::Request;
use log::{Entry, Streamed, Upload, op_of};

pub use super::fault::{Fault, Op};
use super::{
    cgi::{Backend, CHUNK, Call, Stream},
    tls::Ca,
};

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
            replica: Mutex::default(),
            login: login.map(|(user, password)| Login {
                user: user.to_owned(),
                header: format!(
                    "Basic {}",
                    BASE64_STANDARD.encode(format!("{user}:{password}"))
                ),
            }),
            log: Mutex::default(),
            plans: Plans::default(),
            packs: Mutex::default(),
            cache_packs: AtomicBool::new(false),
            v0_only: AtomicBool::new(false),
            api: Mutex::default(),
            date: Mutex::default(),
            at_once: Mutex::default(),
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

    /// Has what is asked below `/api/` be answered, as a space does; an error ends the connection.
    pub fn answer_api(&self, api: impl Fn(Parts, Bytes) -> ApiAnswer + Send + Sync + 'static) {
        *lock(&self.state.api) = Some(Arc::new(api));
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

    /// How many requests were being answered at once, at most, until the first byte of each answer's body.
    pub fn most_at_once(&self) -> usize {
        lock(&self.state.at_once).1
    }

    /// Forgets the requests up to now.
    pub fn clear_requests(&self) {
        lock(&self.state.at_once).1 = 0;
        lock(&self.state.log).clear();
    }

    /// Lets every request of a kind go wrong from now on. Requests without the right login get their 401 before that.
    /// Of several faults for a kind, the first counts.
    pub fn fault(&self, op: Op, fault: Fault) {
        self.state.plans.fault(None, op, fault, false);
    }

    /// Lets every request of a kind go wrong from now on that is for a repository such as `APP/web`.
    pub fn fault_in(&self, repository: &str, op: Op, fault: Fault) {
        let repository = Some(repository.to_owned());
        self.state.plans.fault(repository, op, fault, false);
    }

    /// Lets the next request of a kind go wrong.
    pub fn fault_once(&self, op: Op, fault: Fault) {
        self.state.plans.fault(None, op, fault, true);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.state.plans.clear_faults();
    }

    /// Runs something before the n-th request of a kind from now on is answered, the first being 1.
    pub fn before(&self, op: Op, nth: usize, run: impl FnOnce() + Send + 'static) {
        self.state.plans.before(op, nth, run);
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
                state.plans.fault_first(op, fault);
            }
        });
    }

    /// Has a second machine answer with what stands below a folder, whenever `answers` says so of a request.
    pub fn replica(&self, root: &Path, answers: impl FnMut(Op) -> bool + Send + 'static) {
        *lock(&self.state.replica) = Some(Replica {
            backend: Arc::new(Backend::new(root)),
            answers: Box::new(answers),
        });
    }

    /// Ignores that a client asks for protocol v2.
    pub fn speak_v0_only(&self, yes: bool) {
        self.state.v0_only.store(yes, Ordering::Relaxed);
    }

    /// From now on, each answer says this of its time.
    pub fn set_date(&self, date: &str) {
        *lock(&self.state.date) = Some(date.to_owned());
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
        if let Some(replica) = &*lock(&self.state.replica) {
            replica.backend.stop();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct State {
    backend: Backend,
    replica: Mutex<Option<Replica>>,
    login: Option<Login>,
    log: Mutex<Vec<Entry>>,
    plans: Plans,
    packs: Mutex<HashMap<PackKey, Bytes>>,
    cache_packs: AtomicBool,
    v0_only: AtomicBool,
    /// What answers below `/api/`, if anything does.
    api: Mutex<Option<Api>>,
    date: Mutex<Option<String>>,
    /// How many requests are being answered, and were at most.
    at_once: Mutex<(usize, usize)>,
}

/// Another machine of the server, which may be behind.
struct Replica {
    backend: Arc<Backend>,
    answers: Box<dyn FnMut(Op) -> bool + Send>,
}

/// Path, protocol and request body.
type PackKey = (String, Option<String>, Bytes);

struct Login {
    user: String,
    header: String,
}

/// What a space's API answers.
pub type ApiAnswer = Pin<Box<dyn Future<Output = io::Result<Response<Full<Bytes>>>> + Send>>;
type Api = Arc<dyn Fn(Parts, Bytes) -> ApiAnswer + Send + Sync>;

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
        async move {
            let api = lock(&state.api).clone();
            let api = api.filter(|_| request.uri().path().starts_with("/api/"));
            let mut answer = match api {
                None => {
                    {
                        let mut at_once = lock(&state.at_once);
                        at_once.0 += 1;
                        at_once.1 = at_once.1.max(at_once.0);
                    }
                    let answer = state.answer(request, connection).await;
                    lock(&state.at_once).0 -= 1;
                    answer
                }
                Some(api) => {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                    api(head, body).await?.map(Either::Left)
                }
            };
            if let Some(date) = &*lock(&state.date) {
                let date = HeaderValue::try_from(date).unwrap();
                answer.headers_mut().insert(header::DATE, date);
            }
            Ok::<_, io::Error>(answer)
        }
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
            let answer = match self.plans.run_hooks(op).await {
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

    async fn answer_admitted(
        &self,
        op: Op,
        head: &Parts,
        upload: Upload,
        entry: &Entry,
    ) -> io::Result<Answer> {
        let fault = self.plans.take_fault(op, head.uri.path());
        match &fault {
            Some(Fault::Status(status)) => return Ok(plain(*status, "a fault of the test")),
            Some(Fault::Busy(after)) => {
                let mut answer = plain(429, "a fault of the test");
                let after = HeaderValue::from_static(after);
                answer.headers_mut().insert(header::RETRY_AFTER, after);
                return Ok(answer);
            }
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
        let replica = lock(&self.replica)
            .as_mut()
            .and_then(|replica| (replica.answers)(op).then(|| Arc::clone(&replica.backend)));
        let reply = match replica {
            Some(replica) => replica.call(call, body).await?,
            None => self.backend.call(call, body).await?,
        };
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
