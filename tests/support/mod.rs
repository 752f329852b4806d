//! What the tests stand on: real parts with the faults that real parts have.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file includes all of it and uses a part"
)]

pub mod s3;
