//! Clock, directories, disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Finding;
use crate::config::{Config, print_size};

/// Free space, in spool segments, below which the agent can't work.
const FREE_SEGMENTS_MIN: u64 = 2;

/// Whether the kernel's clock is kept in step. Evidence bears its time.
pub(super) fn clock() -> Finding {
    const CHECK: &str = "clock";
    let todo = "run a time service, such as systemd-timesyncd or chrony; records bear this clock";
    // SAFETY: a timex of zeros is valid; with `modes` 0 the call only reads the clock's state.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state == -1 {
        let error = std::io::Error::last_os_error();
        return Finding::warn(CHECK, format!("its state can't be read: {error}"), todo);
    }
    if timex.status & libc::STA_UNSYNC != 0 {
        return Finding::warn(CHECK, "not kept in step by any time service", todo);
    }
    let found = format!("kept in step, within {} ms", timex.maxerror / 1000);
    Finding::ok(CHECK, found)
}

/// Whether protected accounts can reach a database past the hooks, by a local socket.
pub(super) fn local_sockets(config: &Config) -> Finding {
    const CHECK: &str = "local sockets";
    let doors = crate::findings::local::doors(config);
    if doors.is_empty() {
        return Finding::ok(CHECK, "no database's local socket is open to a protected account");
    }
    let list: Vec<String> = doors
        .iter()
        .map(|door| format!("{} to {}", door.socket.display(), door.principal))
        .collect();
    let todo = "take the accounts' right to these sockets away (mode, group), or refuse them in \
                pg_hba.conf: what passes there is not seen";
    Finding::warn(CHECK, format!("open doors: {}", list.join(", ")), todo)
}

/// Whether keys and records lie where others can't read them.
pub(super) fn state_dir(config: &Config) -> Finding {
    const CHECK: &str = "state directory";
    let dir = &config.state_dir;
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Ok(found) if !found.is_dir() => {
            Finding::fail(CHECK, format!("{shown} is no directory"), "give another agent.state_dir")
        }
        Ok(found) if found.permissions().mode() & 0o077 != 0 => Finding::warn(
            CHECK,
            format!("{shown} is open to others (mode {:o})", found.permissions().mode() & 0o777),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) => Finding::ok(CHECK, format!("{shown} is there, and closed to others")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok(CHECK, format!("{shown} is not there yet; the agent makes it"))
        }
        Err(error) => Finding::fail(CHECK, format!("{shown}: {error}"), "run doctor as root"),
    }
}

/// Whether the spool has room.
pub(super) fn disk(config: &Config) -> Finding {
    const CHECK: &str = "disk";
    let dir = config.state_dir.as_path();
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let free = match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => stat.blocks_available().saturating_mul(stat.fragment_size()),
        Err(error) => {
            let found = format!("free space of {} can't be read: {error}", existing.display());
            return Finding::fail(CHECK, found, "run doctor as root");
        }
    };
    let used = used_bytes(&config.spool_dir());
    let wanted = config.spool.bytes_max.saturating_sub(used);
    let mebibytes = free >> 20;
    let found = format!(
        "{mebibytes} MiB free at {}, the spool may take {} and has {} MiB",
        existing.display(),
        print_size(config.spool.bytes_max),
        used >> 20
    );
    let least = config.spool.segment_bytes.saturating_mul(FREE_SEGMENTS_MIN);
    if free.saturating_add(used) < least {
        return Finding::fail(CHECK, found, "free space, or move agent.state_dir");
    }
    if free < wanted {
        let todo = "free space, or lower spool.bytes_max, so that the bound is the agent's own";
        return Finding::warn(CHECK, found, todo);
    }
    Finding::ok(CHECK, found)
}

/// What the files of `dir` take.
fn used_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    // st_blocks counts units of 512 bytes whatever the file system's block is (inode(7)).
    let taken = |entry: std::fs::DirEntry| entry.metadata().map_or(0, |meta| meta.blocks() * 512);
    entries.filter_map(Result::ok).map(taken).sum()
}
