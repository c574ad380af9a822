//! The spool itself: a handle for many threads around the log, the cursor and the small states.
//!
//! Locks: `meta` (cursor and states) is held while the disk works; `log` never is, except by `append` when a segment is
//! full or the disk has failed. Where both are taken, `meta` comes first.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_segment::os::OsFiles;
use tidegate_segment::{Bound, FRAME_HEAD_BYTES, Files, Log, Reader, SyncDone, SyncTicket, Torn};

use crate::cursor::{Cursor, Found};
use crate::error::SpoolError;
use crate::state;

/// Default for how much may wait for the collector.
const SPOOL_BYTES_MAX: u64 = 4 << 30;
/// Default size of a segment.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Default size of the reserve.
const RESERVE_BYTES: u64 = 4 << 20;
/// Default for how much may wait in memory for the disk.
const BACKLOG_BYTES_MAX: usize = 16 << 20;
const WARN_PERCENT: u64 = 50;
const NO_NEW_SESSIONS_PERCENT: u64 = 80;
const NO_NEW_STATEMENTS_PERCENT: u64 = 95;

/// How a spool is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Marks the segments when the spool is created; an existing one keeps its own. Random bytes are best.
    pub owner: [u8; 32],
    /// Bytes of frames that may wait for the collector.
    pub bytes_max: u64,
    /// Bytes of one segment; at most `bytes_max` is taken.
    pub segment_bytes: u64,
    /// Bytes kept allocated for [`Spool::append_reserved`].
    pub reserve_bytes: u64,
    /// Bytes that may wait in memory until they are durable.
    pub backlog_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owner: [0; 32],
            bytes_max: SPOOL_BYTES_MAX,
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: RESERVE_BYTES,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
        }
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One record.
    Record = 1,
    /// The seal over the records before it.
    Seal = 2,
}

impl Kind {
    /// The kind of a frame that a reader returned; `None` for one that this version does not know.
    pub fn of(kind: u8) -> Option<Self> {
        [Self::Record, Self::Seal].into_iter().find(|&known| known as u8 == kind)
    }
}

/// What opening the spool found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The index that the next frame gets.
    pub next_index: u64,
    /// The oldest frame kept.
    pub oldest_index: u64,
    /// All frames below are acknowledged.
    pub acknowledged: u64,
    /// Bytes behind the last good frame that were cut.
    pub lost_bytes: u64,
    /// Where they began.
    pub torn: Option<Torn>,
    /// The spool was closed in order.
    pub clean: bool,
    /// There was none; this is a new one.
    pub created: bool,
    /// The cursor was unreadable: what is kept counts as not acknowledged.
    pub cursor_lost: bool,
}

/// How full the spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes that wait for the collector (rounded up by at most a MiB; after a start, by at most a segment).
    pub used: u64,
    /// Bytes that may.
    pub max: u64,
    /// What that means.
    pub level: Level,
}

/// The ladder of a filling spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Less than half.
    Normal,
    /// From 50 %: warn.
    Warn50,
    /// From 80 %: no new sessions where the target fails closed.
    NoNewSessions80,
    /// From 95 %: no new statements there.
    NoNewStatements95,
    /// Nothing but what may use the reserve.
    Full,
}

impl Fill {
    fn new(used: u64, max: u64) -> Self {
        let percent = used.saturating_mul(100).checked_div(max).unwrap_or(100);
        let level = match percent {
            100.. => Level::Full,
            NO_NEW_STATEMENTS_PERCENT.. => Level::NoNewStatements95,
            NO_NEW_SESSIONS_PERCENT.. => Level::NoNewSessions80,
            WARN_PERCENT.. => Level::Warn50,
            _ => Level::Normal,
        };
        Self { used, max, level }
    }
}

/// The spool. Clones are the same spool.
pub struct Spool<F: Files = OsFiles>(Arc<Inner<F>>);

impl<F: Files> Clone for Spool<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<F: Files> {
    dir: PathBuf,
    options: Options,
    files: Arc<F>,
    log: Mutex<Queue<F>>,
    meta: Mutex<Cursor<F>>,
    /// Below [`Level::Warn50`], and the disk took the last record. Read without the lock.
    has_room: AtomicBool,
}

struct Queue<F: Files> {
    log: Log<F>,
    acknowledged: u64,
    /// Bytes that waited when they were last counted, and what had been appended by then.
    counted: u64,
    counted_at: u64,
    /// A record was refused by a full disk, and no room was seen since.
    refused: bool,
}

impl<F: Files> Queue<F> {
    fn used(&self) -> u64 {
        self.counted + (self.log.appended_bytes() - self.counted_at)
    }

    fn count(&mut self) {
        self.counted = self.log.bytes_from(self.acknowledged);
        self.counted_at = self.log.appended_bytes();
    }
}

impl Spool<OsFiles> {
    /// Opens the spool in a directory, or creates it there.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovery), SpoolError> {
        let files = match OsFiles::open(dir) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(SpoolError::InUse { dir: dir.to_owned() });
            }
            Err(error) => return Err(SpoolError::io("open", dir, "", error)),
        };
        Self::new(files, dir, options)
    }
}

impl<F: Files> Spool<F> {
    /// Opens the spool on a disk of the caller's, such as a simulated one.
    pub fn with_files(files: F, options: Options) -> Result<(Self, Recovery), SpoolError> {
        Self::new(files, Path::new(""), options)
    }

    fn new(files: F, dir: &Path, options: Options) -> Result<(Self, Recovery), SpoolError> {
        // What an earlier process renamed before it died must not vanish after we have read it.
        files.sync_dir().map_err(|error| SpoolError::io("sync", dir, "", error))?;
        let (cursor, found) =
            Cursor::open(&files).map_err(|error| SpoolError::io("read", dir, "cursor", error))?;
        let log_options = tidegate_segment::Options {
            owner: options.owner,
            segment_bytes: options.segment_bytes.min(options.bytes_max),
            backlog_bytes_max: options.backlog_bytes_max,
            reserve_bytes: options.reserve_bytes,
            // What was acknowledged had been durable.
            durable_floor: cursor.acknowledged(),
        };
        let (log, was) =
            Log::open(files, log_options).map_err(|error| SpoolError::of_log(dir, error))?;
        let acknowledged = cursor.acknowledged().max(was.oldest_index);
        let files = log.files().clone();
        let mut queue = Queue { log, acknowledged, counted: 0, counted_at: 0, refused: false };
        // A crash may have come between cursor and unlink; if it fails again, the next acknowledgement does it.
        let _ = queue.log.remove_before(acknowledged);
        queue.count();
        let recovery = Recovery {
            next_index: was.next_index,
            oldest_index: queue.log.oldest_index(),
            acknowledged,
            lost_bytes: was.lost_bytes,
            torn: was.torn,
            clean: was.clean,
            created: was.created,
            cursor_lost: matches!(found, Found::Lost)
                || (matches!(found, Found::Nothing) && was.oldest_index > 0),
        };
        let (log, meta) = (Mutex::new(queue), Mutex::new(cursor));
        let has_room = AtomicBool::new(false);
        let inner = Inner { dir: dir.to_owned(), options, files, log, meta, has_room };
        Ok((Self(Arc::new(inner)), recovery))
    }

    /// Takes a record or seal into memory and returns its index.
    pub fn append(&self, kind: Kind, payload: &[u8]) -> Result<u64, SpoolError> {
        self.append_within(kind, payload, 0)
    }

    /// The same for the records that must always find room (gaps, bypasses, heartbeats, starts and stops, recovery).
    pub fn append_reserved(&self, kind: Kind, payload: &[u8]) -> Result<u64, SpoolError> {
        self.append_within(kind, payload, self.0.options.reserve_bytes)
    }

    fn append_within(&self, kind: Kind, payload: &[u8], reserve: u64) -> Result<u64, SpoolError> {
        let mut queue = self.queue();
        let used_bytes = queue.used();
        let max_bytes = self.0.options.bytes_max;
        let bytes = (FRAME_HEAD_BYTES + payload.len()) as u64;
        if used_bytes + bytes > max_bytes.saturating_add(reserve) {
            return Err(SpoolError::Full { used_bytes, max_bytes });
        }
        let appended = if reserve > 0 {
            queue.log.append_reserved(kind as u8, payload)
        } else {
            queue.log.append(kind as u8, payload)
        };
        if reserve == 0 {
            queue.refused = matches!(appended, Err(tidegate_segment::Error::Full { .. }));
        }
        let level = Fill::new(used_bytes + bytes, max_bytes).level;
        self.0.has_room.store(level == Level::Normal && !queue.refused, Ordering::Release);
        appended.map_err(|error| self.error(error))
    }

    /// Hands what is buffered to the operating system in one write.
    pub fn write(&self) -> Result<(), SpoolError> {
        self.queue().log.write().map_err(|error| self.error(error))
    }

    /// First half of a sync; [`SyncTicket::run`] then waits for the disk without any lock.
    pub fn begin_sync(&self) -> Result<SyncTicket<F>, SpoolError> {
        self.queue().log.begin_sync().map_err(|error| self.error(error))
    }

    /// Second half; returns the durable index.
    pub fn finish_sync(&self, done: SyncDone) -> Result<u64, SpoolError> {
        self.queue().log.finish_sync(done).map_err(|error| self.error(error))
    }

    /// A whole sync; returns the durable index.
    pub fn sync(&self) -> Result<u64, SpoolError> {
        let done = self.begin_sync()?.run();
        self.finish_sync(done)
    }

    /// Syncs and marks the end, so that the next open has nothing to repair. The spool can be used on.
    pub fn close(&self) -> Result<(), SpoolError> {
        self.queue().log.close().map_err(|error| self.error(error))
    }

    /// The collector has all frames below `index`. When this returns `Ok`, that is durable.
    pub fn acknowledge(&self, index: u64) -> Result<(), SpoolError> {
        let mut meta = lock(&self.0.meta);
        {
            let queue = self.queue();
            let durable = queue.log.durable_index();
            if index > durable {
                return Err(SpoolError::NotDurable { index, durable });
            }
            if index <= queue.acknowledged {
                return Ok(());
            }
        }
        let stored = meta.store(&self.0.files, index);
        stored.map_err(|error| SpoolError::io("store", &self.0.dir, "cursor", error))?;
        let removal = {
            let mut queue = self.queue();
            queue.acknowledged = index;
            let removal = queue.log.begin_remove(index);
            queue.count();
            removal
        };
        if removal.is_empty() && self.queue().log.reserve_ready() {
            return Ok(());
        }
        let removed = removal.run();
        let mut queue = self.queue();
        queue.log.ensure_reserve();
        queue.refused = false;
        removed.map_err(|error| self.error(error))
    }

    /// All frames below this index are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.queue().acknowledged
    }

    /// The index that the next frame gets.
    pub fn next_index(&self) -> u64 {
        self.queue().log.next_index()
    }

    /// Frames below this index were handed to the operating system.
    pub fn written_index(&self) -> u64 {
        self.queue().log.written_index()
    }

    /// Frames below this index are durable.
    pub fn durable_index(&self) -> u64 {
        self.queue().log.durable_index()
    }

    /// The oldest frame kept.
    pub fn oldest_index(&self) -> u64 {
        self.queue().log.oldest_index()
    }

    /// A reader of durable frames from `index` on; it sees new ones as they become durable.
    pub fn reader_from(&self, index: u64) -> Reader<F> {
        self.queue().log.read_from(index, Bound::Durable)
    }

    /// The same, up to what was written: for reading back what is not durable yet.
    pub fn reader_written_from(&self, index: u64) -> Reader<F> {
        self.queue().log.read_from(index, Bound::Written)
    }

    /// Whether the spool is surely below [`Level::Warn50`]. Costs nothing; where it says no,
    /// [`Self::fill`] knows.
    pub fn has_room(&self) -> bool {
        self.0.has_room.load(Ordering::Acquire)
    }

    /// How full the spool is. A disk that refused the last record makes it full whatever the numbers say.
    pub fn fill(&self) -> Fill {
        let mut queue = self.queue();
        let mut fill = Fill::new(queue.used(), self.0.options.bytes_max);
        if queue.refused {
            let needed = self.0.options.segment_bytes.min(self.0.options.bytes_max);
            queue.refused = self.0.files.free_bytes().is_ok_and(|free| free < needed);
        }
        if queue.refused {
            fill.level = Level::Full;
        }
        fill
    }

    /// Whether the spool writes no more.
    pub fn is_poisoned(&self) -> bool {
        self.queue().log.is_poisoned()
    }

    /// Whether the reserve is there.
    pub fn reserve_ready(&self) -> bool {
        self.queue().log.reserve_ready()
    }

    /// Stores a small value durably, in place of the one of the same name.
    pub fn put_state(&self, name: &str, value: &[u8]) -> Result<(), SpoolError> {
        let _meta = lock(&self.0.meta);
        state::put(&*self.0.files, &self.0.dir, name, value)
    }

    /// The value stored last under a name.
    pub fn get_state(&self, name: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        let _meta = lock(&self.0.meta);
        state::get(&*self.0.files, &self.0.dir, name)
    }

    /// The spool's directory; empty for one on a disk of the caller's.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    fn queue(&self) -> MutexGuard<'_, Queue<F>> {
        lock(&self.0.log)
    }

    fn error(&self, error: tidegate_segment::Error) -> SpoolError {
        SpoolError::of_log(&self.0.dir, error)
    }
}

/// What a panicking holder leaves behind is whole: the log's invariants hold between any two of its statements that can
/// fail, and nothing under these locks panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
