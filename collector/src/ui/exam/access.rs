//! Artifacts about accounts and people: inventory, sharing, looks, reviews, roles.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;

use super::{Artifact, Exam};
use crate::clock::rfc3339;
use crate::ui::looks;
use crate::ui::read::Reader;
use crate::ui::roles::Role;

/// The scope's condition on sessions `s`, by the time of their opening.
const SESSIONS: &str = "FROM sessions s JOIN chains c ON c.id = s.chain
    WHERE (?1 IS NULL OR s.target = ?1) AND (?2 IS NULL OR c.agent_id = ?2)
    AND s.opened_ns >= ?3 AND s.opened_ns < ?4";

/// NHI-01: the service accounts that were seen.
pub fn accounts(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let sql = format!(
        "SELECT s.principal, group_concat(DISTINCT c.host), group_concat(DISTINCT s.uid),
            group_concat(DISTINCT coalesce(s.executable, '(' || s.comm || ')')),
            group_concat(DISTINCT s.db_user), group_concat(DISTINCT s.target), count(*),
            min(s.opened_ns), max(s.opened_ns) {SESSIONS} GROUP BY 1 ORDER BY 1"
    );
    let rows = query(exam, &sql, 9)?;
    Ok(Artifact {
        id: "NHI-01",
        title: "Service accounts that were seen, with program, database user and target",
        expectation: "Authentication and Access (2021), inventory: “service accounts, applications, and devices”; \
            Information Security II.C.15, procedure 20.d: a unique ID for each privilege",
        crosswalk: "CAT D3.PC.Am.B.1, B.2; NIST CSF 2.0 PR.AA-01, ID.AM-03",
        limits: "accounts that did nothing in the period, owner and purpose of an account",
        heads: vec![
            "Account",
            "Hosts",
            "Unix user",
            "Programs",
            "Database users",
            "Targets",
            "Sessions",
            "First session",
            "Last session",
        ],
        rows: times(rows, &[7, 8]),
    })
}

/// PAM-03: one database user for several accounts.
pub fn shared(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let sql = format!(
        "SELECT s.target, s.db_user, count(DISTINCT s.principal), group_concat(DISTINCT s.principal),
            count(*) {SESSIONS} AND s.db_user IS NOT NULL GROUP BY 1, 2
         HAVING count(DISTINCT s.principal) > 1 ORDER BY 1, 2"
    );
    Ok(Artifact {
        id: "PAM-03",
        title: "Database users that more than one service account used",
        expectation: "procedure 20.d: “prohibiting shared privileged user accounts”",
        crosswalk: "CAT D3.PC.Am.B.6; NIST CSF 2.0 PR.AA-05",
        limits: "sharing outside of protected hosts",
        heads: vec!["Target", "Database user", "Accounts", "Which", "Sessions"],
        rows: query(exam, &sql, 5)?,
    })
}

/// LOG-06: who looked at evidence.
pub fn looks(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let (from, until) = (exam.period.from_ns, exam.period.until_ns);
    let me = &exam.context.user;
    let whole = me.scope.is_everything();
    let rows = looks::looks(&exam.context.ui, Some(from), Some(until))?
        .into_iter()
        .map(|look| {
            let range = look.what.range.map(|(first, last)| format!("{first} to {last}"));
            vec![
                look.index.map_or_else(|| "in a second".to_owned(), |index| index.to_string()),
                rfc3339(look.at_ns),
                look.who.clone(),
                look.what.role,
                look.what.page,
                if whole || look.who == me.name {
                    look.what.question
                } else {
                    "not shown: it may be outside of your scope".to_owned()
                },
                look.what.answers.to_string(),
                range.unwrap_or_default(),
            ]
        })
        .collect();
    Ok(Artifact {
        id: "LOG-06",
        title: "Every look at evidence through the review pages",
        expectation: "procedure 35.b: restrict access to log files; procedure 27.a: applications “provide … audit \
            trails of security and access changes, and user activity logs”",
        crosswalk: "NIST CSF 2.0 PR.AA-05, DE.CM-03",
        limits: "reading the files on the collector's own machine by other programs; looks by the command line, which are \
            acts of their own in the log (ask for the kind administration)",
        heads: vec!["Entry", "Time", "Who", "Role", "Page", "Question", "Answers", "Log entries"],
        rows,
    })
}

/// REV-01: sign-offs, and whether the reviewer was somebody else.
pub fn reviews(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let period = exam.period.from_ns..exam.period.until_ns;
    let reader = exam.reader()?;
    let mine = Reader::open(&exam.context.ui, &exam.context.user.scope)?;
    let mut rows = Vec::new();
    for sign in looks::sign_offs(&exam.context.ui)? {
        let signed_in = period.contains(&sign.at_ns);
        if mine.at(&[sign.what.entry])?.is_empty() {
            continue;
        }
        let about_it = !reader.at(&[sign.what.entry])?.is_empty();
        if !signed_in && !about_it {
            continue;
        }
        let independent = if sign.who == sign.what.principal { "NO" } else { "yes" };
        rows.push(vec![
            rfc3339(sign.at_ns),
            sign.who,
            sign.what.entry.to_string(),
            sign.what.principal,
            independent.to_owned(),
            sign.what.outcome,
            sign.what.comment,
        ]);
    }
    Ok(Artifact {
        id: "REV-01",
        title: "Reviews that were signed off, in or about this period",
        expectation: "procedure 35.c: “logging practices should be reviewed periodically by an independent \
            party”; objective 8, 4.f: “process to independently monitor administrators and other users with \
            higher privileges”",
        crosswalk: "CAT D3.DC.An.B.3; NIST CSF 2.0 DE.AE-02",
        limits: "that the reviewer is independent in other ways than by name and by what the link said",
        heads: vec![
            "Time",
            "Reviewer",
            "Entry",
            "Account",
            "Another than the account",
            "Outcome",
            "Comment",
        ],
        rows,
    })
}

/// SOD-01: who has which role.
pub fn roles(exam: &Exam<'_>) -> anyhow::Result<Artifact> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, role, ..) in exam.context.ui.store.accounts()? {
        by_name.entry(name).or_default().push(role);
    }
    let mut rows: Vec<Vec<String>> = Role::ALL
        .iter()
        .map(|role| vec![format!("role {}", role.name()), role.meaning().to_owned(), String::new()])
        .collect();
    rows.extend(by_name.into_iter().map(|(name, roles)| {
        let apart = roles.len() == 1 || !roles.iter().any(|role| role == Role::Admin.name());
        let verdict = if apart { "yes" } else { "NO: admin and reader" };
        vec![name, roles.join(", "), verdict.to_owned()]
    }));
    Ok(Artifact {
        id: "SOD-01",
        title: "Roles of the review pages, and who has had them",
        expectation: "procedure 8.d; Interagency Guidelines, Appendix B, III.C.1: segregation of duties, dual control",
        crosswalk: "NIST CSF 2.0 GV.RR-02",
        limits: "who may log in to the collector's machine",
        heads: vec!["Role or name", "Means or roles", "Duties apart"],
        rows,
    })
}

/// Rows of text, however each column is typed.
pub fn query(exam: &Exam<'_>, sql: &str, columns: usize) -> anyhow::Result<Vec<Vec<String>>> {
    let reader = exam.reader()?;
    let mut statement = reader.db.prepare(sql)?;
    let rows = statement.query_map(params_from_iter(exam.values()), |row| {
        (0..columns).map(|at| row.get_ref(at).map(text)).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn text(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(n) => n.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => hex::encode(bytes),
    }
}

/// Nanoseconds in these columns become times.
pub fn times(mut rows: Vec<Vec<String>>, columns: &[usize]) -> Vec<Vec<String>> {
    for row in &mut rows {
        for at in columns {
            if let Some(cell) = row.get_mut(*at)
                && let Ok(ns) = cell.parse::<i64>()
            {
                *cell = rfc3339(ns);
            }
        }
    }
    rows
}
