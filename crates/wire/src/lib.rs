//! Toolkit of all protocol machines: a checked cursor and errors that say whose fault it was.
//!
//! Promises: no function here panics or allocates in proportion to a length that a peer merely
//! claims. Cannot do: wait for more bytes; callers decide what "short" means.
//!
//! Limits belong to the protocols; a machine names its own with the unit last.

mod cursor;
mod fault;

pub use cursor::{Cursor, CursorError};
pub use fault::{Fault, Whose};
