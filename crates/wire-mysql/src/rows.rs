//! Rows, rewritten by a plan (manual, "Text Resultset Row", "Binary Protocol Resultset Row").
//!
//! Promises: lengths of values are right; NULL stays NULL; what passes is copied as it came; nothing is
//! allocated but in the caller's buffer. A row that does not have the plan's columns is refused, and
//! nothing of it is written.

use tidegate_mask::{Constant, Counts, Detectors, Masker, Plan, Treatment};

use crate::message::Reader;

/// A row that does not read, or not as its plan has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRow;

/// NULL in a text row.
const NULL: u8 = 0xfb;
/// The bit of a binary row's first column in its map of NULLs.
const NULL_BIT_FIRST: usize = 2;

/// What becomes of the rows of one result.
#[derive(Clone)]
pub(crate) struct Shape {
    /// One treatment for each column.
    pub plan: Plan,
    /// The number of each column's type.
    pub kinds: Vec<u8>,
    /// Whether its rows are binary.
    pub binary: bool,
}

/// Appends the row `payload` to `out`, as the plan has it.
pub(crate) fn rewrite(
    payload: &[u8],
    shape: &Shape,
    detectors: Detectors,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<(), BadRow> {
    let (start, before) = (out.len(), *counts);
    let done = if shape.binary {
        binary(payload, shape, detectors, out, counts)
    } else {
        text(payload, &shape.plan, detectors, out, counts)
    };
    if done.is_err() {
        out.truncate(start);
        *counts = before;
    }
    done
}

fn text(
    payload: &[u8],
    plan: &Plan,
    detectors: Detectors,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<(), BadRow> {
    let mut rest = payload;
    for treatment in &plan.columns {
        if let Some((&NULL, behind)) = rest.split_first() {
            out.push(NULL);
            rest = behind;
            continue;
        }
        let Front { whole, value, behind } = string(rest)?;
        rest = behind;
        let value = value.unwrap_or_default();
        if !string_value(treatment, whole, value, detectors, out, counts)? {
            out.push(NULL);
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(BadRow) }
}

/// Appends a value with its length, or what stands for it; `false` where that is NULL.
fn string_value(
    treatment: &Treatment,
    whole: &[u8],
    value: &[u8],
    detectors: Detectors,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<bool, BadRow> {
    match treatment {
        Treatment::Pass => out.extend_from_slice(whole),
        Treatment::Detect(cover) => {
            out.extend_from_slice(whole);
            let written = out.len() - value.len();
            let value = out.get_mut(written..).ok_or(BadRow)?;
            counts.detected += u64::from(detectors.cover(value, *cover));
        }
        Treatment::Mask(masker) => {
            counts.values += 1;
            return Ok(mask(masker, value, out));
        }
    }
    Ok(true)
}

/// Appends length and bytes of what stands for `value`; `false` where that is NULL.
fn mask(masker: &Masker, value: &[u8], out: &mut Vec<u8>) -> bool {
    match masker.constant() {
        Some(Constant::Null) => return false,
        Some(Constant::Bytes(bytes)) => {
            length(bytes.len(), out);
            out.extend_from_slice(bytes);
            return true;
        }
        None => {}
    }
    let start = out.len();
    // Nearly all are short: their length takes one byte.
    out.push(0);
    if !masker.write(value, out) {
        out.truncate(start);
        return false;
    }
    let written = out.len() - start - 1;
    if let (Ok(short), Some(place)) = (u8::try_from(written), out.get_mut(start))
        && short < NULL
    {
        *place = short;
        return true;
    }
    let mut head = Vec::with_capacity(9);
    length(written, &mut head);
    out.splice(start..=start, head);
    true
}

/// Appends a length-encoded number.
fn length(of: usize, out: &mut Vec<u8>) {
    let number = u64::try_from(of).unwrap_or(u64::MAX);
    let [a, b, c, ..] = number.to_le_bytes();
    match number {
        0..=0xfa => out.push(a),
        0xfb..=0xffff => out.extend([0xfc, a, b]),
        0x1_0000..=0xff_ffff => out.extend([0xfd, a, b, c]),
        _ => {
            out.push(0xfe);
            out.extend(number.to_le_bytes());
        }
    }
}

/// A value at the front of others: as it stands there, without its length where it is a string, and what
/// is behind it.
struct Front<'a> {
    whole: &'a [u8],
    value: Option<&'a [u8]>,
    behind: &'a [u8],
}

fn string(rest: &[u8]) -> Result<Front<'_>, BadRow> {
    let mut reader = Reader::new(rest);
    let value = reader.lenenc_string().map_err(|_| BadRow)?;
    let behind = reader.rest();
    let whole = rest.get(..rest.len() - behind.len()).ok_or(BadRow)?;
    Ok(Front { whole, value: Some(value), behind })
}

fn binary(
    payload: &[u8],
    shape: &Shape,
    detectors: Detectors,
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Result<(), BadRow> {
    let columns = shape.plan.columns.len();
    let map_bytes = (columns + NULL_BIT_FIRST).div_ceil(8);
    let (head, mut rest) = payload.split_at_checked(1 + map_bytes).ok_or(BadRow)?;
    if head.first() != Some(&0) || shape.kinds.len() != columns {
        return Err(BadRow);
    }
    let map_at = out.len() + 1;
    out.extend_from_slice(head);
    for (at, (treatment, kind)) in shape.plan.columns.iter().zip(&shape.kinds).enumerate() {
        let bit = at + NULL_BIT_FIRST;
        let is_null = head.get(1 + bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
        if is_null {
            continue;
        }
        let Front { whole, value, behind } = binary_value(*kind, rest)?;
        rest = behind;
        let is_there = match (value, treatment) {
            (Some(value), _) => string_value(treatment, whole, value, detectors, out, counts)?,
            (None, Treatment::Mask(_)) => {
                // A number or a date: only NULL is sure to be one that tells nothing.
                counts.values += 1;
                false
            }
            (None, _) => {
                out.extend_from_slice(whole);
                true
            }
        };
        if !is_there {
            let byte = out.get_mut(map_at + bit / 8).ok_or(BadRow)?;
            *byte |= 1 << (bit % 8);
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(BadRow) }
}

/// A binary value of that type.
fn binary_value(kind: u8, rest: &[u8]) -> Result<Front<'_>, BadRow> {
    let fixed = match kind {
        0x06 => 0,
        0x01 => 1,
        0x02 | 0x0d => 2,
        0x03 | 0x04 | 0x09 => 4,
        0x05 | 0x08 => 8,
        0x07 | 0x0a..=0x0c => 1 + usize::from(*rest.first().ok_or(BadRow)?),
        _ => return string(rest),
    };
    let (whole, behind) = rest.split_at_checked(fixed).ok_or(BadRow)?;
    Ok(Front { whole, value: None, behind })
}
