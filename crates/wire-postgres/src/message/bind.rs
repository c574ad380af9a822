//! Bind, read as it streams past: names and format codes first, then value by value.
//!
//! Promises: the same parameters come out however the message is cut; of each value at most
//! [`PARAMETER_BYTES_MAX`] bytes are kept, of values behind the first [`PARAMETERS_MAX`] none.

use nom::Parser as _;
use nom::multi::length_count;
use nom::number::complete::be_u16;
use tidegate_event::Parameter;
use tidegate_event::limits::{PARAMETER_BYTES_MAX, PARAMETERS_MAX};

use super::{Malformed, c_string};

/// The front of a Bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindHead<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    pub formats: Vec<u16>,
    pub values: u16,
    /// Bytes of the body that this took.
    pub bytes: usize,
}

/// Reads the front of a Bind's body, of which the rest may be missing.
pub(crate) fn head(body: &[u8]) -> Result<BindHead<'_>, Malformed> {
    let read: nom::IResult<&[u8], _> =
        (c_string, c_string, length_count(be_u16, be_u16), be_u16).parse(body);
    let (rest, (portal, statement, formats, values)) = read.map_err(|_| Malformed)?;
    Ok(BindHead { portal, statement, formats, values, bytes: body.len() - rest.len() })
}

/// What comes next.
#[derive(Debug, Clone)]
enum Next {
    /// A value's length, of which these bytes are there.
    Length(Vec<u8>),
    /// The rest of a value.
    Value {
        head: Vec<u8>,
        left: usize,
        bytes: u64,
    },
    /// The result formats: their count, then two bytes each.
    ResultCount(Vec<u8>),
    ResultFormats {
        left: usize,
    },
}

/// Takes the values from a Bind's body in parts.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    formats: Vec<u16>,
    types: Vec<u32>,
    expected: usize,
    found: Vec<Parameter>,
    /// Result formats, as their bytes.
    results: Vec<u8>,
    next: Next,
}

/// Most result formats that are kept: a result has no more columns (`MaxTupleAttributeNumber`).
const RESULT_FORMATS_MAX: usize = 1664;

/// What a Bind binds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bound {
    pub parameters: Vec<Parameter>,
    /// Format codes of the result's columns.
    pub results: Vec<u16>,
}

impl Values {
    /// Expects what the head announced. `types` are OIDs as far as they are known.
    pub fn new(head: &BindHead<'_>, types: &[u32]) -> Self {
        let expected = usize::from(head.values);
        let next = Self::after_value(0, expected);
        let (formats, types) = (head.formats.clone(), types.to_vec());
        let found = Vec::with_capacity(expected.min(64));
        Self { formats, types, expected, found, results: Vec::new(), next }
    }

    fn after_value(found: usize, expected: usize) -> Next {
        if found < expected { Next::Length(Vec::new()) } else { Next::ResultCount(Vec::new()) }
    }

    /// Takes the next part.
    pub fn feed(&mut self, mut part: &[u8]) -> Result<(), Malformed> {
        loop {
            let next = std::mem::replace(&mut self.next, Next::ResultFormats { left: 0 });
            let waits = match next {
                Next::Length(got) => self.length(got, &mut part)?,
                Next::Value { head, left, bytes } => self.value(head, left, bytes, &mut part),
                Next::ResultCount(mut got) => {
                    let short = fill(&mut got, 2, &mut part);
                    self.next = match got.first_chunk::<2>() {
                        Some(count) => Next::ResultFormats {
                            left: 2 * usize::from(u16::from_be_bytes(*count)),
                        },
                        None => Next::ResultCount(got),
                    };
                    short
                }
                Next::ResultFormats { left } if part.len() > left => return Err(Malformed),
                Next::ResultFormats { left } => {
                    let keep = (2 * RESULT_FORMATS_MAX).saturating_sub(self.results.len());
                    self.results.extend_from_slice(part.get(..keep).unwrap_or(part));
                    self.next = Next::ResultFormats { left: left - part.len() };
                    true
                }
            };
            if waits {
                return Ok(());
            }
        }
    }

    fn length(&mut self, mut got: Vec<u8>, part: &mut &[u8]) -> Result<bool, Malformed> {
        if fill(&mut got, 4, part) {
            self.next = Next::Length(got);
            return Ok(true);
        }
        let length = got.first_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes));
        if length == -1 {
            self.found.push(Parameter::Null);
            self.next = Self::after_value(self.found.len(), self.expected);
            return Ok(false);
        }
        let left = usize::try_from(length).map_err(|_| Malformed)?;
        let bytes = u64::try_from(left).unwrap_or(u64::MAX);
        self.next = Next::Value { head: Vec::new(), left, bytes };
        Ok(false)
    }

    fn value(&mut self, mut head: Vec<u8>, left: usize, bytes: u64, part: &mut &[u8]) -> bool {
        let (now, rest) = part.split_at_checked(left).unwrap_or((*part, &[]));
        *part = rest;
        let keep_max = if self.found.len() < PARAMETERS_MAX { PARAMETER_BYTES_MAX } else { 0 };
        let keep = keep_max.saturating_sub(head.len()).min(now.len());
        head.extend_from_slice(now.get(..keep).unwrap_or_default());
        let left = left - now.len();
        if left > 0 {
            self.next = Next::Value { head, left, bytes };
            return true;
        }
        let parameter = self.parameter(head, bytes);
        self.found.push(parameter);
        self.next = Self::after_value(self.found.len(), self.expected);
        false
    }

    fn parameter(&self, head: Vec<u8>, bytes: u64) -> Parameter {
        let at = self.found.len();
        if u64::try_from(head.len()) != Ok(bytes) {
            return Parameter::Cut { head, bytes };
        }
        // No code: all are text; one code: it is everybody's (manual, "Bind").
        let format = match self.formats.as_slice() {
            [] => 0,
            [all] => *all,
            each => each.get(at).copied().unwrap_or_default(),
        };
        if format == 0 {
            return Parameter::Text(head);
        }
        let type_oid = self.types.get(at).copied().unwrap_or_default();
        Parameter::Binary { type_oid, value: head }
    }

    /// What was bound, if the body ended where it should.
    pub fn finish(self) -> Result<Bound, Malformed> {
        let code = |pair: &[u8]| pair.first_chunk().map_or(0, |pair| u16::from_be_bytes(*pair));
        match self.next {
            Next::ResultFormats { left: 0 } => Ok(Bound {
                parameters: self.found,
                results: self.results.chunks(2).map(code).collect(),
            }),
            _ => Err(Malformed),
        }
    }
}

/// Fills `got` up to `wanted` bytes; `true` when some are still missing.
fn fill(got: &mut Vec<u8>, wanted: usize, part: &mut &[u8]) -> bool {
    let take = wanted.saturating_sub(got.len()).min(part.len());
    let (now, rest) = part.split_at_checked(take).unwrap_or((&[], part));
    got.extend_from_slice(now);
    *part = rest;
    got.len() < wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(formats: &[u16], values: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut body = b"p\0s\0".to_vec();
        let short = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        body.extend(short(formats.len()));
        for format in formats {
            body.extend(format.to_be_bytes());
        }
        body.extend(short(values.len()));
        for value in values {
            let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(value.iter().flatten());
        }
        body.extend(b"\0\x01\0\x01");
        body
    }

    fn read(body: &[u8], cuts: usize) -> Result<Vec<Parameter>, Malformed> {
        let bound = bound(body, cuts)?;
        assert_eq!(bound.results, [1]);
        Ok(bound.parameters)
    }

    fn bound(body: &[u8], cuts: usize) -> Result<Bound, Malformed> {
        let head = head(body)?;
        let mut values = Values::new(&head, &[20]);
        for part in body.get(head.bytes..).unwrap().chunks(cuts) {
            values.feed(part)?;
        }
        values.finish()
    }

    #[test]
    fn values_take_their_formats_and_types() {
        let one = || Some(b"1".to_vec());
        let text = || Parameter::Text(b"1".to_vec());
        let binary = |type_oid| Parameter::Binary { type_oid, value: b"1".to_vec() };
        for (formats, expected) in [
            (&[][..], vec![text(), Parameter::Null, text()]),
            (&[1], vec![binary(20), Parameter::Null, binary(0)]),
            (&[0, 0, 1], vec![text(), Parameter::Null, binary(0)]),
        ] {
            assert_eq!(read(&body(formats, &[one(), None, one()]), 1000), Ok(expected));
        }
        let long = vec![b'x'; PARAMETER_BYTES_MAX + 1];
        let head = vec![b'x'; PARAMETER_BYTES_MAX];
        let cut = Parameter::Cut { head, bytes: 1025 };
        assert_eq!(read(&body(&[], &[Some(long)]), 7), Ok(vec![cut]));
    }

    #[test]
    fn a_body_that_ends_early_or_late_is_refused() {
        let good = body(&[], &[Some(b"value".to_vec())]);
        for end in 4..good.len() {
            assert!(read(good.get(..end).unwrap(), 3).is_err(), "{end}");
        }
        assert!(read(&[good, b"x".to_vec()].concat(), 3).is_err());
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            values in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
            cuts in 1_usize..30,
        ) {
            let body = body(&[1], &values);
            prop_assert_eq!(read(&body, cuts), read(&body, 10_000));
            prop_assert_eq!(read(&body, cuts).map(|found| found.len()), Ok(values.len()));
        }
    }
}
