//! What is measured: repositories that are made once and kept below `target/`, or one of the user's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    REF,
    support::{
        generate::{Size, repository_with_history},
        upstream::{Repository, Upstream},
    },
};

/// Raised whenever other repositories are made: those that were kept are then made again.
const VERSION: u32 = 2;

/// The branch's last commit, wherever the branch is.
const TIP: &str = "refs/keep/tip";

/// A folder of repositories.
pub(crate) struct Repositories {
    folder: PathBuf,
}

/// A repository, packed as on a server.
pub(crate) struct Repo {
    pub(crate) name: String,
    pub(crate) title: String,
    /// The folder that the server serves.
    pub(crate) root: PathBuf,
    repository: Repository,
}

impl Repositories {
    pub(crate) fn open() -> Self {
        let name = format!("deliveries-{VERSION}");
        Self {
            folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name),
        }
    }

    pub(crate) fn all(&self) -> Vec<Repo> {
        vec![
            self.small(),
            self.source(),
            self.assets(),
            self.large(),
            self.many(),
        ]
    }

    pub(crate) fn small(&self) -> Repo {
        self.made("small", "3 MB of source, 300 files", 2_800_000, 300, 1.0)
    }

    pub(crate) fn source(&self) -> Repo {
        let title = "26 MB of source, 5,500 files";
        self.made("source", title, 24_000_000, 5_000, 1.0)
    }

    fn assets(&self) -> Repo {
        let title = "60 MB, mostly incompressible, 2,100 files";
        self.made("assets", title, 59_500_000, 2_000, 0.1)
    }

    fn large(&self) -> Repo {
        let title = "120 MB, 13,000 files";
        self.made("large", title, 113_000_000, 12_000, 0.7)
    }

    fn many(&self) -> Repo {
        let title = "25 MB, 50,000 small files";
        self.made("many", title, 23_000_000, 45_500, 1.0)
    }

    /// Half of it source, half of it incompressible; a file has 10 KB on average.
    pub(crate) fn sized(&self, megabytes: usize) -> Repo {
        let (name, title) = (format!("sized-{megabytes}"), format!("{megabytes} MB"));
        let bytes = megabytes * 950_000;
        self.made(&name, &title, bytes, megabytes * 100, 0.5)
    }

    fn made(&self, name: &str, title: &str, bytes: usize, files: usize, compressible: f64) -> Repo {
        let root = self.folder.join(name);
        let done = root.join("done");
        if !done.exists() {
            eprintln!("making: {title}");
            fs::remove_dir_all(&root).ok();
            fs::create_dir_all(&root).unwrap();
            let repository = Upstream::at(&root).repository("BENCH/tree");
            let size = Size {
                bytes,
                files,
                compressible,
            };
            repository_with_history(&repository, size, 24, 1);
            repack(&repository, bytes);
            keep_tip(&repository);
            fs::write(done, "").unwrap();
        }
        Repo {
            name: name.into(),
            title: title.into(),
            repository: Upstream::at(&root).repository("BENCH/tree"),
            root,
        }
    }

    /// Files of 100 bytes on average.
    pub(crate) fn tiny(&self, files: usize) -> Repo {
        let (name, title) = (format!("files-{files}"), format!("{files} files"));
        self.made(&name, &title, files * 100, files, 1.0)
    }

    /// A copy of a repository, whose branch is the `HEAD` of that. It is called as its folder is.
    pub(crate) fn copy(&self, path: &Path) -> Repo {
        let name = path.file_name().expect("a folder").to_string_lossy();
        let root = self.folder.join(format!("copy-{name}"));
        fs::remove_dir_all(&root).ok();
        let repository = Upstream::at(&root).repository("BENCH/tree");
        let from = path.canonicalize().unwrap();
        let from = from.to_str().expect("a path in UTF-8");
        repository.git(&["fetch", "-q", from, &format!("+HEAD:{REF}")]);
        repository.git(&["repack", "-adq"]);
        keep_tip(&repository);
        let mut repo = Repo {
            title: String::new(),
            name: name.into_owned(),
            root,
            repository,
        };
        let sizes = repo.sizes();
        let megabytes = (sizes.iter().sum::<u64>() + 500_000) / 1_000_000;
        let commits = repo.repository.git(&["rev-list", "--count", TIP]);
        let commits = String::from_utf8_lossy(&commits).trim().to_owned();
        let (name, files) = (&repo.name, sizes.len());
        repo.title = format!("{name}, {megabytes} MB, {files} files, {commits} commits");
        repo
    }
}

/// A server keeps its repositories packed, with deltas between similar files.
fn repack(repository: &Repository, bytes: usize) {
    if bytes < 200_000_000 {
        repository.repack();
    }
}

fn keep_tip(repository: &Repository) {
    let tip = repository.resolve(REF).unwrap();
    repository.set_ref(TIP, &tip);
    repository.git(&["config", "transfer.hideRefs", "refs/keep"]);
}

impl Repo {
    pub(crate) fn path(&self) -> &Path {
        self.repository.path()
    }

    /// The commit so many pushes before the last one, if there is one.
    pub(crate) fn before(&self, pushes: usize) -> Option<String> {
        self.repository.resolve(&format!("{TIP}~{pushes}"))
    }

    /// Points the branch to the commit so many pushes before the last one.
    pub(crate) fn move_to(&self, pushes: usize) {
        let commit = self.before(pushes).unwrap();
        self.repository.set_ref(REF, &commit);
    }

    /// The size of each file in bytes.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        let list = ["ls-tree", "-r", "--format=%(objectsize)", TIP];
        let list = String::from_utf8(self.repository.git(&list)).unwrap();
        list.lines().filter_map(|size| size.parse().ok()).collect()
    }
}
