//! Statements that try to pass a policy, and those that mean no harm: none of the first kind looks
//! harmless, none of the second kind is mistaken.

#![expect(clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use tidegate_event::{Action, Analysis, ColumnRef, Lineage, Output, Relation, Rows, Sources};
use tidegate_sql::{
    Analyzer, Catalogue, KnownColumn, KnownRelation, RelationKind, Settings, mysql,
};

const PROTECTED: [&str; 2] = ["ssn", "card_number"];

fn is_customers(relation: &Relation) -> bool {
    relation.name == "customers"
        && relation.schema.as_deref().is_none_or(|schema| schema == "public")
}

fn protected(column: &ColumnRef) -> bool {
    is_customers(&column.relation)
        && column.column.as_deref().is_none_or(|column| PROTECTED.contains(&column))
}

fn tells(sources: &Sources) -> bool {
    sources.opaque.is_some() || sources.columns.iter().any(protected)
}

fn shows(rows: &Rows) -> bool {
    match rows {
        Rows::None => false,
        Rows::Known(outputs) => outputs.iter().any(|output| match output {
            Output::One { sources, .. } | Output::Several(sources) => tells(sources),
            Output::Star(relation) => is_customers(relation),
        }),
        Rows::Cursor(_) | Rows::Prepared(_) | Rows::Opaque(_) => true,
    }
}

/// Whether the lineage has a protected column, or something that can't be told.
fn reads(lineage: &Lineage) -> bool {
    lineage.rows.iter().any(shows)
        || lineage.later.iter().any(|later| shows(&later.rows))
        || filters(lineage)
}

/// Whether a protected column decides something, or what can't be told.
fn filters(lineage: &Lineage) -> bool {
    lineage.filters.iter().any(protected) || lineage.filters_opaque.is_some()
}

/// Whether some effect is none of a reading session's.
fn writes(analysis: &Analysis) -> bool {
    analysis.effects.iter().any(|effect| {
        !matches!(
            effect.action,
            Action::Select
                | Action::CopyTo
                | Action::Set
                | Action::Transaction
                | Action::Lock
                | Action::Show
                | Action::Session
        )
    })
}

/// Whether it defines or runs something that may do anything.
fn hands_on(analysis: &Analysis) -> bool {
    use Action as A;
    analysis.effects.iter().any(|effect| {
        matches!(effect.action, A::Execute | A::Ddl | A::Grant | A::ServerFile | A::Unknown)
    })
}

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

fn lines(text: &str) -> Vec<(String, String, &str)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines = lines.map(|line| {
        let mut parts = line.split(" ;; ");
        let (Some(text), Some(mark), Some(reason), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            panic!("not of three parts: {line}");
        };
        assert!(!reason.trim().is_empty(), "without a reason: {line}");
        (text.replace('⏎', "\n"), mark.to_owned(), reason)
    });
    lines.collect()
}

#[test]
fn no_bypass_looks_harmless() {
    let analyzer = Analyzer::new();
    let lines = lines(include_str!("data/bypass.txt"));
    assert!(lines.len() >= 300, "{} lines", lines.len());
    let texts: BTreeSet<_> = lines.iter().map(|(text, ..)| text).collect();
    assert_eq!(texts.len(), lines.len(), "a statement stands there twice");
    let catalogue = catalogue();
    let path = ["public".to_owned()];
    let settings = Settings::default();
    let passes = |analysis: &Analysis, goal: &str| match goal {
        "write" => !writes(analysis),
        // Who may define, or run what is not known, may do so with any column.
        "read" | "read by catalogue" => !reads(&analysis.lineage) && !hands_on(analysis),
        "filter" => !filters(&analysis.lineage) && !hands_on(analysis),
        _ => panic!("{goal} is no goal"),
    };
    let mut missed = Vec::new();
    for (text, goal, _) in &lines {
        let plain = analyzer.analyze(text.as_bytes(), settings);
        let resolved = analyzer.resolve(text.as_bytes(), settings, &catalogue, &path);
        if goal != "read by catalogue" && passes(&plain, goal) {
            missed.push(format!("{goal}: {text}"));
        }
        if passes(&resolved, goal) {
            missed.push(format!("{goal}, with a catalogue: {text}"));
        }
    }
    assert!(missed.is_empty(), "{} pass:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn no_benign_statement_is_mistaken() {
    let analyzer = Analyzer::new();
    let mut lines = lines(include_str!("data/benign.txt"));
    lines.extend(self::lines(include_str!("data/benign_mappers.txt")));
    lines.extend(self::lines(include_str!("data/benign_regress.txt")));
    assert!(lines.len() >= 4_000, "{} lines", lines.len());
    let mut wrong = Vec::new();
    for (text, marks, _) in lines {
        let analysis = analyzer.analyze(text.as_bytes(), Settings::default());
        let marks: Vec<_> = marks.split(' ').collect();
        let mut is = Vec::new();
        if analysis.unknown.is_some() {
            is.push("unknown");
        }
        if writes(&analysis) {
            is.push("writes");
        }
        if reads(&analysis.lineage) {
            is.push("reads");
        }
        let is = if is.is_empty() { vec!["-"] } else { is };
        if is != marks {
            let effects = &analysis.effects;
            wrong.push(format!("{}: {text}\n  {effects:?} {:?}", is.join(" "), analysis.lineage));
        }
    }
    assert!(wrong.is_empty(), "{} mistaken:\n{}", wrong.len(), wrong.join("\n"));
}

/// The settings that a line of MySQL's corpora is read under.
fn mysql_settings(name: &str) -> mysql::Settings {
    let mariadb = mysql::Server { mariadb: true, version: Some(101_106) };
    let plain = mysql::Settings {
        charset: mysql::Charset::Utf8,
        server: mariadb,
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

/// Those of a corpus for which `wrong` holds.
fn mistaken_mysql(corpus: &str, least: usize, wrong: impl Fn(&Analysis) -> bool) {
    let analyzer = mysql::Analyzer::new();
    let lines = lines(corpus);
    assert!(lines.len() >= least, "{} lines", lines.len());
    let texts: BTreeSet<_> = lines.iter().map(|(text, settings, _)| (text, settings)).collect();
    assert_eq!(texts.len(), lines.len(), "a statement stands there twice");
    let analysed = lines.iter().map(|(text, settings, _)| {
        (text, analyzer.analyze(text.as_bytes(), mysql_settings(settings)))
    });
    let mistaken: Vec<String> = analysed
        .filter(|(_, analysis)| wrong(analysis))
        .map(|(text, analysis)| format!("{text}\n  {:?} {:?}", analysis.effects, analysis.unknown))
        .collect();
    assert!(mistaken.is_empty(), "{} mistaken:\n{}", mistaken.len(), mistaken.join("\n"));
}

#[test]
fn no_bypass_in_mysql_looks_harmless() {
    mistaken_mysql(include_str!("data/bypass_mysql.txt"), 200, |analysis| !writes(analysis));
}

#[test]
fn no_benign_statement_of_mysql_is_mistaken() {
    let mistaken = |analysis: &Analysis| writes(analysis) || analysis.unknown.is_some();
    mistaken_mysql(include_str!("data/benign_mysql.txt"), 100, mistaken);
}
