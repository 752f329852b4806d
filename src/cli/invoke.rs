//! `invoke`: one event, handled as the bridge would.

use std::{collections::VecDeque, io::Read, path::PathBuf, sync::Arc, time::Instant};

use backlog_bridge::{
    config::Config,
    outcome::{Report, Subject},
    plain,
    plan::{NoJobs, plan},
    progress::Progress,
    queue::{Job, Message, Part},
    receive::Envelope,
    table::Reading,
    webhook::Webhook,
    worker::{Attempt, Worker, batch},
};
use serde_json::Value;

use super::{
    Common, Ended, Form, Given, Usage,
    report::{self, Tally},
    setup::setup,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  backlog-bridge invoke events/project-push-update.json\n  \
    backlog-bridge invoke events/git-push-update.form --store /tmp/store\n  \
    backlog-bridge invoke events/apigw-v2-project-push.json\n  \
    backlog-bridge invoke events/sqs-sweep.json\n  \
    curl -s https://example.com/event.json | backlog-bridge invoke -"
)]
pub(super) struct Options {
    /// The body of a webhook, as Backlog posts it; or what a Lambda function gets: an event of API Gateway (no token is
    /// needed) or of SQS. `-` reads it from stdin.
    #[arg(value_name = "EVENT_FILE")]
    event: PathBuf,
    #[command(flatten)]
    pub(super) given: Given,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let file = &options.event;
    let (name, event) = if file.as_os_str() == "-" {
        let mut event = Vec::new();
        let read = std::io::stdin().read_to_end(&mut event);
        ("stdin".to_owned(), read.map(|_| event))
    } else {
        (file.display().to_string(), std::fs::read(file))
    };
    let event = event.map_err(|err| Usage(format!("cannot read the event {name}: {err}")))?;
    let wrong = |why: String| Usage(format!("{name}: {why}"));
    let event = plain::utf8(event).map_err(wrong)?;
    let event = parse(event.as_bytes()).map_err(wrong)?;
    let setup = setup(common, config).await?;
    let worker = setup.worker();
    let mut tally = Tally::default();
    let jobs = match event {
        Event::Webhook(webhook) => jobs(&worker.bridge.table.read().await, &webhook, &mut tally)?,
        Event::Messages(messages) => {
            let mut jobs = Vec::new();
            for message in messages {
                match message {
                    Message::Deliver(job) => jobs.push(*job),
                    Message::Sweep(part) => {
                        jobs.extend(Box::pin(sweep(&worker, part, &mut tally)).await);
                    }
                }
            }
            jobs
        }
    };
    let mut jobs = VecDeque::from(jobs);
    while let Some(job) = jobs.pop_front() {
        let progress = Arc::new(Progress::until(Instant::now() + config.delivery_time));
        let handled = worker.deliver(&job, Attempt::ONLY, &progress);
        let handled = report::watch(&job.route, &progress, handled).await;
        tally.print(&handled.report);
        // A later look would be a minute later; that it is due has been told.
        let more = handled.more.into_iter();
        jobs.extend(more.filter(|job| job.recheck.is_none()));
    }
    Ok(tally.close())
}

enum Event {
    Webhook(Webhook),
    Messages(Vec<Message>),
}

fn parse(event: &[u8]) -> Result<Event, String> {
    let value: Value = serde_json::from_slice(event).unwrap_or_default();
    if Envelope::is_in(&value) {
        let envelope = Envelope::from(value);
        let body = envelope
            .body()
            .ok_or("its body should be base64 and is not")?;
        let webhook = Webhook::from_body(&body).map_err(|err| format!("its body: {err}"))?;
        Ok(Event::Webhook(webhook))
    } else if value.get("Records").is_some() {
        let event = batch::parse(value).map_err(|err| err.to_string())?;
        let bodies = event.records.into_iter().map(|record| record.body);
        let messages = bodies.map(|body| Message::parse(&body.unwrap_or_default()));
        let messages: Result<_, _> = messages.collect();
        messages.map(Event::Messages).map_err(|err| err.to_string())
    } else {
        let webhook = Webhook::from_body(event).map_err(|err| err.to_string())?;
        Ok(Event::Webhook(webhook))
    }
}

/// What the webhook asks for. That it asks for nothing is reported here.
fn jobs(reading: &Reading, webhook: &Webhook, tally: &mut Tally) -> Result<Vec<Job>, Usage> {
    match plan(webhook, reading, "invoke") {
        Ok(jobs) => Ok(jobs),
        Err(NoJobs::Unknown(err)) => Err(err.into()),
        Err(NoJobs::Ignored(why)) => {
            let push = webhook.push();
            let ignored = Report::ignored(
                Subject {
                    route: None,
                    repository: push.map(|push| &push.repository),
                    ref_name: push.map(|push| &push.ref_name),
                },
                why.to_string(),
            );
            tally.print(&ignored);
            Ok(Vec::new())
        }
    }
}

async fn sweep(worker: &Worker, part: Option<Part>, tally: &mut Tally) -> Vec<Job> {
    let jobs = std::cell::RefCell::default();
    let enqueue = async |job: Job| {
        Vec::push(&mut *jobs.borrow_mut(), job);
        Ok(())
    };
    let swept = Box::pin(worker.sweep("invoke", part, None, enqueue)).await;
    for failure in &swept.failures {
        tally.print(failure);
    }
    note!("{swept}");
    jobs.into_inner()
}
