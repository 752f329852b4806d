//! The two functions as they are deployed: real processes, from the webhook's request to the object's version.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use backlog_bridge::webhook::MAX_BODY_BYTES;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::support::{
    KEY, MAIN,
    git_server::{Fault as GitFault, Op as GitOp},
    json_api::Fault as SqsFault,
    lambda::{Invocation, Lambda},
    oracle::{assert_zip_equals, expected_entries},
    s3::{Fault as S3Fault, Op as S3Op},
    service::{
        GIT_SECRET, LOGIN, Service, TOKEN, TOKEN_SECRET, answer, lines, project_push, request,
    },
    sqs::Op as SqsOp,
};

fn outcome(line: &Value) -> &str {
    line["outcome"].as_str().unwrap_or_default()
}

fn kinds(service: &Service) -> Vec<String> {
    let outcomes = service.outcomes().into_iter();
    outcomes
        .map(|line| line["error_kind"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn is_clean(invocation: &Invocation) -> bool {
    invocation.result == Ok(json!({"batchItemFailures": []}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_becomes_a_job_and_the_job_a_version() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a.txt", "a".into())]);
    let (status, body) = service.push(MAIN, &[&commit]).await;
    assert_eq!((status, &body), (202, &json!({"accepted": [MAIN]})));
    println!("POST /hooks/…  ->  {status} {body}");
    let sent = service.sqs.sent();
    assert_eq!(sent.len(), 1);
    println!("job: {}", sent[0].body);
    let job: Value = serde_json::from_str(&sent[0].body).unwrap();
    assert_eq!(job["hints"], json!([commit]));
    assert!(service.versions().is_empty(), "nothing is delivered yet");

    let invocations = service.drain().await;
    assert!(invocations.iter().all(is_clean), "{invocations:?}");
    let version = service.versions().remove(0);
    assert_eq!(version.metadata["git-commit"], commit);
    assert_zip_equals(
        &version.bytes.unwrap(),
        &expected_entries(&service.repository, &commit),
        &commit,
    );

    // One line each, which tells of the request that it came from, and counts it.
    let received = lines(&service.receive);
    let line = &received[0];
    println!("receive: {line}");
    assert_eq!((received.len(), outcome(line)), (1, "accepted"));
    assert_eq!(
        (&line["level"], &line["status"]),
        (&json!("INFO"), &json!(202))
    );
    assert_eq!(line["routes"], json!([MAIN]));
    assert_eq!(
        (&line["Requests"], &line["function"]),
        (&json!(1), &json!("receive"))
    );
    let delivered = lines(&service.deliver);
    let line = &delivered[0];
    println!("deliver: {line}");
    assert_eq!((delivered.len(), outcome(line)), (1, "published"));
    assert_eq!(line["request_id"], received[0]["request_id"]);
    assert_eq!(line["request_id"], job["request_id"]);
    assert_eq!(line["job"], "acknowledged");
    assert_eq!(line["version_id"], version.version_id);
    assert_eq!(
        line["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
        json!([["function", "outcome"]])
    );
    for stage in ["head", "tip", "fetch", "archive", "put", "verify"] {
        assert!(line["stages_ms"][stage].is_u64(), "{stage}: {line}");
    }
    for log in [service.receive.output(), service.deliver.output()] {
        assert!(!log.contains("marker"), "something of the body: {log}");
        assert!(
            !log.contains(TOKEN) && !log.contains(LOGIN.1),
            "a secret: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_envelope_of_either_webhook_is_taken() {
    let service = Service::start().await;
    let unknown = format!(
        r#"{{"ignored":"no space of the table is https://example.backlog.com/git; it has {}"}}"#,
        service.git.space_url()
    );
    for file in [
        "apigw-v1-git-push",
        "apigw-v1-project-push",
        "apigw-v2-git-push",
        "apigw-v2-project-push",
    ] {
        let path = format!("{}/events/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let event = fs::read_to_string(path).unwrap();
        // The Git webhook names its space.
        let event = event.replace("put-the-webhook-token-here", TOKEN);
        let event: Value = serde_json::from_str(&event).unwrap();
        let (status, body) = answer(&service.receive.invoke(&event).await);
        let expected = if file.contains("git") {
            // Another space than the one of the table.
            (200, &*unknown)
        } else {
            (202, r#"{"accepted":["refs/heads/main"]}"#)
        };
        assert_eq!((status, &*body), expected, "{file}");
    }
    let body = project_push("update", MAIN, &[]);
    // Behind a domain with a base path, and with a slash behind.
    for path in [
        format!("/bridge/hooks/{TOKEN}"),
        format!("/a/hooks/b/hooks/{TOKEN}/"),
        format!("/hooks/{TOKEN}/"),
    ] {
        let event = request("POST", &path, &body);
        assert_eq!(
            answer(&service.receive.invoke(&event).await).0,
            202,
            "{path}"
        );
    }
    // Base64, and the token as a password.
    let mut event = request("POST", "/hooks", &BASE64_STANDARD.encode(body));
    event["isBase64Encoded"] = true.into();
    let login = BASE64_STANDARD.encode(format!("backlog:{TOKEN}"));
    event["headers"]["Authorization"] = format!("Basic {login}").into();
    assert_eq!(answer(&service.receive.invoke(&event).await).0, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_duplicates_make_one_version() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    for _ in 0..100 {
        assert_eq!(service.push(MAIN, &[&commit]).await.0, 202);
    }
    let ids: HashSet<_> = service
        .sqs
        .sent()
        .into_iter()
        .map(|sent| sent.deduplication)
        .collect();
    assert_eq!(ids.len(), 100, "the queue drops none of them");
    let invocations = service.drain().await;
    assert_eq!(invocations.len(), 100);
    assert_eq!(service.commits(), [commit]);
    let outcomes = service.outcomes();
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|line| outcome(line) == wanted)
            .count()
    };
    println!(
        "100 events: {} published, {} already current",
        count("published"),
        count("already_current")
    );
    assert_eq!((count("published"), count("already_current")), (1, 99));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_reverse_order_make_one_version_which_is_the_tip() {
    let service = Service::start().await;
    let commits: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|text| service.repository.commit_on(MAIN, &[("f", (*text).into())]))
        .collect();
    for commit in commits.iter().rev() {
        assert_eq!(service.push(MAIN, &[commit]).await.0, 202);
    }
    let started = Instant::now();
    service.drain().await;
    assert_eq!(service.commits(), commits[2..]);
    // The first of them that names an older commit makes the bridge look twice more. By then the next is so old that a
    // server that lagged would have caught up.
    let took = started.elapsed();
    let looks = service
        .git
        .ops()
        .into_iter()
        .filter(|op| *op == GitOp::LsRefs);
    let looks = looks.count();
    println!("3 events in reverse order, one version, in {took:?}, {looks} looks at the tip");
    assert!(looks <= 12, "{looks}");
    // It waits for eleven seconds.
    assert!(took < Duration::from_secs(14), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_faster_than_its_deliveries_gives_way_and_goes_on() {
    let service = Service::start().await;
    let first = service.repository.commit_on(MAIN, &[("a", "0".into())]);
    service.push(MAIN, &[&first]).await;
    for n in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let repository = service.repository.clone();
        service.s3.before(S3Op::PutObject, move || async move {
            repository.commit_on(MAIN, &[("a", n.into())]);
        });
    }
    let messages = service.sqs.receive(1);
    let invocation = service.deliver.invoke(&service.sqs.event(&messages)).await;
    assert!(is_clean(&invocation), "{invocation:?}");
    service.sqs.delete(&messages[0]);
    assert_eq!(service.commits().len(), 8);
    assert_eq!(service.sqs.waiting(), 1, "a job that goes on");
    let took = Instant::now();
    service.drain().await;
    assert!(took.elapsed() < Duration::from_secs(5), "nothing rests");
    assert_eq!(
        service.commits()[0],
        service.repository.resolve(MAIN).unwrap()
    );
    let outcomes = service.outcomes();
    let outcomes: Vec<_> = outcomes.iter().map(outcome).collect();
    assert_eq!(outcomes, ["published", "published"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_delivers_what_no_event_told_of() {
    let service = Service::start().await;
    let first = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.sweep().await;
    assert_eq!(service.commits(), [&*first]);
    let second = service.repository.commit_on(MAIN, &[("a", "b".into())]);
    service.sweep().await;
    assert_eq!(service.commits(), [&*second, &*first]);
    service.git.clear_requests();
    service.sweep().await;
    assert_eq!(service.commits().len(), 2, "nothing differs");
    assert_eq!(service.git.ops(), [GitOp::Handshake, GitOp::LsRefs]);
    let outcomes = service.outcomes();
    let drift: Vec<_> = outcomes
        .iter()
        .filter(|line| outcome(line) == "swept")
        .map(|line| line["SweepDrift"].as_u64().unwrap())
        .collect();
    assert_eq!(drift, [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_paused_delivers_nothing_until_it_is_not() {
    let paused = |more| [(MAIN, KEY, more)];
    let service = Service::with(&paused("paused = true"), &[]).await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let answer = json!({"ignored": format!("the route {MAIN} is paused")});
    assert_eq!(service.push(MAIN, &[&commit]).await, (200, answer));
    // A job from before it was paused.
    let job = json!({"route": MAIN, "repository": "APP/web", "ref": MAIN, "hints": [commit]});
    service.sqs.put(&job.to_string(), "a-group");
    service.drain().await;
    let ignored = service.outcomes().pop().unwrap();
    assert_eq!(
        (outcome(&ignored), &ignored["job"]),
        ("ignored", &json!("acknowledged"))
    );
    service.git.clear_requests();
    service.sweep().await;
    assert_eq!(service.versions().len(), 0);
    assert_eq!(service.git.ops(), [], "nobody is asked for what is paused");

    service
        .put_routes(&service.table(&paused("paused = false")))
        .await;
    service.sweep().await;
    assert_eq!(service.commits(), [&*commit]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_a_new_version_makes_one_of_the_same_commit() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let job =
        |again: bool| json!({"route": MAIN, "repository": "APP/web", "ref": MAIN, "again": again});
    for (again, versions) in [(false, 1), (false, 1), (true, 2), (true, 3), (false, 3)] {
        service.sqs.put(&job(again).to_string(), "a-group");
        service.drain().await;
        assert_eq!(service.commits(), vec![commit.clone(); versions], "{again}");
    }
    let outcomes = service.outcomes();
    let repeats = outcomes.iter().filter(|line| line["reason"].is_string());
    assert_eq!(repeats.count(), 2, "each says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_old_branches_of_a_glob_alone_unless_it_is_told_not_to() {
    let branches = [("refs/heads/*", "all/{ref}.zip", "")];
    let service = Service::with(&branches, &[]).await;
    for n in 0..50 {
        let commit = service.repository.commit_on(
            &format!("refs/heads/old-{n}"),
            &[("f", format!("{n}").as_str().into())],
        );
        assert!(!commit.is_empty());
    }
    service.sweep().await;
    assert_eq!(
        service.s3.count(S3Op::PutObject),
        1,
        "the routing table alone"
    );
    println!("50 old branches, sweep = \"existing\": 0 delivered");
    let swept = service.outcomes().pop().unwrap();
    assert_eq!(
        (&swept["SweepUndelivered"], &swept["SweepDrift"]),
        (&json!(50), &json!(0))
    );

    // One of them was delivered once, and has moved since.
    service.push("refs/heads/old-7", &[]).await;
    service.drain().await;
    let moved = service
        .repository
        .commit_on("refs/heads/old-7", &[("f", "x".into())]);
    service.sweep().await;
    let newest = service.s3.newest("sources", "all/old-7.zip").unwrap();
    assert_eq!(newest.metadata["git-commit"], moved);
    assert_eq!(service.s3.count(S3Op::PutObject), 3);

    // A function that reads the table for the first time: this one looks for a new table once a minute.
    let all = [("refs/heads/*", "all/{ref}.zip", "sweep = \"all\"")];
    service.put_routes(&service.table(&all)).await;
    service.deliver.kill();
    service.sweep().await;
    for n in 0..50 {
        let key = format!("all/old-{n}.zip");
        assert!(service.s3.newest("sources", &key).is_some(), "{key}");
    }
    println!("50 old branches, sweep = \"all\": 50 delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_means_that_the_queue_has_it() {
    let service = Service::start().await;
    service.sqs.fail_always(SqsOp::SendMessage, 503);
    let (status, body) = service.push(MAIN, &[]).await;
    println!("queue down: {status} {body}");
    assert_eq!(status, 503);
    let line = lines(&service.receive).pop().unwrap();
    assert_eq!(
        (outcome(&line), &line["error_kind"]),
        ("failed", &json!("queue"))
    );
    assert_eq!(line["TransientFailures"], 1);
    service.sqs.heal();
    assert_eq!(service.push(MAIN, &[]).await.0, 202);
    assert_eq!(service.sqs.sent().len(), 1);
    assert_eq!(service.receive.starts(), 1, "the same process");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_token_cannot_be_read_no_answer_shows_where_the_hook_is() {
    let service = Service::start().await;
    service.secrets.fail_always(500);
    let push = project_push("update", MAIN, &[]);
    let mut answers = HashSet::new();
    for (method, path) in [
        ("POST", format!("/hooks/{TOKEN}")),
        ("POST", "/hooks/another-token-of-this-length".to_owned()),
        ("POST", "/hooks".into()),
        ("POST", "/".into()),
        ("GET", "/favicon.ico".into()),
    ] {
        let event = request(method, &path, &push);
        let result = service.receive.invoke(&event).await.result.unwrap();
        assert_eq!(result["statusCode"], 503, "{method} {path}");
        answers.insert(result.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_know_the_token_finds_nothing() {
    let service = Service::start().await;
    let push = project_push("update", MAIN, &[]);
    let mut answers = HashSet::new();
    let short = &TOKEN[..TOKEN.len() - 1];
    for (case, method, path) in [
        (
            "a wrong token",
            "POST",
            "/hooks/another-token-of-this-length".into(),
        ),
        ("a token without its end", "POST", format!("/hooks/{short}")),
        (
            "a token with more behind it",
            "POST",
            format!("/hooks/{TOKEN}1"),
        ),
        (
            "a token and two slashes",
            "POST",
            format!("/hooks/{TOKEN}//"),
        ),
        ("something behind it", "POST", format!("/hooks/{TOKEN}/x")),
        ("another name", "POST", format!("/myhooks/x{TOKEN}")),
        ("no token", "POST", "/hooks".into()),
        ("an empty token", "POST", "/hooks/".into()),
        ("an unknown path", "POST", "/".into()),
        (
            "a path that begins the same",
            "POST",
            format!("/hooks{TOKEN}"),
        ),
        ("another method", "GET", format!("/hooks/{TOKEN}")),
        ("a test page", "GET", "/favicon.ico".into()),
    ] {
        let event = request(method, &path, &push);
        let result = service.receive.invoke(&event).await.result.unwrap();
        assert_eq!(result["statusCode"], 404, "{case}");
        answers.insert(result.to_string());
    }
    let long = request(
        "POST",
        "/hooks/another-token-of-this-length",
        &"x".repeat(MAX_BODY_BYTES + 1),
    );
    let mut nonsense = request("POST", "/hooks/another-token-of-this-length", "%%%");
    nonsense["isBase64Encoded"] = true.into();
    for event in [
        json!(null),
        json!([1]),
        json!({"Records": []}),
        long,
        nonsense,
    ] {
        answers.insert(
            service
                .receive
                .invoke(&event)
                .await
                .result
                .unwrap()
                .to_string(),
        );
    }
    println!("{answers:?}");
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(service.sqs.count(SqsOp::SendMessage), 0);
    assert!(
        !service.receive.output().contains(short),
        "the log names no path"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_decides_where_a_list_is_set() {
    let vars = [("ALLOWED_IPS", "203.0.113.0/28, 2001:db8::/64")];
    let service = Service::with(&[(MAIN, KEY, "")], &vars).await;
    let body = project_push("update", MAIN, &[]);
    for (ip, forwarded, status) in [
        ("203.0.113.11", "", 202),
        ("2001:db8::7", "", 202),
        ("203.0.113.16", "203.0.113.11", 404),
        ("nonsense", "203.0.113.11", 404),
    ] {
        let mut event = request("POST", &format!("/hooks/{TOKEN}"), &body);
        event["requestContext"]["http"]["sourceIp"] = ip.into();
        event["headers"]["x-forwarded-for"] = forwarded.into();
        event["headers"]["forwarded"] = format!("for={forwarded}").into();
        assert_eq!(
            answer(&service.receive.invoke(&event).await).0,
            status,
            "{ip}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_rotates_without_a_refused_event() {
    let service = Service::start().await;
    let post = async |token: &str| {
        let body = project_push("update", MAIN, &[]);
        service.post(&format!("/hooks/{token}"), &body).await.0
    };
    let (second, third) = (
        "the-second-webhook-token-of-all",
        "the-third-webhook-token-of-all",
    );
    assert_eq!(post(TOKEN).await, 202);
    assert_eq!(post(second).await, 404);
    service.secrets.put(TOKEN_SECRET, second);
    assert_eq!(post(TOKEN).await, 202, "the previous one");
    // Somebody who guesses does not make the secret be read each time; the wait is what that costs.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(post(second).await, 202, "the current one");
    assert_eq!(post(TOKEN).await, 202, "the previous one still");
    service.secrets.put(TOKEN_SECRET, third);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(post(third).await, 202);
    assert_eq!(post(TOKEN).await, 404, "two rotations ago");

    let (before, started) = (service.secrets.count(TOKEN_SECRET), Instant::now());
    for n in 0..50 {
        assert_eq!(post(&format!("a-guess-of-the-token-number-{n}")).await, 404);
    }
    let reads = service.secrets.count(TOKEN_SECRET) - before;
    println!(
        "50 guesses in {:?}: {reads} requests for a version of the secret",
        started.elapsed()
    );
    let rounds = 1 + usize::try_from(started.elapsed().as_secs() / 2).unwrap();
    assert!(reads <= 2 * rounds, "{reads}");

    // With Secrets Manager down, those who are known come in.
    service.secrets.fail_always(500);
    assert_eq!(post(third).await, 202);
    service.receive.kill();
    assert_eq!(post(third).await, 503, "a new process knows nobody");
    service.secrets.heal();
    assert_eq!(post(third).await, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_to_nothing_is_said_and_not_sent() {
    let service = Service::start().await;
    let at = format!("/hooks/{TOKEN}");
    let other = project_push("update", "refs/heads/other", &[]);
    let gone = project_push("delete", MAIN, &[]);
    let event = |name: &str| {
        let path = format!("{}/events/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).unwrap()
    };
    let long = format!(
        "{{\"type\":12,\"content\":\"{}\"}}",
        "x".repeat(MAX_BODY_BYTES)
    );
    for (body, status, said) in [
        (other, 200, "no route matches"),
        (gone, 200, "the ref was deleted"),
        (
            event("project-pull-request.json"),
            200,
            "pull request created (type 18)",
        ),
        (
            event("project-test-delivery-push.json"),
            200,
            "test delivery received: the webhook works",
        ),
        ("{".into(), 400, "malformed JSON at line 1, column 1"),
        (
            r#"{"type":12}"#.into(),
            400,
            "`content`: expected an object, in a push with `repository`",
        ),
        (
            r#"{"action":"opened"}"#.into(),
            400,
            "this is no Backlog webhook: it has neither",
        ),
        (
            "hello".into(),
            400,
            "expected the body of a Backlog webhook",
        ),
        (long, 413, "at most 6291456 are read"),
    ] {
        let (found, answer) = service.post(&at, &body).await;
        let text = answer["ignored"].as_str().or(answer["error"].as_str());
        assert!(
            text.is_some_and(|text| text.contains(said)),
            "{said}: {answer}"
        );
        assert_eq!(found, status, "{said}");
    }
    assert_eq!(service.sqs.count(SqsOp::SendMessage), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_table_follows_its_object_and_the_last_good_one_is_kept() {
    let service = Service::with(&[], &[]).await;
    let (status, body) = service.push(MAIN, &[]).await;
    assert_eq!(
        (status, body),
        (200, json!({"ignored": "no routing table yet"}))
    );

    service.put_routes("[[route]]\nref = 1\n").await;
    assert_eq!(
        service.push(MAIN, &[]).await.0,
        503,
        "invalid, and none before"
    );
    let line = lines(&service.receive).pop().unwrap();
    assert_eq!(line["error_kind"], "routes");
    let message = line["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("s3://sources/config/routes.toml"),
        "{message}"
    );

    service.put_routes(&service.table(&[(MAIN, KEY, "")])).await;
    assert_eq!(service.push(MAIN, &[]).await.0, 202, "mended, at once");
    let reads = service.s3.count(S3Op::GetObject);
    assert_eq!(service.push(MAIN, &[]).await.0, 202);
    assert_eq!(
        service.s3.count(S3Op::GetObject),
        reads + 1,
        "looked at for each event"
    );

    // A job of a route that is no more is acknowledged.
    service
        .put_routes(&service.table(&[("refs/heads/other", KEY, "")]))
        .await;
    let invocations = service.drain().await;
    assert!(invocations.iter().all(is_clean));
    let outcomes = service.outcomes();
    assert_eq!(outcomes.len(), 2);
    for line in outcomes {
        assert_eq!(
            (outcome(&line), &line["reason"]),
            ("ignored", &json!("no such route any more"))
        );
    }
    assert!(service.versions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_good_table_takes_is_taken_while_the_newest_is_of_no_use() {
    let service = Service::start().await;
    let other = "refs/heads/other";
    assert_eq!(service.push(other, &[]).await.0, 200);
    service
        .put_routes(&service.table(&[(other, KEY, "")]))
        .await;
    assert_eq!(service.push(other, &[]).await.0, 202, "new, at once");
    service.put_routes("nonsense").await;
    for _ in 0..3 {
        assert_eq!(service.push(other, &[]).await.0, 202, "the last good one");
        assert_eq!(service.push(MAIN, &[]).await.0, 503, "nobody knows");
    }
    service.s3.fail_once(S3Op::GetObject, S3Fault::Hang);
    assert_eq!(service.push(other, &[]).await.0, 202, "while S3 hangs");
    let logged = lines(&service.receive);
    let mut alarms = logged
        .iter()
        .filter(|line| line["RoutingTableInvalid"] == 1);
    let alarm = alarms.next().expect("an alarm");
    assert_eq!(
        (&alarm["level"], &alarm["error_kind"]),
        (&json!("WARN"), &json!("routes"))
    );
    assert_eq!(alarms.count(), 0, "once, not at each look");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_server_that_hangs_or_drips_ends_before_the_deadline() {
    let vars = [("DEADLINE_MARGIN_MS", "1500")];
    let service = Service::with(&[(MAIN, KEY, "")], &vars).await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let process = service.deliver.pid();
    let limit = Duration::from_secs(3);
    for (case, op, fault, stage) in [
        ("hangs at once", GitOp::Handshake, GitFault::Hang, "tip"),
        (
            "drips refs",
            GitOp::LsRefs,
            GitFault::Drip(1, Duration::from_millis(300)),
            "tip",
        ),
        (
            "hangs before the pack",
            GitOp::Fetch,
            GitFault::Hang,
            "fetch",
        ),
        (
            "drips the pack",
            GitOp::Fetch,
            GitFault::Drip(1, Duration::from_millis(300)),
            "fetch",
        ),
    ] {
        service.push(MAIN, &[&commit]).await;
        service.git.fault(op, fault);
        let messages = service.sqs.receive(1);
        let event = service.sqs.event(&messages);
        let invocation = service.deliver.invoke_within(&event, limit).await;
        let took = invocation.took;
        let failed = json!({"batchItemFailures": [{"itemIdentifier": messages[0].id}]});
        assert_eq!(invocation.result, Ok(failed), "{case}");
        assert!(
            took >= Duration::from_millis(1400) && took < limit,
            "{case}: {took:?}"
        );
        let line = service.outcomes().pop().unwrap();
        println!("{case}: after {took:?} of {limit:?}: {}", line["error"]);
        assert_eq!(line["error_kind"], "deadline", "{case}");
        let message = line["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("out of time in stage {stage};")),
            "{case}: {message}"
        );
        assert_eq!(line["job"], "back_in_queue", "{case}");
        service.git.clear_faults();
        for message in &messages {
            service.sqs.delete(message);
        }
    }
    service.push(MAIN, &[&commit]).await;
    service.drain().await;
    assert_eq!(service.commits(), [commit]);
    assert_eq!(service.deliver.pid(), process, "the same process");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_that_hangs_ends_before_the_deadline_too() {
    let vars = [("DEADLINE_MARGIN_MS", "1500")];
    let service = Service::with(&[(MAIN, KEY, "")], &vars).await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    for (op, stage) in [
        (S3Op::GetObject, "routes"),
        (S3Op::HeadObject, "head"),
        (S3Op::PutObject, "put"),
    ] {
        service.push(MAIN, &[&commit]).await;
        service.s3.fail_once(op, S3Fault::Hang);
        let messages = service.sqs.receive(1);
        let event = service.sqs.event(&messages);
        let limit = Duration::from_secs(4);
        let invocation = service.deliver.invoke_within(&event, limit).await;
        assert!(invocation.took < limit, "{stage}: {:?}", invocation.took);
        let line = service.outcomes().pop().unwrap();
        let message = line["error"]["message"].as_str().unwrap();
        let expected = format!("out of time in stage {stage};");
        assert!(message.starts_with(&expected), "{message}");
        for message in &messages {
            service.sqs.delete(message);
        }
    }
    assert_eq!(service.deliver.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_just_started_waits_for_a_secret_and_for_s3_at_once() {
    let vars = [("DEADLINE_MARGIN_MS", "1000")];
    let service = Service::with(&[(MAIN, KEY, "")], &vars).await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let limit = Duration::from_secs(3);

    service.secrets.fault_once(SqsFault::Hang);
    let body = project_push("update", MAIN, &[&commit]);
    let event = request("POST", &format!("/hooks/{TOKEN}"), &body);
    let invocation = service.receive.invoke_within(&event, limit).await;
    assert_eq!(answer(&invocation).0, 503, "nobody knows the token");
    assert_eq!(service.s3.count(S3Op::GetObject), 1, "the table was read");
    assert_eq!(service.push(MAIN, &[&commit]).await.0, 202);
    assert_eq!(service.s3.count(S3Op::GetObject), 2, "and not twice");
    let wrong = request("POST", "/hooks/another-token-of-no-use", &body);
    assert_eq!(answer(&service.receive.invoke(&wrong).await).0, 404);
    assert_eq!(
        service.s3.count(S3Op::GetObject),
        2,
        "nothing for strangers"
    );

    service.secrets.fault_once(SqsFault::Hang);
    let event = service.sqs.event(&service.sqs.receive(1));
    let invocation = service.deliver.invoke_within(&event, limit).await;
    assert!(invocation.took < limit, "{:?}", invocation.took);
    assert_eq!(
        service.s3.count(S3Op::HeadObject),
        1,
        "the object was looked at"
    );
    assert_eq!(service.git.requests().len(), 0, "without a login");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_hangs_keeps_no_outcome_from_the_log() {
    let vars = [("DEADLINE_MARGIN_MS", "5000"), ("MAX_ENTRIES", "1")];
    let service = Service::with(&[(MAIN, KEY, "")], &vars).await;
    let files = [("a", "a".into()), ("b", "b".into())];
    let commit = service.repository.commit_on(MAIN, &files);
    service.push(MAIN, &[&commit]).await;
    for op in [SqsOp::GetQueueAttributes, SqsOp::ChangeMessageVisibility] {
        service.sqs.fault_once(op, SqsFault::Hang);
    }
    let messages = service.sqs.receive(1);
    let event = service.sqs.event(&messages);
    let limit = Duration::from_secs(8);
    let invocation = service.deliver.invoke_within(&event, limit).await;
    assert!(
        invocation.took < Duration::from_secs(5),
        "{:?}",
        invocation.took
    );
    let result = invocation.result.unwrap();
    assert_eq!(
        result["batchItemFailures"][0]["itemIdentifier"],
        messages[0].id
    );
    let line = service.outcomes().pop().unwrap();
    assert_eq!(
        (&line["error_kind"], &line["job"]),
        (&json!("too_large"), &json!("back_in_queue"))
    );
    assert_eq!(line["queue_error"]["kind"], "deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_leaves_no_time_is_said() {
    let service = Service::start().await;
    let event = service.sqs.event(&[]);
    let limit = Duration::from_secs(3);
    let invocation = service.deliver.invoke_within(&event, limit).await;
    let error = invocation.result.unwrap_err();
    let line = lines(&service.deliver).pop().unwrap();
    assert_eq!(
        (&line["level"], &line["error_kind"]),
        (&json!("ERROR"), &json!("deadline"))
    );
    assert_eq!(error["errorType"], "deadline");
    let message = error["errorMessage"].as_str().unwrap();
    assert!(
        message.contains("DEADLINE_MARGIN_MS takes 5000 of them"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lags_behind_its_own_event_is_waited_for() {
    let service = Service::start().await;
    let first = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.push(MAIN, &[&first]).await;
    service.drain().await;

    // An update: the tip is the old one until it was read twice.
    let second = service.repository.commit_on(MAIN, &[("a", "b".into())]);
    service.repository.set_ref(MAIN, &first);
    let repository = service.upstream.repository("APP/web");
    let tip = second.clone();
    service
        .git
        .before(GitOp::LsRefs, 2, move || repository.set_ref(MAIN, &tip));
    service.push(MAIN, &[&second]).await;
    let invocations = service.drain().await;
    println!(
        "update, lagging: one invocation of {:?}",
        invocations[0].took
    );
    assert_eq!(invocations.len(), 1);
    assert!(invocations[0].took >= Duration::from_secs(2));
    assert_eq!(service.commits(), [&*second, &*first]);

    // A creation: there is no such ref at first, nor an object.
    let created = "refs/heads/created";
    let table = [(MAIN, KEY, ""), (created, "web/created.zip", "")];
    service.put_routes(&service.table(&table)).await;
    service.receive.kill();
    service.deliver.kill();
    let repository = service.upstream.repository("APP/web");
    let tip = second.clone();
    service
        .git
        .before(GitOp::LsRefs, 2, move || repository.set_ref(created, &tip));
    let body = project_push("create", created, &[]);
    assert_eq!(service.post(&format!("/hooks/{TOKEN}"), &body).await.0, 202);
    let invocations = service.drain().await;
    println!(
        "creation, lagging: one invocation of {:?}",
        invocations[0].took
    );
    assert_eq!(invocations.len(), 1);
    let newest = service.s3.newest("sources", "web/created.zip").unwrap();
    assert_eq!(newest.metadata["git-commit"], second);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lags_for_longer_is_healed_by_the_sweep() {
    let service = Service::start().await;
    let first = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.push(MAIN, &[&first]).await;
    service.drain().await;
    let second = service.repository.commit_on(MAIN, &[("a", "b".into())]);
    service.repository.set_ref(MAIN, &first);
    service.push(MAIN, &[&second]).await;
    let started = Instant::now();
    let invocations = service.drain().await;
    // Two seconds here, and the rest by a later look, which blocks nothing.
    assert!(is_clean(&invocations[0]), "the branch is not blocked");
    assert!(invocations[0].took < Duration::from_secs(3));
    assert!(started.elapsed() >= Duration::from_secs(7));
    assert_eq!(service.commits(), [&*first]);
    service.repository.set_ref(MAIN, &second);
    service.sweep().await;
    assert_eq!(service.commits(), [&*second, &*first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_is_said_once_and_kept_for_a_redrive() {
    let service = Service::with(&[(MAIN, KEY, "")], &[("MAX_ENTRIES", "1")]).await;
    let files = [("a", "a".into()), ("b", "b".into())];
    let commit = service.repository.commit_on(MAIN, &files);
    service.push(MAIN, &[&commit]).await;
    let job = service.sqs.sent()[0].body.clone();
    let invocations = service.drain().await;
    assert_eq!(invocations.len(), 1, "it is not tried again");
    assert!(is_clean(&invocations[0]), "it is acknowledged");
    let dead = service.sqs.dead_letters();
    assert_eq!(dead, [serde_json::from_str::<Value>(&job).unwrap()]);
    let outcomes = service.outcomes();
    assert_eq!(outcomes.len(), 1);
    let line = &outcomes[0];
    assert_eq!(
        (outcome(line), &line["error_kind"]),
        ("failed", &json!("too_large"))
    );
    assert_eq!(
        (&line["level"], &line["job"]),
        (&json!("ERROR"), &json!("in_dead_letter_queue"))
    );
    assert_eq!(line["PermanentFailures"], 1);
    let directives = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    assert_eq!(
        directives[1]["Dimensions"],
        json!([["function"], ["function", "error_kind"]])
    );

    // What the sweep finds, it finds again.
    service.sweep().await;
    assert_eq!(service.sqs.dead_letters().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_that_a_route_names_and_that_is_not_there_is_missed() {
    let service = Service::start().await;
    service
        .repository
        .commit_on("refs/heads/other", &[("a", "a".into())]);
    for (tries, expected, job) in [
        ("2", "failed", "back_in_queue"),
        ("3", "failed", "in_dead_letter_queue"),
    ] {
        // Without commits, as of a branch that is new; it is waited for within the invocation too.
        service.push(MAIN, &[]).await;
        let messages = service.sqs.receive(1);
        let mut event = service.sqs.event(&messages);
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] = tries.into();
        service.deliver.invoke(&event).await.result.unwrap();
        let line = service.outcomes().pop().unwrap();
        assert_eq!(
            (outcome(&line), &line["job"]),
            (expected, &json!(job)),
            "{tries}"
        );
        assert_eq!(
            line.get("PermanentFailures").is_some(),
            job == "in_dead_letter_queue"
        );
        service.sqs.delete(&messages[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_of_a_glob_that_is_not_there_is_looked_for_in_the_way_of_nobody() {
    let glob = "refs/heads/release/*";
    let service = Service::with(&[(glob, "{ref}.zip", "")], &[]).await;
    let commit = service
        .repository
        .commit_on("refs/heads/other", &[("a", "a".into())]);
    let (late, never) = ("refs/heads/release/late", "refs/heads/release/never");
    service.push(late, &[&commit]).await;
    let message = service.sqs.receive(1);
    // Handles a message so long after it was sent, and says whether it is acknowledged.
    let handle = async |body: &str, seconds: u64| {
        let mut event = service.sqs.event(&message);
        let sent = SystemTime::now() - Duration::from_secs(seconds);
        let sent = sent.duration_since(UNIX_EPOCH).unwrap().as_millis();
        event["Records"][0]["attributes"]["SentTimestamp"] = sent.to_string().into();
        event["Records"][0]["body"] = body.into();
        is_clean(&service.deliver.invoke(&event).await)
    };
    let sent = || service.sqs.sent().pop().unwrap();
    let mut awaited = Vec::new();
    for name in [late, never] {
        let body = sent()
            .body
            .replace(late, name)
            .replace(",\"recheck\":true", "");
        let started = Instant::now();
        assert!(handle(&body, 0).await);
        // It was not waited for.
        assert!(started.elapsed() < Duration::from_secs(2));
        let line = service.outcomes().pop().unwrap();
        assert_eq!(
            (outcome(&line), &line["job"]),
            ("ignored", &json!("acknowledged"))
        );
        let body: Value = serde_json::from_str(&sent().body).unwrap();
        assert_eq!(
            (&body["ref"], &body["recheck"]),
            (&json!(name), &json!(true))
        );
        awaited.push(sent());
    }
    // What one repository has of them is one group, and not that of a push.
    assert_eq!(awaited[0].group, awaited[1].group);
    assert_ne!(awaited[0].group, service.sqs.sent()[0].group);

    let [late_body, never_body] = [0, 1].map(|n: usize| awaited[n].body.clone());
    for seconds in [0, 2] {
        assert!(!handle(&late_body, seconds).await, "{seconds}");
    }
    service.repository.set_ref(late, &commit);
    assert!(handle(&late_body, 7).await);
    assert_eq!(service.outcomes().len(), 2, "a look is no outcome");
    let found = sent();
    assert!(!found.body.contains("recheck"), "{}", found.body);
    assert_eq!(found.group, service.sqs.sent()[0].group);
    assert!(handle(&found.body, 0).await);
    assert_eq!(outcome(&service.outcomes().pop().unwrap()), "published");
    assert!(service.s3.newest("sources", "release/late.zip").is_some());

    assert!(!handle(&never_body, 69).await);
    // The Git server cannot be asked: the last look is not lost.
    service
        .git
        .fault_once(GitOp::Handshake, GitFault::Status(503));
    assert!(!handle(&never_body, 70).await);
    assert_eq!(outcome(&service.outcomes().pop().unwrap()), "failed");
    assert!(handle(&never_body, 70).await);
    let line = service.outcomes().pop().unwrap();
    assert_eq!(
        (outcome(&line), &line["ref"]),
        ("branch_gone", &json!(never))
    );
    // Of another one that came before that, it is known by now.
    let asked = service.git.ops().len();
    let other = never_body.replace("never", "neither");
    assert!(handle(&other, 600).await);
    assert_eq!(outcome(&service.outcomes().pop().unwrap()), "branch_gone");
    let push = sent().body.replace("late", "nor");
    assert!(handle(&push, 500).await);
    assert_eq!(outcome(&service.outcomes().pop().unwrap()), "ignored");
    assert_eq!(service.git.ops().len(), asked);
    assert!(service.sqs.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_only_the_other_function_knows_yet_is_looked_up() {
    let service = Service::start().await;
    service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.sweep().await;
    // The table that `deliver` has is a moment old, and looked at once a minute.
    let glob = ("refs/heads/release/*", "{ref}.zip", "");
    service
        .put_routes(&service.table(&[(MAIN, KEY, ""), glob]))
        .await;
    let release = "refs/heads/release/1";
    let commit = service.repository.commit_on(release, &[("b", "b".into())]);
    let (status, _) = service.push(release, &[&commit]).await;
    assert_eq!(status, 202);
    service.drain().await;
    let newest = service.s3.newest("sources", "release/1.zip").unwrap();
    assert_eq!(newest.metadata["git-commit"], commit);
    assert_eq!(service.deliver.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotated_tag_is_delivered_without_waiting() {
    let tag = "refs/tags/v1";
    let service = Service::with(&[(tag, "v1.zip", "")], &[]).await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let object = service.repository.annotated_tag(tag, &commit);
    assert_ne!(object, commit);
    service.push(tag, &[&object]).await;
    let invocations = service.drain().await;
    assert!(
        invocations[0].took < Duration::from_secs(2),
        "{invocations:?}"
    );
    let newest = service.s3.newest("sources", "v1.zip").unwrap();
    assert_eq!(newest.metadata["git-commit"], commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sweep_finds_and_cannot_deliver_is_counted_and_not_kept() {
    let service = Service::with(&[(MAIN, KEY, "")], &[("MAX_ENTRIES", "1")]).await;
    service
        .repository
        .commit_on(MAIN, &[("a", "a".into()), ("b", "b".into())]);
    let invocations = service.sweep().await;
    assert!(invocations.iter().all(is_clean));
    let line = service.outcomes().pop().unwrap();
    assert_eq!(line["error_kind"], "too_large");
    assert_eq!(
        (&line["job"], &line["PermanentFailures"]),
        (&json!("acknowledged"), &json!(1))
    );
    assert!(service.sqs.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_job_is_kept_for_people() {
    let service = Service::start().await;
    service.sqs.put("what is this?", "g");
    service.drain().await;
    assert_eq!(service.sqs.dead_letters(), [json!("what is this?")]);
    assert_eq!(kinds(&service), ["job"]);
    // Not an event of SQS at all.
    let invocation = service.deliver.invoke(&json!({"hello": 1})).await;
    assert_eq!(invocation.result.unwrap_err()["errorType"], "job");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_could_not_be_kept() {
    let service = Service::with(&[(MAIN, KEY, "")], &[("MAX_ENTRIES", "1")]).await;
    let files = [("a", "a".into()), ("b", "b".into())];
    let commit = service.repository.commit_on(MAIN, &files);
    service.push(MAIN, &[&commit]).await;
    service.sqs.fail_always(SqsOp::GetQueueUrl, 400);
    let messages = service.sqs.receive(1);
    let event = service.sqs.event(&messages);
    let result = service.deliver.invoke(&event).await.result.unwrap();
    assert_eq!(
        result["batchItemFailures"][0]["itemIdentifier"],
        messages[0].id
    );
    let line = service.outcomes().pop().unwrap();
    assert_eq!(line["job"], "back_in_queue");
    // Refused; or on a busy machine, late.
    assert!(line["queue_error"].is_object(), "{line}");
    service.sqs.heal();
    let result = service.deliver.invoke(&event).await.result.unwrap();
    assert_eq!(result, json!({"batchItemFailures": []}));
    assert_eq!(service.sqs.dead_letters().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_comes_again_soon() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.push(MAIN, &[&commit]).await;
    service.git.fault(GitOp::Handshake, GitFault::Status(503));
    let messages = service.sqs.receive(1);
    let event = service.sqs.event(&messages);
    let result = service.deliver.invoke(&event).await.result.unwrap();
    assert_eq!(
        result["batchItemFailures"][0]["itemIdentifier"],
        messages[0].id
    );
    service.git.clear_faults();
    let started = Instant::now();
    service.drain().await;
    println!("tried again after {:?}", started.elapsed());
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "not the minute of the queue"
    );
    assert_eq!(service.commits(), [commit]);
    assert!(service.sqs.dead_letters().is_empty());
    let outcomes = service.outcomes();
    assert_eq!(outcomes[0]["TransientFailures"], 1);
    assert_eq!(outcomes[1]["tries"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_git_server_keeps_waiting_is_tried_by_one_for_all() {
    let refs: Vec<_> = (0..5).map(|n| format!("refs/heads/b{n}")).collect();
    let keys: Vec<_> = (0..5).map(|n| format!("web/b{n}.zip")).collect();
    let routes = refs.iter().zip(&keys);
    let routes: Vec<_> = routes.map(|(name, key)| (&**name, &**key, "")).collect();
    let service = Service::with(&routes, &[]).await;
    for name in &refs {
        let commit = service
            .repository
            .commit_on(name, &[("a", name.as_str().into())]);
        service.push(name, &[&commit]).await;
    }
    service
        .git
        .fault(GitOp::Handshake, GitFault::Delay(Duration::from_secs(4)));
    let well_again = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        service.git.clear_faults();
    };
    let started = Instant::now();
    let (invocations, ()) = tokio::join!(service.drain(), well_again);
    // All of them are in the first batch.
    assert!(is_clean(&invocations[0]), "{invocations:?}");
    let mut outcomes = service.outcomes();
    let delivered = outcomes.split_off(5);
    for (nth, line) in outcomes.iter().enumerate() {
        println!("{} {}", line["duration_ms"], line["error"]["message"]);
        assert_eq!(
            (&line["error_kind"], &line["job"]),
            (&json!("unreachable"), &json!("back_in_queue"))
        );
        let waited = line["duration_ms"].as_u64().unwrap();
        assert!(
            if nth == 0 {
                waited >= 2_000
            } else {
                waited < 1_000
            },
            "{line}"
        );
    }
    println!("delivered after {:?}", started.elapsed());
    let published = |line: &Value| outcome(line) == "published";
    assert!(
        delivered.len() == 5 && delivered.iter().all(published),
        "{delivered:#?}"
    );
    // One conversation that gave nothing, and one that showed that the server is well again.
    let group = service.sqs.sent().pop().unwrap().group;
    let rests: Vec<_> = service
        .sqs
        .sent()
        .into_iter()
        .filter(|sent| sent.group == group)
        .collect();
    assert_eq!(rests.len(), 5, "{rests:?}");
    assert!(service.sqs.dead_letters().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stops_at_its_first_failure_and_others_go_on() {
    let other = "refs/heads/other";
    let routes = [(MAIN, KEY, ""), (other, "web/other.zip", "")];
    let service = Service::with(&routes, &[]).await;
    service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let tip = service.repository.commit_on(other, &[("b", "b".into())]);
    service.push(MAIN, &[]).await;
    service.push(MAIN, &[]).await;
    service.push(other, &[]).await;
    // The SDK asks three times.
    for _ in 0..3 {
        service.s3.fail_once(S3Op::HeadObject, S3Fault::Status(500));
    }
    let messages = service.sqs.receive(10);
    assert_eq!(messages.len(), 3);
    let result = service.deliver.invoke(&service.sqs.event(&messages)).await;
    let result = result.result.unwrap();
    let failed: Vec<_> = result["batchItemFailures"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    let main: Vec<_> = messages
        .iter()
        .filter(|message| message.body.contains(MAIN))
        .map(|message| json!({"itemIdentifier": message.id}))
        .collect();
    assert_eq!(failed, main.iter().collect::<Vec<_>>());
    assert_eq!(
        service
            .s3
            .newest("sources", "web/other.zip")
            .unwrap()
            .metadata["git-commit"],
        tip
    );
    assert!(service.versions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_read_again_once_and_then_the_server_is_left_alone() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let login = |password: &str| json!({"username": LOGIN.0, "password": password}).to_string();

    // The password was changed: in the secret already, not yet in this process.
    service.secrets.put(GIT_SECRET, &login("the old one"));
    service.push(MAIN, &[&commit]).await;
    service.drain().await;
    assert_eq!(kinds(&service), ["auth_failed"]);
    assert_eq!(service.secrets.count(GIT_SECRET), 2, "read again once");
    let asked = service.git.requests().len();
    assert_eq!(service.sqs.dead_letters().len(), 1);

    // Each event more is told without a word to the server, which might lock the account; and it comes again.
    service.push(MAIN, &[&commit]).await;
    let messages = service.sqs.receive(1);
    let invocation = service.deliver.invoke(&service.sqs.event(&messages)).await;
    let failures = &invocation.result.unwrap()["batchItemFailures"];
    assert_eq!(failures.as_array().unwrap().len(), 1);
    assert_eq!(kinds(&service), ["auth_failed"; 2]);
    assert_eq!(service.git.requests().len(), asked);
    assert_eq!(service.sqs.dead_letters().len(), 1);

    // Somebody mends it.
    service.secrets.put(GIT_SECRET, &login(LOGIN.1));
    service.push(MAIN, &[&commit]).await;
    service.drain().await;
    assert_eq!(service.commits(), [&*commit]);

    assert!(!service.deliver.output().contains(LOGIN.1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_while_it_is_used_fails_nothing() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    let login = |password: &str| json!({"username": LOGIN.0, "password": password}).to_string();
    service.secrets.put(GIT_SECRET, &login("the old one"));
    service.push(MAIN, &[&commit]).await;
    let rotate = async {
        while service.secrets.count(GIT_SECRET) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        service.secrets.put(GIT_SECRET, &login(LOGIN.1));
    };
    tokio::join!(service.drain(), rotate);
    assert_eq!(service.commits(), [commit]);
    assert_eq!(service.secrets.count(GIT_SECRET), 2);
    let outcomes = service.outcomes();
    assert_eq!((outcomes.len(), outcome(&outcomes[0])), (1, "published"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_loses_nothing() {
    let service = Service::start().await;
    let commit = service.repository.commit_on(MAIN, &[("a", "a".into())]);
    service.push(MAIN, &[&commit]).await;
    service.git.fault(GitOp::Fetch, GitFault::Hang);
    let messages = service.sqs.receive(1);
    let event = service.sqs.event(&messages);
    let kill = async {
        while !service.git.ops().contains(&GitOp::Fetch) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.deliver.kill();
    };
    let (invocation, ()) = tokio::join!(service.deliver.invoke(&event), kill);
    assert_eq!(
        invocation.result.unwrap_err()["errorType"],
        "Runtime.ExitError"
    );
    service.git.clear_faults();
    // It comes again once its visibility timeout is over; here, at once.
    assert!(is_clean(&service.deliver.invoke(&event).await));
    assert_eq!(service.commits(), [commit]);
    assert_eq!(service.deliver.starts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_configured_wrongly_says_everything_that_is_wrong() {
    for (program, expected) in [
        (
            env!("CARGO_BIN_EXE_receive"),
            "cannot start: ROUTES is not set\nQUEUE_URL is not set\nWEBHOOK_TOKEN is not set",
        ),
        (
            env!("CARGO_BIN_EXE_deliver"),
            "cannot start: SOURCE_BUCKET is not set\nROUTES is not set\nQUEUE_URL is not set",
        ),
    ] {
        let lambda = Lambda::start(program, &[], Duration::from_secs(5)).await;
        assert_eq!(lines(&lambda)[0]["message"], expected);
        let error = lambda.invoke(&json!({})).await.result.unwrap_err();
        assert_eq!(error["errorType"], "Runtime.ExitError");
    }
}
