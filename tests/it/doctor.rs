//! `doctor`: each hop broken once, on real parts and the stand-ins of AWS and Backlog; what it says is one line.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    contract::allowed,
    support::{
        BUCKET, KEY, MAIN,
        aws_api::{AwsApi, xml_error},
        backlog::{ADMIN_KEY, BARE_KEY, Fault, ROBOT_KEY, TestBacklog},
        git_server::{self, GitServer},
        http::{self, Server},
        process::run_within,
        s3::{ACCESS_KEY, Op, SECRET_KEY, TestS3},
        secrets::TestSecrets,
        sqs::{self, TestSqs},
        tls::Ca,
        upstream::{Repository, Upstream},
    },
};

const USER: &str = "robot@example.com";
const PASSWORD: &str = "sentinel-password";
const TOKEN: &str = "sentinel-token-0123456789";
const GIT_SECRET: &str = "backlog-bridge/git";
const TOPIC: &str = "arn:aws:sns:ap-northeast-1:123456789012:topic";
const PIPELINE: &str = "arn:aws:codepipeline:ap-northeast-1:123456789012:web-main";

/// A bridge that is well, and all that it stands on.
struct Clinic {
    folder: TempDir,
    s3: TestS3,
    sqs: TestSqs,
    secrets: TestSecrets,
    aws: AwsApi,
    git: GitServer,
    backlog: TestBacklog,
    hooks: Server,
    upstream: Upstream,
    repository: Repository,
    stack: Stack,
}

/// What CloudFormation says.
#[derive(Clone)]
struct Stack {
    status: &'static str,
    outputs: Vec<(&'static str, String)>,
    parameters: Vec<(&'static str, String)>,
}

impl Stack {
    fn show(&self, aws: &AwsApi) {
        let members = |name: &str, all: &[(&str, String)]| -> String {
            let member = |(key, value): &(&str, String)| {
                format!(
                    "<member><{name}Key>{key}</{name}Key><{name}Value>{value}</{name}Value></member>"
                )
            };
            all.iter().map(member).collect()
        };
        let (status, outputs, parameters) = (
            self.status,
            members("Output", &self.outputs),
            members("Parameter", &self.parameters),
        );
        aws.says(
            "DescribeStacks",
            &format!(
                "<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>bridge</StackName>\
                 <StackStatus>{status}</StackStatus><CreationTime>2026-03-01T00:00:00Z</CreationTime><Outputs>{outputs}</Outputs>\
                 <Parameters>{parameters}</Parameters></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
            ),
        );
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.parameters.retain(|(own, _)| *own != name);
        self.parameters.push((name, value.into()));
    }
}

fn token_of(url: &str) -> String {
    format!("{url}/{TOKEN}")
}

/// Answers as `receive` does to a test with the right token.
fn hooks() -> Server {
    Server::start("hooks", |request| {
        let is_known = request.uri().path() == token_of("/hooks");
        async move {
            if is_known {
                let why = "test delivery received: the webhook works";
                http::json(200, &json!({"ignored": why}))
            } else {
                http::json(404, &json!({"error": "not found"}))
            }
        }
    })
}

/// Whether a rule of `EventBridge` takes an event, as far as these rules go: a list of values for each name.
fn takes(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(fields) => fields
            .iter()
            .all(|(name, inside)| takes(inside, &event[name])),
        Value::Array(values) => values.contains(event),
        _ => false,
    }
}

impl Clinic {
    async fn new() -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        repository.commit_on(MAIN, &[("a", "a".into())]);
        let git = GitServer::start(upstream.root(), Some((USER, PASSWORD)));
        let backlog = TestBacklog::start(&Ca::new(), &["APP"]);
        backlog.stand_beside(&git);
        backlog.repository("APP", "web", None);
        let hooks = hooks();
        let url = format!("{}/hooks", hooks.endpoint());
        backlog.hook("APP", &token_of(&url), &[12]);
        backlog.hook("APP", "https://somebody.example/else", &[1, 2]);
        backlog.pushes("APP", 1);

        let s3 = TestS3::start().await;
        s3.set(|settings| (settings.events, settings.region) = (true, Some("ap-northeast-1")));
        let sqs = TestSqs::start(Duration::from_mins(6), 5);
        let secrets = TestSecrets::start();
        let login = json!({"username": USER, "password": PASSWORD});
        secrets
            .put(GIT_SECRET, &login.to_string())
            .put("token", TOKEN);
        let table_at = format!("s3://{BUCKET}/config/routes.toml");
        let stack = Stack {
            status: "UPDATE_COMPLETE",
            outputs: vec![
                ("Bucket", BUCKET.into()),
                ("RoutingTable", table_at),
                ("Queue", sqs.url()),
                ("DeadLetters", sqs.dead_letter_url()),
                ("WebhookUrl", format!("{url}/TOKEN")),
                ("TokenSecret", "token".into()),
                ("GitSecret", GIT_SECRET.into()),
                ("AlarmTopic", TOPIC.into()),
            ],
            parameters: vec![
                ("ObjectKeys", "*.zip".into()),
                ("BucketKmsKeyArn", String::new()),
                ("ExtraBuckets", String::new()),
                ("MaximumConcurrency", "5".into()),
            ],
        };
        let clinic = Self {
            folder: tempfile::tempdir().unwrap(),
            s3,
            sqs,
            secrets,
            aws: AwsApi::start(),
            git,
            backlog,
            hooks,
            upstream,
            repository,
            stack,
        };
        clinic.stack.show(&clinic.aws);
        clinic.answers();
        let table = clinic.table();
        clinic.store_table(&table).await;
        fs::write(clinic.folder.path().join("routes.toml"), table).unwrap();
        let (code, _, stderr) = clinic
            .run(&["sync", "--aws"], &[("SOURCE_BUCKET", BUCKET)])
            .await;
        assert_eq!(code, Some(0), "{stderr}");
        clinic
    }

    fn table(&self) -> String {
        format!(
            "[[space]]\nurl = \"{}\"\ncredentials = \"secret:{GIT_SECRET}\"\n[[route]]\nname = \"web-main\"\n\
             repository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"{KEY}\"\n",
            self.git.space_url()
        )
    }

    async fn store_table(&self, text: &str) {
        let put = self
            .s3
            .client()
            .put_object()
            .bucket(BUCKET)
            .key("config/routes.toml");
        put.body(text.as_bytes().to_vec().into())
            .send()
            .await
            .unwrap();
    }

    /// What AWS answers where all is well.
    fn answers(&self) {
        let variables = json!({"ROUTES": self.stack.outputs[1].1, "QUEUE_URL": self.sqs.url(),
            "SOURCE_BUCKET": BUCKET, "TABLE_FORMAT": "2"});
        let function = json!({"State": "Active", "LastUpdateStatus": "Successful", "Timeout": 300,
            "Architectures": ["x86_64"], "Environment": {"Variables": variables}});
        let mapping = json!({"UUID": "u-1", "EventSourceArn": self.sqs.arn(), "State": "Enabled"});
        let source = json!({"actionTypeId": {"category": "Source", "provider": "S3"}, "configuration":
            {"S3Bucket": BUCKET, "S3ObjectKey": KEY, "PollForSourceChanges": "false"}});
        let pipeline = json!({"pipeline": {"name": "web-main", "executionMode": "SUPERSEDED", "stages": [{"actions": [source]}]},
            "metadata": {"pipelineArn": PIPELINE}});
        let xml = |operation: &str, inside: &str| {
            format!(
                "<{operation}Response><{operation}Result>{inside}</{operation}Result></{operation}Response>"
            )
        };
        let resource = "<StackResourceDetail><PhysicalResourceId>bridge-Sweep-1</PhysicalResourceId></StackResourceDetail>";
        let subscription = format!(
            "<Subscriptions><member><Endpoint>a@example.com</Endpoint><SubscriptionArn>{TOPIC}:1</SubscriptionArn></member></Subscriptions>"
        );
        self.aws
            .says("GetFunctionConfiguration", &function.to_string())
            .says(
                "ListEventSourceMappings",
                &json!({"EventSourceMappings": [mapping]}).to_string(),
            )
            .says(
                "GetAccountSettings",
                &json!({"AccountLimit": {"ConcurrentExecutions": 1000}}).to_string(),
            )
            .says(
                "DescribeStackResource",
                &xml("DescribeStackResource", resource),
            )
            .says(
                "GetSchedule",
                &json!({"Name": "bridge-Sweep-1", "State": "ENABLED"}).to_string(),
            )
            .says("DescribeAlarms", &xml("DescribeAlarms", "<MetricAlarms/>"))
            .says(
                "ListSubscriptionsByTopic",
                &xml("ListSubscriptionsByTopic", &subscription),
            )
            .says(
                "FilterLogEvents",
                &json!({"events": [{"message": "{\"outcome\":\"accepted\"}", "timestamp": 1}]})
                    .to_string(),
            )
            .says(
                "ListPipelines",
                &json!({"pipelines": [{"name": "web-main"}]}).to_string(),
            )
            .says("GetPipeline", &pipeline.to_string())
            .says(
                "GetPipelineState",
                &json!({"stageStates": [{"stageName": "Source", "actionStates": []}]}).to_string(),
            )
            .says(
                "ListRuleNamesByTarget",
                &json!({"RuleNames": ["web-main-NewVersion"]}).to_string(),
            );
        self.rule(KEY, "ENABLED");
        self.aws.does("TestEventPattern", |call| {
            let input: Value = serde_json::from_str(&call.input).unwrap();
            let part = |name: &str| serde_json::from_str(input[name].as_str().unwrap()).unwrap();
            let result = takes(&part("EventPattern"), &part("Event"));
            (200, json!({"Result": result}).to_string())
        });
    }

    /// The rule that starts the pipeline.
    fn rule(&self, key: &str, state: &str) {
        let pattern = json!({"source": ["aws.s3"], "detail-type": ["Object Created"],
            "detail": {"bucket": {"name": [BUCKET]}, "object": {"key": [key]}}});
        let rule = json!({"Name": "web-main-NewVersion", "State": state, "EventPattern": pattern.to_string()});
        self.aws.says("DescribeRule", &rule.to_string());
    }

    /// Changes one field of what an operation answers.
    fn changes(&self, operation: &str, pointer: &str, value: &Value) {
        let mut answer: Value = serde_json::from_str(&self.aws.said(operation)).unwrap();
        *answer.pointer_mut(pointer).unwrap() = value.clone();
        self.aws.says(operation, &answer.to_string());
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
            .envs([
                ("AWS_REGION", "ap-northeast-1"),
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                ("AWS_ENDPOINT_URL_S3", self.s3.endpoint()),
            ])
            .env("AWS_ENDPOINT_URL_SQS", self.sqs.endpoint())
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.secrets.endpoint())
            .env("SSL_CERT_FILE", self.git.ca_file())
            .envs(self.aws.vars())
            .envs(vars.iter().copied());
        let run = move || run_within(&mut command, Duration::from_secs(45)).expect("it ends");
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        for secret in [PASSWORD, TOKEN, ADMIN_KEY, ROBOT_KEY, BARE_KEY] {
            assert!(
                !stdout.contains(secret) && !stderr.contains(secret),
                "{stdout}{stderr}"
            );
        }
        (output.status.code(), stdout, stderr)
    }

    /// Exit status, and the lines that are not about what to do; with a key of an administrator.
    async fn examine(&self, vars: &[(&str, &str)]) -> (Option<i32>, Vec<String>) {
        let mut all = vec![("BACKLOG_ADMIN_API_KEY", ADMIN_KEY)];
        all.extend(vars);
        let (code, stdout, stderr) = self.run(&["doctor", "--stack", "bridge"], &all).await;
        assert_eq!(stderr, "", "{stdout}");
        let lines = stdout.lines().filter(|line| !line.starts_with(' '));
        let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        (code, lines.collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_well_is_told_in_one_line() {
    let clinic = Clinic::new().await;
    let begin = std::time::Instant::now();
    let (code, lines) = clinic.examine(&[]).await;
    let took = begin.elapsed();
    println!("{lines:?} in {took:?}");
    assert_eq!((code, lines.len()), (Some(0), 1), "{lines:?}");
    assert!(
        lines[0].starts_with("0 errors, 0 warnings, ")
            && lines[0].ends_with(" well, 0 not checked"),
        "{lines:?}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");

    // Each check is a line of JSON, the good ones too.
    let key = [("BACKLOG_ADMIN_API_KEY", ADMIN_KEY)];
    let (code, stdout, stderr) = clinic
        .run(&["doctor", "--stack", "bridge", "--json"], &key)
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    let mut checks = BTreeSet::new();
    for line in stdout.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let fields: Vec<_> = line
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            fields,
            ["check", "message", "remedy", "subject", "verdict"],
            "{line}"
        );
        assert_eq!(line["verdict"], "ok", "{line}");
        checks.insert(line["check"].as_str().unwrap().to_owned());
    }
    let all: BTreeSet<_> = backlog_bridge::doctor::Check::ALL
        .iter()
        .map(|check| check.name().to_owned())
        .collect();
    let untried: Vec<_> = all.difference(&checks).map(String::as_str).collect();
    // Only where there is one, asked for, or wrong.
    assert_eq!(
        untried,
        ["access", "git_webhook", "lfs", "results"],
        "{checks:?}"
    );
    assert_eq!(stderr.trim_end(), lines[0]);
    assert!(stdout.lines().count() >= checks.len());

    // Nothing was written.
    assert!(clinic.backlog.writes().is_empty());
    assert_eq!(clinic.sqs.sent().len(), 0);
    for op in [sqs::Op::ReceiveMessage, sqs::Op::DeleteMessage] {
        assert_eq!(clinic.sqs.count(op), 0);
    }
    assert_eq!(clinic.s3.versions(BUCKET, KEY).len(), 1);
}

/// A bridge, what breaks it, and how the one line begins that is told.
type Case = (&'static str, fn(&mut Clinic), &'static str);

async fn each_broken_once(cases: &[Case]) {
    let mut clinics = Vec::new();
    for (case, break_it, expected) in cases {
        let mut clinic = Clinic::new().await;
        break_it(&mut clinic);
        clinic.stack.show(&clinic.aws);
        let case = case.to_string();
        let expected = expected.to_string();
        clinics.push(tokio::spawn(async move {
            let (code, lines) = clinic.examine(&[]).await;
            println!("{case}: {lines:#?}");
            let is_error = expected.starts_with("error");
            assert_eq!(lines.len(), 2, "{case}: {lines:#?}");
            assert!(lines[0].starts_with(&expected), "{case}: {lines:#?}");
            assert_eq!(code, Some(i32::from(is_error)), "{case}: {lines:#?}");
        }));
        if clinics.len() == 3 {
            for clinic in clinics.drain(..) {
                clinic.await.unwrap();
            }
        }
    }
    for clinic in clinics {
        clinic.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_server_that_is_broken_is_told_in_one_line() {
    each_broken_once(&[
        (
            "another password",
            |clinic| _ = clinic.secrets.put(GIT_SECRET, &json!({"username": USER, "password": "x"}).to_string()),
            "error git_login https://localhost:",
        ),
        (
            "a repository that is not there",
            |clinic| fs::remove_dir_all(clinic.upstream.root().join("APP/web.git")).unwrap(),
            "error repository APP/web: https://localhost:",
        ),
        (
            "a branch that is not there",
            |clinic| {
                clinic.repository.delete_ref(MAIN);
                clinic.repository.commit_on("refs/heads/master", &[("a", "a".into())]);
            },
            "error ref web-main: APP/web has no refs/heads/main; it has refs/heads/master",
        ),
        (
            "a clock that is off",
            |clinic| clinic.git.set_date("Sun, 01 Mar 2026 00:00:00 GMT"),
            "error clock https://localhost:",
        ),
        (
            "a server that is not there",
            |clinic| clinic.git = GitServer::start(clinic.upstream.root(), None),
            "error reach https://localhost:",
        ),
        (
            "a user who may not read it",
            |clinic| clinic.git.fault(git_server::Op::Handshake, git_server::Fault::Status(403)),
            "error repository APP/web: the login is taken, and this user may not read the repository (HTTP 403)",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_not_as_it_must_be_is_told_in_one_line() {
    each_broken_once(&[
        (
            "two-factor authentication",
            |clinic| clinic.backlog.fault("GET users/myself", 9, Fault::Refuse(403, 12)),
            "error api_key localhost:",
        ),
        (
            "a wrong key",
            |clinic| clinic.backlog.fault("GET users/myself", 9, Fault::Refuse(401, 11)),
            "error api_key localhost:",
        ),
        (
            "a forbidden address",
            |clinic| clinic.backlog.fault("GET users/myself", 9, Fault::Refuse(403, 4)),
            "error api_key localhost:",
        ),
        (
            "a reporter",
            |clinic| {
                let user = json!({"id": 1, "name": "Robot", "roleType": 3});
                let answer = Fault::Answer(200, "application/json", user.to_string().into_bytes());
                clinic.backlog.fault("GET users/myself", 9, answer);
            },
            "error role localhost:",
        ),
        (
            "an archived project",
            |clinic| clinic.backlog.say("APP", "archived", true.into()),
            "error project APP: the project is archived",
        ),
        (
            "Git that is off",
            |clinic| clinic.backlog.say("APP", "useGit", false.into()),
            "error project APP: Git is switched off",
        ),
        (
            "no member",
            |clinic| clinic.backlog.fault("GET projects/APP", 9, Fault::Refuse(404, 6)),
            "error project APP: there is no such project, or the key's owner is no member of it",
        ),
        (
            "no administrator",
            |clinic| clinic.backlog.close("APP"),
            "? webhook APP: not checked: needs the key of an administrator of the project",
        ),
        (
            "two webhooks",
            |clinic| {
                let url = format!("{}/hooks", clinic.hooks.endpoint());
                clinic.backlog.hook("APP", &token_of(&url), &[12]);
            },
            "warning webhook APP: 2 webhooks post to this bridge",
        ),
        (
            "an unknown token",
            |clinic| {
                let url = format!("{}/hooks/other-token-0123456789", clinic.hooks.endpoint());
                clinic.backlog.replace_hooks("APP", &url, &[12]);
            },
            "error webhook APP: the webhook posts to this bridge with a token that is not the bridge's",
        ),
        (
            "other activities",
            |clinic| {
                let url = format!("{}/hooks", clinic.hooks.endpoint());
                clinic.backlog.replace_hooks("APP", &token_of(&url), &[1, 2, 3]);
            },
            "error webhook APP: there is a webhook to this bridge, but not for Git pushes (types 1, 2, 3)",
        ),
        (
            "another bridge's webhook",
            |clinic| clinic.backlog.replace_hooks("APP", "https://somebody.example/hooks/t", &[12]),
            "error webhook APP: no webhook of the project posts to this bridge; it has one to somebody else",
        ),
        (
            "a push that nothing told of",
            |clinic| _ = clinic.aws.says("FilterLogEvents", "{\"events\":[]}"),
            "error arrival APP: no webhook came of the push to APP/web refs/heads/main at 2026-04-01T00:00:00Z",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_broken_is_told_in_one_line() {
    each_broken_once(&[
        (
            "a function that cannot run",
            |clinic| {
                clinic.changes("GetFunctionConfiguration", "/State", &"Failed".into());
                let answer = clinic.aws.said("GetFunctionConfiguration");
                let good = answer.replace("Failed", "Active");
                clinic.aws.does("GetFunctionConfiguration", move |call| {
                    let is_deliver = call.input.contains("bridge-deliver");
                    (200, if is_deliver { answer.clone() } else { good.clone() })
                });
            },
            "error function bridge-deliver: the function cannot run",
        ),
        (
            "a mapping that is off",
            |clinic| clinic.changes("ListEventSourceMappings", "/EventSourceMappings/0/State", &"Disabled".into()),
            "error mapping bridge-deliver: jobs wait",
        ),
        (
            "no redrive policy",
            |clinic| {
                let sqs = TestSqs::start(Duration::from_mins(6), 5).without_redrive();
                clinic.sqs = sqs;
            },
            "error queue bridge.fifo: it has no redrive policy",
        ),
        (
            "a dead letter",
            |clinic| clinic.sqs.bury("{\"sweep\":true}"),
            "error dead_letters bridge-dead.fifo: 1 job was given up",
        ),
        (
            "a Git secret that is not filled in",
            |clinic| _ = clinic.secrets.put(GIT_SECRET, "{\"username\":\"\",\"password\":\"\"}"),
            "error git_secret backlog-bridge/git: the Git login is not filled in",
        ),
        (
            "a secret that is to be deleted",
            |clinic| () = clinic.secrets.begin_deletion(GIT_SECRET),
            "error git_secret backlog-bridge/git: the secret is scheduled for deletion",
        ),
        (
            "a token that is none",
            |clinic| _ = clinic.secrets.put("token", "short"),
            "error token_secret token: it holds no token",
        ),
        (
            "a sweep that is off",
            |clinic| clinic.changes("GetSchedule", "/State", &"DISABLED".into()),
            "error sweep bridge-Sweep-1: the sweep is DISABLED",
        ),
        (
            "an alarm",
            |clinic| {
                let alarm = "<member><AlarmName>bridge-queue-age</AlarmName><StateReason>Threshold Crossed</StateReason></member>";
                let answer = clinic.aws.said("DescribeAlarms");
                let answer = answer.replace("<MetricAlarms/>", &format!("<MetricAlarms>{alarm}</MetricAlarms>"));
                clinic.aws.says("DescribeAlarms", &answer);
            },
            "warning alarm bridge-queue-age: the alarm is on: Threshold Crossed",
        ),
        (
            "an address that was never confirmed",
            |clinic| {
                let answer = clinic.aws.said("ListSubscriptionsByTopic");
                clinic.aws.says("ListSubscriptionsByTopic", &answer.replace(&format!("{TOPIC}:1"), "PendingConfirmation"));
            },
            "error alarm_address arn:aws:sns:ap-northeast-1:123456789012:topic: not told of alarms, since it was never confirmed: \
             a@example.com",
        ),
        (
            "a new account",
            |clinic| clinic.changes("GetAccountSettings", "/AccountLimit/ConcurrentExecutions", &10.into()),
            "warning account_limit Lambda: the account runs at most 10 functions at once",
        ),
        (
            "an API that does not answer",
            |clinic| {
                let url = "http://127.0.0.1:9/hooks".to_owned();
                clinic.backlog.replace_hooks("APP", &token_of(&url), &[12]);
                clinic.stack.outputs[4].1 = url + "/TOKEN";
            },
            "? way_in http://127.0.0.1:9/hooks: not checked: cannot post to http://127.0.0.1:9/hooks/TOKEN; check the URL of the bridge and the network",
        ),
        (
            "a deployment that failed",
            |clinic| clinic.stack.status = "UPDATE_ROLLBACK_FAILED",
            "error stack bridge: the stack is UPDATE_ROLLBACK_FAILED",
        ),
        (
            "a table that differs from the one here",
            |clinic| fs::write(clinic.folder.path().join("routes.toml"), clinic.table() + "\n# mine\n").unwrap(),
            "warning table s3://sources/config/routes.toml: it differs from routes.toml here in 2 lines",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_object_goes_through_is_told_in_one_line() {
    each_broken_once(&[
        (
            "no versions",
            |clinic| clinic.s3.set(|settings| settings.versioning = Some("Suspended")),
            "error versioning sources: versioning is suspended",
        ),
        (
            "no events",
            |clinic| clinic.s3.set(|settings| settings.events = false),
            "error events sources: it does not tell EventBridge of new versions",
        ),
        (
            "another region",
            |clinic| clinic.s3.set(|settings| settings.region = Some("us-east-1")),
            "error region sources: the bucket is in us-east-1, and what is asked is ap-northeast-1",
        ),
        (
            "a key of one's own",
            |clinic| clinic.s3.set(|settings| settings.key = Some("arn:aws:kms:ap-northeast-1:1:key/k")),
            "error encryption sources: it is encrypted with the key arn:aws:kms:ap-northeast-1:1:key/k",
        ),
        (
            "keys that the function may not write",
            |clinic| clinic.stack.set("ObjectKeys", "bridge/*.zip"),
            "error access web-main: the function may not write web/main.zip, since ObjectKeys is bridge/*.zip",
        ),
        (
            "an object that is behind",
            |clinic| _ = clinic.repository.commit_on(MAIN, &[("b", "b".into())]),
            "error object web-main: s3://sources/web/main.zip holds ",
        ),
        (
            "a rule for another key",
            |clinic| clinic.rule("web/Main.zip", "ENABLED"),
            "error rule web-main: no rule starts web-main for s3://sources/web/main.zip; the rule web-main-NewVersion waits for \
             web/Main.zip of sources",
        ),
        (
            "a rule that is off",
            |clinic| clinic.rule(KEY, "DISABLED"),
            "error rule web-main: no rule starts web-main for s3://sources/web/main.zip; the rule web-main-NewVersion is disabled",
        ),
        (
            "a pipeline of another object",
            |clinic| {
                let pointer = "/pipeline/stages/0/actions/0/configuration/S3ObjectKey";
                clinic.changes("GetPipeline", pointer, &"web/Main.zip".into());
            },
            "error pipeline web-main: no pipeline reads s3://sources/web/main.zip; web-main reads s3://sources/web/Main.zip",
        ),
        (
            "no pipeline",
            |clinic| _ = clinic.aws.says("ListPipelines", "{\"pipelines\":[]}"),
            "warning pipeline web-main: no pipeline in ap-northeast-1 reads s3://sources/web/main.zip",
        ),
        (
            "a pipeline that asks by itself",
            |clinic| {
                let pointer = "/pipeline/stages/0/actions/0/configuration/PollForSourceChanges";
                clinic.changes("GetPipeline", pointer, &"true".into());
            },
            "warning pipeline web-main: web-main asks S3 by itself, too",
        ),
        (
            "a stage that nothing enters",
            |clinic| {
                let closed = json!({"enabled": false, "disabledReason": "on leave"});
                let stages = json!([{"stageName": "Source"}, {"stageName": "Deploy", "inboundTransitionState": closed}]);
                clinic.changes("GetPipelineState", "/stageStates", &stages);
            },
            "warning pipeline web-main: nothing enters the stage Deploy of web-main: on leave",
        ),
        (
            "a source that cannot be read",
            |clinic| {
                let failed = json!({"status": "Failed", "errorDetails": {"message": "Access denied"}});
                let stages = json!([{"stageName": "Source", "actionStates": [{"latestExecution": failed}]}]);
                clinic.changes("GetPipelineState", "/stageStates", &stages);
            },
            "error pipeline web-main: web-main could not read the object: Access denied",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_missing_or_wrong_is_told() {
    for (text, expected) in [
        (
            None,
            "error table s3://sources/config/routes.toml: the routing table was deleted",
        ),
        (
            Some("[[route]]\n"),
            "error table s3://sources/config/routes.toml: the routing table is wrong, and the last good one is used: ",
        ),
    ] {
        let clinic = Clinic::new().await;
        if let Some(text) = text {
            clinic.store_table(text).await;
        } else {
            let deletion = clinic.s3.client().delete_object().bucket(BUCKET);
            deletion.key("config/routes.toml").send().await.unwrap();
        }
        let (code, lines) = clinic.examine(&[]).await;
        assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
        assert!(lines[0].starts_with(expected), "{lines:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_looked_at_is_a_question_and_no_error() {
    let clinic = Clinic::new().await;
    let denied = AwsApi::start();
    clinic.stack.show(&denied);
    let clinic = Clinic {
        aws: denied,
        ..clinic
    };
    clinic.secrets.fail_always(403);
    clinic.sqs.fail_always(sqs::Op::GetQueueAttributes, 403);
    clinic.s3.set(|settings| {
        settings.denied = vec![
            Op::GetBucketVersioning,
            Op::GetBucketNotification,
            Op::GetBucketLocation,
            Op::GetBucketEncryption,
            Op::HeadObject,
        ];
    });
    let login = [("BACKLOG_USERNAME", USER), ("BACKLOG_PASSWORD", PASSWORD)];
    let (code, lines) = clinic.examine(&login).await;
    println!("{lines:#?}");
    assert_eq!(code, Some(0), "{lines:#?}");
    let (verdict, questions) = lines.split_last().unwrap();
    assert!(verdict.starts_with("0 errors, 0 warnings, "), "{verdict}");
    assert!(
        questions
            .iter()
            .all(|line| line.starts_with("? ") && line.contains(": not checked: needs ")),
        "{lines:#?}"
    );
    for action in [
        "lambda:GetFunctionConfiguration",
        "lambda:ListEventSourceMappings",
        "lambda:GetAccountSettings",
        "secretsmanager:GetSecretValue",
        "sqs:GetQueueAttributes",
        "s3:GetBucketVersioning",
        "s3:GetBucketNotification",
        "s3:GetBucketLocation",
        "s3:GetEncryptionConfiguration",
        "s3:GetObject",
        "codepipeline:ListPipelines",
        "cloudformation:DescribeStackResource",
        "cloudwatch:DescribeAlarms",
        "sns:ListSubscriptionsByTopic",
        "logs:FilterLogEvents",
    ] {
        let needs = format!("needs {action}");
        assert!(
            questions.iter().any(|line| line.ends_with(&needs)),
            "{action}: {lines:#?}"
        );
    }
}

/// What IAM calls an operation of S3.
fn action_of(op: Op) -> &'static str {
    match op {
        Op::PutObject => "s3:PutObject",
        Op::GetObject | Op::HeadObject => "s3:GetObject",
        Op::GetObjectVersion => "s3:GetObjectVersion",
        Op::ListObjectsV2 => "s3:ListBucket",
        Op::ListObjectVersions => "s3:ListBucketVersions",
        Op::GetBucketVersioning => "s3:GetBucketVersioning",
        Op::GetBucketNotification => "s3:GetBucketNotification",
        Op::GetBucketLocation => "s3:GetBucketLocation",
        Op::GetBucketEncryption => "s3:GetEncryptionConfiguration",
        _ => "nobody's",
    }
}

const OF_S3: [Op; 13] = [
    Op::PutObject,
    Op::GetObject,
    Op::GetObjectVersion,
    Op::HeadObject,
    Op::DeleteObject,
    Op::ListObjectsV2,
    Op::ListObjectVersions,
    Op::GetBucketVersioning,
    Op::GetBucketNotification,
    Op::GetBucketLocation,
    Op::GetBucketEncryption,
    Op::CreateMultipartUpload,
    Op::Other,
];

const OF_SQS: [sqs::Op; 7] = [
    sqs::Op::SendMessage,
    sqs::Op::SendMessageBatch,
    sqs::Op::ReceiveMessage,
    sqs::Op::DeleteMessage,
    sqs::Op::ChangeMessageVisibility,
    sqs::Op::GetQueueAttributes,
    sqs::Op::GetQueueUrl,
];

impl Clinic {
    /// From now on people may do what these policies of the template allow, and nothing else.
    fn only(&self, policies: &[&str]) -> BTreeSet<String> {
        let allowed = policies
            .iter()
            .flat_map(|policy| allowed(policy).into_keys());
        let allowed: BTreeSet<String> = allowed.collect();
        self.aws.allow_only(&allowed);
        for op in OF_SQS {
            if !allowed.contains(&format!("sqs:{op:?}")) {
                self.sqs.fail_always(op, 403);
            }
        }
        if !allowed.contains("secretsmanager:GetSecretValue") {
            self.secrets.fail_always(403);
        }
        let denied = OF_S3
            .into_iter()
            .filter(|op| !allowed.contains(action_of(*op)));
        self.s3.set(|settings| settings.denied = denied.collect());
        allowed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_look_sees_all_but_what_is_in_secrets() {
    let clinic = Clinic::new().await;
    clinic.only(&["Observer"]);
    let login = [("BACKLOG_USERNAME", USER), ("BACKLOG_PASSWORD", PASSWORD)];
    let (code, lines) = clinic.examine(&login).await;
    assert_eq!(code, Some(0), "{lines:#?}");
    let needs = "not checked: needs secretsmanager:GetSecretValue";
    assert_eq!(
        lines,
        [
            format!("? way_in {}/hooks: {needs}", clinic.hooks.endpoint()),
            format!("? token_secret token: {needs}"),
            format!("? git_secret {GIT_SECRET}: {needs}"),
            "0 errors, 0 warnings, 30 well, 3 not checked".to_owned(),
        ]
    );
    for arguments in [
        &["routes", "pull", "--stack", "bridge"][..],
        &["logs", "--stack", "bridge"],
    ] {
        let (code, _, stderr) = clinic.run(arguments, &[]).await;
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    }
    // What changes something is refused.
    fs::write(
        clinic.folder.path().join("routes.toml"),
        clinic.table() + "\n",
    )
    .unwrap();
    for arguments in [
        &["routes", "push", "--yes", "--stack", "bridge"][..],
        &["sync", "--stack", "bridge", "--wait", "0"],
        &["redrive", "--yes", "--stack", "bridge"],
    ] {
        let (code, _, stderr) = clinic.run(arguments, &[]).await;
        assert_ne!(code, Some(0), "{arguments:?}: {stderr}");
    }
    assert_eq!(clinic.s3.versions(BUCKET, "config/routes.toml").len(), 1);
    assert!(clinic.sqs.sent().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_operates_the_bridge_needs_no_more_than_the_two_policies() {
    let clinic = Clinic::new().await;
    let allowed = clinic.only(&["Observer", "Operator"]);
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!((code, lines.len()), (Some(0), 1), "{lines:#?}");
    clinic.sqs.bury(
        &json!({"route": "web-main", "repository": "APP/web", "ref": MAIN, "request_id": "r"})
            .to_string(),
    );
    fs::write(
        clinic.folder.path().join("routes.toml"),
        clinic.table() + "\n",
    )
    .unwrap();
    for arguments in [
        &["routes", "pull", "--stack", "bridge"][..],
        &["routes", "push", "--yes", "--stack", "bridge"],
        &["logs", "--stack", "bridge"],
        &["redrive", "--yes", "--stack", "bridge"],
    ] {
        let (code, _, stderr) = clinic.run(arguments, &[]).await;
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    }
    // Nobody tells what became of it, and it is not waited for.
    clinic
        .run(&["sync", "--stack", "bridge", "--wait", "0"], &[])
        .await;
    assert_eq!(clinic.sqs.sent().len(), 2);
    // What these commands did of it, and what is for those that this stand-in cannot follow.
    let mut done = clinic.aws.actions();
    done.extend(
        OF_SQS
            .into_iter()
            .filter(|op| clinic.sqs.count(*op) > 0)
            .map(|op| format!("sqs:{op:?}")),
    );
    done.extend(
        OF_S3
            .into_iter()
            .filter(|op| clinic.s3.count(*op) > 0)
            .map(|op| action_of(op).to_owned()),
    );
    done.insert("secretsmanager:GetSecretValue".into());
    let undone: Vec<_> = allowed.difference(&done).map(String::as_str).collect();
    assert_eq!(
        undone,
        [
            "codepipeline:ListPipelineExecutions",
            "codepipeline:RollbackStage",
            "codepipeline:StartPipelineExecution",
            "kms:Decrypt",
            "kms:GenerateDataKey",
            "s3:GetObjectVersion",
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "secretsmanager:DescribeSecret",
            "secretsmanager:PutSecretValue",
            "sqs:ChangeMessageVisibility",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_ends_in_the_middle_is_told_once() {
    let clinic = Clinic::new().await;
    let over = |_: &_| {
        (
            400,
            json!({"__type": "ExpiredTokenException", "message": "The security token is expired"})
                .to_string(),
        )
    };
    for operation in [
        "GetFunctionConfiguration",
        "ListEventSourceMappings",
        "ListPipelines",
        "GetSchedule",
    ] {
        clinic.aws.does(operation, over);
    }
    clinic.aws.does("DescribeAlarms", |_| {
        (
            403,
            xml_error("ExpiredToken", "The security token is expired"),
        )
    });
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
    assert!(
        lines[0].starts_with("error aws_login AWS: ")
            && lines[0].contains("log in again: aws sso login"),
        "{lines:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_not_there_is_told_and_wrong_usage_is_another_status() {
    let clinic = Clinic::new().await;
    let (code, stdout, _) = clinic
        .run(&["doctor", "web-mian", "--stack", "bridge"], &[])
        .await;
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    let missing = xml_error("ValidationError", "Stack with id bridge does not exist");
    clinic
        .aws
        .does("DescribeStacks", move |_| (400, missing.clone()));
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
    assert!(
        lines[0].starts_with("error stack bridge: there is no stack bridge in ap-northeast-1"),
        "{lines:#?}"
    );
    clinic.aws.stack("bridge", "ROLLBACK_COMPLETE", &[]);
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!(code, Some(1), "{lines:#?}");
    assert!(
        lines[0].starts_with("error stack bridge: the stack bridge is ROLLBACK_COMPLETE"),
        "{lines:#?}"
    );
    clinic.aws.denies("DescribeStacks");
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!(code, Some(0), "{lines:#?}");
    assert_eq!(
        lines[0],
        "? stack bridge: not checked: needs cloudformation:DescribeStacks"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_laptop_git_alone_is_looked_at_and_with_aws_the_objects_too() {
    let clinic = Clinic::new().await;
    let login = [
        ("BACKLOG_USERNAME", USER),
        ("BACKLOG_PASSWORD", PASSWORD),
        ("SOURCE_BUCKET", BUCKET),
    ];
    let (code, stdout, _) = clinic.run(&["doctor"], &login).await;
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "0 errors, 0 warnings, 6 well, 0 not checked\n")
    );
    let (code, stdout, _) = clinic.run(&["doctor", "--deep"], &login).await;
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 2), "{stdout}");
    assert!(
        lines[0].contains("APP/web: to an LFS batch of no file it answers 404"),
        "{stdout}"
    );
    let asked = clinic.git.requests();
    let asked = asked.last().unwrap();
    assert!(
        asked.authorized
            && asked
                .path
                .ends_with("/git/APP/web.git/info/lfs/objects/batch")
    );
    assert!(
        clinic.aws.actions().is_empty(),
        "{:?}",
        clinic.aws.actions()
    );
    let (code, stdout, _) = clinic.run(&["doctor", "--aws"], &login).await;
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "0 errors, 0 warnings, 14 well, 0 not checked\n")
    );
    // A table that is wrong is wrong usage, as everywhere.
    fs::write(clinic.folder.path().join("routes.toml"), "[[route]]\n").unwrap();
    let (code, stdout, stderr) = clinic.run(&["doctor"], &login).await;
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("routes.toml:1"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_do_not_come_back_are_told_in_one_line() {
    let mut clinic = Clinic::new().await;
    let first = |lines: &[String]| lines[0].clone();
    let well = |lines: &[String]| lines.len() == 1;
    // The table wants them, and there is nobody to tell them.
    let wanting = |more: &str| {
        let line = format!("results = \"alert\"\n{more}\n[[route]]\npipeline = \"web-main\"");
        clinic.table().replacen("[[route]]", &line, 1)
    };
    let (no_key, table) = (wanting(""), wanting("api_key = \"secret:robot\""));
    clinic
        .secrets
        .put("robot", &json!({"api_key": ROBOT_KEY}).to_string());
    clinic.store_table(&table).await;
    fs::write(clinic.folder.path().join("routes.toml"), &table).unwrap();
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!(code, Some(1), "{lines:#?}");
    assert!(
        first(&lines).starts_with("error results bridge-results: the table wants results told"),
        "{lines:#?}"
    );
    clinic
        .stack
        .outputs
        .push(("ResultsQueue", TestSqs::results_url()));
    clinic.stack.show(&clinic.aws);
    let (code, lines) = clinic.examine(&[]).await;
    assert!(code == Some(0) && well(&lines), "{lines:#?}");
    // What was given up.
    clinic.sqs.put_dead_result("{}");
    let (_, lines) = clinic.examine(&[]).await;
    assert!(
        first(&lines).starts_with("error results bridge-results: 1 message was given up"),
        "{lines:#?}"
    );
    // The robot's key is not filled in, or there is none.
    clinic.secrets.put("robot", r#"{"api_key":""}"#);
    let key = [("BACKLOG_ADMIN_API_KEY", ADMIN_KEY)];
    let (_, lines) = clinic.examine(&key).await;
    assert!(
        first(&lines).starts_with("error results bridge-results: the secret robot does not hold"),
        "{lines:#?}"
    );
    clinic.store_table(&no_key).await;
    fs::write(clinic.folder.path().join("routes.toml"), &no_key).unwrap();
    let (_, lines) = clinic.examine(&key).await;
    assert!(
        first(&lines).starts_with("error results bridge-results: the space ")
            && first(&lines).contains("has no api_key"),
        "{lines:#?}"
    );
    // results.yaml is not deployed.
    let said = clinic.aws.said("GetFunctionConfiguration");
    clinic.aws.does("GetFunctionConfiguration", move |call| {
        if call.input.contains("bridge-results") {
            let gone = json!({"__type": "ResourceNotFoundException", "message": "none"});
            return (404, gone.to_string());
        }
        (200, said.clone())
    });
    let (code, lines) = clinic.examine(&[]).await;
    assert_eq!(code, Some(1), "{lines:#?}");
    assert!(
        first(&lines).starts_with("error results bridge-results: results.yaml is not deployed"),
        "{lines:#?}"
    );
}
