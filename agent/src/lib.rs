//! The host agent: captures, decides, records and relays.
//!
//! The road of one statement: `capture` (the kernel's note) -> `ingress` (who is it) -> `session`
//! (what is asked) -> `gate` (may it, and is it written) -> `upstream` (only with a Receipt) ->
//! `uplink` (to the collector).

pub mod app;
pub mod approvals;
pub mod budget;
pub mod capture;
pub mod catalogue;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod counted;
pub mod coverage;
pub mod doctor;
pub mod drain;
pub mod findings;
pub mod gate;
pub mod ingress;
pub mod lanes;
pub mod mask_key;
pub mod masking;
pub mod namespaces;
pub mod opaque;
pub mod password_key;
pub mod resolve;
pub mod session;
mod ssh;
pub mod telemetry;
pub mod tls;
pub mod uplink;
pub mod upstream;
pub mod watch;
