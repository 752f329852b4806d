//! Entries become trees again: what [`Snapshot::of`](super::Snapshot::of) does, the other way round.

use gix::{
    ObjectId,
    bstr::{BStr, BString, ByteSlice},
};

use super::Entry;

/// The folders from the root to the entry that came last. Each becomes a tree once an entry comes that is not in it.
///
/// Whether the entries came in Git's order, and each once, shows in the id of the root.
pub struct Folders {
    root: Vec<u8>,
    open: Vec<Folder>,
}

struct Folder {
    name: BString,
    /// Its tree, as far as its entries are known.
    tree: Vec<u8>,
}

impl Folders {
    /// An empty root.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Adds an entry. `hash` takes each tree that is complete, and says its id.
    ///
    /// # Errors
    ///
    /// What `hash` returns.
    pub fn add<E>(
        &mut self,
        entry: &Entry,
        mut hash: impl FnMut(Vec<u8>) -> Result<ObjectId, E>,
    ) -> Result<(), E> {
        let mut names: Vec<&[u8]> = entry.path.split(|&byte| byte == b'/').collect();
        let name = names.pop().unwrap_or_default();
        let pairs = self.open.iter().zip(&names);
        let common = pairs.take_while(|(open, name)| open.name == **name).count();
        self.close(common, &mut hash)?;
        self.open.extend(names[common..].iter().map(|&name| Folder {
            name: name.into(),
            tree: Vec::new(),
        }));
        let tree = self.open.last_mut().map(|folder| &mut folder.tree);
        let tree = tree.unwrap_or(&mut self.root);
        write(tree, entry.kind.git_mode(), name.as_bstr(), &entry.id);
        Ok(())
    }

    /// The id of the root, after the last entry.
    ///
    /// # Errors
    ///
    /// What `hash` returns.
    pub fn finish<E>(
        mut self,
        mut hash: impl FnMut(Vec<u8>) -> Result<ObjectId, E>,
    ) -> Result<ObjectId, E> {
        self.close(0, &mut hash)?;
        hash(self.root)
    }

    /// Closes all folders but the first `kept`.
    fn close<E>(
        &mut self,
        kept: usize,
        hash: &mut impl FnMut(Vec<u8>) -> Result<ObjectId, E>,
    ) -> Result<(), E> {
        const FOLDER: u32 = 0o040_000;
        while self.open.len() > kept
            && let Some(Folder { name, tree }) = self.open.pop()
        {
            let id = hash(tree)?;
            let parent = self.open.last_mut().map(|folder| &mut folder.tree);
            write(
                parent.unwrap_or(&mut self.root),
                FOLDER,
                name.as_bstr(),
                &id,
            );
        }
        Ok(())
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self::new()
    }
}

fn write(tree: &mut Vec<u8>, mode: u32, name: &BStr, id: &ObjectId) {
    tree.extend_from_slice(format!("{mode:o} ").as_bytes());
    tree.extend_from_slice(name);
    tree.push(0);
    tree.extend_from_slice(id.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use gix::objs::Kind;

    use super::{super::EntryKind, *};

    fn root_of(entries: &[(&str, EntryKind)]) -> (ObjectId, usize) {
        let mut trees = 0;
        let mut hash = |bytes: Vec<u8>| {
            trees += 1;
            let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Tree, &bytes);
            Ok::<_, Infallible>(id.unwrap())
        };
        let mut folders = Folders::new();
        for (path, kind) in entries {
            let entry = Entry {
                path: (*path).into(),
                kind: *kind,
                // The empty blob.
                id: ObjectId::empty_blob(gix::hash::Kind::Sha1),
            };
            folders.add(&entry, &mut hash).unwrap();
        }
        let root = folders.finish(&mut hash).unwrap();
        (root, trees)
    }

    /// The ids are those that `git update-index --add --cacheinfo` and `git write-tree` give.
    #[test]
    fn trees_are_those_that_git_writes() {
        use EntryKind::{Executable, File, Submodule, Symlink};
        type Case<'a> = (&'a str, &'a [(&'a str, EntryKind)], &'a str, usize);
        let cases: &[Case<'_>] = &[
            (
                "nothing",
                &[],
                "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
                1,
            ),
            (
                "every kind",
                &[
                    ("f", File),
                    ("l", Symlink),
                    ("s", Submodule),
                    ("x", Executable),
                ],
                "7897c99aa384ff233c47e05963693cb81783bc25",
                1,
            ),
            (
                "folders",
                &[
                    ("a/b/c", File),
                    ("a/b/d", File),
                    ("a/e", File),
                    ("a/f/g/h", File),
                    ("i", File),
                    ("j/k", File),
                ],
                "36651505a3df112479c106905fed7f4cb4a8139a",
                6,
            ),
            (
                "names that begin alike",
                &[("a-b", File), ("a.b", File), ("a/b", File), ("ab/c", File)],
                "441b3d12d13c276e9234ca75b957965811ed1a3e",
                3,
            ),
        ];
        for (case, entries, expected, trees) in cases {
            let (root, found) = root_of(entries);
            assert_eq!(root.to_string(), *expected, "{case}");
            assert_eq!(found, *trees, "{case}");
        }
    }

    #[test]
    fn another_order_is_another_tree() {
        use EntryKind::File;
        let right = root_of(&[("a/b", File), ("a/c", File), ("d", File)]);
        for (case, entries) in [
            (
                "a folder twice",
                &[("a/b", File), ("d", File), ("a/c", File)],
            ),
            (
                "names the other way round",
                &[("a/c", File), ("a/b", File), ("d", File)],
            ),
            (
                "an empty name",
                &[("a/b", File), ("a/c", File), ("/d", File)],
            ),
        ] {
            assert_ne!(root_of(entries).0, right.0, "{case}");
        }
    }
}
