//! A selection of a log, with a proof for each entry: for an examiner who is not given the whole.
//!
//! Promise: what verifies is in the tree of the checkpoint, bytes for bytes, and under a seal of its agent.
//!
//! Cannot do: say that nothing else would have matched the question; where the wanted entries are a run of
//! indexes, none within it is missing.

use std::collections::BTreeMap;

use super::heads::Head;
use super::{Class, Entry, KIND_RECORD, KIND_SEAL, Note, Report, Spot, Trust, Verifier};
use crate::fields::FormatError;
use crate::proof::Proof;
use crate::seal::{self, SealFacts};
use crate::tree::{leaf_hash, verify_inclusion};
use crate::{Genesis, Hash, Header, chain_value};
use tidegate_event::{ChainId, Seq};

/// One entry of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its index in the log.
    pub index: u64,
    /// Exact bytes of the leaf.
    pub entry: Vec<u8>,
    /// Its tlog-proof.
    pub proof: String,
}

/// A bundle, read from its files.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The checkpoint that every proof leads to.
    pub checkpoint: Note,
    /// The entries, by index.
    pub entries: Vec<Part>,
    /// What was asked for, as runs of indexes: first and last.
    pub wanted: Vec<(u64, u64)>,
}

/// A chain's part of a bundle.
#[derive(Default)]
struct Strand {
    genesis: Option<(Spot, Genesis)>,
    /// Records by sequence number: where, `prev`, chain value.
    records: BTreeMap<u64, (Spot, Hash, Hash)>,
    seals: Vec<(Spot, Vec<u8>)>,
}

/// The verdict over a bundle.
pub fn verify_bundle(trust: Trust, parts: &Parts) -> Report {
    let trust = Trust { checkpoints: vec![parts.checkpoint.clone()], ..trust };
    let mut this = Verifier::new(trust);
    let Some(head) = this.heads.pop() else { return this.finish_bundle(0) };
    (this.checked, this.bound_size) = (1, head.size);
    this.witnessed_size = if head.witnessed { head.size } else { 0 };
    let mut strands: BTreeMap<ChainId, Strand> = BTreeMap::new();
    for part in &parts.entries {
        let spot = Spot { index: Some(part.index), file: None, offset: None };
        this.check_inclusion(&spot, part, &head, &parts.checkpoint.text);
        match Entry::read(&part.entry) {
            Ok(entry) => {
                let strand = strands.entry(entry.chain_id).or_default();
                if let Err(error) = strand.take(&spot, &entry) {
                    let what = format!("the entry can't be read: {error}");
                    this.find(Class::Tampering, &spot, Some(entry.chain_id), None, what);
                }
                this.records += u64::from(entry.kind == KIND_RECORD);
                this.seals += u64::from(entry.kind == KIND_SEAL);
            }
            Err(error) => {
                let what = format!("the entry can't be read: {error}");
                this.find(Class::Tampering, &spot, None, None, what);
            }
        }
    }
    let mut sealed = Vec::new();
    for (chain, strand) in &strands {
        sealed.extend(this.check_strand(*chain, strand));
    }
    this.check_wanted(parts, &sealed);
    this.finish_bundle(u64::try_from(parts.entries.len()).unwrap_or(u64::MAX))
}

impl Strand {
    fn take(&mut self, spot: &Spot, entry: &Entry<'_>) -> Result<(), FormatError> {
        match entry.kind {
            KIND_RECORD => {
                let header = Header::read(entry.bytes)?;
                if let Some(genesis) = Genesis::read(entry.bytes)? {
                    self.genesis = Some((spot.clone(), genesis));
                }
                let value = chain_value(entry.bytes);
                self.records.insert(header.seq.0, (spot.clone(), header.prev, value));
            }
            KIND_SEAL => self.seals.push((spot.clone(), entry.bytes.to_vec())),
            _ => {}
        }
        Ok(())
    }
}

impl Verifier {
    fn check_inclusion(&mut self, spot: &Spot, part: &Part, head: &Head, note: &str) {
        let leaf = leaf_hash(&part.entry);
        let what = match Proof::read(&part.proof) {
            Err(error) => error.to_string(),
            Ok(proof) if proof.index != part.index => {
                format!("its proof is that of entry {}", proof.index)
            }
            Ok(proof) if proof.checkpoint != note => {
                "its proof leads to another checkpoint than the bundle's".to_owned()
            }
            Ok(proof)
                if verify_inclusion(&leaf, part.index, head.size, &proof.hashes, &head.root) =>
            {
                return;
            }
            Ok(_) => "it is not the entry that is in the log at this index".to_owned(),
        };
        self.find(Class::Tampering, spot, None, None, what);
    }

    /// The indexes of the records that are under a seal of this chain's agent.
    fn check_strand(&mut self, chain: ChainId, strand: &Strand) -> Vec<u64> {
        let mut sealed = Vec::new();
        let Some((spot, genesis)) = &strand.genesis else {
            let what = "its Genesis is not in the bundle, so whose it is is not known".to_owned();
            self.find(Class::Undecided, &Spot::default(), Some(chain), None, what);
            return sealed;
        };
        self.check_key(spot, genesis);
        for (spot, bytes) in &strand.seals {
            match seal::verify(bytes, &genesis.audit_key) {
                Ok(facts) if facts.chain_id == chain => {
                    sealed.extend(self.check_run(chain, strand, &facts));
                }
                Ok(_) => {
                    let what = "a seal of another chain is filed under this one".to_owned();
                    self.find(Class::Tampering, spot, Some(chain), None, what);
                }
                Err(error) => {
                    self.find(Class::Tampering, spot, Some(chain), None, error.to_string());
                }
            }
        }
        sealed
    }

    /// From the seal's last record back, as far as each record holds the hash of the one before.
    fn check_run(&mut self, chain: ChainId, strand: &Strand, facts: &SealFacts) -> Vec<u64> {
        let mut sealed = Vec::new();
        let mut expected = facts.chain_value;
        for (seq, (spot, prev, value)) in strand.records.range(facts.first.0..=facts.last.0).rev() {
            let next = facts.last.0.checked_sub(u64::try_from(sealed.len()).unwrap_or(u64::MAX));
            if next != Some(*seq) {
                break;
            }
            if *value != expected {
                let what = format!("record {seq} is not the one that its agent sealed");
                self.find(Class::Tampering, spot, Some(chain), Some(Seq(*seq)), what);
                break;
            }
            expected = *prev;
            sealed.extend(spot.index);
        }
        sealed
    }

    fn check_wanted(&mut self, parts: &Parts, sealed: &[u64]) {
        let there: BTreeMap<u64, &Part> =
            parts.entries.iter().map(|part| (part.index, part)).collect();
        for (first, last) in &parts.wanted {
            for index in *first..=*last {
                let spot = Spot { index: Some(index), file: None, offset: None };
                let Some(part) = there.get(&index) else {
                    let what = "it was asked for, and is not in the bundle".to_owned();
                    self.find(Class::Tampering, &spot, None, None, what);
                    // One finding tells of a whole run.
                    break;
                };
                let record = Entry::read(&part.entry).is_ok_and(|entry| entry.kind == KIND_RECORD);
                if record && !sealed.contains(&index) {
                    let what = "no seal in the bundle covers it".to_owned();
                    self.find(Class::Undecided, &spot, None, None, what);
                }
            }
        }
    }

    fn finish_bundle(mut self, entries: u64) -> Report {
        self.check_policy();
        let mut not_proven = self.general_not_proven();
        not_proven.push(
            "That nothing else in the log would have matched: a bundle proves what it holds. Within a run of \
             indexes none is missing."
                .to_owned(),
        );
        self.findings.sort_by_key(|finding| (finding.index, finding.offset));
        Report {
            chains: Vec::new(),
            findings: self.findings,
            findings_left_out: self.findings_left_out,
            entries,
            records: self.records,
            seals: self.seals,
            root: self.frontier.root(),
            checkpoints_checked: self.checked,
            bound_size: self.bound_size,
            witnessed_size: self.witnessed_size,
            seen_heads: 0,
            not_proven,
        }
    }
}
