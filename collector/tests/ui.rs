//! The review pages' promises, by HTTP: who sees what, what is recorded, what texts can do, what is proven.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's verdict"
)]

#[expect(dead_code, reason = "helpers that only the collector's own tests use")]
#[path = "collector/agent.rs"]
mod agent;
#[path = "ui/client.rs"]
mod client;
#[path = "ui/demo.rs"]
mod demo;
#[path = "ui/door.rs"]
mod door;
#[expect(dead_code, reason = "helpers that only the collector's own tests use")]
#[path = "collector/home.rs"]
mod home;
#[path = "ui/pages.rs"]
mod pages;
#[path = "ui/proof.rs"]
mod proof;
#[path = "ui/review.rs"]
mod review;
#[path = "ui/terminal.rs"]
mod terminal;
