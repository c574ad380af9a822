//! What can go wrong with the spool, and what to do about it.
//!
//! After `Full`, `DiskFull`, `Backlog` and `NotDurable` the spool is whole and may be asked again.

use std::io;
use std::path::{Path, PathBuf};

use tidegate_segment::{Damage, Error};

/// An error of the spool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// As many bytes wait for the collector as may.
    #[error(
        "the spool is full ({used_bytes} of {max_bytes} bytes wait for the collector): see why the collector does not take them, or raise spool.bytes_max"
    )]
    Full {
        /// Bytes that wait.
        used_bytes: u64,
        /// Bytes that may.
        max_bytes: u64,
    },
    /// The file system has no room for the next segment, and the reserve is not for this record, or used up.
    #[error(
        "the disk of the spool {dir} is full ({free_bytes} bytes free, {needed_bytes} needed): free some space there"
    )]
    DiskFull {
        /// The spool's directory.
        dir: PathBuf,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes needed.
        needed_bytes: u64,
    },
    /// Too much waits in memory for the disk.
    #[error(
        "{waiting_bytes} bytes wait for the spool's disk, and {max_bytes} may: the disk is too slow, or hangs"
    )]
    Backlog {
        /// Bytes not yet durable.
        waiting_bytes: usize,
        /// How many may wait.
        max_bytes: usize,
    },
    /// The record does not fit a segment.
    #[error("a record of {bytes} bytes does not fit the spool: at most {max_bytes}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The largest.
        max_bytes: usize,
    },
    /// The disk failed twice in a row.
    #[error(
        "the spool {dir} writes no more after two failures of its disk ({what}): check the disk, then restart the agent"
    )]
    Poisoned {
        /// The spool's directory.
        dir: PathBuf,
        /// The second failure.
        what: String,
    },
    /// Durable frames are missing or changed.
    #[error(
        "spool {dir}: {damage}; keep the directory for an examination, and start with an empty one"
    )]
    Damaged {
        /// The spool's directory.
        dir: PathBuf,
        /// What, and where.
        damage: Damage,
    },
    /// Another process has the directory.
    #[error("the spool {dir} is in use by another process: is an agent running already?")]
    InUse {
        /// The spool's directory.
        dir: PathBuf,
    },
    /// An acknowledgement of frames that are not durable here.
    #[error(
        "frames below {index} were acknowledged, but only those below {durable} are durable here: the collector confuses two spools"
    )]
    NotDurable {
        /// The acknowledgement.
        index: u64,
        /// The durable index.
        durable: u64,
    },
    /// The frame was acknowledged and is gone.
    #[error("frame {index} was acknowledged and is gone; the oldest one kept is {oldest}")]
    Removed {
        /// The frame asked for.
        index: u64,
        /// The oldest kept.
        oldest: u64,
    },
    /// A call that the caller must not make.
    #[error("{0}")]
    Misuse(&'static str),
    /// The disk refused something.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was asked.
        what: &'static str,
        /// Of which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl SpoolError {
    pub(crate) fn io(what: &'static str, dir: &Path, file: &str, source: io::Error) -> Self {
        Self::Io { what, path: dir.join(file), source }
    }

    /// An error of the log, with the directory where it happened; for readers, which do not know it.
    pub fn of_log(dir: &Path, error: Error) -> Self {
        let dir = dir.to_owned();
        match error {
            Error::Full { needed_bytes, free_bytes } => {
                Self::DiskFull { dir, free_bytes, needed_bytes }
            }
            Error::Backlog { waiting_bytes, max_bytes } => {
                Self::Backlog { waiting_bytes, max_bytes }
            }
            Error::TooLarge { bytes, max_bytes } => Self::TooLarge { bytes, max_bytes },
            Error::Poisoned { what } => Self::Poisoned { dir, what },
            Error::Damaged(damage) => Self::Damaged { dir, damage },
            Error::Removed { index, oldest } => Self::Removed { index, oldest },
            Error::Io { what, file, source } => Self::io(what, &dir, &file, source),
            Error::SyncInFlight => Self::Misuse("a sync of the spool is already under way"),
            _ => Self::Misuse("the log refused a call that the spool should not have made"),
        }
    }
}
