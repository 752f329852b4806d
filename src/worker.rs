//! What `deliver` does with the messages of the queue, on AWS and on a laptop: a job becomes a delivery, a failure decides
//! what becomes of the job, and the sweep makes jobs for what no event told of.

pub mod batch;
mod sweep;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::sweep::Swept;
use crate::{
    bucket::S3,
    deadline::within,
    deliver::{
        Bridge, Delivery, Success,
        step::{Hints, SETTLE_WAITS},
    },
    error::Error,
    limits::Limits,
    outcome::Report,
    progress::{Progress, Stage},
    queue::Job,
    route::{Destination, Route, RouteTable},
    secrets::Logins,
    table::LiveTable,
};

/// How often a job that the sweep made is tried. The next sweep makes it again, and a Git server that is down for hours
/// should not fill the dead-letter queue.
const SWEPT_TRIES: u32 = 3;

/// How often a ref is looked for that an event told of and the Git server does not have. It may lag for long; and nothing is
/// held up meanwhile, since there is nothing to deliver.
const MISSING_TRIES: u32 = 3;

/// How a job comes to a worker.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// How often it was tried, with this time.
    pub tries: u32,
    /// Whether there is no other after this one, whatever the failure.
    pub is_last: bool,
    /// How long ago it was made.
    pub age: Duration,
}

impl Attempt {
    /// The first and the last.
    pub const ONLY: Self = Self {
        tries: 1,
        is_last: true,
        age: Duration::ZERO,
    };
}

/// How long a job that failed rests before it comes again, by how often it was tried. Later ones rest for the queue's
/// visibility timeout.
const BACKOFF: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(1)];

/// What handles messages.
#[derive(Debug)]
pub struct Worker {
    /// Where objects go.
    pub s3: S3,
    /// What is delivered where.
    pub table: Arc<LiveTable>,
    /// Who may read the repositories.
    pub logins: Arc<Logins>,
    /// How large a delivery may be.
    pub limits: Limits,
}

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is acknowledged.
    Done,
    /// It goes back to the queue.
    Again,
    /// Nothing helps before somebody changes something: it goes where people find it.
    DeadLetter,
}

impl End {
    /// Decides what becomes of `job` after an attempt that failed with `error`, or went well without one.
    #[must_use]
    pub fn of(error: Option<&Error>, job: &Job, attempt: Attempt) -> Self {
        let Some(error) = error else {
            return Self::Done;
        };
        let tries = match error {
            Error::RefNotFound { .. } if !job.swept => MISSING_TRIES,
            _ if !error.is_transient() => 1,
            _ if job.swept => SWEPT_TRIES,
            // The queue knows when to stop.
            _ => u32::MAX,
        };
        if attempt.tries < tries && !attempt.is_last {
            Self::Again
        } else if job.swept {
            Self::Done
        } else {
            Self::DeadLetter
        }
    }
}

/// A job that was handled.
#[derive(Debug)]
pub struct Handled {
    /// What became of the object.
    pub report: Report,
    /// What becomes of the job.
    pub end: End,
}

impl Worker {
    /// Handles a job.
    pub async fn deliver(&self, job: &Job, attempt: Attempt, progress: &Arc<Progress>) -> Handled {
        let (report, end) = match self.destination(job, progress.deadline()).await {
            Ok(Some((table, to))) => {
                let started = Instant::now();
                let is_glob = table
                    .route(&to.route)
                    .is_some_and(|route| route.pattern().exact().is_none());
                let bridge = self.bridge(table);
                let hints = hints(job, attempt.age);
                let mut delivery = Box::pin(bridge.deliver(&to, hints, progress)).await;
                let mut end = End::of(delivery.result.as_ref().err(), job, attempt);
                if is_glob && end == End::DeadLetter && is_missing(&delivery) {
                    // It asks for no ref by name, so none is missed.
                    delivery.result = Ok(Success::BranchGone);
                    end = End::Done;
                }
                (Report::of(&to, delivery, started), end)
            }
            Ok(None) => {
                let why = "no such route any more".into();
                let report = Report::ignored(
                    Some(&job.route),
                    Some(&job.repository),
                    Some(&job.ref_name),
                    why,
                );
                (report, End::Done)
            }
            Err(err) => {
                let report = Report::failed(
                    Some(&job.route),
                    Some(&job.repository),
                    Some(&job.ref_name),
                    &err,
                );
                (report, End::of(Some(&err), job, attempt))
            }
        };
        let again = end == End::Again;
        let report = Report { again, ..report };
        Handled { report, end }
    }

    /// Where the table delivers the job's ref to by now; `None` if it does not.
    async fn destination(
        &self,
        job: &Job,
        deadline: Option<Instant>,
    ) -> Result<Option<(Arc<RouteTable>, Destination)>, Error> {
        let mut table = within(deadline, Stage::Routes, self.table.current()).await;
        if let Ok(Some(known)) = &table
            && !known
                .route(&job.route)
                .is_some_and(|route| takes(route, job))
        {
            // The process that made the job may know a newer table than this one.
            table = within(deadline, Stage::Routes, self.table.newest()).await;
        }
        let table = table.and_then(|table| {
            table.ok_or_else(|| Error::Routes {
                reason: "none was stored yet, though there are jobs".into(),
                transient: true,
                source: None,
            })
        });
        let table = table.map_err(may_be_mended)?;
        let route = table.route(&job.route).filter(|route| takes(route, job));
        let to = route.map(|route| route.destination(table.space_of(route), &job.ref_name));
        Ok(to.transpose()?.map(|to| (Arc::clone(&table), to)))
    }

    fn bridge(&self, table: Arc<RouteTable>) -> Bridge {
        Bridge {
            s3: self.s3.clone(),
            table,
            logins: Arc::clone(&self.logins),
            limits: self.limits,
        }
    }
}

fn is_missing(delivery: &Delivery) -> bool {
    matches!(delivery.result, Err(Error::RefNotFound { .. }))
}

fn takes(route: &Route, job: &Job) -> bool {
    route.takes(&job.repository, &job.ref_name)
}

/// A job has time until somebody has mended the table; then nobody has to send it again.
fn may_be_mended(err: Error) -> Error {
    match err {
        Error::Routes { reason, source, .. } => Error::Routes {
            reason,
            transient: true,
            source,
        },
        err => err,
    }
}

fn hints(job: &Job, age: Duration) -> Option<Hints> {
    // Nobody pushed what the sweep found; after a deletion there is no commit to wait for; and a server that lags had its
    // time while the job waited.
    let may_lag = age < SETTLE_WAITS.iter().sum::<Duration>();
    let is_push = !job.swept && !job.deleted;
    (is_push && may_lag).then(|| Hints {
        commits: job.hints.clone(),
        before: job.before,
    })
}

/// How long a job rests that failed for the `tries`-th time; `None` for as long as the queue lets it.
#[must_use]
pub fn backoff(tries: u32) -> Option<Duration> {
    let nth = usize::try_from(tries.saturating_sub(1)).ok()?;
    BACKOFF.get(nth).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_the_job_and_the_attempt_decide() {
        let passing = || Error::Contention { rounds: 8 };
        let lasting = || Error::NotVersioned {
            bucket: "sources".into(),
        };
        let missing = || Error::RefNotFound {
            repository: "APP/web".parse().unwrap(),
            ref_name: "refs/heads/main".parse().unwrap(),
            hint: String::new(),
        };
        let last = Attempt::ONLY;
        let nth = |tries| Attempt {
            tries,
            is_last: false,
            age: Duration::ZERO,
        };
        for (case, error, swept, attempt, expected) in [
            ("it went well", None, false, nth(1), End::Done),
            ("it passes", Some(passing()), false, nth(1), End::Again),
            (
                "as often as it takes",
                Some(passing()),
                false,
                nth(9),
                End::Again,
            ),
            ("to the last", Some(passing()), false, last, End::DeadLetter),
            ("the sweep's", Some(passing()), true, nth(2), End::Again),
            (
                "the next sweep comes",
                Some(passing()),
                true,
                nth(3),
                End::Done,
            ),
            ("it lasts", Some(lasting()), false, nth(1), End::DeadLetter),
            (
                "it lasts, the sweep's",
                Some(lasting()),
                true,
                nth(1),
                End::Done,
            ),
            ("no ref yet", Some(missing()), false, nth(1), End::Again),
            ("no ref still", Some(missing()), false, nth(2), End::Again),
            ("no ref", Some(missing()), false, nth(3), End::DeadLetter),
            (
                "no ref, not to wait for",
                Some(missing()),
                false,
                last,
                End::DeadLetter,
            ),
            (
                "the sweep saw a ref that is gone",
                Some(missing()),
                true,
                nth(1),
                End::Done,
            ),
        ] {
            let job = Job {
                route: "r".into(),
                repository: "APP/web".parse().unwrap(),
                ref_name: "refs/heads/main".parse().unwrap(),
                hints: Vec::new(),
                before: None,
                deleted: false,
                request_id: String::new(),
                swept,
            };
            assert_eq!(End::of(error.as_ref(), &job, attempt), expected, "{case}");
        }
    }

    #[test]
    fn a_job_rests_longer_each_time() {
        let rests: Vec<_> = (1..=4)
            .map(|tries| backoff(tries).map(|rest| rest.as_secs()))
            .collect();
        assert_eq!(rests, [Some(10), Some(60), None, None]);
    }
}
