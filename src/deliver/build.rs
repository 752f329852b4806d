//! What is made of a fetch: the archive of a commit, from everything that it has or from what it has and its base has not.

use std::{
    io::Read,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::git::Git;
use crate::{
    archive::{Archive, ArchiveError, Dates, Times},
    error::{Error, chain},
    limits::Limits,
    pack::{Objects, PackError, Stock},
    progress::{Progress, Stage},
    push::CommitId,
    remote::{Connection, Remote, Tip, Wanted},
    snapshot::{Snapshot, SnapshotError},
};

/// A commit that was delivered before, with all its objects once they are there.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) commit: CommitId,
    /// Taken by whoever comes first: nobody needs the objects after the pack that was made for them.
    stock: Arc<Mutex<Option<oneshot::Receiver<StockResult>>>>,
}

/// The objects of a [`Base`] and the times of their files, or why they cannot be had.
pub(super) type StockResult = Result<(Stock, Times), String>;

impl Base {
    pub(super) fn new(commit: CommitId, stock: oneshot::Receiver<StockResult>) -> Self {
        let stock = Arc::new(Mutex::new(Some(stock)));
        Self { commit, stock }
    }

    /// Waits for the objects, while they are read and verified. Only on a thread that may block.
    fn stock(&self) -> StockResult {
        let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        let there = stock.take().and_then(|stock| stock.blocking_recv().ok());
        there.unwrap_or_else(|| Err("the work was given up".into()))
    }
}

/// Why a base was of no use.
pub(super) struct FullFetch {
    /// In words.
    pub(super) why: String,
    /// The size of the pack that came nevertheless, in bytes.
    pub(super) fetched_bytes: u64,
}

/// An archive that is ready, and what it was made of.
pub(super) struct Built {
    /// Without its entries, which are in the archive.
    pub(super) snapshot: Snapshot,
    pub(super) archive: Archive,
    /// The size of the pack in bytes.
    pub(super) fetched_bytes: u64,
    /// How long it took after the pack was there and verified.
    pub(super) archiving: Duration,
}

impl Git<'_> {
    /// Fetches a commit and makes its archive.
    pub(super) async fn build(
        &mut self,
        tip: Tip,
        dates: Dates,
        limits: Limits,
        progress: Arc<Progress>,
    ) -> Result<Built, Error> {
        let commit = tip.commit;
        self.run(&Wanted::default(), move |connection| {
            let objects = connection
                .fetch(&tip, None, &progress, |wire| {
                    Objects::receive(wire, &limits, &progress)
                })?
                .map_err(|err| pack_error(err, connection.remote(), commit))?;
            let started = Instant::now();
            progress.begin(Stage::Archive);
            let remote = connection.remote();
            let snapshot = Snapshot::of(commit, &objects, &limits)
                .map_err(|err| snapshot_error(err, remote, commit))?;
            Built::of(snapshot, objects, &dates, started, remote, &progress)
        })
        .await
    }

    /// Fetches a commit for its entries alone.
    pub(super) async fn snapshot(
        &mut self,
        commit: CommitId,
        limits: Limits,
        progress: Arc<Progress>,
    ) -> Result<Snapshot, Error> {
        let tip = Tip {
            object: commit.object_id(),
            commit,
        };
        self.run(&Wanted::default(), move |connection| {
            let objects = connection
                .fetch(&tip, None, &progress, |wire| {
                    Objects::receive(wire, &limits, &progress)
                })?
                .map_err(|err| pack_error(err, connection.remote(), commit))?;
            Snapshot::of(commit, &objects, &limits)
                .map_err(|err| snapshot_error(err, connection.remote(), commit))
        })
        .await
    }

    /// Fetches what a commit has and `base` has not, and makes the commit's archive of both. `now` is the time of what has
    /// changed, in seconds of Unix time.
    ///
    /// A base that turns out to be useless costs the connection: what may be left of an answer is of no interest.
    ///
    /// # Errors
    ///
    /// What a fetch of everything could not change.
    pub(super) async fn build_on(
        &mut self,
        base: Base,
        tip: Tip,
        now: i64,
        limits: Limits,
        progress: Arc<Progress>,
    ) -> Result<Result<Built, FullFetch>, Error> {
        let built = self
            .run(&Wanted::default(), move |connection| {
                if !connection.can_fetch_changes() {
                    let why = "the Git server cannot send changes only".into();
                    return Ok(Err(FullFetch {
                        why,
                        fetched_bytes: 0,
                    }));
                }
                build_on(connection, &base, &tip, now, &limits, &progress)
            })
            .await;
        match built {
            Err(
                err @ (Error::Fetch { .. } | Error::NotGiven { .. } | Error::Unreachable { .. }),
            ) => {
                // The connection is gone already.
                let why = chain(&err);
                Ok(Err(FullFetch {
                    why,
                    fetched_bytes: 0,
                }))
            }
            Ok(Err(useless)) => {
                self.disconnect();
                Ok(Err(useless))
            }
            built => built,
        }
    }
}

fn build_on(
    connection: &mut Connection,
    base: &Base,
    tip: &Tip,
    now: i64,
    limits: &Limits,
    progress: &Arc<Progress>,
) -> Result<Result<Built, FullFetch>, Error> {
    let commit = tip.commit;
    let mut before = None;
    let receive = |wire: &mut dyn Read| {
        let stock = || {
            let (stock, times) = base.stock()?;
            before = Some(times);
            Ok(stock)
        };
        Objects::receive_onto(stock, wire, limits, progress)
    };
    let useless = |why, fetched_bytes| FullFetch { why, fetched_bytes };
    let objects = match connection.fetch(tip, Some(base.commit), progress, receive)? {
        Ok(Ok(objects)) => objects,
        Ok(Err(why)) => return Ok(Err(useless(why, 0))),
        // Maybe the server sent what nobody asked for. If the commit is too large, a fetch of everything says so.
        Err(err @ PackError::Limit(_)) => {
            return Ok(Err(useless(chain(&err), 0)));
        }
        Err(err) => return Err(pack_error(err, connection.remote(), commit)),
    };
    let started = Instant::now();
    progress.begin(Stage::Archive);
    let remote = connection.remote();
    match Snapshot::of(commit, &objects, limits) {
        Ok(snapshot) => {
            let dates = Dates { now, before };
            Built::of(snapshot, objects, &dates, started, remote, progress).map(Ok)
        }
        Err(err @ SnapshotError::Missing { .. }) => {
            Ok(Err(useless(chain(&err), objects.pack_bytes())))
        }
        // All that was looked at is what its id says, so this is true of the commit, however it came.
        Err(err) => Err(snapshot_error(err, remote, commit)),
    }
}

impl Built {
    fn of(
        mut snapshot: Snapshot,
        objects: Objects,
        dates: &Dates,
        started: Instant,
        remote: &Remote,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let fetched_bytes = objects.pack_bytes();
        let entries = mem::take(&mut snapshot.entries);
        let archive = Archive::write(snapshot.commit, entries, objects, dates, progress)
            .map_err(|err| archive_error(err, remote))?;
        Ok(Self {
            snapshot,
            archive,
            fetched_bytes,
            archiving: started.elapsed(),
        })
    }
}

fn pack_error(err: PackError, remote: &Remote, commit: CommitId) -> Error {
    let repository = remote.repository.clone();
    match err {
        PackError::Limit(_) => Error::TooLarge {
            repository,
            commit,
            source: err.into(),
        },
        PackError::Disk(_) => Error::Disk {
            repository,
            source: err.into(),
        },
        PackError::Stopped => Error::Stopped {
            stage: Stage::Fetch,
        },
        // What came damaged once may come whole the next time.
        PackError::Read(_) | PackError::Truncated | PackError::Damaged(_) => Error::Fetch {
            repository,
            transient: true,
            source: err.into(),
        },
    }
}

fn snapshot_error(err: SnapshotError, remote: &Remote, commit: CommitId) -> Error {
    let repository = remote.repository.clone();
    match err {
        SnapshotError::Limit(_) => Error::TooLarge {
            repository,
            commit,
            source: err.into(),
        },
        SnapshotError::Path { .. } => Error::UnsafeTree {
            repository,
            commit,
            source: err.into(),
        },
        SnapshotError::Missing { .. } | SnapshotError::Malformed { .. } => Error::Snapshot {
            repository,
            commit,
            source: err.into(),
        },
    }
}

pub(super) fn archive_error(err: ArchiveError, remote: &Remote) -> Error {
    match err {
        ArchiveError::Stopped => Error::Stopped {
            stage: Stage::Archive,
        },
        _ => Error::Disk {
            repository: remote.repository.clone(),
            source: err.into(),
        },
    }
}
