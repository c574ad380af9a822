//! `bind4`, `bind6`: nobody but the gate binds the gate's TCP port, in any network namespace, so
//! that nobody can stand in for it while it is away.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::warn;
use tidegate_agent_common::{Count, EventKind, RULE_STRICT, UID_NONE};

use crate::{
    connect::{PASS, REFUSE},
    maps::count,
    rules::{Caller, active_half, header},
    tell::{About, tell},
};

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;

#[cgroup_sock_addr(bind4)]
pub fn tg_bind4(ctx: SockAddrContext) -> i32 {
    bind(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn tg_bind6(ctx: SockAddrContext) -> i32 {
    bind(&ctx)
}

#[inline(always)]
fn bind(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let (port, kind) = unsafe { (u16::from_be((*sa).user_port as u16), (*sa).type_) };
    let Some(header) = header(active_half()) else {
        return PASS;
    };
    if u32::from(port) != header.gate_port || port == 0 || kind != SOCK_STREAM {
        return PASS;
    }
    let caller = Caller::current();
    if caller.is_gate(header) {
        return PASS;
    }
    count(Count::RefusedBind);
    warn!(ctx, "refused to bind the gate's port: uid {} pid {}", caller.uid, caller.pid);
    let about = About {
        kind: EventKind::RefusedBind,
        rule: RULE_STRICT,
        owner: UID_NONE,
        uid: caller.uid,
        pid: caller.pid,
        addr: [0; 4],
        port,
        protocol: IPPROTO_TCP,
    };
    tell(&about, 0);
    REFUSE
}
