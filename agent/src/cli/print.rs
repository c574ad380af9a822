//! What commands print, for people and for machines.

use std::io::{IsTerminal as _, Write as _};

use crate::check::Explained;
use crate::config::Config;
use crate::control::{CoverageStatus, Status};
use crate::doctor::{Finding, Level};

/// Width of the names column.
const NAME_COLUMNS: usize = 18;

/// Whether the reader of our output has gone, which is no failure.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// One line.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// One JSON document.
pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// What `check` found.
pub(super) fn explained(config: &Config, explained: &Explained) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for words in &explained.words {
        writeln!(out, "{words}")?;
    }
    writeln!(out)?;
    for warning in &explained.warnings {
        writeln!(out, "{} {warning}", colour("warning:", "33"))?;
    }
    writeln!(
        out,
        "{} is valid: {}, {}, {}, {}",
        config.path.display(),
        count(config.targets.len(), "target"),
        count(config.principals.len(), "principal"),
        count(config.policy.files.len(), "policy file"),
        count(explained.warnings.len(), "warning"),
    )?;
    Ok(())
}

/// So many of these.
pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What `doctor` found.
pub(super) fn findings(findings: &[Finding], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(findings);
    }
    let mut out = std::io::stdout().lock();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => colour("ok  ", "32"),
            Level::Warn => colour("warn", "33"),
            Level::Fail => colour("FAIL", "31"),
        };
        let indent = format!("\n{:width$}", "", width = NAME_COLUMNS + 7);
        let found = finding.found.replace('\n', &indent);
        writeln!(out, "{level}  {:NAME_COLUMNS$} {found}", finding.check)?;
        if let Some(todo) = &finding.todo {
            writeln!(out, "      {:NAME_COLUMNS$} -> {todo}", "")?;
        }
    }
    Ok(())
}

/// What kernel and gate counted of one principal and target.
fn coverage(pair: &CoverageStatus) -> String {
    let target = if pair.target.is_empty() { "no target" } else { &pair.target };
    format!(
        "{} to {target}: {} led to the gate, {} arrived, {} served, {} refused there; {} refused and \
         {} dropped by the kernel, {} let pass; {} ended with {} bytes from clients ({} by the kernel) \
         and {} to them ({})",
        pair.principal,
        pair.redirected,
        pair.accepted,
        pair.sessions,
        pair.sessions_refused,
        pair.refused,
        pair.dropped,
        pair.exempt,
        pair.sessions_ended,
        pair.bytes_in,
        pair.kernel_bytes_in,
        pair.bytes_out,
        pair.kernel_bytes_out
    )
}

/// How the agent is doing.
pub(super) fn status(status: &Status, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(status);
    }
    let mut out = std::io::stdout().lock();
    let mut row = |name: &str, value: String| writeln!(out, "{name:NAME_COLUMNS$} {value}");
    let state = if status.draining { "stopping" } else { "up" };
    row(
        "agent",
        format!("{} ({}), {state} for {} s", status.agent_id, status.version, status.uptime_s),
    )?;
    row("sessions", format!("{} open, {} in all", status.sessions_active, status.sessions_total))?;
    row("operations", format!("{}, {} refused", status.operations, status.refused))?;
    row("captured", status.captured.to_string())?;
    row("dropped", format!("{} packets past the gate", status.dropped))?;
    for pair in &status.coverage {
        row("coverage", coverage(pair))?;
    }
    for discrepancy in &status.discrepancies {
        row("NOT WHOLE", discrepancy.clone())?;
    }
    let spool = &status.spool;
    row(
        "spool",
        format!("{} of {} MiB, {}", spool.used_bytes >> 20, spool.max_bytes >> 20, spool.level),
    )?;
    if let Some(error) = &spool.error {
        row("", format!("CANNOT RECORD: {error}"))?;
    }
    let uplink = &status.uplink;
    let way = match (uplink.configured, uplink.connected) {
        (false, _) => "no collector configured",
        (true, true) => "connected",
        (true, false) => "NOT CONNECTED",
    };
    let acknowledged = uplink
        .acknowledged_seq
        .map_or_else(String::new, |seq| format!(", acknowledged up to record {seq}"));
    row("collector", format!("{way}{acknowledged}"))?;
    if let Some(error) = &uplink.last_error {
        row("", format!("last error: {error}"))?;
    }
    row("policy", status.policy_digest.clone())?;
    for target in &status.targets {
        row(
            "target",
            format!(
                "{} ({}, {}, on failure {}): {}",
                target.name,
                target.protocol,
                target.mode,
                target.on_failure,
                target.addresses.join(", ")
            ),
        )?;
    }
    Ok(())
}

/// `text` in a colour (ECMA-48, SGR) where a person looks at a terminal.
fn colour(text: &str, sgr: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[{sgr}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}
