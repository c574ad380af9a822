//! What the machine wants done, and what it is told.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_event::{Ending, Operation, Outcome};
use tidegate_mask::Order;

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
    /// A result was stopped, and what the server still says of it goes nowhere: these bytes, sent alone
    /// on a new connection to the same server, ask it to stop too (manual, "Canceling Requests in
    /// Progress"). The machine reads nothing more from the client until [`Machine::cancel_ended`]
    /// (crate::Machine::cancel_ended) says that the server has closed that connection, or that it can't
    /// be made: a late cancel would hit the next statement. They hold the backend's secret key.
    Cancel(Bytes),
    /// Flush what goes to the client, then start TLS as its server, then say `client_tls_started`.
    StartClientTls,
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
    /// Sync, Flush, Terminate, Close and Describe; a Bind to a statement that the gate did not see
    /// prepared and that is not executed in the same breath; the substitute for a refused text.
    Framing,
}

/// The answer to an [`Action::Ask`].
#[derive(Clone)]
pub enum Answer<R> {
    /// Permitted and recorded.
    Permit(R),
    /// The same, with something to be done to its results.
    PermitWith {
        /// That of its record.
        receipt: R,
        /// What is to be done.
        duties: Arc<Duties>,
    },
    /// Refused. A login's refusal goes out as FATAL, any other as ERROR.
    Refuse {
        /// Five characters (manual, appendix A): 42501 for statements, 28000 for logins.
        sqlstate: &'static str,
        /// For the person who reads it.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// What is to be done to the results of a permitted operation. Those of a Parse hold for what SQL's
/// own EXECUTE and FETCH run of it, those of an Execute for that Execute.
#[derive(Clone, Default)]
pub struct Duties {
    /// What the client may not see.
    pub order: Option<Order>,
    /// Most rows that the client gets; a result with more is cut.
    pub rows_max: Option<u64>,
    /// Most bytes of result data that the client gets.
    pub bytes_max: Option<u64>,
    /// Count what would be masked, withheld or cut, and let all pass.
    pub shadow: bool,
}

impl Duties {
    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        let idle = self.order.as_ref().is_none_or(Order::is_idle);
        idle && self.rows_max.is_none() && self.bytes_max.is_none()
    }
}
