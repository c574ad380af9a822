//! A writer of `newc` cpio archives.
//!
//! Promises: parents come before what is in them, each name once. Limits: files below 4 GiB.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// Every part of an archive begins at a multiple of this.
const ALIGN_BYTES: usize = 4;

/// An archive that is being written.
pub struct Archive<W: Write = BufWriter<File>> {
    out: W,
    written: u64,
    inode: u32,
    names: BTreeSet<String>,
}

impl Archive {
    /// Starts an archive in a file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0, names: BTreeSet::new() }
    }

    /// A directory; one that is there already stays as it is.
    pub fn directory(&mut self, name: &str, mode: u32, owner: u32) -> anyhow::Result<()> {
        self.parents(name)?;
        if self.names.insert(name.to_owned()) {
            self.entry(name, DIRECTORY | mode, owner, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A regular file.
    pub fn file(&mut self, name: &str, data: &[u8], mode: u32, owner: u32) -> anyhow::Result<()> {
        self.parents(name)?;
        anyhow::ensure!(self.names.insert(name.to_owned()), "{name} is packed twice");
        self.entry(name, FILE | mode, owner, (0, 0), data)
    }

    /// The console device, which the kernel opens for PID 1.
    pub fn console(&mut self, name: &str) -> anyhow::Result<()> {
        self.parents(name)?;
        self.entry(name, CHARACTER_DEVICE | 0o600, 0, (5, 1), &[])
    }

    /// Ends the archive; gives its size in bytes.
    pub fn finish(mut self) -> anyhow::Result<u64> {
        self.entry("TRAILER!!!", 0, 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn parents(&mut self, name: &str) -> anyhow::Result<()> {
        for (at, _) in name.match_indices('/') {
            let parent = name.get(..at).unwrap_or_default().to_owned();
            if self.names.insert(parent.clone()) {
                self.entry(&parent, DIRECTORY | 0o755, 0, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        owner: u32,
        device: (u32, u32),
        data: &[u8],
    ) -> anyhow::Result<()> {
        self.inode += 1;
        let size = u32::try_from(data.len()).with_context(|| format!("{name} is too large"))?;
        let name_bytes = u32::try_from(name.len())? + 1;
        let fields =
            [self.inode, mode, owner, owner, 1, 0, size, 0, 0, device.0, device.1, name_bytes, 0];
        let mut head = b"070701".to_vec();
        for field in fields {
            write!(head, "{field:08x}")?;
        }
        head.extend_from_slice(name.as_bytes());
        head.push(0);
        self.padded(&head)?;
        self.padded(data)
    }

    fn padded(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let padding = bytes.len().next_multiple_of(ALIGN_BYTES) - bytes.len();
        self.out.write_all(bytes)?;
        self.out.write_all([0; ALIGN_BYTES].get(..padding).unwrap_or_default())?;
        self.written += u64::try_from(bytes.len() + padding)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_reads_back_what_was_packed() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("a/b/one", b"first", 0o640, 7).unwrap();
        archive.file("a/two", b"", 0o600, 0).unwrap();
        archive.console("dev/console").unwrap();
        assert!(archive.file("a/two", b"", 0o600, 0).is_err());
        archive.finish().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["-itv", "--quiet", "--numeric-uid-gid"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let fields = |line: &str| {
            let words = line.split_whitespace().collect::<Vec<_>>();
            (words[0].to_owned(), words[2].to_owned(), (*words.last().unwrap()).to_owned())
        };
        let listed = listed.lines().map(fields).collect::<Vec<_>>();
        let want = |mode: &str, owner: &str, name: &str| (mode.into(), owner.into(), name.into());
        assert_eq!(
            listed,
            [
                want("drwxr-xr-x", "0", "a"),
                want("drwxr-xr-x", "0", "a/b"),
                want("-rw-r-----", "7", "a/b/one"),
                want("-rw-------", "0", "a/two"),
                want("drwxr-xr-x", "0", "dev"),
                want("crw-------", "0", "dev/console"),
            ]
        );
    }
}
