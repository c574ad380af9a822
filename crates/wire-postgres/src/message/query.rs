//! Query, Parse, Execute, Describe, Close, FunctionCall, and the substitutes for refused ones.

use bytes::Bytes;
use nom::Parser as _;
use nom::combinator::rest;
use nom::multi::{count, length_count};
use nom::number::complete::{be_u16, be_u32};
use nom::sequence::pair;

use super::{Malformed, c_string, whole};

/// Text of the statement that stands for a refused one where the server itself must fail (manual,
/// "Pipelining"): a syntax error in every grammar. The server's log shows it.
pub const SUBSTITUTE_TEXT: &str = "/* refused by tidegate */ tidegate_refused";
/// Statement name of the substitute; never comes to exist, as the text does not parse.
pub const SUBSTITUTE_NAME: &str = "tidegate_refused";

/// Query: its text.
pub(crate) fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    whole(c_string, body)
}

/// Parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parse<'a> {
    pub name: &'a [u8],
    pub text: &'a [u8],
    pub types: Vec<u32>,
}

pub(crate) fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let types = length_count(be_u16, be_u32);
    whole((c_string, c_string, types), body).map(|(name, text, types)| Parse { name, text, types })
}

/// The name and the text's beginning of a Parse of which only the head is there.
pub(crate) fn parse_head(head: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (name, text) = whole(pair(c_string, rest), head)?;
    Ok((name, text.split(|&byte| byte == 0).next().unwrap_or_default()))
}

/// Execute: its portal.
pub(crate) fn execute(body: &[u8]) -> Result<&[u8], Malformed> {
    whole(pair(c_string, be_u32), body).map(|(portal, _rows_max)| portal)
}

/// What a Describe or Close names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

pub(crate) fn named(body: &[u8]) -> Result<Named<'_>, Malformed> {
    match body.split_first() {
        Some((b'S', name)) => whole(c_string, name).map(Named::Statement),
        Some((b'P', name)) => whole(c_string, name).map(Named::Portal),
        _ => Err(Malformed),
    }
}

/// FunctionCall: the function's OID and the number of arguments. Reads only the head.
pub(crate) fn function_call(body: &[u8]) -> Result<(u32, u16), Malformed> {
    let formats = length_count(be_u16, be_u16);
    let read: nom::IResult<&[u8], _> = (be_u32, formats, be_u16).parse(body);
    read.map(|(_, (oid, _, arguments))| (oid, arguments)).map_err(|_| Malformed)
}

/// ParameterDescription: the types.
pub(crate) fn parameter_description(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    // The count is the body's own, as 65,535 parameters do not fit the signed field's name.
    let described = body.len().saturating_sub(2) / 4;
    whole(pair(be_u16, count(be_u32, described)), body).map(|(_, types)| types)
}

/// A Query that fails.
pub(crate) fn substitute_query() -> Bytes {
    crate::frame::message(b'Q', &[SUBSTITUTE_TEXT.as_bytes(), b"\0"])
}

/// A Parse that fails. One without a name drops the unnamed statement, as the refused one would.
pub(crate) fn substitute_parse(unnamed: bool) -> Bytes {
    let name = if unnamed { "" } else { SUBSTITUTE_NAME };
    let parts = [name.as_bytes(), b"\0", SUBSTITUTE_TEXT.as_bytes(), b"\0\0\0"];
    crate::frame::message(b'P', &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_read_whole_or_not_at_all() {
        assert_eq!(query(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
        assert_eq!(query(b"SELECT 1\0x\0"), Err(Malformed));
        let types = vec![23];
        assert_eq!(
            parse(b"s\0SELECT $1\0\0\x01\0\0\0\x17"),
            Ok(Parse { name: b"s", text: b"SELECT $1", types })
        );
        assert_eq!(parse(b"s\0SELECT $1\0\0\x02\0\0\0\x17"), Err(Malformed));
        assert_eq!(parse_head(b"s\0SELECT"), Ok((&b"s"[..], &b"SELECT"[..])));
        assert_eq!(execute(b"p\0\0\0\0\0"), Ok(&b"p"[..]));
        assert_eq!(execute(b"p\0\0\0\0"), Err(Malformed));
        assert_eq!(named(b"Sx\0"), Ok(Named::Statement(b"x")));
        assert_eq!(named(b"Xx\0"), Err(Malformed));
        assert_eq!(function_call(b"\0\0\0\x09\0\x01\0\0\0\x02more"), Ok((9, 2)));
        assert_eq!(parameter_description(b"\0\x01\0\0\0\x17"), Ok(vec![23]));
        assert_eq!(parameter_description(b"\0\x01\0\0\0"), Err(Malformed));
    }
}
