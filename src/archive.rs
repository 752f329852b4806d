//! A snapshot becomes a zip: headers around the deflate streams that the pack already has.
//!
//! An own writer, since all sizes and checksums are known beforehand and no crate takes them: sizes stand in the local
//! headers (Java's `ZipInputStream` needs them there), names are bytes exactly as committed, the UTF-8 flag is set where
//! it is true. The `zip` crate reads every archive once more before it is uploaded.
//!
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

mod hashing;
mod header;
mod previous;
mod times;
mod verify;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    os::unix::fs::FileExt,
};

use gix::bstr::ByteSlice;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use self::{
    hashing::Hashing,
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
    pack::{Blob, Objects},
    progress::Progress,
    push::CommitId,
    snapshot::{Entry, EntryKind},
};

/// Bytes that are copied at a time.
const CHUNK: usize = 128 * 1024;

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
    /// The zip. The file is unlinked: it is gone with the process, however that ends.
    pub file: File,
    /// Its size in bytes.
    pub bytes: u64,
    /// The number of entries.
    pub entries: usize,
    /// The SHA-256 of all its bytes.
    pub sha256: [u8; 32],
    /// The same of all bytes but the delivery id, which are the last ones.
    unstamped: Sha256,
}

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
        let file = tempfile::tempfile().map_err(ArchiveError::Disk)?;
        let mut writer = Writer {
            out: BufWriter::with_capacity(CHUNK, Hashing::of(file)),
            offset: 0,
            buffer: vec![0; CHUNK].into(),
        };
        for (entry, &modified) in entries.iter().zip(&times) {
            if progress.is_stopped() {
                return Err(ArchiveError::Stopped);
            }
            writer
                .entry(entry, modified, &objects)
                .map_err(ArchiveError::Disk)?;
            progress.add_object();
        }
        let (file, bytes, unstamped) = writer
            .finish(&entries, &times, &objects, &comment)
            .map_err(ArchiveError::Disk)?;
        let count = entries.len();
        drop((entries, times, objects));
        let archive = Self {
            file,
            bytes,
            entries: count,
            sha256: stamped(&unstamped, &unknown),
            unstamped,
        };
        archive.reread(&comment)?;
        Ok(archive)
    }

    /// An archive that was written before, of so many entries. It is read once, for its digest, and cannot be stamped anew.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn of_file(mut file: File, entries: usize) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
        file.rewind()?;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            bytes += read as u64;
        }
        Ok(Self {
            file,
            bytes,
            entries,
            sha256: hash.clone().finalize().into(),
            unstamped: hash,
        })
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
        self.file
            .write_all_at(comment.as_bytes(), self.bytes - comment.len() as u64)
            .map_err(ArchiveError::Disk)?;
        self.sha256 = stamped(&self.unstamped, delivery_id);
        Ok(())
    }

    /// Reads all headers with another program's eyes.
    fn reread(&self, comment: &str) -> Result<(), ArchiveError> {
        let mut file = self.file.try_clone().map_err(ArchiveError::Disk)?;
        file.rewind().map_err(ArchiveError::Disk)?;
        let wrong = |why: &dyn ToString| ArchiveError::Reread(why.to_string());
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|err| wrong(&err))?;
        if zip.len() != self.entries {
            return Err(wrong(&format_args!(
                "{} entries instead of {}",
                zip.len(),
                self.entries
            )));
        }
        if zip.comment() != comment.as_bytes() {
            return Err(wrong(&"another comment"));
        }
        zip.validate_header_consistency().map_err(|err| wrong(&err))
    }
}

/// The digest of an archive with this delivery id.
fn stamped(unstamped: &Sha256, delivery_id: &str) -> [u8; 32] {
    unstamped
        .clone()
        .chain_update(delivery_id)
        .finalize()
        .into()
}

/// The first `most` entries of the zip in `file`: path and size in bytes. Paths that are not UTF-8 are shown as far as
/// they are.
///
/// # Errors
///
/// [`ArchiveError::Reread`] if it is no zip.
pub fn list(file: File, most: usize) -> Result<Vec<(String, u64)>, ArchiveError> {
    let wrong = |err: zip::result::ZipError| ArchiveError::Reread(err.to_string());
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(wrong)?;
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

struct Writer {
    out: BufWriter<Hashing>,
    offset: u64,
    buffer: Box<[u8]>,
}

impl Writer {
    fn entry(&mut self, entry: &Entry, modified: Modified, objects: &Objects) -> io::Result<()> {
        let blob = blob(entry, objects);
        let headers = EntryHeaders::of(entry, blob.map(payload), self.offset, Some(modified));
        self.write(&headers.local())?;
        if let Some(blob) = blob {
            objects.copy_deflated(blob, &mut self.out, &mut self.buffer)?;
            self.offset += blob.deflated_size();
        }
        Ok(())
    }

    /// Writes the central directory, which says everything again. It is made again too: kept, it would take as much memory
    /// as the index of the objects.
    fn finish(
        mut self,
        entries: &[Entry],
        times: &[Modified],
        objects: &Objects,
        comment: &str,
    ) -> io::Result<(File, u64, Sha256)> {
        let start = self.offset;
        let mut offset = 0;
        for (entry, &modified) in entries.iter().zip(times) {
            let payload = blob(entry, objects).map(payload);
            let headers = EntryHeaders::of(entry, payload, offset, Some(modified));
            self.write(&headers.central())?;
            offset += headers.local_len() as u64 + payload.map_or(0, |payload| payload.deflated);
        }
        debug_assert_eq!(offset, start, "all entries, as they were written");
        let size = self.offset - start;
        let count = entries.len() as u64;
        let end = header::end(count, size, start, comment);
        // It is the end of the comment, and so of the file.
        let (end, delivery_id) = end.split_at(end.len() - DELIVERY_ID_LEN);
        self.write(end)?;
        let written = self.out.into_inner();
        let written = written.map_err(io::IntoInnerError::into_error)?;
        let (mut file, unstamped) = written.finish();
        file.write_all(delivery_id)?;
        let bytes = self.offset + delivery_id.len() as u64;
        Ok((file, bytes, unstamped))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
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
