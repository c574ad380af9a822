//! What the kernel programs tell: events, and the tallies of sockets.
//!
//! Limits: [`EVENTS_MAX`] events a look; the rest waits in the ring.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, RingBuf};
use tidegate_agent_common::{Event, Tally, TallyKey};

use super::tables::{at, take};
use super::{CaptureError, sys};

/// Most events that one look takes out.
const EVENTS_MAX: usize = 4096;

/// The maps that are read.
pub(super) struct Told {
    events: RingBuf<MapData>,
    tallies: HashMap<MapData, TallyKey, Tally>,
    kept: HashMap<MapData, u64, u32>,
}

impl Told {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        Ok(Self {
            events: take(ebpf, "EVENTS")?,
            tallies: take(ebpf, "TALLIES")?,
            kept: take(ebpf, "KEPT")?,
        })
    }

    /// The events since the last look, in order.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < EVENTS_MAX
            && let Some(item) = self.events.next()
        {
            events.extend(sys::event(&item));
        }
        events
    }

    /// All tallies, by user id and rule.
    pub(super) fn tallies(&self) -> Result<BTreeMap<TallyKey, Tally>, CaptureError> {
        self.tallies.iter().collect::<Result<_, _>>().map_err(at("TALLIES"))
    }

    /// Lets these sockets go on, and none from a start before.
    pub(super) fn keep(&mut self, cookies: &[u64]) -> Result<(), CaptureError> {
        let old: Vec<u64> = self.kept.keys().collect::<Result<_, _>>().map_err(at("KEPT"))?;
        for cookie in cookies {
            self.kept.insert(cookie, 1, 0).map_err(at("KEPT"))?;
        }
        for cookie in old.into_iter().filter(|cookie| !cookies.contains(cookie)) {
            self.kept.remove(&cookie).map_err(at("KEPT"))?;
        }
        Ok(())
    }
}
