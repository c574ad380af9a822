//! Agents that are not heard of: said in the collector's own chain, since they cannot say it themselves.
//!
//! Promises: an agent whose heartbeats stop is a record [`SILENT_NS_MAX`] after the last one came in, and another one
//! when they come again. Time is the boot clock, which nobody sets.
//!
//! Limits: an agent that was never heard is not waited for (`coverage` tells of it). After the collector's own
//! start, agents have [`START_NS`] more, since they try again at most that late; one that was silent before is then
//! told of again.

use std::collections::HashMap;

use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::{Silence, silence::Phase};

use crate::coverage::BEAT_GAP_NS_MAX;

/// Longest time without a heartbeat, in nanoseconds.
pub const SILENT_NS_MAX: u64 = BEAT_GAP_NS_MAX.cast_unsigned();

/// What agents have beyond it after the collector's start, in nanoseconds: the uplink's longest wait.
pub const START_NS: u64 = 30_000_000_000;

/// Field of a record that holds a heartbeat (`audit.proto`).
const HEARTBEAT_FIELD: u32 = 22;

/// When each agent was heard last.
#[derive(Debug, Default)]
pub struct Silences {
    heard: HashMap<String, Heard>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    /// By the wall clock, for people.
    at_ns: u64,
    /// By the boot clock.
    boot_ns: u64,
    is_silent: bool,
}

/// Whether a record is a heartbeat.
pub fn is_heartbeat(record: &[u8]) -> bool {
    tidegate_ledger::has_field(record, HEARTBEAT_FIELD)
}

impl Silences {
    /// Waits for these agents from the collector's start on.
    pub fn begin<'a>(agents: impl Iterator<Item = &'a str>, at_ns: u64, boot_ns: u64) -> Self {
        let boot_ns = boot_ns.saturating_add(START_NS);
        let heard = Heard { at_ns, boot_ns, is_silent: false };
        Self { heard: agents.map(|agent| (agent.to_owned(), heard)).collect() }
    }

    /// A heartbeat came in; what is to be said of it.
    pub fn heard(&mut self, agent: &str, at_ns: u64, boot_ns: u64) -> Option<Body> {
        let now = Heard { at_ns, boot_ns, is_silent: false };
        let before = self.heard.insert(agent.to_owned(), now)?;
        before.is_silent.then(|| body(agent, Phase::Ended, before, boot_ns))
    }

    /// What is to be said now.
    pub fn look(&mut self, boot_ns: u64) -> Vec<Body> {
        let mut said = Vec::new();
        for (agent, heard) in &mut self.heard {
            if !heard.is_silent && boot_ns.saturating_sub(heard.boot_ns) > SILENT_NS_MAX {
                heard.is_silent = true;
                said.push(body(agent, Phase::Began, *heard, boot_ns));
            }
        }
        said
    }
}

fn body(agent: &str, phase: Phase, heard: Heard, boot_ns: u64) -> Body {
    let detail = match phase {
        Phase::Ended => "it is heard again; coverage says what is known of the time between",
        _ => "the agent, its host or the way here is down, or the agent is paused",
    };
    Body::Silence(Silence {
        phase: phase.into(),
        agent_id: agent.to_owned(),
        heard_ns: heard.at_ns,
        silent_ns: boot_ns.saturating_sub(heard.boot_ns),
        detail: detail.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn said(bodies: &[Body]) -> Vec<(String, Phase, u64)> {
        let one = |body: &Body| match body {
            Body::Silence(one) => (one.agent_id.clone(), one.phase(), one.silent_ns / SECOND),
            other => panic!("{other:?}"),
        };
        bodies.iter().map(one).collect()
    }

    #[test]
    fn a_silence_is_told_once_and_so_is_its_end() {
        let mut silences = Silences::default();
        assert_eq!(silences.heard("a", 1, 100 * SECOND), None);
        assert_eq!(silences.look(125 * SECOND), []);
        let began = ("a".to_owned(), Phase::Began, 26);
        assert_eq!(said(&silences.look(126 * SECOND)), [began]);
        assert_eq!(silences.look(500 * SECOND), []);
        let ended: Vec<Body> = silences.heard("a", 2, 501 * SECOND).into_iter().collect();
        assert_eq!(said(&ended), [("a".to_owned(), Phase::Ended, 401)]);
        assert_eq!(silences.heard("a", 3, 511 * SECOND), None);
    }

    #[test]
    fn after_a_start_agents_have_time_to_come_back() {
        let mut silences = Silences::begin(["a"].into_iter(), 0, 0);
        assert_eq!(silences.look(55 * SECOND), []);
        assert_eq!(silences.look(56 * SECOND).len(), 1);
    }
}
