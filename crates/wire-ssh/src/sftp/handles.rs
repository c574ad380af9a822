//! Open files: which handle is which path, and what was carried of each.
//!
//! Promises: runs that follow each other are one; a digest is told only of a file that went over whole and in order.
//!
//! Limit: [`RANGES_MAX`] runs are listed, all are counted.

use sha2::{Digest as _, Sha256};
use tidegate_event::limits::RANGES_MAX;
use tidegate_event::{Access, Carried, Copied, Outcome, Range, Status};

/// Runs of a file's bytes, in the order in which they came.
#[derive(Debug, Default)]
struct Runs {
    list: Vec<Range>,
    total: u32,
    /// Where the last run ends.
    end: Option<u64>,
    bytes: u64,
}

impl Runs {
    fn add(&mut self, offset: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.end != Some(offset) {
            self.total = self.total.saturating_add(1);
            if self.list.len() < RANGES_MAX {
                self.list.push(Range { offset, bytes: 0 });
            }
        }
        let is_listed = usize::try_from(self.total).is_ok_and(|total| total == self.list.len());
        if let Some(last) = self.list.last_mut().filter(|_| is_listed) {
            last.bytes = last.bytes.saturating_add(bytes);
        }
        self.end = Some(offset.saturating_add(bytes));
    }
}

/// A digest over bytes that come from the beginning on, without a hole.
#[derive(Debug, Default)]
struct InOrder {
    hash: Sha256,
    end: u64,
    broken: bool,
}

impl InOrder {
    fn take(&mut self, offset: u64, data: &[u8]) {
        if self.broken || offset != self.end {
            self.broken = true;
            return;
        }
        self.hash.update(data);
        self.end = self.end.saturating_add(length(data));
    }
}

/// An open file or directory.
#[derive(Debug)]
pub struct Open {
    /// The operation that opened it.
    pub operation: u64,
    /// When it was permitted.
    pub begun_ns: u64,
    /// Its path, as that operation has it.
    pub path: String,
    access: Access,
    read: Runs,
    written: Runs,
    reading: InOrder,
    writing: InOrder,
    /// The file's length, where the server told it.
    size: Option<u64>,
    /// It was read to its end, which is here.
    end: Option<u64>,
    entries: u64,
    is_directory: bool,
}

impl Open {
    /// What `operation` opens, once the server has given a handle.
    pub fn new(
        operation: u64,
        begun_ns: u64,
        path: String,
        access: Access,
        is_directory: bool,
    ) -> Self {
        Self {
            operation,
            begun_ns,
            path,
            access,
            read: Runs::default(),
            written: Runs::default(),
            reading: InOrder::default(),
            writing: InOrder::default(),
            size: None,
            end: None,
            entries: 0,
            is_directory,
        }
    }

    /// The client is about to get these bytes.
    pub fn gives(&mut self, offset: u64, data: &[u8]) {
        self.read.add(offset, length(data));
        self.reading.take(offset, data);
    }

    /// The client asked for what is behind the end.
    pub const fn ends(&mut self, offset: u64) {
        self.end = Some(offset);
    }

    /// The server is about to get these bytes.
    pub fn takes(&mut self, offset: u64, data: &[u8]) {
        self.writing.take(offset, data);
    }

    /// The server took them, or did not.
    pub fn took(&mut self, offset: u64, bytes: u64, taken: bool) {
        if taken {
            self.written.add(offset, bytes);
        } else {
            self.writing.broken = true;
        }
    }

    /// It is cut, or made longer: what went over is not what it is.
    pub const fn is_resized(&mut self) {
        self.writing.broken = true;
        self.reading.broken = true;
    }

    /// The server wrote to it by itself.
    pub fn was_copied_to(&mut self, offset: u64, bytes: u64) {
        self.writing.broken = true;
        self.reading.broken = true;
        self.written.add(offset, bytes);
    }

    /// Its length, as the server tells it.
    pub const fn is_long(&mut self, bytes: u64) {
        self.size = Some(bytes);
    }

    /// So many more entries of the directory went to the client.
    pub fn lists(&mut self, entries: u64) {
        self.entries = self.entries.saturating_add(entries);
    }

    fn sha256(self) -> Option<[u8; 32]> {
        let wrote = self.written.bytes > 0 || self.access.truncate;
        let whole_written = (self.access.truncate || self.access.exclusive)
            && !self.writing.broken
            && self.writing.end == self.written.bytes;
        let whole_read = !self.reading.broken
            && !wrote
            && [self.end, self.size].contains(&Some(self.reading.end));
        match (self.is_directory, whole_written && wrote, whole_read) {
            (false, true, _) => Some(self.writing.hash.finalize().into()),
            (false, false, true) => Some(self.reading.hash.finalize().into()),
            _ => None,
        }
    }

    /// What became of it, ended so.
    pub fn outcome(mut self, status: Status, now_ns: u64) -> Outcome {
        let (bytes_in, bytes_out) = (self.written.bytes, self.read.bytes);
        let (rows, duration_ns) = (self.entries, now_ns.saturating_sub(self.begun_ns));
        let mut carried = Carried {
            read: std::mem::take(&mut self.read.list),
            read_total: self.read.total,
            written: std::mem::take(&mut self.written.list),
            written_total: self.written.total,
            sha256: None,
        };
        let told = status == Status::Ok;
        carried.sha256 = self.sha256().filter(|_| told);
        Outcome {
            rows,
            bytes_out,
            copied: Some(Copied { bytes_in, bytes_out }),
            duration_ns,
            carried: Some(Box::new(carried)),
            ..Outcome::without_result(status)
        }
    }
}

fn length(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
