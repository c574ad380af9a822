//! Follows columns through the tree of a query or a change of rows: into outputs, conditions and values'
//! places.
//!
//! Promises: those of [`tidegate_event::Lineage`]: a superset, in the same words and by the same rules
//! as for PostgreSQL ([`crate::lineage`] says how it judges). All names of relations and columns come out in lower case,
//! since the server tells those of columns apart by no case, and those of tables by case or not as it is set
//! up. A name that differs from another only by case, where that matters, is opaque.
//!
//! What this dialect adds:
//! - A user variable may hold anything: showing one is opaque, and writing one is a filter by what is
//!   written. A condition or change may use one: what an account may not filter by it can't write to one, but
//!   by a procedure of somebody else.
//! - A plan may show values of rows that were read for it (`EXPLAIN FORMAT=JSON`), so it is made of all that
//!   the statement reads.
//! - An alias of the select list may be named in subqueries, `GROUP BY`, `HAVING` and `ORDER BY`.
//! - A column name that is not ASCII may stand for any column: how the server folds it is not told. So may
//!   `_rowid`, which is an integer key's other name.
//! - Columns of a stored function's or procedure's result are opaque.
//!
//! Limits: those of [`crate::lineage`].
//!
//! Known gaps: what triggers and `DEFAULT`s do with a value isn't seen. A generated column is its own.
//! That an `INSERT` violates a unique constraint tells that a value exists.

mod change;
mod expression;
mod from;
mod query;
mod scope;
mod total;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use sqlparser::ast::{Ident, ObjectName, Statement};
use sqlparser::tokenizer::Span;
use tidegate_event::{Relation, Rows, ValueAt};

use super::Settings;
use super::lexer::Lexed;
use super::names::folded;
use crate::lineage::flow::{Flow, Item};
use crate::lineage::notes::Notes;
use crate::lineage::range::Cte;
use crate::{Catalogue, KnownRelation};
use scope::Level;

pub(super) use total::only_tells_of_itself;

/// Why what is made of a user variable is opaque.
const VARIABLE: &str = "a user variable may hold anything";

/// Definitions of views inside each other.
const DEEP_MAX: usize = 32;

/// Where a text's names are looked up.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// What the server holds, where that was read.
    pub catalogue: Option<Arc<Catalogue>>,
    /// The current database in lower case, where it is known.
    pub database: Option<String>,
}

impl Place {
    /// The relation of that name, where the catalogue has one.
    pub fn known(&self, relation: &Relation) -> Option<&Arc<KnownRelation>> {
        let catalogue = self.catalogue.as_deref()?;
        match (&relation.schema, &self.database) {
            (Some(_), _) => catalogue.relation(relation),
            (None, Some(database)) => catalogue.relation(&Relation {
                schema: Some(database.clone()),
                name: relation.name.clone(),
            }),
            (None, None) => match catalogue.named(&relation.name) {
                [one] => Some(one),
                _ => None,
            },
        }
    }
}

/// Where a text's values stand, by the bytes at which their tokens begin.
#[derive(Debug, Default)]
pub(super) struct Values {
    literals: Vec<usize>,
    parameters: Vec<usize>,
}

impl Values {
    pub fn of(lexed: &Lexed) -> Self {
        let mut values = Self::default();
        for item in &lexed.items {
            if item.is_literal() {
                values.literals.push(item.at);
            } else if matches!(item.token, sqlparser::tokenizer::Token::Placeholder(_)) {
                values.parameters.push(item.at);
            }
        }
        values
    }

    fn at(&self, at: usize) -> Option<ValueAt> {
        if let Ok(number) = self.literals.binary_search(&at) {
            return u32::try_from(number).ok().map(ValueAt::Literal);
        }
        let number = self.parameters.binary_search(&at).ok()?.checked_add(1)?;
        u16::try_from(number).ok().map(ValueAt::Parameter)
    }
}

/// What a statement does with its result beside returning it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Result {
    Returned,
    /// It goes into a file, variables or the arguments of a call.
    Carried,
}

/// What the tracing of one statement needs, and what it tells.
pub(super) struct Tracing<'a> {
    pub notes: &'a mut Notes,
    pub place: &'a Place,
    /// `None` in SQL that stands in a string.
    pub values: Option<&'a Values>,
    pub settings: Settings,
    pub literals_matter: &'a mut bool,
}

/// The rows that `tree` returns.
pub(super) fn rows(tree: &Statement, result: Result, tracing: Tracing<'_>) -> Rows {
    let mut tracer = Tracer::new(tracing);
    let Some(items) = tracer.returned(tree) else {
        return Rows::None;
    };
    if result == Result::Carried {
        tracer.carry(&items);
        return Rows::None;
    }
    let weight: usize = items.iter().map(Item::weight).sum();
    if weight > crate::lineage::SOURCES_MAX {
        return Rows::Opaque("it is made of too many columns".to_owned());
    }
    Rows::Known(items.iter().map(Item::output).collect())
}

/// Follows columns through one statement.
struct Tracer<'a> {
    notes: &'a mut Notes,
    place: &'a Place,
    values: Option<&'a Values>,
    settings: Settings,
    literals_matter: &'a mut bool,
    levels: Vec<Level>,
    ctes: Vec<Cte>,
    /// The columns of views that were followed, by their place in the catalogue.
    views: Vec<(u32, Rc<Vec<Item>>)>,
    /// The database of the definition that is being followed.
    within: Vec<Option<String>>,
}

impl<'a> Tracer<'a> {
    fn new(tracing: Tracing<'a>) -> Self {
        let Tracing { notes, place, values, settings, literals_matter } = tracing;
        Self {
            notes,
            place,
            values,
            settings,
            literals_matter,
            levels: Vec::new(),
            ctes: Vec::new(),
            views: Vec::new(),
            within: Vec::new(),
        }
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
        self.notes.filter(&without_variables(flow));
    }

    /// The columns of all these leave for another place.
    fn carry(&mut self, items: &[Item]) {
        for item in items {
            self.filter(&item.flow());
        }
    }

    /// These values meet the columns of `with`.
    fn meet_with(&mut self, values: &BTreeSet<ValueAt>, with: &Flow) {
        self.notes.meet_with(values, &without_variables(with));
    }

    /// Parts that one expression is worked out from: they meet, and decide when it can fail.
    fn combine(&mut self, parts: Flow, can_fail: bool) -> Flow {
        self.meet_with(&parts.values, &parts);
        let mut whole = parts.computed();
        if can_fail {
            self.filter(&whole);
            whole.fails = true;
        }
        whole
    }

    /// What a value of the text is.
    fn value(&mut self, span: Span) -> Flow {
        if !self.within.is_empty() {
            return Flow::default();
        }
        let Some(values) = self.values else {
            self.notes.values_are_opaque("it stands in a string");
            return Flow::default();
        };
        let at = usize::try_from(span.start.line).ok().and_then(|line| line.checked_sub(1));
        let Some(value) = at.and_then(|at| values.at(at)) else {
            self.notes.values_are_opaque("a literal's place can't be told");
            return Flow::default();
        };
        Flow::value(value)
    }

    /// The same name in its database, in lower case.
    fn qualified_name(&self, mut relation: Relation) -> Relation {
        relation.name = folded(&relation.name);
        relation.schema = match (relation.schema, self.within.last()) {
            (Some(schema), _) => Some(folded(&schema)),
            (None, Some(database)) => database.clone(),
            (None, None) => self.place.database.clone().filter(|database| !database.is_empty()),
        };
        relation
    }
}

/// The same, where only a user variable makes it opaque, as if that were told.
fn without_variables(flow: &Flow) -> Cow<'_, Flow> {
    if flow.opaque.as_deref() == Some(VARIABLE) {
        Cow::Owned(Flow { opaque: None, ..flow.clone() })
    } else {
        Cow::Borrowed(flow)
    }
}

/// The parts of a name, if all are plain.
fn parts(name: &ObjectName) -> Option<Vec<&Ident>> {
    name.0.iter().map(|part| part.as_ident()).collect()
}

/// A name as a relation's, as it is written.
fn relation(name: &ObjectName) -> Option<Relation> {
    match parts(name)?.as_slice() {
        [name] => Some(Relation { schema: None, name: name.value.clone() }),
        [schema, name] => {
            Some(Relation { schema: Some(schema.value.clone()), name: name.value.clone() })
        }
        _ => None,
    }
}
