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
        Bridge,
        step::{Hints, SETTLE_WAITS},
    },
    error::Error,
    limits::Limits,
    progress::{Progress, Stage},
    queue::Job,
    report::Report,
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
    /// How long ago it was made.
    pub age: Duration,
}

impl Attempt {
    /// The one after which there is no other, whatever the failure.
    pub const LAST: Self = Self {
        tries: u32::MAX,
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
pub enum Fate {
    /// It is acknowledged.
    Done,
    /// It goes back to the queue.
    Again,
    /// It cannot be handled before somebody changes something: it goes where people find it.
    Bury,
}

/// A job that was handled.
#[derive(Debug)]
pub struct Handled {
    /// What became of the object.
    pub report: Report,
    /// What becomes of the job.
    pub fate: Fate,
}

impl Worker {
    /// Handles a job.
    pub async fn deliver(&self, job: &Job, attempt: Attempt, progress: &Arc<Progress>) -> Handled {
        let mut report = match self.destination(job, progress.deadline()).await {
            Ok(Some((table, to))) => {
                let started = Instant::now();
                let is_glob = table
                    .route(&to.route)
                    .is_some_and(|route| route.pattern().exact().is_none());
                let bridge = self.bridge(table);
                let delivery =
                    Box::pin(bridge.deliver(&to, hints(job, attempt.age), progress)).await;
                let is_missing = matches!(delivery.result, Err(Error::RefNotFound { .. }));
                let mut report = Report::of(&to, delivery, started);
                if is_missing && !job.swept {
                    told_of_missing_ref(&mut report, is_glob, attempt.tries);
                }
                report
            }
            Ok(None) => Report::ignored(
                Some(&job.route),
                Some(&job.repository),
                Some(&job.ref_name),
                "no such route any more".into(),
            ),
            Err(err) => Report::failed(
                Some(&job.route),
                Some(&job.repository),
                Some(&job.ref_name),
                &err,
            ),
        };
        let fate = fate(&report, job, attempt.tries);
        report.given_up = fate != Fate::Again;
        Handled { report, fate }
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

/// An event told of a ref that is not there, and nothing of it was ever delivered. Either the Git server lags, or the ref is
/// gone by now.
fn told_of_missing_ref(report: &mut Report, is_glob: bool, tries: u32) {
    if tries < MISSING_TRIES {
        report
            .error
            .iter_mut()
            .for_each(|fault| fault.transient = true);
    } else if is_glob {
        // It asks for no ref by name, so none is missed.
        report.error = None;
        report.outcome = "branch_gone";
    }
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

fn fate(report: &Report, job: &Job, tries: u32) -> Fate {
    match &report.error {
        None => Fate::Done,
        Some(fault) if fault.transient => {
            if tries == Attempt::LAST.tries || job.swept && tries >= SWEPT_TRIES {
                Fate::Done
            } else {
                Fate::Again
            }
        }
        Some(_) if job.swept => Fate::Done,
        Some(_) => Fate::Bury,
    }
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
    fn the_class_of_a_failure_decides() {
        let routes = |transient| Error::Routes {
            reason: String::new(),
            transient,
            source: None,
        };
        for (case, err, swept, tries, expected) in [
            ("it went well", None, false, 1, Fate::Done),
            ("may pass", Some(routes(true)), false, 1, Fate::Again),
            (
                "may pass, as ever",
                Some(routes(true)),
                false,
                9,
                Fate::Again,
            ),
            (
                "may pass, of the sweep",
                Some(routes(true)),
                true,
                2,
                Fate::Again,
            ),
            (
                "the next sweep comes",
                Some(routes(true)),
                true,
                3,
                Fate::Done,
            ),
            ("for good", Some(routes(false)), false, 1, Fate::Bury),
            (
                "for good, of the sweep",
                Some(routes(false)),
                true,
                1,
                Fate::Done,
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
            let failed = |err| Report::failed(None, None, None, &err);
            let report = err.map_or_else(Report::default, failed);
            assert_eq!(fate(&report, &job, tries), expected, "{case}");
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
