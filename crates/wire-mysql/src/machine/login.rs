//! From the greeting to the server's OK, both directions; also the authentication of COM_CHANGE_USER.
//!
//! Promises: nothing may stand behind an SSLRequest that is granted in the buffer (the driver leaves it in
//! the socket, [`Machine::client_bytes_max`]): it would be taken for plaintext. No byte goes to the server before
//! the login is permitted. What the client answers to the server's authentication requests is never read,
//! and never becomes part of an operation; it is sent only when it is the client's turn, and with the
//! sequence number that comes next, so that no server can take it for a command.

use bytes::{Bytes, BytesMut};
use tidegate_event::{Ending, Login as LoginOperation, Operation, Status};
use tidegate_wire::Fault;

use super::answer::Asked;
use super::password::{self, Password};
use super::{Machine, Op, Phase, Step, Tracks};
use crate::capability::{self, PROTOCOL_41, SESSION_TRACK, SSL};
use crate::charset;
use crate::compress::Packing;
use crate::config::{AUTH_PACKET_BYTES_MAX, DATABASE_NAME_BYTES_MAX};
use crate::frame::{HEADER_BYTES, header, packet, renumbered};
use crate::message::response::{self, FIXED_BYTES, First, Response};
use crate::message::{Malformed, Reader, error, greeting, ok};
use crate::{Action, Authority, ClientTls, Exempt, ServerTls};

/// Most packets of one side in one authentication, far below where sequence numbers come round.
const ROUNDS_MAX: u8 = 60;

/// A permitted login.
pub(super) struct Login<R> {
    pub op: Op<R>,
    pub who: Who,
    /// What is added to the server's sequence numbers for the client's.
    pub shift: u8,
    plugin: Vec<u8>,
    pub turn: Turn,
    rounds: u8,
    /// Of the two legs, one has TLS and the other has not.
    legs_differ: bool,
    /// What the client's proof is made with.
    pub nonce: Bytes,
    pub password: Password,
    /// Session tracking is ours.
    strips: bool,
}

/// Who is to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Server,
    /// The client, with this sequence number.
    Client(u8),
}

/// As whom a session goes on when a login is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    database: String,
    collation: u16,
    capabilities: u64,
    plugin: Vec<u8>,
    packing: Option<Packing>,
}

impl<R> Login<R> {
    pub fn new(op: Op<R>, who: Who, shift: u8, legs_differ: bool, strips: bool) -> Self {
        let plugin = who.plugin.clone();
        let (turn, password, nonce) = (Turn::Server, Password::default(), Bytes::new());
        Self { op, who, shift, plugin, turn, rounds: 0, legs_differ, nonce, password, strips }
    }

    pub const fn is_clients_turn(&self) -> bool {
        matches!(self.turn, Turn::Client(_))
    }
}

const CACHING_SHA2: &[u8] = b"caching_sha2_password";
const SHA256: &[u8] = b"sha256_password";
/// AuthMoreData of caching_sha2_password: the server knows the password's digest.
const FAST_AUTH_SUCCESS: [u8; 2] = [1, 3];
/// AuthMoreData of caching_sha2_password: it needs the password itself.
const FULL_AUTHENTICATION: [u8; 2] = [1, 4];
const NEEDS_PASSWORD: &str = "the server wants the password itself, which is sent in one way under TLS and \
                              in another without, and of this connection's two legs only one has TLS";
const NEEDS_PASSWORD_HINT: &str = "Set tls.client and tls.server of this target so that both legs have \
                                   TLS or neither has.";

impl<R: Clone> Machine<R> {
    /// A packet of the server's before the session.
    pub(super) fn handshake_packet(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        let Some(header) = header(bytes) else {
            return Ok(Step::Stop);
        };
        if header.payload > AUTH_PACKET_BYTES_MAX || header.payload == 0 {
            let bytes = header.payload;
            return Err(Fault::server(format!("a packet of the handshake has {bytes} bytes")));
        }
        if bytes.len() < header.total() {
            return Ok(Step::Stop);
        }
        let whole = bytes.split_to(header.total());
        let payload = whole.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        if payload.first() == Some(&error::ERR) {
            let failure = error::read(&payload);
            self.session.progress.failure = Some((failure.sqlstate, failure.message));
            let seq = match &self.phase {
                Phase::Login(login) => header.seq.wrapping_add(login.shift),
                Phase::Response { .. } => self.client.next_seq,
                _ => header.seq,
            };
            self.tell_client(renumbered(whole, seq));
            self.close(now_ns, Ending::Server);
            return Ok(Step::Stop);
        }
        match self.phase {
            Phase::Greeting => self.greeted(header.seq, &payload)?,
            Phase::Login(_) => self.authentication(now_ns, header.seq, whole, &payload)?,
            _ => return Err(Fault::server("it spoke before the client had answered its greeting")),
        }
        Ok(Step::More)
    }

    fn greeted(&mut self, seq: u8, payload: &[u8]) -> Result<(), Fault> {
        let read = greeting::read(payload)
            .map_err(|Malformed| Fault::unsupported("a greeting other than version 10"))?;
        if read.capabilities & PROTOCOL_41 == 0 {
            return Err(Fault::unsupported("a server of before 4.1"));
        }
        if self.config.server_tls == ServerTls::Require && read.capabilities & SSL == 0 {
            return Err(Fault::unsupported(
                "TLS to this server: it does not offer it, and the target asks for it",
            ));
        }
        let offered = self.offered(read.capabilities);
        let changed = read.with_capabilities(payload, offered);
        self.greeting = Some(read);
        self.phase = Phase::Response { under_tls: false };
        self.client.next_seq = seq.wrapping_add(1);
        self.tell_client(packet(seq, &changed));
        Ok(())
    }

    fn offered(&self, server: u64) -> u64 {
        capability::offered(server, self.config.client_tls == ClientTls::Offer)
    }

    /// The client's first packet, or its first under TLS.
    pub(super) fn first_packet(
        &mut self,
        now_ns: u64,
        under_tls: bool,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        let Some(header) = header(bytes) else {
            return Ok(Step::Stop);
        };
        if header.payload > AUTH_PACKET_BYTES_MAX {
            return Err(Fault::client(format!(
                "its handshake response claims {} bytes; {AUTH_PACKET_BYTES_MAX} are allowed",
                header.payload
            )));
        }
        if bytes.len() < header.total() {
            return Ok(Step::Stop);
        }
        if header.seq != self.client.next_seq {
            return Err(Fault::client("its handshake response has the wrong sequence number"));
        }
        let held = bytes.split_to(header.total()).freeze();
        self.client.next_seq = header.seq.wrapping_add(1);
        let server = self.greeting.as_ref().map_or(0, |greeting| greeting.capabilities);
        let payload = held.get(HEADER_BYTES..).unwrap_or_default();
        let malformed = |Malformed| Fault::client("its handshake response does not read");
        match response::first(payload, server).map_err(malformed)? {
            First::Old => Err(Fault::unsupported("a client of before 4.1")),
            First::Ssl(_) if under_tls => Err(Fault::client("SSLRequest came twice")),
            First::Ssl(_) if self.config.client_tls == ClientTls::Refuse => {
                Err(Fault::client("it asks for TLS, which was not offered"))
            }
            First::Ssl(_) if bytes.is_empty() => {
                self.phase = Phase::ClientTls;
                self.out.push_back(Action::StartClientTls);
                Ok(Step::Stop)
            }
            First::Ssl(_) => {
                let why = "the client broke the protocol: bytes stand behind its SSLRequest";
                self.close(now_ns, Ending::Gate(why.to_owned()));
                Ok(Step::Stop)
            }
            First::Response(read) => {
                let operation = operation(&read, under_tls)?;
                let who = self.who(&read);
                self.ask(Asked::Login(held.clone(), who), Operation::Login(operation));
                Ok(Step::Stop)
            }
        }
    }

    fn who(&self, read: &Response<'_>) -> Who {
        let server = self.greeting.as_ref();
        let offered = server.map_or(0, |greeting| self.offered(greeting.capabilities));
        let default = || server.map_or_else(Vec::new, |greeting| greeting.plugin.clone());
        let plugin = if read.plugin.is_empty() { default() } else { read.plugin.to_vec() };
        let capabilities = read.capabilities & offered;
        Who {
            database: String::from_utf8_lossy(read.database).into_owned(),
            collation: read.collation,
            capabilities,
            plugin,
            packing: Packing::agreed(capabilities, read.zstd_level),
        }
    }

    /// Sends a permitted handshake response, behind our own SSLRequest where TLS is spoken to the server.
    pub(super) fn login_permitted(&mut self, op: Op<R>, held: &Bytes, who: Who) {
        let under_tls = matches!(self.phase, Phase::Response { under_tls: true });
        let to_server = self.config.server_tls == ServerTls::Require;
        let server = self.greeting.as_ref().map_or(0, |greeting| greeting.capabilities);
        let payload = held.get(HEADER_BYTES..).unwrap_or_default();
        let is_mariadb = server & capability::CLIENT_MYSQL == 0;
        let named = match response::first(payload, server) {
            Ok(First::Response(read)) => read.capabilities,
            _ => who.capabilities,
        };
        let flags = capability::forwarded(named, self.offered(server), to_server);
        // What the session changes is asked for, whether the client wants to know or not.
        let strips = flags & SESSION_TRACK == 0 && server & SESSION_TRACK != 0;
        let flags = flags | (server & SESSION_TRACK);
        let changed = response::with_capabilities(payload, flags, is_mariadb);
        let shift = u8::from(under_tls).wrapping_sub(u8::from(to_server));
        let authority = Authority::Receipt(op.receipt.clone());
        let mut login = Login::new(op, who, shift, under_tls != to_server, strips);
        login.nonce = self.nonce();
        if login.legs_differ && login.plugin == SHA256 {
            // The server takes the name as a wish, and switches to what it can do.
            login.plugin.clear();
        }
        if to_server {
            let request = changed.get(..FIXED_BYTES).unwrap_or_default();
            self.tell_server(authority, packet(1, request));
            self.out.push_back(Action::StartServerTls);
            self.phase = Phase::ServerTls(Box::new(login), packet(2, &changed));
        } else {
            self.tell_server(authority, packet(1, &changed));
            self.phase = Phase::Login(Box::new(login));
        }
    }

    /// Sends a permitted COM_CHANGE_USER.
    pub(super) fn change_permitted(&mut self, op: Op<R>, held: Bytes, who: Who) {
        self.tell_server(Authority::Receipt(op.receipt.clone()), held);
        let legs_differ = self.client.under_tls != (self.config.server_tls == ServerTls::Require);
        let mut login = Login::new(op, who, 0, legs_differ, self.session.strips);
        login.nonce = self.nonce();
        self.phase = Phase::Login(Box::new(login));
    }

    fn nonce(&self) -> Bytes {
        let greeting = self.greeting.as_ref();
        greeting.map_or_else(Bytes::new, |greeting| password::nonce(&greeting.nonce))
    }

    /// COM_CHANGE_USER: a login within the session.
    pub(super) fn change_user(&mut self, held: &Bytes) -> Result<Step, Fault> {
        let body = held.get(HEADER_BYTES + 1..).unwrap_or_default();
        let read = response::change_user(body, self.session.capabilities)
            .map_err(|Malformed| Fault::client("its COM_CHANGE_USER does not read"))?;
        let operation = operation(&read, self.client.under_tls)?;
        let who = Who { capabilities: self.session.capabilities, ..self.who(&read) };
        self.ask(Asked::ChangeUser(held.clone(), who), Operation::Login(operation));
        Ok(Step::Stop)
    }

    fn authentication(
        &mut self,
        now_ns: u64,
        seq: u8,
        whole: BytesMut,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let opens = self.opens_passwords();
        let Phase::Login(login) = &mut self.phase else {
            return Ok(());
        };
        let client_seq = seq.wrapping_add(login.shift);
        self.client.next_seq = client_seq;
        login.turn = Turn::Client(client_seq.wrapping_add(1));
        login.rounds += 1;
        let sensitive = login.legs_differ && login.plugin == CACHING_SHA2;
        let refused = match payload {
            [ok::OK, ..] => {
                let less = if login.strips { ok::without_tracking(payload) } else { None };
                match less {
                    Some(less) => self.tell_client(packet(client_seq, &less)),
                    None => self.tell_client(renumbered(whole, client_seq)),
                }
                self.client.next_seq = client_seq.wrapping_add(1);
                return self.logged_in(now_ns, payload);
            }
            [ok::EOF] => return Err(Fault::unsupported("the password scheme of before 4.1")),
            [ok::EOF, rest @ ..] => {
                let mut reader = Reader::new(rest);
                let name = reader.c_string().unwrap_or(rest);
                login.nonce = password::nonce(reader.rest());
                login.plugin = name.to_vec();
                login.legs_differ && name == SHA256
            }
            payload if payload == FAST_AUTH_SUCCESS && login.plugin == CACHING_SHA2 => {
                login.turn = Turn::Server;
                false
            }
            payload if payload == FULL_AUTHENTICATION && sensitive && opens => {
                login.password = Password::Wanted;
                false
            }
            payload if payload == FULL_AUTHENTICATION => sensitive,
            [1 | 2, ..] => false,
            [other, ..] => {
                return Err(Fault::server(format!(
                    "a packet {other:#x} within its authentication"
                )));
            }
            [] => return Err(Fault::server("an empty packet within its authentication")),
        };
        if login.rounds > ROUNDS_MAX {
            return Err(Fault::server(format!("more than {ROUNDS_MAX} rounds of authentication")));
        }
        if refused {
            self.session.progress.failure = Some(("0A000".to_owned(), NEEDS_PASSWORD.to_owned()));
            self.fail_with(now_ns, "0A000", NEEDS_PASSWORD, Some(NEEDS_PASSWORD_HINT));
            return Ok(());
        }
        self.tell_client(renumbered(whole, client_seq));
        self.client.next_seq = client_seq.wrapping_add(1);
        Ok(())
    }

    fn logged_in(&mut self, now_ns: u64, payload: &[u8]) -> Result<(), Fault> {
        let Phase::Login(login) = std::mem::replace(&mut self.phase, Phase::Session) else {
            return Ok(());
        };
        let Login { op, who, strips, .. } = *login;
        let capabilities = who.capabilities | if strips { SESSION_TRACK } else { 0 };
        let read = ok::read(payload, capabilities);
        self.session.progress = super::Progress::default();
        self.finish(now_ns, &op, Status::Ok);
        self.start_packing(who.packing);
        let session = &mut self.session;
        session.capabilities = capabilities;
        session.strips = strips;
        session.charset = charset::of_collation(who.collation);
        session.database = Some(who.database);
        session.statements.clear();
        session.named.clear();
        session.last_prepared = None;
        let read = read.map_err(|Malformed| Fault::server("the OK of its login does not read"))?;
        session.tracks = Tracks::default();
        self.state(&read);
        self.session.told_database = false;
        Ok(())
    }

    /// What the client says in the authentication.
    pub(super) fn login_packet(&mut self, bytes: &mut BytesMut) -> Result<Step, Fault> {
        let Phase::Login(login) = &mut self.phase else {
            return Ok(Step::Stop);
        };
        let Some(header) = header(bytes) else {
            return Ok(Step::Stop);
        };
        if header.payload > AUTH_PACKET_BYTES_MAX {
            return Err(Fault::client(format!(
                "its authentication packet claims {} bytes; {AUTH_PACKET_BYTES_MAX} are allowed",
                header.payload
            )));
        }
        if bytes.len() < header.total() {
            return Ok(Step::Stop);
        }
        if login.turn != Turn::Client(header.seq) {
            return Err(Fault::client("its authentication packet has the wrong sequence number"));
        }
        if login.password != Password::Relayed {
            return self.password_packet(header, bytes);
        }
        login.turn = Turn::Server;
        let seq = header.seq.wrapping_sub(login.shift);
        self.client.next_seq = header.seq.wrapping_add(1);
        let answer = renumbered(bytes.split_to(header.total()), seq);
        self.tell_server(Authority::Exempt(Exempt::Handshake), answer);
        Ok(Step::More)
    }
}

fn operation(read: &Response<'_>, client_tls: bool) -> Result<LoginOperation, Fault> {
    for (what, name) in [("user", read.user), ("database", read.database)] {
        if name.len() > DATABASE_NAME_BYTES_MAX {
            let bytes = name.len();
            return Err(Fault::unsupported(format!("a {what} name of {bytes} bytes")));
        }
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let application = read.attributes.iter().find(|(name, _)| *name == b"program_name");
    let options = read.attributes.iter().filter(|(name, _)| *name != b"program_name");
    Ok(LoginOperation {
        user: text(read.user),
        database: text(read.database),
        application: application.map(|(_, value)| text(value)),
        options: options.map(|(name, value)| (text(name), text(value))).collect(),
        replication: false,
        client_tls,
    })
}
