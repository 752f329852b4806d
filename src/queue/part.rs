//! A sweep of very many repositories, cut into messages.

use serde::Deserialize;

use crate::error::Error;

/// A part of a sweep. Which repositories are in it is their own: whoever edits the table meanwhile moves none to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    nth: u32,
    /// Of how many.
    of: u32,
}

/// How many parts of a sweep are at work at once, so that pushes keep their workers.
const PARTS_AT_ONCE: u32 = 2;

impl Part {
    /// All parts, of so many.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |nth| Self { nth, of })
    }

    /// Whether the repository at `url` is in it.
    #[must_use]
    pub fn has(self, url: &str) -> bool {
        crc32fast::hash(url.as_bytes()) % self.of == self.nth
    }

    /// The message's body. A bridge that knows no parts makes a whole sweep of it.
    #[must_use]
    pub fn body(self) -> String {
        let Self { nth, of } = self;
        format!(r#"{{"sweep":true,"part":{nth},"of":{of}}}"#)
    }

    /// The message group: of one group, one is at work at a time.
    #[must_use]
    pub fn group(self) -> String {
        format!("sweep-{}", self.nth % PARTS_AT_ONCE)
    }
}

/// The message of a sweep as it is spelled on the wire.
#[derive(Deserialize)]
pub(super) struct SweepWire {
    pub(super) sweep: bool,
    part: Option<u32>,
    of: Option<u32>,
}

impl SweepWire {
    pub(super) fn part(&self) -> Result<Option<Part>, Error> {
        match (self.part, self.of) {
            (None, None) => Ok(None),
            (Some(nth), Some(of)) if nth < of => Ok(Some(Part { nth, of })),
            _ => Err(Error::Job {
                reason: "a part of a sweep is one of 0 to `of` - 1".into(),
            }),
        }
    }
}
