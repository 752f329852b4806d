//! A network that lies: certificates, redirects and answers that are none. What is said, whether to try again, and that the
//! login reaches nobody else.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use backlog_bridge::error::chain;
use base64::{Engine, prelude::BASE64_STANDARD};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{
    cases::Cases,
    product::remote,
    tls::{Ca, trusting},
};

const USER: &str = "robot@example.com";
const PASSWORD: &str = "p:a@s/s-never-to-be-seen";
const LOGIN: Option<(&str, &str)> = Some((USER, PASSWORD));

/// All that a server heard, in plain.
type Heard = Arc<Mutex<Vec<u8>>>;

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A server that hears whoever comes, and answers as it likes. Returns its port.
fn serve(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&mut dyn Write) + Send + Sync + 'static,
) -> (u16, Heard) {
    let (listener, port) = listen();
    let heard = Heard::default();
    let (log, answer) = (Arc::clone(&heard), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (tls, log, answer) = (tls.clone(), Arc::clone(&log), Arc::clone(&answer));
            thread::spawn(move || {
                let mut stream: TcpStream = stream.unwrap();
                let Some(tls) = tls else {
                    hear(&mut stream, &log);
                    return answer(&mut stream);
                };
                let tls = ServerConnection::new(tls).unwrap();
                let mut stream = StreamOwned::new(tls, stream);
                if hear(&mut stream, &log) {
                    answer(&mut stream);
                    stream.conn.send_close_notify();
                    stream.flush().ok();
                }
            });
        }
    });
    (port, heard)
}

fn hear(stream: &mut impl Read, log: &Heard) -> bool {
    let mut request = [0; 8192];
    let read = stream.read(&mut request);
    let read = read.unwrap_or_default();
    log.lock().unwrap().extend_from_slice(&request[..read]);
    read > 0
}

fn says(answer: &str) -> impl Fn(&mut dyn Write) + Send + Sync + use<> {
    let answer = answer.to_owned();
    move |stream| _ = stream.write_all(answer.as_bytes())
}

/// Connects with the login, which must fail like this. Returns what people read.
fn refuse(cases: &mut Cases, case: &str, port: u16, kind: &'static str, transient: bool) -> String {
    let from = remote(&format!("https://localhost:{port}/git/APP/web.git"), LOGIN);
    let class = if transient { "transient" } else { "permanent" };
    let error = cases.run(case, || {
        let error = from.connect().err();
        (error, "refused", format!("{kind}, {class}"))
    });
    let error = error.unwrap_or_else(|| panic!("{case}: connected"));
    let text = chain(&error);
    let found = (error.kind(), error.is_transient());
    assert_eq!(found, (kind, transient), "{case}: {text}");
    for secret in [PASSWORD, &basic()] {
        assert!(!text.contains(secret), "{case}: {text}");
    }
    text
}

fn basic() -> String {
    BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

#[test]
fn a_certificate_that_is_not_the_servers_is_refused_before_anything_is_said() {
    trusting(|| {
        let mut cases = Cases::new("certificates");
        let ca = Ca::new();
        let clock = "set the clock";
        for (case, names, years, words, advice) in [
            (
                "of another host",
                &["elsewhere.example"][..],
                (2000, 2999),
                "its certificate is not of this host but of elsewhere.example",
                "check the host's name",
            ),
            (
                "of a host below",
                &["a.localhost"],
                (2000, 2999),
                "a.localhost",
                "check the host's name",
            ),
            (
                "of no host",
                &[],
                (2000, 2999),
                "its certificate is not of this host",
                "check the host's name",
            ),
            (
                "expired",
                &["localhost"],
                (2000, 2001),
                "its certificate expired on 2001-01-01, says the clock of this machine (20",
                clock,
            ),
            (
                "not valid yet",
                &["localhost"],
                (2998, 2999),
                "its certificate is not valid yet, says the clock of this machine (20",
                clock,
            ),
        ] {
            let config = ca.server_config_for(names, years);
            let (port, heard) = serve(Some(config), says("HTTP/1.1 200 OK\r\n\r\n"));
            let text = refuse(&mut cases, case, port, "unreachable", true);
            println!("{case}: {text}");
            assert!(
                text.contains(words) && text.contains(advice),
                "{case}: {text}"
            );
            assert_eq!(heard.lock().unwrap().len(), 0, "{case}");
        }
        // It hears a greeting that holds no secret, and answers in plain.
        let (port, heard) = serve(None, says("HTTP/1.1 200 OK\r\n\r\n"));
        refuse(&mut cases, "none at all", port, "unreachable", true);
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(!heard.contains("Authorization") && !heard.contains(&basic()));
    });
}

#[test]
fn a_redirect_leads_nowhere_whatever_its_status_and_its_target() {
    trusting(|| {
        let mut cases = Cases::new("redirects");
        let ca = Ca::new();
        let (stranger, stranger_heard) = serve(Some(ca.server_config()), says(""));
        let (plain, plain_heard) = serve(None, says(""));
        let path = "/git/APP/web.git/info/refs?service=git-upload-pack";
        for status in [300, 301, 302, 303, 307, 308] {
            for (case, location) in [
                (
                    "another port",
                    format!("https://localhost:{stranger}{path}"),
                ),
                (
                    "another host",
                    format!("https://127.0.0.1:{stranger}{path}"),
                ),
                ("another scheme", format!("http://localhost:{plain}{path}")),
                ("a file", "file:///etc/passwd".to_owned()),
                ("no scheme", format!("//127.0.0.1:{stranger}{path}")),
                ("a login page", "/login".to_owned()),
                ("nothing", String::new()),
            ] {
                let answer = format!(
                    "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\
                     Connection: close\r\n\r\n"
                );
                let (port, heard) = serve(Some(ca.server_config()), says(&answer));
                let case = format!("{status} to {case}");
                refuse(&mut cases, &case, port, "repository_not_found", false);
                let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
                assert_eq!(heard.matches("GET /").count(), 1, "{case}: {heard}");
            }
        }
        assert_eq!(stranger_heard.lock().unwrap().len(), 0);
        assert_eq!(plain_heard.lock().unwrap().len(), 0);
    });
}

#[test]
fn an_answer_that_is_none_of_gits_is_refused_soon() {
    trusting(|| {
        let mut cases = Cases::new("answers");
        let ca = Ca::new();
        let page = "Content-Type: text/html\r\nContent-Length: 15\r\n\r\n<!DOCTYPE html>";
        let git = "Content-Type: application/x-git-upload-pack-advertisement\r\nConnection: close";
        for (case, answer, kind, transient) in [
            (
                "429 and when to come again",
                "HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n".into(),
                "fetch",
                true,
            ),
            (
                "503 and when to come again",
                "HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n".into(),
                "fetch",
                true,
            ),
            (
                "a login page",
                format!("HTTP/1.1 200 OK\r\n{page}"),
                "repository_not_found",
                false,
            ),
            (
                "401 with a page",
                format!("HTTP/1.1 401 No\r\n{page}"),
                "auth_failed",
                false,
            ),
            (
                "403 with a page",
                format!("HTTP/1.1 403 No\r\n{page}"),
                "auth_failed",
                false,
            ),
            (
                "404 with a page",
                format!("HTTP/1.1 404 No\r\n{page}"),
                "repository_not_found",
                false,
            ),
            (
                "no HTTP",
                "220 mail.example.com ESMTP\r\n".into(),
                "fetch",
                true,
            ),
            ("half a status", "HTTP/1.1 2".into(), "fetch", true),
            (
                "no refs",
                format!("HTTP/1.1 200 OK\r\n{git}\r\n\r\n"),
                "fetch",
                true,
            ),
            (
                "a length that is none",
                format!("HTTP/1.1 200 OK\r\n{git}\r\n\r\nzzzz"),
                "fetch",
                false,
            ),
            (
                "a length of one",
                format!("HTTP/1.1 200 OK\r\n{git}\r\n\r\n0001"),
                "fetch",
                false,
            ),
            (
                "a line that is cut",
                format!("HTTP/1.1 200 OK\r\n{git}\r\n\r\nfff0version 2\n"),
                "fetch",
                true,
            ),
            (
                "another version",
                format!("HTTP/1.1 200 OK\r\n{git}\r\n\r\n000eversion 9\n0000"),
                "repository_not_found",
                false,
            ),
            (
                "an error in words",
                format!("HTTP/1.1 200 OK\r\n{git}\r\n\r\n000fERR no such"),
                "fetch",
                false,
            ),
        ] {
            let (port, _) = serve(Some(ca.server_config()), says(&answer));
            refuse(&mut cases, case, port, kind, transient);
        }
        let (port, _) = serve(Some(ca.server_config()), |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").ok();
            while stream
                .write_all(&b"X-More: of the same\r\n".repeat(1_000))
                .is_ok()
            {}
        });
        refuse(&mut cases, "endless headers", port, "fetch", true);
        let closed = listen().1;
        refuse(&mut cases, "nobody", closed, "unreachable", true);
    });
}

#[test]
fn a_server_that_keeps_us_waiting_is_left_at_the_deadline() {
    trusting(|| {
        let mut cases = Cases::new("waiting");
        let ca = Ca::new();
        let pause = Duration::from_millis(50);
        let drip = move |stream: &mut dyn Write, text: &str| {
            for byte in text.bytes().cycle() {
                if stream
                    .write_all(&[byte])
                    .and_then(|()| stream.flush())
                    .is_err()
                {
                    break;
                }
                thread::sleep(pause);
            }
        };
        let silent = |_: &mut dyn Write| thread::sleep(Duration::from_mins(1));
        let headers = move |stream: &mut dyn Write| drip(stream, "HTTP/1.1 200 OK\r\nX: y\r\n");
        let body = move |stream: &mut dyn Write| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n";
            stream.write_all(head.as_bytes()).ok();
            drip(stream, "001e# service=git-upload-pack\n0000");
        };
        let greeting = listen();
        let ports = [
            ("before the greeting", greeting.1),
            (
                "before the headers",
                serve(Some(ca.server_config()), silent).0,
            ),
            ("in the headers", serve(Some(ca.server_config()), headers).0),
            ("in the body", serve(Some(ca.server_config()), body).0),
        ];
        for (case, port) in ports {
            let mut from = remote(&format!("https://localhost:{port}/git/APP/web.git"), LOGIN);
            from.deadline = Some(Instant::now() + Duration::from_millis(300));
            let error = cases.run(case, || {
                let error = from.connect().err();
                let kind = error.as_ref().map_or("", |error| error.kind());
                (error, "refused", format!("{kind}, transient"))
            });
            let error = error.unwrap_or_else(|| panic!("{case}: connected"));
            assert!(error.is_transient(), "{case}: {}", chain(&error));
        }
    });
}
