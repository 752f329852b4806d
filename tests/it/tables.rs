//! The routing table changes while pushes come: both functions as real processes, warm, with what they knew before.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    BUCKET, KEY, MAIN,
    lambda::Lambda,
    s3::{Fault as S3Fault, Op as S3Op},
    service::{GIT_SECRET, Service, lines},
    upstream::Repository,
};

const DEVELOP: &str = "refs/heads/develop";

/// A route: its name, repository, ref and object.
type Route<'a> = (&'a str, &'a str, &'a str, &'a str);

async fn put_table(service: &Service, routes: &[Route<'_>]) {
    let mut text = format!(
        "[[space]]\nurl = \"{}\"\ncredentials = \"secret:{GIT_SECRET}\"\n",
        service.git.space_url()
    );
    for (name, repository, ref_name, object) in routes {
        write!(
            text,
            "[[route]]\nname = \"{name}\"\nrepository = \"{repository}\"\nref = \"{ref_name}\"\nobject = \"{object}\"\n"
        )
        .unwrap();
    }
    service.put_routes(&text).await;
}

/// Puts a job of the sweep or an event on the queue, as another process would that knows another table.
fn put_job(service: &Service, route: &str, repository: &str, ref_name: &str, swept: bool) {
    let job = json!({"route": route, "repository": repository, "ref": ref_name, "swept": swept});
    let group = format!("{route} {ref_name}").replace(' ', "-");
    service.sqs.put(&job.to_string(), &group);
}

fn push(repository: &Repository, ref_name: &str, content: &str) -> String {
    repository.commit_on(ref_name, &[("a.txt", content.into())])
}

/// What each version of an object holds, the newest first: its repository, ref and commit.
fn held(service: &Service, key: &str) -> Vec<(String, String, String)> {
    let versions = service.s3.versions(BUCKET, key).into_iter();
    versions
        .map(|version| {
            let of = |name: &str| version.metadata[name].clone();
            (of("git-repository"), of("git-ref"), of("git-commit"))
        })
        .collect()
}

fn kinds_and_reasons(service: &Service) -> Vec<String> {
    let text = |line: &Value, name| line[name].as_str().unwrap_or_default().to_owned();
    let outcomes = service.outcomes().into_iter();
    outcomes
        .map(|line| text(&line, "error_kind") + &text(&line, "reason"))
        .collect()
}

/// A service whose `deliver` has seen a table with one route of `main`.
async fn warm() -> Service {
    let service = Service::start().await;
    put_table(&service, &[("main", "APP/web", MAIN, KEY)]).await;
    push(&service.repository, MAIN, "first");
    assert_eq!(service.push(MAIN, &[]).await.0, 202);
    service.drain().await;
    assert_eq!(service.versions().len(), 1);
    service
}

/// Has a process handle the queue that knows no table yet; the one of the service goes on knowing what it knew.
async fn drain_by_another(service: &Service) {
    let limit = Duration::from_secs(40);
    let other = Lambda::start(env!("CARGO_BIN_EXE_deliver"), &service.vars, limit).await;
    service.sqs.drain(&other, 1, limit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_kept_while_nobody_can_tell_whether_its_route_is_there() {
    let glob = ("new", "APP/web", "refs/heads/new/*", "new/{ref}.zip");
    for (case, spoil) in [
        ("S3 is down", None),
        ("the table is spoiled", Some("[[route")),
    ] {
        let service = warm().await;
        let commit = push(&service.repository, "refs/heads/new/x", "x");
        put_table(&service, &[("main", "APP/web", MAIN, KEY), glob]).await;
        put_job(&service, "new", "APP/web", "refs/heads/new/x", false);
        if let Some(text) = spoil {
            service.put_routes(text).await;
        } else {
            // The SDK asks three times.
            for _ in 0..3 {
                service.s3.fail_once(S3Op::GetObject, S3Fault::Status(503));
            }
        }
        let messages = service.sqs.receive(1);
        let invocation = service.deliver.invoke(&service.sqs.event(&messages)).await;
        let failed = json!({"batchItemFailures": [{"itemIdentifier": messages[0].id}]});
        assert_eq!(invocation.result, Ok(failed), "{case}");
        let line = service.outcomes().pop().unwrap();
        assert_eq!(
            (&line["error_kind"], &line["error"]["transient"]),
            (&json!("routes"), &json!(true)),
            "{case}"
        );

        put_table(&service, &[("main", "APP/web", MAIN, KEY), glob]).await;
        let invocation = service.deliver.invoke(&service.sqs.event(&messages)).await;
        assert_eq!(
            invocation.result,
            Ok(json!({"batchItemFailures": []})),
            "{case}"
        );
        let held = held(&service, "new/new/x.zip");
        assert_eq!(held[0].2, commit, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_route_leaves_its_object_to_the_next_one() {
    for swept in [true, false] {
        let service = Service::start().await;
        let old = service.upstream.repository("APP/old");
        push(&old, MAIN, "old");
        put_table(&service, &[("web", "APP/old", MAIN, KEY)]).await;
        put_job(&service, "web", "APP/old", MAIN, false);
        service.drain().await;

        put_table(&service, &[("web", "APP/web", MAIN, KEY)]).await;
        let new = push(&service.repository, MAIN, "new");
        put_job(&service, "web", "APP/web", MAIN, false);
        drain_by_another(&service).await;
        assert_eq!(held(&service, KEY)[0].2, new);

        // A late job, of somebody who has not heard of the new table.
        push(&old, MAIN, "older");
        put_job(&service, "web", "APP/old", MAIN, swept);
        service.drain().await;
        let holders = held(&service, KEY)
            .into_iter()
            .map(|(repository, ..)| repository);
        assert_eq!(
            holders.collect::<Vec<_>>(),
            ["APP/web", "APP/old"],
            "swept: {swept}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_takes_another_ref_does_not_go_back() {
    let service = warm().await;
    let develop = push(&service.repository, DEVELOP, "develop");
    put_table(&service, &[("main", "APP/web", DEVELOP, KEY)]).await;
    put_job(&service, "main", "APP/web", DEVELOP, false);
    drain_by_another(&service).await;
    push(&service.repository, MAIN, "late");
    put_job(&service, "main", "APP/web", MAIN, false);
    service.drain().await;
    let held = held(&service, KEY);
    assert_eq!(
        (held.len(), &*held[0].1, &*held[0].2),
        (2, DEVELOP, &*develop)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_counts_for_the_first_push_after_it_was_stored() {
    let service = warm().await;
    assert_eq!(service.push(DEVELOP, &[]).await.0, 200);
    let main = ("main", "APP/web", MAIN, KEY);
    put_table(
        &service,
        &[main, ("develop", "APP/web", DEVELOP, "develop.zip")],
    )
    .await;
    let (status, body) = service.push(DEVELOP, &[]).await;
    assert_eq!((status, body), (202, json!({"accepted": ["develop"]})));
    // Beside one that takes the push already.
    put_table(&service, &[main, ("copy", "APP/web", MAIN, "copy.zip")]).await;
    let (status, body) = service.push(MAIN, &[]).await;
    assert_eq!((status, body), (202, json!({"accepted": ["main", "copy"]})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glob_whose_objects_move_takes_its_new_branches_along() {
    let service = Service::start().await;
    let route = |object| ("all", "APP/web", "refs/heads/*", object);
    put_table(&service, &[route("old/{ref}.zip")]).await;
    push(&service.repository, MAIN, "main");
    put_job(&service, "all", "APP/web", MAIN, false);
    service.drain().await;
    assert_eq!(held(&service, "old/main.zip").len(), 1);

    put_table(&service, &[route("new/{ref}.zip")]).await;
    let commit = push(&service.repository, "refs/heads/x", "x");
    put_job(&service, "all", "APP/web", "refs/heads/x", false);
    service.drain().await;
    assert_eq!(held(&service, "old/x.zip"), []);
    assert_eq!(held(&service, "new/x.zip")[0].2, commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_route_loses_no_new_branch() {
    let service = warm().await;
    let all = |name| (name, "APP/web", "refs/heads/*", "all/{ref}.zip");
    put_table(&service, &[all("branches")]).await;
    let commit = push(&service.repository, "refs/heads/x", "x");
    assert_eq!(service.push("refs/heads/x", &[]).await.0, 202);
    put_table(&service, &[all("all-branches")]).await;
    service.drain().await;
    assert_eq!(held(&service, "all/x.zip")[0].2, commit);
    let said = kinds_and_reasons(&service);
    let anew = "no such route any more; planned anew for all-branches";
    assert!(said.contains(&anew.to_owned()), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_function_takes_the_newest_table_that_is_one() {
    let service = warm().await;
    // Functions that were rolled back find a table of the version after theirs.
    let newer = "[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/main\"\nof_a_later_version = true\n";
    for (case, spoil) in [
        ("spoiled", Some("nonsense")),
        ("of a newer format", Some(newer)),
        ("deleted", None),
    ] {
        if let Some(text) = spoil {
            service.put_routes(text).await;
        } else {
            let client = service.s3.client();
            let delete = client.delete_object().bucket(BUCKET);
            delete.key("config/routes.toml").send().await.unwrap();
        }
        service.receive.kill();
        service.deliver.kill();
        let commit = push(&service.repository, MAIN, case);
        assert_eq!(service.push(MAIN, &[]).await.0, 202, "{case}");
        assert_eq!(service.push("refs/heads/x", &[]).await.0, 503, "{case}");
        service.drain().await;
        assert_eq!(held(&service, KEY)[0].2, commit, "{case}");
        for lambda in [&service.receive, &service.deliver] {
            let lines = lines(lambda);
            let alarms = lines.iter().filter(|line| line["RoutingTableInvalid"] == 1);
            assert!(alarms.count() > 0, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_without_a_table_is_counted() {
    let service = Service::with(&[], &[]).await;
    service.sweep().await;
    let line = lines(&service.deliver).pop().unwrap();
    assert_eq!(line["RoutingTableMissing"], 1, "{line}");
    put_table(&service, &[("main", "APP/web", MAIN, KEY)]).await;
    service.sweep().await;
    let line = lines(&service.deliver).pop().unwrap();
    assert_eq!(line["RoutingTableMissing"], 0, "{line}");
}

/// What believing no copy costs: requests that S3 answers with 304 as long as nothing has changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_costs_one_look_at_the_table_and_a_delivery_three() {
    let service = warm().await;
    let looks = || service.s3.count(S3Op::GetObject);
    let before = looks();
    push(&service.repository, MAIN, "second");
    assert_eq!(service.push(MAIN, &[]).await.0, 202);
    assert_eq!(looks() - before, 1);
    let before = looks();
    service.drain().await;
    assert_eq!((service.versions().len(), looks() - before), (2, 3));
    let before = looks();
    assert_eq!(service.push(MAIN, &[]).await.0, 202);
    service.drain().await;
    assert_eq!(
        looks() - before,
        1 + 2,
        "nothing is written, so there is no look after it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_on_with_the_last_good_table_and_says_that_it_is_not_the_newest() {
    let service = warm().await;
    let commit = push(&service.repository, MAIN, "nobody told of this");
    service.put_routes("nonsense").await;
    service.sweep().await;
    assert_eq!(held(&service, KEY)[0].2, commit);
    let failed = |line: &&Value| line["PermanentFailures"] == 1;
    let lines = lines(&service.deliver);
    let line = lines.iter().find(failed).expect("an alarm's metric");
    assert_eq!(line["error_kind"], "routes");
}
