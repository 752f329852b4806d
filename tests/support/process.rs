//! Other programs: started with a fixed environment, fed, and never waited for without end.

use std::{
    any::type_name,
    env,
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `git` without this machine's configuration, identity, clock, prompts and background work.
pub fn git() -> Command {
    let mut git = Command::new("git");
    isolate(&mut git);
    git
}

/// Replaces the environment of a command that is git, or starts it.
pub fn isolate(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs([
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Robot"),
        ("GIT_AUTHOR_EMAIL", "robot@example.com"),
        ("GIT_AUTHOR_DATE", "1700000000 +0900"),
        ("GIT_COMMITTER_NAME", "Robot"),
        ("GIT_COMMITTER_EMAIL", "robot@example.com"),
        ("GIT_COMMITTER_DATE", "1700000000 +0900"),
    ]);
    let config = [
        ("safe.directory", "*"),
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("receive.autogc", "false"),
        ("http.receivepack", "true"),
    ];
    command.env("GIT_CONFIG_COUNT", config.len().to_string());
    for (index, (key, value)) in config.into_iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), key);
        command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
}

/// This program again, to run one test: the one that the closure `in_the_test` is written in.
///
/// # Panics
///
/// If the closure is in no function.
pub fn this_test_again<F>(_in_the_test: &F) -> Command {
    let path = type_name::<F>();
    let test = path
        .split_once("::{{closure}}")
        .and_then(|(function, _)| function.split_once("::"))
        .unwrap_or_else(|| panic!("{path} is no closure in a test"));
    let mut process = Command::new(env::current_exe().unwrap());
    process.args(["--exact", test.1, "--nocapture", "--include-ignored"]);
    process
}

/// Runs a command on an input and returns what it wrote.
///
/// # Panics
///
/// If it cannot be started or fails; the message holds what it wrote to its standard error.
pub fn stdout_of(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let output = feed(command, |stdin| stdin.write_all(input));
    assert!(
        output.status.success(),
        "{command:?} failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Runs a command on an input that is written while the command runs.
///
/// # Panics
///
/// If it cannot be started.
pub fn feed(
    command: &mut Command,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    thread::scope(|scope| {
        // A command that fails stops reading; its exit status tells more than the broken pipe does.
        scope.spawn(move || {
            let mut buffered = io::BufWriter::with_capacity(1 << 16, &mut stdin);
            write(&mut buffered).and_then(|()| buffered.flush()).ok();
        });
        child.wait_with_output().expect("the output can be read")
    })
}

/// Runs a command for at most `limit`; `None` if it is not installed.
///
/// # Panics
///
/// If it takes longer than that: it is killed first.
pub fn run_within(command: &mut Command, limit: Duration) -> Option<Output> {
    let mut child = match command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => panic!("cannot start {command:?}: {error}"),
    };
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let Some(status) = wait_within(&mut child, limit) else {
        panic!("{command:?} took longer than {limit:?}")
    };
    Some(Output {
        status,
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    })
}

/// Waits for a child, and kills it if it takes longer than `limit`: `None`.
pub fn wait_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().ok();
            child.wait().ok();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut all).ok();
        }
        all
    })
}
