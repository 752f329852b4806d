//! A space of the table, and where its login and its API key come from.

use std::str::FromStr;

use super::{Results, ResultsIssue};
use crate::{push::InvalidName, space::SpaceUrl};

/// A Backlog space: where its repositories are and who may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    pub(super) name: Option<String>,
    pub(super) url: SpaceUrl,
    pub(super) credentials: CredentialsSource,
    pub(super) api_key: Option<ApiKeySource>,
    pub(super) language: Option<Language>,
    pub(super) results: Results,
    pub(super) results_issue: Option<ResultsIssue>,
    pub(super) results_detail: bool,
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

/// Where a key of Backlog's API comes from; never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ApiKeySource {
    /// The environment: `{prefix}_API_KEY`.
    Env {
        /// How the variable begins, such as `BACKLOG`.
        prefix: String,
    },
    /// AWS Secrets Manager: a secret that holds JSON, `{"api_key":…}`.
    Secret {
        /// The secret's name or ARN.
        name: String,
    },
}

/// The language of texts that go to Backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `ja`.
    Japanese,
    /// `en`.
    English,
}

/// Which variables of the environment count in place of secrets, in a table with one space. So one table works on a
/// developer's machine, which may read no secret, and in the functions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Preferred {
    /// `BACKLOG_USERNAME` and `BACKLOG_PASSWORD` are set.
    pub login: bool,
    /// `BACKLOG_API_KEY` is set.
    pub api_key: bool,
}

/// How the variables begin that [`Preferred`] is about.
const PREFERRED: &str = "BACKLOG";

impl Preferred {
    /// The table's spaces with these variables in place of secrets.
    pub(super) fn apply(self, spaces: &mut [Space]) {
        let [space] = spaces else {
            return;
        };
        let prefix = || PREFERRED.to_owned();
        if self.login && matches!(space.credentials, CredentialsSource::Secret { .. }) {
            space.credentials = CredentialsSource::Env { prefix: prefix() };
        }
        if self.api_key && matches!(space.api_key, Some(ApiKeySource::Secret { .. })) {
            space.api_key = Some(ApiKeySource::Env { prefix: prefix() });
        }
    }
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

    /// Where its URL is in the file, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Who may read them.
    #[must_use]
    pub fn credentials(&self) -> &CredentialsSource {
        &self.credentials
    }

    /// The key of Backlog's API that the bridge itself may use.
    #[must_use]
    pub fn api_key(&self) -> Option<&ApiKeySource> {
        self.api_key.as_ref()
    }

    /// The language of texts that go to this space, if the table says it.
    #[must_use]
    pub fn language(&self) -> Option<Language> {
        self.language
    }

    /// The issue that is told of a run which no pull request is about, if there is to be one.
    #[must_use]
    pub fn results_issue(&self) -> Option<&ResultsIssue> {
        self.results_issue.as_ref()
    }

    /// Whether what AWS says of a failure is told, too.
    #[must_use]
    pub fn results_detail(&self) -> bool {
        self.results_detail
    }
}

/// A text that names no source of credentials. It is not repeated: it may be a password in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected credentials as \"secret:NAME\" or \"env:PREFIX\"")]
pub struct InvalidCredentialsSource;

impl FromStr for CredentialsSource {
    type Err = InvalidCredentialsSource;

    fn from_str(text: &str) -> Result<Self, InvalidCredentialsSource> {
        match source(text) {
            Some(Source::Secret(name)) => Ok(Self::Secret { name: name.into() }),
            Some(Source::Env(prefix)) => Ok(Self::Env {
                prefix: prefix.into(),
            }),
            None => Err(InvalidCredentialsSource),
        }
    }
}

/// A text that names no source of an API key. It is not repeated: it may be a key in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an API key as \"secret:NAME\" or \"env:PREFIX\"")]
pub struct InvalidApiKeySource;

impl FromStr for ApiKeySource {
    type Err = InvalidApiKeySource;

    fn from_str(text: &str) -> Result<Self, InvalidApiKeySource> {
        match source(text) {
            Some(Source::Secret(name)) => Ok(Self::Secret { name: name.into() }),
            Some(Source::Env(prefix)) => Ok(Self::Env {
                prefix: prefix.into(),
            }),
            None => Err(InvalidApiKeySource),
        }
    }
}

impl FromStr for Language {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "ja" => Ok(Self::Japanese),
            "en" => Ok(Self::English),
            _ => Err(InvalidName::new("\"ja\" or \"en\"", text)),
        }
    }
}

enum Source<'a> {
    Secret(&'a str),
    Env(&'a str),
}

/// `secret:NAME` or `env:PREFIX`.
fn source(text: &str) -> Option<Source<'_>> {
    let holds = |text: &str, others: &[u8]| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
    };
    match text.split_once(':')? {
        ("secret", name) if !name.is_empty() && holds(name, b"/_+=.@-!:") => {
            Some(Source::Secret(name))
        }
        ("env", prefix)
            if prefix.starts_with(|c: char| c.is_ascii_alphabetic()) && holds(prefix, b"_") =>
        {
            Some(Source::Env(prefix))
        }
        _ => None,
    }
}
