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

use crate::gate::Token;
use crate::session::queue::BACKLOG_BYTES_MAX;
use crate::upstream::{Clearance, Upstream};

type Redeeming = Pin<Box<dyn Future<Output = Result<Receipt, JournalError>> + Send>>;

enum Held {
    Cleared(Clearance),
    Waiting(Pledge),
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
    pub fn push(&mut self, token: Token, bytes: Bytes, journal: &Journal) {
        let held = match token {
            Token::Open(receipt) => Held::Cleared(Clearance::Receipt(receipt)),
            Token::Pledged(pledge) => match journal.try_redeem(&pledge) {
                Some(receipt) => Held::Cleared(Clearance::Receipt(Arc::new(receipt))),
                None => Held::Waiting(pledge),
            },
        };
        self.bytes += bytes.len();
        self.held.push_back((held, bytes));
    }

    /// Adds bytes that carry no operation; they keep their place behind those that wait.
    pub fn push_cleared(&mut self, clearance: Clearance, bytes: Bytes) {
        self.bytes += bytes.len();
        self.held.push_back((Held::Cleared(clearance), bytes));
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
        loop {
            while let Some((Held::Cleared(clearance), bytes)) =
                self.held.pop_front_if(|(held, _)| matches!(held, Held::Cleared(_)))
            {
                self.bytes -= bytes.len();
                upstream.send(&clearance, bytes);
            }
            let Some(receipt) = self.poll_redeem(cx, journal)?.map(Arc::new) else {
                return Ok(());
            };
            for (held, _) in &mut self.held {
                if matches!(held, Held::Waiting(pledge) if receipt.covers(pledge)) {
                    *held = Held::Cleared(Clearance::Receipt(Arc::clone(&receipt)));
                }
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
                *held = Held::Cleared(Clearance::Receipt(Arc::clone(receipt)));
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
            Held::Cleared(_) => None,
        });
        let first = waiting.next()?;
        let run = waiting.take_while(|pledge| pledge.level() <= first.level());
        Some(run.fold(first.clone(), |all, pledge| all.and(pledge)))
    }
}
