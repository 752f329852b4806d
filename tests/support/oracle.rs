//! What a zip must hold, from git's own mouth, and a zip reader that shares no code with the product's writer.
//!
//! Source: <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use flate2::{Decompress, FlushDecompress, Status};

use super::{process::run_within, upstream::Repository};

const SUBMODULE: u32 = 0o160_000;
const SYMLINK: u32 = 0o120_000;
/// 1980-01-01 00:00:00, as time and date of MS-DOS: all that version 0.1 said, and who knows nothing.
const NO_TIME: (u16, u16) = (0, 1 << 5 | 1);
/// 1980-01-02, in seconds of Unix time.
const FIRST_TIME: i64 = 3653 * 86_400;
const UTF8: u16 = 1 << 11;
const UNIX: u16 = 3;

/// One path of a commit's tree.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// As git has it: no `/` at the end, whatever it is.
    pub path: Vec<u8>,
    /// Git's mode, type included.
    pub mode: u32,
    pub id: String,
    /// A symlink's target; nothing for a submodule.
    pub content: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, length) = (self.path.escape_ascii(), self.content.len());
        write!(f, "{:o} {} {path} ({length} bytes)", self.mode, self.id)
    }
}

/// Every path of a commit's tree in git's order, as `git ls-tree` and `git cat-file` have it.
pub fn expected_entries(repository: &Repository, commit: &str) -> Vec<Entry> {
    let listing = repository.git(&["ls-tree", "-r", "-z", "--full-tree", commit]);
    let mut entries: Vec<_> = listing
        .split(|&byte| byte == 0)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let tab = line.iter().position(|&byte| byte == b'\t').unwrap();
            let head = std::str::from_utf8(&line[..tab]).unwrap();
            let [mode, _, id] = head.split(' ').collect::<Vec<_>>()[..] else {
                panic!("git ls-tree wrote {head:?}")
            };
            Entry {
                path: line[tab + 1..].to_owned(),
                mode: u32::from_str_radix(mode, 8).unwrap(),
                id: id.to_owned(),
                content: Vec::new(),
            }
        })
        .collect();
    let blobs: Vec<_> = entries.iter_mut().filter(|e| e.mode != SUBMODULE).collect();
    let ids: String = blobs.iter().map(|entry| entry.id.clone() + "\n").collect();
    let all = repository.git_with_input(&["cat-file", "--batch", "--buffer"], ids.as_bytes());
    let mut rest = &all[..];
    for entry in blobs {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let size = head
            .strip_prefix(&format!("{} blob ", entry.id))
            .unwrap_or_else(|| panic!("git cat-file wrote {head:?}"))
            .parse::<usize>()
            .unwrap();
        let (content, tail) = rest[end + 1..].split_at(size);
        entry.content = content.into();
        rest = &tail[1..];
    }
    entries
}

/// Checks that a zip holds exactly the entries and the commit, in the form that the product promises.
///
/// # Panics
///
/// If it does not.
pub fn assert_zip_equals(zip: &[u8], expected: &[Entry], commit: &str) {
    if let Err(error) = check_zip(zip, expected, commit) {
        panic!("the zip of {commit} is wrong: {error}");
    }
}

/// [`assert_zip_equals`] on a file.
///
/// # Panics
///
/// If it cannot be read, or is not right.
pub fn assert_zip_file_equals(zip: &Path, expected: &[Entry], commit: &str) {
    assert_zip_equals(&fs::read(zip).unwrap(), expected, commit);
}

/// What is wrong with a zip.
///
/// # Errors
///
/// The first thing that is.
pub fn check_zip(zip: &[u8], expected: &[Entry], commit: &str) -> Result<(), String> {
    let archive = read_zip(zip)?;
    let delivery = archive
        .comment
        .strip_prefix(commit.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"\n"))
        .filter(|id| !id.is_empty() && id.iter().all(u8::is_ascii_graphic));
    if delivery.is_none() {
        let comment = archive.comment.escape_ascii();
        return Err(format!("the comment is {comment}"));
    }
    let mut by_name = BTreeMap::new();
    for member in &archive.members {
        if by_name.insert(&member.name[..], member).is_some() {
            return Err(format!("{} is there twice", member.name.escape_ascii()));
        }
    }
    for entry in expected {
        let mut name = entry.path.clone();
        let mut mode = entry.mode;
        if mode == SUBMODULE {
            name.push(b'/');
            mode = 0o040_755;
        } else if mode == SYMLINK {
            mode = 0o120_777;
        }
        let shown = name.escape_ascii();
        let Some(member) = by_name.remove(&name[..]) else {
            return Err(format!("{shown} is missing"));
        };
        if member.mode != mode {
            return Err(format!("{shown} has mode {:o}, not {mode:o}", member.mode));
        }
        if member.content != entry.content {
            return Err(format!("{shown} has another content"));
        }
        if member.time.is_none() {
            return Err(format!("{shown} has no time"));
        }
    }
    match by_name.first_key_value() {
        Some((name, _)) => Err(format!("{} is too much", name.escape_ascii())),
        None => Ok(()),
    }
}

/// A zip, read strictly.
pub struct Zip {
    /// In the order of the central directory.
    pub members: Vec<Member>,
    pub comment: Vec<u8>,
}

/// One entry of a zip.
pub struct Member {
    pub name: Vec<u8>,
    /// From the external attributes, type included.
    pub mode: u32,
    /// When it was changed, in seconds of Unix time, if it says so.
    pub time: Option<i64>,
    pub content: Vec<u8>,
}

/// Reads a zip and refuses what the product must not write: any byte that is not accounted for, data descriptors,
/// headers that disagree, wrong checksums, names without their flag, two times that are not the same instant.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn read_zip(zip: &[u8]) -> Result<Zip, String> {
    let end = End::find(zip)?;
    let mut central = Reader::new(zip, end.directory, end.directory + end.directory_size)?;
    let mut members = Vec::new();
    let mut next = 0;
    for _ in 0..end.entries {
        let header = Header::central(&mut central)?;
        let shown = header.name.escape_ascii().to_string();
        let member = read_member(zip, &header, next, end.directory);
        let (member, after) = member.map_err(|error| format!("{shown}: {error}"))?;
        next = after;
        members.push(member);
    }
    if central.left() != 0 {
        return Err(format!(
            "{} bytes too much in the directory",
            central.left()
        ));
    }
    if next != end.directory {
        return Err(format!("a gap before the directory at {next}"));
    }
    Ok(Zip {
        members,
        comment: end.comment,
    })
}

/// Returns the entry and where the next one must begin.
fn read_member(
    zip: &[u8],
    header: &Header,
    starts: u64,
    directory: u64,
) -> Result<(Member, u64), String> {
    if header.offset != starts {
        return Err(format!("begins at {}, not {starts}", header.offset));
    }
    let mut reader = Reader::new(zip, starts, directory)?;
    let local = Header::local(&mut reader)?;
    local.agrees_with(header)?;
    header.check()?;
    let data = reader.take(header.compressed)?;
    let content = if header.method == 0 {
        data.to_owned()
    } else {
        inflate(data, header.size)?
    };
    if content.len() as u64 != header.size {
        return Err(format!("{} bytes, not {}", content.len(), header.size));
    }
    if crc32fast::hash(&content) != header.crc {
        return Err("wrong CRC-32".into());
    }
    let member = Member {
        name: header.name.clone(),
        mode: header.attributes >> 16,
        time: header.time(),
        content,
    };
    Ok((member, reader.at))
}

fn inflate(data: &[u8], size: u64) -> Result<Vec<u8>, String> {
    let size = usize::try_from(size).map_err(|_| "too large".to_owned())?;
    // One byte more than there should be, so that more is noticed.
    let mut content = Vec::with_capacity(size + 1);
    let mut stream = Decompress::new(false);
    let status = stream.decompress_vec(data, &mut content, FlushDecompress::Finish);
    if !matches!(status, Ok(Status::StreamEnd)) {
        return Err(format!("inflating ends with {status:?}"));
    }
    if stream.total_in() != data.len() as u64 {
        return Err("bytes behind the deflate stream".into());
    }
    Ok(content)
}

/// One entry's header, local or central, with zip64 resolved.
struct Header {
    version_made_by: u16,
    version_needed: u16,
    flags: u16,
    method: u16,
    modified: (u16, u16),
    /// From the field "UT".
    unix_time: Option<u32>,
    crc: u32,
    compressed: u64,
    size: u64,
    name: Vec<u8>,
    extra: Vec<u8>,
    attributes: u32,
    offset: u64,
    zip64: bool,
}

impl Header {
    fn central(reader: &mut Reader) -> Result<Self, String> {
        reader.signature(0x0201_4b50, "central header")?;
        let version_made_by = reader.u16()?;
        let mut header = Self::common(reader)?;
        header.version_made_by = version_made_by;
        let (name, extra) = (reader.u16()?, reader.u16()?);
        let comment = reader.u16()?;
        let disk = reader.u16()?;
        reader.u16()?; // internal attributes: a hint about text
        header.attributes = reader.u32()?;
        header.offset = reader.u32()?.into();
        header.variable(reader, name, extra)?;
        if comment != 0 || disk != 0 {
            return Err("a comment or a disk number".into());
        }
        Ok(header)
    }

    fn local(reader: &mut Reader) -> Result<Self, String> {
        reader.signature(0x0403_4b50, "local header")?;
        let mut header = Self::common(reader)?;
        let (name, extra) = (reader.u16()?, reader.u16()?);
        header.variable(reader, name, extra)?;
        Ok(header)
    }

    /// The fields that both have, in their order.
    fn common(reader: &mut Reader) -> Result<Self, String> {
        Ok(Self {
            version_made_by: 0,
            version_needed: reader.u16()?,
            flags: reader.u16()?,
            method: reader.u16()?,
            modified: (reader.u16()?, reader.u16()?),
            unix_time: None,
            crc: reader.u32()?,
            compressed: reader.u32()?.into(),
            size: reader.u32()?.into(),
            name: Vec::new(),
            extra: Vec::new(),
            attributes: 0,
            offset: 0,
            zip64: false,
        })
    }

    fn variable(&mut self, reader: &mut Reader, name: u16, extra: u16) -> Result<(), String> {
        self.name = reader.take(name.into())?.into();
        self.extra = reader.take(extra.into())?.into();
        let mut fields = Reader::new(&self.extra, 0, self.extra.len() as u64)?;
        while fields.left() > 0 {
            let (id, length) = (fields.u16()?, fields.u16()?);
            let field = fields.take(length.into())?;
            if id == 0x5455 {
                let [1, time @ ..] = field else {
                    return Err("a field UT that has not just the one time".into());
                };
                let time = time
                    .try_into()
                    .map_err(|_| "a field UT of another length")?;
                self.unix_time = Some(u32::from_le_bytes(time));
            }
            if id != 1 {
                continue;
            }
            self.zip64 = true;
            let mut values = Reader::new(field, 0, field.len() as u64)?;
            for value in [&mut self.size, &mut self.compressed, &mut self.offset] {
                if *value == u64::from(u32::MAX) {
                    *value = values.u64()?;
                }
            }
            if values.left() != 0 {
                return Err("zip64 for what fits without".into());
            }
        }
        Ok(())
    }

    fn agrees_with(&self, central: &Self) -> Result<(), String> {
        let all = |h: &Self| {
            (
                (h.version_needed, h.flags, h.method),
                (h.modified, h.unix_time),
                (h.crc, h.compressed, h.size, h.name.clone()),
            )
        };
        if all(self) == all(central) {
            Ok(())
        } else {
            Err("local and central header disagree".into())
        }
    }

    /// What MS-DOS's fields say, taken for UTC.
    fn dos_time(&self) -> i64 {
        let (time, date) = (i64::from(self.modified.0), i64::from(self.modified.1));
        let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
        // Counted in years that begin in March, so that the odd day is the last.
        let (year, month) = if month > 2 {
            (year, month - 3)
        } else {
            (year - 1, month + 9)
        };
        let days =
            365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
        let seconds = (time >> 11) * 3600 + (time >> 5 & 63) * 60 + 2 * (time & 31);
        (days - 719_468) * 86_400 + seconds
    }

    fn time(&self) -> Option<i64> {
        (self.modified != NO_TIME).then(|| self.dos_time())
    }

    /// Whether both times are the same instant, and one that every reader has in every time zone.
    fn has_a_right_time(&self) -> bool {
        let (dos, unix) = (self.dos_time(), self.unix_time.map(i64::from));
        if self.modified == NO_TIME || dos > i32::MAX.into() {
            return unix.is_none();
        }
        dos >= FIRST_TIME && unix == Some(dos)
    }

    fn check(&self) -> Result<(), String> {
        let utf8 = !self.name.is_ascii() && std::str::from_utf8(&self.name).is_ok();
        let flags = if utf8 { UTF8 } else { 0 };
        let folder = self.name.ends_with(b"/");
        let version = match (self.zip64, self.method == 8 || folder) {
            (true, _) => 45,
            (false, true) => 20,
            (false, false) => 10,
        };
        let dos_attributes = self.attributes & 0xffff;
        for (right, wrong) in [
            (self.flags == flags, "flags"),
            (self.method == 0 || self.method == 8, "method"),
            (self.has_a_right_time(), "time"),
            (self.version_made_by >> 8 == UNIX, "version made by"),
            (self.version_needed >= version, "version needed"),
            (!folder || self.compressed == 0, "size of a folder"),
            (!folder || self.size == 0, "size of a folder"),
            (
                self.method == 8 || self.compressed == self.size,
                "size of a stored entry",
            ),
            (
                dos_attributes == 0 || folder && dos_attributes == 0x10,
                "MS-DOS attributes",
            ),
        ] {
            if !right {
                return Err(format!("wrong {wrong}"));
            }
        }
        Ok(())
    }
}

/// The end of the central directory.
struct End {
    entries: u64,
    directory: u64,
    directory_size: u64,
    comment: Vec<u8>,
}

impl End {
    fn find(zip: &[u8]) -> Result<Self, String> {
        const SIGNATURE: &[u8] = b"PK\x05\x06";
        let length = zip.len() as u64;
        let at = (0..=zip.len().saturating_sub(22))
            .rev()
            .take(1 << 16)
            .find(|&at| {
                let comment = zip.get(at + 20..at + 22);
                zip[at..].starts_with(SIGNATURE)
                    && comment.is_some_and(|n| {
                        at + 22 + usize::from(u16::from_le_bytes([n[0], n[1]])) == zip.len()
                    })
            })
            .ok_or("no end of the central directory")? as u64;
        let mut reader = Reader::new(zip, at, length)?;
        reader.signature(0x0605_4b50, "end")?;
        let disks = (reader.u16()?, reader.u16()?);
        let on_disk = reader.u16()?;
        let mut end = Self {
            entries: reader.u16()?.into(),
            directory_size: reader.u32()?.into(),
            directory: reader.u32()?.into(),
            comment: Vec::new(),
        };
        if disks != (0, 0) || u64::from(on_disk) != end.entries {
            return Err("more than one disk".into());
        }
        let comment = reader.u16()?;
        end.comment = reader.take(comment.into())?.into();
        let large = u64::from(u32::MAX);
        let needs_zip64 = end.entries == u64::from(u16::MAX)
            || end.directory == large
            || end.directory_size == large;
        let end_of_directory = if needs_zip64 { end.zip64(zip, at)? } else { at };
        if end.directory.checked_add(end.directory_size) != Some(end_of_directory) {
            return Err("the directory does not end where the end begins".into());
        }
        Ok(end)
    }

    /// Takes the numbers from the zip64 records before the end, and returns where those begin.
    fn zip64(&mut self, zip: &[u8], end: u64) -> Result<u64, String> {
        let locator = end.checked_sub(20).ok_or("no room for a zip64 locator")?;
        let mut reader = Reader::new(zip, locator, end)?;
        reader.signature(0x0706_4b50, "zip64 locator")?;
        reader.u32()?;
        let at = reader.u64()?;
        let mut reader = Reader::new(zip, at, locator)?;
        reader.signature(0x0606_4b50, "zip64 end")?;
        if reader.u64()? != reader.left() {
            return Err("a zip64 end of another size".into());
        }
        reader.take(4)?; // versions
        if reader.u64()? != 0 {
            return Err("more than one disk".into());
        }
        let on_disk = reader.u64()?;
        self.entries = reader.u64()?;
        self.directory_size = reader.u64()?;
        self.directory = reader.u64()?;
        if on_disk != self.entries || reader.left() != 0 {
            return Err("more than one disk, or bytes behind the zip64 end".into());
        }
        Ok(at)
    }
}

/// Little-endian numbers between two positions.
struct Reader<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], at: u64, end: u64) -> Result<Self, String> {
        let end = usize::try_from(end).unwrap();
        let bytes = bytes.get(..end).ok_or("an end behind the end")?;
        if at > bytes.len() as u64 {
            return Err("a position behind the end".into());
        }
        Ok(Self { bytes, at })
    }

    fn left(&self) -> u64 {
        self.bytes.len() as u64 - self.at
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        if length > self.left() {
            return Err(format!("{length} bytes at {} are too many", self.at));
        }
        let from = usize::try_from(self.at).unwrap();
        self.at += length;
        Ok(&self.bytes[from..usize::try_from(self.at).unwrap()])
    }

    fn number(&mut self, length: u64) -> Result<u64, String> {
        let bytes = self.take(length)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::try_from(self.number(2)?).unwrap())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::try_from(self.number(4)?).unwrap())
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.number(8)
    }

    fn signature(&mut self, signature: u32, name: &str) -> Result<(), String> {
        let at = self.at;
        if self.u32()? == signature {
            Ok(())
        } else {
            Err(format!("no {name} at {at}"))
        }
    }
}

const PYTHON: &str = r"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z:
    bad = z.testzip()
    assert bad is None, bad
    print(len(z.infolist()))
";

const JAVA: &str = r"
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.zip.*;
class CountEntries {
    public static void main(String[] args) throws Exception {
        int count = 0;
        try (var zip = new ZipInputStream(new FileInputStream(args[0]), StandardCharsets.ISO_8859_1)) {
            while (zip.getNextEntry() != null) { zip.transferTo(OutputStream.nullOutputStream()); count++; }
        }
        System.out.println(count);
    }
}
";

/// Lets the zip readers that are installed read a zip to its end, and returns their names. Says which are not installed.
///
/// # Panics
///
/// If one of them finds a fault or another number of entries.
pub fn assert_readable_by_others(zip: &Path, expected_count: usize) -> Vec<&'static str> {
    let mut ran = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("CountEntries.java");
    fs::write(&source, JAVA).unwrap();

    let mut python = Command::new("python3");
    python.args(["-I", "-c", PYTHON]).arg(zip);
    let mut java = Command::new("java");
    java.arg("-Xshare:auto").arg(&source).arg(zip);
    for (name, mut command, installed) in [
        ("python3", python, works("python3", "--version")),
        // Only a JDK runs a source file.
        ("java", java, works("javac", "-version")),
    ] {
        if !installed {
            println!("skipped: {name} is not installed");
            continue;
        }
        let output = run(&mut command);
        let count = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(count, expected_count.to_string(), "entries, says {name}");
        ran.push(name);
    }

    if expected_count == 0 {
        println!("skipped: unzip calls an archive without entries an error");
    } else if works("unzip", "-v") {
        run(Command::new("unzip").arg("-tq").arg(zip));
        ran.push("unzip");
    } else {
        println!("skipped: unzip is not installed");
    }
    ran
}

const LIMIT: Duration = Duration::from_mins(2);

fn works(program: &str, question: &str) -> bool {
    run_within(Command::new(program).arg(question), LIMIT)
        .is_some_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Output {
    let output = run_within(command, LIMIT).expect("it was there a moment ago");
    assert!(
        output.status.success(),
        "{command:?} failed with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
