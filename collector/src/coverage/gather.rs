//! Reads what the judge needs out of the index.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use tidegate_proto::audit::v1::AuditRecord;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::lifecycle::Kind;

use super::{Host, Judge, Question, Report, Seen, Verdict};
use crate::acts::COLLECTOR;
use crate::clock::signed_ns;
use crate::state::Agent;

/// Judges every host that the question is about. `enrolled` are all agents that are known; the answer is one
/// snapshot of the index.
pub fn ask(db: &Connection, enrolled: &[Agent], question: &Question) -> anyhow::Result<Report> {
    let view = db.unchecked_transaction()?;
    let names = hosts(&view)?;
    let mut agents: BTreeSet<&str> = names.keys().map(String::as_str).collect();
    for agent in enrolled.iter().filter(|agent| signed_ns(agent.enrolled_ns) < question.to_ns) {
        agents.insert(&agent.agent_id);
    }
    let mut hosts: Vec<Host> = Vec::new();
    for agent in agents {
        let host = names.get(agent).map_or("", String::as_str);
        let asked = question.host.as_deref().is_none_or(|only| only == agent || only == host);
        if asked && may_guard(&view, agent, question)? {
            hosts.push(judge(&view, agent, host, question)?);
        }
    }
    let verdict = hosts.iter().map(|host| host.verdict).max().unwrap_or(Verdict::Undecided);
    Ok(Report { question: question.clone(), verdict, hosts })
}

/// Agents that ever began a chain, with their host's last name.
fn hosts(db: &Connection) -> anyhow::Result<BTreeMap<String, String>> {
    let mut rows =
        db.prepare("SELECT agent_id, host FROM chains WHERE agent_id <> ?1 ORDER BY id")?;
    let rows = rows.query_map([COLLECTOR], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn judge(db: &Connection, agent: &str, host: &str, question: &Question) -> anyhow::Result<Host> {
    let (begun, first, last) = bounds(db, agent, question)?;
    let mut judge = Judge::new(question, agent, host);
    let mut rows = db.prepare_cached(
        "SELECT chain, received_ns, record FROM watch
         WHERE agent_id = ?1 AND (idx = ?2 OR idx BETWEEN ?3 AND ?4) ORDER BY idx",
    )?;
    let mut rows = rows.query(params![agent, begun, first, last])?;
    while let Some(row) = rows.next()? {
        let record: Vec<u8> = row.get(2)?;
        if let Some(seen) = seen(row.get(0)?, row.get(1)?, &record)? {
            judge.take(seen);
        }
    }
    Ok(judge.finish())
}

fn seen(chain: i64, received_ns: i64, record: &[u8]) -> anyhow::Result<Option<Seen>> {
    let record = AuditRecord::decode(record)?;
    let (wall_ns, boot_ns) = (signed_ns(record.wall_ns), signed_ns(record.boot_ns));
    Ok(record.body.map(|body| Seen { wall_ns, boot_ns, received_ns, chain, body }))
}

/// The entries that say how it was from two heartbeats before the period to the first one behind it; before them the
/// Genesis of the first one's chain, which says when the host was started.
fn bounds(
    db: &Connection,
    agent: &str,
    question: &Question,
) -> anyhow::Result<(Option<i64>, i64, i64)> {
    let mut before = db.prepare_cached(
        "SELECT idx FROM watch WHERE agent_id = ?1 AND kind = 'heartbeat' AND wall_ns <= ?2
         ORDER BY idx DESC LIMIT 1 OFFSET ?3",
    )?;
    let mut first = None;
    for offset in [1, 0] {
        let found = before.query_row(params![agent, question.from_ns, offset], |row| row.get(0));
        first = first.or(found.optional()?);
    }
    let mut genesis = db.prepare_cached(
        "SELECT max(idx) FROM watch WHERE agent_id = ?1 AND kind = 'genesis' AND idx <= ?2",
    )?;
    let begun: Option<i64> = genesis.query_row(params![agent, first], |row| row.get(0))?;
    let mut behind = db.prepare_cached(
        "SELECT min(idx) FROM watch WHERE agent_id = ?1 AND kind = 'heartbeat' AND wall_ns >= ?2
         AND idx >= ?3",
    )?;
    let last: Option<i64> =
        behind.query_row(params![agent, question.to_ns, first.unwrap_or(0)], |row| row.get(0))?;
    Ok((begun, first.unwrap_or(0), last.unwrap_or(i64::MAX)))
}

/// Whether the agent guards what is asked for, as the configuration of its newest run before the period's end
/// says; one that does not say is taken in.
fn may_guard(db: &Connection, agent: &str, question: &Question) -> anyhow::Result<bool> {
    if question.principal.is_none() && question.target.is_none() {
        return Ok(true);
    }
    let mut rows = db.prepare_cached(
        "SELECT record FROM watch WHERE agent_id = ?1 AND kind = 'lifecycle' AND wall_ns < ?2
         ORDER BY idx DESC",
    )?;
    let mut rows = rows.query(params![agent, question.to_ns])?;
    while let Some(row) = rows.next()? {
        let record: Vec<u8> = row.get(0)?;
        let Some(Body::Lifecycle(config)) = AuditRecord::decode(record.as_slice())?.body else {
            continue;
        };
        if config.kind() != Kind::ConfigLoaded {
            continue;
        }
        let has = |only: &Option<String>, listed: &[String], total: u32| {
            only.as_ref().is_none_or(|only| total > 0 || listed.contains(only))
        };
        return Ok(has(&question.target, &config.targets, config.targets_total)
            && has(&question.principal, &config.principals, config.principals_total));
    }
    Ok(true)
}
