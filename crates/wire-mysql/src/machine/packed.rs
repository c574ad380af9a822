//! The compressed protocol, under the machine: of each leg, from the bytes on the wire to the plain packets
//! that the machine looks at, and back.
//!
//! Promises: it begins behind the OK of the login, on both legs with the algorithm that client and server
//! agreed on. What a call unpacks is at most [`STEP_BYTES_MAX`]; for the rest the driver calls again
//! ([`tidegate_wire::Machine::has_more_from_client`]). Nothing is unpacked that the machine does not want.
//! The numbers of compressed packets are each leg's own: they begin anew with each command, and go on
//! through its answer.
//!
//! What goes to the client ends with a plain packet where it can, so that none lies in more than two compressed
//! ones: MySQL's own servers send it so, and not every client reads it otherwise (seen: Connector/Python).
//!
//! Limits: a plain packet for the client waits until it is whole, or 16 MiB - 1 of it are there. Plain bytes
//! that came and wait are at most one packet that the machine holds whole, and a step. The
//! server's numbers are not checked: they say nothing that the order of a connection does not.

use bytes::{Bytes, BytesMut};
use tidegate_wire::Fault;

use super::{Machine, Phase};
use crate::compress::{Broken, Decoder, Encoder, FULL_BYTES, Packing, Read};
use crate::frame::header;
use crate::{Action, Authority};

/// What a call unpacks at most, in bytes, before the driver may look at its queues.
const STEP_BYTES_MAX: usize = 256 * 1024;
/// What is unpacked at once, in bytes.
const PART_BYTES_MAX: usize = 32 * 1024;
/// Plain packets to the client are packed together up to this, in bytes.
const GATHER_BYTES_MAX: usize = 128 * 1024;
/// What a compressed packet to the server holds at most, in bytes.
const SERVER_CONTENT_BYTES_MAX: usize = 256 * 1024;

/// Both legs.
pub(super) struct Packed {
    client: Leg,
    server: Leg,
    gathered: Gathered,
}

/// Plain bytes to the client that are not packed yet.
#[derive(Default)]
struct Gathered {
    bytes: BytesMut,
    /// Where whole packets end.
    whole: usize,
    /// Where the packet that is not whole ends, once its header is there.
    next: usize,
}

impl Gathered {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while self.next <= self.bytes.len() {
            self.whole = self.next;
            let rest = self.bytes.get(self.next..).unwrap_or_default();
            let Some(header) = header(rest) else { break };
            self.next += header.total();
        }
    }

    /// What is whole; all, if it must be; of a packet that does not fit into a compressed one, what does.
    fn take(&mut self, all: bool) -> BytesMut {
        let count = match self.whole {
            _ if all => self.bytes.len(),
            0 if self.bytes.len() >= FULL_BYTES => FULL_BYTES,
            whole => whole,
        };
        let taken = self.bytes.split_to(count);
        self.whole = 0;
        self.next = self.next.saturating_sub(count);
        taken
    }
}

/// One leg: what comes is unpacked, what goes is packed.
struct Leg {
    decoder: Decoder,
    encoder: Encoder,
    /// The number of the next compressed packet, whoever sends it.
    seq: u8,
    /// Plain bytes that came, and wait.
    plain: BytesMut,
    /// More can be unpacked of what is there.
    more: bool,
}

impl Leg {
    fn new(packing: Packing, content_bytes_max: usize) -> Self {
        Self {
            decoder: Decoder::new(packing.algorithm),
            encoder: Encoder::new(packing, content_bytes_max),
            seq: 0,
            plain: BytesMut::new(),
            more: false,
        }
    }

    fn pack(&mut self, plain: &[u8]) -> Bytes {
        let mut wire = BytesMut::new();
        self.seq = self.encoder.write(self.seq, plain, &mut wire);
        wire.freeze()
    }
}

impl Packed {
    fn held_bytes(&self) -> usize {
        let kept = [&self.client.plain, &self.server.plain, &self.gathered.bytes];
        kept.into_iter().map(BytesMut::len).sum()
    }
}

/// Whose bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl<R: Clone> Machine<R> {
    /// From here on both legs are compressed, but not what is already on its way.
    pub(super) fn start_packing(&mut self, packing: Option<Packing>) {
        let (Some(packing), None) = (packing, &self.packed) else { return };
        self.packed = Some(Box::new(Packed {
            client: Leg::new(packing.fastest(), FULL_BYTES),
            server: Leg::new(packing, SERVER_CONTENT_BYTES_MAX),
            gathered: Gathered::default(),
        }));
    }

    pub(super) fn packed_bytes(&self) -> usize {
        self.packed.as_ref().map_or(0, |packed| packed.held_bytes())
    }

    /// Whether a call of [`Machine::from_client`] would take more, though nothing more came.
    pub fn has_more_from_client(&self) -> bool {
        self.packed.as_ref().is_some_and(|packed| packed.client.more) && self.reads_client()
    }

    /// Whether a call of [`Machine::from_server`] would take more, though nothing more came.
    pub fn has_more_from_server(&self) -> bool {
        self.packed.as_ref().is_some_and(|packed| packed.server.more) && self.reads_server()
    }

    /// The next command is the first packet of a new count on the server's leg.
    pub(super) fn count_anew(&mut self) {
        if let Some(packed) = &mut self.packed {
            packed.server.seq = 0;
        }
    }

    /// Bytes for the client, packed later where they are to be.
    pub(super) fn pack_for_client(&mut self, bytes: Bytes) {
        let Some(packed) = &mut self.packed else {
            self.out_bytes += bytes.len();
            self.out.push_back(Action::ToClient(bytes));
            return;
        };
        packed.gathered.add(&bytes);
        if packed.gathered.bytes.len() >= GATHER_BYTES_MAX {
            self.flush_client(false);
        }
    }

    /// Packs what was gathered for the client: whole packets, or all.
    pub(super) fn flush_client(&mut self, all: bool) {
        let Some(packed) = &mut self.packed else { return };
        let plain = packed.gathered.take(all);
        if plain.is_empty() {
            return;
        }
        let bytes = packed.client.pack(&plain);
        self.out_bytes += bytes.len();
        self.out.push_back(Action::ToClient(bytes));
    }

    pub(super) fn pack_for_server(&mut self, authority: Authority<R>, plain: Bytes) {
        let bytes = match &mut self.packed {
            Some(packed) => packed.server.pack(&plain),
            None => plain,
        };
        self.out_bytes += bytes.len();
        self.out.push_back(Action::ToServer { authority, bytes });
    }

    /// Unpacks what the client sent, as far as it is wanted.
    pub(super) fn unpack_from_client(&mut self, now_ns: u64, wire: &mut BytesMut) {
        self.unpack(now_ns, Side::Client, wire);
    }

    /// Unpacks what the server sent, as far as it is wanted.
    pub(super) fn unpack_from_server(&mut self, now_ns: u64, wire: &mut BytesMut) {
        self.unpack(now_ns, Side::Server, wire);
    }

    fn leg(&mut self, side: Side) -> Option<&mut Leg> {
        let packed = self.packed.as_mut()?;
        Some(match side {
            Side::Client => &mut packed.client,
            Side::Server => &mut packed.server,
        })
    }

    fn unpack(&mut self, now_ns: u64, side: Side, wire: &mut BytesMut) {
        let Some(leg) = self.leg(side) else { return };
        let mut plain = std::mem::take(&mut leg.plain);
        let mut budget = STEP_BYTES_MAX;
        let more = loop {
            let wanted = match side {
                Side::Client => {
                    self.take_from_client(now_ns, &mut plain);
                    self.reads_client()
                }
                Side::Server => {
                    self.take_from_server(now_ns, &mut plain);
                    self.reads_server()
                }
            };
            if !wanted || budget == 0 {
                break true;
            }
            match self.unpack_part(side, wire, &mut plain, budget.min(PART_BYTES_MAX)) {
                Ok(Some(bytes)) => budget = budget.saturating_sub(bytes),
                Ok(None) => break false,
                Err(fault) => {
                    self.fail(now_ns, &fault);
                    break false;
                }
            }
        };
        if matches!(self.phase, Phase::Closed) {
            plain.clear();
            wire.clear();
        }
        if let Some(leg) = self.leg(side) {
            leg.plain = plain;
            leg.more = more;
        }
    }

    /// Unpacks some bytes; `None` where more must come first.
    fn unpack_part(
        &mut self,
        side: Side,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        most: usize,
    ) -> Result<Option<usize>, Fault> {
        loop {
            let Some(leg) = self.leg(side) else { return Ok(None) };
            let read = leg.decoder.read(wire, plain, most);
            match read.map_err(|broken| fault(side, broken))? {
                Read::Short => return Ok(None),
                Read::Bytes(bytes) => return Ok(Some(bytes)),
                Read::Packet(seq) => {
                    if side == Side::Client && seq != leg.seq && seq != 0 {
                        return Err(Fault::client("a compressed packet of it is out of sequence"));
                    }
                    if side == Side::Client {
                        // What was said before has the numbers before.
                        self.flush_client(false);
                    }
                    if let Some(leg) = self.leg(side) {
                        leg.seq = seq.wrapping_add(1);
                    }
                }
            }
        }
    }
}

fn fault(side: Side, broken: Broken) -> Fault {
    match side {
        Side::Client => Fault::client(broken.what()),
        Side::Server => Fault::server(broken.what()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::packet;

    #[test]
    fn what_goes_to_the_client_ends_with_a_packet_where_it_can() {
        let mut gathered = Gathered::default();
        let (small, large) = (packet(1, b"small"), packet(2, &vec![7; 300_000]));
        gathered.add(&small);
        gathered.add(&large[..3]);
        assert_eq!(gathered.take(false), small);
        gathered.add(&large[3..200_000]);
        assert!(gathered.take(false).is_empty());
        gathered.add(&large[200_000..]);
        gathered.add(&small[..8]);
        assert_eq!(gathered.take(false), large);
        assert_eq!(gathered.take(true), small[..8]);

        let mut gathered = Gathered::default();
        let full = [&b"\xff\xff\xff\0"[..], &vec![7; FULL_BYTES]].concat();
        gathered.add(&full[..FULL_BYTES + 2]);
        assert_eq!(gathered.take(false).len(), FULL_BYTES);
        gathered.add(&full[FULL_BYTES + 2..]);
        gathered.add(&small);
        assert_eq!(gathered.take(false).len(), 4 + small.len());
    }
}
