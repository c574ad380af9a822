//! The few protobuf fields that the hot path writes from borrowed data.
//!
//! Promise: the same bytes as prost writes: fields at their default are left out, lengths are
//! minimal varints.

use prost::encoding::{WireType, encode_key, encode_varint};

pub(crate) fn uint(buf: &mut Vec<u8>, tag: u32, value: u64) {
    if value != 0 {
        present(buf, tag, value);
    }
}

/// A varint that is written at its default too (`optional`, or in a oneof).
pub(crate) fn present(buf: &mut Vec<u8>, tag: u32, value: u64) {
    encode_key(tag, WireType::Varint, buf);
    encode_varint(value, buf);
}

pub(crate) fn flag(buf: &mut Vec<u8>, tag: u32, value: bool) {
    uint(buf, tag, u64::from(value));
}

pub(crate) fn fixed64(buf: &mut Vec<u8>, tag: u32, value: u64) {
    if value != 0 {
        encode_key(tag, WireType::SixtyFourBit, buf);
        buf.extend_from_slice(&value.to_le_bytes());
    }
}

pub(crate) fn bytes(buf: &mut Vec<u8>, tag: u32, value: &[u8]) {
    if !value.is_empty() {
        bytes_present(buf, tag, value);
    }
}

/// Bytes that are written when empty too (repeated, or in a oneof).
pub(crate) fn bytes_present(buf: &mut Vec<u8>, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(value.len() as u64, buf);
    buf.extend_from_slice(value);
}

/// A message: written first, then its length moved before it.
pub(crate) fn message(buf: &mut Vec<u8>, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, buf);
    let start = buf.len();
    write(buf);
    let end = buf.len();
    encode_varint((end - start) as u64, buf);
    let prefix = buf.len() - end;
    if let Some(tail) = buf.get_mut(start..) {
        tail.rotate_right(prefix);
    }
}
