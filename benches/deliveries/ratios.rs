//! How this program compares with git, as it was committed: what got slower is told.
//!
//! A ratio is of two times of one round, one right after the other, and what counts is the median over the rounds: it stays
//! where it is while the machine gets slower. What seems slower even so is measured once more, in more rounds, and is told only
//! if those alone say so too.

use std::{collections::BTreeMap, fmt::Write, fs};

use crate::{Row, measure::Cost};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/deliveries/ratios.toml"
);
const HEAD: &str = "\
# What this program takes beside `git clone --depth 1`, `git archive` and an upload, by repository. Written by
# cargo bench --bench deliveries -- --keep
";
const PEER: &str = "git + upload";
/// The rows that are compared.
const ROWS: [&str; 3] = ["this program", "one commit later", "20 commits later"];

/// By how much more something is slower.
const SLOWER: f64 = 1.1;
/// A ratio that moves by less than this is hardly measured.
const LEAST: f64 = 0.01;

/// One of the times that a run took, in seconds.
type Time = fn(&Cost) -> f64;

/// By repository and what is measured.
type Kept = BTreeMap<String, BTreeMap<String, f64>>;

/// One of our times over git's, in each round.
pub(crate) struct Ratio {
    part: &'static str,
    title: String,
    /// Such as `first, this program, wall`.
    item: String,
    rounds: Vec<f64>,
}

/// The ratios in the rows of one repository.
pub(crate) fn of(part: &'static str, title: &str, rows: &[Row]) -> Vec<Ratio> {
    let costs = |name| rows.iter().find(|row| row.name == name);
    let Some(peer) = costs(PEER) else {
        return Vec::new();
    };
    let mut ratios = Vec::new();
    for ours in ROWS.into_iter().filter_map(costs) {
        let times: [(&str, Time); 2] = [
            ("wall", |cost| cost.wall.as_secs_f64()),
            ("CPU", |cost| cost.cpu.as_secs_f64()),
        ];
        for (what, time) in times {
            let rounds = ours.costs.iter().zip(&peer.costs);
            ratios.push(Ratio {
                part,
                title: title.to_owned(),
                item: format!("{part}, {}, {what}", ours.name),
                rounds: rounds.map(|(ours, peer)| time(ours) / time(peer)).collect(),
            });
        }
    }
    ratios
}

impl Ratio {
    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }
}

/// Writes the file.
pub(crate) fn keep(ratios: &[Ratio]) {
    let mut text = HEAD.to_owned();
    let mut title = "";
    for ratio in sorted(ratios) {
        if ratio.title != title {
            title = &ratio.title;
            writeln!(text, "\n[\"{title}\"]").unwrap();
        }
        writeln!(text, "\"{}\" = {:.3}", ratio.item, ratio.median()).unwrap();
    }
    fs::write(FILE, text).unwrap();
    println!("{FILE} is written.");
}

fn sorted(ratios: &[Ratio]) -> Vec<&Ratio> {
    let mut sorted: Vec<_> = ratios.iter().collect();
    // By repository, and of one as they were measured.
    sorted.sort_by(|a, b| a.title.cmp(&b.title));
    sorted
}

/// Says how each ratio compares with the one that is committed, measuring `again` what seems slower; and whether any is slower.
pub(crate) fn compare(ratios: &[Ratio], again: impl Fn(&str, &str) -> Vec<Ratio>) -> bool {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let kept: Kept = toml::from_str(&text).unwrap();
    println!("## Beside git, and beside ratios.toml\n");
    let mut repeated = BTreeMap::<(&str, String), Vec<Ratio>>::new();
    let mut slower = Vec::new();
    for ratio in sorted(ratios) {
        let Some(before) = kept
            .get(&ratio.title)
            .and_then(|kept| kept.get(&ratio.item))
        else {
            println!(
                "- {}: {}: {:.2}, nothing is committed",
                ratio.title,
                ratio.item,
                ratio.median()
            );
            continue;
        };
        let mut now = ratio.median();
        let mut how = String::new();
        if is_slower(now, *before) {
            let measured = repeated
                .entry((ratio.part, ratio.title.clone()))
                .or_insert_with(|| again(ratio.part, &ratio.title));
            let same = measured
                .iter()
                .find(|other| other.item == ratio.item)
                .unwrap();
            how = format!(", {now:.2} at first");
            now = same.median();
        }
        let verdict = if is_slower(now, *before) {
            slower.push(format!("{}: {}", ratio.title, ratio.item));
            format!("SLOWER by {:.0} %", 100.0 * (now / before - 1.0))
        } else {
            "as before".into()
        };
        println!(
            "- {}: {}: {before:.2} → {now:.2}{how}: {verdict}",
            ratio.title, ratio.item
        );
    }
    match &slower[..] {
        [] => println!("\nNothing got slower by more than 10 %."),
        slower => println!("\nSlower by more than 10 %:\n  {}", slower.join("\n  ")),
    }
    !slower.is_empty()
}

fn is_slower(now: f64, before: f64) -> bool {
    now > before * SLOWER && now > before + LEAST
}
