//! What `deliver` does with the messages of the queue, on AWS and on a laptop: a job becomes a delivery, a failure decides
//! what becomes of the job, and the sweep makes jobs for what no event told of.

pub mod batch;
mod sweep;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

pub use self::sweep::Swept;
use crate::{
    bucket::S3,
    config::Limits,
    deliver::{Bridge, step::Hints},
    error::Error,
    progress::Progress,
    queue::Job,
    report::Report,
    route::{Destination, RouteTable},
    secrets::Logins,
    table::LiveTable,
};

/// How often a job that the sweep made is tried. The next sweep makes it again, and a Git server that is down for hours
/// should not fill the dead-letter queue.
const SWEPT_TRIES: u32 = 3;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// Handles a job that is tried for the `tries`-th time.
    pub async fn deliver(&self, job: &Job, tries: u32, progress: &Arc<Progress>) -> Handled {
        let report = match self.table(progress.deadline()).await {
            Ok(table) => match destination(&table, job) {
                Ok(Some(to)) => {
                    let started = Instant::now();
                    let bridge = self.bridge(table);
                    let delivery = Box::pin(bridge.deliver(&to, hints(job), progress)).await;
                    Report::of(&to, delivery, started)
                }
                Ok(None) => Report::ignored(
                    Some(&job.route),
                    Some(&job.repository),
                    Some(&job.ref_name),
                    "no such route any more".into(),
                ),
                Err(err) => failed(job, &err),
            },
            Err(err) => failed(job, &err),
        };
        let fate = fate(&report, job, tries);
        Handled { report, fate }
    }

    fn bridge(&self, table: Arc<RouteTable>) -> Bridge {
        Bridge {
            s3: self.s3.clone(),
            table,
            logins: Arc::clone(&self.logins),
            limits: self.limits,
        }
    }

    async fn table(&self, deadline: Option<Instant>) -> Result<Arc<RouteTable>, Error> {
        let table = crate::deliver::within(deadline, "routes", self.table.current()).await?;
        table.ok_or_else(|| Error::Routes {
            reason: "none was stored yet, though there are jobs".into(),
            transient: true,
            source: None,
        })
    }
}

fn failed(job: &Job, err: &Error) -> Report {
    Report::failed(
        Some(&job.route),
        Some(&job.repository),
        Some(&job.ref_name),
        err,
    )
}

/// Where the table delivers the job's ref to by now; `None` if it does not.
fn destination(table: &RouteTable, job: &Job) -> Result<Option<Destination>, Error> {
    let route = table
        .route(&job.route)
        .filter(|route| route.takes(&job.repository, &job.ref_name));
    let to = route.map(|route| route.destination(table.space_of(route), &job.ref_name));
    Ok(to.transpose()?)
}

fn hints(job: &Job) -> Option<Hints> {
    // Nobody pushed what the sweep found; and after a deletion there is no commit to wait for.
    let is_push = !job.swept && !job.deleted;
    is_push.then(|| Hints {
        commits: job.hints.clone(),
        before: job.before,
    })
}

fn fate(report: &Report, job: &Job, tries: u32) -> Fate {
    match &report.error {
        None => Fate::Done,
        Some(fault) if fault.transient => {
            if job.swept && tries >= SWEPT_TRIES {
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
            let report = err.map_or_else(Report::default, |err| failed(&job, &err));
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
