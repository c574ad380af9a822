//! `on_failure = "open"`: what passes while nothing can be recorded, and the records around it.
//!
//! Promise: [`Journal::pass_open`] gives leave only while the journal really can't record. A Bypass
//! START is written into the spool's reserve with the first use, an END with the counts as soon as
//! records are taken again. Where even the START can't be written, the END says so.
//!
//! Cannot do: keep the counts over a crash.

use tidegate_event::TargetName;
use tidegate_proto::audit::v1::{self, audit_record::Body, bypass::Phase};
use tidegate_proto::write;
use tidegate_spool::{Files, Level};

use crate::writer::{About, Shared, Work, Writer};
use crate::{Journal, JournalError, Receipt};

/// An open bypass of one target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bypass {
    reason: String,
    start_recorded: bool,
    connections: u64,
    bytes: u64,
    operations: u64,
}

impl<F: Files> Journal<F> {
    /// Leave to pass without evidence, for a target whose `on_failure` is `open` (the caller checks
    /// that), and only while the journal can't record. Counts one operation.
    pub fn pass_open(&self, target: &TargetName) -> Option<Receipt> {
        let mut writer = self.shared.lock();
        let reason = self.shared.cannot_record(&writer)?;
        let mut bypass = writer.bypasses.remove(&target.0).unwrap_or_default();
        if !bypass.start_recorded {
            bypass.reason = reason;
            let body = message(Phase::Start, &target.0, &bypass);
            bypass.start_recorded = self.shared.append_bypass(&mut writer, &body).is_ok();
        }
        bypass.operations += 1;
        writer.bypasses.insert(target.0.clone(), bypass);
        writer.wake.ask(Work::Later);
        drop(writer);
        self.shared.woken.notify_one();
        Some(Receipt::open())
    }

    /// Adds to what the END record of an open bypass will say; does nothing when none is open.
    pub fn passed_open(&self, target: &TargetName, bytes: u64, operations: u64, connections: u64) {
        if let Some(bypass) = self.shared.lock().bypasses.get_mut(&target.0) {
            bypass.bytes += bytes;
            bypass.operations += operations;
            bypass.connections += connections;
        }
    }

    /// Records that the kernel let connections pass while no agent ran.
    pub fn bypass_report(
        &self,
        target: &TargetName,
        reason: &str,
        connections: u64,
    ) -> Result<(), JournalError> {
        let bypass = Bypass { reason: reason.to_owned(), connections, ..Bypass::default() };
        let body = message(Phase::Report, &target.0, &bypass);
        self.shared.append_message(About::AGENT, &body, false).map(|_| ())
    }
}

impl<F: Files> Shared<F> {
    /// Why nothing can be recorded now; `None` when it can.
    fn cannot_record(&self, writer: &Writer) -> Option<String> {
        let progress = self.progress.borrow();
        if progress.closed {
            return None;
        }
        if let Some(failed) = &progress.failed {
            return Some(failed.to_string());
        }
        drop(progress);
        if self.spool.is_poisoned() {
            return Some("the spool's disk failed".to_owned());
        }
        if writer.refused || self.spool.fill().level >= Level::NoNewStatements95 {
            return Some("the audit spool is full".to_owned());
        }
        None
    }

    /// Ends the open bypasses, if records are taken again.
    pub(crate) fn end_bypasses(&self) {
        let mut writer = self.lock();
        if writer.bypasses.is_empty() {
            return;
        }
        // Nothing else might ask the spool again: what it refused last may fit by now.
        writer.refused = false;
        if self.cannot_record(&writer).is_some() {
            return;
        }
        while let Some((target, mut bypass)) = writer.bypasses.pop_first() {
            if !bypass.start_recorded {
                bypass.reason.push_str(" (its start could not be recorded)");
            }
            let body = message(Phase::End, &target, &bypass);
            if self.append_bypass(&mut writer, &body).is_err() {
                writer.bypasses.insert(target, bypass);
                return;
            }
            writer.wake.ask(Work::Later);
        }
    }

    fn append_bypass(&self, writer: &mut Writer, body: &Body) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        write::body(&mut bytes, body, false);
        self.append_body(writer, About::AGENT, &bytes).map(|_| ())
    }
}

fn message(phase: Phase, target: &str, bypass: &Bypass) -> Body {
    let text = |text: &str| {
        let (text, _) = tidegate_event::limits::cut(text, tidegate_event::limits::NAME_BYTES_MAX);
        text.to_owned()
    };
    Body::Bypass(v1::Bypass {
        phase: phase.into(),
        target: text(target),
        reason: text(&bypass.reason),
        connections: bypass.connections,
        bytes: bypass.bytes,
        operations: bypass.operations,
    })
}
