//! What a Git server, or somebody in its place, may answer: old servers that know little are delivered from, and of the others
//! people read what is wrong, once and in few words.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use backlog_bridge::error::{Error, chain};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

use crate::support::{
    MAIN,
    git_server::{Fault, GitServer, Op},
    oracle::{assert_zip_equals, expected_entries},
    process::{git, stdout_of},
    product::{build, remote},
    tls::{Ca, trusting},
    upstream::{Repository, Upstream},
};

/// What one answer holds.
#[derive(Clone)]
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: &'static str, headers: &str, body: &[u8]) -> Self {
        let (headers, body) = (headers.to_owned(), body.to_owned());
        Self {
            status,
            headers,
            body,
        }
    }

    /// What git sends where it lists refs.
    fn refs(body: &[u8]) -> Self {
        let kind = "Content-Type: application/x-git-upload-pack-advertisement\r\n";
        Self::new("200 OK", kind, body)
    }

    /// What git sends for a POST.
    fn result(body: &[u8]) -> Self {
        let kind = "Content-Type: application/x-git-upload-pack-result\r\n";
        Self::new("200 OK", kind, body)
    }

    fn compressed(mut self, encoding: &str) -> Self {
        self.body = if encoding == "deflate" {
            let mut to = ZlibEncoder::new(Vec::new(), Compression::best());
            to.write_all(&self.body).unwrap();
            to.finish().unwrap()
        } else {
            let mut to = GzEncoder::new(Vec::new(), Compression::best());
            to.write_all(&self.body).unwrap();
            to.finish().unwrap()
        };
        self.headers = format!("{}Content-Encoding: {encoding}\r\n", self.headers);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let (status, headers, length) = (self.status, &self.headers, self.body.len());
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        [head.as_bytes(), &self.body].concat()
    }
}

/// A server of few words: whoever asks with GET gets the first answer, and with POST what comes of the request. Returns the
/// repository's URL, and the bodies of the POSTs.
fn serve(
    get: Answer,
    fetch: impl Fn(&[u8]) -> Answer + Send + 'static,
) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Ca::new().server_config();
    let posted = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&posted);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(tls, stream.unwrap());
            let Some((is_post, body)) = read_request(&mut stream) else {
                continue;
            };
            let answer = if is_post {
                let answer = fetch(&body);
                log.lock().unwrap().push(body);
                answer
            } else {
                get.clone()
            };
            stream.write_all(&answer.bytes()).ok();
            stream.conn.send_close_notify();
            stream.flush().ok();
        }
    });
    (format!("https://localhost:{port}/git/APP/web.git"), posted)
}

fn read_request(stream: &mut impl Read) -> Option<(bool, Vec<u8>)> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        let read = stream.read(&mut buffer).ok().filter(|&n| n > 0)?;
        request.extend_from_slice(&buffer[..read]);
        let end = request.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.split("content-length: ").nth(1);
    let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    while request.len() < head + length {
        let read = stream.read(&mut buffer).ok().filter(|&n| n > 0)?;
        request.extend_from_slice(&buffer[..read]);
    }
    Some((text.starts_with("post"), request[head..].to_vec()))
}

fn line(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// The list of a server that speaks protocol v0.
fn v0_refs(id: &str, capabilities: &str) -> Answer {
    let first = line(&format!("{id} HEAD\0{capabilities}\n"));
    let second = line(&format!("{id} {MAIN}\n"));
    let service = line("# service=git-upload-pack\n");
    Answer::refs(format!("{service}0000{first}{second}0000").as_bytes())
}

/// A repository with a folder and enough content for deltas.
fn web() -> (Upstream, Repository, String) {
    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let source = crate::support::generate::source(200_000, 1);
    let changed = [&source[..], b"more"].concat();
    let commit = repository.commit_on(
        MAIN,
        &[("src/a.rs", source.into()), ("src/b.rs", changed.into())],
    );
    repository.repack();
    (upstream, repository, commit)
}

/// What git's own server answers to a request, without HTTP.
fn upload_pack(repository: &Path, request: &[u8]) -> Answer {
    let mut command = git();
    command.args(["upload-pack", "--stateless-rpc"]);
    Answer::result(&stdout_of(command.arg(repository), request))
}

#[test]
fn an_old_server_with_few_capabilities_is_delivered_from() {
    trusting(|| {
        let (_upstream, repository, commit) = web();
        let expected = expected_entries(&repository, &commit);
        for capabilities in [
            "multi_ack thin-pack side-band side-band-64k ofs-delta shallow no-progress agent=git/1",
            "multi_ack thin-pack side-band-64k ofs-delta shallow",
            "side-band",
            "ofs-delta shallow",
            "multi_ack shallow",
            "agent=old/1",
            "",
        ] {
            let path = repository.path().to_owned();
            let refs = v0_refs(&commit, capabilities);
            let (url, posted) = serve(refs, move |request| upload_pack(&path, request));
            let built = build(&remote(&url, None), MAIN);
            assert_zip_equals(&built.zip, &expected, &commit);
            // Nothing is asked for that was not offered.
            let posted = posted.lock().unwrap();
            let request = String::from_utf8_lossy(&posted[0]).into_owned();
            let want = request.lines().next().unwrap();
            let asked = want.split(' ').skip(2).filter(|asked| !asked.is_empty());
            for asked in asked {
                let name = asked.split('=').next().unwrap();
                assert!(capabilities.contains(name), "{capabilities:?}: {want}");
            }
            assert_eq!(posted.len(), 1, "{capabilities:?}");
        }
    });
}

#[test]
fn an_answer_that_is_compressed_unasked_is_read_and_its_limits_hold() {
    trusting(|| {
        let (upstream, repository, commit) = web();
        let expected = expected_entries(&repository, &commit);
        let capabilities = "multi_ack_detailed side-band-64k thin-pack ofs-delta shallow";
        for encoding in ["gzip", "x-gzip", "GZIP", "deflate", "identity"] {
            let path = repository.path().to_owned();
            let of_result = encoding.to_owned();
            let backend = move |request: &[u8]| {
                let answer = upload_pack(&path, request);
                if of_result == "identity" {
                    return answer;
                }
                answer.compressed(&of_result)
            };
            let mut refs = v0_refs(&commit, capabilities);
            if encoding == "identity" {
                refs.headers += "Content-Encoding: identity\r\n";
            } else {
                refs = refs.compressed(encoding);
            }
            let (url, _) = serve(refs, backend);
            let built = build(&remote(&url, None), MAIN);
            assert_zip_equals(&built.zip, &expected, &commit);
        }
        drop(upstream);
        // What few bytes become is counted, not they.
        let id = "0".repeat(40);
        let name = "x".repeat(60_000);
        let lines = line(&format!("{id} refs/tags/{name}\n")).repeat(5_000);
        let bomb = Answer::refs(lines.as_bytes()).compressed("gzip");
        assert!(bomb.body.len() < 2 << 20, "{}", bomb.body.len());
        let (url, _) = serve(bomb, |_| Answer::result(b""));
        let error = remote(&url, None).connect().err().unwrap();
        let text = chain(&error);
        assert!(text.contains("of no use"), "{text}");
        // Nobody knows how to read this.
        let mut unknown = v0_refs(&commit, capabilities);
        unknown.headers += "Content-Encoding: br\r\n";
        let (url, _) = serve(unknown, |_| Answer::result(b""));
        let error = remote(&url, None).connect().err().unwrap();
        let text = chain(&error);
        assert!(text.contains("compressed as br"), "{text}");
        assert!(!error.is_transient(), "{text}");
    });
}

#[test]
fn other_object_ids_are_named_whatever_the_protocol() {
    trusting(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("APP/web.git");
        let init = |object_format: &str| {
            std::fs::remove_dir_all(&path).ok();
            let mut init = git();
            init.args(["init", "--quiet", "--bare", object_format]);
            stdout_of(init.arg(&path), b"");
        };
        for is_empty in [false, true] {
            init("--object-format=sha256");
            if !is_empty {
                let commit = |command: &[&str], input: &[u8]| {
                    let mut git = git();
                    let text = stdout_of(git.arg("--git-dir").arg(&path).args(command), input);
                    String::from_utf8(text).unwrap().trim().to_owned()
                };
                let tree = commit(&["mktree"], b"");
                let commit_id = commit(&["commit-tree", &tree, "-m", "a"], b"");
                commit(&["update-ref", MAIN, &commit_id], b"");
            }
            let server = GitServer::start(folder.path(), None);
            for v0 in [false, true] {
                server.speak_v0_only(v0);
                let connected = remote(&server.url("APP/web"), None).connect();
                let error = connected.err().expect("sha256 is none of ours");
                let text = chain(&error);
                assert_eq!(
                    text, "cannot fetch APP/web: its object ids are sha256; only sha1 is supported",
                    "v0: {v0}, empty: {is_empty}"
                );
                assert!(!error.is_transient());
            }
        }
    });
}

/// No address stands twice in a text, and no part between colons.
fn assert_says_nothing_twice(case: &str, text: &str) {
    assert!(
        text.matches("http").count() <= 1 || text.contains("HTTP"),
        "{case}: {text}"
    );
    assert!(text.matches("localhost:").count() <= 1, "{case}: {text}");
    let parts: Vec<_> = text.split([':', ';']).map(str::trim).collect();
    for (n, part) in parts.iter().enumerate() {
        let again = parts[n + 1..].contains(part);
        assert!(part.len() < 4 || !again, "{case}: twice {part:?}: {text}");
    }
    assert!(text.len() < 330 && !text.contains('\n'), "{case}: {text}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
fn what_is_no_list_of_refs_is_told_in_few_words() {
    trusting(|| {
        let html = "Content-Type: text/html; charset=utf-8\r\n";
        let page = b"<!DOCTYPE html><title>Login</title>";
        let none = |status| Answer::new(status, "", b"");
        let later = |status| Answer::new(status, "Retry-After: 120\r\n", b"");
        let service = line("# service=git-upload-pack\n");
        let refused = "ERR this repository is closed on Sundays\n";
        for (case, answer, kind, transient, says) in [
            (
                "a login page",
                Answer::new("200 OK", html, page),
                "repository_not_found",
                false,
                "it shows a web page, as a login page or a proxy does",
            ),
            (
                "XHTML",
                Answer::new("200 OK", "Content-Type: application/xhtml+xml\r\n", page),
                "repository_not_found",
                false,
                "web page",
            ),
            (
                "JSON",
                Answer::new("200 OK", "Content-Type: application/json\r\n", b"{}"),
                "repository_not_found",
                false,
                "it answers with application/json",
            ),
            (
                "nothing",
                none("204 No Content"),
                "repository_not_found",
                false,
                "its answer is empty",
            ),
            (
                "nothing, but 200",
                none("200 OK"),
                "repository_not_found",
                false,
                "its answer is empty",
            ),
            (
                "400",
                none("400 Bad Request"),
                "fetch",
                false,
                "the server answers 400 Bad Request",
            ),
            ("401", none("401 No"), "auth_failed", false, "wants a login"),
            ("403", none("403 No"), "auth_failed", false, "wants a login"),
            (
                "404",
                none("404 No"),
                "repository_not_found",
                false,
                "the server answers 404 Not Found",
            ),
            (
                "405",
                none("405 No"),
                "fetch",
                false,
                "405 Method Not Allowed",
            ),
            ("407", none("407 No"), "unreachable", false, "wants a login"),
            (
                "408",
                none("408 No"),
                "fetch",
                true,
                "408 Request Timeout, try again later",
            ),
            (
                "410",
                none("410 No"),
                "repository_not_found",
                false,
                "410 Gone",
            ),
            (
                "425",
                none("425 No"),
                "fetch",
                true,
                "425 Too Early, try again later",
            ),
            (
                "429",
                later("429 No"),
                "fetch",
                true,
                "429 Too Many Requests, try again later",
            ),
            (
                "451",
                none("451 No"),
                "repository_not_found",
                false,
                "451 Unavailable For Legal Reasons",
            ),
            (
                "500",
                none("500 No"),
                "fetch",
                true,
                "500 Internal Server Error, try again later",
            ),
            (
                "501",
                none("501 No"),
                "fetch",
                false,
                "the server answers 501 Not Implemented",
            ),
            (
                "502",
                Answer::new("502 No", html, page),
                "fetch",
                true,
                "502 Bad Gateway, try again later",
            ),
            (
                "503",
                later("503 No"),
                "fetch",
                true,
                "503 Service Unavailable, try again later",
            ),
            (
                "504",
                none("504 No"),
                "fetch",
                true,
                "504 Gateway Timeout, try again later",
            ),
            (
                "511",
                Answer::new("511 No", html, page),
                "unreachable",
                false,
                "log in with a web browser",
            ),
            (
                "no target",
                none("302 Found"),
                "repository_not_found",
                false,
                "its answer is empty",
            ),
            (
                "a relative target",
                Answer::new("302 Found", "Location: /login\r\n", b""),
                "repository_not_found",
                false,
                "it redirects to /login, and no redirect is followed",
            ),
            (
                "an error first",
                Answer::refs(line(refused).as_bytes()),
                "fetch",
                false,
                "this repository is closed on Sundays",
            ),
            (
                "an error behind the service",
                Answer::refs(format!("{service}0000{}", line(refused)).as_bytes()),
                "fetch",
                false,
                "this repository is closed on Sundays",
            ),
            (
                "an error behind the version",
                Answer::refs(
                    format!("{service}0000{}{}", line("version 2\n"), line(refused)).as_bytes(),
                ),
                "fetch",
                false,
                "this repository is closed on Sundays",
            ),
        ] {
            let (url, _) = serve(answer, move |_| none("500 No"));
            let error = remote(&url, None).connect().err();
            let error = error.unwrap_or_else(|| panic!("{case}: connected"));
            let text = chain(&error);
            println!("{case}: {text}");
            assert_eq!(
                (error.kind(), error.is_transient()),
                (kind, transient),
                "{case}: {text}"
            );
            assert!(text.contains(says), "{case}: {text}");
            assert_says_nothing_twice(case, &text);
            if kind == "repository_not_found" && !text.contains("redirects") {
                assert!(text.len() <= 220, "{case}: {} {text}", text.len());
            }
        }
    });
}

#[test]
fn an_error_in_words_is_told_wherever_it_stands() {
    trusting(|| {
        let (upstream, _repository, commit) = web();
        let words = "no packs on Sundays";
        let error = line(&format!("ERR {words}\n"));
        let shallow = line(&format!("shallow {commit}\n"));
        let band = |text: &str| line(&format!("\u{3}{text}\n"));
        let bodies = [
            ("first", error.clone()),
            ("behind a flush", format!("{shallow}0000{error}")),
            ("behind NAK", format!("{}{error}", line("NAK\n"))),
            ("in its band", format!("{}{}", line("NAK\n"), band(words))),
        ];
        let capabilities = "multi_ack_detailed side-band-64k thin-pack ofs-delta shallow";
        let fetch = |url: &str| -> Error {
            let mut connection = remote(url, None).connect().unwrap();
            let tip = connection.tip(&MAIN.parse().unwrap()).unwrap().unwrap();
            let fetched = connection.fetch(&tip, None, &Arc::default(), |wire| {
                let mut all = Vec::new();
                wire.read_to_end(&mut all).map(|_| all)
            });
            match fetched {
                Err(error) => error,
                // What a pack's reader makes of it.
                Ok(read) => Error::Job {
                    reason: read.expect_err("this is no pack").to_string(),
                },
            }
        };
        for (case, body) in bodies {
            let (url, _) = serve(v0_refs(&commit, capabilities), move |_| {
                Answer::result(body.as_bytes())
            });
            let text = chain(&fetch(&url));
            println!("v0 {case}: {text}");
            assert!(text.contains(words), "v0 {case}: {text}");
            assert_says_nothing_twice(case, &text);
        }
        let server = GitServer::start(upstream.root(), None);
        let url = server.url("APP/web");
        for (case, body) in [
            ("first", error.clone()),
            ("behind a flush", format!("0000{error}")),
            (
                "behind a headline",
                format!("{}{error}", line("shallow-info\n")),
            ),
            (
                "in its band",
                format!("{}{}", line("packfile\n"), band(words)),
            ),
        ] {
            server.clear_faults();
            server.fault(
                Op::Fetch,
                Fault::response(move |_| body.clone().into_bytes()),
            );
            let text = chain(&fetch(&url));
            println!("v2 {case}: {text}");
            assert!(text.contains(words), "v2 {case}: {text}");
            assert_says_nothing_twice(case, &text);
        }
        server.clear_faults();
        server.fault(
            Op::LsRefs,
            Fault::response(move |_| error.clone().into_bytes()),
        );
        let mut connection = remote(&url, None).connect().unwrap();
        let text = chain(&connection.tip(&MAIN.parse().unwrap()).unwrap_err());
        println!("v2 refs: {text}");
        assert!(text.contains(words), "{text}");
    });
}
