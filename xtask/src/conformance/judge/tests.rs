//! The judge against made-up logs with known differences.

use super::*;

fn line(kind: LineKind, text: &str, code: Option<&str>) -> Line {
    Line { kind, text: text.to_owned(), code: code.map(str::to_owned) }
}

fn record(session: &str, index: u64, kind: &str, text: &str, more: &str) -> String {
    format!(
        "{{\"index\":{index},\"seq\":{index},\"chain\":\"c\",\"session\":\"{session}\",\
         \"kind\":\"{kind}\",\"text\":\"{text}\",\"verdict\":\"allow\"{more}}}"
    )
}

const OK: &str = ",\"status\":\"ok\"";
const SYNTAX: &str = ",\"status\":\"failed\",\"code\":\"42601\",\"unknown\":\"no grammar\"";

fn evidence(lines: &[String]) -> Evidence {
    Evidence::parse(&lines.join("\n")).unwrap()
}

fn both() -> (Sessions, Vec<String>) {
    let log = [(
        "s".to_owned(),
        vec![
            line(LineKind::Statement, "SELECT 1; SELECT 2", None),
            line(LineKind::Refused, "SELEKT", Some("42601")),
            line(LineKind::Execute, "SELECT $1", None),
            line(LineKind::Function, "952", None),
        ],
    )];
    let records = vec![
        record("r", 0, "login", "user=app", OK),
        record("r", 1, "query", "SELECT 1; SELECT 2", OK),
        record("r", 2, "query", "SELEKT", SYNTAX),
        record("r", 3, "parse", "SELECT $1", OK),
        record("r", 4, "execute", "SELECT $1", OK),
        record("r", 5, "execute", "SELECT $1", ",\"status\":\"skipped\""),
        record("r", 6, "function_call", "oid=952 arguments=2", OK),
    ];
    (log.into(), records)
}

#[test]
fn a_session_that_follows_the_rules_agrees() {
    let (log, records) = both();
    let verdict = compare(&log, &evidence(&records));
    assert_eq!(verdict.faults, Vec::<String>::new());
    assert_eq!((verdict.agreeing, verdict.lines, verdict.records), (1, 4, 4));
    assert_eq!((verdict.valid, verdict.refused_by_parser, verdict.unknown_refused), (2, 1, 1));
    assert!(verdict.unknown_valid.is_empty());
}

#[test]
fn a_missing_record_a_missing_line_and_another_outcome_are_faults() {
    let (log, records) = both();
    for left_out in [1, 2, 4, 6] {
        let mut fewer = records.clone();
        fewer.remove(left_out);
        assert_eq!(compare(&log, &evidence(&fewer)).faults.len(), 1, "without {left_out}");
    }
    for left_out in 0..4 {
        let mut fewer = log.clone();
        fewer.get_mut("s").unwrap().remove(left_out);
        assert_eq!(compare(&fewer, &evidence(&records)).faults.len(), 1, "without line {left_out}");
    }
    let mut other = records.clone();
    other[2] = record("r", 2, "query", "SELEKT", OK);
    assert_eq!(compare(&log, &evidence(&other)).faults.len(), 1);
    let more = [records, vec![record("r2", 7, "query", "SELECT 9", OK)]].concat();
    assert_eq!(compare(&log, &evidence(&more)).faults.len(), 1);
}

#[test]
fn a_text_that_a_record_holds_in_part_matches_by_that_part() {
    let long = "x".repeat(RECORD_TEXT_BYTES_MAX + 1000);
    let head = "x".repeat(RECORD_TEXT_BYTES_MAX);
    assert!(is_same_text(&long, &head));
    assert!(!is_same_text(&long, &"x".repeat(100)));
}
