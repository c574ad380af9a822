//! What a program wrote to a terminal, without what could harm the terminal of whoever looks at it later.
//!
//! Promises: what comes out draws, moves, colours and scrolls, and does nothing else: it sets no title, no clipboard, no
//! link, moves no window, prints nothing, loads no key, asks the terminal for no answer (which would be typed into the reader's
//! shell), and speaks no protocol of one terminal alone. It is decided by a list of what may pass (ECMA-48, and
//! xterm's control sequences as ncurses' terminfo uses them), so what is unknown goes. Any cut gives the same bytes.
//!
//! Limit: a control sequence of more than [`SEQUENCE_BYTES_MAX`] is left out.

/// Longest control sequence that passes, in bytes.
pub const SEQUENCE_BYTES_MAX: usize = 256;

/// Where in the stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC and an intermediate byte.
    Intermediate,
    /// In a control sequence.
    Control,
    /// In a string that is left out, up to its end.
    String,
    /// Behind an ESC in a string.
    StringEscape,
    /// Behind 0xC2, which begins a control character of the second set in UTF-8.
    SecondSet,
}

/// Leaves out what could harm.
#[derive(Debug, Default)]
pub struct Defuser {
    state: State,
    /// The sequence that is under way.
    held: Vec<u8>,
    /// Bytes of a character of UTF-8 that are still to come.
    more: u8,
    dropped: u64,
}

impl Defuser {
    /// Sequences and characters that were left out so far.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes the next bytes, and puts what may pass behind `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.take(byte, out);
        }
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Text => self.text(byte, out),
            State::SecondSet => {
                self.state = State::Text;
                match byte {
                    // C1 in UTF-8: what ESC and a letter say, in one character.
                    0x80..=0x9f => self.introduce(byte - 0x40),
                    0xa0..=0xbf => out.extend_from_slice(&[0xc2, byte]),
                    // No character: what comes is looked at as if nothing had been before it.
                    _ => {
                        self.dropped += 1;
                        self.text(byte, out);
                    }
                }
            }
            State::Escape => self.introduce(byte),
            State::Intermediate => self.intermediate(byte, out),
            State::Control => self.control(byte, out),
            State::String => match byte {
                0x07 | 0x18 | 0x1a | 0x9c => self.drop(),
                0x1b => self.state = State::StringEscape,
                _ => {}
            },
            // ESC \ ends it; any other ESC begins something new, as terminals take it.
            State::StringEscape if byte == b'\\' => self.drop(),
            State::StringEscape => {
                self.drop();
                self.introduce(byte);
            }
        }
        // Two sequences are decided where they end, with the byte that ends them.
        if self.state == State::Escape && self.held.len() == 1 {
            self.simple(out);
        }
    }

    fn text(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x80..=0xbf if self.more > 0 => {
                self.more -= 1;
                out.push(byte);
                return;
            }
            0x1b => {
                self.held.clear();
                self.state = State::Escape;
            }
            // Bell, backspace, tab, line feeds, return, the two character sets; and printable ones.
            0x07..=0x0f | 0x20..=0x7e => out.push(byte),
            0xc2 => {
                self.state = State::SecondSet;
            }
            // Other control characters, C1 in one byte among them, or no UTF-8.
            0x00..=0x1f | 0x7f | 0x80..=0xc1 | 0xf8..=0xff => self.dropped += 1,
            0xc3..=0xf7 => {
                self.more = match byte {
                    0xc3..=0xdf => 1,
                    0xe0..=0xef => 2,
                    _ => 3,
                };
                out.push(byte);
                return;
            }
        }
        self.more = 0;
    }

    /// Behind ESC comes `byte`.
    fn introduce(&mut self, byte: u8) {
        match byte {
            b'[' => {
                self.held.clear();
                self.state = State::Control;
            }
            // OSC, DCS, SOS, PM, APC, and a title of screen's.
            b']' | b'P' | b'X' | b'^' | b'_' | b'k' => {
                self.held.clear();
                self.state = State::String;
            }
            0x20..=0x2f => {
                self.held = vec![byte];
                self.state = State::Intermediate;
            }
            0x1b => {
                self.held.clear();
                self.state = State::Escape;
            }
            byte => {
                self.held = vec![byte];
                self.state = State::Escape;
            }
        }
    }

    /// ESC and one byte.
    fn simple(&mut self, out: &mut Vec<u8>) {
        let byte = self.held.first().copied().unwrap_or_default();
        self.held.clear();
        self.state = State::Text;
        match byte {
            // Save and restore the cursor, keypad, index, next line, tab stop, reverse index, reset, shifts.
            b'7' | b'8' | b'=' | b'>' | b'D' | b'E' | b'H' | b'M' | b'c' | b'N' | b'O' => {
                out.extend_from_slice(&[0x1b, byte]);
            }
            _ => self.dropped += 1,
        }
    }

    fn intermediate(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x20..=0x2f if self.held.len() < SEQUENCE_BYTES_MAX => self.held.push(byte),
            0x1b => {
                self.dropped += 1;
                self.held.clear();
                self.state = State::Escape;
            }
            _ => {
                // Character sets, and the alignment pattern.
                let first = self.held.first().copied().unwrap_or_default();
                let sets = matches!(first, b'(' | b')' | b'*' | b'+') && self.held.len() == 1;
                if (sets && byte.is_ascii_alphanumeric()) || (self.held == b"#" && byte == b'8') {
                    out.extend_from_slice(&[0x1b, first, byte]);
                } else {
                    self.dropped += 1;
                }
                self.held.clear();
                self.state = State::Text;
            }
        }
    }

    fn control(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x20..=0x3f => {
                if self.held.len() <= SEQUENCE_BYTES_MAX {
                    self.held.push(byte);
                }
            }
            0x40..=0x7e => {
                if self.may_pass(byte) {
                    out.extend_from_slice(b"\x1b[");
                    out.append(&mut self.held);
                    out.push(byte);
                } else {
                    self.dropped += 1;
                }
                self.held.clear();
                self.state = State::Text;
            }
            0x1b => {
                self.dropped += 1;
                self.held.clear();
                self.state = State::Escape;
            }
            // Terminals act on a control character inside of a sequence, and go on with it.
            0x07..=0x0f => out.push(byte),
            _ => {
                self.dropped += 1;
                self.held.clear();
                self.state = State::Text;
            }
        }
    }

    /// Whether the control sequence that is held may pass with this end.
    fn may_pass(&self, end: u8) -> bool {
        if self.held.len() > SEQUENCE_BYTES_MAX {
            return false;
        }
        let plain = self.held.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':'));
        let private = || {
            self.held
                .strip_prefix(b"?")
                .is_some_and(|rest| rest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';')))
        };
        match end {
            // Insert, move, erase, scroll, repeat, tab, colour, margins, save and restore.
            b'@'
            | b'A'..=b'M'
            | b'P'
            | b'S'
            | b'X'
            | b'Z'
            | b'`'
            | b'a'
            | b'b'
            | b'd'..=b'g'
            | b'm'
            | b'r'
            | b's'
            | b'u' => plain || (private() && matches!(end, b'J' | b'K')),
            // Scroll down; with more numbers it tracks the mouse.
            b'T' => plain && !self.held.contains(&b';'),
            b'h' | b'l' => (plain || private()) && self.modes().all(is_drawing),
            // The cursor's shape; soft reset.
            b'q' => {
                self.held.strip_suffix(b" ").is_some_and(|rest| rest.iter().all(u8::is_ascii_digit))
            }
            b'p' => self.held == b"!",
            _ => false,
        }
    }

    /// The numbers of a mode sequence; with 10,000 added where they are private.
    fn modes(&self) -> impl Iterator<Item = u32> {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        let private = text.starts_with('?');
        let numbers: Vec<u32> = text
            .trim_start_matches('?')
            .split(';')
            .map(|number| number.parse::<u32>().unwrap_or(u32::MAX / 2))
            .map(|number| if private { number.saturating_add(10_000) } else { number })
            .collect();
        numbers.into_iter()
    }
}

impl Defuser {
    fn drop(&mut self) {
        self.dropped += 1;
        self.held.clear();
        self.state = State::Text;
    }
}

/// Whether a mode changes how things are drawn, and not what the terminal sends: those of the mouse, of focus, of
/// pastes and of reports would have the reader's terminal type.
const fn is_drawing(mode: u32) -> bool {
    matches!(
        mode,
        // Insert, new line.
        4 | 20
        // Cursor keys, columns, smooth scroll, reverse, origin, wrap, blink, cursor.
        | 10_001 | 10_003..=10_007 | 10_012 | 10_025
        // Alternate screens, margins, synchronised output.
        | 10_040 | 10_045 | 10_047 | 10_069 | 11_047..=11_049 | 12_026
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn defused(bytes: &[u8], cut: usize) -> Vec<u8> {
        let (mut defuser, mut out) = (Defuser::default(), Vec::new());
        for part in bytes.chunks(cut.max(1)) {
            defuser.push(part, &mut out);
        }
        out
    }

    #[test]
    fn what_draws_passes_and_what_attacks_the_reader_does_not() {
        for (name, bytes, expected) in [
            ("text", &b"gr\xc3\xb6\xc3\x9fe \xe2\x9c\x93 \xf0\x9f\x8c\x8a\r\n\tx\x08"[..], None),
            ("colour", b"\x1b[1;38;5;160mred\x1b[0m", None),
            ("cursor", b"\x1b[2J\x1b[10;20Hx\x1b[K\x1b7\x1b8\x1b[?25l\x1b[?1049h\x1b[3;20r", None),
            ("line drawing", b"\x1b(0lqk\x1b(B", None),
            ("no-break space", b"a\xc2\xa0b", None),
            ("title", b"a\x1b]0;rm -rf\x07b", Some(&b"ab"[..])),
            ("title, ended by ST", b"a\x1b]2;x\x1b\\b", Some(b"ab")),
            ("clipboard", b"a\x1b]52;c;cm0gLXJm\x07b", Some(b"ab")),
            ("link", b"\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\", Some(b"text")),
            ("device status", b"a\x1b[6nb", Some(b"ab")),
            ("device attributes", b"a\x1b[c\x1b[>c\x1b[=c\x1bZb", Some(b"ab")),
            ("answerback", b"a\x05b", Some(b"ab")),
            ("request of a setting", b"a\x1bP$qm\x1b\\b", Some(b"ab")),
            ("sixel", b"a\x1bPq#0;2;0;0;0\x1b\\b", Some(b"ab")),
            ("window", b"a\x1b[8;50;100t\x1b[21tb", Some(b"ab")),
            ("printer", b"a\x1b[5i\x1b[?5ib", Some(b"ab")),
            ("mouse", b"a\x1b[?1000h\x1b[?1003hb", Some(b"ab")),
            ("pastes", b"a\x1b[?2004hb", Some(b"ab")),
            ("one drawing mode and one that reports", b"a\x1b[?25;1004hb", Some(b"ab")),
            ("application program command", b"a\x1b_Gf=32;AAAA\x1b\\b", Some(b"ab")),
            ("screen's title", b"a\x1bkevil\x1b\\b", Some(b"ab")),
            ("C1 in one byte", b"a\x9b6n\x9d0;x\x07b", Some(b"a6n0;x\x07b")),
            ("C1 in UTF-8", b"a\xc2\x9b6n\xc2\x9d0;x\x07b", Some(b"ab")),
            ("an escape behind half a character", b"a\xc2\x1b]52;c;ZQ==\x07\xc2\x05b", Some(b"ab")),
            ("C1 that draws", b"\xc2\x9b1mx", Some(b"\x1b[1mx")),
            ("never ended", b"a\x1b]0;x", Some(b"a")),
            ("an escape in a sequence", b"a\x1b[1\x1b[6nb\x1b[1mc", Some(b"ab\x1b[1mc")),
            ("a string cut by an escape", b"a\x1b]0;x\x1b[6nb", Some(b"ab")),
            ("keys", b"a\x1b[>4;2m\x1b[>1u\x1b[?ub", Some(b"ab")),
            ("a font for the reader's own", b"\x1b%G\x1b(Bx", Some(b"\x1b(Bx")),
        ] {
            let expected = expected.unwrap_or(bytes);
            for cut in [1, 2, 3, 1000] {
                let got = defused(bytes, cut);
                let shown = String::from_utf8_lossy(&got).into_owned();
                assert_eq!(got, expected, "{name}: {shown:?}");
            }
        }
    }

    #[test]
    fn a_sequence_without_an_end_is_bounded() {
        let (mut defuser, mut out) = (Defuser::default(), Vec::new());
        defuser.push(b"\x1b[", &mut out);
        defuser.push(&vec![b'1'; 1 << 20], &mut out);
        assert!(defuser.held.len() <= SEQUENCE_BYTES_MAX + 1);
        defuser.push(b"mx", &mut out);
        assert_eq!(out, b"x");
    }

    proptest! {
        #[test]
        fn nothing_that_comes_out_is_changed_by_going_through_again(
            parts in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..8),
                Just(b"\x1b".to_vec()), Just(b"\x1b[".to_vec()), Just(b"\x1b]".to_vec()),
                Just(b"\xc2".to_vec()), Just(b"6n".to_vec()), Just(b"\x1b\\".to_vec()),
            ], 0..20),
            cut in 1_usize..9,
        ) {
            let bytes = parts.concat();
            let once = defused(&bytes, cut);
            prop_assert_eq!(&once, &defused(&bytes, 1000));
            prop_assert_eq!(&once, &defused(&once, 1000));
            prop_assert!(once.iter().all(|byte| *byte >= 7));
        }
    }
}
