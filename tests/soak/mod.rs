//! The whole bridge under a steady load while its neighbours are sick: a repository that hangs, one that drips, a host that
//! is dead; and `serve` while it is killed, its disk full, an object damaged and its log unread.
//!
//! `SOAK_SECONDS=240` makes each part so long.

mod load;
mod sick;
mod trouble;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long each part takes.
fn length() -> Duration {
    let seconds = std::env::var("SOAK_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(20))
}

/// Held by a part that measures times, so that no other one is at work meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
