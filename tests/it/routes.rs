//! `routes push` and `routes pull`: a routing table on its way to a deployed bridge and back.

use std::{
    fs,
    process::{Command, Output, Stdio},
    time::Duration,
};

use backlog_bridge::route::{Origin, RouteTable};
use tempfile::TempDir;

use crate::support::{
    process::run_within,
    s3::{ACCESS_KEY, Op, SECRET_KEY, TestS3},
};

const TABLE: &str = "[[space]]\nurl = \"https://example.backlog.com/git\"\ncredentials = \"secret:git\"\n\
    [[route]]\nname = \"web\"\nrepository = \"APP/web\"\nref = \"refs/heads/main\"\nobject = \"web.zip\"\n";

struct Operator {
    folder: TempDir,
    s3: TestS3,
}

impl Operator {
    async fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            s3: TestS3::start().await,
        }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("routes.toml"), text).unwrap();
    }

    /// Runs the program, and returns its status and what it says on stdout and stderr.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .current_dir(self.folder.path())
            .arg("routes")
            .args(arguments)
            .env("SOURCE_BUCKET", "sources")
            .env("AWS_ENDPOINT_URL_S3", self.s3.endpoint())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_REGION", "ap-northeast-1")
            .stdin(Stdio::null());
        let run = move || run_within(&mut command, Duration::from_secs(30)).expect("it ends");
        let Output {
            status,
            stdout,
            stderr,
        } = tokio::task::spawn_blocking(run).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    /// Stores what no bridge can read.
    async fn spoil(&self, bytes: Vec<u8>) {
        let client = self.s3.client();
        let put = client.put_object().bucket("sources");
        let put = put.key("config/routes.toml").body(bytes.into());
        put.send().await.unwrap();
    }

    fn stored(&self) -> usize {
        self.s3.versions("sources", "config/routes.toml").len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_stored_and_read_back_as_it_is() {
    let operator = Operator::new().await;
    let (code, _, said) = operator.run(&["pull"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no routing table at s3://sources/config/routes.toml yet"));

    operator.write(TABLE);
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("+ web: APP/web refs/heads/main -> s3://sources/web.zip (sweep: all)"),
        "{said}"
    );
    let (code, text, said) = operator.run(&["pull"]).await;
    assert_eq!((code, &*text), (Some(0), TABLE), "{said}");

    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is this table already"), "{said}");
    assert_eq!(operator.stored(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_shown_before_it_is_stored() {
    let operator = Operator::new().await;
    operator.write(TABLE);
    operator.run(&["push", "--yes"]).await;
    operator.write(&TABLE.replace("web.zip", "web/main.zip"));
    let (code, _, said) = operator.run(&["push"]).await;
    assert_eq!(code, Some(2), "{said}");
    for wanted in [
        "-object = \"web.zip\"\n+object = \"web/main.zip\"",
        "- web: APP/web refs/heads/main -> s3://sources/web.zip (sweep: all)",
        "+ web: APP/web refs/heads/main -> s3://sources/web/main.zip (sweep: all)",
        "not a terminal; pass --yes to store without asking",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(operator.stored(), 1, "nothing was stored");
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(operator.stored(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_else_changed_meanwhile_is_not_overwritten() {
    let operator = Operator::new().await;
    operator.write(TABLE);
    let client = operator.s3.client();
    operator.s3.before(Op::PutObject, move || async move {
        let put = client
            .put_object()
            .bucket("sources")
            .key("config/routes.toml");
        put.body(b"# theirs".to_vec().into()).send().await.unwrap();
    });
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("somebody else has changed"), "{said}");
    assert_eq!(operator.run(&["pull"]).await.1, "# theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_deployed_bridge_would_refuse_is_not_stored() {
    let operator = Operator::new().await;
    for (table, wanted) in [
        (
            TABLE.replace("https://example.backlog.com/git", "file:///srv/git"),
            "routes.toml:2",
        ),
        (TABLE.replace("ref = ", "reff = "), "routes.toml:7"),
    ] {
        operator.write(&table);
        let (code, _, said) = operator.run(&["push", "--yes"]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
    // The functions would take it, and cannot work with it: what it names is not there.
    let env = TABLE.replace("secret:git", "env:BACKLOG");
    operator.write(&env.replace("APP/web", "APP/web.git"));
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(2), "{said}");
    for wanted in [
        "warning: routes.toml:2: https://example.backlog.com/git is the space of the examples",
        "routes.toml:2: https://example.backlog.com/git reads its login from BACKLOG_USERNAME and BACKLOG_PASSWORD, which \
         the deployed functions do not have; expected credentials as \"secret:NAME\"",
        "routes.toml:6: expected the repository without .git",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert_eq!(operator.stored(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_too_large_is_not_stored() {
    let operator = Operator::new().await;
    operator.write(&format!("{TABLE}{}", "#".repeat(4_194_305 - TABLE.len())));
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(2), "{said}");
    let wanted = "routes.toml:1: expected a table of at most 4194304 bytes, found 4194305 bytes; leave out comments";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(operator.stored(), 0);

    operator.write(&format!("{TABLE}{}", "#".repeat(4_194_304 - TABLE.len())));
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, text, _) = operator.run(&["pull"]).await;
    assert_eq!((code, text.len()), (Some(0), 4_194_304));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_which_routes_meet_is_not_stored() {
    let operator = Operator::new().await;
    let route =
        "[[route]]\nrepository = \"APP/api\"\nref = \"refs/heads/*\"\nobject = \"{ref}.zip\"\n";
    operator.write(&format!("{TABLE}{route}"));
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(2), "{said}");
    let wanted = "routes.toml:12: expected an object of its own, found \"{ref}.zip\" to be s3://sources/web.zip for \
        APP/api refs/heads/web, as \"web.zip\" of line 8 is for APP/web refs/heads/main";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(operator.stored(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_read_is_replaced() {
    let broken = b"[[route]\n".to_vec();
    for (case, stored, wanted) in [
        ("too large", vec![b'#'; 4_194_305], "cannot be read"),
        ("no UTF-8", vec![b'#', 0xff], "cannot be read"),
        ("not TOML", broken, "s3://sources/config/routes.toml:1: "),
    ] {
        let operator = Operator::new().await;
        operator.write(TABLE);
        operator.spoil(stored).await;
        let (code, _, said) = operator.run(&["push"]).await;
        assert_eq!(code, Some(2), "{case}: it asks: {said}");
        for wanted in [
            wanted,
            "all routes are shown as new",
            "+ web: APP/web refs/heads/main -> s3://sources/web.zip (sweep: all)",
        ] {
            assert!(said.contains(wanted), "{case}: {wanted}: {said}");
        }
        assert_eq!(operator.stored(), 1, "{case}");
        let (code, _, said) = operator.run(&["push", "--yes"]).await;
        assert_eq!(code, Some(0), "{case}: {said}");
        assert_eq!(operator.run(&["pull"]).await.1, TABLE, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_mended_meanwhile_is_not_overwritten() {
    let operator = Operator::new().await;
    operator.write(TABLE);
    operator.spoil(vec![b'#', 0xff]).await;
    let client = operator.s3.client();
    operator.s3.before(Op::PutObject, move || async move {
        let put = client
            .put_object()
            .bucket("sources")
            .key("config/routes.toml");
        put.body(b"# theirs".to_vec().into()).send().await.unwrap();
    });
    let (code, _, said) = operator.run(&["push", "--yes"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("somebody else has changed"), "{said}");
    assert_eq!(operator.run(&["pull"]).await.1, "# theirs");
}

/// What an editor makes of a table, by the schema that the command prints.
struct Editor {
    schemas: boon::Schemas,
    schema: boon::SchemaIndex,
}

impl Editor {
    fn new() -> Self {
        let printed = std::process::Command::new(env!("CARGO_BIN_EXE_backlog-bridge"))
            .args(["routes", "schema"])
            .output()
            .unwrap();
        assert!(printed.status.success());
        let printed = serde_json::from_slice(&printed.stdout).unwrap();
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("table.json", printed).unwrap();
        let schema = compiler.compile("table.json", &mut schemas).unwrap();
        Self { schemas, schema }
    }

    /// What it marks as wrong.
    fn marks(&self, text: &str) -> Option<String> {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(err) => return Some(err.to_string()),
        };
        let table = serde_json::to_value(table).unwrap();
        let marked = self.schemas.validate(&table, self.schema);
        marked.err().map(|err| format!("{err:#}"))
    }
}

#[test]
fn an_editor_takes_what_the_reader_takes_and_marks_what_it_refuses() {
    let editor = Editor::new();
    let space = "url = \"https://example.backlog.com/git\"";
    let route = "repository = \"APP/web\"\nref = \"refs/heads/main\"\nobject = \"web/main.zip\"";
    let table = |space: &str, route: &str| format!("[[space]]\n{space}\n[[route]]\n{route}\n");
    let reads = |text: &str| {
        RouteTable::parse("routes.toml", text, Some("sources"), Origin::CommandLine)
            .map(drop)
            .map_err(|err| err.to_string())
    };
    let example = include_str!("../../routes.example.toml").to_owned();
    let well = [
        example,
        table(space, route),
        table("url = \"HTTPS://Git.Example.com:8443/Git/\"", route),
        table("url = \"http://[::1]:3000\"", route),
        table("url = \"file:///srv/a b?c\"", route),
        table(&format!("{space}\ncredentials = \"env:BACKLOG\""), route),
        table(
            &format!("{space}\ncredentials = \"secret:arn:aws:secretsmanager:r:1:secret:a/b-AbC\""),
            route,
        ),
        table(
            &format!("{space}\napi_key = \"secret:a\"\nlanguage = \"ja\"\nname = \"例\""),
            &format!("space = \"例\"\n{route}"),
        ),
        table(
            space,
            &route
                .replace("main\"", "release/*\"")
                .replace("web/main.zip", "{project}/{repository}/{ref}.zip"),
        ),
        table(
            space,
            &route
                .replace("APP/web", "APP/ウェブ 2")
                .replace("heads/main", "heads/機能　x"),
        ),
        table(
            space,
            &format!("{route}\npaused = true\npipeline = \"web-{{ref}}\""),
        ),
        table(space, &format!("{route}\npaused = \"false\"")),
        table(
            space,
            &format!("{route}\nname = \"x\"\nbucket = \"a-b.c\"\nsweep = \"existing\""),
        ),
    ];
    for text in well {
        assert_eq!(reads(&text), Ok(()), "{text}");
        assert_eq!(editor.marks(&text), None, "{text}");
    }
    let wrong = [
        String::new(),
        format!("[[space]]\n{space}\n"),
        format!("[[route]]\n{route}\n"),
        format!("[space]\n{space}\n[[route]]\n{route}\n"),
        format!("{}[[bucket]]\nname = \"x\"\n", table(space, route)),
        table("", route),
        table("url = \"example.backlog.com/git\"", route),
        table("url = \"https://taro:x@example.backlog.com/git\"", route),
        table("url = \"https://example.backlog.com/git?a=b\"", route),
        table("url = \"ssh://example.backlog.com/git\"", route),
        table("url = 1", route),
        table(&format!("{space}\ncredentials = \"hunter2\""), route),
        table(&format!("{space}\ncredentials = \"env:\""), route),
        table(&format!("{space}\nlanguage = \"fr\""), route),
        table(&format!("{space}\nname = \"\""), route),
        table(&format!("{space}\nbranch = \"main\""), route),
        table(space, "repository = \"APP/web\"\nref = \"refs/heads/main\""),
        table(space, &route.replace("APP/web", "web")),
        table(space, &route.replace("APP/web", "A/B/c")),
        table(space, &route.replace("refs/heads/main", "main")),
        table(space, &route.replace("refs/heads/main", "refs/heads/a b")),
        table(space, &route.replace("web/main.zip", "")),
        table(space, &route.replace("web/main.zip", "/web.zip")),
        table(space, &format!("{route}\nbucket = \"s3://sources\"")),
        table(space, &format!("{route}\nsweep = \"never\"")),
        table(space, &format!("{route}\npaused = \"yes\"")),
        table(space, &format!("{route}\npaused = 1")),
        table(space, &format!("{route}\npipeline = \"web/main\"")),
        table(space, &format!("{route}\nbranch = \"main\"")),
    ];
    for text in wrong {
        assert!(reads(&text).is_err(), "{text}");
        assert!(editor.marks(&text).is_some(), "{text}");
    }
}
