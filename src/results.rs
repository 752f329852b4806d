//! Results: what became of a ref's runs, told in Backlog. Runs, requests and our own comments become the comments that should be
//! there. Pure: [`Look::next`] says what to do next and does nothing; `results/run.rs` does it and decides nothing.
//!
//! What comes in only says where to look. Every comment is made anew from what AWS says now, and never read back but for its
//! last line, which says what it is about.

mod batch;
mod mail;
mod marker;
mod memory;
mod message;
mod refs;
mod run;
mod source;
mod space;
mod text;
mod visit;
mod write;

use std::collections::BTreeMap;

pub use self::{
    batch::batch,
    marker::{Kind, Marker},
    message::{GROUP, Message, letter},
    run::{Looked, Teller, Told},
    text::{Markup, Words},
    visit::{Place, Times},
};
use crate::{
    push::CommitId,
    route::{Results, ResultsIssue},
};

/// How often a message is tried that meets something which may pass. What is left then is the schedule's.
const TRIES: u32 = 3;

/// How many runs a comment shows.
pub const SHOWN_RUNS: usize = 10;

/// How long after its last change a run is looked at by the schedule, in seconds.
pub const HEALED_FOR: i64 = 24 * 60 * 60;

/// A run of a ref: an execution of a pipeline, or a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// How it is.
    pub state: State,
    /// When it began, in seconds of Unix time.
    pub started: i64,
    /// When it last changed, likewise.
    pub updated: i64,
    /// The version of the object that it took.
    pub version: String,
    /// What that holds; `None` if nobody knows, as after it was removed.
    pub holds: Option<Holds>,
    /// Whether it went back to what an earlier one made.
    pub is_rollback: bool,
    /// Where it failed, if it did and that is known.
    pub failure: Option<Failure>,
    /// Its page in AWS's console.
    pub link: String,
}

/// How a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is not over. It may wait for an approval, for days.
    Running,
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
    /// Somebody stopped it.
    Stopped,
    /// A newer one took its place.
    Superseded,
}

/// What the version of a run holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// The commit.
    pub commit: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Who wrote it.
    pub author: String,
    /// When the version was written, in seconds of Unix time.
    pub written: i64,
}

/// Where a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stage, or the phase of a build.
    pub stage: String,
    /// The action, if stages have some.
    pub action: Option<String>,
    /// What AWS says, which may hold anything.
    pub words: String,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub number: i64,
    /// The branch that it is about.
    pub branch: String,
    /// The branch that it goes to.
    pub base: String,
    /// What became of it.
    pub fate: Fate,
    /// Who opened it.
    pub author: Option<i64>,
}

/// What became of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is open.
    Open,
    /// It was closed, or merged, at this time, in seconds of Unix time, if that is known.
    Over {
        /// When.
        at: Option<i64>,
        /// Whether it was merged.
        is_merged: bool,
        /// The commit that it came in with, if it was merged and that is known.
        commit: Option<CommitId>,
    },
}

/// Where comments stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// A pull request of the repository, by its number.
    Request(i64),
    /// An issue, by its key.
    Issue(String),
}

/// A comment of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Its number.
    pub id: i64,
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub text: String,
    /// When it last changed, in seconds of Unix time; `None` if Backlog does not say so.
    pub updated: Option<i64>,
}

/// What this process knows of a comment that it wrote or saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The comment.
    pub comment: Comment,
    /// The newest run there was.
    pub run: String,
    /// Whether that is so short a time ago that a list may not show it yet.
    pub is_fresh: bool,
}

/// What a look is about: the runs of one ref by one pipeline.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The pipeline, or the project of builds.
    pub pipeline: String,
    /// What the comments' last lines say.
    pub marker: Marker,
    /// The branch or tag, as people call it.
    pub ref_name: String,
    /// Whether it is a branch. No request is about a tag.
    pub is_branch: bool,
    /// The project's key.
    pub project: String,
    /// All runs that are known, the newest first.
    pub runs: Vec<Run>,
    /// Whether there are older ones.
    pub is_cut: bool,
    /// What requests are told.
    pub results: Results,
    /// The issue that is told what no request is about.
    pub issue: Option<ResultsIssue>,
    /// How it is said.
    pub words: Words,
}

/// Why there is a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Something happened.
    Event,
    /// It is time: what was lost is healed, and what people did by hand stays.
    Schedule {
        /// The time, in seconds of Unix time.
        now: i64,
    },
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// List the pull requests.
    Requests,
    /// List our comments there.
    Comments {
        /// Where.
        home: Home,
        /// Whether the list must show whatever anybody wrote before this look began.
        settled: bool,
    },
    /// Write a comment.
    Write(Write),
    /// Nothing.
    Over,
}

/// A comment that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub home: Home,
    /// Which one it takes the place of; `None` for a new one.
    pub replaces: Option<i64>,
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub text: String,
    /// Whose commit it is that people are told of, if somebody is to be notified.
    pub notifies: Option<CommitId>,
}

/// Our comments in one place.
#[derive(Debug, Clone, Default)]
struct Listing {
    comments: Vec<Comment>,
    /// Whether there are more comments than are read.
    is_cut: bool,
    settled: bool,
}

/// What a home is to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// It is told of all runs.
    All,
    /// It is told of these runs.
    Runs(Vec<usize>),
    /// What it was told is brought to its end.
    Ending,
}

/// One look: what was seen so far, and what is known from before.
#[derive(Debug, Clone)]
pub struct Look<'a> {
    topic: &'a Topic,
    why: Why,
    requests: Option<Vec<Request>>,
    listed: BTreeMap<Home, Listing>,
    known: Vec<(Home, Known)>,
    /// Comments that are no more, whatever a list says.
    gone: Vec<i64>,
    roles: Vec<(Home, Role)>,
}

impl Run {
    /// How its id begins, which is enough to tell it from others.
    #[must_use]
    pub fn short_id(&self) -> &str {
        let id = self.id.rsplit(':').next().unwrap_or_default();
        id.get(..8).unwrap_or(id)
    }

    /// Whether it says if the ref is red or green.
    fn is_verdict(&self) -> bool {
        !self.is_rollback && matches!(self.state, State::Succeeded | State::Failed)
    }
}

impl Topic {
    /// The runs since one succeeded, the newest first, by their places.
    fn since_green(&self) -> std::ops::Range<usize> {
        let is_green = |run: &Run| run.is_verdict() && run.state == State::Succeeded;
        0..self
            .runs
            .iter()
            .position(is_green)
            .unwrap_or(self.runs.len())
    }

    /// Those of them that failed.
    fn red(&self) -> Vec<usize> {
        let is_red =
            |at: &usize| self.runs[*at].is_verdict() && self.runs[*at].state == State::Failed;
        self.since_green().filter(is_red).collect()
    }

    /// The alert of a run.
    fn alert_of(&self, at: usize) -> Kind {
        Kind::Alert(self.runs[at].short_id().to_owned())
    }

    /// The run that is known by a short id.
    fn run_of(&self, short_id: &str) -> Option<usize> {
        self.runs.iter().position(|run| run.short_id() == short_id)
    }

    /// The first run after this one that succeeded.
    fn mended_by(&self, at: usize) -> Option<usize> {
        let later = self.runs.iter().take(at).enumerate();
        let mut green = later.filter(|(_, run)| run.is_verdict() && run.state == State::Succeeded);
        green.next_back().map(|(at, _)| at)
    }

    /// When any of these runs last changed.
    fn newest_change(&self, runs: &[usize]) -> Option<i64> {
        runs.iter().map(|at| self.runs[*at].updated).max()
    }

    /// The runs whose version a merged request came in with: its own merge, or one at a time between two versions.
    fn brought_by(&self, at: Option<i64>, commit: Option<CommitId>) -> Vec<usize> {
        let written = |run: &Run| run.holds.as_ref().map(|holds| holds.written);
        let is_of = |at_run: usize| {
            let run = &self.runs[at_run];
            let Some(holds) = &run.holds else {
                return false;
            };
            if commit == Some(holds.commit) {
                return true;
            }
            let older = self.runs[at_run..].iter().filter_map(written);
            let previous = older.filter(|time| *time < holds.written).max();
            // Without the version before nobody knows since when.
            matches!((at, previous), (Some(at), Some(previous)) if previous < at && at <= holds.written)
        };
        let shown = 0..self.runs.len().min(SHOWN_RUNS);
        shown.filter(|at_run| is_of(*at_run)).collect()
    }
}

impl<'a> Look<'a> {
    /// A look that has seen nothing yet.
    #[must_use]
    pub fn new(topic: &'a Topic, why: Why, known: Vec<(Home, Known)>) -> Self {
        Self {
            topic,
            why,
            requests: None,
            listed: BTreeMap::new(),
            known,
            gone: Vec::new(),
            roles: Vec::new(),
        }
    }

    /// The pull requests of the repository are these.
    pub fn saw_requests(&mut self, requests: Vec<Request>) {
        self.roles = self.roles_of(&requests);
        self.requests = Some(requests);
    }

    /// Our comments in a home are these. `is_cut`: there are more comments there than are read.
    pub fn saw_comments(
        &mut self,
        home: &Home,
        mut comments: Vec<Comment>,
        is_cut: bool,
        settled: bool,
    ) {
        comments.retain(|comment| !self.gone.contains(&comment.id));
        for (_, known) in self.known.iter().filter(|(of, _)| of == home) {
            let is_there = comments.iter().any(|own| own.id == known.comment.id);
            if known.is_fresh && !is_there && !self.gone.contains(&known.comment.id) {
                comments.push(known.comment.clone());
            }
        }
        // Of two of one kind the first counts.
        comments.sort_by_key(|comment| comment.id);
        let listing = Listing {
            comments,
            is_cut,
            settled,
        };
        self.listed.insert(home.clone(), listing);
    }

    /// A comment was written.
    pub fn wrote(&mut self, write: &Write, id: i64) {
        let listing = self.listed.entry(write.home.clone()).or_default();
        listing.comments.retain(|own| own.id != id);
        listing.comments.push(Comment {
            id,
            kind: write.kind.clone(),
            text: write.text.clone(),
            updated: None,
        });
    }

    /// A comment that should have been replaced is no more. The home is looked at again.
    pub fn saw_gone(&mut self, home: &Home, id: i64) {
        self.gone.push(id);
        self.listed.remove(home);
    }

    /// Nothing can be read or written there. The other places are told all the same.
    pub fn saw_refused(&mut self, home: &Home) {
        self.roles.retain(|(own, _)| own != home);
        self.listed.remove(home);
    }

    /// What is to be done next.
    #[must_use]
    pub fn next(&self) -> Step {
        let topic = self.topic;
        if topic.results == Results::None || topic.runs.is_empty() {
            return Step::Over;
        }
        if self.requests.is_none() {
            return Step::Requests;
        }
        for (home, role) in &self.roles {
            if !self.listed.contains_key(home) {
                let settled = !self.knows_all(home, role);
                let home = home.clone();
                return Step::Comments { home, settled };
            }
        }
        for write in self.wanted() {
            let listing = &self.listed[&write.home];
            if write.replaces.is_none() && listing.is_cut {
                continue;
            }
            if write.replaces.is_none() && !listing.settled {
                return Step::Comments {
                    home: write.home,
                    settled: true,
                };
            }
            return Step::Write(write);
        }
        Step::Over
    }

    /// Where there are more comments than are read, so that nothing new is written there.
    pub fn crowded(&self) -> impl Iterator<Item = &Home> {
        let listed = self.listed.iter();
        listed.filter_map(|(home, listing)| listing.is_cut.then_some(home))
    }

    /// Who opened a request.
    #[must_use]
    pub fn author(&self, home: &Home) -> Option<i64> {
        let requests = self.requests.iter().flatten();
        let mut own = requests.filter(|request| Home::Request(request.number) == *home);
        own.next()?.author
    }

    /// The comments that are there now, for whoever looks next.
    pub fn there(&self) -> impl Iterator<Item = (&Home, &Comment)> {
        let listed = self.listed.iter();
        listed.flat_map(|(home, listing)| listing.comments.iter().map(move |own| (home, own)))
    }

    /// Whether nothing new will be written there, as far as is known.
    fn knows_all(&self, home: &Home, role: &Role) -> bool {
        let knows = |kind: &Kind| {
            let mut known = self.known.iter();
            known.any(|(of, known)| of == home && known.comment.kind == *kind)
        };
        let wants_status = self.topic.results == Results::PullRequest && *role != Role::Ending;
        let is_red = matches!(home, Home::Request(_)) && *role != Role::Ending;
        let mut since = self.topic.since_green();
        (!wants_status || knows(&Kind::Status))
            && (!is_red
                || self.topic.red().is_empty()
                || since.any(|at| knows(&self.topic.alert_of(at))))
    }

    /// Which requests and issues the topic is about.
    fn roles_of(&self, requests: &[Request]) -> Vec<(Home, Role)> {
        let topic = self.topic;
        let mut roles: Vec<(Home, Role)> = Vec::new();
        let mut told = vec![false; topic.runs.len()];
        for request in requests.iter().filter(|_| topic.is_branch) {
            let is_branch = request.branch == topic.ref_name;
            let role = match &request.fate {
                Fate::Open if is_branch => Role::All,
                Fate::Over {
                    at,
                    is_merged: true,
                    commit,
                } if request.base == topic.ref_name => match topic.brought_by(*at, *commit) {
                    runs if runs.is_empty() => continue,
                    runs => Role::Runs(runs),
                },
                // It ended while a run of its branch went on.
                Fate::Over { at: Some(at), .. }
                    if is_branch && topic.runs.first().is_some_and(|run| run.started <= *at) =>
                {
                    Role::Ending
                }
                _ => continue,
            };
            match &role {
                Role::All => told.fill(true),
                Role::Runs(runs) => runs.iter().for_each(|at| told[*at] = true),
                Role::Ending => {}
            }
            roles.push((Home::Request(request.number), role));
        }
        if topic.results != Results::PullRequest {
            return roles;
        }
        // What no request is told.
        let mut issues: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, run) in topic.runs.iter().enumerate().take(SHOWN_RUNS) {
            let key = match &topic.issue {
                Some(ResultsIssue::Key(key)) => Some(key.clone()),
                Some(ResultsIssue::OfCommit) => run
                    .holds
                    .as_ref()
                    .and_then(|holds| ResultsIssue::named_in(&holds.subject, &topic.project)),
                None => None,
            };
            if let Some(key) = key.filter(|_| !told[at]) {
                issues.entry(key).or_default().push(at);
            }
        }
        let issues = issues.into_iter();
        roles.extend(issues.map(|(key, runs)| (Home::Issue(key), Role::Runs(runs))));
        roles
    }

    /// Everything that should be written.
    fn wanted(&self) -> Vec<Write> {
        let mut wanted = Vec::new();
        for (home, role) in &self.roles {
            wanted.extend(self.status(home, role));
            wanted.extend(self.told_alerts(home));
        }
        wanted.extend(self.new_alerts());
        wanted
    }

    fn status(&self, home: &Home, role: &Role) -> Option<Write> {
        if self.topic.results != Results::PullRequest {
            return None;
        }
        let shown: Vec<usize> = match role {
            Role::All | Role::Ending => (0..self.topic.runs.len().min(SHOWN_RUNS)).collect(),
            Role::Runs(runs) => runs.clone(),
        };
        let text = text::status(self.topic, &shown);
        let can_be_new = *role != Role::Ending;
        self.write(home, &Kind::Status, text, &shown, can_be_new)
    }

    /// Alerts that are there, each as its run is now. One whose run is too long ago is left alone.
    fn told_alerts(&self, home: &Home) -> Vec<Write> {
        let comments = &self.listed[home].comments;
        let alerts = comments.iter().filter_map(|comment| match &comment.kind {
            Kind::Alert(id) => Some((comment, self.topic.run_of(id)?)),
            Kind::Status => None,
        });
        let writes = alerts.filter_map(|(comment, at)| self.alert(home, &comment.kind, at, false));
        writes.collect()
    }

    /// The alert of a red run that nobody was told of yet, in each place that is told of the same run.
    fn new_alerts(&self) -> Vec<Write> {
        let topic = self.topic;
        let (red, since) = (topic.red(), topic.since_green());
        let has = |home: &Home, kind: &Kind| {
            let mut comments = self.listed[home].comments.iter();
            comments.any(|comment| comment.kind == *kind)
        };
        let homes = |at: usize| {
            let roles = self.roles.iter();
            roles.filter(move |(home, role)| {
                let is_of = match role {
                    Role::All => true,
                    Role::Runs(runs) => runs.contains(&at),
                    Role::Ending => false,
                };
                // Guests and customers read issues.
                is_of && matches!(home, Home::Request(_))
            })
        };
        // One alert a red run, whichever of its runs it was for. That one may be tried again by now, and fail again.
        let is_told = |at: &usize| {
            let alert = topic.alert_of(*at);
            self.listed.keys().any(|home| has(home, &alert)) || self.was_told(&alert)
        };
        let told = since.clone().rev().find(is_told);
        // Of a red run that began before what is known, somebody was told then.
        let is_whole = !topic.is_cut || since.end < topic.runs.len();
        let first = || {
            let mut red = red.iter().rev().copied().filter(|_| is_whole);
            red.find(|at| homes(*at).next().is_some())
        };
        let Some(at) = told.or_else(first).filter(|_| !red.is_empty()) else {
            return Vec::new();
        };
        let owed =
            homes(at).filter(|(home, _)| !since.clone().any(|at| has(home, &topic.alert_of(at))));
        owed.filter_map(|(home, _)| self.alert(home, &topic.alert_of(at), at, true))
            .collect()
    }

    /// Whether an alert was there that somebody removed by hand.
    fn was_told(&self, alert: &Kind) -> bool {
        let mut known = self.known.iter();
        known.any(|(_, known)| known.comment.kind == *alert)
    }

    fn alert(&self, home: &Home, kind: &Kind, at: usize, can_be_new: bool) -> Option<Write> {
        let mended_by = self.topic.mended_by(at);
        let text = text::alert(self.topic, at, mended_by);
        let runs: Vec<usize> = [Some(at), mended_by].into_iter().flatten().collect();
        let write = self.write(home, kind, text, &runs, can_be_new)?;
        let commit = self.topic.runs[at].holds.as_ref().map(|holds| holds.commit);
        Some(Write {
            notifies: commit.filter(|_| write.replaces.is_none()),
            ..write
        })
    }

    /// A comment, if it is not there as it should be.
    fn write(
        &self,
        home: &Home,
        kind: &Kind,
        text: String,
        runs: &[usize],
        can_be_new: bool,
    ) -> Option<Write> {
        let changed = self.topic.newest_change(runs)?;
        let comments = &self.listed[home].comments;
        let own = comments.iter().find(|comment| comment.kind == *kind);
        let is_due = match (own, self.why) {
            (Some(own), _) if text::is_same(&own.text, &text) => false,
            // What is newer than the truth is what somebody made of it.
            (Some(own), Why::Schedule { .. }) => own
                .updated
                .is_none_or(|updated| updated <= changed + text::CLOCKS),
            (None, _) if !can_be_new || self.is_removed(home, kind) => false,
            (_, Why::Event) => true,
            (None, Why::Schedule { now }) => now - changed <= HEALED_FOR,
        };
        is_due.then(|| Write {
            home: home.clone(),
            replaces: own.map(|own| own.id),
            kind: kind.clone(),
            text,
            notifies: None,
        })
    }

    /// Whether somebody removed it by hand since the newest run began.
    fn is_removed(&self, home: &Home, kind: &Kind) -> bool {
        let newest = self.topic.runs.first().map(|run| run.id.as_str());
        let mut known = self.known.iter().filter(|(of, _)| of == home);
        known.any(|(_, known)| known.comment.kind == *kind && newest == Some(&*known.run))
    }
}

#[cfg(test)]
mod tests;
