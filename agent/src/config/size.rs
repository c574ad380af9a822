//! Sizes as people write them: `"4 GiB"`.
//!
//! Promises: binary units only, whole numbers only, and no unit-less number, so that nobody has to
//! guess.

/// The units.
const UNITS: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Bytes of `text`, or `None` where it is no size.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (unit, factor) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `bytes` in the largest unit that divides it.
pub fn print(bytes: u64) -> String {
    UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || format!("{bytes} bytes"),
            |(unit, factor)| format!("{} {unit}", bytes / factor),
        )
}

#[cfg(test)]
mod tests {
    use super::{parse, print};

    #[test]
    fn a_size_has_a_whole_number_and_a_binary_unit() {
        for (text, expected) in [
            ("4 GiB", Some(4 << 30)),
            ("64MiB", Some(64 << 20)),
            ("1 KiB", Some(1024)),
            ("64", None),
            ("64 MB", None),
            ("1.5 GiB", None),
            ("-1 GiB", None),
            ("GiB", None),
            ("+1 GiB", None),
            ("99999999999 TiB", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(print(4 << 30), "4 GiB");
        assert_eq!(print((1 << 20) + 1), "1048577 bytes");
    }
}
