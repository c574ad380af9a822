//! The index: what the log says, in tables that can be asked. A projection, never evidence.
//!
//! Promise: everything here comes from the log alone, in the log's order, so that a rebuilt index
//! answers every question with the same bytes. Cursor and rows move in one transaction.
//!
//! Limits: parameters are kept as one JSON array an operation; a text search reads every
//! operation that the other filters leave.
//! Known gaps: one file, not one a day; no full-text table.

mod apply;
mod schema;

pub use self::apply::sentence;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use tidegate_event::{ChainId, Seq};
use tidegate_segment::os::OsFiles;
use tidegate_segment::{Bound, Log};

use crate::db::BUSY_WAIT;
use crate::log::{self, Reader};

/// Entries in one transaction.
pub const ENTRIES_PER_TRANSACTION_MAX: u64 = 4096;

/// The index, open for writing.
pub struct Index {
    db: Connection,
    next: u64,
}

impl Index {
    /// Opens it. An index of another version, or one that is ahead of the log, is made anew.
    pub fn open(path: &Path, log_size: u64) -> anyhow::Result<Self> {
        let index = Self::open_file(path);
        match index {
            Ok(index) if index.next <= log_size => return Ok(index),
            Ok(index) => tracing::warn!(
                indexed = index.next,
                log = log_size,
                "the index is ahead of the log; rebuilding it"
            ),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the index cannot be used; rebuilding it"
            ),
        }
        remove(path)?;
        Self::open_file(path)
    }

    fn open_file(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("index {}", path.display());
        let db = Connection::open(path).with_context(context)?;
        db.busy_timeout(BUSY_WAIT)?;
        db.pragma_update(None, "journal_mode", "WAL").with_context(context)?;
        // A lost tail is indexed again from the log.
        db.pragma_update(None, "synchronous", "NORMAL").with_context(context)?;
        schema::prepare(&db).with_context(context)?;
        let next =
            db.query_row("SELECT next FROM cursor", [], |row| row.get(0)).with_context(context)?;
        Ok(Self { db, next })
    }

    /// Index of the next entry that it has not seen.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes in what the reader has, at most one transaction's worth; how many entries.
    pub fn follow(&mut self, reader: &mut Reader) -> anyhow::Result<u64> {
        let work = self.db.transaction()?;
        let mut next = self.next;
        let mut taken = 0;
        while taken < ENTRIES_PER_TRANSACTION_MAX {
            let Some(frame) = reader.next()? else { break };
            if frame.index < next {
                continue;
            }
            apply::entry(&work, frame.index, &frame.payload)
                .with_context(|| format!("entry {} in {}", frame.index, frame.file))?;
            next = frame.index + 1;
            taken += 1;
        }
        if taken > 0 {
            work.execute("UPDATE cursor SET next = ?1", [next])?;
            work.commit()?;
            self.next = next;
        }
        Ok(taken)
    }
}

/// An index in memory of these entries only, in the order of the log: what they say, without the
/// index on the disk. The Genesis of each entry's chain must be among them.
pub fn in_memory<'a>(entries: impl Iterator<Item = (u64, &'a [u8])>) -> anyhow::Result<Connection> {
    let mut db = Connection::open_in_memory()?;
    schema::prepare(&db)?;
    let work = db.transaction()?;
    for (index, payload) in entries {
        apply::entry(&work, index, payload).with_context(|| format!("entry {index}"))?;
    }
    work.commit()?;
    Ok(db)
}

/// Makes the index anew from the log. Nobody else may have the log open; returns how many entries
/// it holds.
pub fn rebuild(log_dir: &Path, path: &Path) -> anyhow::Result<u64> {
    let segments = log_dir.join(log::SEGMENTS);
    let files = OsFiles::open(&segments).map_err(|error| {
        anyhow::Error::new(error).context(format!(
            "cannot open {}; where the collector is serving, stop it first",
            segments.display()
        ))
    })?;
    let (mut log, _) = Log::open(files, tidegate_segment::Options::default())?;
    let fresh = path.with_extension("db.new");
    remove(&fresh)?;
    let mut index = Index::open_file(&fresh)?;
    let mut reader: Reader = log.read_from(0, Bound::Durable);
    while index.follow(&mut reader)? > 0 {}
    let entries = index.next;
    index.db.close().map_err(|(_, error)| error).context("cannot close the new index")?;
    remove(path)?;
    std::fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))?;
    remove(&fresh)?;
    log.close()?;
    Ok(entries)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let file = PathBuf::from(name);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens the index for questions only.
pub fn open_for_reading(path: &Path) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).with_context(|| {
        format!("cannot open {}; it is made by: tidegate-collector serve", path.display())
    })?;
    db.busy_timeout(BUSY_WAIT)?;
    schema::check(&db).with_context(|| format!("in {}", path.display()))?;
    Ok(db)
}

/// The run of log indexes between whose ends the record is: the seal before it, and its own, or
/// the log's end where it has none. `None`: the index doesn't know the chain.
pub fn sealed_range(
    path: &Path,
    chain_id: &ChainId,
    seq: Seq,
) -> anyhow::Result<Option<(u64, u64)>> {
    let db = open_for_reading(path)?;
    let chain: Option<i64> = db
        .query_row("SELECT id FROM chains WHERE chain_id = ?1", [chain_id.as_bytes()], |row| {
            row.get(0)
        })
        .optional()?;
    let Some(chain) = chain else { return Ok(None) };
    let seal = |sql: &str| -> rusqlite::Result<Option<u64>> {
        db.query_row(sql, params![chain, seq.0.cast_signed()], |row| row.get(0)).optional()
    };
    let to = seal(
        "SELECT idx FROM seals WHERE chain = ?1 AND last_seq >= ?2 ORDER BY last_seq LIMIT 1",
    )?;
    let from = seal(
        "SELECT idx FROM seals WHERE chain = ?1 AND last_seq < ?2 ORDER BY last_seq DESC LIMIT 1",
    )?;
    Ok(Some((from.unwrap_or(0), to.unwrap_or(u64::MAX))))
}
