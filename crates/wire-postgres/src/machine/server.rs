//! What the server sends in a session.
//!
//! Promises: rows and every message that nobody looks into pass as they come, in parts, without
//! a copy; adjacent ones leave as one piece. A reply that answers nothing, or not what is next, is
//! the server's fault and ends the session: a machine that lost count could swap the wrong error.

use bytes::{Buf as _, Bytes, BytesMut};
use tidegate_event::{Copied, Status};
use tidegate_wire::Fault;

use super::{Machine, Phase, Pipeline, Step};
use crate::config::SERVER_LOOK_BYTES_MAX;
use crate::frame::{HEADER_BYTES, Header, header, kind_name};
use crate::message::status::Transaction;
use crate::message::{Malformed, error, query, status};
use crate::names::Fate;
use crate::replies::{Copy, Expect, Substitute};

/// How much of an ErrorResponse over the limit is read, in bytes.
const ERROR_HEAD_BYTES: usize = 64 * 1024;

/// What the next bytes from the server are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A message's beginning.
    Message,
    /// The rest of one that passes.
    Pass { left: usize, recorded: bool },
    /// The rest of one that does not.
    Drop { left: usize },
    /// The rest of COPY data that goes by a plan.
    Copy { left: usize },
    /// The rest of a row that goes by a plan, and is too long to be held.
    Row { left: usize },
}

/// What to do with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disposition {
    Pass,
    Replace(Bytes),
    /// The session has been ended over it.
    Swallow,
    /// Its header is replaced by this, and its body is read on in another way.
    ReadOn(Reading, Bytes),
}

impl<R: Clone> Machine<R> {
    /// Takes what it can from the server's bytes.
    pub(super) fn read_server(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        let mut scan = 0;
        loop {
            self.run_rows(bytes, &mut scan);
            match self.server_step(now_ns, bytes, &mut scan) {
                Ok(Step::More) => {}
                Ok(Step::Stop) => break,
                Err(fault) => {
                    self.tell_client(bytes.split_to(scan).freeze());
                    self.fail(now_ns, &fault);
                    break;
                }
            }
        }
        if matches!(self.phase, Phase::Closed) {
            bytes.clear();
        } else if scan > 0 {
            self.tell_client(bytes.split_to(scan).freeze());
        }
    }

    /// Rows and COPY data are most of what a server sends: whole ones in a run are counted here, with no more than
    /// their lengths looked at. What is left is read by [`Self::server_step`] as any other message.
    pub(super) fn pass_rows(&mut self, bytes: &[u8], scan: &mut usize) {
        let start = *scan;
        let replies = &mut self.session.replies;
        let mut rest = bytes.get(start..).unwrap_or_default();
        while let Some(([kind @ (b'D' | b'd'), length @ ..], _)) =
            rest.split_first_chunk::<HEADER_BYTES>()
        {
            // The length counts itself and not the kind byte before it.
            let counted = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            let whole = counted.saturating_add(1);
            let Some(behind) = rest.get(whole..).filter(|_| whole >= HEADER_BYTES) else { break };
            rest = behind;
            *scan += whole;
            let data = u64::try_from(whole - HEADER_BYTES).unwrap_or(u64::MAX);
            if *kind == b'D' {
                replies.progress.row(data);
            } else {
                replies.progress.copied(data);
            }
            self.client.waiting = false;
        }
        if let Some(run) = bytes.get(start..*scan).filter(|run| !run.is_empty()) {
            self.record(run);
        }
    }

    /// Takes what of the front operation's result goes to the client.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        self.session.replies.record(bytes, &mut self.out);
    }

    fn server_step(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
        scan: &mut usize,
    ) -> Result<Step, Fault> {
        let there = bytes.len() - *scan;
        match self.reading {
            Reading::Message => {}
            Reading::Pass { left, recorded } => {
                let now = left.min(there);
                let end = *scan + now;
                if recorded {
                    self.record(bytes.get(*scan..end).unwrap_or_default());
                }
                *scan = end;
                return Ok(self.read_on(left - now, |left| Reading::Pass { left, recorded }));
            }
            Reading::Drop { left } => {
                let now = left.min(there);
                self.tell_client(bytes.split_to(*scan).freeze());
                *scan = 0;
                bytes.advance(now);
                return Ok(self.read_on(left - now, |left| Reading::Drop { left }));
            }
            Reading::Copy { left } | Reading::Row { left } => {
                return self.guarded_part(bytes, scan, left);
            }
        }
        let rest = bytes.get(*scan..).unwrap_or_default();
        let bad = |bad: crate::frame::BadLength| {
            Fault::server(format!("a {} claims {} bytes", kind_name(bad.kind), bad.length))
        };
        let Some(header) = header(rest).map_err(bad)? else {
            return Ok(Step::Stop);
        };
        let wanted = wanted_bytes(header)?.max(self.guard_wants(header)).max(shape_wants(header));
        let Some(held) = rest.get(..wanted) else {
            return Ok(Step::Stop);
        };
        let body = held.get(HEADER_BYTES..).unwrap_or_default();
        self.client.waiting = false;
        let recorded = is_of_result(header.kind)
            && matches!(
                self.session.replies.front(),
                Some(Expect::Query(_) | Expect::Execute(_) | Expect::Call(_))
            );
        let disposition = match self.phase {
            Phase::Login(_) => self.login_reply(now_ns, header, body)?,
            _ => self.guarded_reply(now_ns, header, held)?,
        };
        match disposition {
            Disposition::Pass => self.reading = Reading::Pass { left: header.total, recorded },
            Disposition::Replace(instead) => {
                self.tell_client(bytes.split_to(*scan).freeze());
                *scan = 0;
                // What stands for a part of a result is one, or an error.
                if recorded && instead.first().is_some_and(|kind| is_of_result(*kind)) {
                    self.record(&instead);
                }
                self.tell_client(instead);
                self.reading = Reading::Drop { left: header.total };
            }
            Disposition::Swallow => return Ok(Step::Stop),
            Disposition::ReadOn(reading, instead) => {
                self.tell_client(bytes.split_to(*scan).freeze());
                *scan = 0;
                bytes.advance(HEADER_BYTES.min(bytes.len()));
                self.record(&instead);
                self.tell_client(instead);
                self.reading = reading;
            }
        }
        Ok(Step::More)
    }

    pub(super) fn read_on(&mut self, left: usize, on: impl Fn(usize) -> Reading) -> Step {
        self.reading = if left == 0 { Reading::Message } else { on(left) };
        if left == 0 { Step::More } else { Step::Stop }
    }

    pub(super) fn session_reply(
        &mut self,
        now_ns: u64,
        header: Header,
        body: &[u8],
    ) -> Result<Disposition, Fault> {
        let bytes = u64::try_from(header.body_bytes()).unwrap_or(u64::MAX);
        let malformed =
            |Malformed| Fault::server(format!("a {} does not read", kind_name(header.kind)));
        let replies = &mut self.session.replies;
        match (header.kind, replies.front()) {
            (b'D', Some(Expect::Query(_) | Expect::Execute(_))) => {
                replies.progress.row(bytes);
            }
            (b'E', _) => return Ok(self.error_response(now_ns, body)),
            (b'Z', _) => self.ready(now_ns, status::ready(body).map_err(malformed)?)?,
            (b'S', _) => self.parameter_status(body).map_err(malformed)?,
            (b'C', Some(Expect::Query(_) | Expect::Execute(_))) => {
                self.command_complete(now_ns, status::tag(body).map_err(malformed)?);
            }
            (b'd', Some(Expect::Query(_) | Expect::Execute(_))) => replies.progress.copied(bytes),
            (b'G', Some(Expect::Query(_) | Expect::Execute(_))) => self.copy_starts(Copy::In),
            (b'H', Some(Expect::Query(_) | Expect::Execute(_))) => self.copy_starts(Copy::Out),
            (b'W', Some(Expect::Query(_) | Expect::Execute(_))) => self.copy_starts(Copy::Both),
            (b'1', Some(Expect::Parse(_)))
            | (b'I' | b's', Some(Expect::Execute(_)))
            | (b'2', Some(Expect::Bind))
            | (b'3', Some(Expect::Close))
            | (
                b'T' | b'n',
                Some(
                    Expect::DescribeStatement(_)
                    | Expect::DescribePortal(_)
                    | Expect::OurDescribe(_),
                ),
            ) => {
                self.front_done(now_ns, header.kind);
            }
            (b't', Some(Expect::DescribeStatement(described))) => {
                let types = query::parameter_description(body).map_err(malformed)?;
                if let Some(prepared) = described {
                    prepared.describe(types);
                }
            }
            (b'V', Some(Expect::Call(_))) => {
                replies.progress.bytes_out = replies.progress.bytes_out.saturating_add(bytes);
            }
            (b'T' | b'c' | b'I', Some(Expect::Query(_))) | (b'c', Some(Expect::Execute(_))) => {}
            (kind, front) if is_reply(kind) => {
                let next = front.map_or("nothing", Expect::name);
                let got = kind_name(kind);
                return Err(Fault::server(format!("a {got} came where {next} is to be answered")));
            }
            // NoticeResponse, NotificationResponse, and what later versions may bring.
            _ => {}
        }
        Ok(Disposition::Pass)
    }

    pub(super) fn copy_starts(&mut self, copy: Copy) {
        self.session.replies.copy = copy;
        self.session.replies.progress.copied.get_or_insert_with(Copied::default);
    }

    /// The front message has had its last reply, and a good one.
    fn front_done(&mut self, now_ns: u64, kind: u8) {
        let Some((seq, expect)) = self.session.replies.pop() else {
            return;
        };
        self.resolve(seq, Fate::Done);
        if let Some(op) = expect.into_op() {
            let status = match self.session.replies.progress.failure.take() {
                // The gate stopped its result.
                Some((code, message)) => Status::Failed { code, message },
                None if kind == b's' => Status::Suspended,
                None => Status::Ok,
            };
            self.finish(now_ns, &op, status);
        }
    }

    fn command_complete(&mut self, now_ns: u64, tag: &[u8]) {
        let replies = &mut self.session.replies;
        replies.progress.tag(&String::from_utf8_lossy(tag));
        replies.end_copy(false);
        if matches!(replies.front(), Some(Expect::Execute(_))) {
            self.front_done(now_ns, b'C');
        }
    }

    /// ReadyForQuery.
    fn ready(&mut self, now_ns: u64, transaction: Transaction) -> Result<(), Fault> {
        self.session.transaction = transaction;
        let replies = &mut self.session.replies;
        match replies.front() {
            Some(Expect::Query(_) | Expect::Call(_)) => {
                replies.copy = Copy::None;
                if let Some((seq, expect)) = replies.pop() {
                    let failure = self.session.replies.progress.failure.take();
                    // A cursor of a text that failed is not there.
                    let fate = if failure.is_some() { Fate::Failed } else { Fate::Done };
                    self.resolve(seq, fate);
                    let status = match failure {
                        Some((code, message)) => Status::Failed { code, message },
                        None => Status::Ok,
                    };
                    if let Some(op) = expect.into_op() {
                        self.finish(now_ns, &op, status);
                    }
                }
            }
            Some(Expect::Sync) => {
                replies.pop();
            }
            // See the second known gap of `replies.rs`.
            None => {}
            Some(other) => {
                let next = other.name();
                return Err(Fault::server(format!(
                    "a ReadyForQuery came where {next} is to be answered"
                )));
            }
        }
        if transaction == Transaction::Idle {
            self.session.portals.clear();
        }
        let answered = |doubt: u64| self.session.replies.front_seq().is_none_or(|seq| seq > doubt);
        if self.session.doubt.is_some_and(answered) {
            self.session.doubt = None;
        }
        Ok(())
    }

    /// ErrorResponse: whose it is depends on what is next to be answered.
    pub(super) fn error_response(&mut self, now_ns: u64, body: &[u8]) -> Disposition {
        let error = error::read(body);
        let failed = (error.sqlstate, error.message);
        if error.ends_session {
            self.session.replies.progress.failure = Some(failed);
            return Disposition::Pass;
        }
        let replies = &mut self.session.replies;
        match replies.front() {
            None | Some(Expect::Sync | Expect::CopyEnd) => Disposition::Pass,
            Some(Expect::Query(_) | Expect::Call(_)) => {
                replies.end_copy(true);
                // Where the gate stopped it, the first failure is the gate's.
                replies.progress.failure.get_or_insert(failed);
                Disposition::Pass
            }
            Some(Expect::Refused { .. }) => {
                let Some((seq, Expect::Refused { error, by })) = replies.pop() else {
                    return Disposition::Pass;
                };
                self.resolve(seq, Fate::Failed);
                let replies = &mut self.session.replies;
                match by {
                    // Its ReadyForQuery is the server's own, and is all that is still to come.
                    Substitute::Query => replies.unpop(Expect::Sync),
                    Substitute::Parse => self.skip_to_sync(now_ns),
                }
                Disposition::Replace(error)
            }
            Some(_) => {
                replies.end_copy(true);
                if matches!(replies.front(), Some(Expect::OurDescribe(_))) {
                    // What fails to be described fails to be executed.
                    if let Some((seq, _)) = replies.pop() {
                        self.resolve(seq, Fate::Failed);
                    }
                }
                let replies = &mut self.session.replies;
                if let Some((seq, expect)) = replies.pop() {
                    self.resolve(seq, Fate::Failed);
                    let stopped = self.session.replies.progress.failure.take();
                    let (code, message) = stopped.unwrap_or(failed);
                    if let Some(op) = expect.into_op() {
                        self.finish(now_ns, &op, Status::Failed { code, message });
                    }
                }
                self.skip_to_sync(now_ns);
                Disposition::Pass
            }
        }
    }

    /// After a failure the server discards all messages up to the next Sync (manual,
    /// "Pipelining"); so do we with those that the client still sends.
    fn skip_to_sync(&mut self, now_ns: u64) {
        while !matches!(self.session.replies.front(), Some(Expect::Sync)) {
            let Some((seq, expect)) = self.session.replies.pop() else {
                self.session.pipeline = Pipeline::Discarding;
                return;
            };
            self.resolve(seq, Fate::Skipped);
            if let Some(op) = expect.into_op() {
                self.finish(now_ns, &op, Status::Skipped);
            }
        }
    }

    /// Follows the settings that change how a text is read.
    pub(super) fn parameter_status(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let (name, value) = status::parameter(body)?;
        let settings = &mut self.session.settings;
        match name {
            b"standard_conforming_strings" => {
                settings.standard_conforming_strings = value.eq_ignore_ascii_case(b"on");
            }
            // What SQL_ASCII holds is looked at text by text, as UTF-8 is.
            b"client_encoding" => {
                settings.utf8 = [&b"UTF8"[..], b"UNICODE", b"SQL_ASCII"]
                    .iter()
                    .any(|encoding| value.eq_ignore_ascii_case(encoding));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a message of that kind is a part of a result: RowDescription, DataRow, CopyData,
/// FunctionCallResponse.
const fn is_of_result(kind: u8) -> bool {
    matches!(kind, b'T' | b'D' | b'd' | b'V')
}

/// The columns of a result are recorded; a description beyond the limit passes unread.
fn shape_wants(header: Header) -> usize {
    if header.kind == b'T' && header.total <= SERVER_LOOK_BYTES_MAX { header.total } else { 0 }
}

/// Whether a message of that kind answers one of the client's.
pub(super) const fn is_reply(kind: u8) -> bool {
    matches!(
        kind,
        b'1' | b'2' | b'3' | b'C' | b'D' | b'G' | b'H' | b'I' | b'R' | b'T' | b'V' | b'W'
    ) || matches!(kind, b'c' | b'd' | b'n' | b's' | b't')
}

/// How much of a message must be there before it is handled.
fn wanted_bytes(header: Header) -> Result<usize, Fault> {
    match header.kind {
        b'C' | b'E' | b'Z' | b'S' | b't' | b'R' | b'K' if header.total <= SERVER_LOOK_BYTES_MAX => {
            Ok(header.total)
        }
        b'E' => Ok(ERROR_HEAD_BYTES),
        b'C' | b'Z' | b'S' | b't' | b'R' => Err(Fault::server(format!(
            "a {} claims {} bytes; {SERVER_LOOK_BYTES_MAX} are allowed",
            kind_name(header.kind),
            header.total
        ))),
        _ => Ok(HEADER_BYTES),
    }
}
