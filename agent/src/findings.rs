//! What goes, or could go, past the gate: from the kernel's events to records.
//!
//! Promises: an event becomes a record, also one from a time without an agent. What the guard drops
//! is closed with an error for its owner (`ECONNABORTED`), where the kernel can.
//!
//! Limits: alike events of one look are one record with their number; of one look at most
//! [`FINDINGS_MAX`] are recorded one by one, and the others as one number.
//!
//! Known gaps: an event that finds the ring full is only counted (`events_lost` in `status`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tidegate_agent_common::{Event, EventKind, UID_NONE};
use tidegate_event::Process;
use tidegate_journal::{Found, Journal, JournalError};

use crate::capture::diag::{self, Connection};
use crate::config::Config;

pub mod earlier;
pub mod local;
pub mod packet;
mod process;

/// Most findings of one look that are recorded one by one.
pub const FINDINGS_MAX: usize = 64;

/// IP protocol number of TCP.
const IPPROTO_TCP: u32 = 6;

/// What makes events alike: kind, user ids, rule, place.
type Alike = (u32, u32, u32, u32, [u32; 4], u32);

/// Records these events, and ends the connections that the guard dropped.
pub fn record(config: &Config, journal: &Journal, events: &[Event]) -> Result<(), JournalError> {
    if events.is_empty() {
        return Ok(());
    }
    let ended = end_dropped(config, events);
    let mut alike: BTreeMap<Alike, (Event, u64)> = BTreeMap::new();
    for event in events {
        let key = (event.kind, event.owner, event.uid, event.rule, event.addr, event.port);
        alike.entry(key).or_insert((*event, 0)).1 += 1;
    }
    let mut more = 0;
    for (place, (event, count)) in alike.values().enumerate() {
        if place >= FINDINGS_MAX {
            more += count;
            continue;
        }
        record_one(config, journal, event, *count, ended.get(&event.cookie))?;
    }
    if more > 0 {
        let detail = "events of one moment beyond those that are recorded one by one";
        let found = Found { count: more, ..plain("more", "dropped", detail) };
        journal.finding(&found)?;
    }
    Ok(())
}

/// A finding about nobody and nothing in particular.
pub const fn plain<'a>(kind: &'a str, outcome: &'a str, detail: &'a str) -> Found<'a> {
    Found {
        kind,
        outcome,
        detail,
        principal: "",
        target: "",
        process: None,
        remote: None,
        count: 1,
    }
}

fn record_one(
    config: &Config,
    journal: &Journal,
    event: &Event,
    count: u64,
    ended: Option<&(Connection, Option<String>)>,
) -> Result<(), JournalError> {
    let (kind, mut outcome, said) = words(event.kind);
    let mut detail = said.to_owned();
    match ended {
        Some((_, None)) => {
            outcome = "ended";
            detail.push_str("; the connection was ended");
        }
        Some((_, Some(error))) => {
            detail.push_str("; ending the connection failed: ");
            detail.push_str(error);
        }
        None => {}
    }
    let process = who(event, ended.map(|(connection, _)| connection));
    let port = u16::try_from(event.port).unwrap_or_default();
    let ip = tidegate_agent_common::ip_of(event.addr);
    let target = usize::try_from(event.rule).ok().and_then(|rule| config.targets.get(rule));
    let principal = config.principal(event.owner);
    let found = Found {
        principal: principal.map_or("", |principal| &principal.name),
        target: target.map_or("", |target| &target.name.0),
        process: process.as_ref(),
        remote: (event.addr != [0; 4]).then(|| SocketAddr::new(ip, port)),
        count,
        ..plain(kind, outcome, &detail)
    };
    tracing::warn!(
        kind,
        outcome,
        principal = found.principal,
        target = found.target,
        uid = event.uid,
        pid = event.pid,
        protocol = event.protocol,
        "{detail}"
    );
    journal.finding(&found)
}

/// Kind, outcome and sentence of an event.
const fn words(kind: u32) -> (&'static str, &'static str, &'static str) {
    match EventKind::of(kind) {
        Some(EventKind::Dropped) => (
            "bypass",
            "dropped",
            "a socket that did not come through the gate: its packets are dropped",
        ),
        Some(EventKind::RefusedSocket) => {
            ("socket", "refused", "a raw, SCTP, DCCP or MPTCP socket of a protected account")
        }
        Some(EventKind::RefusedNotTcp) => {
            ("datagram", "refused", "a socket other than TCP to a protected destination")
        }
        Some(EventKind::RefusedBind) => ("gate_port", "refused", "somebody wanted the gate's port"),
        Some(EventKind::Reverse) => {
            ("reverse", "passed", "a protected account accepted a connection from a protected host")
        }
        Some(EventKind::RefusedNoRoom) => {
            ("no_room", "refused", "the kernel had no memory for the note on a socket")
        }
        None => ("unknown", "dropped", "an event of a kind that this agent does not know"),
    }
}

/// Ends the connections that the guard dropped; says by cookie what became of it.
fn end_dropped(config: &Config, events: &[Event]) -> BTreeMap<u64, (Connection, Option<String>)> {
    let dropped = EventKind::Dropped as u32;
    let is_dropped = |event: &&Event| event.kind == dropped && event.protocol == IPPROTO_TCP;
    let cookies: BTreeSet<u64> =
        events.iter().filter(is_dropped).map(|event| event.cookie).collect();
    if cookies.is_empty() {
        return BTreeMap::new();
    }
    let uids = config.principals.iter().map(|principal| principal.uid).collect();
    let listed = diag::connections(&uids).unwrap_or_else(|error| {
        tracing::error!(%error, "the host's connections cannot be listed, so none is ended");
        Vec::new()
    });
    let ours = listed.into_iter().filter(|one| cookies.contains(&one.cookie) && !one.is_listener());
    ours.map(|one| {
        let failed = diag::end(&one).err().map(|error| error.to_string());
        (one.cookie, (one, failed))
    })
    .collect()
}

fn who(event: &Event, connection: Option<&Connection>) -> Option<Process> {
    let pid = match (event.pid, connection) {
        (0, Some(connection)) => process::holder_of(connection.inode)?,
        (0, None) => return None,
        (pid, _) => pid,
    };
    let uid = (event.uid != UID_NONE).then_some(event.uid);
    process::describe(pid, uid, event.boot_ns)
}
