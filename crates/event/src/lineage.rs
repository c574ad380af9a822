//! Where the values of a result come from, and which columns decide without being shown.
//!
//! Promises: a superset. A column that may flow into an output, a condition or a value's place is
//! named; what can't be told says so ([`Sources::opaque`], [`Rows::Opaque`]) and is never left out.
//!
//! Names are as the statement has them, folded as PostgreSQL folds them: no catalogue is read here.
//! An unqualified column of several relations names every one that it could be of.

use std::collections::BTreeSet;

use crate::Relation;

/// A column of a relation, or its whole row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnRef {
    /// The relation as the statement names it, seen through aliases and subqueries.
    pub relation: Relation,
    /// The column; `None` for the whole row (`t.*`, `row_to_json(t)`, `t::text`).
    pub column: Option<String>,
}

/// What an output is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// All columns that its value may depend on.
    pub columns: BTreeSet<ColumnRef>,
    /// Why more may flow in than is named, in words; `None` where all is named.
    pub opaque: Option<String>,
}

/// How an output relates to its sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// The stored value of one source, unchanged.
    AsStored,
    /// Computed: it may hold the value, a part of it, or something that tells of it.
    Computed,
}

/// One item of a select list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// One column of the result.
    One {
        /// Its name in the result, where the statement tells.
        name: Option<String>,
        /// How it relates to its sources.
        shown: Shown,
        /// What it is made of.
        sources: Sources,
    },
    /// All columns of a base relation, in its order: how many, only the catalogue or the result's
    /// own description tells. A star over a subquery is spelt out as [`Self::One`]s instead.
    Star(Relation),
    /// Some columns, how many only the server knows, each made of no more than these: a star over
    /// `NATURAL JOIN`, over a function, `(row).*`. With a catalogue most are spelt out.
    Several(Sources),
}

/// The rows that one statement returns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Rows {
    /// None.
    #[default]
    None,
    /// With these columns.
    Known(Vec<Output>),
    /// Those of a cursor, by its name: `FETCH`.
    Cursor(String),
    /// Those of a prepared statement, by its name: `EXECUTE`.
    Prepared(String),
    /// What they hold can't be told, and why.
    Opaque(String),
}

/// A cursor or prepared statement that a statement makes, whose rows come when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// Which statement of the text makes it, from 0.
    pub statement: usize,
    /// How it is referred to: [`Rows::Cursor`] or [`Rows::Prepared`] of this name.
    pub by: Rows,
    /// The rows that it will return.
    pub rows: Rows,
}

/// Where a value stands in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueAt {
    /// The literal with this number, counted from 0 over the whole text as its tokens come.
    Literal(u32),
    /// The parameter `$n`, counted from 1.
    Parameter(u16),
}

/// A value of the statement that is compared with, or stored into, a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueUse {
    /// Which value.
    pub at: ValueAt,
    /// With which columns it meets.
    pub columns: BTreeSet<ColumnRef>,
}

/// The lineage of a whole text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// One for each statement of the text, in order. Results beyond its end are opaque.
    pub rows: Vec<Rows>,
    /// Cursors (`DECLARE`) and prepared statements (`PREPARE`) that the text makes.
    pub later: Vec<Later>,
    /// Columns that decide which rows, in which order, or whether it fails: `WHERE`, `JOIN`, `ORDER
    /// BY`, `GROUP BY`, `DISTINCT`, arguments of what can fail or be timed. Also those whose values
    /// are carried elsewhere: `INSERT .. SELECT`, `UPDATE .. SET`, `SELECT INTO`, `CREATE TABLE AS`,
    /// `CREATE VIEW`, constraints and indexes.
    pub filters: BTreeSet<ColumnRef>,
    /// Why more columns may decide, or be carried elsewhere, than `filters` names.
    pub filters_opaque: Option<String>,
    /// Values whose column is known, each value once.
    pub values: Vec<ValueUse>,
    /// Why other values may meet columns that `values` does not name; `None` where all is named.
    pub values_opaque: Option<String>,
}
