//! `getpeername4`, `getpeername6` (kernel 5.8): the client sees the address that it asked for.
//!
//! Known gap: the kernel does not run them for MPTCP sockets.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use tidegate_agent_common::STATE_REDIRECTED;

use crate::{connect::PASS, maps::note};

#[cgroup_sock_addr(getpeername4)]
pub fn tg_peername4(ctx: SockAddrContext) -> i32 {
    getpeername::<false>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn tg_peername6(ctx: SockAddrContext) -> i32 {
    getpeername::<true>(&ctx)
}

#[inline(always)]
fn getpeername<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the context is the kernel's, the note is checked against null; the verifier checks
    // each access.
    unsafe {
        let sk = (*sa).__bindgen_anon_1.sk;
        if sk.is_null() {
            return PASS;
        }
        let note = note(sk);
        if note.is_null() || (*note).state != STATE_REDIRECTED {
            return PASS;
        }
        let addr = (*note).addr;
        if V6 {
            (*sa).user_ip6[0] = addr[0];
            (*sa).user_ip6[1] = addr[1];
            (*sa).user_ip6[2] = addr[2];
            (*sa).user_ip6[3] = addr[3];
        } else {
            (*sa).user_ip4 = addr[3];
        }
        (*sa).user_port = u32::from((*note).port.to_be());
    }
    PASS
}
