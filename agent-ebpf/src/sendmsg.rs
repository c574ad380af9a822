//! `sendmsg4`, `sendmsg6`: refuses unconnected datagrams to a protected destination, which no
//! `connect()` announces.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::warn;
use tidegate_agent_common::{Count, EventKind};

use crate::{
    connect::{PASS, asked, refuse},
    maps::count,
    rules::{Caller, Caught, Who, active_half, catch, header, standing},
    tell::About,
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
    if caller.is_gate(header) {
        return PASS;
    }
    let who = Who::calls(&caller, sk, header);
    if header.everyone == 0 && who.0.iter().all(|uid| standing(half, *uid) == 0) {
        return PASS;
    }
    // SAFETY: as above.
    let (port, protocol) = unsafe { (u16::from_be((*sa).user_port as u16), (*sa).protocol) };
    let addr = asked::<V6>(sa, sk);
    let Some(Caught { owner, destination: Some(destination) }) =
        catch(half, header, &who, &addr, port)
    else {
        return PASS;
    };
    count(Count::RefusedNotTcp);
    warn!(ctx, "refused a datagram: uid {} port {}", owner, port);
    refuse(About {
        kind: EventKind::RefusedNotTcp,
        rule: destination.rule,
        owner,
        uid: caller.uid,
        pid: caller.pid,
        addr,
        port,
        protocol,
    })
}
