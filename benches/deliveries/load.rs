//! Pushes by the hour in virtual time: how long they wait, and which limit is met first; and the two functions' real programs
//! under a small load, beside what the same world says of it.

use std::{fs, path::Path, time::Duration};

use fastrand::Rng;
use tokio::runtime::Runtime;

use crate::{
    for_real, plot,
    simulation::{
        World, load,
        load::{Limits, Load, steady},
        seen::{BUSY, IN_FLIGHT, Seen, WAITING, Why},
    },
};

const HOUR: Duration = Duration::from_hours(1);
/// For how long there are 100,000 an hour.
const WHILE: Duration = Duration::from_mins(20);
const BRANCHES: usize = 1_000;
const ALL: [Why; 6] = [
    Why::Plain,
    Why::Failed,
    Why::Killed,
    Why::KilledAgain,
    Why::Back,
    Why::Refused,
];

/// Messages of a FIFO queue that may be with functions, or rest: what AWS documents now, and for long did.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-fifo.html>
const IN_FLIGHT_LIMITS: [usize; 2] = [120_000, 20_000];

/// A load, and what was seen of it.
struct Lived {
    name: String,
    load: Load,
    seen: Seen,
}

/// 1,000 pushes within ten seconds, over and over, so that there are so many an hour.
fn bursts(an_hour: u32, length: Duration, rng: &mut Rng) -> Vec<(Duration, usize)> {
    let every = HOUR * 1_000 / an_hour;
    let mut pushes = Vec::new();
    let mut begin = Duration::ZERO;
    while begin < length {
        for _ in 0..1_000 {
            let at = begin + Duration::from_secs(10).mul_f64(rng.f64());
            pushes.push((at, rng.usize(..BRANCHES)));
        }
        begin += every;
    }
    pushes.sort_unstable();
    pushes
}

fn loads() -> Vec<(String, Load)> {
    let template = Limits::template;
    let open = |workers| Limits {
        api: None,
        ..Limits::template(workers)
    };
    let mut rng = Rng::with_seed(1);
    let small = steady(10_000, HOUR, BRANCHES, &mut rng);
    let large = steady(100_000, WHILE, BRANCHES, &mut rng);
    let small_bursts = bursts(10_000, HOUR, &mut rng);
    let large_bursts = bursts(100_000, WHILE, &mut rng);
    let every = Duration::from_mins(10) / 10_000;
    let one = (0..10_000).map(|n| (every * n, 0)).collect();
    let all = [
        ("10,000 an hour", small.clone(), template(50)),
        ("10,000 an hour, 5 at once", small, template(5)),
        ("10,000 of one branch in 10 min", one, template(50)),
        ("10,000 in bursts", small_bursts.clone(), template(50)),
        ("10,000 in bursts, open API", small_bursts, open(50)),
        ("100,000 an hour", large.clone(), template(50)),
        ("100,000 an hour, open API", large, open(50)),
        ("100,000 in bursts, open API", large_bursts, open(50)),
    ];
    let all = all.into_iter().map(|(name, pushes, limits)| {
        let load = load(1, pushes, limits);
        (name.to_owned(), load)
    });
    all.collect()
}

/// Prints all of it, or of less, and draws the percentiles if there is a file for them.
pub(crate) fn show(runtime: &Runtime, is_quick: bool, file: Option<&Path>) {
    let loads = loads()
        .into_iter()
        .take(if is_quick { 3 } else { usize::MAX });
    let lived = loads.map(|(name, load)| {
        eprintln!("{name}");
        let seen = World::live(&load);
        Lived { name, load, seen }
    });
    let lived: Vec<_> = lived.collect();
    for Lived { name, seen, .. } in &lived {
        let Seen {
            lost, behind, dead, ..
        } = seen;
        assert_eq!(
            (*lost, *behind, *dead),
            (0, 0, 0),
            "{name}: lost, behind in the end, given up"
        );
    }
    println!("## Pushes by the hour, in virtual time\n");
    times(&lived);
    limits(&lived);
    if let Some(file) = file {
        fs::write(file, plot(&lived)).unwrap();
    }
    for_real::show(runtime);
}

fn times(lived: &[Lived]) {
    println!(
        "| load | p50 | p90 | p99 | max | nothing wrong, p99 | killed, p99 | failed, p99 | refused, p99 |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for Lived { name, seen, .. } in lived {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|n| seconds(seen.percentile(n, &ALL)));
        let of = |why| match seen.count(why) {
            0 => "–".to_owned(),
            count => format!("{} ({count})", seconds(seen.percentile(99, &[why]))),
        };
        let of = [Why::Plain, Why::Killed, Why::Failed, Why::Refused].map(of);
        println!(
            "| {name} | {p50} | {p90} | {p99} | {max} | {} |",
            of.join(" | ")
        );
    }
    println!();
}

fn limits(lived: &[Lived]) {
    println!(
        "| load | webhooks refused | at work, most | all at work | waiting, most | in flight, most | versions | queue empty after | met first |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
    for Lived { name, load, seen } in lived {
        let workers = load.limits.workers;
        let full = seen.seconds.iter().filter(|second| second[BUSY] == workers);
        let (refused, pushes) = (seen.refused, load.pushes.len());
        let last = load.pushes.last().unwrap().0;
        println!(
            "| {name} | {} | {} of {workers} | {} | {} | {} | {} | {} | {} |",
            percent(refused, pushes),
            seen.most(BUSY),
            percent(full.count(), seen.seconds.len()),
            seen.most(WAITING),
            seen.most(IN_FLIGHT),
            seen.versions,
            seconds(seen.over.saturating_sub(last)),
            met(load, seen)
        );
    }
    println!();
}

/// Which limit is met, of those that a push meets one after the other.
fn met(load: &Load, seen: &Seen) -> String {
    let mut met = Vec::new();
    if seen.refused > 0 {
        met.push("the API's throttle");
    }
    if seen.most(BUSY) == load.limits.workers {
        met.push("functions at once");
    }
    if seen.most(IN_FLIGHT) > IN_FLIGHT_LIMITS[1] {
        met.push("messages in flight");
    }
    if load.pushes.iter().all(|(_, branch)| *branch == 0) {
        met.push("one at a time of a branch");
    }
    if met.is_empty() {
        "none".into()
    } else {
        met.join(", then ")
    }
}

fn plot(lived: &[Lived]) -> String {
    const BARS: [(&str, &str, &str); 4] = [
        ("p50", "half of the pushes", "#0b7a5e"),
        ("p90", "90 of 100", "#5b8def"),
        ("p99", "99 of 100", "#e08e2b"),
        ("max", "all", "#c75b7a"),
    ];
    let groups = lived.iter().map(|Lived { name, seen, .. }| {
        let bars = BARS.iter().zip([50, 90, 99, 100]);
        let bars = bars.map(|((bar, ..), n)| (*bar, seen.percentile(n, &ALL)));
        (name.as_str(), bars.collect())
    });
    let title = "From a push to its version, in virtual time (logarithmic)";
    plot::svg(title, &BARS, &groups.collect::<Vec<_>>())
}

/// A share, and how many these are.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn percent(part: usize, of: usize) -> String {
    match part {
        0 => "0".into(),
        part => format!("{:.1} %", 100.0 * part as f64 / of as f64),
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}
