//! What test clients do: change their ids, hand descriptors over, use sockets in unusual ways.

use std::io::{IoSlice, IoSliceMut};
use std::mem::size_of;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Real, effective and saved user id.
pub fn ids(real: u32, effective: u32, saved: u32) {
    // SAFETY: a plain system call; the process has one thread.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, real, effective, saved) };
    assert_eq!(done, 0, "setresuid({real}, {effective}, {saved})");
}

/// Keeps the effective user id 0, and with it every capability, under another real one.
pub fn with_capabilities(real: u32) {
    ids(real, 0, 0);
}

/// A socket of that family, type and protocol, or the error's number.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<socket2::Socket, i32> {
    // SAFETY: a fresh descriptor, owned by nobody else.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 { Err(errno()) } else { Ok(socket2::Socket::from_raw_fd(fd)) }
    }
}

/// The number of the last error.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The name of an outcome: `ok` or the error's name.
pub fn said(result: std::io::Result<impl Sized>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(number) => nix::errno::Errno::from_raw(number).to_string(),
            None => error.to_string(),
        },
    }
}

/// Sends a descriptor over a local socket.
pub fn hand_over(channel: &UnixStream, fd: RawFd) {
    let fds = [fd];
    let rights = [ControlMessage::ScmRights(&fds)];
    let data = [IoSlice::new(b"x")];
    sendmsg::<()>(channel.as_raw_fd(), &data, &rights, MsgFlags::empty(), None).unwrap();
}

/// Takes a descriptor from a local socket.
pub fn take_over(channel: &UnixStream) -> OwnedFd {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(channel.as_raw_fd(), &mut data, Some(&mut room), flags).unwrap();
    let fd = message.cmsgs().unwrap().find_map(|one| match one {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: fresh from the kernel, owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd.unwrap()) }
}

/// Takes a descriptor out of another process with `pidfd_getfd(2)`.
pub fn steal(pid: u32, fd: RawFd) -> Result<OwnedFd, i32> {
    // SAFETY: plain system calls; the descriptors are fresh and owned by nobody else.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if process < 0 {
            return Err(errno());
        }
        let taken = libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0);
        let error = errno();
        libc::close(process.try_into().unwrap());
        if taken < 0 { Err(error) } else { Ok(OwnedFd::from_raw_fd(taken.try_into().unwrap())) }
    }
}

/// Connects and sends in one, with `MSG_FASTOPEN` (TCP Fast Open, RFC 7413).
pub fn fast_open(to: SocketAddr) -> std::io::Result<TcpStream> {
    fast_open_with(to, b"early")
}

/// The same with these bytes.
pub fn fast_open_with(to: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let socket = crate::lab::raw_socket(libc::AF_INET, libc::SOCK_STREAM);
    let address = socket2::SockAddr::from(to);
    // SAFETY: the buffer and the address live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_FASTOPEN,
            address.as_ptr().cast(),
            address.len(),
        )
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(socket.into()) }
}

/// Sends a datagram to an address that claims to be of no family (`AF_UNSPEC`), which the kernel
/// takes for IPv4.
pub fn send_unspec(socket: &socket2::Socket, to: SocketAddrV4) -> std::io::Result<()> {
    let mut address = libc::sockaddr_in {
        sin_family: 0,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the buffer and the address live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            b"x".as_ptr().cast(),
            1,
            0,
            (&raw mut address).cast(),
            libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap(),
        )
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A TCP segment with the SYN flag, without an IP header.
pub fn syn(to_port: u16) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&to_port.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = 2;
    segment
}

/// New user and network namespaces, in which the caller is root, with loopback up.
pub fn own_namespaces() {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let flags = nix::sched::CloneFlags::CLONE_NEWUSER | nix::sched::CloneFlags::CLONE_NEWNET;
    // Changing the user id made its /proc files root's.
    nix::sys::prctl::set_dumpable(true).unwrap();
    nix::sched::unshare(flags).unwrap();
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
    loopback_up();
}

/// Sets the loopback device of this network namespace up.
pub fn loopback_up() {
    let socket = crate::lab::raw_socket(libc::AF_INET, libc::SOCK_DGRAM);
    // SAFETY: `request` is a valid ifreq with a NUL-terminated name.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        request.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap();
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    assert_eq!(done, 0, "setting loopback up: {}", errno());
}
