//! A first delivery beside what people do without this program, on one server, in one run, taking turns.
//!
//! `cargo bench --bench first_delivery` makes a small and a large repository, serves them over TLS with the packs cached
//! (what is measured is the client), and prints a Markdown table: medians of wall time, CPU time and peak memory.
//!
//! - **sync**: the whole command, with the embedded S3 in the same process, its MD5 and its `fsync`.
//! - **fetch + archive**: the same without S3: connect, tip, fetch, verify, zip, zip read again.
//! - **git**: `git clone --bare --depth 1`, then `git archive --format=zip`.
//!
//! Linux only: CPU time and peak memory are read from `/proc`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use backlog_bridge::{
    archive::Archive, config::Limits, pack::Objects, progress::Progress, remote::Remote,
    snapshot::Snapshot,
};
use support::{
    generate::{Size, large_repository},
    git_server::GitServer,
    upstream::Upstream,
};

const RUNS: usize = 5;

/// The clock of `/proc/PID/stat`, in ticks a second.
const TICKS: u64 = 100;

fn main() {
    let arguments: Vec<_> = env::args().collect();
    if let [_, mode, url] = arguments.as_slice()
        && mode == "fetch-and-archive"
    {
        fetch_and_archive(url);
        return;
    }
    println!("| repository | what | wall | CPU | peak memory | wall beside git | CPU beside git |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, size) in [
        (
            "3 MB, 300 files",
            Size {
                bytes: 3_000_000,
                files: 300,
                compressible: 1.0,
            },
        ),
        (
            "26 MB of source, 5,400 files",
            Size {
                bytes: 26_000_000,
                files: 5_400,
                compressible: 1.0,
            },
        ),
        (
            "100 MB, 12,000 files",
            Size {
                bytes: 100_000_000,
                files: 12_000,
                compressible: 0.7,
            },
        ),
    ] {
        compare(name, size);
    }
}

fn compare(name: &str, size: Size) {
    let upstream = Upstream::new();
    let repository = upstream.repository("BENCH/tree");
    let commit = large_repository(&repository, size, 1);
    repository.set_ref("refs/heads/main", &commit);
    // A server keeps its repositories packed, with deltas between similar files.
    repository.repack();
    let server = GitServer::start(upstream.root(), None);
    server.cache_packs(true);
    let url = server.url("BENCH/tree");

    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let table = format!(
        "[[space]]\nurl = \"{}\"\n[[route]]\nname = \"bench\"\nrepository = \"BENCH/tree\"\n\
         ref = \"refs/heads/main\"\nobject = \"tree.zip\"\n",
        server.space_url()
    );
    fs::write(&routes, table).unwrap();

    let sync = || {
        let store = tempfile::tempdir_in(folder.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .arg("sync")
            .arg("--routes")
            .arg(&routes)
            .arg("--store")
            .arg(store.path());
        measure(&mut [command.env("SSL_CERT_FILE", server.ca_file())])
    };
    let bare = || {
        let mut command = Command::new(env::current_exe().unwrap());
        measure(&mut [command
            .args(["fetch-and-archive", &url])
            .env("SSL_CERT_FILE", server.ca_file())])
    };
    let git = || {
        let place = tempfile::tempdir_in(folder.path()).unwrap();
        let clone = place.path().join("tree.git");
        let mut fetch = Command::new("git");
        fetch
            .args(["clone", "-q", "--bare", "--depth", "1"])
            .arg(&url)
            .arg(&clone);
        let mut archive = Command::new("git");
        archive
            .arg("--git-dir")
            .arg(&clone)
            .args(["archive", "--format=zip", "main", "-o"]);
        archive.arg(place.path().join("tree.zip"));
        for command in [&mut fetch, &mut archive] {
            isolate(command, &server.ca_file());
        }
        measure(&mut [&mut fetch, &mut archive])
    };

    let ways: [(&str, &dyn Fn() -> Cost); 3] =
        [("sync", &sync), ("fetch + archive", &bare), ("git", &git)];
    let mut costs = [const { Vec::new() }; 3];
    for run in 0..=RUNS {
        for ((_, way), costs) in ways.iter().zip(&mut costs) {
            let cost = way();
            // The first run fills the server's cache.
            if run > 0 {
                costs.push(cost);
            }
        }
    }
    let medians = costs.map(|costs| Cost {
        wall: median(costs.iter().map(|cost| cost.wall)),
        cpu: median(costs.iter().map(|cost| cost.cpu)),
        peak_kib: median(costs.iter().map(|cost| cost.peak_kib)),
    });
    let [.., ref beside] = medians;
    for ((way, _), cost) in ways.iter().zip(&medians) {
        println!(
            "| {name} | {way} | {:.2} s | {:.2} s | {} MiB | {:.2} | {:.2} |",
            cost.wall.as_secs_f64(),
            cost.cpu.as_secs_f64(),
            cost.peak_kib / 1024,
            cost.wall.as_secs_f64() / beside.wall.as_secs_f64(),
            cost.cpu.as_secs_f64() / beside.cpu.as_secs_f64(),
        );
    }
}

/// What this program does between the handshake and the upload.
fn fetch_and_archive(url: &str) {
    let remote = Remote {
        url: url.into(),
        repository: "BENCH/tree".parse().unwrap(),
        login: None,
        deadline: None,
    };
    let (limits, progress) = (Limits::default(), Progress::default());
    let mut connection = remote.connect().unwrap();
    let tip = connection
        .tip(&"refs/heads/main".parse().unwrap())
        .unwrap()
        .expect("a branch");
    let started = Instant::now();
    let objects = connection
        .fetch(&tip, None, |wire| {
            Objects::receive(wire, &limits, &progress)
        })
        .unwrap()
        .unwrap();
    let fetched = started.elapsed();
    let snapshot = Snapshot::of(tip.commit, &objects, &limits).unwrap();
    let archive = Archive::write(&snapshot, &objects, &progress).unwrap();
    if env::var_os("STAGES").is_some() {
        eprintln!(
            "fetch {fetched:?}, archive {:?}",
            started.elapsed().saturating_sub(fetched)
        );
    }
    assert!(archive.entries > 0);
}

fn isolate(command: &mut Command, ca: &Path) {
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_SSL_CAINFO", ca);
}

struct Cost {
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
}

/// Runs the commands one after the other.
fn measure(commands: &mut [&mut Command]) -> Cost {
    let started = Instant::now();
    let mut cost = Cost {
        wall: Duration::ZERO,
        cpu: Duration::ZERO,
        peak_kib: 0,
    };
    for command in commands {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let proc = Path::new("/proc").join(child.id().to_string());
        // An ended process stays until it is waited for, with the times of all it waited for itself.
        loop {
            let stat = fs::read_to_string(proc.join("stat")).unwrap();
            let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
            if fields[0] == "Z" {
                let ticks: u64 = fields[11..15]
                    .iter()
                    .map(|field| field.parse::<u64>().unwrap())
                    .sum();
                cost.cpu += Duration::from_millis(ticks * 1000 / TICKS);
                break;
            }
            let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
            cost.peak_kib = cost.peak_kib.max(peak.unwrap_or(0));
            thread::sleep(Duration::from_millis(2));
        }
        assert!(child.wait().unwrap().success());
    }
    cost.wall = started.elapsed();
    cost
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.swap_remove(values.len() / 2)
}
