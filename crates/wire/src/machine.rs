//! What every protocol machine can do, so that one driver runs them all.
//!
//! The driver's part:
//! - After each call, [`Machine::poll`] until `None`.
//! - Bytes that a call leaves in the buffer belong at its front next time. Offer the client's
//!   buffer again, even an empty one, whenever [`Machine::reads_client`] is true after any other call.
//! - Call `client_closed` and `server_closed` once each, after the last bytes were offered.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{Action, Answer, AskId};

/// A sans-IO machine between one client and one server. `R` is the driver's receipt.
#[expect(clippy::wrong_self_convention, reason = "bytes come from the client, not the machine")]
pub trait Machine<R> {
    /// What is to be done to the results of a permitted operation.
    type Duties;

    /// Takes what it can from the front of the client's bytes.
    fn from_client(&mut self, now_ns: u64, bytes: &mut BytesMut);

    /// Takes what it can from the front of the server's bytes.
    fn from_server(&mut self, now_ns: u64, bytes: &mut BytesMut);

    /// The client will send no more.
    fn client_closed(&mut self, now_ns: u64);

    /// The server will send no more.
    fn server_closed(&mut self, now_ns: u64);

    /// The next thing to do.
    fn poll(&mut self) -> Option<Action<R>>;

    /// Answers a question. An answer to another one than the open one is dropped.
    fn answer(&mut self, now_ns: u64, id: AskId, answer: Answer<R>);

    /// Answers a question with a permit, and what is to be done to the results.
    fn permit_with(&mut self, now_ns: u64, id: AskId, receipt: R, duties: Arc<Self::Duties>);

    /// The connection that carried an [`Action::Cancel`] is closed, or could not be made.
    fn cancel_ended(&mut self) {}

    /// The TLS handshake with the client is done; its bytes are plaintext again.
    fn client_tls_started(&mut self);

    /// [`Action::Dial`] is done.
    fn server_connected(&mut self) {}

    /// [`Action::StartServerTls`] is done; the server's bytes are plaintext again.
    fn server_tls_started(&mut self) {}

    /// Ends the session over something that is not the protocol's: the client is told, every operation
    /// that waits gets its outcome, and both legs close.
    fn abort(&mut self, now_ns: u64, sqlstate: &'static str, message: &str, hint: &str);

    /// Tells the client something that is no answer; `false` where that can't be told now, or in this
    /// protocol.
    fn notice(&mut self, message: &str) -> bool {
        let _ = message;
        false
    }

    /// The whole cancel request that is for this session, or that this connection has brought, where
    /// there is one. It holds a secret.
    fn cancel_key(&self) -> Option<Bytes> {
        None
    }

    /// Whether the client's bytes are wanted.
    fn reads_client(&self) -> bool;

    /// How many more of the client's bytes may be read behind those `buffered`; `None` for any number. A
    /// protocol whose client begins TLS without waiting for an answer needs the rest left in the socket.
    fn client_bytes_max(&self, buffered: usize) -> Option<usize> {
        let _ = buffered;
        None
    }

    /// Whether the server's bytes are wanted.
    fn reads_server(&self) -> bool;

    /// Whether [`Machine::from_client`] would take more though nothing more came: a machine that unpacks does
    /// it in steps, so that its driver can look at its queues between two of them. Nothing is read, and no
    /// end is told, before it has taken all.
    fn has_more_from_client(&self) -> bool {
        false
    }

    /// The same for [`Machine::from_server`].
    fn has_more_from_server(&self) -> bool {
        false
    }

    /// Whether nothing is under way and no transaction is open; false where that can't be told.
    fn is_idle(&self) -> bool {
        false
    }

    /// The database that statements are read in now, where the protocol lets a session change it.
    fn database(&self) -> Option<&str> {
        None
    }
}
