//! Refs that nobody pushed, on the rules of SQS and in virtual time: how long a push waits, and that a new branch that the Git
//! server shows late is delivered, whatever else is named.

use std::time::{Duration, Instant};

use backlog_bridge::{
    local::{Fifo, Lease},
    queue::{Job, LOOKS, Recheck, next_look},
    worker::look::overdue,
};

/// Functions at a time, as the template has it.
const WORKERS: usize = 5;

/// How long a message is its worker's.
const VISIBILITY: Duration = Duration::from_mins(6);

// How long things take, at the slower end of what can be expected: a delivery without the question where the ref is; that
// question; a listing; and a message of which nothing has to be asked.
const DELIVERY: Duration = Duration::from_secs(2);
const BY_NAME: Duration = Duration::from_millis(300);
const LISTING: Duration = Duration::from_millis(300);
const MESSAGE: Duration = Duration::from_millis(40);

/// When a ref is looked for again.
type Next = fn(Duration) -> Option<Duration>;

struct Worker {
    busy: Option<(Duration, Lease<Job>, Turn)>,
    /// When its last listing began.
    listing: Option<Duration>,
    /// When a ref was missing last.
    missed: Option<Duration>,
}

/// What comes of a message.
enum Turn {
    Rests(Duration),
    Sends(Option<Box<Job>>),
    Delivers,
}

struct World {
    start: Instant,
    now: Duration,
    next: Next,
    queue: Fifo<Job>,
    workers: [Worker; WORKERS],
    /// Refs that exist, and since when the server shows them.
    shown: Vec<(&'static str, Duration)>,
    /// What was delivered, and when.
    delivered: Vec<(String, Duration)>,
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    fn new(next: Next, shown: &[(&'static str, Duration)]) -> Self {
        let idle = |_| Worker {
            busy: None,
            listing: None,
            missed: None,
        };
        Self {
            start: Instant::now(),
            now: Duration::ZERO,
            next,
            queue: Fifo::new(VISIBILITY, Some(5)),
            workers: std::array::from_fn(idle),
            shown: shown.to_vec(),
            delivered: Vec::new(),
        }
    }

    fn push(&mut self, name: &str) {
        let (repository, name) = ("APP/web".parse().unwrap(), name.parse().unwrap());
        self.send(Job::unhinted("all".into(), repository, name, ""));
    }

    fn send(&mut self, job: Job) {
        let group = job.group();
        self.queue.send(job, group, self.start + self.now);
    }

    fn is_shown(&self, job: &Job) -> bool {
        let name = job.ref_name.as_str();
        let mut shown = self.shown.iter();
        shown.any(|(other, since)| *other == name && *since <= self.now)
    }

    /// What a worker makes of a message, and how long that takes.
    fn handle(&mut self, worker: usize, message: &Lease<Job>) -> (Duration, Turn) {
        let (job, sent) = (&message.body, message.sent.duration_since(self.start));
        let age = self.now.checked_sub(sent).unwrap();
        let (listed, missed) = (self.workers[worker].listing, self.workers[worker].missed);
        let Some(Recheck::Ref { after }) = job.recheck else {
            let missed_lately = missed.is_some_and(|missed| missed + secs(10) > self.now);
            let first = match listed {
                _ if !missed_lately => BY_NAME,
                Some(listed) if listed >= sent => MESSAGE,
                _ => {
                    self.workers[worker].listing = Some(self.now);
                    LISTING
                }
            };
            if self.is_shown(job) {
                return (first + DELIVERY, Turn::Delivers);
            }
            self.workers[worker].missed = Some(self.now);
            return (first, Turn::Sends(Some(job.awaited(LOOKS[0]).into())));
        };
        if age < after {
            return (MESSAGE, Turn::Rests(after.checked_sub(age).unwrap()));
        }
        let due = self.now.checked_sub(overdue(age)).unwrap();
        let took = if listed.is_some_and(|listed| listed >= due) {
            MESSAGE
        } else {
            self.workers[worker].listing = Some(self.now);
            LISTING
        };
        let turn = match (self.is_shown(job), (self.next)(age)) {
            (true, _) => Turn::Sends(Some(job.found().into())),
            (false, Some(next)) => Turn::Rests(next.checked_sub(age).unwrap()),
            (false, None) => Turn::Sends(None),
        };
        (took, turn)
    }

    /// Ends what is over, and begins what there is a worker for.
    fn turn(&mut self) {
        let now = self.start + self.now;
        for worker in 0..WORKERS {
            if let Some((until, message, turn)) = self.workers[worker].busy.take() {
                if until > self.now {
                    self.workers[worker].busy = Some((until, message, turn));
                    continue;
                }
                match turn {
                    Turn::Rests(rest) => {
                        let rest = secs(rest.as_millis().div_ceil(1000).try_into().unwrap());
                        let kept = self.queue.change_visibility(message.receipt, rest, now);
                        kept.unwrap();
                        continue;
                    }
                    Turn::Sends(job) => job.into_iter().for_each(|job| self.send(*job)),
                    Turn::Delivers => {
                        let name = message.body.ref_name.to_string();
                        self.delivered.push((name, self.now));
                    }
                }
                self.queue.delete(message.receipt, now).unwrap();
            }
            let (received, given_up) = self.queue.receive(1, None, now);
            assert!(given_up.is_empty(), "{given_up:?}");
            if let Some(message) = received.into_iter().next() {
                let (took, turn) = self.handle(worker, &message);
                self.workers[worker].busy = Some((self.now + took, message, turn));
            }
        }
    }

    fn run_until(&mut self, end: Duration) {
        loop {
            self.turn();
            let busy = self
                .workers
                .iter()
                .filter_map(|worker| worker.busy.as_ref());
            let over = busy.map(|(until, ..)| *until);
            let returned = self.queue.next_return(self.start + self.now);
            let returned = returned.map(|at| at.duration_since(self.start));
            let next = over.chain(returned).min();
            self.now = next.map_or(end, |next| next.min(end));
            if self.now == end {
                return;
            }
        }
    }

    /// When a ref was first delivered after a moment.
    fn delivered(&self, name: &str, after: Duration) -> Option<Duration> {
        let mut delivered = self.delivered.iter();
        let found = delivered.find(|(other, at)| other == name && *at >= after);
        found.map(|(_, at)| at.checked_sub(after).unwrap())
    }
}

const MAIN: &str = "refs/heads/main";
const NEW: &str = "refs/heads/new";

#[test]
fn a_flood_of_refs_that_are_not_there_makes_no_push_wait() {
    const CREATED: [&str; 3] = ["refs/heads/new-1", "refs/heads/new-2", "refs/heads/new-3"];
    const END: u64 = 500;
    for per_second in [0, 10, 20] {
        let at = |n: usize| secs(300 + 7 * n as u64);
        let lag = [0, 1, 60];
        let created = (0..3).map(|n| (CREATED[n], at(n) + secs(lag[n])));
        let shown: Vec<_> = created.chain([(MAIN, Duration::ZERO)]).collect();
        let mut world = World::new(next_look, &shown);
        // What is pushed, and when.
        let mut pushes: Vec<_> = (0..END)
            .step_by(11)
            .map(|n| (secs(n), MAIN.to_owned()))
            .collect();
        pushes.extend((0..3).map(|n| (at(n), CREATED[n].to_owned())));
        let forged = 0..END * per_second;
        let named = |n| format!("refs/heads/forged-{n}");
        pushes.extend(forged.map(|n| (secs(n) / u32::try_from(per_second).unwrap(), named(n))));
        pushes.sort();
        for (at, name) in &pushes {
            world.run_until(*at);
            world.push(name);
        }
        let waited = pushes
            .iter()
            .filter(|(at, name)| name == MAIN && *at < secs(END - 20));
        let waited = waited.map(|(at, _)| world.delivered(MAIN, *at).unwrap());
        let slowest = waited.max().unwrap();
        let new = [0, 1, 2].map(|n| world.delivered(CREATED[n], at(n)).unwrap());
        println!(
            "{per_second} forged refs a second for {END} s: a push of a ref with an object takes at most {slowest:.1?}; a new \
             branch that is shown at once {:.1?}, after 1 s {:.1?}, after 60 s {:.1?}; still in the queue {}",
            new[0],
            new[1],
            new[2],
            world.queue.len()
        );
        assert!(slowest <= secs(10), "{slowest:?}");
        assert!(new.into_iter().max() <= Some(secs(80)), "{new:?}");
    }
}

/// All sets of some moments.
fn sets(of: &'static [u64]) -> impl Iterator<Item = Vec<u64>> {
    (0..1_u32 << of.len()).map(|set| {
        let chosen = of.iter().enumerate();
        let chosen = chosen.filter(move |(n, _)| set & (1 << n) != 0);
        chosen.map(|(_, moment)| *moment).collect()
    })
}

/// Whether a new branch is delivered in each world: shown after 0 to 3 looks, named before and after by whoever likes to,
/// and beside other names. Its own event comes at 100 s. Also how many worlds there were.
fn search(next: Next) -> (usize, Vec<String>) {
    const EVENT: u64 = 100;
    let (mut worlds, mut lost) = (0, Vec::new());
    for (looks, shown) in [(0, 0), (1, 1), (2, 5), (3, 40)] {
        for same in sets(&[31, 45, 99, 101, 104, 130]) {
            for other in sets(&[30, 99, 100, 103]) {
                let mut world = World::new(next, &[(NEW, secs(EVENT + shown))]);
                for moment in 30..=EVENT + 40 {
                    world.run_until(secs(moment));
                    if same.contains(&moment) || moment == EVENT {
                        world.push(NEW);
                    }
                    if other.contains(&moment) {
                        world.push(&format!("refs/heads/other-{moment}"));
                    }
                }
                // Behind others that are not there, until these had their last look.
                world.run_until(secs(EVENT + 160));
                worlds += 1;
                let took = world.delivered(NEW, secs(EVENT));
                if took.is_none_or(|took| took > secs(80)) {
                    lost.push(format!(
                        "shown after {looks} looks, named at {same:?}, others at {other:?}: {took:?}"
                    ));
                }
            }
        }
    }
    (worlds, lost)
}

#[test]
fn a_new_branch_that_is_shown_late_is_delivered_in_every_world() {
    let (worlds, lost) = search(next_look);
    println!(
        "{worlds} worlds, {} in which a new branch is lost",
        lost.len()
    );
    assert!(lost.is_empty(), "{lost:#?}");
    // The search finds what it is for.
    let (_, lost) = search(|_| None);
    println!(
        "forgotten at the first look: lost in {} of {worlds}",
        lost.len()
    );
    assert!(!lost.is_empty());
}
