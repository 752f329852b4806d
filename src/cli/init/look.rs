//! What `init` can see before it writes: the repositories that a key shows, the login, the refs.

use std::time::Duration;

use backlog_bridge::{
    backlog::{ApiError, Backlog},
    connect::{Sight, look, refused_login_advice},
    error::{Error, chain},
    plain,
    push::{InvalidName, RefName, RepositoryName},
    remote::Wanted,
    route::RefPattern,
    secrets::{Login, Password},
    space::{Scheme, SpaceUrl},
};

use super::{Became, Options, Steps, TRIES, Usage, again, ask};

/// How many names are shown to choose from.
const SHOWN: usize = 40;

/// Beyond so many projects, Backlog is asked once a second.
const FAST_PROJECTS: usize = 30;

pub(super) async fn repository(
    space: &SpaceUrl,
    steps: &mut Steps,
) -> Result<RepositoryName, Usage> {
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
    Ok(name.parse().map_err(|err: InvalidName| err.to_string()))
}

/// What a key shows.
struct Listed {
    /// Whose it is.
    whose: String,
    names: Vec<String>,
}

async fn listed(space: &SpaceUrl, key: Password) -> Result<Listed, ApiError> {
    let backlog = Backlog::new(space, &key)?;
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
pub(super) enum Looked {
    At(Sight),
    /// There is no login to look with.
    Nowhere,
    /// It was told why not.
    InVain,
}

pub(super) fn wants_login(space: &SpaceUrl) -> bool {
    space.scheme() == Scheme::Https
}

/// Tries a login, and looks at the refs.
pub(super) async fn sight(
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
pub(in crate::cli) fn login_of_environment() -> Option<Login> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(Login {
        username: set("BACKLOG_USERNAME")?,
        password: set("BACKLOG_PASSWORD")?.into(),
    })
}

/// The refs that the route takes; `None` if it was told why there are none.
pub(super) async fn pattern(
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
        full.parse().map_err(|err: InvalidName| err.to_string())
    };
    let seen = |pattern: &RefPattern| -> Result<String, String> {
        let Some(sight) = sight else {
            return Ok(format!(
                "{} of {repository}, not looked at",
                pattern.as_str()
            ));
        };
        if let Some(name) = pattern.exact() {
            match sight.tip(name) {
                Some(tip) => Ok(format!("{name} is at {}", short(&tip.commit.to_string()))),
                None => Err(absent(repository, name, sight)),
            }
        } else {
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
pub(in crate::cli) fn absent(repository: &RepositoryName, name: &RefName, sight: &Sight) -> String {
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
