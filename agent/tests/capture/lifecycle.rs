//! What stays when agents stop, die, come back, or are of another version.

use aya::maps::{Array, Map, MapData};
use tidegate_agent::capture::{self, CaptureError, Kernel, Rule};
use tidegate_agent_common::{ABI, Abi};

use crate::captured;
use crate::lab::{Lab, NOWHERE_V4, addr, attempt, client, listen, move_self};

#[test]
fn without_an_agent_a_protected_target_is_refused_until_detach() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    let kernel = lab.attach(&[lab.rule(1, "127.0.0.1", target.port())]);
    let gate = lab.gate();
    drop(gate);
    drop(kernel);
    assert_eq!(client(lab.uid, || attempt(target)).said(), "ConnectionRefused");
    assert_eq!(client(lab.other_uid, || attempt(target)).said(), format!("peer {target}"));
    assert!(capture::detach(&lab.pin_dir).unwrap());
    assert_eq!(client(lab.uid, || attempt(target)).said(), format!("peer {target}"));
    assert!(!capture::detach(&lab.pin_dir).unwrap(), "nothing is left to detach");
}

#[test]
fn a_killed_agent_leaves_its_hooks() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    let rules = [lab.rule(1, "127.0.0.1", target.port())];
    let options = lab.options();
    let agent = client(0, || {
        let kernel = Kernel::attach(options, &rules);
        assert!(kernel.is_ok());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        String::new()
    });
    agent.said();
    assert_eq!(client(lab.uid, || attempt(target)).said(), "ConnectionRefused");
    let (_kernel, resumed) = lab.attach_resumed(&rules);
    assert!(resumed.was_pinned);
}

#[test]
fn a_rule_open_on_failure_passes_within_its_bound_and_is_counted() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    let open = |id, open_ms_max| Rule {
        open_on_failure: true,
        open_ms_max,
        ..lab.rule(id, "127.0.0.1", target.port())
    };
    let (mut kernel, _) = lab.attach_resumed(&[open(3, 60_000)]);
    let now_ns = monotonic_ns();
    let passes = format!("peer {target}");
    let rows = [
        (0, "ConnectionRefused"),
        (4, "ConnectionRefused"),
        (30, &passes),
        (59, &passes),
        (61, "ConnectionRefused"),
    ];
    for (silent_s, expected) in rows {
        kernel.beat_at(now_ns - silent_s * 1_000_000_000).unwrap();
        let said = client(lab.uid, || attempt(target)).said();
        assert_eq!(said, expected, "silent for {silent_s} s");
    }
    assert_eq!(kernel.counters().unwrap().passed_open, 2);
    kernel.set_rules(&[lab.rule(3, "127.0.0.1", target.port())]).unwrap();
    kernel.beat_at(now_ns - 30_000_000_000).unwrap();
    assert_eq!(client(lab.uid, || attempt(target)).said(), "ConnectionRefused", "a closed rule");
    drop(kernel);
    let (mut kernel, resumed) = lab.attach_resumed(&[open(3, 60_000)]);
    assert_eq!(resumed.passed_open, [(3, 2)]);
    assert_eq!(kernel.take_passed_open().unwrap(), [], "each pass is reported once");
}

fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let ns = u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000;
    assert!(ns > 100_000_000_000, "not run: the host booted less than 100 s ago");
    ns
}

#[test]
fn the_next_agent_takes_over_hooks_captures_and_counters() {
    let lab = Lab::new();
    let rules = [lab.rule(1, NOWHERE_V4, 5432)];
    let (kernel, resumed) = lab.attach_resumed(&rules);
    assert!(!resumed.was_pinned);
    let (v4, v6) = lab.gate();
    let asked = addr(NOWHERE_V4, 5432);
    let first = client(lab.uid, || attempt(asked));
    let (stream, _) = v4.accept().unwrap();
    let before = captured(&stream);
    assert_eq!(first.said(), format!("peer {asked}"));
    drop(kernel);
    drop((v4, v6));
    let (kernel, resumed) = lab.attach_resumed(&rules);
    assert!(resumed.was_pinned);
    assert_eq!(captured(&stream), before, "a capture outlives the agent that took it");
    let (v4, _v6) = lab.gate();
    let second = client(lab.uid, || attempt(asked));
    let (stream, _) = v4.accept().unwrap();
    assert_eq!(captured(&stream).pid, second.pid);
    second.said();
    assert_eq!(kernel.counters().unwrap().captured, 2);
}

#[test]
fn two_agents_cannot_hold_the_same_hooks() {
    let lab = Lab::new();
    let _kernel = lab.attach(&[]);
    let error = Kernel::attach(lab.options(), &[]).unwrap_err();
    assert!(matches!(error, CaptureError::Busy(_)), "{error}");
}

#[test]
fn hooks_follow_the_agent_to_another_cgroup() {
    let lab = Lab::new();
    let rules = [lab.rule(1, NOWHERE_V4, 5432)];
    drop(lab.attach(&rules));
    let inner = lab.cgroup.join("inner");
    std::fs::create_dir(&inner).unwrap();
    let options = capture::Options { cgroup: Some(inner.clone()), ..lab.options() };
    let outside = Kernel::attach(options.clone(), &rules).unwrap_err();
    assert!(matches!(outside, CaptureError::NotBelow { .. }), "{outside}");
    assert!(outside.to_string().contains("capture.cgroup"), "{outside}");
    move_self(&inner);
    let (kernel, _) = Kernel::attach(options, &rules).unwrap();
    let (v4, _v6) = lab.gate();
    let client = client(lab.uid, || attempt(addr(NOWHERE_V4, 5432)));
    let (stream, _) = v4.accept().unwrap();
    assert_eq!(captured(&stream).pid, client.pid);
    client.said();
    assert_eq!(kernel.counters().unwrap().captured, 1, "led away once, not by old and new hooks");
    drop(kernel);
    capture::detach(&lab.pin_dir).unwrap();
    move_self(&lab.cgroup);
    std::fs::remove_dir(&inner).unwrap();
}

#[test]
fn hooks_of_another_abi_are_not_taken_over() {
    let lab = Lab::new();
    drop(lab.attach(&[]));
    let pinned = MapData::from_pin(lab.pin_dir.join("map_ABI")).unwrap();
    let mut mark = Array::<MapData, Abi>::try_from(Map::from_map_data(pinned).unwrap()).unwrap();
    let other = Abi { version: ABI.version + 1, ..ABI };
    mark.set(0, other, 0).unwrap();
    let error = Kernel::attach(lab.options(), &[]).unwrap_err();
    assert!(
        matches!(&error, CaptureError::PinnedAbi { found: Some(found), .. } if *found == other)
    );
    assert!(error.to_string().contains("tidegate-agent detach"), "{error}");
}
