//! System calls that aya 0.14 does not offer: links that can be pinned for every hook, replacing
//! the program of a pinned link, and the socket options that the hooks answer.
//!
//! All unsafe code of the agent's capture is here.

use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use tidegate_agent_common::{
    Event, Pong, RawCapture, SOCKOPT_CAPTURE, SOCKOPT_LEVEL, SOCKOPT_PING,
};

/// Commands of bpf(2), `enum bpf_cmd` in `linux/bpf.h`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `BPF_STATS_RUN_TIME` of `enum bpf_stats_type`.
const BPF_STATS_RUN_TIME: u32 = 0;

/// `MEMBARRIER_CMD_GLOBAL` of membarrier(2).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// `MEMBARRIER_CMD_GLOBAL` is refused on kernels with `nohz_full`; a program of ours runs for some
/// microseconds, so that this wait outlasts every one that had begun.
const GRACE_FALLBACK_MS: u64 = 200;

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct FourWords([u32; 4]);

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Head of `struct bpf_link_info` for cgroup links.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    pad_end: u32,
}

/// Head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads `size` bytes of a live, fully initialised structure.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: fresh from the kernel, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Attaches a loaded program to a cgroup.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attr = FourWords([number(program), number(cgroup), attach_type, 0]);
    bpf(BPF_LINK_CREATE, &attr).map(owned)
}

/// Replaces the program of a link, with no moment in which neither runs.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_UPDATE, &FourWords([number(link), number(program), 0, 0])).map(drop)
}

/// Detaches a link, whoever else holds it (kernel 5.9).
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &number(link)).map(drop)
}

/// Id of the cgroup that a link is attached to; 0 once the cgroup is gone.
pub(super) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(link_info(link)?.cgroup_id)
}

/// Link id, program id and cgroup id of a link; the last is 0 once it is detached.
pub(super) fn link_ids(link: BorrowedFd<'_>) -> io::Result<(u32, u32, u64)> {
    let info = link_info(link)?;
    Ok((info.id, info.prog_id, info.cgroup_id))
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    info_of(link, &mut info)?;
    Ok(info)
}

/// The kernel's hash over the instructions of a loaded program.
pub(super) fn program_tag(id: u32) -> io::Result<[u8; 8]> {
    let program = bpf(BPF_PROG_GET_FD_BY_ID, &FourWords([id, 0, 0, 0])).map(owned)?;
    let mut info = ProgramInfo::default();
    info_of(program.as_fd(), &mut info)?;
    Ok(info.tag)
}

/// Has the kernel count the time of its programs for as long as the descriptor is open (kernel 5.8).
pub fn count_costs() -> io::Result<OwnedFd> {
    bpf(BPF_ENABLE_STATS, &BPF_STATS_RUN_TIME).map(owned)
}

/// Nanoseconds and runs of a loaded program, of the times in which they were counted.
pub(super) fn program_cost(id: u32) -> io::Result<(u64, u64)> {
    let program = bpf(BPF_PROG_GET_FD_BY_ID, &FourWords([id, 0, 0, 0])).map(owned)?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok())
    };
    let none = || io::Error::other("this kernel does not tell what a program costs");
    Ok((number("run_time_ns:").ok_or_else(none)?, number("run_cnt:").ok_or_else(none)?))
}

/// `T` is the head of the kernel's structure, made of integers.
fn info_of<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let attr = InfoAttr {
        bpf_fd: number(object),
        info_len: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: ptr::from_mut(info).addr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr).map(drop)
}

/// Pins a link or map.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let attr =
        ObjAttr { pathname: path.as_ptr().addr() as u64, bpf_fd: number(object), file_flags: 0 };
    bpf(BPF_OBJ_PIN, &attr).map(drop)
}

/// Opens what is pinned there.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attr = ObjAttr { pathname: path.as_ptr().addr() as u64, bpf_fd: 0, file_flags: 0 };
    bpf(BPF_OBJ_GET, &attr).map(owned)
}

/// Returns when every kernel program that runs now has ended: cgroup hooks run under the RCU read
/// lock, and `MEMBARRIER_CMD_GLOBAL` waits for RCU (`kernel/sched/membarrier.c`).
pub(super) fn wait_for_running_programs() {
    // SAFETY: takes no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        std::thread::sleep(std::time::Duration::from_millis(GRACE_FALLBACK_MS));
    }
}

/// An event as the ring holds it; `None` for bytes of another length.
pub(super) fn event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: as long as an `Event`, which is made of integers, valid for every bit pattern.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// Asks the hooks for the capture of an accepted socket; `None` where they know none.
pub(super) fn capture(socket: BorrowedFd<'_>) -> io::Result<Option<RawCapture>> {
    // SAFETY: `RawCapture` is made of integers, valid for every bit pattern.
    unsafe { ask(socket, SOCKOPT_CAPTURE) }
}

/// Asks the hooks whether they are there.
pub(super) fn ping(socket: BorrowedFd<'_>) -> io::Result<Option<Pong>> {
    // SAFETY: `Pong` is made of integers, valid for every bit pattern.
    unsafe { ask(socket, SOCKOPT_PING) }
}

/// # Safety
/// `T` must be valid for every bit pattern.
unsafe fn ask<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<Option<T>> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let wanted = length;
    // SAFETY: the kernel writes at most `length` bytes to `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            SOCKOPT_LEVEL,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        // What the kernel says of a level that nobody answers, by socket type and family.
        let nobody = [libc::ENOPROTOOPT, libc::EOPNOTSUPP, libc::EINVAL];
        let nobody = error.raw_os_error().is_some_and(|code| nobody.contains(&code));
        return if nobody { Ok(None) } else { Err(error) };
    }
    if length != wanted {
        return Err(io::Error::other(format!(
            "the hooks answered with {length} bytes where the agent expects {wanted}"
        )));
    }
    // SAFETY: initialised to zero and then by the kernel; the caller vouches for `T`.
    Ok(Some(unsafe { value.assume_init() }))
}

/// Head of `struct tcp_info` in `linux/tcp.h`, whose fields never move: `tcpi_bytes_received` ends at byte 136
/// (kernel 4.2).
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    state: u8,
    bytes: [u8; 7],
    words: [u32; 24],
    rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
}

/// What the kernel counted of a TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpCount {
    /// `enum` of `net/tcp_states.h`.
    pub state: u8,
    /// Bytes that came in order, a FIN among them.
    pub received: u64,
    /// Bytes that the other end acknowledged, a FIN among them.
    pub acked: u64,
}

/// Asks the kernel for its count.
pub fn tcp_count(socket: BorrowedFd<'_>) -> io::Result<TcpCount> {
    let mut info = TcpInfo::default();
    let mut length = libc::socklen_t::try_from(size_of::<TcpInfo>()).map_err(io::Error::other)?;
    let wanted = length;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is made of integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if length < wanted {
        return Err(io::Error::other("this kernel counts no bytes of a socket"));
    }
    Ok(TcpCount { state: info.state, received: info.bytes_received, acked: info.bytes_acked })
}

/// Bytes that wait to be read (`SIOCINQ`), without a FIN.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<u64> {
    queued(socket, libc::FIONREAD)
}

/// Bytes that were written and are not acknowledged (`SIOCOUTQ`), a FIN among them.
pub fn unacked(socket: BorrowedFd<'_>) -> io::Result<u64> {
    queued(socket, libc::TIOCOUTQ)
}

fn queued(socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    u64::try_from(count).map_err(io::Error::other)
}
