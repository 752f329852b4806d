//! A push to a Git repository on Nulab Backlog becomes a new version of a zip object in S3, and with it an AWS
//! CodePipeline source stage starts.
//!
//! ```text
//! request ─▶ receive ─Job─▶ queue ─▶ worker ─Destination─▶ deliver ─▶ Delivery ─▶ outcome
//!              │ secrets             │ sweep                 │ head, put          bucket
//!              │ webhook             └ table                 │ tip, fetch         remote
//!              └ table, plan                                 └ pack ─▶ snapshot ─▶ archive
//! ```
//!
//! The event only says which route to look at. What is fetched, from where, and where it goes comes from the routing
//! table and the Git server. The object is the only state; S3's conditional write is the only lock.
//!
//! Each module uses only what stands below it.

pub mod local;

pub mod doctor;

pub mod receive;

pub mod results;

pub mod worker;

pub mod status;

pub mod verdict;

pub mod outcome;

pub mod plan;

pub mod webhook;

pub mod deliver;

pub mod table;

pub mod connect;

pub mod bucket;

pub mod archive;

pub mod snapshot;

pub mod pack;

pub mod remote;

pub mod registration;

pub mod stack;

pub mod pipeline;

pub mod codebuild;

pub mod backlog;

pub mod queue;

pub mod telemetry;

pub mod config;

pub mod secrets;

mod deadline;

pub mod error;

pub mod route;

pub mod limits;

mod aws;

mod network;

mod chain;

pub mod plain;

pub mod progress;

pub mod push;

pub mod space;
