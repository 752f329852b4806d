//! A hundred pushes to ten branches on the real `receive` and `deliver`, one delivery in fifty killed; and what the world in
//! virtual time says of the same pushes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use fastrand::Rng;
use serde_json::Value;

use crate::{
    load::seconds,
    measure::median,
    simulation::{
        World,
        load::{Limits, Load, Times, log_normal, steady},
        seen::{Seen, Why, percentile},
    },
    support::{
        BUCKET,
        fault::{Fault, Op},
        lambda::Lambda,
        service::{Service, lines},
    },
};

const BRANCHES: usize = 10;
const WORKERS: usize = 5;
/// A hundred pushes, which is an hundredth of 10,000 an hour in a thirty-sixth of the time.
const AN_HOUR: u32 = 3_600;
const LENGTH: Duration = Duration::from_secs(100);
/// As the service of the tests has it.
const VISIBILITY: Duration = Duration::from_mins(1);
/// During which pushes a function is killed.
const KILLS: [usize; 2] = [30, 65];
/// Worlds that live through the same.
const WORLDS: u64 = 50;

/// What a function has at the moment, if anything.
type Current = Arc<Mutex<Option<String>>>;

/// A function and the part of Lambda that hands it one message after the other.
struct Function {
    lambda: Arc<Lambda>,
    current: Current,
}

struct Bridge {
    service: Service,
    functions: Vec<Function>,
    over: AtomicBool,
    took: Mutex<Vec<Duration>>,
}

struct Push {
    branch: usize,
    commit: String,
    at: SystemTime,
}

pub(crate) fn show(runtime: &tokio::runtime::Runtime) {
    let mut rng = Rng::with_seed(1);
    let pushes = steady(AN_HOUR, LENGTH, BRANCHES, &mut rng);
    let (real, times, pushes) = runtime.block_on(real(&pushes, &mut rng));
    let mut model = Seen::default();
    let (mut lost, mut versions) = (0, 0);
    for seed in 0..WORLDS {
        let load = Load {
            seed,
            pushes: pushes.clone(),
            branches: BRANCHES,
            branches_each: BRANCHES,
            back: 0.0,
            killed: 0.02,
            failed: 0.0,
            limits: Limits {
                workers: WORKERS,
                api: None,
                visibility: VISIBILITY,
                receives: 5,
                sweep_every: None,
            },
            times,
            mutant: None,
        };
        let seen = World::live(&load);
        lost += seen.lost + seen.behind + seen.dead;
        versions += seen.versions;
        model.took.extend(seen.took);
        model.deliveries.extend(seen.deliveries);
    }
    let worlds = usize::try_from(WORLDS).unwrap();
    println!("## The model beside the two programs, {LENGTH:?} of pushes to {BRANCHES} branches\n");
    println!(
        "| | pushes | versions | a delivery, p50 | p99 | p50 | p90 | p99 | killed | p50 of those | lost |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, seen, share, versions, lost) in [
        ("the two programs", &real, 1, real.versions, real.lost),
        (
            "the model, 50 times",
            &model,
            worlds,
            versions / worlds,
            lost,
        ),
    ] {
        let of = |n| seconds_of(seen.percentile(n, &[Why::Plain]));
        println!(
            "| {name} | {} | {versions} | {} | {} | {} | {} | {} | {} | {} | {lost} |",
            seen.took.len() / share,
            seconds_of(percentile(seen.deliveries.clone(), 50)),
            seconds_of(percentile(seen.deliveries.clone(), 99)),
            of(50),
            of(90),
            of(99),
            seen.count(Why::Killed) / share,
            seconds(seen.percentile(50, &[Why::Killed])),
        );
    }
    println!();
}

fn seconds_of(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// What was seen, how long things take here, and when who pushed.
async fn real(
    pushes: &[(Duration, usize)],
    rng: &mut Rng,
) -> (Seen, Times, Vec<(Duration, usize)>) {
    let bridge = Bridge::start().await;
    let works = bridge
        .functions
        .iter()
        .map(|function| bridge.work(function));
    let works = futures_util::future::join_all(works);
    let story = async {
        let (times, own) = bridge.times().await;
        // The rest of a delivery is the fetch, and the Git server lets it wait as long as the model's does.
        for _ in 0..4 * pushes.len() {
            let late = log_normal(times.delivery, rng).saturating_sub(own);
            bridge.service.git.fault_once(Op::Fetch, Fault::Delay(late));
        }
        let (seen, pushes) = bridge.live(pushes).await;
        bridge.over.store(true, Relaxed);
        (seen, times, pushes)
    };
    tokio::join!(story, works).0
}

impl Bridge {
    async fn start() -> Self {
        let service = Service::with(&[], &[]).await;
        let names: Vec<_> = (0..BRANCHES).map(|n| (branch(n), key(n))).collect();
        let routes = names.iter().map(|(name, key)| (&**name, &**key, ""));
        let table = service.table(&routes.collect::<Vec<_>>());
        service.put_routes(&table).await;
        let mut functions = Vec::new();
        for _ in 0..WORKERS {
            let limit = Duration::from_secs(40);
            let deliver = env!("CARGO_BIN_EXE_deliver");
            functions.push(Function {
                lambda: Arc::new(Lambda::start(deliver, &service.vars, limit).await),
                current: Arc::default(),
            });
        }
        Self {
            service,
            functions,
            over: AtomicBool::new(false),
            took: Mutex::default(),
        }
    }

    /// What lies between the queue and one function.
    async fn work(&self, function: &Function) {
        let sqs = &self.service.sqs;
        while !self.over.load(Relaxed) {
            let Some(message) = sqs.receive(1).pop() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let job: Value = serde_json::from_str(&message.body).unwrap();
            let name = job["ref"].as_str().unwrap().to_owned();
            *function.current.lock().unwrap() = Some(name);
            let event = sqs.event(std::slice::from_ref(&message));
            let invocation = function.lambda.invoke(&event).await;
            *function.current.lock().unwrap() = None;
            let failed = |answer: Value| {
                let failures = answer["batchItemFailures"].as_array();
                failures.is_some_and(|failures| !failures.is_empty())
            };
            if invocation.result.is_ok_and(|answer| !failed(answer)) {
                sqs.delete(&message);
                self.took.lock().unwrap().push(invocation.took);
            }
        }
    }

    /// Makes a commit and tells of it. When it was there, and how long the telling took.
    async fn push(&self, at: usize, nth: usize) -> (Push, Duration) {
        let repository = self.service.repository.clone();
        let commit = move || {
            repository.commit_on(&branch(at), &[("a", format!("{nth}").into_bytes().into())])
        };
        let commit = tokio::task::spawn_blocking(commit).await.unwrap();
        let (pushed, started) = (SystemTime::now(), Instant::now());
        let (status, answer) = self.service.push(&branch(at), &[&commit]).await;
        assert_eq!(status, 202, "{answer}");
        let push = Push {
            branch: at,
            commit,
            at: pushed,
        };
        (push, started.elapsed())
    }

    async fn until_empty(&self) {
        let end = Instant::now() + Duration::from_mins(4);
        while self.service.sqs.depth() != (0, 0) {
            assert!(Instant::now() < end, "{:?}", self.service.sqs.depth());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How long the parts of a delivery take here when there is nothing to wait for; and all of one.
    async fn times(&self) -> (Times, Duration) {
        let mut edges = Vec::new();
        // The first deliveries fetch everything; the medians are those of the others.
        for round in 0..5 {
            for at in 0..BRANCHES {
                let (_, edge) = self.push(at, round).await;
                edges.push(edge);
                self.until_empty().await;
            }
        }
        let stages = self
            .functions
            .iter()
            .flat_map(|function| lines(&function.lambda));
        let stages: Vec<_> = stages
            .filter(|line| line["stages_ms"]["put"].is_u64())
            .collect();
        let stage = |name: &str| {
            let millis = stages.iter().map(|line| line["stages_ms"][name].as_u64());
            Duration::from_millis(median(millis.map(Option::unwrap_or_default)))
        };
        let names = ["head", "routes", "tip", "fetch", "archive", "put", "verify"];
        let inside: Duration = names.iter().map(|name| stage(name)).sum();
        let whole = median(self.took.lock().unwrap().iter().copied());
        let outside = whole.saturating_sub(inside);
        let times = Times {
            edge: median(edges.into_iter()),
            invoke: outside / 2,
            queue: Duration::from_millis(2),
            head: stage("head"),
            table: stage("routes") / 2,
            tip: stage("tip"),
            tip_again: stage("verify"),
            put: stage("put"),
            ..Times::AWS
        };
        eprintln!("a delivery {whole:.1?}, of which {inside:.1?} in stages: {times:?}");
        (times, inside)
    }

    async fn live(&self, pushes: &[(Duration, usize)]) -> (Seen, Vec<(Duration, usize)>) {
        let known = self.functions.iter();
        let known: Vec<_> = known
            .map(|function| lines(&function.lambda).len())
            .collect();
        let (started, since) = (Instant::now(), SystemTime::now());
        let mut made = Vec::new();
        let mut kills = Vec::new();
        for (nth, (at, branch)) in pushes.iter().enumerate() {
            tokio::time::sleep((*at).saturating_sub(started.elapsed())).await;
            made.push(self.push(*branch, 1_000 + nth).await.0);
            if KILLS.contains(&nth) {
                kills.push(self.kill().await);
            }
        }
        self.until_empty().await;
        let told = self.functions.iter().zip(known);
        let told = told.flat_map(|(function, known)| lines(&function.lambda).split_off(known));
        let at_once = told
            .filter(|line| line["outcome"] == "published" && line["stages_ms"]["settle"].is_null());
        let took = at_once.map(|line| Duration::from_millis(line["duration_ms"].as_u64().unwrap()));
        let mut seen = Seen {
            deliveries: took.collect(),
            killed: kills.len(),
            dead: self.service.sqs.dead_letters().len(),
            ..Seen::default()
        };
        for at in 0..BRANCHES {
            let of: Vec<_> = made.iter().filter(|push| push.branch == at).collect();
            let nths: HashMap<_, _> = (0..)
                .zip(&of)
                .map(|(nth, push)| (&*push.commit, nth))
                .collect();
            let mut versions = self.service.s3.versions(BUCKET, &key(at));
            versions.reverse();
            let mut held = 0;
            for version in &versions {
                let Some(nth) = nths.get(&*version.metadata["git-commit"]) else {
                    continue;
                };
                seen.versions += 1;
                for push in &of[held..=*nth] {
                    let took = version.stored.duration_since(push.at).unwrap_or_default();
                    let met = kills.iter().any(|(name, killed)| {
                        let back = *killed + VISIBILITY;
                        *name == branch(at) && *killed <= version.stored && push.at <= back
                    });
                    let why = if met { Why::Killed } else { Why::Plain };
                    seen.took.push((why, took));
                }
                held = nth + 1;
            }
            seen.lost += of.len() - held;
        }
        let pushes = made.iter().map(|push| {
            let at = push.at.duration_since(since).unwrap_or_default();
            (at, push.branch)
        });
        (seen, pushes.collect())
    }

    /// Kills a function that is at work, and says whose message it had.
    async fn kill(&self) -> (String, SystemTime) {
        loop {
            for function in &self.functions {
                let current = function.current.lock().unwrap().clone();
                if let Some(name) = current {
                    // It has come to the fetch by then.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if *function.current.lock().unwrap() == Some(name.clone()) {
                        function.lambda.kill();
                        return (name, SystemTime::now());
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn branch(n: usize) -> String {
    format!("refs/heads/b{n}")
}

fn key(n: usize) -> String {
    format!("b{n}.zip")
}
