//! `state.db`: agents, enrolment tokens, fork evidence, export cursors. SQLite, synced in full.
//!
//! Promise: a token works once, also where two agents use it in the same moment; an export's
//! cursor never runs ahead of what the receiver took. Nothing here is evidence but `forks`: the whole batches of
//! a second history, of which the log holds the first, and the second one's seal; and `acts`, until they are in
//! the log.

use std::path::Path;
use std::sync::MutexGuard;

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tidegate_proto::audit::v1::Administration;

use crate::acts::{self, Act, Waiting};
use crate::clock::{self, signed_ns};
use crate::db::Db;

/// How long an enrolment token is good where nothing else is said.
pub const TOKEN_SECONDS: u64 = 3600;

const TOKEN_BYTES: usize = 32;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS agents (
        agent_id TEXT PRIMARY KEY, audit_key BLOB NOT NULL, enrolled_ns INTEGER NOT NULL,
        fresh_chain INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS audit_keys (
        agent_id TEXT NOT NULL, audit_key BLOB NOT NULL, enrolled_ns INTEGER NOT NULL,
        PRIMARY KEY (agent_id, audit_key)) STRICT;
    CREATE TABLE IF NOT EXISTS certificates (
        fingerprint BLOB PRIMARY KEY, agent_id TEXT NOT NULL, issued_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS tokens (
        token_hash BLOB PRIMARY KEY, agent_id TEXT NOT NULL, expires_ns INTEGER NOT NULL,
        used_ns INTEGER) STRICT;
    CREATE TABLE IF NOT EXISTS forks (
        id INTEGER PRIMARY KEY, agent_id TEXT NOT NULL, chain_id BLOB NOT NULL,
        seq INTEGER NOT NULL, received_ns INTEGER NOT NULL, detail TEXT NOT NULL,
        batch BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS acts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, wall_ns INTEGER NOT NULL, who TEXT NOT NULL,
        act TEXT NOT NULL, detail TEXT NOT NULL, digest BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS exports (
        name TEXT PRIMARY KEY, next_index INTEGER NOT NULL, dead_letters INTEGER NOT NULL) STRICT;
";

/// The database, shared by threads.
pub struct State {
    db: Db,
}

/// An enrolled agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub agent_id: String,
    /// The key that seals its chains now.
    pub audit_key: [u8; 32],
    /// When it was last enrolled.
    pub enrolled_ns: u64,
    /// Enrolled since its last chain began: a chain without a link to the one before is taken.
    pub fresh_chain: bool,
}

/// What an enrolment leaves behind.
pub struct Enrolment<'a> {
    /// The token that allows it.
    pub token: &'a str,
    /// Who enrols.
    pub agent_id: &'a str,
    /// Its audit key.
    pub audit_key: &'a [u8; 32],
    /// Its certificate's fingerprint.
    pub fingerprint: &'a [u8; 32],
    /// When that certificate ends.
    pub expires_ns: u64,
}

/// A batch that contradicts the log.
pub struct Fork<'a> {
    /// Who signed it.
    pub agent_id: &'a str,
    /// The chain.
    pub chain_id: &'a [u8; 32],
    /// The first sequence number of the batch.
    pub seq: u64,
    /// In words.
    pub detail: &'a str,
    /// The batch, as an encoded `Batch` message.
    pub batch: &'a [u8],
}

impl State {
    /// Opens it, and makes it where it isn't there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let schema = [SCHEMA, crate::approvals::SCHEMA].concat();
        Ok(Self { db: Db::open(path, &schema)? })
    }

    pub(crate) fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock()
    }

    /// Makes a token for one enrolment of this agent; only its hash is kept.
    pub fn new_token(&self, agent_id: &str, now_ns: u64, seconds: u64) -> anyhow::Result<String> {
        let mut bytes = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes).context("no random numbers")?;
        let token = hex::encode(bytes);
        let expires_ns = now_ns.saturating_add(seconds.saturating_mul(1_000_000_000));
        self.db().execute(
            "INSERT INTO tokens (token_hash, agent_id, expires_ns) VALUES (?1, ?2, ?3)",
            params![token_hash(&token), agent_id, signed_ns(expires_ns)],
        )?;
        Ok(token)
    }

    /// Spends the token and takes the agent in, both or neither. `false`: the token is unknown,
    /// used, expired or another agent's.
    pub fn enrol(&self, enrolment: &Enrolment<'_>, now_ns: u64) -> anyhow::Result<bool> {
        let Enrolment { token, agent_id, audit_key, fingerprint, expires_ns } = *enrolment;
        let now = signed_ns(now_ns);
        let mut db = self.db();
        let work = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let spent = work.execute(
            "UPDATE tokens SET used_ns = ?1
             WHERE token_hash = ?2 AND agent_id = ?3 AND used_ns IS NULL AND expires_ns > ?1",
            params![now, token_hash(token), agent_id],
        )?;
        if spent != 1 {
            return Ok(false);
        }
        work.execute(
            "INSERT INTO agents (agent_id, audit_key, enrolled_ns, fresh_chain)
             VALUES (?1, ?2, ?3, 1)
             ON CONFLICT (agent_id) DO UPDATE SET audit_key = ?2, enrolled_ns = ?3, fresh_chain = 1",
            params![agent_id, audit_key, now],
        )?;
        work.execute(
            "INSERT OR IGNORE INTO audit_keys (agent_id, audit_key, enrolled_ns)
             VALUES (?1, ?2, ?3)",
            params![agent_id, audit_key, now],
        )?;
        work.execute("DELETE FROM certificates WHERE agent_id = ?1", [agent_id])?;
        work.execute(
            "INSERT INTO certificates (fingerprint, agent_id, issued_ns, expires_ns)
             VALUES (?1, ?2, ?3, ?4)",
            params![fingerprint, agent_id, now, signed_ns(expires_ns)],
        )?;
        work.commit()?;
        Ok(true)
    }

    /// The agent that this certificate was given to.
    pub fn agent_of(&self, fingerprint: &[u8; 32]) -> anyhow::Result<Option<Agent>> {
        let found = self.db().query_row(
            "SELECT agent_id, audit_key, enrolled_ns, fresh_chain
             FROM agents JOIN certificates USING (agent_id) WHERE fingerprint = ?1",
            params![fingerprint],
            read_agent,
        );
        Ok(found.optional()?)
    }

    /// The agent of that name.
    pub fn agent(&self, agent_id: &str) -> anyhow::Result<Option<Agent>> {
        let found = self.db().query_row(
            "SELECT agent_id, audit_key, enrolled_ns, fresh_chain FROM agents WHERE agent_id = ?1",
            [agent_id],
            read_agent,
        );
        Ok(found.optional()?)
    }

    /// Every agent, by name.
    pub fn agents(&self) -> anyhow::Result<Vec<Agent>> {
        let db = self.db();
        let mut rows = db.prepare(
            "SELECT agent_id, audit_key, enrolled_ns, fresh_chain FROM agents ORDER BY agent_id",
        )?;
        let agents = rows.query_map([], read_agent)?.collect::<Result<_, _>>()?;
        Ok(agents)
    }

    /// Every audit key that was ever enrolled: (agent, key), in a fixed order.
    pub fn audit_keys(&self) -> anyhow::Result<Vec<(String, [u8; 32])>> {
        let db = self.db();
        let mut rows = db.prepare(
            "SELECT agent_id, audit_key FROM audit_keys ORDER BY agent_id, enrolled_ns, audit_key",
        )?;
        let keys = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }

    /// Takes the collector's own key among those that seal chains.
    pub fn own_key(&self, audit_key: &[u8; 32]) -> anyhow::Result<()> {
        self.db().execute(
            "INSERT OR IGNORE INTO audit_keys (agent_id, audit_key, enrolled_ns)
             VALUES (?1, ?2, ?3)",
            params![acts::COLLECTOR, audit_key, signed_ns(clock::now_ns())],
        )?;
        Ok(())
    }

    /// A chain of this agent began: the next one must link to it.
    pub fn chain_began(&self, agent_id: &str) -> anyhow::Result<()> {
        self.db().execute("UPDATE agents SET fresh_chain = 0 WHERE agent_id = ?1", [agent_id])?;
        Ok(())
    }

    /// Keeps a batch that contradicts the log, once however often it is sent; `true` the first time.
    pub fn keep_fork(&self, fork: &Fork<'_>, now_ns: u64) -> anyhow::Result<bool> {
        let Fork { agent_id, chain_id, seq, detail, batch } = *fork;
        let kept = self.db().execute(
            "INSERT INTO forks (agent_id, chain_id, seq, received_ns, detail, batch)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6
             WHERE NOT EXISTS (SELECT 1 FROM forks WHERE chain_id = ?2 AND batch = ?6)",
            params![agent_id, chain_id, seq.cast_signed(), signed_ns(now_ns), detail, batch],
        )?;
        Ok(kept > 0)
    }

    /// Keeps an act until it is in the log; durable when it returns.
    pub fn act(&self, act: &Act) -> anyhow::Result<()> {
        self.act_by(&acts::who(), act).map(drop)
    }

    /// The same for somebody whom the program knows better than the kernel does; the act's number.
    pub fn act_by(&self, who: &str, act: &Act) -> anyhow::Result<u64> {
        let db = self.db();
        db.execute(
            "INSERT INTO acts (wall_ns, who, act, detail, digest) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![signed_ns(clock::now_ns()), who, act.act, act.detail, act.digest.as_slice()],
        )?;
        Ok(u64::try_from(db.last_insert_rowid())?)
    }

    /// Acts that wait for their place in the log, oldest first.
    pub fn waiting_acts(&self, behind: u64, most: usize) -> anyhow::Result<Vec<Waiting>> {
        let db = self.db();
        let mut rows = db.prepare_cached(
            "SELECT id, wall_ns, who, act, detail, digest FROM acts WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let rows = rows.query_map(params![signed_ns(behind), most], |row| {
            let id = row.get(0)?;
            let digest: Vec<u8> = row.get(5)?;
            let body = Administration {
                who: row.get(2)?,
                act: row.get(3)?,
                detail: row.get(4)?,
                digest: digest.into(),
                act_id: id,
            };
            Ok(Waiting { id, wall_ns: row.get(1)?, body })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The log holds acts up to this one: new ones get greater numbers, also where this file is older
    /// than the log.
    pub fn acts_begin_behind(&self, last: u64) -> anyhow::Result<()> {
        let mut db = self.db();
        let work = db.transaction()?;
        let last = signed_ns(last);
        work.execute("DELETE FROM acts WHERE id <= ?1", [last])?;
        let set = "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'acts'";
        if work.execute(set, [last])? == 0 {
            work.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('acts', ?1)", [last])?;
        }
        work.commit()?;
        Ok(())
    }

    /// Forgets the acts up to this one: they are in the log.
    pub fn acts_are_kept(&self, up_to: u64) -> anyhow::Result<()> {
        self.db().execute("DELETE FROM acts WHERE id <= ?1", [signed_ns(up_to)])?;
        Ok(())
    }

    /// How many batches contradict the log, by agent.
    pub fn forks(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let db = self.db();
        let mut rows =
            db.prepare("SELECT agent_id, count(*) FROM forks GROUP BY agent_id ORDER BY agent_id")?;
        let forks = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(forks.collect::<Result<_, _>>()?)
    }

    /// Where an export goes on: the next log index, and how many records it has given up.
    pub fn export_cursor(&self, name: &str) -> anyhow::Result<(u64, u64)> {
        let found = self.db().query_row(
            "SELECT next_index, dead_letters FROM exports WHERE name = ?1",
            [name],
            |row| Ok((row.get(0)?, row.get(1)?)),
        );
        Ok(found.optional()?.unwrap_or((0, 0)))
    }

    /// Moves an export's cursor; durable when it returns.
    pub fn move_export(&self, name: &str, next_index: u64, dead: u64) -> anyhow::Result<()> {
        self.db().execute(
            "INSERT INTO exports (name, next_index, dead_letters) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE
             SET next_index = ?2, dead_letters = dead_letters + ?3",
            params![name, signed_ns(next_index), signed_ns(dead)],
        )?;
        Ok(())
    }
}

fn read_agent(row: &rusqlite::Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        agent_id: row.get(0)?,
        audit_key: row.get(1)?,
        enrolled_ns: row.get(2)?,
        fresh_chain: row.get(3)?,
    })
}

fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrol(state: &State, token: &str, agent_id: &str, now_ns: u64) -> bool {
        let enrolment = Enrolment {
            token,
            agent_id,
            audit_key: &[1; 32],
            fingerprint: &[2; 32],
            expires_ns: u64::MAX,
        };
        state.enrol(&enrolment, now_ns).unwrap()
    }

    #[test]
    fn a_token_is_good_once_for_its_agent_and_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        let token = state.new_token("host-a", 1_000, 10).unwrap();
        let last_ns = 1_000 + 10_000_000_000;
        assert!(!enrol(&state, &token, "host-b", 2_000), "another agent used it");
        assert!(!enrol(&state, &token, "host-a", last_ns), "it was expired");
        assert!(!enrol(&state, "", "host-a", 2_000), "no token at all");
        assert!(enrol(&state, &token, "host-a", last_ns - 1));
        assert!(!enrol(&state, &token, "host-a", 3_000), "it was used before");
        assert_eq!(state.agents().unwrap().len(), 1);
    }

    #[test]
    fn an_old_certificate_is_nobodys_after_a_new_enrolment() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        for fingerprint in [[2; 32], [3; 32]] {
            let token = state.new_token("a", 0, 10).unwrap();
            let enrolment = Enrolment {
                token: &token,
                agent_id: "a",
                audit_key: &[1; 32],
                fingerprint: &fingerprint,
                expires_ns: u64::MAX,
            };
            assert!(state.enrol(&enrolment, 1).unwrap());
        }
        assert_eq!(state.agent_of(&[2; 32]).unwrap(), None);
        assert_eq!(state.agent_of(&[3; 32]).unwrap().unwrap().agent_id, "a");
    }
}
