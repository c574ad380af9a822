//! Evidence end to end: a witness, what the agent saw, a question, a replay, a bundle, and the second verifier on
//! the log of a real agent.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use xtask::lab::collector::Collector;
use xtask::lab::process::{Daemon, Identity, wait_slowly_for};
use xtask::lab::{Lab, Options, Who, places};

const STUCK: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(250);

/// A collector that is not served yet, and its witness, which runs.
fn witnessed(lab: &Lab) -> (Collector, Daemon) {
    let collector = Collector::init(&lab.path("collector"), "").unwrap();
    let keys = std::fs::read_to_string(collector.data().join("log/keys.json")).unwrap();
    let keys: Value = serde_json::from_str(&keys).unwrap();
    let address = format!("127.0.0.1:{}", places::free_port().unwrap());
    let dir = lab.path("witness");
    let mut init = collector.program();
    init.args(["witness", "init", "--name", "witness.lab.test", "--listen", &address]);
    init.args(["--log", keys["log_key"].as_str().unwrap(), "--dir"]).arg(&dir);
    let vkey = places::run(&mut init).unwrap();
    let mut config = std::fs::File::options().append(true).open(collector.config()).unwrap();
    let url = format!("http://{address}");
    let vkey = vkey.trim();
    write!(config, "\n[[witnesses]]\nname = \"w\"\nurl = \"{url}\"\nvkey = \"{vkey}\"\n").unwrap();
    let mut serve = collector.program();
    serve.args(["witness", "serve", "--dir"]).arg(&dir);
    let log = lab.path("witness.log");
    let identity = Identity::default();
    let (daemon, _) =
        Daemon::start_until_line("witness", &mut serve, &identity, &log, "ready:", STUCK).unwrap();
    (collector, daemon)
}

/// What the program says as JSON.
fn json(collector: &Collector, arguments: &[&str]) -> Value {
    let mut command = collector.program();
    command.arg(arguments[0]).arg("--config").arg(collector.config());
    let output = command.args(&arguments[1..]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn second_verifier(arguments: &[&Path]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/verify.py");
    let output =
        Command::new("python3").arg(script).arg("--json").args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_real_log_is_witnessed_and_proven_without_our_program() {
    let mut lab = Lab::prepare(Options::default()).unwrap();
    let (collector, mut witness) = witnessed(&lab);
    lab.collector = Some(collector);
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    lab.postgres.app("CREATE TABLE customers (id int); GRANT ALL ON customers TO PUBLIC").unwrap();
    let read = "SELECT id FROM customers";
    assert!(lab.sql(Who::Service, &[read]).unwrap().ok());
    lab.evidence().unwrap();

    let collector = lab.collector().unwrap();
    let question = ["query", "--json", "--table", "customers", "--action", "select"];
    let answer = wait_slowly_for("the answer is witnessed", STUCK, PAUSE, || {
        let answer = json(collector, &question);
        Ok((answer["proof"]["state"] == "witnessed").then_some(answer))
    })
    .unwrap();
    assert_eq!((answer["who"].as_str(), answer["text"].as_str()), (Some("batch"), Some(read)));
    wait_slowly_for("the agent recorded a checkpoint that it saw", STUCK, PAUSE, || {
        let report = json(collector, &["verify", "--json"]);
        Ok((report["seen_by_agents"].as_u64() > Some(0)).then_some(()))
    })
    .unwrap();
    let status = json(collector, &["status", "--json"]);
    assert!(status["witnessed"].as_u64() > answer["index"].as_u64(), "{status:#}");
    let mut replay = collector.program();
    replay.arg("replay").arg("--config").arg(collector.config());
    let shown = places::run(replay.arg(answer["session"].as_str().unwrap())).unwrap();
    assert!(shown.contains(read) && shown.contains("ALLOW"), "{shown}");
    let bundle = lab.path("bundle");
    let mut export = collector.program();
    export.arg("export-bundle").arg("--config").arg(collector.config());
    places::run(export.args(["--table", "customers", "--out"]).arg(&bundle)).unwrap();
    let report = second_verifier(&[Path::new("--bundle"), &bundle]);
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert!(report["witnessed_size"].as_u64() > Some(0), "{report:#}");

    lab.collector_mut().unwrap().stop().unwrap();
    let data = lab.collector().unwrap().data();
    let (log, keys, policy) =
        (data.join("log"), data.join("log/keys.json"), data.join("log/policy.txt"));
    let arguments = ["--log", "--keys", "--policy"].map(Path::new);
    let report = second_verifier(&[arguments[0], &log, arguments[1], &keys, arguments[2], &policy]);
    assert_eq!(report["exit_code"], 0, "{report:#}");
    assert_eq!(report["witnessed_size"], report["entries"], "{report:#}");
    assert!(report["seen_by_agents"].as_u64() > Some(0), "{report:#}");

    lab.start_collector().unwrap();
    let acts = lab.collector().unwrap().query(&["--admin"]).unwrap();
    for act in
        ["token_made", "agent_enrolled", "asked", "replayed", "exported", "started", "stopping"]
    {
        assert!(acts.events.iter().any(|event| event.text().starts_with(act)), "{act}");
    }
    lab.finish().unwrap();
    witness.stop().unwrap();
}
