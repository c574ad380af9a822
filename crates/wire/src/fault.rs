//! Errors that say whose fault they are.
//!
//! Promise: the text reads alone in a record and never holds statement text, parameters or
//! secrets; callers put in only types, lengths and names of messages.

use std::fmt;

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The client's bytes break the protocol.
    Client,
    /// The server's bytes break the protocol.
    Server,
    /// The code that drives the machine called it out of turn.
    Caller,
    /// Nobody broke anything, but the gate cannot do this.
    Unsupported,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client broke the protocol",
            Self::Server => "the server broke the protocol",
            Self::Caller => "the gate is at fault",
            Self::Unsupported => "not supported through the gate",
        })
    }
}

/// Why a machine cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whose}: {what}")]
pub struct Fault {
    /// Who is to blame.
    pub whose: Whose,
    /// What was wrong, and where.
    pub what: String,
}

impl Fault {
    /// The client broke the protocol.
    pub fn client(what: impl Into<String>) -> Self {
        Self { whose: Whose::Client, what: what.into() }
    }

    /// The server broke the protocol.
    pub fn server(what: impl Into<String>) -> Self {
        Self { whose: Whose::Server, what: what.into() }
    }

    /// The code that drives the machine called it out of turn.
    pub fn caller(what: impl Into<String>) -> Self {
        Self { whose: Whose::Caller, what: what.into() }
    }

    /// The gate cannot do this.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self { whose: Whose::Unsupported, what: what.into() }
    }
}
