//! A random walk: sequences of socket operations, by a seed, under changing user ids. What a protected
//! account sends never arrives; the server's own ears are the judge.
//!
//! Each message bears a letter: `P` from a protected process, `T` on a socket that a protected one made,
//! connected or used, `R` from root, `O` from another. The server may hear `R` and `O`, and must hear some of
//! them, else the walk shows nothing.
//!
//! Named in `docs/THREATS.md` and left out here: sockets have no Nagle delay, since what waits behind
//! another account's unacknowledged bytes leaves without its process.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use tidegate_agent::capture::{Kernel, capture_of};
use tidegate_agent_common::{Event, EventKind};

use crate::deeds::{self, ids};
use crate::lab::{Lab, addr, client, listen};

/// Sequences in the ordinary tests.
const SEQUENCES: u64 = 100;

/// Names another number of them, for the soak.
const SEQUENCES_ENV: &str = "TIDEGATE_WALK_SEQUENCES";

/// Names another seed.
const SEED_ENV: &str = "TIDEGATE_WALK_SEED";

/// Operations of one sequence.
const STEPS: u64 = 14;

/// Sockets that a walker holds at most.
const SOCKETS_MAX: usize = 4;

/// How long the server listens on after the last sequence, in milliseconds.
const LISTEN_ON_MS: u64 = 500;

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % count
    }
}

/// A socket, and what is known of it.
struct Held {
    socket: socket2::Socket,
    /// Made by a protected process.
    made: bool,
    /// Connected by one, or made by one: it was led to the gate.
    led: bool,
    /// Used by one although it was not led.
    used: bool,
    kind: i32,
    family: i32,
}

struct Walker {
    dice: Dice,
    number: u64,
    protected: u32,
    other: u32,
    real: u32,
    effective: u32,
    sockets: Vec<Held>,
    port: u16,
    /// What it did, for who reads a failure.
    did: Vec<String>,
}

impl Walker {
    fn is_protected(&self) -> bool {
        self.real == self.protected || self.effective == self.protected
    }

    /// Both ids, with root's kept as the saved one. Fails quietly in a user namespace of its own.
    fn become_somebody(&mut self) {
        let all = [0, self.protected, self.other];
        let pick = |dice: &mut Dice| all[usize::try_from(dice.below(3)).unwrap()];
        let (real, effective) = (pick(&mut self.dice), pick(&mut self.dice));
        // SAFETY: plain system calls; the process has one thread.
        let done = unsafe {
            libc::syscall(libc::SYS_setresuid, -1, 0, -1);
            libc::syscall(libc::SYS_setresuid, real, effective, 0)
        };
        self.did.push(format!("become {real} {effective}: {done}"));
        if done == 0 {
            (self.real, self.effective) = (real, effective);
        }
    }

    fn make(&mut self) {
        if self.sockets.len() >= SOCKETS_MAX {
            return;
        }
        let v6 = self.dice.below(3) == 0;
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let (kind, protocol) = match self.dice.below(8) {
            0 => (libc::SOCK_DGRAM, 0),
            1 => (libc::SOCK_RAW, libc::IPPROTO_UDP),
            2 => (libc::SOCK_STREAM, 262),
            3 => (libc::SOCK_DGRAM, 136),
            _ => (libc::SOCK_STREAM, 0),
        };
        let socket = deeds::socket(family, kind, protocol);
        self.did.push(format!("socket {family} {kind} {protocol}: {}", socket.is_ok()));
        let Ok(socket) = socket else { return };
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_write_timeout(Some(Duration::from_secs(1)));
        let made = self.is_protected();
        self.sockets.push(Held { socket, made, led: made, used: false, kind, family });
    }

    fn place(&mut self, family: i32) -> SocketAddr {
        let hosts = if family == libc::AF_INET6 {
            ["::1", "::ffff:127.0.0.1", "::"]
        } else {
            ["127.0.0.1", "127.0.0.1", "0.0.0.0"]
        };
        addr(hosts[usize::try_from(self.dice.below(3)).unwrap()], self.port)
    }

    fn pick(&mut self) -> Option<usize> {
        let count = u64::try_from(self.sockets.len()).unwrap();
        (count > 0).then(|| usize::try_from(self.dice.below(count)).unwrap())
    }

    fn connect(&mut self, at: usize) {
        let place = self.place(self.sockets[at].family);
        let protected = self.is_protected();
        let held = &mut self.sockets[at];
        let connected = held.socket.connect(&place.into());
        self.did.push(format!("connect {at} to {place}: {connected:?}"));
        if connected.is_ok() {
            held.led = held.made || protected;
        }
    }

    fn message(&self, at: usize) -> Vec<u8> {
        let held = &self.sockets[at];
        let letter = match (self.is_protected(), held.made || held.led || held.used) {
            (true, _) => 'P',
            (false, true) => 'T',
            (false, false) if self.real == 0 && self.effective == 0 => 'R',
            (false, false) => 'O',
        };
        format!("<{letter}{:08}>", self.number).into_bytes()
    }

    fn send(&mut self, at: usize, to: bool) {
        let place = self.place(self.sockets[at].family);
        let mut bytes = self.message(at);
        if self.sockets[at].kind == libc::SOCK_RAW {
            let mut datagram = Vec::from(40_000_u16.to_be_bytes());
            datagram.extend(self.port.to_be_bytes());
            datagram.extend(u16::try_from(8 + bytes.len()).unwrap().to_be_bytes());
            datagram.extend([0, 0]);
            datagram.extend(&bytes);
            bytes = datagram;
        }
        let protected = self.is_protected();
        let held = &mut self.sockets[at];
        let sent =
            if to { held.socket.send_to(&bytes, &place.into()) } else { held.socket.send(&bytes) };
        held.used |= protected && !held.led && sent.is_ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.did.push(format!("send {text} {to} by {at} to {place}: {sent:?}"));
    }

    fn fast_open(&mut self) {
        let place = addr("127.0.0.1", self.port);
        let letter = if self.is_protected() { 'P' } else { 'O' };
        let bytes = format!("<{letter}{:08}>", self.number);
        let sent = deeds::fast_open_with(place, bytes.as_bytes());
        self.did.push(format!("fast open {bytes}: {sent:?}"));
    }

    /// Through a local socket and back, as to another process.
    fn pass(&mut self, at: usize) {
        let (one, other) = UnixStream::pair().unwrap();
        let held = self.sockets.remove(at);
        self.did.push(format!("pass {at}, it is now the last"));
        deeds::hand_over(&one, held.socket.as_raw_fd());
        let fd: OwnedFd = deeds::take_over(&other);
        self.sockets.push(Held { socket: fd.into(), ..held });
    }

    /// Goes on in a child, and ends with it.
    fn split() -> bool {
        // SAFETY: the process has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => false,
            ForkResult::Parent { child } => {
                let _ = waitpid(child, None);
                true
            }
        }
    }

    fn unshare(&mut self) {
        let flags = match self.dice.below(3) {
            0 => libc::CLONE_NEWUSER | libc::CLONE_NEWNET,
            1 => libc::CLONE_NEWNET,
            _ => libc::CLONE_NEWUSER,
        };
        // SAFETY: a plain system call; the process has one thread.
        let done = unsafe { libc::unshare(flags) };
        self.did.push(format!("unshare {flags:x}: {done}"));
    }

    fn walk(&mut self) {
        for _ in 0..STEPS {
            let at = self.pick();
            match (self.dice.below(16), at) {
                (0..=2, _) => self.become_somebody(),
                (3..=5, _) => self.make(),
                (6..=8, Some(at)) => self.connect(at),
                (9..=10, Some(at)) => self.send(at, false),
                (11, Some(at)) => self.send(at, true),
                (12, Some(at)) => {
                    let done = crate::lab::try_disconnect(&self.sockets[at].socket);
                    self.did.push(format!("disconnect {at}: {done}"));
                }
                (13, Some(at)) => self.pass(at),
                (14, _) if Self::split() => return,
                (15, _) => match self.dice.below(4) {
                    0 => self.unshare(),
                    1 => {
                        self.sockets.pop();
                    }
                    _ => self.fast_open(),
                },
                _ => {}
            }
        }
    }
}

/// The server: all that it ever heard.
struct Ears {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    streams: Vec<TcpStream>,
    heard: Vec<u8>,
}

impl Ears {
    fn open() -> (Self, u16) {
        let v4 = listen("127.0.0.1", 0);
        let port = v4.local_addr().unwrap().port();
        let tcp = vec![v4, listen("::1", port)];
        let udp = ["127.0.0.1", "::1"].map(|ip| UdpSocket::bind(addr(ip, port)).unwrap());
        for one in &tcp {
            one.set_nonblocking(true).unwrap();
        }
        for one in &udp {
            one.set_nonblocking(true).unwrap();
        }
        (Self { tcp, udp: udp.into(), streams: Vec::new(), heard: Vec::new() }, port)
    }

    fn listen(&mut self) {
        for listener in &self.tcp {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                self.streams.push(stream);
            }
        }
        let mut buffer = [0; 4096];
        self.streams.retain_mut(|stream| {
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(count) => self.heard.extend(&buffer[..count]),
                    Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
        });
        for socket in &self.udp {
            while let Ok((count, _)) = socket.recv_from(&mut buffer) {
                self.heard.extend(&buffer[..count]);
            }
        }
    }

    fn letters(&self, letter: u8) -> usize {
        self.heard.windows(2).filter(|two| *two == [b'<', letter]).count()
    }
}

/// Everything at the gate: who came with a capture came as the protected account.
fn empty_gate(gates: &[TcpListener], uid: u32) -> usize {
    let mut led = 0;
    for gate in gates {
        while let Ok((stream, _)) = gate.accept() {
            if let Some(raw) = capture_of(std::os::fd::AsFd::as_fd(&stream)).unwrap() {
                assert_eq!(raw.owner, uid);
                led += 1;
            }
        }
    }
    led
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_random_walk_finds_no_way_past() {
    let sequences = number_of(SEQUENCES_ENV, SEQUENCES);
    let seed = number_of(SEED_ENV, 1);
    let lab = Lab::new();
    let (mut ears, port) = Ears::open();
    let rules = [lab.rule(1, "127.0.0.1", port), lab.rule(2, "::1", port)];
    let mut kernel: Kernel = lab.attach(&rules);
    let (v4, v6) = lab.gate();
    let gates = [v4, v6];
    for gate in &gates {
        gate.set_nonblocking(true).unwrap();
    }
    let (mut led, mut events) = (0, Vec::<Event>::new());
    for number in 0..sequences {
        let dice = Dice(seed.wrapping_mul(0x1_0000_0001).wrapping_add(number));
        let (protected, other) = (lab.uid, lab.other_uid);
        let walker = client(0, move || {
            ids(0, 0, 0);
            let sockets = Vec::new();
            let (real, effective) = (0, 0);
            let did = Vec::new();
            let mut walker =
                Walker { dice, number, protected, other, real, effective, sockets, port, did };
            walker.walk();
            walker.did.join("\n")
        });
        let did = walker.said();
        ears.listen();
        led += empty_gate(&gates, lab.uid);
        events.extend(kernel.events());
        let bad = ears.letters(b'P') + ears.letters(b'T');
        assert_eq!(bad, 0, "seed {seed}, sequence {number}, or one just before it:\n{did}");
    }
    let end = Instant::now() + Duration::from_millis(LISTEN_ON_MS);
    while Instant::now() < end {
        ears.listen();
        std::thread::yield_now();
    }
    assert_eq!(ears.letters(b'P') + ears.letters(b'T'), 0, "seed {seed}");
    let dropped = events.iter().filter(|event| event.kind == EventKind::Dropped as u32).count();
    let heard = (ears.letters(b'R'), ears.letters(b'O'));
    println!(
        "{sequences} sequences: {led} led, {} events, {dropped} drops, heard {heard:?}",
        events.len()
    );
    assert!(led > 0 && heard.0 > 0 && heard.1 > 0, "the walk shows nothing: {led} led, {heard:?}");
    assert!(events.iter().all(|event| event.owner == lab.uid));
    assert_eq!(kernel.counters().unwrap().events_lost, 0);
}
