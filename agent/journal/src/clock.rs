//! Where the journal's times come from.

use std::io;

use nix::time::{ClockId, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The two times that each record holds.
pub trait Clock: Send + Sync {
    /// Wall clock, nanoseconds since 1970.
    fn wall_ns(&self) -> u64;
    /// Time since boot with suspends, nanoseconds; it never goes back.
    fn boot_ns(&self) -> u64;
}

/// `CLOCK_REALTIME` and `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ns(&self) -> u64 {
        read(ClockId::CLOCK_REALTIME)
    }

    fn boot_ns(&self) -> u64 {
        read(ClockId::CLOCK_BOOTTIME)
    }
}

/// Nanoseconds of a clock; 0 where it can't be read or stands before its epoch.
fn read(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(NS_PER_S).saturating_add(nanoseconds)
    })
}

/// The kernel's id of this boot.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string(BOOT_ID_FILE)?;
    let id = text.trim().replace('-', "").parse::<tidegate_event::SessionId>();
    id.map(|id| id.0).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
