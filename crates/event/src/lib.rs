//! The vocabulary of Tidegate: one type a noun, used alike in code, logs, records and docs.
//!
//! Promises: plain data, no IO, no clock. What a type cannot express cannot be recorded, so a
//! type here is parsed once and never "almost valid".
//!
//! Limits: texts are capped where they enter a record ([`limits`]), and say so when they were cut.

mod capture;
mod effect;
mod file;
mod id;
pub mod limits;
mod lineage;
mod operation;
mod outcome;
mod quoted;
mod target;

pub use capture::{Capture, Executable, Principal, Process};
pub use effect::{Action, Analysis, Effect, Relation, StatementKind, Unknown};
pub use file::{Access, Carried, FileKind, FileRequest, Range, on as file_effect};
pub use id::{ChainId, Digest, IdError, Seq, SessionId};
pub use lineage::{ColumnRef, Later, Lineage, Output, Rows, Shown, Sources, ValueAt, ValueUse};
pub use operation::{
    Cancel, FunctionCall, Login, Operation, Parameter, SshKind, SshRequest, Statement, Via,
};
pub use outcome::{
    Column, Copied, Ending, Masked, NotKept, Outcome, Recorded, Status, Stopped, Stream,
};
pub use quoted::unquote;
pub use target::{Durability, Mode, OnFailure, Protocol, TargetName};
