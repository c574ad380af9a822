//! Who is behind a finding, as far as `/proc` tells it afterwards.
//!
//! Known gaps: a process that has ended by then is told by its number and user id alone; its group is then
//! 4294967295, which is none.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tidegate_agent_common::{RawCapture, UID_NONE};
use tidegate_event::Process;

use crate::capture::netns::uids_in;

/// A process that holds the socket of this number; the first that is found.
pub(super) fn holder_of(inode: u32) -> Option<u32> {
    if inode == 0 {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let holds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().any(
            // What a descriptor leads to, not the link itself.
            |fd| {
                let named = fs::read_link(fd.path()).is_ok_and(|to| to.starts_with("socket:"));
                named && fs::metadata(fd.path()).is_ok_and(|file| file.ino() == u64::from(inode))
            },
        );
        if holds {
            return Some(pid);
        }
    }
    None
}

/// What can be told of a process that was at work at that time of `CLOCK_BOOTTIME`.
pub(super) fn describe(pid: u32, uid: Option<u32>, boot_ns: u64) -> Option<Process> {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = of("status");
    let uid = uid.or_else(|| uids_in(&status).first().copied())?;
    let gid = status.lines().find_map(|line| line.strip_prefix("Gid:"));
    let gid = gid.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(UID_NONE);
    let raw = RawCapture {
        addr: [0; 4],
        socket_cookie: 0,
        netns_cookie: 0,
        cgroup_id: 0,
        connected_ns: 0,
        connected_boot_ns: boot_ns,
        state: 0,
        version: 0,
        rule: 0,
        uid,
        owner: uid,
        gid,
        pid,
        tid: pid,
        port: 0,
        family: 0,
        comm: [0; 16],
        zero: 0,
    };
    let mut process = tidegate_identity::describe(&raw).process;
    of("comm").trim_end().clone_into(&mut process.comm);
    Some(process)
}
