//! Reads one database's catalogue over a connection of the agent's own.
//!
//! Promises: one snapshot (one read-only, repeatable-read transaction), so that relations, columns and
//! functions belong together; nothing but `pg_catalog` is read; bounded in time, rows and bytes, and
//! what is beyond a bound is an error, never a part taken for the whole.
//!
//! Temporary relations of all sessions are read too, in their own schemas (`pg_temp_7`): a name that is
//! also one of theirs may mean it.
//!
//! Limits: the constants below. Client certificates and GSSAPI are not spoken.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_event::Relation;
use tidegate_sql::{Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use tokio_stream::StreamExt as _;

use crate::tls::ServerVerification;
use crate::upstream::{self, DialError};

/// Longest reading, in seconds, from dialling to the last row.
const READ_SECONDS_MAX: u64 = 60;

/// Most relations of a database.
const RELATIONS_MAX: usize = 200_000;

/// Most columns of a database.
const COLUMNS_MAX: usize = 2_000_000;

/// Most functions of a database, those of PostgreSQL itself not counted.
const FUNCTIONS_MAX: usize = 100_000;

/// Texts of all views and functions together, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// `application_name` of the connection, for those who look into `pg_stat_activity`.
const APPLICATION: &str = "tidegate-catalogue";

const SNAPSHOT: &str = "SET search_path = pg_catalog; \
    BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";

const RELATIONS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, \
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.oid";

const COLUMNS: &str = "SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.attgenerated <> '' \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY a.attrelid, a.attnum";

const FUNCTIONS: &str = "SELECT p.oid, n.nspname::text, p.proname::text, l.lanname::text, \
    CASE WHEN l.lanname = 'sql' AND p.prosqlbody IS NOT NULL \
        THEN pg_catalog.pg_get_function_sqlbody(p.oid) \
        WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc END \
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY p.oid";

/// The same for servers before PostgreSQL 14, which have no SQL-standard bodies.
const FUNCTIONS_13: &str = "SELECT p.oid, n.nspname::text, p.proname::text, l.lanname::text, \
    CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc END \
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY p.oid";

const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num')::int4";

/// First version with SQL-standard function bodies.
const SQL_BODIES_SINCE: i32 = 140_000;

/// `search_path` of a new session, but for what its own role or start-up sets.
const PATH: &str = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'";

/// `search_path` of a role in this database, or else in all; the former last.
const PATHS: &str = "SELECT r.rolname::text, substr(c, length('search_path=') + 1) \
    FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
    CROSS JOIN unnest(s.setconfig) c \
    WHERE c LIKE 'search\\_path=%' AND s.setdatabase IN (0, (SELECT d.oid \
        FROM pg_catalog.pg_database d WHERE d.datname = current_database())) \
    ORDER BY s.setdatabase <> 0";

const PARENTS: &str = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits ORDER BY 1, 2";

/// Where and as whom the catalogue is read.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub server: SocketAddr,
    pub verification: Option<&'a ServerVerification>,
    pub database: &'a str,
    pub user: &'a str,
    pub password: Option<&'a str>,
}

/// What one reading found.
#[derive(Debug)]
pub(super) struct Found {
    pub catalogue: Catalogue,
    /// Child and parent of each partition and each inheriting table, by OID.
    pub parents: Vec<(u32, u32)>,
    /// `search_path` of a new session.
    pub path: String,
    /// That of roles that have one of their own.
    pub paths: HashMap<String, String>,
    /// Stands for all of it: another state of the database has another one.
    pub state: [u8; 32],
}

/// Why a catalogue could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{}", words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("not read within {READ_SECONDS_MAX} s")]
    TimedOut,
    #[error("the database has more than {0}")]
    TooLarge(String),
    #[error("the server answered with something else than was asked: {0}")]
    Form(&'static str),
}

/// The server's own words, without what stands in its detail.
fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |said| format!("{} (SQLSTATE {})", said.message(), said.code().code()),
    )
}

/// Reads all of it; `version` is the new catalogue's.
pub(super) async fn read(login: Login<'_>, version: u64) -> Result<Found, ReadError> {
    let limit = Duration::from_secs(READ_SECONDS_MAX);
    tokio::time::timeout(limit, read_all(login, version)).await.map_err(|_| ReadError::TimedOut)?
}

async fn read_all(login: Login<'_>, version: u64) -> Result<Found, ReadError> {
    let leg = upstream::dial(login.server, None, login.verification).await?;
    let mut config = tokio_postgres::Config::new();
    config.user(login.user).dbname(login.database).application_name(APPLICATION);
    if let Some(password) = login.password {
        config.password(password);
    }
    // TLS, where the target asks for it, is spoken already.
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect_raw(leg, NoTls).await?;
    let connection = tokio::spawn(connection);
    let found = ask(&client, version).await;
    drop(client);
    connection.abort();
    found
}

async fn ask(client: &Client, version: u64) -> Result<Found, ReadError> {
    client.batch_execute(SNAPSHOT).await?;
    let server: i32 = client.query_one(VERSION, &[]).await?.try_get(0)?;
    let mut state = Sha256::new();
    let mut text_bytes = 0;
    let mut columns = columns(client, &mut state).await?;
    let mut relations = Vec::new();
    let mut rows = std::pin::pin!(client.query_raw(RELATIONS, NONE).await?);
    while let Some(row) = rows.next().await {
        let relation = relation(&row?, &mut columns)?;
        count(&mut text_bytes, relation.definition.as_deref())?;
        note(&mut state, &(relation.oid, &relation.name, relation.kind, &relation.definition));
        push(&mut relations, relation, RELATIONS_MAX, "relations")?;
    }
    let text = if server < SQL_BODIES_SINCE { FUNCTIONS_13 } else { FUNCTIONS };
    let mut functions = Vec::new();
    let mut rows = std::pin::pin!(client.query_raw(text, NONE).await?);
    while let Some(row) = rows.next().await {
        let function = function(&row?)?;
        count(&mut text_bytes, function.source.as_deref())?;
        note(&mut state, &(function.oid, &function.name, &function.language, &function.source));
        push(&mut functions, function, FUNCTIONS_MAX, "functions")?;
    }
    let mut parents = Vec::new();
    let mut rows = std::pin::pin!(client.query_raw(PARENTS, NONE).await?);
    while let Some(row) = rows.next().await {
        let row = row?;
        push(&mut parents, (row.try_get(0)?, row.try_get(1)?), RELATIONS_MAX, "partitions")?;
    }
    let path: String = client.query_one(PATH, &[]).await?.try_get(0)?;
    let mut paths = HashMap::new();
    for row in client.query(PATHS, &[]).await? {
        paths.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let sorted: BTreeMap<&String, &String> = paths.iter().collect();
    note(&mut state, &(&parents, &path, sorted));
    let catalogue = Catalogue::new(version, relations, functions);
    Ok(Found { catalogue, parents, path, paths, state: state.finalize().into() })
}

/// Adds what was read to what stands for all of it. `Debug` writes every field with its bounds.
fn note(state: &mut Sha256, what: &impl std::fmt::Debug) {
    state.update(format!("{what:?};"));
}

const NONE: [&(dyn ToSql + Sync); 0] = [];

async fn columns(
    client: &Client,
    state: &mut Sha256,
) -> Result<HashMap<u32, Vec<KnownColumn>>, ReadError> {
    let mut all: HashMap<u32, Vec<KnownColumn>> = HashMap::new();
    let mut total = 0_usize;
    let mut rows = std::pin::pin!(client.query_raw(COLUMNS, NONE).await?);
    while let Some(row) = rows.next().await {
        let row = row?;
        total += 1;
        if total > COLUMNS_MAX {
            return Err(ReadError::TooLarge(format!("{COLUMNS_MAX} columns")));
        }
        let column = KnownColumn {
            number: row.try_get(1)?,
            name: row.try_get(2)?,
            type_oid: row.try_get(3)?,
            generated: row.try_get(4)?,
        };
        let relation: u32 = row.try_get(0)?;
        note(state, &(relation, &column));
        all.entry(relation).or_default().push(column);
    }
    Ok(all)
}

fn relation(
    row: &Row,
    columns: &mut HashMap<u32, Vec<KnownColumn>>,
) -> Result<KnownRelation, ReadError> {
    let oid = row.try_get(0)?;
    let kind = match row.try_get(3)? {
        "r" | "p" => RelationKind::Table,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::Foreign,
        _ => return Err(ReadError::Form("a relation of a kind that was not asked for")),
    };
    Ok(KnownRelation {
        oid,
        name: Relation { schema: Some(row.try_get(1)?), name: row.try_get(2)? },
        kind,
        columns: columns.remove(&oid).unwrap_or_default(),
        definition: row.try_get(4)?,
    })
}

fn function(row: &Row) -> Result<KnownFunction, ReadError> {
    Ok(KnownFunction {
        oid: row.try_get(0)?,
        name: Relation { schema: Some(row.try_get(1)?), name: row.try_get(2)? },
        language: row.try_get(3)?,
        source: row.try_get(4)?,
    })
}

fn push<T>(list: &mut Vec<T>, one: T, max: usize, what: &str) -> Result<(), ReadError> {
    if list.len() >= max {
        return Err(ReadError::TooLarge(format!("{max} {what}")));
    }
    list.push(one);
    Ok(())
}

fn count(total: &mut usize, text: Option<&str>) -> Result<(), ReadError> {
    *total = total.saturating_add(text.map_or(0, str::len));
    if *total > TEXT_BYTES_MAX {
        return Err(ReadError::TooLarge(format!("{TEXT_BYTES_MAX} bytes of views and functions")));
    }
    Ok(())
}
