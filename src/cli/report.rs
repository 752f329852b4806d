//! What people and programs see: a JSON line an object on stdout, progress and a summary on stderr.

use std::{
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use backlog_bridge::{
    deliver::{Bridge, Delivery, Outcome, step::Hints},
    error::{Error, chain},
    progress::{Progress, Stage},
    push::{PushEvent, RefName, RepositoryName},
    route::{Destination, DestinationError},
    webhook::Ignored,
};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing::Level;

/// How often the progress line is written anew.
const TICK: Duration = Duration::from_millis(120);

/// The line on stdout. Its fields and their names are a contract; what is not known is absent.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    ref_name: Option<&'a str>,
    outcome: &'static str,
    /// Why nothing was done, where the outcome is `ignored`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<LineError>,
}

#[derive(Debug, Serialize)]
struct LineError {
    kind: &'static str,
    message: String,
    transient: bool,
}

impl From<&Error> for LineError {
    fn from(err: &Error) -> Self {
        Self {
            kind: err.kind(),
            message: chain(err),
            transient: err.is_transient(),
        }
    }
}

impl Line<'_> {
    fn print(&self) {
        say!("{}", serde_json::to_string(self).expect("plain data"));
    }
}

/// Logs of the libraries go to stderr, for people.
pub(super) fn start_log(level: Level) {
    // What goes wrong inside other crates comes back as an error, with a sentence of ours; their own words are for those
    // who look for a fault.
    let others = if level == Level::DEBUG {
        "debug"
    } else {
        "off"
    };
    let filter = format!("{others},backlog_bridge={level}");
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Delivers one object, shows how far it is, and reports it. Returns what was done.
pub(super) async fn deliver(bridge: &Bridge, to: &Destination, hints: Option<Hints>) -> Delivery {
    let started = Instant::now();
    let delivery = watch(bridge, to, hints).await;
    print(to, &delivery, started.elapsed());
    summarize(to, &delivery, started.elapsed());
    delivery
}

/// Delivers one object, and shows how far it is where somebody looks.
pub(super) async fn watch(bridge: &Bridge, to: &Destination, hints: Option<Hints>) -> Delivery {
    let progress = Arc::new(Progress::default());
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg}").expect("a valid template"));
    let delivery = bridge.deliver(to, hints, &progress);
    tokio::pin!(delivery);
    let mut tick = tokio::time::interval(TICK);
    let delivery = loop {
        tokio::select! {
            delivery = &mut delivery => break delivery,
            _ = tick.tick() => {
                bar.set_message(describe(&to.route, &progress));
                bar.tick();
            }
        }
    };
    bar.finish_and_clear();
    delivery
}

/// The line on stdout.
fn print(to: &Destination, delivery: &Delivery, took: Duration) {
    let outcome = match &delivery.result {
        Ok(Outcome::Published) => "published",
        Ok(Outcome::AlreadyCurrent) => "already_current",
        Ok(Outcome::BranchGone) => "branch_gone",
        Err(_) => "failed",
    };
    Line {
        route: Some(&to.route),
        repository: Some(to.repository.as_str()),
        ref_name: Some(to.ref_name.as_str()),
        outcome,
        commit: delivery.commit.map(|commit| commit.to_string()),
        bucket: Some(&to.bucket),
        object_key: Some(to.key.as_str()),
        version_id: delivery.version_id.as_deref(),
        entries: delivery.entries,
        archive_bytes: delivery.archive_bytes,
        fetched_bytes: delivery.fetched_bytes,
        duration_ms: Some(took.as_millis()),
        error: delivery.result.as_ref().err().map(Into::into),
        ..Line::default()
    }
    .print();
}

/// Reports a failure that came before any object was looked at.
pub(super) fn failed(
    route: &str,
    repository: &RepositoryName,
    ref_name: Option<&RefName>,
    err: &Error,
) {
    Line {
        route: Some(route),
        repository: Some(repository.as_str()),
        ref_name: ref_name.map(RefName::as_str),
        outcome: "failed",
        error: Some(err.into()),
        ..Line::default()
    }
    .print();
    eprintln!("{route}: failed: {}", chain(err));
}

/// Reports a ref whose name makes no object key.
pub(super) fn no_key(repository: &RepositoryName, err: &DestinationError) {
    Line {
        route: Some(&err.route),
        repository: Some(repository.as_str()),
        ref_name: Some(err.ref_name.as_str()),
        outcome: "failed",
        error: Some(LineError {
            kind: "object_key",
            message: chain(err),
            transient: false,
        }),
        ..Line::default()
    }
    .print();
    eprintln!("{}: failed: {}", err.route, chain(err));
}

/// Reports an event that leads to nothing, and why.
pub(super) fn ignored(why: Ignored, push: Option<&PushEvent>) {
    Line {
        repository: push.map(|push| push.repository.as_str()),
        ref_name: push.map(|push| push.ref_name.as_str()),
        outcome: "ignored",
        reason: Some(why.to_string()),
        ..Line::default()
    }
    .print();
    match push {
        Some(push) => eprintln!("ignored: {} {}: {why}", push.repository, push.ref_name),
        None => eprintln!("ignored: {why}"),
    }
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
    }
}

fn summarize(to: &Destination, delivery: &Delivery, took: Duration) {
    let Destination {
        route,
        bucket,
        key,
        ref_name,
        ..
    } = to;
    let commit = delivery.commit.map_or_else(
        || "?".to_owned(),
        |commit| format!("{:.8}", commit.to_string()),
    );
    let version = delivery.version_id.as_deref().unwrap_or("?");
    match &delivery.result {
        Ok(Outcome::Published) => eprintln!(
            "{route}: published {commit} as s3://{bucket}/{key}, version {version}: {} entries, {}, in {}",
            HumanCount(delivery.entries.unwrap_or_default() as u64),
            HumanBytes(delivery.archive_bytes.unwrap_or_default()),
            time(took)
        ),
        Ok(Outcome::AlreadyCurrent) => {
            eprintln!(
                "{route}: s3://{bucket}/{key} holds {commit} already, in {}",
                time(took)
            );
        }
        Ok(Outcome::BranchGone) => {
            eprintln!("{route}: {ref_name} is gone; s3://{bucket}/{key} stays as it is");
        }
        Err(err) => eprintln!("{route}: failed: {}", chain(err)),
    }
    for warning in &delivery.warnings {
        eprintln!("{route}: warning: {warning}");
    }
}

/// `12 ms` or `1.23 s`.
pub(super) fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
