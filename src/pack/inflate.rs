//! The one loop that inflates, wherever a deflate stream comes from and whatever becomes of its bytes.

use std::{fmt, fs::File, os::unix::fs::FileExt};

use flate2::{Decompress, FlushDecompress, Status};

use super::{CHUNK, PackError, stream::Stream};
use crate::progress::Progress;

/// Where deflated bytes come from.
pub(super) trait DeflatedBytes {
    /// Bytes that were not consumed yet; none at the end.
    fn peek(&mut self) -> Result<&[u8], PackError>;

    /// So many of them are done with.
    fn consume(&mut self, n: usize);
}

/// Why a stream cannot be inflated.
pub(super) enum Uninflatable {
    /// Its bytes cannot be read.
    Source(PackError),
    /// It ends early.
    Truncated,
    /// It is not what it should be, in words that follow its name.
    Wrong(String),
}

/// How deflate streams are framed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a header and an Adler-32, as in a pack.
    Zlib,
    /// Not at all, as in a zip.
    None,
}

/// Inflates streams, one after the other, with a little memory.
pub(super) struct Inflater {
    zlib: Decompress,
    framing: Framing,
    out: Box<[u8]>,
}

impl Inflater {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            zlib: Decompress::new(framing == Framing::Zlib),
            framing,
            out: vec![0; CHUNK].into(),
        }
    }

    /// Inflates a stream that must hold `size` bytes, and shows these to `each`. Returns how many bytes the stream has.
    pub(super) fn inflate(
        &mut self,
        from: &mut impl DeflatedBytes,
        size: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<u64, Uninflatable> {
        let wrong = |why: &dyn fmt::Display| Uninflatable::Wrong(why.to_string());
        self.zlib.reset(self.framing == Framing::Zlib);
        loop {
            let bytes = from.peek()?;
            let (at_end, before) = (bytes.is_empty(), self.totals());
            let status = self
                .zlib
                .decompress(bytes, &mut self.out, FlushDecompress::None)
                .map_err(|err| wrong(&format_args!("cannot be inflated: {err}")))?;
            let after = self.totals();
            let [consumed, produced] = [after.0 - before.0, after.1 - before.1]
                .map(|n| usize::try_from(n).expect("within a buffer"));
            if after.1 > size {
                return Err(wrong(&"is longer than announced"));
            }
            each(&self.out[..produced]);
            from.consume(consumed);
            match status {
                Status::StreamEnd if after.1 < size => {
                    return Err(wrong(&"is shorter than announced"));
                }
                Status::StreamEnd => return Ok(after.0),
                Status::Ok | Status::BufError if consumed > 0 || produced > 0 => {}
                Status::Ok | Status::BufError if at_end => return Err(Uninflatable::Truncated),
                Status::Ok | Status::BufError => return Err(wrong(&"does not go on")),
            }
        }
    }

    /// The first bytes of a stream that was inflated before: so many, unless it ends earlier.
    pub(super) fn start(
        &mut self,
        from: &mut impl DeflatedBytes,
        most: usize,
    ) -> Result<&[u8], Uninflatable> {
        self.zlib.reset(self.framing == Framing::Zlib);
        let mut len = 0;
        while len < most {
            let bytes = from.peek()?;
            let (at_end, before) = (bytes.is_empty(), self.zlib.total_in());
            let out = &mut self.out[len..most];
            let status = self.zlib.decompress(bytes, out, FlushDecompress::None);
            let status = status.map_err(|err| Uninflatable::Wrong(err.to_string()))?;
            let consumed = usize::try_from(self.zlib.total_in() - before);
            let (consumed, had) = (consumed.expect("within a buffer"), len);
            from.consume(consumed);
            len = usize::try_from(self.zlib.total_out()).expect("within a buffer");
            // What changed on the disk meanwhile may not go on.
            let goes_on = consumed > 0 || len > had;
            if status == Status::StreamEnd || at_end || !goes_on {
                break;
            }
        }
        Ok(&self.out[..len])
    }

    fn totals(&self) -> (u64, u64) {
        (self.zlib.total_in(), self.zlib.total_out())
    }
}

impl From<PackError> for Uninflatable {
    fn from(err: PackError) -> Self {
        Self::Source(err)
    }
}

/// A stream in a file.
pub(super) struct StoredStream<'a> {
    file: &'a File,
    /// What was not read yet.
    offset: u64,
    end: u64,
    buffer: &'a mut [u8],
    /// What was read and not consumed.
    from: usize,
    to: usize,
    progress: Option<&'a Progress>,
}

impl<'a> StoredStream<'a> {
    /// `buffer` is for what is read at a time. Reading ends when `progress` is stopped.
    pub(super) fn new(
        file: &'a File,
        stream: Stream,
        buffer: &'a mut [u8],
        progress: Option<&'a Progress>,
    ) -> Self {
        Self {
            file,
            offset: stream.offset,
            end: stream.offset + stream.len,
            buffer,
            from: 0,
            to: 0,
            progress,
        }
    }
}

impl DeflatedBytes for StoredStream<'_> {
    fn peek(&mut self) -> Result<&[u8], PackError> {
        if self.from == self.to && self.offset < self.end {
            if self.progress.is_some_and(Progress::is_stopped) {
                return Err(PackError::Stopped);
            }
            let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
            (self.from, self.to) = (0, left.min(self.buffer.len()));
            self.file
                .read_exact_at(&mut self.buffer[..self.to], self.offset)
                .map_err(PackError::Disk)?;
            self.offset += self.to as u64;
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn consume(&mut self, n: usize) {
        self.from += n;
    }
}
