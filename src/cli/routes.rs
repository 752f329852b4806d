//! `routes`: what the routing table says, and the one that a deployed bridge reads.

use std::{
    io::{BufRead, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use backlog_bridge::{
    bucket::{Address, Condition, Found, S3},
    config::{Config, Location},
    push::{RefName, RepositoryName},
    route::{
        Clashes, CredentialsSource, MAX_CLASHES, MAX_COMPARISONS, Origin, ROUTES_KEY, Route,
        RouteTable, Sweep, Verdict,
    },
};
use similar::TextDiff;

use super::{Common, Ended, Usage, out, setup::table};

/// How long the shortest difference between two tables is looked for. After that a longer one is shown.
const DIFF_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read the routing table, name every fault with its line, and list what it delivers.
    Check,
    /// Say which routes take a ref and which object each writes; and of the others, why not.
    #[command(after_help = "Example:\n  backlog-bridge routes explain APP/web refs/heads/main")]
    Explain {
        /// The repository, as PROJECT/repository.
        repository: RepositoryName,
        /// The ref in full, as refs/heads/main.
        #[arg(value_name = "REF")]
        ref_name: RefName,
    },
    /// Give a routing table to the deployed bridge: check it, show what changes, ask, and store it.
    #[command(
        after_help = "It is stored only if nobody else has stored another one meanwhile. It counts for the next push.\n\n\
        Examples:\n  SOURCE_BUCKET=example-sources backlog-bridge routes push\n  \
        backlog-bridge routes push staging.toml --at s3://example-sources/config/routes.toml --yes"
    )]
    Push {
        /// The routing table [default: --routes].
        file: Option<PathBuf>,
        #[command(flatten)]
        deployed: Deployed,
        /// Store it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Print the routing table of the deployed bridge.
    #[command(after_help = "Example:\n  \
        SOURCE_BUCKET=example-sources backlog-bridge routes pull > routes.toml")]
    Pull {
        #[command(flatten)]
        deployed: Deployed,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Deployed {
    /// Where the deployed bridge reads its table [default: `config/routes.toml` in `SOURCE_BUCKET`].
    #[arg(long, value_name = "S3_URL")]
    at: Option<Location>,
}

impl Deployed {
    fn location(self, config: &Config) -> Result<Location, Usage> {
        let of_bucket = |bucket: &String| Location {
            bucket: bucket.clone(),
            key: ROUTES_KEY.into(),
        };
        self.at
            .or_else(|| config.source_bucket.as_ref().map(of_bucket))
            .ok_or_else(|| {
                Usage("say where the routing table is: set SOURCE_BUCKET, or --at s3://bucket/config/routes.toml".into())
            })
    }
}

pub(super) async fn run(
    command: Command,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    match command {
        Command::Push {
            file,
            deployed,
            yes,
        } => {
            let file = file.unwrap_or_else(|| common.routes.clone());
            push(file, &deployed.location(config)?, yes, config).await
        }
        Command::Pull { deployed } => pull(&deployed.location(config)?).await,
        Command::Check => {
            let table = table(common, config)?;
            check_keys(&common.routes.display().to_string(), &table)?;
            for route in table.routes() {
                say!("{}", describe(route));
            }
            note!(
                "{} is well; routes: {}",
                common.routes.display(),
                table.routes().len()
            );
            Ok(Ended::Well)
        }
        Command::Explain {
            repository,
            ref_name,
        } => {
            let table = table(common, config)?;
            let explanations = table.explain(&repository, &ref_name);
            let mut taken = false;
            for explanation in &explanations {
                say!("{explanation}");
                taken |= matches!(explanation.verdict, Verdict::Writes { .. });
            }
            if !taken {
                note!("no route delivers {repository} {ref_name}");
            }
            Ok(Ended::Well)
        }
    }
}

/// Refuses a table in which one route would keep another from its object, and warns of refs of one repository that can
/// meet. A bridge that runs takes such a table all the same: it may have been stored before there was this check.
fn check_keys(file: &str, table: &RouteTable) -> Result<(), Usage> {
    let Clashes { found, complete } = table.clashes();
    let mut refused = Vec::new();
    for clash in found {
        let text = format!("{file}:{}: {clash}", clash.later.line);
        if clash.refused {
            refused.push(text);
        } else {
            note!("warning: {text}; whichever comes second fails with key_conflict");
        }
    }
    if !complete {
        note!(
            "warning: not all keys were compared: the check ends after {MAX_COMPARISONS} comparisons or {MAX_CLASHES} clashes"
        );
    }
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Usage(refused.join("\n")))
    }
}

fn describe(route: &Route) -> String {
    let sweep = match route.sweep() {
        Sweep::All => "all",
        Sweep::Existing => "existing",
    };
    format!(
        "{}: {} {} -> s3://{}/{} (sweep: {sweep})",
        route.name(),
        route.repository(),
        route.pattern(),
        route.bucket(),
        route.object(),
    )
}

fn address(at: &Location) -> Address<'_> {
    Address {
        bucket: &at.bucket,
        key: &at.key,
    }
}

async fn pull(at: &Location) -> Result<Ended, Usage> {
    match S3::from_environment().await.text(address(at), None).await? {
        Found::Text { text, .. } => {
            out::file(&text);
            Ok(Ended::Well)
        }
        Found::NoText { why, .. } => Err(Usage(format!("cannot read {at}: {why}"))),
        Found::Missing | Found::Deleted | Found::Same => {
            note!("there is no routing table at {at} yet; store one with routes push");
            Ok(Ended::WithFailures)
        }
    }
}

async fn push(file: PathBuf, at: &Location, yes: bool, config: &Config) -> Result<Ended, Usage> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(&file)
        .map_err(|err| Usage(format!("cannot read the routing table {name}: {err}")))?;
    // The template keeps the table in the source bucket.
    let bucket = config.source_bucket.as_deref().unwrap_or(&at.bucket);
    let parse =
        |name: &str, text: &str| RouteTable::parse(name, text, Some(bucket), Origin::Deployed);
    let new = parse(&name, &text)?;
    check_keys(&name, &new)?;
    let s3 = S3::from_environment().await;
    // What is of no use is replaced like anything else, unless somebody was faster.
    let (stored, condition) = match s3.text(address(at), None).await? {
        Found::Text { text, etag } => (Ok(Some(text)), Condition::Unchanged(etag)),
        Found::NoText { why, etag } => (Err(why), Condition::Unchanged(etag)),
        Found::Missing | Found::Deleted | Found::Same => (Ok(None), Condition::Absent),
    };
    if matches!(&stored, Ok(Some(stored)) if *stored == text) {
        note!("{at} is this table already");
        return Ok(Ended::Well);
    }
    // What no bridge can read must not stay there for that: it is replaced as if it held no route.
    let (old_text, old) = match stored {
        Ok(None) => (String::new(), None),
        Ok(Some(stored)) => match parse(&at.to_string(), &stored) {
            Ok(old) => (stored, Some(old)),
            Err(fault) => {
                note!(
                    "the table that is stored is wrong, so all routes are shown as new:\n{fault}\n"
                );
                (stored, None)
            }
        },
        Err(fault) => {
            note!(
                "the table that is stored cannot be read, so all routes are shown as new: {fault}\n"
            );
            (String::new(), None)
        }
    };
    let diff = TextDiff::configure()
        .timeout(DIFF_WITHIN)
        .diff_lines(&old_text, &text);
    let diff = diff
        .unified_diff()
        .header(&at.to_string(), &name)
        .to_string();
    note!("{}", diff.trim_end());
    note!("\nWhat changes:");
    for change in changes(old.as_ref(), &new) {
        note!("  {change}");
    }
    for space in new.spaces() {
        if let CredentialsSource::Env { prefix } = space.credentials() {
            note!(
                "warning: {} reads its login from {prefix}_USERNAME and {prefix}_PASSWORD, which the deployed functions \
                 do not have; use \"secret:NAME\"",
                space.url()
            );
        }
    }
    if !yes && !confirmed(at)? {
        note!("nothing was stored");
        return Ok(Ended::WithFailures);
    }
    if s3.put_text(address(at), &text, &condition).await? {
        note!("stored as {at}; it counts for the next push");
        Ok(Ended::Well)
    } else {
        note!(
            "somebody else has changed {at} meanwhile, so nothing was stored; look at it with routes pull, and try again"
        );
        Ok(Ended::WithFailures)
    }
}

/// What each route does from now on, and which ones end.
fn changes(old: Option<&RouteTable>, new: &RouteTable) -> Vec<String> {
    let of = |table: &RouteTable| table.routes().iter().map(describe).collect::<Vec<_>>();
    let (old, new) = (old.map(of).unwrap_or_default(), of(new));
    let added = new.iter().filter(|route| !old.contains(route));
    let gone = old.iter().filter(|route| !new.contains(route));
    let added = added.map(|route| format!("+ {route}"));
    let gone = gone.map(|route| format!("- {route}"));
    let changes: Vec<_> = gone.chain(added).collect();
    if changes.is_empty() {
        vec!["no route".into()]
    } else {
        changes
    }
}

fn confirmed(at: &Location) -> Result<bool, Usage> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Usage("there is nobody to ask; say --yes".into()));
    }
    out::ask(format_args!("\nStore this as {at}? [y/N]"));
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
