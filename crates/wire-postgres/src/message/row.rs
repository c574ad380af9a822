//! RowDescription and CopyOutResponse: what columns a result has.

use nom::Parser as _;
use nom::multi::count;
use nom::number::complete::{be_i16, be_u8, be_u16, be_u32};
use tidegate_mask::{Field, Format};

use super::{Malformed, c_string, whole};

/// RowDescription: its fields. Reserves nothing by the claimed count.
pub(crate) fn description(body: &[u8]) -> Result<Vec<Field>, Malformed> {
    let read: nom::IResult<&[u8], u16> = be_u16.parse(body);
    let (mut rest, fields) = read.map_err(|_| Malformed)?;
    let mut found = Vec::new();
    for _ in 0..fields {
        let one: nom::IResult<&[u8], _> =
            (c_string, be_u32, be_i16, be_u32, be_i16, be_u32, be_u16).parse(rest);
        let (after, (name, table_oid, column, type_oid, _size, _modifier, format)) =
            one.map_err(|_| Malformed)?;
        rest = after;
        let format = Format::from_code(format);
        found.push(Field {
            name: name.to_vec(),
            table_oid,
            column,
            origin: None,
            type_oid,
            format,
        });
    }
    if rest.is_empty() { Ok(found) } else { Err(Malformed) }
}

/// CopyOutResponse: whether it is binary, and how many columns there are.
pub(crate) fn copy_out(body: &[u8]) -> Result<(Format, usize), Malformed> {
    let columns = body.len().saturating_sub(3) / 2;
    let read = (be_u8, be_u16, count(be_u16, columns));
    let (format, counted, _) = whole(read, body)?;
    let same = usize::from(counted) == columns;
    if same { Ok((Format::from_code(u16::from(format)), columns)) } else { Err(Malformed) }
}

/// The fields in the formats that a Bind asked for: none: all text; one: everybody's (manual, "Bind").
pub(crate) fn in_formats(fields: &[Field], formats: &[u16]) -> Vec<Field> {
    let format = |at: usize| match formats {
        [] => Format::Text,
        [all] => Format::from_code(*all),
        each => each.get(at).map_or(Format::Binary, |code| Format::from_code(*code)),
    };
    let with = |(at, field): (usize, &Field)| Field { format: format(at), ..field.clone() };
    fields.iter().enumerate().map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_whole_or_not_at_all() {
        let body = b"\0\x01ssn\0\0\0\x40\0\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
        let ssn = Field {
            name: b"ssn".to_vec(),
            table_oid: 16384,
            column: 2,
            origin: None,
            type_oid: 25,
            format: Format::Text,
        };
        assert_eq!(description(body), Ok(vec![ssn.clone()]));
        assert_eq!(description(&body[..body.len() - 1]), Err(Malformed));
        assert_eq!(description(&[&body[..], b"x"].concat()), Err(Malformed));
        assert_eq!(description(b"\0\0"), Ok(vec![]));
        assert_eq!(copy_out(b"\0\0\x02\0\0\0\0"), Ok((Format::Text, 2)));
        assert_eq!(copy_out(b"\x01\0\x01\0\x01"), Ok((Format::Binary, 1)));
        assert_eq!(copy_out(b"\0\0\x02\0\0"), Err(Malformed));
        for (formats, expected) in [
            (&[][..], Format::Text),
            (&[1][..], Format::Binary),
            (&[0][..], Format::Text),
            (&[1, 0][..], Format::Binary),
        ] {
            let fields = in_formats(std::slice::from_ref(&ssn), formats);
            assert_eq!(fields[0].format, expected, "{formats:?}");
        }
    }
}
