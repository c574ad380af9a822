//! The question of the page Ask, as an URL has it.
//!
//! Promise: [`Question::url`] of a question that was asked names its time absolutely, so that the URL
//! asks the same tomorrow; ages and times of day are turned into dates first.

use anyhow::Context as _;

use crate::clock::rfc3339;
use crate::query::{Filter, parse_time};
use crate::ui::page::encode;
use crate::ui::routes::{Fields, filled};

/// Answers on a page.
pub const ANSWERS_DEFAULT: usize = 200;
/// Most answers that a page shows, or an export holds.
pub const ANSWERS_MAX: usize = 10_000;

const SECOND_NS: i64 = 1_000_000_000;

/// Lengths of the window: name in the URL, words, seconds.
pub const SPANS: [(&str, &str, i64); 8] = [
    ("1m", "1 minute", 60),
    ("5m", "5 minutes", 300),
    ("15m", "15 minutes", 900),
    ("1h", "1 hour", 3_600),
    ("24h", "24 hours", 86_400),
    ("7d", "7 days", 7 * 86_400),
    ("31d", "31 days", 31 * 86_400),
    ("92d", "92 days", 92 * 86_400),
];

/// The span where none is given.
const SPAN_DEFAULT: &str = "1h";

/// The fields that name a part of an answer: in the URL, for people.
pub const NAMES: [(&str, &str); 10] = [
    ("who", "Account or database user"),
    ("table", "Table or view"),
    ("action", "Action on it"),
    ("exe", "Program"),
    ("target", "Target"),
    ("verdict", "Verdict"),
    ("kind", "Kind of statement or record"),
    ("agent", "Agent"),
    ("rows", "At least so many rows"),
    ("text", "Words in the statement"),
];

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// From then on; `None`: from the beginning.
    pub from_ns: Option<i64>,
    /// Before then; `None`: to the end.
    pub until_ns: Option<i64>,
    /// The span's name in the URL, `any` for no bounds.
    pub span: String,
    /// The fields of [`NAMES`] that are filled.
    pub fields: Fields,
    /// How many answers.
    pub limit: usize,
    /// Whether its time stood absolutely in the URL.
    pub absolute: bool,
}

impl Question {
    /// Reads it. `Err` says what cannot be understood.
    pub fn read(query: &Fields, now_ns: i64) -> anyhow::Result<Self> {
        let span = filled(query, "for").unwrap_or_else(|| SPAN_DEFAULT.to_owned());
        let limit = match filled(query, "limit") {
            None => ANSWERS_DEFAULT,
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|limit| (1..=ANSWERS_MAX).contains(limit))
                .with_context(|| format!("limit: a number from 1 to {ANSWERS_MAX}"))?,
        };
        if let Some(rows) = filled(query, "rows") {
            rows.parse::<i64>().ok().context("At least so many rows: give a number")?;
        }
        let named =
            NAMES.iter().filter_map(|(name, _)| Some(((*name).to_owned(), filled(query, name)?)));
        let mut question = Self {
            from_ns: None,
            until_ns: None,
            span,
            fields: named.collect(),
            limit,
            absolute: true,
        };
        if question.span == "any" {
            return Ok(question);
        }
        let spans = SPANS.iter().find(|(name, ..)| *name == question.span);
        let (_, _, seconds) = spans.context("for: choose one of the spans")?;
        let length = seconds * SECOND_NS;
        let (from, absolute) = match filled(query, "from") {
            None => (now_ns.saturating_sub(length), false),
            Some(text) => moment(&text, now_ns)?,
        };
        question.from_ns = Some(from);
        question.until_ns = Some(from.saturating_add(length));
        question.absolute = absolute;
        Ok(question)
    }

    /// The filter for `query`.
    pub fn filter(&self) -> Filter {
        let field = |name: &str| self.fields.get(name).cloned();
        Filter {
            who: field("who"),
            executable: field("exe"),
            target: field("target"),
            table: field("table"),
            action: field("action"),
            rows_min: field("rows").and_then(|rows| rows.parse().ok()),
            verdict: field("verdict"),
            kind: field("kind"),
            text: field("text"),
            agent: field("agent"),
            since_ns: self.from_ns,
            until_ns: self.until_ns,
            limit: self.limit,
            ..Filter::default()
        }
    }

    /// The query of its URL.
    pub fn url(&self) -> String {
        let mut parts = Vec::new();
        if let Some(from) = self.from_ns {
            parts.push(format!("from={}", encode(&whole_seconds(from))));
        }
        parts.push(format!("for={}", encode(&self.span)));
        parts.extend(self.fields.iter().map(|(name, value)| format!("{name}={}", encode(value))));
        if self.limit != ANSWERS_DEFAULT {
            parts.push(format!("limit={}", self.limit));
        }
        parts.join("&")
    }

    /// The same question with one field more.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut narrower = self.clone();
        narrower.fields.insert(name.to_owned(), value.to_owned());
        narrower
    }
}

/// RFC 3339, without a fraction where it is zero.
pub fn whole_seconds(ns: i64) -> String {
    rfc3339(ns).replace(".000000Z", "Z")
}

/// A moment, and whether the text alone says it: `2026-11-21 02:15`, RFC 3339, `02:15` (the last time
/// that it was so), or an age.
fn moment(text: &str, now_ns: i64) -> anyhow::Result<(i64, bool)> {
    let text = text.strip_suffix("UTC").unwrap_or(text).trim();
    // Before what knows no offset, which would read over one.
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok((i64::try_from(at.as_nanosecond())?, true));
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        let at = at.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
        return Ok((i64::try_from(at.as_nanosecond())?, true));
    }
    if let Ok(time) = text.parse::<jiff::civil::Time>()
        && text.contains(':')
    {
        let now = jiff::Timestamp::from_nanosecond(i128::from(now_ns))?;
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date().to_datetime(time);
        let at = today.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp();
        let at = i64::try_from(at.as_nanosecond())?;
        let day = 86_400 * SECOND_NS;
        return Ok((if at > now_ns { at - day } else { at }, false));
    }
    let at = parse_time(text, now_ns).with_context(|| {
        "From: give a date and time like 2026-11-21 02:15, a time of day like 02:15, or an age like 2h"
    })?;
    Ok((at, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26T03:00:00Z.
    const NOW: i64 = 1_795_662_000 * SECOND_NS;

    fn read(pairs: &[(&str, &str)]) -> anyhow::Result<Question> {
        let query =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Question::read(&query, NOW)
    }

    #[test]
    fn every_way_to_say_a_time_becomes_one_absolute_url() {
        for (from, span, expected, absolute) in [
            ("2026-11-21 02:15", "1m", "from=2026-11-21T02%3A15%3A00Z&for=1m", true),
            ("2026-11-21T02:15:00Z", "1m", "from=2026-11-21T02%3A15%3A00Z&for=1m", true),
            ("2026-11-21 02:15 UTC", "1m", "from=2026-11-21T02%3A15%3A00Z&for=1m", true),
            ("2026-11-21T03:15:00+01:00", "1m", "from=2026-11-21T02%3A15%3A00Z&for=1m", true),
            ("02:15", "1m", "from=2026-11-26T02%3A15%3A00Z&for=1m", false),
            ("03:01", "1m", "from=2026-11-25T03%3A01%3A00Z&for=1m", false),
            ("2h", "1h", "from=2026-11-26T01%3A00%3A00Z&for=1h", false),
            ("", "24h", "from=2026-11-25T03%3A00%3A00Z&for=24h", false),
            ("", "any", "for=any", true),
        ] {
            let question = read(&[("from", from), ("for", span)]).unwrap();
            assert_eq!(
                (question.url().as_str(), question.absolute),
                (expected, absolute),
                "{from:?}"
            );
            let again: Fields = question
                .url()
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.replace("%3A", ":")))
                .collect();
            let again = Question::read(&again, NOW + 86_400 * SECOND_NS).unwrap();
            assert_eq!((again.from_ns, again.until_ns), (question.from_ns, question.until_ns));
            assert!(again.absolute);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_said() {
        for pairs in [
            &[("from", "yesterday")][..],
            &[("from", "2026-13-01 00:00")],
            &[("for", "2y")],
            &[("limit", "0")],
            &[("limit", "100000")],
            &[("limit", "many")],
            &[("rows", "many")],
        ] {
            assert!(read(pairs).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn fields_are_in_the_url_and_in_the_filter() {
        let question =
            read(&[("from", "2026-11-21 02:15"), ("for", "1m"), ("table", " a&b "), ("who", "")]);
        let question = question.unwrap();
        assert_eq!(question.url(), "from=2026-11-21T02%3A15%3A00Z&for=1m&table=a%26b");
        let filter = question.filter();
        assert_eq!((filter.table.as_deref(), filter.who), (Some("a&b"), None));
        assert_eq!(filter.until_ns.unwrap() - filter.since_ns.unwrap(), 60 * SECOND_NS);
    }
}
