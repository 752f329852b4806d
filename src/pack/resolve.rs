//! Deltas become objects, and streams that are too long are made anew. A delta is applied to its base once, from the bases
//! up, and blobs are deflated into a spool file.
//!
//! A family is a whole object and all deltas that stand on it, directly or not. Families know nothing of each other, so
//! threads take one after the other. Within a family the walk is depth first, and a base is dropped as soon as its last
//! delta is applied. Where a family branches, bases wait for their other deltas. If those take too much memory, the oldest
//! are dropped and read again when it is their turn: by then, more than their own bytes have been made.

use std::{
    collections::HashMap,
    fs::File,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use gix::{ObjectId, objs::Kind};

use super::{
    Blob, MAX_THREADS, Object, Objects, PackError,
    budget::Budget,
    delta,
    digest::Digest,
    receive::{Delta, DeltaBase, IncomingPack},
    spool::{SAMPLE_BYTES, Spool},
    stock::{Stock, most_deflated},
    stream::{Place, Stream, StreamReader},
    way::Way,
};
use crate::progress::Progress;

/// Families with an object above this size are worked on one at a time, so that memory holds one large base and one
/// large result, however many threads there are. In bytes.
const LARGE: u64 = 4 << 20;

/// Applies every delta of `received`, to objects of the pack or of `stock`.
pub(super) fn resolve(
    received: IncomingPack,
    stock: Option<Stock>,
    budget: &Budget<'_>,
    progress: &Progress,
) -> Result<Objects, PackError> {
    let IncomingPack {
        pack,
        pack_bytes,
        mut index,
        whole,
        deltas,
    } = received;
    let mut children = Children::default();
    for (n, delta) in deltas.iter().enumerate() {
        match delta.base {
            DeltaBase::Offset(offset) => children.by_offset.entry(offset).or_default().push(n),
            DeltaBase::Id(id) => children.by_id.entry(id).or_default().push(n),
        }
    }
    let in_stock = |id: &ObjectId| stock.as_ref().is_some_and(|stock| stock.get(id).is_some());
    let outside = children
        .by_id
        .keys()
        .filter(|id| !index.contains_key(*id) && in_stock(id));
    let outside: Vec<_> = outside.map(|id| (None, *id)).collect();
    let roots: Vec<(Option<u64>, ObjectId)> = whole
        .into_iter()
        .filter(|(offset, id)| children.are_of(*offset, id))
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
        children: Mutex::new(children),
        roots,
        next_root: AtomicUsize::new(0),
        poor,
        next_poor: AtomicUsize::new(0),
        applied: AtomicUsize::new(0),
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
    let missing = deltas.len() - work.applied.load(Relaxed);
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
    children: Mutex<Children>,
    /// Objects that are somebody's base and no delta themselves: their offset in the pack, unless they are in the stock.
    roots: Vec<(Option<u64>, ObjectId)>,
    next_root: AtomicUsize,
    /// Blobs whose streams are no smaller than what they hold.
    poor: Vec<ObjectId>,
    next_poor: AtomicUsize,
    applied: AtomicUsize,
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

    /// The deltas on an object that nobody has taken yet. A pack may hold an object twice; its deltas are applied once.
    fn take_children(&self, offset: Option<u64>, id: &ObjectId) -> Vec<usize> {
        let mut children = self
            .children
            .lock()
            .expect("nothing panics while it is held");
        let by_offset = offset.and_then(|offset| children.by_offset.remove(&offset));
        let mut taken = by_offset.unwrap_or_default();
        taken.extend(children.by_id.remove(id).unwrap_or_default());
        taken
    }
}

/// Deltas by their base. Each is in one list, and goes with it.
#[derive(Default)]
struct Children {
    by_offset: HashMap<u64, Vec<usize>>,
    by_id: HashMap<ObjectId, Vec<usize>>,
}

impl Children {
    fn are_of(&self, offset: u64, id: &ObjectId) -> bool {
        self.by_offset.contains_key(&offset) || self.by_id.contains_key(id)
    }
}

/// One thread's tools.
struct Resolver<'a> {
    work: &'a Work<'a>,
    reader: StreamReader,
    spool: Spool,
    objects: Resolved,
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
            if self.work.progress.is_stopped() {
                return Err(PackError::Stopped);
            }
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
        let mut way = Way::default();
        way.push(None, None, work.take_children(offset, &root));
        while let Some(parent) = way.ancestors.last_mut() {
            let Some(child) = parent.waiting.pop() else {
                way.pop();
                continue;
            };
            if work.progress.is_stopped() {
                return Err(PackError::Stopped);
            }
            let (is_last, made) = (parent.waiting.is_empty(), parent.made);
            let delta = &work.deltas[child];
            if delta.result_size.max(root_size) > LARGE && one_at_a_time.is_none() {
                one_at_a_time = Some(work.large.lock().expect("no holder panics"));
            }
            if way.last().bytes.is_none() {
                let bytes = match made {
                    None => self.whole(root)?,
                    Some(made) => self.made(made)?,
                };
                way.restore(bytes);
            }
            way.make_room(usize::try_from(delta.result_size).map_err(PackError::damaged)?);
            let base = way.last().bytes.as_deref().expect("it was restored");
            let bytes = self.apply(base, delta)?;
            if is_last {
                way.drop_last();
            }
            let id = self.accept(kind, &bytes)?;
            work.applied.fetch_add(1, Relaxed);
            work.progress.add_object();
            let waiting = work.take_children(Some(delta.offset), &id);
            if !waiting.is_empty() {
                way.push(Some(self.objects.len() - 1), Some(bytes), waiting);
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
        if blob.stream.len <= most_deflated(blob.size) && !self.compresses(blob.stream)? {
            return Ok(());
        }
        let one_at_a_time =
            (blob.size > LARGE).then(|| self.work.large.lock().expect("no holder panics"));
        let bytes = self.inflate(blob.stream, blob.size)?;
        let stream = self.spool.deflate(&bytes, self.work.progress)?;
        drop(one_at_a_time);
        self.objects
            .push((id, Object::Blob(Blob { stream, ..*blob })));
        Ok(())
    }

    /// Whether the beginning of a blob of the pack gets smaller by a tenth.
    fn compresses(&mut self, stream: Stream) -> Result<bool, PackError> {
        let pack = self.work.pack;
        let sample = self.reader.start(pack, stream, SAMPLE_BYTES)?;
        let deflated = self.spool.try_deflate(sample).map_err(PackError::damaged)?;
        Ok(deflated < sample.len() / 10 * 9)
    }

    /// Reads an object again that this thread has made.
    fn made(&mut self, made: usize) -> Result<Vec<u8>, PackError> {
        match &self.objects[made].1 {
            Object::Plain(_, bytes) => Ok(bytes.to_vec()),
            Object::Blob(blob) => {
                let (stream, size) = (blob.stream, blob.size);
                let file = self.spool.file().map_err(PackError::Disk)?;
                self.reader.inflate(file, stream, size)
            }
        }
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
            let (id, blob) = digest.finish(self.spool.deflate(bytes, self.work.progress)?)?;
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
