//! The server's greeting (manual, "Protocol::HandshakeV10"; MariaDB, "Initial handshake packet").
//!
//! Promise: of the greeting only the capability flags are changed; version, connection id, nonce, status
//! and plugin are the server's own.

use tidegate_sql::mysql::Server;

use super::{Malformed, Reader};
use crate::capability::{CLIENT_MYSQL, halves};

/// The only version that is spoken.
const PROTOCOL_VERSION: u8 = 10;

/// What of a greeting matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// Which server.
    pub server: Server,
    /// Its flags; MariaDB's in the upper half.
    pub capabilities: u64,
    /// Its default authentication plugin.
    pub plugin: Vec<u8>,
    /// What proofs are made with: 20 bytes.
    pub nonce: Vec<u8>,
    /// Where the flags stand.
    low_at: usize,
}

/// Reads a greeting.
pub(crate) fn read(payload: &[u8]) -> Result<Greeting, Malformed> {
    let mut reader = Reader::new(payload);
    if reader.u8()? != PROTOCOL_VERSION {
        return Err(Malformed);
    }
    let version = reader.c_string()?;
    reader.take(4)?;
    let mut nonce = reader.take(8)?.to_vec();
    reader.take(1)?;
    let low_at = payload.len() - reader.rest().len();
    let low = u64::from(reader.u16()?);
    reader.take(1 + 2)?;
    let high = u64::from(reader.u16()?);
    let nonce_bytes = usize::from(reader.u8()?);
    reader.take(6)?;
    let extended = u64::from(reader.u32()?);
    let flags = low | high << 16;
    let is_mariadb = flags & CLIENT_MYSQL == 0;
    let capabilities = if is_mariadb { flags | extended << 32 } else { flags };
    let rest = 13.max(nonce_bytes.saturating_sub(8)).min(reader.rest().len());
    let rest = reader.take(rest)?;
    nonce.extend_from_slice(rest.strip_suffix(&[0]).unwrap_or(rest));
    let plugin = reader.rest().split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let server = server(version, is_mariadb);
    Ok(Greeting { server, capabilities, plugin, nonce, low_at })
}

impl Greeting {
    /// The same greeting with these flags.
    pub fn with_capabilities(&self, payload: &[u8], capabilities: u64) -> Vec<u8> {
        let mut changed = payload.to_vec();
        let (low, high, mariadb) = halves(capabilities);
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = changed.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(self.low_at, &low);
        put(self.low_at + 5, &high);
        if self.capabilities & CLIENT_MYSQL == 0 {
            put(self.low_at + 14, &mariadb);
        }
        changed
    }
}

/// Which server that version is. MariaDB up to 10.11 puts `5.5.5-` before its own.
fn server(version: &[u8], extended: bool) -> Server {
    let text = String::from_utf8_lossy(version);
    let mariadb = extended || text.contains("MariaDB");
    let text = if mariadb { text.strip_prefix("5.5.5-").unwrap_or(&text) } else { &text };
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let (major, minor, patch) = (next(), next(), next());
    let version = match (major, minor, patch) {
        (Some(major @ ..100), Some(minor @ ..100), Some(patch @ ..100)) => {
            Some(major * 10_000 + minor * 100 + patch)
        }
        _ => None,
    };
    Server { mariadb, version }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::capability::{COMPRESS, PROTOCOL_41, SSL};

    pub(crate) fn greeting(version: &str, capabilities: u64) -> Vec<u8> {
        let (low, high, mariadb) = halves(capabilities);
        let head = [b"\x0a", version.as_bytes(), b"\0\x07\0\0\0abcdefgh\0", &low].concat();
        let tail = b"ijklmnopqrst\0mysql_native_password\0";
        [&head[..], &[45, 2, 0], &high, &[21, 0, 0, 0, 0, 0, 0], &mariadb, tail].concat()
    }

    #[test]
    fn only_the_flags_change() {
        for (version, is_mariadb, number) in [
            ("5.5.5-10.11.14-MariaDB-0+deb12u2-log", true, Some(101_114)),
            ("11.4.2-MariaDB", true, Some(110_402)),
            ("8.0.39", false, Some(80_039)),
            ("8.4.0-commercial", false, Some(80_400)),
            ("strange", false, None),
        ] {
            let first = if is_mariadb { 0 } else { CLIENT_MYSQL };
            let flags =
                first | PROTOCOL_41 | SSL | COMPRESS | if is_mariadb { 0xf << 32 } else { 0 };
            let payload = greeting(version, flags);
            let read = read(&payload).unwrap();
            assert_eq!(read.server, Server { mariadb: is_mariadb, version: number }, "{version}");
            assert_eq!(
                (read.capabilities, &read.plugin[..]),
                (flags, &b"mysql_native_password"[..])
            );
            assert_eq!(read.nonce, b"abcdefghijklmnopqrst");
            let kept = first | PROTOCOL_41;
            assert_eq!(
                read.with_capabilities(&payload, kept),
                greeting(version, kept),
                "{version}"
            );
        }
        assert_eq!(read(b"\x09old\0"), Err(Malformed));
        assert_eq!(read(b""), Err(Malformed));
    }
}
