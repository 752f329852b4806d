//! The last line of a comment of ours: which bridge's it is, what it is about, and what kind of comment it is.

use sha2::{Digest, Sha256};

use super::text;

/// How every one of them begins.
const BEGIN: &str = "backlog-bridge/";

/// What a comment is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// How the runs are. It changes with them.
    Status,
    /// That the ref turned red with the run whose id begins like this.
    Alert(String),
}

/// What the comments of one topic end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker(String);

impl Marker {
    /// The marker of a ref's runs by a pipeline. Two pipelines of one name, in other accounts or regions, have other ones, and so
    /// have two refs that one pipeline builds.
    #[must_use]
    pub fn new(account: &str, region: &str, pipeline: &str, ref_name: &str) -> Self {
        let whose = format!("{account}\n{region}\n{pipeline}\n{ref_name}");
        let digest = Sha256::digest(whose);
        let [first, second, third, ..] = digest[..] else {
            unreachable!("it has 32 bytes");
        };
        let name = text::name(pipeline);
        Self(format!("{BEGIN}{name}/{first:02x}{second:02x}{third:02x}"))
    }

    /// The line of a comment.
    #[must_use]
    pub fn line(&self, kind: &Kind) -> String {
        match kind {
            Kind::Status => self.0.clone(),
            Kind::Alert(id) => format!("{}/{id}", self.0),
        }
    }

    /// What a comment of ours is, if it is one of these.
    #[must_use]
    pub fn kind_of(&self, comment: &str) -> Option<Kind> {
        let last = comment.trim_end().lines().next_back()?.trim();
        match last.strip_prefix(&self.0)? {
            "" => Some(Kind::Status),
            rest => {
                let id = rest.strip_prefix('/')?;
                let is_id = (1..=8).contains(&id.len())
                    && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                is_id.then(|| Kind::Alert(id.to_owned()))
            }
        }
    }
}
