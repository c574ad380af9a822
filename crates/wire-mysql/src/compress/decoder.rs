//! From compressed packets to plain bytes.

use bytes::{Buf as _, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as Zstd, InBuffer, Operation as _, OutBuffer};

use super::{Algorithm, Broken, HEADER_BYTES, KEPT_BYTES, ZSTD_WINDOW_LOG_MAX};

/// Unpacks one direction of one leg.
pub struct Decoder {
    algorithm: Algorithm,
    state: State,
    inflate: Option<Box<Decompress>>,
    zstd: Option<Box<Zstd<'static>>>,
}

/// Where in a packet the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    /// Content that is as it is.
    Plain {
        left: usize,
    },
    /// Packed content: bytes to come, and bytes that they must still give.
    Packed(Packed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed {
    left: usize,
    owed: usize,
    claimed: usize,
}

/// One step of an unpacker.
struct Step {
    taken: usize,
    given: usize,
    ended: bool,
}

/// What a call of [`Decoder::read`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// A packet with this sequence number begins.
    Packet(u8),
    /// So many plain bytes were added.
    Bytes(usize),
    /// More is needed.
    Short,
}

impl Decoder {
    /// A decoder before its first packet.
    pub const fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, state: State::Header, inflate: None, zstd: None }
    }

    /// Takes what it can from the front of `wire`, and adds at most `most` bytes to `plain`. Says each
    /// packet's beginning before its content.
    ///
    /// # Errors
    ///
    /// Where a packet can't be read; no call behind that means anything.
    pub fn read(
        &mut self,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        most: usize,
    ) -> Result<Read, Broken> {
        loop {
            match self.state {
                State::Header => return Ok(self.header(wire)?.map_or(Read::Short, Read::Packet)),
                State::Plain { left } => {
                    let part = wire.split_to(left.min(wire.len()).min(most));
                    self.state = match left - part.len() {
                        0 => State::Header,
                        left => State::Plain { left },
                    };
                    plain.extend_from_slice(&part);
                    return Ok(if part.is_empty() { Read::Short } else { Read::Bytes(part.len()) });
                }
                State::Packed(packed) => {
                    let given = self.unpack(packed, wire, plain, most)?;
                    if given > 0 {
                        return Ok(Read::Bytes(given));
                    }
                    if self.state != State::Header {
                        return Ok(Read::Short);
                    }
                }
            }
        }
    }

    /// Whether a packet has begun and not ended.
    pub fn is_within_packet(&self) -> bool {
        self.state != State::Header
    }

    fn header(&mut self, wire: &mut BytesMut) -> Result<Option<u8>, Broken> {
        let Some((head, _)) = wire.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (packed, rest) = head.split_at(3);
        let (&[seq], unpacked) = rest.split_first_chunk::<1>().unwrap_or((&[0], &[]));
        let length = |bytes: &[u8]| {
            bytes.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        let (left, claimed) = (length(packed), length(unpacked));
        if left == 0 {
            return Err(Broken::Empty);
        }
        wire.advance(HEADER_BYTES);
        self.state = match claimed {
            0 => State::Plain { left },
            owed => State::Packed(Packed { left, owed, claimed }),
        };
        Ok(Some(seq))
    }

    /// Unpacks until something came out, or there is nothing more to put in.
    fn unpack(
        &mut self,
        mut packed: Packed,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        most: usize,
    ) -> Result<usize, Broken> {
        loop {
            // One byte of room behind the last: whatever comes there is too much.
            let room = packed.owed.min(most.max(1)) + usize::from(packed.owed <= most);
            let before = plain.len();
            plain.resize(before + room, 0);
            let input = wire.get(..packed.left.min(wire.len())).unwrap_or_default();
            let output = plain.get_mut(before..).unwrap_or_default();
            let step = match self.algorithm {
                Algorithm::Zlib => self.inflate(input, output),
                Algorithm::Zstd => self.unzstd(input, output),
            };
            let step = step.inspect_err(|_| plain.truncate(before))?;
            plain.truncate(before + step.given);
            wire.advance(step.taken);
            packed.left -= step.taken;
            packed.owed = packed.owed.checked_sub(step.given).ok_or(Broken::Long)?;
            if step.ended {
                self.end(packed)?;
                return Ok(step.given);
            }
            match step {
                Step { given: 0, .. } if packed.left == 0 => return Err(Broken::Short),
                Step { given: 0, taken: 0, .. } if !wire.is_empty() => return Err(Broken::Content),
                _ => {}
            }
            self.state = State::Packed(packed);
            if step.given > 0 || step.taken == 0 {
                return Ok(step.given);
            }
        }
    }

    fn end(&mut self, packed: Packed) -> Result<(), Broken> {
        match packed {
            Packed { owed: 1.., .. } => return Err(Broken::Short),
            Packed { left: 1.., .. } => return Err(Broken::Long),
            Packed { claimed, .. } => {
                if claimed > KEPT_BYTES {
                    self.zstd = None;
                }
            }
        }
        if let Some(inflate) = &mut self.inflate {
            inflate.reset(true);
        }
        self.state = State::Header;
        Ok(())
    }

    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Broken> {
        let inflate = self.inflate.get_or_insert_with(|| Box::new(Decompress::new(true)));
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(input, output, FlushDecompress::None)
            .map_err(|_| Broken::Content)?;
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or_default();
        Ok(Step {
            taken: count(inflate.total_in(), before_in),
            given: count(inflate.total_out(), before_out),
            ended: status == Status::StreamEnd,
        })
    }

    fn unzstd(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Broken> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => {
                let mut fresh = Zstd::new().map_err(|_| Broken::Content)?;
                let window = DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX);
                fresh.set_parameter(window).map_err(|_| Broken::Content)?;
                none.insert(Box::new(fresh))
            }
        };
        let mut from = InBuffer::around(input);
        let mut into = OutBuffer::around(output);
        let hint = zstd.run(&mut from, &mut into).map_err(|_| Broken::Content)?;
        Ok(Step { taken: from.pos(), given: into.pos(), ended: hint == 0 })
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { algorithm, state, .. } = self;
        let mut shown = f.debug_struct("Decoder");
        shown.field("algorithm", algorithm).field("state", state).finish_non_exhaustive()
    }
}
