//! PostgreSQL's log as JSON lines (`log_destination = jsonlog`), of TCP sessions only.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// What the server says of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which kind of line began it.
    pub kind: LineKind,
    /// Its whole text.
    pub text: String,
    /// SQLSTATE, where an ERROR or FATAL line belongs to it.
    pub code: Option<String>,
}

/// Kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// `statement: ..`: a string of the simple protocol that the parser took.
    Statement,
    /// `execute NAME: ..`: an Execute of the extended protocol.
    Execute,
    /// `fastpath function call: ..`; the text is the function's OID.
    Function,
    /// An ERROR with its STATEMENT and no line before: the parser refused the text.
    Refused,
}

/// The lines of each session, in order, by the server's session id.
pub type Sessions = BTreeMap<String, Vec<Line>>;

/// Reads the log; the harness's own sessions over the unix socket are left out.
pub fn read(path: &Path) -> anyhow::Result<Sessions> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> anyhow::Result<Sessions> {
    let mut sessions = Sessions::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).context("a line of the server's log")?;
        let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_client = matches!(field("backend_type"), "client backend" | "walsender");
        if !is_client || matches!(field("remote_host"), "" | "[local]") {
            continue;
        }
        let lines = sessions.entry(field("session_id").to_owned()).or_default();
        match field("error_severity") {
            "LOG" => lines.extend(logged(field("message"))),
            "ERROR" | "FATAL" => failed(lines, field("statement"), field("state_code")),
            _ => {}
        }
    }
    sessions.retain(|_, lines| !lines.is_empty());
    Ok(sessions)
}

/// A line that `log_statement = all` writes (postgres.c: exec_simple_query, exec_execute_message;
/// fastpath.c: HandleFunctionRequest).
fn logged(message: &str) -> Option<Line> {
    let line = |kind, text: &str| Line { kind, text: text.to_owned(), code: None };
    if let Some(text) = message.strip_prefix("statement: ") {
        return Some(line(LineKind::Statement, text));
    }
    if let Some(rest) = message.strip_prefix("execute ") {
        let (_, text) = rest.split_once(": ")?;
        return Some(line(LineKind::Execute, text));
    }
    let rest = message.strip_prefix("fastpath function call: ")?;
    let oid = rest.rsplit_once("(OID ")?.1.trim_end_matches(')');
    Some(line(LineKind::Function, oid))
}

/// An error belongs to the statement before it if that has the same text and no error yet;
/// otherwise the parser refused the text before the statement could be logged.
fn failed(lines: &mut Vec<Line>, statement: &str, code: &str) {
    if let Some(last) = lines.last_mut()
        && last.code.is_none()
        && last.kind != LineKind::Refused
        && (last.text == statement || last.kind == LineKind::Function)
    {
        last.code = Some(code.to_owned());
        return;
    }
    if !statement.is_empty() {
        lines.push(Line {
            kind: LineKind::Refused,
            text: statement.to_owned(),
            code: Some(code.to_owned()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(severity: &str, message: &str, statement: &str, code: &str) -> String {
        serde_json::json!({
            "backend_type": "client backend", "remote_host": "127.0.0.1", "session_id": "s",
            "error_severity": severity, "message": message, "statement": statement,
            "state_code": code,
        })
        .to_string()
    }

    #[test]
    fn errors_go_to_their_statement_and_refused_texts_stand_alone() {
        let log = [
            line("LOG", "statement: SELECT 1/0", "", "00000"),
            line("ERROR", "division by zero", "SELECT 1/0", "22012"),
            line("ERROR", "syntax error", "SELEKT", "42601"),
            line("LOG", "execute <unnamed>: SELECT $1", "", "00000"),
            line("WARNING", "odd", "", "01000"),
            line("LOG", "fastpath function call: \"lo_open\" (OID 952)", "", "00000"),
        ];
        let sessions = parse(&log.join("\n")).unwrap();
        let lines = sessions["s"].iter();
        let lines = lines.map(|l| (l.kind, l.text.as_str(), l.code.as_deref())).collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                (LineKind::Statement, "SELECT 1/0", Some("22012")),
                (LineKind::Refused, "SELEKT", Some("42601")),
                (LineKind::Execute, "SELECT $1", None),
                (LineKind::Function, "952", None),
            ]
        );
    }
}
