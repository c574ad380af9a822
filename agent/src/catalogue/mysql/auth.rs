//! What a client says to prove that it knows the password.
//!
//! Methods: `mysql_native_password`, `caching_sha2_password`, `client_ed25519` (MariaDB). A password
//! leaves in clear text under TLS only. Without TLS, `caching_sha2_password` may ask the server for its
//! RSA key: that key is taken on trust, as the target's owner has chosen not to verify the server.

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use rsa::pkcs8::DecodePublicKey as _;
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, RsaPublicKey};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::MysqlError;

/// Bytes of a scramble that count; a zero byte may follow.
pub const SCRAMBLE_BYTES: usize = 20;

/// Bytes of MariaDB's scramble for Ed25519.
const ED25519_SCRAMBLE_BYTES: usize = 32;

/// A method of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `mysql_native_password`.
    Native,
    /// `caching_sha2_password`.
    CachingSha2,
    /// `client_ed25519`.
    Ed25519,
}

impl Method {
    /// By the name that servers use.
    pub fn named(name: &[u8]) -> Result<Self, MysqlError> {
        match name {
            b"mysql_native_password" => Ok(Self::Native),
            b"caching_sha2_password" => Ok(Self::CachingSha2),
            b"client_ed25519" => Ok(Self::Ed25519),
            _ => Err(MysqlError::Method(String::from_utf8_lossy(name).into_owned())),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Ed25519 => "client_ed25519",
        }
    }

    /// The answer to a scramble.
    pub fn answer(self, password: &[u8], scramble: &[u8]) -> Result<Vec<u8>, MysqlError> {
        let cut = |bytes: usize| {
            scramble.get(..bytes).ok_or(MysqlError::Form("a scramble that is too short"))
        };
        match self {
            // An empty password is no proof.
            Self::Native | Self::CachingSha2 if password.is_empty() => Ok(Vec::new()),
            Self::Native => Ok(native(password, cut(SCRAMBLE_BYTES)?)),
            Self::CachingSha2 => Ok(caching_sha2(password, cut(SCRAMBLE_BYTES)?)),
            Self::Ed25519 => Ok(ed25519(password, cut(ED25519_SCRAMBLE_BYTES)?)),
        }
    }
}

/// SHA1(password) xor SHA1(scramble, SHA1(SHA1(password))).
fn native(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    xor(&once, &Sha1::new().chain_update(scramble).chain_update(twice).finalize())
}

/// SHA256(password) xor SHA256(SHA256(SHA256(password)), scramble).
fn caching_sha2(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    xor(&once, &Sha256::new().chain_update(twice).chain_update(scramble).finalize())
}

/// A signature with a key whose expanded form is SHA512(password).
fn ed25519(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let key = ExpandedSecretKey::from_bytes(&Sha512::digest(password).into());
    let public = VerifyingKey::from(&key);
    raw_sign::<Sha512>(&key, scramble, &public).to_bytes().to_vec()
}

/// The password for a server that has shown its RSA key: with its zero byte, scrambled, encrypted
/// (OAEP, SHA-1).
pub fn encrypted(password: &[u8], scramble: &[u8], pem: &[u8]) -> Result<Vec<u8>, MysqlError> {
    let wrong = MysqlError::Form("an RSA key that can't be read");
    let pem = std::str::from_utf8(pem).map_err(|_| MysqlError::Form("a key that is no text"))?;
    let key = RsaPublicKey::from_public_key_pem(pem.trim()).map_err(|_| wrong)?;
    let scramble =
        scramble.get(..SCRAMBLE_BYTES).ok_or(MysqlError::Form("a scramble that is too short"))?;
    let plain = password.iter().chain([&0]).zip(scramble.iter().cycle());
    let plain: Vec<u8> = plain.map(|(byte, mask)| byte ^ mask).collect();
    key.encrypt(&mut UnwrapErr(getrandom::SysRng), Oaep::<Sha1>::new(), &plain)
        .map_err(|_| MysqlError::Form("an RSA key too short for this password"))
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

#[cfg(test)]
mod tests {
    use rsa::RsaPrivateKey;
    use rsa::pkcs8::{EncodePublicKey as _, LineEnding};

    use super::*;

    #[test]
    fn a_server_that_holds_the_double_hash_finds_the_single_one() {
        let scramble: Vec<u8> = (1..=20).collect();
        let mut with_zero = scramble.clone();
        with_zero.push(0);
        let native = Method::Native.answer(b"secret", &with_zero).unwrap();
        let stored = Sha1::digest(Sha1::digest(b"secret"));
        let mask = Sha1::new().chain_update(&scramble).chain_update(stored).finalize();
        assert_eq!(Sha1::digest(xor(&native, &mask)), stored);
        let sha2 = Method::CachingSha2.answer(b"secret", &with_zero).unwrap();
        let stored = Sha256::digest(Sha256::digest(b"secret"));
        let mask = Sha256::new().chain_update(stored).chain_update(&scramble).finalize();
        assert_eq!(Sha256::digest(xor(&sha2, &mask)), stored);
        assert_eq!(Method::Native.answer(b"", &scramble).unwrap(), b"");
        assert!(Method::Native.answer(b"secret", &scramble[..19]).is_err());
        assert!(Method::named(b"mysql_old_password").is_err());
    }

    #[test]
    fn the_servers_key_opens_what_was_encrypted_with_it() {
        let private = RsaPrivateKey::new(&mut UnwrapErr(getrandom::SysRng), 1024).unwrap();
        let pem = private.to_public_key().to_public_key_pem(LineEnding::default()).unwrap();
        let scramble: Vec<u8> = (1..=21).collect();
        let long = b"a password that is longer than a scramble";
        let sealed = encrypted(long, &scramble, pem.as_bytes()).unwrap();
        let opened = private.decrypt(Oaep::<Sha1>::new(), &sealed).unwrap();
        let plain: Vec<u8> =
            opened.iter().zip(scramble[..20].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(plain, [&long[..], b"\0"].concat());
        assert!(encrypted(b"x", &scramble, b"no key").is_err());
    }
}
