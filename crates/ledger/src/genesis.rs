//! The first record of a chain: whose it is, and which chain it follows.
//!
//! Promise: a [`Genesis`] that was read names the chain id that its own fields make.

use tidegate_event::ChainId;

use crate::fields::{Fields, FormatError, once};
use crate::{Hash, Header, chain_id};

const GENESIS_FIELD: u32 = 20;

/// What a Genesis says of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// The chain that it begins.
    pub chain_id: ChainId,
    /// The agent, as it names itself.
    pub agent_id: String,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// Random, so that two runs in one boot have two chains.
    pub nonce: [u8; 16],
    /// Ed25519 public key that signs the chain's seals.
    pub audit_key: [u8; 32],
    /// The agent's chain before, if it knows one.
    pub previous: Option<Previous>,
}

/// The end of the chain before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Its id.
    pub chain_id: ChainId,
    /// Chain value of its last record.
    pub head: Hash,
    /// How many records it has.
    pub records: u64,
}

impl Genesis {
    /// Reads the Genesis out of a record; `None` for a record with another body.
    pub fn read(record: &[u8]) -> Result<Option<Self>, FormatError> {
        let mut body = None;
        let mut fields = Fields::new(record);
        while let Some((number, value)) = fields.next()? {
            if number == GENESIS_FIELD {
                once(&mut body, number, value.bytes(number)?)?;
            }
        }
        let Some(body) = body else { return Ok(None) };
        let named = Header::read(record)?.chain_id;
        Self::read_body(body, named).map(Some)
    }

    fn read_body(body: &[u8], named: ChainId) -> Result<Self, FormatError> {
        let (mut agent_id, mut boot_id, mut nonce, mut audit_key) = (None, None, None, None);
        let (mut prev_id, mut prev_head, mut prev_records) = (None, None, None);
        let mut fields = Fields::new(body);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => once(&mut agent_id, number, value.text(number)?)?,
                2 => once(&mut boot_id, number, value.array(number, "a boot id of 16 bytes")?)?,
                3 => once(&mut nonce, number, value.array(number, "a nonce of 16 bytes")?)?,
                4 => once(&mut audit_key, number, value.array(number, "a key of 32 bytes")?)?,
                9 => once(&mut prev_id, number, value.array(number, "a chain id of 32 bytes")?)?,
                10 => once(&mut prev_head, number, value.array(number, "a hash of 32 bytes")?)?,
                11 => once(&mut prev_records, number, value.varint(number)?)?,
                _ => {}
            }
        }
        let missing = |field, expected| FormatError::Field { field, expected };
        let agent_id = agent_id.ok_or_else(|| missing(1, "an agent id"))?.to_owned();
        let boot_id = boot_id.ok_or_else(|| missing(2, "a boot id of 16 bytes"))?;
        let nonce = nonce.ok_or_else(|| missing(3, "a nonce of 16 bytes"))?;
        let audit_key = audit_key.ok_or_else(|| missing(4, "a key of 32 bytes"))?;
        let made = chain_id(&agent_id, &boot_id, &audit_key, &nonce);
        if made != named {
            return Err(FormatError::ChainId { named, made });
        }
        let previous = match (prev_id, prev_head) {
            (Some(id), Some(head)) => {
                Some(Previous { chain_id: ChainId(id), head, records: prev_records.unwrap_or(0) })
            }
            (None, None) => None,
            _ => return Err(missing(10, "there together with field 9")),
        };
        Ok(Self { chain_id: named, agent_id, boot_id, nonce, audit_key, previous })
    }
}
