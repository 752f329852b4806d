//! `completions`: what a shell reads to complete commands and options.

use clap_complete::Shell;

use super::{Ended, command, out};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    backlog-bridge completions bash \\\n    \
    > ~/.local/share/bash-completion/completions/backlog-bridge\n  \
    backlog-bridge completions fish \\\n    \
    > ~/.config/fish/completions/backlog-bridge.fish\n  \
    backlog-bridge completions zsh > \"${fpath[1]}/_backlog-bridge\"")]
pub(super) struct Options {
    /// For which shell.
    shell: Shell,
}

pub(super) fn run(options: &Options) -> Ended {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut command(), "backlog-bridge", &mut text);
    out::file(&String::from_utf8_lossy(&text));
    Ended::Well
}
