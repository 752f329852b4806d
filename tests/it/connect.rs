//! From a deployed stack to the first object: `init` and `connect`, typed at a terminal and without one.

use std::{
    fmt::Write,
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    BUCKET, KEY, MAIN,
    aws_api::AwsApi,
    backlog::{ADMIN_KEY, BARE_KEY, ROBOT_KEY, TestBacklog},
    http::Server,
    process::run_within,
    s3::{self, ACCESS_KEY, SECRET_KEY},
    service::{GIT_SECRET, LOGIN, Service, TOKEN, TOKEN_SECRET, answer, lines, request},
    sqs::TestSqs,
    terminal::{Session, session},
    tls::Ca,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_backlog-bridge");

/// A stack that was deployed a moment ago: no table, and no login in its secret.
struct Place {
    service: Arc<Service>,
    /// In front of `receive`.
    gateway: Server,
    backlog: TestBacklog,
    aws: AwsApi,
    folder: TempDir,
    /// Whether the functions handle what is on the queue.
    works: bool,
}

/// What a command without a terminal did.
struct Ended {
    code: Option<i32>,
    /// The lines of `--json`.
    steps: Vec<Value>,
    stderr: String,
    stdout: String,
}

impl Ended {
    /// `step result` of each line.
    fn short(&self) -> Vec<String> {
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let lines = self.steps.iter();
        lines
            .map(|line| format!("{} {}", text(line, "step"), text(line, "result")))
            .collect()
    }

    fn message(&self, step: &str) -> String {
        let mut lines = self.steps.iter();
        let line = lines.find(|line| line["step"] == step);
        let line = line.unwrap_or_else(|| panic!("no {step}: {:?} {}", self.steps, self.stderr));
        line["message"].as_str().unwrap().to_owned()
    }
}

impl Place {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same with more variables for the functions.
    async fn with(vars: &[(&'static str, &str)]) -> Self {
        let service = Arc::new(Service::with(&[], vars).await);
        service
            .secrets
            .put(GIT_SECRET, r#"{"username":"","password":""}"#);
        let (aws, backlog) = (AwsApi::start(), TestBacklog::start(&Ca::new(), &["APP"]));
        backlog.repository("APP", "web", None);
        backlog.stand_beside(&service.git);
        let receiver = Arc::clone(&service);
        let gateway = Server::start("gateway", move |posted| {
            let receiver = Arc::clone(&receiver);
            async move {
                let body = String::from_utf8(posted.body().to_vec()).unwrap();
                let event = request(posted.method().as_str(), posted.uri().path(), &body);
                let (status, body) = answer(&receiver.receive.invoke(&event).await);
                let mut answer = hyper::Response::new(body.into());
                *answer.status_mut() = u16::try_from(status).unwrap().try_into().unwrap();
                answer
            }
        });
        let place = Self {
            service,
            gateway,
            backlog,
            aws,
            works: true,
            folder: tempfile::tempdir().unwrap(),
        };
        place.stack(&[]);
        let logging = Arc::clone(&place.service);
        place.aws.does("FilterLogEvents", move |call| {
            let input: Value = serde_json::from_str(&call.input).unwrap();
            let pattern = input["filterPattern"].as_str().unwrap().to_owned();
            let logged = lines(&logging.deliver).into_iter().filter(|line| {
                let id = line["request_id"].as_str();
                id.is_some_and(|id| pattern == format!("{{ $.request_id = \"{id}\" }}"))
            });
            let events: Vec<_> = logged
                .map(|line| json!({"message": line.to_string()}))
                .collect();
            (200, json!({"events": events}).to_string())
        });
        place.aws.says("ListPipelines", r#"{"pipelines":[]}"#);
        place
    }

    fn stack(&self, parameters: &[(&str, &str)]) {
        self.stack_at(&self.gateway.endpoint(), parameters, &[]);
    }

    /// A stack with Results=yes.
    fn stack_telling(&self, queue: &str) {
        let output = ("ResultsQueue", queue);
        self.stack_at(&self.gateway.endpoint(), &[], &[output]);
    }

    /// A stack whose webhooks are posted somewhere else.
    fn stack_at(&self, gateway: &str, parameters: &[(&str, &str)], more: &[(&str, &str)]) {
        let table = format!("s3://{BUCKET}/config/routes.toml");
        let outputs = [
            ("Bucket", BUCKET),
            ("RoutingTable", &table),
            ("Queue", &self.service.sqs.url()),
            ("DeadLetters", &self.service.sqs.dead_letter_url()),
            ("WebhookUrl", &format!("{gateway}/hooks/TOKEN")),
            ("TokenSecret", TOKEN_SECRET),
            ("GitSecret", GIT_SECRET),
            (
                "AlarmTopic",
                "arn:aws:sns:ap-northeast-1:123456789012:alarms",
            ),
        ];
        let outputs = [&outputs, more].concat();
        self.aws
            .stack_with("bridge", "CREATE_COMPLETE", &outputs, parameters);
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let of_functions = self.service.vars.iter();
        let of_sdk =
            of_functions.filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("SSL_"));
        let mut all: Vec<_> = of_sdk.cloned().collect();
        all.extend(self.aws.vars());
        all.extend(
            [
                ("AWS_REGION", "ap-northeast-1"),
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                ("HOME", "/nonexistent"),
                ("TERM", "dumb"),
            ]
            .map(|(name, value)| (name, value.to_owned())),
        );
        all
    }

    /// Has the functions work meanwhile.
    async fn meanwhile<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> T {
        let mut running = tokio::task::spawn_blocking(run);
        loop {
            tokio::select! {
                done = &mut running => break done.unwrap(),
                _ = self.service.drain(), if self.works => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// At a terminal.
    async fn types(&self, arguments: &[&str], answers: &[(&str, &str)]) -> Session {
        let program = [PROGRAM].iter().chain(arguments);
        let program: Vec<String> = program.map(|word| (*word).to_owned()).collect();
        let (folder, environment) = (self.folder.path().to_owned(), self.environment());
        let answers: Vec<_> = answers
            .iter()
            .map(|(question, answer)| ((*question).to_owned(), (*answer).to_owned()))
            .collect();
        self.meanwhile(move || {
            let answers: Vec<_> = answers
                .iter()
                .map(|(question, answer)| (&**question, &**answer))
                .collect();
            session(&program, &folder, &environment, &answers)
        })
        .await
    }

    /// Without a terminal, a line of JSON for each step.
    async fn runs(&self, arguments: &[&str], vars: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .arg("--json")
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.environment())
            .envs(vars.iter().copied())
            .stdin(Stdio::null());
        let run = move || run_within(&mut command, Duration::from_mins(1)).expect("it ends");
        let output = self.meanwhile(run).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let steps = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")));
        Ended {
            code: output.status.code(),
            steps: steps.collect(),
            stderr,
            stdout,
        }
    }

    fn table(&self) -> String {
        fs::read_to_string(self.folder.path().join("routes.toml")).unwrap()
    }

    fn writes_table(&self) {
        self.write(&self.service.table(&[(MAIN, KEY, "")]));
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("routes.toml"), text).unwrap();
    }

    /// What was written so far: requests to Backlog, versions of secrets, puts, messages.
    fn writes(&self) -> (usize, usize, usize, usize) {
        (
            self.backlog.writes().len(),
            self.service.secrets.writes(),
            self.service.s3.count(s3::Op::PutObject),
            self.service.sqs.sent().len(),
        )
    }
}

const USER: (&str, &str) = ("BACKLOG_USERNAME", LOGIN.0);
const ADMIN: (&str, &str) = ("BACKLOG_ADMIN_API_KEY", ADMIN_KEY);
const PASSWORD: (&str, &str) = ("BACKLOG_PASSWORD", LOGIN.1);
const CONNECT: [&str; 3] = ["connect", "--stack", "bridge"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_at_a_terminal_leads_from_an_empty_stack_to_an_object() {
    let place = Place::new().await;
    let repository = &place.service.repository;
    repository.commit_on(MAIN, &[("buildspec.yml", "version: 0.2".into())]);
    repository.set_symbolic_ref("HEAD", MAIN);
    let user = format!("{}\r", LOGIN.0);
    let password = format!("{}\r", LOGIN.1);
    let key = format!("{ADMIN_KEY}\r");
    let space = format!("{}\r", place.service.git.space_url());

    let init = place
        .types(
            &["init", "--secret", GIT_SECRET],
            &[
                ("Space", &space),
                ("Repository", "APP/web\r"),
                ("user name: ", &user),
                ("not shown", "a wrong one\r"),
                ("user name: ", &user),
                ("not shown", &password),
                ("[main]", "\r"),
            ],
        )
        .await;
    println!("{}", init.shown);
    assert_eq!(init.code, Some(0), "{}", init.shown);
    assert!(
        init.shown.contains("check the user name and password"),
        "{}",
        init.shown
    );
    assert!(place.table().contains("object = \"web/main.zip\""));

    let connect = place
        .types(
            &CONNECT,
            &[
                ("user name for", &user),
                ("not shown", &password),
                ("API key", &key),
            ],
        )
        .await;
    println!("{}", connect.shown);
    assert_eq!(connect.code, Some(0), "{}", connect.shown);
    assert!(
        connect.shown.contains("and has a buildspec.yml"),
        "{}",
        connect.shown
    );
    assert!(
        connect.shown.contains(
            "aws cloudformation deploy --stack-name web-main --template-file pipeline.yaml --capabilities CAPABILITY_IAM \
             --region ap-northeast-1 --parameter-overrides SourceBucket=sources ObjectKey=web/main.zip \
             AlarmTopicArn=arn:aws:sns:ap-northeast-1:123456789012:alarms"
        ),
        "{}",
        connect.shown
    );
    assert_eq!(place.service.versions().len(), 1);
    let stored: Value =
        serde_json::from_str(&place.service.secrets.values(GIT_SECRET).pop().unwrap()).unwrap();
    assert_eq!(stored, json!({"username": LOGIN.0, "password": LOGIN.1}));

    let hooks = place.backlog.hooks("APP");
    assert_eq!(hooks.len(), 1);
    assert_eq!(hooks[0]["activityTypeIds"], json!([12, 18]));
    let hook = hooks[0]["hookUrl"].as_str().unwrap();
    assert_eq!(hook, format!("{}/hooks/{TOKEN}", place.gateway.endpoint()));

    // A push is delivered, and another run finds nothing to do.
    let newer = repository.commit_on(MAIN, &[("a", "a".into())]);
    let (status, _) = place.service.push(MAIN, &[&newer]).await;
    assert_eq!(status, 202);
    place.service.drain().await;
    assert_eq!(place.service.commits()[0], newer);
    let before = place.writes();
    let again = place.types(&CONNECT, &[("API key", &key)]).await;
    println!("{}", again.shown);
    assert_eq!(again.code, Some(0), "{}", again.shown);
    assert_eq!(place.writes(), before, "{}", again.shown);
    assert!(again.shown.contains("6 well\n"), "{}", again.shown);

    let left = fs::read_dir(place.folder.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["routes.toml"]);
    for shown in [&init.shown, &connect.shown, &again.shown, &place.table()] {
        for secret in [LOGIN.1, TOKEN, ADMIN_KEY, "a wrong one"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one way from its beginning to its end"
)]
async fn the_same_without_a_terminal() {
    let place = Place::new().await;
    let repository = &place.service.repository;
    let commit = repository.commit_on(MAIN, &[("a", "a".into())]);
    let space = place.service.git.space_url();
    let init = [
        "init",
        "--space",
        &space,
        "--repository",
        "APP/web",
        "--ref",
        "main",
        "--secret",
        GIT_SECRET,
    ];
    let ended = place.runs(&init, &[USER, PASSWORD]).await;
    assert_eq!(
        (ended.code, ended.short()),
        (
            Some(0),
            vec![
                "space well".to_owned(),
                "login well".into(),
                "ref well".into(),
                "table done".into()
            ]
        ),
        "{}",
        ended.stderr
    );
    assert!(ended.message("ref").contains(&commit[..8]));
    let text = place.table();
    let ended = place.runs(&init, &[]).await;
    assert_eq!(
        (ended.code, ended.short().last().unwrap().as_str()),
        (Some(0), "table well")
    );
    assert_eq!(place.table(), text);

    let ended = place
        .runs(
            &[&CONNECT[..], &["--dry-run"]].concat(),
            &[USER, PASSWORD, ADMIN],
        )
        .await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    assert_eq!(
        ended.short(),
        [
            "stack well",
            "login done",
            "table done",
            "receive well",
            "webhook done",
            "delivery done",
            "next well"
        ]
    );
    assert_eq!(place.writes(), (0, 0, 0, 0));

    let ended = place.runs(&CONNECT, &[USER, PASSWORD, ADMIN]).await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    assert_eq!(
        ended.short(),
        [
            "stack well",
            "login done",
            "table done",
            "receive well",
            "webhook done",
            "delivery done",
            "next well"
        ]
    );
    assert!(
        ended
            .message("delivery")
            .contains("it has no buildspec.yml"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains(LOGIN.1) && !ended.stderr.contains(LOGIN.1));

    // The same table works here, with the login of the environment, and to AWS.
    let bucket = ("SOURCE_BUCKET", BUCKET);
    for (arguments, vars, outcome) in [
        (
            &["sync", "--store", "store"][..],
            &[USER, PASSWORD][..],
            "published",
        ),
        (&["sync", "--aws"], &[bucket], "already_current"),
        (&["sync", "--stack", "bridge"], &[], "already_current"),
    ] {
        let ended = place.runs(arguments, vars).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        assert_eq!(
            (&ended.steps[0]["outcome"], &ended.steps[0]["commit"]),
            (&json!(outcome), &json!(commit)),
            "{arguments:?}"
        );
    }
    let pushed = place
        .types(&["routes", "push", "--stack", "bridge"], &[])
        .await;
    assert_eq!(pushed.code, Some(0), "{}", pushed.shown);
    assert!(
        pushed.shown.contains("is this table already"),
        "{}",
        pushed.shown
    );

    // A pipeline that is there needs no command.
    place
        .aws
        .says("ListPipelines", r#"{"pipelines":[{"name":"web-main"}]}"#);
    let source = json!({"actionTypeId": {"category": "Source", "provider": "S3"}, "configuration": {"S3Bucket": BUCKET, "S3ObjectKey": KEY}});
    let pipeline = json!({"pipeline": {"stages": [{"actions": [source]}]}});
    place.aws.says("GetPipeline", &pipeline.to_string());
    let before = place.writes();
    let ended = place.runs(&CONNECT, &[ADMIN]).await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    assert_eq!(
        ended.short(),
        [
            "stack well",
            "login well",
            "table well",
            "receive well",
            "webhook well",
            "delivery well",
            "pipeline well"
        ]
    );
    assert_eq!(place.writes(), before);

    // Globs are built by one stack for each folder, without the objects that have a pipeline.
    let mut text = place.table();
    for (name, glob, object) in [
        ("features", "refs/heads/feature/*", "web/{ref}.zip"),
        ("fixes", "refs/heads/fix/*", "web/{ref}.zip"),
        ("releases", "refs/heads/release/*", "release-{ref}.zip"),
        ("tags", "refs/tags/*", "tags/{ref}.zip"),
    ] {
        write!(
            text,
            "\n[[route]]\nname = \"{name}\"\nrepository = \"APP/web\"\nref = \"{glob}\"\nobject = \"{object}\"\n"
        )
        .unwrap();
    }
    place.write(&text);
    let dry = [&CONNECT[..], &["--dry-run"]].concat();
    let ended = place.runs(&dry, &[ADMIN]).await;
    let next = ended.steps.iter().filter(|line| line["step"] == "next");
    let next: Vec<_> = next.map(|line| line["message"].as_str()).collect();
    assert_eq!(
        next,
        [Some(
            "aws cloudformation deploy --stack-name features --template-file branches.yaml --capabilities CAPABILITY_IAM \
             --region ap-northeast-1 --parameter-overrides SourceBucket=sources KeyPrefix=web/ ExceptKeys=web/main.zip \
             AlarmTopicArn=arn:aws:sns:ap-northeast-1:123456789012:alarms"
        )],
        "{} {}",
        ended.stdout,
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
async fn what_stands_in_the_way_is_said_and_nothing_is_half_done() {
    let place = Place::new().await;
    place
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    place.writes_table();
    let wrong = ("BACKLOG_PASSWORD", "another");
    for (case, expected, step) in [
        ("no login", "set BACKLOG_USERNAME and BACKLOG_PASSWORD", ""),
        (
            "a wrong password",
            "check the user name and password",
            "login",
        ),
        (
            "another secret",
            "+ credentials = \"secret:bridge/git\"",
            "table",
        ),
        (
            "a login from the environment",
            "+ credentials = \"secret:bridge/git\"",
            "table",
        ),
        (
            "a secret that is to be deleted",
            "aws secretsmanager restore-secret --secret-id bridge/git",
            "login",
        ),
        ("no such secret", "there is no such secret", "login"),
        (
            "may not store",
            "cannot change the secret bridge/git; access was denied",
            "login",
        ),
        ("a session that is over", "log in again", ""),
        ("a wrong repository", "APP/other", "login"),
        (
            "a wrong branch",
            "APP/web has no refs/heads/mian; it has refs/heads/main",
            "delivery",
        ),
        ("no table", "backlog-bridge init", ""),
        ("no stack named", "--stack NAME", ""),
    ] {
        let before = place.writes();
        place.writes_table();
        place.stack(&[]);
        let (mut arguments, mut vars) = (CONNECT.to_vec(), vec![USER, PASSWORD]);
        match case {
            "no login" => vars.clear(),
            "a wrong password" => vars[1] = wrong,
            "another secret" => place.write(&place.table().replace(GIT_SECRET, "staging/git")),
            "a login from the environment" => {
                place.write(
                    &place
                        .table()
                        .replace(&format!("secret:{GIT_SECRET}"), "env:BACKLOG"),
                );
            }
            "a secret that is to be deleted" => {
                () = place.service.secrets.begin_deletion(GIT_SECRET);
            }
            "no such secret" => place.service.secrets.remove(GIT_SECRET),
            "may not store" => place.service.secrets.deny_writes(),
            "a session that is over" => {
                let over =
                    crate::support::aws_api::xml_error("ExpiredToken", "The token is expired");
                place
                    .aws
                    .does("DescribeStacks", move |_| (403, over.clone()));
            }
            "a wrong repository" => place.write(&place.table().replace("APP/web", "APP/other")),
            "a wrong branch" => {
                let table = place
                    .table()
                    .replace("ref = \"refs/heads/main\"", "ref = \"refs/heads/mian\"");
                place.write(&table);
            }
            "no table" => fs::remove_file(place.folder.path().join("routes.toml")).unwrap(),
            _ => arguments = vec!["connect"],
        }
        let ended = place.runs(&arguments, &vars).await;
        let all = format!("{}{}", ended.stdout, ended.stderr);
        println!("{case}: {:?} {}", ended.code, all.trim_end());
        let code = if step.is_empty() { 2 } else { 1 };
        assert_eq!(ended.code, Some(code), "{case}: {all}");
        assert!(
            all.replace("\\\"", "\"").contains(expected),
            "{case}: {all}"
        );
        if !step.is_empty() {
            assert!(
                ended.short().contains(&format!("{step} failed")),
                "{case}: {all}"
            );
        }
        assert!(!all.contains(LOGIN.1), "{case}: {all}");
        if case != "a wrong branch" {
            assert_eq!(place.writes(), before, "{case}: {all}");
        }
        place.service.secrets.heal();
        let empty = r#"{"username":"","password":""}"#;
        place.service.secrets.remove(GIT_SECRET);
        place.service.secrets.put(GIT_SECRET, empty);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_backlog_says_of_the_webhook_is_a_step() {
    let place = Place::new().await;
    let repository = &place.service.repository;
    repository.commit_on(MAIN, &[("a", "a".into())]);
    place.writes_table();
    let ended = place.runs(&CONNECT, &[USER, PASSWORD]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(
        ended.short().contains(&"webhook by_hand".to_owned()),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains(TOKEN), "{}", ended.stdout);

    let bare = ("BACKLOG_ADMIN_API_KEY", BARE_KEY);
    let unknown = ("BACKLOG_ADMIN_API_KEY", "anotherKey");
    let robot = ("BACKLOG_ADMIN_API_KEY", ROBOT_KEY);
    for (key, result, expected) in [
        (
            unknown,
            "webhook failed",
            "the API key is wrong, or of another space",
        ),
        (bare, "webhook failed", "two-factor"),
        (
            robot,
            "webhook by_hand",
            "an administrator of APP registers it",
        ),
    ] {
        let before = place.writes();
        let ended = place.runs(&CONNECT, &[key]).await;
        let all = format!("{}{}", ended.stdout, ended.stderr);
        println!("{all}");
        assert_eq!(ended.code, Some(1), "{all}");
        assert!(ended.short().contains(&result.to_owned()), "{all}");
        assert!(all.contains(expected), "{all}");
        assert!(!all.contains(key.1), "{all}");
        assert_eq!(place.writes(), before, "{all}");
    }

    // One of another bridge, with the same path, is nobody's business; an older one of ours is mended.
    let foreign = place
        .backlog
        .hook("APP", &format!("https://other.example/hooks/{TOKEN}"), &[1]);
    let own = format!("{}/hooks/an-old-token-0123456789", place.gateway.endpoint());
    let first = place.backlog.hook("APP", &own, &[1]);
    let second = place.backlog.hook("APP", &own, &[12]);
    let before = place.backlog.hooks("APP");
    let ended = place.runs(&CONNECT, &[ADMIN]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended
            .message("webhook")
            .contains(&format!("webhook {first} changed")),
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stderr
            .contains(&format!("webhook {second} is a further one")),
        "{}",
        ended.stderr
    );
    let hooks = place.backlog.hooks("APP");
    let of = |hooks: &[Value], id: i64| hooks.iter().find(|hook| hook["id"] == id).cloned();
    assert_eq!(of(&hooks, foreign), of(&before, foreign));
    assert_eq!(of(&hooks, second), of(&before, second));
    assert_eq!(
        of(&hooks, first).unwrap()["activityTypeIds"],
        json!([1, 12, 18])
    );

    // A bridge that refuses its own token.
    place
        .service
        .secrets
        .put(TOKEN_SECRET, "a-token-that-nobody-knows-yet");
    let unreachable = place.gateway.endpoint().replace("127.0.0.1", "127.0.0.2");
    place.stack_at(&unreachable, &[], &[]);
    let ended = place.runs(&CONNECT, &[ADMIN]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(
        ended.short().contains(&"receive failed".to_owned()),
        "{}",
        ended.stdout
    );
    place.stack_at(&unreachable, &[("AllowedIps", "192.0.2.0/24")], &[]);
    let ended = place
        .runs(&[&CONNECT[..], &["--dry-run"]].concat(), &[ADMIN])
        .await;
    assert!(
        ended.message("receive").contains("AllowedIps"),
        "{}",
        ended.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_does_not_come_has_a_reason() {
    let place = Place::new().await;
    place
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    place.writes_table();
    let quick = [&CONNECT[..], &["--wait", "6"]].concat();
    // As a session that ends in the middle.
    place
        .service
        .s3
        .fail_once(s3::Op::PutObject, s3::Fault::Status(403));
    let ended = place.runs(&quick, &[USER, PASSWORD]).await;
    println!("{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.short().contains(&"table failed".to_owned()),
        "{}",
        ended.stdout
    );
    assert_eq!(place.service.secrets.writes(), 1, "what was done stays");

    // Nobody works: nothing is said, and that is told.
    place.service.s3.heal();
    let mut idle = Place::new().await;
    idle.works = false;
    idle.service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    idle.writes_table();
    let ended = idle.runs(&quick, &[USER, PASSWORD]).await;
    println!("{}{}", ended.stdout, ended.stderr);
    let message = ended.message("delivery");
    assert!(
        message.contains("did not come within 6 s: the bridge has said nothing of it"),
        "{message}"
    );

    // What will not pass by itself ends the wait.
    let small = Place::with(&[("MAX_ENTRIES", "1")]).await;
    small
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into()), ("b", "b".into())]);
    small.writes_table();
    let ended = small.runs(&CONNECT, &[USER, PASSWORD]).await;
    println!("{}{}", ended.stdout, ended.stderr);
    let message = ended.message("delivery");
    assert!(
        message.contains("web/main.zip does not come: ") && message.contains("MAX_ENTRIES"),
        "{message}"
    );

    // A log that may not be read is no reason to wait for nothing: the object itself is looked at.
    let blind = Place::new().await;
    blind
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    blind.writes_table();
    blind.aws.denies("FilterLogEvents");
    let ended = blind.runs(&CONNECT, &[USER, PASSWORD, ADMIN]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.short().contains(&"delivery done".to_owned()),
        "{}",
        ended.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_at_any_question_leaves_nothing_behind() {
    let place = Place::new().await;
    let repository = &place.service.repository;
    repository.commit_on(MAIN, &[("a", "a".into())]);
    let space = format!("{}\r", place.service.git.space_url());
    let stopped = place
        .types(
            &["init"],
            &[
                ("Space", &space),
                ("Repository", "APP/web\r"),
                ("user name: ", "x\r"),
                ("not shown", "\x03"),
            ],
        )
        .await;
    assert_eq!(stopped.code, Some(2), "{}", stopped.shown);
    assert!(
        stopped
            .shown
            .contains("the same command goes on from there"),
        "{}",
        stopped.shown
    );
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0);
    place.writes_table();
    let stopped = place.types(&CONNECT, &[("user name for", "\x03")]).await;
    assert_eq!(stopped.code, Some(2), "{}", stopped.shown);
    assert_eq!(place.writes(), (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn init_takes_flags_and_says_which_one_is_missing() {
    let place = Place::new().await;
    let repository = &place.service.repository;
    repository.commit_on(MAIN, &[("a", "a".into())]);
    repository.commit_on("refs/heads/release/1", &[("a", "a".into())]);
    let space = place.service.git.space_url();
    for (arguments, expected) in [
        (&["init"][..], "say --space"),
        (&["init", "--space", &space], "say --repository"),
        (
            &["init", "--space", &space, "--repository", "APP/web"],
            "say --ref main",
        ),
        (
            &[
                "init",
                "--space",
                "example",
                "--repository",
                "APP/web",
                "--ref",
                "main",
            ],
            "--space: expected",
        ),
        (&["init", "--add"], "there is no routes.toml to add to"),
    ] {
        let ended = place.runs(arguments, &[]).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(
            ended.stderr.contains(expected),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    // The repository may be in the address; the branch is looked for.
    let whole = [
        "init",
        "--space",
        &space,
        "--repository",
        "APP/web",
        "--ref",
        "mian",
    ];
    let ended = place.runs(&whole, &[USER, PASSWORD]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(
        ended.message("ref").contains(
            "APP/web has no refs/heads/mian; it has refs/heads/main, refs/heads/release/1"
        ),
        "{}",
        ended.stdout
    );
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0);

    let well = [
        "init",
        "--space",
        &space,
        "--repository",
        "APP/web",
        "--ref",
        "main",
    ];
    let dry = [&well[..], &["--dry-run"]].concat();
    let ended = place.runs(&dry, &[USER, PASSWORD]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0);
    assert_eq!(place.runs(&well, &[USER, PASSWORD]).await.code, Some(0));
    let first = place.table();
    let other = [
        "init",
        "--space",
        &space,
        "--repository",
        "APP/web",
        "--ref",
        "release/*",
    ];
    let ended = place.runs(&other, &[USER, PASSWORD]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stdout);
    assert!(ended.stderr.contains("--add"), "{}", ended.stderr);
    let added = [&other[..], &["--add"]].concat();
    let ended = place.runs(&added, &[USER, PASSWORD]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.message("ref").contains("matches 1 ref now"),
        "{}",
        ended.stdout
    );
    assert!(
        place.table().starts_with(first.trim_end()),
        "{}",
        place.table()
    );
    let once_more = place.table();
    assert_eq!(
        place.runs(&added, &[USER, PASSWORD]).await.short()[3],
        "table well"
    );
    assert_eq!(place.table(), once_more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_chosen_from_what_a_key_shows() {
    let place = Place::new().await;
    place
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    place.service.repository.set_symbolic_ref("HEAD", MAIN);
    place.backlog.repository("APP", "api", None);
    let space = format!("{}\r", place.service.git.space_url());
    let (user, password, key) = (
        format!("{}\r", LOGIN.0),
        format!("{}\r", LOGIN.1),
        format!("{ROBOT_KEY}\r"),
    );
    let init = place
        .types(
            &["init"],
            &[
                ("Space", &space),
                ("Repository", "\r"),
                ("not shown", &key),
                ("Number", "1\r"),
                ("user name: ", &user),
                ("not shown", &password),
                ("[main]", "\r"),
            ],
        )
        .await;
    println!("{}", init.shown);
    assert_eq!(init.code, Some(0), "{}", init.shown);
    assert!(
        init.shown.contains("a normal user") && init.shown.contains("2  APP/api"),
        "{}",
        init.shown
    );
    assert!(!init.shown.contains(ROBOT_KEY));
    assert!(place.table().contains("repository = \"APP/web\""));
}

/// The lines that a document has somebody type in this section.
fn typed(text: &str, section: &str) -> Vec<String> {
    let rest = text.split_once(&format!("\n## {section}\n")).unwrap().1;
    let section = rest.split("\n## ").next().unwrap();
    let (mut lines, mut block) = (Vec::new(), None);
    for line in section.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(kind), None) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => lines.push(line.to_owned()),
            (None, Some("console")) if line.starts_with("$ ") => lines.push(line[2..].to_owned()),
            // What connect prints is pasted.
            (None, Some("console")) if line.starts_with("aws ") => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

#[test]
fn the_shortest_way_has_nine_lines_in_both_languages() {
    let english = typed(include_str!("../../docs/deploy.md"), "In nine lines");
    let japanese = typed(include_str!("../../docs/deploy.ja.md"), "9 行で");
    assert_eq!(english.len(), 9, "{english:#?}");
    assert_eq!(english, japanese);
    for command in [
        "backlog-bridge init",
        "backlog-bridge connect --stack backlog-bridge",
    ] {
        assert!(english.iter().any(|line| line == command), "{english:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_asked_for_once_a_pipeline_is_there_and_end_with_what_to_type() {
    let place = Place::new().await;
    place
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    place.writes_table();
    let parameters = [
        ("Architecture", "arm64"),
        ("ObjectKeys", "bridge/*.zip"),
        ("ExtraBuckets", "partner,other"),
        ("Results", "no"),
    ];
    place.stack(&parameters);
    let vars = [USER, PASSWORD, ADMIN];
    let ended = place.runs(&CONNECT, &vars).await;
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    // Before there is a pipeline there is nothing to tell of: the shortest way asks nine questions.
    let key = format!("{ADMIN_KEY}\r");
    let typed = place.types(&CONNECT, &[("API key", &key)]).await;
    assert_eq!(typed.code, Some(0), "{}", typed.shown);

    let source = json!({"actionTypeId": {"category": "Source", "provider": "S3"}, "configuration":
        {"S3Bucket": BUCKET, "S3ObjectKey": KEY, "PollForSourceChanges": "false"}});
    let pipeline = json!({"pipeline": {"name": "web-main", "executionMode": "SUPERSEDED", "stages": [{"actions": [source]}]},
        "metadata": {"pipelineArn": "arn:aws:codepipeline:r:1:web-main"}});
    place
        .aws
        .says(
            "ListPipelines",
            &json!({"pipelines": [{"name": "web-main"}]}).to_string(),
        )
        .says("GetPipeline", &pipeline.to_string());
    let answers = [("API key", &*key), ("[y/N]", "n\r")];
    let typed = place.types(&CONNECT, &answers).await;
    assert_eq!(typed.code, Some(0), "{}", typed.shown);
    assert!(
        typed.shown.contains("results = \"none\"") && !typed.shown.contains("sam deploy"),
        "{}",
        typed.shown
    );
    let answers = [("API key", &*key), ("[y/N]", "y\r")];
    let typed = place.types(&CONNECT, &answers).await;
    assert_eq!(typed.code, Some(0), "{}", typed.shown);
    let commands = [
        "sam deploy --stack-name bridge --region ap-northeast-1 --parameter-overrides Architecture=arm64 Results=yes",
        "sam deploy --stack-name bridge-results --template-file results.yaml --region ap-northeast-1 --parameter-overrides \
         Architecture=arm64 BridgeStack=bridge SourceBucket=sources AlarmTopicArn=arn:aws:sns:ap-northeast-1:123456789012:alarms \
         'ObjectKeys=bridge/*.zip' ExtraBuckets=partner,other ApiKeySecretName=bridge/api",
    ];
    let lines = [
        "api_key = \"secret:bridge/api\"",
        "results = \"pull_request\"",
        "pipeline = \"web-main\"",
    ];
    for part in commands
        .into_iter()
        .chain(lines)
        .chain(["Reporters and guests"])
    {
        assert!(typed.shown.contains(part), "{part}: {}", typed.shown);
    }

    // Without a terminal nobody is asked; a flag says it. The same for who wants none.
    let before = place.writes();
    let ended = place.runs(&CONNECT, &vars).await;
    assert!(!ended.stdout.contains("sam deploy"), "{}", ended.stdout);
    let yes = [&CONNECT[..], &["--results", "yes"]].concat();
    let ended = place.runs(&yes, &vars).await;
    let next: Vec<_> = ended
        .steps
        .iter()
        .filter(|line| line["step"] == "next")
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    assert_eq!((ended.code, &next[..]), (Some(0), &commands[..]));
    let no = [&CONNECT[..], &["--results", "no"]].concat();
    let typed = place.types(&no, &[("API key", &key)]).await;
    assert_eq!(typed.code, Some(0), "{}", typed.shown);
    assert_eq!(place.writes(), before);

    // The table says it: no question more. Who can read an issue is said before one is written to.
    let table = place.table().replacen(
        "[[route]]",
        "api_key = \"secret:robot\"\nresults = \"alert\"\nresults_issue = \"commit\"\n[[route]]\npipeline = \"web-main\"",
        1,
    );
    place.write(&table);
    place.aws.functions(&json!({"TABLE_FORMAT": "2"}));
    let all = [&CONNECT[..], &["--yes"]].concat();
    let ended = place.runs(&all, &vars).await;
    let short = ended.short();
    let at = |line: &str| short.iter().position(|own| own == line);
    assert!(at("results well") < at("table done"), "{short:?}");
    assert!(
        ended.message("results").contains("reporters and guests"),
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .contains("sam deploy --stack-name bridge-results")
            && ended.stdout.contains("ApiKeySecretName=robot"),
        "{}",
        ended.stdout
    );
    place.stack_telling(&TestSqs::results_url());
    let typed = place.types(&all, &[("API key", &key)]).await;
    assert_eq!(typed.code, Some(0), "{}", typed.shown);
    assert!(
        typed
            .shown
            .contains("bridge-results tells results of 1 route")
            && !typed.shown.contains("sam deploy"),
        "{}",
        typed.shown
    );
}
