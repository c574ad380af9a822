//! Results under duties: masked, withheld, cut.
//!
//! Promises: nothing of a result goes to the client before its columns have a plan. What can't be masked
//! is withheld: the client gets an error in place of the result, what the server still says of it goes
//! nowhere, in constant memory, and the session is in step again at the ReadyForQuery that a real error
//! would have led to. Budgets cut a result in the same way.
//!
//! Known gaps: the server did run a statement that was stopped, and the error says so; in a pipeline it
//! also runs what the client had already sent behind it, and commits it at the Sync. What a function
//! raises is withheld from errors only by its code P0001 and its PL context.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use tidegate_event::Stopped;
use tidegate_mask::{Counts, Detectors, Order, Plan, Protection};
use tidegate_wire::Fault;

use super::server::{Disposition, Reading};
use super::{Machine, Phase, Pipeline};
use crate::config::{CANCEL_AFTER_BYTES, ROW_BYTES_MAX};
use crate::duty::{Duty, Stage};
use crate::frame::{HEADER_BYTES, Header, message};
use crate::message::error::{Severity, response};
use crate::message::status::Transaction;
use crate::message::{Malformed, error, row};
use crate::replies::{Copy, Expect};
use crate::rows::{self, LongRow};
use crate::{Action, Authority};

/// SQLSTATE insufficient_privilege.
const WITHHELD: &str = "42501";
/// SQLSTATE configuration_limit_exceeded.
const OVER_BUDGET: &str = "53400";
/// What the client should know beside it.
const DID_RUN: &str = "The server did run the statement; only its result is kept back.";

/// CancelRequest (manual, "Message Formats").
const CANCEL_REQUEST: u32 = 80_877_102;

/// Whether what the server says goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Muted {
    #[default]
    No,
    /// Not before the ReadyForQuery of the Query or FunctionCall at the front.
    Query,
    /// Not before that of the next Sync.
    Pipeline,
}

/// What a session guards.
#[derive(Default)]
pub(super) struct Guard {
    /// What the last order protects.
    protection: Option<Arc<Protection>>,
    /// Whether that is only counted.
    shadow: bool,
    /// Whether what runs, or may still fail at the transaction's end, has to do with it.
    concerned: bool,
    muted: Muted,
    /// Bytes of the stopped result that went nowhere.
    dropped: u64,
    /// A CancelRequest for this session.
    cancel: Option<Bytes>,
    /// The driver has one under way.
    pub is_cancelling: bool,
    /// A row that is rewritten as it comes.
    pub row: Option<Box<LongRow>>,
    /// Bytes of it that were taken, and are still to be read over.
    pub taken: usize,
}

impl Guard {
    /// The CancelRequest for this session.
    pub fn cancel_request(&self) -> Option<Bytes> {
        self.cancel.clone()
    }

    /// Notes what an order protects. In shadow mode nothing is kept back.
    pub fn ordered(&mut self, order: &Order, shadow: bool) {
        self.concerned |= !shadow && order.concerns();
        self.shadow = shadow;
        self.protection = Some(Arc::clone(&order.protection));
    }

    pub fn is_muted(&self) -> bool {
        self.muted != Muted::No
    }

    fn detectors(&self) -> Detectors {
        let protection = self.protection.as_ref().filter(|_| !self.shadow);
        protection.map_or_else(Detectors::default, |one| one.detectors())
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl<R: Clone> Machine<R> {
    /// Notes how to cancel what this session runs: BackendKeyData.
    pub(super) fn backend_key(&mut self, body: &[u8]) {
        let Ok(length) = u32::try_from(body.len() + 8) else { return };
        let parts = [&length.to_be_bytes()[..], &CANCEL_REQUEST.to_be_bytes(), body];
        self.session.guard.cancel = Some(parts.concat().into());
    }

    /// How much of a message must be there beyond what its kind needs.
    pub(super) fn guard_wants(&self, header: Header) -> usize {
        let guard = &self.session.guard;
        // Bounds alone bring no protection, and their results are described, too.
        let bare = guard.protection.is_none() && self.front_duty().is_none();
        if bare || guard.is_muted() {
            return 0;
        }
        let max = match header.kind {
            b'T' | b'H' => crate::config::SERVER_LOOK_BYTES_MAX,
            b'A' | b'N' => crate::config::NOTICE_BYTES_MAX,
            b'D' if self.has_plan() => ROW_BYTES_MAX,
            _ => return 0,
        };
        header.total.min(max)
    }

    fn has_plan(&self) -> bool {
        // Before the first row of an Execute, its plan is still to be made.
        !matches!(self.session.replies.progress.delivery.stage, Stage::Pass)
            && self.front_duty().is_some_and(|duty| duty.order().is_some())
    }

    pub(super) fn front_duty(&self) -> Option<&Arc<Duty>> {
        self.session.replies.front().and_then(Expect::op).and_then(|op| op.duty.as_ref())
    }

    /// Whole rows in a run, where nothing has to be asked of each.
    pub(super) fn run_rows(&mut self, bytes: &mut BytesMut, scan: &mut usize) {
        let between = self.reading == Reading::Message && matches!(self.phase, Phase::Session);
        let replies = &self.session.replies;
        let rows = matches!(replies.front(), Some(Expect::Query(_) | Expect::Execute(_)));
        if !between || !rows || self.session.guard.is_muted() {
            return;
        }
        let Some(duty) = self.front_duty() else {
            self.pass_rows(bytes, scan);
            return;
        };
        let limited = duty.duties.rows_max.is_some() || duty.duties.bytes_max.is_some();
        match &replies.progress.delivery.stage {
            Stage::Pass if !limited => self.pass_rows(bytes, scan),
            Stage::Rows(plan) => {
                let (duty, plan) = (Arc::clone(duty), Arc::clone(plan));
                self.mask_rows(&duty, &plan, bytes, scan);
            }
            Stage::Pass | Stage::Unknown | Stage::Copy(_) => {}
        }
    }

    /// Masks whole rows until one is over the budget, or does not read: that is for the next step to say.
    fn mask_rows(&mut self, duty: &Duty, plan: &Plan, bytes: &mut BytesMut, scan: &mut usize) {
        let detectors = detectors_of(duty);
        let mut out = Vec::new();
        let mut end = *scan;
        let progress = &mut self.session.replies.progress;
        let mut counts = Counts::default();
        loop {
            let rest = bytes.get(end..).unwrap_or_default();
            let Some(([b'D', length @ ..], _)) = rest.split_first_chunk::<HEADER_BYTES>() else {
                break;
            };
            let counted = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            let Some(whole) = rest.get(..counted.saturating_add(1)) else { break };
            if whole.len() > ROW_BYTES_MAX {
                break;
            }
            if out.capacity() == 0 {
                // Masks are seldom longer than what they stand for.
                out.reserve(rest.len() + rest.len() / 8);
            }
            let (start, before) = (out.len(), counts);
            if rows::rewrite(whole, plan, detectors, &mut out, &mut counts).is_err() {
                break;
            }
            let shown = if duty.duties.shadow { whole.len() } else { out.len() - start };
            let went = as_u64(shown.saturating_sub(HEADER_BYTES));
            if !duty.duties.shadow && progress.delivery.tally.is_over(&duty.duties, 1, went) {
                out.truncate(start);
                counts = before;
                break;
            }
            if duty.duties.shadow {
                out.clear();
            }
            progress.row(went);
            progress.delivery.tally.went(1, went);
            end += whole.len();
        }
        progress.delivery.tally.add(counts);
        if end == *scan {
            return;
        }
        self.client.waiting = false;
        if duty.duties.shadow {
            self.record(bytes.get(*scan..end).unwrap_or_default());
            *scan = end;
            return;
        }
        self.record(&out);
        let masked = end - *scan;
        self.tell_client(bytes.split_to(*scan).freeze());
        bytes.advance(masked.min(bytes.len()));
        *scan = 0;
        self.tell_client(out.into());
    }

    /// What becomes of a reply. `held` is the whole message, or as much of it as was wanted.
    pub(super) fn guarded_reply(
        &mut self,
        now_ns: u64,
        header: Header,
        held: &[u8],
    ) -> Result<Disposition, Fault> {
        let body = held.get(HEADER_BYTES..).unwrap_or_default();
        if self.session.guard.is_muted() {
            return self.muted_reply(now_ns, header, body);
        }
        if self.session.guard.protection.is_none() && self.front_duty().is_none() {
            if header.kind == b'T' && body.len() >= header.body_bytes() {
                self.shape(body);
            }
            return self.session_reply(now_ns, header, body);
        }
        let duty = self.front_duty().cloned();
        let guarded = match (header.kind, &duty) {
            (b'A', _) => self.notification(header, body),
            (b'N', _) => self.notice(duty.as_deref(), header, body),
            (b'E', _) if self.is_concerned(duty.as_deref()) => {
                Some(self.concerned_error(now_ns, body))
            }
            (b'T', _) => self.description(now_ns, header, body)?,
            (b'n', _) => self.described(None),
            (b'D', Some(duty)) => self.row(duty, header, held)?,
            (b'H', Some(duty)) => self.copy_out(duty, body)?,
            (b'd', Some(duty)) => self.copy_data(duty, header, held),
            (b'V', Some(duty)) => match duty.plan(0, false, &[tidegate_mask::Field::default()]) {
                Err(withheld) => self.withhold(duty, &withheld.why),
                Ok(_) => None,
            },
            (b'W', Some(duty)) if duty.order().is_some() && !duty.duties.shadow => {
                return Err(Fault::unsupported("a replication stream under masks"));
            }
            _ => None,
        };
        if let Some(disposition) = guarded {
            return Ok(disposition);
        }
        let ends = matches!(header.kind, b'C' | b'I')
            && matches!(self.session.replies.front(), Some(Expect::Query(_)));
        let ours = matches!(self.session.replies.front(), Some(Expect::OurDescribe(_)));
        let disposition = self.session_reply(now_ns, header, body)?;
        if ends {
            self.session.replies.progress.delivery.next_statement();
        }
        let quiet =
            self.session.transaction == Transaction::Idle && self.session.replies.is_empty();
        if header.kind == b'Z' && quiet {
            self.session.guard.concerned = false;
        }
        let ours = ours && matches!(header.kind, b'T' | b'n');
        Ok(if ours { Disposition::Replace(Bytes::new()) } else { disposition })
    }

    /// RowDescription: of a Query's result, or of what was asked to be described.
    fn description(
        &mut self,
        _now_ns: u64,
        header: Header,
        body: &[u8],
    ) -> Result<Option<Disposition>, Fault> {
        if body.len() < header.body_bytes() {
            return Err(Fault::server(format!("a 'T' claims {} bytes", header.total)));
        }
        let bad = |Malformed| Fault::server("a 'T' does not read");
        let fields = row::description(body).map_err(bad)?;
        let Some(duty) = self.front_duty().cloned() else {
            self.session.replies.describe(&fields);
            return Ok(self.described(Some(fields)));
        };
        self.session.replies.describe(&fields);
        let delivery = &mut self.session.replies.progress.delivery;
        let again = std::mem::replace(&mut delivery.described, true);
        Ok(match duty.plan(delivery.statement, again, &fields) {
            Ok(plan) => {
                self.use_plan(&duty, plan);
                None
            }
            Err(withheld) => self.withhold(&duty, &withheld.why),
        })
    }

    /// The columns of a result under no duty: only for its record.
    fn shape(&mut self, body: &[u8]) {
        let Ok(fields) = row::description(body) else { return };
        self.session.replies.describe(&fields);
        self.described(Some(fields));
    }

    /// Keeps the columns that a Describe was answered with.
    fn described(&mut self, fields: Option<Vec<tidegate_mask::Field>>) -> Option<Disposition> {
        let columns = match self.session.replies.front() {
            Some(Expect::OurDescribe(columns)) => Some(columns),
            Some(Expect::DescribePortal(Some(portal))) => Some(&portal.columns),
            Some(Expect::DescribeStatement(Some(prepared))) => Some(&prepared.columns),
            _ => None,
        };
        if let (Some(columns), Some(fields)) = (columns, fields) {
            // A second description of one portal says the same.
            let _ = columns.set(fields);
        }
        None
    }

    pub(super) fn use_plan(&mut self, duty: &Duty, plan: Plan) {
        let delivery = &mut self.session.replies.progress.delivery;
        delivery.tally.masked.columns = delivery.tally.masked.columns.saturating_add(plan.masked);
        delivery.tally.masked.shadow = duty.duties.shadow;
        delivery.stage = if plan.is_pass() { Stage::Pass } else { Stage::Rows(Arc::new(plan)) };
    }

    /// A row that is looked at by itself: the first of a result, one over the budget, one in parts.
    fn row(
        &mut self,
        duty: &Arc<Duty>,
        header: Header,
        held: &[u8],
    ) -> Result<Option<Disposition>, Fault> {
        let delivery = &self.session.replies.progress.delivery;
        if matches!(delivery.stage, Stage::Unknown) {
            let planned = match duty.fields() {
                Some(fields) => duty.plan(delivery.statement, false, &fields),
                None if duty.order().is_none() => Ok(Plan::default()),
                None => {
                    let why = "its columns were not described".to_owned();
                    Err(tidegate_mask::Withheld { why })
                }
            };
            match planned {
                Ok(plan) => self.use_plan(duty, plan),
                Err(withheld) => {
                    return Ok(self.withhold(duty, &withheld.why));
                }
            }
        }
        let Stage::Rows(plan) = &self.session.replies.progress.delivery.stage else {
            return Ok(self.within_budget(duty, as_u64(header.body_bytes())));
        };
        if held.len() < header.total {
            let plan = Arc::clone(plan);
            return self.long_row(duty, &plan, header, held);
        }
        let (mut out, mut counts) = (Vec::with_capacity(held.len()), Counts::default());
        rows::rewrite(held, plan, detectors_of(duty), &mut out, &mut counts)
            .map_err(|rows::BadRow| Fault::server("a 'D' does not have its columns"))?;
        let shadow = duty.duties.shadow;
        let shown = if shadow { held.len() } else { out.len() };
        let went = as_u64(shown.saturating_sub(HEADER_BYTES));
        if let Some(cut) = self.within_budget(duty, went) {
            return Ok(Some(cut));
        }
        let progress = &mut self.session.replies.progress;
        progress.delivery.tally.add(counts);
        if shadow {
            return Ok(None);
        }
        progress.row(went);
        Ok(Some(Disposition::Replace(out.into())))
    }

    /// Counts one more row, or cuts the result where that is too much.
    pub(super) fn within_budget(&mut self, duty: &Duty, bytes: u64) -> Option<Disposition> {
        self.within_budget_of(duty, 1, bytes)
    }

    /// Counts more rows, or cuts the result where that is too much.
    pub(super) fn within_budget_of(
        &mut self,
        duty: &Duty,
        rows: u64,
        bytes: u64,
    ) -> Option<Disposition> {
        let delivery = &mut self.session.replies.progress.delivery;
        if !delivery.tally.is_over(&duty.duties, rows, bytes) {
            delivery.tally.went(rows, bytes);
            return None;
        }
        if duty.duties.shadow {
            delivery.tally.masked.shadow = true;
            delivery.tally.masked.stopped = Some(Stopped::Cut);
            delivery.tally.went(rows, bytes);
            return None;
        }
        let bounds = duty.duties.bounds();
        let message = format!("tidegate: the result is cut at its budget: {bounds}");
        Some(self.stop(Stopped::Cut, OVER_BUDGET, &message))
    }

    /// Withholds the result at the front; in shadow mode only says that it would.
    pub(super) fn withhold(&mut self, duty: &Duty, why: &str) -> Option<Disposition> {
        if duty.duties.shadow {
            let delivery = &mut self.session.replies.progress.delivery;
            delivery.tally.masked.shadow = true;
            delivery.tally.masked.stopped = Some(Stopped::Withheld);
            delivery.stage = Stage::Pass;
            return None;
        }
        let message = format!("tidegate: the result is withheld: {why}");
        Some(self.stop(Stopped::Withheld, WITHHELD, &message))
    }

    /// Stops the result at the front: the client gets an error, and nothing more of it.
    fn stop(&mut self, stopped: Stopped, sqlstate: &'static str, message: &str) -> Disposition {
        let progress = &mut self.session.replies.progress;
        progress.failure = Some((sqlstate.to_owned(), message.to_owned()));
        progress.delivery.tally.masked.stopped = Some(stopped);
        self.session.guard.dropped = 0;
        let query =
            matches!(self.session.replies.front(), Some(Expect::Query(_) | Expect::Call(_)));
        self.session.guard.muted = if query { Muted::Query } else { Muted::Pipeline };
        if !query && !self.session.replies.has_sync() {
            // As after a real error, what the client sends up to its Sync goes nowhere.
            let asking = self.asking.as_mut().map_or(0, super::Asking::take_held_entries);
            let held = asking + self.take_held_entries();
            let first = self.session.replies.retract(held);
            self.retract_names(first);
            self.session.pipeline = Pipeline::Discarding;
        }
        Disposition::Replace(response(Severity::Error, sqlstate, message, Some(DID_RUN)))
    }

    /// A reply while nothing goes to the client but what comes at any time.
    fn muted_reply(
        &mut self,
        now_ns: u64,
        header: Header,
        body: &[u8],
    ) -> Result<Disposition, Fault> {
        let front = self.session.replies.front();
        let ends = header.kind == b'Z'
            && match self.session.guard.muted {
                Muted::Query => matches!(front, Some(Expect::Query(_) | Expect::Call(_))),
                Muted::Pipeline => matches!(front, Some(Expect::Sync)),
                Muted::No => true,
            };
        let dropped = Disposition::Replace(Bytes::new());
        match header.kind {
            b'D' | b'd' => {
                self.dropped(header);
                return Ok(dropped);
            }
            b'N' => return Ok(dropped),
            b'A' => return Ok(self.notification(header, body).unwrap_or(Disposition::Pass)),
            b'S' => return self.session_reply(now_ns, header, body),
            b'W' => return Err(Fault::unsupported("a replication stream behind a stopped result")),
            _ => {}
        }
        let disposition = self.session_reply(now_ns, header, body)?;
        if header.kind == b'G' {
            self.refuse_copy_in();
        }
        if ends {
            self.session.guard.muted = Muted::No;
            return Ok(disposition);
        }
        let fatal = header.kind == b'E' && error::read(body).ends_session;
        Ok(if fatal || disposition == Disposition::Swallow { disposition } else { dropped })
    }

    /// The client, which has got an error, will send no data.
    fn refuse_copy_in(&mut self) {
        self.session.replies.copy = Copy::In;
        let Some(op) = self.session.replies.copy_op() else { return };
        let authority = Authority::Receipt(op.receipt.clone());
        self.session.replies.push(Expect::CopyEnd);
        self.tell_server(authority, message(b'f', &[b"stopped by tidegate\0"]));
    }

    /// Counts what goes nowhere, and asks the server to stop where it is much.
    fn dropped(&mut self, header: Header) {
        let guard = &mut self.session.guard;
        let before = guard.dropped;
        guard.dropped = before.saturating_add(as_u64(header.total));
        let much = before <= CANCEL_AFTER_BYTES && guard.dropped > CANCEL_AFTER_BYTES;
        // A cancel that comes late would hit what runs behind it.
        if much
            && !self.session.replies.has_ops_behind()
            && let Some(cancel) = self.session.guard.cancel.clone()
        {
            self.session.guard.is_cancelling = true;
            self.out.push_back(Action::Cancel(cancel));
        }
    }

    fn is_concerned(&self, duty: Option<&Duty>) -> bool {
        let shadow = duty.is_some_and(|duty| duty.duties.shadow);
        !shadow && (self.session.guard.concerned || duty.is_some_and(|duty| duty.concerns))
    }

    /// An ErrorResponse that may tell of protected values.
    fn concerned_error(&mut self, now_ns: u64, body: &[u8]) -> Disposition {
        let masked = error::masked(b'E', body, self.session.guard.detectors());
        match self.error_response(now_ns, masked.get(HEADER_BYTES..).unwrap_or_default()) {
            Disposition::Pass => Disposition::Replace(masked),
            other => other,
        }
    }

    fn notice(&mut self, duty: Option<&Duty>, header: Header, body: &[u8]) -> Option<Disposition> {
        if !self.is_concerned(duty) {
            return None;
        }
        if body.len() < header.body_bytes() {
            return Some(Disposition::Replace(Bytes::new()));
        }
        let masked = error::masked(b'N', body, self.session.guard.detectors());
        Some(Disposition::Replace(masked))
    }

    /// NotificationResponse: its payload is anybody's text.
    fn notification(&mut self, header: Header, body: &[u8]) -> Option<Disposition> {
        let detectors = self.session.guard.detectors();
        if !detectors.any() {
            return None;
        }
        if body.len() < header.body_bytes() {
            return Some(Disposition::Replace(Bytes::new()));
        }
        let mut covered = body.to_vec();
        let texts = covered.get_mut(4..)?;
        let found = texts
            .split_mut(|&byte| byte == 0)
            .fold(false, |found, text| detectors.cover(text, tidegate_mask::Cover::Stars) | found);
        found.then(|| Disposition::Replace(message(b'A', &[&covered])))
    }
}

pub(super) fn detectors_of(duty: &Duty) -> Detectors {
    let protection = duty.duties.order.as_ref().map(|order| &order.protection);
    protection.map_or_else(Detectors::default, |protection| protection.detectors())
}
