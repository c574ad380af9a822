//! Reads the frames of one file in order, through a buffer, and searches raw bytes for marks.
//!
//! Promises: never reads past the file, never returns a frame without its CRC, bounded memory (one read buffer, or one
//! frame if that is larger). It knows nothing of indices or of where a segment should end.

use std::io;
use std::ops::Range;

use crate::files::{File, read_full_at};
use crate::format::{
    FRAME_PREFIX_BYTES, Front, Header, MARK_BYTES, MARK_KIND, front, mark_durable,
};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];

/// What came next in a file.
pub(crate) enum Step {
    Frame { kind: u8, payload: Range<usize>, offset: u64 },
    End,
    Bad { what: &'static str, after: Option<u64> },
}

/// A place in a file.
pub(crate) struct Frames<H> {
    file: H,
    /// Offset of the next frame.
    next: u64,
    /// Offset of the buffer's first byte.
    base: u64,
    buf: Vec<u8>,
    /// Nothing is known to be written from here on: only what is needed is read behind it.
    filled: u64,
}

impl<H: File> Frames<H> {
    pub fn new(file: H, offset: u64) -> Self {
        Self { file, next: offset, base: offset, buf: Vec::new(), filled: u64::MAX }
    }

    /// The file is filled up to there by now. Reading on into what is only allocated would cost
    /// memory and time, and, on Linux from 6.16 on (ext4), make each later write to those pages dear: a
    /// write looks at every block of its folio, and reading ahead makes folios large.
    pub fn filled(&mut self, bytes: u64) {
        self.filled = bytes;
    }

    pub fn offset(&self) -> u64 {
        self.next
    }

    pub fn payload(&self, range: Range<usize>) -> &[u8] {
        self.buf.get(range).unwrap_or_default()
    }

    pub fn file(&self) -> &H {
        &self.file
    }

    pub fn into_file(self) -> H {
        self.file
    }

    /// Goes elsewhere, and forgets what was read: the file may have grown since.
    pub fn jump(&mut self, offset: u64) {
        self.next = offset;
        self.base = offset;
        self.buf.clear();
    }

    pub fn step(&mut self) -> io::Result<Step> {
        let mut whole = false;
        loop {
            let start = usize::try_from(self.next - self.base).unwrap_or(usize::MAX);
            let bytes = self.buf.get(start..).unwrap_or_default();
            match front(bytes, whole) {
                Front::Need(bytes) => whole = !self.fill(start, bytes)?,
                Front::End => return Ok(Step::End),
                Front::Frame { kind, len } => {
                    let offset = self.next;
                    let end = start + FRAME_PREFIX_BYTES + len;
                    self.next += (FRAME_PREFIX_BYTES + len) as u64;
                    let payload = start + FRAME_PREFIX_BYTES + 1..end;
                    return Ok(Step::Frame { kind, payload, offset });
                }
                Front::Bad { what, len } => {
                    let after = len.map(|len| self.next + (FRAME_PREFIX_BYTES + len) as u64);
                    return Ok(Step::Bad { what, after });
                }
            }
        }
    }

    /// Holds at least `need` bytes from the next frame on; false if the file has fewer.
    fn fill(&mut self, start: usize, need: usize) -> io::Result<bool> {
        self.buf.drain(..start.min(self.buf.len()));
        self.base = self.next;
        let had = self.buf.len();
        let filled = usize::try_from(self.filled.saturating_sub(self.next)).unwrap_or(usize::MAX);
        self.buf.resize(need.max(filled.min(READ_BYTES)).max(had), 0);
        let rest = self.buf.get_mut(had..).unwrap_or_default();
        let read = read_full_at(&self.file, rest, self.next + had as u64);
        self.buf.truncate(had + read.as_ref().map_or(0, |read| *read));
        if self.buf.capacity() > READ_BYTES && self.buf.len() <= READ_BYTES {
            self.buf.shrink_to(READ_BYTES);
        }
        read?;
        Ok(self.buf.len() >= need)
    }
}

/// Reads and checks a segment's header.
pub(crate) fn read_header<H: File>(file: &H) -> io::Result<Result<Header, &'static str>> {
    let mut bytes = [0; 80];
    let read = read_full_at(file, &mut bytes, 0)?;
    Ok(Header::decode(bytes.get(..read).unwrap_or_default()))
}

/// What lies in a file behind the last good frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rest {
    /// The largest durable index that any mark there claims.
    pub durable: u64,
    /// Bytes up to the last one that is not zero.
    pub bytes: u64,
}

/// Looks through the raw bytes from `offset` on. Only marks of `owner` count: they alone can show that what is missing
/// before them had been durable. Anything else behind a torn frame may be pages that happened to reach the disk.
pub(crate) fn look_behind<H: File>(file: &H, offset: u64, owner: &[u8; 32]) -> io::Result<Rest> {
    let mut rest = Rest::default();
    let mut buf = vec![0; READ_BYTES];
    let mut at = offset;
    loop {
        let read = read_full_at(file, &mut buf, at)?;
        let bytes = buf.get(..read).unwrap_or_default();
        if Some(bytes) != ZEROS.get(..read) {
            if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
                rest.bytes = at + last as u64 + 1 - offset;
            }
            rest.durable = rest.durable.max(marks_in(bytes, owner));
        }
        if read < READ_BYTES {
            return Ok(rest);
        }
        // A mark may lie across two reads.
        at += (READ_BYTES - MARK_BYTES + 1) as u64;
    }
}

fn marks_in(bytes: &[u8], owner: &[u8; 32]) -> u64 {
    let mut durable = 0;
    for window in bytes.windows(MARK_BYTES) {
        let claims = window.first() == Some(&MARK_LEN_LOW) && window.get(8) == Some(&MARK_KIND);
        if claims
            && let Front::Frame { kind: MARK_KIND, .. } = front(window, true)
            && let Some(mark) = window.get(9..).and_then(|payload| mark_durable(payload, owner))
        {
            durable = durable.max(mark);
        }
    }
    durable
}

/// The first byte of every mark: the low byte of its length.
const MARK_LEN_LOW: u8 = 25;
