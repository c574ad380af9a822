//! SSH without its cryptography (RFC 4252, RFC 4254): what a client asks on which channel, and what may
//! pass to the target.
//!
//! Promises: no IO, no clock; hostile bytes can't panic or allocate in proportion to a claimed length.
//! Cannot do: key exchange, ciphers, windows. The agent's SSH library does those.

pub mod carries;
pub mod outcome;
pub mod request;
pub mod sftp;
pub mod shell;
