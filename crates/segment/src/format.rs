//! The bytes of a segment: header, frame, mark. Described for readers without this code in `docs/formats/segment.md`.
//!
//! Promises: decoding takes any bytes without panicking, and accepts a frame only with its CRC. Changing anything here
//! changes the document and the golden file with it.

/// The first bytes of every segment.
pub const MAGIC: [u8; 8] = *b"TIDESEGM";
/// Version of the format.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the header of a segment.
pub const HEADER_BYTES: u64 = 80;
/// Bytes before a frame's payload: length, CRC, kind.
pub const FRAME_HEAD_BYTES: usize = 9;
/// Bytes of length and CRC, which the length does not count.
pub(crate) const FRAME_PREFIX_BYTES: usize = 8;
/// The largest payload of a frame.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The kind of the log's own mark.
pub const MARK_KIND: u8 = 0;
/// Bytes of a whole mark: frame head, durable index, half of the owner.
pub const MARK_BYTES: usize = FRAME_HEAD_BYTES + 8 + MARK_OWNER_BYTES;
/// Bytes of the owner that a mark repeats.
pub(crate) const MARK_OWNER_BYTES: usize = 16;
/// Zero bytes kept after the last frame of a segment.
pub(crate) const END_BYTES: u64 = 4;

const HEADER_LEN: usize = 80;
const HEADER_CRC_AT: usize = 76;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub owner: [u8; 32],
    pub ordinal: u64,
    /// The index of its first frame.
    pub first: u64,
    /// Frames below this were durable when the segment was made.
    pub durable: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.owner);
        bytes.extend_from_slice(&self.ordinal.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.durable.to_le_bytes());
        bytes.resize(HEADER_CRC_AT, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&bytes);
        header
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..HEADER_LEN).ok_or("the header is cut short")?;
        if bytes.get(..8) != Some(&MAGIC) {
            return Err("not a segment: the magic bytes are wrong");
        }
        let crc = u32_at(bytes, HEADER_CRC_AT);
        if bytes.get(..HEADER_CRC_AT).map(crc32c::crc32c) != crc {
            return Err("the header's CRC is wrong");
        }
        if u32_at(bytes, 8) != Some(FORMAT_VERSION) {
            return Err("the segment is of another format version");
        }
        let owner = bytes.get(12..44).and_then(|owner| <[u8; 32]>::try_from(owner).ok());
        match (owner, u64_at(bytes, 44), u64_at(bytes, 52), u64_at(bytes, 60)) {
            (Some(owner), Some(ordinal), Some(first), Some(durable)) => {
                Ok(Self { owner, ordinal, first, durable })
            }
            _ => Err("the header is cut short"),
        }
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Appends one frame. The caller has checked the payload's size; a longer one is left out and `false` returned.
pub(crate) fn push_frame(buf: &mut Vec<u8>, kind: u8, payload: &[u8]) -> bool {
    let Ok(len) = u32::try_from(payload.len() + 1) else {
        return false;
    };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    buf.reserve(FRAME_HEAD_BYTES + payload.len());
    buf.extend_from_slice(&len.to_le_bytes());
    buf.extend_from_slice(&crc.to_le_bytes());
    buf.push(kind);
    buf.extend_from_slice(payload);
    true
}

/// Appends a mark: frames below `durable` were durable when it was written.
pub(crate) fn push_mark(buf: &mut Vec<u8>, durable: u64, owner: &[u8; 32]) {
    let mut payload = [0; 8 + MARK_OWNER_BYTES];
    let (index, id) = payload.split_at_mut(8);
    index.copy_from_slice(&durable.to_le_bytes());
    id.copy_from_slice(owner.first_chunk::<MARK_OWNER_BYTES>().unwrap_or(&[0; MARK_OWNER_BYTES]));
    push_frame(buf, MARK_KIND, &payload);
}

/// Reads a mark's payload; `None` if it is not this owner's.
pub(crate) fn mark_durable(payload: &[u8], owner: &[u8; 32]) -> Option<u64> {
    let (index, id) = payload.split_first_chunk::<8>()?;
    (Some(id) == owner.get(..MARK_OWNER_BYTES)).then_some(u64::from_le_bytes(*index))
}

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// A frame of `len` bytes after the prefix (kind and payload), with a good CRC.
    Frame { kind: u8, len: usize },
    /// The zero that ends a segment, or too few bytes to hold a length.
    End,
    /// This many bytes are needed to tell.
    Need(usize),
    /// No frame; `len` is what it claims, if that is possible.
    Bad { what: &'static str, len: Option<usize> },
}

/// Looks at the front of `bytes`; `whole` says that no more bytes can follow.
pub(crate) fn front(bytes: &[u8], whole: bool) -> Front {
    let Some(claimed) = u32_at(bytes, 0) else {
        return if whole { Front::End } else { Front::Need(4) };
    };
    let Ok(len) = usize::try_from(claimed) else {
        return Front::Bad { what: "the frame's length is impossible", len: None };
    };
    if len == 0 {
        return Front::End;
    }
    if len > FRAME_PAYLOAD_BYTES_MAX + 1 {
        return Front::Bad { what: "the frame's length is impossible", len: None };
    }
    let all = FRAME_PREFIX_BYTES + len;
    let Some(body) = bytes.get(FRAME_PREFIX_BYTES..all) else {
        return if whole {
            Front::Bad { what: "the frame is cut by the end of the file", len: None }
        } else {
            Front::Need(all)
        };
    };
    if u32_at(bytes, 4) != Some(crc32c::crc32c(body)) {
        return Front::Bad { what: "the frame's CRC is wrong", len: Some(len) };
    }
    match body.first() {
        Some(&kind) => Front::Frame { kind, len },
        None => Front::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), whole: bool) {
            let _ = front(&bytes, whole);
            let _ = Header::decode(&bytes);
            let _ = mark_durable(&bytes, &[0; 32]);
        }

        #[test]
        fn a_frame_comes_back_and_no_flipped_bit_passes(
            kind in 1u8.., payload in proptest::collection::vec(any::<u8>(), 0..100), bit: proptest::sample::Index,
        ) {
            let mut bytes = Vec::new();
            prop_assert!(push_frame(&mut bytes, kind, &payload));
            let good = front(&bytes, true);
            prop_assert_eq!(good, Front::Frame { kind, len: payload.len() + 1 });
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(front(&bytes, true), good);
        }

        #[test]
        fn a_header_comes_back_and_no_flipped_bit_passes(
            owner: [u8; 32], ordinal: u64, first: u64, durable: u64, bit in 0usize..640,
        ) {
            let header = Header { owner, ordinal, first, durable };
            let mut bytes = header.encode();
            prop_assert_eq!(Header::decode(&bytes), Ok(header));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&bytes).is_err());
        }
    }

    #[test]
    fn a_mark_is_read_only_by_its_owner() {
        let mut bytes = Vec::new();
        push_mark(&mut bytes, 7, &[1; 32]);
        assert_eq!(bytes.len(), MARK_BYTES);
        let payload = &bytes[FRAME_HEAD_BYTES..];
        assert_eq!(mark_durable(payload, &[1; 32]), Some(7));
        assert_eq!(mark_durable(payload, &[2; 32]), None);
    }
}
