//! LOCAL INFILE: the server asks the client for a file (manual, "LOCAL INFILE Request").
//!
//! Promises: each file is an operation of its own, with the name that the server asks for. A name that
//! does not stand in the statement is unknown: a server may ask for any file. Where it is refused, the
//! client is never asked; the server gets an empty file, and the client an error in place of the
//! server's answer.
//!
//! Known gap: of several statements in one command, those behind a refused file still run, as they were
//! permitted; what they return does not reach the client.

use bytes::{Bytes, BytesMut};
use tidegate_event::{Action as Does, Copied, Operation, Status, Via};

use super::answer::Asked;
use super::client::{Error, Flow};
use super::server::Awaiting;
use super::statement::{command, unknown};
use super::{Authority, Machine, Op, Step};
use crate::frame::{FULL_BYTES, HEADER_BYTES, header, packet};
use crate::message::error;

/// A file on its way to the server.
pub(super) struct Infile<R> {
    op: Op<R>,
    left: usize,
    bytes: u64,
    last: bool,
}

/// A request that waits for its answer.
pub(super) struct AskedInfile {
    request: Bytes,
    seq: u8,
}

impl AskedInfile {
    pub fn held_bytes(&self) -> usize {
        self.request.len()
    }
}

impl<R: Clone> Machine<R> {
    /// Asks about the file that the server asks for.
    pub(super) fn ask_infile(&mut self, request: Bytes, seq: u8) {
        if let Some(running) = self.session.running.as_mut().filter(|running| running.is_muted()) {
            // The client has been told that the command is over: it sends no file.
            running.awaiting = Awaiting::First;
            return self.framing(packet(seq.wrapping_add(1), &[]));
        }
        let name = request.get(HEADER_BYTES + 1..).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let known = self.session.running.as_ref().and_then(super::Running::known);
        let relation = known.and_then(|known| {
            let named = known.names(&name).then_some(&known.analysis.effects);
            let mut copies = named?.iter().filter(|effect| effect.action == Does::CopyFrom);
            copies.next().map(|effect| effect.relation.clone())
        });
        let analysis = match relation {
            Some(relation) => command("local_infile", Does::CopyFrom, relation),
            None => unknown("the server asks for a file that the statement does not name"),
        };
        let known = Self::known_command("LOCAL INFILE", &name, analysis);
        let operation: Operation = known.operation(Via::Command, String::new(), Vec::new());
        self.ask(Asked::Infile(AskedInfile { request, seq }), operation);
    }

    pub(super) fn infile_permitted(&mut self, op: Op<R>, asked: AskedInfile) {
        self.tell_client(asked.request);
        self.client.next_seq = asked.seq.wrapping_add(1);
        self.client.flow = Flow::Infile(Infile { op, left: 0, bytes: 0, last: false });
    }

    pub(super) fn infile_refused(&mut self, asked: &AskedInfile, refused: &Error) {
        self.framing(packet(asked.seq.wrapping_add(1), &[]));
        let (message, hint) = (&refused.message, refused.hint.as_deref());
        let error = error::response(asked.seq, refused.sqlstate, message, hint);
        if let Some(running) = &mut self.session.running {
            running.awaiting = Awaiting::First;
            running.instead = Some(error);
        }
    }

    /// Takes more of the file; an empty packet ends it.
    pub(super) fn infile_goes_on(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
        mut infile: Infile<R>,
    ) -> Step {
        let authority = Authority::Receipt(infile.op.receipt.clone());
        if infile.left > 0 {
            let passed = bytes.split_to(infile.left.min(bytes.len())).freeze();
            infile.left -= passed.len();
            let step = if passed.is_empty() { Step::Stop } else { Step::More };
            self.tell_server(authority, passed);
            self.client.flow = Flow::Infile(infile);
            return step;
        }
        let Some(next) = header(bytes) else {
            self.client.flow = Flow::Infile(infile);
            return Step::Stop;
        };
        self.tell_server(authority, bytes.split_to(HEADER_BYTES).freeze());
        self.client.next_seq = next.seq.wrapping_add(1);
        if next.payload == 0 && !infile.last {
            self.infile_done(now_ns, &infile);
            return Step::Stop;
        }
        infile.left = next.payload;
        infile.bytes = infile.bytes.saturating_add(u64::try_from(next.payload).unwrap_or(u64::MAX));
        // An empty packet behind a full one ends that packet, and not the file.
        infile.last = next.payload == FULL_BYTES;
        self.client.flow = Flow::Infile(infile);
        Step::More
    }

    fn infile_done(&mut self, now_ns: u64, infile: &Infile<R>) {
        let copied = Copied { bytes_in: infile.bytes, bytes_out: 0 };
        let running = std::mem::take(&mut self.session.progress);
        self.session.progress.copied = Some(copied);
        self.finish(now_ns, &infile.op, Status::Ok);
        self.session.progress = running;
        self.session.progress.copied = Some(copied);
        if let Some(running) = &mut self.session.running {
            running.awaiting = Awaiting::First;
        }
    }

    /// A file that was cut short by the end of its connection.
    pub(super) fn infile_lost(&mut self, now_ns: u64) {
        if let Flow::Infile(infile) = std::mem::replace(&mut self.client.flow, Flow::Command) {
            self.finish(now_ns, &infile.op, Status::Lost);
        }
    }
}
