//! What a secret holds, for who looks and does not use it. A secret that somebody may not read says what that would need.

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;

use super::{Login, Password, Token, TokenPair, Vault, Version, api_key, login::parse};
use crate::aws::{CallError, Service};

/// What is in a secret.
#[derive(Debug)]
pub enum Held<T> {
    /// What should be.
    Filled(T),
    /// Nothing yet: what the template puts there.
    Empty,
    /// Something else.
    Other,
    /// There is no such secret, or it has no value.
    Missing,
    /// It is to be deleted, and cannot be read until it is restored.
    Deleted,
}

/// What the secret holds that should hold a login.
///
/// # Errors
///
/// [`CallError`] if it cannot be read.
pub async fn login_in(name: &str) -> Result<Held<Login>, CallError> {
    let text = match read(name, Version::Current).await? {
        Held::Filled(text) => text,
        other => return Ok(other.unfilled()),
    };
    let is_start = serde_json::from_str::<serde_json::Value>(text.reveal())
        .is_ok_and(|value| value["username"] == "" && value["password"] == "");
    Ok(match parse(name, Some(&text)) {
        Ok(login) => Held::Filled(login),
        Err(_) if is_start => Held::Empty,
        Err(_) => Held::Other,
    })
}

/// What the secret holds that should hold the webhook's token.
///
/// # Errors
///
/// [`CallError`] if it cannot be read.
pub async fn tokens_in(name: &str) -> Result<Held<TokenPair>, CallError> {
    let (current, previous) =
        tokio::join!(read(name, Version::Current), read(name, Version::Previous));
    let current = match current? {
        Held::Filled(text) => text,
        other => return Ok(other.unfilled()),
    };
    let token = |text: &Password| text.reveal().trim().parse::<Token>().ok();
    let previous = match previous? {
        Held::Filled(text) => token(&text),
        _ => None,
    };
    Ok(match token(&current) {
        Some(current) => Held::Filled(TokenPair { current, previous }),
        None if current.reveal().trim().is_empty() => Held::Empty,
        None => Held::Other,
    })
}

/// What the secret holds that should hold a key of Backlog's API.
///
/// # Errors
///
/// [`CallError`] if it cannot be read.
pub async fn api_key_in(name: &str) -> Result<Held<Password>, CallError> {
    let text = match read(name, Version::Current).await? {
        Held::Filled(text) => text,
        other => return Ok(other.unfilled()),
    };
    Ok(match api_key::parse(Some(&text)) {
        Some(key) => Held::Filled(key),
        None => Held::Other,
    })
}

impl<T> Held<T> {
    /// What is said of it without what it holds.
    pub fn state(&self) -> Held<()> {
        match self {
            Self::Filled(_) => Held::Filled(()),
            Self::Empty => Held::Empty,
            Self::Other => Held::Other,
            Self::Missing => Held::Missing,
            Self::Deleted => Held::Deleted,
        }
    }

    /// The same, where it holds nothing of use.
    fn unfilled<U>(self) -> Held<U> {
        match self {
            Self::Empty => Held::Empty,
            Self::Filled(_) | Self::Other => Held::Other,
            Self::Missing => Held::Missing,
            Self::Deleted => Held::Deleted,
        }
    }
}

async fn read(name: &str, version: Version) -> Result<Held<Password>, CallError> {
    match Vault::default().ask(name, version).await {
        Ok(secret) => Ok(match secret.secret_string {
            Some(text) => Held::Filled(text.into()),
            None => Held::Other,
        }),
        Err(err) => match err.code() {
            Some("ResourceNotFoundException") => Ok(Held::Missing),
            // The only state of a secret in which it is there and cannot be read.
            Some("InvalidRequestException") => Ok(Held::Deleted),
            _ => Err(CallError::of(
                "secretsmanager:GetSecretValue",
                Service::SecretsManager,
                &err,
            )),
        },
    }
}
