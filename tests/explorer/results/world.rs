//! A pull request, a pipeline whose runs end in any order, events that come in any order, twice or never, and workers that may
//! die after anything they write.

use std::collections::HashMap;

use backlog_bridge::{
    results::{
        Comment, Fate, Home, Kind, Look, Marker, Markup, Request, Run, State as RunState, Step,
        Topic, Why, Words,
    },
    route::{Language, Results},
};

use crate::{
    search::Model,
    story::{Violation, violation},
};

const RUNS: usize = 3;
const WORKERS: usize = 2;
const REQUEST: i64 = 1;
const STATUS: i64 = 10;
const ALERT: i64 = 20;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Green,
    Red,
}

/// What is left out or turned round, around the product's step function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The event is believed, and what the comment says of the other runs.
    Edge {
        /// Whether alerts are looked for by their runs.
        keyed: bool,
    },
    SeveralWorkers,
    NoSearch,
    AlertsNotKeyed,
    FirstOfRed,
    /// Nothing is heard of a request that is opened.
    NotOpened,
    NoSchedule,
    /// What people and the schedule ask for is in a group of its own.
    TwoGroups,
    /// A list is taken as it comes.
    ListBelieved,
}

/// One search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) outcomes: &'static [Outcome],
    /// Whether the request is open at the start.
    pub(crate) is_open: bool,
    /// How often a worker dies after it wrote, or an event comes twice.
    pub(crate) faults: u8,
    /// How many events get lost.
    pub(crate) lost: u8,
    /// How many failed runs are tried again.
    pub(crate) retries: u8,
    pub(crate) workers: usize,
    pub(crate) mutant: Option<Mutant>,
}

/// A run's state, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Seen {
    No,
    Runs,
    Green,
    Red,
}

/// All runs as somebody sees them.
type View = [Seen; RUNS];

/// A text that the product made, by its number, and the view it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Text {
    number: u16,
    view: View,
}

/// What stands in the request, or what a list shows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Comments {
    status: Option<Text>,
    alerts: [Option<Text>; RUNS],
}

/// Why a worker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Event {
    /// What became of a run; and whether that was when it was tried again, which is another event.
    Run(u8, Seen, bool),
    Opened,
    Schedule,
}

const EVENTS: usize = 6 * RUNS + 2;

impl Event {
    fn bit(self) -> u32 {
        1 << match self {
            Self::Run(run, seen, again) => {
                usize::from(run) * 6 + usize::from(again) * 3 + seen as usize - 1
            }
            Self::Opened => EVENTS - 2,
            Self::Schedule => EVENTS - 1,
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let seen = [Seen::Runs, Seen::Green, Seen::Red];
        let runs =
            (0..6_u8).flat_map(move |run| seen.map(|seen| Self::Run(run / 2, seen, run % 2 == 1)));
        runs.chain([Self::Opened, Self::Schedule])
    }

    fn group(self) -> u8 {
        u8::from(!matches!(self, Self::Run(..)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Worker {
    event: Event,
    view: Option<View>,
    is_open: Option<bool>,
    listed: Option<(Comments, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    runs: View,
    is_open: bool,
    /// Whether the schedule's look was sent.
    is_scheduled: bool,
    /// Runs that were tried again.
    retried: u8,
    pending: u32,
    comments: Comments,
    /// What a list that lags shows.
    shown: Comments,
    workers: [Option<Worker>; WORKERS],
    faults: u8,
    lost: u8,
    retries: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    Start(u8),
    End(u8, Seen),
    Retry(u8),
    Open,
    Schedule,
    Lose(Event),
    Take(u8, Event),
    See(u8),
    Show,
    Write(u8, Option<u8>, bool),
    Die(u8),
    Acknowledge(u8, bool),
}

/// What the product asks for, small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Requests,
    Comments {
        settled: bool,
    },
    /// The status, or the alert of a run; whether it replaces one; and its text.
    Write(Option<u8>, bool, u16),
    Over,
}

type Question = (View, Option<bool>, Option<(Comments, bool)>, bool);

pub(crate) struct World {
    rules: Rules,
    answers: HashMap<Question, Ask>,
    texts: Vec<String>,
}

fn id(run: usize) -> String {
    format!("{run}{run}{run}{run}{run}{run}{run}{run}-0")
}

impl World {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            answers: HashMap::new(),
            texts: Vec::new(),
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.rules.mutant == Some(mutant)
    }

    fn topic(view: View) -> Topic {
        let runs = view.iter().enumerate().rev().filter_map(|(run, seen)| {
            let state = match seen {
                Seen::No => return None,
                Seen::Runs => RunState::Running,
                Seen::Green => RunState::Succeeded,
                Seen::Red => RunState::Failed,
            };
            let started = 1_000 * (1 + i64::try_from(run).expect("few"));
            Some(Run {
                id: id(run),
                state,
                started,
                updated: started + 60,
                version: String::new(),
                holds: None,
                is_rollback: false,
                failure: None,
                link: "https://console.example".into(),
            })
        });
        Topic {
            pipeline: "web".into(),
            marker: Marker::new("1", "r", "web", "refs/heads/x"),
            ref_name: "x".into(),
            is_branch: true,
            project: "APP".into(),
            runs: runs.collect(),
            is_cut: false,
            results: Results::PullRequest,
            issue: None,
            words: Words {
                language: Language::English,
                markup: Markup::Backlog,
                zone: None,
                detail: false,
            },
        }
    }

    /// What the product asks for, with what was seen so far.
    fn ask(&mut self, question: Question) -> Ask {
        if let Some(answer) = self.answers.get(&question) {
            return *answer;
        }
        let (view, is_open, listed, by_schedule) = question;
        let topic = Self::topic(view);
        let why = if by_schedule {
            Why::Schedule { now: 5_000 }
        } else {
            Why::Event
        };
        let mut look = Look::new(&topic, why, Vec::new());
        if let Some(is_open) = is_open {
            let request = Request {
                number: REQUEST,
                branch: "x".into(),
                base: "main".into(),
                fate: Fate::Open,
                author: None,
            };
            look.saw_requests(if is_open { vec![request] } else { Vec::new() });
        }
        if let Some((comments, settled)) = listed {
            let text = |text: Text| self.texts[usize::from(text.number)].clone();
            let comment = |id, kind, own: Text| Comment {
                id,
                kind,
                text: text(own),
                updated: None,
            };
            let status = comments
                .status
                .map(|own| comment(STATUS, Kind::Status, own));
            let alerts = comments.alerts.iter().enumerate().filter_map(|(run, own)| {
                let kind = Kind::Alert(id(run)[..8].to_owned());
                Some(comment(
                    ALERT + i64::try_from(run).expect("few"),
                    kind,
                    (*own)?,
                ))
            });
            let all = status.into_iter().chain(alerts).collect();
            look.saw_comments(&Home::Request(REQUEST), all, false, settled);
        }
        let answer = match look.next() {
            Step::Requests => Ask::Requests,
            Step::Comments { settled, .. } => Ask::Comments { settled },
            Step::Over => Ask::Over,
            Step::Write(write) => {
                let run = match &write.kind {
                    Kind::Status => None,
                    Kind::Alert(id) => Some(id.as_bytes()[0] - b'0'),
                };
                let known = self.texts.iter().position(|text| *text == write.text);
                let number = known.unwrap_or_else(|| {
                    self.texts.push(write.text);
                    self.texts.len() - 1
                });
                Ask::Write(
                    run,
                    write.replaces.is_some(),
                    u16::try_from(number).expect("few texts"),
                )
            }
        };
        self.answers.insert(question, answer);
        answer
    }

    /// What a worker has seen, as the product is told of it.
    fn question(&self, worker: &Worker) -> Question {
        let mut view = worker.view.expect("it looked at the runs first");
        if let Some(Mutant::Edge { .. }) = self.rules.mutant {
            let said = worker.listed.and_then(|(comments, _)| comments.status);
            view = said.map_or([Seen::No; RUNS], |text| text.view);
            if let Event::Run(run, seen, _) = worker.event {
                view[usize::from(run)] = seen;
            }
        }
        let by_schedule = worker.event == Event::Schedule;
        (view, worker.is_open, worker.listed, by_schedule)
    }

    /// What a list shows to a worker.
    fn listed(&self, state: &State, view: View, settled: bool) -> Comments {
        let mut seen = if settled && !self.is(Mutant::ListBelieved) {
            state.comments
        } else {
            state.shown
        };
        match self.rules.mutant {
            Some(Mutant::NoSearch) => seen = Comments::default(),
            Some(Mutant::AlertsNotKeyed | Mutant::Edge { keyed: false }) => {
                seen.alerts = Default::default();
            }
            Some(Mutant::FirstOfRed) => {
                let red = current_red(view);
                for (run, alert) in seen.alerts.iter_mut().enumerate() {
                    *alert = alert.filter(|_| !red.contains(&run) || red[0] == run);
                }
            }
            _ => {}
        }
        seen
    }

    /// Whether a list can be had that shows everything: the product waits for it, for longer than any list lags.
    fn is_settled(&self, state: &State) -> bool {
        self.is(Mutant::ListBelieved) || state.shown == state.comments
    }
}

/// The red runs that no green one follows, the first one first.
fn current_red(view: View) -> Vec<usize> {
    red_runs(view)
        .pop()
        .filter(|red| {
            !view
                .iter()
                .enumerate()
                .any(|(run, seen)| *seen == Seen::Green && run > red[red.len() - 1])
        })
        .unwrap_or_default()
}

/// Each row of red runs with no green one in between.
fn red_runs(view: View) -> Vec<Vec<usize>> {
    let (mut rows, mut was_red) = (Vec::<Vec<usize>>::new(), false);
    for (run, seen) in view.iter().enumerate() {
        match seen {
            Seen::Red if was_red => rows.last_mut().expect("one began").push(run),
            Seen::Red => rows.push(vec![run]),
            Seen::Green => {}
            Seen::No | Seen::Runs => continue,
        }
        was_red = *seen == Seen::Red;
    }
    rows
}

impl Model for World {
    type State = State;
    type Move = Move;

    fn first(&self) -> State {
        State {
            runs: [Seen::No; RUNS],
            is_open: self.rules.is_open,
            is_scheduled: false,
            retried: 0,
            pending: 0,
            comments: Comments::default(),
            shown: Comments::default(),
            workers: [None; WORKERS],
            faults: self.rules.faults,
            lost: self.rules.lost,
            retries: self.rules.retries,
        }
    }

    fn moves(&mut self, state: &State, out: &mut Vec<(Move, Result<State, Violation>)>) {
        let state = *state;
        self.pipeline(&state, out);
        for event in Event::all().filter(|event| state.pending & event.bit() != 0) {
            let mut workers = state.workers.iter().flatten();
            if workers.any(|worker| worker.event == event) {
                continue;
            }
            if state.lost > 0 && event != Event::Schedule {
                let after = State {
                    pending: state.pending & !event.bit(),
                    lost: state.lost - 1,
                    ..state
                };
                out.push((Move::Lose(event), Ok(after)));
            }
            for at in 0..self.rules.workers {
                let is_own = self.rules.mutant != Some(Mutant::TwoGroups)
                    || usize::from(event.group()) == at;
                if state.workers[at].is_none() && is_own {
                    let mut after = state;
                    after.workers[at] = Some(Worker {
                        event,
                        view: None,
                        is_open: None,
                        listed: None,
                    });
                    out.push((Move::Take(u8::try_from(at).expect("few"), event), Ok(after)));
                }
            }
        }
        if state.shown != state.comments {
            let after = State {
                shown: state.comments,
                ..state
            };
            out.push((Move::Show, Ok(after)));
        }
        for at in 0..self.rules.workers {
            if let Some(worker) = state.workers[at] {
                self.work(&state, at, worker, out);
            }
        }
    }

    fn at_the_end(&mut self, state: &State) -> Result<(), Violation> {
        if !state.is_open {
            return Ok(());
        }
        match state.comments.status {
            None => return Err(violation("R1", "nobody was told how the runs are".into())),
            Some(text) if text.view != state.runs => {
                return Err(violation("R2", format!("the comment says {:?}", text.view)));
            }
            Some(_) => {}
        }
        let is_told = |run: &usize| state.comments.alerts[*run].is_some();
        for row in red_runs(state.runs) {
            let told = row.iter().filter(|run| is_told(run)).count();
            if told > 1 {
                return Err(violation(
                    "R3",
                    format!("the red runs {row:?} are told twice"),
                ));
            }
        }
        let red = current_red(state.runs);
        if !red.is_empty() && !red.iter().any(is_told) {
            return Err(violation(
                "R3",
                format!("nobody was told of the red runs {red:?}"),
            ));
        }
        for run in 0..RUNS {
            let was_red = state.runs[run] == Seen::Red || state.retried & 1 << run != 0;
            if is_told(&run) && !was_red {
                return Err(violation("R3", format!("the green run {run} was told of")));
            }
        }
        // Alerts, too, say what is.
        let ask = self.ask((state.runs, Some(true), Some((state.comments, true)), false));
        if ask == Ask::Over {
            Ok(())
        } else {
            Err(violation(
                "R2",
                format!("something is left to be written: {ask:?}"),
            ))
        }
    }

    fn tell(&self, what: Move) -> String {
        match what {
            Move::Start(run) => format!("run {run} begins"),
            Move::End(run, seen) => format!("run {run} ends: {seen:?}"),
            Move::Retry(run) => format!("run {run} is tried again"),
            Move::Open => "the request is opened".into(),
            Move::Schedule => "the schedule asks for a look".into(),
            Move::Lose(event) => format!("{event:?} gets lost"),
            Move::Take(worker, event) => format!("worker {worker} takes {event:?}"),
            Move::See(worker) => format!("worker {worker} reads"),
            Move::Show => "the list shows what was written".into(),
            Move::Write(worker, run, replaces) => {
                let what = run.map_or("the status".into(), |run| format!("the alert of run {run}"));
                let how = if replaces { "changes" } else { "writes" };
                format!("worker {worker} {how} {what}")
            }
            Move::Die(worker) => format!("worker {worker} writes and dies"),
            Move::Acknowledge(worker, true) => {
                format!("worker {worker} is done, and nobody hears of it")
            }
            Move::Acknowledge(worker, false) => format!("worker {worker} is done"),
        }
    }
}

impl World {
    /// Runs begin in their order, and end in any.
    fn pipeline(&self, state: &State, out: &mut Vec<(Move, Result<State, Violation>)>) {
        let heard = |event: Event, pending: u32| match (event, self.rules.mutant) {
            (Event::Opened, Some(Mutant::NotOpened))
            | (Event::Schedule, Some(Mutant::NoSchedule)) => pending,
            _ => pending | event.bit(),
        };
        for (run, outcome) in self.rules.outcomes.iter().enumerate() {
            let number = u8::try_from(run).expect("few");
            let was_retried = state.retried & 1 << run != 0;
            let mut next = |seen: Seen, what: Move, retried: bool| {
                let mut after = *state;
                after.runs[run] = seen;
                after.pending = heard(
                    Event::Run(number, seen, retried || was_retried),
                    after.pending,
                );
                if retried {
                    after.retries -= 1;
                    after.retried |= 1 << run;
                }
                out.push((what, Ok(after)));
            };
            let is_next = run == 0 || state.runs[run - 1] != Seen::No;
            match state.runs[run] {
                Seen::No if is_next => next(Seen::Runs, Move::Start(number), false),
                Seen::Runs => {
                    let seen = match outcome {
                        Outcome::Red if !was_retried => Seen::Red,
                        _ => Seen::Green,
                    };
                    next(seen, Move::End(number, seen), false);
                    if was_retried {
                        next(Seen::Red, Move::End(number, Seen::Red), false);
                    }
                }
                Seen::Red if state.retries > 0 => next(Seen::Runs, Move::Retry(number), true),
                _ => {}
            }
        }
        if !state.is_open {
            let after = State {
                is_open: true,
                pending: heard(Event::Opened, state.pending),
                ..*state
            };
            out.push((Move::Open, Ok(after)));
        }
        let ended = state.runs.iter().take(self.rules.outcomes.len());
        let is_over = ended
            .clone()
            .all(|seen| matches!(seen, Seen::Green | Seen::Red));
        // Long after all else: what it is for is what got lost.
        if is_over
            && state.is_open
            && state.lost < self.rules.lost
            && !state.is_scheduled
            && state.pending == 0
        {
            let after = State {
                is_scheduled: true,
                pending: heard(Event::Schedule, state.pending),
                ..*state
            };
            out.push((Move::Schedule, Ok(after)));
        }
    }

    fn work(
        &mut self,
        state: &State,
        at: usize,
        worker: Worker,
        out: &mut Vec<(Move, Result<State, Violation>)>,
    ) {
        let number = u8::try_from(at).expect("few");
        let with = |worker: Option<Worker>| {
            let mut after = *state;
            after.workers[at] = worker;
            after
        };
        if worker.view.is_none() {
            let seen = Worker {
                view: Some(state.runs),
                ..worker
            };
            out.push((Move::See(number), Ok(with(Some(seen)))));
            return;
        }
        let question = self.question(&worker);
        match self.ask(question) {
            Ask::Requests => {
                let seen = Worker {
                    is_open: Some(state.is_open),
                    ..worker
                };
                out.push((Move::See(number), Ok(with(Some(seen)))));
            }
            Ask::Comments { settled } => {
                if !settled || self.is_settled(state) {
                    let listed = self.listed(state, question.0, settled);
                    let seen = Worker {
                        listed: Some((listed, settled)),
                        ..worker
                    };
                    out.push((Move::See(number), Ok(with(Some(seen)))));
                }
            }
            Ask::Write(run, replaces, text) => {
                let what = Move::Write(number, run, replaces);
                let text = Text {
                    number: text,
                    view: question.0,
                };
                let mut after = *state;
                let mut seen = worker;
                let (listed, _) = seen.listed.as_mut().expect("it looked before it wrote");
                let (there, own) = match run {
                    None => (&mut after.comments.status, &mut listed.status),
                    Some(run) => {
                        let run = usize::from(run);
                        (&mut after.comments.alerts[run], &mut listed.alerts[run])
                    }
                };
                *own = Some(text);
                let is_second = there.is_some() && !replaces;
                let was_shown = match run {
                    None => state.shown.status.is_some(),
                    Some(run) => state.shown.alerts[usize::from(run)].is_some(),
                };
                *there = Some(text);
                // What is changed is seen at once, as far as it is seen at all.
                if replaces && was_shown {
                    match run {
                        None => after.shown.status = Some(text),
                        Some(run) => after.shown.alerts[usize::from(run)] = Some(text),
                    }
                }
                if is_second {
                    let (invariant, what_is) = match run {
                        None => ("R1", "there are two status comments".to_owned()),
                        Some(run) => ("R3", format!("the red run {run} is told twice")),
                    };
                    out.push((what, Err(violation(invariant, what_is))));
                    return;
                }
                after.workers[at] = Some(seen);
                out.push((what, Ok(after)));
                if state.faults > 0 {
                    // The answer got lost, and the event comes again.
                    after.workers[at] = None;
                    after.faults -= 1;
                    out.push((Move::Die(number), Ok(after)));
                }
            }
            Ask::Over => {
                let mut after = with(None);
                if state.faults > 0 {
                    let again = State {
                        faults: state.faults - 1,
                        ..after
                    };
                    out.push((Move::Acknowledge(number, true), Ok(again)));
                }
                after.pending &= !worker.event.bit();
                out.push((Move::Acknowledge(number, false), Ok(after)));
            }
        }
    }
}
