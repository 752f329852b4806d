//! The `backlog-bridge` command line.

fn main() {}
