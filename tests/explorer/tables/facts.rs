//! What the product's own functions say, each asked once and then looked up: this is what makes millions of states cheap.
//! Nothing of the rules is in here.

use std::{collections::HashMap, fmt::Write, sync::Arc};

use backlog_bridge::{
    bucket::{Current, Holding},
    deliver::{
        holder::Ruling,
        step::{Action, Saw, SecondLook, Steps},
    },
    error::Error,
    plan::{Ignored, Next, NoJobs, heirs, next, plan},
    push::{CommitId, PushEvent},
    queue::Job,
    route::{Destination, Origin, RouteTable},
    table::{Looks, Reading, Seen, TableFault},
    webhook::Webhook,
    worker::differs,
};

/// A ref of a repository, by its place in [`REFS`].
pub(super) type Ref = u8;
pub(super) const REFS: [(&str, &str); 3] = [
    ("APP/old", "refs/heads/main"),
    ("APP/web", "refs/heads/main"),
    ("APP/web", "refs/heads/develop"),
];
pub(super) const KEYS: [&str; 2] = ["main.zip", "develop.zip"];

/// A commit: the upper half names its ref, the lower one counts its pushes. Zero is none.
pub(super) type Commit = u8;

pub(super) fn commit(of: Ref, pushes: u8) -> Commit {
    16 * (of + 1) + pushes
}

pub(super) fn ref_of(commit: Commit) -> Ref {
    commit / 16 - 1
}

fn id(commit: Commit) -> CommitId {
    format!("{commit:02x}").repeat(20).parse().unwrap()
}

fn number(id: CommitId) -> Commit {
    id.object_id().as_slice()[0]
}

/// What is stored where the table should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Table(&'static str),
    Spoiled,
    Deleted,
    /// A table, but S3 does not answer.
    Unread,
}

/// What a step of a delivery sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sight {
    Head(Option<u8>),
    Table(u16),
    Tip(Commit),
    Built,
    Stored,
    NotStored,
    Waited,
}

/// The jobs of a webhook, or that nobody knows.
pub(super) type Planned = Result<Vec<u8>, ()>;

pub(super) struct Facts {
    sources: Vec<Source>,
    tables: Vec<Option<Arc<RouteTable>>>,
    looks: Vec<Looks>,
    looks_by_text: HashMap<String, u8>,
    learned: HashMap<(u8, u8), (u8, u8)>,
    readings: Vec<Reading>,
    jobs: Vec<Job>,
    destinations: Vec<Destination>,
    rulings: Vec<Ruling>,
    ruled: HashMap<(u8, Option<Commit>, u8), Option<u16>>,
    nexts: HashMap<(u8, u8), Option<Whereto>>,
    planned: HashMap<(u8, Ref), Planned>,
    swept: HashMap<Look, Swept>,
    steps: Vec<(Steps, Action)>,
    numbers: HashMap<(Steps, Action), u16>,
    known: HashMap<(u16, Sight), u16>,
}

/// A look of the sweep: the reading, the number of the look, what the objects hold, and the tips.
type Look = (u8, u8, [Commit; 2], [Commit; 3]);

/// What a look of the sweep comes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Swept {
    /// The job of an object that differs from its ref.
    Looked(Option<u8>),
    /// There is nothing more to look at.
    Over,
}

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereto {
    Deliver(u8),
    Anew(Vec<u8>),
}

impl Facts {
    pub(super) fn new(sources: &[Source]) -> Self {
        let tables = sources.iter().map(|source| match source {
            Source::Table(routes) => Some(Arc::new(table(routes))),
            _ => None,
        });
        Self {
            sources: sources.to_vec(),
            tables: tables.collect(),
            looks: vec![Looks::default()],
            looks_by_text: HashMap::new(),
            learned: HashMap::new(),
            readings: Vec::new(),
            jobs: Vec::new(),
            destinations: Vec::new(),
            rulings: Vec::new(),
            ruled: HashMap::new(),
            nexts: HashMap::new(),
            planned: HashMap::new(),
            swept: HashMap::new(),
            steps: Vec::new(),
            numbers: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// The table that is stored at a position, if it is one and S3 answers.
    pub(super) fn table(&self, at: u8) -> Option<&Arc<RouteTable>> {
        self.tables[usize::from(at)].as_ref()
    }

    /// A look by somebody who has looked before: what is known now, and what the look means.
    pub(super) fn look(&mut self, looks: u8, at: u8, spoiled_is_empty: bool) -> (u8, u8) {
        if let Some(known) = self.learned.get(&(looks, at)) {
            return *known;
        }
        let mut after = self.looks[usize::from(looks)].clone();
        let version = format!("version {at}");
        let fault = || {
            TableFault::from(Error::Routes {
                reason: "of no use".into(),
                transient: false,
                source: None,
            })
        };
        let seen = match (&self.sources[usize::from(at)], self.table(at)) {
            (Source::Unread, _) => Seen::Unread(fault()),
            (Source::Deleted, _) => Seen::Deleted(fault()),
            _ if after.version() == Some(&version) => Seen::Same,
            (_, Some(table)) => Seen::Table(Arc::clone(table), version),
            (_, None) if spoiled_is_empty => Seen::Table(Arc::new(table("")), version),
            (_, None) => Seen::NoTable(fault(), version),
        };
        let (mut reading, _) = after.learn(seen);
        if matches!(reading, Reading::Spoiled { last: None, .. })
            && let Some(older) = (0..at).rev().find_map(|before| self.table(before))
        {
            reading = after.remember(Arc::clone(older));
        }
        let text = format!("{after:?}");
        let fresh = u8::try_from(self.looks.len()).unwrap();
        let number = *self.looks_by_text.entry(text).or_insert(fresh);
        if number == fresh {
            self.looks.push(after);
        }
        let known = (number, self.reading(reading));
        self.learned.insert((looks, at), known);
        known
    }

    /// The reading of a mutant that takes what it knows for the newest.
    pub(super) fn copy(&mut self, looks: u8) -> Option<u8> {
        let mut looks = self.looks[usize::from(looks)].clone();
        match looks.learn(Seen::Same) {
            (reading @ Reading::Newest(_), _) => Some(self.reading(reading)),
            _ => None,
        }
    }

    fn reading(&mut self, reading: Reading) -> u8 {
        let is_same = |one: &Reading| match (one, &reading) {
            (Reading::Newest(one), Reading::Newest(other)) => Arc::ptr_eq(one, other),
            (Reading::Newest(_), _) | (_, Reading::Newest(_)) => false,
            (one, other) => format!("{one:?}") == format!("{other:?}"),
        };
        let known = self.readings.iter().position(is_same);
        let number = known.unwrap_or_else(|| {
            self.readings.push(reading);
            self.readings.len() - 1
        });
        u8::try_from(number).unwrap()
    }

    /// Where the table was that a reading takes for the newest.
    pub(super) fn position(&self, reading: u8) -> Option<u8> {
        let Reading::Newest(table) = &self.readings[usize::from(reading)] else {
            return None;
        };
        let is_it =
            |one: &Option<Arc<RouteTable>>| one.as_ref().is_some_and(|one| Arc::ptr_eq(one, table));
        let at = self.tables.iter().position(is_it)?;
        Some(u8::try_from(at).unwrap())
    }

    /// The jobs that a push makes.
    pub(super) fn plan(&mut self, reading: u8, of: Ref) -> Planned {
        if let Some(known) = self.planned.get(&(reading, of)) {
            return known.clone();
        }
        let (repository, ref_name) = REFS[usize::from(of)];
        let webhook = Webhook::Push(PushEvent {
            space_url: None,
            repository: repository.parse().unwrap(),
            ref_name: ref_name.parse().unwrap(),
            is_deleted: false,
            before: None,
            commits: Vec::new(),
        });
        let planned = match plan(&webhook, &self.readings[usize::from(reading)], "") {
            Ok(jobs) => Ok(jobs.into_iter().map(|job| self.job(job)).collect()),
            Err(NoJobs::Ignored(Ignored::NoRoute)) => Ok(Vec::new()),
            Err(NoJobs::Unknown(_)) => Err(()),
            Err(why) => panic!("{why:?}"),
        };
        self.planned.insert((reading, of), planned.clone());
        planned
    }

    /// Where a job goes; `None` if nobody knows.
    pub(super) fn next(&mut self, reading: u8, job: u8) -> Option<Whereto> {
        if let Some(known) = self.nexts.get(&(reading, job)) {
            return known.clone();
        }
        let found = next(
            &self.readings[usize::from(reading)],
            &self.jobs[usize::from(job)],
        );
        let whereto = match found {
            Ok(Next::Deliver { to, .. }) => Some(Whereto::Deliver(self.destination(to))),
            Ok(Next::Paused) => unreachable!("no table of the search pauses a route"),
            Ok(Next::Anew(jobs)) => {
                let jobs = jobs.into_iter().map(|job| self.job(job));
                Some(Whereto::Anew(jobs.collect()))
            }
            Err(err) => {
                assert!(err.is_transient(), "{err}");
                None
            }
        };
        self.nexts.insert((reading, job), whereto.clone());
        whereto
    }

    /// The jobs of those whose object a delivery wrote to and left.
    pub(super) fn heirs(&mut self, reading: u8, job: u8, left: u8) -> Vec<u8> {
        let Reading::Newest(table) = &self.readings[usize::from(reading)] else {
            return Vec::new();
        };
        let left = &self.destinations[usize::from(left)];
        let job = &self.jobs[usize::from(job)];
        let jobs = heirs(job, &left.bucket, left.key.as_str(), table);
        jobs.into_iter().map(|job| self.job(job)).collect()
    }

    /// The `nth` destination of a table that the sweep looks at: the job for it, if its object differs from its ref.
    pub(super) fn swept(
        &mut self,
        reading: u8,
        nth: u8,
        heads: [Commit; 2],
        tips: [Commit; 3],
    ) -> Swept {
        let asked = (reading, nth, heads, tips);
        if let Some(known) = self.swept.get(&asked) {
            return *known;
        }
        let found = self.sweep(reading, nth, heads, tips);
        self.swept.insert(asked, found);
        found
    }

    fn sweep(&mut self, reading: u8, nth: u8, heads: [Commit; 2], tips: [Commit; 3]) -> Swept {
        let (Reading::Newest(table)
        | Reading::Spoiled {
            last: Some(table), ..
        }) = &self.readings[usize::from(reading)]
        else {
            return Swept::Over;
        };
        let table = Arc::clone(table);
        let all = table.routes().iter().flat_map(|route| {
            REFS.iter()
                .zip(tips)
                .filter_map(move |((repository, ref_name), tip)| {
                    let (repository, ref_name) =
                        (repository.parse().unwrap(), ref_name.parse().unwrap());
                    let takes = route.takes(&repository, &ref_name);
                    takes.then_some((route, repository, ref_name, tip))
                })
        });
        let all: Vec<_> = all.collect();
        let found = all.into_iter().nth(usize::from(nth));
        let Some((route, repository, ref_name, tip)) = found else {
            return Swept::Over;
        };
        let to = table.destination(route.name(), &repository, &ref_name);
        let to = to.unwrap().unwrap();
        let key = KEYS.iter().position(|key| to.key.as_str() == *key).unwrap();
        let head = current(heads[key]);
        let differs = differs(head.as_ref(), &to, &table, route.sweep(), id(tip));
        Swept::Looked(differs.then(|| {
            self.job(Job {
                swept: true,
                ..Job::unhinted(route.name().into(), repository, ref_name, "")
            })
        }))
    }

    /// What a table says of a delivery; `None` if nobody knows. `head`: no head, no object or what it holds.
    pub(super) fn rule(&mut self, reading: u8, head: Option<Commit>, to: u8) -> Option<u16> {
        if let Some(known) = self.ruled.get(&(reading, head, to)) {
            return *known;
        }
        let current = head.and_then(current);
        let (asked, whereto) = (
            &self.readings[usize::from(reading)],
            &self.destinations[usize::from(to)],
        );
        let ruling = match Ruling::of(asked, current.as_ref(), whereto) {
            Ok(ruling) => Some(self.ruling(ruling)),
            Err(err) => {
                assert!(err.is_transient(), "{err}");
                None
            }
        };
        self.ruled.insert((reading, head, to), ruling);
        ruling
    }

    pub(super) fn ruling(&mut self, ruling: Ruling) -> u16 {
        let known = self.rulings.iter().position(|one| *one == ruling);
        let number = known.unwrap_or_else(|| {
            self.rulings.push(ruling);
            self.rulings.len() - 1
        });
        u16::try_from(number).unwrap()
    }

    fn job(&mut self, job: Job) -> u8 {
        let known = self.jobs.iter().position(|one| *one == job);
        let number = known.unwrap_or_else(|| {
            self.jobs.push(job);
            self.jobs.len() - 1
        });
        u8::try_from(number).unwrap()
    }

    fn destination(&mut self, to: Destination) -> u8 {
        let known = self.destinations.iter().position(|one| *one == to);
        let number = known.unwrap_or_else(|| {
            self.destinations.push(to);
            self.destinations.len() - 1
        });
        u8::try_from(number).unwrap()
    }

    pub(super) fn name_of(&self, job: u8) -> String {
        let job = &self.jobs[usize::from(job)];
        let by = if job.swept { "the sweep's " } else { "" };
        format!("{by}{} {} {}", job.route, job.repository, job.ref_name)
    }

    pub(super) fn is_one_group(&self, a: u8, b: u8) -> bool {
        self.jobs[usize::from(a)].group() == self.jobs[usize::from(b)].group()
    }

    pub(super) fn ref_of_job(&self, job: u8) -> Ref {
        let job = &self.jobs[usize::from(job)];
        let is_of = |(repository, ref_name): &(&str, &str)| {
            job.repository.as_str() == *repository && job.ref_name.as_str() == *ref_name
        };
        u8::try_from(REFS.iter().position(is_of).unwrap()).unwrap()
    }

    /// Where a table sends a job, for the checks; `None` if it does not.
    pub(super) fn sends(&self, at: u8, job: u8) -> Option<Destination> {
        let job = &self.jobs[usize::from(job)];
        let to = self
            .table(at)?
            .destination(&job.route, &job.repository, &job.ref_name)?;
        Some(to.unwrap())
    }

    /// The names of the routes that a table has for a ref.
    pub(super) fn routes(&self, at: u8, of: Ref) -> Option<Vec<String>> {
        let (repository, ref_name) = REFS[usize::from(of)];
        let (repository, ref_name) = (repository.parse().unwrap(), ref_name.parse().unwrap());
        let routes = self.table(at)?.routes().iter();
        let routes = routes.filter(|route| route.takes(&repository, &ref_name));
        Some(routes.map(|route| route.name().to_owned()).collect())
    }

    pub(super) fn route_of(&self, job: u8) -> &str {
        &self.jobs[usize::from(job)].route
    }

    pub(super) fn to(&self, destination: u8) -> &Destination {
        &self.destinations[usize::from(destination)]
    }

    pub(super) fn key(&self, destination: u8) -> usize {
        let key = self.to(destination).key.as_str();
        KEYS.iter().position(|one| key == *one).unwrap()
    }

    /// A delivery before its first step.
    pub(super) fn start(&mut self) -> u16 {
        let mut steps = Steps::new(None, SecondLook::Needed);
        let action = steps.start();
        self.number(steps, action)
    }

    pub(super) fn action(&self, node: u16) -> &Action {
        &self.steps[usize::from(node)].1
    }

    pub(super) fn is_verifying(&self, node: u16) -> bool {
        self.steps[usize::from(node)].0.is_verifying()
    }

    pub(super) fn step(&mut self, node: u16, sight: Sight) -> u16 {
        if let Some(&known) = self.known.get(&(node, sight)) {
            return known;
        }
        let saw = match sight {
            Sight::Head(etag) => Saw::Head(etag.map(|etag| etag.to_string())),
            Sight::Table(ruling) => Saw::Table(self.rulings[usize::from(ruling)].clone()),
            Sight::Tip(commit) => Saw::Tip(Some(id(commit))),
            // Nobody pushes back in these searches.
            Sight::Built => Saw::Built(None),
            Sight::Stored => Saw::Stored(String::new()),
            Sight::NotStored => Saw::NotStored,
            Sight::Waited => Saw::Waited,
        };
        let mut steps = self.steps[usize::from(node)].0.clone();
        let action = steps.next(saw);
        let next = self.number(steps, action);
        self.known.insert((node, sight), next);
        next
    }

    fn number(&mut self, steps: Steps, action: Action) -> u16 {
        let fresh = u16::try_from(self.steps.len()).unwrap();
        let all = &mut self.steps;
        *self
            .numbers
            .entry((steps.clone(), action.clone()))
            .or_insert_with(|| {
                all.push((steps, action));
                fresh
            })
    }
}

pub(super) fn number_of(id: CommitId) -> Commit {
    number(id)
}

/// A table of routes, each as `name repository ref object`, one a line.
fn table(routes: &str) -> RouteTable {
    let mut text = "[[space]]\nurl = \"https://example.backlog.com/git\"\n".to_owned();
    // A table without routes is refused; this one takes nothing that there is.
    let none = "none APP/none refs/heads/none nmain.zip";
    let lines = if routes.is_empty() { none } else { routes };
    for line in lines.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [name, repository, ref_name, object] = words[..] else {
            panic!("{line}")
        };
        writeln!(
            text,
            "[[route]]\nname = \"{name}\"\nrepository = \"{repository}\"\nref = \"{ref_name}\"\nobject = \"{object}\"\nsweep = \"all\""
        )
        .unwrap();
    }
    RouteTable::parse("routes.toml", &text, Some("sources"), Origin::Deployed).unwrap()
}

/// The version that holds a commit; none of no commit.
fn current(commit: Commit) -> Option<Current> {
    if commit == 0 {
        return None;
    }
    let (repository, ref_name) = REFS[usize::from(ref_of(commit))];
    Some(Current {
        etag: String::new(),
        version_id: None,
        bytes: 0,
        written: None,
        holds: Some(Holding {
            commit: id(commit),
            tree: None,
            space: None,
            repository: repository.into(),
            ref_name: ref_name.into(),
            delivery_id: String::new(),
            commit_time: None,
            previous: None,
            author: None,
            subject: None,
        }),
    })
}
