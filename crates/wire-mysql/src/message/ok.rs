//! OK and EOF packets, and what they say of the session (manual, "OK_Packet", "EOF_Packet").

use super::{Malformed, Reader};
use crate::capability::SESSION_TRACK;

/// First byte of an OK packet.
pub(crate) const OK: u8 = 0;
/// First byte of an EOF packet, and of an OK packet in its place.
pub(crate) const EOF: u8 = 0xfe;
/// An EOF packet is shorter than this; what is longer is a row, or an OK packet in its place.
pub(crate) const EOF_BYTES_MAX: usize = 9;

/// A transaction is open.
pub(crate) const IN_TRANSACTION: u16 = 1;
/// Length of an EOF packet.
pub(crate) const EOF_BYTES: usize = 5;

/// More results of the same command follow.
pub(crate) const MORE_RESULTS: u16 = 1 << 3;
/// The rows wait for COM_STMT_FETCH.
pub(crate) const CURSOR_EXISTS: u16 = 1 << 6;
/// COM_STMT_FETCH has reached the end.
pub(crate) const LAST_ROW_SENT: u16 = 1 << 7;
/// A backslash in a string stands for itself.
pub(crate) const NO_BACKSLASH_ESCAPES: u16 = 1 << 9;
/// Session state has changed.
const STATE_CHANGED: u16 = 1 << 14;
/// MariaDB: a double quote begins an identifier.
pub(crate) const ANSI_QUOTES: u16 = 1 << 15;

/// What one says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ok {
    /// Rows changed.
    pub affected: u64,
    /// Status flags.
    pub status: u16,
    /// Warnings.
    pub warnings: u16,
    /// The database, where it says that it has changed.
    pub database: Option<Vec<u8>>,
    /// `character_set_client`, where it says so.
    pub charset: Option<Vec<u8>>,
}

/// Reads an OK packet, also one in an EOF packet's place.
pub(crate) fn read(payload: &[u8], capabilities: u64) -> Result<Ok, Malformed> {
    let mut reader = Reader::new(payload);
    reader.u8()?;
    let affected = reader.lenenc()?;
    reader.lenenc()?;
    let mut ok = Ok { affected, status: reader.u16()?, warnings: reader.u16()?, ..Ok::default() };
    if capabilities & SESSION_TRACK != 0 && ok.status & STATE_CHANGED != 0 {
        reader.lenenc_string()?;
        let mut changes = Reader::new(reader.lenenc_string()?);
        while !changes.is_empty() {
            let kind = changes.u8()?;
            let mut data = Reader::new(changes.lenenc_string()?);
            match kind {
                0 => {
                    while !data.is_empty() {
                        let (name, value) = (data.lenenc_string()?, data.lenenc_string()?);
                        if name == b"character_set_client" {
                            ok.charset = Some(value.to_vec());
                        }
                    }
                }
                1 => ok.database = Some(data.lenenc_string()?.to_vec()),
                _ => {}
            }
        }
    }
    Result::Ok(ok)
}

/// Reads an EOF packet.
pub(crate) fn read_eof(payload: &[u8]) -> Result<Ok, Malformed> {
    let mut reader = Reader::new(payload);
    reader.u8()?;
    let warnings = reader.u16()?;
    Result::Ok(Ok { warnings, status: reader.u16()?, ..Ok::default() })
}

/// An OK packet as a client gets it that has not agreed on session tracking; `None` where it is the same.
/// One that does not read stays as it is.
pub(crate) fn without_tracking(payload: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(payload);
    reader.u8().ok()?;
    reader.lenenc().ok()?;
    reader.lenenc().ok()?;
    let at = payload.len() - reader.rest().len();
    let status = reader.u16().ok()? & !STATE_CHANGED;
    reader.u16().ok()?;
    if reader.is_empty() {
        return None;
    }
    let warnings = payload.get(at + 2..at + 4)?;
    let told = reader.lenenc_string().ok()?;
    Some([payload.get(..at)?, &status.to_le_bytes(), warnings, told].concat())
}

/// Takes the number of warnings out of an OK or EOF packet.
pub(crate) fn without_warnings(payload: &mut [u8]) {
    let at = if payload.first() == Some(&EOF) && payload.len() == EOF_BYTES {
        1
    } else {
        let mut reader = Reader::new(payload);
        let read = reader.u8().and_then(|_| reader.lenenc()).and_then(|_| reader.lenenc());
        if read.and_then(|_| reader.u16()).is_err() {
            return;
        }
        payload.len() - reader.rest().len()
    };
    if let Some(warnings) = payload.get_mut(at..at + 2) {
        warnings.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_says_what_has_changed() {
        let plain = read(b"\0\x05\0\x02\0\x01\0", 0).unwrap();
        assert_eq!((plain.affected, plain.status, plain.warnings), (5, 2, 1));
        let body = b"\x01\x05\x04bank\x00\x19\x14character_set_client\x03gbk";
        let length = u8::try_from(body.len()).unwrap();
        let packet = [&b"\0\0\0\x02\x40\0\0\0"[..], &[length], body].concat();
        let tracked = read(&packet, SESSION_TRACK).unwrap();
        assert_eq!(tracked.database.as_deref(), Some(&b"bank"[..]));
        assert_eq!(tracked.charset.as_deref(), Some(&b"gbk"[..]));
        assert_eq!(read(&packet, 0).unwrap().database, None);
        let cut = &packet[..packet.len() - 1];
        assert_eq!(read(cut, SESSION_TRACK), Err(Malformed));
        let stripped = without_tracking(&packet).unwrap();
        assert_eq!(stripped, b"\0\0\0\x02\0\0\0");
        let told = b"\0\0\0\x02\0\0\0\x04done";
        assert_eq!(without_tracking(told).unwrap(), b"\0\0\0\x02\0\0\0done");
        assert_eq!(without_tracking(b"\0\x05\0\x02\0\x01\0"), None);
        let mut bytes = *b"\0\x05\0\x02\0\x01\0";
        without_warnings(&mut bytes);
        assert_eq!(&bytes, b"\0\x05\0\x02\0\0\0");
        let mut bytes = *b"\xfe\x02\0\x08\0";
        without_warnings(&mut bytes);
        assert_eq!(&bytes, b"\xfe\0\0\x08\0");
        let eof = read_eof(b"\xfe\x02\0\x08\0").unwrap();
        assert_eq!((eof.warnings, eof.status), (2, MORE_RESULTS));
    }
}
