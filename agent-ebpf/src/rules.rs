//! Which rule covers what somebody asks for.

use aya_ebpf::{
    bindings::bpf_sock,
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns},
};
use tidegate_agent_common::{
    Address, BEAT_STALE_NS, Destination, Header, RouteKey, UID_ANY, UID_NONE, UID_PROTECTED,
    UID_STRICT, UidKey,
};

use crate::maps::{ACTIVE, BEAT, HEADERS, ROUTES, UIDS, count_passed, tag};
use crate::peek::{Actor, maker};

/// `127.0.0.1` in network byte order.
pub const LOOPBACK_V4: u32 = 0x7f00_0001_u32.to_be();

/// Third word of a v4-mapped address.
pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// Last word of `::1`.
pub const LOOPBACK_V6: u32 = 1_u32.to_be();

/// The calling process.
#[derive(Clone, Copy)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub tid: u32,
}

impl Caller {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: helpers without arguments.
        let (ids, pids) = unsafe { (bpf_get_current_uid_gid(), bpf_get_current_pid_tgid()) };
        Self {
            uid: ids as u32,
            gid: (ids >> 32) as u32,
            pid: (pids >> 32) as u32,
            tid: pids as u32,
        }
    }

    /// Whether it is the gate itself.
    #[inline(always)]
    pub fn is_gate(&self, header: &Header) -> bool {
        self.pid == header.gate_pid && self.uid == header.gate_uid
    }
}

/// The user ids by which a socket may be caught; [`UID_NONE`] where there is none. The first that
/// is protected decides.
#[derive(Clone, Copy)]
pub struct Who(pub [u32; 4]);

impl Who {
    /// The caller's real and effective user id, and those of the socket's maker.
    #[inline(always)]
    pub fn calls(caller: &Caller, sk: *mut bpf_sock, header: &Header) -> Self {
        let owner = tag(sk);
        // SAFETY: checked against null.
        let owner = if owner.is_null() { UID_NONE } else { unsafe { (*owner).owner } };
        let euid = Actor::current(&header.offsets).euid;
        Self([caller.uid, euid, owner, maker(sk, &header.offsets)])
    }
}

/// A protected user id, and the rule where one covers what it asks for.
pub struct Caught {
    pub owner: u32,
    pub destination: Option<&'static Destination>,
}

/// The half of the double buffer in use.
#[inline(always)]
pub fn active_half() -> u32 {
    match ACTIVE.get(0) {
        Some(1) => 1,
        _ => 0,
    }
}

/// Head of the half in use.
#[inline(always)]
pub fn header(half: u32) -> Option<&'static Header> {
    HEADERS.get(half)
}

/// What the map of user ids says: 0, or `UID_*` bits.
#[inline(always)]
pub fn standing(half: u32, uid: u32) -> u32 {
    if uid == UID_NONE {
        return 0;
    }
    // SAFETY: entries of the half in use are not written (see `Tables::replace` in the agent).
    unsafe { UIDS.get(&UidKey { half, uid }) }.copied().unwrap_or(0)
}

/// Who of them may not go there directly. Of a strict user id the answer has no rule where none
/// covers the address.
#[inline(always)]
pub fn catch(half: u32, header: &Header, who: &Who, addr: &Address, port: u16) -> Option<Caught> {
    let mut before = UID_NONE;
    let mut strict = UID_NONE;
    for uid in who.0 {
        if uid == UID_NONE || uid == before {
            continue;
        }
        before = uid;
        let standing = standing(half, uid);
        if standing & UID_PROTECTED == 0 && header.everyone == 0 {
            continue;
        }
        match find(half, header.everyone, uid, addr, port) {
            Some(found) if !found.is_exempt() => {
                return Some(Caught { owner: uid, destination: Some(found) });
            }
            Some(_) => {}
            None if standing & UID_STRICT != 0 => strict = uid,
            None => {}
        }
    }
    if strict == UID_NONE { None } else { Some(Caught { owner: strict, destination: None }) }
}

/// The most specific destination of this user id, or of everyone, that covers the address.
///
/// A scan over the rules would be simpler, and the verifier takes 2 s for one of 512 rules (6.18).
#[inline(always)]
fn find(
    half: u32,
    everyone: u32,
    uid: u32,
    addr: &Address,
    port: u16,
) -> Option<&'static Destination> {
    let own = find_of(half, uid, addr, u32::from(port));
    if everyone == 0 {
        return own;
    }
    match (own, find_of(half, UID_ANY, addr, u32::from(port))) {
        // Of equals the user id's own holds: that is how it is exempt.
        (Some(own), Some(any)) if any.bits > own.bits => Some(any),
        (Some(own), _) => Some(own),
        (None, any) => any,
    }
}

#[inline(always)]
fn find_of(half: u32, uid: u32, addr: &Address, port: u32) -> Option<&'static Destination> {
    let exact = route(RouteKey::of(half, uid, *addr, port));
    let any_port = route(RouteKey::of(half, uid, *addr, 0));
    let found = match (exact, any_port) {
        (Some(exact), Some(any_port)) => exact.or_more_specific(any_port),
        (Some(found), None) | (None, Some(found)) => found,
        (None, None) => return None,
    };
    // The trie found it; the function that both sides share has the last word.
    if found.covers(addr, port as u16) { Some(found) } else { None }
}

/// A rule of this user id that names the host, whatever the port.
#[inline(always)]
pub fn find_host(half: u32, uid: u32, addr: &Address) -> Option<&'static Destination> {
    route(RouteKey::of(half, uid, *addr, RouteKey::PORT_HOST))
}

#[inline(always)]
fn route(key: RouteKey) -> Option<&'static Destination> {
    const BITS: u32 = RouteKey::FIXED_BITS + 128;
    ROUTES.get(&Key::new(BITS, key))
}

/// Whether this rule lets the connection pass by the gate, because the agent is silent and the
/// target's owner chose `on_failure = "open"`; counts the pass.
#[inline(always)]
pub fn passes_open(destination: &Destination) -> bool {
    if !destination.is_open() {
        return false;
    }
    let Some(&beat) = BEAT.get(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let silent_ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(beat);
    if silent_ns <= BEAT_STALE_NS || silent_ns > destination.open_ns_max {
        return false;
    }
    count_passed(destination.rule);
    true
}
