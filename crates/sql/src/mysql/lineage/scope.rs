//! Which columns a name may stand for (MySQL manual, "Identifier Qualifiers", "Problems with Column
//! Aliases").

use std::rc::Rc;

use sqlparser::ast::Ident;
use tidegate_event::Relation;

use super::Tracer;
use crate::lineage::flow::{self, Flow, Item, union};
use crate::lineage::range::Table;
use crate::mysql::names::folded;

/// One query's FROM and select list.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// What a qualified name may be of.
    pub ranges: Vec<Table>,
    /// What an unqualified name may be of, and what `*` stands for.
    pub columns: Vec<Item>,
    /// The select list's columns so far, which subqueries may name.
    pub outputs: Vec<Item>,
    /// Whether names of this very level may be the select list's.
    pub names_outputs: bool,
    /// What each named window is made of.
    pub windows: Vec<(String, Flow)>,
}

const NOT_FOUND: &str = "a column of no relation that is known";
const TOO_LONG: &str = "too long to follow";

/// Whether a name may stand for a column of another: `_rowid` does for an integer key.
fn may_be_any(name: &str) -> bool {
    !name.is_ascii() || name.eq_ignore_ascii_case("_rowid")
}

impl Tracer<'_> {
    /// Brings a range into the innermost level, and its columns with it.
    pub(super) fn push_range(&mut self, name: &str, relation: Option<Relation>, items: Vec<Item>) {
        let items = self.limited(items);
        if let Some(level) = self.levels.last_mut() {
            level.columns.extend(items.iter().cloned());
        }
        self.push_hidden(name, relation, items);
    }

    /// Brings a range into the innermost level that only qualified names mean.
    pub(super) fn push_hidden(&mut self, name: &str, relation: Option<Relation>, items: Vec<Item>) {
        if let Some(level) = self.levels.last_mut() {
            let name = folded(name);
            level.ranges.push(Table { name, relation, items: Rc::new(items) });
        }
    }

    /// The same items, or one that stands for them where there are too many.
    pub(super) fn limited(&mut self, items: Vec<Item>) -> Vec<Item> {
        let weight = items.iter().map(Item::weight).sum();
        // MySQL allows 4096 columns in a result, MariaDB 4096.
        if !self.notes.spend(weight) || items.len() > 4096 {
            return vec![Item::Several(Flow::opaque("it has too many columns to follow"))];
        }
        items
    }

    /// An unqualified name: of the innermost query that surely has it, and of all that may.
    pub(super) fn bare(&mut self, ident: &Ident) -> Flow {
        let looked: usize = self.levels.iter().map(|level| level.columns.len()).sum();
        if !self.notes.spend(looked / 8) {
            return Flow::opaque(TOO_LONG);
        }
        if may_be_any(&ident.value) {
            return self.any_column();
        }
        let name = folded(&ident.value);
        let mut maybe = Vec::new();
        let innermost = self.levels.len().saturating_sub(1);
        for (at, level) in self.levels.iter().enumerate().rev() {
            if at != innermost || level.names_outputs {
                let found = flow::find(&name, &level.outputs);
                maybe.extend(found.exact);
                maybe.extend(found.maybe);
            }
            let found = flow::find(&name, &level.columns);
            maybe.extend(found.maybe);
            if let Some(exact) = found.exact {
                maybe.push(exact);
                break;
            }
        }
        self.one_of(maybe)
    }

    /// A qualified name: of the innermost query that has ranges of that name.
    pub(super) fn of_range(&mut self, schema: Option<&str>, table: &str, column: &Ident) -> Flow {
        let ranges = self.ranges(schema, table);
        let mut maybe = Vec::new();
        for items in ranges {
            if may_be_any(&column.value) {
                maybe.push(self.whole(&items));
                continue;
            }
            let found = flow::find(&folded(&column.value), &items);
            maybe.extend(found.exact);
            maybe.extend(found.maybe);
        }
        self.one_of(maybe)
    }

    fn one_of(&mut self, mut maybe: Vec<Flow>) -> Flow {
        let flow = match maybe.len() {
            0 => Flow::opaque(NOT_FOUND),
            1 => maybe.pop().unwrap_or_default(),
            _ => union(maybe),
        };
        if self.notes.spend(flow.weight()) { flow } else { Flow::opaque(TOO_LONG) }
    }

    /// The columns of the innermost ranges of that name.
    pub(super) fn ranges(&self, schema: Option<&str>, table: &str) -> Vec<Rc<Vec<Item>>> {
        let (schema, table) = (schema.map(folded), folded(table));
        for level in self.levels.iter().rev() {
            let named = level.ranges.iter().filter(|range| range.is(schema.as_deref(), &table));
            let found: Vec<_> = named.map(|range| Rc::clone(&range.items)).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// All columns of a range, as one value.
    pub(super) fn whole(&mut self, items: &[Item]) -> Flow {
        if !self.notes.spend(items.iter().map(Item::weight).sum()) {
            return Flow::opaque(TOO_LONG);
        }
        union(items.iter().map(Item::flow)).computed()
    }

    /// Every column in scope, as one value.
    fn any_column(&mut self) -> Flow {
        let levels = self.levels.iter();
        let items: Vec<Item> =
            levels.flat_map(|level| level.columns.iter().chain(&level.outputs)).cloned().collect();
        self.whole(&items)
    }
}
