//! Capability flags: what the gate lets through of them.
//!
//! Promise: the client is offered what the server has and the machine can follow, and the server
//! gets of the client's flags only what was offered. MariaDB's extended flags are the upper 32 bits.

/// MySQL's first flag. A server that leaves it out is a MariaDB with extended flags.
pub const CLIENT_MYSQL: u64 = 1;
/// A database is in the handshake response.
pub const CONNECT_WITH_DB: u64 = 1 << 3;
/// The packets are compressed after the login.
pub const COMPRESS: u64 = 1 << 5;
/// `LOAD DATA LOCAL`.
pub const LOCAL_FILES: u64 = 1 << 7;
/// The protocol of 4.1 and later.
pub const PROTOCOL_41: u64 = 1 << 9;
/// TLS.
pub const SSL: u64 = 1 << 11;
/// The authentication of 4.1 and later.
pub const SECURE_CONNECTION: u64 = 1 << 15;
/// Several statements in one COM_QUERY.
pub const MULTI_STATEMENTS: u64 = 1 << 16;
/// Named authentication plugins.
pub const PLUGIN_AUTH: u64 = 1 << 19;
/// Connection attributes.
pub const CONNECT_ATTRS: u64 = 1 << 20;
/// The authentication data in the handshake response has a length-encoded length.
pub const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
/// OK packets say what of the session has changed.
pub const SESSION_TRACK: u64 = 1 << 23;
/// OK instead of EOF at the end of a result.
pub const DEPRECATE_EOF: u64 = 1 << 24;
/// Results may come without metadata.
pub const OPTIONAL_RESULTSET_METADATA: u64 = 1 << 25;
/// zstd compression.
pub const ZSTD: u64 = 1 << 26;
/// COM_QUERY and COM_STMT_EXECUTE carry attributes.
pub const QUERY_ATTRIBUTES: u64 = 1 << 27;
/// Several factors of authentication.
pub const MULTI_FACTOR: u64 = 1 << 28;
/// Reserved for more flags.
pub const EXTENSION: u64 = 1 << 29;
/// MariaDB: progress reports.
pub const PROGRESS: u64 = 1 << 32;
/// MariaDB: COM_STMT_BULK_EXECUTE.
pub const STMT_BULK: u64 = 1 << 34;
/// MariaDB: more type information in column definitions.
pub const EXTENDED_METADATA: u64 = 1 << 35;
/// MariaDB: metadata of a prepared statement may be left out.
pub const CACHE_METADATA: u64 = 1 << 36;
/// MariaDB: one result for each row of a bulk execution.
pub const BULK_UNIT_RESULTS: u64 = 1 << 37;

/// What the machine can't follow.
const NOT_FOLLOWED: u64 = OPTIONAL_RESULTSET_METADATA | MULTI_FACTOR | EXTENSION;
/// All of MariaDB's flags that it can.
const MARIADB_FOLLOWED: u64 =
    PROGRESS | STMT_BULK | EXTENDED_METADATA | CACHE_METADATA | BULK_UNIT_RESULTS;
/// MySQL's flags.
const MYSQL_FLAGS: u64 = 0xffff_ffff;
/// How a handshake response is laid out: these are true of it, whatever was offered.
const LAYOUT: u64 = CLIENT_MYSQL
    | CONNECT_WITH_DB
    | PROTOCOL_41
    | SECURE_CONNECTION
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC;

/// What is offered to the client of a server's flags.
pub const fn offered(server: u64, client_tls: bool) -> u64 {
    let known = (MYSQL_FLAGS & !NOT_FOLLOWED) | MARIADB_FOLLOWED;
    let offered = server & known & !SSL;
    if client_tls { offered | SSL } else { offered }
}

/// What goes to the server of a client's flags: a flag that was not offered must not reach it, since the
/// machine would not follow what it turns on. Flags that say how the response is laid out stay.
pub const fn forwarded(client: u64, offered: u64, server_tls: bool) -> u64 {
    let flags = client & (offered | LAYOUT) & !SSL;
    if server_tls { flags | SSL } else { flags }
}

/// The flags as they stand on the wire: the lower half, the upper half, and MariaDB's.
pub(crate) fn halves(flags: u64) -> ([u8; 2], [u8; 2], [u8; 4]) {
    let part = |from: u32| u16::try_from(flags >> from & 0xffff).unwrap_or_default();
    let mariadb = u32::try_from(flags >> 32).unwrap_or_default();
    (part(0).to_le_bytes(), part(16).to_le_bytes(), mariadb.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_reaches_a_side_that_the_other_could_not_follow() {
        let server = PROTOCOL_41 | PLUGIN_AUTH | MULTI_FACTOR | DEPRECATE_EOF | CACHE_METADATA;
        let offered = offered(server, true);
        assert_eq!(offered, PROTOCOL_41 | PLUGIN_AUTH | DEPRECATE_EOF | CACHE_METADATA | SSL);
        let client = u64::MAX;
        let to_server = forwarded(client, offered, false);
        assert_eq!(to_server, PROTOCOL_41 | PLUGIN_AUTH | DEPRECATE_EOF | CACHE_METADATA | LAYOUT);
        assert_eq!(forwarded(client, offered, true), to_server | SSL);
        for unknown in [1 << 33, 1 << 38, QUERY_ATTRIBUTES, MULTI_FACTOR, COMPRESS, ZSTD] {
            assert_eq!((offered | to_server) & unknown, 0, "{unknown:#x}");
        }
    }
}
