//! Completeness on the page: is the last hour of every host accounted for, and if not, why.
//!
//! Promise: the same answer as `tidegate-collector coverage`, within the viewer's scope; where it cannot be given
//! the page says so and shows nothing green.

use maud::{Markup, html};

use super::page::{self, table};
use super::read::Reader;
use super::roles::Scope;
use super::routes::Context;
use super::{text, words};
use crate::coverage::{Host, Question, Report, Verdict, ask, rows_of};

/// The period that the page judges, in nanoseconds. A longer one is the command's.
const PERIOD_NS: i64 = 3_600_000_000_000;

/// Holes of one host on the page.
const HOLES_SHOWN_MAX: usize = 5;

/// Judges the last hour, as far as the scope allows; `None` where it allows none of it.
fn report(context: &Context, scope: &Scope) -> anyhow::Result<Option<Report>> {
    let now_ns = context.now();
    let question = Question {
        from_ns: scope.since_ns.unwrap_or(i64::MIN).max(now_ns.saturating_sub(PERIOD_NS)),
        to_ns: scope.until_ns.unwrap_or(i64::MAX).min(now_ns),
        host: scope.agent.clone(),
        principal: None,
        target: scope.target.clone(),
    };
    if question.from_ns >= question.to_ns {
        return Ok(None);
    }
    let reader = Reader::open(&context.ui, scope)?;
    ask(&reader.db, &context.ui.state.agents()?, &question).map(Some)
}

/// The section.
pub fn section(context: &Context) -> anyhow::Result<Markup> {
    let report = report(context, &context.user.scope)?;
    Ok(html! {
        section aria-labelledby="whole" {
            h2 id="whole" { "Completeness, last hour" }
            @match &report {
                None => { p { "Not in your scope." } }
                Some(report) => {
                    p.verdict { (words::tag(tag(report.verdict))) }
                    @if !report.hosts.is_empty() { (hosts(report)) }
                }
            }
            p.dim {
                "Whole: heartbeats without a pause, hooks unchanged, and the kernel's counts of connections and bytes \
                the same as the gate's. For another period: " code { "tidegate-collector coverage" } "."
            }
        }
    })
}

fn hosts(report: &Report) -> Markup {
    let heads =
        [("Agent", false), ("Verdict", false), ("Heard until (UTC)", false), ("What", false)];
    let rows = html! {
        @for host in &report.hosts {
            tr {
                th scope="row" { (text::short(&host.agent)) }
                td { (words::tag(tag(host.verdict))) }
                td.time { @if let Some(at) = host.heard_until_ns { (page::time(at)) } @else { "not in this hour" } }
                td { (what(host)) }
            }
        }
    };
    table("Hosts and whether their last hour is accounted for", "completeness", &heads, &rows)
}

/// Holes, doors and counts.
fn what(host: &Host) -> Markup {
    let more = host.holes.len().saturating_sub(HOLES_SHOWN_MAX);
    html! {
        ul.findings {
            @for hole in host.holes.iter().take(HOLES_SHOWN_MAX) {
                li { "✕ " (page::time(hole.from_ns)) " to " (page::time(hole.to_ns)) ": " (text::short(&hole.why)) }
            }
            @if more > 0 { li { "✕ and " (more) " more" } }
            @for door in &host.doors { li { "△ " (text::short(door)) } }
            @for pair in &host.pairs {
                li {
                    (text::short(&pair.principal)) " to "
                    @if pair.target.is_empty() { "no target" } @else { (text::short(&pair.target)) }
                    ": " (rows_of(pair).join("; "))
                }
            }
        }
    }
}

/// Glyph, words and style.
fn tag(verdict: Verdict) -> (&'static str, &'static str, &'static str) {
    match verdict {
        Verdict::Whole => ("✓", "whole", "good"),
        Verdict::OpenDoors => ("△", "whole, with open doors", "warn"),
        Verdict::NotWhole => ("✕", "not whole", "bad"),
        Verdict::Undecided => ("?", "not decided: no host to ask", "warn"),
    }
}
