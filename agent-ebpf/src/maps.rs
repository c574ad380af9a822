//! The maps, and the few unsafe ways to them that aya-ebpf 0.2 lacks.
//!
//! All but the log's are pinned by the agent, so that they outlive it.

use core::ptr;

use aya_ebpf::{
    bindings::bpf_sock,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use tidegate_agent_common::{
    COUNTS, Count, Destination, FLOWS_MAX, Flow, Header, ROUTES_MAX, RULES_MAX, RawCapture,
    RouteKey, UIDS_MAX, UidKey,
};

/// The note on a socket: a client's, or the one that the gate accepted for it.
#[btf_map]
static NOTES: SkStorage<RawCapture> = SkStorage::new();

/// Handshakes in flight, from `connect()` to the gate's accept queue.
#[btf_map]
pub static FLOWS: LruHashMap<Flow, RawCapture, { FLOWS_MAX as usize }> = LruHashMap::new();

/// Half of the double buffer that is in use. Its two values differ in one byte, so that a
/// reader sees the one or the other.
#[btf_map]
pub static ACTIVE: Array<u32, 1> = Array::new();

/// One head for each half.
#[btf_map]
pub static HEADERS: Array<Header, 2> = Array::new();

/// The destinations of both halves, by user id.
#[btf_map]
pub static ROUTES: LpmTrie<RouteKey, Destination, { 2 * ROUTES_MAX as usize }> = LpmTrie::new();

/// The protected user ids of both halves: a quick "no" for all others.
#[btf_map]
pub static UIDS: HashMap<UidKey, u32, { 2 * UIDS_MAX as usize }> = HashMap::new();

/// `CLOCK_MONOTONIC` of the agent's last heartbeat, in nanoseconds.
#[btf_map]
pub static BEAT: Array<u64, 1> = Array::new();

/// Passes by rules that are open on failure, by rule.
#[btf_map]
static PASSED_OPEN: PerCpuArray<u64, { RULES_MAX as usize }> = PerCpuArray::new();

/// Events, by [`Count`].
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTS as usize }> = PerCpuArray::new();

/// Counts one event.
#[inline(always)]
pub fn count(event: Count) {
    if let Some(counter) = COUNTERS.get_ptr_mut(event as u32) {
        // SAFETY: the slot of this CPU, in a program that the kernel does not move to another.
        unsafe { *counter += 1 }
    }
}

/// Counts one pass of an open rule.
#[inline(always)]
pub fn count_passed(rule: u32) {
    if let Some(counter) = PASSED_OPEN.get_ptr_mut(rule) {
        // SAFETY: as in `count`.
        unsafe { *counter += 1 }
    }
    count(Count::PassedOpen);
}

/// The note of a socket, null where it has none. aya-ebpf's own accessor takes only the context
/// of one hook.
#[inline(always)]
pub fn note(sk: *mut bpf_sock) -> *mut RawCapture {
    note_flags(sk, 0)
}

/// The note of a socket, made where it has none; null where there is no room.
#[inline(always)]
pub fn note_or_new(sk: *mut bpf_sock) -> *mut RawCapture {
    const BPF_SK_STORAGE_GET_F_CREATE: u64 = 1;
    note_flags(sk, BPF_SK_STORAGE_GET_F_CREATE)
}

#[inline(always)]
fn note_flags(sk: *mut bpf_sock, flags: u64) -> *mut RawCapture {
    // SAFETY: the callers checked `sk` against null, as the verifier demands.
    unsafe {
        bpf_sk_storage_get(
            ptr::from_ref(&NOTES).cast_mut().cast(),
            sk.cast(),
            ptr::null_mut(),
            flags,
        )
        .cast()
    }
}
