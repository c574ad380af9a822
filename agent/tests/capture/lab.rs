//! A cgroup, pin directory, user ids and ports of one test's own, so that tests run side by side.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::FromRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getuid, pipe};
use tidegate_agent::capture::{self, Kernel, Options, Resumed, Rule};

/// An address for documentation (RFC 5737): nobody answers there.
pub const NOWHERE_V4: &str = "192.0.2.7";

/// The same for IPv6 (RFC 3849).
pub const NOWHERE_V6: &str = "2001:db8::7";

/// Everything that a test makes on the host; taken away when dropped.
pub struct Lab {
    mount: PathBuf,
    pub cgroup: PathBuf,
    pub pin_dir: PathBuf,
    pub gate_port: u16,
    /// A user id that rules protect.
    pub uid: u32,
    /// One that they do not.
    pub other_uid: u32,
}

impl Lab {
    pub fn new() -> Self {
        assert!(getuid().is_root(), "not run: attaching kernel hooks needs root");
        let mount = capture::cgroup2_mount().expect("not run: this host has no cgroup2");
        let pid = std::process::id();
        let cgroup = mount.join(format!("tidegate-test-{pid}"));
        fs::create_dir(&cgroup).expect("not run: no cgroup can be made");
        let lab = Self {
            mount,
            cgroup,
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/tidegate-test-{pid}")),
            gate_port: free_port(),
            uid: 0x1000_0000 + 2 * pid,
            other_uid: 0x1000_0001 + 2 * pid,
        };
        move_self(&lab.cgroup);
        lab
    }

    pub fn options(&self) -> Options {
        Options {
            cgroup: Some(self.cgroup.clone()),
            pin_dir: self.pin_dir.clone(),
            gate_port: self.gate_port,
            strict_uids: Vec::new(),
        }
    }

    pub fn attach(&self, rules: &[Rule]) -> Kernel {
        self.attach_resumed(rules).0
    }

    pub fn attach_resumed(&self, rules: &[Rule]) -> (Kernel, Resumed) {
        match Kernel::attach(self.options(), rules) {
            Ok(attached) => attached,
            Err(error) => panic!("not run, the hooks cannot be attached: {error}"),
        }
    }

    /// A closed rule for the protected user id.
    pub fn rule(&self, id: u32, addr: &str, port: u16) -> Rule {
        Rule::closed(id, addr.parse().unwrap(), port, self.uid)
    }

    /// The gate's listeners. Bound after the hooks are there, as the agent does.
    pub fn gate(&self) -> (TcpListener, TcpListener) {
        (listen("127.0.0.1", self.gate_port), listen("::1", self.gate_port))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let detached = capture::detach(&self.pin_dir);
        move_self(&self.mount);
        let removed = fs::remove_dir(&self.cgroup);
        if !std::thread::panicking() {
            detached.unwrap();
            removed.unwrap();
        }
    }
}

pub fn move_self(cgroup: &Path) {
    let procs = cgroup.join("cgroup.procs");
    fs::write(procs, std::process::id().to_string()).expect("not run: cannot enter a cgroup");
}

/// Longest wait for a client.
const ACCEPT_WAIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Room for every connection that a test makes: the kernel drops what finds the queue full, and a client
/// that has hung up by then does not come again.
const BACKLOG: i32 = 4096;

pub fn listen(ip: &str, port: u16) -> TcpListener {
    let address = SocketAddr::new(ip.parse().unwrap(), port);
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    // Whoever waits here for a client that failed fails too.
    socket.set_read_timeout(Some(ACCEPT_WAIT)).unwrap();
    socket.into()
}

/// A free port below the ephemeral range, so that no client is given it in the meantime.
pub fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    (0..12_000)
        .map(|offset| 10_000 + (first + offset * 7) % 20_000)
        .find(|port| ["127.0.0.1", "::1"].iter().all(|ip| TcpListener::bind((*ip, *port)).is_ok()))
        .expect("not run: no free port")
}

/// A process of another user id.
pub struct Client {
    pub pid: u32,
    output: File,
}

/// Runs `task` in a process of that user id, in the same cgroup. Its text comes back.
pub fn client(uid: u32, task: impl FnOnce() -> String) -> Client {
    let (read, write) = pipe().unwrap();
    // SAFETY: the child runs only `task` and ends; it takes no lock that another thread may hold.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(read);
            become_user(uid);
            let text = catch_unwind(AssertUnwindSafe(task));
            let text = text.unwrap_or_else(|_| "the client panicked".to_owned());
            File::from(write).write_all(text.as_bytes()).unwrap();
            // SAFETY: ends the child without running the test harness's exit code.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(write);
            Client { pid: child.as_raw().cast_unsigned(), output: File::from(read) }
        }
    }
}

impl Client {
    /// Waits for its end.
    pub fn said(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        waitpid(Pid::from_raw(self.pid.cast_signed()), None).unwrap();
        text
    }
}

fn become_user(uid: u32) {
    // SAFETY: plain system calls; the process has one thread after fork().
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(uid, uid, uid), 0);
        assert_eq!(libc::setresuid(uid, uid, uid), 0);
    }
}

/// A datagram or stream socket as its raw system call makes it.
pub fn raw_socket(family: libc::c_int, kind: libc::c_int) -> socket2::Socket {
    // SAFETY: a fresh descriptor, owned by nobody else.
    unsafe {
        let fd = libc::socket(family, kind, 0);
        assert!(fd >= 0);
        socket2::Socket::from_raw_fd(fd)
    }
}

/// `connect(AF_UNSPEC)`: takes a TCP socket back to its beginning.
pub fn disconnect(socket: &socket2::Socket) {
    assert_eq!(try_disconnect(socket), 0);
}

/// The same, whatever comes of it.
pub fn try_disconnect(socket: &socket2::Socket) -> libc::c_int {
    use std::os::fd::AsRawFd as _;
    let unspec = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    // SAFETY: the address is a live structure of the length given.
    unsafe {
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap();
        libc::connect(socket.as_raw_fd(), &raw const unspec, length)
    }
}

/// An address and port.
pub fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// What `connect()` says, in a word.
pub fn attempt(addr: SocketAddr) -> String {
    match std::net::TcpStream::connect(addr) {
        Ok(stream) => format!("peer {}", stream.peer_addr().unwrap()),
        Err(error) => format!("{:?}", error.kind()),
    }
}
