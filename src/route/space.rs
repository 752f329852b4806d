//! A space of the table, and where its login comes from.

use std::str::FromStr;

use crate::space::SpaceUrl;

/// A Backlog space: where its repositories are and who may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    pub(super) name: Option<String>,
    pub(super) url: SpaceUrl,
    pub(super) credentials: CredentialsSource,
    /// Where its URL is in the file, from 1.
    pub(super) line: usize,
}

/// Where a user name and a password come from; never the two themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CredentialsSource {
    /// Nowhere: the server is asked without.
    Anonymous,
    /// The environment: `{prefix}_USERNAME` and `{prefix}_PASSWORD`.
    Env {
        /// How both variables begin, such as `BACKLOG`.
        prefix: String,
    },
    /// AWS Secrets Manager: a secret that holds JSON, `{"username":…,"password":…}`.
    Secret {
        /// The secret's name or ARN.
        name: String,
    },
}

impl Space {
    /// The name that routes call the space by, when there are several.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the space's repositories are.
    #[must_use]
    pub fn url(&self) -> &SpaceUrl {
        &self.url
    }

    /// Who may read them.
    #[must_use]
    pub fn credentials(&self) -> &CredentialsSource {
        &self.credentials
    }
}

/// A text that names no source of credentials. It is not repeated: it may be a password in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected credentials as \"secret:NAME\" or \"env:PREFIX\"")]
pub struct InvalidCredentialsSource;

impl FromStr for CredentialsSource {
    type Err = InvalidCredentialsSource;

    fn from_str(text: &str) -> Result<Self, InvalidCredentialsSource> {
        let holds = |text: &str, others: &[u8]| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
        };
        match text.split_once(':') {
            Some(("secret", name)) if !name.is_empty() && holds(name, b"/_+=.@-!:") => {
                Ok(Self::Secret { name: name.into() })
            }
            Some(("env", prefix))
                if prefix.starts_with(|c: char| c.is_ascii_alphabetic()) && holds(prefix, b"_") =>
            {
                let prefix = prefix.into();
                Ok(Self::Env { prefix })
            }
            _ => Err(InvalidCredentialsSource),
        }
    }
}
