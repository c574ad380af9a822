//! `ui.db`: one-time links and sessions. SQLite, synced in full.
//!
//! Promises: a link is good once and for [`LINK_SECONDS`]; only hashes of links and cookies are
//! kept. A session ends after [`IDLE_SECONDS_MAX`] without
//! a request and after [`SESSION_SECONDS_MAX`] in any case.
//!
//! Nothing here is evidence: looks, sign-offs and the making of links are acts in the log (`looks`).

use std::path::Path;
use std::sync::MutexGuard;

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};

use super::roles::{Role, Scope};
use crate::clock::signed_ns;
use crate::db::Db;

/// How long a one-time link is good.
pub const LINK_SECONDS: u64 = 600;
/// A session without a request ends after this time.
pub const IDLE_SECONDS_MAX: u64 = 15 * 60;
/// A session ends after this time in any case.
pub const SESSION_SECONDS_MAX: u64 = 8 * 60 * 60;
/// Open sessions of one account; a further one ends the oldest.
pub const SESSIONS_PER_ACCOUNT_MAX: usize = 4;

const TOKEN_BYTES: usize = 32;
const SECOND_NS: u64 = 1_000_000_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS links (
        token_hash BLOB PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, scope TEXT NOT NULL,
        operates TEXT NOT NULL, made_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
        used_ns INTEGER) STRICT;
    CREATE TABLE IF NOT EXISTS sessions (
        id INTEGER PRIMARY KEY, token_hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
        role TEXT NOT NULL, scope TEXT NOT NULL, operates TEXT NOT NULL,
        begun_ns INTEGER NOT NULL, seen_ns INTEGER NOT NULL, ended_ns INTEGER) STRICT;
";

/// A person who has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The account's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it may see.
    pub scope: Scope,
    /// Principals that this person runs, and may not sign off.
    pub operates: Vec<String>,
    /// The session's number.
    pub session: i64,
}

/// What a one-time link is made for.
pub struct Invitation<'a> {
    /// The account's name.
    pub name: &'a str,
    /// What it may do.
    pub role: Role,
    /// What it may see.
    pub scope: &'a Scope,
    /// Principals that this person runs.
    pub operates: &'a [String],
}

/// A session, for the page of the admin.
pub struct OpenSession {
    /// Its number.
    pub id: i64,
    /// Who.
    pub name: String,
    /// In which role.
    pub role: String,
    /// Scope as JSON.
    pub scope: String,
    /// Since when.
    pub begun_ns: i64,
    /// Last request.
    pub seen_ns: i64,
}

/// The database, shared by threads.
pub struct Store {
    db: Db,
}

impl Store {
    /// Opens it, and makes it where it isn't there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { db: Db::open(path, SCHEMA)? })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock()
    }

    /// Makes a one-time link's token.
    pub fn invite(&self, invitation: &Invitation<'_>, now_ns: u64) -> anyhow::Result<String> {
        let token = new_token()?;
        let expires_ns = now_ns.saturating_add(LINK_SECONDS * SECOND_NS);
        self.db().execute(
            "INSERT INTO links (token_hash, name, role, scope, operates, made_ns, expires_ns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                hash(&token),
                invitation.name,
                invitation.role.name(),
                serde_json::to_string(invitation.scope)?,
                serde_json::to_string(invitation.operates)?,
                signed_ns(now_ns),
                signed_ns(expires_ns),
            ],
        )?;
        Ok(token)
    }

    /// Whether this link can still be used.
    pub fn is_open(&self, token: &str, now_ns: u64) -> anyhow::Result<bool> {
        Ok(self.db().query_row(
            "SELECT EXISTS (SELECT 1 FROM links
             WHERE token_hash = ?1 AND used_ns IS NULL AND expires_ns > ?2)",
            params![hash(token), signed_ns(now_ns)],
            |row| row.get(0),
        )?)
    }

    /// Spends the link and begins a session, both or neither; the cookie's value. `None`: the link is
    /// unknown, used or expired.
    pub fn enter(&self, token: &str, now_ns: u64) -> anyhow::Result<Option<String>> {
        let now = signed_ns(now_ns);
        let cookie = new_token()?;
        let mut db = self.db();
        let work = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let name: Option<String> = work
            .query_row(
                "UPDATE links SET used_ns = ?1
                 WHERE token_hash = ?2 AND used_ns IS NULL AND expires_ns > ?1 RETURNING name",
                params![now, hash(token)],
                |row| row.get(0),
            )
            .optional()?;
        let Some(name) = name else { return Ok(None) };
        work.execute(
            "INSERT INTO sessions (token_hash, name, role, scope, operates, begun_ns, seen_ns)
             SELECT ?1, name, role, scope, operates, ?3, ?3 FROM links WHERE token_hash = ?2",
            params![hash(&cookie), hash(token), now],
        )?;
        let kept = i64::try_from(SESSIONS_PER_ACCOUNT_MAX).unwrap_or(i64::MAX);
        work.execute(
            "UPDATE sessions SET ended_ns = ?2 WHERE name = ?1 AND ended_ns IS NULL AND id NOT IN
             (SELECT id FROM sessions WHERE name = ?1 AND ended_ns IS NULL
              ORDER BY id DESC LIMIT ?3)",
            params![name, now, kept],
        )?;
        work.commit()?;
        Ok(Some(cookie))
    }

    /// Whose cookie this is, where its session is still open; keeps it open.
    pub fn user(&self, cookie: &str, now_ns: u64) -> anyhow::Result<Option<User>> {
        let now = signed_ns(now_ns);
        let idle_since = signed_ns(now_ns.saturating_sub(IDLE_SECONDS_MAX * SECOND_NS));
        let begun_since = signed_ns(now_ns.saturating_sub(SESSION_SECONDS_MAX * SECOND_NS));
        let found = self
            .db()
            .query_row(
                "UPDATE sessions SET seen_ns = max(seen_ns, ?2) WHERE token_hash = ?1
                 AND ended_ns IS NULL AND seen_ns > ?3 AND begun_ns > ?4
                 RETURNING id, name, role, scope, operates",
                params![hash(cookie), now, idle_since, begun_since],
                read_user,
            )
            .optional()?;
        found.transpose()
    }

    /// Ends a session.
    pub fn end(&self, session: i64, now_ns: u64) -> anyhow::Result<bool> {
        let ended = self.db().execute(
            "UPDATE sessions SET ended_ns = ?2 WHERE id = ?1 AND ended_ns IS NULL",
            params![session, signed_ns(now_ns)],
        )?;
        Ok(ended == 1)
    }

    /// Sessions that are open now.
    pub fn sessions(&self, now_ns: u64) -> anyhow::Result<Vec<OpenSession>> {
        let idle_since = signed_ns(now_ns.saturating_sub(IDLE_SECONDS_MAX * SECOND_NS));
        let begun_since = signed_ns(now_ns.saturating_sub(SESSION_SECONDS_MAX * SECOND_NS));
        let db = self.db();
        let mut rows = db.prepare(
            "SELECT id, name, role, scope, begun_ns, seen_ns FROM sessions
             WHERE ended_ns IS NULL AND seen_ns > ?1 AND begun_ns > ?2 ORDER BY id",
        )?;
        let rows = rows.query_map([idle_since, begun_since], |row| {
            Ok(OpenSession {
                id: row.get(0)?,
                name: row.get(1)?,
                role: row.get(2)?,
                scope: row.get(3)?,
                begun_ns: row.get(4)?,
                seen_ns: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Accounts that ever had a link: name, role, links made, links used.
    pub fn accounts(&self) -> anyhow::Result<Vec<(String, String, u64, u64)>> {
        let db = self.db();
        let mut rows = db.prepare(
            "SELECT name, role, count(*), count(used_ns) FROM links GROUP BY name, role
             ORDER BY name, role",
        )?;
        let rows =
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn read_user(row: &Row<'_>) -> rusqlite::Result<anyhow::Result<User>> {
    let (session, name): (i64, String) = (row.get(0)?, row.get(1)?);
    let (role, scope, operates): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let read = || -> anyhow::Result<User> {
        let role = Role::ALL.into_iter().find(|known| known.name() == role);
        Ok(User {
            name,
            role: role.context("a role that this program does not know")?,
            scope: serde_json::from_str(&scope)?,
            operates: serde_json::from_str(&operates)?,
            session,
        })
    };
    Ok(read())
}

fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).context("no random numbers")?;
    Ok(hex::encode(bytes))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_NS: u64 = 60 * SECOND_NS;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("ui.db")).unwrap();
        (dir, store)
    }

    fn invite(store: &Store, now_ns: u64) -> String {
        let scope = Scope::default();
        let invitation =
            Invitation { name: "ann", role: Role::Reviewer, scope: &scope, operates: &[] };
        store.invite(&invitation, now_ns).unwrap()
    }

    #[test]
    fn a_link_is_good_once_and_for_ten_minutes() {
        let (_dir, store) = store();
        let link = invite(&store, 0);
        assert!(store.enter("ab", 1).unwrap().is_none(), "unknown");
        assert!(store.enter(&link, LINK_SECONDS * SECOND_NS).unwrap().is_none(), "expired");
        assert!(store.is_open(&link, 1).unwrap());
        assert!(store.enter(&link, LINK_SECONDS * SECOND_NS - 1).unwrap().is_some());
        assert!(!store.is_open(&link, 1).unwrap());
        assert!(store.enter(&link, 1).unwrap().is_none(), "used");
    }

    #[test]
    fn a_session_ends_when_idle_and_in_any_case() {
        let (_dir, store) = store();
        let cookie = store.enter(&invite(&store, 0), 1).unwrap().unwrap();
        let open = |now_ns| store.user(&cookie, now_ns).unwrap().is_some();
        assert!(open(14 * MINUTE_NS));
        assert!(open(28 * MINUTE_NS), "each request keeps it open");
        assert!(!open(44 * MINUTE_NS), "16 minutes without a request");

        let cookie = store.enter(&invite(&store, 0), 1).unwrap().unwrap();
        let open = |now_ns| store.user(&cookie, now_ns).unwrap().is_some();
        let last = (0..48).filter(|at| open(at * 10 * MINUTE_NS + 1)).count();
        assert_eq!(last, 48, "eight hours of work");
        assert!(!open(8 * 60 * MINUTE_NS + 1), "the eight hours are over");
    }

    #[test]
    fn a_further_session_ends_the_oldest_and_an_ended_one_is_nobodys() {
        let (_dir, store) = store();
        let mut cookies = Vec::new();
        for _ in 0..=SESSIONS_PER_ACCOUNT_MAX {
            cookies.push(store.enter(&invite(&store, 0), 1).unwrap().unwrap());
        }
        assert!(store.user(&cookies[0], 2).unwrap().is_none());
        let user = store.user(&cookies[1], 2).unwrap().unwrap();
        assert_eq!(store.sessions(2).unwrap().len(), SESSIONS_PER_ACCOUNT_MAX);
        assert!(store.end(user.session, 2).unwrap());
        assert!(store.user(&cookies[1], 2).unwrap().is_none());
        assert!(!store.end(user.session, 2).unwrap());
    }

    #[test]
    fn neither_link_nor_cookie_lies_in_the_file() {
        let (dir, store) = store();
        let link = invite(&store, 0);
        let cookie = store.enter(&link, 1).unwrap().unwrap();
        drop(store);
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&link) && !text.contains(&cookie));
        }
    }
}
