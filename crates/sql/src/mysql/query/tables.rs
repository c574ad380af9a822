//! The tables that a change of rows names itself, beside those in its subqueries.

use sqlparser::ast::{ObjectName, TableFactor, TableWithJoins};

/// All names of tables, without those in subqueries.
pub(super) fn base_tables(tables: &[TableWithJoins]) -> Vec<&ObjectName> {
    let mut found = Vec::new();
    each(tables, &mut |name, _| found.push(name));
    found
}

/// All tables by the name that a statement calls them by.
pub(super) fn aliases(tables: &[TableWithJoins]) -> Vec<(&str, &ObjectName)> {
    let mut found = Vec::new();
    each(tables, &mut |name, alias: Option<&str>| {
        let own = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str());
        if let Some(called) = alias.or(own) {
            found.push((called, name));
        }
    });
    found
}

fn each<'a>(tables: &'a [TableWithJoins], with: &mut dyn FnMut(&'a ObjectName, Option<&'a str>)) {
    for table in tables {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined) {
            match factor {
                TableFactor::Table { name, alias, .. } => {
                    with(name, alias.as_ref().map(|alias| alias.name.value.as_str()));
                }
                TableFactor::NestedJoin { table_with_joins, .. } => {
                    each(std::slice::from_ref(table_with_joins), with);
                }
                _ => {}
            }
        }
    }
}
