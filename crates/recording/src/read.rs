//! Reads kept rows: joins their chunks, and tells their messages apart.
//!
//! Promises: any bytes are taken without a panic; what does not read says where. Chunks out of order or
//! with a hole between them are refused, never guessed at.

use std::fmt;

/// Chunks of one result, joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    bytes: Vec<u8>,
}

impl Joined {
    /// Takes the next chunk.
    ///
    /// # Errors
    ///
    /// Where it does not begin where the one before ended.
    pub fn push(&mut self, offset: u64, data: &[u8]) -> Result<(), Unreadable> {
        if offset != crate::as_u64(self.bytes.len()) {
            return Err(Unreadable { at: self.bytes.len(), what: "a part of it is missing" });
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// What was joined so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Kept bytes that are no messages of PostgreSQL's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// Where, in bytes from the result's beginning.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of the kept rows: {}", self.at, self.what)
    }
}

impl std::error::Error for Unreadable {}

/// One row: a value is `None` where it is NULL.
pub type Row<'a> = Vec<Option<&'a [u8]>>;

/// One message of a result (PostgreSQL manual, "Message Formats").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// RowDescription: names, type OIDs, and whether values are binary.
    Columns(Vec<(&'a [u8], u32, bool)>),
    /// DataRow.
    Row(Row<'a>),
    /// CopyData.
    Copy(&'a [u8]),
    /// FunctionCallResponse.
    Value(Option<&'a [u8]>),
}

/// The messages of a result of which `bytes` is the beginning; a last one that is cut short is left out, and
/// said by `false`.
///
/// # Errors
///
/// Where a message is of a kind that no result has, or does not read.
pub fn messages(bytes: &[u8]) -> Result<(Vec<Message<'_>>, bool), Unreadable> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(([kind, length @ ..], behind)) = rest.split_first_chunk::<5>() {
        let at = bytes.len() - rest.len();
        let bad = |what| Unreadable { at, what };
        let length = usize::try_from(u32::from_be_bytes(*length)).ok();
        let body = length.and_then(|length| length.checked_sub(4));
        let body = body.ok_or_else(|| bad("a length is impossible"))?;
        let Some((body, after)) = behind.split_at_checked(body) else { return Ok((found, false)) };
        found.push(match kind {
            b'T' => Message::Columns(columns(body).ok_or_else(|| bad("a 'T' does not read"))?),
            b'D' => Message::Row(row(body).ok_or_else(|| bad("a 'D' does not read"))?),
            b'd' => Message::Copy(body),
            b'V' => {
                let (value, _) = value(body).ok_or_else(|| bad("a 'V' does not read"))?;
                Message::Value(value)
            }
            _ => return Err(bad("no message of a result")),
        });
        rest = after;
    }
    Ok((found, rest.is_empty()))
}

fn columns(body: &[u8]) -> Option<Vec<(&[u8], u32, bool)>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (name, after) = rest.split_at_checked(end)?;
        // The zero; then table, column, type, size, modifier, format.
        let (fixed, after) = after.get(1..)?.split_first_chunk::<18>()?;
        let [_, _, _, _, _, _, t0, t1, t2, t3, .., f0, f1] = *fixed;
        let binary = u16::from_be_bytes([f0, f1]) != 0;
        found.push((name, u32::from_be_bytes([t0, t1, t2, t3]), binary));
        rest = after;
    }
    rest.is_empty().then_some(found)
}

fn row(body: &[u8]) -> Option<Row<'_>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut found = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (one, after) = value(rest)?;
        found.push(one);
        rest = after;
    }
    rest.is_empty().then_some(found)
}

fn value(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = i32::from_be_bytes(*length);
    if length == -1 {
        return Some((None, rest));
    }
    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((Some(value), rest))
}
