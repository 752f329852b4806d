//! `sync --aws` against an S3 that somebody else wrote: ministack, in a virtual environment under `target/`. Skipped with
//! a printed reason where there is no Python, or no way to install it.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use serde_json::Value;

use crate::support::{
    MAIN,
    git_server::GitServer,
    oracle::{assert_zip_equals, expected_entries},
    process::run_within,
    s3::client,
    upstream::Upstream,
};

const USER: &str = "robot@example.com";
const PASSWORD: &str = "p:a@s/s";
const BUCKET: &str = "sources-test";
const INSTALL_LIMIT: Duration = Duration::from_mins(4);
const START_LIMIT: Duration = Duration::from_secs(30);

/// A ministack process; killed when dropped.
struct Ministack {
    child: Child,
    endpoint: String,
}

impl Ministack {
    /// Why not, if it cannot be had here.
    fn start(folder: &Path) -> Result<Self, String> {
        let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ministack");
        let program = venv.join("bin/ministack");
        if !program.exists() {
            run(Command::new("python3").arg("-m").arg("venv").arg(&venv))?;
            run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "ministack"]))?;
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(|err| err.to_string())?.port();
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(folder.join("ministack.log"))
                .map(Stdio::from)
        };
        let child = Command::new(&program)
            .env("GATEWAY_PORT", port.to_string())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log().map_err(|err| err.to_string())?)
            .stderr(log().map_err(|err| err.to_string())?)
            .spawn()
            .map_err(|err| err.to_string())?;
        let ministack = Self {
            child,
            endpoint: format!("http://127.0.0.1:{port}"),
        };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if started.elapsed() > START_LIMIT {
                return Err("it does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(ministack)
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    if Command::new("python3").arg("--version").output().is_err() {
        return Err("there is no python3".into());
    }
    let output = run_within(command, INSTALL_LIMIT).ok_or("it takes too long")?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test]
async fn another_s3_gets_the_same_object() {
    let folder = tempfile::tempdir().unwrap();
    let ministack = match Ministack::start(folder.path()) {
        Ok(ministack) => ministack,
        Err(why) => {
            println!("skipped: ministack cannot be had here: {why}");
            return;
        }
    };
    let s3 = client(&ministack.endpoint, "test", "test");
    let versioning = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    s3.create_bucket().bucket(BUCKET).send().await.unwrap();
    s3.put_bucket_versioning()
        .bucket(BUCKET)
        .versioning_configuration(versioning)
        .send()
        .await
        .unwrap();
    s3.create_bucket()
        .bucket("unversioned")
        .send()
        .await
        .unwrap();

    let upstream = Upstream::new();
    let repository = upstream.repository("APP/web");
    let commit = repository.commit_on(
        MAIN,
        &[("src/日本.rs", "fn main() {}".into()), ("b", "b".into())],
    );
    let server = GitServer::start(upstream.root(), Some((USER, PASSWORD)));
    let routes = folder.path().join("routes.toml");
    let table = format!(
        "[[space]]\nurl = \"{}\"\ncredentials = \"env:BACKLOG\"\n[[route]]\nrepository = \"APP/web\"\n\
         ref = \"{MAIN}\"\nobject = \"web.zip\"\n",
        server.space_url()
    );
    fs::write(&routes, table).unwrap();
    let sync = |bucket: &str, place: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command.arg("sync").args(place).arg("--routes").arg(&routes);
        command
            .current_dir(folder.path())
            .env("SOURCE_BUCKET", bucket);
        command
            .env("BACKLOG_USERNAME", USER)
            .env("BACKLOG_PASSWORD", PASSWORD);
        command.env("SSL_CERT_FILE", server.ca_file());
        command
            .env("AWS_ENDPOINT_URL_S3", &ministack.endpoint)
            .env("AWS_REGION", "us-east-1");
        command
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
        let output = run_within(&mut command, Duration::from_mins(1)).expect("it ends");
        let line: Value = serde_json::from_slice(&output.stdout).expect("one line");
        println!("{} {line}", place[0]);
        line
    };

    let embedded = sync(BUCKET, &["--store", "store"]);
    let first = sync(BUCKET, &["--aws"]);
    for field in ["outcome", "commit", "bucket", "object_key", "entries"] {
        assert_eq!(embedded[field], first[field], "{field}");
    }
    assert_eq!(first["outcome"], "published");
    let object = s3
        .get_object()
        .bucket(BUCKET)
        .key("web.zip")
        .send()
        .await
        .unwrap();
    assert_eq!(object.metadata().unwrap()["git-commit"], commit);
    let zip = object.body.collect().await.unwrap().into_bytes();
    assert_zip_equals(&zip, &expected_entries(&repository, &commit), &commit);
    assert_eq!(sync(BUCKET, &["--aws"])["outcome"], "already_current");
    for (bucket, says) in [
        ("unversioned", "is not versioned"),
        ("nowhere", "there is no such bucket"),
    ] {
        let refused = sync(bucket, &["--aws"]);
        assert!(
            refused["error"]["message"].as_str().unwrap().contains(says),
            "{refused}"
        );
    }
}
