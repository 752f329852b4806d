//! Which refs a route takes.

use std::{fmt, str::FromStr};

use crate::push::{InvalidName, RefName};

/// One full ref name, or a glob over full ref names.
///
/// In a glob, `*` stands for any characters, none and `/` among them, as in Git's own refspecs: `refs/heads/*` takes
/// `refs/heads/release/1.0` too. Names are compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RefPattern {
    /// One ref.
    Exact(RefName),
    /// Every ref that the text matches, in which there is at least one `*`.
    Glob(String),
}

impl RefPattern {
    /// Whether the pattern takes this ref.
    #[must_use]
    pub fn matches(&self, ref_name: &RefName) -> bool {
        match self {
            Self::Exact(exact) => exact == ref_name,
            Self::Glob(glob) => glob_matches(glob, ref_name.as_str()),
        }
    }

    /// The one ref that the pattern takes, or `None` if it is a glob.
    #[must_use]
    pub fn exact(&self) -> Option<&RefName> {
        match self {
            Self::Exact(exact) => Some(exact),
            Self::Glob(_) => None,
        }
    }

    /// How the names of all refs begin that the pattern takes.
    #[must_use]
    pub fn start(&self) -> &str {
        let text = self.as_str();
        text.split_once('*').map_or(text, |(start, _)| start)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(exact) => exact.as_str(),
            Self::Glob(glob) => glob,
        }
    }
}

/// Taking the first place where each part between two stars fits leaves the most for the parts that follow.
fn glob_matches(glob: &str, name: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else {
        return glob == name;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name
        .strip_prefix(start)
        .and_then(|name| name.strip_suffix(end))
    else {
        return false;
    };
    for part in middle.split('*') {
        let Some(at) = name.find(part) else {
            return false;
        };
        name = &name[at + part.len()..];
    }
    true
}

impl FromStr for RefPattern {
    type Err = InvalidName;

    /// A glob is valid if it is a ref name once each `*` is a letter.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !text.contains('*') {
            return text.parse().map(Self::Exact);
        }
        let expected = "a full ref name with `*` as refs/heads/release/*";
        match text.replace('*', "a").parse::<RefName>() {
            Ok(_) if text.starts_with("refs/") => Ok(Self::Glob(text.to_owned())),
            _ => Err(InvalidName::new(expected, text)),
        }
    }
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_is_a_full_ref_name_or_a_glob_of_one() {
        for (case, text, valid) in [
            ("a branch", "refs/heads/main", true),
            ("a glob", "refs/heads/release/*", true),
            ("a glob within a name", "refs/tags/v*", true),
            ("a glob in the middle", "refs/heads/*/stable", true),
            ("several stars", "refs/*/release-*", true),
            ("every ref", "refs/*", true),
            ("Japanese", "refs/heads/機能/*", true),
            ("a short name", "main", false),
            ("a short glob", "release/*", false),
            ("a bare star", "*", false),
            ("a star in refs", "ref*", false),
            ("a star for refs", "*/heads/main", false),
            ("a question mark", "refs/heads/v?", false),
            ("a class", "refs/heads/[ab]*", false),
            ("a name that no ref has", "refs/heads/*.lock", false),
            ("two slashes", "refs/heads//*", false),
            ("nothing", "", false),
        ] {
            let pattern = text.parse::<RefPattern>();
            assert_eq!(pattern.is_ok(), valid, "{case}: {text}");
            if let Ok(pattern) = pattern {
                assert_eq!(pattern.as_str(), text);
                assert_eq!(pattern.exact().is_none(), text.contains('*'), "{case}");
            }
        }
    }

    #[test]
    fn a_star_takes_anything_and_nothing_else_is_special() {
        for (case, pattern, name, expected) in [
            ("itself", "refs/heads/main", "refs/heads/main", true),
            ("another case", "refs/heads/main", "refs/heads/Main", false),
            (
                "a longer name",
                "refs/heads/main",
                "refs/heads/main2",
                false,
            ),
            (
                "below",
                "refs/heads/release/*",
                "refs/heads/release/1",
                true,
            ),
            ("far below", "refs/heads/*", "refs/heads/a/b/c", true),
            (
                "beside",
                "refs/heads/release/*",
                "refs/heads/release2/1",
                false,
            ),
            ("nothing for a star", "refs/tags/v*", "refs/tags/v", true),
            (
                "start and end do not overlap",
                "refs/heads/ab*ba",
                "refs/heads/aba",
                false,
            ),
            (
                "start and end meet",
                "refs/heads/ab*ba",
                "refs/heads/abba",
                true,
            ),
            ("two stars", "refs/*/v*", "refs/tags/v1", true),
            (
                "the last fit counts",
                "refs/heads/*a*b",
                "refs/heads/abab",
                true,
            ),
            (
                "parts in another order",
                "refs/heads/*a*b*c",
                "refs/heads/bac",
                false,
            ),
            (
                "two stars in a row",
                "refs/heads/**",
                "refs/heads/a/b",
                true,
            ),
            (
                "composed",
                "refs/heads/caf\u{e9}*",
                "refs/heads/caf\u{e9}1",
                true,
            ),
            (
                "decomposed",
                "refs/heads/caf\u{e9}*",
                "refs/heads/cafe\u{301}1",
                false,
            ),
        ] {
            let pattern: RefPattern = pattern.parse().unwrap();
            let name: RefName = name.parse().unwrap();
            assert_eq!(pattern.matches(&name), expected, "{case}");
        }
    }

    /// What a glob means, in the plainest words: slow, and easy to believe.
    fn oracle(glob: &[u8], name: &[u8]) -> bool {
        match (glob, name) {
            ([], []) => true,
            ([b'*', glob @ ..], _) => (0..=name.len()).any(|taken| oracle(glob, &name[taken..])),
            ([expected, glob @ ..], [found, name @ ..]) => expected == found && oracle(glob, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_agrees_with_the_oracle(glob in "[ab*/画]{0,8}", name in "[ab/画]{0,10}") {
            prop_assert_eq!(glob_matches(&glob, &name), oracle(glob.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn a_glob_takes_what_it_was_made_from(parts in prop::collection::vec("[ab画]{0,3}", 2..5), filled in "[ab/]{0,4}") {
            prop_assert!(glob_matches(&parts.join("*"), &parts.join(&filled)));
        }
    }
}
