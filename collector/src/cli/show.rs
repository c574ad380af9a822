//! `agents` and `status`: how things stand, read beside a collector that serves.

use std::io::Write;

use rusqlite::OptionalExtension as _;
use serde_json::{Value, json};
use tidegate_ledger::checkpoint;

use crate::clock::{rfc3339, signed_ns};
use crate::config::Config;
use crate::log::notes::NEWEST;
use crate::query::Proofs;
use crate::state::State;
use crate::{files, index, keys};

/// Lists the agents with the last thing heard of each.
pub fn agents(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let agents = agent_values(config)?;
    if json {
        for agent in &agents {
            writeln!(out, "{agent}")?;
        }
        return Ok(());
    }
    writeln!(
        out,
        "{:<24} {:<27} {:<27} {:>12} {:>6}",
        "AGENT", "ENROLLED", "LAST RECEIVED", "RECORDS", "FORKS"
    )?;
    for agent in &agents {
        let text = |key: &str| agent.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        let count = |key: &str| agent.get(key).and_then(Value::as_u64).unwrap_or(0);
        writeln!(
            out,
            "{:<24} {:<27} {:<27} {:>12} {:>6}",
            text("agent"),
            text("enrolled"),
            text("last_received"),
            count("records"),
            count("forks")
        )?;
    }
    Ok(())
}

fn agent_values(config: &Config) -> anyhow::Result<Vec<Value>> {
    let paths = config.paths();
    let state = State::open(&paths.state())?;
    let forks = state.forks()?;
    let db = paths.index().exists().then(|| index::open_for_reading(&paths.index())).transpose()?;
    let mut values = Vec::new();
    for agent in state.agents()? {
        let mut value = json!({
            "agent": agent.agent_id,
            "enrolled": rfc3339(signed_ns(agent.enrolled_ns)),
            "audit_key": hex::encode(agent.audit_key),
            "forks": forks.iter().find(|(id, _)| *id == agent.agent_id).map_or(0, |(_, n)| *n),
        });
        if let Some(db) = &db {
            let last: Option<(String, Vec<u8>, i64, i64, i64)> = db
                .query_row(
                    "SELECT host, chain_id, last_seq, last_received_ns,
                        (SELECT sum(last_seq + 1) FROM chains WHERE agent_id = ?1)
                     FROM chains WHERE agent_id = ?1 ORDER BY id DESC LIMIT 1",
                    [&agent.agent_id],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
                )
                .optional()?;
            if let (Some((host, chain, seq, received, records)), Some(map)) =
                (last, value.as_object_mut())
            {
                map.insert("host".into(), host.into());
                map.insert("chain".into(), hex::encode(chain).into());
                map.insert("last_seq".into(), seq.into());
                map.insert("last_received".into(), rfc3339(received).into());
                map.insert("records".into(), records.into());
            }
        }
        values.push(value);
    }
    Ok(values)
}

/// Log, index, exports.
pub fn status(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let paths = config.paths();
    let verifier = keys::verifier(&keys::load(&paths.log_key())?, &config.collector.origin)?;
    let newest = paths.log().join(NEWEST);
    let signed = newest
        .exists()
        .then(|| -> anyhow::Result<_> {
            checkpoint::open(&files::read(&newest)?, &verifier)
                .map_err(|error| anyhow::anyhow!("{}: {error}", newest.display()))
        })
        .transpose()?;
    let size = signed.as_ref().map_or(0, |signed| signed.size);
    let indexed: u64 = if paths.index().exists() {
        index::open_for_reading(&paths.index())?.query_row(
            "SELECT next FROM cursor",
            [],
            |row| row.get(0),
        )?
    } else {
        0
    };
    let state = State::open(&paths.state())?;
    let mut exports = Vec::new();
    for export in &config.export {
        let (next, dead) = state.export_cursor(&export.name)?;
        exports.push(json!({
            "name": export.name,
            "next_index": next,
            "behind": indexed.saturating_sub(next),
            "dead_letters": dead,
        }));
    }
    let policy = config.policy(verifier.clone())?;
    let witnessed = Proofs::of(&paths.log(), &verifier, &policy).witnessed();
    let serving = files::read(&paths.uplink_address()).ok();
    let value = json!({
        "origin": config.collector.origin,
        "uplink": serving,
        "checkpoint": { "size": size, "root": signed.map(|signed| hex::encode(signed.root)) },
        "witnesses": config.witnesses.len(),
        "witnessed": witnessed,
        "indexed": indexed,
        "agents": agent_values(config)?,
        "exports": exports,
    });
    if json {
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let uplink = serving.as_deref().unwrap_or("not serving");
    writeln!(out, "log     {} · checkpoint over {size} entries", config.collector.origin)?;
    if !config.witnesses.is_empty() {
        writeln!(
            out,
            "witness {witnessed} entries, by {} of {}",
            config.quorum(),
            config.witnesses.len()
        )?;
    }
    writeln!(out, "uplink  {uplink}")?;
    writeln!(out, "index   {indexed} entries")?;
    for export in &exports {
        let count = |key: &str| export.get(key).and_then(Value::as_u64).unwrap_or(0);
        let name = export.get("name").and_then(Value::as_str).unwrap_or_default();
        let (next, behind, dead) = (count("next_index"), count("behind"), count("dead_letters"));
        writeln!(out, "export  {name}: at {next}, {behind} behind, {dead} dead letters")?;
    }
    agents(config, false, out)
}
