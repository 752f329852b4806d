//! When the version before is of no use, everything is fetched: the result is right, and it is said why.

use std::{
    io::{Cursor, Write},
    sync::Arc,
};

use backlog_bridge::{
    deliver::{Success, step::SecondLook},
    limits::Limits,
};
use gix::objs::Kind;

use crate::support::{
    BUCKET, KEY, MAIN,
    generate::{noise, source},
    git_server::{
        Fault as GitFault, GitServer,
        Op::{Fetch, Handshake},
    },
    pack_builder::{PackBuilder, Step, delta, id_of},
    s3::{Fault, Op, StoredVersion},
    tls::trusting,
    upstream::Content,
    world::World,
};

fn base() -> Vec<(&'static str, Content)> {
    vec![
        ("a.txt", "a".into()),
        ("noise", noise(50_000, 1).into()),
        ("run.sh", Content::Executable(b"#!/bin/sh\n".into())),
        ("src/main.rs", source(20_000, 2).into()),
    ]
}

/// Delivers a commit, lets `spoil` do something, delivers the next commit, and expects that it was fetched as a whole and
/// that the reason says `says`.
async fn expect_full_fetch(case: &str, says: &str, spoil: impl AsyncFnOnce(&mut World)) {
    let mut world = World::new().await;
    world.repository.commit_on(MAIN, &base());
    world.publish(case).await;
    spoil(&mut world).await;
    world.repository.commit_on(MAIN, &[("b.txt", "b".into())]);
    let delivery = world.publish(case).await;
    let why = delivery
        .full_fetch
        .unwrap_or_else(|| panic!("{case}: the version before was used"));
    assert!(why.contains(says), "{case}: {why}");
    assert!(!why.contains('\n'), "{case}: {why}");
    assert!(delivery.fetched_bytes > Some(50_000), "{case}");
    assert!(
        delivery.warnings.is_empty(),
        "{case}: {:?}",
        delivery.warnings
    );
    // And with what it made, things are as they should be again.
    world.bridge.limits = Limits::default();
    world.repository.commit_on(MAIN, &[("c.txt", "c".into())]);
    let delivery = world.publish_the_change(case).await;
    assert!(delivery.fetched_bytes < Some(10_000), "{case}");
}

type Tamper = fn(&mut StoredVersion);

#[tokio::test]
async fn an_archive_that_is_not_as_it_was_written_is_not_used() {
    const FOREIGN: &str = "not as this version of backlog-bridge writes it";
    let cases: &[(&str, &str, Tamper)] = &[
        ("nothing", FOREIGN, |version| {
            version.bytes = Some(Vec::new());
        }),
        ("no zip", FOREIGN, |version| {
            version.bytes = Some(noise(10_000, 3));
        }),
        ("another program's zip", FOREIGN, |version| {
            version.bytes = Some(foreign_zip(version.bytes.as_ref().unwrap()));
        }),
        (
            "an older zip without ids",
            "does not say its Git object",
            |version| {
                replace(version, &[0x42, 0x47, 24, 0], &[0x42, 0x48, 24, 0]);
            },
        ),
        ("its second half is lost", FOREIGN, |version| {
            let bytes = version.bytes.as_mut().unwrap();
            bytes.truncate(bytes.len() / 2);
        }),
        ("its last byte is lost", FOREIGN, |version| {
            version.bytes.as_mut().unwrap().pop();
        }),
        ("its first byte is lost", FOREIGN, |version| {
            version.bytes.as_mut().unwrap().remove(0);
        }),
        ("a byte of a file is another", "is damaged", |version| {
            let bytes = version.bytes.as_mut().unwrap();
            bytes[20_000] ^= 1;
        }),
        ("a mode is another", FOREIGN, |version| {
            replace(
                version,
                &0o100_755_u32.to_le_bytes(),
                &0o100_644_u32.to_le_bytes(),
            );
        }),
        (
            "a mode is another, everywhere",
            "the archive holds the tree",
            |version| {
                replace(
                    version,
                    &0o100_755_u32.to_le_bytes(),
                    &0o100_644_u32.to_le_bytes(),
                );
                let attributes = |mode: u32| (mode << 16).to_le_bytes();
                replace(version, &attributes(0o100_755), &attributes(0o100_644));
            },
        ),
        (
            "a name is another",
            "the archive holds the tree",
            |version| {
                replace(version, b"a.txt", b"A.txt");
            },
        ),
        (
            "its metadata names another tree",
            "the archive holds the tree",
            |version| {
                let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904".to_owned();
                version.metadata.insert("git-tree".into(), tree);
            },
        ),
        ("its metadata names no tree", "names no tree", |version| {
            version.metadata.remove("git-tree");
        }),
        ("its metadata names another commit", FOREIGN, |version| {
            version
                .metadata
                .insert("git-commit".into(), "ab".repeat(20));
        }),
        ("its metadata names another delivery", FOREIGN, |version| {
            version
                .metadata
                .insert("delivery-id".into(), "ab".repeat(16));
        }),
        (
            "its metadata names a delivery that cannot be",
            FOREIGN,
            |version| {
                version.metadata.insert("delivery-id".into(), "x".into());
            },
        ),
    ];
    for (case, says, tamper) in cases {
        expect_full_fetch(case, says, async |world| world.tamper(tamper).await).await;
    }
}

fn replace(version: &mut StoredVersion, from: &[u8], to: &[u8]) {
    let bytes = version.bytes.as_mut().unwrap();
    let found: Vec<_> = (0..bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    assert!(!found.is_empty(), "there is nothing to replace");
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}

/// The same files and the same comment, written by the `zip` crate.
fn foreign_zip(ours: &[u8]) -> Vec<u8> {
    let mut ours = zip::ZipArchive::new(Cursor::new(ours)).unwrap();
    let mut foreign = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for n in 0..ours.len() {
        let mut entry = ours.by_index(n).unwrap();
        let options = zip::write::SimpleFileOptions::default();
        foreign.start_file(entry.name().unwrap(), options).unwrap();
        std::io::copy(&mut entry, &mut foreign).unwrap();
    }
    foreign.flush().unwrap();
    foreign.set_raw_comment(ours.comment().into()).unwrap();
    foreign.finish().unwrap().into_inner()
}

#[tokio::test]
async fn an_archive_that_cannot_be_had_is_done_without() {
    for (case, fault, says) in [
        (
            "it is gone",
            Fault::Status(404),
            "cannot read the current version of",
        ),
        ("access is denied", Fault::Status(403), "access was denied"),
    ] {
        expect_full_fetch(case, says, async |world| {
            world.s3.fail_once(Op::GetObjectVersion, fault);
        })
        .await;
    }
}

#[tokio::test]
async fn a_version_that_vanishes_meanwhile_is_replaced_by_the_tip() {
    let world = World::new().await;
    world.repository.commit_on(MAIN, &base());
    let first = world.publish("first").await;
    world.repository.commit_on(MAIN, &[("b.txt", "b".into())]);
    let client = world.s3.client();
    world.s3.before(Op::GetObjectVersion, move || async move {
        let delete = client.delete_object().bucket(BUCKET).key(KEY);
        let delete = delete.version_id(first.version_id.unwrap());
        delete.send().await.unwrap();
    });
    let delivery = world.publish("second").await;
    let why = delivery.full_fetch.unwrap();
    assert!(why.contains("NoSuchVersion"), "{why}");
}

#[tokio::test]
async fn a_version_that_somebody_replaces_meanwhile_is_built_on_once_more() {
    let world = World::new().await;
    world.repository.commit_on(MAIN, &base());
    world.publish("first").await;
    world.repository.commit_on(MAIN, &[("b.txt", "b".into())]);
    let (rival, to, repository) = (
        world.bridge.clone(),
        world.destination(),
        world.repository.clone(),
    );
    world.s3.before(Op::GetObjectVersion, move || async move {
        let delivery = rival
            .deliver(&to, None, SecondLook::Needed, &Arc::default())
            .await;
        assert_eq!(delivery.result.unwrap(), Success::Published);
        repository.commit_on(MAIN, &[("c.txt", "c".into())]);
    });
    world.publish_the_change("second").await;
    assert_eq!(world.s3.versions(BUCKET, KEY).len(), 3);
}

#[tokio::test]
async fn a_version_of_another_ref_is_not_built_on() {
    let world = World::new().await;
    world.repository.commit_on(MAIN, &base());
    world.publish("first").await;
    world
        .tamper(|version| {
            version
                .metadata
                .insert("git-ref".into(), "refs/heads/gone".into());
        })
        .await;
    world.repository.commit_on(MAIN, &[("b.txt", "b".into())]);
    let delivery = world.publish("second").await;
    assert_eq!(delivery.full_fetch, None, "there was nothing to build on");
    assert_eq!(world.s3.count(Op::GetObjectVersion), 0);
    assert!(delivery.warnings[0].contains("refs/heads/gone"));
}

#[tokio::test]
async fn an_archive_beyond_the_limits_is_not_used() {
    for (case, says, limits) in [
        (
            "too many entries",
            "MAX_ENTRIES",
            Limits {
                entries: 4,
                ..Limits::default()
            },
        ),
        (
            "a large file",
            "MAX_BLOB_BYTES",
            Limits {
                blob_bytes: 60_000,
                ..Limits::default()
            },
        ),
        // The archive is still read: it is smaller than it unpacks to.
        (
            "too large",
            "bytes, and at most",
            Limits {
                tree_bytes: 80_000,
                entries: 50,
                ..Limits::default()
            },
        ),
    ] {
        let mut world = World::new().await;
        let large = [
            ("large", Content::from(noise(100_000, 5))),
            ("d/e", "".into()),
        ];
        world.repository.commit_on(MAIN, &base());
        world.repository.commit_on(MAIN, &large);
        world.publish(case).await;
        world.bridge.limits = limits;
        world.repository.commit_orphan_on(MAIN, &base()[1..]);
        let delivery = world.publish(case).await;
        let why = delivery.full_fetch.unwrap();
        assert!(why.contains(says), "{case}: {why}");
    }
}

#[tokio::test]
async fn a_tree_that_grows_beyond_the_limits_is_refused_as_ever() {
    for (case, says, limits) in [
        (
            "entries",
            "MAX_ENTRIES",
            Limits {
                entries: 4,
                ..Limits::default()
            },
        ),
        (
            "one file",
            "MAX_BLOB_BYTES",
            Limits {
                blob_bytes: 60_000,
                ..Limits::default()
            },
        ),
        (
            "all files",
            "MAX_TREE_BYTES",
            Limits {
                tree_bytes: 100_000,
                ..Limits::default()
            },
        ),
    ] {
        let mut world = World::new().await;
        world.repository.commit_on(MAIN, &base());
        world.bridge.limits = limits;
        world.publish(case).await;
        let large = [("large", Content::from(noise(70_000, 5)))];
        world.repository.commit_on(MAIN, &large);
        let err = world.deliver().await.result.expect_err(case);
        assert_eq!(err.kind(), "too_large", "{case}");
        let text = backlog_bridge::error::chain(&err);
        assert!(text.contains(says), "{case}: {text}");
    }
}

#[tokio::test]
async fn a_tree_that_names_do_not_tell_is_fetched_as_a_whole_each_time() {
    let world = World::new().await;
    let blob = world.repository.write_object("blob", b"a");
    let empty = world.repository.write_object("tree", b"");
    // An empty folder, which Git itself does not make and a zip of ours does not show.
    let id = |hex: &str| gix::ObjectId::from_hex(hex.as_bytes()).unwrap();
    for name in ["a", "b"] {
        let tree = crate::support::pack_builder::tree(&[
            ("100644", name, id(&blob)),
            ("40000", "empty", id(&empty)),
        ]);
        let tree = world.repository.write_object("tree", &tree);
        world.repository.commit_tree_on(MAIN, &tree);
        let delivery = world.publish(name).await;
        let why = delivery.full_fetch;
        assert_eq!(why.is_some(), name == "b");
        assert!(why.is_none_or(|why| why.contains("holds the tree")));
    }
}

/// On a server that does `fault` to the fetch of changes.
fn expect_second_fetch(case: &str, says: &str, fault: impl FnOnce(&World, &GitServer)) {
    World::on_a_server(async |world, server| {
        world.repository.commit_on(MAIN, &base());
        world.publish(case).await;
        world
            .repository
            .commit_on(MAIN, &[("b.txt", "b".into()), ("src/main.rs", "m".into())]);
        server.clear_requests();
        fault(&world, &server);
        let delivery = world.publish(case).await;
        let why = delivery.full_fetch.expect(case);
        assert!(why.contains(says), "{case}: {why}");
        let requests = server.requests();
        let fetches = requests.iter().filter(|request| request.op() == Fetch);
        let fetches: Vec<_> = fetches.collect();
        let [changes, everything] = &fetches[..] else {
            panic!("{case}: {} fetches", fetches.len())
        };
        assert_ne!(changes.connection, everything.connection, "{case}");
        let asked = |have: &str, body: &[u8]| String::from_utf8_lossy(body).contains(have);
        assert!(asked("have ", &changes.body), "{case}");
        assert!(!asked("have ", &everything.body), "{case}");
        assert_eq!(world.s3.count(Op::PutObject), 2, "{case}: one round");
    });
}

#[test]
fn a_fetch_of_changes_that_goes_wrong_is_followed_by_one_of_everything() {
    trusting(|| {
        let of_a_pack = |pack: PackBuilder| GitFault::pack(move |_| pack.finish());
        let mut lonely_delta = PackBuilder::new();
        let nowhere = id_of(Kind::Blob, b"nowhere");
        lonely_delta.ref_delta(nowhere, &delta(7, 1, &[Step::Insert(b"x")]));
        let mut wrong_delta = PackBuilder::new();
        let of_base = id_of(Kind::Blob, b"a");
        wrong_delta.ref_delta(of_base, &delta(7, 1, &[Step::Insert(b"x")]));
        for (case, fault, says) in [
            ("a fault", GitFault::Status(500), "cannot fetch"),
            ("a refusal", GitFault::Status(400), "cannot fetch"),
            ("no more than a part", GitFault::CutAfter(150), "broke off"),
            ("a pack of nothing", of_a_pack(PackBuilder::new()), "commit"),
            (
                "a delta of nothing",
                of_a_pack(lonely_delta),
                "the bases of 1 deltas are not in it",
            ),
            (
                "a delta that does not fit",
                of_a_pack(wrong_delta),
                "a delta for another base",
            ),
            ("no pack", GitFault::response(|_| b"0000".to_vec()), ""),
            (
                "an error in words",
                GitFault::response(|_| b"0020ERR upload-pack: not our ref".to_vec()),
                "not our ref",
            ),
            (
                "more than is allowed",
                GitFault::pack(|mut pack| {
                    pack[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
                    pack
                }),
                "the number of objects",
            ),
        ] {
            expect_second_fetch(case, says, |_, server| server.fault_once(Fetch, fault));
        }
    });
}

#[test]
fn a_pack_that_lacks_an_object_is_followed_by_one_of_everything() {
    trusting(|| {
        for (case, kind, says) in [
            ("no tree", Kind::Commit, "tree "),
            ("no blob", Kind::Tree, "is missing from the pack"),
        ] {
            expect_second_fetch(case, says, |world, server| {
                let mut pack = PackBuilder::new();
                let commit = world.repository.git(&["cat-file", "commit", MAIN]);
                pack.whole(Kind::Commit, &commit);
                if kind == Kind::Tree {
                    for tree in [":", ":src"] {
                        let tree = format!("{MAIN}{tree}");
                        let bytes = world.repository.git(&["cat-file", "tree", &tree]);
                        pack.whole(Kind::Tree, &bytes);
                    }
                }
                server.fault_once(Fetch, GitFault::pack(move |_| pack.finish()));
            });
        }
    });
}

#[test]
fn a_server_that_cannot_send_changes_only_is_not_asked_to() {
    trusting(|| {
        for (case, v0, from, to) in [
            (
                "v2 without shallow",
                false,
                "fetch=shallow",
                "fetch=shallov",
            ),
            ("v0 without thin packs", true, "thin-pack", "thin-pacc"),
            ("v0 without shallow", true, " shallow ", " shallov "),
        ] {
            World::on_a_server(async |world, server| {
                server.speak_v0_only(v0);
                world.repository.commit_on(MAIN, &base());
                world.publish(case).await;
                world.repository.commit_on(MAIN, &[("b.txt", "b".into())]);
                server.clear_requests();
                server.fault(
                    Handshake,
                    GitFault::response(move |response| {
                        let at = response
                            .windows(from.len())
                            .position(|found| found == from.as_bytes());
                        let at = at.expect("the server can");
                        let mut response = response;
                        response[at..at + to.len()].copy_from_slice(to.as_bytes());
                        response
                    }),
                );
                let delivery = world.publish(case).await;
                let why = delivery.full_fetch.expect(case);
                assert!(why.contains("cannot send changes only"), "{case}: {why}");
                let ops = server.ops();
                assert_eq!(ops.iter().filter(|op| **op == Fetch).count(), 1, "{case}");
            });
        }
    });
}

#[test]
fn a_server_that_has_lost_the_commit_sends_everything_at_once() {
    trusting(|| {
        for v0 in [false, true] {
            World::on_a_server(async |world, server| {
                server.speak_v0_only(v0);
                let old = world.repository.commit_on(MAIN, &base());
                world.publish("first").await;
                let mut files = base();
                files.push(("b.txt", "b".into()));
                world.repository.commit_orphan_on(MAIN, &files);
                world
                    .repository
                    .git(&["reflog", "expire", "--expire=now", "--all"]);
                world.repository.git(&["repack", "-adq"]);
                world.repository.git(&["prune", "--expire=now"]);
                assert_eq!(world.repository.resolve(&format!("{old}^{{commit}}")), None);
                server.clear_requests();
                let delivery = world.publish_the_change("second").await;
                assert!(delivery.fetched_bytes > Some(50_000), "v0: {v0}");
                let fetches = server.ops().into_iter().filter(|op| *op == Fetch);
                assert_eq!(fetches.count(), 1, "v0: {v0}");
            });
        }
    });
}
