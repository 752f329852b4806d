//! The n-th effect of a delivery goes wrong, for every n and in every way that there is, until a run gets through without.
//!
//! `FAULTS=long` adds a start that the others nearly cover.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use backlog_bridge::{
    deliver::{Delivery, Success, step::SecondLook},
    error::chain,
    progress::Progress,
};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::support::{
    MAIN,
    git_server::{
        Fault as GitFault, GitServer,
        Op::{self as GitOp, Fetch, Handshake, LsRefs},
    },
    s3::{Fault, Op, SECRET_KEY},
    tls::trusting,
    upstream::{Content, Repository},
    world::World,
};

/// For a delivery that waits for what never comes.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_mins(1);

/// What a run starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// There is no object.
    Nothing,
    /// The object holds an older commit.
    Older,
    /// The same, and another push comes while the archive is stored: there is a second round.
    PushMeanwhile,
}

fn starts() -> Vec<Start> {
    let mut starts = vec![Start::Nothing, Start::PushMeanwhile];
    if std::env::var_os("FAULTS").is_some_and(|how| how == "long") {
        starts.push(Start::Older);
    }
    starts
}

/// A world whose repository is on a server, and what its ref pointed to, in order.
struct Run {
    world: World,
    server: GitServer,
    tips: Vec<String>,
}

impl Run {
    async fn new(start: Start) -> Self {
        let (world, server) = World::with_server().await;
        let mut run = Self {
            world,
            server,
            tips: Vec::new(),
        };
        run.push("one");
        if start != Start::Nothing {
            let delivery = run.deliver(LONG).await;
            assert_eq!(delivery.result.ok(), Some(Success::Published));
            run.push("two");
        }
        if start == Start::PushMeanwhile {
            let repository = run.world.repository.clone();
            run.world.s3.before(Op::PutObject, move || async move {
                commit(&repository, "three");
            });
        }
        run.server.clear_requests();
        run
    }

    fn push(&mut self, text: &str) {
        self.tips.push(commit(&self.world.repository, text));
    }

    async fn deliver(&self, time: Duration) -> Delivery {
        let progress = Arc::new(Progress::until(Instant::now() + time));
        let to = self.world.destination();
        self.world
            .bridge
            .deliver(&to, None, SecondLook::Needed, &progress)
            .await
    }

    /// One clean delivery, and then the invariants.
    async fn conclude(mut self, case: &str, folder: &Path, before: &BTreeSet<String>) {
        self.world.s3.heal();
        self.server.clear_faults();
        let delivery = self.deliver(LONG).await;
        assert!(delivery.result.is_ok(), "{case}: {:?}", delivery.result);
        let tip = self.world.repository.resolve(MAIN).unwrap();
        if self.tips.last() != Some(&tip) {
            self.tips.push(tip);
        }
        self.world.assert_newest_is_the_tip(&format!("{case}: I1"));
        // Every push of these runs is a new commit: I2 and I3 in one.
        let mut versions = self.world.versions();
        versions.reverse();
        let places: Vec<_> = versions
            .iter()
            .map(|version| {
                self.tips
                    .iter()
                    .position(|tip| *tip == version.metadata["git-commit"])
            })
            .collect();
        assert!(
            places.is_sorted_by(|one, next| one < next),
            "{case}: I2, I3: {places:?}"
        );
        for version in &versions {
            assert!(!format!("{:?}", version.metadata).contains(SECRET_KEY));
        }
        assert_no_secret(self.world.s3.dir(), case);
        drop(self);
        // What was left alone ends a little later.
        let end = Instant::now() + Duration::from_secs(10);
        while names(folder) != *before {
            assert!(
                Instant::now() < end,
                "{case}: left behind: {:?}",
                names(folder).difference(before).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn commit(repository: &Repository, text: &str) -> String {
    let files = [("a.txt", Content::from(text)), ("b.txt", "the same".into())];
    repository.commit_on(MAIN, &files)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| name(entry.unwrap())).collect()
}

fn assert_no_secret(folder: &Path, case: &str) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_secret(&path, case);
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes
                .windows(SECRET_KEY.len())
                .any(|window| window == SECRET_KEY.as_bytes());
            assert!(!found, "{case}: a secret is in {}", path.display());
        }
    }
}

fn assert_tells_no_secret(delivery: &Delivery, case: &str) {
    if let Err(err) = &delivery.result {
        let text = chain(err) + &format!("{delivery:?}");
        assert!(!text.contains(SECRET_KEY), "{case}: {text}");
    }
}

/// Runs a test that must get a folder for temporary files to itself: the process is its own.
fn with_folder(test: impl AsyncFnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    // The first call in a process counts, and the test's process has one test.
    tempfile::env::override_temp_dir(folder.path()).expect("nobody did so before");
    Runtime::new().unwrap().block_on(test(folder.path()));
}

/// How a request goes wrong, and whether the delivery is killed when it does.
const OF_S3: [(Fault, bool); 8] = [
    (Fault::Status(500), false),
    (Fault::Status(403), false),
    (Fault::Status(412), false),
    (Fault::Drop, false),
    (Fault::ApplyThenDrop, false),
    (Fault::Hang, false),
    (Fault::Hang, true),
    (Fault::ApplyThenHang, true),
];

#[test]
fn after_any_fault_of_s3_one_delivery_makes_it_right() {
    trusting(|| {
        with_folder(async |folder| {
            let mut effects = 0;
            for start in starts() {
                for (fault, kill) in OF_S3 {
                    let case = format!("{start:?}, {fault:?}, kill: {kill}");
                    let hangs = matches!(fault, Fault::Hang | Fault::ApplyThenHang);
                    let time = if hangs && !kill { SHORT } else { LONG };
                    let fail = |run: &Run, n| run.world.s3.fail_nth(n, fault);
                    effects += at_each_request(folder, &case, start, kill, time, fail).await;
                }
            }
            println!("{effects} faults of S3");
            assert!(effects >= starts().len() * OF_S3.len() * 2);
        });
    });
}

/// Repeats a delivery and fails its first request, then its second, until there is none left to fail. After each, one
/// clean delivery must make it right. Returns how many requests failed.
async fn at_each_request(
    folder: &Path,
    case: &str,
    start: Start,
    kill: bool,
    time: Duration,
    fail: impl Fn(&Run, usize) -> oneshot::Receiver<()>,
) -> usize {
    for n in 1.. {
        let case = format!("{case}, number {n}");
        let before = names(folder);
        let run = Run::new(start).await;
        let failed = fail(&run, n);
        let happened = happens(&run, failed, kill, time, &case).await;
        run.conclude(&case, folder, &before).await;
        if !happened {
            return n - 1;
        }
    }
    unreachable!("a delivery ends")
}

/// Whether the fault happened.
async fn happens(
    run: &Run,
    mut failed: oneshot::Receiver<()>,
    kill: bool,
    time: Duration,
    case: &str,
) -> bool {
    let delivery = run.deliver(time);
    if kill {
        tokio::select! {
            delivery = delivery => {
                assert!(delivery.result.is_ok(), "{case}: {:?}", delivery.result);
                false
            }
            told = &mut failed => told.is_ok(),
        }
    } else {
        let delivery = delivery.await;
        let happened = failed.try_recv().is_ok();
        let fine = delivery
            .result
            .as_ref()
            .map_or_else(|err| err.kind() == "deadline", |_| true);
        assert!(happened || fine, "{case}: {:?}", delivery.result);
        assert_tells_no_secret(&delivery, case);
        if delivery.result.is_ok() {
            // I5: nobody else delivers, so this is what is there when the message is acknowledged.
            let newest = run.world.newest();
            let tip = run.world.repository.resolve(MAIN);
            assert_eq!(
                newest.metadata.get("git-commit"),
                tip.as_ref(),
                "{case}: I5"
            );
        }
        happened
    }
}

fn of_git() -> [(GitFault, bool); 6] {
    [
        (GitFault::Status(500), false),
        (GitFault::Status(404), false),
        (GitFault::CutAfter(40), false),
        (GitFault::CutAfter(300), false),
        (GitFault::Hang, false),
        (GitFault::Hang, true),
    ]
}

#[test]
fn after_any_fault_of_the_git_server_one_delivery_makes_it_right() {
    trusting(|| {
        with_folder(async |folder| {
            let mut effects = 0;
            for start in starts() {
                for op in [Handshake, LsRefs, Fetch] {
                    for (fault, kill) in of_git() {
                        let case = format!("{start:?}, {op:?}, {fault:?}, kill: {kill}");
                        let hangs = matches!(fault, GitFault::Hang);
                        let time = if hangs && !kill { SHORT } else { LONG };
                        let fail = |run: &Run, n| fail_nth(run, op, n, fault.clone());
                        effects += at_each_request(folder, &case, start, kill, time, fail).await;
                    }
                }
            }
            println!("{effects} faults of the Git server");
            assert!(effects >= starts().len() * of_git().len() * 3);
        });
    });
}

fn fail_nth(run: &Run, op: GitOp, n: usize, fault: GitFault) -> oneshot::Receiver<()> {
    let (tell, failed) = oneshot::channel();
    // Once nobody listens any more, the run is over.
    let is_wanted = move || tell.send(()).is_ok();
    run.server.fault_at(op, n, fault, is_wanted);
    failed
}
