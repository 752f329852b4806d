//! A clone that the demo may push to, in the place of a repository on Backlog. Made by the `git` on this machine.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use backlog_bridge::push::{RefName, RepositoryName};
use serde_json::json;

use crate::cli::Usage;

const PROJECT: &str = "DEMO";

/// What `git` makes of a commit that nobody signed.
const IDENTITY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "backlog-bridge demo"),
    ("GIT_AUTHOR_EMAIL", "demo@example.com"),
    ("GIT_COMMITTER_NAME", "backlog-bridge demo"),
    ("GIT_COMMITTER_EMAIL", "demo@example.com"),
];

/// A bare repository at `{root}/{project}/{repository}.git`.
pub(super) struct Scratch {
    root: PathBuf,
    name: RepositoryName,
    ref_name: RefName,
    origin: String,
    git_dir: PathBuf,
    why_sample: Option<&'static str>,
}

impl Scratch {
    /// Clones `source`, or the repository that this folder is in, or a sample.
    pub(super) fn clone(folder: &Path, source: Option<&str>) -> Result<Self, Usage> {
        let root = folder.join("git");
        let (source, why_sample) = match source.map_or_else(surrounding, |source| Ok(source.into()))
        {
            Ok(source) => (Some(source), None),
            Err(why) => (None, Some(why)),
        };
        let short = source.as_deref().map_or("sample", last_part);
        let name: RepositoryName = format!("{PROJECT}/{short}")
            .parse()
            .or_else(|_| format!("{PROJECT}/sample").parse())?;
        let git_dir = root
            .join(PROJECT)
            .join(format!("{}.git", name.repository()));
        let origin = source
            .clone()
            .unwrap_or_else(|| "a sample repository".into());
        match &source {
            Some(source) => {
                // A depth is for URLs; a folder is cloned by linking.
                let depth: &[&str] = if source.contains("://") {
                    &["--depth=1"]
                } else {
                    &[]
                };
                run(Command::new("git")
                    .args(["clone", "--quiet", "--bare"])
                    .args(depth)
                    .arg("--")
                    .arg(source)
                    .arg(&git_dir))
                .map_err(|Usage(why)| {
                    Usage(format!(
                        "cannot clone {source}; name the folder of a Git repository, or a URL that `git clone` takes, or \
                         nothing for a sample: {}",
                        why.rsplit_once("fatal: ").map_or(&*why, |(_, why)| why)
                    ))
                })?;
            }
            None => {
                run(Command::new("git")
                    .args(["init", "--quiet", "--bare", "--initial-branch=main"])
                    .arg(&git_dir))?;
            }
        }
        let mut scratch = Self {
            root,
            name,
            ref_name: "refs/heads/main".parse()?,
            origin,
            git_dir,
            why_sample,
        };
        if source.is_none() {
            scratch.commit(
                "README.md",
                "# A sample\n\nMade by `backlog-bridge demo`.\n",
            )?;
            scratch.commit(
                "src/index.html",
                "<!doctype html>\n<title>こんにちは</title>\n<h1>Hello from Backlog</h1>\n",
            )?;
            scratch.commit(
                "buildspec.yml",
                "version: 0.2\nphases:\n  build:\n    commands:\n      - ls -R\n",
            )?;
            return Ok(scratch);
        }
        match scratch.git(&["symbolic-ref", "HEAD"], "") {
            Ok(head) => scratch.ref_name = head.parse()?,
            // No branch: a commit is checked out by its id.
            Err(_) => {
                scratch.git(&["update-ref", scratch.ref_name.as_str(), "HEAD"], "")?;
            }
        }
        scratch.tip().map_err(|_| {
            Usage(format!(
                "{} has no commit on {}; commit something first",
                scratch.origin, scratch.ref_name
            ))
        })?;
        Ok(scratch)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn name(&self) -> &RepositoryName {
        &self.name
    }

    pub(super) fn ref_name(&self) -> &RefName {
        &self.ref_name
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Why it is the sample, if it is.
    pub(super) fn why_sample(&self) -> Option<&'static str> {
        self.why_sample
    }

    /// What Backlog posts to a project webhook after a push.
    pub(super) fn webhook(&self, change: &str) -> Result<String, Usage> {
        let body = json!({
            "id": 1,
            "project": {"id": 1, "projectKey": self.name.project(), "name": "Demo"},
            "type": 12,
            "content": {
                "change_type": change,
                "ref": self.ref_name.as_str(),
                "repository": {"id": 1, "name": self.name.repository(), "description": null},
                "revision_count": 1,
                "revision_type": "commit",
                "revisions": [{"rev": self.tip()?, "comment": "A push"}],
            },
            "notifications": [],
            "created": "2026-04-01T00:00:00Z",
        });
        Ok(body.to_string())
    }

    /// A commit on top, with one more file.
    pub(super) fn commit(&self, path: &str, content: &str) -> Result<(), Usage> {
        let tip = self.tip().ok();
        match &tip {
            Some(tip) => self.git(&["read-tree", tip], "")?,
            None => self.git(&["read-tree", "--empty"], "")?,
        };
        let blob = self.git(&["hash-object", "-w", "--stdin"], content)?;
        self.git(
            &[
                "update-index",
                "--add",
                "--cacheinfo",
                &format!("100644,{blob},{path}"),
            ],
            "",
        )?;
        let tree = self.git(&["write-tree"], "")?;
        let mut commit = vec!["commit-tree", &tree, "-m", "Add a file for the demo"];
        commit.extend(tip.as_deref().map(|tip| ["-p", tip]).into_iter().flatten());
        let commit = self.git(&commit, "")?;
        self.git(&["update-ref", self.ref_name.as_str(), &commit], "")
            .map(drop)
    }

    fn tip(&self) -> Result<String, Usage> {
        self.git(
            &[
                "rev-parse",
                "--verify",
                "--quiet",
                &format!("{}^{{commit}}", self.ref_name),
            ],
            "",
        )
    }

    fn git(&self, arguments: &[&str], input: &str) -> Result<String, Usage> {
        let mut command = Command::new("git");
        command
            .arg("--git-dir")
            .arg(&self.git_dir)
            .args(arguments)
            .envs(IDENTITY)
            .stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|err| Usage(format!("cannot run git: {err}")))?;
        child
            .stdin
            .take()
            .expect("it is piped")
            .write_all(input.as_bytes())?;
        output(&command, &child.wait_with_output()?)
    }
}

/// The repository that this folder is in, if it has a commit; or why it is not used.
fn surrounding() -> Result<String, &'static str> {
    let ask = |what: &[&str]| run(Command::new("git").arg("rev-parse").args(what));
    if ask(&["--git-dir"]).is_err() {
        return Err("this folder is in no Git repository");
    }
    if ask(&["--verify", "--quiet", "HEAD"]).is_err() {
        return Err("the repository here has no commit yet");
    }
    // A bare repository has no top.
    let places = ["--show-toplevel", "--absolute-git-dir"].into_iter();
    places
        .filter_map(|place| ask(&[place]).ok())
        .find(|place| !place.is_empty())
        .ok_or("the repository here has no folder")
}

/// What a repository is called, by its path or URL.
fn last_part(source: &str) -> &str {
    let source = source.trim_end_matches('/');
    let name = source.rsplit(['/', '\\']).next().unwrap_or(source);
    name.strip_suffix(".git").unwrap_or(name)
}

fn run(command: &mut Command) -> Result<String, Usage> {
    let output_of = command
        .output()
        .map_err(|err| Usage(format!("cannot run git: {err}; the demo needs it")))?;
    output(command, &output_of)
}

fn output(command: &Command, output: &std::process::Output) -> Result<String, Usage> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned());
    }
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Usage(format!(
        "`git {}` failed: {}",
        words.join(" "),
        said.trim()
    )))
}
