//! Record text for a terminal: control characters become glyphs, so that a statement cannot move
//! the cursor, change colours, or hide its own end.

use std::fmt::Write as _;

/// At most `chars_max` characters, with `…` where something was left out.
pub fn glyphs(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == chars_max {
            shown.push('…');
            break;
        }
        match u32::from(c) {
            // Control Pictures, Unicode 2400 to 241F, 2421.
            code @ 0..=0x1f => shown.push(char::from_u32(0x2400 + code).unwrap_or('\u{fffd}')),
            0x7f => shown.push('\u{2421}'),
            code @ (0x80..=0x9f | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff) => {
                // Writing to a String cannot fail.
                let _done = write!(shown, "<U+{code:04X}>");
            }
            _ => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::glyphs;

    #[test]
    fn what_could_steer_a_terminal_is_shown_not_sent() {
        let rows = [
            ("select 1", "select 1"),
            ("a\tb\r\nc", "a␉b␍␊c"),
            ("\x1b[2J\x7f", "␛[2J␡"),
            ("\u{9b}31m", "<U+009B>31m"),
            ("a\u{202e}b", "a<U+202E>b"),
            ("größe", "größe"),
            ("0123456789x", "0123456789…"),
        ];
        for (text, expected) in rows {
            assert_eq!(glyphs(text, 10), expected);
        }
    }
}
