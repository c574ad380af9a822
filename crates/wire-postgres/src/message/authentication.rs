//! Authentication requests. Their answers stay opaque but for one flag.

use nom::Parser as _;
use nom::bytes::complete::tag;
use nom::multi::many0;
use nom::number::complete::be_u32;
use nom::sequence::terminated;

use super::{Malformed, c_string, whole};

/// What the server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authentication<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationSASL with its mechanisms.
    Sasl(Vec<&'a [u8]>),
    /// Kerberos, GSSAPI, SSPI: bound to the two ends of one connection.
    EndToEnd(&'static str),
    /// Anything that can be relayed.
    Relayable,
}

pub(crate) fn read(body: &[u8]) -> Result<Authentication<'_>, Malformed> {
    let (rest, code) = be_u32::<_, nom::error::Error<&[u8]>>(body).map_err(|_| Malformed)?;
    Ok(match code {
        0 => Authentication::Ok,
        2 => Authentication::EndToEnd("Kerberos V5"),
        7 => Authentication::EndToEnd("GSSAPI"),
        9 => Authentication::EndToEnd("SSPI"),
        10 => Authentication::Sasl(whole(mechanisms, rest)?),
        _ => Authentication::Relayable,
    })
}

fn mechanisms(input: &[u8]) -> nom::IResult<&[u8], Vec<&[u8]>> {
    let name = nom::combinator::verify(c_string, |name: &[u8]| !name.is_empty());
    terminated(many0(name), tag(&b"\0"[..])).parse(input)
}

/// AuthenticationSASL with these mechanisms.
pub(crate) fn sasl(mechanisms: &[&[u8]]) -> bytes::Bytes {
    let mut body = 10_u32.to_be_bytes().to_vec();
    for mechanism in mechanisms {
        body.extend_from_slice(mechanism);
        body.push(0);
    }
    body.push(0);
    crate::frame::message(b'R', &[&body])
}

/// Whether a SASLInitialResponse says "the client could bind the channel, but thinks that the
/// server cannot" (RFC 5802, section 7: gs2-cbind-flag `y`).
pub(crate) fn says_server_cannot_bind(body: &[u8]) -> bool {
    let Ok((rest, mechanism)) = c_string(body) else {
        return false;
    };
    mechanism.starts_with(b"SCRAM-") && rest.get(4) == Some(&b'y')
}
