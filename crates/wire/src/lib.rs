//! Toolkit of all protocol machines: a checked cursor, errors that say whose fault it was, and the
//! words in which a machine and its driver talk.
//!
//! Promises: no function here panics or allocates in proportion to a length that a peer merely
//! claims. Cannot do: wait for more bytes; callers decide what "short" means.
//!
//! Limits belong to the protocols; a machine names its own with the unit last.

mod action;
mod cursor;
mod fault;
mod machine;

pub use action::{Action, Answer, AskId, Authority, Exempt};
pub use cursor::{Cursor, CursorError};
pub use fault::{Fault, Whose};
pub use machine::Machine;
