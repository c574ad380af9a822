//! Ask: one form, one table, an URL that can be cited.
//!
//! Promise: the page's URL holds the whole question with absolute times, so that another reader gets
//! the same answers from the same log. Each row leads to its session.

mod question;

use maud::{Markup, html};

pub use self::question::{Question, SPANS, whole_seconds};

use self::question::NAMES;
use super::looks::Look;
use super::page::{self, Page, count, moment, table};
use super::proof::{State, Walk};
use super::read::Reader;
use super::routes::{Context, Fields, Problem, Reply};
use super::{export, text, words};
use crate::query::Answer;

/// Names in the summary.
const SUMMARY_MAX: usize = 6;

/// Questions that the empty page offers: words, query.
const OFFERS: [(&str, &str); 5] = [
    ("Everything in the last 15 minutes", "for=15m"),
    ("Everything in the last hour", "for=1h"),
    ("Refused in the last 24 hours", "for=24h&verdict=deny"),
    ("What shadow mode would have refused, last 7 days", "for=7d&verdict=would_deny"),
    ("Gaps that agents declared, last 31 days", "for=31d&kind=gap"),
];

const VERDICTS: [&str; 4] = ["allow", "deny", "would_deny", "passed_open"];

/// The page.
pub fn page(context: &Context) -> Result<Reply, Problem> {
    if context.query.is_empty() {
        let body = html! { (form(&Fields::new(), true)) (offers()) };
        let page = Page { title: "Ask".into(), here: "/ask", body };
        let look = Look::at("ask");
        return Ok(Reply::page(look, page));
    }
    let question = match Question::read(&context.query, context.now()) {
        Ok(question) => question,
        Err(error) => return Ok(not_understood(context, &error)),
    };
    if !question.absolute {
        return Ok(Reply::see("ask", format!("/ask?{}", question.url())));
    }
    let (answers, more) = answers(context, &question)?;
    let newest = answers.last().map_or(0, |answer| answer.index);
    let walk = context.ui.walks.fresh(&context.ui.config, newest)?;
    let body = html! {
        (form(&shown_fields(context, &question), false))
        section aria-labelledby="answers" {
            h2 id="answers" { (heading(answers.len(), more)) }
            p.sentence { (sentence(&question)) }
            @if !answers.is_empty() {
                (summary(&question, &answers))
                (rows(&answers, walk.as_deref()))
                p.actions {
                    a href={ "/ask.csv?" (question.url()) } { "These answers as CSV" }
                    " " a href={ "/ask.json?" (question.url()) } { "as JSON, with proofs" }
                }
            } @else {
                p {
                    "No record in the index matches. That is proof of absence only for hosts whose \
                    agents report without gaps: see "
                    a href="/integrity" { "Integrity and coverage" } "."
                }
            }
        }
    };
    let look = Look { page: "ask".into(), ..looked(&answers) };
    Ok(Reply::page(look, Page { title: "Ask".into(), here: "/ask", body }))
}

fn not_understood(context: &Context, error: &anyhow::Error) -> Reply {
    let body = html! {
        p.problem role="alert" { strong { "Not understood. " } (text::short(&format!("{error}"))) }
        (form(&context.query, true))
        (offers())
    };
    let look = Look::at("ask");
    Reply::page(look, Page { title: "Ask".into(), here: "/ask", body })
}

/// At most the question's limit, and whether there were more.
fn answers(context: &Context, question: &Question) -> anyhow::Result<(Vec<Answer>, bool)> {
    let reader = Reader::open(&context.ui, &context.user.scope)?;
    let mut filter = question.filter();
    filter.limit += 1;
    let mut answers = reader.ask(filter)?;
    let more = answers.len() > question.limit;
    if more {
        answers.remove(0);
    }
    Ok((answers, more))
}

/// How many, and between which log indexes.
pub fn looked(answers: &[Answer]) -> Look {
    let first = answers.first().map(|answer| answer.index);
    let last = answers.last().map(|answer| answer.index);
    Look {
        answers: u64::try_from(answers.len()).unwrap_or(u64::MAX),
        range: first.zip(last),
        ..Look::default()
    }
}

fn heading(shown: usize, more: bool) -> String {
    match (shown, more) {
        (0, _) => "No answer".to_owned(),
        (1, false) => "1 answer".to_owned(),
        (shown, false) => format!("{shown} answers"),
        (shown, true) => format!("The newest {shown} answers; there are more"),
    }
}

/// The question in words.
fn sentence(question: &Question) -> Markup {
    let named =
        NAMES.iter().filter_map(|(name, words)| Some((*words, question.fields.get(*name)?)));
    html! {
        "Asked: "
        @if let (Some(from), Some(until)) = (question.from_ns, question.until_ns) {
            "from " (page::time(from)) " to before " (page::time(until)) " UTC"
        } @else { "at any time" }
        @for (words, value) in named { "; " (words.to_lowercase()) " " strong { (text::short(value)) } }
        ". The address of this page holds the whole question: it can be cited."
    }
}

/// Who is in the answers, with links that narrow.
fn summary(question: &Question, answers: &[Answer]) -> Markup {
    let mut by = std::collections::BTreeMap::<&str, u64>::new();
    for answer in answers.iter().filter(|answer| !answer.who.is_empty()) {
        *by.entry(&answer.who).or_default() += 1;
    }
    let mut by: Vec<_> = by.into_iter().collect();
    by.sort_by_key(|(who, n)| (std::cmp::Reverse(*n), *who));
    let left_out = by.len().saturating_sub(SUMMARY_MAX);
    by.truncate(SUMMARY_MAX);
    html! {
        @if !by.is_empty() {
            p.summary {
                "By "
                @for (at, (who, n)) in by.iter().enumerate() {
                    @if at > 0 { ", " }
                    @if question.fields.contains_key("who") { strong { (text::short(who)) } } @else {
                        a href={ "/ask?" (question.with("who", who).url()) "#answers" } {
                            strong { (text::short(who)) }
                        }
                    }
                    " (" (count(*n)) ")"
                }
                @if left_out > 0 { " and " (left_out) " more" }
                "."
            }
        }
    }
}

/// The answers as a table; also for other pages.
pub fn rows(answers: &[Answer], walk: Option<&Walk>) -> Markup {
    let heads = [
        ("Time (UTC)", false),
        ("Who", false),
        ("What", false),
        ("Target", false),
        ("Rows", true),
        ("Verdict", false),
        ("Proof", false),
    ];
    let rows = html! { @for answer in answers { (row(answer, walk)) } };
    table("Answers, oldest first; each leads to its session", "answers-table", &heads, &rows)
}

fn row(answer: &Answer, walk: Option<&Walk>) -> Markup {
    let operation = answer.operation.as_ref();
    let what = words::what(answer);
    let state = walk.map_or(State::NotRun, |walk| walk.state(answer.index));
    html! {
        tr {
            td.time { (moment(&answer.time)) }
            td { strong { (text::short(&answer.who)) } br; (words::program(operation)) }
            td.what {
                @match &answer.session {
                    Some(session) => {
                        a href={ "/session/" (session) "#e" (answer.index) } { (text::short(&what)) }
                    }
                    None => (text::short(&what)),
                }
                @if !answer.text.is_empty() { br; code { (text::short(&answer.text)) } }
            }
            td { (text::short(&answer.target)) }
            td.n {
                @if let Some(rows) = operation.and_then(|operation| operation.rows) { (count(rows)) }
            }
            td {
                @if let Some(operation) = operation {
                    (words::verdict(&operation.verdict))
                    @if let Some(outcome) = words::outcome(operation).filter(|text| text != "ok") {
                        br; span.dim { (text::short(&outcome)) }
                    }
                }
            }
            td { (words::state(state)) br; span.dim { "entry " (answer.index) } }
        }
    }
}

fn shown_fields(context: &Context, question: &Question) -> Fields {
    let mut fields = context.query.clone();
    if let Some(from) = question.from_ns {
        fields.insert("from".into(), whole_seconds(from).replace('T', " ").replace('Z', ""));
    }
    fields
}

fn form(fields: &Fields, first: bool) -> Markup {
    let value = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let span = if value("for").is_empty() { "1h" } else { value("for") };
    html! {
        form.ask role="search" action="/ask#answers" aria-label="Ask the record" {
            div.field {
                label for="from" { "From (UTC)" }
                input id="from" name="from" value=(value("from")) autofocus[first] size="19"
                    placeholder="2026-11-21 02:15" autocomplete="off" aria-describedby="from-help";
                span.help id="from-help" { "or 02:15, or 2h ago as 2h" }
            }
            div.field {
                label for="for" { "For" }
                select id="for" name="for" {
                    @for (name, words, _) in SPANS {
                        option value=(name) selected[name == span] { (words) }
                    }
                    option value="any" selected[span == "any"] { "any time" }
                }
            }
            @for (name, words) in NAMES {
                @if name == "verdict" { (verdicts(value("verdict"))) } @else {
                    div.field {
                        label for=(name) { (words) }
                        input id=(name) name=(name) value=(value(name)) autocomplete="off"
                            spellcheck="false" placeholder=(example(name));
                    }
                }
            }
            div.field.go { button.main type="submit" { "Ask" } }
        }
    }
}

fn verdicts(chosen: &str) -> Markup {
    html! {
        div.field {
            label for="verdict" { "Verdict" }
            select id="verdict" name="verdict" {
                option value="" { "any" }
                @for verdict in VERDICTS {
                    option value=(verdict) selected[verdict == chosen] {
                        (words::verdict_words(verdict).1)
                    }
                }
            }
        }
    }
}

const fn example(name: &str) -> &'static str {
    match name.as_bytes() {
        b"who" => "svc-statements",
        b"table" => "customers",
        b"exe" => "python3.11",
        b"target" => "core",
        b"kind" => "select, login, gap",
        b"action" => "select, update",
        _ => "",
    }
}

fn offers() -> Markup {
    html! {
        section aria-labelledby="offers" {
            h2 id="offers" { "Often asked" }
            ul.plain {
                @for (words, query) in OFFERS {
                    li { a href={ "/ask?" (query) "#answers" } { (words) } }
                }
            }
        }
    }
}

/// The answers as CSV.
pub fn csv(context: &Context) -> Result<Reply, Problem> {
    let (_, answers) = asked(context)?;
    let bytes = export::answers_csv(&answers).into_bytes();
    let look = Look { page: "ask, export as CSV".into(), ..looked(&answers) };
    Ok(Reply::file(look, "answers.csv", export::CSV, bytes))
}

/// The answers as JSON, with the entries and their proofs.
pub fn json(context: &Context) -> Result<Reply, Problem> {
    let (question, answers) = asked(context)?;
    let indexes: Vec<u64> = answers.iter().map(|answer| answer.index).collect();
    let extract = super::proof::entries(&context.ui.paths, &indexes)?;
    let asked = format!("/ask?{}", question.url());
    let bundle = export::bundle(context, &asked, &answers, extract.as_ref())?;
    let look = Look { page: "ask, export as JSON".into(), ..looked(&answers) };
    let bytes = export::pretty(&bundle)?;
    Ok(Reply::file(look, "answers.json", export::JSON, bytes))
}

fn asked(context: &Context) -> Result<(Question, Vec<Answer>), Problem> {
    let question = Question::read(&context.query, context.now())
        .map_err(|error| Problem::Bad(format!("{error:#}")))?;
    let (answers, _) = answers(context, &question)?;
    Ok((question, answers))
}
