//! An object's id, and what else can be known of it, while its bytes pass by.

use gix::{ObjectId, objs::Kind};

use super::{Blob, PackError, stream::Stream};

/// Hashes an object as Git does while its bytes pass by; a blob's CRC-32 and first bytes are taken along.
pub(super) struct Digest {
    kind: Kind,
    size: u64,
    seen: u64,
    id: gix::hash::Hasher,
    crc32: crc32fast::Hasher,
    is_lfs_pointer: bool,
}

impl Digest {
    /// How a pointer file of Git LFS begins.
    ///
    /// Source: <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>
    const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

    pub(super) fn new(kind: Kind, size: u64) -> Self {
        let mut id = gix::hash::hasher(gix::hash::Kind::Sha1);
        id.update(&gix::objs::encode::loose_header(kind, size));
        Self {
            kind,
            size,
            seen: 0,
            id,
            crc32: crc32fast::Hasher::new(),
            is_lfs_pointer: false,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.id.update(bytes);
        if self.kind == Kind::Blob {
            self.crc32.update(bytes);
            // Whole in one piece: a pointer is far smaller than a chunk.
            self.is_lfs_pointer |=
                self.seen == 0 && self.size < 1024 && bytes.starts_with(Self::LFS);
        }
        self.seen += bytes.len() as u64;
    }

    pub(super) fn finish(self, stream: Stream) -> Result<(ObjectId, Blob), PackError> {
        if self.seen != self.size {
            return Err(PackError::damaged(format_args!(
                "an object of {} bytes has {}",
                self.size, self.seen
            )));
        }
        let id = self.id.try_finalize().map_err(PackError::damaged)?;
        let Self {
            size,
            is_lfs_pointer,
            crc32,
            ..
        } = self;
        Ok((
            id,
            Blob {
                size,
                crc32: crc32.finalize(),
                is_lfs_pointer,
                stream,
            },
        ))
    }
}
