//! Tables of the index. A change raises [`VERSION`]; the index is then made anew.

use rusqlite::Connection;

/// `PRAGMA user_version` of this schema.
pub const VERSION: i64 = 5;

const TABLES: &str = "
    CREATE TABLE cursor (next INTEGER NOT NULL) STRICT;
    INSERT INTO cursor VALUES (0);
    CREATE TABLE chains (
        id INTEGER PRIMARY KEY, chain_id BLOB NOT NULL UNIQUE, agent_id TEXT NOT NULL,
        host TEXT NOT NULL, genesis_idx INTEGER NOT NULL, last_seq INTEGER NOT NULL,
        last_wall_ns INTEGER NOT NULL, last_received_ns INTEGER NOT NULL) STRICT;
    CREATE TABLE seals (
        chain INTEGER NOT NULL, last_seq INTEGER NOT NULL, idx INTEGER NOT NULL,
        PRIMARY KEY (chain, last_seq)) STRICT, WITHOUT ROWID;
    CREATE TABLE sessions (
        session_id BLOB PRIMARY KEY, chain INTEGER NOT NULL, opened_idx INTEGER NOT NULL,
        opened_ns INTEGER NOT NULL, principal TEXT NOT NULL, uid INTEGER, gid INTEGER, pid INTEGER,
        comm TEXT, executable TEXT, cgroup TEXT, client TEXT NOT NULL, original TEXT NOT NULL,
        target TEXT NOT NULL, protocol TEXT NOT NULL, mode TEXT NOT NULL,
        db_user TEXT, db_name TEXT, application TEXT,
        closed_idx INTEGER, closed_ns INTEGER, ended_by TEXT, reason TEXT, operations INTEGER,
        refused INTEGER, bytes_from_client INTEGER, bytes_from_server INTEGER) STRICT;
    CREATE TABLE operations (
        idx INTEGER PRIMARY KEY, chain INTEGER NOT NULL, seq INTEGER NOT NULL, session_id BLOB,
        wall_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL, who TEXT NOT NULL,
        target TEXT NOT NULL, kind TEXT NOT NULL,
        text TEXT NOT NULL, text_bytes INTEGER NOT NULL, prepared TEXT NOT NULL,
        parameters TEXT NOT NULL, kinds TEXT NOT NULL, fingerprint INTEGER, unknown TEXT NOT NULL,
        verdict TEXT NOT NULL, reason TEXT NOT NULL, policies TEXT NOT NULL,
        policy_digest BLOB NOT NULL, durability TEXT NOT NULL,
        alert TEXT NOT NULL, unmasked TEXT NOT NULL, masked INTEGER NOT NULL,
        outcome_idx INTEGER, status TEXT, code TEXT, message TEXT, rows INTEGER, bytes_out INTEGER,
        copied_in INTEGER, copied_out INTEGER, duration_ns INTEGER, tags TEXT,
        masked_columns INTEGER, result TEXT, carried TEXT,
        command TEXT NOT NULL, sent TEXT NOT NULL,
        UNIQUE (chain, seq)) STRICT;
    CREATE INDEX operations_time ON operations (wall_ns);
    CREATE INDEX operations_session ON operations (session_id);
    CREATE TABLE result_rows (
        chain INTEGER NOT NULL, seq INTEGER NOT NULL, start INTEGER NOT NULL, idx INTEGER NOT NULL,
        data BLOB NOT NULL, stream TEXT NOT NULL, boot_ns INTEGER NOT NULL, UNIQUE (idx)) STRICT;
    CREATE INDEX result_rows_operation ON result_rows (chain, seq, start, idx);
    CREATE TABLE effects (
        idx INTEGER NOT NULL, action TEXT NOT NULL, schema TEXT NOT NULL, relation TEXT NOT NULL,
        unbounded INTEGER NOT NULL) STRICT;
    CREATE INDEX effects_idx ON effects (idx);
    CREATE INDEX effects_relation ON effects (relation);
    CREATE TABLE lifecycle (
        idx INTEGER PRIMARY KEY, chain INTEGER NOT NULL, seq INTEGER NOT NULL, session_id BLOB,
        wall_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL, who TEXT NOT NULL,
        target TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL) STRICT;
    CREATE INDEX lifecycle_time ON lifecycle (wall_ns);
    CREATE TABLE watch (
        idx INTEGER PRIMARY KEY, agent_id TEXT NOT NULL, chain INTEGER NOT NULL,
        wall_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL, kind TEXT NOT NULL,
        record BLOB NOT NULL) STRICT;
    CREATE INDEX watch_agent ON watch (agent_id, kind, wall_ns);
    CREATE INDEX watch_order ON watch (agent_id, idx);
";

/// Makes the tables where the file is new, and refuses another version.
pub fn prepare(db: &Connection) -> anyhow::Result<()> {
    if version(db)? == 0 {
        db.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    }
    check(db)
}

/// Refuses another version.
pub fn check(db: &Connection) -> anyhow::Result<()> {
    let found = version(db)?;
    anyhow::ensure!(
        found == VERSION,
        "the index has version {found}, this program reads {VERSION}; run: tidegate-collector reindex"
    );
    Ok(())
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
}
