//! Small SQLite databases beside the log: how they are opened, and how threads share them.
//!
//! Promise: what was committed is on disk before the call returns (`synchronous = FULL`, write-ahead log). A
//! panic of one thread leaves the database usable for the others, for SQLite rolls its transaction back.
//!
//! Limits: a writer waits for another one at most [`BUSY_WAIT`], then it fails.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::Connection;

/// How long a statement waits for another connection's lock.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(10);

/// One database, shared by threads.
pub(crate) struct Db(Mutex<Connection>);

impl Db {
    /// Opens it, makes it where it isn't there, and runs `schema`, which must bear being run again.
    pub(crate) fn open(path: &Path, schema: &str) -> anyhow::Result<Self> {
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open(path)?;
            db.busy_timeout(BUSY_WAIT)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            db.execute_batch(schema)?;
            Ok(db)
        };
        let db = open().with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(Mutex::new(db)))
    }

    /// The connection, for one thread at a time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
