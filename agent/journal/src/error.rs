//! What can go wrong with the journal, and what to do about it.

use tidegate_event::{ChainId, Seq};
use tidegate_spool::SpoolError;

/// An error of the journal. Where recording fails, the operation may not pass, unless the target's
/// owner chose `on_failure = "open"`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The spool is so full that statements are refused.
    #[error("the audit spool is full: {0}")]
    Full(String),
    /// The spool is so full that sessions are refused.
    #[error(
        "the audit spool takes no new sessions ({used_bytes} of {max_bytes} bytes wait for the \
         collector): see why the collector does not take them, or raise spool.bytes_max"
    )]
    NoNewSessions {
        /// Bytes that wait.
        used_bytes: u64,
        /// Bytes that may.
        max_bytes: u64,
    },
    /// The disk refused.
    #[error("the audit spool can't be written: {0}")]
    Spool(String),
    /// The journal was shut down.
    #[error("the journal is closed")]
    Closed,
    /// The records in the spool are not a chain.
    #[error(
        "record {seq} of chain {chain_id} in the spool is not the next of its chain ({what}): keep \
         the spool's directory for an examination, and start with an empty one"
    )]
    Broken {
        /// The chain.
        chain_id: ChainId,
        /// The record.
        seq: Seq,
        /// What is wrong.
        what: String,
    },
    /// The spool's chain was sealed by another key.
    #[error(
        "the spool holds chain {chain_id}, which another audit key seals: put that key back, or move \
         the spool's directory away (the collector will report what is missing)"
    )]
    OtherKey {
        /// The chain.
        chain_id: ChainId,
    },
    /// The system gave no random bytes, or no thread.
    #[error("{0}")]
    System(String),
}

impl JournalError {
    /// Whether it is for want of room (SQLSTATE 53100).
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full(_) | Self::NoNewSessions { .. })
    }
}

impl From<SpoolError> for JournalError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Full { .. } | SpoolError::DiskFull { .. } | SpoolError::Backlog { .. } => {
                Self::Full(error.to_string())
            }
            _ => Self::Spool(error.to_string()),
        }
    }
}
