//! What ran over SSH wrote, joined from its parts; and an asciicast of it for a player.
//!
//! Promises: a cast holds what the record holds and nothing that could harm the player's terminal
//! (`tidegate_recording::Defuser`); characters that were cut apart are whole again. Times are those of the agent's boot
//! clock, which no clock step moves.

use std::io::Write;

use rusqlite::Connection;
use serde::Serialize;
use serde_json::json;
use tidegate_recording::Defuser;

use super::Answer;

/// Size of a terminal that none was told of, in characters.
const SIZE: (u32, u32) = (80, 24);

/// A part of what was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    /// `output`, `errors`, or `size`: then the text is `COLUMNSxROWS`.
    pub stream: String,
    /// When, since the first part, in nanoseconds.
    pub after_ns: i64,
    /// The bytes, as text.
    #[serde(rename = "text", serialize_with = "lossy")]
    pub data: Vec<u8>,
}

fn lossy<S: serde::Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(data))
}

impl Written {
    fn is_size(&self) -> bool {
        self.stream == "size"
    }

    /// Columns and rows of a part that tells a size.
    fn size(&self) -> Option<(u32, u32)> {
        let text = std::str::from_utf8(&self.data).ok().filter(|_| self.is_size())?;
        let (columns, rows) = text.split_once('x')?;
        Some((columns.parse().ok()?, rows.parse().ok()?))
    }
}

/// The beginning of what an operation wrote, at most about so many bytes, and whether there is more.
pub fn head(
    db: &Connection,
    answer: &Answer,
    bytes_max: usize,
) -> anyhow::Result<(Vec<Written>, bool)> {
    let mut statement = db.prepare_cached(
        "SELECT r.data, r.stream, r.boot_ns FROM result_rows r JOIN chains c ON c.id = r.chain
         WHERE c.chain_id = ?1 AND r.seq = ?2 AND r.stream <> '' ORDER BY r.start, r.idx",
    )?;
    let chain = hex::decode(&answer.chain)?;
    let mut rows = statement.query((chain, answer.seq.cast_signed()))?;
    let (mut written, mut bytes, mut begun) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if bytes >= bytes_max {
            return Ok((written, true));
        }
        let (data, stream, boot_ns): (Vec<u8>, String, i64) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        bytes += data.len();
        let after_ns = boot_ns.saturating_sub(*begun.get_or_insert(boot_ns));
        written.push(Written { stream, after_ns, data });
    }
    Ok((written, false))
}

/// The text that was written, without the sizes and without any control sequence.
pub fn plain(written: &[Written]) -> String {
    let (mut defuser, mut bytes) = (Defuser::default(), Vec::new());
    for part in written.iter().filter(|part| !part.is_size()) {
        defuser.push(&part.data, &mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut shown = String::new();
    let mut rest = text.chars();
    // What the defuser leaves is ESC [ .. letter, ESC and a set's two characters, or ESC and one.
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' => match rest.next() {
                Some('[') => _ = rest.by_ref().find(|end| ('@'..='~').contains(end)),
                Some('(' | ')' | '*' | '+' | '#') => _ = rest.next(),
                _ => {}
            },
            '\n' | '\t' => shown.push(next),
            next if next.is_control() => {}
            next => shown.push(next),
        }
    }
    shown
}

/// Writes the session's terminal as an asciicast of version 3 (one JSON value a line; times are since the event
/// before). Returns how many sequences were left out.
///
/// # Errors
///
/// Where no output of the answer's operation is kept, or it can't be written.
pub fn write_cast(out: &mut impl Write, answer: &Answer) -> anyhow::Result<u64> {
    let kept = answer.operation.as_ref().and_then(|operation| operation.kept.as_ref());
    let written = kept.map(|kept| kept.written.as_slice()).unwrap_or_default();
    anyhow::ensure!(
        !written.is_empty(),
        "nothing that operation {} wrote is kept: a policy keeps it by @record(\"rows\")",
        answer.index
    );
    let (columns, rows) = written.iter().find_map(Written::size).unwrap_or(SIZE);
    let at: Option<jiff::Timestamp> = answer.time.parse().ok();
    let head = json!({
        "version": 3,
        "term": {"cols": columns, "rows": rows},
        "timestamp": at.map_or(0, jiff::Timestamp::as_second),
        "command": answer.text,
        "title": format!("{} to {}, operation {}", answer.who, answer.target, answer.index),
    });
    writeln!(out, "{head}")?;
    let (mut defuser, mut text, mut before) = (Defuser::default(), Vec::new(), 0);
    let mut event = |after_ns: i64, code: &str, data: &str| -> anyhow::Result<()> {
        // Microseconds, so that sums stay exact.
        let micros = after_ns / 1000 - before;
        before = after_ns / 1000;
        let seconds = format!("{}.{:06}", micros.max(0) / 1_000_000, micros.max(0) % 1_000_000);
        writeln!(out, "[{seconds}, {}, {}]", json!(code), json!(data))?;
        Ok(())
    };
    let mut is_first = true;
    for part in written {
        if let Some((columns, rows)) = part.size() {
            if !is_first {
                event(part.after_ns, "r", &format!("{columns}x{rows}"))?;
            }
            is_first = false;
            continue;
        }
        is_first = false;
        defuser.push(&part.data, &mut text);
        let whole = whole_characters(&text);
        let rest = text.split_off(whole);
        if !text.is_empty() {
            event(part.after_ns, "o", &String::from_utf8_lossy(&text))?;
        }
        text = rest;
    }
    if let Some(status) = answer.operation.as_ref().and_then(exit_status) {
        let last = written.last().map_or(0, |part| part.after_ns);
        event(last, "x", &status)?;
    }
    Ok(defuser.dropped())
}

fn exit_status(operation: &super::Operation) -> Option<String> {
    Some(operation.tags.as_deref()?.strip_prefix("exit ")?.to_owned())
}

/// How many bytes are there before a character that is cut at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // What is no UTF-8 at all is replaced, and what may follow it is looked at behind the last whole character.
        Err(_) => {
            let tail = bytes.len().saturating_sub(3);
            let begins = |at: &usize| bytes.get(*at).is_some_and(|byte| *byte >= 0xc0);
            match (tail..bytes.len()).rev().find(begins) {
                Some(at) if std::str::from_utf8(bytes.get(at..).unwrap_or_default()).is_err() => at,
                _ => bytes.len(),
            }
        }
        Ok(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kept, Operation};
    use super::*;

    fn part(stream: &str, after_ns: i64, data: &[u8]) -> Written {
        Written { stream: stream.to_owned(), after_ns, data: data.to_vec() }
    }

    #[test]
    fn plain_text_has_no_control_sequence() {
        let written = [
            part("size", 0, b"80x24"),
            part("output", 0, b"\x1b[1mbo"),
            part("output", 1, b"ld\x1b[0m\r\n\x1b(0q\x1b(B\x1b7\x1b]0;t\x07end\x08"),
        ];
        assert_eq!(plain(&written), "bold\nqend");
    }

    #[test]
    fn a_cast_is_whole_defused_and_has_times_between_events() {
        let written = vec![
            part("size", 0, b"100x30"),
            part("output", 1_000_000, b"gr\xc3"),
            part("output", 501_000_000, b"\xb6n \x1b]0;evil\x07\x1b[1mx"),
            part("size", 601_000_000, b"90x20"),
            part("errors", 1_601_000_000, b"oops"),
        ];
        let kept = Kept { written, ..Kept::default() };
        let operation =
            Operation { kept: Some(kept), tags: Some("exit 3".to_owned()), ..Operation::default() };
        let time = "2026-11-26T02:15:00Z".to_owned();
        let answer = Answer { time, operation: Some(operation), ..Answer::default() };
        let mut out = Vec::new();
        assert_eq!(write_cast(&mut out, &answer).unwrap(), 1);
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        let head: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(head["term"], json!({"cols": 100, "rows": 30}));
        assert_eq!(head["version"], 3);
        assert_eq!(
            lines[1..],
            [
                r#"[0.001000, "o", "gr"]"#,
                "[0.500000, \"o\", \"ön \\u001b[1mx\"]",
                r#"[0.100000, "r", "90x20"]"#,
                r#"[1.000000, "o", "oops"]"#,
                r#"[0.000000, "x", "3"]"#,
            ]
        );
        assert!(write_cast(&mut Vec::new(), &Answer::default()).is_err());
    }
}
