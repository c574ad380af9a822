//! The collector as a library, so that its parts can be tested.
//!
//! The road of one batch: `ingest` (whose is it, does it continue its chain) -> `log` (append,
//! sync, receipt; a checkpoint each second) -> `index` (a projection, rebuilt at any time) ->
//! `query`, `export`; and each checkpoint -> `publish` (tiles, witnesses). `verify` walks the log and trusts
//! nothing but the public keys. What is done to the collector is in the log too (`acts`).
//!
//! `ui` serves the review pages, through the same questions as the command line.
//!
//! What is not here yet: retention.

pub mod access;
pub mod acts;
pub mod approvals;
pub mod bundle;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coverage;
mod db;
pub mod export;
pub mod files;
pub mod http;
pub mod index;
pub mod ingest;
pub mod init;
pub mod keys;
pub mod log;
pub mod pki;
pub mod publish;
pub mod query;
pub mod seen;
pub mod serve;
pub mod silence;
pub mod state;
pub mod tlog;
pub mod ui;
pub mod verify;
pub mod witness;
