//! Analyses texts, and remembers.
//!
//! Promises: what the cache answers equals a fresh analysis (`tests/cache.rs`). Texts share an
//! answer only if they share their [shape](crate::shape) *and* the analysis looked at no literal:
//! plain `SELECT`, `INSERT`, `UPDATE`, `DELETE` and `MERGE`, without functions that judge by their
//! arguments. All other texts are remembered byte for byte.
//!
//! Limits: [`CACHED_TEXT_BYTES_MAX`] for a text that is remembered, [`SHARDS`] times two
//! generations of [`GENERATION_ENTRIES_MAX`] texts and [`GENERATION_BYTES_MAX`] bytes of keys.
//! When a generation is full, the older one is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_event::{Action, Analysis, Effect, Lineage, Rows, StatementKind, Unknown};

use crate::parse::{self, Found, TEXT_BYTES_MAX};
use crate::shape;

/// Longest text that is remembered.
pub(crate) const CACHED_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Independent parts of the cache, so that sessions seldom wait for each other.
const SHARDS: usize = 8;

/// Texts in one generation of a shard.
const GENERATION_ENTRIES_MAX: usize = 1024;

/// Bytes of keys in one generation of a shard.
const GENERATION_BYTES_MAX: usize = 1024 * 1024;

/// What of the session changes how a text reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// `standard_conforming_strings`: whether a backslash in a plain string stands for itself.
    pub standard_conforming_strings: bool,
    /// Whether the text is in UTF-8. In another encoding only ASCII is understood.
    pub utf8: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { standard_conforming_strings: true, utf8: true }
    }
}

/// Tells what statements do. Shared by all sessions.
#[derive(Debug)]
pub struct Analyzer {
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new()
    }
}

impl Analyzer {
    /// An analyser that remembers nothing yet.
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// What the text does, whether parsed now or remembered.
    pub fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis> {
        if text.len() > CACHED_TEXT_BYTES_MAX {
            return Arc::new(fresh(text, settings, fingerprint(text)).0);
        }
        let mut key = Vec::with_capacity(text.len().saturating_add(1));
        key.push(class(settings, SHAPE));
        let has_shape = shape::write(text, &mut key);
        if has_shape && let Some(known) = self.shard(&key).get(&key) {
            return known;
        }
        let exact = [&[class(settings, EXACT)], text].concat();
        if let Some(known) = self.shard(&exact).get(&exact) {
            return known;
        }
        let shaped = if has_shape { key.get(1..).unwrap_or_default() } else { text };
        let (analysis, literals_matter) = fresh(text, settings, shape::fnv1a(shaped));
        let analysis = Arc::new(analysis);
        let key = if has_shape && !literals_matter { key } else { exact };
        self.shard(&key).put(key, &analysis)
    }

    /// For a text of which only a part is held: always unknown.
    pub fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        Arc::new(unknown(format!("it is {bytes} bytes long, more than {TEXT_BYTES_MAX}"), None))
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        // A cheap spread: the map hashes for itself. The remainder is below the array's length.
        let sum = key
            .iter()
            .rev()
            .take(16)
            .fold(key.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        let [first, ..] = &self.shards;
        let shard = self.shards.get(sum % SHARDS).unwrap_or(first);
        // A shard is whole between calls, so a panic elsewhere can't have broken it.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// First byte of a key: found by shape.
const SHAPE: u8 = 0;
/// First byte of a key: found by the whole text.
const EXACT: u8 = 4;

fn class(settings: Settings, class: u8) -> u8 {
    class | u8::from(settings.standard_conforming_strings) | (u8::from(settings.utf8) << 1)
}

fn fingerprint(text: &[u8]) -> u64 {
    let mut key = Vec::with_capacity(text.len());
    let has_shape = shape::write(text, &mut key);
    shape::fnv1a(if has_shape { &key } else { text })
}

/// Analyses without the cache; also tells whether a literal's value mattered.
fn fresh(text: &[u8], settings: Settings, fingerprint: u64) -> (Analysis, bool) {
    if text.len() > TEXT_BYTES_MAX {
        let reason = format!("it is {} bytes long, more than {TEXT_BYTES_MAX}", text.len());
        return (unknown(reason, Some(fingerprint)), true);
    }
    if !settings.utf8 && !text.is_ascii() {
        let reason = "it is in an encoding other than UTF-8".to_owned();
        return (unknown(reason, Some(fingerprint)), true);
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return (unknown("it is not valid UTF-8".to_owned(), Some(fingerprint)), true);
    };
    let Found { kinds, effects, unknown, literals_matter } = parse::find(text, settings);
    let analysis = Analysis {
        kinds: kinds.into_iter().map(|kind| StatementKind(kind.to_owned())).collect(),
        effects,
        fingerprint: Some(fingerprint),
        unknown: unknown.map(|reason| Unknown { reason }),
        lineage: untold("lineage is not told yet"),
    };
    let by_text = literals_matter || analysis.unknown.is_some();
    (analysis, by_text)
}

fn unknown(reason: String, fingerprint: Option<u64>) -> Analysis {
    Analysis {
        kinds: vec![StatementKind("unknown".to_owned())],
        effects: vec![Effect { action: Action::Unknown, relation: None, bounded: true }],
        lineage: untold(&reason),
        unknown: Some(Unknown { reason }),
        fingerprint,
    }
}

/// The lineage of what could not be understood.
fn untold(reason: &str) -> Lineage {
    Lineage {
        rows: vec![Rows::Opaque(reason.to_owned())],
        values_opaque: Some(reason.to_owned()),
        ..Lineage::default()
    }
}

type Generation = HashMap<Box<[u8]>, Arc<Analysis>>;

/// Two generations: what was used since the last turn, and what was before it.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    young: Generation,
    old: Generation,
    young_bytes: usize,
}

impl Shard {
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<Arc<Analysis>> {
        if let Some(known) = self.young.get(key) {
            return Some(Arc::clone(known));
        }
        let (key, known) = self.old.remove_entry(key)?;
        Some(self.keep(key, known))
    }

    /// Remembers; where another session was faster, its answer counts, so that all sessions hold
    /// the same `Arc`.
    pub(crate) fn put(&mut self, key: Vec<u8>, analysis: &Arc<Analysis>) -> Arc<Analysis> {
        match self.get(&key) {
            Some(known) => known,
            None => self.keep(key.into_boxed_slice(), Arc::clone(analysis)),
        }
    }

    fn keep(&mut self, key: Box<[u8]>, analysis: Arc<Analysis>) -> Arc<Analysis> {
        let full = self.young.len() >= GENERATION_ENTRIES_MAX
            || self.young_bytes.saturating_add(key.len()) > GENERATION_BYTES_MAX;
        if full {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes = self.young_bytes.saturating_add(key.len());
        self.young.insert(key, Arc::clone(&analysis));
        analysis
    }
}
