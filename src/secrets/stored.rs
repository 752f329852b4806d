//! What a person keeps in a secret: the login that a deployed bridge reads repositories with.

use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::{Login, SecretError, Vault, Version, login, permanent};

impl Vault {
    /// The login that a secret holds; `None` while it is not filled in.
    ///
    /// # Errors
    ///
    /// [`SecretError`]; it says what to do about a secret that is to be deleted.
    pub async fn login(&self, name: &str) -> Result<Option<Login>, SecretError> {
        match self.read(name, Version::Current).await {
            Ok(text) => Ok(login::parse(name, text.as_ref()).ok()),
            Err(err) => match self.deletion(name).await {
                Some(date) => Err(permanent(format!(
                    "the secret {name} is to be deleted since {date}, and cannot be read or filled in; bring it back: aws \
                     secretsmanager restore-secret --secret-id {name}"
                ))),
                None => Err(err),
            },
        }
    }

    /// Stores a login as the secret's new version. The one before stays, and is nobody's any more.
    ///
    /// # Errors
    ///
    /// [`SecretError`].
    pub async fn store_login(&self, name: &str, login: &Login) -> Result<(), SecretError> {
        let text = json!({"username": login.username, "password": login.password.reveal()});
        self.write(name, &text.to_string().into()).await
    }

    /// Since when a secret is to be deleted, if it is.
    async fn deletion(&self, name: &str) -> Option<String> {
        let request = self.client().await.describe_secret().secret_id(name);
        let secret = Box::pin(request.send()).await.ok()?;
        let date = secret.deleted_date?;
        let date = time::OffsetDateTime::from_unix_timestamp(date.secs()).ok()?;
        date.format(&Rfc3339).ok()
    }
}
