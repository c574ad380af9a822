//! Exam pack: the artifacts of one period and scope, to read, print, and check.
//!
//! Promises: an artifact says what it *produces evidence for*, with the handbook's words, and what it does not
//! show; nothing here calls anybody compliant. What this version cannot produce is listed. Period, scope
//! and seed stand in the URL: the same URL gives the same pack from the same log, but for looks and
//! sign-offs that came since.
//!
//! Source: FFIEC IT Examination Handbook, Information Security (September 2016), and Authentication and
//! Access to Financial Institution Services and Systems (August 2021).
//! Limits: [`ROWS_MAX`] rows an artifact, and a row that says how many were left out.

mod access;
mod activity;
mod log;

use maud::{Markup, html};
use serde_json::json;

use super::looks::Look;
use super::page::{self, Page, encode};
use super::proof::Walk;
use super::read::{Reader, newest_checkpoint};
use super::review::{self, Draw, Period};
use super::roles::Scope;
use super::routes::{Context, Problem, Reply};
use super::{export, proof, session, text};
use crate::clock::rfc3339;
use crate::query::Answer;

/// Rows of one artifact.
pub const ROWS_MAX: usize = 1_000;

/// One artifact.
pub struct Artifact {
    /// `LOG-01`.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it produces evidence for: the handbook's place and words.
    pub expectation: &'static str,
    /// The same in other frameworks' numbers.
    pub crosswalk: &'static str,
    /// What it does not show.
    pub limits: &'static str,
    /// Column heads.
    pub heads: Vec<&'static str>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
}

/// What a pack is made for.
pub struct Exam<'a> {
    /// The request.
    pub context: &'a Context,
    /// The period.
    pub period: Period,
    /// The person's scope, narrowed to the pack's target, agent and period.
    pub scope: Scope,
    /// Seed and size of the sample.
    pub draw: Draw,
    /// The last verification.
    pub walk: Option<std::sync::Arc<Walk>>,
}

impl<'a> Exam<'a> {
    fn read(context: &'a Context) -> Result<Self, Problem> {
        let period = review::period(context, "92d")?;
        let draw = review::draw(context, &period)?;
        let mine = &context.user.scope;
        let narrow = |asked: Option<String>, mine: &Option<String>| match (asked, mine) {
            (Some(asked), Some(mine)) if asked != *mine => {
                Err(Problem::Forbidden("That is outside of your scope.".into()))
            }
            (asked, mine) => Ok(asked.or_else(|| mine.clone())),
        };
        let scope = Scope {
            target: narrow(context.field("target"), &mine.target)?,
            agent: narrow(context.field("agent"), &mine.agent)?,
            since_ns: mine.since_ns.max(Some(period.from_ns)),
            until_ns: Some(mine.until_ns.map_or(period.until_ns, |end| end.min(period.until_ns))),
        };
        let newest = Reader::open(&context.ui, &scope)?.newest_operation()?;
        let walk = context.ui.walks.fresh(&context.ui.config, newest)?;
        Ok(Self { context, period, scope, draw, walk })
    }

    /// The index, behind the pack's scope.
    pub fn reader(&self) -> anyhow::Result<Reader<'_>> {
        Reader::open(&self.context.ui, &self.scope)
    }

    /// The scope as SQL parameters ?1 to ?4: target, agent, since, until.
    pub fn values(&self) -> [rusqlite::types::Value; 4] {
        let text = |text: &Option<String>| text.clone().into();
        let number = |number: Option<i64>| number.into();
        [
            text(&self.scope.target),
            text(&self.scope.agent),
            number(self.scope.since_ns),
            number(self.scope.until_ns),
        ]
    }

    /// The sample.
    pub fn sample(&self) -> anyhow::Result<Vec<Answer>> {
        let span = (self.period.from_ns, self.period.until_ns);
        review::sample(&self.reader()?, &self.scope, span, &self.draw)
    }

    fn url(&self) -> String {
        let mut url =
            format!("{}&seed={}&n={}", self.period.url, encode(&self.draw.seed), self.draw.size);
        for (name, value) in [("target", &self.scope.target), ("agent", &self.scope.agent)] {
            if let Some(value) = value {
                url.extend(["&", name, "=", &encode(value)]);
            }
        }
        url
    }
}

/// Makes an artifact.
type Make = fn(&Exam<'_>) -> anyhow::Result<Artifact>;

const ARTIFACTS: [(&str, Make); 13] = [
    ("MET-01", activity::metrics),
    ("NHI-01", access::accounts),
    ("PAM-03", access::shared),
    ("DBA-01", activity::by_account),
    ("DEN-01", activity::denied),
    ("SMP-01", activity::sampled),
    ("LOG-01", log::coverage),
    ("LOG-02", log::oldest),
    ("LOG-03", log::certificate),
    ("LOG-06", access::looks),
    ("LOG-07", log::exports),
    ("REV-01", access::reviews),
    ("SOD-01", access::roles),
];

/// What this version cannot produce.
const MISSING: [(&str, &str); 7] = [
    ("LOG-04", "forecast of storage, history of the spool's high water"),
    ("ALR-01", "alert rules and what they fired: they are the SIEM's"),
    ("PAM-02", "time-bound grants and their approvers"),
    ("PAM-04", "campaigns of access review"),
    (
        "SSH-02",
        "what was typed in terminal sessions: only what they showed is kept, where a policy keeps it",
    ),
    ("KEY-01", "records of key ceremonies, rotations, releases"),
    ("NHI-02, NHI-03", "age of credentials, assurance of identities"),
];

/// The form.
#[expect(clippy::unnecessary_wraps, reason = "one signature for all pages")]
pub fn choose(_context: &Context) -> Result<Reply, Problem> {
    let body = html! {
        p.sentence {
            "A pack of artifacts for one period and scope: to read, to print, and as CSV and JSON with proofs. \
            It produces evidence for an examiner's procedures; whether they are met is the examiner's to say."
        }
        form.ask action="/exam/pack" aria-label="Period, scope and sample" {
            (review::period_fields("", "92d"))
            @for (name, words) in [("target", "Target (empty: all)"), ("agent", "Agent (empty: all)"),
                ("seed", "Seed of the sample (the examiner's words)")] {
                div.field { label for=(name) { (words) } input id=(name) name=(name) autocomplete="off"; }
            }
            div.field {
                label for="n" { "Size of the sample" }
                input id="n" name="n" value=(review::SAMPLE_DEFAULT) inputmode="numeric" size="5";
            }
            div.field.go { button.main type="submit" { "Make the pack" } }
        }
        (missing())
    };
    let look = Look::at("exam");
    let title = "Exam pack".into();
    Ok(Reply::page(look, Page { title, here: "/exam", body }))
}

fn missing() -> Markup {
    html! {
        section aria-labelledby="missing" {
            h2 id="missing" { "Not produced by this version" }
            ul { @for (id, what) in MISSING { li { strong { (id) } ": " (what) } } }
        }
    }
}

/// The pack as one page, for reading and printing.
pub fn pack(context: &Context) -> Result<Reply, Problem> {
    let exam = Exam::read(context)?;
    if !exam.period.absolute {
        return Ok(Reply::see("exam", format!("/exam/pack?{}", exam.url())));
    }
    let artifacts = ARTIFACTS.iter().map(|(_, make)| make(&exam)).collect::<Result<Vec<_>, _>>()?;
    let root = newest_checkpoint(&context.ui.paths)?
        .map(|(checkpoint, _)| (checkpoint.size, hex::encode(checkpoint.root)));
    let body = html! {
        (head(&exam, root.as_ref()))
        nav aria-label="Artifacts" {
            ol.contents {
                @for artifact in &artifacts {
                    li { a href={ "#" (artifact.id) } { (artifact.id) " " (artifact.title) } }
                }
            }
        }
        @for artifact in &artifacts { (show(&exam, artifact)) }
        (missing())
        (foot(&exam, root.as_ref()))
    };
    let look = Look { page: "exam pack".into(), ..super::ask::looked(&exam.sample()?) };
    let title = "Exam pack".into();
    Ok(Reply::page(look, Page { title, here: "/exam", body }))
}

fn head(exam: &Exam<'_>, root: Option<&(u64, String)>) -> Markup {
    let all = "all".to_owned();
    html! {
        dl.facts {
            dt { "Period" }
            dd { "from " (page::time(exam.period.from_ns)) " to before " (page::time(exam.period.until_ns)) " UTC" }
            dt { "Target and agent" }
            dd {
                (text::short(exam.scope.target.as_ref().unwrap_or(&all))) " and "
                (text::short(exam.scope.agent.as_ref().unwrap_or(&all)))
            }
            dt { "Sample" } dd { (exam.draw.size) " by seed “" (text::short(&exam.draw.seed)) "”" }
            dt { "Asked by" } dd { (text::short(&exam.context.user.name)) ", " (exam.context.user.role.name()) }
            dt { "Log" } dd { (text::short(&exam.context.ui.config.collector.origin)) }
            @if let Some((size, root)) = root {
                dt { "Checkpoint" } dd { "over " (size) " entries, root " code { (root) } }
            }
            dt { "Verified" } dd { (session::walked(exam.walk.as_deref())) }
        }
        p.actions {
            a href={ "/exam/pack.json?" (exam.url()) } { "The pack as JSON, the sample with entries and proofs" }
        }
        p.dim { "To print or keep as PDF, use the browser's print command." }
    }
}

/// Chromium repeats a fixed box on every printed page.
fn foot(exam: &Exam<'_>, root: Option<&(u64, String)>) -> Markup {
    html! {
        div.print-foot aria-hidden="true" {
            (text::short(&exam.context.ui.config.collector.origin))
            @if let Some((size, root)) = root { " · entries 0 to " (size.saturating_sub(1)) " · root " (root) }
            " · " (exam.context.ui.config.witnesses.len()) " witnesses"
        }
    }
}

fn show(exam: &Exam<'_>, artifact: &Artifact) -> Markup {
    let numbers = |at: usize| {
        let mut cells = artifact.rows.iter().filter_map(|row| row.get(at));
        cells.all(|cell| cell.is_empty() || cell.parse::<i64>().is_ok())
    };
    let heads: Vec<(&str, bool)> =
        artifact.heads.iter().enumerate().map(|(at, head)| (*head, numbers(at))).collect();
    let shown = artifact.rows.len().min(ROWS_MAX);
    let rows = html! {
        @for row in artifact.rows.iter().take(shown) {
            tr {
                @for (cell, (_, number)) in row.iter().zip(&heads) {
                    td class=[number.then_some("n")] { (text::short(cell)) }
                }
            }
        }
    };
    let id = artifact.id;
    html! {
        section.artifact aria-labelledby=(id) {
            h2 id=(id) { (id) " " (artifact.title) }
            p { strong { "Produces evidence for: " } (artifact.expectation) }
            p.dim { "Also: " (artifact.crosswalk) ". Does not show: " (artifact.limits) "." }
            @if artifact.rows.is_empty() { p { "Nothing of the kind in this period and scope." } } @else {
                (table_of(artifact, &heads, &rows))
            }
            @if artifact.rows.len() > shown {
                p.note { (artifact.rows.len() - shown) " further rows are in the CSV." }
            }
            p.actions { a href={ "/exam/csv/" (id) "?" (exam.url()) } { (id) " as CSV" } }
        }
    }
}

fn table_of(artifact: &Artifact, heads: &[(&str, bool)], rows: &Markup) -> Markup {
    page::table(artifact.title, &format!("{}-table", artifact.id), heads, rows)
}

/// One artifact as CSV.
pub fn csv(context: &Context) -> Result<Reply, Problem> {
    let exam = Exam::read(context)?;
    let wanted = context.segment(2);
    let found = ARTIFACTS.iter().find(|(id, _)| *id == wanted);
    let (id, build) = found.ok_or_else(|| Problem::Missing("There is no such artifact.".into()))?;
    let artifact = build(&exam)?;
    let mut csv = export::line(artifact.heads.iter().copied());
    for row in &artifact.rows {
        csv += &export::line(row.iter().map(String::as_str));
    }
    let answers = u64::try_from(artifact.rows.len()).unwrap_or(u64::MAX);
    let look = Look { answers, ..Look::at("exam, artifact as CSV") };
    Ok(Reply::file(look, format!("{id}.csv"), export::CSV, csv.into_bytes()))
}

/// The pack as JSON, its sample with entries and proofs.
pub fn json(context: &Context) -> Result<Reply, Problem> {
    let exam = Exam::read(context)?;
    let sample = exam.sample()?;
    let indexes: Vec<u64> = sample.iter().map(|answer| answer.index).collect();
    let extract = proof::entries(&context.ui.paths, &indexes)?;
    let asked = format!("/exam/pack?{}", exam.url());
    let mut artifacts = Vec::new();
    for (_, make) in ARTIFACTS {
        let artifact = make(&exam)?;
        artifacts.push(json!({
            "id": artifact.id,
            "title": artifact.title,
            "produces_evidence_for": artifact.expectation,
            "crosswalk": artifact.crosswalk,
            "does_not_show": artifact.limits,
            "columns": artifact.heads,
            "rows": artifact.rows,
        }));
    }
    let pack = json!({
        "v": 1,
        "period": { "from": rfc3339(exam.period.from_ns), "before": rfc3339(exam.period.until_ns) },
        "scope": exam.scope,
        "seed": exam.draw.seed,
        "verification": exam.walk.as_ref().map(|walk| crate::verify::to_json(&walk.report)),
        "artifacts": artifacts,
        "not_produced": MISSING.map(|(id, what)| json!({ "id": id, "what": what })),
        "sample": export::bundle(context, &asked, &sample, extract.as_ref())?,
    });
    let bytes = export::pretty(&pack)?;
    let look = Look { page: "exam pack, export as JSON".into(), ..super::ask::looked(&sample) };
    Ok(Reply::file(look, "exam-pack.json", export::JSON, bytes))
}
