//! The queue of a laptop: in memory, one worker a route and ref, in order; what fails and may pass comes again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc, watch};

use crate::{
    error::Error,
    outcome::Report,
    progress::Progress,
    queue::Job,
    worker::{Attempt, End, Worker, backoff},
};

/// How long a job may take, as in a Lambda function with the template's timeout.
const JOB_TIME: Duration = Duration::from_mins(5);

/// How often a job is tried, as with the template's dead-letter queue.
const TRIES: u32 = 5;

/// How long a job rests that was tried more often than [`backoff`] knows of.
const LONG_REST: Duration = Duration::from_mins(6);

/// Jobs that may wait. Whoever posts more than this has a fault.
const MAX_WAITING: usize = 10_000;

/// Deliveries at a time: a sweep may find hundreds of branches at once.
const AT_A_TIME: usize = 8;

/// A queue and its workers. A clone is the same queue.
#[derive(Clone)]
pub struct LocalQueue(Arc<Shared>);

struct Shared {
    worker: Arc<Worker>,
    groups: Mutex<Groups>,
    told: mpsc::UnboundedSender<Told>,
    stopping: watch::Sender<bool>,
    turns: Semaphore,
    /// Groups that have a worker.
    running: watch::Sender<usize>,
}

/// What waits behind the job that runs, by group.
#[derive(Default)]
struct Groups {
    waiting: HashMap<String, VecDeque<Waiting>>,
    /// Jobs that were given up when the queue was stopped.
    left: usize,
}

struct Waiting {
    job: Job,
    since: Instant,
}

/// What became of a job.
#[derive(Debug)]
pub struct Told {
    /// What became of the object.
    pub report: Report,
    /// When it is tried again, if it is.
    pub again: Option<Duration>,
}

impl LocalQueue {
    /// A queue whose jobs `worker` handles, and where what became of them is told.
    #[must_use]
    pub fn start(worker: Arc<Worker>) -> (Self, mpsc::UnboundedReceiver<Told>) {
        let (told, tales) = mpsc::unbounded_channel();
        let shared = Shared {
            worker,
            groups: Mutex::default(),
            told,
            stopping: watch::Sender::new(false),
            turns: Semaphore::new(AT_A_TIME),
            running: watch::Sender::new(0),
        };
        (Self(Arc::new(shared)), tales)
    }

    /// Takes jobs, all of them or none.
    ///
    /// # Errors
    ///
    /// [`Error::Queue`] if too many are waiting, or the queue stops.
    pub fn send(&self, jobs: Vec<Job>) -> Result<(), Error> {
        let mut groups = self.0.groups();
        let waiting: usize = groups.waiting.values().map(|group| 1 + group.len()).sum();
        let full = waiting + jobs.len() > MAX_WAITING;
        if full || *self.0.stopping.borrow() {
            return Err(Error::Queue {
                action: "take a job".into(),
                advice: "",
                transient: true,
                source: if full {
                    format!("{waiting} jobs are waiting").into()
                } else {
                    "stopping".into()
                },
            });
        }
        for job in jobs {
            let group = job.group();
            let since = Instant::now();
            let job = Waiting { job, since };
            if let Some(waiting) = groups.waiting.get_mut(&group) {
                waiting.push_back(job);
            } else {
                groups.waiting.insert(group.clone(), VecDeque::new());
                self.0.running.send_modify(|running| *running += 1);
                tokio::spawn(Arc::clone(&self.0).run(group, job));
            }
        }
        Ok(())
    }

    /// Takes no more jobs, waits for those that run, and says how many were not handled.
    pub async fn stop(&self) -> usize {
        self.0.stopping.send_replace(true);
        let mut running = self.0.running.subscribe();
        // The sender is here, so it does not end.
        running.wait_for(|running| *running == 0).await.ok();
        self.0.groups().left
    }

    /// How many jobs run now.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.0.running.borrow()
    }
}

impl Shared {
    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().expect("nothing panics while it is held")
    }

    /// Handles the jobs of a group, until none waits or the queue stops.
    async fn run(self: Arc<Self>, group: String, first: Waiting) {
        let mut running = Running {
            shared: &self,
            group: &group,
            job: Some(first),
        };
        while let Some(job) = &running.job {
            if !self.handle(job).await {
                break;
            }
            running.job = self.groups().next(&group);
            if *self.stopping.borrow() {
                break;
            }
        }
    }

    /// Tries a job until it is handled; `false` if the queue stops before that.
    async fn handle(&self, Waiting { job, since }: &Waiting) -> bool {
        let mut stopping = self.stopping.subscribe();
        for tries in 1.. {
            let turn = self.turns.acquire().await;
            if *stopping.borrow() {
                return false;
            }
            let progress = Arc::new(Progress::until(Instant::now() + JOB_TIME));
            let age = since.elapsed();
            let attempt = Attempt {
                tries,
                is_last: tries == TRIES,
                age,
            };
            let handled = self.worker.deliver(job, attempt, &progress).await;
            drop(turn);
            let again = (handled.end == End::Again).then(|| backoff(tries).unwrap_or(LONG_REST));
            let report = handled.report;
            // With nobody listening there is nothing to tell.
            self.told.send(Told { report, again }).ok();
            let Some(rest) = again else { break };
            let stopped = stopping.wait_for(|stopping| *stopping);
            if tokio::time::timeout(rest, stopped).await.is_ok() {
                return false;
            }
        }
        true
    }
}

impl Groups {
    /// The job that comes next in a group; without one, the group ends.
    fn next(&mut self, group: &str) -> Option<Waiting> {
        let next = self.waiting.get_mut(group)?.pop_front();
        if next.is_none() {
            self.waiting.remove(group);
        }
        next
    }
}

/// A group's worker. However it ends, nobody waits for it for ever, and what it leaves is counted.
struct Running<'a> {
    shared: &'a Shared,
    group: &'a str,
    /// The job that is not handled yet.
    job: Option<Waiting>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut groups = self.shared.groups();
        if self.job.is_some() {
            let waiting = groups.waiting.remove(self.group);
            groups.left += 1 + waiting.map_or(0, |waiting| waiting.len());
        }
        drop(groups);
        self.shared.running.send_modify(|running| *running -= 1);
    }
}
