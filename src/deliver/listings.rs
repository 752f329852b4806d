//! The refs that repositories had lately. One listing answers everybody who asked before it began: an event may name any ref
//! that a glob takes, and whoever knows the token can post thousands of them.

use std::{
    collections::{HashSet, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{Deliverer, Refs};
use crate::{
    error::Error,
    push::{RefName, RepositoryName},
    remote::{Connections, Wanted},
    route::Space,
};

/// How many repositories are remembered. Each may have megabytes of refs.
const KEPT: usize = 4;

/// How long after a ref was missing another one may be, so that a listing is worth its while.
const MISSED_LATELY: Duration = Duration::from_secs(10);

/// The last listings.
#[derive(Debug, Default)]
pub struct Listings {
    listings: Mutex<VecDeque<Listing>>,
    /// The repository of which a ref was missing last, and when.
    missed: Mutex<Option<(String, Instant)>>,
}

#[derive(Debug)]
struct Listing {
    /// The repository's address.
    url: String,
    wanted: Wanted,
    began: Instant,
    refs: HashSet<RefName>,
}

impl Listings {
    /// Whether the repository has the ref, by a listing that began after `since`.
    fn has(&self, url: &str, name: &RefName, since: Instant) -> Option<bool> {
        let listings = self.listings.lock();
        let listings = listings.expect("nothing panics while it is held");
        let mut listings = listings.iter();
        let listing = listings.find(|listing| listing.url == url && listing.began >= since)?;
        let is_listed = listing.wanted.has(name.as_str().as_bytes());
        is_listed.then(|| listing.refs.contains(name))
    }

    fn learn(&self, listing: Listing) {
        let listings = self.listings.lock();
        let mut listings = listings.expect("nothing panics while it is held");
        listings.retain(|other| other.url != listing.url);
        listings.truncate(KEPT - 1);
        listings.push_front(listing);
    }

    /// Takes note that a repository does not have a ref that an event named.
    pub(crate) fn missed(&self, url: &str, now: Instant) {
        let missed = self.missed.lock();
        let mut missed = missed.expect("nothing panics while it is held");
        *missed = Some((url.to_owned(), now));
    }

    /// Whether that was so a short time ago.
    pub(crate) fn has_missed_lately(&self, url: &str, now: Instant) -> bool {
        let missed = self.missed.lock();
        let missed = missed.expect("nothing panics while it is held");
        let missed = missed.as_ref();
        missed.is_some_and(|(other, at)| other == url && now.duration_since(*at) < MISSED_LATELY)
    }
}

impl Deliverer {
    /// Which of `names` a repository has, by a listing of what its routes want that began after `since`.
    ///
    /// # Errors
    ///
    /// [`Error`] if the Git server cannot be asked.
    pub(crate) async fn which_are_there(
        &self,
        (space, repository): (&Space, &RepositoryName),
        wanted: Wanted,
        names: &[&RefName],
        since: Instant,
        deadline: Option<Instant>,
    ) -> Result<Vec<bool>, Error> {
        let url = repository.url_in(space.url());
        let mut known = names
            .iter()
            .map(|name| self.listings.has(&url, name, since));
        if let Some(known) = known.by_ref().collect() {
            return Ok(known);
        }
        let began = Instant::now();
        let kept = Connections::default();
        let over = kept.clone();
        let listing = self.refs(space, repository, wanted.clone(), deadline, true, over);
        let Refs { found, is_cut } = Box::pin(listing).await?;
        let mut refs: HashSet<_> = found.into_iter().map(|(name, _)| name).collect();
        if is_cut {
            // Those that were left out may be among these.
            let wanted = Wanted {
                names: names.iter().map(ToString::to_string).collect(),
                ..Wanted::default()
            };
            let asked = self.refs(space, repository, wanted, deadline, true, kept);
            let asked = Box::pin(asked).await?;
            refs = asked.found.into_iter().map(|(name, _)| name).collect();
        }
        let there = names.iter().map(|name| refs.contains(name)).collect();
        if !is_cut {
            self.listings.learn(Listing {
                url,
                wanted,
                began,
                refs,
            });
        }
        Ok(there)
    }
}
