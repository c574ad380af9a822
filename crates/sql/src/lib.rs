//! What a SQL statement does: its kind, its effects on relations, its fingerprint.
//!
//! PostgreSQL's own grammar (libpg_query, PostgreSQL 18) reads the text; a walk of our own over
//! every node of the parse tree finds what it does.
//!
//! Promises: what does not parse, or holds something that the walk can't judge, is *unknown* and
//! carries [`tidegate_event::Action::Unknown`]. No text can panic or overflow the stack of a 2 MiB
//! thread. The same `Arc` comes back for texts that differ only in literals that can't change
//! their effects.
//!
//! What it can't do, each with a test in `tests/gaps.rs`:
//! - It reads names, not the catalogue: a view or function stands for itself, not for what is
//!   behind it; an unqualified name is left unqualified; a function that shadows a harmless
//!   built-in of the same name (by `search_path` order or argument types) is taken for it.
//! - Operators, casts and column notation (`row.function`) call functions that aren't seen,
//!   unless an operator names a schema.
//! - The text of a function body is not an effect of creating it; calling it is `execute`.
//! - `NOT`, operators and subqueries nested deeper than about 48 levels, and more than about 90
//!   set operations in a row, are unknown: the decoder of the parse tree stops there.
//! - PostgreSQL 18's grammar is the only one: what an older server reads differently is unknown
//!   where 18 refuses it.

mod analyzer;
mod catalogue;
mod collect;
mod function;
pub mod mysql;
mod parse;
mod plpgsql;
mod shape;
mod statement;
mod walk;

pub use analyzer::{Analyzer, Settings};
pub use catalogue::{Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind};
