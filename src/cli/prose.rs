//! Lines for people, in which a word may stand out.

use backlog_bridge::plain;
use clap::builder::styling::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::out;

/// What a word of a line is to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something new.
    Good,
    /// As it should be.
    Calm,
    /// To be looked at.
    Odd,
    /// Wrong.
    Bad,
}

/// A line for people: one word of it may have a colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    before: String,
    word: String,
    tone: Tone,
    after: String,
}

impl Line {
    pub(super) fn new(
        before: impl Into<String>,
        (tone, word): (Tone, &str),
        after: impl Into<String>,
    ) -> Self {
        Self {
            before: before.into(),
            word: word.into(),
            tone,
            after: after.into(),
        }
    }

    /// A line in which nothing stands out.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, (Tone::Calm, ""), "")
    }

    pub(super) fn is_bad(&self) -> bool {
        self.tone == Tone::Bad
    }

    pub(super) fn is_odd(&self) -> bool {
        self.tone == Tone::Odd
    }

    /// The line as it is written.
    pub(super) fn text(&self, colors: bool) -> String {
        let Self {
            before,
            word,
            tone,
            after,
        } = self;
        // Foreign text may stand in all of it, and has no colours.
        let [before, word, after] = [before, word, after].map(|text| plain::lines(text));
        let style = if colors && !word.is_empty() {
            tone.style()
        } else {
            Style::new()
        };
        format!("{before}{style}{word}{style:#}{after}")
    }
}

impl Tone {
    fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Good => style.fg_color(Some(AnsiColor::Green.into())).bold(),
            Self::Calm => style.fg_color(Some(AnsiColor::Cyan.into())),
            Self::Odd => style.fg_color(Some(AnsiColor::Yellow.into())),
            Self::Bad => style.fg_color(Some(AnsiColor::Red.into())).bold(),
        }
    }
}

/// Lines in columns, of which the first is a word that may stand out.
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Row>,
}

enum Row {
    Cells(Tone, Vec<String>),
    Under(String),
}

/// What stands between two columns.
const GAP: usize = 2;

/// A column is not cut to less.
const LEAST: usize = 8;

impl Table {
    pub(super) fn new(heads: &[&'static str]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, (tone, word): (Tone, &str), rest: &[&str]) {
        let cells = std::iter::once(word).chain(rest.iter().copied());
        let cells = cells.map(plain::foreign).collect();
        self.rows.push(Row::Cells(tone, cells));
    }

    /// A line under the last row that says more of it.
    pub(super) fn under(&mut self, text: &str) {
        self.rows.push(Row::Under(format!("    {text}")));
    }

    /// The lines. Where the terminal is narrower, the column of this number is cut: at its end, or at its beginning.
    pub(super) fn lines(self, flexible: usize, cut: Cut) -> Vec<Line> {
        let rows = self.rows.iter().filter_map(|row| match row {
            Row::Cells(_, cells) => Some(cells),
            Row::Under(_) => None,
        });
        let mut widths: Vec<_> = self.heads.iter().map(|head| head.width()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        if let Some(columns) = out::columns() {
            let all: usize = widths.iter().map(|width| width + GAP).sum();
            let too_much = (all - GAP).saturating_sub(columns);
            let least = widths[flexible].min(LEAST);
            widths[flexible] = widths[flexible].saturating_sub(too_much).max(least);
        }
        let line = |tone, cells: &[String]| {
            let cells: Vec<_> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| fitted(cell, *width, cut))
                .collect();
            let gap = " ".repeat(GAP);
            let (word, padding) = cells[0].split_at(cells[0].trim_end().len());
            let rest = format!("{padding}{gap}{}", cells[1..].join(&gap));
            Line::new("", (tone, word), rest.trim_end())
        };
        let heads: Vec<_> = self.heads.iter().map(|head| head.to_uppercase()).collect();
        let mut lines = Vec::new();
        if !self.rows.is_empty() {
            lines.push(Line::plain(line(Tone::Calm, &heads).text(false)));
        }
        lines.extend(self.rows.iter().map(|row| match row {
            Row::Cells(tone, cells) => line(*tone, cells),
            Row::Under(text) => Line::plain(text.as_str()),
        }));
        lines
    }
}

/// Where a text is cut that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Of a sentence, the beginning says most.
    End,
    /// Of a ref, the end does.
    Beginning,
}

/// A text in so many columns: cut or filled.
fn fitted(text: &str, width: usize, cut: Cut) -> String {
    let own = text.width();
    if own <= width {
        return format!("{text}{}", " ".repeat(width - own));
    }
    let mut left = width.saturating_sub(1);
    let mut fits = |c: &char| {
        let columns = c.width().unwrap_or_default();
        let fits = columns <= left;
        left -= if fits { columns } else { 0 };
        fits
    };
    let shown: String = match cut {
        Cut::End => {
            let shown: String = text.chars().take_while(&mut fits).collect();
            shown + "…"
        }
        Cut::Beginning => {
            let shown: Vec<_> = text.chars().rev().take_while(&mut fits).collect();
            std::iter::once('…')
                .chain(shown.into_iter().rev())
                .collect()
        }
    };
    format!("{shown}{}", " ".repeat(left))
}

/// A time for people: without seconds, in UTC.
pub(super) fn minutes(time: Option<&String>) -> String {
    let minutes = time.and_then(|time| time.get(..16));
    minutes.map_or_else(|| "-".into(), |time| time.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_or_filled_to_its_columns() {
        for (text, width, end, beginning) in [
            ("main", 6, "main  ", "main  "),
            ("main", 4, "main", "main"),
            ("release", 4, "rel…", "…ase"),
            ("機能", 4, "機能", "機能"),
            ("機能追加", 5, "機能…", "…追加"),
            ("機能追加", 4, "機… ", "…加 "),
        ] {
            assert_eq!(fitted(text, width, Cut::End), end, "{text} in {width}");
            let found = fitted(text, width, Cut::Beginning);
            assert_eq!(found, beginning, "{text} in {width}");
        }
    }

    #[test]
    fn only_the_word_has_a_colour_and_foreign_text_has_none() {
        let line = Line::new("web: ", (Tone::Bad, "failed"), ": \u{1b}[31mred");
        assert_eq!(
            line.text(true),
            "web: \u{1b}[1m\u{1b}[31mfailed\u{1b}[0m: \\u{1b}[31mred"
        );
        assert_eq!(line.text(false), "web: failed: \\u{1b}[31mred");
    }
}
