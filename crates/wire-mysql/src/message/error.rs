//! ERR packets: the server's, and ours in its place (manual, "ERR_Packet").

use bytes::Bytes;
use tidegate_event::limits::cut;

use super::Reader;
use crate::config::ERROR_MESSAGE_BYTES_MAX;
use crate::frame::packet;

/// First byte of an ERR packet.
pub(crate) const ERR: u8 = 0xff;
/// The error number that stands for a progress report (MariaDB, "ERR_Packet").
pub(crate) const PROGRESS_REPORT: u16 = 0xffff;

/// ER_TABLEACCESS_DENIED_ERROR: what drivers neither retry nor drop the connection for.
const DENIED: (u16, &str) = (1142, "42000");

/// Our error numbers and SQLSTATEs by those of the gate, which are PostgreSQL's.
const CODES: [(&str, u16, &str); 7] = [
    ("42501", DENIED.0, DENIED.1),
    // ER_ACCESS_DENIED_ERROR
    ("28000", 1045, "28000"),
    // ER_DISK_FULL
    ("53100", 1021, "HY000"),
    // ER_CONNECT_TO_FOREIGN_DATA_SOURCE
    ("08001", 1429, "HY000"),
    // ER_MALFORMED_PACKET
    ("08P01", 1835, "HY000"),
    // ER_NOT_SUPPORTED_YET
    ("0A000", 1235, "42000"),
    // ER_UNKNOWN_COM_ERROR
    ("08S01", 1047, "08S01"),
];
/// ER_UNKNOWN_ERROR
const OTHER: (u16, &str) = (1105, "HY000");

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// SQLSTATE.
    pub sqlstate: String,
    /// Its error number and message.
    pub message: String,
}

/// The error number of an ERR packet.
pub(crate) fn number(payload: &[u8]) -> Option<u16> {
    let mut reader = Reader::new(payload);
    (reader.u8() == Ok(ERR)).then(|| reader.u16().ok()).flatten()
}

/// Reads an ERR packet.
pub(crate) fn read(payload: &[u8]) -> Failure {
    let number = number(payload).unwrap_or_default();
    let rest = payload.get(3..).unwrap_or_default();
    let (sqlstate, message) = match rest.split_first() {
        Some((b'#', rest)) if rest.len() >= 5 => rest.split_at(5),
        _ => (&b"HY000"[..], rest),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message = format!("{number}: {}", text(message));
    Failure { sqlstate: text(sqlstate), message }
}

/// The same ERR packet with another text.
pub(crate) fn without_message(payload: &[u8], text: &str) -> Vec<u8> {
    let marked = payload.get(3) == Some(&b'#') && payload.len() >= 9;
    let head = payload.get(..if marked { 9 } else { 3 }).unwrap_or_default();
    [head, text.as_bytes()].concat()
}

/// An ERR packet of ours for one of the gate's SQLSTATEs.
pub(crate) fn response(seq: u8, sqlstate: &str, message: &str, hint: Option<&str>) -> Bytes {
    let known = CODES.iter().find(|(gate, ..)| *gate == sqlstate);
    let (number, sqlstate) = known.map_or(OTHER, |(_, number, sqlstate)| (*number, *sqlstate));
    let [low, high] = number.to_le_bytes();
    let text = hint.map_or_else(|| message.to_owned(), |hint| format!("{message} ({hint})"));
    let (text, _) = cut(&text, ERROR_MESSAGE_BYTES_MAX);
    packet(seq, &[&[ERR, low, high, b'#'], sqlstate.as_bytes(), text.as_bytes()].concat())
}

/// An ERR packet of ours before the client has seen a greeting: without SQLSTATE.
pub(crate) fn before_greeting(message: &str) -> Bytes {
    let [low, high] = OTHER.0.to_le_bytes();
    let (text, _) = cut(message, ERROR_MESSAGE_BYTES_MAX);
    packet(0, &[&[ERR, low, high], text.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (gate, sqlstate, message) in [
            ("42501", "42000", "1142: no"),
            ("28000", "28000", "1045: no"),
            ("58030", "HY000", "1105: no"),
        ] {
            let read = read(&response(1, gate, "no", None)[4..]);
            assert_eq!((read.sqlstate.as_str(), read.message.as_str()), (sqlstate, message));
        }
        let long = response(1, "42501", &"ö".repeat(4000), Some("hint"));
        assert!(long.len() < 520 && std::str::from_utf8(&long[13..]).is_ok());
        assert_eq!(read(b"\xff\x10\x04Too many connections").message, "1040: Too many connections");
        assert_eq!(read(b"\xff").sqlstate, "HY000");
    }
}
