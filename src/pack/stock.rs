//! The objects of a commit that was delivered before: what a pack need not hold.
//!
//! Trees are in memory. Blobs are deflate streams in the archive of that delivery, which stays on disk. A stock exists only
//! after every one of them was inflated and compared with its id.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Mutex, PoisonError},
    thread, vec,
};

use gix::{ObjectId, objs::Kind};

use super::{
    Blob, CHUNK, MAX_THREADS, Object, PackError,
    budget::Budget,
    digest::Digest,
    inflate::{Framing, Inflater, StoredStream, Uninflatable},
    stream::{Place, Stream},
};
use crate::{
    limits::{Exceeded, Limits, within},
    progress::Progress,
};

/// Why there is no stock.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// A blob is not what it is said to be.
    #[error("the blob {id} is damaged: {why}")]
    Damaged {
        /// Its id.
        id: ObjectId,
        /// What is wrong with it.
        why: String,
    },
    /// A limit is exceeded, the disk does not work, or the work was stopped.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl From<Exceeded> for StockError {
    fn from(limit: Exceeded) -> Self {
        Self::Pack(limit.into())
    }
}

/// Verified objects of a commit that was delivered before.
pub struct Stock {
    /// The archive of that delivery.
    file: File,
    index: HashMap<ObjectId, Object>,
}

/// What an archive says of one of its blobs.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Its id.
    pub id: ObjectId,
    /// Inflated size in bytes.
    pub size: u64,
    /// CRC-32 of the inflated bytes.
    pub crc32: u32,
    /// Where its deflate stream begins, in bytes from the start of the archive.
    pub offset: u64,
    /// The length of the deflate stream in bytes. Zero for what is empty.
    pub deflated: u64,
}

/// A stock before anything of it is believed.
pub struct Claims<'a> {
    stock: Stock,
    trees: u64,
    budget: Budget<'a>,
}

impl Stock {
    pub(super) fn get(&self, id: &gix::oid) -> Option<&Object> {
        self.index.get(id)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

impl<'a> Claims<'a> {
    /// Nothing yet, of about `objects` blobs and trees in the archive `file`.
    #[must_use]
    pub fn new(file: File, objects: usize, limits: &'a Limits) -> Self {
        // No more than a tree may have, whatever the archive says.
        let most = usize::try_from(limits.entries).unwrap_or(usize::MAX);
        Self {
            stock: Stock {
                file,
                index: HashMap::with_capacity(objects.min(most)),
            },
            trees: 0,
            budget: Budget::new(limits),
        }
    }

    /// Adds a tree, and says its id.
    ///
    /// # Errors
    ///
    /// [`StockError`] if the trees take more memory than a pack's may.
    pub fn add_tree(&mut self, bytes: Vec<u8>) -> Result<ObjectId, StockError> {
        self.budget.keep(bytes.len() as u64)?;
        self.trees += 1;
        let most = self.budget.limits.entries.into();
        within("the number of folders", self.trees, "MAX_ENTRIES", most)?;
        let mut digest = Digest::new(Kind::Tree, bytes.len() as u64);
        digest.update(&bytes);
        let (id, _) = digest.finish(Stream::NONE)?;
        let tree = Object::Plain(Kind::Tree, bytes.into());
        self.stock.index.insert(id, tree);
        Ok(id)
    }

    /// Adds a blob. Of several claims for one blob, the first counts.
    ///
    /// # Errors
    ///
    /// [`StockError`] if it is larger than allowed, alone or together with the others, or its stream is longer than any
    /// sensible one.
    pub fn add_blob(&mut self, claim: &Claim) -> Result<(), StockError> {
        self.budget.inflate(claim.size)?;
        if claim.deflated > most_deflated(claim.size) {
            return Err(damaged(claim.id, "its deflate stream is padded"));
        }
        let stream = Stream {
            place: Place::Stock,
            offset: claim.offset,
            len: claim.deflated,
        };
        self.stock.index.entry(claim.id).or_insert_with(|| {
            Object::Blob(Blob {
                size: claim.size,
                crc32: claim.crc32,
                is_lfs_pointer: false,
                stream,
            })
        });
        Ok(())
    }

    /// Inflates every blob and compares it with its id, its size and its CRC-32.
    ///
    /// # Errors
    ///
    /// [`StockError`] for the first that is something else.
    ///
    /// # Panics
    ///
    /// Never, unless a thread does.
    pub fn verify(self, progress: &Progress) -> Result<Stock, StockError> {
        let Stock { file, mut index } = self.stock;
        let blobs = index.iter_mut().filter_map(|(id, object)| match object {
            Object::Blob(blob) => Some((id, blob)),
            Object::Plain(..) => None,
        });
        let mut blobs: Vec<(&ObjectId, &mut Blob)> = blobs.collect();
        // As they stand on disk.
        blobs.sort_unstable_by_key(|(_, blob)| blob.stream.offset);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(MAX_THREADS).min(blobs.len());
        let queue = Mutex::new(blobs.into_iter());
        thread::scope(|scope| {
            let checkers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| Checker::new(&file).run(&queue, progress)))
                .collect();
            checkers
                .into_iter()
                .try_for_each(|checker| checker.join().expect("a checker does not panic"))
        })?;
        Ok(Stock { file, index })
    }
}

/// The longest stream that a sensible deflater makes of `size` bytes. Without this limit a stream could be padded with
/// empty blocks, and copied to as many paths as the tree has.
pub(super) fn most_deflated(size: u64) -> u64 {
    size.saturating_add(size / 1000 + 64)
}

/// One thread's tools.
struct Checker<'a> {
    file: &'a File,
    inflater: Inflater,
    buffer: Box<[u8]>,
}

impl<'a> Checker<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            inflater: Inflater::new(Framing::None),
            buffer: vec![0; CHUNK].into(),
        }
    }

    fn run(
        mut self,
        queue: &Mutex<vec::IntoIter<(&ObjectId, &mut Blob)>>,
        progress: &Progress,
    ) -> Result<(), StockError> {
        loop {
            // A list of references is whole, whatever became of another thread.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((id, blob)) = next else {
                return Ok(());
            };
            let found = self.read(*id, blob, progress)?;
            if found.0 != *id {
                let why = format_args!("it does not match, what is there is the blob {}", found.0);
                return Err(damaged(*id, why));
            }
            if found.1.crc32 != blob.crc32 {
                return Err(damaged(*id, "it does not match its CRC-32"));
            }
            *blob = found.1;
        }
    }

    /// What really stands where `blob` is said to stand.
    fn read(
        &mut self,
        id: ObjectId,
        blob: &Blob,
        progress: &Progress,
    ) -> Result<(ObjectId, Blob), StockError> {
        let mut digest = Digest::new(Kind::Blob, blob.size);
        if blob.size == 0 && blob.stream.len == 0 {
            return Ok(digest.finish(blob.stream)?);
        }
        let mut stored =
            StoredStream::new(self.file, blob.stream, &mut self.buffer, Some(progress));
        let each = |bytes: &[u8]| digest.update(bytes);
        match self.inflater.inflate(&mut stored, blob.size, each) {
            Ok(len) if len == blob.stream.len => {}
            Ok(_) => return Err(damaged(id, "its deflate stream has another size")),
            Err(Uninflatable::Source(err)) => return Err(err.into()),
            Err(Uninflatable::Truncated) => {
                return Err(damaged(id, "its deflate stream ends early"));
            }
            Err(Uninflatable::Wrong(why)) => return Err(damaged(id, format_args!("it {why}"))),
        }
        Ok(digest.finish(blob.stream)?)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "errors and texts are made for it"
)]
fn damaged(id: ObjectId, why: impl ToString) -> StockError {
    StockError::Damaged {
        id,
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::DeflateEncoder};

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn blob_id(bytes: &[u8]) -> ObjectId {
        gix::objs::compute_hash(gix::hash::Kind::Sha1, Kind::Blob, bytes).unwrap()
    }

    /// A file that begins with 10 bytes of something else, and what is true of the stream behind them.
    fn stored(bytes: &[u8]) -> (File, Claim) {
        let mut file = tempfile::tempfile().unwrap();
        let stream = deflate(bytes);
        file.write_all(b"0123456789").unwrap();
        file.write_all(&stream).unwrap();
        file.write_all(b"and what comes next").unwrap();
        let claim = Claim {
            id: blob_id(bytes),
            size: bytes.len() as u64,
            crc32: crc32fast::hash(bytes),
            offset: 10,
            deflated: stream.len() as u64,
        };
        (file, claim)
    }

    fn verify(file: File, claims: &[Claim], limits: &Limits) -> Result<Stock, String> {
        let mut all = Claims::new(file, claims.len(), limits);
        for claim in claims {
            all.add_blob(claim).map_err(|err| err.to_string())?;
        }
        all.verify(&Progress::default())
            .map_err(|err| err.to_string())
    }

    #[test]
    fn what_is_true_is_believed() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n";
        let long = "many lines\n".repeat(50_000);
        for (case, text, is_pointer) in [
            ("a text", "hello", false),
            ("more than a buffer", long.as_str(), false),
            ("a pointer", pointer, true),
            ("nothing", "", false),
        ] {
            let (file, claim) = stored(text.as_bytes());
            let stock = verify(file, &[claim], &Limits::default()).unwrap();
            let Some(Object::Blob(blob)) = stock.get(&claim.id) else {
                panic!("{case}: it is not there")
            };
            assert_eq!(blob.is_lfs_pointer, is_pointer, "{case}");
            assert_eq!((blob.size, blob.crc32), (claim.size, claim.crc32), "{case}");
        }
    }

    #[test]
    fn no_lie_is_believed() {
        type Lie = fn(&mut Claim);
        let text = "a line that is there again and again\n".repeat(4000);
        let cases: &[(&str, Lie, &str)] = &[
            (
                "the id",
                |claim| claim.id = blob_id(b"else"),
                "does not match",
            ),
            ("the CRC-32", |claim| claim.crc32 ^= 1, "does not match"),
            (
                "a smaller size",
                |claim| claim.size -= 1,
                "longer than announced",
            ),
            ("no size", |claim| claim.size = 0, "padded"),
            ("a larger size", |claim| claim.size += 1, "shorter"),
            (
                "a shorter stream",
                |claim| claim.deflated -= 1,
                "ends early",
            ),
            ("no stream", |claim| claim.deflated = 0, "ends early"),
            (
                "a longer stream",
                |claim| claim.deflated += 1,
                "another size",
            ),
            ("another place", |claim| claim.offset -= 1, ""),
            (
                "behind the end",
                |claim| claim.offset = 1 << 40,
                "temporary file",
            ),
            (
                "a padded stream",
                |claim| claim.deflated = claim.size * 2,
                "padded",
            ),
        ];
        for (case, lie, says) in cases {
            let (file, mut claim) = stored(text.as_bytes());
            lie(&mut claim);
            match verify(file, &[claim], &Limits::default()) {
                Ok(_) => panic!("{case}: it was believed"),
                Err(text) => assert!(text.contains(says), "{case}: {text}"),
            }
        }
    }

    #[test]
    fn a_stream_without_end_stops_at_the_size_that_it_says() {
        // 64 MiB of zeros, which are 64 KiB deflated.
        let (file, mut claim) = stored(&vec![0; 64 << 20]);
        claim.size = claim.deflated;
        let Err(text) = verify(file, &[claim], &Limits::default()) else {
            panic!("it was believed")
        };
        assert!(text.contains("longer than announced"), "{text}");
    }

    #[test]
    fn limits_come_before_any_reading() {
        for (case, limits, says) in [
            (
                "one file",
                Limits {
                    blob_bytes: 4,
                    ..Limits::default()
                },
                "MAX_BLOB_BYTES",
            ),
            (
                "all files",
                Limits {
                    tree_bytes: 0,
                    entries: 0,
                    ..Limits::default()
                },
                "MAX_TREE_BYTES",
            ),
        ] {
            let (file, claim) = stored(&vec![b'a'; 1 << 20]);
            // Nothing of this is there.
            let claims = vec![
                Claim {
                    offset: 1 << 40,
                    ..claim
                };
                20
            ];
            let Err(text) = verify(file, &claims, &limits) else {
                panic!("{case}: it was believed")
            };
            assert!(text.contains(says), "{case}: {text}");
        }
    }

    #[test]
    fn trees_have_limits_too() {
        let limits = Limits {
            entries: 2,
            ..Limits::default()
        };
        let mut claims = Claims::new(tempfile::tempfile().unwrap(), 0, &limits);
        let empty = claims.add_tree(Vec::new()).unwrap();
        assert_eq!(empty, ObjectId::empty_tree(gix::hash::Kind::Sha1));
        claims.add_tree(Vec::new()).unwrap();
        let err = claims.add_tree(Vec::new()).unwrap_err();
        assert!(err.to_string().contains("number of folders"), "{err}");
        let mut claims = Claims::new(tempfile::tempfile().unwrap(), 0, &limits);
        let err = claims.add_tree(vec![0; 9 << 20]).unwrap_err();
        assert!(err.to_string().contains("size of all folders"), "{err}");
    }

    #[test]
    fn a_stop_is_heard() {
        let (file, claim) = stored(b"hello");
        let limits = Limits::default();
        let mut claims = Claims::new(file, 1, &limits);
        claims.add_blob(&claim).unwrap();
        let progress = Progress::default();
        progress.stop();
        let result = claims.verify(&progress);
        assert!(matches!(result, Err(StockError::Pack(PackError::Stopped))));
    }
}
