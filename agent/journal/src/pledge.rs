//! The two values that stand between a decision and its bytes.
//!
//! A [`Pledge`] says: the record has its place in the chain, and can be redeemed; a [`Receipt`] says: it is
//! as durable as its level asks. Only this crate makes either; the examples that must not compile are
//! tests.

use tidegate_event::{Durability, Seq};
use tidegate_spool::Files;
use tokio::sync::watch;

use crate::writer::Progress;
use crate::{Journal, JournalError};

/// A record on its way to the disk.
///
/// ```
/// # use tidegate_journal::Pledge;
/// fn later(one: &Pledge, other: &Pledge) -> Pledge {
///     one.and(other)
/// }
/// ```
///
/// Nobody else makes one:
///
/// ```compile_fail,E0451
/// use tidegate_event::{Durability, Seq};
/// use tidegate_journal::Pledge;
///
/// let _ = Pledge { seq: Seq(0), level: Durability::Process };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pledge {
    pub(crate) seq: Seq,
    pub(crate) level: Durability,
}

impl Pledge {
    /// The record's place.
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// What must be true before the operation's bytes leave.
    pub const fn level(&self) -> Durability {
        self.level
    }

    /// One pledge for both: the later place and the stronger level.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { seq: self.seq.max(other.seq), level: self.level.max(other.level) }
    }
}

/// Leave to send the bytes of recorded operations.
///
/// ```
/// # use tidegate_journal::{Pledge, Receipt};
/// fn may_leave(receipt: &Receipt, pledge: &Pledge) -> bool {
///     receipt.is_open() || receipt.covers(pledge)
/// }
/// ```
///
/// Nobody else makes one:
///
/// ```compile_fail,E0451
/// use tidegate_event::{Durability, Seq};
/// use tidegate_journal::Receipt;
///
/// let _ = Receipt { through: Seq(0), level: Durability::Host, open: false };
/// ```
///
/// Nor copies it:
///
/// ```compile_fail,E0599
/// # use tidegate_journal::Receipt;
/// fn twice(receipt: Receipt) -> (Receipt, Receipt) {
///     (receipt.clone(), receipt)
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Receipt {
    through: Seq,
    level: Durability,
    open: bool,
}

impl Receipt {
    pub(crate) const fn open() -> Self {
        Self { through: Seq(0), level: Durability::Process, open: true }
    }

    /// The level that all records up to its place have reached.
    pub const fn level(&self) -> Durability {
        self.level
    }

    /// Whether it stands for that pledge too: each record up to its place is at its level.
    pub fn covers(&self, pledge: &Pledge) -> bool {
        !self.open && pledge.seq <= self.through && pledge.level <= self.level
    }

    /// Whether nothing was recorded, and the target's `on_failure = "open"` lets it pass.
    pub const fn is_open(&self) -> bool {
        self.open
    }
}

impl<F: Files> Journal<F> {
    /// The receipt, if the record is as durable as it must be by now.
    pub fn try_redeem(&self, pledge: &Pledge) -> Option<Receipt> {
        let reached = match pledge.level {
            Durability::Process => self.shared.written(),
            Durability::Host => self.shared.progress.borrow().durable,
            Durability::Collector => self.shared.progress.borrow().acknowledged,
        };
        (pledge.seq.0 < reached).then_some(Receipt {
            through: Seq(reached.saturating_sub(1)),
            level: pledge.level,
            open: false,
        })
    }

    /// Hands everything that is buffered, up to this record at least, to the operating system in one
    /// write(2), unless somebody else has. The record then outlives this process.
    pub fn write_out(&self, pledge: &Pledge) -> Result<(), JournalError> {
        self.shared.write_out(pledge.seq)
    }

    /// The receipt for a pledge of level `process`, after [`Self::write_out`]. `None` for another level.
    ///
    /// Fails when the write fails: the operation may not pass.
    pub fn hand_over(&self, pledge: &Pledge) -> Result<Option<Receipt>, JournalError> {
        if pledge.level != Durability::Process {
            return Ok(None);
        }
        self.write_out(pledge)?;
        Ok(self.try_redeem(pledge))
    }

    /// Waits until the record is as durable as it must be.
    ///
    /// Fails when a sync fails: whether the record is on the disk is then not known, and the
    /// operation may not pass. A level of `collector` waits as long as the collector is away.
    pub async fn redeem(&self, pledge: &Pledge) -> Result<Receipt, JournalError> {
        if let Some(receipt) = self.try_redeem(pledge) {
            return Ok(receipt);
        }
        if let Some(receipt) = self.hand_over(pledge)? {
            return Ok(receipt);
        }
        let mut progress: watch::Receiver<Progress> = self.shared.progress.subscribe();
        loop {
            if let Some(receipt) = self.try_redeem(pledge) {
                return Ok(receipt);
            }
            {
                let now = progress.borrow_and_update();
                if let Some(failed) = &now.failed {
                    return Err(JournalError::Spool(failed.to_string()));
                }
                if now.closed {
                    return Err(JournalError::Closed);
                }
            }
            if let Some(receipt) = self.try_redeem(pledge) {
                return Ok(receipt);
            }
            progress.changed().await.map_err(|_| JournalError::Closed)?;
        }
    }
}
