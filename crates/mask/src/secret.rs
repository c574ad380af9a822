//! A key for hashes and tokens.
//!
//! Promises: never printed, never serialised, zeroed when dropped. Cannot do: keep the caller's own
//! copy from staying in memory.

use zeroize::Zeroize as _;

/// 32 secret bytes.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret of these bytes, which are zeroed where they came from.
    pub fn new(bytes: &mut [u8; 32]) -> Self {
        let secret = Self(*bytes);
        bytes.zeroize();
        secret
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
