//! What a person at a terminal is asked.

use std::{
    fmt::Arguments,
    io::{BufRead, IsTerminal, stdin},
};

use backlog_bridge::secrets::Password;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::{Usage, out};

/// Whether there is somebody to ask, who sees the question.
pub(super) fn is_somebody_there() -> bool {
    stdin().is_terminal() && out::shows_questions()
}

/// Whether somebody at the terminal says yes.
pub(super) async fn confirmed(question: &str, verb: &str) -> Result<bool, Usage> {
    if !stdin().is_terminal() {
        return Err(Usage(format!(
            "not a terminal; pass --yes to {verb} without asking"
        )));
    }
    out::ask(format_args!("{question} [y/N]"));
    let answer = read().await?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A line that somebody types. `default` is the answer of who only presses Enter.
pub(super) async fn line(question: &str, default: Option<&str>) -> Result<String, Usage> {
    match default {
        Some(default) => out::ask(format_args!("{question} [{default}]:")),
        None => out::ask(format_args!("{question}:")),
    }
    let line = read().await?;
    let answer = line.trim();
    Ok(match default {
        Some(default) if answer.is_empty() => default.to_owned(),
        _ => answer.to_owned(),
    })
}

/// What somebody types and nobody sees; `None` where nobody can be asked. Inside of [`interruptible`] only.
pub(super) async fn secret(question: Arguments<'_>) -> Result<Option<Password>, Usage> {
    if !stdin().is_terminal() {
        return Ok(None);
    }
    let text = hidden(question).await?;
    if text.reveal().is_empty() {
        return Err(Usage("nothing was typed; nothing was changed".into()));
    }
    Ok(Some(text))
}

/// The same, of somebody who is there; empty if only Enter was pressed.
pub(super) async fn hidden(question: Arguments<'_>) -> Result<Password, Usage> {
    let silence = Silence::begin()?;
    out::ask(question);
    let line = read().await?;
    drop(silence);
    note!("");
    Ok(line.trim().to_owned().into())
}

/// A line of stdin. All else goes on meanwhile, so that it can be stopped.
async fn read() -> Result<Zeroizing<String>, Usage> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = Zeroizing::new(String::new());
        let bytes = stdin().lock().read_line(&mut line)?;
        Ok::<_, std::io::Error>((bytes > 0).then_some(line))
    });
    line.await??
        .ok_or_else(|| Usage("the input ended before the question was answered".into()))
}

/// The result of `work`, unless somebody types Ctrl-C. Whoever does so must not be left with a terminal that shows nothing.
pub(super) async fn interruptible<T>(
    work: impl Future<Output = Result<T, Usage>>,
) -> Result<T, Usage> {
    let mut stop = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = work => result,
        _ = stop.recv() => {
            note!("");
            Err(Usage("stopped; what was done stays, and the same command goes on from there".into()))
        }
    }
}

/// A terminal that does not show what is typed, as long as this is there.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self, Usage> {
        let before = tcgetattr(stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        tcsetattr(stdin(), OptionalActions::Now, &self.0).ok();
    }
}
