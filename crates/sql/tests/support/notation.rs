//! Lineage in the notation of the data files.

use std::collections::BTreeSet;

use tidegate_event::{ColumnRef, Lineage, Output, Rows, Shown, Sources, ValueAt};

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
pub fn written(lineage: &Lineage) -> [String; 3] {
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
