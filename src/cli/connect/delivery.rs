//! The first delivery: the bridge is told to deliver what is not there yet, and it is said why an object does not come.

use std::time::{Duration, Instant};

use backlog_bridge::{
    bucket::{Current, S3},
    connect::{delivered, has_file, look},
    error::chain,
    outcome::Outcome,
    plain,
    push::CommitId,
    queue::{Message, Sqs},
    remote::Wanted,
    route::{Destination, Route},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Became, Connection, Steps, login::Known};
use crate::cli::{
    init::absent,
    sync::deployed::{Awaited, LOOK_EVERY},
};

/// What CodeBuild looks for, unless it is told otherwise.
const BUILDSPEC: &str = "buildspec.yml";

/// An object, and the commit that its ref was seen at.
struct Expected {
    to: Destination,
    tip: CommitId,
}

impl Connection<'_> {
    /// Has every exact route's object hold its tip. Those that do.
    pub(super) async fn deliver(&self, known: &Known, steps: &mut Steps) -> Vec<Destination> {
        let s3 = S3::from_environment().await;
        let (mut there, mut behind) = (Vec::new(), Vec::new());
        for route in self.table.routes() {
            if route.is_glob() {
                continue;
            }
            if route.is_paused() {
                let message = format!("{} is paused, so nothing is delivered", route.name());
                steps.tell("delivery", Became::Well, &message);
                continue;
            }
            match Box::pin(self.expected(route, known)).await {
                Ok(expected) => match delivered(&s3, &expected.to, expected.tip).await {
                    Ok(Some(current)) => {
                        let message = holds(&expected);
                        let message = message + &self.buildspec(&s3, &expected.to, &current).await;
                        steps.tell("delivery", Became::Well, &message);
                        there.push(expected.to);
                    }
                    Ok(None) => behind.push(expected),
                    Err(err) => steps.tell("delivery", Became::Failed, &chain(&err)),
                },
                Err(why) => steps.tell("delivery", Became::Failed, &why),
            }
        }
        if self.options.dry_run {
            for expected in behind {
                let message = format!("would have the bridge deliver {}", expected.to.key);
                steps.tell("delivery", Became::Done, &message);
                there.push(expected.to);
            }
            return there;
        }
        there.extend(Box::pin(self.wait(&s3, behind, steps)).await);
        there
    }

    /// Where an exact route delivers to, and where its ref points now.
    async fn expected(&self, route: &Route, known: &Known) -> Result<Expected, String> {
        let space = self.table.space_of(route);
        let name = route.pattern().exact().ok_or("it is a glob")?;
        let to = route.destination(space, name).map_err(|err| chain(&err))?;
        let login = known.get(space.url()).and_then(Option::as_ref);
        let see = |wanted| look(space.url(), route.repository(), login, wanted);
        let sight = Box::pin(see(Wanted::name(name.as_str()))).await;
        if let Some(tip) = sight.map_err(|err| chain(&err))?.tip(name) {
            Ok(Expected {
                to,
                tip: tip.commit,
            })
        } else {
            let all = Box::pin(see(Wanted::prefix("refs/"))).await;
            let all = all.map_err(|err| chain(&err))?;
            Err(absent(route.repository(), name, &all))
        }
    }

    /// Has the bridge deliver, and waits for it.
    async fn wait(
        &self,
        s3: &S3,
        mut behind: Vec<Expected>,
        steps: &mut Steps,
    ) -> Vec<Destination> {
        let mut awaited = Awaited::by("connect", self.stack).await;
        let mut sent = Vec::new();
        for expected in behind.drain(..) {
            match awaited.send(&expected.to, false).await {
                Ok(()) => sent.push(expected),
                Err(err) => steps.tell("delivery", Became::Failed, &chain(&err)),
            }
        }
        let (mut open, mut there, count) = (sent, Vec::new(), awaited.jobs.len());
        let within = Duration::from_secs(self.options.wait);
        let end = Instant::now() + within;
        let bar = ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} {msg}").expect("a valid template"));
        // Why nothing can be seen of what the bridge says.
        let mut unseen = None;
        while !open.is_empty() && Instant::now() < end {
            let last = awaited.jobs.iter().find_map(|(_, last)| last.as_deref());
            bar.set_message(format!(
                "{}: waiting for the bridge to deliver {}, {} of {count} done{}",
                self.stack.name,
                open[0].to.key,
                count - open.len(),
                last.map_or_else(String::new, |last| format!("; it said: {last}")),
            ));
            tokio::time::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now()))).await;
            bar.tick();
            let told = if unseen.is_some() {
                Vec::new()
            } else {
                match Box::pin(awaited.look()).await {
                    Ok(told) => told,
                    Err(err) => {
                        unseen = (!err.transient).then(|| err.to_string());
                        Vec::new()
                    }
                }
            };
            let mut left = Vec::new();
            for expected in open {
                let (route, name) = (&expected.to.route, expected.to.ref_name.as_str());
                let report = told.iter().find(|report| {
                    report.route.as_ref() == Some(route) && report.ref_name.as_deref() == Some(name)
                });
                if let Some(report) = report {
                    let fault = report.error.as_ref().map(|fault| &fault.message);
                    let why = fault.or(report.reason.as_ref());
                    if matches!(
                        report.outcome,
                        Outcome::Failed | Outcome::Ignored | Outcome::BranchGone
                    ) {
                        let why = why.map_or_else(|| report.outcome.to_string(), Clone::clone);
                        let message = format!("{} does not come: {why}", expected.to.key);
                        bar.suspend(|| steps.tell("delivery", Became::Failed, &message));
                        continue;
                    }
                }
                // The ref may have moved on since it was looked at.
                let commit = report.and_then(|report| report.commit.as_deref()?.parse().ok());
                let tip = commit.unwrap_or(expected.tip);
                match delivered(s3, &expected.to, tip).await {
                    Ok(Some(current)) => {
                        let expected = Expected { tip, ..expected };
                        let buildspec = self.buildspec(s3, &expected.to, &current).await;
                        let message = holds(&expected) + &buildspec;
                        bar.suspend(|| steps.tell("delivery", Became::Done, &message));
                        there.push(expected.to);
                    }
                    Ok(None) => left.push(expected),
                    Err(err) => {
                        bar.suspend(|| steps.tell("delivery", Became::Failed, &chain(&err)));
                    }
                }
            }
            open = left;
        }
        bar.finish_and_clear();
        if !open.is_empty() {
            let given_up = self.given_up().await;
            for expected in &open {
                let jobs = awaited.jobs.iter();
                let mut last = jobs.filter(|(to, _)| *to == expected.to);
                let last = last.find_map(|(_, last)| last.as_deref());
                let message = format!(
                    "{} did not come within {} s: {}",
                    expected.to.key,
                    within.as_secs(),
                    why_not(
                        &self.stack.name,
                        last,
                        unseen.as_deref(),
                        given_up.contains(&expected.to.route)
                    ),
                );
                steps.tell("delivery", Became::Failed, &message);
            }
        }
        there
    }

    /// The routes whose jobs lie in the dead letters, as far as one look shows.
    async fn given_up(&self) -> Vec<String> {
        let letters = Sqs::from_environment(self.stack.dead_letters.clone()).await;
        let bodies = letters.peek().await.unwrap_or_default();
        let jobs = bodies.iter().filter_map(|body| match Message::parse(body) {
            Ok(Message::Deliver(job)) => Some(job.route),
            _ => None,
        });
        jobs.collect()
    }

    /// What is to be said of an archive that CodeBuild would not know what to do with; a part of a sentence, or nothing.
    async fn buildspec(&self, s3: &S3, to: &Destination, current: &Current) -> String {
        match Box::pin(has_file(s3, to, current, BUILDSPEC)).await {
            Ok(Some(false)) => format!(
                "; it has no {BUILDSPEC}, which a build needs: put one into the repository and push it (examples/buildspec has \
                 some)"
            ),
            Ok(Some(true)) => format!(", and has a {BUILDSPEC}"),
            Ok(None) | Err(_) => String::new(),
        }
    }
}

/// What an object that is there holds.
fn holds(Expected { to, tip }: &Expected) -> String {
    let commit = tip.to_string();
    format!(
        "{} holds {}, the tip of {}",
        plain::foreign(to.key.as_str()),
        commit.get(..8).unwrap_or(&commit),
        plain::foreign(to.ref_name.as_str())
    )
}

/// Why an object may not have come, by what is known.
fn why_not(stack: &str, last: Option<&str>, unseen: Option<&str>, is_given_up: bool) -> String {
    if let Some(last) = last {
        return format!("the last that the bridge said is: {last}");
    }
    let mut why = "the bridge has said nothing of it".to_owned();
    if let Some(unseen) = unseen {
        why = format!("what the bridge says of it cannot be seen from here: {unseen}");
    }
    if is_given_up {
        why += "; an earlier job of it lies in the dead letters";
    }
    format!("{why}; look into the log: sam logs --stack-name {stack}, and run this again")
}
