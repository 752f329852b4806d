//! Other programs, with what they cost: wall time, CPU time, and the largest resident set of any of their processes.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// What one run took, or the median of several.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// User and system time, of all its processes.
    pub(crate) cpu: Duration,
    /// The largest of its processes.
    pub(crate) peak_kib: u64,
    /// What the Git server was sent and sent.
    pub(crate) wire_bytes: u64,
    pub(crate) zip_bytes: u64,
}

impl Cost {
    /// This, and then `other`.
    pub(crate) fn then(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
            peak_kib: self.peak_kib.max(other.peak_kib),
            wire_bytes: self.wire_bytes + other.wire_bytes,
            zip_bytes: self.zip_bytes.max(other.zip_bytes),
        }
    }

    pub(crate) fn median(costs: &[Self]) -> Self {
        Self {
            wall: median(costs.iter().map(|cost| cost.wall)),
            cpu: median(costs.iter().map(|cost| cost.cpu)),
            peak_kib: median(costs.iter().map(|cost| cost.peak_kib)),
            wire_bytes: median(costs.iter().map(|cost| cost.wire_bytes)),
            zip_bytes: median(costs.iter().map(|cost| cost.zip_bytes)),
        }
    }
}

/// The middle one, or the upper of the two.
pub(crate) fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    let middle = values.len() / 2;
    values.swap_remove(middle)
}

/// Runs a command to its end; bash takes the time, since `getrusage` counts finer than `/proc` does.
///
/// # Panics
///
/// If it fails.
pub(crate) fn run(command: &Command) -> Cost {
    const SCRIPT: &str =
        r#"exec 3>&2; TIMEFORMAT="%3R %3U %3S"; { time "$@" 2>&3; } 2>"$BENCH_TIMES""#;
    const PAUSE: Duration = Duration::from_millis(3);
    let times = tempfile::NamedTempFile::new().unwrap();
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut bash = Command::new("bash");
    // Nothing of whoever runs this: neither git's configuration nor credentials of AWS.
    bash.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = env::var_os(name) {
            bash.env(name, value);
        }
    }
    bash.args(["-c", SCRIPT, "bash"]).arg(command.get_program());
    bash.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bash.current_dir(folder);
    }
    let mut child = bash
        .env("BENCH_TIMES", times.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.reopen().unwrap())
        .spawn()
        .expect("bash");
    let mut peak_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        // Not of bash itself.
        for pid in children(child.id()) {
            peak_kib = peak_kib.max(peak_of_tree(pid));
        }
        thread::sleep(PAUSE);
    };
    let said = fs::read_to_string(said.path()).unwrap_or_default();
    assert!(status.success(), "{command:?}: {status}\n{said}");
    let text = fs::read_to_string(times.path()).unwrap();
    let times: Vec<Duration> = text
        .split_whitespace()
        .map(|seconds| Duration::from_secs_f64(seconds.parse().unwrap()))
        .collect();
    let [wall, user, system] = times[..] else {
        panic!("bash says {text:?}");
    };
    Cost {
        wall,
        cpu: user + system,
        peak_kib,
        ..Cost::default()
    }
}

fn peak_of_tree(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
    let below = children(pid).into_iter().map(peak_of_tree).max();
    peak.unwrap_or(0).max(below.unwrap_or(0))
}

/// The processes that a process's first thread started.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The size of a file in bytes.
pub(crate) fn size_of(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}
