//! The refs that a look at a pipeline is about: which of its runs are of which ref, and what their versions hold.

use super::{
    HEALED_FOR, Holds, Run, State, Why,
    run::Teller,
    source::{Objects, Source, Taken},
    visit::{Asked, Place},
};
use crate::{
    bucket::{Address, Holding},
    error::Error,
    push::RefName,
    route::{Destination, Route, RouteTable},
};

/// How many versions are kept in memory.
const KEPT: usize = 10_000;

/// A ref that a pipeline builds.
pub(super) struct OfRef<'a> {
    pub(super) route: &'a Route,
    pub(super) to: Destination,
    /// The newest first.
    pub(super) runs: Vec<Run>,
}

/// The refs that a pipeline builds.
#[derive(Default)]
pub(super) struct Refs<'a> {
    pub(super) found: Vec<OfRef<'a>>,
    /// Runs whose versions cannot be read. Their refs are not among those that were found.
    pub(super) unread: Vec<(Run, Destination)>,
    /// Whether there are older runs.
    pub(super) is_cut: bool,
    /// What went wrong.
    pub(super) faults: Vec<Error>,
}

impl Refs<'_> {
    /// The run of this id, if it failed, and where it belongs.
    pub(super) fn failed(&self, id: &str) -> Option<(Run, Destination)> {
        let found = self.found.iter();
        let found = found.flat_map(|own| own.runs.iter().map(|run| (run, &own.to)));
        let unread = self.unread.iter().map(|(run, to)| (run, to));
        let mut all = found.chain(unread);
        let found = all.find(|(run, _)| run.id == id && run.state == State::Failed);
        found.map(|(run, to)| (run.clone(), to.clone()))
    }
}

impl Teller {
    /// The refs of these routes that a pipeline builds; `None` if it is too long ago that anything changed.
    pub(super) async fn refs<'a>(
        &self,
        table: &RouteTable,
        routes: Vec<&'a Route>,
        place: &Place,
        asked: Asked<'_>,
    ) -> Result<Option<Refs<'a>>, Error> {
        let name = asked.name;
        let objects = objects(&routes, name);
        let read = self
            .sources
            .read(name, asked.builds, &place.region, objects);
        let Some(source) = Box::pin(read).await? else {
            let reason = format!(
                "there is no pipeline and no project of builds of the name {name}; check `pipeline` in the routing table"
            );
            return Err(Error::Results {
                reason,
                transient: false,
            });
        };
        if let Some(changed) = asked.changed.filter(|_| !asked.is_last) {
            let found = source.runs.iter().find(|taken| taken.run.id == changed.id);
            let is_behind =
                found.is_none_or(|taken| changed.is_over && taken.run.state == State::Running);
            if is_behind {
                let reason = format!(
                    "{name} does not show yet what became of its run {}",
                    changed.id
                );
                return Err(Error::Results {
                    reason,
                    transient: true,
                });
            }
        }
        if let Why::Schedule { now } = asked.why {
            let newest = source.runs.iter().map(|taken| taken.run.updated).max();
            if newest.is_none_or(|newest| now - newest > HEALED_FOR) {
                return Ok(None);
            }
        }
        let mut refs = Refs {
            is_cut: source.is_cut,
            ..Refs::default()
        };
        for route in routes {
            self.refs_of(route, table, name, &source, &mut refs).await;
        }
        Ok(Some(refs))
    }

    /// Those of one route. A ref of which one version cannot be read is left out: without that run its comment were not true.
    async fn refs_of<'a>(
        &self,
        route: &'a Route,
        table: &RouteTable,
        name: &str,
        source: &Source,
        refs: &mut Refs<'a>,
    ) {
        let (mut found, mut unread): (Vec<OfRef<'a>>, Vec<RefName>) = (Vec::new(), Vec::new());
        for Taken { run, object } in &source.runs {
            let names = match (route.pattern().exact(), object) {
                (Some(exact), _) => vec![exact.clone()],
                (None, Some((_, key))) => route.refs_of(key),
                (None, None) => Vec::new(),
            };
            let names = names
                .into_iter()
                .filter(|own| route.pipeline(own).as_deref() == Some(name));
            for ref_name in names {
                if unread.contains(&ref_name) {
                    continue;
                }
                let to = match route.destination(table.space_of(route), &ref_name) {
                    Ok(to) => to,
                    Err(err) => {
                        refs.faults.push(err.into());
                        unread.push(ref_name);
                        continue;
                    }
                };
                let is_own = object
                    .as_ref()
                    .is_none_or(|(bucket, key)| *bucket == to.bucket && *key == to.key.as_str());
                if !is_own {
                    continue;
                }
                let holds = match self.holds(&to, &run.version).await {
                    Ok(holds) => holds,
                    Err(err) => {
                        refs.faults.push(err);
                        unread.push(ref_name);
                        refs.unread.push((run.clone(), to));
                        continue;
                    }
                };
                let run = Run {
                    holds,
                    ..run.clone()
                };
                match found.iter_mut().find(|own| own.to.ref_name == ref_name) {
                    Some(own) => own.runs.push(run),
                    None => found.push(OfRef {
                        route,
                        to,
                        runs: vec![run],
                    }),
                }
            }
        }
        let (left_out, told): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|own| unread.contains(&own.to.ref_name));
        refs.found.extend(told);
        for OfRef { to, runs, .. } in left_out {
            let runs = runs.into_iter().map(|run| (run, to.clone()));
            refs.unread.extend(runs);
        }
    }

    /// What a version holds. Versions do not change.
    async fn holds(&self, to: &Destination, version: &str) -> Result<Option<Holds>, Error> {
        let at = (
            to.bucket.clone(),
            to.key.as_str().to_owned(),
            version.to_owned(),
        );
        let mut kept = self.holds.lock().await;
        if let Some(holds) = kept.get(&at) {
            return Ok(holds.clone());
        }
        if version.is_empty() {
            return Ok(None);
        }
        let address = Address {
            bucket: &to.bucket,
            key: to.key.as_str(),
        };
        let found = Box::pin(self.s3.version(address, version)).await?;
        let is_own = |holding: &Holding| {
            holding.repository == to.repository.as_str() && holding.ref_name == to.ref_name.as_str()
        };
        let found = found.filter(|(holding, _)| is_own(holding));
        let holds = found.map(|(holding, written)| Holds {
            commit: holding.commit,
            subject: holding.subject.unwrap_or_default(),
            author: holding.author.unwrap_or_default(),
            written,
        });
        if kept.len() > KEPT {
            kept.clear();
        }
        kept.insert(at, holds.clone());
        Ok(holds)
    }
}

/// How it is known what a pipeline's runs took.
fn objects(routes: &[&Route], name: &str) -> Objects {
    let mut globs = routes.iter().filter(|route| route.is_glob());
    let is_one = |route: &&&Route| {
        route
            .pipelines()
            .is_some_and(|own| own.exact() == Some(name))
    };
    match globs.next() {
        None => Objects::Table,
        Some(_)
            if routes
                .iter()
                .filter(|route| route.is_glob())
                .any(|route| is_one(&route)) =>
        {
            Objects::Run
        }
        Some(_) => Objects::Pipeline,
    }
}
