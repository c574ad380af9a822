//! COPY data on its way to the client, rewritten by a plan.
//!
//! Promises: rows may be cut into CopyData messages in any way; each value is masked as in a DataRow; a
//! value that is masked is held up to [`FIELD_BYTES_MAX`], a longer one is replaced
//! without being looked at; nothing else is held. Data that does not have the plan's columns is refused.
//!
//! Cannot do: encodings in which a delimiter may be part of a character; the caller withholds those.

mod binary;
mod lines;

use tidegate_mask::{Constant, CopyFormat, CopyStyle, Counts, Detectors, Plan, Stream, Treatment};

use binary::Binary;
use lines::Lines;

/// Longest value that is held to be masked, in bytes.
pub(crate) const FIELD_BYTES_MAX: usize = 256 * 1024;

/// Data that does not read as its format has it, or not as its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadCopy;

/// Rewrites COPY data.
pub(crate) struct Copier {
    reader: Reader,
    sink: Sink,
}

enum Reader {
    Lines(Lines),
    Binary(Binary),
}

/// Where values go, and what becomes of them.
pub(crate) struct Sink {
    plan: Plan,
    stream: Stream,
    column: usize,
    /// The current value, where it is masked.
    held: Vec<u8>,
    /// It was longer than may be held.
    overflow: bool,
    /// The same without escapes, and what stands for it.
    plain: Vec<u8>,
    masked: Vec<u8>,
    /// What was rewritten and not taken yet.
    out: Vec<u8>,
    pub rows: u64,
    pub counts: Counts,
}

impl Copier {
    pub fn new(format: CopyFormat, plan: Plan, detectors: Detectors) -> Self {
        let reader = match format.style {
            CopyStyle::Binary => Reader::Binary(Binary::default()),
            CopyStyle::Text | CopyStyle::Csv { .. } => Reader::Lines(Lines::new(format)),
        };
        let sink = Sink {
            plan,
            stream: Stream::new(detectors),
            column: 0,
            held: Vec::new(),
            overflow: false,
            plain: Vec::new(),
            masked: Vec::new(),
            out: Vec::new(),
            rows: 0,
            counts: Counts::default(),
        };
        Self { reader, sink }
    }

    /// Takes the next data.
    pub fn feed(&mut self, data: &[u8]) -> Result<(), BadCopy> {
        match &mut self.reader {
            Reader::Lines(lines) => lines.feed(data, &mut self.sink),
            Reader::Binary(binary) => binary.feed(data, &mut self.sink),
        }
    }

    /// Bytes that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.sink.out.len()
    }

    /// Memory held, in bytes, roughly.
    pub fn held_bytes(&self) -> usize {
        self.sink.held.capacity() + self.sink.out.capacity() + self.sink.stream.held_bytes()
    }

    /// What was rewritten since the last call: data, rows, values.
    pub fn take(&mut self) -> (Vec<u8>, u64, Counts) {
        let (rows, counts) = (self.sink.rows, self.sink.counts);
        (self.sink.rows, self.sink.counts) = (0, Counts::default());
        (std::mem::take(&mut self.sink.out), rows, counts)
    }
}

impl Sink {
    fn columns(&self) -> usize {
        self.plan.columns.len()
    }

    /// Whether the current value passes, covered or not, with its length.
    fn passes(&self) -> bool {
        !matches!(self.plan.columns.get(self.column), Some(Treatment::Mask(_)))
    }

    /// Takes a part of the current value, as it is written.
    fn push(&mut self, part: &[u8]) {
        match self.plan.columns.get(self.column) {
            Some(Treatment::Pass) => self.out.extend_from_slice(part),
            Some(Treatment::Detect(cover)) => self.stream.push(part, *cover, &mut self.out),
            Some(Treatment::Mask(_)) | None => {
                self.overflow |= self.held.len() + part.len() > FIELD_BYTES_MAX;
                if !self.overflow {
                    self.held.extend_from_slice(part);
                }
            }
        }
    }

    /// Puts what stands for the current value, which the reader has unescaped, into `masked`; `false` where
    /// that is NULL.
    fn mask(&mut self, value: &[u8]) -> bool {
        self.masked.clear();
        let Some(Treatment::Mask(masker)) = self.plan.columns.get(self.column) else {
            return false;
        };
        self.counts.values += 1;
        let constant =
            if self.overflow { Some(masker.without_looking()) } else { masker.constant() };
        match constant {
            Some(Constant::Null) => false,
            Some(Constant::Bytes(bytes)) => {
                self.masked.extend_from_slice(bytes);
                true
            }
            None => masker.write(value, &mut self.masked),
        }
    }

    fn end_field(&mut self) {
        if let Some(Treatment::Detect(cover)) = self.plan.columns.get(self.column) {
            let found = self.stream.end(*cover, &mut self.out);
            self.counts.detected += u64::from(found);
        }
        self.held.clear();
        self.overflow = false;
        self.column += 1;
    }

    fn end_row(&mut self) -> Result<(), BadCopy> {
        if self.column != self.columns() {
            return Err(BadCopy);
        }
        self.column = 0;
        self.rows += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
