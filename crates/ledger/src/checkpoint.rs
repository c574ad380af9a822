//! A signed tree head as C2SP tlog-checkpoint in a C2SP signed-note, checked with a vkey.
//!
//! Promise: [`open`] returns a checkpoint only when the named key signed exactly these bytes.
//! Signatures by keys that the reader does not know (witnesses) are kept out of the way, as the
//! format asks.
//!
//! Limits: [`NOTE_BYTES_MAX`], [`SIGNATURES_MAX`]; Ed25519 (type 1) only; extension lines are
//! read over.

use base64ct::{Base64, Encoding as _};

pub use crate::note::{NOTE_BYTES_MAX, NamedKey, SIGNATURES_MAX};
use crate::{Hash, SigningKey, note, signing};

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
pub type VerifierKey = NamedKey<ED25519>;

/// Makes the signed note; the key signs under the log's origin.
pub fn sign(key: &SigningKey, checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let verifier = VerifierKey::new(&checkpoint.origin, key.verifying_key().to_bytes())?;
    let text = body(checkpoint);
    let signature = signing::sign(key, b"", text.as_bytes());
    let line = note::line(verifier.name(), verifier.key_hash(), &signature);
    Ok(format!("{text}\n{line}"))
}

/// The three lines that are signed.
fn body(checkpoint: &Checkpoint) -> String {
    let root = Base64::encode_string(&checkpoint.root);
    format!("{}\n{}\n{root}\n", checkpoint.origin, checkpoint.size)
}

/// Checks a signed note with the log's key, and reads the checkpoint in it.
pub fn open(note: &str, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
    let text = verified_text(note, key)?;
    let checkpoint = parse(text)?;
    if checkpoint.origin != key.name() {
        return Err(CheckpointError::Origin {
            expected: key.name().to_owned(),
            got: checkpoint.origin,
        });
    }
    Ok(checkpoint)
}

/// The text of a note that `key` signed, with its last newline.
fn verified_text<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str, CheckpointError> {
    let (text, lines) = note::split(note)?;
    let mut signed = false;
    for line in lines {
        if line.name != key.name() || line.key_hash != key.key_hash() {
            continue;
        }
        signing::verify(key.key(), b"", text.as_bytes(), &line.signature)
            .map_err(|_| CheckpointError::BadSignature(key.name().to_owned()))?;
        signed = true;
    }
    if signed { Ok(text) } else { Err(CheckpointError::NotSigned(key.name().to_owned())) }
}

/// Reads the checkpoint of a note, whoever signed it: for its origin, before a key is chosen.
pub fn read_unsigned(note: &str) -> Result<Checkpoint, CheckpointError> {
    parse(note::split(note)?.0)
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
