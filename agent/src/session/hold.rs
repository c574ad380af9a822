//! Statements that are held until people have approved them.
//!
//! Promises: the server has nothing of what is held, so that none of its timeouts runs; what it says
//! meanwhile still flows. The client's hang-up and its cancel request end the waiting, and nothing
//! runs then. What the client sends meanwhile waits, within [`READ_AHEAD_BYTES_MAX`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tidegate_event::Operation;
use tidegate_wire::{AskId, Machine};
use tidegate_wire_postgres::Duties;

use super::{ClientState, Session, poll_read_into};
use crate::approvals::Waited;
use crate::gate::Token;
use crate::gate::approval::{Hold, Unheld};

/// Bytes that are read of a client whose statement is held: enough to see its end.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

/// One held statement.
pub(super) struct Holding {
    id: AskId,
    operation: Operation,
    hold: Box<Hold>,
    waiting: Pin<Box<dyn Future<Output = Waited> + Send>>,
    /// What the client is to be told, until it is.
    notice: Option<String>,
}

impl<M: Machine<Token, Duties = Duties>> Session<M> {
    /// Holds an operation.
    pub(super) fn hold(&mut self, id: AskId, operation: Operation, hold: Box<Hold>) {
        let waiting = Box::pin(hold.wait(self.machine.cancel_key()));
        let notice = Some(hold.notice());
        self.held = Some(Box::new(Holding { id, operation, hold, waiting, notice }));
    }

    /// Looks whether the waiting is over; `true` when something has changed.
    pub(super) fn poll_held(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mut holding) = self.held.take() else { return false };
        if self.client_state != ClientState::Open {
            self.unheld(*holding, Unheld::Gone);
            return true;
        }
        let waited = holding.waiting.as_mut().poll(cx);
        let told = match &holding.notice {
            Some(text) if self.machine.notice(text) => holding.notice.take().is_some(),
            _ => false,
        };
        match waited {
            Poll::Pending => {
                self.held = Some(holding);
                return told;
            }
            Poll::Ready(Waited::Answered) => {
                let Holding { id, operation, hold, .. } = *holding;
                let answer = self.gate.answered(id, &operation, *hold);
                self.answer(id, answer);
            }
            Poll::Ready(Waited::TooLong) => self.unheld(*holding, Unheld::TooLong),
            Poll::Ready(Waited::Cancelled) => self.unheld(*holding, Unheld::Cancelled),
        }
        true
    }

    /// The session ends with something held.
    pub(super) fn drop_held(&mut self) {
        if let Some(holding) = self.held.take() {
            self.unheld(*holding, Unheld::Gone);
        }
    }

    fn unheld(&mut self, holding: Holding, why: Unheld) {
        let answer = self.gate.unheld(&holding.operation, *holding.hold, why);
        self.answer(holding.id, answer);
    }

    /// Reads on while something is held, to see the client's end; `true` when something came.
    pub(super) fn poll_client_of_held(&mut self, cx: &mut Context<'_>) -> bool {
        if self.held.is_none()
            || self.client_state != ClientState::Open
            || self.client_bytes.len() >= READ_AHEAD_BYTES_MAX
        {
            return false;
        }
        let Some(leg) = &mut self.client else { return false };
        self.client_bytes.reserve(super::READ_BYTES_MIN);
        match poll_read_into(leg, cx, &mut self.client_bytes) {
            Poll::Pending => return false,
            Poll::Ready(Ok(0) | Err(_)) => {
                self.client_state = ClientState::Ended;
                self.machine.client_closed(self.now_ns);
            }
            Poll::Ready(Ok(read)) => self.received.0 += super::as_u64(read),
        }
        true
    }
}
