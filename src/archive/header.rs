//! The records of a zip, as this program writes them: byte for byte the same for the same entry and time at the same place.
//!
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

use std::borrow::Cow;

use gix::bstr::ByteSlice;

use super::times::Modified;
use crate::snapshot::{Entry, EntryKind};

/// 1980-01-01 00:00:00, which is all that version 0.1 said of the times of its entries.
pub(super) const NO_TIME: [u8; 4] = [0, 0, 0x21, 0];

/// Version 2.0, or 4.5 where sizes need 64 bits.
const VERSION: u16 = 20;
const VERSION_ZIP64: u16 = 45;

/// The system whose file modes the entries carry.
const UNIX: u16 = 3;

const UTF8_FLAG: u16 = 1 << 11;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Where a field of 16 or 32 bits says "see the zip64 field".
pub(super) const SEE_ZIP64: u32 = u32::MAX;

/// Extra field: sizes and offset in 64 bits.
const ZIP64_FIELD: u16 = 0x0001;

/// The length of that field with its id and its own length, in bytes, where it has the two sizes only.
const ZIP64_SIZES_LEN: usize = 4 + 8 + 8;

/// Extra field "UT": the time in seconds of Unix time, which is the same instant in any time zone.
pub(super) const TIME_FIELD: u16 = 0x5455;

/// The length of what [`TIME_FIELD`] holds, in bytes: that it has a time of modification, and that time.
pub(super) const TIME_FIELD_LEN: u16 = 5;

/// That a [`TIME_FIELD`] has a time of modification, and no other.
pub(super) const IS_MODIFIED: u8 = 1;

/// Extra field of ours, in the central directory: Git's mode (4 bytes) and object id (20 bytes).
pub const GIT_FIELD: u16 = 0x4742;

/// The length of what [`GIT_FIELD`] holds, in bytes.
pub(super) const GIT_FIELD_LEN: u16 = 24;

/// The length of a [`TIME_FIELD`] with its id and its own length, in bytes.
pub(super) const TIME_EXTRA_LEN: usize = 4 + TIME_FIELD_LEN as usize;

/// The length of a local header without its name and extra field, in bytes.
const LOCAL_LEN: usize = 30;

/// The length of a directory's entry without its name and extra fields, in bytes.
pub(super) const CENTRAL_LEN: usize = 46;

/// The length of the end record without the comment, in bytes; and of the two records before it that zip64 needs.
pub(super) const END_LEN: usize = 22;
pub(super) const END_ZIP64_LEN: usize = 56 + 20;

/// What stands behind an entry's local header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    /// Inflated size in bytes; never zero.
    pub(super) size: u64,
    /// Size of the deflate stream in bytes.
    pub(super) deflated: u64,
    /// CRC-32 of the inflated bytes.
    pub(super) crc32: u32,
}

impl Payload {
    /// Whether both hold the same bytes, however these were deflated, as far as sizes and checksums tell.
    pub(super) fn holds_the_same(&self, other: &Self) -> bool {
        (self.size, self.crc32) == (other.size, other.crc32)
    }

    /// What an entry says that holds nothing.
    pub(super) const NOTHING: Self = Self {
        size: 0,
        deflated: 0,
        crc32: 0,
    };
}

/// The two headers of an entry.
pub(super) struct EntryHeaders<'a> {
    entry: &'a Entry,
    name: Cow<'a, [u8]>,
    payload: Payload,
    /// Where the local header begins, in bytes behind the start of the zip.
    offset: u64,
    /// In seconds of Unix time, if it has a field for that.
    unix_time: Option<i32>,
    /// Whether a size needs 64 bits.
    large: bool,
    /// Whether the offset does.
    far: bool,
    version: u16,
    /// The part that both have, from the version to the length of the name.
    shared: Vec<u8>,
}

impl<'a> EntryHeaders<'a> {
    /// The headers of `entry`, whose local header is `offset` bytes behind the start of the zip. `payload` is `None` for
    /// what holds nothing, `modified` is `None` for what version 0.1 wrote.
    ///
    /// # Panics
    ///
    /// If the path is longer than a zip can say.
    pub(super) fn of(
        entry: &'a Entry,
        payload: Option<Payload>,
        offset: u64,
        modified: Option<Modified>,
    ) -> Self {
        let method = if payload.is_some() { DEFLATED } else { STORED };
        let payload = payload.unwrap_or(Payload::NOTHING);
        let Payload {
            size,
            deflated,
            crc32,
        } = payload;
        let path = entry.path.as_bytes();
        let name: Cow<'_, [u8]> = match entry.kind {
            EntryKind::Submodule => [path, b"/"].concat().into(),
            EntryKind::File | EntryKind::Executable | EntryKind::Symlink => path.into(),
        };
        let flags = if !name.is_ascii() && name.to_str().is_ok() {
            UTF8_FLAG
        } else {
            0
        };
        let large = size >= SEE_ZIP64.into() || deflated >= SEE_ZIP64.into();
        let far = offset >= SEE_ZIP64.into();
        let version = if large || far { VERSION_ZIP64 } else { VERSION };
        let mut shared = Vec::with_capacity(24);
        shared.extend(version.to_le_bytes());
        shared.extend(flags.to_le_bytes());
        shared.extend(method.to_le_bytes());
        shared.extend(modified.map_or(NO_TIME, Modified::dos));
        shared.extend(crc32.to_le_bytes());
        shared.extend(if large { SEE_ZIP64 } else { narrow(deflated) }.to_le_bytes());
        shared.extend(if large { SEE_ZIP64 } else { narrow(size) }.to_le_bytes());
        shared.extend(length(&name));
        Self {
            entry,
            name,
            payload,
            offset,
            unix_time: modified.and_then(Modified::unix),
            large,
            far,
            version,
            shared,
        }
    }

    /// Stands before the entry's data.
    pub(super) fn local(&self) -> Vec<u8> {
        let extra = self.extra(&self.sizes());
        let mut local = Vec::with_capacity(self.local_len());
        local.extend(b"PK\x03\x04");
        local.extend(&self.shared);
        local.extend(length(&extra));
        local.extend_from_slice(&self.name);
        local.extend(extra);
        local
    }

    /// The length of [`local`](Self::local) in bytes.
    pub(super) fn local_len(&self) -> usize {
        let zip64 = if self.large { ZIP64_SIZES_LEN } else { 0 };
        let time = self.unix_time.map_or(0, |_| TIME_EXTRA_LEN);
        LOCAL_LEN + self.name.len() + zip64 + time
    }

    /// Stands in the central directory.
    pub(super) fn central(&self) -> Vec<u8> {
        let attributes: u32 = match self.entry.kind {
            EntryKind::File => 0o100_644 << 16,
            EntryKind::Executable => 0o100_755 << 16,
            EntryKind::Symlink => 0o120_777 << 16,
            EntryKind::Submodule => 0o040_755 << 16 | 0x10,
        };
        let mut wide = self.sizes();
        wide.extend(self.far.then_some(self.offset));
        let mut extra = self.extra(&wide);
        extra.extend(GIT_FIELD.to_le_bytes());
        extra.extend(GIT_FIELD_LEN.to_le_bytes());
        extra.extend(self.entry.kind.git_mode().to_le_bytes());
        extra.extend_from_slice(self.entry.id.as_bytes());
        let mut central = Vec::with_capacity(CENTRAL_LEN + self.name.len() + extra.len());
        central.extend(b"PK\x01\x02");
        central.extend((UNIX << 8 | self.version).to_le_bytes());
        central.extend(&self.shared);
        central.extend(length(&extra));
        central.extend([0; 6]); // no comment, first disk, no internal attributes
        central.extend(attributes.to_le_bytes());
        central.extend(narrow(self.offset).to_le_bytes());
        central.extend_from_slice(&self.name);
        central.extend(extra);
        central
    }

    /// The extra fields of both headers.
    fn extra(&self, zip64: &[u64]) -> Vec<u8> {
        let mut extra = extra_field(ZIP64_FIELD, zip64);
        if let Some(time) = self.unix_time {
            extra.extend(TIME_FIELD.to_le_bytes());
            extra.extend(TIME_FIELD_LEN.to_le_bytes());
            extra.push(IS_MODIFIED);
            extra.extend(time.to_le_bytes());
        }
        extra
    }

    /// What the zip64 field of both headers has.
    fn sizes(&self) -> Vec<u64> {
        if self.large {
            vec![self.payload.size, self.payload.deflated]
        } else {
            Vec::new()
        }
    }
}

/// What comes behind the central directory, which has `size` bytes and begins `start` bytes behind the start of the zip.
pub(super) fn end(entries: u64, size: u64, start: u64, comment: &str) -> Vec<u8> {
    let mut end = Vec::new();
    if entries >= u16::MAX.into() || size >= SEE_ZIP64.into() || start >= SEE_ZIP64.into() {
        let record = start + size;
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
    end
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
