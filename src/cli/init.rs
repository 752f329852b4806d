//! `init`: the first routing table, from questions or flags. What can be tried is tried before it is written.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use backlog_bridge::{
    backlog::Backlog,
    connect::{Sight, look, refused_login_advice},
    error::{Error, chain},
    plain,
    push::{RefName, RepositoryName},
    remote::Wanted,
    route::{Draft, Origin, RefPattern, RouteTable},
    secrets::{Login, Password},
    space::{Scheme, SpaceUrl},
};

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

/// How many names are shown to choose from.
const SHOWN: usize = 40;

/// Beyond so many projects, Backlog is asked once a second.
const FAST_PROJECTS: usize = 30;

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
        return match options.add {
            true => Err(Usage(format!(
                "there is no {} to add to; leave out --add",
                file.display()
            ))),
            false => Ok(None),
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
            repository.map_err(|err: backlog_bridge::push::InvalidName| err.to_string())?,
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

async fn repository(space: &SpaceUrl, steps: &mut Steps) -> Result<RepositoryName, Usage> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let has_api = space.api_url().is_some();
        let or_list = if has_api {
            "; Enter for a list, with an API key"
        } else {
            ""
        };
        let question = format!("Repository (PROJECT/repository{or_list})");
        let text = ask::line(&question, None).await?;
        if text.is_empty() && has_api {
            match Box::pin(choose(space, steps)).await? {
                Ok(repository) => return Ok(repository),
                Err(why) => {
                    note!("{why}");
                    last = why;
                    continue;
                }
            }
        }
        match text.parse() {
            Ok(repository) => return Ok(repository),
            Err(err) => {
                last = format!("{err}");
                note!("{last}");
            }
        }
    }
    Err(Usage(last))
}

/// Lists the repositories that a key shows, and has one chosen.
async fn choose(
    space: &SpaceUrl,
    steps: &mut Steps,
) -> Result<Result<RepositoryName, String>, Usage> {
    let of_environment = ["BACKLOG_ADMIN_API_KEY", "BACKLOG_API_KEY"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|key| !key.is_empty()));
    let key: Password = match of_environment {
        Some(key) => key.into(),
        None => ask::hidden(format_args!("API key (Personal settings, API; not shown):")).await?,
    };
    let found = match Box::pin(listed(space, key)).await {
        Ok(found) => found,
        Err(err) => return Ok(Err(chain(&err))),
    };
    steps.tell("api key", Became::Well, &found.whose);
    if found.names.is_empty() {
        return Ok(Err(
            "this key shows no Git repository; its owner has to be a member of the project, and no reporter or viewer".into(),
        ));
    }
    for (at, name) in found.names.iter().take(SHOWN).enumerate() {
        note!("{:>4}  {name}", at + 1);
    }
    if found.names.len() > SHOWN {
        note!(
            "      and {} more; type its name",
            found.names.len() - SHOWN
        );
    }
    let text = ask::line("Number, or PROJECT/repository", Some("1")).await?;
    let name = match text.parse::<usize>() {
        Ok(number) => number
            .checked_sub(1)
            .and_then(|at| found.names.get(at))
            .cloned(),
        Err(_) => Some(text.clone()),
    };
    let Some(name) = name else {
        return Ok(Err(format!("there is no number {text}")));
    };
    Ok(name
        .parse()
        .map_err(|err: backlog_bridge::push::InvalidName| err.to_string()))
}

/// What a key shows.
struct Listed {
    /// Whose it is.
    whose: String,
    names: Vec<String>,
}

async fn listed(
    space: &SpaceUrl,
    key: Password,
) -> Result<Listed, backlog_bridge::backlog::ApiError> {
    let backlog = Backlog::new(space, key)?;
    let user = backlog.myself().await?;
    let projects = backlog.projects().await?.into_iter();
    let projects = projects
        .filter(|project| project.use_git == Some(true) && project.archived != Some(true))
        .filter_map(|project| project.project_key);
    let mut names = Vec::new();
    for (at, key) in projects.enumerate() {
        if at >= FAST_PROJECTS {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let repositories = backlog.repositories(&key).await?.into_iter();
        let of_project = repositories.filter_map(|repository| repository.name);
        names.extend(of_project.map(|name| format!("{key}/{name}")));
    }
    let role = user.role().unwrap_or("of a role that is not known");
    let name = user.name.or(user.user_id).unwrap_or_default();
    Ok(Listed {
        whose: format!("the key of {}, {role}", plain::foreign(&name)),
        names,
    })
}

/// Whether the space has one was looked at.
enum Looked {
    At(Sight),
    /// There is no login to look with.
    Nowhere,
    /// It was told why not.
    InVain,
}

fn wants_login(space: &SpaceUrl) -> bool {
    space.scheme() == Scheme::Https
}

/// Tries a login, and looks at the refs.
async fn sight(
    space: &SpaceUrl,
    repository: &RepositoryName,
    asks: bool,
    steps: &mut Steps,
) -> Result<Looked, Usage> {
    let mut login = login_of_environment();
    let is_given = login.is_some();
    if wants_login(space) && login.is_none() && !asks {
        return Ok(Looked::Nowhere);
    }
    for _ in 0..TRIES {
        if wants_login(space) && login.is_none() {
            let of_space = if space.wants_email_address() {
                ", the e-mail address"
            } else {
                ""
            };
            let question = format!("Git user name{of_space}");
            let username = ask::line(&question, None).await?;
            let password = ask::hidden(format_args!("Password (not shown):")).await?;
            login = Some(Login { username, password });
        }
        let wanted = Wanted {
            prefixes: vec!["refs/heads/".into(), "refs/tags/".into()],
            ..Wanted::default()
        };
        let looked = look(space, repository, login.as_ref(), wanted).await;
        match looked {
            Ok(sight) => {
                let who = login.map(|login| login.username);
                let who = who.map_or_else(|| "anybody".into(), |name| plain::foreign(&name));
                steps.tell("login", Became::Well, &format!("{who} reads {repository}"));
                return Ok(Looked::At(sight));
            }
            Err(err @ Error::AuthFailed { .. }) if asks && !is_given => {
                let advice = login.take();
                let advice = advice.map(|login| refused_login_advice(space, &login));
                note!("{}{}", chain(&err), advice.unwrap_or_default());
            }
            Err(err) => {
                let advice = match (&err, &login) {
                    (Error::AuthFailed { .. }, Some(login)) => refused_login_advice(space, login),
                    _ => String::new(),
                };
                steps.tell("login", Became::Failed, &format!("{}{advice}", chain(&err)));
                return Ok(Looked::InVain);
            }
        }
    }
    steps.tell(
        "login",
        Became::Failed,
        "no login was accepted; nothing was written",
    );
    Ok(Looked::InVain)
}

/// The login that the environment has.
pub(super) fn login_of_environment() -> Option<Login> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(Login {
        username: set("BACKLOG_USERNAME")?,
        password: set("BACKLOG_PASSWORD")?.into(),
    })
}

/// The refs that the route takes; `None` if it was told why there are none.
async fn pattern(
    options: &Options,
    repository: &RepositoryName,
    sight: Option<&Sight>,
    asks: bool,
    steps: &mut Steps,
) -> Result<Option<RefPattern>, Usage> {
    let head = sight.and_then(|sight| sight.head.as_deref());
    let head = head.and_then(|head| head.strip_prefix("refs/heads/"));
    let parse = |text: &str| -> Result<RefPattern, String> {
        let full = if text.starts_with("refs/") {
            text.to_owned()
        } else {
            format!("refs/heads/{text}")
        };
        full.parse()
            .map_err(|err: backlog_bridge::push::InvalidName| err.to_string())
    };
    let seen = |pattern: &RefPattern| -> Result<String, String> {
        let Some(sight) = sight else {
            return Ok(format!(
                "{} of {repository}, not looked at",
                pattern.as_str()
            ));
        };
        match pattern.exact() {
            Some(name) => match sight.tip(name) {
                Some(tip) => Ok(format!("{name} is at {}", short(&tip.commit.to_string()))),
                None => Err(absent(repository, name, sight)),
            },
            None => {
                let names = sight
                    .refs
                    .iter()
                    .filter_map(|(name, _)| name.parse::<RefName>().ok());
                let count = names.filter(|name| pattern.matches(name)).count();
                Ok(format!(
                    "{} matches {} now",
                    pattern.as_str(),
                    plain::count(count, "ref", "refs")
                ))
            }
        }
    };
    if let Some(text) = &options.ref_name {
        let pattern = parse(text).map_err(|why| Usage(format!("--ref: {why}")))?;
        return Ok(match seen(&pattern) {
            Ok(what) => {
                steps.tell("ref", Became::Well, &what);
                Some(pattern)
            }
            Err(why) => {
                steps.tell("ref", Became::Failed, &why);
                None
            }
        });
    }
    debug_assert!(asks, "it was asked for before");
    let (pattern, what) = again(async || {
        let text = ask::line("Branch (with * for many)", head).await?;
        Ok(parse(&text).and_then(|pattern| {
            let what = seen(&pattern)?;
            Ok((pattern, what))
        }))
    })
    .await?;
    steps.tell("ref", Became::Well, &what);
    Ok(Some(pattern))
}

/// That a repository has no such ref, and what it has.
pub(super) fn absent(repository: &RepositoryName, name: &RefName, sight: &Sight) -> String {
    const NAMED: usize = 5;
    let names = sight.refs.iter().map(|(name, _)| plain::foreign(name));
    let names: Vec<_> = names.take(NAMED).collect();
    if names.is_empty() {
        return format!("{repository} has no {name}, it is empty: push a commit first");
    }
    let more = if sight.refs.len() > NAMED {
        ", …"
    } else {
        ""
    };
    format!(
        "{repository} has no {name}; it has {}{more}",
        names.join(", ")
    )
}

fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
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
