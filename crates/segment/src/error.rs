//! What can go wrong with a log, and what to do about it.
//!
//! Every error of the disk names the file and what was asked of it. After [`Error::Full`], [`Error::Backlog`] and
//! [`Error::SyncInFlight`] the log is whole and may be asked again; [`Error::Poisoned`] is final.

use std::fmt;
use std::io;

/// An error of the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room on the disk for the next segment; nothing accepted was lost.
    #[error(
        "the disk is full: no room for a segment of {needed_bytes} bytes ({free_bytes} free); free some space"
    )]
    Full {
        /// Bytes that the next segment takes.
        needed_bytes: u64,
        /// Bytes that the file system said are free.
        free_bytes: u64,
    },
    /// Too much waits in memory for the disk.
    #[error(
        "{waiting_bytes} bytes wait for the disk, and {max_bytes} may: the disk is too slow or syncs have stopped"
    )]
    Backlog {
        /// Bytes not yet durable.
        waiting_bytes: usize,
        /// How many may wait.
        max_bytes: usize,
    },
    /// The payload does not fit a segment.
    #[error("a frame of {bytes} bytes does not fit: at most {max_bytes}")]
    TooLarge {
        /// Bytes of the payload.
        bytes: usize,
        /// The largest payload.
        max_bytes: usize,
    },
    /// Kind 0 is the log's own.
    #[error("frame kind 0 belongs to the log itself")]
    Kind,
    /// The disk failed twice in a row; no more is written by this process.
    #[error("the log writes no more: {what}; check the disk, then start again")]
    Poisoned {
        /// The second failure.
        what: String,
    },
    /// A second sync was begun before the first was finished.
    #[error("a sync is already under way")]
    SyncInFlight,
    /// The frame was removed with its segment.
    #[error("frame {index} is gone: the oldest one kept is {oldest}")]
    Removed {
        /// The frame asked for.
        index: u64,
        /// The oldest frame kept.
        oldest: u64,
    },
    /// Frames that were durable are missing or changed.
    #[error("{0}; keep the directory for an examination, and start with an empty one")]
    Damaged(Damage),
    /// The disk refused something.
    #[error("{what} {file}: {source}")]
    Io {
        /// What was asked.
        what: &'static str,
        /// Of which file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what, file: file.into(), source }
    }
}

/// Where the log is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// The offset in the file where the frame should begin.
    pub offset: u64,
    /// The frame that should be there.
    pub index: u64,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is damaged at offset {}, frame {}: {}",
            self.file, self.offset, self.index, self.what
        )
    }
}
