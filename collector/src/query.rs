//! Questions to the index: who, what, when, target, table, verdict.
//!
//! Promise: every answer names its log index, so that it can be proven; asking never writes.
//! What a person sees on a terminal is shown by [`glyphs`]: record text cannot move the cursor.

mod filter;
mod glyphs;
mod proof;
mod replay;
mod rows;
mod transcript;

use std::io::Write;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};
use serde::Serialize;

pub use self::filter::{Filter, parse_moment, parse_time};
pub use self::glyphs::glyphs;
pub use self::proof::{Proof, Proofs};
pub use self::replay::{SESSION_RECORDS_MAX, write_replay};
pub use self::rows::{Kept, fill};
pub use self::transcript::{Written, head as written_head, plain as written_text, write_cast};
use crate::clock::rfc3339;

/// Characters of a statement in the table; `--json` has all of it.
const TEXT_CHARS_MAX: usize = 100;

/// One answer. Fields that are about operations are absent for the rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Index of its entry in the log.
    pub index: u64,
    /// When, by the agent's clock, RFC 3339.
    pub time: String,
    /// When the collector received it.
    pub received: String,
    /// The agent.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// Chain id, hexadecimal.
    pub chain: String,
    /// Place in the chain.
    pub seq: u64,
    /// Principal.
    pub who: String,
    /// Target.
    pub target: String,
    /// `query`, `parse`, `execute`, `login`, .. or the kind of record.
    pub kind: String,
    /// Statement text, or one line on what happened.
    pub text: String,
    /// Index of the seal that it is under, where it is under one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal_index: Option<u64>,
    /// How far it is proven, as the log's own files say; `verify` proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Session id, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What is known of an operation.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// What is known of an operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Operation {
    /// `allow`, `deny`, `would_deny`, `passed_open`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// Policies that made it.
    pub policies: serde_json::Value,
    /// Digest of the policy set.
    pub policy_digest: String,
    /// Durability level of the record.
    pub durability: String,
    /// What a policy wants people to be alerted of; empty for nothing.
    pub alert: String,
    /// Protected columns whose clear values the result may hold.
    pub unmasked: serde_json::Value,
    /// Whether values of the statement are masked in its record.
    pub masked: bool,
    /// What it does to what.
    pub effects: Vec<Effect>,
    /// Statement kinds.
    pub kinds: String,
    /// Parameters, as text.
    pub parameters: serde_json::Value,
    /// Name of the prepared statement.
    pub prepared: String,
    /// Why it was not understood.
    pub unknown: String,
    /// Fingerprint, hexadecimal.
    pub fingerprint: Option<String>,
    /// Database user.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// `application_name`.
    pub application: Option<String>,
    /// Process at the time of its connect.
    pub pid: Option<i64>,
    /// User id.
    pub uid: Option<i64>,
    /// Executable.
    pub executable: Option<String>,
    /// `ok`, `failed`, `suspended`, `skipped`, `lost`; absent while not known.
    pub status: Option<String>,
    /// SQLSTATE.
    pub code: Option<String>,
    /// Server's message.
    pub message: Option<String>,
    /// Rows.
    pub rows: Option<i64>,
    /// Result bytes.
    pub bytes_out: Option<i64>,
    /// Bytes copied in.
    pub copied_in: Option<i64>,
    /// Bytes copied out.
    pub copied_out: Option<i64>,
    /// Duration.
    pub duration_ns: Option<i64>,
    /// Command tags.
    pub tags: Option<String>,
    /// Columns of the result that were masked; absent where nothing of it was to be masked.
    pub masked_columns: Option<u32>,
    /// Log index of the outcome.
    pub outcome_index: Option<u64>,
    /// What its result was, as the outcome has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// What was carried of a file that was opened, as the outcome has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carried: Option<serde_json::Value>,
    /// An SSH command in one spelling; empty where it can't be told, and for other operations.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// The path as the client sent it, where the server resolved it to another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sent: String,
    /// The rows that were kept; only where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// Action.
    pub action: String,
    /// Relation, with its schema where the statement names one.
    pub relation: String,
    /// An update or delete without WHERE.
    pub unbounded: bool,
}

const OPERATIONS: &str = "
    SELECT o.idx, o.wall_ns, o.received_ns, c.agent_id, c.host, c.chain_id, o.seq, o.who, o.target,
        o.kind, o.text, o.session_id, o.verdict, o.reason, o.policies, o.policy_digest,
        o.durability, o.kinds, o.parameters, o.prepared, o.unknown, o.fingerprint, s.db_user,
        s.db_name, s.application, s.pid, s.uid, s.executable, o.status, o.code, o.message, o.rows,
        o.bytes_out, o.copied_in, o.copied_out, o.duration_ns, o.tags, o.outcome_idx,
        o.alert, o.unmasked, o.masked, o.masked_columns,
        o.result, o.carried, o.command, o.sent
    FROM operations o JOIN chains c ON c.id = o.chain
        LEFT JOIN sessions s ON s.session_id = o.session_id";

const LIFECYCLE: &str = "
    SELECT o.idx, o.wall_ns, o.received_ns, c.agent_id, c.host, c.chain_id, o.seq, o.who, o.target,
        o.kind, o.text, o.session_id
    FROM lifecycle o JOIN chains c ON c.id = o.chain";

/// The newest answers that match, in the order of the log.
pub fn ask(db: &Connection, filter: &Filter) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    // One snapshot for both tables.
    let view = db.unchecked_transaction()?;
    if let Some((condition, values)) = filter.operations() {
        answers.extend(select(&view, OPERATIONS, &condition, &values, filter, operation_row)?);
    }
    if let Some((condition, values)) = filter.lifecycle() {
        answers.extend(select(&view, LIFECYCLE, &condition, &values, filter, common_row)?);
    }
    for answer in &mut answers {
        if let Some(operation) = &mut answer.operation {
            operation.effects = effects(&view, answer.index)?;
        }
    }
    answers.sort_by_key(|answer| answer.index);
    let surplus = answers.len().saturating_sub(filter.limit);
    let mut answers = answers.split_off(surplus);
    for answer in &mut answers {
        answer.seal_index = seal_index(&view, answer)?;
    }
    Ok(answers)
}

fn seal_index(db: &Connection, answer: &Answer) -> anyhow::Result<Option<u64>> {
    let chain = hex::decode(&answer.chain)?;
    let mut statement = db.prepare_cached(
        "SELECT s.idx FROM seals s JOIN chains c ON c.id = s.chain
         WHERE c.chain_id = ?1 AND s.last_seq >= ?2 ORDER BY s.last_seq LIMIT 1",
    )?;
    let found = statement.query_row((chain, answer.seq.cast_signed()), |row| row.get(0));
    Ok(found.optional()?)
}

/// The answers at these log indexes, in the order of the log; what is not in the index is left out.
pub fn at(db: &Connection, indexes: &[u64]) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for index in indexes {
        let mut statement = db.prepare_cached(&format!("{OPERATIONS} WHERE o.idx = ?1"))?;
        let found = statement.query_map([index], operation_row)?;
        answers.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    for answer in &mut answers {
        if let Some(operation) = &mut answer.operation {
            operation.effects = effects(db, answer.index)?;
        }
    }
    for answer in &mut answers {
        answer.seal_index = seal_index(db, answer)?;
    }
    answers.sort_by_key(|answer| answer.index);
    Ok(answers)
}

fn select(
    db: &Connection,
    columns: &str,
    condition: &str,
    values: &[Value],
    filter: &Filter,
    read: fn(&Row<'_>) -> rusqlite::Result<Answer>,
) -> anyhow::Result<Vec<Answer>> {
    let sql = format!("{columns} WHERE {condition} ORDER BY o.idx DESC LIMIT {}", filter.limit);
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn common_row(row: &Row<'_>) -> rusqlite::Result<Answer> {
    let blob = |at: usize| row.get::<_, Option<Vec<u8>>>(at).map(|bytes| bytes.map(hex::encode));
    Ok(Answer {
        index: row.get(0)?,
        time: rfc3339(row.get(1)?),
        received: rfc3339(row.get(2)?),
        agent: row.get(3)?,
        host: row.get(4)?,
        chain: blob(5)?.unwrap_or_default(),
        seq: row.get(6)?,
        who: row.get(7)?,
        target: row.get(8)?,
        kind: row.get(9)?,
        text: row.get(10)?,
        session: blob(11)?,
        seal_index: None,
        proof: None,
        operation: None,
    })
}

fn operation_row(row: &Row<'_>) -> rusqlite::Result<Answer> {
    let json = |at: usize| {
        row.get::<_, String>(at).map(|text| serde_json::from_str(&text).unwrap_or_default())
    };
    let fingerprint: Option<i64> = row.get(21)?;
    let operation = Operation {
        verdict: row.get(12)?,
        reason: row.get(13)?,
        policies: json(14)?,
        policy_digest: hex::encode(row.get::<_, Vec<u8>>(15)?),
        durability: row.get(16)?,
        alert: row.get(38)?,
        unmasked: json(39)?,
        masked: row.get(40)?,
        effects: Vec::new(),
        kinds: row.get(17)?,
        parameters: json(18)?,
        prepared: row.get(19)?,
        unknown: row.get(20)?,
        fingerprint: fingerprint.map(|print| format!("{:016x}", print.cast_unsigned())),
        user: row.get(22)?,
        database: row.get(23)?,
        application: row.get(24)?,
        pid: row.get(25)?,
        uid: row.get(26)?,
        executable: row.get(27)?,
        status: row.get(28)?,
        code: row.get(29)?,
        message: row.get(30)?,
        rows: row.get(31)?,
        bytes_out: row.get(32)?,
        copied_in: row.get(33)?,
        copied_out: row.get(34)?,
        duration_ns: row.get(35)?,
        tags: row.get(36)?,
        masked_columns: row.get(41)?,
        result: row.get::<_, Option<String>>(42)?.and_then(|text| serde_json::from_str(&text).ok()),
        carried: row
            .get::<_, Option<String>>(43)?
            .and_then(|text| serde_json::from_str(&text).ok()),
        command: row.get(44)?,
        sent: row.get(45)?,
        kept: None,
        outcome_index: row.get(37)?,
    };
    Ok(Answer { operation: Some(operation), ..common_row(row)? })
}

fn effects(db: &Connection, index: u64) -> rusqlite::Result<Vec<Effect>> {
    let mut statement = db.prepare_cached(
        "SELECT action, schema, relation, unbounded FROM effects WHERE idx = ?1 ORDER BY rowid",
    )?;
    let rows = statement.query_map([index], |row| {
        let (schema, name): (String, String) = (row.get(1)?, row.get(2)?);
        let relation = if schema.is_empty() { name } else { format!("{schema}.{name}") };
        Ok(Effect { action: row.get(0)?, relation, unbounded: row.get(3)? })
    })?;
    rows.collect()
}

/// One JSON object a line.
pub fn write_json(out: &mut impl Write, answers: &[Answer]) -> anyhow::Result<()> {
    for answer in answers {
        serde_json::to_writer(&mut *out, answer)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A table with aligned columns.
pub fn write_table(out: &mut impl Write, answers: &[Answer]) -> anyhow::Result<()> {
    const COLUMNS: usize = 10;
    let head = [
        "INDEX",
        "TIME (UTC)",
        "WHO",
        "TARGET",
        "KIND",
        "VERDICT",
        "OUTCOME",
        "ROWS",
        "PROOF",
        "TEXT",
    ];
    let mut lines: Vec<[String; COLUMNS]> = vec![head.map(str::to_owned)];
    lines.extend(answers.iter().map(line));
    let mut widths = [0_usize; COLUMNS];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for line in &lines {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            text.push_str(cell);
            if at + 1 < COLUMNS {
                text.extend(std::iter::repeat_n(' ', 2 + width - cell.chars().count()));
            }
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

fn line(answer: &Answer) -> [String; 10] {
    let operation = answer.operation.as_ref();
    let outcome = operation.and_then(|operation| {
        let status = operation.status.as_deref()?;
        let code = operation.code.as_deref().filter(|code| !code.is_empty());
        Some(code.map_or_else(|| status.to_owned(), |code| format!("{status} {code}")))
    });
    let time = answer.time.get(..23).unwrap_or(&answer.time).replace('T', " ");
    [
        answer.index.to_string(),
        time,
        glyphs(&answer.who, TEXT_CHARS_MAX),
        glyphs(&answer.target, TEXT_CHARS_MAX),
        glyphs(&answer.kind, TEXT_CHARS_MAX),
        operation.map(|operation| operation.verdict.clone()).unwrap_or_default(),
        glyphs(&outcome.unwrap_or_default(), TEXT_CHARS_MAX),
        operation.and_then(|operation| operation.rows).map(|n| n.to_string()).unwrap_or_default(),
        answer.proof.as_ref().map(|proof| proof.state.to_owned()).unwrap_or_default(),
        glyphs(&answer.text, TEXT_CHARS_MAX),
    ]
}
