//! Writes every operation ahead of its bytes; the only maker of a [`Receipt`].
//!
//! Promises:
//! - What a [`Receipt`] covers is recorded at the durability level that its decision asks: written
//!   (`process`), synced (`host`), or acknowledged by the collector (`collector`). Nothing else
//!   makes a Receipt, but [`Journal::pass_open`] where a target's owner chose `on_failure = "open"`.
//! - One chain a run: sequence numbers without gaps, each record holding the hash of the one
//!   before, each run's Genesis naming the end of the run before. Records are sealed at every
//!   sync, at most [`SEAL_RECORDS_MAX`] to a seal.
//! - After a crash the next start cuts a torn tail, seals what was whole, and says so in a
//!   `Recovered` record. An operation of the old chain that has no outcome stays without one:
//!   nothing is invented, readers take it as *lost* (it may have run or not).
//!
//! Windows: a record at level `process` survives the agent's death at once, and power loss after
//! its sync, at most [`SYNC_AFTER_MS_MAX`] milliseconds and one sync later. An outcome only waits
//! in memory until then.
//!
//! Limits: while an open bypass lasts, its counts are in memory; if the agent dies then, the END
//! record is missing and START stands alone.
//!
//! Known gaps: a start reads the whole unacknowledged spool to find its last link, about a second
//! a GiB. The spool keeps the newest acknowledged batch, and its cursor on disk lags a little, so
//! the first batches after a start may be ones that the collector has.

mod bypass;
mod clock;
mod commit;
mod error;
mod finding;
mod guarded;
mod open;
mod pledge;
mod recovery;
mod session;
mod types;
mod uplink;
mod writer;

use std::sync::Arc;

pub use clock::{Clock, SystemClock, boot_id};
pub use error::JournalError;
pub use finding::OpaqueOpening;
pub use open::{PreviousChain, Recovered};
pub use pledge::{Pledge, Receipt};
pub use session::{Recorded, SessionCounts, SessionLog, SessionOpening, SessionRefusal};
pub use tidegate_proto::record::Found;
pub use tidegate_spool::{Files, Fill, Level, OsFiles};
pub use types::{
    COVERAGE_MAX, DISCREPANCIES_MAX, Health, HeartbeatCounts, HookState, Lifecycle, Options, Pair,
    hooks_digest,
};
pub use uplink::{OFFER_MS, SealedBatch, UplinkSource};

use commit::SyncThread;
use writer::Shared;

/// Most records under one seal.
pub const SEAL_RECORDS_MAX: u64 = 512;

/// How long a written record waits for its sync at most, in milliseconds.
pub const SYNC_AFTER_MS_MAX: u64 = 10;

/// The journal of one run of the agent. Clones are the same journal.
///
/// Dropping the last clone without [`Journal::shutdown`] is an unclean end: what is buffered is
/// lost, as in a crash.
pub struct Journal<F: Files = OsFiles> {
    shared: Arc<Shared<F>>,
    /// Ends the thread when the last clone goes.
    thread: Arc<SyncThread<F>>,
}

impl<F: Files> Clone for Journal<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), thread: Arc::clone(&self.thread) }
    }
}
