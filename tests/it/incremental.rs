//! The second delivery and those after it: Git sends what changed, the rest comes from the version before. Whatever the push
//! was, the result is what a first delivery would have made.

use std::{
    collections::HashMap,
    env,
    io::Cursor,
    time::{Duration, Instant},
};

use backlog_bridge::deliver::step::SecondLook;
use flate2::{Compress, Compression, FlushCompress};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use zip::ZipArchive;

use crate::support::{
    MAIN,
    generate::{Size, large_repository, noise, random_push, source},
    git_server::{
        Fault as GitFault,
        Op::{Fetch, Handshake, LsRefs},
    },
    s3::Op,
    tls::trusting,
    upstream::{Content, Repository},
    world::World,
};

/// What a tree of [`base`] is larger than, packed, and no change to it is. In bytes.
const SMALL: u64 = 20_000;

/// Some of everything, and [`SMALL`] bytes of noise many times.
fn base() -> Vec<(&'static str, Content)> {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    vec![
        (".gitattributes", "*.psd filter=lfs\n".into()),
        ("README.md", "# web\n".into()),
        ("assets/noise.png", noise(200_000, 1).into()),
        ("assets/large.psd", lfs.into()),
        ("empty", "".into()),
        ("run.sh", Content::Executable(b"#!/bin/sh\n".into())),
        ("src/main.rs", source(30_000, 2).into()),
        ("src/deep/er/module.rs", source(10_000, 3).into()),
        ("src/deep/er/same.rs", source(10_000, 3).into()),
        ("src/latest", Content::Symlink(b"deep/er".into())),
        ("src-not/a.txt", "sorts before src/".into()),
        ("vendor/lib", Content::Submodule("ab".repeat(20))),
        ("設計/ログイン.md", "# ログイン\n".into()),
    ]
}

fn edited(seed: u64, length: usize, insert: &str) -> Content {
    let mut bytes = source(length, seed);
    bytes.splice(length / 2..length / 2, insert.bytes());
    bytes.into()
}

type Push = fn(&Repository);

const PUSHES: &[(&str, Push)] = &[
    ("one commit", |repository| {
        repository.commit_on(MAIN, &[("README.md", "# Web\n".into())]);
    }),
    ("twenty commits", |repository| {
        for n in 0..20 {
            let line = format!("// line {n}\n");
            repository.commit_on(MAIN, &[("src/main.rs", edited(2, 30_000, &line))]);
        }
    }),
    ("a merge", |repository| {
        let fork = repository.resolve(MAIN).unwrap();
        repository.commit_on(MAIN, &[("ours.txt", "ours".into())]);
        repository.set_ref("refs/heads/topic", &fork);
        let theirs = repository.commit_on("refs/heads/topic", &[("theirs.txt", "theirs".into())]);
        let ours = repository.resolve(MAIN);
        repository.commit(MAIN, ours.as_deref(), |out| {
            writeln!(out, "merge {theirs}")?;
            writeln!(out, "M 100644 inline theirs.txt\ndata 6\ntheirs")
        });
    }),
    ("a commit that changes nothing", |repository| {
        let none: [(&str, Content); 0] = [];
        repository.commit_on(MAIN, &none);
    }),
    ("a mode only", |repository| {
        let run = Content::File(b"#!/bin/sh\n".into());
        let empty = Content::Executable(Vec::new());
        repository.commit_on(MAIN, &[("run.sh", run), ("empty", empty)]);
    }),
    ("a rename", |repository| {
        repository.commit_on(
            MAIN,
            &[
                ("assets/noise.png", Content::Deleted),
                ("pictures/of/noise.png", noise(200_000, 1).into()),
            ],
        );
    }),
    ("a folder that moves", |repository| {
        repository.commit(MAIN, repository.resolve(MAIN).as_deref(), |out| {
            writeln!(out, "R src/deep lib")
        });
    }),
    ("a copy", |repository| {
        repository.commit_on(MAIN, &[("noise-2.png", noise(200_000, 1).into())]);
    }),
    ("a file that goes", |repository| {
        repository.commit_on(MAIN, &[("src/deep/er/module.rs", Content::Deleted)]);
    }),
    ("a folder that goes", |repository| {
        repository.commit_on(MAIN, &[("src", Content::Deleted)]);
    }),
    ("an edit of a large file", |repository| {
        let mut bytes = noise(200_000, 1);
        bytes.splice(100_000..100_010, *b"an insertion");
        repository.commit_on(MAIN, &[("assets/noise.png", bytes.into())]);
    }),
    ("an edit of a file that is there twice", |repository| {
        repository.commit_on(MAIN, &[("src/deep/er/same.rs", edited(3, 10_000, "x"))]);
    }),
    (
        "a file that gets empty, and an empty one that gets full",
        |repository| {
            repository.commit_on(MAIN, &[("README.md", "".into()), ("empty", "full".into())]);
        },
    ),
    (
        "a submodule that moves on, a new one and an old one that goes",
        |repository| {
            repository.commit_on(MAIN, &[("vendor/lib", Content::Submodule("cd".repeat(20)))]);
            repository.commit_on(MAIN, &[("vendor/new", Content::Submodule("ef".repeat(20)))]);
            repository.commit_on(MAIN, &[("vendor/lib", Content::Deleted)]);
        },
    ),
    ("links that change", |repository| {
        repository.commit_on(
            MAIN,
            &[
                ("src/latest", Content::Symlink(b"../docs".into())),
                ("README.md", Content::Symlink("設計/ログイン.md".into())),
            ],
        );
    }),
    ("a file that becomes a folder", |repository| {
        let changes = [("README.md", Content::Deleted), ("README.md/a", "a".into())];
        repository.commit_on(MAIN, &changes);
    }),
    ("a folder that becomes a file", |repository| {
        repository.commit_on(MAIN, &[("src", Content::Deleted)]);
        repository.commit_on(MAIN, &[("src", "file".into())]);
    }),
    ("nothing is left", |repository| {
        let none: [(&str, Content); 0] = [];
        repository.commit_exactly_on(MAIN, &none);
    }),
];

#[tokio::test]
async fn every_kind_of_push_is_delivered_by_the_change() {
    for (case, push) in PUSHES {
        let world = World::new().await;
        world.repository.commit_on(MAIN, &base());
        let first = world.publish(case).await;
        assert!(first.fetched_bytes > Some(10 * SMALL), "{case}");
        push(&world.repository);
        let second = world.publish_the_change(case).await;
        assert!(
            second.fetched_bytes < Some(SMALL),
            "{case}: {:?} bytes were fetched",
            second.fetched_bytes
        );
        // And from there to where it began, which is a push too.
        world.repository.commit_exactly_on(MAIN, &base());
        world.publish_the_change(case).await;
    }
}

#[tokio::test]
async fn a_chain_of_pushes_is_readable_by_all_readers() {
    let world = World::new().await;
    world.repository.commit_on(MAIN, &base());
    world.publish("first").await;
    for (case, push) in PUSHES {
        // One upon the other, as far as they can be.
        let before = world.repository.resolve(MAIN);
        push(&world.repository);
        if world.repository.resolve(MAIN) != before {
            world.publish_the_change(case).await;
        }
        if !matches!(*case, "nothing is left") {
            world.repository.commit_on(MAIN, &base());
            world.publish_the_change(case).await;
        }
    }
    world.repository.commit_on(MAIN, &base());
    let last = world.publish_the_change("last").await;
    world.assert_newest_is_readable_by_others();
    assert!(last.warnings[1].contains("Git LFS"), "{:?}", last.warnings);
}

#[tokio::test]
async fn a_force_push_is_delivered_whatever_it_leads_to() {
    let mut world = World::new().await;
    world.second_look = SecondLook::Waived;
    let first = world.repository.commit_on(MAIN, &base());
    world.publish("first").await;
    let second = world.repository.commit_on(MAIN, &[("b", "b".into())]);
    world.publish_the_change("forward").await;
    world.repository.set_ref(MAIN, &first);
    let back = world.publish_the_change("back").await;
    assert!(back.fetched_bytes < Some(SMALL));
    let other = [("other", Content::from(source(5_000, 9)))];
    world.repository.commit_orphan_on(MAIN, &other);
    world.publish_the_change("another history").await;
    world.repository.set_ref(MAIN, &second);
    let everything = world.publish_the_change("back to the first history").await;
    assert!(everything.fetched_bytes > Some(10 * SMALL));
}

#[tokio::test]
async fn a_tag_that_moves_is_delivered_by_the_change() {
    let mut world = World::new().await;
    world.second_look = SecondLook::Waived;
    let work = "refs/heads/work";
    let first = world.repository.commit_on(work, &base());
    // What the route delivers may be a tag object, as `refs/tags/…` are.
    let tag = world.repository.annotated_tag("refs/tags/v1", &first);
    let second = world.repository.commit_on(work, &[("b", "b".into())]);
    world.repository.set_ref(MAIN, &first);
    world.publish("a commit").await;
    let outer = world.repository.annotated_tag("refs/tags/v2", &second);
    let outer = world.repository.annotated_tag("refs/tags/v3", &outer);
    for (case, to) in [("a tag of a tag", outer), ("a tag", tag)] {
        // Git's own commands keep tags out of refs/heads.
        let path = world.repository.path().join(MAIN);
        std::fs::write(path, to + "\n").unwrap();
        let delivery = world.deliver().await;
        assert!(delivery.result.is_ok(), "{case}: {:?}", delivery.result);
        assert_eq!(delivery.full_fetch, None, "{case}");
        assert!(delivery.fetched_bytes < Some(SMALL), "{case}");
        let tip = world
            .repository
            .resolve(&format!("{MAIN}^{{commit}}"))
            .unwrap();
        assert_eq!(
            delivery.commit.map(|id| id.to_string()),
            Some(tip),
            "{case}"
        );
    }
}

#[test]
fn a_later_delivery_is_four_requests_that_name_what_is_there() {
    trusting(|| {
        for v0 in [false, true] {
            World::on_a_server(async |world, server| {
                server.speak_v0_only(v0);
                let old = world.repository.commit_on(MAIN, &base());
                world.publish("first").await;
                world.repository.commit_on(MAIN, &[("b", "b".into())]);
                server.clear_requests();
                let delivery = world.publish_the_change("second").await;
                assert!(delivery.fetched_bytes < Some(1000), "v0: {v0}");
                let expected = if v0 {
                    vec![Handshake, Fetch, Handshake]
                } else {
                    vec![Handshake, LsRefs, Fetch, LsRefs]
                };
                assert_eq!(server.ops(), expected);
                let requests = server.requests();
                let connection = requests[0].connection;
                assert!(v0 || requests.iter().all(|r| r.connection == connection));
                let fetch = requests.iter().find(|r| r.op() == Fetch).unwrap();
                let asked = String::from_utf8_lossy(&fetch.body);
                for line in [
                    &format!("have {old}"),
                    &format!("shallow {old}"),
                    "deepen 1",
                    "thin-pack",
                ] {
                    assert!(asked.contains(line), "v0: {v0}, {line}: {asked}");
                }
                assert!(fetch.response_bytes < 2000, "{}", fetch.response_bytes);
            });
        }
    });
}

#[test]
fn of_a_large_tree_git_sends_a_hundredth_and_the_rest_is_copied() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            let size = Size {
                bytes: 24 << 20,
                files: 2_000,
                compressible: 0.9,
            };
            // Streams that our own deflater would not make.
            world.repository.git(&["config", "core.compression", "1"]);
            large_repository(&world.repository, size, 7);
            world.repository.repack();
            let first = world.publish("first").await;
            for (case, commits) in [("one commit", 1), ("twenty commits", 20)] {
                let before = world.newest();
                for n in 0..commits {
                    let path = format!("src/module_{n:02}/part_{}/file_{n}.rs", n % 7);
                    let line = format!("// {case}\n");
                    world
                        .repository
                        .commit_on(MAIN, &[(path, edited(7 + n, 5_000, &line))]);
                }
                server.clear_requests();
                let next = world.publish_the_change(case).await;
                let fetch = server.requests().into_iter().find(|r| r.op() == Fetch);
                let wire = fetch.unwrap().response_bytes as u64;
                println!(
                    "{case}: {:?} then {:?} bytes",
                    first.fetched_bytes, next.fetched_bytes
                );
                assert!(
                    next.fetched_bytes.unwrap() <= first.fetched_bytes.unwrap() / 100,
                    "{case}"
                );
                assert!(wire <= first.fetched_bytes.unwrap() / 100, "{case}: {wire}");
                assert_eq!(
                    world.s3.count(Op::GetObjectVersion),
                    if commits == 1 { 1 } else { 2 }
                );

                let before = streams(before.bytes.unwrap());
                let after = streams(world.newest().bytes.unwrap());
                let copied = after
                    .iter()
                    .filter(|(path, entry)| before.get(*path) == Some(entry));
                let copied = copied.count();
                assert!(
                    copied >= before.len() - usize::try_from(commits).unwrap(),
                    "{case}: {copied}"
                );
                let ours = after
                    .values()
                    .filter(|(stream, bytes)| *stream == deflate(bytes));
                let ours = ours.count();
                assert!(
                    ours <= 21 + 2_000 / 20,
                    "{case}: {ours} streams were made anew"
                );
            }
            world.assert_newest_is_readable_by_others();
        });
    });
}

/// Of each entry of a zip, by its path: the deflate stream, and what is in it.
fn streams(zip: Vec<u8>) -> HashMap<String, (Vec<u8>, Vec<u8>)> {
    let mut archive = ZipArchive::new(Cursor::new(zip)).unwrap();
    let entries = 0..archive.len();
    let mut entry = |n| {
        let mut stream = Vec::new();
        std::io::copy(&mut archive.by_index_raw(n).unwrap(), &mut stream).unwrap();
        let mut content = Vec::new();
        let mut entry = archive.by_index(n).unwrap();
        std::io::copy(&mut entry, &mut content).unwrap();
        (entry.name().unwrap().into_owned(), (stream, content))
    };
    entries.map(&mut entry).collect()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(bytes.len() + 1000);
    let mut deflater = Compress::new(Compression::new(6), false);
    deflater
        .compress_vec(bytes, &mut stream, FlushCompress::Finish)
        .unwrap();
    stream
}

#[test]
fn random_pushes_are_delivered_by_the_change_one_upon_the_other() {
    // The same random cases every time; with `PROPTEST_CASES` new ones.
    let asked = env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(10),
        failure_persistence: None,
        max_shrink_iters: 50,
        ..ProptestConfig::default()
    };
    let mut runner = if asked.is_some() {
        TestRunner::new(config)
    } else {
        let algorithm = proptest::test_runner::RngAlgorithm::ChaCha;
        let rng = proptest::test_runner::TestRng::deterministic_rng(algorithm);
        TestRunner::new_with_rng(config, rng)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deliver = |pushes: Vec<(Vec<_>, Vec<_>)>| {
        runtime.block_on(async {
            let world = World::new().await;
            let trees = pushes
                .into_iter()
                .flat_map(|(before, after)| [before, after]);
            for (n, files) in trees.enumerate() {
                world.repository.commit_exactly_on(MAIN, &files);
                if n % 3 == 0 {
                    world.repository.repack();
                }
                world.publish_the_change(&format!("push {n}")).await;
            }
        });
        Ok(())
    };
    runner.run(&vec(random_push(), 1..4), deliver).unwrap();
}

#[test]
fn the_old_version_is_read_while_the_git_server_works() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            world.repository.commit_on(MAIN, &[("a", "a".into())]);
            world.publish("first").await;
            world.repository.commit_on(MAIN, &[("b", "b".into())]);
            let time = Duration::from_millis(1_500);
            server.fault(Fetch, GitFault::Delay(time));
            world
                .s3
                .before(Op::GetObjectVersion, move || tokio::time::sleep(time));
            let started = Instant::now();
            world.publish_the_change("both take their time").await;
            let took = started.elapsed();
            assert!(took >= time && took < time * 2, "{took:?}");
        });
    });
}
