//! Frames: a kind byte and a length that counts itself (manual, "Message Formats").
//!
//! Promise: reads only the five bytes of a header, so that a message of any size can pass in
//! parts. Whether a length is acceptable for a kind is the machine's to say.

use tidegate_wire::Cursor;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 5;

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The kind byte.
    pub kind: u8,
    /// Length of the whole message with its header.
    pub total: usize,
}

impl Header {
    /// Bytes behind the header.
    pub(crate) const fn body_bytes(self) -> usize {
        self.total.saturating_sub(HEADER_BYTES)
    }
}

/// A length that no message can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLength {
    pub kind: u8,
    pub length: i32,
}

/// The header at the front of `bytes`, once it is there.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<Header>, BadLength> {
    let mut cursor = Cursor::new(bytes);
    let (Ok(kind), Ok(length)) = (cursor.u8(), cursor.i32()) else {
        return Ok(None);
    };
    match usize::try_from(length) {
        Ok(counted) if counted >= 4 => Ok(Some(Header { kind, total: counted.saturating_add(1) })),
        _ => Err(BadLength { kind, length }),
    }
}

/// A kind byte for people: the letter, or its hexadecimal value.
pub(crate) fn kind_name(kind: u8) -> String {
    if kind.is_ascii_graphic() {
        format!("'{}'", char::from(kind))
    } else {
        format!("0x{kind:02x}")
    }
}

/// Builds a message of a few parts.
pub(crate) fn message(kind: u8, parts: &[&[u8]]) -> bytes::Bytes {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let mut built = Vec::with_capacity(body + HEADER_BYTES);
    built.push(kind);
    // What is built here is bounded by far smaller limits than an i32.
    built.extend_from_slice(&i32::try_from(body + 4).unwrap_or(i32::MAX).to_be_bytes());
    for part in parts {
        built.extend_from_slice(part);
    }
    built.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_once_it_is_whole_and_its_length_is_checked() {
        assert_eq!(header(b"Q\0\0\0"), Ok(None));
        assert_eq!(header(b"Q\0\0\0\x09..."), Ok(Some(Header { kind: b'Q', total: 10 })));
        for length in [-1, 0, 3, i32::MIN] {
            let bytes = [b"Q".as_slice(), &length.to_be_bytes()].concat();
            assert_eq!(header(&bytes), Err(BadLength { kind: b'Q', length }), "{length}");
        }
        assert_eq!(message(b'S', &[]).as_ref(), b"S\0\0\0\x04");
    }
}
