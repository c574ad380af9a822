//! getsockopt: hands the capture to whoever holds the accepted socket, which is the gate.
//!
//! `SO_ORIGINAL_DST` works too, for IPv4 and IPv6. The peer's port is not looked at: it is 0 once
//! the peer has reset the connection, and the capture must be readable then.

use core::mem::size_of;

use aya_ebpf::{bindings::bpf_sockopt, macros::cgroup_sockopt, programs::SockoptContext};
use tidegate_agent_common::{
    ABI, Pong, RawCapture, SOCKOPT_CAPTURE, SOCKOPT_LEVEL, SOCKOPT_PING, STATE_ACCEPTED,
};

use crate::{maps::note, rules::Caller};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const SO_ORIGINAL_DST: i32 = 80;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

#[cgroup_sockopt(getsockopt)]
pub fn tg_getsockopt(ctx: SockoptContext) -> i32 {
    let opt = ctx.sockopt;
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let (level, name, sk) = unsafe { ((*opt).level, (*opt).optname, (*opt).__bindgen_anon_1.sk) };
    match (level, name) {
        (SOCKOPT_LEVEL, SOCKOPT_PING) => {
            let Caller { pid, uid, .. } = Caller::current();
            return put(opt, &Pong { abi: ABI, pid, uid });
        }
        (SOCKOPT_LEVEL, SOCKOPT_CAPTURE)
        | (SOL_IP, SO_ORIGINAL_DST)
        | (SOL_IPV6, SO_ORIGINAL_DST) => {}
        _ => return PASS,
    }
    if sk.is_null() {
        return PASS;
    }
    let note = note(sk);
    // SAFETY: checked against null before it is read.
    if note.is_null() || unsafe { (*note).state } != STATE_ACCEPTED {
        return PASS;
    }
    // SAFETY: checked against null.
    let capture: &RawCapture = unsafe { &*note };
    let port = u32::from(capture.port.to_be()) << 16;
    let [a0, a1, a2, a3] = capture.addr;
    match level {
        SOL_IP => put(opt, &[AF_INET | port, a3, 0, 0]),
        SOL_IPV6 => put(opt, &[AF_INET6 | port, 0, a0, a1, a2, a3, 0]),
        _ => put(opt, capture),
    }
}

/// What may be copied out: integers without padding.
trait Plain: Copy {}
impl Plain for RawCapture {}
impl Plain for Pong {}
impl<const N: usize> Plain for [u32; N] {}

/// Answers with `value`; refuses a buffer that is too short for it.
#[inline(always)]
fn put<T: Plain>(opt: *mut bpf_sockopt, value: &T) -> i32 {
    // SAFETY: the verifier checks the copy against the end of the buffer.
    unsafe {
        let to: *mut u8 = (*opt).__bindgen_anon_2.optval.cast();
        let end: *mut u8 = (*opt).__bindgen_anon_3.optval_end.cast();
        if to.wrapping_add(size_of::<T>()) > end {
            return REFUSE;
        }
        to.cast::<T>().write_unaligned(*value);
        (*opt).optlen = size_of::<T>() as i32;
        (*opt).retval = 0;
    }
    PASS
}
