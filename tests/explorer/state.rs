//! The world at one moment: small, and in one form for all that differs in nothing that matters.

use crate::{
    machine::{Commit, Node},
    rules::{Faults, WORKERS},
    story::{Message, after_look},
};

pub(crate) const QUEUE: usize = 8;
pub(crate) const IN_THE_AIR: usize = 2;
pub(crate) const RECHECKS: usize = 4;

/// The newest version of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    pub(crate) commit: Commit,
    pub(crate) etag: u8,
    /// When its tip was read.
    pub(crate) observed: u8,
    /// The commit of the version before.
    pub(crate) previous: Commit,
    /// Whether its metadata say nothing of times and of the version before.
    pub(crate) is_bare: bool,
}

/// A step back that waits for its second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Recheck {
    /// The version that was held, and the tip that was seen.
    pub(crate) held: u8,
    pub(crate) tip: Commit,
    /// How many pushes there had been.
    pub(crate) pushed: u8,
    /// Whether another tip was seen since.
    pub(crate) broken: bool,
}

/// A delivery in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) node: Node,
    pub(crate) message: Message,
    /// The commit whose archive is ready.
    pub(crate) built: Commit,
    /// When its tip was read.
    pub(crate) observed: u8,
    /// The tips that it read, and the commits that the object held meanwhile, one bit each.
    pub(crate) read: u8,
    pub(crate) held: u8,
    /// The message was handed out again: this worker's acknowledgement counts for nothing.
    pub(crate) expired: bool,
    /// What a mutant remembers: a tip, plus one.
    pub(crate) aside: u8,
}

/// A write whose worker is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Write {
    pub(crate) condition: Option<u8>,
    pub(crate) commit: Commit,
    pub(crate) observed: u8,
    /// The second look that led to it, if one did.
    pub(crate) message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) pushed: u8,
    /// The oldest tip that the Git server still shows.
    pub(crate) shown: u8,
    pub(crate) newest: Option<Version>,
    pub(crate) versions: u8,
    /// Events on their way, one bit each.
    pub(crate) coming: u8,
    pub(crate) queue: [Message; QUEUE],
    pub(crate) workers: [Option<Worker>; WORKERS],
    pub(crate) air: [Option<Write>; IN_THE_AIR],
    pub(crate) rechecks: [Option<Recheck>; RECHECKS],
    pub(crate) left: Faults,
}

impl State {
    pub(crate) fn enqueue(&mut self, message: Message, in_front: bool) {
        let end = self.queue.iter().position(|&message| message == 0);
        let end = end.expect("room for the messages of a search");
        if in_front {
            self.queue.copy_within(0..end, 1);
            self.queue[0] = message;
        } else {
            self.queue[end] = message;
        }
    }

    /// Parks a step back, unless the same one is parked already.
    pub(crate) fn park(&mut self, recheck: Recheck) {
        if self.rechecks.contains(&Some(recheck)) {
            return;
        }
        let free = self.rechecks.iter_mut().find(|place| place.is_none());
        *free.expect("room for the rechecks of a search") = Some(recheck);
    }

    /// Takes note in one process that a look showed this.
    pub(crate) fn looked(&mut self, tip: Commit) {
        for recheck in self.rechecks.iter_mut().flatten() {
            recheck.broken |= recheck.tip != tip;
        }
        let working = self.workers.iter_mut().flatten();
        let messages = working.map(|worker| &mut worker.message);
        for message in self.queue.iter_mut().chain(messages) {
            *message = after_look(*message, tip);
        }
    }

    /// Whether there was room for one more.
    pub(crate) fn send(&mut self, write: Write) -> bool {
        let free = self.air.iter_mut().find(|write| write.is_none());
        free.map(|free| *free = Some(write)).is_some()
    }

    pub(crate) fn last_observation(&self) -> u8 {
        self.observations().max().unwrap_or_default()
    }

    fn observations(&self) -> impl Iterator<Item = u8> {
        let workers = self.workers.iter().flatten().map(|worker| worker.observed);
        let air = self.air.iter().flatten().map(|write| write.observed);
        let newest = self.newest.map(|newest| newest.observed);
        workers.chain(air).chain(newest)
    }

    /// Brings states that differ in nothing that matters to one form.
    pub(crate) fn tidy(&mut self, fifo: bool) {
        let held = self.newest.map_or(0, |newest| 1 << newest.commit);
        for worker in self.workers.iter_mut().flatten() {
            worker.held |= held;
        }
        let gone = |queue: &mut [Message; QUEUE]| {
            let mut kept = [0; QUEUE];
            let messages = queue.iter().filter(|&&message| message != 0);
            for (place, message) in kept.iter_mut().zip(messages) {
                *place = *message;
            }
            *queue = kept;
        };
        if !fifo {
            self.queue.sort_unstable();
        }
        gone(&mut self.queue);
        // Only the order of observations matters, not their times.
        let mut times = [0; 1 + WORKERS + IN_THE_AIR];
        let mut count = 0;
        for time in self.observations() {
            if time > 0 && !times[..count].contains(&time) {
                times[count] = time;
                count += 1;
            }
        }
        times[..count].sort_unstable();
        let rank = |time: &mut u8| {
            let place = times[..count].iter().position(|known| known == time);
            *time = place.map_or(0, |place| u8::try_from(place).expect("few") + 1);
        };
        self.workers
            .iter_mut()
            .flatten()
            .for_each(|worker| rank(&mut worker.observed));
        self.air
            .iter_mut()
            .flatten()
            .for_each(|write| rank(&mut write.observed));
        if let Some(newest) = &mut self.newest {
            rank(&mut newest.observed);
        }
        self.workers.sort_unstable();
        self.air.sort_unstable();
        self.rechecks.sort_unstable();
    }
}
