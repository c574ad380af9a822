//! Coverage in words.

use std::io::{self, Write};

use super::{Hole, Host, Pair, Report};
use crate::clock::rfc3339;
use crate::query::glyphs;

/// Longest line, in characters; `--json` has all of it.
const TEXT_CHARS_MAX: usize = 400;

/// Writes a report for people.
pub fn write_text(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let question = &report.question;
    writeln!(out, "coverage from {} to {}", rfc3339(question.from_ns), rfc3339(question.to_ns))?;
    for host in &report.hosts {
        write_host(out, host)?;
    }
    writeln!(out, "{}", report.verdict.words())
}

fn write_host(out: &mut impl Write, host: &Host) -> io::Result<()> {
    let heard = host.heard_until_ns.map(|at| format!(", heard until {}", rfc3339(at)));
    let name = format!("{} ({})", host.agent, host.host);
    writeln!(
        out,
        "{}: {}{}",
        glyphs(&name, TEXT_CHARS_MAX),
        host.verdict.words(),
        heard.unwrap_or_default()
    )?;
    for hole in &host.holes {
        writeln!(out, "  ✕ {}", glyphs(&words_of(hole), TEXT_CHARS_MAX))?;
    }
    if host.holes_more > 0 {
        writeln!(out, "  ✕ and {} more", host.holes_more)?;
    }
    for door in &host.doors {
        writeln!(out, "  △ {}", glyphs(door, TEXT_CHARS_MAX))?;
    }
    for pair in &host.pairs {
        writeln!(out, "    {}", glyphs(&pair_words(pair), TEXT_CHARS_MAX))?;
    }
    Ok(())
}

fn words_of(hole: &Hole) -> String {
    if hole.from_ns == hole.to_ns {
        return format!("{}: {}", rfc3339(hole.from_ns), hole.why);
    }
    format!("{} to {}: {}", rfc3339(hole.from_ns), rfc3339(hole.to_ns), hole.why)
}

fn pair_words(pair: &Pair) -> String {
    let [sessions, connections, refused, bytes_in, bytes_out] = rows_of(pair);
    format!(
        "{} to {}: {sessions}, {connections}, {refused}; {bytes_in}, {bytes_out}",
        pair.principal,
        if pair.target.is_empty() { "no target" } else { &pair.target }
    )
}

/// The counts of a pair in five phrases, kernel against gate.
pub fn rows_of(pair: &Pair) -> [String; 5] {
    [
        format!("{} sessions ({} ended)", pair.sessions, pair.sessions_ended),
        format!(
            "{} connections to the kernel, {} to the gate",
            pair.accepted,
            pair.sessions.saturating_add(pair.sessions_refused)
        ),
        format!("{} refused, {} dropped, {} exempt", pair.refused, pair.dropped, pair.exempt),
        format!(
            "{} bytes from clients to the kernel, {} to the gate",
            pair.kernel_bytes_in, pair.bytes_in
        ),
        format!(
            "{} bytes to clients by the kernel, {} by the gate",
            pair.kernel_bytes_out, pair.bytes_out
        ),
    ]
}
