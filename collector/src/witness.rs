//! Witnesses: others who sign that the log only grows (C2SP tlog-witness).
//!
//! [`server`] is the role of the witness, a program of its own beside nothing else of ours; [`client`]
//! is the collector that asks. A witness sees origin, size, root and time of each checkpoint, and no record.

pub mod book;
pub mod client;
pub mod server;

use sha2::{Digest as _, Sha256};

/// Longest request that a witness reads, in bytes: a note and 63 hashes.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024;
/// Most hashes of a consistency proof.
pub const PROOF_HASHES_MAX: usize = 63;
/// Content type of the size in a 409.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// How an origin is named in a path: its SHA-256 in hexadecimal.
pub fn origin_hash(origin: &str) -> String {
    hex::encode(Sha256::digest(origin.as_bytes()))
}
