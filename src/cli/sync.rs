//! `sync`: objects become what their refs are.

use backlog_bridge::{
    config::Config,
    route::{Route, Sweep},
};

use super::{Common, Ended, Usage, report, setup::setup};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without names, a route with a glob delivers what its `sweep` says: by default only refs whose\n\
    objects exist already. A route that is named delivers every ref that matches.\n\n\
    Examples:\n  backlog-bridge sync\n  backlog-bridge sync web-main --aws"
)]
pub(super) struct Options {
    /// Names of routes; all of them if none is given.
    #[arg(value_name = "ROUTE")]
    names: Vec<String>,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let setup = setup(common, config).await?;
    let bridge = &setup.bridge;
    let named = options.names.iter().map(|name| {
        bridge.table.route(name).ok_or_else(|| {
            let known: Vec<_> = bridge.table.routes().iter().map(Route::name).collect();
            Usage(format!(
                "no route is named {name:?}; there are {}",
                known.join(", ")
            ))
        })
    });
    let named: Vec<&Route> = named.collect::<Result<_, _>>()?;
    let routes: Vec<&Route> = if named.is_empty() {
        bridge.table.routes().iter().collect()
    } else {
        named.clone()
    };

    let mut ended = Ended::Well;
    for route in routes {
        let all = !named.is_empty() || route.sweep() == Sweep::All;
        let destinations = match bridge.destinations(route, all).await {
            Ok(destinations) => destinations,
            Err(err) => {
                report::failed(
                    route.name(),
                    route.repository(),
                    route.pattern().exact(),
                    &err,
                );
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
            eprintln!("{}: no ref {why}", route.name());
        }
        for destination in destinations {
            let failed = match destination {
                Ok(to) => report::deliver(bridge, &to, None).await.result.is_err(),
                Err(err) => {
                    report::no_key(route.repository(), &err);
                    true
                }
            };
            ended = ended.and(failed);
        }
    }
    Ok(ended)
}
