//! What a push is about: a repository, a ref, and the commits that were named.
//!
//! Every type here can only hold a valid value, so nothing downstream checks again.

use std::{fmt, str::FromStr};

use gix::bstr::ByteSlice;

use crate::space::SpaceUrl;

/// The longest project key, repository name or ref that is accepted, in bytes. File systems and Git servers stop at 255.
const MAX_NAME_BYTES: usize = 1024;

/// Text that is not what it should be. The message says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct InvalidName {
    expected: &'static str,
    found: String,
}

impl InvalidName {
    pub(crate) fn new(expected: &'static str, found: &str) -> Self {
        Self {
            expected,
            found: found.to_owned(),
        }
    }

    /// What was expected, for a message that must not repeat what was found.
    #[must_use]
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

/// A repository of a space, as Backlog names it: `<project key>/<repository>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName {
    full: String,
    slash: usize,
}

impl RepositoryName {
    /// The project key, such as `APP`.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.full[..self.slash]
    }

    /// The repository's own name, such as `web`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.full[self.slash + 1..]
    }

    /// Both parts, such as `APP/web`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// The URL to fetch the repository from, percent-encoded where a URL needs it.
    #[must_use]
    pub fn url_in(&self, space: &SpaceUrl) -> String {
        space.repository_url(self.project(), self.repository())
    }

    /// Takes the URL of a repository apart, with or without `.git` and a slash at the end. `None` if it is no such URL.
    #[must_use]
    pub fn from_url(url: &str) -> Option<(SpaceUrl, Self)> {
        let (space, project, repository) = SpaceUrl::split_repository_url(url)?;
        let name = format!("{project}/{repository}").parse().ok()?;
        Some((space, name))
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName::new("a repository as PROJECT/repository", text);
        let (project, repository) = text.split_once('/').ok_or_else(invalid)?;
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.len() <= MAX_NAME_BYTES
                && !part.contains(|c: char| c == '/' || c == '\\' || c.is_control())
        };
        if !plain(project) || !plain(repository) {
            return Err(invalid());
        }
        Ok(Self {
            full: text.to_owned(),
            slash: project.len(),
        })
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A ref's full name, such as `refs/heads/main`. Valid exactly where `git check-ref-format` says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// The full name, such as `refs/heads/main`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without `refs/heads/` or `refs/tags/`: what people call the branch or the tag.
    #[must_use]
    pub fn short(&self) -> &str {
        let name = self.as_str();
        name.strip_prefix("refs/heads/")
            .or_else(|| name.strip_prefix("refs/tags/"))
            .unwrap_or_else(|| &name["refs/".len()..])
    }
}

impl FromStr for RefName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = text.starts_with("refs/")
            && text.len() <= MAX_NAME_BYTES
            && gix::validate::reference::name(text.as_bytes().as_bstr()).is_ok();
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::new("a full ref name as refs/heads/main", text))
        }
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a commit: 40 hexadecimal digits, never all zeros (which is how Git writes "no commit").
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(gix::ObjectId);

impl CommitId {
    /// The id as Git's own type.
    #[must_use]
    pub fn object_id(self) -> gix::ObjectId {
        self.0
    }
}

impl From<gix::ObjectId> for CommitId {
    fn from(id: gix::ObjectId) -> Self {
        Self(id)
    }
}

impl FromStr for CommitId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        gix::ObjectId::from_hex(text.as_bytes())
            .ok()
            .filter(|id| id.kind() == gix::hash::Kind::Sha1 && !id.is_null())
            .map(Self)
            .ok_or_else(|| InvalidName::new("a commit id of 40 hexadecimal digits", text))
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One push, as a webhook told of it. A hint only: it picks the routes to look at, and the Git server tells the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEvent {
    /// Where the space's repositories are; `None` from a project webhook, which names no host.
    pub space_url: Option<SpaceUrl>,
    /// The repository that was pushed to.
    pub repository: RepositoryName,
    /// The ref that was pushed.
    pub ref_name: RefName,
    /// Whether the push deleted it.
    pub is_deleted: bool,
    /// The commit that the ref pointed to before the push, if the webhook says so.
    pub before: Option<CommitId>,
    /// Commits that the push brought, in no certain order and maybe none. One of them is probably the new tip.
    pub commits: Vec<CommitId>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repository_names_have_two_plain_parts() {
        let long = format!("APP/{}", "n".repeat(250));
        for (case, text, expected) in [
            ("project and repository", "APP/web", true),
            ("an at sign", "APP/web@2", true),
            ("Japanese", "開発/画面", true),
            ("an escape stays as it is", "APP/we%2Fb", true),
            ("250 bytes", long.as_str(), true),
            ("no project", "web", false),
            ("empty project", "/web", false),
            ("empty repository", "APP/", false),
            ("a path", "APP/web/..", false),
            ("the folder above", "APP/..", false),
            ("a line break", "APP/we\nb", false),
            ("a backslash", "APP\\x/web", false),
        ] {
            let name = text.parse::<RepositoryName>().ok().map(|n| n.to_string());
            assert_eq!(name.as_deref(), expected.then_some(text), "{case}: {text}");
        }
        let name: RepositoryName = "APP/web".parse().unwrap();
        assert_eq!((name.project(), name.repository()), ("APP", "web"));
    }

    #[test]
    fn a_short_ref_is_what_people_call_it() {
        for (full, short) in [
            ("refs/heads/main", "main"),
            ("refs/heads/release/1.0", "release/1.0"),
            ("refs/tags/v1", "v1"),
            ("refs/pull/3/head", "pull/3/head"),
        ] {
            assert_eq!(full.parse::<RefName>().unwrap().short(), short);
        }
    }

    #[test]
    fn a_commit_id_is_40_hex_digits_and_not_zero() {
        for (case, text, expected) in [
            (
                "lower case",
                "00112233445566778899aabbccddeeff00112233",
                true,
            ),
            ("zeros", "0000000000000000000000000000000000000000", false),
            ("too short", "00112233", false),
            (
                "SHA-256",
                "00112233445566778899aabbccddeeff0011223300112233445566778899aabb",
                false,
            ),
            ("not hex", "z0112233445566778899aabbccddeeff00112233", false),
        ] {
            assert_eq!(text.parse::<CommitId>().is_ok(), expected, "{case}");
        }
    }

    #[test]
    fn a_repository_url_names_the_space_and_the_repository() {
        for (case, url, expected) in [
            (
                "as Backlog sends it",
                "https://example.backlog.com/git/APP/web",
                Some("APP/web"),
            ),
            (
                "as git fetches it",
                "https://example.backlog.com/git/APP/web.git",
                Some("APP/web"),
            ),
            (
                "a slash at the end",
                "https://example.backlog.com/git/APP/web/",
                Some("APP/web"),
            ),
            (
                "encoded",
                "https://example.backlog.com/git/APP/%E7%94%BB%E9%9D%A2.git",
                Some("APP/画面"),
            ),
            (
                "not encoded",
                "https://example.backlog.com/git/APP/画面",
                Some("APP/画面"),
            ),
            (
                "a lone percent sign",
                "https://example.backlog.com/git/APP/100%",
                Some("APP/100%"),
            ),
            (
                "an encoded slash",
                "https://example.backlog.com/git/APP/we%2Fb",
                None,
            ),
            (
                "an encoded dot",
                "https://example.backlog.com/git/APP/%2E%2E",
                None,
            ),
            ("not UTF-8", "https://example.backlog.com/git/APP/%ff", None),
            ("no repository", "https://example.backlog.com", None),
            ("nothing", "", None),
        ] {
            let split = RepositoryName::from_url(url);
            let name = split.as_ref().map(|(_, name)| name.as_str());
            assert_eq!(name, expected, "{case}");
            if let Some((space, _)) = split {
                assert_eq!(
                    space.to_string(),
                    "https://example.backlog.com/git",
                    "{case}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_repository_url_reads_back(project in "[^/\\\\\\pC]{1,8}", repository in "[^/\\\\\\pC]{1,12}") {
            let Ok(name) = format!("{project}/{repository}").parse::<RepositoryName>() else {
                return Ok(());
            };
            for space in ["https://example.backlog.com/git", "http://localhost:3000"] {
                let space: SpaceUrl = space.parse().unwrap();
                let url = name.url_in(&space);
                prop_assert!(url.is_ascii());
                prop_assert_eq!(RepositoryName::from_url(&url), Some((space, name.clone())));
            }
        }
    }
}
