//! The bridge as one process on a laptop.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use backlog_bridge::webhook::MAX_BODY_BYTES;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    MAIN,
    generate::noise,
    git_server::{Fault, GitServer, Op},
    process::wait_within,
    service::{Service, TOKEN, project_push},
    upstream::{Repository, Upstream},
};

const LIMIT: Duration = Duration::from_mins(1);

/// `serve` in a folder of its own.
pub(crate) struct Serving {
    child: Child,
    /// Where webhooks are posted to, without the token.
    pub(crate) hooks: String,
    pub(crate) token: String,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    client: reqwest::blocking::Client,
}

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) upstream: Upstream,
    pub(crate) repository: Repository,
}

impl Place {
    pub(crate) fn new() -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        let folder = tempfile::tempdir().unwrap();
        let place = Self {
            folder,
            upstream,
            repository,
        };
        place.route(MAIN);
        place
    }

    fn route(&self, ref_name: &str) {
        let text = format!(
            "[[space]]\nurl = \"file://{}\"\n[[route]]\nname = \"web\"\nrepository = \"APP/web\"\nref = \"{ref_name}\"\n\
             object = \"web.zip\"\n",
            self.upstream.root().display()
        );
        fs::write(self.folder.path().join("routes.toml"), text).unwrap();
    }

    pub(crate) fn serve(&self, arguments: &[&str], vars: &[(&str, &str)]) -> Serving {
        let mut child = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"))
            .current_dir(self.folder.path())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env_remove("WEBHOOK_TOKEN")
            .env_remove("SOURCE_BUCKET")
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, stdout) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                lines.send(line).ok();
            }
        });
        let stderr = Arc::<Mutex<String>>::default();
        let (mut err, text) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = err.read(&mut bytes) {
                let read = String::from_utf8_lossy(&bytes[..read]);
                text.lock().unwrap().push_str(&read);
            }
        });
        let mut serving = Serving {
            child,
            hooks: String::new(),
            token: String::new(),
            stdout,
            stderr,
            client: reqwest::blocking::Client::builder()
                .no_proxy()
                .timeout(LIMIT)
                .build()
                .unwrap(),
        };
        let text = serving.wait_for("Ctrl-C stops");
        let url = text.split_once("webhook URL: ").unwrap().1;
        let (hooks, token) = url.lines().next().unwrap().rsplit_once('/').unwrap();
        serving.hooks = hooks.into();
        serving.token = token.into();
        serving
    }

    fn versions(&self) -> usize {
        let object = self
            .folder
            .path()
            .join("backlog-bridge-store/sources/web.zip");
        let Ok(folders) = fs::read_dir::<PathBuf>(object) else {
            return 0;
        };
        folders
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with('@')
            })
            .count()
    }
}

impl Serving {
    /// What it wrote for people, once that holds `wanted`.
    pub(crate) fn wait_for(&self, wanted: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let text = self.stderr.lock().unwrap().clone();
            if text.contains(wanted) {
                return text;
            }
            assert!(Instant::now() < end, "no {wanted:?} in: {text}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line for programs, if there is one by now.
    pub(crate) fn try_line(&self) -> Option<Value> {
        let line = self.stdout.try_recv().ok()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next line for programs.
    pub(crate) fn line(&self) -> Value {
        let line = self.stdout.recv_timeout(LIMIT);
        let line = line.unwrap_or_else(|_| panic!("{}", self.stderr.lock().unwrap()));
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn post(&self, token: &str, body: String) -> (u16, String) {
        let url = format!("{}/{token}", self.hooks);
        post(&self.client, &url, body)
    }

    /// What posts a webhook, from any thread.
    pub(crate) fn poster(&self) -> impl Fn(String) -> (u16, String) + Send + Sync + use<> {
        let (client, url) = (
            self.client.clone(),
            format!("{}/{}", self.hooks, self.token),
        );
        move |body| post(&client, &url, body)
    }

    fn push(&self, commit: &str) -> (u16, String) {
        self.post(&self.token, project_push("update", MAIN, &[commit]))
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended after a signal, and all that it wrote for people.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        self.signal("-TERM");
        let status = wait_within(&mut self.child, LIMIT).expect("it stops");
        thread::sleep(Duration::from_millis(50));
        let text = self.stderr.lock().unwrap().clone();
        (status.code(), text)
    }
}

fn post(client: &reqwest::blocking::Client, url: &str, body: String) -> (u16, String) {
    let answer = client.post(url).body(body).send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_webhook_is_accepted_and_delivered_and_each_outcome_is_a_line() {
    let place = Place::new();
    let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    // The sweep at the start finds it already; the event is then one of nothing new.
    let line = serving.line();
    assert_eq!(
        (&line["outcome"], &line["commit"]),
        (&json!("published"), &json!(commit))
    );
    let (status, body) = serving.push(&commit);
    assert_eq!((status, &*body), (202, r#"{"accepted":["web"]}"#));
    assert_eq!(serving.line()["outcome"], "already_current");

    let next = place.repository.commit_on(MAIN, &[("a", "b".into())]);
    let (status, body) = serving.push(&next);
    println!("POST /hooks/…  ->  {status} {body}");
    let line = serving.line();
    println!("{line}");
    assert_eq!(
        (&line["outcome"], &line["commit"]),
        (&json!("published"), &json!(next))
    );
    assert_eq!(place.versions(), 2);

    let token = serving.token.clone();
    let (code, text) = serving.stop();
    println!("{text}");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("accepted for web, in"), "{text}");
    assert!(
        text.contains("sweep: repositories 1, objects 1, differed 1"),
        "{text}"
    );
    assert!(
        text.contains(&format!("/hooks/{token}")),
        "the token is shown: {text}"
    );
    assert!(!text.contains("marker"), "nothing of a body: {text}");
}

/// How long the second look may take to come and be delivered, a minute after the first.
const SECOND_LOOK: Duration = Duration::from_secs(75);

#[test]
fn what_looks_older_is_delivered_a_minute_later_and_it_is_said_why_it_waits() {
    let place = Place::new();
    let table = place.folder.path().join("routes.toml");
    let space = format!(
        "[[space]]\nurl = \"file://{}\"\n",
        place.upstream.root().display()
    );
    let route = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nrepository = \"APP/web\"\nref = \"refs/heads/{name}\"\nobject = \"{name}.zip\"\n"
        )
    };
    fs::write(&table, space + &route("main") + &route("behind")).unwrap();
    let (first, second, third) = ("refs/heads/main", "refs/heads/main", "refs/heads/behind");
    let a = place.repository.commit_on(first, &[("a", "a".into())]);
    let b = place.repository.commit_on(second, &[("a", "b".into())]);
    let c = place.repository.commit_on(third, &[("c", "c".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    let held = [serving.line(), serving.line()].map(|line| line["commit"].clone());
    assert!(
        held.contains(&json!(b)) && held.contains(&json!(c)),
        "{held:?}"
    );

    // A force push back; and a push from a laptop whose clock is behind.
    let pushed = Instant::now();
    place.repository.set_ref(first, &a);
    let behind = Upstream::at(place.upstream.root()).repository("APP/web");
    let d = behind.commit_on(third, &[("c", "d".into())]);
    for (ref_name, tip, held) in [(first, &a, &b), (third, &d, &c)] {
        let body = project_push("update", ref_name, &[tip]);
        assert_eq!(serving.post(&serving.token, body).0, 202);
        let line = serving.line();
        assert_eq!(line["outcome"], "already_current", "{line}");
        assert_eq!(line["reason"], "the server shows an older commit", "{line}");
        assert_eq!((&line["tip"], &line["commit"]), (&json!(tip), &json!(held)));
    }
    serving.wait_for("backlog-bridge sync main --now");
    assert!(pushed.elapsed() < Duration::from_secs(10));
    for _ in 0..2 {
        let line = serving.stdout.recv_timeout(SECOND_LOOK).unwrap();
        let took = pushed.elapsed();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["outcome"], "published", "{line}");
        let tip = if line["route"] == "main" { &a } else { &d };
        assert_eq!(line["commit"], json!(tip), "{line}");
        println!("{} after {took:.1?}", line["route"]);
        let minute = Duration::from_mins(1);
        assert!(minute <= took && took < SECOND_LOOK, "{took:?}");
    }
    assert_eq!(serving.stop().0, Some(0));
}

#[test]
fn duplicates_make_one_version_and_a_sweep_finds_what_no_event_told_of() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "1"], &[]);
    assert_eq!(serving.line()["outcome"], "published");
    let commit = place.repository.commit_on(MAIN, &[("a", "b".into())]);
    for _ in 0..20 {
        assert_eq!(serving.push(&commit).0, 202);
    }
    let outcomes: Vec<_> = (0..20).map(|_| serving.line()["outcome"].clone()).collect();
    let published = outcomes.iter().filter(|outcome| *outcome == "published");
    assert!(published.count() <= 1, "{outcomes:?}");
    assert_eq!(place.versions(), 2);
    // Nobody tells of this one.
    let commit = place.repository.commit_on(MAIN, &[("a", "c".into())]);
    let found = (0..10).any(|_| serving.line()["commit"] == commit);
    assert!(found);
    assert_eq!(place.versions(), 3);
}

#[test]
fn a_token_of_ones_own_is_not_shown_and_others_find_nothing() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let token = "a-token-of-ones-own-0123";
    let serving = place.serve(&[], &[("WEBHOOK_TOKEN", token)]);
    assert_eq!(serving.token, "TOKEN");
    let push = || project_push("update", MAIN, &[]);
    assert_eq!(serving.post("another-token-of-somebody", push()).0, 404);
    assert_eq!(serving.post(token, push()).0, 202);
    assert_eq!(serving.post(token, "{".into()).0, 400);
    let long = format!("payload={}", "x".repeat(MAX_BODY_BYTES));
    assert_eq!(serving.post(token, long).0, 413);
    let login = serving
        .client
        .post(&serving.hooks)
        .basic_auth("backlog", Some(token));
    assert_eq!(login.body(push()).send().unwrap().status().as_u16(), 202);
    let (_, text) = serving.stop();
    assert!(!text.contains(token), "{text}");
}

#[test]
fn a_new_routing_table_counts_at_once_and_a_wrong_one_is_told_of() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    assert_eq!(serving.line()["outcome"], "published");
    place.route("refs/heads/other");
    let (status, body) = serving.push(&"1".repeat(40));
    assert_eq!((status, &*body), (200, r#"{"ignored":"no route matches"}"#));
    fs::write(place.folder.path().join("routes.toml"), "[[route]]\n").unwrap();
    // It may be a push that the table takes once it is mended.
    let (status, body) = serving.push(&"1".repeat(40));
    assert_eq!(status, 503, "{body}");
    let text = serving.wait_for("the routing table cannot be used");
    assert!(text.contains("routes.toml"), "{text}");
    place.route(MAIN);
    assert_eq!(serving.push(&"1".repeat(40)).0, 202, "mended, at once");
    // One of another space.
    let event = format!("{}/events/git-push-update.form", env!("CARGO_MANIFEST_DIR"));
    let (status, body) = serving.post(&serving.token, fs::read_to_string(event).unwrap());
    let reason = format!(
        r#"{{"ignored":"no space of the table is https://example.backlog.com/git; it has file://{}"}}"#,
        place.upstream.root().display()
    );
    assert_eq!((status, body), (200, reason));
}

#[test]
fn a_table_that_is_broken_or_mended_is_told_of_before_anybody_pushes() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    assert_eq!(serving.line()["outcome"], "published");
    let table = place.folder.path().join("routes.toml");
    let right = fs::read(&table).unwrap();
    let (sjis, _, _) = encoding_rs::SHIFT_JIS.encode("# 開発\n");
    for (case, spoiled, said) in [
        (
            "wrong",
            Some(&b"[[route]]\n"[..]),
            "routes.toml:1: missing field `ref`",
        ),
        (
            "Shift_JIS",
            Some(&*sjis),
            "it is probably Shift_JIS and should be UTF-8; convert it: iconv -f CP932",
        ),
        ("gone", None, "it was there and is gone"),
    ] {
        let before = serving.stderr.lock().unwrap().len();
        let told = || serving.stderr.lock().unwrap()[before..].to_owned();
        match spoiled {
            Some(text) => fs::write(&table, text).unwrap(),
            None => fs::remove_file(&table).unwrap(),
        }
        wait_until(|| told().contains(said), || format!("{case}: {}", told()));
        fs::write(&table, &right).unwrap();
        let mended = "routes.toml is used again, 1 route\n";
        wait_until(|| told().contains(mended), || format!("{case}: {}", told()));
        assert_eq!(
            told()
                .matches("warning: the routing table cannot be used")
                .count(),
            1,
            "{case}: {}",
            told()
        );
    }
    fs::write(&table, [&right[..], b"# x\n"].concat()).unwrap();
    serving.wait_for("routes.toml has changed, 1 route\n");
    let (_, text) = serving.stop();
    assert!(!text.contains("WARN"), "{text}");
    for line in text.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        let is_time = time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T';
        assert!(is_time, "{line}");
    }
}

/// Waits for what should be so within about a second, on a machine that may be busy.
fn wait_until(is_so: impl Fn() -> bool, or_else: impl Fn() -> String) {
    let end = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < end, "{}", or_else());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_listens_at_a_name_or_a_port() {
    for (address, expected) in [
        ("localhost:0", "listening on "),
        ("0", "listening on 127.0.0.1:"),
        (":0", "listening on 127.0.0.1:"),
    ] {
        let place = Place::new();
        let mut child = with_streams(&place, (Stdio::null(), Stdio::piped()), address, &[], &[]);
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.contains(expected), "{address}: {line}");
    }
}

#[test]
fn what_is_wrong_at_the_start_is_said_and_ends_with_2() {
    let place = Place::new();
    let run = |listen: &str, vars: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"))
            .current_dir(place.folder.path())
            .args(["serve", "--listen", listen])
            .envs(vars.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, vars, said) in [
        (&*address, &[][..], "name another address with --listen"),
        (
            "here",
            &[],
            "expected an address as 127.0.0.1:8080, localhost:8080",
        ),
        (
            "127.0.0.1:0",
            &[("WEBHOOK_TOKEN", "short")],
            "WEBHOOK_TOKEN: expected a token of at least 16",
        ),
    ] {
        let (code, text) = run(listen, vars);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("\"short\""), "{text}");
    }
}

#[test]
fn stopping_waits_for_what_runs_and_says_what_is_left() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let server = GitServer::start(place.upstream.root(), None);
    let routes = place.folder.path().join("routes.toml");
    let text = fs::read_to_string(&routes).unwrap();
    let on_disk = format!("file://{}", place.upstream.root().display());
    let glob =
        "[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/x/*\"\nobject = \"{ref}.zip\"\n";
    fs::write(&routes, text.replace(&on_disk, &server.space_url()) + glob).unwrap();
    let ca = server.ca_file();
    let trust = [("SSL_CERT_FILE", ca.to_str().unwrap())];
    let serving = place.serve(&["--sweep-seconds", "3600"], &trust);
    assert_eq!(serving.line()["outcome"], "published");
    // A pack that takes three seconds.
    let content = noise(600_000, 1);
    let commit = place.repository.commit_on(MAIN, &[("a", content.into())]);
    server.fault_once(Op::Fetch, Fault::Drip(20_000, Duration::from_millis(100)));
    let (begins, begun) = channel();
    server.before(Op::Fetch, 1, move || {
        let _ = begins.send(());
    });
    assert_eq!(serving.push(&commit).0, 202);
    // And a ref that is looked for, for longer.
    let gone = project_push("create", "refs/heads/x/1", &[]);
    assert_eq!(serving.post(&serving.token, gone).0, 202);
    begun
        .recv_timeout(Duration::from_mins(1))
        .expect("the fetch begins");
    serving.wait_for("does not show this ref");
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    let (code, text) = serving.stop();
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "it did not wait: {text}"
    );
    assert!(
        text.contains("stopping: waiting for deliveries that run (1)"),
        "{text}"
    );
    assert!(text.contains("stopped; jobs not handled: 1;"), "{text}");
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(place.versions(), 2);

    // What only waits for a Git server to catch up ends at once, and is made up for by the next start.
    place.route(MAIN);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    assert_eq!(serving.push(&"1".repeat(40)).0, 202);
    thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    let (code, text) = serving.stop();
    assert!(started.elapsed() < Duration::from_secs(2), "{text}");
    assert_eq!(code, Some(1), "{text}");

    fs::write(
        &routes,
        fs::read_to_string(&routes)
            .unwrap()
            .replace(&on_disk, &server.space_url()),
    )
    .unwrap();
    server.fault(Op::Handshake, Fault::Hang);
    let serving = place.serve(&["--sweep-seconds", "3600"], &trust);
    assert_eq!(serving.push(&"1".repeat(40)).0, 202);
    thread::sleep(Duration::from_millis(500));
    serving.signal("-INT");
    serving.wait_for("stop again to end at once");
    let started = Instant::now();
    let (code, text) = serving.stop();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "it did not wait: {text}"
    );
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn whoever_connects_and_says_nothing_keeps_no_webhook_out() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    assert_eq!(serving.line()["outcome"], "published");
    let url: reqwest::Url = serving.hooks.parse().unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let silent: Vec<_> = (0..300)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    let commit = place.repository.commit_on(MAIN, &[("a", "b".into())]);
    let started = Instant::now();
    assert_eq!(serving.push(&commit).0, 202);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(serving.line()["outcome"], "published");
    let open = fs::read_dir(format!("/proc/{}/fd", serving.child.id()));
    if let Ok(open) = open {
        let open = open.count();
        assert!(open < 150, "{open} files are open");
    }
    drop(silent);
}

/// The three that take webhooks ask one function what a webhook asks for.
#[test]
fn receive_serve_and_invoke_give_the_same_reasons() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(Service::start());
    let activity = |kind: u64| json!({"id": 1, "type": kind, "content": {}}).to_string();
    let test = json!({"id": 10, "type": 1, "project": {"projectKey": "TEST"}, "content": {}});
    for (case, body, expected) in [
        (
            "no route",
            project_push("update", "refs/heads/of-no-route", &[]),
            "no route matches",
        ),
        (
            "a deletion",
            project_push("delete", MAIN, &[]),
            "the ref was deleted",
        ),
        (
            "the test button",
            test.to_string(),
            "test delivery received: the webhook works",
        ),
        ("an issue", activity(1), "issue created (type 1)"),
        (
            "a pull request",
            activity(18),
            "pull request created (type 18)",
        ),
        ("a type to come", activity(99), "type 99 is not a push"),
    ] {
        let path = format!("/hooks/{TOKEN}");
        let (status, receive) = runtime.block_on(service.post(&path, &body));
        assert_eq!(status, 200, "{case}");
        let (status, serve) = serving.post(&serving.token, body.clone());
        assert_eq!(status, 200, "{case}");
        let serve: Value = serde_json::from_str(&serve).unwrap();
        fs::write(place.folder.path().join("event"), &body).unwrap();
        let invoke = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"))
            .current_dir(place.folder.path())
            .args(["invoke", "event", "--store", "another"])
            .env_remove("SOURCE_BUCKET")
            .output()
            .unwrap();
        let invoke: Value = serde_json::from_slice(&invoke.stdout).unwrap();
        println!("{case}: {receive} {serve} {}", invoke["reason"]);
        let reasons = [&receive["ignored"], &serve["ignored"], &invoke["reason"]];
        assert_eq!(reasons, [expected; 3], "{case}");
    }
}

/// `serve` with other ends of its streams than those that are read here.
pub(crate) fn with_streams(
    place: &Place,
    (stdout, stderr): (Stdio, Stdio),
    address: &str,
    arguments: &[&str],
    vars: &[(&str, &str)],
) -> Child {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
    serve
        .current_dir(place.folder.path())
        .args(["serve", "--sweep-seconds", "3600", "--listen", address])
        .args(arguments)
        .env("WEBHOOK_TOKEN", TOKEN)
        .envs(vars.iter().copied())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    serve.spawn().unwrap()
}

/// An address where nobody listens.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn who_does_not_read_its_lines_costs_lines_and_nothing_else() {
    /// More than a pipe takes, whose lines are short.
    const PUSHES: usize = 3_000;
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(LIMIT)
        .build()
        .unwrap();
    let full = || {
        Stdio::from(
            fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    let cases: [(&str, Stdio, Stdio); 3] = [
        ("nobody reads", Stdio::piped(), Stdio::piped()),
        ("whoever read is gone", Stdio::piped(), Stdio::piped()),
        ("no room", full(), full()),
    ];
    for (case, stdout, stderr) in cases {
        let place = Place::new();
        place.repository.commit_on(MAIN, &[("a", "a".into())]);
        let address = free_address();
        let mut child = with_streams(&place, (stdout, stderr), &address, &[], &[]);
        if case == "whoever read is gone" {
            drop((child.stdout.take(), child.stderr.take()));
        }
        let url = format!("http://{address}/hooks/{TOKEN}");
        let end = Instant::now() + LIMIT;
        while place.versions() == 0 || client.get(&url).send().is_err() {
            assert!(Instant::now() < end, "{case}: it does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..PUSHES {
            let unrouted = project_push("update", "refs/heads/other", &[]);
            assert_eq!(post(&client, &url, unrouted).0, 200, "{case}");
        }
        let commit = place.repository.commit_on(MAIN, &[("a", "b".into())]);
        let push = project_push("update", MAIN, &[&commit]);
        assert_eq!(post(&client, &url, push).0, 202, "{case}");
        while place.versions() < 2 {
            assert!(Instant::now() < end, "{case}: nothing is delivered");
            thread::sleep(Duration::from_millis(20));
        }
        let started = Instant::now();
        let killed = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let status = wait_within(&mut child, LIMIT)
            .unwrap_or_else(|| panic!("{case}: SIGTERM does nothing"));
        println!(
            "{case}: {PUSHES} webhooks and a delivery, SIGTERM after them {:.1?}",
            started.elapsed()
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{case}");
        assert_eq!(status.code(), Some(0), "{case}");
        if case == "nobody reads" {
            let mut text = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert!(text.contains("listening on"), "{text}");
        }
    }
}

#[test]
fn a_closed_terminal_ends_it_as_a_service_manager_does_unless_it_is_to_outlive_that() {
    for (case, start, code) in [
        ("closed", "exec \"$0\" \"$@\"", Some(0)),
        ("nohup", "trap '' HUP; exec \"$0\" \"$@\"", None),
    ] {
        let place = Place::new();
        place.repository.commit_on(MAIN, &[("a", "a".into())]);
        let mut child = Command::new("sh")
            .current_dir(place.folder.path())
            .args(["-c", start, env!("CARGO_BIN_EXE_backlog-bridge")])
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("published"), "{case}: {line}");
        let sent = Command::new("kill")
            .args(["-HUP", &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let ended = wait_within(&mut child, Duration::from_secs(2));
        assert_eq!(ended.and_then(|status| status.code()), code, "{case}");
        child.kill().ok();
        child.wait().unwrap();
    }
}

#[test]
fn a_client_that_closes_its_end_gets_its_answer() {
    use std::{
        io::Write,
        net::{Shutdown, TcpStream},
    };
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    let (host, path) = serving
        .hooks
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let body = project_push("update", "refs/heads/other", &[]);
    for n in 0..50 {
        let mut stream = TcpStream::connect(host).unwrap();
        let request = format!(
            "POST /{path}/{} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}",
            serving.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{n}: {answer}");
    }
}

#[test]
fn an_address_that_is_taken_leaves_nothing_behind() {
    let place = Place::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut child = with_streams(&place, (Stdio::null(), Stdio::piped()), &address, &[], &[]);
    assert_eq!(wait_within(&mut child, LIMIT).unwrap().code(), Some(2));
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.contains("name another address with --listen"),
        "{text}"
    );
    assert!(!place.folder.path().join("backlog-bridge-store").exists());
}

#[test]
fn a_store_that_is_deleted_or_replaced_is_noticed_and_never_shared() {
    for case in ["deleted", "moved, and another one in its place"] {
        let place = Place::new();
        place.repository.commit_on(MAIN, &[("a", "a".into())]);
        let mut first = place.serve(&["--sweep-seconds", "3600"], &[]);
        assert_eq!(first.line()["outcome"], "published");
        let store = place.folder.path().join("backlog-bridge-store");
        let second = if case == "deleted" {
            fs::remove_dir_all(&store).unwrap();
            None
        } else {
            fs::rename(&store, place.folder.path().join("moved")).unwrap();
            Some(place.serve(&["--sweep-seconds", "3600"], &[]))
        };
        let text = first.wait_for("stopped: ");
        assert!(
            text.contains("was deleted, moved or replaced while it was in use: start again"),
            "{text}"
        );
        let status = wait_within(&mut first.child, LIMIT).unwrap();
        assert_eq!(status.code(), Some(1), "{case}");
        if let Some(second) = second {
            assert_eq!(second.line()["outcome"], "published");
            assert_eq!(place.versions(), 1, "{case}");
            assert_eq!(second.stop().0, Some(0));
        }
    }
}

#[test]
fn a_webhook_and_its_delivery_have_one_id_and_what_works_again_is_told() {
    let place = Place::new();
    let server = GitServer::start(place.upstream.root(), None);
    let text = fs::read_to_string(place.folder.path().join("routes.toml")).unwrap();
    let root = format!("file://{}", place.upstream.root().display());
    let text = text.replace(&root, &server.space_url());
    fs::write(place.folder.path().join("routes.toml"), text).unwrap();
    let ca = server.ca_file();
    let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
    let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[trust]);
    let swept = serving.line();
    assert_eq!(
        (&swept["outcome"], &swept["request_id"]),
        (&json!("published"), &Value::Null),
        "nobody asked for it"
    );
    server.fault_once(Op::Handshake, Fault::Status(500));
    serving.push(&commit);
    let failed = serving.line();
    assert_eq!(failed["outcome"], "failed");
    let id = failed["request_id"].as_str().unwrap()[..8].to_owned();
    let text = serving.wait_for("trying again in");
    for line in [
        " webhook: APP/web refs/heads/main: accepted for web",
        " web: failed: ",
    ] {
        assert!(text.contains(&format!("Z {id}{line}")), "{line}: {text}");
    }
    // It is tried again after a while; a push is one, too.
    serving.push(&commit);
    let text = serving.wait_for("is delivered again, after 1 failure since ");
    let well = [serving.line(), serving.line()];
    let ids: Vec<_> = well
        .iter()
        .map(|line| line["request_id"].as_str())
        .collect();
    assert!(
        ids.contains(&failed["request_id"].as_str()),
        "{ids:?}: {text}"
    );
    assert_eq!(text.matches("is delivered again").count(), 1, "{text}");
}

#[test]
fn a_load_balancer_is_told_whether_the_bridge_is_well() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--health", "127.0.0.1:0"], &[]);
    let text = serving.wait_for("health: ");
    let url = text
        .split_once("health: ")
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap();
    let ask = |path: &str| {
        let answer = serving.client.get(format!("{url}{path}")).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    assert_eq!(ask(""), (200, String::new()));
    assert_eq!(ask("hooks"), (404, String::new()));
    let posted = serving.client.post(url).body("{}").send().unwrap();
    assert_eq!(posted.status().as_u16(), 405);
    // A webhook goes to the other port alone, and that has no health.
    let other = serving.hooks.replace("/hooks", "/");
    let answer = serving.client.get(other).send().unwrap();
    assert_eq!(answer.status().as_u16(), 404);
    // With a table that is broken, what the last good one takes is taken.
    fs::write(place.folder.path().join("routes.toml"), "broken").unwrap();
    serving.wait_for("warning: ");
    assert_eq!(ask(""), (200, String::new()));
    assert_eq!(serving.stop().0, Some(0));
}

#[test]
fn what_is_tidied_up_in_a_store_is_made_again() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    assert_eq!(serving.line()["outcome"], "published");
    fs::remove_dir_all(
        place
            .folder
            .path()
            .join("backlog-bridge-store/.backlog-bridge/tmp"),
    )
    .unwrap();
    let commit = place.repository.commit_on(MAIN, &[("a", "b".into())]);
    serving.push(&commit);
    assert_eq!(serving.line()["outcome"], "published");
    assert_eq!(serving.stop().0, Some(0));
}

#[test]
fn a_routing_table_that_cannot_be_read_to_its_end_keeps_no_webhook_waiting() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "3600"], &[]);
    assert_eq!(serving.line()["outcome"], "published");
    let routes = place.folder.path().join("routes.toml");
    fs::remove_file(&routes).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&routes)
            .status()
            .unwrap()
            .success()
    );
    for n in 0..20 {
        let started = Instant::now();
        // What the last good table takes is taken, and nobody knows of anything else.
        assert_eq!(serving.push(&n.to_string().repeat(40)[..40]).0, 202);
        let other = project_push("update", "refs/heads/other", &[]);
        assert_eq!(serving.post(&serving.token, other).0, 503);
        assert!(started.elapsed() < Duration::from_secs(5), "{n}");
    }
    let told = "warning: no routing table: routes.toml: it cannot be read";
    let text = serving.wait_for(told);
    assert_eq!(text.matches(told).count(), 1, "told once: {text}");
}
