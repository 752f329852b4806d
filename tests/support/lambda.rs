//! Lambda, as far as a function sees it: the Runtime API, and a process that is started, called, timed out and killed.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use hyper::{Method, Request, body::Bytes, header::HeaderValue};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    http::{Answer, Server, json},
    s3::{ACCESS_KEY, SECRET_KEY},
};

const API: &str = "/2018-06-01/runtime/";
const REGION: &str = "ap-northeast-1";
const TRACE: &str = "Root=1-66430f31-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0";
/// How long Lambda waits for a new process to ask for its first event.
const INIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// What came of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// What the function returned, or the error: `errorType` and `errorMessage`.
    pub result: Result<Value, Value>,
    /// From handing the event over to the answer; the start of a process is not in it.
    pub took: Duration,
    pub request_id: String,
}

/// A function with one execution environment: one process at a time, one event at a time. Killed when dropped.
pub struct Lambda {
    program: PathBuf,
    args: Vec<String>,
    vars: Vec<(String, String)>,
    limit: Duration,
    /// Where its output goes: unlike a pipe, a file holds all that was written before the answer.
    folder: TempDir,
    sandbox: Mutex<Option<Arc<Sandbox>>>,
    turn: tokio::sync::Mutex<()>,
    starts: AtomicUsize,
    init_errors: Arc<Mutex<Vec<Value>>>,
}

impl Lambda {
    /// Starts a program with nothing in its environment but what Lambda sets and `vars`, and waits until it asks for its
    /// first event or ends. An invocation may take as long as `limit`.
    ///
    /// A program that ends early is no failure yet: the first invocation starts it again, as Lambda does.
    pub async fn start(
        program: impl AsRef<Path>,
        vars: &[(&str, String)],
        limit: Duration,
    ) -> Self {
        Self::start_with(program, &[], vars, limit).await
    }

    /// The same for a program that needs arguments, which Lambda gives to none.
    pub async fn start_with(
        program: impl AsRef<Path>,
        args: &[&str],
        vars: &[(&str, String)],
        limit: Duration,
    ) -> Self {
        let vars = vars.iter();
        let lambda = Self {
            program: program.as_ref().to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            vars: vars
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            limit,
            folder: tempfile::tempdir().unwrap(),
            sandbox: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            starts: AtomicUsize::new(0),
            init_errors: Arc::default(),
        };
        lambda.ready("").await.ok();
        lambda
    }

    /// Hands an event to the function. Another call meanwhile waits for its turn.
    pub async fn invoke(&self, event: &Value) -> Invocation {
        self.invoke_within(event, self.limit).await
    }

    /// The same with another limit. As Lambda does, it kills the process when time is up (`Sandbox.Timedout`), says so
    /// when the process ends without an answer (`Runtime.ExitError`), and starts a new one for the next event.
    pub async fn invoke_within(&self, event: &Value, limit: Duration) -> Invocation {
        let _turn = self.turn.lock().await;
        let request_id = Uuid::new_v4().to_string();
        let mut started = Instant::now();
        let result = match self.ready(&request_id).await {
            Ok(sandbox) => {
                started = Instant::now();
                sandbox.run(&request_id, event, limit).await
            }
            Err(error) => Err(error),
        };
        Invocation {
            result,
            took: started.elapsed(),
            request_id,
        }
    }

    /// From starting the newest process to its first request for an event.
    ///
    /// # Panics
    ///
    /// If it made none.
    #[allow(dead_code, reason = "the benchmark's alone")]
    pub fn time_to_first_poll(&self) -> Duration {
        let sandbox = self.sandbox().expect("started");
        let first = *lock(&sandbox.exchange.first_poll);
        let first = first.unwrap_or_else(|| panic!("no poll: {}", self.output()));
        first - sandbox.started
    }

    /// How many processes there have been.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// What processes reported to `init/error`.
    pub fn init_errors(&self) -> Vec<Value> {
        lock(&self.init_errors).clone()
    }

    /// Kills the process as a crash would, also in the middle of an invocation.
    pub fn kill(&self) {
        if let Some(sandbox) = self.sandbox() {
            sandbox.kill();
        }
    }

    /// The newest process.
    pub fn pid(&self) -> u32 {
        lock(&self.sandbox().expect("started").child).id()
    }

    /// The lines of every process's standard output.
    pub fn log(&self) -> Vec<String> {
        let lines = self.written("stdout");
        lines.lines().map(str::to_owned).collect()
    }

    /// What every process wrote: all of its standard output, then all of its standard error.
    pub fn output(&self) -> String {
        self.written("stdout") + &self.written("stderr")
    }

    fn written(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn sandbox(&self) -> Option<Arc<Sandbox>> {
        lock(&self.sandbox).clone()
    }

    /// The process, or a new one if that has ended, once it asks for an event.
    async fn ready(&self, request_id: &str) -> Result<Arc<Sandbox>, Value> {
        let running = self.sandbox().filter(|sandbox| sandbox.ended().is_none());
        let sandbox = running.unwrap_or_else(|| self.spawn());
        let mut idle = sandbox.exchange.idle.subscribe();
        let asks = idle.wait_for(|idle| *idle);
        let asked = tokio::select! {
            biased;
            status = sandbox.end() => Err(exit_error(request_id, status)),
            _ = asks => Ok(()),
            () = sleep(INIT) => {
                sandbox.kill();
                Err(timed_out(request_id, INIT))
            }
        };
        asked.map(|()| sandbox)
    }

    fn spawn(&self) -> Arc<Sandbox> {
        let (events, inbox) = mpsc::unbounded_channel();
        let name = self.program.file_stem().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let exchange = Arc::new(Exchange {
            arn: format!("arn:aws:lambda:{REGION}:123456789012:function:{name}"),
            inbox: tokio::sync::Mutex::new(inbox),
            open: Mutex::default(),
            idle: watch::Sender::new(false),
            first_poll: Mutex::default(),
            init_errors: Arc::clone(&self.init_errors),
        });
        let shared = Arc::clone(&exchange);
        let server = Server::start("lambda", move |request| {
            let exchange = Arc::clone(&shared);
            async move { exchange.answer(request).await }
        });
        let append = |name| {
            let path = self.folder.path().join(name);
            let file = File::options().create(true).append(true).open(path);
            Stdio::from(file.expect("a file in the temporary folder"))
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", server.authority())
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}"))
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "2024/05/14/[$LATEST]0123abcd")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(append("stdout"))
            .stderr(append("stderr"));
        let started = Instant::now();
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        self.starts.fetch_add(1, Ordering::Relaxed);
        let sandbox = Arc::new(Sandbox {
            child: Mutex::new(child),
            started,
            events,
            exchange,
            _server: server,
        });
        *lock(&self.sandbox) = Some(Arc::clone(&sandbox));
        sandbox
    }
}

/// One process with a Runtime API of its own, so that nothing of an earlier process can reach it.
struct Sandbox {
    child: Mutex<Child>,
    started: Instant,
    events: mpsc::UnboundedSender<Event>,
    exchange: Arc<Exchange>,
    _server: Server,
}

impl Sandbox {
    async fn run(&self, id: &str, event: &Value, limit: Duration) -> Result<Value, Value> {
        let (answer, answered) = oneshot::channel();
        let event = Event {
            id: id.to_owned(),
            body: event.to_string(),
            limit,
            answer,
        };
        self.events.send(event).ok();
        let outcome = timeout(limit, async {
            tokio::select! {
                biased;
                Ok(answer) = answered => answer,
                status = self.end() => Err(exit_error(id, status)),
            }
        });
        outcome.await.unwrap_or_else(|_| {
            self.kill();
            Err(timed_out(id, limit))
        })
    }

    fn ended(&self) -> Option<ExitStatus> {
        let status = lock(&self.child).try_wait();
        status.expect("a child can be waited for")
    }

    async fn end(&self) -> ExitStatus {
        loop {
            match self.ended() {
                Some(status) => return status,
                None => sleep(PAUSE).await,
            }
        }
    }

    fn kill(&self) {
        let mut child = lock(&self.child);
        child.kill().ok();
        child.wait().ok();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the function returned, or its error.
type Reply = oneshot::Sender<Result<Value, Value>>;

struct Event {
    id: String,
    body: String,
    limit: Duration,
    answer: Reply,
}

/// What passes between a process and whoever invokes it.
struct Exchange {
    arn: String,
    inbox: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    /// The event that the process works on, and where its answer goes.
    open: Mutex<Option<(String, Reply)>>,
    idle: watch::Sender<bool>,
    first_poll: Mutex<Option<Instant>>,
    init_errors: Arc<Mutex<Vec<Value>>>,
}

impl Exchange {
    async fn answer(&self, request: Request<Bytes>) -> Answer {
        let path = request.uri().path().strip_prefix(API).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').collect();
        match (request.method(), &parts[..]) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => {
                let invalid = || json!({ "errorType": "Runtime.InvalidResponse" });
                let result = serde_json::from_slice(request.body()).map_err(|_| invalid());
                self.close(id, result)
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                self.close(id, Err(error_of(request.body())))
            }
            (&Method::POST, ["init", "error"]) => {
                lock(&self.init_errors).push(error_of(request.body()));
                json(202, &json!({ "status": "OK" }))
            }
            _ => json(404, &json!({ "errorType": "NotFound" })),
        }
    }

    async fn next(&self) -> Answer {
        lock(&self.first_poll).get_or_insert_with(Instant::now);
        self.idle.send_replace(true);
        let Some(event) = self.inbox.lock().await.recv().await else {
            return json(500, &json!({ "errorType": "Shutdown" }));
        };
        self.idle.send_replace(false);
        let deadline = SystemTime::now() + event.limit;
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let mut answer = json(200, &Value::Null);
        *answer.body_mut() = event.body.into();
        for (name, value) in [
            ("lambda-runtime-aws-request-id", event.id.as_str()),
            (
                "lambda-runtime-deadline-ms",
                &deadline.as_millis().to_string(),
            ),
            ("lambda-runtime-invoked-function-arn", &self.arn),
            ("lambda-runtime-trace-id", TRACE),
        ] {
            let value = HeaderValue::from_str(value).expect("visible ASCII");
            answer.headers_mut().insert(name, value);
        }
        *lock(&self.open) = Some((event.id, event.answer));
        answer
    }

    fn close(&self, id: &str, result: Result<Value, Value>) -> Answer {
        match lock(&self.open).take_if(|(open, _)| open == id) {
            Some((_, answer)) => {
                answer.send(result).ok();
                json(202, &json!({ "status": "OK" }))
            }
            None => json(400, &json!({ "errorType": "InvalidRequestID" })),
        }
    }
}

fn error_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!({ "errorType": "Unknown" }))
}

fn exit_error(request_id: &str, status: ExitStatus) -> Value {
    let message = format!("RequestId: {request_id} Error: Runtime exited with error: {status}");
    json!({ "errorType": "Runtime.ExitError", "errorMessage": message })
}

fn timed_out(request_id: &str, limit: Duration) -> Value {
    let seconds = limit.as_secs_f64();
    let message =
        format!("RequestId: {request_id} Error: Task timed out after {seconds:.2} seconds");
    json!({ "errorType": "Sandbox.Timedout", "errorMessage": message })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics inside Lambda")
}
