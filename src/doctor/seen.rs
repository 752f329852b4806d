//! What can be seen, and in what time; or why it cannot.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use crate::{
    aws::CallError,
    backlog::{ApiError, Fault},
    error::chain,
};

/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// How long all of them may take together.
const ALL_WITHIN: Duration = Duration::from_secs(30);

/// How many are under way at once.
const AT_ONCE: usize = 8;

/// What was seen, or why nothing was.
pub(super) type Seen<T> = Result<T, Unseen>;

/// Why something could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unseen {
    /// This login may not: what it would need.
    Denied(String),
    /// There is no login, or it is over: why, and what to do.
    NoLogin(String),
    /// Whoever was asked does not say.
    Failed(String),
    /// No answer came in time.
    Late,
    /// Something else is wrong that comes before: what.
    After(String),
    /// Nobody wants it looked at, or what it needs is not given: how it is.
    Needs(String),
}

impl Unseen {
    /// Whether another finding says the same.
    pub(super) fn follows(&self) -> bool {
        matches!(self, Self::After(_) | Self::NoLogin(_))
    }

    pub(super) fn remedy(&self) -> Option<String> {
        let again = "try again; if it stays so, check the network";
        (*self == Self::Late).then(|| again.to_owned())
    }
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(needs) => write!(f, "needs {needs}"),
            Self::NoLogin(_) => f.write_str("there is no login to AWS"),
            Self::Failed(why) => f.write_str(why),
            Self::Late => write!(f, "no answer came for {} s", LOOK_WITHIN.as_secs()),
            Self::After(what) | Self::Needs(what) => f.write_str(what),
        }
    }
}

impl From<CallError> for Unseen {
    fn from(err: CallError) -> Self {
        if err.is_login {
            Self::NoLogin(err.to_string())
        } else if err.is_denied {
            Self::Denied(err.action)
        } else {
            Self::Failed(err.to_string())
        }
    }
}

/// What Backlog's API refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    /// With what to do.
    pub(super) text: String,
}

impl From<ApiError> for Refusal {
    fn from(err: ApiError) -> Self {
        Self {
            fault: err.fault,
            text: chain(&err),
        }
    }
}

/// When an examination ends, and how many looks it takes at once.
#[derive(Debug, Clone)]
pub(super) struct Time {
    end: Instant,
    turns: Arc<Semaphore>,
    /// What was said where there was no login to AWS, or none any more.
    trouble: Arc<OnceLock<String>>,
}

impl Time {
    pub(super) fn begin() -> Self {
        Self {
            end: Instant::now() + ALL_WITHIN,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            trouble: Arc::default(),
        }
    }

    /// When a look that begins now ends.
    pub(super) fn deadline(&self) -> Instant {
        self.end.min(Instant::now() + LOOK_WITHIN)
    }

    /// What `look` sees, if it does so in time.
    pub(super) async fn look<T, E>(&self, look: impl Future<Output = Result<T, E>>) -> Seen<T>
    where
        Unseen: From<E>,
    {
        let Some(seen) = self.within(look).await else {
            return Err(Unseen::Late);
        };
        let seen = seen.map_err(Unseen::from);
        if let Err(Unseen::NoLogin(why)) = &seen {
            self.trouble.set(why.clone()).ok();
        }
        seen
    }

    /// Why there is no login to AWS, if somebody was told so.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.get().map(String::as_str)
    }

    /// What `work` comes to, if it does so in time.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let turn = self.turns.acquire();
        let turn = tokio::time::timeout_at(self.end.into(), turn).await;
        let _turn = turn.ok()?.expect("it is never closed");
        let within = tokio::time::timeout_at(self.deadline().into(), work);
        within.await.ok()
    }
}

/// Does all of it at once, and gives what came of each in its place.
pub(super) async fn all<T, F>(work: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.expect("no look panics"));
    }
    done
}
