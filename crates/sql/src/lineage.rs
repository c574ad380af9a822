//! Follows columns through a parse tree: into outputs, conditions and values' places.
//!
//! Promises: a superset (see [`tidegate_event::Lineage`]). A name that may be of several relations
//! names all of them; an expression of a kind that has no place here, or a function that isn't known
//! to compute from its arguments alone, is opaque. The lineage of texts with one
//! [shape](crate::shape) is the same unless `literals_matter` says otherwise.
//!
//! How it judges where more than one answer is right:
//! - Values that go elsewhere (`INSERT .. SELECT`, `SET a = b`, `CREATE TABLE AS`, `CREATE VIEW`)
//!   count as filters: whoever may not filter by a column may not copy it either.
//! - A plan (`EXPLAIN`) shows conditions, and with `ANALYZE` counts, but no value of a row: its
//!   output is made of what decides.
//! - An argument of what may fail on some value, or take time by it, is a filter; see `total`.
//! - `CASE`, `COALESCE`, `AND` and `OR` work parts out only when others say so: where such a part may
//!   fail, all of the expression is a filter.
//!
//! Limits: [`WORK_MAX`] for a text; beyond it the rows are opaque, and so are filters and values.
//! [`PAIRS_MAX`] values with their columns, [`SOURCES_MAX`] columns in a statement's outputs.
//! Depth is that of the decoded tree, and [`NESTING_MAX`] with the definitions behind it.
//!
//! Known gaps: what a trigger, rule or `DEFAULT` of a table does with a value isn't seen. That a
//! plain `INSERT` violates a unique constraint tells that a value exists. Arrays that fail to fit where
//! their columns hold others of other dimensions count as total. A cast to a type of one's own is taken to hold no more than what is
//! cast (it is `execute`, too).

mod change;
mod expression;
pub(crate) mod flow;
mod from;
mod function;
pub(crate) mod known;
mod names;
pub(crate) mod notes;
mod query;
pub(crate) mod range;
mod scope;
mod statement;
mod total;

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use pg_query::protobuf as p;
use tidegate_event::{Later, Lineage, Rows, ValueAt};

use crate::Settings;
use crate::resolve::Names;
use flow::{Flow, Item, Star};
use notes::Notes;
use range::Cte;
use scope::Level;

/// Steps of work for one text: columns and values copied, joined or looked through.
pub(crate) const WORK_MAX: usize = 1_000_000;

/// Expressions and queries inside each other, with those of the definitions that they stand for. What
/// one text can nest is less; only views on views reach it.
const NESTING_MAX: usize = 150;

/// Pairs of a value and a column that it meets; beyond them values are opaque.
const PAIRS_MAX: usize = 200_000;

/// Columns that the outputs of one statement are made of, counted for each; beyond them its rows are
/// opaque.
pub(crate) const SOURCES_MAX: usize = 50_000;

/// Columns of one result or range; PostgreSQL allows 1,664 in a result.
const ITEMS_MAX: usize = 1_664;

/// Follows columns through one text.
pub(crate) struct Tracer<'a> {
    /// Where each literal of the text begins and ends; `None` in a text that is not the statement's.
    literals: Option<Vec<Range<usize>>>,
    levels: Vec<Level>,
    ctes: Vec<Cte>,
    notes: Notes,
    later: Vec<Later>,
    /// Which statement of the text is looked at.
    statement: usize,
    pub(crate) literals_matter: bool,
    /// Functions called that no `execute` tells of: as `row.function`, or by a built-in's name.
    called: BTreeSet<String>,
    text: &'a str,
    names: Option<Names<'a>>,
    /// The columns of views that were followed, by OID.
    views: Vec<(u32, Rc<Vec<Item>>)>,
    /// Functions whose bodies are being followed, by OID.
    functions: Vec<u32>,
    /// Definitions inside each other at this place.
    deep: usize,
    /// Whether what is looked at is a definition, not the statement's text.
    nested: bool,
}

/// What following a text's columns gives.
pub(crate) struct Traced {
    pub(crate) lineage: Lineage,
    /// A literal's value decided it.
    pub(crate) literals_matter: bool,
    /// Functions that it calls as if they were columns of a row, or built-in ones.
    pub(crate) called: BTreeSet<String>,
}

/// The lineage of a whole text.
pub(crate) fn of(
    tree: &p::ParseResult,
    text: &str,
    settings: Settings,
    names: Option<Names<'_>>,
) -> Traced {
    let mut tracer = Tracer::new(text, settings);
    tracer.names = names;
    let mut rows = Vec::with_capacity(tree.stmts.len());
    for raw in &tree.stmts {
        rows.push(match raw.stmt.as_deref().and_then(|stmt| stmt.node.as_ref()) {
            Some(node) => tracer.top(node),
            None => Rows::Opaque("the parser returned an empty statement".to_owned()),
        });
        tracer.statement = tracer.statement.saturating_add(1);
    }
    let literals_matter = tracer.literals_matter;
    let called = std::mem::take(&mut tracer.called);
    Traced { lineage: tracer.end(rows), literals_matter, called }
}

impl<'a> Tracer<'a> {
    fn new(text: &'a str, settings: Settings) -> Self {
        let literals = crate::literals(text.as_bytes(), settings);
        let mut notes = Notes::new();
        if literals.is_none() {
            notes.values_are_opaque("its literals can't be told");
        }
        Self {
            literals,
            levels: Vec::new(),
            ctes: Vec::new(),
            notes,
            later: Vec::new(),
            statement: 0,
            literals_matter: false,
            called: BTreeSet::new(),
            text,
            names: None,
            views: Vec::new(),
            functions: Vec::new(),
            deep: 0,
            nested: false,
        }
    }

    fn end(self, rows: Vec<Rows>) -> Lineage {
        self.notes.end(rows, self.later)
    }

    /// Takes `steps` from the budget; `false` when it is spent, and everything opaque anyway.
    fn spend(&mut self, steps: usize) -> bool {
        self.notes.spend(steps)
    }

    /// Runs `inner` one level further in; `None` where that is too deep.
    fn further_in<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if !self.notes.further_in() {
            return None;
        }
        let result = inner(self);
        self.notes.out();
        Some(result)
    }

    /// The columns of `flow` decide something.
    fn filter(&mut self, flow: &Flow) {
        self.notes.filter(flow);
    }

    /// The values of `flow` meet its columns.
    fn meet(&mut self, flow: &Flow) {
        self.notes.meet_with(&flow.values, flow);
    }

    /// These values meet the columns of `with`.
    fn meet_with(&mut self, values: &BTreeSet<ValueAt>, with: &Flow) {
        self.notes.meet_with(values, with);
    }

    /// Parts that one expression is worked out from: they meet, and decide when it can fail.
    fn combine(&mut self, parts: Flow, can_fail: bool) -> Flow {
        self.notes.combine(parts, can_fail)
    }

    /// The columns of all these leave for another place.
    fn carry(&mut self, items: &[Item]) {
        self.notes.carry(items);
    }

    /// Notes that what decides can't all be told.
    fn filters_are_opaque(&mut self, reason: &str) {
        self.notes.filters_are_opaque(reason);
    }

    /// Notes that which columns the values meet can't all be told.
    fn values_are_opaque(&mut self, reason: &str) {
        self.notes.values_are_opaque(reason);
    }

    /// The literal token at that place, or behind the sign there.
    fn literal(&mut self, location: i32) -> Flow {
        let Some(literals) = &self.literals else {
            return Flow::default();
        };
        let number = usize::try_from(location).ok().and_then(|location| {
            let after = literals.partition_point(|range| range.end <= location);
            let range = literals.get(after)?;
            let between = self.text.get(location..range.start).unwrap_or_default();
            let near =
                between.bytes().all(|byte| matches!(byte, b'-' | b'+' | b' ' | b'\n' | b'\t'));
            near.then_some(u32::try_from(after).ok()).flatten()
        });
        if let Some(number) = number {
            return Flow::value(ValueAt::Literal(number));
        }
        // The grammar makes constants of some words, as of `day` in `EXTRACT (day FROM x)`.
        let at = usize::try_from(location).ok().and_then(|at| self.text.as_bytes().get(at));
        if at.is_some_and(u8::is_ascii_alphabetic) {
            return Flow::default();
        }
        self.values_are_opaque("a literal's place can't be told");
        Flow::default()
    }

    /// The columns of a relation.
    fn base(&mut self, named: &p::RangeVar) -> Vec<Item> {
        let relation = crate::collect::relation_of(named);
        if let Some(items) = self.known(&relation) {
            return items;
        }
        let elsewhere = total::elsewhere_columns(&relation).unwrap_or_default();
        vec![Item::Star(Star { elsewhere, ..Star::of(relation) })]
    }
}
