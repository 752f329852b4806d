//! Who has the turns. A repository, a space and a login each have a share of them, so that one whose Git server does not
//! answer leaves some to the others. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    progress::Progress,
    queue::Job,
    route::{Route, RouteTable},
};

/// Deliveries at a time: a sweep may find hundreds of branches at once.
const AT_A_TIME: usize = 8;

/// The share of whoever has many neighbours; and what each of a few neighbours always finds free.
const SHARE: usize = 2;

/// Whose fault it may be that a turn takes long: a repository, its space, and the login of that.
type Parties = [String; 3];

fn parties(table: &RouteTable, route: &Route) -> Parties {
    let space = table.space_of(route);
    [
        route.repository().url_in(space.url()),
        space.url().to_string(),
        format!("{:?}", space.credentials()),
    ]
}

/// How many turns each kind of party may have.
type Shares = [usize; 3];

fn shares(table: &RouteTable) -> Shares {
    let mut known = [const { BTreeSet::new() }; 3];
    for route in table.routes() {
        for (known, party) in known.iter_mut().zip(parties(table, route)) {
            known.insert(party);
        }
    }
    known.map(|parties| share(parties.len()))
}

/// How many turns one of so many parties may have.
fn share(parties: usize) -> usize {
    let of_others = SHARE * parties.saturating_sub(1);
    AT_A_TIME.saturating_sub(of_others).max(SHARE)
}

/// The turns that are taken.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// By the groups of their jobs.
    taken: HashMap<String, Turn>,
    /// By a table.
    shares: Option<(Arc<RouteTable>, Shares)>,
}

#[derive(Debug)]
struct Turn {
    progress: Arc<Progress>,
    /// If the table knows the job's route.
    parties: Option<Parties>,
}

impl Turns {
    /// Which jobs may have a turn now, by a table if there is one; `None` if no turn is left.
    pub(super) fn open(&mut self, table: Option<Arc<RouteTable>>) -> Option<Open> {
        if self.taken.len() >= AT_A_TIME {
            return None;
        }
        let mut full = [const { Vec::new() }; 3];
        if let Some(table) = &table {
            let shares = match &self.shares {
                Some((of, shares)) if Arc::ptr_eq(of, table) => *shares,
                _ => shares(table),
            };
            self.shares = Some((Arc::clone(table), shares));
            for (kind, share) in shares.into_iter().enumerate() {
                full[kind] = self.with(kind, share);
            }
        }
        Some(Open { table, full })
    }

    /// The parties of a kind that have so many turns.
    fn with(&self, kind: usize, share: usize) -> Vec<String> {
        let mut counts = HashMap::<&String, usize>::new();
        for parties in self.taken.values().filter_map(|turn| turn.parties.as_ref()) {
            *counts.entry(&parties[kind]).or_default() += 1;
        }
        let full = counts.into_iter().filter(|(_, count)| *count >= share);
        full.map(|(party, _)| party.clone()).collect()
    }

    pub(super) fn begin(&mut self, group: String, job: &Job, open: &Open, progress: Arc<Progress>) {
        let parties = open.parties(job);
        self.taken.insert(group, Turn { progress, parties });
    }

    pub(super) fn end(&mut self, group: &str) {
        self.taken.remove(group);
    }

    /// How far the job of a group is.
    pub(super) fn of(&self, group: &str) -> Option<&Progress> {
        self.taken.get(group).map(|turn| &*turn.progress)
    }

    /// How far all jobs are.
    pub(super) fn all(&self) -> impl Iterator<Item = &Progress> {
        self.taken.values().map(|turn| &*turn.progress)
    }
}

/// What tells which jobs may have a turn.
pub(super) struct Open {
    table: Option<Arc<RouteTable>>,
    /// Who has its share, by kind.
    full: [Vec<String>; 3],
}

impl Open {
    /// Whether a job may have a turn. What no route takes ends at once.
    pub(super) fn takes(&self, job: &Job) -> bool {
        if self.full.iter().all(Vec::is_empty) {
            return true;
        }
        let has_share = |parties: Parties| {
            let mut all = self.full.iter().zip(parties);
            all.any(|(full, party)| full.contains(&party))
        };
        !self.parties(job).is_some_and(has_share)
    }

    fn parties(&self, job: &Job) -> Option<Parties> {
        let table = self.table.as_ref()?;
        Some(parties(table, table.route(&job.route)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Origin;

    type Space<'a> = (&'a str, &'a str, usize);

    /// A table of spaces: name, login, and how many repositories.
    fn table(spaces: &[Space<'_>]) -> Arc<RouteTable> {
        let space = |(space, login, _): &Space<'_>| {
            format!(
                "[[space]]\nname = \"{space}\"\nurl = \"https://{space}.example/git\"\ncredentials = \"secret:{login}\"\n"
            )
        };
        let route = |space: &str, n: usize| {
            format!(
                "[[route]]\nname = \"{space}-{n}\"\nspace = \"{space}\"\nrepository = \"APP/{space}-{n}\"\n\
                 ref = \"refs/heads/*\"\nobject = \"{space}/{n}/{{ref}}.zip\"\n"
            )
        };
        let mut text: String = spaces.iter().map(space).collect();
        for (space, _, repositories) in spaces {
            text.extend((0..*repositories).map(|n| route(space, n)));
        }
        let table = RouteTable::parse("routes.toml", &text, Some("bucket"), Origin::Deployed);
        Arc::new(table.unwrap())
    }

    /// How many jobs of a route get a turn, one after the other.
    fn taken(turns: &mut Turns, table: &Arc<RouteTable>, route: &str) -> usize {
        let mut taken = 0;
        while let Some(open) = turns.open(Some(Arc::clone(table))) {
            let mut jobs = (0..).map(|n| {
                let repository = format!("APP/{route}").parse().unwrap();
                let name = format!("refs/heads/b{n}").parse().unwrap();
                Job::unhinted(route.into(), repository, name, "")
            });
            let job = jobs.find(|job| !turns.taken.contains_key(&job.group()));
            let job = job.unwrap();
            if !open.takes(&job) {
                break;
            }
            turns.begin(job.group(), &job, &open, Arc::default());
            taken += 1;
        }
        taken
    }

    #[test]
    fn each_has_its_share_and_who_is_alone_has_all() {
        type Case<'a> = (&'a str, &'a [Space<'a>], &'a [(&'a str, usize)]);
        let cases: &[Case<'_>] = &[
            ("one repository", &[("a", "X", 1)], &[("a-0", 8)]),
            ("two", &[("a", "X", 2)], &[("a-0", 6), ("a-1", 2)]),
            (
                "three",
                &[("a", "X", 3)],
                &[("a-0", 4), ("a-1", 4), ("a-2", 0)],
            ),
            (
                "many",
                &[("a", "X", 20)],
                &[("a-0", 2), ("a-1", 2), ("a-2", 2), ("a-3", 2), ("a-4", 0)],
            ),
            (
                "two spaces, one of which is dead",
                &[("a", "X", 9), ("b", "Y", 1)],
                &[("a-0", 2), ("a-1", 2), ("a-2", 2), ("a-3", 0), ("b-0", 2)],
            ),
            (
                "many spaces",
                &[("a", "X", 2), ("b", "Y", 1), ("c", "Z", 1), ("d", "W", 1)],
                &[("a-0", 2), ("a-1", 0), ("b-0", 2), ("c-0", 2), ("d-0", 2)],
            ),
            (
                "a login of several spaces",
                &[
                    ("a", "X", 2),
                    ("b", "X", 2),
                    ("c", "X", 2),
                    ("d", "X", 2),
                    ("e", "Y", 1),
                ],
                &[("a-0", 2), ("b-0", 2), ("c-0", 2), ("d-0", 0), ("e-0", 2)],
            ),
        ];
        for (case, spaces, expected) in cases {
            let (table, mut turns) = (table(spaces), Turns::default());
            for (route, expected) in *expected {
                let taken = taken(&mut turns, &table, route);
                assert_eq!(taken, *expected, "{case}: {route}");
            }
        }
    }

    #[test]
    fn a_turn_that_ends_is_free_again() {
        let (table, mut turns) = (table(&[("a", "X", 9)]), Turns::default());
        assert_eq!(taken(&mut turns, &table, "a-0"), 2);
        let group = turns.taken.keys().next().unwrap().clone();
        turns.end(&group);
        let (repository, name) = ("A/b".parse().unwrap(), "refs/a".parse().unwrap());
        let unknown = Job::unhinted("gone".into(), repository, name, "");
        assert!(
            turns
                .open(Some(Arc::clone(&table)))
                .unwrap()
                .takes(&unknown)
        );
        assert!(turns.open(None).unwrap().takes(&unknown));
        assert_eq!(taken(&mut turns, &table, "a-0"), 1);
    }
}
