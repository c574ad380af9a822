//! Packets of MySQL's protocol, and what stands in them (manual, "MySQL Packets", "Protocol Data Types").
//!
//! Promises: a packet is bounded ([`PACKET_BYTES_MAX`]) and comes in its turn; what is cut short is an
//! error.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::MysqlError;
use crate::catalogue::reader::TEXT_BYTES_MAX;

/// Longest packet, in bytes: all texts that are read would fit.
const PACKET_BYTES_MAX: usize = TEXT_BYTES_MAX;

/// A packet of this length goes on in the next one.
const PART_BYTES_MAX: usize = 0xff_ffff;

/// Both directions of a connection.
pub struct Packets<S> {
    stream: S,
    /// The number that the next packet bears, whoever sends it.
    sequence: u8,
}

impl<S> Packets<S> {
    /// A connection at its beginning.
    pub const fn new(stream: S) -> Self {
        Self { stream, sequence: 0 }
    }

    /// The same over another stream that was made of this one.
    pub fn over<T>(self, make: impl FnOnce(S) -> T) -> Packets<T> {
        Packets { stream: make(self.stream), sequence: self.sequence }
    }

    /// The stream, and the number of the next packet.
    pub fn into_parts(self) -> (S, u8) {
        (self.stream, self.sequence)
    }

    /// Goes on with such parts.
    pub const fn from_parts(stream: S, sequence: u8) -> Self {
        Self { stream, sequence }
    }

    /// The next packet begins a command.
    pub const fn begin(&mut self) {
        self.sequence = 0;
    }
}

impl<S: AsyncRead + Unpin> Packets<S> {
    /// Reads one packet into `packet`, in place of what is there.
    pub async fn read(&mut self, packet: &mut Vec<u8>) -> Result<(), MysqlError> {
        packet.clear();
        loop {
            let mut header = [0; 4];
            self.stream.read_exact(&mut header).await?;
            let [low, middle, high, sequence] = header;
            if sequence != self.sequence {
                return Err(MysqlError::Form("a packet out of its turn"));
            }
            self.sequence = self.sequence.wrapping_add(1);
            let [low, middle, high] = [low, middle, high].map(usize::from);
            let bytes = low | middle << 8 | high << 16;
            let before = packet.len();
            if before + bytes > PACKET_BYTES_MAX {
                return Err(MysqlError::Form("a packet that is too long"));
            }
            let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
            // Grows with what comes, not with what is announced.
            (&mut self.stream).take(wanted).read_to_end(packet).await?;
            if packet.len() != before + bytes {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            if bytes < PART_BYTES_MAX {
                return Ok(());
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Packets<S> {
    /// Sends one packet; ours are never so long that they need several.
    pub async fn write(&mut self, payload: &[u8]) -> Result<(), MysqlError> {
        let too_long = || MysqlError::Form("a packet of ours would be too long");
        let bytes = u32::try_from(payload.len()).map_err(|_| too_long())?;
        let [low, middle, high, 0] = bytes.to_le_bytes() else { return Err(too_long()) };
        let mut packet = vec![low, middle, high, self.sequence];
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        Ok(self.stream.flush().await?)
    }
}

/// Reads a packet's fields.
#[derive(Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// From the front of `packet`.
    pub const fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    /// What is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// So many bytes.
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], MysqlError> {
        let cut = MysqlError::Form("a packet that ends too early");
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of `N` bytes, the lowest first.
    pub fn number<const N: usize>(&mut self) -> Result<u64, MysqlError> {
        let bytes = self.take(N)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// What stands before a zero byte; it may be missing at the end of a packet.
    pub fn until_zero(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at_checked(end).unwrap_or((self.0, &[]));
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }

    /// A length-encoded number; `None` for the NULL of a row.
    pub fn length(&mut self) -> Result<Option<u64>, MysqlError> {
        Ok(Some(match self.number::<1>()? {
            0xfb => return Ok(None),
            0xfc => self.number::<2>()?,
            0xfd => self.number::<3>()?,
            0xfe => self.number::<8>()?,
            0xff => return Err(MysqlError::Form("a length that is none")),
            small => small,
        }))
    }

    /// A length-encoded text; `None` for NULL.
    pub fn text(&mut self) -> Result<Option<&'a [u8]>, MysqlError> {
        let Some(bytes) = self.length()? else { return Ok(None) };
        self.take(usize::try_from(bytes).unwrap_or(usize::MAX)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order_and_a_cut_one_is_an_error() {
        let mut fields = Fields::new(b"\x01\x02\x03ab\0\xfb\x02xy\xfc\x01\x00z\xfe\xff");
        assert_eq!(fields.number::<3>().unwrap(), 0x03_0201);
        assert_eq!(fields.until_zero(), b"ab");
        assert_eq!(fields.text().unwrap(), None);
        assert_eq!(fields.text().unwrap(), Some(&b"xy"[..]));
        assert_eq!(fields.text().unwrap(), Some(&b"z"[..]));
        assert!(fields.text().is_err());
        assert_eq!(Fields::new(b"ab").until_zero(), b"ab");
    }

    #[tokio::test]
    async fn packets_of_several_parts_are_one_and_come_in_turn() {
        let mut bytes = vec![0xff, 0xff, 0xff, 0];
        bytes.resize(PART_BYTES_MAX + 4, b'x');
        bytes.extend([1, 0, 0, 1, b'y']);
        let mut packet = Vec::new();
        Packets::new(&bytes[..]).read(&mut packet).await.unwrap();
        assert_eq!((packet.len(), packet.last()), (PART_BYTES_MAX + 1, Some(&b'y')));
        for (bytes, why) in
            [(&[1, 0, 0, 1, b'x'][..], "out of its turn"), (&[2, 0, 0, 0, b'x'], "end of file")]
        {
            let error = Packets::new(bytes).read(&mut packet).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
