//! What an event said of a push. Never more than a reason to look.

use crate::push::CommitId;

/// What an event said of the push.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// Commits that the push brought.
    pub commits: Vec<CommitId>,
    /// The commit that the ref pointed to before the push.
    pub before: Option<CommitId>,
    /// Whether somebody looks later for a ref that is not there and has no object, so that nobody waits for it here.
    pub is_awaited: bool,
}

impl Hints {
    /// Whether the tip looks like a time before the event. Never more than a reason to look again.
    pub(super) fn disagree_with(&self, tip: Option<CommitId>) -> bool {
        match tip {
            None => true,
            Some(tip) => {
                self.before == Some(tip)
                    || (!self.commits.is_empty() && !self.commits.contains(&tip))
            }
        }
    }

    /// Takes note that `tag` leads to `commit`. Events about annotated tags name the tag itself.
    pub(super) fn peeled(&mut self, tag: CommitId, commit: CommitId) {
        if tag == commit {
            return;
        }
        if self.commits.contains(&tag) {
            self.commits.push(commit);
        }
        if self.before == Some(tag) {
            self.before = Some(commit);
        }
    }
}
