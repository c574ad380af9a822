//! Artifacts about the log itself: coverage, age, verification, export.

use rusqlite::params_from_iter;

use super::{Artifact, Exam};
use crate::clock::rfc3339;
use crate::ui::read::newest_checkpoint;
use crate::ui::{integrity, page};

/// LOG-01: who reports, and how fast.
pub fn coverage(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let reader = exam.reader()?;
    let mut rows = Vec::new();
    for agent in integrity::coverage(exam.context, &exam.scope)? {
        let mut delays: Vec<i64> = reader
            .db
            .prepare(
                "SELECT max(0, o.received_ns - o.wall_ns) FROM operations o
                 JOIN chains c ON c.id = o.chain WHERE c.agent_id = ?1
                 AND o.wall_ns >= ?2 AND o.wall_ns < ?3",
            )?
            .query_map(
                rusqlite::params![agent.agent, exam.scope.since_ns, exam.scope.until_ns],
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?;
        delays.sort_unstable();
        let at = |percent: usize| {
            let place = delays.len().saturating_sub(1).saturating_mul(percent) / 100;
            delays.get(place).map(|ns| page::duration(*ns)).unwrap_or_default()
        };
        let time = |ns: Option<i64>| ns.map_or_else(|| "never".to_owned(), rfc3339);
        rows.push(vec![
            agent.agent.clone(),
            agent.host.clone(),
            rfc3339(agent.enrolled_ns),
            time(agent.received_ns),
            time(agent.heartbeat_ns),
            agent.records.to_string(),
            delays.len().to_string(),
            at(50),
            at(99),
            agent.gaps.to_string(),
            agent.recovered.to_string(),
            agent.bypasses.to_string(),
            agent.forks.to_string(),
        ]);
    }
    Ok(Artifact {
        id: "LOG-01",
        title: "Coverage: agents that report, delay, gaps",
        expectation: "Information Security II.C.22 and Appendix A, objective 6, procedure 35: \
            “central logging repository, timely transmission of log files, and effective log analysis”",
        crosswalk: "CAT D2.MA.Ma.B.1; NIST CSF 2.0 PR.PS-04, DE.CM-09",
        limits: "hosts that never had an agent: there is no roster; the delay is between two clocks",
        heads: vec![
            "Agent",
            "Host",
            "Enrolled",
            "Last received",
            "Last heartbeat",
            "Records, ever",
            "Operations in the period",
            "Delay, median",
            "Delay, 99 %",
            "Gaps declared, ever",
            "Unclean ends, ever",
            "Bypass records, ever",
            "Forks, ever",
        ],
        rows,
    })
}

/// LOG-02: the oldest that can be had.
pub fn oldest(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let reader = exam.reader()?;
    let mut rows = Vec::new();
    for (class, table) in [("Operations", "operations"), ("Other records", "lifecycle")] {
        let sql = format!(
            "SELECT count(*), min(o.idx), min(o.wall_ns), max(o.wall_ns) FROM {table} o
             JOIN chains c ON c.id = o.chain WHERE (?1 IS NULL OR o.target = ?1)
             AND (?2 IS NULL OR c.agent_id = ?2) AND ?3 IS ?3 AND ?4 IS ?4"
        );
        let row = reader.db.query_row(&sql, params_from_iter(exam.values()), |row| {
            let time = |at: usize| {
                row.get::<_, Option<i64>>(at).map(|ns| ns.map(rfc3339).unwrap_or_default())
            };
            Ok(vec![
                class.to_owned(),
                row.get::<_, i64>(0)?.to_string(),
                row.get::<_, Option<i64>>(1)?.map(|n| n.to_string()).unwrap_or_default(),
                time(2)?,
                time(3)?,
            ])
        })?;
        rows.push(row);
    }
    Ok(Artifact {
        id: "LOG-02",
        title: "Retention: the oldest record that can be had, by class",
        expectation: "procedure 35.a: “log retention policies that meet incident response and analysis needs” \
            (the handbook names no period)",
        crosswalk: "PCI DSS 4 req. 10.5.1; 23 NYCRR 500.06; CAT D2.MA.Ma.B.2",
        limits: "a policy: this version removes nothing, so the oldest record is the log's first",
        heads: vec!["Class", "Records", "First log entry", "Oldest", "Newest"],
        rows,
    })
}

/// LOG-03: the verification's certificate.
pub fn certificate(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("Log (origin)", exam.context.ui.config.collector.origin.clone());
    if let Some((checkpoint, _)) = newest_checkpoint(&exam.context.ui.paths)? {
        row("Newest checkpoint: entries", checkpoint.size.to_string());
        row("Newest checkpoint: root", hex::encode(checkpoint.root));
    }
    match &exam.walk {
        None => row("Verification", "not run for this pack: run tidegate-collector verify".into()),
        Some(walk) => {
            let report = &walk.report;
            row("Verified at", rfc3339(crate::clock::signed_ns(walk.at_ns)));
            row("Verdict", report.verdict().to_owned());
            row("Exit code of verify", report.exit_code().to_string());
            row("Entries walked", report.entries.to_string());
            row("Records, under seals", format!("{} under {}", report.records, report.seals));
            row("Chains", report.chains.len().to_string());
            row("Checkpoints checked", report.checkpoints_checked.to_string());
            row("Root", hex::encode(report.root));
            for finding in report.findings.iter().take(super::ROWS_MAX) {
                row("Finding", finding.to_string());
            }
            for line in &report.not_proven {
                row("Not proven", line.clone());
            }
        }
    }
    let all = exam.context.ui.config.witnesses.len();
    let witnessed = exam.walk.as_ref().map_or(0, |walk| walk.report.witnessed_size);
    row("Witnesses", format!("{all}, whose quorum signed over the first {witnessed} entries"));
    Ok(Artifact {
        id: "LOG-03",
        title: "Verification of the whole log",
        expectation: "procedure 35.b and II.C.22: integrity of log files; “disallow any modification to \
            previously written data”",
        crosswalk: "CAT D2.MA.Ma.B.1; NIST CSF 2.0 PR.DS-01, RS.AN-07",
        limits: "an independent judgement: this is the collector's own; run verify, or another verifier, on a copy",
        heads: vec!["What", "Value"],
        rows,
    })
}

/// LOG-07: what the SIEM got.
pub fn exports(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let indexed = exam.reader()?.indexed()?;
    let mut rows = Vec::new();
    for export in &exam.context.ui.config.export {
        let (next, dead) = exam.context.ui.state.export_cursor(&export.name)?;
        rows.push(vec![
            export.name.clone(),
            next.to_string(),
            indexed.saturating_sub(next).to_string(),
            dead.to_string(),
        ]);
    }
    Ok(Artifact {
        id: "LOG-07",
        title: "Feed to the SIEM: how far each receiver is",
        expectation: "procedure 35.d: log files are collected, aggregated, analysed and correlated",
        crosswalk: "CAT D3.DC.Ev.B.2; NIST CSF 2.0 DE.AE-03",
        limits: "what the receiver did with it",
        heads: vec![
            "Receiver",
            "Delivered up to entry",
            "Entries behind",
            "Given up (dead letters)",
        ],
        rows,
    })
}
