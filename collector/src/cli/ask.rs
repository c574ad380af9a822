//! `query`, `replay`, `export-bundle`: looks at the evidence. Each is an act, recorded before it is answered.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use rusqlite::OptionalExtension as _;

use super::ConfigFile;
use crate::acts::Act;
use crate::config::Config;
use crate::query::{
    Answer, Filter, Proofs, SESSION_RECORDS_MAX, ask, fill, parse_moment, parse_time, write_cast,
    write_json, write_replay, write_table,
};
use crate::state::State;
use crate::{bundle, clock, index, keys};

/// Answers of a query where no limit is given.
const QUERY_LIMIT: usize = 100;

/// What is asked for.
#[derive(Args)]
pub struct Question {
    /// Principal or database user
    #[arg(long)]
    who: Option<String>,
    /// Target
    #[arg(long)]
    target: Option<String>,
    /// Relation: name or schema.name
    #[arg(long, visible_alias = "relation")]
    table: Option<String>,
    /// What is done to a relation: select, insert, update, delete, ..
    #[arg(long)]
    action: Option<String>,
    /// Verdict
    #[arg(long, value_parser = ["allow", "deny", "would_deny", "passed_open"])]
    verdict: Option<String>,
    /// At that minute, or second: 2026-11-21T02:15Z; or 02:15, the last one, in UTC
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"])]
    at: Option<String>,
    /// From then on: 2026-11-21T02:15:00Z, or an age like 15m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Part of the statement
    #[arg(long)]
    text: Option<String>,
    /// query, parse, execute, login, cancel, a statement's kind, lifecycle, heartbeat, ..
    #[arg(long)]
    kind: Option<String>,
    /// Executable: its path, or its last part
    #[arg(long)]
    executable: Option<String>,
    /// At least so many rows
    #[arg(long, value_name = "N")]
    rows_min: Option<i64>,
    /// Agent
    #[arg(long)]
    agent: Option<String>,
    /// Session id
    #[arg(long)]
    session: Option<String>,
    /// What was done to, or asked of, the collector itself
    #[arg(long)]
    admin: bool,
    /// How many, the newest
    #[arg(long, value_name = "N", default_value_t = QUERY_LIMIT)]
    limit: usize,
}

/// `query`
#[derive(Args)]
pub struct Query {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    question: Question,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// `replay`
#[derive(Args)]
pub struct Replay {
    #[command(flatten)]
    config: ConfigFile,
    /// Session id, as `query --json` says it
    #[arg(required_unless_present = "last")]
    session: Option<String>,
    /// The newest session instead, or the newest of `--who`
    #[arg(long, conflicts_with = "session")]
    last: bool,
    /// With `--last`: of this principal or database user
    #[arg(long, requires = "last")]
    who: Option<String>,
    /// Kept rows to show of each result
    #[arg(long, default_value_t = 10)]
    rows: usize,
    /// One JSON object a line, with all kept rows
    #[arg(long)]
    json: bool,
    /// What an SSH terminal showed, as an asciicast (version 3) in this file, for a player
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    cast: Option<PathBuf>,
    /// With `--cast`: of the operation at this index of the log, instead of the first that has any
    #[arg(long, value_name = "INDEX", requires = "cast")]
    operation: Option<u64>,
}

/// `export-bundle`
#[derive(Args)]
pub struct ExportBundle {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    question: Question,
    /// These entries of the log instead of a question: FIRST..LAST
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    range: Option<(u64, u64)>,
    /// Directory to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Question {
    fn filter(&self) -> anyhow::Result<Filter> {
        let now = clock::signed_ns(clock::now_ns());
        let time =
            |text: &Option<String>| text.as_deref().map(|text| parse_time(text, now)).transpose();
        let (mut since_ns, mut until_ns) = (time(&self.since)?, time(&self.until)?);
        if let Some(at) = &self.at {
            let (from, to) = parse_moment(at, now)?;
            (since_ns, until_ns) = (Some(from), Some(to));
        }
        Ok(Filter {
            who: self.who.clone(),
            target: self.target.clone(),
            table: self.table.clone(),
            action: self.action.clone(),
            verdict: self.verdict.clone(),
            kind: self.kind.clone(),
            text: self.text.clone(),
            agent: self.agent.clone(),
            session: self.session.clone(),
            executable: self.executable.clone(),
            rows_min: self.rows_min,
            admin: self.admin,
            since_ns,
            until_ns,
            limit: self.limit,
        })
    }
}

/// Records the act, then asks.
fn answers(config: &Config, act: &'static str, filter: &Filter) -> anyhow::Result<Vec<Answer>> {
    let paths = config.paths();
    let detail = serde_json::to_string(filter)?;
    State::open(&paths.state())?.act(&Act::new(act, detail))?;
    let mut answers = ask(&index::open_for_reading(&paths.index())?, filter)?;
    let keys = keys::Keys::read(&paths.keys())?.verifier()?;
    let policy = config.policy(keys.clone())?;
    Proofs::of(&paths.log(), &keys, &policy).mark(&mut answers);
    Ok(answers)
}

/// Runs `query`.
pub fn query(query: &Query) -> anyhow::Result<()> {
    let config = Config::load(&query.config.config)?;
    let answers = answers(&config, "asked", &query.question.filter()?)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if query.json {
        write_json(&mut out, &answers)?;
    } else {
        write_table(&mut out, &answers)?;
    }
    out.flush()?;
    Ok(())
}

/// Runs `replay`.
pub fn replay(replay: &Replay) -> anyhow::Result<()> {
    let config = Config::load(&replay.config.config)?;
    let db = index::open_for_reading(&config.paths().index())?;
    let session = match &replay.session {
        Some(session) => session.clone(),
        None => newest_session(&db, replay.who.as_deref())?
            .context("no session of that principal is in the index")?,
    };
    let filter = Filter { session: Some(session), limit: SESSION_RECORDS_MAX, ..Filter::default() };
    let mut answers = answers(&config, "replayed", &filter)?;
    fill(&db, &mut answers)?;
    if let Some(path) = &replay.cast {
        return cast(path, replay.operation, &answers);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    if replay.json {
        write_json(&mut out, &answers)?;
    } else {
        write_replay(&mut out, &answers, replay.rows)?;
    }
    out.flush()?;
    Ok(())
}

/// Writes the cast of one operation, and says what was left out of it.
fn cast(path: &Path, index: Option<u64>, answers: &[Answer]) -> anyhow::Result<()> {
    let has_any = |answer: &&Answer| {
        let kept = answer.operation.as_ref().and_then(|operation| operation.kept.as_ref());
        kept.is_some_and(|kept| !kept.written.is_empty())
    };
    let answer = match index {
        Some(index) => answers.iter().find(|answer| answer.index == index),
        None => answers.iter().find(has_any),
    };
    let answer = answer.context(
        "no operation of that session has a kept terminal: a policy keeps it by @record(\"rows\")",
    )?;
    let shown = path.display();
    let file = std::fs::File::create(path).with_context(|| format!("{shown} can't be made"))?;
    let mut out = io::BufWriter::new(file);
    let dropped = write_cast(&mut out, answer)?;
    out.flush()?;
    writeln!(
        io::stderr(),
        "{shown}: operation {} as an asciicast; {dropped} sequences that could harm a terminal are left out",
        answer.index
    )?;
    Ok(())
}

/// Session id of the session that opened last.
fn newest_session(db: &rusqlite::Connection, who: Option<&str>) -> anyhow::Result<Option<String>> {
    let found = db.query_row(
        "SELECT lower(hex(session_id)) FROM sessions WHERE ?1 IS NULL OR principal = ?1 OR db_user = ?1
         ORDER BY opened_idx DESC LIMIT 1",
        [who],
        |row| row.get(0),
    );
    Ok(found.optional()?)
}

/// Runs `export-bundle`.
pub fn export_bundle(export: &ExportBundle) -> anyhow::Result<()> {
    let config = Config::load(&export.config.config)?;
    let paths = config.paths();
    let (wanted, question): (BTreeSet<u64>, String) = if let Some((first, last)) = export.range {
        let question = format!("entries {first} to {last}");
        State::open(&paths.state())?.act(&Act::new("exported", question.clone()))?;
        ((first..=last).collect(), question)
    } else {
        let filter = export.question.filter()?;
        let answers = answers(&config, "exported", &filter)?;
        let outcomes = answers.iter().filter_map(|answer| answer.operation.as_ref());
        let outcomes = outcomes.filter_map(|operation| operation.outcome_index);
        let indexes = answers.iter().map(|answer| answer.index).chain(outcomes);
        (indexes.collect(), serde_json::to_string(&filter)?)
    };
    let keys = keys::Keys::read(&paths.keys())?;
    let policy = config.policy(keys.verifier()?)?;
    let parts = bundle::make(&paths.log(), &keys, &policy, &wanted)?;
    bundle::write(&export.out, &parts, &keys, &policy, &question)?;
    let (entries, out) = (parts.entries.len(), export.out.display());
    writeln!(io::stdout(), "wrote {entries} entries with their proofs to {out}")?;
    Ok(())
}

/// `A..B`: both ends count.
pub fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no range like 100..250");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let range = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    let (first, last): (u64, u64) = range;
    let entries = u64::try_from(bundle::ENTRIES_MAX).unwrap_or(u64::MAX);
    if first > last {
        return Err(wrong());
    }
    if last - first >= entries {
        return Err(format!("more than {entries} entries"));
    }
    Ok(range)
}
