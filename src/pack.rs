//! A Git pack, as it comes over the wire, becomes a set of verified objects.
//!
//! Nothing in here inflates what it can leave alone: a blob that the pack stores whole is inflated once, into nothing,
//! for its SHA-1 and CRC-32; what is kept is where its deflate stream stands in the pack. The archive copies that stream.
//!
//! ```text
//! wire ─receive─▶ pack file + index of whole objects ─resolve─▶ deltas applied, deflated into spool files ─▶ Objects
//!                                                       ▲
//!                            archive of an earlier delivery ─verify─▶ Stock: bases of deltas, and all that did not change
//! ```

mod budget;
mod delta;
mod digest;
mod inflate;
mod keep;
mod receive;
mod resolve;
mod spool;
mod stock;
mod stream;
mod way;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
};

use flate2::write::DeflateDecoder;
use gix::{ObjectId, objs::Kind};

pub use self::stock::{Claim, Claims, Stock, StockError};
use self::{
    budget::Budget,
    stream::{Place, Stream},
};
use crate::{
    limits::{Exceeded, Limits},
    progress::Progress,
};

/// Bytes that are read or written at a time.
const CHUNK: usize = 64 * 1024;

/// Objects of a pack that are neither folders nor files of the tree: the commit, and tags that point to it.
const OTHER_OBJECTS: u64 = 1024;

/// More threads than this wait for the disk.
const MAX_THREADS: usize = 4;

/// Why a pack could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The connection broke or was too slow.
    #[error("the pack broke off")]
    Read(#[source] io::Error),
    /// The pack ends before it should.
    #[error("the pack ends early")]
    Truncated,
    /// The pack is not well-formed, or an object does not match its id.
    #[error("the pack is damaged: {0}")]
    Damaged(String),
    /// The pack asks for more than is allowed.
    #[error(transparent)]
    Limit(#[from] Exceeded),
    /// The temporary file cannot be written or read.
    #[error("cannot use a temporary file in {}", std::env::temp_dir().display())]
    Disk(#[source] io::Error),
    /// The work was stopped from outside.
    #[error("stopped")]
    Stopped,
}

impl PackError {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors and arguments are made for it"
    )]
    fn damaged(why: impl ToString) -> Self {
        Self::Damaged(why.to_string())
    }
}

/// The verified objects of one pack, and of the stock that it was made for.
pub struct Objects {
    index: HashMap<ObjectId, Object>,
    /// This and the spools, one a thread, are unlinked: they are gone with the process, however it ends.
    pack: File,
    spools: Vec<File>,
    stock: Option<Stock>,
    /// The size of the pack in bytes.
    pack_bytes: u64,
}

enum Object {
    /// A commit, a tree or a tag, whole.
    Plain(Kind, Box<[u8]>),
    Blob(Blob),
}

/// A file's content, as the deflate stream that a zip entry is made of.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    /// Inflated size in bytes.
    pub size: u64,
    /// CRC-32 of the inflated bytes.
    pub crc32: u32,
    /// Whether this is the pointer to a file that Git LFS keeps elsewhere.
    pub is_lfs_pointer: bool,
    stream: Stream,
}

impl Blob {
    /// Size of the deflate stream in bytes.
    #[must_use]
    pub fn deflated_size(&self) -> u64 {
        self.stream.len
    }
}

/// A stretch of one of the files that hold deflate streams.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The number of the file.
    pub file: usize,
    /// Where it begins there.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Objects {
    /// Receives a pack and verifies it: its checksum, and every object's id, by inflating and hashing all of it.
    ///
    /// Memory holds the index, commits and trees, and one blob a thread where deltas are resolved; the pack itself is on
    /// disk.
    ///
    /// # Errors
    ///
    /// [`PackError`]; sizes are compared with `limits` before memory is taken.
    pub fn receive(
        wire: &mut dyn Read,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<Self, PackError> {
        let budget = Budget::new(limits);
        let received = receive::receive(wire, &budget, progress)?;
        resolve::resolve(received, None, &budget, progress)
    }

    /// Like [`receive`](Self::receive), of a pack that leaves out what is in `stock`, and whose deltas may stand on that.
    /// `stock` is asked for once the pack is there: both may be got ready at the same time.
    ///
    /// # Errors
    ///
    /// [`PackError`], as for any pack; the inner error is that of `stock`.
    pub fn receive_onto<E>(
        stock: impl FnOnce() -> Result<Stock, E>,
        wire: &mut dyn Read,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<Result<Self, E>, PackError> {
        let budget = Budget::new(limits);
        let received = receive::receive(wire, &budget, progress)?;
        match stock() {
            Ok(stock) => resolve::resolve(received, Some(stock), &budget, progress).map(Ok),
            Err(err) => Ok(Err(err)),
        }
    }

    /// The bytes of commit `id`, without Git's object header.
    #[must_use]
    pub fn commit(&self, id: &gix::oid) -> Option<&[u8]> {
        self.plain(Kind::Commit, id)
    }

    /// The bytes of tree `id`, without Git's object header.
    #[must_use]
    pub fn tree(&self, id: &gix::oid) -> Option<&[u8]> {
        self.plain(Kind::Tree, id)
    }

    fn object(&self, id: &gix::oid) -> Option<&Object> {
        let in_stock = || self.stock.as_ref()?.get(id);
        self.index.get(id).or_else(in_stock)
    }

    fn plain(&self, kind: Kind, id: &gix::oid) -> Option<&[u8]> {
        match self.object(id)? {
            Object::Plain(found, bytes) if *found == kind => Some(bytes),
            _ => None,
        }
    }

    /// The blob `id`.
    #[must_use]
    pub fn blob(&self, id: &gix::oid) -> Option<&Blob> {
        match self.object(id)? {
            Object::Blob(blob) => Some(blob),
            Object::Plain(..) => None,
        }
    }

    /// Where the blob's deflate stream stands, in one of [`into_files`](Self::into_files).
    #[must_use]
    pub fn extent(&self, blob: &Blob) -> Extent {
        let Stream { place, offset, len } = blob.stream;
        let file = match place {
            Place::Pack => 0,
            Place::Spool(n) => 1 + usize::from(n),
            Place::Stock => 1 + self.spools.len(),
        };
        Extent { file, offset, len }
    }

    /// The files, with the objects forgotten.
    #[must_use]
    pub fn into_files(self) -> Vec<File> {
        let stock = self.stock.map(Stock::into_file);
        let files = [self.pack].into_iter().chain(self.spools);
        files.chain(stock).collect()
    }

    fn file(&self, number: usize) -> &File {
        match number.checked_sub(1) {
            None => &self.pack,
            Some(n) => self.spools.get(n).unwrap_or_else(|| {
                let stock = self.stock.as_ref();
                stock.expect("streams stand in it").file()
            }),
        }
    }

    /// Inflates a blob into memory: whoever asks has looked at its size.
    ///
    /// # Errors
    ///
    /// If the temporary file cannot be read.
    pub(crate) fn content(&self, blob: &Blob) -> io::Result<Vec<u8>> {
        let mut content = DeflateDecoder::new(Vec::new());
        let Extent {
            file,
            mut offset,
            len,
        } = self.extent(blob);
        let (end, mut buffer) = (offset + len, [0; 8 << 10]);
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(8 << 10)];
            self.file(file).read_exact_at(piece, offset)?;
            content.write_all(piece)?;
            offset += piece.len() as u64;
        }
        content.finish()
    }

    /// The size of the pack that came over the wire, in bytes.
    #[must_use]
    pub fn pack_bytes(&self) -> u64 {
        self.pack_bytes
    }
}
