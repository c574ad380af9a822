//! What must be done beside permitting: bounds on what a statement, or a principal in an hour, may
//! be answered, and whether its rows are kept.
//!
//! Promises: where several permits match, each bound is the least that any of them sets, and rows are
//! kept where any of them wants it.
//!
//! What it can't do: it counts nothing. Who relays the rows keeps the counts, cuts off, and says so.

/// Bounds on the results of an operation; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Duties {
    /// Rows that one statement may return.
    pub rows_max: Option<u64>,
    /// Bytes of rows that one statement may return, as they leave the server.
    pub bytes_max: Option<u64>,
    /// Rows that the principal may be given by the target in an hour.
    pub rows_per_hour: Option<u64>,
    /// Bytes that the principal may be given by the target in an hour.
    pub bytes_per_hour: Option<u64>,
    /// Rows are recorded as the client gets them, not only their shape and digest.
    pub keep_rows: bool,
}

/// The annotations that set them.
pub(crate) const ANNOTATIONS: [&str; 5] =
    ["rows_max", "bytes_max", "rows_per_hour", "bytes_per_hour", "record"];

/// Units of bytes.
const UNITS: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Duties {
    /// Whether nothing is bounded, and nothing kept.
    pub const fn is_empty(&self) -> bool {
        self.rows_max.is_none()
            && self.bytes_max.is_none()
            && self.rows_per_hour.is_none()
            && self.bytes_per_hour.is_none()
            && !self.keep_rows
    }

    /// Takes the lesser of each bound, and what keeps more.
    pub(crate) fn tighten(&mut self, other: &Self) {
        self.keep_rows |= other.keep_rows;
        for (mine, theirs) in [
            (&mut self.rows_max, other.rows_max),
            (&mut self.bytes_max, other.bytes_max),
            (&mut self.rows_per_hour, other.rows_per_hour),
            (&mut self.bytes_per_hour, other.bytes_per_hour),
        ] {
            *mine = match (*mine, theirs) {
                (Some(one), Some(another)) => Some(one.min(another)),
                (one, another) => one.or(another),
            };
        }
    }

    /// Reads one annotation; the error says how it is written.
    pub(crate) fn set(&mut self, annotation: &str, text: &str) -> Result<(), String> {
        let (place, bytes) = match annotation {
            "record" => return self.set_record(text),
            "rows_max" => (&mut self.rows_max, false),
            "bytes_max" => (&mut self.bytes_max, true),
            "rows_per_hour" => (&mut self.rows_per_hour, false),
            "bytes_per_hour" => (&mut self.bytes_per_hour, true),
            _ => return Err(format!("@{annotation} is no duty")),
        };
        let number = if bytes { size(text) } else { whole(text) };
        *place = Some(number.filter(|number| *number > 0).ok_or_else(|| {
            let form = if bytes { "a size as \"10 MiB\"" } else { "a whole number as \"1000\"" };
            format!("@{annotation}({text:?}) is no bound: write {form}, more than 0")
        })?);
        Ok(())
    }

    fn set_record(&mut self, text: &str) -> Result<(), String> {
        self.keep_rows = match text {
            "digest" => false,
            "rows" => true,
            _ => {
                return Err(format!(
                    "@record({text:?}) is no way to record a result: write \"digest\", which is \
                     what is recorded of each, or \"rows\""
                ));
            }
        };
        Ok(())
    }

    /// Each bound in words.
    pub fn words(&self) -> Vec<String> {
        let rows = |rows: u64| format!("{rows} row{}", if rows == 1 { "" } else { "s" });
        let parts = [
            self.rows_max.map(|max| format!("at most {} a statement", rows(max))),
            self.bytes_max.map(|max| format!("at most {} a statement", print_bytes(max))),
            self.rows_per_hour.map(|max| format!("at most {} an hour", rows(max))),
            self.bytes_per_hour.map(|max| format!("at most {} an hour", print_bytes(max))),
            self.keep_rows.then(|| "its rows are recorded".to_owned()),
        ];
        parts.into_iter().flatten().collect()
    }
}

fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn size(text: &str) -> Option<u64> {
    let (unit, factor) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    whole(text.strip_suffix(unit)?.trim_end())?.checked_mul(factor)
}

fn print_bytes(bytes: u64) -> String {
    let unit = UNITS.into_iter().rev().find(|(_, factor)| bytes.is_multiple_of(*factor));
    match unit {
        Some((unit, factor)) if bytes >= factor => format!("{} {unit}", bytes / factor),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_whole_positive_and_have_units_where_they_are_bytes() {
        for (annotation, text, expected) in [
            ("rows_max", "1000", Some("at most 1000 rows a statement")),
            ("rows_max", "1", Some("at most 1 row a statement")),
            ("rows_per_hour", "5", Some("at most 5 rows an hour")),
            ("bytes_max", "10MiB", Some("at most 10 MiB a statement")),
            ("bytes_max", "1536 KiB", Some("at most 1536 KiB a statement")),
            ("bytes_per_hour", "2 GiB", Some("at most 2 GiB an hour")),
            ("rows_max", "0", None),
            ("rows_max", "", None),
            ("rows_max", "-1", None),
            ("rows_max", "+1", None),
            ("rows_max", "1e3", None),
            ("rows_max", "10 MiB", None),
            ("rows_max", "99999999999999999999", None),
            ("bytes_max", "1000", None),
            ("bytes_max", "MiB", None),
            ("bytes_max", "1.5 GiB", None),
            ("bytes_max", "99999999999 TiB", None),
            ("cost_max", "1", None),
            ("record", "rows", Some("its rows are recorded")),
            ("record", "all", None),
        ] {
            let mut duties = Duties::default();
            let done = duties.set(annotation, text);
            let words = duties.words();
            assert_eq!(done.is_ok().then(|| words.join(", ")).as_deref(), expected, "{text}");
            assert_eq!(duties.is_empty(), expected.is_none(), "{text}");
        }
    }

    #[test]
    fn of_two_bounds_the_lesser_holds() {
        let mut one = Duties { rows_max: Some(5), bytes_max: Some(7), ..Duties::default() };
        one.tighten(&Duties { rows_max: Some(9), bytes_max: Some(3), ..Duties::default() });
        one.tighten(&Duties { rows_per_hour: Some(1), ..Duties::default() });
        one.tighten(&Duties { keep_rows: true, ..Duties::default() });
        let expected = Duties {
            rows_max: Some(5),
            bytes_max: Some(3),
            rows_per_hour: Some(1),
            bytes_per_hour: None,
            keep_rows: true,
        };
        assert_eq!(one, expected);
    }
}
