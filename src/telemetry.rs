//! What a log and its metrics are written as: JSON lines in a Lambda, words at a terminal. The home of
//! `tracing-subscriber`.

use std::{
    fmt,
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::OnceLock,
};

use serde::Serialize;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tracing::Level;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    error::{Error, chain},
    plain,
};

/// Where metrics are found in CloudWatch.
const NAMESPACE: &str = "BacklogBridge";

/// The Lambda function's name, and the dimension that all metrics have: two bridges in one account are told apart. Not
/// set outside Lambda.
static FUNCTION: OnceLock<String> = OnceLock::new();

/// What is counted. These are the names that alarms and dashboards know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Webhooks, and what they were answered.
    Requests,
    /// Jobs, and what became of them.
    Deliveries,
    /// Looks at pipelines, and what became of them.
    Results,
    /// What somebody has to mend, and what was given up.
    PermanentFailures,
    /// What comes again by itself.
    TransientFailures,
    /// Objects that the sweep found behind their refs.
    SweepDrift,
    /// Refs that a glob takes and the sweep found without an object.
    SweepUndelivered,
    /// Repositories of which the sweep did not see every object.
    SweepNotReached,
    /// Looks at a routing table that is wrong, or gone.
    RoutingTableInvalid,
    /// Sweeps that found no routing table, and no sign that there ever was one.
    RoutingTableMissing,
    /// Tips that look older than what their objects hold.
    StepsBackSeen,
    /// Second looks that showed the same.
    StepsBackConfirmed,
    /// Second looks that showed something else.
    StepsBackTakenBack,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A count, and the fields of its line that it is grouped by, besides the function.
///
/// Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Of what.
    pub name: Counted,
    /// How many.
    pub count: u64,
    /// Each of these once, and the function alone if there is an empty one.
    pub by: &'static [&'static [&'static str]],
}

/// Logs as JSON lines on stdout, which is what CloudWatch Logs takes.
pub fn start_in_lambda(level: Level) {
    let name = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    FUNCTION.set(name).ok();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_max_level(level)
        .finish()
        .with(filter(level))
        .init();
}

/// Says in the log what is wrong with the environment, for the process to end with: it could handle nothing.
#[must_use]
pub fn refuse_to_start(err: &crate::config::ConfigError) -> ExitCode {
    start_in_lambda(Level::INFO);
    let fields =
        json!({"error": {"kind": "config", "message": err.to_string(), "transient": false}});
    let message = format!("cannot start: {err}");
    record(Level::ERROR, &message, &fields, &[]);
    ExitCode::FAILURE
}

/// What a Lambda function ends with, which it does only when there is nobody left to serve.
#[must_use]
pub fn ended(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!("the runtime ended: {}", chain(&*err));
            ExitCode::FAILURE
        }
    }
}

/// Logs in words, for stderr. Who looks for a fault gets each line with its time, its level and where it comes from.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is written, it is only looked at"
)]
pub fn start_at_terminal<W: Write>(level: Level, to: impl Fn() -> W + Send + Sync + 'static) {
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(to);
    if level == Level::DEBUG {
        let log = log.with_ansi(std::io::stderr().is_terminal()).finish();
        log.with(filter(level)).init();
    } else {
        let log = log.with_ansi(false).event_format(Prose).finish();
        log.with(filter(level)).init();
    }
}

/// Lines as the command line itself writes them.
struct Prose;

impl<S, N> FormatEvent<S, N> for Prose
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        })?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn filter(level: Level) -> Targets {
    // What goes wrong inside other crates comes back as an error, with a sentence of ours; their own words are for those
    // who look for a fault.
    let others = if level == Level::DEBUG {
        LevelFilter::DEBUG
    } else {
        LevelFilter::OFF
    };
    Targets::new()
        .with_default(others)
        .with_target("backlog_bridge", level)
}

/// Writes one outcome: a line of JSON that holds `fields` and counts `metrics`. It is written at any level, or the
/// metrics would be missing.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a function's place to write to"
)]
pub fn record(level: Level, message: &str, fields: &impl Serialize, metrics: &[Metric]) {
    let line = line(OffsetDateTime::now_utc(), level, message, fields, metrics);
    // It may be read at a terminal.
    let line = plain::json(&line.to_string());
    // With stdout gone there is nobody left to tell.
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

/// Tells of something that goes on working and that somebody should look at. `metric` is what the alarm watches.
pub fn alarm(metric: Counted, message: &str, err: &Error) {
    if FUNCTION.get().is_none() {
        tracing::warn!("{message}: {}", plain::message(chain(err)));
        return;
    }
    let fields = json!({"error": {"kind": err.kind(), "message": plain::message(chain(err)), "transient": err.is_transient()}});
    let count = Metric {
        name: metric,
        count: 1,
        by: &[&[]],
    };
    record(Level::WARN, message, &fields, &[count]);
}

fn line(
    now: OffsetDateTime,
    level: Level,
    message: &str,
    fields: &impl Serialize,
    metrics: &[Metric],
) -> Value {
    let mut line = Map::new();
    let mut set = |name: &str, value: Value| line.insert(name.to_owned(), value);
    set("timestamp", now.format(&Rfc3339).unwrap_or_default().into());
    set("level", level.as_str().into());
    set("message", message.into());
    if let Some(function) = FUNCTION.get() {
        set("function", function.as_str().into());
    }
    if let Ok(Value::Object(fields)) = serde_json::to_value(fields) {
        // A dimension stands at the top of its line.
        if let Some(kind) = fields.get("error").and_then(|error| error.get("kind")) {
            set("error_kind", kind.clone());
        }
        for (name, value) in fields {
            set(&name, value);
        }
    }
    let directives: Vec<_> = metrics
        .iter()
        .map(|metric| {
            let dimensions = metric.by.iter().map(|by| [&["function"], *by].concat());
            // A dimension that the line does not hold would make CloudWatch leave the metric out.
            let dimensions = dimensions.filter(|by| by.iter().all(|name| line.contains_key(*name)));
            json!({
                "Namespace": NAMESPACE,
                "Dimensions": dimensions.collect::<Vec<_>>(),
                "Metrics": [{"Name": metric.name.to_string(), "Unit": "Count"}],
            })
        })
        .collect();
    for metric in metrics {
        line.insert(metric.name.to_string(), metric.count.into());
    }
    if !directives.is_empty() {
        let millis = now.unix_timestamp_nanos() / 1_000_000;
        let embedded = json!({
            "Timestamp": i64::try_from(millis).unwrap_or_default(),
            "CloudWatchMetrics": directives,
        });
        line.insert("_aws".into(), embedded);
    }
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_its_fields_and_its_metrics() {
        FUNCTION.set("deliver".into()).ok();
        let fields =
            json!({"outcome": "failed", "error": {"kind": "fetch", "message": "cannot fetch"}});
        let metrics = [
            Metric {
                name: Counted::Deliveries,
                count: 1,
                by: &[&["outcome"]],
            },
            Metric {
                name: Counted::PermanentFailures,
                count: 1,
                by: &[&[], &["error_kind"], &["unheard_of"]],
            },
        ];
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let line = line(at, Level::ERROR, "it failed", &fields, &metrics);
        let expected = json!({
            "timestamp": "2023-11-14T22:13:20Z",
            "level": "ERROR",
            "message": "it failed",
            "function": "deliver",
            "outcome": "failed",
            "error": {"kind": "fetch", "message": "cannot fetch"},
            "error_kind": "fetch",
            "Deliveries": 1,
            "PermanentFailures": 1,
            "_aws": {
                "Timestamp": 1_700_000_000_000_u64,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "BacklogBridge",
                        "Dimensions": [["function", "outcome"]],
                        "Metrics": [{"Name": "Deliveries", "Unit": "Count"}],
                    },
                    {
                        "Namespace": "BacklogBridge",
                        "Dimensions": [["function"], ["function", "error_kind"]],
                        "Metrics": [{"Name": "PermanentFailures", "Unit": "Count"}],
                    },
                ],
            },
        });
        assert_eq!(line, expected);
    }
}
