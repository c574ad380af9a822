//! Who wanted which address: what the kernel noted at `connect()`, and what `/proc` adds.

use std::net::SocketAddr;

/// What the kernel noted when a protected socket called `connect()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The address that the client asked for.
    pub original: SocketAddr,
    /// The process as the kernel saw it at `connect()`.
    pub process: Process,
    /// `SO_COOKIE` of the client's socket (kernel 5.7 up).
    pub socket_cookie: u64,
    /// Cookie of the client's network namespace (kernel 5.14 up), 0 where unknown.
    pub netns_cookie: u64,
    /// `CLOCK_MONOTONIC` at `connect()`, in nanoseconds.
    pub connected_ns: u64,
    /// Which rule of the capture table matched; names a target in the agent's configuration.
    pub rule: u32,
}

/// A process at the time of its `connect()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Process (thread group) id in the initial pid namespace.
    pub pid: u32,
    /// Command name of the process, at most 15 bytes (`comm`).
    pub comm: String,
    /// Cgroup v2 id.
    pub cgroup_id: u64,
    /// Path of that cgroup below the cgroup2 mount, where it could be read.
    pub cgroup: Option<String>,
    /// The executable, where it could be read before the process ended.
    pub executable: Executable,
}

/// The program file behind a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executable {
    /// Read from `/proc` while the process, started before the capture, was still there.
    Path(String),
    /// Not known, and why: the process had ended, or its pid was another's by then.
    Unknown(String),
}

impl Executable {
    /// The path, where it is known.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            Self::Unknown(_) => None,
        }
    }
}

/// A service account as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Its name in policies and records.
    pub name: String,
    /// Its user id on this host.
    pub uid: u32,
}
