//! Session: who, what, when, and how it is proven.
//!
//! Promises: the timeline holds every record of the session that the scope covers, in the order of the
//! log; the integrity box says what was checked for this page, and by what. The records are read out of
//! the log again and compared with what the index says; a difference is told.
//!
//! Limits: at most [`SESSION_ANSWERS_MAX`] records on one page, the newest; the export by the command line has
//! all. Known gaps: no lanes for connections, since a session is one connection; no player of its own ([`terminal`]).

use maud::{Markup, html};

use super::looks::Look;
use super::page::{self, Page, count, moment, table};
use super::proof::{self, Extract, State, Walk};
use super::read::{Facts, Reader, SESSION_ANSWERS_MAX, newest_checkpoint};
use super::routes::{Context, Problem, Reply};
use super::{ask, export, terminal, text, words};
use crate::query::{Answer, Filter, Operation};

/// A session as pages show it.
pub struct Seen {
    /// Its id, hexadecimal.
    pub id: String,
    facts: Facts,
    /// Its records within the scope.
    pub answers: Vec<Answer>,
    /// What its operations wrote over SSH.
    texts: terminal::Texts,
    /// Its entries as read from the log, where that is short enough.
    extract: Option<Extract>,
    /// Whether the log's entries alone say the same as the index.
    same: Option<bool>,
}

/// The session that the address names, as far as the person may see it.
pub fn see(context: &Context) -> Result<Seen, Problem> {
    let id = context.segment(1).to_ascii_lowercase();
    let none = || Problem::Missing("There is no such session, or not in your scope.".into());
    let reader = Reader::open(&context.ui, &context.user.scope)?;
    let (facts, answers) = reader.session(&id)?.ok_or_else(none)?;
    let texts = terminal::texts(&reader.db, &answers)?;
    let outcomes = answers.iter().filter_map(|answer| answer.operation.as_ref()?.outcome_index);
    let newest = answers.iter().map(|answer| answer.index).chain(outcomes).max();
    let to = newest.max(facts.closed).unwrap_or(facts.opened);
    let extract = proof::session(&context.ui.paths, &id, &facts, to)?;
    let same = match &extract {
        None => None,
        Some(extract) => {
            let log = extract.answers(&id, &context.user.scope)?;
            // A seal may have come between the two readings.
            let unsealed = |answers: &[Answer]| -> Vec<Answer> {
                let answers = answers.iter().cloned();
                answers.map(|answer| Answer { seal_index: None, ..answer }).collect()
            };
            let same = |said: &Facts, shown: &[Answer]| {
                *said == facts && unsealed(shown) == unsealed(&answers)
            };
            Some(log.is_some_and(|(said, shown)| same(&said, &shown)))
        }
    };
    Ok(Seen { id, facts, answers, texts, extract, same })
}

impl Seen {
    /// Log index of the last entry of it, its seal among them.
    fn last(&self) -> u64 {
        let seals = self.answers.iter().filter_map(|answer| answer.seal_index);
        let read = self.extract.iter().flat_map(|extract| &extract.leaves).map(|leaf| leaf.index);
        seals.chain(read).max().unwrap_or(self.facts.opened)
    }

    fn look(&self, page: &'static str) -> Look {
        Look { page: page.into(), ..ask::looked(&self.answers) }
    }
}

/// The page.
pub fn page(context: &Context) -> Result<Reply, Problem> {
    let seen = see(context)?;
    let walk = context.ui.walks.fresh(&context.ui.config, seen.last())?;
    let body = html! {
        p.sentence { (sentence(&seen)) }
        p.sentence {
            (words::state(walk.as_deref().map_or(State::NotRun, |walk| walk.state(seen.last()))))
            @if seen.same == Some(false) { " " strong { "The index does not say what the log says." } }
            ": log entries " (seen.facts.opened) " to " (seen.last()) ". "
            a href="#integrity" { "How it was checked" } ", "
            a href="#who" { "who it was" } "."
        }
        (timeline(&seen, walk.as_deref()))
        div.columns {
            (identity(&seen.facts))
            (integrity(context, &seen, walk.as_deref())?)
        }
        p.actions {
            a href={ "/session/" (seen.id) "/export.csv" } { "This session as CSV" }
            " "
            a href={ "/session/" (seen.id) "/export.json" } { "as JSON, with entries and proofs" }
        }
    };
    let look = seen.look("session");
    Ok(Reply::page(look, Page { title: "Session".into(), here: "/ask", body }))
}

/// One sentence for who is in a hurry.
fn sentence(seen: &Seen) -> Markup {
    let facts = &seen.facts;
    let operations: Vec<_> = seen.answers.iter().filter_map(|a| a.operation.as_ref()).collect();
    let refused = operations.iter().filter(|operation| operation.verdict == "deny").count();
    let rows: i64 = operations.iter().filter_map(|operation| operation.rows).sum();
    html! {
        strong { (text::short(&facts.principal)) } " on host " strong { (text::short(&facts.host)) }
        " reached " strong { (text::short(&facts.target)) } " on "
        (page::time(facts.opened_ns)) " UTC"
        @if let Some(closed) = facts.closed_ns {
            " for " (page::duration(closed.saturating_sub(facts.opened_ns)))
        } @else { ", and no end is recorded" }
        ": " (operations.len()) " operations, " (refused) " refused, " (count(rows)) " rows."
    }
}

fn identity(facts: &Facts) -> Markup {
    html! {
        section aria-labelledby="who" {
            h2 id="who" { "Who" }
            dl {
                @for (name, value) in &facts.who {
                    dt { (name) } dd { (text::short(value)) }
                }
                dt { "Agent and host" } dd { (text::short(&facts.agent)) " on " (text::short(&facts.host)) }
                @if let Some(by) = &facts.ended_by { dt { "Ended by" } dd { (text::short(by)) } }
                @if let Some([operations, refused, from_client, from_server]) = facts.counts {
                    dt { "Counted by the agent at the end" }
                    dd {
                        (count(operations)) " operations, " (count(refused)) " refused, "
                        (count(from_client)) " bytes from the client, "
                        (count(from_server)) " from the server"
                    }
                }
            }
            p.dim {
                "Principal, program and unit are what the kernel and /proc said of the process that \
                connected. The application name is what the client says of itself."
            }
        }
    }
}

fn integrity(context: &Context, seen: &Seen, walk: Option<&Walk>) -> anyhow::Result<Markup> {
    let facts = &seen.facts;
    let last = seen.last();
    let seqs: Vec<u64> = seen.answers.iter().map(|answer| answer.seq).collect();
    let reader = Reader::open(&context.ui, &context.user.scope)?;
    let (low, high) =
        (seqs.iter().min().copied().unwrap_or(0), seqs.iter().max().copied().unwrap_or(0));
    let seals = reader.seals(&facts.chain, low, high)?;
    let checkpoint = newest_checkpoint(&context.ui.paths)?;
    let gaps = gaps(&reader, facts)?;
    let state = walk.map_or(State::NotRun, |walk| walk.state(last));
    Ok(html! {
        section.integrity aria-labelledby="integrity" {
            h2 id="integrity" { "Integrity" }
            p.verdict { (words::state(state)) }
            dl {
                dt { "In the log" }
                dd { "entries " (facts.opened) " to " (last) " of " (text::short(&context.ui.config.collector.origin)) }
                dt { "Chain" }
                dd { code { (facts.chain.get(..16).unwrap_or(&facts.chain)) "…" } ", records " (low) " to " (high) }
                dt { "Sealed by the agent" }
                dd {
                    @if seals.is_empty() { "no seal yet" } @else {
                        @for (at, (index, seq)) in seals.iter().enumerate() {
                            @if at > 0 { "; " }
                            "entry " (index) ", over records up to " (seq)
                        }
                    }
                }
                dt { "Checkpoint" }
                dd {
                    @if let Some((checkpoint, _)) = &checkpoint {
                        "over " (count(checkpoint.size)) " entries, root "
                        code { (hex::encode(checkpoint.root).get(..16).unwrap_or_default()) "…" }
                    } @else { "none yet" }
                }
                dt { "Verified" } dd { (walked(walk)) }
                dt { "Gaps" } dd { (gaps) }
                dt { "This page and the log" }
                dd {
                    @if seen.same.is_none() {
                        "The log is too long to be read again for a page; the command line does it."
                    } @else if seen.same == Some(true) {
                        "The " (seen.extract.as_ref().map_or(0, |extract| extract.leaves.len())) " entries were read from the log again; they alone \
                        give exactly what this page shows."
                    } @else {
                        strong { "The index does not say what the log says. " }
                        "Believe the log: tidegate-collector reindex, then open this page again."
                    }
                }
            }
            details {
                summary { "How to check it without this page" }
                p {
                    "Copy " code { "log/" } " to another machine and run "
                    code { "tidegate-collector verify --log DIR --keys FILE" }
                    " with a " code { "keys.json" } " that was kept elsewhere. The JSON export of this \
                    session holds its entries and their inclusion proofs."
                }
            }
        }
    })
}

/// What this agent itself said to be missing, in any of its chains.
fn gaps(reader: &Reader<'_>, facts: &Facts) -> anyhow::Result<Markup> {
    let mut found = 0;
    for kind in ["gap", "bypass", "recovered"] {
        let filter = Filter {
            agent: Some(facts.agent.clone()),
            kind: Some(kind.to_owned()),
            limit: SESSION_ANSWERS_MAX,
            ..Filter::default()
        };
        found += reader.ask(filter)?.len();
    }
    let outcomes = "Every outcome that came is beside its operation.";
    Ok(html! {
        @if found == 0 {
            "This agent declared no gap, no bypass and no unclean end. " (outcomes)
        } @else {
            strong { (found) } " records of this agent tell of gaps, bypasses or unclean ends: "
            a href={ "/ask?for=any&kind=gap&agent=" (page::encode(&facts.agent)) "#answers" } { "gaps" } ", "
            a href={ "/ask?for=any&kind=bypass&agent=" (page::encode(&facts.agent)) "#answers" } { "bypasses" } ", "
            a href={ "/ask?for=any&kind=recovered&agent=" (page::encode(&facts.agent)) "#answers" } { "unclean ends" } "."
        }
    })
}

/// What was walked, by what, with which result.
pub fn walked(walk: Option<&Walk>) -> Markup {
    let Some(walk) = walk else {
        return html! { "Not by this page: the log is too long for it. Use the command line." };
    };
    let report = &walk.report;
    html! {
        (page::time(crate::clock::signed_ns(walk.at_ns))) " UTC, in " (walk.took_ms) " ms: all "
        (count(report.entries)) " entries of the log, hash by hash, with "
        (count(report.seals)) " seals and " (report.checkpoints_checked)
        " checkpoints, by tidegate-ledger, the code behind " code { "verify" } ". "
        strong { (report.verdict()) } "."
        @if !report.findings.is_empty() {
            " " a href="/integrity" { (report.findings.len()) " findings and notices" } "."
        }
    }
}

fn timeline(seen: &Seen, walk: Option<&Walk>) -> Markup {
    let heads = [
        ("Time (UTC)", false),
        ("What", false),
        ("Verdict", false),
        ("Rows", true),
        ("Took", true),
        ("Proof", false),
    ];
    let longest = seen
        .answers
        .iter()
        .filter_map(|answer| answer.operation.as_ref()?.duration_ns)
        .max()
        .unwrap_or(0);
    let rows = html! {
        @for answer in &seen.answers { (step(seen, answer, walk, longest)) }
    };
    html! {
        section aria-labelledby="timeline" {
            h2 id="timeline" { "Timeline" }
            @if seen.answers.len() >= SESSION_ANSWERS_MAX {
                p.note { "The newest " (SESSION_ANSWERS_MAX) " records; the command line has all." }
            }
            (table("Everything recorded in this session, in the order of the log", "steps", &heads, &rows))
        }
    }
}

fn step(seen: &Seen, answer: &Answer, walk: Option<&Walk>, longest: i64) -> Markup {
    let operation = answer.operation.as_ref();
    let state = walk.map_or(State::NotRun, |walk| walk.state(answer.index));
    html! {
        tr id={ "e" (answer.index) } {
            td.time { (moment(&answer.time)) }
            td.what {
                strong { (text::short(&words::what(answer))) }
                @if !answer.text.is_empty() { pre { code { (text::long(&answer.text)) } } }
                @if let Some(operation) = operation {
                    (parameters(operation)) (failure(operation))
                    @if let Some(carried) = &operation.carried { (terminal::carried(carried)) }
                }
                (terminal::shown(&seen.id, answer.index, &seen.texts))
            }
            td { @if let Some(operation) = operation { (decision(operation)) } }
            td.n {
                @if let Some(operation) = operation {
                    @if let Some(rows) = operation.rows { (count(rows)) }
                    @if operation.copied_out.is_some_and(|n| n > 0) {
                        br; span.dim { (count(operation.copied_out.unwrap_or(0))) " copied out" }
                    }
                    @if operation.copied_in.is_some_and(|n| n > 0) {
                        br; span.dim { (count(operation.copied_in.unwrap_or(0))) " copied in" }
                    }
                }
            }
            td.n { @if let Some(operation) = operation { (took(operation, longest)) } }
            td { (words::state(state)) br; span.dim { "entry " (answer.index) } }
        }
    }
}

fn took(operation: &Operation, longest: i64) -> Markup {
    let Some(took) = operation.duration_ns else {
        return html! { @if operation.verdict != "deny" { span.dim { "no outcome" } } };
    };
    html! {
        (page::duration(took))
        meter min="0" max=(longest.max(1)) value=(took) aria-hidden="true" {}
    }
}

fn parameters(operation: &Operation) -> Markup {
    let values = operation.parameters.as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        @if !values.is_empty() {
            dl.parameters {
                @for (at, value) in values.iter().enumerate() {
                    dt { "$" (at + 1) }
                    dd { code { (text::short(value.as_str().unwrap_or_default())) } }
                }
            }
        }
    }
}

fn failure(operation: &Operation) -> Markup {
    let outcome = words::outcome(operation).filter(|text| text != "ok");
    let message = operation.message.as_deref().unwrap_or_default();
    html! {
        @if let Some(outcome) = outcome {
            p.failure {
                "Outcome: " (text::short(&outcome))
                @if !message.is_empty() { ", " (text::short(message)) }
            }
        }
    }
}

fn decision(operation: &Operation) -> Markup {
    let policies = export::policies(&operation.policies);
    html! {
        (words::verdict(&operation.verdict))
        @if !policies.is_empty() { br; span.dim { "by " (text::short(&policies)) } }
        @if !operation.reason.is_empty() { br; span.dim { (text::short(&operation.reason)) } }
    }
}

/// The session as CSV.
pub fn csv(context: &Context) -> Result<Reply, Problem> {
    let seen = see(context)?;
    let bytes = export::answers_csv(&seen.answers).into_bytes();
    let name = format!("session-{}.csv", seen.id);
    Ok(Reply::file(seen.look("session, export as CSV"), name, export::CSV, bytes))
}

/// The session as JSON, with its entries and their proofs.
pub fn json(context: &Context) -> Result<Reply, Problem> {
    let seen = see(context)?;
    let whole = context.user.scope.is_everything();
    let extract = if whole {
        seen.extract
    } else {
        // Entries outside of the scope may not go out; those of the answers may.
        let indexes: Vec<u64> = seen.answers.iter().map(|answer| answer.index).collect();
        proof::entries(&context.ui.paths, &indexes)?
    };
    let asked = format!("/session/{}", seen.id);
    let bundle = export::bundle(context, &asked, &seen.answers, extract.as_ref())?;
    let look = Look { page: "session, export as JSON".into(), ..ask::looked(&seen.answers) };
    Ok(Reply::file(
        look,
        format!("session-{}.json", seen.id),
        export::JSON,
        export::pretty(&bundle)?,
    ))
}
