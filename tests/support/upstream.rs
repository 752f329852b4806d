//! Repositories as a Git server holds them, made by the real git: same calls, same ids.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;

use super::process::{feed, git, stdout_of};

/// When the first commit was made; every commit after it is a minute later.
const EPOCH: u64 = 1_700_000_000;

/// What a commit does to one path.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// A file, mode 100644.
    File(Vec<u8>),
    /// An executable file, mode 100755.
    Executable(Vec<u8>),
    /// A symbolic link and its target, mode 120000.
    Symlink(Vec<u8>),
    /// A submodule and its commit, mode 160000.
    Submodule(String),
    /// Nothing is there any more.
    Deleted,
}

impl Content {
    /// What git writes into the tree.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::File(_) => "100644",
            Self::Executable(_) => "100755",
            Self::Symlink(_) => "120000",
            Self::Submodule(_) => "160000",
            Self::Deleted => "0",
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::File(text.into())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::File(bytes)
    }
}

/// Lengths instead of megabytes, for the message of a failed property.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::File(bytes) => ("File", bytes),
            Self::Executable(bytes) => ("Executable", bytes),
            Self::Symlink(bytes) => ("Symlink", bytes),
            Self::Submodule(commit) => return write!(f, "Submodule({commit})"),
            Self::Deleted => return write!(f, "Deleted"),
        };
        let start = bytes[..bytes.len().min(24)].escape_ascii();
        write!(f, "{name}({} bytes: {start})", bytes.len())
    }
}

/// A folder of bare repositories, `{project}/{repository}.git`.
pub struct Upstream {
    root: PathBuf,
    clock: Arc<AtomicU64>,
    _owned: Option<TempDir>,
}

impl Upstream {
    /// In a temporary folder that goes away with this value.
    pub fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        Self {
            root: owned.path().to_owned(),
            clock: Arc::default(),
            _owned: Some(owned),
        }
    }

    /// In a folder that stays.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            clock: Arc::default(),
            _owned: None,
        }
    }

    /// What the server serves.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Another machine's copy of all repositories as they are now.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let mut cp = std::process::Command::new("cp");
        cp.arg("-R").arg(self.root.join(".")).arg(copy.path());
        stdout_of(&mut cp, b"");
        copy
    }

    /// The repository of a name such as `APP/web`; a new one is empty.
    pub fn repository(&self, name: &str) -> Repository {
        self.with_format(name, "sha1")
    }

    /// A repository whose ids are SHA-256.
    pub fn sha256_repository(&self, name: &str) -> Repository {
        self.with_format(name, "sha256")
    }

    fn with_format(&self, name: &str, object_format: &str) -> Repository {
        let path = self.root.join(format!("{name}.git"));
        if !path.join("HEAD").exists() {
            let format = format!("--object-format={object_format}");
            let mut init = git();
            init.args(["init", "--quiet", "--bare", "--initial-branch=main"]);
            stdout_of(init.args([&format, "--template="]).arg(&path), b"");
        }
        Repository {
            path,
            clock: Arc::clone(&self.clock),
        }
    }
}

/// A bare repository.
#[derive(Clone)]
pub struct Repository {
    path: PathBuf,
    clock: Arc<AtomicU64>,
}

impl Repository {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Commits changes on top of a ref, or starts the ref with them. Returns the commit's id.
    pub fn commit_on<P: AsRef<[u8]> + Sync>(
        &self,
        ref_name: &str,
        changes: &[(P, Content)],
    ) -> String {
        let parent = self.resolve(ref_name);
        self.commit(ref_name, parent.as_deref(), |out| {
            write_changes(out, changes)
        })
    }

    /// Forces a ref to a commit without parents that holds these files and no other. Returns the commit's id.
    pub fn commit_orphan_on<P: AsRef<[u8]> + Sync>(
        &self,
        ref_name: &str,
        files: &[(P, Content)],
    ) -> String {
        self.commit(ref_name, None, |out| write_changes(out, files))
    }

    /// Commits a tree that holds these files and no other on top of a ref. Returns the commit's id.
    pub fn commit_exactly_on<P: AsRef<[u8]> + Sync>(
        &self,
        ref_name: &str,
        files: &[(P, Content)],
    ) -> String {
        let parent = self.resolve(ref_name);
        self.commit(ref_name, parent.as_deref(), |out| {
            writeln!(out, "deleteall")?;
            write_changes(out, files)
        })
    }

    /// Makes a commit of the changes that are written as `git fast-import` commands.
    pub fn commit(
        &self,
        ref_name: &str,
        parent: Option<&str>,
        changes: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
    ) -> String {
        let time = EPOCH + 60 * self.clock.fetch_add(1, Ordering::Relaxed);
        let message = format!("Commit at {time}\n");
        let stdout = self.fast_import(|out| {
            writeln!(out, "commit {ref_name}\nmark :1")?;
            writeln!(out, "committer Robot <robot@example.com> {time} +0900")?;
            writeln!(out, "data {}\n{message}", message.len())?;
            if let Some(parent) = parent {
                writeln!(out, "from {parent}")?;
            }
            changes(out)?;
            writeln!(out, "\nget-mark :1\ndone")
        });
        text(stdout)
    }

    /// Runs `git fast-import` on a stream that ends in `done`, and returns what the stream asked for.
    ///
    /// # Panics
    ///
    /// If git refuses the stream.
    pub fn fast_import(
        &self,
        stream: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
    ) -> Vec<u8> {
        let mut import = self.command();
        import.args(["fast-import", "--quiet", "--force", "--done"]);
        let output = feed(&mut import, stream);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git fast-import: {stderr}");
        output.stdout
    }

    /// Points a ref to an object, whatever it pointed to before: a forced push.
    pub fn set_ref(&self, ref_name: &str, id: &str) {
        self.git(&["update-ref", ref_name, id]);
    }

    /// Points a ref to another ref.
    pub fn set_symbolic_ref(&self, ref_name: &str, target: &str) {
        self.git(&["symbolic-ref", ref_name, target]);
    }

    /// Removes a ref.
    pub fn delete_ref(&self, ref_name: &str) {
        self.git(&["update-ref", "-d", ref_name]);
    }

    /// What a ref points to; a tag's own id if it is annotated.
    pub fn resolve(&self, ref_name: &str) -> Option<String> {
        let mut git = self.command();
        git.args(["rev-parse", "--verify", "--quiet", ref_name]);
        let output = feed(&mut git, |_| Ok(()));
        output.status.success().then(|| text(output.stdout))
    }

    /// Makes an annotated tag of any object, a tag too, points the ref to it, and returns the tag's id.
    pub fn annotated_tag(&self, ref_name: &str, target: &str) -> String {
        let kind = text(self.git(&["cat-file", "-t", target]));
        let name = ref_name.strip_prefix("refs/tags/").unwrap_or(ref_name);
        let tag = format!(
            "object {target}\ntype {kind}\ntag {name}\ntagger Robot <robot@example.com> {EPOCH} +0900\n\nTag {name}\n"
        );
        let id = self.write_object("tag", tag.as_bytes());
        self.set_ref(ref_name, &id);
        id
    }

    /// Stores an object as it is, even one that git itself would not make: a tree with the entry `..`.
    pub fn write_object(&self, kind: &str, bytes: &[u8]) -> String {
        let args = ["hash-object", "--literally", "-w", "-t", kind, "--stdin"];
        text(stdout_of(self.command().args(args), bytes))
    }

    /// Forces a ref to a commit without parents that holds any tree. Returns the commit's id.
    pub fn commit_tree_on(&self, ref_name: &str, tree: &str) -> String {
        let by = format!("Robot <robot@example.com> {EPOCH} +0900");
        let commit = format!("tree {tree}\nauthor {by}\ncommitter {by}\n\nA tree\n");
        let id = self.write_object("commit", commit.as_bytes());
        self.set_ref(ref_name, &id);
        id
    }

    /// Packs everything into one pack with the delta chains that a server has.
    pub fn repack(&self) {
        self.git(&["repack", "-adfq", "--depth=50", "--window=50"]);
    }

    /// Runs git on the repository and returns what it wrote.
    ///
    /// # Panics
    ///
    /// If git fails.
    pub fn git(&self, args: &[&str]) -> Vec<u8> {
        stdout_of(self.command().args(args), b"")
    }

    /// Like [`git`](Self::git), with something to read.
    ///
    /// # Panics
    ///
    /// If git fails.
    pub fn git_with_input(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        stdout_of(self.command().args(args), input)
    }

    fn command(&self) -> std::process::Command {
        let mut git = git();
        git.arg("--git-dir").arg(&self.path);
        git
    }
}

/// Writes changes as `git fast-import` commands. Of two changes to one path, the last one counts.
fn write_changes<P: AsRef<[u8]> + Sync>(
    out: &mut dyn Write,
    changes: &[(P, Content)],
) -> io::Result<()> {
    let by_path: BTreeMap<_, _> = changes.iter().map(|(p, c)| (p.as_ref(), c)).collect();
    // First what goes, so that a file can become a folder.
    for (path, _) in by_path.iter().filter(|(_, c)| **c == &Content::Deleted) {
        writeln!(out, "D {}", quoted(path))?;
    }
    for (path, content) in by_path {
        write_change(out, path, content)?;
    }
    Ok(())
}

/// Writes one path's new content as a `git fast-import` command.
pub fn write_change(out: &mut dyn Write, path: &[u8], content: &Content) -> io::Result<()> {
    let mode = content.mode();
    match content {
        Content::File(bytes) | Content::Executable(bytes) | Content::Symlink(bytes) => {
            writeln!(out, "M {mode} inline {}", quoted(path))?;
            writeln!(out, "data {}", bytes.len())?;
            out.write_all(bytes)?;
            writeln!(out)
        }
        Content::Submodule(commit) => writeln!(out, "M {mode} {commit} {}", quoted(path)),
        Content::Deleted => Ok(()),
    }
}

/// A path as `git fast-import` reads it, whatever its bytes are.
fn quoted(path: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for &byte in path {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => write!(quoted, "\\{byte:03o}").expect("a string takes everything"),
        }
    }
    quoted + "\""
}

fn text(output: Vec<u8>) -> String {
    let text = String::from_utf8(output).expect("git writes ids in ASCII");
    text.trim_end().to_owned()
}
