//! Walks a collector's log and says what is wrong with it, where, and what it can't say.
//!
//! Promise: fed every entry in order, a [`Verifier`] finds any record that was changed, removed,
//! inserted or put in another place after its agent sealed it, and any tree head that the log
//! does not match, and names the first broken record. It needs the agents' public keys, the
//! log's public key and a checkpoint from earlier, and nothing else: no network, no database.
//!
//! Verdict ([`Report::exit_code`]): 0 all holds (clock steps are noted); 10 holds, with gaps that the
//! agents themselves declared, or that the collector knows of; 20 tampering; 30 can't decide, since a key, a
//! checkpoint or a witness is missing. Tampering outranks undecided, which outranks gaps.
//!
//! Cannot do: see [`Report::not_proven`], which is printed with every verdict.
//!
//! Limits: [`FINDINGS_MAX`]; memory grows with the number of chains, and with the records that
//! are under no seal (an agent seals every 512 at most).

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_event::{ChainId, Seq};

use crate::checkpoint::VerifierKey;
use crate::fields::{Fields, FormatError, once};
use crate::policy::Policy;
use crate::tree::{Frontier, leaf_hash};
use crate::{Genesis, Hash};

mod bodies;
mod bundle;
mod finish;
mod heads;
mod link;
mod report;

pub use bundle::{Part, Parts, verify_bundle};
pub use report::{ChainSummary, Class, Finding, Report};

use heads::{Fork, Head};
use link::ChainState;

/// A clock that moves further than this between two records, against the other clock, was set. Nanoseconds.
pub const CLOCK_STEP_NS_MIN: u64 = 2_000_000_000;
/// Most clock steps that are listed for a chain, or for the collector.
pub const CLOCK_STEPS_MAX: u32 = 16;
/// Most findings that a report lists; the rest are counted.
pub const FINDINGS_MAX: usize = 1000;

/// Whom the auditor trusts, from outside of the log.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The agents' audit keys. An agent may have more than one (it was enrolled again).
    pub agents: Vec<AgentKey>,
    /// The log's key, for its checkpoints.
    pub log_key: Option<VerifierKey>,
    /// Signed notes to hold the log against; the older and the further from the collector, the
    /// better.
    pub checkpoints: Vec<Note>,
    /// Which witnesses must have signed; `None`: nobody asks for witnesses.
    pub policy: Option<Policy>,
}

/// An agent's public audit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKey {
    /// The agent, as its Genesis names it.
    pub agent_id: String,
    /// Ed25519 public key.
    pub audit_key: [u8; 32],
}

/// A signed note, and where it was found.
#[derive(Debug, Clone)]
pub struct Note {
    /// File name or the like, for findings.
    pub from: String,
    /// The note.
    pub text: String,
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its index in the log.
    pub index: u64,
    /// Its segment file.
    pub file: &'a str,
    /// Its byte offset there.
    pub offset: u64,
}

/// A place that outlives its entry.
#[derive(Debug, Clone, Default)]
struct Spot {
    index: Option<u64>,
    file: Option<Arc<str>>,
    offset: Option<u64>,
}

/// A hole that an agent declared itself.
struct DeclaredGap {
    chain: ChainId,
    from: u64,
    to: u64,
    by: ChainId,
    reason: String,
    /// Where it is declared.
    spot: Spot,
    /// A hole was found that it explains.
    shown: bool,
}

/// Checks one log.
pub struct Verifier {
    trust: Trust,
    /// Largest first, so that the next one to check is at the end.
    heads: Vec<Head>,
    newest_head: u64,
    checked: usize,
    bound_size: u64,
    witnessed_size: u64,
    /// Roots at the sizes of the heads that were passed.
    roots: BTreeMap<u64, Hash>,
    seen_heads: u64,
    received_ns: u64,
    clock_steps: u32,
    frontier: Frontier,
    /// Set when a leaf is missing, so that no later root can be computed.
    tree_broken: bool,
    next_index: u64,
    file: Arc<str>,
    records: u64,
    seals: u64,
    chains: BTreeMap<ChainId, ChainState>,
    gaps: Vec<DeclaredGap>,
    recovered: Vec<(ChainId, ChainId)>,
    forks: Vec<Fork>,
    /// What the collector said that it misses: where, of whom, which chain, from, to.
    missing: Vec<(Spot, String, ChainId, u64, u64)>,
    findings: Vec<Finding>,
    findings_left_out: u64,
}

/// The parts of a `CollectorEntry` (`docs/formats/log.md`).
struct Entry<'a> {
    kind: u64,
    chain_id: ChainId,
    received_ns: u64,
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    fn read(entry: &'a [u8]) -> Result<Self, FormatError> {
        let (mut kind, mut chain_id, mut received_ns, mut bytes) = (None, None, None, None);
        let mut fields = Fields::new(entry);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => once(&mut kind, number, value.varint(number)?)?,
                2 => once(&mut chain_id, number, value.array(number, "a chain id of 32 bytes")?)?,
                3 => once(&mut received_ns, number, value.fixed64(number)?)?,
                4 => once(&mut bytes, number, value.bytes(number)?)?,
                _ => {}
            }
        }
        let missing = |field, expected| FormatError::Field { field, expected };
        Ok(Self {
            kind: kind.ok_or_else(|| missing(1, "an entry's kind"))?,
            chain_id: ChainId(chain_id.ok_or_else(|| missing(2, "a chain id of 32 bytes"))?),
            received_ns: received_ns.unwrap_or(0),
            bytes: bytes.ok_or_else(|| missing(4, "an entry's bytes"))?,
        })
    }
}

const KIND_RECORD: u64 = 1;
const KIND_SEAL: u64 = 2;

impl Verifier {
    /// A verifier that has seen nothing yet.
    pub fn new(trust: Trust) -> Self {
        let mut this = Self {
            trust,
            heads: Vec::new(),
            newest_head: 0,
            checked: 0,
            bound_size: 0,
            witnessed_size: 0,
            roots: BTreeMap::new(),
            seen_heads: 0,
            received_ns: 0,
            clock_steps: 0,
            frontier: Frontier::new(),
            tree_broken: false,
            next_index: 0,
            file: Arc::from(""),
            records: 0,
            seals: 0,
            chains: BTreeMap::new(),
            gaps: Vec::new(),
            recovered: Vec::new(),
            missing: Vec::new(),
            forks: Vec::new(),
            findings: Vec::new(),
            findings_left_out: 0,
        };
        this.open_checkpoints();
        this.check_heads();
        this
    }

    /// Takes the next entry of the log: the bytes of a `CollectorEntry`.
    pub fn feed(&mut self, place: Place<'_>, entry: &[u8]) {
        if *self.file != *place.file {
            self.file = Arc::from(place.file);
        }
        let spot = Spot {
            index: Some(place.index),
            file: Some(Arc::clone(&self.file)),
            offset: Some(place.offset),
        };
        if place.index != self.next_index {
            let what = format!("log index {} where {} follows", place.index, self.next_index);
            self.find(Class::Tampering, &spot, None, None, what);
            self.tree_broken = true;
        }
        self.next_index = place.index.saturating_add(1);
        self.frontier.push(leaf_hash(entry));
        self.check_heads();
        match Entry::read(entry) {
            Ok(entry) => self.entry(&spot, &entry),
            Err(error) => {
                let what = format!("the entry can't be read: {error}");
                self.find(Class::Tampering, &spot, None, None, what);
            }
        }
    }

    fn entry(&mut self, spot: &Spot, entry: &Entry<'_>) {
        self.check_clock(spot, entry.received_ns);
        match entry.kind {
            KIND_RECORD => {
                self.records += 1;
                self.record(entry.chain_id, spot, entry.bytes);
            }
            KIND_SEAL => {
                self.seals += 1;
                self.seal(entry.chain_id, spot, entry.bytes);
            }
            kind => {
                let what = format!("an entry of kind {kind}, which this verifier does not know");
                self.find(Class::Undecided, spot, Some(entry.chain_id), None, what);
            }
        }
    }

    /// The collector's clock runs forward from entry to entry, unless it was set back.
    fn check_clock(&mut self, spot: &Spot, received_ns: u64) {
        let back = self.received_ns.saturating_sub(received_ns);
        self.received_ns = received_ns;
        if back < CLOCK_STEP_NS_MIN || self.clock_steps >= CLOCK_STEPS_MAX {
            return;
        }
        self.clock_steps += 1;
        let what = format!("the collector's clock was set back by {} s", back / 1_000_000_000);
        self.find(Class::Notice, spot, None, None, what);
    }

    /// Takes note of bytes that the segment files' own checksums refuse.
    pub fn damage(&mut self, file: &str, offset: u64, what: &str) {
        self.tree_broken = true;
        let spot = Spot {
            index: Some(self.next_index),
            file: Some(Arc::from(file)),
            offset: Some(offset),
        };
        self.find(Class::Tampering, &spot, None, None, what.to_owned());
    }

    /// What the Genesis says, against the keys that the auditor brought.
    fn check_key(&mut self, spot: &Spot, genesis: &Genesis) {
        let mut pinned =
            self.trust.agents.iter().filter(|pin| pin.agent_id == genesis.agent_id).peekable();
        let (class, what) = if pinned.peek().is_none() {
            let what = format!(
                "no audit key of agent {:?} is given: its chain is whole, but who wrote it is not \
                 proven",
                genesis.agent_id
            );
            (Class::Undecided, what)
        } else if pinned.any(|pin| pin.audit_key == genesis.audit_key) {
            return;
        } else {
            let what = format!(
                "the Genesis of agent {:?} names audit key {}, which is none of that agent's",
                genesis.agent_id,
                hex::encode(genesis.audit_key)
            );
            (Class::Tampering, what)
        };
        self.find(class, spot, Some(genesis.chain_id), Some(Seq(0)), what);
    }

    fn find(
        &mut self,
        class: Class,
        spot: &Spot,
        chain: Option<ChainId>,
        seq: Option<Seq>,
        what: String,
    ) {
        if self.findings.len() >= FINDINGS_MAX {
            self.findings_left_out += 1;
            // The worst class must show in the exit code even when the list is full.
            if self.findings.iter().any(|finding| finding.class >= class) {
                return;
            }
            self.findings.pop();
        }
        self.findings.push(Finding {
            class,
            file: spot.file.as_deref().map(str::to_owned),
            offset: spot.offset,
            index: spot.index,
            entries: None,
            chain,
            seq,
            what,
        });
    }
}

#[cfg(test)]
mod tests;
