//! What the log holds of each chain, and whether a batch continues it.
//!
//! Pure state: rebuilt from the log at start by [`Chains::replay_record`] and [`Chains::replay_seal`], moved
//! by [`Chains::took`].
//!
//! Why one comparison is enough for a whole overlap: a chain value is the hash of a record that
//! holds the chain value before it, so equal values mean equal histories.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tidegate_event::limits::RECORD_BYTES_MAX;
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::seal::SealFacts;
use tidegate_ledger::{Chain, Genesis, Hash, Header, chain_value, seal};
use tidegate_proto::uplink::v1::{Refused, refused::Why};

use super::refusal;
use crate::acts::{COLLECTOR, Standing};
use crate::state::Agent;

/// Seals of one chain kept in memory; older ones are found through the index.
const SEALS_KEPT_MAX: usize = 1024;

/// Every chain in the log.
#[derive(Default)]
pub struct Chains {
    by_id: HashMap<ChainId, Held>,
    newest: HashMap<String, ChainId>,
}

/// One chain.
pub struct Held {
    agent_id: String,
    audit_key: [u8; 32],
    chain: Chain,
    seals: VecDeque<Sealed>,
}

/// A sealed run in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// First sequence number under the seal.
    pub first: Seq,
    /// Last one.
    pub last: Seq,
    /// Chain value of the last record.
    pub value: Hash,
    /// Log index of the seal.
    pub index: u64,
}

/// What is to be done with a good batch.
pub enum Checked {
    /// Append all records but the first `skip`, which are held already, and the seal.
    Take {
        /// What the seal says.
        facts: SealFacts,
        /// Records already in the log.
        skip: usize,
        /// Set when it begins a chain.
        genesis: Option<Box<Genesis>>,
    },
    /// All of it is in the log.
    Held(Sealed),
    /// All of its sequence numbers are in the log, at a place that is not in memory: find the
    /// chain value at `facts.last` and compare.
    Find(SealFacts),
}

impl Held {
    /// The agent that wrote it.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// The last sealed run in the log.
    pub fn last_seal(&self) -> Option<&Sealed> {
        self.seals.back()
    }
}

impl Chains {
    /// A chain by its id.
    pub fn get(&self, id: &ChainId) -> Option<&Held> {
        self.by_id.get(id)
    }

    /// Where the collector's own chain stands; `None` where this key has not begun one.
    pub fn own(&self, audit_key: &[u8; 32]) -> Option<Standing> {
        let held = self.by_id.get(self.newest.get(COLLECTOR)?)?;
        let unsealed = held.last_seal().map_or(Seq(0), |sealed| sealed.last.next());
        (held.audit_key == *audit_key).then(|| Standing { chain: held.chain.clone(), unsealed })
    }

    /// The agents of whom there is any chain.
    pub fn agents(&self) -> impl Iterator<Item = &str> {
        self.newest.keys().map(String::as_str).filter(|agent| *agent != COLLECTOR)
    }

    /// Takes an entry of the log in, at start.
    pub fn replay_record(&mut self, record: &[u8]) -> anyhow::Result<()> {
        let header = Header::read(record)?;
        if header.seq == Seq(0)
            && let Some(genesis) = Genesis::read(record)?
        {
            self.begin(&genesis);
        }
        let held = self.by_id.get_mut(&header.chain_id);
        let held = held.ok_or_else(|| anyhow::anyhow!("a record before its chain's Genesis"))?;
        held.chain.link(record)?;
        Ok(())
    }

    /// Takes a seal of the log in, at start.
    pub fn replay_seal(&mut self, index: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let facts = seal::read(bytes)?;
        let held = self.by_id.get_mut(&facts.chain_id);
        let held = held.ok_or_else(|| anyhow::anyhow!("a seal before its chain's Genesis"))?;
        held.keep_seal(&facts, index);
        Ok(())
    }

    fn begin(&mut self, genesis: &Genesis) {
        self.newest.insert(genesis.agent_id.clone(), genesis.chain_id);
        self.by_id.insert(
            genesis.chain_id,
            Held {
                agent_id: genesis.agent_id.clone(),
                audit_key: genesis.audit_key,
                chain: Chain::begin(genesis.chain_id),
                seals: VecDeque::new(),
            },
        );
    }

    /// A checked batch was appended, its seal at `index`.
    pub fn took(
        &mut self,
        facts: &SealFacts,
        genesis: Option<&Genesis>,
        fresh: &[Bytes],
        index: u64,
    ) -> anyhow::Result<Sealed> {
        if let Some(genesis) = genesis {
            self.begin(genesis);
        }
        let held = self.by_id.get_mut(&facts.chain_id);
        let held = held.ok_or_else(|| anyhow::anyhow!("a batch of an unknown chain was taken"))?;
        for record in fresh {
            held.chain.link(record)?;
        }
        Ok(held.keep_seal(facts, index))
    }

    /// Whether this batch, by this agent, may go into the log.
    pub fn check(&self, agent: &Agent, records: &[Bytes], seal: &[u8]) -> Result<Checked, Refused> {
        let first = records.first().ok_or_else(|| malformed("a batch without records"))?;
        let header = Header::read(first).map_err(|error| malformed(error.to_string()))?;
        let values = linked(records, &header)?;
        let last_value = values.last().copied().unwrap_or_default();
        let held = self.by_id.get(&header.chain_id);
        if held.is_some_and(|held| held.agent_id != agent.agent_id) {
            return Err(refusal(Why::UnknownAgent, "the chain is another agent's"));
        }
        let key = held.map_or(&agent.audit_key, |held| &held.audit_key);
        let facts = seal::verify(seal, key)
            .map_err(|error| refusal(Why::BadSeal, format!("seal: {error}")))?;
        let seals_these = facts.chain_id == header.chain_id
            && facts.first == header.seq
            && Some(facts.last) == last_seq(header.seq, records.len())
            && facts.chain_value == last_value;
        if !seals_these {
            return Err(refusal(Why::BadSeal, "the seal is over other records"));
        }
        match held {
            None => self.check_new(agent, first, &header, facts),
            Some(held) => held.check_next(&header, &values, facts),
        }
    }

    fn check_new(
        &self,
        agent: &Agent,
        first: &[u8],
        header: &Header,
        facts: SealFacts,
    ) -> Result<Checked, Refused> {
        if header.seq != Seq(0) {
            return Err(hole(Seq(0), "the chain is not known, and this is not its beginning"));
        }
        let genesis = Genesis::read(first).map_err(|error| malformed(error.to_string()))?;
        let genesis = genesis.ok_or_else(|| malformed("the first record is no Genesis"))?;
        if genesis.agent_id != agent.agent_id || genesis.audit_key != agent.audit_key {
            let detail = "the Genesis names another agent or audit key than was enrolled";
            return Err(refusal(Why::UnknownAgent, detail));
        }
        self.check_previous(agent, &genesis)?;
        Ok(Checked::Take { facts, skip: 0, genesis: Some(Box::new(genesis)) })
    }

    /// A new chain goes on where the agent's last one ended, all of which must be here.
    fn check_previous(&self, agent: &Agent, genesis: &Genesis) -> Result<(), Refused> {
        let newest = self.newest.get(&agent.agent_id).and_then(|id| self.by_id.get(id));
        match (&genesis.previous, newest) {
            (None, None) => Ok(()),
            (_, None) | (None, Some(_)) if agent.fresh_chain => Ok(()),
            (None, Some(_)) => {
                let detail = "a new chain without a link to the agent's last one; \
                              where its spool was lost, enrol it again";
                Err(refusal(Why::Fork, detail))
            }
            (Some(previous), Some(held)) if previous.chain_id == held.chain.id() => {
                let records = held.chain.records();
                if previous.records > records {
                    let detail = "the chain before this one is not here to its end";
                    return Err(hole(held.chain.next_seq(), detail));
                }
                if previous.records == records && previous.head == held.chain.head() {
                    return Ok(());
                }
                let detail = "the link to the agent's last chain is not to its end as held here";
                Err(refusal(Why::Fork, detail))
            }
            (Some(_), Some(_)) if agent.fresh_chain => Ok(()),
            (Some(_), _) => {
                let detail = "the link is to another chain than the agent's last one here";
                Err(refusal(Why::Fork, detail))
            }
        }
    }
}

impl Held {
    fn keep_seal(&mut self, facts: &SealFacts, index: u64) -> Sealed {
        let SealFacts { first, last, chain_value, .. } = *facts;
        let sealed = Sealed { first, last, value: chain_value, index };
        self.seals.push_back(sealed);
        if self.seals.len() > SEALS_KEPT_MAX {
            self.seals.pop_front();
        }
        sealed
    }

    fn check_next(
        &self,
        header: &Header,
        values: &[Hash],
        facts: SealFacts,
    ) -> Result<Checked, Refused> {
        let next = self.chain.next_seq();
        if header.seq > next {
            return Err(hole(next, "records are missing"));
        }
        let sealed = self.last_seal().map(|sealed| sealed.last);
        if sealed.is_some_and(|sealed| facts.last <= sealed) {
            let at_last = self.seals.iter().rev().find(|sealed| sealed.last == facts.last);
            return match at_last {
                Some(sealed) if sealed.value == facts.chain_value => Ok(Checked::Held(*sealed)),
                Some(_) => Err(fork(facts.last)),
                None => Ok(Checked::Find(facts)),
            };
        }
        // Records without a seal lie in the log only after a crash between the two; the agent
        // was never told about them and sends the whole batch again.
        let skip = usize::try_from(next.0 - header.seq.0).unwrap_or(usize::MAX);
        let agrees = match skip.checked_sub(1) {
            None => header.prev == self.chain.head(),
            Some(at) => values.get(at).is_none_or(|value| *value == self.chain.head()),
        };
        if !agrees {
            return Err(fork(Seq(next.0.saturating_sub(1))));
        }
        if skip > values.len() {
            return Ok(Checked::Find(facts));
        }
        Ok(Checked::Take { facts, skip, genesis: None })
    }
}

/// The chain values of a batch whose records follow each other.
fn linked(records: &[Bytes], first: &Header) -> Result<Vec<Hash>, Refused> {
    let mut values: Vec<Hash> = Vec::with_capacity(records.len());
    let mut seq = first.seq;
    for record in records {
        if record.len() > RECORD_BYTES_MAX {
            return Err(malformed(format!("record {seq} is longer than {RECORD_BYTES_MAX} bytes")));
        }
        if let Some(before) = values.last() {
            seq = seq.next();
            let header = Header::read(record).map_err(|error| malformed(error.to_string()))?;
            let follows =
                header.chain_id == first.chain_id && header.seq == seq && header.prev == *before;
            if !follows {
                return Err(malformed(format!("record {seq} does not follow the one before")));
            }
        }
        values.push(chain_value(record));
    }
    Ok(values)
}

fn last_seq(first: Seq, records: usize) -> Option<Seq> {
    let more = u64::try_from(records).ok()?.checked_sub(1)?;
    first.0.checked_add(more).map(Seq)
}

fn malformed(detail: impl Into<String>) -> Refused {
    refusal(Why::Malformed, detail)
}

fn hole(expected: Seq, detail: &str) -> Refused {
    Refused {
        expected_seq: expected.0,
        ..refusal(Why::NotContiguous, format!("{detail}; expected {expected}"))
    }
}

/// What is said of a history that differs from the log's, at or before `seq`.
pub fn fork(seq: Seq) -> Refused {
    let detail = format!("the log holds another record at or before {seq} of this chain");
    Refused { expected_seq: seq.0, ..refusal(Why::Fork, detail) }
}
