//! SELECT, VALUES, set operations and WITH.

use std::collections::BTreeSet;
use std::rc::Rc;

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;

use super::flow::{self, Flow, Item, union};
use super::from::strings;
use super::names::output_name;
use super::range::Cte;
use super::scope::{Level, Name, name};
use super::{ITEMS_MAX, Tracer};
use crate::Settings;
use crate::collect::Collector;
use crate::walk::Walk;

/// Items of one `WITH` that are put in order; more are taken as they stand.
const TURNS_MAX: usize = 64;

impl Tracer<'_> {
    /// The columns of a query in whatever node it stands.
    pub(super) fn subquery(&mut self, query: Option<&p::Node>) -> Vec<Item> {
        match query.and_then(|query| query.node.as_ref()) {
            Some(node) => self.returned(node).unwrap_or_else(|| {
                let reason = "a query of a kind that has no place here";
                self.filters_are_opaque(reason);
                vec![Item::Several(Flow::opaque(reason))]
            }),
            None => Vec::new(),
        }
    }

    /// What a statement that has a query's place returns; `None` for any other statement.
    pub(super) fn returned(&mut self, node: &N) -> Option<Vec<Item>> {
        match node {
            N::SelectStmt(select) => Some(self.select(select)),
            N::InsertStmt(stmt) => Some(self.insert(stmt)),
            N::UpdateStmt(stmt) => Some(self.update(stmt)),
            N::DeleteStmt(stmt) => Some(self.delete(stmt)),
            N::MergeStmt(stmt) => Some(self.merge_into(stmt)),
            _ => None,
        }
    }

    /// Runs `inner` in a query of its own, with its `WITH` in scope.
    pub(super) fn in_query<T>(
        &mut self,
        with: Option<&p::WithClause>,
        inner: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let outer = self.ctes.len();
        if let Some(with) = with {
            self.with(with);
        }
        self.levels.push(Level::default());
        let result = inner(self);
        self.levels.pop();
        self.ctes.truncate(outer);
        result
    }

    pub(super) fn select(&mut self, select: &p::SelectStmt) -> Vec<Item> {
        if !self.spend(1) {
            return vec![Item::Several(Flow::opaque("too long to follow"))];
        }
        let items = self.further_in(|to| to.select_within(select));
        items.unwrap_or_else(|| vec![Item::Several(Flow::opaque("nested too deep to follow"))])
    }

    fn select_within(&mut self, select: &p::SelectStmt) -> Vec<Item> {
        let into = select.into_clause.is_some() || leftmost_into(select);
        let items = self.in_query(select.with_clause.as_ref(), |to| {
            let items = match (&select.larg, &select.rarg) {
                (Some(left), Some(right)) => to.set_operation(select, left, right),
                _ if !select.values_lists.is_empty() => to.values(&select.values_lists),
                _ => to.plain_select(select),
            };
            to.order_and_limit(select, &items);
            items
        });
        if into {
            self.carry(&items);
        }
        items
    }

    fn plain_select(&mut self, select: &p::SelectStmt) -> Vec<Item> {
        select.from_clause.iter().for_each(|item| self.add_item(item));
        let condition = self.optional(select.where_clause.as_deref());
        self.filter(&condition);
        self.windows(&select.window_clause);
        let items = self.targets(&select.target_list);
        for group in &select.group_clause {
            self.sort_key(group, &items, false);
        }
        let having = self.optional(select.having_clause.as_deref());
        self.filter(&having);
        match select.distinct_clause.as_slice() {
            [] => {}
            // Plain DISTINCT is a list with one empty node.
            [only] if only.node.is_none() => self.carry(&items),
            keys => keys.iter().for_each(|key| self.sort_key(key, &items, true)),
        }
        items
    }

    fn order_and_limit(&mut self, select: &p::SelectStmt, items: &[Item]) {
        for sort in &select.sort_clause {
            self.sort_key(sort, items, true);
        }
        for limit in [&select.limit_offset, &select.limit_count].into_iter().flatten() {
            let limit = self.expression(limit);
            self.filter(&limit);
        }
    }

    fn windows(&mut self, clause: &[p::Node]) {
        for window in clause {
            if let Some(N::WindowDef(window)) = &window.node {
                let flow = self.window(window);
                if let Some(level) = self.levels.last_mut() {
                    level.windows.push((window.name.clone(), flow));
                }
            }
        }
    }

    /// What a window is made of; it decides.
    pub(super) fn window(&mut self, window: &p::WindowDef) -> Flow {
        let mut flow = self.union_of(&window.partition_clause);
        flow.add(self.union_of(&window.order_clause));
        flow.add(self.optional(window.start_offset.as_deref()));
        flow.add(self.optional(window.end_offset.as_deref()));
        self.filter(&flow);
        let level = self.levels.last().map(|level| level.windows.as_slice()).unwrap_or_default();
        for named in [&window.name, &window.refname] {
            if let Some((_, base)) = level.iter().find(|(name, _)| name == named) {
                flow.add(base.clone());
            }
        }
        flow
    }

    /// A key of ORDER BY, GROUP BY or DISTINCT ON: an output's number or name, or an expression.
    fn sort_key(&mut self, key: &p::Node, items: &[Item], outputs_first: bool) {
        let key = match &key.node {
            Some(N::SortBy(sort)) => sort.node.as_deref(),
            Some(N::GroupingSet(set)) => {
                set.content.iter().for_each(|key| self.sort_key(key, items, false));
                return;
            }
            _ => Some(key),
        };
        match key.and_then(|key| key.node.as_ref()) {
            Some(N::AConst(constant)) => {
                // Its number decides which column it is.
                self.literals_matter = true;
                self.by_number(constant, items);
            }
            Some(N::ColumnRef(reference)) => {
                let mut flow = Flow::default();
                let mut is_output = false;
                if let Name::Bare(column) = name(reference) {
                    let found = flow::find(column, items);
                    // A set operation has no FROM: the name is an output's.
                    let alone = self.levels.last().is_some_and(|level| level.ranges.is_empty());
                    let maybe = alone && !found.maybe.is_empty();
                    is_output = found.exact.is_some() || maybe;
                    found.exact.into_iter().chain(found.maybe).for_each(|found| flow.add(found));
                }
                match name(reference) {
                    // GROUP BY means a column first, where there is one of that name.
                    Name::Bare(column) if is_output && !outputs_first => {
                        flow.add(self.bare(column).unwrap_or_default());
                    }
                    _ if is_output => {}
                    _ => flow.add(self.column(reference)),
                }
                self.filter(&flow);
            }
            _ => {
                let flow = self.optional(key);
                self.filter(&flow);
            }
        }
    }

    fn by_number(&mut self, constant: &p::AConst, items: &[Item]) {
        let Some(p::a_const::Val::Ival(number)) = &constant.val else {
            return;
        };
        let before = usize::try_from(number.ival).ok().and_then(|number| number.checked_sub(1));
        let spelt = items.iter().take_while(|item| matches!(item, Item::One(..))).count();
        match before.and_then(|at| items.get(at)) {
            Some(item) if before.is_some_and(|at| at < spelt) => self.filter(&item.flow()),
            _ => self.carry(items),
        }
    }

    /// The columns of a select list.
    pub(super) fn targets(&mut self, targets: &[p::Node]) -> Vec<Item> {
        let mut items = Vec::with_capacity(targets.len());
        for target in targets {
            let Some(N::ResTarget(target)) = &target.node else {
                items.push(Item::Several(Flow::opaque("a select list of an odd form")));
                continue;
            };
            let Some(value) = target.val.as_deref() else {
                continue;
            };
            if let Some(columns) = self.star(value) {
                let columns = self.limited(columns);
                items.extend(columns);
            } else {
                let named = (!target.name.is_empty()).then(|| target.name.clone());
                let name = named.or_else(|| output_name(value));
                items.push(Item::One(name, self.expression(value)));
            }
            if items.len() > ITEMS_MAX {
                break;
            }
        }
        self.limited(items)
    }

    fn set_operation(
        &mut self,
        select: &p::SelectStmt,
        left: &p::SelectStmt,
        right: &p::SelectStmt,
    ) -> Vec<Item> {
        let left = self.select(left);
        let right = self.select(right);
        let items = flow::by_position(left, right);
        for item in &items {
            let flow = item.flow();
            self.meet(&flow);
            if !(select.all && select.op == p::SetOperation::SetopUnion as i32) {
                // It compares rows.
                self.filter(&flow);
            }
        }
        self.limited(items)
    }

    fn values(&mut self, rows: &[p::Node]) -> Vec<Item> {
        let mut columns: Vec<Flow> = Vec::new();
        for row in rows {
            let Some(N::List(row)) = &row.node else { continue };
            for (at, value) in row.items.iter().enumerate() {
                let flow = self.expression(value);
                match columns.get_mut(at) {
                    Some(column) => column.add(flow),
                    None => columns.push(flow),
                }
            }
        }
        let name = |at: usize| format!("column{}", at.saturating_add(1));
        let items = columns.into_iter().enumerate();
        let items = items.map(|(at, flow)| Item::One(Some(name(at)), flow.computed())).collect();
        self.limited(items)
    }

    fn with(&mut self, with: &p::WithClause) {
        let outer = self.ctes.len();
        let all = with.ctes.iter().filter_map(|node| match &node.node {
            Some(N::CommonTableExpr(cte)) => Some(cte.as_ref()),
            _ => None,
        });
        if with.recursive {
            // Those behind may be named before their turn; then they can't be told.
            for cte in all.clone() {
                let unseen = Flow::opaque(format!("{} is used before its turn", cte.ctename));
                self.name_cte(&cte.ctename, vec![Item::Several(unseen)]);
            }
        }
        for (at, cte) in in_turn(all.collect(), with.recursive) {
            let items = if with.recursive { self.recursive(cte) } else { self.plain_cte(cte) };
            self.meets_again(cte, &items);
            let items = with_search_columns(cte, items);
            if with.recursive
                && let Some(known) = self.ctes.get_mut(outer.saturating_add(at))
            {
                known.items = Rc::new(items);
            } else {
                self.name_cte(&cte.ctename, items);
            }
        }
    }

    /// `CYCLE` compares its columns with those that were met before.
    fn meets_again(&mut self, cte: &p::CommonTableExpr, items: &[Item]) {
        let Some(cycle) = &cte.cycle_clause else { return };
        let compared = strings(&cycle.cycle_col_list);
        for item in items {
            if !matches!(item, Item::One(Some(name), _) if !compared.contains(name)) {
                self.filter(&item.flow());
            }
        }
    }

    fn name_cte(&mut self, name: &str, items: Vec<Item>) {
        self.ctes.push(Cte { name: name.to_owned(), items: Rc::new(items) });
    }

    fn plain_cte(&mut self, cte: &p::CommonTableExpr) -> Vec<Item> {
        let items = self.subquery(cte.ctequery.as_deref());
        flow::rename(items, &strings(&cte.aliascolnames))
    }

    /// An item of `WITH RECURSIVE`: what it is made of without itself, then with itself.
    fn recursive(&mut self, cte: &p::CommonTableExpr) -> Vec<Item> {
        let names = strings(&cte.aliascolnames);
        let Some(N::SelectStmt(select)) =
            cte.ctequery.as_ref().and_then(|query| query.node.as_ref())
        else {
            return self.plain_cte(cte);
        };
        let Some(first) = select.larg.as_deref() else {
            return self.plain_cte(cte);
        };
        let scope = self.ctes.len();
        let first = self.in_query(select.with_clause.as_ref(), |to| to.select(first));
        let first = flow::rename(first, &names);
        self.name_cte(&cte.ctename, with_own_columns(cte, first.clone()));
        let once = flow::rename(self.select(select), &names);
        self.ctes.truncate(scope);
        if flow::is_settled(&once, &first) {
            return once;
        }
        let mixed = flow::mixed(once);
        self.name_cte(&cte.ctename, with_own_columns(cte, mixed.clone()));
        let _ = self.select(select);
        self.ctes.truncate(scope);
        self.limited(mixed)
    }
}

/// Items of `WITH` with their places, in an order in which each comes after those that it reads, where
/// there is one.
fn in_turn(items: Vec<&p::CommonTableExpr>, recursive: bool) -> Vec<(usize, &p::CommonTableExpr)> {
    let mut left: Vec<_> = items.into_iter().enumerate().collect();
    if !recursive || !(2..=TURNS_MAX).contains(&left.len()) {
        return left;
    }
    let read: Vec<_> = left.iter().map(|(_, cte)| reads(cte)).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waits = |at: usize| {
            let others = left.iter().filter(|(other, _)| *other != at);
            read.get(at)
                .is_some_and(|read| others.into_iter().any(|(_, o)| read.contains(&o.ctename)))
        };
        let next = left.iter().position(|(at, _)| !waits(*at)).unwrap_or_default();
        ordered.push(left.remove(next));
    }
    ordered
}

/// The names that a query reads without a schema.
fn reads(cte: &p::CommonTableExpr) -> BTreeSet<String> {
    let mut found = Collector::new(Settings::default(), 0);
    cte.ctequery.walk(&mut found);
    let relations = found.effects.into_iter().filter_map(|effect| effect.relation);
    relations.filter(|relation| relation.schema.is_none()).map(|relation| relation.name).collect()
}

/// Inside the recursion the columns that `SEARCH` and `CYCLE` add have names, and no place in a star.
fn with_own_columns(cte: &p::CommonTableExpr, mut items: Vec<Item>) -> Vec<Item> {
    let spelt = items.len();
    let all = with_search_columns(cte, items.clone());
    let added = all.into_iter().skip(spelt).filter_map(|item| match item {
        Item::One(Some(name), flow) => Some(Item::Loose(name, flow)),
        _ => None,
    });
    items.extend(added);
    items
}

/// `SEARCH` and `CYCLE` add columns made of the others.
fn with_search_columns(cte: &p::CommonTableExpr, mut items: Vec<Item>) -> Vec<Item> {
    let all = || union(items.iter().map(Item::flow));
    let mut added = Vec::new();
    if let Some(search) = &cte.search_clause {
        added.push(Item::One(Some(search.search_seq_column.clone()), all()));
    }
    if let Some(cycle) = &cte.cycle_clause {
        added.push(Item::One(Some(cycle.cycle_mark_column.clone()), all()));
        added.push(Item::One(Some(cycle.cycle_path_column.clone()), all()));
    }
    items.extend(added);
    items
}

/// `SELECT .. INTO` of a set operation stands in its first query.
fn leftmost_into(select: &p::SelectStmt) -> bool {
    let mut at = select.larg.as_deref();
    while let Some(left) = at {
        if left.into_clause.is_some() {
            return true;
        }
        at = left.larg.as_deref();
    }
    false
}
