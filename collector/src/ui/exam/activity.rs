//! Artifacts about what was done: numbers, accounts, refusals, sample.

use super::access::{query, times};
use super::{Artifact, Exam};
use crate::query::Answer;
use crate::ui::proof::State;
use crate::ui::{export, review, words};

/// The scope's condition on operations `o`.
const OPERATIONS: &str = "FROM operations o JOIN chains c ON c.id = o.chain
    WHERE (?1 IS NULL OR o.target = ?1) AND (?2 IS NULL OR c.agent_id = ?2)
    AND o.wall_ns >= ?3 AND o.wall_ns < ?4";

/// MET-01: one page of numbers.
pub fn metrics(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let count = |what: &str| -> anyhow::Result<String> {
        let found = query(exam, &format!("SELECT {what} {OPERATIONS}"), 1)?;
        Ok(found.into_iter().flatten().next().unwrap_or_default())
    };
    let large = format!(
        "count(*) FILTER (WHERE o.rows >= {} OR o.bytes_out >= {})",
        review::LARGE_ROWS,
        review::LARGE_BYTES
    );
    let mut rows = Vec::new();
    for (name, what) in [
        ("Operations", "count(*)"),
        ("Service accounts", "count(DISTINCT o.who)"),
        ("Targets", "count(DISTINCT o.target)"),
        ("Sessions with operations", "count(DISTINCT o.session_id)"),
        ("Refused", "count(*) FILTER (WHERE o.verdict = 'deny')"),
        ("Would be refused (shadow mode)", "count(*) FILTER (WHERE o.verdict = 'would_deny')"),
        ("Passed open", "count(*) FILTER (WHERE o.verdict = 'passed_open')"),
        ("Not understood", "count(*) FILTER (WHERE o.unknown <> '')"),
        ("Large results", large.as_str()),
        ("Rows that went out", "coalesce(sum(o.rows), 0)"),
        ("Failed at the server", "count(*) FILTER (WHERE o.status = 'failed')"),
    ] {
        rows.push(vec![name.to_owned(), count(what)?]);
    }
    Ok(Artifact {
        id: "MET-01",
        title: "The period in numbers",
        expectation: "objective 7, 4, and objective 10, 5: metrics, reporting to management",
        crosswalk: "NIST CSF 2.0 DE.AE-02",
        limits: "traffic of hosts without an agent",
        heads: vec!["What", "Number"],
        rows,
    })
}

/// DBA-01: what each account did to what.
pub fn by_account(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let sql = "SELECT o.who, o.target, e.action,
            CASE e.schema WHEN '' THEN e.relation ELSE e.schema || '.' || e.relation END,
            count(*), coalesce(sum(o.rows), 0), count(*) FILTER (WHERE o.verdict = 'deny'),
            count(*) FILTER (WHERE e.unbounded), min(o.wall_ns), max(o.wall_ns)
         FROM operations o JOIN chains c ON c.id = o.chain JOIN effects e ON e.idx = o.idx
         WHERE o.kind <> 'parse' AND (?1 IS NULL OR o.target = ?1)
            AND (?2 IS NULL OR c.agent_id = ?2)
            AND o.wall_ns >= ?3 AND o.wall_ns < ?4
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 4, 3";
    Ok(Artifact {
        id: "DBA-01",
        title: "What each service account did, by relation",
        expectation: "Information Security II.C.18, procedure 29: “an attack on a database through an application \
            could expose a larger … collection of data. For application accounts, management should strengthen \
            authentication and monitoring requirements”",
        crosswalk: "CAT D3.DC.An.B.4; NIST CSF 2.0 DE.CM-03, PR.DS-01",
        limits: "what a view or a function reads behind its name; rows of a statement over several \
            relations count once for each",
        heads: vec![
            "Account",
            "Target",
            "Action",
            "Relation",
            "Operations",
            "Rows",
            "Refused",
            "Without WHERE",
            "First",
            "Last",
        ],
        rows: times(query(exam, sql, 10)?, &[8, 9]),
    })
}

/// DEN-01: what was refused.
pub fn denied(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let filter = crate::query::Filter {
        verdict: Some("deny".into()),
        limit: super::ROWS_MAX,
        ..crate::query::Filter::default()
    };
    let answers = exam.reader()?.ask(filter)?;
    Ok(Artifact {
        id: "DEN-01",
        title: "Operations that were refused",
        expectation: "procedure 21.b, 22.f: logs access and events; denied and blocked operations",
        crosswalk: "CAT D3.DC.An.B.5; NIST CSF 2.0 PR.AA-05, DE.AE-06",
        limits: "what was refused by the database itself, which DBA-01 and the log have as failed",
        heads: heads(),
        rows: answers.iter().map(|answer| row(exam, answer)).collect(),
    })
}

/// SMP-01: the seeded sample.
pub fn sampled(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    Ok(Artifact {
        id: "SMP-01",
        title: "Seeded sample of operations",
        expectation: "control tests on a sample: who, what, when, from where, by which authority, with which \
            result, and that the record was not altered",
        crosswalk: "NIST CSF 2.0 RS.AN-06, RS.AN-07",
        limits: "a choice by the institution: the examiner names the seed, and can draw the same sample again",
        heads: heads(),
        rows: exam.sample()?.iter().map(|answer| row(exam, answer)).collect(),
    })
}

fn heads() -> Vec<&'static str> {
    vec![
        "Entry",
        "Time",
        "Account",
        "Program",
        "Database user",
        "Host",
        "Target",
        "What",
        "Statement",
        "Verdict",
        "Policies",
        "Rows",
        "Outcome",
        "Session",
        "Proof",
    ]
}

fn row(exam: &Exam<'_>, answer: &Answer) -> Vec<String> {
    let operation = answer.operation.clone().unwrap_or_default();
    let state = exam.walk.as_ref().map_or(State::NotRun, |walk| walk.state(answer.index));
    vec![
        answer.index.to_string(),
        answer.time.clone(),
        answer.who.clone(),
        operation.executable.clone().unwrap_or_default(),
        operation.user.clone().unwrap_or_default(),
        answer.host.clone(),
        answer.target.clone(),
        words::what(answer),
        answer.text.clone(),
        operation.verdict.clone(),
        export::policies(&operation.policies),
        operation.rows.map(|rows| rows.to_string()).unwrap_or_default(),
        words::outcome(&operation).unwrap_or_default(),
        answer.session.clone().unwrap_or_default(),
        state.words().1.to_owned(),
    ]
}
