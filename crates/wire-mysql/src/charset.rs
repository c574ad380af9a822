//! How the client's character set lets its bytes be read (information_schema.collations).
//!
//! Promise: a set that is not listed here is [`Charset::Other`], of which only ASCII is understood: a
//! second byte of its characters may be a quote or a backslash.

use tidegate_sql::mysql::Charset;

/// Collations of utf8mb3 and utf8mb4.
const UTF8: [(u16, u16); 8] =
    [(33, 33), (45, 46), (76, 76), (83, 83), (192, 247), (255, 323), (576, 578), (608, 610)];
/// MariaDB's UCA 14.0.0 collations of both.
const UTF8_UCA_1400: (u16, u16) = (2048, 2559);
/// MariaDB numbers the NO PAD variant of a collation by this much more.
const NO_PAD: (u16, u16) = (1025, 1279);

/// Collations of sets with one byte a character.
const SINGLE_BYTE: [u16; 65] = [
    2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 18, 20, 21, 22, 23, 25, 26, 27, 29, 30, 31, 32, 34,
    36, 37, 38, 39, 40, 41, 42, 43, 44, 47, 48, 49, 50, 51, 52, 53, 57, 58, 59, 63, 64, 65, 66, 67,
    68, 69, 70, 71, 72, 73, 74, 75, 77, 78, 79, 80, 81, 82, 89,
];

/// The set of a collation's number.
pub(crate) fn of_collation(id: u16) -> Charset {
    let within = |(from, to): (u16, u16), id: u16| (from..=to).contains(&id);
    let id = if within(NO_PAD, id) { id - 1024 } else { id };
    if UTF8.iter().any(|range| within(*range, id)) || within(UTF8_UCA_1400, id) {
        Charset::Utf8
    } else if SINGLE_BYTE.contains(&id) {
        Charset::SingleByte
    } else {
        Charset::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collation_tells_how_bytes_are_read() {
        for (id, set) in [
            (33, Charset::Utf8),
            (45, Charset::Utf8),
            (255, Charset::Utf8),
            (1069, Charset::Utf8),
            (2304, Charset::Utf8),
            (8, Charset::SingleByte),
            (63, Charset::SingleByte),
            (13, Charset::Other),
            (28, Charset::Other),
            (1, Charset::Other),
            (0, Charset::Other),
            (1024, Charset::Other),
            (9999, Charset::Other),
        ] {
            assert_eq!(of_collation(id), set, "{id}");
        }
    }
}
