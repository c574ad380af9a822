//! COPY in binary (manual, "COPY", "Binary Format").

use super::{BadCopy, Sink};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Bytes of the header without its extension: signature, flags, the extension's length.
const HEADER_BYTES: usize = 19;

/// Flags that a reader must know. None of them is used any more (bit 16 was for OIDs).
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// What the next bytes are.
#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Extension {
        left: usize,
    },
    /// How many values a row has.
    Count,
    Length,
    Value {
        left: usize,
    },
    /// Behind the trailer: nothing more comes.
    Ended,
}

/// Reads binary rows.
#[derive(Debug, Default)]
pub(super) struct Binary {
    state: State,
    /// Bytes of a number or of the header that are there.
    got: Vec<u8>,
}

impl Binary {
    pub fn feed(&mut self, mut data: &[u8], sink: &mut Sink) -> Result<(), BadCopy> {
        while !data.is_empty() || matches!(self.state, State::Value { left: 0 }) {
            match self.state {
                State::Header => {
                    if self.fill(HEADER_BYTES, &mut data) {
                        self.header(sink)?;
                    }
                }
                State::Extension { left } => {
                    let part = take(left, &mut data);
                    sink.out.extend_from_slice(part);
                    let left = left - part.len();
                    self.state = if left == 0 { State::Count } else { State::Extension { left } };
                }
                State::Count => {
                    if self.fill(2, &mut data) {
                        self.count(sink)?;
                    }
                }
                State::Length => {
                    if self.fill(4, &mut data) {
                        self.length(sink)?;
                    }
                }
                State::Value { left } => {
                    let part = take(left, &mut data);
                    sink.push(part);
                    let left = left - part.len();
                    self.state = State::Value { left };
                    if left == 0 {
                        self.value(sink)?;
                    }
                }
                State::Ended => return Err(BadCopy),
            }
        }
        Ok(())
    }

    /// Fills what was got up to `wanted` bytes; `true` once they are there.
    fn fill(&mut self, wanted: usize, data: &mut &[u8]) -> bool {
        let part = take(wanted.saturating_sub(self.got.len()), data);
        self.got.extend_from_slice(part);
        self.got.len() >= wanted
    }

    fn header(&mut self, sink: &mut Sink) -> Result<(), BadCopy> {
        let got = std::mem::take(&mut self.got);
        let rest = got.strip_prefix(SIGNATURE).ok_or(BadCopy)?;
        let (flags, length) = rest.split_first_chunk::<4>().ok_or(BadCopy)?;
        let length = length.first_chunk::<4>().ok_or(BadCopy)?;
        if u32::from_be_bytes(*flags) & CRITICAL_FLAGS != 0 {
            return Err(BadCopy);
        }
        let left = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| BadCopy)?;
        sink.out.extend_from_slice(&got);
        self.state = if left == 0 { State::Count } else { State::Extension { left } };
        Ok(())
    }

    fn count(&mut self, sink: &mut Sink) -> Result<(), BadCopy> {
        let count = self.got.first_chunk().map_or(0, |got| i16::from_be_bytes(*got));
        sink.out.append(&mut self.got);
        if count == -1 {
            self.state = State::Ended;
            return Ok(());
        }
        if usize::try_from(count) != Ok(sink.columns()) {
            return Err(BadCopy);
        }
        if count == 0 {
            return sink.end_row();
        }
        self.state = State::Length;
        Ok(())
    }

    fn length(&mut self, sink: &mut Sink) -> Result<(), BadCopy> {
        let length = self.got.first_chunk().map_or(0, |got| i32::from_be_bytes(*got));
        if length == -1 {
            if let Some(bytes) = sink.for_null() {
                let length = i32::try_from(bytes.len()).map_err(|_| BadCopy)?;
                sink.out.extend_from_slice(&length.to_be_bytes());
                sink.out.extend_from_slice(bytes);
                self.got.clear();
            } else {
                sink.out.append(&mut self.got);
            }
            return self.next(sink);
        }
        let left = usize::try_from(length).map_err(|_| BadCopy)?;
        if sink.passes() {
            sink.out.append(&mut self.got);
        }
        self.got.clear();
        self.state = State::Value { left };
        Ok(())
    }

    fn value(&mut self, sink: &mut Sink) -> Result<(), BadCopy> {
        if !sink.passes() {
            let held = std::mem::take(&mut sink.held);
            let there = sink.mask(&held);
            sink.held = held;
            let length = if there { i32::try_from(sink.masked.len()) } else { Ok(-1) };
            sink.out.extend_from_slice(&length.map_err(|_| BadCopy)?.to_be_bytes());
            if there {
                sink.out.extend_from_slice(&sink.masked);
            }
        }
        self.next(sink)
    }

    fn next(&mut self, sink: &mut Sink) -> Result<(), BadCopy> {
        sink.end_field();
        if sink.column < sink.columns() {
            self.state = State::Length;
            return Ok(());
        }
        self.state = State::Count;
        sink.end_row()
    }
}

fn take<'a>(count: usize, data: &mut &'a [u8]) -> &'a [u8] {
    let (part, rest) = data.split_at_checked(count).unwrap_or((*data, &[]));
    *data = rest;
    part
}
