//! Reads kept rows of MySQL's protocol: result sets as they went to the client (manual, "Text Resultset",
//! "Binary Protocol Resultset").
//!
//! Promises: those of [`crate::messages`]. What COM_STMT_FETCH brought has no columns of its own: those of the
//! outcome are taken for it.

use crate::{Message, Row, Unreadable};

/// Length of a payload that goes on in the next packet; such a row is larger than all that is kept.
const FULL_BYTES: usize = 0xff_ffff;
/// First byte of what ends definitions or rows.
const EOF: u8 = 0xfe;
/// Status flag: the rows wait for COM_STMT_FETCH.
const CURSOR_EXISTS: u8 = 1 << 6;
/// NULL in a text row.
const NULL: u8 = 0xfb;

/// Where the reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between results.
    Count,
    /// So many definitions are to come.
    Definitions(u64),
    /// They are there; an EOF may follow.
    Defined,
    Rows,
}

/// The messages of a result of which `bytes` is the beginning; a last one that is cut short is left out, and
/// said by `false`. `columns` are type and format of the outcome's columns, as the record has them.
///
/// # Errors
///
/// Where a packet does not read.
pub fn packets<'a>(
    bytes: &'a [u8],
    columns: &[(u32, bool)],
) -> Result<(Vec<Message<'a>>, bool), Unreadable> {
    let binary = columns.first().is_some_and(|(_, binary)| *binary);
    let mut kinds: Vec<u32> = columns.iter().map(|(kind, _)| *kind).collect();
    let (mut found, mut rest, mut state) = (Vec::new(), bytes, State::Count);
    let mut described = Vec::new();
    while let Some(([a, b, c, _], behind)) = rest.split_first_chunk::<4>() {
        let at = bytes.len() - rest.len();
        let bad = |what| Unreadable { at, what };
        let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
        let Some((payload, after)) = behind.split_at_checked(length) else {
            return Ok((found, false));
        };
        if length == FULL_BYTES {
            return Ok((found, false));
        }
        let first = *payload.first().ok_or_else(|| bad("an empty packet"))?;
        rest = after;
        state = match state {
            State::Count if first == 0 => {
                found.push(Message::Row(
                    binary_row(payload, &kinds).ok_or_else(|| bad("a row does not read"))?,
                ));
                State::Rows
            }
            State::Count if first == EOF => State::Count,
            State::Count => {
                let (count, more) = lenenc(payload).ok_or_else(|| bad("a count does not read"))?;
                described.clear();
                // A zero behind it: the definitions are left out.
                if more == [0] { State::Defined } else { State::Definitions(count) }
            }
            State::Definitions(left) => {
                described.push(definition(payload).ok_or_else(|| bad("a column does not read"))?);
                if left > 1 {
                    State::Definitions(left - 1)
                } else {
                    kinds = described.iter().map(|(_, kind)| *kind).collect();
                    let named = described.iter().map(|(name, kind)| (*name, *kind, binary));
                    found.push(Message::Columns(named.collect()));
                    State::Defined
                }
            }
            State::Defined if first == EOF && length == 5 => {
                let cursor = payload.get(3).is_some_and(|status| status & CURSOR_EXISTS != 0);
                if cursor { State::Count } else { State::Rows }
            }
            State::Defined | State::Rows if first == EOF => State::Count,
            State::Defined | State::Rows => {
                let row = if binary {
                    binary_row(payload, &kinds)
                } else {
                    text_row(payload, kinds.len())
                };
                found.push(Message::Row(row.ok_or_else(|| bad("a row does not read"))?));
                State::Rows
            }
        };
    }
    Ok((found, rest.is_empty()))
}

fn number(bytes: &[u8], count: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(count)?;
    Some((number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)), rest))
}

fn lenenc(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match first {
        0xfc => number(rest, 2),
        0xfd => number(rest, 3),
        0xfe => number(rest, 8),
        0xfb | 0xff => None,
        small => Some((u64::from(*small), rest)),
    }
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = lenenc(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Name and type of a column definition. MariaDB may have put a field before those of fixed length.
fn definition(payload: &[u8]) -> Option<(&[u8], u32)> {
    let mut rest = payload;
    let mut name: &[u8] = &[];
    for field in 0..6 {
        let (text, behind) = string(rest)?;
        if field == 4 {
            name = text;
        }
        rest = behind;
    }
    if rest.len() > 13 {
        rest = string(rest)?.1;
    }
    let (fixed, _) = rest.get(1..)?.split_first_chunk::<9>()?;
    let [c0, c1, _, _, _, _, kind, f0, _] = *fixed;
    let unsigned = u32::from(f0 & 1 << 5 != 0) << 8;
    let bytes = u32::from([c0, c1] == [63, 0]) << 9;
    Some((name, u32::from(kind) | unsigned | bytes))
}

fn text_row(payload: &[u8], columns: usize) -> Option<Row<'_>> {
    let (mut row, mut rest) = (Vec::new(), payload);
    for _ in 0..columns {
        if let Some((&NULL, behind)) = rest.split_first() {
            row.push(None);
            rest = behind;
            continue;
        }
        let (value, behind) = string(rest)?;
        row.push(Some(value));
        rest = behind;
    }
    rest.is_empty().then_some(row)
}

fn binary_row<'a>(payload: &'a [u8], kinds: &[u32]) -> Option<Row<'a>> {
    let (head, mut rest) = payload.split_at_checked(1 + (kinds.len() + 2).div_ceil(8))?;
    let mut row = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        let bit = at + 2;
        if head.get(1 + bit / 8)? >> (bit % 8) & 1 == 1 {
            row.push(None);
            continue;
        }
        let fixed = match kind & 0xff {
            0x06 => 0,
            0x01 => 1,
            0x02 | 0x0d => 2,
            0x03 | 0x04 | 0x09 => 4,
            0x05 | 0x08 => 8,
            0x07 | 0x0a..=0x0c => 1 + usize::from(*rest.first()?),
            _ => {
                let (value, behind) = string(rest)?;
                row.push(Some(value));
                rest = behind;
                continue;
            }
        };
        let (value, behind) = rest.split_at_checked(fixed)?;
        row.push(Some(value));
        rest = behind;
    }
    rest.is_empty().then_some(row)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
        let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
        [&[a, b, c, seq], payload].concat()
    }

    fn column(name: &str, kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = b"\x03def\x01d\x01t\x01t".to_vec();
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend(name.as_bytes());
        bytes.extend(b"\0\x0c\x2d\0\x50\0\0\0");
        bytes.extend([kind, flags, 0, 0, 0, 0]);
        bytes
    }

    fn stream(payloads: &[&[u8]]) -> Vec<u8> {
        payloads.iter().zip(1_u8..).flat_map(|(payload, seq)| packet(seq, payload)).collect()
    }

    const EOF5: &[u8] = b"\xfe\0\0\x02\0";

    #[test]
    fn results_of_one_command_are_told_apart() {
        let (id, name) = (column("id", 3, 32), column("name", 0xfd, 0));
        let old = stream(&[b"\x02", &id, &name, EOF5, b"\x017\x01a", b"\xfb\xfb", EOF5]);
        let new = stream(&[b"\x01", &name, b"\x03abc", b"\xfe\0\0\x02\0\0\0"]);
        let both = [&old[..], &new].concat();
        let (found, whole) = packets(&both, &[]).unwrap();
        let some = |text: &'static str| Some(text.as_bytes());
        assert_eq!(
            found,
            [
                Message::Columns(vec![(b"id", 0x103, false), (b"name", 0xfd, false)]),
                Message::Row(vec![some("7"), some("a")]),
                Message::Row(vec![None, None]),
                Message::Columns(vec![(b"name", 0xfd, false)]),
                Message::Row(vec![some("abc")]),
            ]
        );
        assert!(whole);
        let (cut, whole) = packets(&both[..both.len() - 1], &[]).unwrap();
        assert_eq!((cut, whole), (found, false));
        assert!(packets(&stream(&[b"\x01", b"no column"]), &[]).is_err());
    }

    #[test]
    fn binary_rows_and_those_of_a_fetch_are_read() {
        let columns = [(0x103, true), (0xfd, true)];
        let row = b"\0\0\x07\0\0\0\x03abc";
        let head =
            stream(&[b"\x02", &column("id", 3, 0), &column("name", 0xfd, 0), b"\xfe\0\0\x42\0"]);
        assert_eq!(packets(&head, &columns).unwrap().0.len(), 1);
        let fetched = stream(&[row, b"\0\x04\x01x", EOF5]);
        let (found, whole) = packets(&fetched, &columns).unwrap();
        let first = Message::Row(vec![Some(&b"\x07\0\0\0"[..]), Some(b"abc")]);
        assert_eq!((&found[..1], whole), (&[first][..], true));
        let without = stream(&[b"\x02\0", EOF5, row, EOF5]);
        assert_eq!(packets(&without, &columns).unwrap().0.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), binary: bool,
        ) {
            let _ = packets(&bytes, &[(3, binary), (0xfd, binary)]);
        }
    }
}
