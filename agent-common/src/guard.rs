//! What the second line shares with the agent: tags on sockets, events, tallies, and where the
//! kernel keeps what its helpers do not tell.
//!
//! Promises: as the rest of the ABI (`lib.rs`). An event is about one socket or one refusal, never
//! about one packet.
//!
//! Limits: [`EVENTS_BYTES`] of events wait for the agent; what does not fit is counted
//! (`Count::EventLost`). [`TALLIES_MAX`] pairs of user id and rule are tallied.

use core::mem::{offset_of, size_of};

use crate::Address;

/// A user id that is none (-1 of `uid_t`).
pub const UID_NONE: u32 = u32::MAX;

/// In [`crate::RouteKey::uid`]: a route for every user id.
pub const UID_ANY: u32 = u32::MAX;

/// [`crate::RawCapture::rule`] of a connection that no rule names, of a strict user id.
pub const RULE_STRICT: u32 = u32::MAX;

/// Value in the map of user ids: protected.
pub const UID_PROTECTED: u32 = 1;

/// Value in the map of user ids, with [`UID_PROTECTED`]: every TCP connection is led to the gate.
pub const UID_STRICT: u32 = 2;

/// Bytes of the ring of events; a power of two, and of whole pages.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Most pairs of user id and rule that are tallied.
pub const TALLIES_MAX: u32 = 65_536;

/// Most sockets from before the hooks that may be left alone.
pub const KEPT_MAX: u32 = 16_384;

/// [`Tag::flags`]: made by the gate.
pub const TAG_GATE: u32 = 1;

/// [`Tag::flags`]: an event told of it.
pub const TAG_TOLD: u32 = 2;

/// [`Tag::flags`]: let pass to [`Tag::addr`] and [`Tag::port`].
pub const TAG_PASSED: u32 = 4;

/// Mark on a socket from its making on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Where it was let pass to.
    pub addr: Address,
    /// The protected user id that made or used it; [`UID_NONE`] where none did.
    pub owner: u32,
    /// `TAG_*`.
    pub flags: u32,
    /// Port that it was let pass to, in host byte order.
    pub port: u32,
    /// Zero.
    pub zero: u32,
}

/// Where this kernel keeps what its helpers do not tell, in bytes from the start of each
/// structure, from its own type information. All 0 where that is not to be had.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    /// `task_struct.cred`.
    pub task_cred: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `cred.uid`.
    pub cred_uid: u32,
    /// `cred.euid`.
    pub cred_euid: u32,
    /// `sock.sk_uid`: the file-system user id of its maker.
    pub sk_uid: u32,
    /// `sock.sk_lock.owned`: a process is at work on it.
    pub sk_owned: u32,
}

impl Offsets {
    /// Whether they are known.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the verifier follows values within one function best"
    )]
    pub const fn are_known(&self) -> bool {
        self.sk_uid != 0
    }
}

/// What happened.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// The egress guard dropped packets of a socket that did not come through the gate.
    Dropped = 1,
    /// A raw, SCTP, DCCP or MPTCP socket was refused.
    RefusedSocket = 2,
    /// Not TCP, to a protected destination: refused.
    RefusedNotTcp = 3,
    /// Somebody else wanted the gate's port: refused.
    RefusedBind = 4,
    /// A protected account accepted a connection from a protected host.
    Reverse = 5,
    /// No room for the note on the socket: refused.
    RefusedNoRoom = 6,
}

impl EventKind {
    /// The kind of this number.
    pub const fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Dropped,
            2 => Self::RefusedSocket,
            3 => Self::RefusedNotTcp,
            4 => Self::RefusedBind,
            5 => Self::Reverse,
            6 => Self::RefusedNoRoom,
            _ => return None,
        })
    }
}

/// One event.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Where to; of a `Reverse`, where from.
    pub addr: Address,
    /// `SO_COOKIE` of the socket, 0 where the hook does not know it.
    pub cookie: u64,
    /// `CLOCK_BOOTTIME`, in nanoseconds.
    pub boot_ns: u64,
    /// [`EventKind`].
    pub kind: u32,
    /// The rule that it is about; [`RULE_STRICT`] where none.
    pub rule: u32,
    /// The protected user id by which it was caught.
    pub owner: u32,
    /// Real user id of the process at work; [`UID_NONE`] where no process was.
    pub uid: u32,
    /// Its process id in the initial pid namespace; 0 where no process was.
    pub pid: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// Port of `addr`, in host byte order.
    pub port: u32,
    /// Zero.
    pub zero: u32,
}

/// Key of a tally.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TallyKey {
    /// The protected user id.
    pub owner: u32,
    /// The rule.
    pub rule: u32,
}

/// What became of the sockets of one user id to the destinations of one rule.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// `connect()` led to the gate.
    pub redirected: u64,
    /// The gate's end was established, with a capture.
    pub accepted: u64,
    /// Refused by a hook.
    pub refused: u64,
    /// Sockets whose packets the guard dropped.
    pub dropped: u64,
    /// Let pass directly: open on failure, or exempt.
    pub exempt: u64,
}

/// Sizes, offsets and limits, for the hash over the layout.
pub(crate) const FACTS: &[usize] = &[
    size_of::<Offsets>(),
    offset_of!(Offsets, task_tgid),
    offset_of!(Offsets, cred_uid),
    offset_of!(Offsets, cred_euid),
    offset_of!(Offsets, sk_uid),
    offset_of!(Offsets, sk_owned),
    size_of::<Tag>(),
    offset_of!(Tag, owner),
    offset_of!(Tag, flags),
    offset_of!(Tag, port),
    size_of::<Event>(),
    offset_of!(Event, cookie),
    offset_of!(Event, boot_ns),
    offset_of!(Event, kind),
    offset_of!(Event, rule),
    offset_of!(Event, owner),
    offset_of!(Event, uid),
    offset_of!(Event, pid),
    offset_of!(Event, protocol),
    offset_of!(Event, port),
    size_of::<TallyKey>(),
    size_of::<Tally>(),
    EVENTS_BYTES as usize,
    TALLIES_MAX as usize,
    KEPT_MAX as usize,
];
