//! The journal over real files and over a disk that loses what was not synced.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "journal/crash.rs"]
mod crash;
#[path = "journal/full.rs"]
mod full;
#[path = "journal/golden.rs"]
mod golden;
#[path = "journal/runs.rs"]
mod runs;
#[path = "journal/support.rs"]
mod support;
