//! Agents that are killed and come back while clients connect without pause: no connection goes past,
//! and nothing is left over.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidegate_agent::capture::Kernel;

use crate::lab::{Lab, client, listen};

/// Restarts in the ordinary tests.
const RESTARTS: u32 = 3;

/// Names another number of them, for the soak.
const RESTARTS_ENV: &str = "TIDEGATE_RESTARTS";

/// Clients that connect without pause.
const CLIENTS: usize = 3;

#[test]
fn killed_agents_come_back_under_churn_with_no_way_past() {
    let restarts = std::env::var(RESTARTS_ENV).map_or(RESTARTS, |text| text.parse().unwrap());
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    server.set_nonblocking(true).unwrap();
    let rules = [lab.rule(1, "127.0.0.1", target.port())];
    drop(lab.attach(&rules));
    let pinned = std::fs::read_dir(&lab.pin_dir).unwrap().count();
    let mut pairs = Vec::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            pairs.push(ours);
            client(lab.uid, move || {
                let mut count = 0_u32;
                let mut theirs = theirs;
                loop {
                    if theirs.read(&mut [0]).is_ok() {
                        return count.to_string();
                    }
                    count += u32::from(TcpStream::connect(target).is_ok());
                }
            })
        })
        .collect();
    let mut closed = Vec::new();
    for _ in 0..restarts {
        let begun = Instant::now();
        let (mut told, mut tell) = UnixStream::pair().unwrap();
        let options = lab.options();
        let agent = client(0, || {
            let (_kernel, resumed) = Kernel::attach(options, &rules).unwrap();
            assert!(resumed.was_pinned);
            let (v4, _v6) = lab.gate();
            let mut seen = 0_u32;
            loop {
                let accepted = v4.accept();
                seen += u32::from(accepted.is_ok());
                if seen == 20 {
                    tell.write_all(b"x").unwrap();
                }
            }
        });
        told.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        told.read_exact(&mut [0]).unwrap();
        closed.push(begun.elapsed());
        kill(Pid::from_raw(agent.pid.cast_signed()), Signal::SIGKILL).unwrap();
        agent.said();
        assert!(server.accept().is_err(), "somebody went past");
        assert_eq!(std::fs::read_dir(&lab.pin_dir).unwrap().count(), pinned, "pins are left over");
    }
    for pair in &mut pairs {
        pair.write_all(b"x").unwrap();
    }
    let connected: u32 = clients.into_iter().map(|one| one.said().parse::<u32>().unwrap()).sum();
    assert!(server.accept().is_err(), "somebody went past");
    assert!(connected >= 20 * restarts, "{connected} connections");
    closed.sort();
    let (median, worst) = (closed[closed.len() / 2], closed[closed.len() - 1]);
    println!(
        "{restarts} restarts, {connected} connections; closed {median:?} in the median, {worst:?} at worst"
    );
}
