//! Other network namespaces: which there are, and work inside of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

/// A network namespace, kept open.
#[derive(Debug, Clone)]
pub struct Netns(Arc<File>);

impl Netns {
    /// The one behind this file of `/proc`.
    pub fn open(file: &PathBuf) -> io::Result<Self> {
        File::open(file).map(|file| Self(Arc::new(file)))
    }

    /// Runs `task` inside, on a thread of its own; sockets that it makes stay there.
    pub fn inside<T: Send>(&self, task: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&*self.0, CloneFlags::CLONE_NEWNET)?;
                task()
            });
            let failed = |_| Err(io::Error::other("the work in a network namespace failed"));
            there.join().unwrap_or_else(failed)
        })
    }
}

/// The network namespaces of this host but the agent's own, by the number of their inode.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those in which a process of one of the user ids runs, with a file of `/proc`, and its process id.
    pub of_uids: BTreeMap<u64, (PathBuf, u32)>,
    /// Those in which any process runs.
    pub alive: BTreeSet<u64>,
}

/// Looks at every process.
pub fn look(uids: &BTreeSet<u32>) -> Seen {
    let own = fs::metadata("/proc/self/ns/net").map(|file| file.ino()).unwrap_or_default();
    let mut seen = Seen::default();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let path = process.path();
        let file = path.join("ns/net");
        let Ok(inode) = fs::metadata(&file).map(|file| file.ino()) else { continue };
        if inode == own {
            continue;
        }
        seen.alive.insert(inode);
        if seen.of_uids.contains_key(&inode) {
            continue;
        }
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        if uids_in(&status).iter().any(|uid| uids.contains(uid)) {
            seen.of_uids.insert(inode, (file, pid));
        }
    }
    seen
}

/// Real, effective, saved and file-system user id, as `/proc/PID/status` has them.
pub(crate) fn uids_in(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|uid| uid.parse().ok()).collect()
}
