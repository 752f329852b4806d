//! Results: the function as it is deployed, between a queue, a space of Backlog, AWS's pipelines and an S3.

mod answers;
mod bounds;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use backlog_bridge::results::{GROUP, Message};
use serde_json::{Value, json};

use super::contract::{allowed, allowed_in, counted, matches, template};
use crate::support::{
    BUCKET,
    aws_api::AwsApi,
    backlog::{ADMIN_KEY, BARE_KEY, Fault, Habits, ROBOT_KEY, TestBacklog},
    lambda::Lambda,
    process::run_within,
    s3::{ACCESS_KEY, Fault as S3Fault, Op, SECRET_KEY, TestS3},
    secrets::TestSecrets,
    service::{Service, TOKEN, answer, lines, request},
    sqs::{Op as SqsOp, TestSqs},
    tls::Ca,
};

const ROBOT: i64 = 2;
const LIMIT: Duration = Duration::from_secs(40);
const API_SECRET: &str = "backlog-bridge/api";
const TOPIC: &str = "arn:aws:sns:ap-northeast-1:123456789012:alarms";

/// A run as AWS shows it.
#[derive(Clone)]
struct Shown {
    id: String,
    status: &'static str,
    version: String,
    started: i64,
    ended: i64,
    is_rollback: bool,
    object: (String, String),
    words: String,
}

type Runs = Arc<Mutex<BTreeMap<String, Vec<Shown>>>>;

struct World {
    backlog: TestBacklog,
    s3: TestS3,
    aws: AwsApi,
    runs: Runs,
    function: Lambda,
    vars: Vec<(&'static str, String)>,
    ca: Ca,
    sqs: TestSqs,
    secrets: TestSecrets,
}

fn commit(n: u8) -> String {
    format!("{n:02x}").repeat(20)
}

fn id(n: u8) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

impl World {
    async fn new(space: &str, routes: &str) -> Self {
        Self::with(space, routes, "1").await
    }

    /// A space's fields, routes, and for how long a list may lag, in milliseconds.
    async fn with(space: &str, routes: &str, lag: &str) -> Self {
        let ca = Ca::new();
        let backlog = TestBacklog::start(&ca, &["APP", "LIB"]);
        let s3 = TestS3::start().await;
        let (sqs, secrets, aws) = (
            TestSqs::start(Duration::from_mins(1), 5),
            TestSecrets::start(),
            AwsApi::start(),
        );
        secrets.put(API_SECRET, &json!({"api_key": ROBOT_KEY}).to_string());
        let runs = Runs::default();
        pipelines(&aws, &runs);
        let mut vars = vec![
            ("AWS_ENDPOINT_URL_S3", s3.endpoint().to_owned()),
            ("AWS_ENDPOINT_URL_SQS", sqs.endpoint()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.endpoint()),
            ("SSL_CERT_FILE", ca.file().to_str().unwrap().to_owned()),
            ("ROUTES", format!("s3://{BUCKET}/config/routes.toml")),
            ("RESULTS_QUEUE_URL", sqs.url()),
            ("ALARM_TOPIC", TOPIC.into()),
            ("COMMENT_LAG_MS", lag.into()),
        ];
        vars.extend(aws.vars());
        let table = format!(
            "[[space]]\nurl = \"{}\"\napi_key = \"secret:{API_SECRET}\"\n{space}\n{routes}",
            backlog.space_url()
        );
        let function = Lambda::start(env!("CARGO_BIN_EXE_results"), &vars, LIMIT).await;
        let world = Self {
            backlog,
            s3,
            aws,
            runs,
            function,
            vars,
            ca,
            sqs,
            secrets,
        };
        world.store(&table).await;
        world
    }

    /// Another routing table.
    async fn store(&self, table: &str) {
        let put = self.s3.client().put_object().bucket(BUCKET);
        let put = put.key("config/routes.toml");
        put.body(table.as_bytes().to_vec().into())
            .send()
            .await
            .unwrap();
    }

    /// One route, `main` of `APP/web`, whose pipeline is `web-main`.
    async fn main() -> Self {
        Self::new("results = \"pull_request\"", MAIN).await
    }

    /// Another process of the function.
    async fn restart(&mut self) {
        self.function = Lambda::start(env!("CARGO_BIN_EXE_results"), &self.vars, LIMIT).await;
    }

    /// A version of an object, as a delivery leaves it.
    async fn deliver(&self, key: &str, ref_name: &str, n: u8, subject: &str) -> String {
        let metadata = [
            ("git-commit", commit(n)),
            ("git-ref", ref_name.to_owned()),
            ("git-repository", "APP/web".to_owned()),
            ("delivery-id", format!("d{n}")),
            ("git-subject", subject.to_owned()),
            ("git-author", "%E5%B1%B1%E5%90%B9".to_owned()),
        ];
        let mut put = self.s3.client().put_object().bucket(BUCKET).key(key);
        for (name, value) in metadata {
            put = put.metadata(name, value);
        }
        let put = put.body(vec![n].into()).send().await.unwrap();
        put.version_id().unwrap().to_owned()
    }

    /// A run of the version of commit `n` begins.
    async fn begin(&self, pipeline: &str, key: &str, ref_name: &str, n: u8) {
        let version = self
            .deliver(key, ref_name, n, &format!("APP-{n} %E7%9B%B4%E3%81%99"))
            .await;
        let started = now() - 60 + i64::from(n);
        self.runs
            .lock()
            .unwrap()
            .entry(pipeline.into())
            .or_default()
            .insert(
                0,
                Shown {
                    id: id(n),
                    status: "InProgress",
                    version,
                    started,
                    ended: started,
                    is_rollback: false,
                    object: (BUCKET.into(), key.into()),
                    words: "exit status 1 of 123456789012 `{code}`".into(),
                },
            );
    }

    async fn begin_main(&self, n: u8) {
        self.begin("web-main", "web/main.zip", "refs/heads/main", n)
            .await;
    }

    fn set(&self, pipeline: &str, n: u8, change: impl FnOnce(&mut Shown)) {
        let mut runs = self.runs.lock().unwrap();
        let runs = runs.get_mut(pipeline).unwrap();
        change(runs.iter_mut().find(|run| run.id == id(n)).unwrap());
    }

    fn end(&self, n: u8, status: &'static str) {
        self.set("web-main", n, |run| {
            run.status = status;
            run.ended = run.started + 192;
        });
    }

    async fn invoke(&self, body: &str, tries: u32) -> Vec<Value> {
        let before = lines(&self.function).len();
        let event = json!({"Records": [{
            "messageId": "m", "receiptHandle": "r", "body": body, "attributes": {"ApproximateReceiveCount": tries.to_string()},
            "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:r:1:q", "awsRegion": "r",
        }]});
        let invocation = self.function.invoke(&event).await;
        assert!(
            invocation.result.is_ok(),
            "{invocation:?} {}",
            self.function.output()
        );
        let mut lines = lines(&self.function).split_off(before);
        lines.retain(|line| line.get("result").is_some());
        for line in &mut lines {
            line["failures"] = invocation.result.as_ref().unwrap()["batchItemFailures"].clone();
        }
        lines
    }

    /// The rule's event about a run. Returns what became of it.
    async fn event(&self, n: u8, state: &str) -> String {
        self.event_of("web-main", n, state).await
    }

    async fn event_of(&self, pipeline: &str, n: u8, state: &str) -> String {
        let body = json!({"pipeline": pipeline, "execution": id(n), "state": state, "time": "2026-04-01T00:00:00Z"});
        let lines = self.invoke(&body.to_string(), 1).await;
        lines[0]["result"].as_str().unwrap().to_owned()
    }

    async fn schedule(&self) -> Vec<Value> {
        self.invoke(r#"{"look":true}"#, 1).await
    }

    /// The texts of our comments on a pull request.
    fn texts(&self, number: i64) -> Vec<String> {
        let comments = self
            .backlog
            .comments(&format!("APP/web/{number}"))
            .into_iter();
        let own = comments.filter(|comment| comment["createdUser"]["id"] == ROBOT);
        own.map(|comment| comment["content"].as_str().unwrap().replace("\r\n", "\n"))
            .collect()
    }

    /// What changed something in Backlog since the last question.
    fn writes(&self) -> Vec<String> {
        let writes = self.backlog.writes().into_iter();
        let writes = writes.map(|line| line.split_whitespace().next().unwrap().to_owned());
        let writes = writes.collect();
        self.backlog.clear_requests();
        writes
    }

    fn mails(&self) -> Vec<String> {
        let calls = self.aws.calls("Publish").into_iter();
        calls
            .map(|call| {
                let fields = form_urlencoded::parse(call.input.as_bytes());
                let mut text = String::new();
                for (name, value) in fields {
                    if ["TopicArn", "Subject", "Message"].contains(&&*name) {
                        writeln!(text, "{name}: {value}").unwrap();
                    }
                }
                text
            })
            .collect()
    }

    /// Nothing that was written holds the key.
    fn no_key_is_told(&self) {
        let all = self.function.output();
        for key in [ROBOT_KEY, ADMIN_KEY, BARE_KEY] {
            assert!(!all.contains(key));
        }
        for request in self.backlog.requests() {
            assert!(!request.query.contains("sentinel") && !request.path.contains("sentinel"));
        }
    }
}

const MAIN: &str = r#"
[[route]]
name = "web-main"
repository = "APP/web"
ref = "refs/heads/main"
object = "web/main.zip"
pipeline = "web-main"
"#;

/// `CodePipeline`, `CodeBuild` and SNS, as far as they are asked.
fn pipelines(aws: &AwsApi, runs: &Runs) {
    let of = |runs: &Runs, input: &str, name: &str| -> Option<Vec<Shown>> {
        let input: Value = serde_json::from_str(input).unwrap();
        runs.lock()
            .unwrap()
            .get(input[name].as_str().unwrap())
            .cloned()
    };
    let missing = |code: &str| (400, json!({"__type": code, "message": "none"}).to_string());
    let all = Arc::clone(runs);
    aws.does("ListPipelineExecutions", move |call| {
        let Some(runs) = of(&all, &call.input, "pipelineName") else {
            return missing("PipelineNotFoundException");
        };
        let runs = runs.iter().map(|run| {
            json!({"pipelineExecutionId": run.id, "status": run.status, "startTime": run.started, "lastUpdateTime": run.ended,
                "sourceRevisions": [{"actionName": "Source", "revisionId": run.version}],
                "executionType": if run.is_rollback { "ROLLBACK" } else { "STANDARD" }})
        });
        (200, json!({"pipelineExecutionSummaries": runs.take(100).collect::<Value>()}).to_string())
    });
    let all = Arc::clone(runs);
    aws.does("ListActionExecutions", move |call| {
        let runs = of(&all, &call.input, "pipelineName").unwrap();
        let actions = runs.iter().flat_map(|run| {
            let source = json!({"pipelineExecutionId": run.id, "stageName": "Source", "actionName": "Source", "status": "Succeeded",
                "output": {"outputVariables": {"BucketName": run.object.0, "ObjectKey": run.object.1, "VersionId": run.version}}});
            let status = if run.status == "Failed" { "Failed" } else { "Succeeded" };
            let build = json!({"pipelineExecutionId": run.id, "stageName": "Build", "actionName": "Compile", "status": status,
                "output": {"executionResult": {"errorDetails": {"code": "JobFailed", "message": run.words}}}});
            [build, source]
        });
        (200, json!({"actionExecutionDetails": actions.collect::<Value>()}).to_string())
    });
    let all = Arc::clone(runs);
    aws.does("ListBuildsForProject", move |call| {
        match of(&all, &call.input, "projectName") {
            Some(runs) => {
                let ids = runs.iter().map(|run| format!("web-branches:{}", run.id));
                (200, json!({"ids": ids.collect::<Vec<_>>()}).to_string())
            }
            None => missing("ResourceNotFoundException"),
        }
    });
    let all = Arc::clone(runs);
    aws.does("BatchGetBuilds", move |_| {
        let runs = all.lock().unwrap()["web-branches"].clone();
        let builds = runs.iter().map(|run| {
            let status = match run.status {
                "InProgress" => "IN_PROGRESS",
                "Succeeded" => "SUCCEEDED",
                _ => "FAILED",
            };
            json!({"id": format!("web-branches:{}", run.id), "buildStatus": status, "startTime": run.started,
                "endTime": if status == "IN_PROGRESS" { Value::Null } else { run.ended.into() },
                "sourceVersion": run.version,
                "environment": {"environmentVariables": [
                    {"name": "SOURCE_BUCKET", "value": run.object.0, "type": "PLAINTEXT"},
                    {"name": "SOURCE_KEY", "value": run.object.1, "type": "PLAINTEXT"}]},
                "phases": [{"phaseType": "INSTALL", "phaseStatus": "SUCCEEDED"},
                    {"phaseType": "BUILD", "phaseStatus": if status == "FAILED" { "FAILED" } else { "SUCCEEDED" },
                     "contexts": [{"statusCode": "COMMAND_EXECUTION_ERROR", "message": run.words}]}]})
        });
        (200, json!({"builds": builds.collect::<Value>()}).to_string())
    });
    aws.says(
        "ListPipelines",
        &json!({"pipelines": [{"name": "web-main"}, {"name": "web-x"}, {"name": "other"}]})
            .to_string(),
    );
    aws.does("GetPipeline", |call| {
        let input: Value = serde_json::from_str(&call.input).unwrap();
        let name = input["name"].as_str().unwrap().strip_prefix("web-").unwrap();
        let source = json!({"name": "Source", "actionTypeId": {"category": "Source", "provider": "S3"},
            "configuration": {"S3Bucket": BUCKET, "S3ObjectKey": format!("web/{name}.zip")}});
        (200, json!({"pipeline": {"stages": [{"name": "Source", "actions": [source]}]}}).to_string())
    });
    aws.says("Publish", "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_comment_is_written_and_then_changed() {
    let world = World::main().await;
    world.backlog.pull(1, "main", "production");
    world.backlog.pull(2, "other", "main");
    world.begin_main(1).await;
    assert_eq!(world.event(1, "STARTED").await, "told");
    assert_eq!(world.writes(), ["POST"]);
    let running = world.texts(1).remove(0);
    assert!(
        running.starts_with("CI web-main (main): 実行中\n")
            && running.contains("\n- 01010101 実行中 "),
        "{running}"
    );
    // What the log of the space says is in its zone and its language.
    world.end(1, "Succeeded");
    assert_eq!(world.event(1, "SUCCEEDED").await, "told");
    let texts = world.texts(1);
    assert_eq!(texts.len(), 1);
    assert!(
        texts[0].starts_with("CI web-main (main): 成功\n"),
        "{}",
        texts[0]
    );
    assert!(texts[0].contains("、3分12秒\n"), "{}", texts[0]);
    let marker = texts[0].lines().next_back().unwrap();
    assert!(marker.starts_with("backlog-bridge/web-main/"), "{marker}");
    assert_eq!(
        world
            .backlog
            .requests()
            .iter()
            .filter(|request| request.method == "GET")
            .count(),
        3,
        "two lists and the comments"
    );
    assert_eq!(world.writes(), ["PATCH"]);
    // The same event again, and late ones.
    for state in ["SUCCEEDED", "STARTED"] {
        assert_eq!(world.event(1, state).await, "unchanged");
    }
    assert_eq!(world.writes(), [""; 0]);
    assert_eq!(world.texts(2), [""; 0]);
    // Further runs: a line each.
    for (n, status, said) in [
        (2, "Superseded", "追い越された"),
        (3, "Stopped", "停止"),
        (4, "Cancelled", "停止"),
    ] {
        world.begin_main(n).await;
        world.end(n, status);
        world.event(n, "SUPERSEDED").await;
        let text = world.texts(1).remove(0);
        let line = text
            .lines()
            .find(|line| line.contains(&commit(n)[..8]))
            .unwrap()
            .to_owned();
        assert!(line.contains(said), "{line}");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("- ")).count(),
            usize::from(n),
            "{text}"
        );
    }
    world.begin_main(5).await;
    world.set("web-main", 5, |run| {
        run.is_rollback = true;
        run.status = "Succeeded";
    });
    world.event(5, "SUCCEEDED").await;
    assert!(
        world.texts(1)[0].contains("- 05050505 へのロールバック 成功"),
        "{}",
        world.texts(1)[0]
    );
    assert_eq!(world.texts(1).len(), 1);
    assert_eq!(
        world.event_of("somebody-elses", 9, "FAILED").await,
        "ignored"
    );
    assert_eq!(world.mails(), [""; 0]);
    world.no_key_is_told();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_red_run_is_one_alert_that_notifies_and_a_mail_for_each_failure() {
    let world = World::main().await;
    world.backlog.pull(1, "main", "production");
    world
        .backlog
        .push_by("APP", 42, "refs/heads/main", &commit(2));
    world.begin_main(1).await;
    world.end(1, "Succeeded");
    world.begin_main(2).await;
    world.end(2, "Failed");
    world.event(2, "FAILED").await;
    let comments = world.backlog.comments("APP/web/1");
    assert_eq!(comments.len(), 2);
    let notified = |at: usize| comments[at]["notifications"].clone();
    assert_eq!(notified(0), json!([]));
    assert_eq!(notified(1), json!([{"user": {"id": 42}}]), "who pushed");
    let alert = &world.texts(1)[1];
    assert!(
        alert.contains("失敗しました") && alert.contains("Build / Compile https://"),
        "{alert}"
    );
    assert!(
        !alert.contains("exit status"),
        "only where the table asks for it: {alert}"
    );
    assert_eq!(alert.matches("https://").count(), 1);
    let mails = world.mails();
    assert_eq!(mails.len(), 1);
    for part in [
        TOPIC,
        "web-main failed: 02020202",
        &commit(2),
        "author: 山吹",
        "message: APP-2 直す",
        "failed in: Build / Compile",
        "exit status 1",
        "executions/00000002-",
    ] {
        assert!(mails[0].contains(part), "{part}: {}", mails[0]);
    }
    // Red again: a mail, and no alert. A retried stage that fails again: neither.
    world.begin_main(3).await;
    world.end(3, "Failed");
    world.event(3, "FAILED").await;
    world.set("web-main", 2, |run| run.status = "InProgress");
    world.event(2, "RESUMED").await;
    assert!(
        world.texts(1)[1].contains("再実行中"),
        "{}",
        world.texts(1)[1]
    );
    world.end(2, "Failed");
    world.event(2, "FAILED").await;
    assert_eq!(world.texts(1).len(), 2);
    assert_eq!(world.mails().len(), 3);
    world.begin_main(4).await;
    world.end(4, "Succeeded");
    world.backlog.clear_requests();
    world.event(4, "SUCCEEDED").await;
    assert_eq!(world.writes(), ["PATCH", "PATCH"]);
    let alert = &world.texts(1)[1];
    assert!(
        alert.contains("直りました") && alert.contains("- 04040404 成功"),
        "{alert}"
    );
    // The next red run is another one; nobody pushed it, as far as is known.
    world.begin_main(5).await;
    world.end(5, "Failed");
    world.event(5, "FAILED").await;
    let comments = world.backlog.comments("APP/web/1");
    assert_eq!(comments.len(), 3);
    assert_eq!(
        comments[2]["notifications"],
        json!([{"user": {"id": 7}}]),
        "who opened it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_merged_is_told_of_the_version_that_it_came_with() {
    for hides in [false, true] {
        let world = World::main().await;
        world.backlog.habits(Habits {
            no_merge_commit: hides,
            is_bare: true,
            ..Habits::default()
        });
        for number in [1, 2, 3] {
            world
                .backlog
                .pull(number, &format!("feature/{number}"), "main");
        }
        world.begin_main(1).await;
        world.end(1, "Succeeded");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        // Both are in the next version, which holds the commit of the second.
        world.backlog.end_pull(1, Some(&commit(9)));
        world.backlog.end_pull(2, Some(&commit(2)));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        world.begin_main(2).await;
        world.end(2, "Failed");
        world.event(2, "FAILED").await;
        for number in [1, 2] {
            let texts = world.texts(number);
            assert_eq!(texts.len(), 2, "{number} {hides}: {texts:?}");
            assert!(
                texts[0].contains("- 02020202 failed") && !texts[0].contains("01010101"),
                "{}",
                texts[0]
            );
            assert!(texts[0].contains(" UTC"), "{}", texts[0]);
        }
        assert_eq!(world.texts(3), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_is_told_by_choice() {
    for (choice, key) in [("commit", "APP-2"), ("APP-77", "APP-77")] {
        let world = World::new(
            &format!(
                "results = \"pull_request\"\nresults_issue = \"{choice}\"\nresults_detail = true"
            ),
            MAIN,
        )
        .await;
        world.begin_main(2).await;
        world.event(2, "STARTED").await;
        world.end(2, "Failed");
        world.event(2, "FAILED").await;
        let comments = world.backlog.comments(key);
        assert_eq!(comments.len(), 1, "no alert in an issue");
        let text = comments[0]["content"].as_str().unwrap();
        assert!(
            text.contains("- 02020202 失敗") && text.contains("exit status 1 of ************"),
            "{text}"
        );
        assert_eq!(text.matches("{code}").count(), 1, "{text}");
        assert_eq!(comments[0]["notifications"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_leave_one_comment_that_says_what_is() {
    let mut world = World::main().await;
    world.backlog.habits(Habits {
        crlf: true,
        ..Habits::default()
    });
    world.backlog.pull(1, "main", "production");
    world.begin_main(1).await;
    let post = "POST projects/APP/git/repositories/web/pullRequests/1/comments";
    // It is written, and nobody hears of it.
    world.backlog.fault(post, 1, Fault::Drop);
    assert_eq!(world.event(1, "STARTED").await, "again");
    assert_eq!(world.event(1, "STARTED").await, "unchanged");
    assert_eq!(world.texts(1).len(), 1);
    // An event that names what AWS does not show yet comes again, three times at most.
    for (tries, expected) in [(1, "again"), (2, "again"), (3, "unchanged")] {
        let body = json!({"pipeline": "web-main", "execution": id(1), "state": "SUCCEEDED", "time": tries});
        assert_eq!(
            world.invoke(&body.to_string(), tries).await[0]["result"],
            expected
        );
    }
    world.end(1, "Succeeded");
    for (fault, expected) in [
        (Fault::Refuse(500, 1), "again"),
        (Fault::Refuse(403, 5), "failed"),
        (Fault::Refuse(401, 11), "failed"),
        (
            Fault::Answer(200, "text/html", b"<html>".to_vec()),
            "failed",
        ),
    ] {
        world
            .backlog
            .fault("GET projects/APP/git", 1, fault.clone());
        assert_eq!(world.event(1, "SUCCEEDED").await, expected, "{fault:?}");
    }
    // What may pass and did not is not tried for ever: nothing waits behind it.
    world
        .backlog
        .fault("GET projects/APP/git", 1, Fault::Refuse(500, 1));
    let body =
        json!({"pipeline": "web-main", "execution": id(1), "state": "SUCCEEDED"}).to_string();
    let line = world.invoke(&body, 3).await.remove(0);
    assert_eq!(
        (&line["result"], &line["failures"]),
        (&json!("failed"), &json!([]))
    );
    // The schedule mends it.
    assert_eq!(world.schedule().await[0]["result"], "told");
    assert!(world.texts(1)[0].contains("- 01010101 成功"));
    // A comment that is removed between two requests, or by hand, stays away until the next run.
    let place = "APP/web/1";
    let own = world.backlog.comments(place)[0]["id"].as_i64().unwrap();
    world.backlog.remove_comment(place, own);
    assert_eq!(world.schedule().await[0]["result"], "unchanged");
    assert_eq!(world.event(1, "SUCCEEDED").await, "unchanged");
    world.begin_main(2).await;
    assert_eq!(world.event(2, "STARTED").await, "told");
    assert_eq!(world.texts(1).len(), 1);
    // One that is edited by hand stays so until something happens.
    let own = world.backlog.comments(place)[0]["id"].as_i64().unwrap();
    let marker = world.texts(1)[0].lines().next_back().unwrap().to_owned();
    world
        .backlog
        .edit_comment(place, own, &format!("by hand\n{marker}"));
    assert_eq!(world.schedule().await[0]["result"], "unchanged");
    world.end(2, "Succeeded");
    assert_eq!(world.event(2, "SUCCEEDED").await, "told");
    // Many comments: all are read, by a process that knows nothing. Somebody quotes us.
    for n in 0..600 {
        world.backlog.comment(place, 9, &format!("comment {n}"));
    }
    world.backlog.comment(place, 9, &world.texts(1)[0]);
    world.restart().await;
    world.begin_main(3).await;
    world.backlog.clear_requests();
    assert_eq!(world.event(3, "STARTED").await, "told");
    assert_eq!(world.writes(), ["PATCH"]);
    assert_eq!(world.texts(1).len(), 1);
    // With more than 2,000 nothing new is written.
    world.backlog.pull(2, "main", "next");
    for n in 0..2_101 {
        world
            .backlog
            .comment("APP/web/2", 9, &format!("comment {n}"));
    }
    world.end(3, "Succeeded");
    let body =
        json!({"pipeline": "web-main", "execution": id(3), "state": "SUCCEEDED"}).to_string();
    let line = world.invoke(&body, 1).await.remove(0);
    assert!(
        line["warnings"][0]
            .as_str()
            .unwrap()
            .contains("more comments"),
        "{line}"
    );
    assert_eq!(world.texts(2), [""; 0]);
    world.no_key_is_told();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lags_makes_no_second_comment() {
    let mut world = World::with("results = \"pull_request\"", MAIN, "2000").await;
    world.backlog.habits(Habits {
        lag: Duration::from_millis(1_500),
        ..Habits::default()
    });
    world.backlog.pull(1, "main", "production");
    world.begin_main(1).await;
    world.event(1, "STARTED").await;
    world.end(1, "Failed");
    // The same process knows what it wrote; another one waits.
    world.event(1, "FAILED").await;
    world.restart().await;
    assert_eq!(world.event(1, "FAILED").await, "unchanged");
    world.backlog.habits(Habits::default());
    assert_eq!(world.texts(1).len(), 2, "{:?}", world.texts(1));
    // Where the answer is lost, too.
    world.backlog.habits(Habits {
        lag: Duration::from_millis(1_500),
        ..Habits::default()
    });
    world.backlog.pull(2, "main", "next");
    world.backlog.fault("POST", 1, Fault::Drop);
    assert_eq!(world.event(1, "FAILED").await, "again");
    world.restart().await;
    assert_eq!(world.event(1, "FAILED").await, "told", "the alert");
    world.backlog.habits(Habits::default());
    assert_eq!(world.texts(2).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_opened_after_the_end_is_told() {
    let world = World::main().await;
    world.begin_main(1).await;
    world.end(1, "Succeeded");
    assert_eq!(world.event(1, "SUCCEEDED").await, "unchanged");
    // Among 150 others.
    for number in 2..=151 {
        world
            .backlog
            .pull(number, &format!("feature/{number}"), "main");
    }
    world.backlog.pull(1, "main", "production");
    let opened =
        json!({"repository": "APP/web", "pull_request": 1, "request_id": "a-request"}).to_string();
    assert_eq!(world.invoke(&opened, 1).await[0]["result"], "told");
    assert_eq!(world.texts(1).len(), 1);
    assert_eq!(world.invoke(&opened, 1).await[0]["result"], "unchanged");
    // Of a repository that no route has, or that has no such request.
    let other = json!({"repository": "APP/other", "pull_request": 1, "request_id": "a-request"})
        .to_string();
    assert_eq!(world.invoke(&other, 1).await.len(), 0);
    let missing = json!({"repository": "APP/web", "pull_request": 999, "request_id": "a-request"})
        .to_string();
    assert_eq!(world.invoke(&missing, 1).await[0]["result"], "failed");
    // One that is closed is told the end of what it was told the beginning of, and nothing else.
    world.begin_main(2).await;
    world.event(2, "STARTED").await;
    world.backlog.end_pull(1, None);
    world.end(2, "Failed");
    world.event(2, "FAILED").await;
    let texts = world.texts(1);
    assert_eq!(texts.len(), 1, "no alert");
    assert!(texts[0].contains("- 02020202 失敗"), "{}", texts[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_codebuild_builds_is_told_in_its_request() {
    let routes = r#"
[[route]]
repository = "APP/web"
ref = "refs/heads/feature/*"
object = "web/{ref}.zip"
pipeline = "web-branches"
[[route]]
repository = "APP/web"
ref = "refs/heads/hotfix/*"
object = "hotfix/{ref}.zip"
pipeline = "web-{ref}"
"#;
    let world = World::new("results = \"pull_request\"", routes).await;
    world.backlog.pull(1, "feature/x", "main");
    world.backlog.pull(2, "feature/[x](y)", "main");
    for (n, name) in [(1, "x"), (2, "y")] {
        world
            .begin(
                "web-branches",
                &format!("web/feature/{name}.zip"),
                &format!("refs/heads/feature/{name}"),
                n,
            )
            .await;
    }
    let event = |n: u8, state: &str| {
        let build = format!(
            "arn:aws:codebuild:ap-northeast-1:123456789012:build/web-branches:{}",
            id(n)
        );
        json!({"project": "web-branches", "build": build, "state": state, "time": "t"}).to_string()
    };
    world.invoke(&event(1, "IN_PROGRESS"), 1).await;
    assert!(
        world.texts(1)[0].starts_with("CI web-branches (feature/x): 実行中"),
        "{:?}",
        world.texts(1)
    );
    world.set("web-branches", 1, |run| run.status = "Failed");
    world.invoke(&event(1, "FAILED"), 1).await;
    let texts = world.texts(1);
    assert_eq!(texts.len(), 2);
    assert!(
        texts[1].contains("- 01010101 失敗") && texts[1].contains(" BUILD https://"),
        "{}",
        texts[1]
    );
    assert!(
        !texts[0].contains("02020202"),
        "another branch's: {}",
        texts[0]
    );
    assert_eq!(world.texts(2), [""; 0]);
    assert_eq!(world.mails().len(), 1);
    // The schedule finds out by itself that it is no pipeline.
    world.set("web-branches", 1, |run| {
        run.status = "Succeeded";
        run.ended = now();
    });
    let lines = world.schedule().await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["pipeline"].as_str().unwrap(),
                line["result"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(told.contains(&("web-branches", "told")), "{told:?}");
    assert!(world.texts(1)[0].contains("- 01010101 成功"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_share_nothing_and_none_tells_what_it_should_not() {
    let world = World::new("results = \"alert\"", MAIN).await;
    world.backlog.pull(1, "main", "production");
    // Of a bridge in another region, with a pipeline of the same name.
    let foreign = "CI web-main (main): 成功\n\nbacklog-bridge/web-main/000000";
    world.backlog.comment("APP/web/1", ROBOT, foreign);
    world.begin_main(1).await;
    world.event(1, "STARTED").await;
    assert_eq!(world.texts(1), [foreign], "nothing but alerts");
    world.end(1, "Failed");
    world.event(1, "FAILED").await;
    let texts = world.texts(1);
    assert_eq!((texts.len(), texts[0].as_str()), (2, foreign));
    // A key without rights, and none at all.
    for (text, part) in [
        (json!({"api_key": BARE_KEY}), "two-factor"),
        (json!({"api_key": ""}), "does not hold"),
    ] {
        let fresh = World::main().await;
        fresh.secrets.put(API_SECRET, &text.to_string());
        fresh.backlog.pull(1, "main", "production");
        fresh.begin_main(1).await;
        fresh.end(1, "Failed");
        let body =
            json!({"pipeline": "web-main", "execution": id(1), "state": "FAILED"}).to_string();
        let line = fresh.invoke(&body, 1).await.remove(0);
        assert_eq!(line["result"], "failed");
        assert_eq!(line["PermanentFailures"], 1);
        assert!(
            line["error"]["message"].as_str().unwrap().contains(part),
            "{line}"
        );
        assert_eq!(fresh.mails().len(), 1, "the mail is told all the same");
        // Filled in, it works without a new process.
        fresh
            .secrets
            .put(API_SECRET, &json!({"api_key": ROBOT_KEY}).to_string());
        assert_eq!(fresh.invoke(&body, 1).await[0]["result"], "told");
        fresh.no_key_is_told();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_ends_soon_is_waited_for_and_a_wrong_message_blocks_nobody() {
    let world = World::main().await;
    world.backlog.pull(1, "main", "production");
    world.begin_main(1).await;
    // The stand-in's limit ends in 42 s, which is long.
    world
        .backlog
        .fault("GET projects/APP/git", 1, Fault::Refuse(429, 13));
    let began = Instant::now();
    assert_eq!(world.event(1, "STARTED").await, "again");
    assert!(began.elapsed() < Duration::from_secs(10));
    for body in ["nonsense", "{}", r#"{"sweep":true}"#] {
        let line = world.invoke(body, 1).await.remove(0);
        assert_eq!(
            (&line["result"], &line["failures"]),
            (&json!("failed"), &json!([])),
            "{body}"
        );
    }
    assert_eq!(world.event(1, "STARTED").await, "told");
}

/// What a rule makes of an event: the template with what stands in the event.
fn transformed(target: &Value, event: &Value) -> String {
    let transformer = &target["InputTransformer"];
    let mut text = transformer["InputTemplate"].as_str().unwrap().to_owned();
    for (name, path) in transformer["InputPathsMap"].as_object().unwrap() {
        let path = path.as_str().unwrap().strip_prefix("$.").unwrap();
        let value = path.split('.').fold(event, |value, name| &value[name]);
        assert!(value.is_string(), "{path}");
        text = text.replace(&format!("<{name}>"), &value.to_string());
    }
    text
}

/// As CodePipeline sends it. Source: <https://docs.aws.amazon.com/codepipeline/latest/userguide/detect-state-changes-cloudwatch-events.html>
fn pipeline_event(state: &str) -> Value {
    json!({"version": "0", "id": "01234567-EXAMPLE", "detail-type": "CodePipeline Pipeline Execution State Change",
        "source": "aws.codepipeline", "account": "123456789012", "time": "2026-01-24T22:03:44Z", "region": "us-east-1",
        "resources": ["arn:aws:codepipeline:us-east-1:123456789012:web-main"],
        "detail": {"pipeline": "web-main", "execution-id": id(1), "start-time": "2023-10-26T13:49:39.208Z", "state": state,
            "version": 3.0, "pipeline-execution-attempt": 1.0}})
}

#[test]
fn every_message_is_in_one_group_and_no_two_of_a_run_are_the_same() {
    let resources = template("results.yaml")["Resources"].clone();
    let rules: Vec<_> = resources
        .as_object()
        .unwrap()
        .values()
        .filter(|resource| resource["Type"] == "AWS::Events::Rule")
        .collect();
    assert_eq!(rules.len(), 3);
    for rule in rules {
        let targets = rule["Properties"]["Targets"].as_array().unwrap();
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0]["SqsParameters"]["MessageGroupId"], GROUP);
    }
    let target = |rule: &str| resources[rule]["Properties"]["Targets"][0].clone();
    let mut texts = BTreeSet::new();
    for (state, is_over) in [
        ("STARTED", false),
        ("SUCCEEDED", true),
        ("FAILED", true),
        ("STOPPED", true),
        ("SUPERSEDED", true),
        ("CANCELED", true),
        ("RESUMED", false),
    ] {
        let event = pipeline_event(state);
        assert!(
            matches(
                &resources["Pipelines"]["Properties"]["EventPattern"],
                &event
            ),
            "{state}"
        );
        let text = transformed(&target("Pipelines"), &event);
        let Message::Pipeline {
            name,
            builds,
            run: Some(run),
            ..
        } = Message::parse(&text).unwrap()
        else {
            panic!("{text}");
        };
        assert_eq!(
            (&*name, builds, &*run.id, run.is_over, run.is_red),
            ("web-main", Some(false), &*id(1), is_over, state == "FAILED")
        );
        assert!(texts.insert(text), "dropped as a duplicate: {state}");
    }
    assert!(!matches(
        &resources["Pipelines"]["Properties"]["EventPattern"],
        &pipeline_event("STOPPING")
    ));
    let event = json!({"time": "t", "detail": {"project-name": "web-branches", "build-status": "FAILED",
        "build-id": "arn:aws:codebuild:us-west-2:123456789012:build/web-branches:0a"}});
    let text = transformed(&target("Builds"), &event);
    assert!(
        matches!(Message::parse(&text), Ok(Message::Pipeline { builds: Some(true), run: Some(run), .. }) if run.id == "web-branches:0a")
    );
    let look = target("Look")["Input"].as_str().unwrap().to_owned();
    assert!(matches!(Message::parse(&look), Ok(Message::All { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_opened_reaches_the_queue_where_results_want_it() {
    let mut service = Service::with(&[], &[]).await;
    let body = std::fs::read_to_string(format!(
        "{}/events/project-pull-request.json",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let table = |more: &str| {
        let routes = service.table(&[("refs/heads/*", "{ref}.zip", "pipeline = \"web-{ref}\"")]);
        routes.replacen("[[route]]", &format!("{more}\n[[route]]"), 1)
    };
    let (silent, telling) = (table(""), table("results = \"alert\""));
    let mut vars = service.vars.clone();
    vars.push(("RESULTS_QUEUE_URL", service.sqs.url()));
    let ignored = (
        200,
        json!({"ignored": "pull request created (type 18)"}).to_string(),
    );
    let post = request("POST", &format!("/hooks/{TOKEN}"), &body);
    service.put_routes(&telling).await;
    assert_eq!(
        answer(&service.receive.invoke(&post).await),
        ignored,
        "without the queue"
    );
    service.receive = Lambda::start(env!("CARGO_BIN_EXE_receive"), &vars, LIMIT).await;
    service.put_routes(&silent).await;
    assert_eq!(
        answer(&service.receive.invoke(&post).await),
        ignored,
        "without a route that wants it"
    );
    assert_eq!(service.sqs.sent().len(), 0);
    service.put_routes(&telling).await;
    let (status, text) = answer(&service.receive.invoke(&post).await);
    assert_eq!((status, &*text), (202, r#"{"accepted":["refs/heads/*"]}"#));
    let sent = service.sqs.sent();
    assert_eq!((sent.len(), &*sent[0].group), (1, GROUP));
    assert!(
        matches!(
            Message::parse(&sent[0].body),
            Ok(Message::Opened { number: 42, .. })
        ),
        "{}",
        sent[0].body
    );
    // A push goes on as before, to its own group.
    service.push("refs/heads/main", &[]).await;
    assert_ne!(service.sqs.sent()[1].group, GROUP);
}

#[test]
fn the_command_has_everything_looked_at() {
    let (sqs, aws) = (
        Arc::new(TestSqs::start(Duration::from_mins(6), 5)),
        AwsApi::start(),
    );
    let queue = sqs.url();
    let mut outputs = vec![
        ("Bucket", "sources"),
        ("RoutingTable", "s3://sources/config/routes.toml"),
        ("Queue", "https://sqs.example/1/q.fifo"),
        ("DeadLetters", "https://sqs.example/1/d.fifo"),
        ("WebhookUrl", "https://abc.execute-api.example/hooks/TOKEN"),
        ("TokenSecret", "arn:token"),
        ("GitSecret", "backlog-bridge/git"),
        ("AlarmTopic", "arn:topic"),
    ];
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .args(["results", "--stack", "bridge"])
            .args(arguments)
            .env_clear()
            .env("AWS_REGION", "ap-northeast-1")
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_ENDPOINT_URL_SQS", sqs.endpoint())
            .envs(aws.vars());
        let output = run_within(&mut command, Duration::from_mins(1)).expect("it ends");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    aws.stack("bridge", "CREATE_COMPLETE", &outputs);
    let (code, _, stderr) = run(&[]);
    assert!(
        code == Some(2) && stderr.contains("tells no results; deploy results.yaml"),
        "{stderr}"
    );

    outputs.push(("ResultsQueue", &queue));
    aws.stack("bridge", "CREATE_COMPLETE", &outputs);
    let seen = Arc::clone(&sqs);
    aws.does("FilterLogEvents", move |call| {
        let input: Value = serde_json::from_str(&call.input).unwrap();
        assert_eq!(input["logGroupName"], "/aws/lambda/bridge-results");
        let sent = seen.sent();
        let asked = input["filterPattern"].as_str().unwrap();
        let own = sent
            .iter()
            .filter_map(|sent| Message::parse(&sent.body).ok());
        let own: Vec<_> = own
            .filter(|message| asked.contains(message.request_id()))
            .collect();
        let mut lines = Vec::new();
        for message in own {
            let name = match &message {
                Message::Pipeline { name, .. } => name.clone(),
                _ => "web-main".into(),
            };
            let (result, comments) = if name == "web-bad" {
                ("failed", 0)
            } else {
                ("told", 2)
            };
            let mut line = json!({"pipeline": name, "result": result, "comments": comments});
            if result == "failed" {
                line["error"] =
                    json!({"kind": "results", "message": "the key is wrong", "transient": false});
            }
            lines.extend([
                json!({"pipeline": "x", "result": "again"}),
                line,
                json!({"looked": 1}),
            ]);
        }
        let events = lines
            .iter()
            .enumerate()
            .map(|(at, line)| json!({"timestamp": at, "message": line.to_string()}));
        (
            200,
            json!({"events": events.collect::<Value>()}).to_string(),
        )
    });
    let (code, stdout, stderr) = run(&[]);
    assert_eq!(
        (code, &*stdout),
        (Some(0), "web-main: 2 comments written\n"),
        "{stderr}"
    );
    let (code, stdout, _) = run(&["--json", "web-main", "web-bad"]);
    assert_eq!(code, Some(1));
    assert!(
        stdout.contains(r#"{"comments":2,"pipeline":"web-main","result":"told"}"#)
            && stdout.contains("the key is wrong"),
        "{stdout}"
    );
    assert!(sqs.sent().iter().all(|sent| sent.group == GROUP));
    assert_eq!(sqs.sent().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_allows_what_the_function_does_and_no_more() {
    let routes = MAIN.to_owned()
        + "[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/x\"\nobject = \"b/x.zip\"\npipeline = \"web-branches\"\n"
        + "[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/t/*\"\nobject = \"web/{ref}.zip\"\npipeline = \"web-{ref}\"\n";
    let world = World::new("results = \"pull_request\"", &routes).await;
    world.backlog.pull(1, "main", "production");
    world.begin_main(1).await;
    world.end(1, "Failed");
    world
        .begin("web-branches", "b/x.zip", "refs/heads/x", 2)
        .await;
    world
        .runs
        .lock()
        .unwrap()
        .insert("web-x".into(), Vec::new());
    world.event(1, "FAILED").await;
    let event = json!({"project": "web-branches", "build": format!("x:build/web-branches:{}", id(2)), "state": "IN_PROGRESS"}).to_string();
    world.invoke(&event, 1).await;
    world.schedule().await;
    world
        .backlog
        .fault("GET projects/APP/git", 1, Fault::Refuse(500, 1));
    assert_eq!(world.event(1, "FAILED").await, "again");
    let mut made = BTreeSet::new();
    for operation in [
        "codepipeline:ListPipelineExecutions",
        "codepipeline:ListActionExecutions",
        "codepipeline:GetPipeline",
        "codepipeline:ListPipelines",
        "codebuild:ListBuildsForProject",
        "codebuild:BatchGetBuilds",
        "sns:Publish",
    ] {
        if !world
            .aws
            .calls(operation.split_once(':').unwrap().1)
            .is_empty()
        {
            made.insert(operation.to_owned());
        }
    }
    let s3 = |ops: &[Op]| ops.iter().any(|op| world.s3.count(*op) > 0);
    for (action, is_made) in [
        ("s3:GetObject", s3(&[Op::GetObject])),
        (
            "s3:GetObjectVersion",
            s3(&[Op::GetObjectVersion, Op::HeadObject]),
        ),
        (
            "secretsmanager:GetSecretValue",
            world.secrets.count(API_SECRET) > 0,
        ),
        (
            "sqs:ChangeMessageVisibility",
            world.sqs.count(SqsOp::ChangeMessageVisibility) > 0,
        ),
    ] {
        if is_made {
            made.insert(action.to_owned());
        }
    }
    let not_seen = [
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:ListBucketVersions",
        "s3:ListBucket",
        "kms:Decrypt",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        // Where a look takes long.
        "sqs:SendMessage",
    ];
    let may: BTreeSet<_> = allowed_in("results.yaml", "ResultsRole")
        .into_keys()
        .collect();
    made.extend(not_seen.map(str::to_owned));
    assert_eq!(may, made);
    // As deliver may write to further buckets and read further logins.
    let may = allowed_in("results.yaml", "ResultsRole");
    for (action, parameter) in [
        ("s3:GetObjectVersion", "ExtraBuckets"),
        ("s3:ListBucket", "ExtraBuckets"),
        ("secretsmanager:GetSecretValue", "ExtraApiKeySecrets"),
    ] {
        let resources = serde_json::to_string(&may[action]).unwrap();
        assert!(resources.contains(parameter), "{action}: {resources}");
    }
    for other in ["ReceiveRole", "DeliverRole"] {
        let text = allowed(other)["secretsmanager:GetSecretValue"]
            .iter()
            .map(ToString::to_string)
            .collect::<String>();
        assert!(!text.contains("ApiKey"), "{other}");
    }
    // The alarm watches what is counted.
    world.secrets.put(API_SECRET, "{}");
    world
        .backlog
        .fault("GET projects/APP/git", 1, Fault::Refuse(401, 11));
    world.event(1, "FAILED").await;
    let dimensions = BTreeMap::from([("function".to_owned(), "results".to_owned())]);
    let metric = (
        "BacklogBridge".to_owned(),
        "PermanentFailures".to_owned(),
        dimensions,
    );
    let there = counted(&world.function);
    assert!(there.contains(&metric), "{there:?}");
    let alarm = &template("results.yaml")["Resources"]["ResultsFailuresAlarm"]["Properties"];
    assert_eq!(
        (&alarm["Namespace"], &alarm["MetricName"]),
        (&json!("BacklogBridge"), &json!("PermanentFailures"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_branch_is_told_in_its_request_once_it_is_built() {
    let routes = "[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/feature/*\"\nobject = \"web/{ref}.zip\"\npipeline = \"web-branches\"\n";
    let world = World::new("results = \"pull_request\"", routes).await;
    world.backlog.pull(1, "feature/x", "main");
    // The bridge delivers from a Git server into the same S3.
    let table = "s3://sources/config/deliver.toml";
    let service = Service::with(
        &[],
        &[
            ("AWS_ENDPOINT_URL_S3", world.s3.endpoint()),
            ("ROUTES", table),
        ],
    )
    .await;
    let text = service.table(&[("refs/heads/feature/*", "web/{ref}.zip", "")]);
    let put = world
        .s3
        .client()
        .put_object()
        .bucket(BUCKET)
        .key("config/deliver.toml");
    put.body(text.into_bytes().into()).send().await.unwrap();
    let commit = service
        .repository
        .commit_on("refs/heads/feature/x", &[("a", "a".into())]);
    assert_eq!(
        service.push("refs/heads/feature/x", &[&commit]).await.0,
        202
    );
    service.drain().await;
    let version = world
        .s3
        .newest(BUCKET, "web/feature/x.zip")
        .unwrap()
        .version_id;
    let started = now();
    let run = Shown {
        id: id(1),
        status: "InProgress",
        version,
        started,
        ended: started + 61,
        is_rollback: false,
        object: (BUCKET.into(), "web/feature/x.zip".into()),
        words: "exit status 1".into(),
    };
    world
        .runs
        .lock()
        .unwrap()
        .insert("web-branches".into(), vec![run]);
    let event = |state: &str| {
        let build = format!("arn:aws:codebuild:r:1:build/web-branches:{}", id(1));
        json!({"project": "web-branches", "build": build, "state": state, "time": state})
            .to_string()
    };
    world.invoke(&event("IN_PROGRESS"), 1).await;
    world.set("web-branches", 1, |run| run.status = "Failed");
    world.invoke(&event("FAILED"), 1).await;
    let texts = world.texts(1);
    assert_eq!(texts.len(), 2, "{texts:?}");
    let line = format!("- {} 失敗 ", &commit[..8]);
    assert!(
        texts
            .iter()
            .all(|text| text.contains(&line) && text.contains("(feature/x)")),
        "{texts:?}"
    );
    let mail = world.mails().remove(0);
    assert!(
        mail.contains(&commit)
            && mail.contains("refs/heads/feature/x of APP/web")
            && mail.contains("failed in: BUILD"),
        "{mail}"
    );
}
