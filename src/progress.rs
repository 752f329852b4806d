//! What is shared between blocking work and those who wait for it: how far it is, and whether it should stop.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use tokio::sync::watch;

/// A part of the work, those of a delivery in the order in which they come. Its name is what people see and what metrics use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Reading what the object holds now.
    Head,
    /// Asking the Git server where the ref points.
    Tip,
    /// Receiving the pack, and checking its objects as they come.
    Fetch,
    /// Walking the tree, writing the zip and reading it again.
    Archive,
    /// Storing the zip as a new object version.
    Put,
    /// Asking the Git server again, since the ref may have moved meanwhile.
    Verify,
    /// Giving a Git server time that seems to lag behind its own webhook.
    Settle,
    /// Reading the webhook's token.
    Token,
    /// Reading the routing table.
    Routes,
    /// Asking the queue for something.
    Queue,
    /// Comparing objects with their refs.
    Sweep,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::Head,
        Self::Tip,
        Self::Fetch,
        Self::Archive,
        Self::Put,
        Self::Verify,
        Self::Settle,
        Self::Token,
        Self::Routes,
        Self::Queue,
        Self::Sweep,
    ];

    /// The stage's name, such as `fetch`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Tip => "tip",
            Self::Fetch => "fetch",
            Self::Archive => "archive",
            Self::Put => "put",
            Self::Verify => "verify",
            Self::Settle => "settle",
            Self::Token => "token",
            Self::Routes => "routes",
            Self::Queue => "queue",
            Self::Sweep => "sweep",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a delivery is. Written by the work, read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    bytes: AtomicU64,
    objects: AtomicU64,
    all_bytes: AtomicU64,
    all_objects: AtomicU64,
    wire: AtomicU64,
    received: AtomicBool,
    stopped: AtomicBool,
    slow: AtomicBool,
    deadline: Option<Instant>,
    is_impatient: bool,
    hurried: watch::Sender<bool>,
}

impl Progress {
    /// A delivery that must be over by then.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::default()
        }
    }

    /// The same delivery, for whose turn others wait: a Git server that takes long is left to one for whose turn nobody does.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self {
            is_impatient: true,
            ..self
        }
    }

    /// Whether a Git server may take long.
    #[must_use]
    pub fn is_patient(&self) -> bool {
        !self.is_impatient
    }

    /// When the delivery must be over, if ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Has the delivery wait no longer for a Git server that seems to lag: others wait for what it holds.
    pub fn hurry(&self) {
        self.hurried.send_replace(true);
    }

    /// Waits until it is to wait no longer.
    pub(crate) async fn hurried(&self) {
        // The sender is here, so it does not end.
        let mut hurried = self.hurried.subscribe();
        hurried.wait_for(|hurried| *hurried).await.ok();
    }

    /// The stage that runs now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Relaxed))]
    }

    /// Bytes and objects that the stage has handled.
    #[must_use]
    pub fn done(&self) -> (u64, u64) {
        (self.bytes.load(Relaxed), self.objects.load(Relaxed))
    }

    /// Bytes and objects that the stage will have handled at its end; 0 where nobody knows.
    #[must_use]
    pub fn expected(&self) -> (u64, u64) {
        (self.all_bytes.load(Relaxed), self.all_objects.load(Relaxed))
    }

    /// Takes note of how much the stage has to do.
    pub fn expect(&self, bytes: u64, objects: u64) {
        self.all_bytes.store(bytes, Relaxed);
        self.all_objects.store(objects, Relaxed);
    }

    /// Begins `stage`: the counts start at zero again.
    pub fn begin(&self, stage: Stage) {
        self.bytes.store(0, Relaxed);
        self.objects.store(0, Relaxed);
        self.expect(0, 0);
        self.wire.store(0, Relaxed);
        self.received.store(false, Relaxed);
        self.stage.store(stage as u8, Relaxed);
    }

    /// Counts `bytes` more bytes.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes note that all bytes have come.
    pub fn received(&self) {
        self.received.store(true, Relaxed);
    }

    /// Counts `bytes` more bytes that came over the network, whether they are of use or not.
    pub(crate) fn add_wire(&self, bytes: u64) {
        self.wire.fetch_add(bytes, Relaxed);
    }

    /// While a pack is expected: the bytes of it that have come, and those that have come over the network at all.
    pub(crate) fn receiving(&self) -> Option<(u64, u64)> {
        let is_receiving = self.stage() == Stage::Fetch && !self.received.load(Relaxed);
        let [pack, wire] = [&self.bytes, &self.wire].map(|count| count.load(Relaxed));
        // A repository on this machine has no network.
        is_receiving.then_some((pack, wire.max(pack)))
    }

    /// Counts one more object.
    pub fn add_object(&self) {
        self.objects.fetch_add(1, Relaxed);
    }

    /// Takes note that a pack takes long.
    pub(crate) fn be_slow(&self) {
        self.slow.store(true, Relaxed);
    }

    /// Whether one took long.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Relaxed)
    }

    /// Asks the work to end soon, with an error.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether the work was asked to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}
