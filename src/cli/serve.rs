//! `serve`: the whole bridge as one process.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use backlog_bridge::{
    config::Config,
    local::{JobEnded, LocalQueue, serve_health, serve_hooks},
    outcome::{Outcome, Report},
    plain,
    queue::Job,
    receive::{Received, Receiver},
    secrets::{Token, Tokens},
    table::LiveTable,
    worker::Worker,
};
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
};

use super::{
    Common, Ended, Form, Given, Usage, report,
    setup::{Setup, setup},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Register the URL that it prints as a webhook in Backlog, or try it with curl:\n  \
    backlog-bridge serve\n  \
    curl --data-binary @events/project-push-update.json \\\n    \
    http://127.0.0.1:8080/hooks/TOKEN\n\n\
    Backlog must be able to reach the address: put a proxy with TLS, or a tunnel, in front of it.\n\
    Set WEBHOOK_TOKEN to keep the same token over restarts (at least 16 letters and digits)."
)]
pub(super) struct Options {
    /// Where to listen for webhooks: an address or a name, with a port; or a port alone, for this machine.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: String,
    /// How often to look at every object and deliver what no webhook told of, in seconds; once at the start too.
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = seconds)]
    sweep_seconds: u64,
    /// Where a load balancer may ask whether the bridge is well: `GET /` is answered 200 or 503. Written as for --listen.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    health: Option<String>,
    #[command(flatten)]
    pub(super) given: Given,
    #[command(flatten)]
    pub(super) form: Form,
}

/// An address to listen at, as `host:port`.
fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let is_address = host.starts_with('[') && host.ends_with(']');
    let is_name = !host.contains([':', '/', '[', ']']);
    if port.parse::<u16>().is_err() || !(is_address || is_name) {
        return Err("expected an address as 127.0.0.1:8080, localhost:8080 or [::1]:8080, or a port as 8080".into());
    }
    // Whoever wants to be reached from elsewhere has to say so.
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Ok(format!("{host}:{port}"))
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| "expected a whole number of seconds, such as 900 for 15 minutes".into())
}

/// The parts of a running bridge.
pub(super) struct Running {
    pub(super) receiver: Arc<Receiver>,
    pub(super) worker: Arc<Worker>,
    pub(super) queue: LocalQueue,
    pub(super) told: UnboundedReceiver<JobEnded>,
}

impl Running {
    pub(super) fn new(setup: &Setup, tokens: Arc<Tokens>) -> Self {
        let worker = Arc::new(setup.worker());
        let (queue, told) = LocalQueue::start(Arc::clone(&worker));
        let receiver = Arc::new(Receiver {
            tokens,
            allowed_ips: Vec::new(),
            table: Arc::clone(&worker.bridge.table),
            // Nobody tells results here.
            results: None,
        });
        Self {
            receiver,
            worker,
            queue,
            told,
        }
    }
}

/// A token that nobody knows yet.
pub(super) fn new_token() -> (String, Arc<Tokens>) {
    let token = Token::new();
    let text = token.reveal().reveal().to_owned();
    (text, Arc::new(Tokens::fixed(token)))
}

pub(super) async fn run(
    options: Options,
    common: &Common,
    config: &Config,
) -> Result<Ended, Usage> {
    super::out::become_service();
    // Before anything is made that a second start would find.
    let listener = listen(&options.listen, "--listen").await?;
    let address = listener.local_addr()?;
    let health = match &options.health {
        Some(address) => Some(listen(address, "--health").await?),
        None => None,
    };
    let setup = setup(common, config).await?;
    let (shown, tokens) = match &config.webhook_token {
        // It may be in a secret, and is nobody's business in a log.
        Some(tokens) => ("TOKEN".to_owned(), Arc::clone(tokens)),
        None => new_token(),
    };
    greet(address, &shown, setup.table.routes().len(), common);
    if let Some(health) = &health {
        note!("health: http://{}/", health.local_addr()?);
    }
    let Running {
        receiver,
        worker,
        queue,
        mut told,
    } = Running::new(&setup, tokens);
    let telling = tokio::spawn(async move {
        let mut failing = Failing::default();
        while let Some(told) = told.recv().await {
            tell(&told, &mut failing);
        }
    });
    let health = health.map(|health| {
        let (receiver, queue) = (Arc::clone(&receiver), queue.clone());
        tokio::spawn(serve_health(health, receiver, queue))
    });
    let every = Duration::from_secs(options.sweep_seconds);
    let mut stop = Stop::listen()?;
    let hooks = serve_hooks(
        listener,
        receiver,
        queue.clone(),
        |received: &Received, id, took| {
            note!(
                "{} {received}, in {}",
                report::joint(id),
                report::time(took)
            );
        },
        stop.asked(),
    );
    tokio::select! {
        () = hooks => {}
        () = sweep(&worker, &queue, every) => unreachable!("it goes on for ever"),
        () = follow(&worker.bridge.table) => unreachable!("it goes on for ever"),
        Usage(gone) = setup.store_gone() => {
            note!("stopped: {gone}");
            return Ok(Ended::WithFailures);
        }
    }
    let left = end(queue, &mut stop).await;
    if let Some(health) = health {
        // It holds the queue, and with it the end of what is told.
        health.abort();
    }
    let Some(left) = left else {
        note!(
            "stopped while deliveries were running; start again, or use sync, to make up for them"
        );
        return Ok(Ended::WithFailures);
    };
    telling.await?;
    if left > 0 {
        note!("stopped; jobs not handled: {left}; start again, or use sync, to make up for them");
        return Ok(Ended::WithFailures);
    }
    note!("stopped");
    Ok(Ended::Well)
}

/// Says where it is and what it does.
fn greet(address: SocketAddr, token: &str, routes: usize, common: &Common) {
    note!("listening on {address}");
    note!("webhook URL: http://{address}/hooks/{token}");
    if !address.ip().is_loopback() {
        note!("warning: this is HTTP without TLS; the token can be read on its way");
    }
    note!(
        "{}; {} is read again when it changes; Ctrl-C stops",
        plain::count(routes, "route", "routes"),
        common.routes.display()
    );
}

/// Waits for what runs, and says how many jobs are left; `None` if it was not worth the wait.
async fn end(queue: LocalQueue, stop: &mut Stop) -> Option<usize> {
    if queue.running() > 0 {
        note!(
            "stopping: waiting for deliveries that run ({}); stop again to end at once",
            queue.running()
        );
    }
    // Whoever pressed Ctrl-C waits at a terminal; and a Git server that gives no answer is not worth the patience of a service
    // manager.
    let is_interrupted = stop.is_interrupted;
    let impatient = async {
        loop {
            tokio::time::sleep(STOPPED_WITHIN).await;
            if is_interrupted || !queue.is_at_work() {
                return;
            }
        }
    };
    tokio::select! {
        left = queue.stop() => Some(left),
        () = impatient => None,
        () = stop.asked() => None,
    }
}

/// Binds a listener, before anything else is done.
async fn listen(address: &str, option: &str) -> Result<TcpListener, Usage> {
    TcpListener::bind(address).await.map_err(|err| {
        Usage(format!(
            "cannot listen on {address}: {err}; name another address with {option}"
        ))
    })
}

fn tell(told: &JobEnded, failing: &mut Failing) {
    let JobEnded {
        report,
        again,
        request_id,
    } = told;
    // Nobody asked for what the sweep found.
    let request_id = Some(request_id.as_str()).filter(|id| *id != SWEEP);
    report::print_as(report, request_id);
    if let Some(again) = again {
        note!("trying again in {}", report::time(*again));
    }
    if let Some(mended) = failing.learn(report, OffsetDateTime::now_utc()) {
        note!("{mended}");
    }
}

/// The request id of a sweep's jobs.
const SWEEP: &str = "sweep";

/// What could not be delivered lately: how often, and since when.
#[derive(Default)]
struct Failing(HashMap<(String, String), (usize, OffsetDateTime)>);

impl Failing {
    /// Takes note of an outcome. If something is delivered again that was not, says so.
    fn learn(&mut self, report: &Report, now: OffsetDateTime) -> Option<String> {
        let known = report.route.clone().zip(report.ref_name.clone())?;
        if report.is_failed() {
            self.0.entry(known).or_insert((0, now)).0 += 1;
            return None;
        }
        if !matches!(report.outcome, Outcome::Published | Outcome::AlreadyCurrent) {
            return None;
        }
        let (failures, since) = self.0.remove(&known)?;
        let (route, ref_name) = known;
        let failures = plain::count(failures, "failure", "failures");
        let since = plain::time(since.unix_timestamp()).unwrap_or_default();
        Some(format!(
            "{route}: {ref_name} is delivered again, after {failures} since {since}"
        ))
    }
}

async fn sweep(worker: &Worker, queue: &LocalQueue, every: Duration) {
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let enqueue = async |job: Job| queue.send(vec![job]);
        let swept = Box::pin(worker.sweep(SWEEP, None, None, enqueue)).await;
        for failure in &swept.failures {
            report::print(failure);
        }
        note!("{swept}");
        if swept.undelivered > 0 {
            note!(
                "refs without an object are delivered at their next push; `backlog-bridge status` names them"
            );
        }
    }
}

/// How often the routing table is looked at when nobody asks, so that whoever edits it is told at once of a fault.
const LOOK_EVERY: Duration = Duration::from_millis(500);

async fn follow(table: &LiveTable) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // It tells of what is new itself.
        table.read().await;
    }
}

/// How long deliveries that run have to end: all of them after Ctrl-C, otherwise those that only wait for a Git server. With
/// the requests that are under way, it is ten seconds.
const STOPPED_WITHIN: Duration = Duration::from_secs(4);

/// The wish of somebody that this ends: Ctrl-C, SIGTERM as service managers send it, or SIGHUP of a terminal that is closed.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Unless whoever started it has said that it outlives the terminal, as `nohup` does.
    hangup: Option<Signal>,
    /// Whether it was Ctrl-C.
    is_interrupted: bool,
}

impl Stop {
    pub(super) fn listen() -> Result<Self, Usage> {
        let outlives = is_ignored(SignalKind::hangup());
        let hangup = (!outlives).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            hangup: hangup.transpose()?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            is_interrupted: false,
        })
    }

    pub(super) async fn asked(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => _ = hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            () = hangup => {}
            _ = self.interrupt.recv() => self.is_interrupted = true,
        }
    }
}

/// Whether this process was started with a signal ignored, where the system tells.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or_default() >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use backlog_bridge::error::Error;

    use super::*;

    #[test]
    fn what_is_delivered_again_is_said_once() {
        let job = |name: &str| {
            let ref_name = format!("refs/heads/{name}").parse().unwrap();
            Job::unhinted("web".into(), "APP/web".parse().unwrap(), ref_name, "")
        };
        let main = job("main");
        let fails = |job| Report::failed(job, &Error::Contention { rounds: 8 });
        let at = OffsetDateTime::from_unix_timestamp(1_764_500_000).unwrap();
        let mut failing = Failing::default();
        let works = Report {
            outcome: Outcome::Published,
            ..Report::ignored(&main, String::new())
        };
        assert_eq!(failing.learn(&works, at), None, "it never failed");
        for job in [&main, &main, &job("dev")] {
            assert_eq!(failing.learn(&fails(job), at), None);
        }
        let ignored = Report::ignored(&main, String::new());
        assert_eq!(failing.learn(&ignored, at), None, "nothing was delivered");
        let expected =
            "web: refs/heads/main is delivered again, after 2 failures since 2025-11-30T10:53:20Z";
        assert_eq!(failing.learn(&works, at).as_deref(), Some(expected));
        assert_eq!(failing.learn(&works, at), None);
    }

    #[test]
    fn an_address_may_be_a_name_or_a_port() {
        for (text, expected) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("localhost:8080", Some("localhost:8080")),
            ("[::1]:8080", Some("[::1]:8080")),
            (":8080", Some("127.0.0.1:8080")),
            ("8080", Some("127.0.0.1:8080")),
            ("localhost", None),
            ("::1:8080", None),
            ("localhost:80800", None),
            ("http://localhost:8080", None),
            ("", None),
        ] {
            let found = address(text);
            assert_eq!(found.as_deref().ok(), expected, "{text}: {found:?}");
        }
        assert_eq!(seconds("900"), Ok(900));
        for text in ["15m", "0", "-1", ""] {
            assert!(
                seconds(text).unwrap_err().contains("900 for 15 minutes"),
                "{text}"
            );
        }
    }
}
