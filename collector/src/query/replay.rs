//! A session as a timeline: when, what, the verdict, rows, how long, the error, and what its results were.
//!
//! Promise: no text of a record reaches the terminal but through [`glyphs`].

use std::io::Write;

use serde_json::Value;

use super::{Answer, Kept, Operation, glyphs, transcript};

/// Most records of a session that are shown.
pub const SESSION_RECORDS_MAX: usize = 100_000;

/// Characters of a statement; `query --json` has all of it.
const TEXT_CHARS_MAX: usize = 2000;
const NAME_CHARS_MAX: usize = 100;
/// Characters of a value of a kept row.
const CELL_CHARS_MAX: usize = 60;
/// Characters of a digest; `--json` has all of it.
const DIGEST_CHARS_MAX: usize = 16;

/// Writes the session's records in the order of the log.
///
/// Of each kept result at most `rows_max` rows.
pub fn write_replay(
    out: &mut impl Write,
    answers: &[Answer],
    rows_max: usize,
) -> anyhow::Result<()> {
    let Some(first) = answers.first() else {
        writeln!(out, "no record of that session is here")?;
        return Ok(());
    };
    head(out, first, answers.iter().find_map(|answer| answer.operation.as_ref()))?;
    let begin = nanoseconds(&first.time);
    for answer in answers {
        let after = nanoseconds(&answer.time).saturating_sub(begin);
        let at = format!("+{}", duration(after));
        let what = match &answer.operation {
            Some(operation) => said(operation),
            None => glyphs(&answer.kind, NAME_CHARS_MAX),
        };
        let proof = answer.proof.as_ref().map_or("", |proof| proof.state);
        writeln!(out, "{at:>12}  #{:<8} {proof:<9}  {what}", answer.index)?;
        let text = glyphs(&answer.text, TEXT_CHARS_MAX);
        if !text.is_empty() {
            writeln!(out, "{:>12}  {text}", "")?;
        }
        let message = answer.operation.as_ref().and_then(|operation| operation.message.as_deref());
        if let Some(message) = message.filter(|message| !message.is_empty()) {
            writeln!(out, "{:>12}  ! {}", "", glyphs(message, TEXT_CHARS_MAX))?;
        }
        if let Some(operation) = &answer.operation {
            write_carried(out, operation)?;
            write_result(out, operation, rows_max)?;
        }
    }
    Ok(())
}

fn head(out: &mut impl Write, first: &Answer, operation: Option<&Operation>) -> anyhow::Result<()> {
    let name = |text: &str| glyphs(text, NAME_CHARS_MAX);
    writeln!(
        out,
        "session {} of {} to {} on {} (agent {}), from {}",
        first.session.as_deref().unwrap_or_default(),
        name(&first.who),
        name(&first.target),
        name(&first.host),
        name(&first.agent),
        first.time
    )?;
    if let Some(operation) = operation {
        let text = |text: &Option<String>| name(text.as_deref().unwrap_or("?"));
        writeln!(
            out,
            "as {}@{} by {} (uid {}, pid {})",
            text(&operation.user),
            text(&operation.database),
            text(&operation.executable),
            operation.uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string()),
            operation.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
        )?;
    }
    writeln!(out)?;
    Ok(())
}

fn said(operation: &Operation) -> String {
    let mut words = vec![operation.verdict.to_uppercase()];
    if operation.verdict != "allow" {
        words.push(format!("({})", glyphs(&operation.reason, NAME_CHARS_MAX)));
    }
    words.push(glyphs(&operation.kinds, NAME_CHARS_MAX));
    if let Some(status) = &operation.status {
        words.push(glyphs(status, NAME_CHARS_MAX));
    }
    if let Some(code) = operation.code.as_deref().filter(|code| !code.is_empty()) {
        words.push(glyphs(code, NAME_CHARS_MAX));
    }
    if let Some(rows) = operation.rows {
        words.push(format!("{rows} rows"));
    }
    if let Some(ns) = operation.duration_ns {
        words.push(duration(ns));
    }
    words.retain(|word| !word.is_empty());
    words.join("  ")
}

/// What was carried of a file.
fn write_carried(out: &mut impl Write, operation: &Operation) -> anyhow::Result<()> {
    let Some(carried) = &operation.carried else { return Ok(()) };
    let bytes = |key: &str| -> u64 {
        let ranges = carried.get(key).and_then(Value::as_array);
        let bytes = ranges.into_iter().flatten().filter_map(|range| range.get("bytes")?.as_u64());
        bytes.sum()
    };
    let (read, written) = (bytes("read"), bytes("written"));
    if read + written == 0 {
        return Ok(());
    }
    let digest = match carried.get("sha256").and_then(Value::as_str).unwrap_or_default() {
        "" => "not whole, or not in order".to_owned(),
        digest => format!("whole, SHA-256 {}", glyphs(digest, DIGEST_CHARS_MAX)),
    };
    writeln!(out, "{:>12}  = {read} bytes read, {written} written: {digest}", "")?;
    Ok(())
}

/// What the result was, and its kept rows as a table.
fn write_result(
    out: &mut impl Write,
    operation: &Operation,
    rows_max: usize,
) -> anyhow::Result<()> {
    let Some(result) = &operation.result else { return Ok(()) };
    let text = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| result.get(key).and_then(Value::as_u64).unwrap_or(0);
    let keyed = if result.get("keyed") == Some(&Value::Bool(true)) { " (keyed)" } else { "" };
    let digest = match text("digest") {
        "" => "no digest".to_owned(),
        digest => format!("BLAKE3 {}{keyed}", glyphs(digest, DIGEST_CHARS_MAX)),
    };
    write!(out, "{:>12}  = {} bytes, {digest}", "", number("bytes"))?;
    match (number("kept"), text("not_kept")) {
        (0, "") => writeln!(out)?,
        (kept, "") => writeln!(out, ", {kept} kept")?,
        (kept, why) => writeln!(out, ", {kept} kept ({})", glyphs(why, NAME_CHARS_MAX))?,
    }
    let Some(kept) = &operation.kept else { return Ok(()) };
    write_table(out, kept, rows_max)?;
    for line in kept.copied.lines().take(rows_max) {
        writeln!(out, "{:>12}  | {}", "", glyphs(line, TEXT_CHARS_MAX))?;
    }
    let written = transcript::plain(&kept.written);
    for line in written.lines().take(rows_max) {
        writeln!(out, "{:>12}  | {}", "", glyphs(line, TEXT_CHARS_MAX))?;
    }
    let more = written.lines().count().saturating_sub(rows_max)
        + kept.copied.lines().count().saturating_sub(rows_max)
        + kept.rows.len().saturating_sub(rows_max);
    if more > 0 {
        writeln!(out, "{:>12}  | and {more} more, with --rows or --json", "")?;
    }
    if let Some(wrong) = &kept.wrong {
        writeln!(out, "{:>12}  ! {}", "", glyphs(wrong, TEXT_CHARS_MAX))?;
    }
    if kept.digest_agrees == Some(false) {
        writeln!(out, "{:>12}  ! the kept rows do not have the digest of the outcome", "")?;
    }
    Ok(())
}

fn write_table(out: &mut impl Write, kept: &Kept, rows_max: usize) -> anyhow::Result<()> {
    let cell = |value: &Option<String>| match value {
        None => "NULL".to_owned(),
        Some(value) => glyphs(value, CELL_CHARS_MAX),
    };
    let mut lines: Vec<Vec<String>> = Vec::new();
    if !kept.rows.is_empty() && !kept.columns.is_empty() {
        lines.push(kept.columns.iter().map(|name| glyphs(name, CELL_CHARS_MAX)).collect());
    }
    lines.extend(kept.rows.iter().take(rows_max).map(|row| row.iter().map(cell).collect()));
    let mut widths: Vec<usize> = Vec::new();
    for line in &lines {
        widths.resize(widths.len().max(line.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{:>12}  | {}", "", cells.join(" | ").trim_end())?;
    }
    Ok(())
}

fn nanoseconds(time: &str) -> i64 {
    let at: Option<jiff::Timestamp> = time.parse().ok();
    at.and_then(|at| i64::try_from(at.as_nanosecond()).ok()).unwrap_or(0)
}

fn duration(ns: i64) -> String {
    let micros = ns / 1000;
    if micros < 1_000_000 {
        format!("{}.{:03} ms", micros / 1000, micros % 1000)
    } else {
        format!("{}.{:03} s", micros / 1_000_000, micros / 1000 % 1000)
    }
}
