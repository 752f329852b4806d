//! `logs`: what a deployed bridge has done, as its functions have logged it.

use std::time::{Duration, SystemTime};

use backlog_bridge::{
    plain,
    stack::{CallError, LogLine, Stack},
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Common, Ended, GivenStack, Usage, report};

/// How often it is looked for more.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// A line may be seen so much later than it was written.
const LATE: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  backlog-bridge logs --stack backlog-bridge\n  \
    backlog-bridge logs web-main --stack backlog-bridge --since 2d\n  \
    backlog-bridge logs --stack backlog-bridge --follow --json | jq .error"
)]
pub(super) struct Options {
    /// The name of a route; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    route: Option<String>,
    #[command(flatten)]
    pub(super) deployed: GivenStack,
    /// How far back to begin: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    since: Duration,
    /// Go on with what comes, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Print the functions' lines as they are, in JSON.
    #[arg(long)]
    json: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a number and s, m, h or d, such as 30m, found {text:?}");
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let parse = |(unit, seconds)| Some((text.strip_suffix(unit)?.parse::<u32>().ok()?, seconds));
    let (count, seconds): (_, u64) = units.into_iter().find_map(parse).ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

pub(super) async fn run(options: Options, common: &Common) -> Result<Ended, Usage> {
    let stack = common.wanted_stack().await?;
    let mut since = SystemTime::now()
        .checked_sub(options.since)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let mut seen: Vec<LogLine> = Vec::new();
    loop {
        let mut lines = look(&stack, &options, since).await?;
        lines.retain(|line| !seen.contains(line));
        for line in &lines {
            print(line, options.json);
        }
        if !options.follow {
            if lines.is_empty() {
                let of = options.route.as_ref().map(|route| format!(" of {route}"));
                note!(
                    "{}: nothing was logged{} since then",
                    stack.name,
                    of.unwrap_or_default()
                );
            }
            return Ok(Ended::Well);
        }
        // What is late is looked for once more.
        seen.append(&mut lines);
        since = since.max(SystemTime::now() - LATE);
        seen.retain(|line| line.time >= since);
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

async fn look(
    stack: &Stack,
    options: &Options,
    since: SystemTime,
) -> Result<Vec<LogLine>, CallError> {
    let (receive, deliver, results) = (stack.receive(), stack.deliver(), stack.results());
    let told = async {
        if stack.results_queue.is_none() {
            return Ok(Vec::new());
        }
        match stack.log(&results, since, None).await {
            // results.yaml may not be deployed yet.
            Err(err) if err.is_missing() => Ok(Vec::new()),
            told => told,
        }
    };
    let (received, delivered, told) = tokio::try_join!(
        stack.log(&receive, since, None),
        stack.log(&deliver, since, None),
        told
    )?;
    let mut lines = [received, delivered, told].concat();
    if let Some(route) = &options.route {
        lines.retain(|line| is_of(&line.value, route));
    }
    lines.sort_by_key(|line| line.time);
    Ok(lines)
}

/// Whether a line tells of a route: a delivery of it, a webhook that was accepted for it, or the results of a pipeline of its name.
fn is_of(line: &Value, route: &str) -> bool {
    let routes = line["routes"].as_array().into_iter().flatten();
    line["route"] == route
        || line["pipeline"] == route
        || routes.into_iter().any(|accepted| accepted == route)
}

fn print(line: &LogLine, json: bool) {
    if json {
        say!("{}", plain::json(&line.value.to_string()));
        return;
    }
    let text = |name: &str| line.value[name].as_str().map(plain::foreign);
    let time = OffsetDateTime::from(line.time).format(&Rfc3339);
    let function = line.function.rsplit('-').next().unwrap_or_default();
    let level = text("level").filter(|level| level != "INFO");
    let level = level.map_or_else(String::new, |level| format!(" {level}"));
    let said = match line.value.as_str() {
        Some(said) => plain::foreign(said),
        None => text("message").unwrap_or_default(),
    };
    let mut more = Vec::new();
    if let Some(commit) = text("commit") {
        more.push(report::short(Some(&commit)).to_owned());
    }
    if let (Some(bucket), Some(key)) = (text("bucket"), text("object_key")) {
        more.push(format!("s3://{bucket}/{key}"));
    }
    if let Some(millis) = line.value["duration_ms"].as_u64() {
        more.push(report::time(Duration::from_millis(millis)));
    }
    let said = [vec![said], more].concat().join(", ");
    say!("{} {function}{level}: {said}", time.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(span("90m"), Ok(Duration::from_mins(90)));
        assert_eq!(span("2d"), Ok(Duration::from_hours(48)));
        for wrong in ["", "h", "1", "1w", "-1h", "1.5h", "１h", "1時"] {
            assert!(span(wrong).unwrap_err().contains("such as 30m"), "{wrong}");
        }
    }
}
