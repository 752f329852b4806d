//! A line for each webhook: for people, or for programs.

use backlog_bridge::{
    backlog::ApiError,
    error::chain,
    plain,
    registration::{Act, Registered, TokenState},
};
use serde::Serialize;

/// What became of one webhook. What is not known is absent.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) space: &'a str,
    pub(super) project: &'a str,
    /// Of a webhook that belongs to one repository, and was entered by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<i64>,
    /// With `TOKEN` in place of the token.
    pub(super) url: &'a str,
    pub(super) result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'static str>,
    /// Whether nothing was done, and `result` is what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failed>,
}

/// Why it failed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Failed {
    kind: &'static str,
    message: String,
    transient: bool,
}

impl From<&ApiError> for Failed {
    fn from(err: &ApiError) -> Self {
        Self {
            kind: err.fault.kind(),
            message: chain(err),
            transient: err.is_transient(),
        }
    }
}

impl<'a> Line<'a> {
    pub(super) fn of(
        space: &'a str,
        project: &'a str,
        url: &'a str,
        registered: &Registered,
    ) -> Self {
        let error = registered.failed.as_ref().map(Failed::from);
        Self {
            space,
            project,
            repository: None,
            id: registered.id,
            url,
            result: match &registered.act {
                _ if error.is_some() => "failed",
                Act::Add => "added",
                Act::Change { .. } => "changed",
                Act::Remove => "removed",
                Act::Keep => "well",
                Act::Leave => "left",
            },
            token: registered.token.map(TokenState::as_str),
            dry_run: false,
            error,
        }
    }

    pub(super) fn failed(space: &'a str, project: &'a str, url: &'a str, error: Failed) -> Self {
        Self {
            space,
            project,
            repository: None,
            id: None,
            url,
            result: "failed",
            token: None,
            dry_run: false,
            error: Some(error),
        }
    }

    /// Prints it. A failure is told on stderr, too.
    pub(super) fn print(&self, as_json: bool, more: &str) {
        if as_json {
            let line = serde_json::to_string(self).expect("plain data");
            say!("{}", plain::json(&line));
        } else if self.error.is_none() {
            say!("{}", plain::foreign(&self.text(more)));
        }
        if let Some(error) = &self.error {
            note!("{}: failed: {}", self.project, error.message);
        }
    }

    fn text(&self, more: &str) -> String {
        let repository = self.repository.map(|name| format!("/{name}"));
        let would_be = match self.result {
            "well" | "left" => "",
            _ if self.dry_run => "would be ",
            _ => "",
        };
        let id = self.id.map(|id| format!(", webhook {id}"));
        let token = self.token.map(|token| format!(", token: {token}"));
        let more = Some(more).filter(|more| !more.is_empty());
        let more = more.map(|more| format!("; {more}"));
        [
            self.project,
            &repository.unwrap_or_default(),
            ": ",
            would_be,
            self.result,
            &id.unwrap_or_default(),
            &token.unwrap_or_default(),
            &more.unwrap_or_default(),
        ]
        .concat()
    }
}
