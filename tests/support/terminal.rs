//! Somebody who sits at a terminal: the program runs under a pseudo-terminal, and what it asks is answered.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// What a program was seen to do at a terminal.
#[derive(Debug)]
pub struct Session {
    pub code: Option<i64>,
    /// All that the terminal showed, with the line ends of a file.
    pub shown: String,
}

/// Needs nothing but Python's own modules. It waits for each question before it answers, and kills nothing but its child.
const SCRIPT: &str = r#"
import json, os, pty, select, sys, time
order = json.load(sys.stdin)
pid, terminal = pty.fork()
if pid == 0:
    os.chdir(order["folder"])
    os.execve(order["program"][0], order["program"], order["environment"])
shown, seen, end, code = b"", 0, time.monotonic() + order["seconds"], None
answers = list(order["answers"])
while time.monotonic() < end:
    ready, _, _ = select.select([terminal], [], [], 0.1)
    if ready:
        try:
            bytes_ = os.read(terminal, 65536)
        except OSError:
            break
        if not bytes_:
            break
        shown += bytes_
    if answers and answers[0][0].encode() in shown[seen:]:
        seen += shown[seen:].index(answers[0][0].encode()) + len(answers[0][0].encode())
        os.write(terminal, answers[0][1].encode())
        answers.pop(0)
else:
    os.kill(pid, 9)
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"code": code, "shown": shown.decode(errors="replace").replace("\r\n", "\n"), "left": answers}))
"#;

/// Runs a program in a folder, with this environment and no other. `answers` are what it is waited for, and what is then typed:
/// `"\r"` is Enter, `"\x03"` is Ctrl-C.
///
/// # Panics
///
/// If a question is not asked.
pub fn session(
    program: &[impl AsRef<OsStr>],
    folder: &Path,
    environment: &[(&str, String)],
    answers: &[(&str, &str)],
) -> Session {
    let text = |text: &OsStr| text.to_str().expect("plain text").to_owned();
    let program: Vec<_> = program.iter().map(|word| text(word.as_ref())).collect();
    let environment: serde_json::Map<_, _> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::from(value.clone())))
        .collect();
    let order = json!({
        "program": program,
        "folder": folder,
        "environment": environment,
        "answers": answers,
        "seconds": 60,
    });
    let mut python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = python.stdin.take().unwrap();
    stdin.write_all(order.to_string().as_bytes()).unwrap();
    drop(stdin);
    let mut line = String::new();
    let stdout = python.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    python.wait().unwrap();
    let told: Value = serde_json::from_str(&line).expect("what the script tells");
    let shown = told["shown"].as_str().unwrap().to_owned();
    assert_eq!(told["left"], json!([]), "not asked: {shown}");
    Session {
        code: told["code"].as_i64(),
        shown,
    }
}
