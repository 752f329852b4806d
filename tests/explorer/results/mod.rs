//! No order of runs, events, deaths and lost answers leaves Backlog with two comments, a wrong one, or a red run that nobody or
//! everybody was told of twice: an exhaustive search with the product's own step function.

mod world;

use std::{collections::BTreeMap, time::Instant};

use world::{
    Mutant,
    Outcome::{Green, Red},
    Rules, World,
};

use crate::{
    search::{Found, explore},
    story,
};

const OUTCOMES: [&[world::Outcome]; 13] = [
    &[Green],
    &[Red],
    &[Red, Green],
    &[Green, Red],
    &[Red, Red],
    &[Green, Green, Green],
    &[Green, Green, Red],
    &[Green, Red, Green],
    &[Green, Red, Red],
    &[Red, Green, Green],
    &[Red, Green, Red],
    &[Red, Red, Green],
    &[Red, Red, Red],
];

const BASE: Rules = Rules {
    outcomes: &[],
    is_open: true,
    faults: 2,
    lost: 0,
    retries: 0,
    workers: 1,
    mutant: None,
};

/// What else may happen, beside runs that end in any order. With three runs, most of it takes too long for every day.
fn worlds(runs: usize, long: bool) -> Vec<(&'static str, Rules)> {
    let is_narrow = runs > 2 && !long;
    let late = Rules {
        is_open: false,
        faults: 1,
        ..BASE
    };
    let lost = Rules { lost: 1, ..late };
    let retried = Rules {
        faults: 1,
        retries: 1,
        ..BASE
    };
    let once = Rules { faults: 1, ..BASE };
    let deaths = if is_narrow { once } else { BASE };
    let mut worlds = vec![("deaths, events twice", deaths)];
    if !is_narrow {
        worlds.extend([
            ("opened at any time", late),
            ("an event lost", lost),
            ("a run tried again", retried),
        ]);
    }
    worlds
}

#[test]
fn no_order_of_events_tells_anything_twice_or_wrongly() {
    let long = std::env::var_os("EXPLORER").is_some_and(|how| how == "long");
    let started = Instant::now();
    let (mut states, mut transitions, mut wrong) = (0, 0, Vec::new());
    let mut table = BTreeMap::<&str, usize>::new();
    for outcomes in OUTCOMES {
        for (what, rules) in worlds(outcomes.len(), long) {
            let found = explore(World::new(Rules { outcomes, ..rules }));
            *table.entry(what).or_default() += found.states;
            states += found.states;
            transitions += found.transitions;
            wrong.extend(story(&found).map(|story| format!("{what}, {outcomes:?}: {story}")));
        }
    }
    for (what, states) in table {
        println!("{what:28} {states:>9} states");
    }
    println!(
        "{states} states, {transitions} transitions, {} violations, {:.1?}",
        wrong.len(),
        started.elapsed()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_of_the_results_is_needed() {
    let lost = Rules { lost: 1, ..BASE };
    let two = Rules { workers: 2, ..BASE };
    let late = Rules {
        is_open: false,
        ..BASE
    };
    let mutants = [
        (Mutant::Edge { keyed: false }, two, "several workers"),
        (Mutant::Edge { keyed: false }, BASE, "one at a time"),
        (
            Mutant::Edge { keyed: true },
            BASE,
            "one at a time, alerts keyed",
        ),
        (Mutant::SeveralWorkers, two, "several workers"),
        (Mutant::NoSearch, BASE, "a new comment without a search"),
        (Mutant::AlertsNotKeyed, BASE, "alerts of no run"),
        (Mutant::FirstOfRed, BASE, "alert at the first red of a run"),
        (Mutant::NotOpened, late, "opened after the end"),
        (Mutant::NoSchedule, lost, "an event lost"),
        (
            Mutant::TwoGroups,
            Rules {
                workers: 2,
                is_open: false,
                ..BASE
            },
            "two groups for one pipeline",
        ),
        (Mutant::ListBelieved, BASE, "a list that lags"),
    ];
    for (mutant, rules, what) in mutants {
        let found = OUTCOMES.iter().find_map(|outcomes| {
            let rules = Rules {
                outcomes,
                mutant: Some(mutant),
                ..rules
            };
            let found: Found = explore(World::new(rules));
            Some((outcomes, found.states, story(&found)?))
        });
        let (outcomes, states, story) =
            found.unwrap_or_else(|| panic!("{mutant:?} ({what}) does no harm"));
        println!("{mutant:?}, {what}, {outcomes:?}, {states} states\n   {story}");
        assert!(story.starts_with('R'), "{mutant:?}: {story}");
    }
}
