//! What a delivery has done so far, and what it will say of it.

use std::time::Duration;

use super::{Delivery, Success, build::Built};
use crate::{
    bucket::{Current, Holding, Put},
    error::Error,
    plain::hex,
    progress::Stage,
    push::CommitId,
};

const NAMELESS: &str = "the current version was written while versioning was off or suspended; it has no id of its own, \
                        and the next push makes a version that has one";

/// The books of one delivery, over all its rounds.
pub(super) struct Ledger {
    pub(super) delivery: Delivery,
    /// The delivery id of the last write whose outcome is unknown.
    tried: Option<String>,
    /// Why the last write failed, if that is all there is to say in the end.
    failed_put: Option<Error>,
    /// Whether the last write was of the commit that the object held already.
    pub(super) is_repeat: bool,
    /// Whether the current version has no id of its own.
    is_nameless: bool,
    /// What a write would replace, where people should know.
    replaces: Option<String>,
    /// What the writes of all rounds replaced, likewise.
    replaced: Vec<String>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            delivery: Delivery::ended(Ok(Success::AlreadyCurrent)),
            tried: None,
            failed_put: None,
            is_repeat: false,
            is_nameless: false,
            replaces: None,
            replaced: Vec::new(),
        }
    }

    /// A stage took so long, this time.
    pub(super) fn took(&mut self, stage: Stage, time: Duration) {
        let mut stages = self.delivery.stages.iter_mut();
        match stages.find(|(other, _)| *other == stage) {
            Some((_, total)) => *total += time,
            None => self.delivery.stages.push((stage, time)),
        }
    }

    /// So many bytes came from the Git server.
    pub(super) fn fetched(&mut self, bytes: u64) {
        *self.delivery.fetched_bytes.get_or_insert(0) += bytes;
    }

    /// What the head showed, and what a write would replace of it, if people should know.
    pub(super) fn found(&mut self, current: &Current, replaces: Option<String>) {
        self.replaces = replaces;
        self.is_nameless = current.version_id.is_none();
        self.delivery.version_id.clone_from(&current.version_id);
    }

    /// The head showed a version that holds a commit of this delivery's ref. Whether this delivery wrote it, though it did
    /// not hear so.
    pub(super) fn found_ours(&mut self, holding: &Holding, built: Option<&Built>) -> bool {
        let is_own = self.tried.as_ref() == Some(&holding.delivery_id);
        if is_own {
            self.stored(holding.commit, built);
        } else if self.delivery.commit != Some(holding.commit) {
            // What this delivery stored is history by now.
            self.delivery.entries = None;
            self.delivery.archive_bytes = None;
            self.delivery.archive_sha256 = None;
        }
        self.delivery.commit = Some(holding.commit);
        is_own
    }

    /// What became of a write under this delivery id. Whether it made a version.
    pub(super) fn put(&mut self, delivery_id: &str, put: Put, built: &Built) -> bool {
        match put {
            Put::Stored { version_id } => {
                self.delivery.version_id = Some(version_id);
                self.stored(built.snapshot.commit, Some(built));
                return true;
            }
            Put::Refused => self.failed_put = None,
            Put::Unknown(err) => self.failed_put = Some(err),
        }
        self.tried = Some(delivery_id.to_owned());
        false
    }

    fn stored(&mut self, commit: CommitId, built: Option<&Built>) {
        self.delivery.is_repeat = self.is_repeat;
        self.delivery.commit = Some(commit);
        if let Some(Built {
            snapshot, archive, ..
        }) = built
        {
            self.delivery.entries = Some(archive.entries);
            self.delivery.archive_bytes = Some(archive.bytes());
            self.delivery.archive_sha256 = Some(hex(&archive.sha256));
            // Those of an earlier round are about a version that is history by now.
            self.delivery.warnings.clone_from(&snapshot.warnings);
        }
        self.replaced.extend(self.replaces.take());
        self.delivery.warnings.extend_from_slice(&self.replaced);
        self.failed_put = None;
    }

    /// It ends with the version that was there.
    pub(super) fn left_as_it_is(&mut self) {
        if self.is_nameless {
            self.delivery.warnings.push(NAMELESS.into());
        }
    }

    /// It ends after so many rounds without having come through.
    pub(super) fn lost(&mut self, rounds: u32) -> Error {
        let failed = self.failed_put.take();
        failed.unwrap_or(Error::Contention { rounds })
    }
}
