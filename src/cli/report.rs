//! What people and programs see of an outcome: prose on a terminal, a line of JSON elsewhere; and how far work is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backlog_bridge::{
    outcome::{Outcome, Report, SeenBack},
    plain,
    progress::{Progress, Stage},
};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    Ended, out,
    prose::{Line, Tone},
};

/// How often the progress line is written anew.
const TICK: Duration = Duration::from_millis(120);

/// How long a stage must have run before it is said how fast it is.
const RATED_AFTER: Duration = Duration::from_millis(500);

/// The result of `work`, which works on `subject`, while its progress is shown where somebody looks.
pub(super) async fn watch<T>(
    subject: &str,
    progress: &Arc<Progress>,
    work: impl Future<Output = T>,
) -> T {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a valid template");
    let bar = out::bars().add(ProgressBar::new_spinner().with_style(style));
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(TICK);
    let (mut stage, mut since) = (progress.stage(), Instant::now());
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = tick.tick() => {
                if progress.stage() != stage {
                    (stage, since) = (progress.stage(), Instant::now());
                }
                bar.set_message(describe(subject, progress, since.elapsed()));
                bar.tick();
            }
        }
    };
    bar.finish_and_clear();
    out::bars().remove(&bar);
    result
}

/// Tells an outcome to whoever reads it.
pub(super) fn print(report: &Report) {
    print_as(report, None);
}

/// The same in `serve`, where a webhook's `request_id` joins it with what became of that.
pub(super) fn print_as(report: &Report, request_id: Option<&str>) {
    let manner = out::manner();
    let lines = prose(report, request_id);
    if manner.json {
        json(&Joined { report, request_id });
        for line in lines {
            if !manner.quiet || line.is_bad() {
                out::problem(&line);
            }
        }
        return;
    }
    for line in lines {
        if line.is_bad() || line.is_odd() {
            out::problem(&line);
        } else if !manner.quiet {
            out::result(&line);
        }
    }
}

/// An outcome, and the request that it came from.
#[derive(Serialize)]
struct Joined<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// Writes a line of JSON on stdout.
pub(super) fn json(line: &impl Serialize) {
    let line = serde_json::to_string(line).expect("plain data");
    say!("{}", plain::json(&line));
}

/// How many outcomes of each kind there were.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: [usize; 6],
}

impl Tally {
    /// The words of the closing line, in its order.
    const WORDS: [(Outcome, &str); 6] = [
        (Outcome::Published, "new"),
        (Outcome::WouldPublish, "would be new"),
        (Outcome::AlreadyCurrent, "current"),
        (Outcome::BranchGone, "gone"),
        (Outcome::Ignored, "ignored"),
        (Outcome::Failed, "failed"),
    ];

    /// Tells an outcome, and counts it.
    pub(super) fn print(&mut self, report: &Report) {
        print(report);
        for (count, (outcome, _)) in self.counts.iter_mut().zip(Self::WORDS) {
            *count += usize::from(outcome == report.outcome);
        }
    }

    fn text(&self) -> String {
        let all = self.counts.iter().sum();
        let counts = self.counts.iter().zip(Self::WORDS);
        let counts = counts.filter(|(count, _)| **count > 0);
        let counts: Vec<_> = counts
            .map(|(count, (_, word))| format!("{} {word}", HumanCount(*count as u64)))
            .collect();
        closing(all, &counts)
    }

    /// Says it to people; and whether all went well.
    pub(super) fn close(&self) -> Ended {
        close(&self.text());
        let [.., failed] = self.counts;
        Ended::Well.and(failed > 0)
    }
}

/// `3 objects: 1 new, 2 current`.
pub(super) fn closing(objects: usize, counts: &[String]) -> String {
    let all = plain::count(objects, "object", "objects");
    if counts.is_empty() {
        all
    } else {
        format!("{all}: {}", counts.join(", "))
    }
}

/// The last line of a command, for people.
pub(super) fn close(text: &str) {
    let manner = out::manner();
    if !manner.json && !manner.quiet {
        say!("{text}");
    }
}

fn describe(subject: &str, progress: &Progress, elapsed: Duration) -> String {
    let (bytes, objects) = progress.done();
    let (all_bytes, all_objects) = progress.expected();
    match progress.stage() {
        Stage::Head => format!("{subject}: reading the object"),
        Stage::Tip => format!("{subject}: asking where the ref points"),
        Stage::Fetch => format!(
            "{subject}: fetching, {}, {}{}",
            of(objects, all_objects, |count| HumanCount(count).to_string()
                + " objects"),
            HumanBytes(bytes),
            pace(bytes, objects, all_objects, elapsed),
        ),
        Stage::Archive => format!(
            "{subject}: archiving, {}{}",
            of(objects, all_objects, |count| HumanCount(count).to_string()
                + " entries"),
            pace(bytes, objects, all_objects, elapsed),
        ),
        Stage::Put => format!(
            "{subject}: storing {}{}",
            of(bytes, all_bytes, |count| HumanBytes(count).to_string()),
            pace(bytes, bytes, all_bytes, elapsed),
        ),
        Stage::Verify => format!("{subject}: asking whether the ref moved meanwhile"),
        Stage::Settle => {
            format!("{subject}: the Git server may lag behind the event, waiting a little")
        }
        Stage::Routes => format!("{subject}: reading the routing table"),
        stage @ (Stage::Token | Stage::Queue | Stage::Sweep) => {
            format!("{subject}: {stage}")
        }
    }
}

/// `5 of 12 objects`, or `5 objects` where nobody knows of how many.
fn of(done: u64, all: u64, text: impl Fn(u64) -> String) -> String {
    if all == 0 {
        text(done)
    } else {
        format!("{} of {}", text(done), text(all))
    }
}

/// How fast it is, and how long the rest takes at this pace, once that can be said.
fn pace(bytes: u64, done: u64, all: u64, elapsed: Duration) -> String {
    if elapsed < RATED_AFTER {
        return String::new();
    }
    let mut text = String::new();
    let rate = u128::from(bytes) * 1000 / elapsed.as_millis().max(1);
    if let Ok(rate @ 1..) = u64::try_from(rate) {
        text = format!(", {}/s", HumanBytes(rate));
    }
    if done > 0 && all > done {
        let left = elapsed.as_millis() * u128::from(all - done) / u128::from(done);
        return format!("{text}, about {} s left", left.div_ceil(1000));
    }
    text
}

/// What people are told of an outcome: the outcome itself, and what they should know besides.
fn prose(report: &Report, request_id: Option<&str>) -> Vec<Line> {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
    let object = format!(
        "s3://{}/{}",
        known(&report.bucket),
        known(&report.object_key)
    );
    let subject = report.route.as_ref().or(report.repository.as_ref());
    let subject = subject.map_or_else(String::new, |subject| format!("{subject}: "));
    let joined = request_id.map_or_else(String::new, |id| format!("{} ", joint(id)));
    let subject = joined.clone() + &subject;
    let took = time(report.took.unwrap_or_default());
    let commit = short(report.commit.as_ref());
    let first = match report.outcome {
        Outcome::Published => Line::new(
            subject.as_str(),
            (Tone::Good, "published"),
            format!(
                " {commit} as {object}, version {}: {}, {}, in {took}",
                known(&report.version_id),
                entries(report.entries),
                HumanBytes(report.archive_bytes.unwrap_or_default()),
            ),
        ),
        Outcome::WouldPublish => Line::new(
            subject.as_str(),
            (Tone::Good, "would publish"),
            match &report.commit {
                Some(_) => format!(
                    " {} as {object}, which holds {commit}",
                    short(report.tip.as_ref())
                ),
                None => format!(" {} as {object}", short(report.tip.as_ref())),
            },
        ),
        Outcome::AlreadyCurrent => Line::new(
            format!("{subject}{object} "),
            (Tone::Calm, "holds"),
            format!(" {commit} already, in {took}"),
        ),
        // Nobody delivered it before.
        Outcome::BranchGone if report.version_id.is_none() => Line::new(
            format!("{subject}there is "),
            (Tone::Calm, "no"),
            format!(
                " {}, and no object at {object} yet",
                known(&report.ref_name)
            ),
        ),
        Outcome::BranchGone => Line::new(
            format!("{subject}{} is ", known(&report.ref_name)),
            (Tone::Calm, "gone"),
            format!("; {object} stays as it is"),
        ),
        Outcome::Ignored | Outcome::Failed => match (&report.error, &report.reason) {
            (Some(fault), _) => Line::new(
                subject.as_str(),
                (Tone::Bad, "failed"),
                format!(": {}", fault.message),
            ),
            (None, reason) => {
                let subject = subject.strip_prefix(&joined).unwrap_or_default();
                let ref_name = report.ref_name.as_ref();
                let ref_name = ref_name.map_or_else(String::new, |name| format!("{name}: "));
                Line::new(
                    joined.as_str(),
                    (Tone::Calm, "ignored"),
                    format!(": {subject}{ref_name}{}", known(reason)),
                )
            }
        },
    };
    let mut lines = vec![first];
    if let (Outcome::Published, Some(reason)) = (report.outcome, &report.reason) {
        lines.push(Line::plain(format!("{subject}{reason}")));
    }
    if let (Some(SeenBack::First), Some(route)) = (report.step_back, &report.route) {
        lines.push(Line::plain(format!(
            "{subject}the Git server shows an older commit, {}; the bridge delivers it if a second look, a minute later, \
             shows the same; after a force push back, `backlog-bridge sync {route} --now` delivers it at once",
            short(report.tip.as_ref())
        )));
    }
    if let Some(why) = &report.full_fetch {
        lines.push(Line::plain(format!(
            "{subject}fetched everything, not only what changed: {why}"
        )));
    }
    for warning in &report.warnings {
        let (odd, text) = ((Tone::Odd, "warning"), format!(": {warning}"));
        lines.push(Line::new(subject.as_str(), odd, text));
    }
    if out::manner().verbose {
        lines.extend(details(report).map(|detail| Line::plain(format!("  {detail}"))));
    }
    lines
}

/// What `-v` tells of an outcome.
fn details(report: &Report) -> impl Iterator<Item = String> {
    let named =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    let stages = report.stages.iter();
    let stages: Vec<_> = stages
        .map(|(stage, took)| format!("{stage} {}", time(*took)))
        .collect();
    [
        named("ref", &report.ref_name),
        named("commit", &report.commit),
        named("tip", &report.tip).filter(|_| report.tip != report.commit),
        named("archive SHA-256", &report.archive_sha256),
        report
            .fetched_bytes
            .map(|bytes| format!("fetched {}", HumanBytes(bytes))),
        (!stages.is_empty()).then(|| stages.join(", ")),
    ]
    .into_iter()
    .flatten()
}

/// `1 entry` or `1,234 entries`.
pub(super) fn entries(count: Option<usize>) -> String {
    let count = count.unwrap_or_default() as u64;
    let what = if count == 1 { "entry" } else { "entries" };
    format!("{} {what}", HumanCount(count))
}

/// As much of a request's id as joins a webhook with what became of it.
pub(super) fn joint(request_id: &str) -> &str {
    request_id.get(..8).unwrap_or(request_id)
}

/// The first digits of a commit, if it is known.
pub(super) fn short(commit: Option<&String>) -> &str {
    commit.and_then(|id| id.get(..8)).unwrap_or("?")
}

/// `12 ms` or `1.23 s`.
pub(super) fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
