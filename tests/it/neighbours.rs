//! What one branch, one repository or somebody who learned the token does costs the others neither memory, nor attempts, nor
//! their place in the queue.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    serve::{Place, Serving},
    support::{
        MAIN,
        generate::noise,
        git_server::{Fault, GitServer, Op},
        service::project_push,
    },
};

/// `serve` of all branches of a repository.
fn serve_all(place: &Place) -> Serving {
    let space = format!("file://{}", place.upstream.root().display());
    serve_all_of(place, &space, &[])
}

fn serve_all_of(place: &Place, space: &str, vars: &[(&str, &str)]) -> Serving {
    let text = format!(
        "[[space]]\nurl = \"{space}\"\n[[route]]\nname = \"all\"\nrepository = \"APP/web\"\nref = \"refs/heads/*\"\n\
         object = \"{{ref}}.zip\"\nsweep = \"all\"\n"
    );
    fs::write(place.folder.path().join("routes.toml"), text).unwrap();
    let serving = place.serve(&["--sweep-seconds", "3600"], vars);
    assert_eq!(serving.line()["outcome"], "published");
    serving
}

fn push(serving: &Serving, change: &str, ref_name: &str, commits: &[&str]) -> u16 {
    let body = project_push(change, ref_name, commits);
    serving.post(&serving.token, body).0
}

/// The next line of a ref.
fn line_of(serving: &Serving, ref_name: &str) -> Value {
    loop {
        let line = serving.line();
        if line["ref"] == ref_name {
            return line;
        }
    }
}

/// How long the delivery of a push takes.
fn delivered(serving: &Serving, place: &Place, change: &str, ref_name: &str) -> Duration {
    let commit = place
        .repository
        .commit_on(ref_name, &[("a", ref_name.into())]);
    let started = Instant::now();
    assert_eq!(push(serving, change, ref_name, &[&commit]), 202);
    loop {
        let line = line_of(serving, ref_name);
        if line["commit"] == json!(commit) {
            return started.elapsed();
        }
    }
}

#[test]
fn refs_that_are_not_there_keep_no_push_out() {
    const FORGED: usize = 10_000;
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = serve_all(&place);
    let before = delivered(&serving, &place, "update", MAIN);
    let started = Instant::now();
    let post = serving.poster();
    thread::scope(|scope| {
        for part in 0..4 {
            let post = &post;
            scope.spawn(move || {
                for n in (part..FORGED).step_by(4) {
                    let name = format!("refs/heads/forged-{n}");
                    assert_eq!(post(project_push("create", &name, &[])).0, 202);
                }
            });
        }
    });
    let posted = started.elapsed();
    let there = delivered(&serving, &place, "update", MAIN);
    let new = delivered(&serving, &place, "create", "refs/heads/new");
    println!(
        "a push alone {before:.2?}; after {FORGED} forged refs in {posted:.1?}: of a ref with an object {there:.2?}, of a new \
         one {new:.2?}"
    );
    assert!(
        there.max(new) < Duration::from_secs(2),
        "{there:?}, {new:?}"
    );
}

#[test]
fn a_new_branch_is_delivered_once_the_server_shows_it_whatever_else_is_looked_for() {
    let place = Place::new();
    let first = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = serve_all(&place);
    // Two that are looked for already, as after a branch that was deleted at once.
    for name in ["refs/heads/gone-1", "refs/heads/gone-2"] {
        assert_eq!(push(&serving, "create", name, &[]), 202);
    }
    let line = line_of(&serving, "refs/heads/gone-1");
    assert_eq!(line["outcome"], "ignored", "{line}");
    let reason = line["reason"].as_str().unwrap();
    assert!(
        reason.contains("looked for again 2, 7 and 70 seconds"),
        "{reason}"
    );
    let late = [("refs/heads/a", 0_u64, 2), ("refs/heads/b", 4, 7)];
    let started = Instant::now();
    for (name, ..) in late {
        assert_eq!(push(&serving, "create", name, &[&first]), 202);
    }
    for (name, shown, look) in late {
        // And the same events again, from whoever likes to.
        assert_eq!(push(&serving, "create", "refs/heads/gone-1", &[]), 202);
        let shown = Duration::from_secs(shown);
        thread::sleep(shown.saturating_sub(started.elapsed()));
        place.repository.set_ref(name, &first);
        let line = line_of(&serving, name);
        let took = started.elapsed();
        println!(
            "{name}, shown after {shown:.1?}: {} after {took:.2?}",
            line["outcome"]
        );
        assert_eq!(
            (&line["outcome"], &line["commit"]),
            (&json!("published"), &json!(first))
        );
        assert!(took < Duration::from_secs(look + 2), "{took:?}");
    }
}

#[test]
fn no_delivery_waits_for_one_that_waits_for_the_server() {
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = serve_all(&place);
    for n in 0..10 {
        let name = format!("refs/heads/b{n}");
        delivered(&serving, &place, "create", &name);
    }
    let unknown = "1".repeat(40);
    for (case, refs) in [
        ("40 of the same ref", vec![MAIN.to_owned(); 40]),
        (
            "of 10 others",
            (0..10).map(|n| format!("refs/heads/b{n}")).collect(),
        ),
    ] {
        for name in &refs {
            assert_eq!(push(&serving, "update", name, &[&unknown]), 202);
        }
        let started = Instant::now();
        let took = delivered(&serving, &place, "update", MAIN);
        println!("hints that nobody knows, {case}: the push after them {took:.2?}");
        assert!(
            took < Duration::from_secs(3),
            "{case}: {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn a_wait_that_was_cut_short_is_made_up_for() {
    let place = Place::new();
    let first = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let serving = serve_all(&place);
    let next = place
        .repository
        .commit_on("refs/heads/side", &[("a", "b".into())]);
    // The server does not show the second commit yet, and another event of the ref comes meanwhile.
    assert_eq!(push(&serving, "update", MAIN, &[&next]), 202);
    assert_eq!(push(&serving, "update", MAIN, &[&first]), 202);
    for _ in 0..2 {
        assert_eq!(line_of(&serving, MAIN)["outcome"], "already_current");
    }
    place.repository.set_ref(MAIN, &next);
    let line = line_of(&serving, MAIN);
    assert_eq!(
        (&line["outcome"], &line["commit"]),
        (&json!("published"), &json!(next))
    );
}

#[test]
fn a_server_that_drips_or_counts_for_long_keeps_no_other_branch_waiting() {
    const SLOW: &str = "refs/heads/slow";
    // A hundred times the default, since a pack comes in pieces of 64 KiB.
    let least = ("LOW_SPEED_BYTES", "100000");
    let place = Place::new();
    place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let server = GitServer::start(place.upstream.root(), None);
    let ca = server.ca_file();
    let vars = [
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
        least,
        ("LOW_SPEED_SECONDS", "2"),
    ];
    let serving = serve_all_of(&place, &server.space_url(), &vars);
    delivered(&serving, &place, "create", "refs/heads/other");
    let second = Duration::from_secs(1);
    let milliseconds = Duration::from_millis;
    let half = Fault::Drip(2_000, milliseconds(40));
    let enough = Fault::Drip(5_000, milliseconds(40));
    for (case, fault, bytes, given_up) in [
        ("half of what it must send", half, 800_000, Some("fetch")),
        ("a little more than it must", enough, 500_000, None),
        (
            "counts for longer",
            Fault::Delay(second * 6),
            5_000,
            Some("unreachable"),
        ),
    ] {
        let content = noise(bytes, bytes as u64);
        let commit = place.repository.commit_on(SLOW, &[("a", content.into())]);
        server.clear_requests();
        server.fault_once(Op::Fetch, fault);
        let started = Instant::now();
        assert_eq!(push(&serving, "update", SLOW, &[&commit]), 202);
        let is_asked = || {
            server
                .requests()
                .iter()
                .any(|asked| asked.op() == Op::Fetch)
        };
        while !is_asked() {
            assert!(started.elapsed() < second * 5, "{case}: nobody asks");
            thread::sleep(Duration::from_millis(5));
        }
        let mut others = Duration::ZERO;
        for name in ["refs/heads/other", MAIN] {
            others = others.max(delivered(&serving, &place, "update", name));
        }
        assert!(others < second * 2, "{case}: {others:?}");
        let mut line = line_of(&serving, SLOW);
        let first = started.elapsed();
        println!(
            "{case}: {} after {first:.1?}, others within {others:.2?}",
            line["outcome"]
        );
        assert!(first > second * 2, "{case}: {line}");
        if let Some(kind) = given_up {
            let error = &line["error"];
            assert_eq!(
                (&error["kind"], &error["transient"]),
                (&json!(kind), &json!(true))
            );
            assert!(first < second * 8, "{case}: {line}");
            // In nobody's way, it has the time that it takes.
            while line["error"].is_object() {
                assert!(started.elapsed() < second * 30, "{case}: {line}");
                line = line_of(&serving, SLOW);
            }
        }
        let found = (&line["outcome"], &line["commit"]);
        assert_eq!(found, (&json!("published"), &json!(commit)), "{case}");
    }
}

#[test]
fn a_burst_of_one_branch_is_few_deliveries() {
    const EVENTS: usize = 300;
    let place = Place::new();
    let first = place.repository.commit_on(MAIN, &[("a", "a".into())]);
    let server = GitServer::start(place.upstream.root(), None);
    let ca = server.ca_file();
    let text = format!(
        "[[space]]\nurl = \"{}\"\n[[route]]\nname = \"main\"\nrepository = \"APP/web\"\nref = \"{MAIN}\"\nobject = \"m.zip\"\n",
        server.space_url()
    );
    fs::write(place.folder.path().join("routes.toml"), text).unwrap();
    let vars = [("SSL_CERT_FILE", ca.to_str().unwrap())];
    let serving = place.serve(&["--sweep-seconds", "3600"], &vars);
    assert_eq!(serving.line()["outcome"], "published");
    server.clear_requests();
    // The first one takes so long that all others wait for it.
    server.fault_once(Op::Handshake, Fault::Delay(Duration::from_millis(1_500)));
    let mut last = first;
    for n in 0..EVENTS {
        if n % 100 == 0 {
            last = place
                .repository
                .commit_on(MAIN, &[("a", format!("{n}").as_str().into())]);
        }
        assert_eq!(push(&serving, "update", MAIN, &[&last]), 202);
    }
    let lines: Vec<_> = (0..EVENTS).map(|_| line_of(&serving, MAIN)).collect();
    let newest = lines
        .iter()
        .rfind(|line| line["commit"].is_string())
        .unwrap();
    assert_eq!(newest["commit"], json!(last));
    let ids: std::collections::BTreeSet<_> = lines
        .iter()
        .map(|line| line["request_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), EVENTS, "each event has its line");
    let united = |line: &&Value| {
        line["reason"]
            .as_str()
            .is_some_and(|why| why.contains("one delivery with a later push"))
    };
    let deliveries = EVENTS - lines.iter().filter(united).count();
    let hellos = server
        .ops()
        .iter()
        .filter(|op| **op == Op::Handshake)
        .count();
    println!(
        "{EVENTS} events: {deliveries} deliveries, {hellos} conversations with the Git server"
    );
    assert!(
        deliveries <= EVENTS / 10 && hellos <= EVENTS / 10,
        "{deliveries}, {hellos}"
    );
}
