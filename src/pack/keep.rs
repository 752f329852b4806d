//! What becomes of a pack's bytes besides being understood: they go to a file, and into the pack's own checksum. On a thread
//! of its own where there is a core for it, since that is half of the work where little is to be inflated.

use std::{
    fs::File,
    io::Write,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{self, JoinHandle},
};

use gix::ObjectId;

use super::PackError;

/// The SHA-1 of everything before it.
pub(super) const TRAILER_LEN: usize = 20;

/// How much is handed to the thread at once, in bytes: to wake it costs as much as to write 50 KB.
const PIECE: usize = 128 * 1024;

/// How many pieces may wait for the thread.
const WAITING: usize = 4;

/// Keeps a pack.
pub(super) enum Keep {
    /// Right away.
    Here(Kept),
    /// On a thread, which gives its buffers back.
    Beside {
        /// What is handed over when there is more of it.
        next: Vec<u8>,
        pieces: SyncSender<Vec<u8>>,
        buffers: Receiver<Vec<u8>>,
        thread: JoinHandle<Result<Kept, PackError>>,
    },
}

/// What was kept.
pub(super) struct Kept {
    file: File,
    checksum: gix::hash::Hasher,
    /// The last bytes, which may be the trailer.
    last: Vec<u8>,
}

impl Keep {
    pub(super) fn new() -> Result<Self, PackError> {
        Ok(Self::Here(Kept {
            file: tempfile::tempfile().map_err(PackError::Disk)?,
            checksum: gix::hash::hasher(gix::hash::Kind::Sha1),
            last: Vec::with_capacity(TRAILER_LEN),
        }))
    }

    /// Keeps the next bytes. The second time, a thread begins: what comes in one piece is not worth it.
    pub(super) fn take(self, bytes: &[u8], is_first: bool) -> Result<Self, PackError> {
        match self {
            Self::Here(mut kept) => {
                kept.take(bytes)?;
                let has_core =
                    || thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
                Ok(if !is_first && has_core() {
                    kept.beside()
                } else {
                    Self::Here(kept)
                })
            }
            Self::Beside {
                mut next,
                pieces,
                buffers,
                thread,
            } => {
                next.extend_from_slice(bytes);
                if next.len() >= PIECE {
                    if pieces.send(next).is_err() {
                        // It ended early, and says why.
                        return ended(thread).map(Self::Here);
                    }
                    next = buffers.try_recv().unwrap_or_default();
                    next.clear();
                }
                Ok(Self::Beside {
                    next,
                    pieces,
                    buffers,
                    thread,
                })
            }
        }
    }

    /// The file, and whether what was kept ends with its own checksum.
    pub(super) fn finish(self) -> Result<(File, bool), PackError> {
        let kept = match self {
            Self::Here(kept) => kept,
            Self::Beside {
                next,
                pieces,
                thread,
                ..
            } => {
                drop(pieces);
                let mut kept = ended(thread)?;
                kept.take(&next)?;
                kept
            }
        };
        let found = kept.checksum.try_finalize().map_err(PackError::damaged)?;
        let is_right = ObjectId::try_from(&kept.last[..]).is_ok_and(|expected| expected == found);
        Ok((kept.file, is_right))
    }
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.file.write_all(bytes).map_err(PackError::Disk)?;
        let known = (self.last.len() + bytes.len()).saturating_sub(TRAILER_LEN);
        let of_last = known.min(self.last.len());
        self.checksum.update(&self.last[..of_last]);
        self.last.drain(..of_last);
        let (hashed, last) = bytes.split_at(known - of_last);
        self.checksum.update(hashed);
        self.last.extend_from_slice(last);
        Ok(())
    }

    fn beside(self) -> Keep {
        let (pieces, incoming) = sync_channel(WAITING);
        let (used, buffers) = channel();
        let thread = thread::spawn(move || self.take_all(&incoming, &used));
        Keep::Beside {
            next: Vec::with_capacity(PIECE),
            pieces,
            buffers,
            thread,
        }
    }

    fn take_all(
        mut self,
        incoming: &Receiver<Vec<u8>>,
        used: &Sender<Vec<u8>>,
    ) -> Result<Self, PackError> {
        for piece in incoming {
            self.take(&piece)?;
            // At the end, nobody wants it back.
            used.send(piece).ok();
        }
        Ok(self)
    }
}

fn ended(thread: JoinHandle<Result<Kept, PackError>>) -> Result<Kept, PackError> {
    thread.join().expect("it does not panic")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// So many bytes and their checksum, in pieces of a size.
    fn keep(len: usize, piece: usize) -> (Vec<u8>, bool) {
        let mut bytes: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
        let mut checksum = gix::hash::hasher(gix::hash::Kind::Sha1);
        checksum.update(&bytes);
        bytes.extend_from_slice(checksum.try_finalize().unwrap().as_slice());
        let mut keep = Keep::new().unwrap();
        for (nth, piece) in bytes.chunks(piece).enumerate() {
            keep = keep.take(piece, nth == 0).unwrap();
        }
        let (file, is_right) = keep.finish().unwrap();
        let mut written = vec![0; bytes.len()];
        file.read_exact_at(&mut written, 0).unwrap();
        assert_eq!(written, bytes);
        let mut rest = Vec::new();
        (&file).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
        (written, is_right)
    }

    #[test]
    fn the_checksum_is_of_all_but_the_last_bytes_however_they_come() {
        for (len, piece) in [
            (0, 100),
            (1, 1),
            (12, 7),
            (100, 19),
            (100, 20),
            (100, 21),
            (1_000_000, 65_536),
        ] {
            let (_, is_right) = keep(len, piece);
            assert!(is_right, "{len} in pieces of {piece}");
        }
        for pieces in [
            vec![],
            vec![&b"too short"[..]],
            vec![&[0; 40], &[1; 40][..]],
        ] {
            let mut keep = Keep::new().unwrap();
            for (nth, piece) in pieces.iter().enumerate() {
                keep = keep.take(piece, nth == 0).unwrap();
            }
            assert!(!keep.finish().unwrap().1, "{pieces:?}");
        }
    }
}
