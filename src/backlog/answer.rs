//! What Backlog's API answers, as far as it is used. Real answers have `null` in nearly every field; so every one that is no
//! id may be absent.

use serde::{Deserialize, Deserializer};

use crate::secrets::Password;

/// The number that Backlog gives to a role that may do everything in a space.
const ADMINISTRATOR: i64 = 1;

/// The number of the activity "Git pushed".
pub const PUSHED: i64 = 12;

/// The number of the activity "pull request added".
pub const OPENED: i64 = 18;

/// The user that a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user's number.
    pub id: i64,
    /// The name to log in with.
    pub user_id: Option<String>,
    /// The name that people see.
    pub name: Option<String>,
    /// 1 administrator, 2 normal user, 3 reporter, 4 viewer, 5 guest reporter, 6 guest viewer.
    pub role_type: Option<i64>,
}

impl User {
    /// Whether the user may do everything in the space.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.role_type == Some(ADMINISTRATOR)
    }

    /// What the user may do, in words; `None` for a role that is not known.
    #[must_use]
    pub fn role(&self) -> Option<&'static str> {
        Some(match self.role_type? {
            ADMINISTRATOR => "an administrator",
            2 => "a normal user",
            3 => "a reporter",
            4 => "a viewer",
            5 => "a guest reporter",
            6 => "a guest viewer",
            _ => return None,
        })
    }
}

/// What a space says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// How its host begins, such as `example`.
    pub space_key: Option<String>,
    /// The name that people see.
    pub name: Option<String>,
    /// `ja` or `en`.
    pub lang: Option<String>,
    /// `backlog` or `markdown`.
    pub text_formatting_rule: Option<String>,
    /// Such as `Asia/Tokyo`.
    pub timezone: Option<String>,
}

/// How many requests a user may send in this minute, by what they do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RateLimit {
    /// Requests that change nothing.
    pub read: Option<Allowance>,
    /// Requests that change something.
    pub update: Option<Allowance>,
    /// Searches.
    pub search: Option<Allowance>,
}

/// One of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Allowance {
    /// In a minute.
    pub limit: Option<i64>,
    /// Of them, how many are left.
    pub remaining: Option<i64>,
    /// When the minute is over, in seconds of Unix time.
    pub reset: Option<i64>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Its number.
    pub id: i64,
    /// Its key, such as `APP`.
    pub project_key: Option<String>,
    /// The name that people see.
    pub name: Option<String>,
    /// Whether it has Git repositories.
    pub use_git: Option<bool>,
    /// Whether it is put away.
    pub archived: Option<bool>,
    /// `backlog` or `markdown`.
    pub text_formatting_rule: Option<String>,
}

/// A Git repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// Its number.
    pub id: i64,
    /// Its name, such as `web`.
    pub name: Option<String>,
    /// Where its own webhook posts to, which may hold a token. The API cannot change it.
    #[serde(default, deserialize_with = "secret")]
    pub hook_url: Option<Password>,
    /// Where it is fetched from.
    pub http_url: Option<String>,
    /// When somebody pushed last.
    pub pushed_at: Option<String>,
}

/// A webhook of a project.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its number. A later webhook has a higher one.
    pub id: i64,
    /// The name that people see.
    pub name: Option<String>,
    /// Where it posts to. The URL may hold a token.
    #[serde(default, deserialize_with = "secret")]
    pub hook_url: Option<Password>,
    /// Whether it posts every activity.
    pub all_event: Option<bool>,
    /// The activities that it posts, if not all.
    pub activity_type_ids: Option<Vec<i64>>,
    /// When it was registered.
    pub created: Option<String>,
}

impl Webhook {
    /// Whether it posts pushes.
    #[must_use]
    pub fn posts_pushes(&self) -> bool {
        let types = self.activity_type_ids.as_deref().unwrap_or_default();
        self.all_event == Some(true) || types.contains(&PUSHED)
    }

    /// Whether it posts pull requests that are opened.
    #[must_use]
    pub fn posts_opened(&self) -> bool {
        let types = self.activity_type_ids.as_deref().unwrap_or_default();
        self.all_event == Some(true) || types.contains(&OPENED)
    }
}

/// Something that happened in a project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Activity {
    /// Its number. A later activity has a higher one.
    pub id: i64,
    /// When it happened.
    pub created: Option<String>,
    /// What it was about.
    pub content: Option<Content>,
    /// Who did it.
    #[serde(rename = "createdUser")]
    pub created_user: Option<Author>,
}

/// What a push was about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Content {
    /// The repository.
    pub repository: Option<Named>,
    /// The ref in full.
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    /// Its commits.
    pub revisions: Option<Vec<Revision>>,
}

/// A commit of a push.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Revision {
    /// Its id.
    pub rev: Option<String>,
}

/// Whoever did something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Author {
    /// The user's number.
    pub id: i64,
}

/// Something with a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// The name.
    pub name: Option<String>,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullRequest {
    /// Its number in the repository.
    pub number: i64,
    /// The branch that it goes to.
    pub base: Option<String>,
    /// The branch that it is about.
    pub branch: Option<String>,
    /// What became of it.
    pub status: Option<Status>,
    /// The commit that it came in with.
    pub merge_commit: Option<String>,
    /// When it was merged.
    pub merge_at: Option<String>,
    /// When it was closed.
    pub close_at: Option<String>,
    /// Who opened it.
    pub created_user: Option<Author>,
}

/// What became of a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The number of the status.
    pub id: i64,
}

impl PullRequest {
    /// The status of one that is open.
    pub const OPEN: i64 = 1;

    /// The status of one that was closed and not merged.
    pub const CLOSED: i64 = 2;

    /// The status of one that was merged.
    pub const MERGED: i64 = 3;
}

/// A comment of a pull request or an issue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    /// Its number. A later comment has a higher one.
    pub id: i64,
    /// What it says.
    pub content: Option<String>,
    /// Who wrote it.
    pub created_user: Option<Author>,
    /// When it last changed.
    pub updated: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Password>, D::Error> {
    Ok(Option::<String>::deserialize(text)?.map(Into::into))
}
