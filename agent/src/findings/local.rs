//! Database sockets of this host's file system that protected accounts can reach: an open door,
//! since the hooks see no `AF_UNIX`.
//!
//! Promises: every listening stream socket with a name by which PostgreSQL, MySQL or MariaDB are reached
//! is looked at, wherever it lies, and asked whether mode and owner of it and of the directories above let the
//! account connect.
//!
//! Known gaps: access control lists and security modules are not looked at; a socket in another mount
//! namespace, or in the abstract name space, is not found; what the server itself lets in
//! (`pg_hba.conf`) is not asked.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, getgrouplist};
use tidegate_journal::{Found, Journal, JournalError};

use super::plain;
use crate::config::Config;

/// Names of MySQL's and MariaDB's sockets.
const MYSQL_NAMES: [&str; 4] = ["mysqld.sock", "mysql.sock", "mariadb.sock", "mysqlx.sock"];

/// A local socket and the principal that can reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The socket.
    pub socket: PathBuf,
    /// Name of the principal.
    pub principal: String,
}

/// All open doors.
pub fn doors(config: &Config) -> Vec<Door> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found = Vec::new();
    for socket in sockets_in(&text) {
        for principal in &config.principals {
            if is_reachable(&socket, principal.uid, &groups_of(principal.uid)) {
                found.push(Door { socket: socket.clone(), principal: principal.name.clone() });
            }
        }
    }
    found
}

/// A record for each.
pub fn record(config: &Config, journal: &Journal) -> Result<(), JournalError> {
    for Door { socket, principal } in doors(config) {
        let detail = format!(
            "{} is a database's socket, and what passes there is not seen: take the account's right \
             to it away, or let the server refuse it",
            socket.display()
        );
        tracing::warn!(principal, "{detail}");
        journal
            .finding(&Found { principal: &principal, ..plain("local_socket", "open", &detail) })?;
    }
    Ok(())
}

/// The listening stream sockets of `/proc/net/unix` (proc(5)) with a database's name.
fn sockets_in(text: &str) -> BTreeSet<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let flags = fields.nth(3)?;
            let kind = fields.next()?;
            // __SO_ACCEPTCON of a SOCK_STREAM.
            let listens = u32::from_str_radix(flags, 16).ok()? & 0x1_0000 != 0 && kind == "0001";
            let path = Path::new(fields.nth(2)?);
            (listens && is_database(path)).then(|| path.to_owned())
        })
        .collect()
}

fn is_database(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let port = name.strip_prefix(".s.PGSQL.");
    let postgres = port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    path.is_absolute() && (postgres || MYSQL_NAMES.contains(&name))
}

fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return Vec::new() };
    let name = CString::new(user.name).unwrap_or_default();
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(nix::unistd::Gid::as_raw).collect()
}

/// Connecting needs the right to write to the socket, and to search all directories above it.
fn is_reachable(socket: &Path, uid: u32, groups: &[u32]) -> bool {
    const WRITE: u32 = 2;
    const SEARCH: u32 = 1;
    let may = |path: &Path, right| {
        fs::metadata(path).is_ok_and(|file| has_right(&file, uid, groups, right))
    };
    may(socket, WRITE) && socket.ancestors().skip(1).all(|directory| may(directory, SEARCH))
}

fn has_right(file: &Metadata, uid: u32, groups: &[u32], right: u32) -> bool {
    let shift = if file.uid() == uid {
        6
    } else if groups.contains(&file.gid()) {
        3
    } else {
        0
    };
    file.mode() >> shift & right != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_databases_socket_is_known_by_its_name_and_its_listening() {
        let rows = [
            ("0: 00000002 00000000 00010000 0001 01 11 /run/postgresql/.s.PGSQL.5432", true),
            ("0: 00000002 00000000 00010000 0001 01 11 /tmp/.s.PGSQL.6432", true),
            ("0: 00000002 00000000 00010000 0001 01 11 /run/mysqld/mysqld.sock", true),
            ("0: 00000003 00000000 00000000 0001 03 11 /run/mysqld/mysqld.sock", false),
            ("0: 00000002 00000000 00010000 0005 01 11 /run/mysqld/mysqld.sock", false),
            ("0: 00000002 00000000 00010000 0001 01 11 /run/postgresql/.s.PGSQL.x", false),
            ("0: 00000002 00000000 00010000 0001 01 11 @.s.PGSQL.5432", false),
            ("0: 00000002 00000000 00010000 0001 01 11", false),
            ("Num RefCount Protocol Flags Type St Inode Path", false),
        ];
        for (line, expected) in rows {
            assert_eq!(!sockets_in(line).is_empty(), expected, "{line}");
        }
    }

    #[test]
    fn a_door_is_open_where_every_mode_on_the_way_lets_the_account_in() {
        let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let path = dir.path().join(".s.PGSQL.5432");
        let _listener = UnixListener::bind(&path).unwrap();
        let own = nix::unistd::getuid().as_raw();
        let group = fs::metadata(&path).unwrap().gid();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // Modes of directory and socket, user id, groups.
        let rows: [(u32, u32, u32, &[u32], bool); 7] = [
            (0o755, 0o777, 991, &[], true),
            (0o755, 0o770, 991, &[], false),
            (0o755, 0o770, 991, &[group], true),
            (0o755, 0o755, 991, &[group], false),
            (0o700, 0o777, 991, &[group], false),
            (0o711, 0o777, 991, &[], true),
            (0o700, 0o700, own, &[], true),
        ];
        for (directory, socket, uid, groups, expected) in rows {
            mode(dir.path(), directory);
            mode(&path, socket);
            let found = is_reachable(&path, uid, groups);
            assert_eq!(found, expected, "{directory:o} {socket:o} {uid} {groups:?}");
        }
        let listed = sockets_in(&fs::read_to_string("/proc/net/unix").unwrap());
        assert!(listed.contains(&path), "{listed:?}");
    }
}
