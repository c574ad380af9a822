//! Which columns of a relation a statement reads, for `context.columns`.
//!
//! Promises: every column whose value may reach the result, decide, or be carried elsewhere is in the
//! set, or there is no set.
//!
//! Known gap: a column that is mentioned and whose value doesn't matter (`EXISTS (SELECT ssn ..)`) is
//! not in it.

use std::collections::BTreeSet;

use tidegate_event::{Analysis, Output, Relation, Rows, Sources};

/// The columns of `relation`, each once; `None` where they can't be told or it is all of them.
pub(crate) fn read<'a>(analysis: &'a Analysis, relation: &Relation) -> Option<BTreeSet<&'a str>> {
    let lineage = &analysis.lineage;
    // A dialect whose lineage isn't told has fewer rows than statements.
    let told = !analysis.kinds.is_empty() && lineage.rows.len() >= analysis.kinds.len();
    if !told || analysis.unknown.is_some() || lineage.filters_opaque.is_some() {
        return None;
    }
    let mut found = Found { relation, columns: BTreeSet::new() };
    for rows in lineage.rows.iter().chain(lineage.later.iter().map(|later| &later.rows)) {
        found.rows(rows)?;
    }
    for column in &lineage.filters {
        found.column(&column.relation, column.column.as_deref())?;
    }
    Some(found.columns)
}

struct Found<'a, 'r> {
    relation: &'r Relation,
    columns: BTreeSet<&'a str>,
}

impl<'a> Found<'a, '_> {
    fn rows(&mut self, rows: &'a Rows) -> Option<()> {
        match rows {
            // What a cursor or prepared statement reads was asked when it was made.
            Rows::None | Rows::Cursor(_) | Rows::Prepared(_) => Some(()),
            Rows::Opaque(_) => None,
            Rows::Known(outputs) => outputs.iter().try_for_each(|output| match output {
                Output::One { sources, .. } | Output::Several(sources) => self.sources(sources),
                Output::Star(relation) => self.column(relation, None),
            }),
        }
    }

    fn sources(&mut self, sources: &'a Sources) -> Option<()> {
        if sources.opaque.is_some() {
            return None;
        }
        let mut columns = sources.columns.iter();
        columns.try_for_each(|column| self.column(&column.relation, column.column.as_deref()))
    }

    fn column(&mut self, of: &Relation, name: Option<&'a str>) -> Option<()> {
        let schemas = (&of.schema, &self.relation.schema);
        let may_be = of.name == self.relation.name
            && !matches!(schemas, (Some(one), Some(other)) if one != other);
        if may_be {
            self.columns.insert(name?);
        }
        Some(())
    }
}
