//! The names in a tree: what is not safe to extract, and what a common reader takes for another one.

use std::{borrow::Cow, collections::HashSet};

use gix::{
    bstr::{BStr, BString, ByteSlice},
    objs::tree::EntryRef,
    validate::path::{self, component},
};
use unicode_normalization::UnicodeNormalization as _;

use super::{Entry, SnapshotError};

/// The longest name of a file or folder in bytes, as Linux has it.
const MAX_NAME_BYTES: usize = 255;

/// What Git itself refuses to check out on any system. Names that only Windows refuses (`aux.c`, `a:b.png`) are ordinary
/// elsewhere.
const PROTECTION: component::Options = component::Options {
    protect_windows: false,
    protect_hfs: true,
    protect_ntfs: true,
};

pub(super) fn check_name(entry: &EntryRef<'_>, folder: &BStr) -> Result<(), SnapshotError> {
    let mode = entry.mode.is_link().then_some(component::Mode::Symlink);
    let why = match path::component(entry.filename, mode, PROTECTION) {
        Ok(name) if name.len() > MAX_NAME_BYTES => {
            format!("a name in it is longer than {MAX_NAME_BYTES} bytes")
        }
        Ok(name) => match climbs_on_windows(name) {
            None => return Ok(()),
            Some(part) => format!("where a backslash separates names, it holds {part:?}"),
        },
        Err(err) => err.to_string(),
    };
    Err(SnapshotError::path(join(folder, entry.filename), why))
}

/// The part of a name with backslashes that would lead out of the folder, or into Git's own, for whoever takes those for
/// separators: Windows, and some extractors elsewhere.
fn climbs_on_windows(name: &BStr) -> Option<&BStr> {
    if !name.contains(&b'\\') {
        return None;
    }
    let mut parts = name.split(|byte| *byte == b'\\').map(ByteSlice::as_bstr);
    let first = parts
        .clone()
        .next()
        .filter(|first| first.is_empty() || first.ends_with(b":"));
    let is_refused = |part: &&BStr| {
        let is_here = part.is_empty() || *part == ".";
        !is_here && path::component(part, None, PROTECTION).is_err()
    };
    first.or_else(|| parts.find(is_refused))
}

/// What a reader makes of a name that is not UTF-8: the letters of the first IBM PC.
///
/// Source: APPNOTE.TXT of PKWARE, appendix D
fn as_code_page_437(name: &[u8]) -> String {
    const HIGH: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
    let high: Vec<char> = HIGH.chars().collect();
    let letter = |byte: &u8| match byte.checked_sub(0x80) {
        Some(nth) => high[usize::from(nth)],
        None => char::from(*byte),
    };
    name.iter().map(letter).collect()
}

/// Refuses a path that a common reader takes for another one of the tree.
pub(super) fn check_aliases(entries: &[Entry]) -> Result<(), SnapshotError> {
    // What the reader takes it for, and why.
    let alias = |path: &BString| {
        if std::str::from_utf8(path).is_err() {
            Some((
                as_code_page_437(path).into_bytes(),
                "whoever takes it for letters of an old PC",
            ))
        } else if path.contains(&b'\\') {
            Some((
                path.replace("\\", "/"),
                "Windows, where a backslash separates names,",
            ))
        } else {
            None
        }
    };
    let aliases: Vec<_> = entries
        .iter()
        .filter_map(|entry| Some((entry, alias(&entry.path)?)))
        .collect();
    if aliases.is_empty() {
        return Ok(());
    }
    let mut known: HashSet<&[u8]> = entries.iter().map(|entry| &**entry.path).collect();
    for (entry, (alias, who)) in &aliases {
        if !known.insert(alias) {
            let why = format!("{who} reads another path of the tree in it");
            return Err(SnapshotError::path(entry.path.clone(), why));
        }
    }
    Ok(())
}

/// The names of a folder, without one twice, that are one file with another of them where a disk does not tell upper from
/// lower case, nor the forms of a letter (macOS, Windows), nor a dot at the end (Windows). Each stands beside the other.
pub(super) fn twins<'a>(names: &[&'a BStr]) -> Vec<(&'a BStr, &'a BStr)> {
    let mut folded: Vec<_> = names.iter().map(|name| (fold(name), *name)).collect();
    if folded
        .iter()
        .all(|(folded, name)| **folded == *name.as_bytes())
    {
        return Vec::new();
    }
    folded.sort_unstable();
    let pairs = folded.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    pairs.map(|pair| (pair[0].1, pair[1].1)).collect()
}

/// A name as such a disk compares it.
fn fold(name: &BStr) -> Cow<'_, [u8]> {
    let trimmed = name.trim_end_with(|letter| letter == '.' || letter == ' ');
    if trimmed.is_ascii() && !trimmed.iter().any(u8::is_ascii_uppercase) {
        return Cow::Borrowed(trimmed);
    }
    Cow::Owned(match trimmed.to_str() {
        // By way of upper case, since some letters have two in lower case.
        Ok(name) => {
            let upper = name.nfd().collect::<String>().to_uppercase();
            let lower = upper.to_lowercase();
            lower.nfc().collect::<String>().into_bytes()
        }
        Err(_) => trimmed.to_ascii_lowercase(),
    })
}

pub(super) fn join(folder: &BStr, name: &BStr) -> BString {
    [folder.as_bytes(), name.as_bytes()].concat().into()
}
