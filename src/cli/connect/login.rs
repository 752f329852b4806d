//! The logins of the table's spaces: what is stored is tried, and what is to be stored is tried before.

use std::collections::HashMap;

use backlog_bridge::{
    connect::{look, refused_login_advice},
    error::{Error, chain},
    plain,
    push::RepositoryName,
    remote::Wanted,
    route::{CredentialsSource, Space},
    secrets::{Login, Vault},
    space::SpaceUrl,
};

use super::{Became, Connection, Steps, Usage, ask};
use crate::cli::init::login_of_environment;

/// How often somebody may mistype a password.
const TRIES: usize = 3;

/// The logins that work, by the spaces' URLs; `None` where none is wanted.
pub(super) type Known = HashMap<SpaceUrl, Option<Login>>;

impl Connection<'_> {
    /// Sees to it that every space has a login that works. `None` if one has not, which was told.
    pub(super) async fn logins(&self, steps: &mut Steps) -> Result<Option<Known>, Usage> {
        let (vault, mut known) = (Vault::default(), Known::new());
        for space in self.table.spaces() {
            let repositories = self.repositories(space);
            if repositories.is_empty() {
                continue;
            }
            let login = match space.credentials() {
                CredentialsSource::Secret { name } => {
                    let kept = Box::pin(self.kept(&vault, name, space, &repositories, steps));
                    match kept.await? {
                        Some(login) => Some(login),
                        None => return Ok(None),
                    }
                }
                CredentialsSource::Anonymous | CredentialsSource::Env { .. } => {
                    if let Err(err) = try_all(space, &repositories, None).await {
                        steps.tell("login", Became::Failed, &chain(&err));
                        return Ok(None);
                    }
                    let message = format!("anybody reads {}", named(&repositories));
                    steps.tell("login", Became::Well, &message);
                    None
                }
            };
            known.insert(space.url().clone(), login);
        }
        Ok(Some(known))
    }

    fn repositories(&self, space: &Space) -> Vec<RepositoryName> {
        let routes = self.table.routes().iter();
        let routes = routes.filter(|route| self.table.space_of(route) == space);
        let mut repositories: Vec<_> = routes.map(|route| route.repository().clone()).collect();
        repositories.sort();
        repositories.dedup();
        repositories
    }

    /// The login that a secret keeps, once it works.
    async fn kept(
        &self,
        vault: &Vault,
        secret: &str,
        space: &Space,
        repositories: &[RepositoryName],
        steps: &mut Steps,
    ) -> Result<Option<Login>, Usage> {
        let stored = match Box::pin(vault.login(secret)).await {
            Ok(stored) => stored,
            Err(err) => {
                steps.tell("login", Became::Failed, &chain(&err));
                return Ok(None);
            }
        };
        let reads = |login: &Login| {
            let name = plain::foreign(&login.username);
            format!("{name} reads {}", named(repositories))
        };
        if let Some(login) = stored.filter(|_| !self.options.new_login) {
            match try_all(space, repositories, Some(&login)).await {
                Ok(()) => {
                    let message = format!("{}; {secret} has the login already", reads(&login));
                    steps.tell("login", Became::Well, &message);
                    return Ok(Some(login));
                }
                Err(err @ Error::AuthFailed { .. }) if self.asks || self.given().is_some() => {
                    let advice = refused_login_advice(space.url(), &login);
                    note!("the login that {secret} has: {}{advice}", chain(&err));
                }
                Err(err) => {
                    let advice = advice(&err, space, &login);
                    let message = format!("the login that {secret} has: {}{advice}", chain(&err));
                    steps.tell("login", Became::Failed, &message);
                    return Ok(None);
                }
            }
        }
        let Some(login) = Box::pin(self.new_login(secret, space, repositories, steps)).await?
        else {
            return Ok(None);
        };
        if self.options.dry_run {
            let message = format!("{}; would store the login in {secret}", reads(&login));
            steps.tell("login", Became::Done, &message);
            return Ok(Some(login));
        }
        if let Err(err) = Box::pin(vault.store_login(secret, &login)).await {
            steps.tell("login", Became::Failed, &chain(&err));
            return Ok(None);
        }
        let message = format!("{}; stored the login in {secret}", reads(&login));
        steps.tell("login", Became::Done, &message);
        Ok(Some(login))
    }

    /// The login of the environment. A login is of one space, and no other one may see it.
    fn given(&self) -> Option<Login> {
        let spaces = self.table.spaces();
        (spaces.len() == 1).then(login_of_environment).flatten()
    }

    /// Another login, once it works.
    async fn new_login(
        &self,
        secret: &str,
        space: &Space,
        repositories: &[RepositoryName],
        steps: &mut Steps,
    ) -> Result<Option<Login>, Usage> {
        let mut given = self.given();
        if given.is_none() && !self.asks {
            return Err(Usage(format!(
                "{secret} has no login that works, and this is no terminal to ask at: set BACKLOG_USERNAME and BACKLOG_PASSWORD"
            )));
        }
        for _ in 0..TRIES {
            let is_given = given.is_some();
            let login = match given.take() {
                Some(login) => login,
                None => typed(space).await?,
            };
            match try_all(space, repositories, Some(&login)).await {
                Ok(()) => return Ok(Some(login)),
                Err(err @ Error::AuthFailed { .. }) if !is_given => {
                    let advice = refused_login_advice(space.url(), &login);
                    note!("{}{advice}", chain(&err));
                }
                Err(err) => {
                    let advice = advice(&err, space, &login);
                    let message = format!("{}{advice}; nothing was stored", chain(&err));
                    steps.tell("login", Became::Failed, &message);
                    return Ok(None);
                }
            }
        }
        let message = "no login was accepted; nothing was stored";
        steps.tell("login", Became::Failed, message);
        Ok(None)
    }
}

fn advice(err: &Error, space: &Space, login: &Login) -> String {
    match err {
        Error::AuthFailed { .. } => refused_login_advice(space.url(), login),
        _ => String::new(),
    }
}

/// Asks for the login that the bridge is to have.
async fn typed(space: &Space) -> Result<Login, Usage> {
    let url = space.url();
    let kind = if url.wants_email_address() {
        ", the e-mail address"
    } else {
        ""
    };
    let question = format!("The bridge's Git user name for {url}{kind}");
    let username = ask::line(&question, None).await?;
    let password = ask::hidden(format_args!("Password (not shown):")).await?;
    Ok(Login { username, password })
}

/// Tries a login at every repository that it is for.
async fn try_all(
    space: &Space,
    repositories: &[RepositoryName],
    login: Option<&Login>,
) -> Result<(), Error> {
    for repository in repositories {
        Box::pin(look(space.url(), repository, login, Wanted::name("HEAD"))).await?;
    }
    Ok(())
}

fn named(repositories: &[RepositoryName]) -> String {
    const SHOWN: usize = 3;
    let names = repositories.iter().take(SHOWN);
    let names: Vec<_> = names.map(|name| plain::foreign(name.as_str())).collect();
    let names = names.join(", ");
    match repositories.len().saturating_sub(SHOWN) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}
