//! Results under duties: masked, withheld, cut; and their record.
//!
//! Promises: nothing of a result goes to the client before its columns have a plan. What can't be masked
//! is withheld: the client gets an ERR packet in place of the result, what the server still says of the
//! command goes nowhere, in constant memory, and the session lives on. Budgets cut a result in the same way.
//! Where a statement has to do with protected columns, the server's words in an error and the number of its
//! warnings are not told.
//!
//! Limits: a row of 16 MiB or more can't be masked, and one that a mask makes longer than that neither. The
//! head of a result that is held back: [`HEAD_BYTES_MAX`].
//!
//! Known gaps: the server did run a statement that was stopped, and the error says so; it also runs the
//! statements behind it in one text, and sends the rest of the result, which is dropped here. A row of 16
//! MiB or more may exceed a budget of bytes by what is beyond its first 16 MiB.

use bytes::{Buf as _, BytesMut};
use tidegate_event::{Column, Status, Stopped};
use tidegate_mask::{Counts, Detectors, Treatment};
use tidegate_recording::{Chunk, Recorder};
use tidegate_wire::Fault;

use super::answer::Then;
use super::server::{Awaiting, Running, Scan, malformed};
use super::{Machine, Step};
use crate::Action;
use crate::capability::CACHE_METADATA;
use crate::config::{HEAD_BYTES_MAX, ROWS_OUT_BYTES};
use crate::delivery::{Delivery, Stage};
use crate::frame::{FULL_BYTES, HEADER_BYTES, Header, header, packet};
use crate::message::column::{COMPUTED, Definition, without_text};
use crate::message::{error, ok};
use crate::rows::{self, BadRow, Shape};

/// SQLSTATE insufficient_privilege, as the gate has it.
const WITHHELD: &str = "42501";
/// SQLSTATE configuration_limit_exceeded, as the gate has it.
const OVER_BUDGET: &str = "53400";
/// What the client should know beside it.
const DID_RUN: &str = "The server did run the statement; only its result is kept back.";
/// What stands in place of an error's text.
const MESSAGE: &str = "(left out by tidegate: it may tell of protected values)";

impl<R: Clone> Machine<R> {
    /// Records what of the bytes understood is a result's.
    pub(super) fn record(&mut self, bytes: &[u8], scan: &mut Scan) {
        let Some(from) = scan.result_from.take() else { return };
        let muted = self.session.running.as_ref().is_none_or(Running::is_muted);
        if !muted && let Some(bytes) = bytes.get(from..scan.at) {
            self.record_bytes(bytes);
        }
    }

    fn record_bytes(&mut self, bytes: &[u8]) {
        let Some(op) = self.session.running.as_ref().and_then(|running| running.op.as_ref()) else {
            return;
        };
        let how = op.duties.as_ref().map(|duties| duties.how()).unwrap_or_default();
        let recorder = &mut self.session.progress.recorder;
        let recorder = recorder.get_or_insert_with(|| Box::new(Recorder::new(how)));
        recorder.take(bytes, |Chunk { offset, data }| {
            self.out.push_back(Action::Rows { id: op.id, offset, data });
        });
    }

    /// Records packets of a result's head.
    fn record_head(&mut self, head: &[u8]) {
        let hides = |running: &Running<R>| running.delivery.hides_text();
        if !self.session.running.as_ref().is_some_and(hides) {
            return self.record_bytes(head);
        }
        let mut rest = head;
        while let Some(one) = header(rest) {
            let Some((whole, behind)) = rest.split_at_checked(one.total()) else { break };
            match without_text(whole.get(HEADER_BYTES..).unwrap_or_default()) {
                Some(payload) => self.record_bytes(&packet(one.seq, &payload)),
                None => self.record_bytes(whole),
            }
            rest = behind;
        }
    }

    pub(super) fn describe(&mut self) {
        let Some(running) = &self.session.running else { return };
        let Some(op) = running.op.as_ref().filter(|_| !running.is_muted()) else { return };
        let how = op.duties.as_ref().map(|duties| duties.how()).unwrap_or_default();
        let recorder = &mut self.session.progress.recorder;
        let recorder = recorder.get_or_insert_with(|| Box::new(Recorder::new(how)));
        let binary = running.is_binary();
        let hides = running.delivery.hides_text();
        let name = |one: &Definition| {
            if hides && one.field.origin.is_none() { COMPUTED } else { &one.name }.to_vec()
        };
        let column = |one: &Definition| Column {
            name: String::from_utf8_lossy(&name(one)).into_owned(),
            type_oid: one.recorded,
            binary,
        };
        recorder.described(|| running.delivery.columns.iter().map(column).collect());
    }

    /// Notes a column of the result that comes.
    pub(super) fn column(&self, delivery: &mut Delivery, payload: &[u8]) -> Result<(), Fault> {
        let needed = delivery.order().is_some() || delivery.hides_text();
        let read = Definition::read(payload, self.session.capabilities, needed);
        let read = read.map_err(malformed("column definition"));
        // Where nothing hangs on it, it only goes unnamed.
        delivery.columns.push(if needed { read? } else { read.unwrap_or_default() });
        Ok(())
    }

    /// Notes a column of a prepared statement, where the server may leave it out of results. `left` packets
    /// are still to come, with this one.
    pub(super) fn definition(&mut self, running: &Running<R>, payload: &[u8], left: u64) {
        let caches = self.session.capabilities & CACHE_METADATA != 0;
        let Then::Text(Awaiting::Prepared, _) = &running.then else { return };
        let Some(id) = self.session.last_prepared.filter(|_| caches) else { return };
        let capabilities = self.session.capabilities;
        let ends = self.ends_definitions();
        let Some(prepared) = self.session.statements.get(id) else { return };
        let total = u64::try_from(prepared.columns_total).unwrap_or(u64::MAX);
        if left > total.saturating_add(ends) || left <= ends {
            return;
        }
        if let Ok(read) = Definition::read(payload, capabilities, true) {
            prepared.columns.push(read);
        }
    }

    /// The server leaves the columns out: they are those of the preparation.
    pub(super) fn known_columns(&mut self, running: &mut Running<R>) {
        let Then::Execute { id, .. } = &running.then else { return };
        if let Some(prepared) = self.session.statements.get(*id) {
            running.delivery.columns.clone_from(&prepared.columns);
        }
    }

    /// Takes a packet of a result's head, and holds it back where there must be a plan first.
    pub(super) fn head(
        &mut self,
        bytes: &mut BytesMut,
        head: Header,
        scan: &mut Scan,
    ) -> Result<(), Fault> {
        let Some(running) = &self.session.running else { return Ok(()) };
        let is_end = matches!(running.awaiting, Awaiting::ColumnsEnd);
        let (holds, hides) = (running.delivery.holds_heads(), running.delivery.hides_text());
        if !holds && !hides {
            scan.take(head.total(), true);
            return Ok(());
        }
        let is_muted = running.is_muted();
        self.pass(bytes, scan);
        if !holds {
            if !is_muted {
                let packet = bytes.get(..head.total()).unwrap_or_default().to_vec();
                self.record_head(&packet);
            }
            scan.take(head.total(), false);
            return Ok(());
        }
        let mut packet = bytes.split_to(head.total());
        let Some(running) = &mut self.session.running else { return Ok(()) };
        let delivery = &mut running.delivery;
        if is_end && delivery.concerns() {
            ok::without_warnings(packet.get_mut(HEADER_BYTES..).unwrap_or_default());
        }
        delivery.head_seq.get_or_insert(head.seq);
        if delivery.head.len() + packet.len() > HEAD_BYTES_MAX {
            let what = format!("a result's columns take more than {HEAD_BYTES_MAX} bytes");
            return Err(Fault::unsupported(what));
        }
        let place = if is_end { &mut delivery.head_end } else { &mut delivery.head };
        place.extend_from_slice(&packet);
        Ok(())
    }

    /// The command goes on with this; where rows come next, their columns are known now.
    pub(super) fn goes_on(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
        awaiting: Awaiting,
        scan: &mut Scan,
    ) -> Step {
        let Some(running) = &mut self.session.running else { return Step::More };
        let before = std::mem::replace(&mut running.awaiting, awaiting);
        let known = matches!(awaiting, Awaiting::Rows | Awaiting::Cursor);
        if known && before != Awaiting::Rows {
            self.described(bytes, scan);
        }
        if awaiting == Awaiting::Cursor {
            self.pass(bytes, scan);
            self.done(now_ns, Status::Suspended);
        }
        Step::More
    }

    /// Plans for the columns that came, and lets the head go.
    fn described(&mut self, bytes: &mut BytesMut, scan: &mut Scan) {
        let Some(running) = &mut self.session.running else { return };
        let binary = running.is_binary();
        let delivery = &mut running.delivery;
        if delivery.stopped.is_some() {
            return;
        }
        match delivery.plan() {
            Ok(plan) => {
                let masked = &mut delivery.tally.masked;
                masked.columns = masked.columns.saturating_add(plan.masked);
                masked.shadow = delivery.duties.as_ref().is_some_and(|duties| duties.shadow);
                if plan.is_pass() {
                    delivery.stage = Stage::Pass;
                } else {
                    let kinds = delivery.columns.iter().map(|column| column.kind).collect();
                    delivery.stage = Stage::Rows(Shape { plan, kinds, binary }.into());
                }
                self.describe();
                self.release_head();
            }
            Err(withheld) => self.withhold(bytes, scan, &withheld.why),
        }
    }

    /// Sends the head that was held back, whose masked columns may be NULL now.
    fn release_head(&mut self) {
        let Some(running) = &mut self.session.running else { return };
        let delivery = &mut running.delivery;
        let mut head = std::mem::take(&mut delivery.head);
        let end = std::mem::take(&mut delivery.head_end);
        delivery.head_seq = None;
        if let Stage::Rows(shape) = &delivery.stage {
            // The first packet has the count.
            let mut rest = &mut head[..];
            let mut number = 0_usize;
            while let Some(one) = header(rest) {
                let Some((packet, behind)) = rest.split_at_mut_checked(one.total()) else { break };
                let at = number.checked_sub(1);
                let treatment = at.and_then(|at| shape.plan.columns.get(at));
                if let (Some(Treatment::Mask(_)), Some(column)) =
                    (treatment, at.and_then(|at| delivery.columns.get(at)))
                {
                    column.allow_null(packet.get_mut(HEADER_BYTES..).unwrap_or_default());
                }
                number += 1;
                rest = behind;
            }
        }
        self.record_head(&head);
        self.record_bytes(&end);
        self.tell_client(head.freeze());
        self.tell_client(end.freeze());
    }

    /// Takes the row at the front, or its first part.
    pub(super) fn row(
        &mut self,
        bytes: &mut BytesMut,
        head: Header,
        scan: &mut Scan,
    ) -> Result<Step, Fault> {
        let Some(running) = &self.session.running else { return Ok(Step::Stop) };
        let delivery = &running.delivery;
        if running.awaiting == Awaiting::Stream && delivery.holds_heads() {
            return Err(Fault::unsupported("a stream of changes under masks"));
        }
        if running.is_muted() || delivery.duties.is_none() {
            if !running.is_muted() {
                self.session.progress.row(head.payload);
            }
            self.begin_row(head, scan);
            return Ok(Step::More);
        }
        match &delivery.stage {
            Stage::Unknown if delivery.order().is_some() => {
                let why = "the gate did not see its cursor opened".to_owned();
                self.withhold(bytes, scan, &why);
                Ok(Step::More)
            }
            Stage::Rows(shape) => {
                let shape = std::sync::Arc::clone(shape);
                self.planned_row(bytes, head, scan, &shape)
            }
            Stage::Pass | Stage::Unknown => {
                if self.within_budget(bytes, scan, head.payload, head.seq) {
                    self.session.progress.row(head.payload);
                    self.begin_row(head, scan);
                }
                Ok(Step::More)
            }
        }
    }

    /// A row that goes by a plan; it is taken when it is there whole.
    fn planned_row(
        &mut self,
        bytes: &mut BytesMut,
        head: Header,
        scan: &mut Scan,
        shape: &Shape,
    ) -> Result<Step, Fault> {
        if head.goes_on() {
            self.withhold(bytes, scan, "a row of 16 MiB or more can't be masked");
            return Ok(Step::More);
        }
        let end = scan.at + head.total();
        if bytes.len() < end {
            return Ok(Step::Stop);
        }
        let payload = bytes.get(scan.at + HEADER_BYTES..end).unwrap_or_default();
        let Some(running) = &mut self.session.running else { return Ok(Step::Stop) };
        let delivery = &mut running.delivery;
        let (shadow, detectors) = (delivery.is_shadow(), detectors_of(delivery));
        let (mut out, mut counts) = (Vec::with_capacity(payload.len() + 64), Counts::default());
        rows::rewrite(payload, shape, detectors, &mut out, &mut counts)
            .map_err(|BadRow| Fault::server("a row does not have its columns"))?;
        if out.len() >= FULL_BYTES {
            self.withhold(bytes, scan, "masked, a row would be 16 MiB or longer");
            return Ok(Step::More);
        }
        let shown = if shadow { payload.len() } else { out.len() };
        if !self.within_budget(bytes, scan, shown, head.seq) {
            return Ok(Step::More);
        }
        self.session.progress.row(shown);
        let Some(running) = &mut self.session.running else { return Ok(Step::Stop) };
        running.delivery.tally.add(counts);
        if shadow {
            self.begin_row(head, scan);
            return Ok(Step::More);
        }
        if scan.at > 0 {
            self.pass(bytes, scan);
        }
        bytes.advance(head.total());
        self.client.next_seq = head.seq.wrapping_add(1);
        let row = packet(head.seq, &out);
        self.record_bytes(&row);
        let Some(running) = &mut self.session.running else { return Ok(Step::Stop) };
        running.delivery.out.extend_from_slice(&row);
        if running.delivery.out.len() >= ROWS_OUT_BYTES {
            let out = std::mem::take(&mut running.delivery.out);
            self.tell_client(out.into());
        }
        Ok(Step::More)
    }

    /// Counts one more row, or cuts the result where that is too much.
    fn within_budget(
        &mut self,
        bytes: &mut BytesMut,
        scan: &mut Scan,
        row_bytes: usize,
        seq: u8,
    ) -> bool {
        let Some(running) = &mut self.session.running else { return false };
        let delivery = &mut running.delivery;
        let Some(duties) = delivery.duties.clone() else { return true };
        let row_bytes = u64::try_from(row_bytes).unwrap_or(u64::MAX);
        let over = delivery.tally.is_over(&duties, 1, row_bytes);
        if over && duties.shadow {
            delivery.tally.masked.shadow = true;
            delivery.tally.masked.stopped = Some(Stopped::Cut);
        }
        if !over || duties.shadow {
            delivery.tally.went(1, row_bytes);
            return true;
        }
        self.client.next_seq = seq;
        let message = format!("tidegate: the result is cut at its budget: {}", duties.bounds());
        self.stop(bytes, scan, Stopped::Cut, OVER_BUDGET, &message);
        false
    }

    /// Withholds the result; in shadow mode only says that it would.
    fn withhold(&mut self, bytes: &mut BytesMut, scan: &mut Scan, why: &str) {
        let Some(running) = &mut self.session.running else { return };
        let delivery = &mut running.delivery;
        if delivery.is_shadow() {
            delivery.tally.masked.shadow = true;
            delivery.tally.masked.stopped = Some(Stopped::Withheld);
            delivery.stage = Stage::Pass;
            return;
        }
        // What was held back is where the client still stands.
        let at_row = header(bytes.get(scan.at..).unwrap_or_default()).map(|next| next.seq);
        self.client.next_seq = delivery.head_seq.take().or(at_row).unwrap_or(self.client.next_seq);
        let message = format!("tidegate: the result is withheld: {why}");
        self.stop(bytes, scan, Stopped::Withheld, WITHHELD, &message);
    }

    /// Stops the command's results: the client gets an error, and nothing more of them.
    fn stop(
        &mut self,
        bytes: &mut BytesMut,
        scan: &mut Scan,
        stopped: Stopped,
        sqlstate: &'static str,
        message: &str,
    ) {
        self.pass(bytes, scan);
        let seq = self.client.next_seq;
        self.tell_client(error::response(seq, sqlstate, message, Some(DID_RUN)));
        let Some(running) = &mut self.session.running else { return };
        let delivery = &mut running.delivery;
        delivery.tally.masked.stopped = Some(stopped);
        delivery.stopped = Some((sqlstate.to_owned(), message.to_owned()));
        delivery.head.clear();
        delivery.head_end.clear();
    }

    /// Takes out of a packet that ends a result, or an error, what may tell of protected values, and what the
    /// client has not agreed to be told. The packet's new header, where it has one.
    pub(super) fn tell_less(
        &mut self,
        bytes: &mut BytesMut,
        begin: usize,
        head: Header,
        scan: &mut Scan,
    ) -> Option<Header> {
        let running = self.session.running.as_ref()?;
        let concerns = running.delivery.concerns();
        if !(concerns || self.session.strips) || running.is_muted() {
            return None;
        }
        let payload = bytes.get_mut(begin..begin + head.payload)?;
        let told = match (payload.first(), running.awaiting) {
            (Some(&error::ERR), Awaiting::One) => return None,
            (Some(&error::ERR), _) => {
                let progress = error::number(payload) == Some(error::PROGRESS_REPORT);
                if progress || !concerns {
                    return None;
                }
                error::without_message(payload, MESSAGE)
            }
            (Some(&(ok::OK | ok::EOF)), Awaiting::First | Awaiting::Rows) => {
                if concerns {
                    ok::without_warnings(payload);
                }
                if !self.session.strips || payload.len() == ok::EOF_BYTES {
                    return None;
                }
                ok::without_tracking(payload)?
            }
            _ => return None,
        };
        self.pass(bytes, scan);
        let rest = bytes.split_off(head.total().min(bytes.len()));
        *bytes = BytesMut::from(&packet(head.seq, &told)[..]);
        bytes.unsplit(rest);
        header(bytes)
    }
}

fn detectors_of(delivery: &Delivery) -> Detectors {
    let order = delivery.order();
    order.map_or_else(Detectors::default, |order| order.protection.detectors())
}
