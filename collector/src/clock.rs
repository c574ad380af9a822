//! Reads the wall clock, in one place. Order never depends on it: log indexes give the order.

use std::time::{SystemTime, UNIX_EPOCH};

/// `CLOCK_REALTIME` in nanoseconds; 0 for a clock before 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The boot clock in nanoseconds, as `/proc/uptime` has it (to 10 ms); 0 where it can't be read.
pub fn boot_ns() -> u64 {
    const TICK_NS: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let ticks = text.split(' ').next().unwrap_or_default().replace('.', "");
    ticks.parse::<u64>().unwrap_or(0).saturating_mul(TICK_NS)
}

/// The kernel's boot id; zeros where it can't be read.
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0; 16];
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    // What is no id leaves the zeros.
    let _kept = hex::decode_to_slice(digits, &mut id);
    id
}

/// Nanoseconds as SQLite and jiff take them.
pub fn signed_ns(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, for people and JSON.
pub fn rfc3339(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .map_or_else(|_| format!("{ns} ns"), |time| format!("{time:.6}"))
}
