//! The n-th effect of a delivery goes wrong, for every n and in every way that there is, until a run gets through without.
//!
//! `FAULTS=long` adds a start that the others nearly cover.

mod support;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use backlog_bridge::{
    bucket::S3,
    config::Limits,
    deliver::{Bridge, Delivery, Outcome},
    error::chain,
    progress::Progress,
    route::{Destination, Origin, RouteTable},
};
use support::{
    git_server::{
        Fault as GitFault, GitServer,
        Op::{self as GitOp, Fetch, Handshake, LsRefs},
    },
    oracle::{assert_zip_equals, expected_entries},
    s3::{ACCESS_KEY, Fault, Op, SECRET_KEY, TestS3},
    tls::trusting,
    upstream::{Content, Repository, Upstream},
};
use tokio::{runtime::Runtime, sync::oneshot};

const MAIN: &str = "refs/heads/main";
const BUCKET: &str = "sources";
const KEY: &str = "main.zip";
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

struct World {
    _upstream: Upstream,
    repository: Repository,
    server: GitServer,
    s3: TestS3,
    bridge: Bridge,
    to: Destination,
    /// What the ref pointed to, in order.
    tips: Vec<String>,
}

impl World {
    async fn new(start: Start) -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        let server = GitServer::start(upstream.root(), None);
        let s3 = TestS3::start().await;
        let mut routes = String::new();
        write!(
            routes,
            "[[space]]\nurl = \"{}\"\n[[route]]\nrepository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"{KEY}\"\n",
            server.space_url()
        )
        .unwrap();
        let table = RouteTable::parse("routes.toml", &routes, Some(BUCKET), Origin::Deployed);
        let table = Arc::new(table.unwrap());
        let route = &table.routes()[0];
        let to = route
            .destination(table.space_of(route), &MAIN.parse().unwrap())
            .unwrap();
        let mut world = Self {
            _upstream: upstream,
            repository,
            server,
            bridge: Bridge {
                s3: S3::at(s3.endpoint(), ACCESS_KEY, SECRET_KEY),
                table,
                logins: Arc::default(),
                limits: Limits::default(),
            },
            s3,
            to,
            tips: Vec::new(),
        };
        world.push("one");
        if start != Start::Nothing {
            let delivery = world.deliver(LONG).await;
            assert_eq!(delivery.result.ok(), Some(Outcome::Published));
            world.push("two");
        }
        if start == Start::PushMeanwhile {
            let repository = world.repository.clone();
            world.s3.before(Op::PutObject, move || async move {
                commit(&repository, "three");
            });
        }
        world.server.clear_requests();
        world
    }

    fn push(&mut self, text: &str) {
        self.tips.push(commit(&self.repository, text));
    }

    async fn deliver(&self, time: Duration) -> Delivery {
        let progress = Arc::new(Progress::until(Instant::now() + time));
        self.bridge.deliver(&self.to, None, &progress).await
    }

    /// One clean delivery, and then the invariants.
    async fn conclude(mut self, case: &str, folder: &Path, before: &BTreeSet<String>) {
        self.s3.heal();
        self.server.clear_faults();
        let delivery = self.deliver(LONG).await;
        assert!(delivery.result.is_ok(), "{case}: {:?}", delivery.result);
        let tip = self.repository.resolve(MAIN).unwrap();
        if self.tips.last() != Some(&tip) {
            self.tips.push(tip.clone());
        }
        let newest = self.s3.newest(BUCKET, KEY).unwrap();
        assert_eq!(newest.metadata["git-commit"], tip, "{case}: I1");
        let expected = expected_entries(&self.repository, &tip);
        assert_zip_equals(&newest.bytes.unwrap(), &expected, &tip);
        // Every push of these runs is a new commit: I2 and I3 in one.
        let mut versions = self.s3.versions(BUCKET, KEY);
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
        assert_no_secret(self.s3.dir(), case);
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
            let (mut runs, mut effects) = (0, 0);
            for start in starts() {
                for (fault, kill) in OF_S3 {
                    for n in 1.. {
                        let case = format!("{start:?}, request {n}: {fault:?}, kill: {kill}");
                        let before = names(folder);
                        let world = World::new(start).await;
                        let failed = world.s3.fail_nth(n, fault);
                        let hangs = matches!(fault, Fault::Hang | Fault::ApplyThenHang);
                        let time = if hangs && !kill { SHORT } else { LONG };
                        let happened = run(&world, failed, kill, time, &case).await;
                        world.conclude(&case, folder, &before).await;
                        runs += 1;
                        if !happened {
                            effects += n - 1;
                            break;
                        }
                    }
                }
            }
            println!("{runs} runs, {effects} faults of S3");
            assert!(effects >= starts().len() * OF_S3.len() * 2);
        });
    });
}

/// Whether the fault happened.
async fn run(
    world: &World,
    mut failed: oneshot::Receiver<()>,
    kill: bool,
    time: Duration,
    case: &str,
) -> bool {
    let delivery = world.deliver(time);
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
            let newest = world.s3.newest(BUCKET, KEY).unwrap();
            let tip = world.repository.resolve(MAIN);
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
            let (mut runs, mut effects) = (0, 0);
            for start in starts() {
                for op in [Handshake, LsRefs, Fetch] {
                    for (fault, kill) in of_git() {
                        for n in 1.. {
                            let case = format!("{start:?}, {op:?} {n}: {fault:?}, kill: {kill}");
                            let before = names(folder);
                            let world = World::new(start).await;
                            let failed = fail_nth(&world, op, n, fault.clone());
                            let hangs = matches!(fault, GitFault::Hang);
                            let time = if hangs && !kill { SHORT } else { LONG };
                            let happened = run(&world, failed, kill, time, &case).await;
                            world.conclude(&case, folder, &before).await;
                            runs += 1;
                            if !happened {
                                effects += n - 1;
                                break;
                            }
                        }
                    }
                }
            }
            println!("{runs} runs, {effects} faults of the Git server");
            assert!(effects >= starts().len() * of_git().len() * 3);
        });
    });
}

fn fail_nth(world: &World, op: GitOp, n: usize, fault: GitFault) -> oneshot::Receiver<()> {
    let (tell, failed) = oneshot::channel();
    // Once nobody listens any more, the run is over.
    let is_wanted = move || tell.send(()).is_ok();
    world.server.fault_at(op, n, fault, is_wanted);
    failed
}
