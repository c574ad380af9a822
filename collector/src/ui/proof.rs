//! How what a page shows is proven, at the time of the page.
//!
//! Promises: [`Walks::fresh`] runs the same verification as the command line (`tidegate-ledger`), over
//! the whole log, from its bytes and `keys.json`; [`session`] reads a session's entries out of the log
//! again and makes the answers from them, so that a page can say whether the index says the same.
//!
//! Cannot: prove that the collector that serves the page is honest; that takes another machine with
//! another copy of the keys.
//! Limits: a page walks the log only up to [`WALK_ENTRIES_MAX`]; beyond, the last walk counts and the page
//! says from when it is, entries are not read again, and exports hold no proofs (`export-bundle` does). Inclusion proofs of an export cost one hash for each entry of the log and each
//! record, at most [`PROOF_HASHES_MAX`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use prost::Message as _;
use tidegate_ledger::Hash;
use tidegate_ledger::checkpoint::Checkpoint;
use tidegate_ledger::tree::{in_slice, leaf_hash, prove_inclusion, verify_inclusion};
use tidegate_ledger::verify::{Class, Report};
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::audit::v1::{AuditRecord, CollectorEntry, Seal, SealBody};
use tidegate_segment::os::OsFiles;
use tidegate_segment::scan;

use super::read::{Facts, Reader, newest_checkpoint};
use super::roles::Scope;
use crate::config::{Config, Paths};
use crate::keys::Keys;
use crate::log::SEGMENTS;
use crate::query::Answer;
use crate::verify::{Against, verify_against};
use crate::{clock, index};

/// Entries of a log that a page walks by itself: a second or two.
pub const WALK_ENTRIES_MAX: u64 = 1_000_000;
/// A walk over the newest checkpoint is used again for this long.
const WALK_SECONDS_FRESH: u64 = 30;
/// Readings of a log that a collector is writing, until one meets no half-written bytes.
const READINGS_MAX: u32 = 4;
/// Hashes for the inclusion proofs of one export.
const PROOF_HASHES_MAX: u64 = 50_000_000;

/// A verification that was run.
#[derive(Debug)]
pub struct Walk {
    /// When it ended.
    pub at_ns: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Its result.
    pub report: Report,
}

/// How one entry is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The walk found it whole, sealed, under a checkpoint, and the quorum of witnesses signed one over it.
    Witnessed,
    /// The walk found it whole, sealed and under a checkpoint.
    Verified,
    /// In the log, not yet under a checkpoint that a walk has seen.
    Pending,
    /// The log could not be judged.
    Undecided,
    /// The log is not what was sealed or signed.
    Tampered,
    /// Nothing was walked.
    NotRun,
}

impl State {
    /// Glyph, words, style.
    pub const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Witnessed => ("✓", "verified, witnessed", "good"),
            Self::Verified => ("✓", "verified", "good"),
            Self::Pending => ("…", "not yet under a checkpoint", "wait"),
            Self::Undecided => ("?", "cannot be decided", "warn"),
            Self::Tampered => ("✕", "the log does not verify", "bad"),
            Self::NotRun => ("–", "not verified for this page", "wait"),
        }
    }
}

impl Walk {
    /// How the entry at this index is proven.
    pub fn state(&self, index: u64) -> State {
        match self.report.findings.iter().map(|finding| finding.class).max() {
            Some(Class::Tampering) => State::Tampered,
            Some(Class::Undecided) => State::Undecided,
            _ if index < self.report.witnessed_size => State::Witnessed,
            _ if index < self.report.bound_size => State::Verified,
            _ => State::Pending,
        }
    }
}

/// The last walk, shared by pages.
#[derive(Default)]
pub struct Walks {
    last: Mutex<Option<Arc<Walk>>>,
    /// One walk at a time.
    busy: Mutex<()>,
}

impl Walks {
    /// The last one.
    pub fn last(&self) -> Option<Arc<Walk>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A walk for a page that shows entries up to `newest`: a new one where the log is small enough, else
    /// the last, if any.
    pub fn fresh(&self, config: &Config, newest: u64) -> anyhow::Result<Option<Arc<Walk>>> {
        let head = newest_checkpoint(&config.paths())?;
        let size = head.map_or(0, |(checkpoint, _)| checkpoint.size);
        if size > WALK_ENTRIES_MAX {
            return Ok(self.last());
        }
        let needed = newest.saturating_add(1).min(size);
        let _one = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let since = clock::now_ns().saturating_sub(WALK_SECONDS_FRESH * 1_000_000_000);
        match self.last() {
            Some(walk) if walk.at_ns >= since && walk.report.bound_size >= needed => Ok(Some(walk)),
            _ => self.walk(config).map(Some),
        }
    }

    /// A new one, however long it takes.
    pub fn now(&self, config: &Config) -> anyhow::Result<Arc<Walk>> {
        let _one = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        self.walk(config)
    }

    fn walk(&self, config: &Config) -> anyhow::Result<Arc<Walk>> {
        let begun = Instant::now();
        let (paths, mut against) = (config.paths(), Against::default());
        let keys = Keys::read(&paths.keys())?;
        if !config.witnesses.is_empty() {
            against.policy = Some(config.policy(keys.verifier()?)?);
        }
        let report = verify_against(&paths.log(), &keys, &against)?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let walk = Arc::new(Walk { at_ns: clock::now_ns(), took_ms, report });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&walk));
        Ok(walk)
    }
}

/// One entry as it stands in the log.
pub struct Leaf {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Entries out of the log itself.
pub struct Extract {
    /// The chains' Genesis entries, the records, and their seals, in the order of the log.
    pub leaves: Vec<Leaf>,
    /// The newest checkpoint with its note, as it stood before the log was read.
    pub head: Option<(Checkpoint, String)>,
    hashes: Vec<Hash>,
}

/// Whether the log is longer than a page reads.
pub fn is_too_long(paths: &Paths) -> anyhow::Result<bool> {
    let head = newest_checkpoint(paths)?;
    Ok(head.is_some_and(|(checkpoint, _)| checkpoint.size > WALK_ENTRIES_MAX))
}

/// Reads a session's entries out of the log: its records, its chain's Genesis, the seals over them.
/// `None`: the log is too long for a page.
pub fn session(paths: &Paths, id: &str, facts: &Facts, to: u64) -> anyhow::Result<Option<Extract>> {
    if is_too_long(paths)? {
        return Ok(None);
    }
    let session = hex::decode(id)?;
    let chain = hex::decode(&facts.chain)?;
    let (genesis, opened) = (facts.genesis, facts.opened);
    let (mut last, mut sealed) = (None, false);
    extract(paths, |index, entry| {
        if index == 0 {
            // Another reading of the log begins.
            (last, sealed) = (None, false);
        }
        if index == genesis {
            return Ok(true);
        }
        if index < opened || entry.chain_id != chain || (index > to && sealed) {
            return Ok(false);
        }
        match entry.kind() {
            Kind::Record if index <= to => {
                let record = AuditRecord::decode(entry.bytes.as_ref())?;
                let ours = record.session_id == session;
                last = if ours { Some(record.seq) } else { last };
                sealed = sealed && !ours;
                Ok(ours)
            }
            Kind::Seal => {
                let body = SealBody::decode(Seal::decode(entry.bytes.as_ref())?.body.as_ref())?;
                sealed = last.is_some_and(|seq| body.last_seq >= seq);
                Ok(last.is_some())
            }
            _ => Ok(false),
        }
    })
    .map(Some)
}

/// Reads these entries out of the log; `None` where it is too long for a page.
pub fn entries(paths: &Paths, indexes: &[u64]) -> anyhow::Result<Option<Extract>> {
    if is_too_long(paths)? {
        return Ok(None);
    }
    extract(paths, |index, _| Ok(indexes.binary_search(&index).is_ok())).map(Some)
}

fn extract(
    paths: &Paths,
    mut wanted: impl FnMut(u64, &CollectorEntry) -> anyhow::Result<bool>,
) -> anyhow::Result<Extract> {
    let mut read = extract_once(paths, &mut wanted);
    for _ in 1..READINGS_MAX {
        if read.is_ok() {
            break;
        }
        read = extract_once(paths, &mut wanted);
    }
    read
}

fn extract_once(
    paths: &Paths,
    wanted: &mut impl FnMut(u64, &CollectorEntry) -> anyhow::Result<bool>,
) -> anyhow::Result<Extract> {
    // First: what is appended meanwhile is beyond it, and never missing under it.
    let head = newest_checkpoint(paths)?;
    let segments = paths.log().join(SEGMENTS);
    let files = OsFiles::read_only(&segments)
        .with_context(|| format!("cannot read {}", segments.display()))?;
    let mut taken = Extract { leaves: Vec::new(), head, hashes: Vec::new() };
    for frame in scan(files)? {
        let frame = frame?;
        taken.hashes.push(leaf_hash(&frame.payload));
        let entry = CollectorEntry::decode(frame.payload.as_slice())?;
        if wanted(frame.index, &entry)? {
            taken.leaves.push(Leaf { index: frame.index, bytes: frame.payload });
        }
    }
    Ok(taken)
}

/// An inclusion proof of an entry under a checkpoint.
pub struct Inclusion {
    /// The leaf's hash.
    pub leaf: Hash,
    /// The path to the root.
    pub path: Vec<Hash>,
}

impl Extract {
    /// What these entries alone say of the session.
    pub fn answers(&self, id: &str, scope: &Scope) -> anyhow::Result<Option<(Facts, Vec<Answer>)>> {
        let leaves = self.leaves.iter().map(|leaf| (leaf.index, leaf.bytes.as_slice()));
        Reader::of(index::in_memory(leaves)?, scope).session(id)
    }

    /// Inclusion proofs of all its entries that are under its checkpoint, each checked against the root.
    /// `None`: there is no checkpoint, or it would cost too much here.
    pub fn prove(&self) -> anyhow::Result<Option<Vec<(u64, Inclusion)>>> {
        let Some((head, _)) = &self.head else { return Ok(None) };
        let (size, root) = (head.size, &head.root);
        let count = u64::try_from(self.leaves.len()).unwrap_or(u64::MAX);
        if count.saturating_mul(size) > PROOF_HASHES_MAX {
            return Ok(None);
        }
        let mut proofs = Vec::new();
        for leaf in self.leaves.iter().filter(|leaf| leaf.index < size) {
            let path = prove_inclusion(&in_slice(&self.hashes), leaf.index, size)
                .context("the log has fewer entries than its checkpoint")?;
            let hash = leaf_hash(&leaf.bytes);
            anyhow::ensure!(
                verify_inclusion(&hash, leaf.index, size, &path, root),
                "entry {} is not in the tree of the checkpoint over {size} entries; run: \
                 tidegate-collector verify",
                leaf.index
            );
            proofs.push((leaf.index, Inclusion { leaf: hash, path }));
        }
        Ok(Some(proofs))
    }
}
