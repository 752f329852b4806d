//! A disk that is soon full.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::process::run_within;

const LIMIT: Duration = Duration::from_secs(30);

/// A file system of a few megabytes; unmounted when dropped.
pub struct TinyDisk(PathBuf);

impl TinyDisk {
    /// `None`, with a printed reason, where nothing may be mounted.
    pub fn mount(at: PathBuf, megabytes: u32) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(&at);
        match run_within(&mut mount, LIMIT) {
            Some(output) if output.status.success() => Some(Self(at)),
            Some(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            None => {
                println!("skipped: there is no `mount`");
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left, until the file is removed that it gives.
    pub fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
        filler
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        run_within(Command::new("umount").arg("--lazy").arg(&self.0), LIMIT);
    }
}
