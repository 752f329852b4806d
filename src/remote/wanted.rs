//! Of the refs that a Git server lists, only those that somebody asked for: the others cost no memory, however many there are.
//! A server may show them to whoever asks for one, since names that begin alike come along, and before protocol v2 it shows
//! all.

use std::{
    collections::BTreeSet,
    io::{self, BufRead},
};

use crate::plain;

/// How long a packet line may be, with its own length in front. Git itself sends no longer ones.
const LONGEST_LINE: usize = 65_520;

/// The length of an id that is a SHA-256, in hex.
const LONG_ID: usize = 64;

/// How many bytes of refs are kept that were asked for by how their names begin.
pub(super) const KEPT_BYTES: usize = 16 << 20;

/// Which refs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By their full names.
    pub names: BTreeSet<String>,
    /// By how their names begin.
    pub prefixes: Vec<String>,
}

impl Wanted {
    /// One ref.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self {
            names: BTreeSet::from([name.to_owned()]),
            prefixes: Vec::new(),
        }
    }

    /// All refs whose names begin so.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        Self {
            names: BTreeSet::new(),
            prefixes: vec![prefix.to_owned()],
        }
    }

    /// What `ls-refs` is to be limited to.
    pub(super) fn starts(&self) -> impl Iterator<Item = &str> {
        let all = self.names.iter().chain(&self.prefixes);
        all.map(String::as_str)
    }

    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.is_named(name) || self.begins(name)
    }

    fn is_named(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.names.contains(name))
    }

    fn begins(&self, name: &[u8]) -> bool {
        let mut prefixes = self.prefixes.iter();
        prefixes.any(|prefix| name.starts_with(prefix.as_bytes()))
    }
}

/// Reads an answer, packet line by packet line, without the refs that nobody asked for.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
#[derive(Debug)]
pub(super) struct Filter {
    wanted: Wanted,
    /// The line that is handed out, and how much of it was.
    line: Vec<u8>,
    read: usize,
    /// What may still be kept, in bytes: of refs that were asked for by how their names begin, and of all else.
    left: usize,
    left_else: usize,
    is_cut: bool,
    /// Whether it lists ids that are no SHA-1.
    has_long_ids: bool,
    /// Whether the first ref is still to come, which brings the capabilities.
    is_hello: bool,
    /// What comes is no packet line: whoever reads it says so.
    is_plain: bool,
}

impl Filter {
    pub(super) fn new(wanted: Wanted, is_hello: bool) -> Self {
        Self {
            wanted,
            line: Vec::new(),
            read: 0,
            left: KEPT_BYTES,
            left_else: KEPT_BYTES,
            is_cut: false,
            has_long_ids: false,
            is_hello,
            is_plain: false,
        }
    }

    /// Whether refs were left out for which there was no room.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether refs were listed whose ids are no SHA-1.
    pub(super) fn has_long_ids(&self) -> bool {
        self.has_long_ids
    }

    /// What comes next, of `from`; nothing at its end.
    pub(super) fn fill<'a>(&'a mut self, from: &'a mut impl BufRead) -> io::Result<&'a [u8]> {
        while self.read == self.line.len() && !self.is_plain {
            self.read = 0;
            if !self.next_line(from)? {
                break;
            }
            check_error(&self.line)?;
            if self.is_hello && name_of(&self.line).is_some() {
                self.is_hello = false;
                self.add_capability();
            }
            let id = self.line.iter().skip(4);
            let id = id.take_while(|byte| byte.is_ascii_hexdigit()).count();
            self.has_long_ids |= id == LONG_ID && name_of(&self.line).is_some();
            if !self.keeps()? {
                self.line.clear();
            }
        }
        if self.read < self.line.len() {
            return Ok(&self.line[self.read..]);
        }
        if self.is_plain {
            return from.fill_buf();
        }
        Ok(&[])
    }

    pub(super) fn consume(&mut self, n: usize, from: &mut impl BufRead) {
        if self.read < self.line.len() {
            self.read += n;
        } else {
            from.consume(n);
        }
    }

    /// Reads a line. Says whether there was one.
    fn next_line(&mut self, from: &mut impl BufRead) -> io::Result<bool> {
        self.line.clear();
        if read_up_to(from, 4, &mut self.line)? < 4 {
            // The end, or too little to be a line: then this is all that there is.
            return Ok(!self.line.is_empty());
        }
        let length = std::str::from_utf8(&self.line)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match length {
            // The ends of sections and of the answer.
            Some(0..=2) => {}
            Some(length @ 4..=LONGEST_LINE) => {
                read_up_to(from, length - 4, &mut self.line)?;
            }
            _ => self.is_plain = true,
        }
        Ok(true)
    }

    /// A server may know none at all, and `gix` wants to see one.
    fn add_capability(&mut self) {
        let end = self.line.iter().rposition(|byte| *byte != b'\n');
        let end = end.map_or(0, |last| last + 1);
        match self.line.iter().position(|byte| *byte == 0) {
            Some(at) if self.line[at..end].iter().all(|byte| b"\0 ".contains(byte)) => {
                self.line.truncate(at);
            }
            Some(_) => return,
            None => self.line.truncate(end),
        }
        self.line.extend_from_slice(b"\0none\n");
        let length = format!("{:04x}", self.line.len());
        self.line[..4].copy_from_slice(length.as_bytes());
    }

    fn keeps(&mut self) -> io::Result<bool> {
        if let Some(name) = name_of(&self.line) {
            // The commit of an annotated tag stands below it before protocol v2.
            let name = name.strip_suffix(b"^{}").unwrap_or(name);
            // The first ref brings the capabilities along, before protocol v2.
            let is_needed = self.wanted.is_named(name) || self.line.contains(&0);
            if !is_needed {
                let room = self.left.checked_sub(self.line.len());
                let begins = self.wanted.begins(name);
                if begins {
                    self.is_cut |= room.is_none();
                    self.left = room.unwrap_or_default();
                }
                return Ok(begins && room.is_some());
            }
        }
        self.left_else = self.left_else.checked_sub(self.line.len()).ok_or_else(|| {
            let why = format!("the answer has more than {KEPT_BYTES} bytes that are no refs");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        Ok(true)
    }
}

/// What a server says is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Said(pub(super) String);

/// A server may say in any packet line why it does not go on.
pub(super) fn check_error(line: &[u8]) -> io::Result<()> {
    let words = line.get(4..).and_then(|line| line.strip_prefix(b"ERR "));
    words.map_or(Ok(()), |words| {
        let words = String::from_utf8_lossy(words);
        Err(io::Error::other(Said(plain::foreign(words.trim()))))
    })
}

/// Reads `most` bytes, or fewer if there are no more.
pub(super) fn read_up_to(
    from: &mut impl BufRead,
    most: usize,
    into: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut left = most;
    while left > 0 {
        let buffer = match from.fill_buf() {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            break;
        }
        let taken = buffer.len().min(left);
        into.extend_from_slice(&buffer[..taken]);
        from.consume(taken);
        left -= taken;
    }
    Ok(most - left)
}

/// The name of the ref that a packet line lists: `<id> <name>`, with more behind it; `None` if it lists none.
fn name_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.get(4..)?;
    let id = line.iter().position(|byte| !byte.is_ascii_hexdigit())?;
    let is_id = (id == 40 || id == LONG_ID) && line[id] == b' ';
    let name = is_id.then(|| &line[id + 1..])?;
    let end = name.iter().position(|byte| b"\0 \n".contains(byte));
    Some(&name[..end.unwrap_or(name.len())])
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    fn line(text: &str) -> String {
        format!("{:04x}{text}", text.len() + 4)
    }

    struct Filtered<R> {
        filter: Filter,
        from: R,
    }

    impl<R: BufRead> Read for Filtered<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.filter.fill(&mut self.from)?.read(buffer)?;
            self.filter.consume(read, &mut self.from);
            Ok(read)
        }
    }

    fn filtered(wanted: &Wanted, answer: &[u8], buffer: usize) -> (Vec<u8>, bool) {
        let mut filtered = Filtered {
            filter: Filter::new(wanted.clone(), false),
            from: BufReader::with_capacity(buffer, answer),
        };
        let mut kept = Vec::new();
        filtered.read_to_end(&mut kept).unwrap();
        (kept, filtered.filter.is_cut())
    }

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let listed = |name: &str| line(&format!("{ID} {name}\n"));
        let v2: String = [
            listed("refs/heads/main"),
            listed("refs/heads/main-x"),
            listed("refs/heads/main peeled:abc"),
            listed("refs/heads/release/1"),
            line("unborn HEAD\n"),
            "0000".into(),
        ]
        .concat();
        let v0: String = [
            line("# service=git-upload-pack\n"),
            "0000".into(),
            line(&format!("{ID} HEAD\0multi_ack\n")),
            listed("refs/heads/main"),
            listed("refs/tags/v1"),
            listed("refs/tags/v1^{}"),
            listed("refs/tags/v10"),
            line(&format!("shallow {ID}\n")),
            "0000".into(),
        ]
        .concat();
        let release = Wanted::prefix("refs/heads/release/");
        let both = Wanted {
            names: ["refs/heads/main".to_owned()].into(),
            ..release.clone()
        };
        for (case, answer, wanted, left_out) in [
            (
                "one name",
                &v2,
                Wanted::name("refs/heads/main"),
                &["main-x", "release/1"][..],
            ),
            (
                "a beginning",
                &v2,
                release,
                &["main\n", "main-x", "main peeled"],
            ),
            ("both", &v2, both, &["main-x"]),
            (
                "none, v0",
                &v0,
                Wanted::default(),
                &["main", "v1\n", "v1^{}", "v10"],
            ),
            (
                "a tag, v0",
                &v0,
                Wanted::name("refs/tags/v1"),
                &["main", "v10"],
            ),
        ] {
            let lines = answer.split_inclusive('\n');
            let kept = lines.filter(|line| {
                !left_out
                    .iter()
                    .any(|name| line.contains(&format!("/{name}")))
            });
            let kept: String = kept.collect();
            for buffer in [1, 7, 4096] {
                let (found, is_cut) = filtered(&wanted, answer.as_bytes(), buffer);
                assert_eq!(String::from_utf8(found).unwrap(), kept, "{case}, {buffer}");
                assert!(!is_cut, "{case}");
            }
        }
    }

    #[test]
    fn what_is_no_list_of_refs_comes_as_it_is() {
        let long = format!("{}{}", line("a"), "x".repeat(100_000));
        for answer in [
            "",
            "00",
            "0006",
            "<html>",
            "fffe0123",
            "0003",
            long.as_str(),
        ] {
            let (kept, _) = filtered(&Wanted::default(), answer.as_bytes(), 16);
            assert_eq!(kept, answer.as_bytes(), "{answer:.10}");
        }
    }

    #[test]
    fn names_that_begin_alike_have_an_end_and_a_name_has_none() {
        let name = "n".repeat(60_000);
        let one = line(&format!("{ID} refs/heads/{name}\n"));
        let many = one.repeat(KEPT_BYTES / one.len() + 2);
        let answer = many + &line(&format!("{ID} refs/heads/z\n"));
        let wanted = Wanted {
            names: ["refs/heads/z".to_owned()].into(),
            prefixes: vec!["refs/heads/".into()],
        };
        let (kept, is_cut) = filtered(&wanted, answer.as_bytes(), 4096);
        assert!(is_cut && kept.len() <= KEPT_BYTES + 100, "{}", kept.len());
        assert!(kept.ends_with(b"refs/heads/z\n"));
    }
}
