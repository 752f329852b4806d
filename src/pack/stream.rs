//! Where the deflate stream of an object stands, and how it is read from there again.

use std::{fs::File, os::unix::fs::FileExt};

use flate2::{Decompress, FlushDecompress, Status};

use super::{CHUNK, PackError};

/// Where a raw deflate stream stands (no zlib header, no Adler-32).
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) place: Place,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Which file a stream stands in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The pack.
    Pack,
    /// A thread's spool.
    Spool(u16),
    /// The archive of the stock.
    Stock,
}

impl Stream {
    /// Of what is kept in memory.
    pub(super) const NONE: Self = Self {
        place: Place::Pack,
        offset: 0,
        len: 0,
    };
}

/// Inflates streams, one after the other.
pub(super) struct StreamReader {
    zlib: Decompress,
    buffer: Box<[u8]>,
}

impl StreamReader {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new(false),
            buffer: vec![0; CHUNK].into(),
        }
    }

    /// What a stream in `file` holds. It was seen before, and held `size` bytes.
    pub(super) fn inflate(
        &mut self,
        file: &File,
        stream: Stream,
        size: u64,
    ) -> Result<Vec<u8>, PackError> {
        let mut out = Vec::with_capacity(usize::try_from(size).map_err(PackError::damaged)?);
        let Stream {
            mut offset, len, ..
        } = stream;
        let end = offset + len;
        self.zlib.reset(false);
        while offset < end {
            let n = CHUNK.min(usize::try_from(end - offset).unwrap_or(CHUNK));
            file.read_exact_at(&mut self.buffer[..n], offset)
                .map_err(PackError::Disk)?;
            offset += n as u64;
            let before = self.zlib.total_in();
            let status = self
                .zlib
                .decompress_vec(&self.buffer[..n], &mut out, FlushDecompress::None)
                .map_err(PackError::damaged)?;
            if status != Status::StreamEnd && self.zlib.total_in() - before < n as u64 {
                return Err(PackError::damaged("an object changed while it was read"));
            }
        }
        if out.len() as u64 != size {
            return Err(PackError::damaged("an object changed while it was read"));
        }
        Ok(out)
    }
}
