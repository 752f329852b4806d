//! `sync`: objects become what their refs are.

pub(super) mod deployed;

use std::{sync::Arc, time::Instant};

use backlog_bridge::{
    config::Config,
    deliver::{Deliverer, step::SecondLook},
    outcome::{Report, Subject},
    plan::paused,
    progress::Progress,
    push::RefName,
    route::{Destination, Route, RouteTable, Sweep},
    stack::Stack,
    status::{State, Statuses},
};
use futures_util::{StreamExt, stream};

use super::{
    Common, Ended, Form, Given, Usage,
    report::{self, Tally},
    routes::{chosen, taking},
    setup::setup,
};

/// How many routes are delivered at once.
const AT_ONCE: usize = 8;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without names, a route with a glob delivers what its `sweep` says: by default only refs whose\n\
    objects exist already. A route that is named delivers every ref that matches.\n\n\
    Examples:\n  backlog-bridge sync\n  backlog-bridge sync web-main --aws\n  \
    backlog-bridge sync --dry-run --aws\n  \
    backlog-bridge sync web-releases --ref refs/heads/release/1.0\n  \
    backlog-bridge sync web-main --again\n  \
    backlog-bridge sync web-main --now\n  \
    backlog-bridge sync --stack backlog-bridge"
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command"
)]
pub(super) struct Options {
    /// Names of routes; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    names: Vec<String>,
    /// Only say what would be delivered. Nothing is fetched, and nothing stored.
    #[arg(long)]
    dry_run: bool,
    /// Deliver only this ref, as refs/heads/main or main.
    #[arg(long = "ref", value_name = "REF")]
    ref_name: Option<String>,
    /// Store a new version also of a commit that an object holds already, so that its pipeline starts once more.
    #[arg(long)]
    again: bool,
    /// With --again: all refs of a route with a glob, too.
    #[arg(long, requires = "again")]
    yes: bool,
    /// Deliver at once also a commit that looks older than what the object holds, as after a force push back. The bridge
    /// does so after a second look a minute later, since a Git server that lags shows old commits too.
    #[arg(long)]
    now: bool,
    /// With --stack: for how long it is waited until the bridge tells what became of it, in seconds; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    wait: u64,
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
    let setup = setup(common, config).await?;
    if setup.stack.is_some() && options.now {
        return Err(Usage(
            "--now is for deliveries from here; drop --stack, or drop --now".into(),
        ));
    }
    let sync = Sync {
        bridge: setup.bridge_for_many(),
        table: &setup.table,
        config,
        options: &options,
    };
    let mut routes = chosen(sync.table, &options.names)?;
    let mut only = None;
    if let Some(text) = &options.ref_name {
        let (taking, ref_name) = taking(&routes, text)?;
        (routes, only) = (taking, Some(ref_name));
    }
    if options.again && !options.yes && only.is_none() {
        let globs = routes.iter().filter(|route| route.is_glob());
        let globs: Vec<_> = globs.map(|route| route.name()).collect();
        if !globs.is_empty() {
            return Err(Usage(format!(
                "--again would start the pipelines of all refs of {}; name one with --ref, or pass --yes",
                globs.join(", ")
            )));
        }
    }
    if options.dry_run {
        sync.look(&routes, only.as_ref()).await
    } else if let Some(stack) = &setup.stack {
        sync.have_delivered(stack, &routes, only.as_ref()).await
    } else {
        sync.deliver(&routes, only.as_ref()).await
    }
}

struct Sync<'a> {
    bridge: Deliverer,
    table: &'a RouteTable,
    config: &'a Config,
    options: &'a Options,
}

/// What there is to do of a route, or to say.
enum Step {
    Deliver(Destination),
    Tell(Box<Report>),
    Note(String),
}

impl Sync<'_> {
    /// Whether refs of a route are delivered that have no object yet.
    fn takes_new(&self, route: &Route, only: Option<&RefName>) -> bool {
        !self.options.names.is_empty() || only.is_some() || route.sweep() == Sweep::All
    }

    async fn look(&self, routes: &[&Route], only: Option<&RefName>) -> Result<Ended, Usage> {
        let Statuses { all, warnings } =
            Statuses::look(&self.bridge, self.table, routes, only).await;
        let mut tally = Tally::default();
        for status in all {
            let route = self.table.route(&status.route);
            let takes_new = route.is_none_or(|route| self.takes_new(route, only));
            if status.state == State::NeverDelivered && !takes_new {
                continue;
            }
            tally.print(&status.plan(self.options.again, self.options.now));
        }
        for warning in warnings {
            note!("warning: {warning}");
        }
        Ok(tally.close())
    }

    /// Several at once; what became of them is told in the order of the table.
    async fn deliver(&self, routes: &[&Route], only: Option<&RefName>) -> Result<Ended, Usage> {
        let steps = stream::iter(routes).map(async |route| self.steps(route, only).await);
        let steps = steps.buffered(AT_ONCE).flat_map(stream::iter);
        let done = steps.map(async |step| match step {
            Step::Deliver(to) => Step::Tell(Box::new(self.deliver_to(&to).await)),
            told => told,
        });
        let mut done = std::pin::pin!(done.buffered(AT_ONCE));
        let mut tally = Tally::default();
        while let Some(step) = done.next().await {
            match step {
                Step::Tell(report) => tally.print(&report),
                Step::Note(text) => note!("{text}"),
                Step::Deliver(_) => unreachable!("it was carried out"),
            }
        }
        Ok(tally.close())
    }

    /// Has the deployed bridge do it. A Git server is asked only for the refs of a glob.
    async fn have_delivered(
        &self,
        stack: &Stack,
        routes: &[&Route],
        only: Option<&RefName>,
    ) -> Result<Ended, Usage> {
        let (mut found, mut tally) = (Vec::new(), Tally::default());
        for route in routes {
            for step in self.steps(route, only).await {
                match step {
                    Step::Deliver(to) => found.push(to),
                    Step::Tell(report) => tally.print(&report),
                    Step::Note(text) => note!("{text}"),
                }
            }
        }
        deployed::run(self.options, stack, found, &mut tally).await?;
        Ok(tally.close())
    }

    async fn steps(&self, route: &Route, only: Option<&RefName>) -> Vec<Step> {
        let about = Subject {
            route: Some(route.name()),
            repository: Some(route.repository()),
            ref_name: only.or(route.pattern().exact()),
        };
        if route.is_paused() {
            let report = Report::ignored(about, paused(route.name()));
            return vec![Step::Tell(report.into())];
        }
        let takes_new = self.takes_new(route, only);
        let destinations = match only {
            Some(only) => Ok(vec![route.destination(self.table.space_of(route), only)]),
            None => Box::pin(self.bridge.destinations(self.table, route, takes_new)).await,
        };
        let destinations = match destinations {
            Ok(destinations) => destinations,
            Err(err) => return vec![Step::Tell(Report::failed(about, &err).into())],
        };
        if destinations.is_empty() {
            let why = if takes_new {
                "matches"
            } else {
                "that matches has an object yet; name the route to deliver all"
            };
            return vec![Step::Note(format!("{}: no ref {why}", route.name()))];
        }
        let steps = destinations
            .into_iter()
            .map(|destination| match destination {
                Ok(to) => Step::Deliver(to),
                Err(err) => {
                    let ref_name = err.ref_name.clone();
                    let ref_name = Some(&ref_name);
                    let report = Report::failed(Subject { ref_name, ..about }, &err.into());
                    Step::Tell(report.into())
                }
            });
        steps.collect()
    }

    async fn deliver_to(&self, to: &Destination) -> Report {
        let started = Instant::now();
        let progress = Arc::new(Progress::until(started + self.config.delivery_time));
        let second_look = if self.options.now {
            SecondLook::Waived
        } else {
            SecondLook::Needed
        };
        let delivery = async {
            if self.options.again {
                self.bridge.deliver_again(to, second_look, &progress).await
            } else {
                self.bridge.deliver(to, None, second_look, &progress).await
            }
        };
        let delivery = report::watch(&to.route, &progress, Box::pin(delivery)).await;
        Report::of(to, delivery, started)
    }
}
