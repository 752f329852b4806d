//! `serve` while everything happens to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use backlog_bridge::local::Store;
use fastrand::Rng;
use serde_json::Value;

use super::{
    length,
    load::{Branch, People},
};
use crate::{
    serve::{Place, free_address, with_streams},
    support::{
        git_server::{Fault, GitServer, Op},
        oracle::{check_zip, expected_entries},
        process::wait_within,
        service::TOKEN,
        tiny_disk::TinyDisk,
        upstream::Upstream,
    },
};

const LIMIT: Duration = Duration::from_mins(2);

/// Repositories and branches.
const REPOSITORIES: usize = 4;
const BRANCHES: usize = 3;

/// Between two troubles, at most.
const PEACE: Duration = Duration::from_millis(2_500);

#[derive(Debug, Default)]
struct Count {
    pushes: u32,
    taken: u32,
    kills: u32,
    damaged: u32,
    full: u32,
    silences: u32,
}

#[test]
fn nothing_is_lost_whatever_happens() {
    let _alone = super::alone();
    let place = Place::new();
    let repositories: Vec<_> = (0..REPOSITORIES)
        .map(|n| (format!("APP/r{n}"), BRANCHES))
        .collect();
    let mut people = People::new(&Upstream::at(place.upstream.root()), &repositories);
    let server = GitServer::start(place.upstream.root(), None);
    let folder = place.folder.path();
    let disk = TinyDisk::mount(folder.join("disk"), 200);
    let store = disk.as_ref().map_or(folder, TinyDisk::path).join("store");
    let temporary = folder.join("temporary");
    fs::create_dir(&temporary).unwrap();
    let space = format!(
        "[[space]]\nname = \"s\"\nurl = \"{}\"\n",
        server.space_url()
    );
    fs::write(folder.join("routes.toml"), space + &people.routes("s", key)).unwrap();

    let (address, ca) = (free_address(), server.ca_file());
    let start = || -> Child {
        // Nobody reads what it writes.
        let arguments = ["--store", store.to_str().unwrap()];
        let vars = [
            ("SSL_CERT_FILE", ca.to_str().unwrap()),
            ("TMPDIR", temporary.to_str().unwrap()),
        ];
        with_streams(
            &place,
            (Stdio::piped(), Stdio::piped()),
            &address,
            &arguments,
            &vars,
        )
    };
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5));
    let client = client.build().unwrap();
    let url = format!("http://{address}/hooks/{TOKEN}");
    let mut troubles = Troubles {
        rng: Rng::with_seed(1),
        count: Count::default(),
        at: Instant::now(),
        server: &server,
        disk: disk.as_ref(),
        store: &store,
    };
    let (mut child, begin) = (start(), Instant::now());
    while begin.elapsed() < length() {
        if let Some((_, _, body)) = people.push() {
            let answer = client.post(&url).body(body).send();
            let is_taken = answer.is_ok_and(|answer| answer.status() == 202);
            troubles.count.pushes += 1;
            troubles.count.taken += u32::from(is_taken);
        }
        if troubles.come(people.branches()) {
            child.kill().unwrap();
            child.wait().unwrap();
            child = start();
        }
        thread::sleep(Duration::from_millis(2));
    }
    let count = troubles.count;

    // Now all is well.
    server.clear_faults();
    let ended = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    child = start();
    let is_current = |branch: &Branch| {
        let newest = commits(&store, branch).pop();
        newest.flatten() == people.repositories[&branch.0].resolve(&branch.1)
    };
    while !people.branches().iter().all(is_current) {
        assert!(
            ended.elapsed() < LIMIT,
            "{count:?}: not every newest version is the tip"
        );
        thread::sleep(Duration::from_millis(50));
    }
    let recovered = ended.elapsed();
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    wait_within(&mut child, LIMIT).expect("it ends");

    let mut versions = 0;
    for branch in people.branches() {
        versions += check(&store, branch, &people);
    }
    let left = [&temporary, &store.join(".backlog-bridge/tmp")]
        .map(|folder| fs::read_dir(folder).unwrap().count());
    println!(
        "{:.0?}: {count:?}; {versions} versions, all whole, no neighbours alike, each newest the tip {recovered:.1?} after the \
         last start; files left in TMPDIR and the store's tmp: {left:?}",
        length()
    );
    assert!(
        count.kills > 0 && count.taken > 0 && versions > 12,
        "{count:?}"
    );
    // Git's packs and the archives have no name; what the store had open, its next start removes.
    assert_eq!(left, [0, 0]);
    Store::open(&store).unwrap();
}

/// What happens from time to time.
struct Troubles<'a> {
    rng: Rng,
    count: Count,
    /// When the next one comes.
    at: Instant,
    server: &'a GitServer,
    disk: Option<&'a TinyDisk>,
    store: &'a Path,
}

impl Troubles<'_> {
    /// The next one, if it is time for it. Says whether it is a kill.
    fn come(&mut self, branches: &[Branch]) -> bool {
        if Instant::now() < self.at {
            return false;
        }
        match self.rng.u8(..6) {
            0 => {
                let is_damaged = damage(self.store, branches, &mut self.rng);
                self.count.damaged += u32::from(is_damaged);
            }
            1 => {
                if let Some(disk) = self.disk {
                    let filler = disk.fill();
                    thread::sleep(Duration::from_millis(self.rng.u64(..800)));
                    fs::remove_file(filler).unwrap();
                    self.count.full += 1;
                }
            }
            2 => {
                let sick = format!("APP/r{}", self.rng.usize(..REPOSITORIES));
                self.server.clear_faults();
                self.server.fault_in(&sick, Op::Handshake, Fault::Hang);
                self.count.silences += 1;
            }
            _ => {
                self.count.kills += 1;
                self.at = Instant::now() + PEACE.mul_f64(self.rng.f64());
                return true;
            }
        }
        self.at = Instant::now() + PEACE.mul_f64(self.rng.f64());
        false
    }
}

fn key((repository, name): &Branch) -> String {
    format!("{repository}/{name}.zip")
}

/// The versions of a branch's object, the oldest first: the commit of each that can be read.
fn folders(store: &Path, branch: &Branch) -> Vec<PathBuf> {
    let Ok(folders) = fs::read_dir(store.join("sources").join(key(branch))) else {
        return Vec::new();
    };
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn commit(version: &Path) -> Option<String> {
    let text = fs::read(version.join("version.json")).ok()?;
    let json: Value = serde_json::from_slice(&text).ok()?;
    Some(
        json["content"]["metadata"]["git-commit"]
            .as_str()?
            .to_owned(),
    )
}

fn commits(store: &Path, branch: &Branch) -> Vec<Option<String>> {
    folders(store, branch)
        .iter()
        .map(|version| commit(version))
        .collect()
}

/// Cuts what describes the newest version of some object.
fn damage(store: &Path, branches: &[Branch], rng: &mut Rng) -> bool {
    let branch = rng.choice(branches).unwrap();
    let Some(version) = folders(store, branch).pop() else {
        return false;
    };
    let file = version.join("version.json");
    let text = fs::read(&file).unwrap_or_default();
    fs::write(&file, &text[..text.len() / 2]).is_ok()
}

/// Each version is its commit, and no two neighbours are alike. How many there are.
fn check(store: &Path, branch: &Branch, people: &People) -> usize {
    let repository = &people.repositories[&branch.0];
    let name = branch.1.rsplit('/').next().unwrap();
    let mut before = None;
    let versions = folders(store, branch);
    for version in &versions {
        let now = commit(version);
        if let Some(now) = &now {
            assert_ne!(before.as_ref(), Some(now), "{branch:?}: a version twice");
            let zip = fs::read(version.join(format!("{name}.zip"))).unwrap();
            let expected = expected_entries(repository, now);
            check_zip(&zip, &expected, now)
                .unwrap_or_else(|why| panic!("{}: {why}", version.display()));
        }
        before = now;
    }
    versions.len()
}
