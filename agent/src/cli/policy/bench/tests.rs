//! Two corpora under one and the same shipped policy: no evasion gets through, nothing harmless is
//! refused or masked.

use std::path::Path;

use tidegate_event::Rows;
use tidegate_mask::Mask;
use tidegate_policy::{Decision, Verdict};
use tidegate_sql::{KnownColumn, KnownRelation, RelationKind, mysql};

use super::*;
use crate::config::masking::ProtectedColumn as Column;

/// What denies writes and unknowns, and masks.
const POLICY: &str = "../docs/policies/read-only-masked.cedar";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bench() -> Bench {
    let set = super::super::compile(&[root().join(POLICY)]).unwrap();
    let entry = |class: &str, column: &str| ProtectConfig {
        class: class.to_owned(),
        columns: vec![Column::parse(column, Protocol::Postgres).unwrap()],
        mask: Mask::Redact,
    };
    let protect =
        [entry("ssn", "public.customers.ssn"), entry("card", "public.customers.card_number")];
    Bench::new(set.into(), [(&TargetName("ledger".to_owned()), protect.as_slice())]).unwrap()
}

/// The tables of the corpora, as in `crates/sql/tests/corpora.rs`.
fn catalogue() -> Catalogue {
    let tables = [
        ("customers", "id name ssn card_number city email phone doc"),
        ("orders", "id customer_id total status ref"),
        ("items", "id order_id sku price quantity"),
        ("people", "id ssn"),
        ("notes", "a"),
    ];
    let table = |(oid, (name, columns)): (u32, (&str, &str))| KnownRelation {
        oid,
        name: Relation { schema: Some("public".to_owned()), name: name.to_owned() },
        kind: RelationKind::Table,
        columns: (1..)
            .zip(columns.split(' '))
            .map(|(number, name)| KnownColumn {
                number,
                name: name.to_owned(),
                type_oid: 25,
                generated: false,
            })
            .collect(),
        definition: None,
    };
    Catalogue::new(1, (1..).zip(tables).map(table).collect(), Vec::new())
}

/// The statements of a corpus with their mark; `TIDEGATE_CORPORA` names another directory with files
/// of the same names, to try statements that aren't in ours.
fn corpus(name: &str) -> Vec<(String, String)> {
    let directory = std::env::var_os("TIDEGATE_CORPORA");
    let directory = directory.map_or_else(|| root().join("../crates/sql/tests/data"), Into::into);
    let text = std::fs::read_to_string(directory.join(name)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<&str> = line.split(" ;; ").collect();
            let [text, mark, _reason] = parts.as_slice() else {
                panic!("not of three parts: {line}")
            };
            (text.replace('⏎', "\n"), (*mark).to_owned())
        })
        .collect()
}

/// What becomes of a statement.
struct Fate {
    decision: Decision,
    /// Whether something of its result, now or when it is fetched, is masked or can't be resolved.
    covered: bool,
}

fn fate(bench: &Bench, text: &str, catalogue: Option<&Catalogue>) -> Fate {
    let names = ("analyst".to_owned(), "bank".to_owned());
    let target = TargetName("ledger".to_owned());
    let principal = Principal { name: "analyst".to_owned(), uid: 991 };
    let subject = subject(principal, target.clone(), Mode::Enforce, names);
    let mut operation = bench.statement(text, Via::Simple);
    let Operation::Statement(statement) = &mut operation else { panic!("a statement") };
    if let Some(catalogue) = catalogue {
        let (bytes, path) = (text.as_bytes(), ["public".to_owned()]);
        let settings = Settings::default();
        statement.analysis = bench.analyzer.resolve(bytes, settings, catalogue, &path);
    }
    let lineage = &statement.analysis.lineage;
    let protection = bench.protections.get(&target).unwrap();
    let now = touched(protection, lineage, catalogue).touched.unwrap();
    let later: Vec<Rows> = lineage.later.iter().map(|later| later.rows.clone()).collect();
    let later = Lineage { rows: later, ..Lineage::default() };
    let later = touched(protection, &later, catalogue).touched.unwrap();
    let decider = Decider::new(Arc::clone(&bench.set), subject);
    let decision = decider.explain(&operation, Some(&now)).decision;
    assert_eq!(decision.unmasked, [], "{text}");
    assert!(!decision.unseen_unmasked, "{text}");
    let covered = [&now, &later].iter().any(|one| !one.shown().is_empty() || one.opaque());
    Fate { decision, covered }
}

#[test]
fn no_evasion_gets_through() {
    let (bench, catalogue) = (bench(), catalogue());
    let corpus = corpus("bypass.txt");
    let ours = std::env::var_os("TIDEGATE_CORPORA").is_none();
    assert!(!ours || corpus.len() >= 1_300, "{} lines", corpus.len());
    let mut through = Vec::new();
    for (text, goal) in &corpus {
        for known in [None, Some(&catalogue)] {
            if known.is_none() && goal == "read by catalogue" {
                continue;
            }
            let Fate { decision, covered } = fate(&bench, text, known);
            let masked = covered && matches!(goal.as_str(), "read" | "read by catalogue");
            let stopped = decision.verdict == Verdict::Deny || masked;
            if !stopped {
                through.push(format!("{goal}, catalogue {}: {text}", known.is_some()));
            }
        }
    }
    assert!(through.is_empty(), "{} get through:\n{}", through.len(), through.join("\n"));
}

/// The settings that a line of MySQL's corpora is read under.
fn mysql_settings(name: &str) -> mysql::Settings {
    let plain = mysql::Settings {
        charset: mysql::Charset::Utf8,
        server: mysql::Server { mariadb: true, version: Some(101_106) },
        ..mysql::Settings::default()
    };
    match name {
        "mariadb" => plain,
        "mysql" => mysql::Settings {
            server: mysql::Server { mariadb: false, version: Some(80_039) },
            ..plain
        },
        "ansi" => mysql::Settings { ansi_quotes: true, ..plain },
        "noescape" => mysql::Settings { no_backslash_escapes: true, ..plain },
        "gbk" => mysql::Settings { charset: mysql::Charset::Other, ..plain },
        _ => panic!("{name} are no settings"),
    }
}

/// Those of a corpus in MySQL's dialect whose verdict isn't as `denied` says, under the same policy.
fn judged_otherwise(name: &str, denied: bool, least: usize) -> Vec<String> {
    let (bench, analyzer) = (bench(), mysql::Analyzer::new());
    let corpus = corpus(name);
    assert!(corpus.len() >= least, "{} lines", corpus.len());
    let names = ("analyst".to_owned(), "bank".to_owned());
    let principal = Principal { name: "analyst".to_owned(), uid: 991 };
    let target = TargetName("ledger".to_owned());
    let mut subject = subject(principal, target, Mode::Enforce, names);
    subject.protocol = Protocol::Mysql;
    let decider = Decider::new(Arc::clone(&bench.set), subject);
    let verdict = |text: &str, settings: &str| {
        let mut operation = bench.statement(text, Via::Simple);
        let Operation::Statement(statement) = &mut operation else { panic!("a statement") };
        statement.analysis = analyzer.analyze(text.as_bytes(), mysql_settings(settings));
        decider.explain(&operation, None).decision.verdict
    };
    let corpus = corpus.into_iter();
    let wrong = corpus.filter(|(text, how)| (verdict(text, how) == Verdict::Deny) != denied);
    wrong.map(|(text, how)| format!("{how}: {text}")).collect()
}

#[test]
fn no_evasion_in_mysql_gets_through() {
    let through = judged_otherwise("bypass_mysql.txt", true, 200);
    assert!(through.is_empty(), "{} get through:\n{}", through.len(), through.join("\n"));
}

#[test]
fn nothing_harmless_in_mysql_is_refused() {
    let refused = judged_otherwise("benign_mysql.txt", false, 100);
    assert!(refused.is_empty(), "{} are refused:\n{}", refused.len(), refused.join("\n"));
}

#[test]
fn nothing_harmless_is_refused_or_masked() {
    let bench = bench();
    let mut corpus = corpus("benign.txt");
    let ours = std::env::var_os("TIDEGATE_CORPORA").is_none();
    if ours {
        corpus.extend(self::corpus("benign_mappers.txt"));
        corpus.extend(self::corpus("benign_regress.txt"));
    }
    let mut wrong = Vec::new();
    let mut harmless = 0_usize;
    for (text, marks) in &corpus {
        let Fate { decision, covered } = fate(&bench, text, None);
        let writes = marks.split(' ').any(|mark| mark == "writes");
        let reads = marks.split(' ').any(|mark| mark == "reads");
        harmless += usize::from(!writes && !reads);
        let refused = decision.verdict == Verdict::Deny;
        if refused != writes || (!refused && covered != reads) {
            wrong.push(format!("{marks}: {}, {text}", decision.reason));
        }
    }
    assert!(wrong.is_empty(), "{} are mistaken:\n{}", wrong.len(), wrong.join("\n"));
    assert!(!ours || harmless >= 3_900, "only {harmless} are harmless");
}
