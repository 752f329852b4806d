//! Git servers that gave no answer lately. Each is left alone for a while, so that its jobs do not take a turn each to find
//! out again what is known.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::error::{Error, Silent, host};

/// How long an answer may take of a server about which nothing is known, where others wait for a turn; and otherwise.
const IMPATIENT: Duration = Duration::from_secs(10);
pub(super) const PATIENT: Duration = Duration::from_secs(30);

/// How long a server is left alone after its first silence, at most. After each further one it is twice as long, up to
/// [`MAX_REST`].
const FIRST_REST: Duration = Duration::from_secs(10);
const MAX_REST: Duration = Duration::from_mins(4);

/// Who was silent lately. All of them are the table's.
#[derive(Debug)]
pub struct Silences {
    patience: Duration,
    silent: Mutex<HashMap<Who, Silence>>,
}

/// Who did not answer: whoever cannot be connected to speaks for all that is there; an answer that does not come, for one
/// repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Host(String),
    Repository(String),
}

impl Who {
    fn url(&self) -> &str {
        match self {
            Self::Host(url) | Self::Repository(url) => url,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    times: u32,
    /// Until when nobody asks.
    until: Instant,
    /// Whether somebody finds out now.
    is_asked: bool,
}

impl Default for Silences {
    /// For who works on one thing at a time.
    fn default() -> Self {
        Self {
            patience: PATIENT,
            silent: Mutex::default(),
        }
    }
}

impl Silences {
    /// For who has others waiting: a first answer may take less long. Who was silent once is given more time.
    #[must_use]
    pub fn impatient() -> Self {
        Self {
            patience: IMPATIENT,
            ..Self::default()
        }
    }

    /// Whether the repository at `url` may be asked, and for how long its answer is waited for. After a silence, whoever asks
    /// first finds out for the others.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], without asking.
    pub(super) fn ask(&self, url: &str, now: Instant) -> Result<Duration, Error> {
        let mut silent = self.silent();
        let known: Vec<_> = of(url).filter(|who| silent.contains_key(who)).collect();
        let rests = known.iter().filter_map(|who| {
            let left = silent[who].until.checked_duration_since(now)?;
            Some((left, who.url()))
        });
        if let Some((left, silent)) = rests.max() {
            return Err(Error::Unreachable {
                url: silent.to_owned(),
                silent: Silent::NotAsked,
                source: format!(
                    "it gave no answer a short while ago, and is asked again in {} s",
                    left.as_secs() + 1
                )
                .into(),
            });
        }
        if known.is_empty() {
            return Ok(self.patience);
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
    pub(super) fn learn<T>(&self, url: &str, result: &Result<T, Error>, now: Instant) {
        match result {
            Err(Error::Unreachable { silent, .. }) => self.was(*silent, url, now),
            _ => self
                .silent()
                .retain(|who, _| !of(url).any(|known| known == *who)),
        }
    }

    /// Takes note that a repository, or whoever has it, gave no answer.
    pub(super) fn was(&self, silent: Silent, url: &str, now: Instant) {
        let who = match silent {
            Silent::Host => Who::Host(host(url).to_owned()),
            Silent::Repository => Who::Repository(url.to_owned()),
            Silent::NotAsked => return,
        };
        let mut known = self.silent();
        let times = match known.get(&who) {
            // Several asked at the same time.
            Some(silence) if now < silence.until && !silence.is_asked => return,
            Some(silence) => silence.times,
            None => 0,
        };
        // Several processes should not ask at the same time.
        let rest = (FIRST_REST * 2u32.saturating_pow(times)).min(MAX_REST);
        let rest = rest.mul_f64(fastrand::f64().mul_add(0.5, 0.5));
        let silence = Silence {
            times: times.saturating_add(1),
            until: now + rest,
            is_asked: false,
        };
        known.insert(who, silence);
    }

    /// Whether a repository was silent when it was asked last.
    pub(crate) fn knows(&self, url: &str) -> bool {
        let silent = self.silent();
        of(url).any(|who| silent.contains_key(&who))
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
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(silent: Silent) -> Result<(), Error> {
        Err(Error::Unreachable {
            url: String::new(),
            silent,
            source: "no".into(),
        })
    }

    #[test]
    fn who_was_silent_rests_and_one_finds_out_for_the_others() {
        let [web, api] = ["web", "api"].map(|name| format!("https://a.example/git/APP/{name}.git"));
        let other = "https://b.example/git/APP/web.git";
        let silences = Silences::impatient();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let asked = |url: &str, seconds| silences.ask(url, at(seconds)).ok();

        assert_eq!(asked(&web, 0), Some(IMPATIENT));
        assert_eq!(asked(&web, 0), Some(IMPATIENT), "several at a time");
        silences.learn(&web, &unreachable(Silent::Repository), at(0));
        silences.learn(&web, &unreachable(Silent::Repository), at(0));
        for seconds in [0, 4] {
            assert_eq!(asked(&web, seconds), None);
            assert_eq!(
                asked(&api, seconds),
                Some(IMPATIENT),
                "it speaks for itself"
            );
        }
        // What was not asked says nothing.
        silences.learn(&web, &unreachable(Silent::NotAsked), at(9));
        assert_eq!(asked(&web, 11), Some(PATIENT), "one finds out");
        assert_eq!(asked(&web, 11), None);
        assert_eq!(asked(&web, 42), Some(PATIENT), "which one never told of");
        silences.learn(&web, &unreachable(Silent::Repository), at(50));
        assert_eq!(asked(&web, 59), None, "it rests for twice as long");
        assert_eq!(asked(&web, 71), Some(PATIENT));
        silences.learn(&web, &Ok(()), at(72));
        assert_eq!(asked(&web, 72), Some(IMPATIENT));

        // Who cannot be connected to speaks for all that is there.
        silences.learn(&web, &unreachable(Silent::Host), at(100));
        assert_eq!((asked(&web, 101), asked(&api, 101)), (None, None));
        assert_eq!(asked(other, 101), Some(IMPATIENT));
        assert!(silences.knows(&api) && !silences.knows(other));
        assert_eq!(asked(&api, 111), Some(PATIENT));
        // It answers, if with a refusal.
        let refused: Result<(), _> = Err(Error::NotVersioned {
            bucket: String::new(),
        });
        silences.learn(&api, &refused, at(117));
        assert_eq!(asked(&web, 117), Some(IMPATIENT));
    }
}
