//! The log as C2SP tlog-tiles: files that any static file server can serve, and that proofs are
//! computed from.
//!
//! Promise: `checkpoint` is replaced only when every tile of that size is on the disk, so a reader never
//! misses one. A projection: made anew from the segments where anything is missing.
//!
//! Limits: entry bundles double the log on the disk, so they are written only where asked for.
//! Known gap: nothing is pruned.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tidegate_ledger::Hash;
use tidegate_ledger::checkpoint;
use tidegate_ledger::tiles::{self, Edge, Name, TILE_WIDTH, Tiles};
use tidegate_ledger::tree::{self, leaf_hash};

use crate::files;

/// The newest checkpoint whose tiles are all there.
pub const CHECKPOINT: &str = "checkpoint";

/// Writes tiles below one directory.
pub struct TileWriter {
    dir: PathBuf,
    edge: Edge,
    /// The entries of the bundle that is not full yet; `None` where no bundles are written.
    bundle: Option<Vec<u8>>,
    /// Partial tiles of the last published size.
    partial: Vec<Name>,
}

impl TileWriter {
    /// Goes on behind the last published size, or begins anew where that can't be.
    pub fn open(dir: &Path, entries: bool) -> anyhow::Result<Self> {
        if let Some(size) = published_size(dir)
            && let Some(writer) = Self::resume(dir, size, entries)
        {
            return Ok(writer);
        }
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
        make_dir(dir)?;
        let bundle = entries.then(Vec::new);
        Ok(Self { dir: dir.to_path_buf(), edge: Edge::default(), bundle, partial: Vec::new() })
    }

    fn resume(dir: &Path, size: u64, entries: bool) -> Option<Self> {
        let read = |name: &Name| std::fs::read(dir.join(name.path())).ok();
        let edge = Edge::resume(size, read)?;
        let mut partial = tiles::partial_tiles(size);
        let bundle = if entries {
            match bundle_name(size) {
                Some(name) => {
                    let bundle = read(&name)?;
                    partial.push(name);
                    Some(bundle)
                }
                // Bundles that were never written can't be gone on with.
                None if size > 0 => {
                    let last = Name { level: None, n: size / TILE_WIDTH - 1, width: TILE_WIDTH };
                    dir.join(last.path()).exists().then(Vec::new)
                }
                None => Some(Vec::new()),
            }
        } else {
            None
        };
        if entries && bundle.is_none() {
            return None;
        }
        Some(Self { dir: dir.to_path_buf(), edge, bundle, partial })
    }

    /// Entries so far.
    pub const fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Takes the next entry.
    pub fn push(&mut self, entry: &[u8]) -> anyhow::Result<()> {
        for (name, bytes) in self.edge.push(leaf_hash(entry)) {
            self.write(&name, &bytes)?;
        }
        if let Some(bundle) = &mut self.bundle {
            let fits = tiles::push_entry(bundle, entry);
            anyhow::ensure!(fits, "entry {} does not fit a bundle", self.edge.size() - 1);
            if self.edge.size().is_multiple_of(TILE_WIDTH) {
                let n = self.edge.size() / TILE_WIDTH - 1;
                let bytes = std::mem::take(bundle);
                self.write(&Name { level: None, n, width: TILE_WIDTH }, &bytes)?;
            }
        }
        Ok(())
    }

    /// Writes the partial tiles, then the checkpoint over exactly what was pushed; takes away partial
    /// tiles that are full by now.
    pub fn publish(&mut self, note: &str) -> anyhow::Result<()> {
        let mut partial = Vec::new();
        for (name, bytes) in self.edge.partials() {
            self.write(&name, &bytes)?;
            partial.push(name);
        }
        if let (Some(bundle), Some(name)) = (&self.bundle, bundle_name(self.edge.size())) {
            self.write(&name, bundle)?;
            partial.push(name);
        }
        files::replace(&self.dir.join(CHECKPOINT), note.as_bytes(), files::PUBLIC)?;
        for old in std::mem::replace(&mut self.partial, partial) {
            let full = Name { width: TILE_WIDTH, ..old };
            let now_full = self.dir.join(full.path()).exists();
            if now_full && let Some(dir) = self.dir.join(old.path()).parent() {
                // A stale file is only untidy.
                let _kept = std::fs::remove_dir_all(dir);
            }
        }
        Ok(())
    }

    /// The same checkpoint with more signatures.
    pub fn republish(&self, note: &str) -> anyhow::Result<()> {
        files::replace(&self.dir.join(CHECKPOINT), note.as_bytes(), files::PUBLIC)
    }

    fn write(&self, name: &Name, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.dir.join(name.path());
        if let Some(dir) = path.parent() {
            make_dir(dir)?;
        }
        // Not synced: what a crash takes is written again, since nobody counts on it.
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, bytes)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn bundle_name(size: u64) -> Option<Name> {
    let width = size % TILE_WIDTH;
    (width > 0).then_some(Name { level: None, n: size / TILE_WIDTH, width })
}

/// The size of the checkpoint in that directory. Only we write there, so nobody's signature is asked for.
pub fn published_size(dir: &Path) -> Option<u64> {
    let note = std::fs::read_to_string(dir.join(CHECKPOINT)).ok()?;
    Some(checkpoint::read_unsigned(&note).ok()?.size)
}

/// The tree in that directory, as of a size that was published or is smaller.
fn tree_at(dir: &Path, size: u64) -> Tiles<impl Fn(&Name) -> Option<Vec<u8>>> {
    let dir = dir.to_path_buf();
    Tiles::new(size, move |name: &Name| {
        let read = |name: &Name| std::fs::read(dir.join(name.path())).ok();
        read(name).or_else(|| wider(&dir, name))
    })
}

/// A tile that has grown since: its beginning is the smaller one.
fn wider(dir: &Path, name: &Name) -> Option<Vec<u8>> {
    let bytes = usize::try_from(name.width).ok()?.checked_mul(size_of::<Hash>())?;
    (name.width..=TILE_WIDTH).find_map(|width| {
        let tile = std::fs::read(dir.join(Name { width, ..*name }.path())).ok()?;
        tile.get(..bytes).map(<[u8]>::to_vec)
    })
}

/// The root of the first `size` entries; `None` where tiles are missing.
pub fn root(dir: &Path, size: u64) -> Option<Hash> {
    tree::root_of(&tree_at(dir, size), size)
}

/// Proof that the tree of `old` entries is a beginning of that of `new`.
pub fn consistency(dir: &Path, old: u64, new: u64) -> Option<Vec<Hash>> {
    tree::prove_consistency(&tree_at(dir, new), old, new)
}

/// Proof that entry `index` is in the tree of `size` entries.
pub fn inclusion(dir: &Path, index: u64, size: u64) -> Option<Vec<Hash>> {
    tree::prove_inclusion(&tree_at(dir, size), index, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_ledger::SigningKey;
    use tidegate_ledger::checkpoint::Checkpoint;
    use tidegate_ledger::tree::in_slice;

    fn entry(index: u64) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    fn publish(writer: &mut TileWriter, to: u64) {
        for index in writer.size()..to {
            writer.push(&entry(index)).unwrap();
        }
        let head = Checkpoint { origin: "t.example".into(), size: to, root: [0; 32] };
        let note = checkpoint::sign(&SigningKey::from_bytes(&[3; 32]), &head).unwrap();
        writer.publish(&note).unwrap();
    }

    #[test]
    fn tiles_written_in_any_steps_and_restarts_give_the_proofs_of_the_whole_tree() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tlog");
        let leaves: Vec<Hash> = (0..1500).map(|index| leaf_hash(&entry(index))).collect();
        let all = in_slice(&leaves);
        for to in [1, 3, 256, 300, 700, 768, 1500] {
            publish(&mut TileWriter::open(&dir, true).unwrap(), to);
            assert_eq!(published_size(&dir), Some(to));
            assert_eq!(root(&dir, to), tree::root_of(&all, to));
            for old in [1, 2, 256, 299, 300, 700, 1499].into_iter().filter(|old| *old < to) {
                assert_eq!(root(&dir, old), tree::root_of(&all, old), "{old} at {to}");
                assert_eq!(consistency(&dir, old, to), tree::prove_consistency(&all, old, to));
                assert_eq!(inclusion(&dir, old, to), tree::prove_inclusion(&all, old, to));
            }
        }
        let bundles = ["000", "001", "002", "003", "004", "005.p/220"];
        let mut entries = Vec::new();
        for bundle in bundles {
            let bytes = std::fs::read(dir.join("tile/entries").join(bundle)).unwrap();
            entries.extend(tiles::read_bundle(&bytes).unwrap().into_iter().map(<[u8]>::to_vec));
        }
        assert_eq!(entries, (0..1500).map(entry).collect::<Vec<_>>());
        assert!(!dir.join("tile/0/002.p").exists(), "partial tiles go when they are full");

        std::fs::remove_file(dir.join("tile/0/005.p/220")).unwrap();
        assert_eq!(TileWriter::open(&dir, true).unwrap().size(), 0, "made anew");
    }
}
