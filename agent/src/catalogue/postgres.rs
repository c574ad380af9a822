//! Reads the catalogue of one database of PostgreSQL.
//!
//! Promises: one snapshot (one read-only, repeatable-read transaction), so that relations, columns and
//! functions belong together; nothing but `pg_catalog` is read.
//!
//! Temporary relations of all sessions are read too, in their own schemas (`pg_temp_7`): a name that is
//! also one of theirs may mean it.
//!
//! Limits: those of `reader.rs`. Client certificates and GSSAPI are not spoken.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};
use tidegate_event::Relation;
use tidegate_sql::{Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use tokio_stream::StreamExt as _;

use super::reader::{
    APPLICATION, COLUMNS_MAX, FUNCTIONS_MAX, Found, Login, RELATIONS_MAX, ReadError, count, note,
    push,
};
use crate::upstream;

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

/// Reads all of one database; `version` is the new catalogue's.
pub(super) async fn read(login: Login<'_>, version: u64) -> Result<Found, ReadError> {
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
    Ok(Found { catalogue, parents, path, paths, unread_views: 0, state: state.finalize().into() })
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
