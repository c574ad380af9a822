//! Commands' texts against real shells, and what gets round an allowlist.
//!
//! Needs the shells that [`shells`] names; `cargo xtask setup test` brings them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets what it did not expect should panic; real shells are run"
)]

mod corpus;
mod hostile;
mod shells;
