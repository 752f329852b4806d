//! `redrive`: dead letters go back to the queue.

use backlog_bridge::{
    plain,
    queue::{At, Moved, Of, Redrive, Sqs},
    results::letter,
};
use serde::Serialize;

use super::{Common, Ended, GivenStack, Usage, ask};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A job delivers what its ref is today, so all dead letters of a route and ref become one job. What is no job\n\
    stays where it is. Where no route is named, those of results go back too, each text once. It may be stopped at any time: begun again, it ends the same.\n\n\
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_request: Option<i64>,
    letters: usize,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub(super) async fn run(options: Options, common: &Common) -> Result<Ended, Usage> {
    let stack = common.wanted_stack().await?;
    let letters = Sqs::from_environment(stack.dead_letters.clone()).await;
    let queue = Sqs::from_environment(stack.queue.clone()).await;
    let redrive = Redrive::of_jobs(&letters, &queue);
    let whose = (stack.name.as_str(), &letters);
    let ended = Box::pin(move_back(&options, whose, ("job", "jobs"), redrive)).await?;
    let (Some(queue), Some(letters)) = (&stack.results_queue, stack.results_dead_letters()) else {
        return Ok(ended);
    };
    let letters = Sqs::from_environment(letters).await;
    // Who names routes means jobs. results.yaml may not be deployed yet, or no more.
    if !options.names.is_empty() || !letters.is_there().await? {
        return Ok(ended);
    }
    let queue = Sqs::from_environment(queue.clone()).await;
    let redrive = Redrive::new(&letters, &queue, letter);
    let name = stack.results();
    let whose = (name.as_str(), &letters);
    let results = Box::pin(move_back(&options, whose, ("message", "messages"), redrive)).await?;
    Ok(ended.and(matches!(results, Ended::WithFailures)))
}

/// Moves the letters of one queue, and tells of them.
async fn move_back(
    options: &Options,
    (name, letters): (&str, &Sqs),
    (one, many): (&str, &str),
    mut redrive: Redrive<'_>,
) -> Result<Ended, Usage> {
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
            let mut outlook = Vec::new();
            merge(&mut outlook, round.outlook());
            for moved in &outlook {
                note!("{}", describe(moved, "would send"));
            }
            let question = format!(
                "\nSend {} for {} back to the queue of {name}?",
                plain::count(jobs, one, many),
                plain::count(count, "dead letter", "dead letters"),
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
            "{name}: {held} dead letters are held by somebody, or by a run that was stopped; try again in a minute"
        );
        is_left = true;
    } else if all.is_empty() {
        note!("{name}: no dead letters");
    }
    let is_any = !all.is_empty();
    for moved in all {
        print(moved, options);
    }
    if options.dry_run && is_any {
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
        let known = all.iter_mut().find(|known| known.is_like(&next));
        match known {
            Some(known) if known.left.is_none() => {
                known.letters += next.letters;
                known.messages += next.messages;
            }
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
            "would send"
        } else {
            "sent"
        };
        say!("{}", describe(&moved, what));
        return;
    }
    let mut line = Line {
        route: None,
        repository: None,
        ref_name: None,
        pipeline: None,
        pull_request: None,
        letters: moved.letters,
        outcome,
        reason: moved.left,
    };
    match moved.of {
        Some(Of::Ref(route, repository, ref_name)) => {
            line.route = Some(route);
            line.repository = Some(repository.to_string());
            line.ref_name = Some(ref_name.to_string());
        }
        Some(Of::Look { at, .. }) => match at {
            At::Pipeline(name) => line.pipeline = Some(name),
            At::Request(repository, number) => {
                line.repository = Some(repository.to_string());
                line.pull_request = Some(number);
            }
        },
        None => {}
    }
    say!(
        "{}",
        plain::json(&serde_json::to_string(&line).expect("plain data"))
    );
}

fn describe(moved: &Moved, what: &str) -> String {
    let letters = plain::count(moved.letters, "dead letter", "dead letters");
    let (of, kind) = match &moved.of {
        Some(Of::Ref(route, _, name)) => (format!("{route} {name}: "), "one job"),
        Some(Of::Look { at, .. }) => {
            let of = match at {
                At::Pipeline(name) => plain::foreign(name),
                At::Request(repository, number) => format!("{repository}#{number}"),
            };
            (format!("{of}: "), "one message")
        }
        None => (String::new(), ""),
    };
    match &moved.left {
        Some(why) => format!("{of}{letters} left: {why}"),
        None if moved.messages > 1 => format!("{of}{letters}: {what} {} messages", moved.messages),
        None => format!("{of}{letters}: {what} {kind}"),
    }
}
