//! `init`: the first routing table, from questions or flags. What can be tried is tried before it is written.

mod look;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use backlog_bridge::{
    push::{InvalidName, RepositoryName},
    route::{Draft, Origin, RouteTable},
    space::SpaceUrl,
};

use self::look::{Looked, pattern, repository, sight, wants_login};
pub(super) use self::look::{absent, login_of_environment};
use super::{
    Common, Ended, Given, Usage, ask,
    routes::look_over,
    setup::read,
    steps::{Became, Steps},
};

/// The secret that template.yaml makes, unless it is told another name.
const GIT_SECRET: &str = "backlog-bridge/git";

/// The bucket of a route that names none, while nobody knows it.
const ANY_BUCKET: &str = "any-bucket";

/// How often somebody may answer a question wrongly.
const TRIES: usize = 3;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It asks for what no option says, tries the login, looks whether the branch is there, and writes the file. A \
    password is not kept: `connect` asks for it and stores it where the bridge reads it. A file that is there already is not \
    replaced.\n\n\
    Examples:\n  backlog-bridge init\n  \
    backlog-bridge init --space example.backlog.com \\\n    --repository APP/web --ref main --yes\n  \
    backlog-bridge init --add --repository APP/api --ref 'refs/tags/v*'\n\n\
    Environment: BACKLOG_USERNAME and BACKLOG_PASSWORD, the login for Git; BACKLOG_ADMIN_API_KEY or BACKLOG_API_KEY, to list \
    the repositories."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option that is there or not"
)]
pub(super) struct Options {
    /// The space: its host, such as example.backlog.com, or the address of any of its pages.
    #[arg(long, value_name = "SPACE")]
    space: Option<String>,
    /// The repository, as PROJECT/repository.
    #[arg(long)]
    repository: Option<RepositoryName>,
    /// The branch, such as main; or any ref in full; with `*` for many.
    #[arg(long = "ref", value_name = "REF")]
    ref_name: Option<String>,
    /// The object [default: web/main.zip for APP/web and main].
    #[arg(long, value_name = "KEY")]
    object: Option<String>,
    /// The route's name [default: web-main].
    #[arg(long)]
    name: Option<String>,
    /// The secret that the bridge reads the login from: the stack's output `GitSecret`.
    #[arg(long, value_name = "NAME", default_value = GIT_SECRET)]
    secret: String,
    /// Add a route to a table that is there.
    #[arg(long)]
    add: bool,
    /// Ask nothing; the login is tried only if the environment has it.
    #[arg(long)]
    yes: bool,
    /// Show the table, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// A line of JSON for each step.
    #[arg(long)]
    json: bool,
    /// The file to write [default: routes.toml].
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
}

impl Options {
    pub(super) fn given(&self) -> Given {
        Given {
            routes: self.routes.clone(),
            ..Given::default()
        }
    }
}

/// A table that is there already.
struct Old {
    text: String,
    table: RouteTable,
}

pub(super) async fn run(options: Options, common: &Common) -> Result<Ended, Usage> {
    let mut steps = Steps::new(options.json);
    let asks = !options.yes && ask::is_somebody_there();
    let file = &common.routes;
    let old = old(file, &options)?;
    let (space, typed) = space(&options, asks, old.as_ref()).await?;
    steps.tell("space", Became::Well, &space.to_string());
    let repository = match (&options.repository, typed) {
        (Some(repository), _) => repository.clone(),
        (None, Some(repository)) => repository,
        (None, None) if asks => Box::pin(repository(&space, &mut steps)).await?,
        (None, None) => return Err(missing("--repository PROJECT/repository")),
    };
    if !asks && options.ref_name.is_none() {
        return Err(missing("--ref main"));
    }
    let sight = match Box::pin(sight(&space, &repository, asks, &mut steps)).await? {
        Looked::At(sight) => Some(sight),
        Looked::Nowhere => None,
        Looked::InVain => return Ok(steps.end()),
    };
    let pattern = pattern(&options, &repository, sight.as_ref(), asks, &mut steps).await?;
    let Some(pattern) = pattern else {
        return Ok(steps.end());
    };
    let draft = Draft {
        credentials: wants_login(&space).then(|| format!("secret:{}", options.secret)),
        name: (options.name).unwrap_or_else(|| Draft::name_for(&repository, &pattern)),
        object: (options.object).unwrap_or_else(|| Draft::object_for(&repository, &pattern)),
        space,
        repository,
        pattern,
    };
    write(
        file,
        old.as_ref(),
        options.add,
        &draft,
        options.dry_run,
        &mut steps,
    )?;
    let ended = steps.end();
    if ended == Ended::Well && !options.dry_run {
        steps.aside(&next(file, &draft));
    }
    Ok(ended)
}

fn missing(flag: &str) -> Usage {
    Usage(format!("not a terminal, or --yes: say {flag}"))
}

/// The table that is to be added to, or that may be what is asked for.
fn old(file: &Path, options: &Options) -> Result<Option<Old>, Usage> {
    if !file.try_exists()? {
        return if options.add {
            Err(Usage(format!(
                "there is no {} to add to; leave out --add",
                file.display()
            )))
        } else {
            Ok(None)
        };
    }
    let is_all_said = options.repository.is_some() && options.ref_name.is_some();
    if !options.add && !is_all_said {
        return Err(already(file));
    }
    let (text, _) = read(file)?;
    let name = file.display().to_string();
    let table = RouteTable::parse(&name, &text, Some(ANY_BUCKET), Origin::CommandLine)?;
    Ok(Some(Old { text, table }))
}

fn already(file: &Path) -> Usage {
    Usage(format!(
        "there is a {0} already, and it stays as it is; add a route to it with --add, or name another file with --routes",
        file.display()
    ))
}

/// Where the repositories are; with the repository, if the address that was typed names one.
async fn space(
    options: &Options,
    asks: bool,
    old: Option<&Old>,
) -> Result<(SpaceUrl, Option<RepositoryName>), Usage> {
    let parse = |text: &str| -> Result<_, String> {
        let (space, repository) = SpaceUrl::from_typed(text).map_err(|err| err.to_string())?;
        let repository = repository.map(|name| name.parse()).transpose();
        Ok((
            space,
            repository.map_err(|err: InvalidName| err.to_string())?,
        ))
    };
    if let Some(text) = &options.space {
        return parse(text).map_err(|why| Usage(format!("--space: {why}")));
    }
    if let Some([only]) = old.map(|old| old.table.spaces()) {
        return Ok((only.url().clone(), None));
    }
    if !asks {
        return Err(missing("--space example.backlog.com"));
    }
    again(async || {
        let text = ask::line("Space (such as example.backlog.com)", None).await?;
        Ok(parse(&text))
    })
    .await
}

/// Asks until the answer can be used, a few times.
async fn again<T>(
    question: impl AsyncFn() -> Result<Result<T, String>, Usage>,
) -> Result<T, Usage> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match question().await? {
            Ok(answer) => return Ok(answer),
            Err(why) => {
                note!("{why}");
                last = why;
            }
        }
    }
    Err(Usage(last))
}

/// Writes the table, unless it is there already.
fn write(
    file: &Path,
    old: Option<&Old>,
    adds: bool,
    draft: &Draft,
    is_dry: bool,
    steps: &mut Steps,
) -> Result<(), Usage> {
    let name = file.display().to_string();
    let route = format!(
        "{}: {} {} -> {}",
        draft.name, draft.repository, draft.pattern, draft.object
    );
    let is_there = old.is_some_and(|old| {
        old.table.routes().iter().any(|route| {
            let of_space = *old.table.space_of(route).url() == draft.space;
            let is_same =
                route.pattern() == &draft.pattern && *route.repository() == draft.repository;
            of_space && is_same && route.object().to_string() == draft.object
        })
    });
    if is_there {
        steps.tell("table", Became::Well, &format!("{name} has {route}"));
        return Ok(());
    }
    let text = match old {
        Some(_) if !adds => return Err(already(file)),
        Some(old) => draft.added_to(&old.text, &old.table).map_err(Usage)?,
        None => draft.table(),
    };
    let table = RouteTable::parse(&name, &text, Some(ANY_BUCKET), Origin::CommandLine)?;
    look_over(&name, &table, Origin::CommandLine)?;
    if is_dry {
        steps.tell(
            "table",
            Became::Done,
            &format!("would write {name}, with {route}"),
        );
        steps.aside(&text);
        return Ok(());
    }
    store(file, &text, old.is_some())?;
    steps.tell(
        "table",
        Became::Done,
        &format!("wrote {name}, with {route}"),
    );
    Ok(())
}

/// Writes a file as a whole, or not at all.
fn store(file: &Path, text: &str, replaces: bool) -> Result<(), Usage> {
    // Of a link, what it leads to.
    let file = if replaces {
        fs::canonicalize(file)?
    } else {
        file.to_owned()
    };
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let cannot = |err: io::Error| Usage(format!("cannot write {}: {err}", file.display()));
    let mut new = tempfile::Builder::new();
    let mut new = new
        .permissions(mode())
        .tempfile_in(folder)
        .map_err(cannot)?;
    new.write_all(text.as_bytes()).map_err(cannot)?;
    let stored = if replaces {
        new.persist(&file)
    } else {
        new.persist_noclobber(&file)
    };
    stored.map(drop).map_err(|err| cannot(err.error))
}

/// Who may read the file, unless the umask says otherwise: it holds no secret.
fn mode() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn next(file: &Path, draft: &Draft) -> String {
    let routes = match file.to_str() {
        Some("routes.toml") => String::new(),
        _ => format!(" --routes {}", file.display()),
    };
    let try_it = if draft.credentials.is_some() {
        "export BACKLOG_USERNAME=…; read -rs BACKLOG_PASSWORD && export BACKLOG_PASSWORD; "
    } else {
        ""
    };
    format!(
        "\nNext: backlog-bridge connect --stack NAME{routes}\nTo try it on this machine first: {try_it}backlog-bridge \
         sync{routes}"
    )
}
