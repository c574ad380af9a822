//! The machine: one client, one server, one session.
//!
//! Promises: see the crate. How the work is split: `startup` up to the first ReadyForQuery,
//! `client` and `statement` for what the client sends then, `answer` for decisions, `server` for
//! what the server sends.
//!
//! The driver's part:
//! - After each call, [`Machine::poll`] until `None`.
//! - Bytes that a call leaves in the buffer belong at its front next time. Offer the client's
//!   buffer again, even an empty one, whenever [`Machine::reads_client`] is true after
//!   [`Machine::answer`], [`Machine::from_server`] or [`Machine::client_tls_started`].
//! - Call `client_closed` and `server_closed` once each, after the last bytes were offered.
//!
//! Limits: [`Limits`](crate::Limits), and the constants in `config.rs`.
//!
//! Known gaps: a client that reads nothing back while it sends more than
//! [`replies_max`](crate::Limits::replies_max) messages is not read on until the server answers.

mod answer;
mod client;
mod guard;
mod order;
mod parts;
mod server;
mod startup;
mod statement;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_event::{Analysis, Ending, Status};
use tidegate_recording::Chunk;
use tidegate_sql::Settings;
use tidegate_wire::{Fault, Whose};

pub use crate::message::query::{SUBSTITUTE_NAME, SUBSTITUTE_TEXT};
pub(crate) use statement::{Portal, Prepared};

use crate::config::TOLD_BYTES_MAX;
use crate::duty::Told;
use crate::message::error::{Severity, notice, response};
use crate::message::query::substitute_query;
use crate::message::status::Transaction;
use crate::names::{Fate, Names};
use crate::replies::{Copy, Op, Replies, columns};
use crate::{Action, Analyze, Answer, AskId, Authority, Config, Duties, Exempt};
use answer::Asking;
use client::{ClientEnd, ClientSide};
use guard::Guard;
use server::Reading;
use startup::{Login, Startup};
use statement::Recent;

/// Where the session stands.
enum Phase<R> {
    /// Before the StartupMessage is permitted.
    Startup(Startup),
    /// Between our `S` and `client_tls_started`.
    TlsHandshake,
    /// Between the permit for the login and the first ReadyForQuery.
    Login(Login<R>),
    /// Statements.
    Session,
    /// A cancel request is on its way; the server closes when it has done it.
    Cancelling(Op<R>),
    /// The last action is out.
    Closed,
}

/// What the client's next message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipeline {
    /// Nothing of the extended protocol since the last Sync.
    Synced,
    /// A pipeline that its Sync will end.
    Open,
    /// A pipeline that has failed: the rest up to its Sync is discarded.
    Discarding,
}

/// Whether a call of the machine goes on with the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    More,
    Stop,
}

/// What is known of the session's state.
struct Session<R> {
    replies: Replies<R>,
    statements: Names<Arc<Prepared<R>>>,
    portals: Names<Arc<Portal<R>>>,
    /// Cursors that SQL declared under an order.
    cursors: Names<Told>,
    /// Statements that SQL prepared under an order.
    prepared_in_sql: Names<Told>,
    guard: Guard,
    settings: Settings,
    transaction: Transaction,
    pipeline: Pipeline,
    /// Counts pipelines, so that a name's change and its use can be told apart.
    segment: u64,
    /// Reply number of the last message that may change how texts are read.
    doubt: Option<u64>,
    /// The last text, with what it does.
    recent: Option<Recent>,
    /// What is asked for a portal that the gate did not see bound.
    unseen: Option<Arc<Analysis>>,
}

/// The PostgreSQL protocol between one client and one server. `R` is the driver's receipt.
pub struct Machine<R> {
    config: Config,
    analyzer: Arc<dyn Analyze>,
    out: VecDeque<Action<R>>,
    out_bytes: usize,
    phase: Phase<R>,
    asking: Option<Asking<R>>,
    next_ask: u64,
    client: ClientSide<R>,
    reading: Reading,
    session: Session<R>,
}

impl<R: Clone> Machine<R> {
    /// A machine that waits for the client's first packet.
    pub fn new(config: Config, analyzer: Arc<tidegate_sql::Analyzer>) -> Self {
        Self::with_analyzer(config, analyzer)
    }

    /// The same with any analyser.
    pub fn with_analyzer(config: Config, analyzer: Arc<dyn Analyze>) -> Self {
        let session = Session {
            replies: Replies::default(),
            statements: Names::new(config.limits.statements_bytes_max),
            portals: Names::new(config.limits.portals_bytes_max),
            cursors: Names::new(TOLD_BYTES_MAX),
            prepared_in_sql: Names::new(TOLD_BYTES_MAX),
            guard: Guard::default(),
            settings: Settings::default(),
            transaction: Transaction::Idle,
            pipeline: Pipeline::Synced,
            segment: 0,
            doubt: None,
            recent: None,
            unseen: None,
        };
        Self {
            config,
            analyzer,
            out: VecDeque::new(),
            out_bytes: 0,
            phase: Phase::Startup(Startup::default()),
            asking: None,
            next_ask: 0,
            client: ClientSide::default(),
            reading: Reading::Message,
            session,
        }
    }

    /// Takes what it can from the front of the client's bytes. What stays (the beginning of a
    /// message, or all behind an open question) is offered again with more behind it.
    pub fn from_client(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        while self.reads_client() {
            let step = match &self.phase {
                Phase::Startup(startup) => {
                    let startup = *startup;
                    self.startup_packet(now_ns, startup, bytes)
                }
                Phase::Login(_) => self.login_message(now_ns, bytes),
                Phase::Session => self.session_message(bytes),
                Phase::TlsHandshake | Phase::Cancelling(_) | Phase::Closed => Ok(Step::Stop),
            };
            match step {
                Ok(Step::More) => {}
                Ok(Step::Stop) => break,
                Err(fault) => {
                    self.release_unless_held(bytes);
                    self.fail(now_ns, &fault);
                }
            }
        }
        if matches!(self.phase, Phase::Session) {
            self.release_unless_held(bytes);
        }
        if matches!(self.phase, Phase::Closed) || self.client.end == ClientEnd::Terminated {
            bytes.clear();
        }
        if self.client.end == ClientEnd::Eof && self.reads_client() {
            self.end_client(now_ns);
        }
    }

    /// Takes what it can from the front of the server's bytes; as [`Self::from_client`].
    pub fn from_server(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        match self.phase {
            Phase::Login(_) | Phase::Session => self.read_server(now_ns, bytes),
            Phase::Startup(_) | Phase::TlsHandshake | Phase::Cancelling(_) | Phase::Closed => {
                bytes.clear();
            }
        }
    }

    /// The client will send no more.
    pub fn client_closed(&mut self, now_ns: u64) {
        if self.client.end == ClientEnd::Terminated {
            self.end_client(now_ns);
            return;
        }
        self.client.end = ClientEnd::Eof;
        if self.reads_client() {
            self.end_client(now_ns);
        }
    }

    /// The server will send no more.
    pub fn server_closed(&mut self, now_ns: u64) {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => {}
            // A server closes after it has done what a cancel request asks, found or not.
            Phase::Cancelling(op) => {
                self.finish(now_ns, &op, Status::Ok);
                self.out.push_back(Action::Close { ending: Ending::Server });
            }
            other => {
                self.phase = other;
                let ending = match self.client.end {
                    ClientEnd::Open => Ending::Server,
                    ClientEnd::Eof | ClientEnd::Terminated => Ending::Client,
                };
                self.close(now_ns, ending);
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action<R>> {
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
    }

    /// Answers a question with a permit, and what is to be done to the results.
    #[expect(clippy::needless_pass_by_value, reason = "the driver has no further use for it")]
    pub fn permit_with(&mut self, now_ns: u64, id: AskId, receipt: R, duties: Arc<Duties>) {
        match self.asking.take() {
            Some(asking) if asking.id == id => self.answered_with(now_ns, asking, receipt, &duties),
            other => self.asking = other,
        }
    }

    /// The TLS handshake with the client is done; its bytes are plaintext again.
    pub fn client_tls_started(&mut self) {
        if matches!(self.phase, Phase::TlsHandshake) {
            self.phase = Phase::Startup(Startup::under_tls());
        }
    }

    /// The connection that carried an [`Action::Cancel`] is closed, or could not be made.
    pub const fn cancel_ended(&mut self) {
        self.session.guard.is_cancelling = false;
    }

    /// Ends the session over something that is not the protocol's: the client is told by a FATAL error
    /// with this SQLSTATE, every operation that waits gets its outcome, and both legs close.
    pub fn abort(&mut self, now_ns: u64, sqlstate: &'static str, message: &str, hint: &str) {
        self.fail_with(now_ns, sqlstate, message, Some(hint));
    }

    /// Sends the client a NoticeResponse; `false` in the middle of a server's message, or outside of a
    /// session.
    pub fn tell_notice(&mut self, message: &str) -> bool {
        let fits = matches!(self.phase, Phase::Session) && self.reading == Reading::Message;
        if fits {
            self.tell_client(notice(message));
        }
        fits
    }

    /// The whole CancelRequest for this session, or that this connection has brought.
    pub fn cancel_key(&self) -> Option<Bytes> {
        match &self.asking {
            Some(asking) if let Some(request) = asking.cancel_request() => Some(request),
            _ => self.session.guard.cancel_request(),
        }
    }

    /// Whether nothing is under way and no transaction is open, as far as the server has said.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Session)
            && self.asking.is_none()
            && self.session.replies.is_empty()
            && self.session.transaction == Transaction::Idle
    }

    /// Whether the client's bytes are wanted. False while a question is open, while names can't be
    /// resolved before the server answers, and when too many answers are outstanding.
    pub fn reads_client(&self) -> bool {
        self.asking.is_none()
            && !self.client.waiting
            && !self.session.guard.is_cancelling
            && self.client.end != ClientEnd::Terminated
            && matches!(self.phase, Phase::Startup(_) | Phase::Login(_) | Phase::Session)
    }

    /// Whether the server's bytes are wanted: always, once there is a server.
    pub fn reads_server(&self) -> bool {
        matches!(self.phase, Phase::Login(_) | Phase::Session | Phase::Cancelling(_))
    }

    /// Memory that the machine holds for this session, in bytes, roughly; without the driver's
    /// two buffers, of which it never needs more than its limits.
    pub fn held_bytes(&self) -> usize {
        let asking = self.asking.as_ref().map_or(0, Asking::held_bytes);
        let replies =
            self.session.replies.len().saturating_mul(size_of::<crate::replies::Expect<R>>());
        let recent = self.session.recent.as_ref().map_or(0, Recent::held_bytes);
        [
            asking,
            replies,
            recent,
            self.session.statements.held_bytes(),
            self.session.portals.held_bytes(),
            self.session.cursors.held_bytes(),
            self.session.prepared_in_sql.held_bytes(),
            self.session.replies.progress.delivery.held_bytes(),
            self.session.guard.row.as_ref().map_or(0, |row| row.held_bytes()),
        ]
        .into_iter()
        .fold(self.out_bytes, usize::saturating_add)
    }

    fn ask_id(&mut self) -> AskId {
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        id
    }

    fn tell_client(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out_bytes += bytes.len();
            self.out.push_back(Action::ToClient(bytes));
        }
    }

    fn tell_server(&mut self, authority: Authority<R>, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out_bytes += bytes.len();
            self.out.push_back(Action::ToServer { authority, bytes });
        }
    }

    fn framing(&mut self, bytes: Bytes) {
        self.tell_server(Authority::Exempt(Exempt::Framing), bytes);
    }

    /// The server took message `seq`, and this became of it.
    fn resolve(&mut self, seq: u64, fate: Fate) {
        let session = &mut self.session;
        session.statements.resolve(seq, fate);
        session.portals.resolve(seq, fate);
        session.cursors.resolve(seq, fate);
        session.prepared_in_sql.resolve(seq, fate);
    }

    /// Reports what became of `op`.
    fn finish(&mut self, now_ns: u64, op: &Op<R>, status: Status) {
        let duration_ns = now_ns.saturating_sub(op.released_ns);
        let taken = self.session.replies.progress.recorder.take();
        let mut outcome = self.session.replies.progress.outcome(status, duration_ns);
        outcome.result = taken.map(|recorder| {
            let (last, mut result) = recorder.finish();
            if let Some(Chunk { offset, data }) = last {
                self.out.push_back(Action::Rows { id: op.id, offset, data });
            }
            if result.columns.is_empty()
                && let Some(fields) = op.fields()
            {
                result.columns = columns(&fields);
            }
            Box::new(result)
        });
        self.out.push_back(Action::Outcome { id: op.id, outcome });
    }

    /// The client is gone, and all that it sent was taken. What runs goes on to its end, as it
    /// does when a client of the server itself is gone; only a COPY that waits for data can't, nor
    /// a message that was cut short: a Terminate would become its missing bytes.
    fn end_client(&mut self, now_ns: u64) {
        let takes_data = matches!(self.session.replies.copy, Copy::In | Copy::Both);
        let cut_short = self.client.is_within_message();
        match self.phase {
            Phase::Session if self.session.replies.has_ops() && !takes_data && !cut_short => {
                if self.client.end != ClientEnd::Terminated {
                    self.client.end = ClientEnd::Terminated;
                    self.framing(crate::frame::message(b'X', &[]));
                }
            }
            Phase::Cancelling(_) | Phase::Closed => {}
            _ => self.close(now_ns, Ending::Client),
        }
    }

    /// Ends the session: every operation that waits gets its outcome, then both legs close.
    fn close(&mut self, now_ns: u64, ending: Ending) {
        let failed = |failure: Option<(String, String)>| match failure {
            Some((code, message)) => Status::Failed { code, message },
            None => Status::Lost,
        };
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Closed => return,
            Phase::Login(Login { op, .. }) | Phase::Cancelling(op) => {
                let status = failed(self.session.replies.progress.failure.take());
                self.finish(now_ns, &op, status);
            }
            Phase::Startup(_) | Phase::TlsHandshake | Phase::Session => {}
        }
        while let Some((_, expect)) = self.session.replies.pop() {
            if let Some(op) = expect.into_op() {
                let status = failed(self.session.replies.progress.failure.take());
                self.finish(now_ns, &op, status);
            }
        }
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
        // In the middle of a server's message an error of ours would be taken for its content.
        let between = matches!(self.reading, Reading::Message | Reading::Drop { .. });
        if between && !matches!(self.phase, Phase::Closed | Phase::TlsHandshake) {
            self.tell_client(response(Severity::Fatal, sqlstate, message, hint));
        }
        self.close(now_ns, Ending::Gate(message.to_owned()));
    }
}
