//! The command line and a deployed bridge that it knows by the name of its stack.

use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    BUCKET, MAIN,
    aws_api::{AwsApi, xml_error},
    process::run_within,
    s3::{ACCESS_KEY, SECRET_KEY, TestS3},
    service::{GIT_SECRET, LOGIN, Service, lines},
};

const TABLE: &str = "[[space]]\nurl = \"https://example.backlog.com/git\"\n[[route]]\nrepository = \"APP/web\"\n\
                     ref = \"refs/heads/main\"\nobject = \"web/main.zip\"\n";

const ACCOUNT: [(&str, &str); 3] = [
    ("AWS_REGION", "ap-northeast-1"),
    ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
    ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
];

/// A stack, and where it was deployed.
struct Deployed {
    folder: TempDir,
    s3: TestS3,
    aws: AwsApi,
}

impl Deployed {
    async fn new() -> Self {
        let (s3, aws) = (TestS3::start().await, AwsApi::start());
        aws.functions(&json!({"TABLE_FORMAT": "2"}));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("routes.toml"), TABLE).unwrap();
        let deployed = Self { folder, s3, aws };
        deployed.stack(&[]);
        deployed
    }

    /// The stack with further outputs.
    fn stack(&self, more: &[(&str, &str)]) {
        let table = format!("s3://{BUCKET}/config/routes.toml");
        let outputs = [
            ("Bucket", BUCKET),
            ("RoutingTable", &table),
            ("Queue", "https://sqs.example/1/bridge-Queue.fifo"),
            (
                "DeadLetters",
                "https://sqs.example/1/bridge-DeadLetters.fifo",
            ),
            ("WebhookUrl", "https://abc.execute-api.example/hooks/TOKEN"),
            ("TokenSecret", "arn:token"),
            ("GitSecret", "backlog-bridge/git"),
            ("AlarmTopic", "arn:topic"),
        ];
        let outputs = [&outputs, more].concat();
        self.aws.stack("bridge", "CREATE_COMPLETE", &outputs);
    }

    /// Exit status, stdout and stderr.
    async fn run(
        &self,
        arguments: &[&str],
        vars: &[(&str, &str)],
    ) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(ACCOUNT)
            .env("AWS_ENDPOINT_URL_S3", self.s3.endpoint())
            .envs(self.aws.vars())
            .envs(vars.iter().copied());
        let run = move || run_within(&mut command, Duration::from_secs(30)).expect("it ends");
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_goes_where_the_outputs_of_the_stack_say() {
    let deployed = Deployed::new().await;
    let (code, _, stderr) = deployed
        .run(&["routes", "push", "--yes", "--stack", "bridge"], &[])
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    let by_name = [("BACKLOG_BRIDGE_STACK", "bridge")];
    let (code, stdout, stderr) = deployed.run(&["routes", "pull"], &by_name).await;
    assert_eq!((code, stdout.as_str()), (Some(0), TABLE), "{stderr}");
    let calls = deployed.aws.calls("DescribeStacks");
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].service, "cloudformation");
    // What is said on the line wins.
    let there = format!("s3://{BUCKET}/config/routes.toml");
    let (code, ..) = deployed
        .run(&["routes", "pull", "--at", &there], &by_name)
        .await;
    assert_eq!(
        (code, deployed.aws.calls("DescribeStacks").len()),
        (Some(0), 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_no_bridge_is_named_with_what_to_do() {
    let deployed = Deployed::new().await;
    let pull = ["--stack", "bridge", "routes", "pull"];
    for (case, arguments, expected) in [
        (
            "no such stack",
            ["--stack", "brigde", "routes", "pull"],
            "there is no stack brigde in ap-northeast-1",
        ),
        ("half made", pull, "the stack bridge is ROLLBACK_COMPLETE"),
        (
            "another one",
            pull,
            "is no bridge: it has no output RoutingTable",
        ),
        (
            "not allowed",
            pull,
            "cloudformation:DescribeStacks failed; access was denied",
        ),
        ("a login that is over", pull, "log in again"),
        (
            "no answer that can be read",
            pull,
            "the answer cannot be read",
        ),
    ] {
        let aws = &deployed.aws;
        let _ = match case {
            "half made" => aws.stack("bridge", "ROLLBACK_COMPLETE", &[]),
            "another one" => aws.stack("bridge", "CREATE_COMPLETE", &[("Bucket", "b")]),
            "not allowed" => aws.denies("DescribeStacks"),
            "a login that is over" => {
                let over = xml_error("ExpiredToken", "The security token is expired");
                aws.does("DescribeStacks", move |_| (403, over.clone()))
            }
            "no answer that can be read" => aws.says("DescribeStacks", "<html>"),
            _ => aws,
        };
        let (code, stdout, stderr) = deployed.run(&arguments, &[]).await;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{case}: {stderr}");
        assert!(stderr.contains(expected), "{case}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{case}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_for_a_moment_is_asked_again() {
    let deployed = Deployed::new().await;
    let (code, _, stderr) = deployed
        .run(&["routes", "push", "--yes", "--stack", "bridge"], &[])
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    let tries = std::sync::atomic::AtomicUsize::new(0);
    deployed.aws.does("DescribeStacks", move |_| {
        match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => (503, String::new()),
            _ => (400, xml_error("Throttling", "Rate exceeded")),
        }
    });
    let (code, _, stderr) = deployed
        .run(&["routes", "pull", "--stack", "bridge"], &[])
        .await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("Throttling: Rate exceeded"), "{stderr}");
    assert_eq!(deployed.aws.calls("DescribeStacks").len(), 1 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_delivers_here_does_not_take_a_stack() {
    let deployed = Deployed::new().await;
    for (arguments, expected) in [
        (
            &["serve", "--stack", "bridge"][..],
            "this command does not use --stack; drop it",
        ),
        (
            &["--stack", "bridge", "demo"],
            "this command does not use --stack; drop it",
        ),
        (&["sync", "--stack", "bridge", "--aws"], "drop one"),
        (&["sync", "--stack", "bridge", "--store", "x"], "drop one"),
    ] {
        let (code, _, stderr) = deployed.run(arguments, &[]).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

/// The whole bridge, deployed as the stack `bridge`.
struct Bridge {
    service: Arc<Service>,
    aws: AwsApi,
    folder: TempDir,
}

impl Bridge {
    async fn with(routes: &[(&str, &str, &str)]) -> Self {
        let service = Arc::new(Service::with(routes, &[]).await);
        let aws = AwsApi::start();
        let table = format!("s3://{BUCKET}/config/routes.toml");
        let outputs = [
            ("Bucket", BUCKET),
            ("RoutingTable", &table),
            ("Queue", &service.sqs.url()),
            ("DeadLetters", &service.sqs.dead_letter_url()),
            ("WebhookUrl", "https://abc.execute-api.example/hooks/TOKEN"),
            ("TokenSecret", "bridge/token"),
            ("GitSecret", GIT_SECRET),
            ("AlarmTopic", "arn:topic"),
        ];
        aws.stack("bridge", "CREATE_COMPLETE", &outputs);
        let logging = Arc::clone(&service);
        aws.does("FilterLogEvents", move |call| {
            let input: Value = serde_json::from_str(&call.input).unwrap();
            assert_eq!(input["logGroupName"], "/aws/lambda/bridge-deliver");
            let pattern = input["filterPattern"].as_str().unwrap().to_owned();
            // Of a page that is not the last one, nothing need be on it.
            if input["nextToken"].is_null() {
                return (200, json!({"events": [], "nextToken": "more"}).to_string());
            }
            let logged = lines(&logging.deliver).into_iter().filter(|line| {
                line["request_id"]
                    .as_str()
                    .is_some_and(|id| pattern == format!("{{ $.request_id = \"{id}\" }}"))
            });
            let events: Vec<_> = logged
                .map(|line| json!({"message": line.to_string()}))
                .collect();
            (200, json!({"events": events}).to_string())
        });
        let folder = tempfile::tempdir().unwrap();
        Self {
            service,
            aws,
            folder,
        }
    }

    /// Exit status, stdout and stderr of a command that is about the stack.
    async fn command(&self, arguments: &[String]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        let of_functions = self.service.vars.iter();
        let of_sdk = of_functions.filter(|(name, _)| name.starts_with("AWS_"));
        command
            .args(arguments)
            .env("BACKLOG_BRIDGE_STACK", "bridge")
            .current_dir(self.folder.path())
            .envs(ACCOUNT)
            .envs(of_sdk.cloned())
            .envs(self.aws.vars());
        let run = move || run_within(&mut command, Duration::from_mins(1)).expect("it ends");
        let output: Output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Has the functions work meanwhile, if they are to. Exit status, the lines of stdout, and stderr.
    async fn sync(&self, arguments: &[&str], works: bool) -> (Option<i32>, Vec<Value>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        let of_functions = self.service.vars.iter();
        let of_sdk =
            of_functions.filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("SSL_"));
        command
            .args(["sync", "--stack", "bridge"])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(ACCOUNT)
            .envs(of_sdk.cloned())
            .envs(self.aws.vars());
        let run = move || run_within(&mut command, Duration::from_mins(1)).expect("it ends");
        let mut running = tokio::task::spawn_blocking(run);
        let output: Output = loop {
            tokio::select! {
                output = &mut running => break output.unwrap(),
                _ = self.service.drain(), if works => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let lines = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        (output.status.code(), lines.collect(), stderr)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_has_the_bridge_deliver_and_tells_what_became_of_it() {
    let glob = "refs/heads/release/*";
    let bridge = Bridge::with(&[
        (MAIN, "web/main.zip", ""),
        ("refs/heads/gone", "web/gone.zip", ""),
        (glob, "web/{ref}.zip", ""),
    ])
    .await;
    let repository = &bridge.service.repository;
    let commit = repository.commit_on(MAIN, &[("a", "a".into())]);
    let newer = repository.commit_on("refs/heads/release/1", &[("b", "b".into())]);

    let (code, lines, stderr) = bridge.sync(&[MAIN, glob], true).await;
    assert_eq!(code, Some(0), "{stderr}");
    let told = |name: &str| lines.iter().find(|line| line["ref"] == name).unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (name, commit) in [(MAIN, &commit), ("refs/heads/release/1", &newer)] {
        let line = told(name);
        assert_eq!(
            (&line["outcome"], &line["commit"]),
            (&json!("published"), &json!(commit))
        );
        for context in ["job", "request_id", "_aws", "level", "message_id"] {
            assert_eq!(line[context], Value::Null, "{context} is for the log");
        }
        assert!(
            line["version_id"].is_string() && line["duration_ms"].is_u64(),
            "{line}"
        );
    }

    let (code, lines, stderr) = bridge.sync(&[MAIN], true).await;
    assert_eq!(
        (code, &lines[0]["outcome"]),
        (Some(0), &json!("already_current")),
        "{stderr}"
    );

    // What is tried again is no end: only the last try is.
    let (code, lines, stderr) = bridge.sync(&["refs/heads/gone", "--wait", "3"], true).await;
    assert_eq!(
        (code, &lines[0]["outcome"]),
        (Some(1), &json!("failed")),
        "{stderr}"
    );
    assert_eq!(lines[0]["error"]["kind"], "deadline", "{lines:?}");
    let message = lines[0]["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("the last that it said is: APP/web has no refs/heads/gone"),
        "{message}"
    );
    assert_eq!(
        bridge.service.versions().len(),
        1,
        "no object was written from here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_seen_is_said() {
    let bridge = Bridge::with(&[(MAIN, "web/main.zip", "")]).await;
    bridge
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    let (code, lines, stderr) = bridge.sync(&["--wait", "0"], false).await;
    assert_eq!((code, lines.len()), (Some(0), 0), "{stderr}");
    assert!(stderr.contains("sent 1 job to bridge"), "{stderr}");
    let (code, _, stderr) = bridge.sync(&["--wait", "3"], false).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("has not told within 3 s"), "{stderr}");
    bridge.aws.denies("FilterLogEvents");
    let (code, _, stderr) = bridge.sync(&[], false).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("1 job was sent")
            && stderr.contains("logs:FilterLogEvents failed; access was denied"),
        "{stderr}"
    );
    let (code, _, stderr) = bridge.sync(&["mian"], false).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("no route is named"), "{stderr}");
    assert_eq!(bridge.service.sqs.sent().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_told_in_prose_and_shown_as_they_are() {
    let deployed = Deployed::new().await;
    let delivered = json!({"level": "INFO", "message": "web-main: published", "route": "web-main", "outcome": "published",
        "commit": "51c72b7400000000000000000000000000000000", "bucket": BUCKET, "object_key": "web/main.zip", "duration_ms": 1_230});
    let failed = json!({"level": "ERROR", "message": "api: failed: no \u{1b}[31mlogin", "route": "api", "outcome": "failed"});
    let accepted = json!({"level": "INFO", "message": "accepted", "routes": ["web-main"], "outcome": "accepted"});
    let told = json!({"level": "INFO", "message": "results of web-main: told", "pipeline": "web-main", "result": "told"});
    let lines = [
        (
            2_000,
            "deliver",
            "START RequestId: 1 Version: $LATEST\n".to_owned(),
        ),
        (4_000, "deliver", delivered.to_string()),
        (1_000, "receive", accepted.to_string()),
        (5_000, "deliver", failed.to_string()),
        (
            6_000,
            "deliver",
            "2026-11-30T00:00:00Z 1 Task timed out after 300.00 seconds\n".into(),
        ),
        (
            6_000,
            "deliver",
            "REPORT RequestId: 1 Duration: 1 ms Billed Duration: 1 ms\n".into(),
        ),
        (
            7_000,
            "deliver",
            "REPORT RequestId: 1 Duration: 1 ms Status: timeout\n".into(),
        ),
        (8_000, "results", told.to_string()),
    ];
    deployed.aws.does("FilterLogEvents", move |call| {
        let input: Value = serde_json::from_str(&call.input).unwrap();
        let of = |function: &str| input["logGroupName"] == format!("/aws/lambda/bridge-{function}");
        let events = lines.iter().filter(|(_, function, _)| of(function));
        let events = events.map(|(time, _, text)| json!({"timestamp": time, "message": text}));
        (
            200,
            json!({"events": events.collect::<Vec<_>>()}).to_string(),
        )
    });
    let (code, stdout, stderr) = deployed.run(&["logs", "--stack", "bridge"], &[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        !stdout.contains("results"),
        "it has no such function: {stdout}"
    );
    deployed.stack(&[("ResultsQueue", "https://sqs.example/1/bridge-results.fifo")]);
    let (code, stdout, stderr) = deployed.run(&["logs", "--stack", "bridge"], &[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        stdout.lines().collect::<Vec<_>>(),
        [
            "1970-01-01T00:00:01Z receive: accepted",
            "1970-01-01T00:00:04Z deliver: web-main: published, 51c72b74, s3://sources/web/main.zip, 1.23 s",
            "1970-01-01T00:00:05Z deliver ERROR: api: failed: no \\u{1b}[31mlogin",
            "1970-01-01T00:00:06Z deliver: 2026-11-30T00:00:00Z 1 Task timed out after 300.00 seconds",
            "1970-01-01T00:00:07Z deliver: REPORT RequestId: 1 Duration: 1 ms Status: timeout",
            "1970-01-01T00:00:08Z results: results of web-main: told",
        ]
    );
    let of_route = ["logs", "web-main", "--stack", "bridge", "--json"];
    let (_, stdout, _) = deployed.run(&of_route, &[]).await;
    let shown: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown, [accepted, delivered, told]);
    let (code, _, stderr) = deployed
        .run(&["logs", "none", "--stack", "bridge"], &[])
        .await;
    assert_eq!(code, Some(0));
    assert!(
        stderr.contains("nothing was logged of none since then"),
        "{stderr}"
    );
    // Where results.yaml is not deployed yet.
    deployed.aws.does("FilterLogEvents", |call| {
        if call.input.contains("bridge-results") {
            let gone =
                json!({"__type": "ResourceNotFoundException", "message": "no such log group"});
            return (400, gone.to_string());
        }
        (200, json!({"events": []}).to_string())
    });
    let (code, _, stderr) = deployed.run(&["logs", "--stack", "bridge"], &[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = deployed.run(&["logs"], &[]).await;
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("--stack NAME, or set BACKLOG_BRIDGE_STACK"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_functions_do_not_know_is_not_stored() {
    let deployed = Deployed::new().await;
    let newer = TABLE.replace("[[route]]", "language = \"ja\"\n[[route]]");
    fs::write(deployed.folder.path().join("routes.toml"), newer).unwrap();
    let stored = || deployed.s3.versions(BUCKET, "config/routes.toml").len();
    let push = ["routes", "push", "--yes", "--stack", "bridge"];
    // Functions of the first release say nothing.
    for (variables, known) in [(json!({}), 1), (json!({"TABLE_FORMAT": "1"}), 1)] {
        deployed.aws.functions(&variables);
        let (code, _, stderr) = deployed.run(&push, &[]).await;
        assert_eq!(code, Some(2), "{stderr}");
        let expected = format!(
            "routes.toml:3: `language` needs format 2 of the table, and the functions of bridge know format {known}; deploy the newer bridge first"
        );
        assert!(stderr.contains(&expected), "{stderr}");
    }
    // The function of results reads the same table, where there is one.
    let format = |of_results: Option<u32>| {
        deployed.aws.does("GetFunctionConfiguration", move |call| {
            let known = match (call.input.contains("bridge-results"), of_results) {
                (false, _) => 2,
                (true, Some(known)) => known,
                (true, None) => {
                    let gone = json!({"__type": "ResourceNotFoundException", "message": "none"});
                    return (404, gone.to_string());
                }
            };
            let variables = json!({"TABLE_FORMAT": known.to_string()});
            (
                200,
                json!({"Environment": {"Variables": variables}}).to_string(),
            )
        });
    };
    deployed.stack(&[("ResultsQueue", "https://sqs.example/1/bridge-results.fifo")]);
    format(Some(1));
    let (code, _, stderr) = deployed.run(&push, &[]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("know format 1"), "{stderr}");
    let bucket = [("SOURCE_BUCKET", BUCKET)];
    let (code, _, stderr) = deployed.run(&["routes", "push", "--yes"], &bucket).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains(
            "name the bridge with --stack, so that they can be asked, or pass --allow-newer"
        ),
        "{stderr}"
    );
    assert_eq!(stored(), 0);
    format(None);
    let (code, _, stderr) = deployed.run(&push, &[]).await;
    assert_eq!((code, stored()), (Some(0), 1), "{stderr}");
    fs::write(
        deployed.folder.path().join("routes.toml"),
        format!("{TABLE}# more\n"),
    )
    .unwrap();
    deployed.aws.denies("GetFunctionConfiguration");
    let (code, _, stderr) = deployed.run(&push, &[]).await;
    assert_eq!(
        (code, stored()),
        (Some(0), 2),
        "an old table needs nobody's word: {stderr}"
    );
    let again = TABLE.replace("[[route]]", "language = \"en\"\n[[route]]");
    fs::write(deployed.folder.path().join("routes.toml"), again).unwrap();
    let (code, _, stderr) = deployed
        .run(&["routes", "push", "--yes", "--allow-newer"], &bucket)
        .await;
    assert_eq!((code, stored()), (Some(0), 3), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_paused_and_goes_on_by_one_line_of_the_deployed_table() {
    let deployed = Deployed::new().await;
    let table = format!("# Ours.\n{TABLE}name = \"web\"\n");
    fs::write(deployed.folder.path().join("routes.toml"), &table).unwrap();
    let by_name = [("BACKLOG_BRIDGE_STACK", "bridge")];
    let (code, _, stderr) = deployed.run(&["routes", "push", "--yes"], &by_name).await;
    assert_eq!(code, Some(0), "{stderr}");
    let stored = || {
        let newest = deployed.s3.newest(BUCKET, "config/routes.toml").unwrap();
        String::from_utf8(newest.bytes.unwrap()).unwrap()
    };

    let (code, _, stderr) = deployed.run(&["pause", "web"], &by_name).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("+paused = true") && stderr.contains("pass --yes"),
        "{stderr}"
    );
    assert_eq!(stored(), table);
    let (code, _, stderr) = deployed.run(&["pause", "web", "--yes"], &by_name).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        stored(),
        table.replace("[[route]]\n", "[[route]]\npaused = true\n")
    );
    let (code, _, stderr) = deployed.run(&["pause", "web", "--yes"], &by_name).await;
    assert_eq!(code, Some(0));
    assert!(stderr.contains("web is paused already"), "{stderr}");
    let (code, _, stderr) = deployed.run(&["resume", "web", "--yes"], &by_name).await;
    assert_eq!((code, stored()), (Some(0), table.clone()), "{stderr}");
    let (code, _, stderr) = deployed.run(&["resume", "webb", "--yes"], &by_name).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("did you mean web?"), "{stderr}");
    // Functions that do not know the field would refuse the table.
    deployed.aws.functions(&json!({"TABLE_FORMAT": "1"}));
    let (code, _, stderr) = deployed.run(&["pause", "web", "--yes"], &by_name).await;
    assert_eq!((code, stored()), (Some(2), table), "{stderr}");
    assert!(stderr.contains("deploy the newer bridge first"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one way from its beginning to its end"
)]
async fn a_pipeline_goes_back_to_the_version_of_a_commit() {
    let bridge = Bridge::with(&[(MAIN, "web/main.zip", "")]).await;
    let repository = &bridge.service.repository;
    let mut commits = Vec::new();
    for text in ["a", "b"] {
        commits.push(repository.commit_on(MAIN, &[("a", text.into())]));
        let (code, _, stderr) = bridge.sync(&[], true).await;
        assert_eq!(code, Some(0), "{stderr}");
    }
    let first = bridge.service.versions().pop().unwrap().version_id;
    let back = async |more: &[&str]| {
        let arguments = ["rollback", MAIN, "--commit", &commits[0][..8], "--json"];
        let arguments = arguments.iter().chain(more).map(|text| (*text).to_owned());
        bridge.command(&arguments.collect::<Vec<_>>()).await
    };

    bridge.aws.says(
        "ListPipelines",
        r#"{"pipelines":[{"name":"other"},{"name":"web-main"}]}"#,
    );
    bridge.aws.does("GetPipeline", |call| {
        let action = |category: &str, provider: &str, key: &str| {
            json!({"name": category, "actionTypeId": {"category": category, "provider": provider},
                "configuration": {"S3Bucket": BUCKET, "S3ObjectKey": key, "PollForSourceChanges": "false"}})
        };
        let key = if call.input.contains("web-main") { "web/main.zip" } else { "other.zip" };
        let stages = [("Source", "Source", "S3"), ("Build", "Build", "CodeBuild"), ("Deploy", "Deploy", "ECS")];
        let stages = stages.map(|(name, category, provider)| json!({"name": name, "actions": [action(category, provider, key)]}));
        (200, json!({"pipeline": {"stages": stages}}).to_string())
    });
    let execution = |status: &str| {
        json!({"pipelineExecutionSummaries": [
            {"pipelineExecutionId": "e1", "status": status, "startTime": 1.0, "sourceRevisions": [{"revisionId": first}]}
        ]})
        .to_string()
    };
    bridge
        .aws
        .says("ListPipelineExecutions", &execution("Failed"));
    bridge
        .aws
        .says("StartPipelineExecution", r#"{"pipelineExecutionId":"e2"}"#);
    bridge
        .aws
        .says("RollbackStage", r#"{"pipelineExecutionId":"e3"}"#);

    let (code, stdout, stderr) = back(&["--dry-run"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        bridge.aws.calls("StartPipelineExecution").is_empty(),
        "{stdout}"
    );
    let (code, stdout, stderr) = back(&[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (
            &line["version_id"],
            &line["commit"],
            &line["pipeline"],
            &line["execution"]
        ),
        (
            &json!(first),
            &json!(commits[0]),
            &json!("web-main"),
            &json!("e2")
        )
    );
    assert!(
        line["next"]
            .as_str()
            .unwrap()
            .contains("disable-stage-transition --pipeline-name web-main --stage-name Build")
    );
    let started: Value =
        serde_json::from_str(&bridge.aws.calls("StartPipelineExecution")[0].input).unwrap();
    let pinned = json!([{"actionName": "Source", "revisionType": "S3_OBJECT_VERSION_ID", "revisionValue": first}]);
    assert_eq!(started["sourceRevisions"], pinned);

    // What was deployed once is taken again.
    bridge
        .aws
        .says("ListPipelineExecutions", &execution("Succeeded"));
    let (code, stdout, stderr) = back(&[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(r#""execution":"e3""#), "{stdout}");
    let rolled: Value = serde_json::from_str(&bridge.aws.calls("RollbackStage")[0].input).unwrap();
    assert_eq!(
        rolled,
        json!({"pipelineName": "web-main", "stageName": "Deploy", "targetPipelineExecutionId": "e1"})
    );
    assert_eq!(bridge.service.versions().len(), 2, "the object stays");

    let gone = [
        "rollback",
        MAIN,
        "--version-id",
        "nothing",
        "--stack",
        "bridge",
    ]
    .map(str::to_owned);
    let (code, _, stderr) = bridge.command(&gone[..4]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("has no version"), "{stderr}");
    bridge.aws.says("ListPipelines", "{}");
    let (code, _, stderr) = back(&[]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("no pipeline reads s3://sources/web/main.zip"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_pipelines_and_of_the_bridge_itself() {
    let bridge = Bridge::with(&[(MAIN, "web/main.zip", "pipeline = \"web-main\"")]).await;
    bridge
        .service
        .repository
        .commit_on(MAIN, &[("a", "a".into())]);
    bridge.service.sweep().await;
    let (login, password) = LOGIN;
    let status = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .args(["status", "--json", "--stack", "bridge"])
            .current_dir(bridge.folder.path())
            .envs(ACCOUNT)
            .env("BACKLOG_USERNAME", login)
            .env("BACKLOG_PASSWORD", password)
            .envs(
                bridge
                    .service
                    .vars
                    .iter()
                    .filter(|(name, _)| !name.contains("BUCKET"))
                    .cloned(),
            )
            .envs(bridge.aws.vars());
        let run = move || run_within(&mut command, Duration::from_mins(1)).expect("it ends");
        let output: Output = tokio::task::spawn_blocking(run).await.unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        (
            lines.collect::<Vec<_>>(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let executions =
        json!({"pipelineExecutionSummaries": [{"pipelineExecutionId": "e1", "status": "Failed"}]});
    bridge
        .aws
        .says("ListPipelineExecutions", &executions.to_string());
    let swept = json!({"events": [{"timestamp": 1_700_000_000_000_u64, "message": r#"{"outcome":"swept"}"#}]});
    bridge.aws.does("FilterLogEvents", move |call| {
        assert!(call.input.contains("swept"));
        (200, swept.to_string())
    });
    bridge.service.sqs.put(r#"{"sweep":true}"#, "sweep");
    bridge.service.sqs.put_dead("a letter", "x");
    let (lines, stderr) = status().await;
    assert_eq!(lines.len(), 2, "{stderr}");
    assert_eq!(
        (&lines[0]["state"], &lines[0]["pipeline_status"]),
        (&json!("current"), &json!("Failed"))
    );
    let of_bridge = json!({
        "stack": "bridge", "waiting": 1, "in_flight": 0, "dead_letters": 1, "last_sweep": "2023-11-14T22:13:20Z"
    });
    assert_eq!(lines[1], of_bridge);

    // What cannot be seen is absent, and said.
    bridge
        .aws
        .denies("ListPipelineExecutions")
        .denies("FilterLogEvents");
    let (lines, stderr) = status().await;
    assert_eq!(
        (&lines[0]["pipeline_status"], &lines[1]["last_sweep"]),
        (&Value::Null, &Value::Null)
    );
    assert!(
        stderr.contains("what became of web-main cannot be seen")
            && stderr.contains("cannot be seen: logs:FilterLogEvents"),
        "{stderr}"
    );
}
