//! The OTLP feed: every operation reaches a receiver at least once, also one that fails at first.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use xtask::lab::process::{Daemon, Identity, wait_for};
use xtask::lab::{Lab, Options, Who, places};

#[test]
fn both_receivers_get_every_statement_although_they_fail_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut receivers = Vec::new();
    let mut toml = String::new();
    for kind in ["grpc", "http"] {
        let out = dir.path().join(kind);
        let mut command = Command::new(places::our_program("examples/otlp_receiver").unwrap());
        command.args([&format!("--{kind}"), "127.0.0.1:0", "--fail-first", "2", "--out"]).arg(&out);
        let (daemon, address) = Daemon::start_until_line(
            "otlp_receiver",
            &mut command,
            &Identity::default(),
            &dir.path().join(format!("{kind}.log")),
            &format!("ready: {kind}="),
            Duration::from_secs(20),
        )
        .unwrap();
        write!(
            toml,
            "[[export]]\nname = \"{kind}\"\nprotocol = \"{kind}\"\nendpoint = \"http://{address}\"\n"
        )
        .unwrap();
        receivers.push((daemon, out));
    }
    let lab = Lab::start(Options { collector_toml: toml, ..Options::default() }).unwrap();
    let texts = (0..50).map(|n| format!("SELECT 'exported {n}'")).collect::<Vec<_>>();
    let statements = texts.iter().map(String::as_str).collect::<Vec<_>>();
    assert!(lab.sql(Who::Service, &statements).unwrap().ok());
    lab.evidence().unwrap();
    for (_, out) in &receivers {
        wait_for("the feed is complete", Duration::from_mins(1), || {
            let text = std::fs::read_to_string(out).unwrap();
            Ok(texts.iter().all(|wanted| text.contains(wanted.as_str())).then_some(()))
        })
        .unwrap();
    }
    lab.finish().unwrap();
}
