//! The delivery algorithm: what was seen so far → what to do next. Pure, so that every order of events can be tried.
//!
//! ```text
//! Head ─▶ Table ─▶ Tip ─▶ Build ─▶ Put ─▶ Tip again ─▶ Table again ─▶ settle ─▶ Done
//!  ▲                  └────────── already current, gone ─────────────┘│
//!  └───────────────────── refused, unknown, moved ────────────────────┘
//! ```
//!
//! - The table is read strictly after the head, as the tip is. A copy from before would let a delivery of a route that is
//!   no more replace what the route after it has delivered.
//! - The tip is read strictly after the head. The other way round, a slow worker holds an old tip and a new head, and its
//!   condition lets the old commit through.
//! - A refused write starts over. Whoever was faster may have delivered less than the tip.
//! - A tip that looks older than what the object holds is a step back. A Git server that answers from several machines shows
//!   such tips while some of them are behind, and after a force push back it shows nothing else: only a second look, a minute
//!   later, tells these apart. Until then the object stays.
//! - The tip is read again after the write. A force push A→B→A can be over before the write, and the next worker saw
//!   "already current" in between. So is the table: the object may have passed to another route before the write.

use std::time::{Duration, Instant};

pub use super::{
    hints::Hints,
    history::{SECOND_LOOK, SecondLook},
};
use super::{
    history::History,
    holder::{Held, Holder, Ruling},
};
use crate::{bucket::Condition, push::CommitId, queue::StepBack};

/// Rounds before the delivery gives up.
pub const MAX_ROUNDS: u32 = 8;

/// How long a Git server may lag behind its own webhook: the tip is read again after each of these.
///
/// Source: a bridge in production waits 5 seconds.
pub const SETTLE_WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// What was seen when an action was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Saw {
    /// [`Action::Head`]: the entity tag, or no object.
    Head(Option<String>),
    /// [`Action::Table`]: what the table says of what the head showed.
    Table(Ruling),
    /// [`Action::Tip`]: the commit, or no such ref.
    Tip(Option<CommitId>),
    /// [`Action::Build`]: it is built; and when the commit was made, by its committer's clock, in seconds of Unix time.
    Built(Option<i64>),
    /// [`Action::Build`]: the Git server does not give the commit any more, and the ref has moved on.
    NotBuilt,
    /// [`Action::Put`]: a new version is stored, under this delivery id.
    Stored(String),
    /// [`Action::Put`]: refused, or nobody knows.
    NotStored,
    /// [`Action::Pause`] or [`Action::Wait`]: time went by.
    Waited,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read what the object holds.
    Head,
    /// Read the routing table, and judge by it what the object holds.
    Table,
    /// Read where the ref points.
    Tip,
    /// Build the archive of this commit.
    Build(CommitId),
    /// Store the archive under this condition.
    Put(Condition),
    /// Let others get ahead, longer in later rounds.
    Pause {
        /// Rounds that are over.
        rounds: u32,
    },
    /// Wait, since the Git server seems to lag.
    Wait(Duration),
    /// Nothing more.
    Done(Verdict),
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The object holds this commit, and this delivery wrote it.
    Published(CommitId),
    /// The object held this commit already.
    AlreadyCurrent(CommitId),
    /// The Git server shows a commit that looks older than what the object holds. The object stays until a second look.
    StepBack {
        /// The commit that the object holds.
        commit: CommitId,
        /// Whether this delivery wrote it.
        published: bool,
        /// What the Git server shows.
        seen: StepBack,
    },
    /// The ref is gone; the object stays.
    BranchGone,
    /// There is no such ref, and no object that a delivery of it wrote.
    RefNotFound,
    /// The object is another route's.
    KeyConflict {
        /// That route's repository.
        repository: String,
        /// That route's ref, or the refs that it takes.
        ref_name: String,
    },
    /// The table delivers the ref elsewhere by now, or not at all: the job is to be planned anew.
    Moved {
        /// Whether this delivery stored a version at the object that it leaves.
        stored: bool,
    },
    /// The object or the ref kept changing.
    Contention {
        /// Whether the last round stored a version, and only the ref was faster.
        stored: bool,
    },
}

/// One delivery in progress.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Steps {
    /// `None` if nobody pushed: a person or the sweep asked.
    hints: Option<Hints>,
    history: History,
    state: State,
    rounds: u32,
    /// How many of [`SETTLE_WAITS`] are over. They count for the whole delivery, not for each round.
    waits: usize,
    /// The commit that this delivery stored last.
    stored: Option<CommitId>,
    /// Whether there is to be a new version in any case.
    again: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Starting,
    Heading,
    Judging {
        condition: Condition,
    },
    Asking {
        condition: Condition,
        ruling: Ruling,
    },
    Building {
        condition: Condition,
        /// What a version of ours holds that is there.
        held: Option<Held>,
        tip: CommitId,
    },
    Putting {
        tip: CommitId,
    },
    Verifying {
        tip: CommitId,
        /// The version that was stored.
        delivery_id: String,
    },
    /// Reading the table after the write.
    Rejudging {
        tip: CommitId,
        /// What the Git server shows instead.
        seen: Option<StepBack>,
    },
    Waiting {
        then: Then,
        tip: Option<CommitId>,
    },
    AskingAgain {
        then: Then,
        tip: Option<CommitId>,
    },
}

/// What follows once the Git server has had its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Then {
    Done(Verdict),
    /// The first version, of a tip that is the one before the push.
    Build(CommitId),
}

impl Steps {
    /// A delivery before its first step.
    #[must_use]
    pub fn new(hints: Option<Hints>, second_look: SecondLook) -> Self {
        Self {
            hints,
            history: History::new(second_look),
            state: State::Starting,
            rounds: 0,
            waits: 0,
            stored: None,
            again: false,
        }
    }

    /// The same, which makes a new version also of the commit that the object holds. That is a repeat, and somebody asked
    /// for it.
    #[must_use]
    pub fn again(self) -> Self {
        Self {
            again: true,
            ..self
        }
    }

    /// The first action.
    pub fn start(&mut self) -> Action {
        self.state = State::Heading;
        Action::Head
    }

    /// Rounds that are over.
    #[must_use]
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The next action, after the last one was carried out and `saw` was seen.
    ///
    /// # Panics
    ///
    /// If `saw` does not answer the last action.
    pub fn next(&mut self, saw: Saw) -> Action {
        if let Saw::Tip(tip) = saw {
            self.history.looked(tip);
        }
        match (std::mem::replace(&mut self.state, State::Starting), saw) {
            (State::Starting, Saw::Waited) => self.start(),
            (State::Heading, Saw::Head(current)) => {
                let condition = current.map_or(Condition::Absent, Condition::Unchanged);
                self.state = State::Judging { condition };
                Action::Table
            }
            (State::Judging { .. }, Saw::Table(Ruling::Moved)) => self.moved(),
            (State::Judging { condition }, Saw::Table(ruling)) => {
                if let Ruling::Go(Some(Holder::Us(held))) = &ruling {
                    self.history
                        .held(held.previous.into_iter().chain([held.commit]));
                }
                self.state = State::Asking { condition, ruling };
                Action::Tip
            }
            (State::Asking { ruling, .. }, Saw::Tip(None)) => {
                let verdict = match ruling {
                    Ruling::Go(Some(Holder::Us(_))) => Verdict::BranchGone,
                    _ if self.is_awaited() => return Action::Done(Verdict::RefNotFound),
                    _ => Verdict::RefNotFound,
                };
                self.settle(Then::Done(verdict), None)
            }
            (State::Asking { condition, ruling }, Saw::Tip(Some(tip))) => match ruling {
                Ruling::Conflict {
                    repository,
                    ref_name,
                } => Action::Done(Verdict::KeyConflict {
                    repository,
                    ref_name,
                }),
                Ruling::Go(Some(Holder::Us(held))) => self.compare(condition, held, tip),
                // What would be written is from before the push.
                Ruling::Go(None) if self.was_before(tip) => {
                    self.settle(Then::Build(tip), Some(tip))
                }
                Ruling::Go(_) => self.build(condition, None, tip),
                Ruling::Moved => self.moved(),
            },
            (
                State::Building {
                    condition,
                    held,
                    tip,
                },
                Saw::Built(time),
            ) => match held {
                Some(held)
                    if time < held.time && time.is_some() && !self.history.passed(&held, tip) =>
                {
                    self.step_back(held.commit, held.delivery_id, tip)
                }
                _ => {
                    self.state = State::Putting { tip };
                    Action::Put(condition)
                }
            },
            (State::Putting { tip }, Saw::Stored(delivery_id)) => {
                self.stored = Some(tip);
                self.history.held([tip]);
                self.state = State::Verifying { tip, delivery_id };
                Action::Tip
            }
            (State::Building { .. }, Saw::NotBuilt) | (State::Putting { .. }, Saw::NotStored) => {
                self.start_over(false)
            }
            (State::Verifying { tip, delivery_id }, Saw::Tip(now)) => {
                let back = now.filter(|now| *now != tip && self.is_back(*now));
                if now != Some(tip) && back.is_none() {
                    return self.start_over(true);
                }
                let seen = back.map(|tip| StepBack {
                    held: delivery_id,
                    tip,
                });
                self.state = State::Rejudging { tip, seen };
                Action::Table
            }
            (State::Rejudging { tip, seen }, Saw::Table(ruling)) => match (ruling, seen) {
                (Ruling::Go(_), None) => self.settle(Then::Done(self.current(tip)), Some(tip)),
                (Ruling::Go(_), Some(seen)) => self.step_back(tip, seen.held, seen.tip),
                // The next round names it.
                (Ruling::Conflict { .. }, _) => self.start_over(false),
                (Ruling::Moved, _) => self.moved(),
            },
            (State::Waiting { then, tip }, Saw::Waited) => {
                self.state = State::AskingAgain { then, tip };
                Action::Tip
            }
            (State::AskingAgain { then, tip }, Saw::Tip(now)) => {
                if now == tip {
                    self.settle(then, tip)
                } else {
                    self.start_over(false)
                }
            }
            (state, saw) => panic!("{saw:?} answers nothing that was asked in {state:?}"),
        }
    }

    /// Whether the tip is read to see that it did not move during the write.
    #[must_use]
    pub fn is_verifying(&self) -> bool {
        matches!(self.state, State::Verifying { .. })
    }

    /// Whether a wait is left to a later look, where others wait for the turn: a server that lags is given its time so after a
    /// short wait here, or at once where it has just shown something new.
    #[must_use]
    pub fn leaves_wait(&self) -> bool {
        self.waits > 1 || self.stored.is_some()
    }

    /// What the first look was at, and when, if this is the second.
    #[must_use]
    pub fn first_look(&self) -> Option<(CommitId, Instant)> {
        self.history.first_look()
    }

    /// Takes note that something else was seen since the first look, so that this is a first one again.
    pub fn take_back(&mut self) {
        self.history.take_back();
    }

    /// Takes note that `tag`, which the hints may name, leads to `commit`.
    pub fn peeled(&mut self, tag: CommitId, commit: CommitId) {
        if let Some(hints) = &mut self.hints {
            hints.peeled(tag, commit);
        }
    }

    /// Takes note that the object's current version was written by this delivery, though no answer said so.
    pub fn found_own_write(&mut self, commit: CommitId) {
        self.stored = Some(commit);
    }

    fn moved(&self) -> Action {
        let stored = self.stored.is_some();
        Action::Done(Verdict::Moved { stored })
    }

    fn current(&self, tip: CommitId) -> Verdict {
        if self.stored == Some(tip) {
            Verdict::Published(tip)
        } else {
            Verdict::AlreadyCurrent(tip)
        }
    }

    /// Compares the tip with a version of ours.
    fn compare(&mut self, condition: Condition, held: Held, tip: CommitId) -> Action {
        if held.commit == tip && self.again && self.stored.is_none() {
            self.build(condition, Some(held), tip)
        } else if held.commit == tip {
            self.settle(Then::Done(self.current(tip)), Some(tip))
        } else if self.is_back(tip) && !self.history.passed(&held, tip) {
            self.step_back(held.commit, held.delivery_id, tip)
        } else {
            self.build(condition, Some(held), tip)
        }
    }

    fn build(&mut self, condition: Condition, held: Option<Held>, tip: CommitId) -> Action {
        self.state = State::Building {
            condition,
            held,
            tip,
        };
        Action::Build(tip)
    }

    /// Whether a tip that the object does not hold is known to be older than what it holds. Its time says more once it is
    /// fetched.
    fn is_back(&self, tip: CommitId) -> bool {
        self.history.has(tip) || self.was_before(tip)
    }

    /// Whether the event says that the ref pointed there before the push.
    fn was_before(&self, tip: CommitId) -> bool {
        self.hints
            .as_ref()
            .is_some_and(|hints| hints.before == Some(tip))
    }

    fn is_awaited(&self) -> bool {
        self.hints.as_ref().is_some_and(|hints| hints.is_awaited)
    }

    /// Ends with a step back that nothing is done about yet.
    fn step_back(&mut self, commit: CommitId, held: String, tip: CommitId) -> Action {
        let verdict = Verdict::StepBack {
            commit,
            published: self.stored == Some(commit),
            seen: StepBack { held, tip },
        };
        let is_events = |hints: &Hints| hints.commits.contains(&commit);
        if self.hints.as_ref().is_some_and(is_events) {
            // What the event told of is delivered: there is nothing to wait for.
            return Action::Done(verdict);
        }
        self.settle(Then::Done(verdict), Some(tip))
    }

    /// Goes on, unless the hints know of a commit that the Git server does not show yet.
    fn settle(&mut self, then: Then, tip: Option<CommitId>) -> Action {
        let lagging = self
            .hints
            .as_ref()
            .is_some_and(|hints| hints.disagree_with(tip));
        if let (Some(wait), true) = (SETTLE_WAITS.get(self.waits), lagging) {
            self.waits += 1;
            self.state = State::Waiting { then, tip };
            return Action::Wait(*wait);
        }
        match then {
            Then::Done(verdict) => Action::Done(verdict),
            Then::Build(tip) => self.build(Condition::Absent, None, tip),
        }
    }

    fn start_over(&mut self, stored: bool) -> Action {
        self.rounds += 1;
        if self.rounds >= MAX_ROUNDS {
            return Action::Done(Verdict::Contention { stored });
        }
        self.state = State::Starting;
        Action::Pause {
            rounds: self.rounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(n: u8) -> CommitId {
        format!("{n:02x}").repeat(20).parse().unwrap()
    }

    /// A version of ours of which no more is known, as one of version 0.1.
    fn us(commit: CommitId) -> Holder {
        Holder::Us(Held {
            commit,
            time: None,
            previous: None,
            delivery_id: "d".into(),
        })
    }

    /// An object, and a table that gives it to the delivery.
    fn held(holder: Holder) -> [Saw; 2] {
        let go = Ruling::Go(Some(holder));
        [Saw::Head(Some("e".into())), Saw::Table(go)]
    }

    fn absent() -> [Saw; 2] {
        [Saw::Head(None), Saw::Table(Ruling::Go(None))]
    }

    fn still_ours() -> Saw {
        Saw::Table(Ruling::Go(None))
    }

    /// Feeds what was seen, and returns the actions from the first to the last.
    fn run(hints: Option<Hints>, seen: impl IntoIterator<Item = Saw>) -> Vec<Action> {
        let mut steps = Steps::new(hints, SecondLook::Needed);
        let mut actions = vec![steps.start()];
        actions.extend(seen.into_iter().map(|saw| steps.next(saw)));
        actions
    }

    #[test]
    fn tip_and_table_are_read_after_the_head_and_again_after_the_write() {
        let (a, condition) = (commit(1), Condition::Absent);
        let seen = [
            Saw::Tip(Some(a)),
            Saw::Built(None),
            Saw::Stored("d".into()),
            Saw::Tip(Some(a)),
            still_ours(),
        ];
        assert_eq!(
            run(None, absent().into_iter().chain(seen)),
            [
                Action::Head,
                Action::Table,
                Action::Tip,
                Action::Build(a),
                Action::Put(condition),
                Action::Tip,
                Action::Table,
                Action::Done(Verdict::Published(a))
            ]
        );
    }

    #[test]
    fn a_refused_write_starts_over_with_the_head() {
        let a = commit(1);
        let lost = [
            Saw::Tip(Some(a)),
            Saw::Built(None),
            Saw::NotStored,
            Saw::Waited,
        ];
        let seen = absent().into_iter().chain(lost);
        let seen = seen.chain(held(us(a)));
        let actions = run(None, seen.chain([Saw::Tip(Some(a))]));
        assert_eq!(
            actions[5..],
            [
                Action::Pause { rounds: 1 },
                Action::Head,
                Action::Table,
                Action::Tip,
                Action::Done(Verdict::AlreadyCurrent(a))
            ]
        );
    }

    #[test]
    fn a_commit_that_is_gone_before_the_fetch_starts_over_with_the_head() {
        let gone = [Saw::Tip(Some(commit(1))), Saw::NotBuilt, Saw::Waited];
        let actions = run(None, absent().into_iter().chain(gone));
        assert_eq!(actions[4..], [Action::Pause { rounds: 1 }, Action::Head]);
    }

    #[test]
    fn a_push_during_the_write_is_delivered_too() {
        let (a, b) = (commit(1), commit(2));
        let first = [
            Saw::Tip(Some(a)),
            Saw::Built(None),
            Saw::Stored("d".into()),
            Saw::Tip(Some(b)),
            Saw::Waited,
        ];
        let seen = absent().into_iter().chain(first);
        let seen = seen.chain(held(us(a)));
        assert_eq!(
            run(None, seen.chain([Saw::Tip(Some(b)), Saw::Built(None)])).last(),
            Some(&Action::Put(Condition::Unchanged("e".into())))
        );
    }

    #[test]
    fn what_the_object_holds_and_the_table_say_decides() {
        let (a, b) = (commit(1), commit(2));
        let (repository, ref_name) = ("APP/api".to_owned(), "refs/heads/main".to_owned());
        let conflict = Ruling::Conflict {
            repository: repository.clone(),
            ref_name: ref_name.clone(),
        };
        let unrouted = Holder::Unrouted {
            repository: repository.clone(),
            ref_name: ref_name.clone(),
        };
        let is_anothers = Action::Done(Verdict::KeyConflict {
            repository,
            ref_name,
        });
        let missing = Action::Done(Verdict::RefNotFound);
        let go = |holder| Ruling::Go(Some(holder));
        for (case, ruling, tip, expected) in [
            (
                "holds the tip",
                go(us(a)),
                Some(a),
                Action::Done(Verdict::AlreadyCurrent(a)),
            ),
            ("holds another commit", go(us(b)), Some(a), Action::Build(a)),
            ("foreign", go(Holder::Foreign), Some(a), Action::Build(a)),
            (
                "a route's that is no more",
                go(unrouted.clone()),
                Some(a),
                Action::Build(a),
            ),
            (
                "no branch",
                go(us(b)),
                None,
                Action::Done(Verdict::BranchGone),
            ),
            (
                "no branch, foreign",
                go(Holder::Foreign),
                None,
                missing.clone(),
            ),
            ("no branch, another's", go(unrouted), None, missing.clone()),
            ("neither", Ruling::Go(None), None, missing),
            ("another route's", conflict, Some(a), is_anothers),
        ] {
            let head = Saw::Head(Some("e".into()));
            assert_eq!(
                run(None, [head, Saw::Table(ruling), Saw::Tip(tip)]).pop(),
                Some(expected),
                "{case}"
            );
        }
    }

    #[test]
    fn a_route_that_delivers_elsewhere_ends_it() {
        let a = commit(1);
        let moved = |stored| Some(Action::Done(Verdict::Moved { stored }));
        let at_once = [Saw::Head(None), Saw::Table(Ruling::Moved)];
        assert_eq!(run(None, at_once).pop(), moved(false));
        let write = [
            Saw::Tip(Some(a)),
            Saw::Built(None),
            Saw::Stored("d".into()),
            Saw::Tip(Some(a)),
            Saw::Table(Ruling::Moved),
        ];
        let seen = absent().into_iter().chain(write);
        assert_eq!(run(None, seen).pop(), moved(true));
    }

    #[test]
    fn a_tip_that_disagrees_with_the_event_is_read_again() {
        let (a, b) = (commit(1), commit(2));
        let says = |commits: &[CommitId], before| {
            Some(Hints {
                commits: commits.to_vec(),
                before,
                is_awaited: false,
            })
        };
        let done = Action::Done(Verdict::AlreadyCurrent(a));
        let wait = Action::Wait(SETTLE_WAITS[0]);
        for (case, hints, expected) in [
            ("nobody pushed", None, done.clone()),
            ("the event names the tip", says(&[b, a], None), done.clone()),
            ("the event names no commit", says(&[], None), done.clone()),
            ("the event names another", says(&[b], None), wait.clone()),
            (
                "the tip is from before the event",
                says(&[], Some(a)),
                wait.clone(),
            ),
        ] {
            let seen = held(us(a)).into_iter().chain([Saw::Tip(Some(a))]);
            assert_eq!(run(hints, seen).pop(), Some(expected), "{case}");
        }
        assert_eq!(
            run(
                says(&[], None),
                absent().into_iter().chain([Saw::Tip(None)])
            )
            .pop(),
            Some(wait),
            "not there yet"
        );
        let awaited = Some(Hints {
            is_awaited: true,
            ..Hints::default()
        });
        let missing = || absent().into_iter().chain([Saw::Tip(None)]);
        let looked_for = Action::Done(Verdict::RefNotFound);
        assert_eq!(run(awaited.clone(), missing()).pop(), Some(looked_for));
        let gone = held(us(a)).into_iter().chain([Saw::Tip(None)]);
        assert_eq!(
            run(awaited, gone).pop(),
            Some(Action::Wait(SETTLE_WAITS[0])),
            "it has an object"
        );
    }

    #[test]
    fn what_looks_older_waits_for_a_second_look() {
        let (a, b, c) = (commit(1), commit(2), commit(3));
        let is = |time, previous| {
            Holder::Us(Held {
                commit: b,
                time,
                previous,
                delivery_id: "d".into(),
            })
        };
        let event = |before| {
            Some(Hints {
                commits: vec![b],
                before: Some(before),
                is_awaited: false,
            })
        };
        let seen = StepBack {
            held: "d".into(),
            tip: a,
        };
        let back = Action::Done(Verdict::StepBack {
            commit: b,
            published: false,
            seen: seen.clone(),
        });
        let (build, put) = (
            Action::Build(a),
            Action::Put(Condition::Unchanged("e".into())),
        );
        for (case, hints, holder, time, expected) in [
            ("what was held before", None, is(None, Some(a)), None, &back),
            (
                "where the event began",
                event(a),
                is(None, None),
                None,
                &back,
            ),
            ("an earlier time", None, is(Some(2), None), Some(1), &back),
            (
                "an earlier time, before 1970",
                None,
                is(Some(-1), None),
                Some(-2),
                &back,
            ),
            (
                "an earlier time, far ahead",
                None,
                is(Some(i64::MAX), None),
                Some(4_102_444_800),
                &back,
            ),
            ("the same second", None, is(Some(2), None), Some(2), &put),
            ("a later time", None, is(Some(2), Some(c)), Some(3), &put),
            ("no time", None, is(Some(2), None), None, &put),
            ("a version of 0.1", None, is(None, None), Some(1), &put),
            ("another event", event(c), is(Some(2), None), Some(2), &put),
        ] {
            let mut steps = Steps::new(hints, SecondLook::Needed);
            steps.start();
            let mut last = Action::Head;
            for saw in held(holder).into_iter().chain([Saw::Tip(Some(a))]) {
                last = steps.next(saw);
            }
            if last == build {
                last = steps.next(Saw::Built(time));
            }
            assert_eq!(&last, expected, "{case}");
        }

        let due = |seen| SecondLook::Due {
            seen,
            since: Instant::now(),
        };
        let (other_tip, other_version) = (
            StepBack {
                tip: c,
                ..seen.clone()
            },
            StepBack {
                held: "c".into(),
                ..seen.clone()
            },
        );
        for (case, second_look, expected) in [
            ("the second look", due(seen), &build),
            ("at another tip", due(other_tip), &back),
            ("beside another version", due(other_version), &back),
            ("a person says so", SecondLook::Waived, &build),
        ] {
            let mut steps = Steps::new(None, second_look);
            steps.start();
            let seen = held(is(None, Some(a))).into_iter();
            let last = seen.chain([Saw::Tip(Some(a))]).map(|saw| steps.next(saw));
            assert_eq!(last.last().as_ref(), Some(expected), "{case}");
        }
    }

    #[test]
    fn what_looks_older_after_the_write_waits_for_a_second_look() {
        let (a, b) = (commit(1), commit(2));
        let seen = [
            Saw::Tip(Some(b)),
            Saw::Built(None),
            Saw::Stored("n".into()),
            Saw::Tip(Some(a)),
            still_ours(),
        ];
        let seen = held(us(a)).into_iter().chain(seen);
        let back = Verdict::StepBack {
            commit: b,
            published: true,
            seen: StepBack {
                held: "n".into(),
                tip: a,
            },
        };
        assert_eq!(run(None, seen).pop(), Some(Action::Done(back)));
    }

    #[test]
    fn the_first_version_is_not_of_what_was_there_before_the_push() {
        let (a, b) = (commit(1), commit(2));
        let hints = Some(Hints {
            commits: vec![b],
            before: Some(a),
            is_awaited: false,
        });
        let still = [Saw::Waited, Saw::Tip(Some(a))];
        let seen = absent().into_iter().chain([Saw::Tip(Some(a))]);
        let seen = seen.chain(still.clone()).chain(still);
        let actions = run(hints.clone(), seen);
        let [first, second] = SETTLE_WAITS;
        assert_eq!(
            actions[3..],
            [
                Action::Wait(first),
                Action::Tip,
                Action::Wait(second),
                Action::Tip,
                Action::Build(a)
            ]
        );
        let moved = [Saw::Tip(Some(a)), Saw::Waited, Saw::Tip(Some(b))];
        let moved = absent().into_iter().chain(moved);
        assert_eq!(run(hints, moved).pop(), Some(Action::Pause { rounds: 1 }));
    }

    #[test]
    fn settling_ends() {
        let (a, b) = (commit(1), commit(2));
        let hints = Some(Hints {
            commits: vec![b],
            before: None,
            is_awaited: false,
        });
        let still = [Saw::Waited, Saw::Tip(Some(a))];
        let seen = held(us(a)).into_iter().chain([Saw::Tip(Some(a))]);
        let seen = seen.chain(still.clone()).chain(still);
        assert_eq!(
            run(hints.clone(), seen).pop(),
            Some(Action::Done(Verdict::AlreadyCurrent(a)))
        );
        let moved = [Saw::Tip(Some(a)), Saw::Waited, Saw::Tip(Some(b))];
        let moved = held(us(a)).into_iter().chain(moved);
        assert_eq!(run(hints, moved).pop(), Some(Action::Pause { rounds: 1 }));
    }

    #[test]
    fn the_first_wait_alone_is_waited_where_others_wait_for_the_turn() {
        let (a, b) = (commit(1), commit(2));
        let hints = |commit| {
            let commits = vec![commit];
            Some(Hints {
                commits,
                ..Hints::default()
            })
        };
        let left = |hints, seen: Vec<Saw>| {
            let mut steps = Steps::new(hints, SecondLook::Needed);
            let mut actions = vec![steps.start()];
            let mut left = Vec::new();
            for saw in seen {
                actions.push(steps.next(saw));
                if matches!(actions.last(), Some(Action::Wait(_))) {
                    left.push(steps.leaves_wait());
                }
            }
            left
        };
        let still = [Saw::Tip(Some(a)), Saw::Waited, Saw::Tip(Some(a))];
        let current = held(us(a)).into_iter().chain(still);
        assert_eq!(left(hints(b), current.collect()), [false, true]);
        let stored = [
            Saw::Tip(Some(a)),
            Saw::Built(None),
            Saw::Stored("n".into()),
            Saw::Tip(Some(a)),
            still_ours(),
        ];
        let stored = absent().into_iter().chain(stored);
        assert_eq!(left(hints(b), stored.collect()), [true]);
    }

    #[test]
    fn contention_ends() {
        let mut steps = Steps::new(None, SecondLook::Needed);
        steps.start();
        for round in 1..=MAX_ROUNDS {
            for saw in absent() {
                steps.next(saw);
            }
            steps.next(Saw::Tip(Some(commit(1))));
            steps.next(Saw::Built(None));
            let action = steps.next(Saw::NotStored);
            assert_eq!(steps.rounds(), round);
            if round == MAX_ROUNDS {
                let stored = false;
                assert_eq!(action, Action::Done(Verdict::Contention { stored }));
            } else {
                assert_eq!(action, Action::Pause { rounds: round });
                steps.next(Saw::Waited);
            }
        }
    }

    #[test]
    fn contention_with_the_ref_alone_says_that_versions_were_stored() {
        let mut steps = Steps::new(None, SecondLook::Needed);
        steps.start();
        let mut tips = (1..).map(commit);
        let mut tip = tips.next().unwrap();
        let mut action = Action::Head;
        for _ in 1..=MAX_ROUNDS {
            for saw in absent() {
                steps.next(saw);
            }
            steps.next(Saw::Tip(Some(tip)));
            steps.next(Saw::Built(None));
            steps.next(Saw::Stored("d".into()));
            tip = tips.next().unwrap();
            action = steps.next(Saw::Tip(Some(tip)));
            if action != Action::Done(Verdict::Contention { stored: true }) {
                steps.next(Saw::Waited);
            }
        }
        let stored = true;
        assert_eq!(action, Action::Done(Verdict::Contention { stored }));
    }
}
