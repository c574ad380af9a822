//! Connections that were there before the hooks: found, recorded, and by the configuration ended.
//!
//! Promises: called when the hooks stand, it finds every TCP connection to a target (and of a strict
//! account to anywhere) that did not come through the gate, with its owner.
//!
//! Limits: [`EARLIER_MAX`] are recorded one by one, the others as one number; all are ended.
//!
//! Known gaps: without the kernel's module `tcp_diag` nothing is found, which is a finding of its own, and
//! the guard drops what goes to targets. Where `capture.cgroup` is set, connections of processes outside of it are found and ended
//! too. A strict account's connection that leaves from a port on which it also listens is taken
//! for an accepted one.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tidegate_agent_common::{Destination, EventKind, words_of};
use tidegate_journal::{Found, Journal};

use super::{plain, process};
use crate::capture::diag::{self, Connection};
use crate::capture::{Kernel, Rule};
use crate::config::{Config, Earlier};

/// Most such connections that are recorded one by one.
pub const EARLIER_MAX: usize = 256;

/// A connection from before, and the target that it goes to.
struct Old<'a> {
    connection: &'a Connection,
    rule: Option<&'a Rule>,
}

/// Finds, records, and ends or keeps.
pub fn sweep(
    config: &Config,
    rules: &[Rule],
    kernel: &mut Kernel,
    journal: &Journal,
) -> anyhow::Result<()> {
    let uids: BTreeSet<u32> = config.principals.iter().map(|principal| principal.uid).collect();
    let all = match diag::connections(&uids) {
        Ok(all) => all,
        Err(error) => {
            let detail = format!(
                "connections from before the hooks cannot be looked for ({error}: is the kernel's \
                 module tcp_diag there?); what goes to a target is dropped all the same"
            );
            tracing::error!("{detail}");
            journal.finding(&plain("earlier", "dropped", &detail))?;
            kernel.keep(&[])?;
            return Ok(());
        }
    };
    let found = earlier(config, rules, &all);
    let keep = config.capture.earlier == Earlier::Keep;
    let cookies: Vec<u64> =
        found.iter().filter(|_| keep).map(|old| old.connection.cookie).collect();
    kernel.keep(&cookies)?;
    // What the guard told of them since it stands: they were not yet known as kept, or are ended now.
    let told = kernel.events();
    let of_old = |cookie: u64| found.iter().any(|old| old.connection.cookie == cookie);
    let others: Vec<_> = told
        .into_iter()
        .filter(|event| event.kind != EventKind::Dropped as u32 || !of_old(event.cookie))
        .collect();
    super::record(config, journal, &others)?;
    let mut more = 0;
    for (place, old) in found.iter().enumerate() {
        let outcome = if keep { Ok("passed") } else { diag::end(old.connection).map(|()| "ended") };
        if place < EARLIER_MAX {
            record(config, journal, old, outcome)?;
        } else {
            more += 1;
        }
    }
    if more > 0 {
        let detail = "connections from before the hooks beyond those that are recorded one by one";
        let outcome = if keep { "passed" } else { "ended" };
        journal.finding(&Found { count: more, ..plain("more", outcome, detail) })?;
    }
    Ok(())
}

fn earlier<'a>(config: &Config, rules: &'a [Rule], all: &'a [Connection]) -> Vec<Old<'a>> {
    let listens = |one: &Connection| {
        all.iter().any(|other| {
            other.is_listener()
                && other.namespace == one.namespace
                && other.local.port() == one.local.port()
        })
    };
    let is_gate = |to: SocketAddr| to.ip().is_loopback() && to.port() == config.gate.port;
    all.iter()
        .filter(|one| !one.is_listener() && !is_gate(one.remote))
        .filter_map(|connection| {
            let rule = rules.iter().find(|rule| covers(rule, connection));
            let strict = config.strict_uids.contains(&connection.uid);
            (rule.is_some() || (strict && !listens(connection))).then_some(Old { connection, rule })
        })
        .collect()
}

/// Whether a rule would have led the connection to the gate.
fn covers(rule: &Rule, connection: &Connection) -> bool {
    let uid = connection.uid;
    let meant = rule.uids.contains(&uid) || (rule.everyone && !rule.exempt.contains(&uid));
    let remote = connection.remote;
    meant
        && Destination::new(rule.id, rule.addr, rule.prefix, rule.port)
            .is_ok_and(|place| place.covers(&words_of(remote.ip()), remote.port()))
}

fn record(
    config: &Config,
    journal: &Journal,
    old: &Old<'_>,
    outcome: std::io::Result<&'static str>,
) -> anyhow::Result<()> {
    let said = "a connection from before the hooks";
    let (outcome, detail) = match outcome {
        Ok(outcome) => (outcome, said.to_owned()),
        // A target's is starved by the guard; a strict account's to elsewhere is not.
        Err(error) if old.rule.is_some() => {
            ("dropped", format!("{said}; ending it failed: {error}"))
        }
        Err(error) => ("open", format!("{said}; ending it failed: {error}")),
    };
    let connection = old.connection;
    let holder = process::holder_of(connection.inode);
    let process = holder.and_then(|pid| process::describe(pid, None, u64::MAX));
    let target = old.rule.and_then(|rule| config.targets.get(usize::try_from(rule.id).ok()?));
    let principal = config.principal(connection.uid);
    let found = Found {
        principal: principal.map_or("", |principal| &principal.name),
        target: target.map_or("", |target| &target.name.0),
        process: process.as_ref(),
        remote: Some(connection.remote),
        ..plain("earlier", outcome, &detail)
    };
    tracing::warn!(outcome, remote = %connection.remote, uid = connection.uid, "{detail}");
    Ok(journal.finding(&found)?)
}
