//! `pause` and `resume`: one edit of the deployed table.

use super::{
    Common, Ended, GivenStack, Usage,
    routes::deployed::{self, Place},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It writes or takes away one line of the routing table of the deployed bridge, shows it, and asks. It counts for the\n\
    next push. What is pushed meanwhile is delivered by the first sweep after `resume`; a branch that is new to a glob by\n\
    its next push, or by `sync --stack`.\n\n\
    Examples:\n  backlog-bridge pause web-main --stack backlog-bridge\n  \
    backlog-bridge resume web-main --stack backlog-bridge --yes"
)]
pub(super) struct Options {
    /// The name of the route.
    #[arg(value_name = "ROUTE")]
    name: String,
    #[command(flatten)]
    pub(super) deployed: GivenStack,
    /// Store it without asking.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(options: Options, paused: bool, common: &Common) -> Result<Ended, Usage> {
    let place = Place::of(common.wanted_stack().await?);
    deployed::pause(&place, &options.name, paused, options.yes).await
}
