//! A log entry as an OpenTelemetry LogRecord. Field by field: `docs/formats/otlp.md`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _};
use tidegate_ledger::tree::leaf_hash;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::audit::v1::operation::What;
use tidegate_proto::audit::v1::{AuditRecord, CollectorEntry, FileRequest, Operation, Outcome};
use tidegate_proto::read;

use crate::index::sentence;

/// Name of the instrumentation scope.
pub const SCOPE: &str = "tidegate.audit.v1";

/// OCSF class Datastore Activity.
const OCSF_DATASTORE: i64 = 6005;
/// OCSF class Event Log Activity.
const OCSF_EVENT_LOG: i64 = 1008;
/// OCSF activity `Other`.
const OCSF_OTHER: i64 = 99;

/// One record on its way.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its index in the log.
    pub index: u64,
    /// Agent that wrote it.
    pub agent: String,
    /// Host of that agent.
    pub host: String,
    /// The record.
    pub record: LogRecord,
}

/// Makes records of entries; asks the index who stands behind a session.
pub struct Mapper {
    origin: String,
    db: Connection,
}

/// What the index knows of a record's session.
#[derive(Default)]
struct Session {
    principal: String,
    target: String,
    protocol: String,
    original: String,
    user: Option<String>,
    database: Option<String>,
    pid: Option<i64>,
    executable: Option<String>,
}

impl Mapper {
    /// A mapper for the log of this origin.
    pub fn new(origin: &str, db: Connection) -> Self {
        Self { origin: origin.to_owned(), db }
    }

    /// The LogRecord of an entry; `None` for a seal.
    pub fn item(&mut self, index: u64, payload: &[u8]) -> anyhow::Result<Option<Item>> {
        let entry = CollectorEntry::decode(payload)?;
        if entry.kind() != Kind::Record {
            return Ok(None);
        }
        let record = AuditRecord::decode(entry.bytes.as_ref())?;
        let (agent, host) = self.chain(&record)?;
        let session = self.session(&record)?;
        let mut log = LogRecord {
            time_unix_nano: record.wall_ns,
            observed_time_unix_nano: entry.received_ns,
            ..LogRecord::default()
        };
        let out = &mut log.attributes;
        text(out, "log.record.uid", format!("{}#{index}", self.origin));
        text(out, "audit.log.origin", self.origin.as_str());
        number(out, "audit.log.index", i64::try_from(index).unwrap_or(i64::MAX));
        text(out, "audit.leaf_hash", hex::encode(leaf_hash(payload)));
        text(out, "audit.chain_id", hex::encode(&record.chain_id));
        number(out, "audit.seq", i64::try_from(record.seq).unwrap_or(i64::MAX));
        if !record.session_id.is_empty() {
            text(out, "session.id", hex::encode(&record.session_id));
        }
        if let Some(session) = &session {
            session.describe(out);
        }
        describe(&mut log, &record);
        Ok(Some(Item { index, agent, host, record: log }))
    }

    fn chain(&self, record: &AuditRecord) -> rusqlite::Result<(String, String)> {
        self.db
            .prepare_cached("SELECT agent_id, host FROM chains WHERE chain_id = ?1")?
            .query_row([&record.chain_id[..]], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn session(&self, record: &AuditRecord) -> rusqlite::Result<Option<Session>> {
        if record.session_id.is_empty() {
            return Ok(None);
        }
        self.db
            .prepare_cached(
                "SELECT principal, target, protocol, original, db_user, db_name, pid, executable
                 FROM sessions WHERE session_id = ?1",
            )?
            .query_row([&record.session_id[..]], |row| {
                Ok(Session {
                    principal: row.get(0)?,
                    target: row.get(1)?,
                    protocol: row.get(2)?,
                    original: row.get(3)?,
                    user: row.get(4)?,
                    database: row.get(5)?,
                    pid: row.get(6)?,
                    executable: row.get(7)?,
                })
            })
            .optional()
    }
}

impl Session {
    fn describe(&self, out: &mut Vec<KeyValue>) {
        text(out, "user.name", self.principal.as_str());
        text(out, "audit.target", self.target.as_str());
        text(out, "db.system.name", self.protocol.as_str());
        if let Some((host, port)) = self.original.rsplit_once(':') {
            text(out, "server.address", host.trim_matches(['[', ']']));
            number(out, "server.port", port.parse().unwrap_or(0));
        }
        for (key, value) in [
            ("audit.db.user", &self.user),
            ("db.namespace", &self.database),
            ("process.executable.path", &self.executable),
        ] {
            if let Some(value) = value {
                text(out, key, value.as_str());
            }
        }
        if let Some(pid) = self.pid {
            number(out, "process.pid", pid);
        }
    }
}

/// Event name, severity, sentence, and what belongs to the kind of record.
fn describe(log: &mut LogRecord, record: &AuditRecord) {
    let mut severity = SeverityNumber::Info;
    let body = record.body.as_ref();
    let (name, class, activity) = match body {
        Some(Body::Operation(operation)) => {
            severity = describe_operation(log, operation);
            return finish(log, severity);
        }
        Some(Body::Outcome(outcome)) => {
            describe_outcome(log, outcome, record.cause_seq);
            return finish(log, severity);
        }
        // That rows are kept, and how many bytes; what they are stays in the log.
        Some(Body::ResultRows(_)) => ("audit.result.rows", OCSF_DATASTORE, OCSF_OTHER),
        Some(Body::Genesis(_)) => ("audit.chain.start", OCSF_EVENT_LOG, 6),
        Some(Body::Lifecycle(_)) => ("audit.lifecycle", OCSF_EVENT_LOG, OCSF_OTHER),
        Some(Body::Heartbeat(_)) => ("audit.heartbeat", OCSF_EVENT_LOG, OCSF_OTHER),
        Some(Body::Gap(_)) => ("audit.gap", OCSF_EVENT_LOG, 9),
        Some(Body::Bypass(_)) => ("audit.bypass", OCSF_EVENT_LOG, 9),
        Some(Body::Recovered(_)) => ("audit.recovered", OCSF_EVENT_LOG, 6),
        Some(Body::Finding(_)) => ("audit.finding", OCSF_EVENT_LOG, OCSF_OTHER),
        Some(Body::SessionOpen(_)) => ("audit.session.open", OCSF_DATASTORE, 3),
        Some(Body::SessionRefused(_)) => ("audit.session.refused", OCSF_DATASTORE, 3),
        Some(Body::SessionClose(_)) => ("audit.session.close", OCSF_DATASTORE, OCSF_OTHER),
        Some(Body::Administration(_)) => ("audit.administration", OCSF_EVENT_LOG, OCSF_OTHER),
        Some(Body::Equivocation(_)) => ("audit.fork", OCSF_EVENT_LOG, OCSF_OTHER),
        Some(Body::Missing(_)) => ("audit.missing", OCSF_EVENT_LOG, 9),
        Some(Body::Silence(_)) => ("audit.silence", OCSF_EVENT_LOG, 9),
        None => ("audit.other", OCSF_EVENT_LOG, OCSF_OTHER),
    };
    match body {
        Some(
            Body::Gap(_)
            | Body::Bypass(_)
            | Body::Equivocation(_)
            | Body::Missing(_)
            | Body::Silence(_),
        ) => severity = SeverityNumber::Error,
        Some(Body::Recovered(_) | Body::SessionRefused(_) | Body::Finding(_)) => {
            severity = SeverityNumber::Warn;
        }
        _ => {}
    }
    name.clone_into(&mut log.event_name);
    log.body =
        Some(AnyValue { value: Some(Value::StringValue(body.map(sentence).unwrap_or_default())) });
    ocsf(log, class, activity);
    finish(log, severity);
}

fn finish(log: &mut LogRecord, severity: SeverityNumber) {
    log.severity_number = severity.into();
    let text = match severity {
        SeverityNumber::Error => "ERROR",
        SeverityNumber::Warn => "WARN",
        _ => "INFO",
    };
    text.clone_into(&mut log.severity_text);
}

fn describe_file(out: &mut Vec<KeyValue>, request: &FileRequest) {
    text(out, "file.path", request.path.as_str());
    for (key, value) in [
        ("audit.file.sent", &request.sent),
        ("audit.file.to", &request.to),
        ("audit.file.access", &request.access),
        ("audit.file.attributes", &request.attributes),
    ] {
        if !value.is_empty() {
            text(out, key, value.as_str());
        }
    }
}

fn describe_operation(log: &mut LogRecord, operation: &Operation) -> SeverityNumber {
    let decision = operation.decision.clone().unwrap_or_default();
    let out = &mut log.attributes;
    text(out, "audit.verdict", read::verdict_name(decision.verdict));
    text(out, "audit.reason", decision.reason.as_str());
    list(out, "security_rule.name", &decision.policies);
    text(out, "security_rule.version", hex::encode(&decision.policy_digest));
    text(out, "audit.durability", decision.durability.as_str());
    describe_masking(out, operation);
    let effects: Vec<String> = operation
        .effects
        .iter()
        .map(|effect| format!("{} {}.{}", effect.action, effect.schema, effect.relation))
        .map(|text| text.replace(" .", " ").trim_end().to_owned())
        .collect();
    list(out, "audit.effects", &effects);
    if let Some(effect) = operation.effects.iter().find(|effect| !effect.relation.is_empty()) {
        text(out, "db.collection.name", effect.relation.as_str());
    }
    let (name, what, activity) = match &operation.what {
        Some(What::Statement(statement)) => {
            text(out, "db.query.text", statement.text.as_str());
            text(out, "audit.via", statement.via.as_str());
            if let Some(kind) = statement.kinds.first() {
                text(out, "db.operation.name", kind.as_str());
            }
            if statement.fingerprint != 0 {
                text(out, "audit.fingerprint", format!("{:016x}", statement.fingerprint));
            }
            if !statement.unknown.is_empty() {
                text(out, "audit.unknown", statement.unknown.as_str());
            }
            ("audit.db.statement", "statement", statement_activity(operation))
        }
        Some(What::Login(_)) => ("audit.db.login", "login", 3),
        Some(What::FunctionCall(_)) => ("audit.db.function_call", "function call", 4),
        Some(What::Cancel(_)) => ("audit.db.cancel", "cancel request", OCSF_OTHER),
        Some(What::Ssh(request)) => {
            text(out, "audit.ssh.about", request.about.as_str());
            if !request.command.is_empty() {
                text(out, "audit.ssh.command", request.command.as_str());
            }
            ("audit.ssh.request", request.kind.as_str(), OCSF_OTHER)
        }
        Some(What::File(request)) => {
            describe_file(out, request);
            ("audit.ssh.file", request.kind.as_str(), OCSF_OTHER)
        }
        None => ("audit.db.other", "operation", OCSF_OTHER),
    };
    let verdict = decision.verdict();
    let denied = verdict == Verdict::Deny;
    number(out, "ocsf.action_id", if denied { 2 } else { 1 });
    number(out, "ocsf.disposition_id", if denied { 2 } else { 1 });
    let said = format!("{what} {}: {}", read::verdict_name(decision.verdict), decision.reason);
    log.body = Some(AnyValue { value: Some(Value::StringValue(said)) });
    name.clone_into(&mut log.event_name);
    ocsf(log, OCSF_DATASTORE, activity);
    match verdict {
        Verdict::PassedOpen => SeverityNumber::Error,
        _ if !operation.alert.is_empty() => SeverityNumber::Warn,
        Verdict::Deny | Verdict::WouldDeny => SeverityNumber::Warn,
        Verdict::Allow | Verdict::Unspecified => SeverityNumber::Info,
    }
}

fn describe_masking(out: &mut Vec<KeyValue>, operation: &Operation) {
    if !operation.alert.is_empty() {
        text(out, "audit.alert", operation.alert.as_str());
    }
    if !operation.unmasked.is_empty() {
        list(out, "audit.unmasked", &operation.unmasked);
    }
}

/// OCSF activity of the strongest thing that a statement does.
fn statement_activity(operation: &Operation) -> i64 {
    let does = |names: &[&str]| {
        operation.effects.iter().any(|effect| names.contains(&effect.action.as_str()))
    };
    if does(&["delete", "truncate"]) {
        7
    } else if does(&["ddl"]) {
        6
    } else if does(&["insert", "copy_from"]) {
        5
    } else if does(&["update"]) {
        2
    } else if does(&["select", "copy_to"]) {
        1
    } else {
        4
    }
}

fn describe_outcome(log: &mut LogRecord, outcome: &Outcome, cause_seq: Option<u64>) {
    let out = &mut log.attributes;
    if let Some(seq) = cause_seq {
        number(out, "audit.cause_seq", i64::try_from(seq).unwrap_or(i64::MAX));
    }
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    text(out, "audit.outcome", outcome.status.as_str());
    number(out, "db.response.returned_rows", count(outcome.rows));
    number(out, "audit.bytes_out", count(outcome.bytes_out));
    number(out, "audit.duration_ns", count(outcome.duration_ns));
    if !outcome.code.is_empty() {
        text(out, "db.response.status_code", outcome.code.as_str());
        text(out, "error.type", outcome.code.as_str());
    }
    if let Some(result) = &outcome.result {
        if !result.digest.is_empty() {
            text(out, "audit.result.digest", hex::encode(&result.digest));
        }
        number(out, "audit.result.kept_bytes", count(result.kept));
    }
    let said = format!("{} {} {}", outcome.status, outcome.tags, outcome.message);
    log.body = Some(AnyValue { value: Some(Value::StringValue(said.trim_end().to_owned())) });
    "audit.db.outcome".clone_into(&mut log.event_name);
    ocsf(log, OCSF_DATASTORE, OCSF_OTHER);
}

fn ocsf(log: &mut LogRecord, class: i64, activity: i64) {
    let out = &mut log.attributes;
    number(out, "ocsf.class_uid", class);
    number(out, "ocsf.activity_id", activity);
    number(out, "ocsf.type_uid", class * 100 + activity);
}

fn text(out: &mut Vec<KeyValue>, key: &str, value: impl Into<String>) {
    push(out, key, Value::StringValue(value.into()));
}

fn number(out: &mut Vec<KeyValue>, key: &str, value: i64) {
    push(out, key, Value::IntValue(value));
}

fn list(out: &mut Vec<KeyValue>, key: &str, values: &[String]) {
    let values = values
        .iter()
        .map(|value| AnyValue { value: Some(Value::StringValue(value.clone())) })
        .collect();
    push(out, key, Value::ArrayValue(ArrayValue { values }));
}

fn push(out: &mut Vec<KeyValue>, key: &str, value: Value) {
    let value = Some(AnyValue { value: Some(value) });
    out.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
}

/// One request of these items, in their order; neighbours of one agent share a resource.
pub fn request(items: &[Item]) -> ExportLogsServiceRequest {
    let mut resource_logs = Vec::new();
    for run in items.chunk_by(|a, b| a.agent == b.agent && a.host == b.host) {
        let mut attributes = Vec::new();
        text(&mut attributes, "service.name", "tidegate-agent");
        if let Some(first) = run.first() {
            text(&mut attributes, "service.instance.id", first.agent.as_str());
            text(&mut attributes, "host.name", first.host.as_str());
        }
        let scope =
            InstrumentationScope { name: SCOPE.to_owned(), ..InstrumentationScope::default() };
        resource_logs.push(ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope),
                log_records: run.iter().map(|item| item.record.clone()).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        });
    }
    ExportLogsServiceRequest { resource_logs }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::audit::v1::{Silence, silence::Phase};

    use super::*;

    #[test]
    fn an_agent_that_is_not_heard_of_is_an_error_with_its_name() {
        let silence = Silence {
            phase: Phase::Began.into(),
            agent_id: "host-a".to_owned(),
            silent_ns: 25_000_000_000,
            ..Silence::default()
        };
        let body = Some(Body::Silence(silence));
        let mut log = LogRecord::default();
        describe(&mut log, &AuditRecord { body, ..AuditRecord::default() });
        assert_eq!(
            (log.event_name.as_str(), log.severity_text.as_str()),
            ("audit.silence", "ERROR")
        );
        let said = format!("{:?}", log.body);
        assert!(said.contains("began agent host-a: no heartbeat for 25 s"), "{said}");
    }
}
