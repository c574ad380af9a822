//! What the log asks of a disk: one directory of files. Real files are in module `os`, lying ones in the test kit.
//!
//! Promises nothing by itself; names are plain file names without a path.

use std::io;

/// One directory.
pub trait Files: Send + Sync + 'static {
    /// An open file of it.
    type File: File;

    /// Makes a new empty file, open for reading and writing; an existing one is an error.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens an existing file (for reading only where the directory was opened so).
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Unlinks a file; open handles stay usable.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file in one step, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that an unprivileged writer may still take.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file.
pub trait File: Send + Sync + 'static {
    /// Reads at an offset; 0 is the end of the file, fewer bytes than asked are allowed.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset; fewer bytes than given are allowed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the file's content and length durable (not its name).
    fn sync_data(&self) -> io::Result<()>;
    /// Takes `bytes` of disk from the file's start, so that later writes within them cannot meet a full disk;
    /// the file is then at least that long and reads zero where nothing was written.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// Writes all of `bytes`, through short writes.
pub(crate) fn write_all_at<H: File>(file: &H, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `buf` is full or the file ends; returns how much was read.
pub(crate) fn read_full_at<H: File>(file: &H, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether the disk, or the quota, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
