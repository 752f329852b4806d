//! Where the deflate stream of an object stands, and how it is read from there again.

use std::fs::File;

use super::{
    CHUNK, PackError,
    inflate::{Framing, Inflater, StoredStream, Uninflatable},
};

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

/// Reads streams back, one after the other.
pub(super) struct StreamReader {
    inflater: Inflater,
    buffer: Box<[u8]>,
}

impl StreamReader {
    pub(super) fn new() -> Self {
        Self {
            inflater: Inflater::new(Framing::None),
            buffer: vec![0; CHUNK].into(),
        }
    }

    /// The first bytes that a stream in `file` holds, so many at most. It was seen before.
    pub(super) fn start(
        &mut self,
        file: &File,
        stream: Stream,
        most: usize,
    ) -> Result<&[u8], PackError> {
        let mut stored = StoredStream::new(file, stream, &mut self.buffer, None);
        self.inflater
            .start(&mut stored, most)
            .map_err(|err| match err {
                Uninflatable::Source(err) => err,
                _ => PackError::damaged("an object changed while it was read"),
            })
    }

    /// What a stream in `file` holds. It was seen before, and held `size` bytes.
    pub(super) fn inflate(
        &mut self,
        file: &File,
        stream: Stream,
        size: u64,
    ) -> Result<Vec<u8>, PackError> {
        let mut out = Vec::with_capacity(usize::try_from(size).map_err(PackError::damaged)?);
        // What is empty need not be a stream.
        if size == 0 && stream.len == 0 {
            return Ok(out);
        }
        let mut stored = StoredStream::new(file, stream, &mut self.buffer, None);
        let each = |bytes: &[u8]| out.extend_from_slice(bytes);
        match self.inflater.inflate(&mut stored, size, each) {
            Ok(len) if len == stream.len => Ok(out),
            Err(Uninflatable::Source(err)) => Err(err),
            _ => Err(PackError::damaged("an object changed while it was read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_has_no_stream() {
        let file = tempfile::tempfile().unwrap();
        let found = StreamReader::new().inflate(&file, Stream::NONE, 0);
        assert_eq!(found.unwrap(), b"");
        let found = StreamReader::new().inflate(&file, Stream::NONE, 1);
        assert!(found.is_err(), "it ends early");
    }
}
