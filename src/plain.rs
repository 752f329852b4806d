//! Text that somebody else wrote, for people to read: what a terminal would carry out, or hide, is shown as an escape.
//! And files that people wrote, which should be UTF-8.

use std::fmt::Write;

use encoding_rs::{EUC_JP, Encoding, SHIFT_JIS};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How much of a foreign text is shown in a message, in bytes.
const SHOWN_BYTES: usize = 512;

/// How long a message may be in a log, in bytes. A line holds it twice, and has to stay far below the 256 KiB of CloudWatch.
const MESSAGE_BYTES: usize = 8 * 1024;

/// Whether a terminal would not show the character as what it is: controls (C0, C1), marks that turn the direction of
/// writing, separators of lines, and what takes no place at all.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

/// A foreign text inside a message: in one line, and not at length.
#[must_use]
pub fn foreign(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= SHOWN_BYTES {
            shown.push('…');
            break;
        }
        push(&mut shown, c, false);
    }
    shown
}

/// A message for a log: the beginning of one that is too long.
#[must_use]
pub fn message(text: String) -> String {
    if text.len() <= MESSAGE_BYTES {
        return text;
    }
    let end = text.floor_char_boundary(MESSAGE_BYTES);
    format!("{}… ({} bytes in all)", &text[..end], text.len())
}

/// Lines for a terminal, in which foreign text may stand.
#[must_use]
pub fn lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        push(&mut shown, c, c == '\n' || c == '\t');
    }
    shown
}

fn push(shown: &mut String, c: char, as_it_is: bool) {
    if as_it_is || !is_hidden(c) {
        shown.push(c);
    } else {
        shown.extend(c.escape_default());
    }
}

/// The same JSON, in which such characters are spelled as escapes. No value is altered.
#[must_use]
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // JSON itself has no control character but between its values, where `serde_json` puts none on one line.
        if is_hidden(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(shown, "\\u{unit:04x}").expect("a string takes all");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `1 entry`, `2 entries`.
#[must_use]
pub fn count(number: usize, one: &str, many: &str) -> String {
    let what = if number == 1 { one } else { many };
    format!("{number} {what}")
}

/// Seconds of Unix time as a date and a time in UTC, such as `2026-11-30T08:00:00Z`.
#[must_use]
pub fn time(seconds: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    at.format(&Rfc3339).ok()
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("a string takes all");
    }
    digits
}

/// The text of a file that somebody wrote, without the mark that some editors put at its beginning.
///
/// # Errors
///
/// What the file seems to be instead of UTF-8, and how it becomes that.
pub fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    let convert = |name: &str, label: &str| {
        format!(
            "it is {name} and should be UTF-8; convert it: iconv -f {label} -t UTF-8 FILE > NEW_FILE"
        )
    };
    // UTF-16 of plain English, without its mark, is valid UTF-8 in which every other byte is zero.
    match bytes[..] {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(convert("UTF-16", "UTF-16")),
        [1..=0xff, 0, ..] => return Err(convert("UTF-16", "UTF-16LE")),
        [0, 1..=0xff, ..] => return Err(convert("UTF-16", "UTF-16BE")),
        _ => {}
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => {
            return Ok(match text.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => text,
            });
        }
        Err(err) => err.into_bytes(),
    };
    // Shift_JIS takes most of what EUC-JP writes for something, but not the other way round.
    let is = |encoding: &'static Encoding| {
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes);
        text.is_some_and(|text| !text.contains(|c| matches!(c, '\u{80}'..='\u{9f}')))
    };
    Err(if is(EUC_JP) {
        convert("probably EUC-JP", "EUC-JP")
    } else if is(SHIFT_JIS) {
        // What Windows writes has more characters than Shift_JIS proper.
        convert("probably Shift_JIS", "CP932")
    } else {
        let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let line = 1 + valid.matches('\n').count();
        format!("line {line} is not UTF-8; save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_another_encoding_is_named() {
        let text = "# 開発\nname = \"main\"\n";
        let utf16 = |bytes: fn(u16) -> [u8; 2], mark: &str| -> Vec<u8> {
            let text = format!("{mark}{text}");
            text.encode_utf16().flat_map(bytes).collect()
        };
        let encoded =
            |encoding: &'static Encoding, text: &str| encoding.encode(text).0.into_owned();
        for (case, bytes, expected) in [
            ("UTF-8", text.into(), Ok(text)),
            ("with a mark", format!("\u{feff}{text}").into(), Ok(text)),
            ("nothing", Vec::new(), Ok("")),
            (
                "UTF-16",
                utf16(u16::to_le_bytes, "\u{feff}"),
                Err("-f UTF-16 "),
            ),
            (
                "UTF-16 the other way",
                utf16(u16::to_be_bytes, "\u{feff}"),
                Err("-f UTF-16 "),
            ),
            (
                "without a mark",
                utf16(u16::to_le_bytes, ""),
                Err("-f UTF-16LE "),
            ),
            (
                "without one the other way",
                utf16(u16::to_be_bytes, ""),
                Err("-f UTF-16BE "),
            ),
            (
                "Shift_JIS",
                encoded(SHIFT_JIS, text),
                Err(
                    "probably Shift_JIS and should be UTF-8; convert it: iconv -f CP932 -t UTF-8 FILE",
                ),
            ),
            (
                "of Windows",
                encoded(SHIFT_JIS, "# ①髙\n"),
                Err("-f CP932 "),
            ),
            ("EUC-JP", encoded(EUC_JP, text), Err("-f EUC-JP ")),
            (
                "Latin-1",
                b"# x\n# caf\xe9 \n".to_vec(),
                Err("line 2 is not UTF-8; save"),
            ),
            ("noise", vec![b'#', 0xff], Err("line 1 is not UTF-8")),
        ] {
            match (utf8(bytes), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{case}"),
                (Err(why), Err(says)) => assert!(why.contains(says), "{case}: {why}"),
                (found, _) => panic!("{case}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_a_terminal_would_carry_out_is_shown() {
        for (case, text, expected) in [
            ("plain", "release/1.0", "release/1.0"),
            ("Japanese", "機能/ログイン", "機能/ログイン"),
            ("an escape sequence", "a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a bell", "\u{7}", "\\u{7}"),
            ("a line of its own", "a\nfake: well", "a\\nfake: well"),
            ("a C1 control", "a\u{9b}31mb", "a\\u{9b}31mb"),
            ("another direction", "a\u{202e}b", "a\\u{202e}b"),
            ("nothing", "a\u{200b}b", "a\\u{200b}b"),
        ] {
            assert_eq!(foreign(text), expected, "{case}");
        }
        let long = "名".repeat(60_000);
        let shown = foreign(&long);
        assert!(
            shown.len() < SHOWN_BYTES + 8 && shown.ends_with('…'),
            "{}",
            shown.len()
        );
        let cut = message("名".repeat(10_000));
        assert!(
            cut.len() < MESSAGE_BYTES + 40 && cut.ends_with("… (30000 bytes in all)"),
            "{cut}"
        );
        assert_eq!(message("short".into()), "short");
        assert_eq!(lines("a\n\tb\u{9b}c\r\n"), "a\n\tb\\u{9b}c\\r\n");
    }

    #[test]
    fn a_value_is_the_same_in_plain_json() {
        let name = "refs/heads/a\u{9b}\u{202e}b\u{feff}名\u{1f600}\n";
        let text = serde_json::to_string(name).unwrap();
        let shown = json(&text);
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), name);
        assert_eq!(json(r#"{"a":"名"}"#), r#"{"a":"名"}"#);
    }
}
