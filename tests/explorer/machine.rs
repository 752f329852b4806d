//! The product's own step function, as a table: each step of it is taken once and then looked up.
//!
//! This is what makes millions of states cheap. Nothing of the algorithm is in here: every entry of the table is a call of
//! [`Steps::next`].

use std::collections::HashMap;

use backlog_bridge::{
    bucket::Condition,
    deliver::{
        holder::{Holder, Ruling},
        step::{Action, Hints, SETTLE_WAITS, Saw, Steps, Verdict},
    },
    push::CommitId,
};

/// A commit, numbered from 1 as in `A`, `B`, …; or [`GONE`].
pub(crate) type Commit = u8;

/// No commit: there is no such ref.
pub(crate) const GONE: Commit = 0;

/// A [`Saw`] that is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    /// Entity tag and commit; `GONE` if we did not write it.
    Head(Option<(u8, Commit)>),
    Tip(Commit),
    Built,
    NotBuilt,
    Stored,
    NotStored,
    Waited,
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
}

impl Machine {
    /// A delivery that was asked for its first action.
    pub(crate) fn start(&mut self, hints: Option<Hints>) -> Node {
        let mut steps = Steps::new(hints);
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
        let mut action = steps.next(saw(seen));
        // The table of these searches never changes, so that looking at it is no step that anybody could notice.
        if action == Action::Table {
            action = steps.next(Saw::Table(Ruling::Go(holder(seen))));
        }
        let next = self.number(steps, action);
        self.known.insert((node, seen), next);
        next
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
        Seen::Head(Some((_, GONE))) => Some(Holder::Foreign),
        Seen::Head(Some((_, commit))) => Some(Holder::Us(id(commit))),
        _ => None,
    }
}

fn saw(seen: Seen) -> Saw {
    match seen {
        Seen::Head(current) => Saw::Head(current.map(|(etag, _)| etag.to_string())),
        Seen::Tip(GONE) => Saw::Tip(None),
        Seen::Tip(commit) => Saw::Tip(Some(id(commit))),
        Seen::Built => Saw::Built,
        Seen::NotBuilt => Saw::NotBuilt,
        Seen::Stored => Saw::Stored,
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
            Verdict::BranchGone => End::BranchGone,
            Verdict::RefNotFound => End::RefNotFound,
            Verdict::Contention => End::Contention,
            Verdict::KeyConflict { .. } | Verdict::Moved { .. } => {
                unreachable!("one route is all there is")
            }
        }),
    }
}
