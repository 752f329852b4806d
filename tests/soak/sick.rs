//! Who is well beside who is sick.

use std::{
    fs,
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use backlog_bridge::{queue::Job, webhook::Webhook};
use serde_json::{Value, json};

use super::{
    alone, length,
    load::{Branch, People, Times, webhook},
};
use crate::{
    serve::{Place, Serving},
    support::{
        BUCKET,
        git_server::{Fault, GitServer, Op},
        lambda::Lambda,
        s3::TestS3,
        service::TOKEN,
        sqs::TestSqs,
        upstream::Upstream,
    },
};

/// How often it is looked what was delivered. That costs time, too.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Repositories that are well, with their branches.
const WELL: usize = 20;
const BRANCHES: usize = 3;

/// How many there are that do not answer, and how long each keeps whoever finds it out (`deliver/silences.rs`).
const SILENT: u32 = 3;
const FOUND_OUT: Duration = Duration::from_secs(4);

/// How often somebody pushes to one of those that are sick.
const SICK_EVERY: Duration = Duration::from_secs(1);

/// Repositories that are well, and others.
struct Town {
    people: People,
    server: GitServer,
    /// Takes connections, and says nothing.
    _dead: TcpListener,
    sick: Vec<Branch>,
    table: String,
}

impl Town {
    fn new(upstream: &Upstream) -> Self {
        let well: Vec<_> = (0..WELL).map(|n| (format!("APP/w{n}"), BRANCHES)).collect();
        let people = People::new(upstream, &well);
        let server = GitServer::start(upstream.root(), None);
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead_url = format!("https://{}/git", dead.local_addr().unwrap());
        let here: Vec<_> = ["APP/hangs", "APP/drips"]
            .map(|name| (name.to_owned(), 4))
            .into();
        let here = People::new(upstream, &here);
        let there: Vec<_> = (0..4).map(|n| (format!("APP/dead{n}"), 1)).collect();
        let there = People::new(upstream, &there);
        let key = |(repository, name): &Branch| format!("{repository}/{name}.zip");
        let table = format!(
            "[[space]]\nname = \"well\"\nurl = \"{}\"\n[[space]]\nname = \"dead\"\nurl = \"{dead_url}\"\n{}{}{}",
            server.space_url(),
            people.routes("well", key),
            here.routes("well", key),
            there.routes("dead", key)
        );
        server.fault_in("APP/hangs", Op::Handshake, Fault::Hang);
        let drip = Fault::Drip(50, Duration::from_millis(100));
        server.fault_in("APP/drips", Op::Fetch, drip);
        Self {
            people,
            server,
            _dead: dead,
            sick: [here.branches(), there.branches()].concat(),
            table,
        }
    }

    /// People push for a while, to those that are sick too if they are to; `post` takes a webhook, and `news` tells of what
    /// was delivered.
    fn run(
        &mut self,
        with_sick: bool,
        post: impl Fn(String),
        mut news: impl FnMut(&mut Times),
    ) -> Times {
        let mut times = Times::default();
        let (begin, mut sick_at) = (Instant::now(), Instant::now());
        let mut nth = 0;
        while begin.elapsed() < length() {
            if let Some((branch, commit, body)) = self.people.push() {
                times.pushed(branch, commit);
                post(body);
            }
            if with_sick && Instant::now() >= sick_at {
                sick_at += SICK_EVERY;
                post(webhook(&self.sick[nth % self.sick.len()], &"1".repeat(40)));
                nth += 1;
            }
            news(&mut times);
            thread::sleep(LOOK_EVERY);
        }
        let end = Instant::now() + Duration::from_mins(1);
        while !times.is_complete() {
            assert!(
                Instant::now() < end,
                "not everything was delivered: {times}"
            );
            news(&mut times);
            thread::sleep(LOOK_EVERY);
        }
        times
    }
}

/// Runs both at the same time, so that whatever else the machine does is the same for both, and compares how late a push may be,
/// of a hundred pushes the last but one. `run` is told whether there is somebody sick.
fn compare(case: &str, later: Duration, run: impl Fn(bool) -> Times + Sync) {
    let _alone = alone();
    let [alone, beside] = thread::scope(|scope| {
        let run = &run;
        let both = [false, true].map(|with_sick| scope.spawn(move || run(with_sick)));
        both.map(|run| run.join().expect("it does not panic"))
    });
    println!(
        "{case}: alone {alone}\n{case}: beside a repository that hangs, one that drips, and a dead host {beside}"
    );
    let most = alone.percentile(99).max(Duration::from_millis(100)) + later;
    assert!(beside.percentile(99) < most, "{case}");
}

fn learn(times: &mut Times, line: &Value) {
    if ["published", "already_current"]
        .map(|outcome| json!(outcome))
        .contains(&line["outcome"])
    {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        times.delivered(&(text("repository"), text("ref")), &text("commit"));
    }
}

#[test]
fn serve_delivers_who_is_well_as_if_nobody_was_sick() {
    compare("serve", Duration::from_secs(1), |with_sick| {
        let place = Place::new();
        let mut town = Town::new(&place.upstream);
        fs::write(place.folder.path().join("routes.toml"), &town.table).unwrap();
        let ca = town.server.ca_file();
        let vars = [("SSL_CERT_FILE", ca.to_str().unwrap())];
        let serving = place.serve(&["--sweep-seconds", "3600"], &vars);
        let post = |body: String| assert_eq!(serving.post(&serving.token, body).0, 202);
        let news = |times: &mut Times| {
            while let Some(line) = serving.try_line() {
                learn(times, &line);
            }
        };
        // All that is well is there.
        let mut left = WELL * BRANCHES;
        while left > 0 {
            left -= usize::from(serving.line()["outcome"] == "published");
        }
        let before = Resources::of(&serving);
        let times = town.run(with_sick, post, news);
        let after = Resources::of(&serving);
        println!("before {before:?}, after {after:?}");
        assert!(after.threads < before.threads + 100 && after.files < before.files + 100);
        assert!(after.rss_kib < before.rss_kib + 64 * 1024);
        times
    });
}

/// What a process has.
#[derive(Debug)]
struct Resources {
    rss_kib: usize,
    threads: usize,
    files: usize,
}

impl Resources {
    fn of(serving: &Serving) -> Self {
        let process = format!("/proc/{}", serving.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap()
        };
        Self {
            rss_kib: number("VmRSS:"),
            threads: number("Threads:"),
            files: fs::read_dir(format!("{process}/fd")).unwrap().count(),
        }
    }
}

/// How many functions run at a time, as `MaximumConcurrency` has it.
const CONCURRENCY: usize = 5;

#[test]
fn the_functions_deliver_who_is_well_beside_who_is_sick() {
    // Each function finds out for itself, of each that is silent; so all of them may be busy with that at once, at the worst.
    compare("SQS", SILENT * FOUND_OUT, |with_sick| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(on_functions(with_sick))
    });
}

async fn on_functions(with_sick: bool) -> Times {
    let upstream = Upstream::new();
    let mut town = Town::new(&upstream);
    let s3 = TestS3::start().await;
    let sqs = TestSqs::start(Duration::from_mins(6), 5);
    let put = s3.client().put_object().bucket(BUCKET).key("routes.toml");
    put.body(town.table.clone().into_bytes().into())
        .send()
        .await
        .unwrap();
    let vars = [
        ("AWS_ENDPOINT_URL_S3", s3.endpoint().to_owned()),
        ("AWS_ENDPOINT_URL_SQS", sqs.endpoint()),
        ("SSL_CERT_FILE", town.server.ca_file().display().to_string()),
        ("SOURCE_BUCKET", BUCKET.into()),
        ("ROUTES", format!("s3://{BUCKET}/routes.toml")),
        ("QUEUE_URL", sqs.url()),
        ("WEBHOOK_TOKEN", TOKEN.into()),
    ];
    let limit = Duration::from_mins(5);
    let mut functions = Vec::new();
    for _ in 0..CONCURRENCY {
        functions.push(Lambda::start(env!("CARGO_BIN_EXE_deliver"), &vars, limit).await);
    }
    let post = |body: String| {
        let Ok(Webhook::Push(push)) = Webhook::from_body(body.as_bytes()) else {
            panic!("no push: {body}");
        };
        let route = format!("{} {}", push.repository, push.ref_name);
        let job = Job::new(route, &push, "");
        sqs.put(&job.body(), &job.group());
    };
    let news = |times: &mut Times| {
        for branch in times.waiting() {
            let key = format!("{}/{}.zip", branch.0, branch.1);
            if let Some(version) = s3.newest(BUCKET, &key) {
                times.delivered(&branch, &version.metadata["git-commit"]);
            }
        }
    };
    let is_over = AtomicBool::new(false);
    let runtime = tokio::runtime::Handle::current();
    let pump = |function: &Lambda| {
        while !is_over.load(Relaxed) {
            let drained = sqs.drain(function, 1, Duration::from_millis(100));
            runtime.block_on(drained);
            thread::sleep(Duration::from_millis(5));
        }
    };
    tokio::task::block_in_place(|| {
        thread::scope(|scope| {
            for function in &functions {
                scope.spawn(|| pump(function));
            }
            let times = town.run(with_sick, post, news);
            is_over.store(true, Relaxed);
            times
        })
    })
}
