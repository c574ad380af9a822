//! Reads single fields of a protobuf message out of borrowed bytes.
//!
//! Promise: no allocation, no copy; a message that ends early, or carries a wire type that
//! proto3 does not write, is an error and never a default.
//!
//! Why not the generated code: the chain is checked for every record on its way in, and needs six
//! of its fields; and the auditor's path must not depend on the vocabulary of a later version.

/// A message that is not what its format says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It ends inside a field.
    #[error("ends inside a field, at byte {at}")]
    Short {
        /// Where the field began.
        at: usize,
    },
    /// A varint of more than ten bytes, or a tag that proto3 does not know.
    #[error("no protobuf at byte {at}")]
    Malformed {
        /// Where the field began.
        at: usize,
    },
    /// A field has another type or length than the format says.
    #[error("field {field} is not {expected}")]
    Field {
        /// Its number.
        field: u32,
        /// What it should be.
        expected: &'static str,
    },
    /// A field that must be there once is there again.
    #[error("field {field} is there twice")]
    Twice {
        /// Its number.
        field: u32,
    },
    /// A format version that this code does not know.
    #[error("format version {0}, and only 1 is known")]
    Version(u64),
    /// A Genesis names a chain id that its own fields don't make.
    #[error("the Genesis names chain {named}, but its fields make {made}")]
    ChainId {
        /// What the record says.
        named: tidegate_event::ChainId,
        /// What [`crate::chain_id`] makes of its fields.
        made: tidegate_event::ChainId,
    },
}

/// Whether a message has a field of this number; `false` too for what is no message up to there.
pub fn has_field(message: &[u8], wanted: u32) -> bool {
    let mut fields = Fields::new(message);
    while let Ok(Some((number, _))) = fields.next() {
        if number == wanted {
            return true;
        }
    }
    false
}

/// One field's value, as the wire has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Value<'a> {
    pub(crate) fn varint(self, field: u32) -> Result<u64, FormatError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(FormatError::Field { field, expected: "a varint" }),
        }
    }

    pub(crate) fn fixed64(self, field: u32) -> Result<u64, FormatError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(FormatError::Field { field, expected: "a fixed64" }),
        }
    }

    pub(crate) fn bytes(self, field: u32) -> Result<&'a [u8], FormatError> {
        match self {
            Self::Bytes(value) => Ok(value),
            _ => Err(FormatError::Field { field, expected: "length-delimited" }),
        }
    }

    pub(crate) fn array<const N: usize>(
        self,
        field: u32,
        expected: &'static str,
    ) -> Result<[u8; N], FormatError> {
        self.bytes(field)?.try_into().map_err(|_| FormatError::Field { field, expected })
    }

    pub(crate) fn text(self, field: u32) -> Result<&'a str, FormatError> {
        std::str::from_utf8(self.bytes(field)?)
            .map_err(|_| FormatError::Field { field, expected: "UTF-8" })
    }
}

/// Walks the fields of one message in the order of its bytes.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message, len: message.len() }
    }

    const fn at(&self) -> usize {
        self.len - self.rest.len()
    }

    /// The next field's number and value; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, FormatError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at = self.at();
        let tag = self.varint(at)?;
        let number = u32::try_from(tag >> 3).map_err(|_| FormatError::Malformed { at })?;
        if number == 0 {
            return Err(FormatError::Malformed { at });
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(at)?),
            1 => {
                let (bytes, rest) =
                    self.rest.split_first_chunk::<8>().ok_or(FormatError::Short { at })?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let len =
                    usize::try_from(self.varint(at)?).map_err(|_| FormatError::Malformed { at })?;
                let (bytes, rest) =
                    self.rest.split_at_checked(len).ok_or(FormatError::Short { at })?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => {
                let (_, rest) =
                    self.rest.split_first_chunk::<4>().ok_or(FormatError::Short { at })?;
                self.rest = rest;
                Value::Fixed32
            }
            _ => return Err(FormatError::Malformed { at }),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self, at: usize) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(FormatError::Short { at })?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FormatError::Malformed { at })
    }
}

/// Sets `slot` once; a second time is an error.
pub(crate) fn once<T>(slot: &mut Option<T>, field: u32, value: T) -> Result<(), FormatError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FormatError::Twice { field }),
    }
}
