//! What the client sends in a session: commands.
//!
//! Promises: a command passes as it came, under the receipt of its permit; a long one streams. What
//! runs nothing (COM_PING, COM_QUIT, COM_STMT_CLOSE, COM_STMT_RESET) needs no permit, and long data goes
//! under the receipt of its statement's preparation. A command that the machine does not know is refused
//! here, whatever a policy says.

use bytes::{Bytes, BytesMut};
use tidegate_event::{Action as Does, Cancel, Operation, Relation, Via};
use tidegate_wire::Fault;

use super::answer::{Asked, Rest, Then};
use super::infile::Infile;
use super::server::Awaiting;
use super::statement::{Known, command};
use super::{Authority, Machine, Step};
use crate::Exempt;
use crate::capability::QUERY_ATTRIBUTES;
use crate::config::{AUTH_PACKET_BYTES_MAX, LONG_DATA_HEAD_BYTES, SMALL_COMMAND_BYTES_MAX};
use crate::frame::{HEADER_BYTES, Header, header};
use crate::message::value::{self, CURSOR_TYPES, Expected};
use crate::message::{Malformed, Reader, error};

/// The commands (manual, "Command Phase"; MariaDB's own at the end).
mod com {
    pub const QUIT: u8 = 0x01;
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const FIELD_LIST: u8 = 0x04;
    pub const REFRESH: u8 = 0x07;
    pub const SHUTDOWN: u8 = 0x08;
    pub const STATISTICS: u8 = 0x09;
    pub const PROCESS_INFO: u8 = 0x0a;
    pub const PROCESS_KILL: u8 = 0x0c;
    pub const DEBUG: u8 = 0x0d;
    pub const PING: u8 = 0x0e;
    pub const CHANGE_USER: u8 = 0x11;
    pub const BINLOG_DUMP: u8 = 0x12;
    pub const TABLE_DUMP: u8 = 0x13;
    pub const REGISTER_SLAVE: u8 = 0x15;
    pub const STMT_PREPARE: u8 = 0x16;
    pub const STMT_EXECUTE: u8 = 0x17;
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub const STMT_CLOSE: u8 = 0x19;
    pub const STMT_RESET: u8 = 0x1a;
    pub const SET_OPTION: u8 = 0x1b;
    pub const STMT_FETCH: u8 = 0x1c;
    pub const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub const RESET_CONNECTION: u8 = 0x1f;
    pub const STMT_BULK_EXECUTE: u8 = 0xfa;
}

/// MariaDB's number for the statement that was prepared last.
const LAST_PREPARED: u32 = u32::MAX;

/// The client's side of the machine.
pub(super) struct ClientSide<R> {
    pub flow: Flow<R>,
    pub end: ClientEnd,
    /// The sequence number of the next packet to the client.
    pub next_seq: u8,
    pub under_tls: bool,
}

impl<R> Default for ClientSide<R> {
    fn default() -> Self {
        Self { flow: Flow::Command, end: ClientEnd::Open, next_seq: 0, under_tls: false }
    }
}

impl<R> ClientSide<R> {
    /// Whether the client is to send more of what it has begun.
    pub const fn is_within_message(&self) -> bool {
        !matches!(self.flow, Flow::Command)
    }
}

/// Whether more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientEnd {
    Open,
    /// It closed its connection, or its half.
    Eof,
    /// Its COM_QUIT went to the server.
    Terminated,
}

/// What the next bytes from the client are.
pub(super) enum Flow<R> {
    /// A command's beginning.
    Command,
    /// The rest of one that passes.
    Stream { rest: Rest, authority: Authority<R> },
    /// The rest of one that does not, and what is then said to the client.
    Drop { rest: Rest, error: Option<Error> },
    /// A local file.
    Infile(Infile<R>),
}

/// An error to be sent.
pub(super) struct Error {
    pub sqlstate: &'static str,
    pub message: String,
    pub hint: Option<String>,
}

impl Error {
    fn new(sqlstate: &'static str, message: &str) -> Self {
        Self { sqlstate, message: message.to_owned(), hint: None }
    }
}

/// The part of a command that is held, and what is not.
struct Held {
    bytes: Bytes,
    rest: Rest,
    /// Length of the whole payload, as far as it is known.
    payload: usize,
}

impl Held {
    /// What stands behind the command byte.
    fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES + 1..).unwrap_or_default()
    }
}

impl<R: Clone> Machine<R> {
    /// Takes the command, or the part of one, at the front.
    pub(super) fn session_packet(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        match std::mem::replace(&mut self.client.flow, Flow::Command) {
            Flow::Command => {}
            Flow::Stream { rest, authority } => {
                let (passed, rest) = self.go_on(bytes, rest);
                self.tell_server(authority.clone(), passed);
                let Some((rest, step)) = rest else { return Ok(Step::More) };
                self.client.flow = Flow::Stream { rest, authority };
                return Ok(step);
            }
            Flow::Drop { rest, error } => {
                let (_, rest) = self.go_on(bytes, rest);
                let Some((rest, step)) = rest else {
                    self.say(error);
                    return Ok(Step::More);
                };
                self.client.flow = Flow::Drop { rest, error };
                return Ok(step);
            }
            Flow::Infile(infile) => return Ok(self.infile_goes_on(now_ns, bytes, infile)),
        }
        let (Some(header), command) = (header(bytes), bytes.get(HEADER_BYTES).copied()) else {
            return Ok(Step::Stop);
        };
        self.client.next_seq = header.seq.wrapping_add(1);
        if header.payload == 0 || header.seq != 0 {
            return Err(Fault::client("its packet is no command: it is empty or out of sequence"));
        }
        let Some(command) = command else {
            return Ok(Step::Stop);
        };
        let Some(held) = self.hold(bytes, header, command)? else {
            return Ok(Step::Stop);
        };
        self.count_anew();
        self.command(command, &held)
    }

    fn say(&mut self, error: Option<Error>) {
        if let Some(Error { sqlstate, message, hint }) = error {
            let seq = self.client.next_seq;
            self.tell_client(error::response(seq, sqlstate, &message, hint.as_deref()));
        }
    }

    /// Takes more of a command that is not held whole: what there is of it, and what is left then.
    fn go_on(&mut self, bytes: &mut BytesMut, mut rest: Rest) -> (Bytes, Option<(Rest, Step)>) {
        if rest.left > 0 {
            let passed = bytes.split_to(rest.left.min(bytes.len())).freeze();
            rest.left -= passed.len();
            let step = if rest.left > 0 { Step::Stop } else { Step::More };
            return (passed, rest.is_open().then_some((rest, step)));
        }
        let Some(next) = header(bytes) else {
            return (Bytes::new(), Some((rest, Step::Stop)));
        };
        self.client.next_seq = next.seq.wrapping_add(1);
        let passed = bytes.split_to(HEADER_BYTES).freeze();
        rest = Rest { left: next.payload, goes_on: next.goes_on() };
        (passed, rest.is_open().then_some((rest, Step::More)))
    }

    /// Takes as much of a command as is to be held, once it is there.
    fn hold(
        &self,
        bytes: &mut BytesMut,
        header: Header,
        command: u8,
    ) -> Result<Option<Held>, Fault> {
        let limits = &self.config.limits;
        let (whole_max, head) = match command {
            com::QUERY | com::STMT_PREPARE => (limits.sql_message_bytes_max, limits.sql_head_bytes),
            com::STMT_EXECUTE | com::STMT_BULK_EXECUTE => {
                (limits.held_message_bytes_max, limits.held_message_bytes_max)
            }
            com::STMT_SEND_LONG_DATA => (7, 7 + LONG_DATA_HEAD_BYTES + 1),
            com::CHANGE_USER => (AUTH_PACKET_BYTES_MAX, 0),
            _ => (SMALL_COMMAND_BYTES_MAX, 0),
        };
        let fits = header.payload <= whole_max && !header.goes_on();
        if !fits && head == 0 {
            return Err(Fault::client(format!(
                "its command {command:#04x} claims {} bytes; {whole_max} are allowed",
                header.payload
            )));
        }
        let wanted = if fits { header.payload } else { header.payload.min(head) };
        if bytes.len() < wanted + HEADER_BYTES {
            return Ok(None);
        }
        let rest = Rest { left: header.payload - wanted, goes_on: header.goes_on() };
        let bytes = bytes.split_to(wanted + HEADER_BYTES).freeze();
        Ok(Some(Held { bytes, rest, payload: header.payload }))
    }

    fn command(&mut self, command: u8, held: &Held) -> Result<Step, Fault> {
        match command {
            com::QUERY => self.query(held),
            com::STMT_PREPARE => Ok(self.prepare(held)),
            com::STMT_EXECUTE | com::STMT_BULK_EXECUTE => self.execute(command, held),
            com::STMT_SEND_LONG_DATA => self.long_data(held),
            com::STMT_FETCH => self.fetch(held),
            com::CHANGE_USER => self.change_user(&held.bytes),
            com::QUIT => {
                self.client.end = ClientEnd::Terminated;
                self.framing(held.bytes.clone());
                Ok(Step::Stop)
            }
            com::PING => {
                self.run_exempt(held.bytes.clone());
                Ok(Step::More)
            }
            com::STMT_CLOSE => {
                let id = statement_id(held.body())?;
                self.session.statements.remove(id);
                self.framing(held.bytes.clone());
                Ok(Step::More)
            }
            com::STMT_RESET => {
                let id = statement_id(held.body())?;
                if let Some(prepared) = self.session.statements.get(id) {
                    prepared.long.clear();
                }
                self.run_exempt(held.bytes.clone());
                Ok(Step::More)
            }
            _ => self.plain_command(command, held),
        }
    }

    fn ask_command(&mut self, held: &Held, operation: Operation, then: Then) -> Step {
        self.ask(Asked::Command { held: held.bytes.clone(), rest: held.rest, then }, operation);
        Step::Stop
    }

    fn query(&mut self, held: &Held) -> Result<Step, Fault> {
        let (parameters, text) = if self.session.capabilities & QUERY_ATTRIBUTES == 0 {
            (Vec::new(), held.body())
        } else {
            value::attributes(held.body())
                .map_err(|Malformed| Fault::client("the attributes of its COM_QUERY do not read"))?
        };
        let known = self.run_by_name(self.text(text, held));
        let operation = known.operation(Via::Simple, String::new(), parameters);
        Ok(self.ask_command(held, operation, Then::Text(Awaiting::First, known)))
    }

    fn text(&self, text: &[u8], held: &Held) -> Known {
        if held.rest.is_open() { self.known_by_head(text, held.payload) } else { self.known(text) }
    }

    fn prepare(&mut self, held: &Held) -> Step {
        let known = self.text(held.body(), held);
        let operation = known.operation(Via::Parse, String::new(), Vec::new());
        self.ask_command(held, operation, Then::Text(Awaiting::Prepared, known))
    }

    /// The statement that a command names, where the gate knows it; MariaDB's -1 is the last prepared.
    fn named(&self, id: u32) -> Option<u32> {
        if id == LAST_PREPARED { self.session.last_prepared } else { Some(id) }
    }

    fn execute(&mut self, command: u8, held: &Held) -> Result<Step, Fault> {
        let named = statement_id(held.body())?;
        let Some(id) = self.named(named) else {
            // On the server -1 could still mean an older statement than the client's.
            let error =
                Error::new("HY000", "tidegate: no statement is prepared that -1 could mean");
            self.refuse_here(held.rest, error);
            return Ok(Step::More);
        };
        let body = held.body().get(4..).unwrap_or_default();
        let capabilities = self.session.capabilities;
        let bulk = command == com::STMT_BULK_EXECUTE;
        let cursor = !bulk && body.first().is_some_and(|flags| flags & CURSOR_TYPES != 0);
        let found = self.session.statements.get(id);
        let (known, parameters, types) = match found {
            Some(prepared) => {
                let expected = Expected {
                    parameters: prepared.parameters,
                    types: &prepared.types,
                    long: &prepared.long,
                };
                let bound = if bulk {
                    value::bulk(body, expected)
                } else {
                    value::execute(body, capabilities, expected)
                };
                (prepared.known.clone(), bound.parameters, bound.types)
            }
            None => (self.known_unseen(), Vec::new(), None),
        };
        let operation = known.operation(Via::Execute, id.to_string(), parameters);
        let then = Then::Execute { id, types, cursor, known };
        Ok(self.ask_command(held, operation, then))
    }

    fn fetch(&mut self, held: &Held) -> Result<Step, Fault> {
        let named = statement_id(held.body())?;
        let id = self.named(named).unwrap_or(named);
        let found = self.session.statements.get(id).map(|prepared| prepared.known.clone());
        let known = found.unwrap_or_else(|| self.known_unseen());
        let operation = known.operation(Via::Fetch, id.to_string(), Vec::new());
        Ok(self.ask_command(held, operation, Then::Fetch(id)))
    }

    /// Long data has no answer. It goes under the receipt of its statement's preparation; for a
    /// statement that the gate does not know it goes nowhere, and the execution will miss it.
    fn long_data(&mut self, held: &Held) -> Result<Step, Fault> {
        let mut reader = Reader::new(held.body());
        let malformed = |Malformed| Fault::client("its COM_STMT_SEND_LONG_DATA does not read");
        let named = reader.u32().map_err(malformed)?;
        let parameter = reader.u16().map_err(malformed)?;
        let id = self.named(named).unwrap_or(named);
        let bytes = u64::try_from(held.payload.saturating_sub(7)).unwrap_or(u64::MAX);
        let found = self.session.statements.get(id);
        let authority = found.map(|prepared| {
            prepared.add_long(parameter, reader.rest(), bytes);
            Authority::Receipt(prepared.receipt.clone())
        });
        match authority {
            Some(authority) => {
                self.tell_server(authority.clone(), held.bytes.clone());
                if held.rest.is_open() {
                    self.client.flow = Flow::Stream { rest: held.rest, authority };
                }
            }
            None if held.rest.is_open() => {
                self.client.flow = Flow::Drop { rest: held.rest, error: None };
            }
            None => {}
        }
        Ok(Step::More)
    }

    /// A command that carries no SQL.
    fn plain_command(&mut self, command: u8, held: &Held) -> Result<Step, Fault> {
        let body = held.body();
        let text = String::from_utf8_lossy(body).into_owned();
        let simple = |name: &str, argument: &str, action: Does, relation: Option<Relation>| {
            Self::known_command(name, argument, self::command(&kind(name), action, relation))
        };
        let bare = |name: &str| Some(Relation { schema: None, name: name.to_owned() });
        let plain = Awaiting::First;
        let (known, then) = match command {
            com::INIT_DB => {
                let known = simple("COM_INIT_DB", &text, Does::Set, bare("database"));
                (known, Then::InitDb(text))
            }
            com::FIELD_LIST => {
                let table = body.split(|byte| *byte == 0).next().unwrap_or_default();
                let table = String::from_utf8_lossy(table).into_owned();
                let known = simple("COM_FIELD_LIST", &table, Does::Show, bare(&table));
                (known, Then::Plain(Awaiting::FieldList))
            }
            com::REFRESH => (simple("COM_REFRESH", "", Does::Maintain, None), Then::Plain(plain)),
            com::SHUTDOWN => (simple("COM_SHUTDOWN", "", Does::Unknown, None), Then::Plain(plain)),
            com::DEBUG => (simple("COM_DEBUG", "", Does::Unknown, None), Then::Plain(plain)),
            com::STATISTICS => {
                let known = simple("COM_STATISTICS", "", Does::Show, bare("status"));
                (known, Then::Plain(Awaiting::One))
            }
            com::PROCESS_INFO => {
                let known = simple("COM_PROCESS_INFO", "", Does::Show, bare("processlist"));
                (known, Then::Plain(plain))
            }
            com::SET_OPTION => {
                let known = simple("COM_SET_OPTION", "", Does::Set, bare("multi_statements"));
                (known, Then::Plain(plain))
            }
            com::RESET_CONNECTION => {
                let known = simple("COM_RESET_CONNECTION", "", Does::Set, bare("all"));
                (known, Then::ResetConnection)
            }
            com::PROCESS_KILL => {
                let backend_pid = statement_id(body)?;
                let operation = Operation::Cancel(Cancel { backend_pid });
                return Ok(self.ask_command(held, operation, Then::Plain(plain)));
            }
            com::REGISTER_SLAVE => {
                (simple("COM_REGISTER_SLAVE", "", Does::Replicate, None), Then::Plain(plain))
            }
            com::BINLOG_DUMP | com::BINLOG_DUMP_GTID | com::TABLE_DUMP => {
                let known = simple("COM_BINLOG_DUMP", "", Does::Replicate, None);
                (known, Then::Plain(Awaiting::Stream))
            }
            _ => {
                let message = format!("tidegate: command {command:#04x} can't pass the gate");
                self.refuse_here(held.rest, Error::new("08S01", &message));
                return Ok(Step::More);
            }
        };
        let operation = known.operation(Via::Command, String::new(), Vec::new());
        Ok(self.ask_command(held, operation, then))
    }

    /// Refuses without a question, since nothing could be sent in any case.
    fn refuse_here(&mut self, rest: Rest, error: Error) {
        if rest.is_open() {
            self.client.flow = Flow::Drop { rest, error: Some(error) };
        } else {
            self.say(Some(error));
        }
    }

    /// Sends what needs no permit and has an answer.
    fn run_exempt(&mut self, bytes: Bytes) {
        self.tell_server(Authority::Exempt(Exempt::Framing), bytes);
        self.session.running = Some(super::Running::exempt());
    }

    /// Refuses what was asked, behind the rest of it.
    pub(super) fn refuse(&mut self, rest: Rest, error: Error) {
        self.refuse_here(rest, error);
    }
}

/// A command's name as a kind: `init_db` of `COM_INIT_DB`.
fn kind(name: &str) -> String {
    name.trim_start_matches("COM_").to_ascii_lowercase()
}

fn statement_id(body: &[u8]) -> Result<u32, Fault> {
    Reader::new(body).u32().map_err(|Malformed| Fault::client("its command has no number"))
}
