//! What the detectors find in what a command writes is covered, line by line.
//!
//! Limit: a line's beginning waits for its end.

use tidegate_mask::{Cover::Stars, Detectors, Stream as Detecting};

/// Covers what the detectors find in one stream of a command's output.
pub struct Cover {
    stream: Detecting,
    /// In how many parts something was found.
    pub found: u64,
}

impl Cover {
    /// Before the first byte.
    pub const fn new(detectors: Detectors) -> Self {
        Self { stream: Detecting::new(detectors), found: 0 }
    }

    /// Takes what was written next, and gives the lines that are whole.
    pub fn lines(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.stream.push(data, Stars, &mut out);
        self.stream.lines(Stars, &mut out);
        self.found += u64::from(self.stream.take_found());
        out
    }

    /// Gives what waits for its line's end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.found += u64::from(self.stream.end(Stars, &mut out));
        out
    }
}
