//! `webhook …`: the bridge's webhooks in a space of Backlog, and who is not told of keys and tokens.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    BUCKET,
    aws_api::AwsApi,
    backlog::{ADMIN_KEY, Fault, ROBOT_KEY, TestBacklog},
    process::run_within,
    s3::{ACCESS_KEY, SECRET_KEY, TestS3},
    secrets::TestSecrets,
    service::TOKEN,
    tls::Ca,
};

const LIMIT: Duration = Duration::from_mins(1);
const HOOKS: &str = "https://bridge.example/prod/hooks";
const OLD: &str = "sentinel-token-that-was-there-before";
const FOREIGN: &str = "https://chat.example/hooks/sentinel-of-somebody-else";

/// Somebody who administers projects.
struct Admin {
    folder: TempDir,
    ca: Ca,
    space: TestBacklog,
    /// What was ever said, for the search for secrets.
    said: std::cell::RefCell<String>,
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Project, result, and token of each line.
    fn results(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let lines = self.lines();
        let results = lines.iter().map(|line| {
            let parts = [&line["project"], &line["result"], &line["token"]];
            parts.map(text).join(" ")
        });
        results.collect()
    }
}

impl Admin {
    /// With a table of these projects.
    fn of(projects: &[&str]) -> Self {
        let ca = Ca::new();
        let space = TestBacklog::start(&ca, projects);
        let folder = tempfile::tempdir().unwrap();
        let mut table = format!(
            "[[space]]\nurl = \"{}\"\napi_key = \"env:BACKLOG\"\n",
            space.space_url()
        );
        for (place, project) in projects.iter().enumerate() {
            let route = format!(
                "[[route]]\nname = \"r{place}\"\nrepository = \"{project}/web\"\nref = \"refs/heads/main\"\n\
                 object = \"{project}.zip\"\nbucket = \"{BUCKET}\"\n"
            );
            table.push_str(&route);
        }
        fs::write(folder.path().join("routes.toml"), table).unwrap();
        Self {
            folder,
            ca,
            space,
            said: std::cell::RefCell::default(),
        }
    }

    fn command(&self, arguments: &[&str], vars: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .current_dir(self.folder.path())
            .arg("webhook")
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SSL_CERT_FILE", self.ca.file())
            .env("TMPDIR", self.folder.path())
            .env("HOME", self.folder.path())
            .envs(vars.iter().copied())
            .stdin(Stdio::null());
        command
    }

    /// With these arguments and variables alone.
    fn run_bare(&self, arguments: &[&str], vars: &[(&str, &str)]) -> Ran {
        let mut command = self.command(arguments, vars);
        let Output {
            status,
            stdout,
            stderr,
        } = run_within(&mut command, LIMIT).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        };
        let said = [&ran.stdout, &ran.stderr].map(String::as_str).concat();
        println!("{arguments:?}\n{said}");
        self.said.borrow_mut().push_str(&said);
        ran
    }

    /// The same with the key, the bridge and its token, and JSON lines.
    fn run(&self, arguments: &[&str]) -> Ran {
        let place = ["--url", HOOKS, "--json"];
        let vars = [
            ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY),
            ("WEBHOOK_TOKEN", TOKEN),
        ];
        self.run_bare(&[arguments, &place].concat(), &vars)
    }

    /// The URL of a webhook of the bridge.
    fn url(token: &str) -> String {
        format!("{HOOKS}/{token}")
    }

    /// No key and no token was said, was asked for in a URL, or is in a file.
    fn assert_nothing_leaked(&self) {
        let is_in = |text: &str| {
            let secrets = [ADMIN_KEY, ROBOT_KEY, TOKEN, "sentinel"];
            secrets.iter().any(|secret| text.contains(secret))
        };
        assert!(!is_in(&self.said.borrow()));
        for request in self.space.requests() {
            let but_hook_url = request
                .body
                .split('&')
                .filter(|field| !field.starts_with("hookUrl="));
            let but_hook_url: Vec<_> = but_hook_url.collect();
            let but_key = request
                .headers
                .iter()
                .filter(|(name, _)| name != "x-api-key");
            let but_key: Vec<_> = but_key.map(|(_, value)| value.as_str()).collect();
            let rest = [
                &*request.path,
                &request.query,
                &but_hook_url.join("&"),
                &but_key.join("\n"),
            ];
            assert!(!rest.iter().any(|text| is_in(text)), "{request:?}");
            assert_ne!(request.header("x-api-key"), Some(ROBOT_KEY));
        }
        let mut files = 0;
        look_into(self.folder.path(), &mut |path, bytes| {
            files += 1;
            let text = String::from_utf8_lossy(bytes);
            assert!(!is_in(&text), "{}", path.display());
        });
        assert!(files > 0, "the table at least");
    }
}

fn look_into(folder: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look_into(&path, look);
        } else {
            look(&path, &fs::read(&path).unwrap());
        }
    }
}

#[test]
fn adding_twice_adds_one() {
    let admin = Admin::of(&["APP", "LIB"]);
    admin.space.hook("APP", FOREIGN, &[12]);
    let before = admin.space.hooks("APP");

    let dry = admin.run(&["add", "--dry-run"]);
    assert_eq!(
        (dry.code, dry.results()),
        (Some(0), vec!["APP added -".into(), "LIB added -".into()])
    );
    assert!(dry.lines().iter().all(|line| line["dry_run"] == true));
    assert_eq!(admin.space.writes(), [""; 0]);

    let first = admin.run(&["add"]);
    assert_eq!(first.code, Some(0));
    assert_eq!(first.results(), ["APP added current", "LIB added current"]);
    let line = &first.lines()[0];
    assert_eq!(line["space"], admin.space.space_url());
    assert_eq!(line["url"], format!("{HOOKS}/TOKEN"));
    assert_eq!(line["id"], admin.space.hooks("APP")[1]["id"]);
    assert_eq!(line.get("dry_run"), None);
    let posts = [
        "POST /api/v2/projects/APP/webhooks",
        "POST /api/v2/projects/LIB/webhooks",
    ];
    assert_eq!(admin.space.writes(), posts);
    let requests = admin.space.requests();
    let post = requests
        .iter()
        .find(|request| request.method == "POST")
        .unwrap();
    for (field, expected) in [
        ("name", &["backlog-bridge"][..]),
        ("hookUrl", &[&*Admin::url(TOKEN)]),
        ("allEvent", &["false"]),
        ("activityTypeIds[]", &["12", "18"]),
    ] {
        assert_eq!(post.form(field), expected, "{field}");
    }

    let second = admin.run(&["add"]);
    assert_eq!(second.results(), ["APP well current", "LIB well current"]);
    assert_eq!(admin.space.writes(), posts);
    assert_eq!(admin.space.hooks("APP")[..1], before[..]);

    // One project, by its name in whichever case, and for people.
    let vars = [
        ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY),
        ("WEBHOOK_TOKEN", TOKEN),
    ];
    let prose = admin.run_bare(&["add", "lib", "--url", HOOKS], &vars);
    let id = &admin.space.hooks("LIB")[0]["id"];
    let expected = format!("LIB: well, webhook {id}, token: current; {HOOKS}/TOKEN\n");
    assert_eq!(
        (prose.code, &*prose.stdout, &*prose.stderr),
        (Some(0), &*expected, "")
    );
    admin.assert_nothing_leaked();
}

#[test]
fn what_is_registered_wrongly_is_mended_and_what_is_of_others_stays() {
    let admin = Admin::of(&["APP", "LIB", "OLD"]);
    // Another bridge behind the same host, and somebody's chat.
    let other = format!("https://bridge.example/test/hooks/{TOKEN}");
    for project in ["APP", "LIB", "OLD"] {
        admin.space.hook(project, FOREIGN, &[1, 2, 12]);
        admin.space.hook(project, &other, &[12]);
    }
    let foreign = |project| admin.space.hooks(project)[..2].to_vec();
    let before = ["APP", "LIB", "OLD"].map(foreign);
    admin.space.hook("APP", &Admin::url(TOKEN), &[1, 2]);
    admin.space.hook("LIB", &Admin::url(OLD), &[3, 12]);
    let first = admin.space.hook("OLD", &Admin::url(OLD), &[]);
    let second = admin.space.hook("OLD", &Admin::url(TOKEN), &[12]);

    let listed = admin.run(&["list"]);
    assert_eq!(listed.code, Some(0));
    assert_eq!(
        listed.results(),
        [
            "APP left current",
            "LIB left unknown",
            "OLD left unknown",
            "OLD left current"
        ]
    );
    assert_eq!(admin.space.writes(), [""; 0]);

    let added = admin.run(&["add"]);
    assert_eq!(
        added.results(),
        [
            "APP changed current",
            "LIB changed current",
            "OLD changed current",
            "OLD left current"
        ]
    );
    let patches: Vec<_> = admin
        .space
        .requests()
        .into_iter()
        .filter(|request| request.method != "GET")
        .collect();
    assert!(patches.iter().all(|request| request.method == "PATCH"));
    // Each has what changes, and no more.
    assert_eq!(patches[0].form("activityTypeIds[]"), ["1", "2", "12", "18"]);
    assert_eq!(patches[0].form("hookUrl"), [""; 0]);
    assert_eq!(patches[1].form("hookUrl"), [Admin::url(TOKEN)]);
    assert_eq!(patches[1].form("activityTypeIds[]"), ["3", "12", "18"]);
    let lib = &admin.space.hooks("LIB")[2];
    assert_eq!(lib["activityTypeIds"], json!([3, 12, 18]));
    assert_eq!(lib["name"], "somebody's", "a name is people's");

    let pruned = admin.run(&["add", "OLD", "--prune"]);
    assert_eq!(
        pruned.results(),
        ["OLD well current", "OLD removed current"]
    );
    assert_eq!(pruned.lines()[0]["id"], first);
    assert_eq!(pruned.lines()[1]["id"], second);
    assert_eq!(admin.space.hooks("OLD").len(), 3);

    let asked = admin.run(&["remove"]);
    assert_eq!(asked.code, Some(2));
    assert!(
        asked
            .stderr
            .contains("not a terminal; pass --yes to remove without asking")
    );
    let dry = admin.run(&["remove", "--dry-run"]);
    assert_eq!(
        dry.results(),
        [
            "APP removed current",
            "LIB removed current",
            "OLD removed current"
        ]
    );
    assert_eq!(admin.space.hooks("APP").len(), 3);
    let removed = admin.run(&["remove", "--yes"]);
    assert_eq!(removed.results(), dry.results());
    let again = admin.run(&["remove", "--yes"]);
    assert_eq!(
        (again.code, again.results()),
        (
            Some(0),
            vec![
                "APP well -".into(),
                "LIB well -".into(),
                "OLD well -".into()
            ]
        )
    );
    assert_eq!(["APP", "LIB", "OLD"].map(foreign), before);
    admin.assert_nothing_leaked();
}

#[test]
fn a_project_that_is_forbidden_stops_no_other_one() {
    let admin = Admin::of(&["APP", "SHUT", "LIB"]);
    admin.space.close("SHUT");
    let ran = admin.run(&["add"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.results(),
        ["APP added current", "SHUT failed -", "LIB added current"]
    );
    let error = &ran.lines()[1]["error"];
    assert_eq!(
        (&error["kind"], &error["transient"]),
        (&json!("role"), &json!(false))
    );
    for expected in [
        "SHUT: failed: cannot list the webhooks of SHUT in localhost:",
        "ask a project administrator, who can also enter it by hand: Project settings, Integrations, Webhook",
        "https://bridge.example/prod/hooks/TOKEN, event \"Git pushed\"",
        "TOKEN is that of WEBHOOK_TOKEN",
    ] {
        assert!(ran.stderr.contains(expected), "{expected}");
    }
    // One that is not there, and is in no table.
    let none = admin.run(&["add", "NONE", "APP"]);
    assert_eq!(none.results(), ["APP well current", "NONE failed -"]);
    assert!(
        none.stderr
            .contains("warning: the routing table has no repository of NONE")
    );

    // What is wrong with the key is so for all: nobody is asked again.
    admin.space.clear_requests();
    let vars = [("BACKLOG_ADMIN_API_KEY", "wrong"), ("WEBHOOK_TOKEN", TOKEN)];
    let ran = admin.run_bare(&["add", "--url", HOOKS, "--json"], &vars);
    assert_eq!(
        (ran.code, ran.results()),
        (
            Some(1),
            vec![
                "APP failed -".into(),
                "SHUT failed -".into(),
                "LIB failed -".into()
            ]
        )
    );
    assert_eq!(ran.lines()[2]["error"]["kind"], "wrong_key");
    assert_eq!(admin.space.requests().len(), 1);
    admin.assert_nothing_leaked();
}

#[test]
fn a_change_whose_answer_is_lost_is_made_once() {
    let admin = Admin::of(&["APP"]);
    admin.space.fault("POST", 1, Fault::Drop);
    let ran = admin.run(&["add"]);
    assert_eq!(
        (ran.code, ran.results()),
        (Some(0), vec!["APP added current".into()])
    );
    assert_eq!(admin.space.hooks("APP").len(), 1);

    // It was not made, as a look shows.
    let page = || Fault::Answer(502, "text/html", b"<html>".to_vec());
    admin.space.fault("DELETE", 1, page());
    let ran = admin.run(&["remove", "--yes"]);
    assert_eq!(
        (ran.code, ran.results()),
        (Some(1), vec!["APP failed current".into()])
    );
    assert_eq!(ran.lines()[0]["error"]["transient"], true);
    admin.space.fault("DELETE", 1, Fault::Drop);
    let ran = admin.run(&["remove", "--yes"]);
    assert_eq!(
        (ran.code, ran.results()),
        (Some(0), vec!["APP removed current".into()])
    );
    admin.space.fault("POST", 1, page());
    let ran = admin.run(&["add"]);
    assert_eq!(
        (ran.code, ran.results()),
        (Some(1), vec!["APP failed -".into()])
    );
    assert_eq!(admin.space.hooks("APP").len(), 0);
    admin.space.hook("APP", &Admin::url(OLD), &[1]);
    admin.space.fault("PATCH", 1, Fault::Drop);
    let ran = admin.run(&["add"]);
    assert_eq!(
        (ran.code, ran.results()),
        (Some(0), vec!["APP changed current".into()])
    );
    let patches = admin
        .space
        .writes()
        .into_iter()
        .filter(|line| line.starts_with("PATCH"));
    assert_eq!(patches.count(), 1);
    admin.assert_nothing_leaked();
}

#[test]
fn a_webhook_of_one_repository_is_shown_and_not_changed() {
    let admin = Admin::of(&["APP"]);
    admin
        .space
        .repository("APP", "web", Some(&Admin::url(TOKEN)));
    admin.space.repository("APP", "api", Some(&Admin::url(OLD)));
    admin.space.repository("APP", "lib", Some(FOREIGN));
    admin.space.repository("APP", "new", Some(""));
    let ran = admin.run(&["list"]);
    assert_eq!(
        ran.results(),
        ["APP left -", "APP left current", "APP left unknown"]
    );
    let repositories: Vec<_> = ran
        .lines()
        .iter()
        .map(|line| line["repository"].clone())
        .collect();
    assert_eq!(repositories, [Value::Null, "web".into(), "api".into()]);
    admin.assert_nothing_leaked();
}

#[test]
fn keys_and_tokens_are_taken_from_where_nobody_sees_them() {
    let admin = Admin::of(&["APP"]);
    let token = ("WEBHOOK_TOKEN", TOKEN);
    let key = ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY);
    let add = ["add", "--url", HOOKS];
    for (case, arguments, vars, expected) in [
        // The robot's key is there, and is not taken.
        (
            "no key",
            &add[..],
            &[token, ("BACKLOG_API_KEY", ROBOT_KEY)][..],
            "there is no terminal to ask for it; set BACKLOG_ADMIN_API_KEY, or say --api-key-from env:VARIABLE or",
        ),
        (
            "nothing in it",
            &add,
            &[token, ("BACKLOG_ADMIN_API_KEY", "")],
            "BACKLOG_ADMIN_API_KEY is set to nothing",
        ),
        (
            "no token",
            &add,
            &[key],
            "set WEBHOOK_TOKEN to the token that the bridge takes",
        ),
        (
            "no bridge",
            &["add"],
            &[token, key],
            "say where the bridge is: --stack NAME, or --url https://",
        ),
        (
            "a token in the URL",
            &[
                "add",
                "--url",
                "https://bridge.example/hooks/sentinel-in-the-url",
            ],
            &[token, key],
            "--url: expected the URL up to /hooks, without the token; WEBHOOK_TOKEN has the token",
        ),
        (
            "plain",
            &["list", "--url", "http://bridge.example/hooks"],
            &[token, key],
            "--url: expected an https URL",
        ),
        (
            "the key itself",
            &["add", "--url", HOOKS, "--api-key-from", "sentinel-key"],
            &[token],
            "--api-key-from: expected env:VARIABLE or secret:NAME, and never the key itself",
        ),
        (
            "a variable that is not set",
            &["add", "--url", HOOKS, "--api-key-from", "env:MINE"],
            &[token, key],
            "set MINE, as --api-key-from says",
        ),
        (
            "two bridges",
            &["add", "--url", HOOKS, "--stack", "bridge"],
            &[token, key],
            "the argument '--url <URL>' cannot be used with '--stack <NAME>'",
        ),
        (
            "no space of that name",
            &["add", "--url", HOOKS, "--space", "other"],
            &[token, key],
            "no space is named \"other\"",
        ),
        (
            "a token of its own",
            &["rotate", "--url", HOOKS],
            &[token, key],
            "WEBHOOK_TOKEN holds the token itself, and only a secret can be turned",
        ),
    ] {
        let ran = admin.run_bare(arguments, vars);
        assert_eq!(ran.code, Some(2), "{case}");
        assert!(ran.stderr.contains(expected), "{case}: {}", ran.stderr);
        assert_eq!(admin.space.requests().len(), 0, "{case}");
    }
    // The stack of the environment is not meant where a URL is given.
    let vars = [
        token,
        // With the end of a line, as it comes out of a file.
        ("MINE", &format!("{ADMIN_KEY}\n")),
        ("BACKLOG_BRIDGE_STACK", "bridge"),
    ];
    let ran = admin.run_bare(
        &["add", "--url", HOOKS, "--api-key-from", "env:MINE"],
        &vars,
    );
    assert_eq!(ran.code, Some(0));
    admin.assert_nothing_leaked();
}

#[test]
fn nobody_who_looks_at_processes_sees_a_secret() {
    let admin = Admin::of(&["APP"]);
    admin
        .space
        .fault("GET", 1, Fault::Late(Duration::from_millis(600)));
    let vars = [
        ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY),
        ("WEBHOOK_TOKEN", TOKEN),
    ];
    let mut command = admin.command(&["add", "--url", HOOKS], &vars);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = 0;
    while child.try_wait().unwrap().is_none() {
        let line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        seen += usize::from(line.contains("webhook"));
        assert!(!line.contains(TOKEN) && !line.contains(ADMIN_KEY), "{line}");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(seen > 0 || !cfg!(target_os = "linux"));
    assert_eq!(admin.space.hooks("APP").len(), 1);
}

#[test]
fn of_several_spaces_one_is_meant() {
    let admin = Admin::of(&["APP"]);
    let ca = Ca::new();
    let other = TestBacklog::start(&ca, &["APP", "LIB"]);
    let space = |name: &str, url: &str| format!("[[space]]\nname = \"{name}\"\nurl = \"{url}\"\n");
    let route = |space: &str, project: &str| {
        format!(
            "[[route]]\nname = \"{space}-{project}\"\nspace = \"{space}\"\nrepository = \"{project}/web\"\nref = \"refs/heads/main\"\nobject = \"{space}/{project}\"\nbucket = \"{BUCKET}\"\n"
        )
    };
    let table = [
        space("one", &admin.space.space_url()),
        space("two", &other.space_url()),
        route("one", "APP"),
        route("two", "APP"),
        route("two", "LIB"),
    ];
    fs::write(admin.folder.path().join("routes.toml"), table.concat()).unwrap();
    for arguments in [&["add"][..], &["add", "APP"], &["add", "NONE"]] {
        let ran = admin.run(arguments);
        assert_eq!(ran.code, Some(2));
        assert!(
            ran.stderr
                .contains("an API key is of one space; say which one with --space: one, two")
        );
    }
    assert_eq!(
        admin.run(&["add", "--space", "one"]).results(),
        ["APP added current"]
    );
    assert_eq!(admin.space.hooks("APP").len(), 1);
    // The other space's webhooks come later, with another key.
    let secrets = TestSecrets::start();
    secrets.put(SECRET, OLD).put(SECRET, TOKEN);
    let (secret, endpoint) = (format!("secret:{SECRET}"), secrets.endpoint());
    let rotate = |more: &[&str]| {
        let vars = [
            ("WEBHOOK_TOKEN", secret.as_str()),
            ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY),
            ("AWS_REGION", "ap-northeast-1"),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &endpoint),
        ];
        let place = ["rotate", "--space", "one", "--url", HOOKS, "--json"];
        admin.run_bare(&[&place[..], more].concat(), &vars)
    };
    let ran = rotate(&["--leaked"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr
            .contains("other spaces (two), whose webhooks a second turn would cut off")
    );
    let ran = rotate(&[]);
    assert_eq!(ran.results(), ["APP changed current"]);
    assert!(
        ran.stderr
            .contains("`webhook add --space NAME` for each of: two")
    );
    assert_eq!(secrets.values(SECRET).len(), 3);
    // A project that is in one space alone says which.
    let ran = admin.run(&["add", "LIB"]);
    assert_eq!(
        (ran.code, ran.results()),
        (Some(1), vec!["LIB failed -".into()]),
        "whose authority is unknown"
    );
    assert!(ran.lines()[0]["space"] == other.space_url());
    assert!(
        ran.stderr
            .contains("its certificate is of an authority that is not trusted here")
    );
}

/// The bridge as a stack, with a secret.
struct Stack {
    s3: TestS3,
    aws: AwsApi,
    secrets: TestSecrets,
}

const SECRET: &str = "bridge/token";

impl Stack {
    async fn of(admin: &Admin) -> Self {
        let (s3, aws, secrets) = (TestS3::start().await, AwsApi::start(), TestSecrets::start());
        let table = format!("s3://{BUCKET}/config/routes.toml");
        let outputs = [
            ("Bucket", BUCKET),
            ("RoutingTable", &table),
            ("Queue", "https://sqs.example/1/bridge-Queue.fifo"),
            (
                "DeadLetters",
                "https://sqs.example/1/bridge-DeadLetters.fifo",
            ),
            ("WebhookUrl", "https://bridge.example/prod/hooks/TOKEN"),
            ("TokenSecret", SECRET),
            ("GitSecret", "backlog-bridge/git"),
            ("AlarmTopic", "arn:topic"),
        ];
        aws.stack("bridge", "CREATE_COMPLETE", &outputs);
        let text = fs::read(admin.folder.path().join("routes.toml")).unwrap();
        let client = s3.client();
        let put = client.put_object().bucket(BUCKET).key("config/routes.toml");
        put.body(text.into()).send().await.unwrap();
        fs::remove_file(admin.folder.path().join("routes.toml")).unwrap();
        fs::write(admin.folder.path().join("none"), "").unwrap();
        secrets.put(SECRET, OLD).put(SECRET, TOKEN);
        Self { s3, aws, secrets }
    }

    fn run(&self, admin: &Admin, arguments: &[&str]) -> Ran {
        let mut vars = vec![
            ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY.to_owned()),
            ("AWS_REGION", "ap-northeast-1".into()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.into()),
            ("AWS_ENDPOINT_URL_S3", self.s3.endpoint().to_owned()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.secrets.endpoint()),
        ];
        vars.extend(self.aws.vars());
        let vars: Vec<_> = vars
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        admin.run_bare(
            &[arguments, &["--stack", "bridge", "--json"]].concat(),
            &vars,
        )
    }

    fn tokens(&self) -> Vec<String> {
        self.secrets.values(SECRET)
    }
}

/// The URL of each webhook of the bridge.
fn urls(admin: &Admin, project: &str) -> Vec<String> {
    let hooks = admin.space.hooks(project).into_iter();
    let urls = hooks.map(|hook| hook["hookUrl"].as_str().unwrap().to_owned());
    urls.filter(|url| url.starts_with(HOOKS)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_in_the_secret_before_webhooks_bring_it() {
    let admin = Admin::of(&["APP", "LIB", "NEW"]);
    let stack = Stack::of(&admin).await;
    admin.space.hook("APP", &Admin::url(TOKEN), &[12]);
    let foreign = admin.space.hook("APP", FOREIGN, &[12]);
    // The previous one, which will not be valid after the next turn.
    admin.space.hook("LIB", &Admin::url(OLD), &[1, 12]);

    let listed = stack.run(&admin, &["list"]);
    assert_eq!(
        listed.results(),
        ["APP well current", "LIB left previous", "NEW left -"]
    );
    let dry = stack.run(&admin, &["rotate", "--dry-run"]);
    assert_eq!(
        dry.results(),
        ["APP changed previous", "LIB changed unknown", "NEW left -"]
    );
    assert_eq!(stack.tokens(), [OLD, TOKEN]);
    assert_eq!(admin.space.writes(), [""; 0]);

    let began = Instant::now();
    let ran = stack.run(&admin, &["rotate"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!(
        ran.results(),
        ["APP changed current", "LIB changed current", "NEW left -"]
    );
    let tokens = stack.tokens();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[2].len() >= 32 && tokens[2] != TOKEN);
    for project in ["APP", "LIB"] {
        assert_eq!(urls(&admin, project), [Admin::url(&tokens[2])]);
    }
    // First to what is valid before and after, then to the new one.
    let patches = admin
        .space
        .requests()
        .into_iter()
        .filter(|request| request.method == "PATCH");
    let sent: Vec<_> = patches
        .map(|request| request.form("hookUrl").remove(0))
        .collect();
    let new = Admin::url(&tokens[2]);
    assert_eq!(sent, [Admin::url(TOKEN), new.clone(), new]);
    let hooks = admin.space.hooks("APP");
    let hook = hooks.iter().find(|hook| hook["id"] == foreign).unwrap();
    assert_eq!(
        (&hook["hookUrl"], &hook["activityTypeIds"]),
        (&json!(FOREIGN), &json!([12]))
    );
    assert!(!admin.said.borrow().contains(&tokens[2]));
    admin.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_token_is_neither_of_the_two_that_are_valid() {
    let admin = Admin::of(&["APP", "SHUT"]);
    let stack = Stack::of(&admin).await;
    for project in ["APP", "SHUT"] {
        admin.space.hook(project, &Admin::url(TOKEN), &[12]);
    }
    // A key that may change nothing, and a space that cannot be reached, turn no token.
    admin.space.close("SHUT");
    admin
        .space
        .fault("GET projects/APP", 1, Fault::Refuse(403, 5));
    let ran = stack.run(&admin, &["rotate"]);
    assert_eq!(
        (ran.code, stack.tokens().len()),
        (Some(1), 2),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("the token was not turned"));
    admin
        .space
        .fault("GET projects/APP", 1, Fault::Refuse(401, 11));
    let ran = stack.run(&admin, &["rotate", "--leaked"]);
    assert_eq!((ran.code, stack.tokens().len()), (Some(1), 2));
    assert!(ran.stderr.contains("the token was not turned"));

    // A second turn would cut off the project that was not changed.
    let ran = stack.run(&admin, &["rotate", "--leaked"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.results(), ["APP well current", "SHUT failed -"]);
    assert!(
        ran.stderr
            .contains("the leaked token is still valid, as the previous one")
    );
    assert_eq!(stack.tokens().len(), 3);
    assert_eq!(urls(&admin, "SHUT"), [Admin::url(TOKEN)]);

    let admin = Admin::of(&["APP"]);
    let stack = Stack::of(&admin).await;
    admin.space.hook("APP", &Admin::url(TOKEN), &[12]);
    // So would it one that was entered by hand; one that brings some other token was cut off before.
    admin
        .space
        .repository("APP", "old", Some(&Admin::url("whatever")));
    admin
        .space
        .fault("GET projects/APP/git", 1, Fault::Refuse(403, 5));
    let ran = stack.run(&admin, &["rotate", "--leaked"]);
    assert_eq!((ran.code, stack.tokens().len()), (Some(1), 3));
    assert!(
        ran.stderr
            .contains("or may bring it, and cannot be changed")
    );
    let ran = stack.run(&admin, &["rotate", "--leaked"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.results(), ["APP changed current", "APP left unknown"]);
    let tokens = stack.tokens();
    assert_eq!(tokens.len(), 5);
    // The last two are valid.
    for leaked in &tokens[..3] {
        assert!(!tokens[3..].contains(leaked));
    }
    assert_eq!(urls(&admin, "APP"), [Admin::url(&tokens[4])]);
    assert!(
        ran.stderr
            .contains("the leaked token is refused everywhere in 5 minutes at the latest")
    );
    admin.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_in_a_secret() {
    let admin = Admin::of(&["APP"]);
    let stack = Stack::of(&admin).await;
    let mine = json!({"api_key": ADMIN_KEY}).to_string();
    stack
        .secrets
        .put("mine", &mine)
        .put("empty", "{\"api_key\":\"\"}");
    let ran = stack.run(&admin, &["add", "--api-key-from", "secret:mine"]);
    assert_eq!(ran.results(), ["APP added current"]);
    for secret in ["empty", "none"] {
        let ran = stack.run(
            &admin,
            &["add", "--api-key-from", &format!("secret:{secret}")],
        );
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("the secret {secret}")),
            "{}",
            ran.stderr
        );
    }
    admin.assert_nothing_leaked();
}

#[test]
fn a_test_is_posted_as_backlog_posts() {
    let place = super::serve::Place::new();
    place
        .repository
        .commit_on(crate::support::MAIN, &[("a", "a".into())]);
    let serving = place.serve(&["--sweep-seconds", "86400"], &[("WEBHOOK_TOKEN", TOKEN)]);
    let admin = Admin::of(&["APP"]);
    fs::copy(
        place.folder.path().join("routes.toml"),
        admin.folder.path().join("routes.toml"),
    )
    .unwrap();
    let hooks = serving.hooks.clone();
    let url = ["--url", hooks.as_str()];
    let run = |arguments: &[&str], token: &str| {
        admin.run_bare(
            &[&["test"], arguments, &url].concat(),
            &[("WEBHOOK_TOKEN", token)],
        )
    };

    let ran = run(&[], TOKEN);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let expected = format!(
        "{}/TOKEN: well: {{\"ignored\":\"test delivery received: the webhook works\"}}\n",
        serving.hooks
    );
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr
            .contains("this was posted from here, and not by Backlog")
    );
    let ran = run(&["web", "--json"], TOKEN);
    let line = &ran.lines()[0];
    assert_eq!(
        (&line["result"], &line["status"], &line["route"]),
        (&json!("well"), &json!(202), &json!("web")),
        "{line}"
    );
    assert_eq!(line["answer"], json!({"accepted": ["web"]}));
    // It is delivered, and nobody waits for a commit that is not there.
    serving.wait_for("webhook: APP/web refs/heads/main: accepted for web");
    let (swept, pushed) = (serving.line(), serving.line());
    assert_eq!(
        [&swept["outcome"], &pushed["outcome"]],
        ["published", "already_current"]
    );
    assert!(pushed["duration_ms"].as_u64() < Some(2_000), "{pushed}");

    let wrong = run(&["--json"], "another-token-that-is-long-enough");
    assert_eq!(
        (wrong.code, &wrong.lines()[0]["status"]),
        (Some(1), &json!(404))
    );
    assert!(wrong.stderr.contains("ALLOWED_IPS"), "{}", wrong.stderr);
    for (arguments, expected) in [
        (
            &["webb"][..],
            "no route is named \"webb\"; did you mean web?",
        ),
        (
            &["web", "--ref", "refs/heads/x"],
            "the route web takes refs/heads/main, and not refs/heads/x",
        ),
    ] {
        let ran = run(arguments, TOKEN);
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    // Its table is another one.
    let table = fs::read_to_string(admin.folder.path().join("routes.toml")).unwrap();
    let table = table
        .replace("refs/heads/main", "refs/heads/*")
        .replace("web.zip", "{ref}.zip");
    fs::write(admin.folder.path().join("routes.toml"), table).unwrap();
    let ran = run(&["web"], TOKEN);
    assert!(
        ran.code == Some(2)
            && ran
                .stderr
                .contains("takes many refs (refs/heads/*); name one with --ref")
    );
    let ran = run(&["web", "--ref", "refs/heads/other"], TOKEN);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("the bridge ignores it"),
        "{}",
        ran.stderr
    );
    drop(serving);
    let gone = run(&[], TOKEN);
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.stderr
            .contains("check the URL of the bridge and the network"),
        "{}",
        gone.stderr
    );
    admin.assert_nothing_leaked();
}

/// What is typed at a terminal, once a question is there; and what the terminal shows.
#[cfg(target_os = "linux")]
fn at_terminal(admin: &Admin, question: &str, typed: &str) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_backlog-bridge");
    // ^C goes to the shell, too, which must live to tell the program's status.
    let line =
        format!("trap : INT; {program} webhook add --url {HOOKS}; code=$?; stty -a; exit $code");
    let mut command = Command::new("script");
    let mut child = command
        .args(["-qec", &line, "/dev/null"])
        .current_dir(admin.folder.path())
        .env_remove("BACKLOG_ADMIN_API_KEY")
        .env("SSL_CERT_FILE", admin.ca.file())
        .env("WEBHOOK_TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut buffer) = (String::new(), [0; 4096]);
    let mut is_typed = false;
    while let Ok(read @ 1..) = stdout.read(&mut buffer) {
        shown += &String::from_utf8_lossy(&buffer[..read]);
        if !is_typed && shown.contains(question) {
            is_typed = true;
            stdin.write_all(typed.as_bytes()).unwrap();
        }
    }
    admin.said.borrow_mut().push_str(&shown);
    (child.wait().unwrap().code(), shown)
}

#[cfg(target_os = "linux")]
#[test]
fn a_key_that_is_typed_is_not_shown() {
    let admin = Admin::of(&["APP"]);
    let question = "kept nowhere):";
    let (code, shown) = at_terminal(&admin, question, &format!("{ADMIN_KEY}\n"));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("APP: added, webhook"), "{shown}");
    assert!(
        shown.contains(" echo "),
        "the terminal shows again what is typed: {shown}"
    );
    let (code, shown) = at_terminal(&admin, question, "\x03");
    assert_eq!(code, Some(2), "{shown}");
    assert!(
        shown.contains("stopped; what was done stays") && shown.contains(" echo "),
        "{shown}"
    );
    let (code, shown) = at_terminal(&admin, question, "\n");
    assert_eq!(code, Some(2), "{shown}");
    assert!(shown.contains("nothing was typed"), "{shown}");
    admin.assert_nothing_leaked();
}
