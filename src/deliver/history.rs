//! What an object held before, and whether a look at an older tip is the second one.

use std::time::{Duration, Instant};

use super::holder::Held;
use crate::{push::CommitId, queue::StepBack};

/// How long after the first look a second one confirms a step back.
///
/// It is longer than the machines of a Git server should ever differ. Nulab does not say how long that is; other bridges wait
/// 5 to 30 seconds for a server that lags.
pub const SECOND_LOOK: Duration = Duration::from_mins(1);

/// Whether a step back is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum SecondLook {
    /// Not before a second look.
    #[default]
    Needed,
    /// This is the one for what was first seen so long ago.
    Due {
        /// What was seen.
        seen: StepBack,
        /// Since when nothing else may have been seen.
        since: Instant,
    },
    /// Any: a person says so.
    Waived,
}

/// What one delivery knows of what its object held, and of the look before its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct History {
    second_look: SecondLook,
    /// Commits of the ref that the object held, as far as this delivery has seen.
    commits: Vec<CommitId>,
}

impl History {
    pub(super) fn new(second_look: SecondLook) -> Self {
        Self {
            second_look,
            commits: Vec::new(),
        }
    }

    /// Takes note of what the object holds or held.
    pub(super) fn held(&mut self, commits: impl IntoIterator<Item = CommitId>) {
        for commit in commits {
            if !self.has(commit) {
                self.commits.push(commit);
            }
        }
    }

    pub(super) fn has(&self, commit: CommitId) -> bool {
        self.commits.contains(&commit)
    }

    pub(super) fn first_look(&self) -> Option<(CommitId, Instant)> {
        match &self.second_look {
            SecondLook::Due { seen, since } => Some((seen.tip, *since)),
            SecondLook::Needed | SecondLook::Waived => None,
        }
    }

    pub(super) fn take_back(&mut self) {
        self.second_look = SecondLook::Needed;
    }

    /// Takes note of a look: one that shows something else is between the first look and the second.
    pub(super) fn looked(&mut self, tip: Option<CommitId>) {
        if matches!(&self.second_look, SecondLook::Due { seen, .. } if Some(seen.tip) != tip) {
            self.take_back();
        }
    }

    /// Whether this look at `tip` is the second one.
    pub(super) fn passed(&self, held: &Held, tip: CommitId) -> bool {
        match &self.second_look {
            SecondLook::Needed => false,
            SecondLook::Due { seen, .. } => seen.held == held.delivery_id && seen.tip == tip,
            SecondLook::Waived => true,
        }
    }
}
