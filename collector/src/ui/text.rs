//! Texts from evidence on a page: nothing in them can steer the page or its reader.
//!
//! Promise: `maud` escapes HTML; control, bidirectional, invisible and unassigned-by-intent
//! characters are shown as marked glyphs, never sent; each text stands in a `bdi` of its own, so that
//! right-to-left letters cannot reorder what stands beside it.
//!
//! Limit: [`SHORT_CHARS_MAX`] in tables. Known gap: letters that look alike (`а` and `a`) are not
//! told apart.

use maud::{Markup, html};

/// Characters of a text in a table.
pub const SHORT_CHARS_MAX: usize = 240;
/// Characters of a text on its own; the agent cuts longer ones long before.
const LONG_CHARS_MAX: usize = 256 * 1024;

/// Names of the control characters (ISO 6429). Many fonts lack the Control Pictures.
const CONTROLS: [&str; 32] = [
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR",
    "SO", "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC",
    "FS", "GS", "RS", "US",
];

/// A run of a text.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    /// The glyph, and what it stands for.
    Mark(String, String),
}

/// In a table: at most [`SHORT_CHARS_MAX`] characters, line ends as glyphs.
pub fn short(text: &str) -> Markup {
    show(text, SHORT_CHARS_MAX, false)
}

/// On its own: whole, line ends kept.
pub fn long(text: &str) -> Markup {
    show(text, LONG_CHARS_MAX, true)
}

fn show(text: &str, chars_max: usize, lines: bool) -> Markup {
    html! {
        bdi {
            @for part in parts(text, chars_max, lines) {
                @match part {
                    Part::Plain(text) => (text),
                    Part::Mark(glyph, means) => span.mark title=(means) { (glyph) },
                }
            }
        }
    }
}

fn parts(text: &str, chars_max: usize, lines: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    for (at, c) in text.chars().enumerate() {
        let mark = if at == chars_max {
            Some(("…".to_owned(), "cut here; the export has all of it".to_owned()))
        } else if lines && c == '\n' {
            None
        } else {
            mark(c)
        };
        match mark {
            None => plain.push(c),
            Some((glyph, means)) => {
                if !plain.is_empty() {
                    parts.push(Part::Plain(std::mem::take(&mut plain)));
                }
                parts.push(Part::Mark(glyph, means));
            }
        }
        if at == chars_max {
            return parts;
        }
    }
    if !plain.is_empty() {
        parts.push(Part::Plain(plain));
    }
    parts
}

/// What is shown in the place of a character that must not be sent.
fn mark(c: char) -> Option<(String, String)> {
    let code = u32::from(c);
    let means = format!("U+{code:04X}");
    match code {
        0x0a => Some(("↵".to_owned(), means)),
        0..=0x1f => {
            let name = usize::try_from(code).ok().and_then(|at| CONTROLS.get(at))?;
            Some((format!("⟨{name}⟩"), means))
        }
        0x7f => Some(("⟨DEL⟩".to_owned(), means)),
        _ if is_hidden(code) => Some((format!("⟨{means}⟩"), means)),
        _ => None,
    }
}

/// Bidirectional controls, invisible letters, fillers, separators, variation selectors, tags,
/// private use and what is no character (Unicode 17, general categories Cf, Zl, Zp, Co, Cn of note).
fn is_hidden(code: u32) -> bool {
    matches!(code,
        0x80..=0x9f | 0xad | 0x34f | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x115f..=0x1160
        | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
        | 0x3164 | 0xe000..=0xf8ff | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
        | 0xfffe..=0xffff | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0x10_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_steer_a_reader_is_shown_not_sent() {
        for (text, expected) in [
            ("select 1", "<bdi>select 1</bdi>"),
            ("<script>\"'&", "<bdi>&lt;script&gt;&quot;'&amp;</bdi>"),
            ("a\x1b[2J", "<bdi>a<span class=\"mark\" title=\"U+001B\">⟨ESC⟩</span>[2J</bdi>"),
            ("a\nb", "<bdi>a<span class=\"mark\" title=\"U+000A\">↵</span>b</bdi>"),
            ("x\u{202e}y", "<bdi>x<span class=\"mark\" title=\"U+202E\">⟨U+202E⟩</span>y</bdi>"),
            ("größe 顧客 🙂", "<bdi>größe 顧客 🙂</bdi>"),
        ] {
            assert_eq!(short(text).into_string(), expected, "{text:?}");
        }
        for hidden in ['\u{200b}', '\u{2066}', '\u{e0041}', '\u{9b}', '\u{feff}', '\u{61c}'] {
            assert!(!short(&hidden.to_string()).into_string().contains(hidden), "{hidden:?}");
        }
        assert_eq!(long("a\nb").into_string(), "<bdi>a\nb</bdi>");
        let cut = short(&"x".repeat(SHORT_CHARS_MAX + 9)).into_string();
        assert!(cut.contains('…') && cut.matches('x').count() < SHORT_CHARS_MAX + 4);
    }
}
