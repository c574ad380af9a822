//! Recorded operations under other policies.

use std::collections::BTreeMap;

use tidegate_event::Protocol;
use tidegate_mask::Mask;
use tidegate_policy::{PolicySet, Source};

use super::*;
use crate::config::ProtectConfig;
use crate::config::masking::ProtectedColumn as Column;

/// The policies that are tried.
const NEW: &str = r#"
    @id("in") permit (principal, action == Action::"login", resource) when { context.db_user == "app" };
    @id("reads") permit (principal, action in Action::"read", resource in Target::"ledger")
    unless { principal has executable && principal.executable == "/tmp/x" };
    @id("mail") permit (principal, action == Action::"unmask", resource in Class::"mail");
    @id("honey") @alert("honey") permit (principal, action, resource in Relation::"ledger/honey");
    @id("talks") permit (principal, action in Action::"talk", resource);
    @id("closed") @reason("closed") forbid (principal, action, resource in Relation::"ledger/hidden");"#;

fn report() -> Report {
    let source = Source { name: "new.cedar".to_owned(), text: NEW.to_owned() };
    let set = PolicySet::compile(&[source]).unwrap();
    let entry = |class: &str, column: &str| ProtectConfig {
        class: class.to_owned(),
        columns: vec![Column::parse(column, Protocol::Postgres).unwrap()],
        mask: Mask::Redact,
    };
    let protect = [entry("ssn", "public.c.ssn"), entry("mail", "public.c.email")];
    let target = TargetName("ledger".to_owned());
    Report::new(Bench::new(set.into(), [(&target, protect.as_slice())]).unwrap())
}

/// A line as the collector writes it (`collector/src/query.rs`), of what the analyser says now.
fn line(report: &Report, kind: &str, text: &str, verdict: &str) -> Value {
    let Operation::Statement(statement) = report.bench.statement(text, Via::Simple) else {
        panic!("a statement")
    };
    let analysis = &statement.analysis;
    let effects: Vec<Value> = written(&analysis.effects)
        .into_iter()
        .map(|effect| {
            json!({ "action": effect.action, "relation": effect.relation, "unbounded": effect.unbounded })
        })
        .collect();
    json!({
        "index": 7, "time": "2026-11-26T03:04:05Z", "received": "2026-11-26T03:04:05Z",
        "agent": "a", "host": "h", "chain": "00", "seq": 1, "who": "batch", "target": "ledger",
        "kind": kind, "text": text, "session": "00", "verdict": verdict, "reason": "",
        "policies": ["old"], "policy_digest": "00", "durability": "process",
        "effects": effects, "kinds": "select", "parameters": [], "prepared": "",
        "unknown": analysis.unknown.as_ref().map_or("", |unknown| unknown.reason.as_str()),
        "fingerprint": analysis.fingerprint.map(|print| format!("{print:016x}")),
        "user": "app", "database": "bank", "application": "", "pid": 1, "uid": 991,
        "executable": "/usr/bin/psql", "status": "ok", "outcome_index": 8
    })
}

fn replay(lines: &[Value]) -> Report {
    let mut report = report();
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    report.read(text.join("\n").as_bytes()).unwrap();
    report
}

/// What it is, its text, what was decided, what of the line is otherwise, and what comes of it.
const ROWS: &[(&str, &str, &str, &str, &str)] = &[
    ("an allowed read", "select 1 from t", "allow", "{}", "unchanged"),
    ("a refused write", "delete from t", "deny", "{}", "unchanged"),
    ("a write", "delete from t", "allow", "{}", "passed, would be refused"),
    ("a read of the closed", "select 1 from hidden", "allow", "{}", "passed, would be refused"),
    ("a refused read", "select 1 from t", "deny", "{}", "was refused, would pass"),
    (
        "a shadowed read",
        "select 1 from t",
        "would_deny",
        "{}",
        "passed in shadow mode, would be permitted",
    ),
    ("a shadowed write", "delete from t", "would_deny", "{}", "unchanged"),
    ("a number", "select ssn from c", "allow", "{}", "passed, would be masked"),
    (
        "a number, masked then",
        "select ssn from c",
        "allow",
        r#"{"unmasked": [], "masked_columns": 1}"#,
        "unchanged",
    ),
    (
        "a number, not protected then",
        "select ssn from c",
        "allow",
        r#"{"unmasked": [], "masked_columns": null}"#,
        "passed, would be masked",
    ),
    (
        "a number, clear then",
        "select ssn from c",
        "allow",
        r#"{"unmasked": ["public.c.ssn (class ssn)"]}"#,
        "passed, would be masked",
    ),
    ("an address", "select email from c", "allow", "{}", "unchanged"),
    ("a filter", "select 1 from c where ssn = $1", "allow", "{}", "passed, would be refused"),
    ("honey", "select 1 from honey", "allow", "{}", "would raise an alert"),
    ("what does not parse", "nonsense 1", "allow", "{}", "passed, would be refused"),
    ("passed open", "select 1 from t", "passed_open", "{}", "unchanged"),
    (
        "another executable",
        "select 1 from t",
        "allow",
        r#"{"executable": "/tmp/x"}"#,
        "passed, would be refused",
    ),
    // The agent saw a view's base relation, and it counts.
    (
        "a view",
        "select 1 from t",
        "allow",
        r#"{"effects": [{"action": "select", "relation": "public.hidden", "unbounded": false}]}"#,
        "passed, would be refused",
    ),
    (
        "a cut text",
        "select 1 from t where",
        "allow",
        r#"{"fingerprint": "0123456789abcdef"}"#,
        "not replayed",
    ),
    ("a text that is left out", "", "allow", r#"{"fingerprint": null}"#, "not replayed"),
    ("another protocol", "x", "allow", r#"{"kind": "teleport"}"#, "not replayed"),
    (
        "a name with dots",
        "select 1 from t",
        "allow",
        r#"{"effects": [{"action": "select", "relation": "a.b.c", "unbounded": false}]}"#,
        "not replayed",
    ),
    ("a heartbeat", "", "", r#"{"kind": "heartbeat", "verdict": null}"#, "no operation"),
];

#[test]
fn each_way_of_changing_is_told() {
    for (what, text, verdict, otherwise, expected) in ROWS {
        let mut one = line(&report(), "query", text, verdict);
        let otherwise: serde_json::Map<String, Value> = serde_json::from_str(otherwise).unwrap();
        one.as_object_mut().unwrap().extend(otherwise);
        let report = replay(&[one]);
        let way = match (&report.ways, report.not_replayed.len(), report.others, report.unchanged) {
            (ways, 0, 0, 0) => ways.keys().next().cloned().unwrap_or_default(),
            (_, 1, 0, 0) => "not replayed".to_owned(),
            (_, 0, 1, 0) => "no operation".to_owned(),
            (_, 0, 0, 1) => "unchanged".to_owned(),
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(way, *expected, "{what}");
    }
}

#[test]
fn logins_cancels_and_settings_are_replayed_too() {
    let of = |kind: &str, user: &str| {
        let mut one = line(&report(), "query", "select 1", "allow");
        one["kind"] = json!(kind);
        one["user"] = json!(user);
        one["effects"] = json!([{ "action": kind, "relation": "", "unbounded": false }]);
        one
    };
    // A setting's name may hold a dot and has no schema.
    let mut set = line(&report(), "query", "set a.b = 1", "allow");
    set["index"] = json!(9);
    let lines = [
        of("login", "app"),
        of("login", "root"),
        of("cancel", "app"),
        of("function_call", "app"),
        set,
    ];
    let report = replay(&lines);
    let whys: BTreeMap<&str, &Vec<u64>> =
        report.not_replayed.iter().map(|(why, places)| (why.as_str(), places)).collect();
    assert_eq!(whys, BTreeMap::new());
    assert_eq!((report.unchanged, report.changed), (3, 2));
}

#[test]
fn equal_changes_are_told_once_and_in_words() {
    let of = |text: &str| line(&report(), "execute", text, "allow");
    let cut = {
        let mut one = of("select 1 from t where a = 'x");
        one["fingerprint"] = json!("00");
        one
    };
    let lines = [
        of("delete from t where a = 1"),
        of("delete from t where a = 2"),
        of("select ssn from c"),
        cut,
    ];
    let report = replay(&lines);
    let words = report.words(50);
    for expected in [
        "0 operations would be decided as they were, 3 otherwise",
        "1 NOT REPLAYED, its text was cut or masked",
        "(index 7)",
        "batch to ledger (execute), 2 times, first at index 7: delete from t where a = 1",
        "  allow -> deny",
        "  since no policy permits delete on t by batch",
        "  masked: public.c.ssn (class ssn)",
    ] {
        assert!(words.contains(expected), "{expected} is not in:\n{words}");
    }
    assert!(report.words(1).ends_with(".. and 1 more; --limit lists them"));
    let json = report.json(1);
    assert_eq!(json["changes"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["changes"][0]["times"], json!(2));
}

#[test]
fn what_is_no_record_is_an_error() {
    for (text, expected) in [("nonsense", "line 1 is no record"), ("{}", "line 1 is no record")] {
        let error = format!("{:#}", report().read(text.as_bytes()).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    let long = "x".repeat(usize::try_from(LINE_BYTES_MAX).unwrap() + 1);
    let error = format!("{:#}", report().read(long.as_bytes()).unwrap_err());
    assert!(error.contains("line 1 is longer than"), "{error}");
}
