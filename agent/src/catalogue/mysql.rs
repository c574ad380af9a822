//! Reads the catalogue of one server of MySQL or MariaDB: all of its databases but the system's own.
//!
//! Promises: nothing but `information_schema` is read. All names are in lower case, since whether the
//! server tells case apart is not known; where two relations then have one name, it is a view of which
//! nothing is known. Only tables of engines that hold rows of their own ([`OWN_ROWS`]) are tables.
//!
//! A column with a negative number is invisible: a star leaves it out.
//!
//! Limits: those of `reader.rs`.
//!
//! Known gaps:
//! - `information_schema` knows no snapshot: a reading while the schema changes may find some of it before
//!   and some after. DDL through the gate makes such a reading an old one, so that it is read again; after
//!   other DDL the next regular reading is right.
//! - What the account may not see is not there, and counts as unknown (`docs/OPERATING.md` says what it
//!   needs). Temporary tables are never there.

mod auth;
mod client;
mod packet;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};
use tidegate_event::Relation;
use tidegate_sql::{Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind};

use super::reader::{
    COLUMNS_MAX, FUNCTIONS_MAX, Found, Login, RELATIONS_MAX, ReadError, count, note, push,
};
use crate::upstream::DialError;
use client::{Client, Stream};

/// Engines whose tables hold their own rows, in lower case. Others (MERGE, FEDERATED, CONNECT, SPIDER)
/// show those of other tables, or of other servers.
const OWN_ROWS: [&str; 11] = [
    "innodb",
    "myisam",
    "aria",
    "memory",
    "archive",
    "csv",
    "rocksdb",
    "tokudb",
    "columnstore",
    "ndbcluster",
    "blackhole",
];

/// So that definitions come in UTF-8 and with backticks, whatever the server's default is.
const SESSION: [&str; 2] = ["SET NAMES utf8mb4", "SET SESSION sql_mode = ''"];

const TABLES: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE \
    FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN \
    ('mysql', 'information_schema', 'performance_schema', 'sys')";

const COLUMNS: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, EXTRA \
    FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN \
    ('mysql', 'information_schema', 'performance_schema', 'sys')";

const VIEWS: &str = "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION \
    FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN \
    ('mysql', 'information_schema', 'performance_schema', 'sys')";

const ROUTINES: &str = "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_BODY, ROUTINE_DEFINITION \
    FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN \
    ('mysql', 'information_schema', 'performance_schema', 'sys')";

/// Databases that hold what the server says of itself.
pub const SYSTEM_DATABASES: [&str; 4] =
    ["mysql", "information_schema", "performance_schema", "sys"];

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    /// It can't be reached, or not as the target asks.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// It said no.
    #[error("{1} (error {0})")]
    Server(u64, String),
    /// It asks for a proof of the password that is not spoken here.
    #[error(
        "the account's authentication \"{0}\" is not spoken: use caching_sha2_password, \
         mysql_native_password or ed25519"
    )]
    Method(String),
    /// It does not speak the protocol.
    #[error("the server sent {0}")]
    Form(&'static str),
}

/// What is known of one relation so far.
#[derive(Debug)]
struct Draft {
    kind: RelationKind,
    columns: Vec<KnownColumn>,
    definition: Option<String>,
    /// Several relations have this name.
    several: bool,
}

/// Database and name, in lower case.
type Name = (String, String);

/// Reads all of one server; `version` is the new catalogue's.
pub(super) async fn read(login: Login<'_>, version: u64) -> Result<Found, ReadError> {
    gather(&mut client::connect(login).await?, version).await
}

async fn gather<S: Stream>(client: &mut Client<S>, version: u64) -> Result<Found, ReadError> {
    for text in SESSION {
        client.run(text).await?;
    }
    let mut drafts = tables(client).await?;
    columns(client, &mut drafts).await?;
    let mut text_bytes = 0;
    views(client, &mut drafts, &mut text_bytes).await?;
    let functions = functions(client, &mut text_bytes).await?;
    let mut state = Sha256::new();
    let mut unread_views = 0;
    let mut relations = Vec::with_capacity(drafts.len());
    for (oid, (name, draft)) in (1_u32..).zip(drafts) {
        let relation = relation(oid, name, draft);
        unread_views +=
            usize::from(relation.kind == RelationKind::View && relation.definition.is_none());
        note(&mut state, &relation);
        relations.push(relation);
    }
    note(&mut state, &functions);
    Ok(Found {
        catalogue: Catalogue::new(version, relations, functions)
            .with_system(SYSTEM_DATABASES.map(str::to_owned)),
        parents: Vec::new(),
        path: String::new(),
        paths: HashMap::new(),
        unread_views,
        state: state.finalize().into(),
    })
}

fn relation(oid: u32, (database, name): Name, draft: Draft) -> KnownRelation {
    let Draft { kind, mut columns, definition, several } = draft;
    let name = Relation { schema: Some(database), name };
    if several {
        let kind = RelationKind::View;
        return KnownRelation { oid, name, kind, columns: Vec::new(), definition: None };
    }
    columns.sort_unstable_by_key(|column| column.number.unsigned_abs());
    KnownRelation { oid, name, kind, columns, definition }
}

async fn tables<S: Stream>(client: &mut Client<S>) -> Result<BTreeMap<Name, Draft>, ReadError> {
    let mut drafts = BTreeMap::new();
    let mut rows = 0_usize;
    let each = |[database, name, kind, engine]: [Option<&[u8]>; 4]| {
        rows += 1;
        if rows > RELATIONS_MAX {
            return Err(ReadError::TooLarge(format!("{RELATIONS_MAX} relations")));
        }
        let kind = kind_of(&text(kind)?, &text(engine)?);
        let draft = Draft { kind, columns: Vec::new(), definition: None, several: false };
        match drafts.entry((folded(database)?, folded(name)?)) {
            Entry::Vacant(entry) => _ = entry.insert(draft),
            Entry::Occupied(mut entry) => entry.get_mut().several = true,
        }
        Ok(())
    };
    client.query(TABLES, each).await?;
    Ok(drafts)
}

/// A table has rows of its own; a type or an engine that is not known is taken for one that has not.
fn kind_of(kind: &str, engine: &str) -> RelationKind {
    match kind {
        "BASE TABLE" | "SYSTEM VERSIONED" | "SEQUENCE" => {
            let own = OWN_ROWS.contains(&engine.to_lowercase().as_str());
            if own { RelationKind::Table } else { RelationKind::Foreign }
        }
        _ => RelationKind::View,
    }
}

async fn columns<S: Stream>(
    client: &mut Client<S>,
    drafts: &mut BTreeMap<Name, Draft>,
) -> Result<(), ReadError> {
    let mut total = 0_usize;
    let each = |[database, relation, name, number, extra]: [Option<&[u8]>; 5]| {
        total += 1;
        if total > COLUMNS_MAX {
            return Err(ReadError::TooLarge(format!("{COLUMNS_MAX} columns")));
        }
        let number: i16 =
            text(number)?.parse().map_err(|_| ReadError::Form("a column's number"))?;
        let extra = text(extra)?.to_ascii_uppercase();
        let has = |word: &str| extra.split(' ').any(|one| one == word);
        let column = KnownColumn {
            number: if has("INVISIBLE") { number.saturating_neg() } else { number },
            name: folded(name)?,
            type_oid: 0,
            generated: has("VIRTUAL") || has("STORED") || has("PERSISTENT"),
        };
        // One that has come since the tables were read is not known.
        if let Some(draft) = drafts.get_mut(&(folded(database)?, folded(relation)?)) {
            draft.columns.push(column);
        }
        Ok(())
    };
    client.query(COLUMNS, each).await
}

/// An empty definition is one that the account may not read.
async fn views<S: Stream>(
    client: &mut Client<S>,
    drafts: &mut BTreeMap<Name, Draft>,
    text_bytes: &mut usize,
) -> Result<(), ReadError> {
    let each = |[database, name, definition]: [Option<&[u8]>; 3]| {
        let definition = lossless(definition).filter(|definition| !definition.is_empty());
        count(text_bytes, definition.as_deref())?;
        if let Some(draft) = drafts.get_mut(&(folded(database)?, folded(name)?)) {
            draft.kind = RelationKind::View;
            draft.definition = definition;
        }
        Ok(())
    };
    client.query(VIEWS, each).await
}

async fn functions<S: Stream>(
    client: &mut Client<S>,
    text_bytes: &mut usize,
) -> Result<Vec<KnownFunction>, ReadError> {
    let mut found = Vec::new();
    let each = |[database, name, language, source]: [Option<&[u8]>; 4]| {
        let language = text(language)?.to_lowercase();
        let source = lossless(source).filter(|source| language == "sql" && !source.is_empty());
        count(text_bytes, source.as_deref())?;
        let name = Relation { schema: Some(folded(database)?), name: folded(name)? };
        let function = KnownFunction { oid: 0, name, language, source };
        push(&mut found, function, FUNCTIONS_MAX, "functions")
    };
    client.query(ROUTINES, each).await?;
    found.sort_by(|one, other| (&one.name, &one.source).cmp(&(&other.name, &other.source)));
    for (oid, function) in (1_u32..).zip(&mut found) {
        function.oid = oid;
    }
    Ok(found)
}

/// What is there, or nothing.
fn text(cell: Option<&[u8]>) -> Result<String, ReadError> {
    let text = std::str::from_utf8(cell.unwrap_or_default());
    text.map(str::to_owned).map_err(|_| ReadError::Form("a name that is not in UTF-8"))
}

fn folded(cell: Option<&[u8]>) -> Result<String, ReadError> {
    Ok(tidegate_sql::mysql::folded(&text(cell)?))
}

/// A text as it is; none where that can't be told.
fn lossless(cell: Option<&[u8]>) -> Option<String> {
    std::str::from_utf8(cell?).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests;
