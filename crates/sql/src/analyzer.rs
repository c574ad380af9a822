//! Analyses texts, and remembers.
//!
//! Promises: what the cache answers equals a fresh analysis (`tests/cache.rs`). Texts share an
//! answer only if they share their [shape](crate::shape) *and* the analysis looked at no literal:
//! plain `SELECT`, `INSERT`, `UPDATE`, `DELETE` and `MERGE`, without functions that judge by their
//! arguments. All other texts are remembered byte for byte.
//!
//! Limits: [`CACHED_TEXT_BYTES_MAX`] for a text that is remembered, [`SHARDS`] times two
//! generations of [`GENERATION_ENTRIES_MAX`] texts and [`GENERATION_BYTES_MAX`] bytes.
//! When a generation is full, the older one is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_event::{Action, Analysis, Effect, Output, Rows, StatementKind, Unknown};

use crate::catalogue::Catalogue;
use crate::parse::{self, Found, TEXT_BYTES_MAX};
use crate::resolve::{self, Names};
use crate::shape;

/// Longest text that is remembered.
pub(crate) const CACHED_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Independent parts of the cache, so that sessions seldom wait for each other.
const SHARDS: usize = 8;

/// Texts in one generation of a shard.
const GENERATION_ENTRIES_MAX: usize = 1024;

/// Bytes of keys and answers in one generation of a shard, as far as they are counted.
const GENERATION_BYTES_MAX: usize = 4 * 1024 * 1024;

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
        self.answer(text, settings, None)
    }

    /// The same, seen through a catalogue and the session's search path (without `$user`: its
    /// schema, where it has one).
    ///
    /// Unqualified relations have their schema where the path tells; stars are spelt out; an effect
    /// on a view is one on what is behind it too; lineage goes through views to base relations. What
    /// the catalogue doesn't have is opaque.
    pub fn resolve(
        &self,
        text: &[u8],
        settings: Settings,
        catalogue: &Catalogue,
        search_path: &[String],
    ) -> Arc<Analysis> {
        self.answer(text, settings, Some(Names { catalogue, path: search_path }))
    }

    fn answer(&self, text: &[u8], settings: Settings, names: Option<Names<'_>>) -> Arc<Analysis> {
        if text.len() > CACHED_TEXT_BYTES_MAX {
            return Arc::new(fresh(text, settings, names, fingerprint(text)).0);
        }
        let mut key = Vec::with_capacity(text.len().saturating_add(1));
        let through = if names.is_some() { RESOLVED } else { 0 };
        key.push(class(settings, SHAPE | through));
        if let Some(names) = names {
            names.write(&mut key);
        }
        let head = key.len();
        let has_shape = shape::write(text, &mut key);
        if has_shape && let Some(known) = self.shard(&key).get(&key) {
            return known;
        }
        let names_key = key.get(1..head).unwrap_or_default();
        let exact = [&[class(settings, EXACT | through)], names_key, text].concat();
        if let Some(known) = self.shard(&exact).get(&exact) {
            return known;
        }
        let shaped = if has_shape { key.get(head..).unwrap_or_default() } else { text };
        let (analysis, literals_matter) = fresh(text, settings, names, shape::fnv1a(shaped));
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
/// Added to the first byte of a key: seen through a catalogue.
const RESOLVED: u8 = 8;

fn class(settings: Settings, class: u8) -> u8 {
    class | u8::from(settings.standard_conforming_strings) | (u8::from(settings.utf8) << 1)
}

fn fingerprint(text: &[u8]) -> u64 {
    let mut key = Vec::with_capacity(text.len());
    let has_shape = shape::write(text, &mut key);
    shape::fnv1a(if has_shape { &key } else { text })
}

/// Analyses without the cache; also tells whether a literal's value mattered.
fn fresh(
    text: &[u8],
    settings: Settings,
    names: Option<Names<'_>>,
    fingerprint: u64,
) -> (Analysis, bool) {
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
    let Found { kinds, effects, unknown, literals_matter, lineage } =
        parse::find(text, settings, names);
    let mut analysis = Analysis {
        kinds: kinds.into_iter().map(|kind| StatementKind(kind.to_owned())).collect(),
        effects,
        fingerprint: Some(fingerprint),
        unknown: unknown.map(|reason| Unknown { reason }),
        lineage,
    };
    if let Some(names) = names {
        resolve::behind(&mut analysis, names);
    }
    let by_text = literals_matter || analysis.unknown.is_some();
    (analysis, by_text)
}

fn unknown(reason: String, fingerprint: Option<u64>) -> Analysis {
    Analysis {
        kinds: vec![StatementKind("unknown".to_owned())],
        effects: vec![Effect { action: Action::Unknown, relation: None, bounded: true }],
        lineage: parse::untold(&reason),
        unknown: Some(Unknown { reason }),
        fingerprint,
    }
}

/// Answers with how much they weigh, in bytes.
type Generation = HashMap<Box<[u8]>, (Arc<Analysis>, usize)>;

/// Two generations: what was used since the last turn, and what was before it.
#[derive(Debug, Default)]
struct Shard {
    young: Generation,
    old: Generation,
    young_bytes: usize,
}

impl Shard {
    fn get(&mut self, key: &[u8]) -> Option<Arc<Analysis>> {
        if let Some((known, _)) = self.young.get(key) {
            return Some(Arc::clone(known));
        }
        let (key, (known, bytes)) = self.old.remove_entry(key)?;
        Some(self.keep(key, known, bytes))
    }

    /// Remembers; where another session was faster, its answer counts, so that all sessions hold
    /// the same `Arc`.
    fn put(&mut self, key: Vec<u8>, analysis: &Arc<Analysis>) -> Arc<Analysis> {
        if let Some(known) = self.get(&key) {
            return known;
        }
        let bytes = key.len().saturating_add(weight(analysis));
        self.keep(key.into_boxed_slice(), Arc::clone(analysis), bytes)
    }

    fn keep(&mut self, key: Box<[u8]>, analysis: Arc<Analysis>, bytes: usize) -> Arc<Analysis> {
        let full = self.young.len() >= GENERATION_ENTRIES_MAX
            || self.young_bytes.saturating_add(bytes) > GENERATION_BYTES_MAX;
        if full {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes = self.young_bytes.saturating_add(bytes);
        self.young.insert(key, (Arc::clone(&analysis), bytes));
        analysis
    }
}

/// About how many bytes an answer takes.
fn weight(analysis: &Analysis) -> usize {
    /// A name or a column with its relation.
    const NAME_BYTES: usize = 128;
    let rows = |rows: &Rows| match rows {
        Rows::Known(outputs) => outputs
            .iter()
            .map(|output| match output {
                Output::One { sources, .. } | Output::Several(sources) => {
                    sources.columns.len().saturating_add(1)
                }
                Output::Star(_) => 1,
            })
            .sum(),
        _ => 1_usize,
    };
    let lineage = &analysis.lineage;
    let later = lineage.later.iter().map(|later| rows(&later.rows));
    let names = [
        analysis.kinds.len(),
        analysis.effects.len(),
        lineage.rows.iter().map(rows).chain(later).sum(),
        lineage.filters.len(),
        lineage.values.iter().map(|value| value.columns.len().saturating_add(1)).sum(),
    ];
    names.iter().sum::<usize>().saturating_mul(NAME_BYTES)
}
