//! What can go wrong on the way from webhook to object: one variant a stage, transient or permanent, with a kind for alarms.

use std::{borrow::Cow, error::Error as StdError, time::Duration};

pub use crate::chain::chain;
use crate::{
    progress::Stage,
    push::{CommitId, RefName, RepositoryName},
    route::DestinationError,
};

/// A cause from another crate, kept whole for the chain that is printed.
pub type Source = Box<dyn StdError + Send + Sync>;

/// What a Git server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The login: a status of 401.
    Login,
    /// Access to this repository, to a user that it knows: a status of 403.
    Access,
    /// Nothing now: it was not asked, since it refused the login a short while ago.
    NotAsked,
}

/// Who gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// The host: there was no connection.
    Host,
    /// One repository, on a host that may be well.
    Repository,
    /// A pack of one repository, whose refs may come at once.
    Pack,
    /// Nobody now: it was not asked, since it gave no answer a short while ago.
    NotAsked,
    /// A proxy in between, which lets nobody through that has no login, or not this one.
    Proxy,
}

/// What to do about a server that does not answer, where nothing more is known.
pub(crate) const CHECK_NETWORK: Cow<'static, str> =
    Cow::Borrowed("check the space's url and the network");

/// Why something failed on the way from webhook to object. The text says what was being done and what to do; the source says why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A route's credentials cannot be had.
    #[error("no credentials for {repository}: {reason}")]
    Credentials {
        /// The repository.
        repository: RepositoryName,
        /// What is missing and where it is expected.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
        /// What Secrets Manager says, if it was asked.
        source: Option<Source>,
    },
    /// The webhook's token cannot be had, so nobody can be admitted.
    #[error("no webhook token: {reason}")]
    Token {
        /// What is wrong with it and where it is expected.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
        /// What Secrets Manager says.
        source: Option<Source>,
    },
    /// There is no routing table that could be used.
    #[error("no routing table: {reason}")]
    Routes {
        /// Where it is expected and what is wrong with it.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
        /// What S3 or the parser says.
        source: Option<Source>,
    },
    /// What became of a pipeline's runs cannot be told.
    #[error("cannot tell results: {reason}")]
    Results {
        /// What is in the way, and what to do.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
    },
    /// A route takes a ref whose name makes no object key.
    #[error(transparent)]
    ObjectKey(#[from] DestinationError),
    /// A message of the queue that is no job.
    #[error("cannot read a job from the queue: {reason}")]
    Job {
        /// What was expected.
        reason: String,
    },
    /// The queue did not do what it was asked.
    #[error("cannot {action}{advice}")]
    Queue {
        /// What it was asked, such as `send a job to …`.
        action: String,
        /// What to do, after a semicolon; may be empty.
        advice: Cow<'static, str>,
        /// Whether trying again may help.
        transient: bool,
        /// What the SDK says.
        source: Source,
    },
    /// The Git server did not answer, or not in time, or its certificate is not trusted.
    #[error("cannot reach {url}; {advice}")]
    Unreachable {
        /// The repository's address.
        url: String,
        /// What to do.
        advice: Cow<'static, str>,
        /// Who gave no answer.
        silent: Silent,
        /// What `gix` says.
        source: Source,
    },
    /// The Git server refused the login.
    #[error("the Git server does not let us read {repository}; {advice}")]
    AuthFailed {
        /// The repository.
        repository: RepositoryName,
        /// What to do.
        advice: &'static str,
        /// What was refused.
        refused: Refused,
        /// What `gix` says.
        source: Source,
    },
    /// The Git server knows no such repository.
    #[error(
        "{url} is no Git repository, or this user may not see it; check the route's repository and the space's url"
    )]
    RepositoryNotFound {
        /// The repository's address.
        url: String,
        /// What `gix` says.
        source: Source,
    },
    /// The repository has no such ref, and none was ever delivered.
    #[error("{repository} has no {ref_name}; {hint}")]
    RefNotFound {
        /// The repository.
        repository: RepositoryName,
        /// The ref.
        ref_name: RefName,
        /// What the repository has instead.
        hint: String,
    },
    /// The conversation with the Git server failed, or what it sent is damaged.
    #[error("cannot fetch {repository}")]
    Fetch {
        /// The repository.
        repository: RepositoryName,
        /// Whether trying again may help.
        transient: bool,
        /// What `gix` or the pack reader says.
        source: Source,
    },
    /// The Git server asks for patience.
    #[error("cannot fetch {repository}")]
    Busy {
        /// The repository.
        repository: RepositoryName,
        /// How long it asks to wait, if it says so.
        wait: Option<Duration>,
        /// What it answers.
        source: Source,
    },
    /// The Git server has shown a commit, and does not give it.
    #[error(
        "{repository} does not give a commit that it has just shown; one of its machines may be behind"
    )]
    NotGiven {
        /// The repository.
        repository: RepositoryName,
        /// What the server says instead.
        source: Source,
    },
    /// The commit needs more than the limits allow.
    #[error("{repository} at {commit} is too large; raise the limit, or keep such files elsewhere")]
    TooLarge {
        /// The repository.
        repository: RepositoryName,
        /// The commit.
        commit: CommitId,
        /// Which limit, and by how much.
        source: Source,
    },
    /// The commit's tree holds a path that could escape or harm where it is extracted.
    #[error("{repository} at {commit} is not safe to extract")]
    UnsafeTree {
        /// The repository.
        repository: RepositoryName,
        /// The commit.
        commit: CommitId,
        /// Which path, and why.
        source: Source,
    },
    /// The commit's tree cannot become an archive: an object of it is missing or malformed.
    #[error("cannot archive {repository} at {commit}")]
    Snapshot {
        /// The repository.
        repository: RepositoryName,
        /// The commit.
        commit: CommitId,
        /// Which object, and why.
        source: Source,
    },
    /// The temporary files cannot be written: the disk is full, most likely.
    #[error(
        "cannot build the archive of {repository}; free some disk space, or point TMPDIR elsewhere"
    )]
    Disk {
        /// The repository.
        repository: RepositoryName,
        /// What the system says.
        source: Source,
    },
    /// Another repository or ref delivers to the same object.
    #[error(
        "s3://{bucket}/{key} belongs to {repository} {ref_name} in the routing table; give one of the routes another object"
    )]
    KeyConflict {
        /// The bucket.
        bucket: String,
        /// The object key.
        key: String,
        /// The repository that it belongs to.
        repository: String,
        /// The ref, or the refs that its route takes.
        ref_name: String,
    },
    /// The object holds what this table does not route, and nobody said that it may be replaced.
    #[error(
        "s3://{bucket}/{key} holds {repository} {ref_name}, which this routing table does not deliver there; another bridge may, so pass --replace if none does"
    )]
    Unrouted {
        /// The bucket.
        bucket: String,
        /// The object key.
        key: String,
        /// The repository that the object holds.
        repository: String,
        /// The ref that the object holds.
        ref_name: String,
    },
    /// S3 did not do what it was asked.
    #[error("cannot {action} s3://{bucket}/{key}{advice}")]
    Bucket {
        /// What it was asked, such as `read`.
        action: &'static str,
        /// The bucket.
        bucket: String,
        /// The object key.
        key: String,
        /// What to do, after a semicolon; may be empty.
        advice: Cow<'static, str>,
        /// Whether trying again may help.
        transient: bool,
        /// What the SDK says.
        source: Source,
    },
    /// A server that stands in for S3 has no room. Nothing was stored.
    #[error("cannot {action} s3://{bucket}/{key}; the disk of the store is full, free some space")]
    NoRoom {
        /// What it was asked, such as `write`.
        action: &'static str,
        /// The bucket.
        bucket: String,
        /// The object key.
        key: String,
        /// What it says.
        source: Source,
    },
    /// The bucket keeps no versions, so CodePipeline cannot use it and nothing could be taken back.
    #[error(
        "the bucket {bucket} is not versioned; turn bucket versioning on, which CodePipeline demands of a source"
    )]
    NotVersioned {
        /// The bucket.
        bucket: String,
    },
    /// The same may be so: the current version has no id of its own, and nobody knows whether the bucket keeps versions now.
    #[error(
        "s3://{bucket}/{key} was written while bucket versioning was off or suspended, and whether it is on now cannot be \
         asked; allow s3:GetBucketVersioning on the bucket"
    )]
    MaybeNotVersioned {
        /// The bucket.
        bucket: String,
        /// The object key.
        key: String,
        /// What the SDK says.
        source: Source,
    },
    /// Others wrote the object, or pushed, every time.
    #[error("gave up after {rounds} rounds: the object or the ref kept changing")]
    Contention {
        /// How often it was tried.
        rounds: u32,
    },
    /// An invocation of the function is too short for any work.
    #[error(
        "the function has {} ms for an invocation, and DEADLINE_MARGIN_MS takes {} of them; raise its timeout",
        left.as_millis(),
        margin.as_millis()
    )]
    NoTime {
        /// The time until the invocation's deadline.
        left: Duration,
        /// `DEADLINE_MARGIN_MS`.
        margin: Duration,
    },
    /// The time that was given to the work is over.
    #[error(
        "out of time in stage {stage}; if that comes again, give it more time, or more memory and so more CPU"
    )]
    Deadline {
        /// The stage.
        stage: Stage,
    },
    /// A deployed bridge has not told what became of a job.
    #[error(
        "the bridge has not told within {} s what became of it{}; it goes on with it, and its log tells: sam logs --stack-name \
         {stack}",
        within.as_secs(),
        last.as_ref().map(|last| format!(", the last that it said is: {last}")).unwrap_or_default()
    )]
    NoWord {
        /// The stack.
        stack: String,
        /// How long it was waited for.
        within: Duration,
        /// Why it was not done when it was last tried.
        last: Option<String>,
    },
    /// The work was stopped from outside.
    #[error("stopped while in stage {stage}")]
    Stopped {
        /// The stage.
        stage: Stage,
    },
}

impl Error {
    /// A name for alarms and queries. It never changes.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Credentials { .. } => "credentials",
            Self::Token { .. } => "token",
            Self::Routes { .. } => "routes",
            Self::Results { .. } => "results",
            Self::ObjectKey { .. } => "object_key",
            Self::Job { .. } => "job",
            Self::Queue { .. } => "queue",
            Self::Deadline { .. } | Self::NoTime { .. } | Self::NoWord { .. } => "deadline",
            Self::Unreachable { .. } => "unreachable",
            Self::AuthFailed { .. } => "auth_failed",
            Self::RepositoryNotFound { .. } => "repository_not_found",
            Self::RefNotFound { .. } => "ref_not_found",
            Self::Fetch { .. } | Self::Busy { .. } | Self::NotGiven { .. } => "fetch",
            Self::TooLarge { .. } => "too_large",
            Self::UnsafeTree { .. } => "unsafe_tree",
            Self::Snapshot { .. } => "snapshot",
            Self::Disk { .. } => "disk",
            Self::KeyConflict { .. } | Self::Unrouted { .. } => "key_conflict",
            Self::Bucket { .. } | Self::NoRoom { .. } => "bucket",
            Self::NotVersioned { .. } | Self::MaybeNotVersioned { .. } => "not_versioned",
            Self::Contention { .. } => "contention",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// Whether a disk of this machine is full, most likely.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Disk { .. } | Self::NoRoom { .. })
    }

    /// Who gave no answer, if that is what happened: the address of a host, or of a repository.
    #[must_use]
    pub fn silent(&self) -> Option<&str> {
        match self {
            Self::Unreachable {
                url,
                silent: Silent::Host,
                ..
            } => Some(host(url)),
            Self::Unreachable { url, .. } => Some(url),
            _ => None,
        }
    }

    /// Whether the same delivery may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Credentials { transient, .. }
            | Self::Token { transient, .. }
            | Self::Routes { transient, .. }
            | Self::Results { transient, .. }
            | Self::Queue { transient, .. }
            | Self::Fetch { transient, .. }
            | Self::Bucket { transient, .. } => *transient,
            Self::AuthFailed { refused, .. } => *refused == Refused::NotAsked,
            // A person has to name another login.
            Self::Unreachable { silent, .. } => *silent != Silent::Proxy,
            Self::Busy { .. }
            | Self::NotGiven { .. }
            | Self::Disk { .. }
            | Self::NoRoom { .. }
            | Self::Contention { .. }
            | Self::Deadline { .. }
            | Self::NoWord { .. }
            | Self::Stopped { .. } => true,
            Self::ObjectKey { .. }
            | Self::Job { .. }
            | Self::NoTime { .. }
            | Self::RepositoryNotFound { .. }
            | Self::RefNotFound { .. }
            | Self::TooLarge { .. }
            | Self::UnsafeTree { .. }
            | Self::Snapshot { .. }
            | Self::KeyConflict { .. }
            | Self::Unrouted { .. }
            | Self::NotVersioned { .. }
            | Self::MaybeNotVersioned { .. } => false,
        }
    }
}

/// A URL up to its path.
pub(crate) fn host(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + "://".len());
    let end = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_url_up_to_its_path() {
        for (url, expected) in [
            ("https://a.example/git/b.git", "https://a.example"),
            ("https://a.example:8443/git", "https://a.example:8443"),
            ("https://a.example", "https://a.example"),
            ("file:///srv/git/a.git", "file://"),
        ] {
            assert_eq!(host(url), expected);
        }
    }
}
