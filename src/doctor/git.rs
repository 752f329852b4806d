//! What Git servers show: each is greeted once, each login tried at one repository before the others are asked.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{
    seen::{Seen, Time, Unseen, all},
    verdict::{Credentials, Host, Listing, Plan, Repository, Wanted},
};
use crate::{
    deliver,
    error::{Error, Refused, host},
    push::RepositoryName,
    remote::{Connections, Heard, LfsAnswer, Remote, Wanted as Refs},
    route::{CredentialsSource, Route, RouteTable},
    secrets::{Held, Login, Logins},
    space::{Scheme, SpaceUrl},
};

/// The routes of one space, by repository.
struct Group {
    space: SpaceUrl,
    source: CredentialsSource,
    repositories: BTreeMap<RepositoryName, Vec<Route>>,
}

/// What the secrets of the table hold, by their names.
pub(super) type Secrets = BTreeMap<String, Seen<Held<Login>>>;

/// What was seen of all servers.
#[derive(Debug, Default)]
pub(super) struct Servers {
    pub(super) hosts: Vec<Host>,
    pub(super) repositories: Vec<Repository>,
}

/// Looks at the repositories of these routes.
pub(super) async fn look(
    time: &Time,
    table: &RouteTable,
    routes: &[Route],
    secrets: &Secrets,
    (has_login, is_deep): (bool, bool),
) -> Servers {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for route in routes {
        let space = table.space_of(route);
        let group = groups
            .entry(space.url().to_string())
            .or_insert_with(|| Group {
                space: space.url().clone(),
                source: space.credentials().clone(),
                repositories: BTreeMap::new(),
            });
        let repository = group.repositories.entry(route.repository().clone());
        repository.or_default().push(route.clone());
    }
    for group in groups.values_mut().filter(|_| has_login) {
        if let CredentialsSource::Secret { name } = &group.source
            && matches!(secrets.get(name), Some(Err(Unseen::Denied(_))))
        {
            let prefix = "BACKLOG".into();
            group.source = CredentialsSource::Env { prefix };
        }
    }
    let looks = groups.into_values().map(|group| {
        let login = group.login(secrets);
        let time = time.clone();
        async move { group.look(&time, login.await, is_deep).await }
    });
    let mut servers = Servers::default();
    for (host, repositories) in all(looks).await {
        servers.hosts.extend(host);
        servers.repositories.extend(repositories);
    }
    servers
}

impl Group {
    /// The login, and how it is set anew. A secret has been read already.
    fn login(
        &self,
        secrets: &Secrets,
    ) -> impl Future<Output = Seen<Result<Option<Login>, Error>>> + use<> {
        let held = match &self.source {
            CredentialsSource::Secret { name } => Some(match secrets.get(name) {
                Some(Ok(Held::Filled(login))) => Ok(Ok(Some(login.clone()))),
                _ => Err(Unseen::After(
                    "the secret of the Git login comes first".into(),
                )),
            }),
            _ => None,
        };
        let source = self.source.clone();
        let first = self.repositories.keys().next().cloned();
        async move {
            match (held, first) {
                (Some(held), _) => held,
                (None, Some(repository)) => {
                    Ok(Logins::default().login(&source, &repository, "").await)
                }
                (None, None) => Ok(Ok(None)),
            }
        }
    }

    async fn look(
        self,
        time: &Time,
        login: Seen<Result<Option<Login>, Error>>,
        is_deep: bool,
    ) -> (Option<Host>, Vec<Repository>) {
        let (login, barred) = match login {
            Ok(Ok(login)) => (login, None),
            Ok(Err(err)) => (None, Some(Ok(Err(err)))),
            Err(unseen) => (None, Some(Err(unseen))),
        };
        let mut names = self.repositories.keys();
        let Some(first) = names.next() else {
            return (None, Vec::new());
        };
        let visit = Visit {
            group: &self,
            time,
            login,
        };
        let asked = async {
            match barred {
                Some(barred) => barred,
                None => visit.list(first).await,
            }
        };
        let (host, mut listing) = tokio::join!(visit.greet(first), asked);
        if host.as_ref().is_some_and(|host| !host.is_reached()) {
            listing = Err(Unseen::After("the server comes first".into()));
        }
        let is_barred = match &listing {
            Ok(Err(Error::AuthFailed { refused, .. })) => *refused != Refused::Access,
            Ok(Err(Error::Credentials { .. })) | Err(_) => true,
            Ok(_) => false,
        };
        let mut repository = visit.repository(first, true, listing);
        if is_deep && matches!(repository.listing, Ok(Ok(_))) {
            repository.lfs = Some(visit.lfs(first).await);
        }
        let mut found = vec![repository];
        if is_barred {
            let after = |name| {
                let after = Unseen::After("the first repository comes first".into());
                visit.repository(name, false, Err(after))
            };
            found.extend(names.map(after));
        } else {
            let names: Vec<_> = names.collect();
            let listings = all(names.iter().map(|name| visit.list(name))).await;
            let listings = names.iter().zip(listings);
            found.extend(listings.map(|(name, listing)| visit.repository(name, false, listing)));
        }
        (host, found)
    }
}

/// A space that is looked at, with its login.
struct Visit<'a> {
    group: &'a Group,
    time: &'a Time,
    login: Option<Login>,
}

impl Visit<'_> {
    fn remote(&self, name: &RepositoryName) -> Remote {
        Remote {
            url: name.url_in(&self.group.space),
            repository: name.clone(),
            login: self.login.clone(),
            deadline: Some(self.time.deadline()),
            heard: Heard::default(),
            connections: Connections::default(),
        }
    }

    /// What is left for one look.
    fn limit(&self) -> Duration {
        let deadline = self.time.deadline();
        deadline.saturating_duration_since(Instant::now())
    }

    /// Greets the server of a repository. A folder of this machine has nobody to greet.
    async fn greet(&self, name: &RepositoryName) -> Option<Host> {
        let space = &self.group.space;
        if space.scheme() == Scheme::File {
            return None;
        }
        let remote = self.remote(name);
        let greeted = self.time.within(remote.greet(self.limit())).await;
        let ahead = |theirs: OffsetDateTime| (OffsetDateTime::now_utc() - theirs).whole_seconds();
        let answer = greeted.ok_or(Unseen::Late);
        Some(Host {
            url: host(&space.to_string()).to_owned(),
            answer: answer.map(|answer| answer.map(|theirs| theirs.map(ahead))),
        })
    }

    async fn lfs(&self, name: &RepositoryName) -> Seen<Result<LfsAnswer, Error>> {
        let remote = self.remote(name);
        let asked = self.time.within(remote.ask_lfs(self.limit())).await;
        asked.ok_or(Unseen::Late)
    }

    fn list(
        &self,
        name: &RepositoryName,
    ) -> impl Future<Output = Seen<Result<Listing, Error>>> + use<> {
        let routes = self.group.repositories[name].clone();
        list(self.time.clone(), self.remote(name), routes)
    }

    fn repository(
        &self,
        name: &RepositoryName,
        is_first: bool,
        listing: Seen<Result<Listing, Error>>,
    ) -> Repository {
        let Group {
            space,
            source,
            repositories,
        } = self.group;
        let set = match source {
            CredentialsSource::Env { prefix } => {
                format!("set {prefix}_USERNAME and {prefix}_PASSWORD")
            }
            CredentialsSource::Secret { name } => format!(
                "store it anew: aws secretsmanager put-secret-value --secret-id {name} --secret-string file:///dev/stdin"
            ),
            CredentialsSource::Anonymous => String::new(),
        };
        let login = self.login.as_ref();
        let wanted = repositories[name].iter().map(|route| Wanted {
            route: route.name().to_owned(),
            pattern: route.pattern().clone(),
        });
        Repository {
            name: name.clone(),
            space: space.to_string(),
            credentials: Credentials {
                plan: Plan::of(space),
                is_mail: login.map(|login| login.username.contains('@')),
                set,
            },
            wanted: wanted.collect(),
            is_first,
            listing,
            known: Vec::new(),
            lfs: None,
        }
    }
}

/// What a repository lists of what routes may take.
async fn list(time: Time, remote: Remote, routes: Vec<Route>) -> Seen<Result<Listing, Error>> {
    let listed = time.within(async {
        let work = tokio::task::spawn_blocking(move || {
            let wanted = deliver::wanted(&routes);
            let mut connection = remote.connect_for(&wanted)?;
            let found = connection.refs(&wanted)?;
            let is_cut = connection.is_cut();
            let (version, sends_changes) = (
                connection.protocol_version(),
                connection.can_fetch_changes(),
            );
            let refs: Vec<_> = found
                .into_iter()
                .filter_map(|(name, tip)| Some((name.parse().ok()?, tip.commit)))
                .collect();
            let is_complete = routes
                .iter()
                .all(|route| refs.iter().any(|(name, _)| route.pattern().matches(name)));
            let others = if is_complete {
                Vec::new()
            } else {
                let others = connection.refs(&Refs::prefix("refs/"))?;
                others.into_iter().map(|(name, _)| name).collect()
            };
            Ok(Listing {
                refs,
                others,
                is_cut,
                version,
                sends_changes,
            })
        });
        work.await.expect("the work does not panic")
    });
    listed.await.ok_or(Unseen::Late)
}

/// The secrets that the routes' spaces name.
pub(super) async fn secrets(time: &Time, table: &RouteTable, routes: &[Route]) -> Secrets {
    let mut names: Vec<_> = routes
        .iter()
        .filter_map(|route| match table.space_of(route).credentials() {
            CredentialsSource::Secret { name } => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    let looks = names.clone().into_iter().map(|name| {
        let time = time.clone();
        async move { time.look(crate::secrets::login_in(&name)).await }
    });
    names.into_iter().zip(all(looks).await).collect()
}

/// The routes that were named, or all.
pub(super) fn chosen(table: &RouteTable, names: &[String]) -> Vec<Route> {
    let routes = table.routes().iter();
    let chosen =
        routes.filter(|route| names.is_empty() || names.iter().any(|name| name == route.name()));
    chosen.cloned().collect()
}
