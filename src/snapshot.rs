//! One commit's tree as a list of entries, every path checked, every object there.
//!
//! Nothing is expanded before it is known to be allowed: a dozen objects can name ten thousand million paths.

mod about;
mod attributes;
mod folders;
mod names;

use gix::{
    ObjectId,
    bstr::{BStr, BString, ByteSlice},
    objs::{TreeRef, tree::EntryRef},
    validate::path::{self, component},
};

use self::attributes::Conversions;
use self::names::{check_aliases, check_name, join, twins};
pub use self::{about::About, folders::Folders};
use crate::{
    limits::{Exceeded, Limits, within},
    pack::Objects,
    plain,
    push::CommitId,
};

/// The longest path in bytes, as Linux has it.
pub const MAX_PATH_BYTES: usize = 4096;

/// How many folders may stand in each other.
const MAX_DEPTH: usize = 256;

/// Memory for paths, which share nothing however many of them begin alike: this many bytes, and this many more for each entry
/// allowed. A tree of a few objects can name 200,000 paths of 4,096 bytes.
const PATH_BYTES: u64 = 1 << 20;
const PATH_BYTES_PER_ENTRY: u64 = 200;

/// How much of a refused path is shown, in bytes: a tree can hold a name of megabytes, and errors are logged.
const SHOWN_BYTES: usize = 512;

/// Why a commit's tree cannot become an archive.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The pack lacks an object, or holds one of another kind.
    #[error("{what} {id} is missing from the pack")]
    Missing {
        /// The kind of object.
        what: &'static str,
        /// Its id.
        id: ObjectId,
    },
    /// A commit or a tree is not well-formed.
    #[error("{what} {id} is malformed")]
    Malformed {
        /// The kind of object.
        what: &'static str,
        /// Its id.
        id: ObjectId,
        /// What `gix` says.
        source: gix::Error,
    },
    /// A path that is not safe to extract.
    #[error("the path {path:?} is refused: {why}")]
    Path {
        /// The path.
        path: BString,
        /// What is wrong with it.
        why: String,
    },
    /// The tree is larger than allowed.
    #[error(transparent)]
    Limit(#[from] Exceeded),
}

impl SnapshotError {
    fn path(mut path: BString, why: impl Into<String>) -> Self {
        let (mut why, bytes) = (why.into(), path.len());
        if bytes > SHOWN_BYTES {
            path.truncate(SHOWN_BYTES);
            why = format!("{why}; this is the beginning of its {bytes} bytes");
        }
        Self::Path { path, why }
    }
}

/// One commit's tree.
#[derive(Debug)]
pub struct Snapshot {
    /// The commit.
    pub commit: CommitId,
    /// Its tree.
    pub tree: ObjectId,
    /// What the commit says of itself.
    pub about: About,
    /// Everything in the tree but the folders, in Git's order.
    pub entries: Vec<Entry>,
    /// What people should know about the archive, one sentence each.
    pub warnings: Vec<String>,
}

/// A path of the tree and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path from the root, without a leading slash.
    pub path: BString,
    /// What it is.
    pub kind: EntryKind,
    /// The blob, or a submodule's commit.
    pub id: ObjectId,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link; the blob is its target.
    Symlink,
    /// Another repository's commit, of which only the empty folder is delivered.
    Submodule,
}

impl EntryKind {
    /// The mode as Git writes it.
    #[must_use]
    pub fn git_mode(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Symlink => 0o120_000,
            Self::Submodule => 0o160_000,
        }
    }

    /// What [`git_mode`](Self::git_mode) was asked of.
    #[must_use]
    pub fn from_git_mode(mode: u32) -> Option<Self> {
        let kinds = [Self::File, Self::Executable, Self::Symlink, Self::Submodule];
        kinds.into_iter().find(|kind| kind.git_mode() == mode)
    }
}

impl Snapshot {
    /// Walks the tree of `commit`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if an object is missing or malformed, a path could escape or harm where it is extracted, or the
    /// tree is larger than `limits`.
    pub fn of(commit: CommitId, objects: &Objects, limits: &Limits) -> Result<Self, SnapshotError> {
        let id = commit.object_id();
        let bytes = objects
            .commit(&id)
            .ok_or(SnapshotError::Missing { what: "commit", id })?;
        let (tree, about) = About::read(bytes).map_err(|source| SnapshotError::Malformed {
            what: "commit",
            id,
            source,
        })?;
        let mut walk = Walk {
            objects,
            limits,
            entries: Vec::new(),
            folders: 0,
            path_bytes: 0,
            bytes: 0,
            submodules: Examples::default(),
            attributes: Vec::new(),
            conversions: Conversions::default(),
            windows_hostile: Examples::default(),
            twins: Examples::default(),
        };
        walk.walk(tree)?;
        if !walk.attributes.is_empty() {
            walk.conversions = attributes::look(&walk.entries, &walk.attributes, objects);
        }
        check_aliases(&walk.entries)?;
        Ok(Self {
            commit,
            tree,
            about,
            warnings: walk.warnings(),
            entries: walk.entries,
        })
    }
}

struct Walk<'a> {
    objects: &'a Objects,
    limits: &'a Limits,
    entries: Vec<Entry>,
    folders: u64,
    path_bytes: u64,
    bytes: u64,
    submodules: Examples,
    /// Where in `entries` the files are that say what a checkout changes.
    attributes: Vec<usize>,
    conversions: Conversions,
    windows_hostile: Examples,
    /// Names that are one with another one of their folder on some disks.
    twins: Examples,
}

/// How many examples are named.
const NAMED: u64 = 5;

/// How many there are of something, and the first of them.
#[derive(Default)]
struct Examples {
    count: u64,
    shown: String,
}

impl Examples {
    fn add(&mut self, path: &BStr) {
        if self.count < NAMED {
            let comma = if self.count == 0 { "" } else { ", " };
            let name = plain::foreign(&path.to_str_lossy());
            self.shown.extend([comma, "\"", &name, "\""]);
        }
        self.count += 1;
    }
}

impl<'a> Walk<'a> {
    fn walk(&mut self, root: ObjectId) -> Result<(), SnapshotError> {
        let mut path = BString::default();
        // The folders from the root to where the walk is: what is left of each, and the length of its path.
        let mut folders = vec![(self.tree(root, path.as_bstr())?.into_iter(), 0)];
        while let Some((rest, length)) = folders.last_mut() {
            path.truncate(*length);
            let Some(entry) = rest.next() else {
                folders.pop();
                continue;
            };
            check_name(&entry, path.as_bstr())?;
            path.extend_from_slice(entry.filename);
            if path.len() > MAX_PATH_BYTES {
                let why = format!("it is longer than {MAX_PATH_BYTES} bytes");
                return Err(SnapshotError::path(path, why));
            }
            if entry.mode.is_tree() {
                if folders.len() > MAX_DEPTH {
                    let why = format!("it is more than {MAX_DEPTH} folders deep");
                    return Err(SnapshotError::path(path, why));
                }
                path.push(b'/');
                let id = entry.oid.to_owned();
                folders.push((self.tree(id, path.as_bstr())?.into_iter(), path.len()));
            } else {
                self.take(&entry, path.as_bstr())?;
            }
        }
        Ok(())
    }

    fn tree(&mut self, id: ObjectId, path: &BStr) -> Result<Vec<EntryRef<'a>>, SnapshotError> {
        self.folders += 1;
        within(
            "the number of folders",
            self.folders,
            "MAX_ENTRIES",
            self.limits.entries.into(),
        )?;
        let bytes = self
            .objects
            .tree(&id)
            .ok_or(SnapshotError::Missing { what: "tree", id })?;
        let entries = TreeRef::from_bytes(bytes, gix::hash::Kind::Sha1)
            .map_err(|source| SnapshotError::Malformed {
                what: "tree",
                id,
                source,
            })?
            .entries;
        let mut names: Vec<&BStr> = entries.iter().map(|entry| entry.filename).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let why = "the tree holds it twice";
            return Err(SnapshotError::path(join(path, twice[0]), why));
        }
        // Git looks names up as if they were in order, so in such a tree different readers see different files.
        if let Some(pair) = entries.windows(2).find(|pair| pair[0] > pair[1]) {
            let why = "it is not where Git's order has it";
            return Err(SnapshotError::path(join(path, pair[1].filename), why));
        }
        for (_, name) in twins(&names) {
            self.twins.add(join(path, name).as_bstr());
        }
        Ok(entries)
    }

    fn take(&mut self, entry: &EntryRef<'_>, path: &BStr) -> Result<(), SnapshotError> {
        let id = entry.oid.to_owned();
        let kind = match entry.mode.value() {
            0o160_000 => EntryKind::Submodule,
            0o120_000 => EntryKind::Symlink,
            _ if entry.mode.is_executable() => EntryKind::Executable,
            _ if entry.mode.is_blob() => EntryKind::File,
            mode => {
                let why = format!("its mode {mode:o} is none of Git's");
                return Err(SnapshotError::path(path.into(), why));
            }
        };
        if kind == EntryKind::Submodule {
            self.submodules.add(path);
        } else {
            let blob = self
                .objects
                .blob(&id)
                .ok_or(SnapshotError::Missing { what: "blob", id })?;
            self.bytes = self.bytes.saturating_add(blob.size);
            within(
                "the size of all files in bytes",
                self.bytes,
                "MAX_TREE_BYTES",
                self.limits.tree_bytes,
            )?;
        }
        if path::component(entry.filename, None, component::Options::default()).is_err() {
            self.windows_hostile.add(path);
        }
        // Git takes a link of that name for none.
        if entry.filename == ".gitattributes"
            && !matches!(kind, EntryKind::Symlink | EntryKind::Submodule)
        {
            self.attributes.push(self.entries.len());
        }
        self.path_bytes += path.len() as u64;
        let entries = u64::from(self.limits.entries);
        within(
            "the length of all paths in bytes",
            self.path_bytes,
            "MAX_ENTRIES",
            PATH_BYTES.saturating_add(entries.saturating_mul(PATH_BYTES_PER_ENTRY)),
        )?;
        self.entries.push(Entry {
            path: path.into(),
            kind,
            id,
        });
        within(
            "the number of files",
            self.entries.len() as u64,
            "MAX_ENTRIES",
            self.limits.entries.into(),
        )?;
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let say = |examples: &Examples, one: &str, many: &str| {
            let (count, which) = (examples.count, &examples.shown);
            match count {
                0 => None,
                1 => Some(format!("{which}: {one}")),
                _ => Some(format!("{count} {many}, such as {which}")),
            }
        };
        let warnings = [
            say(
                &self.submodules,
                "this submodule is an empty folder in the archive; fetch it in the build, or commit what is needed",
                "submodules are empty folders in the archive; fetch them in the build, or commit what is needed",
            ),
            say(
                &self.conversions.lfs_pointers,
                "this file is kept by Git LFS; the archive holds its pointer, not its content",
                "files are kept by Git LFS; the archive holds their pointers, not their content",
            ),
            say(
                &self.conversions.line_ends,
                "this file has other line ends in a checkout (eol=crlf in .gitattributes); the archive holds it as it is committed",
                "files have other line ends in a checkout (eol=crlf in .gitattributes); the archive holds them as they are committed",
            ),
            say(
                &self.conversions.encodings,
                "this file has another encoding in a checkout (working-tree-encoding in .gitattributes); the archive holds it in UTF-8",
                "files have another encoding in a checkout (working-tree-encoding in .gitattributes); the archive holds them in UTF-8",
            ),
            say(
                &self.conversions.idents,
                "a checkout puts an id into this file (ident in .gitattributes); the archive holds it as it is committed",
                "files get an id in a checkout (ident in .gitattributes); the archive holds them as they are committed",
            ),
            say(
                &self.conversions.filters,
                "this file goes through a filter in a checkout (filter in .gitattributes); the archive holds it as it is committed",
                "files go through a filter in a checkout (filter in .gitattributes); the archive holds them as they are committed",
            ),
            self.conversions.is_cut.then(|| {
                "the .gitattributes are too many or too large to be followed; a checkout may change more files".to_owned()
            }),
            say(
                &self.windows_hostile,
                "this name cannot be extracted on Windows",
                "names cannot be extracted on Windows",
            ),
            say(
                &self.twins,
                "this name differs from another one of its folder only in case, in the form of a letter, or in a dot at the end; \
                 on a disk that does not tell them apart (macOS, Windows), one takes the other's place",
                "names differ from another one of their folder only in case, in the form of a letter, or in a dot at the end; \
                 on a disk that does not tell them apart (macOS, Windows), one takes the other's place",
            ),
        ];
        warnings.into_iter().flatten().collect()
    }
}
