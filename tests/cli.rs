//! The command line as people and scripts meet it.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{
    git_server::GitServer,
    oracle::{assert_zip_file_equals, expected_entries},
    process::run_within,
    upstream::{Repository, Upstream},
};
use tempfile::TempDir;

const MAIN: &str = "refs/heads/main";
const LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

/// A folder with a routing table, a repository, and room for a store.
struct Place {
    folder: TempDir,
    upstream: Upstream,
    repository: Repository,
}

impl Place {
    fn new() -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            upstream,
            repository,
        };
        place.route("APP/web", MAIN, "web/main.zip");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn route(&self, repository: &str, ref_name: &str, key: &str) {
        self.routes(&format!(
            "[[space]]\nurl = \"file://{}\"\n[[route]]\nname = \"web-main\"\nrepository = \"{repository}\"\n\
             ref = \"{ref_name}\"\nobject = \"{key}\"\n",
            self.upstream.root().display()
        ));
    }

    fn routes(&self, text: &str) {
        fs::write(self.path("routes.toml"), text).unwrap();
    }

    /// Runs the program in the folder, with nobody to answer questions.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .current_dir(self.folder.path())
            .args(arguments)
            .stdin(Stdio::null());
        for name in [
            "SOURCE_BUCKET",
            "MAX_ENTRIES",
            "LOG_LEVEL",
            "BACKLOG_USERNAME",
            "BACKLOG_PASSWORD",
        ] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        Ran::from(run_within(&mut command, LIMIT).expect("it ends"))
    }

    /// The zip of the only version of an object.
    fn zip(&self, key: &str) -> PathBuf {
        let folder = self.path("backlog-bridge-store/sources").join(key);
        let version =
            fs::read_dir(&folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
        let versions: Vec<_> = version.map(|entry| entry.unwrap().path()).collect();
        let [version] = versions.as_slice() else {
            panic!("one version, not {versions:?}")
        };
        let name = Path::new(key).file_name().unwrap();
        version.join(name)
    }
}

/// What the program did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        Self {
            code: output.status.code(),
            lines: stdout
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    fn only_line(&self) -> &Value {
        let [line] = self.lines.as_slice() else {
            panic!("one line, not {self:?}")
        };
        line
    }
}

fn event(name: &str) -> String {
    format!("{}/events/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn fields(line: &Value) -> Vec<&str> {
    line.as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn sync_prints_a_line_an_object_and_the_zip_is_there() {
    let place = Place::new();
    let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let ran = place.run(&["sync"], &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = ran.only_line();
    let mut expected = vec![
        "route",
        "repository",
        "ref",
        "outcome",
        "commit",
        "bucket",
        "object_key",
        "version_id",
        "entries",
        "archive_bytes",
        "fetched_bytes",
        "duration_ms",
    ];
    let mut found = fields(line);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(
        (&line["outcome"], &line["commit"]),
        (&"published".into(), &commit.as_str().into())
    );
    assert!(ran.stderr.contains("web-main: published"), "{ran:?}");
    assert_zip_file_equals(
        &place.zip("web/main.zip"),
        &expected_entries(&place.repository, &commit),
        &commit,
    );

    let again = place.run(&["sync", "web-main"], &[]);
    assert_eq!(again.only_line()["outcome"], "already_current");
    place.repository.delete_ref(MAIN);
    let gone = place.run(&["sync"], &[]);
    assert_eq!(
        (gone.code, &gone.only_line()["outcome"]),
        (Some(0), &"branch_gone".into())
    );
}

#[test]
fn sync_over_tls_with_a_login_asks_nobody() {
    let place = Place::new();
    let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let server = GitServer::start(
        place.upstream.root(),
        Some(("robot@example.com", "p:a@s/s")),
    );
    place.routes(&format!(
        "[[space]]\nurl = \"{}\"\ncredentials = \"env:BACKLOG\"\n[[route]]\nrepository = \"APP/web\"\n\
         ref = \"{MAIN}\"\nobject = \"web/main.zip\"\n",
        server.space_url()
    ));
    let ca = server.ca_file();
    let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
    let user = ("BACKLOG_USERNAME", "robot@example.com");

    let nobody = place.run(&["sync"], &[trust]);
    assert_eq!(
        (nobody.code, &nobody.only_line()["error"]["kind"]),
        (Some(1), &"credentials".into())
    );
    assert!(
        nobody
            .stderr
            .contains("BACKLOG_USERNAME and BACKLOG_PASSWORD"),
        "{nobody:?}"
    );

    let wrong = place.run(
        &["sync"],
        &[trust, user, ("BACKLOG_PASSWORD", "not-this-marker")],
    );
    assert_eq!(
        (wrong.code, &wrong.only_line()["error"]["kind"]),
        (Some(1), &"auth_failed".into())
    );
    assert!(
        !format!("{wrong:?}").contains("not-this-marker"),
        "{wrong:?}"
    );

    let stranger = place.run(&["sync"], &[user, ("BACKLOG_PASSWORD", "p:a@s/s")]);
    assert_eq!(
        stranger.only_line()["error"]["kind"],
        "unreachable",
        "a certificate that nobody trusts"
    );

    let right = place.run(&["sync"], &[trust, user, ("BACKLOG_PASSWORD", "p:a@s/s")]);
    assert_eq!(
        (right.code, &right.only_line()["outcome"]),
        (Some(0), &"published".into()),
        "{right:?}"
    );
    assert_zip_file_equals(
        &place.zip("web/main.zip"),
        &expected_entries(&place.repository, &commit),
        &commit,
    );
}

#[test]
fn a_glob_delivers_what_has_an_object_and_everything_when_named() {
    let place = Place::new();
    let commit = place
        .repository
        .commit_on("refs/heads/release/1", &[("a", "a".into())]);
    place
        .repository
        .set_ref("refs/heads/release/2/spring", &commit);
    place.repository.set_ref(MAIN, &commit);
    place.route("APP/web", "refs/heads/release/*", "{repository}/{ref}.zip");
    let none = place.run(&["sync"], &[]);
    assert_eq!((none.code, none.lines.len()), (Some(0), 0));
    assert!(none.stderr.contains("name the route"), "{none:?}");
    let all = place.run(&["sync", "web-main"], &[]);
    let keys: Vec<_> = all
        .lines
        .iter()
        .map(|line| line["object_key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["web/release/1.zip", "web/release/2/spring.zip"]);
    place.repository.set_ref("refs/heads/release/3", &commit);
    assert_eq!(place.run(&["sync"], &[]).lines.len(), 2);
}

#[test]
fn names_reach_the_object_as_they_are() {
    let long = format!("refs/heads/{}", "n".repeat(239));
    for (repository, ref_name, key) in [
        (
            "APP/web",
            "refs/heads/feature/ログイン",
            "web/feature/ログイン.zip",
        ),
        ("APP/we%2Fb", "refs/heads/a%2Fb", "we%2Fb/a%2Fb.zip"),
        ("APP/web@2", "refs/heads/v1@2", "web@2/v1@2.zip"),
        ("開発/画面", "refs/tags/v1", "画面/v1.zip"),
        (
            "APP/web",
            long.as_str(),
            &format!("web/{}.zip", &long[11..]),
        ),
    ] {
        let place = Place::new();
        let upstream = place.upstream.repository(repository);
        let commit = upstream.commit_on(ref_name, &[("a", "a".into())]);
        place.route(repository, ref_name, "{repository}/{ref}.zip");
        let ran = place.run(&["sync"], &[]);
        let line = ran.only_line();
        assert_eq!(
            (&line["object_key"], &line["commit"]),
            (&key.into(), &commit.as_str().into()),
            "{ran:?}"
        );
    }
}

#[test]
fn invoke_handles_both_webhooks_and_says_why_it_ignores_the_rest() {
    for (file, outcome, says) in [
        ("project-push-delete.json", "ignored", "deleted"),
        ("git-push-delete.form", "ignored", "deleted"),
        (
            "project-test-delivery-push.json",
            "ignored",
            "the webhook works",
        ),
        ("project-issue-created.json", "ignored", "type 1"),
        ("project-unknown-type.json", "ignored", "type 99"),
        ("project-push-tag.json", "ignored", "no route matches"),
    ] {
        let place = Place::new();
        let ran = place.run(&["invoke", &event(file)], &[]);
        let line = ran.only_line();
        assert_eq!(
            (ran.code, &line["outcome"]),
            (Some(0), &outcome.into()),
            "{file}: {ran:?}"
        );
        assert!(
            line["reason"].as_str().unwrap().contains(says),
            "{file}: {line}"
        );
    }

    let place = Place::new();
    let body: Value =
        serde_json::from_slice(&fs::read(event("project-push-update.json")).unwrap()).unwrap();
    let project = body["project"]["projectKey"].as_str().unwrap();
    let name = format!(
        "{project}/{}",
        body["content"]["repository"]["name"].as_str().unwrap()
    );
    let ref_name = body["content"]["ref"].as_str().unwrap();
    place
        .upstream
        .repository(&name)
        .commit_on(ref_name, &[("a", "a".into())]);
    place.route(&name, ref_name, "pushed.zip");
    let ran = place.run(&["invoke", &event("project-push-update.json")], &[]);
    assert_eq!(
        (ran.code, &ran.only_line()["outcome"]),
        (Some(0), &"published".into()),
        "{ran:?}"
    );
}

#[test]
fn wrong_usage_and_configuration_end_with_2_and_say_what_to_do() {
    let place = Place::new();
    fs::write(place.path("no-event"), "hello").unwrap();
    fs::write(place.path("a-file"), "").unwrap();
    let broken = "[[space]]\nurl = \"http://example.com/git\"\n[[route]]\nrepository = \"web\"\nref = \"main\"\n\
                  object = \"\"\n";
    fs::write(place.path("broken.toml"), broken).unwrap();
    let none: &[(&str, &str)] = &[];
    for (case, arguments, environment, says) in [
        (
            "no routing table",
            &["sync", "--routes", "none.toml"][..],
            none,
            &["none.toml", "routes.example.toml"][..],
        ),
        (
            "a wrong table",
            &["routes", "check", "--routes", "broken.toml"],
            none,
            &[
                "broken.toml:2",
                "broken.toml:4",
                "broken.toml:5",
                "refs/heads/main",
            ],
        ),
        (
            "an unknown route",
            &["sync", "web-mian"],
            none,
            &["web-mian", "web-main"],
        ),
        (
            "wrong variables",
            &["sync"],
            &[
                ("MAX_ENTRIES", "many"),
                ("LOG_LEVEL", "loud"),
                ("SOURCE_BUCKET", "UPPER"),
            ],
            &["MAX_ENTRIES", "LOG_LEVEL", "SOURCE_BUCKET"],
        ),
        ("no event", &["invoke", "none.json"], none, &["none.json"]),
        ("no webhook", &["invoke", "no-event"], none, &["no-event"]),
        (
            "a file for a store",
            &["sync", "--store", "a-file"],
            none,
            &["a-file", "choose another directory"],
        ),
        (
            "two places to deliver to",
            &["sync", "--aws", "--store", "x"],
            none,
            &["--aws", "--store"],
        ),
        (
            "no bucket in AWS",
            &["sync", "--aws"],
            none,
            &["SOURCE_BUCKET"],
        ),
        ("no such command", &["synk"], none, &["sync"]),
    ] {
        let ran = place.run(arguments, environment);
        assert_eq!(ran.code, Some(2), "{case}: {ran:?}");
        assert!(ran.lines.is_empty(), "{case}: {ran:?}");
        for word in says {
            assert!(
                ran.stderr.contains(word),
                "{case}: {word} is not in {}",
                ran.stderr
            );
        }
    }
}

#[test]
fn a_store_that_is_in_use_is_refused() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let _holder = backlog_bridge::local::Store::open(&place.path("backlog-bridge-store")).unwrap();
    let ran = place.run(&["sync"], &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("in use by another process"), "{ran:?}");
}

#[test]
fn what_fails_is_named_and_nothing_is_written() {
    let place = Place::new();
    for (case, repository, kind, says) in [
        (
            "an empty repository",
            "APP/web",
            "ref_not_found",
            "is empty",
        ),
        (
            "no repository",
            "APP/none",
            "repository_not_found",
            "check the route's repository",
        ),
    ] {
        place.route(repository, MAIN, "web/main.zip");
        let ran = place.run(&["sync"], &[]);
        let line = ran.only_line();
        assert_eq!(
            (ran.code, &line["outcome"]),
            (Some(1), &"failed".into()),
            "{case}: {ran:?}"
        );
        assert_eq!(line["error"]["kind"], kind, "{case}: {ran:?}");
        assert!(ran.stderr.contains(says), "{case}: {}", ran.stderr);
        assert!(
            !place.path("backlog-bridge-store/sources/web").exists(),
            "{case}"
        );
    }
}

#[test]
fn explain_says_which_routes_take_a_ref_and_why_others_do_not() {
    let place = Place::new();
    let ran = place.run(&["routes", "explain", "APP/web", "refs/heads/dev"], &[]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("no route delivers"), "{ran:?}");
    let wrong = place.run(&["routes", "explain", "web", "main"], &[]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("PROJECT/repository"), "{wrong:?}");
}

#[test]
fn the_demo_works_with_and_without_a_repository() {
    let place = Place::new();
    let sample = place.run(&["demo"], &[]);
    assert_eq!(sample.code, Some(0), "{sample:?}");
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    place.repository.set_symbolic_ref("HEAD", MAIN);
    let path = place.repository.path().to_str().unwrap();
    let own = place.run(&["demo", "--repository", path, "--store", "kept"], &[]);
    assert_eq!(own.code, Some(0), "{own:?}");
    assert!(place.path("kept/sources/DEMO/web.zip").is_dir());
    let none = place.run(&["demo", "--repository", "/does/not/exist"], &[]);
    assert_eq!(none.code, Some(2), "{none:?}");
}
