//! A DataRow too long to be held.
//!
//! Promises: constant memory. The new length of the message is known when its first part is there: what
//! is masked there has its length, and what is masked behind it keeps its own, filled with stars. Where
//! stars are no value of the type, the row can't be masked, and says so before anything of it is written.

use tidegate_mask::{Constant, Cover, Detectors, Plan, Stream, Treatment};

use super::{BadRow, Counts, NULL, mask};
use crate::frame::HEADER_BYTES;

/// Why a long row is not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It does not read, or not as its plan has it.
    Bad,
    /// A value behind the first part would have to change its length.
    CannotFill,
}

impl From<BadRow> for Refused {
    fn from(BadRow: BadRow) -> Self {
        Self::Bad
    }
}

/// What becomes of the value that comes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Pass,
    Detect(Cover),
    /// Something stands for it already.
    Skip,
    Fill,
}

/// What the next bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// A value's length, of which these bytes are there.
    Length(Vec<u8>),
    Value {
        left: usize,
        how: How,
    },
}

/// The rest of a long row.
pub(crate) struct LongRow {
    plan: std::sync::Arc<Plan>,
    stream: Stream,
    column: usize,
    next: Next,
    pub counts: Counts,
}

impl LongRow {
    /// From the first part of a row of `total` bytes, both with the header. Appends what is done of it to
    /// `out`, with the new header.
    pub fn begin(
        part: &[u8],
        total: usize,
        plan: &std::sync::Arc<Plan>,
        detectors: Detectors,
        out: &mut Vec<u8>,
    ) -> Result<Self, Refused> {
        let mut row = Self {
            plan: std::sync::Arc::clone(plan),
            stream: Stream::new(detectors),
            column: 0,
            next: Next::Length(Vec::new()),
            counts: Counts::default(),
        };
        let start = out.len();
        let done = row.first_part(part, total, out);
        if done.is_err() {
            out.truncate(start);
        }
        done.map(|()| row)
    }

    fn first_part(&mut self, part: &[u8], total: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
        let (head, mut rest) = part.split_first_chunk::<{ HEADER_BYTES + 2 }>().ok_or(BadRow)?;
        let [.., high, low] = *head;
        if usize::from(u16::from_be_bytes([high, low])) != self.plan.columns.len() {
            return Err(Refused::Bad);
        }
        let start = out.len();
        out.extend_from_slice(head);
        let (mut more, mut less) = (0, 0);
        while let Some(treatment) = self.plan.columns.get(self.column) {
            let Some((length, behind)) = rest.split_first_chunk::<4>() else { break };
            let masker = match treatment {
                Treatment::Mask(masker) if *length != NULL || masker.for_null().is_some() => masker,
                _ => {
                    let length = length.len() + left_of(*length)?.unwrap_or_default();
                    let (now, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    self.feed(now, out)?;
                    rest = after;
                    if matches!(self.next, Next::Value { .. }) {
                        break;
                    }
                    continue;
                }
            };
            let length = left_of(*length)?.unwrap_or_default();
            let at = out.len();
            self.counts.values += 1;
            if let Some((value, after)) = behind.split_at_checked(length) {
                mask(masker, value, out)?;
                rest = after;
                self.column += 1;
            } else {
                write(masker.without_looking(), out)?;
                let left = length - behind.len();
                self.next = Next::Value { left, how: How::Skip };
                rest = &[];
            }
            more += out.len() - at;
            less += length + 4;
            if rest.is_empty() {
                break;
            }
        }
        if !rest.is_empty() {
            self.feed(rest, out)?;
        }
        self.check_rest()?;
        let length =
            (total + more).checked_sub(less + 1).and_then(|length| i32::try_from(length).ok());
        let place = out.get_mut(start + 1..start + HEADER_BYTES).ok_or(BadRow)?;
        place.copy_from_slice(&length.ok_or(BadRow)?.to_be_bytes());
        Ok(())
    }

    /// Whether all that is still to come can be masked without another length.
    fn check_rest(&self) -> Result<(), Refused> {
        let begun = usize::from(matches!(self.next, Next::Value { .. }));
        let rest = self.plan.columns.get(self.column + begun..).unwrap_or_default();
        let fits = |one: &Treatment| match one {
            // Its length, or that it is NULL, would tell of what it is computed from.
            Treatment::Mask(masker) => masker.can_fill() && !masker.hides_null(),
            Treatment::Pass | Treatment::Detect(_) => true,
        };
        if rest.iter().all(fits) { Ok(()) } else { Err(Refused::CannotFill) }
    }

    /// Takes the next bytes of the row.
    pub fn feed(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), BadRow> {
        while !data.is_empty() || matches!(self.next, Next::Value { left: 0, .. }) {
            match &mut self.next {
                Next::Length(got) => {
                    let now = (NULL.len() - got.len()).min(data.len());
                    let (part, rest) = data.split_at_checked(now).ok_or(BadRow)?;
                    got.extend_from_slice(part);
                    out.extend_from_slice(part);
                    data = rest;
                    if let Some(length) = got.first_chunk::<4>().copied() {
                        self.next = self.value(length)?;
                    }
                }
                Next::Value { left, how } => {
                    let (part, rest) = data.split_at_checked(*left).unwrap_or((data, &[]));
                    data = rest;
                    *left -= part.len();
                    let (ended, how) = (*left == 0, *how);
                    match how {
                        How::Pass => out.extend_from_slice(part),
                        How::Detect(cover) => self.stream.push(part, cover, out),
                        How::Fill => out.extend(std::iter::repeat_n(b'*', part.len())),
                        How::Skip => {}
                    }
                    if ended {
                        if let How::Detect(cover) = how {
                            self.counts.detected += u64::from(self.stream.end(cover, out));
                        }
                        self.column += 1;
                        self.next = Next::Length(Vec::new());
                    }
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, length: [u8; 4]) -> Result<Next, BadRow> {
        let treatment = self.plan.columns.get(self.column).ok_or(BadRow)?;
        let Some(left) = left_of(length)? else {
            self.column += 1;
            return Ok(Next::Length(Vec::new()));
        };
        let how = match treatment {
            Treatment::Pass => How::Pass,
            Treatment::Detect(cover) => How::Detect(*cover),
            Treatment::Mask(masker) if masker.can_fill() => {
                self.counts.values += 1;
                How::Fill
            }
            Treatment::Mask(_) => return Err(BadRow),
        };
        Ok(Next::Value { left, how })
    }

    /// Memory held, in bytes, roughly.
    pub const fn held_bytes(&self) -> usize {
        self.stream.held_bytes()
    }

    /// Whether the row has all its columns.
    pub fn is_whole(&self) -> bool {
        self.column == self.plan.columns.len() && self.next == Next::Length(Vec::new())
    }
}

/// Bytes of a value of that length; `None` for NULL.
fn left_of(length: [u8; 4]) -> Result<Option<usize>, BadRow> {
    if length == NULL {
        return Ok(None);
    }
    usize::try_from(i32::from_be_bytes(length)).map(Some).map_err(|_| BadRow)
}

/// Appends length and bytes of a constant.
fn write(constant: Constant, out: &mut Vec<u8>) -> Result<(), BadRow> {
    let Constant::Bytes(bytes) = constant else {
        out.extend_from_slice(&NULL);
        return Ok(());
    };
    let length = i32::try_from(bytes.len()).map_err(|_| BadRow)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
