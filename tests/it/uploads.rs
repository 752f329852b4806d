//! An archive becomes a version, whole or in parts: what S3 is asked, and what is there afterwards, whatever goes wrong.

use std::{
    fs,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_s3::primitives::ByteStream;
use backlog_bridge::{
    archive::Archive,
    bucket::{Address, Condition, Label, PART_BYTES, PARTS_FROM_BYTES, Put, S3},
    error::{Error, chain},
};
use gix::ObjectId;
use tokio::{sync::oneshot, time::timeout};

use crate::support::{
    BUCKET, KEY, MAIN,
    s3::{ACCESS_KEY, Fault, Op, SECRET_KEY, TestS3},
    upstream::Content,
    world::World,
};

const AT: Address<'_> = Address {
    bucket: BUCKET,
    key: KEY,
};
const TWO_PARTS: u64 = PART_BYTES + 5;
/// Where the number of parts says nothing.
const ONE_PART: u64 = 5;

/// As much as has a number of its own in what stands for a zip.
const BLOCK: usize = 4096;

/// Stands for a zip: a number at the start of each block, so that nothing can be swapped or left out unseen.
fn archive(bytes: u64) -> Archive {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    for start in (0..bytes).step_by(BLOCK) {
        let number = start.to_be_bytes();
        let fits = number.len().min(usize::try_from(bytes - start).unwrap());
        file.write_all_at(&number[..fits], start).unwrap();
    }
    Archive::of_file(file, 1).unwrap()
}

fn is_whole(stored: &[u8]) -> bool {
    let mut blocks = stored.chunks(BLOCK);
    let mut expected = [0; BLOCK];
    let mut start = 0_u64;
    blocks.all(|block| {
        expected[..8].copy_from_slice(&start.to_be_bytes());
        start += BLOCK as u64;
        block == &expected[..block.len()]
    })
}

enum Way {
    AsItComes,
    InParts,
}

async fn put(s3: &S3, way: Way, archive: &Archive, condition: &Condition) -> Result<Put, Error> {
    let id = "00112233445566778899aabbccddeeff00112233";
    let label = Label {
        space: "https://example.backlog.com/git",
        repository: &"APP/web".parse().unwrap(),
        ref_name: &MAIN.parse().unwrap(),
        commit: id.parse().unwrap(),
        tree: ObjectId::from_hex(id.as_bytes()).unwrap(),
        about: &backlog_bridge::snapshot::About::default(),
        url: None,
        delivery_id: "5d1b9f4e",
        previous: None,
    };
    match way {
        Way::AsItComes => {
            s3.put(AT, archive, &label, condition, &Arc::default())
                .await
        }
        Way::InParts => {
            s3.put_in_parts(AT, archive, &label, condition, &Arc::default())
                .await
        }
    }
}

fn client(server: &TestS3) -> S3 {
    S3::at(server.endpoint(), ACCESS_KEY, SECRET_KEY)
}

/// How often parts were begun, sent, completed and aborted, and whether anything was put as a whole.
fn counts(server: &TestS3) -> [usize; 5] {
    [
        Op::CreateMultipartUpload,
        Op::UploadPart,
        Op::CompleteMultipartUpload,
        Op::AbortMultipartUpload,
        Op::PutObject,
    ]
    .map(|op| server.count(op))
}

/// Parts lie there until their upload ends.
async fn assert_no_part_is_left(server: &TestS3, case: &str) {
    let tmp = server.dir().join(".backlog-bridge/tmp");
    let gone = async {
        while fs::read_dir(&tmp).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = timeout(Duration::from_secs(5), gone).await;
    assert!(gone.is_ok(), "{case}: a part is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_archive_goes_in_parts_and_arrives_byte_for_byte() {
    let server = TestS3::start().await;
    let s3 = client(&server);
    let small = archive(ONE_PART);
    let put_small = put(&s3, Way::AsItComes, &small, &Condition::Absent).await;
    assert!(matches!(put_small, Ok(Put::Stored { .. })), "{put_small:?}");
    assert_eq!(counts(&server), [0, 0, 0, 0, 1]);
    let current = s3.head(AT).await.unwrap().current.unwrap();

    let large = archive(PARTS_FROM_BYTES + 5);
    let condition = Condition::Unchanged(current.etag);
    let put_large = put(&s3, Way::AsItComes, &large, &condition).await;
    let Ok(Put::Stored { version_id }) = put_large else {
        panic!("{put_large:?}");
    };
    let parts = large.bytes().div_ceil(PART_BYTES);
    assert_eq!(
        counts(&server),
        [1, usize::try_from(parts).unwrap(), 1, 0, 1]
    );

    let [newest, before] = server
        .versions(AT.bucket, AT.key)
        .try_into()
        .unwrap_or_else(|_| panic!("two versions"));
    assert_eq!(newest.version_id, version_id);
    assert!(newest.etag.ends_with(&format!("-{parts}")), "{newest:?}");
    assert_eq!(newest.content_type, before.content_type);
    assert_eq!(newest.metadata, before.metadata);
    assert_eq!(newest.metadata["delivery-id"], "5d1b9f4e");
    for (version, archive) in [(newest, &large), (before, &small)] {
        let stored = version.bytes.unwrap();
        assert_eq!(stored.len() as u64, archive.bytes());
        assert!(is_whole(&stored));
    }

    // What the next delivery does with it.
    let current = s3.head(AT).await.unwrap().current.unwrap();
    assert_eq!(current.version_id.as_ref(), Some(&version_id));
    assert_eq!(current.holds.as_ref().unwrap().delivery_id, "5d1b9f4e");
    let got = tempfile::NamedTempFile::new().unwrap();
    s3.get_found(AT, &current, got.reopen().unwrap())
        .await
        .unwrap();
    assert!(is_whole(&fs::read(got.path()).unwrap()));
    assert_no_part_is_left(&server, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_holds_no_longer_at_the_end_refuses_the_upload() {
    let archive = archive(ONE_PART);
    for (case, absent, rival) in [
        ("there was none", true, Some("rival")),
        ("there was another", false, Some("rival")),
        ("it was deleted", false, None),
    ] {
        let server = TestS3::start().await;
        let s3 = client(&server);
        let other = server.client();
        let condition = if absent {
            Condition::Absent
        } else {
            let first = other.put_object().bucket(AT.bucket).key(AT.key);
            first.send().await.unwrap();
            Condition::Unchanged(s3.head(AT).await.unwrap().current.unwrap().etag)
        };
        let before = server.versions(AT.bucket, AT.key).len();
        // The last moment: all parts are there.
        server.before(Op::CompleteMultipartUpload, move || async move {
            if let Some(text) = rival {
                let put = other.put_object().bucket(AT.bucket).key(AT.key);
                let put = put.body(ByteStream::from_static(text.as_bytes()));
                put.send().await.unwrap();
            } else {
                let delete = other.delete_object().bucket(AT.bucket).key(AT.key);
                delete.send().await.unwrap();
            }
        });
        let lost = put(&s3, Way::InParts, &archive, &condition).await;
        assert!(matches!(lost, Ok(Put::Refused)), "{case}: {lost:?}");
        let versions = server.versions(AT.bucket, AT.key);
        assert_eq!(versions.len(), before + 1, "{case}");
        assert_eq!(
            versions[0].bytes.as_deref(),
            rival.map(str::as_bytes),
            "{case}"
        );
        let [begun, sent, completed, aborted, _] = counts(&server);
        assert_eq!([begun, sent, completed, aborted], [1, 1, 1, 1], "{case}");
        assert_no_part_is_left(&server, case).await;
    }
}

/// What a put is expected to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stored,
    Refused,
    Unknown,
    /// For good.
    Failed,
}

impl End {
    fn of(put: &Result<Put, Error>) -> Self {
        match put {
            Ok(Put::Stored { .. }) => Self::Stored,
            Ok(Put::Refused) => Self::Refused,
            Ok(Put::Unknown(err)) => {
                assert!(err.is_transient(), "{}", chain(err));
                Self::Unknown
            }
            Err(err) => {
                assert!(!err.is_transient(), "{}", chain(err));
                Self::Failed
            }
        }
    }
}

struct Case {
    name: &'static str,
    op: Op,
    faults: &'static [Fault],
    end: End,
    /// How often an upload was begun, completed and aborted.
    counts: [usize; 3],
    /// How many parts were sent; not certain where one fails while another is under way.
    sent: RangeInclusive<usize>,
    versions: usize,
}

/// One bad upload after the other, and after each a good one.
async fn check(bytes: u64, cases: &[Case]) {
    let archive = archive(bytes);
    for case in cases {
        let name = case.name;
        let server = TestS3::start().await;
        let s3 = client(&server);
        for fault in case.faults {
            server.fail_once(case.op, *fault);
        }
        let ended = put(&s3, Way::InParts, &archive, &Condition::Absent).await;
        assert_eq!(End::of(&ended), case.end, "{name}: {ended:?}");
        let [begun, sent, completed, aborted, _] = counts(&server);
        assert_eq!([begun, completed, aborted], case.counts, "{name}");
        assert!(case.sent.contains(&sent), "{name}: {sent} parts");
        assert_no_part_is_left(&server, name).await;
        let versions = server.versions(AT.bucket, AT.key);
        assert_eq!(versions.len(), case.versions, "{name}");
        for version in versions {
            assert!(is_whole(&version.bytes.unwrap()), "{name}");
        }
        if case.versions == 0 {
            server.heal();
            let again = put(&s3, Way::InParts, &archive, &Condition::Absent).await;
            assert_eq!(End::of(&again), End::Stored, "{name}: {again:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_is_sent_again_alone_and_not_for_ever() {
    check(
        TWO_PARTS,
        &[
            Case {
                name: "S3 has a fault",
                op: Op::UploadPart,
                faults: &[Fault::Status(500)],
                end: End::Stored,
                counts: [1, 1, 0],
                sent: 3..=3,
                versions: 1,
            },
            Case {
                name: "the connection breaks",
                op: Op::UploadPart,
                faults: &[Fault::Drop],
                end: End::Stored,
                counts: [1, 1, 0],
                sent: 3..=3,
                versions: 1,
            },
            Case {
                name: "the part is there, and the answer is lost",
                op: Op::UploadPart,
                faults: &[Fault::ApplyThenDrop],
                end: End::Stored,
                counts: [1, 1, 0],
                sent: 3..=3,
                versions: 1,
            },
            Case {
                name: "a bit flips on the way",
                op: Op::UploadPart,
                faults: &[Fault::Corrupt],
                end: End::Unknown,
                counts: [1, 0, 1],
                sent: 1..=2,
                versions: 0,
            },
            Case {
                name: "S3 counts another checksum",
                op: Op::UploadPart,
                faults: &[Fault::Code(400, "BadDigest")],
                end: End::Unknown,
                counts: [1, 0, 1],
                sent: 1..=2,
                versions: 0,
            },
            Case {
                name: "S3 stays busy: three times each of the two",
                op: Op::UploadPart,
                faults: &[Fault::Status(503); 6],
                end: End::Unknown,
                counts: [1, 0, 1],
                sent: 3..=6,
                versions: 0,
            },
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_go_on_is_aborted() {
    check(
        ONE_PART,
        &[
            Case {
                name: "not allowed to begin",
                op: Op::CreateMultipartUpload,
                faults: &[Fault::Status(403)],
                end: End::Failed,
                counts: [1, 0, 0],
                sent: 0..=0,
                versions: 0,
            },
            Case {
                name: "cannot begin",
                op: Op::CreateMultipartUpload,
                faults: &[Fault::Status(500); 3],
                end: End::Unknown,
                counts: [3, 0, 0],
                sent: 0..=0,
                versions: 0,
            },
            Case {
                name: "not allowed to send",
                op: Op::UploadPart,
                faults: &[Fault::Status(403)],
                end: End::Failed,
                counts: [1, 0, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "not allowed to complete",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Status(403)],
                end: End::Failed,
                counts: [1, 1, 1],
                sent: 1..=1,
                versions: 0,
            },
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_says_no_more_than_what_is_known() {
    const LOST: Fault = Fault::Code(404, "NoSuchUpload");
    check(
        ONE_PART,
        &[
            Case {
                name: "a fault that passes",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Status(500)],
                end: End::Stored,
                counts: [1, 2, 0],
                sent: 1..=1,
                versions: 1,
            },
            Case {
                name: "a fault that stays",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Status(500); 3],
                end: End::Unknown,
                counts: [1, 3, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "somebody is writing",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Status(409)],
                end: End::Refused,
                counts: [1, 1, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "done, the answer is lost, and the upload is known no more",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::ApplyThenDrop],
                end: End::Unknown,
                counts: [1, 2, 1],
                sent: 1..=1,
                versions: 1,
            },
            Case {
                name: "done, the answer is lost, and now there is an object",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::ApplyThenDrop, Fault::Status(412)],
                end: End::Refused,
                counts: [1, 2, 1],
                sent: 1..=1,
                versions: 1,
            },
            Case {
                name: "somebody ended the upload",
                op: Op::CompleteMultipartUpload,
                faults: &[LOST],
                end: End::Unknown,
                counts: [1, 1, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "a part was written twice",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Code(400, "InvalidPart")],
                end: End::Unknown,
                counts: [1, 1, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "a fault behind a status of 200, three times",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Code(200, "InternalError"); 3],
                end: End::Unknown,
                counts: [1, 3, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "a lost race behind a status of 200",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Code(200, "PreconditionFailed")],
                end: End::Refused,
                counts: [1, 1, 1],
                sent: 1..=1,
                versions: 0,
            },
            Case {
                name: "the bucket keeps no versions",
                op: Op::CompleteMultipartUpload,
                faults: &[Fault::Unversioned],
                end: End::Failed,
                counts: [1, 1, 0],
                sent: 1..=1,
                versions: 1,
            },
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_long_for_parts_to_be_thrown_away() {
    let server = TestS3::start().await;
    server.fail_once(Op::CompleteMultipartUpload, Fault::Status(412));
    server.fail_once(Op::AbortMultipartUpload, Fault::Hang);
    let started = Instant::now();
    let (s3, archive) = (client(&server), archive(ONE_PART));
    let refused = put(&s3, Way::InParts, &archive, &Condition::Absent);
    let refused = timeout(Duration::from_secs(20), refused).await;
    assert!(matches!(refused, Ok(Ok(Put::Refused))), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(15));
}

/// The work ends with the waiting. Only what was under way may still become a version, if it makes one.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_asks_nothing_more() {
    let archive = archive(ONE_PART);
    for (op, way, most) in [
        (Op::CreateMultipartUpload, Way::InParts, 0),
        (Op::UploadPart, Way::InParts, 0),
        (Op::CompleteMultipartUpload, Way::InParts, 1),
        (Op::PutObject, Way::AsItComes, 1),
    ] {
        let server = TestS3::start().await;
        let s3 = client(&server);
        let (arrive, arrived) = oneshot::channel();
        let (answer, held_back) = oneshot::channel::<()>();
        server.before(op, move || async move {
            let _ = arrive.send(());
            let _ = held_back.await;
        });
        tokio::select! {
            ended = put(&s3, way, &archive, &Condition::Absent) => panic!("{op:?}: {ended:?}"),
            arrived = arrived => arrived.unwrap(),
        }
        let asked = counts(&server);
        // An error if the server has already seen the connection close.
        let _ = answer.send(());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(counts(&server), asked, "{op:?}");
        let versions = server.versions(AT.bucket, AT.key).len();
        assert!(versions <= most, "{op:?}: {versions}");

        let again = put(&s3, Way::InParts, &archive, &Condition::Absent).await;
        let expected = [End::Stored, End::Refused][versions];
        assert_eq!(End::of(&again), expected, "{op:?}: {again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_tree_is_delivered_in_parts_once_and_the_next_one_builds_on_it() {
    let world = World::new().await;
    // What no zip makes smaller.
    let mut film = vec![0; usize::try_from(PARTS_FROM_BYTES).unwrap()];
    fastrand::Rng::with_seed(1).fill(&mut film);
    let film = ("film.bin", Content::from(film));
    let files = [film, ("a.txt", "one".into())];
    world.repository.commit_on(MAIN, &files);
    // The version is there, and nobody says so.
    let lost = Fault::ApplyThenDrop;
    world.s3.fail_once(Op::CompleteMultipartUpload, lost);
    let delivery = world.publish("first").await;
    assert_eq!(delivery.version_id, Some(world.newest().version_id));

    world.repository.commit_on(MAIN, &[("a.txt", "two".into())]);
    let delivery = world.publish_the_change("second").await;
    assert!(delivery.fetched_bytes.unwrap() < 10_000);

    let versions = world.versions();
    assert_eq!(versions.len(), 2);
    assert!(versions.iter().all(|version| version.etag.contains('-')));
    assert_eq!(world.s3.count(Op::PutObject), 0);
    assert_no_part_is_left(&world.s3, "delivered").await;
}
