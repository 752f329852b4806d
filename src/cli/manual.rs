//! `man`: the manual, a page for each command. A release is packed with it.

use std::path::PathBuf;

use super::{Ended, Usage, command};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The folder, which is there.
    folder: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<Ended, Usage> {
    clap_mangen::generate_to(command(), &options.folder).map_err(|err| {
        Usage(format!(
            "cannot write into {}: {err}",
            options.folder.display()
        ))
    })?;
    Ok(Ended::Well)
}
