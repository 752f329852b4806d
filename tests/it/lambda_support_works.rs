//! The test parts that stand in for Lambda and what is around it are what they say they are.

use std::{
    env, fs,
    future::pending,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{self, Command},
    time::{Duration, Instant},
};

use aws_lambda_events::sqs::SqsEvent;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_sqs::{
    error::{ProvideErrorMetadata, SdkError},
    types::{MessageSystemAttributeName, QueueAttributeName},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::{Value, json};

use crate::support::{
    fifo::{DEDUPLICATION, Sent, SqsQueue, md5_hex},
    lambda::Lambda,
    s3::{ACCESS_KEY, SECRET_KEY},
    secrets::TestSecrets,
    sqs::{Fault, Op, TestSqs},
};

const LIMIT: Duration = Duration::from_mins(1);
/// Short enough to wait for, long enough for a slow machine.
const SHORT: Duration = Duration::from_secs(1);
const WAIT: i32 = 10;

// The queue.

fn sqs(endpoint: &str, access_key: &str) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("ap-northeast-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(access_key, SECRET_KEY, None, None, "test"))
        .retry_config(RetryConfig::disabled());
    aws_sdk_sqs::Client::from_conf(config.build())
}

/// A queue and its client.
struct Queue {
    server: TestSqs,
    client: aws_sdk_sqs::Client,
}

impl Queue {
    fn new(server: TestSqs) -> Self {
        let client = sqs(&server.endpoint(), ACCESS_KEY);
        Self { server, client }
    }

    async fn send(&self, body: &str, group: &str, id: &str) -> Result<String, String> {
        let message = self.client.send_message().queue_url(self.server.url());
        let message = message.message_body(body);
        let message = message.set_message_group_id(some(group));
        let sent = message.set_message_deduplication_id(some(id)).send().await;
        sent.map(|sent| sent.message_id.unwrap())
            .map_err(|error| error.code().unwrap_or_default().to_owned())
    }

    /// Body, receive count and receipt of what comes in `wait` seconds.
    async fn receive(&self, max: i32, wait: i32) -> Vec<(String, String, String)> {
        let request = self.client.receive_message().queue_url(self.server.url());
        let answer = request
            .max_number_of_messages(max)
            .wait_time_seconds(wait)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .unwrap();
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let messages = answer.messages.unwrap_or_default().into_iter();
        messages
            .map(|message| {
                let body = message.body.unwrap();
                assert_eq!(message.md5_of_body.unwrap(), md5_hex(body.as_bytes()));
                let count = message.attributes.unwrap()[&count].clone();
                (body, count, message.receipt_handle.unwrap())
            })
            .collect()
    }

    async fn delete(&self, receipt: &str) -> Result<(), String> {
        let request = self.client.delete_message().queue_url(self.server.url());
        let answer = request.receipt_handle(receipt).send().await;
        answer.map(drop).map_err(|error| code(&error))
    }

    async fn change(&self, receipt: &str, seconds: i32) -> Result<(), String> {
        let request = self.client.change_message_visibility();
        let request = request.queue_url(self.server.url()).receipt_handle(receipt);
        let answer = request.visibility_timeout(seconds).send().await;
        answer.map(drop).map_err(|error| code(&error))
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    error.code().unwrap_or_default().to_owned()
}

fn bodies(messages: &[(String, String, String)]) -> Vec<&str> {
    messages.iter().map(|(body, ..)| body.as_str()).collect()
}

#[tokio::test]
async fn a_group_keeps_its_order_and_waits_for_what_is_in_flight() {
    let queue = Queue::new(TestSqs::start(LIMIT, 5));
    for (body, group) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
        queue.send(body, group, body).await.unwrap();
    }
    assert_eq!((queue.server.waiting(), queue.server.in_flight()), (4, 0));
    let first = queue.receive(1, 0).await;
    assert_eq!(bodies(&first), ["a1"]);
    assert_eq!(bodies(&queue.receive(10, 0).await), ["b1"]);
    assert_eq!((queue.server.waiting(), queue.server.in_flight()), (2, 2));
    queue.delete(&first[0].2).await.unwrap();
    assert_eq!(bodies(&queue.receive(10, 0).await), ["a2", "a3"]);
    assert_eq!(queue.server.count(Op::ReceiveMessage), 3);

    let sent = queue.server.sent();
    let groups: Vec<_> = sent.iter().map(|sent| sent.group.as_str()).collect();
    assert_eq!(groups, ["a", "a", "b", "a"]);
    assert_eq!(
        sent[1],
        Sent {
            body: "a2".into(),
            group: "a".into(),
            deduplication: "a2".into()
        }
    );
}

#[tokio::test]
async fn a_message_comes_again_until_the_dead_letter_queue_has_it() {
    let queue = Queue::new(TestSqs::start(SHORT, 2));
    queue.send(r#"{"n":1}"#, "a", "1").await.unwrap();
    queue.send("two", "a", "2").await.unwrap();
    for count in ["1", "2"] {
        let started = Instant::now();
        let received = queue.receive(1, WAIT).await;
        assert_eq!(
            (bodies(&received), received[0].1.as_str()),
            (vec![r#"{"n":1}"#], count)
        );
        // The first is there at once, the second only when the first one's time is up.
        assert_eq!(started.elapsed() > SHORT / 2, count == "2");
    }
    assert_eq!(queue.server.dead_letters(), [] as [Value; 0]);
    let received = queue.receive(1, WAIT).await;
    assert_eq!(
        (bodies(&received), received[0].1.as_str()),
        (vec!["two"], "1")
    );
    assert_eq!(queue.server.dead_letters(), [json!({ "n": 1 })]);
    queue.delete(&received[0].2).await.unwrap();
    assert_eq!(queue.server.depth(), (0, 0));
}

#[tokio::test]
async fn without_a_redrive_policy_nothing_dies() {
    let server = TestSqs::start(Duration::ZERO, 1).without_redrive();
    server.put("again", "a");
    for count in ["1", "2", "3"] {
        let received = server.receive(1);
        assert_eq!(received[0].attributes["ApproximateReceiveCount"], count);
    }
    assert_eq!(server.dead_letters(), [] as [Value; 0]);
    assert_eq!(server.sent(), []);
    let policy = attributes(&server, &server.url()).await;
    assert_eq!(policy, [None, Some("1".into()), Some("true".into())]);
}

#[tokio::test]
async fn a_consumer_gives_a_message_back_or_keeps_it() {
    let queue = Queue::new(TestSqs::start(SHORT, 5));
    queue.send("a", "a", "a").await.unwrap();
    let first = queue.receive(1, 0).await;
    queue.change(&first[0].2, 0).await.unwrap();
    let second = queue.receive(1, 0).await;
    assert_eq!(second[0].1, "2");
    // The first turn is over.
    let expired = queue.delete(&first[0].2).await;
    assert_eq!(expired.unwrap_err(), "InvalidParameterValue");
    let expired = queue.change(&first[0].2, 5).await;
    assert_eq!(expired.unwrap_err(), "MessageNotInflight");

    queue.change(&second[0].2, 60).await.unwrap();
    tokio::time::sleep(SHORT + SHORT / 4).await;
    assert_eq!(queue.server.depth(), (0, 1));
    queue.delete(&second[0].2).await.unwrap();
    queue.delete(&second[0].2).await.unwrap();
    let none = queue.delete("none").await.unwrap_err();
    assert_eq!(none, "ReceiptHandleIsInvalid");
}

#[tokio::test]
async fn a_deduplication_id_counts_once_in_five_minutes() {
    let queue = Queue::new(TestSqs::start(LIMIT, 5));
    let first = queue.send("a", "a", "same").await.unwrap();
    assert_eq!(queue.send("b", "b", "same").await.unwrap(), first);
    assert_ne!(queue.send("c", "b", "other").await.unwrap(), first);
    assert_eq!(bodies(&queue.receive(10, 0).await), ["a", "c"]);
    assert_eq!(queue.server.sent().len(), 3);

    let mut fifo = SqsQueue::new("a.fifo", LIMIT, None);
    let sent = Sent {
        body: "a".into(),
        group: "a".into(),
        deduplication: "same".into(),
    };
    let now = Instant::now();
    let just_before = now + DEDUPLICATION.saturating_sub(Duration::from_millis(1));
    for (at, waiting) in [(now, 1), (just_before, 1), (now + DEDUPLICATION, 2)] {
        fifo.send(sent.clone(), at).unwrap();
        assert_eq!(fifo.depth(at), (waiting, 0));
    }
}

#[tokio::test]
async fn the_queue_refuses_what_sqs_refuses() {
    let queue = Queue::new(TestSqs::start(LIMIT, 5));
    let long = "x".repeat(129);
    for (case, body, group, id, expected) in [
        ("no group", "a", "", "1", "MissingParameter"),
        ("no id", "a", "a", "", "MissingParameter"),
        ("no body", "", "a", "1", "MissingParameter"),
        ("a space", "a", "a b", "1", "InvalidParameterValue"),
        ("not ASCII", "a", "開発", "1", "InvalidParameterValue"),
        ("too long", "a", "a", &long, "InvalidParameterValue"),
        ("no character", "\u{1}", "a", "1", "InvalidMessageContents"),
    ] {
        let refused = queue.send(body, group, id).await;
        assert_eq!(refused.unwrap_err(), expected, "{case}");
    }
    assert_eq!(queue.server.sent(), []);

    let elsewhere = queue
        .client
        .send_message()
        .queue_url("https://example.com/none.fifo");
    let error = elsewhere.message_body("a").send().await.unwrap_err();
    assert!(error.into_service_error().is_queue_does_not_exist());
    let stranger = sqs(&queue.server.endpoint(), "another-key");
    let error = stranger
        .get_queue_url()
        .queue_name("bridge.fifo")
        .send()
        .await;
    assert_eq!(code(&error.unwrap_err()), "UnrecognizedClientException");
}

/// The redrive policy, the number of messages and whether it is FIFO.
async fn attributes(server: &TestSqs, url: &str) -> [Option<String>; 3] {
    let client = sqs(&server.endpoint(), ACCESS_KEY);
    let request = client.get_queue_attributes().queue_url(url);
    let answer = request
        .attribute_names(QueueAttributeName::All)
        .send()
        .await;
    let attributes = answer.unwrap().attributes.unwrap();
    [
        QueueAttributeName::RedrivePolicy,
        QueueAttributeName::ApproximateNumberOfMessages,
        QueueAttributeName::FifoQueue,
    ]
    .map(|name| attributes.get(&name).cloned())
}

#[tokio::test]
async fn a_queue_says_where_its_dead_letters_go_and_takes_them_there() {
    let queue = Queue::new(TestSqs::start(LIMIT, 5));
    queue.send("a", "a", "a").await.unwrap();
    let [policy, count, fifo] = attributes(&queue.server, &queue.server.url()).await;
    let policy: Value = serde_json::from_str(&policy.unwrap()).unwrap();
    let arn = "arn:aws:sqs:ap-northeast-1:123456789012:bridge-dead.fifo";
    assert_eq!(
        policy,
        json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 5 })
    );
    assert_eq!((count, fifo), (Some("1".into()), Some("true".into())));

    let request = queue.client.get_queue_url().queue_name("bridge-dead.fifo");
    let url = request.send().await.unwrap().queue_url.unwrap();
    assert_eq!(url, queue.server.dead_letter_url());
    let message = queue
        .client
        .send_message()
        .queue_url(&url)
        .message_body("dead");
    let message = message.message_group_id("a").message_deduplication_id("d");
    message.send().await.unwrap();
    assert_eq!(queue.server.dead_letters(), ["dead"]);
    assert_eq!(queue.server.sent().len(), 1);
    let expected = [None, Some("1".into()), Some("true".into())];
    assert_eq!(attributes(&queue.server, &url).await, expected);
}

#[tokio::test]
async fn the_queue_fails_when_the_test_says_so() {
    let queue = Queue::new(TestSqs::start(LIMIT, 5));
    queue.server.fail_once(Op::SendMessage, 503);
    let failed = queue.send("a", "a", "a").await.unwrap_err();
    assert_eq!(failed, "ServiceUnavailable");
    queue.send("a", "a", "a").await.unwrap();
    queue.server.fail_always(Op::SendMessage, 403);
    for _ in 0..2 {
        let failed = queue.send("b", "a", "b").await.unwrap_err();
        assert_eq!(failed, "AccessDeniedException");
    }
    assert_eq!(bodies(&queue.receive(1, 0).await), ["a"]);
    queue.server.heal();
    queue.send("b", "a", "b").await.unwrap();
    assert_eq!(queue.server.count(Op::SendMessage), 5);
    assert_eq!(queue.server.calls(Op::SendMessage)[2]["MessageBody"], "b");
    assert_eq!(queue.server.sent().len(), 2);
}

#[tokio::test]
async fn what_the_queue_calls_failed_may_be_done_and_an_answer_may_never_come() {
    let queue = Queue::new(TestSqs::start(LIMIT, 5));
    let lost = Fault::ApplyThenStatus(500);
    queue.server.fault_once(Op::SendMessage, lost);
    let failed = queue.send("a", "a", "a").await.unwrap_err();
    assert_eq!(
        (failed.as_str(), queue.server.waiting()),
        ("InternalFailure", 1)
    );
    queue.send("a", "a", "a").await.unwrap();
    assert_eq!(queue.server.waiting(), 1);

    queue.server.fault_once(Op::SendMessage, Fault::Hang);
    let hung = tokio::time::timeout(SHORT, queue.send("b", "a", "b")).await;
    assert!(hung.is_err(), "{hung:?}");
    assert_eq!(queue.server.waiting(), 1);
}

// The secrets.

async fn secret(server: &TestSecrets, id: &str, stage: Option<&str>) -> Result<String, String> {
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("ap-northeast-1"))
        .endpoint_url(server.endpoint())
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .retry_config(RetryConfig::disabled());
    let client = aws_sdk_secretsmanager::Client::from_conf(config.build());
    let request = client.get_secret_value().secret_id(id);
    let answer = request
        .set_version_stage(stage.map(str::to_owned))
        .send()
        .await;
    answer
        .map(|answer| answer.secret_string.unwrap())
        .map_err(|error| code(&error))
}

#[tokio::test]
async fn secrets_fail_when_the_test_says_so() {
    let server = TestSecrets::start();
    server.put("token", "one").fail_once(500);
    assert_eq!(
        secret(&server, "token", None).await.unwrap_err(),
        "InternalFailure"
    );
    assert_eq!(secret(&server, "token", None).await.unwrap(), "one");
    server.fail_always(400);
    for _ in 0..2 {
        assert_eq!(
            secret(&server, "token", None).await.unwrap_err(),
            "ThrottlingException"
        );
    }
    server.heal();
    assert_eq!(secret(&server, "token", None).await.unwrap(), "one");
    assert_eq!(server.count("token"), 5);
}

// Lambda. Its function is the test below, in a process of its own.

const FUNCTION: [&str; 4] = [
    "--exact",
    "lambda_support_works::the_function",
    "--include-ignored",
    "--nocapture",
];

#[tokio::test]
#[ignore = "not a test: the function that the tests of Lambda start"]
async fn the_function() {
    let Ok(api) = env::var("AWS_LAMBDA_RUNTIME_API") else {
        return;
    };
    if env::var_os("FAIL_INIT").is_some() {
        let mut stream = TcpStream::connect(api).unwrap();
        let body = r#"{"errorType":"Config"}"#;
        let head = "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nhost: x\r\nconnection: close";
        write!(
            stream,
            "{head}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        process::exit(3);
    }
    lambda_runtime::run(service_fn(handle)).await.unwrap();
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let payload = event.payload;
    if payload.get("Records").is_some() {
        return batch(payload);
    }
    if payload["do"] == "hang" {
        pending::<()>().await;
    }
    Ok(json!({ "pid": process::id() }))
}

/// Reports the messages `fail`, and answers in other ways to a batch with another word in it.
fn batch(event: Value) -> Result<Value, Diagnostic> {
    let event: SqsEvent = serde_json::from_value(event).unwrap();
    let (mut failures, mut seen) = (Vec::new(), Vec::new());
    for record in event.records {
        assert_eq!(record.event_source.as_deref(), Some("aws:sqs"));
        let body = record.body.unwrap();
        assert_eq!(record.md5_of_body.unwrap(), md5_hex(body.as_bytes()));
        match body.as_str() {
            "throw" => return Err(diagnostic("Throw")),
            "nonsense" => return Ok(json!({ "batchItemFailures": [{ "id": "?" }] })),
            "null" => return Ok(Value::Null),
            "fail" => failures.push(json!({ "itemIdentifier": record.message_id })),
            _ => {}
        }
        seen.push(body);
    }
    Ok(json!({ "batchItemFailures": failures, "seen": seen }))
}

fn diagnostic(kind: &str) -> Diagnostic {
    Diagnostic {
        error_type: kind.into(),
        error_message: "as the event has it".into(),
    }
}

async fn start(vars: &[(&str, String)]) -> Lambda {
    Lambda::start_with(env::current_exe().unwrap(), &FUNCTION, vars, LIMIT).await
}

fn is_running(pid: u32) -> bool {
    let asked = Command::new("kill").args(["-0", &pid.to_string()]).output();
    asked.expect("kill is installed").status.success()
}

fn kind(result: &Result<Value, Value>) -> &str {
    let error = result.as_ref().unwrap_err();
    error["errorType"].as_str().unwrap()
}

#[tokio::test]
async fn a_function_that_takes_too_long_is_killed_and_started_again() {
    let lambda = start(&[]).await;
    let first = lambda.pid();
    let hung = lambda.invoke_within(&json!({ "do": "hang" }), SHORT).await;
    assert_eq!(kind(&hung.result), "Sandbox.Timedout");
    assert!((SHORT..SHORT * 5).contains(&hung.took), "{:?}", hung.took);
    assert!(!is_running(first));
    let answer = lambda.invoke(&json!({})).await.result.unwrap();
    assert_eq!((lambda.starts(), lambda.pid() != first), (2, true));
    assert_eq!(answer["pid"], lambda.pid());
}

#[tokio::test]
async fn a_function_that_cannot_start_fails_the_invocation() {
    let lambda = start(&[("FAIL_INIT", "1".to_owned())]).await;
    assert_eq!(lambda.starts(), 1);
    let failed = lambda.invoke(&json!({})).await;
    assert_eq!(kind(&failed.result), "Runtime.ExitError");
    assert_eq!(lambda.starts(), 2);
    assert_eq!(
        lambda.init_errors(),
        vec![json!({ "errorType": "Config" }); 2]
    );
}

#[tokio::test]
async fn the_event_source_deletes_what_succeeded_and_brings_the_rest_again() {
    let queue = TestSqs::start(SHORT, 2);
    queue.put("a", "1").put("fail", "2").put("b", "3");
    let lambda = start(&[]).await;
    let invocations = queue.drain(&lambda, 10, LIMIT).await;
    let seen: Vec<_> = invocations
        .iter()
        .map(|invocation| invocation.result.as_ref().unwrap()["seen"].clone())
        .collect();
    assert_eq!(seen, [json!(["a", "fail", "b"]), json!(["fail"])]);
    assert_eq!(queue.dead_letters(), ["fail"]);
    assert_eq!(queue.depth(), (0, 0));
}

// The events.

fn event(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("events")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn envelope(name: &str) -> Value {
    serde_json::from_str(&event(name)).unwrap()
}

#[test]
fn the_gateways_events_carry_the_webhooks_bodies() {
    for (name, body) in [
        ("apigw-v2-project-push.json", "project-push-update.json"),
        ("apigw-v2-git-push.json", "git-push-update.form"),
        ("apigw-v1-project-push.json", "project-push-update.json"),
        ("apigw-v1-git-push.json", "git-push-update.form"),
    ] {
        let envelope = envelope(name);
        let carried = envelope["body"].as_str().unwrap().to_owned();
        let carried = if envelope["isBase64Encoded"].as_bool().unwrap() {
            String::from_utf8(BASE64_STANDARD.decode(carried).unwrap()).unwrap()
        } else {
            carried
        };
        assert_eq!(carried, event(body), "{name}");
        let path = if name.starts_with("apigw-v2") {
            assert_eq!(envelope["version"], "2.0");
            assert_eq!(
                envelope["headers"]["content-length"],
                carried.len().to_string()
            );
            assert_eq!(
                envelope["requestContext"]["http"]["path"],
                envelope["rawPath"]
            );
            &envelope["rawPath"]
        } else {
            assert_eq!(envelope["httpMethod"], "POST");
            &envelope["path"]
        };
        assert_eq!(path, "/hooks/put-the-webhook-token-here", "{name}");
    }
    assert_eq!(envelope("apigw-v2-git-push.json")["isBase64Encoded"], true);
}

#[test]
fn the_queues_events_are_what_lambda_gets_and_name_the_commit_of_the_webhook() {
    let body = |name| {
        let event: SqsEvent = serde_json::from_value(envelope(name)).unwrap();
        let [record] = &event.records[..] else {
            panic!("{name} has one record");
        };
        let body = record.body.as_ref().unwrap();
        assert_eq!(record.md5_of_body.as_ref(), Some(&md5_hex(body.as_bytes())));
        serde_json::from_str::<Value>(body).unwrap()
    };
    assert_eq!(body("sqs-sweep.json"), json!({ "sweep": true }));
    let job = body("sqs-job.json");
    let push = envelope("project-push-update.json");
    let revisions = &push["content"]["revisions"];
    assert_eq!(job["hints"], json!([revisions[0]["rev"]]));
    assert_eq!(job["ref"], push["content"]["ref"]);

    // The same fields as those of a queue that the tests run.
    let queue = TestSqs::start(LIMIT, 1);
    let received = queue.put("a", "a").receive(1);
    let ours = queue.event(&received)["Records"][0].clone();
    let theirs = envelope("sqs-job.json")["Records"][0].clone();
    let names = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    for (ours, theirs) in [
        (&ours, &theirs),
        (&ours["attributes"], &theirs["attributes"]),
    ] {
        let (mut ours, mut theirs) = (names(ours), names(theirs));
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours["eventSourceARN"], queue.arn());
}
