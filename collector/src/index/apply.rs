//! One entry of the log into the tables.
//!
//! The log holds only what `ingest` checked, so what cannot be read here is damage, but a body
//! that a newer agent wrote is kept as a row of kind `other`.

use prost::Message as _;
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde_json::json;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::audit::v1::{
    self as audit, AuditRecord, CollectorEntry, Column, Endpoint, Operation, Outcome, Process,
    ResultRows, SealBody, SessionClose, SessionOpen, operation::What,
};
use tidegate_proto::read;

use crate::clock::signed_ns;

struct Row<'a> {
    work: &'a Transaction<'a>,
    idx: u64,
    chain: i64,
    seq: i64,
    session: Option<&'a [u8]>,
    wall_ns: i64,
    boot_ns: i64,
    received_ns: i64,
}

/// Takes one entry in.
pub fn entry(work: &Transaction<'_>, idx: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let entry = CollectorEntry::decode(bytes)?;
    match entry.kind() {
        Kind::Record => record(work, idx, &entry),
        Kind::Seal => seal(work, idx, &entry),
        Kind::Unspecified => anyhow::bail!("an entry of unknown kind"),
    }
}

fn seal(work: &Transaction<'_>, idx: u64, entry: &CollectorEntry) -> anyhow::Result<()> {
    let seal = tidegate_proto::audit::v1::Seal::decode(entry.bytes.as_ref())?;
    let body = SealBody::decode(seal.body.as_ref())?;
    work.prepare_cached(
        "INSERT OR REPLACE INTO seals (chain, last_seq, idx)
         SELECT id, ?2, ?3 FROM chains WHERE chain_id = ?1",
    )?
    .execute(params![&entry.chain_id[..], body.last_seq.cast_signed(), idx])?;
    Ok(())
}

fn record(work: &Transaction<'_>, idx: u64, entry: &CollectorEntry) -> anyhow::Result<()> {
    let record = AuditRecord::decode(entry.bytes.as_ref())?;
    let received_ns = signed_ns(entry.received_ns);
    let wall_ns = signed_ns(record.wall_ns);
    let seq = record.seq.cast_signed();
    if let Some(Body::Genesis(genesis)) = &record.body {
        work.execute(
            "INSERT OR IGNORE INTO chains (chain_id, agent_id, host, genesis_idx, last_seq,
             last_wall_ns, last_received_ns) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6)",
            params![
                &record.chain_id[..],
                genesis.agent_id,
                genesis.host,
                idx,
                wall_ns,
                received_ns
            ],
        )?;
    }
    let chain: Option<i64> = work
        .prepare_cached(
            "UPDATE chains SET last_seq = ?2, last_wall_ns = ?3, last_received_ns = ?4
             WHERE chain_id = ?1 RETURNING id",
        )?
        .query_row(params![&record.chain_id[..], seq, wall_ns, received_ns], |row| row.get(0))
        .optional()?;
    let chain = chain.ok_or_else(|| anyhow::anyhow!("a record before its chain's Genesis"))?;
    let session = Some(&record.session_id[..]).filter(|id| !id.is_empty());
    let boot_ns = signed_ns(record.boot_ns);
    let row = Row { work, idx, chain, seq, session, wall_ns, boot_ns, received_ns };
    row.body(record.body.as_ref(), record.cause_seq)?;
    row.watch(record.body.as_ref(), &entry.bytes)
}

impl Row<'_> {
    fn body(&self, body: Option<&Body>, cause_seq: Option<u64>) -> anyhow::Result<()> {
        let kind = body.map_or("other", read::kind_name);
        match body {
            Some(Body::Operation(operation)) => return self.operation(operation),
            Some(Body::Outcome(outcome)) => return self.outcome(outcome, cause_seq),
            Some(Body::ResultRows(rows)) => return self.result_rows(rows, cause_seq),
            Some(Body::SessionOpen(open)) => self.session_open(open)?,
            Some(Body::SessionClose(close)) => self.session_close(close)?,
            _ => {}
        }
        self.lifecycle(kind, body)
    }

    /// What `coverage` is judged by, exactly as it came: what an agent says of itself, and what the collector
    /// says of an agent.
    fn watch(&self, body: Option<&Body>, bytes: &[u8]) -> anyhow::Result<()> {
        let about = match body {
            Some(Body::Missing(missing)) => Some(missing.agent_id.as_str()),
            Some(Body::Equivocation(fork)) => Some(fork.agent_id.as_str()),
            Some(
                Body::Genesis(_)
                | Body::Lifecycle(_)
                | Body::Heartbeat(_)
                | Body::Gap(_)
                | Body::Bypass(_)
                | Body::Finding(_),
            ) => None,
            _ => return Ok(()),
        };
        self.work
            .prepare_cached(
                "INSERT OR IGNORE INTO watch (idx, agent_id, chain, wall_ns, received_ns, kind, record)
                 SELECT ?1, coalesce(?2, agent_id), id, ?4, ?5, ?6, ?7 FROM chains WHERE id = ?3",
            )?
            .execute(params![
                self.idx,
                about,
                self.chain,
                self.wall_ns,
                self.received_ns,
                body.map_or("other", read::kind_name),
                bytes,
            ])?;
        Ok(())
    }

    fn session_open(&self, open: &SessionOpen) -> anyhow::Result<()> {
        let process = open.process.as_ref();
        let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        self.work
            .prepare_cached(
                "INSERT OR IGNORE INTO sessions (session_id, chain, opened_idx, opened_ns,
                 principal, uid, gid, pid, comm, executable, cgroup, client, original, target,
                 protocol, mode)
                 VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
            )?
            .execute(params![
                self.session,
                self.chain,
                self.idx,
                self.wall_ns,
                open.principal,
                process.map(|process| process.uid),
                process.map(|process| process.gid),
                process.map(|process| process.pid),
                process.map(|process| process.comm.clone()),
                process.and_then(|process| known(&process.executable)),
                process.and_then(|process| known(&process.cgroup)),
                address(open.client.as_ref()),
                address(open.original.as_ref()),
                open.target,
                open.protocol,
                open.mode,
            ])?;
        Ok(())
    }

    fn session_close(&self, close: &SessionClose) -> anyhow::Result<()> {
        self.work
            .prepare_cached(
                "UPDATE sessions SET closed_idx = ?2, closed_ns = ?3, ended_by = ?4, reason = ?5,
                 operations = ?6, refused = ?7, bytes_from_client = ?8, bytes_from_server = ?9
                 WHERE session_id = ?1",
            )?
            .execute(params![
                self.session,
                self.idx,
                self.wall_ns,
                close.ended_by,
                close.reason,
                signed_ns(close.operations),
                signed_ns(close.refused),
                signed_ns(close.bytes_from_client),
                signed_ns(close.bytes_from_server),
            ])?;
        Ok(())
    }

    /// Principal and target of the session.
    fn who(&self) -> anyhow::Result<(String, String)> {
        let found = self
            .work
            .prepare_cached("SELECT principal, target FROM sessions WHERE session_id = ?1")?
            .query_row(params![self.session], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    fn operation(&self, operation: &Operation) -> anyhow::Result<()> {
        let (who, target) = self.who()?;
        let decision = operation.decision.clone().unwrap_or_default();
        let asked = Asked::of(operation.what.as_ref());
        self.work
            .prepare_cached(
                "INSERT OR IGNORE INTO operations (idx, chain, seq, session_id, wall_ns,
                 received_ns, who, target, kind, text, text_bytes, prepared, parameters, kinds,
                 fingerprint, unknown, verdict, reason, policies, policy_digest, durability,
                 alert, unmasked, masked, command, sent)
                 VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,
                 ?22,?23,?24,?25,?26)",
            )?
            .execute(params![
                self.idx,
                self.chain,
                self.seq,
                self.session,
                self.wall_ns,
                self.received_ns,
                who,
                target,
                asked.kind,
                asked.text,
                signed_ns(asked.text_bytes),
                asked.prepared,
                json!(asked.parameters).to_string(),
                asked.kinds.join(" "),
                asked.fingerprint.map(u64::cast_signed),
                asked.unknown,
                read::verdict_name(decision.verdict),
                decision.reason,
                json!(decision.policies).to_string(),
                &decision.policy_digest[..],
                decision.durability,
                operation.alert,
                json!(operation.unmasked).to_string(),
                operation.masked,
                asked.command,
                asked.sent,
            ])?;
        for effect in &operation.effects {
            self.work
                .prepare_cached(
                    "INSERT INTO effects (idx, action, schema, relation, unbounded)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    self.idx,
                    effect.action,
                    effect.schema,
                    effect.relation,
                    effect.unbounded
                ])?;
        }
        if let Some(What::Login(login)) = &operation.what {
            self.work.execute(
                "UPDATE sessions SET db_user = ?2, db_name = ?3, application = ?4
                 WHERE session_id = ?1",
                params![self.session, login.user, login.database, login.application],
            )?;
        }
        Ok(())
    }

    fn outcome(&self, outcome: &Outcome, cause_seq: Option<u64>) -> anyhow::Result<()> {
        self.work
            .prepare_cached(
                "UPDATE operations SET outcome_idx = ?3, status = ?4, code = ?5, message = ?6,
                 rows = ?7, bytes_out = ?8, copied_in = ?9, copied_out = ?10, duration_ns = ?11,
                 tags = ?12, masked_columns = ?13, result = ?14, carried = ?15 WHERE chain = ?1 AND seq = ?2",
            )?
            .execute(params![
                self.chain,
                cause_seq.map(u64::cast_signed),
                self.idx,
                outcome.status,
                outcome.code,
                outcome.message,
                signed_ns(outcome.rows),
                signed_ns(outcome.bytes_out),
                signed_ns(outcome.copied_in),
                signed_ns(outcome.copied_out),
                signed_ns(outcome.duration_ns),
                outcome.tags,
                // In shadow mode all passed as it was.
                outcome
                    .masked
                    .as_ref()
                    .filter(|masked| !masked.shadow)
                    .map(|masked| masked.columns),
                outcome.result.as_ref().map(|result| result_json(result).to_string()),
                outcome.carried.as_ref().map(|carried| carried_json(carried).to_string()),
            ])?;
        Ok(())
    }

    fn result_rows(&self, rows: &ResultRows, cause_seq: Option<u64>) -> anyhow::Result<()> {
        self.work
            .prepare_cached(
                "INSERT OR IGNORE INTO result_rows (chain, seq, start, idx, data, stream, boot_ns)
                 VALUES (?1,?2,?3,?4,?5,?6,?7)",
            )?
            .execute(params![
                self.chain,
                cause_seq.map(u64::cast_signed),
                signed_ns(rows.offset),
                self.idx,
                &rows.data[..],
                rows.stream,
                self.boot_ns,
            ])?;
        Ok(())
    }

    fn lifecycle(&self, kind: &str, body: Option<&Body>) -> anyhow::Result<()> {
        let (mut who, mut target) = self.who()?;
        match body {
            Some(Body::Bypass(bypass)) => target.clone_from(&bypass.target),
            Some(Body::Administration(act)) => who.clone_from(&act.who),
            Some(Body::Finding(finding)) => {
                who.clone_from(&finding.principal);
                target.clone_from(&finding.target);
            }
            Some(Body::SessionRefused(refused)) => {
                who = refused.process.as_ref().map(process_name).unwrap_or_default();
                target = address(refused.original.as_ref());
            }
            _ => {}
        }
        self.work
            .prepare_cached(
                "INSERT OR IGNORE INTO lifecycle (idx, chain, seq, session_id, wall_ns,
                 received_ns, who, target, kind, text) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
            )?
            .execute(params![
                self.idx,
                self.chain,
                self.seq,
                self.session,
                self.wall_ns,
                self.received_ns,
                who,
                target,
                kind,
                body.map(sentence).unwrap_or_default(),
            ])?;
        Ok(())
    }
}

fn result_json(result: &audit::Result) -> serde_json::Value {
    let column = |one: &Column| {
        json!({
            "name": one.name, "type_oid": one.type_oid, "binary": one.binary,
        })
    };
    json!({
        "digest": hex::encode(&result.digest),
        "keyed": result.keyed,
        "bytes": result.bytes,
        "results": result.results,
        "columns": result.columns.iter().map(column).collect::<Vec<_>>(),
        "columns_total": result.columns_total,
        "kept": result.kept,
        "not_kept": result.not_kept,
    })
}

fn carried_json(carried: &audit::Carried) -> serde_json::Value {
    let ranges = |all: &[audit::Range]| {
        all.iter().map(|one| json!({"offset": one.offset, "bytes": one.bytes})).collect::<Vec<_>>()
    };
    json!({
        "read": ranges(&carried.read),
        "read_total": carried.read_total,
        "written": ranges(&carried.written),
        "written_total": carried.written_total,
        "sha256": hex::encode(&carried.sha256),
    })
}

/// What an operation asks, flat.
#[derive(Default)]
struct Asked {
    kind: String,
    text: String,
    text_bytes: u64,
    prepared: String,
    parameters: Vec<String>,
    kinds: Vec<String>,
    fingerprint: Option<u64>,
    unknown: String,
    command: String,
    sent: String,
}

impl Asked {
    fn of(what: Option<&What>) -> Self {
        match what {
            Some(What::Statement(statement)) => Self {
                kind: statement.via.clone(),
                text: statement.text.clone(),
                text_bytes: statement.text_bytes,
                prepared: statement.prepared.clone(),
                parameters: statement.parameters.iter().map(read::parameter_text).collect(),
                kinds: statement.kinds.clone(),
                fingerprint: Some(statement.fingerprint).filter(|print| *print != 0),
                unknown: statement.unknown.clone(),
                command: String::new(),
                sent: String::new(),
            },
            Some(What::Login(login)) => Self {
                kind: "login".into(),
                text: format!("user={} database={}", login.user, login.database),
                ..Self::default()
            },
            Some(What::FunctionCall(call)) => Self {
                kind: "function_call".into(),
                text: format!("oid={} arguments={}", call.oid, call.arguments),
                ..Self::default()
            },
            Some(What::Cancel(cancel)) => Self {
                kind: "cancel".into(),
                text: format!("backend_pid={}", cancel.backend_pid),
                ..Self::default()
            },
            Some(What::Ssh(request)) => Self {
                kind: request.kind.clone(),
                text: request.about.clone(),
                text_bytes: request.bytes,
                unknown: request.unclear.clone(),
                command: request.command.clone(),
                ..Self::default()
            },
            Some(What::File(request)) => Self {
                kind: request.kind.clone(),
                text: read::file_text(request),
                sent: request.sent.clone(),
                ..Self::default()
            },
            None => Self { kind: "other".into(), ..Self::default() },
        }
    }
}

/// One line on anything but an operation.
pub fn sentence(body: &Body) -> String {
    match body {
        Body::Genesis(g) => format!("chain of agent {} on host {}", g.agent_id, g.host),
        Body::Lifecycle(l) => format!("{} {}", read::lifecycle_name(l.kind), l.detail),
        Body::Heartbeat(h) => format!(
            "captured={} refused_in_kernel={} passed_open={} sessions_active={} spool_bytes={}",
            h.captured, h.refused_in_kernel, h.passed_open, h.sessions_active, h.spool_bytes
        ),
        Body::Gap(g) => format!("records {} to {} are missing: {}", g.from_seq, g.to_seq, g.reason),
        Body::Bypass(b) => format!(
            "{} {} connections={} operations={} bytes={}",
            read::bypass_phase_name(b.phase),
            b.reason,
            b.connections,
            b.operations,
            b.bytes
        ),
        Body::Recovered(r) => format!(
            "after an unclean end: {} records whole, {} unsealed, {} bytes torn",
            r.records, r.unsealed_records, r.torn_bytes
        ),
        Body::Finding(f) => {
            let remote = address(f.remote.as_ref());
            format!("{} {} {} {} count={}", f.kind, f.outcome, remote, f.detail, f.count)
        }
        Body::SessionOpen(s) => format!(
            "from {} to {} ({})",
            address(s.client.as_ref()),
            address(s.original.as_ref()),
            s.mode
        ),
        Body::SessionRefused(s) => s.reason.clone(),
        Body::SessionClose(s) => format!(
            "by {} {} operations={} refused={}",
            s.ended_by, s.reason, s.operations, s.refused
        ),
        Body::Administration(a) => format!("{} {}", a.act, a.detail),
        Body::Equivocation(e) => {
            format!("FORK by agent {} at or before record {}: {}", e.agent_id, e.seq, e.detail)
        }
        Body::Missing(m) => format!(
            "records {} to {} of agent {} are not here: {}",
            m.from_seq, m.to_seq, m.agent_id, m.detail
        ),
        Body::Silence(s) => format!(
            "{} agent {}: no heartbeat for {} s; {}",
            read::silence_phase_name(s.phase),
            s.agent_id,
            s.silent_ns / 1_000_000_000,
            s.detail
        ),
        Body::ResultRows(rows) => {
            format!("{} bytes of a result are kept, from byte {} on", rows.data.len(), rows.offset)
        }
        Body::Operation(_) | Body::Outcome(_) => String::new(),
    }
}

fn process_name(process: &Process) -> String {
    format!("uid {}", process.uid)
}

/// `address:port`, with brackets for IPv6; empty where there is none.
fn address(endpoint: Option<&Endpoint>) -> String {
    match endpoint {
        None => String::new(),
        Some(at) if at.address.contains(':') => format!("[{}]:{}", at.address, at.port),
        Some(at) => format!("{}:{}", at.address, at.port),
    }
}
