//! `routes`: what the routing table says, and the one that a deployed bridge reads.

use std::{
    io::{BufRead, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use backlog_bridge::{
    bucket::{Address, Condition, Found, S3},
    config::{Config, Location},
    plain,
    push::{RefName, RepositoryName},
    route::{
        Clashes, Explanation, MAX_CLASHES, MAX_COMPARISONS, Match, Origin, ROUTES_KEY, Route,
        RouteTable, Sweep,
    },
};
use similar::TextDiff;

use super::{
    Common, Ended, GivenTable, Usage, out,
    setup::{read, table},
};

/// What a routing table can be begun with.
const EXAMPLE: &str = include_str!("../../routes.example.toml");

/// How many oddities of a table are told.
const TOLD: usize = 20;

/// How alike two names have to be for one to be meant by the other.
const ALIKE: f32 = 0.7;

/// How long the shortest difference between two tables is looked for. After that a longer one is shown.
const DIFF_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read the routing table, name every fault with its line, and list what it delivers.
    #[command(
        after_help = "It needs no network. Exit status: 0 the table can be used, 2 it cannot."
    )]
    Check {
        #[command(flatten)]
        given: GivenTable,
    },
    /// Say which routes take a ref and which object each writes; and of the others, why not.
    #[command(after_help = "Exit status: 0 a route takes the ref, 1 none does.\n\n\
        Examples:\n  backlog-bridge routes explain APP/web refs/heads/main\n  \
        backlog-bridge routes explain APP/web main")]
    Explain {
        /// The repository, as PROJECT/repository.
        repository: RepositoryName,
        /// The ref, as refs/heads/main. A name that does not begin with refs/ is taken for a branch and for a tag.
        #[arg(value_name = "REF")]
        ref_name: String,
        #[command(flatten)]
        given: GivenTable,
    },
    /// Print a routing table to begin with, in which every line is explained.
    #[command(after_help = "Example:\n  backlog-bridge routes example > routes.toml")]
    Example,
    /// Give a routing table to the deployed bridge: check it, show what changes, ask, and store it.
    #[command(
        after_help = "It is stored only if nobody else has stored another one meanwhile. It counts for the next push.\n\n\
        Examples:\n  SOURCE_BUCKET=example-sources backlog-bridge routes push\n  \
        backlog-bridge routes push staging.toml --yes \\\n    \
        --at s3://example-sources/config/routes.toml"
    )]
    Push {
        /// The routing table [default: routes.toml].
        file: Option<PathBuf>,
        /// The same, as for other commands.
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        routes: Option<PathBuf>,
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

impl Command {
    /// What was said about the routing table here.
    pub(super) fn given(&self) -> GivenTable {
        match self {
            Self::Check { given } | Self::Explain { given, .. } => given.clone(),
            Self::Push { file, routes, .. } => GivenTable {
                routes: file.clone().or_else(|| routes.clone()),
                aws: false,
            },
            Self::Pull { .. } | Self::Example => GivenTable::default(),
        }
    }

    /// Which of the options that stand before the command it can use.
    pub(super) fn uses(&self) -> &'static [&'static str] {
        match self {
            Self::Check { .. } | Self::Explain { .. } => &["--routes", "--aws"],
            Self::Push { .. } => &["--routes"],
            Self::Pull { .. } | Self::Example => &[],
        }
    }
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
        Command::Push { deployed, yes, .. } => {
            push(&common.routes, &deployed.location(config)?, yes, config).await
        }
        Command::Pull { deployed } => pull(&deployed.location(config)?).await,
        Command::Check { .. } => {
            let table = table(common, config)?;
            let name = common.routes.display().to_string();
            look_over(&name, &table, Origin::CommandLine)?;
            for route in table.routes() {
                say!("{}", describe(route));
            }
            let routes = plain::count(table.routes().len(), "route", "routes");
            note!("{name}: OK, {routes}");
            Ok(Ended::Well)
        }
        Command::Explain {
            repository,
            ref_name,
            ..
        } => explain(&table(common, config)?, &repository, &ref_name),
        Command::Example => {
            out::file(EXAMPLE);
            Ok(Ended::Well)
        }
    }
}

fn explain(table: &RouteTable, repository: &RepositoryName, text: &str) -> Result<Ended, Usage> {
    let refs = refs(text)?;
    let writes = |explanation: &Explanation| matches!(explanation.outcome, Match::Writes { .. });
    let all = refs
        .iter()
        .map(|name| (name, table.explain(repository, name)));
    let (taken, others): (Vec<_>, Vec<_>) = all.partition(|(_, all)| all.iter().any(writes));
    let is_taken = !taken.is_empty();
    // Of names that nobody takes, the first stands for all.
    let shown = if is_taken { &taken[..] } else { &others[..1] };
    for (name, explanations) in shown {
        if refs.len() > 1 {
            note!("{name}:");
        }
        for explanation in explanations {
            say!("{explanation}");
        }
    }
    if is_taken {
        return Ok(Ended::Well);
    }
    let names: Vec<_> = refs.iter().map(RefName::as_str).collect();
    let mut known: Vec<_> = table
        .routes()
        .iter()
        .map(|route| route.repository().as_str())
        .collect();
    let meant = if known.contains(&repository.as_str()) {
        None
    } else {
        known.sort_unstable();
        known.dedup();
        nearest(repository.as_str(), &known).map(|near| format!("; did you mean {near}?"))
    };
    note!(
        "no route delivers {repository} {}{}",
        names.join(" or "),
        meant.unwrap_or_default()
    );
    Ok(Ended::WithFailures)
}

/// The refs that somebody may mean.
pub(super) fn refs(text: &str) -> Result<Vec<RefName>, Usage> {
    if text.starts_with("refs/") {
        return Ok(vec![text.parse()?]);
    }
    let folders: &[&str] = if text.starts_with("heads/") || text.starts_with("tags/") {
        &["refs/", "refs/heads/", "refs/tags/"]
    } else {
        &["refs/heads/", "refs/tags/"]
    };
    let names = folders
        .iter()
        .map(|folder| format!("{folder}{text}").parse());
    names.collect::<Result<_, _>>().map_err(|_| {
        Usage(format!(
            "expected a ref as refs/heads/main or main, found {text:?}"
        ))
    })
}

/// The name that was probably meant, if one is near.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let small: Vec<_> = known.iter().map(|known| known.to_lowercase()).collect();
    let all: Vec<_> = small.iter().map(String::as_str).collect();
    let near = similar::get_close_matches(name.to_lowercase().as_str(), &all, 1, ALIKE);
    let at = all.iter().position(|known| Some(known) == near.first())?;
    Some(known[at])
}

/// Refuses a table that cannot work, or in which one route would keep another from its object; and warns of what is odd, or
/// of refs of one repository that can meet. A bridge that runs takes such a table all the same: it may have been stored
/// before there was this check.
fn look_over(file: &str, table: &RouteTable, origin: Origin) -> Result<(), Usage> {
    let doubts = table.doubts(origin).into_iter();
    let doubts = doubts.map(|doubt| (doubt.line, doubt.refused, doubt.text));
    let Clashes { found, complete } = table.clashes();
    let clashes = found.into_iter().map(|clash| {
        let mut text = clash.to_string();
        if !clash.refused {
            text += "; whichever comes second fails with key_conflict";
        }
        (clash.later.line, clash.refused, text)
    });
    let mut all: Vec<_> = doubts.chain(clashes).collect();
    all.sort_by_key(|(line, ..)| *line);
    let (refused, odd): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, refused, _)| *refused);
    for line in first_lines(file, odd) {
        note!("warning: {line}");
    }
    if !complete {
        note!(
            "warning: not all keys were compared: the check ends after {MAX_COMPARISONS} comparisons or {MAX_CLASHES} clashes"
        );
    }
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Usage(first_lines(file, refused).join("\n")))
    }
}

fn first_lines(file: &str, found: Vec<(usize, bool, String)>) -> Vec<String> {
    let more = found.len().saturating_sub(TOLD);
    let lines = found.into_iter().take(TOLD);
    let mut lines: Vec<_> = lines
        .map(|(line, _, text)| format!("{file}:{line}: {text}"))
        .collect();
    if more > 0 {
        lines.push(format!("{file}: and {more} more"));
    }
    lines
}

fn describe(route: &Route) -> String {
    let sweep = match route.sweep() {
        Sweep::All => "all",
        Sweep::Existing => "existing",
    };
    format!(
        "{}: {} {} -> s3://{}/{} (sweep: {sweep}{})",
        route.name(),
        route.repository(),
        route.pattern(),
        route.bucket(),
        route.object(),
        if route.is_paused() { "; paused" } else { "" },
    )
}

/// The routes of these names, or all of them.
pub(super) fn chosen<'a>(table: &'a RouteTable, names: &[String]) -> Result<Vec<&'a Route>, Usage> {
    let routes = table.routes();
    if names.is_empty() {
        return Ok(routes.iter().collect());
    }
    let named = names.iter().map(|name| {
        table.route(name).ok_or_else(|| {
            let known: Vec<_> = routes.iter().map(Route::name).collect();
            let meant = nearest(name, &known).map(|near| format!("; did you mean {near}?"));
            Usage(format!(
                "no route is named {name:?}{}\nknown routes: {}",
                meant.unwrap_or_default(),
                known.join(", ")
            ))
        })
    });
    named.collect()
}

/// The routes of these that take a ref that somebody named, and the ref.
pub(super) fn taking<'a>(
    routes: &[&'a Route],
    text: &str,
) -> Result<(Vec<&'a Route>, RefName), Usage> {
    let names = refs(text)?;
    for name in &names {
        let taking = routes.iter().filter(|route| route.pattern().matches(name));
        let taking: Vec<_> = taking.copied().collect();
        if !taking.is_empty() {
            return Ok((taking, name.clone()));
        }
    }
    let names: Vec<_> = names.iter().map(RefName::as_str).collect();
    let patterns: Vec<_> = routes
        .iter()
        .map(|route| route.pattern().as_str())
        .collect();
    Err(Usage(format!(
        "no route takes {}; there are {}",
        names.join(" or "),
        patterns.join(", ")
    )))
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

async fn push(file: &Path, at: &Location, yes: bool, config: &Config) -> Result<Ended, Usage> {
    let name = file.display().to_string();
    let (text, _) = read(file)?;
    // The template keeps the table in the source bucket.
    let bucket = config.source_bucket.as_deref().unwrap_or(&at.bucket);
    let parse =
        |name: &str, text: &str| RouteTable::parse(name, text, Some(bucket), Origin::Deployed);
    let new = parse(&name, &text)?;
    look_over(&name, &new, Origin::Deployed)?;
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
        return Err(Usage(
            "not a terminal; pass --yes to store without asking".into(),
        ));
    }
    out::ask(format_args!("\nStore this as {at}? [y/N]"));
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
