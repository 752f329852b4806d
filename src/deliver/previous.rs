//! What the object's current version can do for the next one: it holds nearly all of it.

use std::sync::Arc;

use gix::ObjectId;

use super::Deliverer;
use crate::{
    archive::{Delivered, Times},
    bucket::{Address, Current, Holding},
    error::chain,
    limits::Limits,
    pack::Stock,
    progress::Progress,
    push::CommitId,
};

/// A version of ours, as its head describes it.
#[derive(Debug, Clone)]
pub(super) struct Previous {
    found: Current,
    pub(super) commit: CommitId,
    /// The commit of the version before it, if it says so.
    pub(super) before: Option<CommitId>,
    tree: Option<ObjectId>,
    delivery_id: String,
}

impl Previous {
    pub(super) fn of(current: &Current, holding: &Holding) -> Self {
        Self {
            found: current.clone(),
            commit: holding.commit,
            before: holding.previous,
            tree: holding.tree,
            delivery_id: holding.delivery_id.clone(),
        }
    }

    /// Reads the version from S3, and verifies all objects in it. Its times go with them.
    ///
    /// # Errors
    ///
    /// Why it cannot be used, in words. Nothing is lost: everything is on the Git server too.
    pub(super) async fn stock(
        &self,
        bridge: &Deliverer,
        at: Address<'_>,
        progress: &Arc<Progress>,
    ) -> Result<(Stock, Times), String> {
        let Some(tree) = self.tree else {
            return Err("the metadata of the current version names no tree".into());
        };
        let most = most_archive_bytes(&bridge.limits);
        let bytes = self.found.bytes;
        if bytes > most {
            return Err(format!(
                "the current version has {bytes} bytes, and at most {most} are read"
            ));
        }
        let text = |err: &(dyn std::error::Error + 'static)| chain(err);
        let file = tempfile::tempfile().map_err(|err| text(&err))?;
        let copy = file.try_clone().map_err(|err| text(&err))?;
        let got = bridge.s3.get_found(at, &self.found, copy);
        got.await.map_err(|err| text(&err))?;
        let delivered = Delivered {
            commit: self.commit,
            tree,
            delivery_id: self.delivery_id.clone(),
        };
        let (limits, progress) = (bridge.limits, Arc::clone(progress));
        let task = tokio::task::spawn_blocking(move || delivered.stock(&file, &limits, &progress));
        let stock = task.await.expect("the work does not panic");
        stock.map_err(|err| text(&err))
    }
}

/// The largest archive that is read back, in bytes: that of the largest tree, with paths of ordinary length.
fn most_archive_bytes(limits: &Limits) -> u64 {
    const HEADERS: u64 = 512;
    let headers = HEADERS * u64::from(limits.entries);
    limits
        .tree_bytes
        .saturating_add(limits.tree_bytes / 1000)
        .saturating_add(headers)
}
