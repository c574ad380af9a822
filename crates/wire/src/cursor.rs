//! A cursor over received bytes that cannot read past their end.
//!
//! Promises: every read is checked, numbers are big-endian as PostgreSQL, SSH and TLS send them,
//! and [`Cursor::finish`] refuses trailing bytes. Cannot do: little-endian (MySQL adds its own).

/// Why bytes could not be read as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Fewer bytes are left than the field takes.
    #[error("ends inside a field")]
    Short,
    /// A string has no terminating zero byte.
    #[error("has a string without its terminating zero byte")]
    Unterminated,
    /// Bytes are left behind the last field.
    #[error("has bytes behind its last field")]
    Trailing,
}

/// A position in received bytes.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Stands before the first of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], CursorError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CursorError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CursorError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CursorError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CursorError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self) -> Result<u16, CursorError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, unsigned.
    pub fn u32(&mut self) -> Result<u32, CursorError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, CursorError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A string up to its zero byte, which is read and left out.
    pub fn c_string(&mut self) -> Result<&'a [u8], CursorError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(CursorError::Unterminated)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// Refuses bytes behind the last field.
    pub const fn finish(self) -> Result<(), CursorError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CursorError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_come_in_order_and_what_is_missing_is_said() {
        let mut cursor = Cursor::new(b"\x01\x00\x02\xff\xff\xff\xff\x00\x00\x00\x03ab\0z");
        assert_eq!(cursor.u8(), Ok(1));
        assert_eq!(cursor.u16(), Ok(2));
        assert_eq!(cursor.i32(), Ok(-1));
        assert_eq!(cursor.u32(), Ok(3));
        assert_eq!(cursor.c_string(), Ok(&b"ab"[..]));
        assert_eq!(cursor.c_string(), Err(CursorError::Unterminated));
        assert_eq!(cursor.finish(), Err(CursorError::Trailing));
        assert_eq!(cursor.take(2), Err(CursorError::Short));
        assert_eq!(cursor.take(1), Ok(&b"z"[..]));
        assert_eq!(cursor.finish(), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_it(bytes in proptest::collection::vec(any::<u8>(), 0..64), count: usize) {
            let mut cursor = Cursor::new(&bytes);
            let before = cursor.rest().len();
            let _ = cursor.c_string();
            let _ = cursor.u32();
            let _ = cursor.take(count);
            prop_assert!(cursor.rest().len() <= before);
        }
    }
}
