//! What the journal is told at its start, and what it tells of itself.

use sha2::{Digest as _, Sha256};
use tidegate_event::{ChainId, Digest, Seq};
use tidegate_ledger::SigningKey;
use tidegate_proto::audit::v1;

/// What the Genesis of this run says, and the key that seals it.
#[derive(Clone)]
pub struct Options {
    /// The agent's name.
    pub agent_id: String,
    /// Seals the chain.
    pub audit_key: SigningKey,
    /// The host's name.
    pub host: String,
    /// The agent's version.
    pub agent_version: String,
    /// SHA-256 of its executable.
    pub agent_digest: Digest,
    /// SHA-256 over the policy set.
    pub policy_digest: Digest,
    /// SHA-256 of the kernel object.
    pub ebpf_digest: Digest,
    /// The kernel's boot id ([`crate::boot_id`]).
    pub boot_id: [u8; 16],
}

/// What happened to the agent itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It began to serve.
    Started,
    /// It drains, or ends.
    Stopping,
    /// Its hooks are in place.
    Attached,
    /// Its hooks were taken away.
    Detached,
    /// A policy set was loaded.
    PolicyLoaded,
    /// A configuration was loaded.
    ConfigLoaded,
    /// A target's host name now means these addresses.
    TargetResolved,
    /// It was enrolled at a collector.
    Enrolled,
    /// Something is not as it should be.
    Warning,
}

impl From<Lifecycle> for v1::lifecycle::Kind {
    fn from(kind: Lifecycle) -> Self {
        match kind {
            Lifecycle::Started => Self::Started,
            Lifecycle::Stopping => Self::Stopping,
            Lifecycle::Attached => Self::Attached,
            Lifecycle::Detached => Self::Detached,
            Lifecycle::PolicyLoaded => Self::PolicyLoaded,
            Lifecycle::ConfigLoaded => Self::ConfigLoaded,
            Lifecycle::TargetResolved => Self::TargetResolved,
            Lifecycle::Enrolled => Self::Enrolled,
            Lifecycle::Warning => Self::Warning,
        }
    }
}

/// Counters of a heartbeat that only the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeartbeatCounts {
    /// Connects that the kernel redirected since the hooks were attached.
    pub captured: u64,
    /// Connects that the hooks denied.
    pub refused_in_kernel: u64,
    /// Connects that the hooks passed while no agent ran.
    pub passed_open: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Connections refused by the gate.
    pub sessions_refused: u64,
    /// Sessions open now.
    pub sessions_active: u64,
    /// What kernel and gate counted, by principal and target; the first [`COVERAGE_MAX`] are
    /// written.
    pub coverage: Vec<Pair>,
    /// What their counts do not agree in, in words; the first [`DISCREPANCIES_MAX`] are written.
    pub discrepancies: Vec<String>,
    /// SHA-256 over the hooks in the kernel ([`hooks_digest`]); `None` where not all are there.
    pub hooks_digest: Option<Digest>,
    /// SHA-256 of the file of the agent's program, as it is now.
    pub agent_digest: Option<Digest>,
    /// Events, tallies and captures that found no room in the kernel since this chain began.
    pub kernel_lost: u64,
}

/// One hook as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookState {
    /// Where: `cgroup/connect4`, ..
    pub place: &'static str,
    /// Id of the link that holds it there.
    pub link_id: u32,
    /// Id of its program.
    pub program_id: u32,
    /// The kernel's hash over the program's instructions.
    pub program_tag: [u8; 8],
    /// The cgroup that it guards.
    pub cgroup_id: u64,
}

impl From<&HookState> for v1::Hook {
    fn from(hook: &HookState) -> Self {
        Self {
            place: hook.place.to_owned(),
            link_id: hook.link_id,
            program_id: hook.program_id,
            program_tag: hook.program_tag.to_vec().into(),
            cgroup_id: hook.cgroup_id,
        }
    }
}

/// SHA-256 over all hooks, in the order of their attachment (docs/formats/record.md).
pub fn hooks_digest(hooks: &[HookState]) -> Digest {
    let mut hash = Sha256::new_with_prefix(b"tidegate/hooks/v1\0");
    for hook in hooks {
        hash.update(hook.place);
        hash.update([0]);
        hash.update(hook.link_id.to_le_bytes());
        hash.update(hook.program_id.to_le_bytes());
        hash.update(hook.program_tag);
        hash.update(hook.cgroup_id.to_le_bytes());
    }
    Digest(hash.finalize().into())
}

/// Most pairs of one heartbeat: a name has at most 63 bytes, so that they fit a record.
pub const COVERAGE_MAX: usize = 256;

/// Most discrepancies of one heartbeat.
pub const DISCREPANCIES_MAX: usize = 8;

/// The counts of one principal and target since this chain began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pair {
    /// The principal's name, or its user id in words.
    pub principal: String,
    /// The target's name; empty for what is no target.
    pub target: String,
    /// By the kernel: led to the gate.
    pub redirected: u64,
    /// By the kernel: of these, established at the gate.
    pub accepted: u64,
    /// By the kernel: refused by a hook.
    pub refused: u64,
    /// By the kernel: sockets whose packets the guard dropped.
    pub dropped: u64,
    /// By the kernel: let pass directly.
    pub exempt: u64,
    /// By the gate: sessions opened.
    pub sessions: u64,
    /// By the gate: connections refused.
    pub sessions_refused: u64,
    /// By the gate: of the sessions, ended; the rest is about these.
    pub sessions_ended: u64,
    /// By the kernel: bytes that came from the client and were taken from its socket.
    pub kernel_bytes_in: u64,
    /// By the kernel: bytes that were given to be sent to the client.
    pub kernel_bytes_out: u64,
    /// By the gate: bytes that it read from the client.
    pub bytes_in: u64,
    /// By the gate: bytes that it wrote to the client.
    pub bytes_out: u64,
}

impl From<&Pair> for v1::Coverage {
    fn from(pair: &Pair) -> Self {
        Self {
            principal: pair.principal.clone(),
            target: pair.target.clone(),
            redirected: pair.redirected,
            accepted: pair.accepted,
            refused: pair.refused,
            dropped: pair.dropped,
            exempt: pair.exempt,
            sessions: pair.sessions,
            sessions_refused: pair.sessions_refused,
            kernel_bytes_in: pair.kernel_bytes_in,
            kernel_bytes_out: pair.kernel_bytes_out,
            bytes_in: pair.bytes_in,
            bytes_out: pair.bytes_out,
            sessions_ended: pair.sessions_ended,
        }
    }
}

/// How the journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// This run's chain.
    pub chain_id: ChainId,
    /// The place of the next record, which is the number of records.
    pub next_seq: Seq,
    /// Last record that is synced.
    pub durable_seq: Option<Seq>,
    /// Last record that the collector acknowledged.
    pub acknowledged_seq: Option<Seq>,
    /// Records under no seal yet.
    pub unsealed_records: u64,
    /// Why the last sync failed, if it did.
    pub failed: Option<String>,
    /// Targets that pass without evidence now.
    pub passing_open: Vec<String>,
}
