//! Whose an object's newest version is, and whether a delivery may replace it. Pure: a head, a destination, and a table that
//! was read after the head.

use crate::{
    bucket::Current,
    error::Error,
    push::{CommitId, RefName},
    route::{Claimant, Destination, RouteTable},
    table::Reading,
};

/// Who wrote the object's current version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A delivery of this space, repository and ref.
    Us(CommitId),
    /// Not a delivery.
    Foreign,
    /// A delivery of another repository or ref, to which the table does not give the object any more.
    Unrouted {
        /// That repository.
        repository: String,
        /// That ref.
        ref_name: String,
    },
    /// A delivery of another repository or ref, to which the table gives the object.
    Other {
        /// That repository.
        repository: String,
        /// That ref.
        ref_name: String,
    },
}

/// What a table says of a delivery that has read what its object holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// The object is its own; and who wrote the current version, if there is one.
    Go(Option<Holder>),
    /// The object is another's.
    Conflict {
        /// That repository.
        repository: String,
        /// That ref, or the refs that its route takes.
        ref_name: String,
    },
    /// The route delivers the ref elsewhere, or not at all.
    Moved,
}

impl Holder {
    /// Judges what a head says by a table that was read after it.
    #[must_use]
    pub fn of(current: &Current, to: &Destination, table: &RouteTable) -> Self {
        let Some(holding) = &current.holds else {
            return Self::Foreign;
        };
        let (repository, ref_name) = (holding.repository.clone(), holding.ref_name.clone());
        // What the table does not have says nothing: the space was renamed, or an older bridge wrote the object.
        let space = holding
            .space
            .as_deref()
            .filter(|space| table.has_space(space));
        let names = (repository.parse(), ref_name.parse::<RefName>());
        if let (Ok(repository), Ok(ref_name)) = &names {
            let is_same = *repository == to.repository && *ref_name == to.ref_name;
            if is_same && space.is_none_or(|space| space == to.space) {
                return Self::Us(holding.commit);
            }
            let claimant = Claimant {
                space,
                repository,
                ref_name,
            };
            if table.gives(&to.bucket, to.key.as_str(), &claimant) {
                let (repository, ref_name) = (repository.to_string(), ref_name.to_string());
                return Self::Other {
                    repository,
                    ref_name,
                };
            }
        }
        Self::Unrouted {
            repository,
            ref_name,
        }
    }
}

impl Ruling {
    /// Judges a delivery to `to`: `head` is its object's current version, if there is one, and `reading` began after it.
    ///
    /// # Errors
    ///
    /// [`Error::Routes`], which is transient, if the table cannot be read; or if what is stored is of no use, and the last
    /// good one alone does not answer the question.
    pub fn of(reading: &Reading, head: Option<&Current>, to: &Destination) -> Result<Self, Error> {
        let (table, is_newest) = match reading {
            Reading::Newest(table) => (table, true),
            Reading::Spoiled {
                last: Some(table), ..
            } => (table, false),
            _ => (reading.newest()?, true),
        };
        if !delivers(table, to) {
            return if is_newest {
                Ok(Self::Moved)
            } else {
                Err(not_newest(reading))
            };
        }
        let holder = head.map(|current| Holder::of(current, to, table));
        if !is_newest && !matches!(holder, None | Some(Holder::Us(_))) {
            return Err(not_newest(reading));
        }
        Ok(match holder {
            Some(Holder::Other {
                repository,
                ref_name,
            }) => Self::Conflict {
                repository,
                ref_name,
            },
            holder => match owner(table, to) {
                Some(conflict) => conflict,
                None => Self::Go(holder),
            },
        })
    }
}

/// Whether the route still delivers this ref exactly so.
fn delivers(table: &RouteTable, to: &Destination) -> bool {
    table
        .destination(&to.route, &to.repository, &to.ref_name)
        .is_some_and(|now| now.as_ref() == Ok(to))
}

/// The exact route whose object this is, if it is not this delivery's.
fn owner(table: &RouteTable, to: &Destination) -> Option<Ruling> {
    let claimant = Claimant {
        space: Some(&to.space),
        repository: &to.repository,
        ref_name: &to.ref_name,
    };
    if table.gives(&to.bucket, to.key.as_str(), &claimant) {
        return None;
    }
    let owner = table.owner(&to.bucket, to.key.as_str())?;
    Some(Ruling::Conflict {
        repository: owner.repository().to_string(),
        ref_name: owner.pattern().to_string(),
    })
}

fn not_newest(reading: &Reading) -> Error {
    match reading.newest() {
        Err(err) => err,
        Ok(_) => unreachable!("only asked where it is not the newest"),
    }
}
