//! Takes the agents' batches in: whose they are, whether they continue their chain, into the log,
//! and a receipt back.
//!
//! Promises: a receipt is sent only after the sync; what came twice is kept once; what contradicts
//! the log is refused, kept aside as evidence (`state.db`, table `forks`), named in the collector's own
//! chain and told loudly; a hole is never skipped.
//!
//! The road: [`stream`] (one task a connection) -> a bounded queue -> [`commit`] (one thread, the
//! log's only writer, one sync for whatever waited) -> back to the stream.
//!
//! Limits: named in [`stream`] and [`commit`]. When the queue is full, streams wait; agents keep
//! spooling.

pub mod chains;
pub mod commit;
pub mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_event::{ChainId, Seq};
use tidegate_ledger::checkpoint::Checkpoint;
use tidegate_proto::uplink::v1::{
    Batch, CollectorMessage, HelloAck, Receipt, Refused, collector_message::Message, refused::Why,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tonic::Status;

use crate::log::Reader;
use crate::state::Agent;

/// What a stream asks of the committing thread.
pub enum Job {
    /// What is held of this chain?
    Hello(HelloJob),
    /// Take this batch in.
    Batch(BatchJob),
    /// A second has passed: sign a checkpoint where there is something new.
    Tick,
    /// A reader of the log from this index on, for a follower.
    Reader(u64, oneshot::Sender<Reader>),
    /// The witnesses know nothing that we don't: checkpoints may be signed.
    MaySign,
    /// A witness knows more than we do: stop, with this error.
    SetBack(anyhow::Error),
}

/// A checkpoint that was signed and is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What it says.
    pub head: Checkpoint,
    /// The note.
    pub note: String,
}

/// See [`Job::Hello`].
pub struct HelloJob {
    /// Who asks.
    pub agent: Arc<Agent>,
    /// Chain of the oldest record in the agent's spool, where it has one.
    pub oldest: Option<(ChainId, Seq)>,
    /// The newest receipt of ours that the agent holds.
    pub receipt: Option<Receipt>,
    /// The newest checkpoint of ours that it was shown; may be empty.
    pub checkpoint: String,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<HelloAck, Refused>>,
}

/// See [`Job::Batch`].
pub struct BatchJob {
    /// Where it came from.
    pub stream: Arc<StreamEnd>,
    /// Who sent it.
    pub agent: Arc<Agent>,
    /// The batch.
    pub batch: Batch,
    /// Gives its bytes' place back when the job is done.
    pub permit: OwnedSemaphorePermit,
}

/// The collector's half of one stream.
pub struct StreamEnd {
    out: mpsc::Sender<Result<CollectorMessage, Status>>,
    ended: AtomicBool,
}

impl StreamEnd {
    /// Wraps the sending side.
    pub fn new(out: mpsc::Sender<Result<CollectorMessage, Status>>) -> Self {
        Self { out, ended: AtomicBool::new(false) }
    }

    /// Whether nothing more may come from it.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Nothing more may come from it.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Sends without waiting; a peer that doesn't read its receipts loses the stream.
    pub fn send(&self, message: Message) {
        let message = CollectorMessage { message: Some(message) };
        if self.out.try_send(Ok(message)).is_err() {
            self.end();
        }
    }

    /// Refuses, and takes nothing more.
    pub fn refuse(&self, refused: Refused) {
        self.send(Message::Refused(refused));
        self.end();
    }
}

/// A refusal in words.
pub fn refusal(why: Why, detail: impl Into<String>) -> Refused {
    Refused { why: why.into(), detail: detail.into(), expected_seq: 0 }
}
