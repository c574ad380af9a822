//! The log: the only writer of evidence.
//!
//! Promise: what [`Writer::commit`] has returned for is on the disk, in the order of its index;
//! a checkpoint is signed only over what is on the disk, and is on the disk before anyone sees
//! it. A log that is shorter than its last checkpoint, or than what others hold of it ([`crate::seen`]), or
//! another one, is never served.
//!
//! One frame of a segment is one entry is one leaf: the frame's number is the leaf's index.
//! Bytes: `docs/formats/log.md`.
//!
//! Limits: a start reads the whole log once, at the disk's speed.
//! Known gap: no retention yet.

pub mod notes;

use std::path::Path;

use anyhow::Context as _;
use tidegate_ledger::SigningKey;
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::tree::{Frontier, leaf_hash};
use tidegate_segment::os::OsFiles;
use tidegate_segment::{Bound, Error, Log, Options};

use self::notes::Notes;
use crate::ingest::Signed;
use crate::seen::Seen;

/// Frame kind of a record entry.
pub const FRAME_RECORD: u8 = 1;
/// Frame kind of a seal entry.
pub const FRAME_SEAL: u8 = 2;
/// Most bytes appended and not yet synced: one group commit and its last batch.
pub const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Directory of the segments, below the log's own.
pub const SEGMENTS: &str = "seg";

/// A reader of the log that follows it; sees only what is synced.
pub type Reader = tidegate_segment::Reader<OsFiles>;

/// The open log.
pub struct Writer {
    log: Log<OsFiles>,
    frontier: Frontier,
    notes: Notes,
    signed_size: u64,
    signed: Option<Signed>,
    may_sign: bool,
    key: SigningKey,
    origin: String,
}

/// What [`Writer::open`] needs.
pub struct Opening<'a> {
    /// Directory of the log.
    pub dir: &'a Path,
    /// Signs checkpoints.
    pub key: SigningKey,
    /// The public half.
    pub verifier: &'a VerifierKey,
    /// The log's origin line.
    pub origin: &'a str,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// What others hold of this log.
    pub seen: Seen,
}

impl Writer {
    /// Opens the log, hands every entry to `replay`, and compares it with its last checkpoint.
    pub fn open(
        opening: Opening<'_>,
        mut replay: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let Opening { dir, key, verifier, origin, segment_bytes, seen } = opening;
        let segments = dir.join(SEGMENTS);
        let files = OsFiles::open(&segments).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => anyhow::anyhow!(
                "{} is in use by another process: only one may write the log",
                segments.display()
            ),
            _ => anyhow::Error::new(error).context(format!("cannot open {}", segments.display())),
        })?;
        let notes = Notes::open(dir, verifier)?;
        let signed = notes.newest().iter().max_by_key(|known| known.size).cloned();
        let signed = signed.map(|head| Signed { head, note: notes.newest_text().to_owned() });
        let known = [notes.newest(), &seen.heads].concat();
        let signed_size = signed.as_ref().map_or(0, |signed| signed.head.size);
        let floor = signed_size.max(seen.size);
        let mut owner = [0; 32];
        getrandom::fill(&mut owner).context("no random numbers")?;
        let options = Options {
            owner,
            segment_bytes,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            durable_floor: floor,
            ..Options::default()
        };
        let (log, recovery) = Log::open(files, options).map_err(|error| {
            let error = damaged(dir, &error);
            if seen.size <= signed_size {
                return error;
            }
            error.context(format!(
                "what others hold of it says {} entries: it was set back",
                seen.size
            ))
        })?;
        if let Some(torn) = &recovery.torn {
            tracing::warn!(
                file = %torn.file, offset = torn.offset, index = torn.index,
                bytes = recovery.lost_bytes,
                "the log's tail was torn; nothing of it had been acknowledged"
            );
        }
        let mut reader = log.read_from(0, Bound::Durable);
        let mut frontier = Frontier::new();
        check_at(dir, &known, &frontier)?;
        while let Some(frame) = reader.next().map_err(|error| damaged(dir, &error))? {
            frontier.push(leaf_hash(&frame.payload));
            check_at(dir, &known, &frontier)?;
            replay(frame.index, &frame.payload)
                .with_context(|| format!("entry {} in {}", frame.index, frame.file))?;
        }
        anyhow::ensure!(
            frontier.size() >= floor,
            "the log in {} holds {} entries but its checkpoint, or what others hold of it, says \
             {floor}: entries are missing. It is not served. Run: tidegate-collector verify",
            dir.display(),
            frontier.size()
        );
        let origin = origin.to_owned();
        Ok(Self { log, frontier, notes, signed_size, signed, may_sign: true, key, origin })
    }

    /// Appends one entry, in memory until [`Writer::commit`]; returns its index.
    pub fn append(&mut self, kind: u8, entry: &[u8]) -> Result<u64, Error> {
        let index = self.log.append(kind, entry)?;
        self.frontier.push(leaf_hash(entry));
        Ok(index)
    }

    /// One write and one sync for all that was appended; returns how many entries are durable.
    pub fn commit(&mut self) -> Result<u64, Error> {
        self.log.sync()
    }

    /// Entries in the log, committed or not.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// How many entries are synced.
    pub fn durable(&self) -> u64 {
        self.log.durable_index()
    }

    /// Signs and keeps a checkpoint, where there is something new; returns whether it did. Call it after
    /// a commit.
    pub fn checkpoint(&mut self) -> anyhow::Result<bool> {
        let size = self.frontier.size();
        if size == self.signed_size || size != self.log.durable_index() || !self.may_sign {
            return Ok(false);
        }
        let root = self.frontier.root();
        let head = Checkpoint { origin: self.origin.clone(), size, root };
        let note = checkpoint::sign(&self.key, &head)
            .map_err(|error| anyhow::anyhow!("cannot sign a checkpoint: {error}"))?;
        self.notes.keep(&note)?;
        self.signed_size = size;
        self.signed = Some(Signed { head, note });
        Ok(true)
    }

    /// The newest checkpoint.
    pub const fn signed(&self) -> Option<&Signed> {
        self.signed.as_ref()
    }

    /// Whether checkpoints are signed: not before the witnesses were asked what they know.
    pub const fn may_sign(&mut self, may: bool) {
        self.may_sign = may;
    }

    /// A reader from this index on.
    pub fn reader(&self, index: u64) -> Reader {
        self.log.read_from(index, Bound::Durable)
    }

    /// Ends in order: everything synced and under a checkpoint, which `last` is shown.
    pub fn close(mut self, last: impl FnOnce(&Signed)) -> anyhow::Result<()> {
        self.log.sync().context("cannot sync the log")?;
        if self.checkpoint()?
            && let Some(signed) = &self.signed
        {
            last(signed);
        }
        self.log.close().context("cannot close the log")
    }
}

fn check_at(dir: &Path, known: &[Checkpoint], frontier: &Frontier) -> anyhow::Result<()> {
    for checkpoint in known.iter().filter(|known| known.size == frontier.size()) {
        anyhow::ensure!(
            checkpoint.root == frontier.root(),
            "the first {} entries of the log in {} are not those of its signed checkpoint: \
             something was changed, removed or put in. It is not served. \
             Run: tidegate-collector verify",
            checkpoint.size,
            dir.display()
        );
    }
    Ok(())
}

fn damaged(dir: &Path, error: &Error) -> anyhow::Error {
    anyhow::anyhow!(
        "the log in {} cannot be read: {error}. It is not served, and nothing was changed. \
         Run: tidegate-collector verify",
        dir.display()
    )
}
