//! Where the columns of MySQL's and MariaDB's statements go, as tables of data: by names alone, and through
//! a catalogue.

#[path = "support/notation.rs"]
mod notation;

use std::sync::Arc;

use notation::written;
use tidegate_event::{Analysis, Relation};
use tidegate_sql::mysql::{Analyzer, Charset, Server, Settings, literals};
use tidegate_sql::{Catalogue, KnownColumn, KnownRelation, RelationKind};

const SETTINGS: Settings = Settings {
    ansi_quotes: false,
    no_backslash_escapes: false,
    charset: Charset::Utf8,
    server: Server { mariadb: true, version: Some(101_106) },
};

fn relation(oid: u32, of: &str, columns: &str, definition: Option<&str>) -> KnownRelation {
    let kind = if definition.is_some() { RelationKind::View } else { RelationKind::Table };
    let (schema, name) = of.split_once('.').unwrap_or(("bank", of));
    let columns = (1..).zip(columns.split_whitespace()).map(|(number, name)| KnownColumn {
        number,
        name: name.to_owned(),
        type_oid: 0,
        generated: false,
    });
    KnownRelation {
        oid,
        name: Relation { schema: Some(schema.to_owned()), name: name.to_owned() },
        kind,
        columns: columns.collect(),
        definition: definition.map(str::to_owned),
    }
}

fn catalogue() -> Arc<Catalogue> {
    let view = |oid, name, columns, text| relation(oid, name, columns, Some(text));
    Arc::new(Catalogue::new(
        1,
        vec![
            relation(1, "customers", "id name ssn city", None),
            relation(2, "orders", "id customer_id total", None),
            relation(3, "audit.customers", "at who", None),
            view(
                4,
                "people",
                "id label",
                "select `bank`.`customers`.`id` AS `id`,`bank`.`customers`.`ssn` AS `label` from \
                 `bank`.`customers` where `bank`.`customers`.`city` = 'x'",
            ),
            view(
                5,
                "folk",
                "a b",
                "select `people`.`id` AS `a`,concat(`people`.`label`,'x') AS `b` from `bank`.`people`",
            ),
            view(6, "round", "a", "select `about`.`a` AS `a` from `bank`.`about`"),
            view(7, "about", "a", "select `round`.`a` AS `a` from `bank`.`round`"),
            view(8, "broken", "a", "select from from"),
        ],
        Vec::new(),
    ))
}

/// Compares each row of a table, and shows those that read otherwise.
fn check(table: &str, least: usize, columns: usize, read: impl Fn(&str) -> Vec<String>) {
    let lines: Vec<_> =
        table.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).collect();
    let mut wrong = Vec::new();
    for line in &lines {
        let mut parts = line.split(";;").map(str::trim);
        let text = parts.next().unwrap_or_default();
        let mut expected: Vec<_> = parts.map(str::to_owned).collect();
        expected.resize(columns, String::new());
        let is = read(text);
        if is != expected {
            wrong.push(format!("{text} ;; {}", is.join(" ;; ")));
        }
    }
    assert!(wrong.is_empty(), "these rows read otherwise:\n{}", wrong.join("\n"));
    assert!(lines.len() >= least, "{} rows", lines.len());
}

fn effects(analysis: &Analysis) -> String {
    let written = analysis.effects.iter().map(|effect| {
        let bound = if effect.bounded { "" } else { "!" };
        let on = effect.relation.as_ref().map_or_else(String::new, |on| format!(" {on}"));
        format!("{}{bound}{on}", effect.action.name())
    });
    written.collect::<Vec<_>>().join(", ")
}

#[test]
fn every_row_has_the_lineage_that_it_says() {
    let analyzer = Analyzer::new();
    check(include_str!("data/lineage_mysql.txt"), 120, 3, |text| {
        written(&analyzer.analyze(text.as_bytes(), SETTINGS).lineage).to_vec()
    });
}

#[test]
fn a_catalogue_spells_stars_out_and_looks_behind_views() {
    let (analyzer, catalogue) = (Analyzer::new(), catalogue());
    check(include_str!("data/catalogue_mysql.txt"), 30, 4, |text| {
        let read = analyzer.resolve(text.as_bytes(), SETTINGS, &catalogue, Some("Bank"));
        written(&read.lineage).into_iter().chain([effects(&read)]).collect()
    });
}

#[test]
fn another_database_is_another_relation() {
    let (analyzer, catalogue) = (Analyzer::new(), catalogue());
    let read = |database| {
        let text = b"select * from customers";
        written(&analyzer.resolve(text, SETTINGS, &catalogue, database).lineage)[0].clone()
    };
    assert_eq!(read(Some("audit")), "at=audit.customers.at, who=audit.customers.who");
    assert_eq!(read(Some("bank")).split(',').count(), 4);
    assert_eq!(read(Some("other")), "other.customers.*");
    assert_eq!(read(Some("")), "customers.*");
    assert_eq!(read(None), "customers.*");
}

#[test]
fn parameters_and_literals_in_one_shape_are_told_apart() {
    let analyzer = Analyzer::new();
    let values =
        |text: &str| written(&analyzer.analyze(text.as_bytes(), SETTINGS).lineage)[2].clone();
    for (text, expected) in [
        ("select 1 from t where a = ? and b = 'x'", "1=t.b, $1=t.a"),
        ("select 1 from t where a = 'x' and b = ?", "1=t.a, $1=t.b"),
        ("select 1 from t where a = ? and b = ?", "$1=t.a, $2=t.b"),
        ("insert into t (a, b) values ('x', 'y')", "0=t.a, 1=t.b"),
        ("insert into t (a, b) values ('x', 'y'), ('z', 'w')", "0=t.a, 1=t.b, ?"),
        ("insert into t (a, b) values (?, ?)", "$1=t.a, $2=t.b"),
    ] {
        assert_eq!(values(text), expected, "{text}");
        assert_eq!(values(text), expected, "{text}");
    }
}

#[test]
fn literals_are_found_as_the_server_reads_them() {
    let found = |text: &str, settings| {
        let found = literals(text.as_bytes(), settings)?;
        Some(found.into_iter().map(|at| text.get(at).unwrap_or_default().to_owned()).collect())
    };
    let none: Option<Vec<String>> = None;
    let some = |all: &[&str]| Some(all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
    let ansi = Settings { ansi_quotes: true, ..SETTINGS };
    let plain = Settings { no_backslash_escapes: true, ..SETTINGS };
    for (text, settings, expected) in [
        ("select 'a', \"b\", 5.5, `c`", SETTINGS, some(&["'a'", "\"b\"", "5.5"])),
        ("select 'a', \"b\"", ansi, some(&["'a'"])),
        (r"select 'a\'b', 1", SETTINGS, some(&[r"'a\'b'", "1"])),
        (r"select 'a\', 'b', 1", plain, some(&[r"'a\'", "'b'", "1"])),
        ("select 'a' 'b', x'41', _utf8'c'", SETTINGS, some(&["'a' 'b'", "'41'", "'c'"])),
        ("select 1 /* 'no' */ -- 2\n, 3 # 4", SETTINGS, some(&["1", "3"])),
        ("select /*!50000 'yes' */ 2", SETTINGS, some(&["'yes'", "2"])),
        ("insert into t values (1, 'a'), (2, 'b')", SETTINGS, some(&["1", "'a'", "2", "'b'"])),
        ("select 'never ends", SETTINGS, none),
    ] {
        assert_eq!(found(text, settings), expected, "{text}");
    }
}
