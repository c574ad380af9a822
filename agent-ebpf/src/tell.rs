//! Events for the agent, which makes records of them.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use tidegate_agent_common::{Address, Count, Event, EventKind};

use crate::maps::{EVENTS, count};

/// What an event is about.
pub struct About {
    pub kind: EventKind,
    pub rule: u32,
    pub owner: u32,
    pub uid: u32,
    pub pid: u32,
    pub addr: Address,
    pub port: u16,
    pub protocol: u32,
}

/// Puts the event into the ring. `cookie` is the socket's, 0 where it is not known.
#[inline(always)]
pub fn tell(about: &About, cookie: u64) {
    let Some(mut room) = EVENTS.reserve(0) else {
        count(Count::EventLost);
        return;
    };
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    room.write(Event {
        addr: about.addr,
        cookie,
        boot_ns,
        kind: about.kind as u32,
        rule: about.rule,
        owner: about.owner,
        uid: about.uid,
        pid: about.pid,
        protocol: about.protocol,
        port: u32::from(about.port),
        zero: 0,
    });
    room.submit(0);
}
