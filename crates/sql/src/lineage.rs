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
mod flow;
mod from;
mod function;
pub(crate) mod known;
mod names;
mod query;
mod scope;
mod statement;
mod total;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use pg_query::protobuf as p;
use tidegate_event::{ColumnRef, Later, Lineage, Rows, ValueAt, ValueUse};

use crate::Settings;
use crate::resolve::Names;
use flow::{Flow, Item, Star};
use scope::{Cte, Level};

/// Steps of work for one text: columns and values copied, joined or looked through.
pub(crate) const WORK_MAX: usize = 1_000_000;

/// Expressions and queries inside each other, with those of the definitions that they stand for. What
/// one text can nest is less; only views on views reach it.
const NESTING_MAX: usize = 150;

/// Pairs of a value and a column that it meets; beyond them values are opaque.
const PAIRS_MAX: usize = 200_000;

/// Columns that the outputs of one statement are made of, counted for each; beyond them its rows are
/// opaque.
const SOURCES_MAX: usize = 50_000;

/// Columns of one result or range; PostgreSQL allows 1,664 in a result.
const ITEMS_MAX: usize = 1_664;

/// Follows columns through one text.
pub(crate) struct Tracer<'a> {
    /// Where each literal of the text begins and ends; `None` in a text that is not the statement's.
    literals: Option<Vec<Range<usize>>>,
    levels: Vec<Level>,
    ctes: Vec<Cte>,
    filters: BTreeSet<Rc<ColumnRef>>,
    filters_opaque: Option<String>,
    values: BTreeMap<ValueAt, BTreeSet<Rc<ColumnRef>>>,
    values_opaque: Option<String>,
    later: Vec<Later>,
    /// Which statement of the text is looked at.
    statement: usize,
    pub(crate) literals_matter: bool,
    /// Functions called that no `execute` tells of: as `row.function`, or by a built-in's name.
    called: BTreeSet<String>,
    left: usize,
    pairs_left: usize,
    text: &'a str,
    names: Option<Names<'a>>,
    /// The columns of views that were followed, by OID.
    views: Vec<(u32, Rc<Vec<Item>>)>,
    /// Functions whose bodies are being followed, by OID.
    functions: Vec<u32>,
    /// Expressions and queries inside each other at this place.
    nesting: usize,
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
        Self {
            values_opaque: literals.is_none().then(|| "its literals can't be told".to_owned()),
            literals,
            levels: Vec::new(),
            ctes: Vec::new(),
            filters: BTreeSet::new(),
            filters_opaque: None,
            values: BTreeMap::new(),
            later: Vec::new(),
            statement: 0,
            literals_matter: false,
            called: BTreeSet::new(),
            left: WORK_MAX,
            pairs_left: PAIRS_MAX,
            text,
            names: None,
            views: Vec::new(),
            functions: Vec::new(),
            nesting: 0,
            deep: 0,
            nested: false,
        }
    }

    fn end(self, mut rows: Vec<Rows>) -> Lineage {
        let exhausted = self.left == 0;
        let reason = "its lineage takes too long to follow";
        if exhausted {
            for rows in &mut rows {
                *rows = Rows::Opaque(reason.to_owned());
            }
        }
        let told = |why: Option<String>| {
            if exhausted { Some(reason.to_owned()) } else { why }
        };
        let plain = |columns: BTreeSet<Rc<ColumnRef>>| {
            columns.into_iter().map(|column| ColumnRef::clone(&column)).collect()
        };
        let uses = self.values.into_iter();
        Lineage {
            rows,
            later: self.later,
            filters: plain(self.filters),
            filters_opaque: told(self.filters_opaque),
            values: uses.map(|(at, columns)| ValueUse { at, columns: plain(columns) }).collect(),
            values_opaque: told(self.values_opaque),
        }
    }

    /// Takes `steps` from the budget; `false` when it is spent, and everything opaque anyway.
    fn spend(&mut self, steps: usize) -> bool {
        self.left = self.left.saturating_sub(steps);
        self.left > 0
    }

    /// Runs `inner` one level further in; `None` where that is too deep.
    fn further_in<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.nesting >= NESTING_MAX {
            self.filters_are_opaque("it is nested too deep to follow");
            self.values_are_opaque("it is nested too deep to follow");
            return None;
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        Some(result)
    }

    /// The columns of `flow` decide something.
    fn filter(&mut self, flow: &Flow) {
        if !self.spend(flow.columns.len()) {
            return;
        }
        self.filters.extend(flow.columns.iter().cloned());
        if self.filters_opaque.is_none() {
            self.filters_opaque.clone_from(&flow.opaque);
        }
    }

    /// The values of `flow` meet its columns.
    fn meet(&mut self, flow: &Flow) {
        self.meet_with(&flow.values, flow);
    }

    /// These values meet the columns of `with`.
    fn meet_with(&mut self, values: &BTreeSet<ValueAt>, with: &Flow) {
        let steps = values.len().saturating_mul(with.columns.len());
        if values.is_empty() || !self.spend(steps) {
            return;
        }
        if self.values_opaque.is_none() {
            self.values_opaque.clone_from(&with.opaque);
        }
        if with.columns.is_empty() {
            return;
        }
        if self.pairs_left < steps {
            self.pairs_left = 0;
            return self.values_are_opaque("too many values meet too many columns");
        }
        for value in values {
            let met = self.values.entry(*value).or_default();
            let before = met.len();
            met.extend(with.columns.iter().cloned());
            self.pairs_left = self.pairs_left.saturating_sub(met.len() - before);
        }
    }

    /// Parts that one expression is worked out from: they meet, and decide when it can fail.
    fn combine(&mut self, parts: Flow, can_fail: bool) -> Flow {
        self.meet(&parts);
        let mut whole = parts.computed();
        if can_fail {
            self.filter(&whole);
            whole.fails = true;
        }
        whole
    }

    /// The columns of all these leave for another place.
    fn carry(&mut self, items: &[Item]) {
        for item in items {
            self.filter(&item.flow());
        }
    }

    /// Notes that what decides can't all be told.
    fn filters_are_opaque(&mut self, reason: &str) {
        self.filters_opaque.get_or_insert_with(|| reason.to_owned());
    }

    /// Notes that which columns the values meet can't all be told.
    fn values_are_opaque(&mut self, reason: &str) {
        self.values_opaque.get_or_insert_with(|| reason.to_owned());
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
