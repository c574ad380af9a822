//! From lineage, table numbers and clearances to what happens to each column.

use std::collections::BTreeSet;

use tidegate_event::{ColumnRef, Lineage, Sources};
use tidegate_sql::KnownColumn;

use super::*;
use crate::{Detectors, ProtectedColumn, Secret};

/// `public.people`: ssn redacted, name partly shown, pin NULL, mail hashed; `audit.log`: note redacted.
fn protection(unresolved: Unresolved, detectors: Detectors) -> Arc<Protection> {
    let column = |schema: Option<&str>, relation: &str, column: &str, mask| ProtectedColumn {
        schema: schema.map(str::to_owned),
        relation: relation.to_owned(),
        column: column.to_owned(),
        class: column.to_owned(),
        mask,
    };
    let columns = vec![
        column(None, "people", "ssn", Mask::Redact),
        column(None, "people", "name", Mask::PARTIAL),
        column(None, "people", "pin", Mask::Null),
        column(None, "people", "mail", Mask::Hash),
        column(Some("audit"), "log", "note", Mask::Redact),
    ];
    let secret = Secret::new(&mut [1; 32]);
    Arc::new(Protection::new(columns, detectors, unresolved, Some(&secret)).unwrap())
}

fn catalogue() -> Arc<Catalogue> {
    let relation = |oid, schema: &str, name: &str, kind, columns: &[&str]| KnownRelation {
        oid,
        name: Relation { schema: Some(schema.to_owned()), name: name.to_owned() },
        kind,
        columns: columns
            .iter()
            .zip(1_i16..)
            .map(|(name, number)| KnownColumn {
                number,
                name: (*name).to_owned(),
                type_oid: 25,
                generated: false,
            })
            .collect(),
        definition: None,
    };
    let all = ["id", "ssn", "name", "pin", "mail", "city"];
    let relations = vec![
        relation(1, "public", "people", RelationKind::Table, &all),
        relation(2, "public", "seen", RelationKind::View, &all),
        relation(3, "audit", "log", RelationKind::Table, &["note"]),
        relation(4, "public", "log", RelationKind::Table, &["note"]),
        relation(5, "public", "far", RelationKind::Foreign, &["ssn"]),
    ];
    Arc::new(Catalogue::new(1, relations, Vec::new()))
}

fn relation(text: &str) -> Relation {
    match text.split_once('/') {
        Some((schema, name)) => Relation { schema: Some(schema.to_owned()), name: name.to_owned() },
        None => Relation { schema: None, name: text.to_owned() },
    }
}

/// `people.ssn` as stored, `=people.ssn,log.note` computed, `people.*` a star, `=people` of the whole row,
/// `!` opaque, `1` of no column.
fn output(text: &str) -> Output {
    if let Some(name) = text.strip_suffix(".*") {
        return Output::Star(relation(name));
    }
    let (shown, text) = match text.strip_prefix('=') {
        Some(text) => (Shown::Computed, text),
        None => (Shown::AsStored, text),
    };
    let source = |one: &str| match one.split_once('.') {
        Some((name, column)) => {
            ColumnRef { relation: relation(name), column: Some(column.to_owned()) }
        }
        None => ColumnRef { relation: relation(one), column: None },
    };
    let (columns, opaque) = match text {
        "!" => (BTreeSet::new(), Some("a test".to_owned())),
        "1" => (BTreeSet::new(), None),
        _ => (text.split(',').map(source).collect(), None),
    };
    Output::One { name: None, shown, sources: Sources { columns, opaque } }
}

fn order(outputs: &str, words: &str) -> Order {
    let rows = match outputs {
        "?" => Rows::Opaque("a test".to_owned()),
        "none" => Rows::None,
        _ => Rows::Known(outputs.split(' ').map(output).collect()),
    };
    let has = |word: &str| words.split(' ').any(|one| one == word);
    let unresolved = if has("detect") {
        Unresolved::Detect
    } else if has("clear") {
        Unresolved::Clear
    } else {
        Unresolved::Withhold
    };
    let detectors = if has("detect") { Detectors::ALL } else { Detectors::default() };
    let cleared = words.split(' ').filter_map(|word| word.strip_prefix("may:")?.parse().ok());
    Order {
        analysis: Arc::new(Analysis {
            lineage: Lineage { rows: vec![rows], ..Lineage::default() },
            ..Analysis::default()
        }),
        protection: protection(unresolved, detectors),
        cleared: cleared.collect(),
        catalogue: has("catalogue").then(catalogue),
    }
}

/// `name`, or `name@oid.number`.
fn field(text: &str) -> Field {
    let (name, place) = text.split_once('@').unwrap_or((text, "0.0"));
    let (oid, number) = place.split_once('.').unwrap();
    Field {
        name: name.as_bytes().to_vec(),
        table_oid: oid.parse().unwrap(),
        column: number.parse().unwrap(),
        origin: None,
        type_oid: 25,
        format: Format::Text,
    }
}

fn shown(plan: Result<Plan, Withheld>) -> String {
    let one = |treatment: &Treatment| match treatment {
        Treatment::Pass => "pass",
        Treatment::Detect(_) => "detect",
        Treatment::Mask(masker) => match masker.mask() {
            Mask::Redact => "redact",
            Mask::Partial { .. } => "partial",
            Mask::Hash => "hash",
            Mask::Tokenise => "tokenise",
            Mask::Null => "null",
        },
    };
    match plan {
        Ok(plan) => plan.columns.iter().map(one).collect::<Vec<_>>().join(" "),
        Err(_) => "withheld".to_owned(),
    }
}

#[test]
fn columns_are_planned() {
    let mut count = 0;
    for line in include_str!("plans.txt").lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [outputs, fields, words, expected] = parts.as_slice() else { panic!("{line}") };
        let fields: Vec<Field> = fields.split(' ').map(field).collect();
        assert_eq!(&shown(order(outputs, words).plan(0, &fields)), expected, "{line}");
        count += 1;
    }
    assert!(count > 40, "only {count} lines");
}

#[test]
fn a_copy_is_planned_without_a_description() {
    for (outputs, columns, words, expected) in [
        ("people.id people.ssn", 2, "-", "pass redact"),
        ("people.id people.ssn", 3, "-", "withheld"),
        ("people.*", 6, "-", "withheld"),
        ("people.*", 6, "catalogue", "pass redact partial null hash pass"),
        ("people.*", 5, "catalogue", "withheld"),
        ("other.*", 9, "-", "pass pass pass pass pass pass pass pass pass"),
        ("other.* =people.ssn", 3, "-", "withheld"),
        ("seen.*", 6, "catalogue", "withheld"),
        ("?", 1, "-", "withheld"),
        ("?", 1, "detect", "detect"),
        ("none", 1, "-", "withheld"),
        ("people.*", 2, "may:0 may:1 may:2 may:3 may:4", "pass pass"),
    ] {
        let plan = order(outputs, words).plan_copy(0, columns, Format::Text);
        assert_eq!(shown(plan), expected, "{outputs} {words}");
    }
}

#[test]
fn what_is_touched_is_a_superset() {
    let touched = |outputs: &str, words: &str| {
        let order = order(outputs, words);
        let touched = order.protection.touched(&order.analysis.lineage, order.catalogue.as_deref());
        (touched.shown.into_iter().collect::<Vec<_>>(), touched.opaque.is_some())
    };
    for (outputs, words, expected, opaque) in [
        ("people.city", "-", vec![], false),
        ("people.ssn =people.name", "-", vec![0, 1], false),
        ("=people", "-", vec![0, 1, 2, 3], false),
        ("people.*", "-", vec![0, 1, 2, 3], false),
        ("log.note", "-", vec![4], false),
        ("public/log.note", "-", vec![], false),
        ("audit/log.note", "-", vec![4], false),
        ("seen.city", "-", vec![], false),
        ("seen.city", "catalogue", vec![], true),
        ("nowhere.city", "catalogue", vec![], true),
        ("pg_class.relname", "catalogue", vec![], false),
        ("pg_stats.most_common_vals", "catalogue", vec![], true),
        ("?", "-", vec![], true),
    ] {
        assert_eq!(touched(outputs, words), (expected, opaque), "{outputs} {words}");
    }
}
