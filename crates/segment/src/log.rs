//! The log: append to memory, write, sync in two halves, and move to a new segment when the disk fails.
//!
//! Invariants:
//! - every frame that is not durable is in `pending` or `active`, encoded, in order;
//! - `active` is what is not yet closed by a sync or a full segment; its first byte belongs at `active_offset`;
//! - an accepted frame has its place in an allocated segment, unless the disk failed since (`current` is `None`): then
//!   nothing more is accepted until all that waits has been given a new one.
//!
//! Limits: `backlog_bytes_max` of memory; one sync at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};

use crate::error::{Damage, Error};
use crate::files::{File, Files, write_all_at};
use crate::format::{
    END_BYTES, FRAME_HEAD_BYTES, FRAME_PAYLOAD_BYTES_MAX, HEADER_BYTES, MARK_BYTES, MARK_KIND,
    push_frame, push_mark,
};
use crate::reader::{Bound, Reader};
use crate::recover::{Recovery, Tail, find_tail, survey};
use crate::view::{Segment, View};

mod house;
mod sync;

pub use sync::{Removal, SyncDone, SyncTicket};

/// Default size of a segment.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A smaller segment than this is made this large.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Default for how much may wait in memory for the disk.
const BACKLOG_BYTES_MAX: usize = 16 << 20;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whose log it is, when it is created; an existing log keeps its own ([`Log::owner`]). Should be hard to guess for
    /// those whose bytes are stored: see `docs/formats/segment.md`, marks.
    pub owner: [u8; 32],
    /// Bytes of one segment, taken from the disk when it is made.
    pub segment_bytes: u64,
    /// How many bytes may wait in memory until they are durable; above it, `append` refuses.
    pub backlog_bytes_max: usize,
    /// Bytes of a segment kept ready for [`Log::append_reserved`] on a full disk; 0 for none.
    pub reserve_bytes: u64,
    /// The caller knows that frames below this index were durable; opening fails if they are not there.
    pub durable_floor: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owner: [0; 32],
            segment_bytes: SEGMENT_BYTES,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            reserve_bytes: 0,
            durable_floor: 0,
        }
    }
}

/// A durable append-only sequence of frames.
pub struct Log<F: Files> {
    files: Arc<F>,
    options: Options,
    owner: [u8; 32],
    view: Arc<View>,
    next_ordinal: u64,
    current: Option<Current<F::File>>,
    /// Full segments with bytes that no sync has taken on yet.
    unsynced: Vec<Arc<F::File>>,
    /// A segment's name is not durable yet.
    dir_unsynced: bool,
    pending: VecDeque<Chunk>,
    pending_bytes: usize,
    active: Vec<u8>,
    active_written: usize,
    active_offset: u64,
    spare: Vec<Vec<u8>>,
    next: u64,
    /// The durable index that the last mark says.
    marked: u64,
    appended_bytes: u64,
    reserve_ready: bool,
    poison: Option<String>,
    /// Counts moves: a sync that began before one says nothing about what is current now.
    epoch: u64,
    in_flight: Option<Weak<()>>,
}

struct Current<H> {
    segment: Arc<Segment>,
    file: Arc<H>,
    capacity: u64,
    reserved: bool,
    /// Has bytes that no sync has taken on yet.
    unsynced: bool,
    place_due: u64,
}

/// Frames that are not durable yet.
struct Chunk {
    bytes: Vec<u8>,
    /// Index after its last frame.
    next: u64,
}

/// Distance of the places noted for seeks.
const PLACE_BYTES: u64 = 1 << 20;

impl<F: Files> Log<F> {
    /// Opens the log in a directory, or creates it there.
    pub fn open(files: F, mut options: Options) -> Result<(Self, Recovery), Error> {
        options.segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        let survey = survey(&files)?;
        let owner = survey.owner.unwrap_or(options.owner);
        let tail = find_tail(&files, &survey, &owner, options.durable_floor)?;
        let mut log = Self {
            files: Arc::new(files),
            options,
            owner,
            view: Arc::new(survey.view),
            next_ordinal: survey.next_ordinal,
            current: None,
            unsynced: Vec::new(),
            dir_unsynced: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            active: Vec::new(),
            active_written: 0,
            active_offset: 0,
            spare: Vec::new(),
            next: 0,
            marked: 0,
            appended_bytes: 0,
            reserve_ready: false,
            poison: None,
            epoch: 0,
            in_flight: None,
        };
        log.find_reserve(&survey.names);
        let recovery = match tail {
            Some(tail) => log.resume(tail)?,
            None => log.found()?,
        };
        log.ensure_reserve();
        Ok((log, recovery))
    }

    fn found(&mut self) -> Result<Recovery, Error> {
        if self.options.durable_floor > 0 {
            return Err(Error::Damaged(Damage {
                file: "the directory".to_owned(),
                offset: 0,
                index: 0,
                what: format!(
                    "no segment, and {} frames had been durable",
                    self.options.durable_floor
                ),
            }));
        }
        self.rehouse()?;
        Ok(Recovery { clean: true, created: true, ..Recovery::default() })
    }

    fn resume(&mut self, tail: Tail<F::File>) -> Result<Recovery, Error> {
        let Tail { next, proven, kept, marks, torn, lost_bytes, segment, file, offset, clean } =
            tail;
        self.next = next;
        self.view.set_durable(proven);
        self.view.set_written(proven);
        self.marked = proven;
        if clean {
            // Whoever made the segment may have died before its name was durable.
            self.dir_unsynced = true;
            let capacity = segment.bytes();
            segment.set_bytes(offset);
            let file = Arc::new(file);
            let place_due = offset + PLACE_BYTES;
            // A mark may be in the cache only, if its sync had failed: written again, or later frames would follow a hole.
            self.active_offset = offset - marks.len() as u64;
            self.active = marks;
            self.current = Some(Current {
                segment,
                file,
                capacity,
                reserved: false,
                unsynced: false,
                place_due,
            });
        } else {
            self.pending_bytes = kept.len();
            self.pending.push_back(Chunk { bytes: kept, next });
            match self.rehouse() {
                Ok(()) => {
                    // Gives back what was preallocated behind the last good frame; nothing depends on it.
                    if file.set_len(offset).is_ok() {
                        segment.set_bytes(offset);
                    }
                }
                // What is proven can be read, acknowledged and removed meanwhile; that may be what frees the disk.
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Recovery {
            next_index: next,
            oldest_index: self.view.oldest(),
            proven_index: proven,
            lost_bytes,
            torn,
            clean,
            created: false,
        })
    }

    /// Takes a frame into memory and returns its index. Kinds are 1 to 255.
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<u64, Error> {
        self.append_frame(kind, payload, false)
    }

    /// The same, and on a full disk the reserve segment may be taken for it.
    pub fn append_reserved(&mut self, kind: u8, payload: &[u8]) -> Result<u64, Error> {
        self.append_frame(kind, payload, true)
    }

    fn append_frame(&mut self, kind: u8, payload: &[u8], reserved: bool) -> Result<u64, Error> {
        self.check_poison()?;
        if kind == MARK_KIND {
            return Err(Error::Kind);
        }
        let max_bytes = self.payload_bytes_max();
        if payload.len() > max_bytes {
            return Err(Error::TooLarge { bytes: payload.len(), max_bytes });
        }
        let durable = self.view.durable();
        let mark = durable > self.marked;
        let bytes = FRAME_HEAD_BYTES + payload.len() + if mark { MARK_BYTES } else { 0 };
        let waiting_bytes = self.pending_bytes + self.active.len();
        if waiting_bytes + bytes > self.options.backlog_bytes_max {
            return Err(Error::Backlog {
                waiting_bytes,
                max_bytes: self.options.backlog_bytes_max,
            });
        }
        self.ensure_room(bytes as u64, reserved)?;
        if mark {
            push_mark(&mut self.active, durable, &self.owner);
            self.marked = durable;
        }
        let offset = self.tail();
        if let Some(current) = self.current.as_mut().filter(|current| current.place_due <= offset) {
            current.segment.note_place(self.next, offset);
            current.place_due = offset + PLACE_BYTES;
        }
        push_frame(&mut self.active, kind, payload);
        self.appended_bytes += bytes as u64;
        let index = self.next;
        self.next += 1;
        Ok(index)
    }

    /// Hands what is buffered to the operating system. A failure moves everything that is not durable to a new segment.
    pub fn write(&mut self) -> Result<(), Error> {
        self.check_poison()?;
        let Some(current) = self.current.as_mut() else {
            return self.rehouse();
        };
        let Some(bytes) = self.active.get(self.active_written..).filter(|bytes| !bytes.is_empty())
        else {
            return Ok(());
        };
        let offset = self.active_offset + self.active_written as u64;
        match write_all_at(&*current.file, bytes, offset) {
            Ok(()) => {
                self.active_written = self.active.len();
                current.unsynced = true;
                current.segment.set_bytes(self.active_offset + self.active.len() as u64);
                self.view.set_written(self.next);
                Ok(())
            }
            Err(_) => self.rehouse(),
        }
    }

    /// Writes, syncs, and says in the file that all is durable, so that the next open can go on in place.
    pub fn close(&mut self) -> Result<(), Error> {
        self.sync()?;
        let fits = self
            .current
            .as_ref()
            .is_some_and(|current| self.tail() + MARK_BYTES as u64 + END_BYTES <= current.capacity);
        if self.view.durable() > self.marked && fits {
            self.marked = self.view.durable();
            push_mark(&mut self.active, self.marked, &self.owner);
            self.sync()?;
        }
        Ok(())
    }

    /// The index that the next frame gets.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Frames below this index were handed to the operating system.
    pub fn written_index(&self) -> u64 {
        self.view.written()
    }

    /// Frames below this index are durable.
    pub fn durable_index(&self) -> u64 {
        self.view.durable()
    }

    /// The oldest frame kept.
    pub fn oldest_index(&self) -> u64 {
        self.view.oldest()
    }

    /// Whose log it is.
    pub fn owner(&self) -> [u8; 32] {
        self.owner
    }

    /// Bytes of all segments kept, as far as they are filled.
    pub fn bytes_used(&self) -> u64 {
        self.view.all().iter().map(|segment| self.filled(segment)).sum()
    }

    /// Bytes of the frames from `index` on, rounded up by at most a MiB or, in a segment of an earlier process, to it.
    pub fn bytes_from(&self, index: u64) -> u64 {
        if index >= self.next {
            return 0;
        }
        let homeless = if self.current.is_none() { self.pending_bytes as u64 } else { 0 };
        let Some(located) = self.view.locate(index) else {
            return self.bytes_used() + homeless;
        };
        let (_, offset) = located.place_before(index);
        let later =
            self.view.all().into_iter().filter(|segment| {
                segment.ordinal > located.ordinal && segment.first < segment.end()
            });
        let later: u64 = later.map(|segment| self.filled(&segment) - HEADER_BYTES).sum();
        self.filled(&located).saturating_sub(offset) + later + homeless
    }

    /// Bytes taken by all appends of this process, marks included.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// The directory.
    pub fn files(&self) -> &Arc<F> {
        &self.files
    }

    /// Whether the log writes no more.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// Whether the reserve segment is there.
    pub fn reserve_ready(&self) -> bool {
        self.reserve_ready
    }

    /// The largest payload that a frame can have.
    pub fn payload_bytes_max(&self) -> usize {
        let around = HEADER_BYTES + END_BYTES + (MARK_BYTES + FRAME_HEAD_BYTES) as u64;
        let room = self.options.segment_bytes.saturating_sub(around);
        usize::try_from(room).unwrap_or(usize::MAX).min(FRAME_PAYLOAD_BYTES_MAX)
    }

    /// A reader that starts at `index` and sees new frames as they come.
    pub fn read_from(&self, index: u64, bound: Bound) -> Reader<F> {
        Reader::new(self.files.clone(), self.view.clone(), index, bound)
    }

    fn filled(&self, segment: &Segment) -> u64 {
        match &self.current {
            Some(current) if current.segment.ordinal == segment.ordinal => self.tail(),
            _ => segment.bytes().max(HEADER_BYTES),
        }
    }

    /// Offset behind the last frame of the current segment.
    fn tail(&self) -> u64 {
        self.active_offset + self.active.len() as u64
    }

    fn check_poison(&self) -> Result<(), Error> {
        match &self.poison {
            Some(what) => Err(Error::Poisoned { what: what.clone() }),
            None => Ok(()),
        }
    }
}

/// What a file call says when it fails, with the file's name.
fn failed(what: &'static str, file: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::io(what, file, error)
}
