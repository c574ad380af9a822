//! What the databases hold that sessions log in to, kept as true as the agent can know it.
//!
//! Promises:
//! - One reader for each target, server address and database that a session goes to, shared by its
//!   sessions; readers run on the agent's own threads, so that no lane waits for a reading. A session's
//!   login (in MySQL its first statement) waits for the first reading, at most
//!   [`FIRST_READING_SECONDS_MAX`].
//! - A catalogue that may be out of date is not given out for a true one. From the moment when a session
//!   sends something that may be DDL, until its transaction has ended and a reading that began after
//!   that is there, [`Source::current`] says [`Fresh::No`] to every session of that database.
//! - No two readings share a version.
//! - What can't be read is an error in the log and a count; sessions go on without.
//!
//! Limits: [`DATABASES_MAX`] readers; beyond that sessions go without a catalogue. The bounds of one
//! reading stand in `catalogue/reader.rs`.
//!
//! Known gaps: DDL that does not pass the gate, and DDL inside of functions, is seen at the next
//! regular reading only (`catalogue.refresh_seconds`).

mod mysql;
mod paths;
mod postgres;
mod reader;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidegate_event::Protocol;
use tidegate_sql::Catalogue;
use tokio::sync::{Notify, watch};

use crate::config::masking::PASSWORD_FILE_BYTES_MAX;
use crate::config::{CatalogueConfig, read_capped};
use crate::masking::Views;
use crate::telemetry::Metrics;
use crate::tls::ServerVerification;
pub use mysql::SYSTEM_DATABASES;
pub use paths::Paths;
use reader::Login;

/// Most databases whose catalogues are kept.
pub const DATABASES_MAX: usize = 256;

/// How long a login waits for its database's first reading, in seconds.
pub const FIRST_READING_SECONDS_MAX: u64 = 10;

/// How long a session waits after its own DDL for the next reading, in milliseconds.
pub const CATCH_UP_MS_MAX: u64 = 2000;

/// Readings of one database begin at least so far apart, in milliseconds, so that a flood of DDL does
/// not become a flood of readings.
const PAUSE_MS: u64 = 20;

/// Pause after a reading that failed, in milliseconds.
const RETRY_MS: u64 = 2000;

/// How long a catalogue is kept that no session uses, in regular readings.
const IDLE_READINGS: u32 = 10;

/// Which database of which server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// How the server is asked.
    pub protocol: Protocol,
    /// The target's name.
    pub target: String,
    /// The server's own address: another server of the same target has other OIDs.
    pub server: SocketAddr,
    /// The database; empty where one catalogue is the whole server's, as in MySQL.
    pub database: String,
}

/// All catalogues of this agent.
pub struct Catalogues {
    sources: Mutex<HashMap<Place, Weak<Source>>>,
    versions: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Handle,
}

/// One reading.
pub struct Reading {
    /// What it found.
    pub catalogue: Arc<Catalogue>,
    /// Child and parent of each partition and each inheriting table, by OID.
    pub parents: Vec<(u32, u32)>,
    /// Views whose definitions the catalogue's account may not read.
    unread_views: usize,
    /// How names are looked up in it.
    pub paths: Arc<Paths>,
    state: [u8; 32],
    /// A version for another catalogue that is made of it.
    pub other: u64,
    /// What is made of it for masking.
    pub views: Views,
}

#[cfg(test)]
impl Reading {
    /// That catalogue and nothing else; `state` stands for it.
    fn of(catalogue: Catalogue, state: u8) -> Self {
        Self {
            catalogue: Arc::new(catalogue),
            parents: Vec::new(),
            unread_views: 0,
            paths: Arc::default(),
            state: [state; 32],
            other: 0,
            views: Views::default(),
        }
    }
}

/// Whether a reading is as new as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// It is.
    Yes,
    /// Something may have changed since.
    No,
}

/// One database's catalogue, as all sessions there see it.
pub struct Source {
    place: Place,
    state: Mutex<State>,
    /// Counts what may change [`Source::current`]; a session looks no further while it stands still.
    changes: AtomicU64,
    wake: Notify,
    attempts: watch::Sender<u64>,
    /// Its reader goes: whoever wants it now needs another.
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    reading: Option<Arc<Reading>>,
    /// Which change the reading is later than.
    after: u64,
    /// Counts changes of the database that are known of.
    changed: u64,
    /// Sessions with DDL under way.
    changing: u32,
}

/// DDL is under way in one session; dropped when its transaction has ended.
pub struct Change(Arc<Source>);

impl Catalogues {
    /// None yet. Readers run on `runtime`.
    pub fn new(metrics: Arc<Metrics>, runtime: tokio::runtime::Handle) -> Self {
        let versions = Arc::new(AtomicU64::new(1));
        Self { sources: Mutex::default(), versions, metrics, runtime }
    }

    /// The catalogue of `place`, read from now on if it was not; `None` where there are too many.
    pub fn of(
        &self,
        place: Place,
        config: &CatalogueConfig,
        verification: Option<Arc<ServerVerification>>,
    ) -> Option<Arc<Source>> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sources.get(&place).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| !known.ended.load(Ordering::SeqCst)) {
            return Some(known);
        }
        sources.retain(|_, source| source.strong_count() > 0);
        if sources.len() >= DATABASES_MAX {
            tracing::error!(
                target_name = place.target,
                "more than {DATABASES_MAX} databases: this one's catalogue is not read"
            );
            self.metrics.catalogue_failed();
            return None;
        }
        let source = Arc::new(Source::new(place.clone()));
        sources.insert(place, Arc::downgrade(&source));
        let reader = Reader {
            source: Arc::clone(&source),
            config: config.clone(),
            verification,
            versions: Arc::clone(&self.versions),
            metrics: Arc::clone(&self.metrics),
        };
        self.runtime.spawn(reader.run());
        Some(source)
    }
}

impl Source {
    fn new(place: Place) -> Self {
        Self {
            place,
            state: Mutex::default(),
            changes: AtomicU64::new(1),
            wake: Notify::new(),
            attempts: watch::Sender::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Counts what may change [`Self::current`]: the same number, the same answer.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The newest reading, and whether nothing that is known of may have changed since.
    pub fn current(&self) -> Option<(Arc<Reading>, Fresh)> {
        let state = self.state();
        let reading = Arc::clone(state.reading.as_ref()?);
        let fresh = state.changing == 0 && state.after >= state.changed;
        Some((reading, if fresh { Fresh::Yes } else { Fresh::No }))
    }

    /// Waits until the first reading has ended, well or not, for a bounded time.
    pub async fn first_reading(&self) {
        let mut attempts = self.attempts.subscribe();
        let limit = Duration::from_secs(FIRST_READING_SECONDS_MAX);
        let ended = attempts.wait_for(|attempts| *attempts > 0);
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!(
                target_name = self.place.target,
                "a session did not wait longer for its database's catalogue"
            );
        }
    }

    /// Waits until a reading is there that is as new as can be told, for a bounded time; after a first
    /// reading that failed, not at all.
    pub async fn caught_up(&self) {
        self.first_reading().await;
        if self.current().is_none() {
            return;
        }
        let mut attempts = self.attempts.subscribe();
        let fresh = attempts.wait_for(|_| matches!(self.current(), Some((_, Fresh::Yes))));
        // What is not known by then counts as what it may be.
        _ = tokio::time::timeout(Duration::from_millis(CATCH_UP_MS_MAX), fresh).await;
    }

    /// Something that may be DDL is about to be sent.
    pub fn changing(self: &Arc<Self>) -> Change {
        self.state().changing += 1;
        self.changes.fetch_add(1, Ordering::AcqRel);
        Change(Arc::clone(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between calls, so a panic elsewhere can't have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reading that began after change number `after` found this. Where that is what was known before,
    /// it stays what it was, so that nothing that was made of it has to be made anew. Otherwise it is
    /// given back.
    fn publish(&self, reading: Reading, after: u64) -> Option<Arc<Reading>> {
        let mut state = self.state();
        let was_fresh = state.after >= state.changed;
        let same = state.reading.as_ref().is_some_and(|known| known.state == reading.state);
        let new = (!same).then(|| Arc::new(reading));
        if let Some(new) = &new {
            state.reading = Some(Arc::clone(new));
        }
        state.after = after;
        drop(state);
        if !same || !was_fresh {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        self.attempted();
        new
    }

    fn attempted(&self) {
        self.attempts.send_modify(|attempts| *attempts += 1);
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.changing = state.changing.saturating_sub(1);
        state.changed += 1;
        drop(state);
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
impl Source {
    /// One that nobody reads.
    pub fn unread(protocol: Protocol) -> Arc<Self> {
        let server = SocketAddr::from(([127, 0, 0, 1], 1));
        let (target, database) = ("t".to_owned(), String::new());
        Arc::new(Self::new(Place { protocol, target, server, database }))
    }

    /// This was read just now; `state` stands for it.
    pub fn read_now(&self, catalogue: Catalogue, state: u8) {
        let after = self.state().changed;
        self.publish(Reading::of(catalogue, state), after);
    }
}

/// Reads one database again and again.
struct Reader {
    source: Arc<Source>,
    config: CatalogueConfig,
    verification: Option<Arc<ServerVerification>>,
    versions: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Reader {
    async fn run(self) {
        let mut idle = 0;
        let mut failing = false;
        while idle < IDLE_READINGS || self.is_wanted_after_all() {
            let after = self.source.state().changed;
            let wait = match self.read().await {
                Ok(reading) => {
                    failing = false;
                    if let Some(new) = self.source.publish(reading, after) {
                        self.told(&new);
                    }
                    self.config.refresh_ms
                }
                Err(why) => {
                    self.failed(&why, failing);
                    failing = true;
                    self.source.attempted();
                    RETRY_MS.min(self.config.refresh_ms)
                }
            };
            tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
            let woken =
                tokio::time::timeout(Duration::from_millis(wait), self.source.wake.notified());
            let used = woken.await.is_ok() || Arc::strong_count(&self.source) > 1;
            idle = if used { 0 } else { idle + 1 };
        }
    }

    /// Whether a session took the source in the moment in which its reader meant to go.
    fn is_wanted_after_all(&self) -> bool {
        self.source.ended.store(true, Ordering::SeqCst);
        let wanted = Arc::strong_count(&self.source) > 1;
        self.source.ended.store(!wanted, Ordering::SeqCst);
        wanted
    }

    async fn read(&self) -> Result<Reading, String> {
        let password = self.config.password_file.as_deref().map(password_in).transpose()?;
        // Two: one for what is read, one for what may be made of it.
        let version = self.versions.fetch_add(2, Ordering::Relaxed);
        let login = Login {
            protocol: self.source.place.protocol,
            server: self.source.place.server,
            verification: self.verification.as_deref(),
            database: &self.source.place.database,
            user: &self.config.user,
            password: password.as_deref(),
        };
        let found = reader::read(login, version).await.map_err(|error| error.to_string())?;
        let paths = Paths::new(&found.catalogue, found.path, found.paths);
        Ok(Reading {
            catalogue: Arc::new(found.catalogue),
            parents: found.parents,
            unread_views: found.unread_views,
            paths: Arc::new(paths),
            state: found.state,
            other: version + 1,
            views: Views::default(),
        })
    }

    /// Said of each reading that found something else than the one before.
    fn told(&self, reading: &Reading) {
        let place = &self.source.place;
        tracing::info!(
            target_name = place.target,
            server = %place.server,
            database = place.database,
            relations = reading.catalogue.relations().count(),
            "a catalogue was read"
        );
        if reading.unread_views > 0 {
            tracing::warn!(
                target_name = place.target,
                server = %place.server,
                user = self.config.user,
                views = reading.unread_views,
                "the catalogue's account may not read the definitions of some views: what shows them \
                 counts as unresolved"
            );
        }
    }

    /// Said once for a row of failures, counted each time. An old reading is as good as it was, until
    /// something changes.
    fn failed(&self, why: &str, again: bool) {
        self.metrics.catalogue_failed();
        if !again {
            let place = &self.source.place;
            tracing::error!(
                target_name = place.target,
                server = %place.server,
                database = place.database,
                why,
                "a catalogue cannot be read: what only it tells counts as unresolved"
            );
        }
    }
}

fn password_in(path: &Path) -> Result<String, String> {
    let text = read_capped(path, PASSWORD_FILE_BYTES_MAX)
        .map_err(|why| format!("{} {why}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Arc<Source> {
        Source::unread(Protocol::Postgres)
    }

    fn read_now(source: &Source) {
        source.read_now(Catalogue::default(), 1);
    }

    #[track_caller]
    fn check(source: &Source, expected: Option<Fresh>) {
        assert_eq!(source.current().map(|(_, fresh)| fresh), expected);
    }

    #[test]
    fn a_reading_is_fresh_until_something_changes_and_again_after_the_next_reading() {
        let source = source();
        check(&source, None);
        read_now(&source);
        check(&source, Some(Fresh::Yes));
        let before = source.changes();
        let first = source.changing();
        check(&source, Some(Fresh::No));
        assert!(source.changes() > before);
        // Read while the transaction is open: what it did is not in it.
        let too_early = source.state().changed;
        read_now(&source);
        check(&source, Some(Fresh::No));
        let second = source.changing();
        drop(first);
        read_now(&source);
        check(&source, Some(Fresh::No));
        drop(second);
        source.publish(Reading::of(Catalogue::default(), 1), too_early);
        check(&source, Some(Fresh::No));
        let before = source.changes();
        read_now(&source);
        check(&source, Some(Fresh::Yes));
        assert!(source.changes() > before);
    }

    #[test]
    fn what_reads_as_before_changes_nothing() {
        let source = source();
        read_now(&source);
        let (first, changes) = (source.current().unwrap().0, source.changes());
        read_now(&source);
        assert!(Arc::ptr_eq(&first, &source.current().unwrap().0));
        assert_eq!(source.changes(), changes);
        source.publish(Reading::of(Catalogue::default(), 2), 0);
        assert!(!Arc::ptr_eq(&first, &source.current().unwrap().0));
        assert_ne!(source.changes(), changes);
    }
}
