//! Syncs in two halves, so that appends go on while the disk works, and removal of old segments.
//!
//! Promises: one sync at a time; a sync that failed, or whose ticket was dropped, moves all that is not durable to a
//! new segment; a sync that began before such a move counts for nothing. Segments are unlinked oldest first, each
//! before the next, so that what is left is always one piece.

use std::io;
use std::sync::{Arc, Weak};

use super::{Chunk, Log, failed};
use crate::error::Error;
use crate::files::{File, Files};

/// Buffers kept for use again.
const SPARE_MAX: usize = 4;
/// A buffer that grew larger than this is given back.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// The first half of a sync; to be run without the log's lock.
#[must_use = "a ticket that is dropped counts as a failed sync"]
pub struct SyncTicket<F: Files> {
    files: Vec<Arc<F::File>>,
    dir: Option<Arc<F>>,
    upto: u64,
    epoch: u64,
    token: Arc<()>,
}

/// What the disk said; to be given to [`Log::finish_sync`].
#[must_use = "a sync that is not finished counts as failed"]
pub struct SyncDone {
    result: io::Result<()>,
    upto: u64,
    epoch: u64,
    dir: bool,
    _token: Arc<()>,
}

impl<F: Files> SyncTicket<F> {
    /// Waits for the disk.
    pub fn run(self) -> SyncDone {
        let files = self.files.iter().try_for_each(|file| file.sync_data());
        let result = files.and_then(|()| self.dir.as_ref().map_or(Ok(()), |dir| dir.sync_dir()));
        let Self { upto, epoch, token, dir, .. } = self;
        SyncDone { result, upto, epoch, dir: dir.is_some(), _token: token }
    }

    /// Frames below this index will be durable.
    pub fn upto(&self) -> u64 {
        self.upto
    }
}

impl<F: Files> Log<F> {
    /// Writes what is buffered and takes note of what a sync from now on covers.
    pub fn begin_sync(&mut self) -> Result<SyncTicket<F>, Error> {
        match self.in_flight.as_ref().map(Weak::upgrade) {
            Some(Some(_)) => return Err(Error::SyncInFlight),
            Some(None) => self.rehouse()?,
            None => {}
        }
        self.write()?;
        let mut files = std::mem::take(&mut self.unsynced);
        if let Some(current) = self.current.as_mut().filter(|current| current.unsynced) {
            files.push(current.file.clone());
            current.unsynced = false;
        }
        self.close_chunk();
        let token = Arc::new(());
        self.in_flight = Some(Arc::downgrade(&token));
        let dir = self.dir_unsynced.then(|| self.files.clone());
        Ok(SyncTicket { files, dir, upto: self.next, epoch: self.epoch, token })
    }

    /// Takes the disk's answer and returns the durable index. If the sync failed, all that is not durable has been
    /// written to a new segment and synced there when this returns `Ok`.
    pub fn finish_sync(&mut self, done: SyncDone) -> Result<u64, Error> {
        self.check_poison()?;
        let SyncDone { result, upto, epoch, dir, _token } = done;
        if epoch != self.epoch {
            return Ok(self.view.durable());
        }
        self.in_flight = None;
        if result.is_err() {
            self.rehouse()?;
            return Ok(self.view.durable());
        }
        if dir {
            self.dir_unsynced = false;
        }
        while self.pending.front().is_some_and(|chunk| chunk.next <= upto) {
            let Some(chunk) = self.pending.pop_front() else {
                break;
            };
            self.pending_bytes -= chunk.bytes.len();
            self.recycle(chunk.bytes);
        }
        self.view.set_durable(upto);
        Ok(upto)
    }

    /// Both halves at once.
    pub fn sync(&mut self) -> Result<u64, Error> {
        let done = self.begin_sync()?.run();
        self.finish_sync(done)
    }

    /// What is in `active` has been written: keeps it until it is durable and starts a new buffer.
    pub(super) fn close_chunk(&mut self) {
        if self.active.is_empty() {
            return;
        }
        self.active_offset += self.active.len() as u64;
        self.active_written = 0;
        let bytes = std::mem::replace(&mut self.active, self.spare.pop().unwrap_or_default());
        self.pending_bytes += bytes.len();
        self.pending.push_back(Chunk { bytes, next: self.next });
    }

    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Unlinks the segments whose frames are all below `index` and durable; never the newest.
    pub fn remove_before(&mut self, index: u64) -> Result<(), Error> {
        self.begin_remove(index).run()?;
        self.ensure_reserve();
        Ok(())
    }

    /// The same in two halves: the files are unlinked by [`Removal::run`], which needs no lock.
    pub fn begin_remove(&mut self, index: u64) -> Removal<F> {
        let index = index.min(self.view.durable());
        let mut segments = self.view.all();
        segments.pop();
        let keep = segments.iter().position(|segment| segment.end() > index);
        segments.truncate(keep.unwrap_or(segments.len()));
        let names = segments.iter().map(|segment| {
            self.view.remove(segment.ordinal);
            segment.name.clone()
        });
        let names = names.collect();
        Removal { names, sync_first: self.dir_unsynced, files: self.files.clone() }
    }
}

/// Segments that are no longer listed and can be unlinked.
#[must_use = "the files stay until it is run"]
pub struct Removal<F: Files> {
    files: Arc<F>,
    names: Vec<Arc<str>>,
    /// A newer segment's name is not durable: were an older one unlinked before it, a power cut could
    /// leave neither.
    sync_first: bool,
}

impl<F: Files> Removal<F> {
    /// Whether there is nothing to unlink.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Unlinks them. What fails is found by the next open and can be removed then.
    pub fn run(self) -> Result<(), Error> {
        if self.sync_first && !self.names.is_empty() {
            self.files.sync_dir().map_err(failed("sync", "the directory"))?;
        }
        for name in &self.names {
            self.files.remove(name).map_err(failed("unlink", name))?;
            self.files.sync_dir().map_err(failed("sync", "the directory"))?;
        }
        Ok(())
    }
}
