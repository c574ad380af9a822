//! A clock that stands still until a test moves it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Wall and boot time in nanoseconds.
#[derive(Debug, Default)]
pub struct SimClock {
    wall_ns: AtomicU64,
    boot_ns: AtomicU64,
}

impl SimClock {
    /// A clock at these times.
    pub fn new(wall_ns: u64, boot_ns: u64) -> Self {
        Self { wall_ns: wall_ns.into(), boot_ns: boot_ns.into() }
    }

    /// Nanoseconds since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.wall_ns.load(Ordering::SeqCst)
    }

    /// Nanoseconds since boot.
    pub fn boot_ns(&self) -> u64 {
        self.boot_ns.load(Ordering::SeqCst)
    }

    /// Both move on.
    pub fn advance_ns(&self, ns: u64) {
        self.wall_ns.fetch_add(ns, Ordering::SeqCst);
        self.boot_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// Someone sets the wall clock, back too.
    pub fn set_wall_ns(&self, ns: u64) {
        self.wall_ns.store(ns, Ordering::SeqCst);
    }
}
