//! `webhook rotate`: a new token for the bridge, and for all its webhooks.

use std::time::Duration;

use backlog_bridge::{
    backlog::ApiError,
    config::Config,
    error::chain,
    registration::{self, Aim, Bridge, Registered, TokenState},
    route::{RouteTable, Space},
    secrets::{Token, TokenPair, Tokens},
};

use super::{All, Options, Place};
use crate::cli::{Ended, Usage};

/// How long a new token rests before webhooks bring it: `receive` reads the secret again after 2 s, and no sooner.
const REST: Duration = Duration::from_secs(3);

pub(super) async fn run(
    options: &Options,
    place: &Place,
    config: &Config,
    leaked: bool,
    dry_run: bool,
) -> Result<Ended, Usage> {
    let bridge = place.bridge_with_token().await?;
    let tokens = place.tokens.as_ref().filter(|tokens| tokens.can_turn());
    let Some(tokens) = tokens else {
        return Err(Usage(
            "WEBHOOK_TOKEN holds the token itself, and only a secret can be turned; set it to secret: and the name of the secret \
             that the bridge reads, or change the token where the bridge runs, and then `webhook add`"
                .into(),
        ));
    };
    let mut all = All::of(options, place, config, &[], dry_run).await?;
    let others = other_spaces(&place.table, all.scope.space);
    if leaked && !others.is_empty() {
        return Err(Usage(format!(
            "the routing table has other spaces ({others}), whose webhooks a second turn would cut off; turn without --leaked, then \
             `webhook add --space NAME` for each of the others, and then all of this once more"
        )));
    }
    if dry_run {
        let current = bridge.tokens.map(|pair| pair.current);
        let next = TokenPair {
            current: Token::new(),
            previous: current,
        };
        let hooks = bridge.hooks;
        let tokens = Some(next);
        all.bring(&Bridge { hooks, tokens }, Aim::Turned).await;
        return Ok(all.ended);
    }
    // A webhook that brings the previous token would bring one that is not valid any more; and a key that changes no webhook is
    // no reason to turn the token.
    if all.take_along(&bridge).await == Taken::None {
        note!("the token was not turned");
        return Ok(Ended::WithFailures);
    }
    let mut bridge = turn(place, tokens).await?;
    if leaked {
        let taken = all.take_along(&bridge).await;
        if taken != Taken::All || all.may_be_set_by_hand(&bridge).await {
            all.bring(&bridge, Aim::Turned).await;
            all.show_set_by_hand(&bridge).await;
            note!(
                "the leaked token is still valid, as the previous one: there are webhooks that bring it, or may bring it, and cannot \
                 be changed from here. Change those, and then `webhook rotate` once more"
            );
            return Ok(Ended::WithFailures);
        }
        bridge = turn(place, tokens).await?;
    }
    all.bring(&bridge, Aim::Turned).await;
    all.show_set_by_hand(&bridge).await;
    if !others.is_empty() {
        note!(
            "the webhooks of other spaces bring the previous token, which is valid until the next rotation; next: `webhook add \
             --space NAME` for each of: {others}"
        );
    }
    if leaked {
        note!("the leaked token is refused everywhere in 5 minutes at the latest");
    }
    Ok(all.ended)
}

/// The names of the spaces that have routes, but for one.
fn other_spaces(table: &RouteTable, this: &Space) -> String {
    let others = table.spaces().iter().filter(|space| {
        let mut routes = table.routes().iter();
        *space != this && routes.any(|route| table.space_of(route) == *space)
    });
    let names: Vec<_> = others.filter_map(Space::name).collect();
    names.join(", ")
}

/// Gives the secret a new token, and the functions time to see it.
async fn turn(place: &Place, tokens: &Tokens) -> Result<Bridge, Usage> {
    tokens.turn().await?;
    note!(
        "the secret holds a new token; the webhooks follow in {} s",
        REST.as_secs()
    );
    tokio::time::sleep(REST).await;
    place.bridge_with_token().await
}

/// Which projects' webhooks bring the current token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    Some,
    None,
}

impl All<'_> {
    /// Gives every webhook of the bridge the current token. Failures that end it are told; others are told of at the end.
    async fn take_along(&self, bridge: &Bridge) -> Taken {
        let (mut failed, mut is_cut_off) = (Vec::new(), false);
        for project in &self.scope.projects {
            let done = registration::bring(&self.api, project, bridge, Aim::Turned, false).await;
            let done = done.unwrap_or_else(|err| vec![Registered::failed(err)]);
            // A webhook that brings the previous token would be refused after the turn; what may succeed later is tried first.
            is_cut_off |= done.iter().any(|one| {
                let would_be =
                    |err: &ApiError| err.is_transient() || one.token == Some(TokenState::Previous);
                one.failed.as_ref().is_some_and(would_be)
            });
            let errors = done.into_iter().filter_map(|one| one.failed);
            let errors: Vec<_> = errors.collect();
            let is_over = errors.iter().any(ApiError::is_of_the_space);
            if let Some(err) = errors.into_iter().next() {
                failed.push((project, err));
            }
            if is_over {
                break;
            }
        }
        let is_over = failed.iter().any(|(_, err)| err.is_of_the_space());
        if is_over || is_cut_off || failed.len() == self.scope.projects.len() {
            for (project, err) in &failed {
                note!("{project}: failed: {}", chain(err));
            }
            return Taken::None;
        }
        if failed.is_empty() {
            Taken::All
        } else {
            Taken::Some
        }
    }

    /// Whether a repository's own webhook brings the previous token, as far as anybody may know.
    async fn may_be_set_by_hand(&self, bridge: &Bridge) -> bool {
        for project in &self.scope.projects {
            let found = registration::set_by_hand(&self.api, project, bridge).await;
            let is_previous = |(_, token): &(String, _)| *token == TokenState::Previous;
            if found.map_or(true, |found| found.iter().any(is_previous)) {
                return true;
            }
        }
        false
    }
}
