//! Real files: one directory, locked against a second writer. The only module under `crates/` that touches a disk; why
//! it is here: `docs/decisions/segment-os-files.md`.
//!
//! Promises: files are made for their owner only (0600, a new directory 0700); `allocate` really takes the blocks; two
//! writers never have the same directory open. Cannot: know whether the device's own cache obeys a flush.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place in crates/ that opens files, behind the feature `os`"
)]

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::files::{File, Files, write_all_at};

/// Bytes written at once where the file system cannot preallocate.
const ZERO_BYTES: usize = 1 << 20;

/// A directory of real files.
#[derive(Debug)]
pub struct OsFiles {
    path: PathBuf,
    /// Open for syncs, and for the lock.
    dir: fs::File,
    writable: bool,
}

impl OsFiles {
    /// Opens a directory for writing; makes it if it is not there. `WouldBlock`: another process has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let dir = fs::File::open(path)?;
        dir.try_lock()?;
        Ok(Self { path: path.to_owned(), dir, writable: true })
    }

    /// Opens a directory for reading, beside a writer if there is one.
    pub fn read_only(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), dir: fs::File::open(path)?, writable: false })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Files for OsFiles {
    type File = fs::File;

    fn create(&self, name: &str) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(self.writable).open(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::fstatvfs(&self.dir)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }
}

impl File for fs::File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let len = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        match fallocate(self, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP) => zero(self, bytes),
            Err(errno) => Err(errno.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        fs::File::set_len(self, bytes)
    }
}

/// Takes blocks by writing zeros. Only for new files: it overwrites.
fn zero(file: &fs::File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES];
    let mut at = 0;
    while at < bytes {
        let part = usize::try_from(bytes - at).unwrap_or(ZERO_BYTES).min(ZERO_BYTES);
        write_all_at(file, zeros.get(..part).unwrap_or_default(), at)?;
        at += part as u64;
    }
    Ok(())
}
