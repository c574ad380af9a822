//! A cgroup of its own for one laboratory.
//!
//! Promises: made below the machine's cgroup2 mount (wherever it is), removed with all processes in
//! it. Cannot do: a machine without a cgroup2 mount gets an error that says what to mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long killed members may take to be gone.
const EMPTY_MS_MAX: u64 = 5_000;
/// Pause between two looks at a cgroup that empties.
const LOOK_MS: u64 = 10;

/// A cgroup that is removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    keep: bool,
}

impl Cgroup {
    /// Makes `<cgroup2 mount>/<name>`.
    pub fn create(name: &str, keep: bool) -> anyhow::Result<Self> {
        let path = mount()?.join(name);
        fs::create_dir(&path).with_context(|| format!("creating cgroup {}", path.display()))?;
        Ok(Self { path, keep })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kills whatever is still in it, and removes it.
    pub fn remove(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_millis(EMPTY_MS_MAX);
        while self.path.exists() {
            for pid in self.members()? {
                // A member that ended in between is what we want.
                let _ = kill(pid, Signal::SIGKILL);
            }
            match fs::remove_dir(&self.path) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error)
                        .with_context(|| format!("removing cgroup {}", self.path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(LOOK_MS)),
            }
        }
        Ok(())
    }

    fn members(&self) -> anyhow::Result<Vec<Pid>> {
        let text = fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.remove();
        }
    }
}

/// Where cgroup2 is mounted; on hybrid machines that is not `/sys/fs/cgroup`.
pub fn mount() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find_map(|fields| match fields.as_slice() {
            [_, path, "cgroup2", ..] => Some(PathBuf::from(path)),
            _ => None,
        })
        .context("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}
