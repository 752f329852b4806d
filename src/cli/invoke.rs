//! `invoke`: one webhook body, handled as the bridge would.

use std::path::PathBuf;

use backlog_bridge::{
    config::Config,
    deliver::{Bridge, Delivery, step::Hints},
    push::Change,
    webhook::{Ignored, Webhook},
};

use super::{Common, Ended, Usage, report, setup::setup};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  backlog-bridge invoke events/project-push-update.json\n  \
    backlog-bridge invoke events/git-push-update.form --store /tmp/store"
)]
pub(super) struct Options {
    /// The body of a webhook, as Backlog posts it. No token is needed.
    #[arg(value_name = "EVENT_FILE")]
    event: PathBuf,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let file = &options.event;
    let body = std::fs::read(file)
        .map_err(|err| Usage(format!("cannot read the event {}: {err}", file.display())))?;
    let webhook =
        Webhook::from_body(&body).map_err(|err| Usage(format!("{}: {err}", file.display())))?;
    let setup = setup(common, config).await?;
    let deliveries = handle(&setup.bridge, webhook).await;
    Ok(deliveries.iter().fold(Ended::Well, |ended, delivery| {
        ended.and(
            delivery
                .as_ref()
                .is_none_or(|delivery| delivery.result.is_err()),
        )
    }))
}

/// Delivers what the event asks for, one after the other. `None` stands for a ref that makes no object key.
pub(super) async fn handle(bridge: &Bridge, webhook: Webhook) -> Vec<Option<Delivery>> {
    let push = match webhook {
        Webhook::Push(push) if push.change == Change::Deleted => {
            report::ignored(Ignored::Deletion, Some(&push));
            return Vec::new();
        }
        Webhook::Push(push) => push,
        Webhook::Ignored(why) => {
            report::ignored(why, None);
            return Vec::new();
        }
    };
    let destinations = bridge.table.matching(&push);
    if destinations.is_empty() {
        report::ignored(Ignored::NoRoute, Some(&push));
    }
    let hints = Hints {
        commits: push.commits.clone(),
        before: push.before,
    };
    let mut deliveries = Vec::new();
    for destination in destinations {
        deliveries.push(match destination {
            Ok(to) => Some(report::deliver(bridge, &to, Some(hints.clone())).await),
            Err(err) => {
                report::no_key(&push.repository, &err);
                None
            }
        });
    }
    deliveries
}
