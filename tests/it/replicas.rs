//! A Git server that answers from several machines, of which one is behind: what looks like a step back waits for a second
//! look.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use backlog_bridge::{
    deliver::{
        Delivery, Success,
        step::{Hints, SECOND_LOOK},
    },
    error::chain,
    queue::Job,
    worker::{Attempt, Handled, Worker},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    MAIN,
    git_server::{GitServer, Op},
    service::Service,
    sqs::Op as SqsOp,
    tls::trusting,
    world::World,
};

/// A server of two machines, and which of them answers each look: the primary (P) or the replica (R), which is behind.
struct Machines {
    world: World,
    server: GitServer,
    looks: Arc<Mutex<String>>,
    /// The same of each fetch.
    fetches: Arc<Mutex<String>>,
    _replica: TempDir,
    a: String,
    b: String,
}

impl Machines {
    /// The primary has B upon A, the replica A. Looks after the last one are answered as that was.
    async fn new(object: Option<char>, looks: &str) -> Self {
        let (world, server) = World::with_server().await;
        let commit = |text: &str| {
            let files = [("a.txt", text.into())];
            world.repository.commit_on(MAIN, &files)
        };
        let a = commit("a");
        if object == Some('A') {
            world.publish("A").await;
        }
        let replica = world.upstream.copy();
        let b = commit("b");
        if object == Some('B') {
            world.publish("B").await;
        }
        let looks = Arc::new(Mutex::new(looks.to_owned()));
        let fetches = Arc::new(Mutex::new("P".to_owned()));
        let (next_look, next_fetch) = (Arc::clone(&looks), Arc::clone(&fetches));
        server.replica(replica.path(), move |op| {
            let mut next = match op {
                Op::LsRefs => next_look.lock().unwrap(),
                Op::Fetch => next_fetch.lock().unwrap(),
                _ => return false,
            };
            let machine = next.chars().next();
            if next.len() > 1 {
                next.remove(0);
            }
            machine == Some('R')
        });
        Self {
            world,
            server,
            looks,
            fetches,
            _replica: replica,
            a,
            b,
        }
    }

    /// The event of a Git webhook, which names the commits before and after.
    fn event(&self) -> Hints {
        Hints {
            commits: vec![self.b.parse().unwrap()],
            before: Some(self.a.parse().unwrap()),
            is_awaited: false,
        }
    }

    /// The versions, the oldest first.
    fn versions(&self) -> String {
        let commits = self.world.commits().into_iter().rev();
        commits
            .map(|commit| if commit == self.a { 'A' } else { 'B' })
            .collect()
    }

    /// What is seen once a minute is over.
    async fn second_look(&self, delivery: &Delivery, looks: &str) -> Handled {
        looks.clone_into(&mut self.looks.lock().unwrap());
        let mut bridge = self.world.bridge.clone();
        // The minute that is over here was none to the process: this is another one, which has seen nothing.
        bridge.tips = Arc::default();
        let worker = Worker { bridge, at_once: 6 };
        let due = self.parked(delivery).due(SECOND_LOOK);
        worker.deliver(&due, Attempt::ONLY, &Arc::default()).await
    }

    fn parked(&self, delivery: &Delivery) -> Job {
        let to = self.world.destination();
        let job = Job::unhinted(to.route, to.repository, to.ref_name, "");
        job.parked(delivery.step_back.clone().expect("a step back"))
    }
}

fn in_async(test: impl AsyncFn()) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(test());
}

#[test]
fn a_machine_that_is_behind_puts_nothing_old_on_top() {
    trusting(|| {
        in_async(async || {
            for (object, looks, event, versions, sees_back) in [
                (Some('A'), "PRRPP", true, "AB", true),
                (Some('B'), "RR", false, "B", true),
                (None, "PRRRRR", true, "B", true),
                (Some('A'), "PRRPR", true, "AB", true),
                // Nothing was delivered yet: a look at what was there before the push is a reason to look again.
                (None, "RP", true, "B", false),
                (None, "RRP", true, "B", false),
                // The event is late, or came twice.
                (Some('B'), "RP", true, "B", true),
                (Some('B'), "RRR", true, "B", true),
                (Some('A'), "RRP", true, "AB", false),
            ] {
                let machines = Machines::new(object, looks).await;
                let case = format!("object {object:?}, looks {looks}");
                let hints = event.then(|| machines.event());
                let delivery = machines.world.deliver_hinted(hints).await;
                let success = *delivery.result.as_ref().expect(&case);
                let expected = if versions.len() > usize::from(object.is_some()) {
                    Success::Published
                } else {
                    Success::AlreadyCurrent
                };
                assert_eq!(success, expected, "{case}");
                assert_eq!(machines.versions(), versions, "{case}");
                assert_eq!(delivery.step_back.is_some(), sees_back, "{case}");
                if sees_back {
                    let tip = delivery.tip.map(|tip| tip.to_string());
                    assert_eq!(tip.as_ref(), Some(&machines.a), "{case}");
                    // The machine has caught up.
                    let handled = machines.second_look(&delivery, "P").await;
                    assert_eq!(
                        handled.report.error.map(|fault| fault.message),
                        None,
                        "{case}"
                    );
                    assert_eq!(machines.versions(), versions, "{case}, once they agree");
                    assert_eq!(handled.more, [], "{case}");
                }
                println!("{case}: {versions}, looks {}", looks_of(&machines.server));
            }
        });
    });
}

#[test]
fn the_second_look_decides() {
    trusting(|| {
        in_async(async || {
            for (case, second, versions, more) in [
                ("it shows the same", "RRR", "BA", 0),
                (
                    "it shows the same, and the one after the write does not",
                    "RPP",
                    "BA",
                    1,
                ),
                ("it shows what is held", "PPP", "B", 0),
            ] {
                let machines = Machines::new(Some('B'), "RR").await;
                let delivery = machines.world.deliver().await;
                let handled = machines.second_look(&delivery, second).await;
                assert_eq!(machines.versions(), versions, "{case}");
                assert_eq!(handled.more.len(), more, "{case}");
            }
            // The object has another version by now: what was seen beside the first one says nothing.
            let machines = Machines::new(Some('B'), "RR").await;
            let delivery = machines.world.deliver().await;
            machines
                .world
                .repository
                .commit_on(MAIN, &[("c.txt", "c".into())]);
            "P".clone_into(&mut machines.looks.lock().unwrap());
            machines.world.publish("C").await;
            let handled = machines.second_look(&delivery, "R").await;
            assert_eq!(machines.world.commits().len(), 2);
            assert_eq!(handled.more.len(), 1, "it is a first look again");
        });
    });
}

#[test]
fn what_another_delivery_of_the_process_saw_between_two_looks_counts() {
    trusting(|| {
        in_async(async || {
            let machines = Machines::new(Some('B'), "RP").await;
            let first = machines.world.deliver().await;
            assert!(first.step_back.is_some());
            let other = machines.world.deliver().await;
            assert_eq!(other.step_back, None, "the primary answered");
            "R".clone_into(&mut machines.looks.lock().unwrap());
            let worker = Worker {
                bridge: machines.world.bridge.clone(),
                at_once: 6,
            };
            let due = machines.parked(&first).due(SECOND_LOOK);
            let handled = worker.deliver(&due, Attempt::ONLY, &Arc::default()).await;
            assert_eq!(machines.versions(), "B");
            assert_eq!(handled.more.len(), 1, "it is a first look again");
        });
    });
}

#[test]
fn a_machine_that_lacks_the_commit_is_asked_again() {
    trusting(|| {
        in_async(async || {
            for (object, fetches) in [(None, "RP"), (Some('A'), "RP"), (Some('A'), "RRP")] {
                let case = format!("object {object:?}, fetches {fetches}");
                let machines = Machines::new(object, "P").await;
                *machines.fetches.lock().unwrap() = fetches.into();
                let delivery = machines.world.deliver().await;
                if let Err(err) = &delivery.result {
                    panic!("{case}: {}", chain(err));
                }
                assert_eq!(machines.versions().pop(), Some('B'), "{case}");
            }
        });
    });
}

/// Has `deliver` handle the oldest message as if it had been sent so long ago, by a process that has seen nothing.
async fn handle(service: &Service, ago: Duration) -> Value {
    let messages = service.sqs.receive(1);
    let mut event = service.sqs.event(&messages);
    let sent = SystemTime::now() - ago;
    let millis = sent.duration_since(UNIX_EPOCH).unwrap().as_millis();
    event["Records"][0]["attributes"]["SentTimestamp"] = millis.to_string().into();
    service.deliver.kill();
    let result = service.deliver.invoke(&event).await.result.unwrap();
    if result["batchItemFailures"] == json!([]) {
        service.sqs.delete(&messages[0]);
    }
    result["batchItemFailures"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqs_a_second_look_waits_in_a_group_of_its_own() {
    let service = Service::start().await;
    let commit = |text: &str| {
        let files = [("a.txt", text.into())];
        service.repository.commit_on(MAIN, &files)
    };
    let (a, b) = (commit("a"), commit("b"));
    assert_eq!(service.push(MAIN, &[&a, &b]).await.0, 202);
    service.drain().await;
    let held = service.sqs.sent().pop().unwrap().group;
    let newest = || service.commits()[0].clone();
    let now = Duration::ZERO;
    let minute = Duration::from_secs(61);
    let none = json!([]);

    // Back for good.
    service.repository.set_ref(MAIN, &a);
    assert_eq!(service.push(MAIN, &[&a]).await.0, 202);
    assert_eq!(handle(&service, now).await, none);
    let line = service.outcomes().pop().unwrap();
    assert_eq!(line["outcome"], "already_current", "{line}");
    assert_eq!(line["reason"], "the server shows an older commit");
    assert_eq!((&line["tip"], &line["commit"]), (&json!(a), &json!(b)));
    assert_eq!(
        (&line["job"], &line["StepsBackSeen"]),
        (&json!("acknowledged"), &json!(1))
    );
    let parked = service.sqs.sent().pop().unwrap();
    let body: Value = serde_json::from_str(&parked.body).unwrap();
    println!("{body}");
    assert_eq!((&body["recheck"], &body["tip"]), (&json!(true), &json!(a)));
    assert_ne!(parked.group, held);
    // A minute is not over: it waits, and nobody waits for it.
    assert_eq!(handle(&service, now).await.as_array().unwrap().len(), 1);
    let rests = service
        .sqs
        .calls(SqsOp::ChangeMessageVisibility)
        .pop()
        .unwrap();
    assert!(
        (55..=60).contains(&rests["VisibilityTimeout"].as_u64().unwrap()),
        "{rests}"
    );
    assert_eq!(service.push(MAIN, &[&a]).await.0, 202);
    assert_eq!(handle(&service, now).await, none);
    assert_eq!(newest(), b);

    service.sqs.put(&parked.body, "as-if-its-time-were-over");
    assert_eq!(handle(&service, minute).await, none);
    let due = service.sqs.sent().pop().unwrap();
    let body: Value = serde_json::from_str(&due.body).unwrap();
    assert!(body["waited_ms"].as_u64() >= Some(61_000), "{body}");
    assert_eq!(due.group, held);
    assert_eq!(handle(&service, now).await, none);
    let line = service.outcomes().pop().unwrap();
    assert_eq!(
        (&line["outcome"], &line["StepsBackConfirmed"]),
        (&json!("published"), &json!(1))
    );
    assert_eq!(newest(), a);

    // There again, but only as one machine saw it.
    service.repository.set_ref(MAIN, &b);
    assert_eq!(service.push(MAIN, &[]).await.0, 202);
    assert_eq!(handle(&service, now).await, none);
    let parked = service.sqs.sent().pop().unwrap();
    service.repository.set_ref(MAIN, &a);
    service
        .sqs
        .put(&parked.body, "as-if-its-time-were-over-again");
    assert_eq!(handle(&service, minute).await, none);
    assert_eq!(handle(&service, now).await, none);
    let line = service.outcomes().pop().unwrap();
    assert_eq!(
        (&line["outcome"], &line["StepsBackTakenBack"]),
        (&json!("already_current"), &json!(1))
    );
    assert_eq!(newest(), a);
    assert_eq!(service.commits().len(), 2);
}

fn looks_of(server: &GitServer) -> usize {
    let ops = server.ops().into_iter();
    ops.filter(|op| *op == Op::LsRefs).count()
}
