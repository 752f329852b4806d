//! Deliveries beside what people do without this program, on one server, in one run, taking turns.
//!
//! `cargo bench --bench deliveries` makes repositories, serves them over TLS, and prints Markdown tables of medians:
//!
//! 1. **first**: a first delivery, the server's packs cached, so that what is measured is the client;
//! 2. **second**: the next push, one and twenty commits later, the server's work included;
//! 3. **far**: both again, with a round trip of 20 ms to the Git server;
//! 4. **stages**: where the time of a delivery goes;
//! 5. **sizes**: time and peak memory from 5 to 500 MB, and of very many files;
//! 6. **puts**: an archive stored by one request and in parts, with 20 ms a round trip to S3: where one begins to win;
//! 7. **start**: from the start of a Lambda function's process to its first poll, and to the end of its first event;
//! 8. **sweep**: a sweep of 1,000 repositories, 50 ms away each way, and a push meanwhile;
//! 9. **load**: pushes by the hour in virtual time, and the model beside the two functions' programs.
//!
//! | option | |
//! | --- | --- |
//! | `--quick` | fewer repositories, three runs; says what got slower beside git than `ratios.toml` has it, and then fails |
//! | `--keep` | the same, and writes `ratios.toml` instead |
//! | `--only first,far` | these parts |
//! | `--repository PATH` | a repository of yours instead of the made ones, more of them if given again; the tip is its `HEAD` |
//! | `--plot FILE` | draws part 1 as SVG |
//! | `--plot-load FILE` | draws part 8 |
//! | `--tsv FILE` | every single measurement |
//!
//! Peers: `git clone --bare --depth 1` and `git archive`; gix and the `zip` crate; the Python way, dulwich and boto3, in a
//! virtual environment below `target/`. Linux only: it needs `/proc` and bash. Leave six minutes between two runs: see
//! `Python` in `ways.rs`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "figures go to stdout, progress to stderr"
)]

#[path = "../../tests/support/mod.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the tests' parts, of which a benchmark needs few"
)]
mod support;

#[path = "../../tests/simulation/mod.rs"]
#[expect(dead_code, reason = "what the tests look at besides")]
mod simulation;

mod cold;
mod far;
mod for_real;
mod load;
mod many;
mod measure;
mod parts;
mod plot;
mod ratios;
mod repositories;
mod ways;

use std::{
    env, fs,
    fs::File,
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Mutex,
    time::{Duration, Instant},
};

use measure::{Cost, median};
use ratios::Ratio;
use repositories::{Repo, Repositories};
use support::lambda::Lambda;
use tokio::runtime::Runtime;
use ways::{Place, Python, Way};

const REF: &str = "refs/heads/main";
const BUCKET: &str = "sources";
const KEY: &str = "tree.zip";

const PARTS: [&str; 8] = [
    "first", "second", "far", "stages", "sizes", "start", "sweep", "load",
];

/// What is drawn of a first delivery.
const BARS: [plot::Bar<'_>; 6] = [
    ("floor", "floor", "#b8b8b8"),
    ("this program", "backlog-bridge", "#0b7a5e"),
    ("gix + upload", "gix + zip", "#5b8def"),
    ("git + upload", "git clone + archive", "#e08e2b"),
    ("dulwich, depth 1", "dulwich, depth 1", "#c75b7a"),
    ("dulwich, full", "dulwich, full clone", "#8a3b52"),
];

/// What takes longer than this is measured less often.
const SLOW: Duration = Duration::from_secs(10);

struct Options {
    quick: bool,
    keep: bool,
    only: Vec<String>,
    repositories: Vec<PathBuf>,
    plot: Option<PathBuf>,
    plot_load: Option<PathBuf>,
    tsv: Option<Mutex<File>>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    fn runs(&self) -> usize {
        match self {
            // What others are held to.
            Self { keep: true, .. } => 9,
            Self { quick: true, .. } => 3,
            _ => 5,
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let borrowed: Vec<_> = arguments.iter().map(String::as_str).collect();
    if parts::run(&borrowed) {
        return ExitCode::SUCCESS;
    }
    let options = options(arguments);
    let runtime = Runtime::new().unwrap();
    let bench = Bench {
        options: &options,
        runtime: &runtime,
        python: Python::find(),
        repositories: Repositories::open(),
    };
    if bench.python.is_none() {
        println!("No Python with dulwich and boto3: those rows are left out.\n");
    }
    let made = options.repositories.is_empty();
    let needs_none = |part: &String| ["sizes", "start", "sweep", "load"].contains(&part.as_str());
    let repos: Vec<Repo> = match &options.repositories[..] {
        _ if !options.only.is_empty() && options.only.iter().all(needs_none) => Vec::new(),
        [] if options.quick => vec![bench.repositories.small(), bench.repositories.source()],
        [] => bench.repositories.all(),
        paths => paths
            .iter()
            .map(|path| bench.repositories.copy(path))
            .collect(),
    };
    let mut ratios = Vec::new();
    if options.wants("first") {
        ratios.extend(bench.first(&repos));
    }
    let mut with_history: Vec<_> = repos
        .iter()
        .filter(|repo| repo.before(1).is_some())
        .collect();
    // Where there is little new to see, an hour is saved.
    with_history.retain(|repo| !["assets", "many"].contains(&repo.name.as_str()));
    if options.wants("second") {
        ratios.extend(bench.second(&with_history));
    }
    with_history.retain(|repo| repo.name != "large");
    if options.wants("far") {
        bench.far(&with_history);
    }
    if options.wants("stages") {
        bench.stages(&with_history);
    }
    if options.wants("sizes") && made {
        bench.sizes();
    }
    if options.wants("start") && made {
        bench.start();
        cold::show(&runtime, options.runs());
    }
    if options.wants("sweep") && made && !options.quick {
        many::sweep(&runtime);
    }
    if options.wants("load") && made && !(options.quick && options.only.is_empty()) {
        load::show(&runtime, options.quick, options.plot_load.as_deref());
    }
    if !options.quick || ratios.is_empty() || !made {
        return ExitCode::SUCCESS;
    }
    if options.keep {
        ratios::keep(&ratios);
        return ExitCode::SUCCESS;
    }
    let is_slower = ratios::compare(&ratios, |part, title| bench.again(part, title, &repos));
    if is_slower {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn options(arguments: Vec<String>) -> Options {
    let mut options = Options {
        quick: false,
        keep: false,
        only: Vec::new(),
        repositories: Vec::new(),
        plot: None,
        plot_load: None,
        tsv: None,
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .unwrap_or_else(|| panic!("{argument} what?"))
        };
        match argument.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--quick" => options.quick = true,
            "--keep" => (options.quick, options.keep) = (true, true),
            "--only" => {
                options.only = value().split(',').map(Into::into).collect();
                for part in &options.only {
                    let parts = PARTS.join(", ");
                    assert!(PARTS.contains(&part.as_str()), "{part}? There are {parts}");
                }
            }
            "--repository" => options.repositories.push(value().into()),
            "--plot" => options.plot = Some(value().into()),
            "--plot-load" => options.plot_load = Some(value().into()),
            "--tsv" => options.tsv = Some(File::create(value()).unwrap().into()),
            other => panic!("{other}? See the head of benches/deliveries/main.rs"),
        }
    }
    options
}

struct Bench<'a> {
    options: &'a Options,
    runtime: &'a Runtime,
    python: Option<Python>,
    repositories: Repositories,
}

/// Something that takes turns with others, and what it measures each time.
struct Turn<'a> {
    rows: &'static [&'static str],
    run: Box<dyn Fn() -> Vec<Cost> + 'a>,
}

/// One line of a table.
struct Row {
    name: &'static str,
    /// Of each round.
    costs: Vec<Cost>,
    /// The median.
    cost: Cost,
}

impl Bench<'_> {
    /// Lets the ways take turns, once unmeasured if `warm`, and returns a row for each thing that they measure.
    fn take_turns(&self, what: &str, warm: bool, runs: usize, turns: &[Turn<'_>]) -> Vec<Row> {
        let mut costs: Vec<Vec<Vec<Cost>>> = turns
            .iter()
            .map(|turn| vec![Vec::new(); turn.rows.len()])
            .collect();
        let mut slow = vec![false; turns.len()];
        for round in usize::from(!warm)..=runs {
            for (number, turn) in turns.iter().enumerate() {
                if slow[number] && round > 3 {
                    continue;
                }
                let started = Instant::now();
                let found = (turn.run)();
                slow[number] |= started.elapsed() > SLOW;
                if round == 0 {
                    continue;
                }
                for ((name, cost), all) in turn.rows.iter().zip(found).zip(&mut costs[number]) {
                    self.note(what, name, &cost);
                    all.push(cost);
                }
            }
        }
        let rows = turns.iter().zip(&costs).flat_map(|(turn, costs)| {
            turn.rows.iter().zip(costs).map(|(name, costs)| Row {
                name,
                costs: costs.clone(),
                cost: Cost::median(costs),
            })
        });
        rows.collect()
    }

    fn note(&self, what: &str, name: &str, cost: &Cost) {
        eprintln!("{what}\t{name}\t{:.3} s", cost.wall.as_secs_f64());
        if let Some(tsv) = &self.options.tsv {
            let Cost {
                wall,
                cpu,
                peak_kib,
                wire_bytes,
                zip_bytes,
            } = cost;
            let (wall, cpu) = (wall.as_millis(), cpu.as_millis());
            let mut tsv = tsv.lock().unwrap();
            writeln!(
                tsv,
                "{what}\t{name}\t{wall}\t{cpu}\t{peak_kib}\t{wire_bytes}\t{zip_bytes}"
            )
            .unwrap();
        }
    }

    fn first(&self, repos: &[Repo]) -> Vec<Ratio> {
        println!("## First delivery, the server's packs cached\n");
        head("repository");
        let mut drawn = Vec::new();
        for repo in repos {
            let rows = self.firsts(repo, &Way::ALL, self.options.runs());
            print(&repo.title, &rows, "git + upload");
            drawn.push((repo.title.clone(), rows));
        }
        println!();
        if let Some(file) = &self.options.plot {
            let drawn: Vec<_> = drawn
                .iter()
                .map(|(title, rows)| {
                    let bars = rows.iter().map(|row| (row.name, row.cost.wall));
                    (title.as_str(), bars.collect())
                })
                .collect();
            let title = "First delivery: wall time, the server's packs cached (logarithmic)";
            fs::write(file, plot::svg(title, &BARS, &drawn)).unwrap();
        }
        let ratios = drawn
            .iter()
            .map(|(title, rows)| ratios::of("first", title, rows));
        ratios.flatten().collect()
    }

    /// First deliveries in each of these ways that works here.
    fn firsts(&self, repo: &Repo, ways: &[Way], runs: usize) -> Vec<Row> {
        repo.move_to(0);
        let place = Place::new(self.runtime, self.python.as_ref(), repo, None);
        place.cache_packs(true);
        let place = &place;
        let turns = ways.iter().filter(|way| place.can(**way)).map(|way| Turn {
            rows: way.rows(),
            run: Box::new(move || place.run(*way)),
        });
        self.take_turns(&repo.title, true, runs, &turns.collect::<Vec<_>>())
    }

    fn second(&self, repos: &[&Repo]) -> Vec<Ratio> {
        println!("## The next push, the server's work included\n");
        head("repository");
        let mut ratios = Vec::new();
        for repo in repos {
            let place = Place::new(self.runtime, self.python.as_ref(), repo, None);
            let peers = [Way::Git, Way::Gix, Way::Dulwich { depth: 1 }];
            let rows = self.pushes(&place, repo, &peers, self.options.runs(), "");
            print(&repo.title, &rows, "first");
            ratios.extend(ratios::of("second", &repo.title, &rows));
        }
        println!();
        ratios
    }

    /// What is compared with git, once more and in more rounds.
    fn again(&self, part: &str, title: &str, repos: &[Repo]) -> Vec<Ratio> {
        const RUNS: usize = 9;
        let repo = repos.iter().find(|repo| repo.title == title).unwrap();
        if part == "first" {
            let rows = self.firsts(repo, &[Way::Sync, Way::Git], RUNS);
            return ratios::of("first", title, &rows);
        }
        let place = Place::new(self.runtime, self.python.as_ref(), repo, None);
        let rows = self.pushes(&place, repo, &[Way::Git], RUNS, "");
        ratios::of("second", title, &rows)
    }

    fn far(&self, repos: &[&Repo]) {
        println!("## With 20 ms a round trip to the Git server, the server's work included\n");
        head("repository");
        for repo in repos {
            let round_trip = Some(Duration::from_millis(20));
            let place = Place::new(self.runtime, self.python.as_ref(), repo, round_trip);
            let peers = [Way::Git, Way::Gix, Way::Dulwich { depth: 1 }];
            let rows = self.pushes(&place, repo, &peers, self.options.runs(), "far, ");
            print(&repo.title, &rows, "first");
        }
        println!();
    }

    /// This program one and twenty commits later, and the peers, who start over.
    fn pushes(
        &self,
        place: &Place<'_>,
        repo: &Repo,
        peers: &[Way],
        runs: usize,
        what: &str,
    ) -> Vec<Row> {
        let mut turns = vec![Turn {
            rows: &["first", "one commit later"],
            run: Box::new(move || place.first_and_second(1)),
        }];
        if repo.before(20).is_some() {
            turns.push(Turn {
                rows: &["first, 20 commits earlier", "20 commits later"],
                run: Box::new(move || place.first_and_second(20)),
            });
        }
        for peer in peers.iter().filter(|way| place.can(**way)).copied() {
            let run = move || {
                repo.move_to(0);
                place.run(peer)
            };
            turns.push(Turn {
                rows: peer.rows(),
                run: Box::new(run),
            });
        }
        let what = format!("{what}{}", repo.title);
        let rows = self.take_turns(&what, false, runs, &turns);
        repo.move_to(0);
        rows
    }

    fn stages(&self, repos: &[&Repo]) {
        println!("## Milliseconds a stage\n");
        println!("| repository | server | cores | delivery | stages |");
        println!("| --- | --- | --- | --- | --- |");
        for repo in repos {
            for (cached, one_core) in [(true, false), (false, false), (false, true)] {
                let place = Place::new(self.runtime, self.python.as_ref(), repo, None);
                place.cache_packs(cached);
                let mut deliveries: [Vec<Vec<(String, u64)>>; 2] = Default::default();
                for run in 0..=self.options.runs() {
                    let found = place.stages(one_core);
                    // The first run fills the cache.
                    if run > 0 {
                        for (all, stages) in deliveries.iter_mut().zip(found) {
                            all.push(stages);
                        }
                    }
                }
                let server = if cached { "cached" } else { "uncached" };
                let cores = if one_core { "one" } else { "all" };
                for (name, runs) in ["first", "one commit later"].iter().zip(&deliveries) {
                    let stages = stages(runs).join(", ");
                    println!(
                        "| {} | {server} | {cores} | {name} | {stages} |",
                        repo.title
                    );
                }
            }
        }
        println!();
    }

    fn sizes(&self) {
        println!("## Time and memory over size, the server's work included\n");
        println!("| tree | entries | largest file | way | wall | CPU | peak memory | allowed |");
        println!("| ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |");
        let sizes: &[usize] = if self.options.quick {
            &[5, 25]
        } else {
            &[5, 25, 100, 250, 500]
        };
        let mut repos: Vec<_> = sizes
            .iter()
            .map(|megabytes| (*megabytes, self.repositories.sized(*megabytes)))
            .collect();
        if !self.options.quick {
            // With the copies of a tenth, nearly as many as MAX_ENTRIES allows by default.
            repos.push((20, self.repositories.tiny(180_000)));
        }
        for (megabytes, repo) in &repos {
            let place = Place::new(self.runtime, self.python.as_ref(), repo, None);
            let place = &place;
            let mut turns = vec![Turn {
                rows: &["first", "one commit later"],
                run: Box::new(move || place.first_and_second(1)),
            }];
            let mut peers = vec![Way::Git];
            if *megabytes <= 100 {
                peers.push(Way::Dulwich { depth: 0 });
            }
            for peer in peers.into_iter().filter(|way| place.can(*way)) {
                turns.push(Turn {
                    rows: peer.rows(),
                    run: Box::new(move || place.run(peer)),
                });
            }
            // The large ones are here for their memory, of which one run says enough.
            let runs = if *megabytes <= 100 { 3 } else { 1 };
            let rows = self.take_turns(&repo.title, false, runs, &turns);
            let sizes = repo.sizes();
            let entries = sizes.len() as u64;
            let largest = sizes.into_iter().max().unwrap_or_default();
            let allowed = (64 << 20) + 2 * largest + 400 * entries;
            for Row { name, cost, .. } in rows {
                println!(
                    "| {megabytes} MB | {entries} | {} | {name} | {} | {} | {} | {} |",
                    bytes(largest),
                    seconds(cost.wall),
                    seconds(cost.cpu),
                    bytes(cost.peak_kib * 1024),
                    bytes(allowed),
                );
            }
        }
        println!();
    }

    fn start(&self) {
        println!("## From the start of the process to the first poll of a Lambda function\n");
        println!("| function | median of 20 | slowest |\n| --- | ---: | ---: |");
        let queue = "https://sqs.ap-northeast-1.amazonaws.com/123456789012/jobs.fifo";
        let vars = [
            ("SOURCE_BUCKET", BUCKET.to_owned()),
            ("ROUTES", "s3://sources/config/routes.toml".to_owned()),
            ("QUEUE_URL", queue.to_owned()),
            ("WEBHOOK_TOKEN", "secret:webhook".to_owned()),
        ];
        let programs = [
            ("receive", env!("CARGO_BIN_EXE_receive")),
            ("deliver", env!("CARGO_BIN_EXE_deliver")),
        ];
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..20 {
            for ((_, program), times) in programs.iter().zip(&mut times) {
                let limit = Duration::from_secs(10);
                let lambda = self.runtime.block_on(Lambda::start(program, &vars, limit));
                times.push(lambda.time_to_first_poll());
            }
        }
        for ((name, _), times) in programs.iter().zip(times) {
            let slowest = times.iter().copied().max().unwrap();
            println!(
                "| {name} | {:.1} ms | {:.1} ms |",
                median(times.into_iter()).as_secs_f64() * 1e3,
                slowest.as_secs_f64() * 1e3
            );
        }
        println!();
    }
}

/// Each stage with its median in milliseconds.
fn stages(runs: &[Vec<(String, u64)>]) -> Vec<String> {
    let stages = runs[0].iter().enumerate();
    let text = stages.map(|(number, (stage, _))| {
        let micros = median(runs.iter().map(|stages| stages[number].1));
        let milliseconds = Duration::from_micros(micros).as_secs_f64() * 1e3;
        format!("{stage} {milliseconds:.1}")
    });
    text.collect()
}

fn head(first: &str) {
    println!(
        "| {first} | way | runs | wall | CPU | peak memory | from the server | zip | wall beside |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
}

/// Prints rows, and how each compares with the one called `beside`.
fn print(title: &str, rows: &[Row], beside: &str) {
    let one = rows.iter().find(|row| row.name == beside);
    let one = one
        .map_or(Duration::ZERO, |row| row.cost.wall)
        .as_secs_f64();
    for Row { name, costs, cost } in rows {
        println!(
            "| {title} | {name} | {} | {} | {} | {} | {} | {} | {:.2} |",
            costs.len(),
            seconds(cost.wall),
            seconds(cost.cpu),
            bytes(cost.peak_kib * 1024),
            bytes(cost.wire_bytes),
            bytes(cost.zip_bytes),
            cost.wall.as_secs_f64() / one,
        );
    }
    std::io::stdout().flush().unwrap();
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.0} s")
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "–".into(),
        1..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}

/// This program's parts and some of the peers.
fn part(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(arguments);
    command
}
