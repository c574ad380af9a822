//! Which columns a name may stand for, by PostgreSQL's scoping rules.

use std::rc::Rc;

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::Relation;

use super::flow::{self, Flow, Item, union};
use super::range::Table;
use super::{Tracer, total};
use crate::collect::string;

/// Columns that every table has, which hold nothing of a row's values.
const SYSTEM_COLUMNS: [&str; 7] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"];

/// One query's FROM.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// What a qualified name may be of.
    pub(super) ranges: Vec<Table>,
    /// What an unqualified name may be of, and what `*` stands for.
    pub(super) columns: Vec<Item>,
    /// What each named window is made of.
    pub(super) windows: Vec<(String, Flow)>,
}

/// A column reference, taken apart.
pub(super) enum Name<'a> {
    /// `column`
    Bare(&'a str),
    /// `table.column`, `schema.table.column`
    Of(Option<&'a str>, &'a str, &'a str),
    /// `*`
    All,
    /// `table.*`, `schema.table.*`
    AllOf(Option<&'a str>, &'a str),
    /// Anything else.
    Odd,
}

pub(super) fn name(reference: &p::ColumnRef) -> Name<'_> {
    let star = matches!(reference.fields.last().map(|field| &field.node), Some(Some(N::AStar(_))));
    let parts: Vec<_> = reference.fields.iter().filter_map(string).collect();
    match (parts.as_slice(), star) {
        ([], true) => Name::All,
        ([table], true) => Name::AllOf(None, table),
        ([schema, table] | [_, schema, table], true) => Name::AllOf(Some(schema), table),
        ([column], false) => Name::Bare(column),
        ([table, column], false) => Name::Of(None, table, column),
        ([schema, table, column] | [_, schema, table, column], false) => {
            Name::Of(Some(schema), table, column)
        }
        _ => Name::Odd,
    }
}

impl Tracer<'_> {
    /// Brings a range into the innermost level, and its columns with it.
    pub(super) fn push_range(&mut self, name: &str, relation: Option<Relation>, items: Vec<Item>) {
        let items = self.limited(items);
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        level.columns.extend(items.iter().cloned());
        level.ranges.push(Table { name: name.to_owned(), relation, items: Rc::new(items) });
    }

    /// The same items, or one that stands for them where there are too many.
    pub(super) fn limited(&mut self, items: Vec<Item>) -> Vec<Item> {
        let weight = items.iter().map(Item::weight).sum();
        if !self.spend(weight) || items.len() > super::ITEMS_MAX {
            return vec![Item::Several(Flow::opaque("it has too many columns to follow"))];
        }
        items
    }

    /// What a column reference is made of.
    pub(super) fn column(&mut self, reference: &p::ColumnRef) -> Flow {
        // Every column in scope may be looked at.
        let looked: usize = self.levels.iter().map(|level| level.columns.len()).sum();
        if !self.spend(looked / 8) {
            return Flow::opaque("too long to follow");
        }
        let flow = match name(reference) {
            Name::Bare(column) => self
                .bare(column)
                .unwrap_or_else(|| Flow::opaque("a column of no relation that is known")),
            Name::Of(schema, table, column) => self.qualified(schema, table, column),
            Name::All => self.all(),
            Name::AllOf(schema, table) => self.row(schema, table),
            Name::Odd => Flow::opaque("a column reference of an odd form"),
        };
        if self.spend(flow.weight()) { flow } else { Flow::opaque("too long to follow") }
    }

    /// An unqualified name: of the innermost query that surely has it, and of all that may; `None`
    /// where none may.
    pub(super) fn bare(&mut self, column: &str) -> Option<Flow> {
        let mut maybe = Vec::new();
        let mut rows = Vec::new();
        for level in self.levels.iter().rev() {
            let found = flow::find(column, &level.columns);
            if let Some(exact) = found.exact {
                maybe.push(exact);
                break;
            }
            let surely_not = found.maybe.is_empty();
            maybe.extend(found.maybe);
            if let Some(table) = level.ranges.iter().find(|table| table.is(None, column)) {
                rows.push(Rc::clone(&table.items));
                if surely_not {
                    break;
                }
            }
        }
        for row in rows {
            maybe.push(self.whole(&row));
        }
        match maybe.len() {
            0 if SYSTEM_COLUMNS.contains(&column) => Some(Flow::default()),
            // All relations of the body are known and have no such column: a parameter, and the
            // arguments are in what the call is made of.
            0 if !self.functions.is_empty() => Some(Flow::default()),
            0 => None,
            1 => maybe.into_iter().next(),
            _ => Some(union(maybe)),
        }
    }

    /// A qualified name: of the innermost range of that name.
    pub(super) fn qualified(&mut self, schema: Option<&str>, table: &str, column: &str) -> Flow {
        let Some(range) = self.range(schema, table) else {
            return Flow::opaque("a column of no relation that is known");
        };
        let mut found = flow::find(column, &range);
        if let Some(exact) = found.exact {
            return exact;
        }
        if SYSTEM_COLUMNS.contains(&column) && found.maybe.is_empty() {
            return Flow::default();
        }
        let surely_not = found.maybe.is_empty();
        if surely_not || total::takes_any(column) {
            // `t.function` is `function(t)` where no column has that name.
            found.maybe.push(self.whole(&range));
        }
        let one = found.maybe.len() == 1;
        let mut all = union(found.maybe.iter().cloned());
        if let (true, Some(only)) = (one, found.maybe.into_iter().next()) {
            all = only;
        }
        if surely_not && !total::takes_any(column) {
            self.filter(&all);
            self.called.insert(column.to_owned());
            all.add(Flow::opaque(format!("{column} is no column that is known")));
        }
        all
    }

    fn range(&self, schema: Option<&str>, table: &str) -> Option<Rc<Vec<Item>>> {
        let mut ranges = self.levels.iter().rev().flat_map(|level| &level.ranges);
        ranges.find(|range| range.is(schema, table)).map(|range| Rc::clone(&range.items))
    }

    /// A whole row.
    fn row(&mut self, schema: Option<&str>, table: &str) -> Flow {
        match self.range(schema, table) {
            Some(items) => self.whole(&items),
            None => Flow::opaque("a row of no relation that is known"),
        }
    }

    /// All columns of a range, as one value.
    fn whole(&mut self, items: &[Item]) -> Flow {
        if !self.spend(items.iter().map(Item::weight).sum()) {
            return Flow::opaque("too long to follow");
        }
        union(items.iter().map(Item::flow))
    }

    /// Everything that `*` stands for, as one value.
    fn all(&mut self) -> Flow {
        let columns = self.levels.last().map(|level| level.columns.clone());
        self.whole(&columns.unwrap_or_default())
    }

    /// The columns that a star in a select list stands for; `None` for what is no star.
    pub(super) fn star(&mut self, node: &p::Node) -> Option<Vec<Item>> {
        match node.node.as_ref()? {
            N::ColumnRef(reference) => match name(reference) {
                Name::All => Some(self.levels.last().map(|level| level.columns.clone())?),
                Name::AllOf(schema, table) => Some(match self.range(schema, table) {
                    Some(items) => items.to_vec(),
                    None => vec![Item::Several(Flow::opaque("a star of no known relation"))],
                }),
                _ => None,
            },
            N::AIndirection(indirection) => {
                let last = indirection.indirection.last().map(|node| &node.node);
                if !matches!(last, Some(Some(N::AStar(_)))) {
                    return None;
                }
                let flow = self.indirection(indirection);
                Some(vec![Item::Several(flow.computed())])
            }
            _ => None,
        }
    }

    /// Columns that may have the name of a range which `(t).column` means; `None` where it means none,
    /// or surely a column.
    pub(super) fn names_range(&self, reference: &p::ColumnRef) -> Option<Vec<Flow>> {
        let Name::Bare(table) = name(reference) else {
            return None;
        };
        let levels = self.levels.iter().rev();
        levels.map(|level| (level, flow::find(table, &level.columns))).find_map(|(level, found)| {
            let named = level.ranges.iter().any(|range| range.is(None, table));
            (named && found.exact.is_none()).then_some(found.maybe)
        })
    }

    /// The `WITH` item of that name, where one is in scope.
    pub(super) fn cte(&self, named: &p::RangeVar) -> Option<Rc<Vec<Item>>> {
        if !named.schemaname.is_empty() {
            return None;
        }
        let mut ctes = self.ctes.iter().rev();
        ctes.find(|cte| cte.name == named.relname).map(|cte| Rc::clone(&cte.items))
    }
}
