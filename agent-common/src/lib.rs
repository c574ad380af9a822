//! The ABI between the kernel programs and the agent: plain data, and the one matching function
//! that both use.
//!
//! Promises: every type is `repr(C)` without padding, so that both sides read the same bytes;
//! [`ABI`] changes when a size, an offset or a meaning does, and the agent refuses an object or
//! pinned maps that carry another one.
//!
//! Limits: [`ROUTES_MAX`] pairs of user id and destination, [`UIDS_MAX`] user ids, [`RULES_MAX`]
//! rules, [`FLOWS_MAX`] handshakes in flight; those of the second line are in `guard.rs`.
//!
//! Known gaps: an IPv6 scope id is not part of a capture, since the kernel's hook does not show it.

#![cfg_attr(not(any(test, feature = "user")), no_std)]

use core::mem::{offset_of, size_of};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod guard;
mod matching;

pub use guard::{
    EVENTS_BYTES, Event, EventKind, KEPT_MAX, Offsets, RULE_STRICT, TAG_GATE, TAG_PASSED, TAG_TOLD,
    TALLIES_MAX, Tag, Tally, TallyKey, UID_ANY, UID_NONE, UID_PROTECTED, UID_STRICT,
};
pub use matching::{Address, Destination, PrefixTooLong, is_v4_mapped};

/// Counted up by hand when the meaning of a field changes and its layout does not.
pub const ABI_VERSION: u32 = 2;

/// What the object and the pinned maps carry.
pub const ABI: Abi = Abi { magic: ABI_MAGIC, version: ABI_VERSION, layout: layout() };

/// "TIDE" in ASCII.
pub const ABI_MAGIC: u32 = 0x5449_4445;

/// Section of the object that holds its [`Abi`].
pub const ABI_SECTION: &str = ".tidegate.abi";

/// Most pairs of user id and destination (address prefix and port); each has an entry in both
/// halves of the double buffer.
pub const ROUTES_MAX: u32 = 65_536;

/// Most protected user ids; each has an entry in both halves of the double buffer.
pub const UIDS_MAX: u32 = 4096;

/// Rule ids are below this.
pub const RULES_MAX: u32 = 1024;

/// Most handshakes between a redirected `connect()` and the gate's `accept()`. Beyond it the
/// longest waiting are forgotten, and the gate refuses them.
pub const FLOWS_MAX: u32 = 32_768;

/// A heartbeat older than this is stale: rules with `on_failure = "open"` then pass.
pub const BEAT_STALE_NS: u64 = 5_000_000_000;

/// `getsockopt` level of the capture; no protocol of Linux uses it.
pub const SOCKOPT_LEVEL: i32 = 0x5447;

/// `getsockopt` name: the [`RawCapture`] of an accepted socket.
pub const SOCKOPT_CAPTURE: i32 = 1;

/// `getsockopt` name: a [`Pong`] for the asker, from any TCP socket under the cgroup.
pub const SOCKOPT_PING: i32 = 2;

/// [`RawCapture::state`]: nothing noted, or forgotten.
pub const STATE_NONE: u32 = 0;

/// [`RawCapture::state`]: noted on a client's socket that was led to the gate.
pub const STATE_REDIRECTED: u32 = 1;

/// [`RawCapture::state`]: copied to the socket that the gate accepted.
pub const STATE_ACCEPTED: u32 = 2;

/// Names the ABI of one side.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abi {
    /// [`ABI_MAGIC`].
    pub magic: u32,
    /// [`ABI_VERSION`].
    pub version: u32,
    /// Hash over the sizes and offsets of all shared types.
    pub layout: u64,
}

/// The hooks' answer to a ping: they are there, and this is how they see the asker.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// ABI of the program that answered.
    pub abi: Abi,
    /// Process id of the asker in the initial pid namespace.
    pub pid: u32,
    /// Real user id of the asker in the initial user namespace.
    pub uid: u32,
}

/// What the kernel notes when a protected socket calls `connect()`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawCapture {
    /// The address asked for, as IPv6 in network byte order (IPv4 is v4-mapped).
    pub addr: Address,
    /// `SO_COOKIE` of the client's socket.
    pub socket_cookie: u64,
    /// Cookie of the client's network namespace.
    pub netns_cookie: u64,
    /// Cgroup v2 id of the caller.
    pub cgroup_id: u64,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub connected_ns: u64,
    /// `CLOCK_BOOTTIME`, in nanoseconds: the clock of a process's start time.
    pub connected_boot_ns: u64,
    /// [`STATE_NONE`], [`STATE_REDIRECTED`] or [`STATE_ACCEPTED`].
    pub state: u32,
    /// [`ABI_VERSION`] of the program that wrote it.
    pub version: u32,
    /// Rule that matched.
    pub rule: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// The protected user id by which the socket was caught: the caller's real or effective one,
    /// or that of the socket's maker.
    pub owner: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Process (thread group) id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Port asked for, in host byte order.
    pub port: u16,
    /// Family of the client's socket: 2 (`AF_INET`) or 10 (`AF_INET6`).
    pub family: u16,
    /// Name of the calling thread, with zeros behind it.
    pub comm: [u8; 16],
    /// Zero.
    pub zero: u32,
}

impl RawCapture {
    /// The address asked for; IPv4 where it was v4-mapped, for that is where it leads.
    pub fn original(&self) -> SocketAddr {
        SocketAddr::new(ip_of(self.addr), self.port)
    }
}

/// Key of a handshake in flight: the client's end.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Source address, IPv4 as v4-mapped.
    pub addr: Address,
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// Source port, in host byte order.
    pub port: u32,
    /// Zero.
    pub zero: u32,
}

/// Head of one half of the double buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Port of the gate on the loopback addresses.
    pub gate_port: u32,
    /// Process id of the gate, whose own sockets are never caught.
    pub gate_pid: u32,
    /// Real user id of the gate; a process that got a dead gate's pid is another's.
    pub gate_uid: u32,
    /// 1 where some route is for every user id.
    pub everyone: u32,
    /// Where the kernel keeps what its helpers do not tell.
    pub offsets: Offsets,
}

/// Key of a protected user id.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidKey {
    /// Half of the double buffer, 0 or 1.
    pub half: u32,
    /// Real user id.
    pub uid: u32,
}

/// Key of a destination, as the kernel's longest-prefix tries compare it: bit by bit from the
/// first byte. All before the address must agree; of the address, its prefix.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteKey {
    /// Half of the double buffer, 0 or 1.
    pub half: u32,
    /// Real user id.
    pub uid: u32,
    /// 4 or 6: an IPv6 prefix never covers a v4-mapped address.
    pub family: u32,
    /// Port in host byte order; 0 is any port, [`Self::PORT_HOST`] none.
    pub port: u32,
    /// IPv6 address in network byte order (IPv4 is v4-mapped).
    pub addr: Address,
}

impl RouteKey {
    /// Bits before the address.
    pub const FIXED_BITS: u32 = 128;

    /// In [`Self::port`]: the entry that names a host, whatever the port.
    pub const PORT_HOST: u32 = 65_536;

    /// The key of this very address.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the verifier follows values within one function best"
    )]
    pub const fn of(half: u32, uid: u32, addr: Address, port: u32) -> Self {
        let family = if is_v4_mapped(&addr) { 4 } else { 6 };
        Self { half, uid, family, port, addr }
    }
}

/// Events that the kernel programs count, by index in their counter map.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// `connect()` led to the gate.
    Captured = 0,
    /// A capture copied to the socket that the gate accepted.
    Accepted = 1,
    /// The gate accepted a connection without a capture.
    Uncaptured = 2,
    /// Not TCP, to a protected destination: refused.
    RefusedNotTcp = 3,
    /// No room for the note on the socket: refused.
    RefusedNoRoom = 4,
    /// Somebody else wanted the gate's port: refused.
    RefusedBind = 5,
    /// Passed by a rule with `on_failure = "open"` while the heartbeat was stale.
    PassedOpen = 6,
    /// A handshake could not be published; the gate refuses its connection.
    FlowLost = 7,
    /// A raw, SCTP, DCCP or MPTCP socket of a protected user id: refused.
    RefusedSocket = 8,
    /// Packets that the egress guard dropped.
    Dropped = 9,
    /// Events that found no room.
    EventLost = 10,
    /// Sockets that could not be tallied.
    TallyLost = 11,
    /// Packets of sockets from before the hooks that the configuration lets go on.
    PassedKept = 12,
}

/// Counters in the map.
pub const COUNTS: u32 = 13;

/// The IP address in these words.
pub fn ip_of(addr: Address) -> IpAddr {
    let mut bytes = [0_u8; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(addr) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let v6 = Ipv6Addr::from(bytes);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// The words of an IP address.
pub fn words_of(ip: IpAddr) -> Address {
    let v6 = match ip {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
        IpAddr::V6(v6) => v6,
    };
    let mut words = [0_u32; 4];
    for (word, from) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
        let mut bytes = [0_u8; 4];
        bytes.copy_from_slice(from);
        *word = u32::from_ne_bytes(bytes);
    }
    words
}

/// FNV-1a over sizes, offsets and limits.
const fn layout() -> u64 {
    let facts: &[usize] = &[
        size_of::<RawCapture>(),
        offset_of!(RawCapture, addr),
        offset_of!(RawCapture, socket_cookie),
        offset_of!(RawCapture, netns_cookie),
        offset_of!(RawCapture, cgroup_id),
        offset_of!(RawCapture, connected_ns),
        offset_of!(RawCapture, connected_boot_ns),
        offset_of!(RawCapture, state),
        offset_of!(RawCapture, version),
        offset_of!(RawCapture, rule),
        offset_of!(RawCapture, uid),
        offset_of!(RawCapture, owner),
        offset_of!(RawCapture, gid),
        offset_of!(RawCapture, pid),
        offset_of!(RawCapture, tid),
        offset_of!(RawCapture, port),
        offset_of!(RawCapture, family),
        offset_of!(RawCapture, comm),
        size_of::<Pong>(),
        offset_of!(Pong, pid),
        offset_of!(Pong, uid),
        size_of::<Flow>(),
        offset_of!(Flow, netns_cookie),
        offset_of!(Flow, port),
        size_of::<Header>(),
        offset_of!(Header, gate_port),
        offset_of!(Header, gate_pid),
        offset_of!(Header, gate_uid),
        offset_of!(Header, everyone),
        offset_of!(Header, offsets),
        size_of::<UidKey>(),
        offset_of!(UidKey, uid),
        size_of::<RouteKey>(),
        offset_of!(RouteKey, uid),
        offset_of!(RouteKey, family),
        offset_of!(RouteKey, port),
        offset_of!(RouteKey, addr),
        size_of::<Destination>(),
        offset_of!(Destination, net),
        offset_of!(Destination, mask),
        offset_of!(Destination, open_ns_max),
        offset_of!(Destination, rule),
        offset_of!(Destination, port),
        offset_of!(Destination, flags),
        offset_of!(Destination, bits),
        ROUTES_MAX as usize,
        UIDS_MAX as usize,
        RULES_MAX as usize,
        FLOWS_MAX as usize,
        COUNTS as usize,
        SOCKOPT_LEVEL.unsigned_abs() as usize,
    ];
    hash_on(hash_on(0xcbf2_9ce4_8422_2325, facts), guard::FACTS)
}

const fn hash_on(mut hash: u64, facts: &[usize]) -> u64 {
    let mut rest = facts;
    while let [fact, tail @ ..] = rest {
        hash = (hash ^ *fact as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = tail;
    }
    hash
}

const _: () = assert!(
    offset_of!(RouteKey, addr) * 8 == RouteKey::FIXED_BITS as usize
        && size_of::<RouteKey>() == offset_of!(RouteKey, addr) + 16,
    "the trie compares nothing but the fields"
);
const _: () = assert!(
    size_of::<RawCapture>() == 16 + 5 * 8 + 8 * 4 + 2 * 2 + 16 + 4,
    "padding would carry kernel memory out"
);

#[cfg(feature = "user")]
mod user {
    //! What aya may copy to and from maps.
    use super::{
        Abi, Destination, Event, Flow, Header, RawCapture, RouteKey, Tag, Tally, TallyKey, UidKey,
    };

    // SAFETY: repr(C), made of integers only, no padding, valid for every bit pattern.
    unsafe impl aya::Pod for Abi {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RawCapture {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Header {}
    // SAFETY: as above.
    unsafe impl aya::Pod for UidKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RouteKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Destination {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Tag {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Tally {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TallyKey {}
}
