//! Where protected values could be afterwards: spool, log, logs, query, and what a SIEM got.

use std::path::Path;
use std::time::Duration;

use xtask::lab::process::{Daemon, Identity, wait_for};
use xtask::lab::{Lab, places};

use super::setup::{Search, Values, bytes_below};

/// What the last statement is: where it is found, all before it is too.
pub const MARK: &str = "SELECT 'canary is over'";

/// A receiver, the file in which it keeps what came, and what the collector is told.
pub struct Otlp {
    _receiver: Daemon,
    pub file: std::path::PathBuf,
    pub toml: String,
}

/// Starts a receiver.
pub fn otlp(dir: &Path) -> Otlp {
    let file = dir.join("otlp");
    let mut command =
        std::process::Command::new(places::our_program("examples/otlp_receiver").unwrap());
    command.args(["--grpc", "127.0.0.1:0", "--out"]).arg(&file);
    let (receiver, address) = Daemon::start_until_line(
        "otlp_receiver",
        &mut command,
        &Identity::default(),
        &dir.join("otlp.log"),
        "ready: grpc=",
        Duration::from_secs(20),
    )
    .unwrap();
    let toml = format!(
        "[[export]]\nname = \"siem\"\nprotocol = \"grpc\"\nendpoint = \"http://{address}\"\n"
    );
    Otlp { _receiver: receiver, file, toml }
}

/// What clients may not see is nowhere afterwards. The last statement was [`MARK`].
pub fn is_nowhere(lab: &Lab, values: &Values, otlp: &Otlp) {
    lab.evidence().unwrap();
    wait_for("the feed is complete", Duration::from_mins(1), || {
        let text = std::fs::read_to_string(&otlp.file)?;
        Ok(text.contains("canary is over").then_some(()))
    })
    .unwrap();
    let all = values.all_stored().chain(values.typed.iter().map(String::as_str));
    let search = Search::new(all);
    let collector = lab.collector().unwrap();
    let query = collector.query(&[]).unwrap();
    let shown: Vec<String> = query.events.iter().map(|event| event.json.to_string()).collect();
    for (what, bytes) in [
        ("the agent's spool", bytes_below(&lab.agent().unwrap().state())),
        ("the collector's data", bytes_below(&collector.data())),
        ("the agent's log", std::fs::read(lab.path("agent/agent.log")).unwrap()),
        ("the collector's log", std::fs::read(lab.path("collector/serve.log")).unwrap()),
        ("query --json", shown.join("\n").into_bytes()),
        ("OTLP", std::fs::read(&otlp.file).unwrap()),
    ] {
        let has_mark = bytes.windows(14).any(|window| window == b"canary is over");
        assert!(has_mark || what.ends_with("log"), "{what} was not looked at");
        search.finds_none(what, &bytes);
    }
}
