//! Small models of S3, Git and the queue around the product's step function, and everything that can happen next.

use std::collections::HashMap;

use backlog_bridge::deliver::step::Hints;

use crate::{
    machine::{Commit, GONE, Look, Machine, Node, id},
    rules::{Faults, Lag, Late, Mutant, Rules, WORKERS},
    search::Model,
    state::{IN_THE_AIR, QUEUE, RECHECKS, State, Version, Worker, Write},
    story::{Message, Move, SWEEP, Violation, due, name, second_look, violation},
};

pub(crate) type After = Result<State, Violation>;

/// The world of one search.
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) machine: Machine,
    starts: HashMap<(Message, Look), Node>,
}

impl World {
    pub(crate) fn new(rules: Rules) -> Self {
        assert!(rules.workers <= WORKERS, "room for {WORKERS} workers");
        Self {
            rules,
            machine: Machine::default(),
            starts: HashMap::new(),
        }
    }

    fn etag(&self, version: u8, commit: Commit) -> u8 {
        if self.rules.mutant == Some(Mutant::TagOfCommit) {
            0x80 + commit
        } else {
            version
        }
    }

    fn pushes(&self, state: &State, out: &mut Vec<(Move, After)>) {
        let rules = &self.rules;
        if state.pushed < rules.pushes() {
            let mut next = *state;
            next.pushed += 1;
            if rules.lag == Lag::None {
                next.shown = next.pushed;
            }
            let (event, commit) = (next.pushed, rules.tip(next.pushed));
            if rules.has_event(event) {
                if next.left.lost > 0 {
                    let mut next = next;
                    next.left.lost -= 1;
                    out.push((Move::PushUnheard(commit), Ok(next)));
                }
                if rules.any_order && rules.fifo {
                    next.coming |= 1 << event;
                } else {
                    next.enqueue(event.into(), false);
                }
            }
            out.push((Move::Push(commit), Ok(next)));
        }
        for event in 1..=state.pushed {
            if state.coming & (1 << event) != 0 {
                let mut next = *state;
                next.coming &= !(1 << event);
                next.enqueue(event.into(), false);
                out.push((Move::Arrive(event.into()), Ok(next)));
            }
            if state.left.doubled > 0 && rules.has_event(event) {
                let mut next = *state;
                next.left.doubled -= 1;
                next.enqueue(event.into(), false);
                out.push((Move::Double(event.into()), Ok(next)));
            }
        }
        if state.left.sweeps > 0 && state.pushed > 0 {
            let mut next = *state;
            next.left.sweeps -= 1;
            next.enqueue(SWEEP, false);
            out.push((Move::Sweep, Ok(next)));
        }
        if state.shown < state.pushed {
            let mut next = *state;
            next.shown += 1;
            out.push((Move::CatchUp, Ok(next)));
        }
    }

    fn messages(&mut self, state: &State, out: &mut Vec<(Move, After)>) {
        let busy = state.workers.iter().flatten();
        let locked = self.rules.fifo && busy.clone().any(|worker| !worker.expired);
        let fenced =
            self.rules.late == Late::BeforeItComesAgain && state.air.iter().any(Option::is_some);
        if busy.count() == self.rules.workers || locked || fenced {
            return;
        }
        let slot = state.workers.iter().position(Option::is_none);
        let slot = slot.expect("one is idle");
        for place in 0..QUEUE {
            let message = state.queue[place];
            let known = state.queue[..place].contains(&message);
            if message == 0 || known || (self.rules.fifo && place > 0) {
                continue;
            }
            let mut next = *state;
            next.queue[place] = 0;
            let look = self.look(state, message);
            next.workers[slot] = Some(Worker {
                node: self.start(message, look),
                message,
                built: GONE,
                observed: 0,
                read: 0,
                held: 0,
                expired: false,
                aside: 0,
            });
            out.push((Move::Take(message), Ok(next)));
        }
    }

    /// The second look at what is parked is due, a minute after the first one.
    fn rechecks(&self, state: &State, out: &mut Vec<(Move, After)>) {
        for place in 0..RECHECKS {
            let Some(recheck) = state.rechecks[place] else {
                continue;
            };
            let mut next = *state;
            next.rechecks[place] = None;
            let early = self.rules.mutant == Some(Mutant::OneLook);
            if !early && self.rules.lag != Lag::Endless {
                // No machine is behind for a minute.
                next.shown = next.shown.max(recheck.pushed);
            }
            next.enqueue(due(recheck), false);
            out.push((Move::Due(recheck.tip), Ok(next)));
        }
    }

    pub(crate) fn start(&mut self, message: Message, look: Look) -> Node {
        let (rules, machine) = (&self.rules, &mut self.machine);
        *self.starts.entry((message, look)).or_insert_with(|| {
            let known = |commit| (commit != GONE).then(|| id(commit));
            let push = u8::try_from(message).ok().filter(|_| message != SWEEP);
            let hints = push.map(|push| {
                if rules.hints {
                    Hints {
                        commits: vec![id(rules.tip(push))],
                        before: known(rules.tip(push - 1)),
                        is_awaited: false,
                    }
                } else {
                    Hints::default()
                }
            });
            machine.start(hints, look)
        })
    }

    /// What the looks of a delivery are.
    fn look(&self, state: &State, message: Message) -> Look {
        if let Some((held, tip, _)) = second_look(message) {
            return Look::Second { held, tip };
        }
        match (self.rules.mutant, state.newest, u8::try_from(message)) {
            (Some(Mutant::EveryLook), ..) => Look::Waived,
            (Some(Mutant::EventBelieved), Some(newest), Ok(push)) if message != SWEEP => {
                Look::Second {
                    held: newest.etag,
                    tip: self.rules.tip(push),
                }
            }
            _ => Look::First,
        }
    }

    pub(crate) fn holds(&self, state: &State, condition: Option<u8>) -> bool {
        self.rules.mutant == Some(Mutant::UnconditionalPut)
            || state.newest.map(|newest| newest.etag) == condition
    }

    /// A write, atomic and under its condition. Says whether it took place.
    pub(crate) fn put(&self, state: &mut State, write: Write) -> Result<bool, Violation> {
        if !self.holds(state, write.condition) {
            return Ok(false);
        }
        if let Some(newest) = state.newest {
            if newest.observed > write.observed {
                return Err(violation(
                    "I3 monotone",
                    format!(
                        "{} replaces {}, whose tip was read later",
                        name(write.commit),
                        name(newest.commit)
                    ),
                ));
            }
            self.check_step_back(newest, write)?;
            if newest.commit == write.commit {
                return Err(violation(
                    "I2 no repeat",
                    format!("{} is stored right after itself", name(write.commit)),
                ));
            }
        }
        state.newest = Some(Version {
            commit: write.commit,
            etag: self.etag(state.versions, write.commit),
            observed: write.observed,
            previous: state.newest.map_or(GONE, |newest| newest.commit),
            is_bare: false,
        });
        state.versions += 1;
        Ok(true)
    }

    /// A step back needs two looks, a minute apart, at the tip and beside the version that it replaces.
    fn check_step_back(&self, newest: Version, write: Write) -> Result<(), Violation> {
        let is_older =
            !newest.is_bare && self.rules.time(write.commit) < self.rules.time(newest.commit);
        let is_back = is_older || newest.previous == write.commit;
        let second = Some((newest.etag, write.commit, false));
        let is_seen_twice = second_look(write.message) == second;
        let why = if is_back && !is_seen_twice {
            "was not seen twice"
        } else if self.rules.lag != Lag::Endless && self.is_stale(newest.commit, write.commit) {
            "the ref never pointed there after it"
        } else {
            return Ok(());
        };
        let (commit, held) = (name(write.commit), name(newest.commit));
        let text = format!("{commit} replaces {held}, and {why}");
        Err(violation("I8 no stale step back", text))
    }

    /// Whether the ref pointed to a commit only before it first pointed to the one that is held.
    fn is_stale(&self, held: Commit, commit: Commit) -> bool {
        let timeline = self.rules.timeline;
        let first = timeline.iter().position(|tip| *tip == held);
        let last = timeline.iter().rposition(|tip| *tip == commit);
        last < first
    }

    /// The sweep looks at the object, and a delivery follows if it differs from its ref. Nothing disturbs it.
    fn sweep(&mut self, mut state: State) -> Result<State, Violation> {
        let tip = self.rules.tip(state.pushed);
        let differs = state.newest.map(|newest| newest.commit) != Some(tip);
        if !differs || tip == GONE || self.rules.mutant == Some(Mutant::IdleSweep) {
            return Ok(state);
        }
        state.left = Faults::default();
        state.enqueue(SWEEP, false);
        let mut moves = Vec::new();
        loop {
            self.moves(&state, &mut moves);
            match moves.pop() {
                Some((_, next)) => state = next?,
                None => return Ok(state),
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Move = Move;

    fn first(&self) -> State {
        let commit = self.rules.tip(0);
        State {
            pushed: 0,
            shown: 0,
            newest: (commit != GONE).then(|| Version {
                commit,
                etag: self.etag(0, commit),
                observed: 0,
                previous: GONE,
                is_bare: self.rules.is_bare,
            }),
            versions: 1,
            coming: 0,
            queue: [0; QUEUE],
            workers: [None; WORKERS],
            air: [None; IN_THE_AIR],
            rechecks: [None; RECHECKS],
            left: self.rules.faults,
        }
    }

    fn moves(&mut self, state: &State, out: &mut Vec<(Move, After)>) {
        out.clear();
        self.pushes(state, out);
        self.messages(state, out);
        self.rechecks(state, out);
        for slot in 0..WORKERS {
            if let Some(worker) = state.workers[slot] {
                self.worker(state, slot, worker, out);
            }
        }
        for slot in 0..IN_THE_AIR {
            if let Some(write) = state.air[slot] {
                let mut next = *state;
                next.air[slot] = None;
                out.push((Move::Vanish, Ok(next)));
                let what = if self.holds(&next, write.condition) {
                    Move::Land(write.commit)
                } else {
                    Move::LandRefused
                };
                out.push((what, self.put(&mut next, write).map(|_| next)));
            }
        }
        for (_, after) in out.iter_mut() {
            if let Ok(state) = after {
                state.tidy(self.rules.fifo);
            }
        }
    }

    /// The last sweep is a part of it.
    fn at_the_end(&mut self, state: &State) -> Result<(), Violation> {
        let over = state.pushed == self.rules.pushes()
            && state.shown == state.pushed
            && state.queue == [0; QUEUE]
            && state.coming == 0
            && state.rechecks == [None; RECHECKS]
            && state.workers == [None; WORKERS];
        if !over {
            return Err(violation("end", format!("nothing can happen in {state:?}")));
        }
        let tip = self.rules.tip(state.pushed);
        if !self.rules.sweep_heals {
            converged(state, tip, "every message is handled")?;
        }
        let swept = self.sweep(*state)?;
        converged(&swept, tip, "the sweep is over")
    }

    fn tell(&self, what: Move) -> String {
        what.to_string()
    }
}

fn converged(state: &State, tip: Commit, when: &str) -> Result<(), Violation> {
    let holds = state.newest.map_or(GONE, |newest| newest.commit);
    if tip == GONE || holds == tip {
        return Ok(());
    }
    let text = format!(
        "{when}, and the newest version holds {} while the ref points to {}",
        name(holds),
        name(tip)
    );
    Err(violation("I1 converge", text))
}
