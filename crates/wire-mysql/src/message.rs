//! Payloads of the packets that the machine looks into, named as in the manual.
//!
//! Promises: borrowed, no allocation in proportion to a claimed length. A payload that does not read is
//! [`Malformed`], and the caller says whose fault that is.

pub(crate) mod column;
pub(crate) mod error;
pub(crate) mod greeting;
pub(crate) mod ok;
pub(crate) mod response;
pub(crate) mod value;

use tidegate_wire::{Cursor, CursorError};

/// A payload that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<CursorError> for Malformed {
    fn from(_: CursorError) -> Self {
        Self
    }
}

/// A cursor with MySQL's little-endian numbers and length-encoded fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(Cursor::new(bytes))
    }

    pub const fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }

    pub const fn is_empty(&self) -> bool {
        self.0.rest().is_empty()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        Ok(self.0.take(count)?)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.0.u8()?)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(self.0.u16()?.swap_bytes())
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.0.u32()?.swap_bytes())
    }

    /// A number of `count` bytes, at most 8.
    pub fn number(&mut self, count: usize) -> Result<u64, Malformed> {
        let bytes = self.take(count)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length-encoded number (manual, "Protocol::LengthEncodedInteger").
    pub fn lenenc(&mut self) -> Result<u64, Malformed> {
        match self.u8()? {
            0xfc => self.number(2),
            0xfd => self.number(3),
            0xfe => self.number(8),
            0xfb | 0xff => Err(Malformed),
            small => Ok(u64::from(small)),
        }
    }

    /// A string with its length-encoded length.
    pub fn lenenc_string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.lenenc()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// A string up to its zero byte.
    pub fn c_string(&mut self) -> Result<&'a [u8], Malformed> {
        Ok(self.0.c_string()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian_and_lengths_are_checked() {
        for (bytes, number) in [
            (&b"\x07"[..], Ok(7)),
            (b"\xfa", Ok(250)),
            (b"\xfc\x01\x02", Ok(0x201)),
            (b"\xfd\x01\x02\x03", Ok(0x03_0201)),
            (b"\xfe\x01\0\0\0\0\0\0\x80", Ok(0x8000_0000_0000_0001)),
            (b"\xfb", Err(Malformed)),
            (b"\xff", Err(Malformed)),
            (b"\xfc\x01", Err(Malformed)),
        ] {
            assert_eq!(Reader::new(bytes).lenenc(), number, "{bytes:?}");
        }
        assert_eq!(Reader::new(b"\x02abc").lenenc_string(), Ok(&b"ab"[..]));
        assert_eq!(
            Reader::new(b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f").lenenc_string(),
            Err(Malformed)
        );
        let mut reader = Reader::new(b"\x01\x02\x03\x04\x05\x06ab\0c");
        assert_eq!((reader.u16(), reader.u32()), (Ok(0x201), Ok(0x0605_0403)));
        assert_eq!((reader.c_string(), reader.rest()), (Ok(&b"ab"[..]), &b"c"[..]));
    }
}
