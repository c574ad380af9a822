//! Finds the cgroup that the hooks are attached to.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::CaptureError;

/// An open cgroup.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub path: PathBuf,
    pub directory: File,
    /// The kernel's id of it: the inode number of its directory.
    pub id: u64,
}

/// Opens the configured cgroup, or the root of the cgroup2 mount.
pub(super) fn open(configured: Option<&Path>) -> Result<Cgroup, CaptureError> {
    let path = match configured {
        Some(path) => path.to_owned(),
        None => cgroup2_mount()?,
    };
    let wrong = |why: String| CaptureError::Cgroup { path: path.clone(), why };
    let directory = File::open(&path).map_err(|error| wrong(error.to_string()))?;
    let kind = fstatfs(&directory).map_err(|error| wrong(error.to_string()))?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        let mount = cgroup2_mount()?;
        return Err(wrong(format!(
            "it is not a cgroup2 directory; cgroup2 is at {}",
            mount.display()
        )));
    }
    let id = directory.metadata().map_err(|error| wrong(error.to_string()))?.ino();
    Ok(Cgroup { path, directory, id })
}

/// Where cgroup2 is mounted.
pub fn cgroup2_mount() -> Result<PathBuf, CaptureError> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(CaptureError::Mounts)?;
    mount_in(&mounts).ok_or(CaptureError::NoCgroup2)
}

/// The agent's own cgroup, below the mount.
pub(super) fn own() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    own.unwrap_or("unknown").to_owned()
}

fn mount_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(unescaped(place)))
    })
}

/// `/proc/mounts` writes blanks and backslashes as octal escapes (`getmntent(3)`).
fn unescaped(place: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(place.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let rows = [
            (hybrid, Some("/sys/fs/cgroup/unified")),
            ("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n", Some("/sys/fs/cgroup")),
            ("none /mnt/a\\040b cgroup2 rw 0 0\n", Some("/mnt/a b")),
            ("cgroup2 /x tmpfs rw 0 0\n", None),
            ("", None),
        ];
        for (mounts, expected) in rows {
            assert_eq!(mount_in(mounts), expected.map(PathBuf::from), "{mounts}");
        }
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused() {
        let error = open(Some(Path::new("/proc"))).unwrap_err();
        assert!(matches!(error, CaptureError::Cgroup { .. }), "{error}");
    }
}
