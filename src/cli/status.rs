//! `status`: whether each object holds what its ref points to.

use backlog_bridge::{
    config::Config,
    status::{State, Status, Statuses},
};

use super::{
    Common, Ended, Form, GivenObjects, Usage, out,
    prose::{Cut, Table, Tone, minutes},
    report::{close, closing, json, short},
    routes::chosen,
    setup::setup,
};

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
    let statuses = Statuses::look(&setup.bridge_for_many(), &setup.table, &routes, None).await;
    if out::manner().json {
        statuses.all.iter().for_each(json);
    } else {
        show(&statuses.all);
    }
    for warning in &statuses.warnings {
        note!("warning: {warning}");
    }
    Ok(Ended::Well.and(statuses.is_wrong()))
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
    ]
    .into_iter()
    .flatten()
    .collect()
}
