//! What a client says of itself: the handshake response and COM_CHANGE_USER.
//!
//! Promise: the authentication data is skipped, and never becomes part of what is recorded.

use super::{Malformed, Reader};
use crate::capability::{
    CLIENT_MYSQL, CONNECT_ATTRS, CONNECT_WITH_DB, PLUGIN_AUTH, PLUGIN_AUTH_LENENC, PROTOCOL_41,
    SECURE_CONNECTION, SSL, ZSTD, halves,
};
use crate::config::ATTRIBUTES_MAX;

/// Bytes of an SSLRequest, and of the fixed part of a handshake response.
pub(crate) const FIXED_BYTES: usize = 32;

/// A connection attribute: its name and value.
pub(crate) type Attribute<'a> = (&'a [u8], &'a [u8]);

/// What a client says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    /// Its flags; MariaDB's in the upper half.
    pub capabilities: u64,
    /// Its collation.
    pub collation: u16,
    /// Its user.
    pub user: &'a [u8],
    /// Its database; empty for none.
    pub database: &'a [u8],
    /// Its authentication plugin.
    pub plugin: &'a [u8],
    /// Its connection attributes.
    pub attributes: Vec<Attribute<'a>>,
    /// How hard it wants zstd to pack.
    pub zstd_level: Option<u8>,
}

/// The first packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum First<'a> {
    /// SSLRequest, with its flags.
    Ssl(u64),
    /// The handshake response.
    Response(Response<'a>),
    /// Of a protocol before 4.1.
    Old,
}

/// Reads a client's first packet, or the first under TLS.
pub(crate) fn first(payload: &[u8], server: u64) -> Result<First<'_>, Malformed> {
    let mut reader = Reader::new(payload);
    let low = u64::from(reader.u16()?);
    if low & PROTOCOL_41 == 0 {
        return Ok(First::Old);
    }
    let high = u64::from(reader.u16()?);
    reader.u32()?;
    let collation = u16::from(reader.u8()?);
    reader.take(19)?;
    let extended = u64::from(reader.u32()?);
    let flags = low | high << 16;
    let is_mariadb = (flags | server) & CLIENT_MYSQL == 0;
    let capabilities = if is_mariadb { flags | extended << 32 } else { flags };
    if payload.len() == FIXED_BYTES {
        return if flags & SSL == 0 { Err(Malformed) } else { Ok(First::Ssl(capabilities)) };
    }
    let user = reader.c_string()?;
    if flags & PLUGIN_AUTH_LENENC != 0 {
        reader.lenenc_string()?;
    } else if flags & SECURE_CONNECTION != 0 {
        let length = reader.u8()?;
        reader.take(usize::from(length))?;
    } else {
        reader.c_string()?;
    }
    let database = if flags & CONNECT_WITH_DB == 0 { b"" } else { last_string(&mut reader) };
    let plugin = if flags & PLUGIN_AUTH == 0 { b"" } else { last_string(&mut reader) };
    let attributes = if flags & CONNECT_ATTRS == 0 { Vec::new() } else { attributes(reader)? };
    // The last byte of all (manual, "Protocol::HandshakeResponse41").
    let zstd_level = payload.last().copied().filter(|_| flags & ZSTD != 0);
    let read = Response { capabilities, collation, user, database, plugin, attributes, zstd_level };
    Ok(First::Response(read))
}

/// Reads the payload of COM_CHANGE_USER behind its command byte.
pub(crate) fn change_user(body: &[u8], capabilities: u64) -> Result<Response<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let user = reader.c_string()?;
    let length = reader.u8()?;
    reader.take(usize::from(length))?;
    let database = reader.c_string()?;
    let collation = if reader.rest().len() >= 2 { reader.u16()? } else { 0 };
    let named = capabilities & PLUGIN_AUTH != 0 && !reader.is_empty();
    let plugin = if named { last_string(&mut reader) } else { b"" };
    let with_attributes = capabilities & CONNECT_ATTRS != 0 && !reader.is_empty();
    let attributes = if with_attributes { attributes(reader)? } else { Vec::new() };
    let zstd_level = None;
    Ok(Response { capabilities, collation, user, database, plugin, attributes, zstd_level })
}

/// A string up to its zero byte, or up to the end: some clients leave the last zero out.
fn last_string<'a>(reader: &mut Reader<'a>) -> &'a [u8] {
    reader.c_string().unwrap_or_else(|_| {
        let rest = reader.rest();
        *reader = Reader::new(&[]);
        rest
    })
}

fn attributes(mut reader: Reader<'_>) -> Result<Vec<Attribute<'_>>, Malformed> {
    let mut found = Vec::new();
    if reader.is_empty() {
        return Ok(found);
    }
    let mut pairs = Reader::new(reader.lenenc_string()?);
    while !pairs.is_empty() {
        let pair = (pairs.lenenc_string()?, pairs.lenenc_string()?);
        if found.len() < ATTRIBUTES_MAX {
            found.push(pair);
        }
    }
    Ok(found)
}

/// The same first packet with these flags.
pub(crate) fn with_capabilities(payload: &[u8], capabilities: u64, is_mariadb: bool) -> Vec<u8> {
    let mut changed = payload.to_vec();
    let (low, high, mariadb) = halves(capabilities);
    if let Some(place) = changed.get_mut(..4) {
        place.copy_from_slice(&[low, high].concat());
    }
    if let Some(place) = changed.get_mut(28..FIXED_BYTES).filter(|_| is_mariadb) {
        place.copy_from_slice(&mariadb);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_in_each_layout() {
        let fixed = |flags: u64| {
            let [a, b, c, d, ..] = flags.to_le_bytes();
            [&[a, b, c, d, 0, 0, 0, 1, 45][..], &[0; 23]].concat()
        };
        let base = PROTOCOL_41 | CLIENT_MYSQL;
        for (more, tail, database, plugin, pairs) in [
            (SECURE_CONNECTION, &b"app\0\x03abc"[..], "", "", 0),
            (SECURE_CONNECTION | CONNECT_WITH_DB, b"app\0\x03abcbank\0", "bank", "", 0),
            (PLUGIN_AUTH_LENENC | PLUGIN_AUTH, b"app\0\xfc\x03\0abcx_plugin\0", "", "x_plugin", 0),
            (SECURE_CONNECTION | PLUGIN_AUTH, b"app\0\x00no_zero", "", "no_zero", 0),
            (SECURE_CONNECTION | CONNECT_ATTRS, b"app\0\0\x06\x01a\x03bcd", "", "", 1),
            (0, b"app\0old\0", "", "", 0),
        ] {
            let payload = [fixed(base | more), tail.to_vec()].concat();
            let Ok(First::Response(read)) = first(&payload, CLIENT_MYSQL) else {
                panic!("{tail:?} does not read");
            };
            assert_eq!((read.user, read.collation), (&b"app"[..], 45));
            assert_eq!((read.database, read.plugin), (database.as_bytes(), plugin.as_bytes()));
            assert_eq!(read.attributes.len(), pairs, "{tail:?}");
        }
        assert_eq!(first(&fixed(base | SSL), CLIENT_MYSQL), Ok(First::Ssl(base | SSL)));
        assert_eq!(first(&fixed(base), CLIENT_MYSQL), Err(Malformed));
        assert_eq!(first(b"\x05\0\0\0\0", CLIENT_MYSQL), Ok(First::Old));
        let cut = [fixed(base | SECURE_CONNECTION), b"app\0\x09abc".to_vec()].concat();
        assert_eq!(first(&cut, CLIENT_MYSQL), Err(Malformed));
    }

    #[test]
    fn a_change_of_user_is_read() {
        let read = change_user(b"u\0\x02xxdb\0\x2d\0plug\0", PLUGIN_AUTH).unwrap();
        assert_eq!((read.user, read.database, read.plugin), (&b"u"[..], &b"db"[..], &b"plug"[..]));
        assert_eq!(read.collation, 45);
        assert_eq!(change_user(b"u\0\x00\0", 0).unwrap().database, b"");
        assert_eq!(change_user(b"u\0\x09", 0), Err(Malformed));
    }
}
