//! What a statement of MySQL or MariaDB does.
//!
//! A [lexer] of our own reads the text as the server will (its version, `ANSI_QUOTES`,
//! `NO_BACKSLASH_ESCAPES`, the character set), expands executable comments and splits statements. Queries
//! and changes of rows are then parsed by `sqlparser` from these very tokens, and walked; all other
//! statements have a small grammar of our own, which looks at the verb and the names. [lineage] follows their
//! columns.
//!
//! Promises: what is not read by one of the two is *unknown* and carries
//! [`tidegate_event::Action::Unknown`]. No text can panic or overflow the stack of a 2 MiB thread. The
//! same `Arc` comes back for queries and changes of rows that differ only in literals.
//!
//! What it can't do, each with a test in `tests/mysql.rs`:
//! - Without a catalogue ([`Analyzer::analyze`]) a view stands for itself; a trigger or stored function always
//!   does.
//! - Whether the server tells table names apart by case is not known: a name with capitals has its
//!   effects on the name as written and on the one in lower case.
//! - A routine, trigger or event is `ddl`, and what its body does is told only when the server runs it
//!   (`execute`). Where the end of the body is not found (see [routine]), the text is unknown as well.
//! - `EXECUTE` of a statement that was prepared in SQL is unknown here, where a session isn't seen (its
//!   driver may know it, see [`Named`]); `PREPARE` and `EXECUTE IMMEDIATE` of a
//!   constant are looked into.
//! - `sql_mode = ORACLE` is read like any other.
//! - Expressions of more than about 50 nested levels, or [`CHAIN_MAX`] operators in a row, are unknown.

mod admin;
mod behind;
mod ddl;
mod found;
mod function;
mod lexer;
mod lineage;
mod literals;
mod names;
mod query;
mod routine;
mod rows;
mod set;
mod touches;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_event::{Action, Analysis, Effect, Lineage, Rows, StatementKind, Unknown};

use crate::Catalogue;
use crate::analyzer::{CACHED_TEXT_BYTES_MAX, Shard};
use crate::shape::fnv1a;
use found::Found;
use lexer::Lexed;
use lineage::Place;

pub use literals::{literals, placeholders};
pub use names::{charset_of_name, folded};
pub use query::CHAIN_MAX;
pub use touches::{Named, Touch, Touches, touches};

/// Longest text that is read; a longer one is unknown.
pub(crate) const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Independent parts of the cache, so that sessions seldom wait for each other.
const SHARDS: usize = 8;

/// How the client's character set lets its bytes be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Charset {
    /// UTF-8 with three or four bytes.
    Utf8,
    /// One byte a character.
    SingleByte,
    /// Another one, or one that is not known: a byte in it may be the second of a character.
    #[default]
    Other,
}

/// Which server reads the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Server {
    /// MariaDB and not MySQL.
    pub mariadb: bool,
    /// `10.11.6` as 101106; `None` where it is not known.
    pub version: Option<u32>,
}

/// What of the session changes how a text reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Settings {
    /// `sql_mode` has `ANSI_QUOTES`.
    pub ansi_quotes: bool,
    /// `sql_mode` has `NO_BACKSLASH_ESCAPES`.
    pub no_backslash_escapes: bool,
    /// `character_set_client`.
    pub charset: Charset,
    /// The server.
    pub server: Server,
}

/// Tells what statements do. Shared by all sessions.
#[derive(Debug)]
pub struct Analyzer {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new()
    }
}

impl Analyzer {
    /// An analyser that remembers nothing yet.
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// What the text does, whether parsed now or remembered. Its names are those that it has.
    pub fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis> {
        self.answer(text, settings, Place::default())
    }

    /// What the text does in that database of what `catalogue` holds: its lineage then follows views, and
    /// spells stars out, and what it does to a view it also does to what is behind it. `None` where the
    /// session's database is not known. The catalogue's names are in lower case.
    pub fn resolve(
        &self,
        text: &[u8],
        settings: Settings,
        catalogue: &Arc<Catalogue>,
        database: Option<&str>,
    ) -> Arc<Analysis> {
        let database = database.map(folded);
        self.answer(text, settings, Place { catalogue: Some(Arc::clone(catalogue)), database })
    }

    fn answer(&self, text: &[u8], settings: Settings, place: Place) -> Arc<Analysis> {
        if text.len() > TEXT_BYTES_MAX {
            return self.too_long(u64::try_from(text.len()).unwrap_or(u64::MAX));
        }
        let exact = key(b'e', settings, &place, text);
        if text.len() <= CACHED_TEXT_BYTES_MAX
            && let Some(known) = self.shard(&exact).get(&exact)
        {
            return known;
        }
        let lexed = match lexer::lex(text, settings) {
            Ok(lexed) => lexed,
            Err(reason) => return Arc::new(unknown(reason, Some(fnv1a(text)))),
        };
        let shape = lexed.shape();
        let mut shaped = key(b's', settings, &place, &shape);
        shaped.extend(lexed.places());
        if text.len() <= CACHED_TEXT_BYTES_MAX
            && let Some(known) = self.shard(&shaped).get(&shaped)
        {
            return known;
        }
        let (analysis, literals_matter) = fresh(&lexed, text, settings, place, fnv1a(&shape));
        let analysis = Arc::new(analysis);
        if text.len() > CACHED_TEXT_BYTES_MAX {
            return analysis;
        }
        let key = if literals_matter { exact } else { shaped };
        self.shard(&key).put(key, &analysis)
    }

    /// For a text of which only a part is held: always unknown.
    pub fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        Arc::new(unknown(format!("it is {bytes} bytes long, more than {TEXT_BYTES_MAX}"), None))
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let sum = usize::try_from(self.hasher.hash_one(key) % 8).unwrap_or_default();
        let [first, ..] = &self.shards;
        let shard = self.shards.get(sum).unwrap_or(first);
        // A shard is whole between calls, so a panic elsewhere can't have broken it.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(class: u8, settings: Settings, place: &Place, text: &[u8]) -> Vec<u8> {
    let Settings { ansi_quotes, no_backslash_escapes, charset, server } = settings;
    let charset = match charset {
        Charset::Utf8 => 0,
        Charset::SingleByte => 1,
        Charset::Other => 2,
    };
    let flags = u8::from(ansi_quotes)
        | u8::from(no_backslash_escapes) << 1
        | u8::from(server.mariadb) << 2
        | charset << 3
        | u8::from(place.catalogue.is_some()) << 5;
    let mut key = Vec::with_capacity(text.len() + 16);
    key.extend([class, flags]);
    key.extend(server.version.unwrap_or_default().to_le_bytes());
    if let Some(catalogue) = &place.catalogue {
        key.extend(catalogue.version().to_le_bytes());
        // No name holds a zero byte.
        key.extend(place.database.iter().flat_map(|name| [&[1], name.as_bytes()].concat()));
        key.push(0);
    }
    key.extend(text);
    key
}

/// Analyses without the cache; also tells whether a literal's value mattered.
fn fresh(
    lexed: &Lexed,
    text: &[u8],
    settings: Settings,
    place: Place,
    fingerprint: u64,
) -> (Analysis, bool) {
    let mut found = Found::new(settings, place);
    found.statements(lexed, text);
    behind::follow(&mut found);
    let by_text = found.literals_matter || found.unknown.is_some();
    let Found { kinds, effects, unknown, notes, all, later, .. } = found;
    let lineage = match &unknown {
        Some(reason) => untold(reason, kinds.len()),
        None => notes.end(all, later),
    };
    let analysis = Analysis {
        lineage,
        kinds: kinds.into_iter().map(StatementKind).collect(),
        effects: effects.into_iter().collect(),
        fingerprint: Some(fingerprint),
        unknown: unknown.map(|reason| Unknown { reason }),
    };
    (analysis, by_text)
}

/// The lineage of what is not understood.
fn untold(reason: &str, statements: usize) -> Lineage {
    Lineage {
        rows: vec![Rows::Opaque(reason.to_owned()); statements],
        filters_opaque: Some(reason.to_owned()),
        values_opaque: Some(reason.to_owned()),
        ..Lineage::default()
    }
}

fn unknown(reason: String, fingerprint: Option<u64>) -> Analysis {
    Analysis {
        kinds: vec![StatementKind("unknown".to_owned())],
        effects: vec![Effect { action: Action::Unknown, relation: None, bounded: true }],
        lineage: untold(&reason, 1),
        unknown: Some(Unknown { reason }),
        fingerprint,
    }
}
