//! Column definitions (manual, "Protocol::ColumnDefinition41"; MariaDB, "Column Definition Packet").
//!
//! Promise: names in lower case, as lineage has them; a type by PostgreSQL's OID whose values are written
//! alike, so that one table of masks holds for both protocols.
//!
//! | MySQL | taken for |
//! | --- | --- |
//! | CHAR, VARCHAR, TEXT | `text` |
//! | BINARY, VARBINARY, BLOB | `bytea` in binary |
//! | JSON | `json` |
//! | all integers, YEAR | `int8` |
//! | FLOAT, DOUBLE, DECIMAL | `numeric` |
//! | DATE, TIME, DATETIME, TIMESTAMP | `timestamp` |
//! | ENUM, SET, BIT, GEOMETRY, others | nothing: only NULL is sure to be a value |

use tidegate_event::{ColumnRef, Relation};
use tidegate_mask::{Field, Format};

use super::{Malformed, Reader};
use crate::capability::EXTENDED_METADATA;

/// Flag of a column that is never NULL.
const NOT_NULL: u16 = 1;
/// Flag of a number without a sign.
const UNSIGNED: u16 = 1 << 5;
/// Flags of ENUM and SET, which come as strings.
const ENUM_OR_SET: u16 = 1 << 8 | 1 << 11;
/// The character set of what is no text.
const BINARY: u16 = 63;

/// A column of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Definition {
    /// As the masks see it.
    pub field: Field,
    /// Its name as the client is told it.
    pub name: Vec<u8>,
    /// The type's number, which says how its values are laid out in a binary row.
    pub kind: u8,
    /// What the record has of its type: that number, whether it is unsigned (bit 8), and whether it is no text
    /// (bit 9).
    pub recorded: u32,
    /// Where its flags stand in the payload.
    flags_at: usize,
}

/// What the record has for a name that the server made of an expression's text.
pub(crate) const COMPUTED: &[u8] = b"(computed)";

/// The payload of a packet as it is recorded where values of the statement's text are not: without the name of what
/// is computed, which is that text. `None` where it can stay.
pub(crate) fn without_text(payload: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(payload);
    let mut strings = [&[][..]; 4];
    for string in &mut strings {
        *string = reader.lenenc_string().ok()?;
    }
    let head = payload.len() - reader.rest().len();
    reader.lenenc_string().ok()?;
    let behind = reader.rest();
    let column = reader.lenenc_string().ok()?;
    if !strings[3].is_empty() && !column.is_empty() {
        return None;
    }
    let length = [u8::try_from(COMPUTED.len()).ok()?];
    Some([payload.get(..head)?, &length, COMPUTED, behind].concat())
}

impl Definition {
    /// Reads one; where nothing is masked, only what the record has of it.
    pub fn read(payload: &[u8], capabilities: u64, masked: bool) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.lenenc_string()?;
        let schema = reader.lenenc_string()?;
        reader.lenenc_string()?;
        let table = reader.lenenc_string()?;
        let name = reader.lenenc_string()?;
        let column = reader.lenenc_string()?;
        if capabilities & EXTENDED_METADATA != 0 {
            reader.lenenc_string()?;
        }
        reader.lenenc()?;
        let charset = reader.u16()?;
        reader.u32()?;
        let kind = reader.u8()?;
        let flags_at = payload.len() - reader.rest().len();
        let flags = reader.u16()?;
        let field = if masked {
            let (type_oid, format) = alike(kind, charset, flags);
            let (name, origin) = (folded(name).into_bytes(), origin(schema, table, column));
            Field { name, origin, type_oid, format, ..Field::default() }
        } else {
            Field::default()
        };
        let unsigned = u32::from(flags & UNSIGNED != 0) << 8;
        let bytes = u32::from(charset == BINARY) << 9;
        let recorded = u32::from(kind) | unsigned | bytes;
        Ok(Self { field, name: name.to_vec(), kind, recorded, flags_at })
    }

    /// Says in the payload of the packet that a value may be NULL.
    pub fn allow_null(&self, payload: &mut [u8]) {
        if let Some(low) = payload.get_mut(self.flags_at) {
            *low &= !NOT_NULL.to_le_bytes()[0];
        }
    }
}

fn folded(name: &[u8]) -> String {
    tidegate_sql::mysql::folded(&String::from_utf8_lossy(name))
}

/// The stored column that the server names; `None` for what is computed.
fn origin(schema: &[u8], table: &[u8], column: &[u8]) -> Option<ColumnRef> {
    if table.is_empty() || column.is_empty() {
        return None;
    }
    let schema = (!schema.is_empty()).then(|| folded(schema));
    let relation = Relation { schema, name: folded(table) };
    Some(ColumnRef { relation, column: Some(folded(column)) })
}

fn alike(kind: u8, charset: u16, flags: u16) -> (u32, Format) {
    match kind {
        0xfd | 0xfe | 0x0f if flags & ENUM_OR_SET != 0 => (0, Format::Binary),
        0xfd | 0xfe | 0x0f | 0xf9..=0xfc if charset == BINARY => (17, Format::Binary),
        0xfd | 0xfe | 0x0f | 0xf9..=0xfc => (25, Format::Text),
        0xf5 => (114, Format::Text),
        0x01..=0x03 | 0x08 | 0x09 | 0x0d => (20, Format::Text),
        0x00 | 0xf6 | 0x04 | 0x05 => (1700, Format::Text),
        0x07 | 0x0a..=0x0c => (1114, Format::Text),
        _ => (0, Format::Binary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(names: [&str; 5], charset: u16, kind: u8, flags: u16, more: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x03def".to_vec();
        for name in names {
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.extend(name.as_bytes());
        }
        bytes.extend(more);
        bytes.push(0x0c);
        bytes.extend(charset.to_le_bytes());
        bytes.extend([80, 0, 0, 0, kind]);
        bytes.extend(flags.to_le_bytes());
        bytes.extend([0, 0, 0]);
        bytes
    }

    #[test]
    fn names_types_and_flags_are_read() {
        let bytes = packet(["Bank", "c", "Customers", "N", "SSN"], 45, 0xfd, 1, b"");
        let mut read = Definition::read(&bytes, 0, true).unwrap();
        let relation = Relation { schema: Some("bank".to_owned()), name: "customers".to_owned() };
        let origin = ColumnRef { relation, column: Some("ssn".to_owned()) };
        assert_eq!((&read.field.name[..], &read.field.origin), (&b"n"[..], &Some(origin)));
        assert_eq!((read.field.type_oid, read.field.format), (25, Format::Text));
        let mut changed = bytes.clone();
        read.allow_null(&mut changed);
        assert_eq!(changed, packet(["Bank", "c", "Customers", "N", "SSN"], 45, 0xfd, 0, b""));
        let extended = packet(["", "", "", "1 + 1", ""], 63, 0x08, 0, b"\x02\0\0");
        read = Definition::read(&extended, EXTENDED_METADATA, true).unwrap();
        assert_eq!((read.field.origin, read.kind, read.field.type_oid), (None, 0x08, 20));
        for end in 0..bytes.len() - 4 {
            assert_eq!(Definition::read(&bytes[..end], 0, true), Err(Malformed), "{end}");
        }
        let light = Definition::read(&bytes, 0, false).unwrap();
        assert_eq!((light.field, light.name), (Field::default(), b"N".to_vec()));
    }

    #[test]
    fn only_the_name_of_what_is_computed_is_left_out() {
        let computed = packet(["", "", "", "ssn = '123-45-6789'", ""], 63, 0x03, 0, b"");
        let expected = packet(["", "", "", "(computed)", ""], 63, 0x03, 0, b"");
        assert_eq!(without_text(&computed), Some(expected));
        for stays in
            [&packet(["bank", "c", "customers", "n", "ssn"], 45, 0xfd, 1, b"")[..], b"\x02"]
        {
            assert_eq!(without_text(stays), None);
        }
    }

    #[test]
    fn each_type_is_taken_for_one_that_is_written_alike() {
        for (kind, charset, flags, expected) in [
            (0xfd, 45, 0, (25, Format::Text)),
            (0xfe, 8, 256, (0, Format::Binary)),
            (0xfe, 8, 2048, (0, Format::Binary)),
            (0xfc, 63, 0, (17, Format::Binary)),
            (0xfc, 45, 0, (25, Format::Text)),
            (0xf5, 45, 0, (114, Format::Text)),
            (0x03, 63, 0, (20, Format::Text)),
            (0xf6, 63, 0, (1700, Format::Text)),
            (0x0c, 63, 0, (1114, Format::Text)),
            (0xff, 63, 0, (0, Format::Binary)),
            (0x10, 63, 0, (0, Format::Binary)),
        ] {
            assert_eq!(alike(kind, charset, flags), expected, "{kind:#x} {charset} {flags}");
        }
    }
}
