//! C2SP tlog-tiles: the tree in files of 256 hashes, and the entries in bundles.
//!
//! Promise: [`Edge`] says each tile's bytes once it is full, and the partial ones of any size; from
//! those files [`Tiles`] gives every node of the tree, so that a proof reads O(log n) of them.
//!
//! Limits: an entry has at most [`ENTRY_BYTES_MAX`] bytes, which the format sets.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::Hash;
use crate::tree::{Frontier, Nodes, node_hash};

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Longest entry of a bundle, in bytes.
pub const ENTRY_BYTES_MAX: usize = 65_535;

const TILE_HEIGHT: u32 = 8;
const HASH_BYTES: usize = 32;

/// One file of the tree, or of the entries where `level` is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The level; `None` for entry bundles.
    pub level: Option<u32>,
    /// Which one of the level.
    pub n: u64,
    /// Hashes or entries in it, 1 to [`TILE_WIDTH`].
    pub width: u64,
}

impl Name {
    /// The path below the log's prefix: `tile/0/x001/234`, `tile/entries/000.p/7`.
    pub fn path(&self) -> String {
        let level = self.level.map_or_else(|| "entries".to_owned(), |level| level.to_string());
        let mut number = format!("{:03}", self.n % 1000);
        let mut rest = self.n / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        if self.width < TILE_WIDTH {
            format!("tile/{level}/{number}.p/{}", self.width)
        } else {
            format!("tile/{level}/{number}")
        }
    }
}

/// Adds an entry to a bundle; `false` where it is too long for the format.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> bool {
    let Ok(length) = u16::try_from(entry.len()) else { return false };
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    true
}

/// The entries of a bundle; `None` where it ends inside one.
pub fn read_bundle(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let (length, rest) = bundle.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bundle = rest;
    }
    Some(entries)
}

/// The partial tiles of a tree of that size, without the bundle.
pub fn partial_tiles(size: u64) -> Vec<Name> {
    let mut names = Vec::new();
    let (mut level, mut width) = (0, size);
    while width > 0 {
        if width % TILE_WIDTH != 0 {
            names.push(Name {
                level: Some(level),
                n: width / TILE_WIDTH,
                width: width % TILE_WIDTH,
            });
        }
        level += 1;
        width /= TILE_WIDTH;
    }
    names
}

/// The right edge of the tiles while the tree grows.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    size: u64,
    /// Hashes of the tile that is not full yet, by level.
    open: Vec<Vec<Hash>>,
}

impl Edge {
    /// Takes the edge up again from the bytes of [`partial_tiles`]; `None` where one is not there.
    pub fn resume(size: u64, read: impl Fn(&Name) -> Option<Vec<u8>>) -> Option<Self> {
        let mut edge = Self { size, open: Vec::new() };
        for name in partial_tiles(size) {
            let level = usize::try_from(name.level?).ok()?;
            edge.open.resize(edge.open.len().max(level + 1), Vec::new());
            let hashes = hashes_of(&read(&name)?)?;
            if u64::try_from(hashes.len()) != Ok(name.width) {
                return None;
            }
            *edge.open.get_mut(level)? = hashes;
        }
        Some(edge)
    }

    /// Leaves so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; returns the tiles that are full now.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Name, Vec<u8>)> {
        let mut full = Vec::new();
        self.size += 1;
        let mut hash = leaf;
        let mut per_tile = 1_u64;
        for level in 0.. {
            if self.open.len() <= level {
                self.open.push(Vec::new());
            }
            let Some(open) = self.open.get_mut(level) else { break };
            open.push(hash);
            per_tile = per_tile.saturating_mul(TILE_WIDTH);
            if u64::try_from(open.len()) != Ok(TILE_WIDTH) {
                break;
            }
            let hashes = std::mem::take(open);
            hash = root_of_tile(&hashes);
            let name = Name {
                level: u32::try_from(level).ok(),
                n: self.size / per_tile - 1,
                width: TILE_WIDTH,
            };
            full.push((name, hashes.concat()));
        }
        full
    }

    /// The partial tiles of the tree as it is now.
    pub fn partials(&self) -> Vec<(Name, Vec<u8>)> {
        let bytes = |name: &Name| {
            let level = usize::try_from(name.level?).ok()?;
            Some(self.open.get(level)?.concat())
        };
        partial_tiles(self.size)
            .into_iter()
            .filter_map(|name| bytes(&name).map(|bytes| (name, bytes)))
            .collect()
    }
}

fn root_of_tile(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    for hash in hashes {
        frontier.push(*hash);
    }
    frontier.root()
}

fn hashes_of(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// The nodes of a tree of one size, out of its tiles. Each tile is read once.
pub struct Tiles<R> {
    size: u64,
    read: R,
    cache: RefCell<HashMap<Name, Option<Vec<Hash>>>>,
}

impl<R: Fn(&Name) -> Option<Vec<u8>>> Tiles<R> {
    /// The tree of this size; `read` gives a tile's bytes.
    pub fn new(size: u64, read: R) -> Self {
        Self { size, read, cache: RefCell::default() }
    }

    /// The first `count` hashes from `at` on, of one level, which must lie in one tile.
    fn hashes(&self, level: u32, at: u64, count: u64) -> Option<Vec<Hash>> {
        let n = at / TILE_WIDTH;
        let on_level = self.size.checked_shr(level * TILE_HEIGHT)?;
        let width = on_level.checked_sub(n * TILE_WIDTH)?.min(TILE_WIDTH);
        let from = at % TILE_WIDTH;
        if from + count > width {
            return None;
        }
        let name = Name { level: Some(level), n, width };
        let mut cache = self.cache.borrow_mut();
        let tile = cache.entry(name).or_insert_with(|| hashes_of(&(self.read)(&name)?));
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(from + count).ok()?);
        tile.as_ref()?.get(from..to).map(<[Hash]>::to_vec)
    }
}

impl<R: Fn(&Name) -> Option<Vec<u8>>> Nodes for Tiles<R> {
    fn node(&self, height: u32, index: u64) -> Option<Hash> {
        let (level, within) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let count = 1_u64 << within;
        let mut hashes = self.hashes(level, index.checked_mul(count)?, count)?;
        while hashes.len() > 1 {
            let (pairs, _) = hashes.as_chunks::<2>();
            hashes = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
        }
        hashes.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{self, leaf_hash};

    #[test]
    fn paths_are_those_of_the_specification() {
        let name = |level, n, width| Name { level, n, width };
        for (name, expected) in [
            (name(Some(0), 0, 256), "tile/0/000"),
            (name(Some(1), 1_234_067, 256), "tile/1/x001/x234/067"),
            (name(Some(0), 273, 112), "tile/0/273.p/112"),
            (name(None, 1000, 1), "tile/entries/x001/000.p/1"),
        ] {
            assert_eq!(name.path(), expected);
        }
        // The specification's own examples.
        let widths = |size| {
            let tiles = partial_tiles(size).into_iter();
            tiles.map(|name| (name.level.unwrap(), name.n, name.width)).collect::<Vec<_>>()
        };
        assert_eq!(widths(70_000), [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
        assert_eq!(widths(256), [(1, 0, 1)]);
        assert_eq!(widths(0), []);
    }

    #[test]
    fn proofs_out_of_tiles_are_those_out_of_all_leaves() {
        let sizes = [1_u64, 2, 255, 256, 257, 511, 700, 66_000];
        let leaves: Vec<Hash> = (0..66_000_u64).map(|i| leaf_hash(&i.to_le_bytes())).collect();
        let all = tree::in_slice(&leaves);
        let mut files: HashMap<String, Vec<u8>> = HashMap::new();
        let mut edge = Edge::default();
        for (leaf, size) in leaves.iter().zip(1..) {
            files.extend(edge.push(*leaf).into_iter().map(|(name, bytes)| (name.path(), bytes)));
            if sizes.contains(&size) {
                files.extend(edge.partials().into_iter().map(|(n, bytes)| (n.path(), bytes)));
                let again = Edge::resume(size, |name| files.get(&name.path()).cloned()).unwrap();
                assert_eq!(again.partials(), edge.partials());
                edge = again;
            }
        }
        for size in sizes {
            let tiles = Tiles::new(size, |name| files.get(&name.path()).cloned());
            assert_eq!(tree::root_of(&tiles, size), tree::root_of(&all, size), "{size}");
            for index in [0, size / 3, size / 2, size - 1] {
                let proof = tree::prove_inclusion(&tiles, index, size);
                assert!(proof.is_some());
                assert_eq!(proof, tree::prove_inclusion(&all, index, size), "{index} of {size}");
                let grown = tree::prove_consistency(&tiles, index, size);
                assert_eq!(grown, tree::prove_consistency(&all, index, size), "{index} to {size}");
            }
        }
    }

    #[test]
    fn a_bundle_reads_as_written_and_a_cut_one_is_none() {
        let mut bundle = Vec::new();
        for entry in [b"one".as_slice(), b"", &vec![7; ENTRY_BYTES_MAX]] {
            assert!(push_entry(&mut bundle, entry));
        }
        assert_eq!(read_bundle(&bundle).unwrap().len(), 3);
        assert!(read_bundle(&bundle[..bundle.len() - 1]).is_none());
        assert!(!push_entry(&mut bundle, &vec![0; ENTRY_BYTES_MAX + 1]));
    }
}
