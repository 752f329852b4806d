//! The queue of a laptop: in memory, by the rules of SQS, with the workers that Lambda would start.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc, watch};

use super::fifo::{Fifo, Receipt, Received};
use crate::{
    error::Error,
    outcome::Report,
    progress::Progress,
    queue::Job,
    worker::{Attempt, End, Parked, Worker, backoff},
};

/// How long a job may take, as in a Lambda function with the template's timeout.
const JOB_TIME: Duration = Duration::from_mins(5);

/// How long a job is its worker's, as with the template's queue: a little longer than it may take.
const VISIBILITY: Duration = Duration::from_mins(6);

/// How often a job is tried, as with the template's dead-letter queue.
const TRIES: u32 = 5;

/// Jobs that may wait. Whoever posts more than this has a fault.
const MAX_WAITING: usize = 10_000;

/// Deliveries at a time: a sweep may find hundreds of branches at once.
const AT_A_TIME: usize = 8;

/// A queue and its workers. A clone is the same queue.
#[derive(Clone)]
pub struct LocalQueue(Arc<Shared>);

struct Shared {
    worker: Arc<Worker>,
    jobs: Mutex<Fifo<Job>>,
    told: mpsc::UnboundedSender<Told>,
    /// A job came, or a worker is free.
    changed: Notify,
    stopping: watch::Sender<bool>,
    /// Jobs that have a worker.
    running: watch::Sender<usize>,
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
        let shared = Arc::new(Shared {
            worker,
            jobs: Mutex::new(Fifo::new(VISIBILITY, Some(TRIES))),
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
        let waiting = queue.len();
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
        let now = Instant::now();
        for job in jobs {
            // What is parked already has yet to look.
            if job.parks().is_some() && queue.bodies().any(|parked| parked.parks_same(&job)) {
                continue;
            }
            let group = job.group();
            queue.send(job, group, now);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Takes no more jobs, waits for those that run, and says how many were not handled.
    pub async fn stop(&self) -> usize {
        {
            // Not between the look at it and the start of a worker.
            let _jobs = self.0.jobs();
            self.0.stopping.send_replace(true);
        }
        let mut running = self.0.running.subscribe();
        // The sender is here, so it does not end.
        running.wait_for(|running| *running == 0).await.ok();
        self.0.jobs().len()
    }

    /// How many jobs run now.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.0.running.borrow()
    }
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Fifo<Job>> {
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
        while *self.running.borrow() < AT_A_TIME && !*self.stopping.borrow() {
            // One by one: of two jobs of a group, the second waits for the first.
            let (received, given_up) = queue.receive(1, None, now);
            for job in &given_up {
                // Each attempt was told of but those that ended with their worker.
                tracing::error!(route = job.route, "a job was given up after {TRIES} tries");
            }
            let Some(received) = received.into_iter().next() else {
                break;
            };
            let turn = Turn::begin(Arc::clone(self));
            tokio::spawn(turn.handle(received));
        }
        queue.next_return(now)
    }
}

/// A worker's turn. However it ends, the next one may begin.
struct Turn(Arc<Shared>);

impl Turn {
    fn begin(shared: Arc<Shared>) -> Self {
        shared.running.send_modify(|running| *running += 1);
        Self(shared)
    }

    async fn handle(self, received: Received<Job>) {
        if let Some(parked) = Parked::of(&received.body, received.sent.elapsed()) {
            return self.wait(parked, received.receipt);
        }
        let progress = Arc::new(Progress::until(Instant::now() + JOB_TIME));
        let attempt = Attempt {
            tries: received.receives,
            is_last: received.receives >= TRIES,
            age: received.sent.elapsed(),
        };
        let worker = &self.0.worker;
        let handled = worker.deliver(&received.body, attempt, &progress).await;
        let is_lost =
            !handled.more.is_empty() && LocalQueue(Arc::clone(&self.0)).send(handled.more).is_err();
        let again = (handled.end == End::Again || is_lost)
            .then(|| backoff(received.receives).unwrap_or(VISIBILITY));
        let (mut queue, now) = (self.0.jobs(), Instant::now());
        let kept = match again {
            Some(rest) => queue.change_visibility(received.receipt, rest, now),
            None => queue.delete(received.receipt, now),
        };
        drop(queue);
        if kept.is_err() {
            tracing::warn!("a delivery took longer than a job may; it is tried again");
        }
        let report = handled.report;
        // With nobody listening there is nothing to tell.
        self.0.told.send(Told { report, again }).ok();
    }
}

impl Turn {
    /// Has a parked job wait on, or its second look be taken.
    fn wait(self, parked: Parked, receipt: Receipt) {
        let (mut queue, now) = (self.0.jobs(), Instant::now());
        // It is held for much longer than this takes.
        match parked {
            Parked::Rests(rest) => queue.change_visibility(receipt, rest, now).ok(),
            Parked::Due(job) => {
                let group = job.group();
                queue.send(*job, group, now);
                queue.delete(receipt, now).ok()
            }
        };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
        self.0.changed.notify_one();
    }
}
