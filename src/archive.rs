//! A snapshot becomes a zip: headers around the deflate streams that the pack already has.
//!
//! An own writer, since all sizes and checksums are known beforehand and no crate takes them: sizes stand in the local
//! headers (Java's `ZipInputStream` needs them there), names are bytes exactly as committed, the UTF-8 flag is set where
//! it is true. The `zip` crate reads every archive once more before it is uploaded.
//!
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

mod contents;
mod header;
mod previous;
mod times;
mod verify;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    sync::{
        Arc,
        mpsc::{channel, sync_channel},
    },
    thread,
};

use gix::bstr::ByteSlice;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

pub use self::contents::Reader;
use self::{
    contents::Contents,
    header::{EntryHeaders, Payload},
    times::Modified,
};
pub use self::{
    header::GIT_FIELD,
    previous::{Delivered, PreviousError},
    times::{Dates, Times},
    verify::{Difference, Verified, verify},
};
use crate::{
    pack::{Blob, Extent, Objects},
    progress::Progress,
    push::CommitId,
    snapshot::{Entry, EntryKind},
};

/// Bytes that are read or written at a time.
const CHUNK: usize = 128 * 1024;

/// How many chunks may wait to be hashed.
const WAITING: usize = 4;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The temporary file cannot be written or read.
    #[error("cannot use a temporary file in {}", std::env::temp_dir().display())]
    Disk(#[source] io::Error),
    /// The archive does not read as it was written.
    #[error("the archive does not read as it was written: {0}")]
    Reread(String),
    /// The work was stopped from outside.
    #[error("stopped")]
    Stopped,
}

/// A zip, complete and read once more.
#[derive(Debug)]
pub struct Archive {
    contents: Arc<Contents>,
    /// The number of entries.
    pub entries: usize,
    /// The SHA-256 of all its bytes.
    pub sha256: [u8; 32],
    /// The same of all bytes but the delivery id, which are the last ones.
    unstamped: Sha256,
}

/// The numbers of an archive's files; those of [`Objects::into_files`] are the last.
const LOCAL_HEADERS: usize = 0;
const DIRECTORY: usize = 1;
const STREAMS: usize = 2;

/// The length of a delivery id in bytes.
pub const DELIVERY_ID_LEN: usize = 32;

/// What the zip's comment says: the commit, and which delivery this is.
fn comment(commit: CommitId, delivery_id: &str) -> String {
    format!("{commit}\n{delivery_id}")
}

impl Archive {
    /// Writes the archive of `commit`, whose blobs are in `objects`, with the times that follow from `dates`. It waits for its [`stamp`](Self::stamp).
    ///
    /// Entries and objects are given up before the archive is read once more: memory holds them or the reader's lists, not
    /// both.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; nothing is left behind.
    ///
    /// # Panics
    ///
    /// Never, unless a thread does.
    pub fn write(
        commit: CommitId,
        entries: Vec<Entry>,
        objects: Objects,
        dates: &Dates,
        progress: &Progress,
    ) -> Result<Self, ArchiveError> {
        let unknown = "0".repeat(DELIVERY_ID_LEN);
        let comment = comment(commit, &unknown);
        progress.expect(0, entries.len() as u64);
        let times = dates.times(&entries, &objects)?;
        let mut writer = Writer::new(entries.len()).map_err(ArchiveError::Disk)?;
        for (entry, &modified) in entries.iter().zip(&times) {
            if progress.is_stopped() {
                return Err(ArchiveError::Stopped);
            }
            writer
                .entry(entry, modified, &objects)
                .map_err(ArchiveError::Disk)?;
            progress.add_object();
        }
        let count = entries.len();
        drop((entries, times));
        let contents = writer.finish(count, &comment, objects.into_files());
        let contents = contents.map_err(ArchiveError::Disk)?;
        let contents = Arc::new(contents);
        let (unstamped, is_readable) = thread::scope(|scope| {
            let hashing = scope.spawn(|| hash(&contents, progress));
            let is_readable = reread(&contents, count, &comment);
            (hashing.join().expect("hashing does not panic"), is_readable)
        });
        is_readable?;
        let unstamped = unstamped?;
        Ok(Self {
            contents,
            entries: count,
            sha256: stamped(&unstamped, &unknown),
            unstamped,
        })
    }

    /// An archive that was written before, of so many entries and at least a [`stamp`](Self::stamp)'s length. It is read
    /// once, for its digest.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn of_file(file: File, entries: usize) -> Result<Self, ArchiveError> {
        let bytes = file.metadata().map_err(ArchiveError::Disk)?.len();
        let contents = Arc::new(Contents::of(file, bytes));
        let unstamped = hash(&contents, &Progress::default())?;
        let (mut id, known) = (Vec::new(), bytes.saturating_sub(DELIVERY_ID_LEN as u64));
        let read = Reader::new(&contents).another(known).read_to_end(&mut id);
        read.map_err(ArchiveError::Disk)?;
        Ok(Self {
            contents,
            entries,
            sha256: unstamped.clone().chain_update(id).finalize().into(),
            unstamped,
        })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.contents.bytes()
    }

    /// Reads it, from its start or wherever it is wanted.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(&self.contents)
    }

    /// Writes into the comment which delivery this is. No two writes of an object send equal bytes, so that an entity tag,
    /// which is made from the bytes, never comes back.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Disk`].
    ///
    /// # Panics
    ///
    /// If the id is not [`DELIVERY_ID_LEN`] bytes long.
    pub fn stamp(&mut self, commit: CommitId, delivery_id: &str) -> Result<(), ArchiveError> {
        assert_eq!(
            delivery_id.len(),
            DELIVERY_ID_LEN,
            "the comment has a fixed length"
        );
        let comment = comment(commit, delivery_id);
        self.contents
            .write_at_end(comment.as_bytes())
            .map_err(ArchiveError::Disk)?;
        self.sha256 = stamped(&self.unstamped, delivery_id);
        Ok(())
    }
}

/// The SHA-256 of all but the delivery id. Where there are two processors, one reads while the other one hashes.
fn hash(contents: &Arc<Contents>, progress: &Progress) -> Result<Sha256, ArchiveError> {
    let known = contents.bytes().saturating_sub(DELIVERY_ID_LEN as u64);
    let mut reader = Reader::new(contents).take(known);
    let (chunks, waiting) = sync_channel::<Vec<u8>>(WAITING);
    let (used, buffers) = channel();
    thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut hash = Sha256::new();
            for chunk in waiting {
                hash.update(&chunk);
                // At the end, nobody wants it back.
                used.send(chunk).ok();
            }
            hash
        });
        loop {
            if progress.is_stopped() {
                return Err(ArchiveError::Stopped);
            }
            let mut chunk = buffers.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
            chunk.resize(CHUNK, 0);
            let read = read_up_to(&mut reader, &mut chunk).map_err(ArchiveError::Disk)?;
            chunk.truncate(read);
            if read == 0 || chunks.send(chunk).is_err() {
                break;
            }
        }
        drop(chunks);
        Ok(hashing.join().expect("hashing does not panic"))
    })
}

/// Fills the buffer, unless the end comes before.
fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Reads all headers with another program's eyes.
fn reread(contents: &Arc<Contents>, entries: usize, comment: &str) -> Result<(), ArchiveError> {
    let wrong = |why: &dyn ToString| ArchiveError::Reread(why.to_string());
    let mut zip = ZipArchive::new(Reader::new(contents)).map_err(|err| wrong(&err))?;
    if zip.len() != entries {
        let found = zip.len();
        return Err(wrong(&format_args!("{found} entries instead of {entries}")));
    }
    if zip.comment() != comment.as_bytes() {
        return Err(wrong(&"another comment"));
    }
    zip.validate_header_consistency().map_err(|err| wrong(&err))
}

/// The digest of an archive with this delivery id.
fn stamped(unstamped: &Sha256, delivery_id: &str) -> [u8; 32] {
    unstamped
        .clone()
        .chain_update(delivery_id)
        .finalize()
        .into()
}

/// The first `most` entries of a zip: path and size in bytes. Paths that are not UTF-8 are shown as far as
/// they are.
///
/// # Errors
///
/// [`ArchiveError::Reread`] if it is no zip.
pub fn list(zip: impl Read + Seek, most: usize) -> Result<Vec<(String, u64)>, ArchiveError> {
    let wrong = |err: zip::result::ZipError| ArchiveError::Reread(err.to_string());
    let mut zip = ZipArchive::new(BufReader::new(zip)).map_err(wrong)?;
    let most = most.min(zip.len());
    let entry = |n| {
        let entry = zip.by_index_raw(n).map_err(wrong)?;
        Ok((entry.name_raw().to_str_lossy().into_owned(), entry.size()))
    };
    (0..most).map(entry).collect()
}

/// Whether the zip in `file` has an entry of this path. Only the end of the file is read, where all entries are listed.
///
/// # Errors
///
/// [`ArchiveError::Reread`] if it is no zip, or the list begins before what the file holds of it.
pub fn has(file: File, path: &str) -> Result<bool, ArchiveError> {
    let zip = ZipArchive::new(BufReader::new(file));
    let zip = zip.map_err(|err| ArchiveError::Reread(err.to_string()))?;
    Ok(zip.index_for_name(path).is_some())
}

/// Writes the headers, and puts them together with the streams.
struct Writer {
    local_headers: BufWriter<File>,
    /// Where the next one will be in that file.
    offset: u64,
    /// The central directory, which says everything again.
    directory: BufWriter<File>,
    contents: Contents,
}

impl Writer {
    fn new(entries: usize) -> io::Result<Self> {
        let file = || Ok::<_, io::Error>(BufWriter::with_capacity(CHUNK, tempfile::tempfile()?));
        Ok(Self {
            local_headers: file()?,
            offset: 0,
            directory: file()?,
            // A header and a stream for each entry, and the directory.
            contents: Contents::with_capacity(2 * entries + 1),
        })
    }

    fn entry(&mut self, entry: &Entry, modified: Modified, objects: &Objects) -> io::Result<()> {
        let blob = blob(entry, objects);
        let start = self.contents.bytes();
        let headers = EntryHeaders::of(entry, blob.map(payload), start, Some(modified));
        let local = headers.local();
        self.local_headers.write_all(&local)?;
        self.directory.write_all(&headers.central())?;
        self.contents
            .add(LOCAL_HEADERS, self.offset, local.len() as u64);
        self.offset += local.len() as u64;
        if let Some(blob) = blob {
            let Extent { file, offset, len } = objects.extent(blob);
            self.contents.add(STREAMS + file, offset, len);
        }
        Ok(())
    }

    fn finish(mut self, entries: usize, comment: &str, streams: Vec<File>) -> io::Result<Contents> {
        let start = self.contents.bytes();
        let size = self.directory.stream_position()?;
        let end = header::end(entries as u64, size, start, comment);
        self.directory.write_all(&end)?;
        self.contents.add(DIRECTORY, 0, size + end.len() as u64);
        let written = [self.local_headers, self.directory].map(BufWriter::into_inner);
        let mut files = Vec::with_capacity(STREAMS + streams.len());
        for file in written {
            files.push(file.map_err(io::IntoInnerError::into_error)?);
        }
        files.extend(streams);
        self.contents.stand_in(files);
        Ok(self.contents)
    }
}

/// What stands behind the entry's header, if anything does.
fn blob<'a>(entry: &Entry, objects: &'a Objects) -> Option<&'a Blob> {
    if entry.kind == EntryKind::Submodule {
        return None;
    }
    // An empty stream of two bytes would do, but readers expect no stream where there is nothing.
    objects.blob(&entry.id).filter(|blob| blob.size > 0)
}

fn payload(blob: &Blob) -> Payload {
    Payload {
        size: blob.size,
        deflated: blob.deflated_size(),
        crc32: blob.crc32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stopped_is_not_hashed_to_its_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let contents = Arc::new(Contents::of(file, 1 << 20));
        let progress = Progress::default();
        assert!(hash(&contents, &progress).is_ok());
        progress.stop();
        let hashed = hash(&contents, &progress);
        assert!(matches!(hashed, Err(ArchiveError::Stopped)));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let contents = Arc::new(Contents::of(tempfile::tempfile().unwrap(), 1 << 20));
        let hashed = hash(&contents, &Progress::default());
        assert!(matches!(hashed, Err(ArchiveError::Disk(_))));
    }
}
