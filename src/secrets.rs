//! Who we are on a Git server, and who may post a webhook: passwords and tokens that cannot be printed. The home of
//! `aws-sdk-secretsmanager`.

mod api_key;
mod login;
mod look;
mod stored;
mod token;

use std::{fmt, sync::Arc};

use aws_sdk_secretsmanager::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_secret_value::{GetSecretValueError, GetSecretValueOutput},
};
use subtle::ConstantTimeEq;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

pub use self::{
    api_key::read_api_key,
    login::{Login, Logins},
    look::{Held, api_key_in, login_in, tokens_in},
    token::{InvalidToken, Token, TokenPair, Tokens},
};
use crate::{
    aws::{self, Failure, Service},
    error::Source,
};

/// A text that cannot be printed.
/// A clone is the same text, which is wiped when the last one goes.
#[derive(Clone)]
pub struct Password(Arc<Zeroizing<String>>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Arc::new(text.into()))
    }
}

impl Password {
    /// The password itself, for the transport and nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether both are the same. How long it takes tells nothing but the length.
    fn is(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[password]")
    }
}

/// AWS Secrets Manager. Nothing is looked up before the first secret is read.
#[derive(Debug, Default)]
pub struct Vault {
    client: OnceCell<Client>,
}

/// A version of a secret, by the label that a rotation moves on.
#[derive(Debug, Clone, Copy)]
enum Version {
    Current,
    Previous,
}

/// Why a secret cannot be had, or not be changed. The text never holds any of it.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SecretError {
    reason: String,
    transient: bool,
    source: Option<Source>,
}

impl SecretError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}

impl Vault {
    /// Reads a secret's text; `None` if it has no such version.
    async fn read(&self, name: &str, version: Version) -> Result<Option<Password>, SecretError> {
        match self.ask(name, version).await {
            Ok(secret) => match secret.secret_string {
                Some(text) => Ok(Some(text.into())),
                None => Err(SecretError {
                    reason: format!("the secret {name} is binary; store it as text"),
                    transient: false,
                    source: None,
                }),
            },
            Err(err)
                if matches!(version, Version::Previous)
                    && err.code() == Some("ResourceNotFoundException") =>
            {
                Ok(None)
            }
            Err(err) => Err(error("read", name, &err)),
        }
    }

    async fn ask(
        &self,
        name: &str,
        version: Version,
    ) -> Result<GetSecretValueOutput, SdkError<GetSecretValueError>> {
        let client = self.client().await;
        let stage = match version {
            Version::Current => "AWSCURRENT",
            Version::Previous => "AWSPREVIOUS",
        };
        let request = client
            .get_secret_value()
            .secret_id(name)
            .version_stage(stage);
        Box::pin(request.send()).await
    }

    /// Gives a secret another text. What it held until now is its previous version.
    async fn write(&self, name: &str, text: &Password) -> Result<(), SecretError> {
        let client = self.client().await;
        let request = client.put_secret_value().secret_id(name);
        let sent = Box::pin(request.secret_string(text.reveal()).send()).await;
        sent.map(drop).map_err(|err| error("change", name, &err))
    }

    async fn client(&self) -> &Client {
        let client = self.client.get_or_init(|| async {
            let config = aws_sdk_secretsmanager::config::Builder::from(aws::sdk_config().await);
            Client::from_conf(config.timeout_config(aws::small_answers()).build())
        });
        client.await
    }
}

fn error<E>(doing: &str, name: &str, err: &SdkError<E>) -> SecretError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Failure {
        transient,
        advice,
        words,
        ..
    } = Failure::of(Service::SecretsManager, err);
    SecretError {
        reason: format!("cannot {doing} the secret {name}{advice}"),
        transient,
        source: Some(words.into()),
    }
}

/// What nothing but a change by somebody mends.
fn permanent(reason: String) -> SecretError {
    SecretError {
        reason,
        transient: false,
        source: None,
    }
}
