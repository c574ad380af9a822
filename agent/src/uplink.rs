//! Carries the spool to the collector: enrolment, and one stream of sealed batches.
//!
//! Promises: the spool lets go of a record only when a receipt, signed by the collector's log key,
//! says that it is synced there; records are sent in the order of the chain; a collector that is
//! away costs nothing but spool; many agents do not come back in the same moment (jitter).
//!
//! Cannot: fill a hole. When the collector says that it holds another history than ours (FORK), or
//! that it doesn't know us, the uplink stops and says so, and the spool keeps everything.
//!
//! Files in the state directory: `audit.key` (signs seals), `agent.key`, `agent.crt`, `ca.crt`
//! (the transport), `enrolment.json` (where the collector is, and its log key), `uplink-held.json` (its newest
//! receipt and checkpoint). The protocol:
//! `docs/formats/uplink.md`.

pub mod enrolment;
pub mod held;
pub mod source;
pub mod stream;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tidegate_event::{ChainId, Seq};
use tidegate_journal::UplinkSource;

pub use self::enrolment::{audit_key, enrol};
pub use self::source::{Batch, Source};
use crate::config::Config;

/// How the uplink stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the collector has greeted us on the stream that is open now.
    pub connected: bool,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// The last record under a receipt of this run.
    pub acknowledged: Option<(ChainId, Seq)>,
    /// Batches under a receipt of this run.
    pub batches: u64,
    /// Set when it has given up until an operator acts.
    pub stopped: bool,
}

/// A running uplink.
#[derive(Debug, Clone)]
pub struct Handle {
    status: Arc<Mutex<Status>>,
}

impl Handle {
    /// A handle without a task.
    pub fn new() -> Self {
        Self { status: Arc::default() }
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Handle {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts the uplink on the runtime that calls; `None` where no collector is configured.
pub fn spawn(config: &Config, source: UplinkSource) -> anyhow::Result<Option<Handle>> {
    if !config.collector {
        return Ok(None);
    }
    let handle = Handle::new();
    start(&config.state_dir, &config.agent_id, source, handle.clone())?;
    Ok(Some(handle))
}

/// Starts the uplink of this agent. Its files are read again at each connection, so that an
/// enrolment is seen without a restart.
pub fn start(
    state_dir: &Path,
    agent_id: &str,
    source: impl Source,
    handle: Handle,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::try_current().context("the uplink needs a runtime")?;
    let task = stream::run(state_dir.to_path_buf(), agent_id.to_owned(), source, handle);
    Ok(runtime.spawn(task))
}
