//! A snapshot becomes a zip: headers around the deflate streams that the pack already has.
//!
//! An own writer, since all sizes and checksums are known beforehand and no crate takes them: sizes stand in the local
//! headers (Java's `ZipInputStream` needs them there), names are bytes exactly as committed, the UTF-8 flag is set where
//! it is true. The `zip` crate reads every archive once more before it is uploaded.
//!
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Seek, Write},
    os::unix::fs::FileExt,
};

use gix::bstr::ByteSlice;
use zip::ZipArchive;

use crate::{
    pack::{Blob, Objects},
    progress::Progress,
    push::CommitId,
    snapshot::{Entry, EntryKind, Snapshot},
};

/// Bytes that are copied at a time.
const CHUNK: usize = 128 * 1024;

/// 1980-01-01 00:00:00, the first instant that a zip can hold: the same tree gives the same entries.
const MODIFIED: [u8; 4] = [0, 0, 0x21, 0];

/// Version 2.0, or 4.5 where sizes need 64 bits.
const VERSION: u16 = 20;
const VERSION_ZIP64: u16 = 45;

/// The system whose file modes the entries carry.
const UNIX: u16 = 3;

const UTF8_FLAG: u16 = 1 << 11;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Where a field of 16 or 32 bits says "see the zip64 field".
const SEE_ZIP64: u32 = u32::MAX;

/// Extra field: sizes and offset in 64 bits.
const ZIP64_FIELD: u16 = 0x0001;

/// Extra field of ours, in the central directory: Git's mode (4 bytes) and object id (20 bytes).
pub const GIT_FIELD: u16 = 0x4742;

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
}

/// The length of a delivery id in bytes.
pub const DELIVERY_ID_LEN: usize = 32;

/// What the zip's comment says: the commit, and which delivery this is.
fn comment(commit: CommitId, delivery_id: &str) -> String {
    format!("{commit}\n{delivery_id}")
}

impl Archive {
    /// Writes the archive of `snapshot`, whose blobs are in `objects`. It waits for its [`stamp`](Self::stamp).
    ///
    /// # Errors
    ///
    /// [`ArchiveError`]; nothing is left behind.
    pub fn write(
        snapshot: &Snapshot,
        objects: &Objects,
        progress: &Progress,
    ) -> Result<Self, ArchiveError> {
        let comment = comment(snapshot.commit, &"0".repeat(DELIVERY_ID_LEN));
        let file = tempfile::tempfile().map_err(ArchiveError::Disk)?;
        let mut writer = Writer {
            out: BufWriter::with_capacity(CHUNK, file),
            offset: 0,
            directory: Vec::new(),
            buffer: vec![0; CHUNK].into(),
        };
        for entry in &snapshot.entries {
            if progress.is_stopped() {
                return Err(ArchiveError::Stopped);
            }
            let blob = match entry.kind {
                EntryKind::Submodule => None,
                _ => objects.blob(&entry.id),
            };
            writer
                .entry(entry, blob, objects)
                .map_err(ArchiveError::Disk)?;
        }
        let entries = snapshot.entries.len();
        let (file, bytes) = writer
            .finish(entries as u64, &comment)
            .map_err(ArchiveError::Disk)?;
        let archive = Self {
            file,
            bytes,
            entries,
        };
        archive.reread(&comment)?;
        Ok(archive)
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
            .map_err(ArchiveError::Disk)
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

struct Writer {
    out: BufWriter<File>,
    offset: u64,
    /// The central directory, which comes last.
    directory: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Writer {
    fn entry(&mut self, entry: &Entry, blob: Option<&Blob>, objects: &Objects) -> io::Result<()> {
        // An empty stream of two bytes would do, but readers expect no stream where there is nothing.
        let blob = blob.filter(|blob| blob.size > 0);
        let (method, size, deflated, crc32) = match blob {
            Some(blob) => (DEFLATED, blob.size, blob.deflated_size(), blob.crc32),
            None => (STORED, 0, 0, 0),
        };
        let mut name = entry.path.clone();
        let attributes: u32 = match entry.kind {
            EntryKind::File => 0o100_644 << 16,
            EntryKind::Executable => 0o100_755 << 16,
            EntryKind::Symlink => 0o120_777 << 16,
            EntryKind::Submodule => {
                name.push(b'/');
                0o040_755 << 16 | 0x10
            }
        };
        let flags = if !name.is_ascii() && name.to_str().is_ok() {
            UTF8_FLAG
        } else {
            0
        };
        let offset = self.offset;

        // The part that both headers share, from the version to the length of the name.
        let large = size >= SEE_ZIP64.into() || deflated >= SEE_ZIP64.into();
        let far = offset >= SEE_ZIP64.into();
        let version = if large || far { VERSION_ZIP64 } else { VERSION };
        let shared = |version: u16| {
            let mut header = Vec::with_capacity(28);
            header.extend(version.to_le_bytes());
            header.extend(flags.to_le_bytes());
            header.extend(method.to_le_bytes());
            header.extend(MODIFIED);
            header.extend(crc32.to_le_bytes());
            header.extend(if large { SEE_ZIP64 } else { narrow(deflated) }.to_le_bytes());
            header.extend(if large { SEE_ZIP64 } else { narrow(size) }.to_le_bytes());
            header.extend(
                u16::try_from(name.len())
                    .expect("paths are checked")
                    .to_le_bytes(),
            );
            header
        };
        let mut wide = if large {
            vec![size, deflated]
        } else {
            Vec::new()
        };

        let zip64 = extra_field(ZIP64_FIELD, &wide);
        let mut local = b"PK\x03\x04".to_vec();
        local.extend(shared(version));
        local.extend(length(&zip64));
        local.extend_from_slice(&name);
        local.extend_from_slice(&zip64);
        self.write(&local)?;
        if let Some(blob) = blob {
            objects.copy_deflated(blob, &mut self.out, &mut self.buffer)?;
            self.offset += deflated;
        }

        let version = if large || far { VERSION_ZIP64 } else { VERSION };
        wide.extend(far.then_some(offset));
        let mut extra = extra_field(ZIP64_FIELD, &wide);
        extra.extend(GIT_FIELD.to_le_bytes());
        extra.extend(24u16.to_le_bytes());
        extra.extend(entry.kind.git_mode().to_le_bytes());
        extra.extend_from_slice(entry.id.as_bytes());
        let directory = &mut self.directory;
        directory.extend(b"PK\x01\x02");
        directory.extend((UNIX << 8 | version).to_le_bytes());
        directory.extend(shared(version));
        directory.extend(length(&extra));
        directory.extend([0; 6]); // no comment, first disk, no internal attributes
        directory.extend(attributes.to_le_bytes());
        directory.extend(narrow(offset).to_le_bytes());
        directory.extend_from_slice(&name);
        directory.extend_from_slice(&extra);
        Ok(())
    }

    fn finish(mut self, entries: u64, comment: &str) -> io::Result<(File, u64)> {
        let start = self.offset;
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let size = self.offset - start;
        let mut end = Vec::new();
        if entries >= u16::MAX.into() || size >= SEE_ZIP64.into() || start >= SEE_ZIP64.into() {
            let record = self.offset;
            end.extend(b"PK\x06\x06");
            end.extend(44u64.to_le_bytes()); // what follows of this record
            end.extend((UNIX << 8 | VERSION_ZIP64).to_le_bytes());
            end.extend(VERSION_ZIP64.to_le_bytes());
            end.extend([0; 8]); // this disk, and the one where the directory starts
            for number in [entries, entries, size, start] {
                end.extend(number.to_le_bytes());
            }
            end.extend(b"PK\x06\x07");
            end.extend([0; 4]); // the disk of the record above
            end.extend(record.to_le_bytes());
            end.extend(1u32.to_le_bytes()); // disks in all
        }
        let count = u16::try_from(entries).unwrap_or(u16::MAX);
        end.extend(b"PK\x05\x06");
        end.extend([0; 4]); // this disk, and the one where the directory starts
        end.extend(count.to_le_bytes());
        end.extend(count.to_le_bytes());
        end.extend(narrow(size).to_le_bytes());
        end.extend(narrow(start).to_le_bytes());
        end.extend(length(comment.as_bytes()));
        end.extend_from_slice(comment.as_bytes());
        self.write(&end)?;
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.offset))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// The value, or the mark that sends readers to the zip64 field.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(SEE_ZIP64)
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len())
        .expect("names, extra fields and comments are short")
        .to_le_bytes()
}

/// An extra field of 64-bit numbers; nothing if there are none.
fn extra_field(id: u16, numbers: &[u64]) -> Vec<u8> {
    let mut field = Vec::new();
    if !numbers.is_empty() {
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        field.extend(id.to_le_bytes());
        field.extend(length(&bytes));
        field.extend(bytes);
    }
    field
}
