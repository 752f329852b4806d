//! A table of cases: what became of each, how long it took, and how much memory.

use std::{
    fs,
    time::{Duration, Instant},
};

/// How long a hostile case may take: a second, and much more for a build without optimization on a busy machine. What it
/// really took is in the table.
pub const SOON: Duration = Duration::from_secs(30);

/// How much more memory a hostile case may need than was needed before it.
pub const LITTLE: u64 = 100 << 20;

/// A group of cases; printed when it is dropped.
pub struct Cases {
    group: &'static str,
    lines: Vec<String>,
}

impl Cases {
    pub fn new(group: &'static str) -> Self {
        Self {
            group,
            lines: Vec::new(),
        }
    }

    /// Runs a case, which says its verdict and its kind, and must be over [`SOON`] in [`LITTLE`] memory.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn run<T>(&mut self, name: &str, case: impl FnOnce() -> (T, &'static str, String)) -> T {
        let before = Memory::now();
        let started = Instant::now();
        let (result, verdict, kind) = case();
        let took = started.elapsed();
        let peak = before.and_then(Memory::peak);
        let shown = peak.map_or("-".into(), |bytes| format!("{} MiB", bytes >> 20));
        let millis = took.as_millis();
        self.lines.push(format!(
            "{name:<56} {verdict:<9} {kind:<32} {millis:>6} ms {shown:>8}"
        ));
        assert!(took < SOON, "{name} took {took:?}");
        assert!(
            peak.is_none_or(|bytes| bytes < LITTLE),
            "{name} took {shown}"
        );
        result
    }
}

impl Drop for Cases {
    fn drop(&mut self) {
        println!("{}: {} cases", self.group, self.lines.len());
        for line in &self.lines {
            println!("  {line}");
        }
    }
}

/// The memory of this process; `None` if other tests may run in it, or the system does not say.
struct Memory(u64);

impl Memory {
    fn now() -> Option<Self> {
        std::env::var_os("NEXTEST")?;
        // Lets the peak begin again from what there is now.
        fs::write("/proc/self/clear_refs", "5").ok()?;
        Some(Self(bytes("VmRSS:")?))
    }

    /// What was needed more since then.
    fn peak(self) -> Option<u64> {
        Some(bytes("VmHWM:")?.saturating_sub(self.0))
    }
}

fn bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}
