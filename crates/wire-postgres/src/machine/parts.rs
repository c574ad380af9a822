//! Messages that are rewritten as their parts come: COPY data, and rows too long to be held.
//!
//! Promises: constant memory for messages of any size. A CopyData message becomes one, or several where it
//! is long, or none where it holds no whole value.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use tidegate_mask::{CopyFormat, CopyStyle, Format, Plan};
use tidegate_wire::Fault;

use super::guard::detectors_of;
use super::server::{Disposition, Reading};
use super::{Machine, Step};
use crate::copy_out::{BadCopy, Copier};
use crate::duty::{Duty, Stage};
use crate::frame::{HEADER_BYTES, Header, message};
use crate::message::{Malformed, row};
use crate::replies::Copy;
use crate::rows::{LongRow, Refused};

/// Rewritten COPY data that waits for its message's end, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

impl<R: Clone> Machine<R> {
    /// CopyOutResponse.
    pub(super) fn copy_out(
        &mut self,
        duty: &Arc<Duty>,
        body: &[u8],
    ) -> Result<Option<Disposition>, Fault> {
        let bad = |Malformed| Fault::server("an 'H' does not read");
        let (format, columns) = row::copy_out(body).map_err(bad)?;
        let Some(order) = duty.order() else {
            self.use_plan(duty, Plan::default());
            return Ok(None);
        };
        let statement = self.session.replies.progress.delivery.statement;
        let plan = match order.plan_copy(statement, columns, format) {
            Ok(plan) => plan,
            Err(withheld) => return Ok(self.withhold(duty, &withheld.why)),
        };
        let passes = plan.is_pass();
        self.use_plan(duty, plan.clone());
        if passes {
            return Ok(None);
        }
        let Some(written) = copy_format(duty, statement, format) else {
            return Ok(self.withhold(duty, "how it writes its rows can't be told"));
        };
        let copier = Copier::new(written, plan, detectors_of(duty));
        self.session.replies.progress.delivery.stage = Stage::Copy(Box::new(copier));
        self.copy_starts(Copy::Out);
        Ok(Some(Disposition::Pass))
    }

    /// CopyData of a result under duties.
    pub(super) fn copy_data(
        &mut self,
        duty: &Duty,
        header: Header,
        held: &[u8],
    ) -> Option<Disposition> {
        if !matches!(self.session.replies.progress.delivery.stage, Stage::Copy(_)) {
            return self
                .within_budget(duty, u64::try_from(header.body_bytes()).unwrap_or(u64::MAX));
        }
        let left = header.body_bytes();
        let reading = if left == 0 { Reading::Message } else { Reading::Copy { left } };
        let shown = if duty.duties.shadow { held.get(..HEADER_BYTES) } else { None };
        Some(Disposition::ReadOn(reading, Bytes::copy_from_slice(shown.unwrap_or_default())))
    }

    /// A row that is longer than may be held: `part` is its beginning.
    pub(super) fn long_row(
        &mut self,
        duty: &Duty,
        plan: &Arc<Plan>,
        header: Header,
        part: &[u8],
    ) -> Result<Option<Disposition>, Fault> {
        if duty.duties.shadow {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(part.len());
        let begun = LongRow::begin(part, header.total, plan, detectors_of(duty), &mut out);
        let row = match begun {
            Ok(row) => row,
            Err(Refused::Bad) => return Err(Fault::server("a 'D' does not have its columns")),
            Err(Refused::CannotFill) => {
                let why = format!("a row of {} bytes is too long to be masked", header.total);
                return Ok(self.withhold(duty, &why));
            }
        };
        let went = out.get(1..HEADER_BYTES).and_then(|length| length.first_chunk::<4>());
        let went =
            went.map_or(0, |length| u64::from(u32::from_be_bytes(*length)).saturating_sub(4));
        if let Some(cut) = self.within_budget(duty, went) {
            return Ok(Some(cut));
        }
        self.session.replies.progress.row(went);
        self.session.guard.row = Some(Box::new(row));
        // The driver's buffer still holds the part: it is read again, and must not be taken twice.
        let left = header.total.saturating_sub(part.len());
        self.session.guard.taken = part.len().saturating_sub(HEADER_BYTES);
        let reading = Reading::Row { left: left + self.session.guard.taken };
        Ok(Some(Disposition::ReadOn(reading, out.into())))
    }

    /// The next part of a message that is rewritten as it comes.
    pub(super) fn guarded_part(
        &mut self,
        bytes: &mut BytesMut,
        scan: &mut usize,
        left: usize,
    ) -> Result<Step, Fault> {
        self.tell_client(bytes.split_to(*scan).freeze());
        *scan = 0;
        let now = left.min(bytes.len());
        let part = bytes.split_to(now);
        if matches!(self.reading, Reading::Row { .. }) {
            return self.row_part(&part, left - now);
        }
        let Some(duty) = self.front_duty().cloned() else {
            return Err(Fault::caller("COPY data without a duty"));
        };
        self.copy_part(&duty, part, left - now);
        Ok(if left > now { Step::Stop } else { Step::More })
    }

    fn row_part(&mut self, mut part: &[u8], left: usize) -> Result<Step, Fault> {
        let taken = self.session.guard.taken.min(part.len());
        self.session.guard.taken -= taken;
        part.advance(taken);
        let bad = || Fault::server("a 'D' does not have its columns");
        let row = self.session.guard.row.as_mut().ok_or_else(bad)?;
        let mut out = Vec::with_capacity(part.len());
        row.feed(part, &mut out).map_err(|_| bad())?;
        if left == 0 {
            let whole = row.is_whole();
            self.session.replies.progress.delivery.tally.add(row.counts);
            self.session.guard.row = None;
            if !whole {
                return Err(bad());
            }
        }
        self.record(&out);
        self.tell_client(out.into());
        Ok(self.read_on(left, |left| Reading::Row { left }))
    }

    fn copy_part(&mut self, duty: &Duty, part: BytesMut, left: usize) {
        let Stage::Copy(copier) = &mut self.session.replies.progress.delivery.stage else {
            self.reading = drop_rest(left);
            return;
        };
        if let Err(BadCopy) = copier.feed(&part) {
            if let Some(Disposition::Replace(error)) =
                self.withhold(duty, "its data does not read as its format has it")
            {
                self.tell_client(error);
                self.reading = drop_rest(left);
            } else {
                self.record(&part);
                self.tell_client(part.freeze());
                self.read_on(left, |left| Reading::Pass { left, recorded: true });
            }
            return;
        }
        if duty.duties.shadow {
            self.record(&part);
            self.tell_client(part.freeze());
        }
        self.read_on(left, |left| Reading::Copy { left });
        let Stage::Copy(copier) = &mut self.session.replies.progress.delivery.stage else { return };
        if left > 0 && copier.waiting() < CHUNK_BYTES {
            return;
        }
        let (out, rows, counts) = copier.take();
        let bytes = u64::try_from(out.len()).unwrap_or(u64::MAX);
        if let Some(Disposition::Replace(error)) = self.within_budget_of(duty, rows, bytes) {
            self.tell_client(error);
            self.reading = drop_rest(left);
            return;
        }
        let progress = &mut self.session.replies.progress;
        progress.copied(bytes);
        progress.delivery.tally.add(counts);
        if !out.is_empty() && !duty.duties.shadow {
            let data = message(b'd', &[&out]);
            self.record(&data);
            self.tell_client(data);
        }
    }
}

const fn drop_rest(left: usize) -> Reading {
    if left == 0 { Reading::Message } else { Reading::Drop { left } }
}

/// How the COPY writes its rows, where that is told.
fn copy_format(duty: &Duty, statement: usize, format: Format) -> Option<CopyFormat> {
    if format == Format::Binary {
        let style = CopyStyle::Binary;
        return Some(CopyFormat { style, delimiter: 0, null: Vec::new(), header: false });
    }
    // In other encodings a delimiter may be part of a character.
    let text = duty.text.as_ref().filter(|_| duty.utf8)?;
    CopyFormat::of(text, statement, duty.standard_conforming_strings)
        .filter(|format| format.style != CopyStyle::Binary)
}
