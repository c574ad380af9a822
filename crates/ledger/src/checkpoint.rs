//! A signed tree head as C2SP tlog-checkpoint in a C2SP signed-note, checked with a vkey.
//!
//! Promise: [`open`] returns a checkpoint only when the named key signed exactly these bytes.
//! Signatures by keys that the reader does not know (witnesses) are kept out of the way, as the
//! format asks.
//!
//! Limits: [`NOTE_BYTES_MAX`], [`SIGNATURES_MAX`]; Ed25519 (type 1) only; extension lines are
//! read over.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};

use crate::{Hash, SigningKey, signing};

/// Longest note that is read, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signature lines that are read.
pub const SIGNATURES_MAX: usize = 100;

const ED25519: u8 = 1;

/// A tree head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; a scheme-less URL.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
}

/// Why a note, key or name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The name can't stand in a note.
    #[error("{0:?} can't be the name of a log: it is empty, or has white space or a '+'")]
    Name(String),
    /// Not a verifier key.
    #[error("not a verifier key (name+hash+key): {0}")]
    Key(&'static str),
    /// Not a signed note.
    #[error("not a signed note: {0}")]
    Note(&'static str),
    /// The note is well formed, but its text is no checkpoint.
    #[error("not a checkpoint: {0}")]
    Body(&'static str),
    /// Nothing in it is signed by the key.
    #[error("no signature of {0}")]
    NotSigned(String),
    /// A signature in the key's name is wrong.
    #[error("the signature of {0} is not over this text")]
    BadSignature(String),
    /// It is another log's.
    #[error("a checkpoint of {got:?}, and the key is that of {expected:?}")]
    Origin {
        /// The key's name.
        expected: String,
        /// The checkpoint's first line.
        got: String,
    },
}

/// A log's public key, with the name that it signs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: [u8; 32],
}

impl VerifierKey {
    /// A key of that name.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, CheckpointError> {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
            return Err(CheckpointError::Name(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Ed25519 public key.
    pub const fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The four bytes that name the key in a signature line.
    pub fn key_hash(&self) -> [u8; 4] {
        let hash: Hash = Sha256::new_with_prefix(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.key)
            .finalize()
            .into();
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = Base64::encode_string(&[[ED25519].as_slice(), &self.key].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.key_hash()))
    }
}

impl FromStr for VerifierKey {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let wrong = CheckpointError::Key;
        let (name, rest) = text.trim().split_once('+').ok_or(wrong("no '+'"))?;
        let (hash, key) = rest.split_once('+').ok_or(wrong("no second '+'"))?;
        let key = Base64::decode_vec(key).map_err(|_| wrong("the key is not base64"))?;
        let key = match key.split_first() {
            Some((&ED25519, key)) => key.try_into().map_err(|_| wrong("not 32 bytes of key"))?,
            _ => return Err(wrong("not an Ed25519 key")),
        };
        let key = Self::new(name, key)?;
        if hash != hex::encode(key.key_hash()) {
            return Err(wrong("its hash is not that of its name and key"));
        }
        Ok(key)
    }
}

/// Makes the signed note; the key signs under the log's origin.
pub fn sign(key: &SigningKey, checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let verifier = VerifierKey::new(&checkpoint.origin, key.verifying_key().to_bytes())?;
    let root = Base64::encode_string(&checkpoint.root);
    let text = format!("{}\n{}\n{root}\n", checkpoint.origin, checkpoint.size);
    let signature = signing::sign(key, b"", text.as_bytes());
    let line = Base64::encode_string(&[verifier.key_hash().as_slice(), &signature].concat());
    Ok(format!("{text}\n\u{2014} {} {line}\n", verifier.name))
}

/// Checks a signed note with the log's key, and reads the checkpoint in it.
pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
    let text = verified_text(note, key)?;
    let checkpoint = parse(text)?;
    if checkpoint.origin != key.name {
        return Err(CheckpointError::Origin { expected: key.name.clone(), got: checkpoint.origin });
    }
    Ok(checkpoint)
}

/// The text of a note that `key` signed, with its last newline.
fn verified_text<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str, CheckpointError> {
    let wrong = CheckpointError::Note;
    if note.len() > NOTE_BYTES_MAX {
        return Err(wrong("longer than 64 KiB"));
    }
    if note.contains(|c: char| c < ' ' && c != '\n') {
        return Err(wrong("it has control characters"));
    }
    let end = note.rfind("\n\n").ok_or(wrong("no empty line before signatures"))?;
    let (text, signatures) = note.split_at_checked(end + 1).ok_or(wrong("cut"))?;
    let signatures = signatures.strip_prefix('\n').ok_or(wrong("cut"))?;
    let signatures = signatures.strip_suffix('\n').ok_or(wrong("no newline at the end"))?;
    let mut signed = false;
    for (count, line) in signatures.split('\n').enumerate() {
        if count >= SIGNATURES_MAX {
            return Err(wrong("too many signatures"));
        }
        let line = line.strip_prefix("\u{2014} ").ok_or(wrong("a line is no signature"))?;
        let (name, signature) = line.split_once(' ').ok_or(wrong("a signature without name"))?;
        let signature =
            Base64::decode_vec(signature).map_err(|_| wrong("a signature is not base64"))?;
        let (hash, signature) =
            signature.split_first_chunk::<4>().ok_or(wrong("a signature is too short"))?;
        if name != key.name || *hash != key.key_hash() {
            continue;
        }
        signing::verify(&key.key, b"", text.as_bytes(), signature)
            .map_err(|_| CheckpointError::BadSignature(key.name.clone()))?;
        signed = true;
    }
    if signed { Ok(text) } else { Err(CheckpointError::NotSigned(key.name.clone())) }
}

fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
    let wrong = CheckpointError::Body;
    let mut lines = text.split('\n');
    let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or(wrong("no origin"))?;
    let size_text = lines.next().ok_or(wrong("no size"))?;
    let size: u64 = size_text.parse().map_err(|_| wrong("the size is no number"))?;
    if size.to_string() != size_text {
        return Err(wrong("the size is not in plain decimal"));
    }
    let root = Base64::decode_vec(lines.next().ok_or(wrong("no root"))?)
        .map_err(|_| wrong("the root is not base64"))?;
    let root = root.try_into().map_err(|_| wrong("the root is not 32 bytes"))?;
    Ok(Checkpoint { origin: origin.to_owned(), size, root })
}

#[cfg(test)]
mod tests;
