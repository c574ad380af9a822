//! The tree against RFC 6962 and against `ct-merkle`.

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use proptest::prelude::*;
use sha2::Sha256;

use super::*;

type Oracle = MemoryBackedTree<Sha256, Vec<u8>>;

fn leaves(size: u64) -> (Vec<Hash>, Oracle) {
    let mut oracle = Oracle::new();
    let mut hashes = Vec::new();
    for index in 0..size {
        let entry = format!("entry {index}").into_bytes();
        hashes.push(leaf_hash(&entry));
        oracle.push(entry);
    }
    (hashes, oracle)
}

fn root_hash(root: Hash, size: u64) -> RootHash<Sha256> {
    RootHash::new(root.into(), size)
}

#[test]
fn roots_are_those_of_another_implementation_at_every_size() {
    let mut frontier = Frontier::new();
    let mut oracle = Oracle::new();
    for index in 0..300_u64 {
        assert_eq!(frontier.root()[..], oracle.root().as_bytes()[..], "at {index}");
        let entry = index.to_le_bytes().to_vec();
        frontier.push(leaf_hash(&entry));
        oracle.push(entry);
        let (size, parts) = frontier.to_parts();
        assert_eq!(Frontier::from_parts(size, parts), Some(frontier.clone()));
    }
    assert_eq!(Frontier::from_parts(3, vec![[0; 32]]), None);
}

proptest! {
    #[test]
    fn inclusion_proofs_agree(size in 1_u64..200, at in 0_u64..200, twist in any::<u8>()) {
        let index = at % size;
        let (hashes, oracle) = leaves(size);
        let root = root_of(&in_slice(&hashes), size).unwrap();
        let proof = prove_inclusion(&in_slice(&hashes), index, size).unwrap();
        let theirs = oracle.prove_inclusion(usize::try_from(index).unwrap());
        prop_assert_eq!(proof.concat(), theirs.as_bytes());
        let leaf = hashes[usize::try_from(index).unwrap()];
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &root));
        let ours = InclusionProof::<Sha256>::try_from_bytes(proof.concat()).unwrap();
        let entry = format!("entry {index}").into_bytes();
        prop_assert!(root_hash(root, size).verify_inclusion(&entry, index, &ours).is_ok());

        prop_assert!(!verify_inclusion(&leaf, index, size, &proof, &[0; 32]));
        prop_assert!(!verify_inclusion(&[twist; 32], index, size, &proof, &root));
        prop_assert!(!verify_inclusion(&leaf, size, size, &proof, &root));
        let longer = [proof.as_slice(), &[[0; 32]]].concat();
        prop_assert!(!verify_inclusion(&leaf, index, size, &longer, &root));
        if !proof.is_empty() {
            let step = usize::from(twist) % proof.len();
            let mut changed = proof.clone();
            changed[step][0] ^= 1;
            prop_assert!(!verify_inclusion(&leaf, index, size, &changed, &root));
            prop_assert!(!verify_inclusion(&leaf, index, size, &proof[1..], &root));
        }
    }

    #[test]
    fn consistency_proofs_agree(new in 1_u64..200, at in 0_u64..200, twist in any::<u8>()) {
        let old = 1 + at % new;
        let (hashes, oracle) = leaves(new);
        let old_root = root_of(&in_slice(&hashes), old).unwrap();
        let new_root = root_of(&in_slice(&hashes), new).unwrap();
        let proof = prove_consistency(&in_slice(&hashes), old, new).unwrap();
        prop_assert!(verify_consistency(old, &old_root, new, &new_root, &proof));
        if old < new {
            let theirs = oracle.prove_consistency(usize::try_from(new - old).unwrap());
            prop_assert_eq!(proof.concat(), theirs.as_bytes());
            let ours = ConsistencyProof::<Sha256>::try_from_bytes(proof.concat()).unwrap();
            prop_assert!(
                root_hash(new_root, new)
                    .verify_consistency(&root_hash(old_root, old), &ours)
                    .is_ok()
            );
            prop_assert!(!verify_consistency(old, &new_root, new, &new_root, &proof));
            prop_assert!(!verify_consistency(old, &old_root, new, &old_root, &proof));
            let step = usize::from(twist) % proof.len();
            let mut changed = proof.clone();
            changed[step][0] ^= 1;
            prop_assert!(!verify_consistency(old, &old_root, new, &new_root, &changed));
        }
        prop_assert!(!verify_consistency(new + 1, &old_root, new, &new_root, &proof));
    }
}

#[test]
fn the_empty_tree_is_a_beginning_of_every_tree() {
    let (hashes, _) = leaves(5);
    let root = root_of(&in_slice(&hashes), 5).unwrap();
    assert_eq!(prove_consistency(&in_slice(&hashes), 0, 5), Some(Vec::new()));
    assert!(verify_consistency(0, &empty_root(), 5, &root, &[]));
    assert!(!verify_consistency(0, &root, 5, &root, &[]));
    assert_eq!(prove_consistency(&in_slice(&hashes), 6, 5), None);
    assert_eq!(prove_inclusion(&in_slice(&hashes), 5, 5), None);
}
