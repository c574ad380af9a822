//! Records of sessions and of the agent itself.
//!
//! Promise: [`SessionLog::operation`] spends the Permit, and its Pledge exists only behind the
//! record. `process` records wait in memory until their Pledge is redeemed, which hands all that wait to
//! the operating system in one write; for the other levels the sync thread is woken.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tidegate_event::limits::{NAME_BYTES_MAX, cut};
use tidegate_event::{
    Capture, Digest, Durability, Ending, Mode, OnFailure, Operation, Outcome, Principal, Process,
    Protocol, Seq, SessionId, Stream, TargetName,
};
use tidegate_policy::{Decision, Denial, Permit, Verdict};
use tidegate_proto::audit::v1::{self, audit_record::Body, decision};
use tidegate_proto::{record, write};
use tidegate_spool::{Files, Fill, Level, OsFiles};

use crate::writer::{About, Push, Shared};
use crate::{
    COVERAGE_MAX, DISCREPANCIES_MAX, Health, HeartbeatCounts, Journal, JournalError, Lifecycle,
    Pledge,
};

/// A session about to open.
#[derive(Debug, Clone, Copy)]
pub struct SessionOpening<'a> {
    /// What the kernel and `/proc` said.
    pub capture: &'a Capture,
    /// Who.
    pub principal: &'a Principal,
    /// To what.
    pub target: &'a TargetName,
    /// Which machine reads it.
    pub protocol: Protocol,
    /// Whether decisions bind.
    pub mode: Mode,
    /// The client's end, as the gate accepted it.
    pub client: SocketAddr,
    /// The target's choice: `Closed` ones are refused from 80 % of the spool on.
    pub on_failure: OnFailure,
}

/// A connection that the gate did not serve.
#[derive(Debug, Clone, Copy)]
pub struct SessionRefusal<'a> {
    /// Why.
    pub reason: &'a str,
    /// The client's end.
    pub client: SocketAddr,
    /// The address that it asked for, if the kernel noted it.
    pub original: Option<SocketAddr>,
    /// Who, if that is known.
    pub process: Option<&'a Process>,
}

/// What a session did, at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// Operations permitted.
    pub operations: u64,
    /// Operations refused.
    pub refused: u64,
    /// Bytes that the client sent.
    pub bytes_from_client: u64,
    /// Bytes that the server sent.
    pub bytes_from_server: u64,
}

/// An operation as its record has it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    operation: &'a Operation,
    masked: bool,
    reason: Option<&'a str>,
}

impl<'a> From<&'a Operation> for Recorded<'a> {
    /// As it was asked.
    fn from(operation: &'a Operation) -> Self {
        Self { operation, masked: false, reason: None }
    }
}

impl<'a> Recorded<'a> {
    /// With values masked, or without its text: not what was asked word for word, and the record says so.
    pub const fn masked(operation: &'a Operation) -> Self {
        Self { operation, masked: true, reason: None }
    }

    /// With this in place of the decision's own reason, which quotes what must not be recorded.
    #[must_use]
    pub const fn because(self, reason: &'a str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

/// The records of one session.
pub struct SessionLog<F: Files = OsFiles> {
    shared: Arc<Shared<F>>,
    id: SessionId,
    refuse_from: Level,
}

impl<F: Files> Journal<F> {
    /// Records that a session opens.
    pub fn session(&self, opening: &SessionOpening<'_>) -> Result<SessionLog<F>, JournalError> {
        self.shared.admit(match opening.on_failure {
            OnFailure::Closed => Level::NoNewSessions80,
            OnFailure::Open => Level::NoNewStatements95,
        })?;
        let mut id = SessionId([0; 16]);
        getrandom::fill(&mut id.0)
            .map_err(|error| JournalError::System(format!("no random bytes: {error}")))?;
        let made = record::session_open(&record::Opening {
            capture: opening.capture,
            principal: &opening.principal.name,
            target: &opening.target.0,
            protocol: opening.protocol.name(),
            mode: match opening.mode {
                Mode::Enforce => "enforce",
                Mode::Shadow => "shadow",
            },
            client: opening.client,
        });
        let about = About { session: Some(&id), cause: None, reserved: false, push: Push::Buffer };
        self.shared.append_message(about, &Body::SessionOpen(made.message), made.cut)?;
        Ok(SessionLog::new(Arc::clone(&self.shared), id))
    }

    /// Records that the gate refused a connection.
    pub fn refused_session(&self, refusal: &SessionRefusal<'_>) -> Result<(), JournalError> {
        let made = record::session_refused(
            refusal.reason,
            refusal.client,
            refusal.original,
            refusal.process,
        );
        let about = About { reserved: false, ..About::AGENT };
        let body = Body::SessionRefused(made.message);
        self.shared.append_message(about, &body, made.cut).map(|_| ())
    }

    /// Records what happened to the agent itself.
    pub fn lifecycle(
        &self,
        kind: Lifecycle,
        detail: &str,
        digest: Option<&Digest>,
    ) -> Result<(), JournalError> {
        let (detail, was_cut) = cut(detail, NAME_BYTES_MAX);
        let body = Body::Lifecycle(v1::Lifecycle {
            kind: v1::lifecycle::Kind::from(kind).into(),
            detail: detail.to_owned(),
            digest: bytes_of(digest),
            ..v1::Lifecycle::default()
        });
        self.shared.append_message(About::AGENT, &body, was_cut).map(|_| ())
    }

    /// Records that the agent lives, and its counters.
    pub fn heartbeat(&self, counts: &HeartbeatCounts) -> Result<(), JournalError> {
        let (durable, acknowledged) = {
            let progress = self.shared.progress.borrow();
            (progress.durable, progress.acknowledged)
        };
        let all = counts.coverage.len();
        let is_cut = all > COVERAGE_MAX || counts.discrepancies.len() > DISCREPANCIES_MAX;
        let body = Body::Heartbeat(v1::Heartbeat {
            captured: counts.captured,
            refused_in_kernel: counts.refused_in_kernel,
            passed_open: counts.passed_open,
            sessions_opened: counts.sessions_opened,
            sessions_refused: counts.sessions_refused,
            sessions_active: counts.sessions_active,
            spool_bytes: self.shared.spool.fill().used,
            durable_seq: durable.saturating_sub(1),
            acknowledged_seq: acknowledged.saturating_sub(1),
            checkpoint: self
                .shared
                .checkpoint
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            coverage: counts.coverage.iter().take(COVERAGE_MAX).map(Into::into).collect(),
            coverage_total: if is_cut { u32::try_from(all).unwrap_or(u32::MAX) } else { 0 },
            discrepancies: counts
                .discrepancies
                .iter()
                .take(DISCREPANCIES_MAX)
                .map(|text| cut(text, NAME_BYTES_MAX).0.to_owned())
                .collect(),
            hooks_digest: bytes_of(counts.hooks_digest.as_ref()),
            agent_digest: bytes_of(counts.agent_digest.as_ref()),
            kernel_lost: counts.kernel_lost,
        });
        self.shared.append_message(About::AGENT, &body, is_cut).map(|_| ())
    }

    /// Seals and syncs what was appended before the call; waits for the disk.
    pub fn seal_and_sync(&self) -> Result<(), JournalError> {
        self.shared.commit()
    }

    /// Records the end, seals and syncs, ends the thread and marks the spool's end as clean; waits
    /// for the disk. Records after it are refused.
    pub fn shutdown(&self) -> Result<(), JournalError> {
        self.shared.end_bypasses();
        self.lifecycle(Lifecycle::Stopping, "journal closed", None)?;
        self.thread.stop();
        self.shared.progress.send_modify(|progress| progress.closed = true);
        self.shared.commit()?;
        self.shared.acknowledge(0)?;
        self.shared.spool.close()?;
        Ok(())
    }

    /// How full the spool is.
    pub fn fill(&self) -> Fill {
        self.shared.spool.fill()
    }

    /// How the journal is.
    pub fn health(&self) -> Health {
        let progress = self.shared.progress.borrow().clone();
        let last = |below: u64| below.checked_sub(1).map(Seq);
        let writer = self.shared.lock();
        let sealed = writer.runs.first().map_or(writer.run_first, |run| run.first);
        Health {
            chain_id: self.shared.chain_id,
            next_seq: writer.chain.next_seq(),
            durable_seq: last(progress.durable),
            acknowledged_seq: last(progress.acknowledged),
            unsealed_records: writer.chain.records() - sealed,
            failed: progress.failed.as_deref().map(str::to_owned),
            passing_open: writer.bypasses.keys().cloned().collect(),
        }
    }
}

/// Empty where there is none.
fn bytes_of(digest: Option<&Digest>) -> Bytes {
    digest.map(|digest| Bytes::copy_from_slice(&digest.0)).unwrap_or_default()
}

impl<F: Files> SessionLog<F> {
    pub(crate) const fn new(shared: Arc<Shared<F>>, id: SessionId) -> Self {
        Self { shared, id, refuse_from: Level::NoNewStatements95 }
    }

    pub(crate) fn shared(&self) -> &Shared<F> {
        &self.shared
    }

    /// The session's id in its records.
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Records a permitted operation ahead of its bytes.
    ///
    /// ```
    /// # use {tidegate_event::Operation, tidegate_journal::SessionLog, tidegate_policy::Permit};
    /// fn once(log: &SessionLog, operation: &Operation, permit: Permit) {
    ///     let _ = log.operation(operation, permit);
    /// }
    /// ```
    ///
    /// A Permit is good for one record:
    ///
    /// ```compile_fail,E0382
    /// # use {tidegate_event::Operation, tidegate_journal::SessionLog, tidegate_policy::Permit};
    /// fn twice(log: &SessionLog, operation: &Operation, permit: Permit) {
    ///     let _ = log.operation(operation, permit);
    ///     let _ = log.operation(operation, permit);
    /// }
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "the Permit is spent: one record each")]
    pub fn operation<'a>(
        &self,
        operation: impl Into<Recorded<'a>>,
        permit: Permit,
    ) -> Result<Pledge, JournalError> {
        self.shared.admit(self.refuse_from)?;
        self.decided(operation.into(), permit.decision())
    }

    /// Records a refused operation; its refusal may be sent at once, or behind the Pledge.
    pub fn refusal<'a>(
        &self,
        operation: impl Into<Recorded<'a>>,
        denial: &Denial,
    ) -> Result<Pledge, JournalError> {
        self.decided(operation.into(), denial.decision())
    }

    /// Records what became of the operation with sequence number `cause`. It is not waited for.
    pub fn outcome(&self, cause: Seq, outcome: &Outcome) -> Result<(), JournalError> {
        let about = About {
            session: Some(&self.id),
            cause: Some(cause),
            reserved: false,
            push: Push::Buffer,
        };
        self.shared.append(about, |buf| write::outcome(buf, outcome)).map(|_| ())
    }

    /// Records a part of the result of the operation with sequence number `cause`: at most 48 KiB from
    /// byte `offset` of it on. It is not waited for.
    pub fn rows(
        &self,
        cause: Seq,
        stream: Stream,
        (offset, data): (u64, &[u8]),
    ) -> Result<(), JournalError> {
        let about = About {
            session: Some(&self.id),
            cause: Some(cause),
            reserved: false,
            push: Push::Buffer,
        };
        self.shared.append(about, |buf| write::result_rows(buf, stream, offset, data)).map(|_| ())
    }

    /// Records the session's end.
    pub fn close(&self, ending: &Ending, counts: SessionCounts) -> Result<(), JournalError> {
        let made = record::session_close(ending);
        let body = Body::SessionClose(v1::SessionClose {
            operations: counts.operations,
            refused: counts.refused,
            bytes_from_client: counts.bytes_from_client,
            bytes_from_server: counts.bytes_from_server,
            ..made.message
        });
        let about =
            About { session: Some(&self.id), cause: None, reserved: true, push: Push::Buffer };
        self.shared.append_message(about, &body, made.cut).map(|_| ())
    }

    fn decided(&self, recorded: Recorded<'_>, decision: &Decision) -> Result<Pledge, JournalError> {
        let level = decision.durability;
        let unmasked: Vec<String> = decision.unmasked.iter().map(ToString::to_string).collect();
        let decided = write::Decided {
            verdict: match decision.verdict {
                Verdict::Allow => decision::Verdict::Allow,
                Verdict::Deny => decision::Verdict::Deny,
                Verdict::WouldDeny => decision::Verdict::WouldDeny,
            },
            reason: match recorded.reason {
                Some(other) if !decision.reason.is_empty() => other,
                _ => &decision.reason,
            },
            policies: &decision.policies,
            policy_digest: &decision.digest,
            durability: level,
            alert: decision.alert.as_deref().unwrap_or_default(),
            unmasked: &unmasked,
            masked: recorded.masked,
        };
        let push = match level {
            Durability::Process => Push::Buffer,
            Durability::Host | Durability::Collector => Push::Sync,
        };
        let about = About { session: Some(&self.id), cause: None, reserved: false, push };
        let seq =
            self.shared.append(about, |buf| write::operation(buf, recorded.operation, &decided))?;
        if level == Durability::Collector {
            self.shared.await_collector(seq);
        }
        Ok(Pledge { seq, level })
    }
}
