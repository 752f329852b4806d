//! `sync`: objects become what their refs are.

mod deployed;

use std::{sync::Arc, time::Instant};

use backlog_bridge::{
    config::Config,
    deliver::{Deliverer, step::SecondLook},
    outcome::{Report, Subject},
    progress::Progress,
    route::{Destination, Route, RouteTable, Sweep},
    stack::Stack,
};

use super::{
    Common, Ended, Given, Usage, report,
    routes::nearest,
    setup::{self, setup},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without names, a route with a glob delivers what its `sweep` says: by default only refs whose\n\
    objects exist already. A route that is named delivers every ref that matches.\n\n\
    Examples:\n  backlog-bridge sync\n  backlog-bridge sync web-main --aws\n  \
    backlog-bridge sync web-main --now\n  backlog-bridge sync --stack backlog-bridge"
)]
pub(super) struct Options {
    /// Names of routes; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    names: Vec<String>,
    /// Deliver at once also a commit that looks older than what the object holds, as after a force push back. The bridge
    /// does so after a second look a minute later, since a Git server that lags shows old commits too.
    #[arg(long)]
    now: bool,
    /// With --stack: for how long it is waited until the bridge tells what became of it, in seconds; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    wait: u64,
    #[command(flatten)]
    pub(super) given: Given,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    if let Some(stack) = common.stack().await? {
        return by_stack(&options, &stack, config).await;
    }
    let setup = setup(common, config).await?;
    let (bridge, table) = (&setup.bridge(), &setup.table);
    let named = named(table, &options.names)?;
    let routes = if named.is_empty() {
        table.routes().iter().collect()
    } else {
        named.clone()
    };

    let mut ended = Ended::Well;
    for route in routes {
        let about = Subject {
            route: Some(route.name()),
            repository: Some(route.repository()),
            ref_name: None,
        };
        let all = !named.is_empty() || route.sweep() == Sweep::All;
        let destinations = match bridge.destinations(table, route, all).await {
            Ok(destinations) => destinations,
            Err(err) => {
                let ref_name = route.pattern().exact();
                report::print(&Report::failed(Subject { ref_name, ..about }, &err));
                ended = Ended::WithFailures;
                continue;
            }
        };
        if destinations.is_empty() {
            let why = if all {
                "matches"
            } else {
                "that matches has an object yet; name the route to deliver all"
            };
            note!("{}: no ref {why}", route.name());
        }
        for destination in destinations {
            let report = match destination {
                Ok(to) => {
                    let progress = Progress::until(Instant::now() + config.delivery_time);
                    deliver(bridge, &to, options.now, progress).await
                }
                Err(err) => {
                    let ref_name = err.ref_name.clone();
                    let ref_name = Some(&ref_name);
                    Report::failed(Subject { ref_name, ..about }, &err.into())
                }
            };
            report::print(&report);
            ended = ended.and(report.is_failed());
        }
    }
    Ok(ended)
}

/// The routes of these names.
fn named<'a>(table: &'a RouteTable, names: &[String]) -> Result<Vec<&'a Route>, Usage> {
    let named = names.iter().map(|name| {
        table.route(name).ok_or_else(|| {
            let known: Vec<_> = table.routes().iter().map(Route::name).collect();
            let meant = nearest(name, &known).map(|near| format!("; did you mean {near}?"));
            Usage(format!(
                "no route is named {name:?}{}\nknown routes: {}",
                meant.unwrap_or_default(),
                known.join(", ")
            ))
        })
    });
    named.collect()
}

/// Has the deployed bridge do it. A Git server is asked only for the refs of a glob.
async fn by_stack(options: &Options, stack: &Stack, config: &Config) -> Result<Ended, Usage> {
    if options.now {
        return Err(Usage(
            "--now is for deliveries from here; drop --stack, or drop --now".into(),
        ));
    }
    let (bridge, table) = setup::deployed(stack, config).await?;
    let named = named(&table, &options.names)?;
    let is_named = !named.is_empty();
    let routes: Vec<_> = if is_named {
        named
    } else {
        table.routes().iter().collect()
    };
    let (mut found, mut ended) = (Vec::new(), Ended::Well);
    for route in routes {
        let about = Subject {
            route: Some(route.name()),
            repository: Some(route.repository()),
            ref_name: None,
        };
        let all = is_named || route.sweep() == Sweep::All;
        match bridge.destinations(&table, route, all).await {
            Ok(destinations) => {
                for destination in destinations {
                    match destination {
                        Ok(to) => found.push(to),
                        Err(err) => {
                            let ref_name = err.ref_name.clone();
                            let ref_name = Some(&ref_name);
                            report::print(&Report::failed(
                                Subject { ref_name, ..about },
                                &err.into(),
                            ));
                            ended = Ended::WithFailures;
                        }
                    }
                }
            }
            Err(err) => {
                report::print(&Report::failed(about, &err));
                ended = Ended::WithFailures;
            }
        }
    }
    let told = deployed::run(options, stack, found).await?;
    Ok(ended.and(told == Ended::WithFailures))
}

async fn deliver(bridge: &Deliverer, to: &Destination, now: bool, progress: Progress) -> Report {
    let started = Instant::now();
    let progress = Arc::new(progress);
    let second_look = if now {
        SecondLook::Waived
    } else {
        SecondLook::Needed
    };
    let delivery = bridge.deliver(to, None, second_look, &progress);
    let delivery = report::watch(&to.route, &progress, delivery).await;
    Report::of(to, delivery, started)
}
