//! The second line: who made a socket, who uses it, and what may leave by it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tidegate_agent::capture::{Kernel, Rule, capture_of};
use tidegate_agent_common::{Event, EventKind, RULE_STRICT, TallyKey};

use crate::captured;
use crate::deeds::{self, ids, said, with_capabilities};
use crate::lab::{Lab, addr, attempt, client, listen, raw_socket};

/// Patience with what must not come, in milliseconds: loopback delivers within one.
const NOTHING_MS: u64 = 300;

/// Real and effective user id of a socket's maker, then of its user.
type Change = ((u32, u32), (u32, u32));

/// Sets a socket option.
type Set = fn(&socket2::Socket) -> std::io::Result<()>;

/// A server of a protected account's, with the hooks there and the gate open.
pub struct Scene {
    pub server: TcpListener,
    pub target: SocketAddr,
    pub kernel: Kernel,
    pub gate: TcpListener,
    pub lab: Lab,
}

impl Scene {
    pub fn new() -> Self {
        let lab = Lab::new();
        let server = listen("127.0.0.1", 0);
        let target = server.local_addr().unwrap();
        let kernel = lab.attach(&[lab.rule(7, "127.0.0.1", target.port())]);
        let (gate, _) = lab.gate();
        Self { server, target, kernel, gate, lab }
    }

    /// The next connection at the gate: it asked for the server.
    pub fn at_gate(&self) -> (u32, u32) {
        let (stream, _) = self.gate.accept().unwrap();
        let raw = captured(&stream);
        assert_eq!(raw.original(), self.target);
        (raw.owner, raw.uid)
    }

    /// Nobody stands before the server.
    pub fn nobody_came(&self) {
        self.server.set_nonblocking(true).unwrap();
        let found = self.server.accept().map_err(|error| error.kind());
        assert!(matches!(found, Err(std::io::ErrorKind::WouldBlock)), "{found:?}");
    }

    /// The one event there is.
    fn event(&mut self) -> Event {
        let events = self.kernel.events();
        let [event] = *events else { panic!("{events:?}") };
        event
    }
}

/// Nothing comes on this connection although its client wrote.
fn nothing_comes(stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(NOTHING_MS))).unwrap();
    let mut byte = [0];
    let read = (&mut &*stream).read(&mut byte).map_err(|error| error.kind());
    assert_eq!(read, Err(std::io::ErrorKind::WouldBlock), "{byte:?}");
}

#[test]
fn a_changed_user_id_does_not_lead_past_the_gate() {
    let scene = Scene::new();
    let (uid, other, target) = (scene.lab.uid, scene.lab.other_uid, scene.target);
    let connect = |socket: &socket2::Socket| said(socket.connect(&target.into()));
    // Who is caught is `uid` each time.
    let rows: [(&str, Change); 6] = [
        ("real and effective", ((uid, uid), (uid, uid))),
        ("made protected, connects as another", ((uid, uid), (other, other))),
        ("made as another, connects protected", ((other, other), (uid, uid))),
        ("a daemon with an effective user id", ((0, uid), (0, uid))),
        ("effective when made, root when it connects", ((0, uid), (0, 0))),
        ("root when made, effective when it connects", ((0, 0), (0, uid))),
    ];
    for (what, ((real, effective), (then_real, then_effective))) in rows {
        let client = client(0, || {
            ids(real, effective, 0);
            let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
            ids(u32::MAX, 0, u32::MAX);
            ids(then_real, then_effective, 0);
            connect(&socket)
        });
        assert_eq!(scene.at_gate(), (uid, then_real), "{what}");
        assert_eq!(client.said(), "ok", "{what}");
    }
    scene.nobody_came();
    let tallies = scene.kernel.tallies().unwrap();
    let tally = tallies[&TallyKey { owner: uid, rule: 7 }];
    assert_eq!((tally.redirected, tally.accepted, tally.dropped), (6, 6, 0));
}

#[test]
fn a_descriptor_handed_over_carries_nothing() {
    let mut scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let (giver, taker) = UnixStream::pair().unwrap();
    let helper = client(scene.lab.other_uid, || {
        let mut stream = TcpStream::connect(target).unwrap();
        stream.write_all(b"m").unwrap();
        deeds::hand_over(&giver, stream.as_raw_fd());
        // Closed here, so that only the taker holds it.
        "handed over".to_owned()
    });
    let (mut served, _) = scene.server.accept().unwrap();
    served.read_exact(&mut [0]).unwrap();
    assert_eq!(helper.said(), "handed over");
    let client = client(uid, || {
        let mut stream = TcpStream::from(deeds::take_over(&taker));
        said(stream.write_all(b"SELECT 1"))
    });
    nothing_comes(&served);
    let pid = client.pid;
    assert_eq!(client.said(), "ok", "TCP takes what it cannot send yet");
    let event = scene.event();
    assert_eq!((event.kind, event.rule), (EventKind::Dropped as u32, 7));
    assert_eq!((event.owner, event.uid, event.pid), (uid, uid, pid));
    assert_eq!(event.port, u32::from(target.port()));
    assert!(event.cookie != 0);
    assert!(scene.kernel.counters().unwrap().dropped > 0);
    let tallies = scene.kernel.tallies().unwrap();
    assert_eq!(tallies[&TallyKey { owner: uid, rule: 7 }].dropped, 1);
}

#[test]
fn a_descriptor_taken_from_another_process_carries_nothing() {
    let mut scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let (mut ready, mut done) = UnixStream::pair().unwrap();
    let holder = client(scene.lab.other_uid, || {
        let stream = TcpStream::connect(target).unwrap();
        let fd = stream.as_raw_fd().to_string();
        done.write_all(fd.as_bytes()).unwrap();
        done.read_exact(&mut [0]).unwrap();
        "held".to_owned()
    });
    let (served, _) = scene.server.accept().unwrap();
    let mut fd = [0; 16];
    let length = ready.read(&mut fd).unwrap();
    let fd: i32 = std::str::from_utf8(&fd[..length]).unwrap().parse().unwrap();
    let pid = holder.pid;
    // The kernel asks for the right to trace: another account has none.
    let without = client(uid, || format!("{:?}", deeds::steal(pid, fd).err()));
    assert_eq!(without.said(), format!("Some({})", libc::EPERM));
    let thief = client(0, || {
        with_capabilities(uid);
        let mut stream = TcpStream::from(deeds::steal(pid, fd).unwrap());
        said(stream.write_all(b"SELECT 1"))
    });
    nothing_comes(&served);
    thief.said();
    assert_eq!(scene.event().owner, uid);
    ready.write_all(b"x").unwrap();
    holder.said();
}

#[test]
fn a_connection_from_before_the_hooks_carries_nothing() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    let (mut go, mut wait) = UnixStream::pair().unwrap();
    let client = client(lab.uid, || {
        let mut own = TcpStream::connect(target).unwrap();
        own.write_all(b"m").unwrap();
        wait.read_exact(&mut [0]).unwrap();
        said(own.write_all(b"SELECT 1"))
    });
    let (mut stream, _) = server.accept().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let mut kernel = lab.attach(&[lab.rule(7, "127.0.0.1", target.port())]);
    go.write_all(b"x").unwrap();
    nothing_comes(&stream);
    client.said();
    let events = kernel.events();
    assert_eq!((events.len(), events[0].owner), (1, lab.uid));
}

#[test]
fn raw_and_foreign_transports_are_refused() {
    let mut scene = Scene::new();
    let uid = scene.lab.uid;
    let (inet, inet6) = (libc::AF_INET, libc::AF_INET6);
    let rows = [
        (inet, libc::SOCK_RAW, libc::IPPROTO_TCP, &[libc::EPERM][..]),
        (inet, libc::SOCK_RAW, libc::IPPROTO_RAW, &[libc::EPERM]),
        (inet6, libc::SOCK_RAW, libc::IPPROTO_TCP, &[libc::EPERM]),
        // The kernel may have been built without these.
        (inet, libc::SOCK_STREAM, 132, &[libc::EPERM, libc::EPROTONOSUPPORT]),
        (
            inet,
            libc::SOCK_SEQPACKET,
            132,
            &[libc::EPERM, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT],
        ),
        (inet, libc::SOCK_STREAM, 262, &[libc::EPERM, libc::EPROTONOSUPPORT]),
        (inet6, libc::SOCK_STREAM, 262, &[libc::EPERM, libc::EPROTONOSUPPORT]),
        (inet, 6, 33, &[libc::EPERM, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT]),
    ];
    for (family, kind, protocol, expected) in rows {
        let client = client(0, || {
            with_capabilities(uid);
            deeds::socket(family, kind, protocol).err().unwrap_or(0).to_string()
        });
        let said: i32 = client.said().parse().unwrap();
        assert!(expected.contains(&said), "{family} {kind} {protocol}: {said}");
    }
    let events = scene.kernel.events();
    assert!(events.len() >= 3);
    for event in events {
        assert_eq!((event.kind, event.owner), (EventKind::RefusedSocket as u32, uid));
        assert_eq!(event.rule, RULE_STRICT);
    }
    // Others keep theirs.
    let client = client(0, || {
        deeds::socket(inet, libc::SOCK_RAW, libc::IPPROTO_TCP).err().unwrap_or(0).to_string()
    });
    assert_eq!(client.said(), "0");
}

#[test]
fn raw_and_datagram_sockets_that_were_handed_over_send_nothing_there() {
    let mut scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let client = client(0, || {
        let kinds = [libc::SOCK_RAW, libc::SOCK_RAW, libc::SOCK_DGRAM].into_iter();
        let protocols = [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_UDP];
        let made = kinds
            .zip(protocols)
            .map(|(kind, protocol)| deeds::socket(libc::AF_INET, kind, protocol).unwrap());
        let made: Vec<_> = made.collect();
        made[2].connect(&target.into()).unwrap();
        with_capabilities(uid);
        let segment = deeds::syn(target.port());
        let sent = [
            made[0].send_to(&segment, &target.into()),
            made[1].send_to(&segment, &target.into()),
            made[2].send(&segment),
        ];
        sent.map(said).join(", ")
    });
    let refused = ["EPERM: Operation not permitted"; 3].join(", ");
    assert_eq!(client.said(), refused);
    let events = scene.kernel.events();
    assert_eq!(events.len(), 3, "{events:?}");
    for event in events {
        assert_eq!((event.kind, event.owner), (EventKind::Dropped as u32, uid));
    }
    scene.nobody_came();
}

#[test]
fn unusual_ways_to_connect_lead_to_the_gate() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let fast = client(uid, || said(deeds::fast_open(target)));
    assert_eq!(scene.at_gate(), (uid, uid));
    assert_eq!(fast.said(), "ok");
    let twice = client(uid, || {
        let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
        socket.set_nonblocking(true).unwrap();
        let first = said(socket.connect(&target.into()));
        let second = said(socket.connect(&target.into()));
        format!("{first} {second}")
    });
    assert_eq!(scene.at_gate(), (uid, uid));
    assert!(twice.said().starts_with("EINPROGRESS"));
    scene.nobody_came();
}

#[test]
fn socket_options_do_not_lead_past_the_gate() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let rows: [(&str, Set); 4] = [
        ("SO_MARK", |socket| socket.set_mark(7)),
        ("IP_TRANSPARENT", |socket| socket.set_ip_transparent_v4(true)),
        ("SO_BINDTODEVICE", |socket| socket.bind_device(Some(b"lo"))),
        ("SO_REUSEPORT", |socket| {
            socket.set_reuse_port(true)?;
            socket.bind(&addr("127.0.0.1", 0).into())
        }),
    ];
    for (what, set) in rows {
        let client = client(0, || {
            with_capabilities(uid);
            let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
            set(&socket).unwrap();
            said(socket.connect(&target.into()))
        });
        assert_eq!(scene.at_gate(), (uid, uid), "{what}");
        assert_eq!(client.said(), "ok", "{what}");
    }
    scene.nobody_came();
}

#[test]
fn datagrams_by_unusual_ways_are_refused() {
    let mut scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let SocketAddr::V4(v4) = target else { panic!("an IPv4 server") };
    let client = client(0, || {
        ids(uid, uid, 0);
        let socket = deeds::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        let unspec = said(deeds::send_unspec(&socket, v4));
        let lite = deeds::socket(libc::AF_INET, libc::SOCK_DGRAM, 136);
        let lite = lite.map(|socket| said(socket.connect(&target.into())));
        format!("{unspec} {}", lite.unwrap_or_else(|_| "EPERM".to_owned()))
    });
    let expected = "EPERM: Operation not permitted";
    assert!(client.said().starts_with(expected));
    for event in scene.kernel.events() {
        assert_eq!((event.kind, event.owner), (EventKind::RefusedNotTcp as u32, uid));
    }
    scene.nobody_came();
}

#[test]
fn namespaces_of_its_own_do_not_hide_a_user_id() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    // Its own loopback, where no gate listens: refused, and not let through.
    let client = client(uid, || {
        let before = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
        deeds::own_namespaces();
        let own = attempt(target);
        // A socket of the host's namespace, made before, used as root of the new user namespace.
        let host = said(before.connect(&target.into()));
        format!("{own} {host}")
    });
    assert_eq!(scene.at_gate(), (uid, uid));
    assert_eq!(client.said(), "ConnectionRefused ok");
    scene.nobody_came();
}

#[test]
fn a_connection_from_a_protected_host_is_told() {
    let mut scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let (mut told, mut tell) = UnixStream::pair().unwrap();
    let client = client(uid, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        tell.write_all(&port.to_be_bytes()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        said(stream.read_exact(&mut [0]))
    });
    let mut port = [0; 2];
    told.read_exact(&mut port).unwrap();
    // From the protected host, not from its protected port: it passes, and is told.
    let mut from_host = TcpStream::connect(addr("127.0.0.1", u16::from_be_bytes(port))).unwrap();
    from_host.write_all(b"x").unwrap();
    assert_eq!(client.said(), "ok");
    let event = scene.event();
    assert_eq!((event.kind, event.owner), (EventKind::Reverse as u32, uid));
    assert_eq!(event.rule, 7);
    assert_ne!(event.port, u32::from(target.port()));
}

#[test]
fn a_connection_from_the_protected_port_gets_no_answer() {
    let lab = Lab::new();
    let (mut told, mut tell) = UnixStream::pair().unwrap();
    let mut kernel = lab.attach(&[]);
    let _gate = lab.gate();
    let port = crate::lab::free_port();
    kernel.set_rules(&[lab.rule(7, "127.0.0.1", port)]).unwrap();
    let client = client(lab.uid, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        tell.write_all(&listener.local_addr().unwrap().port().to_be_bytes()).unwrap();
        listener.set_nonblocking(true).unwrap();
        tell.read_exact(&mut [0]).unwrap();
        format!("{:?}", listener.accept().map_err(|error| error.kind()).err())
    });
    let mut listens = [0; 2];
    told.read_exact(&mut listens).unwrap();
    let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
    socket.set_reuse_address(true).unwrap();
    socket.bind(&addr("127.0.0.1", port).into()).unwrap();
    let to = addr("127.0.0.1", u16::from_be_bytes(listens));
    let patience = Duration::from_millis(NOTHING_MS);
    let found = socket.connect_timeout(&to.into(), patience).map_err(|error| error.kind());
    assert_eq!(found, Err(std::io::ErrorKind::TimedOut));
    told.write_all(b"x").unwrap();
    assert_eq!(client.said(), "Some(WouldBlock)");
    let event = kernel.events()[0];
    assert_eq!((event.kind, event.owner), (EventKind::Dropped as u32, lab.uid));
}

#[test]
fn a_strict_account_is_led_to_the_gate_wherever_it_goes() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let forwarder = server.local_addr().unwrap();
    let options = tidegate_agent::capture::Options { strict_uids: vec![lab.uid], ..lab.options() };
    let (kernel, _) = Kernel::attach(options, &[lab.rule(3, "192.0.2.7", 5432)]).unwrap();
    let (gate, gate_v6) = lab.gate();
    let rows = [
        (forwarder, RULE_STRICT, &gate),
        (addr("192.0.2.7", 5432), 3, &gate),
        (addr("192.0.2.7", 443), RULE_STRICT, &gate),
        (addr("2001:db8::7", 22), RULE_STRICT, &gate_v6),
    ];
    for (asked, rule, listener) in rows {
        let client = client(lab.uid, || attempt(asked));
        let (stream, _) = listener.accept().unwrap();
        let raw = captured(&stream);
        assert_eq!((raw.original(), raw.rule, raw.owner), (asked, rule, lab.uid));
        assert_eq!(client.said(), format!("peer {asked}"));
    }
    // By hand to the gate: as for everybody, without a capture.
    let direct = addr("127.0.0.1", lab.gate_port);
    let client = client(lab.uid, || attempt(direct));
    let (stream, _) = gate.accept().unwrap();
    assert_eq!(capture_of(stream.as_fd()).unwrap(), None);
    client.said();
    assert_eq!(kernel.counters().unwrap().captured, 4);
}

#[test]
fn a_rule_for_everyone_lets_only_the_exempt_pass() {
    let lab = Lab::new();
    let server = listen("127.0.0.1", 0);
    let target = server.local_addr().unwrap();
    let exempt_uid = lab.other_uid;
    let stranger = lab.uid.wrapping_add(0x0100_0000);
    let rule = Rule {
        everyone: true,
        exempt: vec![exempt_uid],
        ..lab.rule(7, "127.0.0.1", target.port())
    };
    let kernel = lab.attach(&[rule]);
    let (gate, _) = lab.gate();
    for uid in [lab.uid, stranger, 0] {
        let client = client(uid, || attempt(target));
        let (stream, _) = gate.accept().unwrap();
        assert_eq!((captured(&stream).owner, captured(&stream).uid), (uid, uid));
        assert_eq!(client.said(), format!("peer {target}"));
    }
    let client = client(exempt_uid, || {
        let mut stream = TcpStream::connect(target).unwrap();
        said(stream.write_all(b"x"))
    });
    let (mut stream, _) = server.accept().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(client.said(), "ok");
    // The gate's own way to the server.
    let mut own = TcpStream::connect(target).unwrap();
    own.write_all(b"x").unwrap();
    let (mut stream, _) = server.accept().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(kernel.counters().unwrap().captured, 3);
}

#[test]
fn traffic_elsewhere_is_left_alone() {
    let scene = Scene::new();
    let elsewhere = listen("127.0.0.1", 0);
    let free = elsewhere.local_addr().unwrap();
    let client = client(scene.lab.uid, || {
        let mut stream = TcpStream::connect(free).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(b"x", free).unwrap();
        let begun = Instant::now();
        for _ in 0..1000 {
            stream.write_all(&[7; 1024]).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        "sent".to_owned()
    });
    let (mut stream, _) = elsewhere.accept().unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 1024 * 1000);
    assert_eq!(client.said(), "sent");
    assert_eq!(scene.kernel.counters().unwrap().dropped, 0);
}
