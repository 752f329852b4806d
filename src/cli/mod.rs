//! The command line: one file a subcommand. It prints; it knows no Git and no S3.

/// Like `println!`, for lines that programs read.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::say(format_args!($($text)*)) };
}

/// Like `eprintln!`, for what people read.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::out::note(format_args!($($text)*)) };
}

mod demo;
mod invoke;
mod out;
mod report;
mod routes;
mod serve;
mod setup;
mod sync;

use std::{path::PathBuf, process::ExitCode};

use backlog_bridge::{config::Config, error::chain, telemetry};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// A file would be larger than `ulimit -f` allows: 25 on Linux and macOS.
const SIGXFSZ: i32 = 25;

/// Delivers Git repositories on Nulab Backlog to AWS CodePipeline: a push becomes a new version of a zip object in S3.
///
/// Try it without an account: backlog-bridge demo
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 nothing failed, 1 something failed, 2 wrong usage or configuration.\n\
    stdout: one JSON line for each object. stderr: progress and a summary for people.\n\
    Environment: SOURCE_BUCKET (default bucket), WEBHOOK_TOKEN (serve), MAX_ENTRIES, MAX_TREE_BYTES, MAX_BLOB_BYTES, MAX_PACK_BYTES, LOW_SPEED_BYTES, LOW_SPEED_SECONDS, DELIVERY_SECONDS (sync, invoke), LOG_LEVEL."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Common {
    /// The routing table: which refs are delivered to which objects.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "routes.toml"
    )]
    routes: PathBuf,
    /// Deliver into this folder, as an embedded S3 [default: backlog-bridge-store; demo: a temporary one].
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "aws")]
    store: Option<PathBuf>,
    /// Deliver to AWS S3, as the SDK is configured: profile, region, endpoint.
    #[arg(long, global = true)]
    aws: bool,
    /// With --aws: replace objects too that hold what this routing table does not deliver there.
    #[arg(long, global = true, requires = "aws")]
    replace: bool,
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
    let cli = Cli::parse();
    let ended = Config::from_vars(|name| std::env::var(name).ok())
        .map_err(Usage::from)
        .and_then(|config| {
            let is_whole = config.log_level == tracing::Level::DEBUG;
            telemetry::start_at_terminal(config.log_level, move || out::Log { is_whole });
            let runtime = tokio::runtime::Runtime::new().map_err(Usage::from)?;
            let ended = runtime.block_on(async {
                // A file that may not grow any more is an error of who writes it, and not the end of the process.
                let _limit = signal(SignalKind::from_raw(SIGXFSZ));
                tokio::select! {
                    biased;
                    () = out::unread() => Ok(Ended::WithFailures),
                    ended = dispatch(cli, &config) => ended,
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

async fn dispatch(cli: Cli, config: &Config) -> Result<Ended, Usage> {
    match cli.command {
        Command::Demo(options) => demo::run(options, &cli.common, config).await,
        Command::Serve(options) => Box::pin(serve::run(options, &cli.common, config)).await,
        Command::Invoke(options) => Box::pin(invoke::run(options, &cli.common, config)).await,
        Command::Sync(options) => sync::run(options, &cli.common, config).await,
        Command::Routes(command) => routes::run(command, &cli.common, config).await,
    }
}
