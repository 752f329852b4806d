//! Deltas become objects, and streams that are too long are made anew. A delta is applied to its base once, from the bases
//! up, and blobs are deflated into a spool file.
//!
//! A family is a whole object and all deltas that stand on it, directly or not. Families know nothing of each other, so
//! threads take one after the other. Within a family the walk is depth first, and a base is dropped as soon as its last
//! delta is applied. Where a family branches, bases wait for their other deltas; more than [`WAITING_BYTES`] of them are
//! dropped and made again when it is their turn.

use std::{
    collections::HashMap,
    fs::File,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use gix::{ObjectId, objs::Kind};

use super::{
    Blob, MAX_THREADS, Object, Objects, PackError,
    budget::Budget,
    delta,
    digest::Digest,
    receive::{Base, Delta, Received},
    spool::{SAMPLE_BYTES, Spool},
    stock::{Stock, most_deflated},
    stream::{Place, Stream, StreamReader},
};
use crate::progress::Progress;

/// Bases that may wait in memory for their other deltas, in bytes a thread.
const WAITING_BYTES: usize = 8 << 20;

/// Families with an object above this size are worked on one at a time, so that memory holds one large base and one
/// large result, however many threads there are. In bytes.
const LARGE: u64 = 4 << 20;

/// Applies every delta of `received`, to objects of the pack or of `stock`.
pub(super) fn resolve(
    received: Received,
    stock: Option<Stock>,
    budget: &Budget<'_>,
    progress: &Progress,
) -> Result<Objects, PackError> {
    let Received {
        pack,
        pack_bytes,
        mut index,
        whole,
        deltas,
    } = received;
    let mut by_offset: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut by_id: HashMap<ObjectId, Vec<usize>> = HashMap::new();
    for (n, delta) in deltas.iter().enumerate() {
        match delta.base {
            Base::Offset(offset) => by_offset.entry(offset).or_default().push(n),
            Base::Id(id) => by_id.entry(id).or_default().push(n),
        }
    }
    let in_stock = |id: &ObjectId| stock.as_ref().is_some_and(|stock| stock.get(id).is_some());
    let outside = by_id
        .keys()
        .filter(|id| !index.contains_key(*id) && in_stock(id));
    let outside: Vec<_> = outside.map(|id| (None, *id)).collect();
    let roots: Vec<(Option<u64>, ObjectId)> = whole
        .into_iter()
        .filter(|(offset, id)| by_offset.contains_key(offset) || by_id.contains_key(id))
        .map(|(offset, id)| (Some(offset), id))
        .chain(outside)
        .collect();
    let is_poor = |object: &Object| match object {
        Object::Blob(blob) => blob.stream.len > blob.size && blob.size > 0,
        Object::Plain(..) => false,
    };
    let poor = index
        .iter()
        .filter(|(_, object)| is_poor(object))
        .map(|(id, _)| *id)
        .collect();
    let work = Work {
        pack: &pack,
        stock: stock.as_ref(),
        index: &index,
        deltas: &deltas,
        by_offset,
        by_id,
        roots,
        next_root: AtomicUsize::new(0),
        poor,
        next_poor: AtomicUsize::new(0),
        applied: deltas.iter().map(|_| AtomicBool::new(false)).collect(),
        large: Mutex::new(()),
        budget,
        progress,
    };

    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS)
        .min(work.roots.len() + work.poor.len());
    let results: Vec<Result<(File, Resolved), PackError>> = thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..u16::try_from(threads).expect("a few"))
            .map(|n| scope.spawn(move || Resolver::new(work, n)?.run()))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a resolver does not panic"))
            .collect()
    });
    let missing = work
        .applied
        .iter()
        .filter(|applied| !applied.load(Relaxed))
        .count();
    drop(work);

    let mut spools = Vec::new();
    for result in results {
        let (spool, objects) = result?;
        spools.push(spool);
        index.extend(objects);
    }
    if missing > 0 {
        return Err(PackError::damaged(format_args!(
            "the bases of {missing} deltas are not in it"
        )));
    }
    Ok(Objects {
        index,
        pack,
        spools,
        stock,
        pack_bytes,
    })
}

type Resolved = Vec<(ObjectId, Object)>;

/// What all threads share.
struct Work<'a> {
    pack: &'a File,
    stock: Option<&'a Stock>,
    index: &'a HashMap<ObjectId, Object>,
    deltas: &'a [Delta],
    /// Deltas by their base.
    by_offset: HashMap<u64, Vec<usize>>,
    by_id: HashMap<ObjectId, Vec<usize>>,
    /// Objects that are somebody's base and no delta themselves: their offset in the pack, unless they are in the stock.
    roots: Vec<(Option<u64>, ObjectId)>,
    next_root: AtomicUsize,
    /// Blobs whose streams are no smaller than what they hold.
    poor: Vec<ObjectId>,
    next_poor: AtomicUsize,
    /// A pack that holds an object twice names its deltas twice.
    applied: Vec<AtomicBool>,
    large: Mutex<()>,
    budget: &'a Budget<'a>,
    progress: &'a Progress,
}

impl Work<'_> {
    /// A whole object of the pack, or one of the stock.
    fn root(&self, id: &ObjectId) -> &Object {
        let in_stock = || self.stock.and_then(|stock| stock.get(id));
        let root = self.index.get(id).or_else(in_stock);
        root.expect("roots were found there")
    }

    fn children(&self, offset: Option<u64>, id: &ObjectId) -> Vec<usize> {
        let at = |found: Option<&Vec<usize>>| found.cloned().unwrap_or_default();
        let mut children = at(offset.and_then(|offset| self.by_offset.get(&offset)));
        children.extend(at(self.by_id.get(id)));
        children
    }
}

/// One thread's tools.
struct Resolver<'a> {
    work: &'a Work<'a>,
    reader: StreamReader,
    spool: Spool,
    objects: Resolved,
}

/// An object of the family on the way from the root to where the walk is.
struct Ancestor {
    /// `None` for the root.
    delta: Option<usize>,
    /// `None` if it was dropped to save memory, or since no delta needs it again.
    bytes: Option<Vec<u8>>,
    waiting: Vec<usize>,
}

impl<'a> Resolver<'a> {
    fn new(work: &'a Work<'a>, spool: u16) -> Result<Self, PackError> {
        Ok(Self {
            work,
            reader: StreamReader::new(),
            spool: Spool::new(spool)?,
            objects: Vec::new(),
        })
    }

    fn run(mut self) -> Result<(File, Resolved), PackError> {
        while let Some(&(offset, id)) = self
            .work
            .roots
            .get(self.work.next_root.fetch_add(1, Relaxed))
        {
            self.family(offset, id)?;
        }
        while let Some(id) = self
            .work
            .poor
            .get(self.work.next_poor.fetch_add(1, Relaxed))
        {
            self.deflate_again(*id)?;
        }
        Ok((self.spool.finish()?, self.objects))
    }

    fn family(&mut self, offset: Option<u64>, root: ObjectId) -> Result<(), PackError> {
        let work = self.work;
        let mut one_at_a_time = None;
        let (kind, root_size) = match work.root(&root) {
            Object::Plain(kind, bytes) => (*kind, bytes.len() as u64),
            Object::Blob(blob) => (Kind::Blob, blob.size),
        };
        let mut path = vec![Ancestor {
            delta: None,
            bytes: None,
            waiting: work.children(offset, &root),
        }];
        while let Some(parent) = path.last_mut() {
            let Some(child) = parent.waiting.pop() else {
                path.pop();
                continue;
            };
            if work.applied[child].swap(true, Relaxed) {
                continue;
            }
            if work.progress.is_stopped() {
                return Err(PackError::Stopped);
            }
            let delta = &work.deltas[child];
            if delta.result_size.max(root_size) > LARGE && one_at_a_time.is_none() {
                one_at_a_time = Some(work.large.lock().expect("no holder panics"));
            }
            let is_last = parent.waiting.is_empty();
            let base = self.bytes_of(&mut path, root)?;
            let bytes = self.apply(&base, delta)?;
            if is_last {
                drop(base);
            } else {
                path.last_mut().expect("the parent").bytes = Some(base);
            }
            let id = self.accept(kind, &bytes)?;
            work.progress.add_object();
            let waiting = work.children(Some(delta.offset), &id);
            if !waiting.is_empty() {
                let held: usize = path
                    .iter()
                    .filter_map(|a| a.bytes.as_ref())
                    .map(Vec::len)
                    .sum();
                if held > WAITING_BYTES {
                    for ancestor in &mut path {
                        ancestor.bytes = None;
                    }
                }
                path.push(Ancestor {
                    delta: Some(child),
                    bytes: Some(bytes),
                    waiting,
                });
            }
        }
        Ok(())
    }

    /// Replaces the stream of a blob, where that helps.
    fn deflate_again(&mut self, id: ObjectId) -> Result<(), PackError> {
        let Object::Blob(blob) = &self.work.index[&id] else {
            return Ok(());
        };
        if self.work.progress.is_stopped() {
            return Err(PackError::Stopped);
        }
        let one_at_a_time =
            (blob.size > LARGE).then(|| self.work.large.lock().expect("no holder panics"));
        let bytes = self.inflate(blob.stream, blob.size)?;
        if blob.stream.len <= most_deflated(blob.size) && !self.compresses(&bytes)? {
            return Ok(());
        }
        let stream = self.spool.deflate(&bytes).map_err(PackError::Disk)?;
        drop(one_at_a_time);
        self.objects
            .push((id, Object::Blob(Blob { stream, ..*blob })));
        Ok(())
    }

    /// Whether the beginning of a blob gets smaller by a tenth.
    fn compresses(&mut self, bytes: &[u8]) -> Result<bool, PackError> {
        let sample = &bytes[..bytes.len().min(SAMPLE_BYTES)];
        let deflated = self.spool.try_deflate(sample).map_err(PackError::damaged)?;
        Ok(deflated < sample.len() / 10 * 9)
    }

    /// Takes the bytes of the last ancestor. If they were dropped, so were those of all before it: they are made again
    /// from the root on, and what fits of the last ones stays for their own waiting deltas.
    fn bytes_of(&mut self, path: &mut [Ancestor], root: ObjectId) -> Result<Vec<u8>, PackError> {
        if let Some(bytes) = path.last_mut().and_then(|last| last.bytes.take()) {
            return Ok(bytes);
        }
        let mut bytes = self.whole(root)?;
        let (mut first, mut held) = (0, 0);
        for n in 1..path.len() {
            let delta = path[n].delta.expect("only the root is none");
            let next = self.apply(&bytes, &self.work.deltas[delta])?;
            let base = std::mem::replace(&mut bytes, next);
            if path[n - 1].waiting.is_empty() {
                continue;
            }
            held += base.len();
            path[n - 1].bytes = Some(base);
            while held > WAITING_BYTES {
                held -= path[first].bytes.take().map_or(0, |bytes| bytes.len());
                first += 1;
            }
        }
        Ok(bytes)
    }

    fn whole(&mut self, id: ObjectId) -> Result<Vec<u8>, PackError> {
        match self.work.root(&id) {
            Object::Plain(_, bytes) => Ok(bytes.to_vec()),
            Object::Blob(blob) => self.inflate(blob.stream, blob.size),
        }
    }

    /// Inflates a stream of the pack or the stock that was seen to hold `size` bytes.
    fn inflate(&mut self, stream: Stream, size: u64) -> Result<Vec<u8>, PackError> {
        let file = match (stream.place, self.work.stock) {
            (Place::Stock, Some(stock)) => stock.file(),
            _ => self.work.pack,
        };
        self.reader.inflate(file, stream, size)
    }

    fn apply(&mut self, base: &[u8], delta: &Delta) -> Result<Vec<u8>, PackError> {
        let instructions = self.inflate(delta.stream, delta.size)?;
        let (base_size, result_size, header) = delta::sizes(&instructions)?;
        if base_size != base.len() as u64 || result_size != delta.result_size {
            return Err(PackError::damaged("a delta for another base"));
        }
        delta::apply(base, &instructions[header..], result_size)
            .ok_or_else(|| PackError::damaged("a delta that does not fit"))
    }

    fn accept(&mut self, kind: Kind, bytes: &[u8]) -> Result<ObjectId, PackError> {
        let mut digest = Digest::new(kind, bytes.len() as u64);
        digest.update(bytes);
        let (id, object) = if kind == Kind::Blob {
            let (id, blob) = digest.finish(self.spool.deflate(bytes).map_err(PackError::Disk)?)?;
            (id, Object::Blob(blob))
        } else {
            self.work.budget.keep(bytes.len() as u64)?;
            let (id, Blob { .. }) = digest.finish(Stream::NONE)?;
            (id, Object::Plain(kind, bytes.into()))
        };
        self.objects.push((id, object));
        Ok(id)
    }
}
