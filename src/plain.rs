//! Text that somebody else wrote, for people to read: what a terminal would carry out, or hide, is shown as an escape.

use std::fmt::Write;

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

#[cfg(test)]
mod tests {
    use super::*;

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
