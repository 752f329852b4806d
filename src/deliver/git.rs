//! The Git side of a delivery: a connection that goes to a blocking thread and back, and what is made of a fetch.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    archive::{Archive, ArchiveError},
    config::Limits,
    error::Error,
    pack::{Objects, PackError},
    progress::{Progress, Stage},
    push::{CommitId, RepositoryName},
    remote::{Connection, Remote, Tip},
    route::CredentialsSource,
    secrets::Logins,
    snapshot::{Snapshot, SnapshotError},
};

/// An archive that is ready, and what it was made of.
pub(super) struct Built {
    pub(super) snapshot: Snapshot,
    pub(super) archive: Archive,
    /// The size of the pack in bytes.
    pub(super) fetched_bytes: u64,
    /// How long it took until the pack was there and verified.
    pub(super) fetching: Duration,
}

/// A repository's server, with the login that it takes. The connection goes to a blocking thread and back for each use.
pub(super) struct Git<'a> {
    logins: &'a Logins,
    credentials: &'a CredentialsSource,
    pub(super) remote: Remote,
    connection: Option<Connection>,
}

impl<'a> Git<'a> {
    /// Finds the login for the repository at `url`. Nothing is asked of its server yet.
    pub(super) async fn open(
        logins: &'a Logins,
        credentials: &'a CredentialsSource,
        repository: &RepositoryName,
        url: &str,
        deadline: Option<Instant>,
    ) -> Result<Self, Error> {
        let login = logins.login(credentials, repository, url).await?;
        Ok(Self {
            logins,
            credentials,
            remote: Remote {
                url: url.to_owned(),
                repository: repository.clone(),
                login,
                deadline,
            },
            connection: None,
        })
    }

    /// A request that changes nothing and is cheap. A server may close a connection that was quiet during the upload, so
    /// one that was used before is replaced once.
    pub(super) async fn ask<T: Send + 'static>(
        &mut self,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let reused = self.connection.is_some();
        match self.run(work.clone()).await {
            Err(err) if reused && err.is_transient() => self.run(work).await,
            result => result,
        }
    }

    /// Does `work`; once more if the login was refused and has been changed since it was read.
    async fn run<T: Send + 'static>(
        &mut self,
        work: impl Fn(&mut Connection) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        loop {
            let result = self.attempt(work.clone()).await;
            if result.is_ok() {
                self.logins.accepted(self.credentials);
            }
            if !matches!(result, Err(Error::AuthFailed { .. })) {
                return result;
            }
            let Remote {
                repository,
                url,
                login,
                ..
            } = &self.remote;
            let changed =
                self.logins
                    .after_refusal(self.credentials, repository, url, login.clone());
            match changed.await? {
                Some(login) => self.remote.login = Some(login),
                None => return result,
            }
        }
    }

    async fn attempt<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (remote, connection) = (self.remote.clone(), self.connection.take());
        let task = tokio::task::spawn_blocking(move || {
            let mut connection = match connection {
                Some(connection) => connection,
                None => remote.connect()?,
            };
            let result = work(&mut connection)?;
            Ok::<_, Error>((connection, result))
        });
        let (connection, result) = task.await.expect("the work does not panic")?;
        self.connection = Some(connection);
        Ok(result)
    }

    /// Fetches a commit and makes its archive.
    pub(super) async fn build(
        &mut self,
        tip: Tip,
        limits: Limits,
        progress: Arc<Progress>,
    ) -> Result<Built, Error> {
        let commit = tip.commit;
        self.run(move |connection| {
            let started = Instant::now();
            let objects = connection
                .fetch(&tip, None, |wire| {
                    Objects::receive(wire, &limits, &progress)
                })?
                .map_err(|err| pack_error(err, connection.remote(), commit))?;
            let fetching = started.elapsed();
            progress.begin(Stage::Archive);
            let snapshot = Snapshot::of(commit, &objects, &limits)
                .map_err(|err| snapshot_error(err, connection.remote(), commit))?;
            let archive = Archive::write(&snapshot, &objects, &progress)
                .map_err(|err| archive_error(err, connection.remote()))?;
            let fetched_bytes = objects.pack_bytes();
            Ok(Built {
                snapshot,
                archive,
                fetched_bytes,
                fetching,
            })
        })
        .await
    }
}

fn pack_error(err: PackError, remote: &Remote, commit: CommitId) -> Error {
    let repository = remote.repository.clone();
    match err {
        PackError::Limit { .. } => Error::TooLarge {
            repository,
            commit,
            source: err.into(),
        },
        PackError::Disk(_) => Error::Disk {
            repository,
            source: err.into(),
        },
        PackError::Stopped => Error::Stopped {
            stage: Stage::Fetch.name(),
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
        SnapshotError::Limit { .. } => Error::TooLarge {
            repository,
            commit,
            source: err.into(),
        },
        _ => Error::Snapshot {
            repository,
            commit,
            source: err.into(),
        },
    }
}

pub(super) fn archive_error(err: ArchiveError, remote: &Remote) -> Error {
    match err {
        ArchiveError::Stopped => Error::Stopped {
            stage: Stage::Archive.name(),
        },
        _ => Error::Disk {
            repository: remote.repository.clone(),
            source: err.into(),
        },
    }
}
