//! Where each statement's columns go, as a table of data.

use std::collections::BTreeSet;

use tidegate_event::{ColumnRef, Lineage, Output, Rows, Shown, Sources, ValueAt};
use tidegate_sql::{Analyzer, Settings};

fn column(column: &ColumnRef) -> String {
    format!("{}.{}", column.relation, column.column.as_deref().unwrap_or("*"))
}

fn columns(columns: &BTreeSet<ColumnRef>) -> String {
    columns.iter().map(column).collect::<Vec<_>>().join(" ")
}

fn sources(sources: &Sources) -> String {
    let opaque = if sources.opaque.is_some() { "?" } else { "" };
    format!("{}{opaque}", columns(&sources.columns))
}

fn output(output: &Output) -> String {
    match output {
        Output::One { name, shown, sources: from } => {
            let name = name.as_deref().unwrap_or("_");
            let mark = if *shown == Shown::AsStored { "" } else { "~" };
            format!("{name}={mark}{}", sources(from))
        }
        Output::Star(relation) => format!("{relation}.*"),
        Output::Several(from) => format!("several={}", sources(from)),
    }
}

fn rows(rows: &Rows) -> String {
    match rows {
        Rows::None => "none".to_owned(),
        Rows::Known(outputs) => outputs.iter().map(output).collect::<Vec<_>>().join(", "),
        Rows::Cursor(name) => format!("cursor {name}"),
        Rows::Prepared(name) => format!("prepared {name}"),
        Rows::Opaque(_) => "opaque".to_owned(),
    }
}

/// The lineage in the notation of `data/lineage.txt`: rows, filters, values.
fn written(lineage: &Lineage) -> [String; 3] {
    let mut all: Vec<_> = lineage.rows.iter().map(rows).collect();
    all.extend(
        lineage.later.iter().map(|later| {
            format!("{} of {}: {}", rows(&later.by), later.statement, rows(&later.rows))
        }),
    );
    let mut filters = columns(&lineage.filters);
    if lineage.filters_opaque.is_some() {
        filters.push('?');
    }
    let mut values: Vec<_> = lineage
        .values
        .iter()
        .map(|value| {
            let at = match value.at {
                ValueAt::Literal(number) => format!("{number}"),
                ValueAt::Parameter(number) => format!("${number}"),
            };
            format!("{at}={}", columns(&value.columns))
        })
        .collect();
    values.extend(lineage.values_opaque.iter().map(|_| "?".to_owned()));
    [all.join(" / "), filters, values.join(", ")]
}

#[test]
fn every_row_has_the_lineage_that_it_says() {
    let analyzer = Analyzer::new();
    let lines: Vec<_> = include_str!("data/lineage.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(lines.len() >= 100, "{} rows", lines.len());
    let mut wrong = Vec::new();
    for line in lines {
        let mut parts = line.split(";;").map(str::trim);
        let text = parts.next().unwrap_or_default();
        let expected: [String; 3] =
            std::array::from_fn(|_| parts.next().unwrap_or_default().to_owned());
        let analysis = analyzer.analyze(text.as_bytes(), Settings::default());
        let is = written(&analysis.lineage);
        if is != expected {
            wrong.push(format!("{text} ;; {}", is.join(" ;; ")));
        }
    }
    assert!(wrong.is_empty(), "these rows read otherwise:\n{}", wrong.join("\n"));
}
