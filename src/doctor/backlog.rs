//! What Backlog's API shows to the owner of a key.

use std::collections::{BTreeMap, BTreeSet};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    seen::{Refusal, Seen, Time, Unseen, all},
    verdict::{Arrival, Hook, Project, Space},
};
use crate::{
    backlog::{ApiError, Backlog, Webhook},
    push::RepositoryName,
    registration::{self, TokenState},
    route::{ApiKeySource, Route, RouteTable},
    secrets::{self, Held, Password, TokenPair},
    space::SpaceUrl,
    stack::Stack,
};

/// How many pushes are looked through for one to a repository of the table.
const PUSHES: usize = 20;

/// What was seen of all spaces, and the repositories that their projects have.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    pub(super) spaces: Vec<Space>,
    /// By space and project.
    pub(super) repositories: BTreeMap<(String, String), Vec<String>>,
}

/// A bridge, as webhooks see it.
#[derive(Debug, Clone)]
pub(super) struct Bridge {
    stack: Stack,
    /// As Backlog meets it, unless nobody can make sense of its address.
    met: Option<registration::Bridge>,
    /// Why its tokens are not known.
    untold: Option<Unseen>,
}

impl Bridge {
    pub(super) fn of(stack: &Stack, tokens: &Seen<Held<TokenPair>>) -> Self {
        let (tokens, untold) = match tokens {
            Ok(Held::Filled(tokens)) => (Some(tokens.clone()), None),
            Ok(_) => {
                let after = Unseen::After("the token's secret comes first".into());
                (None, Some(after))
            }
            Err(unseen) => (None, Some(unseen.clone())),
        };
        let hooks = stack.hooks.parse().ok();
        Self {
            stack: stack.clone(),
            met: hooks.map(|hooks| registration::Bridge { hooks, tokens }),
            untold,
        }
    }

    /// Which token a webhook brings here; `None` if it leads to another place.
    fn token_of(&self, url: &Password) -> Option<TokenState> {
        self.met.as_ref()?.token_of(url)
    }

    fn hook(&self, hook: &Webhook) -> Hook {
        let token = hook.hook_url.as_ref().and_then(|url| self.token_of(url));
        // The same place without TLS.
        let plain = hook.hook_url.as_ref().and_then(|url| {
            let rest = url.reveal().trim().strip_prefix("http://")?;
            self.token_of(&format!("https://{rest}").into())
        });
        let types = hook.activity_type_ids.clone().unwrap_or_default();
        Hook {
            id: hook.id,
            is_ours: token.or(plain).is_some(),
            is_tls: token.is_some(),
            posts_pushes: hook.posts_pushes(),
            posts_all: hook.all_event == Some(true),
            types,
            token: match &self.untold {
                Some(unseen) => Err(unseen.clone()),
                None => Ok(token.or(plain).unwrap_or(TokenState::Unknown)),
            },
        }
    }
}

/// The key of a space's API, or why there is none.
type Key = Seen<Password>;

/// The key that somebody gave, or that the table names. Where there is none, that is told only of a bridge, which has webhooks.
async fn key(
    time: &Time,
    given: Option<Password>,
    source: Option<ApiKeySource>,
    is_deployed: bool,
) -> Option<Key> {
    let secret = match (given, source) {
        (Some(key), _) => return Some(Ok(key)),
        (None, None) => {
            let needs = "projects and webhooks need a key of Backlog's API: set BACKLOG_API_KEY, or BACKLOG_ADMIN_API_KEY to an \
                         administrator's";
            return is_deployed.then(|| Err(Unseen::Needs(needs.into())));
        }
        (None, Some(source @ ApiKeySource::Env { .. })) => {
            let key = secrets::read_api_key(&source).await;
            return Some(key.map_err(|err| Unseen::Needs(err.to_string())));
        }
        (None, Some(ApiKeySource::Secret { name })) => name,
    };
    Some(match time.look(secrets::api_key_in(&secret)).await {
        Ok(Held::Filled(key)) => Ok(key),
        Ok(_) => Err(Unseen::Needs(format!(
            "the secret {secret} holds no {{\"api_key\":\"…\"}} that can be read"
        ))),
        Err(Unseen::Denied(action)) => Err(Unseen::Denied(format!(
            "{action} on {secret}, or a key in BACKLOG_API_KEY"
        ))),
        Err(unseen) => Err(unseen),
    })
}

/// A space of the table, and the repositories of each of its projects.
type Group = (
    SpaceUrl,
    Option<ApiKeySource>,
    BTreeMap<String, BTreeSet<RepositoryName>>,
);

/// Looks at the spaces of the routes, with the key that was given or else those of the table.
pub(super) async fn look(
    time: &Time,
    table: &RouteTable,
    routes: &[Route],
    given: Option<&Password>,
    bridge: Option<&Bridge>,
) -> Spaces {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for route in routes {
        let space = table.space_of(route);
        let group = groups.entry(space.url().to_string());
        let (_, _, projects) = group.or_insert_with(|| {
            (
                space.url().clone(),
                space.api_key().cloned(),
                BTreeMap::new(),
            )
        });
        let repository = route.repository();
        projects
            .entry(repository.project().to_owned())
            .or_default()
            .insert(repository.clone());
    }
    let looks = groups.into_iter().map(|(name, (url, source, projects))| {
        let (time, bridge, given) = (time.clone(), bridge.cloned(), given.cloned());
        async move {
            let key = key(&time, given, source, bridge.is_some()).await?;
            Some(space(&time, name, &url, key, projects, bridge).await)
        }
    });
    let mut spaces = Spaces::default();
    for (space, repositories) in all(looks).await.into_iter().flatten() {
        spaces.spaces.push(space);
        spaces.repositories.extend(repositories);
    }
    spaces
}

type Repositories = Vec<((String, String), Vec<String>)>;

async fn space(
    time: &Time,
    name: String,
    url: &SpaceUrl,
    key: Key,
    projects: BTreeMap<String, BTreeSet<RepositoryName>>,
    bridge: Option<Bridge>,
) -> (Space, Repositories) {
    let host = name.clone();
    let unasked = |me| Space {
        host: host.clone(),
        me,
        projects: projects
            .iter()
            .map(|(key, repositories)| unseen(key, repositories, bridge.is_some()))
            .collect(),
    };
    let api = match key.map(|key| Backlog::new(url, &key)) {
        Ok(Ok(api)) => api,
        Ok(Err(err)) => return (unasked(Ok(Err(err.into()))), Vec::new()),
        Err(unseen) => return (unasked(Err(unseen)), Vec::new()),
    };
    let host = api.host().to_owned();
    let me = ask(time, api.myself()).await;
    if !matches!(me, Ok(Ok(_))) {
        return (
            Space {
                host,
                ..unasked(me)
            },
            Vec::new(),
        );
    }
    let looks = projects.into_iter().map(|(key, repositories)| {
        let (time, api, bridge) = (time.clone(), api.clone(), bridge.clone());
        async move { project(&time, &api, key, repositories, bridge.as_ref()).await }
    });
    let mut found = Vec::new();
    let mut names = Vec::new();
    for (project, repositories) in all(looks).await {
        names.push(((name.clone(), project.key.clone()), repositories));
        found.push(project);
    }
    (
        Space {
            host,
            me,
            projects: found,
        },
        names,
    )
}

async fn ask<T>(
    time: &Time,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Seen<Result<T, Refusal>> {
    let asked = time.within(work).await;
    asked
        .ok_or(Unseen::Late)
        .map(|asked| asked.map_err(Refusal::from))
}

fn unseen(key: &str, repositories: &BTreeSet<RepositoryName>, has_bridge: bool) -> Project {
    let after = Unseen::After("the API key comes first".into());
    Project {
        key: key.to_owned(),
        about: Err(after.clone()),
        hooks: has_bridge.then_some(Err(after)),
        repositories: repositories.iter().map(ToString::to_string).collect(),
        git_hooks: Vec::new(),
        add: String::new(),
        arrival: None,
    }
}

async fn project(
    time: &Time,
    api: &Backlog,
    key: String,
    repositories: BTreeSet<RepositoryName>,
    bridge: Option<&Bridge>,
) -> (Project, Vec<String>) {
    let hooks = async {
        match bridge {
            Some(bridge) => Some((bridge, ask(time, api.webhooks(&key)).await)),
            None => None,
        }
    };
    let pushes = async {
        match bridge {
            Some(bridge) => Some((bridge, ask(time, api.activities(&key, PUSHES)).await)),
            None => None,
        }
    };
    let (about, listed, hooks, pushes) = tokio::join!(
        ask(time, api.project(&key)),
        ask(time, api.repositories(&key)),
        hooks,
        pushes
    );
    let listed = listed.ok().and_then(Result::ok).unwrap_or_default();
    let mut git_hooks = Vec::new();
    if let Some(bridge) = bridge {
        for repository in &listed {
            let name = repository.name.as_deref().unwrap_or_default();
            let own = repositories.iter().find(|own| own.repository() == name);
            let is_ours = repository
                .hook_url
                .as_ref()
                .is_some_and(|url| bridge.token_of(url).is_some());
            git_hooks.extend(own.filter(|_| is_ours).map(ToString::to_string));
        }
    }
    // Before that, nobody was there to be told.
    let mut since = bridge.and_then(|bridge| bridge.stack.created);
    let hooks = hooks.map(|(bridge, hooks)| {
        hooks.map(|hooks| {
            hooks.map(|hooks| {
                let ours = hooks.iter().filter(|hook| bridge.hook(hook).is_ours);
                let created = ours
                    .filter_map(|hook| parse(hook.created.as_deref()?))
                    .min();
                since = since.max(created);
                hooks
                    .iter()
                    .map(|webhook| bridge.hook(webhook))
                    .collect::<Vec<_>>()
            })
        })
    });
    let has_way = matches!(&hooks, Some(Ok(Ok(hooks))) if hooks.iter().any(|hook: &Hook| hook.is_ours && hook.posts_pushes))
        || !git_hooks.is_empty();
    let may_see_way = matches!(&hooks, Some(Ok(Ok(_))));
    let arrival = match (pushes, since) {
        // Without a webhook nothing can come, which is told already.
        (Some((bridge, Ok(Ok(pushes)))), Some(since)) if has_way || !may_see_way => {
            let newest = pushes.iter().find_map(|push| {
                let (at, content) = (parse(push.created.as_deref()?)?, push.content.as_ref()?);
                let name = content.repository.as_ref()?.name.as_deref()?;
                let own = repositories.iter().find(|own| own.repository() == name)?;
                Some((
                    own.clone(),
                    content.ref_name.clone().unwrap_or_default(),
                    at,
                ))
            });
            Some(arrival(time, bridge, newest.filter(|(_, _, at)| *at > since)).await)
        }
        _ => None,
    };
    let names = listed
        .into_iter()
        .filter_map(|repository| repository.name)
        .collect();
    let project = Project {
        repositories: repositories.iter().map(ToString::to_string).collect(),
        about,
        hooks,
        git_hooks,
        add: bridge
            .map(|bridge| {
                format!(
                    "backlog-bridge webhook add {key} --stack {}",
                    bridge.stack.name
                )
            })
            .unwrap_or_default(),
        arrival,
        key,
    };
    (project, names)
}

async fn arrival(
    time: &Time,
    bridge: &Bridge,
    newest: Option<(RepositoryName, String, OffsetDateTime)>,
) -> Seen<Arrival> {
    let arrived = match &newest {
        // Both clocks are others'.
        Some((repository, _, at)) => {
            time.look(
                bridge
                    .stack
                    .was_told_of(repository, *at - time::Duration::minutes(1)),
            )
            .await?
        }
        None => false,
    };
    let push = newest.map(|(repository, ref_name, at)| (repository.to_string(), ref_name, at));
    Ok(Arrival {
        push,
        arrived,
        now: OffsetDateTime::now_utc(),
    })
}

fn parse(time: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(time, &Rfc3339).ok()
}
