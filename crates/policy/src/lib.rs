//! Parse, compile, decide and explain Cedar policies; the only maker of a [`Permit`].
//!
//! Promises:
//! - Deny by default: an operation passes only if every one of its effects is permitted by a
//!   policy and forbidden by none.
//! - A protected column is shown clear, or decides which rows come, only where a policy that names
//!   `unmask` or `filter` permits it.
//! - A policy that can't be evaluated denies: a `forbid` with an error is never skipped.
//! - Only [`Decider::decide`] makes a [`Permit`], from a decision that allows, or that would deny
//!   a target in shadow mode. The doctests of `Permit` show that nobody else can.
//! - Policies are validated strictly against [`schema`], and their annotations against a closed
//!   list; errors say file, line and column.
//!
//! What it can't do: it reads names as the statement has them. A name without a schema is asked
//! in every schema that a policy mentions (see the schema's comments); a policy that compares
//! `resource.name` or `context` strings is outside of that help.

pub mod approval;
mod columns;
mod compile;
mod decide;
mod duties;
mod explain;
mod memory;
mod name;
mod request;
mod touched;

pub use compile::{Mention, PolicyError, PolicySet, Source};
pub use decide::{Decider, Decision, Denial, Explanation, Permit, Ruling, Step, Subject, Verdict};
pub use duties::Duties;
pub use touched::{ProtectedColumn, Touched};

/// The Cedar schema that policies are validated against.
pub fn schema() -> &'static str {
    include_str!("../schema/tidegate.cedarschema")
}
