//! Reading for pages: the index behind a scope, and the newest checkpoint.
//!
//! Promise: nothing leaves here that the scope doesn't cover. The index is opened for reading only.

use rusqlite::{Connection, OptionalExtension as _, params};
use tidegate_ledger::checkpoint::{self, Checkpoint};

use super::Ui;
use super::roles::Scope;
use crate::config::Paths;
use crate::keys::Keys;
use crate::log::notes::NEWEST;
use crate::query::{self, Answer, Filter};
use crate::{files, index};

/// Answers of one session on a page.
pub const SESSION_ANSWERS_MAX: usize = 5_000;

/// The index, behind a scope.
pub struct Reader<'a> {
    /// For questions that `query` does not have; their answers must pass the scope.
    pub db: Connection,
    scope: &'a Scope,
}

/// What is known of a session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Chain id, hexadecimal.
    pub chain: String,
    /// The agent.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// Log index of the chain's Genesis.
    pub genesis: u64,
    /// Log index of the opening.
    pub opened: u64,
    /// When it was opened.
    pub opened_ns: i64,
    /// Log index of the end.
    pub closed: Option<u64>,
    /// When it ended.
    pub closed_ns: Option<i64>,
    /// Who, what, to where: name and value, in the order of the page.
    pub who: Vec<(&'static str, String)>,
    /// The principal.
    pub principal: String,
    /// The target.
    pub target: String,
    /// Who ended it.
    pub ended_by: Option<String>,
    /// Counts of its end: operations, refused, bytes from the client, bytes from the server.
    pub counts: Option<[u64; 4]>,
}

const FACTS: &str = "
    SELECT c.chain_id, c.agent_id, c.host, c.genesis_idx, s.opened_idx, s.opened_ns, s.closed_idx,
        s.closed_ns, s.principal, s.target, s.executable, s.comm, s.pid, s.uid, s.gid, s.cgroup,
        s.db_user, s.db_name, s.application, s.client, s.original, s.protocol, s.mode, s.ended_by,
        s.reason, s.operations, s.refused, s.bytes_from_client, s.bytes_from_server
    FROM sessions s JOIN chains c ON c.id = s.chain WHERE s.session_id = ?1";

impl<'a> Reader<'a> {
    /// Opens the index.
    pub fn open(ui: &Ui, scope: &'a Scope) -> anyhow::Result<Self> {
        Ok(Self { db: index::open_for_reading(&ui.paths.index())?, scope })
    }

    /// An index in memory, for what was read from the log itself.
    pub fn of(db: Connection, scope: &'a Scope) -> Self {
        Self { db, scope }
    }

    /// The newest answers within the scope.
    pub fn ask(&self, filter: Filter) -> anyhow::Result<Vec<Answer>> {
        let Some(filter) = self.scope.narrow(filter) else { return Ok(Vec::new()) };
        let answers = query::ask(&self.db, &filter)?;
        Ok(answers.into_iter().filter(|answer| self.scope.covers(answer)).collect())
    }

    /// The answers at these log indexes within the scope.
    pub fn at(&self, indexes: &[u64]) -> anyhow::Result<Vec<Answer>> {
        let answers = query::at(&self.db, indexes)?;
        Ok(answers.into_iter().filter(|answer| self.scope.covers(answer)).collect())
    }

    /// A session and what was done in it; `None` where there is none, or nothing of it is in the scope.
    pub fn session(&self, id: &str) -> anyhow::Result<Option<(Facts, Vec<Answer>)>> {
        let Ok(bytes) = hex::decode(id) else { return Ok(None) };
        let found = self.db.query_row(FACTS, params![bytes], read_facts).optional()?;
        let Some(facts) = found else { return Ok(None) };
        let filter = Filter {
            session: Some(id.to_owned()),
            limit: SESSION_ANSWERS_MAX,
            ..Filter::default()
        };
        let answers = self.ask(filter)?;
        let outside = answers.is_empty() && !self.scope.is_everything();
        Ok(Some((facts, answers)).filter(|_| !outside))
    }

    /// The seals over a run of one chain's records: log index and last record of each.
    pub fn seals(&self, chain: &str, from: u64, to: u64) -> anyhow::Result<Vec<(u64, u64)>> {
        let chain = hex::decode(chain)?;
        let mut rows = self.db.prepare(
            "SELECT s.idx, s.last_seq FROM seals s JOIN chains c ON c.id = s.chain
             WHERE c.chain_id = ?1 AND s.last_seq >= ?2 AND s.last_seq <= coalesce(
                (SELECT min(last_seq) FROM seals WHERE chain = c.id AND last_seq >= ?3), ?3)
             ORDER BY s.last_seq",
        )?;
        let rows =
            rows.query_map(params![chain, from, to], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Log index of the newest operation of all; 0 where there is none.
    pub fn newest_operation(&self) -> anyhow::Result<u64> {
        let sql = "SELECT coalesce(max(idx), 0) FROM operations";
        Ok(self.db.query_row(sql, [], |row| row.get(0))?)
    }

    /// How many entries the index has.
    pub fn indexed(&self) -> anyhow::Result<u64> {
        Ok(self.db.query_row("SELECT next FROM cursor", [], |row| row.get(0))?)
    }
}

fn read_facts(row: &rusqlite::Row<'_>) -> rusqlite::Result<Facts> {
    let text = |at: usize| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
    let number = |at: usize| {
        row.get::<_, Option<i64>>(at).map(|n| n.map(|n| n.to_string()).unwrap_or_default())
    };
    let mut who = vec![
        ("Service account (principal)", text(8)?),
        ("Program", text(10)?),
        ("Command name", text(11)?),
        ("Process", number(12)?),
        ("Unix user and group", format!("{}:{}", number(13)?, number(14)?)),
        ("Unit (control group)", text(15)?),
        ("Database user", text(16)?),
        ("Database", text(17)?),
        ("Application name (as the client says)", text(18)?),
        ("Client", text(19)?),
        ("Asked for", text(20)?),
        ("Target", text(9)?),
        ("Protocol", text(21)?),
        ("Mode", text(22)?),
        ("End", text(24)?),
    ];
    who.retain(|(_, value)| !value.is_empty() && value != ":");
    let counts = [row.get(25)?, row.get(26)?, row.get(27)?, row.get(28)?];
    let [Some(a), Some(b), Some(c), Some(d)]: [Option<u64>; 4] = counts else {
        return facts(row, who, None);
    };
    facts(row, who, Some([a, b, c, d]))
}

fn facts(
    row: &rusqlite::Row<'_>,
    who: Vec<(&'static str, String)>,
    counts: Option<[u64; 4]>,
) -> rusqlite::Result<Facts> {
    Ok(Facts {
        chain: hex::encode(row.get::<_, Vec<u8>>(0)?),
        agent: row.get(1)?,
        host: row.get(2)?,
        genesis: row.get(3)?,
        opened: row.get(4)?,
        opened_ns: row.get(5)?,
        closed: row.get(6)?,
        closed_ns: row.get(7)?,
        principal: row.get(8)?,
        target: row.get(9)?,
        ended_by: row.get(23)?,
        who,
        counts,
    })
}

/// The newest checkpoint with its note, where there is one that verifies.
pub fn newest_checkpoint(paths: &Paths) -> anyhow::Result<Option<(Checkpoint, String)>> {
    let file = paths.log().join(NEWEST);
    if !file.exists() {
        return Ok(None);
    }
    let note = files::read(&file)?;
    let key = Keys::read(&paths.keys())?.verifier()?;
    let checkpoint = checkpoint::open(&note, &key)
        .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    Ok(Some((checkpoint, note)))
}
