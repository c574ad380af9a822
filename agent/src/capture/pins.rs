//! The directory on bpffs that keeps hooks and maps alive while no agent runs.
//!
//! Promises: one agent at a time holds it; bpffs is mounted where it is missing, once, also when
//! several processes find it missing together.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tidegate_agent_common::{ABI, Abi};

use super::hooks::{HOOKS, Hook};
use super::{CaptureError, sys};

/// Where bpffs belongs (`systemd` mounts it there).
const BPFFS: &str = "/sys/fs/bpf";

/// Names of the pinned maps.
pub(super) const MAPS: [&str; 13] = [
    "ACTIVE",
    "BEAT",
    "COUNTERS",
    "EVENTS",
    "FLOWS",
    "HEADERS",
    "KEPT",
    "NOTES",
    "PASSED_OPEN",
    "ROUTES",
    "TAGS",
    "TALLIES",
    "UIDS",
];

/// The map that names the ABI of the rest.
const ABI_MAP: &str = "ABI";

/// The pin directory, held.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    /// Keeps other agents away until it is dropped.
    _lock: File,
}

impl Pins {
    /// Makes the directory and takes it.
    pub(super) fn hold(directory: PathBuf) -> Result<Self, CaptureError> {
        let wrong = |error: io::Error| wrong_pin(&directory, &error);
        mount_bpffs(&directory)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(wrong)?;
        refuse_other_file_systems(&directory)?;
        let lock = File::open(&directory).map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(CaptureError::Busy(directory)),
            Err(TryLockError::Error(error)) => Err(wrong(error)),
        }
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(format!("map_{name}"))
    }

    /// Where a hook's link is pinned.
    pub(super) fn link(&self, hook: &Hook) -> PathBuf {
        link_path(&self.directory, hook)
    }

    /// Whether a run before left hooks.
    pub(super) fn have_links(&self) -> bool {
        HOOKS.iter().any(|hook| self.link(hook).exists())
    }

    /// Refuses maps of another ABI; marks fresh ones with ours.
    pub(super) fn claim(&self) -> Result<(), CaptureError> {
        let path = self.map(ABI_MAP);
        if path.exists() {
            let found = read_abi(&path);
            if found == Some(ABI) {
                return Ok(());
            }
            let pin_dir = self.directory.clone();
            return Err(CaptureError::PinnedAbi { pin_dir, found, expected: ABI });
        }
        let wrong = |source| CaptureError::Map { map: ABI_MAP, source };
        let mut mark = Array::<MapData, Abi>::create(1, 0).map_err(wrong)?;
        mark.set(0, ABI, 0).map_err(wrong)?;
        mark.pin(&path).map_err(|error| CaptureError::Pins { path, why: error.to_string() })
    }
}

fn read_abi(path: &Path) -> Option<Abi> {
    let map = Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
    let mark = Array::<MapData, Abi>::try_from(map).ok()?;
    mark.get(&0, 0).ok()
}

fn link_path(directory: &Path, hook: &Hook) -> PathBuf {
    directory.join(format!("link_{}", hook.program))
}

/// Detaches the hooks pinned there and removes all pins; `false` where nothing was pinned.
pub(super) fn detach(directory: &Path) -> Result<bool, CaptureError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(wrong_pin(directory, &error)),
    };
    let mut pinned = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| wrong_pin(directory, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("link_") || name.starts_with("map_") {
            pinned.push((rank(&name), entry.path()));
        }
    }
    // What drops goes first, then what leads to the gate, so that no connection is led there and
    // not known.
    pinned.sort();
    for (_, path) in &pinned {
        if let Ok(link) = sys::open_pin(path) {
            // Maps are no links and refuse this; links of kernels before 5.9 end with their pin.
            let _ = sys::link_detach(std::os::fd::AsFd::as_fd(&link));
        }
        fs::remove_file(path).map_err(|error| wrong_pin(path, &error))?;
    }
    // Not ours alone where somebody put other things into it.
    let _ = fs::remove_dir(directory);
    Ok(!pinned.is_empty())
}

fn rank(name: &str) -> u8 {
    match name {
        "link_tg_egress" => 0,
        name if name.starts_with("link_tg_connect") => 1,
        name if name.starts_with("link_") => 2,
        _ => 3,
    }
}

fn wrong_pin(path: &Path, error: &io::Error) -> CaptureError {
    CaptureError::Pins { path: path.to_owned(), why: error.to_string() }
}

/// Mounts bpffs at its usual place where `directory` lies below that and it is not there.
fn mount_bpffs(directory: &Path) -> Result<(), CaptureError> {
    let place = Path::new(BPFFS);
    if !directory.starts_with(place) || is_bpffs(place) {
        return Ok(());
    }
    let wrong = |why: String| CaptureError::Pins { path: place.to_owned(), why };
    // The lock lies on the directory below the mount: whoever waits for it looks again.
    let below = File::open(place).map_err(|error| wrong(error.to_string()))?;
    below.lock().map_err(|error| wrong(error.to_string()))?;
    if is_bpffs(place) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), place, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|error| wrong(format!("bpffs is not mounted and cannot be: {error}")))?;
    tracing::info!(place = BPFFS, "bpffs was not mounted, so the agent mounted it");
    Ok(())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn refuse_other_file_systems(directory: &Path) -> Result<(), CaptureError> {
    if is_bpffs(directory) {
        return Ok(());
    }
    let why = format!("it is not on bpffs; set capture.pin_dir to a directory below {BPFFS}");
    Err(CaptureError::Pins { path: directory.to_owned(), why })
}
