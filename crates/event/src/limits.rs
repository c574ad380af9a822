//! Limits of what one record holds. Beyond them a text is cut, and the record says so.

/// Longest statement text in a record, in bytes. Longer texts are recorded by this prefix, their
/// full length and their SHA-256.
pub const STATEMENT_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Longest parameter value in a record, in bytes.
pub const PARAMETER_BYTES_MAX: usize = 1024;

/// Most parameters in a record; PostgreSQL itself allows 65,535.
pub const PARAMETERS_MAX: usize = 256;

/// Longest of the short texts in a record (names, reasons, paths), in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// Longest path of a file in a record, in bytes: Linux's own limit (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;

/// Most ranges of a file that a record lists for each direction.
pub const RANGES_MAX: usize = 64;

/// Most effects in a record. A statement with more of them is recorded with this many, and says
/// how many there were.
pub const EFFECTS_MAX: usize = 256;

/// Largest record, in bytes, so that it fits a C2SP tlog-tiles entry (65,535).
pub const RECORD_BYTES_MAX: usize = 60 * 1024;

/// Cuts `text` to at most `max` bytes at a character boundary; `true` when something was cut.
pub fn cut(text: &str, max: usize) -> (&str, bool) {
    if text.len() <= max {
        return (text, false);
    }
    let at = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    (text.get(..at).unwrap_or_default(), true)
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("größe", 3), ("gr", true));
        assert_eq!(cut("größe", 4), ("grö", true));
        assert_eq!(cut("abc", 3), ("abc", false));
    }
}
