//! Commands' texts against real shells, and what gets round an allowlist.
//!
//! Needs the shells that [`shells`] names; `cargo xtask setup test` brings them.

#![expect(clippy::disallowed_methods, reason = "real shells are run, and the corpora are files")]

mod corpus;
mod hostile;
mod shells;
