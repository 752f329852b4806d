//! Where deflate streams go that are made here, not copied.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use flate2::{Compress, CompressError, Compression, FlushCompress, Status};

use super::{
    CHUNK, PackError,
    stream::{Place, Stream},
};
use crate::progress::Progress;

/// How much of a blob is deflated to see whether it is worth it, in bytes. Fits into [`CHUNK`] however badly it goes.
pub(super) const SAMPLE_BYTES: usize = CHUNK / 8;

/// Where one thread puts the deflate streams that it makes.
pub(super) struct Spool {
    /// Its place in [`Objects::spools`](super::Objects::spools).
    number: u16,
    writer: BufWriter<File>,
    offset: u64,
    deflater: Compress,
    out: Box<[u8]>,
}

impl Spool {
    /// As Git's own default: streams made here are as good as those that are copied.
    const LEVEL: Compression = Compression::new(6);

    pub(super) fn new(number: u16) -> Result<Self, PackError> {
        Ok(Self {
            number,
            writer: BufWriter::with_capacity(CHUNK, tempfile::tempfile().map_err(PackError::Disk)?),
            offset: 0,
            deflater: Compress::new(Self::LEVEL, false),
            out: vec![0; CHUNK].into(),
        })
    }

    pub(super) fn deflate(
        &mut self,
        bytes: &[u8],
        progress: &Progress,
    ) -> Result<Stream, PackError> {
        self.deflater.reset();
        loop {
            if progress.is_stopped() {
                return Err(PackError::Stopped);
            }
            let consumed =
                usize::try_from(self.deflater.total_in()).expect("at most the length of bytes");
            let before = self.deflater.total_out();
            let status = self
                .deflater
                .compress(&bytes[consumed..], &mut self.out, FlushCompress::Finish)
                .map_err(PackError::damaged)?;
            let produced = usize::try_from(self.deflater.total_out() - before)
                .expect("at most the buffer's length");
            let written = self.writer.write_all(&self.out[..produced]);
            written.map_err(PackError::Disk)?;
            if status == Status::StreamEnd {
                break;
            }
        }
        let stream = Stream {
            place: Place::Spool(self.number),
            offset: self.offset,
            len: self.deflater.total_out(),
        };
        self.offset += stream.len;
        Ok(stream)
    }

    /// How small a few bytes get. Nothing is kept.
    pub(super) fn try_deflate(&mut self, bytes: &[u8]) -> Result<usize, CompressError> {
        debug_assert!(bytes.len() <= SAMPLE_BYTES);
        self.deflater.reset();
        self.deflater
            .compress(bytes, &mut self.out, FlushCompress::Finish)?;
        Ok(usize::try_from(self.deflater.total_out()).unwrap_or(usize::MAX))
    }

    /// What was put there up to now.
    pub(super) fn file(&mut self) -> io::Result<&File> {
        self.writer.flush()?;
        Ok(self.writer.get_ref())
    }

    pub(super) fn finish(self) -> Result<File, PackError> {
        self.writer
            .into_inner()
            .map_err(|err| PackError::Disk(err.into_error()))
    }
}
