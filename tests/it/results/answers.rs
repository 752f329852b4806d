//! What nobody could ask AWS and Backlog yet (docs/unverified.md): the stand-ins give the other answer. 37, 38 and 39, how lists lag,
//! how comments are kept and what a merge says, are played both ways beside the tests of comments; 35 in `backlog.rs`.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hears_of_comments_besides_there_are_no_more_of_them() {
    for (results, expected) in [("pull_request", 2), ("alert", 1)] {
        let world = World::new(&format!("results = \"{results}\""), MAIN).await;
        // Question 36: the request's author hears of every new comment.
        world.backlog.habits(Habits {
            tells_author: true,
            ..Habits::default()
        });
        world.backlog.pull(1, "main", "production");
        world
            .backlog
            .push_by("APP", 42, "refs/heads/main", &commit(1));
        world.begin_main(1).await;
        world.event(1, "STARTED").await;
        world.end(1, "Failed");
        world.event(1, "FAILED").await;
        assert_eq!(world.event(1, "FAILED").await, "unchanged");
        let comments = world.backlog.comments("APP/web/1");
        assert_eq!(comments.len(), expected, "{results}");
        let told = &comments[expected - 1]["notifications"];
        assert_eq!(told, &json!([{"user": {"id": 42}}, {"user": {"id": 7}}]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_action_that_names_no_object_leaves_the_way_of_a_pipeline_for_each_ref() {
    let routes = r#"
[[route]]
repository = "APP/web"
ref = "refs/heads/feature/*"
object = "all/{ref}.zip"
pipeline = "all-branches"
[[route]]
repository = "APP/web"
ref = "refs/heads/*"
object = "web/{ref}.zip"
pipeline = "web-{ref}"
"#;
    for says in [true, false] {
        let world = World::new("results = \"pull_request\"", routes).await;
        world.backlog.pull(1, "feature/y", "main");
        world.backlog.pull(2, "x", "main");
        world
            .begin(
                "all-branches",
                "all/feature/y.zip",
                "refs/heads/feature/y",
                1,
            )
            .await;
        world.begin("web-x", "web/x.zip", "refs/heads/x", 2).await;
        if !says {
            // Question 40: the variables have the version alone.
            world.aws.does("ListActionExecutions", |_| {
                let source = json!({"pipelineExecutionId": id(1), "stageName": "Source", "actionName": "Source",
                    "status": "Succeeded", "output": {"outputVariables": {"VersionId": "v"}}});
                (200, json!({"actionExecutionDetails": [source]}).to_string())
            });
        }
        let told = world.event_of("all-branches", 1, "STARTED").await;
        let (expected, comments) = if says { ("told", 1) } else { ("ignored", 0) };
        assert_eq!((&*told, world.texts(1).len()), (expected, comments));
        assert_eq!(world.event_of("web-x", 2, "STARTED").await, "told");
        assert_eq!(world.texts(2).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_listed_late_is_told_when_it_is_there() {
    let world = World::main().await;
    world.backlog.pull(1, "main", "production");
    world.begin_main(1).await;
    // Question 41: the event comes before the list has its run; or, with the last try, the list never has it.
    assert_eq!(world.event(2, "STARTED").await, "again");
    world.begin_main(2).await;
    assert_eq!(world.event(2, "STARTED").await, "told");
    let body = json!({"pipeline": "web-main", "execution": id(3), "state": "STARTED"}).to_string();
    let line = world.invoke(&body, 3).await.remove(0);
    assert_eq!(
        (&line["result"], &line["failures"]),
        (&json!("unchanged"), &json!([]))
    );
    world.begin_main(3).await;
    assert_eq!(world.schedule().await[0]["result"], "told");
    assert!(world.texts(1)[0].contains("- 03030303 実行中"));
}
