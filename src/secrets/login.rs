//! Logins of Git servers: read once, read again after a refusal, and then not tried over and over.

use std::{
    collections::HashMap,
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{Password, SecretError, Vault, Version};
use crate::{error::Error, push::RepositoryName, route::CredentialsSource};

/// How long a repository that refused a login is not asked again with the same one.
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
    /// Secrets by name. They are kept until a server refuses them.
    known: Mutex<HashMap<String, Login>>,
    /// By repository and not by space: one repository that the user may not read must not stop the others.
    refused: Mutex<HashMap<String, Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    login: Option<Login>,
    at: Instant,
}

/// The secret's text. Other fields are ignored.
#[derive(Deserialize)]
struct Stored {
    username: String,
    password: String,
}

impl Logins {
    /// The login that `source` names, for the repository at `url`; `None` if the space is read without one.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`] if it cannot be had, and names everything that is missing. [`Error::AuthFailed`] if the
    /// repository refused it in the last five minutes: somebody has to change the login or the user's rights first.
    pub async fn login(
        &self,
        source: &CredentialsSource,
        repository: &RepositoryName,
        url: &str,
    ) -> Result<Option<Login>, Error> {
        let refused_since = lock(&self.refused).get(url).map(|refusal| refusal.at);
        let Some(at) = refused_since.filter(|at| at.elapsed() < QUIET) else {
            return self.read(source, repository, true).await;
        };
        // Reading a secret does not trouble the Git server, and notices that somebody has mended it.
        let login = self.read(source, repository, false).await?;
        if self.is_refused(url, login.as_ref()) {
            return Err(Error::AuthFailed {
                repository: repository.clone(),
                advice: "it refused this login a short while ago and is not asked again for five minutes; change the \
                         secret, or the user's rights",
                source: format!("refused {} s ago", at.elapsed().as_secs()).into(),
            });
        }
        Ok(login)
    }

    /// After the repository at `url` refused `login`: another one that may have taken its place, to be tried once.
    /// `None` if there is none; then the repository is left alone for a while.
    pub async fn after_refusal(
        &self,
        source: &CredentialsSource,
        repository: &RepositoryName,
        url: &str,
        login: Option<Login>,
    ) -> Option<Login> {
        let refusal = Refusal {
            login,
            at: Instant::now(),
        };
        lock(&self.refused).insert(url.to_owned(), refusal);
        // If it cannot be read, the refusal is what people have to know.
        let login = self.read(source, repository, false).await.ok().flatten();
        login.filter(|login| !self.is_refused(url, Some(login)))
    }

    fn is_refused(&self, url: &str, login: Option<&Login>) -> bool {
        let refused = lock(&self.refused);
        match (refused.get(url).map(|refusal| &refusal.login), login) {
            (Some(Some(refused)), Some(login)) => refused.is(login),
            (Some(None), None) => true,
            _ => false,
        }
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
                if let Some(login) = lock(&self.known).get(name).filter(|_| may_be_known) {
                    return Ok(Some(login.clone()));
                }
                let text = self.vault.read(name, Version::Current).await;
                let login = text
                    .and_then(|text| parse(name, text.as_ref()))
                    .map_err(fail)?;
                lock(&self.known).insert(name.clone(), login.clone());
                Ok(Some(login))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it is held")
}

fn permanent(reason: String) -> SecretError {
    SecretError {
        reason,
        transient: false,
        source: None,
    }
}

fn parse(name: &str, text: Option<&Password>) -> Result<Login, SecretError> {
    // What serde says of it may repeat a part.
    let stored: Option<Stored> = text.and_then(|text| serde_json::from_str(text.reveal()).ok());
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
