//! What the objects say when they are asked: `status`, `history`, `verify`; and `sync` where it is asked more than to deliver.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use backlog_bridge::local::{Content as Stored, Precondition, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    cli::{Place, Ran},
    support::{
        BUCKET, MAIN,
        process::run_within,
        s3::{ACCESS_KEY, Fault, Op, SECRET_KEY, TestS3},
    },
};

/// Routes with these fields each, in the space of the place.
fn routes(place: &Place, routes: &[&str]) {
    let mut text = format!(
        "[[space]]\nurl = \"file://{}\"\n",
        place.upstream.root().display()
    );
    for route in routes {
        text.extend(["[[route]]\n", route, "\n"]);
    }
    place.routes(&text);
}

fn route(name: &str, ref_name: &str, object: &str) -> String {
    format!(
        "name = \"{name}\"\nrepository = \"APP/web\"\nref = \"{ref_name}\"\nobject = \"{object}\"\n"
    )
}

fn field<'a>(ran: &'a Ran, name: &str) -> Vec<&'a str> {
    let text = |line: &'a Value| line[name].as_str().unwrap_or_default();
    ran.lines.iter().map(text).collect()
}

fn store(place: &Place) -> Store {
    Store::open(&place.path("backlog-bridge-store")).unwrap()
}

/// Stores bytes as a new version, as somebody else would, or a delivery of long ago.
fn put(store: &Store, key: &str, bytes: &[u8], metadata: &Value) {
    let file = store.temporary().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let content = Stored {
        etag: "0".repeat(32),
        size: bytes.len() as u64,
        content_type: "application/zip".into(),
        metadata: serde_json::from_value(metadata.clone()).unwrap(),
        checksums: BTreeMap::default(),
    };
    let put = store.put("sources", key, file, content, &Precondition::None);
    put.unwrap();
}

/// The metadata of the version whose zip is there.
fn metadata(zip: &Path) -> Value {
    let description = fs::read(zip.with_file_name("version.json")).unwrap();
    let description: Value = serde_json::from_slice(&description).unwrap();
    description["content"]["metadata"].clone()
}

#[test]
fn status_tells_each_state_in_json_and_in_prose() {
    let place = Place::new();
    let refs = [
        "main",
        "dev",
        "back",
        "gone",
        "release/1",
        "release/2",
        "paused",
        "other",
    ];
    for name in refs {
        let ref_name = format!("refs/heads/{name}");
        place.repository.commit_on(&ref_name, &[("a", name.into())]);
    }
    let mut table = [
        route("current", MAIN, "main.zip"),
        route("behind", "refs/heads/dev", "dev.zip"),
        route("held", "refs/heads/back", "back.zip"),
        route("gone", "refs/heads/gone", "gone.zip"),
        route("releases", "refs/heads/release/*", "{ref}.zip"),
        route("paused", "refs/heads/paused", "paused.zip"),
        route("foreign", "refs/heads/other", "other.zip"),
    ];
    let set = |table: &[String]| {
        let table: Vec<_> = table.iter().map(String::as_str).collect();
        routes(&place, &table);
    };
    set(&table);
    let named = ["sync", "current", "behind", "held", "gone", "paused"];
    assert_eq!(place.run(&named, &[]).code, Some(0));
    let one = ["sync", "releases", "--ref", "release/1"];
    assert_eq!(place.run(&one, &[]).code, Some(0));
    put(
        &store(&place),
        "other.zip",
        b"a zip of somebody else",
        &json!({}),
    );
    // Everything is well so far, but for what somebody else wrote.
    let well = place.run(&["status", "current", "behind", "held", "gone"], &[]);
    assert_eq!(well.code, Some(0), "{well:?}");

    place
        .repository
        .commit_on("refs/heads/dev", &[("a", "later".into())]);
    let before = place.repository.resolve("refs/heads/back").unwrap();
    place
        .repository
        .commit_on("refs/heads/back", &[("a", "later".into())]);
    place.run(&["sync", "held"], &[]);
    place.repository.set_ref("refs/heads/back", &before);
    place.repository.delete_ref("refs/heads/gone");
    table[5] += "paused = true\npipeline = \"web-{ref}\"\n";
    let missing = table.len();
    let table: Vec<_> = table
        .into_iter()
        .chain([
            route("never", "refs/heads/main", "never.zip"),
            route("typo", "refs/heads/mian", "typo.zip"),
            route("unknown", MAIN, "unknown.zip").replace("APP/web", "APP/none"),
        ])
        .collect();
    set(&table);
    let ran = place.run(&["status"], &[]);
    let expected = [
        ("current", MAIN, "current"),
        ("behind", "refs/heads/dev", "behind"),
        ("held", "refs/heads/back", "held"),
        ("gone", "refs/heads/gone", "branch_gone"),
        ("releases", "refs/heads/release/1", "current"),
        ("releases", "refs/heads/release/2", "never_delivered"),
        ("paused", "refs/heads/paused", "paused"),
        ("foreign", "refs/heads/other", "foreign"),
        ("never", MAIN, "never_delivered"),
        ("typo", "refs/heads/mian", "never_delivered"),
        ("unknown", MAIN, "unknown"),
    ];
    let found = field(&ran, "route").into_iter().zip(field(&ran, "ref"));
    let found: Vec<_> = found.zip(field(&ran, "state")).collect();
    let expected: Vec<_> = expected.map(|(a, b, c)| ((a, b), c)).into();
    assert_eq!(found, expected, "in the order of the table");
    assert_eq!(ran.code, Some(1));
    let of = |name: &str| ran.lines.iter().find(|line| line["route"] == name).unwrap();
    let main = place.repository.resolve(MAIN).unwrap();
    assert_eq!(
        (&of("current")["tip"], &of("current")["commit"]),
        (&json!(main), &json!(main))
    );
    assert!(of("current")["since"].as_str().unwrap().ends_with('Z'));
    assert_eq!(of("paused")["pipeline"], "web-paused");
    for (name, reason) in [
        ("held", "a second look"),
        ("foreign", "backlog-bridge did not write"),
        ("typo", "the repository has no such ref"),
        ("unknown", "APP/none"),
    ] {
        let text = of(name)["reason"].as_str().unwrap_or_default();
        assert!(text.contains(reason), "{name}: {text}");
    }
    // Each alone, as a script asks: red are those that somebody has to look at.
    for (name, code) in [
        ("current", 0),
        ("behind", 1),
        ("held", 0),
        ("gone", 0),
        ("releases", 0),
        ("paused", 0),
        ("foreign", 1),
        ("never", 1),
        ("typo", 1),
        ("unknown", 1),
    ] {
        let ran = place.run(&["status", name], &[]);
        assert_eq!(ran.code, Some(code), "{name}: {ran:?}");
    }
    let prose = place.run(&["status", "--text"], &[]);
    let lines: Vec<_> = prose.stdout.lines().collect();
    assert!(lines[0].starts_with("STATE "), "{prose:?}");
    assert!(lines[2].starts_with("behind "), "{prose:?}");
    let closing = "11 objects: 2 current, 1 behind, 1 held, 1 branch gone, 3 never delivered, 1 paused, 1 foreign, 1 unknown";
    assert_eq!(lines.last(), Some(&closing), "{prose:?}");
    assert!(!prose.stdout.contains('\u{1b}'));
    assert_eq!(missing, 7);

    // A release branch that is gone, and one that never came: neither is red.
    place.repository.delete_ref("refs/heads/release/1");
    let ran = place.run(&["status", "releases"], &[]);
    assert_eq!(field(&ran, "state"), ["branch_gone", "never_delivered"]);
    assert_eq!(ran.code, Some(0));

    let near = place.run(&["status", "curent"], &[]);
    assert_eq!(near.code, Some(2));
    assert!(near.stderr.contains("did you mean current?"), "{near:?}");
}

#[test]
fn sync_says_what_it_would_deliver_and_delivers_one_ref() {
    let place = Place::new();
    for name in ["main", "release/1", "release/2", "held"] {
        place
            .repository
            .commit_on(&format!("refs/heads/{name}"), &[("a", name.into())]);
    }
    let paused = route("held", "refs/heads/held", "held.zip") + "paused = true\n";
    let table = [
        route("main", MAIN, "main.zip"),
        route("releases", "refs/heads/release/*", "{ref}.zip"),
        paused,
    ];
    routes(&place, &table.each_ref().map(String::as_str));

    let dry = place.run(&["sync", "--dry-run"], &[]);
    assert_eq!(
        field(&dry, "outcome"),
        ["would_publish", "ignored"],
        "{dry:?}"
    );
    assert_eq!(dry.lines[1]["reason"], "the route held is paused");
    assert_eq!(dry.code, Some(0));
    let dry = place.run(&["sync", "--dry-run", "releases"], &[]);
    assert_eq!(field(&dry, "outcome"), ["would_publish", "would_publish"]);
    let store = place.path("backlog-bridge-store/sources");
    assert!(!store.exists(), "nothing was stored");

    let one = place.run(&["sync", "--ref", "release/2"], &[]);
    assert_eq!(field(&one, "ref"), ["refs/heads/release/2"], "{one:?}");
    assert_eq!(one.only_line()["outcome"], "published");
    let none = place.run(&["sync", "--ref", "refs/heads/nowhere"], &[]);
    assert_eq!(none.code, Some(2));
    assert!(
        none.stderr.contains("no route takes refs/heads/nowhere"),
        "{none:?}"
    );

    let all = place.run(&["sync"], &[]);
    assert_eq!(
        field(&all, "outcome"),
        ["published", "already_current", "ignored"]
    );
    let dry = place.run(&["sync", "--dry-run"], &[]);
    assert_eq!(
        field(&dry, "outcome"),
        ["already_current", "already_current", "ignored"]
    );
}

#[test]
fn sync_again_makes_a_new_version_of_the_same_commit_and_says_so() {
    let place = Place::new();
    let commit = place
        .repository
        .commit_on(MAIN, &[("a", "a".into()), ("b", "b".into())]);
    place.run(&["sync"], &[]);
    let again = place.run(&["sync", "web-main", "--again"], &[]);
    let line = again.only_line();
    assert_eq!(
        (&line["outcome"], &line["commit"]),
        (&json!("published"), &json!(commit))
    );
    assert!(
        line["reason"].as_str().unwrap().contains("held already"),
        "{line}"
    );
    let versions = place.versions("web/main.zip");
    assert_eq!(versions.len(), 2);
    let [first, second] = [0, 1].map(|nth| metadata(&versions[nth]));
    for name in [
        "git-commit",
        "git-tree",
        "git-author",
        "git-subject",
        "git-ref",
    ] {
        assert_eq!(first[name], second[name], "{name}");
    }
    assert_ne!(first["delivery-id"], second["delivery-id"]);
    assert_eq!(
        second["git-previous"], first["git-previous"],
        "none: there was no other commit"
    );
    let ran = place.run(&["verify"], &[]);
    assert_eq!(
        (ran.code, &ran.only_line()["verdict"]),
        (Some(0), &json!("ok"))
    );

    // A job says so too, as one that comes over the queue; and one that does not leaves the object as it is.
    for (again, expected) in [(true, "published"), (false, "already_current")] {
        let mut job = json!({"route": "web-main", "repository": "APP/web", "ref": MAIN});
        if again {
            job["again"] = json!(true);
        }
        let event = json!({"Records": [{"body": job.to_string()}]});
        fs::write(place.path("event.json"), event.to_string()).unwrap();
        let ran = place.run(&["invoke", "event.json"], &[]);
        assert_eq!(ran.only_line()["outcome"], expected, "{ran:?}");
    }

    routes(&place, &[&route("all", "refs/heads/*", "{ref}.zip")]);
    let refused = place.run(&["sync", "--again"], &[]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("--ref, or pass --yes"),
        "{refused:?}"
    );
    for arguments in [
        &["sync", "all", "--again", "--yes"][..],
        &["sync", "--again", "--ref", "main"],
    ] {
        let ran = place.run(arguments, &[]);
        assert_eq!(ran.only_line()["outcome"], "published", "{ran:?}");
    }
}

#[test]
fn history_lists_more_versions_than_a_page_holds_and_finds_one() {
    const OLD: usize = 1_004;
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    place.run(&["sync"], &[]);
    // As many as that would take the store long to sync to disk. A version is a folder with two files.
    let first = place.zip("web/main.zip");
    let mut described: Value =
        serde_json::from_slice(&fs::read(first.with_file_name("version.json")).unwrap()).unwrap();
    let said = metadata(&first);
    fs::remove_dir_all(first.parent().unwrap()).unwrap();
    for n in 0..OLD {
        described["content"]["metadata"]["git-commit"] = json!(format!("{:040x}", n + 1));
        described["version_id"] = json!(format!("{n:032x}"));
        let object = place.path("backlog-bridge-store/sources/web/main.zip");
        let folder = object.join(format!("@{:08}-{n:032x}", n + 1));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("main.zip"), b"a zip").unwrap();
        fs::write(folder.join("version.json"), described.to_string()).unwrap();
    }
    // Keys that begin with the same, and stand before and behind it.
    for key in ["web/main", "web/main.zip.old", "web/main.zip/x"] {
        put(&store(&place), key, b"another", &said);
    }
    let commit = place.repository.commit_on(MAIN, &[("a", "b".into())]);
    let new = place.run(&["sync"], &[]);
    let id = new.only_line()["version_id"].as_str().unwrap().to_owned();

    let ran = place.run(&["history", "web-main"], &[]);
    assert_eq!((ran.code, ran.lines.len()), (Some(0), 20), "{}", ran.stderr);
    assert_eq!(ran.lines[0]["version_id"], id.as_str());
    assert_eq!(ran.lines[1]["commit"], format!("{OLD:040x}"));
    let newest = format!(
        "backlog-bridge-store/sources/web/main.zip/@{:08}-{id}",
        OLD + 1
    );
    let zip = fs::read(place.path(&newest).join("main.zip")).unwrap();
    let sha256 = Sha256::digest(&zip);
    let sha256 = backlog_bridge::plain::hex(&sha256);
    for line in [&ran.lines[0], new.only_line()] {
        assert_eq!(
            line["archive_sha256"],
            sha256.as_str(),
            "log, S3 and the bytes agree"
        );
    }
    assert_eq!(ran.lines[0]["author"], "Robot");

    let all = place.run(&["history", "web-main", "--limit", "5000"], &[]);
    assert_eq!(all.lines.len(), OLD + 1);
    let mut ids = field(&all, "version_id");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), OLD + 1, "each once");
    assert_eq!(all.lines[OLD]["commit"], format!("{:040x}", 1));

    let first = place.run(
        &["history", "web-main", "--commit", &format!("{:040x}", 1)],
        &[],
    );
    assert_eq!(first.only_line(), &all.lines[OLD]);
    let short = place.run(&["history", "web-main", "--commit", &commit[..8]], &[]);
    assert_eq!(field(&short, "version_id"), [id.as_str()]);
    let one = place.run(&["history", "web-main", "--version-id", &id, "--text"], &[]);
    assert!(
        one.stdout.contains(&format!("revisionValue={id}")),
        "{one:?}"
    );
    assert!(one.stdout.starts_with(&commit), "{one:?}");
    for (arguments, says) in [
        (["--commit", "deadbeef"], "holds the commit deadbeef"),
        (["--version-id", "no-such"], "has no version"),
    ] {
        let arguments = [&["history", "web-main"], &arguments[..]].concat();
        let ran = place.run(&arguments, &[]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
    let wrong = place.run(&["history", "web-main", "--commit", "xyz"], &[]);
    assert_eq!(wrong.code, Some(2));
    println!("{} versions of one key were listed", OLD + 1);
}

/// Where some bytes stand in others, from the `nth` place on.
fn find(bytes: &[u8], wanted: &[u8], nth: usize) -> usize {
    let places = bytes.windows(wanted.len()).enumerate();
    let mut places = places.filter_map(|(at, found)| (found == wanted).then_some(at));
    places
        .nth(nth)
        .unwrap_or_else(|| panic!("{wanted:?} is not there {nth} times"))
}

#[test]
fn verify_finds_and_names_whatever_is_not_as_it_was_written() {
    let place = Place::new();
    let noise = "0123456789abcdef".repeat(64);
    let files: &[(&str, &str)] = &[("a.txt", &noise), ("b.txt", "other"), ("c.txt", &noise)];
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (*path, (*text).into()))
        .collect();
    place.repository.commit_on(MAIN, &files);
    place.run(&["sync"], &[]);
    let zip = place.zip("web/main.zip");
    let bytes = fs::read(&zip).unwrap();
    let well = place.run(&["verify", "web-main"], &[]);
    assert_eq!(
        (well.code, &well.only_line()["verdict"]),
        (Some(0), &json!("ok")),
        "{well:?}"
    );
    assert_eq!(well.only_line()["entries"], 3);

    let directory = find(&bytes, b"PK\x01\x02", 0);
    let last_entry = find(&bytes, b"PK\x01\x02", 2);
    let field = |nth| find(&bytes, b"BG\x18\0", nth);
    // Each byte is flipped in one bit.
    let cases = [
        (
            "a byte of a blob",
            find(&bytes, b"b.txt", 0) + 5 + 9 + 2,
            "b.txt",
        ),
        (
            "the second copy of a blob",
            last_entry.min(directory) - 4,
            "c.txt",
        ),
        ("a name before the data", find(&bytes, b"b.txt", 0), "b.txt"),
        (
            "a name in the directory",
            find(&bytes, b"b.txt", 1),
            "c.txt",
        ),
        ("a mode in the directory", directory + 40, "a.txt"),
        ("the mode of Git", field(1) + 4, "b.txt"),
        ("an id of Git", field(1) + 10, "b.txt"),
        ("the id of an extra field", field(2), "c.txt"),
        ("a time", find(&bytes, b"UT\x05\0", 0) + 6, "a.txt"),
        ("a CRC-32 in the directory", directory + 16, "a.txt"),
        ("the commit in the comment", bytes.len() - 60, "its comment"),
        (
            "the delivery in the comment",
            bytes.len() - 3,
            "its comment",
        ),
        ("the end", find(&bytes, b"PK\x05\x06", 0) + 10, "its end"),
    ];
    for (case, at, named) in cases {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        fs::write(&zip, &altered).unwrap();
        let ran = place.run(&["verify"], &[]);
        let line = ran.only_line();
        assert_eq!(
            (ran.code, &line["verdict"]),
            (Some(1), &json!("differs")),
            "{case}: {ran:?}"
        );
        let problem = line["problem"].as_str().unwrap();
        println!("{case}: {problem}");
        assert!(problem.contains(named), "{case}: {problem}");
    }
    put(
        &store(&place),
        "web/main.zip",
        &bytes[..bytes.len() / 2],
        &metadata(&zip),
    );
    let cut = place.run(&["verify"], &[]);
    assert_eq!(
        (cut.code, &cut.only_line()["verdict"]),
        (Some(1), &json!("differs"))
    );

    // Nobody's, not there, and of another delivery.
    put(&store(&place), "web/main.zip", b"somebody's", &json!({}));
    let foreign = place.run(&["verify"], &[]);
    assert_eq!(foreign.only_line()["verdict"], "unreadable", "{foreign:?}");
    let gone = place.run(&["verify", "web-main", "--version-id", "none"], &[]);
    assert_eq!(gone.only_line()["verdict"], "unreadable");
    assert!(gone.stderr.contains("there is no version"), "{gone:?}");
    let none = place.run(&["verify", "web-main", "--store", "empty"], &[]);
    assert_eq!(
        (none.code, &none.only_line()["verdict"]),
        (Some(1), &json!("unreadable"))
    );
}

#[test]
fn verify_asks_the_git_server_for_what_a_well_made_zip_does_not_tell() {
    let place = Place::new();
    let commits: [&[(&str, &str)]; 4] = [
        &[("a", "a"), ("b", "b")],
        &[("a", "a")],
        &[("a", "a"), ("b", "b"), ("c", "c")],
        &[("a", "a"), ("b", "another")],
    ];
    let mut zips = Vec::new();
    for files in commits {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (*path, (*text).into()))
            .collect();
        let commit = place.repository.commit_exactly_on(MAIN, &files);
        place.run(&["sync", "--now"], &[]);
        let zip = place.versions("web/main.zip").pop().unwrap();
        zips.push((commit, fs::read(&zip).unwrap(), metadata(&zip)));
    }
    let (commit, first, said) = &zips[0];
    let comment = &first[first.len() - 73..];
    for (nth, named) in [
        (1, "\"b\" is missing"),
        (2, "\"c\" is too much"),
        (3, "\"b\" is 100644"),
    ] {
        let mut bytes = zips[nth].1.clone();
        let start = bytes.len() - comment.len();
        bytes[start..].copy_from_slice(comment);
        // As an object, its metadata names another tree. As a file, nothing else is known.
        put(&store(&place), "web/main.zip", &bytes, said);
        let ran = place.run(&["verify"], &[]);
        let problem = ran.only_line()["problem"].as_str().unwrap();
        assert!(problem.contains("holds the tree"), "{problem}");
        fs::write(place.path("x.zip"), &bytes).unwrap();
        let file = place.run(&["verify", "x.zip"], &[]);
        assert_eq!(file.code, Some(0), "{file:?}");
        let asked = place.run(&["verify", "x.zip", "--against-git"], &[]);
        let problem = asked.only_line()["problem"].as_str().unwrap();
        assert_eq!(
            (asked.code, &asked.only_line()["verdict"]),
            (Some(1), &json!("differs"))
        );
        println!("{problem}");
        assert!(problem.contains(named), "{problem}");
    }
    // The commit is one that nobody has.
    let mut bytes = first.clone();
    let start = bytes.len() - comment.len();
    bytes[start..start + 40].copy_from_slice("ab".repeat(20).as_bytes());
    fs::write(place.path("x.zip"), &bytes).unwrap();
    let asked = place.run(&["verify", "x.zip", "--against-git"], &[]);
    assert_eq!(
        (asked.code, &asked.only_line()["verdict"]),
        (Some(1), &json!("differs")),
        "{asked:?}"
    );
    let problem = asked.only_line()["problem"].as_str().unwrap();
    assert!(
        problem.contains("no repository of the table has the commit"),
        "{problem}"
    );
    // And one that is well, and not the tip any more.
    fs::write(place.path("x.zip"), first).unwrap();
    let asked = place.run(&["verify", "x.zip", "--against-git", "--text"], &[]);
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert!(
        asked.stdout.contains(&commit[..8]) && asked.stdout.contains("as the Git server has it")
    );
    let none = place.run(&["verify", "none.zip"], &[]);
    assert_eq!(none.code, Some(2), "{none:?}");
}

/// What a program writes on a terminal of so many columns.
fn on_a_terminal(place: &Place, columns: u16, arguments: &[&str], vars: &[(&str, &str)]) -> String {
    const TERMINAL: &str = "import fcntl, os, pty, struct, sys, termios\n\
        pid, terminal = pty.fork()\n\
        if pid == 0:\n    \
            os.execv(sys.argv[2], sys.argv[2:])\n\
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, int(sys.argv[1]), 0, 0))\n\
        while True:\n    \
            try: some = os.read(terminal, 65536)\n    \
            except OSError: break\n    \
            if not some: break\n    \
            sys.stdout.buffer.write(some)\n\
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let mut command = Command::new("python3");
    command
        .current_dir(place.folder.path())
        .args(["-c", TERMINAL, &columns.to_string()])
        .arg(env!("CARGO_BIN_EXE_backlog-bridge"))
        .args(arguments)
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .envs(vars.iter().copied())
        .stdin(Stdio::null());
    let output = run_within(&mut command, Duration::from_mins(1)).expect("it ends");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_terminal_gets_prose_and_colours_and_a_pipe_the_lines_of_before() {
    let place = Place::new();
    let long = format!("refs/heads/{}", "feature-".repeat(12));
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    place.repository.commit_on(&long, &[("a", "a".into())]);
    let table = [
        route("main", MAIN, "main.zip"),
        route("long", &long, "long.zip"),
    ];
    routes(&place, &table.each_ref().map(String::as_str));

    let green = "\u{1b}[1m\u{1b}[32mpublished\u{1b}[0m";
    let sync = on_a_terminal(&place, 120, &["sync"], &[]);
    assert!(sync.contains(&format!("main: {green}")), "{sync:?}");
    assert!(
        sync.contains("2 objects: 2 new") && !sync.contains("{\""),
        "{sync:?}"
    );
    for (arguments, vars, has_colors) in [
        (&["status"][..], &[][..], true),
        (&["status"], &[("NO_COLOR", "1")], false),
        (&["status"], &[("NO_COLOR", "")], true),
        (&["status"], &[("TERM", "dumb")], false),
        (&["status", "--color", "always"], &[("NO_COLOR", "1")], true),
        (&["--color", "never", "status"], &[], false),
    ] {
        let text = on_a_terminal(&place, 120, arguments, vars);
        assert_eq!(
            text.contains("\u{1b}[32m"),
            has_colors,
            "{arguments:?} {vars:?}: {text:?}"
        );
        assert!(text.contains("2 objects: 2 current"), "{text:?}");
    }
    // A name that is too long for the terminal is cut, and no line is broken.
    let narrow = on_a_terminal(&place, 80, &["status", "--color", "never"], &[]);
    for line in narrow.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(narrow.contains('…'), "{narrow}");
    let wide = on_a_terminal(&place, 200, &["status", "--color", "never"], &[]);
    assert!(wide.contains(&long), "{wide}");
    // Whoever wants JSON gets it there, too.
    let json = on_a_terminal(&place, 80, &["status", "--json"], &[]);
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);

    let piped = place.run(&["sync"], &[]);
    assert_eq!(piped.lines.len(), 2);
    assert_eq!(
        piped.stdout.lines().count(),
        2,
        "no closing line for programs: {piped:?}"
    );
    assert!(!format!("{piped:?}").contains("\\u{1b}"));
    let quiet = place.run(&["-q", "sync"], &[]);
    assert_eq!((quiet.lines.len(), quiet.stderr.as_str()), (2, ""));
    let loud = place.run(&["sync", "main", "--again", "--text", "-v"], &[]);
    assert!(loud.stdout.contains("archive SHA-256 "), "{loud:?}");
    let file = place.run(&["routes", "example", "--json"], &[]);
    assert_eq!(file.code, Some(2), "what is a file has one form: {file:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_not_be_listed_is_named_and_the_rest_is_told() {
    let place = Place::new();
    let s3 = TestS3::start().await;
    for name in ["main", "release/1", "release/2"] {
        let ref_name = format!("refs/heads/{name}");
        place.repository.commit_on(&ref_name, &[("a", name.into())]);
    }
    let table = [
        route("main", MAIN, "main.zip"),
        route("releases", "refs/heads/release/*", "{ref}.zip"),
    ];
    routes(&place, &table.each_ref().map(String::as_str));
    let vars = [
        ("AWS_ENDPOINT_URL_S3", s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
        ("SOURCE_BUCKET", BUCKET),
    ];
    let run = |arguments: &[&str]| {
        let arguments = [arguments, &["--aws"]].concat();
        tokio::task::block_in_place(|| place.run(&arguments, &vars))
    };
    let synced = run(&["sync", "main", "releases"]);
    assert_eq!(synced.code, Some(0), "{synced:?}");
    place.repository.delete_ref("refs/heads/release/2");
    assert_eq!(
        field(&run(&["status"]), "state"),
        ["current", "current", "branch_gone"]
    );

    s3.fail_once(Op::ListObjectsV2, Fault::Status(403));
    let ran = run(&["status"]);
    assert_eq!(
        (ran.code, field(&ran, "state")),
        (Some(0), vec!["current", "current"])
    );
    assert!(
        ran.stderr.contains("allow s3:ListBucket to see them"),
        "{ran:?}"
    );
    s3.fail_once(Op::ListObjectsV2, Fault::Status(403));
    let ran = run(&["verify"]);
    assert_eq!(
        (ran.code, field(&ran, "verdict")),
        (Some(1), vec!["ok", "unreadable"])
    );
    assert_eq!(ran.lines[1]["object"], "s3://sources/{ref}.zip");
    s3.fail_once(Op::ListObjectVersions, Fault::Status(403));
    let ran = run(&["history", "main"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(
        ran.stderr
            .contains("cannot list the versions of s3://sources/main.zip"),
        "{ran:?}"
    );
    // Without it, nobody knows whether there is an object.
    s3.fail_once(Op::HeadObject, Fault::Status(403));
    let ran = run(&["status", "main"]);
    assert_eq!(
        (ran.code, &ran.only_line()["state"]),
        (Some(1), &json!("unknown"))
    );
}

#[test]
fn many_routes_are_told_in_the_order_of_the_table() {
    let place = Place::new();
    let names: Vec<_> = (0..20).map(|n| format!("r{n:02}")).collect();
    let mut table = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let ref_name = format!("refs/heads/{name}");
        // Those that come first have most to do.
        let text = "x".repeat((20 - n) * 10_000);
        place
            .repository
            .commit_on(&ref_name, &[("a", text.as_str().into())]);
        table.push(route(name, &ref_name, &format!("{name}.zip")));
    }
    let table: Vec<_> = table.iter().map(String::as_str).collect();
    routes(&place, &table);
    let ran = place.run(&["sync"], &[]);
    assert_eq!(field(&ran, "route"), names);
    assert!(
        field(&ran, "outcome")
            .iter()
            .all(|outcome| *outcome == "published")
    );
    let told: Vec<_> = ran
        .stderr
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(told, names, "prose, too");
}
