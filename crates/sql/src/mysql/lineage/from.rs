//! FROM: tables, views, derived tables and joins.

use std::rc::Rc;

use sqlparser::ast::{
    Ident, JoinConstraint, JoinOperator, JsonTableColumn, ObjectName, Query, Statement, TableAlias,
    TableFactor, TableWithJoins,
};
use tidegate_event::Relation;

use super::scope::Level;
use super::{DEEP_MAX, Tracer, parts, relation, total};
use crate::lineage::flow::{self, Flow, Item, Star, union};
use crate::mysql::names::folded;
use crate::mysql::{Settings, query};
use crate::{KnownColumn, KnownRelation, RelationKind};

impl Tracer<'_> {
    pub(super) fn add_from(&mut self, from: &[TableWithJoins]) {
        for tables in from {
            self.add_tables(tables);
        }
    }

    pub(super) fn add_tables(&mut self, tables: &TableWithJoins) {
        let begin = self.columns_here();
        self.add_factor(&tables.relation);
        for join in &tables.joins {
            let middle = self.columns_here();
            self.add_factor(&join.relation);
            let Some((constraint, right)) = constraint(&join.join_operator) else {
                let reason = "a join of a kind that has no place here";
                self.notes.filters_are_opaque(reason);
                continue;
            };
            match constraint {
                JoinConstraint::On(condition) => {
                    let flow = self.expression(condition);
                    self.filter(&flow);
                }
                JoinConstraint::Using(names) | JoinConstraint::UsingAlias(names, _) => {
                    let names = names.iter().filter_map(|name| parts(name)?.last().copied());
                    let names: Vec<String> = names.map(|name| folded(&name.value)).collect();
                    self.merge(begin, middle, Some(&names), right);
                }
                JoinConstraint::Natural => self.merge(begin, middle, None, right),
                JoinConstraint::None => {}
            }
        }
    }

    fn columns_here(&self) -> usize {
        self.levels.last().map_or(0, |level| level.columns.len())
    }

    /// Merges the columns that both sides of a join have (MySQL manual, "JOIN Clause": first the common
    /// columns, then the others of the left side, then those of the right). They decide.
    fn merge(&mut self, begin: usize, middle: usize, names: Option<&[String]>, right_join: bool) {
        let Some(level) = self.levels.last_mut() else { return };
        let right = level.columns.split_off(middle.min(level.columns.len()));
        let left = level.columns.split_off(begin.min(level.columns.len()));
        let spelt = |items: &[Item]| {
            items.iter().all(|item| matches!(item, Item::One(Some(_), _) | Item::Loose(..)))
        };
        let is_spelt = spelt(&left) && spelt(&right);
        let name_of = |item: &Item| match item {
            Item::One(Some(name), _) => Some(name.clone()),
            _ => None,
        };
        let common: Vec<String> = match names {
            Some(names) => names.to_vec(),
            None if is_spelt => {
                let theirs: Vec<_> = right.iter().filter_map(name_of).collect();
                left.iter().filter_map(name_of).filter(|name| theirs.contains(name)).collect()
            }
            // Any column of one side may be one of the other's.
            None => {
                let all = union(left.iter().chain(&right).map(Item::flow));
                self.filter(&all);
                self.meet_with(&all.values, &all);
                self.put_back(left.into_iter().chain(right));
                return;
            }
        };
        let both: Vec<Flow> = common
            .iter()
            .map(|name| {
                let sides = [flow::find(name, &left), flow::find(name, &right)];
                union(
                    sides.into_iter().flat_map(|found| found.exact.into_iter().chain(found.maybe)),
                )
            })
            .collect();
        for flow in &both {
            self.filter(flow);
        }
        if !is_spelt {
            // A star is told apart by the names of the result: its columns' own.
            self.put_back(left.into_iter().chain(right));
            return;
        }
        if right_join {
            // Which side's order it has is not told.
            let all = union(left.iter().chain(&right).map(Item::flow));
            let sides = left.iter().chain(&right).cloned();
            let loose = sides.filter_map(|item| match item {
                Item::One(Some(name), flow) => Some(Item::Loose(name, flow)),
                _ => None,
            });
            let loose: Vec<_> = loose.chain([Item::Several(all)]).collect();
            self.put_back(loose.into_iter());
            return;
        }
        let merged =
            common.iter().zip(both).map(|(name, flow)| Item::One(Some(name.clone()), flow));
        let merged: Vec<Item> = merged.collect();
        let rest = left.into_iter().chain(right);
        let rest = rest.filter(|item| name_of(item).is_none_or(|name| !common.contains(&name)));
        self.put_back(merged.into_iter().chain(rest.collect::<Vec<_>>()));
    }

    fn put_back(&mut self, items: impl Iterator<Item = Item>) {
        if let Some(level) = self.levels.last_mut() {
            level.columns.extend(items);
        }
    }

    fn add_factor(&mut self, factor: &TableFactor) {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                self.add_table(name, alias.as_ref());
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let items = self.derived(*lateral, subquery);
                self.push_aliased(items, alias.as_ref());
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                if alias.is_some() {
                    self.notes.filters_are_opaque("a join with an alias");
                }
                self.add_tables(table_with_joins);
            }
            TableFactor::JsonTable { json_expr, columns, alias, .. } => {
                let flow = self.expression(json_expr);
                let flow = self.combine(flow, true);
                let mut names = Vec::new();
                json_names(columns, &mut names);
                let items = names.into_iter().map(|name| Item::One(Some(name), flow.clone()));
                let items = items.collect();
                self.push_aliased(items, alias.as_ref());
            }
            _ => {
                let reason = "something that is no table in a table's place";
                self.notes.filters_are_opaque(reason);
                self.notes.values_are_opaque(reason);
                self.push_range("", None, vec![Item::Several(Flow::opaque(reason))]);
            }
        }
    }

    fn push_aliased(&mut self, items: Vec<Item>, alias: Option<&TableAlias>) {
        let names = alias.map(|alias| &alias.columns[..]).unwrap_or_default();
        let names: Vec<String> = names.iter().map(|one| folded(&one.name.value)).collect();
        let items = flow::rename(items, &names);
        let name = alias.map(|alias| alias.name.value.as_str()).unwrap_or_default();
        self.push_range(name, None, items);
    }

    /// A derived table sees what stands before it only where it is `LATERAL`.
    fn derived(&mut self, lateral: bool, query: &Query) -> Vec<Item> {
        if lateral {
            return self.query(query);
        }
        let hidden = self.levels.last_mut().map(std::mem::take);
        let items = self.query(query);
        if let (Some(level), Some(hidden)) = (self.levels.last_mut(), hidden) {
            *level = hidden;
        }
        items
    }

    fn add_table(&mut self, name: &ObjectName, alias: Option<&TableAlias>) {
        let Some(named) = relation(name) else {
            let items = vec![Item::Several(Flow::opaque("a name of more than two parts"))];
            return self.push_range("", None, items);
        };
        let bare =
            parts(name).is_some_and(|parts| parts.iter().all(|one| one.quote_style.is_none()));
        if bare && named.schema.is_none() && named.name.eq_ignore_ascii_case("dual") {
            return;
        }
        let items = self.table(&named);
        if let Some(alias) = alias {
            return self.push_range(&alias.name.value, None, items);
        }
        let relation = self.qualified_name(named.clone());
        self.push_range(&named.name, Some(relation), items);
    }

    /// The columns of what stands under a name in a table's place.
    pub(super) fn table(&mut self, named: &Relation) -> Vec<Item> {
        if named.schema.is_none() {
            let mut ctes = self.ctes.iter().rev();
            if let Some(cte) = ctes.find(|cte| cte.name.eq_ignore_ascii_case(&named.name)) {
                if cte.name == named.name {
                    return cte.items.to_vec();
                }
                let reason = "its name differs from another's by case only";
                return vec![Item::Several(Flow::opaque(reason))];
            }
        }
        self.base(named)
    }

    /// The columns of a relation.
    pub(super) fn base(&mut self, named: &Relation) -> Vec<Item> {
        let relation = self.qualified_name(named.clone());
        let elsewhere = total::elsewhere_columns(&relation);
        if let Some(known) = self.place.known(&relation).filter(|_| elsewhere.is_empty()).cloned() {
            if known.kind == RelationKind::View
                && let Some(definition) = &known.definition
            {
                return self.view(&known, definition);
            }
            let column = |one: &KnownColumn| {
                let flow = Flow::column(&known.name, &one.name);
                // An invisible column is in no star.
                if one.number < 0 {
                    Item::Loose(one.name.clone(), flow)
                } else {
                    Item::One(Some(one.name.clone()), flow)
                }
            };
            return known.columns.iter().map(column).collect();
        }
        vec![Item::Star(Star { elsewhere, ..Star::of(relation) })]
    }

    /// The columns of a view, through its definition.
    fn view(&mut self, known: &KnownRelation, definition: &str) -> Vec<Item> {
        if let Some((_, items)) = self.views.iter().find(|(oid, _)| *oid == known.oid) {
            return items.to_vec();
        }
        let opaque = |why: &str| {
            let named = |name: &String| Item::One(Some(name.clone()), Flow::opaque(why));
            known.columns.iter().map(|one| named(&one.name)).collect::<Vec<_>>()
        };
        if self.within.len() >= DEEP_MAX {
            return opaque("views within views, too deep to follow");
        }
        let settings =
            Settings { ansi_quotes: false, no_backslash_escapes: false, ..self.settings };
        let Some(Statement::Query(tree)) = query::tree_of(definition, settings) else {
            return opaque("a view whose definition does not parse");
        };
        let levels: Vec<Level> = std::mem::take(&mut self.levels);
        let ctes = std::mem::take(&mut self.ctes);
        self.within.push(known.name.schema.clone());
        let items = self.query(&tree);
        self.within.pop();
        (self.levels, self.ctes) = (levels, ctes);
        let names: Vec<String> = known.columns.iter().map(|one| one.name.clone()).collect();
        let spelt = items.iter().all(|item| matches!(item, Item::One(..)));
        let items = if spelt && items.len() == names.len() {
            flow::rename(items, &names)
        } else {
            let any = union(items.iter().map(Item::flow));
            names.into_iter().map(|name| Item::One(Some(name), any.clone().computed())).collect()
        };
        self.views.push((known.oid, Rc::new(items.clone())));
        items
    }
}

/// A join's condition, and whether it is a right join; `None` for joins of other databases.
const fn constraint(operator: &JoinOperator) -> Option<(&JoinConstraint, bool)> {
    match operator {
        JoinOperator::Join(on)
        | JoinOperator::Inner(on)
        | JoinOperator::Left(on)
        | JoinOperator::LeftOuter(on)
        | JoinOperator::CrossJoin(on)
        | JoinOperator::StraightJoin(on) => Some((on, false)),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Some((on, true)),
        _ => None,
    }
}

fn json_names(columns: &[JsonTableColumn], to: &mut Vec<String>) {
    let mut add = |name: &Ident| to.push(folded(&name.value));
    for column in columns {
        match column {
            JsonTableColumn::Named(named) => add(&named.name),
            JsonTableColumn::ForOrdinality(name) => add(name),
            JsonTableColumn::Nested(_) => {}
        }
    }
    for column in columns {
        if let JsonTableColumn::Nested(nested) = column {
            json_names(&nested.columns, to);
        }
    }
}
