//! A session as a timeline: when, what, the verdict, rows, how long, and the error.
//!
//! Promise: no text of a record reaches the terminal but through [`glyphs`].

use std::io::Write;

use super::{Answer, Operation, glyphs};

/// Most records of a session that are shown.
pub const SESSION_RECORDS_MAX: usize = 100_000;

/// Characters of a statement; `query --json` has all of it.
const TEXT_CHARS_MAX: usize = 2000;
const NAME_CHARS_MAX: usize = 100;

/// Writes the session's records in the order of the log.
pub fn write_replay(out: &mut impl Write, answers: &[Answer]) -> anyhow::Result<()> {
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
