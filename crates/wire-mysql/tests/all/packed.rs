//! Compressed packets in conversations: put in, and taken out again.

use bytes::BytesMut;
use tidegate_wire_mysql::compress::{Algorithm, Decoder, Encoder, FULL_BYTES, Packing, Read};

/// More than any content of a test.
const MOST: usize = 1 << 24;

/// The bytes of a line's items, in compressed packets where it begins with `zlib N: ` or `zstd N by B: `.
pub fn encode(line: &str, items: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let algorithm = match line.get(..5) {
        Some("zlib ") => Algorithm::Zlib,
        Some("zstd ") => Algorithm::Zstd,
        _ => return items(line),
    };
    let (head, rest) = line[5..].split_once(": ").unwrap();
    let (seq, each) = head.split_once(" by ").unwrap_or((head, "16777215"));
    pack(algorithm, seq.parse().unwrap(), each.parse().unwrap(), &items(rest))
}

fn pack(algorithm: Algorithm, mut seq: u8, each: usize, plain: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Packing { algorithm, level: 1 }, FULL_BYTES);
    let mut wire = BytesMut::new();
    for part in plain.chunks(each) {
        seq = encoder.write(seq, part, &mut wire);
    }
    wire.to_vec()
}

/// What a machine sends to one side, once it is compressed.
pub struct Unpacker(Decoder);

impl Unpacker {
    pub fn new(algorithm: Algorithm) -> Self {
        Self(Decoder::new(algorithm))
    }

    /// The content of each packet, with its number. An action holds whole packets.
    pub fn packets(&mut self, wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut wire = BytesMut::from(wire);
        let mut plain = BytesMut::new();
        let mut packets: Vec<(u8, Vec<u8>)> = Vec::new();
        loop {
            match self.0.read(&mut wire, &mut plain, MOST).unwrap() {
                Read::Packet(seq) => packets.push((seq, Vec::new())),
                Read::Bytes(_) => packets.last_mut().unwrap().1.extend(plain.split()),
                Read::Short => break,
            }
        }
        assert!(wire.is_empty() && !self.0.is_within_packet(), "an action holds part of a packet");
        packets
    }
}
