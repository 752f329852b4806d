//! Logins of Git servers: read once, read again after a refusal, and then not tried over and over.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::{Password, SecretError, Vault, Version, permanent};
use crate::{
    error::{Error, Refused},
    push::RepositoryName,
    route::CredentialsSource,
};

/// How long a server that refused a login is not asked again with the same one.
const QUIET: Duration = Duration::from_mins(5);

/// A user name and a password. There is no way to print the latter.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Password,
}

impl Login {
    fn is(&self, other: &Self) -> bool {
        self.username == other.username && self.password.is(other.password.reveal())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.username, self.password)
    }
}

/// The logins of all spaces, as long as this process runs.
#[derive(Debug, Default)]
pub struct Logins {
    vault: Vault,
    state: Mutex<State>,
    /// Whether a login is tried by one at a time until a server was content with it.
    is_careful: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Secrets by name. They are kept until a server refuses them.
    known: HashMap<String, Login>,
    /// Repositories that refused a login, by their URLs. One that the user may not read must not stop the others.
    refused: HashMap<String, Refusal>,
    /// Repositories that took a login for a wrong one since a server was last content with it.
    doubted: HashMap<CredentialsSource, HashMap<String, Refusal>>,
    /// Logins with which a server was content.
    proven: HashSet<CredentialsSource>,
    /// Whose turn it is to try those with which none was yet.
    turns: HashMap<CredentialsSource, Arc<tokio::sync::Mutex<()>>>,
}

/// How many repositories it takes before a login is given up: one alone may be broken itself. More could lock the account.
const DOUBTS: usize = 2;

/// How long a login is waited for that somebody else tries. A server that hangs must not keep the others.
const TURN_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Refusal {
    login: Option<Login>,
    at: Instant,
}

impl Refusal {
    fn counts_for(&self, login: Option<&Login>) -> bool {
        self.at.elapsed() < QUIET && self.is_of(login)
    }

    fn is_of(&self, login: Option<&Login>) -> bool {
        match (&self.login, login) {
            (Some(refused), Some(login)) => refused.is(login),
            (None, None) => true,
            _ => false,
        }
    }
}

impl State {
    /// The refusal of a login that still counts for a repository, or for all of them.
    fn refusal(
        &self,
        source: &CredentialsSource,
        url: &str,
        login: Option<&Login>,
    ) -> Option<&Refusal> {
        let own = self.refused.get(url);
        own.filter(|refusal| refusal.counts_for(login)).or_else(|| {
            let doubts = self.doubted.get(source)?.values();
            let doubts: Vec<_> = doubts.filter(|doubt| doubt.counts_for(login)).collect();
            let last = doubts.iter().max_by_key(|doubt| doubt.at)?;
            (doubts.len() >= DOUBTS).then_some(*last)
        })
    }

    /// Whether anybody refused any login of this source lately.
    fn is_in_doubt(&self, source: &CredentialsSource, url: &str) -> bool {
        let is_young = |refusal: &Refusal| refusal.at.elapsed() < QUIET;
        self.refused.get(url).is_some_and(is_young)
            || (self.doubted.get(source)).is_some_and(|doubts| doubts.values().any(is_young))
    }
}

/// The secret's text. Other fields are ignored.
#[derive(Deserialize)]
struct StoredLogin {
    username: String,
    password: String,
}

impl Logins {
    /// Logins for many that ask at the same time. Were a login wrong, each of them would try it, and lock the account.
    #[must_use]
    pub fn careful() -> Self {
        Self {
            is_careful: true,
            ..Self::default()
        }
    }

    /// Forgets which logins servers were content with: before many ask at the same time.
    pub(crate) fn prove_again(&self) {
        self.state().proven.clear();
    }

    /// Waits for the turn to try a login with which no server was content yet; `None` if it takes none. `is_one_of_many` says
    /// that others ask at the same time.
    pub(crate) async fn turn(
        &self,
        source: &CredentialsSource,
        is_one_of_many: bool,
    ) -> Option<OwnedMutexGuard<()>> {
        let is_open = || self.state().proven.contains(source);
        let is_careful = self.is_careful || is_one_of_many;
        if !is_careful || *source == CredentialsSource::Anonymous || is_open() {
            return None;
        }
        let turn = {
            let mut state = self.state();
            Arc::clone(state.turns.entry(source.clone()).or_default())
        };
        let turn = timeout(TURN_WITHIN, turn.lock_owned()).await.ok()?;
        (!is_open()).then_some(turn)
    }

    /// The login that `source` names, for the repository at `url`; `None` if the space is read without one.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`] if it cannot be had, and names everything that is missing. [`Error::AuthFailed`] if it was
    /// refused in the last five minutes; that is transient, since nobody was asked.
    pub async fn login(
        &self,
        source: &CredentialsSource,
        repository: &RepositoryName,
        url: &str,
    ) -> Result<Option<Login>, Error> {
        let is_refused = self.state().is_in_doubt(source, url);
        // Reading a secret does not trouble the Git server, and notices that somebody has mended it.
        let login = self.read(source, repository, !is_refused).await?;
        let state = self.state();
        match state.refusal(source, url, login.as_ref()) {
            Some(refusal) => Err(Error::AuthFailed {
                repository: repository.clone(),
                advice: match source {
                    CredentialsSource::Secret { .. } => {
                        "it, or two others, refused this login a short while ago and is not asked again for five minutes; \
                         change the secret, or the user's rights"
                    }
                    CredentialsSource::Env { .. } => {
                        "it, or two others, refused this login a short while ago and is not asked again for five minutes; \
                         change the two variables and start again, or change the user's rights"
                    }
                    CredentialsSource::Anonymous => {
                        "it, or two others, wanted a login a short while ago and is not asked again for five minutes; \
                         give the space credentials"
                    }
                },
                refused: Refused::NotAsked,
                source: format!("refused {} s ago", refusal.at.elapsed().as_secs()).into(),
            }),
            None => Ok(login),
        }
    }

    /// Takes note that a server was content with what [`Logins::login`] gave for `source`.
    pub fn accepted(&self, source: &CredentialsSource) {
        let mut state = self.state();
        state.doubted.remove(source);
        if !state.proven.contains(source) {
            state.proven.insert(source.clone());
        }
    }

    /// After the repository at `url` refused `login`: another one that has taken its place, to be tried. `None` if there is
    /// none; then the server is left alone for a while.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`] if nobody can say now whether there is one.
    pub async fn after_refusal(
        &self,
        source: &CredentialsSource,
        repository: &RepositoryName,
        url: &str,
        login: Option<Login>,
        refused: Refused,
    ) -> Result<Option<Login>, Error> {
        {
            let mut state = self.state();
            let at = Instant::now();
            let refusal = Refusal { login, at };
            // Who is known and may not read says nothing about the login.
            if refused == Refused::Login {
                state.proven.remove(source);
                let doubts = state.doubted.entry(source.clone()).or_default();
                doubts.retain(|_, doubt| doubt.at.elapsed() < QUIET);
                doubts.insert(url.to_owned(), refusal.clone());
            }
            state
                .refused
                .retain(|_, refusal| refusal.at.elapsed() < QUIET);
            state.refused.insert(url.to_owned(), refusal);
        }
        let login = match self.read(source, repository, false).await {
            Err(err) if err.is_transient() => return Err(err),
            // Otherwise the refusal is what people have to know.
            login => login.ok().flatten(),
        };
        let state = self.state();
        let is_refused = state.refusal(source, url, login.as_ref()).is_some();
        Ok(login.filter(|_| !is_refused))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    async fn read(
        &self,
        source: &CredentialsSource,
        repository: &RepositoryName,
        may_be_known: bool,
    ) -> Result<Option<Login>, Error> {
        let fail = |err: SecretError| Error::Credentials {
            repository: repository.clone(),
            reason: err.reason,
            transient: err.transient,
            source: err.source,
        };
        match source {
            CredentialsSource::Anonymous => Ok(None),
            CredentialsSource::Env { prefix } => {
                from_environment(prefix, |name| std::env::var(name).ok())
                    .map(Some)
                    .map_err(|reason| fail(permanent(reason)))
            }
            CredentialsSource::Secret { name } => {
                if let Some(login) = self.state().known.get(name).filter(|_| may_be_known) {
                    return Ok(Some(login.clone()));
                }
                let text = self.vault.read(name, Version::Current).await;
                let login = text
                    .and_then(|text| parse(name, text.as_ref()))
                    .map_err(fail)?;
                self.state().known.insert(name.clone(), login.clone());
                Ok(Some(login))
            }
        }
    }
}

pub(super) fn parse(name: &str, text: Option<&Password>) -> Result<Login, SecretError> {
    // What serde says of it may repeat a part.
    let stored: Option<StoredLogin> =
        text.and_then(|text| serde_json::from_str(text.reveal()).ok());
    let stored = stored.filter(|stored| !stored.username.is_empty() && !stored.password.is_empty());
    let stored = stored.ok_or_else(|| {
        permanent(format!(
            "the secret {name} does not hold {{\"username\":\"…\",\"password\":\"…\"}} with both filled in"
        ))
    })?;
    Ok(Login {
        username: stored.username,
        password: stored.password.into(),
    })
}

fn from_environment(
    prefix: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Login, String> {
    let (user, pass) = (format!("{prefix}_USERNAME"), format!("{prefix}_PASSWORD"));
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    match (set(&user), set(&pass)) {
        (Some(username), Some(password)) => Ok(Login {
            username,
            password: password.into(),
        }),
        (None, Some(_)) => Err(format!("set {user}")),
        (Some(_), None) => Err(format!("set {pass}")),
        (None, None) => Err(format!("set {user} and {pass}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_login_is_given_up_when_two_repositories_take_it_for_a_wrong_one() {
        let logins = Logins::default();
        let nobody = CredentialsSource::Anonymous;
        let repository = "APP/web".parse().unwrap();
        let may_ask = async |url: &str| match logins.login(&nobody, &repository, url).await {
            Ok(_) => true,
            Err(err) => {
                assert_eq!((err.kind(), err.is_transient()), ("auth_failed", true));
                false
            }
        };
        let refuse = async |url: &str, refused| {
            let again = logins.after_refusal(&nobody, &repository, url, None, refused);
            assert!(again.await.unwrap().is_none());
        };

        // Who may not read one may read others, however many those are.
        for url in ["a", "b", "c"] {
            refuse(url, Refused::Access).await;
        }
        assert!(!may_ask("a").await);
        assert!(may_ask("d").await);
        // One alone may be broken.
        refuse("d", Refused::Login).await;
        refuse("d", Refused::Login).await;
        assert!(!may_ask("d").await);
        assert!(may_ask("e").await);
        // Two are a wrong login.
        refuse("e", Refused::Login).await;
        assert!(!may_ask("f").await);
        // Another space has another login.
        let other = CredentialsSource::Env { prefix: "X".into() };
        let err = logins.login(&other, &repository, "g").await.unwrap_err();
        assert_eq!(err.kind(), "credentials");
        // Somebody got in, such as a delivery that was under way.
        logins.accepted(&nobody);
        assert!(may_ask("f").await);
        assert!(!may_ask("e").await);
    }
}
