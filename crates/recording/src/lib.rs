//! What a result was: a digest over the bytes that went to the client, and those bytes themselves where
//! a policy keeps them. Described for readers without this code in `docs/formats/recording.md`.
//!
//! Promises: only what leaves is taken, so what is masked for the client is masked here; however it was
//! cut into reads, the digest and the joined chunks are the same; constant memory ([`CHUNK_BYTES`]
//! beside the hash and the first kilobyte). A result that may show what is protected (somebody may see it) is never kept, and
//! its digest is keyed: few such values exist, and a plain digest could be tried one by one.
//!
//! Limits: [`KEPT_BYTES_MAX`] of a result are kept; what is beyond is in the digest, and the record says so.

mod defuse;
pub mod mysql;
mod read;
mod transcript;

use bytes::Bytes;
use tidegate_event::{Column, NotKept, Recorded};

pub use transcript::{PENDING_MS_MAX, Part, TRANSCRIPT_BYTES_MAX, Transcript};

pub use defuse::{Defuser, SEQUENCE_BYTES_MAX};
pub use read::{Joined, Message, Row, Unreadable, messages};

/// Largest chunk of kept rows, in bytes: with its header a record stays under its own limit.
pub const CHUNK_BYTES: usize = 48 * 1024;

/// Most of one result that is kept, in bytes.
pub const KEPT_BYTES_MAX: u64 = 1 << 20;

/// How a result is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct How {
    /// Its bytes are kept.
    pub keep: bool,
    /// It may show what is protected.
    pub secret: bool,
    /// For the digest of such a result; without it there is none.
    pub key: Option<[u8; 32]>,
}

/// A part of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where in the result it begins, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub data: Bytes,
}

/// Results up to so many bytes are hashed in one go at their end: one chunk of BLAKE3's. Most are that small,
/// and its state for larger ones is 2 kB.
const SMALL_BYTES_MAX: usize = blake3::CHUNK_LEN;

/// What was taken, for the digest.
enum Taken {
    Small(Vec<u8>),
    Large(Box<blake3::Hasher>),
}

/// Takes one result as it leaves.
pub struct Recorder {
    /// `None` where there is no digest.
    taken: Option<Taken>,
    how: How,
    bytes: u64,
    /// RowDescriptions that came.
    results: u32,
    columns: Vec<Column>,
    chunk: Vec<u8>,
    kept: u64,
}

impl Recorder {
    /// For a result of which nothing has left yet.
    pub fn new(how: How) -> Self {
        let has_digest = !how.secret || how.key.is_some();
        let taken = has_digest.then(|| Taken::Small(Vec::new()));
        Self { taken, how, bytes: 0, results: 0, columns: Vec::new(), chunk: Vec::new(), kept: 0 }
    }

    /// The columns of the next result of the operation; those of its first are recorded.
    pub fn described(&mut self, columns: impl FnOnce() -> Vec<Column>) {
        if self.results == 0 {
            self.columns = columns();
        }
        self.results = self.results.saturating_add(1);
    }

    /// Takes the next bytes that leave, and hands out each chunk that is full.
    pub fn take(&mut self, bytes: &[u8], mut full: impl FnMut(Chunk)) {
        match &mut self.taken {
            None => {}
            Some(Taken::Small(small)) if small.len() + bytes.len() <= SMALL_BYTES_MAX => {
                small.extend_from_slice(bytes);
            }
            Some(Taken::Small(small)) => {
                let mut hasher = match self.how.key.filter(|_| self.how.secret) {
                    Some(key) => blake3::Hasher::new_keyed(&key),
                    None => blake3::Hasher::new(),
                };
                hasher.update(small).update(bytes);
                self.taken = Some(Taken::Large(Box::new(hasher)));
            }
            Some(Taken::Large(hasher)) => {
                hasher.update(bytes);
            }
        }
        self.bytes = self.bytes.saturating_add(as_u64(bytes.len()));
        if !self.how.keep || self.how.secret {
            return;
        }
        let room = KEPT_BYTES_MAX.saturating_sub(self.kept + as_u64(self.chunk.len()));
        let mut rest = bytes;
        if as_u64(rest.len()) > room {
            rest = rest.get(..usize::try_from(room).unwrap_or(0)).unwrap_or_default();
        }
        while !rest.is_empty() {
            let free = CHUNK_BYTES.saturating_sub(self.chunk.len());
            let (now, later) = rest.split_at_checked(free).unwrap_or((rest, &[]));
            self.chunk.extend_from_slice(now);
            rest = later;
            if self.chunk.len() >= CHUNK_BYTES {
                full(self.chunk());
            }
        }
    }

    fn chunk(&mut self) -> Chunk {
        let offset = self.kept;
        self.kept = self.kept.saturating_add(as_u64(self.chunk.len()));
        Chunk { offset, data: std::mem::take(&mut self.chunk).into() }
    }

    /// The last chunk, and what is recorded of the whole.
    pub fn finish(mut self) -> (Option<Chunk>, Recorded) {
        let last = (!self.chunk.is_empty()).then(|| self.chunk());
        let not_kept = match self.how {
            How { keep: false, .. } => None,
            How { secret: true, .. } => Some(NotKept::Protected),
            How { .. } => (self.kept < self.bytes).then_some(NotKept::Limit),
        };
        let digest = self.taken.map(|taken| match (taken, self.how.key) {
            (Taken::Small(small), Some(key)) if self.how.secret => blake3::keyed_hash(&key, &small),
            (Taken::Small(small), _) => blake3::hash(&small),
            (Taken::Large(hasher), _) => hasher.finalize(),
        });
        let recorded = Recorded {
            digest: digest.map(|digest| *digest.as_bytes()),
            keyed: self.how.secret,
            bytes: self.bytes,
            results: self.results,
            columns: self.columns,
            kept: self.kept,
            not_kept,
        };
        (last, recorded)
    }
}

/// The digest of a result that is at hand whole.
pub fn digest(result: &[u8]) -> [u8; 32] {
    *blake3::hash(result).as_bytes()
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
