//! Whose an object's newest version is, and whether a delivery may replace it. Pure: a head, a destination, and a table that
//! was read after the head.

use crate::{
    bucket::Current,
    error::Error,
    push::{CommitId, RefName},
    route::{Claimant, Destination, Route, RouteTable},
    table::Reading,
};

/// Who wrote the object's current version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A delivery of this space, repository and ref.
    Us(Held),
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

/// What a version of ours holds, as far as it decides about the next one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The commit.
    pub commit: CommitId,
    /// When that was made, by its committer's clock, in seconds of Unix time, if it is known.
    pub time: Option<i64>,
    /// The commit of the version before, if it is known.
    pub previous: Option<CommitId>,
    /// Which delivery wrote it. No two versions have the same.
    pub delivery_id: String,
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
                return Self::Us(Held {
                    commit: holding.commit,
                    time: holding.commit_time,
                    previous: holding.previous,
                    delivery_id: holding.delivery_id.clone(),
                });
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
    !table.route(&to.route).is_some_and(Route::is_paused)
        && table
            .destination(&to.route, &to.repository, &to.ref_name)
            .is_some_and(|now| now.as_ref() == Ok(to))
}

/// The exact route whose object this is, if it is not this delivery's.
pub(crate) fn owner(table: &RouteTable, to: &Destination) -> Option<Ruling> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{bucket::Holding, route::Origin, table::TableFault};

    const OURS: &str = "https://example.backlog.com/git";
    const THEIRS: &str = "https://partner.backlog.jp/git";

    /// Two spaces with one repository name, an exact route, and a glob of each that can make its key.
    const TABLE: &str = r#"
        [[space]]
        name = "ours"
        url = "https://example.backlog.com/git"
        [[space]]
        name = "theirs"
        url = "https://partner.backlog.jp/git"
        [[route]]
        name = "main"
        space = "ours"
        repository = "APP/web"
        ref = "refs/heads/main"
        object = "web/main.zip"
        [[route]]
        name = "ours"
        space = "ours"
        repository = "APP/web"
        ref = "refs/heads/*"
        object = "web/{ref}.zip"
        [[route]]
        name = "theirs"
        space = "theirs"
        repository = "APP/web"
        ref = "refs/heads/*"
        object = "web/{ref}.zip"
    "#;

    fn table() -> Arc<RouteTable> {
        let table = RouteTable::parse("routes.toml", TABLE, Some("sources"), Origin::Deployed);
        table.unwrap().into()
    }

    fn destination(route: &str, ref_name: &str) -> Destination {
        let (repository, ref_name) = ("APP/web".parse().unwrap(), ref_name.parse().unwrap());
        let to = table().destination(route, &repository, &ref_name);
        to.unwrap().unwrap()
    }

    fn commit() -> CommitId {
        "1".repeat(40).parse().unwrap()
    }

    fn held(space: Option<&str>, repository: &str, ref_name: &str) -> Current {
        Current {
            etag: "e".into(),
            version_id: Some("v".into()),
            bytes: 1,
            written: None,
            holds: Some(Holding {
                commit: commit(),
                tree: None,
                space: space.map(Into::into),
                repository: repository.into(),
                ref_name: ref_name.into(),
                delivery_id: "d".into(),
                commit_time: None,
                previous: None,
                author: None,
                subject: None,
            }),
        }
    }

    fn word(ruling: Result<Ruling, Error>) -> &'static str {
        match ruling {
            Ok(Ruling::Go(None)) => "absent",
            Ok(Ruling::Go(Some(Holder::Us(_)))) => "ours",
            Ok(Ruling::Go(Some(Holder::Foreign))) => "foreign",
            Ok(Ruling::Go(Some(Holder::Unrouted { .. }))) => "unrouted",
            Ok(Ruling::Go(Some(Holder::Other { .. }))) => "never",
            Ok(Ruling::Conflict { .. }) => "conflict",
            Ok(Ruling::Moved) => "moved",
            Err(err) => {
                assert!(err.is_transient(), "{err}");
                "unknown"
            }
        }
    }

    #[test]
    fn the_head_and_a_table_from_after_it_say_whose_an_object_is() {
        let newest = Reading::Newest(table());
        let (main, dev) = ("refs/heads/main", "refs/heads/dev");
        let foreign = Current {
            holds: None,
            ..held(None, "", "")
        };
        for (case, to, head, expected) in [
            ("no object", ("ours", dev), None, "absent"),
            ("somebody's", ("ours", dev), Some(foreign), "foreign"),
            (
                "its own",
                ("ours", dev),
                Some(held(Some(OURS), "APP/web", dev)),
                "ours",
            ),
            (
                "its own, of version 0.1",
                ("ours", dev),
                Some(held(None, "APP/web", dev)),
                "ours",
            ),
            (
                "its own, of a space that was renamed",
                ("ours", dev),
                Some(held(Some("https://old.backlog.com/git"), "APP/web", dev)),
                "ours",
            ),
            (
                "the other space's",
                ("ours", dev),
                Some(held(Some(THEIRS), "APP/web", dev)),
                "conflict",
            ),
            (
                "of a route that is no more",
                ("ours", dev),
                Some(held(Some(OURS), "APP/api", dev)),
                "unrouted",
            ),
            ("an exact route's", ("main", main), None, "absent"),
            (
                "its own by two routes",
                ("ours", main),
                Some(held(Some(OURS), "APP/web", main)),
                "ours",
            ),
            (
                "what an exact route names, nobody's yet",
                ("theirs", main),
                None,
                "conflict",
            ),
            (
                "what an exact route names, though it is held",
                ("theirs", main),
                Some(held(Some(THEIRS), "APP/web", main)),
                "conflict",
            ),
            (
                "taken from an exact route",
                ("main", main),
                Some(held(Some(THEIRS), "APP/web", main)),
                "unrouted",
            ),
        ] {
            let to = destination(to.0, to.1);
            let ruling = Ruling::of(&newest, head.as_ref(), &to);
            assert_eq!(word(ruling), expected, "{case}");
        }
        let gone = Destination {
            route: "gone".into(),
            ..destination("main", main)
        };
        assert_eq!(word(Ruling::of(&newest, None, &gone)), "moved");
    }

    #[test]
    fn without_the_newest_table_only_what_is_its_own_goes_on() {
        let fault = || {
            TableFault::from(Error::Routes {
                reason: "it is wrong".into(),
                transient: false,
                source: None,
            })
        };
        let spoiled = Reading::Spoiled {
            last: Some(table()),
            fault: fault(),
        };
        let unread = Reading::Unread {
            last: Some(table()),
            fault: fault(),
        };
        let dev = "refs/heads/dev";
        let to = destination("ours", dev);
        let own = held(Some(OURS), "APP/web", dev);
        let others = held(Some(OURS), "APP/api", dev);
        for (case, reading, head, expected) in [
            ("spoiled, no object", &spoiled, None, "absent"),
            ("spoiled, its own", &spoiled, Some(&own), "ours"),
            ("spoiled, another's", &spoiled, Some(&others), "unknown"),
            ("not to be read, no object", &unread, None, "unknown"),
            ("not to be read, its own", &unread, Some(&own), "unknown"),
        ] {
            let ruling = Ruling::of(reading, head, &to);
            assert_eq!(word(ruling), expected, "{case}");
        }
        let gone = Destination {
            route: "gone".into(),
            ..to
        };
        assert_eq!(word(Ruling::of(&spoiled, None, &gone)), "unknown");
    }
}
