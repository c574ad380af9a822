//! The collector as a library, so that its parts can be tested.
//!
//! The road of one batch: `ingest` (whose is it, does it continue its chain) -> `log` (append,
//! sync, receipt; a checkpoint each second) -> `index` (a projection, rebuilt at any time) ->
//! `query`, `export`. `verify` walks the log and trusts nothing but the public keys.
//!
//! `ui` serves the review pages, through the same questions as the command line.
//!
//! What is not here yet: retention, witnesses, and the collector's own chain of
//! administrative acts (who enrolled an agent, who asked which question).

pub mod access;
pub mod cli;
pub mod clock;
pub mod config;
pub mod export;
pub mod files;
pub mod index;
pub mod ingest;
pub mod init;
pub mod keys;
pub mod log;
pub mod pki;
pub mod query;
pub mod serve;
pub mod state;
pub mod ui;
pub mod verify;
