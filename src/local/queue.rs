//! The queue of a laptop: in memory, by the rules of SQS, with the workers that Lambda would start.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, watch};

use super::{
    awaited::{Awaited, AwaitedRefs},
    fifo::{Fifo, Lease, Receipt},
    turns::Turns,
};
use crate::{
    error::Error,
    outcome::Report,
    progress::{Progress, Stage},
    push::RepositoryName,
    queue::{Job, Recheck, next_look},
    worker::{
        Attempt, End, Parked, Worker, backoff,
        look::{LOOK_WITHIN, Sight},
    },
};

/// How long a job may take, as in a Lambda function with the template's timeout.
const JOB_TIME: Duration = Duration::from_mins(5);

/// How long a job is its worker's, as with the template's queue: a little longer than it may take.
const VISIBILITY: Duration = Duration::from_mins(6);

/// How often a job is tried, as with the template's dead-letter queue.
const TRIES: u32 = 5;

/// Jobs that may wait. Whoever posts more than this has a fault.
const MAX_WAITING: usize = 10_000;

/// Jobs of refs that globs take, of one repository, that may wait without its being known whether it has the refs. A look at
/// the repository tells it of all others at once.
const UNSEEN: usize = 2;

/// A queue and its workers. A clone is the same queue.
#[derive(Clone)]
pub struct LocalQueue(Arc<Shared>);

struct Shared {
    worker: Arc<Worker>,
    jobs: Mutex<Jobs>,
    told: mpsc::UnboundedSender<JobEnded>,
    /// A job came, or a worker is free.
    changed: Notify,
    stopping: watch::Sender<bool>,
    /// Jobs that have a worker.
    running: watch::Sender<usize>,
}

struct Jobs {
    fifo: Fifo<Job>,
    /// They hold no turn and no group, and are not counted.
    awaited: AwaitedRefs,
    turns: Turns,
}

/// What became of a job.
#[derive(Debug)]
pub struct JobEnded {
    /// What became of the object.
    pub report: Report,
    /// When it is tried again, if it is.
    pub again: Option<Duration>,
    /// The request that it came from.
    pub request_id: String,
}

impl LocalQueue {
    /// A queue whose jobs `worker` handles, and where what became of them is told.
    #[must_use]
    pub fn start(worker: Arc<Worker>) -> (Self, mpsc::UnboundedReceiver<JobEnded>) {
        let (told, tales) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            worker,
            jobs: Mutex::new(Jobs {
                fifo: Fifo::new(VISIBILITY, Some(TRIES)),
                awaited: AwaitedRefs::default(),
                turns: Turns::default(),
            }),
            told,
            changed: Notify::new(),
            stopping: watch::Sender::new(false),
            running: watch::Sender::new(0),
        });
        tokio::spawn(Arc::clone(&shared).run());
        (Self(shared), tales)
    }

    /// Takes jobs, all of them or none.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`] if too many are waiting, or the queue stops.
    pub fn send(&self, jobs: Vec<Job>) -> Result<(), Error> {
        let mut queue = self.0.jobs();
        let waiting = queue.fifo.len();
        let full = waiting + jobs.len() > MAX_WAITING;
        if full || *self.0.stopping.borrow() {
            return Err(Error::Queue {
                action: "take a job".into(),
                advice: "".into(),
                transient: true,
                source: if full {
                    format!("{waiting} jobs are waiting").into()
                } else {
                    "stopping".into()
                },
            });
        }
        let now = Instant::now();
        for job in jobs {
            queue.take(job, now);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Takes no more jobs, waits for those that run, and says how many were not handled.
    pub async fn stop(&self) -> usize {
        {
            // Not between the look at it and the start of a worker.
            let jobs = self.0.jobs();
            self.0.stopping.send_replace(true);
            jobs.turns.all().for_each(Progress::hurry);
        }
        let mut running = self.0.running.subscribe();
        // The sender is here, so it does not end.
        running.wait_for(|running| *running == 0).await.ok();
        let jobs = self.0.jobs();
        jobs.fifo.len() + jobs.awaited.len()
    }

    /// Whether a job that runs does more than wait for a Git server.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        let is_at_work = |progress: &Progress| match progress.stage() {
            Stage::Fetch => progress.done().0 > 0,
            stage => matches!(stage, Stage::Archive | Stage::Put),
        };
        self.0.jobs().turns.all().any(is_at_work)
    }

    /// Whether it takes no more jobs.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// How many jobs run now.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.0.running.borrow()
    }
}

impl Jobs {
    fn take(&mut self, job: Job, now: Instant) {
        // What is parked already has yet to look.
        let is_parked = || self.fifo.bodies().any(|parked| parked.parks_same(&job));
        if job.parks().is_some() && is_parked() {
            return;
        }
        if matches!(job.recheck, Some(Recheck::Ref { .. })) || self.may_be_forged(&job) {
            self.awaited.take(job, now);
        } else {
            self.deliver(job, now);
        }
    }

    fn deliver(&mut self, job: Job, now: Instant) {
        let group = job.group();
        self.fifo.send(job, group, now);
    }

    /// Whether a job may name a ref that the repository does not have, and too many others may, too.
    fn may_be_forged(&self, job: &Job) -> bool {
        let is_first = |job: &Job| job.recheck.is_none() && job.rests.is_none();
        let is_unseen = |job: &Job| job.by_glob && !job.swept && is_first(job);
        let of_same = |other: &&Job| is_unseen(other) && other.repository == job.repository;
        let unseen = || self.fifo.bodies().filter(of_same).take(UNSEEN).count();
        is_unseen(job) && (self.awaited.has(&job.repository) || unseen() == UNSEEN)
    }

    /// Has deliveries end that only wait for a Git server to catch up, where others wait for what they hold: their group, or
    /// a turn.
    fn hurry(&self, now: Instant) {
        for group in self.fifo.waiting(now) {
            match self.turns.of(group) {
                Some(progress) => progress.hurry(),
                None => self.turns.all().for_each(Progress::hurry),
            }
        }
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().expect("nothing panics while it is held")
    }

    /// Gives jobs to workers until the queue stops.
    async fn run(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        loop {
            let next = self.start_ready();
            let returned = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = returned => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Starts a worker for each job whose turn it is, and says when the next one comes again by itself.
    fn start_ready(self: &Arc<Self>) -> Option<Instant> {
        let mut queue = self.jobs();
        let now = Instant::now();
        if *self.stopping.borrow() {
            return None;
        }
        for (repository, due) in queue.awaited.due(now) {
            tokio::spawn(Arc::clone(self).look(repository, due));
        }
        let table = self.worker.bridge.table.last_good();
        while let Some(open) = queue.turns.open(table.clone()) {
            // One by one: of two jobs of a group, the second waits for the first.
            let (received, given_up) = queue.fifo.receive_of(1, None, now, |job| open.takes(job));
            for job in &given_up {
                // Each attempt was told of but those that ended with their worker.
                tracing::error!(route = job.route, "a job was given up after {TRIES} tries");
            }
            let Some(received) = received.into_iter().next() else {
                break;
            };
            // What was told of meanwhile is the same delivery: it looks at the ref once for all.
            let alike = |job: &Job| received.body.unites_with(job);
            let behind = queue.fifo.receive_behind(&received, now, alike);
            let progress = Arc::new(received.body.progress(now + JOB_TIME));
            let group = received.group.clone();
            let (job, known) = (&received.body, Arc::clone(&progress));
            queue.turns.begin(group.clone(), job, &open, known);
            let turn = Handling::begin(Arc::clone(self), group);
            tokio::spawn(turn.handle(received, behind, progress));
        }
        queue.hurry(now);
        let next_return = queue.fifo.next_return(now).into_iter();
        next_return.chain(queue.awaited.next_due()).min()
    }

    /// Looks for refs of one repository.
    async fn look(self: Arc<Self>, repository: RepositoryName, due: Vec<Awaited>) {
        let began = Instant::now();
        let jobs: Vec<_> = due.iter().map(|awaited| &awaited.job).collect();
        let sights = self.worker.look(&jobs, began, began + LOOK_WITHIN).await;
        let (mut queue, now) = (self.jobs(), Instant::now());
        let mut again = Vec::new();
        for (awaited, sight) in due.into_iter().zip(sights) {
            let Awaited { job, came, .. } = &awaited;
            let has_room = queue.fifo.len() < MAX_WAITING / 2;
            let report = match (sight, next_look(began.duration_since(*came))) {
                (Sight::There, _) => {
                    queue.deliver(job.found(), now);
                    continue;
                }
                (_, Some(next)) => {
                    let due = *came + next;
                    again.push((awaited, due));
                    continue;
                }
                // A delivery is tried for longer.
                (Sight::Unknown(_), None) if has_room => {
                    queue.deliver(job.found(), now);
                    continue;
                }
                (Sight::Unknown(report), None) => *report,
                (Sight::Missing, None) => Report::gone(job),
            };
            let ended = JobEnded {
                report,
                again: None,
                request_id: job.request_id.clone(),
            };
            self.told.send(ended).ok();
        }
        queue.awaited.asked(&repository, again);
        let forgotten = queue.awaited.forgotten();
        drop(queue);
        if forgotten > 0 {
            tracing::warn!(
                "refs that no repository showed were forgotten, of which too many were looked for: {forgotten}"
            );
        }
        self.changed.notify_one();
    }
}

/// A worker's turn. However it ends, the next one may begin.
struct Handling {
    shared: Arc<Shared>,
    group: String,
}

impl Handling {
    fn begin(shared: Arc<Shared>, group: String) -> Self {
        shared.running.send_modify(|running| *running += 1);
        Self { shared, group }
    }

    /// Handles a job, and those `behind` it that want the same.
    async fn handle(self, first: Lease<Job>, behind: Vec<Lease<Job>>, progress: Arc<Progress>) {
        if let Some(parked) = Parked::of(&first.body, first.sent.elapsed()) {
            return self.wait(parked, first.receipt);
        }
        let mut job = first.body.clone();
        for lease in &behind {
            job.unite(&lease.body);
        }
        let newest = behind.last().map_or(first.sent, |lease| lease.sent);
        let attempt = Attempt {
            tries: first.receives,
            is_last: first.receives >= TRIES,
            age: newest.elapsed(),
        };
        let handled = self.shared.worker.deliver(&job, attempt, &progress).await;
        let queue = LocalQueue(Arc::clone(&self.shared));
        let is_lost = !handled.more.is_empty() && queue.send(handled.more).is_err();
        let rest = backoff(first.receives).unwrap_or(VISIBILITY);
        let (mut queue, now) = (self.shared.jobs(), Instant::now());
        let receipts = behind.iter().map(|lease| lease.receipt);
        for receipt in receipts.chain([first.receipt]) {
            let kept = match handled.end {
                End::UntilThereIsRoom => queue.fifo.retry(receipt, rest, now),
                End::Again => queue.fifo.change_visibility(receipt, rest, now),
                _ if is_lost => queue.fifo.change_visibility(receipt, rest, now),
                End::Done | End::DeadLetter => queue.fifo.delete(receipt, now),
            };
            if kept.is_err() {
                tracing::warn!("a delivery took longer than a job may; it is tried again");
            }
        }
        drop(queue);
        let report = handled.report;
        let again = (report.again || is_lost).then_some(rest);
        // Each event has a line, by which its request is found.
        let mut requests = vec![first.body.request_id];
        requests.extend(behind.into_iter().map(|lease| lease.body.request_id));
        requests.pop();
        for request_id in requests {
            let why = format!(
                "one delivery with a later push of the ref, request {}",
                job.request_id
            );
            let report = Report::ignored(&job, why);
            self.shared
                .told
                .send(JobEnded {
                    report,
                    again: None,
                    request_id,
                })
                .ok();
        }
        let ended = JobEnded {
            report,
            again,
            request_id: job.request_id,
        };
        // With nobody listening there is nothing to tell.
        self.shared.told.send(ended).ok();
    }
}

impl Handling {
    /// Has a parked job wait on, or its second look be taken.
    fn wait(self, parked: Parked, receipt: Receipt) {
        let (mut queue, now) = (self.shared.jobs(), Instant::now());
        // It is held for much longer than this takes.
        match parked {
            Parked::Rests(rest) => queue.fifo.change_visibility(receipt, rest, now).ok(),
            Parked::Due(job) => {
                queue.deliver(*job, now);
                queue.fifo.delete(receipt, now).ok()
            }
        };
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.shared.jobs().turns.end(&self.group);
        self.shared.running.send_modify(|running| *running -= 1);
        self.shared.changed.notify_one();
    }
}
