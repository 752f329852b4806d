//! What the first event of a function's process waits for, and the next one no more: connections, the table, secrets.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::{
    far::{Network, away},
    measure::median,
    support::{
        KEY, MAIN,
        lambda::Lambda,
        service::{Service, TOKEN, project_push, request},
    },
};

/// S3, the queue, the secrets and the Git server are as far away as in a region, the Git server in the same one.
const ROUND_TRIP: Duration = Duration::from_millis(10);

const LIMIT: Duration = Duration::from_secs(40);

/// Prints what an event takes from the start of the process, and what the next one takes.
pub(crate) fn show(runtime: &Runtime, rounds: usize) {
    println!("## The first event of a process, everything 10 ms away\n");
    println!("| function | from the process's start | the next event |\n| --- | ---: | ---: |");
    let mut times = [const { Vec::new() }; 4];
    runtime.block_on(async {
        let service = Service::with(&[], &[]).await;
        let mut vars = service.vars.clone();
        for (name, value) in &mut vars {
            if name.starts_with("AWS_ENDPOINT_URL") {
                *value = far(value);
            }
        }
        let near = service.git.space_url();
        let table = service.table(&[(MAIN, KEY, "")]);
        service.put_routes(&table.replace(&near, &far(&near))).await;
        for round in 0..rounds {
            let receive = Lambda::start(env!("CARGO_BIN_EXE_receive"), &vars, LIMIT).await;
            let deliver = Lambda::start(env!("CARGO_BIN_EXE_deliver"), &vars, LIMIT).await;
            for next in [false, true] {
                let text = format!("{round} {next}");
                let commit = service
                    .repository
                    .commit_on(MAIN, &[("a", text.as_str().into())]);
                let body = project_push("update", MAIN, &[&commit]);
                let event = request("POST", &format!("/hooks/{TOKEN}"), &body);
                let received = receive.invoke(&event).await.took;
                let delivered = service.sqs.drain(&deliver, 1, LIMIT).await[0].took;
                assert_eq!(service.commits()[0], commit);
                for (n, (lambda, took)) in [(&receive, received), (&deliver, delivered)]
                    .into_iter()
                    .enumerate()
                {
                    let start = if next {
                        Duration::ZERO
                    } else {
                        lambda.time_to_first_poll()
                    };
                    times[2 * n + usize::from(next)].push(start + took);
                }
            }
        }
    });
    let [received, next, delivered, later] =
        times.map(|times| median(times.into_iter()).as_secs_f64() * 1e3);
    println!("| receive | {received:.0} ms | {next:.0} ms |");
    println!("| deliver | {delivered:.0} ms | {later:.0} ms |\n");
}

/// The same address, far away.
fn far(url: &str) -> String {
    let (start, rest) = url.rsplit_once(':').expect("a port");
    let (port, path) = rest.split_once('/').unwrap_or((rest, ""));
    let network = Network {
        round_trip: ROUND_TRIP,
        connection: None,
        all: None,
    };
    let port = away(port.parse().expect("a port"), network);
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{start}:{port}{slash}{path}")
}
