//! Packets: three bytes of length, one of sequence number, and the payload (manual, "Packets").
//!
//! Promise: reads only the four bytes of a header, so that a packet of any size can pass in parts. A
//! payload of exactly 16 MiB - 1 is followed by another packet of the same message.

use bytes::{Bytes, BytesMut};

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 4;
/// Length of a payload that goes on in the next packet.
pub(crate) const FULL_BYTES: usize = 0xff_ffff;

/// The header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the payload.
    pub payload: usize,
    /// The sequence number.
    pub seq: u8,
}

impl Header {
    /// Bytes of the whole packet.
    pub const fn total(self) -> usize {
        self.payload + HEADER_BYTES
    }

    /// Whether the message goes on in the next packet.
    pub const fn goes_on(self) -> bool {
        self.payload == FULL_BYTES
    }
}

/// The header at the front of `bytes`, once it is there.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let (head, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [a, b, c, seq] = *head;
    let payload = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    Some(Header { payload, seq })
}

/// A packet with that payload, which must be shorter than 16 MiB - 1.
pub(crate) fn packet(seq: u8, payload: &[u8]) -> Bytes {
    let [a, b, c, ..] = u32::try_from(payload.len()).unwrap_or_default().to_le_bytes();
    let mut bytes = BytesMut::with_capacity(payload.len() + HEADER_BYTES);
    bytes.extend_from_slice(&[a, b, c, seq]);
    bytes.extend_from_slice(payload);
    bytes.freeze()
}

/// The same packet with another sequence number.
pub(crate) fn renumbered(mut packet: BytesMut, seq: u8) -> Bytes {
    if let Some(at) = packet.get_mut(HEADER_BYTES - 1) {
        *at = seq;
    }
    packet.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (seq, payload) in [(0, vec![]), (255, vec![1]), (3, vec![7; 70_000])] {
            let written = packet(seq, &payload);
            let read = header(&written).unwrap();
            assert_eq!(read, Header { payload: payload.len(), seq });
            assert_eq!((read.total(), read.goes_on()), (written.len(), false));
            let renumbered = renumbered(BytesMut::from(&written[..]), 9);
            assert_eq!((renumbered[3], &renumbered[4..]), (9, &payload[..]));
        }
        assert_eq!(header(b"\x01\0\0"), None);
        assert!(header(b"\xff\xff\xff\0").unwrap().goes_on());
    }
}
