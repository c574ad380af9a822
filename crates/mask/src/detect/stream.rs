//! Detectors over a value that comes in parts.
//!
//! Promises: constant memory; what is found in the whole value is covered however it is cut, but for a
//! key whose recognisable beginning is longer than [`OVERLAP_BYTES`].

use super::{Cover, Detectors};

/// Bytes that are kept back until more has come: more than any value of bounded length.
const OVERLAP_BYTES: usize = 4096;

/// Bytes that are looked at together.
const WINDOW_BYTES: usize = 64 * 1024;

/// What ends a PEM block.
const END: &[u8] = b"-----END ";

/// What a window ended within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// A word: all up to its end is covered.
    Word,
    /// A PEM block.
    Pem,
}

/// Covers what is found in one value after another.
pub struct Stream {
    detectors: Detectors,
    window: Vec<u8>,
    open: Option<Open>,
    found: bool,
}

impl Stream {
    /// Before the first value.
    pub const fn new(detectors: Detectors) -> Self {
        Self { detectors, window: Vec::new(), open: None, found: false }
    }

    /// Memory held, in bytes, roughly.
    pub const fn held_bytes(&self) -> usize {
        self.window.capacity()
    }

    /// Takes the next part, and appends what is done to `out`.
    pub fn push(&mut self, part: &[u8], cover: Cover, out: &mut Vec<u8>) {
        for piece in part.chunks(WINDOW_BYTES) {
            self.window.extend_from_slice(piece);
            if self.window.len() > WINDOW_BYTES {
                self.pass(cover, OVERLAP_BYTES, out);
            }
        }
    }

    /// Appends all that is whole lines by now; the beginning of a line waits, unless the window is full.
    pub fn lines(&mut self, cover: Cover, out: &mut Vec<u8>) {
        let length = self.window.len();
        if let Some(last) = self.window.iter().rposition(|byte| *byte == b'\n') {
            self.pass_until(cover, last + 1, true, out);
        } else if length > OVERLAP_BYTES && self.open.is_some() {
            self.pass(cover, OVERLAP_BYTES, out);
        }
    }

    /// Whether something was found since this was asked last.
    pub fn take_found(&mut self) -> bool {
        std::mem::take(&mut self.found)
    }

    /// The value ends: appends the rest, and tells whether something was found.
    pub fn end(&mut self, cover: Cover, out: &mut Vec<u8>) -> bool {
        self.pass(cover, 0, out);
        self.open = None;
        std::mem::take(&mut self.found)
    }

    /// Covers what begins before the last `keep` bytes, and appends all before them.
    fn pass(&mut self, cover: Cover, keep: usize, out: &mut Vec<u8>) {
        let cut = self.window.len().saturating_sub(keep);
        self.pass_until(cover, cut, keep > 0, out);
    }

    /// Covers what begins before `cut`, and appends all before it; the value goes on behind the window or not.
    fn pass_until(&mut self, cover: Cover, cut: usize, goes_on: bool, out: &mut Vec<u8>) {
        let length = self.window.len();
        let start = self.close(cover, goes_on);
        // The end of a block may be cut too: its beginning waits for the rest.
        let cut = if self.open == Some(Open::Pem) { cut.min(start) } else { cut };
        let mut covered = start;
        for range in self.detectors.find(self.window.get(start..).unwrap_or_default()) {
            let range = range.start + start..range.end + start;
            let open_end = range.end == length && goes_on;
            if range.start >= cut && !open_end {
                break;
            }
            if open_end {
                let pem = self.window.get(range.clone()).unwrap_or_default().starts_with(b"-----");
                self.open = Some(if pem { Open::Pem } else { Open::Word });
            }
            covered = covered.max(range.end);
            cover.over(self.window.get_mut(range).unwrap_or_default());
            self.found = true;
        }
        // What is covered is done with: it could hide the beginning of nothing.
        let cut = cut.max(covered);
        out.extend(self.window.drain(..cut.min(length)));
    }

    /// Covers the rest of what the last window ended within, and says where it ends.
    fn close(&mut self, cover: Cover, goes_on: bool) -> usize {
        let length = self.window.len();
        let end = match self.open {
            None => return 0,
            Some(Open::Word) => {
                let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.+/=@".contains(byte);
                self.window.iter().position(|byte| !part(byte)).unwrap_or(length)
            }
            Some(Open::Pem) => {
                let found = self.window.windows(END.len()).position(|part| part == END);
                match found {
                    Some(at) => at + END.len(),
                    None if goes_on => {
                        let end = length.saturating_sub(END.len() - 1);
                        cover.over(self.window.get_mut(..end).unwrap_or_default());
                        return end;
                    }
                    None => length,
                }
            }
        };
        if end < length {
            self.open = None;
        }
        cover.over(self.window.get_mut(..end).unwrap_or_default());
        end
    }
}
