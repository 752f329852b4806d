//! What a checkout would make of files, as `.gitattributes` tell it to. An archive holds them as they are committed.

use std::collections::HashMap;

use gix::{
    attrs::{self, StateRef, parse::Kind},
    bstr::{BStr, BString, ByteSlice},
    glob::{Pattern, pattern, wildmatch},
};

use super::{Entry, EntryKind, Examples};
use crate::pack::Objects;

/// How much of such files is read: of one, of all together, and how many of them. In bytes.
const FILE_BYTES: u64 = 256 << 10;
const ALL_BYTES: u64 = 4 << 20;
const FILES: usize = 10_000;

/// How long a line may be. Git itself ignores longer ones.
const LINE_BYTES: usize = 2048;

/// How many macros there may be.
const MACROS: usize = 64;

/// How many stars a pattern may have: with each of them, a match takes longer.
const STARS: usize = 16;

/// How much work it may be to compare paths with patterns, in pairs of bytes.
const WORK: u64 = 1 << 29;

/// How much of the files is read that a checkout may change, to see whether it does. Beyond it, it is believed. In bytes.
const CONTENT_BYTES: u64 = 32 << 20;

/// The attributes that change what a checkout holds.
const NAMES: [&str; 6] = [
    "text",
    "crlf",
    "eol",
    "working-tree-encoding",
    "ident",
    "filter",
];
const TEXT: usize = 0;
const CRLF: usize = 1;
const EOL: usize = 2;
const ENCODING: usize = 3;
const IDENT: usize = 4;
const FILTER: usize = 5;

/// What a checkout would change, by what changes it.
#[derive(Default)]
pub(super) struct Conversions {
    pub(super) lfs_pointers: Examples,
    pub(super) line_ends: Examples,
    pub(super) encodings: Examples,
    pub(super) idents: Examples,
    pub(super) filters: Examples,
    /// Whether there is more than was looked at.
    pub(super) is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Set,
    Unset,
    Value(BString),
    Unspecified,
}

impl From<StateRef<'_>> for State {
    fn from(state: StateRef<'_>) -> Self {
        match state {
            StateRef::Set => Self::Set,
            StateRef::Unset => Self::Unset,
            StateRef::Value(value) => Self::Value(value.as_bstr().into()),
            StateRef::Unspecified => Self::Unspecified,
        }
    }
}

/// An attribute of [`NAMES`], or a macro.
#[derive(Debug, Clone, Copy)]
enum What {
    Attribute(usize),
    Macro(usize),
}

type Assignments = Vec<(What, State)>;

/// A line of a file.
struct Rule {
    pattern: Pattern,
    assignments: Assignments,
}

/// The lines of a file that matter, and the folder that they count in: the length of its path, with a slash at the end.
#[derive(Default)]
struct Rules {
    folder: usize,
    lines: Vec<Rule>,
    /// How much work it is to compare a path with them: for each path, and for each byte of it.
    each: u64,
    each_byte: u64,
}

#[derive(Default)]
struct Macros {
    names: Vec<BString>,
    assignments: Vec<Assignments>,
}

/// What is decided of a path.
#[derive(Default)]
struct Decided {
    attributes: [Option<State>; NAMES.len()],
    macros: u64,
}

impl Decided {
    /// The last assignment counts, and none that comes after it in this order.
    fn take(&mut self, assignments: &Assignments, macros: &Macros) {
        for (what, state) in assignments.iter().rev() {
            match *what {
                What::Attribute(n) => {
                    self.attributes[n].get_or_insert_with(|| state.clone());
                }
                What::Macro(n) => {
                    let is_new = self.macros & (1 << n) == 0;
                    self.macros |= 1 << n;
                    if is_new && *state == State::Set {
                        self.take(&macros.assignments[n], macros);
                    }
                }
            }
        }
    }

    fn value(&self, n: usize) -> Option<&BStr> {
        match &self.attributes[n] {
            Some(State::Value(value)) => Some(value.as_bstr()),
            _ => None,
        }
    }

    /// Whether the attribute decides at all: `!text` is as if nothing was said.
    fn state(&self, n: usize) -> Option<&State> {
        let state = self.attributes[n].as_ref();
        state.filter(|state| **state != State::Unspecified)
    }

    fn is_set(&self, n: usize) -> bool {
        self.attributes[n] == Some(State::Set)
    }
}

/// Looks at `entries`, of which `files` are the places of those that are called `.gitattributes`.
pub(super) fn look(entries: &[Entry], files: &[usize], objects: &Objects) -> Conversions {
    let mut look = Look {
        objects,
        found: Conversions::default(),
        macros: Macros::default(),
        left: ALL_BYTES,
        work: WORK,
        content: CONTENT_BYTES,
    };
    let (read, more) = files.split_at(files.len().min(FILES));
    look.found.is_cut |= !more.is_empty();
    let mut by_folder = HashMap::with_capacity(read.len());
    for at in read {
        let entry = &entries[*at];
        let folder = entry.path.rfind_byte(b'/').map_or(0, |slash| slash + 1);
        if let Some(text) = look.text_of(entry) {
            by_folder.insert(&entry.path[..folder], text);
        }
    }
    // Only the root's file may define macros, before as after they are used.
    look.define(by_folder.get(&b""[..]).map_or(&[], |text| text));
    let mut open: Vec<Rules> = Vec::new();
    let mut last = None;
    for entry in entries {
        let folder = entry.path.rfind_byte(b'/').map_or(0, |slash| slash + 1);
        let folder = &entry.path[..folder];
        if last != Some(folder) {
            let before = last.unwrap_or_default();
            open.retain(|rules| folder.starts_with(&before[..rules.folder]));
            let known = open.last().map(|rules| rules.folder);
            let slashes = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let begins = std::iter::once(0).chain(slashes.map(|(at, _)| at + 1));
            for begin in begins.filter(|begin| known.is_none_or(|known| *begin > known)) {
                if let Some(text) = by_folder.get(&folder[..begin]) {
                    open.push(look.rules(text, begin));
                }
            }
            last = Some(folder);
        }
        if open.is_empty() || !matches!(entry.kind, EntryKind::File | EntryKind::Executable) {
            continue;
        }
        if !look.take(entry, &open) {
            break;
        }
    }
    look.found
}

struct Look<'a> {
    objects: &'a Objects,
    found: Conversions,
    macros: Macros,
    /// What may still be read of files with rules, compared, and read of files with content.
    left: u64,
    work: u64,
    content: u64,
}

impl Look<'_> {
    /// The text of a file with rules; `None` if it is too large, or too much with the others.
    fn text_of(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        let blob = self.objects.blob(&entry.id)?;
        let text = match self.left.checked_sub(blob.size) {
            Some(left) if blob.size <= FILE_BYTES => {
                self.left = left;
                self.objects.content(blob).ok()
            }
            _ => None,
        };
        self.found.is_cut |= text.is_none();
        text
    }

    fn define(&mut self, root: &[u8]) {
        let lines = lines(root);
        let lines: Vec<_> = std::iter::once(&b"[attr]binary -diff -merge -text"[..])
            .chain(lines)
            .collect();
        let defined = |line: &'_ [u8]| match attrs::parse(line).next()?.ok()?.0 {
            Kind::Macro(name) => Some(BString::from(name.as_str())),
            Kind::Pattern(_) => None,
        };
        for name in lines.iter().filter_map(|line| defined(line)) {
            if self.macros.names.contains(&name) {
                continue;
            }
            if self.macros.names.len() == MACROS {
                self.found.is_cut = true;
                break;
            }
            self.macros.names.push(name);
            self.macros.assignments.push(Vec::new());
        }
        // Of two definitions, the last counts.
        for line in lines {
            let name = defined(line);
            let known =
                name.and_then(|name| self.macros.names.iter().position(|known| *known == name));
            if let Some(n) = known {
                self.macros.assignments[n] = self.assignments(line);
            }
        }
    }

    /// What a line assigns, of all that matters.
    fn assignments(&self, line: &[u8]) -> Assignments {
        let Some(Ok((_, assigned, _))) = attrs::parse(line).next() else {
            return Vec::new();
        };
        let assigned = assigned.filter_map(|assignment| {
            let assignment = assignment.ok()?;
            let name = assignment.name.as_str();
            let attribute = NAMES.iter().position(|known| *known == name);
            let of_macro = || {
                let mut names = self.macros.names.iter();
                names.position(|known| *known == name).map(What::Macro)
            };
            let what = attribute.map(What::Attribute).or_else(of_macro)?;
            Some((what, assignment.state.into()))
        });
        assigned.collect()
    }

    fn rules(&mut self, text: &[u8], folder: usize) -> Rules {
        let mut rules = Rules {
            folder,
            ..Rules::default()
        };
        for line in lines(text) {
            let Some(Ok((Kind::Pattern(pattern), ..))) = attrs::parse(line).next() else {
                continue;
            };
            let assignments = self.assignments(line);
            if assignments.is_empty() {
                continue;
            }
            if pattern.text.find_iter(b"*").count() > STARS {
                self.found.is_cut = true;
                continue;
            }
            let bytes = pattern.text.len();
            let is_suffix = pattern.mode.contains(pattern::Mode::ENDS_WITH);
            let begin = pattern.first_wildcard_pos.filter(|_| !is_suffix);
            let begin = begin.unwrap_or(bytes);
            rules.each += begin as u64;
            rules.each_byte += (bytes - begin) as u64;
            rules.lines.push(Rule {
                pattern,
                assignments,
            });
        }
        rules
    }

    /// Whether there may be more work.
    fn take(&mut self, entry: &Entry, open: &[Rules]) -> bool {
        let bytes = entry.path.len() as u64;
        let work = open
            .iter()
            .map(|rules| rules.each + rules.each_byte * bytes)
            .sum();
        let Some(left) = self.work.checked_sub(work) else {
            self.found.is_cut = true;
            return false;
        };
        self.work = left;
        let mut decided = Decided::default();
        for rules in open.iter().rev() {
            let path = entry.path[rules.folder..].as_bstr();
            let name = path.rfind_byte(b'/').map(|slash| slash + 1);
            for rule in rules.lines.iter().rev() {
                let is_match = rule.pattern.matches_repo_relative_path(
                    path,
                    name,
                    Some(false),
                    pattern::Case::Sensitive,
                    wildmatch::Mode::NO_MATCH_SLASH_LITERAL,
                );
                if is_match {
                    decided.take(&rule.assignments, &self.macros);
                }
            }
        }
        self.judge(entry, &decided);
        true
    }

    fn judge(&mut self, entry: &Entry, decided: &Decided) {
        let Some(blob) = self.objects.blob(&entry.id) else {
            return;
        };
        let path = entry.path.as_bstr();
        match decided.value(FILTER) {
            Some(filter) if filter == "lfs" => {
                if blob.is_lfs_pointer {
                    self.found.lfs_pointers.add(path);
                }
                return;
            }
            Some(_) => self.found.filters.add(path),
            None => {}
        }
        let text = decided.state(TEXT).or(decided.state(CRLF));
        let is_auto = matches!(text, Some(State::Value(value)) if value == "auto");
        let has_crlf =
            text != Some(&State::Unset) && decided.value(EOL).is_some_and(|eol| eol == "crlf");
        let encoding = decided
            .value(ENCODING)
            .filter(|encoding| !is_utf8(encoding));
        let has_ident = decided.is_set(IDENT);
        if blob.size == 0 || !(has_crlf || encoding.is_some() || has_ident) {
            return;
        }
        let content = match self.content.checked_sub(blob.size) {
            Some(left) => {
                self.content = left;
                self.objects.content(blob).ok()
            }
            None => None,
        };
        let changes = |by: &dyn Fn(&[u8]) -> bool| content.as_deref().is_none_or(by);
        if has_crlf && changes(&|content| gets_crlf(content, is_auto)) {
            self.found.line_ends.add(path);
        }
        let is_wide = |encoding: &BStr| {
            let encoding = encoding.to_ascii_lowercase();
            [&b"utf-16"[..], b"utf16", b"utf-32", b"utf32", b"ucs"]
                .iter()
                .any(|wide| encoding.starts_with(wide))
        };
        if encoding
            .is_some_and(|encoding| is_wide(encoding) || changes(&|content| !content.is_ascii()))
        {
            self.found.encodings.add(path);
        }
        if has_ident && changes(&has_id) {
            self.found.idents.add(path);
        }
    }
}

/// The lines that Git reads.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.lines();
    lines.filter(|line| line.len() < LINE_BYTES)
}

fn is_utf8(encoding: &BStr) -> bool {
    encoding.eq_ignore_ascii_case(b"utf-8") || encoding.eq_ignore_ascii_case(b"utf8")
}

/// Whether a checkout writes a CR before a LF. With `text=auto`, only in what looks like a text and has none yet.
fn gets_crlf(content: &[u8], is_auto: bool) -> bool {
    let is_bare = |at: usize| at == 0 || content[at - 1] != b'\r';
    let mut line_ends = content.find_iter(b"\n");
    let has_lf = line_ends.any(is_bare);
    has_lf && !(is_auto && content.iter().any(|byte| matches!(byte, 0 | b'\r')))
}

/// Whether there is a `$Id$` in it, or one that was filled in.
fn has_id(content: &[u8]) -> bool {
    content.find_iter(b"$Id").any(|at| {
        let rest = &content[at + 3..];
        let rest = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match rest.split_first() {
            Some((b'$', _)) => true,
            Some((b':', rest)) => rest.contains(&b'$'),
            _ => false,
        }
    })
}
