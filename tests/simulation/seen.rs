//! What was seen of a world.

use std::time::Duration;

/// Why a push took as long as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing went wrong.
    Plain,
    /// A delivery of its branch failed while it waited, and came again.
    Failed,
    /// A function was killed that had a message of its branch while it waited.
    Killed,
    /// More than one was.
    KilledAgain,
    /// It moved its branch back, which needs a second look.
    Back,
    /// The API refused its webhook.
    Refused,
}

/// What is counted each second: functions at work; messages that wait; those that somebody has, or that rest.
pub(crate) const BUSY: usize = 0;
pub(crate) const WAITING: usize = 1;
pub(crate) const IN_FLIGHT: usize = 2;

/// Everything that is looked at afterwards.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How long each push took, from the push to the version that holds it or a later one.
    pub(crate) took: Vec<(Why, Duration)>,
    /// Pushes that never came to be held.
    pub(crate) lost: usize,
    /// Branches whose object does not hold the tip in the end.
    pub(crate) behind: usize,
    /// Jobs that were given up.
    pub(crate) dead: usize,
    pub(crate) refused: usize,
    pub(crate) killed: usize,
    pub(crate) failed: usize,
    pub(crate) invocations: usize,
    pub(crate) versions: usize,
    /// Versions that a job of the sweep made.
    pub(crate) swept: usize,
    /// Each second, by [`BUSY`] and so on.
    pub(crate) seconds: Vec<[usize; 3]>,
    /// When the last message was handled.
    pub(crate) over: Duration,
    /// How long each delivery took that made a version at once.
    pub(crate) deliveries: Vec<Duration>,
}

impl Seen {
    /// So many of a hundred pushes took no longer, of those for which there is one of these reasons.
    pub(crate) fn percentile(&self, percent: usize, whys: &[Why]) -> Duration {
        let took = self.took.iter().filter(|(why, _)| whys.contains(why));
        percentile(took.map(|(_, took)| *took).collect(), percent)
    }

    pub(crate) fn count(&self, why: Why) -> usize {
        self.took.iter().filter(|(other, _)| *other == why).count()
    }

    /// The most there was of one figure in any second.
    pub(crate) fn most(&self, figure: usize) -> usize {
        self.seconds
            .iter()
            .map(|second| second[figure])
            .max()
            .unwrap_or_default()
    }
}

/// So many of a hundred are no longer.
pub(crate) fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    let nth = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(nth).copied().unwrap_or_default()
}
