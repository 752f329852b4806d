//! A sweep of many repositories: how many are asked at once, over which connections, and what a host gets that asks for
//! patience.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    MAIN,
    git_server::{Fault, GitServer, Op},
    service::{GIT_SECRET, LOGIN, Service},
    upstream::Upstream,
};

/// What the last sweep says.
fn swept(service: &Service) -> Value {
    let outcomes = service.outcomes();
    let failed = outcomes.iter().filter(|line| line["outcome"] == "failed");
    // What a test that fails shows.
    failed.for_each(|line| println!("{}", line["error"]));
    let outcomes = outcomes.into_iter();
    let mut swept = outcomes.filter(|line| line["outcome"] == "swept");
    swept.next_back().expect("there was a sweep")
}

/// A table's part for one space with so many repositories of `APP`, of which each has one route.
fn space(name: &str, url: &str, count: usize) -> String {
    let mut text = format!(
        "[[space]]\nname = \"{name}\"\nurl = \"{url}\"\ncredentials = \"secret:{GIT_SECRET}\"\n"
    );
    for nth in 0..count {
        write!(
            text,
            "[[route]]\nname = \"{name}-{nth}\"\nspace = \"{name}\"\nrepository = \"APP/r{nth}\"\nref = \"{MAIN}\"\n\
             object = \"{name}/{nth}.zip\"\nsweep = \"existing\"\n"
        )
        .unwrap();
    }
    text
}

/// Makes the repositories, with one commit each.
fn fill(upstream: &Upstream, count: usize) {
    for nth in 0..count {
        let repository = upstream.repository(&format!("APP/r{nth}"));
        repository.commit_on(MAIN, &[("a", "a".into())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_are_asked_at_once_over_connections_that_are_kept() {
    const COUNT: usize = 30;
    for (vars, most) in [(vec![], 6), (vec![("SWEEP_AT_ONCE", "3")], 3)] {
        let service = Service::with(&[], &vars).await;
        fill(&service.upstream, COUNT);
        service
            .put_routes(&space("a", &service.git.space_url(), COUNT))
            .await;
        service
            .git
            .fault(Op::LsRefs, Fault::Delay(Duration::from_millis(300)));
        service.sweep().await;
        let line = swept(&service);
        assert_eq!(
            (&line["repositories"], &line["SweepNotReached"]),
            (&COUNT.into(), &0.into()),
            "{line}"
        );
        let requests = service.git.requests();
        assert_eq!(
            requests.len(),
            2 * COUNT,
            "hello, and where do the refs point"
        );
        let connections: BTreeSet<_> = requests.iter().map(|request| request.connection).collect();
        let at_once = service.git.most_at_once();
        println!(
            "{COUNT} repositories, {} connections, {at_once} at once",
            connections.len()
        );
        assert_eq!(at_once, most);
        // One whose answer does not end in time is not waited for.
        assert!(connections.len() <= COUNT / 3, "{connections:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_host_keeps_no_other_one_waiting() {
    let service = Service::with(&[], &[]).await;
    let other = GitServer::start(service.upstream.root(), Some(LOGIN));
    fill(&service.upstream, 60);
    // The authorities of both, in the one file that the function was given.
    let both = [&service.git, &other].map(|git| std::fs::read_to_string(git.ca_file()).unwrap());
    std::fs::write(service.git.ca_file(), both.concat()).unwrap();
    let text =
        space("slow", &service.git.space_url(), 40) + &space("other", &other.space_url(), 60);
    service.put_routes(&text).await;
    let started = Instant::now();
    service
        .git
        .fault(Op::LsRefs, Fault::Delay(Duration::from_millis(800)));
    // The slow one takes 40 / 6 turns of 0.8 s; the other one is done when it has hardly begun.
    let done = async {
        while other.ops().len() < 120 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    };
    let (_, fast) = tokio::join!(service.sweep(), done);
    let all = started.elapsed();
    let line = swept(&service);
    assert_eq!(line["repositories"], 100, "{line}");
    println!("60 repositories of one host: {fast:.1?}; 40 of a slow one: {all:.1?}");
    assert!(fast < all, "{fast:?} of {all:?}");
    assert!(all >= Duration::from_millis(40 / 6 * 800));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_asks_for_patience_gets_it() {
    const COUNT: usize = 12;
    let service = Service::with(&[], &[]).await;
    fill(&service.upstream, COUNT);
    service
        .put_routes(&space("a", &service.git.space_url(), COUNT))
        .await;
    // The first alone, which finds out whether the login is good.
    service.git.fault_once(Op::Handshake, Fault::Busy("2"));
    let started = Instant::now();
    service.sweep().await;
    let took = started.elapsed();
    let line = swept(&service);
    assert_eq!(
        (&line["repositories"], &line["failures"]),
        (&COUNT.into(), &0.into()),
        "{line}"
    );
    assert!(took >= Duration::from_secs(2), "{took:?}");
    let at_once = service.git.most_at_once();
    assert!(at_once <= 6, "{at_once}");

    // It wants more than this sweep has.
    service.git.clear_requests();
    service.git.fault(Op::Handshake, Fault::Busy("3600"));
    service.sweep().await;
    let line = swept(&service);
    let seen = (&line["SweepNotReached"], &line["failures"]);
    assert_eq!(seen, (&COUNT.into(), &1.into()), "{line}");
    assert!(service.git.requests().len() <= 6, "{:?}", service.git.ops());
    service.git.clear_faults();

    // It never has time: it is asked a few times, at most so many at once, and not once for each repository.
    service.git.clear_requests();
    service.git.fault(Op::Handshake, Fault::Busy("0"));
    service.sweep().await;
    let line = swept(&service);
    assert_eq!(
        (
            &line["repositories"],
            &line["SweepNotReached"],
            &line["failures"]
        ),
        (&0.into(), &COUNT.into(), &1.into()),
        "{line}"
    );
    let failure = service
        .outcomes()
        .into_iter()
        .rfind(|line| line["outcome"] == "failed")
        .unwrap();
    let said = failure["error"]["message"].as_str().unwrap();
    assert!(
        said.contains("429 Too Many Requests, try again later"),
        "{said}"
    );
    assert!(
        service.git.requests().len() <= 20,
        "{}",
        service.git.requests().len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_is_not_tried_by_each_of_many() {
    const COUNT: usize = 30;
    let service = Service::with(&[], &[]).await;
    fill(&service.upstream, COUNT);
    service
        .put_routes(&space("a", &service.git.space_url(), COUNT))
        .await;
    // It was good, until somebody changed the password.
    service.sweep().await;
    assert_eq!(swept(&service)["repositories"], COUNT);
    service.git.clear_requests();
    service.git.fault(Op::Handshake, Fault::Status(401));
    service.sweep().await;
    let line = swept(&service);
    assert_eq!(line["SweepNotReached"], COUNT, "{line}");
    let refusals = service.git.requests().len();
    println!("{COUNT} repositories, {refusals} refusals");
    assert!(refusals <= 2, "{refusals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_of_more_than_2000_repositories_goes_in_parts() {
    const COUNT: usize = 4_100;
    let service = Service::with(&[], &[("SWEEP_AT_ONCE", "16")]).await;
    service
        .put_routes(&space("a", &service.git.space_url(), COUNT))
        .await;
    // None of them is there, which is said quickly.
    service.git.fault(Op::Handshake, Fault::Status(404));
    service.sweep().await;
    let sent = service.sqs.sent().into_iter();
    let parts: BTreeMap<_, _> = sent
        .filter(|sent| sent.body.contains("part"))
        .map(|sent| (sent.body, sent.group))
        .collect();
    let expected = [(0, "sweep-0"), (1, "sweep-1"), (2, "sweep-0")];
    let expected = expected.map(|(nth, group)| {
        (
            format!(r#"{{"sweep":true,"part":{nth},"of":3}}"#),
            group.to_owned(),
        )
    });
    assert_eq!(parts, BTreeMap::from(expected));
    let mut asked: Vec<_> = service
        .git
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(asked.len(), COUNT, "each once");
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), COUNT);
    let outcomes = service.outcomes();
    let lines: Vec<_> = outcomes
        .iter()
        .filter(|line| line["outcome"] == "swept")
        .collect();
    let not_reached: u64 = lines
        .iter()
        .map(|line| line["SweepNotReached"].as_u64().unwrap())
        .sum();
    assert_eq!((lines.len(), not_reached), (3, COUNT as u64));
}
