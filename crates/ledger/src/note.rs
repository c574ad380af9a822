//! C2SP signed-note: a text, an empty line, and lines of signatures; and the keys that make them.
//!
//! Promise: [`split`] takes a note apart and judges no signature; a line that is none is an error.
//!
//! Limits: [`NOTE_BYTES_MAX`], [`SIGNATURES_MAX`].

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};

use crate::Hash;
use crate::checkpoint::CheckpointError;

/// Longest note that is read, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signature lines that are read.
pub const SIGNATURES_MAX: usize = 100;

/// A signature line, unjudged.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) key_hash: [u8; 4],
    pub(crate) signature: Vec<u8>,
}

/// The text with its last newline, and the signature lines.
pub(crate) fn split(note: &str) -> Result<(&str, Vec<Line<'_>>), CheckpointError> {
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
    Ok((text, lines(signatures)?))
}

/// The lines of signatures alone, as a witness answers them.
pub(crate) fn lines(signatures: &str) -> Result<Vec<Line<'_>>, CheckpointError> {
    let wrong = CheckpointError::Note;
    let signatures = signatures.strip_suffix('\n').ok_or(wrong("no newline at the end"))?;
    let mut lines = Vec::new();
    for line in signatures.split('\n') {
        if lines.len() >= SIGNATURES_MAX {
            return Err(wrong("too many signatures"));
        }
        let line = line.strip_prefix("\u{2014} ").ok_or(wrong("a line is no signature"))?;
        let (name, signature) = line.split_once(' ').ok_or(wrong("a signature without name"))?;
        let signature =
            Base64::decode_vec(signature).map_err(|_| wrong("a signature is not base64"))?;
        let (hash, signature) =
            signature.split_first_chunk::<4>().ok_or(wrong("a signature is too short"))?;
        lines.push(Line { name, key_hash: *hash, signature: signature.to_vec() });
    }
    Ok(lines)
}

/// A public key of one kind of signature, with the name that it signs under; written as a vkey.
///
/// `KIND` is the signature type of C2SP signed-note: 1 for Ed25519, 4 for a timestamped cosignature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedKey<const KIND: u8> {
    name: String,
    key: [u8; 32],
}

impl<const KIND: u8> NamedKey<KIND> {
    /// A key of that name.
    ///
    /// # Errors
    ///
    /// The name can't stand in a note: it is empty, or has white space or a `+`.
    pub fn new(name: &str, key: [u8; 32]) -> Result<Self, CheckpointError> {
        check_name(name)?;
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
        key_hash(&self.name, KIND, &self.key)
    }
}

impl<const KIND: u8> fmt::Display for NamedKey<KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_vkey(&self.name, KIND, &self.key))
    }
}

impl<const KIND: u8> FromStr for NamedKey<KIND> {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (name, key) = read_vkey(text, KIND)?;
        Self::new(name, key)
    }
}

/// One signature line with its newline.
pub(crate) fn line(name: &str, key_hash: [u8; 4], signature: &[u8]) -> String {
    let signature = Base64::encode_string(&[key_hash.as_slice(), signature].concat());
    format!("\u{2014} {name} {signature}\n")
}

/// The four bytes that name a key in a signature line.
pub(crate) fn key_hash(name: &str, kind: u8, key: &[u8; 32]) -> [u8; 4] {
    let hash: Hash = Sha256::new_with_prefix(name)
        .chain_update([b'\n', kind])
        .chain_update(key)
        .finalize()
        .into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

/// A name that can stand in a note.
pub(crate) fn check_name(name: &str) -> Result<(), CheckpointError> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+') {
        return Err(CheckpointError::Name(name.to_owned()));
    }
    Ok(())
}

/// `name+hash+key`.
pub(crate) fn write_vkey(name: &str, kind: u8, key: &[u8; 32]) -> String {
    let text = Base64::encode_string(&[[kind].as_slice(), key].concat());
    format!("{name}+{}+{text}", hex::encode(key_hash(name, kind, key)))
}

/// Reads `name+hash+key` of that kind.
pub(crate) fn read_vkey(text: &str, kind: u8) -> Result<(&str, [u8; 32]), CheckpointError> {
    let wrong = CheckpointError::Key;
    let (name, rest) = text.trim().split_once('+').ok_or(wrong("no '+'"))?;
    let (hash, key) = rest.split_once('+').ok_or(wrong("no second '+'"))?;
    let key = Base64::decode_vec(key).map_err(|_| wrong("the key is not base64"))?;
    let key: [u8; 32] = match key.split_first() {
        Some((&found, key)) if found == kind => {
            key.try_into().map_err(|_| wrong("not 32 bytes of key"))?
        }
        _ => return Err(wrong("not an Ed25519 key of the kind that is needed here")),
    };
    check_name(name)?;
    if hash != hex::encode(key_hash(name, kind, &key)) {
        return Err(wrong("its hash is not that of its name and key"));
    }
    Ok((name, key))
}
