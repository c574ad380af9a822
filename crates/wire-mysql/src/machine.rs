//! The machine: one client, one server, one session.
//!
//! Promises: see the crate. How the work is split: `login` up to the end of the authentication, also
//! that of COM_CHANGE_USER; `client` and `statement` for what the client sends then, `answer` for
//! decisions, `server` for what the server sends, `guard` for results under duties, `infile` for LOCAL
//! INFILE, `packed` for compression, `password` for a password that is sent in two ways.
//!
//! The driver's part is that of [`tidegate_wire::Machine`]. The first action is [`Action::Dial`].
//!
//! Limits: [`Limits`](crate::Limits), and the constants in `config.rs`.
//!
//! Known gaps:
//! - One command is under way at a time: a client that sends several ahead (MariaDB's pipelining) has
//!   the later ones read when the earlier one is answered. The answers are the same, and the order.
//! - A refused COM_CHANGE_USER, or one that the server refuses, ends the session.
//! - SQL that the server runs of its own accord at a login (`init_connect`) may set a character set
//!   that the gate does not learn of; so may `skip_character_set_client_handshake`.

mod answer;
mod client;
mod guard;
mod infile;
mod login;
mod packed;
mod password;
mod server;
mod statement;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_event::{Analysis, Ending, Status};
use tidegate_mask::Duties;
use tidegate_recording::Chunk;
use tidegate_sql::mysql::{Charset, Settings};
use tidegate_wire::{Fault, Whose};

pub(crate) use statement::Known;

use crate::frame::HEADER_BYTES;
use crate::message::response::FIXED_BYTES;
use crate::message::{error, greeting::Greeting, ok};
use crate::statements::Statements;
use crate::{Action, Analyze, Answer, AskId, Authority, Config, Exempt};
use answer::Asking;
use client::{ClientEnd, ClientSide};
use login::Login;
use packed::Packed;
pub use password::PasswordKey;
use server::{Progress, Reading, Running};

/// Where the session stands.
enum Phase<R> {
    /// The driver connects.
    Dialling,
    /// The server's greeting is awaited.
    Greeting,
    /// The client's handshake response is awaited, or asked about.
    Response { under_tls: bool },
    /// Between a granted SSLRequest and `client_tls_started`.
    ClientTls,
    /// Between our SSLRequest and `server_tls_started`, with the response that waits.
    ServerTls(Box<Login<R>>, Bytes),
    /// Between the permit for the login and the server's OK.
    Login(Box<Login<R>>),
    /// Commands.
    Session,
    /// The last action is out.
    Closed,
}

/// Whether a call of the machine goes on with the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Stop,
}

/// A permitted operation under way.
#[derive(Clone)]
struct Op<R> {
    id: AskId,
    released_ns: u64,
    receipt: R,
    /// What its results are subject to.
    duties: Option<Arc<Duties>>,
}

/// What was prepared in SQL: by which text, in which database, read in which way.
struct ByName {
    text: Arc<str>,
    database: String,
    settings: Settings,
}

/// Of what the server tells each change by session tracking, and nothing can have turned that off (manual,
/// "Server Tracking of Client Session State").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tracks {
    /// It has told the database once.
    database: bool,
    /// It has told `character_set_client` once.
    charset: bool,
}

/// What is known of the session's state.
struct Session<R> {
    /// The flags that both sides agreed on.
    capabilities: u64,
    statements: Statements<R>,
    /// A statement may have been prepared in SQL that changes the database or the character set.
    prepared_in_doubt: bool,
    /// What was prepared in SQL, by name.
    named: HashMap<String, ByName>,
    /// The statement that MariaDB's number -1 means.
    last_prepared: Option<u32>,
    /// Status flags of the server's last OK or EOF.
    status: u16,
    charset: Charset,
    /// The current database, empty for none; `None` where it is not known.
    database: Option<String>,
    /// Whether the server itself has said what the database is, in the command under way.
    told_database: bool,
    /// Whether it says so of each change.
    tracks: Tracks,
    /// Session tracking is ours: the client has not agreed on it, and is told nothing of it.
    strips: bool,
    running: Option<Running<R>>,
    progress: Progress,
    /// What is asked for a statement that the gate did not see prepared.
    unseen: Option<Arc<Analysis>>,
}

/// The protocol between one client and one server. `R` is the driver's receipt.
pub struct Machine<R> {
    config: Config,
    analyzer: Arc<dyn Analyze>,
    out: VecDeque<Action<R>>,
    out_bytes: usize,
    phase: Phase<R>,
    asking: Option<Asking>,
    /// What is to be done to the results of what is being permitted.
    duties: Option<Arc<Duties>>,
    next_ask: u64,
    client: ClientSide<R>,
    reading: Reading,
    greeting: Option<Greeting>,
    session: Session<R>,
    /// Compression, once it has begun.
    packed: Option<Box<Packed>>,
    /// What clients without TLS seal passwords with, where there is something.
    password_key: Option<Arc<dyn PasswordKey>>,
}

impl<R: Clone> Machine<R> {
    /// A machine whose first wish is to be connected to the server.
    pub fn new(config: Config, analyzer: Arc<tidegate_sql::mysql::Analyzer>) -> Self {
        Self::with_analyzer(config, analyzer)
    }

    /// The same with any analyser.
    pub fn with_analyzer(config: Config, analyzer: Arc<dyn Analyze>) -> Self {
        let session = Session {
            capabilities: 0,
            statements: Statements::new(config.limits.statements_bytes_max),
            prepared_in_doubt: false,
            named: HashMap::new(),
            last_prepared: None,
            status: 0,
            charset: Charset::Other,
            database: Some(String::new()),
            told_database: false,
            tracks: Tracks::default(),
            strips: false,
            running: None,
            progress: Progress::default(),
            unseen: None,
        };
        Self {
            config,
            analyzer,
            out: VecDeque::from([Action::Dial]),
            out_bytes: 0,
            phase: Phase::Dialling,
            asking: None,
            duties: None,
            next_ask: 0,
            client: ClientSide::default(),
            reading: Reading::Packet,
            greeting: None,
            session,
            packed: None,
            password_key: None,
        }
    }

    /// Takes what it can from the front of the client's bytes. What stays (the beginning of a
    /// packet, or all behind an open question) is offered again with more behind it.
    pub fn from_client(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        if self.packed.is_some() {
            self.unpack_from_client(now_ns, bytes);
        } else {
            self.take_from_client(now_ns, bytes);
        }
        if matches!(self.phase, Phase::Closed) || self.client.end == ClientEnd::Terminated {
            bytes.clear();
        }
        if self.client.end == ClientEnd::Eof && self.reads_client() {
            self.end_client(now_ns);
        }
    }

    /// Takes what it can of plain packets.
    fn take_from_client(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        while self.reads_client() {
            let step = match &self.phase {
                Phase::Response { under_tls } => {
                    let under_tls = *under_tls;
                    self.first_packet(now_ns, under_tls, bytes)
                }
                Phase::Login(_) => self.login_packet(bytes),
                Phase::Session => self.session_packet(now_ns, bytes),
                _ => Ok(Step::Stop),
            };
            match step {
                Ok(Step::More) => {}
                Ok(Step::Stop) => break,
                Err(fault) => self.fail(now_ns, &fault),
            }
        }
    }

    /// Takes what it can from the front of the server's bytes; as [`Self::from_client`].
    pub fn from_server(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        if self.packed.is_none() {
            self.take_from_server(now_ns, bytes);
        }
        // The OK of the login may just have begun it.
        if self.packed.is_some() {
            self.unpack_from_server(now_ns, bytes);
        }
        if matches!(self.phase, Phase::Closed) {
            bytes.clear();
        }
    }

    /// Takes what it can of plain packets.
    fn take_from_server(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        let was_packed = self.packed.is_some();
        while self.reads_server() && self.packed.is_some() == was_packed {
            let step = match self.phase {
                Phase::Greeting | Phase::Response { .. } | Phase::Login(_) => {
                    self.handshake_packet(now_ns, bytes)
                }
                Phase::Session => self.read_session(now_ns, bytes),
                _ => Ok(Step::Stop),
            };
            match step {
                Ok(Step::More) => {}
                Ok(Step::Stop) => break,
                Err(fault) => self.fail(now_ns, &fault),
            }
        }
    }

    /// The client will send no more.
    pub fn client_closed(&mut self, now_ns: u64) {
        if self.client.end == ClientEnd::Open {
            self.client.end = ClientEnd::Eof;
        }
        // What runs goes on to its end, as it does when a client of the server itself is gone.
        if self.session.running.is_none() || self.client.is_within_message() {
            self.end_client(now_ns);
        }
    }

    /// The server will send no more.
    pub fn server_closed(&mut self, now_ns: u64) {
        let ending = match self.client.end {
            ClientEnd::Open => Ending::Server,
            ClientEnd::Eof | ClientEnd::Terminated => Ending::Client,
        };
        self.close(now_ns, ending);
    }

    /// The server is connected, and will greet.
    pub fn server_connected(&mut self) {
        if matches!(self.phase, Phase::Dialling) {
            self.phase = Phase::Greeting;
        }
    }

    /// The TLS handshake with the client is done; its bytes are plaintext again.
    pub fn client_tls_started(&mut self) {
        if matches!(self.phase, Phase::ClientTls) {
            self.phase = Phase::Response { under_tls: true };
            self.client.under_tls = true;
        }
    }

    /// The TLS handshake with the server is done.
    pub fn server_tls_started(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::ServerTls(login, response) => {
                self.tell_server(Authority::Receipt(login.op.receipt.clone()), response);
                self.phase = Phase::Login(login);
            }
            other => self.phase = other,
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action<R>> {
        if self.out.is_empty() {
            self.flush_client(false);
        }
        let action = self.out.pop_front();
        if let Some(Action::ToClient(bytes) | Action::ToServer { bytes, .. }) = &action {
            self.out_bytes = self.out_bytes.saturating_sub(bytes.len());
        }
        action
    }

    /// Answers a question. An answer to another one than the open one is dropped.
    pub fn answer(&mut self, now_ns: u64, id: AskId, answer: Answer<R>) {
        match self.asking.take() {
            Some(asking) if asking.id == id => self.answered(now_ns, asking, answer),
            other => self.asking = other,
        }
        if self.client.end == ClientEnd::Eof && self.reads_client() {
            self.end_client(now_ns);
        }
    }

    /// Answers a question with a permit, and what is to be done to the results.
    pub fn permit_with(&mut self, now_ns: u64, id: AskId, receipt: R, duties: Arc<Duties>) {
        self.duties = Some(duties);
        self.answer(now_ns, id, Answer::Permit(receipt));
        self.duties = None;
    }

    /// Ends the session over something that is not the protocol's: the client is told by an error,
    /// every operation that waits gets its outcome, and both legs close.
    pub fn abort(&mut self, now_ns: u64, sqlstate: &'static str, message: &str, hint: &str) {
        self.fail_with(now_ns, sqlstate, message, Some(hint));
    }

    /// Whether the client's bytes are wanted. False while a question is open or a command is under way.
    pub fn reads_client(&self) -> bool {
        if self.asking.is_some() || self.client.end == ClientEnd::Terminated {
            return false;
        }
        match &self.phase {
            Phase::Response { .. } => true,
            Phase::Login(login) => login.is_clients_turn(),
            Phase::Session => self.session.running.is_none() || self.client.is_within_message(),
            _ => false,
        }
    }

    /// How many more of the client's bytes may be read: until it is clear whether its first packet is an
    /// SSLRequest, not more than that, since its TLS follows at once.
    pub fn client_bytes_max(&self, buffered: usize) -> Option<usize> {
        let first = matches!(self.phase, Phase::Response { under_tls: false });
        let left = (HEADER_BYTES + FIXED_BYTES).checked_sub(buffered)?;
        (first && left > 0).then_some(left)
    }

    /// Whether the server's bytes are wanted: always, once there is a server, but while it waits for a
    /// decision on a local file.
    pub fn reads_server(&self) -> bool {
        match self.phase {
            Phase::Greeting | Phase::Response { .. } | Phase::Login(_) => true,
            Phase::Session => !self.asking.as_ref().is_some_and(Asking::is_infile),
            _ => false,
        }
    }

    /// Whether nothing is under way and no transaction is open, as far as the server has said. An error
    /// says nothing of a transaction, so that one that it has ended counts until the next answer.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Session)
            && self.asking.is_none()
            && self.session.running.is_none()
            && !self.client.is_within_message()
            && self.session.status & ok::IN_TRANSACTION == 0
    }

    /// The database that statements are read in now; where it is not known, none.
    pub fn database(&self) -> Option<&str> {
        match self.phase {
            Phase::Session => Some(self.session.database.as_deref().unwrap_or_default()),
            _ => None,
        }
    }

    /// Memory that the machine holds for this session, in bytes, roughly; without the driver's
    /// two buffers, of which it never needs more than its limits.
    pub fn held_bytes(&self) -> usize {
        let asking = self.asking.as_ref().map_or(0, Asking::held_bytes);
        let running = self.session.running.as_ref();
        let delivery = running.map_or(0, |running| running.delivery.held_bytes());
        [
            asking,
            self.session.statements.held_bytes(),
            self.out_bytes,
            delivery,
            self.packed_bytes(),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    fn ask_id(&mut self) -> AskId {
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        id
    }

    fn tell_client(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pack_for_client(bytes);
        }
    }

    fn tell_server(&mut self, authority: Authority<R>, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pack_for_server(authority, bytes);
        }
    }

    fn framing(&mut self, bytes: Bytes) {
        self.tell_server(Authority::Exempt(Exempt::Framing), bytes);
    }

    /// Reports what became of `op`.
    fn finish(&mut self, now_ns: u64, op: &Op<R>, status: Status) {
        let duration_ns = now_ns.saturating_sub(op.released_ns);
        let taken = self.session.progress.recorder.take();
        let mut outcome = self.session.progress.outcome(status, duration_ns);
        outcome.result = taken.map(|recorder| {
            let (last, result) = recorder.finish();
            if let Some(Chunk { offset, data }) = last {
                self.out.push_back(Action::Rows { id: op.id, offset, data });
            }
            Box::new(result)
        });
        self.out.push_back(Action::Outcome { id: op.id, outcome });
    }

    /// The client is gone, and nothing runs for it, or nothing that could go on without it.
    fn end_client(&mut self, now_ns: u64) {
        self.close(now_ns, Ending::Client);
    }

    /// Ends the session: every operation that waits gets its outcome, then both legs close.
    fn close(&mut self, now_ns: u64, ending: Ending) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => return,
            Phase::Login(login) | Phase::ServerTls(login, _) => {
                let status = self.session.progress.lost();
                self.finish(now_ns, &login.op, status);
            }
            _ => {}
        }
        // A server may have answered before it had the whole file.
        self.infile_lost(now_ns);
        if let Some(running) = self.session.running.take() {
            self.lose(now_ns, running);
        }
        self.flush_client(true);
        self.out.push_back(Action::Close { ending });
    }

    /// Tells the client why it can't go on, and ends the session.
    fn fail(&mut self, now_ns: u64, fault: &Fault) {
        let sqlstate = match fault.whose {
            Whose::Client | Whose::Server => "08P01",
            Whose::Unsupported => "0A000",
            Whose::Caller => "XX000",
        };
        self.fail_with(now_ns, sqlstate, &fault.to_string(), None);
    }

    fn fail_with(
        &mut self,
        now_ns: u64,
        sqlstate: &'static str,
        message: &str,
        hint: Option<&str>,
    ) {
        match self.phase {
            Phase::Closed | Phase::ClientTls => {}
            Phase::Dialling | Phase::Greeting => {
                self.tell_client(error::before_greeting(message));
            }
            // In the middle of a server's packet an error of ours would be taken for its content.
            _ if self.reading == Reading::Packet => {
                let seq = self.client.next_seq;
                self.tell_client(error::response(seq, sqlstate, message, hint));
            }
            _ => {}
        }
        self.close(now_ns, Ending::Gate(message.to_owned()));
    }
}
