//! What people and programs see: a JSON line an object on stdout, progress and a summary on stderr.

use std::{sync::Arc, time::Duration};

use backlog_bridge::{
    outcome::{Outcome, Report, SeenBack},
    plain,
    progress::{Progress, Stage},
};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// How often the progress line is written anew.
const TICK: Duration = Duration::from_millis(120);

/// The result of `work`, which works on `route`, while its progress is shown where somebody looks.
pub(super) async fn watch<T>(
    route: &str,
    progress: &Arc<Progress>,
    work: impl Future<Output = T>,
) -> T {
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg}").expect("a valid template"));
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(TICK);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = tick.tick() => {
                bar.set_message(describe(route, progress));
                bar.tick();
            }
        }
    };
    bar.finish_and_clear();
    result
}

/// The line on stdout, and the summary on stderr.
pub(super) fn print(report: &Report) {
    let line = serde_json::to_string(report).expect("plain data");
    say!("{}", plain::json(&line));
    summarize(report);
}

fn describe(route: &str, progress: &Progress) -> String {
    let (bytes, objects) = progress.done();
    match progress.stage() {
        Stage::Head => format!("{route}: reading the object"),
        Stage::Tip => format!("{route}: asking where the ref points"),
        Stage::Fetch => format!(
            "{route}: fetching, {} objects, {}",
            HumanCount(objects),
            HumanBytes(bytes)
        ),
        Stage::Archive => format!("{route}: archiving, {} objects", HumanCount(objects)),
        Stage::Put => format!("{route}: storing {}", HumanBytes(bytes)),
        Stage::Verify => format!("{route}: asking whether the ref moved meanwhile"),
        Stage::Settle => {
            format!("{route}: the Git server may lag behind the event, waiting a little")
        }
        stage @ (Stage::Token | Stage::Routes | Stage::Queue | Stage::Sweep) => {
            format!("{route}: {stage}")
        }
    }
}

fn summarize(report: &Report) {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
    let object = format!(
        "s3://{}/{}",
        known(&report.bucket),
        known(&report.object_key)
    );
    let subject = report.route.as_ref().or(report.repository.as_ref());
    let subject = subject.map_or_else(String::new, |subject| format!("{subject}: "));
    let took = time(report.took.unwrap_or_default());
    match report.outcome {
        Outcome::Published => note!(
            "{subject}published {} as {object}, version {}: {}, {}, in {took}",
            short(report.commit.as_ref()),
            known(&report.version_id),
            entries(report),
            HumanBytes(report.archive_bytes.unwrap_or_default()),
        ),
        Outcome::AlreadyCurrent => note!(
            "{subject}{object} holds {} already, in {took}",
            short(report.commit.as_ref())
        ),
        // Nobody delivered it before.
        Outcome::BranchGone if report.version_id.is_none() => note!(
            "{subject}there is no {}, and no object at {object} yet",
            known(&report.ref_name)
        ),
        Outcome::BranchGone => note!(
            "{subject}{} is gone; {object} stays as it is",
            known(&report.ref_name)
        ),
        Outcome::Ignored | Outcome::Failed => match (&report.error, &report.reason) {
            (Some(fault), _) => note!("{subject}failed: {}", fault.message),
            (None, reason) => {
                let ref_name = report.ref_name.as_ref();
                let ref_name = ref_name.map_or_else(String::new, |name| format!("{name}: "));
                note!("ignored: {subject}{ref_name}{}", known(reason));
            }
        },
    }
    if let (Some(SeenBack::First), Some(route)) = (report.step_back, &report.route) {
        note!(
            "{subject}the Git server shows an older commit, {}; the bridge delivers it if a second look, a minute later, \
             shows the same; after a force push back, `backlog-bridge sync {route} --now` delivers it at once",
            short(report.tip.as_ref())
        );
    }
    if let Some(why) = &report.full_fetch {
        note!("{subject}fetched everything, not only what changed: {why}");
    }
    for warning in &report.warnings {
        note!("{subject}warning: {warning}");
    }
}

/// `1 entry` or `1,234 entries`.
pub(super) fn entries(report: &Report) -> String {
    let count = report.entries.unwrap_or_default() as u64;
    let what = if count == 1 { "entry" } else { "entries" };
    format!("{} {what}", HumanCount(count))
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
