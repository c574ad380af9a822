//! The collector's promises, against an agent that is made of real ledger code and lies on demand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests: a failure here is the test's verdict"
)]

#[path = "collector/acts.rs"]
mod acts;
#[path = "collector/agent.rs"]
mod agent;
#[path = "collector/bundle.rs"]
mod bundle;
#[path = "collector/coverage.rs"]
mod coverage;
#[path = "collector/enrolment.rs"]
mod enrolment;
#[path = "collector/export.rs"]
mod export;
#[path = "collector/golden.rs"]
mod golden;
#[path = "collector/home.rs"]
mod home;
#[path = "collector/ingest.rs"]
mod ingest;
#[path = "collector/question.rs"]
mod question;
#[path = "collector/restart.rs"]
mod restart;
#[path = "collector/syslog.rs"]
mod syslog;
#[path = "collector/verify.rs"]
mod verify;
#[path = "collector/witness.rs"]
mod witness;
