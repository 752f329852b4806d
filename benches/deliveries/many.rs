//! A sweep of a thousand repositories of one host that is far away, and a push in the middle of it.

use std::{
    fmt::Write,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    BUCKET, REF,
    far::{Network, away},
    support::{
        git_server::GitServer,
        s3::{ACCESS_KEY, SECRET_KEY, TestS3},
        service::project_push,
        upstream::Upstream,
    },
};

const REPOSITORIES: usize = 1_000;

/// 50 ms each way.
const ROUND_TRIP: Duration = Duration::from_millis(100);

const TOKEN: &str = "a-token-of-this-benchmark";

/// Prints a line for each number of repositories at once.
pub(crate) fn sweep(runtime: &Runtime) {
    println!("## A sweep of 1,000 repositories of one host, 50 ms away each way\n");
    println!("| at once | wall | connections | requests at once, at most | a push meanwhile |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    let host = Host::new();
    for at_once in [1, 6, 16] {
        host.git.clear_requests();
        let wall = host.sweep(runtime, at_once);
        let requests = host.git.requests();
        let connections = requests.iter().map(|request| request.connection);
        let connections: std::collections::BTreeSet<_> = connections.collect();
        let most = host.git.most_at_once();
        let push = host.push(runtime, at_once);
        println!(
            "| {at_once} | {:.1} s | {} | {most} | {:.2} s |",
            wall.as_secs_f64(),
            connections.len(),
            push.as_secs_f64()
        );
    }
    println!();
}

struct Host {
    upstream: Upstream,
    git: GitServer,
    folder: TempDir,
}

impl Host {
    fn new() -> Self {
        let upstream = Upstream::new();
        let first = upstream.repository("APP/r0");
        first.commit_on(REF, &[("a", "a".into())]);
        for nth in 1..REPOSITORIES {
            let to = upstream.root().join(format!("APP/r{nth}.git"));
            let mut copy = Command::new("cp");
            let copied = copy.arg("-al").arg(first.path()).arg(to).status();
            assert!(copied.is_ok_and(|status| status.success()));
        }
        let git = GitServer::start(upstream.root(), None);
        let folder = tempfile::tempdir().unwrap();
        let url = git.space_url();
        let port = url.trim_end_matches("/git").rsplit(':').next().unwrap();
        let network = Network {
            round_trip: ROUND_TRIP,
            connection: None,
            all: None,
        };
        let far = away(port.parse().unwrap(), network).to_string();
        let mut routes = format!("[[space]]\nurl = \"{}\"\n", url.replace(port, &far));
        for nth in 0..REPOSITORIES {
            write!(
                routes,
                "[[route]]\nname = \"r{nth}\"\nrepository = \"APP/r{nth}\"\nref = \"{REF}\"\nobject = \"r{nth}.zip\"\n\
                 sweep = \"existing\"\n"
            )
            .unwrap();
        }
        fs::write(folder.path().join("routes.toml"), routes).unwrap();
        Self {
            upstream,
            git,
            folder,
        }
    }

    fn bridge(&self, s3: &TestS3, at_once: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .current_dir(self.folder.path())
            .env("SOURCE_BUCKET", BUCKET)
            .env("SSL_CERT_FILE", self.git.ca_file())
            .env("SWEEP_AT_ONCE", at_once.to_string())
            .env("AWS_ENDPOINT_URL_S3", s3.endpoint())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_REGION", "ap-northeast-1");
        command
    }

    fn sweep(&self, runtime: &Runtime, at_once: usize) -> Duration {
        let s3 = runtime.block_on(TestS3::start());
        let message = concat!(env!("CARGO_MANIFEST_DIR"), "/events/sqs-sweep.json");
        let mut command = self.bridge(&s3, at_once);
        let started = Instant::now();
        let output = command.args(["invoke", message, "--aws"]).output().unwrap();
        let wall = started.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("repositories 1000, objects 1000"), "{said}");
        wall
    }

    /// How long a push waits that comes while `serve` sweeps.
    fn push(&self, runtime: &Runtime, at_once: usize) -> Duration {
        let s3 = runtime.block_on(TestS3::start());
        let mut command = self.bridge(&s3, at_once);
        command
            .args(["serve", "--aws", "--listen", "127.0.0.1:0", "--json"])
            .env("WEBHOOK_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut serving = Serving(command.spawn().unwrap());
        let stderr = serving.0.stderr.take().unwrap();
        let address = BufReader::new(stderr).lines().find_map(|line| {
            let line = line.unwrap();
            Some(line.split_once("listening on ")?.1.to_owned())
        });
        let address = address.expect("it listens");
        std::thread::sleep(Duration::from_secs(1));
        let repository = self.upstream.repository("APP/r0");
        let commit = repository.commit_on(REF, &[("a", "b".into())]);
        let body = project_push("update", REF, &[&commit])
            .replace("APP/web", "APP/r0")
            .replace("\"web\"", "\"r0\"");
        let url = format!("http://{address}/hooks/{TOKEN}");
        let started = Instant::now();
        let client = reqwest::blocking::Client::new();
        let answer = client.post(url).body(body).send().unwrap();
        assert_eq!(
            answer.status(),
            202,
            "{}",
            answer.text().unwrap_or_default()
        );
        let stdout = serving.0.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("\"published\""));
        assert!(line.is_some_and(|line| line.contains(&commit)));
        started.elapsed()
    }
}

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
