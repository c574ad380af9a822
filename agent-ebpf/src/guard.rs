//! `cgroup_skb/egress`: the second line. Drops what a protected socket sends to a protected
//! destination although it did not come through the gate.
//!
//! A socket is protected by who made it, by its tag, and by who works on it now: a descriptor that
//! an unprotected process connected and handed over is caught when a protected one uses it, and
//! is then tagged, so that also what the kernel sends later of its own accord is dropped.
//!
//! Known gaps: packet sockets do not pass here. Whoever forwards for a protected process under a
//! user id of its own is not caught (`enforce_for = "everyone"` does).

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_get_socket_uid, bpf_sk_fullsock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use tidegate_agent_common::{
    Address, Count, EventKind, Header, TAG_GATE, TAG_PASSED, TAG_TOLD, Tag, TallyKey, UID_NONE,
};

use crate::{
    connect::{PASS, REFUSE},
    maps::{KEPT, count, tag, tag_or_new, tally},
    peek::{Actor, actor, maker},
    rules::{Caught, LOOPBACK_V4, LOOPBACK_V6, MAPPED, Who, active_half, catch, header, standing},
    tell::{About, tell},
};

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_DCCP: u8 = 33;
const IPPROTO_SCTP: u8 = 132;
const IPPROTO_UDPLITE: u8 = 136;

/// IPv6 extension headers: hop-by-hop, routing, fragment, destination options.
const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

/// Most extension headers that are walked; a packet with more is not understood.
const EXTENSIONS_MAX: u32 = 6;

/// Where a packet goes.
struct Aim {
    addr: Address,
    port: u16,
    protocol: u8,
}

/// What the head of a packet tells.
enum Head {
    /// It has ports.
    Aimed(Aim),
    /// It has none: another protocol, or a later fragment.
    Portless,
    /// It is cut short, or has too many extension headers.
    Unclear,
}

#[cgroup_skb(egress)]
pub fn tg_egress(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's; the verifier checks each access.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return PASS;
    }
    let half = active_half();
    let Some(header) = header(half) else {
        return PASS;
    };
    let mark = tag(sk);
    let mut owner = UID_NONE;
    if !mark.is_null() {
        // SAFETY: checked against null.
        unsafe {
            if (*mark).flags & TAG_GATE != 0 {
                return PASS;
            }
            owner = (*mark).owner;
        }
    }
    let (maker, actor) = parties(skb, sk, header);
    let who = Who([owner, maker, actor.uid, actor.euid]);
    if header.everyone == 0 && who.0.iter().all(|uid| standing(half, *uid) == 0) {
        return PASS;
    }
    let aim = match head(&ctx) {
        Head::Portless => return PASS,
        Head::Unclear => return REFUSE,
        Head::Aimed(aim) => aim,
    };
    if is_gate(header, &aim) {
        return PASS;
    }
    let Some(Caught { owner, destination: Some(destination) }) =
        catch(half, header, &who, &aim.addr, aim.port)
    else {
        return PASS;
    };
    if was_let_pass(mark, &aim) || is_kept(skb) {
        return PASS;
    }
    let about = About {
        kind: EventKind::Dropped,
        rule: destination.rule,
        owner,
        uid: actor.uid,
        pid: actor.pid,
        addr: aim.addr,
        port: aim.port,
        protocol: u32::from(aim.protocol),
    };
    drop_it(skb, sk, &about);
    REFUSE
}

/// Who made the socket, and who works on it.
#[inline(always)]
fn parties(skb: *mut __sk_buff, sk: *mut bpf_sock, header: &Header) -> (u32, Actor) {
    // SAFETY: the helpers take the context and its socket, which was checked against null.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() || !header.offsets.are_known() {
        // Half-open sockets have no maker of their own: the helper asks the listener. In a user
        // namespace of its own the answer is another user id, which is what `Offsets` are for.
        // SAFETY: as above.
        return (unsafe { bpf_get_socket_uid(skb) }, Actor::NONE);
    }
    (maker(full, &header.offsets), actor(full, &header.offsets))
}

/// The gate listens on the loopback addresses.
#[inline(always)]
fn is_gate(header: &Header, aim: &Aim) -> bool {
    let [a0, a1, a2, a3] = aim.addr;
    u32::from(aim.port) == header.gate_port
        && (a0 | a1) == 0
        && ((a2 == MAPPED && a3 == LOOPBACK_V4) || (a2 == 0 && a3 == LOOPBACK_V6))
}

#[inline(always)]
fn was_let_pass(mark: *mut Tag, aim: &Aim) -> bool {
    if mark.is_null() {
        return false;
    }
    // SAFETY: checked against null.
    let mark = unsafe { &*mark };
    let [a0, a1, a2, a3] = mark.addr;
    let [b0, b1, b2, b3] = aim.addr;
    mark.flags & TAG_PASSED != 0
        && mark.port == u32::from(aim.port)
        && ((a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3)) == 0
}

/// Whether it is a socket from before the hooks that the configuration lets go on.
#[inline(always)]
fn is_kept(skb: *mut __sk_buff) -> bool {
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    // SAFETY: the value is not looked at.
    let kept = unsafe { KEPT.get(&cookie) }.is_some();
    if kept {
        count(Count::PassedKept);
    }
    kept
}

/// Tags the socket, so that it stays caught whoever works on it, and tells of it once.
#[inline(always)]
fn drop_it(skb: *mut __sk_buff, sk: *mut bpf_sock, about: &About) {
    count(Count::Dropped);
    let mark = tag_or_new(sk);
    if !mark.is_null() {
        // SAFETY: checked against null.
        let told = unsafe {
            let told = (*mark).flags & TAG_TOLD != 0;
            if (*mark).owner == 0 {
                // Fresh: root is never an owner.
                (*mark).owner = about.owner;
            }
            (*mark).flags |= TAG_TOLD;
            told
        };
        if told {
            return;
        }
    }
    if let Some(tally) = tally(TallyKey { owner: about.owner, rule: about.rule }) {
        tally.dropped.add();
    }
    // SAFETY: the helper takes the context.
    tell(about, unsafe { bpf_get_socket_cookie(skb.cast()) });
}

#[inline(always)]
fn head(ctx: &SkBuffContext) -> Head {
    let Ok(first) = ctx.load::<u8>(0) else {
        return Head::Unclear;
    };
    if first >> 4 == 4 { head_v4(ctx, first) } else { head_v6(ctx) }
}

#[inline(always)]
fn head_v4(ctx: &SkBuffContext, first: u8) -> Head {
    let (Ok(fragment), Ok(protocol), Ok(addr)) =
        (ctx.load::<u16>(6), ctx.load::<u8>(9), ctx.load::<u32>(16))
    else {
        return Head::Unclear;
    };
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Head::Portless;
    }
    ports(ctx, protocol, usize::from(first & 15) * 4, [0, 0, MAPPED, addr])
}

#[inline(always)]
fn head_v6(ctx: &SkBuffContext) -> Head {
    let (Ok(mut next), Ok(addr)) = (ctx.load::<u8>(6), ctx.load::<Address>(24)) else {
        return Head::Unclear;
    };
    let mut at = 40_usize;
    for _ in 0..EXTENSIONS_MAX {
        if !EXTENSIONS.contains(&next) {
            return ports(ctx, next, at, addr);
        }
        let (Ok(then), Ok(length)) = (ctx.load::<u8>(at), ctx.load::<u8>(at + 1)) else {
            return Head::Unclear;
        };
        if next == 44 {
            let Ok(fragment) = ctx.load::<u16>(at + 2) else {
                return Head::Unclear;
            };
            if u16::from_be(fragment) & 0xfff8 != 0 {
                return Head::Portless;
            }
            at += 8;
        } else {
            at += (usize::from(length) + 1) * 8;
        }
        next = then;
    }
    Head::Unclear
}

#[inline(always)]
fn ports(ctx: &SkBuffContext, protocol: u8, at: usize, addr: Address) -> Head {
    match protocol {
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_DCCP | IPPROTO_SCTP | IPPROTO_UDPLITE => {}
        _ => return Head::Portless,
    }
    match ctx.load::<u16>(at + 2) {
        Ok(port) => Head::Aimed(Aim { addr, port: u16::from_be(port), protocol }),
        Err(_) => Head::Unclear,
    }
}
