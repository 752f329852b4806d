//! The answer to a fetch, up to the pack: packet lines, in which a server may say why there is none. A server without side-bands
//! sends the pack bare behind them, and is put right here: `gix` reads packs out of side-bands only.

use std::io::{self, BufRead};

use super::wanted::{check_error, read_up_to};

/// How many bytes of the pack go into one packet line: as many as fit behind its length and the number of the band.
const BAND_BYTES: usize = 65_520 - 5;

/// Reads an answer and hands out the same, but for a bare pack.
#[derive(Debug, Default)]
pub(super) struct Front {
    /// What is handed out, and how much of it was.
    line: Vec<u8>,
    read: usize,
    behind: Behind,
}

/// What comes behind the line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Behind {
    #[default]
    Lines,
    BarePack,
    Nothing,
    /// What is handed on as it comes: side-bands, and what is no packet line.
    Other,
}

impl Front {
    /// What comes next, of `from`; nothing at its end.
    pub(super) fn fill<'a>(&'a mut self, from: &'a mut impl BufRead) -> io::Result<&'a [u8]> {
        if self.read == self.line.len() {
            self.read = 0;
            self.line.clear();
            match self.behind {
                Behind::Lines => self.next_line(from)?,
                Behind::BarePack => self.next_band(from)?,
                Behind::Nothing => {}
                Behind::Other => return from.fill_buf(),
            }
        }
        Ok(&self.line[self.read..])
    }

    pub(super) fn consume(&mut self, n: usize, from: &mut impl BufRead) {
        if self.read < self.line.len() {
            self.read += n;
        } else {
            from.consume(n);
        }
    }

    fn next_line(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        self.one_line(from)?;
        // In protocol v2 nobody reads on after a flush, and there it may stand why.
        if self.line == b"0000" {
            let mut next = Self::default();
            next.one_line(from)?;
            self.line.append(&mut next.line);
            self.behind = next.behind;
        }
        Ok(())
    }

    fn one_line(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        let read = read_up_to(from, 4, &mut self.line)?;
        if self.line == b"PACK" {
            self.behind = Behind::BarePack;
            self.line = b"0009\x01PACK".to_vec();
            return Ok(());
        }
        let length = std::str::from_utf8(&self.line).ok();
        let length = length.and_then(|length| usize::from_str_radix(length, 16).ok());
        let rest = length.unwrap_or_default().saturating_sub(4);
        read_up_to(from, rest, &mut self.line)?;
        check_error(&self.line)?;
        self.behind = match (read, length, self.line.get(4)) {
            (..4, ..) => Behind::Nothing,
            (_, None, _) | (_, _, Some(1..=3)) => Behind::Other,
            _ => Behind::Lines,
        };
        Ok(())
    }

    fn next_band(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        self.line.extend_from_slice(b"0000\x01");
        let read = read_up_to(from, BAND_BYTES, &mut self.line)?;
        if read == 0 {
            // The end of the side-bands.
            self.line.truncate(4);
            self.behind = Behind::Nothing;
        } else {
            let length = format!("{:04x}", self.line.len());
            self.line[..4].copy_from_slice(length.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    struct Banded<R> {
        front: Front,
        from: R,
    }

    impl<R: BufRead> Read for Banded<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.front.fill(&mut self.from)?.read(buffer)?;
            self.front.consume(read, &mut self.from);
            Ok(read)
        }
    }

    #[test]
    fn only_a_bare_pack_is_put_into_bands() {
        let pack = [&b"PACK"[..], &vec![b'x'; BAND_BYTES + 7]].concat();
        let bands = [
            &b"0009\x01PACKfff0\x01"[..],
            &vec![b'x'; BAND_BYTES],
            b"000c\x01xxxxxxx0000",
        ]
        .concat();
        for (case, before, pack, bands) in [
            ("a pack", "0008NAK\n", &pack[..], &bands[..]),
            ("shallow", "000dshallow a00000008NAK\n", &pack, &bands),
            ("no pack", "0008NAK\n0000", b"", b""),
            (
                "side-bands",
                "0008NAK\n0009\u{1}PACK",
                b"0006\x01x0000",
                b"0006\x01x0000",
            ),
            ("no lines", "<html>", b"", b""),
            ("a cut line", "fff0abc", b"", b""),
        ] {
            for buffer in [1, 7, 100_000] {
                let answer = [before.as_bytes(), pack].concat();
                let mut banded = Banded {
                    front: Front::default(),
                    from: BufReader::with_capacity(buffer, &answer[..]),
                };
                let mut found = Vec::new();
                banded.read_to_end(&mut found).unwrap();
                assert!(
                    found == [before.as_bytes(), bands].concat(),
                    "{case}, {buffer}"
                );
            }
        }
    }
}
