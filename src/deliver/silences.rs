//! Git servers that gave no answer lately. Each is left alone for a while, so that its jobs do not take a turn each to find
//! out again what is known.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::error::{CHECK_NETWORK, Error, Silent, host};

/// How long it may take until an answer begins: where others wait for the turn, and otherwise. Whoever takes longer than the
/// first is left to a job that is in nobody's way, and has the second.
const IMPATIENT: Duration = Duration::from_secs(2);
pub(super) const PATIENT: Duration = Duration::from_secs(30);

/// How long a server is left alone after its first silence, at most. After each further one it is twice as long, up to
/// [`MAX_REST`].
const FIRST_REST: Duration = Duration::from_secs(10);
const MAX_REST: Duration = Duration::from_mins(4);

/// After this, whoever is impatient asks again: another process may have found out that it is well.
const FORGOTTEN: Duration = Duration::from_mins(4);

/// Who was silent lately. All of them are the table's.
#[derive(Debug, Default)]
pub struct Silences {
    silent: Mutex<HashMap<Who, Silence>>,
}

/// Who did not answer: whoever cannot be connected to speaks for all that is there; an answer that does not come, for one
/// repository; and a pack that does not, for packs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Host(String),
    Repository(String),
    Pack(String),
}

impl Who {
    fn url(&self) -> &str {
        match self {
            Self::Host(url) | Self::Repository(url) | Self::Pack(url) => url,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    times: u32,
    /// When it was silent last.
    since: Instant,
    /// Until when nobody asks.
    until: Instant,
    /// Whether somebody finds out now.
    is_asked: bool,
}

impl Silences {
    /// Whether the repository at `url` may be asked, and for how long it is waited until an answer begins. Where others wait
    /// for the turn, nobody asks who was silent lately; otherwise, whoever asks first after a rest finds out for the others.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], without asking.
    pub(super) fn ask(&self, url: &str, is_patient: bool, now: Instant) -> Result<Duration, Error> {
        let mut silent = self.silent();
        let known: Vec<_> = of(url).filter(|who| silent.contains_key(who)).collect();
        let is_left_alone = |who: &&Who| {
            let silence = &silent[*who];
            let is_fresh = now.saturating_duration_since(silence.since) < FORGOTTEN;
            now < silence.until || (!is_patient && is_fresh)
        };
        if let Some(silent) = known.iter().find(is_left_alone) {
            return Err(Error::Unreachable {
                advice: CHECK_NETWORK,
                url: silent.url().to_owned(),
                silent: Silent::NotAsked,
                source: "it gave no answer a short while ago; whether it does again is found out by one job for all"
                    .into(),
            });
        }
        if !is_patient {
            return Ok(IMPATIENT);
        }
        for who in known {
            silent.entry(who).and_modify(|silence| {
                silence.until = now + PATIENT;
                silence.is_asked = true;
            });
        }
        Ok(PATIENT)
    }

    /// Takes note of what came of asking.
    pub(super) fn learn<T>(
        &self,
        url: &str,
        result: &Result<T, Error>,
        is_patient: bool,
        now: Instant,
    ) {
        match result {
            Err(Error::Unreachable { silent, .. }) => self.was(*silent, url, is_patient, now),
            _ => self.silent().retain(|who, _| {
                let is_pack = matches!(who, Who::Pack(_));
                is_pack || !of(url).any(|known| known == *who)
            }),
        }
    }

    /// Takes note that a repository sends packs as fast as others.
    pub(super) fn is_fast(&self, url: &str) {
        self.silent().remove(&Who::Pack(url.to_owned()));
    }

    /// Takes note that a repository, or whoever has it, gave no answer. It is left alone by all once it had enough time.
    pub(super) fn was(&self, silent: Silent, url: &str, is_patient: bool, now: Instant) {
        let who = match silent {
            Silent::Host => Who::Host(host(url).to_owned()),
            Silent::Repository => Who::Repository(url.to_owned()),
            Silent::Pack => Who::Pack(url.to_owned()),
            Silent::NotAsked | Silent::Proxy => return,
        };
        let mut known = self.silent();
        let silence = known.entry(who).or_insert(Silence {
            times: 0,
            since: now,
            until: now,
            is_asked: false,
        });
        silence.since = now;
        // Or several asked at the same time.
        if !is_patient || (now < silence.until && !silence.is_asked) {
            return;
        }
        // Several processes should not ask at the same time.
        let rest = (FIRST_REST * 2u32.saturating_pow(silence.times)).min(MAX_REST);
        silence.until = now + rest.mul_f64(fastrand::f64().mul_add(0.5, 0.5));
        silence.times = silence.times.saturating_add(1);
        silence.is_asked = false;
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<Who, Silence>> {
        self.silent.lock().expect("nothing panics while it is held")
    }
}

/// Who speaks for a repository.
fn of(url: &str) -> impl Iterator<Item = Who> {
    [
        Who::Host(host(url).to_owned()),
        Who::Repository(url.to_owned()),
        Who::Pack(url.to_owned()),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(silent: Silent) -> Result<(), Error> {
        Err(Error::Unreachable {
            advice: CHECK_NETWORK,
            url: String::new(),
            silent,
            source: "no".into(),
        })
    }

    #[test]
    fn who_was_silent_rests_and_one_finds_out_for_the_others() {
        let [web, api] = ["web", "api"].map(|name| format!("https://a.example/git/APP/{name}.git"));
        let other = "https://b.example/git/APP/web.git";
        let silences = Silences::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let [hasty, patient] = [false, true].map(|is_patient| {
            let silences = &silences;
            move |url: &str, seconds| silences.ask(url, is_patient, at(seconds)).ok()
        });

        let learn = |url: &str, silent, is_patient, seconds| {
            silences.learn(url, &unreachable(silent), is_patient, at(seconds));
        };
        assert_eq!(hasty(&web, 0), Some(IMPATIENT));
        assert_eq!(hasty(&web, 0), Some(IMPATIENT), "several at a time");
        for _ in 0..2 {
            learn(&web, Silent::Repository, false, 2);
        }
        assert_eq!(hasty(&web, 2), None, "one finds out for all");
        assert_eq!(hasty(&api, 2), Some(IMPATIENT), "it speaks for itself");
        assert_eq!(patient(&web, 2), Some(PATIENT));
        assert_eq!(patient(&web, 2), None);
        for _ in 0..2 {
            learn(&web, Silent::Repository, true, 32);
        }
        assert_eq!(patient(&web, 36), None, "it rests");
        // What was not asked says nothing.
        learn(&web, Silent::NotAsked, true, 36);
        assert_eq!(hasty(&web, 43), None);
        assert_eq!(patient(&web, 43), Some(PATIENT), "one finds out");
        assert_eq!(patient(&web, 43), None);
        assert_eq!(patient(&web, 74), Some(PATIENT), "which one never told of");
        learn(&web, Silent::Repository, true, 80);
        assert_eq!(patient(&web, 89), None, "it rests for twice as long");
        assert_eq!(patient(&web, 101), Some(PATIENT));
        silences.learn(&web, &Ok(()), true, at(102));
        assert_eq!(hasty(&web, 102), Some(IMPATIENT));

        // Refs that come at once say nothing of packs.
        learn(&web, Silent::Pack, false, 110);
        silences.learn(&web, &Ok(()), true, at(111));
        assert_eq!(
            (hasty(&web, 111), hasty(&api, 111)),
            (None, Some(IMPATIENT))
        );
        assert_eq!(patient(&web, 111), Some(PATIENT));
        silences.is_fast(&web);
        assert_eq!(hasty(&web, 111), Some(IMPATIENT));

        // Who cannot be connected to speaks for all that is there.
        learn(&web, Silent::Host, true, 200);
        assert_eq!((hasty(&web, 201), patient(&api, 201)), (None, None));
        assert_eq!(hasty(other, 201), Some(IMPATIENT));
        assert_eq!(
            (hasty(&api, 211), patient(&api, 211)),
            (None, Some(PATIENT))
        );
        // Another process may know better.
        assert_eq!(hasty(&api, 441), Some(IMPATIENT));
        // It answers, if with a refusal.
        let refused: Result<(), _> = Err(Error::NotVersioned {
            bucket: String::new(),
        });
        silences.learn(&api, &refused, true, at(442));
        assert_eq!(patient(&web, 442), Some(PATIENT));
    }
}
