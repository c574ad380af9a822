//! The chain's one writer: gives each record its place, hashes it, hands it to the spool.
//!
//! Promise: records reach the spool in the order of their sequence numbers, and a record that the
//! spool refuses leaves no gap: the chain moves on only behind a successful append.
//!
//! Locks: `writer` is taken before the spool's own. It is never held while the disk works, except
//! by the write(2) of a `process` record.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tidegate_event::{ChainId, Seq, SessionId};
use tidegate_ledger::{Chain, Hash, SigningKey};
use tidegate_proto::audit::v1::audit_record;
use tidegate_proto::write;
use tidegate_spool::{Files, Kind, Level, Spool};
use tokio::sync::{Notify, watch};

use crate::bypass::Bypass;
use crate::{Clock, JournalError, SEAL_RECORDS_MAX};

/// First size of the record buffers, in bytes.
const BUFFER_BYTES: usize = 4 * 1024;

/// How far the spool's cursor on disk may lag behind the acknowledgements, in frames.
const CURSOR_LAG_FRAMES_MAX: u64 = 8192;

thread_local! {
    /// The body of the record at hand, written before the lock is taken.
    static BODY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(BUFFER_BYTES));
}

/// How far the records have come. Positions are exclusive: all records below are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) durable: u64,
    pub(crate) acknowledged: u64,
    /// Why the last sync failed.
    pub(crate) failed: Option<Arc<str>>,
    pub(crate) closed: bool,
    /// Grows with every sync, so that readers of the spool wake.
    pub(crate) syncs: u64,
}

/// A run of records that waits for its seal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsealed {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) value: Hash,
    pub(crate) wall_ns: u64,
    pub(crate) boot_ns: u64,
}

/// What the lock guards.
pub(crate) struct Writer {
    pub(crate) chain: Chain,
    /// Full runs that wait for their seals.
    pub(crate) runs: Vec<Unsealed>,
    /// The first record behind them.
    pub(crate) run_first: u64,
    /// Times of the last record.
    pub(crate) wall_ns: u64,
    pub(crate) boot_ns: u64,
    record: Vec<u8>,
    pub(crate) bypasses: BTreeMap<String, Bypass>,
    /// The last ordinary append was refused.
    pub(crate) refused: bool,
    pub(crate) wake: Wake,
}

/// What the sync thread is asked.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pub(crate) work: Work,
    /// It looks again by itself within [`SYNC_AFTER_MS_MAX`](crate::SYNC_AFTER_MS_MAX).
    pub(crate) armed: bool,
    pub(crate) stop: bool,
}

/// What waits for a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Work {
    /// Nothing.
    #[default]
    None,
    /// Records that nobody waits for.
    Later,
    /// Somebody.
    Now,
}

impl Wake {
    /// Asks for this work, beside what was asked before.
    pub(crate) fn ask(&mut self, work: Work) {
        self.work = self.work.max(work);
    }
}

/// How a record is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// Only into the buffer: the timer does the rest, or who redeems a pledge first.
    Buffer,
    /// The sync thread is woken at once.
    Sync,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) session: Option<&'a SessionId>,
    pub(crate) cause: Option<Seq>,
    /// Whether it may use the spool's reserve.
    pub(crate) reserved: bool,
    pub(crate) push: Push,
}

impl About<'_> {
    /// About the agent itself: may use the reserve, and is synced by the timer.
    pub(crate) const AGENT: Self =
        Self { session: None, cause: None, reserved: true, push: Push::Buffer };
}

/// What all handles share.
pub(crate) struct Shared<F: Files> {
    pub(crate) spool: Spool<F>,
    pub(crate) chain_id: ChainId,
    pub(crate) key: SigningKey,
    pub(crate) clock: Arc<dyn Clock>,
    writer: Mutex<Writer>,
    pub(crate) woken: Condvar,
    /// All records below are handed to the operating system.
    written: AtomicU64,
    pub(crate) progress: watch::Sender<Progress>,
    /// Records below this one wait, or waited, for the collector.
    collector_awaited: AtomicU64,
    /// Wakes the uplink for them.
    pub(crate) offer_now: Notify,
    /// One sync at a time.
    pub(crate) syncing: Mutex<()>,
    /// First frame of the newest acknowledged batch; the spool's cursor on disk may lag behind.
    acknowledged_frame: AtomicU64,
    /// The newest checkpoint that the collector showed; for the next heartbeat.
    pub(crate) checkpoint: Mutex<String>,
}

impl<F: Files> Shared<F> {
    pub(crate) fn new(
        spool: Spool<F>,
        chain_id: ChainId,
        key: SigningKey,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let writer = Writer {
            chain: Chain::begin(chain_id),
            runs: Vec::new(),
            run_first: 0,
            wall_ns: 0,
            boot_ns: 0,
            record: Vec::with_capacity(BUFFER_BYTES),
            bypasses: BTreeMap::new(),
            refused: false,
            wake: Wake::default(),
        };
        Self {
            acknowledged_frame: AtomicU64::new(spool.acknowledged()),
            spool,
            chain_id,
            key,
            clock,
            writer: Mutex::new(writer),
            woken: Condvar::new(),
            written: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
            collector_awaited: AtomicU64::new(0),
            offer_now: Notify::new(),
            syncing: Mutex::new(()),
            checkpoint: Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Writer> {
        // Nothing under this lock panics between two steps that belong together.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn note_written(&self, below: u64) {
        self.written.fetch_max(below, Ordering::Release);
    }

    /// Somebody waits until the collector has this record.
    pub(crate) fn await_collector(&self, seq: Seq) {
        self.collector_awaited.fetch_max(seq.0.saturating_add(1), Ordering::AcqRel);
        self.offer_now.notify_one();
    }

    pub(crate) fn is_collector_awaited(&self) -> bool {
        self.collector_awaited.load(Ordering::Acquire) > self.progress.borrow().acknowledged
    }

    pub(crate) fn acknowledged_frame(&self) -> u64 {
        self.acknowledged_frame.load(Ordering::Acquire)
    }

    /// Moves the acknowledgement on. The cursor on disk costs a sync, so it follows in steps, or at
    /// once where room is wanted; a lagging one makes the next run offer again what the collector has.
    pub(crate) fn acknowledge(&self, frame: u64) -> Result<(), JournalError> {
        let frame = self.acknowledged_frame.fetch_max(frame, Ordering::AcqRel).max(frame);
        let lag = frame.saturating_sub(self.spool.acknowledged());
        if lag >= CURSOR_LAG_FRAMES_MAX
            || self.spool.fill().level > Level::Normal
            || self.progress.borrow().closed
        {
            self.spool.acknowledge(frame)?;
        }
        Ok(())
    }

    /// Refuses where the ladder of a filling spool says so.
    pub(crate) fn admit(&self, refuse_from: Level) -> Result<(), JournalError> {
        if self.spool.has_room() {
            return Ok(());
        }
        let fill = self.spool.fill();
        if fill.level < refuse_from {
            return Ok(());
        }
        let (used_bytes, max_bytes) = (fill.used, fill.max);
        if fill.level < Level::NoNewStatements95 {
            return Err(JournalError::NoNewSessions { used_bytes, max_bytes });
        }
        Err(JournalError::Full(format!(
            "{used_bytes} of {max_bytes} bytes wait for the collector: see why the collector does \
             not take them, raise spool.bytes_max, or free space on the spool's disk"
        )))
    }

    /// Appends a record whose body `make` writes. `make` runs before the lock is taken.
    pub(crate) fn append(
        &self,
        about: About<'_>,
        make: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Seq, JournalError> {
        BODY.with_borrow_mut(|body| {
            body.clear();
            make(body);
            let mut writer = self.lock();
            let seq = self.append_body(&mut writer, about, body)?;
            let work = if about.push == Push::Sync { Work::Now } else { Work::Later };
            let wakes = work > writer.wake.work && (work == Work::Now || !writer.wake.armed);
            writer.wake.ask(work);
            drop(writer);
            if wakes {
                self.woken.notify_one();
            }
            Ok(seq)
        })
    }

    /// Hands everything that is buffered to the operating system, unless `seq` is there already. A
    /// failure is told to all who wait, and the sync thread tries again (by the spool's own rule, on a
    /// new file).
    pub(crate) fn write_out(&self, seq: Seq) -> Result<(), JournalError> {
        if seq.0 < self.written() {
            return Ok(());
        }
        let below = self.lock().chain.records();
        match self.spool.write() {
            Ok(()) => {
                self.note_written(below);
                Ok(())
            }
            Err(error) => {
                let failed: Arc<str> = error.to_string().into();
                self.progress.send_modify(|progress| progress.failed = Some(failed));
                self.lock().wake.ask(Work::Later);
                self.woken.notify_one();
                Err(error.into())
            }
        }
    }

    /// Appends a record with this body, under the lock.
    pub(crate) fn append_body(
        &self,
        writer: &mut Writer,
        about: About<'_>,
        body: &[u8],
    ) -> Result<Seq, JournalError> {
        if self.progress.borrow().closed {
            return Err(JournalError::Closed);
        }
        let (wall_ns, boot_ns) = (self.clock.wall_ns(), self.clock.boot_ns());
        let seq = writer.chain.next_seq();
        writer.record.clear();
        write::Header {
            chain_id: &self.chain_id,
            seq,
            prev: &writer.chain.head(),
            wall_ns,
            boot_ns,
            session: about.session,
            cause: about.cause,
        }
        .write(&mut writer.record);
        writer.record.extend_from_slice(body);
        if about.reserved {
            self.spool.append_reserved(Kind::Record, &writer.record)?;
        } else {
            let appended = self.spool.append(Kind::Record, &writer.record);
            writer.refused = appended.is_err();
            appended?;
        }
        let value = writer.chain.advance(&writer.record);
        (writer.wall_ns, writer.boot_ns) = (wall_ns, boot_ns);
        if seq.0 + 1 - writer.run_first >= SEAL_RECORDS_MAX {
            let run = Unsealed { first: writer.run_first, last: seq.0, value, wall_ns, boot_ns };
            writer.runs.push(run);
            writer.run_first = seq.0 + 1;
        }
        Ok(seq)
    }

    /// Appends a record about the agent itself.
    pub(crate) fn append_message(
        &self,
        about: About<'_>,
        body: &audit_record::Body,
        cut: bool,
    ) -> Result<Seq, JournalError> {
        self.append(about, |buf| write::body(buf, body, cut))
    }
}
