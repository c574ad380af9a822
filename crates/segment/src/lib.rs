//! Durable append-only segments over a [`Files`] trait: the agent's spool and the collector's log.
//!
//! Promises:
//! - What [`Log::finish_sync`] has reported durable is found by every later [`Log::open`], in order, once, unchanged.
//! - A failed sync is never asked for again on the same descriptor: the kernel may have dropped the pages and call the
//!   next sync a success. All that is not durable is written from memory to a new segment and synced there; a second
//!   failure poisons the log for good.
//! - What was accepted by [`Log::append`] stays in memory until it is durable, so a full disk loses nothing.
//! - Opening never invents, repeats or reorders frames, and never writes into the part of a file that it trusts.
//! - A torn tail (bytes that were never reported durable) is cut and reported; a hole in what was durable is an error.
//!
//! Cannot do: prove that nobody edited, cut or replaced the files (a CRC is no signature: that is the ledger's job), or
//! see damage to frames of the last sync before a crash, when no later frame says that they were durable; those are
//! reported as a torn tail.
//!
//! The format, byte by byte: `docs/formats/segment.md`. Known gap: making the next segment happens inside `append`
//! (one preallocation, one file sync and one directory sync per segment).

mod error;
mod files;
mod format;
mod frames;
mod log;
#[cfg(feature = "os")]
pub mod os;
mod reader;
mod recover;
mod scan;
mod view;

pub use error::{Damage, Error};
pub use files::{File, Files};
pub use format::{
    FORMAT_VERSION, FRAME_HEAD_BYTES, FRAME_PAYLOAD_BYTES_MAX, HEADER_BYTES, MAGIC, MARK_BYTES,
    MARK_KIND,
};
pub use log::{Log, Options, Removal, SyncDone, SyncTicket};
pub use reader::{Bound, Frame, Reader};
pub use recover::{Recovery, Torn};
pub use scan::{Scan, ScanEnd, scan};
