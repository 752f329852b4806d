//! Two workers and the webhook's edge, each with what it knows of the table, two objects, and a table that people edit.

use std::fmt::Write;

use backlog_bridge::{
    bucket::Condition,
    deliver::{
        holder::Ruling,
        step::{Action, Verdict},
    },
};

use super::facts::{
    Commit, Facts, REFS, Ref, Sight, Source, Swept, Whereto, commit, number_of, ref_of,
};
use crate::{
    search::Model,
    story::{Violation, violation},
};

const QUEUE: usize = 6;
const WORKERS: usize = 2;
/// Whose looks at the table are the webhook's edge's.
const EDGE: usize = WORKERS;
/// The message of the scheduler.
const SWEEP: u8 = u8::MAX;

/// What is left out or turned round, around the product's functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A copy is young enough to replace what another route wrote.
    CopyForReplacing,
    /// A copy is young enough to say where a job goes, and that its object is current.
    CopyForAcknowledging,
    /// A copy is young enough to say that no route matches.
    CopyForNoRoute,
    /// A copy is young enough if some route of it matches.
    CopyForPartialMatch,
    /// The table is read before the head.
    TableBeforeHead,
    /// The table is not read after the write.
    NoTableAfterPut,
    /// A spoiled table is one without routes.
    SpoiledIsEmpty,
}

/// One search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// What is stored as the table, one after the other; the last one is a table.
    pub(crate) sources: &'static [Source],
    /// The refs that are pushed, one after the other.
    pub(crate) pushes: &'static [Ref],
    /// Whose first commit each object holds at the start.
    pub(crate) objects: [Option<Ref>; 2],
    pub(crate) sweeps: u8,
    pub(crate) crashes: u8,
    pub(crate) mutant: Option<Mutant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    commit: Commit,
    etag: u8,
    /// When its tip was read, and at which position the table was.
    observed: u8,
    judged: u8,
}

/// A message, and what was true when it came in: where the table was, and how many pushes there had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Message {
    job: u8,
    at: u8,
    pushed: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// Before it knows where to. What it wrote to and left.
    Asking {
        left: Option<u8>,
    },
    Delivering(Delivery),
    Sweeping {
        reading: u8,
        nth: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Delivery {
    node: u16,
    to: u8,
    /// What the last head showed; `None` once the table has judged it.
    head: Option<Commit>,
    /// The reading of a mutant that asks too early.
    early: Option<u8>,
    built: Commit,
    observed: u8,
    judged: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Worker {
    message: Message,
    phase: Phase,
    /// Whether the last push and the last edit were over when it began.
    is_still: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pushed: u8,
    /// Where the table is.
    at: u8,
    objects: [Option<Version>; 2],
    versions: u8,
    /// Pushes whose event has not come yet, one bit each.
    coming: u8,
    queue: [Option<Message>; QUEUE],
    workers: [Option<Worker>; WORKERS],
    /// What the two workers and the edge know of the table.
    looks: [u8; WORKERS + 1],
    /// Objects that a delivery or a sweep was about which began after the last push and the last edit, and is over.
    handled: u8,
    sweeps: u8,
    crashes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Push(Ref),
    Edit(u8),
    Arrive(u8),
    Sweep,
    Take(u8),
    Ask(u8),
    Look(u8),
    Head(u8),
    Judge(u8),
    Tip(u8, Commit),
    Stored(u8, Commit),
    Refused(u8),
    Acknowledge(u8),
    Again(u8),
    Die(u8),
}

type After = Result<State, Violation>;

pub(crate) struct World {
    rules: Rules,
    facts: Facts,
}

impl World {
    pub(crate) fn new(rules: Rules) -> Self {
        let facts = Facts::new(rules.sources);
        Self { rules, facts }
    }

    fn tip(&self, of: Ref, pushed: u8) -> Commit {
        let so_far = self.rules.pushes[..usize::from(pushed)].iter();
        so_far.fold(commit(of, 0), |tip, one| tip + u8::from(*one == of))
    }

    fn last(&self) -> u8 {
        u8::try_from(self.rules.sources.len() - 1).unwrap()
    }

    fn is_still(&self, state: &State) -> bool {
        usize::from(state.pushed) == self.rules.pushes.len() && state.at == self.last()
    }

    fn look(&mut self, state: &mut State, who: usize) -> u8 {
        let empty = self.rules.mutant == Some(Mutant::SpoiledIsEmpty);
        let (looks, reading) = self.facts.look(state.looks[who], state.at, empty);
        state.looks[who] = looks;
        reading
    }

    /// A look, unless a mutant thinks that what it knows is young enough.
    fn look_unless(&mut self, state: &mut State, who: usize, mutant: Mutant) -> u8 {
        let is_mutant = self.rules.mutant == Some(mutant);
        let copy = is_mutant
            .then(|| self.facts.copy(state.looks[who]))
            .flatten();
        copy.unwrap_or_else(|| self.look(state, who))
    }

    fn enqueue(state: &mut State, message: Message, in_front: bool) {
        let end = state.queue.iter().position(Option::is_none);
        let end = end.expect("room for the messages of a search");
        if in_front {
            state.queue.copy_within(0..end, 1);
            state.queue[0] = Some(message);
        } else {
            state.queue[end] = Some(message);
        }
    }

    fn send(state: &mut State, jobs: &[u8]) {
        let (at, pushed) = (state.at, state.pushed);
        for &job in jobs {
            Self::enqueue(state, Message { job, at, pushed }, false);
        }
    }

    /// Whether a table says so that was stored at some time between, or the last one before while there was none.
    fn since(from: u8, to: u8, says: impl Fn(u8) -> Option<bool>) -> bool {
        (from..=to).any(|at| (0..=at).rev().find_map(&says).unwrap_or(true))
    }

    fn arrive(&mut self, state: &State, push: u8) -> Option<(Move, After)> {
        let of = self.rules.pushes[usize::from(push)];
        let mut next = *state;
        next.coming &= !(1 << push);
        let copies = [Mutant::CopyForNoRoute, Mutant::CopyForPartialMatch];
        let copy = self.rules.mutant.filter(|mutant| copies.contains(mutant));
        let copy = copy.and_then(|mutant| {
            let reading = self.facts.copy(next.looks[EDGE])?;
            let matches = !self.facts.plan(reading, of).ok()?.is_empty();
            (matches == (mutant == Mutant::CopyForPartialMatch)).then_some(reading)
        });
        let reading = copy.unwrap_or_else(|| self.look(&mut next, EDGE));
        // Nobody knows: 503. It comes again, or never.
        let jobs = self.facts.plan(reading, of).ok()?;
        let mut routes: Vec<_> = jobs
            .iter()
            .map(|job| self.facts.route_of(*job).to_owned())
            .collect();
        routes.sort_unstable();
        let is_so = |at| {
            let mut all = self.facts.routes(at, of)?;
            all.sort_unstable();
            Some(all == routes)
        };
        // The event came in with this step.
        if !Self::since(state.at, state.at, is_so) {
            let text = format!(
                "push {push} is answered with the routes {routes:?}, which no table has that was stored since"
            );
            return Some((Move::Arrive(push), Err(violation("I5 no loss", text))));
        }
        Self::send(&mut next, &jobs);
        Some((Move::Arrive(push), Ok(next)))
    }

    fn take(&mut self, state: &State, out: &mut Vec<(Move, After)>) {
        let Some(slot) = state.workers.iter().position(Option::is_none) else {
            return;
        };
        for place in 0..QUEUE {
            let Some(message) = state.queue[place] else {
                break;
            };
            let is_like = |other: u8| match (message.job, other) {
                (SWEEP, SWEEP) => true,
                (SWEEP, _) | (_, SWEEP) => false,
                (a, b) => self.facts.is_one_group(a, b),
            };
            let held = state
                .workers
                .iter()
                .flatten()
                .map(|worker| worker.message.job);
            let before = state.queue[..place]
                .iter()
                .flatten()
                .map(|before| before.job);
            if held.chain(before).any(is_like) {
                continue;
            }
            let mut next = *state;
            next.queue.copy_within(place + 1.., place);
            next.queue[QUEUE - 1] = None;
            let phase = Phase::Asking { left: None };
            next.workers[slot] = Some(Worker {
                message,
                phase,
                is_still: self.is_still(state),
            });
            out.push((Move::Take(message.job), Ok(next)));
        }
    }

    fn worker(&mut self, state: &State, slot: usize, worker: Worker) -> (Move, After) {
        let job = worker.message.job;
        let mut next = *state;
        match worker.phase {
            Phase::Asking { .. } if job == SWEEP => {
                let reading = self.look(&mut next, slot);
                let phase = Phase::Sweeping { reading, nth: 0 };
                next.workers[slot] = Some(Worker { phase, ..worker });
                (Move::Look(job), Ok(next))
            }
            Phase::Asking { left } => {
                let reading = self.look_unless(&mut next, slot, Mutant::CopyForAcknowledging);
                if let Some(left) = left {
                    let heirs = self.facts.heirs(reading, job, left);
                    Self::send(&mut next, &heirs);
                }
                match self.facts.next(reading, job) {
                    Some(Whereto::Deliver(to)) => {
                        let phase = Phase::Delivering(Delivery {
                            node: self.facts.start(),
                            to,
                            head: None,
                            early: None,
                            built: 0,
                            observed: 0,
                            judged: 0,
                        });
                        next.workers[slot] = Some(Worker { phase, ..worker });
                        (Move::Ask(job), Ok(next))
                    }
                    Some(Whereto::Anew(jobs)) => {
                        next.workers[slot] = None;
                        let is_gone = |at| {
                            self.facts.table(at)?;
                            Some(self.facts.sends(at, job).is_none())
                        };
                        let what = Move::Acknowledge(job);
                        if !Self::since(worker.message.at, state.at, is_gone) {
                            let text = format!(
                                "the job of {} is ignored, though every table since it came in has its route",
                                self.facts.name_of(job)
                            );
                            return (what, Err(violation("I5 no loss", text)));
                        }
                        Self::send(&mut next, &jobs);
                        (what, Ok(next))
                    }
                    None => (Move::Again(job), Ok(Self::again(next, slot, worker))),
                }
            }
            Phase::Sweeping { reading, nth } => {
                let heads = state
                    .objects
                    .map(|version| version.map_or(0, |version| version.commit));
                let tips = [0, 1, 2].map(|of| self.tip(of, state.pushed));
                match self.facts.swept(reading, nth, heads, tips) {
                    Swept::Over => {
                        next.workers[slot] = None;
                        if worker.is_still {
                            next.handled = u8::MAX;
                        }
                    }
                    Swept::Looked(job) => {
                        Self::send(&mut next, job.as_slice());
                        let phase = Phase::Sweeping {
                            reading,
                            nth: nth + 1,
                        };
                        next.workers[slot] = Some(Worker { phase, ..worker });
                    }
                }
                (Move::Look(job), Ok(next))
            }
            Phase::Delivering(delivery) => self.deliver(next, slot, worker, delivery),
        }
    }

    fn again(mut state: State, slot: usize, worker: Worker) -> State {
        state.workers[slot] = None;
        Self::enqueue(&mut state, worker.message, true);
        state
    }

    fn deliver(
        &mut self,
        mut next: State,
        slot: usize,
        worker: Worker,
        mut delivery: Delivery,
    ) -> (Move, After) {
        let (job, key) = (worker.message.job, self.facts.key(delivery.to));
        let (what, sight) = match self.facts.action(delivery.node).clone() {
            Action::Head => {
                if self.rules.mutant == Some(Mutant::TableBeforeHead) && delivery.early.is_none() {
                    delivery.early = Some(self.look(&mut next, slot));
                    let phase = Phase::Delivering(delivery);
                    next.workers[slot] = Some(Worker { phase, ..worker });
                    return (Move::Judge(job), Ok(next));
                }
                let object = next.objects[key];
                delivery.head = Some(object.map_or(0, |version| version.commit));
                (
                    Move::Head(job),
                    Sight::Head(object.map(|version| version.etag)),
                )
            }
            Action::Table => {
                let reading = match (delivery.early.take(), delivery.head) {
                    (Some(early), _) => early,
                    (None, None) if self.rules.mutant == Some(Mutant::NoTableAfterPut) => {
                        let go = self.facts.ruling(Ruling::Go(None));
                        return self.saw(
                            next,
                            slot,
                            worker,
                            delivery,
                            Move::Judge(job),
                            Sight::Table(go),
                        );
                    }
                    (None, Some(commit))
                        if commit != 0 && ref_of(commit) == self.facts.ref_of_job(job) =>
                    {
                        self.look_unless(&mut next, slot, Mutant::CopyForAcknowledging)
                    }
                    (None, Some(_)) => self.look_unless(&mut next, slot, Mutant::CopyForReplacing),
                    (None, None) => self.look(&mut next, slot),
                };
                let Some(ruling) = self.facts.rule(reading, delivery.head.take(), delivery.to)
                else {
                    return (Move::Again(job), Ok(Self::again(next, slot, worker)));
                };
                if let Some(at) = self.facts.position(reading) {
                    delivery.judged = at;
                }
                (Move::Judge(job), Sight::Table(ruling))
            }
            Action::Tip => {
                let tip = self.tip(self.facts.ref_of_job(job), next.pushed);
                if !self.facts.is_verifying(delivery.node) {
                    delivery.observed = last_observation(&next) + 1;
                }
                (Move::Tip(job, tip), Sight::Tip(tip))
            }
            Action::Put(condition) => {
                let etag = next.objects[key].map(|version| version.etag.to_string());
                let holds = match condition {
                    Condition::Absent => etag.is_none(),
                    Condition::Unchanged(tag) => etag == Some(tag),
                };
                if holds {
                    let stored = Version {
                        commit: delivery.built,
                        etag: next.versions,
                        observed: delivery.observed,
                        judged: delivery.judged,
                    };
                    let what = Move::Stored(job, delivery.built);
                    if let Err(violation) = follows(next.objects[key], stored) {
                        return (what, Err(violation));
                    }
                    next.versions += 1;
                    next.objects[key] = Some(stored);
                    (what, Sight::Stored)
                } else {
                    (Move::Refused(job), Sight::NotStored)
                }
            }
            Action::Done(verdict) => return self.done(next, slot, worker, &delivery, &verdict),
            Action::Build(_) | Action::Pause { .. } | Action::Wait(_) => {
                unreachable!("taken at once")
            }
        };
        self.saw(next, slot, worker, delivery, what, sight)
    }

    /// The step after something was seen, and those that nobody else can notice.
    fn saw(
        &mut self,
        mut next: State,
        slot: usize,
        worker: Worker,
        mut delivery: Delivery,
        what: Move,
        sight: Sight,
    ) -> (Move, After) {
        delivery.node = self.facts.step(delivery.node, sight);
        loop {
            let sight = match self.facts.action(delivery.node) {
                Action::Build(commit) => {
                    delivery.built = number_of(*commit);
                    Sight::Built
                }
                Action::Pause { .. } | Action::Wait(_) => Sight::Waited,
                _ => break,
            };
            delivery.node = self.facts.step(delivery.node, sight);
        }
        let phase = Phase::Delivering(delivery);
        next.workers[slot] = Some(Worker { phase, ..worker });
        (what, Ok(next))
    }

    fn done(
        &mut self,
        mut next: State,
        slot: usize,
        worker: Worker,
        delivery: &Delivery,
        verdict: &Verdict,
    ) -> (Move, After) {
        let (job, to) = (worker.message.job, delivery.to);
        let held = match verdict {
            Verdict::Published(commit) | Verdict::AlreadyCurrent(commit) => number_of(*commit),
            Verdict::Moved { stored } => {
                let left = stored.then_some(to);
                let phase = Phase::Asking { left };
                next.workers[slot] = Some(Worker { phase, ..worker });
                return (Move::Ask(job), Ok(next));
            }
            Verdict::Contention { .. } => {
                return (Move::Again(job), Ok(Self::again(next, slot, worker)));
            }
            Verdict::KeyConflict { .. } => {
                next.workers[slot] = None;
                return (Move::Acknowledge(job), Ok(next));
            }
            Verdict::BranchGone | Verdict::RefNotFound => unreachable!("all refs are there"),
            Verdict::StepBack { .. } => unreachable!("nobody pushes back"),
        };
        next.workers[slot] = None;
        let what = Move::Acknowledge(job);
        let wrong = |text| (what, Err(violation("I5 no loss", text)));
        let sends_there = |at| {
            self.facts.table(at)?;
            Some(self.facts.sends(at, job).as_ref() == Some(self.facts.to(to)))
        };
        if !Self::since(worker.message.at, next.at, sends_there) {
            return wrong(format!(
                "the job of {} is acknowledged at {}, where no table sends it since it came in",
                self.facts.name_of(job),
                self.facts.to(to).key
            ));
        }
        let of = self.facts.ref_of_job(job);
        let was_tip = |pushed| self.tip(of, pushed) == held;
        if !(worker.message.pushed..=next.pushed).any(was_tip) {
            return wrong(format!(
                "{} was not the tip since the job came in",
                name(held)
            ));
        }
        if worker.is_still {
            next.handled |= 1 << self.facts.key(to);
        }
        (what, Ok(next))
    }

    /// I1: each object of the last table holds its ref's tip.
    fn converged(&self, state: &State, only: u8, when: &str) -> Result<(), Violation> {
        let last = self
            .facts
            .table(self.last())
            .expect("the last one is a table");
        for (key, name_of_key) in super::facts::KEYS.iter().enumerate() {
            if only & (1 << key) == 0 {
                continue;
            }
            let claimants = last.claimants("sources", name_of_key);
            let tips = claimants.iter().filter_map(|(route, ref_name)| {
                let is_it = |(repository, name): &(&str, &str)| {
                    route.repository().as_str() == *repository && ref_name.as_str() == *name
                };
                let of = u8::try_from(REFS.iter().position(is_it)?).unwrap();
                Some(self.tip(of, state.pushed))
            });
            let tips: Vec<_> = tips.collect();
            let holds = state.objects[key].map_or(0, |version| version.commit);
            if !tips.is_empty() && !tips.contains(&holds) {
                let text = format!(
                    "{when}, and {name_of_key} holds {}, not the tip {}",
                    name(holds),
                    name(tips[0])
                );
                return Err(violation("I1 converge", text));
            }
        }
        Ok(())
    }
}

/// I2, I3 and I7 of two neighbouring versions.
fn follows(before: Option<Version>, version: Version) -> Result<(), Violation> {
    let Some(before) = before else {
        return Ok(());
    };
    let (old, new) = (name(before.commit), name(version.commit));
    if before.commit == version.commit {
        return Err(violation(
            "I2 no repeat",
            format!("{new} is stored right after itself"),
        ));
    }
    if before.observed > version.observed {
        let text = format!("{new} replaces {old}, whose tip was read later");
        return Err(violation("I3 monotone", text));
    }
    if ref_of(before.commit) != ref_of(version.commit) && before.judged > version.judged {
        let text = format!("{new} replaces {old}, though its table is the older one");
        return Err(violation("I7 holders", text));
    }
    Ok(())
}

fn last_observation(state: &State) -> u8 {
    let workers = state
        .workers
        .iter()
        .flatten()
        .map(|worker| match worker.phase {
            Phase::Delivering(delivery) => delivery.observed,
            _ => 0,
        });
    let objects = state
        .objects
        .iter()
        .flatten()
        .map(|version| version.observed);
    workers.chain(objects).max().unwrap_or_default()
}

/// A name for a commit: its ref's letter and how often it was pushed.
fn name(commit: Commit) -> String {
    match commit {
        0 => "nothing".into(),
        commit => {
            let (repository, ref_name) = REFS[usize::from(ref_of(commit))];
            format!(
                "{repository} {} #{}",
                ref_name.trim_start_matches("refs/heads/"),
                commit % 16
            )
        }
    }
}

impl Model for World {
    type State = State;
    type Move = Move;

    fn first(&self) -> State {
        let version = |of: Option<Ref>| {
            of.map(|of| Version {
                commit: commit(of, 0),
                etag: of,
                observed: 0,
                judged: 0,
            })
        };
        State {
            pushed: 0,
            at: 0,
            objects: self.rules.objects.map(version),
            versions: 8,
            coming: 0,
            queue: [None; QUEUE],
            workers: [None; WORKERS],
            looks: [0; WORKERS + 1],
            handled: 0,
            sweeps: self.rules.sweeps,
            crashes: self.rules.crashes,
        }
    }

    fn moves(&mut self, state: &State, out: &mut Vec<(Move, After)>) {
        out.clear();
        if let Some(&of) = self.rules.pushes.get(usize::from(state.pushed)) {
            let mut next = *state;
            next.coming |= 1 << next.pushed;
            next.pushed += 1;
            next.handled = 0;
            out.push((Move::Push(of), Ok(next)));
        }
        if state.at < self.last() {
            let mut next = *state;
            next.at += 1;
            next.handled = 0;
            out.push((Move::Edit(next.at), Ok(next)));
        }
        for push in 0..state.pushed {
            if state.coming & (1 << push) != 0 {
                out.extend(self.arrive(state, push));
            }
        }
        if state.sweeps > 0 {
            let mut next = *state;
            next.sweeps -= 1;
            Self::send(&mut next, &[SWEEP]);
            out.push((Move::Sweep, Ok(next)));
        }
        self.take(state, out);
        for slot in 0..WORKERS {
            let Some(worker) = state.workers[slot] else {
                continue;
            };
            // What comes again only because nobody can tell waits until somebody can.
            let (what, after) = self.worker(state, slot, worker);
            let waits = matches!(what, Move::Again(_)) && state.at < self.last();
            if !waits {
                out.push((what, after));
            }
            if state.crashes > 0 {
                let mut next = Self::again(*state, slot, worker);
                next.crashes -= 1;
                next.looks[slot] = 0;
                out.push((Move::Die(worker.message.job), Ok(next)));
            }
        }
        for (_, after) in out.iter_mut() {
            if let Ok(state) = after {
                tidy(state);
            }
        }
    }

    fn at_the_end(&mut self, state: &State) -> Result<(), Violation> {
        let over = self.is_still(state)
            && state.queue == [None; QUEUE]
            && state.coming == 0
            && state.workers == [None; WORKERS];
        if !over {
            return Err(violation("end", format!("nothing can happen in {state:?}")));
        }
        // Whoever dies between a write and the look at the table after it leaves the rest to the sweep.
        if self.rules.crashes == 0 {
            self.converged(
                state,
                state.handled,
                "a delivery or a sweep began afterwards",
            )?;
        }
        let mut swept = *state;
        swept.crashes = 0;
        Self::send(&mut swept, &[SWEEP]);
        let mut moves = Vec::new();
        loop {
            self.moves(&swept, &mut moves);
            match moves.pop() {
                Some((_, next)) => swept = next?,
                None => break,
            }
        }
        self.converged(&swept, u8::MAX, "the sweep is over")
    }

    fn tell(&self, what: Move) -> String {
        let of = |job: u8| match job {
            SWEEP => "the sweep".to_owned(),
            job => format!("the job of {}", self.facts.name_of(job)),
        };
        let mut text = String::new();
        let (who, does) = match what {
            Move::Push(of) => {
                return format!("{} is pushed", name(commit(of, 0)).replace(" #0", ""));
            }
            Move::Edit(at) => {
                return format!(
                    "the table is edited: {:?}",
                    self.rules.sources[usize::from(at)]
                );
            }
            Move::Arrive(push) => return format!("the event of push {push} comes in"),
            Move::Sweep => return "the scheduler asks for a sweep".into(),
            Move::Take(job) => (job, "is taken".to_owned()),
            Move::Ask(job) => (job, "reads the table".into()),
            Move::Look(job) => (job, "looks".into()),
            Move::Head(job) => (job, "reads the head".into()),
            Move::Judge(job) => (job, "reads the table again".into()),
            Move::Tip(job, tip) => (job, format!("reads the tip, {}", name(tip))),
            Move::Stored(job, commit) => (job, format!("stores {}", name(commit))),
            Move::Refused(job) => (job, "is refused".into()),
            Move::Acknowledge(job) => (job, "is acknowledged".into()),
            Move::Again(job) => (job, "comes again".into()),
            Move::Die(job) => (job, "loses its worker".into()),
        };
        write!(text, "{} {does}", of(who)).unwrap();
        text
    }
}

/// Brings states that differ in nothing that matters to one form: only the order of observations matters.
fn tidy(state: &mut State) {
    let mut times: Vec<u8> = Vec::new();
    let each = |state: &mut State, visit: &mut dyn FnMut(&mut u8)| {
        for worker in state.workers.iter_mut().flatten() {
            if let Phase::Delivering(delivery) = &mut worker.phase {
                visit(&mut delivery.observed);
            }
        }
        for version in state.objects.iter_mut().flatten() {
            visit(&mut version.observed);
        }
    };
    each(state, &mut |time| times.push(*time));
    times.push(0);
    times.sort_unstable();
    times.dedup();
    each(state, &mut |time| {
        let place = times.iter().position(|known| known == time);
        *time = u8::try_from(place.expect("it was seen")).unwrap();
    });
}
