//! A Git server that gives no answer takes neither turns nor sweeps from those that do.

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    serve::{Place, Serving},
    support::{
        git_server::{Fault, GitServer, Op},
        service::project_push,
        upstream::Repository,
    },
};

const LIMIT: Duration = Duration::from_mins(1);

/// `serve` of all branches of several repositories.
struct Town {
    place: Place,
    server: GitServer,
    repositories: HashMap<&'static str, Repository>,
    serving: Option<Serving>,
}

impl Town {
    /// Repositories with so many branches each, at a server; and others at an address where maybe nobody is.
    fn new(here: &[(&'static str, usize)], elsewhere: Option<(&str, &[&str])>) -> Self {
        let place = Place::new();
        let server = GitServer::start(place.upstream.root(), None);
        let mut spaces = vec![(
            server.space_url(),
            here.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        )];
        spaces.extend(elsewhere.map(|(url, names)| (url.to_owned(), names.to_vec())));
        let branches = |name: &str| {
            let branches = here.iter().find(|(here, _)| *here == name);
            branches.map_or(2, |(_, branches)| *branches)
        };
        let (mut tops, mut routes) = (Vec::new(), Vec::new());
        for (n, (url, names)) in spaces.iter().enumerate() {
            tops.push(format!("[[space]]\nname = \"s{n}\"\nurl = \"{url}\"\n"));
            for name in names {
                routes.extend((0..branches(name)).map(branch).map(|branch| {
                    format!(
                        "[[route]]\nname = \"{name} {branch}\"\nspace = \"s{n}\"\nrepository = \"{name}\"\n\
                         ref = \"{branch}\"\nobject = \"{name}/{branch}.zip\"\n"
                    )
                }));
            }
        }
        let table = [tops.concat(), routes.concat()].concat();
        fs::write(place.folder.path().join("routes.toml"), table).unwrap();
        let mut repositories = HashMap::new();
        for (name, branches) in here {
            let repository = place.upstream.repository(name);
            for n in 0..*branches {
                repository.commit_on(&branch(n), &[("a", "a".into())]);
            }
            repositories.insert(*name, repository);
        }
        Self {
            place,
            server,
            repositories,
            serving: None,
        }
    }

    fn serve(&mut self, arguments: &[&str]) -> &Serving {
        let ca = self.server.ca_file();
        let trust = ("SSL_CERT_FILE", ca.to_str().unwrap());
        self.serving.insert(self.place.serve(arguments, &[trust]))
    }

    fn serving(&self) -> &Serving {
        self.serving.as_ref().unwrap()
    }

    /// Pushes to a branch of a repository, which may be nowhere.
    fn push(&self, name: &str, ref_name: &str) -> String {
        let content = format!("{:?}", Instant::now());
        let commit = self.repositories.get(name).map(|repository| {
            let tree = [("a", content.as_str().into())];
            repository.commit_on(ref_name, &tree)
        });
        let commit = commit.unwrap_or_else(|| "1".repeat(40));
        let mut body: Value =
            serde_json::from_str(&project_push("update", ref_name, &[&commit])).unwrap();
        body["content"]["repository"]["name"] = json!(name.strip_prefix("APP/").unwrap());
        let serving = self.serving();
        assert_eq!(serving.post(&serving.token, body.to_string()).0, 202);
        commit
    }

    /// The next lines, until as many are as is wanted.
    fn lines(&self, most: usize, mut is_wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let end = Instant::now() + LIMIT;
        let mut lines = Vec::new();
        while lines.len() < most {
            assert!(Instant::now() < end, "{lines:#?}");
            let line = self.serving().line();
            if is_wanted(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// How long a push takes.
    fn delivered(&self, name: &str) -> Duration {
        let started = Instant::now();
        let commit = self.push(name, &branch(0));
        self.lines(1, |line| line["commit"] == json!(commit));
        started.elapsed()
    }
}

fn branch(n: usize) -> String {
    format!("refs/heads/b{n}")
}

fn is_of(name: &str) -> impl Fn(&Value) -> bool {
    move |line| line["repository"] == json!(name)
}

#[test]
fn a_repository_that_hangs_has_its_share_and_is_asked_by_one_for_all() {
    const BRANCHES: usize = 10;
    for op in [Op::LsRefs, Op::Handshake] {
        let mut town = Town::new(&[("APP/sick", BRANCHES), ("APP/well", 1)], None);
        town.serve(&["--sweep-seconds", "3600"]);
        town.lines(BRANCHES + 1, |line| line["outcome"] == "published");
        let alone = town.delivered("APP/well");
        town.server.fault_in("APP/sick", op, Fault::Hang);
        town.server.clear_requests();
        let commits: Vec<_> = (0..BRANCHES)
            .map(|n| town.push("APP/sick", &branch(n)))
            .collect();
        let beside = town.delivered("APP/well");
        println!(
            "{op:?}: alone {alone:.2?}, beside {BRANCHES} pushes to a repository that hangs {beside:.2?}"
        );
        assert!(beside < Duration::from_secs(1), "{beside:?}");

        let started = Instant::now();
        let lines = town.lines(BRANCHES, is_of("APP/sick"));
        println!(
            "all of it told after {:.1?}: {}",
            started.elapsed(),
            lines[9]
        );
        for line in &lines {
            let error = &line["error"];
            assert_eq!(
                (&error["kind"], &error["transient"]),
                (&json!("unreachable"), &json!(true))
            );
        }
        assert!(started.elapsed() < Duration::from_secs(14));
        let asked = town
            .server
            .ops()
            .into_iter()
            .filter(|asked| *asked == Op::Handshake);
        // Those that had a turn at once; and twice for the push that was well.
        println!("{} conversations", asked.clone().count());
        assert!(asked.count() <= 9, "each took a turn");

        if op == Op::LsRefs {
            continue;
        }
        // It is well again, and nothing was lost.
        town.server.clear_faults();
        let mut left: Vec<_> = commits.iter().map(|commit| json!(commit)).collect();
        town.lines(BRANCHES, |line| {
            let is_last = line["error"].is_null() && left.contains(&line["commit"]);
            left.retain(|commit| !is_last || *commit != line["commit"]);
            is_last
        });
        println!("all of it delivered after {:.1?}", started.elapsed());
    }
}

#[test]
fn a_host_where_nobody_answers_keeps_no_other_one_waiting() {
    // It takes connections, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/git", listener.local_addr().unwrap());
    let dead: Vec<String> = (0..12).map(|n| format!("APP/dead{n}")).collect();
    let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
    let mut town = Town::new(&[("APP/well", 1)], Some((&url, &dead)));
    town.serve(&["--sweep-seconds", "3600"]);
    town.lines(1, is_of("APP/well"));
    for name in &dead {
        town.push(name, &branch(0));
        town.push(name, &branch(1));
    }
    let beside = town.delivered("APP/well");
    println!("beside 24 pushes to a host that is dead: {beside:.2?}");
    assert!(beside < Duration::from_secs(1), "{beside:?}");
    let started = Instant::now();
    let serving = town.serving.take().unwrap();
    let (code, text) = serving.stop();
    println!("SIGTERM: {:.1?}, {text}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(9), "{text}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_sweep_reaches_all_others_of_a_space_in_which_one_hangs() {
    let names = ["APP/a", "APP/b", "APP/c", "APP/d", "APP/e"];
    let mut repositories: Vec<_> = names.iter().map(|name| (*name, 1)).collect();
    repositories.push(("APP/sick", 1));
    let mut town = Town::new(&repositories, None);
    town.server.fault_in("APP/sick", Op::Handshake, Fault::Hang);
    let started = Instant::now();
    town.serve(&["--sweep-seconds", "3600"]);
    town.lines(names.len(), |line| line["outcome"] == "published");
    let others = started.elapsed();
    let text = town.serving().wait_for("sweep: ");
    println!(
        "the others after {others:.1?}, all after {:.1?}: {text}",
        started.elapsed()
    );
    assert!(others < Duration::from_secs(6), "{others:?}");
    assert!(
        text.contains("sweep: repositories 5, objects 5, differed 5"),
        "{text}"
    );
    assert!(
        text.contains("1 failure, 1 repository not reached"),
        "{text}"
    );
}
