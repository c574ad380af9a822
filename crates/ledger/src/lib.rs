//! Hash chain, batch seals, Merkle tree and checkpoints, and [`verify`], which is all that an
//! auditor needs.
//!
//! Promise: pure. What is hashed and signed are the exact bytes as they came; nothing here
//! decodes a record and encodes it again. Every signature is over a prefix that names its use,
//! so that one can't stand for another. Formats: `docs/formats/{record,seal,chain,checkpoint}.md`;
//! what is published of the tree is in the C2SP formats: [`checkpoint`], [`cosignature`], [`policy`], [`proof`],
//! [`tiles`].
//!
//! Cannot do: say whether a record tells the truth. A host whose root was taken may write
//! plausible records; [`verify::Report::not_proven`] says so each time.
//!
//! Limits: Ed25519 signatures only.

pub mod approval;
pub mod chain;
pub mod checkpoint;
pub mod cosignature;
pub mod enrol;
mod fields;
mod genesis;
mod note;
pub mod policy;
pub mod proof;
pub mod receipt;
pub mod seal;
mod signing;
pub mod tiles;
pub mod tree;
pub mod verify;

pub use chain::{Chain, Header, LinkError, ZERO, chain_id, chain_value};
pub use ed25519_dalek::{SigningKey, VerifyingKey};
pub use fields::{FormatError, has_field};
pub use genesis::{Genesis, Previous};

/// A SHA-256 value.
pub type Hash = [u8; 32];
