//! What `deliver` does with the messages of the queue, on AWS and on a laptop: a job becomes a delivery, a failure decides
//! what becomes of the job, and the sweep makes jobs for what no event told of.

pub mod batch;
pub mod look;
mod sweep;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::sweep::{Swept, differs};
use crate::{
    deadline::within,
    deliver::{
        Deliverer, Delivery, Success,
        step::{Hints, SECOND_LOOK, SETTLE_WAITS, SecondLook},
    },
    error::Error,
    outcome::{Report, SeenBack},
    plan::{Next, heirs, next, paused},
    progress::{Progress, Stage},
    queue::{Job, LOOKS, Recheck},
    route::Destination,
    table::Reading,
};

/// How often a job that the sweep made is tried. The next sweep makes it again, and a Git server that is down for hours
/// should not fill the dead-letter queue.
const SWEPT_TRIES: u32 = 3;

/// How often a ref is looked for that an event told of and the Git server does not have. It may lag for long; and nothing is
/// held up meanwhile, since there is nothing to deliver.
const MISSING_TRIES: u32 = 3;

/// How long after its event a server that lags had its time.
const SETTLED: Duration = SETTLE_WAITS[0].saturating_add(SETTLE_WAITS[1]);

/// How a job comes to a worker.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// How often it was tried, with this time.
    pub tries: u32,
    /// Whether there is no other after this one, whatever the failure.
    pub is_last: bool,
    /// How long ago it was made.
    pub age: Duration,
}

impl Attempt {
    /// The first and the last.
    pub const ONLY: Self = Self {
        tries: 1,
        is_last: true,
        age: Duration::ZERO,
    };
}

/// How long a job that failed rests before it comes again, by how often it was tried. Later ones rest for the queue's
/// visibility timeout.
const BACKOFF: [Duration; 2] = [Duration::from_secs(10), Duration::from_mins(1)];

/// For how long jobs are tried whose Git server gives no answer. It is as long as any job is tried.
const RESTS_FOR: Duration = Duration::from_mins(13);

/// How often a job follows its route to another object, while the table keeps changing.
const MOVES: usize = 3;

/// What handles messages.
#[derive(Debug)]
pub struct Worker {
    /// What delivers.
    pub bridge: Deliverer,
    /// How many repositories of a host a sweep asks at once.
    pub at_once: usize,
}

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is acknowledged.
    Done,
    /// It goes back to the queue.
    Again,
    /// It goes back to the queue until there is room for it, however often that is.
    UntilThereIsRoom,
    /// Nothing helps before somebody changes something: it goes where people find it.
    DeadLetter,
}

impl End {
    /// Decides what becomes of `job` after an attempt that failed with `error`, or went well without one.
    #[must_use]
    pub fn of(error: Option<&Error>, job: &Job, attempt: Attempt) -> Self {
        let Some(error) = error else {
            return Self::Done;
        };
        let tries = match error {
            Error::RefNotFound { .. } if !job.swept => MISSING_TRIES,
            _ if !error.is_transient() => 1,
            _ if job.swept => SWEPT_TRIES,
            // The queue knows when to stop.
            _ => u32::MAX,
        };
        if error.is_no_room() && !job.swept && !attempt.is_last {
            Self::UntilThereIsRoom
        } else if attempt.tries < tries && !attempt.is_last {
            Self::Again
        } else if job.swept {
            Self::Done
        } else {
            Self::DeadLetter
        }
    }
}

/// A job that was handled.
#[derive(Debug)]
pub struct Handled {
    /// What became of the object.
    pub report: Report,
    /// What becomes of the job.
    pub end: End,
    /// Jobs that the queue must have before this one is acknowledged.
    pub more: Vec<Job>,
}

impl Worker {
    /// Handles a job.
    pub async fn deliver(&self, job: &Job, attempt: Attempt, progress: &Arc<Progress>) -> Handled {
        let mut more = Vec::new();
        let is_old = job.rests.is_some() && attempt.age >= RESTS_FOR;
        let is_last = attempt.is_last || is_old;
        let attempt = Attempt { is_last, ..attempt };
        let handled = Box::pin(self.follow(job, attempt, progress, &mut more)).await;
        let (report, end) = handled.unwrap_or_else(|err| {
            let report = Report::failed(job, &err);
            (report, End::of(Some(&err), job, attempt))
        });
        let again = report.again || matches!(end, End::Again | End::UntilThereIsRoom);
        let tries = attempt.tries;
        let report = Report {
            again,
            tries,
            ..report
        };
        Handled { report, end, more }
    }

    /// Delivers to where the table sends the job, and on to where it sends it next, should it change meanwhile.
    async fn follow(
        &self,
        job: &Job,
        attempt: Attempt,
        progress: &Arc<Progress>,
        more: &mut Vec<Job>,
    ) -> Result<(Report, End), Error> {
        // An object that this delivery wrote to and then left.
        let mut left: Option<Destination> = None;
        for _ in 0..MOVES {
            let read = async { Ok(self.bridge.table.read().await) };
            let reading = within(progress.deadline(), Stage::Routes, read).await?;
            if let Reading::Newest(table) = &reading
                && let Some(left) = left.take()
            {
                more.extend(heirs(job, &left.bucket, left.key.as_str(), table));
            }
            let (to, is_glob) = match next(&reading, job)? {
                Next::Deliver { to, is_glob } => (to, is_glob),
                Next::Paused => {
                    let report = Report::ignored(job, paused(&job.route));
                    return Ok((report, End::Done));
                }
                Next::Anew(jobs) => {
                    let report = Report::ignored(job, told(&jobs));
                    more.extend(jobs);
                    return Ok((report, End::Done));
                }
            };
            let started = Instant::now();
            let is_awaited = is_glob && !job.swept && !attempt.is_last;
            if is_awaited
                && self
                    .is_listed_missing(job, &to, attempt.age, progress)
                    .await
            {
                more.push(job.awaited(LOOKS[0]));
                return Ok((look::awaited(job), End::Done));
            }
            let hints = hints(job, attempt.age, is_awaited);
            let second_look = second_look(job, attempt.age);
            let bridge = &self.bridge;
            let mut delivery = if job.again {
                Box::pin(bridge.deliver_again(&to, second_look, progress)).await
            } else {
                Box::pin(bridge.deliver(&to, hints, second_look, progress)).await
            };
            if let Ok(Success::Moved { stored }) = delivery.result {
                left = stored.then_some(to);
                continue;
            }
            if is_awaited && is_missing(&delivery) {
                self.bridge.listings.missed(&to.url, Instant::now());
                more.push(job.awaited(LOOKS[0]));
                return Ok((look::awaited(job), End::Done));
            }
            if delivery.is_overtaken {
                delivery.result = Ok(Success::Published);
            }
            let error = delivery.result.as_ref().err();
            let mut end = End::of(error, job, attempt);
            if is_glob && end == End::DeadLetter && is_missing(&delivery) {
                // It asks for no ref by name, so none is missed.
                delivery.result = Ok(Success::BranchGone);
                end = End::Done;
            }
            let step_back = seen_back(job, &delivery);
            let rests = later(job, end, &delivery, more);
            let report = Report {
                step_back,
                again: rests,
                ..Report::of(&to, delivery, started)
            };
            return Ok((report, if rests { End::Done } else { end }));
        }
        Err(Error::Routes {
            reason: "it kept changing".into(),
            transient: true,
            source: None,
        })
    }
}

/// What a delivery saw of a tip that looks older than what its object held.
fn seen_back(job: &Job, delivery: &Delivery) -> Option<SeenBack> {
    if delivery.step_back.is_some() {
        return Some(SeenBack::First);
    }
    let success = delivery.result.as_ref().ok()?;
    let Some(Recheck::StepBack { seen, .. }) = &job.recheck else {
        return None;
    };
    let is_tip = delivery.commit == Some(seen.tip);
    match success {
        Success::Published if is_tip => Some(SeenBack::Confirmed),
        // Another one was faster.
        Success::AlreadyCurrent if is_tip => None,
        _ => Some(SeenBack::TakenBack),
    }
}

/// What a look at the tip is for a job of this age.
#[must_use]
pub fn second_look(job: &Job, age: Duration) -> SecondLook {
    let due = || {
        let Some(Recheck::StepBack { seen, waited }) = &job.recheck else {
            return None;
        };
        // A job is sent after the look that it tells of, so that no clock has to agree with another.
        let ago = age + (*waited)?;
        let since = Instant::now().checked_sub(ago)?;
        let seen = seen.clone();
        (ago >= SECOND_LOOK).then_some(SecondLook::Due { seen, since })
    };
    due().unwrap_or_default()
}

/// What becomes of a parked job.
#[derive(Debug, PartialEq, Eq)]
pub enum Parked {
    /// It has to wait for so long.
    Rests(Duration),
    /// Its time has come: this job takes its place.
    Due(Box<Job>),
}

impl Parked {
    /// Of a job of this age, if it is parked.
    #[must_use]
    pub fn of(job: &Job, age: Duration) -> Option<Self> {
        job.parks()?;
        let rest = SECOND_LOOK.saturating_sub(age);
        Some(if rest.is_zero() {
            Self::Due(job.due(age).into())
        } else {
            Self::Rests(rest)
        })
    }
}

fn told(jobs: &[Job]) -> String {
    let routes: Vec<_> = jobs.iter().map(|job| job.route.as_str()).collect();
    if routes.is_empty() {
        return "no such route any more".into();
    }
    format!(
        "no such route any more; planned anew for {}",
        routes.join(", ")
    )
}

/// Adds to `more` what has to be looked at later, and says whether that is the job itself, since a Git server gives no answer.
pub fn later(job: &Job, end: End, delivery: &Delivery, more: &mut Vec<Job>) -> bool {
    if delivery.is_unsettled && delivery.result.is_ok() {
        more.push(job.awaited(SETTLED));
    }
    more.extend(delivery.step_back.clone().map(|seen| job.parked(seen)));
    // A branch that is pushed to faster than a delivery takes gets a version a round. Nothing failed, so nothing rests; what
    // waits for the branch has its turn first.
    more.extend(delivery.is_overtaken.then(|| job.going_on()));
    let silent = delivery.result.as_ref().err().and_then(Error::silent);
    let silent = silent.filter(|_| end == End::Again && job.rests.is_none());
    more.extend(silent.map(|silent| job.resting(silent)));
    silent.is_some()
}

fn is_missing(delivery: &Delivery) -> bool {
    matches!(delivery.result, Err(Error::RefNotFound { .. }))
}

/// What a job of this age knows of its push.
#[must_use]
pub fn hints(job: &Job, age: Duration, is_awaited: bool) -> Option<Hints> {
    // Nobody pushed what the sweep found; after a deletion there is no commit to wait for; and a server that lags had its
    // time while the job waited.
    let may_lag = age < SETTLED;
    let is_push = !job.swept;
    (is_push && may_lag).then(|| Hints {
        commits: job.hints.clone(),
        before: job.before,
        is_awaited,
    })
}

/// How long a job rests that failed for the `tries`-th time; `None` for as long as the queue lets it.
#[must_use]
pub fn backoff(tries: u32) -> Option<Duration> {
    let nth = usize::try_from(tries.saturating_sub(1)).ok()?;
    BACKOFF.get(nth).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::StepBack;

    fn job(swept: bool) -> Job {
        let (repository, ref_name) = (
            "APP/web".parse().unwrap(),
            "refs/heads/main".parse().unwrap(),
        );
        Job {
            swept,
            ..Job::unhinted("r".into(), repository, ref_name, "")
        }
    }

    #[test]
    fn the_failure_the_job_and_the_attempt_decide() {
        let passing = || Error::Contention { rounds: 8 };
        let lasting = || Error::NotVersioned {
            bucket: "sources".into(),
        };
        let no_room = || Error::NoRoom {
            action: "write",
            bucket: "sources".into(),
            key: "a.zip".into(),
            source: "full".into(),
        };
        let missing = || Error::RefNotFound {
            repository: "APP/web".parse().unwrap(),
            ref_name: "refs/heads/main".parse().unwrap(),
            hint: String::new(),
        };
        let last = Attempt::ONLY;
        let nth = |tries| Attempt {
            tries,
            is_last: false,
            age: Duration::ZERO,
        };
        for (case, error, swept, attempt, expected) in [
            ("it went well", None, false, nth(1), End::Done),
            ("it passes", Some(passing()), false, nth(1), End::Again),
            (
                "as often as it takes",
                Some(passing()),
                false,
                nth(9),
                End::Again,
            ),
            ("to the last", Some(passing()), false, last, End::DeadLetter),
            (
                "no room, however often",
                Some(no_room()),
                false,
                nth(9),
                End::UntilThereIsRoom,
            ),
            (
                "no room, and no other try",
                Some(no_room()),
                false,
                last,
                End::DeadLetter,
            ),
            (
                "no room, the sweep's",
                Some(no_room()),
                true,
                nth(3),
                End::Done,
            ),
            ("the sweep's", Some(passing()), true, nth(2), End::Again),
            (
                "the next sweep comes",
                Some(passing()),
                true,
                nth(3),
                End::Done,
            ),
            ("it lasts", Some(lasting()), false, nth(1), End::DeadLetter),
            (
                "it lasts, the sweep's",
                Some(lasting()),
                true,
                nth(1),
                End::Done,
            ),
            ("no ref yet", Some(missing()), false, nth(1), End::Again),
            ("no ref still", Some(missing()), false, nth(2), End::Again),
            ("no ref", Some(missing()), false, nth(3), End::DeadLetter),
            (
                "no ref, not to wait for",
                Some(missing()),
                false,
                last,
                End::DeadLetter,
            ),
            (
                "the sweep saw a ref that is gone",
                Some(missing()),
                true,
                nth(1),
                End::Done,
            ),
        ] {
            let job = job(swept);
            assert_eq!(End::of(error.as_ref(), &job, attempt), expected, "{case}");
        }
    }

    #[test]
    fn what_is_parked_rests_for_a_minute() {
        let job = job(false);
        let seen = StepBack {
            held: "d".into(),
            tip: "1".repeat(40).parse().unwrap(),
        };
        let parked = job.parked(seen.clone());
        let secs = Duration::from_secs;
        assert_eq!(Parked::of(&job, secs(0)), None);
        for (age, rest) in [(0, 60), (59, 1)] {
            assert_eq!(
                Parked::of(&parked, secs(age)),
                Some(Parked::Rests(secs(rest)))
            );
        }
        for age in [60, 600] {
            let due = parked.due(secs(age));
            assert_eq!(Parked::of(&due, secs(0)), None);
            assert_eq!(
                Parked::of(&parked, secs(age)),
                Some(Parked::Due(due.into()))
            );
        }
        for (case, job, age, expected) in [
            ("no recheck", job, 600, false),
            ("parked", parked.clone(), 600, false),
            ("due", parked.due(secs(61)), 0, true),
            ("due, and waited on", parked.due(secs(61)), 600, true),
            ("sent too early", parked.due(secs(30)), 0, false),
        ] {
            let look = second_look(&job, secs(age));
            assert_eq!(matches!(look, SecondLook::Due { .. }), expected, "{case}");
        }
    }

    #[test]
    fn a_job_rests_longer_each_time() {
        let rests: Vec<_> = (1..=4)
            .map(|tries| backoff(tries).map(|rest| rest.as_secs()))
            .collect();
        assert_eq!(rests, [Some(10), Some(60), None, None]);
    }
}
