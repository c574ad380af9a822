//! One connect by io_uring(7), with and without a kernel thread that polls for it.

#![expect(clippy::cast_ptr_alignment, reason = "mappings begin at a page")]

use std::io;
use std::mem::size_of;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

/// `linux/io_uring.h`.
const IORING_SETUP_SQPOLL: u32 = 2;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_ENTER_SQ_WAKEUP: u32 = 2;
const IORING_OP_CONNECT: u8 = 16;
const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_CQ_RING: i64 = 0x800_0000;
const IORING_OFF_SQES: i64 = 0x1000_0000;

#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array, resv1, user_addr.
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1, user_addr.
    cq: [u32; 10],
}

/// What `connect(2)` would return: 0, or the negative error.
pub fn connect(socket: RawFd, to: SocketAddrV4, polled: bool) -> io::Result<i32> {
    let mut params = Params::default();
    if polled {
        params.flags = IORING_SETUP_SQPOLL;
        params.sq_thread_idle = 1000;
    }
    // SAFETY: the kernel fills a live structure of its own layout; the descriptor is fresh.
    let ring = unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd.try_into().unwrap())
    };
    let submission = map(&ring, IORING_OFF_SQ_RING)?;
    let completion = map(&ring, IORING_OFF_CQ_RING)?;
    let entry = map(&ring, IORING_OFF_SQES)?;
    let address = socket2::SockAddr::from(std::net::SocketAddr::V4(to));
    let at = |base: *mut u8, offset: u32| base.wrapping_add(offset as usize).cast::<u32>();
    // SAFETY: all places lie in the three mappings, as the kernel described them; this process has
    // one thread, and the kernel reads the entry only behind the tail's change.
    unsafe {
        // struct io_uring_sqe: opcode, fd, off (length of the address), addr.
        ptr::write_bytes(entry, 0, 64);
        entry.write(IORING_OP_CONNECT);
        entry.add(4).cast::<i32>().write(socket);
        entry.add(8).cast::<u64>().write(address.len().into());
        entry.add(16).cast::<u64>().write(address.as_ptr().addr() as u64);
        at(submission, params.sq[6]).write_volatile(0);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        at(submission, params.sq[1]).write_volatile(1);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let wake = if polled { IORING_ENTER_SQ_WAKEUP } else { 0 };
        let flags = IORING_ENTER_GETEVENTS | wake;
        let fd = ring.as_raw_fd();
        let none = ptr::null::<u8>();
        if libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, flags, none, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        // struct io_uring_cqe: user_data, res, flags.
        Ok(completion.add(params.cq[5] as usize + 8).cast::<i32>().read_volatile())
    }
}

fn map(ring: &OwnedFd, offset: i64) -> io::Result<*mut u8> {
    // SAFETY: a fresh mapping of the ring; it ends with the process.
    let place = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ring.as_raw_fd(),
            offset,
        )
    };
    if place == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(place.cast()) }
}

const _: () = assert!(size_of::<Params>() == 120);
