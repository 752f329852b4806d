//! The command line: one file a subcommand. It prints; it knows no Git and no S3.

/// Like `println!`, for lines that programs read.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::say(format_args!($($text)*)) };
}

/// Like `eprintln!`, for what people read.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::out::note(format_args!($($text)*)) };
}

mod completions;
mod demo;
mod invoke;
mod manual;
mod out;
mod report;
mod routes;
mod serve;
mod setup;
mod sync;

use std::{path::PathBuf, process::ExitCode};

use backlog_bridge::{config::Config, error::chain, telemetry};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
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
    stdout: of sync, invoke and serve, one JSON line for each object; of the others, text. stderr: progress and summaries \
    for people.\n\
    Environment: SOURCE_BUCKET (default bucket), WEBHOOK_TOKEN (serve), MAX_ENTRIES, MAX_TREE_BYTES, MAX_BLOB_BYTES, \
    MAX_PACK_BYTES, LOW_SPEED_BYTES, LOW_SPEED_SECONDS, DELIVERY_SECONDS (sync, invoke), LOG_LEVEL."
)]
struct Cli {
    /// The options of a command may stand before it, too.
    #[command(flatten)]
    before: Given,
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

/// What of this a command uses.
#[derive(Debug)]
struct Common {
    routes: PathBuf,
    store: Option<PathBuf>,
    aws: bool,
    replace: bool,
}

impl Given {
    /// With what stands before the command.
    fn or(self, before: Self) -> Self {
        Self {
            routes: self.routes.or(before.routes),
            store: self.store.or(before.store),
            aws: self.aws || before.aws,
            replace: self.replace || before.replace,
        }
    }

    /// The options that are there.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.routes.is_some(), "--routes"),
            (self.store.is_some(), "--store"),
            (self.aws, "--aws"),
            (self.replace, "--replace"),
        ]
        .into_iter()
        .filter_map(|(is_there, name)| is_there.then_some(name))
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
    /// The options of the command, wherever they stand.
    fn common(&self) -> Result<Common, Usage> {
        const ALL: &[&str] = &["--routes", "--store", "--aws", "--replace"];
        let (given, uses) = match &self.command {
            Command::Demo(options) => (options.given(), &["--store"][..]),
            Command::Serve(options) => (options.given.clone(), ALL),
            Command::Invoke(options) => (options.given.clone(), ALL),
            Command::Sync(options) => (options.given.clone(), ALL),
            Command::Routes(command) => (command.given().into(), command.uses()),
            Command::Completions(_) | Command::Man(_) => (Given::default(), &[][..]),
        };
        if let Some(name) = self.before.names().find(|name| !uses.contains(name)) {
            return Err(Usage(format!("this command does not use {name}; drop it")));
        }
        let Given {
            routes,
            store,
            aws,
            replace,
        } = given.or(self.before.clone());
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
    /// Look at the routing table, and give it to a deployed bridge.
    #[command(subcommand)]
    Routes(routes::Command),
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
    let ended = Config::from_vars(|name| std::env::var(name).ok())
        .map_err(Usage::from)
        .and_then(|config| {
            let common = cli.common()?;
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
    let hidden = ["routes", "store", "aws", "replace"].into_iter();
    hidden.fold(Cli::command(), |command, name| {
        command.mut_arg(name, |argument| argument.hide(true))
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
        Command::Sync(options) => sync::run(options, common, config).await,
        Command::Routes(command) => routes::run(command, common, config).await,
        Command::Completions(options) => Ok(completions::run(&options)),
        Command::Man(options) => manual::run(&options),
    }
}
