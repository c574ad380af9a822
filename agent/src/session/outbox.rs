//! Bytes for the server that wait for their record to be durable.
//!
//! Promise: bytes leave in order, and none before its own record is durable at its level. Records
//! that wait together are waited for together (group commit), so a pipeline costs one sync. Records of
//! level `process` wait for no disk, but let the sessions that are ready in the same turn of this lane
//! write theirs first: one write(2) then stands for all of them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tidegate_event::Durability;
use tidegate_journal::{Journal, JournalError, Pledge, Receipt};
use tidegate_wire::Exempt;

use crate::gate::Token;
use crate::session::queue::BACKLOG_BYTES_MAX;
use crate::upstream::{Clearance, Upstream};

type Redeeming = Pin<Box<dyn Future<Output = Result<Receipt, JournalError>> + Send>>;

/// What lets held bytes leave.
enum Held {
    /// A named exemption.
    Exempt(Exempt),
    /// The exception that a target's owner chose.
    Open(Arc<Receipt>),
    /// A record that is not as durable yet as it must be.
    Waiting(Pledge),
}

impl Held {
    /// The clearance, where there is one by now: what waits is cleared by a receipt that covers it.
    fn clearance<'a>(&'a self, receipt: Option<&'a Receipt>) -> Option<Clearance<'a>> {
        match self {
            Self::Exempt(exempt) => Some(Clearance::Exempt(*exempt)),
            Self::Open(open) => Some(Clearance::Receipt(open)),
            Self::Waiting(pledge) => {
                receipt.filter(|receipt| receipt.covers(pledge)).map(Clearance::Receipt)
            }
        }
    }
}

/// What waits, in the client's order.
#[derive(Default)]
pub struct Outbox {
    held: VecDeque<(Held, Bytes)>,
    bytes: usize,
    redeeming: Option<Redeeming>,
    /// The other sessions of this turn have been let past.
    gathered: bool,
}

impl Outbox {
    /// Adds bytes of a permitted operation.
    pub fn push(&mut self, token: Token, bytes: Bytes) {
        let held = match token {
            Token::Open(receipt) => Held::Open(receipt),
            Token::Pledged(pledge) => Held::Waiting(pledge),
        };
        self.bytes += bytes.len();
        self.held.push_back((held, bytes));
    }

    /// Adds bytes that carry no operation; they keep their place behind those that wait.
    pub fn push_exempt(&mut self, exempt: Exempt, bytes: Bytes) {
        self.bytes += bytes.len();
        self.held.push_back((Held::Exempt(exempt), bytes));
    }

    /// Whether so much waits that the client should not be read.
    pub const fn is_congested(&self) -> bool {
        self.bytes >= BACKLOG_BYTES_MAX
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Hands over to `upstream` what may leave.
    pub fn poll_release(
        &mut self,
        cx: &mut Context<'_>,
        journal: &Journal,
        upstream: &mut Upstream,
    ) -> Result<(), JournalError> {
        let mut receipt = None;
        loop {
            while let Some((held, bytes)) = self.held.front_mut()
                && let Some(clearance) = held.clearance(receipt.as_ref())
            {
                self.bytes -= bytes.len();
                upstream.send(clearance, std::mem::take(bytes));
                self.held.pop_front();
            }
            receipt = self.poll_redeem(cx, journal)?;
            if receipt.is_none() {
                return Ok(());
            }
        }
    }

    fn poll_redeem(
        &mut self,
        cx: &mut Context<'_>,
        journal: &Journal,
    ) -> Result<Option<Receipt>, JournalError> {
        if self.redeeming.is_none() {
            let Some(pledge) = self.all_waiting() else { return Ok(None) };
            if let Some(receipt) = journal.try_redeem(&pledge) {
                return Ok(Some(receipt));
            }
            if pledge.level() == Durability::Process {
                return self.hand_over(cx, journal, &pledge);
            }
            let journal = journal.clone();
            self.redeeming = Some(Box::pin(async move { journal.redeem(&pledge).await }));
        }
        let Some(redeeming) = &mut self.redeeming else { return Ok(None) };
        match redeeming.as_mut().poll(cx) {
            Poll::Pending => Ok(None),
            Poll::Ready(outcome) => {
                self.redeeming = None;
                outcome.map(Some)
            }
        }
    }

    fn hand_over(
        &mut self,
        cx: &mut Context<'_>,
        journal: &Journal,
        pledge: &Pledge,
    ) -> Result<Option<Receipt>, JournalError> {
        self.gathered = !self.gathered;
        if self.gathered {
            cx.waker().wake_by_ref();
            return Ok(None);
        }
        journal.hand_over(pledge)
    }

    /// Clears all that waits by the exception that a target's owner chose; says how many operations.
    pub fn pass_open(&mut self, receipt: &Arc<Receipt>) -> u64 {
        self.redeeming = None;
        let mut cleared = 0;
        for (held, _) in &mut self.held {
            if matches!(held, Held::Waiting(_)) {
                *held = Held::Open(Arc::clone(receipt));
                cleared += 1;
            }
        }
        cleared
    }

    /// Forgets what waits: it will never be sent.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// One pledge for what waits, up to the first that waits for more than the front does: a
    /// `collector` record must not hold up a `host` record before it.
    fn all_waiting(&self) -> Option<Pledge> {
        let mut waiting = self.held.iter().filter_map(|(held, _)| match held {
            Held::Waiting(pledge) => Some(pledge),
            Held::Exempt(_) | Held::Open(_) => None,
        });
        let first = waiting.next()?;
        let run = waiting.take_while(|pledge| pledge.level() <= first.level());
        Some(run.fold(first.clone(), |all, pledge| all.and(pledge)))
    }
}
