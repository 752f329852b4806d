//! What is tried: how much is pushed, what goes wrong, how long things take, and the limits of the stack.

use std::time::Duration;

use fastrand::Rng;

/// What a world is like.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// When who pushes: moments, and branches by number.
    pub(crate) pushes: Vec<(Duration, usize)>,
    pub(crate) branches: usize,
    /// How many branches a repository has.
    pub(crate) branches_each: usize,
    /// The share of pushes that move their branch back to where it was before.
    pub(crate) back: f64,
    /// The share of invocations that are killed.
    pub(crate) killed: f64,
    /// The share of deliveries that fail, and may succeed later.
    pub(crate) failed: f64,
    pub(crate) limits: Limits,
    pub(crate) times: Times,
    pub(crate) mutant: Option<Mutant>,
}

/// What the stack lets through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Functions at once: `MaximumConcurrency`.
    pub(crate) workers: usize,
    /// Requests a second that the API lets through, and how many more at once: `ThrottlingRateLimit`, `ThrottlingBurstLimit`.
    pub(crate) api: Option<(f64, f64)>,
    pub(crate) visibility: Duration,
    pub(crate) receives: u32,
    pub(crate) sweep_every: Option<Duration>,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// From the push to its message: Backlog, the API, `receive`.
    pub(crate) edge: Duration,
    /// From a message and a function that are free to the first line of code; and from the last one to where both are free.
    pub(crate) invoke: Duration,
    /// A request to the queue.
    pub(crate) queue: Duration,
    pub(crate) head: Duration,
    pub(crate) table: Duration,
    /// Connects, if nothing did before.
    pub(crate) tip: Duration,
    pub(crate) tip_again: Duration,
    pub(crate) put: Duration,
    /// A delivery with all of the above that is about Git and S3: the median, and what 99 of 100 take at most.
    pub(crate) delivery: (Duration, Duration),
    /// The sweep's look at one repository.
    pub(crate) swept: Duration,
}

/// A rule of the product that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// What failed rests for as long as the queue lets it.
    NoBackoff,
    /// A message is acknowledged when it comes in.
    AcknowledgedFirst,
}

impl Limits {
    /// As in `template.yaml`, but for how many functions there are at once.
    pub(crate) const fn template(workers: usize) -> Self {
        Self {
            workers,
            api: Some((20.0, 40.0)),
            visibility: Duration::from_mins(6),
            receives: 5,
            sweep_every: Some(Duration::from_mins(15)),
        }
    }
}

impl Times {
    /// On AWS, at the slower end of what can be expected.
    pub(crate) const AWS: Self = Self {
        edge: Duration::from_millis(150),
        invoke: Duration::from_millis(25),
        queue: Duration::from_millis(15),
        head: Duration::from_millis(20),
        table: Duration::from_millis(15),
        tip: Duration::from_millis(60),
        tip_again: Duration::from_millis(20),
        put: Duration::from_millis(50),
        delivery: (Duration::from_millis(500), Duration::from_secs(3)),
        swept: Duration::from_millis(200),
    };

    /// What a delivery takes in all but the fetch.
    pub(crate) fn fixed(&self) -> Duration {
        self.head + 2 * self.table + self.tip + self.put + self.tip_again
    }

    /// How long a fetch takes, this time.
    pub(crate) fn fetch(&self, rng: &mut Rng) -> Duration {
        log_normal(self.delivery, rng).saturating_sub(self.fixed())
    }
}

/// A random time of which the median and the 99th percentile are known.
pub(crate) fn log_normal((median, p99): (Duration, Duration), rng: &mut Rng) -> Duration {
    /// How many standard deviations the 99th percentile is above the median.
    const P99: f64 = 2.326;
    let deviation = (p99.as_secs_f64() / median.as_secs_f64()).ln() / P99;
    // Box and Muller.
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    median.mul_f64((deviation * normal).exp())
}

/// So many pushes an hour, at any time and to any branch.
pub(crate) fn steady(
    an_hour: u32,
    length: Duration,
    branches: usize,
    rng: &mut Rng,
) -> Vec<(Duration, usize)> {
    let pushes = length.as_secs_f64() / 3600.0 * f64::from(an_hour);
    let mut at = Duration::ZERO;
    let mut next = || {
        at += length.div_f64(pushes).mul_f64(-(1.0 - rng.f64()).ln());
        (at, rng.usize(..branches))
    };
    std::iter::repeat_with(&mut next)
        .take_while(|(at, _)| *at < length)
        .collect()
}
