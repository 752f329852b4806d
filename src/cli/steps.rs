//! The steps of a command that sets something up: each looks first, and says what it found or did.

use backlog_bridge::plain;
use serde::Serialize;

use super::Ended;

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Became {
    /// Something was changed; with --dry-run, it would be.
    Done,
    /// There was nothing to do.
    Well,
    /// A person has to do it.
    ByHand,
    /// It could not be done.
    Failed,
}

#[derive(Serialize)]
struct Line<'a> {
    step: &'a str,
    result: Became,
    message: &'a str,
}

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Steps {
    is_json: bool,
    done: usize,
    well: usize,
    by_hand: usize,
    failed: usize,
}

impl Steps {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            ..Self::default()
        }
    }

    /// Tells what became of a step.
    pub(super) fn tell(&mut self, step: &str, result: Became, message: &str) {
        let (count, word) = match result {
            Became::Done => (&mut self.done, "done"),
            Became::Well => (&mut self.well, "well"),
            Became::ByHand => (&mut self.by_hand, "by hand"),
            Became::Failed => (&mut self.failed, "failed"),
        };
        *count += 1;
        if self.is_json {
            let line = Line {
                step,
                result,
                message,
            };
            let line = serde_json::to_string(&line).expect("plain data");
            say!("{}", plain::json(&line));
        } else {
            let message = plain::lines(message).replace('\n', "\n                    ");
            say!("{word:<8} {step:<10} {message}");
        }
    }

    /// Tells a program what to type next. To people that is said at the end.
    pub(super) fn next(&mut self, command: &str) {
        if self.is_json {
            let line = Line {
                step: "next",
                result: Became::Well,
                message: command,
            };
            let line = serde_json::to_string(&line).expect("plain data");
            say!("{}", plain::json(&line));
        }
    }

    /// Tells of something that is no step, to people alone.
    pub(super) fn aside(&self, text: &str) {
        if !self.is_json {
            say!("{}", plain::lines(text));
        }
    }

    /// The last line, and how the command ends.
    pub(super) fn end(&self) -> Ended {
        let parts = [
            (self.done, "done"),
            (self.well, "well"),
            (self.failed, "failed"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let mut parts: Vec<_> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if self.by_hand > 0 {
            parts.push(format!(
                "{} by hand",
                plain::count(self.by_hand, "step", "steps")
            ));
        }
        self.aside(&parts.join(", "));
        Ended::Well.and(self.failed + self.by_hand > 0)
    }
}
