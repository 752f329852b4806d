//! Work that must be over in time.

use std::time::{Duration, Instant};

use crate::{
    error::{CHECK_NETWORK, Error, Silent},
    limits::Limits,
    progress::{Progress, Stage},
    push::RepositoryName,
};

/// The result of `work`, or [`Error::Deadline`] with its stage if it is not there in time.
pub(crate) async fn within<T>(
    deadline: Option<Instant>,
    stage: Stage,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    let in_time = tokio::time::timeout_at(deadline.into(), work);
    in_time.await.unwrap_or(Err(Error::Deadline { stage }))
}

/// The same by the deadline of `progress`, and with the stage that it is in by then. Blocking work is told to end.
pub(crate) async fn in_time<T>(
    progress: &Progress,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = progress.deadline() else {
        return work.await;
    };
    let in_time = tokio::time::timeout_at(deadline.into(), work);
    in_time.await.unwrap_or_else(|_| {
        progress.stop();
        let stage = progress.stage();
        Err(Error::Deadline { stage })
    })
}

/// How long a Git server may think before the first byte of a pack: it may have to count millions of objects.
const FIRST_BYTE_WITHIN: Duration = Duration::from_mins(5);

/// How often it is looked whether bytes come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The result of `work`, which receives a pack; or that it came too slowly. Blocking work is told to end.
pub(crate) async fn flowing<T>(
    progress: &Progress,
    limits: &Limits,
    (repository, url): (&RepositoryName, &str),
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut work = std::pin::pin!(work);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut flow = Flow::begin(Instant::now());
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = look.tick() => {}
        }
        let (came, now) = (progress.receiving(), Instant::now());
        if let Err(why) = flow.look(came, now, limits) {
            progress.stop();
            return Err(Error::Fetch {
                repository: repository.clone(),
                transient: true,
                source: why.into(),
            });
        }
        let is_slow = flow.is_slow(came, now);
        if is_slow {
            progress.be_slow();
        }
        if is_slow && !progress.is_patient() {
            progress.stop();
            let source =
                "it takes long, and others wait; a job that is in nobody's way gives it more time";
            return Err(Error::Unreachable {
                advice: CHECK_NETWORK,
                url: url.to_owned(),
                silent: Silent::Pack,
                source: source.into(),
            });
        }
    }
}

/// Whoever sends fewer bytes in its first seconds takes long.
const SLOW_BYTES: u64 = 16 << 10;
const SLOW_AFTER: Duration = Duration::from_secs(4);

/// How the bytes of a pack come.
#[derive(Debug)]
struct Flow {
    /// Whether some came.
    has_begun: bool,
    /// How many had come over the network at a moment, at most `LOW_SPEED_SECONDS` ago.
    wire: u64,
    at: Instant,
    /// Since when a pack is expected.
    expected: Instant,
}

impl Flow {
    fn begin(at: Instant) -> Self {
        Self {
            has_begun: false,
            wire: 0,
            at,
            expected: at,
        }
    }

    /// Whether hardly anything came in the first seconds since a pack is expected, if one is on its way.
    fn is_slow(&self, came: Option<(u64, u64)>, now: Instant) -> bool {
        let waited = now.duration_since(self.expected);
        came.is_some_and(|(_, wire)| wire < SLOW_BYTES && waited >= SLOW_AFTER)
    }

    /// Looks at how many bytes have come, if a pack is on its way: of the pack, and over the network. The former come in
    /// pieces of up to 64 KiB; the latter may be no more than a server's words while it counts.
    fn look(
        &mut self,
        came: Option<(u64, u64)>,
        now: Instant,
        limits: &Limits,
    ) -> Result<(), String> {
        let Some((pack, wire)) = came else {
            *self = Self::begin(now);
            return Ok(());
        };
        let (least, seconds) = (limits.low_speed_bytes, limits.low_speed_seconds);
        let waited = now.duration_since(self.at);
        // The pack before it, if there was one, was of no use.
        let is_another = wire < self.wire || (self.has_begun && pack == 0);
        if is_another {
            *self = Self::begin(now);
        } else if pack == 0 && waited >= FIRST_BYTE_WITHIN {
            return Err(format!("no byte of a pack came for {} s", waited.as_secs()));
        } else if pack > 0 && !self.has_begun {
            *self = Self {
                has_begun: true,
                wire,
                at: now,
                ..*self
            };
        } else if pack > 0 && seconds > 0 && waited.as_secs() >= seconds.into() {
            if wire - self.wire < least.saturating_mul(seconds.into()) {
                return Err(format!(
                    "fewer than {least} bytes a second came for {seconds} s (LOW_SPEED_BYTES, LOW_SPEED_SECONDS)"
                ));
            }
            (self.wire, self.at) = (wire, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Came = dyn Fn(u64) -> Option<(u64, u64)>;

    #[test]
    fn a_pack_has_to_come() {
        let limits = Limits::default();
        let start = Instant::now();
        let ends = |came: &Came| {
            let mut flow = Flow::begin(start);
            (0..1_000).find(|&second| {
                let now = start + Duration::from_secs(second);
                flow.look(came(second), now, &limits).is_err()
            })
        };
        let both = |bytes: u64| Some((bytes, bytes));
        for (case, came, expected) in [
            (
                "nothing",
                Box::new(|_| Some((0_u64, 0_u64))) as Box<Came>,
                Some(300),
            ),
            (
                "words for four minutes, then a pack",
                Box::new(|n| Some((if n < 240 { 0 } else { n * 5_000 }, n * 5_000))),
                None,
            ),
            ("words for ever", Box::new(|n| Some((0, 40 * n))), Some(300)),
            (
                "1,001 bytes a second",
                Box::new(move |n| both(1_001 * n)),
                None,
            ),
            (
                "1,001 bytes a second, in pieces",
                Box::new(|n| Some((1_001 * n / 65_000 * 65_000, 1_001 * n))),
                None,
            ),
            (
                "999 bytes a second",
                Box::new(move |n| both(999 * n)),
                Some(61),
            ),
            ("a drip", Box::new(both), Some(61)),
            (
                "a start, and nothing more",
                Box::new(move |n| both(100_000.min(n * 50_000))),
                Some(61),
            ),
            ("no pack now", Box::new(|_| None), None),
            (
                "another pack every minute",
                Box::new(move |n| both(n % 60 * 10)),
                None,
            ),
        ] {
            assert_eq!(ends(&*came), expected, "{case}");
        }
        let off = Limits {
            low_speed_seconds: 0,
            ..limits
        };
        let mut flow = Flow::begin(start);
        for second in 0..1_000 {
            let now = start + Duration::from_secs(second);
            assert_eq!(flow.look(both(second), now, &off), Ok(()));
        }
    }
}
