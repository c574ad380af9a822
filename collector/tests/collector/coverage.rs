//! `coverage` by the command line: what it says, its exit codes, and what it asks of hosts that never spoke.

use std::process::Command;

use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::lifecycle::Kind;
use tidegate_proto::audit::v1::{Coverage, Heartbeat, Lifecycle};

use crate::agent::FakeAgent;
use crate::home::{Home, indexed};

const SECOND_NS: u64 = 1_000_000_000;
/// 2023-11-15, 02:14:00 UTC.
const START_S: u64 = 1_700_014_440;

/// Exit code and text.
fn coverage(home: &Home, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-collector"));
    let config = home.config.paths().dir.join("collector.toml");
    command.arg("coverage").arg("--config").arg(config).args(arguments);
    command.args(["--from", "2023-11-15T02:15:00Z", "--to", "2023-11-15T02:16:00Z"]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn beat(sessions: u64, bytes_in: u64) -> Body {
    let pair = Coverage {
        principal: "batch".to_owned(),
        target: "ledger".to_owned(),
        accepted: sessions,
        sessions,
        sessions_ended: sessions,
        kernel_bytes_in: 100 * sessions,
        bytes_in,
        ..Coverage::default()
    };
    Body::Heartbeat(Heartbeat {
        coverage: vec![pair],
        hooks_digest: vec![1; 32].into(),
        agent_digest: vec![2; 32].into(),
        ..Heartbeat::default()
    })
}

/// Two minutes of an agent that guards one target; `astray` bytes of its last session are not parsed.
fn two_minutes(agent: &mut FakeAgent, astray: u64) {
    let config = Lifecycle {
        kind: Kind::ConfigLoaded.into(),
        targets: vec!["ledger".to_owned()],
        principals: vec!["batch".to_owned()],
        ..Lifecycle::default()
    };
    agent.record_at(Body::Lifecycle(config), START_S * SECOND_NS, SECOND_NS);
    for number in 0..=12 {
        let at = 10 * number * SECOND_NS;
        let lost = if number == 12 { astray } else { 0 };
        agent.record_at(
            beat(number, 100 * number - lost),
            START_S * SECOND_NS + at,
            SECOND_NS + at,
        );
    }
}

#[tokio::test]
async fn a_period_is_whole_or_the_hole_is_named_and_the_exit_code_says_so() {
    let home = Home::new();
    let running = home.serve().await;
    for (name, seed, astray) in [("host-a", 1, 0), ("host-b", 2, 7)] {
        let mut agent = FakeAgent::new(name, seed);
        let pass = home.enrol(&running, name, &agent.key).await;
        let (mut wire, _) = home.greeted(&running, &pass, None).await;
        two_minutes(&mut agent, astray);
        wire.deliver(agent.batch()).await;
    }
    indexed(&running).await;
    let (code, said) = coverage(&home, &["--host", "host-a"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("host-a (host-1): whole, heard until 2023-11-15T02:16:00.000000Z"),
        "{said}"
    );
    assert!(said.contains("batch to ledger: 6 sessions (6 ended), 6 connections to the kernel, 6"));
    let (code, said) = coverage(&home, &[]);
    assert_eq!(code, 20, "{said}");
    let expected = "02:15:50.000000Z to 2023-11-15T02:16:00.000000Z: batch to \"ledger\": 7 bytes from the client";
    assert!(said.contains(expected) && said.ends_with("NOT WHOLE\n"), "{said}");
    let (code, json) = coverage(&home, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["verdict"].as_str()), (20, Some("not_whole")));
    assert_eq!(json["hosts"][1]["holes"].as_array().map(Vec::len), Some(1), "{json}");
    // Who asks for what nobody guards is not told that all is well.
    for arguments in [["--target", "legder"], ["--principal", "nobody"], ["--host", "host-c"]] {
        let (code, said) = coverage(&home, &arguments);
        assert_eq!(code, 30, "{said}");
        assert!(said.ends_with("not decided: no host answers this question\n"), "{said}");
    }
    running.stop().await.unwrap();
    assert_eq!(home.verify().exit_code(), 0);
}

#[tokio::test]
async fn a_host_that_never_spoke_is_not_whole() {
    let home = Home::new();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("host-a", 1);
    let pass = home.enrol(&running, "host-a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    two_minutes(&mut agent, 0);
    wire.deliver(agent.batch()).await;
    indexed(&running).await;
    // Enrolled before the period's end, which is now, and never heard.
    home.enrol(&running, "host-silent", &FakeAgent::new("host-silent", 2).key).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-collector"));
    let config = home.config.paths().dir.join("collector.toml");
    let output = command.args(["coverage", "--config"]).arg(config).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(20), "{said}");
    let silent = said.split_once("host-silent ():").unwrap().1;
    assert!(silent.contains("nothing was heard of this host in the period"), "{said}");
    running.stop().await.unwrap();
}
