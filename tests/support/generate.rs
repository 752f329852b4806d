//! Trees that nobody would write by hand: odd ones for properties, a large one for benchmarks.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};

use super::upstream::{Content, Repository, write_change};

/// The files of a tree, by path.
pub type Files = Vec<(Vec<u8>, Content)>;

/// Names of files that are right on Linux and go wrong somewhere else.
const ODD_NAMES: [&str; 28] = [
    ".gitignore",
    ".gitattributes",
    ".hidden",
    "...",
    "-rf",
    " leading and trailing ",
    "dot.",
    "50%2Foff",
    "%00",
    "@",
    "a@b",
    "it's",
    "\"quoted\"",
    "$(echo)",
    "`tick`",
    "a:b.png",
    "What?.md",
    "*.txt",
    "<tag>|&;#",
    "aux.c",
    "CON",
    "tab\tand\u{1}",
    "Icon\r",
    "日本語 の ファイル.txt",
    "カ\u{3099}.txt",
    "ガ.txt",
    "🦀.rs",
    "café",
];

/// Names that are no UTF-8: Shift-JIS, Latin-1, an overlong slash, a lonely byte.
const FOREIGN_NAMES: [&[u8]; 4] = [
    b"\x93\xfa\x96{\x8c\xea.txt",
    b"caf\xe9",
    b"a\xc0\xafb",
    b"\xff",
];

const FOLDERS: [&str; 7] = ["src", "docs", "a b", "設計", "x%2Fy", "@scope", "deep"];

const TARGETS: [&str; 4] = ["a", "../src/a.rs", "日本語", "no such place"];

/// A tree of up to 40 paths, at most nine levels deep, of up to a few megabytes.
pub fn random_tree() -> impl Strategy<Value = Files> {
    vec((path(), content()), 0..40).prop_map(without_conflicts)
}

/// Two trees, the second of which came from the first by one push: some paths gone, some edited, some new.
pub fn random_push() -> impl Strategy<Value = (Files, Files)> {
    let change = prop_oneof![
        6 => Just(Edit::Keep),
        1 => Just(Edit::Remove),
        2 => any::<u16>().prop_map(Edit::Insert),
        1 => content().prop_map(Edit::Replace),
    ];
    let edits = vec(change, 40);
    let new = vec((path(), content()), 0..5);
    (random_tree(), edits, new).prop_map(|(before, edits, new)| {
        let kept = before.iter().cloned().zip(edits);
        let edited = kept.filter_map(|((path, content), edit)| Some((path, edit.of(content)?)));
        let after = without_conflicts(edited.chain(new).collect());
        (before, after)
    })
}

#[derive(Debug, Clone)]
enum Edit {
    Keep,
    Remove,
    /// A line, at about this place of 65,536.
    Insert(u16),
    Replace(Content),
}

impl Edit {
    fn of(self, mut content: Content) -> Option<Content> {
        match self {
            Self::Keep => {}
            Self::Remove => return None,
            Self::Insert(place) => {
                if let Content::File(bytes) | Content::Executable(bytes) = &mut content {
                    let at = bytes.len() * usize::from(place) / (1 << 16);
                    bytes.splice(at..at, *b"a line that is new\n");
                }
            }
            Self::Replace(content) => return Some(content),
        }
        Some(content)
    }
}

/// Of a file and a folder of the same name, the one that came first stays.
fn without_conflicts(files: Files) -> Files {
    let mut tree: BTreeMap<Vec<u8>, Content> = BTreeMap::new();
    for (path, content) in files {
        let slashes = (0..path.len()).filter(|&at| path[at] == b'/');
        let below_a_file = slashes.into_iter().any(|at| tree.contains_key(&path[..at]));
        let folder = [&path[..], b"/"].concat();
        let below = tree.range(folder.clone()..).next();
        let is_a_folder = below.is_some_and(|(path, _)| path.starts_with(&folder));
        if !below_a_file && !is_a_folder {
            tree.entry(path).or_insert(content);
        }
    }
    tree.into_iter().collect()
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let folders = prop_oneof![
        6 => vec(select(&FOLDERS[..]), 0..3),
        1 => vec(select(&FOLDERS[..]), 3..=8),
    ];
    let name = prop_oneof![
        5 => "[a-z]{1,3}(\\.rs|\\.txt)?".prop_map(String::into_bytes),
        1 => "[あ-んア-ン一-龠]{1,40}".prop_map(String::into_bytes),
        2 => select(&ODD_NAMES[..]).prop_map(|name| name.as_bytes().to_owned()),
        1 => select(&FOREIGN_NAMES[..]).prop_map(<[u8]>::to_owned),
    ];
    (folders, name).prop_map(|(folders, name)| {
        let mut path = Vec::new();
        for folder in folders {
            path.extend_from_slice(folder.as_bytes());
            path.push(b'/');
        }
        path.extend(name);
        path
    })
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        16 => bytes().prop_map(Content::File),
        4 => bytes().prop_map(Content::Executable),
        2 => select(&TARGETS[..]).prop_map(|target| Content::Symlink(target.into())),
        1 => any::<u64>().prop_map(|n| Content::Submodule(format!("{n:040x}"))),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((0..400_usize, any::<u32>()), 0..5);
    prop_oneof![
        4 => Just(Vec::new()),
        8 => vec(any::<u8>(), 1..200),
        16 => (0..3_u64, edits).prop_map(|(text, edits)| similar_text(text, &edits)),
        4 => (1..65_536_usize, any::<u64>()).prop_map(|(length, seed)| noise(length, seed)),
        1 => (65_536..2_000_000_usize, any::<u64>()).prop_map(|(length, seed)| noise(length, seed)),
        1 => (65_536..2_000_000_usize, any::<u64>()).prop_map(|(length, seed)| source(length, seed)),
    ]
}

/// One of a few texts of 400 lines with some lines changed: what packs hold as deltas.
fn similar_text(text: u64, edits: &[(usize, u32)]) -> Vec<u8> {
    let mut lines: Vec<_> = (0..400)
        .map(|line| {
            format!(
                "{text} {line}: {:016x}\n",
                Random(text * 1000 + line + 1).next()
            )
        })
        .collect();
    for (line, new) in edits {
        lines[*line] = format!("changed to {new}\n");
    }
    lines.concat().into_bytes()
}

/// Bytes that nothing compresses.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Text that compresses about as well as source code: to a quarter or a fifth.
pub fn source(length: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "fn ", "let ", "mut ", "self", ".", "(", ")", " = ", ";\n    ", "match ", "Some", "=> ",
        "return ", "\n}\n\n", "&", "::",
    ];
    let mut random = Random::new(seed);
    let mut text = Vec::with_capacity(length + 32);
    while text.len() < length {
        let bits = random.next();
        for word in 0..4 {
            let index = (bits >> (4 * word)) % WORDS.len() as u64;
            text.extend_from_slice(WORDS[usize::try_from(index).unwrap()].as_bytes());
        }
        // Names come again and again: 4,096 of them.
        let name = format!("name_{:03x}_of_{}", bits >> 52, (bits >> 52) % 7);
        text.extend_from_slice(name.as_bytes());
    }
    text.truncate(length);
    text
}

/// Marsaglia's xorshift64: the same numbers everywhere and for ever.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Small seeds would begin with small numbers; zero would never leave zero.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// How large a large repository is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Bytes of all files together, about.
    pub bytes: usize,
    pub files: usize,
    /// The part of the bytes that is text, from 0 to 1; the rest is noise.
    pub compressible: f64,
}

/// Makes a commit on `refs/heads/main` that has the given size, within seconds. The same seed gives the same commit in a
/// new repository. One file of twenty is noise, unless everything is text.
pub fn large_repository(repository: &Repository, size: Size, seed: u64) -> String {
    let (text_sizes, noise_sizes) = split(size, seed);
    repository.commit("refs/heads/main", None, |out| {
        for (file, length) in text_sizes.into_iter().enumerate() {
            let content = Content::File(source(length, seed + file as u64));
            write_change(out, text_path(file).as_bytes(), &content)?;
        }
        for (file, length) in noise_sizes.into_iter().enumerate() {
            let path = format!("assets/set_{}/image_{file}.png", file % 10);
            let content = Content::File(noise(length, seed + file as u64));
            write_change(out, path.as_bytes(), &content)?;
        }
        Ok(())
    })
}

/// [`large_repository`], then pushes of one commit each: the first copies every tenth source file and changes the copy, so
/// that packs hold deltas; each of the others edits three files and adds one. Returns the last commit's id.
#[allow(dead_code, reason = "the benchmark's alone")]
pub fn repository_with_history(
    repository: &Repository,
    size: Size,
    pushes: usize,
    seed: u64,
) -> String {
    let mut tip = large_repository(repository, size, seed);
    let (text_sizes, _) = split(size, seed);
    let edited = |file: usize, push: usize| {
        let mut text = source(text_sizes[file], seed + file as u64);
        let middle = text.len() / 2;
        let line = format!("\n// push {push} was here\n");
        text.splice(middle..middle, line.into_bytes());
        Content::File(text)
    };
    for push in 0..pushes {
        let mut changes: BTreeMap<String, Content> = BTreeMap::new();
        if push == 0 {
            let copies = (0..text_sizes.len()).step_by(10);
            changes.extend(copies.map(|file| (format!("copies/{file}.rs"), edited(file, 0))));
        } else {
            for n in 0..3 {
                let file = (push * 37 + n * 211) % text_sizes.len();
                changes.insert(text_path(file), edited(file, push));
            }
            let new = source(4000, !seed - push as u64);
            changes.insert(format!("src/new_{push}.rs"), Content::File(new));
        }
        let changes: Vec<_> = changes.into_iter().collect();
        tip = repository.commit_on("refs/heads/main", &changes);
    }
    tip
}

/// The lengths of the files that are text, and of those that are noise.
fn split(size: Size, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let noisy = if size.compressible < 1.0 {
        size.files.div_ceil(20)
    } else {
        0
    };
    let text_bytes = part(size.bytes, size.compressible);
    let text_sizes = sizes(size.files - noisy, text_bytes, seed);
    let noise_sizes = sizes(noisy, size.bytes - text_bytes, !seed);
    (text_sizes, noise_sizes)
}

fn text_path(file: usize) -> String {
    format!(
        "src/module_{:02}/part_{}/file_{file}.rs",
        file % 50,
        file % 7
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "about is enough"
)]
fn part(bytes: usize, share: f64) -> usize {
    ((bytes as f64 * share.clamp(0.0, 1.0)) as usize).min(bytes)
}

/// Splits bytes among files as repositories do: many small files, few large ones.
fn sizes(files: usize, bytes: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let weights: Vec<_> = (0..files)
        .map(|_| match random.next() >> 56 {
            0..4 => 2000,
            4..32 => 400,
            32..128 => 100,
            _ => 30,
        })
        .collect();
    let all: usize = weights.iter().sum();
    weights.iter().map(|weight| bytes * weight / all).collect()
}
