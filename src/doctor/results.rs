//! What is seen of what tells results: its function, its queues, and the robot's keys.

use super::{
    bridge,
    seen::{Seen, Time},
    verdict::{Function, Robot, Telling},
};
use crate::{
    queue::Sqs,
    route::{ApiKeySource, Results, RouteTable, Space},
    secrets,
    stack::Stack,
};

/// Looks at all of it at once; `None` where nobody wants results, and no stack has them.
pub(super) async fn look(
    time: &Time,
    stack: &Stack,
    table: Option<&RouteTable>,
) -> Option<Telling> {
    let wants = |space: &&Space| {
        let mut routes = table.into_iter().flat_map(RouteTable::routes);
        routes.any(|route| {
            table.is_some_and(|table| {
                table.space_of(route) == *space && table.results_of(route) != Results::None
            })
        })
    };
    let spaces = table.map(RouteTable::spaces).unwrap_or_default();
    let wanting: Vec<&Space> = spaces.iter().filter(wants).collect();
    let mut robots = Vec::new();
    for space in &wanting {
        robots.push(match space.api_key() {
            None => Robot::Unnamed(space.url().to_string()),
            Some(ApiKeySource::Env { .. }) => continue,
            Some(ApiKeySource::Secret { name }) => {
                let held = time.look(secrets::api_key_in(name)).await;
                let state = held.as_ref().map(secrets::Held::state);
                Robot::Secret(name.clone(), state.map_err(Clone::clone))
            }
        });
    }
    let deployed = match stack.results_dead_letters() {
        None if wanting.is_empty() => return None,
        None => None,
        Some(letters) => {
            let letters = Sqs::from_environment(letters).await;
            let name = stack.results();
            let (function, letters): (Seen<Option<Function>>, _) = tokio::join!(
                time.look(bridge::function(&name)),
                time.look(letters.attributes())
            );
            Some((function, letters))
        }
    };
    Some(Telling {
        stack: stack.name.clone(),
        name: stack.results(),
        deployed,
        robots,
    })
}
