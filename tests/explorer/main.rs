//! No order of pushes, deliveries, faults and deaths leaves an old commit newest: an exhaustive search with the product's own
//! step function, in small models of S3, Git and the queue.
//!
//! `EXPLORER=long` searches further, for minutes and with gigabytes.

mod machine;
mod results;
mod rules;
mod search;
mod state;
mod story;
mod tables;
mod worker;
mod world;

use std::{
    fmt::Write,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use machine::{Commit, GONE};
use rules::{Faults, Lag, Late, Mutant, Rules};
use search::{Found, explore};
use world::World;

const A: Commit = 1;
const B: Commit = 2;
const C: Commit = 3;
const D: Commit = 4;

/// The rules of one world, for any timeline.
type InWorld<'a> = &'a dyn Fn(Timeline) -> Rules;
type Timeline = &'static [Commit];

const SCENARIOS: [(&str, Timeline); 8] = [
    ("A→B→C→D", &[A, B, C, D]),
    ("A→B→A", &[A, B, A]),
    ("A→B→A→B", &[A, B, A, B]),
    ("A→B→A→C", &[A, B, A, C]),
    ("create", &[GONE, A, B]),
    ("delete", &[A, B, GONE]),
    ("delete, B again", &[A, GONE, B]),
    ("delete, A again", &[A, B, GONE, A]),
];

const NONE: Faults = Rules::new(&[]).faults;

/// The times of commits whose pushers' clocks differ.
const BEHIND: [i64; 5] = [0, 3, 4, 2, 1];

/// What is searched of one scenario. Of a long timeline, the widest searches take too long for every day.
fn searches(timeline: Timeline, long: bool) -> Vec<(&'static str, Rules)> {
    let narrow = timeline.len() > 3 && !long;
    let base = Rules::new(timeline);
    let fifo = Rules { fifo: true, ..base };
    let faults = |rules: Rules, faults| Rules { faults, ..rules };
    #[rustfmt::skip]
    let mut all = vec![
        ("a death, a lost answer", faults(base, Faults { crashes: 1, unknown: 1, ..NONE })),
        ("an event twice, a lost commit", faults(base, Faults { doubled: 1, not_built: 1, ..NONE })),
        ("three at once", faults(Rules { workers: 3, ..base }, Faults { crashes: u8::from(!narrow), ..NONE })),
        ("lag, a death, a late write", faults(
            Rules { lag: Lag::Bounded, late: Late::BeforeItComesAgain, one_process: true, ..fifo },
            Faults { crashes: 1, stale: 2, ..NONE },
        )),
        ("deaths, late writes", faults(
            Rules { late: Late::BeforeItComesAgain, any_order: true, ..fifo },
            Faults { crashes: 2, unknown: 1, not_built: 1, ..NONE },
        )),
        ("a worker stands still", faults(
            Rules { any_order: true, ..fifo },
            Faults { expiries: 1, unknown: u8::from(!narrow), ..NONE },
        )),
        ("endless lag, late answers", sweep_heals(faults(
            fifo,
            Faults { unknown: 1, lost: 1, stale: 1, sweeps: u8::from(!narrow), ..NONE },
        ))),
        ("all but lag", sweep_heals(faults(
            Rules { lag: Lag::None, any_order: true, ..fifo },
            Faults { crashes: 1, expiries: u8::from(!narrow), lost: 1, ..NONE },
        ))),
        ("no order at all", sweep_heals(faults(
            base,
            Faults { crashes: 1, lost: 1, stale: u8::from(!narrow), ..NONE },
        ))),
    ];
    if long {
        #[rustfmt::skip]
        all.extend([
            ("a death, a lost answer, twice", faults(base, Faults { crashes: 1, unknown: 1, doubled: 1, ..NONE })),
            ("three, a lost answer", faults(Rules { workers: 3, ..base }, Faults { unknown: 1, ..NONE })),
            ("more lag", faults(Rules { lag: Lag::Bounded, ..fifo }, Faults { crashes: 1, stale: 3, ..NONE })),
            ("a worker stands still, twice", faults(
                Rules { workers: 3, any_order: true, ..fifo },
                Faults { expiries: 1, doubled: 1, ..NONE },
            )),
        ]);
    }
    all
}

/// A world in which the events alone are not enough.
const fn sweep_heals(rules: Rules) -> Rules {
    let lag = match rules.faults.stale {
        0 => rules.lag,
        _ => Lag::Endless,
    };
    Rules {
        sweep_heals: true,
        late: Late::Whenever,
        lag,
        ..rules
    }
}

/// Runs searches on two threads, the results in their order.
fn explore_all<T: Copy + Sync>(all: &[(T, Rules)]) -> Vec<(Found, Duration)> {
    let (next, done) = (Mutex::new(0..all.len()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(index) = next.lock().unwrap().next() else {
                        break;
                    };
                    let started = Instant::now();
                    let found = explore(World::new(all[index].1));
                    done.lock()
                        .unwrap()
                        .push((index, (found, started.elapsed())));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, found)| found).collect()
}

/// The violation, and the way to it.
fn story(found: &Found) -> Option<String> {
    let (violation, way) = found.violation.as_ref()?;
    let mut story = format!("{}: {}", violation.invariant, violation.text);
    for step in way {
        write!(story, "\n      {step}").unwrap();
    }
    Some(story)
}

/// Worlds in which several machines answer for the Git server, each as far behind as it likes, but never a minute: any look
/// may show any state of that time.
fn replicas(timeline: Timeline, long: bool) -> Vec<(&'static str, Rules)> {
    let base = Rules {
        fifo: true,
        lag: Lag::Bounded,
        one_process: true,
        ..Rules::new(timeline)
    };
    let stale = if timeline.len() > 3 && !long { 3 } else { 4 };
    let faults = |faults| move |rules| Rules { faults, ..rules };
    let looks = faults(Faults { stale, ..NONE });
    let several = Rules {
        one_process: false,
        sweep_heals: true,
        ..base
    };
    let mut all = vec![
        ("one process", looks(base)),
        ("several functions", looks(several)),
        (
            "over a version of 0.1",
            looks(Rules {
                is_bare: true,
                ..base
            }),
        ),
        (
            "an event twice, a death",
            faults(Faults {
                stale: stale - 1,
                doubled: 1,
                crashes: 1,
                ..NONE
            })(several),
        ),
        (
            "events lost, in any order",
            faults(Faults {
                stale: stale - 1,
                lost: 1,
                ..NONE
            })(Rules {
                any_order: true,
                ..several
            }),
        ),
    ];
    // What a ref was created with is not known from what was pushed next.
    if timeline[0] != GONE {
        let times = BEHIND;
        all.push(("clocks that are behind", looks(Rules { times, ..base })));
    }
    // Nor is, of three commits of one second, the first from the third.
    if timeline[0] != GONE && timeline.iter().all(|tip| *tip <= B) {
        all.push((
            "of one second",
            looks(Rules {
                times: [0; 5],
                ..base
            }),
        ));
    }
    all
}

#[test]
fn no_order_of_events_leaves_an_old_commit_newest() {
    let (table, violations) = search_all(searches);
    println!("{table}");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn no_machine_that_is_behind_puts_an_old_commit_back() {
    let (table, violations) = search_all(replicas);
    println!("{table}");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// Searches every scenario. Returns what each search saw, a line each, and the violations.
fn search_all(
    searches: impl Fn(Timeline, bool) -> Vec<(&'static str, Rules)>,
) -> (String, Vec<String>) {
    let long = std::env::var_os("EXPLORER").is_some_and(|how| how == "long");
    let all: Vec<_> = SCENARIOS
        .iter()
        .flat_map(|&(scenario, timeline)| {
            let searches = searches(timeline, long).into_iter();
            searches.map(move |(what, rules)| ((scenario, what), rules))
        })
        .collect();
    let found = explore_all(&all);
    let mut table = format!(
        "{:16} {:30} workers FIFO  sweep {:>9} {:>11} longest violations",
        "scenario", "what may happen", "states", "transitions"
    );
    let (mut states, mut transitions) = (0, 0);
    let mut violations = Vec::new();
    for (((scenario, what), rules), (found, took)) in all.iter().zip(&found) {
        let yes = |yes| if yes { "yes" } else { "no" };
        write!(
            table,
            "\n{scenario:16} {what:30} {:>7} {:5} {:5} {:>9} {:>11} {:>7} {:>10}  {took:.1?}",
            rules.workers,
            yes(rules.fifo),
            yes(rules.sweep_heals),
            found.states,
            found.transitions,
            found.longest,
            u8::from(found.violation.is_some()),
        )
        .unwrap();
        states += found.states;
        transitions += found.transitions;
        violations.extend(story(found).map(|story| format!("{scenario}, {what}: {story}")));
    }
    write!(table, "\n{states} states, {transitions} transitions").unwrap();
    (table, violations)
}

/// Timelines of at most so many pushes, the short ones first.
fn scenarios(pushes: usize) -> Vec<(&'static str, Timeline)> {
    let mut scenarios = Vec::from(SCENARIOS);
    scenarios.retain(|(_, timeline)| timeline.len() <= pushes + 1);
    scenarios.sort_by_key(|(_, timeline)| timeline.len());
    scenarios
}

/// The first timeline that has a violation under these rules, and a shortest way to it.
fn caught(pushes: usize, rules: impl Fn(Timeline) -> Rules) -> Option<(&'static str, String)> {
    let mut scenarios = scenarios(pushes).into_iter();
    scenarios.find_map(|(scenario, timeline)| {
        let found = explore(World::new(rules(timeline)));
        story(&found).map(|story| (scenario, story))
    })
}

#[test]
fn every_line_of_the_algorithm_is_needed() {
    let died = Faults { crashes: 1, ..NONE };
    let lag = |timeline| Rules {
        fifo: true,
        lag: Lag::Bounded,
        one_process: true,
        faults: Faults { stale: 2, ..NONE },
        ..Rules::new(timeline)
    };
    let missed = |timeline| {
        let faults = Faults { lost: 1, ..NONE };
        sweep_heals(Rules {
            fifo: true,
            faults,
            ..Rules::new(timeline)
        })
    };
    let plain = |faults| {
        move |timeline| Rules {
            faults,
            ..Rules::new(timeline)
        }
    };
    let (two, died) = (plain(NONE), plain(died));
    // Elsewhere a tip from before the head looks older, and waits for a second look.
    let behind = |timeline| Rules {
        times: BEHIND,
        ..two(timeline)
    };
    let machines = |timeline| Rules {
        fifo: true,
        lag: Lag::Bounded,
        one_process: true,
        sweep_heals: true,
        faults: Faults { stale: 3, ..NONE },
        ..Rules::new(timeline)
    };
    let mutants: [(Mutant, InWorld<'_>, &str); 14] = [
        (Mutant::TipBeforeHead, &behind, "I3"),
        (Mutant::NoVerify, &two, "I1"),
        (Mutant::LoserGivesUp, &two, "I5"),
        (Mutant::UnconditionalPut, &two, "I"),
        (Mutant::NoSkip, &two, "I2"),
        (Mutant::AcknowledgeBeforePut, &died, "I5"),
        (Mutant::TagOfCommit, &two, "I"),
        (Mutant::NoReadAgain, &lag, "I1"),
        (Mutant::IdleSweep, &missed, "I1"),
        (Mutant::EveryLook, &machines, "I8"),
        (Mutant::OneLook, &machines, "I8"),
        (Mutant::EventBelieved, &machines, "I8"),
        (Mutant::StartOver, &machines, "I8"),
        (Mutant::BetweenForgotten, &machines, "I8"),
    ];
    for (mutant, world, invariant) in mutants {
        assert_eq!(
            caught(3, world),
            None,
            "the world of {mutant:?}, without it"
        );
        let (scenario, story) = caught(3, |timeline| Rules {
            mutant: Some(mutant),
            ..world(timeline)
        })
        .unwrap_or_else(|| panic!("{mutant:?} does no harm"));
        println!("{mutant:?}, {scenario}\n   {story}");
        assert!(story.starts_with(invariant), "{mutant:?}: {story}");
    }
}

#[test]
fn what_the_sweep_is_for_happens_without_it() {
    let fifo = |timeline| Rules {
        fifo: true,
        ..Rules::new(timeline)
    };
    #[rustfmt::skip]
    let needs: [(&str, InWorld<'_>); 8] = [
        ("an event gets lost", &|timeline| Rules { faults: Faults { lost: 1, ..NONE }, ..fifo(timeline) }),
        ("lag is longer than both waits", &|timeline| {
            Rules { lag: Lag::Endless, faults: Faults { stale: 3, ..NONE }, ..fifo(timeline) }
        }),
        ("lag, and events that name no commit", &|timeline| {
            Rules { lag: Lag::Bounded, hints: false, faults: Faults { stale: 1, ..NONE }, ..fifo(timeline) }
        }),
        ("lag, and a queue that keeps no order", &|timeline| {
            Rules { lag: Lag::Bounded, faults: Faults { stale: 2, ..NONE }, ..Rules::new(timeline) }
        }),
        ("lag, and events that overtake each other", &|timeline| {
            Rules { lag: Lag::Bounded, any_order: true, faults: Faults { stale: 2, ..NONE }, ..fifo(timeline) }
        }),
        ("a dead worker's write comes after its message came again", &|timeline| {
            Rules { late: Late::Whenever, faults: Faults { crashes: 1, ..NONE }, ..fifo(timeline) }
        }),
        ("another function sees the tip between two looks", &|timeline| {
            Rules { lag: Lag::Bounded, faults: Faults { stale: 2, ..NONE }, ..fifo(timeline) }
        }),
        ("a worker stands still, and then dies", &|timeline| {
            Rules { faults: Faults { crashes: 1, expiries: 1, ..NONE }, ..fifo(timeline) }
        }),
    ];
    for (what, world) in needs {
        let (scenario, story) =
            caught(3, world).unwrap_or_else(|| panic!("{what}: no harm is done"));
        println!("{what}, {scenario}\n   {story}");
        assert!(story.starts_with("I1"), "{what}: {story}");
        let healed = caught(3, |timeline| Rules {
            sweep_heals: true,
            ..world(timeline)
        });
        assert_eq!(healed, None, "{what}, with the sweep");
    }
}
