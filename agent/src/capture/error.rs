//! What can go wrong with the kernel side, and what to do about it.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use tidegate_agent_common::Abi;

/// Why the hooks could not be attached, fed or taken away.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The host has no cgroup2.
    #[error("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoCgroup2,
    /// The mounts cannot be read.
    #[error("cannot read /proc/mounts: {0}")]
    Mounts(#[source] io::Error),
    /// The configured cgroup cannot be used.
    #[error("capture.cgroup = {path:?} cannot be used: {why}")]
    Cgroup {
        /// The cgroup's directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The agent runs outside the cgroup that it guards.
    #[error(
        "the hooks on {cgroup:?} do not answer the agent, whose own cgroup is {own:?}: the agent \
         must run below the cgroup that it guards; set capture.cgroup to a directory above it, or \
         leave it out to guard the whole host"
    )]
    NotBelow {
        /// The guarded cgroup.
        cgroup: PathBuf,
        /// The agent's, as `/proc/self/cgroup` has it.
        own: String,
    },
    /// The pins' file system cannot be used.
    #[error("cannot use {path:?} for the hooks' pins: {why}")]
    Pins {
        /// Where it happened.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another agent holds the hooks.
    #[error(
        "another agent holds the hooks pinned in {0:?}; stop it first (they stay in place), or \
         give this one a capture.pin_dir of its own"
    )]
    Busy(PathBuf),
    /// The embedded object is not usable.
    #[error("the embedded kernel object is damaged: {0}; build the agent again")]
    Object(String),
    /// The embedded object is of another ABI than the agent.
    #[error(
        "the embedded kernel object speaks another ABI ({found:?}) than the agent ({expected:?}); \
         type `cargo xtask ebpf` and build the agent again"
    )]
    ObjectAbi {
        /// The object's.
        found: Abi,
        /// The agent's.
        expected: Abi,
    },
    /// The hooks in place are of another ABI than this agent.
    #[error(
        "the hooks pinned in {pin_dir:?} are of another agent version (ABI {found:?}, this agent \
         has {expected:?}) and cannot be taken over; run `tidegate-agent detach` and start again: \
         protected targets are reachable directly for that moment, so stop their clients first"
    )]
    PinnedAbi {
        /// Where they are pinned.
        pin_dir: PathBuf,
        /// Theirs; `None` where it cannot be read.
        found: Option<Abi>,
        /// The agent's.
        expected: Abi,
    },
    /// The object could not be brought into the kernel.
    #[error(
        "cannot create the kernel maps: {0}; the agent needs root, or CAP_BPF and CAP_NET_ADMIN"
    )]
    Maps(String),
    /// A program was refused.
    #[error(
        "the kernel refused {hook}: {why}; `tidegate-agent doctor` tells what this kernel lacks"
    )]
    Load {
        /// The hook.
        hook: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// A hook could not be attached or replaced.
    #[error("cannot attach {hook} to {cgroup:?}: {source}")]
    Link {
        /// The hook.
        hook: &'static str,
        /// The cgroup.
        cgroup: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error("cannot reach the kernel map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The rules do not fit the tables.
    #[error("the capture rules do not fit the kernel's tables: {0}")]
    Rules(String),
    /// A system call of the machinery failed.
    #[error("{what} failed: {source}")]
    System {
        /// Which.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
