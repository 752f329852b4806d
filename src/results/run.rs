//! Does what looks decide: reads AWS and Backlog, and writes comments. One at a time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::sync::Mutex;

use super::{
    HEALED_FOR, Holds, Kind, Look, Marker, Message, Run, State, Step, TRIES, Topic, Why, Write,
    mail::Mail,
    memory::Memory,
    message::Changed,
    source::{Objects, Source, Sources, Taken},
    space::Space,
};
use crate::{
    bucket::{Address, S3},
    error::{Error, chain},
    pipeline,
    push::{RefName, RepositoryName},
    route::{self, Destination, Results, Route, RouteTable},
    table::LiveTable,
};

/// How many versions are kept in memory.
const KEPT: usize = 10_000;

/// Where this bridge runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The account's number.
    pub account: String,
    /// The region.
    pub region: String,
}

/// A version of an object: the bucket, the key, and the version's id.
type Version = (String, String, String);

/// What tells results.
#[derive(Debug)]
pub struct Teller {
    s3: S3,
    table: Arc<LiveTable>,
    /// The topic that mails go to.
    mails: Option<String>,
    /// For how long a list of comments may lag behind what was written.
    lag: Duration,
    sources: Sources,
    spaces: Mutex<HashMap<String, Arc<Space>>>,
    holds: Mutex<HashMap<Version, Option<Holds>>>,
    memory: Memory,
}

/// What became of a look at one pipeline.
#[derive(Debug)]
pub struct Looked {
    /// Its name; empty if it is not known which.
    pub pipeline: String,
    /// What became of it.
    pub told: Told,
    /// How many comments were written.
    pub comments: usize,
    /// What somebody should know.
    pub warnings: Vec<String>,
    /// What went wrong, if something did.
    pub error: Option<Error>,
}

/// What became of a look, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Something was written.
    Told,
    /// Everything was there.
    Unchanged,
    /// The table names no such pipeline, or nothing is to be told of it.
    Ignored,
    /// It went wrong.
    Failed,
    /// It went wrong, and comes again.
    Again,
}

/// In words for people.
impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Told => "told",
            Self::Unchanged => "nothing new to tell",
            Self::Ignored => "nothing is to be told",
            Self::Failed => "failed",
            Self::Again => "failed, and comes again",
        })
    }
}

impl Looked {
    /// What became of a look that wrote nothing. What may pass comes again, unless it was the last time.
    pub(super) fn of(pipeline: &str, told: Result<Told, Error>, is_last: bool) -> Self {
        let pipeline = pipeline.to_owned();
        let (told, error) = match told {
            Ok(told) => (told, None),
            Err(err) if err.is_transient() && !is_last => (Told::Again, Some(err)),
            Err(err) => (Told::Failed, Some(err)),
        };
        Self {
            pipeline,
            told,
            comments: 0,
            warnings: Vec::new(),
            error,
        }
    }
}

/// One invocation: when it began, and what it asked already.
struct Visit<'a> {
    place: &'a Place,
    began: Instant,
    requests: HashMap<(String, RepositoryName), Vec<super::Request>>,
    comments: usize,
    warnings: Vec<String>,
}

impl Teller {
    /// What reads the table, and versions of objects.
    #[must_use]
    pub fn new(s3: S3, table: LiveTable, mails: Option<String>, lag: Duration) -> Self {
        Self {
            s3,
            table: Arc::new(table),
            mails,
            lag,
            sources: Sources::default(),
            spaces: Mutex::default(),
            holds: Mutex::default(),
            memory: Memory::default(),
        }
    }

    /// Does what a message asks for: one line for each pipeline that it is about. `tries` counts how often the message came;
    /// `began` is when the invocation did.
    pub async fn tell(
        &self,
        message: &Message,
        place: &Place,
        tries: u32,
        began: Instant,
    ) -> Vec<Looked> {
        let mut visit = Visit {
            place,
            began,
            requests: HashMap::new(),
            comments: 0,
            warnings: Vec::new(),
        };
        let is_last = tries >= TRIES;
        match message {
            Message::Pipeline {
                name, builds, run, ..
            } => {
                let looked =
                    self.look(&mut visit, name, *builds, run.as_ref(), Why::Event, is_last);
                vec![Box::pin(looked).await]
            }
            Message::Opened {
                repository, number, ..
            } => match Box::pin(self.pipelines_of(repository, *number)).await {
                Ok(names) => Box::pin(self.look_at(visit, names, Why::Event, is_last)).await,
                Err(err) => vec![Looked::of("", Err(err), is_last)],
            },
            Message::All { request_id } => {
                let why = if request_id.is_empty() {
                    Why::Schedule { now: now() }
                } else {
                    Why::Event
                };
                match Box::pin(self.pipelines()).await {
                    Ok(names) => Box::pin(self.look_at(visit, names, why, is_last)).await,
                    Err(err) => vec![Looked::of("", Err(err), is_last)],
                }
            }
        }
    }

    async fn look_at(
        &self,
        mut visit: Visit<'_>,
        names: Vec<String>,
        why: Why,
        is_last: bool,
    ) -> Vec<Looked> {
        let mut all = Vec::new();
        for name in names {
            // What fails here comes again by itself, and would keep back what follows.
            let is_last = is_last || matches!(why, Why::Schedule { .. });
            let looked = self.look(&mut visit, &name, None, None, why, is_last);
            all.push(Box::pin(looked).await);
        }
        all
    }

    /// Every pipeline that the table names.
    async fn pipelines(&self) -> Result<Vec<String>, Error> {
        let reading = self.table.read().await;
        let table = reading.newest()?;
        let written = table.routes().iter().filter_map(Route::pipelines);
        let mut names: Vec<String> = written
            .clone()
            .filter_map(|name| name.exact().map(str::to_owned))
            .collect();
        let templates: Vec<_> = written.filter(|name| name.exact().is_none()).collect();
        if !templates.is_empty() {
            let all = pipeline::names()
                .await
                .map_err(|err| super::source::error(&err))?;
            names.extend(
                all.into_iter()
                    .filter(|name| templates.iter().any(|own| own.may_be(name))),
            );
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The pipelines of the branch that a request is about.
    async fn pipelines_of(
        &self,
        repository: &RepositoryName,
        number: i64,
    ) -> Result<Vec<String>, Error> {
        let reading = self.table.read().await;
        let table = reading.newest()?;
        let mut names = Vec::new();
        for space in table.spaces() {
            let routes: Vec<_> = table
                .routes()
                .iter()
                .filter(|route| table.space_of(route) == space && route.repository() == repository)
                .filter(|route| {
                    table.results_of(route) != Results::None && route.pipelines().is_some()
                })
                .collect();
            if routes.is_empty() {
                continue;
            }
            let api = self.space(space).await?;
            let Some(branch) = api.branch(repository, number).await? else {
                continue;
            };
            let Ok(ref_name) = format!("refs/heads/{branch}").parse::<RefName>() else {
                continue;
            };
            let taking = routes
                .iter()
                .filter(|route| route.takes(repository, &ref_name));
            names.extend(taking.filter_map(|route| route.pipeline(&ref_name)));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Looks at one pipeline, and writes what is to be written.
    async fn look(
        &self,
        visit: &mut Visit<'_>,
        name: &str,
        builds: Option<bool>,
        changed: Option<&Changed>,
        why: Why,
        is_last: bool,
    ) -> Looked {
        visit.comments = 0;
        visit.warnings.clear();
        let mut mail = None;
        let told =
            Box::pin(self.look_and_tell(visit, name, builds, changed, why, is_last, &mut mail))
                .await;
        // Last, and not if all of it comes again: a mail cannot be taken back.
        let comes_again = matches!(&told, Err(err) if err.is_transient() && !is_last);
        if let (Some((run, to)), Some(topic), false) = (&mail, &self.mails, comes_again) {
            let mail = Mail {
                pipeline: name,
                run,
                to: to.as_ref(),
            };
            if let Err(err) = Box::pin(mail.send(topic)).await {
                visit
                    .warnings
                    .push(format!("no mail was sent: {}", chain(&err)));
            }
        }
        Looked {
            comments: visit.comments,
            warnings: std::mem::take(&mut visit.warnings),
            ..Looked::of(name, told, is_last)
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is something else")]
    async fn look_and_tell(
        &self,
        visit: &mut Visit<'_>,
        name: &str,
        builds: Option<bool>,
        changed: Option<&Changed>,
        why: Why,
        is_last: bool,
        mail: &mut Option<(Run, Option<Destination>)>,
    ) -> Result<Told, Error> {
        let reading = self.table.read().await;
        let table = reading.newest()?;
        let routes: Vec<&Route> = table.of_pipeline(name).collect();
        let objects = objects(&routes, name);
        if routes.is_empty() {
            return Ok(Told::Ignored);
        }
        let read = self
            .sources
            .read(name, builds, &visit.place.region, objects);
        let Some(source) = Box::pin(read).await? else {
            let reason = format!(
                "there is no pipeline and no project of builds of the name {name}; check `pipeline` in the routing table"
            );
            return Err(Error::Results {
                reason,
                transient: false,
            });
        };
        if let Some(changed) = changed.filter(|_| !is_last) {
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
        if let Why::Schedule { now } = why {
            let newest = source.runs.iter().map(|taken| taken.run.updated).max();
            if newest.is_none_or(|newest| now - newest > HEALED_FOR) {
                return Ok(Told::Unchanged);
            }
        }
        let mut is_told = false;
        for route in routes {
            for (to, runs) in self.refs_of(route, table, name, &source).await? {
                if let Some(changed) = changed.filter(|changed| changed.is_red) {
                    let failed = runs
                        .iter()
                        .find(|run| run.id == changed.id && run.state == State::Failed);
                    if let (Some(run), None) = (failed, &mail) {
                        *mail = Some((run.clone(), Some(to.clone())));
                    }
                }
                if table.results_of(route) == Results::None {
                    continue;
                }
                is_told = true;
                let space = table.space_of(route);
                let api = self.space(space).await?;
                let project = to.repository.project().to_owned();
                let topic = Topic {
                    pipeline: name.to_owned(),
                    marker: Marker::new(
                        &visit.place.account,
                        &visit.place.region,
                        name,
                        to.ref_name.as_str(),
                    ),
                    ref_name: to.ref_name.short().to_owned(),
                    is_branch: to.ref_name.as_str().starts_with("refs/heads/"),
                    words: api.words(&project, space.results_detail()).await?,
                    project,
                    runs,
                    is_cut: source.is_cut,
                    results: table.results_of(route),
                    issue: space.results_issue().cloned(),
                };
                Box::pin(self.write(visit, &api, &to, &topic, why)).await?;
            }
        }
        Ok(match (is_told, visit.comments) {
            (false, _) => Told::Ignored,
            (true, 0) => Told::Unchanged,
            (true, _) => Told::Told,
        })
    }

    /// The runs of a pipeline by the refs of a route that it builds.
    async fn refs_of(
        &self,
        route: &Route,
        table: &RouteTable,
        name: &str,
        source: &Source,
    ) -> Result<Vec<(Destination, Vec<Run>)>, Error> {
        let mut refs: Vec<(Destination, Vec<Run>)> = Vec::new();
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
                let to = route.destination(table.space_of(route), &ref_name)?;
                let is_own = object
                    .as_ref()
                    .is_none_or(|(bucket, key)| *bucket == to.bucket && *key == to.key.as_str());
                if !is_own {
                    continue;
                }
                let holds = self.holds(&to, &run.version).await?;
                let run = Run {
                    holds,
                    ..run.clone()
                };
                match refs.iter_mut().find(|(own, _)| own.ref_name == ref_name) {
                    Some((_, runs)) => runs.push(run),
                    None => refs.push((to, vec![run])),
                }
            }
        }
        Ok(refs)
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
        let is_own = |holding: &crate::bucket::Holding| {
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

    /// Carries a look out.
    async fn write(
        &self,
        visit: &mut Visit<'_>,
        api: &Space,
        to: &Destination,
        topic: &Topic,
        why: Why,
    ) -> Result<(), Error> {
        let known = self.memory.of(topic).await;
        let mut look = Look::new(topic, why, known);
        let repository = &to.repository;
        let outcome = loop {
            match look.next() {
                Step::Requests => {
                    let at = (to.space.clone(), repository.clone());
                    let requests = match visit.requests.get(&at) {
                        Some(requests) => requests.clone(),
                        None => match api.requests(repository).await {
                            Ok(requests) => {
                                visit.requests.insert(at, requests.clone());
                                requests
                            }
                            Err(err) => break Err(err),
                        },
                    };
                    look.saw_requests(requests);
                }
                Step::Comments { home, settled } => {
                    if settled {
                        // Whatever another process wrote was written before this one got its message.
                        tokio::time::sleep(self.lag.saturating_sub(visit.began.elapsed())).await;
                    }
                    match api.comments(repository, &home, &topic.marker).await {
                        Ok((comments, is_cut)) => {
                            look.saw_comments(&home, comments, is_cut, settled);
                        }
                        Err(err) => break Err(err),
                    }
                }
                Step::Write(write) => match self.carry_out(api, repository, &look, &write).await {
                    Ok(Some(id)) => {
                        visit.comments += 1;
                        look.wrote(&write, id);
                        self.memory.keep(topic, &write, id).await;
                    }
                    Ok(None) => look.saw_gone(&write.home, write.replaces.unwrap_or_default()),
                    Err(err) => break Err(err),
                },
                Step::Over => break Ok(()),
            }
        };
        for home in look.crowded() {
            visit.warnings.push(format!(
                "{home:?} has more comments than are read, so that none is added"
            ));
        }
        self.memory.learn(topic, &look).await;
        outcome
    }

    async fn carry_out(
        &self,
        api: &Space,
        repository: &RepositoryName,
        look: &Look<'_>,
        write: &Write,
    ) -> Result<Option<i64>, Error> {
        if let Some(id) = write.replaces {
            let changed = api.change(repository, &write.home, id, &write.text).await?;
            return Ok(changed.map(|()| id));
        }
        let mut notified = Vec::new();
        if let (Some(commit), Kind::Alert(_)) = (write.notifies, &write.kind) {
            let pusher = api.pusher(repository, commit).await?;
            notified.extend(pusher.or_else(|| look.author(&write.home)));
        }
        let added = api
            .add(repository, &write.home, &write.text, &notified)
            .await;
        added.map(Some)
    }

    /// The API of a space, once it is known who we are there.
    async fn space(&self, space: &route::Space) -> Result<Arc<Space>, Error> {
        let mark = format!(
            "{} {:?} {:?}",
            space.url().mark(),
            space.api_key(),
            space.language()
        );
        let mut spaces = self.spaces.lock().await;
        if let Some(open) = spaces.get(&mark).filter(|open| !open.is_old()) {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(Box::pin(Space::open(space)).await?);
        spaces.insert(mark, Arc::clone(&open));
        Ok(open)
    }

    /// Forgets who we are in every space: a key that was refused may have been changed.
    pub async fn forget_keys(&self) {
        self.spaces.lock().await.clear();
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

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs().try_into().unwrap_or(i64::MAX)
}
