//! The list of segments, shared between the log and its readers.
//!
//! Promise: a frame is in exactly one segment: the one with the greatest ordinal whose first index is not above it.
//! Frames of an older segment at or past a newer one's first index are superseded and never read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place for a seek is kept for each such stretch of a segment.
const PLACE_BYTES: u64 = 1 << 20;

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub name: Arc<str>,
    pub ordinal: u64,
    pub first: u64,
    /// Where the next segment takes over; the greatest number while there is none.
    end: AtomicU64,
    /// Bytes in use, header included.
    bytes: AtomicU64,
    places: Mutex<Vec<(u64, u64)>>,
}

impl Segment {
    pub fn new(ordinal: u64, first: u64, bytes: u64) -> Self {
        Self {
            name: name_of(ordinal).into(),
            ordinal,
            first,
            end: AtomicU64::new(u64::MAX),
            bytes: AtomicU64::new(bytes),
            places: Mutex::new(Vec::new()),
        }
    }

    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes where a frame begins, if the last place noted is far enough behind.
    pub fn note_place(&self, index: u64, offset: u64) {
        let mut places = lock(&self.places);
        if places.last().map_or(0, |&(_, last)| last) + PLACE_BYTES <= offset {
            places.push((index, offset));
        }
    }

    /// The last known place at or before `index`: its index and offset.
    pub fn place_before(&self, index: u64) -> (u64, u64) {
        let places = lock(&self.places);
        let at = places.partition_point(|&(place, _)| place <= index);
        let place = at.checked_sub(1).and_then(|at| places.get(at)).copied();
        place.unwrap_or((self.first, crate::HEADER_BYTES))
    }
}

/// All segments and how far they are filled.
#[derive(Debug, Default)]
pub(crate) struct View {
    segments: Mutex<Vec<Arc<Segment>>>,
    written: AtomicU64,
    durable: AtomicU64,
}

impl View {
    /// Adds a segment, by ordinal; it supersedes what older ones hold from its first index on.
    pub fn add(&self, segment: Arc<Segment>) {
        let mut segments = lock(&self.segments);
        let at = segments.partition_point(|other| other.ordinal < segment.ordinal);
        for other in segments.get(..at).unwrap_or_default() {
            other.end.fetch_min(segment.first, Ordering::AcqRel);
        }
        for later in segments.get(at..).unwrap_or_default() {
            segment.end.fetch_min(later.first, Ordering::AcqRel);
        }
        segments.insert(at, segment);
    }

    pub fn remove(&self, ordinal: u64) {
        lock(&self.segments).retain(|segment| segment.ordinal != ordinal);
    }

    /// The segment that holds `index`.
    pub fn locate(&self, index: u64) -> Option<Arc<Segment>> {
        lock(&self.segments).iter().rev().find(|segment| segment.first <= index).cloned()
    }

    /// All segments, by ordinal.
    pub fn all(&self) -> Vec<Arc<Segment>> {
        lock(&self.segments).clone()
    }

    /// The oldest frame that is kept (or the next one, if none is).
    pub fn oldest(&self) -> u64 {
        let segments = lock(&self.segments);
        segments
            .iter()
            .find(|segment| segment.first < segment.end())
            .map_or(0, |oldest| oldest.first)
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub fn set_written(&self, index: u64) {
        self.written.store(index, Ordering::Release);
    }

    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub fn set_durable(&self, index: u64) {
        self.durable.store(index, Ordering::Release);
    }
}

/// Nothing under these locks can panic half way, so a poisoned one is as good as a whole one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn name_of(ordinal: u64) -> String {
    format!("{ordinal:020}.seg")
}

/// The ordinal that a file name says, if it is a segment's.
pub(crate) fn ordinal_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}
