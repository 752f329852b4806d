//! Deliveries: objects are brought to the tips of their refs. [`step`] decides, the rest carries it out, on a real Git server
//! and a real S3.

mod git;
mod run;
pub mod step;

use std::{sync::Arc, time::Duration};

use self::{git::Git, run::Run, step::Hints};
use crate::{
    bucket::{Address, S3},
    config::Limits,
    error::Error,
    progress::{Progress, Stage},
    push::{CommitId, RefName, RepositoryName},
    remote::Remote,
    route::{CredentialsSource, Destination, DestinationError, Route, RouteTable},
    secrets::Login,
};

/// How a delivery ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A new object version holds the tip.
    Published,
    /// The object held the tip already.
    AlreadyCurrent,
    /// The ref is gone; the object stays as it is.
    BranchGone,
}

/// What a delivery did.
#[derive(Debug)]
pub struct Delivery {
    /// How it ended.
    pub result: Result<Outcome, Error>,
    /// The commit that the object holds now, as far as this delivery knows.
    pub commit: Option<CommitId>,
    /// The version id of the object's current version.
    pub version_id: Option<String>,
    /// Entries of the archive that was stored.
    pub entries: Option<usize>,
    /// Its size in bytes.
    pub archive_bytes: Option<u64>,
    /// The size of all packs that were received, in bytes.
    pub fetched_bytes: Option<u64>,
    /// What people should know, one sentence each.
    pub warnings: Vec<String>,
    /// The time each stage took in all rounds together.
    pub stages: Vec<(Stage, Duration)>,
}

impl Delivery {
    /// A delivery of which nothing is known but how it ended.
    fn ended(result: Result<Outcome, Error>) -> Self {
        Self {
            result,
            commit: None,
            version_id: None,
            entries: None,
            archive_bytes: None,
            fetched_bytes: None,
            warnings: Vec::new(),
            stages: Vec::new(),
        }
    }
}

/// All that deliveries share.
#[derive(Debug)]
pub struct Bridge {
    /// Where objects go.
    pub s3: S3,
    /// What is delivered where.
    pub table: RouteTable,
    /// How large a delivery may be.
    pub limits: Limits,
}

impl Bridge {
    /// Brings the object of `to` to the tip of its ref. `hints` are what an event said, if there was one.
    pub async fn deliver(
        &self,
        to: &Destination,
        hints: Option<Hints>,
        progress: &Arc<Progress>,
    ) -> Delivery {
        match remote(&to.url, &to.repository, &to.credentials) {
            Ok(remote) => Run::new(self, to, remote, hints, progress).finish().await,
            Err(err) => Delivery::ended(Err(err)),
        }
    }

    /// What `route` delivers now: its ref, or every ref of the repository that its pattern matches, whose object exists
    /// already unless `all`.
    ///
    /// # Errors
    ///
    /// [`Error`] if the Git server or S3 cannot be asked; [`DestinationError`] inside,
    /// for each ref that makes no object key.
    pub async fn destinations(
        &self,
        route: &Route,
        all: bool,
    ) -> Result<Vec<Result<Destination, DestinationError>>, Error> {
        let space = self.table.space_of(route);
        if let Some(exact) = route.pattern().exact() {
            return Ok(vec![route.destination(space, exact)]);
        }
        let remote = remote(
            &route.repository().url_in(space.url()),
            route.repository(),
            space.credentials(),
        )?;
        let mut git = Git {
            remote,
            connection: None,
        };
        let refs = git.ask(|connection| connection.refs("refs/")).await?;
        let mut destinations = Vec::new();
        for name in refs
            .into_iter()
            .filter_map(|(name, _)| name.parse::<RefName>().ok())
        {
            if !route.pattern().matches(&name) {
                continue;
            }
            let destination = route.destination(space, &name);
            if let (false, Ok(to)) = (all, &destination) {
                let at = Address {
                    bucket: &to.bucket,
                    key: to.key.as_str(),
                };
                if self.s3.head(at).await?.is_none() {
                    continue;
                }
            }
            destinations.push(destination);
        }
        Ok(destinations)
    }
}

fn remote(
    url: &str,
    repository: &RepositoryName,
    source: &CredentialsSource,
) -> Result<Remote, Error> {
    let login = Login::read(source, repository, |name| std::env::var(name).ok())?;
    Ok(Remote {
        url: url.to_owned(),
        repository: repository.clone(),
        login,
    })
}
