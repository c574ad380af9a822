//! What ran over SSH wrote, as it went to the client: a digest over all of it, and where a policy keeps it the
//! bytes themselves, with the moments at which they went and the terminal's sizes.
//!
//! Promises: the digest is BLAKE3 over what was written, standard output and standard error in the order in which they
//! were sent, however they were cut. Parts keep that order; a size stands where it came. What the client typed is not
//! in it: whether the far side shows it can't be seen, and it may be a password.
//!
//! Limits: [`TRANSCRIPT_BYTES_MAX`] are kept; what is beyond is in the digest, and the record says so. The moment
//! of a part is that of its record, so its first bytes may be [`PENDING_MS_MAX`] older.

use bytes::Bytes;
use tidegate_event::{NotKept, Recorded, Stream};

use crate::{CHUNK_BYTES, as_u64};

/// Most of one transcript that is kept, in bytes.
pub const TRANSCRIPT_BYTES_MAX: u64 = 64 << 20;

/// How long bytes may wait for more of them before they are recorded, in milliseconds.
pub const PENDING_MS_MAX: u64 = 20;

/// A part of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What its bytes are.
    pub stream: Stream,
    /// How many bytes were written before it.
    pub offset: u64,
    /// Its bytes; of a size `COLUMNSxROWS`.
    pub data: Bytes,
}

/// Takes what is written.
pub struct Transcript {
    hasher: blake3::Hasher,
    keep: bool,
    bytes: u64,
    kept: u64,
    pending: Vec<u8>,
    stream: Stream,
}

impl Transcript {
    /// Of something that has written nothing yet.
    pub fn new(keep: bool) -> Self {
        let (hasher, pending) = (blake3::Hasher::new(), Vec::new());
        Self { hasher, keep, bytes: 0, kept: 0, pending, stream: Stream::Output }
    }

    /// Whether bytes wait for more of them, or for [`Self::flush`].
    pub const fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes what was written next, and hands out the parts that are full.
    pub fn take(&mut self, stream: Stream, bytes: &[u8], mut full: impl FnMut(Part)) {
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(as_u64(bytes.len()));
        if !self.keep {
            return;
        }
        if stream != self.stream {
            self.flush(&mut full);
            self.stream = stream;
        }
        let room = TRANSCRIPT_BYTES_MAX.saturating_sub(self.kept + as_u64(self.pending.len()));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut rest = bytes.get(..room).unwrap_or(bytes);
        while !rest.is_empty() {
            let free = CHUNK_BYTES.saturating_sub(self.pending.len());
            let (now, later) = rest.split_at_checked(free).unwrap_or((rest, &[]));
            self.pending.extend_from_slice(now);
            rest = later;
            if self.pending.len() >= CHUNK_BYTES {
                self.flush(&mut full);
            }
        }
    }

    /// The terminal has this size from now on.
    pub fn resize(&mut self, columns: u32, rows: u32, mut full: impl FnMut(Part)) {
        if !self.keep {
            return;
        }
        self.flush(&mut full);
        let data = format!("{columns}x{rows}").into();
        full(Part { stream: Stream::Size, offset: self.kept, data });
    }

    /// Hands out what waits.
    pub fn flush(&mut self, mut full: impl FnMut(Part)) {
        if self.pending.is_empty() {
            return;
        }
        let offset = self.kept;
        self.kept = self.kept.saturating_add(as_u64(self.pending.len()));
        full(Part { stream: self.stream, offset, data: std::mem::take(&mut self.pending).into() });
    }

    /// What is recorded of the whole; the last part is handed out first.
    pub fn finish(mut self, full: impl FnMut(Part)) -> Recorded {
        self.flush(full);
        Recorded {
            digest: Some(*self.hasher.finalize().as_bytes()),
            keyed: false,
            bytes: self.bytes,
            results: 0,
            columns: Vec::new(),
            kept: self.kept,
            not_kept: (self.keep && self.kept < self.bytes).then_some(NotKept::Limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_joined_are_what_was_written_and_sizes_stand_where_they_came() {
        let mut parts = Vec::new();
        let mut transcript = Transcript::new(true);
        transcript.resize(80, 24, |part| parts.push(part));
        transcript.take(Stream::Output, b"one", |part| parts.push(part));
        transcript.take(Stream::Output, b" two", |part| parts.push(part));
        transcript.take(Stream::Errors, b"oops", |part| parts.push(part));
        assert!(transcript.is_pending());
        transcript.resize(100, 30, |part| parts.push(part));
        transcript.take(Stream::Output, &vec![b'x'; CHUNK_BYTES + 1], |part| parts.push(part));
        let recorded = transcript.finish(|part| parts.push(part));
        let told: Vec<(Stream, u64, usize)> =
            parts.iter().map(|part| (part.stream, part.offset, part.data.len())).collect();
        let expected = [
            (Stream::Size, 0, 5),
            (Stream::Output, 0, 7),
            (Stream::Errors, 7, 4),
            (Stream::Size, 11, 6),
            (Stream::Output, 11, CHUNK_BYTES),
            (Stream::Output, 11 + CHUNK_BYTES as u64, 1),
        ];
        assert_eq!(told, expected);
        let written: Vec<u8> = parts
            .iter()
            .filter(|part| part.stream != Stream::Size)
            .flat_map(|part| part.data.to_vec())
            .collect();
        assert_eq!(recorded.digest, Some(crate::digest(&written)));
        assert_eq!(
            (recorded.bytes, recorded.kept, recorded.not_kept),
            (recorded.bytes, recorded.bytes, None)
        );
    }

    #[test]
    fn what_is_not_kept_is_in_the_digest_alone() {
        let mut transcript = Transcript::new(false);
        transcript.take(Stream::Output, b"secret", |_| panic!("kept"));
        transcript.resize(1, 1, |_| panic!("kept"));
        let recorded = transcript.finish(|_| panic!("kept"));
        assert_eq!(recorded.digest, Some(crate::digest(b"secret")));
        assert_eq!((recorded.bytes, recorded.kept, recorded.not_kept), (6, 0, None));
    }
}
