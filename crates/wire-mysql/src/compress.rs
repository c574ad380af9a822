//! The compressed protocol: packets of packets (manual, "Compression").
//!
//! Promises: a compressed packet has three bytes of length, a sequence number of its own, and three bytes
//! that say how long its content is when unpacked; 0 there means that the content is as it is. A
//! [`Decoder`] gives the plain bytes in steps that its caller bounds, whatever a packet claims; content
//! that is not exactly as long as claimed, or that goes on behind its own end, is an error. An
//! [`Encoder`] packs what is at least [`COMPRESS_BYTES_MIN`] long, where that makes it shorter.
//!
//! Limits: unpacked content is at most 16 MiB - 1, which the three bytes can't exceed. What is behind
//! an error has already been given: the caller ends the session, and bytes of which a part has passed
//! were understood as they passed.
//!
//! Memory: zlib holds 32 KiB of window. zstd holds a window of as much as a frame claims, at most
//! [`ZSTD_WINDOW_LOG_MAX`]: 16 MiB, which is let go of behind each frame of more than [`KEPT_BYTES`].

mod decoder;
mod encoder;

pub use decoder::{Decoder, Read};
pub use encoder::Encoder;

use crate::capability::{COMPRESS, ZSTD};

/// Bytes of a compressed packet's header.
pub(crate) const HEADER_BYTES: usize = 7;
/// What is shorter is not compressed, in bytes (manual: `MIN_COMPRESS_LENGTH`).
pub const COMPRESS_BYTES_MIN: usize = 50;
/// The most that a compressed packet can hold, in bytes, unpacked.
pub const FULL_BYTES: usize = crate::frame::FULL_BYTES;
/// The largest window that a zstd frame may ask for, as a power of two: the longest content.
pub(crate) const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// What a packet of more than that needed is given back when it ends, in bytes.
pub(crate) const KEPT_BYTES: usize = 1024 * 1024;
/// The highest zstd level that is spent on behalf of a client: above, memory grows by the megabyte.
const ZSTD_LEVEL_MAX: u8 = 9;
/// What C clients and servers pack with.
const ZLIB_LEVEL: u8 = 6;

/// How the content of compressed packets is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `CLIENT_COMPRESS`.
    Zlib,
    /// `CLIENT_ZSTD_COMPRESSION_ALGORITHM`.
    Zstd,
}

/// An algorithm, and how hard to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// How.
    pub algorithm: Algorithm,
    /// How hard: 1 is fastest.
    pub level: u8,
}

impl Packing {
    /// What both sides agreed on. Of both algorithms it is zlib (manual, "Compression").
    pub(crate) fn agreed(capabilities: u64, zstd_level: Option<u8>) -> Option<Self> {
        if capabilities & COMPRESS != 0 {
            return Some(Self { algorithm: Algorithm::Zlib, level: ZLIB_LEVEL });
        }
        let level = zstd_level.unwrap_or(1).clamp(1, ZSTD_LEVEL_MAX);
        (capabilities & ZSTD != 0).then_some(Self { algorithm: Algorithm::Zstd, level })
    }

    /// The same for a leg that never leaves the host.
    pub(crate) const fn fastest(self) -> Self {
        Self { level: 1, ..self }
    }
}

/// A compressed packet that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It holds nothing.
    Empty,
    /// Its content is not of that algorithm.
    Content,
    /// Its content is shorter than its header claims.
    Short,
    /// Its content is longer than its header claims, or goes on behind its own end.
    Long,
}

impl Broken {
    /// What is wrong with it.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Empty => "a compressed packet holds nothing",
            Self::Content => "a compressed packet does not unpack",
            Self::Short => "a compressed packet holds less than it claims",
            Self::Long => "a compressed packet holds more than it claims",
        }
    }
}

#[cfg(test)]
mod tests;
