//! What of an operation goes into its record, and what is cut.
//!
//! Promise: whatever the client sends, a record stays below
//! [`RECORD_BYTES_MAX`](tidegate_event::limits::RECORD_BYTES_MAX), and where something was cut
//! the record says so (`AuditRecord.cut`, the `*_total` counts, `Cut` parameters).

use tidegate_event::limits::{
    EFFECTS_MAX, NAME_BYTES_MAX, PARAMETER_BYTES_MAX, PARAMETERS_MAX, cut,
};
use tidegate_event::{Effect, Parameter};

/// Most bytes of parameter values in one record; beyond them only lengths are kept.
pub const PARAMETERS_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of effects in one record.
pub const EFFECTS_BYTES_MAX: usize = 8 * 1024;

/// Most bytes of a list of names (policies, statement kinds, start-up options) in one record.
pub const LIST_BYTES_MAX: usize = 4 * 1024;

/// What an item of a list costs beside its text: tags, lengths, flags.
const ITEM_BYTES: usize = 8;

/// What an effect costs beside its names: the action and the flag.
const EFFECT_BYTES: usize = 32;

/// A parameter as it goes into the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    Null,
    Text(&'a [u8]),
    Binary(u32, &'a [u8]),
    Cut(&'a [u8], u64),
}

/// A name, and whether it had to be cut.
pub(crate) fn name<'a>(text: &'a str, was_cut: &mut bool) -> &'a str {
    let (text, shorter) = cut(text, NAME_BYTES_MAX);
    *was_cut |= shorter;
    text
}

/// How many of `items` fit into `budget` bytes, where each costs what `cost` says.
fn fitting<T>(items: &[T], budget: usize, cost: impl Fn(&T) -> usize) -> usize {
    let mut left = budget;
    items
        .iter()
        .take_while(|item| {
            let cost = cost(item);
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            fits
        })
        .count()
}

/// The texts of a list that go into the record, and the total where that is more.
pub(crate) fn list<'a, T>(
    items: &'a [T],
    text: impl Fn(&T) -> &str,
    was_cut: &mut bool,
) -> (&'a [T], u32) {
    let count =
        fitting(items, LIST_BYTES_MAX, |item| text(item).len().min(NAME_BYTES_MAX) + ITEM_BYTES);
    head(items, count, was_cut)
}

/// The options of a login that go into the record, and the total where that is more.
pub(crate) fn options<'a>(
    items: &'a [(String, String)],
    was_cut: &mut bool,
) -> (&'a [(String, String)], u32) {
    let count = fitting(items, LIST_BYTES_MAX, |(name, value)| {
        name.len().min(NAME_BYTES_MAX) + value.len().min(NAME_BYTES_MAX) + 2 * ITEM_BYTES
    });
    head(items, count, was_cut)
}

/// The effects that go into the record, and the total where that is more.
pub(crate) fn effects<'a>(items: &'a [Effect], was_cut: &mut bool) -> (&'a [Effect], u32) {
    let count = fitting(items, EFFECTS_BYTES_MAX, |effect| {
        let names = effect.relation.as_ref().map_or(0, |relation| {
            let schema = relation.schema.as_ref().map_or(0, String::len);
            schema.min(NAME_BYTES_MAX) + relation.name.len().min(NAME_BYTES_MAX)
        });
        names + EFFECT_BYTES
    });
    head(items, count.min(EFFECTS_MAX), was_cut)
}

/// The parameters that go into the record, and the total where that is more.
pub(crate) fn parameters<'a>(
    items: &'a [Parameter],
    was_cut: &mut bool,
) -> (impl Iterator<Item = Shown<'a>> + use<'a>, u32) {
    let (listed, total) = head(items, PARAMETERS_MAX, was_cut);
    let mut left = PARAMETERS_BYTES_MAX;
    (listed.iter().map(move |parameter| show(parameter, &mut left)), total)
}

fn show<'a>(parameter: &'a Parameter, left: &mut usize) -> Shown<'a> {
    let (value, whole) = match parameter {
        Parameter::Null => return Shown::Null,
        Parameter::Text(value) | Parameter::Binary { value, .. } => (value, None),
        Parameter::Cut { head, bytes } => (head, Some(*bytes)),
    };
    let room = PARAMETER_BYTES_MAX.min(*left);
    let kept = value.get(..room).unwrap_or(value);
    *left -= kept.len();
    match (parameter, whole) {
        (_, Some(bytes)) => Shown::Cut(kept, bytes),
        _ if kept.len() < value.len() => {
            Shown::Cut(kept, u64::try_from(value.len()).unwrap_or(u64::MAX))
        }
        (Parameter::Binary { type_oid, .. }, None) => Shown::Binary(*type_oid, kept),
        _ => Shown::Text(kept),
    }
}

fn head<'a, T>(items: &'a [T], count: usize, was_cut: &mut bool) -> (&'a [T], u32) {
    match items.get(..count) {
        Some(listed) if listed.len() < items.len() => {
            *was_cut = true;
            (listed, u32::try_from(items.len()).unwrap_or(u32::MAX))
        }
        _ => (items, 0),
    }
}
