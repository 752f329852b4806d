//! `webhook`: the webhooks of projects, registered through Backlog's API.

mod line;
mod rotate;
pub(super) mod scope;
pub(super) mod test;

use std::path::PathBuf;

use backlog_bridge::{
    backlog::{ApiError, Backlog, Fault},
    config::{Config, stack_name},
    plain,
    registration::{self, Act, Aim, Bridge},
};

use self::{
    line::{Failed, Line},
    scope::{Place, Scope},
};
use super::{Common, Ended, Given, Usage, ask};

const HELP: &str = "The API key has to be an administrator's own, of the project or the space: from BACKLOG_ADMIN_API_KEY, from \
    --api-key-from, or typed at a terminal. It is kept nowhere. Webhooks of others are never touched.\n\n\
    Exit status: 0 all is well, 1 something failed, 2 wrong usage.\n\nExamples:\n";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Register the bridge's webhook with projects of Backlog. What is registered already is mended, or left as it is.
    #[command(after_help = format!("{HELP}  \
        backlog-bridge webhook add --stack backlog-bridge\n  \
        WEBHOOK_TOKEN=secret:bridge/token backlog-bridge webhook add APP \\\n    \
        --url https://bridge.example.com/hooks --dry-run"))]
    Add {
        /// Keys of projects; all of the routing table if none is given.
        #[arg(value_name = "PROJECT")]
        projects: Vec<String>,
        #[command(flatten)]
        options: Options,
        /// Remove further webhooks of this bridge from a project. The oldest stays.
        #[arg(long)]
        prune: bool,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the bridge's webhooks, also those of single repositories, and say which token each has.
    #[command(after_help = format!("{HELP}  \
        backlog-bridge webhook list --stack backlog-bridge"))]
    List {
        /// Keys of projects; all of the routing table if none is given.
        #[arg(value_name = "PROJECT")]
        projects: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Remove the bridge's webhooks from projects.
    #[command(after_help = format!("{HELP}  \
        backlog-bridge webhook remove APP --stack backlog-bridge"))]
    Remove {
        /// Keys of projects; all of the routing table if none is given.
        #[arg(value_name = "PROJECT")]
        projects: Vec<String>,
        #[command(flatten)]
        options: Options,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Remove them without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Post a test to the bridge from here, as Backlog would: with a route, a made-up push of its ref, which does no harm.
    #[command(
        after_help = "It needs no API key. It is not Backlog that posts: where ALLOWED_IPS lets in only Backlog's addresses, the \
        answer from here is 404.\n\n\
        Exit status: 0 the bridge took it, 1 it did not, 2 wrong usage.\n\nExamples:\n  \
        backlog-bridge webhook test --stack backlog-bridge\n  \
        backlog-bridge webhook test web-main --stack backlog-bridge"
    )]
    Test {
        /// The name of a route.
        #[arg(value_name = "ROUTE")]
        route: Option<String>,
        /// The ref, for a route that takes several.
        #[arg(long = "ref", value_name = "REF", requires = "route")]
        ref_name: Option<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Give the bridge a new token, and all its webhooks with it. No event is refused meanwhile.
    #[command(after_help = format!("{HELP}  \
        backlog-bridge webhook rotate --stack backlog-bridge\n  \
        backlog-bridge webhook rotate --stack backlog-bridge --leaked"))]
    Rotate {
        #[command(flatten)]
        options: Options,
        /// Turn it twice, so that the token of today is not valid as the previous one either.
        #[arg(long)]
        leaked: bool,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where the bridge is.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The bridge's URL up to /hooks; `WEBHOOK_TOKEN` has its token.
    #[arg(long, value_name = "URL", conflicts_with = "stack")]
    url: Option<String>,
    /// The stack that the bridge was deployed as, with its routing table [default: `BACKLOG_BRIDGE_STACK`].
    #[arg(long, value_name = "NAME", value_parser = stack_name)]
    stack: Option<String>,
    /// With --url: the routing table [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    place: Where,
    /// Where the API key is: env:VARIABLE or secret:NAME [default: `BACKLOG_ADMIN_API_KEY`, or a question].
    #[arg(long, value_name = "SOURCE")]
    api_key_from: Option<String>,
    /// With several spaces: the one whose projects are meant.
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
}

impl Command {
    fn place(&self) -> &Where {
        match self {
            Self::Add { options, .. }
            | Self::List { options, .. }
            | Self::Remove { options, .. }
            | Self::Rotate { options, .. } => &options.place,
            Self::Test { place, .. } => place,
        }
    }

    pub(super) fn given(&self) -> Given {
        let Where { stack, routes, .. } = self.place();
        Given {
            stack: stack.clone(),
            routes: routes.clone(),
            ..Given::default()
        }
    }

    /// Which of the options that stand before the command it can use.
    pub(super) fn uses(&self) -> &'static [&'static str] {
        // What is said on the line wins over the stack of the environment.
        if self.place().url.is_some() {
            &["--routes"]
        } else {
            &["--routes", "--stack"]
        }
    }
}

pub(super) async fn run(
    command: Command,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    ask::interruptible(carry_out(command, common, config)).await
}

async fn carry_out(command: Command, common: &Common, config: &Config) -> Result<Ended, Usage> {
    let place = Place::find(command.place().url.as_deref(), common, config).await?;
    match command {
        Command::Test {
            route,
            ref_name,
            place: Where { json, .. },
        } => test::run(route, ref_name, &place, json).await,
        Command::Rotate {
            options,
            leaked,
            dry_run,
        } => rotate::run(&options, &place, config, leaked, dry_run).await,
        Command::Add {
            projects,
            options,
            prune,
            dry_run,
        } => {
            let bridge = place.bridge_with_token().await?;
            let mut all = All::of(&options, &place, config, &projects, dry_run).await?;
            all.bring(&bridge, Aim::Registered { prune }).await;
            Ok(all.ended)
        }
        Command::List { projects, options } => {
            let bridge = place.bridge().await?;
            let mut all = All::of(&options, &place, config, &projects, false).await?;
            all.bring(&bridge, Aim::AsItIs).await;
            all.show_set_by_hand(&bridge).await;
            Ok(all.ended)
        }
        Command::Remove {
            projects,
            options,
            dry_run,
            yes,
        } => {
            let bridge = place.bridge().await?;
            let scope = Scope::of(&place.table, &projects, options.space.as_deref())?;
            let question = format!(
                "Remove the webhooks of {} from {}?",
                bridge.hooks,
                scope.projects.join(", ")
            );
            if !dry_run && !yes && !ask::confirmed(&question, "remove").await? {
                note!("nothing was removed");
                return Ok(Ended::WithFailures);
            }
            let mut all = All::of(&options, &place, config, &projects, dry_run).await?;
            all.bring(&bridge, Aim::Gone).await;
            Ok(all.ended)
        }
    }
}

/// The projects that a command is about, and what became of their webhooks.
struct All<'a> {
    api: Backlog,
    scope: Scope<'a>,
    place: &'a Place,
    url: String,
    as_json: bool,
    dry_run: bool,
    ended: Ended,
    /// What makes every request to the space fail.
    given_up: Option<Failed>,
}

impl<'a> All<'a> {
    async fn of(
        options: &Options,
        place: &'a Place,
        config: &Config,
        projects: &[String],
        dry_run: bool,
    ) -> Result<Self, Usage> {
        let scope = Scope::of(&place.table, projects, options.space.as_deref())?;
        let key = scope::key(options, config, scope.space).await?;
        Ok(Self {
            api: Backlog::new(scope.space.url(), &key)?,
            scope,
            place,
            url: place.hooks.masked(),
            as_json: options.place.json,
            dry_run,
            ended: Ended::Well,
            given_up: None,
        })
    }

    /// Brings the webhooks of all projects to what they should be, and prints a line for each.
    async fn bring(&mut self, bridge: &Bridge, aim: Aim) {
        for project in self.scope.projects.clone() {
            if let Some(failed) = self.given_up.clone() {
                self.ended = Ended::WithFailures;
                let line = Line::failed(&self.scope.url, &project, &self.url, failed);
                line.print(self.as_json, "");
                continue;
            }
            match registration::bring(&self.api, &project, bridge, aim, self.dry_run).await {
                Ok(all) => {
                    for registered in all {
                        let mut line = Line::of(&self.scope.url, &project, &self.url, &registered);
                        line.dry_run = self.dry_run;
                        line.print(self.as_json, &said_of(&registered.act, aim, &self.url));
                        if let Some(err) = &registered.failed {
                            self.fail(err);
                        }
                    }
                }
                Err(err) => {
                    let failed = Failed::from(&err);
                    let line = Line::failed(&self.scope.url, &project, &self.url, failed);
                    line.print(self.as_json, "");
                    self.fail(&err);
                }
            }
        }
    }

    fn fail(&mut self, err: &ApiError) {
        self.ended = Ended::WithFailures;
        if err.fault == Fault::Role {
            note!(
                "  ask a project administrator, who can also enter it by hand: Project settings, Integrations, Webhook, Add:\n  \
                 {}, event \"Git pushed\"\n  {}",
                self.url,
                self.place.token_is
            );
        }
        if err.is_of_the_space() {
            self.given_up = Some(err.into());
        }
    }

    /// Prints a line for each repository whose own webhook leads to the bridge.
    async fn show_set_by_hand(&self, bridge: &Bridge) {
        for project in &self.scope.projects {
            if self.given_up.is_some() {
                return;
            }
            let found = match registration::set_by_hand(&self.api, project, bridge).await {
                Ok(found) => found,
                Err(err) => {
                    let why = backlog_bridge::error::chain(&err);
                    note!(
                        "warning: {project}: webhooks of single repositories are not known: {why}"
                    );
                    continue;
                }
            };
            for (repository, token) in found {
                let line = Line {
                    space: &self.scope.url,
                    project,
                    repository: Some(&repository),
                    id: None,
                    url: &self.url,
                    result: "left",
                    token: Some(token.as_str()),
                    dry_run: false,
                    error: None,
                };
                line.print(
                    self.as_json,
                    "entered by hand in the repository's Git settings",
                );
            }
        }
    }
}

/// What people should know besides.
fn said_of(act: &Act, aim: Aim, url: &str) -> String {
    match (act, aim) {
        (Act::Add, _) => format!("{url}, Git pushes"),
        (Act::Change { url: new, types }, _) => {
            let url = new.then_some("the URL with the current token");
            let types = types.as_ref().map(|_| "Git pushes besides the others");
            let changed: Vec<_> = url.into_iter().chain(types).collect();
            changed.join(", ")
        }
        (Act::Leave, Aim::Registered { .. }) => {
            "a further webhook of this bridge, --prune removes it".into()
        }
        (Act::Leave, Aim::AsItIs) => "`webhook add` would mend that".into(),
        (Act::Keep, Aim::Gone) | (Act::Leave, Aim::Turned) => "no webhook of this bridge".into(),
        (Act::Keep, _) => plain::foreign(url),
        (Act::Leave, Aim::Gone) | (Act::Remove, _) => String::new(),
    }
}
