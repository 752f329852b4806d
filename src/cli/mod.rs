//! The command line: one file a subcommand. It prints; it knows no Git and no S3.

/// Like `println!`, for lines that programs read.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::say(format_args!($($text)*)) };
}

/// Like `eprintln!`, for what people read.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::out::note(format_args!($($text)*)) };
}

mod ask;
mod completions;
mod connect;
mod demo;
mod doctor;
mod history;
mod init;
mod invoke;
mod logs;
mod manual;
mod out;
mod pause;
mod prose;
mod redrive;
mod report;
mod results;
mod rollback;
mod routes;
mod serve;
mod setup;
mod status;
mod steps;
mod sync;
mod verify;
mod webhook;

use std::{path::PathBuf, process::ExitCode};

use backlog_bridge::{
    config::{Config, stack_name},
    error::chain,
    stack::Stack,
    telemetry,
};
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// A file would be larger than `ulimit -f` allows: 25 on Linux and macOS.
const SIGXFSZ: i32 = 25;

/// Delivers Git repositories on Nulab Backlog to AWS CodePipeline: a push becomes a new version of a zip object in S3.
///
/// Try it without an account: backlog-bridge demo
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 nothing failed; 1 something failed, as a delivery without a login; 2 wrong usage, a wrong \
    variable or a wrong routing table.\n\
    stdout: of sync, invoke, serve, status, history and verify, prose on a terminal and one JSON line for each result \
    elsewhere (--json and --text force one); of the others, text. stderr: progress, warnings and failures for people.\n\
    Environment: SOURCE_BUCKET (default bucket), WEBHOOK_TOKEN (serve, webhook), BACKLOG_ADMIN_API_KEY (webhook), \
    MAX_ENTRIES, MAX_TREE_BYTES, MAX_BLOB_BYTES, MAX_PACK_BYTES, LOW_SPEED_BYTES, LOW_SPEED_SECONDS, SWEEP_AT_ONCE, DELIVERY_SECONDS \
    (sync, invoke), BACKLOG_BRIDGE_STACK (--stack), LOG_LEVEL."
)]
struct Cli {
    /// The options of a command may stand before it, too.
    #[command(flatten)]
    before: Given,
    #[command(flatten)]
    look: Look,
    #[command(subcommand)]
    command: Command,
}

/// The options of what delivers.
#[derive(Debug, Default, Clone, Args)]
struct Given {
    /// The routing table: which refs are delivered to which objects [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Deliver into this folder, as an embedded S3 [default: backlog-bridge-store].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Deliver to AWS S3, as the SDK is configured: profile, region, endpoint.
    #[arg(long)]
    aws: bool,
    /// With --aws: replace objects too that hold what this routing table does not deliver there.
    #[arg(long)]
    replace: bool,
    /// Have the bridge do it that was deployed as this stack, with its routing table [default: `BACKLOG_BRIDGE_STACK`].
    #[arg(long, value_name = "NAME", value_parser = stack_name)]
    stack: Option<String>,
}

/// The options of what looks at objects and writes none.
#[derive(Debug, Default, Clone, Args)]
struct GivenObjects {
    /// The routing table: which refs are delivered to which objects [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Look into this folder, an embedded S3 [default: backlog-bridge-store].
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Look at AWS S3, as the SDK is configured: profile, region, endpoint.
    #[arg(long)]
    aws: bool,
    /// Look at the bridge that was deployed as this stack, with its routing table [default: `BACKLOG_BRIDGE_STACK`].
    #[arg(long, value_name = "NAME", value_parser = stack_name)]
    stack: Option<String>,
}

/// Under which the help lists what changes no result.
const OUTPUT: &str = "Output";

/// How results are written.
#[derive(Debug, Default, Clone, Copy, Args)]
struct Form {
    /// Print each result as a line of JSON, as where stdout is no terminal.
    #[arg(long, conflicts_with = "text", help_heading = OUTPUT, display_order = 101)]
    json: bool,
    /// Print prose, as on a terminal.
    #[arg(long, help_heading = OUTPUT, display_order = 102)]
    text: bool,
}

/// How much is said, and how it looks.
#[derive(Debug, Clone, Copy, Args)]
struct Look {
    /// Say nothing but results and what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = OUTPUT, display_order = 103)]
    quiet: bool,
    /// Say more of each result: whole ids, times of stages, checksums.
    #[arg(short, long, global = true, help_heading = OUTPUT, display_order = 104)]
    verbose: bool,
    /// Colours: auto (on a terminal, unless `NO_COLOR` is set), always or never.
    #[arg(
        long,
        value_name = "WHEN",
        global = true,
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        help_heading = OUTPUT,
        display_order = 105
    )]
    color: ColorChoice,
}

/// The options of what only looks at the routing table.
#[derive(Debug, Default, Clone, Args)]
struct GivenTable {
    /// The routing table [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Look at it as for AWS: a route without a bucket needs `SOURCE_BUCKET`.
    #[arg(long)]
    aws: bool,
}

/// The option of what only a deployed bridge has.
#[derive(Debug, Default, Clone, Args)]
struct GivenStack {
    /// The stack of the deployed bridge [default: `BACKLOG_BRIDGE_STACK`].
    #[arg(long, value_name = "NAME", value_parser = stack_name)]
    stack: Option<String>,
}

impl From<&GivenStack> for Given {
    fn from(GivenStack { stack }: &GivenStack) -> Self {
        Self {
            stack: stack.clone(),
            ..Self::default()
        }
    }
}

/// What of this a command uses.
#[derive(Debug)]
struct Common {
    routes: PathBuf,
    store: Option<PathBuf>,
    aws: bool,
    replace: bool,
    stack: Option<String>,
}

impl Common {
    /// The deployed bridge that was named, if one was.
    async fn stack(&self) -> Result<Option<Stack>, Usage> {
        match &self.stack {
            Some(name) => Ok(Some(Stack::find(name).await?)),
            None => Ok(None),
        }
    }

    /// The same, of a command that does nothing without one.
    async fn wanted_stack(&self) -> Result<Stack, Usage> {
        self.stack().await?.ok_or_else(|| {
            Usage(
                "say which deployed bridge is meant: --stack NAME, or set BACKLOG_BRIDGE_STACK"
                    .into(),
            )
        })
    }
}

impl Given {
    /// With what stands before the command.
    fn or(self, before: Self) -> Self {
        Self {
            routes: self.routes.or(before.routes),
            store: self.store.or(before.store),
            aws: self.aws || before.aws,
            replace: self.replace || before.replace,
            stack: self.stack.or(before.stack),
        }
    }

    /// The options that are there.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.routes.is_some(), "--routes"),
            (self.store.is_some(), "--store"),
            (self.aws, "--aws"),
            (self.replace, "--replace"),
            (self.stack.is_some(), "--stack"),
        ]
        .into_iter()
        .filter_map(|(is_there, name)| is_there.then_some(name))
    }
}

impl From<GivenObjects> for Given {
    fn from(given: GivenObjects) -> Self {
        let GivenObjects {
            routes,
            store,
            aws,
            stack,
        } = given;
        Self {
            routes,
            store,
            aws,
            stack,
            ..Self::default()
        }
    }
}

impl From<GivenTable> for Given {
    fn from(GivenTable { routes, aws }: GivenTable) -> Self {
        Self {
            routes,
            aws,
            ..Self::default()
        }
    }
}

impl Cli {
    /// How results are written.
    fn manner(&self) -> out::Manner {
        let form = match &self.command {
            Command::Serve(options) => Some(options.form),
            Command::Invoke(options) => Some(options.form),
            Command::Sync(options) => Some(options.form),
            Command::Status(options) => Some(options.form),
            Command::History(options) => Some(options.form),
            Command::Verify(options) => Some(options.form),
            // They write the same everywhere.
            Command::Demo(_)
            | Command::Doctor(_)
            | Command::Logs(_)
            | Command::Redrive(_)
            | Command::Rollback(_)
            | Command::Pause(_)
            | Command::Resume(_)
            | Command::Results(_)
            | Command::Init(_)
            | Command::Connect(_)
            | Command::Routes(_)
            | Command::Webhook(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        };
        let Look {
            quiet,
            verbose,
            color,
        } = self.look;
        out::Manner {
            json: form.is_some_and(|form| form.json || !form.text && !out::is_read_by_people()),
            quiet,
            verbose,
            color,
        }
    }

    /// The options of the command, wherever they stand.
    fn common(&self, config: &Config) -> Result<Common, Usage> {
        const HERE: &[&str] = &["--routes", "--store", "--aws", "--replace"];
        const ALL: &[&str] = &["--routes", "--store", "--aws", "--replace", "--stack"];
        const OBJECTS: &[&str] = &["--routes", "--store", "--aws", "--stack"];
        let (given, uses) = match &self.command {
            Command::Demo(options) => (options.given(), &["--store"][..]),
            Command::Serve(options) => (options.given.clone(), HERE),
            Command::Invoke(options) => (options.given.clone(), HERE),
            Command::Sync(options) => (options.given.clone(), ALL),
            Command::Status(options) => (options.given.clone().into(), OBJECTS),
            Command::History(options) => (options.given.clone().into(), OBJECTS),
            Command::Verify(options) => (options.given.clone().into(), OBJECTS),
            Command::Doctor(options) => (options.given(), &["--routes", "--aws", "--stack"][..]),
            Command::Logs(options) => ((&options.deployed).into(), &["--stack"][..]),
            Command::Redrive(options) => ((&options.deployed).into(), &["--stack"][..]),
            Command::Rollback(options) => ((&options.deployed).into(), &["--stack"][..]),
            Command::Pause(options) | Command::Resume(options) => {
                ((&options.deployed).into(), &["--stack"][..])
            }
            Command::Results(options) => ((&options.deployed).into(), &["--stack"][..]),
            Command::Routes(command) => (command.given(), command.uses()),
            Command::Webhook(command) => (command.given(), command.uses()),
            Command::Completions(_) | Command::Man(_) => (Given::default(), &[][..]),
            Command::Init(options) => (options.given(), &["--routes"][..]),
            Command::Connect(options) => (options.given(), &["--routes", "--stack"][..]),
        };
        let mut names = self.before.names().chain(given.names());
        if let Some(name) = names.find(|name| !uses.contains(name)) {
            return Err(Usage(format!("this command does not use {name}; drop it")));
        }
        drop(names);
        // Where the table is what it stores.
        let keeps_table = matches!(&self.command, Command::Routes(_));
        let Given {
            routes,
            store,
            aws,
            replace,
            stack,
        } = given.or(self.before.clone());
        if stack.is_some() && routes.is_some() && !keeps_table {
            return Err(Usage(
                "with --stack the routing table is the deployed one; drop --routes".into(),
            ));
        }
        // What is said here wins over what the environment says.
        let is_here = aws || store.is_some() || (routes.is_some() && !keeps_table);
        let is_elsewhere = is_here || !uses.contains(&"--stack");
        let stack = stack.or_else(|| config.stack.clone().filter(|_| !is_elsewhere));
        if stack.is_some() && (aws || store.is_some()) {
            return Err(Usage(
                "--stack has the deployed bridge deliver, --aws and --store deliver from here; drop one".into(),
            ));
        }
        if aws && store.is_some() {
            return Err(Usage(
                "--aws and --store name two places to deliver to; drop one".into(),
            ));
        }
        if replace && !aws {
            return Err(Usage(
                "--replace is for --aws: a store of your own is always replaced".into(),
            ));
        }
        Ok(Common {
            routes: routes.unwrap_or_else(|| "routes.toml".into()),
            store,
            aws,
            replace,
            stack,
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole way of a push on this machine: no account, no configuration.
    Demo(demo::Options),
    /// Run the whole bridge here: take webhooks over HTTP, deliver, and look every 15 minutes for what was missed.
    Serve(serve::Options),
    /// Handle one event from a file, as the bridge would: a webhook's body, or an event of a Lambda function.
    Invoke(invoke::Options),
    /// Bring the objects of all routes, or of those named, to the tips of their refs.
    Sync(sync::Options),
    /// Say of each object whether it holds what its ref points to.
    Status(status::Options),
    /// List the versions of an object: which commit each holds, who wrote it, and when it was delivered.
    History(history::Options),
    /// Read objects, or a downloaded zip, from the first byte to the last: are they exactly the commits they say they are?
    Verify(verify::Options),
    /// Look at every hop of a push, and tell what is wrong with what to do.
    Doctor(doctor::Options),
    /// Show what a deployed bridge has done, as its functions have logged it.
    Logs(logs::Options),
    /// Send the jobs that a deployed bridge gave up back to its queue.
    Redrive(redrive::Options),
    /// Have a pipeline go back to an earlier version of its object.
    Rollback(rollback::Options),
    /// Stop the deliveries of a route of a deployed bridge.
    Pause(pause::Options),
    /// Let a paused route go on.
    Resume(pause::Options),
    /// Write the first routing table: ask for the space, the repository and the branch, and try the login.
    Init(init::Options),
    /// Make a deployed bridge deliver: try and store the login, store the routing table, wait for the first objects.
    Connect(connect::Options),
    /// Have a deployed bridge look again at what Backlog should show of pipelines.
    Results(results::Options),
    /// Look at the routing table, and give it to a deployed bridge.
    #[command(subcommand)]
    Routes(routes::Command),
    /// Register the bridge's webhooks with the projects of Backlog, list, test and remove them, and turn their token.
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Print what makes a shell complete commands and options.
    Completions(completions::Options),
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man(manual::Options),
}

/// Why the command line stops: wrong usage or configuration, in one or more lines.
#[derive(Debug)]
struct Usage(String);

impl<E: std::error::Error + 'static> From<E> for Usage {
    fn from(err: E) -> Self {
        Self(chain(&err))
    }
}

/// Whether everything went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    WithFailures,
}

impl Ended {
    fn and(self, failed: bool) -> Self {
        if failed { Self::WithFailures } else { self }
    }
}

pub(crate) fn run() -> ExitCode {
    let cli = parse();
    out::begin(cli.manner());
    let ended = Config::from_vars(|name| std::env::var(name).ok())
        .map_err(Usage::from)
        .and_then(|config| {
            let common = cli.common(&config)?;
            let is_whole = config.log_level == tracing::Level::DEBUG;
            telemetry::start_at_terminal(config.log_level, move || out::Log { is_whole });
            let runtime = tokio::runtime::Runtime::new().map_err(Usage::from)?;
            let ended = runtime.block_on(async {
                // A file that may not grow any more is an error of who writes it, and not the end of the process.
                let _limit = signal(SignalKind::from_raw(SIGXFSZ));
                tokio::select! {
                    biased;
                    () = out::unread() => Ok(Ended::WithFailures),
                    ended = dispatch(cli.command, &common, &config) => ended,
                }
            });
            // A blocked read of a Git server that was given up must not hold the process.
            runtime.shutdown_background();
            ended
        });
    let code = match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::WithFailures) => ExitCode::from(1),
        Err(Usage(why)) => {
            note!("backlog-bridge: {why}");
            ExitCode::from(2)
        }
    };
    out::finish();
    code
}

/// What can be said, as help, shells and the manual show it.
fn command() -> clap::Command {
    // They are shown where they are used.
    let hidden = ["routes", "store", "aws", "replace", "stack"].into_iter();
    let command = hidden.fold(Cli::command(), |command, name| {
        command.mut_arg(name, |argument| argument.hide(true))
    });
    // They deliver here.
    ["serve", "invoke"]
        .into_iter()
        .fold(command, |command, name| {
            command.mut_subcommand(name, |command| {
                command.mut_arg("stack", |argument| argument.hide(true))
            })
        })
}

/// Reads the arguments.
fn parse() -> Cli {
    Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|err| err.exit())
}

async fn dispatch(command: Command, common: &Common, config: &Config) -> Result<Ended, Usage> {
    match command {
        Command::Demo(options) => demo::run(options, common, config).await,
        Command::Serve(options) => Box::pin(serve::run(options, common, config)).await,
        Command::Invoke(options) => Box::pin(invoke::run(options, common, config)).await,
        Command::Sync(options) => Box::pin(sync::run(options, common, config)).await,
        Command::Status(options) => Box::pin(status::run(options, common, config)).await,
        Command::History(options) => Box::pin(history::run(options, common, config)).await,
        Command::Verify(options) => Box::pin(verify::run(options, common, config)).await,
        Command::Doctor(options) => Box::pin(doctor::run(options, common, config)).await,
        Command::Logs(options) => logs::run(options, common).await,
        Command::Redrive(options) => redrive::run(options, common).await,
        Command::Rollback(options) => Box::pin(rollback::run(options, common, config)).await,
        Command::Pause(options) => pause::run(options, true, common).await,
        Command::Resume(options) => pause::run(options, false, common).await,
        Command::Init(options) => ask::interruptible(init::run(options, common)).await,
        Command::Connect(options) => {
            ask::interruptible(connect::run(options, common, config)).await
        }
        Command::Results(options) => results::run(options, common).await,
        Command::Routes(command) => routes::run(command, common, config).await,
        Command::Webhook(command) => Box::pin(webhook::run(command, common, config)).await,
        Command::Completions(options) => Ok(completions::run(&options)),
        Command::Man(options) => manual::run(&options),
    }
}
