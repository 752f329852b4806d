//! Small models of the Git server and of S3: branches whose tips move, and objects whose writes are conditional.

use std::time::Duration;

use backlog_bridge::{
    bucket::Condition,
    deliver::holder::{Held, Holder},
    push::CommitId,
};

/// The clock of those who commit, when everything begins, in seconds of Unix time.
const EPOCH: i64 = 1_767_225_600;

/// Where a branch points from one push to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tip {
    pub(crate) commit: CommitId,
    /// When that was made, in seconds of Unix time.
    pub(crate) time: i64,
}

#[derive(Debug)]
struct Version {
    commit: CommitId,
    time: i64,
    previous: Option<CommitId>,
    /// Its entity tag and its delivery id.
    name: String,
    /// Which push was the last one when its tip was read.
    observed: usize,
}

/// A branch and its object.
#[derive(Debug)]
pub(crate) struct Branch {
    /// Of the first commit, and of each push.
    pub(crate) tips: Vec<Tip>,
    versions: Vec<Version>,
    /// Up to which push the object has held a commit of the branch.
    held: usize,
}

/// A write in progress.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) condition: &'a Condition,
    /// Which push is written, and which was the last one when the tip was read.
    pub(crate) nth: usize,
    pub(crate) name: String,
}

impl Branch {
    /// A branch whose object holds its first commit.
    pub(crate) fn new(first: CommitId) -> Self {
        let tip = Tip {
            commit: first,
            time: EPOCH - 1,
        };
        Self {
            tips: vec![tip],
            versions: vec![Version {
                commit: tip.commit,
                time: tip.time,
                previous: None,
                name: "first".into(),
                observed: 0,
            }],
            held: 0,
        }
    }

    /// The push that was made last, and where the branch points since.
    pub(crate) fn last(&self) -> (usize, Tip) {
        let nth = self.tips.len() - 1;
        (nth, self.tips[nth])
    }

    /// A new commit.
    pub(crate) fn push(&mut self, commit: CommitId, now: Duration) {
        let time = EPOCH + i64::try_from(now.as_secs()).unwrap();
        self.tips.push(Tip { commit, time });
    }

    /// A force push to where the branch was before; not, if it was nowhere before.
    pub(crate) fn push_back(&mut self) -> bool {
        let [.., before, now] = self.tips[..] else {
            return false;
        };
        let is_back = before.time < now.time;
        if is_back {
            self.tips.push(before);
        }
        is_back
    }

    /// What the newest version holds, as its head says it, and its entity tag.
    pub(crate) fn head(&self) -> (String, Holder) {
        let newest = self.versions.last().unwrap();
        let held = Held {
            commit: newest.commit,
            time: Some(newest.time),
            previous: newest.previous,
            delivery_id: newest.name.clone(),
        };
        (newest.name.clone(), Holder::Us(held))
    }

    /// Stores a version if the condition holds.
    ///
    /// # Panics
    ///
    /// If that breaks I2 or I3.
    pub(crate) fn put(&mut self, write: Write<'_>) -> bool {
        let newest = self.versions.last().unwrap();
        if *write.condition != Condition::Unchanged(newest.name.clone()) {
            return false;
        }
        let Tip { commit, time } = self.tips[write.nth];
        assert_ne!(newest.commit, commit, "I2: stored right after itself");
        assert!(newest.observed <= write.nth, "I3: read before the newest");
        self.versions.push(Version {
            commit,
            time,
            previous: Some(newest.commit),
            name: write.name,
            observed: write.nth,
        });
        true
    }

    /// The pushes that the object has come to hold since this was asked last, each itself or a later one.
    pub(crate) fn newly_held(&mut self) -> std::ops::RangeInclusive<usize> {
        let newest = self.versions.last().unwrap().commit;
        let mut tips = self.tips.iter();
        let nth = tips.rposition(|tip| tip.commit == newest).unwrap();
        let first = self.held + 1;
        self.held = self.held.max(nth);
        first..=self.held
    }

    /// I1: whether the newest version is the tip.
    pub(crate) fn is_level(&self) -> bool {
        self.versions.last().unwrap().commit == self.last().1.commit
    }

    /// How many versions there are besides the first.
    pub(crate) fn versions(&self) -> usize {
        self.versions.len() - 1
    }
}
