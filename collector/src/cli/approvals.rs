//! `tidegate-collector approvals`: see what waits for people, and answer.
//!
//! Promise: whose vote it is, the kernel says: the login uid of this process, or its uid where nobody
//! logged in (a service).

use std::io::Write;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::ConfigFile;
use crate::approvals::{Ballot, Counted, Entry};
use crate::clock;
use crate::config::Config;
use crate::state::State;

/// Most requests that are listed.
const LISTED_MAX: usize = 1000;

#[derive(Subcommand)]
pub(super) enum Approvals {
    /// List the requests, newest first
    List {
        #[command(flatten)]
        config: ConfigFile,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Show one request
    Show {
        #[command(flatten)]
        config: ConfigFile,
        /// The request
        id: String,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Vote for a request
    Grant(Answer),
    /// Deny a request
    Deny(Answer),
}

#[derive(Args)]
pub(super) struct Answer {
    #[command(flatten)]
    config: ConfigFile,
    /// The request
    id: String,
    /// Why, for the record
    #[arg(long, default_value = "")]
    note: String,
    /// For machines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Approvals, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Approvals::List { config, json } => {
            let (_, state) = open(config)?;
            let entries = state.approvals(LISTED_MAX)?;
            if *json {
                let all: Vec<_> = entries.iter().map(machine).collect();
                writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
                return Ok(());
            }
            for entry in &entries {
                let request = &entry.request;
                let (who, target) = (&request.principal, &request.target);
                writeln!(out, "{}  {:8}  {who} on {target}", request.id, standing(entry))?;
            }
            Ok(())
        }
        Approvals::Show { config, id, json } => {
            let (_, state) = open(config)?;
            let entry = state.approval(id)?.context("there is no such request")?;
            if *json {
                writeln!(out, "{}", serde_json::to_string_pretty(&machine(&entry))?)?;
                return Ok(());
            }
            show(&entry, out)
        }
        Approvals::Grant(answer) => vote(answer, true, out),
        Approvals::Deny(answer) => vote(answer, false, out),
    }
}

fn open(config: &ConfigFile) -> anyhow::Result<(Config, State)> {
    let config = Config::load(&config.config)?;
    let state = State::open(&config.paths().state())?;
    Ok((config, state))
}

fn vote(answer: &Answer, granted: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (config, state) = open(&answer.config)?;
    let ballot = Ballot { id: &answer.id, uid: uid()?, granted, note: &answer.note };
    let counted = state.vote(&config.approvers, ballot, clock::now_ns())?;
    let word = match counted {
        Ok(Counted::Granted) => "granted",
        Ok(Counted::Denied) => "denied",
        Ok(Counted::MoreNeeded) => "more people are needed",
        Err(why) => anyhow::bail!("the vote does not count: {why}"),
    };
    if answer.json {
        writeln!(out, "{}", json!({ "id": answer.id, "vote": word }))?;
    } else {
        writeln!(out, "request {}: {word}", answer.id)?;
    }
    Ok(())
}

/// Who logged in, or who this runs as.
fn uid() -> anyhow::Result<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    match login.trim().parse::<u32>() {
        // The kernel's word for nobody.
        Ok(uid) if uid != u32::MAX => Ok(uid),
        _ => Ok(std::fs::metadata("/proc/self").context("who this runs as")?.uid()),
    }
}

fn standing(entry: &Entry) -> &'static str {
    match entry.granted {
        Some(true) => "granted",
        Some(false) => "denied",
        None if clock::now_ns() >= entry.request.deadline_ns => "expired",
        None => "open",
    }
}

fn show(entry: &Entry, out: &mut impl Write) -> anyhow::Result<()> {
    let request = &entry.request;
    writeln!(out, "request    {} ({})", request.id, standing(entry))?;
    writeln!(out, "agent      {}", entry.agent_id)?;
    writeln!(out, "account    {}", request.principal)?;
    let (user, database) = (&request.db_user, &request.database);
    writeln!(out, "target     {} (database {database} as {user})", request.target)?;
    writeln!(out, "statement  {}", request.statement.escape_debug())?;
    writeln!(out, "effects    {}", request.effects.join(", "))?;
    writeln!(out, "denied for {}", request.reason)?;
    writeln!(out, "policies   {}", request.policies.join(", "))?;
    for demand in &request.demands {
        writeln!(out, "needs      {} of {}", demand.people, demand.groups.join(" or "))?;
    }
    for vote in &entry.votes {
        let word = if vote.granted { "granted" } else { "denied" };
        writeln!(out, "vote       {word} by {}: {}", vote.name, vote.note.escape_debug())?;
    }
    Ok(())
}

fn machine(entry: &Entry) -> serde_json::Value {
    let request = &entry.request;
    json!({
        "id": request.id,
        "standing": standing(entry),
        "agent": entry.agent_id,
        "principal": request.principal,
        "target": request.target,
        "db_user": request.db_user,
        "database": request.database,
        "statement": request.statement,
        "effects": request.effects,
        "reason": request.reason,
        "policies": request.policies,
        "binding": hex::encode(&request.binding),
        "received_ns": entry.received_ns,
        "deadline_ns": request.deadline_ns,
        "reuse_seconds": request.reuse_seconds,
        "demands": request.demands.iter().map(|demand| json!({
            "groups": demand.groups, "people": demand.people,
        })).collect::<Vec<_>>(),
        "votes": entry.votes.iter().map(|vote| json!({
            "name": vote.name, "granted": vote.granted, "note": vote.note,
        })).collect::<Vec<_>>(),
    })
}
