//! `git http-backend`, one process a request, both ways as a stream.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::process::{git, isolate, stdout_of};

/// How much of a body moves at once.
pub const CHUNK: usize = 64 * 1024;

/// A body as it comes.
pub type Stream = mpsc::Receiver<io::Result<Bytes>>;

/// What HTTP says about one request, in the words of CGI.
pub struct Call {
    pub method: String,
    pub path_info: String,
    pub query: String,
    pub content_type: Option<String>,
    pub content_length: Option<String>,
    pub content_encoding: Option<String>,
    pub protocol: Option<String>,
    pub user: Option<String>,
}

/// What the program answered; its body comes while it runs.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Stream,
}

/// The program, the repositories that it serves, and the processes that run now.
pub struct Backend {
    program: PathBuf,
    root: PathBuf,
    children: Arc<Children>,
}

impl Backend {
    pub fn new(root: &Path) -> Self {
        let exec_path = stdout_of(git().arg("--exec-path"), b"");
        let exec_path = String::from_utf8(exec_path).unwrap();
        Self {
            program: Path::new(exec_path.trim_end()).join("git-http-backend"),
            root: root.to_owned(),
            children: Arc::default(),
        }
    }

    /// Starts the program, passes the body on as it comes, and returns once the program has written its headers.
    pub async fn call(&self, call: Call, body: Stream) -> io::Result<Reply> {
        let mut command = Command::new(&self.program);
        isolate(&mut command);
        command
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("REQUEST_METHOD", call.method)
            .env("PATH_INFO", call.path_info)
            .env("QUERY_STRING", call.query);
        for (name, value) in [
            ("CONTENT_TYPE", call.content_type),
            ("CONTENT_LENGTH", call.content_length),
            ("HTTP_CONTENT_ENCODING", call.content_encoding),
            ("GIT_PROTOCOL", call.protocol),
            ("REMOTE_USER", call.user),
        ] {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let (id, stdin, stdout) = self.children.start(&mut command)?;
        thread::spawn(move || write_body(stdin, body));

        let (head, headers) = oneshot::channel();
        let (chunks, body) = mpsc::channel(4);
        let children = Arc::clone(&self.children);
        thread::spawn(move || {
            read_reply(BufReader::with_capacity(CHUNK, stdout), head, &chunks);
            children.end(id);
        });
        let (status, headers) = headers
            .await
            .map_err(|_| io::Error::other("git http-backend wrote no headers"))?;
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// Ends what runs and starts nothing more.
    pub fn stop(&self) {
        self.children.stop();
    }
}

fn write_body(mut stdin: impl Write, mut body: Stream) {
    while let Some(Ok(chunk)) = body.blocking_recv() {
        if stdin.write_all(&chunk).is_err() {
            return;
        }
    }
}

type Head = (u16, Vec<(String, String)>);

/// Returns when the program has written everything, or when nobody reads it any more.
fn read_reply(
    mut stdout: BufReader<ChildStdout>,
    head: oneshot::Sender<Head>,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) {
    let Some(read) = read_head(&mut stdout) else {
        return;
    };
    if head.send(read).is_err() {
        return;
    }
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = stdout.read(&mut chunk) {
        let bytes = Bytes::copy_from_slice(&chunk[..length]);
        if chunks.blocking_send(Ok(bytes)).is_err() {
            return;
        }
    }
}

fn read_head(stdout: &mut impl BufRead) -> Option<Head> {
    let (mut status, mut headers) = (200, Vec::new());
    loop {
        let mut line = String::new();
        stdout.read_line(&mut line).ok().filter(|&n| n > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some((status, headers));
        }
        let (name, value) = line.split_once(':')?;
        let value = value.trim_start();
        if name.eq_ignore_ascii_case("status") {
            status = value.get(..3)?.parse().ok()?;
        } else {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// The processes that run, so that the end of a test is their end too.
#[derive(Default)]
struct Children(Mutex<Running>);

#[derive(Default)]
struct Running {
    by_id: HashMap<u32, Child>,
    stopped: bool,
}

impl Children {
    fn start(&self, command: &mut Command) -> io::Result<(u32, impl Write + use<>, ChildStdout)> {
        let mut running = self.0.lock().unwrap();
        if running.stopped {
            return Err(io::Error::other("the server has stopped"));
        }
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let id = child.id();
        running.by_id.insert(id, child);
        Ok((id, stdin, stdout))
    }

    /// Its pipes are closed, so what it started itself ends with it.
    fn end(&self, id: u32) {
        let child = self.0.lock().unwrap().by_id.remove(&id);
        if let Some(child) = child {
            reap(child);
        }
    }

    fn stop(&self) {
        let mut running = self.0.lock().unwrap();
        running.stopped = true;
        for (_, child) in running.by_id.drain() {
            reap(child);
        }
    }
}

fn reap(mut child: Child) {
    child.kill().ok();
    child.wait().ok();
}
