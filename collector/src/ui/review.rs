//! Review queue: what somebody should look at, and a seeded sample of the rest; sign-off with a comment.
//!
//! Promises: the same period, scope and seed give the same sample from the same log, so that another person
//! can draw it again; nobody signs off what was done by a principal that is theirs (the account's own
//! name, or one named with `ui link --operates`); sign-offs are only ever added.
//!
//! Limits: [`CANDIDATES_MAX`] entries a category, the newest. Known gap: who operates what is as told by whoever made the
//! link.

use maud::{Markup, html};
use rusqlite::params;
use sha2::{Digest as _, Sha256};

use super::ask::{SPANS, whole_seconds};
use super::looks::{self, Kept, Look, SignOff};
use super::page::{self, Page, count, encode, moment, table};
use super::read::Reader;
use super::roles::{Role, Scope};
use super::routes::{Context, Problem, Reply, filled};
use super::store::User;
use super::{ask, export, text, words};
use crate::query::Answer;

/// Rows from which a result counts as large.
pub const LARGE_ROWS: i64 = 1_000;
/// Bytes from which a result counts as large.
pub const LARGE_BYTES: i64 = 1 << 20;
/// Entries of a category on the page.
const CANDIDATES_MAX: u32 = 200;
/// Entries that a sample is drawn from.
const DRAWN_FROM_MAX: u32 = 2_000_000;
/// Entries in a sample where nothing else is said, as examiners often take.
pub const SAMPLE_DEFAULT: usize = 25;
/// Largest sample.
pub const SAMPLE_MAX: usize = 200;
/// Longest comment, in characters.
const COMMENT_CHARS_MAX: usize = 500;

/// A period: from, until, and how it stands in an URL.
pub struct Period {
    /// From then on.
    pub from_ns: i64,
    /// Before then.
    pub until_ns: i64,
    /// `from=..&for=..`.
    pub url: String,
    /// Whether the request's URL had it absolutely.
    pub absolute: bool,
    /// The span's name.
    pub span: String,
}

/// The period of a request; without one, the last `default`.
pub fn period(context: &Context, default: &str) -> Result<Period, Problem> {
    let mut query = context.query.clone();
    query.retain(|name, _| name == "from" || name == "for");
    if filled(&query, "for").is_none() {
        query.insert("for".into(), default.into());
    }
    let question = ask::Question::read(&query, context.now())
        .map_err(|error| Problem::Bad(format!("{error:#}")))?;
    match (question.from_ns, question.until_ns) {
        (Some(from_ns), Some(until_ns)) => Ok(Period {
            from_ns,
            until_ns,
            url: question.url(),
            absolute: question.absolute,
            span: question.span,
        }),
        _ => Err(Problem::Bad("for: choose one of the spans".into())),
    }
}

/// Seed and size of a sample.
pub struct Draw {
    /// Any words.
    pub seed: String,
    /// How many.
    pub size: usize,
}

/// As the request says; without a seed, the period's beginning.
pub fn draw(context: &Context, period: &Period) -> Result<Draw, Problem> {
    let seed = context.field("seed").unwrap_or_else(|| whole_seconds(period.from_ns));
    let size = match context.field("n") {
        None => SAMPLE_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|size| (1..=SAMPLE_MAX).contains(size))
            .ok_or_else(|| Problem::Bad(format!("n: a number from 1 to {SAMPLE_MAX}")))?,
    };
    Ok(Draw { seed, size })
}

/// Category: name, why it is in the queue, condition.
const CATEGORIES: [(&str, &str, &str); 6] = [
    ("Refused", "a policy refused it, or none permitted it", "o.verdict = 'deny'"),
    ("Would be refused", "it passed in shadow mode", "o.verdict = 'would_deny'"),
    ("Passed open", "it passed because the agent could not record it", "o.verdict = 'passed_open'"),
    ("Not understood", "what it does is not known", "o.unknown <> ''"),
    (
        "Without bound",
        "a change or deletion without WHERE",
        "EXISTS (SELECT 1 FROM effects e WHERE e.idx = o.idx AND e.unbounded)",
    ),
    (
        "Large",
        "1000 rows or more, or 1 MiB or more",
        "(o.rows >= ?5 OR o.copied_out >= ?5 OR o.bytes_out >= ?6)",
    ),
];

const WITHIN: &str = "o.wall_ns >= ?1 AND o.wall_ns < ?2 AND (?3 IS NULL OR o.target = ?3)
    AND (?4 IS NULL OR c.agent_id = ?4) AND ?5 > 0 AND ?6 > 0";

/// Indexes of operations in the period and the scope for which the condition holds, the newest.
fn indexes(
    reader: &Reader<'_>,
    scope: &Scope,
    (from_ns, until_ns): (i64, i64),
    condition: &str,
    max: u32,
) -> anyhow::Result<Vec<u64>> {
    let from = from_ns.max(scope.since_ns.unwrap_or(i64::MIN));
    let until = until_ns.min(scope.until_ns.unwrap_or(i64::MAX));
    let mut rows = reader.db.prepare(&format!(
        "SELECT o.idx FROM operations o JOIN chains c ON c.id = o.chain
         WHERE {WITHIN} AND {condition} ORDER BY o.idx DESC LIMIT {max}"
    ))?;
    let values = params![from, until, scope.target, scope.agent, LARGE_ROWS, LARGE_BYTES];
    let rows = rows.query_map(values, |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The sample: of all operations, those whose hash with the seed is smallest.
pub fn sample(
    reader: &Reader<'_>,
    scope: &Scope,
    (from_ns, until_ns): (i64, i64),
    draw: &Draw,
) -> anyhow::Result<Vec<Answer>> {
    let all = indexes(reader, scope, (from_ns, until_ns), "TRUE", DRAWN_FROM_MAX)?;
    let mut ranked: Vec<([u8; 32], u64)> =
        all.into_iter().map(|index| (rank(&draw.seed, index), index)).collect();
    ranked.sort_unstable();
    ranked.truncate(draw.size);
    reader.at(&ranked.into_iter().map(|(_, index)| index).collect::<Vec<_>>())
}

fn rank(seed: &str, index: u64) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"tidegate/sample/v1\0");
    hash.update(seed.as_bytes());
    hash.update([0]);
    hash.update(index.to_be_bytes());
    hash.finalize().into()
}

/// The page.
pub fn queue(context: &Context) -> Result<Reply, Problem> {
    let period = period(context, "7d")?;
    let draw = draw(context, &period)?;
    let url = format!("/review?{}&seed={}&n={}", period.url, encode(&draw.seed), draw.size);
    if !period.absolute {
        return Ok(Reply::see("review", url));
    }
    let scope = &context.user.scope;
    let reader = Reader::open(&context.ui, scope)?;
    let span = (period.from_ns, period.until_ns);
    let signed = looks::sign_offs(&context.ui)?;
    let mut sections = Vec::new();
    let mut seen: Vec<Answer> = Vec::new();
    for (name, why, condition) in CATEGORIES {
        let found = reader.at(&indexes(&reader, scope, span, condition, CANDIDATES_MAX)?)?;
        sections.push(section(name, why, &found, &signed));
        seen.extend(found);
    }
    let sampled = sample(&reader, scope, span, &draw)?;
    let why = format!(
        "{} drawn by seed “{}” from all operations of the period",
        sampled.len(),
        draw.seed
    );
    sections.push(section("Sample", &why, &sampled, &signed));
    seen.extend(sampled);
    seen.sort_by_key(|answer| answer.index);
    seen.dedup_by_key(|answer| answer.index);
    let open = seen.iter().filter(|answer| !is_signed(&signed, answer.index)).count();
    let body = html! {
        (form(context, &period, &draw))
        p.sentence {
            "From " (page::time(period.from_ns)) " to before " (page::time(period.until_ns)) " UTC: "
            strong { (open) } " of " (seen.len()) " entries are without a sign-off."
        }
        @for section in &sections { (section) }
    };
    let look = Look { page: "review".into(), ..ask::looked(&seen) };
    let title = "Review queue".into();
    Ok(Reply::page(look, Page { title, here: "/review", body }))
}

fn is_signed(signed: &[Kept<SignOff>], index: u64) -> bool {
    signed.iter().any(|sign| sign.what.entry == index)
}

fn form(context: &Context, period: &Period, draw: &Draw) -> Markup {
    let from = whole_seconds(period.from_ns).replace('T', " ").replace('Z', "");
    let from = context.field("from").map_or(from.clone(), |_| from);
    html! {
        form.ask action="/review" aria-label="Period and sample" {
            (period_fields(&from, &period.span))
            div.field {
                label for="seed" { "Seed of the sample" }
                input id="seed" name="seed" value=(draw.seed) autocomplete="off";
            }
            div.field {
                label for="n" { "Size of the sample" }
                input id="n" name="n" value=(draw.size) inputmode="numeric" size="5";
            }
            div.field.go { button.main type="submit" { "Show" } }
        }
    }
}

/// The two fields of a period.
pub fn period_fields(from: &str, span: &str) -> Markup {
    html! {
        div.field {
            label for="from" { "From (UTC)" }
            input id="from" name="from" value=(from) size="19" autocomplete="off";
        }
        div.field {
            label for="for" { "For" }
            select id="for" name="for" {
                @for (name, words, _) in SPANS {
                    option value=(name) selected[name == span] { (words) }
                }
            }
        }
    }
}

fn section(name: &str, why: &str, answers: &[Answer], signed: &[Kept<SignOff>]) -> Markup {
    let id = name.to_lowercase().replace(' ', "-");
    let heads = [
        ("Entry", false),
        ("Time (UTC)", false),
        ("Who", false),
        ("What", false),
        ("Rows", true),
        ("Verdict", false),
        ("Sign-off", false),
    ];
    let rows = html! { @for answer in answers { (row(answer, signed)) } };
    let caption = format!("{name}: {why}");
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (name) " (" (answers.len()) ")" }
            @if answers.is_empty() { p.dim { "None: " (why) "." } } @else {
                (table(&caption, &format!("{id}-table"), &heads, &rows))
            }
        }
    }
}

fn row(answer: &Answer, signed: &[Kept<SignOff>]) -> Markup {
    let operation = answer.operation.as_ref();
    let last = signed.iter().rev().find(|sign| sign.what.entry == answer.index);
    html! {
        tr {
            th scope="row" { a href={ "/review/" (answer.index) } { "Entry " (answer.index) } }
            td.time { (moment(&answer.time)) }
            td { strong { (text::short(&answer.who)) } br; (words::program(operation)) }
            td.what {
                (text::short(&words::what(answer)))
                @if !answer.text.is_empty() { br; code { (text::short(&answer.text)) } }
            }
            td.n { @if let Some(rows) = operation.and_then(|o| o.rows) { (count(rows)) } }
            td { @if let Some(operation) = operation { (words::verdict(&operation.verdict)) } }
            td {
                @match last {
                    None => (words::tag(("○", "open", "wait"))),
                    Some(sign) => {
                        (words::tag(outcome_words(&sign.what.outcome))) br;
                        span.dim { "by " (text::short(&sign.who)) }
                    }
                }
            }
        }
    }
}

/// Glyph, words and style of a sign-off's outcome.
pub fn outcome_words(outcome: &str) -> (&'static str, &'static str, &'static str) {
    if outcome == "as_expected" {
        ("✓", "as expected", "good")
    } else {
        ("△", "follow up", "warn")
    }
}

/// Whether this person may not sign off this answer, and why.
pub fn own(user: &User, answer: &Answer) -> Option<String> {
    let database_user = answer.operation.as_ref().and_then(|operation| operation.user.as_ref());
    let names = [Some(&answer.who), database_user];
    let theirs = |name: &String| *name == user.name || user.operates.contains(name);
    let own = names.into_iter().flatten().find(|name| theirs(name))?;
    Some(format!("{own} is yours to operate: somebody else must sign this off."))
}

fn entry(context: &Context) -> Result<Answer, Problem> {
    let index = context.segment(1).parse::<u64>().ok();
    let reader = Reader::open(&context.ui, &context.user.scope)?;
    let found = index.map(|index| reader.at(&[index])).transpose()?;
    found
        .and_then(|mut found| found.pop())
        .ok_or_else(|| Problem::Missing("There is no such operation, or not in your scope.".into()))
}

/// One entry, with its sign-offs and the form for one more.
pub fn one(context: &Context) -> Result<Reply, Problem> {
    let answer = entry(context)?;
    let mut signed = looks::sign_offs(&context.ui)?;
    signed.retain(|sign| sign.what.entry == answer.index);
    let operation = answer.operation.clone().unwrap_or_default();
    let body = html! {
        p.sentence {
            strong { (text::short(&answer.who)) } ", " (moment(&answer.time)) " UTC, target "
            (text::short(&answer.target)) ": " (text::short(&words::what(&answer))) ". "
            (words::verdict(&operation.verdict))
        }
        pre { code { (text::long(&answer.text)) } }
        dl {
            dt { "Policies" } dd { (text::short(&export::policies(&operation.policies))) }
            dt { "Reason" } dd { (text::short(&operation.reason)) }
            dt { "Rows" } dd { @if let Some(rows) = operation.rows { (count(rows)) } @else { "none recorded" } }
            @if let Some(outcome) = words::outcome(&operation) { dt { "Outcome" } dd { (text::short(&outcome)) } }
        }
        @if let Some(session) = &answer.session {
            p { a href={ "/session/" (session) "#e" (answer.index) } { "The whole session, with its proof" } }
        }
        (sign_offs(&signed))
        @if context.user.role == Role::Reviewer { (sign_form(context, &answer)) }
    };
    let look =
        Look { page: "review, one entry".into(), ..ask::looked(std::slice::from_ref(&answer)) };
    let title = format!("Review of entry {}", answer.index);
    Ok(Reply::page(look, Page { title, here: "/review", body }))
}

fn sign_offs(signed: &[Kept<SignOff>]) -> Markup {
    let heads = [("Time (UTC)", false), ("Who", false), ("Outcome", false), ("Comment", false)];
    let rows = html! {
        @for sign in signed {
            tr {
                td.time { (page::time(sign.at_ns)) }
                td { (text::short(&sign.who)) }
                td { (words::tag(outcome_words(&sign.what.outcome))) }
                td { (text::short(&sign.what.comment)) }
            }
        }
    };
    html! { @if !signed.is_empty() { (table("Sign-offs, oldest first", "signoffs", &heads, &rows)) } }
}

fn sign_form(context: &Context, answer: &Answer) -> Markup {
    if let Some(why) = own(&context.user, answer) {
        return html! { p.note { (text::short(&why)) } };
    }
    html! {
        form.sign method="post" action={ "/review/" (answer.index) } aria-labelledby="sign" {
            h2 id="sign" { "Sign off" }
            input type="hidden" name="csrf" value=(context.csrf);
            fieldset {
                legend { "What is it?" }
                label { input type="radio" name="outcome" value="as_expected" required; " As expected" }
                label { input type="radio" name="outcome" value="follow_up"; " To be followed up" }
            }
            label for="comment" { "Comment (what you looked at, and why it is so)" }
            textarea id="comment" name="comment" rows="4" required maxlength=(COMMENT_CHARS_MAX) {}
            p.dim { "Kept with your name and the time. It cannot be changed or taken back." }
            button.main type="submit" { "Sign off entry " (answer.index) }
        }
    }
}

/// Keeps a sign-off.
pub fn sign(context: &Context) -> Result<Reply, Problem> {
    let answer = entry(context)?;
    if let Some(why) = own(&context.user, &answer) {
        return Err(Problem::Forbidden(why));
    }
    let outcome = filled(&context.form, "outcome").unwrap_or_default();
    if !["as_expected", "follow_up"].contains(&outcome.as_str()) {
        return Err(Problem::Bad("Choose what it is: as expected, or to be followed up.".into()));
    }
    let comment = filled(&context.form, "comment").unwrap_or_default();
    if comment.is_empty() || comment.chars().count() > COMMENT_CHARS_MAX {
        return Err(Problem::Bad(format!("A comment of 1 to {COMMENT_CHARS_MAX} characters.")));
    }
    let sign = SignOff { entry: answer.index, principal: answer.who.clone(), outcome, comment };
    looks::sign_off(&context.ui.state, &context.user, &sign)?;
    let look =
        Look { page: "review, sign-off".into(), ..ask::looked(std::slice::from_ref(&answer)) };
    Ok(Reply { look, ..Reply::see("", format!("/review/{}", answer.index)) })
}
