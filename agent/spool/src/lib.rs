//! The host's durable queue of records: segments, a cursor of what the collector has, a reserve for the last records.
//!
//! Promises, on top of those of `tidegate-segment`:
//! - Nothing is let go that was not acknowledged: the cursor moves and is synced first, then segments are unlinked.
//! - The spool takes no more than `bytes_max` of frames that wait for the collector; [`Spool::append_reserved`] may take
//!   `reserve_bytes` more, from a segment that is kept allocated, on a full disk too.
//! - A failed sync of the cursor is not asked for again on the same file: a new one is written and renamed over it.
//! - The newest segment is never unlinked, so frame numbers go on after everything was acknowledged.
//!
//! Cannot: give back frames twice in order to undo an acknowledgement; tell damage of acknowledged frames.
//! On the disk it takes at most `bytes_max`, two segments and the reserve. The format: `docs/formats/spool.md`.

mod cursor;
mod error;
mod spool;
mod state;

pub use error::SpoolError;
pub use spool::{Fill, Kind, Level, Options, Recovery, Spool};
pub use tidegate_segment::os::OsFiles;
pub use tidegate_segment::{Damage, File, Files, Frame, Reader, SyncDone, SyncTicket, Torn};
