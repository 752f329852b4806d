//! One delivery: the product decides what comes next, and what becomes of its job; this carries it out and says how long it
//! takes.

use std::{mem, time::Duration};

use backlog_bridge::{
    deliver::{
        Delivery, Success,
        holder::{Holder, Ruling},
        step::{Action, Saw, Steps, Verdict},
    },
    error::Error,
    queue::Job,
    worker::{Attempt, End, backoff, hints, later, second_look},
};
use fastrand::Rng;

use super::{
    load::Load,
    places::{Branch, Write},
};

/// A delivery in progress.
pub(crate) struct Delivering {
    pub(crate) branch: usize,
    steps: Steps,
    /// What it is doing.
    action: Action,
    /// What the head has shown, until the table has judged it.
    head: Option<Holder>,
    /// Which push was the last one when the tip was read last.
    read: usize,
    is_connected: bool,
    has_stored: bool,
    is_unsettled: bool,
    /// What will go wrong with it.
    fault: Option<Error>,
    name: String,
}

/// How a delivery ended.
pub(crate) struct Outcome {
    delivery: Delivery,
    pub(crate) has_failed: bool,
    /// At once, and nothing before it went wrong.
    pub(crate) has_stored: bool,
}

/// What the queue is told of a message.
pub(crate) enum Ended {
    /// It is acknowledged after these jobs were sent.
    Done(Vec<Job>),
    /// It waits for its time.
    Rests(Duration),
    /// It failed, and rests for so long; or as long as the queue lets it.
    Again(Option<Duration>),
    DeadLetter,
}

impl Delivering {
    pub(crate) fn new(job: &Job, branch: usize, age: Duration, load: &Load, rng: &mut Rng) -> Self {
        let mut steps = Steps::new(hints(job, age, false), second_look(job, age));
        Self {
            branch,
            action: steps.start(),
            steps,
            head: None,
            read: 0,
            is_connected: false,
            has_stored: false,
            is_unsettled: false,
            fault: (rng.f64() < load.failed).then(|| Error::Fetch {
                repository: job.repository.clone(),
                transient: true,
                source: "a fault of this world".into(),
            }),
            name: format!("{:016x}", rng.u64(..)),
        }
    }

    /// Whether it is in the middle of a write.
    pub(crate) fn is_writing(&self) -> bool {
        matches!(self.action, Action::Put(_))
    }

    /// How long what it is doing takes.
    pub(crate) fn takes(&self, load: &Load, rng: &mut Rng) -> Duration {
        let times = &load.times;
        match &self.action {
            Action::Head => times.head,
            Action::Table => times.table,
            Action::Tip if self.is_connected => times.tip_again,
            Action::Tip => times.tip,
            Action::Build(_) => times.fetch(rng),
            Action::Put(_) => times.put,
            Action::Pause { rounds } => {
                let most = Duration::from_millis(100) * 2_u32.pow(rounds - 1);
                most.min(Duration::from_secs(3)).mul_f64(rng.f64())
            }
            Action::Wait(_) if self.steps.leaves_wait() => Duration::ZERO,
            Action::Wait(time) => *time,
            Action::Done(_) => unreachable!("it ends with it"),
        }
    }

    /// Carries out what it was doing. How it ended, if that was the last.
    pub(crate) fn step(&mut self, branch: &mut Branch) -> Option<Outcome> {
        let saw = match mem::replace(&mut self.action, Action::Head) {
            Action::Head => {
                let (tag, holder) = branch.head();
                self.head = Some(holder);
                Saw::Head(Some(tag))
            }
            Action::Table => Saw::Table(Ruling::Go(self.head.take())),
            Action::Tip => {
                let (nth, tip) = branch.last();
                (self.read, self.is_connected) = (nth, true);
                Saw::Tip(Some(tip.commit))
            }
            Action::Build(_) => match self.fault.take() {
                Some(fault) => return Some(self.ended(Err(fault))),
                None => Saw::Built(Some(branch.tips[self.read].time)),
            },
            Action::Put(condition) => {
                let name = format!("{}-{}", self.name, self.steps.rounds());
                let write = Write {
                    condition: &condition,
                    nth: self.read,
                    name: name.clone(),
                };
                if branch.put(write) {
                    self.has_stored = true;
                    Saw::Stored(name)
                } else {
                    Saw::NotStored
                }
            }
            Action::Pause { .. } => Saw::Waited,
            Action::Wait(_) => {
                self.is_unsettled |= self.steps.leaves_wait();
                Saw::Waited
            }
            Action::Done(_) => unreachable!("it has ended"),
        };
        self.action = self.steps.next(saw);
        let Action::Done(verdict) = &self.action else {
            return None;
        };
        let (result, step_back) = match verdict.clone() {
            Verdict::Published(_) | Verdict::Contention { stored: true } => {
                (Ok(Success::Published), None)
            }
            Verdict::AlreadyCurrent(_) => (Ok(Success::AlreadyCurrent), None),
            Verdict::StepBack {
                published, seen, ..
            } => {
                let success = if published {
                    Success::Published
                } else {
                    Success::AlreadyCurrent
                };
                (Ok(success), Some(seen))
            }
            Verdict::Contention { .. } => {
                let rounds = self.steps.rounds();
                (Err(Error::Contention { rounds }), None)
            }
            verdict => unreachable!("{verdict:?} in a world of one route a branch"),
        };
        let mut outcome = self.ended(result);
        outcome.delivery.step_back = step_back;
        outcome.delivery.is_overtaken = matches!(verdict, Verdict::Contention { stored: true });
        Some(outcome)
    }

    fn ended(&self, result: Result<Success, Error>) -> Outcome {
        Outcome {
            has_failed: result.is_err(),
            has_stored: self.has_stored && self.steps.rounds() == 0 && !self.is_unsettled,
            delivery: Delivery {
                is_unsettled: self.is_unsettled,
                ..Delivery::ended(result)
            },
        }
    }
}

impl Outcome {
    /// What becomes of the job, as in [`Worker::deliver`](backlog_bridge::worker::Worker::deliver).
    pub(crate) fn ended(&self, job: &Job, tries: u32) -> Ended {
        let attempt = Attempt {
            tries,
            is_last: false,
            age: Duration::ZERO,
        };
        let end = End::of(self.delivery.result.as_ref().err(), job, attempt);
        let mut more = Vec::new();
        let rests = later(job, end, &self.delivery, &mut more);
        match end {
            End::Done => Ended::Done(more),
            _ if rests => Ended::Done(more),
            End::Again | End::UntilThereIsRoom => Ended::Again(backoff(tries)),
            End::DeadLetter => Ended::DeadLetter,
        }
    }
}

impl Ended {
    /// How many requests to the queue it takes.
    pub(crate) fn requests(&self) -> u32 {
        match self {
            Self::Done(more) => u32::try_from(more.len()).unwrap(),
            _ => 1,
        }
    }
}
