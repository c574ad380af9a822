//! The PostgreSQL v3 protocol as a sans-IO machine between a client and a server.
//!
//! Promises:
//! - Bytes and the time go in, [`Action`]s come out; the machine never waits, reads or writes.
//! - No byte of an operation comes out before its [`Action::Ask`] was answered with a permit, and
//!   it then comes out under that permit's receipt. What needs none is named by [`Exempt`].
//! - Bytes that nobody changes leave as they came. A refusal is the server's own kind of error and
//!   leaves the session in step, in a transaction block and in a pipeline too.
//! - Each permitted operation gets exactly one [`Action::Outcome`].
//! - Hostile bytes on either side end in [`Action::Close`] with a reason, in bounded memory.
//!
//! Cannot do: SCRAM-SHA-256-PLUS, client certificates, GSSAPI and SSPI (they bind to a connection
//! that ends at the gate), direct TLS (`sslnegotiation=direct`); each gets a clear error.
//!
//! Names of messages and fields are those of the PostgreSQL manual, "Message Formats".
//! Known gaps stand in the modules: [`Machine`]'s in `machine.rs`, names in `names.rs`.

mod analyze;
mod config;
mod copy_out;
mod driven;
mod duty;
pub mod exercise;
mod frame;
mod machine;
mod message;
mod names;
mod replies;
mod rows;
mod sql_names;

pub use analyze::Analyze;
pub use config::{ClientTls, Config, Limits};
pub use machine::{Machine, SUBSTITUTE_NAME, SUBSTITUTE_TEXT};
pub use tidegate_mask::Duties;
pub use tidegate_wire::{Action, Answer, AskId, Authority, Exempt};
