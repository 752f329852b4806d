//! `sync --stack`: the deployed bridge delivers, and what became of it is told here.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use backlog_bridge::{
    error::Error,
    outcome::Report,
    queue::{Job, Sqs},
    route::Destination,
    stack::Stack,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use super::{Options, Usage};
use crate::cli::{out, report::Tally};

/// How often the log is looked at.
pub(in crate::cli) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Clocks differ: so much before the first message was sent may its outcome seem to be.
const SKEW: Duration = Duration::from_mins(2);

/// What was sent, and of what the bridge has not told yet.
pub(in crate::cli) struct Awaited<'a> {
    stack: &'a Stack,
    queue: Sqs,
    request_id: String,
    begin: SystemTime,
    /// By route and ref, in the order in which they were sent; with why the last try did not end it.
    pub(in crate::cli) jobs: Vec<(Destination, Option<String>)>,
}

/// Sends a job for each destination, and waits until the bridge has told what became of all.
pub(super) async fn run(
    options: &Options,
    stack: &Stack,
    found: Vec<Destination>,
    tally: &mut Tally,
) -> Result<(), Usage> {
    let mut awaited = Awaited::by("sync", stack).await;
    for to in found {
        if let Err(err) = awaited.send(&to, options.again).await {
            tally.print(&Report::failed(&to, &err));
        }
    }
    let sent = awaited.jobs.len();
    let within = Duration::from_secs(options.wait);
    if sent > 0 && within.is_zero() {
        let jobs = backlog_bridge::plain::count(sent, "job", "jobs");
        note!(
            "sent {jobs} to {}; not waiting for what becomes of them",
            stack.name
        );
        return Ok(());
    }
    let end = Instant::now() + within;
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a valid template");
    let bar = out::bars().add(ProgressBar::new_spinner().with_style(style));
    while !awaited.jobs.is_empty() && Instant::now() < end {
        let left = awaited.jobs.len();
        bar.set_message(format!(
            "{}: waiting for the bridge to tell of {}, {} of {sent} done",
            stack.name,
            awaited.jobs[0].0.route,
            sent - left
        ));
        tokio::time::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
        bar.tick();
        match awaited.look().await {
            Ok(reports) => {
                for told in reports {
                    tally.print(&told);
                }
            }
            Err(err) if err.transient => {}
            Err(err) => {
                bar.finish_and_clear();
                let jobs = backlog_bridge::plain::count(sent, "job was", "jobs were");
                return Err(Usage(format!(
                    "{jobs} sent, and what becomes of them cannot be seen from here: {err}"
                )));
            }
        }
    }
    bar.finish_and_clear();
    for (to, last) in awaited.jobs {
        let err = Error::NoWord {
            stack: stack.name.clone(),
            within,
            last,
        };
        tally.print(&Report::failed(&to, &err));
    }
    Ok(())
}

impl<'a> Awaited<'a> {
    /// Nothing was sent yet; `command` is how the jobs are marked.
    pub(in crate::cli) async fn by(command: &str, stack: &'a Stack) -> Self {
        Self {
            stack,
            queue: Sqs::from_environment(stack.queue.clone()).await,
            request_id: format!("{command}-{}", uuid::Uuid::new_v4().simple()),
            begin: SystemTime::now() - SKEW,
            jobs: Vec::new(),
        }
    }

    /// Sends a job. `again`: it makes a new version, also of the same commit.
    pub(in crate::cli) async fn send(
        &mut self,
        to: &Destination,
        again: bool,
    ) -> Result<(), Error> {
        let (route, repository) = (to.route.clone(), to.repository.clone());
        let job = Job {
            again,
            ..Job::unhinted(route, repository, to.ref_name.clone(), &self.request_id)
        };
        self.queue.send(&job).await?;
        self.jobs.push((to.clone(), None));
        Ok(())
    }

    /// What the log tells of jobs that were open.
    pub(in crate::cli) async fn look(
        &mut self,
    ) -> Result<Vec<Report>, backlog_bridge::stack::CallError> {
        let lines = self.stack.outcomes(&self.request_id, self.begin).await?;
        // The newest line of a job is the one that counts.
        let mut newest: HashMap<(String, String), &Value> = HashMap::new();
        let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        for line in &lines {
            newest.insert((text(line, "route"), text(line, "ref")), line);
        }
        let mut told = Vec::new();
        self.jobs.retain_mut(|(to, last)| {
            let of = (to.route.clone(), to.ref_name.to_string());
            let line = newest.get(&of).copied();
            let Some(report) = line.and_then(|line| Report::deserialize(line).ok()) else {
                return true;
            };
            // It is tried again, or a later look follows.
            if line.is_some_and(|line| line["job"] == "back_in_queue") {
                *last = report.error.map(|fault| fault.message).or(report.reason);
                return true;
            }
            told.push(report);
            false
        });
        Ok(told)
    }
}
