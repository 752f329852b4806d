//! Where a route's archive goes: an object key, or a template that makes one.

use std::{fmt, str::FromStr};

use crate::push::{InvalidName, RefName, RepositoryName};

/// The longest object key that S3 takes, in bytes.
const MAX_KEY_BYTES: usize = 1_024;

/// Where the routing table itself lives.
pub const ROUTES_KEY: &str = "config/routes.toml";

/// The key of an S3 object that an archive may be written to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key as S3 takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no [`ObjectKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing.
    #[error("expected an object key, found nothing")]
    Empty,
    /// S3 would refuse it.
    #[error("expected an object key of at most {MAX_KEY_BYTES} bytes, found {bytes} bytes")]
    TooLong {
        /// The key's length.
        bytes: usize,
    },
    /// Clients disagree on what such a key means.
    #[error(
        "expected an object key without `/` at the start, `.` and `..` between slashes, and control characters, found {0:?}"
    )]
    Ambiguous(String),
    /// The routing table would be overwritten.
    #[error("{ROUTES_KEY} is the routing table; expected another object key")]
    RoutingTable,
}

impl FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            Err(KeyError::Empty)
        } else if text.len() > MAX_KEY_BYTES {
            Err(KeyError::TooLong { bytes: text.len() })
        } else if text.starts_with('/')
            || text.contains(char::is_control)
            || text.split('/').any(|part| part == "." || part == "..")
        {
            Err(KeyError::Ambiguous(text.to_owned()))
        } else if text == ROUTES_KEY {
            Err(KeyError::RoutingTable)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object key in which `{project}`, `{repository}` and `{ref}` stand for those of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Project,
    Repository,
    Ref,
}

impl KeyTemplate {
    /// Whether two refs lead to two keys.
    pub(super) fn tells_refs_apart(&self) -> bool {
        self.0.contains(&Piece::Ref)
    }

    /// The key for one ref; `{ref}` is [`RefName::short`].
    pub(super) fn expand(
        &self,
        repository: &RepositoryName,
        ref_name: &RefName,
    ) -> Result<ObjectKey, KeyError> {
        self.fill(repository, ref_name.short()).parse()
    }

    /// The texts before, between and behind the places of the ref, one more than there are such places. All else is
    /// filled in: two globs share them if and only if every ref leads both to the same key.
    pub(super) fn around_ref(&self, repository: &RepositoryName) -> Vec<String> {
        let mut texts = vec![String::new()];
        for piece in &self.0 {
            match (piece, texts.last_mut()) {
                (Piece::Ref, _) => texts.push(String::new()),
                (other, Some(text)) => text.push_str(other.text(repository, "")),
                (_, None) => {}
            }
        }
        texts
    }

    /// What all keys begin with that refs of a repository lead to.
    pub(super) fn start(&self, repository: &RepositoryName) -> String {
        self.around_ref(repository).swap_remove(0)
    }

    /// The refs that lead to `key`, of branches, tags, and anything else.
    pub(super) fn refs(&self, repository: &RepositoryName, key: &str) -> Vec<RefName> {
        let around = self.around_ref(repository);
        let (times, written) = (around.len() - 1, around.iter().map(String::len).sum());
        // Each `{ref}` takes an equal part of what is not written out.
        let length = key
            .len()
            .checked_sub(written)
            .and_then(|left| left.checked_div(times));
        let start = around[0].len();
        let short = length.and_then(|length| key.get(start..start + length));
        let names = short.into_iter().flat_map(|short| {
            ["refs/heads/", "refs/tags/", "refs/"].map(|space| format!("{space}{short}").parse())
        });
        let leads_here = |name: &RefName| {
            self.expand(repository, name)
                .is_ok_and(|own| own.as_str() == key)
        };
        names.flatten().filter(leads_here).collect()
    }

    fn fill(&self, repository: &RepositoryName, short_ref: &str) -> String {
        self.0
            .iter()
            .map(|piece| piece.text(repository, short_ref))
            .collect()
    }
}

impl Piece {
    fn text<'a>(&'a self, repository: &'a RepositoryName, short_ref: &'a str) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Project => repository.project(),
            Self::Repository => repository.repository(),
            Self::Ref => short_ref,
        }
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            f.write_str(match piece {
                Piece::Literal(text) => text,
                Piece::Project => "{project}",
                Piece::Repository => "{repository}",
                Piece::Ref => "{ref}",
            })?;
        }
        Ok(())
    }
}

impl FromStr for KeyTemplate {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || {
            InvalidName::new(
                "an object key in which braces stand around project, repository or ref only",
                text,
            )
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, braces) = rest.split_at(at);
            let (name, after) = braces
                .strip_prefix('{')
                .and_then(|braces| braces.split_once('}'))
                .ok_or_else(invalid)?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            pieces.push(match name {
                "project" => Piece::Project,
                "repository" => Piece::Repository,
                "ref" => Piece::Ref,
                _ => return Err(invalid()),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_one_that_every_client_reads_alike() {
        let longest = "k".repeat(MAX_KEY_BYTES);
        let too_long = "画".repeat(342);
        for (case, text, valid) in [
            ("a key", "web/main.zip", true),
            ("Japanese", "開発/画面.zip", true),
            ("a space", "web/main branch.zip", true),
            ("as long as S3 takes", &longest, true),
            ("beside the routing table", "config/web.zip", true),
            ("too long in bytes", &too_long, false),
            ("nothing", "", false),
            ("a slash at the start", "/web.zip", false),
            ("a line break", "web\n.zip", false),
            ("the folder above", "web/../x.zip", false),
            ("the folder itself", "./web.zip", false),
            ("the routing table", "config/routes.toml", false),
        ] {
            assert_eq!(text.parse::<ObjectKey>().is_ok(), valid, "{case}");
        }
    }

    #[test]
    fn a_template_fills_in_what_was_pushed() {
        let repository = "APP/web".parse().unwrap();
        for (case, template, ref_name, expected) in [
            ("literal", "web.zip", "refs/heads/main", Some("web.zip")),
            (
                "all three",
                "{project}/{repository}/{ref}.zip",
                "refs/heads/main",
                Some("APP/web/main.zip"),
            ),
            ("a tag", "{ref}.zip", "refs/tags/v1", Some("v1.zip")),
            (
                "a ref with slashes",
                "{ref}.zip",
                "refs/heads/a/b",
                Some("a/b.zip"),
            ),
            (
                "another kind of ref",
                "{ref}.zip",
                "refs/pull/3/head",
                Some("pull/3/head.zip"),
            ),
            ("twice", "{ref}/{ref}", "refs/heads/x", Some("x/x")),
            (
                "onto the routing table",
                "config/{ref}.toml",
                "refs/heads/routes",
                None,
            ),
        ] {
            let template: KeyTemplate = template.parse().unwrap();
            let key = template
                .expand(&repository, &ref_name.parse().unwrap())
                .ok();
            assert_eq!(key.as_ref().map(ObjectKey::as_str), expected, "{case}");
        }
        for (case, template) in [
            ("unknown", "{branch}.zip"),
            ("upper case", "{REF}.zip"),
            ("blanks", "{ ref }.zip"),
            ("empty", "{}.zip"),
            ("not closed", "{ref.zip"),
            ("not opened", "ref}.zip"),
            ("twice opened", "{{ref}}.zip"),
        ] {
            assert!(template.parse::<KeyTemplate>().is_err(), "{case}");
        }
    }

    #[test]
    fn a_long_expansion_says_how_long() {
        let template: KeyTemplate = "{ref}/{ref}.zip".parse().unwrap();
        let ref_name = format!("refs/heads/{}", "n".repeat(600)).parse().unwrap();
        let error = template
            .expand(&"APP/web".parse().unwrap(), &ref_name)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected an object key of at most 1024 bytes, found 1205 bytes"
        );
    }

    proptest! {
        #[test]
        fn a_template_expands_as_replacing_would(
            pieces in prop::collection::vec(
                prop_oneof![Just("{project}".to_owned()), Just("{repository}".to_owned()), Just("{ref}".to_owned()), "[a-z/.画-]{1,5}"],
                1..6,
            ),
        ) {
            let text = pieces.concat();
            let template: KeyTemplate = text.parse().unwrap();
            let repository = "APP/web".parse().unwrap();
            let replaced = text.replace("{project}", "APP").replace("{repository}", "web").replace("{ref}", "a/b");
            prop_assert_eq!(template.expand(&repository, &"refs/heads/a/b".parse().unwrap()), replaced.parse());
            prop_assert_eq!(template.around_ref(&repository).join("a/b"), replaced);
        }
    }
}
