//! The server's own log as the judge over the collector's records.
//!
//! Rules of matching, each from what PostgreSQL 15 does (src/backend/tcop/postgres.c):
//!
//! 1. A string of the simple protocol is logged once and whole (`statement: ..`), however many
//!    statements it holds, after the parser took it and before any of it runs. It matches one
//!    `query` record with the same text.
//! 2. A string that the parser refuses has no `statement:` line: only its ERROR with a STATEMENT
//!    line. It matches one `query` or `parse` record with that text whose outcome failed with that
//!    SQLSTATE.
//! 3. A Parse is not logged. A `parse` record whose outcome is not a failure matches no line; each
//!    Execute is logged (`execute NAME: ..`) and matches one `execute` record with the same text.
//! 4. What the server never ran because an earlier message of the pipeline failed (outcome
//!    `skipped`) has no line, and neither has what was refused by the gate.
//! 5. An ERROR with a STATEMENT belongs to the statement logged before it, when the text is the
//!    same; its SQLSTATE must be the record's. A record's failure must have its ERROR.
//! 6. A fast-path call is logged with its OID and matches one `function_call` record.
//! 7. A text longer than what a record holds matches by the part that the record holds.
//! 8. Sessions carry no common name in log and records. Two sessions match when their whole
//!    sequences are equal; equal sequences are interchangeable.
//!
//! Logins, cancels and the lines of the server's own processes are not statements, and are left out.

use std::collections::BTreeMap;

use super::serverlog::{Line, LineKind, Sessions};
use crate::lab::evidence::{Event, Evidence};

/// Bytes of a statement's text that a record holds at most (docs/formats/record.md).
const RECORD_TEXT_BYTES_MAX: usize = 16 * 1024;
/// A text that was cut may be shorter by the bytes of one character.
const CUT_SLACK_BYTES: usize = 8;
/// SQLSTATE of a syntax error: the server's parser does not understand either.
const SYNTAX_ERROR: &str = "42601";
/// Sessions that differ are shown up to this many.
const FAULTS_SHOWN_MAX: usize = 60;

/// What the judge says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Lines of the server's log.
    pub lines: usize,
    /// Sessions in it.
    pub server_sessions: usize,
    /// Records that should have a line.
    pub records: usize,
    /// Sessions of those.
    pub record_sessions: usize,
    /// Sessions that are equal.
    pub agreeing: usize,
    /// Everything that does not agree.
    pub faults: Vec<String>,
    /// Statements that the server's parser took.
    pub valid: usize,
    /// Statements that it refused with a syntax error.
    pub refused_by_parser: usize,
    /// Of those, unknown to the analyser.
    pub unknown_refused: usize,
    /// Valid ones that are unknown to the analyser, with the reason.
    pub unknown_valid: Vec<(String, String)>,
}

impl Verdict {
    /// The share of valid statements that are unknown.
    pub fn unknown_share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some ten thousands, far below 2^52")]
        let share = self.unknown_valid.len() as f64 / (self.valid.max(1) as f64);
        share
    }
}

/// Compares both sides.
pub fn compare(log: &Sessions, evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict {
        lines: log.values().map(Vec::len).sum(),
        server_sessions: log.len(),
        ..Verdict::default()
    };
    count_unknown(evidence, &mut verdict);
    let mut records = sequences(evidence);
    verdict.records = records.values().map(Vec::len).sum();
    verdict.record_sessions = records.len();
    let mut unmatched = Vec::new();
    for (session, lines) in log {
        let twin = records.iter().find(|(_, sequence)| first_difference(lines, sequence).is_none());
        match twin.map(|(name, _)| name.clone()) {
            Some(name) => {
                records.remove(&name);
                verdict.agreeing += 1;
            }
            None => unmatched.push((session, lines)),
        }
    }
    for (session, lines) in unmatched {
        verdict.faults.push(nearest(session, lines, &mut records));
    }
    for (session, sequence) in &records {
        let first = sequence.first().map(shown).unwrap_or_default();
        verdict.faults.push(format!(
            "record session {session}: {} records without a line, the first: {first}",
            sequence.len()
        ));
    }
    if let Some(more) = verdict.faults.len().checked_sub(FAULTS_SHOWN_MAX)
        && more > 0
    {
        verdict.faults.truncate(FAULTS_SHOWN_MAX);
        verdict.faults.push(format!("and {more} more"));
    }
    verdict
}

/// The lines that the records of each session ask for.
fn sequences(evidence: &Evidence) -> BTreeMap<String, Vec<Line>> {
    let mut sessions = BTreeMap::<String, Vec<Line>>::new();
    for event in evidence.operations() {
        if let Some(line) = wanted_line(event) {
            sessions.entry(event.session().to_owned()).or_default().push(line);
        }
    }
    sessions
}

/// The line that a record asks for, by the rules above.
fn wanted_line(event: &Event) -> Option<Line> {
    if matches!(event.verdict(), "deny") || event.status() == "skipped" {
        return None;
    }
    let code = (event.status() == "failed").then(|| event.text_of("code").to_owned());
    let kind = match event.via() {
        "query" => LineKind::Statement,
        "execute" => LineKind::Execute,
        "parse" if code.is_some() => LineKind::Refused,
        "function_call" => LineKind::Function,
        _ => return None,
    };
    let text = match kind {
        LineKind::Function => {
            let oid = event.text().split([' ', '=']).nth(1);
            oid.unwrap_or_default().to_owned()
        }
        _ => event.text().to_owned(),
    };
    Some(Line { kind, text, code })
}

/// Where two sequences differ first; `None` where they are equal.
fn first_difference(lines: &[Line], records: &[Line]) -> Option<usize> {
    let differs = lines.iter().zip(records).position(|(line, record)| !is_match(line, record));
    let shorter = lines.len().min(records.len());
    differs.or_else(|| (lines.len() != records.len()).then_some(shorter))
}

fn is_match(line: &Line, record: &Line) -> bool {
    let kinds = match (line.kind, record.kind) {
        // Whether the parser refused it shows in the server's log alone.
        (LineKind::Refused, LineKind::Statement) => true,
        (one, other) => one == other,
    };
    kinds && line.code == record.code && is_same_text(&line.text, &record.text)
}

fn is_same_text(line: &str, record: &str) -> bool {
    let is_cut = record.len() + CUT_SLACK_BYTES >= RECORD_TEXT_BYTES_MAX;
    line == record || (is_cut && line.starts_with(record))
}

/// Tells how a session differs from the one that has the most in common with it.
fn nearest(session: &str, lines: &[Line], records: &mut BTreeMap<String, Vec<Line>>) -> String {
    let common = |sequence: &Vec<Line>| first_difference(lines, sequence).unwrap_or(usize::MAX);
    let best = records.iter().max_by_key(|(_, sequence)| common(sequence));
    let Some((name, at)) = best.map(|(name, sequence)| (name.clone(), common(sequence))) else {
        return format!("server session {session}: {} lines without any record", lines.len());
    };
    let sequence = records.remove(&name).unwrap_or_default();
    let side = |list: &[Line]| list.get(at).map_or_else(|| "nothing more".to_owned(), shown);
    format!(
        "server session {session} ({} lines) and record session {name} ({} records) differ at {at}:\
         \n    log:    {}\n    record: {}",
        lines.len(),
        sequence.len(),
        side(lines),
        side(&sequence)
    )
}

fn shown(line: &Line) -> String {
    let text = line.text.chars().take(160).collect::<String>().replace('\n', " ");
    format!("{:?} {:?} {text}", line.kind, line.code)
}

fn count_unknown(evidence: &Evidence, verdict: &mut Verdict) {
    for event in evidence.operations() {
        if !matches!(event.via(), "query" | "parse") {
            continue;
        }
        let unknown = event.text_of("unknown");
        if event.text_of("code") == SYNTAX_ERROR {
            verdict.refused_by_parser += 1;
            verdict.unknown_refused += usize::from(!unknown.is_empty());
        } else {
            verdict.valid += 1;
            if !unknown.is_empty() {
                let text = event.text().replace('\n', " ");
                verdict.unknown_valid.push((text, unknown.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
