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
        let delimiter = self.format.delimiter;
        for (at, byte) in data.iter().copied().enumerate() {
            self.state = match (self.state, self.format.style) {
                (State::Plain, CopyStyle::Csv { quote, .. }) if byte == quote => State::Quoted,
                (State::Plain, CopyStyle::Text) if byte == b'\\' => State::Escaped,
                (State::Plain, _) if byte == delimiter || byte == b'\n' => return at,
                (State::Quoted, CopyStyle::Csv { quote, escape }) => {
                    if byte == escape && escape != quote {
                        State::QuotedEscaped
                    } else if byte == quote {
                        // A doubled quote leaves and enters again.
                        State::Plain
                    } else {
                        State::Quoted
                    }
                }
                (State::QuotedEscaped, _) => State::Quoted,
                (State::Plain | State::Escaped | State::Quoted, _) => State::Plain,
            };
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
            sink.out.extend_from_slice(&sink.held);
            return;
        }
        let held = std::mem::take(&mut sink.held);
        let (value, quoted) = self.unescaped(&held);
        match sink.masked(&value) {
            Some(masked) => self.write(&masked, quoted, &mut sink.out),
            None => sink.out.extend_from_slice(&self.format.null),
        }
        sink.held = held;
    }

    /// The value behind what is written, and whether it stood in quotes.
    fn unescaped(&self, written: &[u8]) -> (Vec<u8>, bool) {
        let mut value = Vec::with_capacity(written.len());
        match self.format.style {
            CopyStyle::Csv { quote, escape } => {
                let inside =
                    written.strip_prefix(&[quote]).and_then(|rest| rest.strip_suffix(&[quote]));
                let mut bytes = inside.unwrap_or(written).iter().copied();
                while let Some(byte) = bytes.next() {
                    let plain = inside.is_none() || byte != escape;
                    value.extend(if plain { Some(byte) } else { bytes.next() });
                }
                (value, inside.is_some())
            }
            CopyStyle::Text | CopyStyle::Binary => {
                let mut bytes = written.iter().copied();
                while let Some(byte) = bytes.next() {
                    value.extend(if byte == b'\\' { bytes.next().map(plain) } else { Some(byte) });
                }
                (value, false)
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
