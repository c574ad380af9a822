//! The capture on a real kernel. Needs root and cgroup2; fails with "not run" where it can't run.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::expect_used, reason = "helpers of tests")]
#![expect(clippy::panic, reason = "helpers of tests")]
#![expect(clippy::indexing_slicing, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use tidegate_agent::capture::{self, Rule, capture_of};
use tidegate_agent_common::RawCapture;
use tidegate_event::Executable;

#[path = "capture/deeds.rs"]
mod deeds;
#[path = "capture/guard.rs"]
mod guard;
#[path = "capture/lab.rs"]
mod lab;
#[path = "capture/ledger.rs"]
mod ledger;
#[path = "capture/lifecycle.rs"]
mod lifecycle;
#[path = "capture/link.rs"]
mod link;
#[path = "capture/restarts.rs"]
mod restarts;
#[path = "capture/rows.rs"]
mod rows;
#[path = "capture/uring.rs"]
mod uring;
#[path = "capture/walk.rs"]
mod walk;

use lab::{
    Lab, NOWHERE_V4, NOWHERE_V6, addr, attempt, client, disconnect, free_port, listen, raw_socket,
};

fn captured(stream: &TcpStream) -> RawCapture {
    capture_of(stream.as_fd()).unwrap().expect("the connection has no capture")
}

/// One client asks for `asked`; the gate must learn of `original`.
fn led_to_gate(rule_ip: &str, asked: &str, original: &str) {
    let lab = Lab::new();
    let _kernel = lab.attach(&[lab.rule(7, rule_ip, 5432)]);
    let (v4, v6) = lab.gate();
    let asked: SocketAddr = addr(asked, 5432);
    let client = client(lab.uid, || {
        let mut stream = TcpStream::connect(asked).unwrap();
        let peer = stream.peer_addr().unwrap();
        // Lives until the gate has looked at it.
        stream.read_exact(&mut [0]).unwrap();
        peer.to_string()
    });
    let original = addr(original, 5432);
    let mapped = matches!(asked.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    let listener = if asked.is_ipv4() || mapped { &v4 } else { &v6 };
    let (mut stream, _) = listener.accept().unwrap();
    let raw = captured(&stream);
    assert_eq!((raw.uid, raw.gid, raw.pid, raw.rule), (lab.uid, lab.uid, client.pid, 7));
    assert_eq!(raw.original(), original);
    let capture = tidegate_identity::describe(&raw);
    let own = std::env::current_exe().unwrap().display().to_string();
    assert_eq!(capture.process.executable, Executable::Path(own));
    let name = lab.cgroup.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(capture.process.cgroup, Some(format!("/{name}")));
    if original.is_ipv4() {
        assert_eq!(original_dst_v4(&stream), (NOWHERE_V4.parse().unwrap(), 5432));
    }
    stream.write_all(b"x").unwrap();
    assert_eq!(client.said(), asked.to_string());
}

/// What iptables' REDIRECT would answer, for gates that know nothing of ours.
fn original_dst_v4(stream: &TcpStream) -> (std::net::Ipv4Addr, u16) {
    let socket = socket2::SockRef::from(stream);
    let found = socket.original_dst_v4().unwrap().as_socket_ipv4().unwrap();
    (*found.ip(), found.port())
}

#[test]
fn an_ipv4_client_is_led_to_the_gate_and_sees_the_address_it_asked_for() {
    led_to_gate(NOWHERE_V4, NOWHERE_V4, NOWHERE_V4);
}

#[test]
fn an_ipv6_client_is_led_to_the_gate_and_sees_the_address_it_asked_for() {
    led_to_gate(NOWHERE_V6, NOWHERE_V6, NOWHERE_V6);
}

#[test]
fn a_v4_mapped_client_is_led_to_the_gate_as_the_ipv4_that_it_means() {
    led_to_gate(NOWHERE_V4, "::ffff:192.0.2.7", NOWHERE_V4);
}

#[test]
fn any_address_means_this_host_and_is_caught_as_such() {
    let lab = Lab::new();
    let port = free_port();
    let kernel = lab.attach(&[lab.rule(1, "127.0.0.1", port), lab.rule(2, "::1", port)]);
    let (v4, v6) = lab.gate();
    let rows =
        [("0.0.0.0", &v4, "127.0.0.1"), ("::", &v6, "::1"), ("::ffff:0.0.0.0", &v4, "127.0.0.1")];
    for (asked, listener, original) in rows {
        let client = client(lab.uid, || attempt(addr(asked, port)));
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(captured(&stream).original(), addr(original, port), "{asked}");
        client.said();
    }
    // An "any" address means the one that the socket is bound to, where it is bound.
    drop(kernel);
    let _kernel = lab.attach(&[lab.rule(1, "127.0.0.9", port)]);
    let client = client(lab.uid, || {
        let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
        socket.bind(&addr("127.0.0.9", 0).into()).unwrap();
        format!("{:?}", socket.connect(&addr("0.0.0.0", port).into()).map_err(|e| e.kind()))
    });
    let (stream, _) = v4.accept().unwrap();
    assert_eq!(captured(&stream).original(), addr("127.0.0.9", port));
    assert_eq!(client.said(), "Ok(())");
}

#[test]
fn no_capture_is_lost_when_clients_close_at_once() {
    const CLIENTS: usize = 4;
    const CONNECTIONS: usize = 500;
    let lab = Lab::new();
    let kernel = lab.attach(&[lab.rule(1, NOWHERE_V4, 5432)]);
    let (v4, _v6) = lab.gate();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            client(lab.uid, || {
                for at in 0..CONNECTIONS {
                    let stream = TcpStream::connect(addr(NOWHERE_V4, 5432)).unwrap();
                    if at % 2 == 0 {
                        // A reset instead of a FIN.
                        let socket = socket2::SockRef::from(&stream);
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                    }
                }
                "done".to_owned()
            })
        })
        .collect();
    let pids: Vec<_> = clients.iter().map(|client| client.pid).collect();
    for at in 0..CLIENTS * CONNECTIONS {
        let (stream, _) = v4.accept().unwrap();
        let raw = captured(&stream);
        assert_eq!((raw.uid, raw.original()), (lab.uid, addr(NOWHERE_V4, 5432)), "number {at}");
        assert!(pids.contains(&raw.pid), "number {at}");
    }
    for client in clients {
        assert_eq!(client.said(), "done");
    }
    let counters = kernel.counters().unwrap();
    let all = u64::try_from(CLIENTS * CONNECTIONS).unwrap();
    assert_eq!((counters.captured, counters.accepted), (all, all));
    assert_eq!((counters.flow_lost, counters.uncaptured), (0, 0));
}

#[test]
fn other_user_ids_and_other_destinations_are_untouched() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let elsewhere = listen("127.0.0.1", 0);
    let (protected, free) = (server.local_addr().unwrap(), elsewhere.local_addr().unwrap());
    let kernel = lab.attach(&[lab.rule(1, "127.0.0.1", protected.port())]);
    let _gate = lab.gate();
    let rows =
        [(lab.other_uid, protected, &server), (lab.uid, free, &elsewhere), (0, protected, &server)];
    // The last is root, and not the gate: this rule does not protect it.
    for (uid, asked, listener) in rows {
        let client = client(uid, || attempt(asked));
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(capture_of(stream.as_fd()).unwrap(), None);
        assert_eq!(client.said(), format!("peer {asked}"));
    }
    assert_eq!(kernel.counters().unwrap(), capture::Counters::default());
}

#[test]
fn nobody_but_the_gate_binds_its_port() {
    let lab = Lab::new();
    let kernel = lab.attach(&[]);
    let port = lab.gate_port;
    let rows = [("127.0.0.1", 0), ("0.0.0.0", 0), ("::1", 0), ("::", 0), ("127.0.0.2", lab.uid)];
    for (ip, uid) in rows {
        let client = client(uid, || {
            format!("{:?}", TcpListener::bind(addr(ip, port)).map_err(|error| error.kind()))
        });
        assert_eq!(client.said(), "Err(PermissionDenied)", "{ip}");
    }
    assert_eq!(kernel.counters().unwrap().refused_bind, 5);
    let _gate = lab.gate();
}

#[test]
fn datagrams_to_a_protected_destination_are_refused() {
    let lab = Lab::new();
    let kernel = lab.attach(&[lab.rule(1, "127.0.0.1", 5432), lab.rule(2, "::1", 5432)]);
    let rows = [
        ("127.0.0.1:0", "127.0.0.1:5432"),
        ("[::1]:0", "[::1]:5432"),
        ("[::]:0", "[::ffff:127.0.0.1]:5432"),
    ];
    for (from, to) in rows {
        let client = client(lab.uid, || {
            let socket = UdpSocket::bind(from).unwrap();
            let sent = socket.send_to(b"x", to).map_err(|error| error.kind());
            let connected = socket.connect(to).map_err(|error| error.kind());
            let allowed = socket.send_to(b"x", to.replace("5432", "5433")).is_ok();
            format!("{sent:?} {connected:?} {allowed}")
        });
        let expected = "Err(PermissionDenied) Err(PermissionDenied) true";
        assert_eq!(client.said(), expected, "{to}");
    }
    assert_eq!(kernel.counters().unwrap().refused_not_tcp, 6);
}

#[test]
fn the_gates_own_sockets_are_never_caught() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    let rule = Rule { uids: vec![0], ..lab.rule(1, "127.0.0.1", target.port()) };
    let kernel = lab.attach(&[rule]);
    assert_eq!(attempt(target), format!("peer {target}"));
    assert_eq!(kernel.counters().unwrap().captured, 0);
    // Another process of the same user id is.
    assert_eq!(client(0, || attempt(target)).said(), "ConnectionRefused");
    assert_eq!(kernel.counters().unwrap().captured, 1);
}

#[test]
fn a_capture_cannot_be_forged_by_going_to_the_gate_directly() {
    let lab = Lab::new();
    let _kernel = lab.attach(&[lab.rule(1, NOWHERE_V4, 5432)]);
    let (v4, _v6) = lab.gate();
    let gate = addr("127.0.0.1", lab.gate_port);
    for uid in [lab.uid, lab.other_uid] {
        let client = client(uid, || attempt(gate));
        let (stream, _) = v4.accept().unwrap();
        assert_eq!(capture_of(stream.as_fd()).unwrap(), None);
        assert_eq!(client.said(), format!("peer {gate}"));
    }
    // A socket that was led away once, then goes to the gate of its own accord.
    let client = client(lab.uid, || {
        let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
        socket.connect(&addr(NOWHERE_V4, 5432).into()).unwrap();
        disconnect(&socket);
        socket.connect(&gate.into()).unwrap();
        socket.peer_addr().unwrap().as_socket().unwrap().to_string()
    });
    let (first, _) = v4.accept().unwrap();
    assert_eq!(captured(&first).original(), addr(NOWHERE_V4, 5432));
    let (second, _) = v4.accept().unwrap();
    assert_eq!(capture_of(second.as_fd()).unwrap(), None);
    assert_eq!(client.said(), gate.to_string());
}

#[test]
fn a_socket_used_again_tells_of_its_last_destination() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let free = server.local_addr().unwrap();
    let rules = [lab.rule(1, NOWHERE_V4, 5432), lab.rule(2, "192.0.2.8", 5433)];
    let _kernel = lab.attach(&rules);
    let (v4, _v6) = lab.gate();
    let client = client(lab.uid, || {
        let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
        let mut seen = Vec::new();
        for next in [addr(NOWHERE_V4, 5432), free, addr("192.0.2.8", 5433)] {
            socket.connect(&next.into()).unwrap();
            seen.push(socket.peer_addr().unwrap().as_socket().unwrap() == next);
            disconnect(&socket);
        }
        format!("{seen:?}")
    });
    let (first, _) = v4.accept().unwrap();
    assert_eq!((captured(&first).rule, captured(&first).port), (1, 5432));
    let (direct, _) = server.accept().unwrap();
    assert_eq!(capture_of(direct.as_fd()).unwrap(), None);
    let (last, _) = v4.accept().unwrap();
    assert_eq!((captured(&last).rule, captured(&last).port), (2, 5433));
    assert_eq!(client.said(), "[true, true, true]");
}

#[test]
fn rules_change_as_a_whole_while_clients_connect() {
    const CONNECTIONS: usize = 2_000;
    const CHANGES: u32 = 20;
    let lab = Lab::new();
    let many =
        |id| -> Vec<Rule> { (0..200).map(|port| lab.rule(id, NOWHERE_V4, 5400 + port)).collect() };
    let mut kernel = lab.attach(&many(0));
    let (v4, _v6) = lab.gate();
    let client = client(lab.uid, || {
        let led = (0..CONNECTIONS).filter(|at| {
            let port = 5400 + u16::try_from(at % 200).unwrap();
            TcpStream::connect(addr(NOWHERE_V4, port)).is_ok()
        });
        led.count().to_string()
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for change in 1..=CHANGES {
                kernel.set_rules(&many(change)).unwrap();
            }
        });
        for _ in 0..CONNECTIONS {
            let (stream, _) = v4.accept().unwrap();
            assert!(captured(&stream).rule <= CHANGES);
        }
    });
    assert_eq!(client.said(), CONNECTIONS.to_string());
}

#[test]
fn the_most_specific_rule_holds() {
    let lab = Lab::new();
    let rule = |id, addr, prefix, port| Rule { prefix, ..lab.rule(id, addr, port) };
    let _kernel = lab.attach(&[
        rule(0, "192.0.2.0", 24, 0),
        rule(1, "192.0.2.0", 24, 5432),
        rule(2, "192.0.2.7", 32, 0),
        rule(3, "192.0.2.7", 32, 5432),
        rule(4, "0.0.0.0", 0, 5433),
        rule(5, "::", 0, 5432),
        rule(6, "2001:db8::", 32, 0),
    ]);
    let (v4, v6) = lab.gate();
    let rows = [
        ("192.0.2.7", 5432, 3),
        ("192.0.2.7", 5433, 2),
        ("192.0.2.8", 5432, 1),
        ("192.0.2.8", 5433, 0),
        ("198.51.100.1", 5433, 4),
        ("2001:db9::1", 5432, 5),
        ("2001:db8::1", 5432, 6),
    ];
    for (ip, port, expected) in rows {
        let asked = addr(ip, port);
        let client = client(lab.uid, || attempt(asked));
        let listener = if asked.is_ipv4() { &v4 } else { &v6 };
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(captured(&stream).rule, expected, "{asked}");
        assert_eq!(client.said(), format!("peer {asked}"));
    }
}

#[test]
fn this_kernel_takes_every_hook() {
    assert!(nix::unistd::getuid().is_root(), "not run: loading kernel programs needs root");
    let found = capture::probe();
    assert_eq!(found.len(), 13);
    for probe in found {
        assert_eq!(probe.result, Ok(()), "{}", probe.what);
    }
}

#[test]
fn a_socket_that_no_hook_knows_has_no_capture() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(stream.as_raw_fd() >= 0);
    assert_eq!(capture_of(stream.as_fd()).unwrap(), None);
}
