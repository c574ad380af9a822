//! What a catalogue adds: the columns of relations, and what stands behind views and functions.
//!
//! Promises: a view is followed to the columns of base relations, however deep views stand on each
//! other, and never round in circles. A relation that the catalogue doesn't have is opaque, since it
//! may be a view made since; so are functions but for those in SQL that are one query with every
//! name qualified.
//!
//! Limits: [`DEEP_MAX`] definitions inside each other.
//!
//! The system's own views stand for themselves.
//!
//! Known gaps: the conditions of a view count as filters of who uses it. Inherited tables and
//! partitions stand for themselves.

use std::rc::Rc;

use pg_query::NodeEnum as N;
use tidegate_event::Relation;

use super::flow::{Flow, Item, union};
use super::{Tracer, total};
use crate::catalogue::{KnownRelation, RelationKind};
use crate::parse;
use crate::resolve::Names;

/// Definitions of views and functions inside each other.
const DEEP_MAX: usize = 32;

impl<'a> Tracer<'a> {
    /// The columns of a relation by the catalogue; `None` without one, or where the relation is one
    /// of the system's that isn't in it.
    pub(super) fn known(&mut self, relation: &Relation) -> Option<Vec<Item>> {
        let names = self.names?;
        let Some(known) = names.relation(relation) else {
            if is_system(relation) {
                return None;
            }
            let mut row = Flow::row(relation);
            row.add(Flow::opaque(format!("{relation} is not in the catalogue")));
            return Some(vec![Item::Several(row)]);
        };
        if relation.schema.is_none() && names.catalogue.may_be_temporary(&relation.name) {
            // It may be this session's, with other columns.
            let mut row = union(self.of_known(known).iter().map(Item::flow));
            row.add(Flow::opaque(format!("{relation} may be a temporary table")));
            return Some(vec![Item::Several(row)]);
        }
        Some(self.of_known(known))
    }

    /// The generated columns of a relation, by name.
    pub(super) fn generated(&self, relation: &Relation) -> Vec<&'a str> {
        let known = self.names.and_then(|names| names.relation(relation));
        let columns = known.into_iter().flat_map(|known| &known.columns);
        columns.filter(|column| column.generated).map(|column| column.name.as_str()).collect()
    }

    fn of_known(&mut self, known: &'a KnownRelation) -> Vec<Item> {
        if is_system(&known.name) {
            return system(known);
        }
        match known.kind {
            RelationKind::Table | RelationKind::Foreign => {
                let column =
                    |name: &String| Item::One(Some(name.clone()), Flow::column(&known.name, name));
                known.columns.iter().map(|known| column(&known.name)).collect()
            }
            RelationKind::View | RelationKind::MaterializedView => self.view(known),
        }
    }

    fn view(&mut self, known: &'a KnownRelation) -> Vec<Item> {
        if let Some((_, items)) = self.views.iter().find(|(oid, _)| *oid == known.oid) {
            return items.to_vec();
        }
        // While it is followed, it is what can't be told: that ends every circle.
        let circle = opaque_view(known, "is defined by itself");
        let at = self.views.len();
        self.views.push((known.oid, Rc::new(circle)));
        let items = match known.definition.as_deref() {
            Some(definition) => self.definition(known, definition),
            None => opaque_view(known, "has no definition in the catalogue"),
        };
        if let Some((_, remembered)) = self.views.get_mut(at) {
            *remembered = Rc::new(items.clone());
        }
        items
    }

    fn definition(&mut self, known: &'a KnownRelation, definition: &str) -> Vec<Item> {
        let Some(items) = self.inside(definition) else {
            return opaque_view(known, "has a definition that can't be followed");
        };
        let spelt = items.iter().all(|item| matches!(item, Item::One(..)));
        if !spelt || items.len() != known.columns.len() {
            return opaque_view(known, "has other columns than its definition");
        }
        let named = items.into_iter().zip(&known.columns);
        named.map(|(item, column)| Item::One(Some(column.name.clone()), item.flow())).collect()
    }

    /// What a query that is not of the statement returns: a view's, a function's.
    fn inside(&mut self, text: &str) -> Option<Vec<Item>> {
        if self.deep >= DEEP_MAX || text.len() > parse::NESTED_BYTES_MAX {
            return None;
        }
        let only = parse::only_statement(text)?;
        if !self.spend(text.len() / 16) {
            return None;
        }
        let names = self.names.map(Names::qualified_only);
        let outer = (
            std::mem::take(&mut self.levels),
            std::mem::take(&mut self.ctes),
            self.literals.take(),
            std::mem::replace(&mut self.names, names),
            std::mem::replace(&mut self.nested, true),
        );
        self.deep += 1;
        let items = match &only {
            N::SelectStmt(select) => Some(self.select(select)),
            N::ReturnStmt(stmt) => {
                Some(vec![Item::One(None, self.optional(stmt.returnval.as_deref()))])
            }
            _ => None,
        };
        self.deep -= 1;
        (self.levels, self.ctes, self.literals, self.names, self.nested) = outer;
        items
    }

    /// What a function returns besides what it is given, where its body tells.
    pub(super) fn body(&mut self, function: &Relation) -> Option<Flow> {
        let names = self.names?;
        let [known] = names.functions(function) else {
            return None;
        };
        let source = known.source.as_deref().filter(|_| known.language == "sql")?;
        if self.functions.contains(&known.oid) {
            return None;
        }
        self.functions.push(known.oid);
        let items = self.inside(source);
        self.functions.pop();
        Some(union(items?.iter().map(Item::flow)).computed())
    }
}

fn opaque_view(known: &KnownRelation, why: &str) -> Vec<Item> {
    let flow = || {
        let mut flow = Flow::row(&known.name);
        flow.add(Flow::opaque(format!("{} {why}", known.name)));
        flow
    };
    known.columns.iter().map(|column| Item::One(Some(column.name.clone()), flow())).collect()
}

/// The system's own relations stand for themselves: what their functions read is the server's state,
/// but for columns that are known to hold more.
fn system(known: &KnownRelation) -> Vec<Item> {
    let elsewhere = total::elsewhere_columns(&known.name).unwrap_or_default();
    let column = |name: &String| {
        let more = elsewhere.iter().any(|column| *column == "*" || column == name);
        let flow = if more {
            Flow::opaque(format!("{}.{name} holds values of other relations", known.name))
        } else {
            Flow::column(&known.name, name)
        };
        Item::One(Some(name.clone()), flow)
    };
    known.columns.iter().map(|known| column(&known.name)).collect()
}

/// Whether a relation is PostgreSQL's own.
pub(crate) fn is_system(relation: &Relation) -> bool {
    match relation.schema.as_deref() {
        Some(schema) => matches!(schema, "pg_catalog" | "information_schema" | "pg_toast"),
        None => relation.name.starts_with("pg_"),
    }
}
