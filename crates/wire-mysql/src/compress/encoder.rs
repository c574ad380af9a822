//! From plain bytes to compressed packets.

use bytes::{BufMut as _, BytesMut};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::bulk::Compressor;

use super::{Algorithm, COMPRESS_BYTES_MIN, FULL_BYTES, KEPT_BYTES, Packing};

/// Packs one direction of one leg.
pub struct Encoder {
    packing: Packing,
    content_bytes_max: usize,
    deflate: Option<Box<Compress>>,
    zstd: Option<Box<Compressor<'static>>>,
    /// Where content is packed.
    scratch: Vec<u8>,
}

impl Encoder {
    /// An encoder before its first packet, of packets that hold at most `content_bytes_max` (no more
    /// than [`FULL_BYTES`]), unpacked.
    pub const fn new(packing: Packing, content_bytes_max: usize) -> Self {
        Self { packing, content_bytes_max, deflate: None, zstd: None, scratch: Vec::new() }
    }

    /// Adds `plain` to `wire`, in as many packets as it takes, the first of which is numbered `seq`. Gives
    /// the number behind the last.
    pub fn write(&mut self, mut seq: u8, plain: &[u8], wire: &mut BytesMut) -> u8 {
        for content in plain.chunks(self.content_bytes_max.clamp(1, FULL_BYTES)) {
            match self.packed(content) {
                Some(bytes) => {
                    let packed = self.scratch.get(..bytes).unwrap_or_default();
                    put(seq, packed, content.len(), wire);
                }
                None => put(seq, content, 0, wire),
            }
            seq = seq.wrapping_add(1);
        }
        if self.scratch.capacity() > KEPT_BYTES {
            self.scratch = Vec::new();
        }
        seq
    }

    /// Packs `content` into `scratch` where that makes it shorter, and gives the length.
    fn packed(&mut self, content: &[u8]) -> Option<usize> {
        if content.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        self.scratch.resize(content.len() - 1, 0);
        match self.packing.algorithm {
            Algorithm::Zlib => self.deflated(content),
            Algorithm::Zstd => self.zstd(content),
        }
    }

    fn deflated(&mut self, content: &[u8]) -> Option<usize> {
        let level = Compression::new(u32::from(self.packing.level));
        let deflate = self.deflate.get_or_insert_with(|| Box::new(Compress::new(level, true)));
        deflate.reset();
        let status = deflate.compress(content, &mut self.scratch, FlushCompress::Finish).ok()?;
        let bytes = usize::try_from(deflate.total_out()).ok()?;
        (status == Status::StreamEnd).then_some(bytes)
    }

    fn zstd(&mut self, content: &[u8]) -> Option<usize> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => {
                let fresh = Compressor::new(i32::from(self.packing.level)).ok()?;
                none.insert(Box::new(fresh))
            }
        };
        zstd.compress_to_buffer(content, self.scratch.as_mut_slice()).ok()
    }
}

/// One packet; `unpacked` is 0 where the content is as it is.
fn put(seq: u8, content: &[u8], unpacked: usize, wire: &mut BytesMut) {
    let length = |bytes: usize| u64::try_from(bytes).unwrap_or_default();
    wire.put_uint_le(length(content.len()), 3);
    wire.put_u8(seq);
    wire.put_uint_le(length(unpacked), 3);
    wire.put_slice(content);
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("packing", &self.packing).finish_non_exhaustive()
    }
}
