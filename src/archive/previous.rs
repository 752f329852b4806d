//! The archive of an earlier delivery, read back: its blobs and, made of paths, modes and ids, its trees.
//!
//! It comes from a bucket, so it is believed only as far as it is exactly what this program writes. Each header is made
//! again from what it says and compared byte for byte, each entry begins where the one before ends, and nothing may be left
//! over: no sizes that lie, no entries that overlap, no room for anything else. That is why the `zip` crate is not asked; it
//! is lenient, and it holds several times more of each entry in memory.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
};

use gix::{ObjectId, bstr::BString};

use super::{
    DELIVERY_ID_LEN, comment,
    header::{
        self, CENTRAL_LEN, END_LEN, END_ZIP64_LEN, GIT_FIELD, GIT_FIELD_LEN, Headers, Payload,
        SEE_ZIP64,
    },
};
use crate::{
    config::Limits,
    pack::{Claim, Claims, Stock, StockError},
    progress::Progress,
    push::CommitId,
    snapshot::{Entry, EntryKind, Folders, MAX_PATH_BYTES},
};

/// Bytes of the directory that are read at a time.
const CHUNK: usize = 64 * 1024;

/// Our extra field with its id and its length, which are two bytes each.
const GIT_EXTRA_LEN: usize = 4 + GIT_FIELD_LEN as usize;

/// Why an archive is of no use to the next delivery.
#[derive(Debug, thiserror::Error)]
pub enum PreviousError {
    /// The archive is not as this version of the program writes it: foreign, older, or damaged.
    #[error("the archive is not as this version of backlog-bridge writes it: {0}")]
    Foreign(String),
    /// It has more entries than allowed.
    #[error("the archive has {entries} entries, more than MAX_ENTRIES allows")]
    Entries {
        /// How many.
        entries: u64,
    },
    /// Paths, modes and blobs make another tree than the one that was delivered.
    #[error("the archive holds the tree {found}, not {expected}")]
    Tree {
        /// The tree that its entries make.
        found: ObjectId,
        /// The tree that its metadata names.
        expected: ObjectId,
    },
    /// A blob is damaged, or a limit is exceeded.
    #[error("the archive cannot be used again")]
    Stock(#[from] StockError),
    /// The temporary file cannot be read.
    #[error("cannot read a temporary file in {}", std::env::temp_dir().display())]
    Disk(#[source] io::Error),
}

/// What an object's metadata says of its archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The commit.
    pub commit: CommitId,
    /// The commit's tree.
    pub tree: ObjectId,
    /// Which delivery wrote it.
    pub delivery_id: String,
}

impl Delivered {
    /// Reads the objects back from the archive in `file`, and compares each with its id.
    ///
    /// Memory holds about a hundred bytes an entry, and the trees.
    ///
    /// # Errors
    ///
    /// [`PreviousError`] if anything in it is not exactly as it was written. Nothing of such an archive may be used.
    pub fn stock(
        &self,
        file: &File,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<Stock, PreviousError> {
        let End {
            entries,
            start,
            size,
        } = self.end(file)?;
        if entries > limits.entries.into() {
            return Err(PreviousError::Entries { entries });
        }
        let expected = usize::try_from(entries).map_err(PreviousError::foreign)?;
        let read = file.try_clone().map_err(PreviousError::Disk)?;
        let mut claims = Claims::new(read, expected, limits);
        let mut folders = Folders::new();
        let section = Section {
            file,
            offset: start,
            end: start + size,
        };
        let mut directory = BufReader::with_capacity(CHUNK, section);
        let mut offset = 0;
        for _ in 0..entries {
            let member = Member::read(&mut directory, file, offset, start)?;
            folders.add(&member.entry, |tree| claims.add_tree(tree))?;
            if member.entry.kind != EntryKind::Submodule {
                let Payload {
                    size,
                    deflated,
                    crc32,
                } = member.payload.unwrap_or(Payload::NOTHING);
                claims.add_blob(&Claim {
                    id: member.entry.id,
                    size,
                    crc32,
                    offset: member.end - deflated,
                    deflated,
                })?;
            }
            offset = member.end;
        }
        let left = directory.read(&mut [0]).map_err(PreviousError::Disk)?;
        if offset != start || left > 0 {
            return Err(PreviousError::foreign("there is more than its entries"));
        }
        let found = folders.finish(|tree| claims.add_tree(tree))?;
        if found != self.tree {
            let expected = self.tree;
            return Err(PreviousError::Tree { found, expected });
        }
        Ok(claims.verify(progress)?)
    }

    /// Finds the end, which is the first thing that must be as it was written.
    fn end(&self, file: &File) -> Result<End, PreviousError> {
        if self.delivery_id.len() != DELIVERY_ID_LEN {
            return Err(PreviousError::foreign("its delivery id has another length"));
        }
        let bytes = file.metadata().map_err(PreviousError::Disk)?.len();
        let comment = comment(self.commit, &self.delivery_id);
        let at_end = |length: usize| -> Result<Vec<u8>, PreviousError> {
            let too_short = || PreviousError::foreign("it ends early");
            let offset = bytes.checked_sub(length as u64).ok_or_else(too_short)?;
            let mut tail = vec![0; length];
            file.read_exact_at(&mut tail, offset)
                .map_err(PreviousError::Disk)?;
            Ok(tail)
        };
        let tail = at_end(END_LEN + comment.len())?;
        let end = if u16_at(&tail, 10) == u16::MAX
            || u32_at(&tail, 12) == SEE_ZIP64
            || u32_at(&tail, 16) == SEE_ZIP64
        {
            let tail = at_end(END_ZIP64_LEN + END_LEN + comment.len())?;
            End {
                entries: u64_at(&tail, 32),
                size: u64_at(&tail, 40),
                start: u64_at(&tail, 48),
            }
        } else {
            End {
                entries: u16_at(&tail, 10).into(),
                size: u32_at(&tail, 12).into(),
                start: u32_at(&tail, 16).into(),
            }
        };
        let foreign = || PreviousError::foreign("its end is another");
        let length = end.start.checked_add(end.size);
        let length = length.filter(|&length| length <= bytes);
        let length = length.ok_or_else(foreign)?;
        let expected = header::end(end.entries, end.size, end.start, &comment);
        if bytes - length != expected.len() as u64 || at_end(expected.len())? != expected {
            return Err(foreign());
        }
        Ok(end)
    }
}

impl PreviousError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors and texts are made for it"
    )]
    fn foreign(why: impl ToString) -> Self {
        Self::Foreign(why.to_string())
    }
}

/// What the end says of the central directory. Offsets and sizes are in bytes, and lie within the file.
struct End {
    entries: u64,
    start: u64,
    size: u64,
}

/// An entry whose headers are as this program writes them.
struct Member {
    entry: Entry,
    payload: Option<Payload>,
    /// Where its data ends.
    end: u64,
}

impl Member {
    /// Reads the next entry of `directory`, whose local header must be at `offset` and whose data must end at `most`.
    fn read(
        directory: &mut impl Read,
        file: &File,
        offset: u64,
        most: u64,
    ) -> Result<Self, PreviousError> {
        let early = |err: io::Error| match err.kind() {
            io::ErrorKind::UnexpectedEof => PreviousError::foreign("its directory ends early"),
            _ => PreviousError::Disk(err),
        };
        let mut central = vec![0; CENTRAL_LEN];
        directory.read_exact(&mut central).map_err(early)?;
        let name_len = usize::from(u16_at(&central, 28));
        let extra_len = usize::from(u16_at(&central, 30));
        // A submodule's name has a slash more than its path.
        if name_len > MAX_PATH_BYTES + 1 {
            return Err(PreviousError::foreign("a path is too long"));
        }
        central.resize(CENTRAL_LEN + name_len + extra_len, 0);
        directory
            .read_exact(&mut central[CENTRAL_LEN..])
            .map_err(early)?;
        let (name, extra) = central[CENTRAL_LEN..].split_at(name_len);

        let git = extra
            .len()
            .checked_sub(GIT_EXTRA_LEN)
            .map(|at| &extra[at..]);
        let git = git.filter(|git| u16_at(git, 0) == GIT_FIELD && u16_at(git, 2) == GIT_FIELD_LEN);
        let git =
            git.ok_or_else(|| PreviousError::foreign("an entry does not say its Git object"))?;
        let kind = EntryKind::from_git_mode(u32_at(git, 4))
            .ok_or_else(|| PreviousError::foreign("an entry has a mode that Git does not know"))?;
        let path = match kind {
            EntryKind::Submodule => name.strip_suffix(b"/").unwrap_or(name),
            _ => name,
        };
        let entry = Entry {
            path: BString::from(path),
            kind,
            id: ObjectId::from_bytes_or_panic(&git[8..]),
        };
        let (deflated, size) = (u32_at(&central, 20), u32_at(&central, 24));
        // The zip64 field, if there is one, is the first.
        let is_large = size == SEE_ZIP64 && extra.len() >= GIT_EXTRA_LEN + 20;
        let payload = Payload {
            size: if is_large {
                u64_at(extra, 4)
            } else {
                size.into()
            },
            deflated: if is_large {
                u64_at(extra, 12)
            } else {
                deflated.into()
            },
            crc32: u32_at(&central, 16),
        };
        let payload = (payload != Payload::NOTHING).then_some(payload);

        let another =
            || PreviousError::foreign(format_args!("the header of {:?} is another", entry.path));
        let headers = Headers::of(&entry, payload, offset);
        if headers.central != central {
            return Err(another());
        }
        let data = offset + headers.local.len() as u64;
        let deflated = payload.map_or(0, |payload| payload.deflated);
        let end = data.checked_add(deflated).filter(|&end| end <= most);
        let end =
            end.ok_or_else(|| PreviousError::foreign("an entry reaches into the directory"))?;
        let mut local = vec![0; headers.local.len()];
        file.read_exact_at(&mut local, offset)
            .map_err(PreviousError::Disk)?;
        if headers.local != local {
            return Err(another());
        }
        Ok(Self {
            entry,
            payload,
            end,
        })
    }
}

/// A part of a file, read from its beginning to its end without moving the file's own position.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
