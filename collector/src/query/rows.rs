//! Kept rows of results, joined from their chunks and read.
//!
//! Promises: rows are shown as they went to the client; a hole between chunks, or a digest that is not that
//! of the outcome, is said. Values in binary format are read where their type is a common one, and shown in
//! hexadecimal behind `\x` otherwise (docs/formats/recording.md).

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde_json::Value;
use tidegate_recording::{Joined, Message, digest, messages, mysql};

use super::Answer;
use super::transcript::Written;

/// The rows of one result that were kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Kept {
    /// Log indexes of the records that hold them.
    pub indexes: Vec<u64>,
    /// Bytes that are kept.
    pub bytes: u64,
    /// Whether the whole result has the digest that its outcome says; absent where not all of it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_agrees: Option<bool>,
    /// What is wrong with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
    /// Names of the columns, of the last result where there are several.
    pub columns: Vec<String>,
    /// Values as text; NULL is absent.
    pub rows: Vec<Vec<Option<String>>>,
    /// COPY data, as text.
    pub copied: String,
    /// What was written over SSH.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
}

/// Puts the kept rows to those answers whose results were kept.
pub fn fill(db: &Connection, answers: &mut [Answer]) -> anyhow::Result<()> {
    let mut statement = db.prepare(
        "SELECT r.idx, r.start, r.data, r.stream, r.boot_ns FROM result_rows r JOIN chains c ON c.id = r.chain
         WHERE c.chain_id = ?1 AND r.seq = ?2 ORDER BY r.start, r.idx",
    )?;
    let mut protocol = db.prepare("SELECT protocol FROM sessions WHERE session_id = ?1")?;
    for answer in answers {
        let (chain, seq) = (hex::decode(&answer.chain)?, answer.seq.cast_signed());
        let session = answer.session.as_deref().map(hex::decode).transpose()?;
        let Some(operation) = &mut answer.operation else { continue };
        let mut rows = statement.query((chain, seq))?;
        let (mut kept, mut joined, mut begun) = (Kept::default(), Joined::default(), None);
        while let Some(row) = rows.next()? {
            let (index, start, data): (u64, u64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            kept.indexes.push(index);
            let stream: String = row.get(3)?;
            let boot_ns: i64 = row.get(4)?;
            let begun = *begun.get_or_insert(boot_ns);
            if !stream.is_empty() {
                let after_ns = boot_ns.saturating_sub(begun);
                kept.written.push(Written { stream, after_ns, data: data.clone() });
            }
            if kept.written.last().is_some_and(|part| part.stream == "size") {
                continue;
            }
            if let Err(error) = joined.push(start, &data) {
                kept.wrong.get_or_insert_with(|| error.to_string());
            }
        }
        if kept.indexes.is_empty() {
            continue;
        }
        let spoken: Option<String> = protocol.query_row([session], |row| row.get(0)).optional()?;
        let mysql = spoken.as_deref() == Some("mysql");
        kept.read(joined.bytes(), operation.result.as_ref(), mysql);
        operation.kept = Some(kept);
    }
    Ok(())
}

impl Kept {
    fn read(&mut self, bytes: &[u8], result: Option<&Value>, mysql: bool) {
        let said = |key: &str| result.and_then(|result| result.get(key));
        self.bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let whole = said("bytes").and_then(Value::as_u64) == Some(self.bytes);
        if whole && said("keyed").and_then(Value::as_bool) == Some(false) {
            let same = said("digest").and_then(Value::as_str) == Some(&*hex::encode(digest(bytes)));
            self.digest_agrees = Some(same);
        }
        if !self.written.is_empty() {
            return;
        }
        let mut types: Vec<(u32, bool)> = Vec::new();
        for column in said("columns").and_then(Value::as_array).into_iter().flatten() {
            let name = column.get("name").and_then(Value::as_str).unwrap_or_default();
            let oid = column.get("type_oid").and_then(Value::as_u64).unwrap_or(0);
            let binary = column.get("binary").and_then(Value::as_bool).unwrap_or(false);
            self.columns.push(name.to_owned());
            types.push((u32::try_from(oid).unwrap_or(0), binary));
        }
        let read = if mysql { mysql::packets(bytes, &types) } else { messages(bytes) };
        let read = match read {
            Ok((read, _)) => read,
            Err(error) => {
                self.wrong.get_or_insert_with(|| error.to_string());
                return;
            }
        };
        for message in read {
            self.take(message, &mut types, mysql);
        }
    }

    fn take(&mut self, message: Message<'_>, types: &mut Vec<(u32, bool)>, mysql: bool) {
        match message {
            Message::Columns(columns) => {
                let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
                self.columns = columns.iter().map(|(one, ..)| name(one)).collect();
                *types = columns.iter().map(|(_, oid, binary)| (*oid, *binary)).collect();
            }
            Message::Row(row) => {
                let value = |(at, value): (usize, Option<&[u8]>)| {
                    let (oid, binary) = types.get(at).copied().unwrap_or_default();
                    let shown = if mysql { mysql_text } else { text };
                    value.map(|value| shown(value, oid, binary))
                };
                self.rows.push(row.into_iter().enumerate().map(value).collect());
            }
            Message::Copy(data) => self.copied.push_str(&text(data, 0, false)),
            Message::Value(value) => self.rows.push(vec![value.map(|value| text(value, 0, true))]),
        }
    }
}

/// A value of MySQL's as a person reads it. `kind` is the type's number, with bit 8 where it is unsigned and
/// bit 9 where it is no text.
fn mysql_text(value: &[u8], kind: u32, binary: bool) -> String {
    let hexadecimal = || format!("\\x{}", hex::encode(value));
    let as_text = || String::from_utf8(value.to_vec()).unwrap_or_else(|_| hexadecimal());
    let number =
        |value: &[u8]| value.iter().rev().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    match (kind & 0xff, value) {
        _ if !binary => as_text(),
        (0x01..=0x03 | 0x08 | 0x09 | 0x0d, value) if kind & 0x100 == 0 && value.len() <= 8 => {
            let spare = 64 - 8 * u32::try_from(value.len()).unwrap_or(8).min(8);
            (number(value).cast_signed() << spare.min(63) >> spare.min(63)).to_string()
        }
        (0x01..=0x03 | 0x08 | 0x09 | 0x0d, value) => number(value).to_string(),
        (0x04, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).to_string(),
        (0x05, value) => match value.try_into() {
            Ok(eight) => f64::from_le_bytes(eight).to_string(),
            Err(_) => hexadecimal(),
        },
        (0x07 | 0x0a | 0x0c, [length, fields @ ..]) if fields.len() == usize::from(*length) => {
            date(fields).unwrap_or_else(hexadecimal)
        }
        (0x07 | 0x0a..=0x0c | 0x10 | 0xff, _) => hexadecimal(),
        _ if kind & 0x200 != 0 && kind & 0xff != 0xf6 => hexadecimal(),
        _ => as_text(),
    }
}

/// A date with its time, where it has one (manual, "Binary Protocol Value").
fn date(fields: &[u8]) -> Option<String> {
    let [y0, y1, month, day, time @ ..] = fields else {
        return fields.is_empty().then(|| "0000-00-00".to_owned());
    };
    let date = format!("{:04}-{month:02}-{day:02}", u16::from_le_bytes([*y0, *y1]));
    match time {
        [] => Some(date),
        [hours, minutes, seconds] => Some(format!("{date} {hours:02}:{minutes:02}:{seconds:02}")),
        [hours, minutes, seconds, a, b, c, d] => {
            let micros = u32::from_le_bytes([*a, *b, *c, *d]);
            Some(format!("{date} {hours:02}:{minutes:02}:{seconds:02}.{micros:06}"))
        }
        _ => None,
    }
}

/// A value as a person reads it.
fn text(value: &[u8], oid: u32, binary: bool) -> String {
    let hexadecimal = || format!("\\x{}", hex::encode(value));
    if !binary {
        return String::from_utf8(value.to_vec()).unwrap_or_else(|_| hexadecimal());
    }
    let number = match (oid, value) {
        (16, [byte]) => Some(if *byte == 0 { "f" } else { "t" }.to_owned()),
        (21, &[a, b]) => Some(i16::from_be_bytes([a, b]).to_string()),
        (23, &[a, b, c, d]) => Some(i32::from_be_bytes([a, b, c, d]).to_string()),
        (26, &[a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d]).to_string()),
        (700, &[a, b, c, d]) => Some(f32::from_be_bytes([a, b, c, d]).to_string()),
        (20 | 701, value) => value.try_into().ok().map(|eight: [u8; 8]| match oid {
            20 => i64::from_be_bytes(eight).to_string(),
            _ => f64::from_be_bytes(eight).to_string(),
        }),
        // text, varchar, bpchar, name, json, xml, "char", unknown
        (25 | 1043 | 1042 | 19 | 114 | 142 | 18 | 705, value) => {
            String::from_utf8(value.to_vec()).ok()
        }
        _ => None,
    };
    number.unwrap_or_else(hexadecimal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DESCRIBED: &[u8] =
        b"T\0\0\0\x1b\0\x01id\0\0\0\x40\0\0\x02\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01";

    fn read(bytes: &[u8], digest: &str) -> Kept {
        let mut kept = Kept::default();
        let bytes_said = bytes.len();
        let result =
            json!({ "digest": digest, "keyed": false, "bytes": bytes_said, "columns": [] });
        kept.read(bytes, Some(&result), false);
        kept
    }

    #[test]
    fn values_of_mysql_are_shown_as_what_they_are() {
        for (value, kind, binary, expected) in [
            (&b"plain"[..], 0xfd, false, "plain"),
            (b"\xff\xff\xff\xff", 0x03, true, "-1"),
            (b"\xff\xff\xff\xff", 0x103, true, "4294967295"),
            (b"\xfe", 0x01, true, "-2"),
            (b"\x07\0\0\0\0\0\0\0", 0x08, true, "7"),
            (b"\0\0\0\0\0\0\xf8\x3f", 0x05, true, "1.5"),
            (b"\x04\xe9\x07\x02\x1c", 0x0a, true, "2025-02-28"),
            (b"\x07\xe9\x07\x02\x1c\x17\x3b\0", 0x0c, true, "2025-02-28 23:59:00"),
            (b"1.50", 0x2f6, true, "1.50"),
            (b"ab", 0x2fc, true, "\\x6162"),
            (b"ab", 0xfc, true, "ab"),
            (b"\x01", 0x10, true, "\\x01"),
        ] {
            assert_eq!(mysql_text(value, kind, binary), expected, "{kind:#x}");
        }
    }

    #[test]
    fn rows_are_read_by_their_types_and_held_against_their_digest() {
        let bytes = [DESCRIBED, b"D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\x01\0"].concat();
        let kept = read(&bytes, &hex::encode(digest(&bytes)));
        assert_eq!(kept.columns, ["id"]);
        assert_eq!(kept.rows, [[Some("256".to_owned())]]);
        assert_eq!((kept.digest_agrees, kept.wrong), (Some(true), None));
        assert_eq!(read(&bytes, &"00".repeat(32)).digest_agrees, Some(false));
        let spoilt = [&bytes[..], b"Z\0\0\0\x05I"].concat();
        assert!(read(&spoilt, "").wrong.is_some());
    }

    #[test]
    fn values_are_shown_as_what_they_are() {
        for (value, oid, binary, expected) in [
            (&b"plain"[..], 25, false, "plain"),
            (b"\xff", 25, false, "\\xff"),
            (b"\0\x2a", 21, true, "42"),
            (b"\x01", 16, true, "t"),
            (b"\0\0\0\0\0\0\0\x07", 20, true, "7"),
            (b"\x3f\xf8\0\0\0\0\0\0", 701, true, "1.5"),
            (b"\0\0", 23, true, "\\x0000"),
            (b"Z\xc3\xbcrich", 1043, true, "Z\u{fc}rich"),
        ] {
            assert_eq!(text(value, oid, binary), expected);
        }
    }
}
