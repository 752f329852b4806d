//! Several real `deliver` processes on one queue, killed and stopped while people push: what the servers have at the end is
//! all that is looked at.
//!
//! `PROCESSES=500` makes so many pushes for each of three seeds, `PROCESSES_SEED=7` begins with another seed, and
//! `PROCESSES_OTHER=FILE` lets the `deliver` of another release handle messages too.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use backlog_bridge::queue::Job;
use fastrand::Rng;
use tempfile::TempDir;

use crate::support::{
    BUCKET,
    git_server::GitServer,
    lambda::Lambda,
    oracle::{assert_zip_equals, expected_entries},
    process::{git, stdout_of},
    s3::{ACCESS_KEY, Fault, Op as S3Op, SECRET_KEY, StoredVersion, TestS3},
    secrets::TestSecrets,
    sqs::TestSqs,
    upstream::{Content, Repository, Upstream},
};

const WORKERS: usize = 3;
const PUSHES: usize = 120;
const TABLE: &str = "config/routes.toml";
const USER: &str = "robot@example.com";
const PASSWORD: &str = "p:a@s/s-of-processes";
/// Route name, branch, key: two routes have one branch.
const ROUTES: [(&str, &str, &str); 3] = [
    ("main", "refs/heads/main", "main.zip"),
    ("copy", "refs/heads/main", "copy.zip"),
    ("develop", "refs/heads/develop", "develop.zip"),
];
/// What people make of them for a while: two objects change places, or a route goes.
const EDITED: [&[(&str, &str, &str)]; 2] = [
    &[
        ("main", "refs/heads/main", "develop.zip"),
        ("copy", "refs/heads/main", "copy.zip"),
        ("develop", "refs/heads/develop", "main.zip"),
    ],
    &[
        ("main", "refs/heads/main", "main.zip"),
        ("develop", "refs/heads/develop", "develop.zip"),
    ],
];
const BRANCHES: [&str; 2] = ["refs/heads/main", "refs/heads/develop"];
/// Shorter than a worker may stand still, so that a message comes again while its worker lives.
const VISIBILITY: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is parked when the last push was made, and what the sweep parks then, take a minute each.
const END: Duration = Duration::from_mins(5);
/// How far a second machine of the Git server may be behind, in milliseconds.
const LAG: u64 = 3000;

struct World {
    repository: Repository,
    git: GitServer,
    s3: TestS3,
    queue: TestSqs,
    /// Where the workers put temporary files.
    folder: TempDir,
    lambdas: Vec<Lambda>,
    _secrets: TestSecrets,
    upstream: Upstream,
}

impl World {
    async fn new() -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        // The server keeps a log of its refs.
        repository.git(&["config", "core.logAllRefUpdates", "always"]);
        let git = GitServer::start(upstream.root(), Some((USER, PASSWORD)));
        let s3 = TestS3::start().await;
        let (queue, secrets) = (TestSqs::start(VISIBILITY, 100), TestSecrets::start());
        let login = serde_json::json!({ "username": USER, "password": PASSWORD });
        secrets.put("bridge/git", &login.to_string());
        let folder = tempfile::tempdir().unwrap();
        let vars = [
            ("SOURCE_BUCKET", BUCKET.to_owned()),
            ("ROUTES", format!("s3://{BUCKET}/{TABLE}")),
            ("QUEUE_URL", queue.url()),
            ("AWS_ENDPOINT_URL_S3", s3.endpoint().to_owned()),
            ("AWS_ENDPOINT_URL_SQS", queue.endpoint()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.endpoint()),
            ("SSL_CERT_FILE", git.ca_file().display().to_string()),
            ("TMPDIR", folder.path().display().to_string()),
        ];
        let mut lambdas = Vec::new();
        for _ in 0..WORKERS {
            lambdas.push(Lambda::start(env!("CARGO_BIN_EXE_deliver"), &vars, TIMEOUT).await);
        }
        if let Ok(other) = std::env::var("PROCESSES_OTHER") {
            lambdas[0] = Lambda::start(&other, &vars, TIMEOUT).await;
        }
        let world = Self {
            repository,
            git,
            s3,
            queue,
            folder,
            lambdas,
            _secrets: secrets,
            upstream,
        };
        world.put_table(&world.table(&ROUTES)).await;
        world
    }

    fn table(&self, routes: &[(&str, &str, &str)]) -> String {
        let url = self.git.space_url();
        let mut table =
            format!("[[space]]\nurl = \"{url}\"\ncredentials = \"secret:bridge/git\"\n");
        for (name, branch, key) in routes {
            write!(
                table,
                "[[route]]\nname = \"{name}\"\nrepository = \"APP/web\"\nref = \"{branch}\"\nobject = \"{key}\"\n"
            )
            .unwrap();
        }
        table
    }

    /// Stores a table. The fault of a put may hit this one.
    async fn put_table(&self, text: &str) {
        let client = self.s3.client();
        loop {
            let put = client.put_object().bucket(BUCKET).key(TABLE);
            let put = put.body(text.to_owned().into_bytes().into());
            if put.send().await.is_ok() {
                break;
            }
        }
    }

    /// Edits the table: something else for a while, and then what it was.
    async fn edit(&self, mut rng: Rng, over: &AtomicBool, count: &Count) {
        while !over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(rng.u64(100..800))).await;
            match rng.u8(..16) {
                // A job that nobody can place rests for ten seconds, so this is rare.
                0 => self.put_table("[[route").await,
                1 => {
                    let client = self.s3.client();
                    let delete = client.delete_object().bucket(BUCKET).key(TABLE);
                    delete.send().await.unwrap();
                }
                n => {
                    let edited = self.table(EDITED[usize::from(n % 2)]);
                    self.put_table(&edited).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(10..400))).await;
            self.put_table(&self.table(&ROUTES)).await;
            count.edits.fetch_add(1, Relaxed);
        }
    }

    /// Has a second machine answer half of the requests, which is behind by up to [`LAG`].
    async fn lag(&self, replica: &Path, mut rng: Rng, over: &AtomicBool, count: &Count) {
        let mut answers = rng.fork();
        self.git.replica(replica, move |_| answers.bool());
        while !over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(rng.u64(..LAG))).await;
            self.catch_up(replica).await;
            count.syncs.fetch_add(1, Relaxed);
        }
        self.catch_up(replica).await;
    }

    /// Brings the second machine's refs to where the first one's are.
    async fn catch_up(&self, replica: &Path) {
        let (from, to) = (
            self.repository.path().to_owned(),
            replica.join("APP/web.git"),
        );
        let fetch = move || {
            let mut git = git();
            git.arg("-C").arg(to).args(["fetch", "--quiet", "--prune"]);
            stdout_of(git.arg(from).arg("+refs/*:refs/*"), b"");
        };
        tokio::task::spawn_blocking(fetch).await.unwrap();
    }

    /// Pushes something, most of the time with its events.
    fn push(&self, rng: &mut Rng, nth: usize) {
        let branch = BRANCHES[rng.usize(..BRANCHES.len())];
        let log = log_of(&self.repository, branch);
        if rng.u8(..4) == 0 && log.len() > 1 {
            let earlier = &log[log.len() - 1 - rng.usize(1..log.len().min(4))];
            self.repository.set_ref(branch, earlier);
        } else {
            let text = format!("change {nth}");
            self.repository
                .commit_on(branch, &[("a.txt", Content::from(&*text))]);
        }
        // An event that names commits and that its branch has left behind makes a delivery wait for longer than a message
        // is invisible here.
        for (route, _, _) in ROUTES.iter().filter(|(_, of, _)| *of == branch) {
            let (repository, ref_name) = ("APP/web".parse().unwrap(), branch.parse().unwrap());
            let job = Job::unhinted((*route).into(), repository, ref_name, &nth.to_string());
            let copies = [0, 1, 1, 1, 1, 1, 1, 2][rng.usize(..8)];
            for _ in 0..copies {
                self.queue.put(&job.body(), &job.group());
            }
        }
    }

    /// Kills and stops workers, and lets requests fail.
    async fn trouble(&self, mut rng: Rng, over: &AtomicBool, count: &Count) {
        while !over.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(rng.u64(50..500))).await;
            let lambda = &self.lambdas[rng.usize(..WORKERS)];
            match rng.u8(..16) {
                0..=5 => {
                    if !is_ours(lambda.pid()) {
                        continue;
                    }
                    lambda.kill();
                    count.kills.fetch_add(1, Relaxed);
                }
                6..=10 => {
                    let pid = lambda.pid();
                    if !is_ours(pid) {
                        continue;
                    }
                    signal("-STOP", pid);
                    let longest = if rng.u8(..4) == 0 { 4000 } else { 700 };
                    tokio::time::sleep(Duration::from_millis(rng.u64(50..longest))).await;
                    if is_ours(pid) {
                        signal("-CONT", pid);
                    }
                    count.stops.fetch_add(1, Relaxed);
                }
                // A write that arrives when its message has come again, to another worker.
                11 | 12 => {
                    let late = VISIBILITY + Duration::from_millis(rng.u64(200..1500));
                    self.s3
                        .before(S3Op::PutObject, move || tokio::time::sleep(late));
                    count.late.fetch_add(1, Relaxed);
                }
                // Of the put alone, which is tried again at once: a job that failed rests for ten seconds and for a minute,
                // and all would be quiet.
                _ => {
                    let faults = [
                        Fault::Status(503),
                        Fault::Status(409),
                        Fault::Drop,
                        Fault::ApplyThenDrop,
                    ];
                    let fault = faults[rng.usize(..faults.len())];
                    self.s3.fail_once(S3Op::PutObject, fault);
                    count.faults.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// The event source mapping of one worker.
    async fn work(&self, lambda: &Lambda, over: &AtomicBool, count: &Count) {
        while !over.load(Relaxed) {
            let short = Duration::from_millis(200);
            let invocations = self.queue.drain(lambda, 1, short).await;
            count.invocations.fetch_add(invocations.len(), Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The last that each worker told.
    fn told(&self) -> String {
        let logs = self.lambdas.iter().map(Lambda::log);
        let ends = logs.map(|log| log[log.len().saturating_sub(8)..].join("\n"));
        ends.collect::<Vec<_>>().join("\n\n")
    }

    async fn empty_queue(&self) {
        let started = Instant::now();
        while self.queue.depth() != (0, 0) {
            assert!(
                started.elapsed() < END,
                "the queue: {:?}\n{}",
                self.queue.depth(),
                self.told()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[derive(Default)]
struct Count {
    kills: AtomicUsize,
    stops: AtomicUsize,
    faults: AtomicUsize,
    late: AtomicUsize,
    invocations: AtomicUsize,
    edits: AtomicUsize,
    syncs: AtomicUsize,
}

/// What else happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// People edit the table.
    Edits,
    /// The Git server answers from two machines.
    Replica,
}

/// Whether it runs, and no stranger has its number by now.
fn is_ours(pid: u32) -> bool {
    let asked = Command::new("ps")
        .args(["-o", "ppid=", "-p", &pid.to_string()])
        .output();
    let parent = String::from_utf8(asked.expect("ps is installed").stdout);
    parent.is_ok_and(|parent| parent.trim() == std::process::id().to_string())
}

fn signal(signal: &str, pid: u32) {
    // It may have ended.
    Command::new("kill")
        .args([signal, &pid.to_string()])
        .output()
        .expect("kill is installed");
}

/// What the server's own log says that the branch pointed to, one after the other.
fn log_of(repository: &Repository, branch: &str) -> Vec<String> {
    let path = repository.path().join("logs").join(branch);
    let log = fs::read_to_string(path).unwrap_or_default();
    let commits = log.lines().filter_map(|line| line.split(' ').nth(1));
    commits.map(str::to_owned).collect()
}

/// I2, and I3: in the order of each branch's log, the versions never go back.
fn check(key: &str, versions: &[StoredVersion], repository: &Repository) {
    let logs = BRANCHES.map(|branch| (branch, log_of(repository, branch)));
    let mut places = [0; BRANCHES.len()];
    let mut before = ("", "");
    for version in versions {
        let held = (
            version.metadata["git-ref"].as_str(),
            version.metadata["git-commit"].as_str(),
        );
        assert_ne!(before, held, "I2: {key} holds {held:?} twice in a row");
        let of = logs.iter().position(|(branch, _)| *branch == held.0);
        let of = of.expect("a branch of this test");
        let found = logs[of].1[places[of]..]
            .iter()
            .position(|tip| tip == held.1);
        let found = found.unwrap_or_else(|| panic!("I3: {key} holds {held:?} after a later tip"));
        places[of] += found;
        before = held;
    }
}

fn assert_no_secret(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_secret(&path);
        } else {
            let bytes = fs::read(&path).unwrap();
            for secret in [PASSWORD, SECRET_KEY] {
                let mut windows = bytes.windows(secret.len());
                assert!(
                    !windows.any(|window| window == secret.as_bytes()),
                    "a secret is in {}",
                    path.display()
                );
            }
        }
    }
}

async fn live(seed: u64, pushes: usize, beside: Beside) {
    let started = Instant::now();
    let world = World::new().await;
    let (count, over, calm) = (
        Count::default(),
        AtomicBool::new(false),
        AtomicBool::new(false),
    );
    let mut rng = Rng::with_seed(seed);
    let (trouble, edit, lag) = (rng.fork(), rng.fork(), rng.fork());
    let replica = world.upstream.copy();
    let story = async {
        let pushing = async {
            for nth in 0..pushes {
                world.push(&mut rng, nth);
                // Now and then, the workers catch up.
                let longest = if rng.u8(..8) == 0 { 1500 } else { 60 };
                tokio::time::sleep(Duration::from_millis(rng.u64(..longest))).await;
            }
            calm.store(true, Relaxed);
        };
        let besides = async {
            match beside {
                Beside::Nothing => {}
                Beside::Edits => world.edit(edit, &calm, &count).await,
                Beside::Replica => world.lag(replica.path(), lag, &calm, &count).await,
            }
        };
        tokio::join!(pushing, world.trouble(trouble, &calm, &count), besides);
        world.s3.heal();
        world.empty_queue().await;
        // The schedule sends this to a group of its own.
        world.queue.put(r#"{"sweep":true}"#, "sweep");
        world.empty_queue().await;
        over.store(true, Relaxed);
    };
    let [one, two, three] = &world.lambdas[..] else {
        unreachable!("{WORKERS} workers");
    };
    tokio::join!(
        story,
        world.work(one, &over, &count),
        world.work(two, &over, &count),
        world.work(three, &over, &count),
    );
    let versions = conclude(&world);
    let starts: usize = world.lambdas.iter().map(Lambda::starts).sum();
    println!(
        "seed {seed}: {pushes} pushes, {} kills, {} stops, {} faults, {} late writes, {} edits, {} times level, {starts} processes, {} invocations, {versions:?} versions, 0 violations, {:.0?}",
        count.kills.load(Relaxed),
        count.stops.load(Relaxed),
        count.faults.load(Relaxed),
        count.late.load(Relaxed),
        count.edits.load(Relaxed),
        count.syncs.load(Relaxed),
        count.invocations.load(Relaxed),
        started.elapsed()
    );
}

fn conclude(world: &World) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (_, branch, key) in ROUTES {
        let log = log_of(&world.repository, branch);
        let mut versions = world.s3.versions(BUCKET, key);
        versions.reverse();
        counts.insert(key, versions.len());
        let newest = versions.last().map(|newest| &newest.metadata["git-commit"]);
        assert_eq!(newest, log.last(), "I1: {key}");
        check(key, &versions, &world.repository);
        for version in versions {
            let commit = &version.metadata["git-commit"];
            let expected = expected_entries(&world.repository, commit);
            assert_zip_equals(&version.bytes.unwrap(), &expected, commit);
        }
    }
    // I5: nothing was given up, and nothing is left.
    assert_eq!(world.queue.dead_letters(), [] as [serde_json::Value; 0]);
    assert_no_secret(world.s3.dir());
    for lambda in &world.lambdas {
        let output = lambda.output();
        for secret in [PASSWORD, SECRET_KEY, ACCESS_KEY] {
            assert!(!output.contains(secret), "{output}");
        }
        lambda.kill();
    }
    let left: Vec<_> = fs::read_dir(world.folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    counts
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

async fn lives(beside: Beside) {
    let first = number("PROCESSES_SEED").unwrap_or(1);
    let long = number("PROCESSES").map(|pushes| usize::try_from(pushes).unwrap());
    for seed in first..first + if long.is_some() { 3 } else { 1 } {
        println!("seed {seed}");
        live(seed, long.unwrap_or(PUSHES), beside).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_stopped_workers_leave_every_object_at_its_refs_tip() {
    lives(Beside::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_do_while_people_edit_the_table() {
    lives(Beside::Edits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_do_while_the_git_server_answers_from_two_machines() {
    lives(Beside::Replica).await;
}
