//! What is wrong with a routing table: every fault with its line.

use std::{fmt, ops::Range, str::FromStr};

use toml::Spanned;

use crate::plain;

/// How many faults of a table are told at once.
const TOLD_FAULTS: usize = 20;

/// A routing table that is refused: every fault with its line, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTableError {
    file: String,
    /// Line, from 1, and what is wrong there.
    faults: Vec<(usize, String)>,
}

impl fmt::Display for RouteTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (line, fault)) in self.faults.iter().take(TOLD_FAULTS).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{line}: {fault}", self.file)?;
        }
        match self.faults.len().saturating_sub(TOLD_FAULTS) {
            0 => Ok(()),
            more => write!(
                f,
                "\n{}: and {}",
                self.file,
                plain::count(more, "more fault", "more faults")
            ),
        }
    }
}

impl std::error::Error for RouteTableError {}

/// What was found so far. Reading goes on after a fault.
pub(super) struct Faults {
    /// Where each line but the first begins, in bytes. Counting line ends anew for every line that is asked for would
    /// make reading quadratic.
    line_starts: Vec<usize>,
    /// Line, from 1, and what is wrong there.
    found: Vec<(usize, String)>,
    /// Whether what is there can be relied on. Where it is no TOML, nobody knows what else should be there.
    pub(super) is_whole: bool,
}

impl Faults {
    /// None yet, of this text.
    pub(super) fn of(text: &str) -> Self {
        let ends = text.match_indices('\n');
        Self {
            line_starts: ends.map(|(end, _)| end + 1).collect(),
            found: Vec::new(),
            is_whole: true,
        }
    }

    /// What was read, unless there is a fault.
    pub(super) fn or<T>(mut self, file: &str, read: Option<T>) -> Result<T, RouteTableError> {
        match read {
            Some(read) if self.found.is_empty() => Ok(read),
            _ => {
                self.found.sort();
                Err(RouteTableError {
                    file: file.to_owned(),
                    faults: self.found,
                })
            }
        }
    }

    /// A name is for people, and printed as it stands.
    pub(super) fn check_label(&mut self, name: &Spanned<String>) {
        if name.get_ref().is_empty() || name.get_ref().contains(char::is_control) {
            let fault = format!(
                "expected a name of visible characters, found {:?}",
                name.get_ref()
            );
            self.add(name.span(), fault);
        }
    }

    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        text: &Spanned<String>,
    ) -> Option<T> {
        text.get_ref()
            .parse()
            .map_err(|error| self.add(text.span(), error))
            .ok()
    }

    pub(super) fn add_toml(&mut self, error: &toml::de::Error, entry: Range<usize>) {
        let message = error.message().trim_end().replace('\n', ", ");
        self.add(error.span().unwrap_or(entry), message);
    }

    /// Something that should be there, and is, for all that is known, where a part cannot be read.
    pub(super) fn missing(&mut self, span: Range<usize>, fault: impl fmt::Display) {
        if self.is_whole {
            self.add(span, fault);
        }
    }

    pub(super) fn add(&mut self, span: Range<usize>, fault: impl fmt::Display) {
        let line = self.line(&span);
        self.add_on(line, fault);
    }

    pub(super) fn add_on(&mut self, line: usize, fault: impl fmt::Display) {
        self.found.push((line, fault.to_string()));
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        1 + self
            .line_starts
            .partition_point(|start| *start <= span.start)
    }
}
