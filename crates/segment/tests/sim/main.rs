//! The log on a disk that loses, tears and refuses: random schedules by seed, and every call of a fixed workload cut or
//! failed in turn. What is asserted is in `harness`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod damage;
mod exhaustive;
mod harness;
mod random;
mod reader;
