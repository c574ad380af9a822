//! `connect4`, `connect6`: leads a protected connection to the gate and notes what was asked.
//!
//! A `connect()` that is not led away forgets the socket's older note, so that
//! `connect(AF_UNSPEC)` and a second `connect()` straight to the gate carry no stale capture.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_netns_cookie,
        bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_ktime_get_ns,
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::warn;
use tidegate_agent_common::{
    ABI_VERSION, Address, Count, EventKind, RULE_STRICT, STATE_NONE, STATE_REDIRECTED, TAG_PASSED,
    TallyKey, UID_NONE, is_v4_mapped,
};

use crate::{
    maps::{count, note, note_or_new, tag, tag_or_new, tally},
    rules::{
        Caller, Caught, LOOPBACK_V4, LOOPBACK_V6, MAPPED, Who, active_half, catch, header,
        passes_open, standing,
    },
    tell::{About, tell},
};

pub const REFUSE: i32 = 0;
pub const PASS: i32 = 1;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

#[cgroup_sock_addr(connect4)]
pub fn tg_connect4(ctx: SockAddrContext) -> i32 {
    connect::<false>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn tg_connect6(ctx: SockAddrContext) -> i32 {
    connect::<true>(&ctx)
}

#[inline(always)]
fn connect<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let sk = unsafe { (*sa).__bindgen_anon_1.sk };
    if sk.is_null() {
        return PASS;
    }
    let old = note(sk);
    if !old.is_null() {
        // SAFETY: checked against null.
        unsafe { (*old).state = STATE_NONE }
    }
    let mark = tag(sk);
    if !mark.is_null() {
        // SAFETY: checked against null.
        unsafe { (*mark).flags &= !TAG_PASSED }
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
    let port = u16::from_be(unsafe { (*sa).user_port } as u16);
    let addr = asked::<V6>(sa, sk);
    let Some(Caught { owner, destination }) = catch(half, header, &who, &addr, port) else {
        return PASS;
    };
    // SAFETY: as above.
    let (kind, protocol) = unsafe { ((*sa).type_, (*sa).protocol) };
    let rule = destination.map_or(RULE_STRICT, |destination| destination.rule);
    let about = About {
        kind: EventKind::RefusedNotTcp,
        rule,
        owner,
        uid: caller.uid,
        pid: caller.pid,
        addr,
        port,
        protocol,
    };
    if kind != SOCK_STREAM || (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) {
        if destination.is_none() {
            // Strict is about TCP.
            return PASS;
        }
        count(Count::RefusedNotTcp);
        warn!(ctx, "refused a socket that is not TCP: uid {} port {}", owner, port);
        return refuse(about);
    }
    if destination.is_none() && is_gate::<V6>(sa, header.gate_port) {
        return PASS;
    }
    if let Some(destination) = destination
        && passes_open(destination)
    {
        return let_pass(sk, about);
    }
    if !write_note::<V6>(sa, sk, &caller, &about) {
        count(Count::RefusedNoRoom);
        warn!(ctx, "refused, no room for the note: uid {} port {}", owner, port);
        return refuse(About { kind: EventKind::RefusedNoRoom, ..about });
    }
    lead_to_gate::<V6>(sa, &addr, header.gate_port);
    count(Count::Captured);
    if let Some(tally) = tally(TallyKey { owner, rule }) {
        tally.redirected.add();
    }
    PASS
}

#[inline(always)]
pub fn refuse(about: About) -> i32 {
    if let Some(tally) = tally(TallyKey { owner: about.owner, rule: about.rule }) {
        tally.refused.add();
    }
    tell(&about, 0);
    REFUSE
}

/// Marks the socket, so that the guard lets it pass too.
#[inline(always)]
fn let_pass(sk: *mut bpf_sock, about: About) -> i32 {
    let fresh = tag(sk).is_null();
    let mark = tag_or_new(sk);
    if !mark.is_null() {
        // SAFETY: checked against null.
        unsafe {
            if fresh {
                (*mark).owner = UID_NONE;
            }
            (*mark).addr = about.addr;
            (*mark).port = u32::from(about.port);
            (*mark).flags |= TAG_PASSED;
        }
    }
    if let Some(tally) = tally(TallyKey { owner: about.owner, rule: about.rule }) {
        tally.exempt.add();
    }
    PASS
}

/// Whether a strict account dials the gate by hand, which the gate refuses and records.
#[inline(always)]
fn is_gate<const V6: bool>(sa: *mut bpf_sock_addr, gate_port: u32) -> bool {
    // SAFETY: the context is the kernel's; the verifier checks each access.
    unsafe {
        if u32::from(u16::from_be((*sa).user_port as u16)) != gate_port {
            return false;
        }
        if !V6 {
            return (*sa).user_ip4 == LOOPBACK_V4;
        }
        let a = [(*sa).user_ip6[0], (*sa).user_ip6[1], (*sa).user_ip6[2], (*sa).user_ip6[3]];
        (a[0] | a[1]) == 0
            && ((a[2] == 0 && a[3] == LOOPBACK_V6) || (a[2] == MAPPED && a[3] == LOOPBACK_V4))
    }
}

/// The address asked for. "Any" means this host itself, as the kernel takes it: for IPv4 the
/// address that the socket is bound to, or loopback (`ip_route_output_key_hash_rcu`); for IPv6
/// loopback, of the family that the socket is bound to (`tcp_v6_connect`).
#[inline(always)]
pub fn asked<const V6: bool>(sa: *mut bpf_sock_addr, sk: *mut bpf_sock) -> Address {
    // SAFETY: the context and its socket are the kernel's; the verifier checks each access.
    unsafe {
        if !V6 {
            let mut ip = (*sa).user_ip4;
            if ip == 0 {
                ip = (*sk).src_ip4;
            }
            if ip == 0 {
                ip = LOOPBACK_V4;
            }
            return [0, 0, MAPPED, ip];
        }
        let mut addr = [(*sa).user_ip6[0], (*sa).user_ip6[1], (*sa).user_ip6[2], (*sa).user_ip6[3]];
        let bound = [(*sk).src_ip6[0], (*sk).src_ip6[1], (*sk).src_ip6[2], (*sk).src_ip6[3]];
        if addr[0] | addr[1] | addr[2] | addr[3] == 0 {
            if is_v4_mapped(&bound) {
                addr[2] = MAPPED;
            } else {
                addr[3] = LOOPBACK_V6;
            }
        }
        if is_v4_mapped(&addr) && addr[3] == 0 {
            addr[3] = if is_v4_mapped(&bound) && bound[3] != 0 { bound[3] } else { LOOPBACK_V4 };
        }
        addr
    }
}

#[inline(always)]
fn write_note<const V6: bool>(
    sa: *mut bpf_sock_addr,
    sk: *mut bpf_sock,
    caller: &Caller,
    about: &About,
) -> bool {
    let note = note_or_new(sk);
    if note.is_null() {
        return false;
    }
    // SAFETY: checked against null; the helpers get pointers into the note, which is as long as
    // they are told.
    unsafe {
        (*note).addr = about.addr;
        (*note).socket_cookie = bpf_get_socket_cookie(sa.cast());
        (*note).netns_cookie = bpf_get_netns_cookie(sa.cast());
        (*note).cgroup_id = bpf_get_current_cgroup_id();
        (*note).connected_ns = bpf_ktime_get_ns();
        (*note).connected_boot_ns = bpf_ktime_get_boot_ns();
        (*note).version = ABI_VERSION;
        (*note).rule = about.rule;
        (*note).uid = caller.uid;
        (*note).owner = about.owner;
        (*note).gid = caller.gid;
        (*note).pid = caller.pid;
        (*note).tid = caller.tid;
        (*note).port = about.port;
        (*note).family = if V6 { AF_INET6 } else { AF_INET };
        bpf_get_current_comm((&raw mut (*note).comm).cast(), 16);
        (*note).state = STATE_REDIRECTED;
    }
    true
}

#[inline(always)]
fn lead_to_gate<const V6: bool>(sa: *mut bpf_sock_addr, addr: &Address, gate_port: u32) {
    // SAFETY: the fields that the kernel lets a connect hook write.
    unsafe {
        if V6 {
            (*sa).user_ip6[0] = 0;
            (*sa).user_ip6[1] = 0;
            if is_v4_mapped(addr) {
                (*sa).user_ip6[2] = MAPPED;
                (*sa).user_ip6[3] = LOOPBACK_V4;
            } else {
                (*sa).user_ip6[2] = 0;
                (*sa).user_ip6[3] = LOOPBACK_V6;
            }
        } else {
            (*sa).user_ip4 = LOOPBACK_V4;
        }
        (*sa).user_port = u32::from((gate_port as u16).to_be());
    }
}
