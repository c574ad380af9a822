//! `sendmsg4`, `sendmsg6`: refuses unconnected datagrams to a protected destination, which no
//! `connect()` announces.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::warn;
use tidegate_agent_common::Count;

use crate::{
    connect::{PASS, REFUSE, asked},
    maps::count,
    rules::{Caller, active_half, find, header, is_protected},
};

#[cgroup_sock_addr(sendmsg4)]
pub fn tg_sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::<false>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn tg_sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::<true>(&ctx)
}

#[inline(always)]
fn sendmsg<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    if sk.is_null() {
        return PASS;
    }
    let half = active_half();
    let Some(header) = header(half) else {
        return PASS;
    };
    let caller = Caller::current();
    if !is_protected(half, header, &caller) {
        return PASS;
    }
    // SAFETY: as above.
    let port = u16::from_be(unsafe { (*sa).user_port } as u16);
    let addr = asked::<V6>(sa, sk);
    if find(half, caller.uid, &addr, port).is_none() {
        return PASS;
    }
    count(Count::RefusedNotTcp);
    warn!(ctx, "refused a datagram: uid {} port {}", caller.uid, port);
    REFUSE
}
