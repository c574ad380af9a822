//! What the kernel knows and its helpers do not tell: the effective user id of the process at work,
//! the maker of a socket, and whether a process works on the socket at this moment.
//!
//! The places come from the kernel's own type information, by way of the agent ([`Offsets`]). Where
//! they are not to be had, nobody is found here, and the real user id decides alone.

use core::mem::size_of;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel},
};
use tidegate_agent_common::{Offsets, UID_NONE};

const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;

/// A process at work.
#[derive(Clone, Copy)]
pub struct Actor {
    pub uid: u32,
    pub euid: u32,
    pub pid: u32,
}

impl Actor {
    pub const NONE: Self = Self { uid: UID_NONE, euid: UID_NONE, pid: 0 };

    /// The process that runs now.
    #[inline(always)]
    pub fn current(offsets: &Offsets) -> Self {
        if !offsets.are_known() {
            return Self::NONE;
        }
        // SAFETY: a helper without arguments.
        let task = unsafe { bpf_get_current_task() };
        let cred: u64 = read(task, offsets.task_cred, 0);
        Self {
            uid: read(cred, offsets.cred_uid, UID_NONE),
            euid: read(cred, offsets.cred_euid, UID_NONE),
            pid: read(task, offsets.task_tgid, 0),
        }
    }
}

/// The maker's file-system user id.
#[inline(always)]
pub fn maker(sk: *mut bpf_sock, offsets: &Offsets) -> u32 {
    if !offsets.are_known() {
        return UID_NONE;
    }
    read(address_of(sk), offsets.sk_uid, UID_NONE)
}

/// Who works on the socket now. TCP sends either for the process that holds the socket, or while
/// nobody holds it; in the second case whoever runs has nothing to do with it. Datagram and raw
/// sockets send for nobody but their caller.
#[inline(always)]
pub fn actor(sk: *mut bpf_sock, offsets: &Offsets) -> Actor {
    if !offsets.are_known() {
        return Actor::NONE;
    }
    // SAFETY: the caller checked it to be a whole socket, not null.
    let kind = unsafe { (*sk).type_ };
    let sends_for_its_caller = kind == SOCK_DGRAM || kind == SOCK_RAW;
    if !sends_for_its_caller && read::<u32>(address_of(sk), offsets.sk_owned, 0) == 0 {
        return Actor::NONE;
    }
    Actor::current(offsets)
}

/// The verifier forbids arithmetic on socket pointers; on what was copied from one it does not.
#[inline(always)]
fn address_of(sk: *mut bpf_sock) -> u64 {
    let place = [sk];
    let mut address = 0_u64;
    // SAFETY: both ends are on this program's stack, eight bytes long.
    unsafe { bpf_probe_read_kernel((&raw mut address).cast(), 8, place.as_ptr().cast()) };
    address
}

#[inline(always)]
fn read<T: Copy>(base: u64, offset: u32, absent: T) -> T {
    let mut value = absent;
    let from = base.wrapping_add(u64::from(offset));
    // SAFETY: the helper checks the source, and fails where it is no kernel memory.
    let failed = unsafe {
        bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, from as *const _)
    };
    if failed == 0 { value } else { absent }
}
