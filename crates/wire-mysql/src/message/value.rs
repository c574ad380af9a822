//! Binary values of parameters (manual, "Binary Protocol Value"), and the commands that carry them.
//!
//! Promises: numbers, dates and times are given as the text that SQL would write; strings and blobs as
//! they came. Where the bytes end early, because only the head of a command is held, what is there is
//! given and the rest is left out.
//!
//! Known gap: of a bulk execution the parameters of all rows follow one another, up to
//! [`PARAMETERS_MAX`]; where a row ends does not show.

use tidegate_event::Parameter;
use tidegate_event::limits::{PARAMETER_BYTES_MAX, PARAMETERS_MAX};

use super::{Malformed, Reader};
use crate::capability::QUERY_ATTRIBUTES;

/// Flag of COM_STMT_EXECUTE: the number of parameters is sent.
const PARAMETER_COUNT_AVAILABLE: u8 = 8;
/// Flag of COM_STMT_EXECUTE: rows wait for COM_STMT_FETCH.
pub(crate) const CURSOR_TYPES: u8 = 7;
/// Flag of COM_STMT_BULK_EXECUTE: types are sent.
const BULK_TYPES: u16 = 128;

/// Type of a parameter: its number, and whether it is unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    kind: u8,
    unsigned: bool,
}

impl Type {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { kind: reader.u8()?, unsigned: reader.u8()? & 0x80 != 0 })
    }
}

/// What is known of the statement that is executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// How many parameters it has.
    pub parameters: usize,
    /// Their types, as an earlier execution sent them.
    pub types: &'a [Type],
    /// Values that came by COM_STMT_SEND_LONG_DATA: number, head and whole length.
    pub long: &'a [(u16, Vec<u8>, u64)],
}

/// Parameters, and the types that were sent with them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The values.
    pub parameters: Vec<Parameter>,
    /// The types, where they were sent.
    pub types: Option<Vec<Type>>,
}

/// Reads the values of a COM_STMT_EXECUTE; `body` begins at its flags.
pub(crate) fn execute(body: &[u8], capabilities: u64, expected: Expected<'_>) -> Bound {
    let mut bound = Bound::default();
    // What does not read is the server's to refuse; the record holds what did.
    let _ = execute_into(body, capabilities, expected, &mut bound);
    bound
}

fn execute_into(
    body: &[u8],
    capabilities: u64,
    expected: Expected<'_>,
    bound: &mut Bound,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    let flags = reader.u8()?;
    reader.u32()?;
    let attributes = capabilities & QUERY_ATTRIBUTES != 0;
    let mut count = expected.parameters;
    if attributes && flags & PARAMETER_COUNT_AVAILABLE != 0 {
        count = usize::try_from(reader.lenenc()?).map_err(|_| Malformed)?;
    }
    if count == 0 {
        return Ok(());
    }
    let nulls = reader.take(count.div_ceil(8))?;
    if reader.u8()? == 1 {
        bound.types = Some(types(&mut reader, count, attributes)?);
    }
    let types = bound.types.clone().unwrap_or_else(|| expected.types.to_vec());
    for (at, kind) in types.iter().take(count).enumerate() {
        if bound.parameters.len() >= PARAMETERS_MAX {
            return Ok(());
        }
        let long = expected.long.iter().find(|(of, ..)| usize::from(*of) == at);
        let is_null = nulls.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        bound.parameters.push(match long {
            Some((_, head, bytes)) => cut(head, *bytes),
            None if is_null => Parameter::Null,
            None => value(&mut reader, *kind)?,
        });
    }
    Ok(())
}

fn types(reader: &mut Reader<'_>, count: usize, named: bool) -> Result<Vec<Type>, Malformed> {
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(Type::read(reader)?);
        if named {
            reader.lenenc_string()?;
        }
    }
    Ok(types)
}

/// Reads the values of a COM_STMT_BULK_EXECUTE; `body` begins at its flags.
pub(crate) fn bulk(body: &[u8], expected: Expected<'_>) -> Bound {
    let mut bound = Bound::default();
    let _ = bulk_into(body, expected, &mut bound);
    bound
}

fn bulk_into(body: &[u8], expected: Expected<'_>, bound: &mut Bound) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    if reader.u16()? & BULK_TYPES != 0 {
        bound.types = Some(types(&mut reader, expected.parameters, false)?);
    }
    let types = bound.types.clone().unwrap_or_else(|| expected.types.to_vec());
    while !reader.is_empty() && !types.is_empty() {
        for kind in &types {
            if bound.parameters.len() >= PARAMETERS_MAX {
                return Ok(());
            }
            // 1 is NULL; 2 the column's default and 3 to leave the column out, which have no value.
            let none = reader.u8()? != 0;
            bound.parameters.push(if none { Parameter::Null } else { value(&mut reader, *kind)? });
        }
    }
    Ok(())
}

/// The attributes in front of a COM_QUERY's text, and the text.
pub(crate) fn attributes(body: &[u8]) -> Result<(Vec<Parameter>, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.lenenc()?).map_err(|_| Malformed)?;
    // Always 1 (manual, "COM_QUERY"); the server refuses others.
    if reader.lenenc()? != 1 {
        return Err(Malformed);
    }
    let mut parameters = Vec::new();
    if count > 0 {
        let nulls = reader.take(count.div_ceil(8))?;
        if reader.u8()? != 1 {
            return Err(Malformed);
        }
        let types = types(&mut reader, count, true)?;
        for (at, kind) in types.iter().enumerate() {
            let is_null = nulls.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
            let value = if is_null { Parameter::Null } else { value(&mut reader, *kind)? };
            if parameters.len() < PARAMETERS_MAX {
                parameters.push(value);
            }
        }
    }
    Ok((parameters, reader.rest()))
}

fn value(reader: &mut Reader<'_>, of: Type) -> Result<Parameter, Malformed> {
    let text = |text: String| Ok(Parameter::Text(text.into_bytes()));
    match of.kind {
        0x06 => Ok(Parameter::Null),
        0x01 => integer(reader, 1, of.unsigned),
        0x02 | 0x0d => integer(reader, 2, of.unsigned),
        0x03 | 0x09 => integer(reader, 4, of.unsigned),
        0x08 => integer(reader, 8, of.unsigned),
        0x04 => text(f32::from_bits(reader.u32()?).to_string()),
        0x05 => text(f64::from_bits(reader.number(8)?).to_string()),
        0x07 | 0x0a | 0x0c | 0x0e | 0x11 | 0x12 => date(reader),
        0x0b | 0x13 => time(reader),
        0x10 | 0xf9..=0xfc | 0xff => {
            let (head, bytes) = string(reader)?;
            Ok(match u64::try_from(head.len()) {
                Ok(whole) if whole == bytes && head.len() <= PARAMETER_BYTES_MAX => {
                    Parameter::Binary { type_oid: u32::from(of.kind), value: head.to_vec() }
                }
                _ => cut(head, bytes),
            })
        }
        _ => {
            let (head, bytes) = string(reader)?;
            Ok(cut(head, bytes))
        }
    }
}

/// A string with its length, or as much of it as is there.
fn string<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], u64), Malformed> {
    let bytes = reader.lenenc()?;
    let there = reader.rest().len();
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(there);
    Ok((reader.take(length)?, bytes))
}

/// A value as it is recorded: whole, or its head.
fn cut(value: &[u8], bytes: u64) -> Parameter {
    match value.get(..PARAMETER_BYTES_MAX) {
        Some(head) if value.len() > PARAMETER_BYTES_MAX => {
            Parameter::Cut { head: head.to_vec(), bytes }
        }
        _ if u64::try_from(value.len()) == Ok(bytes) => Parameter::Text(value.to_vec()),
        _ => Parameter::Cut { head: value.to_vec(), bytes },
    }
}

fn integer(reader: &mut Reader<'_>, bytes: usize, unsigned: bool) -> Result<Parameter, Malformed> {
    let number = reader.number(bytes)?;
    let text = if unsigned {
        number.to_string()
    } else {
        let spare = u32::try_from(64 - 8 * bytes).unwrap_or_default();
        (number.cast_signed() << spare >> spare).to_string()
    };
    Ok(Parameter::Text(text.into_bytes()))
}

fn date(reader: &mut Reader<'_>) -> Result<Parameter, Malformed> {
    let length = reader.u8()?;
    let mut fields = Reader::new(reader.take(usize::from(length))?);
    if length == 0 {
        return Ok(Parameter::Text(b"0000-00-00".to_vec()));
    }
    let mut text = format!("{:04}-{:02}-{:02}", fields.u16()?, fields.u8()?, fields.u8()?);
    if length > 4 {
        let (hours, minutes, seconds) = (fields.u8()?, fields.u8()?, fields.u8()?);
        text = format!("{text} {hours:02}:{minutes:02}:{seconds:02}");
    }
    if length > 7 {
        text = format!("{text}.{:06}", fields.u32()?);
    }
    Ok(Parameter::Text(text.into_bytes()))
}

fn time(reader: &mut Reader<'_>) -> Result<Parameter, Malformed> {
    let length = reader.u8()?;
    let mut fields = Reader::new(reader.take(usize::from(length))?);
    if length == 0 {
        return Ok(Parameter::Text(b"00:00:00".to_vec()));
    }
    let sign = if fields.u8()? == 1 { "-" } else { "" };
    let (days, hours) = (u64::from(fields.u32()?), u64::from(fields.u8()?));
    let hours = days * 24 + hours;
    let mut text = format!("{sign}{hours:02}:{:02}:{:02}", fields.u8()?, fields.u8()?);
    if length > 8 {
        text = format!("{text}.{:06}", fields.u32()?);
    }
    Ok(Parameter::Text(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_given_as_sql_would_write_them() {
        let check = |kind: u8, unsigned: bool, bytes: &[u8], expected: &str| {
            let read = value(&mut Reader::new(bytes), Type { kind, unsigned }).unwrap();
            assert_eq!(read, Parameter::Text(expected.as_bytes().to_vec()), "{kind:#x}");
        };
        check(0x01, false, b"\xff", "-1");
        check(0x01, true, b"\xff", "255");
        check(0x02, false, b"\x00\x80", "-32768");
        check(0x03, false, b"\x2a\0\0\0", "42");
        check(0x08, false, b"\xff\xff\xff\xff\xff\xff\xff\xff", "-1");
        check(0x08, true, b"\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615");
        check(0x05, false, &1.5_f64.to_le_bytes(), "1.5");
        check(0x0a, false, b"\x04\xe9\x07\x02\x1c", "2025-02-28");
        check(0x0c, false, b"\x07\xe9\x07\x02\x1c\x17\x3b\x00", "2025-02-28 23:59:00");
        check(
            0x0c,
            false,
            b"\x0b\xe9\x07\x02\x1c\x17\x3b\x00\x40\x42\x0f\0",
            "2025-02-28 23:59:00.1000000",
        );
        check(0x0b, false, b"\x08\x01\x01\0\0\0\x02\x03\x04", "-26:03:04");
        check(0x0b, false, b"\0", "00:00:00");
        check(0xfd, false, b"\x03abc", "abc");
        check(0xf6, false, b"\x031.5", "1.5");
    }

    #[test]
    fn what_is_cut_says_how_long_it_was() {
        let of = Type { kind: 0xfd, unsigned: false };
        let read = value(&mut Reader::new(b"\xfc\x00\x10abc"), of).unwrap();
        assert_eq!(read, Parameter::Cut { head: b"abc".to_vec(), bytes: 4096 });
        let blob = value(&mut Reader::new(b"\x02\0\xff"), Type { kind: 0xfc, unsigned: false });
        assert_eq!(blob, Ok(Parameter::Binary { type_oid: 0xfc, value: vec![0, 0xff] }));
    }

    #[test]
    fn an_execution_keeps_the_types_of_the_one_before() {
        let text = |text: &str| Parameter::Text(text.as_bytes().to_vec());
        let none = Expected { parameters: 3, types: &[], long: &[] };
        let first = execute(b"\0\x01\0\0\0\x02\x01\x03\0\x03\0\xfd\0\x07\0\0\0\x01x", 0, none);
        assert_eq!(first.parameters, [text("7"), Parameter::Null, text("x")]);
        let types = first.types.unwrap();
        let long = [(2, b"lo".to_vec(), 2)];
        let known = Expected { parameters: 3, types: &types, long: &long };
        let again = execute(b"\0\x01\0\0\0\x00\0\x08\0\0\0\x09\0\0\0", 0, known);
        assert_eq!(again.parameters, [text("8"), text("9"), text("lo")]);
        assert_eq!(again.types, None);
        let cut = execute(b"\0\x01\0\0\0\x00\0\x08\0\0\0\x09\0", 0, known);
        assert_eq!(cut.parameters, [text("8")]);
        let two = Expected { parameters: 2, ..none };
        let rows = bulk(b"\x80\0\x03\0\xfd\0\0\x01\0\0\0\0\x01a\x01\0\x01b", two);
        assert_eq!(rows.parameters, [text("1"), text("a"), Parameter::Null, text("b")]);
    }

    #[test]
    fn attributes_stand_before_the_text() {
        assert_eq!(attributes(b"\0\x01SELECT 1"), Ok((vec![], &b"SELECT 1"[..])));
        let (parameters, rest) = attributes(b"\x01\x01\0\x01\xfd\0\x02id\x03abcSELECT 1").unwrap();
        assert_eq!(parameters, [Parameter::Text(b"abc".to_vec())]);
        assert_eq!(rest, b"SELECT 1");
        assert_eq!(attributes(b"\0\x02SELECT 1"), Err(Malformed));
        assert_eq!(attributes(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Err(Malformed));
    }
}
