//! Password and token are nowhere but where they are needed: after successes and after failures every file is searched, and
//! the types that hold them can neither be printed, compared nor written.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use backlog_bridge::secrets::{Login, Password, Token};
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::support::{
    KEY, MAIN,
    git_server::{Fault as GitFault, Op as GitOp},
    json_api::Fault as ApiFault,
    lambda::Lambda,
    oracle::read_zip,
    process::run_within,
    s3::{Fault as S3Fault, Op as S3Op},
    service::{GIT_SECRET, LOGIN, Service, TOKEN, project_push, request},
    sqs::Op as SqsOp,
};

/// Does not compile once the type implements the trait: then two functions fit.
macro_rules! assert_never {
    ($type:ty: $($trait:path),+) => {$(
        const _: fn() = || {
            trait Fits<Which> {
                fn fits() {}
            }
            struct Implemented;
            impl<T: ?Sized> Fits<()> for T {}
            impl<T: ?Sized + $trait> Fits<Implemented> for T {}
            let _ = <$type as Fits<_>>::fits;
        };
    )+};
}

assert_never!(Password: std::fmt::Display, PartialEq, serde::Serialize, AsRef<str>, std::ops::Deref);
assert_never!(Token: std::fmt::Display, PartialEq, serde::Serialize, AsRef<str>, std::ops::Deref);
assert_never!(Login: std::fmt::Display, PartialEq, serde::Serialize);
assert_never!(backlog_bridge::receive::Request<'static>: std::fmt::Debug, std::fmt::Display, serde::Serialize);
assert_never!(backlog_bridge::receive::Envelope: std::fmt::Debug, std::fmt::Display, serde::Serialize);

#[test]
fn what_can_be_printed_of_a_secret_is_not_the_secret() {
    let (username, password) = LOGIN;
    let login = Login {
        username: username.to_owned(),
        password: password.to_owned().into(),
    };
    let token: Token = TOKEN.parse().unwrap();
    let printed = format!(
        "{login:?} {login:#?} {:?} {token:?} {token:#?}",
        login.password
    );
    let mut search = Search::new();
    search.bytes("Debug", printed.as_bytes());
    assert_eq!(search.hits, [""; 0]);
}

/// Some URLs escape no more than this.
const FEW: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A secret in every spelling.
fn spellings(secret: &str) -> Vec<String> {
    let mut spellings = vec![
        secret.to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        utf8_percent_encode(secret, FEW).to_string(),
        utf8_percent_encode(secret, FEW).to_string().to_lowercase(),
        BASE64_STANDARD.encode(secret),
        serde_json::Value::from(secret)
            .to_string()
            .trim_matches('"')
            .to_owned(),
        secret.replace('/', "\\/"),
    ];
    // Inside of something longer, base64 has three ways to spell it; the characters at both ends depend on what is around.
    for before in 0..3 {
        let encoded = BASE64_STANDARD.encode([&[b' '; 3][..before], secret.as_bytes()].concat());
        let inner = encoded.trim_end_matches('=');
        spellings.push(inner[[0, 2, 3][before]..inner.len() - 1].to_owned());
    }
    spellings.sort();
    spellings.dedup();
    spellings
}

struct Search {
    needles: Vec<String>,
    files: u64,
    bytes: u64,
    hits: Vec<String>,
}

impl Search {
    fn new() -> Self {
        let needles = [LOGIN.1, TOKEN].into_iter().flat_map(spellings).collect();
        Self {
            needles,
            files: 0,
            bytes: 0,
            hits: Vec::new(),
        }
    }

    fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.files += 1;
        self.bytes += bytes.len() as u64;
        for needle in &self.needles {
            let mut windows = bytes.windows(needle.len());
            if windows.any(|found| found == needle.as_bytes()) {
                self.hits.push(format!("{needle} in {place}"));
            }
        }
        // What a zip holds is deflated.
        if let Ok(zip) = read_zip(bytes) {
            self.bytes(&format!("{place}, comment"), &zip.comment);
            for member in zip.members {
                self.bytes(&format!("{place}, entry"), &member.content);
                self.bytes(&format!("{place}, name"), &member.name);
            }
        }
    }

    fn folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let place = path.display().to_string();
            self.bytes("a name", place.as_bytes());
            if path.is_dir() {
                self.folder(&path);
            } else if let Ok(bytes) = fs::read(&path) {
                self.bytes(&place, &bytes);
            }
        }
    }
}

#[test]
fn the_search_finds_every_spelling() {
    let (user, password) = LOGIN;
    for (case, planted) in [
        ("plain", format!("https://{user}:{password}@host")),
        (
            "a header",
            BASE64_STANDARD.encode(format!("{user}:{password}")),
        ),
        (
            "one byte before it",
            BASE64_STANDARD.encode(format!("x{password}yz")),
        ),
        (
            "two bytes before it",
            BASE64_STANDARD.encode(format!("xy{password}z")),
        ),
        (
            "a URL",
            format!("https://{user}:{}@host", utf8_percent_encode(password, FEW)),
        ),
        ("a path", format!("POST /hooks/{TOKEN} HTTP/1.1")),
        (
            "a header of the token",
            BASE64_STANDARD.encode(format!("backlog:{TOKEN}")),
        ),
    ] {
        let mut search = Search::new();
        search.bytes(case, planted.as_bytes());
        assert!(!search.hits.is_empty(), "{case}");
    }
}

/// Lets something go wrong.
type Wrong = Box<dyn Fn(&Service)>;

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "a table, and a search of all that came of it"
)]
async fn neither_password_nor_token_is_anywhere_after_successes_and_failures() {
    let temporary = tempfile::tempdir().unwrap();
    let vars = [
        ("LOG_LEVEL", "debug"),
        ("TMPDIR", temporary.path().to_str().unwrap()),
    ];
    let service = Service::with(&[(MAIN, KEY, "")], &vars).await;
    let mut search = Search::new();
    let mut failed = BTreeMap::new();
    let damaged = || {
        GitFault::pack(|mut pack| {
            pack[30] ^= 1;
            pack
        })
    };
    let elsewhere = service.git.base();
    let faults: Vec<(&str, Wrong)> = vec![
        ("success", Box::new(|_| {})),
        (
            "401",
            Box::new(|s| s.git.fault_once(GitOp::Handshake, GitFault::Status(401))),
        ),
        (
            "403",
            Box::new(|s| s.git.fault_once(GitOp::LsRefs, GitFault::Status(403))),
        ),
        (
            "404",
            Box::new(|s| s.git.fault_once(GitOp::Handshake, GitFault::Status(404))),
        ),
        (
            "500",
            Box::new(|s| s.git.fault(GitOp::Fetch, GitFault::Status(500))),
        ),
        (
            "redirect",
            Box::new(move |s| {
                s.git
                    .fault_once(GitOp::Handshake, GitFault::Redirect(elsewhere.clone()));
            }),
        ),
        (
            "cut",
            Box::new(|s| s.git.fault(GitOp::Fetch, GitFault::CutAfter(40))),
        ),
        (
            "damaged",
            Box::new(move |s| s.git.fault(GitOp::Fetch, damaged())),
        ),
        (
            "put refused",
            Box::new(|s| _ = s.s3.fail_once(S3Op::PutObject, S3Fault::Status(403))),
        ),
        (
            "head refused",
            Box::new(|s| _ = s.s3.fail_once(S3Op::HeadObject, S3Fault::Status(403))),
        ),
        (
            "the queue is down",
            Box::new(|s| _ = s.sqs.fault_once(SqsOp::SendMessage, ApiFault::Status(403))),
        ),
        (
            "another password",
            Box::new(|s| {
                s.secrets.put(
                    GIT_SECRET,
                    &json!({"username": "u", "password": "wrong-one"}).to_string(),
                );
                s.git.fault_once(GitOp::Handshake, GitFault::Status(401));
            }),
        ),
        (
            "a secret that is none",
            Box::new(|s| {
                let (username, password) = LOGIN;
                s.secrets.put(GIT_SECRET, &format!("{username}:{password}"));
                s.git.fault_once(GitOp::Handshake, GitFault::Status(401));
            }),
        ),
    ];
    for (n, (case, fault)) in faults.iter().enumerate() {
        let commit = service
            .repository
            .commit_on(MAIN, &[("a.txt", format!("{n}").as_str().into())]);
        fault(&service);
        let (status, answer) = service.push(MAIN, &[&commit]).await;
        search.bytes(case, answer.to_string().as_bytes());
        let messages = service.sqs.receive(1);
        let before = service.outcomes().len();
        if !messages.is_empty() {
            let invocation = service.deliver.invoke(&service.sqs.event(&messages)).await;
            search.bytes(case, format!("{invocation:?}").as_bytes());
        }
        for message in &messages {
            search.bytes(case, message.body.as_bytes());
            service.sqs.delete(message);
        }
        service.git.clear_faults();
        // Or a login that was refused would be left alone for a while.
        service.deliver.kill();
        let outcomes = service.outcomes();
        let kind = outcomes[before..]
            .last()
            .map_or(status.to_string(), |line| {
                line["error_kind"].as_str().unwrap_or("none").to_owned()
            });
        failed.insert(*case, kind);
    }
    println!("{failed:?}");
    assert_eq!(failed["success"], "none");
    assert!(
        failed.values().filter(|kind| *kind != "none").count() >= 8,
        "{failed:?}"
    );
    // Whoever knows the token and sends nonsense, and whoever does not.
    for (path, body) in [
        (format!("/hooks/{TOKEN}"), "{"),
        (format!("/hooks/{TOKEN}"), TOKEN),
        (format!("/hooks/{TOKEN}1"), "{}"),
        (format!("/{TOKEN}"), "{}"),
    ] {
        let invocation = service.receive.invoke(&request("POST", &path, body)).await;
        search.bytes(&path, format!("{invocation:?}").as_bytes());
    }
    service.put_routes("[[space]]\nurl = 1\n").await;
    service.receive.kill();
    let (status, _) = service.push("refs/heads/of-no-route", &[]).await;
    assert_eq!(status, 503);

    let place = tempfile::tempdir().unwrap();
    for (password, code) in [(LOGIN.1, 0), ("wrong-one", 1)] {
        let output = sync(&service, place.path(), password);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(String::from_utf8_lossy(&output.stderr).contains("DEBUG"));
        search.bytes("stdout", &output.stdout);
        search.bytes("stderr", &output.stderr);
    }
    for lambda in [&service.receive, &service.deliver] {
        assert!(lambda.output().contains("DEBUG"), "it is talkative");
        search.bytes("log", lambda.output().as_bytes());
    }
    for version in service.versions() {
        search.bytes("metadata", format!("{version:?}").as_bytes());
    }
    for folder in [
        service.s3.dir(),
        temporary.path(),
        place.path(),
        service.upstream.root(),
    ] {
        search.folder(folder);
    }
    println!(
        "{} files, {} bytes searched for {} spellings: {} hits",
        search.files,
        search.bytes,
        search.needles.len(),
        search.hits.len()
    );
    assert_eq!(search.hits, [""; 0]);
    assert!(search.files > 50 && search.bytes > 50_000);
}

fn sync(service: &Service, place: &Path, password: &str) -> std::process::Output {
    let table = service.table(&[(MAIN, KEY, "")]);
    let table = table.replace(&format!("secret:{GIT_SECRET}"), "env:BACKLOG");
    fs::write(place.join("routes.toml"), table).unwrap();
    let mut sync = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
    sync.args(["sync", "--store", "store"])
        .current_dir(place)
        .env_clear()
        .env("HOME", place)
        .env("TMPDIR", place)
        .env("LOG_LEVEL", "debug")
        .env("SSL_CERT_FILE", service.git.ca_file())
        .env("BACKLOG_USERNAME", LOGIN.0)
        .env("BACKLOG_PASSWORD", password);
    run_within(&mut sync, Duration::from_mins(1)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_over_https_starts_no_process() {
    let mut service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let traced = [
        "-f",
        "-qq",
        "-e",
        "trace=execve,execveat,fork,vfork",
        "-o",
        trace.to_str().unwrap(),
    ];
    let strace = "/usr/bin/strace";
    let mut probe = Command::new(strace);
    probe.args(["-qq", "-o", "/dev/null", "true"]);
    let can_trace = run_within(&mut probe, Duration::from_secs(20))
        .is_some_and(|output| output.status.success());
    let mut vars = service.vars.clone();
    vars.push(("PATH", String::new()));
    let program = env!("CARGO_BIN_EXE_deliver");
    service.deliver = if can_trace {
        let args = [&traced[..], &[program]].concat();
        Lambda::start_with(strace, &args, &vars, Duration::from_secs(40)).await
    } else {
        println!("skipped: strace is not there, or may not trace; what is left is an empty PATH");
        Lambda::start(program, &vars, Duration::from_secs(40)).await
    };
    for n in ["1", "2"] {
        let commit = service.repository.commit_on(MAIN, &[("a.txt", n.into())]);
        service.push(MAIN, &[&commit]).await;
        service.drain().await;
        assert_eq!(service.commits()[0], commit);
    }
    if can_trace {
        let trace = fs::read_to_string(&trace).unwrap();
        let calls: Vec<_> = trace.lines().filter(|line| line.contains('(')).collect();
        println!("{calls:?}");
        assert_eq!(calls.len(), 1, "{calls:?}");
        assert!(calls[0].contains(program), "{calls:?}");
    }
    assert_eq!(project_push("update", MAIN, &[]).matches(TOKEN).count(), 0);
}
