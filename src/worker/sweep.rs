//! The sweep: what no event told of is found by looking.

mod hosts;
mod swept;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

use futures_util::{StreamExt, stream, stream::FuturesUnordered};

use self::hosts::{Hosts, Turn};
pub use self::swept::Swept;
use super::Worker;
use crate::{
    bucket::Current,
    deadline::within,
    deliver::{Deliverer, Refs, holder::Holder, too_many, wanted},
    error::{Error, host},
    outcome::Subject,
    progress::Stage,
    push::{CommitId, RefName, RepositoryName},
    queue::{Job, Part},
    remote::Connections,
    route::{Destination, Route, RouteTable, Space, Sweep},
    table::Reading,
};

/// How many objects in a row S3 may not tell of, before it is taken to be down.
const MOST_UNREAD: u32 = 3;

/// How many objects of a repository are looked at at once.
const HEADS_AT_ONCE: usize = 8;

/// How many repositories one message may stand for: as many as are asked in half of a function's time.
pub(super) const REPOSITORIES_A_PART: usize = 2_000;

/// The routes of one repository.
#[derive(Clone)]
struct Group<'a> {
    space: &'a Space,
    repository: &'a RepositoryName,
    routes: Vec<&'a Route>,
    /// Whether others may wait for it: those that take long come last.
    is_patient: bool,
}

impl Worker {
    /// Asks each repository, or those of a part, for its refs once, compares each object with its ref, and has `enqueue` take
    /// a job for each that differs.
    pub async fn sweep(
        &self,
        request_id: &str,
        part: Option<Part>,
        deadline: Option<Instant>,
        enqueue: impl AsyncFn(Job) -> Result<(), Error>,
    ) -> Swept {
        let started = Instant::now();
        let mut swept = Swept::default();
        let read = async { Ok(self.bridge.table.read().await) };
        let read = within(deadline, Stage::Sweep, read).await;
        let table = match &read {
            Ok(Reading::Newest(table)) => Some(table),
            // Before a table is stored, there is nothing that could differ.
            Ok(Reading::Never) => {
                swept.tables_missing = 1;
                None
            }
            // A lost event is made up for all the same. That somebody has to mend the table is said each time.
            Ok(Reading::Spoiled { last, fault }) => {
                swept.failed(Subject::default(), fault.cause());
                last.as_ref()
            }
            Ok(Reading::Unread { fault, .. }) => {
                swept.failed(Subject::default(), &fault.error());
                None
            }
            Err(err) => {
                swept.failed(Subject::default(), err);
                None
            }
        };
        if let Some(table) = table {
            let groups = groups(table, part);
            let sweep = Sweeping {
                bridge: &self.bridge,
                table,
                request_id,
                deadline,
                enqueue,
            };
            sweep.all(groups, self.at_once, &mut swept).await;
            swept.in_order_of(table);
        }
        swept.took = started.elapsed();
        swept
    }

    /// How many messages a sweep of all repositories is to be cut into.
    pub(super) async fn parts(&self, deadline: Instant) -> u32 {
        let read = async { Ok(self.bridge.table.read().await) };
        let read = within(Some(deadline), Stage::Sweep, read).await;
        let Ok(
            Reading::Newest(table)
            | Reading::Spoiled {
                last: Some(table), ..
            },
        ) = read
        else {
            // The sweep says why.
            return 1;
        };
        let parts = groups(&table, None).len().div_ceil(REPOSITORIES_A_PART);
        u32::try_from(parts).unwrap_or(u32::MAX).max(1)
    }
}

/// What a sweep does, over and over.
struct Sweeping<'a, E> {
    bridge: &'a Deliverer,
    table: &'a RouteTable,
    request_id: &'a str,
    deadline: Option<Instant>,
    enqueue: E,
}

impl<E: AsyncFn(Job) -> Result<(), Error>> Sweeping<'_, E> {
    async fn all(&self, mut groups: Vec<Group<'_>>, at_once: usize, swept: &mut Swept) {
        // Should the time be over before the last, it is another one each time.
        fastrand::shuffle(&mut groups);
        // Of many that ask at once, one finds out whether a login is still good.
        self.bridge.logins.prove_again();
        let mut connections: HashMap<usize, Connections> = HashMap::new();
        let mut told = HashSet::new();
        let of_hosts = groups
            .into_iter()
            .map(|group| (host(&group.space.url().to_string()).to_owned(), group));
        let mut hosts = Hosts::new(of_hosts, at_once);
        let mut running = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            while let Some(turn) = hosts.next(now) {
                let connections = connections.entry(turn.host).or_default().clone();
                running.push(self.repository(turn, connections));
            }
            let rested = hosts.rested(now);
            if running.is_empty() && rested.is_none() {
                return;
            }
            let rest = async {
                match rested {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let (turn, seen, result) = tokio::select! {
                Some(done) = running.next(), if !running.is_empty() => done,
                () = rest => continue,
            };
            swept.add(seen);
            // S3 is down: every object would say the same.
            let is_over = swept.unread >= MOST_UNREAD;
            let repository = turn.what.repository;
            match result {
                Ok(()) => {
                    swept.repositories += 1;
                    hosts.answered(turn.host);
                }
                Err(Error::Unreachable { .. }) if !turn.what.is_patient => {
                    let what = Group {
                        is_patient: true,
                        ..turn.what
                    };
                    hosts.later(Turn { what, ..turn });
                }
                Err(err @ Error::Busy { wait, .. }) => {
                    let host = host(&turn.what.space.url().to_string()).to_owned();
                    let given_up = hosts.rest(turn, wait, self.deadline, Instant::now());
                    if let Some(given_up) = given_up {
                        swept.not_reached += given_up;
                        if told.insert(host) {
                            swept.failed(repository, &err);
                        }
                    }
                }
                Err(err) => {
                    hosts.answered(turn.host);
                    swept.not_reached += 1;
                    // Each of its repositories would say the same of a host.
                    if err
                        .silent()
                        .is_none_or(|silent| told.insert(silent.to_owned()))
                    {
                        swept.failed(repository, &err);
                    }
                    if matches!(
                        err,
                        Error::Deadline { .. } | Error::Queue { .. } | Error::Bucket { .. }
                    ) {
                        swept.not_reached += hosts.left();
                        return;
                    }
                }
            }
            if is_over {
                swept.not_reached += hosts.left();
                return;
            }
        }
    }

    /// Looks at one repository: what was seen, and whether that was all.
    async fn repository<'g>(
        &self,
        turn: Turn<Group<'g>>,
        connections: Connections,
    ) -> (Turn<Group<'g>>, Swept, Result<(), Error>) {
        let mut seen = Swept::default();
        let look = self.look(&turn.what, connections, &mut seen);
        let result = within(self.deadline, Stage::Sweep, Box::pin(look)).await;
        (turn, seen, result)
    }

    async fn look(
        &self,
        group: &Group<'_>,
        connections: Connections,
        seen: &mut Swept,
    ) -> Result<(), Error> {
        let wanted = wanted(group.routes.iter().copied());
        let (space, repository) = (group.space, group.repository);
        let refs = self.bridge.refs(
            space,
            repository,
            wanted,
            self.deadline,
            group.is_patient,
            connections,
        );
        let Refs {
            found: mut refs,
            is_cut,
        } = refs.await?;
        if is_cut {
            // What exact routes name is there all the same.
            seen.failed(repository, &too_many(repository));
            seen.not_reached += 1;
        }
        fastrand::shuffle(&mut refs);
        let mut objects = Vec::new();
        for &route in &group.routes {
            let taken = |(name, _): &&(RefName, _)| route.pattern().matches(name);
            if route.pattern().exact().is_some() && !refs.iter().any(|found| taken(&found)) {
                seen.missing_refs += 1;
            }
            for (name, tip) in refs.iter().filter(taken) {
                match route.destination(space, name) {
                    Ok(to) => objects.push((route, to, tip.commit)),
                    Err(err) => seen.failed_at(route, name, &err.into()),
                }
            }
        }
        let looks = stream::iter(objects).map(async |(route, to, tip)| {
            let found = look(self.bridge, self.table, route, &to, tip).await;
            (route, to, found)
        });
        let mut looks = looks.buffer_unordered(HEADS_AT_ONCE);
        while let Some((route, to, found)) = looks.next().await {
            match found {
                Ok(found) => {
                    seen.unread = 0;
                    match found {
                        Found::Differs => {
                            (self.enqueue)(job(to, self.request_id)).await?;
                            seen.drifted += 1;
                        }
                        Found::NoObject => seen.undelivered += 1,
                        Found::AsItShouldBe => {}
                    }
                    seen.objects += 1;
                }
                Err(err) => {
                    seen.unread += u32::from(err.is_transient());
                    // S3 is down: every object would say the same.
                    if seen.unread >= MOST_UNREAD {
                        return Err(err);
                    }
                    seen.failed_at(route, &to.ref_name, &err);
                }
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

/// The repositories of the table, or those of a part.
fn groups(table: &RouteTable, part: Option<Part>) -> Vec<Group<'_>> {
    let mut groups = BTreeMap::new();
    for route in table.routes().iter().filter(|route| !route.is_paused()) {
        let space = table.space_of(route);
        let url = route.repository().url_in(space.url());
        if part.is_some_and(|part| !part.has(&url)) {
            continue;
        }
        let group = groups.entry(url).or_insert_with(|| Group {
            space,
            repository: route.repository(),
            routes: Vec::new(),
            is_patient: false,
        });
        group.routes.push(route);
    }
    groups.into_values().collect()
}
