//! What a sweep saw, and how that is told.

use std::time::Duration;

use serde::Serialize;
use tracing::Level;

use crate::{
    error::Error,
    outcome::{Report, Subject, millis},
    plain,
    push::RefName,
    route::{Route, RouteTable},
    telemetry::{self, Counted, Metric},
};

/// What a sweep saw.
#[derive(Debug, Default, Serialize)]
pub struct Swept {
    /// Repositories that were asked.
    pub repositories: usize,
    /// Objects that were compared with their refs.
    pub objects: usize,
    /// Those that differed. There is a job for each by now.
    pub drifted: usize,
    /// Refs that routes name and repositories do not have.
    pub missing_refs: usize,
    /// Refs that a glob takes and that have no object: no event of them came.
    pub undelivered: usize,
    /// Repositories of which not every object was looked at.
    pub not_reached: usize,
    /// Whether there is no routing table.
    pub tables_missing: usize,
    /// Objects in a row that S3 does not tell of now, though it may later.
    #[serde(skip)]
    pub(super) unread: u32,
    /// What could not be looked at.
    #[serde(skip)]
    pub failures: Vec<Report>,
    /// How long it took, in milliseconds.
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub took: Duration,
}

impl Swept {
    /// Adds what was seen of one repository.
    pub(super) fn add(&mut self, seen: Self) {
        let Self {
            repositories,
            objects,
            drifted,
            missing_refs,
            undelivered,
            not_reached,
            tables_missing,
            unread,
            failures,
            took: _,
        } = seen;
        // In a row, over all repositories.
        self.unread = if objects > 0 {
            unread
        } else {
            self.unread + unread
        };
        self.repositories += repositories;
        self.objects += objects;
        self.drifted += drifted;
        self.missing_refs += missing_refs;
        self.undelivered += undelivered;
        self.not_reached += not_reached;
        self.tables_missing += tables_missing;
        self.failures.extend(failures);
    }

    /// Tells failures in the order of the table, whoever was asked first.
    pub(super) fn in_order_of(&mut self, table: &RouteTable) {
        self.failures.sort_by_cached_key(|failure| {
            let is_own = |route: &Route| match (&failure.route, &failure.repository) {
                (Some(name), _) => route.name() == name,
                (None, Some(repository)) => route.repository().as_str() == repository,
                (None, None) => true,
            };
            table.routes().iter().position(is_own)
        });
    }

    pub(super) fn failed_at(&mut self, route: &Route, ref_name: &RefName, err: &Error) {
        let subject = Subject {
            route: Some(route.name()),
            repository: Some(route.repository()),
            ref_name: Some(ref_name),
        };
        self.failed(subject, err);
    }

    pub(super) fn failed<'a>(&mut self, subject: impl Into<Subject<'a>>, err: &Error) {
        self.failures.push(Report {
            // The next sweep looks at it.
            again: err.is_transient(),
            ..Report::failed(subject, err)
        });
    }

    /// Writes it into the log, and counts it.
    pub fn log(&self, context: &impl Serialize) {
        #[derive(Serialize)]
        #[serde(tag = "outcome", rename = "swept")]
        struct Line<'a, C> {
            #[serde(flatten)]
            swept: &'a Swept,
            failures: usize,
            #[serde(flatten)]
            context: &'a C,
        }
        for failure in &self.failures {
            failure.log_failure(context);
        }
        let line = Line {
            swept: self,
            failures: self.failures.len(),
            context,
        };
        let metric = |name, count: usize| Metric {
            name,
            count: count as u64,
            by: &[&[]],
        };
        let mut metrics = vec![
            metric(Counted::SweepDrift, self.drifted),
            metric(Counted::SweepNotReached, self.not_reached),
            metric(Counted::RoutingTableMissing, self.tables_missing),
        ];
        // No alarm waits for it, so nobody pays for it where there is none.
        let undelivered = metric(Counted::SweepUndelivered, self.undelivered);
        metrics.extend((self.undelivered > 0).then_some(undelivered));
        telemetry::record(Level::INFO, &self.to_string(), &line, &metrics);
    }
}

impl std::fmt::Display for Swept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "sweep: repositories {}, objects {}, differed {}",
            self.repositories, self.objects, self.drifted
        )?;
        for (count, one, many) in [
            (self.missing_refs, "ref missing", "refs missing"),
            (
                self.undelivered,
                "ref without an object",
                "refs without an object",
            ),
            (self.failures.len(), "failure", "failures"),
            (
                self.not_reached,
                "repository not reached",
                "repositories not reached",
            ),
        ] {
            if count > 0 {
                write!(f, ", {}", plain::count(count, one, many))?;
            }
        }
        Ok(())
    }
}
