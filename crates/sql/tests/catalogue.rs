//! What a catalogue adds: columns of stars, schemas of names, what is behind views and functions.

#[path = "support/notation.rs"]
mod notation;

use std::sync::Arc;

use notation::written;
use tidegate_event::{Analysis, Relation};
use tidegate_sql::{
    Analyzer, Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind, Settings,
};

fn name(of: &str) -> Relation {
    let (schema, name) = of.split_once('.').unwrap_or(("public", of));
    Relation { schema: Some(schema.to_owned()), name: name.to_owned() }
}

fn relation(oid: u32, of: &str, columns: &str, definition: Option<&str>) -> KnownRelation {
    let kind = if definition.is_some() { RelationKind::View } else { RelationKind::Table };
    let columns = (1..).zip(columns.split_whitespace());
    let columns = columns
        .map(|(number, name)| {
            let (name, generated) =
                name.strip_suffix('*').map_or((name, false), |name| (name, true));
            KnownColumn { number, name: name.to_owned(), type_oid: 25, generated }
        })
        .collect();
    KnownRelation { oid, name: name(of), kind, columns, definition: definition.map(str::to_owned) }
}

fn function(oid: u32, of: &str, language: &str, source: &str) -> KnownFunction {
    let source = Some(source.to_owned());
    KnownFunction { oid, name: name(of), language: language.to_owned(), source }
}

fn catalogue(version: u64) -> Catalogue {
    let relations = vec![
        relation(1, "customers", "id name ssn city", None),
        relation(2, "orders", "id customer_id total", None),
        relation(3, "audit.customers", "at who", None),
        relation(4, "totals", "id sum twice* note", None),
        relation(
            10,
            "people",
            "id label",
            Some("select c.id, c.ssn from public.customers c where c.city = 'x'"),
        ),
        relation(
            18,
            "pg_catalog.pg_locks",
            "pid mode",
            Some("select l.pid from pg_lock_status() l"),
        ),
        relation(19, "pg_catalog.pg_stat_activity", "pid query", Some("select 1")),
        relation(31, "pg_temp_3.scratch", "a", None),
        relation(32, "scratch", "a", None),
        relation(35, "notes", "a", None),
        relation(36, "pg_temp_3.notes", "a", Some("select c.ssn from public.customers c")),
        relation(
            33,
            "pg_stat_statements",
            "query",
            Some("select s.query from public.pg_stat_statements() s"),
        ),
        relation(11, "folk", "id label", Some("select p.id, p.label from public.people p")),
        relation(12, "round", "a", Some("select r.a from public.about r")),
        relation(13, "about", "a", Some("select r.a from public.round r")),
        relation(14, "unqualified", "a", Some("select ssn from customers")),
        relation(15, "misfit", "a b", Some("select c.ssn from public.customers c")),
        relation(16, "broken", "a", Some("select from from")),
        relation(
            17,
            "joined",
            "id total",
            Some(
                "select c.id, o.total from public.customers c join public.orders o on o.customer_id = c.id",
            ),
        ),
    ];
    let functions = vec![
        function(20, "all_ssn", "sql", "select c.ssn from public.customers c"),
        function(21, "hidden_ssn", "sql", "select ssn from customers"),
        function(22, "work", "plpgsql", "begin delete from public.orders where id = 1; end"),
        function(23, "far", "c", "far"),
        function(25, "twice", "sql", "select x * 2"),
        function(
            26,
            "of_city",
            "sql",
            "select c.name from public.customers c where c.city = which",
        ),
        function(27, "returned", "sql", "RETURN (SELECT max(c.ssn) FROM public.customers c)"),
        function(28, "atomic", "sql", "BEGIN ATOMIC\n SELECT c.ssn FROM public.customers c;\nEND"),
        function(29, "atomic_two", "sql", "BEGIN ATOMIC DELETE FROM public.orders; SELECT 1; END"),
        function(30, "dynamic", "plpgsql", "begin execute x; end"),
        function(34, "upper", "plpgsql", "begin perform ssn from public.customers; end"),
        function(24, "again", "sql", "select public.again()"),
    ];
    Catalogue::new(version, relations, functions).with_enums([name("mood"), name("work")])
}

fn effects(analysis: &Analysis) -> String {
    let written = analysis.effects.iter().map(|effect| {
        let bounded = if effect.bounded { "" } else { "!" };
        let on = effect.relation.as_ref().map_or_else(String::new, |on| format!(" {on}"));
        format!("{}{bounded}{on}", effect.action.name())
    });
    written.collect::<Vec<_>>().join(", ")
}

#[test]
fn every_row_has_the_lineage_and_effects_that_it_says() {
    let analyzer = Analyzer::new();
    let catalogue = catalogue(1);
    let path = ["audit".to_owned(), "public".to_owned()];
    let path = path.get(1..).unwrap_or_default();
    let mut wrong = Vec::new();
    let lines = include_str!("data/catalogue.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut parts = line.split(";;").map(str::trim);
        let text = parts.next().unwrap_or_default();
        let expected: [String; 4] =
            std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned());
        let analysis = analyzer.resolve(text.as_bytes(), Settings::default(), &catalogue, path);
        let [rows, filters, values] = written(&analysis.lineage);
        let is = [rows, filters, values, effects(&analysis)];
        if is != expected {
            wrong.push(format!("{text} ;; {}", is.join(" ;; ")));
        }
    }
    assert!(wrong.is_empty(), "these rows read otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn path_and_version_are_part_of_what_is_remembered() {
    let analyzer = Analyzer::new();
    let settings = Settings::default();
    let text = b"select * from customers";
    let (one, other) = (catalogue(1), catalogue(2));
    let path = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let public = analyzer.resolve(text, settings, &one, &path(&["public"]));
    let audit = analyzer.resolve(text, settings, &one, &path(&["audit", "public"]));
    assert_ne!(public.lineage, audit.lineage);
    assert!(Arc::ptr_eq(&public, &analyzer.resolve(text, settings, &one, &path(&["public"]))));
    assert!(!Arc::ptr_eq(&public, &analyzer.resolve(text, settings, &other, &path(&["public"]))));
    assert_ne!(public.lineage, analyzer.analyze(text, settings).lineage);
    assert_eq!(public.fingerprint, analyzer.analyze(text, settings).fingerprint);
    let glued = analyzer.resolve(text, settings, &one, &path(&["auditpublic"]));
    assert_ne!(glued.lineage, audit.lineage);
}

#[test]
fn deep_views_on_deep_views_fit_a_small_stack() {
    let nested = |view: &str| {
        let around = "select x.a || upper(lower(x.a)) as a from (".repeat(12);
        format!("{around}select a from public.{view}{}", ") x".repeat(12))
    };
    let mut relations = vec![relation(1, "v0", "a", None)];
    for number in 1..60_u32 {
        let definition = nested(&format!("v{}", number - 1));
        relations.push(relation(number + 1, &format!("v{number}"), "a", Some(&definition)));
    }
    let catalogue = Catalogue::new(1, relations, Vec::new());
    let run = move || {
        let path = ["public".to_owned()];
        let analyzer = Analyzer::new();
        let of = |text: &[u8]| analyzer.resolve(text, Settings::default(), &catalogue, &path);
        let [shallow, ..] = written(&of(b"select * from v3").lineage);
        assert_eq!(shallow, "a=~public.v0.a");
        let [deep, ..] = written(&of(b"select * from v59").lineage);
        assert!(deep.ends_with('?'), "{deep}");
    };
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn views_on_views_end() {
    let mut relations = vec![relation(1, "v0", "a b", None)];
    for number in 1..200_u32 {
        let before = number - 1;
        let definition =
            format!("select x.a || y.b, y.a from public.v{before} x, public.v{before} y");
        relations.push(relation(number + 1, &format!("v{number}"), "a b", Some(&definition)));
    }
    let catalogue = Catalogue::new(1, relations, Vec::new());
    let path = ["public".to_owned()];
    let analyzer = Analyzer::new();
    let of = |view: &str| {
        let text = format!("select * from {view}");
        analyzer.resolve(text.as_bytes(), Settings::default(), &catalogue, &path)
    };
    let [rows, ..] = written(&of("v5").lineage);
    assert_eq!(rows, "a=~public.v0.a public.v0.b, b=~public.v0.a public.v0.b");
    assert!(of("v5").unknown.is_none());
    let [rows, ..] = written(&of("v199").lineage);
    assert!(rows.contains('?'), "{rows}");
    assert!(of("v199").unknown.is_some());
}
