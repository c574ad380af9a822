//! The collector's own chain: what was done to it, and asked of it, is a record like any other.
//!
//! Promise: an act of the command line is on the disk (`state.db`, table `acts`) before it has its effect
//! or its answer; a collector that serves moves it into the log within a second, once.
//!
//! Cannot do: see whoever reads `index.db`, or copies the log, without our program; keep an act that
//! somebody with write access to `state.db` removes before it is in the log.
//!
//! The chain goes on over restarts: one Genesis, agent [`COLLECTOR`], sealed by `audit.key`.

use bytes::Bytes;
use prost::Message as _;
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::seal::SealFacts;
use tidegate_ledger::{Chain, SigningKey, chain_id, seal};
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::{Administration, AuditRecord, Genesis};

use crate::clock;

/// The agent's name in the Genesis of the collector's own chain. No agent can be enrolled under it.
pub const COLLECTOR: &str = "@collector";
/// Longest detail of an act, in bytes.
pub const DETAIL_BYTES_MAX: usize = 4096;
/// Most acts that are moved into the log at once.
pub const ACTS_AT_ONCE_MAX: usize = 256;

/// Something done or asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// What: `asked`, `token_made`, ..
    pub act: &'static str,
    /// In words.
    pub detail: String,
    /// SHA-256 of what it is about, where that is bytes.
    pub digest: Vec<u8>,
}

impl Act {
    /// An act without a digest.
    pub fn new(act: &'static str, detail: impl Into<String>) -> Self {
        Self { act, detail: cut(detail.into()), digest: Vec::new() }
    }
}

fn cut(mut detail: String) -> String {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    detail.truncate(end);
    detail
}

/// Who runs this program, as the kernel has it: the user, and who logged in.
pub fn who() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata("/proc/self").map(|of| of.uid().to_string());
    let uid = uid.unwrap_or_else(|_| "unknown".to_owned());
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    // The kernel's word for nobody, as for a service.
    match login.trim() {
        "" | "4294967295" => format!("uid {uid}"),
        login => format!("uid {uid}, login uid {login}"),
    }
}

/// An act as it waits in `state.db`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub id: u64,
    /// When.
    pub wall_ns: u64,
    /// What, by whom.
    pub body: Administration,
}

/// Where the own chain stands in the log.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The chain.
    pub chain: Chain,
    /// The first record that is under no seal.
    pub unsealed: Seq,
}

/// New records of the own chain, and the seal over them and whatever was unsealed before them.
pub struct Made {
    /// What the seal says.
    pub facts: SealFacts,
    /// The Genesis, where the chain began now.
    pub genesis: Option<tidegate_ledger::Genesis>,
    /// Exact bytes of each.
    pub records: Vec<Bytes>,
    /// Exact bytes of the seal.
    pub seal: Bytes,
}

/// Makes records of these bodies, with their times; `None` where there are none.
pub fn make(
    key: &SigningKey,
    standing: Option<Standing>,
    bodies: Vec<(u64, Body)>,
) -> anyhow::Result<Option<Made>> {
    if bodies.is_empty() {
        return Ok(None);
    }
    let mut records = Vec::with_capacity(bodies.len() + 1);
    let boot_ns = clock::boot_ns();
    let (mut chain, unsealed, genesis) = if let Some(standing) = standing {
        (standing.chain, standing.unsealed, None)
    } else {
        let (id, body) = begin(key)?;
        let mut chain = Chain::begin(id);
        let record = encode(&mut chain, clock::now_ns(), boot_ns, body);
        let genesis = tidegate_ledger::Genesis::read(&record)?;
        records.push(record);
        (chain, Seq(0), genesis)
    };
    for (wall_ns, body) in bodies {
        records.push(encode(&mut chain, wall_ns, boot_ns, body));
    }
    let facts = SealFacts {
        chain_id: chain.id(),
        first: unsealed,
        last: Seq(chain.next_seq().0.saturating_sub(1)),
        chain_value: chain.head(),
        wall_ns: clock::now_ns(),
        boot_ns,
    };
    let seal = Bytes::from(seal::sign(key, &facts));
    Ok(Some(Made { facts, genesis, records, seal }))
}

fn begin(key: &SigningKey) -> anyhow::Result<(ChainId, Body)> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    let boot_id = clock::boot_id();
    let audit_key = key.verifying_key().to_bytes();
    let id = chain_id(COLLECTOR, &boot_id, &audit_key, &nonce);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let genesis = Genesis {
        agent_id: COLLECTOR.to_owned(),
        boot_id: Bytes::copy_from_slice(&boot_id),
        nonce: Bytes::copy_from_slice(&nonce),
        audit_key: Bytes::copy_from_slice(&audit_key),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.trim().to_owned(),
        ..Genesis::default()
    };
    Ok((id, Body::Genesis(genesis)))
}

fn encode(chain: &mut Chain, wall_ns: u64, boot_ns: u64, body: Body) -> Bytes {
    let record = AuditRecord {
        v: 1,
        chain_id: Bytes::copy_from_slice(chain.id().as_bytes()),
        seq: chain.next_seq().0,
        prev: Bytes::copy_from_slice(&chain.head()),
        wall_ns,
        boot_ns,
        body: Some(body),
        ..AuditRecord::default()
    };
    let bytes = Bytes::from(record.encode_to_vec());
    chain.advance(&bytes);
    bytes
}

/// The number of an act, where a record is one.
pub fn act_id(record: &[u8]) -> Option<u64> {
    match AuditRecord::decode(record).ok()?.body {
        Some(Body::Administration(act)) => Some(act.act_id),
        _ => None,
    }
}
