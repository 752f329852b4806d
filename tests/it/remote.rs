//! The conversation with a Git server: what is asked, and what becomes of every way in which it goes wrong.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use backlog_bridge::{
    error::Error, limits::Limits, pack::Objects, progress::Progress, push::RefName,
};
use serde_json::Value;
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use crate::support::{
    MAIN,
    generate::noise,
    git_server::{Fault, GitServer, Op},
    oracle::{assert_zip_equals, expected_entries},
    process::run_within,
    product::{build, on_disk, remote},
    tls::{Ca, trusting},
    upstream::{Content, Repository, Upstream},
};

const USER: &str = "robot@example.com";
const PASSWORD: &str = "p:a@s/s-never-to-be-seen";
const LOGIN: Option<(&str, &str)> = Some((USER, PASSWORD));
const LIMIT: Duration = Duration::from_mins(2);

/// A repository with deltas, links and a tag.
fn web() -> (Upstream, Repository, String) {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let mut tree: Vec<(String, Content)> = (0..20)
        .map(|n| {
            let text = [&crate::support::generate::source(20_000, 1)[..], &[n]].concat();
            (format!("src/{n}.rs"), text.into())
        })
        .collect();
    tree.push(("link".into(), Content::Symlink(b"src".into())));
    tree.push(("noise".into(), noise(300_000, 1).into()));
    repository.commit_on(MAIN, &tree);
    let commit = repository.commit_on(MAIN, &[("run", Content::Executable(b"#!".into()))]);
    repository.annotated_tag("refs/tags/v1", &commit);
    repository.repack();
    (upstream, repository, commit)
}

fn main_ref() -> RefName {
    MAIN.parse().unwrap()
}

#[test]
fn every_protocol_and_transport_gives_the_same_archive() {
    trusting(|| {
        let (upstream, repository, commit) = web();
        let expected = expected_entries(&repository, &commit);
        let server = GitServer::start(upstream.root(), LOGIN);
        let from = remote(&server.url("APP/web"), LOGIN);
        let v2 = build(&from, MAIN).zip;
        assert_zip_equals(&v2, &expected, &commit);
        assert_eq!(v2, build(&from, "refs/tags/v1").zip);
        assert_eq!(v2, build(&on_disk(&repository), MAIN).zip);
        server.speak_v0_only(true);
        server.clear_requests();
        assert_eq!(v2, build(&from, MAIN).zip);
        assert_eq!(v2, build(&from, "refs/tags/v1").zip);
        assert!(!server.ops().contains(&Op::LsRefs));
    });
}

#[test]
fn a_tip_that_moves_is_seen_whatever_the_protocol() {
    trusting(|| {
        let (upstream, repository, first) = web();
        let server = GitServer::start(upstream.root(), LOGIN);
        for v0 in [false, true] {
            server.speak_v0_only(v0);
            let from = remote(&server.url("APP/web"), LOGIN);
            let mut connection = from.connect().unwrap();
            let mut tip = || {
                let tip = connection.tip(&main_ref()).unwrap();
                tip.map(|tip| tip.commit.to_string())
            };
            repository.set_ref(MAIN, &first);
            tip();
            assert_eq!(tip(), Some(first.clone()), "v0: {v0}");
            let second = repository.commit_on(MAIN, &[("b", "b".into())]);
            assert_eq!(tip(), Some(second), "v0: {v0}");
            repository.delete_ref(MAIN);
            assert_eq!(tip(), None, "v0: {v0}");
        }
    });
}

#[test]
fn one_connection_asks_for_one_commit_and_nothing_else() {
    trusting(|| {
        let (upstream, repository, commit) = web();
        repository.commit_on("refs/heads/other", &[("other", "other".into())]);
        let server = GitServer::start(upstream.root(), LOGIN);
        let mut connection = remote(&server.url("APP/web"), LOGIN).connect().unwrap();
        let tip = connection.tip(&main_ref()).unwrap().unwrap();
        let (limits, progress) = (Limits::default(), Progress::default());
        let objects = connection
            .fetch(&tip, None, &std::sync::Arc::default(), |wire| {
                Objects::receive(wire, &limits, &progress)
            })
            .unwrap()
            .unwrap();
        assert!(
            objects
                .commit(&commit.parse::<gix::ObjectId>().unwrap())
                .is_some()
        );
        assert_eq!(connection.tip(&main_ref()).unwrap(), Some(tip));

        let requests = server.requests();
        assert_eq!(
            server.ops(),
            [Op::Handshake, Op::LsRefs, Op::Fetch, Op::LsRefs]
        );
        for request in &requests {
            assert_eq!(request.connection, 1);
            assert_eq!(request.status, Some(200));
            assert_eq!(request.protocol.as_deref(), Some("version=2"));
            assert!(request.authorized);
            let whole = format!("{request:?}");
            assert!(!whole.contains("never-to-be-seen"), "{whole}");
        }
        let ls_refs = String::from_utf8_lossy(&requests[1].body);
        assert!(
            ls_refs.contains("peel\n") || ls_refs.contains("peel0"),
            "{ls_refs}"
        );
        assert_eq!(ls_refs.matches("ref-prefix ").count(), 1, "{ls_refs}");
        assert!(ls_refs.contains("ref-prefix refs/heads/main"), "{ls_refs}");
        let fetch = String::from_utf8_lossy(&requests[2].body);
        for (words, times) in [
            (&format!("want {commit}")[..], 1),
            ("want ", 1),
            ("have ", 0),
            ("deepen 1", 1),
            ("deepen", 1),
            ("done", 1),
            ("filter", 0),
            ("include-tag", 0),
        ] {
            assert_eq!(fetch.matches(words).count(), times, "{words}: {fetch}");
        }
    });
}

/// A certificate authority's server on loopback that gives the same answer to everyone, whatever is asked.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Ca::new().server_config();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(tls, stream.unwrap());
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() {
                stream.write_all(answer.as_bytes()).ok();
                stream.conn.send_close_notify();
                stream.flush().ok();
            }
        }
    });
    format!("https://localhost:{port}/git/APP/web.git")
}

/// Kind, whether it is transient, and the whole chain in words.
fn fault_of(error: &Error) -> (&'static str, bool, String) {
    (
        error.kind(),
        error.is_transient(),
        backlog_bridge::error::chain(error),
    )
}

/// Connects, which must fail, and compares how.
fn assert_refused(
    case: &str,
    server: &GitServer,
    (url, login): (&str, Option<(&str, &str)>),
    expected: (&str, bool),
) {
    server.clear_requests();
    let Err(error) = remote(url, login).connect() else {
        panic!("{case}: connected")
    };
    let (kind, transient, text) = fault_of(&error);
    assert_eq!((kind, transient), expected, "{case}: {text}");
    assert!(!text.contains("never-to-be-seen"), "{case}: {text}");
    // Nobody is asked for another password, and nothing is tried in vain.
    let requests = server.requests().len();
    assert!(requests <= 1, "{case}: {:?}", server.ops());
}

#[test]
fn a_server_that_is_not_there_or_no_git_server_is_an_error_that_says_so() {
    trusting(|| {
        let (upstream, ..) = web();
        let server = GitServer::start(upstream.root(), LOGIN);
        let (right, nobody) = (server.url("APP/web"), server.url("APP/none"));
        let closed = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        let closed = format!("https://localhost:{closed}/git/APP/web.git");
        let page = answering(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<!DOCTYPE html>",
        );
        let hangs_up = answering("");
        let elsewhere = "https://no-such-host.invalid/git/APP/web.git";
        let wrong = Some((USER, "wrong"));
        for (case, url, login, kind, transient) in [
            ("a closed port", &closed[..], LOGIN, "unreachable", true),
            ("no such host", elsewhere, LOGIN, "unreachable", true),
            ("a server that hangs up", &hangs_up, LOGIN, "fetch", true),
            ("a web page", &page, LOGIN, "repository_not_found", false),
            ("a wrong password", &right, wrong, "auth_failed", false),
            ("no login", &right, None, "auth_failed", false),
            (
                "no repository",
                &nobody,
                LOGIN,
                "repository_not_found",
                false,
            ),
        ] {
            assert_refused(case, &server, (url, login), (kind, transient));
        }
    });
}

#[test]
fn a_handshake_that_fails_says_whether_to_try_again() {
    trusting(|| {
        let (upstream, ..) = web();
        let server = GitServer::start(upstream.root(), LOGIN);
        let url = server.url("APP/web");
        let nothing = Fault::response(|_| Vec::new());
        let rubbish = Fault::response(|_| noise(500, 1));
        for (fault, kind, transient) in [
            (Fault::Status(400), "fetch", false),
            (Fault::Status(401), "auth_failed", false),
            (Fault::Status(403), "auth_failed", false),
            (Fault::Status(404), "repository_not_found", false),
            (Fault::Status(408), "fetch", true),
            (Fault::Status(429), "fetch", true),
            (Fault::Status(500), "fetch", true),
            (Fault::Status(502), "fetch", true),
            (Fault::Status(503), "fetch", true),
            (Fault::Status(504), "fetch", true),
            (nothing, "fetch", true),
            (rubbish, "fetch", false),
            (Fault::CutAfter(30), "fetch", true),
        ] {
            let case = format!("{fault:?}");
            server.clear_faults();
            server.fault(Op::Handshake, fault);
            assert_refused(&case, &server, (&url, LOGIN), (kind, transient));
        }
    });
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_before_the_login_is_sent() {
    let (upstream, ..) = web();
    let server = GitServer::start(upstream.root(), LOGIN);
    let Err(error) = remote(&server.url("APP/web"), LOGIN).connect() else {
        panic!("the certificate was taken")
    };
    let (kind, _, text) = fault_of(&error);
    assert_eq!(kind, "unreachable", "{text}");
    assert!(text.to_lowercase().contains("certificate"), "{text}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_redirect_is_not_followed_and_the_login_goes_nowhere_else() {
    trusting(|| {
        let (upstream, ..) = web();
        let server = GitServer::start(upstream.root(), LOGIN);
        let elsewhere = GitServer::start(upstream.root(), LOGIN);
        let from = remote(&server.url("APP/web"), LOGIN);
        for to in [elsewhere.base(), server.base()] {
            for op in [Op::Handshake, Op::LsRefs, Op::Fetch] {
                server.clear_requests();
                server.clear_faults();
                server.fault_once(op, Fault::Redirect(to.clone()));
                let result = from.connect().and_then(|mut connection| {
                    let tip = connection.tip(&main_ref())?.expect("the ref is there");
                    connection.fetch(&tip, None, &std::sync::Arc::default(), |wire| {
                        wire.read_to_end(&mut Vec::new()).is_ok()
                    })
                });
                let error = result.expect_err("a redirect is no answer");
                let (kind, transient, text) = fault_of(&error);
                // In the middle of a conversation it is somebody who looks after the server.
                let expected = match op {
                    Op::Handshake => ("repository_not_found", false),
                    _ => ("fetch", true),
                };
                assert_eq!((kind, transient), expected, "{op:?}: {text}");
                assert_eq!(server.ops().last(), Some(&op));
                assert!(elsewhere.requests().is_empty(), "{op:?} went elsewhere");
            }
        }
    });
}

/// Runs `sync` of `APP/web`'s main as people do, and returns what it printed on stdout, as JSON.
fn sync(url: &str, ca: &Path, folder: &Path) -> (Value, Output) {
    let routes = folder.join("routes.toml");
    let table = format!(
        "[[space]]\nurl = \"{url}\"\ncredentials = \"env:BACKLOG\"\n\n\
         [[route]]\nrepository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"web.zip\"\n"
    );
    fs::write(&routes, table).unwrap();
    let mut sync = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
    sync.arg("sync")
        .arg("--routes")
        .arg(&routes)
        .arg("--store")
        .arg(folder.join("store"))
        .env("SSL_CERT_FILE", ca)
        .env("BACKLOG_USERNAME", USER)
        .env("BACKLOG_PASSWORD", PASSWORD);
    let output = run_within(&mut sync, LIMIT).unwrap();
    let line = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    });
    (line, output)
}

#[test]
fn a_fetch_that_fails_stores_nothing_and_says_whether_to_try_again() {
    let (upstream, ..) = web();
    let server = GitServer::start(upstream.root(), LOGIN);
    let cut = |bytes| Fault::CutAfter(bytes);
    let flip = |at: usize| {
        Fault::pack(move |mut pack| {
            let at = at.min(pack.len() - 1);
            pack[at] ^= 0x10;
            pack
        })
    };
    let shorter = Fault::pack(|mut pack| {
        pack.truncate(pack.len() / 2);
        pack
    });
    let tail = Fault::pack(|pack| [&pack[..], b"tail"].concat());
    for (case, op, fault, kind, transient) in [
        (
            "the connection is cut in the pack",
            Op::Fetch,
            cut(100_000),
            "fetch",
            true,
        ),
        (
            "the connection is cut before the pack",
            Op::Fetch,
            cut(20),
            "fetch",
            true,
        ),
        (
            "a byte in the middle is another",
            Op::Fetch,
            flip(50_000),
            "fetch",
            true,
        ),
        (
            "the last byte is another",
            Op::Fetch,
            flip(usize::MAX),
            "fetch",
            true,
        ),
        (
            "the pack is half as long",
            Op::Fetch,
            shorter,
            "fetch",
            true,
        ),
        ("the pack has a tail", Op::Fetch, tail, "fetch", true),
        (
            "500 instead of the pack",
            Op::Fetch,
            Fault::Status(500),
            "fetch",
            true,
        ),
        (
            "401 instead of the pack",
            Op::Fetch,
            Fault::Status(401),
            "auth_failed",
            false,
        ),
        (
            "500 instead of the refs",
            Op::LsRefs,
            Fault::Status(500),
            "fetch",
            true,
        ),
        (
            "the connection is cut in the refs",
            Op::LsRefs,
            cut(20),
            "fetch",
            true,
        ),
    ] {
        server.clear_faults();
        server.fault(op, fault);
        let folder = tempfile::tempdir().unwrap();
        let (line, output) = sync(&server.space_url(), &server.ca_file(), folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(line["error"]["kind"], kind, "{case}: {line}");
        assert_eq!(line["error"]["transient"], transient, "{case}: {line}");
        assert_eq!(line["outcome"], "failed", "{case}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{case}: {stderr}");
        for printed in [&output.stdout, &output.stderr] {
            let printed = String::from_utf8_lossy(printed);
            assert!(!printed.contains("never-to-be-seen"), "{case}: {printed}");
        }
        let stored = folder.path().join("store/sources/web.zip");
        assert!(!stored.exists(), "{case}");

        server.clear_faults();
        let (line, _) = sync(&server.space_url(), &server.ca_file(), folder.path());
        assert_eq!(line["outcome"], "published", "{case}, and then all is well");
    }
}
