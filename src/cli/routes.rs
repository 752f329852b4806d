//! `routes`: what the routing table says; `deployed` has the one that a deployed bridge reads.

pub(super) mod deployed;

use std::path::PathBuf;

use backlog_bridge::{
    config::Config,
    plain,
    push::{RefName, RepositoryName},
    route::{
        Clashes, Explanation, MAX_CLASHES, MAX_COMPARISONS, Match, Origin, Route, RouteTable,
        Sweep, schema,
    },
};

use self::deployed::Deployed;
use super::{Common, Ended, Given, GivenTable, Usage, out, setup::table};

/// What a routing table can be begun with.
const EXAMPLE: &str = include_str!("../../routes.example.toml");

/// How many oddities of a table are told.
const TOLD: usize = 20;

/// How alike two names have to be for one to be meant by the other.
const ALIKE: f32 = 0.7;

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
    /// Print a JSON Schema of the routing table, with which an editor completes and checks it.
    #[command(
        after_help = "An editor with support for TOML finds it by the first line of the table:\n\n  \
        #:schema ./routes.schema.json\n\nExample:\n  backlog-bridge routes schema > routes.schema.json"
    )]
    Schema,
    /// Give a routing table to the deployed bridge: check it, show what changes, ask, and store it.
    #[command(
        after_help = "It is stored only if nobody else has stored another one meanwhile. It counts for the next push.\n\n\
        Examples:\n  backlog-bridge routes push --stack backlog-bridge\n  \
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
        /// Store fields too that older functions do not know, without asking the functions.
        #[arg(long)]
        allow_newer: bool,
    },
    /// Print the routing table of the deployed bridge.
    #[command(after_help = "Example:\n  \
        backlog-bridge routes pull --stack backlog-bridge > routes.toml")]
    Pull {
        #[command(flatten)]
        deployed: Deployed,
    },
}

impl Command {
    /// What was said here of what several commands have.
    pub(super) fn given(&self) -> Given {
        match self {
            Self::Check { given } | Self::Explain { given, .. } => given.clone().into(),
            Self::Push {
                file,
                routes,
                deployed,
                ..
            } => Given {
                routes: file.clone().or_else(|| routes.clone()),
                stack: deployed.stack.clone(),
                ..Given::default()
            },
            Self::Pull { deployed } => Given {
                stack: deployed.stack.clone(),
                ..Given::default()
            },
            Self::Example | Self::Schema => Given::default(),
        }
    }

    /// Which of the options that stand before the command it can use.
    pub(super) fn uses(&self) -> &'static [&'static str] {
        match self {
            Self::Check { .. } | Self::Explain { .. } => &["--routes", "--aws"],
            Self::Push { .. } => &["--routes", "--stack"],
            Self::Pull { .. } => &["--stack"],
            Self::Example | Self::Schema => &[],
        }
    }
}

pub(super) async fn run(
    command: Command,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    match command {
        Command::Push {
            deployed,
            yes,
            allow_newer,
            ..
        } => {
            let mut place = deployed.place(common, config).await?;
            if allow_newer {
                place.knows = deployed::Knows::Whatever;
            }
            deployed::push(&common.routes, &place, yes).await
        }
        Command::Pull { deployed } => deployed::pull(&deployed.place(common, config).await?).await,
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
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&schema())?;
            out::file(&format!("{schema}\n"));
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
pub(super) fn look_over(file: &str, table: &RouteTable, origin: Origin) -> Result<(), Usage> {
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
    let found = names.iter().map(|name| {
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
    found.collect()
}

/// The ref of a route that is meant: the one that it has, or the one that somebody named.
pub(super) fn ref_of(route: &Route, named: Option<&str>) -> Result<RefName, Usage> {
    match (named, route.pattern().exact()) {
        (Some(text), _) => Ok(taking(&[route], text)?.1),
        (None, Some(exact)) => Ok(exact.clone()),
        (None, None) => Err(Usage(format!(
            "the route {} takes several refs; name one with --ref",
            route.name()
        ))),
    }
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
