//! The items of FROM.

use std::rc::Rc;

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;

use super::flow::{self, Flow, Item, Star, union};
use super::range::Table;
use super::{Tracer, function};
use crate::collect::{relation_of, string};

impl Tracer<'_> {
    /// Brings one item of FROM into the innermost level.
    pub(super) fn add_item(&mut self, item: &p::Node) {
        match &item.node {
            Some(N::RangeVar(named)) => self.add_relation(named, true),
            Some(N::JoinExpr(join)) => self.join(join),
            Some(N::RangeSubselect(subselect)) => {
                let items = self.subselect(subselect);
                self.push_aliased(subselect.alias.as_ref(), "", items);
            }
            Some(N::RangeFunction(range)) => self.range_function(range),
            Some(N::RangeTableFunc(range)) => self.table_function(range),
            Some(N::JsonTable(table)) => self.json_table(table),
            Some(N::RangeTableSample(sample)) => {
                sample.relation.iter().for_each(|relation| self.add_item(relation));
                let mut arguments = self.union_of(&sample.args);
                arguments.add(self.optional(sample.repeatable.as_deref()));
                self.filter(&arguments);
            }
            _ => {
                let reason = "FROM holds something of a new kind";
                self.filters_are_opaque(reason);
                self.push_range("", None, vec![Item::Several(Flow::opaque(reason))]);
            }
        }
    }

    /// A relation or, where it may be one, an item of `WITH`.
    pub(super) fn add_relation(&mut self, named: &p::RangeVar, or_cte: bool) {
        let cte = if or_cte { self.cte(named) } else { None };
        let items = match &cte {
            Some(items) => items.to_vec(),
            None => self.base(named),
        };
        if named.alias.is_some() {
            return self.push_aliased(named.alias.as_ref(), "", items);
        }
        let relation = cte.is_none().then(|| relation_of(named));
        self.push_range(&named.relname, relation, items);
    }

    pub(super) fn push_aliased(&mut self, alias: Option<&p::Alias>, or: &str, items: Vec<Item>) {
        match alias {
            Some(alias) => {
                let items = flow::rename(items, &strings(&alias.colnames));
                self.push_range(&alias.aliasname, None, items);
            }
            None => self.push_range(or, None, items),
        }
    }

    fn subselect(&mut self, subselect: &p::RangeSubselect) -> Vec<Item> {
        if subselect.lateral {
            return self.subquery(subselect.subquery.as_deref());
        }
        // What stands beside it in FROM is not in its scope.
        let hidden = self.levels.pop();
        let items = self.subquery(subselect.subquery.as_deref());
        self.levels.extend(hidden);
        items
    }

    fn join(&mut self, join: &p::JoinExpr) {
        let (first_range, first_column) =
            self.levels.last().map_or((0, 0), |level| (level.ranges.len(), level.columns.len()));
        join.larg.iter().for_each(|side| self.add_item(side));
        let middle = self.levels.last().map_or(0, |level| level.columns.len());
        join.rarg.iter().for_each(|side| self.add_item(side));
        let condition = self.optional(join.quals.as_deref());
        self.filter(&condition);
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        let right = level.columns.split_off(middle.min(level.columns.len()));
        let left = level.columns.split_off(first_column.min(level.columns.len()));
        let merged_by =
            if join.is_natural { common(&left, &right) } else { strings(&join.using_clause) };
        let uncertain = join.is_natural && (has_star(&left) || has_star(&right));
        let (merged, rest) = self.merge(&merged_by, left, right, uncertain);
        let all: Vec<_> = merged.iter().cloned().chain(rest).collect();
        let all = self.limited(all);
        if let Some(alias) = &join.join_using_alias {
            self.hidden_range(&alias.aliasname, merged);
        }
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        match &join.alias {
            Some(alias) => {
                level.ranges.truncate(first_range);
                self.push_aliased(Some(alias), "", all);
            }
            None => level.columns.extend(all),
        }
    }

    /// A range that only qualified names reach.
    pub(super) fn hidden_range(&mut self, name: &str, items: Vec<Item>) {
        if let Some(level) = self.levels.last_mut() {
            level.ranges.push(Table {
                name: name.to_owned(),
                relation: None,
                items: Rc::new(items),
            });
        }
    }

    /// What `USING` or `NATURAL` makes of two sides: the merged columns, then the rest.
    fn merge(
        &mut self,
        by: &[String],
        left: Vec<Item>,
        right: Vec<Item>,
        uncertain: bool,
    ) -> (Vec<Item>, Vec<Item>) {
        let mut merged = Vec::with_capacity(by.len());
        for name in by {
            let mut both = Flow::default();
            for side in [&left, &right] {
                let found = flow::find(name, side);
                found.exact.into_iter().chain(found.maybe).for_each(|flow| both.add(flow));
            }
            let both = self.combine(both, false);
            self.filter(&both);
            merged.push(Item::One(Some(name.clone()), both));
        }
        let all = |side: &[Item]| union(side.iter().map(Item::flow));
        if uncertain {
            let mut both = all(&left);
            both.add(all(&right));
            self.filter(&both);
        }
        // A named column may be merged with one that the other side has without our knowing.
        let other = |name: &str, side: &[Item]| {
            let found = flow::find(name, side);
            union(found.exact.into_iter().chain(found.maybe))
        };
        let loosen = |items: &[Item], against: &[Item]| -> Vec<Item> {
            let loosen = |item: &Item| match item {
                Item::One(Some(name), flow) | Item::Loose(name, flow) => {
                    let mut flow = flow.clone();
                    flow.add(other(name, against));
                    Item::Loose(name.clone(), flow)
                }
                item => item.clone(),
            };
            items.iter().map(loosen).collect()
        };
        let (left, right) =
            if uncertain { (loosen(&left, &right), loosen(&right, &left)) } else { (left, right) };
        let without = |item: Item| match item {
            Item::One(Some(name), _) | Item::Loose(name, _) if by.contains(&name) => None,
            Item::Star(star) => Some(Item::Star(Star {
                without: star.without.iter().chain(by).cloned().collect(),
                inexact: star.inexact || uncertain,
                ..star
            })),
            item => Some(item),
        };
        let rest = left.into_iter().chain(right).filter_map(without).collect();
        (merged, rest)
    }

    fn range_function(&mut self, range: &p::RangeFunction) {
        let mut items = Vec::new();
        let mut name = String::new();
        for function in &range.functions {
            let Some(N::List(pair)) = &function.node else {
                items.push(Item::Several(Flow::opaque("a function of an odd form")));
                continue;
            };
            let Some(call) = pair.items.first() else { continue };
            let flow = self.expression(call).computed();
            self.filter(&flow);
            if let Some(N::FuncCall(call)) = &call.node
                && let Some(called) = call.funcname.iter().rev().find_map(string)
            {
                called.clone_into(&mut name);
            }
            let defined = match pair.items.get(1).and_then(|node| node.node.as_ref()) {
                Some(N::List(list)) => column_names(&list.items),
                _ => Vec::new(),
            };
            items.extend(called(call, defined, flow));
        }
        if !range.coldeflist.is_empty() {
            let flow = union(items.iter().map(Item::flow));
            items = named(column_names(&range.coldeflist), &flow);
        }
        if range.ordinality {
            items.push(Item::One(Some("ordinality".to_owned()), Flow::default()));
        }
        let alias = range.alias.as_ref();
        let scalar = alias.filter(|alias| alias.colnames.is_empty()).map(|alias| &alias.aliasname);
        if let (Some(alias), [Item::One(own, _), ..]) = (scalar, items.as_mut_slice())
            && range.coldeflist.is_empty()
            && range.functions.len() == 1
        {
            // A function that returns one column gives it the alias's name.
            *own = Some(alias.clone());
        }
        self.push_aliased(alias, &name, items);
    }

    /// `XMLTABLE`.
    fn table_function(&mut self, range: &p::RangeTableFunc) {
        let mut flow = self.optional(range.docexpr.as_deref());
        flow.add(self.optional(range.rowexpr.as_deref()));
        flow.add(self.union_of(&range.namespaces));
        let mut names = Vec::new();
        for column in &range.columns {
            if let Some(N::RangeTableFuncCol(column)) = &column.node {
                flow.add(self.optional(column.colexpr.as_deref()));
                flow.add(self.optional(column.coldefexpr.as_deref()));
                names.push(column.colname.clone());
            }
        }
        let flow = self.combine(flow, true);
        self.push_aliased(range.alias.as_ref(), "xmltable", named(names, &flow));
    }

    fn json_table(&mut self, table: &p::JsonTable) {
        let mut flow = Flow::default();
        if let Some(context) = &table.context_item {
            flow.add(self.json_value(context));
        }
        flow.add(self.union_of(&table.passing));
        let mut names = Vec::new();
        self.json_columns(&table.columns, &mut names, &mut flow);
        let flow = self.combine(flow, true);
        self.push_aliased(table.alias.as_ref(), "json_table", named(names, &flow));
    }

    fn json_columns(&mut self, columns: &[p::Node], names: &mut Vec<String>, flow: &mut Flow) {
        for column in columns {
            let Some(N::JsonTableColumn(column)) = &column.node else { continue };
            for behavior in [&column.on_empty, &column.on_error].into_iter().flatten() {
                flow.add(self.optional(behavior.expr.as_deref()));
            }
            if column.columns.is_empty() {
                names.push(column.name.clone());
            } else {
                self.json_columns(&column.columns, names, flow);
            }
        }
    }
}

/// The columns that one function in FROM returns.
fn called(call: &p::Node, defined: Vec<String>, flow: Flow) -> Vec<Item> {
    if !defined.is_empty() {
        return named(defined, &flow);
    }
    match &call.node {
        Some(N::FuncCall(call)) => match function::single_column(call) {
            Some(name) => vec![Item::One(Some(name.to_owned()), flow)],
            None => vec![Item::Several(flow)],
        },
        Some(N::SqlvalueFunction(_)) => vec![Item::One(None, flow)],
        _ => vec![Item::Several(flow)],
    }
}

fn named(names: Vec<String>, flow: &Flow) -> Vec<Item> {
    names.into_iter().map(|name| Item::One(Some(name), flow.clone())).collect()
}

/// The names in a list of `String` nodes.
pub(super) fn strings(nodes: &[p::Node]) -> Vec<String> {
    nodes.iter().filter_map(string).map(str::to_owned).collect()
}

fn column_names(definitions: &[p::Node]) -> Vec<String> {
    let name = |node: &p::Node| match &node.node {
        Some(N::ColumnDef(column)) => Some(column.colname.clone()),
        _ => None,
    };
    definitions.iter().filter_map(name).collect()
}

fn has_star(items: &[Item]) -> bool {
    items.iter().any(|item| !matches!(item, Item::One(Some(_), _)))
}

/// The names that both sides surely have.
fn common(left: &[Item], right: &[Item]) -> Vec<String> {
    let names = |items: &[Item]| -> Vec<String> {
        let name = |item: &Item| match item {
            Item::One(name, _) => name.clone(),
            _ => None,
        };
        items.iter().filter_map(name).collect()
    };
    let right = names(right);
    names(left).into_iter().filter(|name| right.contains(name)).collect()
}
