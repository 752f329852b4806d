//! What a table says of results: what is told of them in Backlog, and where.

use std::{fmt, str::FromStr};

use crate::push::InvalidName;

/// What pull requests are told of a route's pipeline.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// Nothing.
    #[default]
    None,
    /// That it turned red.
    Alert,
    /// How its runs are, in one comment; and that it turned red, in another.
    PullRequest,
}

/// The issue that is told of a run which no pull request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultsIssue {
    /// The first one of the repository's project that the commit's subject names.
    OfCommit,
    /// This one, such as `APP-123`.
    Key(String),
}

impl FromStr for Results {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "none" => Ok(Self::None),
            "alert" => Ok(Self::Alert),
            "pull_request" => Ok(Self::PullRequest),
            _ => Err(InvalidName::new(
                "\"none\", \"alert\" or \"pull_request\"",
                text,
            )),
        }
    }
}

impl FromStr for ResultsIssue {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_number = |number: &str| {
            number.starts_with(|c: char| ('1'..='9').contains(&c))
                && number.bytes().all(|b| b.is_ascii_digit())
        };
        match text.rsplit_once('-') {
            _ if text == "commit" => Ok(Self::OfCommit),
            Some((project, number)) if is_project_key(project) && is_number(number) => {
                Ok(Self::Key(text.to_owned()))
            }
            _ => Err(InvalidName::new(
                "\"commit\", or an issue as \"APP-123\"",
                text,
            )),
        }
    }
}

impl fmt::Display for ResultsIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OfCommit => "commit",
            Self::Key(key) => key,
        })
    }
}

/// Whether Backlog takes a text as the key of a project.
fn is_project_key(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(is_part)
}

impl ResultsIssue {
    /// The first issue of a project that a commit's subject names.
    #[must_use]
    pub fn named_in(subject: &str, project: &str) -> Option<String> {
        let mut rest = subject;
        let mut before = None;
        while let Some(at) = rest.find(project) {
            before = rest[..at].chars().next_back().or(before);
            let number = rest[at + project.len()..].strip_prefix('-');
            let number = number.unwrap_or_default();
            let digits = number.len()
                - number
                    .trim_start_matches(|c: char| c.is_ascii_digit())
                    .len();
            // An issue has no more digits than these, and a word that only ends like the project names none of its issues.
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let is_issue = (1..=9).contains(&digits)
                && !number.starts_with('0')
                && !before.is_some_and(is_word)
                && !number[digits..].starts_with(is_word);
            if is_issue {
                return Some(format!("{project}-{}", &number[..digits]));
            }
            before = project.chars().next_back();
            rest = &rest[at + project.len()..];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_is_named_by_its_whole_key() {
        for (subject, expected) in [
            ("APP-12 Mend the login", Some("APP-12")),
            ("ログインを直す (APP-7)、APP-8", Some("APP-7")),
            ("fix APP-", None),
            ("MYAPP-1 or APP-2", Some("APP-2")),
            ("APP-0", None),
            ("APP-1x", None),
            ("APP-1234567890", None),
            ("OTHER-1", None),
            ("APPAPP-1", None),
            ("", None),
        ] {
            let found = ResultsIssue::named_in(subject, "APP");
            assert_eq!(found.as_deref(), expected, "{subject}");
        }
    }

    #[test]
    fn an_issue_is_a_key_or_that_of_the_commit() {
        for (text, is_valid) in [
            ("commit", true),
            ("APP-123", true),
            ("A_1-9", true),
            ("app-1", false),
            ("APP", false),
            ("APP-0", false),
            ("APP-1/2", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<ResultsIssue>().is_ok(), is_valid, "{text}");
        }
    }
}
