//! The product's own step function, as a table: each step of it is taken once and then looked up.
//!
//! This is what makes millions of states cheap. Nothing of the algorithm is in here: every entry of the table is a call of
//! [`Steps::next`].

use std::{collections::HashMap, time::Instant};

use backlog_bridge::{
    bucket::Condition,
    deliver::{
        holder::{Held, Holder, Ruling},
        step::{Action, Hints, SETTLE_WAITS, Saw, SecondLook, Steps, Verdict},
    },
    push::CommitId,
    queue::StepBack,
};

/// A commit, numbered from 1 as in `A`, `B`, …; or [`GONE`].
pub(crate) type Commit = u8;

/// No commit: there is no such ref.
pub(crate) const GONE: Commit = 0;

/// A [`Saw`] that is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    Head(Option<Shown>),
    Tip(Commit),
    /// The tip; and since the first look, somebody else of the process saw another one.
    TipAfterOther(Commit),
    /// It is built, and the commit was made at this time.
    Built(i64),
    NotBuilt,
    /// It is stored, as the version of this entity tag.
    Stored(u8),
    NotStored,
    Waited,
}

/// A version as its head shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shown {
    pub(crate) etag: u8,
    /// `GONE` if we did not write it.
    pub(crate) commit: Commit,
    /// When the commit was made; the metadata of version 0.1 do not say so.
    pub(crate) time: Option<i64>,
    /// The commit of the version before; `GONE` if the metadata do not say so.
    pub(crate) previous: Commit,
}

/// An [`Action`] that is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Head,
    Tip,
    /// The tip, after a write.
    Verify,
    Build(Commit),
    /// The entity tag that must still be there; `None` if there must be no object.
    Put(Option<u8>),
    Pause,
    Wait {
        last: bool,
    },
    Done(End),
}

/// A [`Verdict`] that is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Holds(Commit),
    /// The version of this entity tag holds a commit, and an older one was seen.
    StepBack(u8, Commit, Commit),
    BranchGone,
    RefNotFound,
    Contention,
}

/// A delivery at one of its steps: a row of the table.
pub(crate) type Node = u16;

/// The table as far as it is known.
#[derive(Default)]
pub(crate) struct Machine {
    rows: Vec<(Steps, Ask)>,
    numbers: HashMap<(Steps, Action), Node>,
    known: HashMap<(Node, Seen), Node>,
    /// Any moment: what is seen between two looks is the search's.
    since: Option<Instant>,
}

/// What a look at the tip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    First,
    /// A second one at a tip, beside the version of this entity tag.
    Second {
        held: u8,
        tip: Commit,
    },
    Waived,
}

impl Machine {
    /// A delivery that was asked for its first action.
    pub(crate) fn start(&mut self, hints: Option<Hints>, look: Look) -> Node {
        let mut steps = Steps::new(hints, self.second_look(look));
        let action = steps.start();
        self.number(steps, action)
    }

    pub(crate) fn ask(&self, node: Node) -> Ask {
        self.rows[usize::from(node)].1
    }

    pub(crate) fn next(&mut self, node: Node, seen: Seen) -> Node {
        if let Some(&next) = self.known.get(&(node, seen)) {
            return next;
        }
        let mut steps = self.rows[usize::from(node)].0.clone();
        if let Seen::TipAfterOther(_) = seen {
            steps.take_back();
        }
        let mut action = steps.next(saw(seen));
        // The table of these searches never changes, so that looking at it is no step that anybody could notice.
        if action == Action::Table {
            action = steps.next(Saw::Table(Ruling::Go(holder(seen))));
        }
        let next = self.number(steps, action);
        self.known.insert((node, seen), next);
        next
    }

    /// Says whether a look may be a second one.
    fn second_look(&mut self, look: Look) -> SecondLook {
        match look {
            Look::First => SecondLook::Needed,
            Look::Second { held, tip } => SecondLook::Due {
                seen: StepBack {
                    held: held.to_string(),
                    tip: id(tip),
                },
                since: *self.since.get_or_insert_with(Instant::now),
            },
            Look::Waived => SecondLook::Waived,
        }
    }

    fn number(&mut self, steps: Steps, action: Action) -> Node {
        let ask = ask(&steps, &action);
        let next = Node::try_from(self.rows.len()).expect("small enough a scenario");
        let rows = &mut self.rows;
        *self
            .numbers
            .entry((steps.clone(), action))
            .or_insert_with(|| {
                rows.push((steps, ask));
                next
            })
    }
}

/// The id of a commit.
pub(crate) fn id(commit: Commit) -> CommitId {
    let id = format!("{commit:02x}").repeat(20);
    id.parse().expect("40 digits")
}

fn number(id: CommitId) -> Commit {
    id.object_id().as_slice()[0]
}

/// Whose the object is that a head showed.
fn holder(seen: Seen) -> Option<Holder> {
    match seen {
        Seen::Head(Some(Shown { commit: GONE, .. })) => Some(Holder::Foreign),
        Seen::Head(Some(shown)) => Some(Holder::Us(Held {
            commit: id(shown.commit),
            time: shown.time,
            previous: (shown.previous != GONE).then(|| id(shown.previous)),
            delivery_id: shown.etag.to_string(),
        })),
        _ => None,
    }
}

fn saw(seen: Seen) -> Saw {
    match seen {
        Seen::Head(current) => Saw::Head(current.map(|shown| shown.etag.to_string())),
        Seen::Tip(commit) | Seen::TipAfterOther(commit) => {
            Saw::Tip((commit != GONE).then(|| id(commit)))
        }
        Seen::Built(time) => Saw::Built(Some(time)),
        Seen::NotBuilt => Saw::NotBuilt,
        Seen::Stored(etag) => Saw::Stored(etag.to_string()),
        Seen::NotStored => Saw::NotStored,
        Seen::Waited => Saw::Waited,
    }
}

fn ask(steps: &Steps, action: &Action) -> Ask {
    match action {
        Action::Head => Ask::Head,
        Action::Table => unreachable!("it is answered at once"),
        Action::Tip if steps.is_verifying() => Ask::Verify,
        Action::Tip => Ask::Tip,
        Action::Build(commit) => Ask::Build(number(*commit)),
        Action::Put(Condition::Absent) => Ask::Put(None),
        Action::Put(Condition::Unchanged(etag)) => {
            Ask::Put(Some(etag.parse().expect("a tag of this model")))
        }
        Action::Pause { .. } => Ask::Pause,
        Action::Wait(time) => Ask::Wait {
            last: Some(time) == SETTLE_WAITS.last(),
        },
        Action::Done(verdict) => Ask::Done(match verdict {
            Verdict::Published(commit) | Verdict::AlreadyCurrent(commit) => {
                End::Holds(number(*commit))
            }
            Verdict::StepBack { commit, seen, .. } => {
                let held = seen.held.parse().expect("a tag of this model");
                End::StepBack(held, number(*commit), number(seen.tip))
            }
            Verdict::BranchGone => End::BranchGone,
            Verdict::RefNotFound => End::RefNotFound,
            Verdict::Contention { .. } => End::Contention,
            Verdict::KeyConflict { .. } | Verdict::Moved { .. } => {
                unreachable!("one route is all there is")
            }
        }),
    }
}
