//! An agent that writes records by hand, and the collector's envelope around them.

use prost::Message as _;

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(uint32, tag = "1")]
    pub(super) v: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) chain_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) seq: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) prev: Vec<u8>,
    #[prost(fixed64, tag = "5")]
    pub(super) wall_ns: u64,
    #[prost(fixed64, tag = "6")]
    pub(super) boot_ns: u64,
    #[prost(message, optional, tag = "20")]
    pub(super) genesis: Option<GenesisBody>,
    #[prost(message, optional, tag = "22")]
    pub(super) heartbeat: Option<HeartbeatBody>,
    #[prost(message, optional, tag = "23")]
    pub(super) gap: Option<GapBody>,
    #[prost(message, optional, tag = "24")]
    pub(super) bypass: Option<BypassBody>,
    #[prost(message, optional, tag = "25")]
    pub(super) recovered: Option<RecoveredBody>,
    #[prost(message, optional, tag = "41")]
    pub(super) outcome: Option<OutcomeBody>,
    #[prost(message, optional, tag = "51")]
    pub(super) equivocation: Option<EquivocationBody>,
    #[prost(message, optional, tag = "52")]
    pub(super) missing: Option<MissingBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HeartbeatBody {
    #[prost(string, tag = "10")]
    pub(super) checkpoint: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EquivocationBody {
    #[prost(string, tag = "1")]
    pub(super) agent_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) chain_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) seq: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) seal: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MissingBody {
    #[prost(string, tag = "1")]
    pub(super) agent_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) chain_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) from_seq: u64,
    #[prost(uint64, tag = "4")]
    pub(super) to_seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GenesisBody {
    #[prost(string, tag = "1")]
    pub(super) agent_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) boot_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) audit_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) prev_chain_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    pub(super) prev_chain_head: Vec<u8>,
    #[prost(uint64, tag = "11")]
    pub(super) prev_chain_records: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GapBody {
    #[prost(uint64, tag = "1")]
    pub(super) from_seq: u64,
    #[prost(uint64, tag = "2")]
    pub(super) to_seq: u64,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) chain_id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BypassBody {
    #[prost(uint32, tag = "1")]
    pub(super) phase: u32,
    #[prost(string, tag = "2")]
    pub(super) target: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RecoveredBody {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) chain_id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OutcomeBody {
    #[prost(uint64, tag = "4")]
    pub(super) rows: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EntryBody {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) chain_id: Vec<u8>,
    #[prost(fixed64, tag = "3")]
    pub(super) received_ns: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) bytes: Vec<u8>,
}

/// An agent that writes one chain after the other.
pub(super) struct Agent {
    pub(super) id: &'static str,
    pub(super) key: SigningKey,
    pub(super) boot: u8,
    pub(super) runs: u8,
    pub(super) chain: Chain,
    pub(super) sealed: u64,
}

impl Agent {
    pub(super) fn new(id: &'static str, seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        Self { id, key, boot: 1, runs: 0, chain: Chain::begin(ChainId([0; 32])), sealed: 0 }
    }

    pub(super) fn pin(&self) -> AgentKey {
        AgentKey { agent_id: self.id.to_owned(), audit_key: self.key.verifying_key().to_bytes() }
    }

    /// Begins a chain behind the one before, if there was one.
    pub(super) fn start(&mut self, log: &mut Vec<Vec<u8>>) {
        self.runs += 1;
        let (boot, nonce) = ([self.boot; 16], [self.runs; 16]);
        let public = self.key.verifying_key().to_bytes();
        let before = std::mem::replace(
            &mut self.chain,
            Chain::begin(chain_id(self.id, &boot, &public, &nonce)),
        );
        self.sealed = 0;
        let mut genesis = GenesisBody {
            agent_id: self.id.to_owned(),
            boot_id: boot.to_vec(),
            nonce: nonce.to_vec(),
            audit_key: public.to_vec(),
            ..GenesisBody::default()
        };
        if self.runs > 1 {
            genesis.prev_chain_id = before.id().0.to_vec();
            genesis.prev_chain_head = before.head().to_vec();
            genesis.prev_chain_records = before.records();
        }
        self.write(log, Record { genesis: Some(genesis), ..Record::default() });
    }

    pub(super) fn write(&mut self, log: &mut Vec<Vec<u8>>, record: Record) {
        let bytes = Record {
            v: 1,
            chain_id: self.chain.id().0.to_vec(),
            seq: self.chain.next_seq().0,
            prev: self.chain.head().to_vec(),
            ..record
        }
        .encode_to_vec();
        self.chain.link(&bytes).unwrap();
        log.push(entry(1, &self.chain.id(), &bytes));
    }

    pub(super) fn outcome(&mut self, log: &mut Vec<Vec<u8>>, rows: u64) {
        self.write(log, Record { outcome: Some(OutcomeBody { rows }), ..Record::default() });
    }

    pub(super) fn seal(&mut self, log: &mut Vec<Vec<u8>>) {
        let facts = SealFacts {
            chain_id: self.chain.id(),
            first: Seq(self.sealed),
            last: Seq(self.chain.records() - 1),
            chain_value: self.chain.head(),
            wall_ns: 1,
            boot_ns: 2,
        };
        self.sealed = self.chain.records();
        log.push(entry(2, &self.chain.id(), &seal::sign(&self.key, &facts)));
    }
}

pub(super) fn entry(kind: u32, chain: &ChainId, bytes: &[u8]) -> Vec<u8> {
    entry_at(kind, chain, bytes, 5)
}

pub(super) fn entry_at(kind: u32, chain: &ChainId, bytes: &[u8], received_ns: u64) -> Vec<u8> {
    EntryBody { kind, chain_id: chain.0.to_vec(), received_ns, bytes: bytes.to_vec() }
        .encode_to_vec()
}
