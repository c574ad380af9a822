//! sockops: carries the note from the client's socket to the one that the gate accepts.
//!
//! The client's end is published when its source port is chosen and the SYN not yet sent, and
//! taken up when the gate's socket is established, so there is no moment at which the gate could
//! accept a connection whose note is missing. An entry that is never taken up is harmless: the
//! next connection from that port to the gate replaces or removes it before its SYN leaves.

use core::ptr;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::sock_ops,
    programs::SockOpsContext,
};
use tidegate_agent_common::{
    Address, Count, EventKind, Flow, Header, STATE_ACCEPTED, STATE_REDIRECTED, TallyKey, UID_NONE,
};

use crate::{
    maps::{FLOWS, count, note, note_or_new, tally},
    peek::maker,
    rules::{MAPPED, active_half, find_host, header, standing},
    tell::{About, tell},
};

const BPF_SOCK_OPS_TCP_CONNECT_CB: u32 = 3;
const BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB: u32 = 5;
const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;

/// Context fields are read unconditionally and volatile: LLVM otherwise merges the loads of two
/// branches into one with a computed offset, which the verifier refuses ("dereference of modified
/// ctx ptr", seen on 6.1 and 6.18).
macro_rules! read {
    ($place:expr) => {
        ptr::read_volatile(&raw const $place)
    };
}

#[sock_ops]
pub fn tg_sockops(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let op = unsafe { read!((*ops).op) };
    match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB => publish(ops),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => take_up(ops),
        _ => {}
    }
    1
}

#[inline(always)]
fn publish(ops: *mut bpf_sock_ops) {
    let Some(header) = header(active_half()) else {
        return;
    };
    // SAFETY: as in `tg_sockops`.
    let (remote, local) = unsafe { (read!((*ops).remote_port), read!((*ops).local_port)) };
    if u32::from_be(remote) != header.gate_port {
        return;
    }
    // SAFETY: as in `tg_sockops`.
    let (flow, sk) = unsafe {
        let addr = pick(
            read!((*ops).family),
            read!((*ops).local_ip4),
            [
                read!((*ops).local_ip6[0]),
                read!((*ops).local_ip6[1]),
                read!((*ops).local_ip6[2]),
                read!((*ops).local_ip6[3]),
            ],
        );
        (flow(ops, addr, local), (*ops).__bindgen_anon_2.sk)
    };
    if sk.is_null() {
        return;
    }
    let note = note(sk);
    // SAFETY: checked against null before it is read.
    if note.is_null() || unsafe { (*note).state } != STATE_REDIRECTED {
        // Somebody connects to the gate of their own accord: no capture may be found for it.
        let _ = FLOWS.remove(&flow);
        return;
    }
    // SAFETY: checked against null.
    if FLOWS.insert(&flow, unsafe { &*note }, 0).is_err() {
        count(Count::FlowLost);
    }
}

#[inline(always)]
fn take_up(ops: *mut bpf_sock_ops) {
    let half = active_half();
    let Some(header) = header(half) else {
        return;
    };
    // SAFETY: as in `tg_sockops`.
    let (remote, local) = unsafe { (read!((*ops).remote_port), read!((*ops).local_port)) };
    // SAFETY: as in `tg_sockops`.
    let (addr, sk) = unsafe {
        let addr = pick(
            read!((*ops).family),
            read!((*ops).remote_ip4),
            [
                read!((*ops).remote_ip6[0]),
                read!((*ops).remote_ip6[1]),
                read!((*ops).remote_ip6[2]),
                read!((*ops).remote_ip6[3]),
            ],
        );
        (addr, (*ops).__bindgen_anon_2.sk)
    };
    if sk.is_null() {
        return;
    }
    if local != header.gate_port {
        reverse(ops, half, header, sk, addr, u32::from_be(remote));
        return;
    }
    let flow = flow(ops, addr, u32::from_be(remote));
    // SAFETY: read before the entry is removed, by the only program that removes it.
    let Some(published) = (unsafe { FLOWS.get(&flow) }) else {
        count(Count::Uncaptured);
        return;
    };
    let note = note_or_new(sk);
    if note.is_null() {
        count(Count::FlowLost);
    } else {
        // SAFETY: checked against null.
        unsafe {
            *note = *published;
            (*note).state = STATE_ACCEPTED;
        }
        count(Count::Accepted);
        if let Some(tally) = tally(TallyKey { owner: published.owner, rule: published.rule }) {
            tally.accepted.add();
        }
    }
    let _ = FLOWS.remove(&flow);
}

/// A protected account took a connection that came from a protected host: it passes, and is told.
#[inline(always)]
fn reverse(
    ops: *mut bpf_sock_ops,
    half: u32,
    header: &Header,
    sk: *mut bpf_sock,
    addr: Address,
    port: u32,
) {
    let owner = maker(sk, &header.offsets);
    if standing(half, owner) == 0 {
        return;
    }
    let Some(found) = find_host(half, owner, &addr) else {
        return;
    };
    let about = About {
        kind: EventKind::Reverse,
        rule: found.rule,
        owner,
        uid: UID_NONE,
        pid: 0,
        addr,
        port: port as u16,
        protocol: IPPROTO_TCP,
    };
    // SAFETY: the helper takes the context.
    tell(&about, unsafe { bpf_get_socket_cookie(ops.cast()) });
}

#[inline(always)]
fn flow(ops: *mut bpf_sock_ops, addr: Address, port: u32) -> Flow {
    // SAFETY: the helper takes the context.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ops.cast()) };
    Flow { addr, netns_cookie, port, zero: 0 }
}

#[inline(always)]
fn pick(family: u32, v4: u32, v6: Address) -> Address {
    if family == AF_INET { [0, 0, MAPPED, v4] } else { v6 }
}
