//! Answers as files: CSV to read, JSON with the entries themselves and their proofs.
//!
//! Promise: the JSON holds, for each answer, the exact bytes of its entry of the log, the leaf's hash and
//! an inclusion proof under the checkpoint that stands beside it (RFC 6962), so that a reader needs
//! neither the collector nor its index to check it. In the CSV no cell can be taken for a formula.
//!
//! Limits: where proofs would cost too much (`proof`), the file says so and holds none; where the log is too
//! long for a page, it holds no entries either. `export-bundle` has no such limits.

use serde_json::{Value, json};

use super::proof::Extract;
use super::routes::Context;
use super::words;
use crate::clock::rfc3339;
use crate::query::{Answer, Proofs};

/// Media type of CSV.
pub const CSV: &str = "text/csv; charset=utf-8";
/// Media type of JSON.
pub const JSON: &str = "application/json";

const HEADS: [&str; 19] = [
    "index",
    "time_utc",
    "received_utc",
    "agent",
    "host",
    "who",
    "executable",
    "db_user",
    "database",
    "target",
    "what",
    "kind",
    "verdict",
    "policies",
    "rows",
    "outcome",
    "duration_ns",
    "session",
    "text",
];

/// Answers as CSV (RFC 4180).
pub fn answers_csv(answers: &[Answer]) -> String {
    let mut out = line(HEADS);
    for answer in answers {
        let operation = answer.operation.clone().unwrap_or_default();
        let number = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
        out += &line([
            answer.index.to_string().as_str(),
            &answer.time,
            &answer.received,
            &answer.agent,
            &answer.host,
            &answer.who,
            operation.executable.as_deref().unwrap_or_default(),
            operation.user.as_deref().unwrap_or_default(),
            operation.database.as_deref().unwrap_or_default(),
            &answer.target,
            &words::what(answer),
            &answer.kind,
            &operation.verdict,
            &policies(&operation.policies),
            &number(operation.rows),
            &words::outcome(&operation).unwrap_or_default(),
            &number(operation.duration_ns),
            answer.session.as_deref().unwrap_or_default(),
            &answer.text,
        ]);
    }
    out
}

/// Names of policies, one after the other.
pub fn policies(policies: &Value) -> String {
    let names = policies.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(" ")
}

/// One line of CSV.
pub fn line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells: Vec<String> = cells.into_iter().map(cell).collect();
    format!("{}\r\n", cells.join(","))
}

/// Quoted where needed. What a spreadsheet would take for a formula gets an apostrophe before it.
fn cell(text: &str) -> String {
    let formula =
        text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    let quote = formula || text.contains([',', '"', '\r', '\n']);
    if !quote {
        return text.to_owned();
    }
    let mark = if formula { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}

/// The answers, their entries and proofs, and what is needed to check them.
pub fn bundle(
    context: &Context,
    question: &str,
    answers: &[Answer],
    extract: Option<&Extract>,
) -> anyhow::Result<Value> {
    let proofs = extract.map(Extract::prove).transpose()?.flatten();
    let note = extract.and_then(|extract| extract.head.as_ref()).map(|(_, note)| note);
    let left_out = proofs.is_none();
    let proofs: std::collections::HashMap<u64, _> =
        proofs.unwrap_or_default().into_iter().collect();
    let entries: Vec<Value> = extract
        .into_iter()
        .flat_map(|extract| &extract.leaves)
        .map(|leaf| {
            let proof = proofs.get(&leaf.index).map(|proof| {
                json!({
                    "leaf_hash": hex::encode(proof.leaf),
                    "path": proof.path.iter().map(hex::encode).collect::<Vec<_>>(),
                })
            });
            json!({ "index": leaf.index, "entry": hex::encode(&leaf.bytes), "inclusion": proof })
        })
        .collect();
    let keys = crate::keys::Keys::read(&context.ui.paths.keys())?;
    let policy = context.ui.config.policy(keys.verifier()?)?;
    let mut answers = answers.to_vec();
    Proofs::of(&context.ui.paths.log(), &keys.verifier()?, &policy).mark(&mut answers);
    Ok(json!({
        "v": 1,
        "what": "Answers of a Tidegate collector, with the log's entries behind them. An entry's \
            leaf hash is SHA-256 of 0x00 and its bytes; `path` leads from it to the checkpoint's \
            root (RFC 6962). Formats: docs/formats in Tidegate's repository.",
        "question": question,
        "asked_by": context.user.name,
        "role": context.user.role.name(),
        "scope": context.user.scope,
        "made": rfc3339(context.now()),
        "origin": context.ui.config.collector.origin,
        "checkpoint": note,
        "log_key": keys.log_key,
        "proofs_left_out": left_out,
        "answers": answers,
        "entries": entries,
    }))
}

/// Indented, with a line end.
pub fn pretty(value: &Value) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_and_is_no_formula() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"\n", "\"say \"\"hi\"\"\n\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("@sum", "\"'@sum\""),
            ("-1+cmd|x", "\"'-1+cmd|x\""),
            ("-17", "-17"),
            ("", ""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }
}
