//! What the fuzz targets share: packs in the making, limits that keep each run small, and a count of the memory that is held.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use backlog_bridge::limits::Limits;
use flate2::{Compression, write::ZlibEncoder};
use gix::{ObjectId, objs::Kind};

/// Limits that a run of a few milliseconds can reach.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        entries: 1_000,
        tree_bytes: 1 << 20,
        blob_bytes: BLOB_BYTES as u64,
        pack_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// How large a file may be.
const BLOB_BYTES: usize = 64 << 10;

/// What is held whatever comes in: buffers, the tables of a deflate stream, stacks of threads.
const CONSTANT: usize = 2 << 20;

/// What a byte that comes in may hold.
const PER_BYTE: usize = 400;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static WORST: AtomicUsize = AtomicUsize::new(0);
static WORST_RATIO: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which counts what is held.
struct Counting;

// SAFETY: each call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// What `work` gives, which reads so many bytes. It may hold a constant, two files, and so much for each byte.
///
/// # Panics
///
/// If it holds more.
pub fn held<T>(bytes_in: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let done = work();
    let held = PEAK.load(Relaxed).saturating_sub(before);
    let most = CONSTANT + 2 * BLOB_BYTES + PER_BYTE * bytes_in;
    assert!(
        held <= most,
        "{held} bytes were held for {bytes_in} that came, more than {most}"
    );
    if WORST.fetch_max(held, Relaxed) < held {
        eprintln!("held: {held} bytes for {bytes_in}");
    }
    let beyond = held.saturating_sub(2 * BLOB_BYTES) / bytes_in.max(1);
    if bytes_in >= 1024 && WORST_RATIO.fetch_max(beyond, Relaxed) < beyond {
        eprintln!("ratio: {beyond} for each of {bytes_in} bytes");
    }
    done
}

/// A pack in the making.
pub struct Pack {
    bytes: Vec<u8>,
    objects: u32,
}

impl Default for Pack {
    fn default() -> Self {
        Self {
            bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(),
            objects: 0,
        }
    }
}

impl Pack {
    /// Adds an object as it is.
    pub fn add(&mut self, kind: Kind, content: &[u8]) -> ObjectId {
        let type_id = match kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
            Kind::Tag => 4,
        };
        self.entry(type_id, content.len() as u64, b"", content);
        gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, content).expect("no collision")
    }

    /// Adds a commit of a tree.
    pub fn commit(&mut self, tree: ObjectId) -> ObjectId {
        let by = "Robot <robot@example.com> 1700000000 +0900";
        let commit = format!("tree {tree}\nauthor {by}\ncommitter {by}\n\nA tree\n");
        self.add(Kind::Commit, commit.as_bytes())
    }

    /// Adds an entry that says what it likes of its type, size and base. Returns where it stands.
    pub fn entry(&mut self, type_id: u8, mut size: u64, base: &[u8], content: &[u8]) -> usize {
        let offset = self.bytes.len();
        let more = |rest: u64| if rest > 0 { 0x80 } else { 0 };
        let first = (size & 0xf) as u8 | (type_id & 7) << 4;
        size >>= 4;
        self.bytes.push(first | more(size));
        while size > 0 {
            let digit = (size & 0x7f) as u8;
            size >>= 7;
            self.bytes.push(digit | more(size));
        }
        self.bytes.extend_from_slice(base);
        let mut stream = ZlibEncoder::new(&mut self.bytes, Compression::fast());
        stream
            .write_all(content)
            .expect("a vector takes everything");
        stream.finish().expect("a vector takes everything");
        self.objects += 1;
        offset
    }

    /// Where the next entry will stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects == 0
    }

    /// The pack with its number of objects and its checksum.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&self.objects.to_be_bytes());
        sealed(self.bytes)
    }
}

/// `bytes` with a right checksum behind them.
#[must_use]
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&bytes);
    let checksum = hasher.try_finalize().expect("no collision");
    bytes.extend_from_slice(checksum.as_slice());
    bytes
}

/// Bytes that are taken from the front; zeros once there are no more.
pub struct Feed<'a>(pub &'a [u8]);

impl<'a> Feed<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// The next bytes, at most `most`, as many as the next byte says.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// Whether there is no more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
