//! Whether a zip is exactly what a delivery wrote: every header, every blob, and the tree that they make.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt};

use gix::{ObjectId, bstr::BString};

use super::{
    CHUNK, DELIVERY_ID_LEN, Delivered, PreviousError,
    previous::{End, Read, Record},
};
use crate::{
    limits::Limits,
    pack::{PackError, StockError},
    progress::Progress,
    push::CommitId,
    snapshot::Entry,
};

/// The digits of a commit's id.
const COMMIT_LEN: usize = 40;

/// A zip in which everything is as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The commit, as its comment says.
    pub commit: CommitId,
    /// The tree that its entries make.
    pub tree: ObjectId,
    /// Its entries, in Git's order.
    pub entries: Vec<Entry>,
}

/// What is not as a delivery wrote it.
#[derive(Debug, thiserror::Error)]
pub enum Difference {
    /// The comment does not say which commit it is.
    #[error(
        "it is no archive of backlog-bridge, or its end is missing: its comment names no commit"
    )]
    NoComment,
    /// The comment says something else than the object's metadata.
    #[error("its comment says {found}, and the metadata of the object {expected}")]
    Comment {
        /// Commit and delivery, as the comment has them.
        found: String,
        /// The same of the metadata.
        expected: String,
    },
    /// An entry's content is not what it is said to be.
    #[error("the entry {path:?} is another")]
    Entry {
        /// Its path.
        path: BString,
        /// What is wrong with it.
        source: StockError,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] PreviousError),
}

impl Difference {
    /// Whether it could not be read at all, or is nothing of ours.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        matches!(
            self,
            Self::NoComment
                | Self::Other(
                    PreviousError::Disk(_)
                        | PreviousError::Entries { .. }
                        | PreviousError::Stock(StockError::Pack(
                            PackError::Disk(_) | PackError::Limit(_)
                        ))
                )
        )
    }
}

/// Reads the zip in `file` from its first byte to its last. `metadata` is what its object's metadata says, if it has one.
///
/// Memory holds about a hundred bytes an entry, its path, and the trees.
///
/// # Errors
///
/// [`Difference`] names the first thing that is not as it was written.
pub fn verify(
    file: &File,
    metadata: Option<&Delivered>,
    limits: &Limits,
    progress: &Progress,
) -> Result<Verified, Difference> {
    let comment = comment(file)?;
    if let Some(Delivered {
        commit,
        delivery_id,
        ..
    }) = metadata
        && (*commit, delivery_id) != (comment.commit, &comment.delivery_id)
    {
        return Err(Difference::Comment {
            found: format!(
                "commit {}, delivery {}",
                comment.commit, comment.delivery_id
            ),
            expected: format!("commit {commit}, delivery {delivery_id}"),
        });
    }
    let Read {
        claims, end, tree, ..
    } = comment.read(file, limits)?;
    let (entries, copies) = list(file, &end)?;
    // What a blob is said to be is known, and where it stands: the path is what people look for.
    if let Err(source) = claims.verify(progress) {
        let StockError::Damaged { id, .. } = &source else {
            return Err(PreviousError::from(source).into());
        };
        let path = entries.iter().find(|(entry, _)| entry.id == *id);
        let path = path.map(|(entry, _)| entry.path.clone());
        let path = path.unwrap_or_default();
        return Err(Difference::Entry { path, source });
    }
    for Copy { at, first, bytes } in copies {
        if !are_equal(file, first, entries[at].1, bytes).map_err(PreviousError::Disk)? {
            let entry = &entries[at].0;
            let why = "it holds not the same bytes as the other entries of this blob".to_owned();
            let source = StockError::Damaged { id: entry.id, why };
            let path = entry.path.clone();
            return Err(Difference::Entry { path, source });
        }
    }
    let entries: Vec<_> = entries.into_iter().map(|(entry, _)| entry).collect();
    if let Some(Delivered { tree: expected, .. }) = metadata
        && *expected != tree
    {
        let (found, expected) = (tree, *expected);
        return Err(PreviousError::Tree { found, expected }.into());
    }
    Ok(Verified {
        commit: comment.commit,
        tree,
        entries,
    })
}

/// An entry whose blob another one before it has, too. A delivery writes the same bytes for both.
struct Copy {
    /// Its number.
    at: usize,
    /// Where the data of that other one begins.
    first: u64,
    /// The length of both.
    bytes: u64,
}

/// All entries, each with the offset of its data; and which of them are copies.
type List = (Vec<(Entry, u64)>, Vec<Copy>);

fn list(file: &File, end: &End) -> Result<List, PreviousError> {
    let mut directory = end.directory(file);
    let (mut entries, mut copies) = (Vec::new(), Vec::new());
    let mut known = HashMap::new();
    let mut offset = 0;
    for at in 0.. {
        if at as u64 == end.entries {
            break;
        }
        let record = Record::read(&mut directory)?;
        offset = record.check(file, offset, end.start)?;
        let bytes = record.payload.map_or(0, |payload| payload.deflated);
        let data = offset - bytes;
        if bytes > 0 {
            let first = *known.entry(record.entry.id).or_insert(data);
            if first != data {
                copies.push(Copy { at, first, bytes });
            }
        }
        entries.push((record.entry, data));
    }
    Ok((entries, copies))
}

/// Whether so many bytes are the same at two places.
fn are_equal(file: &File, mut one: u64, mut other: u64, mut bytes: u64) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    while bytes > 0 {
        let size = usize::try_from(bytes).map_or(CHUNK, |bytes| bytes.min(CHUNK));
        file.read_exact_at(&mut left[..size], one)?;
        file.read_exact_at(&mut right[..size], other)?;
        if left[..size] != right[..size] {
            return Ok(false);
        }
        let size = size as u64;
        (one, other, bytes) = (one + size, other + size, bytes - size);
    }
    Ok(true)
}

/// What the comment says, which is the last thing in a zip. Nothing of the tree is known from it.
fn comment(file: &File) -> Result<Delivered, Difference> {
    let mut comment = [0; COMMIT_LEN + 1 + DELIVERY_ID_LEN];
    let bytes = file.metadata().map_err(PreviousError::Disk)?.len();
    let start = bytes.checked_sub(comment.len() as u64);
    let start = start.ok_or(Difference::NoComment)?;
    file.read_exact_at(&mut comment, start)
        .map_err(PreviousError::Disk)?;
    let text = str::from_utf8(&comment).ok();
    let parts = text.and_then(|text| text.split_once('\n'));
    let parts = parts.filter(|(_, id)| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let parts = parts.and_then(|(commit, id)| Some((commit.parse().ok()?, id)));
    let (commit, delivery_id) = parts.ok_or(Difference::NoComment)?;
    Ok(Delivered {
        commit,
        tree: ObjectId::null(gix::hash::Kind::Sha1),
        delivery_id: delivery_id.to_owned(),
    })
}
