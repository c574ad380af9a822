//! `caching_sha2_password` where the server wants the password itself, over TLS, and the client's leg, which never
//! leaves the host, has none: there a client seals its password with a public key that it asks for (manual,
//! "Caching_sha2_password information"). It gets the gate's own, and the server gets the password under its TLS.
//!
//! Promises: only where the server's leg has TLS, whose certificate the driver verifies. The password is opened to be
//! sent, in one call, and is no part of an operation, an outcome or an error; what it was opened into is overwritten.
//! A client that answers with the password as it is (some take loopback for safe) has it passed on.
//!
//! Cannot do: a client that was given the server's own public key as a file seals with that, and is told why it
//! can't log in. The other way round (TLS to the client, none to the server) is refused: the gate would have to trust a
//! key that anybody on the way could have put in the server's place.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_wire::Fault;

use super::login::Turn;
use super::{Machine, Phase, Step};
use crate::frame::{HEADER_BYTES, Header, packet};
use crate::{Authority, Exempt};

/// The client's request for the key.
const REQUEST: &[u8] = &[2];
/// First byte of the answer to it (AuthMoreData).
const MORE_DATA: u8 = 1;
/// Longest password, in bytes, with its zero byte: what a key of 2048 bits can seal.
const PASSWORD_BYTES_MAX: usize = 214;

/// The gate's own key pair, with which clients seal passwords.
pub trait PasswordKey: Send + Sync {
    /// The public key, as PEM.
    fn public_pem(&self) -> Vec<u8>;
    /// Opens what was sealed with it (RSA-OAEP with SHA-1); `None` where it was not.
    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// How far a login with the password itself has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Password {
    /// It is not asked for, or both legs are alike.
    #[default]
    Relayed,
    /// The server asked for it.
    Wanted,
    /// The client has the gate's key.
    Sealed,
}

impl<R: Clone> Machine<R> {
    /// The same with a key pair for clients whose leg has no TLS where the server's has.
    #[must_use]
    pub fn with_password_key(mut self, key: Arc<dyn PasswordKey>) -> Self {
        self.password_key = Some(key);
        self
    }

    /// Whether the gate can stand between a client without TLS and a server with it.
    pub(super) fn opens_passwords(&self) -> bool {
        self.password_key.is_some() && !self.client.under_tls
    }

    /// Takes the client's answer where the server wants the password itself.
    pub(super) fn password_packet(
        &mut self,
        header: Header,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        let answer = bytes.split_to(header.total());
        self.client.next_seq = header.seq.wrapping_add(1);
        let payload = answer.get(HEADER_BYTES..).unwrap_or_default();
        let (Phase::Login(login), Some(key)) = (&mut self.phase, &self.password_key) else {
            return Err(Fault::caller("there is no key for passwords"));
        };
        if login.password == Password::Wanted && payload == REQUEST {
            let seq = header.seq.wrapping_add(1);
            // These two packets are between client and gate alone.
            login.shift = login.shift.wrapping_add(2);
            login.turn = Turn::Client(seq.wrapping_add(1));
            login.password = Password::Sealed;
            let key = packet(seq, &[&[MORE_DATA], &key.public_pem()[..]].concat());
            self.client.next_seq = seq.wrapping_add(1);
            self.tell_client(key);
            return Ok(Step::More);
        }
        let seq = header.seq.wrapping_sub(login.shift);
        let to_server = match login.password {
            Password::Sealed => {
                let mut password = unsealed(key.as_ref(), payload, &login.nonce)?;
                let to_server = packet(seq, &password);
                password.fill(0);
                std::hint::black_box(&password);
                to_server
            }
            _ if is_password(payload) => packet(seq, payload),
            _ => {
                let what = "a password that is sealed with another key than the gate's";
                return Err(Fault::unsupported(what));
            }
        };
        login.turn = Turn::Server;
        login.password = Password::Relayed;
        self.tell_server(Authority::Exempt(Exempt::Handshake), to_server);
        Ok(Step::More)
    }
}

/// The password with its zero byte, and nothing else.
fn is_password(payload: &[u8]) -> bool {
    payload.len() <= PASSWORD_BYTES_MAX
        && payload.iter().position(|byte| *byte == 0).map(|at| at + 1) == Some(payload.len())
}

/// A sealed password, which was mixed with the nonce first.
fn unsealed(key: &dyn PasswordKey, sealed: &[u8], nonce: &[u8]) -> Result<Vec<u8>, Fault> {
    let wrong = || Fault::client("its sealed password does not open");
    let mut password = key.open(sealed).filter(|_| !nonce.is_empty()).ok_or_else(wrong)?;
    for (byte, mixed) in password.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mixed;
    }
    if is_password(&password) { Ok(password) } else { Err(wrong()) }
}

/// A nonce as servers send it, without the zero byte behind it.
pub(super) fn nonce(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data.strip_suffix(&[0]).unwrap_or(data))
}
