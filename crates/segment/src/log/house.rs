//! Makes segments: the next one when one is full, a new home for all that is not durable when the disk failed, and
//! the reserve.
//!
//! Promises: a segment gets its name only after its header, and whatever it takes over from an older one, is synced; a
//! crash at any call leaves either the old home whole or the new one. Cannot: make room on a full disk; then it says
//! [`Error::Full`] and everything stays in memory.

use std::ops::Range;
use std::sync::Arc;

use super::{Chunk, Current, Log, PLACE_BYTES, failed};
use crate::error::Error;
use crate::files::{File, Files, is_full, write_all_at};
use crate::format::{END_BYTES, FRAME_PREFIX_BYTES, Front, HEADER_BYTES, Header, MARK_KIND, front};
use crate::frames::look_behind;
use crate::view::{Segment, name_of};

/// A segment that is being made.
const TEMPORARY: &str = "segment.new";
/// The reserve, while it waits.
const RESERVE: &str = "reserve.new";

/// A file without a name of its own yet.
struct Blank<H> {
    file: H,
    name: &'static str,
    capacity: u64,
}

impl<F: Files> Log<F> {
    /// Sees to it that `bytes` more fit the current segment.
    pub(super) fn ensure_room(&mut self, bytes: u64, reserved: bool) -> Result<(), Error> {
        if self.current.is_none() {
            self.rehouse()?;
        }
        if self.has_room(bytes, reserved) {
            return Ok(());
        }
        self.write()?;
        if !self.has_room(bytes, reserved) {
            self.next_segment(reserved)?;
        }
        if self.has_room(bytes, reserved) { Ok(()) } else { Err(self.full(bytes)) }
    }

    fn has_room(&self, bytes: u64, reserved: bool) -> bool {
        self.current.as_ref().is_some_and(|current| {
            (reserved || !current.reserved) && self.tail() + bytes + END_BYTES <= current.capacity
        })
    }

    /// Everything buffered has been written; goes on in a new segment.
    fn next_segment(&mut self, reserved: bool) -> Result<(), Error> {
        let ordinal = self.take_ordinals(1);
        let (made, _named) = self.make_segment(ordinal, self.next, &[], reserved)?;
        self.close_chunk();
        if let Some(old) = self.current.replace(made) {
            // Gives back what was preallocated and not used; nothing depends on it.
            let _ = old.file.set_len(self.active_offset);
            old.segment.set_bytes(self.active_offset);
            if old.unsynced {
                self.unsynced.push(old.file);
            }
        }
        self.active_offset = HEADER_BYTES;
        self.ensure_reserve();
        Ok(())
    }

    /// Writes everything that is not durable to new segments, from memory, and syncs it. The old descriptors are not
    /// used again. On a full disk it can be tried again; any other failure is the second in a row, and final.
    pub(super) fn rehouse(&mut self) -> Result<(), Error> {
        self.check_poison()?;
        let mut all = Vec::with_capacity(self.pending_bytes + self.active.len());
        for chunk in self.pending.drain(..) {
            all.extend_from_slice(&chunk.bytes);
        }
        all.extend_from_slice(&self.active);
        self.active.clear();
        self.active_written = 0;
        self.current = None;
        self.unsynced.clear();
        self.in_flight = None;
        self.epoch += 1;
        self.view.set_written(self.view.durable());
        match self.house(&all) {
            Ok((current, tail)) => {
                self.current = Some(current);
                self.active_offset = tail;
                self.pending_bytes = 0;
                self.dir_unsynced = false;
                self.view.set_written(self.next);
                self.view.set_durable(self.next);
                self.drop_superseded();
                Ok(())
            }
            Err(error) => {
                self.pending_bytes = all.len();
                self.pending.push_back(Chunk { bytes: all, next: self.next });
                if matches!(error, Error::Full { .. }) {
                    return Err(error);
                }
                self.poison = Some(error.to_string());
                Err(Error::Poisoned { what: error.to_string() })
            }
        }
    }

    /// Makes the segments for `all`, the last one first: until the first one has its name, the old home is complete.
    fn house(&mut self, all: &[u8]) -> Result<(Current<F::File>, u64), Error> {
        let parts = parts(all, self.view.durable(), self.options.segment_bytes);
        let ordinal = self.take_ordinals(parts.len() as u64);
        let mut newest = None;
        for (at, (first, range)) in parts.iter().enumerate().rev() {
            let content = all.get(range.clone()).unwrap_or_default();
            let may_use_reserve = parts.len() == 1;
            let (made, named) =
                self.make_segment(ordinal + at as u64, *first, content, may_use_reserve)?;
            if !named {
                let source = std::io::Error::other("the new segment's name could not be synced");
                return Err(Error::io("sync", "the directory", source));
            }
            newest.get_or_insert((made, HEADER_BYTES + content.len() as u64));
        }
        newest.ok_or_else(|| self.full(0))
    }

    /// Makes one segment; also says whether its name is durable.
    fn make_segment(
        &mut self,
        ordinal: u64,
        first: u64,
        content: &[u8],
        may_use_reserve: bool,
    ) -> Result<(Current<F::File>, bool), Error> {
        let needed = HEADER_BYTES + content.len() as u64 + END_BYTES;
        let (blank, reserved) = match self.blank(TEMPORARY, self.options.segment_bytes) {
            Ok(blank) => (blank, false),
            Err(Error::Full { .. })
                if may_use_reserve
                    && self.reserve_ready
                    && needed <= self.options.reserve_bytes =>
            {
                self.reserve_ready = false;
                let file = self.files.open(RESERVE).map_err(failed("open", RESERVE))?;
                (Blank { file, name: RESERVE, capacity: self.options.reserve_bytes }, true)
            }
            Err(error) => return Err(error),
        };
        let named = self.name_segment(&blank, ordinal, first, content);
        if named.is_err() {
            let _ = self.files.remove(blank.name);
        }
        let named = named?;
        // It stands in the list from here on, so nothing older may be unlinked before its name is durable.
        self.dir_unsynced |= !named;
        let bytes = HEADER_BYTES + content.len() as u64;
        let segment = Arc::new(Segment::new(ordinal, first, bytes));
        self.view.add(segment.clone());
        let (file, capacity) = (Arc::new(blank.file), blank.capacity);
        let place_due = bytes + PLACE_BYTES;
        Ok((Current { segment, file, capacity, reserved, unsynced: false, place_due }, named))
    }

    /// Fills a blank, syncs it and gives it its name; says whether the name is durable.
    fn name_segment(
        &self,
        blank: &Blank<F::File>,
        ordinal: u64,
        first: u64,
        content: &[u8],
    ) -> Result<bool, Error> {
        let header = Header { owner: self.owner, ordinal, first, durable: self.view.durable() };
        let write = write_all_at(&blank.file, &header.encode(), 0)
            .and_then(|()| write_all_at(&blank.file, content, HEADER_BYTES));
        write.map_err(|error| self.full_or(error, "write", blank.name))?;
        blank.file.sync_data().map_err(|error| self.full_or(error, "sync", blank.name))?;
        let name = name_of(ordinal);
        self.files.rename(blank.name, &name).map_err(|error| self.full_or(error, "name", &name))?;
        Ok(self.files.sync_dir().is_ok())
    }

    /// A new file with room for `bytes`.
    fn blank(&self, name: &'static str, bytes: u64) -> Result<Blank<F::File>, Error> {
        let file = match self.files.create(name) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.files.remove(name).map_err(failed("unlink", name))?;
                self.files.create(name)
            }
            made => made,
        };
        let file = file.map_err(|error| self.full_or(error, "create", name))?;
        if let Err(error) = file.allocate(bytes) {
            drop(file);
            let _ = self.files.remove(name);
            return Err(self.full_or(error, "allocate", name));
        }
        Ok(Blank { file, name, capacity: bytes })
    }

    /// Takes up the reserve that an earlier process left, cleaned of what that one may have begun to write there.
    pub(super) fn find_reserve(&mut self, names: &[String]) {
        if !names.iter().any(|name| name == RESERVE) {
            return;
        }
        let take = || -> std::io::Result<bool> {
            let file = self.files.open(RESERVE)?;
            let used = look_behind(&file, 0, &self.owner)?.bytes;
            if used > 0 {
                write_all_at(&file, &vec![0; usize::try_from(used).unwrap_or(0)], 0)?;
                file.sync_data()?;
            }
            Ok(file.len()? == self.options.reserve_bytes)
        };
        self.reserve_ready = take().unwrap_or(false);
    }

    /// Makes the reserve if it is not there and the disk has room; says whether it is there.
    pub fn ensure_reserve(&mut self) -> bool {
        if !self.reserve_ready && self.options.reserve_bytes > HEADER_BYTES {
            let made = self.blank(RESERVE, self.options.reserve_bytes).and_then(|blank| {
                blank.file.sync_data().map_err(failed("sync", RESERVE))?;
                self.files.sync_dir().map_err(failed("sync", "the directory"))
            });
            self.reserve_ready = made.is_ok();
        }
        self.reserve_ready
    }

    /// Unlinks segments of which nothing is read any more. What stays does no harm: newer ones supersede it.
    fn drop_superseded(&mut self) {
        for segment in self.view.all() {
            if segment.end() <= segment.first {
                self.view.remove(segment.ordinal);
                let _ = self.files.remove(&segment.name);
                let _ = self.files.sync_dir();
            }
        }
    }

    fn take_ordinals(&mut self, count: u64) -> u64 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += count;
        ordinal
    }

    fn full(&self, needed_bytes: u64) -> Error {
        let needed_bytes = needed_bytes.max(self.options.segment_bytes);
        Error::Full { needed_bytes, free_bytes: self.files.free_bytes().unwrap_or(0) }
    }

    fn full_or(&self, error: std::io::Error, what: &'static str, file: &str) -> Error {
        if is_full(&error) { self.full(0) } else { Error::io(what, file, error) }
    }
}

/// Divides encoded frames into pieces that fit a segment; each with the index of its first frame.
fn parts(all: &[u8], first: u64, segment_bytes: u64) -> Vec<(u64, Range<usize>)> {
    let room = usize::try_from(segment_bytes - HEADER_BYTES - END_BYTES).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let (mut index, mut at) = (first, 0);
    let (mut part_first, mut part_at) = (first, 0);
    while let Front::Frame { kind, len } = front(all.get(at..).unwrap_or_default(), true) {
        let bytes = FRAME_PREFIX_BYTES + len;
        if at + bytes - part_at > room {
            parts.push((part_first, part_at..at));
            (part_first, part_at) = (index, at);
        }
        at += bytes;
        index += u64::from(kind != MARK_KIND);
    }
    parts.push((part_first, part_at..at));
    parts
}
