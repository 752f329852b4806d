//! What goes through the public door only, on real parts: one program, so that these and what they stand on are compiled
//! and linked once.
#![expect(
    clippy::print_stdout,
    reason = "a test says what it saw and where it began"
)]

mod answers;
mod archive;
mod aws;
mod backlog;
mod cli;
mod connect;
mod contract;
mod conversions;
mod damaged;
mod deliver;
mod deployed;
mod doctor;
mod embedded_s3;
mod fall_back;
mod faults;
mod flood;
mod help;
mod hostile;
mod incremental;
mod lambda_support_works;
mod layout;
mod logins;
// `model`, `processes` and others run long and stand in folders of their own, but are no programs of their own: those would
// compile `support` again and, as each would use a part of it, could not do so without `allow(dead_code)`.
#[path = "../model/mod.rs"]
mod model;
mod names;
mod neighbours;
mod network;
mod objects;
mod packs;
#[path = "../processes/mod.rs"]
mod processes;
mod redrive;
mod reference;
mod remote;
mod replicas;
mod requests;
mod results;
mod routes;
mod secrets;
mod serve;
mod service;
mod silences;
#[path = "../simulation/mod.rs"]
mod simulation;
#[path = "../soak/mod.rs"]
mod soak;
mod supply;
#[path = "../support/mod.rs"]
#[expect(unreachable_pub, reason = "`pub` is what it offers the tests")]
mod support;
mod support_works;
mod sweeps;
mod tables;
mod times;
mod trees;
mod upgrade;
mod uploads;
mod webhook;
