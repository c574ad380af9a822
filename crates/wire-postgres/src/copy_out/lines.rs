//! COPY in text and csv (manual, "COPY", "File Formats").

use tidegate_mask::{CopyFormat, CopyStyle};

use super::{BadCopy, Sink};

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Part of a value, or its end.
    Plain,
    /// Behind an escape: whatever it is, part of a value.
    Escaped,
    /// Within quotes, the same.
    Quoted,
    /// Within quotes behind an escape that is no quote.
    QuotedEscaped,
}

/// Reads rows that are lines.
pub(super) struct Lines {
    format: CopyFormat,
    state: State,
    header: bool,
}

impl Lines {
    pub fn new(format: CopyFormat) -> Self {
        Self { state: State::Plain, header: format.header, format }
    }

    pub fn feed(&mut self, data: &[u8], sink: &mut Sink) -> Result<(), BadCopy> {
        let mut rest = data;
        while !rest.is_empty() {
            let run = self.run(rest);
            let (part, after) = rest.split_at_checked(run).unwrap_or((rest, &[]));
            if self.header {
                sink.out.extend_from_slice(part);
            } else if sink.column >= sink.columns() {
                return Err(BadCopy);
            } else {
                sink.push(part);
            }
            rest = after;
            if let Some((end, after)) = rest.split_first() {
                rest = after;
                self.end(*end, sink)?;
            }
        }
        Ok(())
    }

    /// How many bytes are part of the value; behind them is what ends it.
    fn run(&mut self, data: &[u8]) -> usize {
        let (quote, escape) = match self.format.style {
            CopyStyle::Csv { quote, escape } => (quote, escape),
            CopyStyle::Text | CopyStyle::Binary => (b'\\', b'\\'),
        };
        let csv = matches!(self.format.style, CopyStyle::Csv { .. });
        let mut at = 0;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Plain => {
                    match memchr::memchr3(self.format.delimiter, b'\n', quote, rest) {
                        None => return data.len(),
                        Some(found) if rest.get(found) != Some(&quote) => return at + found,
                        Some(found) => at += found,
                    }
                    self.state = if csv { State::Quoted } else { State::Escaped };
                }
                State::Quoted => match memchr::memchr2(quote, escape, rest) {
                    None => return data.len(),
                    Some(found) => {
                        at += found;
                        // A doubled quote leaves and enters again.
                        let leaves = rest.get(found) == Some(&quote);
                        self.state = if leaves { State::Plain } else { State::QuotedEscaped };
                    }
                },
                State::Escaped => self.state = State::Plain,
                State::QuotedEscaped => self.state = State::Quoted,
            }
            at += 1;
        }
        data.len()
    }

    fn end(&mut self, byte: u8, sink: &mut Sink) -> Result<(), BadCopy> {
        if self.header {
            sink.out.push(byte);
            self.header = byte != b'\n';
            return Ok(());
        }
        if !sink.passes() {
            self.value(sink);
        }
        sink.end_field();
        sink.out.push(byte);
        if byte == b'\n' { sink.end_row() } else { Ok(()) }
    }

    /// Writes the held value as it goes on.
    fn value(&self, sink: &mut Sink) {
        if !sink.overflow && sink.held == self.format.null {
            match sink.for_null() {
                Some(bytes) => self.write(bytes, false, &mut sink.out),
                None => sink.out.extend_from_slice(&sink.held),
            }
            return;
        }
        // Buffers that are kept for the next value.
        let (held, mut plain) = (std::mem::take(&mut sink.held), std::mem::take(&mut sink.plain));
        plain.clear();
        let quoted = self.unescape(&held, &mut plain);
        if sink.mask(&plain) {
            let masked = std::mem::take(&mut sink.masked);
            self.write(&masked, quoted, &mut sink.out);
            sink.masked = masked;
        } else {
            sink.out.extend_from_slice(&self.format.null);
        }
        (sink.held, sink.plain) = (held, plain);
    }

    /// Appends the value behind what is written; `true` where it stood in quotes.
    fn unescape(&self, written: &[u8], value: &mut Vec<u8>) -> bool {
        let mut bytes = written.iter().copied();
        match self.format.style {
            CopyStyle::Csv { quote, escape } => {
                let inside =
                    written.strip_prefix(&[quote]).and_then(|rest| rest.strip_suffix(&[quote]));
                let Some(inside) = inside else {
                    value.extend_from_slice(written);
                    return false;
                };
                let mut bytes = inside.iter().copied();
                while let Some(byte) = bytes.next() {
                    value.extend(if byte == escape { bytes.next() } else { Some(byte) });
                }
                true
            }
            CopyStyle::Text | CopyStyle::Binary => {
                while let Some(byte) = bytes.next() {
                    value.extend(if byte == b'\\' { bytes.next().map(plain) } else { Some(byte) });
                }
                false
            }
        }
    }

    fn write(&self, value: &[u8], quoted: bool, out: &mut Vec<u8>) {
        let delimiter = self.format.delimiter;
        match self.format.style {
            CopyStyle::Csv { quote, escape } => {
                let special = |byte: &u8| {
                    *byte == delimiter || *byte == quote || matches!(byte, b'\n' | b'\r')
                };
                let quoted = quoted || value == self.format.null || value.iter().any(special);
                if !quoted {
                    out.extend_from_slice(value);
                    return;
                }
                out.push(quote);
                for byte in value {
                    if *byte == quote || *byte == escape {
                        out.push(escape);
                    }
                    out.push(*byte);
                }
                out.push(quote);
            }
            CopyStyle::Text | CopyStyle::Binary => {
                for byte in value {
                    match letter(*byte) {
                        Some(letter) => out.extend_from_slice(&[b'\\', letter]),
                        None if *byte == delimiter => out.extend_from_slice(&[b'\\', *byte]),
                        None => out.push(*byte),
                    }
                }
            }
        }
    }
}

/// Control characters that are written as a letter behind a backslash, and the backslash itself.
const LETTERS: [(u8, u8); 7] = [
    (b'\\', b'\\'),
    (0x08, b'b'),
    (0x0c, b'f'),
    (b'\n', b'n'),
    (b'\r', b'r'),
    (b'\t', b't'),
    (0x0b, b'v'),
];

fn letter(byte: u8) -> Option<u8> {
    LETTERS.into_iter().find(|(control, _)| *control == byte).map(|(_, letter)| letter)
}

fn plain(letter: u8) -> u8 {
    let found = LETTERS.into_iter().find(|(_, written)| *written == letter);
    found.map_or(letter, |(control, _)| control)
}
