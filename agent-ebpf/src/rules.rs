//! Which rule covers what the calling process asks for.

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns},
};
use tidegate_agent_common::{Address, BEAT_STALE_NS, Destination, Header, RouteKey, UidKey};

use crate::maps::{ACTIVE, BEAT, HEADERS, ROUTES, UIDS, count_passed};

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

/// Whether the caller is protected; the gate itself never is.
#[inline(always)]
pub fn is_protected(half: u32, header: &Header, caller: &Caller) -> bool {
    // SAFETY: entries of the half in use are not written (see `Tables::replace` in the agent).
    let found = unsafe { UIDS.get(&UidKey { half, uid: caller.uid }) };
    found.is_some() && !caller.is_gate(header)
}

/// The most specific destination of the caller's that covers the address.
///
/// A scan over the rules would be simpler, and the verifier takes 2 s for one of 512 rules (6.18).
#[inline(always)]
pub fn find(half: u32, uid: u32, addr: &Address, port: u16) -> Option<&'static Destination> {
    let exact = route(RouteKey::of(half, uid, *addr, port));
    let any_port = route(RouteKey::of(half, uid, *addr, 0));
    let found = match (exact, any_port) {
        (Some(exact), Some(any_port)) => exact.or_more_specific(any_port),
        (Some(found), None) | (None, Some(found)) => found,
        (None, None) => return None,
    };
    // The trie found it; the function that both sides share has the last word.
    if found.covers(addr, port) { Some(found) } else { None }
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
