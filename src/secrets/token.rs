//! The webhook's token: what tells Backlog's requests from those of anybody else.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Password, SecretError, Vault, Version, permanent};
use crate::error::Error;

/// Shorter tokens could be guessed.
const MIN_CHARS: usize = 16;

/// How long the tokens are kept: after this, one that was taken back twice is refused for certain.
const KEPT: Duration = Duration::from_mins(5);

/// How often, at most, the secret is read because of a token that nobody knows. A rotated token is valid after this time at
/// the latest; somebody who guesses causes no more reads than this.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// A webhook token.
#[derive(Debug, Clone)]
pub struct Token(Password);

/// A text that cannot be a token. It is not repeated: it may be one with a blank at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a token of at least {MIN_CHARS} letters, digits, `-`, `.`, `_` and `~`, which fit into a URL as they are"
)]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if text.len() >= MIN_CHARS && text.bytes().all(plain) {
            Ok(Self(text.to_owned().into()))
        } else {
            Err(InvalidToken)
        }
    }
}

impl Token {
    /// One that nobody knows yet.
    #[must_use]
    pub fn new() -> Self {
        let text = Uuid::new_v4().simple().to_string();
        Self(text.into())
    }

    /// The token itself, for the URL that Backlog posts to and nobody else.
    #[must_use]
    pub fn reveal(&self) -> &Password {
        &self.0
    }

    /// Whether a text is the token. How long it takes tells nothing but the length.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.0.is(text)
    }
}

impl Default for Token {
    fn default() -> Self {
        Self::new()
    }
}

/// The token that new webhooks get, and the one that is valid besides.
#[derive(Debug, Clone)]
pub struct TokenPair {
    /// The newest.
    pub current: Token,
    /// The one before it, if there is one.
    pub previous: Option<Token>,
}

/// The tokens that are valid now.
#[derive(Debug)]
pub struct Tokens(Source);

#[derive(Debug)]
enum Source {
    Fixed(Token),
    /// A secret, of which the current and the previous version are valid.
    Secret {
        name: String,
        vault: Vault,
        known: Mutex<Option<KnownTokens>>,
    },
}

#[derive(Debug)]
struct KnownTokens {
    tokens: Vec<Token>,
    at: Instant,
}

impl KnownTokens {
    fn admits(&self, candidate: &str) -> bool {
        // All of them are compared, whatever the first one says.
        self.tokens
            .iter()
            .fold(false, |found, token| token.0.is(candidate) | found)
    }
}

impl Tokens {
    /// One token, for ever.
    #[must_use]
    pub fn fixed(token: Token) -> Self {
        Self(Source::Fixed(token))
    }

    /// The current and the previous version of a secret, by its name or ARN.
    #[must_use]
    pub fn in_secret(name: String) -> Self {
        Self(Source::Secret {
            name,
            vault: Vault::default(),
            known: Mutex::default(),
        })
    }

    /// Makes sure that tokens are known, whether they were good or not.
    ///
    /// # Errors
    ///
    /// As [`Tokens::admit`].
    pub async fn know(&self) -> Result<(), Error> {
        if self.are_known() {
            return Ok(());
        }
        self.admit("").await.map(drop)
    }

    /// Whether they were read before, and nobody reads them now.
    pub fn are_known(&self) -> bool {
        match &self.0 {
            Source::Fixed(_) => true,
            Source::Secret { known, .. } => known.try_lock().is_ok_and(|known| known.is_some()),
        }
    }

    /// The valid tokens, read now.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the secret cannot be read, or holds none.
    pub async fn read(&self) -> Result<TokenPair, SecretError> {
        match &self.0 {
            Source::Fixed(token) => Ok(TokenPair {
                current: token.clone(),
                previous: None,
            }),
            Source::Secret { name, vault, .. } => read(vault, name).await,
        }
    }

    /// Whether [`Tokens::turn`] can be.
    #[must_use]
    pub fn can_turn(&self) -> bool {
        matches!(self.0, Source::Secret { .. })
    }

    /// Gives the secret a new token. The one that was current is the previous one now; the one before that is valid no more.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the secret cannot be changed, or there is none.
    pub async fn turn(&self) -> Result<(), SecretError> {
        match &self.0 {
            Source::Fixed(_) => Err(permanent("the token is in no secret".into())),
            Source::Secret { name, vault, .. } => vault.write(name, Token::new().reveal()).await,
        }
    }

    /// Whether `candidate` is a valid token. Takes the same time for any that is not, but for one read of the secret.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] if the secret cannot be read and no tokens are known from before.
    pub async fn admit(&self, candidate: &str) -> Result<bool, Error> {
        let (name, vault, known) = match &self.0 {
            Source::Fixed(token) => return Ok(token.0.is(candidate)),
            Source::Secret { name, vault, known } => (name, vault, known),
        };
        let mut known = known.lock().await;
        if let Some(known) = &*known {
            let (age, admits) = (known.at.elapsed(), known.admits(candidate));
            if (admits && age < KEPT) || age < READ_AGAIN {
                return Ok(admits);
            }
        }
        match read(vault, name).await {
            Ok(TokenPair { current, previous }) => {
                let tokens = [Some(current), previous].into_iter().flatten().collect();
                let at = Instant::now();
                Ok(known.insert(KnownTokens { tokens, at }).admits(candidate))
            }
            Err(err) => {
                let err = Error::Token {
                    reason: err.reason,
                    transient: err.transient,
                    source: err.source,
                };
                let Some(known) = &*known else {
                    return Err(err);
                };
                tracing::warn!(
                    error = crate::error::chain(&err),
                    "using the tokens that were read before"
                );
                Ok(known.admits(candidate))
            }
        }
    }
}

async fn read(vault: &Vault, name: &str) -> Result<TokenPair, SecretError> {
    let (current, previous) = tokio::join!(
        vault.read(name, Version::Current),
        vault.read(name, Version::Previous)
    );
    let current = current?.ok_or_else(|| SecretError {
        reason: format!("the secret {name} has no current version"),
        transient: false,
        source: None,
    })?;
    let current: Token = current.reveal().trim().parse().map_err(|err| SecretError {
        reason: format!("the secret {name} holds no token"),
        transient: false,
        source: Some(Box::<InvalidToken>::new(err)),
    })?;
    // What was there before the first token, such as a note to fill it in, need not be one; nor need it be readable.
    let previous = match previous {
        Err(err) if err.transient => return Err(err),
        Err(_) => None,
        Ok(text) => text.and_then(|text| text.reveal().trim().parse().ok()),
    };
    Ok(TokenPair { current, previous })
}
