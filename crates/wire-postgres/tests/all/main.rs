//! What the machine promises, shown from outside.
//!
//! `golden`: recorded conversations, one promise a file. `splits`: any cut of the bytes gives the
//! same. `sync`: against a server that fails, skips and answers as PostgreSQL does, a client sees
//! what it would see if the server itself refused. `hostile`: arbitrary bytes, and the fuzzers'
//! corpus.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that meets what it did not expect should panic"
)]

mod canary;
mod fake;
mod golden;
mod hostile;
mod protect;
mod script;
mod splits;
mod sync;
