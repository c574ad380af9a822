//! The collector's signed answer to a request for approval.
//!
//! Promises: an answer is read only under the signature of the key that is asked for, in a context of
//! its own. Cannot do: say whether it fits what is about to run; `tidegate_policy::approval` does.

use prost::Message as _;

use crate::SigningKey;
use crate::signing::{self, SignatureError};

const CONTEXT: &[u8] = b"tidegate/approval/v1\0";

/// Why bytes are no answer of that key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// They are not in the format.
    #[error("not an answer to a request for approval: {0}")]
    Format(String),
    /// The signature does not stand.
    #[error("answer to a request for approval: {0}")]
    Signature(#[from] SignatureError),
}

/// Somebody with the groups that count.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Person {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The groups.
    #[prost(string, repeated, tag = "2")]
    pub groups: Vec<String>,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AnswerFacts {
    /// The request.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The agent that asked.
    #[prost(string, tag = "2")]
    pub agent_id: String,
    /// SHA-256 of what was asked, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub binding: Vec<u8>,
    /// Until when it may be used, `CLOCK_REALTIME` in nanoseconds.
    #[prost(fixed64, tag = "4")]
    pub deadline_ns: u64,
    /// Granted, or denied.
    #[prost(bool, tag = "5")]
    pub granted: bool,
    /// Who granted, or who denied.
    #[prost(message, repeated, tag = "6")]
    pub people: Vec<Person>,
    /// When, by the collector's clock.
    #[prost(fixed64, tag = "7")]
    pub decided_ns: u64,
}

/// Makes the body's bytes and the signature over them.
pub fn sign(key: &SigningKey, facts: &AnswerFacts) -> (Vec<u8>, [u8; 64]) {
    let body = facts.encode_to_vec();
    let signature = signing::sign(key, CONTEXT, &body);
    (body, signature)
}

/// Checks the signature over a body, and reads it.
pub fn verify(body: &[u8], signature: &[u8], key: &[u8; 32]) -> Result<AnswerFacts, ApprovalError> {
    signing::verify(key, CONTEXT, body, signature)?;
    AnswerFacts::decode(body).map_err(|error| ApprovalError::Format(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_as_written_and_no_bit_of_it_may_change() {
        let key = SigningKey::from_bytes(&[9; 32]);
        let public = key.verifying_key().to_bytes();
        let facts = AnswerFacts {
            id: "t1".to_owned(),
            agent_id: "host-1".to_owned(),
            binding: vec![3; 32],
            deadline_ns: 5,
            granted: true,
            people: vec![Person { name: "ann".to_owned(), groups: vec!["dba".to_owned()] }],
            decided_ns: 4,
        };
        let (body, signature) = sign(&key, &facts);
        assert_eq!(verify(&body, &signature, &public), Ok(facts));
        for bit in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed, &signature, &public).is_err(), "bit {bit}");
        }
        assert!(verify(&body, &signature, &[1; 32]).is_err());
        assert!(verify(&body, &crate::enrol::prove(&key, "t1"), &public).is_err());
    }
}
