//! The collector's signed promise: everything up to a sequence number is synced in its log.
//!
//! Cannot do: prove that the log keeps its promise; a checkpoint with an inclusion proof does
//! ([`crate::tree`]).

use prost::Message as _;
use tidegate_event::{ChainId, Seq};

use crate::signing::{self, SignatureError};
use crate::{Hash, SigningKey};

const CONTEXT: &[u8] = b"tidegate/receipt/v1\0";

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptFacts {
    /// The chain.
    pub chain_id: ChainId,
    /// Last record that is synced.
    pub durable: Seq,
    /// Its chain value.
    pub chain_value: Hash,
    /// First leaf of the batch in the log.
    pub first_index: u64,
    /// Last leaf of the batch in the log.
    pub last_index: u64,
    /// When the batch came, by the collector's clock.
    pub received_ns: u64,
}

/// Why bytes are no receipt of that key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// They are not in the format.
    #[error("not a receipt: {0}")]
    Format(String),
    /// The signature does not stand.
    #[error("receipt: {0}")]
    Signature(#[from] SignatureError),
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReceiptBody {
    #[prost(bytes = "vec", tag = "1")]
    chain_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    durable_seq: u64,
    #[prost(bytes = "vec", tag = "3")]
    chain_value: Vec<u8>,
    #[prost(uint64, tag = "4")]
    first_index: u64,
    #[prost(uint64, tag = "5")]
    last_index: u64,
    #[prost(fixed64, tag = "6")]
    received_ns: u64,
}

/// Makes the body's bytes and the signature over them.
pub fn sign(key: &SigningKey, facts: &ReceiptFacts) -> (Vec<u8>, [u8; 64]) {
    let body = ReceiptBody {
        chain_id: facts.chain_id.0.to_vec(),
        durable_seq: facts.durable.0,
        chain_value: facts.chain_value.to_vec(),
        first_index: facts.first_index,
        last_index: facts.last_index,
        received_ns: facts.received_ns,
    }
    .encode_to_vec();
    let signature = signing::sign(key, CONTEXT, &body);
    (body, signature)
}

/// Checks the signature over a body, and reads it.
pub fn verify(body: &[u8], signature: &[u8], key: &[u8; 32]) -> Result<ReceiptFacts, ReceiptError> {
    signing::verify(key, CONTEXT, body, signature)?;
    let body =
        ReceiptBody::decode(body).map_err(|error| ReceiptError::Format(error.to_string()))?;
    let wrong = |field: &str| ReceiptError::Format(format!("{field} is not 32 bytes"));
    Ok(ReceiptFacts {
        chain_id: ChainId::from_slice(&body.chain_id).ok_or_else(|| wrong("chain_id"))?,
        durable: Seq(body.durable_seq),
        chain_value: body.chain_value.as_slice().try_into().map_err(|_| wrong("chain_value"))?,
        first_index: body.first_index,
        last_index: body.last_index,
        received_ns: body.received_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_reads_as_written_and_no_bit_of_it_may_change() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let public = key.verifying_key().to_bytes();
        let facts = ReceiptFacts {
            chain_id: ChainId([1; 32]),
            durable: Seq(41),
            chain_value: [2; 32],
            first_index: 7,
            last_index: 9,
            received_ns: 11,
        };
        let (body, signature) = sign(&key, &facts);
        assert_eq!(verify(&body, &signature, &public), Ok(facts));
        for bit in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed, &signature, &public).is_err(), "bit {bit}");
        }
    }
}
