//! Writes the bytes of a record straight from borrowed domain types: no message is built, no text
//! cloned. This is what every statement pays.
//!
//! Promise: the bytes are those of the message that [`crate::record`] makes, encoded by prost
//! (a property test holds them equal).
//!
//! A record is a header ([`Header::write`]) and a body behind it. The body can be written before
//! the header's values are known, into a buffer of its own.

use tidegate_event::{
    ChainId, Digest, Durability, Effect, Login, NotKept, Operation, Outcome, Recorded, Seq,
    SessionId, SshRequest, Statement, Status, Stopped, Stream,
};

use crate::audit::v1::{audit_record, decision::Verdict};
use crate::file;
use crate::limits::{self, Shown, name};
use crate::record::{recorded_about, recorded_text};
use crate::wire::{bytes, bytes_present, fixed64, flag, message, present, uint};

/// Format version.
const VERSION: u64 = 1;
const CUT_FIELD: u32 = 60;
const OPERATION_FIELD: u32 = 40;
const OUTCOME_FIELD: u32 = 41;
const RESULT_ROWS_FIELD: u32 = 42;

/// What stands before each body.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The chain.
    pub chain_id: &'a ChainId,
    /// Place in it.
    pub seq: Seq,
    /// Chain value of the record before.
    pub prev: &'a [u8; 32],
    /// Wall clock, nanoseconds since 1970.
    pub wall_ns: u64,
    /// Boot clock, nanoseconds.
    pub boot_ns: u64,
    /// The session, for what happens in one.
    pub session: Option<&'a SessionId>,
    /// The operation that an Outcome belongs to.
    pub cause: Option<Seq>,
}

impl Header<'_> {
    /// Appends the header's fields.
    pub fn write(&self, buf: &mut Vec<u8>) {
        uint(buf, 1, VERSION);
        bytes(buf, 2, self.chain_id.as_bytes());
        uint(buf, 3, self.seq.0);
        bytes(buf, 4, self.prev);
        fixed64(buf, 5, self.wall_ns);
        fixed64(buf, 6, self.boot_ns);
        if let Some(session) = self.session {
            bytes(buf, 8, session.as_bytes());
        }
        if let Some(cause) = self.cause {
            present(buf, 10, cause.0);
        }
    }
}

/// The decision on an operation, in borrowed parts.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// What it was.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: &'a str,
    /// Policies that made it.
    pub policies: &'a [String],
    /// Which policy set.
    pub policy_digest: &'a Digest,
    /// The level that it asks.
    pub durability: Durability,
    /// What a policy wants people to be alerted of; empty for nothing.
    pub alert: &'a str,
    /// Protected columns whose clear values the result may hold.
    pub unmasked: &'a [String],
    /// Whether values of the recorded statement are masked.
    pub masked: bool,
}

/// Appends an `Operation` body.
pub fn operation(buf: &mut Vec<u8>, operation: &Operation, decided: &Decided<'_>) {
    let mut cut = false;
    message(buf, OPERATION_FIELD, |buf| {
        message(buf, 1, |buf| decision(buf, decided, &mut cut));
        match operation {
            Operation::Statement(statement) => {
                effects(buf, &statement.analysis.effects, &mut cut);
            }
            _ => effects(buf, &operation.effects(), &mut cut),
        }
        match operation {
            Operation::Login(login) => message(buf, 10, |buf| write_login(buf, login, &mut cut)),
            Operation::Statement(statement) => {
                message(buf, 11, |buf| write_statement(buf, statement, &mut cut));
            }
            Operation::FunctionCall(call) => message(buf, 12, |buf| {
                uint(buf, 1, u64::from(call.oid));
                uint(buf, 2, u64::from(call.arguments));
            }),
            Operation::Cancel(cancel) => {
                message(buf, 13, |buf| uint(buf, 1, u64::from(cancel.backend_pid)));
            }
            Operation::Ssh(request) => message(buf, 40, |buf| write_ssh(buf, request, &mut cut)),
            Operation::File(request) => {
                message(buf, 41, |buf| file::write_request(buf, request, &mut cut));
            }
        }
        marks(buf, decided, &mut cut);
    });
    flag(buf, CUT_FIELD, cut);
}

/// Appends an `Outcome` body.
pub fn outcome(buf: &mut Vec<u8>, outcome: &Outcome) {
    let mut cut = false;
    message(buf, OUTCOME_FIELD, |buf| {
        bytes(buf, 1, outcome.status.name().as_bytes());
        if let Status::Failed { code, message } = &outcome.status {
            bytes(buf, 2, name(code, &mut cut).as_bytes());
            bytes(buf, 3, name(message, &mut cut).as_bytes());
        }
        let copied = outcome.copied.unwrap_or_default();
        uint(buf, 4, outcome.rows);
        uint(buf, 5, outcome.bytes_out);
        uint(buf, 6, copied.bytes_in);
        uint(buf, 7, copied.bytes_out);
        uint(buf, 8, outcome.duration_ns);
        bytes(buf, 9, name(&outcome.tags, &mut cut).as_bytes());
        if let Some(masked) = &outcome.masked {
            message(buf, 20, |buf| {
                uint(buf, 1, u64::from(masked.columns));
                uint(buf, 2, masked.values);
                uint(buf, 3, masked.detected);
                flag(buf, 4, masked.shadow);
                bytes(buf, 5, masked.stopped.map(Stopped::name).unwrap_or_default().as_bytes());
            });
        }
        if let Some(result) = &outcome.result {
            message(buf, 21, |buf| write_result(buf, result, &mut cut));
        }
        if let Some(carried) = &outcome.carried {
            message(buf, 22, |buf| file::write_carried(buf, carried, &mut cut));
        }
    });
    flag(buf, CUT_FIELD, cut);
}

fn write_result(buf: &mut Vec<u8>, result: &Recorded, cut: &mut bool) {
    bytes(buf, 1, result.digest.as_ref().map_or(&[], |digest| digest.as_slice()));
    flag(buf, 2, result.keyed);
    uint(buf, 3, result.bytes);
    uint(buf, 4, u64::from(result.results));
    let (columns, total) = limits::list(&result.columns, |column| &column.name, cut);
    for column in columns {
        message(buf, 5, |buf| {
            bytes(buf, 1, name(&column.name, cut).as_bytes());
            uint(buf, 2, u64::from(column.type_oid));
            flag(buf, 3, column.binary);
        });
    }
    uint(buf, 6, u64::from(total));
    uint(buf, 7, result.kept);
    bytes(buf, 8, result.not_kept.map(NotKept::name).unwrap_or_default().as_bytes());
}

/// Appends a `ResultRows` body.
pub fn result_rows(buf: &mut Vec<u8>, stream: Stream, offset: u64, data: &[u8]) {
    message(buf, RESULT_ROWS_FIELD, |buf| {
        uint(buf, 1, offset);
        bytes(buf, 2, data);
        bytes(buf, 3, stream.name().as_bytes());
    });
}

/// Appends any other body, from its message.
pub fn body(buf: &mut Vec<u8>, body: &audit_record::Body, cut: bool) {
    body.encode(buf);
    flag(buf, CUT_FIELD, cut);
}

fn marks(buf: &mut Vec<u8>, decided: &Decided<'_>, cut: &mut bool) {
    bytes(buf, 30, name(decided.alert, cut).as_bytes());
    let (unmasked, total) = limits::list(decided.unmasked, String::as_str, cut);
    for column in unmasked {
        bytes_present(buf, 31, name(column, cut).as_bytes());
    }
    uint(buf, 32, u64::from(total));
    flag(buf, 33, decided.masked);
}

fn decision(buf: &mut Vec<u8>, decided: &Decided<'_>, cut: &mut bool) {
    uint(buf, 1, verdict(decided.verdict));
    bytes(buf, 2, name(decided.reason, cut).as_bytes());
    let (policies, total) = limits::list(decided.policies, String::as_str, cut);
    for policy in policies {
        bytes_present(buf, 3, name(policy, cut).as_bytes());
    }
    bytes(buf, 4, decided.policy_digest.as_bytes());
    bytes(buf, 5, decided.durability.name().as_bytes());
    uint(buf, 6, u64::from(total));
}

fn effects(buf: &mut Vec<u8>, all: &[Effect], cut: &mut bool) {
    let (listed, total) = limits::effects(all, cut);
    for effect in listed {
        message(buf, 2, |buf| {
            bytes(buf, 1, effect.action.name().as_bytes());
            if let Some(relation) = &effect.relation {
                if let Some(schema) = &relation.schema {
                    bytes(buf, 2, name(schema, cut).as_bytes());
                }
                bytes(buf, 3, name(&relation.name, cut).as_bytes());
            }
            flag(buf, 4, !effect.bounded);
        });
    }
    uint(buf, 3, u64::from(total));
}

fn write_login(buf: &mut Vec<u8>, login: &Login, cut: &mut bool) {
    bytes(buf, 1, name(&login.user, cut).as_bytes());
    bytes(buf, 2, name(&login.database, cut).as_bytes());
    if let Some(application) = &login.application {
        bytes(buf, 3, name(application, cut).as_bytes());
    }
    let (options, total) = limits::options(&login.options, cut);
    for (key, value) in options {
        message(buf, 4, |buf| {
            bytes(buf, 1, name(key, cut).as_bytes());
            bytes(buf, 2, name(value, cut).as_bytes());
        });
    }
    flag(buf, 5, login.replication);
    flag(buf, 6, login.client_tls);
    uint(buf, 7, u64::from(total));
}

fn write_statement(buf: &mut Vec<u8>, statement: &Statement, cut: &mut bool) {
    let (text, sha256) = recorded_text(statement, cut);
    bytes(buf, 1, statement.via.name().as_bytes());
    bytes(buf, 2, text.as_bytes());
    uint(buf, 3, statement.text_bytes);
    if let Some(sha256) = sha256 {
        bytes(buf, 4, &sha256);
    }
    bytes(buf, 5, name(&statement.prepared, cut).as_bytes());
    let (parameters, parameters_total) = limits::parameters(&statement.parameters, cut);
    for parameter in parameters {
        message(buf, 6, |buf| write_parameter(buf, parameter, cut));
    }
    uint(buf, 7, u64::from(parameters_total));
    let (kinds, kinds_total) = limits::list(&statement.analysis.kinds, |kind| &kind.0, cut);
    for kind in kinds {
        bytes_present(buf, 8, name(&kind.0, cut).as_bytes());
    }
    fixed64(buf, 9, statement.analysis.fingerprint.unwrap_or(0));
    if let Some(unknown) = &statement.analysis.unknown {
        bytes(buf, 10, name(&unknown.reason, cut).as_bytes());
    }
    uint(buf, 11, u64::from(kinds_total));
}

fn write_ssh(buf: &mut Vec<u8>, request: &SshRequest, cut: &mut bool) {
    let (about, sha256) = recorded_about(request, cut);
    bytes(buf, 40, request.kind.name().as_bytes());
    uint(buf, 41, u64::from(request.channel));
    bytes(buf, 42, about.as_bytes());
    uint(buf, 43, request.bytes);
    if let Some(sha256) = sha256 {
        bytes(buf, 44, &sha256);
    }
    bytes(buf, 45, name(&request.terminal, cut).as_bytes());
    bytes(buf, 46, name(request.command.as_deref().unwrap_or_default(), cut).as_bytes());
    bytes(buf, 47, name(&request.unclear, cut).as_bytes());
}

fn write_parameter(buf: &mut Vec<u8>, parameter: Shown<'_>, cut: &mut bool) {
    match parameter {
        Shown::Null => present(buf, 1, 1),
        Shown::Text(value) => bytes_present(buf, 2, value),
        Shown::Binary(type_oid, value) => message(buf, 3, |buf| {
            uint(buf, 1, u64::from(type_oid));
            bytes(buf, 2, value);
        }),
        Shown::Cut(head, whole) => {
            *cut = true;
            message(buf, 4, |buf| {
                bytes(buf, 1, head);
                uint(buf, 2, whole);
            });
        }
    }
}

/// The number of a verdict on the wire.
const fn verdict(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Unspecified => 0,
        Verdict::Allow => 1,
        Verdict::Deny => 2,
        Verdict::WouldDeny => 3,
        Verdict::PassedOpen => 4,
    }
}

#[cfg(test)]
mod tests;
