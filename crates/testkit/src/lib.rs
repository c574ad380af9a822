//! A clock that stands until it is moved, a disk that loses, tears and refuses, the random numbers of both, and
//! conversations. For tests only; nothing that ships depends on this crate.
//!
//! Promise: everything follows from a seed, so a failing schedule is found again by its number.

mod clock;
mod conversation;
mod disk;
mod rng;

pub use clock::SimClock;
pub use conversation::{Came, Ways, conversations, said_in_parts, ways};
pub use disk::{Fault, SimDisk, SimFile};
pub use rng::Rng;

/// The environment variable that says how many random schedules a model test runs, for `cargo xtask soak`.
pub const SCHEDULES_VARIABLE: &str = "TIDEGATE_SCHEDULES";

/// How many schedules to run: the variable's value as the caller read it, or the default.
pub fn schedules(value: Option<&str>, default: u64) -> u64 {
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}
