//! Who stands behind a captured connection, read from the capture and `/proc`.
//!
//! Promises: an executable is named only if `/proc` showed it for the process that connected (one
//! started before the capture, the same before and after the look), and only if its path means
//! the same file to the agent; else the reason why not is given. What `/proc` cannot tell is never
//! guessed.
//!
//! Limits: start times have the kernel's tick (1/100 s): a process that got a dead client's pid
//! within the tick of the capture would be taken for it, which needs the pids to wrap in that time.
//!
//! Known gaps: a client that has exec'ed since its `connect()` shows its new program. The agent
//! must see the initial pid namespace's `/proc`. Asking for a file on a hanging FUSE mount can
//! block the caller. The cgroup's path is known only while the process lives.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{fs, io};

use tidegate_agent_common::RawCapture;
use tidegate_event::{Capture, Executable, Process};

/// `USER_HZ`: ticks in a second of the times in `/proc`, the same on every Linux architecture
/// that the agent runs on.
const TICKS_PER_SECOND: u64 = 100;

const NANOS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// What the kernel noted, and what `/proc` adds now.
pub fn describe(raw: &RawCapture) -> Capture {
    // The mount of cgroup2 stays where it is while the agent runs; to look for it costs more than
    // all the rest.
    static SYSTEM: LazyLock<ProcDirectory> = LazyLock::new(ProcDirectory::system);
    describe_by(raw, &*SYSTEM)
}

/// The same by another view of the processes.
pub fn describe_by(raw: &RawCapture, processes: &impl Processes) -> Capture {
    let sight = look(raw, processes);
    let (executable, cgroup) = match sight {
        Ok((executable, cgroup)) => (executable, cgroup),
        Err(why) => (Executable::Unknown(why), None),
    };
    Capture {
        original: raw.original(),
        process: Process {
            uid: raw.uid,
            gid: raw.gid,
            pid: raw.pid,
            comm: comm(raw.comm),
            cgroup_id: raw.cgroup_id,
            cgroup,
            executable,
        },
        socket_cookie: raw.socket_cookie,
        netns_cookie: raw.netns_cookie,
        connected_ns: raw.connected_ns,
        rule: raw.rule,
    }
}

/// A view of the host's processes.
pub trait Processes {
    /// When the process started, in ticks since boot.
    fn started_ticks(&self, pid: u32) -> io::Result<u64>;
    /// What its executable is called, and whether that name means the same file here.
    fn executable(&self, pid: u32) -> io::Result<Named>;
    /// Its cgroup below the cgroup2 mount.
    fn cgroup(&self, pid: u32) -> io::Result<String>;
    /// Id of the cgroup at that path; `None` where it cannot be told.
    fn cgroup_id(&self, path: &str) -> Option<u64>;
}

/// The name of a process's executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its path, as the process's own mount namespace has it.
    pub path: PathBuf,
    /// Whether the agent finds the same file there.
    pub same_here: bool,
}

type Sight = (Executable, Option<String>);

/// `/proc` between two looks at the start time, which must agree: else the pid changed hands.
fn look(raw: &RawCapture, processes: &impl Processes) -> Result<Sight, String> {
    let gone = |_| "the process had ended before it could be looked at".to_owned();
    let before = processes.started_ticks(raw.pid).map_err(gone)?;
    if before.saturating_mul(NANOS_PER_TICK) > raw.connected_boot_ns {
        return Err("the process had ended, and another has its pid".to_owned());
    }
    let named = processes.executable(raw.pid);
    let cgroup = processes.cgroup(raw.pid).ok();
    let after = processes.started_ticks(raw.pid).map_err(gone)?;
    if before != after {
        return Err("the process ended while it was looked at".to_owned());
    }
    let executable = match named {
        Ok(Named { path, same_here: true }) => Executable::Path(path.display().to_string()),
        Ok(Named { path, same_here: false }) => Executable::Unknown(format!(
            "{} is deleted, replaced, or in another mount namespace",
            path.display()
        )),
        Err(error) => Executable::Unknown(format!("/proc does not tell it: {error}")),
    };
    // A process can move to another cgroup after its connect(): the kernel's id decides.
    let cgroup = cgroup.filter(|path| processes.cgroup_id(path) == Some(raw.cgroup_id));
    Ok((executable, cgroup))
}

fn comm(bytes: [u8; 16]) -> String {
    let text: Vec<u8> = bytes.into_iter().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

/// Processes as a `/proc` directory shows them.
#[derive(Debug, Clone)]
pub struct ProcDirectory {
    root: PathBuf,
    cgroup2: Option<PathBuf>,
}

impl ProcDirectory {
    /// The host's.
    pub fn system() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let cgroup2 = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        });
        Self { root: PathBuf::from("/proc"), cgroup2 }
    }

    /// Another one, for tests.
    pub fn at(root: &Path, cgroup2: Option<&Path>) -> Self {
        Self { root: root.to_owned(), cgroup2: cgroup2.map(Path::to_owned) }
    }

    fn of(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }
}

impl Processes for ProcDirectory {
    fn started_ticks(&self, pid: u32) -> io::Result<u64> {
        let stat = fs::read_to_string(self.of(pid, "stat"))?;
        started_in(&stat).ok_or_else(|| io::Error::other("no start time in its stat"))
    }

    fn executable(&self, pid: u32) -> io::Result<Named> {
        let link = self.of(pid, "exe");
        let path = fs::read_link(&link)?;
        // Following the link leads to the file itself, whatever is called so by now.
        let theirs = fs::metadata(&link)?;
        let same_here = fs::metadata(&path)
            .is_ok_and(|ours| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()));
        Ok(Named { path, same_here })
    }

    fn cgroup(&self, pid: u32) -> io::Result<String> {
        let text = fs::read_to_string(self.of(pid, "cgroup"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::"));
        path.map(str::to_owned).ok_or_else(|| io::Error::other("it is in no cgroup2"))
    }

    fn cgroup_id(&self, path: &str) -> Option<u64> {
        let below = path.strip_prefix('/')?;
        fs::metadata(self.cgroup2.as_ref()?.join(below)).ok().map(|found| found.ino())
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)), counted behind the name, which may hold anything.
fn started_in(stat: &str) -> Option<u64> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
