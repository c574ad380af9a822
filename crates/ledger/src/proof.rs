//! C2SP tlog-proof: one entry's inclusion proof, with the checkpoint that it leads to.
//!
//! Promise: reading takes the whole text or refuses it. Whether the proof holds is
//! [`crate::tree::verify_inclusion`]'s to say, against the root of a checkpoint that was opened with
//! the log's key.
//!
//! Limits: [`HASHES_MAX`]; no `extra` line is written, and one that is read is passed over.

use base64ct::{Base64, Encoding as _};

use crate::Hash;

/// Most hashes of a proof: the height of the largest tree.
pub const HASHES_MAX: usize = 63;

const HEAD: &str = "c2sp.org/tlog-proof@v1";

/// A proof as it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Index of the entry.
    pub index: u64,
    /// From the leaf's sibling up.
    pub hashes: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

/// Why a text is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a tlog-proof: {0}")]
pub struct ProofError(&'static str);

impl Proof {
    /// The text.
    pub fn write(&self) -> String {
        let mut text = format!("{HEAD}\nindex {}\n", self.index);
        for hash in &self.hashes {
            text.push_str(&Base64::encode_string(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads the text.
    pub fn read(text: &str) -> Result<Self, ProofError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofError("no empty line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEAD) {
            return Err(ProofError("another first line"));
        }
        lines.next_if(|line| line.starts_with("extra "));
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(decimal).ok_or(ProofError("no index"))?;
        let hashes = lines.map(read_hash).collect::<Option<Vec<_>>>();
        let hashes = hashes.ok_or(ProofError("a line is no hash"))?;
        if hashes.len() > HASHES_MAX {
            return Err(ProofError("more than 63 hashes"));
        }
        Ok(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }
}

/// A number in plain decimal, without leading zeros.
pub fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// A hash in base64.
pub fn read_hash(line: &str) -> Option<Hash> {
    Base64::decode_vec(line).ok()?.try_into().ok()
}

/// A hash in base64.
pub fn write_hash(hash: &Hash) -> String {
    Base64::encode_string(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_reads_as_written_and_nothing_else_is_one() {
        let checkpoint = "log.example\n2\nAAAA\n\n\u{2014} log.example AAAA\n".to_owned();
        for hashes in [vec![], vec![[1; 32], [2; 32]]] {
            let proof = Proof { index: 7, hashes, checkpoint: checkpoint.clone() };
            let text = proof.write();
            assert_eq!(Proof::read(&text), Ok(proof.clone()));
            let extra = text.replacen("\nindex", "\nextra AAAA\nindex", 1);
            assert_eq!(Proof::read(&extra), Ok(proof));
            for wrong in [
                text.replacen("@v1", "@v2", 1),
                text.replacen("index 7", "index 07", 1),
                text.replacen("index 7", "index", 1),
                text.replacen("index 7\n", "index 7\nAAAA\n", 1),
                format!("{HEAD}\nindex 7\n"),
            ] {
                assert!(Proof::read(&wrong).is_err(), "{wrong}");
            }
        }
    }
}
