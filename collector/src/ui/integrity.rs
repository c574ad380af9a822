//! Integrity and coverage: does the log hold, and who reports into it.
//!
//! Promise: each number comes from the log's index, from `state.db` or from a verification that was run,
//! and the page says which. It says what is not proven, as `verify` does.
//!
//! Known gap: no roster of hosts that should have an agent, so an agent that was never enrolled is
//! missing here too.

use maud::{Markup, html};
use rusqlite::params;

use super::looks::Look;
use super::page::{self, Page, count, table};
use super::proof::Walk;
use super::read::{Reader, newest_checkpoint};
use super::roles::Scope;
use super::routes::{Context, Problem, Reply};
use super::{completeness, session, text, words};
use crate::log::notes::NEWEST;

/// An agent without a heartbeat for this long is shown as silent; one comes every ten seconds.
const SILENT_SECONDS: i64 = 60;
/// Findings on the page.
const FINDINGS_MAX: usize = 50;

const SECOND_NS: i64 = 1_000_000_000;

/// How an agent stands.
pub struct Coverage {
    /// Its name.
    pub agent: String,
    /// Its host, as its last chain says.
    pub host: String,
    /// When it was enrolled last.
    pub enrolled_ns: i64,
    /// Its last record came in then.
    pub received_ns: Option<i64>,
    /// Its last heartbeat, by its own clock.
    pub heartbeat_ns: Option<i64>,
    /// What that heartbeat counted.
    pub heartbeat: String,
    /// Its records in the log.
    pub records: u64,
    /// Runs of the agent.
    pub chains: u64,
    /// Gaps that it declared.
    pub gaps: u64,
    /// Records of a bypass.
    pub bypasses: u64,
    /// Unclean ends.
    pub recovered: u64,
    /// Batches that contradict the log.
    pub forks: u64,
}

impl Coverage {
    /// How long ago it was last heard, and whether that is too long.
    pub fn silent_ns(&self, now_ns: i64) -> Option<(i64, bool)> {
        let age = now_ns.saturating_sub(self.received_ns?);
        Some((age, age > SILENT_SECONDS * SECOND_NS))
    }
}

/// All enrolled agents within the scope.
pub fn coverage(context: &Context, scope: &Scope) -> anyhow::Result<Vec<Coverage>> {
    let reader = Reader::open(&context.ui, scope)?;
    let forks = context.ui.state.forks()?;
    let mut all = Vec::new();
    for agent in context.ui.state.agents()? {
        if scope.agent.as_ref().is_some_and(|only| *only != agent.agent_id) {
            continue;
        }
        let id = &agent.agent_id;
        let kinds = |kind: &str| -> rusqlite::Result<u64> {
            reader.db.query_row(
                "SELECT count(*) FROM lifecycle l JOIN chains c ON c.id = l.chain
                 WHERE c.agent_id = ?1 AND l.kind = ?2",
                params![id, kind],
                |row| row.get(0),
            )
        };
        let (host, received_ns, records, chains) = reader.db.query_row(
            "SELECT max(host), max(last_received_ns), coalesce(sum(last_seq + 1), 0), count(*)
             FROM chains WHERE agent_id = ?1",
            [id],
            |row| Ok((row.get::<_, Option<String>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let beat = reader.db.query_row(
            "SELECT max(l.wall_ns), l.text FROM lifecycle l JOIN chains c ON c.id = l.chain
             WHERE c.agent_id = ?1 AND l.kind = 'heartbeat'",
            [id],
            |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?)),
        )?;
        all.push(Coverage {
            host: host.unwrap_or_default(),
            enrolled_ns: crate::clock::signed_ns(agent.enrolled_ns),
            received_ns,
            heartbeat_ns: beat.0,
            heartbeat: beat.1.unwrap_or_default(),
            records,
            chains,
            gaps: kinds("gap")?,
            bypasses: kinds("bypass")?,
            recovered: kinds("recovered")?,
            forks: forks.iter().find(|(agent, _)| agent == id).map_or(0, |(_, n)| *n),
            agent: agent.agent_id,
        });
    }
    Ok(all)
}

/// The page.
pub fn page(context: &Context) -> Result<Reply, Problem> {
    show(context, context.ui.walks.last().as_deref())
}

/// The page after a new verification.
pub fn verify(context: &Context) -> Result<Reply, Problem> {
    let walk = context.ui.walks.now(&context.ui.config)?;
    let mut reply = show(context, Some(&walk))?;
    reply.look.page = "integrity, verified".into();
    Ok(reply)
}

fn show(context: &Context, walk: Option<&Walk>) -> Result<Reply, Problem> {
    let agents = coverage(context, &context.user.scope)?;
    let body = html! {
        div.columns {
            (log(context)?)
            (verification(context, walk))
        }
        (completeness::section(context)?)
        (agents_table(&agents, context.now()))
        section aria-labelledby="means" {
            h2 id="means" { "What this page means" }
            ul {
                li { "A heartbeat comes every ten seconds, also from an idle host, and carries the kernel's own \
                    counters: no record between two heartbeats means no traffic through the gate." }
                li { "A gap is a hole that an agent itself declared. A fork is a batch that contradicts what the log \
                    has: look at it at once." }
                li { (witnesses(context, walk)) }
                li {
                    "Records that the collector was told of and does not have, and forks, are records of its own: "
                    a href="/ask?for=any&kind=missing#answers" { "missing records" } ", "
                    a href="/ask?for=any&kind=equivocation#answers" { "forks" } ". So are "
                    a href="/ask?for=any&kind=silence#answers" { "agents that were not heard of" } "."
                }
            }
        }
    };
    let look = Look::at("integrity");
    let title = "Integrity and coverage".into();
    Ok(Reply::page(look, Page { title, here: "/integrity", body }))
}

fn witnesses(context: &Context, walk: Option<&Walk>) -> Markup {
    let config = &context.ui.config;
    let all = config.witnesses.len();
    let witnessed = walk.map_or(0, |walk| walk.report.witnessed_size);
    html! {
        @if all == 0 {
            "Witnesses: none are configured, so nobody but the agents would notice if this collector's \
            whole directory were replaced by an older one. Keep checkpoints elsewhere."
        } @else {
            "Witnesses: " (all) ", of which " (config.quorum()) " must sign. The last verification found \
            their signatures over the first " (count(witnessed)) " entries."
        }
    }
}

fn log(context: &Context) -> anyhow::Result<Markup> {
    let paths = &context.ui.paths;
    let checkpoint = newest_checkpoint(paths)?;
    let signed = std::fs::metadata(paths.log().join(NEWEST)).and_then(|meta| meta.modified()).ok();
    let age = signed.and_then(|at| at.elapsed().ok());
    let age = age.map(|age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
    let indexed = Reader::open(&context.ui, &context.user.scope)?.indexed()?;
    Ok(html! {
        section aria-labelledby="log" {
            h2 id="log" { "Log" }
            dl {
                dt { "Origin" } dd { (text::short(&context.ui.config.collector.origin)) }
                @match checkpoint {
                    None => { dt { "Checkpoint" } dd { "none yet" } }
                    Some((checkpoint, note)) => {
                        dt { "Checkpoint" }
                        dd {
                            "over " strong { (count(checkpoint.size)) } " entries"
                            @if let Some(age) = age { ", signed " (page::duration(age)) " ago (the file's time)" }
                        }
                        dt { "Index" }
                        dd {
                            (count(indexed)) " entries"
                            @if indexed < checkpoint.size { ", " strong { "behind the log" } }
                        }
                        dt { "Signed note" } dd { pre { code { (text::long(note.trim_end())) } } }
                    }
                }
            }
        }
    })
}

fn verification(context: &Context, walk: Option<&Walk>) -> Markup {
    html! {
        section.integrity aria-labelledby="verification" {
            h2 id="verification" { "Verification" }
            @match walk {
                None => { p { "Not run since the collector started." } }
                Some(walk) => {
                    p.verdict { (words::tag(verdict(walk))) }
                    p { (session::walked(Some(walk))) }
                    @if !walk.report.findings.is_empty() {
                        ul.findings {
                            @for finding in walk.report.findings.iter().take(FINDINGS_MAX) {
                                li { (text::short(&finding.to_string())) }
                            }
                        }
                    }
                    h3 { "Not proven by it" }
                    ul {
                        @for line in &walk.report.not_proven { li { (text::short(line)) } }
                    }
                }
            }
            form method="post" action="/integrity/verify" {
                input type="hidden" name="csrf" value=(context.csrf);
                button type="submit" { "Verify the whole log now" }
            }
            p.dim {
                "This is the collector judging its own log. For an examination, copy " code { "log/" }
                " and let another machine run " code { "tidegate-collector verify" } "."
            }
        }
    }
}

/// Glyph, words and style of a walk's verdict.
pub fn verdict(walk: &Walk) -> (&'static str, &'static str, &'static str) {
    match walk.report.exit_code() {
        0 => ("✓", "verified", "good"),
        10 => ("△", "verified, with declared gaps", "warn"),
        20 => ("✕", "tampering found", "bad"),
        _ => ("?", "cannot be decided", "warn"),
    }
}

fn agents_table(agents: &[Coverage], now_ns: i64) -> Markup {
    let heads = [
        ("Agent", false),
        ("Host", false),
        ("State", false),
        ("Last received (UTC)", false),
        ("Last heartbeat (UTC)", false),
        ("Records", true),
        ("Runs", true),
        ("Gaps", true),
        ("Unclean ends", true),
        ("Bypasses", true),
        ("Forks", true),
    ];
    let rows = html! {
        @for agent in agents {
            tr {
                th scope="row" { (text::short(&agent.agent)) }
                td { (text::short(&agent.host)) }
                td { (state(agent, now_ns)) }
                td.time { @if let Some(at) = agent.received_ns { (page::time(at)) } @else { "never" } }
                td.time {
                    @if let Some(at) = agent.heartbeat_ns {
                        (page::time(at)) br; span.dim { (text::short(&agent.heartbeat)) }
                    } @else { "none" }
                }
                td.n { (count(agent.records)) }
                td.n { (count(agent.chains)) }
                @for n in [agent.gaps, agent.recovered, agent.bypasses, agent.forks] {
                    td.n { @if n > 0 { strong { (count(n)) } } @else { "0" } }
                }
            }
        }
    };
    html! {
        section aria-labelledby="coverage" {
            h2 id="coverage" { "Coverage" }
            (table("Enrolled agents and what the log has of them", "agents", &heads, &rows))
        }
    }
}

fn state(agent: &Coverage, now_ns: i64) -> Markup {
    let tag = match agent.silent_ns(now_ns) {
        _ if agent.forks > 0 => ("✕", "fork", "bad"),
        None => ("–", "never reported", "warn"),
        Some((_, true)) => ("△", "silent", "warn"),
        Some((_, false)) => ("✓", "reporting", "good"),
    };
    html! {
        (words::tag(tag))
        @if let Some((age, true)) = agent.silent_ns(now_ns) {
            br; span.dim { "for " (page::duration(age)) }
        }
    }
}
