//! One world: who pushes, the API, the queue, and functions at work, from event to event.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use backlog_bridge::{
    local::{Fifo, Lease},
    queue::{Job, Message, Recheck},
    worker::Parked,
};
use fastrand::Rng;

use super::{
    delivery::{Delivering, Ended},
    load::{Load, Mutant},
    places::Branch,
    seen::{BUSY, IN_FLIGHT, Seen, WAITING, Why},
};

/// What happens at a moment.
enum Event {
    /// The next push.
    Push,
    /// A message comes to the queue.
    Arrives(Message),
    /// The schedule's.
    Sweep,
    /// A message may have come back.
    Returned,
    /// A function has done what it was doing.
    Step(usize),
    Second,
}

/// A push as people see it.
struct Pushed {
    at: Duration,
    is_refused: bool,
    is_back: bool,
}

/// What went wrong with a branch, from when to when.
type Trouble = (Duration, Duration, Why);

/// A function at work.
struct Turn {
    message: Lease<Message>,
    since: Duration,
    doing: Doing,
    /// After so many steps.
    dies: Option<u32>,
}

enum Doing {
    Delivers(Box<Delivering>),
    Sweeps,
    /// It is over but for what the queue has to be told.
    Tells(Ended),
}

pub(crate) struct World<'a> {
    load: &'a Load,
    rng: Rng,
    start: Instant,
    now: Duration,
    /// What will happen, by when, and of one moment in the order in which it was planned.
    clock: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    queue: Fifo<Message>,
    /// Messages on their way to it.
    coming: usize,
    branches: Vec<Branch>,
    pushed: Vec<Vec<Pushed>>,
    troubles: Vec<Vec<Trouble>>,
    workers: Vec<Option<Turn>>,
    /// Pushes so far.
    pushes: usize,
    /// Requests that the API lets through now, as of when.
    tokens: (f64, Duration),
    seen: Seen,
}

impl<'a> World<'a> {
    /// Lives through a load, to the end.
    pub(crate) fn live(load: &'a Load) -> Seen {
        let limits = &load.limits;
        let branch = |n: usize| Branch::new(commit(n));
        let mut world = Self {
            load,
            rng: Rng::with_seed(load.seed),
            start: Instant::now(),
            now: Duration::ZERO,
            clock: BTreeMap::new(),
            planned: 0,
            queue: Fifo::new(limits.visibility, Some(limits.receives)),
            coming: 0,
            branches: (0..load.branches).map(branch).collect(),
            pushed: (0..load.branches).map(|_| Vec::new()).collect(),
            troubles: vec![Vec::new(); load.branches],
            workers: (0..limits.workers).map(|_| None).collect(),
            pushes: 0,
            tokens: (limits.api.map_or(0.0, |(_, burst)| burst), Duration::ZERO),
            seen: Seen::default(),
        };
        world.plan_push();
        world.plan(Duration::ZERO, Event::Second);
        if let Some(every) = limits.sweep_every {
            // At any time of the load.
            let first = every.mul_f64(world.rng.f64());
            world.plan(first, Event::Sweep);
        }
        while let Some(((at, _), event)) = world.clock.pop_first() {
            world.now = at;
            world.happens(event);
        }
        world.conclude()
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.planned += 1;
        self.clock.insert((self.now + after, self.planned), event);
    }

    fn plan_push(&mut self) {
        if let Some((at, _)) = self.load.pushes.get(self.pushes) {
            self.plan(at.saturating_sub(self.now), Event::Push);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Push => return self.push(),
            Event::Second => return self.look(),
            Event::Arrives(message) => {
                self.coming -= 1;
                self.send(message);
            }
            Event::Sweep => {
                if !self.is_over() || !self.branches.iter().all(Branch::is_level) {
                    self.send(Message::Sweep(None));
                    self.plan(self.load.limits.sweep_every.unwrap(), Event::Sweep);
                }
            }
            Event::Returned => {}
            Event::Step(worker) => {
                self.step(worker);
                if self.workers[worker].is_some() {
                    return;
                }
            }
        }
        self.start_ready();
    }

    fn is_over(&self) -> bool {
        self.pushes == self.load.pushes.len() && self.coming == 0 && self.queue.is_empty()
    }

    fn look(&mut self) {
        let in_flight = self.queue.in_flight(self.start + self.now);
        let busy = self.workers.iter().flatten().count();
        let mut second = [0; 3];
        second[BUSY] = busy;
        second[WAITING] = self.queue.len() - in_flight;
        second[IN_FLIGHT] = in_flight;
        self.seen.seconds.push(second);
        if !self.is_over() {
            self.seen.over = self.now;
            self.plan(Duration::from_secs(1), Event::Second);
        }
        assert!(self.now < Duration::from_hours(24), "it does not end");
    }

    fn push(&mut self) {
        let (_, at) = self.load.pushes[self.pushes];
        self.pushes += 1;
        self.plan_push();
        let branch = &mut self.branches[at];
        let (_, before) = branch.last();
        let is_back = self.rng.f64() < self.load.back && branch.push_back();
        if !is_back {
            branch.push(commit(self.load.branches + self.pushes), self.now);
        }
        let (_, tip) = branch.last();
        let is_refused = !self.is_let_through();
        self.seen.refused += usize::from(is_refused);
        self.pushed[at].push(Pushed {
            at: self.now,
            is_refused,
            is_back,
        });
        self.note_held(at);
        if !is_refused {
            let job = Job {
                hints: vec![tip.commit],
                before: Some(before.commit),
                ..self.job(at)
            };
            self.coming += 1;
            let edge = self.load.times.edge;
            self.plan(edge, Event::Arrives(Message::Deliver(job.into())));
        }
    }

    /// Whether the API lets a request through: it holds tokens, which come back at a rate.
    fn is_let_through(&mut self) -> bool {
        let Some((rate, burst)) = self.load.limits.api else {
            return true;
        };
        let (tokens, since) = self.tokens;
        let back = (self.now.saturating_sub(since)).as_secs_f64() * rate;
        let tokens = (tokens + back).min(burst);
        let is_let_through = tokens >= 1.0;
        self.tokens = (tokens - f64::from(u8::from(is_let_through)), self.now);
        is_let_through
    }

    fn job(&self, branch: usize) -> Job {
        let repository = format!("APP/r{}", branch / self.load.branches_each);
        let ref_name = format!("refs/heads/b{branch}");
        let (repository, ref_name) = (repository.parse().unwrap(), ref_name.parse().unwrap());
        Job::unhinted(branch.to_string(), repository, ref_name, "")
    }

    fn send(&mut self, message: Message) {
        let group = match &message {
            Message::Deliver(job) => job.group(),
            Message::Sweep(_) => "sweep".into(),
        };
        self.queue.send(message, group, self.start + self.now);
    }

    /// Gives messages to functions, as long as there are both.
    fn start_ready(&mut self) {
        while let Some(worker) = self.workers.iter().position(Option::is_none) {
            let now = self.start + self.now;
            let (received, given_up) = self.queue.receive(1, None, now);
            self.seen.dead += given_up.len();
            let Some(message) = received.into_iter().next() else {
                break;
            };
            if self.load.mutant == Some(Mutant::AcknowledgedFirst) {
                self.queue.delete(message.receipt, now).unwrap();
            }
            self.begin(worker, message);
        }
    }

    fn begin(&mut self, worker: usize, message: Lease<Message>) {
        let times = &self.load.times;
        self.seen.invocations += 1;
        let age = self.start + self.now - message.sent;
        let (doing, takes) = match &message.body {
            Message::Sweep(_) => {
                let repositories = self.load.branches.div_ceil(self.load.branches_each);
                let takes = times.swept * u32::try_from(repositories).unwrap();
                (Doing::Sweeps, takes)
            }
            Message::Deliver(job) => match (Parked::of(job, age), &job.recheck) {
                (Some(Parked::Rests(rest)), _) => {
                    (Doing::Tells(Ended::Rests(rest)), Duration::ZERO)
                }
                (Some(Parked::Due(due)), _) => {
                    (Doing::Tells(Ended::Done(vec![*due])), Duration::ZERO)
                }
                (None, Some(Recheck::Ref { after })) if age < *after => {
                    let rest = after.saturating_sub(age);
                    (Doing::Tells(Ended::Rests(rest)), Duration::ZERO)
                }
                // Every ref of this world is there.
                (None, Some(Recheck::Ref { .. })) => {
                    (Doing::Tells(Ended::Done(vec![job.found()])), times.tip)
                }
                (None, _) => {
                    let branch = branch_of(job);
                    let delivering = Delivering::new(job, branch, age, self.load, &mut self.rng);
                    let takes = delivering.takes(self.load, &mut self.rng);
                    (Doing::Delivers(delivering.into()), takes)
                }
            },
        };
        // A delivery has seven steps and the word to the queue.
        let is_killed = self.rng.f64() < self.load.killed;
        let dies = is_killed.then(|| self.rng.u32(..8));
        self.workers[worker] = Some(Turn {
            message,
            since: self.now,
            doing,
            dies,
        });
        self.plan(times.invoke + takes, Event::Step(worker));
    }

    fn step(&mut self, worker: usize) {
        let mut turn = self.workers[worker].take().unwrap();
        let is_over = matches!(turn.doing, Doing::Tells(_));
        match &mut turn.dies {
            Some(0) => return self.die(turn),
            Some(_) if is_over => return self.die(turn),
            Some(dies) => *dies -= 1,
            None => {}
        }
        let times = &self.load.times;
        let (doing, takes) = match turn.doing {
            Doing::Tells(ended) => return self.end(&turn.message, ended),
            Doing::Sweeps => {
                let behind = self.branches.iter().enumerate();
                let behind = behind.filter(|(_, branch)| !branch.is_level());
                let jobs = behind.map(|(n, _)| Job {
                    swept: true,
                    ..self.job(n)
                });
                let jobs: Vec<_> = jobs.collect();
                let requests = u32::try_from(jobs.len()).unwrap();
                let takes = times.queue * requests;
                (Doing::Tells(Ended::Done(jobs)), takes)
            }
            Doing::Delivers(mut delivering) => {
                let at = delivering.branch;
                let branch = &mut self.branches[at];
                let ended = delivering.step(branch);
                self.note_held(at);
                match ended {
                    None => {
                        let takes = delivering.takes(self.load, &mut self.rng);
                        (Doing::Delivers(delivering), takes)
                    }
                    Some(outcome) => {
                        let Message::Deliver(job) = &turn.message.body else {
                            unreachable!("a delivery is of a job");
                        };
                        if outcome.has_failed {
                            self.seen.failed += 1;
                        }
                        if outcome.has_stored {
                            self.seen.swept += usize::from(job.swept);
                            let took = self.now.saturating_sub(turn.since + times.invoke);
                            self.seen.deliveries.push(took);
                        }
                        let tries = turn.message.receives;
                        let ended = outcome.ended(job, tries);
                        let requests = ended.requests();
                        (Doing::Tells(ended), times.queue * requests)
                    }
                }
            }
        };
        let more = match doing {
            Doing::Tells(_) => times.invoke,
            _ => Duration::ZERO,
        };
        turn.doing = doing;
        self.workers[worker] = Some(turn);
        self.plan(takes + more, Event::Step(worker));
    }

    /// Half of those that die in the middle of a write have sent it.
    fn die(&mut self, turn: Turn) {
        self.seen.killed += 1;
        let back = turn.since + self.load.limits.visibility;
        if let Doing::Delivers(mut delivering) = turn.doing {
            let at = delivering.branch;
            if self.rng.bool() && delivering.is_writing() {
                let branch = &mut self.branches[at];
                delivering.step(branch);
                self.note_held(at);
            }
        }
        if let Message::Deliver(job) = &turn.message.body {
            self.troubles[branch_of(job)].push((self.now, back, Why::Killed));
        }
        self.plan(back.saturating_sub(self.now), Event::Returned);
    }

    /// Tells the queue what becomes of a message.
    fn end(&mut self, message: &Lease<Message>, ended: Ended) {
        let now = self.start + self.now;
        let rest = match ended {
            Ended::Done(more) => {
                for job in more {
                    self.send(Message::Deliver(job.into()));
                }
                self.queue.delete(message.receipt, now).unwrap();
                return;
            }
            Ended::DeadLetter => {
                self.seen.dead += 1;
                self.queue.delete(message.receipt, now).unwrap();
                return;
            }
            Ended::Rests(rest) => rest,
            Ended::Again(rest) => {
                let visibility = self.load.limits.visibility;
                let rest = match self.load.mutant {
                    Some(Mutant::NoBackoff) => visibility,
                    _ => rest.unwrap_or(visibility),
                };
                if let Message::Deliver(job) = &message.body {
                    let trouble = (self.now, self.now + rest, Why::Failed);
                    self.troubles[branch_of(job)].push(trouble);
                }
                rest
            }
        };
        // SQS counts in whole seconds.
        let rest = Duration::from_secs(rest.as_millis().div_ceil(1_000).try_into().unwrap());
        let kept = self.queue.change_visibility(message.receipt, rest, now);
        // Acknowledged before its time.
        if self.load.mutant != Some(Mutant::AcknowledgedFirst) {
            kept.unwrap();
        }
        self.plan(rest, Event::Returned);
    }

    /// Takes note of pushes that the object has come to hold.
    fn note_held(&mut self, at: usize) {
        for nth in self.branches[at].newly_held() {
            let pushed = &self.pushed[at][nth - 1];
            let troubles = self.troubles[at].iter();
            let met = troubles.filter(|(from, until, _)| *from <= self.now && *until >= pushed.at);
            let met: Vec<_> = met.map(|(.., why)| *why).collect();
            let kills = met.iter().filter(|why| **why == Why::Killed).count();
            let why = match kills {
                _ if pushed.is_refused => Why::Refused,
                2.. => Why::KilledAgain,
                1 => Why::Killed,
                0 if met.contains(&Why::Failed) => Why::Failed,
                0 if pushed.is_back => Why::Back,
                0 => Why::Plain,
            };
            self.seen
                .took
                .push((why, self.now.saturating_sub(pushed.at)));
        }
    }

    fn conclude(mut self) -> Seen {
        let level = self.branches.iter().filter(|branch| branch.is_level());
        self.seen.behind = self.branches.len() - level.count();
        self.seen.lost = self.pushes - self.seen.took.len();
        let versions = self.branches.iter().map(Branch::versions);
        self.seen.versions = versions.sum();
        self.seen
    }
}

fn branch_of(job: &Job) -> usize {
    job.route.parse().unwrap()
}

/// The id of a commit by its number.
fn commit(n: usize) -> backlog_bridge::push::CommitId {
    format!("{:040x}", n + 1).parse().unwrap()
}
