//! Which pipelines are looked at, one after the other and for how long, and what became of each look. What goes wrong with one
//! pipeline, object, repository or space stops that one alone.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::sync::Mutex;

use super::{
    Holds, Message, Run, TRIES, Why,
    mail::Mail,
    memory::Memory,
    message::Rest,
    refs::{OfRef, Refs},
    source::{self, Sources},
    space::Space,
    visit::{Asked, Place, Times, Visit, joined},
};
use crate::{
    bucket::S3,
    error::{Error, chain},
    pipeline,
    push::{RefName, RepositoryName},
    route::{self, Destination, Results, Route},
    table::LiveTable,
};

/// A version of an object: the bucket, the key, and the version's id.
type Version = (String, String, String);

/// What tells results.
#[derive(Debug)]
pub struct Teller {
    pub(super) s3: S3,
    table: Arc<LiveTable>,
    /// The topic that mails go to.
    mails: Option<String>,
    /// For how long a list of comments may lag behind what was written.
    pub(super) lag: Duration,
    pub(super) sources: Sources,
    spaces: Mutex<HashMap<String, Arc<Space>>>,
    pub(super) holds: Mutex<HashMap<Version, Option<Holds>>>,
    pub(super) memory: Memory,
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

/// The pipelines that a message is about, and what kept others from being found.
type Found = Result<(Vec<String>, Vec<Error>), Error>;

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

    /// Does what a message asks for, from where it says on: one line for each pipeline that it is about. Where the time does not
    /// reach, it says from where on something is left. `tries` counts how often the message came.
    pub(super) async fn tell(
        &self,
        message: &Message,
        from: Option<Rest>,
        place: &Place,
        tries: u32,
        times: Times,
    ) -> (Vec<Looked>, Option<Rest>) {
        let mut visit = Visit::new(place, times, from);
        let is_last = tries >= TRIES;
        let looked = match message {
            Message::Pipeline {
                name, builds, run, ..
            } => {
                let asked = Asked {
                    name,
                    builds: *builds,
                    changed: run.as_ref(),
                    why: Why::Event,
                    is_last,
                };
                vec![Box::pin(self.look(&mut visit, asked)).await]
            }
            Message::Opened {
                repository, number, ..
            } => {
                let found = Box::pin(self.pipelines_of(&visit, repository, *number)).await;
                Box::pin(self.look_at(&mut visit, found, Why::Event, is_last)).await
            }
            Message::All { request_id } => {
                let why = if request_id.is_empty() {
                    Why::Schedule { now: now() }
                } else {
                    Why::Event
                };
                let found = visit.times.within(self.pipelines());
                let found = Box::pin(found).await;
                Box::pin(self.look_at(&mut visit, found, why, is_last)).await
            }
        };
        // What comes again comes as a whole.
        let comes_again = looked.iter().any(|looked| looked.told == Told::Again);
        (looked, visit.rest.filter(|_| !comes_again))
    }

    async fn look_at(
        &self,
        visit: &mut Visit<'_>,
        found: Found,
        why: Why,
        is_last: bool,
    ) -> Vec<Looked> {
        let (names, faults) = found.unwrap_or_else(|err| (Vec::new(), vec![err]));
        let from = visit.from.as_ref().map(|rest| rest.pipeline.clone());
        let is_first = from.is_none();
        let left = names
            .into_iter()
            .filter(|name| from.as_ref().is_none_or(|from| name >= from));
        let mut all = Vec::new();
        for name in left {
            if !all.is_empty() && visit.is_over() {
                visit.rest = Some(Rest {
                    pipeline: name,
                    after: None,
                });
                break;
            }
            let asked = Asked {
                name: &name,
                builds: None,
                changed: None,
                why,
                // What fails here comes again by itself, and would keep back what follows.
                is_last: is_last || matches!(why, Why::Schedule { .. }),
            };
            all.push(Box::pin(self.look(visit, asked)).await);
            if visit.rest.is_some() {
                break;
            }
        }
        if is_first {
            let faults = faults.into_iter();
            all.extend(faults.map(|err| Looked::of("", Err(err), is_last)));
        }
        all
    }

    /// Every pipeline that the table names.
    async fn pipelines(&self) -> Found {
        let reading = self.table.read().await;
        let table = reading.newest()?;
        let written = table.routes().iter().filter_map(Route::pipelines);
        let mut names: Vec<String> = written
            .clone()
            .filter_map(|name| name.exact().map(str::to_owned))
            .collect();
        let mut faults = Vec::new();
        let templates: Vec<_> = written.filter(|name| name.exact().is_none()).collect();
        if !templates.is_empty() {
            match pipeline::names().await {
                Ok(all) => names.extend(
                    all.into_iter()
                        .filter(|name| templates.iter().any(|own| own.may_be(name))),
                ),
                Err(err) => faults.push(source::error(&err)),
            }
        }
        names.sort();
        names.dedup();
        Ok((names, faults))
    }

    /// The pipelines of the branch that a request is about. A webhook names no space: it may be of any that has the repository.
    async fn pipelines_of(
        &self,
        visit: &Visit<'_>,
        repository: &RepositoryName,
        number: i64,
    ) -> Found {
        let reading = self.table.read().await;
        let table = reading.newest()?;
        let (mut names, mut faults, mut is_missing) = (Vec::new(), Vec::new(), false);
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
            let branch = async { self.space(space).await?.branch(repository, number).await };
            let branch = match visit.times.within(branch).await {
                Ok(Some(branch)) => branch,
                Ok(None) => {
                    is_missing = true;
                    continue;
                }
                Err(err) => {
                    faults.push(err);
                    continue;
                }
            };
            let Ok(ref_name) = format!("refs/heads/{branch}").parse::<RefName>() else {
                continue;
            };
            let taking = routes
                .iter()
                .filter(|route| route.takes(repository, &ref_name));
            names.extend(taking.filter_map(|route| route.pipeline(&ref_name)));
        }
        if is_missing && names.is_empty() && faults.is_empty() {
            faults.push(Error::Results {
                reason: format!("there is no pull request {number} in {repository}"),
                transient: false,
            });
        }
        names.sort();
        names.dedup();
        Ok((names, faults))
    }

    /// Looks at one pipeline, and writes what is to be written.
    async fn look(&self, visit: &mut Visit<'_>, asked: Asked<'_>) -> Looked {
        visit.comments = 0;
        visit.warnings.clear();
        let mut mail = None;
        let told = Box::pin(self.look_and_tell(visit, asked, &mut mail)).await;
        // Last, and not if all of it comes again: a mail cannot be taken back.
        let comes_again = matches!(&told, Err(err) if err.is_transient() && !asked.is_last);
        if let (Some((run, to)), Some(topic), false) = (&mail, &self.mails, comes_again) {
            let pipeline = asked.name;
            let mail = Mail { pipeline, run, to };
            if let Err(err) = Box::pin(mail.send(topic)).await {
                visit
                    .warnings
                    .push(format!("no mail was sent: {}", chain(&err)));
            }
        }
        Looked {
            comments: visit.comments,
            warnings: std::mem::take(&mut visit.warnings),
            ..Looked::of(asked.name, told, asked.is_last)
        }
    }

    async fn look_and_tell(
        &self,
        visit: &mut Visit<'_>,
        asked: Asked<'_>,
        mail: &mut Option<(Run, Destination)>,
    ) -> Result<Told, Error> {
        let reading = self.table.read().await;
        let table = reading.newest()?;
        let routes: Vec<&Route> = table.of_pipeline(asked.name).collect();
        if routes.is_empty() {
            return Ok(Told::Ignored);
        }
        let refs = self.refs(table, routes, visit.place, asked);
        let Some(refs) = Box::pin(visit.times.within(refs)).await? else {
            return Ok(Told::Unchanged);
        };
        if let Some(changed) = asked.changed.filter(|changed| changed.is_red) {
            *mail = refs.failed(&changed.id);
        }
        let Refs {
            mut found,
            mut faults,
            is_cut,
            ..
        } = refs;
        found.retain(|own| table.results_of(own.route) != Results::None);
        let is_told = !found.is_empty() || !faults.is_empty();
        // What changed is told first.
        let is_changed = |own: &OfRef<'_>| {
            let mut runs = own.runs.iter();
            asked
                .changed
                .is_some_and(|changed| runs.any(|run| run.id == changed.id))
        };
        found.sort_by_cached_key(|own| (!is_changed(own), place_of(own)));
        let from = visit.from.as_ref();
        let from = from.filter(|rest| rest.pipeline == asked.name);
        let mut after = from.and_then(|rest| rest.after.clone());
        found.retain(|own| is_changed(own) || after.as_ref().is_none_or(|at| place_of(own) > *at));
        for (at, own) in found.into_iter().enumerate() {
            if at > 0 && visit.is_over() {
                visit.rest = Some(Rest {
                    pipeline: asked.name.to_owned(),
                    after,
                });
                break;
            }
            if !is_changed(&own) {
                after = Some(place_of(&own));
            }
            let (space, times) = (own.to.space.clone(), visit.times);
            let tell = self.tell_of(visit, table, (asked.name, asked.why), own, is_cut);
            if let Err(err) = Box::pin(times.within(tell)).await {
                visit.heard(&space, &err);
                faults.push(err);
            }
        }
        joined(faults)?;
        Ok(match (is_told, visit.comments) {
            (false, _) => Told::Ignored,
            (true, 0) => Told::Unchanged,
            (true, _) => Told::Told,
        })
    }

    /// The API of a space, once it is known who we are there.
    pub(super) async fn space(&self, space: &route::Space) -> Result<Arc<Space>, Error> {
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

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs().try_into().unwrap_or(i64::MAX)
}

/// Where a ref stands among those of its pipeline.
fn place_of(own: &OfRef<'_>) -> String {
    format!("{} {}", own.to.route, own.to.ref_name)
}
