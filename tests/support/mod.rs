//! What the tests stand on: real parts with the faults that real parts have.

pub mod aws_api;

pub mod backlog;
pub mod cases;
pub mod cgi;
pub mod event_source;
pub mod fault;
pub mod fifo;
pub mod generate;
pub mod git_server;
pub mod http;
pub mod json_api;
pub mod lambda;
pub mod oracle;
pub mod pack_builder;
pub mod process;
pub mod product;
pub mod s3;
pub mod secrets;
pub mod service;
pub mod sqs;
pub mod terminal;
pub mod tiny_disk;
pub mod tls;
pub mod upstream;
pub mod world;

/// The ref that most tests deliver.
pub const MAIN: &str = "refs/heads/main";
/// The bucket of every route.
pub const BUCKET: &str = "sources";
/// The object of [`MAIN`].
pub const KEY: &str = "web/main.zip";
