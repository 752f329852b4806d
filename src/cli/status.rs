//! `status`: whether each object holds what its ref points to.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use backlog_bridge::{
    config::Config,
    error::chain,
    pipeline, plain,
    queue::Sqs,
    stack::Stack,
    status::{State, Status, Statuses},
};
use serde::Serialize;

use super::{
    Common, Ended, Form, GivenObjects, Usage, out,
    prose::{Cut, Line, Table, Tone, minutes},
    report::{close, closing, json, short},
    routes::chosen,
    setup::setup,
};

/// So far back it is looked for the last sweep: it comes every 15 minutes, unless the stack says otherwise.
const SWEPT_WITHIN: Duration = Duration::from_hours(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "current          it holds the tip\n\
    behind           another commit is the tip\n\
    held             the tip is an older commit, which is delivered after a second look\n\
    never delivered  there is no object\n\
    branch gone      the object stays as it is\n\
    foreign          something else is there\n\
    paused           the table says so\n\
    unknown          Git or S3 cannot be asked\n\n\
    Exit status: 1 if one is behind, foreign or unknown, or was never delivered though a sweep would\n\
    do so; 0 otherwise.\n\n\
    Examples:\n  backlog-bridge status\n  backlog-bridge status web-main --aws\n  \
    backlog-bridge status --aws --json | jq 'select(.state != \"current\")'")]
pub(super) struct Options {
    /// Names of routes; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    names: Vec<String>,
    #[command(flatten)]
    pub(super) given: GivenObjects,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let setup = setup(common, config).await?;
    let routes = chosen(&setup.table, &options.names)?;
    let mut statuses = Statuses::look(&setup.bridge_for_many(), &setup.table, &routes, None).await;
    // On a laptop there is no pipeline to be asked of.
    if common.aws || setup.stack.is_some() {
        ask_pipelines(&mut statuses).await;
    }
    let bridge = match &setup.stack {
        Some(stack) => Some(Deployed::look(stack, &mut statuses.warnings).await),
        None => None,
    };
    if out::manner().json {
        statuses.all.iter().for_each(json);
        bridge.iter().for_each(json);
    } else {
        show(&statuses.all);
        if let Some(bridge) = &bridge {
            out::result(&Line::plain(bridge.to_string()));
        }
    }
    for warning in &statuses.warnings {
        note!("warning: {warning}");
    }
    Ok(Ended::Well.and(statuses.is_wrong()))
}

/// What became of the newest execution of each pipeline that the table names.
async fn ask_pipelines(statuses: &mut Statuses) {
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    for status in &mut statuses.all {
        let Some(name) = &status.pipeline else {
            continue;
        };
        if !known.contains_key(name) {
            let newest = match pipeline::executions(name, 1).await {
                Ok(executions) => executions.into_iter().next().map(|newest| newest.status),
                Err(err) => {
                    let why = format!("what became of {name} cannot be seen: {err}");
                    statuses.warnings.push(why);
                    None
                }
            };
            known.insert(name.clone(), newest);
        }
        status.pipeline_status.clone_from(&known[name]);
    }
}

/// How a deployed bridge is. What is not known is absent.
#[derive(Debug, Serialize)]
struct Deployed<'a> {
    stack: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_sweep: Option<String>,
}

impl<'a> Deployed<'a> {
    async fn look(stack: &'a Stack, warnings: &mut Vec<String>) -> Self {
        let mut counted = async |url: &str| {
            let queue = Sqs::from_environment(url.to_owned()).await;
            let depth = queue.depth().await;
            depth.map_err(|err| warnings.push(chain(&err))).ok()
        };
        let jobs = counted(&stack.queue).await;
        let letters = counted(&stack.dead_letters).await;
        let since = SystemTime::now() - SWEPT_WITHIN;
        let swept = Some(r#"{ $.outcome = "swept" }"#);
        let last_sweep = match stack.log(&stack.deliver(), since, swept).await {
            Ok(lines) => lines.last().and_then(|line| {
                let since = line.time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                plain::time(i64::try_from(since.as_secs()).ok()?)
            }),
            Err(err) => {
                warnings.push(format!(
                    "when it last looked at every object cannot be seen: {err}"
                ));
                None
            }
        };
        Self {
            stack: &stack.name,
            waiting: jobs.map(|jobs| jobs.waiting),
            in_flight: jobs.map(|jobs| jobs.in_flight),
            dead_letters: letters.map(|letters| letters.waiting + letters.in_flight),
            last_sweep,
        }
    }
}

impl fmt::Display for Deployed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        write!(
            f,
            "{}: {} jobs wait, {} are in work, {} dead letters, last sweep {}",
            self.stack,
            count(self.waiting),
            count(self.in_flight),
            count(self.dead_letters),
            self.last_sweep.as_deref().unwrap_or("unknown")
        )
    }
}

fn show(all: &[Status]) {
    let mut table = Table::new(&["state", "route", "ref", "holds", "since (UTC)"]);
    for status in all {
        let tone = match status.state {
            State::Current => Tone::Good,
            State::BranchGone | State::Paused => Tone::Calm,
            _ if status.is_wrong => Tone::Bad,
            _ => Tone::Odd,
        };
        let holds = match &status.commit {
            Some(_) => short(status.commit.as_ref()),
            None => "-",
        };
        table.row(
            (tone, &status.state.to_string()),
            &[
                &status.route,
                &status.ref_name,
                holds,
                &minutes(status.since.as_ref()),
            ],
        );
        let is_other = status.commit.is_some() && status.tip != status.commit;
        if is_other && status.tip.is_some() {
            table.under(&format!("the tip is {}", short(status.tip.as_ref())));
        }
        if let Some(reason) = &status.reason {
            table.under(reason);
        }
        if out::manner().verbose {
            for detail in details(status) {
                table.under(&detail);
            }
        }
    }
    for line in table.lines(2, Cut::Beginning) {
        out::result(&line);
    }
    let mut words: Vec<(State, usize)> = Vec::new();
    for status in all {
        match words.iter_mut().find(|(state, _)| *state == status.state) {
            Some((_, count)) => *count += 1,
            None => words.push((status.state, 1)),
        }
    }
    let words: Vec<_> = words
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    close(&closing(all.len(), &words));
}

fn details(status: &Status) -> Vec<String> {
    let object = status.bucket.as_ref().zip(status.object_key.as_ref());
    let named =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    [
        object.map(|(bucket, key)| format!("s3://{bucket}/{key}")),
        named("version", &status.version_id),
        named("commit", &status.commit),
        named("tip", &status.tip),
        named("pipeline", &status.pipeline),
        named("its newest execution", &status.pipeline_status),
    ]
    .into_iter()
    .flatten()
    .collect()
}
