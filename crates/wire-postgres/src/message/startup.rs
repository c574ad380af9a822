//! The first packets of a connection: they have a length and a code, but no kind byte.

use nom::IResult;
use nom::Parser as _;
use nom::bytes::complete::tag;
use nom::multi::many0;
use nom::sequence::{pair, terminated};
use tidegate_wire::Cursor;

use super::{Malformed, c_string, whole};

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// Major version in the high half of the code.
const PROTOCOL_MAJOR: u32 = 3;

/// The first byte of a TLS record of type handshake (RFC 8446, section 5.1).
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// A first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Startup<'a> {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    GssEnc,
    /// CancelRequest.
    Cancel { backend_pid: u32 },
    /// StartupMessage, any minor version of protocol 3: names and values in order.
    Message(Vec<(&'a [u8], &'a [u8])>),
    /// Any other version.
    OtherVersion { major: u32, minor: u32 },
}

/// Length of the packet at the front, once its four bytes are there.
pub(crate) fn length(bytes: &[u8]) -> Option<i32> {
    Cursor::new(bytes).i32().ok()
}

/// Reads a whole packet.
pub(crate) fn packet(bytes: &[u8]) -> Result<Startup<'_>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    cursor.i32().map_err(|_| Malformed)?;
    let code = cursor.u32().map_err(|_| Malformed)?;
    let body = cursor.rest();
    match code {
        SSL_REQUEST if body.is_empty() => Ok(Startup::Ssl),
        GSSENC_REQUEST if body.is_empty() => Ok(Startup::GssEnc),
        // The key has 4 bytes in protocol 3.0, up to 256 in 3.2; it stays opaque.
        CANCEL_REQUEST if (8..=260).contains(&body.len()) => {
            cursor.u32().map(|backend_pid| Startup::Cancel { backend_pid }).map_err(|_| Malformed)
        }
        SSL_REQUEST | GSSENC_REQUEST | CANCEL_REQUEST => Err(Malformed),
        _ if code >> 16 == PROTOCOL_MAJOR => whole(parameters, body).map(Startup::Message),
        _ => Ok(Startup::OtherVersion { major: code >> 16, minor: code & 0xffff }),
    }
}

type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

fn parameters(input: &[u8]) -> IResult<&[u8], Pairs<'_>> {
    // An empty name is the end mark, so a name must have a first byte.
    let name = nom::combinator::verify(c_string, |name: &[u8]| !name.is_empty());
    terminated(many0(pair(name, c_string)), tag(&b"\0"[..])).parse(input)
}

/// Whether a value of `replication` asks for a walsender. What is neither true nor false is taken
/// for true: the server says no to it anyway.
pub(crate) fn asks_replication(value: &[u8]) -> bool {
    // `parse_bool` takes any unique beginning, in any case.
    let lower = value.to_ascii_lowercase();
    let begins = |word: &[u8]| !lower.is_empty() && word.starts_with(&lower);
    let off = lower.len() >= 2 && b"off".starts_with(&lower);
    !(begins(b"false") || begins(b"no") || off || lower == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(code: u32, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 8).unwrap();
        [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn packets_read_as_the_manual_has_them() {
        for (bytes, expected) in [
            (built(SSL_REQUEST, b""), Ok(Startup::Ssl)),
            (built(GSSENC_REQUEST, b""), Ok(Startup::GssEnc)),
            (built(SSL_REQUEST, b"x"), Err(Malformed)),
            (built(CANCEL_REQUEST, b"\0\0\0\x07keys"), Ok(Startup::Cancel { backend_pid: 7 })),
            (built(CANCEL_REQUEST, b"\0\0\0\x07"), Err(Malformed)),
            (built(196_608, b"user\0u\0\0"), Ok(Startup::Message(vec![(b"user", b"u")]))),
            (built(196_610, b"\0"), Ok(Startup::Message(vec![]))),
            (built(196_608, b"user\0u\0"), Err(Malformed)),
            (built(196_608, b"user\0u\0\0more"), Err(Malformed)),
            (built(131_072, b""), Ok(Startup::OtherVersion { major: 2, minor: 0 })),
        ] {
            assert_eq!(packet(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn replication_reads_as_the_server_reads_it() {
        for (value, expected) in [
            ("database", true),
            ("on", true),
            ("0", false),
            ("OFF", false),
            ("f", false),
            ("o", true),
        ] {
            assert_eq!(asks_replication(value.as_bytes()), expected, "{value}");
        }
    }
}
