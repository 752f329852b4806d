//! Refs of globs that the Git server does not have. Whoever knows the token can name any number of them, so that none takes
//! the place of a real one: they are looked for again, all of a repository at once, and not delivered until they are there.
//! Most are branches that Backlog does not show yet, or not any more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Worker;
use crate::{
    deadline::within,
    deliver::wanted,
    error::Error,
    outcome::Report,
    progress::{Progress, Stage},
    queue::{Job, LOOKS},
    remote::Wanted,
    route::{Destination, RouteTable, Space},
    table::Reading,
};

/// How long a look for refs may take.
pub const LOOK_WITHIN: Duration = Duration::from_mins(1);

/// What a look for a job's ref showed.
#[derive(Debug)]
pub enum Sight {
    /// The ref is there; or the table asks for something else by now. A delivery finds out.
    There,
    /// It is not there.
    Missing,
    /// The table or the Git server could not be asked.
    Unknown(Box<Report>),
}

impl Worker {
    /// Looks for the refs of jobs of one repository. What was seen of it by a listing that began after `since` counts too.
    pub async fn look(&self, jobs: &[&Job], since: Instant, deadline: Instant) -> Vec<Sight> {
        let looked = self.look_by_table(jobs, since, deadline);
        let looked = within(Some(deadline), Stage::Tip, looked).await;
        looked.unwrap_or_else(|err| jobs.iter().map(|job| unknown(job, &err)).collect())
    }

    /// Whether a listing shows that a ref is not there, where others were missing a short time ago: with many of them, one
    /// listing tells it of all.
    pub(super) async fn is_listed_missing(
        &self,
        job: &Job,
        to: &Destination,
        age: Duration,
        progress: &Progress,
    ) -> bool {
        let now = Instant::now();
        // In `serve`, the queue has looked already.
        if job.by_glob || !self.bridge.listings.has_missed_lately(&to.url, now) {
            return false;
        }
        let sent = now.checked_sub(age).unwrap_or(now);
        let deadline = progress.deadline().unwrap_or(now + LOOK_WITHIN);
        let sight = Box::pin(self.look(&[job], sent, deadline)).await.pop();
        let is_missing = matches!(sight, Some(Sight::Missing));
        if is_missing {
            self.bridge.listings.missed(&to.url, now);
        }
        is_missing
    }

    async fn look_by_table(
        &self,
        jobs: &[&Job],
        since: Instant,
        deadline: Instant,
    ) -> Result<Vec<Sight>, Error> {
        let reading = self.bridge.table.read().await;
        let table = match &reading {
            // It is enough to look by; a delivery asks for more.
            Reading::Spoiled {
                last: Some(last), ..
            }
            | Reading::Unread {
                last: Some(last), ..
            } => last,
            reading => reading.newest()?,
        };
        let mut sights: Vec<_> = jobs.iter().map(|_| Sight::There).collect();
        // The same name may be one in several spaces.
        let mut spaces: BTreeMap<String, (&Space, Vec<usize>)> = BTreeMap::new();
        for (at, job) in jobs.iter().enumerate() {
            let route = table.route(&job.route);
            if let Some(route) = route.filter(|route| route.takes(&job.repository, &job.ref_name)) {
                let space = table.space_of(route);
                let (_, places) = spaces
                    .entry(space.url().to_string())
                    .or_insert((space, Vec::new()));
                places.push(at);
            }
        }
        for (space, places) in spaces.into_values() {
            let repository = &jobs[places[0]].repository;
            let names: Vec<_> = places.iter().map(|at| &jobs[*at].ref_name).collect();
            let wanted = wanted_of(table, space, jobs[places[0]]);
            let found = self.bridge.which_are_there(
                (space, repository),
                wanted,
                &names,
                since,
                Some(deadline),
            );
            let found = Box::pin(found).await;
            for (nth, at) in places.into_iter().enumerate() {
                sights[at] = match &found {
                    Ok(there) if there[nth] => Sight::There,
                    Ok(_) => Sight::Missing,
                    Err(err) => unknown(jobs[at], err),
                };
            }
        }
        Ok(sights)
    }
}

/// What the routes of a job's repository want of it.
fn wanted_of(table: &RouteTable, space: &Space, job: &Job) -> Wanted {
    let routes = table.routes().iter();
    wanted(routes.filter(|route| {
        route.repository() == &job.repository && table.space_of(route).url() == space.url()
    }))
}

fn unknown(job: &Job, err: &Error) -> Sight {
    let failed = Report::failed(job, err);
    Sight::Unknown(failed.into())
}

/// How long ago the look for a ref was due that is taken now, so long after its event.
#[must_use]
pub fn overdue(age: Duration) -> Duration {
    let due = LOOKS.into_iter().rev().find(|look| *look <= age);
    due.map_or(Duration::ZERO, |due| age.saturating_sub(due))
}

/// What is said of a ref that is looked for again.
#[must_use]
pub fn awaited(job: &Job) -> Report {
    Report::ignored(
        job,
        "the Git server does not show this ref; it is looked for again 2, 7 and 70 seconds after the event".into(),
    )
}
