//! Bodies of the messages that the machine looks into, named as in the manual.
//!
//! Promises: borrowed, no allocation in proportion to a claimed length, trailing bytes refused.
//! Bodies are read with nom; a body that does not read is [`Malformed`], and the caller says whose
//! fault that is.

pub(crate) mod authentication;
pub(crate) mod bind;
pub(crate) mod error;
pub(crate) mod query;
pub(crate) mod row;
pub(crate) mod startup;
pub(crate) mod status;

use nom::IResult;
use nom::Parser as _;
use nom::bytes::complete::{tag, take_till};
use nom::combinator::all_consuming;
use nom::sequence::terminated;

/// A body that is not what its kind byte says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A string and its terminating zero byte.
pub(crate) fn c_string(input: &[u8]) -> IResult<&[u8], &[u8]> {
    terminated(take_till(|byte| byte == 0), tag(&b"\0"[..])).parse(input)
}

/// Reads the whole of `input` or nothing.
pub(crate) fn whole<'a, T>(
    parser: impl nom::Parser<&'a [u8], Output = T, Error = nom::error::Error<&'a [u8]>>,
    input: &'a [u8],
) -> Result<T, Malformed> {
    match all_consuming(parser).parse(input) {
        Ok((_, value)) => Ok(value),
        Err(_) => Err(Malformed),
    }
}
