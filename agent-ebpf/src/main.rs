//! The kernel side: leads the TCP connections of protected user ids to the gate, and notes on the
//! socket who wanted which address.
//!
//! Promises: what matches a rule reaches the gate or fails; a capture belongs to one accepted
//! socket and cannot be forged by connecting to the gate directly; the rule table is read from
//! one half of a double buffer, never from a half that is being written.
//!
//! Limits: see `tidegate-agent-common`. Needs kernel 5.15 (`bpf_get_netns_cookie` in sockops).
//!
//! Known gaps: packet, vsock and local sockets are not seen (`docs/THREATS.md`).

#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

mod bind;
mod connect;
mod create;
mod getpeername;
mod getsockopt;
mod guard;
mod maps;
mod peek;
mod rules;
mod sendmsg;
mod sockops;
mod tell;

use tidegate_agent_common::{ABI, Abi};

/// Read by the agent from the object file before anything is loaded.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".tidegate.abi")]
static TIDEGATE_ABI: Abi = ABI;

/// The kernel lends some helpers (`bpf_ktime_get_ns`) only to programs with a licence string from
/// its own list (`include/linux/license.h`).
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the programs hold no code that panics, and the verifier refuses endless loops.
    loop {}
}
