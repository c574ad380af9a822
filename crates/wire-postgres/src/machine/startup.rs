//! From the first packet to the first ReadyForQuery, both directions.
//!
//! Promises: SSLRequest and GSSENCRequest are answered here, once each; nothing may stand behind an
//! SSLRequest that is granted (CVE-2021-23222). No byte goes to the server before the login is
//! permitted. What the client answers to the server's authentication requests is never read but
//! for one flag, and never becomes part of an operation.

use bytes::{Buf as _, Bytes, BytesMut};
use tidegate_event::{Cancel, Ending, Login as LoginOperation, Operation, Status};
use tidegate_wire::Fault;

use super::answer::Asked;
use super::server::{Disposition, is_reply};
use super::{ClientEnd, Machine, Phase, Step};
use crate::config::{AUTH_MESSAGE_BYTES_MAX, DATABASE_NAME_BYTES_MAX, STARTUP_BYTES_MAX};
use crate::frame::{Header, header, kind_name};
use crate::message::authentication::{self, Authentication};
use crate::message::startup::{self, Startup as Packet};
use crate::message::{Malformed, error, status};
use crate::replies::Op;
use crate::{Action, Authority, ClientTls, Exempt};

/// What was asked before the StartupMessage.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Startup {
    tls: ClientLeg,
    gss: Asked1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ClientLeg {
    #[default]
    Plain,
    PlainAsked,
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Asked1 {
    #[default]
    NotYet,
    Once,
}

impl Startup {
    pub const fn under_tls() -> Self {
        Self { tls: ClientLeg::Tls, gss: Asked1::Once }
    }
}

/// A permitted login.
pub(super) struct Login<R> {
    pub op: Op<R>,
    pub step: LoginStep,
}

/// How far the authentication has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginStep {
    /// The server asks, the client answers.
    Exchange,
    /// The next answer chooses a SASL mechanism, and those with channel binding were taken out.
    Stripped,
    /// AuthenticationOk.
    Done,
}

const DIRECT_TLS: &str = "direct TLS (sslnegotiation=direct) is not supported through the gate; \
                          set sslnegotiation=postgres on the client";
const ONLY_PLUS: &str = "the server offers only SCRAM-SHA-256-PLUS, which can't pass the gate, \
                         because it binds to a TLS connection that ends there";
const ONLY_PLUS_HINT: &str = "Let the server offer SCRAM-SHA-256 too: connect the gate to it \
                              without TLS, or use another authentication method.";
const SAYS_CANNOT: &str = "this client's SCRAM login can't pass the gate: it supports channel \
                           binding and would tell the server that binding was taken away";
const SAYS_CANNOT_HINT: &str = "Set channel_binding=disable (PGCHANNELBINDING) on the client, or \
                                tls.client = \"refuse\" for this target, so that the leg on this \
                                host is without TLS.";

impl<R: Clone> Machine<R> {
    /// Takes the packet at the front.
    pub(super) fn startup_packet(
        &mut self,
        now_ns: u64,
        startup: Startup,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        if bytes.first() == Some(&startup::TLS_HANDSHAKE) {
            // An ErrorResponse means nothing within a TLS handshake.
            self.close(now_ns, Ending::Gate(DIRECT_TLS.to_owned()));
            return Ok(Step::Stop);
        }
        let Some(length) = startup::length(bytes) else {
            return Ok(Step::Stop);
        };
        let total = usize::try_from(length).unwrap_or_default();
        if !(8..=STARTUP_BYTES_MAX).contains(&total) {
            return Err(Fault::client(format!(
                "its first packet claims {length} bytes; 8 to {STARTUP_BYTES_MAX} are allowed"
            )));
        }
        if bytes.len() < total {
            return Ok(Step::Stop);
        }
        let held = bytes.split_to(total).freeze();
        let malformed = |Malformed| Fault::client("its first packet does not read");
        match startup::packet(&held).map_err(malformed)? {
            Packet::Ssl => self.ssl_request(now_ns, startup, bytes.is_empty()),
            Packet::GssEnc if startup.gss == Asked1::NotYet => {
                self.phase = Phase::Startup(Startup { gss: Asked1::Once, ..startup });
                self.tell_client(Bytes::from_static(b"N"));
                Ok(Step::More)
            }
            Packet::GssEnc => Err(Fault::client("GSSENCRequest came twice")),
            Packet::Cancel { backend_pid } => {
                let operation = Operation::Cancel(Cancel { backend_pid });
                self.ask(Asked::Cancel(held.clone()), operation);
                Ok(Step::Stop)
            }
            Packet::Message(parameters) => {
                let operation = login(&parameters, startup.tls == ClientLeg::Tls)?;
                self.ask(Asked::Login(held.clone()), Operation::Login(operation));
                Ok(Step::Stop)
            }
            Packet::OtherVersion { major, minor } => {
                Err(Fault::unsupported(format!("frontend protocol {major}.{minor}; version 3 is")))
            }
        }
    }

    fn ssl_request(&mut self, now_ns: u64, startup: Startup, last: bool) -> Result<Step, Fault> {
        if startup.tls != ClientLeg::Plain {
            return Err(Fault::client("SSLRequest came twice"));
        }
        match self.config.client_tls {
            ClientTls::Refuse => {
                let tls = ClientLeg::PlainAsked;
                self.phase = Phase::Startup(Startup { tls, ..startup });
                self.tell_client(Bytes::from_static(b"N"));
                Ok(Step::More)
            }
            ClientTls::Offer if last => {
                self.phase = Phase::TlsHandshake;
                self.tell_client(Bytes::from_static(b"S"));
                self.out.push_back(Action::StartClientTls);
                Ok(Step::Stop)
            }
            ClientTls::Offer => {
                let why = "the client broke the protocol: bytes stand behind its SSLRequest";
                self.close(now_ns, Ending::Gate(why.to_owned()));
                Ok(Step::Stop)
            }
        }
    }

    /// Takes a message of the authentication exchange.
    pub(super) fn login_message(
        &mut self,
        now_ns: u64,
        bytes: &mut BytesMut,
    ) -> Result<Step, Fault> {
        let Phase::Login(login) = &mut self.phase else {
            return Ok(Step::Stop);
        };
        let bad = |_| Fault::client("a length of its authentication message is below 4");
        let Some(header) = header(bytes).map_err(bad)? else {
            return Ok(Step::Stop);
        };
        match header.kind {
            b'p' if login.step != LoginStep::Done => {}
            b'X' if header.body_bytes() == 0 => {
                self.client.end = ClientEnd::Terminated;
                let terminate = bytes.split_to(header.total.min(bytes.len())).freeze();
                self.framing(terminate);
                return Ok(Step::Stop);
            }
            // A client that speaks ahead of the server's answer is heard after it.
            _ => {
                self.client.waiting = true;
                return Ok(Step::Stop);
            }
        }
        if header.total > AUTH_MESSAGE_BYTES_MAX {
            return Err(Fault::client(format!(
                "its authentication message claims {} bytes; {AUTH_MESSAGE_BYTES_MAX} are allowed",
                header.total
            )));
        }
        if bytes.len() < header.total {
            return Ok(Step::Stop);
        }
        let mut message = bytes.split_to(header.total);
        if login.step == LoginStep::Stripped {
            login.step = LoginStep::Exchange;
            let body = message.get(crate::frame::HEADER_BYTES..).unwrap_or_default();
            if authentication::says_server_cannot_bind(body) {
                message.advance(message.len());
                self.refuse_method(now_ns, SAYS_CANNOT, SAYS_CANNOT_HINT);
                return Ok(Step::Stop);
            }
        }
        self.tell_server(Authority::Exempt(Exempt::Handshake), message.freeze());
        Ok(Step::More)
    }

    /// A server's message before the first ReadyForQuery.
    pub(super) fn login_reply(
        &mut self,
        now_ns: u64,
        header: Header,
        body: &[u8],
    ) -> Result<Disposition, Fault> {
        let malformed =
            |Malformed| Fault::server(format!("a {} does not read", kind_name(header.kind)));
        match header.kind {
            b'R' => {
                let request = authentication::read(body).map_err(malformed)?;
                return Ok(self.authentication(now_ns, &request));
            }
            b'E' => {
                let failure = error::read(body);
                self.session.replies.progress.failure = Some((failure.sqlstate, failure.message));
            }
            b'K' => self.backend_key(body),
            b'S' => self.parameter_status(body).map_err(malformed)?,
            b'Z' => {
                self.session.transaction = status::ready(body).map_err(malformed)?;
                if let Phase::Login(login) = std::mem::replace(&mut self.phase, Phase::Session) {
                    self.session.replies.progress = crate::replies::Progress::default();
                    self.finish(now_ns, &login.op, Status::Ok);
                }
            }
            kind if is_reply(kind) => {
                let got = kind_name(kind);
                return Err(Fault::server(format!("a {got} came before the login was done")));
            }
            _ => {}
        }
        Ok(Disposition::Pass)
    }

    fn authentication(&mut self, now_ns: u64, request: &Authentication<'_>) -> Disposition {
        let Phase::Login(login) = &mut self.phase else {
            return Disposition::Pass;
        };
        match request {
            Authentication::Ok => login.step = LoginStep::Done,
            Authentication::Relayable => login.step = LoginStep::Exchange,
            Authentication::EndToEnd(method) => {
                let message = format!("{method} authentication can't be relayed by the gate");
                let hint = "Use scram-sha-256, md5, password or trust for this address in the \
                            server's pg_hba.conf.";
                self.refuse_method(now_ns, &message, hint);
                return Disposition::Swallow;
            }
            Authentication::Sasl(offered) => {
                let kept: Vec<&[u8]> =
                    offered.iter().copied().filter(|name| !name.ends_with(b"-PLUS")).collect();
                if kept.len() == offered.len() {
                    login.step = LoginStep::Exchange;
                } else if kept.is_empty() {
                    self.refuse_method(now_ns, ONLY_PLUS, ONLY_PLUS_HINT);
                    return Disposition::Swallow;
                } else {
                    login.step = LoginStep::Stripped;
                    return Disposition::Replace(authentication::sasl(&kept));
                }
            }
        }
        Disposition::Pass
    }

    fn refuse_method(&mut self, now_ns: u64, message: &str, hint: &str) {
        self.session.replies.progress.failure = Some(("0A000".to_owned(), message.to_owned()));
        self.fail_with(now_ns, "0A000", message, Some(hint));
    }
}

/// The operation of a StartupMessage. Of a name that comes twice the last holds, as in the server.
fn login(parameters: &[(&[u8], &[u8])], client_tls: bool) -> Result<LoginOperation, Fault> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let (mut user, mut database, mut application) = (None, None, None);
    let (mut replication, mut options) = (false, Vec::new());
    for &(name, value) in parameters {
        match name {
            b"user" => user = Some(value),
            b"database" => database = Some(value),
            b"replication" => replication = startup::asks_replication(value),
            b"application_name" => application = Some(text(value)),
            _ => options.push((text(name), text(value))),
        }
    }
    let user = user
        .filter(|user| !user.is_empty())
        .ok_or_else(|| Fault::client("its startup message names no user"))?;
    let database = database.filter(|database| !database.is_empty()).unwrap_or(user);
    for (what, name) in [("user", user), ("database", database)] {
        if name.len() > DATABASE_NAME_BYTES_MAX {
            return Err(Fault::unsupported(format!(
                "a {what} name of {} bytes: the server would cut it to {DATABASE_NAME_BYTES_MAX}",
                name.len()
            )));
        }
    }
    let (user, database) = (text(user), text(database));
    Ok(LoginOperation { user, database, application, options, replication, client_tls })
}
