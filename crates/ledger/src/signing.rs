//! Ed25519 over a context prefix and a message (RFC 8032; `verify_strict` refuses weak keys and
//! signatures that more than one message could have).

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// Why a signature does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The public key is no point of the curve.
    #[error("the public key is not an Ed25519 key")]
    Key,
    /// The signature has another length, or was made by another key or over other bytes.
    #[error("the signature is not that key's over these bytes")]
    Mismatch,
}

pub(crate) fn sign(key: &SigningKey, context: &[u8], message: &[u8]) -> [u8; 64] {
    key.sign(&[context, message].concat()).to_bytes()
}

pub(crate) fn verify(
    key: &[u8; 32],
    context: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| SignatureError::Key)?;
    let signature = Signature::from_slice(signature).map_err(|_| SignatureError::Mismatch)?;
    key.verify_strict(&[context, message].concat(), &signature)
        .map_err(|_| SignatureError::Mismatch)
}
