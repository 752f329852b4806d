//! The bases on the way of a walk through deltas, and how many of them may wait in memory.

/// How much memory a family may take beside its largest base and its largest result, in bytes a thread.
const WAITING_BYTES: usize = 8 << 20;

/// The way of the walk, from the root of a family to where it is.
#[derive(Default)]
pub(super) struct Way {
    pub(super) ancestors: Vec<Ancestor>,
    /// The bytes that they hold together, and the first one that may hold any.
    held: usize,
    first: usize,
    /// The size of the largest object of the family so far.
    largest: usize,
}

pub(super) struct Ancestor {
    /// Where it is among what this thread has made; `None` for the root.
    pub(super) made: Option<usize>,
    /// `None` if it was dropped to save memory, or since no delta needs it again.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) waiting: Vec<usize>,
}

impl Way {
    pub(super) fn push(
        &mut self,
        made: Option<usize>,
        bytes: Option<Vec<u8>>,
        waiting: Vec<usize>,
    ) {
        self.held += bytes.as_ref().map_or(0, Vec::len);
        self.ancestors.push(Ancestor {
            made,
            bytes,
            waiting,
        });
    }

    /// Goes back by one.
    pub(super) fn pop(&mut self) {
        let last = self.ancestors.pop().expect("one to go back from");
        self.held -= last.bytes.map_or(0, |bytes| bytes.len());
        self.first = self.first.min(self.ancestors.len());
    }

    pub(super) fn last(&mut self) -> &mut Ancestor {
        self.ancestors.last_mut().expect("the walk is somewhere")
    }

    /// Makes room for a result of `size` bytes beside the last base.
    pub(super) fn make_room(&mut self, size: usize) {
        self.largest = self.largest.max(size);
        let last = self.ancestors.len() - 1;
        while self.first < last && self.held + size > WAITING_BYTES + 2 * self.largest {
            let dropped = self.ancestors[self.first].bytes.take();
            self.held -= dropped.map_or(0, |bytes| bytes.len());
            self.first += 1;
        }
    }

    /// Gives the last base its bytes back.
    pub(super) fn restore(&mut self, bytes: Vec<u8>) {
        self.held += bytes.len();
        self.largest = self.largest.max(bytes.len());
        self.first = self.first.min(self.ancestors.len() - 1);
        self.last().bytes = Some(bytes);
    }

    /// Drops the last base, which no delta needs any more.
    pub(super) fn drop_last(&mut self) {
        let dropped = self.last().bytes.take();
        self.held -= dropped.map_or(0, |bytes| bytes.len());
    }
}
