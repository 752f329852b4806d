//! What replaces AWS on a laptop: an HTTP listener, a queue in memory, and an S3 with versions and conditional writes, in a
//! folder that people can browse.
//!
//! ```text
//! aws-sdk-s3 ──HTTP on loopback──▶ server ──▶ s3 (the operations) ──▶ store, uploads, version (files) ──▶ key_path (names)
//!                                              ├ body (bytes in and out, checksums)
//!                                              └ listing (pages), multipart (uploads in parts)
//! ```
//!
//! The ordinary SDK client talks to it, so that the code that delivers is the same here, in the tests, and in Lambda.
//! It knows what the bridge needs of S3 and answers `NotImplemented` to anything else.

mod awaited;
mod body;
mod error;
mod fifo;
mod hooks;
mod key_path;
mod listing;
mod multipart;
mod queue;
mod s3;
mod server;
mod store;
mod turns;
mod uploads;
mod version;

pub use self::{
    error::StoreError,
    fifo::{Expired, Fifo, Lease, Receipt},
    hooks::{serve_health, serve_hooks},
    queue::{JobEnded, LocalQueue},
    server::{EmbeddedS3, Patience, serve, service},
    store::{Precondition, Store},
    version::{Content, Version},
};
