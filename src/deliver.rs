//! Deliveries: objects are brought to the tips of their refs. [`step`] decides, the rest carries it out, on a real Git server
//! and a real S3.

mod build;
mod git;
mod hints;
mod history;
pub mod holder;
mod ledger;
mod listings;
mod previous;
mod run;
mod silences;
pub mod step;
mod tips;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    git::Git,
    run::Run,
    step::{Hints, SecondLook, Steps},
};
pub use self::{listings::Listings, silences::Silences, tips::Tips};
use crate::{
    bucket::S3,
    deadline::within,
    error::Error,
    limits::Limits,
    progress::{Progress, Stage},
    push::{CommitId, RefName, RepositoryName},
    queue::StepBack,
    remote::{Connections, Tip, Wanted},
    route::{Destination, DestinationError, Route, RouteTable, Space},
    secrets::Logins,
    snapshot::Snapshot,
    table::LiveTable,
};

/// How a delivery ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// A new object version holds the tip.
    Published,
    /// The object held the tip already.
    AlreadyCurrent,
    /// The ref is gone; the object stays as it is.
    BranchGone,
    /// The table delivers the ref elsewhere by now, or not at all.
    Moved {
        /// Whether a version was stored at the object that was left.
        stored: bool,
    },
}

/// What a delivery did.
#[derive(Debug)]
pub struct Delivery {
    /// How it ended.
    pub result: Result<Success, Error>,
    /// The commit that the object holds now, as far as this delivery knows.
    pub commit: Option<CommitId>,
    /// Where the ref pointed when it was last asked.
    pub tip: Option<CommitId>,
    /// What a second look has to confirm before it is delivered.
    pub step_back: Option<StepBack>,
    /// Whether the Git server seemed to lag, and was not given all of its time.
    pub is_unsettled: bool,
    /// Whether it gave up though it had just stored a version, since the ref moved on each time.
    pub is_overtaken: bool,
    /// The version id of the object's current version.
    pub version_id: Option<String>,
    /// Entries of the archive that was stored.
    pub entries: Option<usize>,
    /// Its size in bytes.
    pub archive_bytes: Option<u64>,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub archive_sha256: Option<String>,
    /// Whether the version that was stored is of the commit that the object held already.
    pub is_repeat: bool,
    /// The size of all packs that were received, in bytes.
    pub fetched_bytes: Option<u64>,
    /// Why everything was fetched, though the object held an earlier commit of the ref.
    pub full_fetch: Option<String>,
    /// What people should know, one sentence each.
    pub warnings: Vec<String>,
    /// The time each stage took in all rounds together.
    pub stages: Vec<(Stage, Duration)>,
}

impl Delivery {
    /// A delivery of which nothing is known but how it ended.
    #[must_use]
    pub fn ended(result: Result<Success, Error>) -> Self {
        Self {
            result,
            commit: None,
            tip: None,
            step_back: None,
            is_unsettled: false,
            is_overtaken: false,
            version_id: None,
            entries: None,
            archive_bytes: None,
            archive_sha256: None,
            is_repeat: false,
            fetched_bytes: None,
            full_fetch: None,
            warnings: Vec::new(),
            stages: Vec::new(),
        }
    }
}

/// All that deliveries share. A clone shares it too.
#[derive(Debug, Clone)]
pub struct Deliverer {
    /// Where objects go.
    pub s3: S3,
    /// What is delivered where.
    pub table: Arc<LiveTable>,
    /// Who may read the repositories.
    pub logins: Arc<Logins>,
    /// How large a delivery may be.
    pub limits: Limits,
    /// Whether an object may be replaced that a delivery wrote to which the table does not give it any more.
    pub replaces_unrouted: bool,
    /// What was seen of the refs lately.
    pub tips: Arc<Tips>,
    /// The refs that repositories had lately.
    pub listings: Arc<Listings>,
    /// Who gave no answer lately.
    pub silences: Arc<Silences>,
}

impl Deliverer {
    /// Brings the object of `to` to the tip of its ref. `hints` are what an event said, if there was one; `second_look` says
    /// whether a tip is delivered that looks older than what the object holds.
    ///
    /// At the deadline of `progress`, the delivery fails with [`Error::Deadline`], whatever it is waiting for.
    pub async fn deliver(
        &self,
        to: &Destination,
        hints: Option<Hints>,
        second_look: SecondLook,
        progress: &Arc<Progress>,
    ) -> Delivery {
        let steps = Steps::new(hints, second_look);
        self.carry_out(to, steps, progress).await
    }

    /// The same, and the object gets a new version also if it holds the tip already: a person wants the pipeline to start
    /// once more.
    pub async fn deliver_again(
        &self,
        to: &Destination,
        second_look: SecondLook,
        progress: &Arc<Progress>,
    ) -> Delivery {
        let steps = Steps::new(None, second_look).again();
        self.carry_out(to, steps, progress).await
    }

    async fn carry_out(
        &self,
        to: &Destination,
        steps: Steps,
        progress: &Arc<Progress>,
    ) -> Delivery {
        let deadline = progress.deadline();
        let git = Git::new(
            self,
            &to.credentials,
            &to.repository,
            &to.url,
            deadline,
            progress.is_patient(),
        );
        Run::new(self, to, git, steps, progress).finish().await
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
        table: &RouteTable,
        route: &Route,
        all: bool,
    ) -> Result<Vec<Result<Destination, DestinationError>>, Error> {
        let space = table.space_of(route);
        if let Some(exact) = route.pattern().exact() {
            return Ok(vec![route.destination(space, exact)]);
        }
        let wanted = wanted([route]);
        let own = Connections::default();
        let refs = self.refs(space, route.repository(), wanted, None, true, own);
        let refs = refs.await?;
        if refs.is_cut {
            return Err(too_many(route.repository()));
        }
        let mut destinations = Vec::new();
        for (name, _) in refs.found {
            if !route.pattern().matches(&name) {
                continue;
            }
            let destination = route.destination(space, &name);
            if let (false, Ok(to)) = (all, &destination)
                && self.s3.head(to.into()).await?.current.is_none()
            {
                continue;
            }
            destinations.push(destination);
        }
        Ok(destinations)
    }

    /// The entries of a commit, and its tree, as the Git server has them. Everything is fetched, and verified as ever.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::NotGiven`] if the server does not give the commit, which it may not have.
    pub(crate) async fn snapshot(
        &self,
        space: &Space,
        repository: &RepositoryName,
        commit: CommitId,
        progress: &Arc<Progress>,
    ) -> Result<Snapshot, Error> {
        let (url, deadline) = (repository.url_in(space.url()), progress.deadline());
        let mut git = Git::new(self, space.credentials(), repository, &url, deadline, true);
        progress.begin(Stage::Fetch);
        let snapshot = git.snapshot(commit, self.limits, Arc::clone(progress));
        within(deadline, Stage::Fetch, Box::pin(snapshot)).await
    }

    /// The refs of a repository that are wanted, and where they point, over connections to its host that are kept. Who is not
    /// patient leaves alone who takes long.
    pub(crate) async fn refs(
        &self,
        space: &Space,
        repository: &RepositoryName,
        wanted: Wanted,
        deadline: Option<Instant>,
        is_patient: bool,
        connections: Connections,
    ) -> Result<Refs, Error> {
        let url = repository.url_in(space.url());
        let credentials = space.credentials();
        let git = Git::new(self, credentials, repository, &url, deadline, is_patient);
        let mut git = git.among_many(connections);
        let refs = git.refs(wanted).await?;
        git.finish().await;
        let named = |(name, tip): (String, Tip)| Some((name.parse().ok()?, tip));
        Ok(Refs {
            found: refs.found.into_iter().filter_map(named).collect(),
            is_cut: refs.is_cut,
        })
    }
}

/// Refs of a repository.
pub(crate) struct Refs {
    /// What they are called, and where they point.
    pub(crate) found: Vec<(RefName, Tip)>,
    /// Whether there are so many that some were left out, of those that globs take.
    pub(crate) is_cut: bool,
}

/// The refs that routes of one repository may take.
pub(crate) fn wanted<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Wanted {
    let mut wanted = Wanted::default();
    for route in routes {
        let pattern = route.pattern();
        match pattern.exact() {
            Some(name) => {
                wanted.names.insert(name.to_string());
            }
            None => wanted.prefixes.push(pattern.start().to_owned()),
        }
    }
    wanted
}

/// That not every ref was seen that globs take.
pub(crate) fn too_many(repository: &RepositoryName) -> Error {
    Error::Fetch {
        repository: repository.clone(),
        transient: true,
        source: "it has more refs that a glob may take than there is room for, 16 MiB of names and ids; delete some, or \
                 let the glob begin with more than the others"
            .into(),
    }
}
