//! Proof of possession of the audit key at enrolment: a signature over the one-time token.

use ed25519_dalek::SigningKey;

use crate::signing;

const CONTEXT: &[u8] = b"tidegate/enrol/v1\0";

/// Signs the one-time token with the audit key.
pub fn prove(key: &SigningKey, token: &str) -> [u8; 64] {
    signing::sign(key, CONTEXT, token.as_bytes())
}

/// Whether the holder of `audit_key` signed this token.
pub fn verify(token: &str, proof: &[u8], audit_key: &[u8; 32]) -> bool {
    signing::verify(audit_key, CONTEXT, token.as_bytes(), proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_its_token_and_key_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key().to_bytes();
        let proof = prove(&key, "token");
        assert!(verify("token", &proof, &public));
        assert!(!verify("other", &proof, &public));
        assert!(!verify("token", &proof, &[1; 32]));
        assert!(!verify("token", &proof[..63], &public));
    }
}
