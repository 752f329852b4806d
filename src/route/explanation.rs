//! Why a route takes a ref, or does not.

use std::fmt;

use super::{KeyError, ObjectKey, RefPattern, Route, RouteTable};
use crate::push::{RefName, RepositoryName};

/// What one route makes of a ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The route's name.
    pub route: String,
    /// Whether the route is paused, so that nothing comes of it now.
    pub is_paused: bool,
    /// What it does with the ref, or why it does not take it.
    pub outcome: Match,
}

/// See [`Explanation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The ref is delivered.
    Writes {
        /// To this bucket.
        bucket: String,
        /// As this object.
        key: ObjectKey,
    },
    /// The ref matches, but its name makes no object key.
    NoKey(KeyError),
    /// The route takes another repository.
    OtherRepository {
        /// This one.
        wanted: RepositoryName,
    },
    /// The route takes another ref.
    OtherRef {
        /// This one.
        wanted: RefPattern,
    },
}

impl RouteTable {
    /// What each route makes of a ref, in the order in which they were written.
    #[must_use]
    pub fn explain(&self, repository: &RepositoryName, ref_name: &RefName) -> Vec<Explanation> {
        self.routes
            .iter()
            .map(|route| Explanation {
                route: route.name.clone(),
                is_paused: route.is_paused,
                outcome: route.outcome(repository, ref_name),
            })
            .collect()
    }
}

impl Route {
    fn outcome(&self, repository: &RepositoryName, ref_name: &RefName) -> Match {
        if self.repository != *repository {
            let wanted = self.repository.clone();
            return Match::OtherRepository { wanted };
        }
        if !self.pattern.matches(ref_name) {
            let wanted = self.pattern.clone();
            return Match::OtherRef { wanted };
        }
        match self.key(ref_name) {
            Ok(key) => Match::Writes {
                bucket: self.bucket.clone(),
                key,
            },
            Err(error) => Match::NoKey(error),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.route)?;
        match &self.outcome {
            Match::Writes { bucket, key } if self.is_paused => {
                write!(f, "is paused; it would write s3://{bucket}/{key}")
            }
            Match::Writes { bucket, key } => write!(f, "writes s3://{bucket}/{key}"),
            Match::NoKey(error) => write!(f, "matches, but cannot write: {error}"),
            Match::OtherRepository { wanted } => {
                write!(f, "does not match: takes the repository {wanted}")
            }
            Match::OtherRef { wanted } => write!(f, "does not match: takes {wanted}"),
        }
    }
}
