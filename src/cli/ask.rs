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

/// Whether somebody at the terminal says yes.
pub(super) fn confirmed(question: &str, verb: &str) -> Result<bool, Usage> {
    if !stdin().is_terminal() {
        return Err(Usage(format!(
            "not a terminal; pass --yes to {verb} without asking"
        )));
    }
    out::ask(format_args!("{question} [y/N]"));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What somebody types and nobody sees; `None` where nobody can be asked. Inside of [`interruptible`] only.
pub(super) async fn secret(question: Arguments<'_>) -> Result<Option<Password>, Usage> {
    if !stdin().is_terminal() {
        return Ok(None);
    }
    let silence = Silence::begin()?;
    out::ask(question);
    let line = tokio::task::spawn_blocking(|| {
        let mut line = Zeroizing::new(String::new());
        stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = line.await??;
    drop(silence);
    note!("");
    let text = line.trim();
    if text.is_empty() {
        return Err(Usage("nothing was typed; nothing was changed".into()));
    }
    Ok(Some(text.to_owned().into()))
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
