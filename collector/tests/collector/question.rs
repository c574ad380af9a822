//! *Which service account read a customer record at 02:15 UTC?*: by one command, and proven to others.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidegate_proto::audit::v1::decision::Verdict;

use crate::agent::FakeAgent;
use crate::home::{Home, indexed};

/// 2023-11-15, 02:14:00 UTC.
const NIGHT_NS: u64 = 1_700_014_440_000_000_000;

fn collector(home: &Home, arguments: &[&str]) -> Output {
    let config = home.config.paths().dir.join("collector.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-collector"));
    command.arg(arguments[0]).arg("--config").arg(config).args(&arguments[1..]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Exit code and report of the second verifier.
fn python(arguments: &[&str]) -> (i32, serde_json::Value) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/verify.py");
    let output = Command::new("python3").arg(script).arg("--json").args(arguments).output();
    let output = output.unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), report)
}

/// A home whose log has a read of customers at 02:15:30, and others around it.
async fn night() -> Home {
    let home = Home::new();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("host-a", 1);
    let pass = home.enrol(&running, "host-a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    agent.wall_ns = NIGHT_NS;
    agent.session();
    let read = "select name from customers where id = 7";
    for _ in 0..44 {
        agent.statement("select 1 from branches", "select", "branches", Verdict::Allow);
    }
    agent.statement(read, "select", "public.customers", Verdict::Allow);
    agent.statement("delete from customers", "delete", "customers", Verdict::Deny);
    wire.deliver(agent.batch()).await;
    agent.wall_ns += 3_600_000_000_000;
    agent.statement(read, "select", "public.customers", Verdict::Allow);
    wire.deliver(agent.batch()).await;
    indexed(&running).await;
    running.stop().await.unwrap();
    home
}

#[tokio::test]
async fn who_read_a_customer_record_at_0215_is_one_command() {
    let home = night().await;
    let at = "2023-11-15T02:15Z";
    let question = ["query", "--table", "customers", "--action", "select", "--at", at];
    let said = text(&collector(&home, &question));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "a head and one answer:\n{said}");
    for part in ["batch", "ledger", "allow", "ok", "signed", "select name from customers", "02:15:"]
    {
        assert!(lines[1].contains(part), "{part}: {said}");
    }
    let json = text(&collector(&home, &[question.as_slice(), &["--json"]].concat()));
    let answer: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (index, seal) = (answer["index"].as_u64().unwrap(), answer["seal_index"].as_u64().unwrap());
    assert!(seal > index && answer["proof"]["checkpoint_size"].as_u64().unwrap() > seal, "{json}");
    let record = text(&collector(&home, &["verify", "--record", &index.to_string()]));
    assert!(record.contains("verified"), "{record}");

    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATING.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    assert!(
        manual
            .contains("query --config collector.toml --table customers --action select --at 02:15")
    );

    // The questions themselves are in the log after the next start.
    home.serve().await.stop().await.unwrap();
    home.serve().await.stop().await.unwrap();
    let acts = text(&collector(&home, &["query", "--admin"]));
    assert!(
        acts.lines().any(|line| line.contains("asked") && line.contains("customers")),
        "{acts}"
    );
}

#[tokio::test]
async fn both_verifiers_agree_on_a_collectors_log_and_on_a_bundle_of_it() {
    let home = night().await;
    let (log, keys) = (home.log(), home.config.paths().keys());
    let (log, keys) = (log.to_str().unwrap(), keys.to_str().unwrap());
    let ours = home.verify();
    let (code, theirs) = python(&["--log", log, "--keys", keys]);
    assert_eq!((code, ours.exit_code()), (0, 0), "{theirs:#}");
    assert_eq!(theirs["root"], hex::encode(ours.root));
    assert_eq!(theirs["records"], ours.records);

    let dir: PathBuf = home.dir.path().join("exam");
    let out = dir.to_str().unwrap();
    collector(
        &home,
        &["export-bundle", "--table", "customers", "--action", "select", "--out", out],
    );
    let ours = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-collector"));
        let output = command.args(["verify", "--json", "--bundle", out]).output().unwrap();
        output.status.code().unwrap()
    };
    assert_eq!((python(&["--bundle", out]).0, ours()), (0, 0));
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    // Two reads with their outcomes.
    assert_eq!(manifest["wanted"].as_array().unwrap().len(), 2, "{manifest:#}");
    for index in manifest["entries"].as_array().unwrap() {
        let path = dir.join(format!("entries/{index}"));
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert_eq!((python(&["--bundle", out]).0, ours()), (20, 20), "entry {index}");
        std::fs::write(&path, whole).unwrap();
    }

    let tlog = home.dir.path().join("tlog");
    collector(&home, &["export-tlog", "--out", tlog.to_str().unwrap()]);
    assert!(tlog.join("tile/entries").exists() && tlog.join("checkpoint").exists());
}
