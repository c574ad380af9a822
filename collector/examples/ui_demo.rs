//! A collector with a small night of records in it, and its review pages: for a look, and for the
//! browser test.
//!
//! Promises: everything is in a temporary directory that goes away with the program; one JSON line on
//! stdout says where the pages are, with a one-time link for each role; it ends when stdin does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a demo: a failure here is its end")]

use std::io::{Read as _, Write as _};

use tidegate_collector::clock;
use tidegate_collector::config::Ui;
use tidegate_collector::ui::roles::{Role, Scope};
use tidegate_collector::ui::store::{Invitation, Store};

#[expect(dead_code, reason = "helpers that only the tests use")]
#[path = "../tests/collector/agent.rs"]
mod agent;
#[path = "../tests/ui/demo.rs"]
mod demo;
#[expect(dead_code, reason = "helpers that only the tests use")]
#[path = "../tests/collector/home.rs"]
mod home;

#[tokio::main]
async fn main() {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let mut home = home::Home::new();
    home.config.ui = Some(Ui { listen: listen.parse().unwrap(), tls: None });
    let running = home.serve().await;
    demo::fill(&home, &running).await;
    let base = format!("http://{}", running.ui.unwrap());
    let store = Store::open(&home.config.paths().ui()).unwrap();
    let link = |name: &str, role: Role, scope: &Scope| {
        let invitation = Invitation { name, role, scope, operates: &[] };
        let token = store.invite(&invitation, clock::now_ns()).unwrap();
        format!("{base}/enter?token={token}")
    };
    let all = Scope::default();
    let said = serde_json::json!({
        "url": base,
        "reviewer": link("rita.reviewer", Role::Reviewer, &all),
        "examiner": link("emil.examiner", Role::Examiner, &all),
        "admin": link("ada.admin", Role::Admin, &all),
        "data": home.dir.path(),
    });
    let mut out = std::io::stdout();
    writeln!(out, "{said}").unwrap();
    out.flush().unwrap();
    let ended = tokio::task::spawn_blocking(|| {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest).unwrap();
    });
    ended.await.unwrap();
    running.stop().await.unwrap();
}
