//! The archive of an earlier delivery, read back: its blobs and, made of paths, modes and ids, its trees.
//!
//! It comes from a bucket, so it is believed only as far as it is exactly what this program writes. Each header is made
//! again from what it says and compared byte for byte, each entry begins where the one before ends, and nothing may be left
//! over: no sizes that lie, no entries that overlap, no room for anything else. That is why the `zip` crate is not asked; it
//! is lenient, and it holds several times more of each entry in memory.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    os::unix::fs::FileExt,
    sync::Arc,
};

use gix::{
    ObjectId,
    bstr::{BString, ByteSlice},
};

use super::{
    DELIVERY_ID_LEN, comment,
    header::{
        self, CENTRAL_LEN, END_LEN, END_ZIP64_LEN, EntryHeaders, GIT_FIELD, GIT_FIELD_LEN,
        IS_MODIFIED, NO_TIME, Payload, SEE_ZIP64, TIME_EXTRA_LEN, TIME_FIELD, TIME_FIELD_LEN,
    },
    times::{Modified, Times},
};
use crate::{
    limits::Limits,
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
    /// Reads the objects back from the archive in `file`, and compares each with its id; and the times of its entries.
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
    ) -> Result<(Stock, Times), PreviousError> {
        let Read {
            claims,
            end,
            tree: found,
            newest,
        } = self.read(file, limits)?;
        if found != self.tree {
            let expected = self.tree;
            return Err(PreviousError::Tree { found, expected });
        }
        let stock = claims.verify(progress)?;
        let mut copy = tempfile::tempfile().map_err(PreviousError::Disk)?;
        io::copy(&mut end.directory(file), &mut copy).map_err(PreviousError::Disk)?;
        let times = Times {
            directory: Arc::new(copy),
            entries: end.entries,
            newest,
        };
        Ok((stock, times))
    }

    /// Reads all but the contents: every header is as it was written, and what it says is put together.
    pub(super) fn read<'a>(
        &self,
        file: &File,
        limits: &'a Limits,
    ) -> Result<Read<'a>, PreviousError> {
        let end = self.end(file)?;
        let End { entries, start, .. } = end;
        if entries > limits.entries.into() {
            return Err(PreviousError::Entries { entries });
        }
        let expected = usize::try_from(entries).map_err(PreviousError::foreign)?;
        let read = file.try_clone().map_err(PreviousError::Disk)?;
        let mut claims = Claims::new(read, expected, limits);
        let mut folders = Folders::new();
        let mut directory = end.directory(file);
        let mut offset = 0;
        // An entry without a time is before all others.
        let (mut oldest, mut newest) = (Some(Modified::LAST), None);
        for _ in 0..entries {
            let record = Record::read(&mut directory)?;
            let data_end = record.check(file, offset, start)?;
            let Record {
                entry,
                payload,
                modified,
                ..
            } = record;
            folders.add(&entry, |tree| claims.add_tree(tree))?;
            if entry.kind != EntryKind::Submodule {
                let Payload {
                    size,
                    deflated,
                    crc32,
                } = payload.unwrap_or(Payload::NOTHING);
                claims.add_blob(&Claim {
                    id: entry.id,
                    size,
                    crc32,
                    offset: data_end - deflated,
                    deflated,
                })?;
            }
            oldest = oldest.min(modified);
            newest = newest.max(modified);
            offset = data_end;
        }
        let left = directory.read(&mut [0]).map_err(PreviousError::Disk)?;
        if offset != start || left > 0 {
            return Err(PreviousError::foreign("there is more than its entries"));
        }
        let tree = folders.finish(|tree| claims.add_tree(tree))?;
        drop(directory);
        Ok(Read {
            claims,
            end,
            tree,
            newest: oldest.and(newest),
        })
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

/// An archive of which all is known but whether its blobs are what they are said to be.
pub(super) struct Read<'a> {
    pub(super) claims: Claims<'a>,
    pub(super) end: End,
    /// The tree that its entries make.
    pub(super) tree: ObjectId,
    /// The newest time of an entry; `None` if there is one without.
    newest: Option<Modified>,
}

/// What the end says of the central directory. Offsets and sizes are in bytes, and lie within the file.
pub(super) struct End {
    pub(super) entries: u64,
    /// Where it begins, and the last entry's data ends.
    pub(super) start: u64,
    size: u64,
}

impl End {
    /// The directory, from its first entry to its last.
    pub(super) fn directory<'a>(&self, file: &'a File) -> impl io::Read + use<'a> {
        let section = Section {
            file,
            offset: self.start,
            end: self.start + self.size,
        };
        BufReader::with_capacity(CHUNK, section)
    }
}

/// A copy of a directory, from its first entry on.
pub(super) fn from_start(file: &File) -> impl io::Read {
    let section = Section {
        file,
        offset: 0,
        end: u64::MAX,
    };
    BufReader::with_capacity(CHUNK, section)
}

/// What the directory says of an entry.
pub(super) struct Record {
    pub(super) entry: Entry,
    pub(super) payload: Option<Payload>,
    /// `None` in what version 0.1 wrote.
    pub(super) modified: Option<Modified>,
    /// As it was read.
    bytes: Vec<u8>,
}

impl Record {
    /// Reads the next entry of `directory`.
    pub(super) fn read(directory: &mut impl io::Read) -> Result<Self, PreviousError> {
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
        Self::parse(central, name_len)
    }

    /// Takes an entry of the directory apart, whose name has so many bytes.
    fn parse(central: Vec<u8>, name_len: usize) -> Result<Self, PreviousError> {
        let (name, extra) = central[CENTRAL_LEN..].split_at(name_len);
        let from_end = |len: usize| Some(&extra[extra.len().checked_sub(len)?..]);
        let git = from_end(GIT_EXTRA_LEN)
            .filter(|git| u16_at(git, 0) == GIT_FIELD && u16_at(git, 2) == GIT_FIELD_LEN)
            .ok_or_else(|| of_entry(name, "it does not say its Git object"))?;
        let kind = EntryKind::from_git_mode(u32_at(git, 4)).ok_or_else(|| {
            let why = format!(
                "it has the mode {:o}, which Git does not know",
                u32_at(git, 4)
            );
            of_entry(name, why)
        })?;
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
        let (size, deflated) = if is_large {
            (u64_at(extra, 4), u64_at(extra, 12))
        } else {
            (size.into(), deflated.into())
        };
        let crc32 = u32_at(&central, 16);
        let payload = Payload {
            size,
            deflated,
            crc32,
        };
        let dos = [12, 13, 14, 15].map(|at| central[at]);
        let unix = from_end(GIT_EXTRA_LEN + TIME_EXTRA_LEN)
            .filter(|time| u16_at(time, 0) == TIME_FIELD && u16_at(time, 2) == TIME_FIELD_LEN)
            .filter(|time| time[4] == IS_MODIFIED)
            .map(|time| u32_at(time, 5).cast_signed());
        let modified = if unix.is_none() && dos == NO_TIME {
            None
        } else {
            let wrong = || of_entry(name, "it has a time that there is not");
            Some(Modified::read(dos, unix).ok_or_else(wrong)?)
        };
        Ok(Self {
            entry,
            payload: (payload != Payload::NOTHING).then_some(payload),
            modified,
            bytes: central,
        })
    }

    /// Compares all that is said of the entry with what this program writes, its local header at `offset` in `file`
    /// included, and says where its data ends: at `most` at the latest.
    pub(super) fn check(&self, file: &File, offset: u64, most: u64) -> Result<u64, PreviousError> {
        let Self { entry, payload, .. } = self;
        let name = entry.path.as_slice();
        let headers = EntryHeaders::of(entry, *payload, offset, self.modified);
        let central = headers.central();
        if central != self.bytes {
            return Err(another(name, "in the directory", &self.bytes, &central));
        }
        let expected = headers.local();
        let data = offset + headers.local_len() as u64;
        let deflated = payload.map_or(0, |payload| payload.deflated);
        let end = data.checked_add(deflated).filter(|&end| end <= most);
        let end = end.ok_or_else(|| of_entry(name, "it reaches into the directory"))?;
        let mut local = vec![0; expected.len()];
        file.read_exact_at(&mut local, offset)
            .map_err(PreviousError::Disk)?;
        if local != expected {
            return Err(another(name, "before the data", &local, &expected));
        }
        Ok(end)
    }
}

/// What is wrong with the entry of this name.
fn of_entry(name: &[u8], why: impl std::fmt::Display) -> PreviousError {
    let name = name.as_bstr();
    PreviousError::foreign(format_args!("the entry {name:?}: {why}"))
}

/// That the header in the directory, or before the data, is not what follows from what the directory says.
fn another(name: &[u8], place: &str, found: &[u8], expected: &[u8]) -> PreviousError {
    let pairs = found.iter().zip(expected);
    let at = pairs
        .take_while(|(found, expected)| found == expected)
        .count();
    let why = match (found.get(at), expected.get(at)) {
        (Some(found), Some(expected)) => format!(
            "its header {place} is another: by the directory, its byte {at} should be 0x{expected:02x}, and it is 0x{found:02x}"
        ),
        _ => format!("its header {place} has another length"),
    };
    of_entry(name, why)
}

/// A part of a file, read from its beginning to its end without moving the file's own position.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl io::Read for Section<'_> {
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io::Write};

    use flate2::{Compression, write::DeflateEncoder};
    use gix::objs::Kind;

    use super::*;

    const NOW: i64 = 1_795_995_266;
    const DELIVERY_ID: &str = "0123456789abcdef0123456789abcdef";

    /// A zip in the making, which is as the program writes it unless a test says otherwise.
    #[derive(Default)]
    struct Zip {
        /// The time of the entries that are added; none is what version 0.1 wrote.
        time: Option<Modified>,
        bytes: Vec<u8>,
        directory: Vec<u8>,
        entries: Vec<Entry>,
    }

    impl Zip {
        fn of(files: &[(&str, EntryKind, &[u8])]) -> Self {
            let mut zip = Self {
                time: Some(Modified::at(NOW)),
                ..Self::default()
            };
            for (path, kind, content) in files {
                zip.add(path, *kind, content);
            }
            zip
        }

        fn add(&mut self, path: &str, kind: EntryKind, content: &[u8]) {
            let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, content).unwrap();
            let path = path.into();
            let entry = Entry { path, kind, id };
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(content).unwrap();
            let stream = encoder.finish().unwrap();
            let payload = (!content.is_empty()).then(|| Payload {
                size: content.len() as u64,
                deflated: stream.len() as u64,
                crc32: crc32fast::hash(content),
            });
            self.push(entry, payload, &stream);
        }

        fn push(&mut self, entry: Entry, payload: Option<Payload>, stream: &[u8]) {
            let headers = EntryHeaders::of(&entry, payload, self.bytes.len() as u64, self.time);
            self.bytes.extend(headers.local());
            if payload.is_some() {
                self.bytes.extend(stream);
            }
            self.directory.extend(headers.central());
            self.entries.push(entry);
        }

        fn delivered(&self) -> Delivered {
            let hash = |tree: Vec<u8>| {
                let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Tree, &tree);
                Ok::<_, Infallible>(id.unwrap())
            };
            let mut folders = Folders::new();
            for entry in &self.entries {
                folders.add(entry, hash).unwrap();
            }
            Delivered {
                commit: "ab".repeat(20).parse().unwrap(),
                tree: folders.finish(hash).unwrap(),
                delivery_id: DELIVERY_ID.into(),
            }
        }

        fn finish(&self) -> Vec<u8> {
            let (count, size) = (self.entries.len() as u64, self.directory.len() as u64);
            self.finish_as(count, size, self.bytes.len() as u64)
        }

        fn finish_as(&self, entries: u64, size: u64, start: u64) -> Vec<u8> {
            let comment = comment(self.delivered().commit, DELIVERY_ID);
            let end = header::end(entries, size, start, &comment);
            [&self.bytes[..], &self.directory, &end].concat()
        }
    }

    /// Reads a zip, and says which is the newest time in it.
    fn read_times(delivered: &Delivered, bytes: &[u8]) -> Result<Option<Modified>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        match delivered.stock(&file, &Limits::default(), &Progress::default()) {
            Ok((_, times)) => Ok(times.newest),
            Err(err) => Err(crate::error::chain(&err)),
        }
    }

    fn read(delivered: &Delivered, bytes: &[u8]) -> Result<(), String> {
        read_times(delivered, bytes).map(drop)
    }

    fn sample() -> Zip {
        Zip::of(&[
            ("README.md", EntryKind::File, b"# web"),
            ("empty", EntryKind::File, b""),
            ("run.sh", EntryKind::Executable, b"#!/bin/sh"),
            ("src/a", EntryKind::Symlink, b"b"),
            ("src/lib", EntryKind::Submodule, b""),
            ("\u{8a2d}\u{8a08}/x", EntryKind::File, b"x"),
        ])
    }

    #[test]
    fn what_was_written_is_read() {
        for zip in [sample(), Zip::default()] {
            assert_eq!(read(&zip.delivered(), &zip.finish()), Ok(()));
        }
    }

    #[test]
    fn times_are_of_use_if_every_entry_has_one() {
        let some = Some(Modified::at(NOW));
        let later = Some(Modified::at(NOW + 2));
        let far = Some(Modified::at(1 << 32));
        for (case, times, newest) in [
            ("one", &[some][..], some),
            ("the newest", &[some, later, some], later),
            ("after 2038", &[some, far], far),
            ("0.1", &[None, None], None),
            ("one without", &[some, None, later], None),
            ("nothing", &[], None),
        ] {
            let mut zip = Zip::default();
            for (n, time) in times.iter().enumerate() {
                zip.time = *time;
                zip.add(&n.to_string(), EntryKind::File, b"a");
            }
            let found = read_times(&zip.delivered(), &zip.finish());
            assert_eq!(found, Ok(newest), "{case}");
        }
    }

    #[test]
    fn times_that_are_not_as_they_are_written_are_refused() {
        let zip = Zip::of(&[("a", EntryKind::File, b"a")]);
        let (delivered, bytes) = (zip.delivered(), zip.finish());
        let fields: Vec<_> = bytes
            .windows(4)
            .enumerate()
            .filter_map(|(at, field)| (field == b"UT\x05\0").then_some(at))
            .collect();
        assert_eq!(fields.len(), 2, "in both headers");
        for (case, offset, byte) in [
            ("an odd second", 5, bytes[fields[0] + 5] + 1),
            ("another time", 6, bytes[fields[0] + 6] + 1),
            ("more than the one time", 4, 3),
            ("another field", 0, b'u'),
        ] {
            let mut altered = bytes.clone();
            for at in &fields {
                altered[at + offset] = byte;
            }
            let error = read(&delivered, &altered).expect_err(case);
            assert!(error.contains("header"), "{case}: {error}");
        }
    }

    #[test]
    fn no_byte_may_be_another() {
        let zip = sample();
        let (delivered, bytes) = (zip.delivered(), zip.finish());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[at] ^= 1 << bit;
                if read(&delivered, &altered).is_ok() {
                    // The last bits of a deflate stream may mean nothing.
                    let next = &altered[at + 1..];
                    assert!(next.starts_with(b"PK"), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn no_byte_may_be_missing_or_too_much() {
        let zip = sample();
        let (delivered, bytes) = (zip.delivered(), zip.finish());
        for at in 0..bytes.len() {
            assert!(read(&delivered, &bytes[..at]).is_err(), "cut at {at}");
            assert!(read(&delivered, &bytes[at + 1..]).is_err(), "from {at}");
            let mut more = bytes.clone();
            more.insert(at, 0);
            assert!(read(&delivered, &more).is_err(), "more at {at}");
        }
    }

    #[test]
    fn no_end_may_lie() {
        let zip = sample();
        let delivered = zip.delivered();
        let (count, size, start) = (6, zip.directory.len() as u64, zip.bytes.len() as u64);
        assert_eq!(read(&delivered, &zip.finish_as(count, size, start)), Ok(()));
        for (case, count, size, start) in [
            ("fewer entries", 5, size, start),
            ("more entries", 7, size, start),
            (
                "as many as there can be",
                u64::from(u16::MAX) - 1,
                size,
                start,
            ),
            ("more than are allowed", 1 << 60, size, start),
            ("zip64 without need", count, size, u64::from(u32::MAX)),
            ("a directory of another size", count, size - 1, start + 1),
            ("a directory elsewhere", count, size, start - 1),
            ("a directory behind the end", count, size, start + 10_000),
            ("a sum beyond all numbers", count, 1 << 62, (1 << 62) * 2),
        ] {
            let bytes = zip.finish_as(count, size, start);
            assert!(read(&delivered, &bytes).is_err(), "{case}");
        }
    }

    #[test]
    fn no_entry_may_reach_into_another_or_leave_a_gap() {
        let inner = sample();
        let first = inner.directory.len() / 2;
        // Two entries of the directory for one place.
        let mut overlap = Zip::of(&[("a", EntryKind::File, b"a"), ("b", EntryKind::File, b"b")]);
        let entry = overlap.directory.len() / 2;
        let copy = overlap.directory[..entry].to_vec();
        overlap.directory[entry..].copy_from_slice(&copy);
        let mut gap = Zip::of(&[("a", EntryKind::File, b"a")]);
        gap.bytes.push(0);
        gap.add("b", EntryKind::File, b"b");
        let mut tail = Zip::of(&[("a", EntryKind::File, b"a")]);
        tail.bytes.push(0);
        let mut more = sample();
        more.directory.extend_from_slice(&inner.directory[..first]);
        let mut far = Zip::default();
        let huge = Payload {
            size: 5 << 30,
            deflated: 5 << 30,
            crc32: 0,
        };
        let id = ObjectId::empty_blob(gix::hash::Kind::Sha1);
        let (path, kind) = ("far".into(), EntryKind::File);
        far.push(Entry { path, kind, id }, Some(huge), b"short");
        let mut wrapping = Zip::default();
        let most = Payload {
            size: u64::MAX,
            deflated: u64::MAX,
            crc32: 0,
        };
        let path = "wrapping".into();
        wrapping.push(Entry { path, kind, id }, Some(most), b"short");
        let reaches = "reaches into the directory";
        for (case, zip, says) in [
            ("overlap", overlap, "header"),
            ("a gap", gap, "header"),
            ("a gap at the end", tail, "more than its entries"),
            ("a longer directory", more, "more than its entries"),
            ("data of 5 GiB that is not there", far, reaches),
            ("data without end", wrapping, reaches),
        ] {
            let text = read(&zip.delivered(), &zip.finish()).expect_err(case);
            assert!(text.contains(says), "{case}: {text}");
        }
    }

    #[test]
    fn odd_names_are_read_as_they_are_or_not_at_all() {
        let long = "n".repeat(MAX_PATH_BYTES);
        let too_long = "n".repeat(MAX_PATH_BYTES + 2);
        for (path, is_read) in [
            ("a/b", true),
            ("../a", true), // A tree may say so. It is the snapshot that refuses it.
            ("/", true),
            ("", true),
            (long.as_str(), true),
            (too_long.as_str(), false),
        ] {
            let zip = Zip::of(&[(path, EntryKind::File, b"a")]);
            let result = read(&zip.delivered(), &zip.finish());
            assert_eq!(result.is_ok(), is_read, "{path:.20}: {result:?}");
        }
    }

    #[test]
    fn a_zip_of_more_than_65535_entries_is_read_and_limits_hold_for_it() {
        let mut zip = Zip::default();
        for n in 0..70_000 {
            zip.add(&format!("{n:05}"), EntryKind::File, b"");
        }
        let delivered = zip.delivered();
        let bytes = zip.finish();
        assert_eq!(read(&delivered, &bytes), Ok(()));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let limits = Limits {
            entries: 69_999,
            ..Limits::default()
        };
        let result = delivered.stock(&file, &limits, &Progress::default());
        let entries = 70_000;
        assert!(
            matches!(result, Err(PreviousError::Entries { entries: found }) if found == entries)
        );
    }

    #[test]
    fn many_deep_folders_end_at_the_limit() {
        let mut zip = Zip::default();
        for n in 0..400 {
            let path = format!("{n:03}/{}", "a/".repeat(1000));
            zip.add(&path, EntryKind::File, b"");
        }
        let text = read(&zip.delivered(), &zip.finish()).unwrap_err();
        assert!(text.contains("MAX_ENTRIES"), "{text}");
    }
}
