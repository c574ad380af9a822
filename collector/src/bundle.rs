//! A selection of the log as files that prove themselves: for an examiner, offline.
//!
//! Promise: what was asked for is in it with everything that its proof needs (the rest of its batch, the
//! seal, the chain's Genesis), each entry as its exact bytes with a C2SP tlog-proof to one checkpoint.
//! Files: `docs/formats/bundle.md`.
//!
//! Limits: [`ENTRIES_MAX`]; one walk over the log, leaf hashes in memory (32 bytes an entry).
//! Known gap: a record behind the newest checkpoint is not exported; a second later it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tidegate_ledger::checkpoint;
use tidegate_ledger::cosignature::cosignatures;
use tidegate_ledger::policy::Policy;
use tidegate_ledger::proof::Proof;
use tidegate_ledger::tree::{self, leaf_hash};
use tidegate_ledger::verify::{Note, Part, Parts};
use tidegate_proto::audit::v1::CollectorEntry;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_segment::os::OsFiles;
use tidegate_segment::scan;

use crate::keys::Keys;
use crate::log::{SEGMENTS, notes};
use crate::{clock, files};

/// Most entries of a bundle.
pub const ENTRIES_MAX: usize = 100_000;
/// Version of the bundle's format.
pub const BUNDLE_VERSION: u32 = 1;

const MANIFEST: &str = "manifest.json";
const CHECKPOINT: &str = "checkpoint";
const KEYS: &str = "keys.json";
const POLICY: &str = "policy.txt";
const ENTRIES: &str = "entries";
const PROOFS: &str = "proofs";
const READ_ME: &str = "VERIFY.md";

/// `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version.
    pub v: u32,
    /// The log.
    pub origin: String,
    /// Runs of indexes that were asked for: first and last.
    pub wanted: Vec<(u64, u64)>,
    /// Every index in the bundle.
    pub entries: Vec<u64>,
    /// The question, in words.
    pub question: String,
    /// Who asked.
    pub by: String,
    /// When, RFC 3339.
    pub made: String,
    /// Program and version.
    pub tool: String,
}

/// The checkpoint that a bundle's proofs lead to: the newest that witnesses signed if it covers `last`,
/// else the newest.
fn choose_checkpoint(
    dir: &Path,
    policy: &Policy,
    keys: &Keys,
    last: u64,
) -> anyhow::Result<String> {
    let log_key = keys.verifier()?;
    let mut best: Option<(bool, u64, String)> = None;
    for (_, note) in notes::read_all(dir)? {
        let Ok(head) = checkpoint::open(&note, &log_key) else { continue };
        if head.size <= last {
            continue;
        }
        let signed = cosignatures(&note, &policy.keys()).unwrap_or_default();
        let signed: Vec<usize> = signed.iter().map(|found| found.witness).collect();
        let witnessed = policy.quorum.is_some() && policy.is_met(&signed);
        let rank = (witnessed, head.size);
        if best.as_ref().is_none_or(|(witnessed, size, _)| rank > (*witnessed, *size)) {
            best = Some((rank.0, rank.1, note));
        }
    }
    let (_, _, note) = best.with_context(|| {
        format!(
            "no checkpoint covers entry {last} yet; one is signed each second while entries come"
        )
    })?;
    Ok(note)
}

/// What a walk over the log gathers.
struct Gather<'a> {
    wanted: &'a BTreeSet<u64>,
    leaves: Vec<tidegate_ledger::Hash>,
    kept: BTreeMap<u64, Vec<u8>>,
    genesis: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    /// Records since their chain's last seal.
    open: BTreeMap<Vec<u8>, Vec<(u64, Vec<u8>)>>,
}

impl Gather<'_> {
    fn take(&mut self, index: u64, payload: Vec<u8>) -> anyhow::Result<()> {
        self.leaves.push(leaf_hash(&payload));
        let entry = CollectorEntry::decode(payload.as_slice())?;
        let chain = entry.chain_id.to_vec();
        if entry.kind() == Kind::Record {
            if !self.genesis.contains_key(&chain) {
                self.genesis.insert(chain.clone(), (index, payload.clone()));
            }
            self.open.entry(chain).or_default().push((index, payload));
            return Ok(());
        }
        let run = self.open.remove(&chain).unwrap_or_default();
        let asked = |index: &u64| self.wanted.contains(index);
        let first = run.iter().position(|(index, _)| asked(index));
        if first.is_none() && !asked(&index) {
            return Ok(());
        }
        if let Some((at, genesis)) = self.genesis.get(&chain) {
            self.kept.insert(*at, genesis.clone());
        }
        // From the first that is wanted on, so that the links lead to the seal.
        self.kept.extend(run.into_iter().skip(first.unwrap_or(usize::MAX)));
        self.kept.insert(index, payload);
        anyhow::ensure!(
            self.kept.len() <= ENTRIES_MAX,
            "more than {ENTRIES_MAX} entries: ask for less at once"
        );
        Ok(())
    }
}

/// Makes a bundle of these entries.
pub fn make(
    dir: &Path,
    keys: &Keys,
    policy: &Policy,
    wanted: &BTreeSet<u64>,
) -> anyhow::Result<Parts> {
    let last = *wanted.last().context("nothing was found to put into a bundle")?;
    let segments = dir.join(SEGMENTS);
    let files = OsFiles::read_only(&segments)
        .with_context(|| format!("cannot read {}", segments.display()))?;
    let mut gather = Gather {
        wanted,
        leaves: Vec::new(),
        kept: BTreeMap::new(),
        genesis: BTreeMap::new(),
        open: BTreeMap::new(),
    };
    let newest = choose_checkpoint(dir, policy, keys, last)?;
    let newest_size = checkpoint::read_unsigned(&newest).map_or(0, |head| head.size);
    for frame in scan(files).context("while reading the log")? {
        let frame = frame.context("the log is damaged: run verify")?;
        if frame.index >= newest_size {
            break;
        }
        gather.take(frame.index, frame.payload)?;
    }
    // What has no seal below the checkpoint is given all the same; verifying says what is missing.
    for (_, run) in std::mem::take(&mut gather.open) {
        gather.kept.extend(run.into_iter().filter(|(index, _)| wanted.contains(index)));
    }
    let leaves = tree::in_slice(&gather.leaves);
    let mut entries = Vec::new();
    for (index, entry) in gather.kept {
        let hashes = tree::prove_inclusion(&leaves, index, newest_size);
        let hashes = hashes.context("the log is shorter than its checkpoint: run verify")?;
        let proof = Proof { index, hashes, checkpoint: newest.clone() }.write();
        entries.push(Part { index, entry, proof });
    }
    let checkpoint = Note { from: CHECKPOINT.to_owned(), text: newest };
    Ok(Parts { checkpoint, entries, wanted: runs(wanted) })
}

fn runs(indexes: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if last.saturating_add(1) == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    runs
}

/// Writes a bundle into a new directory.
pub fn write(
    out: &Path,
    parts: &Parts,
    keys: &Keys,
    policy: &Policy,
    question: &str,
) -> anyhow::Result<()> {
    std::fs::create_dir(out).with_context(|| format!("cannot make {}", out.display()))?;
    for dir in [ENTRIES, PROOFS] {
        std::fs::create_dir(out.join(dir))?;
    }
    for part in &parts.entries {
        std::fs::write(out.join(ENTRIES).join(part.index.to_string()), &part.entry)?;
        let name = format!("{}.tlog-proof", part.index);
        std::fs::write(out.join(PROOFS).join(name), &part.proof)?;
    }
    let manifest = Manifest {
        v: BUNDLE_VERSION,
        origin: keys.verifier()?.name().to_owned(),
        wanted: parts.wanted.clone(),
        entries: parts.entries.iter().map(|part| part.index).collect(),
        question: question.to_owned(),
        by: crate::acts::who(),
        made: clock::rfc3339(clock::signed_ns(clock::now_ns())),
        tool: concat!("tidegate-collector ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let text = |value: String| format!("{value}\n");
    let files_of = [
        (MANIFEST, text(serde_json::to_string_pretty(&manifest)?)),
        (KEYS, text(serde_json::to_string_pretty(keys)?)),
        (POLICY, policy.to_string()),
        (CHECKPOINT, parts.checkpoint.text.clone()),
        (READ_ME, include_str!("bundle/VERIFY.md").to_owned()),
    ];
    for (name, text) in files_of {
        files::create(&out.join(name), text.as_bytes(), files::PUBLIC)?;
    }
    Ok(())
}

/// Reads a bundle's parts. The keys and policy in it are for those who have none from elsewhere.
pub fn read(dir: &Path) -> anyhow::Result<(Parts, Keys, Policy)> {
    let manifest: Manifest = serde_json::from_str(&files::read(&dir.join(MANIFEST))?)
        .with_context(|| format!("in {}", dir.join(MANIFEST).display()))?;
    anyhow::ensure!(
        manifest.v == BUNDLE_VERSION,
        "a bundle of version {}; this program reads {BUNDLE_VERSION}",
        manifest.v
    );
    anyhow::ensure!(manifest.entries.len() <= ENTRIES_MAX, "more than {ENTRIES_MAX} entries");
    let policy = files::read(&dir.join(POLICY))?.parse().context(POLICY)?;
    let keys = Keys::read(&dir.join(KEYS))?;
    let mut entries = Vec::new();
    for index in &manifest.entries {
        let path = dir.join(ENTRIES).join(index.to_string());
        // What is listed and not there shows as missing.
        let Ok(entry) = std::fs::read(&path) else { continue };
        let proof = dir.join(PROOFS).join(format!("{index}.tlog-proof"));
        let proof = std::fs::read_to_string(proof).unwrap_or_default();
        entries.push(Part { index: *index, entry, proof });
    }
    let text = files::read(&dir.join(CHECKPOINT))?;
    let checkpoint = Note { from: CHECKPOINT.to_owned(), text };
    Ok((Parts { checkpoint, entries, wanted: manifest.wanted }, keys, policy))
}
