//! The key pair with which MySQL's clients seal a password for the gate ([`PasswordKey`]).
//!
//! Promises: made anew by each run of the agent, held in memory alone, and never shown but for its public half. It is
//! made on a thread of its own; a session that needs it before it is there waits for it.
//!
//! Limits: opening takes no measures against somebody who measures its time; that would have to be a client on this host,
//! within this run, with a sealed password that it has read from another's loopback connection.

use std::sync::{Arc, OnceLock};

use rsa::pkcs8::{EncodePublicKey as _, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, RsaPrivateKey};
use tidegate_event::Protocol;
use tidegate_wire_mysql::PasswordKey;

use crate::config::{ServerTls, TargetConfig};

/// Size of the key, in bits: that of MySQL's own.
const KEY_BITS: usize = 2048;

/// The key pair, once it is made.
#[derive(Default)]
pub struct GateKey(OnceLock<Option<RsaPrivateKey>>);

impl GateKey {
    /// Begins to make one, where a target can need it: one that speaks MySQL with TLS to its server.
    pub fn for_targets(targets: &[TargetConfig]) -> Option<Arc<Self>> {
        let needs = |target: &TargetConfig| {
            target.protocol == Protocol::Mysql && target.tls.server != ServerTls::Off
        };
        targets.iter().any(needs).then(Self::begin)
    }

    /// Begins to make one.
    pub fn begin() -> Arc<Self> {
        let key = Arc::new(Self::default());
        let making = Arc::clone(&key);
        let started =
            std::thread::Builder::new().name("password-key".to_owned()).spawn(move || {
                let _ = making.pair();
            });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for the key of MySQL's passwords: made when needed");
        }
        key
    }

    fn pair(&self) -> Option<&RsaPrivateKey> {
        self.0.get_or_init(make).as_ref()
    }
}

fn make() -> Option<RsaPrivateKey> {
    let made = RsaPrivateKey::new(&mut UnwrapErr(getrandom::SysRng), KEY_BITS);
    made.inspect_err(|error| tracing::warn!(%error, "no key for MySQL's passwords")).ok()
}

impl PasswordKey for GateKey {
    fn public_pem(&self) -> Vec<u8> {
        let pair = self.pair().map(RsaPrivateKey::as_public_key);
        let pem = pair.and_then(|public| public.to_public_key_pem(LineEnding::LF).ok());
        pem.unwrap_or_default().into_bytes()
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.pair()?.decrypt(Oaep::<sha1::Sha1>::new(), sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    use rsa::RsaPublicKey;
    use rsa::pkcs8::DecodePublicKey as _;

    use super::*;

    #[test]
    fn what_is_sealed_with_the_public_key_opens() {
        let key = GateKey::begin();
        let pem = String::from_utf8(key.public_pem()).unwrap();
        let public = RsaPublicKey::from_public_key_pem(&pem).unwrap();
        let seal = |text: &[u8]| {
            let mut random = UnwrapErr(getrandom::SysRng);
            public.encrypt(&mut random, Oaep::<sha1::Sha1>::new(), text).unwrap()
        };
        let mut sealed = seal(b"a password");
        assert_eq!(key.open(&sealed).as_deref(), Some(&b"a password"[..]));
        sealed[7] ^= 1;
        assert_eq!(key.open(&sealed), None);
        assert_eq!(key.open(b"short"), None);
    }
}
