//! Refs that are looked for: in memory, by repository, and never more than so many. Pure over the time that it is told.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::Instant,
};

use crate::{
    push::{RefName, RepositoryName},
    queue::{Job, Recheck},
};

/// How many there may be.
const MOST: usize = 10_000;

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct AwaitedRefs {
    repositories: HashMap<RepositoryName, Repository>,
    /// How many came, ever.
    came: u64,
    /// How many were forgotten, since that was asked for.
    forgotten: usize,
}

#[derive(Debug, Default)]
struct Repository {
    /// By when the next look is due, and in the order in which they came.
    jobs: BTreeMap<Place, Awaited>,
    /// Where the job of a route and a ref is.
    places: HashMap<(String, RefName), Place>,
    /// Whether it is asked now.
    is_asked: bool,
}

type Place = (Instant, u64);

/// The job of a ref that is looked for.
#[derive(Debug, Clone)]
pub(super) struct Awaited {
    pub(super) job: Job,
    /// When its event came.
    pub(super) came: Instant,
    number: u64,
}

impl Awaited {
    fn name(&self) -> (String, RefName) {
        (self.job.route.clone(), self.job.ref_name.clone())
    }
}

impl AwaitedRefs {
    /// Takes a job, in place of one that is for the same. Where there are too many, the oldest one of the repository that has most is forgotten.
    pub(super) fn take(&mut self, job: Job, now: Instant) {
        self.came += 1;
        let due = match job.recheck {
            Some(Recheck::Ref { after }) => now + after,
            _ => now,
        };
        let number = self.came;
        let came = now;
        self.keep(Awaited { job, came, number }, due);
        if self.len() > MOST {
            self.forget_one();
        }
    }

    /// How many were forgotten since this was last asked.
    pub(super) fn forgotten(&mut self) -> usize {
        std::mem::take(&mut self.forgotten)
    }

    /// Whether refs of a repository are looked for.
    pub(super) fn has(&self, repository: &RepositoryName) -> bool {
        self.repositories.contains_key(repository)
    }

    /// Hands out what is due, of each repository that is not being asked. Each must come back with [`Self::asked`].
    pub(super) fn due(&mut self, now: Instant) -> Vec<(RepositoryName, Vec<Awaited>)> {
        let mut due = Vec::new();
        for (name, repository) in &mut self.repositories {
            let is_due = |(due, _): &Place| *due <= now;
            if repository.is_asked || !repository.jobs.keys().next().is_some_and(is_due) {
                continue;
            }
            let later = repository.jobs.split_off(&(now, u64::MAX));
            let jobs = std::mem::replace(&mut repository.jobs, later);
            repository.is_asked = true;
            let jobs: Vec<_> = jobs.into_values().collect();
            for awaited in &jobs {
                repository.places.remove(&awaited.name());
            }
            due.push((name.clone(), jobs));
        }
        due
    }

    /// Takes note that a repository was asked, and looks for these again.
    pub(super) fn asked(&mut self, name: &RepositoryName, again: Vec<(Awaited, Instant)>) {
        for (awaited, due) in again {
            self.keep(awaited, due);
        }
        if let Some(repository) = self.repositories.get_mut(name) {
            repository.is_asked = false;
            if repository.jobs.is_empty() {
                self.repositories.remove(name);
            }
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let idle = self.repositories.values().filter(|other| !other.is_asked);
        let dues = idle.filter_map(|repository| repository.jobs.keys().next());
        dues.map(|(due, _)| *due).min()
    }

    pub(super) fn len(&self) -> usize {
        let repositories = self.repositories.values();
        repositories.map(|repository| repository.jobs.len()).sum()
    }

    fn keep(&mut self, awaited: Awaited, due: Instant) {
        let repository = awaited.job.repository.clone();
        let repository = self.repositories.entry(repository).or_default();
        let place = (due, awaited.number);
        match repository.places.entry(awaited.name()) {
            // The event of the newer one has led to a look of its own.
            Entry::Occupied(other) if other.get().1 > awaited.number => return,
            Entry::Occupied(mut other) => {
                repository.jobs.remove(other.get());
                other.insert(place);
            }
            Entry::Vacant(free) => {
                free.insert(place);
            }
        }
        repository.jobs.insert(place, awaited);
    }

    fn forget_one(&mut self) {
        let repositories = self.repositories.values_mut();
        let Some(most) = repositories.max_by_key(|repository| repository.jobs.len()) else {
            return;
        };
        let oldest = most.jobs.iter().min_by_key(|(_, awaited)| awaited.number);
        if let Some(at) = oldest.map(|(at, _)| *at)
            && let Some(awaited) = most.jobs.remove(&at)
        {
            most.places.remove(&awaited.name());
            self.forgotten += 1;
        }
    }
}
