//! `results`: a deployed bridge looks again at what Backlog should show.

use std::time::{Duration, SystemTime};

use backlog_bridge::{
    plain,
    queue::Sqs,
    results::{GROUP, Message},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Common, Ended, GivenStack, Usage};

/// How often the log is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// How far back the log is looked at: this machine's clock may be ahead.
const SKEW: Duration = Duration::from_mins(5);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The function that tells results looks at each of these pipelines, or at all that the routing table names, as when\n\
    one of them changed: a comment that is missing, or was changed by hand, is written again.\n\n\
    Exit status: 0 everything is told; 1 something could not be told, or is not yet.\n\n\
    Examples:\n  backlog-bridge results --stack backlog-bridge\n  \
    backlog-bridge results web-main --stack backlog-bridge"
)]
pub(super) struct Options {
    /// Names of pipelines, or of projects of builds; all that the routing table names if none is given.
    #[arg(value_name = "PIPELINE")]
    names: Vec<String>,
    #[command(flatten)]
    pub(super) deployed: GivenStack,
    /// How long to wait until it has looked, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, common: &Common) -> Result<Ended, Usage> {
    let stack = common.wanted_stack().await?;
    let Some(queue) = stack.results_queue.clone() else {
        return Err(Usage(format!(
            "the bridge {} tells no results; deploy results.yaml, and template.yaml with Results=yes",
            stack.name
        )));
    };
    let queue = Sqs::from_environment(queue).await;
    let request_id = Uuid::new_v4().to_string();
    let messages: Vec<_> = if options.names.is_empty() {
        let request_id = request_id.clone();
        vec![Message::All { request_id }]
    } else {
        let names = options.names.iter();
        names
            .map(|name| Message::of_pipeline(name, &request_id))
            .collect()
    };
    let begin = SystemTime::now() - SKEW;
    for message in &messages {
        queue.send_text(&message.body(), GROUP).await?;
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(options.wait);
    let pattern = format!("{{ $.request_id = \"{request_id}\" }}");
    let (mut told, mut is_failed) = (0, false);
    loop {
        let lines = stack.log(&stack.results(), begin, Some(&pattern)).await?;
        let lines: Vec<_> = lines.into_iter().map(|line| line.value).collect();
        // What comes again is told of when it is over.
        let is_over = |line: &&Value| line.get("result").is_some_and(|result| result != "again");
        let looked: Vec<_> = lines.iter().filter(is_over).collect();
        for line in looked.iter().skip(told) {
            is_failed |= line["result"] == "failed";
            print(line, options.json);
        }
        told = told.max(looked.len());
        let ends = lines.iter().filter(|line| line.get("looked").is_some());
        if ends.count() >= messages.len() {
            break;
        }
        if tokio::time::Instant::now() >= until {
            let seconds = options.wait;
            note!(
                "it did not look at everything within {seconds} s; the log says more: backlog-bridge logs --stack {}",
                stack.name
            );
            return Ok(Ended::WithFailures);
        }
        tokio::time::sleep(EVERY).await;
    }
    if told == 0 {
        note!("{}: the routing table names no pipeline", stack.name);
    }
    Ok(Ended::Well.and(is_failed))
}

fn print(line: &Value, as_json: bool) {
    let text = |value: &Value| plain::foreign(value.as_str().unwrap_or_default());
    let comments = line["comments"].as_u64().unwrap_or_default();
    if as_json {
        let mut short =
            json!({"pipeline": line["pipeline"], "result": line["result"], "comments": comments});
        if let Some(error) = line.get("error") {
            short["error"] = error.clone();
        }
        say!("{}", plain::json(&short.to_string()));
        return;
    }
    let name = text(&line["pipeline"]);
    match line.get("error") {
        Some(error) => say!("{name}: failed: {}", text(&error["message"])),
        None if line["result"] == "ignored" => say!("{name}: nothing is to be told"),
        None => {
            let written = usize::try_from(comments).unwrap_or(usize::MAX);
            say!(
                "{name}: {} written",
                plain::count(written, "comment", "comments")
            );
        }
    }
}
