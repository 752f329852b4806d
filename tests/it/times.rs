//! The times of an archive's entries, and what those see of a change who compare times.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use backlog_bridge::deliver::{Success, step::SecondLook};
use proptest::{prelude::*, test_runner::TestRunner};
use tempfile::TempDir;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::support::{
    MAIN,
    generate::{noise, source},
    git_server::{
        Fault as GitFault,
        Op::{Fetch, Handshake},
    },
    oracle::read_zip,
    process::run_within,
    s3::{Fault, Op, StoredVersion},
    tls::trusting,
    upstream::Content,
    world::World,
};

/// 2026-11-29 23:34:27, an odd second.
const NOW: i64 = 1_795_995_267;
/// That time as entries have it.
const THEN: i64 = NOW - 1;
const HOUR: i64 = 3600;
/// 1980-01-02, the first time that an entry has.
const FIRST: i64 = 315_619_200;

fn date(seconds: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let date = date.format(&Rfc2822).unwrap();
    date.replace("+0000", "GMT")
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// The time of each entry, by its path.
fn times(version: &StoredVersion) -> BTreeMap<String, i64> {
    let zip = read_zip(version.bytes.as_ref().unwrap()).unwrap();
    let times = zip.members.into_iter().map(|member| {
        let path = String::from_utf8(member.name).unwrap();
        (path, member.time.expect("a time"))
    });
    times.collect()
}

fn by_path<const N: usize>(times: [(&str, i64); N]) -> BTreeMap<String, i64> {
    times.map(|(path, time)| (path.to_owned(), time)).into()
}

/// Commits `files` and delivers them while S3's clock shows `now`.
async fn publish<const N: usize>(
    world: &World,
    now: i64,
    files: [(&str, Content); N],
) -> BTreeMap<String, i64> {
    world.s3.set_date(&date(now));
    world.repository.commit_on(MAIN, &files);
    world.publish(&format!("at {now}")).await;
    times(&world.newest())
}

#[tokio::test]
async fn what_changed_has_the_time_of_its_delivery_and_all_else_keeps_its_own() {
    let world = World::new().await;
    let files = [
        ("a.txt", "100".into()),
        ("empty", "".into()),
        ("lib", Content::Submodule("ab".repeat(20))),
        ("run.sh", "#!/bin/sh".into()),
        ("src/資料.txt", "x".into()),
        ("src-1", "y".into()),
    ];
    let first = publish(&world, NOW, files).await;
    assert!(first.values().all(|time| *time == THEN), "{first:?}");
    assert_eq!(first.len(), 6);

    let found = publish(&world, NOW + 100, [("a.txt", "200".into())]).await;
    let mut expected = first;
    expected.insert("a.txt".into(), THEN + 100);
    assert_eq!(found, expected, "a change that keeps the size");

    // In the same second, and then by a clock that is behind a little.
    let executable = Content::Executable(b"#!/bin/sh".into());
    let found = publish(&world, NOW + 100, [("run.sh", executable)]).await;
    expected.insert("run.sh".into(), THEN + 102);
    assert_eq!(found, expected, "another mode");
    let link = Content::Submodule("cd".repeat(20));
    let found = publish(&world, NOW - 300, [("lib", link)]).await;
    expected.insert("lib/".into(), THEN + 104);
    assert_eq!(found, expected, "another commit of a submodule");

    let moves = [
        ("a.txt", Content::Deleted),
        ("src/a.txt", "200".into()),
        ("src-1", "z".into()),
        ("z", "".into()),
    ];
    let found = publish(&world, NOW + HOUR, moves).await;
    expected.remove("a.txt");
    for path in ["src/a.txt", "src-1", "z"] {
        expected.insert(path.into(), THEN + HOUR);
    }
    assert_eq!(found, expected, "moved, changed, new");

    let found = publish(&world, NOW + 2 * HOUR, [("a.txt", "200".into())]).await;
    expected.insert("a.txt".into(), THEN + 2 * HOUR);
    assert_eq!(found, expected, "there again");
}

#[tokio::test]
async fn times_go_on_from_the_version_that_is_replaced() {
    let world = World::new().await;
    let files = [("a", "1".into()), ("b", "1".into()), ("c", "1".into())];
    publish(&world, NOW, files).await;

    // Another process is faster with a version of its own: what changed in it is as old as it is.
    world.s3.set_date(&date(NOW + 100));
    world.repository.commit_on(MAIN, &[("a", "2".into())]);
    let (rival, to) = (world.rival(), world.destination());
    let repository = world.repository.clone();
    world.s3.before(Op::PutObject, move || async move {
        let ours = repository.resolve(MAIN).unwrap();
        repository.commit_on(MAIN, &[("b", "2".into())]);
        let delivery = rival
            .deliver(&to, None, SecondLook::Needed, &Arc::default())
            .await;
        assert_eq!(delivery.result.unwrap(), Success::Published);
        let newer = [("a", "3".into()), ("c", "2".into())];
        repository.commit_on(MAIN, &newer);
        assert_ne!(repository.resolve(MAIN).unwrap(), ours);
    });
    world.publish("refused").await;
    let [newest, rivals, _] = &world.versions()[..] else {
        panic!("not three versions")
    };
    assert_eq!(
        times(rivals),
        by_path([("a", THEN + 100), ("b", THEN + 100), ("c", THEN)])
    );
    assert_eq!(
        times(newest),
        by_path([("a", THEN + 102), ("b", THEN + 100), ("c", THEN + 102)])
    );
}

#[tokio::test]
async fn an_archive_is_not_written_behind_another_version_than_it_was_made_for() {
    let mut world = World::new().await;
    // A step back is written at once.
    world.second_look = SecondLook::Waived;
    publish(&world, NOW, [("a", "1".into()), ("b", "1".into())]).await;
    world.s3.set_date(&date(NOW + 100));
    let ours = world.repository.commit_on(MAIN, &[("a", "2".into())]);
    let (rival, to, repository) = (world.rival(), world.destination(), world.repository.clone());
    let back = ours.clone();
    world.s3.before(Op::PutObject, move || async move {
        repository.commit_on(MAIN, &[("b", "2".into())]);
        let delivery = rival
            .deliver(&to, None, SecondLook::Needed, &Arc::default())
            .await;
        assert_eq!(delivery.result.unwrap(), Success::Published);
        // The archive that was refused is of the tip again.
        repository.set_ref(MAIN, &back);
    });
    world.publish("refused").await;
    assert_eq!(world.versions().len(), 3);
    assert_eq!(world.newest().metadata["git-commit"], ours);
    // b is what it was two versions ago, and yet has changed.
    let expected = by_path([("a", THEN + 100), ("b", THEN + 102)]);
    assert_eq!(times(&world.newest()), expected);
}

#[tokio::test]
async fn a_write_that_is_tried_again_needs_no_second_archive() {
    let world = World::new().await;
    publish(&world, NOW, [("a", "1".into()), ("b", "1".into())]).await;
    for (n, fault) in [Fault::Status(500), Fault::Drop, Fault::ApplyThenDrop]
        .into_iter()
        .enumerate()
    {
        let now = NOW + 100 * (1 + i64::try_from(n).unwrap());
        world.s3.fail_once(Op::PutObject, fault);
        let content = n.to_string();
        let found = publish(&world, now, [("a", (&*content).into())]).await;
        assert_eq!(found, by_path([("a", now - 1), ("b", THEN)]), "{fault:?}");
    }
    // Each version was read once.
    assert_eq!(world.s3.count(Op::GetObjectVersion), 3);
}

#[test]
fn times_survive_a_fetch_of_everything() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            let text = source(40_000, 1);
            let repack = |level: &str| {
                world.repository.repack();
                let level = format!("core.compression={level}");
                world.repository.git(&["-c", &level, "repack", "-adfFq"]);
            };
            let files = [("a", "1".into()), ("b", text.into())];
            world.repository.commit_on(MAIN, &files);
            repack("1");
            world.s3.set_date(&date(NOW));
            world.publish("first").await;
            server.fault(
                Handshake,
                GitFault::response(|response| {
                    let text = String::from_utf8(response).unwrap();
                    text.replace("fetch=shallow", "fetch=shallov").into()
                }),
            );
            // What did not change comes as another stream.
            world.repository.commit_on(MAIN, &[("a", "2".into())]);
            repack("9");
            world.s3.set_date(&date(NOW + 100));
            world.publish("second").await;
            let expected = by_path([("a", THEN + 100), ("b", THEN)]);
            assert_eq!(times(&world.newest()), expected);
            let ops = server.ops();
            assert_eq!(ops.iter().filter(|op| **op == Fetch).count(), 2);
            let [newest, first] = &world.versions()[..] else {
                panic!("not two versions")
            };
            let size = |version: &StoredVersion| version.bytes.as_ref().unwrap().len();
            assert!(size(newest) < size(first), "the same stream came");
        });
    });
}

#[tokio::test]
async fn a_clock_from_before_all_times_goes_on_too() {
    let world = World::new().await;
    let found = publish(&world, 0, [("a", "1".into()), ("b", "1".into())]).await;
    assert_eq!(found, by_path([("a", FIRST), ("b", FIRST)]));
    let found = publish(&world, 0, [("a", "2".into())]).await;
    assert_eq!(found, by_path([("a", FIRST + 2), ("b", FIRST)]));
}

#[tokio::test]
async fn times_start_anew_where_there_is_nothing_to_go_on_from() {
    type Spoil = fn(&mut StoredVersion);
    let cases: [(&str, Spoil); 4] = [
        ("not ours", |version| version.metadata.clear()),
        ("a damaged file", |version| {
            let bytes = version.bytes.as_mut().unwrap();
            let end = bytes.len() / 2;
            bytes[end] ^= 1;
        }),
        ("no tree", |version| {
            version.metadata.remove("git-tree");
        }),
        ("no zip", |version| version.bytes = Some(b"PK".into())),
    ];
    for (case, spoil) in cases {
        let world = World::new().await;
        let files = [("a", "1".into()), ("b", noise(5_000, 1).into())];
        publish(&world, NOW, files).await;
        world.tamper(spoil).await;
        let found = publish(&world, NOW + 100, [("a", "2".into())]).await;
        assert_eq!(
            found,
            by_path([("a", THEN + 100), ("b", THEN + 100)]),
            "{case}"
        );
    }
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_is_not_followed() {
    let world = World::new().await;
    publish(&world, NOW, [("a", "1".into()), ("b", "1".into())]).await;
    let ahead = publish(&world, NOW + HOUR, [("a", "2".into())]).await;
    assert_eq!(ahead, by_path([("a", THEN + HOUR), ("b", THEN)]));
    let right = publish(&world, NOW + 100, [("a", "3".into())]).await;
    assert_eq!(right, by_path([("a", THEN + 100), ("b", THEN + 100)]));
    // Ten minutes are a clock like any other.
    let ahead = publish(&world, NOW + 700, [("a", "4".into())]).await;
    assert_eq!(ahead, by_path([("a", THEN + 700), ("b", THEN + 100)]));
    let right = publish(&world, NOW + 100, [("b", "4".into())]).await;
    assert_eq!(right, by_path([("a", THEN + 700), ("b", THEN + 702)]));
}

#[tokio::test]
async fn without_a_date_the_machine_has_a_clock_too() {
    let world = World::new().await;
    world.repository.commit_on(MAIN, &[("a", "1".into())]);
    for date in ["yesterday", "", "Sun, 29 Nov 2026"] {
        world.s3.set_date(date);
        let before = now();
        world.repository.commit_on(MAIN, &[("a", date.into())]);
        world.publish(date).await;
        let time = times(&world.newest())["a"];
        let after = now();
        assert!((before - 1..=after + 6).contains(&time), "{date:?}: {time}");
    }
}

/// Of any two versions, no path has the same time and something else in it, unless it was gone in between: whatever compares times
/// for equality sees every change, as an entity tag does that is made of time and size.
#[test]
fn the_same_time_is_the_same_content() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let change = (0..3_u8, prop_oneof![Just(None), (0..3_u8).prop_map(Some)]);
    let change = (change, any::<bool>()).prop_map(|((file, content), executable)| {
        let content = content.map_or(Content::Deleted, |content| {
            let bytes = vec![b'0' + content];
            if executable {
                Content::Executable(bytes)
            } else {
                Content::File(bytes)
            }
        });
        (format!("{file}.txt"), content)
    });
    let push = (-300..=3_i64, prop::collection::vec(change, 1..3));
    let config = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let history = prop::collection::vec(push, 2..7);
    let test = |history: Vec<(i64, Vec<(String, Content)>)>| {
        runtime.block_on(async {
            let world = World::new().await;
            world.repository.commit_on(MAIN, &[("a", "a".into())]);
            let mut clock = NOW;
            for (later, changes) in &history {
                clock += later.max(&-200);
                world.s3.set_date(&date(clock));
                world.repository.commit_on(MAIN, changes);
                world.publish("a change").await;
            }
            let versions = world.versions();
            let members = versions.iter().map(|version| {
                let zip = read_zip(version.bytes.as_ref().unwrap()).unwrap();
                let members = zip.members.into_iter();
                let members = members.map(|m| ((m.name, m.time), (m.content, m.mode)));
                members.collect::<BTreeMap<_, _>>()
            });
            let members: Vec<_> = members.collect();
            for (n, one) in members.iter().enumerate() {
                for (m, another) in members.iter().enumerate().skip(n + 1) {
                    for (name_and_time, content) in one {
                        // What was deleted and came back within a second or two may have its old time.
                        let is_there = |of: &BTreeMap<(Vec<u8>, Option<i64>), _>| {
                            of.keys().any(|(name, _)| *name == name_and_time.0)
                        };
                        if members[n..m].iter().all(is_there) {
                            let other = another.get(name_and_time);
                            prop_assert!(other.is_none_or(|other| other == content));
                        }
                    }
                }
            }
            Ok(())
        })
    };
    TestRunner::new(config).run(&history, test).unwrap();
}

/// A place where one version after the other is unpacked, and where something is made of what is in it.
struct Workplace {
    world: World,
    folder: TempDir,
}

impl Workplace {
    /// With these files in the repository.
    async fn new(files: &[(&str, &str)]) -> Self {
        let workplace = Self {
            world: World::new().await,
            folder: tempfile::tempdir().unwrap(),
        };
        workplace.deliver(-600, files).await;
        workplace
    }

    /// Delivers a change so many seconds from now.
    async fn deliver(&self, at: i64, files: &[(&str, &str)]) {
        self.world.s3.set_date(&date(now() + at));
        let files: Vec<_> = files
            .iter()
            .map(|&(path, text)| (path, text.into()))
            .collect();
        self.world.repository.commit_on(MAIN, &files);
        self.world.publish("a change").await;
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Unpacks a version over what is there: 0 is the newest.
    fn unpack(&self, version: usize) {
        let version = &self.world.versions()[version];
        let zip = tempfile::NamedTempFile::new().unwrap();
        fs::write(zip.path(), version.bytes.as_ref().unwrap()).unwrap();
        let mut unzip = Command::new("unzip");
        unzip.arg("-qo").arg(zip.path()).arg("-d").arg(self.path());
        // Wherever it is unpacked, it is the same instant.
        unzip.env("TZ", "Asia/Tokyo");
        if let Some(output) = run_within(&mut unzip, LIMIT) {
            assert!(output.status.success(), "{output:?}");
            return;
        }
        println!("unzip is not installed; this does what it does");
        let zip = read_zip(version.bytes.as_ref().unwrap()).unwrap();
        for member in zip.members {
            let path = self.path().join(std::str::from_utf8(&member.name).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, member.content).unwrap();
            let time = Duration::from_secs(member.time.unwrap().try_into().unwrap());
            File::open(&path)
                .unwrap()
                .set_modified(UNIX_EPOCH + time)
                .unwrap();
        }
    }

    /// Runs a program in it, and returns what it printed; nothing if it is not installed.
    fn run(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path());
        for name in ["PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"] {
            command.env_remove(name);
        }
        let Some(output) = run_within(&mut command, LIMIT) else {
            println!("skipped: {program} is not installed");
            return None;
        };
        assert!(output.status.success(), "{program}: {output:?}");
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// What was made was made so many seconds from now.
    fn made(&self, path: &str, at: i64) {
        let time = Duration::from_secs((now() + at).try_into().unwrap());
        let file = File::options().write(true).open(self.path().join(path));
        file.unwrap().set_modified(UNIX_EPOCH + time).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap()
    }
}

const LIMIT: Duration = Duration::from_mins(2);

const MAKEFILE: &str = "out: in\n\tcp in out\n";

#[tokio::test]
async fn make_makes_anew_what_has_changed_and_no_more() {
    let files = [("Makefile", MAKEFILE), ("in", "AAAA"), ("other", "x")];
    let place = Workplace::new(&files).await;
    place.unpack(0);
    if place.run("make", &[]).is_none() {
        return;
    }
    assert_eq!(place.read("out"), "AAAA");
    place.made("out", -500);
    place.deliver(-400, &[("in", "BBBB")]).await;
    place.unpack(0);
    place.run("make", &[]);
    assert_eq!(place.read("out"), "BBBB", "a change that keeps the size");
    place.made("out", -350);
    place.deliver(-300, &[("other", "y")]).await;
    place.unpack(0);
    let said = place.run("make", &[]).unwrap();
    assert!(said.contains("up to date"), "{said}");
}

/// What docs/operate.md says of `touch`.
#[tokio::test]
async fn what_make_cannot_see_is_seen_after_a_touch() {
    let place = Workplace::new(&[("Makefile", MAKEFILE), ("in", "AAAA")]).await;
    place.deliver(-500, &[("in", "BBBB")]).await;
    for (case, first, then, expected) in [
        ("a rollback to an older version", 0, 1, "AAAA"),
        ("a build that ended after the next delivery", 1, 0, "BBBB"),
    ] {
        place.unpack(first);
        fs::remove_file(place.path().join("out")).ok();
        if place.run("make", &[]).is_none() {
            return;
        }
        place.made("out", -100);
        place.unpack(then);
        place.run("make", &[]);
        assert_ne!(
            place.read("out"),
            expected,
            "{case}: docs/operate.md is wrong"
        );
        place.run("sh", &["-c", "find . -type f ! -name out -exec touch {} +"]);
        place.run("make", &[]);
        assert_eq!(place.read("out"), expected, "{case}");
    }
}

#[tokio::test]
async fn cargo_builds_anew_what_has_changed() {
    let main = |text: &str| format!("fn main() {{ println!(\"{text}\"); }}");
    let manifest = "[package]\nname = \"app\"\nedition = \"2024\"\n[workspace]\n";
    let files = [("Cargo.toml", manifest), ("src/main.rs", &main("AAAA"))];
    let place = Workplace::new(&files).await;
    let run = || {
        place.run(
            env!("CARGO"),
            &["run", "--quiet", "--offline", "--target-dir", "target"],
        )
    };
    place.unpack(0);
    assert_eq!(run().as_deref(), Some("AAAA"));
    // By a clock that is ahead, so that this is after the build.
    place.deliver(60, &[("src/main.rs", &main("BBBB"))]).await;
    place.unpack(0);
    assert_eq!(run().as_deref(), Some("BBBB"));
}

#[tokio::test]
async fn python_runs_what_was_delivered_and_not_what_it_compiled_before() {
    let place = Workplace::new(&[("app.py", "LIMIT = 100\n"), ("page.html", "old page")]).await;
    place.unpack(0);
    let limit = || place.run("python3", &["-c", "import app; print(app.LIMIT)"]);
    let Some(first) = limit() else {
        return;
    };
    assert_eq!(first, "100");
    let compiled = fs::read_dir(place.path().join("__pycache__")).unwrap();
    assert_eq!(compiled.count(), 1, "the compiled module is kept");
    let answer = "import sys, threading, functools, urllib.request as r, http.server as h
server = h.ThreadingHTTPServer(('127.0.0.1', 0), type('Quiet', (h.SimpleHTTPRequestHandler,), {'log_message': lambda *_: None}))
threading.Thread(target=server.serve_forever, daemon=True).start()
url = 'http://127.0.0.1:%d/page.html' % server.server_address[1]
headers = {'If-Modified-Since': sys.argv[1]} if sys.argv[1:] else {}
try: answer = r.build_opener(r.ProxyHandler({})).open(r.Request(url, headers=headers), timeout=30)
except r.HTTPError as error: answer = error
print(answer.status, answer.headers['Last-Modified'] if answer.status == 200 else '', sep=';')";
    let seen = place.run("python3", &["-c", answer]).unwrap();
    let seen = seen.strip_prefix("200;").unwrap();
    assert_eq!(place.run("python3", &["-c", answer, seen]).unwrap(), "304;");

    let changes = [("app.py", "LIMIT = 200\n"), ("page.html", "new page")];
    place.deliver(-500, &changes).await;
    place.unpack(0);
    assert_eq!(limit().unwrap(), "200");
    let answered = place.run("python3", &["-c", answer, seen]).unwrap();
    assert!(
        answered.starts_with("200;"),
        "a browser keeps the old page: {answered}"
    );
}

#[tokio::test]
async fn what_was_unpacked_in_one_time_zone_is_packed_in_another() {
    let place = Workplace::new(&[("a.txt", "a")]).await;
    // The first instant that there is.
    place.world.s3.set_date("Thu, 01 Jan 1970 00:00:00 GMT");
    place.world.tamper(|version| version.metadata.clear()).await;
    place
        .world
        .repository
        .commit_on(MAIN, &[("b.txt", "b".into())]);
    place.world.publish("1970").await;
    place.unpack(0);
    for zone in ["UTC", "Asia/Tokyo", "America/New_York"] {
        let pack = "import os, sys, time, zipfile
os.environ['TZ'] = sys.argv[1]; time.tzset()
with zipfile.ZipFile('again.zip', 'w') as z: z.write('a.txt')
print(int(os.stat('a.txt').st_mtime))";
        if let Some(time) = place.run("python3", &["-c", pack, zone]) {
            assert_eq!(time, "315619200", "{zone}");
        }
    }
}

#[tokio::test]
async fn rsync_copies_what_has_changed() {
    let place = Workplace::new(&[("from/page.html", "old page")]).await;
    let rsync = || place.run("rsync", &["-a", "from/", "to/"]);
    place.unpack(0);
    if rsync().is_none() {
        return;
    }
    place.deliver(-500, &[("from/page.html", "new page")]).await;
    place.unpack(0);
    rsync();
    assert_eq!(place.read("to/page.html"), "new page");
}
