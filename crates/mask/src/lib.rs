//! What of a result a client may not see, and what it sees instead.
//!
//! Promises:
//! - A column of a result is passed only where all that may flow into it is known and nothing of it
//!   is protected, or where policy cleared it. What can't be told is [`Unresolved`]'s to say.
//! - What stands in place of a value is valid for its type and format (table in `form.rs`).
//! - The same value under the same key and class gives the same hash or token, on every host.
//! - A [`Secret`] has no `Debug`, no `Serialize`, and is zeroed when it goes.
//!
//! What it can't do:
//! - Without a catalogue, names are taken for base tables: a view or a partition stands for itself.
//! - A protected value that was copied into another relation is not known there.
//! - Detectors find values by their shape: see `detect.rs` for what they miss.

mod catalogue;
mod copy;
pub mod detect;
mod duties;
pub mod exercise;
mod ff1;
mod form;
mod order;
mod plan;
mod protection;
mod secret;
pub mod text;
mod transform;

pub use copy::{CopyFormat, CopyStyle};
pub use detect::{Cover, Detectors, Stream};
pub use duties::{Counts, Duties, Tally};
pub use form::Format;
pub use order::{Order, Withheld};
pub use plan::{Field, Masker, Plan, Treatment};
pub use protection::{Mask, ProtectedColumn, Protection, ProtectionError, Touched, Unresolved};
pub use secret::Secret;
pub use transform::Constant;
