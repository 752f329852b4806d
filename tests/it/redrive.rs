//! `redrive`: dead letters go back to the queue, one job for each ref.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    aws_api::AwsApi,
    process::run_within,
    s3::{ACCESS_KEY, SECRET_KEY},
    sqs::{Fault, Op, TestSqs},
};

const NO_JOB: &str = "somebody's text";

struct Bridge {
    sqs: TestSqs,
    aws: AwsApi,
}

impl Bridge {
    fn new() -> Self {
        let (sqs, aws) = (TestSqs::start(Duration::from_mins(6), 5), AwsApi::start());
        let (queue, letters) = (sqs.url(), sqs.dead_letter_url());
        let bridge = Self { sqs, aws };
        bridge.stack(&queue, &letters, &[]);
        bridge
    }

    fn stack(&self, queue: &str, letters: &str, more: &[(&str, &str)]) {
        let outputs = [
            ("Bucket", "sources"),
            ("RoutingTable", "s3://sources/config/routes.toml"),
            ("Queue", queue),
            ("DeadLetters", letters),
            ("WebhookUrl", "https://abc.execute-api.example/hooks/TOKEN"),
            ("TokenSecret", "arn:token"),
            ("GitSecret", "backlog-bridge/git"),
            ("AlarmTopic", "arn:topic"),
        ];
        let outputs = [&outputs, more].concat();
        self.aws.stack("bridge", "CREATE_COMPLETE", &outputs);
    }

    /// 50 letters of three refs, and one that is no job.
    fn bury(&self) {
        for n in 0..50 {
            let (route, name) =
                [("web-main", "main"), ("web-main", "next"), ("api", "main")][n % 3];
            let body = json!({
                "route": route, "repository": "APP/web", "ref": format!("refs/heads/{name}"),
                "hints": ["1".repeat(40)], "request_id": format!("push-{n}"),
            });
            self.sqs
                .put_dead(&body.to_string(), &format!("{route}/{name}"));
        }
        self.sqs.put_dead(NO_JOB, "somebody");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .args(["redrive", "--stack", "bridge"])
            .args(arguments)
            .env_clear()
            .env("AWS_REGION", "ap-northeast-1")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_ENDPOINT_URL_SQS", self.sqs.endpoint())
            .envs(self.aws.vars());
        command
    }

    /// Exit status, stdout and stderr.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = run_within(&mut self.command(arguments), Duration::from_mins(1));
        let output = output.expect("it ends");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// One job for each of the three refs is on the queue, and what is no job among the dead letters.
    fn assert_moved(&self, jobs: usize) {
        let sent = self.sqs.sent();
        let of = |body: &str| {
            let job: Value = serde_json::from_str(body).unwrap();
            assert_eq!(job["hints"], json!([]));
            (job["route"].to_string(), job["ref"].to_string())
        };
        let refs: std::collections::BTreeSet<_> = sent.iter().map(|sent| of(&sent.body)).collect();
        assert_eq!((sent.len(), refs.len()), (jobs, 3), "{sent:?}");
        assert_eq!(self.sqs.dead_letters(), [json!(NO_JOB)]);
    }
}

#[test]
fn letters_of_one_ref_become_one_job_and_what_is_no_job_stays() {
    let bridge = Bridge::new();
    let (code, stdout, stderr) = bridge.run(&["--yes"]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("bridge: no dead letters"), "{stderr}");

    bridge.bury();
    let (code, stdout, stderr) = bridge.run(&["--dry-run", "--json"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(
        stdout.matches(r#""outcome":"would_send""#).count(),
        3,
        "{stdout}"
    );
    assert!(
        stderr.contains("nothing was sent; the dead-letter queue has 51 messages"),
        "{stderr}"
    );
    assert!(bridge.sqs.sent().is_empty());
    assert_eq!(bridge.sqs.dead_letters().len(), 51);

    let (code, stdout, stderr) = bridge.run(&[]);
    assert_eq!(code, Some(2), "{stdout}");
    assert!(
        stderr.contains("not a terminal; pass --yes to send without asking"),
        "{stderr}"
    );

    let (code, stdout, stderr) = bridge.run(&["--yes", "--json"]);
    assert_eq!(code, Some(1), "one is left: {stderr}");
    let lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "{stdout}");
    let letters: u64 = lines
        .iter()
        .map(|line| line["letters"].as_u64().unwrap())
        .sum();
    assert_eq!(letters, 51);
    let left = lines.iter().find(|line| line["outcome"] == "left").unwrap();
    assert!(
        left["reason"]
            .as_str()
            .unwrap()
            .starts_with("it is no job (message "),
        "{left}"
    );
    bridge.assert_moved(3);

    let (code, stdout, _) = bridge.run(&["--yes"]);
    assert_eq!(code, Some(1));
    assert!(
        stdout.contains("1 dead letter left: it is no job"),
        "{stdout}"
    );
    bridge.assert_moved(3);
}

#[test]
fn only_what_is_named_is_moved() {
    let bridge = Bridge::new();
    bridge.bury();
    let (code, stdout, stderr) = bridge.run(&["api", "--yes"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stdout.contains("api refs/heads/main: 16 dead letters: sent one job"),
        "{stdout}"
    );
    assert_eq!(bridge.sqs.sent().len(), 1);
    assert_eq!(bridge.sqs.dead_letters().len(), 51 - 16);
    let (code, stdout, _) = bridge.run(&["web-main", "--yes", "--json"]);
    assert_eq!((code, stdout.lines().count()), (Some(1), 3), "{stdout}");
    bridge.assert_moved(3);
}

#[test]
fn killed_between_sending_and_deleting_it_ends_the_same_when_it_runs_again() {
    let bridge = Bridge::new();
    bridge.bury();
    bridge.sqs.fault_once(Op::DeleteMessage, Fault::Hang);
    let mut command = bridge.command(&["--yes"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while bridge.sqs.count(Op::DeleteMessage) == 0 {
        assert!(Instant::now() < end, "it never deletes");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(bridge.sqs.sent().len(), 1);
    assert_eq!(bridge.sqs.dead_letters().len(), 51);

    let (code, _, stderr) = bridge.run(&["--yes"]);
    assert_eq!(code, Some(1), "what was killed holds them: {stderr}");
    assert!(stderr.contains("try again in a minute"), "{stderr}");
    bridge.sqs.let_dead_letters_return();
    let (code, stdout, stderr) = bridge.run(&["--yes"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    // One of them twice, which does no harm.
    bridge.assert_moved(4);
}

#[test]
fn what_fails_again_meanwhile_is_not_sent_for_ever() {
    let bridge = Bridge::new();
    bridge.bury();
    let (code, stdout, stderr) = std::thread::scope(|scope| {
        let running = scope.spawn(|| bridge.run(&["--yes"]));
        let end = Instant::now() + Duration::from_secs(30);
        let sent = loop {
            if let Some(sent) = bridge.sqs.sent().first() {
                break sent.clone();
            }
            assert!(Instant::now() < end, "nothing is sent");
            std::thread::sleep(Duration::from_millis(1));
        };
        // The bridge gives it up at once.
        bridge.sqs.put_dead(&sent.body, &sent.group);
        running.join().unwrap()
    });
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stdout.contains("what was sent back has failed again"),
        "{stdout}"
    );
    assert_eq!(
        (bridge.sqs.sent().len(), bridge.sqs.dead_letters().len()),
        (3, 2)
    );
}

#[test]
fn letters_of_results_go_back_too_each_text_once_and_in_their_one_group() {
    let bridge = Bridge::new();
    let results = TestSqs::results_url();
    let (queue, letters) = (bridge.sqs.url(), bridge.sqs.dead_letter_url());
    bridge.stack(&queue, &letters, &[("ResultsQueue", &results)]);
    let red = r#"{"pipeline":"web-main","execution":"e1","state":"FAILED","time":"2026-04-01T00:00:00Z"}"#;
    let opened = r#"{"repository":"APP/web","pull_request":7,"request_id":"r"}"#;
    for body in [red, opened, NO_JOB, red, r#"{"look":true}"#] {
        bridge.sqs.put_dead_result(body);
    }
    for n in 0..25 {
        let body = format!(r#"{{"pipeline":"web-{n}","execution":"e{n}","state":"STARTED"}}"#);
        bridge.sqs.put_dead_result(&body);
    }
    let (code, stdout, stderr) = bridge.run(&["--dry-run", "--json"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stdout.contains(r#"{"pipeline":"web-main","letters":2,"outcome":"would_send"}"#),
        "{stdout}"
    );
    assert_eq!(bridge.sqs.results().0, [""; 0]);
    let (code, stdout, stderr) = bridge.run(&["--yes"]);
    assert_eq!(code, Some(1), "one is no message: {stdout}{stderr}");
    assert!(
        stdout.contains("web-main: 2 dead letters: sent one message")
            && stdout.contains("APP/web#7: 1 dead letter: sent one message")
            && stdout.contains("1 dead letter left: it is no job (message "),
        "{stdout}"
    );
    let (sent, left) = bridge.sqs.results();
    assert_eq!(sent.len(), 2 + 25, "{sent:?}");
    // As it was: of a run that failed there is a mail.
    assert!(sent.contains(&red.to_owned()) && sent.contains(&opened.to_owned()));
    assert_eq!(left, [NO_JOB, r#"{"look":true}"#]);
    let groups = bridge.sqs.calls(Op::SendMessage);
    assert!(
        groups
            .iter()
            .all(|call| call["MessageGroupId"] == "results")
    );
    assert!(bridge.sqs.sent().is_empty());
    // Who names routes means jobs.
    let (code, stdout, _) = bridge.run(&["web-main", "--yes"]);
    assert_eq!((code, &*stdout), (Some(0), ""));
    // Where results.yaml is not there yet, there is nothing to send back.
    let gone = results.replace("bridge-results", "other-results");
    bridge.stack(&queue, &letters, &[("ResultsQueue", &gone)]);
    let (code, stdout, stderr) = bridge.run(&["--yes"]);
    assert_eq!((code, &*stdout), (Some(0), ""), "{stderr}");
}
