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
//! - The tip is read again after the write. A force push A→B→A can be over before the write, and the next worker saw
//!   "already current" in between. So is the table: the object may have passed to another route before the write.

use std::time::Duration;

use super::holder::{Holder, Ruling};
use crate::{bucket::Condition, push::CommitId};

/// Rounds before the delivery gives up.
pub const MAX_ROUNDS: u32 = 8;

/// How long a Git server may lag behind its own webhook: the tip is read again after each of these.
///
/// Source: a bridge in production waits 5 seconds.
pub const SETTLE_WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// What an event said of the push.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// Commits that the push brought.
    pub commits: Vec<CommitId>,
    /// The commit that the ref pointed to before the push.
    pub before: Option<CommitId>,
}

impl Hints {
    /// Whether the tip looks like a time before the event. Never more than a reason to look again.
    fn disagree_with(&self, tip: Option<CommitId>) -> bool {
        match tip {
            None => true,
            Some(tip) => {
                self.before == Some(tip)
                    || (!self.commits.is_empty() && !self.commits.contains(&tip))
            }
        }
    }
}

/// What was seen when an action was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Saw {
    /// [`Action::Head`]: the entity tag, or no object.
    Head(Option<String>),
    /// [`Action::Table`]: what the table says of what the head showed.
    Table(Ruling),
    /// [`Action::Tip`]: the commit, or no such ref.
    Tip(Option<CommitId>),
    /// [`Action::Build`]: it is built.
    Built,
    /// [`Action::Build`]: the Git server does not give the commit any more, and the ref has moved on.
    NotBuilt,
    /// [`Action::Put`]: a new version is stored.
    Stored,
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
    Contention,
}

/// One delivery in progress.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Steps {
    /// `None` if nobody pushed: a person or the sweep asked.
    hints: Option<Hints>,
    state: State,
    rounds: u32,
    /// How many of [`SETTLE_WAITS`] are over. They count for the whole delivery, not for each round.
    waits: usize,
    /// The commit that this delivery stored last.
    stored: Option<CommitId>,
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
        tip: CommitId,
    },
    Putting {
        tip: CommitId,
    },
    Verifying {
        tip: CommitId,
    },
    /// Reading the table after the write.
    Rejudging {
        tip: CommitId,
    },
    Waiting {
        verdict: Verdict,
        tip: Option<CommitId>,
    },
    AskingAgain {
        verdict: Verdict,
        tip: Option<CommitId>,
    },
}

impl Steps {
    /// A delivery before its first step.
    #[must_use]
    pub fn new(hints: Option<Hints>) -> Self {
        Self {
            hints,
            state: State::Starting,
            rounds: 0,
            waits: 0,
            stored: None,
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
        match (std::mem::replace(&mut self.state, State::Starting), saw) {
            (State::Starting, Saw::Waited) => self.start(),
            (State::Heading, Saw::Head(current)) => {
                let condition = current.map_or(Condition::Absent, Condition::Unchanged);
                self.state = State::Judging { condition };
                Action::Table
            }
            (State::Judging { .. }, Saw::Table(Ruling::Moved)) => self.moved(),
            (State::Judging { condition }, Saw::Table(ruling)) => {
                self.state = State::Asking { condition, ruling };
                Action::Tip
            }
            (State::Asking { ruling, .. }, Saw::Tip(None)) => {
                let verdict = match ruling {
                    Ruling::Go(Some(Holder::Us(_))) => Verdict::BranchGone,
                    _ => Verdict::RefNotFound,
                };
                self.settle(verdict, None)
            }
            (State::Asking { condition, ruling }, Saw::Tip(Some(tip))) => match ruling {
                Ruling::Conflict {
                    repository,
                    ref_name,
                } => Action::Done(Verdict::KeyConflict {
                    repository,
                    ref_name,
                }),
                Ruling::Go(Some(Holder::Us(commit))) if commit == tip => {
                    self.settle(self.current(tip), Some(tip))
                }
                Ruling::Go(_) => {
                    self.state = State::Building { condition, tip };
                    Action::Build(tip)
                }
                Ruling::Moved => self.moved(),
            },
            (State::Building { condition, tip }, Saw::Built) => {
                self.state = State::Putting { tip };
                Action::Put(condition)
            }
            (State::Putting { tip }, Saw::Stored) => {
                self.stored = Some(tip);
                self.state = State::Verifying { tip };
                Action::Tip
            }
            (State::Building { .. }, Saw::NotBuilt) | (State::Putting { .. }, Saw::NotStored) => {
                self.start_over()
            }
            (State::Verifying { tip }, Saw::Tip(now)) => {
                if now == Some(tip) {
                    self.state = State::Rejudging { tip };
                    Action::Table
                } else {
                    self.start_over()
                }
            }
            (State::Rejudging { tip }, Saw::Table(ruling)) => match ruling {
                Ruling::Go(_) => self.settle(self.current(tip), Some(tip)),
                // The next round names it.
                Ruling::Conflict { .. } => self.start_over(),
                Ruling::Moved => self.moved(),
            },
            (State::Waiting { verdict, tip }, Saw::Waited) => {
                self.state = State::AskingAgain { verdict, tip };
                Action::Tip
            }
            (State::AskingAgain { verdict, tip }, Saw::Tip(now)) => {
                if now == tip {
                    self.settle(verdict, tip)
                } else {
                    self.start_over()
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

    /// Takes note that the object's current version was written by this delivery, though no answer said so.
    pub fn found_own_write(&mut self, commit: CommitId) {
        self.stored = Some(commit);
    }

    /// Takes note that `tag`, which the hints may name, leads to `commit`. Events about annotated tags name the tag itself.
    pub fn peeled(&mut self, tag: CommitId, commit: CommitId) {
        let Some(hints) = self.hints.as_mut().filter(|_| tag != commit) else {
            return;
        };
        if hints.commits.contains(&tag) {
            hints.commits.push(commit);
        }
        if hints.before == Some(tag) {
            hints.before = Some(commit);
        }
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

    /// Ends with `verdict`, unless the hints know of a commit that the Git server does not show yet.
    fn settle(&mut self, verdict: Verdict, tip: Option<CommitId>) -> Action {
        let lagging = self
            .hints
            .as_ref()
            .is_some_and(|hints| hints.disagree_with(tip));
        match SETTLE_WAITS.get(self.waits) {
            Some(wait) if lagging => {
                self.waits += 1;
                self.state = State::Waiting { verdict, tip };
                Action::Wait(*wait)
            }
            _ => Action::Done(verdict),
        }
    }

    fn start_over(&mut self) -> Action {
        self.rounds += 1;
        if self.rounds >= MAX_ROUNDS {
            return Action::Done(Verdict::Contention);
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
        let mut steps = Steps::new(hints);
        let mut actions = vec![steps.start()];
        actions.extend(seen.into_iter().map(|saw| steps.next(saw)));
        actions
    }

    #[test]
    fn tip_and_table_are_read_after_the_head_and_again_after_the_write() {
        let (a, condition) = (commit(1), Condition::Absent);
        let seen = [
            Saw::Tip(Some(a)),
            Saw::Built,
            Saw::Stored,
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
        let lost = [Saw::Tip(Some(a)), Saw::Built, Saw::NotStored, Saw::Waited];
        let seen = absent().into_iter().chain(lost);
        let seen = seen.chain(held(Holder::Us(a)));
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
            Saw::Built,
            Saw::Stored,
            Saw::Tip(Some(b)),
            Saw::Waited,
        ];
        let seen = absent().into_iter().chain(first);
        let seen = seen.chain(held(Holder::Us(a)));
        assert_eq!(
            run(None, seen.chain([Saw::Tip(Some(b)), Saw::Built])).last(),
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
                go(Holder::Us(a)),
                Some(a),
                Action::Done(Verdict::AlreadyCurrent(a)),
            ),
            (
                "holds another commit",
                go(Holder::Us(b)),
                Some(a),
                Action::Build(a),
            ),
            ("foreign", go(Holder::Foreign), Some(a), Action::Build(a)),
            (
                "a route's that is no more",
                go(unrouted.clone()),
                Some(a),
                Action::Build(a),
            ),
            (
                "no branch",
                go(Holder::Us(b)),
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
            Saw::Built,
            Saw::Stored,
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
            let seen = held(Holder::Us(a)).into_iter().chain([Saw::Tip(Some(a))]);
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
    }

    #[test]
    fn settling_ends() {
        let (a, b) = (commit(1), commit(2));
        let hints = Some(Hints {
            commits: vec![b],
            before: None,
        });
        let still = [Saw::Waited, Saw::Tip(Some(a))];
        let seen = held(Holder::Us(a)).into_iter().chain([Saw::Tip(Some(a))]);
        let seen = seen.chain(still.clone()).chain(still);
        assert_eq!(
            run(hints.clone(), seen).pop(),
            Some(Action::Done(Verdict::AlreadyCurrent(a)))
        );
        let moved = [Saw::Tip(Some(a)), Saw::Waited, Saw::Tip(Some(b))];
        let moved = held(Holder::Us(a)).into_iter().chain(moved);
        assert_eq!(run(hints, moved).pop(), Some(Action::Pause { rounds: 1 }));
    }

    #[test]
    fn contention_ends() {
        let mut steps = Steps::new(None);
        steps.start();
        for round in 1..=MAX_ROUNDS {
            for saw in absent() {
                steps.next(saw);
            }
            steps.next(Saw::Tip(Some(commit(1))));
            steps.next(Saw::Built);
            let action = steps.next(Saw::NotStored);
            assert_eq!(steps.rounds(), round);
            if round == MAX_ROUNDS {
                assert_eq!(action, Action::Done(Verdict::Contention));
            } else {
                assert_eq!(action, Action::Pause { rounds: round });
                steps.next(Saw::Waited);
            }
        }
    }
}
