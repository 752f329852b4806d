//! What may happen in a search, and what is broken on purpose.

use crate::machine::{Commit, GONE};

/// The most workers that a search has.
pub(crate) const WORKERS: usize = 3;

/// How far the Git server may be behind its own webhooks. A read sees the newest tip, or any other one that is still shown,
/// now an older and now a newer one, as behind a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lag {
    None,
    /// It shows a push at the latest when the delivery that the push's event began has waited for the last time.
    Bounded,
    Endless,
}

/// When the write of a worker that died, or did not wait for the answer, may take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    Never,
    /// Before the message is handed out again: the visibility timeout is longer than any write takes.
    BeforeItComesAgain,
    Whenever,
}

/// How often each fault may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A worker dies, at any step; its message comes again.
    pub(crate) crashes: u8,
    /// The answer to a write gets lost.
    pub(crate) unknown: u8,
    /// An event comes once more, whenever.
    pub(crate) doubled: u8,
    /// An event never comes.
    pub(crate) lost: u8,
    /// A message comes again though its worker lives: it was stopped for a while.
    pub(crate) expiries: u8,
    /// The sweep makes a job, whenever.
    pub(crate) sweeps: u8,
    /// The Git server does not give a commit any more that was pushed away.
    pub(crate) not_built: u8,
    /// A read of the tip sees one from before the newest push.
    pub(crate) stale: u8,
}

/// What is left out or turned round, around the product's step function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    TipBeforeHead,
    NoVerify,
    LoserGivesUp,
    UnconditionalPut,
    NoSkip,
    AcknowledgeBeforePut,
    TagOfCommit,
    NoReadAgain,
    IdleSweep,
    /// Every look is believed.
    EveryLook,
    /// The second look comes at once.
    OneLook,
    /// That the event names the tip counts as the first look.
    EventBelieved,
    /// A look after the write that shows an older commit begins a round that believes it.
    StartOver,
    /// What another worker of the process saw between two looks does not count.
    BetweenForgotten,
}

/// One search.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
pub(crate) struct Rules {
    /// Where the ref points before the first push, and after each one.
    pub(crate) timeline: &'static [Commit],
    pub(crate) workers: usize,
    /// One worker at a time, in order; otherwise any message to any worker.
    pub(crate) fifo: bool,
    pub(crate) lag: Lag,
    pub(crate) late: Late,
    pub(crate) faults: Faults,
    /// Whether events name the commits before and after the push.
    pub(crate) hints: bool,
    /// Whether events may arrive in another order than their pushes happened, though the queue keeps its order.
    pub(crate) any_order: bool,
    /// Whether the newest version may be old until the next sweep. If not, handling the events must be enough.
    pub(crate) sweep_heals: bool,
    /// When each commit was made, in any unit.
    pub(crate) times: [i64; 5],
    /// Whether the first version is one of version 0.1, which says nothing of times and of the version before.
    pub(crate) is_bare: bool,
    /// Whether the workers are of one process, and know each other's looks.
    pub(crate) one_process: bool,
    pub(crate) mutant: Option<Mutant>,
}

impl Rules {
    /// Without any fault. The object holds what the ref points to at first.
    pub(crate) const fn new(timeline: &'static [Commit]) -> Self {
        Self {
            timeline,
            workers: 2,
            fifo: false,
            lag: Lag::None,
            late: Late::Never,
            faults: Faults {
                crashes: 0,
                unknown: 0,
                doubled: 0,
                lost: 0,
                expiries: 0,
                sweeps: 0,
                not_built: 0,
                stale: 0,
            },
            hints: true,
            any_order: false,
            sweep_heals: false,
            times: [0, 1, 2, 3, 4],
            is_bare: false,
            one_process: false,
            mutant: None,
        }
    }

    pub(crate) fn pushes(&self) -> u8 {
        u8::try_from(self.timeline.len() - 1).expect("a few pushes")
    }

    pub(crate) fn time(&self, commit: Commit) -> i64 {
        self.times[usize::from(commit)]
    }

    pub(crate) fn tip(&self, position: u8) -> Commit {
        self.timeline[usize::from(position)]
    }

    /// A deletion makes no job: the webhook is answered and ignored.
    pub(crate) fn has_event(&self, push: u8) -> bool {
        self.tip(push) != GONE
    }
}
