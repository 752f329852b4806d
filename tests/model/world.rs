//! A repository, a bucket and a worker, what can happen to them, and what must be true of them.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    ops::AddAssign,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use backlog_bridge::{
    bucket::S3,
    deliver::{Deliverer, step::SECOND_LOOK},
    limits::Limits,
    local::{Fifo, Lease, Receipt},
    outcome::{Outcome, Report, SeenBack},
    progress::Progress,
    queue::Job,
    table::LiveTable,
    worker::{Attempt, End, Handled, Parked, Worker, backoff},
};

use super::Op;
use crate::support::{
    BUCKET,
    oracle::{assert_zip_equals, expected_entries},
    s3::{ACCESS_KEY, Fault, SECRET_KEY, StoredVersion, TestS3},
    upstream::{Content, Repository, Upstream},
};

pub(crate) const BRANCHES: [&str; 2] = ["refs/heads/main", "refs/heads/develop"];
pub(crate) const KEYS: [&str; 3] = ["main.zip", "develop.zip", "all.zip"];
/// Route name, branch, key. A table may drop a route, add one, or swap two objects.
pub(crate) const TABLES: [&[(&str, usize, usize)]; 3] = [
    &[("main", 0, 0), ("develop", 1, 1)],
    &[("main", 0, 0), ("all", 0, 2)],
    &[("main", 0, 1), ("develop", 1, 0), ("all", 0, 2)],
];
const TIME: Duration = Duration::from_secs(20);
/// With an answer that never comes, every run waits for it.
const SHORT: Duration = Duration::from_secs(1);

/// As with the template's queue.
const VISIBILITY: Duration = Duration::from_mins(6);
const TRIES: u32 = 5;

/// How every job of the last sweep comes: as if it were made just now.
const FIRST: Attempt = Attempt {
    tries: 1,
    is_last: false,
    age: Duration::ZERO,
};

/// What the runs did, so that a test that does nothing is noticed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) steps: usize,
    pub(crate) published: usize,
    pub(crate) already_current: usize,
    pub(crate) failed: usize,
    pub(crate) killed: usize,
    pub(crate) swept: usize,
    pub(crate) versions: usize,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.published += other.published;
        self.already_current += other.already_current;
        self.failed += other.failed;
        self.killed += other.killed;
        self.swept += other.swept;
        self.versions += other.versions;
    }
}

/// Every change of a ref, in order.
pub(crate) type Changes = Arc<Mutex<Vec<(usize, Option<String>)>>>;

pub(crate) struct World {
    upstream: Upstream,
    pub(crate) repository: Repository,
    s3: TestS3,
    worker: Worker,
    table: usize,
    table_file: PathBuf,
    pub(crate) changes: Changes,
    /// Events that Backlog has not told of yet. They may come in any order.
    coming: Vec<Job>,
    queue: Fifo<Job>,
    /// The queue's time, which does not wait for anybody.
    now: Instant,
    time: Duration,
    count: Count,
}

impl World {
    pub(crate) async fn new() -> Self {
        let upstream = Upstream::new();
        let repository = upstream.repository("APP/web");
        let s3 = TestS3::start().await;
        let table_file = upstream.root().join("routes.toml");
        let client = S3::at(s3.endpoint(), ACCESS_KEY, SECRET_KEY);
        let mut world = Self {
            worker: Worker {
                at_once: 6,
                bridge: Deliverer {
                    s3: client,
                    table: Arc::new(LiveTable::in_file(table_file.clone(), Some(BUCKET.into()))),
                    logins: Arc::default(),
                    limits: Limits::default(),
                    replaces_unrouted: true,
                    tips: Arc::default(),
                    listings: Arc::default(),
                    silences: Arc::default(),
                },
            },
            upstream,
            repository,
            s3,
            table: 0,
            table_file,
            changes: Changes::default(),
            coming: Vec::new(),
            queue: Fifo::new(VISIBILITY, Some(TRIES)),
            now: Instant::now(),
            time: TIME,
            count: Count::default(),
        };
        world.use_table(0);
        world
    }

    fn use_table(&mut self, which: usize) {
        let url = self.upstream.root().display();
        let mut text = format!("[[space]]\nurl = \"file://{url}\"\n");
        for &(name, branch, key) in TABLES[which] {
            let (branch, key) = (BRANCHES[branch], KEYS[key]);
            write!(
                text,
                "[[route]]\nname = \"{name}\"\nrepository = \"APP/web\"\nref = \"{branch}\"\nobject = \"{key}\"\n"
            )
            .unwrap();
        }
        fs::write(&self.table_file, text).unwrap();
        self.table = which;
    }

    fn tip(&self, branch: usize) -> Option<String> {
        let changes = self.changes.lock().unwrap();
        tip_at(&changes, changes.len(), branch)
    }

    /// The jobs that `receive` would make of a push; the events of this model name no commits.
    fn tell(&mut self, branch: usize) {
        for &(route, of, _) in TABLES[self.table] {
            if of == branch {
                let (repository, ref_name) = (
                    "APP/web".parse().unwrap(),
                    BRANCHES[branch].parse().unwrap(),
                );
                self.coming
                    .push(Job::unhinted(route.into(), repository, ref_name, "model"));
            }
        }
    }

    /// Has the queue take the `nth` event, and gives out the message whose turn it is. Without one, time passes until the
    /// next one comes again.
    fn take(&mut self, nth: usize) -> Option<Lease<Job>> {
        if !self.coming.is_empty() {
            let job = self.coming.remove(nth % self.coming.len());
            let group = job.group();
            self.queue.send(job, group, self.now);
        }
        loop {
            let (mut received, _) = self.queue.receive(1, None, self.now);
            if let Some(received) = received.pop() {
                match Parked::of(&received.body, self.now - received.sent) {
                    None => return Some(received),
                    Some(parked) => self.wait(parked, received.receipt),
                }
                continue;
            }
            self.now = self.queue.next_return(self.now)?;
        }
    }

    /// Has a parked job wait on, or its second look be taken.
    fn wait(&mut self, parked: Parked, receipt: Receipt) {
        match parked {
            Parked::Rests(rest) => {
                let kept = self.queue.change_visibility(receipt, rest, self.now);
                kept.unwrap();
            }
            Parked::Due(job) => {
                let group = job.group();
                self.queue.send(*job, group, self.now);
                self.queue.delete(receipt, self.now).unwrap();
                // The minute that is over here was none to the process: this is another one, which has seen nothing.
                self.worker.bridge.tips = Arc::default();
            }
        }
    }

    fn attempt(&self, received: &Lease<Job>) -> Attempt {
        Attempt {
            tries: received.receives,
            is_last: received.receives == TRIES,
            age: self.now - received.sent,
        }
    }

    fn progress(&self) -> Arc<Progress> {
        Arc::new(Progress::until(Instant::now() + self.time))
    }

    pub(crate) async fn step(&mut self, op: Op) {
        self.count.steps += 1;
        match op {
            Op::Push { branch, heard } => {
                push(&self.repository, &self.changes, branch);
                if heard {
                    self.tell(branch);
                }
            }
            Op::Force { branch, back } => self.force(branch, back),
            Op::DeleteBranch { branch } => {
                if self.tip(branch).is_some() {
                    self.repository.delete_ref(BRANCHES[branch]);
                    self.changes.lock().unwrap().push((branch, None));
                }
            }
            Op::Deliver { nth } => {
                if let Some(job) = self.take(nth) {
                    let (attempt, progress) = (self.attempt(&job), self.progress());
                    let handled = self.worker.deliver(&job.body, attempt, &progress).await;
                    self.check(&handled.report, handled.end);
                    self.handled(&job, &handled);
                }
            }
            Op::DeliverTwo { nth, other } => {
                let (one, two) = (self.take(nth), self.take(other));
                if let (Some(one), Some(two)) = (one, two) {
                    let (a, b) = (self.progress(), self.progress());
                    let (first, second) = tokio::join!(
                        self.worker.deliver(&one.body, self.attempt(&one), &a),
                        self.worker.deliver(&two.body, self.attempt(&two), &b)
                    );
                    self.handled(&one, &first);
                    self.handled(&two, &second);
                }
            }
            Op::Kill { nth, after_ms } => {
                if let Some(job) = self.take(nth) {
                    let (attempt, progress) = (self.attempt(&job), self.progress());
                    let work = self.worker.deliver(&job.body, attempt, &progress);
                    let killed = tokio::time::timeout(Duration::from_millis(after_ms), work);
                    if killed.await.is_err() {
                        self.count.killed += 1;
                        // A write that was on its way arrives, or never will.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    // Nobody deletes the message: it comes again when its time is up.
                }
            }
            Op::Double { nth } => {
                if !self.coming.is_empty() {
                    let job = self.coming[nth % self.coming.len()].clone();
                    self.coming.push(job);
                }
            }
            Op::Fail { op, fault } => {
                if matches!(fault, Fault::Hang | Fault::ApplyThenHang) {
                    self.time = SHORT;
                }
                self.s3.fail_once(op, fault);
            }
            Op::PushDuring { op, branch } => {
                let (repository, changes) = (self.repository.clone(), Arc::clone(&self.changes));
                self.s3.before(
                    op,
                    move || async move { push(&repository, &changes, branch) },
                );
            }
            Op::PersonDeletes { key } => {
                let client = self.s3.client();
                let delete = client.delete_object().bucket(BUCKET).key(KEYS[key]);
                delete.send().await.unwrap();
            }
            Op::PersonWrites { key } => {
                let client = self.s3.client();
                let put = client.put_object().bucket(BUCKET).key(KEYS[key]);
                let put = put.body(b"by hand".to_vec().into()).send();
                // It may be this request that has to fail.
                tokio::time::timeout(SHORT, put).await.ok();
            }
            Op::Table { which } => self.use_table(which),
            Op::Sweep => {
                let jobs = self.sweep().await;
                self.coming.extend(jobs);
            }
        }
    }

    fn force(&mut self, branch: usize, back: usize) {
        let changes = self.changes.lock().unwrap().clone();
        let of_branch = changes.iter().filter(|(of, _)| *of == branch);
        let earlier = of_branch.rev().skip(back).find_map(|(_, tip)| tip.clone());
        if let Some(commit) = earlier {
            self.repository.set_ref(BRANCHES[branch], &commit);
            self.changes.lock().unwrap().push((branch, Some(commit)));
            self.tell(branch);
        }
    }

    fn handled(&mut self, received: &Lease<Job>, Handled { report, end, more }: &Handled) {
        self.coming.extend(more.iter().cloned());
        self.counted(report);
        let expected = match &report.error {
            None => End::Done,
            Some(fault) => {
                let swept = received.body.swept;
                let most = match &*fault.kind {
                    // A Git server may lag behind its own event.
                    "ref_not_found" if !swept => 3,
                    _ if !fault.transient => 1,
                    _ if swept => 3,
                    _ => TRIES,
                };
                if received.receives < most {
                    End::Again
                } else if received.body.swept {
                    End::Done
                } else {
                    End::DeadLetter
                }
            }
        };
        assert_eq!(report.again, expected == End::Again, "{report:?}");
        assert_eq!(*end, expected, "{report:?}");
        let (receipt, now) = (received.receipt, self.now);
        let kept = if *end == End::Again {
            let rest = backoff(received.receives).unwrap_or(VISIBILITY);
            self.queue.change_visibility(receipt, rest, now)
        } else {
            self.queue.delete(receipt, now)
        };
        // Or its time was up while it was handled, and somebody else has it.
        kept.ok();
    }

    fn counted(&mut self, report: &Report) {
        match report.outcome {
            Outcome::Published => self.count.published += 1,
            Outcome::AlreadyCurrent => self.count.already_current += 1,
            Outcome::Failed => self.count.failed += 1,
            Outcome::BranchGone | Outcome::Ignored | Outcome::WouldPublish => {}
        }
    }

    /// I5, while nobody else delivers: what is acknowledged as delivered is what the ref points to.
    fn check(&self, report: &Report, end: End) {
        // What waits for its second look is not delivered yet.
        if end == End::Done
            && report.step_back != Some(SeenBack::First)
            && matches!(report.outcome, Outcome::Published | Outcome::AlreadyCurrent)
        {
            let branch = BRANCHES
                .iter()
                .position(|branch| report.ref_name.as_deref() == Some(*branch));
            let newest = self.newest(report.object_key.as_deref().unwrap());
            assert_eq!(newest, self.tip(branch.unwrap()), "I5: {report:?}");
        }
    }

    fn newest(&self, key: &str) -> Option<String> {
        let newest = self.s3.newest(BUCKET, key)?;
        newest.metadata.get("git-commit").cloned()
    }

    async fn sweep(&mut self) -> Vec<Job> {
        let jobs = Mutex::new(Vec::new());
        let enqueue = async |job| {
            jobs.lock().unwrap().push(job);
            Ok(())
        };
        Box::pin(self.worker.sweep("model", None, None, enqueue)).await;
        let jobs = jobs.into_inner().unwrap();
        self.count.swept += jobs.len();
        jobs
    }

    /// One clean sweep, and then the invariants.
    pub(crate) async fn conclude(mut self) -> Count {
        self.s3.heal();
        self.time = TIME;
        let mut jobs = VecDeque::from(self.sweep().await);
        while let Some(job) = jobs.pop_front() {
            self.worker.bridge.tips = Arc::default();
            let (attempt, progress) = (FIRST, self.progress());
            let handled = self.worker.deliver(&job, attempt, &progress).await;
            assert!(handled.report.error.is_none(), "{:?}", handled.report);
            self.counted(&handled.report);
            let due = |job: Job| match Parked::of(&job, SECOND_LOOK) {
                Some(Parked::Due(job)) => *job,
                other => panic!("{job:?}: {other:?}"),
            };
            jobs.extend(handled.more.into_iter().map(due));
        }
        for &(route, branch, key) in TABLES[self.table] {
            let Some(tip) = self.tip(branch) else {
                continue;
            };
            let newest = self.s3.newest(BUCKET, KEYS[key]);
            let newest = newest.unwrap_or_else(|| panic!("I1: {route} has no object"));
            assert_eq!(
                newest.metadata.get("git-commit"),
                Some(&tip),
                "I1: {route} at the end"
            );
            let expected = expected_entries(&self.repository, &tip);
            assert_zip_equals(&newest.bytes.unwrap(), &expected, &tip);
        }
        assert_eq!(self.sweep().await, [], "a second sweep finds nothing");
        let changes = self.changes.lock().unwrap().clone();
        for key in KEYS {
            let mut versions = self.s3.versions(BUCKET, key);
            versions.reverse();
            self.count.versions += versions.len();
            check_versions(key, &versions, &changes);
        }
        self.count
    }
}

pub(crate) fn push(repository: &Repository, changes: &Changes, branch: usize) {
    let mut changes = changes.lock().unwrap();
    let text = format!("change {}", changes.len());
    let commit = repository.commit_on(BRANCHES[branch], &[("a.txt", Content::from(&*text))]);
    changes.push((branch, Some(commit)));
}

/// The tip after so many changes.
fn tip_at(changes: &[(usize, Option<String>)], time: usize, branch: usize) -> Option<String> {
    let mut before = changes[..time].iter().rev();
    before.find(|(of, _)| *of == branch)?.1.clone()
}

/// I2, and I3: there are times, none before the one of the version before, at which each version was its ref's tip.
fn check_versions(key: &str, versions: &[StoredVersion], changes: &[(usize, Option<String>)]) {
    let mut time = 0;
    let mut before = None;
    for version in versions {
        let held = version
            .metadata
            .get("git-commit")
            .map(|commit| (version.metadata["git-ref"].clone(), commit.clone()));
        if let Some((ref_name, commit)) = &held {
            assert_ne!(before, held, "I2: {key} holds {commit} twice in a row");
            let branch = BRANCHES.iter().position(|branch| branch == ref_name);
            let branch = branch.expect("a branch of this test");
            let was_tip = |time: &usize| tip_at(changes, *time, branch).as_ref() == Some(commit);
            time = (time..=changes.len())
                .find(was_tip)
                .unwrap_or_else(|| panic!("I3: {key} holds {commit} after a later tip"));
        }
        before = held;
    }
}
