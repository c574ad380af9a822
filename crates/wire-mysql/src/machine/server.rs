//! What the server sends in a session: results.
//!
//! Promises: bytes pass in the pieces in which they came; only the first bytes of rows are looked at.
//! A command is done when its last result is, however many it has.

use bytes::{Buf as _, Bytes, BytesMut};
use tidegate_event::{Copied, Masked, Outcome, Status};
use tidegate_recording::Recorder;
use tidegate_wire::Fault;

use super::answer::Then;
use super::client::{ClientEnd, Flow};
use super::statement::Known;
use super::{Machine, Op, Phase, Step};
use crate::capability::{CACHE_METADATA, DEPRECATE_EOF, PROGRESS};
use crate::config::{COLUMNS_MAX, SERVER_LOOK_BYTES_MAX, TAGS_BYTES_MAX};
use crate::delivery::{Delivery, Stage};
use crate::frame::{FULL_BYTES, HEADER_BYTES, Header, header};
use crate::message::error::{self, ERR};
use crate::message::{Malformed, Reader, ok};
use crate::statements::Prepared;

/// First byte of a LOCAL INFILE request.
const LOCAL_INFILE: u8 = 0xfb;

/// What the server's next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A packet's beginning.
    Packet,
    /// The rest of a row, of which another packet may follow.
    Row { left: usize, goes_on: bool },
    /// The beginning of a packet that goes on with a row.
    MoreOfRow,
}

/// What is awaited of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaiting {
    /// A result's first packet.
    First,
    /// So many column definitions.
    Columns(u64),
    /// The EOF behind them.
    ColumnsEnd,
    /// Rows, and their end.
    Rows,
    /// Nothing: the rows wait for COM_STMT_FETCH.
    Cursor,
    /// The answer to COM_STMT_PREPARE.
    Prepared,
    /// So many packets behind it.
    Definitions(u64),
    /// Column definitions up to an EOF.
    FieldList,
    /// One packet of any content.
    One,
    /// Packets until the connection or the server ends them.
    Stream,
}

/// The command under way.
pub(super) struct Running<R> {
    pub op: Option<Op<R>>,
    pub awaiting: Awaiting,
    pub then: Then,
    /// What the client gets instead of what is still to come.
    pub instead: Option<Bytes>,
    /// What its results are subject to.
    pub delivery: Delivery,
}

impl<R> Running<R> {
    pub fn new(op: Op<R>, awaiting: Awaiting, then: Then, delivery: Delivery) -> Self {
        Self { op: Some(op), awaiting, then, instead: None, delivery }
    }

    /// A command that carries no operation.
    pub fn exempt() -> Self {
        let awaiting = Awaiting::First;
        let delivery = Delivery::default();
        Self { op: None, awaiting, then: Then::Plain(awaiting), instead: None, delivery }
    }

    /// Its text, where it has one.
    pub fn known(&self) -> Option<&Known> {
        match &self.then {
            Then::Text(_, known) | Then::Execute { known, .. } => Some(known),
            Then::Plain(_) | Then::Fetch(_) | Then::InitDb(_) | Then::ResetConnection => None,
        }
    }

    /// Whether its rows are binary.
    pub const fn is_binary(&self) -> bool {
        matches!(self.then, Then::Execute { .. } | Then::Fetch(_))
    }

    /// Whether what the server says of it goes nowhere.
    pub const fn is_muted(&self) -> bool {
        self.instead.is_some() || self.delivery.stopped.is_some()
    }

    const fn has_cursor(&self) -> bool {
        matches!(self.then, Then::Execute { cursor: true, .. })
    }
}

/// What the command under way has come to.
#[derive(Default)]
pub(super) struct Progress {
    rows: u64,
    rows_here: u64,
    bytes_out: u64,
    pub copied: Option<Copied>,
    tags: String,
    pub failure: Option<(String, String)>,
    /// Takes the result as it leaves; there from its first bytes on.
    pub recorder: Option<Box<Recorder>>,
    /// What was kept from the client.
    pub masked: Option<Masked>,
}

impl Progress {
    /// The outcome, leaving nothing for the next operation.
    pub fn outcome(&mut self, status: Status, duration_ns: u64) -> Outcome {
        let done = std::mem::take(self);
        let rows = done.rows.saturating_add(done.rows_here);
        let (bytes_out, copied, tags) = (done.bytes_out, done.copied, done.tags);
        let masked = done.masked;
        Outcome {
            status,
            rows,
            bytes_out,
            copied,
            duration_ns,
            tags,
            masked,
            result: None,
            carried: None,
        }
    }

    /// Counts a row's first packet, or all of one.
    pub fn row(&mut self, bytes: usize) {
        self.rows_here = self.rows_here.saturating_add(1);
        self.bytes(bytes);
    }

    /// Counts bytes of rows.
    pub fn bytes(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes_out = self.bytes_out.saturating_add(bytes);
    }

    /// How an operation ended whose connection did.
    pub fn lost(&mut self) -> Status {
        match self.failure.take() {
            Some((code, message)) => Status::Failed { code, message },
            None => Status::Lost,
        }
    }

    fn tag(&mut self, what: &str, count: u64, warnings: u16) {
        self.rows = self.rows.saturating_add(count);
        self.rows_here = 0;
        let separator = if self.tags.is_empty() { "" } else { "; " };
        let warned = if warnings == 0 { String::new() } else { format!(", {warnings} warnings") };
        let tag = format!("{separator}{what} {count}{warned}");
        if self.tags.len() + tag.len() <= TAGS_BYTES_MAX {
            self.tags.push_str(&tag);
        }
    }
}

/// What becomes of a packet.
enum Next {
    /// It passes; the command goes on with this.
    Goes(Awaiting),
    /// The same for a part of a result's head.
    Head(Awaiting),
    /// It passes, and the command is done.
    Done(Status),
    /// It is a request for a local file.
    Infile,
}

/// What of the server's bytes was understood.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// So many bytes at the front.
    pub at: usize,
    /// The last of them, from here on, belong to a result that is recorded.
    pub result_from: Option<usize>,
}

impl Scan {
    /// Takes `count` bytes more; `result` says whether they are a result's.
    pub fn take(&mut self, count: usize, result: bool) {
        if result && self.result_from.is_none() {
            self.result_from = Some(self.at);
        }
        self.at += count;
    }
}

impl<R: Clone> Machine<R> {
    /// Takes what the server sent.
    pub(super) fn read_session(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        let mut scan = Scan::default();
        let done = loop {
            match self.scan(now_ns, bytes, &mut scan) {
                Ok(Step::More) if !matches!(self.phase, Phase::Session) => break Ok(Step::More),
                Ok(Step::More) => {}
                other => break other,
            }
        };
        self.pass(bytes, &mut scan);
        done
    }

    /// Lets what was understood through, behind rows that were rewritten before it, unless the client gets
    /// something else.
    pub(super) fn pass(&mut self, bytes: &mut BytesMut, scan: &mut Scan) {
        self.record(bytes, scan);
        let count = std::mem::take(&mut scan.at).min(bytes.len());
        if let Some(running) = &mut self.session.running {
            let out = std::mem::take(&mut running.delivery.out);
            if running.is_muted() {
                return bytes.advance(count);
            }
            self.tell_client(out.into());
        }
        if count > 0 {
            let passed = bytes.split_to(count).freeze();
            self.tell_client(passed);
        }
    }

    /// Takes one packet, or the part of a row, behind those that were understood.
    fn scan(&mut self, now_ns: u64, bytes: &mut BytesMut, scan: &mut Scan) -> Result<Step, Fault> {
        let rest = bytes.get(scan.at..).unwrap_or_default();
        if let Reading::Row { left, goes_on } = self.reading {
            let here = left.min(rest.len());
            scan.take(here, true);
            self.reading = match left - here {
                0 if goes_on => Reading::MoreOfRow,
                0 => Reading::Packet,
                left => Reading::Row { left, goes_on },
            };
            return Ok(if here < left { Step::Stop } else { Step::More });
        }
        let Some(header) = header(rest) else {
            return Ok(Step::Stop);
        };
        if self.reading == Reading::MoreOfRow {
            self.session.progress.bytes(header.payload);
            self.begin_row(header, scan);
            return Ok(Step::More);
        }
        let payload = rest.get(HEADER_BYTES..).unwrap_or_default();
        let awaiting = self.session.running.as_ref().map(|running| running.awaiting);
        let looks_whole = match (awaiting, payload.first()) {
            _ if header.payload == 0 => return Err(Fault::server("an empty packet")),
            (_, None) => return Ok(Step::Stop),
            (Some(Awaiting::Rows), Some(&first)) => !is_row(first, header),
            (Some(Awaiting::Stream), Some(&first)) => first == ERR || is_eof(first, header),
            _ => true,
        };
        if !looks_whole {
            return self.row(bytes, header, scan);
        }
        if header.payload > SERVER_LOOK_BYTES_MAX {
            let bytes = header.payload;
            return Err(Fault::server(format!("a packet that is no row has {bytes} bytes")));
        }
        if payload.len() < header.payload {
            return Ok(Step::Stop);
        }
        self.packet(now_ns, bytes, header, scan)
    }

    /// Takes a packet that is there whole, and no row.
    fn packet(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
        header: Header,
        scan: &mut Scan,
    ) -> Result<Step, Fault> {
        let begin = scan.at + HEADER_BYTES;
        let payload = bytes.get(begin..begin + header.payload).unwrap_or_default();
        self.client.next_seq = header.seq.wrapping_add(1);
        let Some(mut running) = self.session.running.take() else {
            return self.unasked(payload, header, scan);
        };
        let awaits_rows = running.awaiting == Awaiting::Rows;
        let first = payload.first().copied();
        let next = self.look(&mut running, payload, header);
        self.session.running = Some(running);
        let next = next?;
        // What ends rows is a part of the result, too: without it the next one could not be told apart.
        let ends_rows = awaits_rows && first != Some(ERR);
        let is_head = matches!(next, Next::Head(_));
        if !is_head && !ends_rows {
            self.record(bytes, scan);
        }
        let header = match next {
            Next::Goes(_) | Next::Done(_) => self.tell_less(bytes, begin, header, scan),
            Next::Head(_) | Next::Infile => None,
        }
        .unwrap_or(header);
        match next {
            Next::Head(awaiting) => {
                self.head(bytes, header, scan)?;
                Ok(self.goes_on(now_ns, bytes, awaiting, scan))
            }
            Next::Goes(awaiting) => {
                scan.take(header.total(), ends_rows);
                Ok(self.goes_on(now_ns, bytes, awaiting, scan))
            }
            Next::Done(status) => {
                scan.take(header.total(), ends_rows);
                self.pass(bytes, scan);
                self.done(now_ns, status);
                Ok(Step::More)
            }
            Next::Infile if matches!(self.client.flow, Flow::Infile(_)) => {
                Err(Fault::server("it asks for a file while another one is on its way"))
            }
            Next::Infile => {
                self.pass(bytes, scan);
                let request = bytes.split_to(header.total()).freeze();
                self.ask_infile(request, header.seq);
                Ok(Step::Stop)
            }
        }
    }

    pub(super) fn begin_row(&mut self, header: Header, scan: &mut Scan) {
        scan.take(HEADER_BYTES, true);
        self.client.next_seq = header.seq.wrapping_add(1);
        self.reading = Reading::Row { left: header.payload, goes_on: header.goes_on() };
    }

    /// A packet that answers nothing: only an error may come so, before the server closes.
    fn unasked(&mut self, payload: &[u8], header: Header, scan: &mut Scan) -> Result<Step, Fault> {
        if payload.first() != Some(&ERR) {
            return Err(Fault::server("a packet that answers nothing"));
        }
        let failure = error::read(payload);
        self.session.progress.failure = Some((failure.sqlstate, failure.message));
        scan.take(header.total(), false);
        Ok(Step::More)
    }

    fn look(
        &mut self,
        running: &mut Running<R>,
        payload: &[u8],
        header: Header,
    ) -> Result<Next, Fault> {
        let first = payload.first().copied().unwrap_or_default();
        if first == ERR && running.awaiting != Awaiting::One {
            let progress = self.session.capabilities & PROGRESS != 0;
            if progress && error::number(payload) == Some(error::PROGRESS_REPORT) {
                return Ok(Next::Goes(running.awaiting));
            }
            let failure = error::read(payload);
            let (code, message) = (failure.sqlstate, failure.message);
            return Ok(Next::Done(Status::Failed { code, message }));
        }
        match running.awaiting {
            Awaiting::First => self.first(running, payload, header),
            Awaiting::Columns(left) => {
                self.column(&mut running.delivery, payload)?;
                let more = left > 1;
                Ok(Next::Head(if more {
                    Awaiting::Columns(left - 1)
                } else {
                    self.behind_columns()
                }))
            }
            Awaiting::ColumnsEnd => {
                let said = self.end_of(payload)?;
                if running.has_cursor() && said.status & ok::CURSOR_EXISTS != 0 {
                    return Ok(Next::Head(Awaiting::Cursor));
                }
                Ok(Next::Head(Awaiting::Rows))
            }
            Awaiting::Rows => self.rows_end(running, payload),
            Awaiting::Prepared => self.prepared(running, payload),
            Awaiting::Definitions(left) if left > 1 => {
                self.definition(running, payload, left);
                Ok(Next::Goes(Awaiting::Definitions(left - 1)))
            }
            Awaiting::Definitions(left) => {
                self.definition(running, payload, left);
                Ok(Next::Done(Status::Ok))
            }
            Awaiting::One | Awaiting::Stream | Awaiting::Cursor => Ok(Next::Done(Status::Ok)),
            Awaiting::FieldList if is_eof(first, header) => {
                self.end_of(payload)?;
                Ok(Next::Done(Status::Ok))
            }
            Awaiting::FieldList => Ok(Next::Goes(Awaiting::FieldList)),
        }
    }

    fn behind_columns(&self) -> Awaiting {
        let deprecated = self.session.capabilities & DEPRECATE_EOF != 0;
        if deprecated { Awaiting::Rows } else { Awaiting::ColumnsEnd }
    }

    /// The first packet of a result.
    fn first(
        &mut self,
        running: &mut Running<R>,
        payload: &[u8],
        header: Header,
    ) -> Result<Next, Fault> {
        let capabilities = self.session.capabilities;
        match payload.first() {
            Some(&ok::OK) => {
                let said = ok::read(payload, capabilities).map_err(malformed("OK"))?;
                self.session.progress.tag("ok", said.affected, said.warnings);
                Ok(self.result_end(running, &said))
            }
            Some(&LOCAL_INFILE) if running.op.is_some() => Ok(Next::Infile),
            Some(&first) if is_eof(first, header) => {
                let said = ok::read_eof(payload).map_err(malformed("EOF"))?;
                Ok(self.result_end(running, &said))
            }
            _ => {
                let mut reader = Reader::new(payload);
                let columns = reader.lenenc().map_err(malformed("result's column count"))?;
                let follows = capabilities & CACHE_METADATA == 0 || reader.u8() != Ok(0);
                if columns == 0 || columns > COLUMNS_MAX {
                    return Err(Fault::server(format!("a result of {columns} columns")));
                }
                if !follows {
                    self.known_columns(running);
                }
                let awaiting =
                    if follows { Awaiting::Columns(columns) } else { self.behind_columns() };
                Ok(Next::Head(awaiting))
            }
        }
    }

    /// What ends definitions or rows: an EOF, or an OK in its place.
    fn end_of(&mut self, payload: &[u8]) -> Result<ok::Ok, Fault> {
        let short = payload.len() < ok::EOF_BYTES_MAX;
        let said =
            if self.session.capabilities & DEPRECATE_EOF == 0 || payload.len() == ok::EOF_BYTES {
                if payload.first() != Some(&ok::EOF) || !short {
                    return Err(Fault::server("something else in an EOF's place"));
                }
                ok::read_eof(payload)
            } else {
                ok::read(payload, self.session.capabilities)
            };
        let said = said.map_err(malformed("EOF"))?;
        self.state(&said);
        Ok(said)
    }

    fn rows_end(&mut self, running: &mut Running<R>, payload: &[u8]) -> Result<Next, Fault> {
        let said = self.end_of(payload)?;
        let rows = self.session.progress.rows_here;
        self.session.progress.tag("rows", rows, said.warnings);
        let fetching = matches!(running.then, Then::Fetch(_)) || running.has_cursor();
        let cursor = said.status & ok::CURSOR_EXISTS != 0;
        if fetching && cursor && said.status & ok::LAST_ROW_SENT == 0 {
            return Ok(Next::Done(Status::Suspended));
        }
        Ok(self.result_end(running, &said))
    }

    fn result_end(&mut self, running: &mut Running<R>, said: &ok::Ok) -> Next {
        self.state(said);
        running.delivery.next_statement();
        if said.status & ok::MORE_RESULTS == 0 {
            Next::Done(Status::Ok)
        } else {
            Next::Goes(Awaiting::First)
        }
    }

    /// How many packets end a list of definitions.
    pub(super) fn ends_definitions(&self) -> u64 {
        u64::from(self.session.capabilities & DEPRECATE_EOF == 0)
    }

    /// The OK of COM_STMT_PREPARE.
    fn prepared(&mut self, running: &Running<R>, payload: &[u8]) -> Result<Next, Fault> {
        let mut reader = Reader::new(payload);
        let mut read = || {
            let is_ok = reader.u8()? == ok::OK;
            let numbers = (reader.u32()?, reader.u16()?, reader.u16()?);
            if is_ok { Ok(numbers) } else { Err(Malformed) }
        };
        let (id, columns, parameters) = read().map_err(malformed("COM_STMT_PREPARE's OK"))?;
        if let (Some(op), Some(known)) = (&running.op, running.known()) {
            self.session.last_prepared = Some(id);
            self.session.statements.add(Prepared {
                id,
                known: known.clone(),
                parameters: usize::from(parameters),
                columns: Vec::new(),
                columns_total: usize::from(columns),
                cursor: Stage::Unknown,
                types: Vec::new(),
                long: Vec::new(),
                receipt: op.receipt.clone(),
            });
        }
        let ends = self.ends_definitions();
        let with_end = |count: u16| match count {
            0 => 0,
            count => u64::from(count) + ends,
        };
        match with_end(columns) + with_end(parameters) {
            0 => Ok(Next::Done(Status::Ok)),
            packets => Ok(Next::Goes(Awaiting::Definitions(packets))),
        }
    }

    /// The command under way is done.
    pub(super) fn done(&mut self, now_ns: u64, status: Status) {
        let Some(mut running) = self.session.running.take() else {
            return;
        };
        if let Then::Execute { id, cursor: true, .. } = &running.then
            && let Some(prepared) = self.session.statements.get(*id)
        {
            prepared.cursor = running.delivery.stage.clone();
            if running.delivery.columns.len() <= prepared.columns_total {
                prepared.columns.clone_from(&running.delivery.columns);
            }
        }
        // What the server says of a result that was stopped is not what became of it.
        let stopped = running.delivery.stopped.take();
        let outcome = stopped.map(|(code, message)| Status::Failed { code, message });
        self.session.progress.masked = running.delivery.tally.outcome();
        let failed = matches!(status, Status::Failed { .. });
        if let Some(op) = &running.op {
            self.finish(now_ns, op, outcome.unwrap_or(status));
        } else {
            self.session.progress = Progress::default();
        }
        if let Some(instead) = running.instead {
            self.tell_client(instead);
        }
        match running.then {
            // A text that is only prepared changes nothing.
            Then::Plain(_) | Then::Fetch(_) | Then::Text(Awaiting::Prepared, _) => {}
            Then::Text(_, known) | Then::Execute { known, .. } => self.touch(&known, failed),
            Then::InitDb(database) if !failed => self.session.database = Some(database),
            Then::InitDb(_) => {}
            Then::ResetConnection => {
                self.session.statements.clear();
                self.session.named.clear();
                self.session.last_prepared = None;
            }
        }
        if self.client.end != ClientEnd::Open {
            self.end_client(now_ns);
        }
    }

    /// The connection ended before the command under way was done.
    pub(super) fn lose(&mut self, now_ns: u64, running: Running<R>) {
        self.session.progress.masked = running.delivery.tally.outcome();
        if let Some(op) = running.op {
            let status = self.session.progress.lost();
            self.finish(now_ns, &op, status);
        }
    }
}

pub(super) fn malformed(what: &'static str) -> impl Fn(Malformed) -> Fault {
    move |Malformed| Fault::server(format!("a {what} does not read"))
}

/// Whether a packet where rows are awaited is one. A row may begin with 0xfe only if it holds 16 MiB.
const fn is_row(first: u8, header: Header) -> bool {
    first != ERR && !(first == ok::EOF && header.payload < FULL_BYTES)
}

const fn is_eof(first: u8, header: Header) -> bool {
    first == ok::EOF && header.payload < ok::EOF_BYTES_MAX
}
