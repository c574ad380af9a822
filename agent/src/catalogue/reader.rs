//! Reads what a server holds, over a connection of the agent's own.
//!
//! Promises: bounded in time, rows and bytes, and what is beyond a bound is an error, never a part taken
//! for the whole.
//!
//! Limits: the constants below.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_event::Protocol;
use tidegate_sql::Catalogue;

use super::mysql::{self, MysqlError};
use super::postgres;
use crate::tls::ServerVerification;
use crate::upstream::DialError;

/// Longest reading, in seconds, from dialling to the last row.
const READ_SECONDS_MAX: u64 = 60;

/// Most relations of one reading.
pub(super) const RELATIONS_MAX: usize = 200_000;

/// Most columns of one reading.
pub(super) const COLUMNS_MAX: usize = 2_000_000;

/// Most functions of one reading, those of the server itself not counted.
pub(super) const FUNCTIONS_MAX: usize = 100_000;

/// Texts of all views and functions together, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Name of the connection, for those who look into `pg_stat_activity` or at connection attributes.
pub(super) const APPLICATION: &str = "tidegate-catalogue";

/// Where and as whom the catalogue is read.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub protocol: Protocol,
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
    /// Views whose definitions the account may not read.
    pub unread_views: usize,
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
    #[error(transparent)]
    Mysql(#[from] MysqlError),
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
    let reading = async {
        match login.protocol {
            Protocol::Postgres => postgres::read(login, version).await,
            Protocol::Mysql => mysql::read(login, version).await,
            Protocol::Ssh => Err(ReadError::Form("no database speaks ssh")),
        }
    };
    tokio::time::timeout(limit, reading).await.map_err(|_| ReadError::TimedOut)?
}

/// Adds what was read to what stands for all of it. `Debug` writes every field with its bounds.
pub(super) fn note(state: &mut Sha256, what: &impl std::fmt::Debug) {
    state.update(format!("{what:?};"));
}

pub(super) fn push<T>(list: &mut Vec<T>, one: T, max: usize, what: &str) -> Result<(), ReadError> {
    if list.len() >= max {
        return Err(ReadError::TooLarge(format!("{max} {what}")));
    }
    list.push(one);
    Ok(())
}

pub(super) fn count(total: &mut usize, text: Option<&str>) -> Result<(), ReadError> {
    *total = total.saturating_add(text.map_or(0, str::len));
    if *total > TEXT_BYTES_MAX {
        return Err(ReadError::TooLarge(format!("{TEXT_BYTES_MAX} bytes of views and functions")));
    }
    Ok(())
}
