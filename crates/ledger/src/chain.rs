//! The agent's hash chain: each record holds the hash of the one before.
//!
//! Promise: [`Chain::link`] takes a record only in its place: the chain's id, the next sequence
//! number, the head as `prev`, and a Genesis first and nowhere else. A record that it refuses
//! changes nothing.
//!
//! Cannot do: say who wrote the records; seals do ([`crate::seal`]).

use sha2::{Digest as _, Sha256};
use tidegate_event::{ChainId, Seq};

use crate::fields::{Fields, FormatError, once};
use crate::{Genesis, Hash};

/// `prev` of a chain's first record.
pub const ZERO: Hash = [0; 32];

const RECORD_CONTEXT: &[u8] = b"tidegate/rec/v1\0";
const CHAIN_CONTEXT: &[u8] = b"tidegate/chain/v1\0";

/// Version of the record format that this code reads.
const VERSION: u64 = 1;

/// The chain value of a record: the hash of its exact bytes.
pub fn chain_value(record: &[u8]) -> Hash {
    Sha256::new_with_prefix(RECORD_CONTEXT).chain_update(record).finalize().into()
}

/// The id of the chain that a Genesis with these fields begins.
pub fn chain_id(
    agent_id: &str,
    boot_id: &[u8; 16],
    audit_key: &[u8; 32],
    nonce: &[u8; 16],
) -> ChainId {
    let length = u64::try_from(agent_id.len()).unwrap_or(u64::MAX);
    ChainId(
        Sha256::new_with_prefix(CHAIN_CONTEXT)
            .chain_update(length.to_le_bytes())
            .chain_update(agent_id)
            .chain_update(boot_id)
            .chain_update(audit_key)
            .chain_update(nonce)
            .finalize()
            .into(),
    )
}

/// What the chain needs of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The chain that it belongs to.
    pub chain_id: ChainId,
    /// Its place.
    pub seq: Seq,
    /// Chain value of the record before.
    pub prev: Hash,
    /// The agent's wall clock, nanoseconds since 1970.
    pub wall_ns: u64,
    /// The agent's boot clock, nanoseconds.
    pub boot_ns: u64,
}

impl Header {
    /// Reads the header fields of a record, and checks that the whole is protobuf.
    pub fn read(record: &[u8]) -> Result<Self, FormatError> {
        let (mut version, mut chain_id, mut seq, mut prev) = (None, None, None, None);
        let (mut wall_ns, mut boot_ns) = (None, None);
        let mut fields = Fields::new(record);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => once(&mut version, number, value.varint(number)?)?,
                2 => once(&mut chain_id, number, value.array(number, "a chain id of 32 bytes")?)?,
                3 => once(&mut seq, number, value.varint(number)?)?,
                4 => once(&mut prev, number, value.array(number, "a hash of 32 bytes")?)?,
                5 => once(&mut wall_ns, number, value.fixed64(number)?)?,
                6 => once(&mut boot_ns, number, value.fixed64(number)?)?,
                _ => {}
            }
        }
        match version {
            Some(VERSION) => {}
            other => return Err(FormatError::Version(other.unwrap_or(0))),
        }
        let missing = |field, expected| FormatError::Field { field, expected };
        Ok(Self {
            chain_id: ChainId(chain_id.ok_or_else(|| missing(2, "a chain id of 32 bytes"))?),
            seq: Seq(seq.unwrap_or(0)),
            prev: prev.ok_or_else(|| missing(4, "a hash of 32 bytes"))?,
            wall_ns: wall_ns.unwrap_or(0),
            boot_ns: boot_ns.unwrap_or(0),
        })
    }
}

/// Why a record is not the next of its chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is no record.
    #[error("not a record: {0}")]
    Format(#[from] FormatError),
    /// It belongs elsewhere.
    #[error("record of chain {got} among those of chain {expected}")]
    OtherChain {
        /// The chain at hand.
        expected: ChainId,
        /// What the record says.
        got: ChainId,
    },
    /// It is not the next.
    #[error("sequence number {got} where {expected} follows")]
    NotContiguous {
        /// The next place.
        expected: Seq,
        /// What the record says.
        got: Seq,
    },
    /// It was built on other bytes than those of the record before.
    #[error("record {seq} does not hold the hash of the record before it")]
    Broken {
        /// Its place.
        seq: Seq,
    },
    /// The first record is no Genesis.
    #[error("the chain does not begin with a Genesis")]
    NoGenesis,
    /// A Genesis stands inside of the chain.
    #[error("record {seq} is a Genesis inside of a chain")]
    GenesisAgain {
        /// Its place.
        seq: Seq,
    },
}

/// The state of one chain: what comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    id: ChainId,
    next: Seq,
    head: Hash,
}

impl Chain {
    /// A chain of which nothing is linked yet.
    pub const fn begin(id: ChainId) -> Self {
        Self { id, next: Seq(0), head: ZERO }
    }

    /// A chain that goes on at `next`, behind the record whose chain value is `head`.
    pub const fn resume(id: ChainId, next: Seq, head: Hash) -> Self {
        Self { id, next, head }
    }

    /// Its id.
    pub const fn id(&self) -> ChainId {
        self.id
    }

    /// The next place.
    pub const fn next_seq(&self) -> Seq {
        self.next
    }

    /// Chain value of the last record; [`ZERO`] before the first.
    pub const fn head(&self) -> Hash {
        self.head
    }

    /// How many records it has.
    pub const fn records(&self) -> u64 {
        self.next.0
    }

    /// Takes the next record.
    pub fn link(&mut self, record: &[u8]) -> Result<Header, LinkError> {
        let header = Header::read(record)?;
        self.check(&header)?;
        let genesis = Genesis::read(record)?;
        match (header.seq, genesis.is_some()) {
            (Seq(0), false) => return Err(LinkError::NoGenesis),
            (seq @ Seq(1..), true) => return Err(LinkError::GenesisAgain { seq }),
            _ => {}
        }
        self.advance(record);
        Ok(header)
    }

    fn check(&self, header: &Header) -> Result<(), LinkError> {
        if header.chain_id != self.id {
            return Err(LinkError::OtherChain { expected: self.id, got: header.chain_id });
        }
        if header.seq != self.next {
            return Err(LinkError::NotContiguous { expected: self.next, got: header.seq });
        }
        if header.prev != self.head {
            return Err(LinkError::Broken { seq: header.seq });
        }
        Ok(())
    }

    /// Advances over a record that the caller has just built from [`Self::next_seq`] and
    /// [`Self::head`]; returns its chain value. For the writer's hot path: it reads nothing back.
    pub fn advance(&mut self, record: &[u8]) -> Hash {
        self.head = chain_value(record);
        self.next = self.next.next();
        self.head
    }
}

#[cfg(test)]
mod tests;
