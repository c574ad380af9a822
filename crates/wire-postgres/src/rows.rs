//! DataRows, rewritten by a plan.
//!
//! Promises: lengths of values and message are right; NULL stays NULL; a run of columns that pass is
//! copied as one piece; nothing is allocated but in the caller's buffer. A row that does not have the
//! plan's columns, or whose lengths do not add up, is refused, and nothing of it is written.

mod long;

use tidegate_mask::{Constant, Counts, Detectors, Masker, Plan, Treatment};

use crate::frame::HEADER_BYTES;
pub(crate) use long::{LongRow, Refused};

/// A row that does not read, or not as its plan has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRow;

/// Length of NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Appends the whole DataRow `message` (with its header) to `out`, as the plan has it.
pub(crate) fn rewrite(
    message: &[u8],
    plan: &Plan,
    detectors: Detectors,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<(), BadRow> {
    let start = out.len();
    let before = *counts;
    let done = columns(message, plan, detectors, out, counts).and_then(|()| {
        let length = out.len().checked_sub(start + 1).and_then(|length| i32::try_from(length).ok());
        let place = out.get_mut(start + 1..start + HEADER_BYTES);
        place.ok_or(BadRow)?.copy_from_slice(&length.ok_or(BadRow)?.to_be_bytes());
        Ok(())
    });
    if done.is_err() {
        out.truncate(start);
        *counts = before;
    }
    done
}

fn columns(
    message: &[u8],
    plan: &Plan,
    detectors: Detectors,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<(), BadRow> {
    let (head, mut rest) = message.split_first_chunk::<{ HEADER_BYTES + 2 }>().ok_or(BadRow)?;
    let [.., high, low] = *head;
    if usize::from(u16::from_be_bytes([high, low])) != plan.columns.len() {
        return Err(BadRow);
    }
    let mut copied = 0;
    for treatment in &plan.columns {
        let at = message.len() - rest.len();
        let (length, behind) = rest.split_first_chunk::<4>().ok_or(BadRow)?;
        if *length == NULL {
            rest = behind;
            continue;
        }
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| BadRow)?;
        let (value, after) = behind.split_at_checked(length).ok_or(BadRow)?;
        rest = after;
        match treatment {
            Treatment::Pass => {}
            Treatment::Detect(cover) => {
                let ends = message.len() - rest.len();
                out.extend_from_slice(message.get(copied..ends).ok_or(BadRow)?);
                copied = ends;
                let written = out.len() - value.len();
                let value = out.get_mut(written..).ok_or(BadRow)?;
                counts.detected += u64::from(detectors.cover(value, *cover));
            }
            Treatment::Mask(masker) => {
                out.extend_from_slice(message.get(copied..at).ok_or(BadRow)?);
                copied = message.len() - rest.len();
                mask(masker, value, out)?;
                counts.values += 1;
            }
        }
    }
    if !rest.is_empty() {
        return Err(BadRow);
    }
    out.extend_from_slice(message.get(copied..).ok_or(BadRow)?);
    Ok(())
}

/// Appends length and bytes of what stands for `value`.
fn mask(masker: &Masker, value: &[u8], out: &mut Vec<u8>) -> Result<(), BadRow> {
    let at = out.len();
    out.extend_from_slice(&NULL);
    let there = match masker.constant() {
        Some(Constant::Null) => false,
        Some(Constant::Bytes(bytes)) => {
            out.extend_from_slice(bytes);
            true
        }
        None => masker.write(value, out),
    };
    if there {
        let length = i32::try_from(out.len() - at - NULL.len()).map_err(|_| BadRow)?;
        let place = out.get_mut(at..at + NULL.len()).ok_or(BadRow)?;
        place.copy_from_slice(&length.to_be_bytes());
    } else {
        out.truncate(at + NULL.len());
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
