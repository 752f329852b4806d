//! People who push, and how long each push takes.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::support::{
    generate::noise,
    service::project_push,
    upstream::{Repository, Upstream},
};

/// How many pushes there are a second.
const PUSHES: u32 = 5;

/// A branch of a repository.
pub(super) type Branch = (String, String);

/// People who push to repositories at random.
pub(super) struct People {
    pub(super) repositories: HashMap<String, Repository>,
    branches: Vec<Branch>,
    random: Rng,
    next: Instant,
}

impl People {
    /// Repositories with so many branches each.
    pub(super) fn new(upstream: &Upstream, repositories: &[(String, usize)]) -> Self {
        let mut branches = Vec::new();
        for (name, count) in repositories {
            branches.extend((0..*count).map(|n| (name.clone(), format!("refs/heads/b{n}"))));
        }
        let names = repositories.iter().map(|(name, _)| name.clone());
        let mut people = Self {
            repositories: names
                .map(|name| (name.clone(), upstream.repository(&name)))
                .collect(),
            branches,
            random: Rng::with_seed(7),
            next: Instant::now(),
        };
        for branch in people.branches.clone() {
            people.commit(&branch);
        }
        people
    }

    /// The repositories that one space has.
    pub(super) fn routes(&self, space: &str, key: impl Fn(&Branch) -> String) -> String {
        let route = |branch: &Branch| {
            let (repository, name) = branch;
            let key = key(branch);
            format!(
                "[[route]]\nname = \"{repository} {name}\"\nspace = \"{space}\"\nrepository = \"{repository}\"\nref = \"{name}\"\n\
                 object = \"{key}\"\n"
            )
        };
        self.branches.iter().map(route).collect()
    }

    pub(super) fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// A new commit, if it is time for one, and the webhook that tells of it.
    pub(super) fn push(&mut self) -> Option<(Branch, String, String)> {
        if Instant::now() < self.next {
            return None;
        }
        self.next = Instant::now().max(self.next + Duration::from_secs(1) / PUSHES);
        let branch = self.random.choice(&self.branches).unwrap().clone();
        let commit = self.commit(&branch);
        let body = webhook(&branch, &commit);
        Some((branch, commit, body))
    }

    pub(super) fn commit(&mut self, (repository, name): &Branch) -> String {
        let (size, seed) = (self.random.usize(10..20_000), self.random.u64(..));
        let tree = [("a", "a".into()), ("b", noise(size, seed).into())];
        self.repositories[repository].commit_on(name, &tree)
    }
}

/// The webhook of a push.
pub(super) fn webhook((repository, name): &Branch, commit: &str) -> String {
    let name_only = repository.split_once('/').unwrap().1;
    let body = project_push("update", name, &[commit]);
    body.replace("\"name\":\"web\"", &format!("\"name\":\"{name_only}\""))
}

/// What was pushed and when; and how long it took.
#[derive(Default)]
pub(super) struct Times {
    waiting: HashMap<Branch, Vec<(String, Instant)>>,
    took: Vec<Duration>,
}

impl Times {
    pub(super) fn pushed(&mut self, branch: Branch, commit: String) {
        let waiting = self.waiting.entry(branch).or_default();
        waiting.push((commit, Instant::now()));
    }

    /// An object holds a commit, and so what was pushed to its branch before.
    pub(super) fn delivered(&mut self, branch: &Branch, commit: &str) {
        let Some(waiting) = self.waiting.get_mut(branch) else {
            return;
        };
        if let Some(at) = waiting.iter().position(|(other, _)| other == commit) {
            let delivered = waiting.drain(..=at);
            self.took
                .extend(delivered.map(|(_, pushed)| pushed.elapsed()));
        }
    }

    /// The branches of which something is not delivered yet.
    pub(super) fn waiting(&self) -> Vec<Branch> {
        let waiting = self.waiting.iter().filter(|(_, pushes)| !pushes.is_empty());
        waiting.map(|(branch, _)| branch.clone()).collect()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.waiting.values().all(Vec::is_empty)
    }

    /// How long most of them took: so many of a hundred.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let last = took.len().saturating_sub(1);
        took.get(last * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(
            f,
            "{} pushes: p50 {p50:.0?}, p99 {p99:.0?}, max {max:.0?}",
            self.took.len()
        )
    }
}
