//! Keys of Backlog's API: read, and kept by nobody but who asked.

use serde::Deserialize;

use super::{Password, SecretError, Vault, Version, permanent};
use crate::route::ApiKeySource;

/// The secret's text. Other fields are ignored.
#[derive(Deserialize)]
struct StoredKey {
    api_key: String,
}

/// The key that `source` names.
///
/// # Errors
///
/// [`SecretError`] if it cannot be had, and says what is missing.
pub async fn read_api_key(source: &ApiKeySource) -> Result<Password, SecretError> {
    match source {
        ApiKeySource::Env { prefix } => {
            let name = format!("{prefix}_API_KEY");
            let key = std::env::var(&name).ok().filter(|key| !key.is_empty());
            key.map(Into::into)
                .ok_or_else(|| permanent(format!("set {name}")))
        }
        ApiKeySource::Secret { name } => {
            let text = Vault::default().read(name, Version::Current).await?;
            parse(text.as_ref()).ok_or_else(|| {
                permanent(format!(
                    "the secret {name} does not hold {{\"api_key\":\"…\"}} with the key filled in"
                ))
            })
        }
    }
}

/// The key that a secret's text holds, if it holds one.
pub(super) fn parse(text: Option<&Password>) -> Option<Password> {
    // What serde says of it may repeat a part.
    let stored: Option<StoredKey> = text.and_then(|text| serde_json::from_str(text.reveal()).ok());
    let stored = stored.filter(|stored| !stored.api_key.is_empty());
    stored.map(|stored| stored.api_key.into())
}
