//! The command line as people and scripts meet it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use backlog_bridge::local::Store;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    MAIN,
    git_server::{Fault as GitFault, GitServer, Op as GitOp},
    oracle::{assert_zip_file_equals, expected_entries},
    process::run_within,
    tiny_disk::TinyDisk,
    upstream::{Repository, Upstream},
};

const LIMIT: std::time::Duration = std::time::Duration::from_mins(1);

/// A folder with a routing table, a repository, and room for a store.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) upstream: Upstream,
    pub(crate) repository: Repository,
}

impl Place {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn route(&self, repository: &str, ref_name: &str, key: &str) {
        self.routes(&format!(
            "[[space]]\nurl = \"file://{}\"\n[[route]]\nname = \"web-main\"\nrepository = \"{repository}\"\n\
             ref = \"{ref_name}\"\nobject = \"{key}\"\n",
            self.upstream.root().display()
        ));
    }

    pub(crate) fn routes(&self, text: &str) {
        fs::write(self.path("routes.toml"), text).unwrap();
    }

    /// Runs the program in the folder, with nobody to answer questions.
    pub(crate) fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
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
    pub(crate) fn zip(&self, key: &str) -> PathBuf {
        let versions = self.versions(key);
        let [version] = versions.as_slice() else {
            panic!("one version, not {versions:?}")
        };
        version.clone()
    }

    /// The zips of all versions, the newest last.
    pub(crate) fn versions(&self, key: &str) -> Vec<PathBuf> {
        let folder = self.path("backlog-bridge-store/sources").join(key);
        let version =
            fs::read_dir(&folder).unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
        let name = Path::new(key).file_name().unwrap();
        let mut versions: Vec<_> = version
            .map(|entry| entry.unwrap().path().join(name))
            .collect();
        versions.sort_unstable();
        versions
    }
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// What of it is JSON.
    pub(crate) lines: Vec<Value>,
    pub(crate) stderr: String,
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
            stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub(crate) fn only_line(&self) -> &Value {
        let [line] = self.lines.as_slice() else {
            panic!("one line, not {self:?}")
        };
        line
    }
}

fn event(name: &str) -> String {
    format!("{}/events/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn sorted_fields(line: &Value) -> Vec<&str> {
    let fields = line.as_object().unwrap().keys();
    let mut fields: Vec<_> = fields.map(String::as_str).collect();
    fields.sort_unstable();
    fields
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
        "tip",
        "bucket",
        "object_key",
        "version_id",
        "entries",
        "archive_bytes",
        "archive_sha256",
        "fetched_bytes",
        "duration_ms",
    ];
    expected.sort_unstable();
    assert_eq!(sorted_fields(line), expected);
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
fn sync_says_why_it_fetches_everything_and_is_quiet_otherwise() {
    let place = Place::new();
    let said = "web-main: fetched everything, not only what changed: ";
    let newest = || place.versions("web/main.zip").pop().unwrap();
    for (n, is_damaged) in [false, false, true, false].into_iter().enumerate() {
        if is_damaged {
            let zip = newest();
            let mut bytes = fs::read(&zip).unwrap();
            bytes[0] ^= 1;
            fs::write(&zip, bytes).unwrap();
        }
        let text = format!("{n}");
        let commit = place
            .repository
            .commit_on(MAIN, &[("a", text.as_str().into())]);
        let ran = place.run(&["sync"], &[]);
        assert_eq!(ran.only_line()["commit"], commit, "{ran:?}");
        assert_eq!(ran.stderr.contains(said), is_damaged, "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1 + usize::from(is_damaged));
        let entries = expected_entries(&place.repository, &commit);
        assert_zip_file_equals(&newest(), &entries, &commit);
    }
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
        wrong
            .stderr
            .contains("the user name is the account's e-mail address"),
        "{wrong:?}"
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
fn a_login_of_the_environment_counts_in_place_of_a_secret_where_there_is_one_space() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let login = Some(("robot@example.com", "p:a@s/s"));
    let server = GitServer::start(place.upstream.root(), login);
    let space = |name: &str| {
        let url = server.space_url();
        format!("[[space]]\n{name}url = \"{url}\"\ncredentials = \"secret:bridge/git\"\n")
    };
    let route = format!("repository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"web/main.zip\"\n");
    place.routes(&format!("{}[[route]]\n{route}", space("")));
    let ca = server.ca_file();
    // Nobody answers for Secrets Manager.
    let basis = [
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "ap-northeast-1"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("BACKLOG_USERNAME", "robot@example.com"),
    ];
    let both = [&basis[..], &[("BACKLOG_PASSWORD", "p:a@s/s")]].concat();
    let said = "login: BACKLOG_USERNAME and BACKLOG_PASSWORD, which are set, and not the secret bridge/git";

    let right = place.run(&["sync"], &both);
    assert_eq!(right.only_line()["outcome"], "published", "{right:?}");
    assert_eq!(right.stderr.matches(said).count(), 1, "{right:?}");
    // A half of it is none.
    let half = place.run(&["sync"], &basis);
    assert_eq!(half.only_line()["error"]["kind"], "credentials", "{half:?}");
    assert!(!half.stderr.contains("login:"), "{half:?}");
    // Two spaces have two logins.
    let (one, two) = (space("name = \"a\"\n"), space("name = \"b\"\n"));
    place.routes(&format!("{one}{two}[[route]]\nspace = \"a\"\n{route}"));
    let several = place.run(&["sync"], &both);
    assert_eq!(
        several.only_line()["error"]["kind"],
        "credentials",
        "{several:?}"
    );
    assert!(!several.stderr.contains("login:"), "{several:?}");
}

#[test]
fn a_repository_that_refuses_the_login_stops_no_other_one() {
    let place = Place::new();
    let mut table = String::new();
    let server = GitServer::start(place.upstream.root(), None);
    for name in ["APP/one", "APP/three", "APP/two"] {
        let repository = place.upstream.repository(name);
        repository.commit_on(MAIN, &[("a", "a".into())]);
        table.extend([
            "[[route]]\nrepository = \"",
            name,
            "\"\nref = \"",
            MAIN,
            "\"\nobject = \"",
            name,
            ".zip\"\n",
        ]);
    }
    let space = format!(
        "[[space]]\nurl = \"{}\"\ncredentials = \"env:BACKLOG\"\n",
        server.space_url()
    );
    place.routes(&(space + &table));
    let ca = server.ca_file();
    let vars = [
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
        ("BACKLOG_USERNAME", "robot"),
        ("BACKLOG_PASSWORD", "secret"),
    ];
    for status in [403, 401] {
        // Whichever is asked first, when no server was content with the login yet.
        server.fault_once(GitOp::Handshake, GitFault::Status(status));
        let ran = place.run(&["sync", "--store", &status.to_string()], &vars);
        let failed = |line: &&Value| line["outcome"] == "failed";
        let errors: Vec<_> = ran.lines.iter().filter(failed).collect();
        assert_eq!((ran.lines.len(), errors.len()), (3, 1), "{status}: {ran:?}");
        assert_eq!(errors[0]["error"]["kind"], "auth_failed", "{status}");
    }
    // What two of them take for a wrong login is not tried a third time: too many could lock the account.
    server.clear_requests();
    server.fault(GitOp::Handshake, GitFault::Status(401));
    let ran = place.run(&["sync", "--store", "none"], &vars);
    let tell = |line: &Value| line["error"]["transient"].as_bool().unwrap();
    let not_asked = ran.lines.iter().filter(|line| tell(line)).count();
    assert_eq!((ran.lines.len(), not_asked), (3, 1), "{ran:?}");
    assert_eq!(server.requests().len(), 2, "{:?}", server.requests());
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
    let long_ref = format!("refs/heads/{}", "n".repeat(250));
    let long_repository = format!("APP/{}", "r".repeat(250));
    let long_key = format!("{}/{}.zip", "k".repeat(250), "k".repeat(246));
    let template = "{project}/{repository}/{ref}.zip";
    for (case, repository, ref_name, object, key) in [
        (
            "Japanese",
            "開発/画面",
            "refs/heads/機能/ログイン",
            template,
            "開発/画面/機能/ログイン.zip",
        ),
        (
            "an escape",
            "APP/we%2Fb",
            "refs/heads/a%2Fb",
            template,
            "APP/we%2Fb/a%2Fb.zip",
        ),
        (
            "an at sign",
            "APP/web@2",
            "refs/heads/v1@2",
            template,
            "APP/web@2/v1@2.zip",
        ),
        ("a space", "APP/we b", MAIN, template, "APP/we b/main.zip"),
        (
            "two spaces",
            "APP/we  b",
            MAIN,
            template,
            "APP/we  b/main.zip",
        ),
        (
            "a space at the end",
            "APP/web ",
            MAIN,
            template,
            "APP/web /main.zip",
        ),
        (
            "a plus sign",
            "APP/c++",
            "refs/tags/v1+2",
            template,
            "APP/c++/v1+2.zip",
        ),
        (
            "what URLs end at",
            "APP/a#b?c",
            "refs/heads/a#b",
            template,
            "APP/a#b?c/a#b.zip",
        ),
        (
            "250 bytes of a ref",
            "APP/web",
            &long_ref,
            "{ref}",
            &long_ref[11..],
        ),
        (
            "250 bytes of a repository",
            &long_repository,
            MAIN,
            "{repository}",
            &long_repository[4..],
        ),
        ("250 bytes of a key", "APP/web", MAIN, &long_key, &long_key),
        (
            "a key with everything",
            "APP/web",
            MAIN,
            "a b/%2F@/日本 .zip",
            "a b/%2F@/日本 .zip",
        ),
    ] {
        assert_delivered_once(case, repository, ref_name, object, key);
    }
}

#[test]
fn names_that_a_terminal_would_carry_out_are_shown_as_escapes() {
    let place = Place::new();
    let branch = "refs/heads/a\u{9b}31m\u{202e}b";
    place.repository.commit_on(branch, &[("a", "a".into())]);
    let hidden = |text: &str| text.contains(['\u{9b}', '\u{202e}', '\u{1b}']);
    // As a branch that there is, where another one is missing.
    let ran = place.run(&["sync"], &[]);
    assert_eq!(ran.only_line()["error"]["kind"], "ref_not_found");
    assert!(ran.stderr.contains("a\\u{9b}31m\\u{202e}b"), "{ran:?}");
    assert!(!hidden(&ran.stderr) && !hidden(&ran.stdout), "{ran:?}");
    // As the ref that is delivered: programs get it as it is.
    place.routes(&format!(
        "[[space]]\nurl = \"file://{}\"\n[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/*\"\n\
         object = \"{{ref}}.zip\"\nname = \"all\"\n",
        place.upstream.root().display()
    ));
    let ran = place.run(&["sync", "all"], &[]);
    assert_eq!(ran.only_line()["ref"], branch, "{ran:?}");
    assert!(!hidden(&ran.stderr) && !hidden(&ran.stdout), "{ran:?}");
}

#[test]
fn a_pack_that_drips_is_given_up() {
    let place = Place::new();
    // More than one piece of a pack.
    let noise = crate::support::generate::noise(2_000_000, 1);
    place.repository.commit_on(MAIN, &[("a", noise.into())]);
    let server = GitServer::start(place.upstream.root(), None);
    place.routes(&format!(
        "[[space]]\nurl = \"{}\"\n[[route]]\nrepository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"a.zip\"\n",
        server.space_url()
    ));
    let ca = server.ca_file();
    let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
    let drip = GitFault::Drip(4096, Duration::from_millis(10));
    server.fault_once(GitOp::Fetch, drip);
    let least = [
        trust,
        ("LOW_SPEED_SECONDS", "1"),
        ("LOW_SPEED_BYTES", "1000000000"),
    ];
    let ran = place.run(&["sync"], &least);
    let line = ran.only_line();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(
        (&line["error"]["kind"], &line["error"]["transient"]),
        (&"fetch".into(), &true.into())
    );
    assert!(
        ran.stderr
            .contains("fewer than 1000000000 bytes a second came for 1 s"),
        "{ran:?}"
    );
    // And however slow it may be, a delivery has an end.
    let drip = GitFault::Drip(1001, Duration::from_millis(100));
    server.fault_once(GitOp::Fetch, drip);
    let slow = [trust, ("LOW_SPEED_SECONDS", "0"), ("DELIVERY_SECONDS", "3")];
    let ran = place.run(&["sync"], &slow);
    assert_eq!(ran.only_line()["error"]["kind"], "deadline", "{ran:?}");
    assert_eq!(place.run(&["sync"], &[trust]).code, Some(0));
}

/// Delivers over TLS and from disk, twice each: one version of one object, whose key is this one.
fn assert_delivered_once(case: &str, repository: &str, ref_name: &str, object: &str, key: &str) {
    let place = Place::new();
    let upstream = place.upstream.repository(repository);
    let commit = upstream.commit_on(ref_name, &[("a", "a".into())]);
    let server = GitServer::start(place.upstream.root(), None);
    let ca = server.ca_file();
    let trust = [("SSL_CERT_FILE", ca.to_str().unwrap())];
    for (store, url) in [
        ("over-tls", server.space_url()),
        (
            "from-disk",
            format!("file://{}", place.upstream.root().display()),
        ),
    ] {
        place.routes(&format!(
            "[[space]]\nurl = \"{url}\"\n[[route]]\nrepository = \"{repository}\"\nref = \"{ref_name}\"\n\
             object = \"{object}\"\n"
        ));
        let ran = place.run(&["sync", "--store", store], &trust);
        let line = ran.only_line();
        assert_eq!(line["outcome"], "published", "{case}, {store}: {ran:?}");
        let found = ["repository", "ref", "object_key", "commit"].map(|field| line[field].as_str());
        let expected = [repository, ref_name, key, &commit].map(Some);
        assert_eq!(found, expected, "{case}, {store}");

        let again = place.run(&["sync", "--store", store], &trust);
        let outcome = &again.only_line()["outcome"];
        assert_eq!(outcome, "already_current", "{case}, {store}: {again:?}");
        let stored = Store::open(&place.path(store)).unwrap();
        assert_eq!(stored.keys("sources").unwrap(), [key], "{case}, {store}");
        let versions = stored.versions("sources", key).unwrap();
        assert_eq!(versions.len(), 1, "{case}, {store}");
        let zip = versions[0].path();
        assert_zip_file_equals(&zip, &expected_entries(&upstream, &commit), &commit);
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
}

#[test]
fn invoke_delivers_the_pushes_of_both_webhooks() {
    for (file, tip, repository, ref_name) in [
        (
            "project-push-update.json",
            "ac95515a74d468441fa3852d5e3715a8f1826be6",
            "APP/web",
            MAIN,
        ),
        (
            "project-push-japanese.json",
            "aa1b216d686999e654e08bd89c19ba5a5bdc2b62",
            "APP/管理画面",
            "refs/heads/機能/画面一覧",
        ),
        (
            "git-push-create.form",
            "84a516841ba77a5b4648de2cd0dfcb30ea46dbb4",
            "APP/web",
            "refs/heads/release/2024-05",
        ),
        (
            "git-push-tag.form",
            "28a2a8ea32d6af154de724c5b8ecf08219205f79",
            "APP/web",
            "refs/tags/v1.4.0",
        ),
        (
            "git-push-update.json",
            "e9d71f5ee7c92d6dc9e92ffdad17b8bd49418f98",
            "APP/web",
            MAIN,
        ),
    ] {
        let place = Place::new();
        let upstream = place.upstream.repository(repository);
        let commit = upstream.commit_on(ref_name, &[("a", "a".into())]);
        let server = GitServer::start(place.upstream.root(), None);
        place.routes(&format!(
            "[[space]]\nurl = \"{}\"\n[[route]]\nrepository = \"{repository}\"\nref = \"{ref_name}\"\nobject = \"pushed.zip\"\n",
            server.space_url()
        ));
        let body = fs::read_to_string(event(file)).unwrap();
        assert!(body.contains(tip), "{file}");
        // A Git webhook names its space, and only routes of that space take it. A tip that is not the event's would be
        // waited for.
        let escaped = server.space_url().replace(':', "%3A").replace('/', "%2F");
        let body = body
            .replace("https%3A%2F%2Fexample.backlog.com%2Fgit", &escaped)
            .replace("https://example.backlog.jp/git", &server.space_url())
            .replace(tip, &commit);
        fs::write(place.path(file), body).unwrap();
        let ca = server.ca_file();
        let ran = place.run(
            &["invoke", file],
            &[("SSL_CERT_FILE", ca.to_str().unwrap())],
        );
        let line = ran.only_line();
        assert_eq!(
            (ran.code, &line["outcome"]),
            (Some(0), &"published".into()),
            "{file}: {ran:?}"
        );
        assert_eq!(line["commit"], commit.as_str(), "{file}");
        assert_zip_file_equals(
            &place.zip("pushed.zip"),
            &expected_entries(&upstream, &commit),
            &commit,
        );
    }
}

#[test]
fn invoke_takes_what_the_functions_get() {
    // The tip that the events name is never there, and waited for once each.
    for (file, outcomes) in [
        ("apigw-v1-project-push.json", &["published"][..]),
        ("apigw-v2-project-push.json", &["published"]),
        ("apigw-v1-git-push.json", &["ignored"]),
        ("apigw-v2-git-push.json", &["ignored"]),
        ("sqs-job.json", &["published"]),
        ("sqs-sweep.json", &["published"]),
    ] {
        let place = Place::new();
        let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
        let text = fs::read_to_string(event(file)).unwrap();
        let text = text.replace("ac95515a74d468441fa3852d5e3715a8f1826be6", &commit);
        fs::write(place.path(file), text).unwrap();
        let ran = place.run(&["invoke", file], &[]);
        let found: Vec<_> = ran.lines.iter().map(|line| &line["outcome"]).collect();
        assert_eq!(found, outcomes, "{file}: {ran:?}");
        assert_eq!(ran.code, Some(0), "{file}: {ran:?}");
    }
    let place = Place::new();
    for (name, text, said) in [
        (
            "body",
            r#"{"requestContext":{},"rawPath":"/","body":"!","isBase64Encoded":true}"#,
            "its body should be base64",
        ),
        (
            "job",
            r#"{"Records":[{"body":"hello"}]}"#,
            "cannot read a job from the queue",
        ),
    ] {
        fs::write(place.path(name), text).unwrap();
        let ran = place.run(&["invoke", name], &[]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}

#[test]
fn a_git_webhook_of_another_space_is_ignored() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let ran = place.run(&["invoke", &event("git-push-update.form")], &[]);
    let line = ran.only_line();
    assert_eq!(
        (ran.code, &line["reason"]),
        (
            Some(0),
            &format!(
                "no space of the table is https://example.backlog.com/git; it has file://{}",
                place.upstream.root().display()
            )
            .into()
        ),
        "{ran:?}"
    );
    assert_eq!(
        sorted_fields(line),
        ["outcome", "reason", "ref", "repository"]
    );
    assert!(!place.path("backlog-bridge-store/sources").exists());
}

#[test]
fn a_failure_is_a_line_with_what_is_known() {
    let place = Place::new();
    place
        .repository
        .commit_on("refs/heads/develop", &[("a", "a".into())]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let disk = format!("file://{}", place.upstream.root().display());
    let check = "check the space's url and the network";
    for (case, url, kind, transient, says) in [
        (
            "nobody listens",
            &*format!("https://{closed}/git"),
            "unreachable",
            true,
            check,
        ),
        (
            "no such host",
            "https://nowhere.invalid/git",
            "unreachable",
            true,
            check,
        ),
        (
            "no such ref",
            &disk,
            "ref_not_found",
            false,
            "it has refs/heads/develop",
        ),
    ] {
        place.routes(&format!(
            "[[space]]\nurl = \"{url}\"\n[[route]]\nname = \"web\"\nrepository = \"APP/web\"\nref = \"{MAIN}\"\n\
             object = \"web.zip\"\n"
        ));
        let ran = place.run(&["sync"], &[]);
        let line = ran.only_line();
        assert_eq!(
            (ran.code, &line["outcome"]),
            (Some(1), &"failed".into()),
            "{case}: {ran:?}"
        );
        let known = [
            "bucket",
            "duration_ms",
            "error",
            "object_key",
            "outcome",
            "ref",
            "repository",
            "route",
        ];
        assert_eq!(sorted_fields(line), known, "{case}");
        let error = &line["error"];
        assert_eq!(
            sorted_fields(error),
            ["kind", "message", "transient"],
            "{case}"
        );
        assert_eq!(
            (&error["kind"], &error["transient"]),
            (&kind.into(), &transient.into()),
            "{case}: {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{case}: {message}");
        assert_eq!(ran.stderr, format!("web: failed: {message}\n"), "{case}");
    }
}

#[test]
fn the_most_talkative_log_holds_no_secret() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let (user, right) = ("robot@example.com", "right-Marker:p@ss/w0rd");
    let server = GitServer::start(place.upstream.root(), Some((user, right)));
    place.routes(&format!(
        "[[space]]\nurl = \"{}\"\ncredentials = \"env:BACKLOG\"\n[[route]]\nrepository = \"APP/web\"\n\
         ref = \"{MAIN}\"\nobject = \"web/main.zip\"\n",
        server.space_url()
    ));
    let ca = server.ca_file();
    for (password, code) in [("wrong-Marker:p@ss/w0rd", 1), (right, 0)] {
        let ran = place.run(
            &["sync"],
            &[
                ("SSL_CERT_FILE", ca.to_str().unwrap()),
                ("BACKLOG_USERNAME", user),
                ("BACKLOG_PASSWORD", password),
                ("LOG_LEVEL", "debug"),
            ],
        );
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(
            ran.stderr.contains("DEBUG"),
            "it is talkative: {}",
            ran.stderr
        );
        let header = BASE64_STANDARD.encode(format!("{user}:{password}"));
        for secret in [password, "Marker", &header] {
            assert!(
                !ran.stdout.contains(secret),
                "{secret} is in {}",
                ran.stdout
            );
            assert!(
                !ran.stderr.contains(secret),
                "{secret} is in {}",
                ran.stderr
            );
        }
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_stored() {
    let place = Place::new();
    let noise = crate::support::generate::noise(3_000_000, 1);
    place.repository.commit_on(MAIN, &[("noise", noise.into())]);
    let Some(disk) = TinyDisk::mount(place.path("disk"), 1) else {
        return;
    };
    let disk = disk.path().to_str().unwrap();
    let store = format!("{disk}/store");
    for (case, arguments, environment, kind, says) in [
        (
            "temporary files",
            &["sync"][..],
            &[("TMPDIR", disk)][..],
            "disk",
            "point TMPDIR elsewhere",
        ),
        (
            "the store",
            &["sync", "--store", &store],
            &[],
            "bucket",
            "the disk of the store is full",
        ),
    ] {
        let ran = place.run(arguments, environment);
        let line = ran.only_line();
        assert_eq!(
            (ran.code, &line["error"]["kind"]),
            (Some(1), &kind.into()),
            "{case}: {ran:?}"
        );
        assert!(ran.stderr.contains(says), "{case}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{case}: {}", ran.stderr);
        assert!(line.get("version_id").is_none(), "{case}: {line}");
    }
    let right = place.run(&["sync"], &[]);
    assert_eq!(right.only_line()["outcome"], "published", "{right:?}");
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_not_the_end_of_the_process() {
    let place = Place::new();
    let noise = crate::support::generate::noise(3_000_000, 1);
    place.repository.commit_on(MAIN, &[("noise", noise.into())]);
    let mut limited = Command::new("sh");
    limited.current_dir(place.folder.path()).args([
        "-c",
        "ulimit -f 1000; exec \"$0\" sync",
        env!("CARGO_BIN_EXE_backlog-bridge"),
    ]);
    let ran = Ran::from(run_within(&mut limited, LIMIT).unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let error = &ran.only_line()["error"];
    assert_eq!(
        (&error["kind"], &error["transient"]),
        (&"disk".into(), &true.into()),
        "{ran:?}"
    );
}

#[test]
fn nothing_is_lost_while_there_is_no_room() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let Some(disk) = TinyDisk::mount(place.path("disk"), 1) else {
        return;
    };
    let path = disk.path().to_str().unwrap();
    place.routes(&format!(
        "[[space]]\nurl = \"file://{}\"\n[[route]]\nrepository = \"APP/web\"\nref = \"refs/heads/*\"\nobject = \"{{ref}}.zip\"\n",
        place.upstream.root().display()
    ));
    for (case, store, variables) in [
        ("the store", format!("{path}/store"), vec![]),
        (
            "temporary files",
            "elsewhere".to_owned(),
            vec![("TMPDIR", path)],
        ),
    ] {
        let served = crate::serve::Place {
            folder: tempfile::tempdir().unwrap(),
            upstream: crate::support::upstream::Upstream::at(place.upstream.root()),
            repository: place.repository.clone(),
        };
        fs::copy(
            place.path("routes.toml"),
            served.folder.path().join("routes.toml"),
        )
        .unwrap();
        let arguments = ["--sweep-seconds", "3600", "--store", &store];
        let serving = served.serve(&arguments, &variables);
        serving.wait_for("sweep: ");
        let filler = disk.fill();
        // New branches, which no sweep would find.
        let names = ["refs/heads/one", "refs/heads/two"];
        for name in names {
            let noise = crate::support::generate::noise(50_000, 7);
            let commit = place.repository.commit_on(name, &[("a", noise.into())]);
            let push = crate::support::service::project_push("create", name, &[&commit]);
            assert_eq!(serving.post(&serving.token, push).0, 202);
        }
        for _ in names {
            let line = serving.line();
            assert_eq!(line["error"]["transient"], true, "{case}: {line}");
        }
        let text = serving.wait_for("trying again in 10.00 s");
        assert!(text.contains("free some"), "{case}: {text}");
        fs::remove_file(filler).unwrap();
        for _ in names {
            assert_eq!(serving.line()["outcome"], "published", "{case}");
        }
        assert_eq!(serving.stop().0, Some(0));
    }
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
            &[
                "there is no routing table none.toml",
                "write one with `backlog-bridge init`",
            ][..],
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
            &[
                "no route is named \"web-mian\"; did you mean web-main?\n",
                "known routes: web-main",
            ],
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
            "a store below a file",
            &["sync", "--store", "a-file/store"],
            none,
            &["a-file/store", "choose another directory"],
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
        assert_refused(&place, case, arguments, environment, says);
    }
}

fn assert_refused(
    place: &Place,
    case: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
    says: &[&str],
) {
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

#[test]
fn a_likely_mistake_is_told_with_what_is_right() {
    let place = Place::new();
    let (sjis, _, _) = encoding_rs::SHIFT_JIS.encode("# 開発\n");
    fs::write(place.path("sjis.toml"), sjis).unwrap();
    let utf16 = "\u{feff}# 開発\n".encode_utf16().flat_map(u16::to_le_bytes);
    fs::write(place.path("utf16.toml"), utf16.collect::<Vec<_>>()).unwrap();
    fs::write(place.path("half"), r#"{"type":12}"#).unwrap();
    let commit = "1".repeat(40);
    let github = format!(
        r#"{{"ref":"{MAIN}","before":"{commit}","after":"{commit}","commits":[],
            "repository":{{"url":"https://github.com/o/web","clone_url":"https://github.com/o/web.git"}}}}"#
    );
    fs::write(place.path("github"), github).unwrap();
    for (case, arguments, says) in [
        (
            "an option that is of no use there",
            &["--aws", "demo"][..],
            &["this command does not use --aws; drop it"][..],
        ),
        (
            "another such option, behind the command",
            &["demo", "--routes", "x"],
            &["unexpected argument '--routes'"],
        ),
        (
            "--replace without --aws",
            &["sync", "--replace"],
            &["--replace is for --aws"],
        ),
        (
            "no such repository",
            &["demo", "../x"],
            &[
                "cannot clone ../x; name the folder of a Git repository, or a URL",
                "'../x' does not exist",
            ],
        ),
        (
            "minutes",
            &["serve", "--sweep-seconds", "15m"],
            &["expected a whole number of seconds, such as 900 for 15 minutes"],
        ),
        (
            "Shift_JIS",
            &["routes", "check", "--routes", "sjis.toml"],
            &[
                "cannot read the routing table sjis.toml: it is probably Shift_JIS",
                "iconv -f CP932 -t UTF-8 FILE",
            ],
        ),
        (
            "UTF-16",
            &["sync", "--routes", "utf16.toml"],
            &[
                "utf16.toml: it is UTF-16 and should be UTF-8",
                "iconv -f UTF-16 -t UTF-8 FILE",
            ],
        ),
        (
            "an event in Shift_JIS",
            &["invoke", "sjis.toml"],
            &["sjis.toml: it is probably Shift_JIS"],
        ),
        (
            "half an event",
            &["invoke", "half"],
            &[
                "half: `content`: expected an object, in a push with `repository`, `ref` and `revisions`",
            ],
        ),
        (
            "GitHub's event",
            &["invoke", "github"],
            &[
                "github: this is no Backlog webhook: `revisions` is missing",
                "GitHub, Gitea or Forgejo",
            ],
        ),
    ] {
        assert_refused(&place, case, arguments, &[], says);
    }
}

#[test]
fn a_store_that_is_in_use_is_refused() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let _holder = Store::open(&place.path("backlog-bridge-store")).unwrap();
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
fn check_and_explain_say_what_a_table_delivers() {
    let place = Place::new();
    place.routes(
        "[[space]]\nurl = \"https://example.backlog.com/git\"\n\
         [[route]]\nname = \"web-main\"\nrepository = \"APP/web\"\nref = \"refs/heads/main\"\nobject = \"web/main.zip\"\n\
         [[route]]\nrepository = \"APP/web\"\nref = \"refs/tags/v*\"\nobject = \"{repository}/{ref}.zip\"\nbucket = \"releases\"\n",
    );
    for (arguments, stdout, stderr) in [
        (
            &["routes", "check"][..],
            "web-main: APP/web refs/heads/main -> s3://my-sources/web/main.zip (sweep: all)\n\
             APP/web refs/tags/v*: APP/web refs/tags/v* -> s3://releases/{repository}/{ref}.zip (sweep: existing)\n",
            "warning: routes.toml:2: https://example.backlog.com/git is the space of the examples; write the URL of yours\n\
             routes.toml: OK, 2 routes\n",
        ),
        (
            &["routes", "explain", "APP/web", "refs/tags/v1"],
            "web-main: does not match: takes refs/heads/main\n\
             APP/web refs/tags/v*: writes s3://releases/web/v1.zip\n",
            "",
        ),
    ] {
        let ran = place.run(arguments, &[("SOURCE_BUCKET", "my-sources")]);
        let found = (ran.code, ran.stdout.as_str(), ran.stderr.as_str());
        assert_eq!(found, (Some(0), stdout, stderr), "{arguments:?}");
    }
}

#[test]
fn routes_that_can_meet_in_one_object_are_refused_or_warned_of() {
    let place = Place::new();
    let space = |name: &str| {
        format!("[[space]]\nname = \"{name}\"\nurl = \"https://{name}.backlog.com/git\"\n")
    };
    let route = |space: &str, repository: &str, pattern: &str, object: &str| {
        format!(
            "[[route]]\nname = \"{object} {pattern}\"\nspace = \"{space}\"\nrepository = \"{repository}\"\n\
             ref = \"{pattern}\"\nobject = \"{object}\"\n"
        )
    };
    let (main, branches, tags) = ("refs/heads/main", "refs/heads/*", "refs/tags/*");
    for (case, routes, code, says) in [
        (
            "two spaces",
            route("a", "APP/web", main, "APP/web/main.zip")
                + &route("b", "APP/web", branches, "{project}/{repository}/{ref}.zip"),
            2,
            "routes.toml:18: expected an object of its own, found \"{project}/{repository}/{ref}.zip\" to be \
             s3://my-sources/APP/web/main.zip for https://b.backlog.com/git APP/web refs/heads/main, as \
             \"APP/web/main.zip\" of line 12 is for https://a.backlog.com/git APP/web refs/heads/main",
        ),
        (
            "another repository's branch",
            route("a", "APP/web2", branches, "site/{ref}.zip")
                + &route("a", "APP/api", main, "site/prod.zip"),
            2,
            "routes.toml:18: expected an object of its own, found \"site/prod.zip\" to be s3://my-sources/site/prod.zip \
             for APP/api refs/heads/main, as \"site/{ref}.zip\" of line 12 is for APP/web2 refs/heads/prod",
        ),
        (
            "another repository's name",
            route("a", "APP/web", branches, "{repository}-{ref}.zip")
                + &route(
                    "a",
                    "APP/web-api",
                    "refs/heads/m*",
                    "{repository}-{ref}.zip",
                ),
            2,
            "routes.toml:18: expected an object of its own, found \"{repository}-{ref}.zip\" to be \
             s3://my-sources/web-api-m.zip for APP/web-api refs/heads/m, as \"{repository}-{ref}.zip\" of line 12 is \
             for APP/web refs/heads/api-m",
        ),
        (
            "a branch and a tag of one route",
            route("a", "APP/web", "refs/*", "{ref}.zip"),
            2,
            "routes.toml:12: expected an object of its own, found \"{ref}.zip\" to be s3://my-sources/x.zip for APP/web \
             refs/tags/x, as for refs/heads/x",
        ),
        (
            "two exact routes",
            route("a", "APP/web", main, "web.zip")
                + &route("a", "APP/web", "refs/tags/v1", "web.zip"),
            2,
            "routes.toml:18: expected an object of its own, found \"web.zip\" to be s3://my-sources/web.zip",
        ),
        (
            "branches and tags",
            route("a", "APP/web", branches, "{ref}.zip")
                + &route("a", "APP/web", tags, "{ref}.zip"),
            0,
            "warning: routes.toml:18: \"{ref}.zip\" is s3://my-sources/x.zip for APP/web refs/tags/x, as \"{ref}.zip\" \
             of line 12 is for APP/web refs/heads/x; whichever comes second fails with key_conflict\n\
             routes.toml: OK, 2 routes\n",
        ),
        (
            "a branch and all of them",
            route("a", "APP/web", main, "web/main.zip")
                + &route("a", "APP/web", branches, "web/{ref}.zip"),
            0,
            "routes.toml: OK, 2 routes\n",
        ),
        (
            "globs that cannot meet",
            route("a", "APP/web", "refs/heads/release/*", "{ref}.zip")
                + &route("a", "APP/web", "refs/tags/v*", "{ref}.zip"),
            0,
            "routes.toml: OK, 2 routes\n",
        ),
    ] {
        place.routes(&(space("a") + &space("b") + &routes));
        let ran = place.run(&["routes", "check"], &[("SOURCE_BUCKET", "my-sources")]);
        assert_eq!(ran.code, Some(code), "{case}: {ran:?}");
        if code == 0 {
            assert_eq!(ran.stderr, says, "{case}");
        } else {
            assert!(ran.stderr.contains(says), "{case}: {}", ran.stderr);
        }
        // Such tables may be in use, so nothing else refuses them.
        let ran = place.run(&["routes", "explain", "APP/web", main], &[]);
        assert_ne!(ran.code, Some(2), "{case}: {ran:?}");
    }
}

#[test]
fn explain_says_which_routes_take_a_ref_and_why_others_do_not() {
    let place = Place::new();
    let writes = "web-main: writes s3://sources/web/main.zip\n";
    let other = "web-main: does not match: takes refs/heads/main\n";
    let nobody = "web-main: does not match: takes the repository APP/web\n";
    for (repository, ref_name, code, stdout, stderr) in [
        ("APP/web", MAIN, 0, writes, ""),
        ("APP/web", "main", 0, writes, "refs/heads/main:\n"),
        ("APP/web", "heads/main", 0, writes, "refs/heads/main:\n"),
        (
            "APP/web",
            "refs/heads/dev",
            1,
            other,
            "no route delivers APP/web refs/heads/dev\n",
        ),
        (
            "APP/web",
            "dev",
            1,
            other,
            "refs/heads/dev:\nno route delivers APP/web refs/heads/dev or refs/tags/dev\n",
        ),
        (
            "app/web",
            MAIN,
            1,
            nobody,
            "no route delivers app/web refs/heads/main; did you mean APP/web?\n",
        ),
        (
            "APP/wbe",
            MAIN,
            1,
            nobody,
            "no route delivers APP/wbe refs/heads/main; did you mean APP/web?\n",
        ),
        (
            "OTHER/api",
            MAIN,
            1,
            nobody,
            "no route delivers OTHER/api refs/heads/main\n",
        ),
    ] {
        let ran = place.run(&["routes", "explain", repository, ref_name], &[]);
        let found = (ran.code, &*ran.stdout, &*ran.stderr);
        assert_eq!(
            found,
            (Some(code), stdout, stderr),
            "{repository} {ref_name}"
        );
    }
    for (repository, ref_name, says) in [
        ("web", "main", "PROJECT/repository"),
        (
            "APP/web",
            "a b",
            "expected a ref as refs/heads/main or main, found \"a b\"",
        ),
        (
            "APP/web",
            "refs/heads/a b",
            "expected a full ref name as refs/heads/main",
        ),
    ] {
        let wrong = place.run(&["routes", "explain", repository, ref_name], &[]);
        assert_eq!(wrong.code, Some(2));
        assert!(wrong.stderr.contains(says), "{wrong:?}");
    }
}

#[test]
fn a_table_to_begin_with_comes_from_the_program_alone() {
    let place = Place::new();
    let example = place.run(&["routes", "example"], &[]);
    assert_eq!((example.code, &*example.stderr), (Some(0), ""));
    place.routes(&example.stdout);
    let ran = place.run(&["routes", "check"], &[]);
    let warning = "warning: routes.toml:11: https://example.backlog.com/git is the space of the examples; write the URL of yours\n";
    let expected = format!("{warning}routes.toml: OK, 3 routes\n");
    assert_eq!((ran.code, ran.stderr), (Some(0), expected));
}

#[test]
fn check_refuses_what_cannot_work_and_what_loaded_before_still_loads() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    place.route("APP/web", MAIN, "web//main");
    let ran = place.run(&["routes", "check"], &[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let odd = "warning: routes.toml:7: the object key \"web//main\" ";
    assert_eq!(ran.stderr.matches(odd).count(), 2, "{ran:?}");
    let ran = place.run(&["sync"], &[]);
    assert_eq!(ran.only_line()["outcome"], "published", "{ran:?}");

    let table = "[[space]]\nurl = \"https://a.backlog.com/git\"\ncredentials = \"env:BACKLOG\"\n[[route]]\n\
        repository = \"APP/web.git\"\nref = \"refs/heads/main\"\nobject = \"web.zip\"\n";
    place.routes(table);
    let fault = "routes.toml:5: expected the repository without .git, as \"APP/web\": it is fetched from \
        https://a.backlog.com/git/APP/web.git.git\n";
    let ran = place.run(&["routes", "check"], &[]);
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(2), format!("backlog-bridge: {fault}"))
    );
    // It fails for another reason, and is told why it cannot work.
    let ran = place.run(&["sync"], &[]);
    assert_eq!(ran.only_line()["error"]["kind"], "credentials", "{ran:?}");
    assert!(
        ran.stderr.starts_with(&format!("warning: {fault}")),
        "{ran:?}"
    );

    place.routes(&table.replace("web.zip\"", "web.zip\"\nbucket = \"s3://sources\""));
    let ran = place.run(&["routes", "check"], &[]);
    assert!(
        ran.stderr
            .contains("routes.toml:8: expected the name of a bucket alone, without s3://"),
        "{ran:?}"
    );
}

#[test]
fn a_mark_at_the_beginning_of_a_file_is_no_part_of_it() {
    let place = Place::new();
    let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let table = fs::read_to_string(place.path("routes.toml")).unwrap();
    place.routes(&format!("\u{feff}{table}"));
    let push = crate::support::service::project_push("update", MAIN, &[&commit]);
    fs::write(place.path("event"), format!("\u{feff}{push}")).unwrap();
    let ran = place.run(&["invoke", "event"], &[]);
    assert_eq!(ran.only_line()["outcome"], "published", "{ran:?}");
}

#[test]
fn an_event_may_come_from_stdin() {
    let place = Place::new();
    let commit = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let push = crate::support::service::project_push("update", MAIN, &[&commit]);
    fs::write(place.path("event"), push).unwrap();
    let mut command = Command::new("sh");
    let command = command
        .current_dir(place.folder.path())
        .args([
            "-c",
            "\"$0\" invoke - < event",
            env!("CARGO_BIN_EXE_backlog-bridge"),
        ])
        .env_remove("SOURCE_BUCKET");
    let ran = Ran::from(run_within(command, LIMIT).unwrap());
    assert_eq!(ran.only_line()["outcome"], "published", "{ran:?}");
}

/// A Japanese Windows shows what WSL prints in cp932. A character that is not in it breaks the line, or a script that reads it.
#[test]
fn what_is_said_can_be_shown_in_cp932() {
    let place = Place::new();
    let main = "refs/heads/機能/ログイン";
    let commit = place
        .repository
        .commit_on(main, &[("表示.txt", "a".into())]);
    let push = crate::support::service::project_push("update", main, &[&commit]);
    fs::write(place.path("event"), push).unwrap();
    place.route("APP/web", main, "web/機能.zip");
    let said = |arguments: &[&str]| {
        let ran = place.run(arguments, &[]);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        let (_, _, is_lossy) = encoding_rs::SHIFT_JIS.encode(&text);
        assert!(!is_lossy, "{arguments:?}: {text}");
        text
    };
    let table = said(&["routes", "check"]);
    assert!(table.contains("web/機能.zip"), "{table}");
    for arguments in [
        &["routes", "example"][..],
        &["routes", "explain", "APP/web", main],
        &["routes", "explain", "APP/web", "refs/heads/mian"],
        &["invoke", "event"],
        &["invoke", &event("project-test-delivery-push.json")],
        &["invoke", &event("project-push-japanese.json")],
        &["demo"],
        &["--help"],
    ] {
        said(arguments);
    }
    place.route("APP/web", "main", "web/");
    said(&["routes", "check"]);
    fs::remove_file(place.path("routes.toml")).unwrap();
    said(&["invoke", "event"]);
}

#[test]
fn a_shell_completes_and_every_command_has_a_page_of_the_manual() {
    let place = Place::new();
    let help = place.run(&["--help"], &[]).stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names
        .filter(|name| *name != "help" && help.contains(&format!("\n  {name} ")))
        .collect();
    assert!(names.contains(&"completions"), "{help}");
    fs::create_dir(place.path("man")).unwrap();
    let ran = place.run(&["man", "man"], &[]);
    assert_eq!((ran.code, ran.stderr), (Some(0), String::new()));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = place.run(&["completions", shell], &[]);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
        for name in &names {
            assert!(ran.stdout.contains(name), "{shell}: {name}");
        }
    }
    for name in names {
        let page = place.path("man").join(format!("backlog-bridge-{name}.1"));
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("SYNOPSIS"), "{text}");
    }
    // It is for those who pack a release.
    assert!(!help.contains("man "), "{help}");
    let ran = place.run(&["man", "nowhere"], &[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cannot write into nowhere"), "{ran:?}");
}

#[test]
fn a_branch_that_never_was_is_not_said_to_be_gone() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    place.route("APP/web", "refs/heads/*", "{ref}.zip");
    let ran = place.run(&["invoke", &event("project-push-create-empty.json")], &[]);
    assert_eq!(ran.only_line()["outcome"], "branch_gone", "{ran:?}");
    assert_eq!(
        ran.stderr,
        "web-main: there is no refs/heads/release/2024-05, and no object at s3://sources/release/2024-05.zip yet\n"
    );
}

#[test]
fn help_fits_its_terminal_and_breaks_no_word() {
    let place = Place::new();
    for command in [
        &[][..],
        &["demo"],
        &["serve"],
        &["invoke"],
        &["sync"],
        &["routes"],
        &["routes", "check"],
        &["routes", "explain"],
        &["routes", "push"],
        &["routes", "pull"],
        &["routes", "example"],
        &["webhook"],
        &["webhook", "add"],
        &["webhook", "list"],
        &["webhook", "remove"],
        &["webhook", "test"],
        &["webhook", "rotate"],
        &["completions"],
    ] {
        let help = |columns: &str| {
            let arguments = [command, &["--help"]].concat();
            place.run(&arguments, &[("COLUMNS", columns)]).stdout
        };
        let widest = |text: &str| text.lines().map(|line| line.chars().count()).max();
        let (narrow, wide) = (help("80"), help("300"));
        assert!(widest(&narrow) <= Some(80), "{command:?}: {narrow}");
        assert!(widest(&wide) <= Some(100), "{command:?}: {wide}");
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&narrow), words(&wide), "{command:?}");
        // An option is shown where it is used.
        for (option, users) in [
            ("--store", &["demo", "serve", "invoke", "sync"][..]),
            ("--replace", &["serve", "invoke", "sync"]),
            ("--aws", &["serve", "invoke", "sync", "check", "explain"]),
            (
                "--routes",
                &[
                    "serve", "invoke", "sync", "check", "explain", "push", "add", "list", "remove",
                    "test", "rotate",
                ],
            ),
        ] {
            let uses = command.last().is_some_and(|name| users.contains(name));
            let is_shown = narrow
                .lines()
                .any(|line| line.trim_start().starts_with(option));
            assert_eq!(is_shown, uses, "{command:?} {option}: {narrow}");
        }
    }
}

#[test]
fn options_may_stand_before_the_command() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    fs::rename(place.path("routes.toml"), place.path("table.toml")).unwrap();
    let ran = place.run(&["--routes", "table.toml", "--store", "here", "sync"], &[]);
    assert_eq!(ran.only_line()["outcome"], "published", "{ran:?}");
    assert!(place.path("here").is_dir());
    let ran = place.run(&["--routes", "table.toml", "routes", "check"], &[]);
    assert_eq!(ran.stderr, "table.toml: OK, 1 route\n");
}

#[test]
fn the_demo_works_with_and_without_a_repository() {
    let place = Place::new();
    let sample = place.run(&["demo"], &[]);
    assert_eq!(sample.code, Some(0), "{sample:?}");
    let why = "It is the sample, as this folder is in no Git repository. For another one: demo PATH_OR_URL";
    assert!(sample.stdout.contains(why), "{sample:?}");
    place.upstream.repository("APP/empty");
    let mut empty = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
    let empty = empty
        .current_dir(place.upstream.root().join("APP/empty.git"))
        .arg("demo")
        .stdin(Stdio::null());
    let empty = Ran::from(run_within(empty, LIMIT).unwrap());
    assert_eq!(empty.code, Some(0), "{empty:?}");
    let why = "It is the sample, as the repository here has no commit yet.";
    assert!(empty.stdout.contains(why), "{empty:?}");
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    place.repository.set_symbolic_ref("HEAD", MAIN);
    let path = place.repository.path().to_str().unwrap();
    let own = place.run(&["demo", path, "--store", "kept"], &[]);
    assert_eq!(own.code, Some(0), "{own:?}");
    assert!(place.path("kept/sources/DEMO/web.zip").is_dir());
    // As it was asked for before.
    let none = place.run(&["demo", "--repository", "/does/not/exist"], &[]);
    assert_eq!(none.code, Some(2), "{none:?}");
    // In a bare one.
    let mut bare = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
    let bare = bare.current_dir(path).arg("demo").stdin(Stdio::null());
    let bare = Ran::from(run_within(bare, LIMIT).unwrap());
    assert_eq!(bare.code, Some(0), "{bare:?}");
    assert!(bare.stdout.contains("DEMO/web"), "{bare:?}");
}

#[test]
fn no_proxy_and_no_name_of_a_folder_stops_the_first_commands() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let nobody = "http://127.0.0.1:1";
    let temporary = place.path("一時 フォルダ #1");
    fs::create_dir(&temporary).unwrap();
    let temporary = temporary.to_str().unwrap();
    let folder = place.path("作業 場所%20?");
    fs::create_dir(&folder).unwrap();
    fs::copy(place.path("routes.toml"), folder.join("routes.toml")).unwrap();
    for proxy in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        for command in ["demo", "sync"] {
            let mut run = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
            let run = run
                .current_dir(&folder)
                .arg(command)
                .env_remove("SOURCE_BUCKET")
                .env(proxy, nobody)
                .env("TMPDIR", temporary)
                .stdin(Stdio::null());
            let ran = Ran::from(run_within(run, LIMIT).unwrap());
            assert_eq!(ran.code, Some(0), "{proxy}, {command}: {ran:?}");
        }
    }
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
    let left = fs::read_dir(folder.join("backlog-bridge-store/sources")).unwrap();
    assert!(left.count() > 0, "it was delivered here");
}

#[test]
fn a_demo_that_nobody_reads_to_its_end_or_that_is_stopped_tidies_up() {
    let place = Place::new();
    for (case, script) in [
        ("head", "\"$0\" demo | head -1"),
        ("gone at once", "\"$0\" demo | true"),
        (
            "Ctrl-C",
            "\"$0\" demo > out & sleep 0.4; kill -INT $!; wait $!",
        ),
        (
            "a service manager",
            "\"$0\" demo > out & sleep 0.2; kill -TERM $!; wait $!",
        ),
    ] {
        let temporary = place.path(case);
        fs::create_dir(&temporary).unwrap();
        let mut shell = Command::new("bash");
        let shell = shell
            .current_dir(place.folder.path())
            .args(["-m", "-c", script, env!("CARGO_BIN_EXE_backlog-bridge")])
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null());
        let ran = Ran::from(run_within(shell, LIMIT).unwrap());
        assert_eq!(
            fs::read_dir(&temporary).unwrap().count(),
            0,
            "{case}: {ran:?}"
        );
        assert!(!ran.stderr.contains("panicked"), "{case}: {ran:?}");
    }
}

#[test]
fn a_delivery_that_nobody_reads_of_ends_as_well_as_any() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a.txt", "a".into())]);
    assert_eq!(place.run(&["sync"], &[]).code, Some(0));
    // A version that cannot be built on, so that there is a reason to tell of.
    let zip = place.zip("web/main.zip");
    let mut bytes = fs::read(&zip).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&zip, bytes).unwrap();
    place.repository.commit_on(MAIN, &[("a.txt", "b".into())]);
    for (case, stderr) in [("nobody reads stderr", true), ("somebody does", false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command.current_dir(place.folder.path()).arg("sync");
        command.env_remove("SOURCE_BUCKET").stdin(Stdio::null());
        let (reader, writer) = std::io::pipe().unwrap();
        if stderr {
            drop(reader);
            command.stderr(writer);
        }
        let output = command.stdout(Stdio::piped()).output().unwrap();
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = if stderr {
            "published"
        } else {
            "already_current"
        };
        assert_eq!(line["outcome"], expected, "{case}");
        assert_eq!(output.status.code(), Some(0), "{case}");
    }
    assert_eq!(place.versions("web/main.zip").len(), 2);
}
