//! Whether an archive is exactly the commit that it says it is: every blob, the tree, and, if the Git server is asked, the
//! commit.

use std::{collections::HashMap, fs::File, sync::Arc};

use gix::ObjectId;
use serde::Serialize;

use crate::{
    archive::{Delivered, Difference, Verified, verify},
    bucket::Address,
    deliver::Deliverer,
    error::{Error, chain},
    limits::Limits,
    plain,
    progress::{Progress, Stage},
    push::{CommitId, RepositoryName},
    route::{Destination, RouteTable, Space},
    snapshot::{Entry, Snapshot},
};

/// How many entries are named that differ.
const SHOWN: usize = 5;

/// What an archive is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Exactly what it says.
    Ok,
    /// Something in it is another.
    Differs,
    /// Nobody can say.
    Unreadable,
}

/// What is said of one archive. Its fields and their names are a contract; what is not known is absent.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Where it is: `s3://bucket/key`, or a file.
    pub object: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The commit that it says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The tree that its entries make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// How many entries it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<usize>,
    /// What it is, in a word.
    pub verdict: Word,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether there is no such object.
    #[serde(skip)]
    pub is_absent: bool,
    /// Whether the Git server has the commit with this tree.
    #[serde(skip)]
    pub is_in_git: bool,
}

/// Repositories that may have a commit.
pub type Sources<'a> = Vec<(&'a Space, &'a RepositoryName)>;

impl Verdict {
    /// Of an object's current version, or of one of its versions. `sources` are the repositories to ask for the commit.
    pub async fn of_object(
        bridge: &Deliverer,
        to: &Destination,
        version_id: Option<&str>,
        sources: &Sources<'_>,
        progress: &Arc<Progress>,
    ) -> Self {
        let at = Address::from(to);
        let mut verdict = Self::new(format!("s3://{}/{}", at.bucket, at.key));
        verdict.version_id = version_id.map(Into::into);
        progress.begin(Stage::Head);
        let described = match bridge.s3.describe(at, version_id).await {
            Ok(Some(described)) => described,
            Ok(None) => {
                let what = version_id.map_or_else(
                    || "there is no object".into(),
                    |id| format!("there is no version {:?} of it", plain::foreign(id)),
                );
                verdict.is_absent = version_id.is_none();
                return verdict.unreadable(what);
            }
            Err(err) => return verdict.unreadable(chain(&err)),
        };
        verdict.version_id = Some(described.version.id.clone());
        let Some(holds) = described.holds else {
            return verdict.unreadable("backlog-bridge did not write it".into());
        };
        verdict.commit = Some(holds.commit.to_string());
        let Some(tree) = holds.tree else {
            return verdict.unreadable("its metadata names no tree".into());
        };
        let delivered = Delivered {
            commit: holds.commit,
            tree,
            delivery_id: holds.delivery_id,
        };
        let got = async {
            let file = tempfile::tempfile().map_err(|err| chain(&err))?;
            let copy = file.try_clone().map_err(|err| chain(&err))?;
            let got = bridge.s3.get_version(at, &described.version, copy).await;
            got.map_err(|err| chain(&err)).map(|()| file)
        };
        match got.await {
            Ok(file) => {
                let read = verdict.read(bridge.limits, file, Some(delivered), progress);
                read.await.compare(bridge, sources, progress).await
            }
            Err(why) => verdict.unreadable(why),
        }
    }

    /// Of a file alone: its comment says which commit it is, and only the Git server knows whether that has this tree.
    pub async fn of_file(
        bridge: &Deliverer,
        name: String,
        file: File,
        sources: &Sources<'_>,
        progress: &Arc<Progress>,
    ) -> Self {
        let verdict = Self::new(name);
        let read = verdict.read(bridge.limits, file, None, progress).await;
        read.compare(bridge, sources, progress).await
    }

    /// The same, and nobody is asked.
    pub async fn of_file_alone(
        limits: Limits,
        name: String,
        file: File,
        progress: &Arc<Progress>,
    ) -> Self {
        Self::new(name).read(limits, file, None, progress).await.0
    }

    /// Of objects of which nobody can say what there is.
    #[must_use]
    pub fn unlisted(objects: String, err: &Error) -> Self {
        Self::new(objects).unreadable(chain(err))
    }

    fn new(object: String) -> Self {
        Self {
            object,
            version_id: None,
            commit: None,
            tree: None,
            entries: None,
            verdict: Word::Ok,
            problem: None,
            is_absent: false,
            is_in_git: false,
        }
    }

    fn unreadable(self, problem: String) -> Self {
        Self {
            verdict: Word::Unreadable,
            problem: Some(plain::message(problem)),
            ..self
        }
    }

    fn differs(self, problem: String) -> Self {
        Self {
            verdict: Word::Differs,
            ..self.unreadable(problem)
        }
    }

    async fn read(
        mut self,
        limits: Limits,
        file: File,
        metadata: Option<Delivered>,
        progress: &Arc<Progress>,
    ) -> Read {
        progress.begin(Stage::Archive);
        let work = Arc::clone(progress);
        let says_it_is_ours = metadata.is_some();
        let verified =
            tokio::task::spawn_blocking(move || verify(&file, metadata.as_ref(), &limits, &work));
        let verdict = match verified.await.expect("the work does not panic") {
            Ok(verified) => {
                self.commit = Some(verified.commit.to_string());
                self.tree = Some(verified.tree.to_string());
                self.entries = Some(verified.entries.len());
                return Read(self, Some(verified));
            }
            Err(err @ Difference::NoComment) if says_it_is_ours => self.differs(chain(&err)),
            Err(err) if err.is_unreadable() => self.unreadable(chain(&err)),
            Err(err) => self.differs(chain(&err)),
        };
        Read(verdict, None)
    }
}

/// What is said of an archive that was read, and what it holds if that is what it says.
struct Read(Verdict, Option<Verified>);

impl Read {
    /// Compares the archive with the commit, as the first of the repositories has it that has it.
    async fn compare(
        self,
        bridge: &Deliverer,
        sources: &Sources<'_>,
        progress: &Arc<Progress>,
    ) -> Verdict {
        let Self(mut verdict, Some(verified)) = self else {
            return self.0;
        };
        let Verified {
            commit,
            tree,
            entries,
        } = verified;
        let mut missing = None;
        for (space, repository) in sources {
            let snapshot = asked(bridge, space, repository, commit, progress);
            match Box::pin(snapshot).await {
                Ok(snapshot) if snapshot.tree == tree => {
                    verdict.is_in_git = true;
                    return verdict;
                }
                Ok(snapshot) => {
                    let why = difference(commit, snapshot.tree, &snapshot.entries, &entries);
                    return verdict.differs(why);
                }
                Err(err @ Error::NotGiven { .. }) => missing = Some(err),
                Err(err) => return verdict.unreadable(chain(&err)),
            }
        }
        match missing {
            None => verdict,
            Some(err) => {
                let why = format!(
                    "no repository of the table has the commit {commit}, or gives it any more: {}",
                    chain(&err)
                );
                verdict.differs(why)
            }
        }
    }
}

/// Every repository of a table, once.
#[must_use]
pub fn sources(table: &RouteTable) -> Sources<'_> {
    let mut sources = Sources::new();
    for route in table.routes() {
        let source = (table.space_of(route), route.repository());
        let is_same = |known: &(&Space, &RepositoryName)| {
            known.0.url() == source.0.url() && known.1 == source.1
        };
        if !sources.iter().any(is_same) {
            sources.push(source);
        }
    }
    sources
}

/// What an archive has otherwise than its commit. Both have the order of Git.
/// How often a server is asked for a commit, at most.
const ASKED: usize = 5;

/// What a repository has of a commit. A server that does not have it may be gone before its refusal was read; so one that hangs
/// up is asked again.
async fn asked(
    bridge: &Deliverer,
    space: &Space,
    repository: &RepositoryName,
    commit: CommitId,
    progress: &Arc<Progress>,
) -> Result<Snapshot, Error> {
    let mut tries = 1;
    loop {
        let snapshot = bridge.snapshot(space, repository, commit, progress);
        match Box::pin(snapshot).await {
            Err(Error::Fetch { .. } | Error::Unreachable { .. }) if tries < ASKED => tries += 1,
            other => return other,
        }
    }
}

fn difference(commit: CommitId, tree: ObjectId, commits: &[Entry], archives: &[Entry]) -> String {
    let known: HashMap<_, _> = archives.iter().map(|entry| (&entry.path, entry)).collect();
    let theirs: HashMap<_, _> = commits.iter().map(|entry| (&entry.path, entry)).collect();
    let shown = |entry: &Entry| format!("{:06o} {}", entry.kind.git_mode(), entry.id);
    let mut found = Vec::new();
    for entry in commits {
        match known.get(&entry.path) {
            None => found.push(format!("{:?} is missing", entry.path)),
            Some(own) if *own != entry => found.push(format!(
                "{:?} is {}, and should be {}",
                entry.path,
                shown(own),
                shown(entry)
            )),
            Some(_) => {}
        }
    }
    let surplus = archives
        .iter()
        .filter(|entry| !theirs.contains_key(&entry.path));
    found.extend(surplus.map(|entry| format!("{:?} is too much", entry.path)));
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    if found.is_empty() {
        found.push("its entries have another order".into());
    }
    format!(
        "the commit {commit} has the tree {tree}: {}",
        found.join("; ")
    )
}
