//! No edit of the routing table makes a delivery wrong: an exhaustive search with the product's own functions (what a webhook
//! asks for, where a job goes, whose an object is, the steps of a delivery, what the sweep sends), two workers and a webhook's
//! edge that each know an older table, two objects, and people who edit.

mod facts;
mod world;

use std::time::Instant;

use facts::{Ref, Source};
use world::{Mutant, Rules, World};

use crate::{search::explore, story};

const OLD: Ref = 0;
const WEB: Ref = 1;
const DEVELOP: Ref = 2;

// Routes, one a line: name, repository, ref, object.
const T_OLD: Source = Source::Table("web APP/old refs/heads/main main.zip");
const T_WEB: Source = Source::Table("web APP/web refs/heads/main main.zip");
const T_OLD_BY_ITS_NAME: Source = Source::Table("old APP/old refs/heads/main main.zip");
const T_WEB_AT_TWO: Source = Source::Table("web APP/web refs/heads/main develop.zip");
const T_DEVELOP: Source = Source::Table("web APP/web refs/heads/develop main.zip");
const T_BOTH: Source =
    Source::Table("web APP/web refs/heads/main main.zip\nold APP/old refs/heads/main develop.zip");
const T_SWAPPED: Source =
    Source::Table("web APP/web refs/heads/main develop.zip\nold APP/old refs/heads/main main.zip");
const T_BESIDE: Source =
    Source::Table("web APP/web refs/heads/main main.zip\ncopy APP/web refs/heads/main develop.zip");
const T_RENAMED: Source = Source::Table("site APP/web refs/heads/main main.zip");
const T_GLOB: Source = Source::Table("all APP/web refs/heads/* {ref}.zip");
const T_NARROW: Source = Source::Table("all APP/web refs/heads/d* {ref}.zip");
const T_NONE: Source = Source::Table("");

struct Scenario {
    name: &'static str,
    sources: &'static [Source],
    objects: [Option<Ref>; 2],
    pushes: &'static [Ref],
}

#[rustfmt::skip]
const SCENARIOS: [Scenario; 17] = [
    Scenario { name: "move", sources: &[T_OLD, T_WEB], objects: [Some(OLD), None], pushes: &[OLD, WEB] },
    Scenario { name: "move and back", sources: &[T_OLD, T_WEB, T_OLD], objects: [Some(OLD), None], pushes: &[WEB] },
    Scenario { name: "move and back, pushed", sources: &[T_WEB, T_OLD, T_WEB], objects: [Some(WEB), None], pushes: &[OLD] },
    Scenario { name: "to another route", sources: &[T_OLD_BY_ITS_NAME, T_WEB], objects: [Some(OLD), None], pushes: &[OLD, WEB] },
    Scenario { name: "to another, and back", sources: &[T_OLD_BY_ITS_NAME, T_WEB, T_OLD_BY_ITS_NAME], objects: [Some(OLD), None], pushes: &[OLD, WEB] },
    Scenario { name: "swap", sources: &[T_BOTH, T_SWAPPED], objects: [Some(WEB), Some(OLD)], pushes: &[WEB] },
    Scenario { name: "another key", sources: &[T_WEB, T_WEB_AT_TWO], objects: [Some(WEB), None], pushes: &[WEB, WEB] },
    Scenario { name: "another ref", sources: &[T_WEB, T_DEVELOP], objects: [Some(WEB), None], pushes: &[WEB, DEVELOP] },
    Scenario { name: "added beside", sources: &[T_WEB, T_BESIDE], objects: [Some(WEB), None], pushes: &[WEB, WEB] },
    Scenario { name: "a narrower glob", sources: &[T_GLOB, T_NARROW], objects: [Some(WEB), Some(DEVELOP)], pushes: &[WEB, DEVELOP] },
    Scenario { name: "removed", sources: &[T_WEB, T_NONE], objects: [Some(WEB), None], pushes: &[WEB] },
    Scenario { name: "renamed", sources: &[T_WEB, T_RENAMED], objects: [Some(WEB), None], pushes: &[WEB, WEB] },
    Scenario { name: "spoiled and mended", sources: &[T_WEB, Source::Spoiled, T_WEB_AT_TWO], objects: [Some(WEB), None], pushes: &[WEB] },
    Scenario { name: "spoiled, then moved", sources: &[T_OLD, Source::Spoiled, T_WEB], objects: [Some(OLD), None], pushes: &[WEB] },
    Scenario { name: "deleted and stored again", sources: &[T_WEB, Source::Deleted, T_WEB], objects: [Some(WEB), None], pushes: &[WEB, WEB] },
    Scenario { name: "not to be read, then moved", sources: &[T_OLD, Source::Unread, T_WEB], objects: [Some(OLD), None], pushes: &[WEB] },
    Scenario { name: "stored at last", sources: &[T_NONE, T_WEB], objects: [None, None], pushes: &[WEB, WEB] },
];

fn rules(scenario: &Scenario) -> Rules {
    Rules {
        sources: scenario.sources,
        pushes: scenario.pushes,
        objects: scenario.objects,
        sweeps: 0,
        crashes: 0,
        mutant: None,
    }
}

#[test]
fn no_edit_of_the_table_makes_a_delivery_wrong() {
    let started = Instant::now();
    let (mut states, mut transitions, mut wrong) = (0, 0, Vec::new());
    for scenario in &SCENARIOS {
        for (what, sweeps, crashes) in [("events", 0, 0), ("a sweep", 1, 0), ("a death", 0, 1)] {
            let rules = Rules {
                sweeps,
                crashes,
                ..rules(scenario)
            };
            let began = Instant::now();
            let found = explore(World::new(rules));
            println!(
                "{:28} {what:8} {:>9} {:>10} {:>4} {:.1?}",
                scenario.name,
                found.states,
                found.transitions,
                found.longest,
                began.elapsed()
            );
            states += found.states;
            transitions += found.transitions;
            wrong.extend(story(&found).map(|story| format!("{}, {what}: {story}", scenario.name)));
        }
    }
    println!(
        "{states} states, {transitions} transitions, {:.0?}",
        started.elapsed()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_of_the_table_is_needed() {
    let mutants = [
        (Mutant::CopyForReplacing, "I7"),
        (Mutant::CopyForAcknowledging, "I5"),
        (Mutant::CopyForNoRoute, "I5"),
        (Mutant::CopyForPartialMatch, "I5"),
        (Mutant::TableBeforeHead, "I7"),
        (Mutant::NoTableAfterPut, "I1"),
        (Mutant::SpoiledIsEmpty, "I5"),
    ];
    for (mutant, invariant) in mutants {
        let found = SCENARIOS.iter().find_map(|scenario| {
            // The widest search of them shows nothing more.
            let sweeps = u8::from(scenario.name != "added beside");
            let mutant = Some(mutant);
            let rules = Rules {
                sweeps,
                mutant,
                ..rules(scenario)
            };
            Some((scenario.name, story(&explore(World::new(rules)))?))
        });
        let (name, story) = found.unwrap_or_else(|| panic!("{mutant:?} does no harm"));
        println!("{mutant:?}, {name}\n   {story}");
        assert!(story.starts_with(invariant), "{mutant:?}: {story}");
    }
}
