//! SELECT, VALUES, set operations and WITH.

use std::rc::Rc;

use sqlparser::ast::{
    Cte as With, Distinct, Expr, GroupByExpr, GroupByWithModifier, LimitClause, NamedWindowExpr,
    ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, SetOperator, SetQuantifier, Statement, Value,
};
use tidegate_event::Relation;

use super::scope::Level;
use super::{Tracer, parts};
use crate::lineage::flow::{self, Flow, Item, union};
use crate::lineage::range::Cte;
use crate::mysql::names::folded;

impl Tracer<'_> {
    /// What a statement returns; `None` for one that returns no rows.
    pub(super) fn returned(&mut self, tree: &Statement) -> Option<Vec<Item>> {
        match tree {
            Statement::Query(query) => Some(self.query(query)).filter(|_| returns(&query.body)),
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            _ => {
                let reason = "a statement of a kind that has no place here";
                self.notes.filters_are_opaque(reason);
                self.notes.values_are_opaque(reason);
                Some(vec![Item::Several(Flow::opaque(reason))])
            }
        }
    }

    pub(super) fn query(&mut self, query: &Query) -> Vec<Item> {
        if !self.notes.spend(1) {
            return vec![Item::Several(Flow::opaque("too long to follow"))];
        }
        let items = self.further_in(|to| to.query_within(query));
        items.unwrap_or_else(|| vec![Item::Several(Flow::opaque("nested too deep to follow"))])
    }

    fn query_within(&mut self, query: &Query) -> Vec<Item> {
        let outer = self.ctes.len();
        if let Some(with) = &query.with {
            self.with(&with.cte_tables, with.recursive);
        }
        self.levels.push(Level::default());
        let items = self.body(&query.body);
        if let Some(level) = self.levels.last_mut() {
            level.outputs.clone_from(&items);
            level.names_outputs = true;
        }
        if let Some(order) = &query.order_by {
            self.order(order, &items);
        }
        if let Some(limit) = &query.limit_clause {
            self.limit(limit);
        }
        self.levels.pop();
        self.ctes.truncate(outer);
        items
    }

    /// The columns of a query's body, in the level that is there.
    fn body(&mut self, body: &SetExpr) -> Vec<Item> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let all = *op == SetOperator::Union && *set_quantifier == SetQuantifier::All;
                self.set_operation(left, right, all)
            }
            SetExpr::Values(values) => {
                let rows = values.rows.iter().map(|row| row.content.as_slice());
                self.values_rows(rows)
            }
            SetExpr::Table(table) => match &table.table_name {
                Some(name) => {
                    let schema = table.schema_name.as_ref().map(|one| one.value.clone());
                    visible(self.table(&Relation { schema, name: name.value.clone() }))
                }
                None => vec![Item::Several(Flow::opaque("a TABLE without a name"))],
            },
            SetExpr::Insert(tree) | SetExpr::Update(tree) | SetExpr::Delete(tree) => {
                self.returned(tree).unwrap_or_default()
            }
            SetExpr::Merge(_) => {
                self.notes.filters_are_opaque("a MERGE");
                vec![Item::Several(Flow::opaque("a MERGE"))]
            }
        }
    }

    /// One side of a set operation, which has a level of its own.
    fn side(&mut self, body: &SetExpr) -> Vec<Item> {
        self.levels.push(Level::default());
        let items = self.further_in(|to| to.body(body));
        self.levels.pop();
        items.unwrap_or_else(|| vec![Item::Several(Flow::opaque("nested too deep to follow"))])
    }

    fn set_operation(&mut self, left: &SetExpr, right: &SetExpr, all: bool) -> Vec<Item> {
        let left = self.side(left);
        let right = self.side(right);
        let items = flow::by_position(left, right);
        for item in &items {
            let flow = item.flow();
            self.meet_with(&flow.values, &flow);
            if !all {
                // It compares rows.
                self.filter(&flow);
            }
        }
        self.limited(items)
    }

    fn values_rows<'e>(&mut self, rows: impl Iterator<Item = &'e [Expr]>) -> Vec<Item> {
        let mut columns: Vec<Flow> = Vec::new();
        for row in rows {
            for (at, value) in row.iter().enumerate() {
                let flow = self.expression(value);
                match columns.get_mut(at) {
                    Some(column) => column.add(flow),
                    None => columns.push(flow),
                }
            }
        }
        // MySQL calls them `column_0`, MariaDB by the first row's text.
        let items = columns.into_iter().map(|flow| Item::One(None, flow.computed())).collect();
        self.limited(items)
    }

    fn select(&mut self, select: &Select) -> Vec<Item> {
        self.add_from(&select.from);
        let condition = self.optional(select.selection.as_ref());
        self.filter(&condition);
        for window in &select.named_window {
            let flow = match &window.1 {
                NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec),
                NamedWindowExpr::NamedWindow(_) => Flow::opaque("a window by another's name"),
            };
            if let Some(level) = self.levels.last_mut() {
                level.windows.push((folded(&window.0.value), flow));
            }
        }
        let items = self.targets(&select.projection);
        if let Some(level) = self.levels.last_mut() {
            level.names_outputs = true;
        }
        match &select.group_by {
            GroupByExpr::All(_) => self.carry(&items),
            GroupByExpr::Expressions(keys, modifiers) => {
                for key in keys {
                    self.sort_key(key, &items);
                }
                for modifier in modifiers {
                    if let GroupByWithModifier::GroupingSets(expr) = modifier {
                        self.sort_key(expr, &items);
                    }
                }
            }
        }
        let having = self.optional(select.having.as_ref());
        self.filter(&having);
        match &select.distinct {
            Some(Distinct::Distinct) => self.carry(&items),
            Some(Distinct::On(keys)) => keys.iter().for_each(|key| self.sort_key(key, &items)),
            Some(Distinct::All) | None => {}
        }
        if select.qualify.is_some() || !select.connect_by.is_empty() || select.prewhere.is_some() {
            self.notes.filters_are_opaque("a clause that has no place here");
        }
        items
    }

    /// The columns of a select list.
    pub(super) fn targets(&mut self, targets: &[SelectItem]) -> Vec<Item> {
        let mut items = Vec::with_capacity(targets.len());
        for target in targets {
            let begin = items.len();
            match target {
                SelectItem::UnnamedExpr(expr) => {
                    let flow = self.expression(expr);
                    items.push(Item::One(name_of(expr), flow));
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let flow = self.expression(expr);
                    items.push(Item::One(Some(folded(&alias.value)), flow));
                }
                SelectItem::Wildcard(_) => {
                    let columns = self.levels.last().map(|level| level.columns.clone());
                    items.extend(self.limited(visible(columns.unwrap_or_default())));
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => items.extend(self.star_of(name)),
                _ => items.push(Item::Several(Flow::opaque("a select list of an odd form"))),
            }
            // Subqueries behind it may name it.
            if let (Some(level), Some(new)) = (self.levels.last_mut(), items.get(begin..)) {
                level.outputs.extend(new.iter().cloned());
            }
        }
        self.limited(items)
    }

    fn star_of(&mut self, name: &ObjectName) -> Vec<Item> {
        let ranges = match parts(name).as_deref() {
            Some([table]) => self.ranges(None, &table.value),
            Some([schema, table]) => self.ranges(Some(&schema.value), &table.value),
            _ => Vec::new(),
        };
        let columns = match ranges.as_slice() {
            [one] => one.to_vec(),
            [] => vec![Item::Several(Flow::opaque("a star of no known relation"))],
            several => {
                let all = union(several.iter().flat_map(|one| one.iter()).map(Item::flow));
                vec![Item::Several(all)]
            }
        };
        self.limited(visible(columns))
    }

    fn order(&mut self, order: &OrderBy, items: &[Item]) {
        match &order.kind {
            OrderByKind::All(_) => self.carry(items),
            OrderByKind::Expressions(keys) => {
                for key in keys {
                    self.sort_key(&key.expr, items);
                }
            }
        }
    }

    /// A key of ORDER BY or GROUP BY: an output's number or name, or an expression.
    pub(super) fn sort_key(&mut self, key: &Expr, items: &[Item]) {
        if let Expr::Value(value) = key {
            if let Value::Number(number, _) = &value.value {
                // Its number decides which column it is.
                *self.literals_matter = true;
                let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                let spelt = items.iter().take_while(|item| matches!(item, Item::One(..))).count();
                match at.filter(|at| *at < spelt).and_then(|at| items.get(at)) {
                    Some(item) => self.filter(&item.flow()),
                    None => self.carry(items),
                }
            }
            return;
        }
        let flow = self.expression(key);
        self.filter(&flow);
    }

    fn limit(&mut self, limit: &LimitClause) {
        let all: Vec<&Expr> = match limit {
            LimitClause::LimitOffset { limit, offset, limit_by } => limit
                .iter()
                .chain(offset.iter().map(|offset| &offset.value))
                .chain(limit_by)
                .collect(),
            LimitClause::OffsetCommaLimit { offset, limit } => vec![offset, limit],
        };
        let flow = self.union_of(all);
        self.filter(&flow);
    }

    fn with(&mut self, all: &[With], recursive: bool) {
        for with in all {
            let names = with.alias.columns.iter();
            let names: Vec<String> = names.map(|one| folded(&one.name.value)).collect();
            let name = with.alias.name.value.as_str();
            let items = match (&*with.query.body, recursive) {
                (SetExpr::SetOperation { left, .. }, true) => {
                    self.recursive(name, &names, left, &with.query)
                }
                _ => flow::rename(self.query(&with.query), &names),
            };
            self.name_cte(name, items);
        }
    }

    fn name_cte(&mut self, name: &str, items: Vec<Item>) {
        self.ctes.push(Cte { name: name.to_owned(), items: Rc::new(items) });
    }

    /// An item of `WITH RECURSIVE`: what it is made of without itself, then with itself.
    fn recursive(
        &mut self,
        name: &str,
        names: &[String],
        left: &SetExpr,
        whole: &Query,
    ) -> Vec<Item> {
        let scope = self.ctes.len();
        // Where it stands in its own first part, that can't be told.
        self.name_cte(name, vec![Item::Several(Flow::opaque("it is used before its turn"))]);
        let first = flow::rename(self.side(left), names);
        self.ctes.truncate(scope);
        self.name_cte(name, first.clone());
        let once = flow::rename(self.query(whole), names);
        self.ctes.truncate(scope);
        if flow::is_settled(&once, &first) {
            return once;
        }
        let mixed = flow::mixed(once);
        self.name_cte(name, mixed.clone());
        let _ = self.query(whole);
        self.ctes.truncate(scope);
        self.limited(mixed)
    }
}

/// The columns that a star shows. Those that a right join has left without a place stand in one of the others.
pub(super) fn visible(mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| !matches!(item, Item::Loose(..)));
    items
}

/// Whether a body is a query's, and not a change of rows behind `WITH`.
fn returns(body: &SetExpr) -> bool {
    match body {
        SetExpr::Insert(tree) | SetExpr::Update(tree) | SetExpr::Delete(tree) => match tree {
            Statement::Insert(insert) => insert.returning.is_some(),
            Statement::Update(update) => update.returning.is_some(),
            Statement::Delete(delete) => delete.returning.is_some(),
            _ => true,
        },
        _ => true,
    }
}

/// The name of an output without an alias, where it is a column's.
fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(folded(&ident.value)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| folded(&ident.value)),
        Expr::Nested(inner) => name_of(inner),
        _ => None,
    }
}
