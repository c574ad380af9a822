//! `sock_create`: marks the sockets of protected user ids from their making on, and refuses those
//! that could carry a connection past the connect hook: raw, SCTP, DCCP and Multipath TCP. (A client
//! that asks for Multipath TCP falls back to TCP, as on a kernel without it.)
//!
//! Known gaps: only `AF_INET` and `AF_INET6` come here; packet and vsock sockets do not.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use aya_log_ebpf::warn;
use tidegate_agent_common::{Count, EventKind, RULE_STRICT, TAG_GATE, UID_NONE};

use crate::{
    connect::{PASS, REFUSE},
    maps::{count, tag_or_new},
    peek::Actor,
    rules::{Caller, active_half, header, standing},
    tell::{About, tell},
};

const SOCK_RAW: u32 = 3;
const SOCK_DCCP: u32 = 6;
const IPPROTO_DCCP: u32 = 33;
const IPPROTO_SCTP: u32 = 132;

/// The subflows of a Multipath TCP socket are the kernel's own: they bear no tag, and their maker is
/// whoever connects. What a protected account made, and another connects, would not be known.
const IPPROTO_MPTCP: u32 = 262;

#[cgroup_sock(sock_create)]
pub fn tg_sock_create(ctx: SockContext) -> i32 {
    let sk = ctx.sock;
    let half = active_half();
    let Some(header) = header(half) else {
        return PASS;
    };
    let caller = Caller::current();
    if caller.is_gate(header) {
        let mark = tag_or_new(sk);
        if !mark.is_null() {
            // SAFETY: checked against null.
            unsafe {
                (*mark).owner = UID_NONE;
                (*mark).flags = TAG_GATE;
            }
        }
        return PASS;
    }
    let euid = Actor::current(&header.offsets).euid;
    let owner = if standing(half, caller.uid) != 0 {
        caller.uid
    } else if standing(half, euid) != 0 {
        euid
    } else {
        return PASS;
    };
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let (kind, protocol) = unsafe { ((*sk).type_, (*sk).protocol) };
    if kind == SOCK_RAW
        || kind == SOCK_DCCP
        || protocol == IPPROTO_SCTP
        || protocol == IPPROTO_DCCP
        || protocol == IPPROTO_MPTCP
    {
        count(Count::RefusedSocket);
        warn!(&ctx, "refused a socket: uid {} type {} protocol {}", owner, kind, protocol);
        let about = About {
            kind: EventKind::RefusedSocket,
            rule: RULE_STRICT,
            owner,
            uid: caller.uid,
            pid: caller.pid,
            addr: [0; 4],
            port: 0,
            protocol,
        };
        tell(&about, 0);
        return REFUSE;
    }
    let mark = tag_or_new(sk);
    if mark.is_null() {
        // Unmarked it could be handed to somebody else.
        count(Count::RefusedNoRoom);
        return REFUSE;
    }
    // SAFETY: checked against null.
    unsafe {
        (*mark).owner = owner;
        (*mark).flags = 0;
    }
    PASS
}
