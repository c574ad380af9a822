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

/// A bench whose target speaks MySQL, with the same columns protected.
fn mysql_bench() -> Bench {
    let set = super::super::compile(&[root().join(POLICY)]).unwrap();
    let entry = |class: &str, column: &str| ProtectConfig {
        class: class.to_owned(),
        columns: vec![Column::parse(column, Protocol::Mysql).unwrap()],
        mask: Mask::Redact,
    };
    let protect = [entry("ssn", "bank.customers.ssn"), entry("card", "bank.customers.card_number")];
    Bench::new(set.into(), [(&TargetName("ledger".to_owned()), protect.as_slice())]).unwrap()
}

/// The same tables in a database of MySQL's, with views on them.
fn mysql_catalogue() -> Arc<Catalogue> {
    let mut relations: Vec<KnownRelation> =
        catalogue().relations().map(|one| KnownRelation::clone(one)).collect();
    // Columns that statements of the corpora name beside those of PostgreSQL's.
    let more = "a b c doc name created delete unknown_column".split(' ');
    let more = more.zip(100..).map(|(name, number)| KnownColumn {
        number,
        name: name.to_owned(),
        type_oid: 0,
        generated: false,
    });
    for relation in &mut relations {
        relation.name.schema = Some("bank".to_owned());
        if relation.name.name == "orders" {
            relation.columns.extend(more.clone());
        }
    }
    let views = [
        (
            "clients",
            "id number",
            "select `bank`.`customers`.`id` AS `id`,`bank`.`customers`.`ssn` AS `number` from `bank`.`customers`",
        ),
        (
            "tails",
            "tail",
            "select right(`bank`.`customers`.`ssn`,4) AS `tail` from `bank`.`customers`",
        ),
        ("nested", "t", "select `clients`.`number` AS `t` from `bank`.`clients`"),
        (
            "names",
            "id name",
            "select `c`.`id` AS `id`,`c`.`name` AS `name` from `bank`.`customers` `c`",
        ),
    ];
    for (oid, (name, columns, definition)) in (100..).zip(views) {
        let named = (1..).zip(columns.split(' ')).map(|(number, name)| KnownColumn {
            number,
            name: name.to_owned(),
            type_oid: 0,
            generated: false,
        });
        relations.push(KnownRelation {
            oid,
            name: Relation { schema: Some("bank".to_owned()), name: name.to_owned() },
            kind: RelationKind::View,
            columns: named.collect(),
            definition: Some(definition.to_owned()),
        });
    }
    let system = ["mysql", "performance_schema", "sys"].map(str::to_owned);
    Arc::new(Catalogue::new(2, relations, Vec::new()).with_system(system))
}

/// What becomes of statements of MySQL's under the policy and its masks.
struct MysqlJudge {
    bench: Bench,
    analyzer: mysql::Analyzer,
    catalogue: Arc<Catalogue>,
    decider: Decider,
}

impl MysqlJudge {
    fn new() -> Self {
        let bench = mysql_bench();
        let names = ("analyst".to_owned(), "bank".to_owned());
        let principal = Principal { name: "analyst".to_owned(), uid: 991 };
        let mut subject = subject(principal, TargetName("ledger".to_owned()), Mode::Enforce, names);
        subject.protocol = Protocol::Mysql;
        let decider = Decider::new(Arc::clone(&bench.set), subject);
        Self { bench, analyzer: mysql::Analyzer::new(), catalogue: mysql_catalogue(), decider }
    }

    fn fate(&self, text: &str, settings: &str, known: bool) -> Fate {
        let settings = mysql_settings(settings);
        let mut operation = self.bench.statement(text, Via::Simple);
        let Operation::Statement(statement) = &mut operation else { panic!("a statement") };
        statement.analysis = if known {
            self.analyzer.resolve(text.as_bytes(), settings, &self.catalogue, Some("bank"))
        } else {
            self.analyzer.analyze(text.as_bytes(), settings)
        };
        let protection = self.bench.protections.get(&TargetName("ledger".to_owned())).unwrap();
        let lineage = &statement.analysis.lineage;
        let catalogue = known.then_some(&*self.catalogue);
        let now = touched(protection, lineage, catalogue).touched.unwrap();
        let decision = self.decider.explain(&operation, Some(&now)).decision;
        assert_eq!(decision.unmasked, [], "{text}");
        Fate { decision, covered: !now.shown().is_empty() || now.opaque() }
    }
}

#[test]
fn no_evasion_of_masks_in_mysql_gets_through() {
    let (judge, corpus) = (MysqlJudge::new(), corpus("bypass_masked_mysql.txt"));
    assert!(corpus.len() >= 400, "{} lines", corpus.len());
    let mut through = Vec::new();
    for (text, mark) in &corpus {
        let (settings, goal) = mark.split_once(' ').unwrap();
        for known in [false, true] {
            if !known && goal == "read by catalogue" {
                continue;
            }
            let Fate { decision, covered } = judge.fate(text, settings, known);
            let masked = covered && goal.starts_with("read");
            if decision.verdict != Verdict::Deny && !masked {
                through.push(format!("{goal}, catalogue {known}: {text}"));
            }
        }
    }
    assert!(through.is_empty(), "{} get through:\n{}", through.len(), through.join("\n"));
}

#[test]
fn no_evasion_in_mysql_gets_through() {
    let through = judged_otherwise("bypass_mysql.txt", true, 200);
    assert!(through.is_empty(), "{} get through:\n{}", through.len(), through.join("\n"));
}

#[test]
fn nothing_harmless_in_mysql_is_refused() {
    let refused = judged_otherwise("benign_mysql.txt", false, 325);
    assert!(refused.is_empty(), "{} are refused:\n{}", refused.len(), refused.join("\n"));
}

/// Harmless, and withheld all the same where something is protected: what they show may hold values of statements
/// before.
const WITHHELD: [&str; 4] =
    ["show warnings", "show errors", "show processlist", "select @a, @@sql_mode"];

#[test]
fn nothing_harmless_in_mysql_is_masked_either() {
    let (judge, corpus) = (MysqlJudge::new(), corpus("benign_mysql.txt"));
    let mut wrong = Vec::new();
    for (text, settings) in &corpus {
        let Fate { decision, covered } = judge.fate(text, settings, true);
        let withheld = WITHHELD.contains(&text.as_str());
        if decision.verdict == Verdict::Deny || covered != withheld {
            wrong.push(format!("{}, covered {covered}: {text}", decision.reason));
        }
    }
    assert!(wrong.is_empty(), "{} are mistaken:\n{}", wrong.len(), wrong.join("\n"));
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
