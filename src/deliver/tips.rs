//! What this process has seen of refs lately. It can take a second look back, and never make one: another process may have
//! seen more.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{bucket::Address, push::CommitId};

/// How long a look matters. No recheck waits longer, but for a queue that is busy.
const KEPT: Duration = Duration::from_mins(10);

/// How many objects are remembered before those are left out that nobody looked at for so long.
const MANY: usize = 1024;

/// The looks at the ref of each object.
#[derive(Debug, Default)]
pub struct Tips(Mutex<HashMap<(String, String), Looks>>);

#[derive(Debug)]
struct Looks {
    /// What the last one showed, and when; no commit if there was no such ref.
    tip: Option<CommitId>,
    at: Instant,
    /// The last one that showed something else.
    other: Option<Instant>,
}

impl Tips {
    /// Takes note of what a look showed.
    pub(crate) fn saw(&self, at: Address<'_>, tip: Option<CommitId>, now: Instant) {
        let mut objects = self.0.lock().expect("nothing panics while it is held");
        if objects.len() >= MANY {
            objects.retain(|_, looks| now.duration_since(looks.at) < KEPT);
        }
        let key = (at.bucket.to_owned(), at.key.to_owned());
        let looks = objects.entry(key).or_insert(Looks {
            tip,
            at: now,
            other: None,
        });
        if looks.tip != tip {
            looks.other = Some(looks.at);
            looks.tip = tip;
        }
        looks.at = now;
    }

    /// Whether a look after `since` showed something else than `tip`.
    pub(crate) fn showed_other(&self, at: Address<'_>, tip: CommitId, since: Instant) -> bool {
        let objects = self.0.lock().expect("nothing panics while it is held");
        let looks = objects.get(&(at.bucket.to_owned(), at.key.to_owned()));
        let other = looks.and_then(|looks| {
            if looks.tip == Some(tip) {
                looks.other
            } else {
                Some(looks.at)
            }
        });
        other.is_some_and(|other| other > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Address<'_> = Address {
        bucket: "sources",
        key: "web.zip",
    };

    fn commit(n: u8) -> CommitId {
        format!("{n:02x}").repeat(20).parse().unwrap()
    }

    #[test]
    fn what_was_seen_between_two_looks_is_known() {
        let (a, b) = (Some(commit(1)), Some(commit(2)));
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        for (case, looks, since, expected) in [
            ("none", &[][..], 0, false),
            ("the same", &[(a, 1), (a, 2)], 0, false),
            ("another", &[(a, 1), (b, 2), (a, 3)], 0, true),
            ("another, the last", &[(a, 1), (b, 2)], 0, true),
            ("no such ref", &[(a, 1), (None, 2), (a, 3)], 0, true),
            ("another, before", &[(b, 1), (a, 2), (a, 3)], 1, false),
            (
                "another, twice",
                &[(b, 1), (a, 2), (b, 3), (b, 4), (a, 5)],
                3,
                true,
            ),
        ] {
            let tips = Tips::default();
            for (tip, at) in looks {
                tips.saw(AT, *tip, second(*at));
            }
            let showed = tips.showed_other(AT, commit(1), second(since));
            assert_eq!(showed, expected, "{case}");
        }
    }

    #[test]
    fn old_looks_are_left_out() {
        let (tips, start) = (Tips::default(), Instant::now());
        let at = |n: usize| format!("{n}.zip");
        for n in 0..MANY {
            let key = at(n);
            tips.saw(Address { key: &key, ..AT }, Some(commit(1)), start);
        }
        tips.saw(AT, Some(commit(1)), start + KEPT);
        assert_eq!(tips.0.lock().unwrap().len(), 1);
    }
}
