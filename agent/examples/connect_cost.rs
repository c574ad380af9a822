//! What the hooks cost a connect and an accept: time on the wall, and in the kernel's programs.
//!
//!     cargo run --release -p tidegate-agent --example connect_cost [CONNECTS]
//!
//! Three settings: no hooks; hooks and an account that no rule names; a protected account, led to the gate. One client,
//! one connection at a time, on loopback. Needs root. Kernel time is the kernel's own count of its programs (bpf(2),
//! BPF_ENABLE_STATS), divided by the connections: all hooks that run from `socket()` to `close()`, on both ends.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement: what fails ends it"
)]

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use tidegate_agent::capture::{Kernel, capture_of, count_costs};

#[path = "../tests/capture/lab.rs"]
#[expect(dead_code, reason = "the tests' laboratory, of which this needs a part")]
mod lab;

use lab::{Lab, client, listen};

/// Connections of one setting where none are asked for.
const CONNECTS: usize = 5_000;

fn main() {
    let connects = std::env::args().nth(1).map_or(CONNECTS, |count| count.parse().unwrap());
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    println!(
        "{connects} connections each; median and 99th percentile of connect(), median of accept()"
    );
    measure("no hooks", lab.uid, target, &server, connects);
    let kernel = lab.attach(&[lab.rule(7, "127.0.0.1", target.port())]);
    let (gate, _) = lab.gate();
    for (name, uid, at) in
        [("hooks, not protected", lab.other_uid, &server), ("led to the gate", lab.uid, &gate)]
    {
        let before = spent(&kernel);
        let counting = count_costs().unwrap();
        measure(name, uid, target, at, connects);
        drop(counting);
        report(&before, &spent(&kernel), connects);
    }
}

/// Connects and accepts so often, and says how long each took.
fn measure(name: &str, uid: u32, target: SocketAddr, at: &TcpListener, connects: usize) {
    let client = client(uid, || {
        let took: Vec<Duration> = (0..connects).map(|_| connect(target)).collect();
        format!("{:?} {:?}", percentile(&took, 50), percentile(&took, 99))
    });
    let mut accepted = Vec::with_capacity(connects);
    for _ in 0..connects {
        at.set_nonblocking(false).unwrap();
        let (stream, _) = at.accept().unwrap();
        let start = Instant::now();
        // What the gate asks of each connection; unknown to the kernel without hooks.
        let _ = capture_of(stream.as_fd());
        accepted.push(start.elapsed());
    }
    println!("{name:24} connect {}; note {:?}", client.said(), percentile(&accepted, 50));
}

/// One connection, to its end by the other side.
fn connect(target: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(target).unwrap();
    let took = start.elapsed();
    let _ended = stream.read(&mut [0]);
    // No port waits for late segments: it would run out of ports.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    took
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}

/// Nanoseconds and runs of each hook's program so far.
fn spent(kernel: &Kernel) -> Vec<(&'static str, u64, u64)> {
    kernel.costs().unwrap()
}

fn report(before: &[(&str, u64, u64)], after: &[(&str, u64, u64)], connects: usize) {
    let connects = u64::try_from(connects).unwrap();
    let mut all_ns = 0;
    for ((place, ns, runs), (_, old_ns, old_runs)) in after.iter().zip(before) {
        let (ns, runs) = (ns - old_ns, runs - old_runs);
        all_ns += ns;
        if runs > 0 {
            println!("    {place:22} {} ns a connection, {runs} runs", ns / connects);
        }
    }
    println!("    in all                 {} ns a connection", all_ns / connects);
}
