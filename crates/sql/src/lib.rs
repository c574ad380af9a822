//! What a SQL statement does: its kind, its effects on relations, where its columns go, its
//! fingerprint.
//!
//! PostgreSQL's own grammar (libpg_query, PostgreSQL 18) reads the text; a walk of our own over
//! every node of the parse tree finds what it does, and another ([lineage]) follows its columns.
//!
//! Promises: what does not parse, or holds something that the walk can't judge, is *unknown* and
//! carries [`tidegate_event::Action::Unknown`]. No text can panic or overflow the stack of a 2 MiB
//! thread. The same `Arc` comes back for texts that differ only in literals that can't change
//! their effects.
//!
//! What it can't do, each with a test in `tests/gaps.rs`:
//! - Without a catalogue ([`Analyzer::analyze`]) a view or function stands for itself, not for what
//!   is behind it; an unqualified name is left unqualified; `row.function` is taken for a column
//!   unless the function is a built-in that takes any row.
//! - A function, operator or type that shadows a built-in of the same name (by `search_path` order
//!   or argument types) is taken for it; so is a cast or operator of PostgreSQL's between types that
//!   aren't.
//! - The text of a function body is not an effect of creating it; calling it is `execute`.
//! - `NOT`, operators and subqueries nested deeper than about 48 levels, and more than about 90
//!   set operations in a row, are unknown: the decoder of the parse tree stops there.
//! - PostgreSQL 18's grammar is the only one: what an older server reads differently is unknown
//!   where 18 refuses it.

mod analyzer;
mod catalogue;
mod collect;
mod function;
mod lineage;
mod literals;
mod parse;
mod plpgsql;
mod replication;
mod resolve;
mod shape;
mod statement;
mod walk;

pub use analyzer::{Analyzer, Settings};
pub use catalogue::{Catalogue, KnownColumn, KnownFunction, KnownRelation, RelationKind};
pub use literals::literals;
