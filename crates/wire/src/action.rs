//! What a machine wants done, and what it is told: the same words for every protocol.
//!
//! Promise: no byte of an operation comes out before its [`Action::Ask`] was answered with a permit.

use bytes::Bytes;
use tidegate_event::{Ending, Operation, Outcome};

/// Names one question of one machine, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// One thing for the driver to do. The order of actions is the order in which to do them; an
/// action for one leg need not wait for the other leg's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<R> {
    /// Bytes for the client.
    ToClient(Bytes),
    /// Bytes for the server, and why they may go.
    ToServer {
        /// Why they may go.
        authority: Authority<R>,
        /// The bytes.
        bytes: Bytes,
    },
    /// A decision is wanted; the machine reads nothing more from the client until it is answered.
    Ask {
        /// To be repeated in the answer.
        id: AskId,
        /// What the client asks.
        operation: Operation,
    },
    /// What became of a permitted operation; comes exactly once for each.
    Outcome {
        /// The id of its question.
        id: AskId,
        /// What became of it.
        outcome: Outcome,
    },
    /// A part of the result of a permitted operation, as it goes to the client: to be kept. Comes before the
    /// operation's outcome.
    Rows {
        /// The id of its question.
        id: AskId,
        /// Where in the result it begins, in bytes.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Connect to the server, without TLS, then say `server_connected`. Only of a protocol in which
    /// the server speaks first; no byte goes to it before the login is permitted.
    Dial,
    /// A result was stopped, and what the server still says of it goes nowhere: these bytes, sent alone
    /// on a new connection to the same server, ask it to stop too (manual, "Canceling Requests in
    /// Progress"). The machine reads nothing more from the client until
    /// [`Machine::cancel_ended`](crate::Machine::cancel_ended) says that the server has closed that connection, or that it can't
    /// be made: a late cancel would hit the next statement. They hold the backend's secret key.
    Cancel(Bytes),
    /// Flush what goes to the client, then start TLS as its server, then say `client_tls_started`.
    StartClientTls,
    /// Flush what goes to the server, then start TLS as its client, then say `server_tls_started`.
    StartServerTls,
    /// Flush both legs, then close both. The last action of a machine.
    Close {
        /// Why.
        ending: Ending,
    },
}

/// Why bytes may go to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority<R> {
    /// They belong to a permitted operation with this receipt.
    Receipt(R),
    /// They carry no operation.
    Exempt(Exempt),
}

/// What carries no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    /// The client's part of the authentication exchange, after the login's own permit.
    Handshake,
    /// What runs nothing. PostgreSQL: Sync, Flush, Terminate, Close and Describe; a Bind to a statement
    /// that the gate did not see prepared and that is not executed in the same breath; the
    /// substitute for a refused text. MySQL: COM_PING, COM_QUIT, COM_STMT_CLOSE, COM_STMT_RESET, and
    /// the empty packet that stands for a refused local file.
    Framing,
}

/// The answer to an [`Action::Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<R> {
    /// Permitted and recorded.
    Permit(R),
    /// Refused. A login's refusal ends the session, any other leaves it alive.
    Refuse {
        /// Five characters (PostgreSQL manual, appendix A): 42501 for statements, 28000 for logins. A
        /// machine of another protocol puts its own code in its place.
        sqlstate: &'static str,
        /// For the person who reads it.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}
