//! The key behind hashes and tokens.
//!
//! Promises: made once, from the system's generator, in a file that only its owner may read; it is
//! never logged, recorded or sent. A file that others may read, or that holds something else than a
//! key, stops the start: with another key the same value would get another hash, and nobody would
//! know why.
//!
//! Known gap: there is no rotation; a new key begins with a new file, and hashes of before compare
//! with nothing any more.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;

/// Length of the key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// The key. No `Debug`: it must not get into a log.
#[derive(Clone, Copy)]
pub struct MaskKey(pub [u8; KEY_BYTES]);

/// Reads the key at `path`, or makes it there.
pub fn open(path: &Path) -> anyhow::Result<MaskKey> {
    if !path.exists() {
        create(path).with_context(|| format!("making {}", path.display()))?;
    }
    read(path).with_context(|| format!("the masking key {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<MaskKey> {
    let file = fs::File::open(path)?;
    let others = file.metadata()?.permissions().mode() & OTHERS;
    anyhow::ensure!(others == 0, "others may read it: chmod 600");
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text)?;
    let mut key = [0; KEY_BYTES];
    hex::decode_to_slice(text.trim_end(), &mut key)
        .map_err(|_| anyhow::anyhow!("it does not hold {KEY_BYTES} bytes in hexadecimal digits"))?;
    Ok(MaskKey(key))
}

/// Written under another name first, so that a crash never leaves half a key.
fn create(path: &Path) -> anyhow::Result<()> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{}", hex::encode(key))?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().context("it has no directory")?)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_its_owner_s_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mask.key");
        let first = open(&path).unwrap().0;
        assert_eq!(open(&path).unwrap().0, first);
        assert_ne!(first, [0; KEY_BYTES]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_is_none_or_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mask.key");
        open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = format!("{:#}", open(&path).err().unwrap());
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "abc\n").unwrap();
        let error = format!("{:#}", open(&path).err().unwrap());
        assert!(error.contains("hexadecimal"), "{error}");
    }
}
