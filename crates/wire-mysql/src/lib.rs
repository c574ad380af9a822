//! The MySQL and MariaDB client/server protocol as a sans-IO machine between a client and a server.
//!
//! Promises:
//! - Bytes and the time go in, [`Action`]s come out; the machine never waits, reads or writes.
//! - No byte of an operation comes out before its [`Action::Ask`] was answered with a permit, and
//!   it then comes out under that permit's receipt. What needs none is named by [`Exempt`]. Before the
//!   login is permitted the server is only listened to: it speaks first.
//! - The client sees the server's own greeting (version, connection id, nonce), less the capabilities
//!   that the machine can't follow ([`capability`]).
//! - Bytes that nobody changes leave as they came. A refusal is an ERR packet with the number that
//!   comes next, and the session lives on; of several statements in one command all are refused.
//! - Each permitted operation gets exactly one [`Action::Outcome`]; its results are masked, withheld or cut as the
//!   permit's duties ask, in text and in binary.
//! - Hostile bytes on either side end in [`Action::Close`] with a reason, in bounded memory.
//!
//! Compression is offered as the server offers it, and is the same on both legs ([`compress`]).
//!
//! Cannot do: multi-factor authentication (not offered), the protocol before
//! 4.1, GSSAPI and client certificates, MariaDB's check of a self-signed certificate by password (11.4).
//! `caching_sha2_password` and `sha256_password` pass where both legs have TLS or neither has. Where they differ, a
//! login that needs the password itself works for `caching_sha2_password` with TLS to the server alone ([`PasswordKey`]);
//! otherwise it gets a clear error.
//!
//! Names are those of the MySQL manual, "Client/Server Protocol", and of MariaDB's where it adds to them.
//! Known gaps stand in the modules: [`Machine`]'s in `machine.rs`.

mod analyze;
pub mod capability;
mod charset;
pub mod compress;
mod config;
mod delivery;
mod driven;
pub mod exercise;
mod frame;
mod machine;
mod message;
mod rows;
mod statements;

pub use analyze::{Analyze, executed};
pub use config::{ClientTls, Config, Limits, ServerTls};
pub use machine::{Machine, PasswordKey};
pub use tidegate_wire::{Action, Answer, AskId, Authority, Exempt};
