//! What release 0.1.0 left behind goes on working: its routing table, its jobs, its objects. All of `fixtures/0.1.0` but the
//! table was written by its programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use backlog_bridge::{
    deliver::Success,
    error::chain,
    queue::Message,
    route::{Origin, RouteTable, TABLE_FORMAT},
};
use serde_json::{Value, json};

use crate::support::{
    BUCKET, KEY, MAIN,
    s3::TestS3,
    service::{LOGIN, Service},
    upstream::Repository,
    world::World,
};

/// The fields of a table, and the first format that has them. A table needs the newest format of its fields.
const FIELDS: [(&str, &str, u32); 18] = [
    ("space", "url", 1),
    ("space", "credentials", 1),
    ("space", "name", 1),
    ("space", "api_key", 2),
    ("space", "language", 2),
    ("space", "results", 2),
    ("space", "results_issue", 2),
    ("space", "results_detail", 2),
    ("route", "name", 1),
    ("route", "space", 1),
    ("route", "repository", 1),
    ("route", "ref", 1),
    ("route", "object", 1),
    ("route", "bucket", 1),
    ("route", "sweep", 1),
    ("route", "paused", 2),
    ("route", "pipeline", 2),
    ("route", "results", 2),
];

const JOBS: [&str; 3] = [
    "job-project-webhook.json",
    "job-git-webhook.json",
    "job-swept.json",
];

fn path(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/0.1.0");
    PathBuf::from(folder).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// Brings the repository to where it was when the object was delivered. Returns the commit.
fn restore(repository: &Repository) -> String {
    let bundle = path("repository.bundle");
    repository.git(&[
        "fetch",
        "--quiet",
        bundle.to_str().unwrap(),
        "+refs/*:refs/*",
    ]);
    repository.resolve(MAIN).unwrap()
}

/// The metadata of the object.
fn metadata() -> BTreeMap<String, String> {
    let version: Value = serde_json::from_str(&text("object.json")).unwrap();
    serde_json::from_value(version["content"]["metadata"].clone()).unwrap()
}

async fn put_object(s3: &TestS3) {
    let client = s3.client();
    let mut put = client.put_object().bucket(BUCKET).key(KEY);
    for (name, value) in metadata() {
        put = put.metadata(name, value);
    }
    let zip = std::fs::read(path("object.zip")).unwrap();
    let put = put.content_type("application/zip").body(zip.into());
    put.send().await.unwrap();
}

/// A deployed bridge with the table and the repository of then.
async fn service() -> (Service, String) {
    let service = Service::with(&[], &[]).await;
    let commit = restore(&service.repository);
    let login = json!({"username": LOGIN.0, "password": LOGIN.1});
    service
        .secrets
        .put("backlog-bridge/git", &login.to_string());
    let table = text("routes.toml");
    let space = "https://example.backlog.com/git";
    assert!(table.contains(space));
    let table = table.replace(space, &service.git.space_url());
    service.put_routes(&table).await;
    (service, commit)
}

#[test]
fn a_table_means_what_it_meant() {
    let table = RouteTable::parse(
        "routes.toml",
        &text("routes.toml"),
        Some(BUCKET),
        Origin::Deployed,
    );
    let table = table.unwrap();
    for (repository, ref_name, route, object) in [
        ("APP/web", MAIN, "web-main", "sources/web/main.zip"),
        (
            "APP/web",
            "refs/heads/release/1.0",
            "APP/web refs/heads/release/*",
            "sources/APP/web/release/1.0.zip",
        ),
        (
            "LIB/parser",
            "refs/tags/v2",
            "tags",
            "example-releases/parser/v2.zip",
        ),
    ] {
        let (repository, ref_name) = (repository.parse().unwrap(), ref_name.parse().unwrap());
        let mut routes = table.routes().iter();
        let found = routes.find(|route| route.takes(&repository, &ref_name));
        let found = found.unwrap();
        let to = found.destination(table.space_of(found), &ref_name).unwrap();
        let to = format!("{}/{}", to.bucket, to.key);
        assert_eq!((found.name(), &*to), (route, object));
    }
}

#[test]
fn each_field_of_a_table_has_a_format() {
    for entry in ["space", "route"] {
        // Whoever mistypes a field is told of those that there are.
        let typo = format!("[[{entry}]]\nno_such_field = 1\n");
        let err = RouteTable::parse("routes.toml", &typo, Some(BUCKET), Origin::Deployed);
        let err = err.unwrap_err().to_string();
        let (_, there) = err.split_once("expected one of ").unwrap();
        let there = there.lines().next().unwrap();
        let there: BTreeSet<_> = there.split('`').skip(1).step_by(2).collect();
        let known = FIELDS.iter().filter(|(of, ..)| *of == entry);
        let known: BTreeSet<_> = known.map(|(_, field, _)| *field).collect();
        assert_eq!(there, known, "{entry}");
    }
    let newest = FIELDS.iter().map(|(.., format)| *format).max();
    assert_eq!(newest, Some(TABLE_FORMAT));
    // A table says what it needs.
    let valid = |field| match field {
        "api_key" => "\"secret:api\"",
        "language" => "\"ja\"",
        "paused" | "results_detail" => "true",
        "results" => "\"alert\"",
        "results_issue" => "\"commit\"",
        "pipeline" => "\"web-main\"",
        other => panic!("{other}: give it a value here"),
    };
    for (of, field, format) in FIELDS.iter().filter(|(.., format)| *format > 1) {
        let more = |entry| {
            if entry == *of {
                format!("{field} = {}\n", valid(*field))
            } else {
                String::new()
            }
        };
        let text = format!(
            "[[space]]\nurl = \"https://example.backlog.com/git\"\n{}[[route]]\nrepository = \"A/b\"\nref = \"refs/heads/m\"\n\
             object = \"m.zip\"\n{}",
            more("space"),
            more("route")
        );
        let table =
            RouteTable::parse("routes.toml", &text, Some(BUCKET), Origin::Deployed).unwrap();
        let newest = table.newest_field().unwrap();
        assert_eq!((newest.name, newest.format), (*field, *format));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_delivered() {
    for name in JOBS {
        let (service, commit) = service().await;
        service.sqs.put(text(name).trim(), "a-group");
        service.drain().await;
        assert_eq!(service.commits(), [&*commit], "{name}");
        assert_eq!(service.outcomes()[0]["outcome"], "published", "{name}");
        assert_eq!(service.sqs.dead_letters(), [Value::Null; 0], "{name}");
    }
}

#[test]
fn a_sweep_is_one() {
    let message = Message::parse(text("sweep.json").trim()).unwrap();
    assert_eq!(message, Message::Sweep(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_alone_writes_no_version() {
    let (service, commit) = service().await;
    put_object(&service.s3).await;
    assert!(!metadata().contains_key("git-space"));
    for name in JOBS {
        service.sqs.put(text(name).trim(), "a-group");
    }
    service.drain().await;
    service.sweep().await;
    assert_eq!(service.commits(), [&*commit]);
    let outcomes = service.outcomes();
    for line in &outcomes[..JOBS.len()] {
        assert_eq!(line["outcome"], "already_current", "{line}");
        assert_eq!(line.get("warnings"), None, "{line}");
    }
    let swept = outcomes.iter().find(|line| line["outcome"] == "swept");
    let swept = swept.unwrap();
    assert_eq!(
        (&swept["objects"], &swept["drifted"]),
        (&json!(1), &json!(0))
    );
}

#[tokio::test]
async fn an_object_is_built_upon_and_stays_ours_when_its_space_moves() {
    let mut world = World::new().await;
    let old = restore(&world.repository);
    put_object(&world.s3).await;
    let root = world.upstream.root().to_owned();
    let moved = tempfile::tempdir().unwrap();
    let moved = moved.path().join("git");
    std::os::unix::fs::symlink(&root, &moved).unwrap();
    let url = |root: &std::path::Path| format!("file://{}", root.display());

    world.move_space(&url(&moved));
    let delivery = world.deliver().await;
    let result = delivery.result.map_err(|err| chain(&err));
    assert_eq!(result, Ok(Success::AlreadyCurrent));
    assert_eq!(world.commits(), [&*old]);

    let new = world.repository.commit_on(MAIN, &[("b.txt", "b".into())]);
    let delivery = world.publish("built upon an object of 0.1.0").await;
    assert_eq!(delivery.full_fetch, None);
    assert_eq!(delivery.warnings, [""; 0]);
    assert_eq!(world.commits(), [&*new, &*old]);
    assert_eq!(world.newest().metadata["git-space"], url(&moved));

    // Back again: now the object names a space that the table does not have.
    world.move_space(&url(&root));
    let delivery = world.deliver().await;
    let result = delivery.result.map_err(|err| chain(&err));
    assert_eq!(result, Ok(Success::AlreadyCurrent));
    assert_eq!(world.versions().len(), 2);
}
