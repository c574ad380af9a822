//! The completeness ledger on a real kernel: what it counts, and what a planted discrepancy shows.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use tidegate_agent::capture::Kernel;
use tidegate_agent::config::{Config, SystemAccounts};
use tidegate_agent::coverage::{self, Coverage};

use crate::captured;
use crate::deeds::{ids, said};
use crate::guard::Scene;
use crate::lab::{attempt, client};

const SECOND_NS: u64 = 1_000_000_000;

/// Names for the scene's account and target, which is the last of eight.
fn config(uid: u32) -> Config {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.cedar"), "").unwrap();
    let head = "[agent]\nid = \"a\"\n[policy]\nfiles = [\"p.cedar\"]\n";
    let principal = format!("[[principals]]\nname = \"batch\"\nuid = {uid}\n");
    let target = |number: u32| {
        format!(
            "[[targets]]\nname = \"db{number}\"\nprotocol = \"postgres\"\n\
             destinations = [\"10.0.0.{number}:5432\"]\n"
        )
    };
    let targets: String = (0..8).map(target).collect();
    let text = format!("{head}{principal}{targets}");
    Config::parse(&dir.path().join(Path::new("agent.toml")), &text, &SystemAccounts).unwrap()
}

fn counted(kernel: &Kernel) -> coverage::Kernel {
    coverage::Kernel { tallies: kernel.tallies().unwrap(), counters: kernel.counters().unwrap() }
}

#[test]
fn a_connection_that_the_gate_does_not_count_turns_the_ledger_red() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let config = config(uid);
    let ledger = Coverage::default();
    ledger.begin(counted(&scene.kernel));
    for served in [true, true, false] {
        let client = client(uid, || attempt(target));
        let (stream, _) = scene.gate.accept().unwrap();
        let raw = captured(&stream);
        if served {
            ledger.session(raw.owner, raw.rule);
        }
        client.said();
    }
    // Dropped: connected by another account, used by this one.
    let taker = client(0, || {
        let mut stream = TcpStream::connect(target).unwrap();
        ids(uid, uid, uid);
        said(stream.write_all(b"x"))
    });
    taker.said();
    let first = ledger.look(&config, &counted(&scene.kernel), 0);
    assert_eq!(first.discrepancies, Vec::<String>::new(), "it could be on its way");
    let second = ledger.look(&config, &counted(&scene.kernel), 10 * SECOND_NS);
    let [said] = second.discrepancies.as_slice() else { panic!("{second:?}") };
    assert!(said.starts_with("1 connections of batch to \"db7\" reached the gate"), "{said}");
    let [pair] = second.pairs.as_slice() else { panic!("{second:?}") };
    assert_eq!((pair.redirected, pair.accepted, pair.sessions, pair.dropped), (3, 3, 2, 1));
    ledger.refused(uid, 7);
    let third = ledger.look(&config, &counted(&scene.kernel), 20 * SECOND_NS);
    assert_eq!(third.discrepancies, Vec::<String>::new(), "all three are told of now");
}
