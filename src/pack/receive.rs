//! The pack as it comes: kept in a file, and inflated and verified while it is read.

use std::{collections::HashMap, fs::File, io::Read};

use gix::{
    ObjectId,
    objs::Kind,
    odb::pack::data::{self, entry::Header},
};

use super::{
    CHUNK, OTHER_OBJECTS, Object, PackError,
    budget::Budget,
    delta::{self, HEADER_LEN as DELTA_HEADER_LEN},
    digest::Digest,
    inflate::{DeflatedBytes, Framing, Inflater, Uninflatable},
    keep::{Keep, TRAILER_LEN},
    stream::{Place, Stream},
};
use crate::{limits::within, progress::Progress};

/// `PACK`, a version and a number of objects, four bytes each.
const HEADER_LEN: usize = 12;

/// More than the longest header of an entry: a size of 64 bits, and an object id or a distance of 64 bits.
const ENTRY_HEADER_LEN: usize = 40;

/// A pack on disk, its whole objects verified, its deltas found.
pub(super) struct IncomingPack {
    pub(super) pack: File,
    pub(super) pack_bytes: u64,
    pub(super) index: HashMap<ObjectId, Object>,
    /// Whole objects by the offset of their entry, ascending.
    pub(super) whole: Vec<(u64, ObjectId)>,
    pub(super) deltas: Vec<Delta>,
}

/// An object that is stored as the difference to another one.
pub(super) struct Delta {
    /// Offset of the entry, by which others name it as their base.
    pub(super) offset: u64,
    pub(super) base: DeltaBase,
    /// The instructions, deflated.
    pub(super) stream: Stream,
    /// Size of the instructions in bytes.
    pub(super) size: u64,
    /// Size of the object that they make, in bytes.
    pub(super) result_size: u64,
}

pub(super) enum DeltaBase {
    Offset(u64),
    Id(ObjectId),
}

pub(super) fn receive(
    wire: &mut dyn Read,
    budget: &Budget<'_>,
    progress: &Progress,
) -> Result<IncomingPack, PackError> {
    let mut input = Input::new(wire, budget.limits.pack_bytes, progress)?;
    let objects = input.pack_header()?;
    // Every entry is a file in at least no folder of its own, at most one new folder.
    let most = u64::from(budget.limits.entries) * 2 + OTHER_OBJECTS;
    within("the number of objects", objects.into(), "MAX_ENTRIES", most)?;
    progress.expect(0, objects.into());

    // Room that is not used costs no memory.
    let room = usize::try_from(objects).map_err(PackError::damaged)?;
    let mut index = HashMap::with_capacity(room);
    let mut whole = Vec::with_capacity(room);
    let mut deltas = Vec::new();
    let mut inflater = Inflater::new(Framing::Zlib);
    for _ in 0..objects {
        let entry = input.entry_header()?;
        let offset = entry.pack_offset();
        let size = entry.decompressed_size;
        budget.inflate(size)?;
        let base = match entry.header {
            Header::Blob => {
                progress.add_object();
                let mut digest = Digest::new(Kind::Blob, size);
                let stream = inflate(&mut inflater, &mut input, size, |bytes| {
                    digest.update(bytes);
                })?;
                let (id, blob) = digest.finish(stream)?;
                whole.push((offset, id));
                index.insert(id, Object::Blob(blob));
                continue;
            }
            Header::Commit | Header::Tree | Header::Tag => {
                progress.add_object();
                let kind = entry.header.as_kind().expect("no delta");
                budget.keep(size)?;
                let mut bytes =
                    Vec::with_capacity(usize::try_from(size).map_err(PackError::damaged)?);
                let stream = inflate(&mut inflater, &mut input, size, |more| {
                    bytes.extend_from_slice(more);
                })?;
                let mut digest = Digest::new(kind, size);
                digest.update(&bytes);
                let (id, _) = digest.finish(stream)?;
                whole.push((offset, id));
                index.insert(id, Object::Plain(kind, bytes.into()));
                continue;
            }
            Header::OfsDelta { base_distance } => DeltaBase::Offset(
                offset
                    .checked_sub(base_distance)
                    .filter(|_| base_distance > 0)
                    .ok_or_else(|| PackError::damaged("a base before the pack's start"))?,
            ),
            Header::RefDelta { base_id } => DeltaBase::Id(base_id),
        };
        let mut head = Vec::with_capacity(DELTA_HEADER_LEN);
        let stream = inflate(&mut inflater, &mut input, size, |bytes| {
            head.extend(bytes.iter().take(DELTA_HEADER_LEN - head.len()));
        })?;
        let (_, result_size, _) = delta::sizes(&head)?;
        budget.inflate(result_size)?;
        deltas.push(Delta {
            offset,
            base,
            stream,
            size,
            result_size,
        });
    }
    let (pack, pack_bytes) = input.trailer()?;
    progress.received();
    Ok(IncomingPack {
        pack,
        pack_bytes,
        index,
        whole,
        deltas,
    })
}

/// The wire, buffered. What is read is kept.
struct Input<'a> {
    wire: &'a mut dyn Read,
    /// `None` after a failure.
    keep: Option<Keep>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Offset of `start` in the pack.
    offset: u64,
    max_bytes: u64,
    progress: &'a Progress,
}

impl<'a> Input<'a> {
    fn new(
        wire: &'a mut dyn Read,
        max_bytes: u64,
        progress: &'a Progress,
    ) -> Result<Self, PackError> {
        Ok(Self {
            wire,
            keep: Some(Keep::new()?),
            buffer: vec![0; CHUNK].into(),
            start: 0,
            end: 0,
            offset: 0,
            max_bytes,
            progress,
        })
    }

    /// At least `wanted` bytes that were not consumed yet, or fewer where the wire ends.
    fn peek(&mut self, wanted: usize) -> Result<&[u8], PackError> {
        while self.end - self.start < wanted {
            if self.progress.is_stopped() {
                return Err(PackError::Stopped);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let n = match self.wire.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(n) => n,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(PackError::Read(err)),
            };
            let is_first = self.offset == 0 && self.end == 0;
            let keep = self.keep.take().expect("nobody reads on after a failure");
            self.keep = Some(keep.take(&self.buffer[self.end..self.end + n], is_first)?);
            self.end += n;
            self.progress.add_bytes(n as u64);
            let received = self.offset + self.end as u64;
            within(
                "the size of the pack in bytes so far",
                received,
                "MAX_PACK_BYTES",
                self.max_bytes,
            )?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        self.offset += n as u64;
    }

    /// The number of objects.
    fn pack_header(&mut self) -> Result<u32, PackError> {
        let header: [u8; HEADER_LEN] = self
            .peek(HEADER_LEN)?
            .get(..HEADER_LEN)
            .ok_or(PackError::Truncated)?
            .try_into()
            .expect("that long");
        let (version, objects) = data::header::decode(&header).map_err(PackError::damaged)?;
        if version != data::Version::V2 {
            return Err(PackError::damaged("not version 2"));
        }
        self.consume(HEADER_LEN);
        Ok(objects)
    }

    fn entry_header(&mut self) -> Result<data::Entry, PackError> {
        let offset = self.offset;
        let bytes = self.peek(ENTRY_HEADER_LEN)?;
        let whole = bytes.len() >= ENTRY_HEADER_LEN;
        let entry =
            data::Entry::from_bytes(bytes, offset, gix::hash::Kind::Sha1).map_err(|err| {
                if whole {
                    PackError::damaged(err)
                } else {
                    PackError::Truncated
                }
            })?;
        self.consume(entry.header_size());
        Ok(entry)
    }

    /// Compares the pack's checksum, and makes sure that nothing follows. Returns the pack's file, and its size in bytes.
    fn trailer(mut self) -> Result<(File, u64), PackError> {
        let rest = self.peek(TRAILER_LEN + 1)?;
        if rest.len() < TRAILER_LEN {
            return Err(PackError::Truncated);
        }
        if rest.len() > TRAILER_LEN {
            return Err(PackError::damaged("more objects than announced"));
        }
        let keep = self.keep.take().expect("nothing failed");
        let (file, is_right) = keep.finish()?;
        if !is_right {
            return Err(PackError::damaged("its checksum does not match"));
        }
        Ok((file, self.offset + TRAILER_LEN as u64))
    }
}

impl DeflatedBytes for Input<'_> {
    fn peek(&mut self) -> Result<&[u8], PackError> {
        self.peek(1)
    }

    fn consume(&mut self, n: usize) {
        self.consume(n);
    }
}

/// A zlib stream begins with two bytes and ends with the Adler-32 of what it holds.
const ZLIB_HEADER_LEN: u64 = 2;
const ADLER32_LEN: u64 = 4;

/// Inflates one zlib stream, shows its bytes to `each`, and says where the deflate stream in it stands.
fn inflate(
    inflater: &mut Inflater,
    input: &mut Input<'_>,
    size: u64,
    each: impl FnMut(&[u8]),
) -> Result<Stream, PackError> {
    let start = input.offset;
    match inflater.inflate(input, size, each) {
        Ok(len) => Ok(Stream {
            place: Place::Pack,
            offset: start + ZLIB_HEADER_LEN,
            len: len - ZLIB_HEADER_LEN - ADLER32_LEN,
        }),
        Err(Uninflatable::Source(err)) => Err(err),
        Err(Uninflatable::Truncated) => Err(PackError::Truncated),
        Err(Uninflatable::Wrong(why)) => Err(PackError::damaged(format_args!("an object {why}"))),
    }
}
