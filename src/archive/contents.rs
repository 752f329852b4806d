//! The bytes of an archive, which stand in several files: the headers in one of their own, each deflate stream where it was
//! verified. They are put together when somebody reads them, so nothing that is there already is written again.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt,
    sync::Arc,
};

/// How many bytes are read ahead for small pieces.
const WINDOW: usize = 64 * 1024;

/// Bytes between two pieces that are read along rather than skipped: as much as one more call of the system is worth.
const GAP: u64 = 512;

/// How many pieces are looked at to find those that stand close together.
const LOOKED_AT: usize = 1024;

/// A stretch of an archive, up to where the next one begins.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where it begins in the archive.
    start: u64,
    /// Which file it stands in, and where.
    file: u16,
    offset: u64,
}

/// What an archive is put together from.
#[derive(Debug)]
pub(super) struct Contents {
    files: Vec<File>,
    /// One behind the other.
    pieces: Vec<Piece>,
    bytes: u64,
}

impl Contents {
    /// Nothing yet, of so many pieces at most.
    pub(super) fn with_capacity(pieces: usize) -> Self {
        Self {
            files: Vec::new(),
            pieces: Vec::with_capacity(pieces),
            bytes: 0,
        }
    }

    /// All of a file.
    pub(super) fn of(file: File, bytes: u64) -> Self {
        let mut contents = Self::with_capacity(1);
        contents.add(0, 0, bytes);
        contents.stand_in(vec![file]);
        contents
    }

    /// Adds `bytes` bytes that stand at `offset` in the file of this number.
    pub(super) fn add(&mut self, file: usize, offset: u64, bytes: u64) {
        let file = u16::try_from(file).expect("a few");
        let start = self.bytes;
        self.bytes += bytes;
        let goes_on = self
            .pieces
            .last()
            .is_some_and(|last| last.file == file && last.offset + (start - last.start) == offset);
        if bytes > 0 && !goes_on {
            self.pieces.push(Piece {
                start,
                file,
                offset,
            });
        }
    }

    /// Says which files the pieces stand in.
    pub(super) fn stand_in(&mut self, files: Vec<File>) {
        self.files = files;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes over the last bytes, which stand in one piece.
    pub(super) fn write_at_end(&self, bytes: &[u8]) -> io::Result<()> {
        let last = self.pieces.len() - 1;
        let offset = self.extent(last).end - bytes.len() as u64;
        self.file(self.pieces[last].file)
            .write_all_at(bytes, offset)
    }

    fn file(&self, number: u16) -> &File {
        &self.files[usize::from(number)]
    }

    fn end(&self, piece: usize) -> u64 {
        let next = self.pieces.get(piece + 1);
        next.map_or(self.bytes, |next| next.start)
    }

    /// Where in its file a piece stands.
    fn extent(&self, piece: usize) -> Range<u64> {
        let Piece { start, offset, .. } = self.pieces[piece];
        offset..offset + (self.end(piece) - start)
    }

    /// How far a file has what is needed next of it, from a piece on: to the end of that, or of later ones that stand close
    /// behind.
    fn run(&self, piece: usize) -> Range<u64> {
        let mut run = self.extent(piece);
        let file = self.pieces[piece].file;
        let last = self.pieces.len().min(piece + LOOKED_AT);
        for next in piece + 1..last {
            if run.end - run.start >= WINDOW as u64 {
                break;
            }
            if self.pieces[next].file != file {
                continue;
            }
            let Range { start, end } = self.extent(next);
            if start < run.end || start - run.end > GAP {
                break;
            }
            run.end = end;
        }
        run
    }
}

/// Reads an archive, from wherever it is wanted.
#[derive(Debug)]
pub struct Reader {
    contents: Arc<Contents>,
    at: u64,
    /// The piece that holds it, or a guess.
    piece: usize,
    /// What was read ahead, of each file.
    windows: Vec<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// Where it stands in the file.
    offset: u64,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn new(contents: &Arc<Contents>) -> Self {
        let windows = contents.files.iter().map(|_| Window::default()).collect();
        Self {
            contents: Arc::clone(contents),
            at: 0,
            piece: 0,
            windows,
        }
    }

    /// Another one of the same archive, which begins here.
    pub(crate) fn another(&self, at: u64) -> Self {
        Self {
            at,
            ..Self::new(&self.contents)
        }
    }

    /// Finds the piece that holds the next byte.
    fn find(&mut self) {
        let (at, pieces) = (self.at, &self.contents.pieces);
        let holds = |piece: usize| {
            pieces.get(piece).is_some_and(|found| found.start <= at)
                && at < self.contents.end(piece)
        };
        if !holds(self.piece) {
            self.piece = if holds(self.piece + 1) {
                self.piece + 1
            } else {
                pieces.partition_point(|piece| piece.start <= at) - 1
            };
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.contents.bytes || buffer.is_empty() {
            return Ok(0);
        }
        self.find();
        let Piece { start, file, .. } = self.contents.pieces[self.piece];
        let extent = self.contents.extent(self.piece);
        let offset = extent.start + (self.at - start);
        let most = usize::try_from(extent.end - offset).unwrap_or(usize::MAX);
        let buffer_len = buffer.len();
        let wanted = &mut buffer[..most.min(buffer_len)];
        let window = &mut self.windows[usize::from(file)];
        let ahead = usize::try_from(offset.wrapping_sub(window.offset)).ok();
        let ahead = ahead.and_then(|skip| window.bytes.get(skip..));
        let read = match ahead {
            Some(ahead) if !ahead.is_empty() => {
                let read = wanted.len().min(ahead.len());
                wanted[..read].copy_from_slice(&ahead[..read]);
                read
            }
            _ if wanted.len() >= WINDOW / 4 => {
                self.contents.file(file).read_exact_at(wanted, offset)?;
                wanted.len()
            }
            _ => {
                let run = self.contents.run(self.piece);
                let length =
                    usize::try_from(run.end - offset).map_or(WINDOW, |run| run.min(WINDOW));
                window.bytes.resize(length, 0);
                window.offset = offset;
                let filled = self
                    .contents
                    .file(file)
                    .read_exact_at(&mut window.bytes, offset);
                if filled.is_err() {
                    window.bytes.clear();
                }
                filled?;
                let read = wanted.len().min(length);
                wanted[..read].copy_from_slice(&window.bytes[..read]);
                read
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.contents.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at =
            at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Three files of which pieces are taken here and there, and what these are together.
    fn contents(rng: &mut fastrand::Rng, pieces: usize, longest: u64) -> (Arc<Contents>, Vec<u8>) {
        const BYTES: usize = 300_000;
        let bytes: Vec<Vec<u8>> = (0..3)
            .map(|_| (0..BYTES).map(|_| rng.u8(..)).collect())
            .collect();
        let files = bytes.iter().map(|bytes| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        });
        let (mut contents, mut expected) = (Contents::with_capacity(pieces), Vec::new());
        let mut behind = [0; 3];
        for _ in 0..pieces {
            let (file, length) = (rng.usize(..3), rng.u64(..=longest));
            let most = BYTES as u64 - length;
            // Mostly behind the one before, at once or soon.
            let offset = match rng.u8(..4) {
                0 => rng.u64(..most),
                1 => behind[file],
                _ => behind[file] + rng.u64(..2 * GAP),
            };
            let offset = offset.min(most);
            behind[file] = offset + length;
            contents.add(file, offset, length);
            let [from, to] = [offset, offset + length].map(|n| usize::try_from(n).unwrap());
            expected.extend_from_slice(&bytes[file][from..to]);
        }
        contents.stand_in(files.collect());
        (Arc::new(contents), expected)
    }

    fn distance(from: u64, to: u64) -> i64 {
        to.checked_signed_diff(from).unwrap()
    }

    #[test]
    fn it_reads_as_if_it_were_one_file() {
        let mut rng = fastrand::Rng::with_seed(7);
        for (pieces, longest) in [(0, 1), (1, 5), (40, 200_000), (400, 300), (2000, 40)] {
            let (contents, expected) = contents(&mut rng, pieces, longest);
            assert_eq!(contents.bytes(), expected.len() as u64);
            for buffer in [1 << 20, 70_000, 4096, 7] {
                let (mut reader, mut found) = (Reader::new(&contents), Vec::new());
                let mut buffer = vec![0; buffer];
                loop {
                    match reader.read(&mut buffer).unwrap() {
                        0 => break,
                        read => found.extend_from_slice(&buffer[..read]),
                    }
                }
                assert!(found == expected, "{pieces} pieces, {} bytes", buffer.len());
            }
            let mut reader = Reader::new(&contents);
            for _ in 0..500 {
                let from = rng.usize(..=expected.len());
                let to = (from + rng.usize(..=40_000)).min(expected.len());
                let at = match rng.u8(..3) {
                    0 => reader.seek(SeekFrom::Start(from as u64)),
                    1 => reader.seek(SeekFrom::End(distance(expected.len() as u64, from as u64))),
                    _ => reader.seek(SeekFrom::Current(distance(reader.at, from as u64))),
                };
                assert_eq!(at.unwrap(), from as u64);
                let mut found = vec![0; to - from];
                reader.read_exact(&mut found).unwrap();
                assert!(found == expected[from..to], "{from} to {to}");
                if rng.u8(..8) == 0 {
                    reader = reader.another(from as u64);
                }
            }
            assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
            reader.seek(SeekFrom::End(5)).unwrap();
            assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn small_pieces_that_stand_close_are_read_at_once() {
        let mut contents = Contents::with_capacity(200);
        for n in 0..100 {
            contents.add(0, n * 30, 30);
            contents.add(1, n * 110, 100);
        }
        assert_eq!(contents.run(1), 0..11_000 - 10);
        // Not backwards, and not from afar.
        contents.add(1, 0, 100);
        contents.add(0, 3000 + 2 * GAP, 30);
        assert_eq!(contents.run(199), 10_890..10_990);
        assert_eq!(contents.run(198), 2970..3000);
    }

    #[test]
    fn what_is_gone_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let contents = Arc::new(Contents::of(file, 2000));
        for buffer in [10, 100_000] {
            let mut reader = Reader::new(&contents);
            assert!(reader.read(&mut vec![0; buffer]).is_err(), "{buffer}");
            assert!(reader.read(&mut vec![0; buffer]).is_err(), "{buffer}");
        }
    }

    #[test]
    fn the_end_can_be_written_over() {
        let mut rng = fastrand::Rng::with_seed(8);
        let (contents, mut expected) = contents(&mut rng, 50, 3000);
        contents.write_at_end(b"stamp").unwrap();
        let from = expected.len() - 5;
        expected[from..].copy_from_slice(b"stamp");
        let mut found = Vec::new();
        let mut reader = Reader::new(&contents).another(from as u64);
        reader.read_to_end(&mut found).unwrap();
        assert_eq!(found, b"stamp");
    }
}
