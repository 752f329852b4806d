//! What a worker does next, or does not get to.

use crate::{
    machine::{Ask, Commit, End, GONE, Look, Seen, Shown},
    rules::{Lag, Late, Mutant},
    state::{Recheck, State, Version, Worker, Write},
    story::{Move, Violation, after_look, forgotten, message, name, second_look, violation},
    world::{After, World},
};

impl World {
    pub(crate) fn worker(
        &mut self,
        state: &State,
        slot: usize,
        worker: Worker,
        out: &mut Vec<(Move, After)>,
    ) {
        let who = worker.message;
        let go = |world: &mut Self, out: &mut Vec<_>, what, seen, mut state: State| {
            let next = world.machine.next(worker.node, seen);
            let worker = state.workers[slot].as_mut().expect("it works");
            worker.node = next;
            world.local(worker);
            out.push((what, Ok(state)));
        };
        match self.machine.ask(worker.node) {
            Ask::Head if self.rules.mutant == Some(Mutant::TipBeforeHead) && worker.aside == 0 => {
                for (commit, mut next) in self.reads(state, slot) {
                    next.workers[slot].as_mut().expect("it works").aside = commit + 1;
                    out.push((Move::Tip(who, commit), Ok(next)));
                }
            }
            Ask::Head => {
                let commit = |version: Version| {
                    let skip = self.rules.mutant != Some(Mutant::NoSkip);
                    if skip { version.commit } else { GONE }
                };
                let current = state.newest.map(|newest| Shown {
                    etag: newest.etag,
                    commit: commit(newest),
                    time: (!newest.is_bare).then(|| self.rules.time(newest.commit)),
                    previous: newest.previous,
                });
                go(self, out, Move::Head(who), Seen::Head(current), *state);
            }
            Ask::Tip | Ask::Verify => {
                let knows = self.rules.mutant != Some(Mutant::BetweenForgotten);
                for (commit, next) in self.reads(state, slot) {
                    let own = next.workers[slot].as_ref().expect("it works");
                    let second = second_look(own.message);
                    let other = second.is_some_and(|(_, _, broken)| broken);
                    if self.believes_after_write(worker, commit) {
                        let (mut next, look) = (next, Look::Waived);
                        let node = self.start(worker.message, look);
                        next.workers[slot].as_mut().expect("it works").node = node;
                        out.push((Move::Tip(who, commit), Ok(next)));
                        continue;
                    }
                    let seen = if other && knows {
                        Seen::TipAfterOther(commit)
                    } else {
                        Seen::Tip(commit)
                    };
                    go(self, out, Move::Tip(who, commit), seen, next);
                }
            }
            Ask::Build(commit) => {
                let mut next = *state;
                next.workers[slot].as_mut().expect("it works").built = commit;
                let seen = Seen::Built(self.rules.time(commit));
                go(self, out, Move::Built(who), seen, next);
                if state.left.not_built > 0 && self.rules.tip(state.pushed) != commit {
                    let mut next = *state;
                    next.left.not_built -= 1;
                    go(self, out, Move::NotBuilt(who), Seen::NotBuilt, next);
                }
            }
            Ask::Wait { last } => {
                let waits_on = last && self.rules.lag == Lag::Bounded && who > state.shown.into();
                if !waits_on {
                    go(self, out, Move::Waited(who), Seen::Waited, *state);
                }
            }
            Ask::Pause => go(self, out, Move::Waited(who), Seen::Waited, *state),
            Ask::Put(condition) => self.worker_puts(state, slot, worker, condition, out),
            Ask::Done(end) => out.push(self.acknowledge(state, slot, worker, end)),
        }
        self.worker_fails(state, slot, worker, out);
    }

    fn believes_after_write(&self, worker: Worker, tip: Commit) -> bool {
        let verifies = self.machine.ask(worker.node) == Ask::Verify;
        self.rules.mutant == Some(Mutant::StartOver) && verifies && tip != worker.built
    }

    /// What a read of the tip may see.
    fn reads(&self, state: &State, slot: usize) -> Vec<(Commit, State)> {
        let mut reads: Vec<(Commit, State)> = Vec::new();
        for position in state.shown..=state.pushed {
            let commit = self.rules.tip(position);
            if reads.iter().any(|(other, _)| *other == commit) {
                continue;
            }
            let mut next = *state;
            if commit != self.rules.tip(state.pushed) {
                if next.left.stale == 0 {
                    continue;
                }
                next.left.stale -= 1;
            }
            let now = state.last_observation() + 1;
            let worker = next.workers[slot].as_mut().expect("it works");
            worker.read |= 1 << commit;
            worker.observed = now;
            worker.message = after_look(worker.message, commit);
            if self.rules.one_process {
                next.looked(commit);
            }
            reads.push((commit, next));
        }
        reads
    }

    /// Steps that nobody else can notice are taken at once, with those that a mutant leaves out.
    fn local(&mut self, worker: &mut Worker) {
        let mutant = self.rules.mutant;
        loop {
            let ask = self.machine.ask(worker.node);
            let seen = match ask {
                Ask::Build(commit) if self.rules.faults.not_built == 0 => {
                    worker.built = commit;
                    Seen::Built(self.rules.time(commit))
                }
                Ask::Pause => Seen::Waited,
                Ask::Wait { .. } if mutant == Some(Mutant::NoReadAgain) => Seen::Waited,
                Ask::Wait { last } if !last || self.rules.lag != Lag::Bounded => Seen::Waited,
                Ask::Verify if mutant == Some(Mutant::NoVerify) => Seen::Tip(worker.built),
                Ask::Tip if mutant == Some(Mutant::TipBeforeHead) && worker.aside > 0 => {
                    Seen::Tip(std::mem::take(&mut worker.aside) - 1)
                }
                Ask::Tip if mutant == Some(Mutant::NoReadAgain) && worker.aside > 0 => {
                    Seen::Tip(worker.aside - 1)
                }
                _ => break,
            };
            if mutant == Some(Mutant::NoReadAgain) {
                // From a wait to the tip that would be read after it.
                worker.aside = match ask {
                    Ask::Wait { .. } => self.last_tip(worker) + 1,
                    _ => 0,
                };
            }
            worker.node = self.machine.next(worker.node, seen);
        }
        if !matches!(
            self.machine.ask(worker.node),
            Ask::Put(_) | Ask::Build(_) | Ask::Verify
        ) {
            worker.built = GONE;
        }
        let reading = mutant == Some(Mutant::TipBeforeHead) && worker.aside > 0;
        if !reading && !matches!(self.machine.ask(worker.node), Ask::Put(_) | Ask::Build(_)) {
            worker.observed = 0;
        }
    }

    /// The tip that makes the step function believe that nothing moved: found by asking it.
    fn last_tip(&mut self, worker: &Worker) -> Commit {
        let asks = self.machine.next(worker.node, Seen::Waited);
        let same = |world: &mut Self, commit: &Commit| {
            let next = world.machine.next(asks, Seen::Tip(*commit));
            world.machine.ask(next) != Ask::Pause
        };
        let commits: Vec<Commit> = (GONE..8).collect();
        let found = commits.iter().find(|commit| same(self, commit));
        *found.expect("one of them is the tip that it has seen")
    }

    fn worker_puts(
        &mut self,
        state: &State,
        slot: usize,
        worker: Worker,
        condition: Option<u8>,
        out: &mut Vec<(Move, After)>,
    ) {
        let who = worker.message;
        let write = Write {
            condition,
            commit: worker.built,
            observed: worker.observed,
            message: worker.message,
        };
        if self.rules.mutant == Some(Mutant::AcknowledgeBeforePut) && !worker.expired {
            let after = self.check_acknowledgement(worker, End::Holds(worker.built));
            if let Err(violation) = after {
                out.push((Move::Acknowledge(who), Err(violation)));
                return;
            }
        }
        let after = |world: &mut Self, mut next: State, seen| {
            let node = world.machine.next(worker.node, seen);
            let worker = next.workers[slot].as_mut().expect("it works");
            worker.node = node;
            world.local(worker);
            next
        };
        let mut applied = *state;
        let stored = self.put(&mut applied, write);
        match stored {
            Err(violation) => out.push((Move::Stored(who, write.commit), Err(violation))),
            Ok(false) => {
                if self.rules.mutant == Some(Mutant::LoserGivesUp) {
                    let end = End::Holds(worker.built);
                    out.push(self.acknowledge(state, slot, worker, end));
                } else {
                    let next = after(self, *state, Seen::NotStored);
                    out.push((Move::Refused(who), Ok(next)));
                }
            }
            Ok(true) => {
                let etag = applied.newest.expect("it was stored").etag;
                let next = after(self, applied, Seen::Stored(etag));
                out.push((Move::Stored(who, write.commit), Ok(next)));
                if state.left.unknown > 0 {
                    let mut next = after(self, applied, Seen::NotStored);
                    next.left.unknown -= 1;
                    out.push((Move::StoredUnheard(who, write.commit), Ok(next)));
                }
            }
        }
        if state.left.unknown > 0 {
            let mut next = after(self, *state, Seen::NotStored);
            next.left.unknown -= 1;
            out.push((Move::NotStoredUnheard(who), Ok(next)));
            if self.rules.late == Late::Whenever && next.send(write) {
                out.push((Move::InTheAir(who), Ok(next)));
            }
        }
    }

    /// Death at this step, and a message that comes again too early.
    fn worker_fails(
        &mut self,
        state: &State,
        slot: usize,
        worker: Worker,
        out: &mut Vec<(Move, After)>,
    ) {
        let who = worker.message;
        if state.left.crashes > 0 {
            let mut dead = *state;
            dead.left.crashes -= 1;
            dead.workers[slot] = None;
            if !worker.expired {
                self.comes_again(&mut dead, worker);
            }
            out.push((Move::Die(who), Ok(dead)));
            if let Ask::Put(condition) = self.machine.ask(worker.node) {
                let write = Write {
                    condition,
                    commit: worker.built,
                    observed: worker.observed,
                    message: worker.message,
                };
                let mut applied = dead;
                // What must not be is told of the living, who would do it as well.
                if self.put(&mut applied, write) == Ok(true) {
                    let what = Move::StoredUnheard(who, write.commit);
                    out.push((what, Ok(applied)));
                }
                if self.rules.late != Late::Never && dead.send(write) {
                    out.push((Move::InTheAir(who), Ok(dead)));
                }
            }
        }
        if state.left.expiries > 0 && !worker.expired {
            let mut next = *state;
            next.left.expiries -= 1;
            next.workers[slot].as_mut().expect("it works").expired = true;
            self.comes_again(&mut next, worker);
            out.push((Move::Expire(who), Ok(next)));
        }
    }

    /// The message is handed out again.
    fn comes_again(&self, state: &mut State, worker: Worker) {
        let message = if self.rules.one_process {
            worker.message
        } else {
            // What a worker saw that is gone, nobody knows.
            forgotten(worker.message)
        };
        state.enqueue(message, self.rules.fifo);
    }

    fn acknowledge(&self, state: &State, slot: usize, worker: Worker, end: End) -> (Move, After) {
        let who = worker.message;
        let mut next = *state;
        next.workers[slot] = None;
        let mut what = Move::Acknowledge(who);
        if let End::StepBack(held, _, tip) = end {
            // It is sent before the message is acknowledged.
            next.park(Recheck {
                held,
                tip,
                pushed: state.pushed,
                broken: false,
            });
            what = Move::Parks(who, tip);
        }
        if worker.expired {
            return (what, Ok(next));
        }
        if end == End::Contention {
            self.comes_again(&mut next, worker);
            return (Move::ComesAgain(who), Ok(next));
        }
        let checked = self.check_acknowledgement(worker, end);
        (what, checked.map(|()| next))
    }

    #[expect(clippy::unused_self, reason = "it belongs to what the world demands")]
    fn check_acknowledgement(&self, worker: Worker, end: End) -> Result<(), Violation> {
        let is_founded = match end {
            End::Holds(commit) => worker.read & worker.held & (1 << commit) != 0,
            // The second look is parked.
            End::StepBack(_, commit, tip) => {
                worker.held & (1 << commit) != 0 && worker.read & (1 << tip) != 0
            }
            End::BranchGone | End::RefNotFound => worker.read & (1 << GONE) != 0,
            End::Contention => false,
        };
        if is_founded {
            return Ok(());
        }
        let commit = match end {
            End::Holds(commit) | End::StepBack(_, commit, _) => commit,
            _ => GONE,
        };
        Err(violation(
            "I5 no loss",
            format!(
                "the message of {} is acknowledged, though the object did not hold {} since it came in",
                message(worker.message),
                name(commit)
            ),
        ))
    }
}
