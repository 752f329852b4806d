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
    jobs: BTreeMap<Due, Awaited>,
    /// Where the job of a route and a ref is.
    places: HashMap<(String, RefName), Due>,
    /// Whether it is asked now.
    is_asked: bool,
}

type Due = (Instant, u64);

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
            let is_due = |(due, _): &Due| *due <= now;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(repository: &str, name: &str) -> Job {
        let (repository, name) = (repository.parse().unwrap(), name.parse().unwrap());
        Job::unhinted("all".into(), repository, name, "")
    }

    fn names(due: &[(RepositoryName, Vec<Awaited>)]) -> Vec<String> {
        let jobs = due.iter().flat_map(|(_, jobs)| jobs);
        jobs.map(|awaited| awaited.job.ref_name.to_string())
            .collect()
    }

    #[test]
    fn a_repository_is_asked_for_all_that_is_due_and_once_at_a_time() {
        let (mut awaited, start) = (AwaitedRefs::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        awaited.take(job("APP/web", "refs/heads/a"), start);
        let later = job("APP/web", "refs/heads/b").awaited(Duration::from_secs(2));
        awaited.take(later, start);
        assert_eq!(awaited.next_due(), Some(start));
        let first = awaited.due(start);
        assert_eq!(names(&first), ["refs/heads/a"]);
        awaited.take(job("APP/web", "refs/heads/c"), after(1));
        awaited.take(job("APP/api", "refs/heads/d"), after(1));
        // It is being asked; another one is not.
        assert_eq!(names(&awaited.due(after(3))), ["refs/heads/d"]);
        assert_eq!(awaited.next_due(), None);
        let (name, jobs) = &first[0];
        awaited.asked(name, vec![(jobs[0].clone(), after(2))]);
        assert_eq!(
            names(&awaited.due(after(3))),
            ["refs/heads/c", "refs/heads/a", "refs/heads/b"]
        );
        awaited.asked(name, Vec::new());
        assert!(!awaited.has(name));
        assert!(awaited.has(&"APP/api".parse().unwrap()));
    }

    #[test]
    fn a_newer_event_of_a_ref_takes_the_place_of_an_older_one() {
        let (mut awaited, start) = (AwaitedRefs::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let named = job("APP/web", "refs/heads/a");
        awaited.take(named.awaited(Duration::from_secs(2)), start);
        awaited.take(named.awaited(Duration::from_secs(2)), after(1));
        assert_eq!((awaited.len(), awaited.next_due()), (1, Some(after(3))));
        // Also while the older one is looked for.
        let due = awaited.due(after(3));
        awaited.take(named, after(4));
        awaited.asked(&due[0].0, vec![(due[0].1[0].clone(), after(8))]);
        assert_eq!((awaited.len(), awaited.next_due()), (1, Some(after(4))));
    }

    #[test]
    fn of_too_many_the_oldest_is_forgotten_where_there_are_most() {
        let (mut awaited, start) = (AwaitedRefs::default(), Instant::now());
        awaited.take(job("APP/web", "refs/heads/real"), start);
        for n in 0..=MOST {
            awaited.take(job("APP/api", &format!("refs/heads/{n}")), start);
        }
        assert_eq!((awaited.len(), awaited.forgotten()), (MOST, 2));
        let due = names(&awaited.due(start));
        assert!(due.contains(&"refs/heads/real".into()));
        assert!(!due.contains(&"refs/heads/1".into()) && due.contains(&"refs/heads/2".into()));
        assert_eq!(awaited.forgotten(), 0);
    }
}
