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
