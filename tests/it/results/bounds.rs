//! What a look costs, how long it takes, and how far what goes wrong in one place reaches.

use super::*;

const BRANCHES: &str = r#"
[[route]]
name = "branches"
repository = "APP/web"
ref = "refs/heads/feature/*"
object = "web/{ref}.zip"
pipeline = "web-branches"
"#;

impl World {
    /// A branch with an open request of this number, whose build began.
    async fn branch(&self, number: u8) {
        let name = format!("feature/{number}");
        self.backlog.pull(number.into(), &name, "main");
        let (key, ref_name) = (format!("web/{name}.zip"), format!("refs/heads/{name}"));
        self.begin("web-branches", &key, &ref_name, number).await;
    }

    /// How many requests were made since the last question: those that only read, and those that write.
    fn requests(&self) -> (usize, usize) {
        let all = self.backlog.requests();
        let reads = all.iter().filter(|request| request.method == "GET").count();
        self.backlog.clear_requests();
        (reads, all.len() - reads)
    }
}

fn results(lines: &[Value]) -> Vec<(&str, &str)> {
    let short = lines.iter().map(|line| {
        let pipeline = line["pipeline"].as_str().unwrap();
        (pipeline, line["result"].as_str().unwrap())
    });
    short.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_takes_long_goes_on_with_another_message_where_it_stopped() {
    const LONG: Duration = Duration::from_secs(24);
    const END: Duration = Duration::from_secs(20);
    let mut world = World::new("results = \"pull_request\"", &(BRANCHES.to_owned() + MAIN)).await;
    world.function = Lambda::start(env!("CARGO_BIN_EXE_results"), &world.vars, LONG).await;
    for number in 1..=4 {
        world.branch(number).await;
    }
    world.backlog.pull(9, "main", "production");
    world.begin_main(9).await;
    // So long does it take to list the comments of one request.
    let comments = "GET projects/APP/git/repositories/web/pullRequests/";
    world
        .backlog
        .fault(comments, 100, Fault::Late(Duration::from_secs(5)));
    let mut looks = Vec::new();
    let mut body = r#"{"look":true}"#.to_owned();
    loop {
        let began = Instant::now();
        let lines = world.invoke(&body, 1).await;
        assert!(began.elapsed() < END, "{lines:?}");
        assert!(
            lines
                .iter()
                .all(|line| line["failures"] == json!([]) && line.get("error").is_none()),
            "{lines:?}"
        );
        looks.push(lines);
        let sent = world.sqs.sent();
        let Some(next) = sent.get(looks.len() - 1) else {
            break;
        };
        assert_eq!(next.group, GROUP);
        body.clone_from(&next.body);
    }
    assert!(looks.len() > 1, "{looks:?}");
    for number in [1, 2, 3, 4, 9] {
        assert_eq!(world.texts(number).len(), 1, "{number}: {looks:?}");
    }
    let comments = world.backlog.writes();
    assert_eq!(comments.len(), 5, "nothing was looked at again: {looks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_in_one_place_stops_nothing_else() {
    let of_space = |space: &str| {
        let header = format!("[[route]]\nspace = \"{space}\"\n");
        format!("{BRANCHES}{MAIN}").replace("[[route]]\n", &header)
    };
    let mut world = World::new("results = \"pull_request\"", &(BRANCHES.to_owned() + MAIN)).await;
    world.branch(1).await;
    world.branch(2).await;
    world.backlog.pull(9, "main", "production");
    world.begin_main(9).await;
    // One object may not be read: that of branch 2, whose run is the newest.
    world.s3.fail_once(Op::HeadObject, S3Fault::Status(403));
    let lines = world.schedule().await;
    assert_eq!(
        results(&lines),
        [("web-branches", "failed"), ("web-main", "told")]
    );
    assert!(
        lines[0]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("web/feature/2.zip"),
        "{}",
        lines[0]
    );
    let told = |numbers: &[i64]| -> Vec<usize> {
        numbers
            .iter()
            .map(|number| world.texts(*number).len())
            .collect()
    };
    assert_eq!(told(&[1, 2, 9]), [1, 0, 1]);
    // Nobody may list the pipelines, and only a template needs the list.
    world.aws.denies("ListPipelines");
    let more = "[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/t/*\"\nobject = \"t/{ref}.zip\"\npipeline = \"t-{ref}\"\n";
    world
        .store(&format!(
            "[[space]]\nurl = \"{}\"\napi_key = \"secret:{API_SECRET}\"\nresults = \"pull_request\"\n{BRANCHES}{MAIN}{more}",
            world.backlog.space_url()
        ))
        .await;
    world.restart().await;
    let lines = world.schedule().await;
    assert_eq!(
        results(&lines),
        [
            ("web-branches", "told"),
            ("web-main", "unchanged"),
            ("", "failed")
        ],
        "{lines:?}"
    );
    // Two spaces, and the key of the first is refused.
    let other = TestBacklog::start(&world.ca, &["APP"]);
    world
        .secrets
        .put("other/api", &json!({"api_key": BARE_KEY}).to_string());
    world
        .store(&format!(
            "[[space]]\nname = \"a\"\nurl = \"{}\"\napi_key = \"secret:other/api\"\nresults = \"pull_request\"\n\
             [[space]]\nname = \"b\"\nurl = \"{}\"\napi_key = \"secret:{API_SECRET}\"\nresults = \"pull_request\"\n{}{}",
            other.space_url(),
            world.backlog.space_url(),
            of_space("b"),
            of_space("a")
                .replace("\"branches\"", "\"branches-a\"")
                .replace("\"web-main\"\nrepository", "\"web-main-a\"\nrepository")
                .replace("object = \"web/", "object = \"a/web/"),
        ))
        .await;
    world.restart().await;
    world.backlog.pull(10, "main", "next");
    let opened = json!({"repository": "APP/web", "pull_request": 10}).to_string();
    let lines = world.invoke(&opened, 1).await;
    assert_eq!(world.texts(10).len(), 1, "{lines:?}");
    assert!(
        lines.iter().any(|line| line["result"] == "failed"
            && line["error"]["message"]
                .as_str()
                .unwrap()
                .contains("two-factor")),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_that_is_not_there_keeps_no_request_from_its_comment() {
    let space = "results = \"pull_request\"\nresults_issue = \"commit\"";
    let world = World::new(space, MAIN).await;
    // What was merged is in the first run; no request is about the second.
    world.backlog.pull(1, "feature/1", "main");
    world.backlog.end_pull(1, Some(&commit(1)));
    world.begin_main(1).await;
    world.end(1, "Succeeded");
    world.begin_main(2).await;
    world
        .backlog
        .fault("GET issues/APP-2", 1, Fault::Refuse(404, 6));
    let body = json!({"pipeline": "web-main", "execution": id(2), "state": "STARTED"});
    let line = world.invoke(&body.to_string(), 1).await.remove(0);
    assert_eq!(
        (&line["result"], &line["comments"], &line["failures"]),
        (&json!("failed"), &json!(1), &json!([])),
        "{line}"
    );
    assert_eq!(world.texts(1).len(), 1);
    assert_eq!(world.backlog.comments("APP-2"), [json!(null); 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_asks_three_times_and_twice_for_each_request_at_most() {
    let world = World::main().await;
    world.begin_main(1).await;
    // The first look of a process asks who it is, and what the space and the project are like.
    world.event(1, "STARTED").await;
    assert_eq!(world.requests(), (5, 0));
    for pulls in [1, 2, 4, 8] {
        let before = pulls / 2;
        for number in before + 1..=pulls {
            world.backlog.pull(
                i64::try_from(number).unwrap(),
                "main",
                &format!("to/{number}"),
            );
        }
        let n = u8::try_from(10 + 2 * pulls).unwrap();
        world.begin_main(n).await;
        world.event(n, "STARTED").await;
        let (reads, writes) = world.requests();
        assert!(reads + writes <= 3 + 2 * pulls, "{pulls}: {reads} {writes}");
        // One that turns red has an alert for each, beside the comment that changes; who pushed is asked once.
        world.end(n, "Failed");
        world.event(n, "FAILED").await;
        let (reads, writes) = world.requests();
        assert_eq!((reads, writes), (3 + pulls, 2 * pulls), "{pulls}");
        world.begin_main(n + 1).await;
        world.end(n + 1, "Succeeded");
        world.event(n + 1, "SUCCEEDED").await;
        let (reads, writes) = world.requests();
        assert_eq!((reads, writes), (2 + pulls, 2 * pulls), "{pulls}");
        // Nothing new: nothing is written, and it costs no more.
        world.event(n + 1, "SUCCEEDED").await;
        assert_eq!(world.requests(), (2 + pulls, 0));
    }
    // One more for every further page.
    for number in 100..=201 {
        world.backlog.pull(number, "other", "main");
    }
    for n in 0..250 {
        world
            .backlog
            .comment("APP/web/1", 9, &format!("comment {n}"));
    }
    world.event(27, "SUCCEEDED").await;
    assert_eq!(world.requests(), (2 + 8 + 1 + 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_time_does_not_reach_comes_again_at_once() {
    let mut world = World::new("results = \"pull_request\"", &(BRANCHES.to_owned() + MAIN)).await;
    let limit = Duration::from_secs(16);
    world.function = Lambda::start(env!("CARGO_BIN_EXE_results"), &world.vars, limit).await;
    world.branch(1).await;
    world.backlog.pull(9, "main", "production");
    world.begin_main(9).await;
    let late = Fault::Late(Duration::from_millis(8_500));
    world.backlog.fault(
        "GET projects/APP/git/repositories/web/pullRequests/1/",
        1,
        late,
    );
    let record = |name: &str| {
        json!({"messageId": name, "receiptHandle": name, "body": json!({"pipeline": name}).to_string(),
            "attributes": {"ApproximateReceiveCount": "1"}, "messageAttributes": {}, "md5OfBody": "", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:r:1:q", "awsRegion": "r"})
    };
    let event = json!({"Records": [record("web-branches"), record("web-main")]});
    let answer = world.function.invoke(&event).await.result.unwrap();
    assert_eq!(
        answer["batchItemFailures"],
        json!([{"itemIdentifier": "web-main"}]),
        "{}",
        world.function.output()
    );
    assert_eq!((world.texts(1).len(), world.texts(9).len()), (1, 0));
    let postponed = world.sqs.calls(SqsOp::ChangeMessageVisibility);
    assert_eq!(postponed.len(), 1);
    assert_eq!(
        (
            &postponed[0]["ReceiptHandle"],
            &postponed[0]["VisibilityTimeout"]
        ),
        (&json!("web-main"), &json!(0))
    );
}
