//! The command line and a deployed bridge that it knows by the name of its stack.

use std::{fs, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    BUCKET,
    aws_api::{AwsApi, xml_error},
    process::run_within,
    s3::{ACCESS_KEY, SECRET_KEY, TestS3},
};

const TABLE: &str = "[[space]]\nurl = \"https://example.backlog.com/git\"\n[[route]]\nrepository = \"APP/web\"\n\
                     ref = \"refs/heads/main\"\nobject = \"web/main.zip\"\n";

/// A stack, and where it was deployed.
struct Deployed {
    folder: TempDir,
    s3: TestS3,
    aws: AwsApi,
}

impl Deployed {
    async fn new() -> Self {
        let (s3, aws) = (TestS3::start().await, AwsApi::start());
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
        aws.stack("bridge", "CREATE_COMPLETE", &outputs);
        aws.functions(&json!({"TABLE_FORMAT": "2"}));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("routes.toml"), TABLE).unwrap();
        Self { folder, s3, aws }
    }

    /// Exit status, stdout and stderr.
    async fn run(
        &self,
        arguments: &[&str],
        vars: &[(&str, &str)],
    ) -> (Option<i32>, String, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs([
                ("AWS_REGION", "ap-northeast-1"),
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                ("AWS_ENDPOINT_URL_S3", self.s3.endpoint()),
            ])
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
