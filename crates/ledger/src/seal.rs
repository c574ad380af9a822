//! The agent's signature over a run of records (`docs/formats/seal.md`).
//!
//! Promise: a seal that verifies was made by the holder of the audit key, over exactly the bytes
//! of its body. Through the chain value it binds every record up to its last.

use prost::Message as _;
use tidegate_event::{ChainId, Seq};

use crate::fields::{Fields, FormatError, once};
use crate::signing::{self, SignatureError};
use crate::{Hash, SigningKey};

const CONTEXT: &[u8] = b"tidegate/seal/v1\0";

/// What a seal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealFacts {
    /// The chain.
    pub chain_id: ChainId,
    /// First record under it.
    pub first: Seq,
    /// Last record under it.
    pub last: Seq,
    /// Chain value of the last record.
    pub chain_value: Hash,
    /// When it was made, by the agent's wall clock.
    pub wall_ns: u64,
    /// When it was made, by the agent's boot clock.
    pub boot_ns: u64,
}

/// Why bytes are no seal of that key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// They are not in the format.
    #[error("not a seal: {0}")]
    Format(#[from] FormatError),
    /// Its run ends before it begins.
    #[error("a seal over records {first} to {last}")]
    Backwards {
        /// First record.
        first: Seq,
        /// Last record.
        last: Seq,
    },
    /// The signature does not stand.
    #[error("seal: {0}")]
    Signature(#[from] SignatureError),
}

#[derive(Clone, PartialEq, prost::Message)]
struct SealBody {
    #[prost(bytes = "vec", tag = "1")]
    chain_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    first_seq: u64,
    #[prost(uint64, tag = "3")]
    last_seq: u64,
    #[prost(bytes = "vec", tag = "4")]
    chain_value: Vec<u8>,
    #[prost(fixed64, tag = "5")]
    wall_ns: u64,
    #[prost(fixed64, tag = "6")]
    boot_ns: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Seal {
    #[prost(bytes = "vec", tag = "1")]
    body: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    signature: Vec<u8>,
}

/// Makes the seal's bytes.
pub fn sign(key: &SigningKey, facts: &SealFacts) -> Vec<u8> {
    let body = SealBody {
        chain_id: facts.chain_id.0.to_vec(),
        first_seq: facts.first.0,
        last_seq: facts.last.0,
        chain_value: facts.chain_value.to_vec(),
        wall_ns: facts.wall_ns,
        boot_ns: facts.boot_ns,
    }
    .encode_to_vec();
    let signature = signing::sign(key, CONTEXT, &body).to_vec();
    Seal { body, signature }.encode_to_vec()
}

/// Reads a seal and checks its signature.
pub fn verify(seal: &[u8], key: &[u8; 32]) -> Result<SealFacts, SealError> {
    let (body, signature) = split(seal)?;
    signing::verify(key, CONTEXT, body, signature)?;
    read_body(body)
}

/// Reads a seal without checking who signed it.
pub fn read(seal: &[u8]) -> Result<SealFacts, SealError> {
    read_body(split(seal)?.0)
}

fn split(seal: &[u8]) -> Result<(&[u8], &[u8]), FormatError> {
    let (mut body, mut signature) = (None, None);
    let mut fields = Fields::new(seal);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => once(&mut body, number, value.bytes(number)?)?,
            2 => once(&mut signature, number, value.bytes(number)?)?,
            _ => {}
        }
    }
    let missing = |field, expected| FormatError::Field { field, expected };
    Ok((
        body.ok_or_else(|| missing(1, "a seal's body"))?,
        signature.ok_or_else(|| missing(2, "a signature of 64 bytes"))?,
    ))
}

fn read_body(body: &[u8]) -> Result<SealFacts, SealError> {
    let (mut chain_id, mut first, mut last, mut value_of_last) = (None, None, None, None);
    let (mut wall_ns, mut boot_ns) = (None, None);
    let mut fields = Fields::new(body);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => once(&mut chain_id, number, value.array(number, "a chain id of 32 bytes")?)?,
            2 => once(&mut first, number, value.varint(number)?)?,
            3 => once(&mut last, number, value.varint(number)?)?,
            4 => once(&mut value_of_last, number, value.array(number, "a hash of 32 bytes")?)?,
            5 => once(&mut wall_ns, number, value.fixed64(number)?)?,
            6 => once(&mut boot_ns, number, value.fixed64(number)?)?,
            _ => {}
        }
    }
    let missing = |field, expected| FormatError::Field { field, expected };
    let facts = SealFacts {
        chain_id: ChainId(chain_id.ok_or_else(|| missing(1, "a chain id of 32 bytes"))?),
        first: Seq(first.unwrap_or(0)),
        last: Seq(last.unwrap_or(0)),
        chain_value: value_of_last.ok_or_else(|| missing(4, "a hash of 32 bytes"))?,
        wall_ns: wall_ns.unwrap_or(0),
        boot_ns: boot_ns.unwrap_or(0),
    };
    if facts.last < facts.first {
        return Err(SealError::Backwards { first: facts.first, last: facts.last });
    }
    Ok(facts)
}
