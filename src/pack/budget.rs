//! What the objects of a pack may take, counted before it is taken.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits::{Exceeded, Limits, within};

/// Memory for commits, trees and tags, which are kept: this many bytes, and this many more for each entry allowed.
const PLAIN_BYTES: u64 = 8 << 20;
const PLAIN_BYTES_PER_ENTRY: u64 = 256;

/// What all objects of a pack may take together, counted before memory or time is spent on them.
pub(super) struct Budget<'a> {
    pub(super) limits: &'a Limits,
    inflated: AtomicU64,
    plain: AtomicU64,
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            inflated: AtomicU64::new(0),
            plain: AtomicU64::new(0),
        }
    }

    /// Bytes of commits, trees and tags that may be kept in memory.
    fn most_plain(&self) -> u64 {
        PLAIN_BYTES + PLAIN_BYTES_PER_ENTRY * u64::from(self.limits.entries)
    }

    /// Allows for an object of `size` bytes, of whatever kind.
    pub(super) fn inflate(&self, size: u64) -> Result<(), Exceeded> {
        within(
            "the size of one file in bytes",
            size,
            "MAX_BLOB_BYTES",
            self.limits.blob_bytes,
        )?;
        let total = self.inflated.fetch_add(size, Relaxed).saturating_add(size);
        let most = self.limits.tree_bytes.saturating_add(self.most_plain());
        within(
            "the size of all files in bytes",
            total,
            "MAX_TREE_BYTES",
            most,
        )
    }

    /// Allows for keeping `size` bytes of a commit, a tree or a tag in memory.
    pub(super) fn keep(&self, size: u64) -> Result<(), Exceeded> {
        let total = self.plain.fetch_add(size, Relaxed).saturating_add(size);
        within(
            "the size of all folders in bytes",
            total,
            "MAX_ENTRIES",
            self.most_plain(),
        )
    }
}
