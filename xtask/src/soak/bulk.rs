//! A large result passes in constant memory, masked.
//!
//! Shown for rows (one row at a time, by psycopg's single-row mode) and for COPY (by psql): the most
//! memory that the agent ever holds meanwhile is that of a result of a twentieth, and a bound more.
//! Clients throw the data away as they read it; how much there was is told by the record.

use std::path::Path;

use anyhow::Context as _;

use crate::lab::client::run;
use crate::lab::{AgentOptions, Lab, Options, Who, policies};

/// Bytes of the long form.
pub const BYTES: u64 = 10 << 30;
/// Bytes of the short form, whose agent is built for debugging.
pub const BYTES_SHORT: u64 = 192 << 20;

/// How much more memory a result of twenty times the size may take, in bytes.
const GROWTH_MAX: u64 = 8 << 20;

/// Rows of the table, and what one is long in PostgreSQL's messages, at least.
const ROWS: u64 = 10_000;
const ROW_BYTES: u64 = 970;

const PROTECT: &str = r#"
[[protect]]
target = "lab-db"
columns = ["public.people.ssn"]
class = "ssn"
mask = "redact"

[[protect]]
target = "lab-db"
columns = ["public.people.card"]
class = "card"
mask = "partial"
"#;

const TABLE: &str = "CREATE TABLE people (id int, ssn text, card text, note text); \
    INSERT INTO people SELECT n, lpad(n::text, 9, '1'), '4' || lpad(n::text, 15, '0'), \
    repeat(md5(n::text), 30) FROM generate_series(1, 10000) n; \
    GRANT ALL ON people TO PUBLIC";

/// Reads row by row, and prints how many there were and the first one's second and third value.
const STREAM: &str = r"
import sys, psycopg
with psycopg.connect(sys.argv[1]) as conn, conn.cursor() as cursor:
    first, count = None, 0
    for row in cursor.stream(sys.argv[2]):
        first, count = first or row, count + 1
    print(first[1], first[2], count)
";

/// Sends results of `bytes` through the gate; gives what was shown.
pub fn prove(bytes: u64) -> anyhow::Result<String> {
    let agent = AgentOptions {
        toml: PROTECT.to_owned(),
        policy: policies::MASKED.to_owned(),
        ..AgentOptions::default()
    };
    let mut lab = Lab::prepare(Options { agent, ..Options::default() })?;
    lab.postgres.app(TABLE)?;
    lab.start_collector()?;
    lab.start_agent()?;
    let mut shown = Vec::new();
    for way in [rows, copy] {
        // What is taken once, whatever the size.
        way(&lab, bytes / 20)?;
        let small = way(&lab, bytes / 20)?;
        let large = way(&lab, bytes)?;
        anyhow::ensure!(
            large.memory <= small.memory + GROWTH_MAX,
            "{}: {} bytes of memory for {} bytes of result, and {} for {}",
            large.what,
            small.memory,
            small.bytes,
            large.memory,
            large.bytes
        );
        shown.push(format!(
            "{}: {} bytes with at most {} kB of memory in the agent, and {} bytes with {} kB",
            large.what,
            large.bytes,
            large.memory / 1024,
            small.bytes,
            small.memory / 1024
        ));
    }
    lab.finish()?;
    Ok(shown.join("; "))
}

/// What one result took.
struct Passed {
    what: &'static str,
    bytes: u64,
    memory: u64,
}

fn select(bytes: u64) -> (String, u64) {
    let times = bytes.div_ceil(ROWS * ROW_BYTES);
    let text =
        format!("SELECT p.id, p.ssn, p.card, p.note FROM people p, generate_series(1, {times}) g");
    (text, times * ROWS)
}

fn rows(lab: &Lab, bytes: u64) -> anyhow::Result<Passed> {
    let (text, count) = select(bytes);
    lab.agent()?.forget_memory_max()?;
    let mut python = lab.python(Who::Service)?;
    let answer = run(python.arg(lab.dsn()).arg(&text), STREAM.as_bytes())?;
    let expected = format!("**** ************0001 {count}\n");
    anyhow::ensure!(answer.stdout == expected, "{answer}");
    passed(lab, "rows", &text, bytes)
}

fn copy(lab: &Lab, bytes: u64) -> anyhow::Result<Passed> {
    let text = format!("COPY ({}) TO STDOUT", select(bytes).0);
    lab.agent()?.forget_memory_max()?;
    let mut psql = lab.command(Who::Service, Path::new("/usr/bin/psql"))?;
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", &lab.dsn(), "-c", &text]);
    let answer = run(&mut psql, b"")?;
    anyhow::ensure!(answer.ok(), "{answer}");
    passed(lab, "COPY", &text, bytes)
}

/// What the record says of it, and what the agent held.
fn passed(lab: &Lab, what: &'static str, text: &str, bytes: u64) -> anyhow::Result<Passed> {
    let memory = lab.agent()?.memory_bytes_max()?;
    let evidence = lab.evidence()?;
    let event = evidence.finished(text).context("the statement has no outcome")?;
    let number = |pointer| event.json.pointer(pointer).and_then(serde_json::Value::as_u64);
    let recorded = number("/result/bytes").unwrap_or(0);
    anyhow::ensure!(recorded >= bytes, "only {recorded} bytes are recorded: {}", event.json);
    let masked = number("/masked_columns");
    anyhow::ensure!(masked == Some(2), "{masked:?} columns were masked: {}", event.json);
    Ok(Passed { what, bytes: recorded, memory })
}
