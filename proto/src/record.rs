//! From domain types to messages: every body of a record.
//!
//! Promise: each conversion keeps to [`crate::limits`], and says whether it cut.

use std::net::SocketAddr;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tidegate_event::limits::{STATEMENT_TEXT_BYTES_MAX, cut as cut_text};
use tidegate_event::{
    Capture, Column, Effect, Ending, Executable, Login, Masked, NotKept, Operation, Outcome,
    Process, Recorded, SshRequest, Statement, Status, Stopped,
};

use crate::audit::v1::{self, operation::What, parameter::Value};
use crate::limits::{self, Shown, name};
use crate::write::Decided;

/// A message, and whether some text of it was cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Made<T> {
    /// The message.
    pub message: T,
    /// Goes into `AuditRecord.cut`.
    pub cut: bool,
}

fn made<T>(make: impl FnOnce(&mut bool) -> T) -> Made<T> {
    let mut cut = false;
    let message = make(&mut cut);
    Made { message, cut }
}

fn text(value: &str, cut: &mut bool) -> String {
    name(value, cut).to_owned()
}

/// The text of a statement that goes into its record, and the SHA-256 of the whole where that is
/// more. A text of which only the beginning is at hand, and no digest, gets none.
pub(crate) fn recorded_text<'a>(
    statement: &'a Statement,
    cut: &mut bool,
) -> (&'a str, Option<[u8; 32]>) {
    let (text, shorter) = cut_text(&statement.text, STATEMENT_TEXT_BYTES_MAX);
    let whole = u64::try_from(statement.text.len()) == Ok(statement.text_bytes);
    *cut |= shorter || !whole;
    let sha256 = match statement.text_sha256 {
        None if shorter && whole => Some(Sha256::digest(statement.text.as_bytes()).into()),
        given => given,
    };
    (text, sha256)
}

/// What an SSH request is about, as its record has it, and the SHA-256 of the whole where that is more.
pub(crate) fn recorded_about<'a>(
    request: &'a SshRequest,
    cut: &mut bool,
) -> (&'a str, Option<[u8; 32]>) {
    let (about, shorter) = cut_text(&request.about, STATEMENT_TEXT_BYTES_MAX);
    *cut |= shorter;
    let sha256 = match request.sha256 {
        None if shorter => Some(Sha256::digest(request.about.as_bytes()).into()),
        given => given,
    };
    (about, sha256)
}

/// An `Operation` with the decision on it.
pub fn operation(operation: &Operation, decided: &Decided<'_>) -> Made<v1::Operation> {
    made(|cut| {
        let decision = decision(decided, cut);
        let all = operation.effects();
        let (listed, total) = limits::effects(&all, cut);
        let effects = listed.iter().map(|one| effect(one, cut)).collect();
        let what = match operation {
            Operation::Login(one) => What::Login(login(one, cut)),
            Operation::Statement(one) => What::Statement(statement(one, cut)),
            Operation::FunctionCall(call) => What::FunctionCall(v1::FunctionCall {
                oid: call.oid,
                arguments: u32::from(call.arguments),
            }),
            Operation::Cancel(cancel) => {
                What::Cancel(v1::Cancel { backend_pid: cancel.backend_pid })
            }
            Operation::Ssh(request) => What::Ssh(ssh(request, cut)),
            Operation::File(request) => What::File(crate::file::request(request, cut)),
        };
        let (unmasked, unmasked_total) = limits::list(decided.unmasked, String::as_str, cut);
        v1::Operation {
            decision: Some(decision),
            effects,
            effects_total: total,
            what: Some(what),
            alert: text(decided.alert, cut),
            unmasked: unmasked.iter().map(|column| text(column, cut)).collect(),
            unmasked_total,
            masked: decided.masked,
        }
    })
}

fn decision(decided: &Decided<'_>, cut: &mut bool) -> v1::Decision {
    let reason = text(decided.reason, cut);
    let (policies, policies_total) = limits::list(decided.policies, String::as_str, cut);
    v1::Decision {
        verdict: decided.verdict.into(),
        reason,
        policies: policies.iter().map(|policy| text(policy, cut)).collect(),
        policy_digest: Bytes::copy_from_slice(decided.policy_digest.as_bytes()),
        durability: decided.durability.name().to_owned(),
        policies_total,
    }
}

fn effect(effect: &Effect, cut: &mut bool) -> v1::Effect {
    let relation = effect.relation.as_ref();
    v1::Effect {
        action: effect.action.name().to_owned(),
        schema: relation
            .and_then(|relation| relation.schema.as_deref())
            .map(|schema| text(schema, cut))
            .unwrap_or_default(),
        relation: relation.map(|relation| text(&relation.name, cut)).unwrap_or_default(),
        unbounded: !effect.bounded,
    }
}

fn login(login: &Login, cut: &mut bool) -> v1::Login {
    let (options, options_total) = limits::options(&login.options, cut);
    v1::Login {
        user: text(&login.user, cut),
        database: text(&login.database, cut),
        application: login.application.as_deref().map(|one| text(one, cut)).unwrap_or_default(),
        options: options
            .iter()
            .map(|(key, value)| v1::Option { name: text(key, cut), value: text(value, cut) })
            .collect(),
        replication: login.replication,
        client_tls: login.client_tls,
        options_total,
    }
}

fn ssh(request: &SshRequest, cut: &mut bool) -> v1::SshRequest {
    let (about, sha256) = recorded_about(request, cut);
    v1::SshRequest {
        kind: request.kind.name().to_owned(),
        channel: request.channel,
        about: about.to_owned(),
        bytes: request.bytes,
        sha256: sha256.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
        terminal: text(&request.terminal, cut),
        command: request.command.as_deref().map(|one| text(one, cut)).unwrap_or_default(),
        unclear: text(&request.unclear, cut),
    }
}

fn statement(statement: &Statement, cut: &mut bool) -> v1::Statement {
    let (text_shown, sha256) = recorded_text(statement, cut);
    let (parameters, parameters_total) = limits::parameters(&statement.parameters, cut);
    let parameters = parameters.map(|one| parameter(one, cut)).collect();
    let (kinds, kinds_total) = limits::list(&statement.analysis.kinds, |kind| &kind.0, cut);
    let unknown = statement.analysis.unknown.as_ref();
    v1::Statement {
        via: statement.via.name().to_owned(),
        text: text_shown.to_owned(),
        text_bytes: statement.text_bytes,
        text_sha256: sha256.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
        prepared: text(&statement.prepared, cut),
        parameters,
        parameters_total,
        kinds: kinds.iter().map(|kind| text(&kind.0, cut)).collect(),
        fingerprint: statement.analysis.fingerprint.unwrap_or(0),
        unknown: unknown.map(|unknown| text(&unknown.reason, cut)).unwrap_or_default(),
        kinds_total,
    }
}

fn parameter(parameter: Shown<'_>, cut: &mut bool) -> v1::Parameter {
    let value = match parameter {
        Shown::Null => Value::Null(true),
        Shown::Text(value) => Value::Text(Bytes::copy_from_slice(value)),
        Shown::Binary(type_oid, value) => {
            Value::Binary(v1::Binary { type_oid, value: Bytes::copy_from_slice(value) })
        }
        Shown::Cut(head, bytes) => {
            *cut = true;
            Value::Cut(v1::Cut { head: Bytes::copy_from_slice(head), bytes })
        }
    };
    v1::Parameter { value: Some(value) }
}

/// An `Outcome`.
pub fn outcome(outcome: &Outcome) -> Made<v1::Outcome> {
    made(|cut| {
        let (code, message) = match &outcome.status {
            Status::Failed { code, message } => (text(code, cut), text(message, cut)),
            _ => (String::new(), String::new()),
        };
        let copied = outcome.copied.unwrap_or_default();
        v1::Outcome {
            status: outcome.status.name().to_owned(),
            code,
            message,
            rows: outcome.rows,
            bytes_out: outcome.bytes_out,
            copied_in: copied.bytes_in,
            copied_out: copied.bytes_out,
            duration_ns: outcome.duration_ns,
            tags: text(&outcome.tags, cut),
            masked: outcome.masked.as_ref().map(masked),
            result: outcome.result.as_deref().map(|one| result(one, cut)),
            carried: outcome.carried.as_deref().map(|one| crate::file::carried(one, cut)),
        }
    })
}

fn result(result: &Recorded, cut: &mut bool) -> v1::Result {
    let (columns, columns_total) = limits::list(&result.columns, |column| &column.name, cut);
    let column = |one: &Column| v1::Column {
        name: text(&one.name, cut),
        type_oid: one.type_oid,
        binary: one.binary,
    };
    v1::Result {
        digest: result.digest.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
        keyed: result.keyed,
        bytes: result.bytes,
        results: result.results,
        columns: columns.iter().map(column).collect(),
        columns_total,
        kept: result.kept,
        not_kept: result.not_kept.map(NotKept::name).unwrap_or_default().to_owned(),
    }
}

fn masked(masked: &Masked) -> v1::Masked {
    v1::Masked {
        columns: masked.columns,
        values: masked.values,
        detected: masked.detected,
        shadow: masked.shadow,
        stopped: masked.stopped.map(Stopped::name).unwrap_or_default().to_owned(),
    }
}

/// A `SessionOpen` in parts that only the caller has: names are the configuration's.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// What the kernel and `/proc` said.
    pub capture: &'a Capture,
    /// Name of the principal.
    pub principal: &'a str,
    /// Name of the target.
    pub target: &'a str,
    /// `postgresql`.
    pub protocol: &'a str,
    /// `enforce` or `shadow`.
    pub mode: &'a str,
    /// The client's end, as the gate accepted it.
    pub client: SocketAddr,
}

/// A `SessionOpen`.
pub fn session_open(opening: &Opening<'_>) -> Made<v1::SessionOpen> {
    made(|cut| v1::SessionOpen {
        principal: text(opening.principal, cut),
        process: Some(process(&opening.capture.process, cut)),
        client: Some(endpoint(opening.client)),
        original: Some(endpoint(opening.capture.original)),
        target: text(opening.target, cut),
        protocol: opening.protocol.to_owned(),
        mode: opening.mode.to_owned(),
        socket_cookie: opening.capture.socket_cookie,
        netns_cookie: opening.capture.netns_cookie,
    })
}

/// A `SessionRefused`.
pub fn session_refused(
    reason: &str,
    client: SocketAddr,
    original: Option<SocketAddr>,
    who: Option<&Process>,
) -> Made<v1::SessionRefused> {
    made(|cut| v1::SessionRefused {
        reason: text(reason, cut),
        client: Some(endpoint(client)),
        original: original.map(endpoint),
        process: who.map(|one| process(one, cut)),
    })
}

/// A `SessionClose` without its counts.
pub fn session_close(ending: &Ending) -> Made<v1::SessionClose> {
    made(|cut| {
        let (ended_by, reason) = match ending {
            Ending::Client => ("client", ""),
            Ending::Server => ("server", ""),
            Ending::Gate(reason) => ("gate", reason.as_str()),
        };
        v1::SessionClose {
            ended_by: ended_by.to_owned(),
            reason: text(reason, cut),
            ..v1::SessionClose::default()
        }
    })
}

/// A `Finding` in parts.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its kind (`docs/formats/record.md`).
    pub kind: &'a str,
    /// What was done: `dropped`, `refused`, `ended`, `passed` or `open`.
    pub outcome: &'a str,
    /// In words.
    pub detail: &'a str,
    /// Name of the principal; empty where none is concerned.
    pub principal: &'a str,
    /// Name of the target; empty where none is concerned.
    pub target: &'a str,
    /// Who, where that is known.
    pub process: Option<&'a Process>,
    /// The other end, where there is one.
    pub remote: Option<SocketAddr>,
    /// How many alike it stands for.
    pub count: u64,
}

/// A `Finding`.
pub fn finding(found: &Found<'_>) -> Made<v1::Finding> {
    made(|cut| v1::Finding {
        kind: found.kind.to_owned(),
        outcome: found.outcome.to_owned(),
        detail: text(found.detail, cut),
        principal: text(found.principal, cut),
        target: text(found.target, cut),
        process: found.process.map(|one| process(one, cut)),
        remote: found.remote.map(endpoint),
        count: found.count,
    })
}

/// A list of names, and how many there are where not all fit.
pub fn names(names: &[&str], cut: &mut bool) -> (Vec<String>, u32) {
    let (listed, total) = limits::list(names, |name| name, cut);
    (listed.iter().map(|name| text(name, cut)).collect(), total)
}

fn process(process: &Process, cut: &mut bool) -> v1::Process {
    let (executable, executable_unknown) = match &process.executable {
        Executable::Path(path) => (text(path, cut), String::new()),
        Executable::Unknown(why) => (String::new(), text(why, cut)),
    };
    v1::Process {
        uid: process.uid,
        gid: process.gid,
        pid: process.pid,
        comm: text(&process.comm, cut),
        cgroup_id: process.cgroup_id,
        cgroup: process.cgroup.as_deref().map(|path| text(path, cut)).unwrap_or_default(),
        executable,
        executable_unknown,
    }
}

fn endpoint(address: SocketAddr) -> v1::Endpoint {
    v1::Endpoint { address: address.ip().to_string(), port: u32::from(address.port()) }
}
