//! Packs that no git would write, byte by byte.
//!
//! Source: <https://git-scm.com/docs/pack-format>

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use gix::{ObjectId, objs::Kind};

use super::oracle::Entry;

/// What an entry of a pack is, as its header says it.
pub const COMMIT: u8 = 1;
pub const TREE: u8 = 2;
pub const BLOB: u8 = 3;
pub const TAG: u8 = 4;
pub const OFS_DELTA: u8 = 6;
pub const REF_DELTA: u8 = 7;

/// Modes as a tree holds them.
pub const FILE: &str = "100644";
pub const FOLDER: &str = "40000";

/// A pack in the making.
#[derive(Clone)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    objects: u32,
}

impl PackBuilder {
    /// A pack without objects.
    pub fn new() -> Self {
        Self {
            bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(),
            objects: 0,
        }
    }

    /// Adds an object as it is.
    pub fn whole(&mut self, kind: Kind, bytes: &[u8]) -> ObjectId {
        let type_id = match kind {
            Kind::Commit => COMMIT,
            Kind::Tree => TREE,
            Kind::Blob => BLOB,
            Kind::Tag => TAG,
        };
        self.entry(type_id, bytes.len() as u64, b"", &zlib(bytes));
        id_of(kind, bytes)
    }

    /// Adds a blob, and returns where it stands and its id.
    pub fn blob(&mut self, bytes: &[u8]) -> (u64, ObjectId) {
        let offset = self.bytes.len() as u64;
        (offset, self.whole(Kind::Blob, bytes))
    }

    /// Adds a tree of entries with modes such as `100644`, in the order given.
    pub fn tree<N: AsRef<[u8]>>(&mut self, entries: &[(&str, N, ObjectId)]) -> ObjectId {
        self.whole(Kind::Tree, &tree(entries))
    }

    /// Adds a commit of a tree.
    pub fn commit(&mut self, tree: ObjectId) -> ObjectId {
        self.whole(Kind::Commit, &commit(tree))
    }

    /// Adds a delta for the object at `base`, and returns where it stands.
    pub fn ofs_delta(&mut self, base: u64, delta: &[u8]) -> u64 {
        let distance = self.bytes.len() as u64 - base;
        self.distant_delta(distance, delta)
    }

    /// Adds a delta for what stands so many bytes before it.
    pub fn distant_delta(&mut self, mut distance: u64, delta: &[u8]) -> u64 {
        let mut digits = vec![(distance & 0x7f) as u8];
        while distance > 0x7f {
            distance = (distance >> 7) - 1;
            digits.insert(0, (distance & 0x7f) as u8 | 0x80);
        }
        self.entry(OFS_DELTA, delta.len() as u64, &digits, &zlib(delta))
    }

    /// Adds a delta for the object `base`, and returns where it stands.
    pub fn ref_delta(&mut self, base: ObjectId, delta: &[u8]) -> u64 {
        let stream = zlib(delta);
        self.entry(REF_DELTA, delta.len() as u64, base.as_bytes(), &stream)
    }

    /// Adds an entry of any kind and size, with any bytes after that and any stream, and returns where it stands.
    pub fn entry(&mut self, type_id: u8, size: u64, base: &[u8], stream: &[u8]) -> u64 {
        let offset = self.bytes.len() as u64;
        let more = |rest: u64| if rest > 0 { 0x80 } else { 0 };
        let mut rest = size >> 4;
        self.bytes
            .push((size & 0xf) as u8 | type_id << 4 | more(rest));
        while rest > 0 {
            let digit = (rest & 0x7f) as u8;
            rest >>= 7;
            self.bytes.push(digit | more(rest));
        }
        self.bytes.extend_from_slice(base);
        self.bytes.extend_from_slice(stream);
        self.objects += 1;
        offset
    }

    /// The pack.
    pub fn finish(&self) -> Vec<u8> {
        self.finish_as(self.objects)
    }

    /// The pack, which says that it has so many objects.
    pub fn finish_as(&self, objects: u32) -> Vec<u8> {
        let mut pack = self.bytes.clone();
        pack[8..12].copy_from_slice(&objects.to_be_bytes());
        pack.extend([0; 20]);
        super::fault::repair_checksum(&mut pack);
        pack
    }

    /// How many objects it has by now.
    pub fn objects(&self) -> u32 {
        self.objects
    }
}

/// The id of an object.
pub fn id_of(kind: Kind, bytes: &[u8]) -> ObjectId {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, bytes).expect("no collision in a test")
}

/// The bytes of a tree.
pub fn tree<N: AsRef<[u8]>>(entries: &[(&str, N, ObjectId)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name.as_ref());
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

/// The bytes of a commit of a tree.
pub fn commit(tree: ObjectId) -> Vec<u8> {
    let by = "Robot <robot@example.com> 1700000000 +0900";
    format!("tree {tree}\nauthor {by}\ncommitter {by}\n\nA tree\n").into_bytes()
}

/// What an archive must hold of a file.
pub fn file(path: &str, content: Vec<u8>) -> Entry {
    Entry {
        path: path.into(),
        mode: 0o100_644,
        id: id_of(Kind::Blob, &content).to_string(),
        content,
    }
}

/// A zlib stream.
pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// A delta's instruction.
#[derive(Clone, Copy)]
pub enum Step<'a> {
    /// This many bytes of the base from this offset, less than 16 MiB.
    Copy(u64, u64),
    /// These bytes, at most 127.
    Insert(&'a [u8]),
    /// Bytes as they are.
    Raw(&'a [u8]),
}

/// A delta that says it makes `result` bytes of `base` bytes.
pub fn delta(base: u64, result: u64, steps: &[Step<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut size in [base, result] {
        while size > 0x7f {
            bytes.push((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        bytes.push((size & 0x7f) as u8);
    }
    for step in steps {
        match step {
            Step::Copy(offset, length) => {
                bytes.push(0xff);
                bytes.extend_from_slice(&offset.to_le_bytes()[..4]);
                bytes.extend_from_slice(&length.to_le_bytes()[..3]);
            }
            Step::Insert(insert) => {
                bytes.push(u8::try_from(insert.len()).expect("at most 127 bytes"));
                bytes.extend_from_slice(insert);
            }
            Step::Raw(raw) => bytes.extend_from_slice(raw),
        }
    }
    bytes
}

/// A commit of ten folders in each of ten folders, and so on ten deep: 10^10 files, or folders, of a dozen objects.
pub fn bomb(of_files: bool) -> (PackBuilder, ObjectId) {
    let mut pack = PackBuilder::new();
    let mut id = if of_files {
        pack.blob(b"boom").1
    } else {
        pack.tree::<&str>(&[])
    };
    for level in 0..10 {
        let names: Vec<_> = (0..10).map(|n| format!("{n}")).collect();
        let mode = if of_files && level == 0 { FILE } else { FOLDER };
        let entries: Vec<_> = names.iter().map(|name| (mode, name, id)).collect();
        id = pack.tree(&entries);
    }
    let commit = pack.commit(id);
    (pack, commit)
}
