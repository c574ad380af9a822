//! What the machine promises, shown from outside.
//!
//! `golden`: recorded conversations, one promise a file. `splits`: any cut of the bytes gives the
//! same. `idle`: when nothing is under way. `masking`: results under duties. `hostile`: arbitrary bytes,
//! and the fuzzers' corpus.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that meets what it did not expect should panic"
)]

mod golden;
mod hostile;
mod idle;
mod masking;
mod packed;
mod script;
mod splits;
