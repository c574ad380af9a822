//! The maps, and the few unsafe ways to them that aya-ebpf 0.2 lacks.
//!
//! All but the log's are pinned by the agent, so that they outlive it.

use core::{arch::asm, cell::UnsafeCell, ptr};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_sock},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use tidegate_agent_common::{
    COUNTS, Count, Destination, EVENTS_BYTES, Event, FLOWS_MAX, Flow, Header, KEPT_MAX, ROUTES_MAX,
    RULES_MAX, RawCapture, RouteKey, TALLIES_MAX, Tag, TallyKey, UIDS_MAX, UidKey,
};

const BPF_SK_STORAGE_GET_F_CREATE: u64 = 1;

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

/// The destinations of both halves, by user id; each once with its port and once as a host.
#[btf_map]
pub static ROUTES: LpmTrie<RouteKey, Destination, { 4 * ROUTES_MAX as usize }> = LpmTrie::new();

/// The protected user ids of both halves with their `UID_*` bits: a quick "no" for all others.
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

/// The mark on a socket.
#[btf_map]
static TAGS: SkStorage<Tag> = SkStorage::new();

/// What the agent makes records of.
#[btf_map]
pub static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

/// Cookies of sockets from before the hooks that go on.
#[btf_map]
pub static KEPT: HashMap<u64, u32, { KEPT_MAX as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// What became of sockets, by user id and rule. Entries stay over changes of the rules.
#[btf_map]
static TALLIES: HashMap<
    TallyKey,
    AtomicTally,
    { TALLIES_MAX as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// `tidegate_agent_common::Tally`, as several processors may count in it.
#[repr(C)]
pub struct AtomicTally {
    pub redirected: Cell,
    pub accepted: Cell,
    pub refused: Cell,
    pub dropped: Cell,
    pub exempt: Cell,
}

const _: () = assert!(
    core::mem::size_of::<AtomicTally>() == core::mem::size_of::<tidegate_agent_common::Tally>()
);

/// One count of several processors.
#[repr(transparent)]
pub struct Cell(UnsafeCell<u64>);

impl Cell {
    const ZERO: Self = Self(UnsafeCell::new(0));

    /// `core` has no atomic addition for this target, which cannot compare and exchange before
    /// kernel 5.12; the instruction itself is as old as eBPF.
    #[inline(always)]
    pub fn add(&self) {
        // SAFETY: adds to eight aligned bytes of a map's value.
        unsafe {
            asm!("lock *(u64 *)({place} + 0) += {one}", place = in(reg) self.0.get(), one = in(reg) 1_u64);
        }
    }
}

/// The tally of a pair, made where there is none; `None` where there is no room.
#[inline(always)]
pub fn tally(key: TallyKey) -> Option<&'static AtomicTally> {
    // SAFETY: entries are never removed while programs run; their counts are atomic.
    if let Some(found) = unsafe { TALLIES.get(&key) } {
        return Some(found);
    }
    let fresh = AtomicTally {
        redirected: Cell::ZERO,
        accepted: Cell::ZERO,
        refused: Cell::ZERO,
        dropped: Cell::ZERO,
        exempt: Cell::ZERO,
    };
    // Another processor may have been first: then its entry holds.
    let _ = TALLIES.insert(&key, &fresh, u64::from(BPF_NOEXIST));
    // SAFETY: as above.
    let found = unsafe { TALLIES.get(&key) };
    if found.is_none() {
        count(Count::TallyLost);
    }
    found
}

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
    storage(&NOTES, sk, 0)
}

/// The note of a socket, made where it has none; null where there is no room.
#[inline(always)]
pub fn note_or_new(sk: *mut bpf_sock) -> *mut RawCapture {
    storage(&NOTES, sk, BPF_SK_STORAGE_GET_F_CREATE)
}

/// The tag of a socket, null where it has none.
#[inline(always)]
pub fn tag(sk: *mut bpf_sock) -> *mut Tag {
    storage(&TAGS, sk, 0)
}

/// The tag of a socket, made of zeros where it has none; null where there is no room.
#[inline(always)]
pub fn tag_or_new(sk: *mut bpf_sock) -> *mut Tag {
    storage(&TAGS, sk, BPF_SK_STORAGE_GET_F_CREATE)
}

#[inline(always)]
fn storage<T>(map: &SkStorage<T>, sk: *mut bpf_sock, flags: u64) -> *mut T {
    // SAFETY: the callers checked `sk` against null, as the verifier demands.
    unsafe {
        bpf_sk_storage_get(ptr::from_ref(map).cast_mut().cast(), sk.cast(), ptr::null_mut(), flags)
            .cast()
    }
}
