//! A file that is hashed while it is written, beside whoever writes it: where there are two processors, it costs no time.

use std::{
    fs::File,
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use sha2::{Digest, Sha256};

/// How many chunks may wait to be hashed. Each is as large as the writer's buffer.
const WAITING: usize = 8;

/// A file in the making, and the SHA-256 of what was written to it.
pub(super) struct Hashing {
    file: File,
    chunks: SyncSender<Vec<u8>>,
    hasher: JoinHandle<Sha256>,
}

impl Hashing {
    pub(super) fn of(file: File) -> Self {
        let (chunks, waiting) = sync_channel::<Vec<u8>>(WAITING);
        let hasher = thread::spawn(move || {
            let mut hash = Sha256::new();
            for chunk in waiting {
                hash.update(&chunk);
            }
            hash
        });
        Self {
            file,
            chunks,
            hasher,
        }
    }

    /// The file, and the digest of all that was written to it, to which more can be added.
    ///
    /// # Panics
    ///
    /// Never: hashing does not.
    pub(super) fn finish(self) -> (File, Sha256) {
        drop(self.chunks);
        let hash = self.hasher.join().expect("hashing does not panic");
        (self.file, hash)
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let chunk = bytes[..written].to_vec();
        self.chunks.send(chunk).map_err(io::Error::other)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
