//! The Merkle tree of RFC 6962 (the same hashes as RFC 9162 and C2SP tlog-tiles), over SHA-256.
//!
//! Promise: [`Frontier`] gives the root of everything pushed so far in O(log n) memory; a proof
//! that verifies shows inclusion or append-only growth to whoever trusts the root.
//!
//! Proofs are computed from whatever gives the tree's [`Nodes`]: all leaf hashes in O(n), tiles
//! ([`crate::tiles`]) in O(log n). Differentially tested against `ct-merkle`.

use sha2::{Digest as _, Sha256};

use crate::Hash;

/// Hash of one leaf's bytes.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(entry).finalize().into()
}

/// Hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The right edge of a growing tree: roots of its complete subtrees, largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a stored frontier; `None` when that size has another number of subtrees.
    pub fn from_parts(size: u64, subtrees: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()) == Ok(subtrees.len()))
            .then_some(Self { size, subtrees })
    }

    /// The size and the subtrees' roots, to be stored.
    pub fn to_parts(&self) -> (u64, Vec<Hash>) {
        (self.size, self.subtrees.clone())
    }

    /// Adds the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Root over all leaves.
    pub fn root(&self) -> Hash {
        let mut smaller_first = self.subtrees.iter().rev().copied();
        let Some(last) = smaller_first.next() else {
            return empty_root();
        };
        smaller_first.fold(last, |right, left| node_hash(&left, &right))
    }
}

/// Where the hashes of a tree come from.
pub trait Nodes {
    /// The root of the complete subtree over leaves `index << height` to `(index + 1) << height`;
    /// `None` where it can't be had.
    fn node(&self, height: u32, index: u64) -> Option<Hash>;
}

/// The nodes over leaf hashes that are all at hand.
pub struct Leaves<'a>(&'a [Hash]);

impl Nodes for Leaves<'_> {
    fn node(&self, height: u32, index: u64) -> Option<Hash> {
        let from = usize::try_from(index.checked_mul(1_u64.checked_shl(height)?)?).ok()?;
        let to = from.checked_add(1_usize.checked_shl(height)?)?;
        let mut frontier = Frontier::new();
        for leaf in self.0.get(from..to)? {
            frontier.push(*leaf);
        }
        Some(frontier.root())
    }
}

/// The nodes over the leaf hashes of a slice.
pub const fn in_slice(leaves: &[Hash]) -> Leaves<'_> {
    Leaves(leaves)
}

/// Root of the leaves in `from..to` (RFC 6962, 2.1), where `from` is a multiple of the greatest
/// power of two in `to - from`; `None` where a node can't be had.
fn range_root(nodes: &impl Nodes, from: u64, to: u64) -> Option<Hash> {
    let mut parts = Vec::new();
    let mut at = from;
    while at < to {
        let height = (to - at).ilog2().min(at.trailing_zeros());
        parts.push(nodes.node(height, at >> height)?);
        at += 1 << height;
    }
    let mut smaller_first = parts.into_iter().rev();
    let Some(last) = smaller_first.next() else { return Some(empty_root()) };
    Some(smaller_first.fold(last, |right, left| node_hash(&left, &right)))
}

/// Root of the first `size` leaves.
pub fn root_of(nodes: &impl Nodes, size: u64) -> Option<Hash> {
    range_root(nodes, 0, size)
}

/// The largest power of two below `size`; `size` is at least 2.
const fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// Proof that leaf `index` is in the tree of the first `size` leaves (RFC 6962, 2.1.1).
pub fn prove_inclusion(nodes: &impl Nodes, index: u64, size: u64) -> Option<Vec<Hash>> {
    if index >= size {
        return None;
    }
    let mut proof = Vec::new();
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range_root(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range_root(nodes, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Whether `proof` shows leaf `index` in the tree of that size and root (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Proof that the tree of the first `old` leaves is a beginning of that of `new` (RFC 6962, 2.1.2).
/// Empty where either is trivial (`old` is 0 or `new`).
pub fn prove_consistency(nodes: &impl Nodes, old: u64, new: u64) -> Option<Vec<Hash>> {
    if old > new {
        return None;
    }
    if old == 0 || old == new {
        return Some(Vec::new());
    }
    let mut proof = Vec::new();
    let (mut from, mut to, mut whole) = (0, new, true);
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(range_root(nodes, middle, to)?);
            to = middle;
        } else {
            proof.push(range_root(nodes, from, middle)?);
            from = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_root(nodes, from, to)?);
    }
    proof.reverse();
    Some(proof)
}

/// Whether `proof` shows that the new tree only added to the old one (RFC 9162, 2.1.4.2).
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        match proof.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return false,
        }
    };
    let shared = (old - 1).trailing_ones();
    let (mut at, mut last) = ((old - 1) >> shared, (new - 1) >> shared);
    let (mut old_hash, mut new_hash) = (first, first);
    for step in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(step, &old_hash);
            new_hash = node_hash(step, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests;
