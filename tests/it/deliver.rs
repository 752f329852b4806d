//! Deliveries on real parts: a Git repository, an S3 that versions and checks conditions, and what goes wrong between them.

use std::{collections::HashSet, sync::Arc, time::Instant};

use backlog_bridge::{
    deliver::{
        Delivery, Success,
        step::{Hints, SecondLook},
    },
    error::{Error, chain},
    push::CommitId,
};

use crate::support::{
    BUCKET, KEY, MAIN,
    git_server::{
        Fault as GitFault, GitServer,
        Op::{Fetch, Handshake, LsRefs},
    },
    oracle::{assert_zip_equals, expected_entries},
    s3::{Fault, Op},
    tls::trusting,
    upstream::{Content, Upstream},
    world::{World, deliver, outcome},
};

const DEVELOP: &str = "refs/heads/develop";

fn id(commit: &str) -> CommitId {
    commit.parse().unwrap()
}

fn commit(world: &World, text: &str) -> String {
    world
        .repository
        .commit_on(MAIN, &[("a.txt", Content::from(text))])
}

async fn put_by_hand(world: &World) {
    let client = world.s3.client();
    let put = client.put_object().bucket(BUCKET).key(KEY);
    put.body(b"by hand".to_vec().into()).send().await.unwrap();
}

fn assert_newest_is(world: &World, commit: &str) {
    let newest = world.newest();
    assert_eq!(newest.metadata["git-commit"], commit);
    let expected = expected_entries(&world.repository, commit);
    assert_zip_equals(&newest.bytes.unwrap(), &expected, commit);
}

fn failure(delivery: Delivery) -> Error {
    delivery.result.expect_err("the delivery fails")
}

#[tokio::test]
async fn a_first_delivery_holds_the_tree_and_says_what_it_is() {
    let world = World::new().await;
    let commit = world.repository.commit_on(
        MAIN,
        &[
            ("src/ログイン.rs", "fn main() {}".into()),
            ("b", "b".into()),
        ],
    );
    let delivery = world.deliver().await;
    assert_eq!(outcome(&delivery), Success::Published);
    assert_newest_is(&world, &commit);
    let [version] = world
        .versions()
        .try_into()
        .unwrap_or_else(|_| panic!("one version"));
    assert_eq!(version.content_type, "application/zip");
    assert_eq!(delivery.version_id, Some(version.version_id));
    assert_eq!(delivery.commit, Some(id(&commit)));
    assert_eq!(
        (delivery.entries, delivery.archive_bytes),
        (Some(2), version.bytes.as_ref().map(|b| b.len() as u64))
    );
    let tree = world
        .repository
        .resolve(&format!("{commit}^{{tree}}"))
        .unwrap();
    let delivery_id = version.metadata["delivery-id"].clone();
    let text = |value: &str| value.to_owned();
    let expected = [
        (
            "codepipeline-artifact-revision-summary",
            version.metadata["codepipeline-artifact-revision-summary"].clone(),
        ),
        ("delivery-id", delivery_id.clone()),
        ("git-author", text("Robot")),
        ("git-author-time", text("1700000000")),
        ("git-commit", commit.clone()),
        ("git-commit-time", text("1700000000")),
        ("git-ref", text(MAIN)),
        ("git-repository", text("APP/web")),
        (
            "git-space",
            format!("file://{}", world.upstream.root().display()),
        ),
        ("git-subject", text("Commit%20at%201700000000")),
        ("git-tree", tree),
    ];
    assert_eq!(
        version.metadata,
        expected
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    );
    assert!(version.metadata["codepipeline-artifact-revision-summary"].starts_with(&commit[..8]));
    let zip = version.bytes.unwrap();
    assert!(
        zip.ends_with(format!("{commit}\n{delivery_id}").as_bytes()),
        "the comment"
    );
}

#[tokio::test]
async fn the_same_commit_twice_is_one_version() {
    let first = deliver(&[("a.txt", "a")]).await.published();
    let second = first.again().await.ended(Success::AlreadyCurrent);
    second.holds(&[("a.txt", "a")]).of_versions(1);
}

#[tokio::test]
async fn a_deleted_branch_leaves_the_object_as_it_is() {
    let first = deliver(&[("a.txt", "a")]).await.published();
    first.world.repository.delete_ref(MAIN);
    let second = first.again().await.ended(Success::BranchGone);
    second.holds(&[("a.txt", "a")]).of_versions(1);
}

#[tokio::test]
async fn a_force_push_there_and_back_is_three_versions_that_all_differ() {
    let mut world = World::new().await;
    let a = commit(&world, "a");
    world.deliver().await;
    let b = world
        .repository
        .commit_orphan_on(MAIN, &[("b.txt", "b".into())]);
    world.deliver().await;
    world.repository.set_ref(MAIN, &a);
    world.second_look = SecondLook::Waived;
    assert_eq!(outcome(&world.deliver().await), Success::Published);
    assert_eq!(world.commits(), [a.clone(), b, a.clone()]);
    assert_newest_is(&world, &a);
    let versions = world.versions();
    let etags: HashSet<_> = versions.iter().map(|version| &version.etag).collect();
    assert_eq!(etags.len(), 3, "an entity tag never comes back");
    assert_ne!(versions[0].bytes, versions[2].bytes);
}

#[tokio::test]
async fn a_missing_ref_is_an_error_that_says_what_is_there() {
    let world = World::new().await;
    let empty = failure(world.deliver().await);
    assert_eq!(empty.kind(), "ref_not_found");
    assert!(empty.to_string().contains("is empty"), "{empty}");
    world
        .repository
        .commit_on("refs/heads/master", &[("a", "a".into())]);
    let missing = failure(world.deliver().await);
    assert_eq!(
        (missing.kind(), missing.is_transient()),
        ("ref_not_found", false)
    );
    assert!(
        missing.to_string().contains("refs/heads/master"),
        "{missing}"
    );
    assert_eq!(world.s3.count(Op::PutObject), 0);
}

#[tokio::test]
async fn what_metadata_say_is_shown_in_one_line() {
    let world = World::new().await;
    commit(&world, "a");
    world.deliver().await;
    let claim = |version: &mut crate::support::s3::StoredVersion| {
        let name = "APP/%1B%5B31mX%0AFAKE".to_owned();
        version.metadata.insert("git-repository".into(), name);
    };
    world.tamper(claim).await;
    commit(&world, "b");
    let delivery = world.deliver().await;
    assert_eq!(outcome(&delivery), Success::Published);
    let warning = &delivery.warnings[0];
    assert!(warning.contains("APP/\\u{1b}[31mX\\nFAKE"), "{warning}");
    assert!(!warning.contains(char::is_control), "{warning:?}");
}

#[tokio::test]
async fn a_foreign_object_is_replaced_and_it_is_said() {
    let world = World::new().await;
    put_by_hand(&world).await;
    let first = world.deliver_change(&[("a.txt", "a")]).await.published();
    let first = first.holds(&[("a.txt", "a")]);
    let warnings = &first.delivery.warnings;
    assert!(warnings[0].contains("did not write"), "{warnings:?}");
}

#[tokio::test]
async fn an_object_that_two_refs_make_is_its_holders() {
    let routes = [
        ("refs/heads/*", "web/{ref}.zip"),
        ("refs/tags/*", "web/{ref}.zip"),
    ];
    let world = World::with_routes(&routes).await;
    let commit = commit(&world, "a");
    world.repository.set_ref("refs/tags/main", &commit);
    let tag = world.destination_of("refs/tags/main");
    let first = world
        .bridge
        .deliver(&tag, None, SecondLook::Needed, &Arc::default())
        .await;
    assert_eq!(outcome(&first), Success::Published);
    let conflict = failure(world.deliver().await);
    assert_eq!(
        (conflict.kind(), conflict.is_transient()),
        ("key_conflict", false)
    );
    assert!(
        conflict.to_string().contains("refs/tags/main"),
        "{conflict}"
    );
    assert_eq!(world.s3.count(Op::PutObject), 1);
}

#[tokio::test]
async fn an_object_that_an_exact_route_names_is_its_alone() {
    let world = World::with_routes(&[(MAIN, KEY), ("refs/tags/*", "web/{ref}.zip")]).await;
    let commit = commit(&world, "a");
    world.repository.set_ref("refs/tags/main", &commit);
    let tag = world.destination_of("refs/tags/main");
    let conflict = failure(
        world
            .bridge
            .deliver(&tag, None, SecondLook::Needed, &Arc::default())
            .await,
    );
    assert_eq!(conflict.kind(), "key_conflict", "nobody holds it yet");
    assert!(conflict.to_string().contains(MAIN), "{conflict}");
    assert_eq!(outcome(&world.deliver().await), Success::Published);
}

#[tokio::test]
async fn an_object_of_a_ref_that_is_no_longer_routed_is_replaced() {
    let mut world = World::with_routes(&[(DEVELOP, KEY)]).await;
    let old = world.repository.commit_on(DEVELOP, &[("d", "d".into())]);
    world
        .bridge
        .deliver(
            &world.destination_of(DEVELOP),
            None,
            SecondLook::Needed,
            &Arc::default(),
        )
        .await;
    assert_newest_is(&world, &old);
    world.set_routes(&[(MAIN, KEY)]);
    // Even the same commit: the object's metadata must say whose it is now.
    world.repository.set_ref(MAIN, &old);
    let delivery = world.deliver().await;
    assert_eq!(outcome(&delivery), Success::Published);
    assert_eq!(world.newest().metadata["git-ref"], MAIN);
    assert!(
        delivery.warnings[0].contains(DEVELOP),
        "{:?}",
        delivery.warnings
    );
}

#[tokio::test]
async fn a_push_during_the_upload_is_delivered_too() {
    let world = World::new().await;
    let repository = world.repository.clone();
    world.s3.before(Op::PutObject, move || async move {
        repository.commit_on(MAIN, &[("late.txt", "late".into())]);
    });
    let both = world.deliver_change(&[("a.txt", "a")]).await.published();
    both.holds(&[("a.txt", "a"), ("late.txt", "late")])
        .of_versions(2);
}

#[tokio::test]
async fn faults_of_s3_end_with_one_version_or_a_clear_error() {
    for (case, op, fault, expected) in [
        (
            "somebody was faster",
            Op::PutObject,
            Fault::Status(412),
            Ok(Success::Published),
        ),
        (
            "somebody is writing",
            Op::PutObject,
            Fault::Status(409),
            Ok(Success::Published),
        ),
        (
            "a fault",
            Op::PutObject,
            Fault::Status(500),
            Ok(Success::Published),
        ),
        (
            "busy",
            Op::PutObject,
            Fault::Status(503),
            Ok(Success::Published),
        ),
        (
            "stored, and the answer is lost",
            Op::PutObject,
            Fault::ApplyThenDrop,
            Ok(Success::Published),
        ),
        (
            "the request is lost",
            Op::PutObject,
            Fault::Drop,
            Ok(Success::Published),
        ),
        (
            "not allowed to write",
            Op::PutObject,
            Fault::Status(403),
            Err(("bucket", false)),
        ),
        (
            "not allowed to read is not nothing",
            Op::HeadObject,
            Fault::Status(403),
            Err(("bucket", false)),
        ),
        (
            "a fault on reading",
            Op::HeadObject,
            Fault::Status(500),
            Ok(Success::Published),
        ),
    ] {
        let world = World::new().await;
        let commit = commit(&world, "a");
        world.s3.fail_once(op, fault);
        let delivery = world.deliver().await;
        match expected {
            Ok(expected) => {
                assert_eq!(outcome(&delivery), expected, "{case}");
                assert_eq!(world.commits(), [commit.as_str()], "{case}");
                assert_newest_is(&world, &commit);
                let newest = world.newest();
                assert_eq!(delivery.version_id, Some(newest.version_id), "{case}");
                assert_eq!(delivery.entries, Some(1), "{case}");
            }
            Err((kind, transient)) => {
                let err = failure(delivery);
                assert_eq!(
                    (err.kind(), err.is_transient()),
                    (kind, transient),
                    "{case}: {}",
                    chain(&err)
                );
                assert!(
                    err.to_string().contains("access was denied"),
                    "{case}: {err}"
                );
                assert!(world.versions().is_empty(), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_delivery_that_always_loses_gives_up_and_may_be_tried_again() {
    let world = World::new().await;
    commit(&world, "a");
    for _ in 0..20 {
        world.s3.fail_once(Op::PutObject, Fault::Status(412));
    }
    let err = failure(world.deliver().await);
    assert_eq!((err.kind(), err.is_transient()), ("contention", true));
    assert!(err.to_string().contains("after 8 rounds"), "{err}");
    assert_eq!(world.s3.count(Op::PutObject), 8);
}

#[tokio::test]
async fn a_rival_that_is_faster_leaves_one_version() {
    let world = World::new().await;
    let commit = commit(&world, "a");
    let (rival, to) = (world.rival(), world.destination());
    world.s3.before(Op::PutObject, move || async move {
        let delivery = rival
            .deliver(&to, None, SecondLook::Needed, &Arc::default())
            .await;
        assert_eq!(outcome(&delivery), Success::Published);
    });
    let delivery = world.deliver().await;
    assert_eq!(outcome(&delivery), Success::AlreadyCurrent);
    assert_eq!(world.commits(), [commit.as_str()]);
    let version_id = world.versions()[0].version_id.clone();
    assert_eq!(delivery.version_id, Some(version_id), "the rival's");
    assert_eq!((delivery.entries, delivery.archive_bytes), (None, None));
}

#[tokio::test]
async fn a_rival_with_an_older_commit_does_not_have_the_last_word() {
    let world = World::new().await;
    let old = commit(&world, "old");
    let (rival, to) = (world.rival(), world.destination());
    let repository = world.repository.clone();
    // The rival has its archive and writes it, the ref moves, and only then comes what this delivery has of the old tip.
    world.s3.before(Op::PutObject, move || async move {
        let delivery = rival
            .deliver(&to, None, SecondLook::Needed, &Arc::default())
            .await;
        assert_eq!(outcome(&delivery), Success::Published);
        repository.commit_on(MAIN, &[("new.txt", "new".into())]);
    });
    assert_eq!(outcome(&world.deliver().await), Success::Published);
    let new = world.repository.resolve(MAIN).unwrap();
    assert_eq!(world.commits(), [new.clone(), old]);
    assert_newest_is(&world, &new);
}

#[tokio::test]
async fn an_object_that_somebody_deletes_meanwhile_is_written_anew() {
    let world = deliver(&[("a.txt", "a")]).await.published().world;
    let client = world.s3.client();
    world.s3.before(Op::PutObject, move || async move {
        let delete = client.delete_object().bucket(BUCKET).key(KEY);
        delete.send().await.unwrap();
    });
    let second = world.deliver_change(&[("a.txt", "b")]).await.published();
    second.holds(&[("a.txt", "b")]);
}

#[tokio::test]
async fn a_bucket_that_cannot_be_used_is_an_error_that_says_why() {
    for (case, op, fault, kind, says) in [
        (
            "there is none",
            Op::PutObject,
            Fault::Code(404, "NoSuchBucket"),
            "bucket",
            "there is no such bucket",
        ),
        (
            "no versions, seen on writing",
            Op::PutObject,
            Fault::Unversioned,
            "not_versioned",
            "turn bucket versioning on",
        ),
        (
            "versioning was suspended, seen on writing",
            Op::PutObject,
            Fault::NullVersion,
            "not_versioned",
            "turn bucket versioning on",
        ),
    ] {
        let world = World::new().await;
        commit(&world, "b");
        world.s3.fail_once(op, fault);
        let err = failure(world.deliver().await);
        assert_eq!((err.kind(), err.is_transient()), (kind, false), "{case}");
        assert!(chain(&err).contains(says), "{case}: {}", chain(&err));
        assert_eq!(world.s3.count(Op::PutObject), 1, "{case}");
    }
}

#[tokio::test]
async fn a_version_without_an_id_is_not_replaced_while_the_bucket_keeps_no_versions() {
    for (case, head, versioning, says) in [
        (
            "never turned on",
            Fault::Unversioned,
            Fault::Versioning(None),
            "turn bucket versioning on",
        ),
        (
            "suspended",
            Fault::NullVersion,
            Fault::Versioning(Some("Suspended")),
            "turn bucket versioning on",
        ),
        (
            "nobody may ask",
            Fault::NullVersion,
            Fault::Status(403),
            "cannot be asked; allow s3:GetBucketVersioning",
        ),
    ] {
        let world = World::new().await;
        put_by_hand(&world).await;
        commit(&world, "a");
        let puts = world.s3.count(Op::PutObject);
        world.s3.fail_once(Op::HeadObject, head);
        world.s3.fail_once(Op::GetBucketVersioning, versioning);
        let err = failure(world.deliver().await);
        let kind = (err.kind(), err.is_transient());
        assert_eq!(kind, ("not_versioned", false), "{case}");
        assert!(chain(&err).contains(says), "{case}: {}", chain(&err));
        assert_eq!(world.s3.count(Op::PutObject), puts, "{case}");
    }
}

#[tokio::test]
async fn a_version_without_an_id_is_one_like_others_while_the_bucket_keeps_versions() {
    for head in [Fault::Unversioned, Fault::NullVersion] {
        let world = World::new().await;
        commit(&world, "a");
        world.deliver().await;
        world.s3.fail_once(Op::HeadObject, head);
        let delivery = world.deliver().await;
        assert_eq!(outcome(&delivery), Success::AlreadyCurrent, "{head:?}");
        assert_eq!(delivery.version_id, None, "{head:?}");
        let [warning] = &*delivery.warnings else {
            panic!("{head:?}: {:?}", delivery.warnings);
        };
        assert!(warning.contains("no id of its own"), "{head:?}: {warning}");

        // It is built upon.
        let next = commit(&world, "b");
        world.s3.fail_once(Op::HeadObject, head);
        let delivery = world.deliver().await;
        assert_eq!(outcome(&delivery), Success::Published, "{head:?}");
        assert_eq!(delivery.full_fetch, None, "{head:?}");
        assert!(delivery.warnings.is_empty(), "{head:?}");
        assert!(delivery.version_id.is_some(), "{head:?}");
        assert_newest_is(&world, &next);

        // One of somebody else is replaced, unless somebody was faster.
        put_by_hand(&world).await;
        world.s3.fail_once(Op::HeadObject, head);
        let client = world.s3.client();
        world.s3.before(Op::PutObject, move || async move {
            let put = client.put_object().bucket(BUCKET).key(KEY);
            put.body(b"faster".to_vec().into()).send().await.unwrap();
        });
        let asked = world.s3.count(Op::GetBucketVersioning);
        let delivery = world.deliver().await;
        assert_eq!(outcome(&delivery), Success::Published, "{head:?}");
        assert!(delivery.warnings[0].contains("did not write"), "{head:?}");
        assert_newest_is(&world, &next);
        let refused = world.s3.count(Op::PutObject);
        assert_eq!((refused, world.versions().len()), (6, 5), "{head:?}");
        assert_eq!(world.s3.count(Op::GetBucketVersioning), asked + 1);
    }
}

#[tokio::test]
async fn a_bucket_whose_versioning_cannot_be_asked_for_now_is_asked_again_later() {
    let world = World::new().await;
    commit(&world, "a");
    put_by_hand(&world).await;
    world.s3.fail_once(Op::HeadObject, Fault::NullVersion);
    for _ in 0..3 {
        let busy = Fault::Status(503);
        world.s3.fail_once(Op::GetBucketVersioning, busy);
    }
    let err = failure(world.deliver().await);
    assert_eq!((err.kind(), err.is_transient()), ("bucket", true));
    assert!(chain(&err).contains("whether there are versions"), "{err}");
}

#[tokio::test]
async fn a_warning_is_said_once_however_many_rounds_it_takes() {
    let world = World::new().await;
    world.repository.commit_on(MAIN, &[("aux", "a".into())]);
    put_by_hand(&world).await;
    let repository = world.repository.clone();
    world.s3.fail_once(Op::PutObject, Fault::Status(412));
    world.s3.fail_once(Op::PutObject, Fault::ApplyThenDrop);
    world.s3.before(Op::PutObject, || async {});
    world.s3.before(Op::PutObject, move || async move {
        repository.commit_on(MAIN, &[("late.txt", "late".into())]);
    });
    let delivery = world.deliver().await;
    assert_eq!(outcome(&delivery), Success::Published);
    let warnings: HashSet<_> = delivery.warnings.iter().collect();
    assert_eq!(
        (warnings.len(), delivery.warnings.len()),
        (2, 2),
        "{:?}",
        delivery.warnings
    );
}

#[tokio::test]
async fn a_foreign_object_stays_where_there_is_nothing_to_replace_it_with() {
    let world = World::new().await;
    put_by_hand(&world).await;
    let delivery = world.deliver().await;
    assert!(delivery.warnings.is_empty(), "{:?}", delivery.warnings);
    // It is no object of a branch that is gone.
    assert_eq!(failure(delivery).kind(), "ref_not_found");
    assert_eq!(world.versions().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deliveries_at_once_never_repeat_a_commit_and_end_at_the_tip() {
    let world = Arc::new(World::new().await);
    commit(&world, "start");
    let workers: Vec<_> = (0..6)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for _ in 0..4 {
                    world.deliver().await;
                }
            })
        })
        .collect();
    for n in 0..6 {
        let repository = world.upstream.repository("APP/web");
        tokio::task::spawn_blocking(move || {
            repository.commit_on(MAIN, &[("n", format!("{n}").as_str().into())])
        })
        .await
        .unwrap();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    world.deliver().await;
    let commits = world.commits();
    assert!(
        commits.windows(2).all(|pair| pair[0] != pair[1]),
        "{commits:?}"
    );
    assert_newest_is(&world, &world.repository.resolve(MAIN).unwrap());
}

#[tokio::test]
async fn hints_that_never_come_true_end_after_the_settle_time() {
    let first = deliver(&[("a.txt", "a")]).await.published();
    let world = first.world;
    let hints = Hints {
        commits: vec![id(&"ab".repeat(20))],
        before: None,
        is_awaited: false,
    };
    let started = Instant::now();
    assert_eq!(
        outcome(&world.deliver_hinted(Some(hints)).await),
        Success::AlreadyCurrent
    );
    assert!((7..9).contains(&started.elapsed().as_secs()));
    world.assert_newest_is_the_tip("as before");
}

#[test]
fn a_first_delivery_is_four_requests_on_one_connection() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            let commit = commit(&world, "a");
            assert_eq!(outcome(&world.deliver().await), Success::Published);
            assert_newest_is(&world, &commit);
            assert_eq!(server.ops(), [Handshake, LsRefs, Fetch, LsRefs]);
            let requests = server.requests();
            for request in &requests {
                println!(
                    "{} {} connection {}",
                    request.method, request.path, request.connection
                );
            }
            assert!(
                requests
                    .iter()
                    .all(|request| request.connection == requests[0].connection)
            );
        });
    });
}

#[test]
fn an_event_that_is_ahead_of_its_server_is_delivered_in_the_same_call() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            let old = commit(&world, "old");
            world.deliver().await;
            let new = commit(&world, "new");
            world.repository.set_ref(MAIN, &old);
            let (repository, tip) = (world.upstream.repository("APP/web"), new.clone());
            // The server catches up while the bridge waits.
            server.before(LsRefs, 2, move || {
                repository.set_ref(MAIN, &tip);
            });
            let hints = Hints {
                commits: vec![id(&new)],
                before: Some(id(&old)),
                is_awaited: false,
            };
            assert_eq!(
                outcome(&world.deliver_hinted(Some(hints)).await),
                Success::Published
            );
            assert_newest_is(&world, &new);
        });
    });
}

#[test]
fn a_push_at_any_moment_is_delivered_in_the_same_call() {
    trusting(|| {
        // Before protocol v2, what tells the refs is the handshake.
        for (moment, op, v0_op, nth, old_is_seen) in [
            ("before the tip is read", LsRefs, Handshake, 1, false),
            ("before the fetch", Fetch, Fetch, 1, true),
            ("before the tip is read again", LsRefs, Handshake, 2, true),
        ] {
            for v0 in [false, true] {
                for force in [false, true] {
                    let case = format!("{moment}, v0: {v0}, force: {force}");
                    World::on_a_server(async |world, server| {
                        server.speak_v0_only(v0);
                        let old = commit(&world, "old");
                        let repository = world.repository.clone();
                        let push = move || {
                            let files = [("new.txt", Content::from("new"))];
                            if force {
                                repository.commit_orphan_on(MAIN, &files);
                            } else {
                                repository.commit_on(MAIN, &files);
                            }
                        };
                        server.before(if v0 { v0_op } else { op }, nth, push);
                        let delivery = world.deliver().await;
                        assert_eq!(
                            delivery.result.as_ref().ok(),
                            Some(&Success::Published),
                            "{case}: {:?}",
                            delivery.result
                        );
                        let new = world.repository.resolve(MAIN).unwrap();
                        assert_ne!(new, old, "{case}");
                        assert_newest_is(&world, &new);
                        // A server of old gives only what its refs lead to.
                        let old_is_had = old_is_seen && !(v0 && force && op == Fetch);
                        let expected = if old_is_had {
                            vec![new, old]
                        } else {
                            vec![new]
                        };
                        assert_eq!(world.commits(), expected, "{case}");
                    });
                }
            }
        }
    });
}

#[test]
fn a_branch_that_is_deleted_before_the_fetch_is_gone() {
    trusting(|| {
        for (v0, existed, expected) in [
            (false, false, Ok(Success::BranchGone)),
            (false, true, Ok(Success::BranchGone)),
            (true, false, Err("ref_not_found")),
            (true, true, Ok(Success::BranchGone)),
        ] {
            World::on_a_server(async |world, server| {
                commit(&world, "old");
                if existed {
                    world.deliver().await;
                }
                world
                    .repository
                    .commit_on("refs/heads/other", &[("o", "o".into())]);
                commit(&world, "new");
                server.speak_v0_only(v0);
                let repository = world.repository.clone();
                server.before(Fetch, 1, move || repository.delete_ref(MAIN));
                let result = world.deliver().await.result;
                let found = result.as_ref().map_err(Error::kind).copied();
                assert_eq!(found, expected, "v0: {v0}, existed: {existed}: {result:?}");
            });
        }
    });
}

#[test]
fn a_fault_of_s3_costs_no_second_fetch() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            world.s3.fail_once(Op::PutObject, Fault::Status(503));
            world.deliver_change(&[("a.txt", "a")]).await.published();
            let fetches = server.ops().into_iter().filter(|op| *op == Fetch).count();
            assert_eq!(fetches, 1);
        });
    });
}

#[test]
fn faults_of_the_git_server_are_told_apart() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            commit(&world, "a");
            for (case, op, fault, kind, transient) in [
                (
                    "not let in",
                    Handshake,
                    GitFault::Status(401),
                    "auth_failed",
                    false,
                ),
                (
                    "forbidden",
                    Handshake,
                    GitFault::Status(403),
                    "auth_failed",
                    false,
                ),
                (
                    "not there",
                    Handshake,
                    GitFault::Status(404),
                    "repository_not_found",
                    false,
                ),
                ("broken", Handshake, GitFault::Status(500), "fetch", true),
                (
                    "busy on the first question",
                    LsRefs,
                    GitFault::Status(503),
                    "fetch",
                    true,
                ),
                ("broken off", Fetch, GitFault::CutAfter(100), "fetch", true),
            ] {
                // An answer that may help a second time is asked for again, but not for ever.
                server.fault(op, fault);
                // Each time as if for the first: a refused login is not tried again soon.
                let bridge = world.rival();
                let to = world.destination();
                let err = failure(
                    bridge
                        .deliver(&to, None, SecondLook::Needed, &Arc::default())
                        .await,
                );
                server.clear_faults();
                assert_eq!(
                    (err.kind(), err.is_transient()),
                    (kind, transient),
                    "{case}: {}",
                    chain(&err)
                );
            }
            assert!(world.versions().is_empty());
            assert_eq!(outcome(&world.deliver().await), Success::Published);
        });
    });
}

#[test]
fn a_redirect_is_not_followed() {
    trusting(|| {
        World::on_a_server(async |world, server| {
            commit(&world, "a");
            let elsewhere = GitServer::start(world.upstream.root(), None);
            server.fault(Handshake, GitFault::Redirect(elsewhere.base()));
            let err = failure(world.deliver().await);
            assert_eq!(err.kind(), "repository_not_found", "{}", chain(&err));
            let expected = format!(
                "if the space has moved there, write url = \"{}\"",
                elsewhere.space_url()
            );
            assert!(chain(&err).ends_with(&expected), "{}", chain(&err));
            assert!(elsewhere.requests().is_empty());
        });
    });
}

#[test]
fn a_password_is_in_no_error() {
    trusting(|| {
        let upstream = Upstream::new();
        upstream
            .repository("APP/web")
            .commit_on(MAIN, &[("a", "a".into())]);
        let server = GitServer::start(
            upstream.root(),
            Some(("robot@example.com", "the right one")),
        );
        let remote = |password: &str| backlog_bridge::remote::Remote {
            url: server.url("APP/web"),
            repository: "APP/web".parse().unwrap(),
            login: Some(backlog_bridge::secrets::Login {
                username: "robot@example.com".into(),
                password: password.to_owned().into(),
            }),
            deadline: None,
            heard: backlog_bridge::remote::Heard::default(),
            connections: backlog_bridge::remote::Connections::default(),
        };
        assert!(remote("the right one").connect().is_ok());
        let wrong = remote("marker:p@ss/word");
        let err = wrong.connect().err().expect("refused");
        assert_eq!(err.kind(), "auth_failed");
        for text in [chain(&err), format!("{err:?}"), format!("{wrong:?}")] {
            assert!(!text.contains("marker"), "{text}");
        }
    });
}

#[test]
fn an_address_where_nobody_listens_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let remote = backlog_bridge::remote::Remote {
        url: format!("https://127.0.0.1:{port}/git/APP/web.git"),
        repository: "APP/web".parse().unwrap(),
        login: None,
        deadline: None,
        heard: backlog_bridge::remote::Heard::default(),
        connections: backlog_bridge::remote::Connections::default(),
    };
    let err = remote.connect().err().expect("nobody is there");
    assert_eq!(
        (err.kind(), err.is_transient()),
        ("unreachable", true),
        "{}",
        chain(&err)
    );
}
