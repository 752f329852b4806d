//! The sweep: what no event told of is found by looking.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use serde::Serialize;
use tracing::Level;

use super::Worker;
use crate::{
    bucket::Current,
    deadline::within,
    deliver::{Deliverer, Refs, holder::Holder, too_many, wanted},
    error::Error,
    outcome::{Report, Subject, millis},
    plain,
    progress::Stage,
    push::{CommitId, RefName, RepositoryName},
    queue::Job,
    route::{Destination, Route, RouteTable, Space, Sweep},
    table::Reading,
    telemetry::{self, Counted, Metric},
};

/// How many objects in a row S3 may not tell of, before it is taken to be down.
const MOST_UNREAD: u32 = 3;

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
    unread: u32,
    /// What could not be looked at.
    #[serde(skip)]
    pub failures: Vec<Report>,
    /// How long it took, in milliseconds.
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub took: Duration,
}

/// The routes of one repository.
struct Group<'a> {
    space: &'a Space,
    repository: &'a RepositoryName,
    routes: Vec<&'a Route>,
}

impl Worker {
    /// Asks each repository for its refs once, compares each object with its ref, and has `enqueue` take a job for each that
    /// differs.
    pub async fn sweep(
        &self,
        request_id: &str,
        deadline: Option<Instant>,
        enqueue: impl AsyncFn(Job) -> Result<(), Error>,
    ) -> Swept {
        let started = Instant::now();
        let mut swept = Swept::default();
        let read = async { Ok(self.bridge.table.read().await) };
        match within(deadline, Stage::Sweep, read).await {
            Ok(Reading::Newest(table)) => {
                swept
                    .all(&self.bridge, &table, request_id, deadline, enqueue)
                    .await;
                swept.in_order_of(&table);
            }
            // Before a table is stored, there is nothing that could differ.
            Ok(Reading::Never) => swept.tables_missing = 1,
            // A lost event is made up for all the same. That somebody has to mend the table is said each time.
            Ok(Reading::Spoiled { last, fault }) => {
                swept.failed(Subject::default(), fault.cause());
                if let Some(table) = last {
                    swept
                        .all(&self.bridge, &table, request_id, deadline, enqueue)
                        .await;
                    swept.in_order_of(&table);
                }
            }
            Ok(Reading::Unread { fault, .. }) => swept.failed(Subject::default(), &fault.error()),
            Err(err) => swept.failed(Subject::default(), &err),
        }
        swept.took = started.elapsed();
        swept
    }
}

impl Swept {
    async fn all(
        &mut self,
        bridge: &Deliverer,
        table: &RouteTable,
        request_id: &str,
        deadline: Option<Instant>,
        enqueue: impl AsyncFn(Job) -> Result<(), Error>,
    ) {
        let mut groups = groups(table);
        // Should the time be over before the last, it is another one each time.
        fastrand::shuffle(&mut groups);
        let mut told = HashSet::new();
        let mut rest: VecDeque<_> = groups.iter().map(|group| (group, false)).collect();
        while let Some((group, is_patient)) = rest.pop_front() {
            let enqueue = async |to: Destination| enqueue(job(to, request_id)).await;
            let looked = self.repository(bridge, table, group, (deadline, is_patient), enqueue);
            let Err(err) = within(deadline, Stage::Sweep, looked).await else {
                self.repositories += 1;
                continue;
            };
            match err {
                // Those that take long come last.
                Error::Unreachable { .. } if !is_patient => {
                    rest.push_back((group, true));
                    continue;
                }
                _ => self.not_reached += 1,
            }
            // Each of its repositories would say the same of a host.
            if err
                .silent()
                .is_none_or(|silent| told.insert(silent.to_owned()))
            {
                self.failed(group.repository, &err);
            }
            match err {
                Error::Deadline { .. } | Error::Queue { .. } | Error::Bucket { .. } => {
                    self.not_reached += rest.len();
                    return;
                }
                _ => {}
            }
        }
    }

    async fn repository(
        &mut self,
        bridge: &Deliverer,
        table: &RouteTable,
        group: &Group<'_>,
        (deadline, is_patient): (Option<Instant>, bool),
        enqueue: impl AsyncFn(Destination) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let wanted = wanted(group.routes.iter().copied());
        let (space, repository) = (group.space, group.repository);
        let refs = bridge.refs(space, repository, wanted, deadline, is_patient);
        let Refs {
            found: mut refs,
            is_cut,
        } = refs.await?;
        if is_cut {
            // What exact routes name is there all the same.
            self.failed(group.repository, &too_many(group.repository));
            self.not_reached += 1;
        }
        fastrand::shuffle(&mut refs);
        for &route in &group.routes {
            let taken = |(name, _): &&(RefName, _)| route.pattern().matches(name);
            if route.pattern().exact().is_some() && !refs.iter().any(|found| taken(&found)) {
                self.missing_refs += 1;
            }
            for (name, tip) in refs.iter().filter(taken) {
                let to = match route.destination(group.space, name) {
                    Ok(to) => to,
                    Err(err) => {
                        self.failed_at(route, name, &err.into());
                        continue;
                    }
                };
                match look(bridge, table, route, &to, tip.commit).await {
                    Ok(found) => {
                        self.unread = 0;
                        match found {
                            Found::Differs => {
                                enqueue(to).await?;
                                self.drifted += 1;
                            }
                            Found::NoObject => self.undelivered += 1,
                            Found::AsItShouldBe => {}
                        }
                        self.objects += 1;
                    }
                    Err(err) => {
                        self.unread += u32::from(err.is_transient());
                        // S3 is down: every object would say the same.
                        if self.unread >= MOST_UNREAD {
                            return Err(err);
                        }
                        self.failed_at(route, name, &err);
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells failures in the order of the table, whoever was asked first.
    fn in_order_of(&mut self, table: &RouteTable) {
        self.failures.sort_by_cached_key(|failure| {
            let is_own = |route: &Route| match (&failure.route, &failure.repository) {
                (Some(name), _) => route.name() == name,
                (None, Some(repository)) => route.repository().as_str() == repository,
                (None, None) => true,
            };
            table.routes().iter().position(is_own)
        });
    }

    fn failed_at(&mut self, route: &Route, ref_name: &RefName, err: &Error) {
        let subject = Subject {
            route: Some(route.name()),
            repository: Some(route.repository()),
            ref_name: Some(ref_name),
        };
        self.failed(subject, err);
    }

    fn failed<'a>(&mut self, subject: impl Into<Subject<'a>>, err: &Error) {
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

/// What a look at an object found.
enum Found {
    AsItShouldBe,
    /// It is not what its ref is, and the route's `sweep` wants to know.
    Differs,
    /// There is none, and the route's `sweep` does not mind.
    NoObject,
}

async fn look(
    bridge: &Deliverer,
    table: &RouteTable,
    route: &Route,
    to: &Destination,
    tip: CommitId,
) -> Result<Found, Error> {
    let at = to.into();
    bridge.tips.saw(at, Some(tip), Instant::now());
    let head = bridge.s3.head(at).await?.current;
    Ok(
        match (differs(head.as_ref(), to, table, route.sweep(), tip), &head) {
            (true, _) => Found::Differs,
            (false, None) => Found::NoObject,
            (false, Some(_)) => Found::AsItShouldBe,
        },
    )
}

/// Whether there is a job for the sweep: `head` is its object's current version, if there is one.
#[must_use]
pub fn differs(
    head: Option<&Current>,
    to: &Destination,
    table: &RouteTable,
    sweep: Sweep,
    tip: CommitId,
) -> bool {
    match head.map(|current| Holder::of(current, to, table)) {
        None => sweep == Sweep::All,
        Some(Holder::Us(ours)) => ours.commit != tip,
        // The delivery says whose it is.
        Some(Holder::Foreign | Holder::Unrouted { .. } | Holder::Other { .. }) => true,
    }
}

fn job(to: Destination, request_id: &str) -> Job {
    Job {
        swept: true,
        ..Job::unhinted(to.route, to.repository, to.ref_name, request_id)
    }
}

fn groups(table: &RouteTable) -> Vec<Group<'_>> {
    let mut groups = BTreeMap::new();
    for route in table.routes().iter().filter(|route| !route.is_paused()) {
        let space = table.space_of(route);
        let group = groups
            .entry(route.repository().url_in(space.url()))
            .or_insert_with(|| Group {
                space,
                repository: route.repository(),
                routes: Vec::new(),
            });
        group.routes.push(route);
    }
    groups.into_values().collect()
}
