//! What a relation's name stands for, as far as the catalogue tells.
//!
//! Promises: only a relation that the catalogue knows as a table, in every schema that the name may
//! mean, stands for itself. A view whose definition was not read into the lineage does not, nor does
//! what the catalogue does not know, such as a temporary table.
//!
//! The system's own relations stand for themselves, but for those that hold samples of values.

use tidegate_event::Relation;
use tidegate_sql::{Catalogue, RelationKind};

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stands {
    /// Rows of its own.
    Itself,
    /// Rows from elsewhere, or nobody knows; and why.
    Unresolved(String),
}

/// System relations that show values of other relations, or texts of statements.
const SHOWS_VALUES: [&str; 9] = [
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_largeobject",
    "pg_stat_activity",
    "pg_stat_statements",
    "pg_prepared_statements",
];

/// What `relation` stands for.
pub(crate) fn stands(catalogue: &Catalogue, relation: &Relation) -> Stands {
    let name = relation.name.as_str();
    let schema = relation.schema.as_deref();
    let system = schema.is_some_and(|schema| catalogue.is_system(schema))
        || (schema.is_none() && name.starts_with("pg_") && !catalogue.is_system("mysql"));
    if system {
        return if SHOWS_VALUES.contains(&name) {
            Stands::Unresolved(format!("{relation} shows values of other relations"))
        } else {
            Stands::Itself
        };
    }
    let known = match schema {
        Some(_) => catalogue.relation(relation).map_or(&[][..], std::slice::from_ref),
        None => catalogue.named(name),
    };
    if known.is_empty() {
        return Stands::Unresolved(format!("the catalogue does not know {relation}"));
    }
    match known.iter().find(|one| one.kind != RelationKind::Table) {
        Some(other) => Stands::Unresolved(format!("{} is not a table", other.name)),
        None => Stands::Itself,
    }
}
