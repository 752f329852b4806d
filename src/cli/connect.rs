//! `connect`: all that a deployed bridge needs to deliver, in one run that can be repeated. Each step looks first.

mod delivery;
mod login;
mod results;
mod webhook;

use std::path::PathBuf;

use backlog_bridge::{
    config::Config,
    connect::{branches_commands, deploy_command, misplaced},
    error::chain,
    pipeline::{self, Pipeline},
    plain,
    route::{Destination, Origin, RouteTable},
    stack::{CallError, Stack},
};

use super::{
    Common, Ended, Given, GivenStack, Usage, ask,
    routes::deployed::{Asks, Place, Pushed, refused, store},
    setup::read,
    steps::{Became, Steps},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It looks at the stack, tries the login for Git and stores it in the stack's secret, stores the routing table, \
    registers the webhook with an administrator's API key, which is kept nowhere, has the bridge deliver, and waits for the \
    objects. It ends with the command of each pipeline that is not there yet, and with that of builds for every branch of a glob. \
    What is done already is left alone, so it can be \
    run again, and stopped at any time.\n\n\
    Exit status: 0 all is well; 1 something failed, or a step is left for you; 2 wrong usage or a wrong table.\n\n\
    Examples:\n  backlog-bridge connect --stack backlog-bridge\n  \
    backlog-bridge connect --stack backlog-bridge --dry-run\n\n\
    Environment: BACKLOG_USERNAME and BACKLOG_PASSWORD, the login for Git, where nobody is to be asked; \
    BACKLOG_ADMIN_API_KEY."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option that is there or not"
)]
pub(super) struct Options {
    #[command(flatten)]
    deployed: GivenStack,
    /// The routing table [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Ask for another login for Git, though the one that is stored works.
    #[arg(long)]
    new_login: bool,
    /// Store the routing table without asking, though another one is there.
    #[arg(long)]
    yes: bool,
    /// Where an administrator's API key is, to register the webhook: env:VARIABLE or secret:NAME [default:
    /// `BACKLOG_ADMIN_API_KEY`, or a question].
    #[arg(long, value_name = "SOURCE")]
    api_key_from: Option<String>,
    /// Whether results are to be told in Backlog; asked once there is a pipeline. With yes, what to type for it is printed.
    #[arg(long, value_name = "YES_OR_NO")]
    results: Option<results::Wish>,
    /// Look and try, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// A line of JSON for each step.
    #[arg(long)]
    json: bool,
    /// For how long the objects are waited for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    wait: u64,
}

impl Options {
    pub(super) fn given(&self) -> Given {
        Given {
            routes: self.routes.clone(),
            ..(&self.deployed).into()
        }
    }
}

/// What the steps work on.
struct Connection<'a> {
    options: &'a Options,
    stack: &'a Stack,
    table: &'a RouteTable,
    /// Whether there is somebody to ask.
    asks: bool,
    /// Whether the table says anything of results.
    says_results: bool,
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    let mut steps = Steps::new(options.json);
    let stack = Box::pin(common.wanted_stack()).await?;
    let region = backlog_bridge::stack::region().await;
    let place = region.as_deref().unwrap_or("this region");
    steps.tell(
        "stack",
        Became::Well,
        &format!("{} in {place} is {}", stack.name, stack.status),
    );
    let name = common.routes.display().to_string();
    let (text, _) = read(&common.routes)?;
    let table = RouteTable::parse(&name, &text, Some(&stack.bucket), Origin::Deployed)?;
    let misplaced = misplaced(&text, &table, &stack);
    if !misplaced.is_empty() {
        for one in misplaced {
            let change = match one.found {
                Some((line, found)) => format!("{name}:{line}\n  - {found}\n  + {}", one.expected),
                None => format!("{name}:{}\n  + {}", one.url_line, one.expected),
            };
            let why = format!(
                "the bridge {} does not read that login; change the line, and run this again: {change}",
                stack.name
            );
            steps.tell("table", Became::Failed, &why);
        }
        return Ok(steps.end());
    }
    super::routes::look_over(&name, &table, Origin::Deployed)?;
    let connection = Connection {
        asks: ask::is_somebody_there(),
        says_results: text
            .lines()
            .any(|line| line.trim_start().starts_with("results")),
        options: &options,
        stack: &stack,
        table: &table,
    };
    let Some(known) = Box::pin(connection.logins(&mut steps)).await? else {
        return Ok(steps.end());
    };
    connection.readers(&mut steps);
    if !Box::pin(connection.table(common, &mut steps)).await? {
        return Ok(steps.end());
    }
    Box::pin(connection.webhook(config, &mut steps)).await?;
    let delivered = Box::pin(connection.deliver(&known, &mut steps)).await;
    let pipelines = connection.pipelines(region.as_deref(), &delivered, &mut steps);
    let (mut next, pipelines) = Box::pin(pipelines).await;
    next.extend(connection.branches(region.as_deref(), &mut steps));
    let results = connection.results(region.as_deref(), &pipelines, &mut steps);
    next.extend(Box::pin(results).await?);
    let ended = steps.end();
    for line in next {
        steps.aside(&line);
    }
    Ok(ended)
}

impl Connection<'_> {
    /// Stores the routing table. Says whether it is there.
    async fn table(&self, common: &Common, steps: &mut Steps) -> Result<bool, Usage> {
        let place = Place::of(self.stack.clone());
        let asks = match (self.options.dry_run, self.options.yes) {
            (true, _) => Asks::NothingIsStored,
            (false, true) => Asks::Nobody,
            (false, false) => Asks::IfItReplaces,
        };
        let at = &place.at;
        let routes = plain::count(self.table.routes().len(), "route", "routes");
        let stored = match Box::pin(store(&common.routes, &place, asks)).await {
            Ok(stored) => stored,
            Err(Usage(why)) => {
                steps.tell("table", Became::Failed, &why);
                return Ok(false);
            }
        };
        let (became, message) = match stored {
            Pushed::Unasked => {
                return Err(Usage(format!(
                    "another table is stored as {at}, and this is no terminal to ask at; pass --yes to replace it"
                )));
            }
            Pushed::Same => (
                Became::Well,
                format!("{at} is this table already, with {routes}"),
            ),
            Pushed::Stored if self.options.dry_run => (
                Became::Done,
                format!("would store it as {at}, with {routes}"),
            ),
            Pushed::Stored => (Became::Done, format!("stored as {at}, with {routes}")),
            Pushed::Declined => (Became::ByHand, format!("the table at {at} stays as it was")),
            Pushed::Refused => (Became::Failed, refused(at)),
        };
        steps.tell("table", became, &message);
        Ok(matches!(became, Became::Well | Became::Done))
    }

    /// Looks which objects have a pipeline. What to type for the others; and the pipelines, by the names of routes.
    async fn pipelines(
        &self,
        region: Option<&str>,
        delivered: &[Destination],
        steps: &mut Steps,
    ) -> (Vec<String>, Vec<(String, String)>) {
        let mut found = Vec::new();
        if delivered.is_empty() {
            return (Vec::new(), found);
        }
        let (pipelines, unknown) = match Box::pin(all()).await {
            Ok(pipelines) => (pipelines, None),
            Err(err) => (Vec::new(), Some(chain(&err))),
        };
        let mut commands = Vec::new();
        for to in delivered {
            let (bucket, key) = (&to.bucket, to.key.as_str());
            let mut pipelines = pipelines.iter();
            if let Some(pipeline) =
                pipelines.find(|pipeline| pipeline.source(bucket, key).is_some())
            {
                let message = format!("{} starts with each version of {key}", pipeline.name);
                steps.tell("pipeline", Became::Well, &message);
                found.push((to.route.clone(), pipeline.name.clone()));
            } else {
                let route = self.table.route(&to.route);
                let named = route.and_then(|route| route.pipeline(&to.ref_name));
                let name = named.as_ref().unwrap_or(&to.route);
                commands.push(deploy_command(self.stack, region, name, bucket, key));
            }
        }
        if commands.is_empty() {
            return (Vec::new(), found);
        }
        let head = match unknown {
            Some(why) => format!(
                "\nNext, if they are not there yet (whether they are cannot be seen: {why}), the pipelines:"
            ),
            None if commands.len() == 1 => "\nNext, the pipeline:".into(),
            None => "\nNext, the pipelines:".into(),
        };
        for command in &commands {
            steps.next(command);
        }
        ([head].into_iter().chain(commands).collect(), found)
    }

    /// What to type so that the branches of globs are built. Whether they are already is not looked at.
    fn branches(&self, region: Option<&str>, steps: &mut Steps) -> Vec<String> {
        let commands = branches_commands(self.stack, region, self.table);
        if commands.is_empty() {
            return commands;
        }
        for command in &commands {
            steps.next(command);
        }
        let head = "\nA build for every branch (docs/branches.md), if it is not there yet:".into();
        [head].into_iter().chain(commands).collect()
    }
}

/// All pipelines of the region.
async fn all() -> Result<Vec<Pipeline>, CallError> {
    let mut all = Vec::new();
    for name in pipeline::names().await? {
        all.push(Pipeline::named(&name).await?);
    }
    Ok(all)
}
