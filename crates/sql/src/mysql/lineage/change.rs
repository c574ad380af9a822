//! INSERT, REPLACE, UPDATE and DELETE: what they store where, by which conditions, and return.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, FromTable, Insert, ObjectName, OnInsert, OrderByExpr,
    SetExpr, TableObject, Update,
};
use tidegate_event::Relation;

use super::query::visible;
use super::scope::Level;
use super::{Tracer, parts, relation};
use crate::lineage::flow::{self, Flow, Item, union};
use crate::mysql::names::folded;

impl Tracer<'_> {
    pub(super) fn insert(&mut self, insert: &Insert) -> Option<Vec<Item>> {
        let TableObject::TableName(name) = &insert.table else {
            self.notes.filters_are_opaque("an INSERT into something that is no table");
            return Some(vec![Item::Several(Flow::opaque("an INSERT into no table"))]);
        };
        let Some(target) = relation(name) else {
            self.notes.filters_are_opaque("a name of more than two parts");
            return Some(vec![Item::Several(Flow::opaque("a name of more than two parts"))]);
        };
        let base = self.base(&target);
        let row = self.row(&target);
        let places: Vec<Flow> = if insert.columns.is_empty() {
            visible(base.clone()).iter().map(Item::flow).collect()
        } else {
            insert.columns.iter().map(|column| place(&row, &base, column)).collect()
        };
        self.levels.push(Level::default());
        if let Some(source) = &insert.source {
            let items = self.query(source);
            self.store_all(&items, &places);
        }
        let called = insert.table_alias.as_ref().map_or(&*target.name, |alias| &alias.alias.value);
        let qualified = self.qualified_name(target.clone());
        self.push_range(called, Some(qualified), base.clone());
        self.set(&row, &base, &insert.assignments);
        if insert.replace_into || insert.on.is_some() {
            // Any unique key decides what becomes of a row, and the count tells of it.
            self.filter(&row);
        }
        if let Some(OnInsert::DuplicateKeyUpdate(assignments)) = &insert.on {
            if let Some(SetExpr::Select(select)) = insert.source.as_deref().map(|one| &*one.body) {
                self.add_from(&select.from);
            }
            if let Some(alias) = &insert.insert_alias {
                let names = alias.col_aliases.iter().flatten();
                let names: Vec<_> = names.map(|name| folded(&name.value)).collect();
                let items = flow::rename(base.clone(), &names);
                let name =
                    parts(&alias.row_alias).and_then(|parts| Some(parts.last()?.value.clone()));
                self.push_range(&name.unwrap_or_default(), None, items);
            }
            self.set(&row, &base, assignments);
        }
        let returned = insert.returning.as_ref().map(|list| self.targets(list));
        self.levels.pop();
        returned
    }

    pub(super) fn update(&mut self, update: &Update) -> Option<Vec<Item>> {
        self.levels.push(Level::default());
        self.add_tables(&update.table);
        let condition = self.optional(update.selection.as_ref());
        self.filter(&condition);
        for assignment in &update.assignments {
            let place = match &assignment.target {
                AssignmentTarget::ColumnName(name) => self.column_place(name),
                AssignmentTarget::Tuple(names) => {
                    union(names.iter().map(|name| self.column_place(name)))
                }
            };
            let value = self.expression(&assignment.value);
            self.store(&value, &place);
        }
        self.order_and_limit(&update.order_by, update.limit.as_ref());
        let returned = update.returning.as_ref().map(|list| self.targets(list));
        self.levels.pop();
        returned
    }

    pub(super) fn delete(&mut self, delete: &Delete) -> Option<Vec<Item>> {
        self.levels.push(Level::default());
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        match &delete.using {
            Some(using) => self.add_from(using),
            None => self.add_from(from),
        }
        let condition = self.optional(delete.selection.as_ref());
        self.filter(&condition);
        self.order_and_limit(&delete.order_by, delete.limit.as_ref());
        let returned = delete.returning.as_ref().map(|list| self.targets(list));
        self.levels.pop();
        returned
    }

    fn order_and_limit(&mut self, order: &[OrderByExpr], limit: Option<&sqlparser::ast::Expr>) {
        for key in order {
            let flow = self.expression(&key.expr);
            self.filter(&flow);
        }
        let limit = self.optional(limit);
        self.filter(&limit);
    }

    /// All columns of a relation, as the target of a change.
    fn row(&self, target: &Relation) -> Flow {
        match self.place.known(&self.qualified_name(target.clone())) {
            Some(known) => Flow::row(&known.name),
            None => Flow::row(&self.qualified_name(target.clone())),
        }
    }

    /// The column that an UPDATE sets.
    fn column_place(&mut self, name: &ObjectName) -> Flow {
        match parts(name).as_deref() {
            Some([column]) => self.bare(column),
            Some([table, column]) => self.of_range(None, &table.value, column),
            Some([schema, table, column]) => {
                self.of_range(Some(&schema.value), &table.value, column)
            }
            _ => Flow::opaque("a column reference of an odd form"),
        }
    }

    /// Values stored by position.
    fn store_all(&mut self, items: &[Item], places: &[Flow]) {
        for (value, place) in flow::stored(items, places) {
            self.store(&value, &place);
        }
    }

    /// A value goes into a place: whatever it is made of leaves for there.
    fn store(&mut self, value: &Flow, place: &Flow) {
        self.filter(value);
        self.meet_with(&value.values, place);
    }

    /// `SET a = x` of an INSERT, or behind `ON DUPLICATE KEY UPDATE`.
    fn set(&mut self, row: &Flow, base: &[Item], assignments: &[Assignment]) {
        for assignment in assignments {
            let place = match &assignment.target {
                AssignmentTarget::ColumnName(name) => place(row, base, name),
                AssignmentTarget::Tuple(_) => row.clone(),
            };
            let value = self.expression(&assignment.value);
            self.store(&value, &place);
        }
    }
}

/// The column of the target that a name means; the whole row where that can't be told.
fn place(row: &Flow, base: &[Item], name: &ObjectName) -> Flow {
    let column = parts(name).and_then(|parts| parts.last().copied());
    let Some(column) = column.filter(|column| column.value.is_ascii()) else {
        return row.clone();
    };
    let found = flow::find(&folded(&column.value), base);
    let place = union(found.exact.into_iter().chain(found.maybe));
    if place.columns.is_empty() { row.clone() } else { place }
}
