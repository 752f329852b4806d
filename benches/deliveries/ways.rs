//! The ways from a push to an object in S3, this program's and others'.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    BUCKET, KEY, REF,
    far::{self, Network},
    measure::{self, Cost, size_of},
    part,
    repositories::Repo,
    support::{
        git_server::GitServer,
        process::git,
        s3::{ACCESS_KEY, SECRET_KEY, TestS3},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `sync --aws`, into the S3 that all use.
    Sync,
    /// `sync`, with the embedded S3 in the same process, its MD5 and its `fsync`.
    SyncEmbedded,
    /// Fetch, verify, zip, zip read again; no S3.
    Parts,
    Git,
    Gix,
    /// Depth 0 is everything.
    Dulwich {
        depth: u32,
    },
    IndexPack,
    Floor,
}

impl Way {
    pub(crate) const ALL: [Self; 9] = [
        Self::Sync,
        Self::SyncEmbedded,
        Self::Parts,
        Self::Git,
        Self::Gix,
        Self::Dulwich { depth: 1 },
        Self::Dulwich { depth: 0 },
        Self::IndexPack,
        Self::Floor,
    ];

    /// What it measures.
    pub(crate) fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Sync => &["this program"],
            Self::SyncEmbedded => &["with its own S3"],
            Self::Parts => &["without S3"],
            Self::Git => &["git", "git + upload"],
            Self::Gix => &["gix", "gix + upload"],
            Self::Dulwich { depth: 0 } => &["dulwich, full"],
            Self::Dulwich { .. } => &["dulwich, depth 1"],
            Self::IndexPack => &["git index-pack"],
            Self::Floor => &["floor"],
        }
    }
}

/// The Python of a virtual environment with dulwich and boto3.
pub(crate) struct Python {
    program: PathBuf,
    /// What is checked out stays in here until the end. For minutes after a file was deleted, ext4 does not use its inode
    /// again, but looks at it for each new file: every run would take longer than the one before.
    checkouts: TempDir,
}

impl Python {
    /// Makes the environment if need be. `None` if that does not work here.
    pub(crate) fn find() -> Option<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deliveries-python");
        let program = folder.join("bin/python");
        let works = |command: &mut Command| {
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        };
        let has_all =
            || works(Command::new(&program).args(["-c", "import boto3, dulwich.porcelain"]));
        if !has_all() {
            works(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            works(Command::new(&program).args([
                "-m",
                "pip",
                "install",
                "dulwich==1.2.21",
                "boto3==1.44.5",
            ]));
        }
        has_all().then(|| Self {
            program,
            checkouts: tempfile::tempdir().unwrap(),
        })
    }
}

/// A repository behind its server, and what clients need to reach both that and S3.
pub(crate) struct Place<'a> {
    runtime: &'a Runtime,
    repo: &'a Repo,
    python: Option<&'a Python>,
    server: GitServer,
    url: String,
    folder: TempDir,
}

impl<'a> Place<'a> {
    /// Starts the server, `round_trip` away if that is given.
    pub(crate) fn new(
        runtime: &'a Runtime,
        python: Option<&'a Python>,
        repo: &'a Repo,
        round_trip: Option<Duration>,
    ) -> Self {
        let server = GitServer::start(&repo.root, None);
        let mut space = server.space_url();
        if let Some(round_trip) = round_trip {
            let start = space.find("localhost:").unwrap() + "localhost:".len();
            let end = space.rfind('/').unwrap();
            let port = far::away(
                space[start..end].parse().unwrap(),
                Network {
                    round_trip,
                    connection: None,
                    all: None,
                },
            );
            space.replace_range(start..end, &port.to_string());
        }
        let folder = tempfile::tempdir().unwrap();
        let routes = format!(
            "[[space]]\nurl = \"{space}\"\n[[route]]\nname = \"bench\"\nrepository = \"BENCH/tree\"\n\
             ref = \"{REF}\"\nobject = \"{KEY}\"\n"
        );
        fs::write(folder.path().join("routes.toml"), routes).unwrap();
        let ca = server.ca_file();
        // dulwich asks git's configuration only.
        let config = format!("[http]\n\tsslCAInfo = {}\n", ca.display());
        fs::write(folder.path().join(".gitconfig"), config).unwrap();
        let place = Self {
            url: format!("{space}/BENCH/tree.git"),
            runtime,
            repo,
            python,
            server,
            folder,
        };
        let mut save = part(&["save-pack", &place.url, place.pack().to_str().unwrap()]);
        measure::run(save.env("SSL_CERT_FILE", ca));
        place
    }

    pub(crate) fn cache_packs(&self, yes: bool) {
        self.server.cache_packs(yes);
    }

    pub(crate) fn can(&self, way: Way) -> bool {
        self.python.is_some() || !matches!(way, Way::Dulwich { .. })
    }

    fn pack(&self) -> PathBuf {
        self.folder.path().join("pack")
    }

    pub(crate) fn run(&self, way: Way) -> Vec<Cost> {
        let scratch = tempfile::tempdir_in(self.folder.path()).unwrap();
        let scratch = scratch.path();
        let s3 = self.s3();
        self.server.clear_requests();
        match way {
            Way::Sync => {
                let cost = self.deliver(&s3);
                vec![cost]
            }
            Way::SyncEmbedded => {
                let mut command = self.bridge();
                let mut cost = measure::run(command.arg("--store").arg(scratch));
                cost.wire_bytes = self.wire_bytes();
                vec![cost]
            }
            Way::Parts => {
                let mut command = part(&["fetch-and-archive", &self.url]);
                let mut cost = measure::run(command.env("SSL_CERT_FILE", self.server.ca_file()));
                cost.wire_bytes = self.wire_bytes();
                vec![cost]
            }
            Way::Git => self.git(scratch, &s3),
            Way::Gix => {
                let mut command = part(&["gix", &self.url, scratch.to_str().unwrap()]);
                command.env("SSL_CERT_FILE", self.server.ca_file());
                let clone = measure::run(&command);
                self.and_upload(clone, &scratch.join("tree.zip"), &s3)
            }
            Way::Dulwich { depth } => {
                let script = concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/benches/deliveries/dulwich_way.py"
                );
                let Python { program, checkouts } = self.python.expect("it was asked for");
                let checkout = tempfile::tempdir_in(checkouts).unwrap().keep();
                let mut command = Command::new(program);
                command.args([script, &self.url, &depth.to_string()]);
                command.arg(checkout).args([BUCKET, KEY]);
                command.env("HOME", self.folder.path());
                let mut cost = measure::run(aws(&mut command, &s3));
                cost.wire_bytes = self.wire_bytes();
                cost.zip_bytes = self.stored(&s3);
                // Not while the next one has its turn.
                let flushed = Command::new("sync")
                    .arg("-f")
                    .arg(checkouts.path())
                    .status();
                assert!(flushed.is_ok_and(|status| status.success()));
                vec![cost]
            }
            Way::IndexPack => {
                let mut command = git();
                command.args(["index-pack", "-o"]);
                command.arg(scratch.join("pack.idx")).arg(self.pack());
                vec![measure::run(&command)]
            }
            Way::Floor => {
                let (pack, copy) = (self.pack(), scratch.join("copy"));
                let command = part(&["floor", pack.to_str().unwrap(), copy.to_str().unwrap()]);
                vec![measure::run(&command)]
            }
        }
    }

    /// A delivery, so many pushes, and the next delivery.
    pub(crate) fn first_and_second(&self, pushes: usize) -> Vec<Cost> {
        let s3 = self.s3();
        let deliver = |pushes| {
            self.repo.move_to(pushes);
            self.server.clear_requests();
            self.deliver(&s3)
        };
        vec![deliver(pushes), deliver(0)]
    }

    /// Microseconds of each stage of a first delivery, and of the one after it; with one core as in a small Lambda function,
    /// or with all.
    pub(crate) fn stages(&self, one_core: bool) -> Vec<Vec<(String, u64)>> {
        let s3 = self.s3();
        self.repo.move_to(1);
        let tip = self.repo.before(0).unwrap();
        let git = self.repo.path().to_str().unwrap();
        let file = self.folder.path().join("stages");
        fs::remove_file(&file).ok();
        let part = part(&["stages", &self.url, s3.endpoint(), git, &tip]);
        let mut command = if one_core {
            let mut pinned = Command::new("taskset");
            pinned.args(["--cpu-list", "0"]).arg(part.get_program());
            pinned.args(part.get_args());
            pinned
        } else {
            part
        };
        command.env("SSL_CERT_FILE", self.server.ca_file());
        measure::run(command.env("BENCH_STAGES", &file));
        let text = fs::read_to_string(file).unwrap();
        let stages = text.trim_end().split("\n\n").map(|delivery| {
            let stage = |line: &str| {
                let (stage, micros) = line.split_once('\t').unwrap();
                (stage.to_owned(), micros.parse().unwrap())
            };
            delivery.lines().map(stage).collect()
        });
        stages.collect()
    }

    fn s3(&self) -> TestS3 {
        self.runtime.block_on(TestS3::start())
    }

    fn bridge(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backlog-bridge"));
        command
            .args(["sync", "--routes"])
            .arg(self.folder.path().join("routes.toml"))
            .env("SSL_CERT_FILE", self.server.ca_file());
        command
    }

    fn deliver(&self, s3: &TestS3) -> Cost {
        let mut command = self.bridge();
        let mut cost = measure::run(aws(command.arg("--aws"), s3));
        cost.wire_bytes = self.wire_bytes();
        cost.zip_bytes = self.stored(s3);
        cost
    }

    fn git(&self, scratch: &Path, s3: &TestS3) -> Vec<Cost> {
        let (tree, zip) = (scratch.join("tree.git"), scratch.join("tree.zip"));
        let mut clone = git();
        clone.env("GIT_SSL_CAINFO", self.server.ca_file());
        clone.args(["clone", "-q", "--bare", "--depth", "1", &self.url]);
        let clone = measure::run(clone.arg(&tree));
        let mut archive = git();
        archive.arg("--git-dir").arg(&tree);
        archive.args(["archive", "--format=zip", "main", "-o"]);
        let archive = measure::run(archive.arg(&zip));
        self.and_upload(clone.then(archive), &zip, s3)
    }

    /// What there is before an upload, and with it.
    fn and_upload(&self, mut cost: Cost, zip: &Path, s3: &TestS3) -> Vec<Cost> {
        cost.wire_bytes = self.wire_bytes();
        cost.zip_bytes = size_of(zip);
        let upload = measure::run(&part(&["upload", s3.endpoint(), zip.to_str().unwrap()]));
        vec![cost, cost.then(upload)]
    }

    /// Bodies only.
    fn wire_bytes(&self) -> u64 {
        let requests = self.server.requests();
        let bytes = requests
            .iter()
            .map(|request| request.body_bytes + request.response_bytes);
        bytes.sum::<usize>() as u64
    }

    fn stored(&self, s3: &TestS3) -> u64 {
        let client = s3.client();
        let head = client.head_object().bucket(BUCKET).key(KEY).send();
        let head = self.runtime.block_on(head).unwrap();
        head.content_length().unwrap().try_into().unwrap()
    }
}

/// Points the SDKs of all languages to an S3 of ours.
fn aws<'c>(command: &'c mut Command, s3: &TestS3) -> &'c mut Command {
    command.envs([
        ("AWS_ENDPOINT_URL_S3", s3.endpoint()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("SOURCE_BUCKET", BUCKET),
    ])
}
