//! Who we are on a Git server: a user name, and a password that cannot be printed.

use std::fmt;

use crate::{error::Error, push::RepositoryName, route::CredentialsSource};

/// A user name and a password. There is no way to print the latter.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Password,
}

/// A password that cannot be printed.
#[derive(Clone)]
pub struct Password(String);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Password {
    /// The password itself, for the transport and nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[password]")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.username, self.password)
    }
}

impl Login {
    /// Reads the login that `source` names; `None` if the space is read without one. `variable` is the environment.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`] names everything that is missing.
    pub fn read(
        source: &CredentialsSource,
        repository: &RepositoryName,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        let missing = |reason: String| Error::Credentials {
            repository: repository.clone(),
            reason,
        };
        match source {
            CredentialsSource::Anonymous => Ok(None),
            CredentialsSource::Env { prefix } => {
                let (user, pass) = (format!("{prefix}_USERNAME"), format!("{prefix}_PASSWORD"));
                let set = |name: &str| variable(name).filter(|value| !value.is_empty());
                match (set(&user), set(&pass)) {
                    (Some(username), Some(password)) => Ok(Some(Self {
                        username,
                        password: password.into(),
                    })),
                    (None, Some(_)) => Err(missing(format!("set {user}"))),
                    (Some(_), None) => Err(missing(format!("set {pass}"))),
                    (None, None) => Err(missing(format!("set {user} and {pass}"))),
                }
            }
            CredentialsSource::Secret { name } => Err(missing(format!(
                "the secret {name} is in AWS Secrets Manager, which is not read from here; use credentials = \"env:BACKLOG\""
            ))),
        }
    }
}
