//! What a Git server answers to who fetches nothing: what time it is there, and whether it has LFS.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::Remote;
use crate::{
    error::{Error, host},
    network, plain,
};

/// A question for the contents of no file.
const EMPTY_BATCH: &str = r#"{"operation":"download","transfers":["basic"],"objects":[]}"#;

/// What LFS speaks.
const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// What a server answers to a question of LFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LfsAnswer {
    /// The status.
    pub status: u16,
    /// What it calls the answer's content.
    pub content_type: String,
}

impl LfsAnswer {
    /// Whether it has LFS.
    #[must_use]
    pub fn is_lfs(&self) -> bool {
        self.status == 200 && self.content_type.starts_with(LFS_JSON)
    }
}

impl Remote {
    /// What the host says to anybody, within `limit`: what time it is there, if it says so.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`].
    pub(crate) async fn greet(&self, limit: Duration) -> Result<Option<OffsetDateTime>, Error> {
        let client = network::http_client(&self.url).timeout(limit).build();
        let asked = match client {
            Ok(client) => client.head(host(&self.url)).send().await,
            Err(err) => Err(err),
        };
        match asked {
            Ok(answer) if matches!(answer.status().as_u16(), 407 | 511) => {
                let said = format!("the server answers {}", answer.status());
                Err(self.shut_out(said.into()))
            }
            Ok(answer) => {
                let date = answer.headers().get(reqwest::header::DATE);
                let date = date.and_then(|date| date.to_str().ok());
                Ok(date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()))
            }
            Err(err) => match self.unreachable(&err) {
                Some(unreachable) => Err(unreachable),
                // Somebody answered, if not in HTTP.
                None => Ok(None),
            },
        }
    }

    /// What the repository answers to a question of LFS for no file, within `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], or [`Error::Fetch`].
    pub(crate) async fn ask_lfs(&self, limit: Duration) -> Result<LfsAnswer, Error> {
        let failed = |err: reqwest::Error| {
            self.unreachable(&err).unwrap_or_else(|| Error::Fetch {
                repository: self.repository.clone(),
                transient: true,
                source: super::said(&err).into(),
            })
        };
        let url = format!("{}/info/lfs/objects/batch", self.url);
        let client = network::http_client(&self.url).timeout(limit).build();
        let mut request = client.map_err(failed)?.post(url).body(EMPTY_BATCH);
        for name in [reqwest::header::ACCEPT, reqwest::header::CONTENT_TYPE] {
            request = request.header(name, LFS_JSON);
        }
        if let Some(login) = &self.login {
            request = request.basic_auth(&login.username, Some(login.password.reveal()));
        }
        let answer = request.send().await.map_err(failed)?;
        let content_type = answer.headers().get(reqwest::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|kind| kind.to_str().ok());
        Ok(LfsAnswer {
            status: answer.status().as_u16(),
            content_type: plain::foreign(content_type.unwrap_or_default()),
        })
    }
}
