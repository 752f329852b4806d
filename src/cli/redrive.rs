//! `redrive`: dead letters go back to the queue.

use backlog_bridge::{
    plain,
    queue::{Moved, Redrive, Sqs},
};
use serde::Serialize;

use super::{Common, Ended, GivenStack, Usage, ask};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A job delivers what its ref is today, so all dead letters of a route and ref become one job. What is no job\n\
    stays where it is. It may be stopped at any time: begun again, it ends the same.\n\n\
    Exit status: 0 nothing is left; 1 something is left, or could not be moved.\n\n\
    Examples:\n  backlog-bridge redrive --stack backlog-bridge --dry-run\n  \
    backlog-bridge redrive web-main --stack backlog-bridge --yes"
)]
pub(super) struct Options {
    /// Names of routes; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    names: Vec<String>,
    #[command(flatten)]
    pub(super) deployed: GivenStack,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Send without asking.
    #[arg(long)]
    yes: bool,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    ref_name: Option<String>,
    letters: usize,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) async fn run(options: Options, common: &Common) -> Result<Ended, Usage> {
    let stack = common.wanted_stack().await?;
    let letters = Sqs::from_environment(stack.dead_letters.clone()).await;
    let queue = Sqs::from_environment(stack.queue.clone()).await;
    let mut redrive = Redrive::new(&letters, &queue);
    let wanted =
        |route: &str| options.names.is_empty() || options.names.iter().any(|name| name == route);
    let (mut all, mut is_asked) = (Vec::new(), options.yes);
    loop {
        let round = redrive.hold(wanted).await?;
        let (jobs, count) = round.counts();
        if jobs == 0 || options.dry_run {
            redrive.release(&round).await?;
            merge(&mut all, round.outlook());
            break;
        }
        if !is_asked {
            // Whoever is asked takes time, and nobody is to be kept from them meanwhile.
            redrive.release(&round).await?;
            for moved in round.outlook() {
                note!("{}", describe(&moved, "would send one job"));
            }
            let question = format!(
                "\nSend {} for {} back to the queue of {}?",
                plain::count(jobs, "job", "jobs"),
                plain::count(count, "dead letter", "dead letters"),
                stack.name
            );
            if !ask::confirmed(&question, "send").await? {
                note!("nothing was sent");
                return Ok(Ended::WithFailures);
            }
            is_asked = true;
            continue;
        }
        merge(&mut all, redrive.send(round).await?);
    }
    let mut is_left = all.iter().any(|moved| moved.left.is_some());
    let depth = letters.depth().await?;
    if all.is_empty() && depth.in_flight > 0 {
        let held = depth.in_flight;
        note!(
            "{}: {held} dead letters are held by somebody, or by a run that was stopped; try again in a minute",
            stack.name
        );
        is_left = true;
    } else if all.is_empty() {
        note!("{}: no dead letters", stack.name);
    }
    for moved in all {
        print(moved, &options);
    }
    if options.dry_run {
        let there = depth.waiting + depth.in_flight;
        note!(
            "nothing was sent; the dead-letter queue has {there} messages, of which ten of a route and ref are seen"
        );
    }
    Ok(Ended::Well.and(is_left))
}

/// Letters of one kind are told of once, however many rounds there were. What stays is met in each.
fn merge(all: &mut Vec<Moved>, moved: Vec<Moved>) {
    for next in moved {
        let known = all.iter_mut().find(|known| {
            (
                &known.route,
                &known.repository,
                &known.ref_name,
                &known.left,
            ) == (&next.route, &next.repository, &next.ref_name, &next.left)
        });
        match known {
            Some(known) if known.left.is_none() => known.letters += next.letters,
            Some(_) => {}
            None => all.push(next),
        }
    }
}

fn print(moved: Moved, options: &Options) {
    let outcome = match (&moved.left, options.dry_run) {
        (Some(_), _) => "left",
        (None, true) => "would_send",
        (None, false) => "sent",
    };
    if !options.json {
        let what = if options.dry_run {
            "would send one job"
        } else {
            "sent one job"
        };
        say!("{}", describe(&moved, what));
        return;
    }
    let line = Line {
        route: moved.route,
        repository: moved.repository.map(|name| name.to_string()),
        ref_name: moved.ref_name.map(|name| name.to_string()),
        letters: moved.letters,
        outcome,
        reason: moved.left,
    };
    say!(
        "{}",
        plain::json(&serde_json::to_string(&line).expect("plain data"))
    );
}

fn describe(moved: &Moved, what: &str) -> String {
    let letters = plain::count(moved.letters, "dead letter", "dead letters");
    let of = match (&moved.route, &moved.ref_name) {
        (Some(route), Some(name)) => format!("{route} {name}: "),
        _ => String::new(),
    };
    match &moved.left {
        Some(why) => format!("{of}{letters} left: {why}"),
        None => format!("{of}{letters}: {what}"),
    }
}
