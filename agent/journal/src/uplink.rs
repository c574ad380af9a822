//! The collector's side of the spool: sealed batches in order, and acknowledgements back.
//!
//! Promise: only synced records under their seal are offered, in the order of their chain, chains
//! in the order of their runs. What is acknowledged may leave the spool; the newest acknowledged
//! batch stays, so that the next run finds the chain's last record.
//!
//! Pace: what nobody waits for is offered at most every [`OFFER_MS`], all batches since then at once, so
//! that a sync each few milliseconds does not cost a message, a receipt and two signatures each. A
//! `collector` pledge that waits is offered with its own sync.
//!
//! Limits: one source at a time; reads are made on the caller's thread, a batch at a time.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::{Hash, Header, seal};
use tidegate_spool::{Files, Kind, OsFiles, Reader, SpoolError};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::writer::{Progress, Shared};
use crate::{Journal, JournalError};

/// How often batches are offered that nobody waits for, in milliseconds.
pub const OFFER_MS: u64 = 50;

/// Records of one chain under one seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBatch {
    /// The chain.
    pub chain_id: ChainId,
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// The records' exact bytes.
    pub records: Vec<Bytes>,
    /// The seal's exact bytes.
    pub seal: Bytes,
    /// Chain value of the last record.
    pub chain_value: Hash,
}

/// Reads the spool for the uplink.
pub struct UplinkSource<F: Files = OsFiles> {
    shared: Arc<Shared<F>>,
    progress: watch::Receiver<Progress>,
    reader: Reader<F>,
    /// Records whose seal was not read yet, with their frames.
    waiting: VecDeque<(u64, Bytes)>,
    /// Read ahead by `oldest` or `seek`.
    ready: Option<(u64, SealedBatch)>,
    /// Given out and not yet acknowledged: chain, last record, first frame.
    given: VecDeque<(ChainId, Seq, u64)>,
    /// When the spool was last read to its end, if nothing was read since.
    drained: Option<Instant>,
}

impl<F: Files> Journal<F> {
    /// A reader of sealed batches, from the oldest that is not acknowledged.
    pub fn uplink(&self) -> UplinkSource<F> {
        let shared = Arc::clone(&self.shared);
        let reader = shared.spool.reader_from(shared.acknowledged_frame());
        UplinkSource {
            progress: shared.progress.subscribe(),
            reader,
            shared,
            waiting: VecDeque::new(),
            ready: None,
            given: VecDeque::new(),
            drained: None,
        }
    }
}

impl<F: Files> UplinkSource<F> {
    /// Keeps the checkpoint that the collector showed, for the next heartbeat.
    pub fn saw_checkpoint(&self, note: &str) {
        let mut kept = self.shared.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        note.clone_into(&mut kept);
    }

    /// The first record that would be offered; `None` when there is none now.
    #[expect(clippy::unused_async, reason = "may read on another thread one day")]
    pub async fn oldest(&mut self) -> Result<Option<(ChainId, Seq)>, JournalError> {
        self.restart();
        self.ready = self.read_batch()?;
        Ok(self.ready.as_ref().map(|(_, batch)| (batch.chain_id, batch.first)))
    }

    /// Goes back to the oldest batch, and then over those of `chain` that end before `next`. Where
    /// `next` lies inside of a batch, that whole batch is offered.
    #[expect(clippy::unused_async, reason = "may read on another thread one day")]
    pub async fn seek(&mut self, chain: ChainId, next: Seq) -> Result<(), JournalError> {
        self.restart();
        while let Some((frame, batch)) = self.read_batch()? {
            if batch.chain_id != chain || batch.last >= next {
                self.ready = Some((frame, batch));
                break;
            }
            self.given.push_back((batch.chain_id, batch.last, frame));
        }
        Ok(())
    }

    /// The next batch; waits until there is one. After [`Journal::shutdown`], what was not offered
    /// yet still comes, then [`JournalError::Closed`].
    pub async fn next(&mut self) -> Result<SealedBatch, JournalError> {
        loop {
            if self.ready.is_none() {
                self.wait_for_pace().await;
            }
            let closed = self.progress.borrow_and_update().closed;
            let read = match self.ready.take() {
                Some(ready) => Some(ready),
                None => self.read_batch()?,
            };
            if let Some((frame, batch)) = read {
                self.given.push_back((batch.chain_id, batch.last, frame));
                return Ok(batch);
            }
            self.drained = Some(Instant::now());
            if closed || self.progress.changed().await.is_err() {
                return Err(JournalError::Closed);
            }
        }
    }

    /// Waits until batches may be offered again: at once where a `collector` pledge waits.
    async fn wait_for_pace(&mut self) {
        if let Some(drained) = self.drained
            && !self.shared.is_collector_awaited()
            && !self.progress.borrow().closed
        {
            tokio::select! {
                () = tokio::time::sleep_until(drained + Duration::from_millis(OFFER_MS)) => {}
                () = self.shared.offer_now.notified() => {}
            }
        }
        self.drained = None;
    }

    /// The collector has everything up to record `durable` of `chain`, and, since batches go in
    /// order, all that was offered before. Frees the spool, and redeems `collector` pledges.
    pub fn acknowledge(&mut self, chain: ChainId, durable: Seq) -> Result<(), JournalError> {
        let reached = self
            .given
            .iter()
            .rposition(|&(given_chain, last, _)| given_chain == chain && last <= durable);
        if let Some(at) = reached {
            let newest = self.given.get(at).map(|&(_, _, frame)| frame);
            self.given.drain(..=at);
            if let Some(frame) = newest {
                self.shared.acknowledge(frame)?;
            }
        }
        if chain == self.shared.chain_id {
            self.shared.progress.send_if_modified(|progress| {
                let below = durable.0.saturating_add(1).min(progress.durable);
                let further = below > progress.acknowledged;
                progress.acknowledged = progress.acknowledged.max(below);
                further
            });
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.reader = self.shared.spool.reader_from(self.shared.acknowledged_frame());
        self.waiting.clear();
        self.given.clear();
        self.ready = None;
    }

    /// The next whole batch among the durable frames, with its first frame's index.
    fn read_batch(&mut self) -> Result<Option<(u64, SealedBatch)>, JournalError> {
        loop {
            let frame = self.reader.next();
            let frame =
                frame.map_err(|error| SpoolError::of_log(self.shared.spool.dir(), error))?;
            let Some(frame) = frame else { return Ok(None) };
            match Kind::of(frame.kind) {
                Some(Kind::Record) => {
                    self.waiting.push_back((frame.index, frame.payload.into()));
                }
                Some(Kind::Seal) => {
                    if let Some(batch) = self.sealed(frame.index, frame.payload.into())? {
                        return Ok(Some(batch));
                    }
                }
                None => {}
            }
        }
    }

    /// Takes what a seal covers from the records that wait. `None` for a seal over records that
    /// lie before the place where reading began.
    fn sealed(
        &mut self,
        index: u64,
        seal: Bytes,
    ) -> Result<Option<(u64, SealedBatch)>, JournalError> {
        let bad = |index: u64, error: &dyn std::fmt::Display| {
            JournalError::Spool(format!("frame {index}: {error}"))
        };
        let facts = seal::read(&seal).map_err(|error| bad(index, &error))?;
        let Some((frame, record)) = self.waiting.front() else {
            return Ok(None);
        };
        let frame = *frame;
        let first = Header::read(record).map_err(|error| bad(frame, &error))?;
        if first.chain_id != facts.chain_id || first.seq > facts.last {
            return Ok(None);
        }
        // The records of a chain follow each other without a gap.
        let covered = usize::try_from(facts.last.0 - first.seq.0).unwrap_or(usize::MAX);
        let covered = covered.saturating_add(1).min(self.waiting.len());
        let records = self.waiting.drain(..covered).map(|(_, record)| record).collect();
        if first.seq != facts.first {
            return Ok(None);
        }
        Ok(Some((
            frame,
            SealedBatch {
                chain_id: facts.chain_id,
                first: facts.first,
                last: facts.last,
                records,
                seal,
                chain_value: facts.chain_value,
            },
        )))
    }
}
