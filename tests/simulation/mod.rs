//! Pushes by the hour in virtual time: the product's own decisions about a delivery and its job, the queue by the rules of SQS,
//! and small models of the API, the Git server and S3. Functions are killed, and deliveries fail.
//!
//! Nothing here sleeps; a seed says what happens. `cargo bench --bench deliveries -- --only load` prints tables of it.

mod delivery;
pub(crate) mod load;
mod places;
pub(crate) mod seen;
mod world;

use std::time::Duration;

use fastrand::Rng;
use load::{Limits, Load, Mutant, Times, steady};
use seen::{BUSY, Why, percentile};
pub(crate) use world::World;

const HOUR: Duration = Duration::from_hours(1);

/// A thousand branches of a hundred repositories, and functions of which one in a hundred is killed.
pub(crate) fn load(seed: u64, pushes: Vec<(Duration, usize)>, limits: Limits) -> Load {
    Load {
        seed,
        pushes,
        branches: 1_000,
        branches_each: 10,
        back: 0.002,
        killed: 0.01,
        failed: 0.002,
        limits,
        times: Times::AWS,
        mutant: None,
    }
}

/// What is wrong with an hour of 10,000 pushes, if anything is.
fn missed(mutant: Option<Mutant>) -> Vec<String> {
    let pushes = steady(10_000, HOUR, 1_000, &mut Rng::with_seed(1));
    // What the events bring about is to be enough.
    let limits = Limits {
        sweep_every: None,
        ..Limits::template(50)
    };
    let load = Load {
        mutant,
        ..load(1, pushes, limits)
    };
    let seen = World::live(&load);
    let second = Duration::from_secs(1);
    let times = [
        (Why::Plain, 10 * second),
        (Why::Failed, 20 * second),
        (Why::Killed, 10 * second + limits.visibility),
        (Why::KilledAgain, 10 * second + 2 * limits.visibility),
        (Why::Back, 70 * second),
    ];
    let p99 = |why| seen.percentile(99, &[why]);
    let each = times.map(|(why, _)| format!("{why:?} {} p99 {:.1?}", seen.count(why), p99(why)));
    println!(
        "{mutant:?}: {} pushes, {} refused, {} invocations, {} killed, {} failed, {} versions of which the sweep made {}, at most \
         {} at once, over after {:.0?}; a delivery {:.1?} p99 {:.1?}; a push {}",
        load.pushes.len(),
        seen.refused,
        seen.invocations,
        seen.killed,
        seen.failed,
        seen.versions,
        seen.swept,
        seen.most(BUSY),
        seen.over,
        percentile(seen.deliveries.clone(), 50),
        percentile(seen.deliveries.clone(), 99),
        each.join(", "),
    );
    assert!(seen.killed > 50 && seen.failed > 10 && seen.count(Why::Back) > 5);
    let slow = times.into_iter().filter(|(why, most)| p99(*why) > *most);
    let slow = slow.map(|(why, _)| format!("{why:?} {:.1?}", p99(why)));
    let counts = [
        (seen.lost, "lost"),
        (seen.behind, "behind"),
        (seen.dead, "given up"),
    ];
    let wrong = counts.into_iter().filter(|(count, _)| *count > 0);
    let wrong = wrong.map(|(count, what)| format!("{count} {what}"));
    slow.chain(wrong).collect()
}

#[test]
fn ten_thousand_pushes_an_hour_are_delivered_in_time_and_none_is_lost() {
    assert_eq!(missed(None), [""; 0]);
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    for (mutant, harm) in [
        (Mutant::NoBackoff, "Failed"),
        (Mutant::AcknowledgedFirst, "lost"),
    ] {
        let missed = missed(Some(mutant));
        println!("{missed:?}");
        let is_noticed = missed.iter().any(|missed| missed.contains(harm));
        assert!(is_noticed, "{mutant:?}: {missed:?}");
    }
}
