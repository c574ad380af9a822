//! What the client sends in a session.
//!
//! Promises: messages that need no permit pass as they come, adjacent ones as one piece. A Bind is
//! kept back until its Execute was decided with the parameters, so that neither is sent without
//! the other's record; where a Flush, Sync or another message comes first, it goes under the
//! receipt of its Parse. COPY data goes under the receipt of its COPY; data that belongs to no
//! operation goes nowhere, as the server would ignore it.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use tidegate_event::{FunctionCall, Operation, Via};
use tidegate_wire::Fault;

use super::answer::Asked;
use super::statement::{Execution, Portal, Prepared};
use super::{Machine, Pipeline, Step};
use crate::config::{LARGE_MESSAGE_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX};
use crate::frame::{HEADER_BYTES, Header, header, kind_name};
use crate::message::Malformed;
use crate::message::bind::{self, Values};
use crate::message::query::{self, Named};
use crate::names::{Change, Found, Name};
use crate::replies::{Copy, Expect};
use crate::{AskId, Authority, Exempt};

/// The client's side of the machine.
pub(super) struct ClientSide<R> {
    /// Bytes at the front of the client's buffer that are understood but not sent yet.
    scan: usize,
    run: Run<R>,
    pub flow: Flow<R>,
    pub end: ClientEnd,
    /// Nothing is read before the server has said more.
    pub waiting: bool,
}

impl<R> ClientSide<R> {
    /// Whether the server has the beginning of a message, and not yet its end.
    pub fn is_within_message(&self) -> bool {
        matches!(self.flow, Flow::Stream { .. } | Flow::Bind(_))
    }
}

impl<R> Default for ClientSide<R> {
    fn default() -> Self {
        Self {
            scan: 0,
            run: Run::Framing,
            flow: Flow::Message,
            end: ClientEnd::Open,
            waiting: false,
        }
    }
}

/// Whether more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientEnd {
    Open,
    /// It closed its connection, or its half.
    Eof,
    /// A Terminate went to the server, the client's own or ours for it.
    Terminated,
}

/// What the understood bytes are.
enum Run<R> {
    Framing,
    /// A Bind and the Describes behind it: `entries` replies are expected of them.
    Bind {
        authority: Authority<R>,
        entries: usize,
    },
    /// COPY data of this operation.
    Copy {
        id: AskId,
        receipt: R,
    },
}

/// What the next bytes from the client are.
pub(super) enum Flow<R> {
    /// A message's beginning.
    Message,
    /// The rest of one that passes.
    Stream { left: usize, authority: Authority<R> },
    /// The rest of one that does not.
    Drop { left: usize },
    /// The rest of a Bind too long to be held.
    Bind(Box<LongBind<R>>),
}

pub(super) struct LongBind<R> {
    left: usize,
    values: Values,
    portal: Name,
    statement: Option<Arc<Prepared<R>>>,
    authority: Authority<R>,
}

/// Longest message of that kind; `None` for a kind that no client sends in a session.
const fn bytes_max(kind: u8) -> Option<usize> {
    match kind {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(LARGE_MESSAGE_BYTES_MAX),
        b'E' | b'D' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL_MESSAGE_BYTES_MAX),
        _ => None,
    }
}

fn malformed(what: &'static str) -> impl Fn(Malformed) -> Fault {
    move |Malformed| Fault::client(format!("its {what} message does not read"))
}

impl<R: Clone> Machine<R> {
    /// Takes the message, or the part of one, at the front.
    pub(super) fn session_message(&mut self, bytes: &mut BytesMut) -> Result<Step, Fault> {
        match std::mem::replace(&mut self.client.flow, Flow::Message) {
            Flow::Message => {}
            Flow::Stream { left, authority } => return Ok(self.stream(bytes, left, authority)),
            Flow::Drop { left } => return Ok(self.discard(bytes, left)),
            Flow::Bind(long) => return self.long_bind_goes_on(bytes, *long),
        }
        let discarding = self.session.pipeline == Pipeline::Discarding;
        if discarding && self.client.scan > 0 {
            // A Bind that was kept back belongs to what is discarded.
            bytes.advance(self.client.scan.min(bytes.len()));
            self.client.scan = 0;
            self.client.run = Run::Framing;
        }
        let rest = bytes.get(self.client.scan..).unwrap_or_default();
        let bad = |bad: crate::frame::BadLength| {
            let kind = kind_name(bad.kind);
            Fault::client(format!("its {kind} message claims {} bytes", bad.length))
        };
        let Some(header) = header(rest).map_err(bad)? else {
            return Ok(Step::Stop);
        };
        check_size(header)?;
        if discarding && !matches!(header.kind, b'S' | b'X') {
            self.client.flow = Flow::Drop { left: header.total };
            return Ok(Step::More);
        }
        if !matches!(header.kind, b'd' | b'c' | b'f' | b'X') && self.is_full() {
            // The server may keep answers back until it is told to flush.
            self.release(bytes);
            self.framing(crate::frame::message(b'H', &[]));
            self.client.waiting = true;
            return Ok(Step::Stop);
        }
        self.dispatch(header, bytes)
    }

    fn dispatch(&mut self, header: Header, bytes: &mut BytesMut) -> Result<Step, Fault> {
        let limits = self.config.limits;
        let wanted = match header.kind {
            b'd' => HEADER_BYTES,
            b'Q' | b'P' if header.total > limits.sql_message_bytes_max => limits.sql_head_bytes,
            b'B' | b'F' => header.total.min(limits.held_message_bytes_max),
            _ => header.total,
        };
        if bytes.len() - self.client.scan < wanted {
            return Ok(Step::Stop);
        }
        match header.kind {
            b'Q' => self.query(header, wanted, bytes),
            b'P' => self.parse(header, wanted, bytes),
            b'B' => self.bind(header, wanted, bytes),
            b'E' => self.execute(header, bytes),
            b'F' => self.function_call(header, wanted, bytes),
            b'D' => self.describe(header, bytes),
            b'C' => self.close_name(header, bytes),
            b'd' | b'c' | b'f' => Ok(self.copy_message(header, bytes)),
            _ => self.bare(header, bytes),
        }
    }

    fn query(&mut self, header: Header, held: usize, bytes: &mut BytesMut) -> Result<Step, Fault> {
        self.release(bytes);
        let message = bytes.split_to(held).freeze();
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let known = if held == header.total {
            self.known(query::query(body).map_err(malformed("Query"))?)
        } else {
            self.known_by_head(body, header.body_bytes().saturating_sub(1))
        };
        let operation = known.operation(Via::Simple, String::new(), Vec::new());
        let left = header.total - held;
        self.ask(Asked::Query { message, left, known }, operation);
        Ok(Step::Stop)
    }

    fn parse(&mut self, header: Header, held: usize, bytes: &mut BytesMut) -> Result<Step, Fault> {
        self.release(bytes);
        let message = bytes.split_to(held).freeze();
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let (name, known, types) = if held == header.total {
            let parse = query::parse(body).map_err(malformed("Parse"))?;
            (parse.name.to_vec(), self.known(parse.text), parse.types)
        } else {
            let (name, text) = query::parse_head(body).map_err(malformed("Parse"))?;
            // What follows the text (types) can't be told from it before it is there.
            let rest = header.body_bytes().saturating_sub(name.len() + 1 + 1 + 2);
            (name.to_vec(), self.known_by_head(text, rest), Vec::new())
        };
        let prepared = String::from_utf8_lossy(&name).into_owned();
        let operation = known.operation(Via::Parse, prepared, Vec::new());
        let left = header.total - held;
        self.ask(Asked::Parse { message, left, name, known, types }, operation);
        Ok(Step::Stop)
    }

    fn bind(&mut self, header: Header, held: usize, bytes: &mut BytesMut) -> Result<Step, Fault> {
        self.release(bytes);
        let message = bytes.get(..held).unwrap_or_default();
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let front = bind::head(body).map_err(malformed("Bind"))?;
        let statement = match self.session.statements.find(front.statement, self.session.segment) {
            Found::Value(statement) => Some(statement),
            Found::Wait if self.may_wait() => {
                self.client.waiting = true;
                return Ok(Step::Stop);
            }
            Found::Unknown | Found::Wait => None,
        };
        let types = statement.as_ref().map_or(&[][..], |statement| statement.types());
        let mut values = Values::new(&front, types);
        values.feed(body.get(front.bytes..).unwrap_or_default()).map_err(malformed("Bind"))?;
        let portal = front.portal.to_vec();
        let authority = match &statement {
            Some(statement) => Authority::Receipt(statement.receipt.clone()),
            None => Authority::Exempt(Exempt::Framing),
        };
        if held < header.total {
            let left = header.total - held;
            let message = bytes.split_to(held).freeze();
            self.tell_server(authority.clone(), message);
            let long = LongBind { left, values, portal, statement, authority };
            self.client.flow = Flow::Bind(Box::new(long));
            return Ok(Step::More);
        }
        let bound = values.finish().map_err(malformed("Bind"))?;
        self.bound(portal, Portal::new(statement, bound));
        self.client.run = Run::Bind { authority, entries: 1 };
        self.client.scan = held;
        Ok(Step::More)
    }

    fn bound(&mut self, name: Name, portal: Portal<R>) {
        let seq = self.expect_in_pipeline(Expect::Bind);
        let segment = self.session.segment;
        if !name.is_empty() {
            self.session.cursors.change(seq, segment, Change::Remove(name.clone()));
        }
        self.session.portals.change(seq, segment, Change::Set(name, Arc::new(portal)));
    }

    fn long_bind_goes_on(
        &mut self,
        bytes: &mut BytesMut,
        mut long: LongBind<R>,
    ) -> Result<Step, Fault> {
        let part = bytes.split_to(long.left.min(bytes.len())).freeze();
        long.values.feed(&part).map_err(malformed("Bind"))?;
        long.left -= part.len();
        self.tell_server(long.authority.clone(), part);
        if long.left > 0 {
            self.client.flow = Flow::Bind(Box::new(long));
            return Ok(Step::Stop);
        }
        let bound = long.values.finish().map_err(malformed("Bind"))?;
        // While it streamed, the pipeline may have failed; then the server has discarded it.
        if self.session.pipeline != Pipeline::Discarding || self.session.guard.is_muted() {
            self.bound(long.portal, Portal::new(long.statement, bound));
        }
        Ok(Step::More)
    }

    fn execute(&mut self, header: Header, bytes: &mut BytesMut) -> Result<Step, Fault> {
        let end = self.client.scan + header.total;
        let body = bytes.get(self.client.scan + HEADER_BYTES..end).unwrap_or_default();
        let portal_name = query::execute(body).map_err(malformed("Execute"))?.to_vec();
        let Some(Execution { operation, known, portal }) = self.execution(&portal_name) else {
            self.client.waiting = true;
            return Ok(Step::Stop);
        };
        let held_entries = match self.client.run {
            Run::Bind { entries, .. } => entries,
            Run::Framing | Run::Copy { .. } => {
                self.release(bytes);
                0
            }
        };
        let end = self.client.scan + header.total;
        let message = bytes.split_to(end.min(bytes.len())).freeze();
        self.client.scan = 0;
        self.client.run = Run::Framing;
        let at = message.len().saturating_sub(header.total);
        let asked = Asked::Execute { message, at, held_entries, portal_name, portal, known };
        self.ask(asked, operation);
        Ok(Step::Stop)
    }

    fn function_call(
        &mut self,
        header: Header,
        held: usize,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        self.release(bytes);
        let message = bytes.split_to(held).freeze();
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let (oid, arguments) = query::function_call(body).map_err(malformed("FunctionCall"))?;
        let operation = Operation::FunctionCall(FunctionCall { oid, arguments });
        self.ask(Asked::Call { message, left: header.total - held }, operation);
        Ok(Step::Stop)
    }

    fn describe(&mut self, header: Header, bytes: &mut BytesMut) -> Result<Step, Fault> {
        if matches!(self.client.run, Run::Copy { .. }) {
            self.release(bytes);
        }
        let body = body_at(bytes, self.client.scan, header);
        let expect = match query::named(body).map_err(malformed("Describe"))? {
            Named::Portal(name) => Expect::DescribePortal(
                match self.session.portals.find(name, self.session.segment) {
                    Found::Value(portal) => Some(portal),
                    Found::Unknown | Found::Wait => None,
                },
            ),
            // Its types are a help, not a need: a name that can't be resolved yet has none.
            Named::Statement(name) => Expect::DescribeStatement(
                match self.session.statements.find(name, self.session.segment) {
                    Found::Value(statement) => Some(statement),
                    Found::Unknown | Found::Wait => None,
                },
            ),
        };
        self.expect_in_pipeline(expect);
        if let Run::Bind { entries, .. } = &mut self.client.run {
            *entries += 1;
        }
        self.client.scan += header.total;
        Ok(Step::More)
    }

    fn close_name(&mut self, header: Header, bytes: &mut BytesMut) -> Result<Step, Fault> {
        self.release_unless_framing(bytes);
        let body = body_at(bytes, self.client.scan, header);
        let named = query::named(body).map_err(malformed("Close"))?;
        let seq = self.expect_in_pipeline(Expect::Close);
        let segment = self.session.segment;
        match named {
            Named::Statement(name) => {
                self.session.statements.change(seq, segment, Change::Remove(name.to_vec()));
            }
            Named::Portal(name) => {
                self.session.portals.change(seq, segment, Change::Remove(name.to_vec()));
            }
        }
        self.client.scan += header.total;
        Ok(Step::More)
    }

    /// Flush, Sync, Terminate: no body.
    fn bare(&mut self, header: Header, bytes: &mut BytesMut) -> Result<Step, Fault> {
        if header.body_bytes() > 0 {
            let kind = kind_name(header.kind);
            return Err(Fault::client(format!("its {kind} message has a body")));
        }
        if matches!(self.client.run, Run::Copy { .. }) {
            self.release(bytes);
        }
        self.client.scan += header.total;
        if header.kind == b'S' {
            self.session.replies.push(Expect::Sync);
            self.session.pipeline = Pipeline::Synced;
            self.session.segment += 1;
        }
        if matches!(self.client.run, Run::Bind { .. }) || header.kind == b'X' {
            self.release(bytes);
        }
        if header.kind == b'X' {
            self.client.end = ClientEnd::Terminated;
            return Ok(Step::Stop);
        }
        Ok(Step::More)
    }

    fn copy_message(&mut self, header: Header, bytes: &mut BytesMut) -> Step {
        let Some(op) = self.session.replies.copy_op() else {
            self.release(bytes);
            self.client.flow = Flow::Drop { left: header.total };
            return Step::More;
        };
        if !matches!(self.client.run, Run::Copy { id, .. } if id == op.id) {
            let run = Run::Copy { id: op.id, receipt: op.receipt.clone() };
            self.release(bytes);
            self.client.run = run;
        }
        if header.kind == b'd' {
            let moved = u64::try_from(header.body_bytes()).unwrap_or(u64::MAX);
            let progress = &mut self.session.replies.progress;
            progress.copied_in = progress.copied_in.saturating_add(moved);
        } else {
            self.session.replies.push(Expect::CopyEnd);
        }
        let there = header.total.min(bytes.len() - self.client.scan);
        self.client.scan += there;
        if there < header.total {
            let authority = self.release(bytes);
            self.client.flow = Flow::Stream { left: header.total - there, authority };
            return Step::Stop;
        }
        Step::More
    }

    fn stream(&mut self, bytes: &mut BytesMut, left: usize, authority: Authority<R>) -> Step {
        let part = bytes.split_to(left.min(bytes.len())).freeze();
        let left = left - part.len();
        self.tell_server(authority.clone(), part);
        if left == 0 {
            return Step::More;
        }
        self.client.flow = Flow::Stream { left, authority };
        Step::Stop
    }

    fn discard(&mut self, bytes: &mut BytesMut, left: usize) -> Step {
        let now = left.min(bytes.len());
        bytes.advance(now);
        if left == now {
            return Step::More;
        }
        self.client.flow = Flow::Drop { left: left - now };
        Step::Stop
    }

    fn expect_in_pipeline(&mut self, expect: Expect<R>) -> u64 {
        if self.session.pipeline == Pipeline::Synced {
            self.session.pipeline = Pipeline::Open;
        }
        self.session.replies.push(expect)
    }

    fn is_full(&self) -> bool {
        let session = &self.session;
        session.replies.len() >= self.config.limits.replies_max
            || session.statements.is_over()
            || session.portals.is_over()
    }

    /// Whether the server will answer without more from the client: not while it takes COPY data.
    pub(super) const fn may_wait(&self) -> bool {
        !matches!(self.session.replies.copy, Copy::In | Copy::Both)
    }

    /// How many replies are expected of a Bind that is kept back; they count no more.
    pub(super) const fn take_held_entries(&mut self) -> usize {
        match &mut self.client.run {
            Run::Bind { entries, .. } => std::mem::replace(entries, 0),
            Run::Framing | Run::Copy { .. } => 0,
        }
    }

    /// Sends the understood bytes, and says under which authority.
    pub(super) fn release(&mut self, bytes: &mut BytesMut) -> Authority<R> {
        let authority = match std::mem::replace(&mut self.client.run, Run::Framing) {
            Run::Framing => Authority::Exempt(Exempt::Framing),
            Run::Bind { authority, .. } => authority,
            Run::Copy { receipt, .. } => Authority::Receipt(receipt),
        };
        // Most often there is nothing, and to split nothing off costs as much as to split something.
        if self.client.scan > 0 {
            let piece = bytes.split_to(self.client.scan.min(bytes.len())).freeze();
            self.client.scan = 0;
            self.tell_server(authority.clone(), piece);
        }
        authority
    }

    fn release_unless_framing(&mut self, bytes: &mut BytesMut) {
        if !matches!(self.client.run, Run::Framing) {
            self.release(bytes);
        }
    }

    /// Sends the understood bytes but for a Bind whose Execute may come.
    pub(super) fn release_unless_held(&mut self, bytes: &mut BytesMut) {
        if !matches!(self.client.run, Run::Bind { .. }) {
            self.release(bytes);
        }
    }
}

fn check_size(header: Header) -> Result<(), Fault> {
    let Header { kind, total } = header;
    match bytes_max(kind) {
        Some(max) if total <= max => Ok(()),
        Some(max) => Err(Fault::client(format!(
            "its {} message claims {total} bytes; {max} are allowed",
            kind_name(kind)
        ))),
        None => {
            Err(Fault::client(format!("a {} message is not one of a session's", kind_name(kind))))
        }
    }
}

fn body_at(bytes: &BytesMut, scan: usize, header: Header) -> &[u8] {
    bytes.get(scan + HEADER_BYTES..scan + header.total).unwrap_or_default()
}
