//! What the agent tells of itself: to `status`, and in each heartbeat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tidegate_event::{Mode, OnFailure};
use tidegate_journal::{Clock as _, HeartbeatCounts, Level, Lifecycle, Pair, SystemClock};

use super::{Hooks, hooks_of};
use crate::capture::{self, Kernel};
use crate::config::TargetConfig;
use crate::control::{
    CoverageStatus, SpoolStatus, Status, StatusSource, TargetStatus, UplinkStatus,
};
use crate::coverage;
use crate::ingress::Shared;
use crate::uplink;

/// What the kernel has counted; nothing where it cannot be asked.
pub fn kernel_counts(hooks: &Hooks) -> coverage::Kernel {
    let hooks = hooks_of(hooks);
    let counters = hooks.as_ref().and_then(|kernel| kernel.counters().ok());
    let tallies = hooks.as_ref().and_then(|kernel| kernel.tallies().ok());
    drop(hooks);
    coverage::Kernel {
        tallies: tallies.unwrap_or_default(),
        counters: counters.unwrap_or_default(),
    }
}

/// How the hooks are in the kernel; `None` once detached.
pub fn measure(hooks: &Hooks) -> Option<capture::Measured> {
    hooks_of(hooks).as_ref().map(Kernel::measure)
}

/// The counts of one heartbeat, and a look at whether they agree.
pub fn heartbeat_counts(shared: &Shared, hooks: &Hooks) -> HeartbeatCounts {
    let kernel = kernel_counts(hooks);
    let counts = shared.metrics.counts();
    let report = if hooks_of(hooks).is_some() {
        shared.coverage.look(&shared.config, &kernel, SystemClock.boot_ns())
    } else {
        // Detached, which is a record of its own: there is nothing to compare with.
        coverage::Report::default()
    };
    HeartbeatCounts {
        captured: kernel.counters.captured,
        refused_in_kernel: kernel.counters.refused,
        passed_open: kernel.counters.passed_open,
        sessions_opened: counts.sessions,
        sessions_refused: counts.sessions_refused,
        sessions_active: counts.sessions_active,
        kernel_lost: report.kernel_lost,
        coverage: report.pairs,
        discrepancies: report.discrepancies,
        hooks_digest: None,
        agent_digest: None,
    }
}

/// What a spool this full still takes.
const fn in_words(level: Level) -> &'static str {
    match level {
        Level::Normal => "normal",
        Level::Warn50 => "more than half full",
        Level::NoNewSessions80 => "no new sessions",
        Level::NoNewStatements95 => "no new statements",
        Level::Full => "full",
    }
}

fn coverage_of(pair: Pair) -> CoverageStatus {
    CoverageStatus {
        principal: pair.principal,
        target: pair.target,
        redirected: pair.redirected,
        accepted: pair.accepted,
        refused: pair.refused,
        dropped: pair.dropped,
        exempt: pair.exempt,
        sessions: pair.sessions,
        sessions_refused: pair.sessions_refused,
        sessions_ended: pair.sessions_ended,
        kernel_bytes_in: pair.kernel_bytes_in,
        kernel_bytes_out: pair.kernel_bytes_out,
        bytes_in: pair.bytes_in,
        bytes_out: pair.bytes_out,
    }
}

/// Answers at the control socket.
pub struct Source {
    started: Instant,
    shared: Arc<Shared>,
    hooks: Hooks,
    uplink: Option<uplink::Handle>,
    /// Turns true when the agent takes no new sessions.
    pub draining: Arc<AtomicBool>,
}

impl Source {
    /// For a running agent.
    pub fn new(
        started: Instant,
        shared: Arc<Shared>,
        hooks: Hooks,
        uplink: Option<uplink::Handle>,
    ) -> Self {
        Self { started, shared, hooks, uplink, draining: Arc::default() }
    }

    fn spool(&self) -> SpoolStatus {
        let fill = self.shared.journal.fill();
        SpoolStatus {
            used_bytes: fill.used,
            max_bytes: fill.max,
            level: in_words(fill.level).to_owned(),
            error: self.shared.journal.health().failed,
        }
    }

    fn uplink(&self) -> UplinkStatus {
        let Some(handle) = &self.uplink else { return UplinkStatus::default() };
        let status = handle.status();
        UplinkStatus {
            configured: true,
            connected: status.connected,
            acknowledged_seq: self.shared.journal.health().acknowledged_seq.map(|seq| seq.0),
            last_error: status.last_error,
        }
    }

    fn target(&self, index: usize, target: &TargetConfig) -> TargetStatus {
        let resolver = self.shared.resolver.read().unwrap_or_else(PoisonError::into_inner);
        let rules = resolver.rules(&self.shared.config);
        let of_target = rules.iter().filter(|rule| usize::try_from(rule.id) == Ok(index));
        let mode = match target.mode {
            Mode::Enforce => "enforce",
            Mode::Shadow => "shadow",
        };
        let on_failure = match target.on_failure {
            OnFailure::Closed => "closed",
            OnFailure::Open => "open",
        };
        TargetStatus {
            name: target.name.0.clone(),
            protocol: target.protocol.name().to_owned(),
            mode: mode.to_owned(),
            on_failure: on_failure.to_owned(),
            addresses: of_target
                .map(|rule| format!("{}/{} port {}", rule.addr, rule.prefix, rule.port))
                .collect(),
        }
    }
}

impl StatusSource for Source {
    fn status(&self) -> Status {
        let counts = self.shared.metrics.counts();
        let kernel = hooks_of(&self.hooks).as_ref().and_then(|kernel| kernel.counters().ok());
        let kernel = kernel.unwrap_or_default();
        let report = self.shared.coverage.last();
        let mut discrepancies = report.silences;
        discrepancies.extend(report.discrepancies);
        discrepancies.dedup();
        let targets = self.shared.config.targets.iter().enumerate();
        Status {
            agent_id: self.shared.config.agent_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            draining: self.draining.load(Ordering::Relaxed),
            sessions_active: counts.sessions_active,
            sessions_total: counts.sessions,
            operations: counts.operations,
            refused: counts.refused,
            captured: kernel.captured,
            spool: self.spool(),
            uplink: self.uplink(),
            policy_digest: self.shared.policy.borrow().digest().to_string(),
            targets: targets.map(|(index, target)| self.target(index, target)).collect(),
            coverage: report.pairs.into_iter().map(coverage_of).collect(),
            discrepancies,
            dropped: kernel.dropped,
        }
    }

    fn detach(&self) -> anyhow::Result<String> {
        let journal = &self.shared.journal;
        journal.lifecycle(Lifecycle::Detached, "by command to the running agent", None)?;
        // On disk before the hooks go: an agent that dies now must not leave an open door unsaid.
        journal.seal_and_sync()?;
        let pin_dir = &self.shared.config.capture.pin_dir;
        let mut hooks = hooks_of(&self.hooks);
        let detached = crate::capture::detach(pin_dir).inspect_err(|error| {
            let detail = format!("detaching failed, the hooks stay: {error}");
            _ = journal.lifecycle(Lifecycle::Warning, &detail, None);
        })?;
        drop(hooks.take());
        drop(hooks);
        let said = if detached {
            "detached: protected targets are now reached directly"
        } else {
            "nothing was attached"
        };
        Ok(said.to_owned())
    }
}
