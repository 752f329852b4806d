//! A Git server that lies, all the way: each lie ends in its kind and its class, soon and in little memory, and nothing is
//! written.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use backlog_bridge::{
    deliver::{Delivery, Success},
    error::chain,
    limits::Limits,
    pack::Objects,
    progress::Progress,
    snapshot::Snapshot,
};
use gix::{ObjectId, objs::Kind};
use tokio::runtime::Handle;

use crate::support::{
    BUCKET, KEY, MAIN,
    cases::Cases,
    fault::{Fault, Op, bands, repair_checksum},
    git_server::GitServer,
    pack_builder::{BLOB, FILE, FOLDER, PackBuilder, Step, bomb, delta, id_of, tree, zlib},
    s3::Op as S3Op,
    tls::trusting,
    world::World,
};

/// An id that no object has.
const NOBODY: [u8; 20] = [0x11; 20];

const PERMANENT: bool = false;
const TRANSIENT: bool = true;

/// Delivers from a server, which must fail as expected and write nothing; waits in the thread of the test.
struct Liar<'a> {
    world: &'a World,
    server: &'a GitServer,
    cases: Cases,
}

impl Liar<'_> {
    fn expect(&mut self, case: &str, kind: &'static str, transient: bool, words: &str) {
        let delivery = self.cases.run(case, || {
            let delivery = block(self.world.deliver());
            let verdict = match &delivery.result {
                Ok(_) => "accepted",
                Err(_) => "refused",
            };
            let class = if transient { "transient" } else { "permanent" };
            (delivery, verdict, format!("{kind}, {class}"))
        });
        let Err(error) = delivery.result else {
            panic!("{case}: {:?}", delivery.result)
        };
        let text = chain(&error);
        assert_eq!(
            (error.kind(), error.is_transient()),
            (kind, transient),
            "{case}: {text}"
        );
        assert!(text.contains(words), "{case}: {text}");
        assert!(!text.contains(char::is_control), "{case}: {text:?}");
        assert!(text.len() < 5_000, "{case}: {} bytes of words", text.len());
        assert!(self.world.s3.versions(BUCKET, KEY).is_empty(), "{case}");
        assert_eq!(self.world.s3.count(S3Op::PutObject), 0, "{case}");
        self.server.clear_faults();
    }

    /// Lets the server say that the branch is at `commit`, and send a pack whatever was asked for.
    fn lie(&self, pack: &[u8], commit: ObjectId) {
        self.server
            .fault(Op::LsRefs, Fault::tip(MAIN, &commit.to_string()));
        self.server.fault(Op::Fetch, Fault::pack_instead(pack));
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

fn on_a_liar(group: &'static str, test: impl FnOnce(&mut Liar<'_>)) {
    World::on_a_server(async |world, server| {
        world.repository.commit_on(MAIN, &[("a", "a".into())]);
        let cases = Cases::new(group);
        let (world, server) = (&world, &server);
        test(&mut Liar {
            world,
            server,
            cases,
        });
        // It is not that nothing can be delivered from it.
        let Delivery { result, .. } = world.deliver().await;
        assert_eq!(result.map_err(|err| chain(&err)), Ok(Success::Published));
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
fn a_tree_that_is_not_safe_is_never_delivered() {
    trusting(|| {
        on_a_liar("trees", |liar| {
            let long = "n".repeat(256);
            for (case, mode, name) in [
                ("the folder above", FILE, ".."),
                ("the folder itself", FOLDER, "."),
                ("git's own folder", FOLDER, ".git"),
                ("git's own folder in capitals", FOLDER, ".GIT"),
                ("git's own folder on macOS", FOLDER, ".g\u{200c}it"),
                (
                    "git's own folder on Windows",
                    FILE,
                    ".git::$INDEX_ALLOCATION",
                ),
                ("git's own folder in 8.3 letters", FILE, "git~1"),
                ("no name", FILE, ""),
                ("a path upwards", FILE, "../../etc/passwd"),
                ("an absolute path", "120000", "/etc/passwd"),
                ("a backslash", FILE, "..\\a"),
                ("control characters", FILE, "..\\\u{1b}[2J\n\r"),
                ("a name of 256 bytes", FILE, &long),
                (
                    "a link that submodules are read from",
                    "120000",
                    ".gitmodules",
                ),
                ("a mode that is none", "777777", "a"),
            ] {
                let mut pack = PackBuilder::new();
                let (_, blob) = pack.blob(b"content");
                let folder = pack.tree(&[(FILE, "b", blob)]);
                let id = if mode == FOLDER { folder } else { blob };
                let tree = pack.tree(&[(mode, name, id)]);
                let commit = pack.commit(tree);
                liar.lie(&pack.finish(), commit);
                liar.expect(case, "unsafe_tree", PERMANENT, "");
            }
            for (case, entries) in [
                ("a name twice", [(FILE, "a"), (FILE, "a")]),
                (
                    "a file and a folder of one name",
                    [(FILE, "a"), (FOLDER, "a")],
                ),
                (
                    "a link and what is to stand in it",
                    [("120000", "a"), (FOLDER, "a")],
                ),
                ("another order", [(FILE, "b"), (FILE, "a")]),
            ] {
                let mut pack = PackBuilder::new();
                let (_, blob) = pack.blob(b"/etc");
                let folder = pack.tree(&[(FILE, "f", blob)]);
                let id = |mode: &str| if mode == FOLDER { folder } else { blob };
                let entries = entries.map(|(mode, name)| (mode, name, id(mode)));
                let tree = pack.tree(&entries);
                let commit = pack.commit(tree);
                liar.lie(&pack.finish(), commit);
                liar.expect(case, "unsafe_tree", PERMANENT, "");
            }
            for (case, depth, name, kind) in [
                ("257 folders deep", 257, "d".to_owned(), "unsafe_tree"),
                (
                    "a path over 4,096 bytes",
                    17,
                    "d".repeat(255),
                    "unsafe_tree",
                ),
            ] {
                let mut pack = PackBuilder::new();
                let (_, blob) = pack.blob(b"deep");
                let mut tree = pack.tree(&[(FILE, "a", blob)]);
                for _ in 0..depth {
                    tree = pack.tree(&[(FOLDER, &name, tree)]);
                }
                let commit = pack.commit(tree);
                liar.lie(&pack.finish(), commit);
                liar.expect(case, kind, PERMANENT, "");
            }
            let mut pack = PackBuilder::new();
            let tree = pack.tree(&[(FILE, "a", NOBODY.into())]);
            let commit = pack.commit(tree);
            liar.lie(&pack.finish(), commit);
            liar.expect(
                "a missing blob",
                "snapshot",
                PERMANENT,
                "is missing from the pack",
            );
            let mut pack = PackBuilder::new();
            let commit = pack.commit(NOBODY.into());
            liar.lie(&pack.finish(), commit);
            liar.expect(
                "a missing tree",
                "snapshot",
                PERMANENT,
                "is missing from the pack",
            );
            let mut pack = PackBuilder::new();
            let tree = pack.tree::<&str>(&[]);
            liar.lie(&pack.finish(), tree);
            liar.expect(
                "a tree for a commit",
                "snapshot",
                PERMANENT,
                "is missing from the pack",
            );
        });
    });
}

#[test]
fn a_bomb_is_never_delivered() {
    trusting(|| {
        on_a_liar("bombs", |liar| {
            for (case, leaf) in [
                ("10^10 files of 12 objects", true),
                ("10^10 folders", false),
            ] {
                let (pack, commit) = bomb(leaf);
                liar.lie(&pack.finish(), commit);
                liar.expect(case, "too_large", PERMANENT, "MAX_ENTRIES");
            }
            let mut pack = PackBuilder::new();
            let (_, blob) = pack.blob(b"a");
            let names: Vec<_> = (0..100_000).map(|n| format!("{n:06}")).collect();
            let entries: Vec<_> = names.iter().map(|name| (FILE, name, blob)).collect();
            let mut id = pack.tree(&entries);
            let folder = "f".repeat(250);
            for _ in 0..16 {
                id = pack.tree(&[(FOLDER, &folder, id)]);
            }
            let commit = pack.commit(id);
            liar.lie(&pack.finish(), commit);
            liar.expect("400 MB of paths", "too_large", PERMANENT, "MAX_ENTRIES");

            let zeros = zlib(&vec![0; 100_000_000]);
            let mut pack = PackBuilder::new();
            for _ in 0..25 {
                pack.entry(BLOB, 100_000_000, b"", &zeros);
            }
            liar.lie(&pack.finish(), NOBODY.into());
            liar.expect(
                "2.5 GB of zeros in 2.5 MB",
                "too_large",
                PERMANENT,
                "MAX_TREE_BYTES",
            );
            let mut pack = PackBuilder::new();
            pack.entry(BLOB, 1, b"", &zeros);
            liar.lie(&pack.finish(), NOBODY.into());
            liar.expect(
                "100 MB that say one byte",
                "fetch",
                TRANSIENT,
                "longer than announced",
            );
            for (case, type_id, size) in [
                ("a blob of 2^60 bytes", BLOB, 1 << 60),
                ("a tree of 2^60 bytes", 2, 1 << 60),
                ("a commit of 2^60 bytes", 1, 1 << 60),
            ] {
                let mut pack = PackBuilder::new();
                pack.entry(type_id, size, b"", &zlib(b"a"));
                liar.lie(&pack.finish(), NOBODY.into());
                liar.expect(case, "too_large", PERMANENT, "MAX_BLOB_BYTES");
            }
            // Each makes 120 MB of one base of 64 KiB.
            let steps: Vec<_> = (0..1_900).map(|_| Step::Copy(0, 1 << 16)).collect();
            let bomb = delta(1 << 16, 1_900 << 16, &steps);
            let mut pack = PackBuilder::new();
            let (offset, _) = pack.blob(&vec![b'a'; 1 << 16]);
            for _ in 0..20 {
                pack.ofs_delta(offset, &bomb);
            }
            liar.lie(&pack.finish(), NOBODY.into());
            liar.expect("2.4 GB of deltas", "too_large", PERMANENT, "MAX_TREE_BYTES");
        });
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table is as long as it is")]
fn a_pack_that_lies_is_never_delivered() {
    trusting(|| {
        on_a_liar("packs", |liar| {
            let mut right = PackBuilder::new();
            let (_, blob) = right.blob(b"a");
            let tree = right.tree(&[(FILE, "a", blob)]);
            let commit = right.commit(tree);
            let bytes = right.finish();
            let with = |change: &dyn Fn(&mut Vec<u8>)| {
                let mut bytes = bytes.clone();
                change(&mut bytes);
                bytes
            };
            let nothing = delta(1, 1, &[Step::Copy(0, 1)]);
            let deltas = |add: &dyn Fn(&mut PackBuilder)| {
                let mut pack = right.clone();
                add(&mut pack);
                pack.finish()
            };
            for (case, pack, kind, transient, words) in [
                ("nothing", Vec::new(), "fetch", TRANSIENT, "ends early"),
                (
                    "a half",
                    with(&|p| p.truncate(p.len() / 2)),
                    "fetch",
                    TRANSIENT,
                    "ends early",
                ),
                (
                    "a flipped bit",
                    with(&|p| p[40] ^= 4),
                    "fetch",
                    TRANSIENT,
                    "",
                ),
                (
                    "another trailer",
                    with(&|p| *p.last_mut().unwrap() ^= 1),
                    "fetch",
                    TRANSIENT,
                    "checksum",
                ),
                (
                    "more behind it",
                    with(&|p| p.extend(b"tail")),
                    "fetch",
                    TRANSIENT,
                    "",
                ),
                (
                    "a web page",
                    b"<!DOCTYPE html>".to_vec(),
                    "fetch",
                    TRANSIENT,
                    "",
                ),
                (
                    "no objects",
                    PackBuilder::new().finish(),
                    "snapshot",
                    PERMANENT,
                    "is missing from the pack",
                ),
                (
                    "version 3",
                    with(&|p| {
                        p[7] = 3;
                        repair_checksum(p);
                    }),
                    "fetch",
                    TRANSIENT,
                    "not version 2",
                ),
                (
                    "4,294,967,295 objects",
                    right.finish_as(u32::MAX),
                    "too_large",
                    PERMANENT,
                    "MAX_ENTRIES",
                ),
                (
                    "deltas that stand on each other",
                    deltas(&|p| {
                        for (base, made) in [("x", "y"), ("y", "x")] {
                            let made = delta(1, 1, &[Step::Insert(made.as_bytes())]);
                            p.ref_delta(id_of(Kind::Blob, base.as_bytes()), &made);
                        }
                    }),
                    "fetch",
                    TRANSIENT,
                    "the bases of 2 deltas",
                ),
                (
                    "a delta of nobody",
                    deltas(&|p| _ = p.ref_delta(NOBODY.into(), &nothing)),
                    "fetch",
                    TRANSIENT,
                    "the bases of 1 deltas",
                ),
                (
                    "its own base",
                    deltas(&|p| _ = p.distant_delta(0, &nothing)),
                    "fetch",
                    TRANSIENT,
                    "before the pack's start",
                ),
                (
                    "another commit's pack",
                    {
                        let mut pack = PackBuilder::new();
                        let tree = pack.tree::<&str>(&[]);
                        pack.commit(tree);
                        pack.finish()
                    },
                    "snapshot",
                    PERMANENT,
                    "is missing from the pack",
                ),
            ] {
                liar.lie(&pack, commit);
                liar.expect(case, kind, transient, words);
            }
        });
    });
}

#[test]
fn a_server_that_never_stops_talking_is_cut_off() {
    trusting(|| {
        on_a_liar("endless answers", |liar| {
            let line = |text: &str| format!("{:04x}{text}", text.len() + 4).into_bytes();
            let id = "ab".repeat(20);
            let hello = [
                &line("# service=git-upload-pack\n")[..],
                b"0000",
                &line("version 2\n"),
            ];
            let of_no_use = "goes on after 16777216 bytes";
            let foreign = format!("{id} refs/heads/main/{}\n", "x".repeat(60_000));
            for (case, op, start, again, transient, words) in [
                (
                    "capabilities",
                    Op::Handshake,
                    hello.concat(),
                    line("agent=git/2\n"),
                    PERMANENT,
                    "more than 16777216 bytes that are no refs",
                ),
                // Whoever may push can make as many, and delete them again.
                (
                    "refs that nobody asked for",
                    Op::LsRefs,
                    Vec::new(),
                    line(&foreign),
                    TRANSIENT,
                    "goes on after 268435456 bytes",
                ),
                (
                    "the same ref again and again",
                    Op::LsRefs,
                    Vec::new(),
                    line(&format!("{id} {MAIN}\n")),
                    PERMANENT,
                    "more than 16777216 bytes that are no refs",
                ),
                (
                    "commits without history",
                    Op::Fetch,
                    line("shallow-info\n"),
                    line(&format!("shallow {id}\n")),
                    PERMANENT,
                    of_no_use,
                ),
                (
                    "progress",
                    Op::Fetch,
                    line("packfile\n"),
                    bands(2, b"Counting objects: 100%\r"),
                    TRANSIENT,
                    of_no_use,
                ),
                (
                    "pieces of nothing",
                    Op::Fetch,
                    line("packfile\n"),
                    b"0005\x01".to_vec(),
                    TRANSIENT,
                    of_no_use,
                ),
            ] {
                liar.server.fault(op, Fault::Endless(start, again));
                liar.expect(case, "fetch", transient, words);
            }
        });
    });
}

/// What memory and time N, 2N and 4N of something take.
fn costs(cases: &mut Cases, what: &str, n: usize, pack: impl Fn(usize) -> Vec<u8>) {
    let times = [n, 2 * n, 4 * n].map(|n| {
        let pack = pack(n);
        let case = format!("{what}, {n}, {} KB", pack.len() / 1000);
        let started = Instant::now();
        cases.run(&case, || {
            let (limits, progress) = (Limits::default(), Progress::default());
            let objects = Objects::receive(&mut &*pack, &limits, &progress);
            assert!(objects.is_ok(), "{case}: {:?}", objects.err());
            ((), "accepted", String::new())
        });
        started.elapsed()
    });
    // Four times as much takes four times as long, and a busy machine a little more.
    let most = times[0] * 10 + Duration::from_millis(500);
    assert!(times[2] < most, "{what}: {times:?}");
}

#[test]
fn deltas_cost_what_they_bring() {
    let mut cases = Cases::new("deltas");
    let same = delta(1, 1, &[Step::Copy(0, 1)]);
    costs(&mut cases, "deltas that make their own base", 5_000, |n| {
        let mut pack = PackBuilder::new();
        let (_, base) = pack.blob(b"a");
        for _ in 0..n {
            pack.ref_delta(base, &same);
        }
        pack.finish()
    });
    costs(&mut cases, "and the base as often", 5_000, |n| {
        let mut pack = PackBuilder::new();
        let mut base = NOBODY.into();
        for _ in 0..n {
            base = pack.blob(b"a").1;
        }
        for _ in 0..n {
            pack.ref_delta(base, &same);
        }
        pack.finish()
    });
    costs(&mut cases, "a chain", 5_000, |n| {
        let mut pack = PackBuilder::new();
        let (mut base, _) = pack.blob(b"a");
        for n in 1..=n as u64 {
            let longer = delta(n, n + 1, &[Step::Copy(0, n), Step::Insert(b"a")]);
            base = pack.ofs_delta(base, &longer);
        }
        pack.finish()
    });
    // Each has another delta that waits for it, and of 64 KiB each only a few may wait in memory.
    costs(
        &mut cases,
        "a chain with a branch at each link",
        1_000,
        |n| {
            const SIZE: u64 = 1 << 16;
            let mut pack = PackBuilder::new();
            let (mut base, _) = pack.blob(&vec![0; 1 << 16]);
            for n in 0..n {
                let number = n.to_be_bytes();
                let other = [Step::Insert(&number), Step::Copy(8, SIZE - 8)];
                let next = pack.ofs_delta(base, &delta(SIZE, SIZE, &other));
                pack.ofs_delta(base, &delta(SIZE, 8, &[Step::Copy(0, 8)]));
                base = next;
            }
            pack.finish()
        },
    );
    // One large base waits while small ones branch below it.
    costs(&mut cases, "branches on a large base", 500, |n| {
        const SIZE: u64 = 20 << 20;
        let mut pack = PackBuilder::new();
        let (base, _) = pack.blob(&vec![0; 20 << 20]);
        for n in 0..n {
            let number = n.to_be_bytes();
            let branch = [Step::Copy(0, 64), Step::Insert(&number)];
            let branch = pack.ofs_delta(base, &delta(SIZE, 72, &branch));
            pack.ofs_delta(branch, &delta(72, 8, &[Step::Copy(64, 8)]));
        }
        pack.finish()
    });
}

#[test]
fn a_commit_of_headers_costs_its_bytes() {
    let mut cases = Cases::new("commits");
    let (limits, progress) = (Limits::default(), Progress::default());
    let mut pack = PackBuilder::new();
    let (_, blob) = pack.blob(b"content");
    let tree = pack.tree(&[(FILE, "a.txt", blob)]);
    let who = "A <a@example.com> 1700000000 +0000";
    let start = format!("tree {tree}\nauthor {who}\ncommitter {who}\n");
    let headers = "x \n".repeat(19_700_000);
    let commit = pack.whole(
        Kind::Commit,
        (start + &headers + "\nA message\n").as_bytes(),
    );
    let pack = pack.finish();
    drop(headers);
    let case = format!("19,700,000 headers in {} KB", pack.len() / 1000);
    let snapshot = cases.run(&case, || {
        let objects = Objects::receive(&mut &*pack, &limits, &progress).unwrap();
        let commit = commit.into();
        let snapshot = Snapshot::of(commit, &objects, &limits).unwrap();
        (snapshot, "accepted", String::new())
    });
    assert_eq!(snapshot.about.subject, "A message");
    assert_eq!(snapshot.about.time, Some(1_700_000_000));
}

#[test]
fn refs_whose_names_begin_alike_cost_nothing() {
    trusting(|| {
        let mut cases = Cases::new("refs that begin as ours does");
        for v0 in [false, true] {
            World::on_a_server(async |world, server| {
                server.speak_v0_only(v0);
                let commit = world.repository.commit_on(MAIN, &[("a", "a".into())]);
                let long = "a".repeat(240);
                let name = format!("{long}/{long}/{long}/{long}");
                let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
                for n in 0..17_000 {
                    writeln!(packed, "{commit} {MAIN}-{n:05}/{name}").unwrap();
                }
                std::fs::write(world.repository.path().join("packed-refs"), packed).unwrap();
                let case = if v0 {
                    "17,000 refs, v0"
                } else {
                    "17,000 refs, v2"
                };
                let delivery = cases.run(case, || {
                    (block(world.deliver()), "accepted", "published".into())
                });
                let result = delivery.result.map_err(|err| chain(&err));
                assert_eq!(result, Ok(Success::Published), "{case}");
                world.assert_newest_is_the_tip(case);
            });
        }
    });
}

#[test]
fn an_object_that_says_another_id_is_not_taken_for_it() {
    trusting(|| {
        on_a_liar("ids", |liar| {
            let wanted = tree(&[(FILE, "a", id_of(Kind::Blob, b"right"))]);
            let mut pack = PackBuilder::new();
            pack.blob(b"wrong");
            let tree = pack.whole(Kind::Tree, &wanted);
            let commit = pack.commit(tree);
            liar.lie(&pack.finish(), commit);
            liar.expect(
                "another blob",
                "snapshot",
                PERMANENT,
                "is missing from the pack",
            );
        });
    });
}
